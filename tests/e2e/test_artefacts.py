"""What the artefacts may know of each other's world."""

from __future__ import annotations

import re
import subprocess
import tokenize

import pytest
from harness import paths

pytestmark = pytest.mark.rwsgi
MODULE = paths.MODULE_DIR / "mod_rwsgi.so"
SUPERVISOR = paths.MODULE_DIR / "rwsgi" / "rwsgi-daemon"
SOURCES = paths.REPOSITORY / "src"


def gateways():
    found = sorted((paths.MODULE_DIR / "rwsgi").glob("*.so"))
    assert found, "no gateway is built"
    return found


def undefined_symbols(file):
    done = subprocess.run(["nm", "-D", "-u", file], capture_output=True, text=True, check=True)
    return [line.split()[-1].partition("@")[0] for line in done.stdout.splitlines()]


def dynamic_section(file):
    command = ["readelf", "-d", file]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_module_links_no_libpython():
    done = subprocess.run(["ldd", MODULE], capture_output=True, text=True, check=True)
    assert "libpython" not in done.stdout
    python = [name for name in undefined_symbols(MODULE) if re.match(r"_?Py[A-Z_]", name)]
    assert python == []


def test_the_gateways_know_no_httpd():
    for gateway in gateways():
        names = undefined_symbols(gateway)
        assert any(name.startswith("Py") for name in names)
        assert [name for name in names if re.match(r"_?(ap|apr|apu)_", name)] == []


def test_the_gateways_link_no_libpython():
    """They are loaded into a process that has the right one."""
    for gateway in gateways():
        assert "libpython" not in dynamic_section(gateway)


def test_the_supervisor_knows_neither():
    """It runs where httpd's and Python's libraries are not to be found (a chroot, say)."""
    names = undefined_symbols(SUPERVISOR)
    assert [name for name in names if re.match(r"_?(ap|apr|apu)_|_?Py[A-Z_]", name)] == []
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic_section(SUPERVISOR))
    # The C library and the compiler's runtime, which every Rust program needs.
    other = [n for n in needed if not re.match(r"(libc|libgcc_s|libm|ld-linux.*)\.so\.\d", n)]
    assert "libc.so.6" in needed and other == []


def test_what_the_objects_export():
    """What ``LoadModule`` looks up, by either name; the gateway's entry point."""

    def exported(file):
        command = ["nm", "-D", "--defined-only", file]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return {line.split()[-1].partition("@")[0] for line in done.stdout.splitlines()}

    assert {"rwsgi_module", "wsgi_module"} <= exported(MODULE)
    for gateway in gateways():
        assert "rwsgi_gateway" in exported(gateway)


def test_the_module_stays_loaded_and_is_bound_at_once():
    """``-z nodelete -z now``."""
    section = dynamic_section(MODULE)
    assert "NODELETE" in section
    assert re.search(r"BIND_NOW|FLAGS.*NOW", section)


def test_records_of_the_gateways():
    stems = {gateway.stem for gateway in gateways()}
    default = (paths.MODULE_DIR / "rwsgi" / "default").read_text().strip()
    assert default in stems
    for stem in stems:
        record = (paths.MODULE_DIR / "rwsgi" / f"{stem}.conf").read_text()
        keys = [line.partition("=")[0].strip() for line in record.splitlines() if line.strip()]
        assert {"version", "libpython", "prefix", "executable"} <= set(keys)


def code_of(file):
    """The code of a Rust or Python file without comments, in Python also without texts."""
    if file.suffix == ".py":
        with open(file, "rb") as stream:
            tokens = list(tokenize.tokenize(stream.readline))
        return [t.string for t in tokens if t.type not in (tokenize.COMMENT, tokenize.STRING)]
    text = re.sub(r"/\*.*?\*/", "", file.read_text(), flags=re.DOTALL)
    return [line.partition("//")[0] for line in text.splitlines()]


def sources(*names):
    return [f for name in names for f in sorted((SOURCES / name).rglob("*")) if f.is_file()]


def test_the_python_side_never_names_httpd():
    files = sources("wsgi", "python")
    assert files
    found = [
        f"{file.relative_to(SOURCES)}: {line.strip()}"
        for file in files
        for line in code_of(file)
        if re.search(r"httpd|\bapr?_\w", line)
    ]
    assert found == []


def test_the_httpd_side_never_names_python_calls():
    found = [
        f"{file.relative_to(SOURCES)}: {line.strip()}"
        for file in sources("httpd")
        for line in code_of(file)
        if re.search(r"pyo3|\bPy[A-Z]\w+\(", line)
    ]
    assert found == []


def test_unsafe_is_kept_out_of_the_pure_parts():
    """All of ``exchange`` but its C ABI forbids it."""
    # What a file says holds for the modules below it as well.
    for file in (SOURCES / "exchange").glob("*.rs"):
        text = file.read_text()
        if file.name == "mod.rs":
            # What the files below may not weaken, forbid would not let abi.rs lift.
            assert "#![deny(unsafe_code)]" in text
        elif file.name != "abi.rs":
            assert "#![forbid(unsafe_code)]" in text, file.name


def test_the_codecs_of_daemon_mode_are_pure():
    """What reads bytes of another process."""
    files = [*sources("daemon/wire"), SOURCES / "daemon/control.rs", SOURCES / "daemon/group.rs"]
    assert len(files) > 3
    for file in files:
        text = file.read_text()
        assert "#![forbid(unsafe_code)]" in text, file.name
        assert not re.search(r"\blibc::|std::(io|net|os|fs)\b", "\n".join(code_of(file))), file.name


def test_the_parts_of_daemon_mode_keep_to_their_worlds():
    """The supervisor knows neither httpd nor Python, the worker no httpd, the client no Python."""
    httpd, python = r"\bapr?_\w|crate::httpd", r"pyo3|\bPy[A-Z]\w+\(|crate::(python|wsgi|gateway)"
    for part, foreign in (
        ("supervisor", f"{httpd}|{python}"),
        ("worker", httpd),
        ("client", python),
    ):
        files = sources(f"daemon/{part}")
        assert files, part
        found = [
            f"{file.relative_to(SOURCES)}: {line.strip()}"
            for file in files
            for line in code_of(file)
            if re.search(foreign, line)
        ]
        assert found == []
