//! Consultations against a real interpreter, with a server in memory.

use core::ffi::c_void;
use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::consult;
use crate::exchange::abi::{
    ConsultTable, Consultation, Opt, Pair, Question, Slice, Source, Text, VERSION, accepts, answer,
};
use crate::exchange::{AsgiSettings, Interface, Level, Target};
use crate::python::runtime;

/// What the server was told.
#[derive(Debug, Default)]
struct Told {
    log: Vec<(u8, String)>,
    answers: Vec<(u32, u8, String)>,
}

impl Told {
    fn logged(&self, text: &str) -> bool {
        self.log.iter().any(|(_, line)| line.contains(text))
    }
}

static TABLE: ConsultTable = ConsultTable {
    version: VERSION,
    size: size_of::<ConsultTable>() as u32,
    log,
    log_from,
    logs,
    is_https,
    tls_variable,
    answer: take_answer,
};

/// # Safety
/// `context` is the `Told` of a consultation that has not ended.
unsafe fn told<'a>(context: *mut c_void) -> &'a RefCell<Told> {
    // SAFETY: by contract.
    unsafe { &*context.cast() }
}

unsafe extern "C" fn log(context: *mut c_void, level: u8, _: u8, line: Text<'_>) {
    let line = String::from_utf8_lossy(line.bytes()).into_owned();
    // SAFETY: the table's contract.
    unsafe { told(context) }
        .borrow_mut()
        .log
        .push((level, line));
}

unsafe extern "C" fn log_from(
    context: *mut c_void,
    level: u8,
    foreign: u8,
    _: *const Source<'_>,
    line: Text<'_>,
) {
    // SAFETY: passed on.
    unsafe { log(context, level, foreign, line) }
}

unsafe extern "C" fn logs(_: *mut c_void, _: u8, _: u8) -> i32 {
    1
}

unsafe extern "C" fn is_https(_: *mut c_void) -> i32 {
    1
}

