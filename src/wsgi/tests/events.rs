//! Events, and what else the module `mod_wsgi` offers.

use super::{App, Call, evaluate};

/// An application in a group of its own, so that its subscribers hear nothing of other tests.
fn app(group: &'static str, source: &str) -> App {
    let mut app = App::new(source);
    app.group = group;
    app
}

const NOTING: &str = "import mod_wsgi\n\
    seen = []\n\
    @mod_wsgi.subscribe_events\n\
    def note(name, **event):\n\
    \x20   seen.append((name, event))\n\
    \x20   if name == 'request_started':\n\
    \x20       return {'application_object': event['application_object'], 'extra': 1}\n\
    @mod_wsgi.subscribe_events\n\
    def more(name, *, extra=None, **event):\n\
    \x20   if name == 'request_started': assert extra == 1\n\
    \x20   if event['request_data'].get('fail'): raise ValueError(name)\n";

#[test]
fn events_of_a_request() {
    let app = app(
        "events",
        &format!(
            "{NOTING}\
             def application(environ, start_response):\n\
             \x20   if environ['QUERY_STRING'] == 'names':\n\
             \x20       start_response('200 OK', [])\n\
             \x20       return [' '.join(name for name, _ in seen).encode()]\n\
             \x20   if environ['QUERY_STRING'] == 'last':\n\
             \x20       _, event = seen[-2]\n\
             \x20       start_response('200 OK', [])\n\
             \x20       return [repr([event[k] for k in ('status', 'output_length', \
             'output_writes', 'input_length', 'input_reads')]).encode()]\n\
             \x20   assert mod_wsgi.request_data() is seen[-1][1]['request_data']\n\
             \x20   body = environ['wsgi.input'].read()\n\
             \x20   start_response('201 Created', [])\n\
             \x20   return [body, b'more']\n"
        ),
    );
    let posted = app.call(Call {
        method: "POST",
        body: super::PIECES,
        ..Call::default()
    });
    assert_eq!(posted.text(), "one\ntwo\nthreemore");
    posted.assert_quiet();
    let names = app.call(Call {
        query_string: "names",
        ..Call::default()
    });
    assert_eq!(
        names.text(),
        "request_started response_started request_finished request_started response_started"
    );
    app.call(Call {
        method: "POST",
        body: super::PIECES,
        ..Call::default()
    });
    let last = app.call(Call {
        query_string: "last",
        ..Call::default()
    });
    // Two blocks, and at least one read that gave something.
    let text = last.text();
    assert!(text.starts_with("[201, 17, 2, 13, "), "{text}");
}

#[test]
fn exceptions_of_applications_and_subscribers() {
    let app = app(
        "exceptions",
        &format!(
            "{NOTING}\
             def application(environ, start_response):\n\
             \x20   if environ['QUERY_STRING'] == 'last':\n\
             \x20       start_response('200 OK', [])\n\
             \x20       told = {{name: event for name, event in seen[:-2]}}\n\
             \x20       kind, value, trace = told['request_exception']['exception_info']\n\
             \x20       assert kind is KeyError and trace is value.__traceback__\n\
             \x20       return [repr((value.args, told['request_finished']['status'])).encode()]\n\
             \x20   mod_wsgi.request_data()['fail'] = True\n\
             \x20   raise KeyError('application')\n"
        ),
    );
    let failed = app.get();
    assert_eq!(failed.outcome, 500);
    assert!(failed.logged("RWSGI0200: "));
    for name in ["request_exception", "request_finished"] {
        let line = format!("RWSGI0590: a callback for the event '{name}' raised: ValueError");
        assert!(failed.logged(&line), "{:?}", failed.log);
    }
    let last = app.call(Call {
        query_string: "last",
        ..Call::default()
    });
    assert_eq!(last.text(), "(('application',), 500)");
}

