//! What an application is told of a request.

use super::client::{Call, Client, Script};
use crate::exchange::{Authorization, Interface};

const SHOW: &str = r#"
async def application(scope, receive, send):
    wanted = dict(scope)
    body = "\n".join(f"{key}={wanted[key]!r}" for key in sorted(wanted)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"#;

fn shown(call: &Call<'_>) -> Vec<String> {
    let answer = Client::new().call(call);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.text().lines().map(str::to_owned).collect()
}

fn has(lines: &[String], wanted: &str) {
    assert!(
        lines.iter().any(|line| line == wanted),
        "{wanted}: {lines:#?}"
    );
}

#[test]
fn a_scope_has_everything() {
    let script = Script::new(SHOW);
    let lines = shown(&Call {
        uri: "/mount/caf%C3%A9?a=%20b",
        script_name: "/mount",
        path_info: "/caf\u{e9}",
        query: "a=%20b",
        headers: &[
            ("Host", "example.com"),
            ("X-UPPER", "Value"),
            ("Proxy", "evil"),
            ("Under_Score", "evil"),
            ("Authorization", "secret"),
        ],
        ..Call::to(&script)
    });
    for wanted in [
        "type='http'",
        "asgi={'version': '3.0', 'spec_version': '2.4'}",
        "http_version='1.1'",
        "method='GET'",
        "scheme='http'",
        "root_path='/mount'",
        "path='/mount/caf\u{e9}'",
        "raw_path=b'/mount/caf%C3%A9'",
        "query_string=b'a=%20b'",
        "headers=[(b'host', b'example.com'), (b'x-upper', b'Value')]",
        "server=('192.0.2.1', 8080)",
        "client=('192.0.2.9', 4711)",
        "state={}",
    ] {
        has(&lines, wanted);
    }
}

#[test]
fn what_the_configuration_lets_pass_is_there() {
    let script = Script::new(SHOW);
    let lines = shown(&Call {
        headers: &[("Authorization", "secret")],
        authorization: Authorization::Pass,
        https: true,
        variables: &[("SSL_PROTOCOL", "TLSv1.3"), ("SSL_CLIENT_S_DN", "CN=me")],
        ..Call::to(&script)
    });
    has(&lines, "headers=[(b'authorization', b'secret')]");
    has(&lines, "scheme='https'");
    let extensions = lines
        .iter()
        .find(|line| line.starts_with("extensions="))
        .unwrap();
    assert!(extensions.contains("'tls': {"), "{extensions}");
    assert!(extensions.contains("'tls_version': 772"), "{extensions}");
    assert!(
        extensions.contains("'client_cert_name': 'CN=me'"),
        "{extensions}"
    );
}

#[test]
fn app_is_as_good_a_name_unless_one_is_configured() {
    let script = Script::new(&SHOW.replace("application", "app"));
    assert_eq!(Client::new().call(&Call::to(&script)).status, 200);
    let answer = Client::new().call(&Call {
        callable: "other",
        ..Call::to(&script)
    });
    assert_eq!((answer.status, answer.is_error), (500, true));
    assert!(answer.logged("RWSGI0106"), "{answer:?}");
}

#[test]
fn instances_partials_and_classes_are_callables() {
    for source in [
        "class Application:\n    async def __call__(self, scope, receive, send):\n        await run(scope, receive, send)\napplication = Application()",
        "import functools\nasync def four(x, scope, receive, send):\n    await run(scope, receive, send)\napplication = functools.partial(four, 1)",
        "class application:\n    def __init__(self, *arguments):\n        self.arguments = arguments\n    def __await__(self):\n        return run(*self.arguments).__await__()",
    ] {
        let script = Script::new(&format!(
            "{}\n{source}\n",
            SHOW.replace("def application", "def run")
        ));
        let answer = Client::new().call(&Call::to(&script));
        assert_eq!(answer.status, 200, "{source}: {answer:?}");
        if !source.contains("__await__") {
            let answer = Client::new().call(&Call {
                interface: Interface::Auto,
                ..Call::to(&script)
            });
            assert_eq!(answer.status, 200, "{source}: {answer:?}");
        }
    }
}

#[test]
fn a_connection_serves_one_request_after_another() {
    let script = Script::new(SHOW);
    let mut client = Client::new();
    for _ in 0..50 {
        assert_eq!(client.call(&Call::to(&script)).status, 200);
    }
}

#[test]
fn a_changed_script_is_loaded_anew() {
    let mut script = Script::new(SHOW);
    let mut client = Client::new();
    assert_eq!(client.call(&Call::to(&script)).status, 200);
    script.change(&SHOW.replace("200", "201"));
    assert_eq!(client.call(&Call::to(&script)).status, 201);
    script.change("1 / 0");
    let answer = client.call(&Call::to(&script));
    assert_eq!(answer.status, 201, "the old code goes on");
    assert!(answer.logged("ZeroDivisionError"), "{answer:?}");
}