unsafe extern "C" fn tls_variable(_: *mut c_void, name: Text<'_>) -> Opt<'static> {
    Opt::new((name.bytes() == b"SSL_PROTOCOL").then_some(b"TLSv1.3"))
}

unsafe extern "C" fn take_answer(context: *mut c_void, question: u32, kind: u8, text: Text<'_>) {
    let text = String::from_utf8_lossy(text.bytes()).into_owned();
    // SAFETY: the table's contract.
    let mut told = unsafe { told(context) }.borrow_mut();
    told.answers.push((question, kind, text));
}

/// A script file of its own.
struct Script {
    path: PathBuf,
    mtime_us: i64,
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Script {
    fn new(source: &str) -> Script {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        crate::wsgi::tests::start_python();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("rwsgi-consult-{}-{number}.py", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, source).unwrap();
        Script { path, mtime_us: 1 }
    }

    /// Asks all `questions`; whether all were answered, and what the server was told.
    fn ask(&self, questions: &[Question<'_>]) -> (bool, Told) {
        let pair = |name: &'static str, value: &'static str| Pair {
            name: name.into(),
            value: value.into(),
        };
        let headers = [
            pair("Host", "example.org"),
            pair("X-Own", "1"),
            pair("X_Own", "2"),
            pair("Proxy", "evil"),
            pair("Authorization", "Basic x"),
            pair("Proxy-Authorization", "Basic x"),
            pair("Content-Length", "7"),
        ];
        let variables = [
            pair("HTTP_HOST", "from a variable"),
            pair("DOCUMENT_ROOT", "/srv/\u{e4}"),
            pair("QUERY_STRING", "a=\u{e4}"),
        ];
        let told = RefCell::<Told>::default();
        let consultation = Consultation {
            application_group: "consulted".into(),
            target: Target {
                script: self.path.to_str().unwrap().into(),
                mtime_us: self.mtime_us,
                resource: Text::EMPTY,
                handler_script: false,
                interface: Interface::Wsgi,
                callable_is_default: false,
                asgi: AsgiSettings::DEFAULT,
                reloading: true,
                keep_on_failure: false,
            },
            questions: Slice::new(questions),
            headers: Slice::new(&headers),
            variables: Slice::new(&variables),
            offers_tls: true,
            context: core::ptr::from_ref(&told).cast_mut().cast(),
            table: &TABLE,
            native: core::ptr::null_mut(),
        };
        let answered = consult(runtime::runtime().unwrap(), &consultation).is_ok();
        (answered, told.into_inner())
    }

    /// Asks `f`, which may return all that `accepts` says.
    fn ask_f(&self, accepts: u32) -> (bool, Told) {
        self.ask(&[question("f", accepts)])
    }
}

fn question(function: &str, accepts: u32) -> Question<'_> {
    Question {
        function: function.into(),
        arguments: Slice::new(&[]),
        accepts,
        required: true,
    }
}

/// `def f(environ)` with that expression as its result.
fn returning(expression: &str) -> Script {
    Script::new(&format!("def f(environ):\n    return {expression}\n"))
}

#[test]
fn kinds_of_answers() {
    let text = accepts::UTF8 | accepts::BYTES;
    for (expression, accepted, kind, expected) in [
        ("None", accepts::NONE, answer::NONE, ""),
        ("True", accepts::BOOL, answer::TRUE, ""),
        ("False", accepts::BOOL, answer::FALSE, ""),
        ("'\\u20ac'", text, answer::TEXT, "\u{20ac}"),
        ("b'x'", text, answer::TEXT, "x"),
        ("'x'", accepts::LATIN1, answer::TEXT, "x"),
        ("''", text | accepts::EMPTY, answer::TEXT, ""),
        ("type('S', (str,), {})('x')", text, answer::TEXT, "x"),
        ("['x']", accepts::NAMES, answer::NAME, "x"),
        ("iter((b'x',))", accepts::NAMES, answer::NAME, "x"),
        ("{'x': 1}", accepts::NAMES, answer::NAME, "x"),
    ] {
        let (answered, told) = returning(expression).ask_f(accepted);
        assert!(answered, "{expression}: {told:?}");
        assert_eq!(
            told.answers,
            [(0, kind, expected.to_owned())],
            "{expression}"
        );
        assert!(told.log.is_empty(), "{expression}: {told:?}");
    }
    let (answered, told) = returning("()").ask_f(accepts::NAMES);
    assert!(answered && told.answers.is_empty());
    let (answered, told) = returning("['a', b'b']").ask_f(accepts::NAMES);
    assert!(answered && told.answers.len() == 2);
}

#[test]
fn what_is_no_answer() {
    let all = accepts::NONE | accepts::BOOL | accepts::LATIN1 | accepts::BYTES;
    for (expression, accepted, logged) in [
        ("1", all, "RWSGI0502: "),
        ("None", accepts::BOOL, "returned None"),
        ("True", accepts::NONE, "returned an object of type bool"),
        ("''", all, "returned an empty text"),
        ("b''", all, "returned an empty text"),
        ("'a\\0b'", all, "NUL"),
        ("'\\u20ac'", all, "UnicodeEncodeError"),
        ("'\\udc80'", accepts::UTF8, "UnicodeEncodeError"),
        ("'x'", accepts::BYTES, "returned an object of type str"),
        ("b'x'", accepts::UTF8, "returned an object of type bytes"),
        ("'x'", accepts::NAMES, "returned an object of type str"),
        ("5", accepts::NAMES, "an iterable of names"),
        (
            "[5]",
            accepts::NAMES,
            "an iterable with an object of type int in it",
        ),
        ("['a', '']", accepts::NAMES, "empty"),
        ("['a', 'b\\0']", accepts::NAMES, "NUL"),
        ("['a', '\\u20ac']", accepts::NAMES, "UnicodeEncodeError"),
        ("(1 // n for n in (1, 0))", accepts::NAMES, "int in it"),
        (
            "(str(1 // n) for n in (1, 0))",
            accepts::NAMES,
            "ZeroDivisionError",
        ),
        ("1 / 0", all, "RWSGI0501: f() failed: ZeroDivisionError"),
        ("exit(3)", all, "RWSGI0501: f() failed: SystemExit"),
    ] {
        let (answered, told) = returning(expression).ask_f(accepted);
        assert!(!answered, "{expression}");
        assert!(told.answers.is_empty(), "{expression}: {told:?}");
        assert!(told.logged(logged), "{expression}: {told:?}");
        assert!(
            told.log
                .iter()
                .all(|(level, _)| *level == Level::Error as u8)
        );
    }
}

#[test]
fn several_questions_share_an_environ_and_end_with_the_first_failure() {
    let script = Script::new(
        "def a(environ):\n    environ['seen'] = 'a'\n    return environ['seen']\n\
         def b(environ):\n    return environ['seen'] + 'b'\n\
         def c(environ):\n    raise ValueError\n\
         def d(environ):\n    print('never')\n",
    );
    let optional = |function| Question {
        required: false,
        ..question(function, accepts::LATIN1)
    };
    let (answered, told) = script.ask(&[optional("a"), optional("nothing"), optional("b")]);
    assert!(answered);
    let expected = [
        (0, answer::TEXT, "a".to_owned()),
        (1, answer::MISSING, String::new()),
        (2, answer::TEXT, "ab".to_owned()),
    ];
    assert_eq!(told.answers, expected);

    let (answered, told) = script.ask(&[optional("a"), optional("c"), optional("d")]);
    assert!(!answered && told.answers.is_empty(), "{told:?}");
    assert!(!told.logged("never"), "{told:?}");
    let (answered, told) = script.ask(&[question("nothing", accepts::NONE)]);
    assert!(!answered && told.logged("RWSGI0500: "), "{told:?}");
}

#[test]
fn arguments_are_latin_1() {
    let script = Script::new("def f(environ, *rest):\n    return ascii(rest)\n");
    let arguments = [Text::from("a"), Text::new(b"\xe4"), Text::EMPTY];
    let question = Question {
        arguments: Slice::new(&arguments),
        ..question("f", accepts::LATIN1)
    };
    let (_, told) = script.ask(&[question]);
    assert_eq!(told.answers[0].2, r"('a', '\xe4', '')");
}

#[test]
fn the_environ_says_what_the_server_says_and_no_credentials() {
    let script = Script::new(
        "def f(environ):\n    \
             known = {k: v for k, v in environ.items() if isinstance(v, (str, tuple))}\n    \
             assert len(known) + 3 == len(environ), environ\n    \
             return ascii(sorted(known.items()))\n",
    );
    let (answered, told) = script.ask_f(accepts::LATIN1);
    assert!(answered, "{told:?}");
    let text = &told.answers[0].2;
    for part in [
        "('HTTP_HOST', 'example.org')",
        "('HTTP_X_OWN', '1')",
        "('CONTENT_LENGTH', '7')",
        r"('DOCUMENT_ROOT', '/srv/\xe4')",
        r"('QUERY_STRING', 'a=\xc3\xa4')",
        "('apache.version', (2, 4, 0))",
        "('mod_wsgi.application_group', 'consulted')",
        "('mod_wsgi.process_group', '')",
        "('mod_wsgi.version', (6, 1, 1))",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(
        !text.contains("AUTHORIZATION") && !text.contains("PROXY"),
        "{text}"
    );
}

#[test]
fn what_was_handed_out_expires() {
    let script = Script::new(
        "kept = {}\n\
         def f(environ):\n    \
             kept.update(environ)\n    \
             environ['wsgi.errors'].write('in time\\n')\n    \
             return '%s %s %s %s' % (environ['mod_ssl.is_https'](),\n        \
                 environ['mod_ssl.var_lookup']('SSL_PROTOCOL'),\n        \
                 environ['mod_ssl.var_lookup'](b'SSL_PROTOCOL'),\n        \
                 environ['mod_ssl.var_lookup']('OTHER'))\n\
         def g(environ):\n    \
             late = []\n    \
             for call in (lambda: kept['mod_ssl.is_https'](),\n            \
                     lambda: kept['mod_ssl.var_lookup']('x'),\n            \
                     lambda: kept['wsgi.errors'].write('late\\n')):\n        \
                 try:\n            call()\n        \
                 except RuntimeError as error:\n            late.append(str(error))\n    \
             return ' / '.join(late)\n",
    );
    let (_, told) = script.ask_f(accepts::LATIN1);
    assert_eq!(told.answers[0].2, "1 TLSv1.3 TLSv1.3 None");
    assert!(told.logged("in time"));
    let (_, told) = script.ask(&[question("g", accepts::LATIN1)]);
    assert_eq!(told.answers[0].2.matches("ended").count(), 3, "{told:?}");
    assert!(!told.logged("late\n") && told.log.is_empty(), "{told:?}");
}

#[test]
fn other_threads_cannot_look_up_variables_and_may_log() {
    let script = Script::new(
        "import threading\n\
         def f(environ):\n    \
             results = []\n    \
             def run():\n        \
                 environ['wsgi.errors'].write('from a thread\\n')\n        \
                 for name, args in (('is_https', ()), ('var_lookup', ('SSL_PROTOCOL',))):\n            \
                     try:\n                results.append(environ['mod_ssl.' + name](*args))\n            \
                     except RuntimeError as error:\n                results.append(error)\n    \
             thread = threading.Thread(target=run)\n    \
             thread.start()\n    \
             thread.join()\n    \
             return str(results)\n",
    );
    let (answered, told) = script.ask_f(accepts::LATIN1);
    assert!(answered, "{told:?}");
    assert_eq!(
        told.answers[0].2.matches("RuntimeError").count(),
        2,
        "{told:?}"
    );
    assert!(told.logged("from a thread"), "{told:?}");
}

#[test]
fn names_of_variables_are_checked() {
    for (argument, error) in [("1", "TypeError"), ("'a\\0'", "ValueError")] {
        let script = returning(&format!("environ['mod_ssl.var_lookup']({argument})"));
        let (answered, told) = script.ask_f(accepts::NONE);
        assert!(!answered && told.logged(error), "{told:?}");
    }
}

#[test]
fn a_changed_script_is_loaded_anew_and_a_broken_one_fails() {
    let mut script = returning("'old'");
    assert_eq!(script.ask_f(accepts::LATIN1).1.answers[0].2, "old");
    std::fs::write(
        &script.path,
        "def f(environ): return 'new'\ndef reload_required(r): 1 / 0\n",
    )
    .unwrap();
    assert_eq!(script.ask_f(accepts::LATIN1).1.answers[0].2, "old");
    script.mtime_us += 1;
    for _ in 0..2 {
        // `reload_required` is for applications: here it would have been logged.
        let (_, told) = script.ask_f(accepts::LATIN1);
        assert_eq!(told.answers[0].2, "new");
        assert!(told.log.is_empty(), "{told:?}");
    }
    std::fs::write(&script.path, "def f(:\n").unwrap();
    script.mtime_us += 1;
    for _ in 0..2 {
        let (answered, told) = script.ask_f(accepts::LATIN1);
        assert!(!answered && told.logged("SyntaxError"), "{told:?}");
    }
    std::fs::remove_file(&script.path).unwrap();
    script.mtime_us = 0;
    let (answered, told) = script.ask_f(accepts::LATIN1);
    assert!(!answered && told.logged("FileNotFoundError"), "{told:?}");
}

#[test]
fn print_belongs_to_the_request() {
    let (_, told) = returning("print('printed')").ask_f(accepts::NONE);
    assert_eq!(told.log, [(Level::Error as u8, "printed".to_owned())]);
}
