//! `start_response` and `write`.

use super::{unvalidated, validated};
use crate::exchange::Send;

#[test]
fn start_response_refuses() {
    for (call, expected) in [
        ("b'200 OK', []", "TypeError: status must be str"),
        (
            "'200 OK', ()",
            "TypeError: start_response() argument 2 must be list",
        ),
        (
            "'200 OK', [['a', 'b']]",
            "TypeError: each header must be a 2-tuple",
        ),
        (
            "'200 OK', [('a',)]",
            "ValueError: each header must be a 2-tuple, got length 1",
        ),
        (
            "'200 OK', [(b'a', 'b')]",
            "TypeError: header names must be str",
        ),
        (
            "'200 OK', [('a', 1)]",
            "TypeError: header values must be str",
        ),
        ("'200 OK', [('a', '\\u0100')]", "UnicodeEncodeError"),
        ("'\\u0100', []", "UnicodeEncodeError"),
        (
            "'20', []",
            "ValueError: status code must be a 3 digit integer",
        ),
        ("'200OK', []", "ValueError: no space following"),
        ("'200 a\\nb', []", "ValueError: control character"),
        ("'200 OK', [('', 'b')]", "ValueError: header name is empty"),
        (
            "'200 OK', [('a b', 'b')]",
            "ValueError: space character in header name: b'a b'",
        ),
        (
            "'200 OK', [('a\\tb', 'b')]",
            "ValueError: control character in header name: b'a\\tb'",
        ),
        ("'200 OK', [('a:', 'b')]", "ValueError: header name has"),
        (
            "'200 OK', [('a', 'b\\r\\nc: d')]",
            "ValueError: carriage return/line feed character in header value: b'b\\r\\nc: d'",
        ),
        (
            "'200 OK', [('Connection', 'close')]",
            "ValueError: hop-by-hop",
        ),
        (
            "'200 OK', [('Content-Length', 'x')]",
            "ValueError: Content-Length",
        ),
        (
            "'200 OK', [], 'x'",
            "RuntimeError: start_response() argument 'exc_info' must be a 3-tuple or None",
        ),
        ("'200 OK', [], None, 4", "TypeError: start_response() takes"),
        ("", "TypeError: start_response() takes"),
        (
            "'200 OK', headers=[]",
            "TypeError: start_response() takes no keyword",
        ),
    ] {
        let answer = unvalidated(&format!("start_response({call})\nreturn [b'x']")).get();
        assert_eq!(answer.outcome, 500, "{call}");
        assert!(answer.logged(expected), "{call}: {:?}", answer.log);
    }
}

#[test]
fn a_second_start_response() {
    // Nothing has been sent: the second one counts, as in mod_wsgi.
    let twice = "start_response('200 OK', [('A', '1')])\n\
                 start_response('201 X', [('B', '2')])\nreturn [b'x']";
    let answer = unvalidated(twice).get();
    assert_eq!(answer.status, "201 X");
    assert!(answer.headers.contains(&("B".to_owned(), "2".to_owned())));
    assert!(!answer.headers.iter().any(|(name, _)| name == "A"));

    let late = "start_response('200 OK', [])(b'x')\nstart_response('201 X', [])";
    assert!(
        unvalidated(late)
            .get()
            .logged("RuntimeError: start_response() called more than once")
    );

    let replaced = unvalidated(
        "import sys\nstart_response('200 OK', [('A', '1')])\n\
         try: raise KeyError('k')\n\
         except KeyError: start_response('500 Oops', [('B', '2')], sys.exc_info())\n\
         return [b'sorry']",
    );
    let answer = replaced.get();
    assert_eq!(answer.status, "500 Oops");
    assert_eq!(answer.headers, [("B".to_owned(), "2".to_owned())]);

    let too_late = unvalidated(
        "import sys\nstart_response('200 OK', [])\nyield b'x'\n\
         try: raise KeyError('original')\n\
         except KeyError: start_response('500 Oops', [], sys.exc_info())",
    );
    let answer = too_late.get();
    assert!(answer.aborted && answer.logged("KeyError: 'original'"));
}

#[test]
fn write_comes_before_the_iterable() {
    let app = validated(
        "write = start_response('200 OK', TEXT)\nwrite(b'a')\nwrite(b'b')\nreturn [b'c']",
    );
    let answer = app.get();
    assert_eq!(answer.text(), "abc");
    assert_eq!(answer.sends[0], (Send::Flush, b"a".to_vec()));
    answer.assert_quiet();
    let bad = unvalidated("start_response('200 OK', TEXT)('text')\nreturn []");
    assert!(bad.get().logged("write() argument must be bytes, not str"));
}
