//! Threads, and objects that outlive their request.

use std::sync::Barrier;

use super::{App, Call, PIECES, unvalidated};

#[test]
fn objects_of_a_request_that_has_ended_raise() {
    let app = App::new(
        "kept = []\n\
         def application(environ, start_response):\n\
         \x20   seen = []\n\
         \x20   for call in kept:\n\
         \x20       try: call()\n\
         \x20       except RuntimeError as error: seen.append(str(error))\n\
         \x20   inp, err = environ['wsgi.input'], environ['wsgi.errors']\n\
         \x20   kept[:] = [inp.read, inp.readline, inp.readlines, inp.close, lambda: next(inp), \
         lambda: err.write('x'), err.flush, lambda: start_response('200 OK', []), \
         lambda: start_response(b'x')]\n\
         \x20   start_response('200 OK', [])\n\
         \x20   return [str(len(seen)).encode()]\n",
    );
    assert_eq!(app.get().text(), "0");
    assert_eq!(app.get().text(), "9");
}

#[test]
fn thread_locals_survive_between_requests() {
    let app = App::new(
        "import threading\nlocal = threading.local()\n\
         def application(e, s):\n    local.count = getattr(local, 'count', 0) + 1\n\
         \x20   s('200 OK', [])\n    return [str(local.count).encode()]\n",
    );
    assert_eq!(app.get().text(), "1");
    assert_eq!(app.get().text(), "2");
    let elsewhere = std::thread::scope(|scope| scope.spawn(|| app.get().text()).join());
    assert_eq!(elsewhere.unwrap(), "1");
    assert_eq!(app.get().text(), "3");
}

#[test]
fn many_threads_at_once() {
    let app = unvalidated(
        "import time\ntime.sleep(0)\nstart_response('200 OK', TEXT)\n\
         yield environ['QUERY_STRING'].encode()\nyield b'!'",
    );
    let barrier = Barrier::new(8);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (app, barrier) = (&app, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for round in 0..200 {
                    let query = format!("{number}-{round}");
                    let answer = app.call(Call {
                        query_string: &query,
                        ..Call::default()
                    });
                    assert_eq!(answer.text(), format!("{query}!"));
                }
            });
        }
    });
}

#[test]
fn foreign_threads_may_use_the_request_while_it_lasts() {
    let app = unvalidated(
        "import threading\nread = []\n\
         def work():\n    read.append(environ['wsgi.input'].read())\n\
         \x20   print('from a thread', file=environ['wsgi.errors'])\n\
         \x20   write(b'written')\n\
         write = start_response('200 OK', TEXT)\n\
         thread = threading.Thread(target=work)\nthread.start()\nthread.join()\n\
         return read",
    );
    let answer = app.call(Call {
        body: PIECES,
        ..Call::default()
    });
    assert_eq!(answer.text(), "writtenone\ntwo\nthree");
    assert!(answer.logged("from a thread"));
}
