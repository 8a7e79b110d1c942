//! What applications return, and how it ends.

use super::{Call, unvalidated, validated};
use crate::exchange::Send;
use crate::exchange::abi::outcome;

#[test]
fn a_list_goes_out_in_one_piece() {
    let app = unvalidated("start_response('200 OK', TEXT)\nreturn [b'Hello', b' ', b'World']");
    let answer = app.get();
    assert_eq!(answer.outcome, outcome::DONE);
    assert_eq!(answer.status, "200 OK");
    assert_eq!(answer.sends, [(Send::End, b"Hello World".to_vec())]);
    assert_eq!(answer.blocking_reads, 0);
    answer.assert_quiet();
}

#[test]
fn large_items_of_a_list_are_lent_and_intact() {
    let app = unvalidated(
        "start_response('200 OK', TEXT)\nreturn (b'a' * 100, b'b' * 100_000, b'c' * 100)",
    );
    let answer = app.get();
    let expected = [vec![b'a'; 100], vec![b'b'; 100_000], vec![b'c'; 100]].concat();
    assert_eq!(answer.sends, [(Send::End, expected)]);
}

#[test]
fn an_iterator_is_flushed_item_by_item() {
    let app = validated("start_response('200 OK', TEXT)\nreturn iter([b'a', b'', b'b'])");
    let answer = app.get();
    let sends: Vec<_> = answer.sends.iter().map(|(how, d)| (*how, &d[..])).collect();
    assert_eq!(
        sends,
        [
            (Send::Flush, &b"a"[..]),
            (Send::Flush, b"b"),
            (Send::End, b"")
        ]
    );
    answer.assert_quiet();
}

#[test]
fn a_generator_may_start_the_response_late() {
    let app = unvalidated(
        "def body():\n    start_response('201 Created', TEXT)\n    yield b'late'\nreturn body()",
    );
    let answer = app.get();
    assert_eq!(
        (answer.status.as_str(), answer.text()),
        ("201 Created", "late".into())
    );
}

#[test]
fn iteration_stops_at_the_declared_length() {
    let app = unvalidated(
        "start_response('200 OK', TEXT + [('Content-Length', '4')])\n\
         def body():\n    yield b'abc'\n    yield b'def'\n    raise AssertionError('asked for more')\n\
         return body()",
    );
    let answer = app.get();
    assert_eq!(answer.text(), "abcd");
    assert_eq!(answer.sends.last().unwrap().0, Send::End);
    answer.assert_quiet();
}

#[test]
fn a_response_shorter_than_declared_is_cut() {
    for body in ["return [b'abc']", "return iter([b'abc'])"] {
        let app = unvalidated(&format!(
            "start_response('200 OK', TEXT + [('Content-Length', '10')])\n{body}"
        ));
        let answer = app.get();
        assert_eq!(answer.outcome, outcome::CUT);
        assert!(answer.aborted && answer.logged("RWSGI0203"));
        assert_eq!(answer.text(), "abc");
        assert!(answer.sends.iter().all(|(how, _)| *how != Send::End));
    }
    let head =
        unvalidated("start_response('200 OK', TEXT + [('Content-Length', '10')])\nreturn []");
    let answer = head.call(Call {
        method: "HEAD",
        ..Call::default()
    });
    assert_eq!(answer.outcome, outcome::DONE);
    answer.assert_quiet();
}

#[test]
fn exceptions_before_and_after_the_head() {
    let before = unvalidated("start_response('200 OK', TEXT)\nraise ValueError('früh')");
    let answer = before.get();
    assert_eq!(answer.outcome, 500);
    assert!(answer.sends.is_empty());
    assert!(answer.logged("RWSGI0200") && answer.logged("ValueError: früh"));
    assert!(answer.logged("in application"), "{:?}", answer.log);
    assert!(!answer.logged("<rwsgi>"));

    let after =
        unvalidated("start_response('200 OK', TEXT)\nyield b'begun'\nraise ValueError('late')");
    let answer = after.get();
    assert_eq!(answer.outcome, outcome::CUT);
    assert!(answer.aborted && answer.logged("RWSGI0206"));
    assert_eq!(answer.text(), "begun");
}

