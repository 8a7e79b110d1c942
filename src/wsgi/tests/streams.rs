//! Log streams and `wsgi.file_wrapper`.

use super::unvalidated;

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
