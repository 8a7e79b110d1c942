//! The cases. Each application is wrapped in `wsgiref.validate` where it is meant to conform.

use std::sync::Barrier;

use super::memory_exchange::RequestBody;
use super::{App, Call};
use crate::exchange::Send;
use crate::exchange::abi::outcome;

/// An application whose body is `body`, validated.
fn validated(body: &str) -> App {
    App::new(&format!(
        "from wsgiref.validate import validator\n\
         TEXT = [('Content-Type', 'text/plain')]\n\
         @validator\n\
         def application(environ, start_response):\n    {}\n",
        body.replace('\n', "\n    ")
    ))
}

/// The same without the validator, for what it would not let through.
fn unvalidated(body: &str) -> App {
    App::new(&format!(
        "TEXT = [('Content-Type', 'text/plain')]\n\
         def application(environ, start_response):\n    {}\n",
        body.replace('\n', "\n    ")
    ))
}

/// What an expression over `environ` gives.
fn evaluate(expression: &str, call: Call<'_>) -> String {
    let app = unvalidated(&format!(
        "result = {expression}\n\
         start_response('200 OK', TEXT)\n\
         return [repr(result).encode('utf-8')]"
    ));
    let answer = app.call(call);
    answer.assert_quiet();
    answer.text()
}

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
fn start_response_refuses() {
    for (call, expected) in [
        ("b'200 OK', []", "TypeError: status must be str"),
        ("'200 OK', ()", "TypeError: headers must be list"),
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
        ("'200 OK', [('a b', 'b')]", "ValueError: header name has"),
        (
            "'200 OK', [('a', 'b\\r\\nc: d')]",
            "ValueError: header value has",
        ),
        (
            "'200 OK', [('Connection', 'close')]",
            "ValueError: hop-by-hop",
        ),
        (
            "'200 OK', [('Content-Length', 'x')]",
            "ValueError: Content-Length",
        ),
        ("'200 OK', [], 'x'", "RuntimeError: exc_info must be tuple"),
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
    let twice = unvalidated("start_response('200 OK', [])\nstart_response('201 X', [])");
    assert!(
        twice
            .get()
            .logged("RuntimeError: start_response was called more than once")
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
}

#[test]
fn environ_of_a_plain_request() {
    let call = || Call {
        path_info: "/a/b",
        request_uri: "/m//a/b?q=1",
        script_name: "/m",
        query_string: "q=1",
        headers: &[
            ("Host", "example.org"),
            ("X-Odd", "1"),
            ("X_Bad", "2"),
            ("Proxy", "evil"),
            ("Authorization", "secret"),
            ("Content-Type", "text/x"),
        ],
        variables: &[
            ("FOO", "bar"),
            ("REQUEST_METHOD", "spoofed"),
            ("wsgi.input", "spoofed"),
            ("HTTP_HOST", "spoofed"),
            ("REMOTE_USER", "me"),
        ],
        ..Call::default()
    };
    let expression = "{k: v for k, v in environ.items() if isinstance(v, str)}";
    let shown = evaluate(expression, call());
    for (key, value) in [
        ("REQUEST_METHOD", "GET"),
        ("SCRIPT_NAME", "/m"),
        ("PATH_INFO", "/a/b"),
        ("QUERY_STRING", "q=1"),
        ("REQUEST_URI", "/m//a/b?q=1"),
        ("SERVER_NAME", "localhost"),
        ("SERVER_PORT", "80"),
        ("REMOTE_ADDR", "192.0.2.7"),
        ("REMOTE_PORT", "40000"),
        ("HTTP_HOST", "example.org"),
        ("HTTP_X_ODD", "1"),
        ("CONTENT_TYPE", "text/x"),
        ("FOO", "bar"),
        ("REMOTE_USER", "me"),
        ("wsgi.url_scheme", "http"),
        ("mod_wsgi.path_info", "/a/b"),
        ("mod_wsgi.script_name", "/m"),
        ("mod_wsgi.application_group", "main"),
    ] {
        assert!(
            shown.contains(&format!("'{key}': '{value}'")),
            "{key} in {shown}"
        );
    }
    for absent in ["BAD", "PROXY", "AUTHORIZATION", "evil", "secret", "spoofed"] {
        assert!(!shown.contains(absent), "{absent} in {shown}");
    }
    assert_eq!(
        evaluate("[k for k, v in environ.items() if v is None]", call()),
        "[]"
    );
    assert_eq!(
        evaluate(
            "type(environ['wsgi.input']).__name__, environ['mod_wsgi.thread_id'] > 0",
            call()
        ),
        "('Input', True)"
    );
}

#[test]
fn what_differs_from_the_template_is_replaced() {
    let app = unvalidated(
        "start_response('200 OK', TEXT)\n\
         keys = ('SERVER_NAME', 'SCRIPT_NAME', 'wsgi.url_scheme', 'REQUEST_METHOD')\n\
         return [' '.join(environ[k] for k in keys).encode()]",
    );
    let first = app.get();
    assert_eq!(first.text(), "localhost  http GET");
    let other = app.call(Call {
        server_name: "other",
        script_name: "/x",
        https: true,
        method: "PUT",
        ..Call::default()
    });
    assert_eq!(other.text(), "other /x https PUT");
    assert_eq!(app.get().text(), first.text());
}

#[test]
fn text_is_latin_1() {
    let call = Call {
        path_info: "/ü",
        headers: &[("X-A", "ü")],
        ..Call::default()
    };
    assert_eq!(
        evaluate("environ['PATH_INFO'], environ['HTTP_X_A']", call),
        "('/Ã¼', 'Ã¼')"
    );
}

const PIECES: RequestBody<'static> = RequestBody {
    pieces: &[b"one\ntw", b"o\n", b"three"],
    failure: None,
};

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
fn log_streams() {
    let app = unvalidated(
        "import sys\nerr = environ['wsgi.errors']\n\
         err.write('one\\ntw')\nerr.write('o\\n')\nerr.writelines(['a', 'b\\n'])\n\
         print('printed', 1)\nprint('to stderr', file=sys.stderr)\n\
         err.buffer.write(b'bytes \\xff\\n')\nerr.buffer.write(memoryview(b'view\\n'))\n\
         print('lone', '\\udc80')\n\
         assert not err.isatty() and err.encoding == 'utf-8' and err.errors == 'replace'\n\
         try: err.fileno()\n\
         except OSError: err.write('no descriptor\\n')\n\
         try: err.write(b'x')\n\
         except TypeError: err.write('no bytes\\n')\n\
         err.write('unfinished')\n\
         start_response('200 OK', TEXT)\nreturn []",
    );
    let lines: Vec<_> = app.get().log.into_iter().map(|(_, line)| line).collect();
    assert_eq!(
        lines,
        [
            "one",
            "two",
            "ab",
            "printed 1",
            "to stderr",
            "bytes \u{fffd}",
            "view",
            "lone ?",
            "no descriptor",
            "no bytes",
            "unfinished"
        ]
    );
}

#[test]
fn file_wrapper_sends_files_and_reads_the_rest() {
    let path = std::env::temp_dir().join(format!("rwsgi-file-{}", std::process::id()));
    std::fs::write(&path, b"0123456789").unwrap();
    let path = path.to_str().unwrap();
    for (file, headers, expected, sends) in [
        ("open(PATH, 'rb')", "", "0123456789", 1),
        ("open(PATH, 'rb')", "('Content-Length', '4')", "0123", 1),
        ("seeked()", "", "3456789", 1),
        ("io.BytesIO(b'in memory')", "", "in memory", 2),
        ("gzip.open(PATH + '.gz')", "", "unpacked", 2),
    ] {
        let app = unvalidated(&format!(
            "import gzip, io\nPATH = {path:?}\n\
             with gzip.open(PATH + '.gz', 'wb') as packed: packed.write(b'unpacked')\n\
             def seeked():\n    file = open(PATH, 'rb')\n    file.seek(3)\n    return file\n\
             file = {file}\n\
             start_response('200 OK', [{headers}])\n\
             wrapped = environ['wsgi.file_wrapper'](file, 8192)\n\
             import sys; sys.modules['kept_file'] = file\n\
             return wrapped"
        ));
        let answer = app.get();
        assert_eq!(answer.text(), expected, "{file}");
        assert_eq!(answer.sends.len(), sends, "{file}");
        answer.assert_quiet();
        let closed = unvalidated(
            "import sys\nstart_response('200 OK', [])\n\
             return [str(sys.modules['kept_file'].closed).encode()]",
        );
        assert_eq!(closed.get().text(), "True", "{file}");
    }
    let negative = unvalidated("environ['wsgi.file_wrapper'](None, -1)");
    assert!(negative.get().logged("ValueError"));
    let _ = std::fs::remove_file(path);
    let _ = std::fs::remove_file(format!("{path}.gz"));
}

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