#[test]
fn system_exit_is_survived() {
    let answer = unvalidated("raise SystemExit(3)").get();
    assert_eq!(answer.outcome, 500);
    assert!(answer.logged("RWSGI0201"));
}

#[test]
fn results_that_are_none() {
    for (body, expected) in [
        ("return None", "TypeError"),
        ("start_response('200 OK', TEXT)\nreturn None", "TypeError"),
        ("return [b'x']", "start_response was not called"),
        ("return []", "start_response was not called"),
        ("return iter([])", "start_response was not called"),
        (
            "start_response('200 OK', TEXT)\nreturn ['text']",
            "must yield bytes, not str",
        ),
        (
            "start_response('200 OK', TEXT)\nyield 'text'",
            "must yield bytes, not str",
        ),
        (
            "start_response('200 OK', TEXT)\nreturn [bytearray(b'x')]",
            "not bytearray",
        ),
    ] {
        let answer = unvalidated(body).get();
        assert_eq!(answer.outcome, 500, "{body}");
        assert!(answer.logged(expected), "{body}: {:?}", answer.log);
    }
}

#[test]
fn close_is_called_once_whatever_happens() {
    let class = "import sys\n\
         class Body:\n    def __iter__(self): return self\n    step = 0\n\
         \x20   def __next__(self):\n        self.step += 1\n        return self.block()\n\
         \x20   def close(self): print('closed', file=sys.stderr)\n\
         start_response('200 OK', TEXT)\n";
    for (block, gone_after) in [
        ("b'x' if self.step < 3 else next(iter(()))", None),
        ("b'x' if self.step < 3 else 1 / 0", None),
        ("1 / 0", None),
        ("'text'", None),
        ("b'x'", Some(2)),
    ] {
        let app = unvalidated(&format!(
            "{class}Body.block = lambda self: {block}\nreturn Body()"
        ));
        let answer = app.call(Call {
            gone_after,
            ..Call::default()
        });
        let closed = answer
            .log
            .iter()
            .filter(|(_, line)| line == "closed")
            .count();
        assert_eq!(closed, 1, "{block}: {:?}", answer.log);
    }
    let raising = unvalidated(
        "class Body(list):\n    def close(self): raise KeyError('in close')\n\
         start_response('200 OK', TEXT)\nreturn Body([b'fine'])",
    );
    let answer = raising.get();
    assert_eq!(
        (answer.outcome, answer.text()),
        (outcome::DONE, "fine".into())
    );
    assert!(answer.logged("RWSGI0204"));
}

#[test]
fn a_vanished_client_ends_the_iteration_and_write_raises() {
    let endless = unvalidated("start_response('200 OK', TEXT)\nwhile True: yield b'x'");
    let call = Call {
        gone_after: Some(3),
        ..Call::default()
    };
    let answer = endless.call(call);
    assert_eq!(answer.outcome, outcome::CUT);
    answer.assert_quiet();
    let writer = unvalidated(
        "write = start_response('200 OK', TEXT)\n\
         try:\n    while True: write(b'x')\n\
         except OSError as error: print(error, file=environ['wsgi.errors'])\nreturn []",
    );
    let answer = writer.call(Call {
        gone_after: Some(3),
        ..Call::default()
    });
    assert!(answer.logged("the client has closed the connection"));
    let careless =
        unvalidated("write = start_response('200 OK', TEXT)\nwhile True: write(b'x')\nreturn []");
    let answer = careless.call(Call {
        gone_after: Some(3),
        ..Call::default()
    });
    assert_eq!(answer.outcome, outcome::CUT);
    answer.assert_quiet();
    assert!(answer.logged("the client left before the response ended"));
}
