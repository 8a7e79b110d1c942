//! `wsgi.input`.

use super::memory_exchange::RequestBody;
use super::{Call, PIECES, evaluate, unvalidated};

fn read(expression: &str) -> String {
    let call = Call {
        method: "POST",
        body: PIECES,
        ..Call::default()
    };
    evaluate(&expression.replace("inp", "environ['wsgi.input']"), call)
}

#[test]
fn input_methods() {
    for (expression, expected) in [
        ("inp.read()", "b'one\\ntwo\\nthree'"),
        ("inp.read(-1)", "b'one\\ntwo\\nthree'"),
        ("inp.read(None)", "b'one\\ntwo\\nthree'"),
        (
            "[inp.read(4), inp.read(0), inp.read(100), inp.read(5)]",
            "[b'one\\n', b'', b'two\\nthree', b'']",
        ),
        (
            "[inp.readline(), inp.readline(2), inp.readline(), inp.readline(), inp.readline()]",
            "[b'one\\n', b'tw', b'o\\n', b'three', b'']",
        ),
        (
            "[inp.readline(0), inp.readline(), inp.read()]",
            "[b'', b'one\\n', b'two\\nthree']",
        ),
        ("inp.readlines()", "[b'one\\n', b'two\\n', b'three']"),
        ("inp.readlines(5)", "[b'one\\n', b'two\\n']"),
        ("list(inp)", "[b'one\\n', b'two\\n', b'three']"),
        (
            "[inp.read(), list(inp), inp.readlines(), inp.read()]",
            "[b'one\\ntwo\\nthree', [], [], b'']",
        ),
        ("inp.close()", "None"),
    ] {
        assert_eq!(read(expression), expected, "{expression}");
    }
    let bad = unvalidated("environ['wsgi.input'].read('x')");
    assert!(bad.get().logged("TypeError"));
}

#[test]
fn a_large_body_is_read_in_any_step() {
    let piece = [b'p'; 10_000];
    let pieces = [&piece[..]; 300];
    for step in ["-1", "1_000", "65_536", "3_000_000", "10_000_000"] {
        let call = Call {
            method: "POST",
            body: RequestBody {
                pieces: &pieces,
                failure: None,
            },
            ..Call::default()
        };
        let expression = format!(
            "(lambda inp: sum(map(len, iter(lambda: inp.read({step}), b''))))(environ['wsgi.input'])"
        );
        assert_eq!(evaluate(&expression, call), "3000000", "{step}");
    }
}

#[test]
fn a_body_that_fails() {
    let call = || Call {
        method: "POST",
        body: RequestBody {
            pieces: &[b"begin"],
            failure: Some(408),
        },
        ..Call::default()
    };
    let app = unvalidated("environ['wsgi.input'].read()");
    let answer = app.call(call());
    assert_eq!(answer.outcome, 408);
    answer.assert_quiet();
    let app = unvalidated(
        "seen = []\n\
         for _ in range(2):\n    try: environ['wsgi.input'].read()\n    except OSError as error: seen.append(str(error))\n\
         start_response('200 OK', TEXT)\nreturn ['; '.join(seen).encode()]",
    );
    let text = app.call(call()).text();
    assert!(
        text.contains("did not send it in time") && text.contains("error state"),
        "{text}"
    );
}
