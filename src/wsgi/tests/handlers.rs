//! Scripts that answer for other files.

use super::{App, Call};

const SOURCE: &str = "\
asked = []
def reload_required(resource):
    asked.append(resource)
def handle_request(environ, start_response):
    start_response('200 OK', [])
    keys = ['SCRIPT_FILENAME', 'mod_wsgi.handler_script', 'mod_wsgi.request_handler']
    told = [environ[key] for key in keys] + asked[-1:] + [str(__mtime__)]
    return [' '.join(told).encode('utf-8', 'surrogateescape')]
";

fn call(resource: &str) -> Call<'_> {
    Call {
        callable: "handle_request",
        handler_script: true,
        resource: Some(resource),
        ..Call::default()
    }
}

#[test]
fn each_resource_has_its_own_environ() {
    let app = App::new(SOURCE);
    let script = app.path.to_str().unwrap();
    assert_eq!(
        app.call(call("/first")).text(),
        format!("/first {script} mine 1")
    );
    // More of them than there are templates, each twice.
    for number in (0..100).chain(0..100) {
        let resource = format!("/srv/d\u{e9}j\u{e0} {number}");
        let expected = format!("{resource} {script} mine {resource} 1");
        assert_eq!(app.call(call(&resource)).text(), expected);
    }
}

#[test]
fn a_script_may_answer_for_itself_as_well() {
    let app = App::new(SOURCE);
    let script = app.path.to_str().unwrap();
    app.get();
    for _ in 0..2 {
        let by_handler = app.call(call("/x")).text();
        assert_eq!(by_handler, format!("/x {script} mine /x 1"));
        let by_itself = app.call(Call {
            callable: "handle_request",
            ..Call::default()
        });
        assert_eq!(
            by_itself.text(),
            format!("{script}  wsgi-script {script} 1")
        );
    }
}

#[test]
fn the_gateway_looks_where_the_server_could_not() {
    let mut app = App::new(SOURCE);
    app.mtime_us = 0;
    let told = app.call(call("/x")).text();
    let (_, mtime) = told.rsplit_once(' ').unwrap();
    assert!(
        mtime.parse::<i64>().unwrap() > 1_600_000_000_000_000,
        "{told}"
    );
    // It has not changed, so it is not loaded again.
    let again = app.call(call("/y")).text();
    assert!(again.ends_with(&format!(" /y {mtime}")), "{again}");
    // It is not there for a moment: the old code goes on.
    let aside = app.path.with_extension("aside");
    std::fs::rename(&app.path, &aside).unwrap();
    let missing = app.call(call("/z"));
    assert!(missing.text().ends_with(&format!(" /y {mtime}")));
    assert!(missing.logged("RWSGI0104") && missing.logged("FileNotFoundError"));
    std::fs::rename(&aside, &app.path).unwrap();
    let back = app.call(call("/z"));
    back.assert_quiet();
    assert!(
        back.text().ends_with(&format!(" /z {mtime}")),
        "{}",
        back.text()
    );
}

#[test]
fn a_handler_without_its_function() {
    let app = App::new("application = None\n");
    let answer = app.call(call("/x"));
    assert_eq!(answer.outcome, 500);
    assert!(answer.logged("RWSGI0106") && answer.logged("WSGIHandlerScript"));
}