#[test]
fn running_requests_are_listed_once_somebody_looks() {
    let mut app = app(
        "active",
        "import mod_wsgi\n\
         def application(environ, start_response):\n\
         \x20   start_response('200 OK', [])\n\
         \x20   mod_wsgi.request_data()['query'] = environ['QUERY_STRING']\n\
         \x20   yield environ['QUERY_STRING'].encode()\n\
         \x20   active = mod_wsgi.active_requests\n\
         \x20   assert active is mod_wsgi.active_requests\n\
         \x20   yield repr(active).encode()\n",
    );
    for query in ["first", "second"] {
        let answer = app.call(Call {
            query_string: query,
            request_id: Some(query),
            ..Call::default()
        });
        answer.assert_quiet();
        let expected = format!("{query}{{'{query}': {{'query': '{query}'}}}}");
        assert_eq!(answer.text(), expected);
    }
    // What has no id is not listed.
    assert_eq!(app.get().text(), "{}");
    app.change(
        "import mod_wsgi, threading\n\
         def application(environ, start_response):\n\
         \x20   start_response('200 OK', [])\n\
         \x20   try: mod_wsgi.request_data()\n\
         \x20   except RuntimeError: yield b'no'\n\
         \x20   else: yield b'yes'\n",
    );
    assert_eq!(app.get().text(), "yes");
}

#[test]
fn requests_that_run_already_are_seen_at_the_first_look() {
    let app = &app(
        "looking",
        "import mod_wsgi, threading\n\
         running, looked = threading.Event(), threading.Event()\n\
         def application(environ, start_response):\n\
         \x20   start_response('200 OK', [])\n\
         \x20   if environ['QUERY_STRING'] == 'runs':\n\
         \x20       running.set()\n\
         \x20       assert looked.wait(20)\n\
         \x20       return [b'seen']\n\
         \x20   assert running.wait(20)\n\
         \x20   found = sorted(mod_wsgi.active_requests)\n\
         \x20   looked.set()\n\
         \x20   return [repr(found).encode()]\n",
    );
    // Loads it.
    let call = |query| {
        let call = Call {
            query_string: query,
            request_id: Some(query),
            ..Call::default()
        };
        app.call(call).text()
    };
    std::thread::scope(|scope| {
        let runs = scope.spawn(|| call("runs"));
        assert_eq!(call("looks"), "['looks', 'runs']");
        assert_eq!(runs.join().unwrap(), "seen");
    });
    assert_eq!(call("later"), "['later']");
}

#[test]
fn the_log_handler_has_levels() {
    use crate::exchange::Level;
    let app = app(
        "handler",
        "import logging, mod_wsgi\n\
         log = logging.getLogger('x')\n\
         log.addHandler(mod_wsgi.LogHandler())\n\
         log.setLevel(1)\n\
         log.propagate = False\n\
         def application(environ, start_response):\n\
         \x20   for level in (55, 45, 35, 25, 15): log.log(level, 'line\\nand %s', level)\n\
         \x20   start_response('200 OK', [])\n\
         \x20   return []\n",
    );
    let lines = app.get().log;
    let levels = [
        Level::Crit,
        Level::Error,
        Level::Warning,
        Level::Info,
        Level::Debug,
    ];
    assert_eq!(lines.len(), 10);
    for (pair, level) in lines.chunks(2).zip(levels) {
        assert_eq!(pair[0], (level, "line".to_owned()));
        assert_eq!((pair[1].0, &pair[1].1[..4]), (level, "and "));
    }
}

#[test]
fn the_module_has_what_mod_wsgi_has() {
    let names = "version process_group application_group maximum_processes threads_per_process \
                 event_callbacks shutdown_callbacks signal_callbacks active_requests FileWrapper \
                 RequestTimeout LogHandler subscribe_events subscribe_shutdown subscribe_signals \
                 request_data server_metrics process_metrics request_metrics \
                 start_recording_metrics";
    let missing = evaluate(
        &format!(
            "[name for name in {names:?}.split() for module in ('mod_wsgi', 'rwsgi') \
             if not hasattr(__import__(module), name) \
             or name not in dir(__import__(module))]"
        ),
        Call::default(),
    );
    assert_eq!(missing, "[]");
    let facts = "(lambda m: (m.__spec__.name, m.__name__, hasattr(m, '__path__'), \
                 issubclass(m.RequestTimeout, Exception)))(__import__('mod_wsgi'))";
    let expected = "('mod_wsgi', 'mod_wsgi', False, False)";
    assert_eq!(evaluate(facts, Call::default()), expected);
}
