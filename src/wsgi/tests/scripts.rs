//! Scripts, groups and interpreters.

use super::{App, Call, unvalidated};

#[test]
fn scripts_are_reloaded_when_they_change() {
    let source = |text: &str| {
        format!("def application(e, s):\n    s('200 OK', [])\n    return [b'{text}']\n")
    };
    let mut app = App::new(&source("first"));
    assert_eq!(app.get().text(), "first");
    app.change(&source("second"));
    assert_eq!(app.get().text(), "second");
    app.change("def application(:\n");
    let answer = app.get();
    assert_eq!(answer.text(), "second");
    assert!(answer.logged("RWSGI0104") && answer.logged("SyntaxError"));
    let again = app.get();
    assert_eq!(again.text(), "second");
    again.assert_quiet();
    let failing = app.call(Call {
        keep_on_failure: false,
        ..Call::default()
    });
    assert_eq!(failing.outcome, 500);
    app.change(&source("third"));
    assert_eq!(app.get().text(), "third");
}

#[test]
fn a_script_that_never_loaded() {
    let mut app = App::new("import no_such_module\n");
    let answer = app.get();
    assert_eq!(answer.outcome, 500);
    assert!(answer.logged("RWSGI0103") && answer.logged("no_such_module"));
    assert!(!answer.logged("<rwsgi>"), "{:?}", answer.log);
    app.change("application = 3\n");
    assert!(app.get().logged("TypeError"));
    let missing = app.call(Call {
        callable: "app",
        ..Call::default()
    });
    assert!(missing.logged("RWSGI0106"));
}

#[test]
fn modules_can_ask_for_a_reload() {
    let app = App::new(
        "import builtins\n\
         builtins.loads = getattr(builtins, 'loads', 0) + 1\n\
         def reload_required(resource):\n    return builtins.answer(resource)\n\
         builtins.answer = lambda resource: False\n\
         def application(e, s):\n    s('200 OK', [])\n    return [str(builtins.loads).encode()]\n",
    );
    assert_eq!(app.get().text(), "1");
    assert_eq!(app.get().text(), "1");
    let set = |expression: &str| {
        unvalidated(&format!(
            "import builtins\nbuiltins.answer = lambda resource: {expression}\n\
             start_response('200 OK', [])\nreturn []"
        ))
        .get()
        .assert_quiet();
    };
    set("resource.endswith('.wsgi')");
    assert_eq!(app.get().text(), "2");
    set("1 / 0");
    let answer = app.get();
    assert_eq!(answer.text(), "2");
    assert!(answer.logged("RWSGI0105"));
}

#[test]
fn groups_do_not_share_modules() {
    let source = "import sys\n\
         def application(e, s):\n    s('200 OK', [])\n\
         \x20   before = 'shared' in sys.modules\n    sys.modules['shared'] = sys\n\
         \x20   import mod_wsgi\n\
         \x20   return [f'{before} {mod_wsgi.application_group} {__name__[:10]}'.encode()]\n";
    let mut app = App::new(source);
    app.group = "one";
    assert_eq!(app.get().text(), "False one _mod_wsgi_");
    assert_eq!(app.get().text(), "True one _mod_wsgi_");
    app.group = "two";
    assert_eq!(app.get().text(), "False two _mod_wsgi_");
}

#[test]
fn signals_belong_to_the_server() {
    let app = unvalidated(
        "import signal\nbefore = signal.getsignal(signal.SIGTERM)\n\
         signal.signal(signal.SIGTERM, lambda *_: None)\n\
         start_response('200 OK', TEXT)\n\
         return [str(signal.getsignal(signal.SIGTERM) == before).encode()]",
    );
    assert_eq!(app.get().text(), "True");
    let log = super::PROCESS_LOG.lock().unwrap();
    assert!(log.iter().any(|line| line.contains("RWSGI0109")), "{log:?}");
}
