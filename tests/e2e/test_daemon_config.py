"""The configuration of process groups: every option is accepted with good values, and a bad value
fails ``configtest`` with a message that says what is accepted."""

from __future__ import annotations

import os
import re

import pytest
from harness import paths

ours = pytest.mark.rwsgi
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
USER = (paths.httpd_user() or ("nobody", "nogroup"))[0]

OPTIONS = [
    "processes",
    "threads",
    "display-name",
    "user",
    "group",
    "supplementary-groups",
    "umask",
    "chroot",
    "home",
    "lang",
    "locale",
    "python-home",
    "python-path",
    "python-eggs",
    "switch-interval",
    "stack-size",
    "maximum-requests",
    "startup-timeout",
    "shutdown-timeout",
    "deadlock-timeout",
    "inactivity-timeout",
    "request-timeout",
    "interrupt-timeout",
    "graceful-timeout",
    "eviction-timeout",
    "restart-interval",
    "connect-timeout",
    "socket-timeout",
    "queue-timeout",
    "listen-backlog",
    "send-buffer-size",
    "receive-buffer-size",
    "header-buffer-size",
    "response-buffer-size",
    "response-socket-timeout",
    "response-flush-delay",
    "socket-user",
    "script-user",
    "script-group",
    "cpu-time-limit",
    "cpu-priority",
    "memory-limit",
    "virtual-memory-limit",
    "server-metrics",
]
NEW_OPTIONS = ["preload", "env", "env-file", "max-rss", "max-requests-jitter"]
TIMES = [name for name in OPTIONS if name.endswith(("-timeout", "-interval", "-time-limit"))]
TIMES.remove("switch-interval")


@pytest.fixture
def checked(new_httpd):
    """Checks a configuration; its error text, empty if it is accepted. ``{root}`` is the server's
    directory."""
    with new_httpd(module_under_test=True) as httpd:

        def check(text):
            httpd.config.clear().add(text.replace("{root}", str(httpd.root)))
            done = httpd.check()
            if done.returncode == 0:
                assert "Syntax OK" in done.stderr
                return ""
            assert "Syntax OK" not in done.stderr
            return done.stderr

        check.httpd = httpd
        yield check


def rejected(checked, text, *words, line=True):
    """The configuration fails, and the message has all these words."""
    message = checked(text)
    assert message, f"accepted: {text}"
    assert not line or re.search(r"line \d+", message), "the message names no line"
    if paths.PEER:
        return
    for word in words:
        assert word in message, f"{word!r} is not in the message: {message}"
    assert "panicked" not in message and len(message) < 1000


def option(name, value):
    return f"WSGIDaemonProcess site {name}={value}"


# Names


@pytest.mark.checklist(7)
def test_a_name_is_needed(checked):
    rejected(checked, "WSGIDaemonProcess", "WSGIDaemonProcess")


@ours
@pytest.mark.parametrize("name", ["threads=5", '""', "%{GLOBAL}"])
def test_what_is_no_name(checked, name):
    rejected(checked, f"WSGIDaemonProcess {name}", "WSGIDaemonProcess", "name")


def test_the_name_alone_is_enough(checked):
    assert checked("WSGIDaemonProcess site") == ""


@pytest.mark.parametrize(
    "text",
    [
        "WSGIDaemonProcess site\nWSGIDaemonProcess site",
        "WSGIDaemonProcess site\n<VirtualHost *:1>\nWSGIDaemonProcess site\n</VirtualHost>",
        "<VirtualHost *:1>\nServerName a\nWSGIDaemonProcess site\n</VirtualHost>\n"
        "<VirtualHost *:2>\nServerName b\nWSGIDaemonProcess site\n</VirtualHost>",
    ],
)
@pytest.mark.checklist(8)
def test_names_are_unique_in_the_whole_server(checked, text):
    rejected(checked, text, "site", "duplicates previous")


# Options in general


@pytest.mark.parametrize("name", ["colour", "Threads", "thread", "python_home"])
@pytest.mark.checklist(15)
def test_unknown_option(checked, name):
    rejected(checked, option(name, "1"), "WSGIDaemonProcess", f"'{name}'")


@ours
def test_a_mistyped_option_gets_a_hint(checked):
    rejected(checked, option("thread", "5"), "did you mean 'threads'")
    rejected(checked, option("max-request-jitter", "5"), "did you mean 'max-requests-jitter'")


@pytest.mark.parametrize("words", ["threads", "threads 5", "=5"])
@pytest.mark.checklist(15)
def test_what_is_no_option(checked, words):
    rejected(checked, f"WSGIDaemonProcess site {words}", "WSGIDaemonProcess")


#: Files that are made from templates have them without a value; it means that nothing is said.
MAY_BE_EMPTY = ["display-name", "lang", "locale", "python-eggs", "python-home", "python-path"]
MAY_BE_EMPTY.append("supplementary-groups")


@pytest.mark.parametrize("name", [name for name in OPTIONS if name not in MAY_BE_EMPTY])
def test_no_option_is_empty(checked, name):
    rejected(checked, option(name, ""), name)


def test_options_that_may_be_empty(checked):
    assert checked("\n".join(f"WSGIDaemonProcess {name} {name}=" for name in MAY_BE_EMPTY)) == ""


@ours
@pytest.mark.parametrize("name", NEW_OPTIONS)
def test_no_new_option_is_empty(checked, name):
    rejected(checked, option(name, ""), name, "must not be empty")


def test_the_last_of_two_counts(checked):
    assert checked("WSGIDaemonProcess site threads=0 threads=5") == ""
    rejected(checked, "WSGIDaemonProcess site processes=5 processes=0", "processes")


def test_values_may_be_quoted(checked):
    text = 'WSGIDaemonProcess site threads="5" display-name="my site" lang=C.UTF-8'
    assert checked(text) == ""


# Numbers


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("processes", ["1", "4"], ["0", "-1"]),
        ("threads", ["0", "1", "100"], ["-1"]),
        ("umask", ["0027", "077", "0"], ["9"]),
        ("listen-backlog", ["0", "511"], ["-1"]),
        ("send-buffer-size", ["0", "512"], ["100", "-1"]),
        ("receive-buffer-size", ["0", "512"], ["100", "-1"]),
        ("header-buffer-size", ["0", "8192"], ["100", "-1"]),
        ("response-buffer-size", ["0", "65536"], ["100", "-1"]),
        ("switch-interval", ["0.001", "1"], ["0", "-1", "x"]),
        ("stack-size", ["1048576"], ["-1"]),
        ("maximum-requests", ["0", "1000"], ["-1"]),
        ("response-flush-delay", ["0", "5"], ["-1"]),
        ("cpu-priority", ["5"], []),
        ("memory-limit", ["0", "1000000000"], ["-1"]),
        ("virtual-memory-limit", ["0", "1000000000"], ["-1"]),
    ],
)
@pytest.mark.checklist(10, 11, 13)
def test_numbers(checked, name, good, bad):
    for value in good:
        assert checked(option(name, value)) == "", value
    for value in bad:
        rejected(checked, option(name, value), name, f"'{value}'")


@ours
@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("processes", ["1024"], ["1025", "x", "1x", "1.5", "+1", "99999999999"]),
        ("threads", ["65533"], ["65534", "many", "0x10"]),
        ("umask", ["0777"], ["1000", "rwx", "-1"]),
        ("send-buffer-size", ["64K"], ["1x", "4G"]),
        ("stack-size", ["0", "256K", "1M"], ["100", "1MB", "big"]),
        ("maximum-requests", ["4294967295"], ["x", "4294967296"]),
        ("max-requests-jitter", [], ["x", "-1"]),
        ("memory-limit", ["512M", "2G"], ["x", "2 G", "1.5G", "99999999T"]),
        ("max-rss", ["0", "256M"], ["x", "1K", "-1"]),
        ("cpu-priority", ["-20", "19"], ["20", "-21", "x"]),
        ("listen-backlog", ["65535", "2147483647"], ["4294967296", "x"]),
    ],
)
def test_garbage_is_an_error(checked, name, good, bad):
    for value in good:
        assert checked(option(name, value)) == "", value
    for value in bad:
        rejected(checked, f'WSGIDaemonProcess site "{name}={value}"', name)
        rejected(checked, f'WSGIDaemonProcess site {name}="{value}"', name, f"'{value}'")


@pytest.mark.parametrize("name", TIMES)
def test_times(checked, name):
    for value in ("0", "1", "86400"):
        assert checked(option(name, value)) == "", value
    rejected(checked, option(name, "-1"), name, "'-1'")


@ours
@pytest.mark.parametrize("name", TIMES)
def test_times_that_are_none(checked, name):
    for value in ("soon", "5s", "1.5", "9999999999"):
        rejected(checked, option(name, value), name, "seconds", f"'{value}'")


@ours
def test_jitter_needs_a_limit(checked):
    rejected(checked, option("max-requests-jitter", "5"), "maximum-requests")
    text = "WSGIDaemonProcess site maximum-requests=100 max-requests-jitter=10"
    assert checked(text) == ""


# Switches


@pytest.mark.parametrize("value", ["On", "off", "OFF"])
def test_server_metrics(checked, value):
    assert checked(option("server-metrics", value)) == ""


@ours
def test_preload(checked):
    for value in ("on", "Off"):
        assert checked(option("preload", value)) == ""
    rejected(checked, option("preload", "maybe"), "preload", "Off | On")
    rejected(checked, option("server-metrics", "maybe"), "server-metrics", "Off | On")
    rejected(checked, "WSGIDaemonProcess site threads=0 preload=on", "service script")


# Users


@root_only
@pytest.mark.parametrize("name", ["user", "group", "socket-user", "script-user", "script-group"])
def test_accounts(checked, name):
    group = name.endswith("group")
    good = [paths.httpd_user()[1], "#12345"] if group else [USER, "#33"]
    if name in ("user", "group"):
        good.pop()
    for value in good:
        assert checked(option(name, value)) == "", value
    for value in ("no-such-account", "#x"):
        rejected(checked, option(name, value), name)


@root_only
@pytest.mark.checklist(9)
def test_root_is_refused(checked):
    rejected(checked, option("user", "root"), "root")
    rejected(checked, option("user", "#0"), "root")


@root_only
def test_supplementary_groups(checked):
    assert checked(option("supplementary-groups", "daemon,#12345")) == ""
    rejected(checked, option("supplementary-groups", "daemon,no-such-group"), "no-such-group")


@pytest.mark.checklist(14)
def test_script_user_excludes_script_group(checked):
    text = f"WSGIDaemonProcess site script-user={USER} script-group=daemon"
    rejected(checked, text, "script-user", "script-group")


# Places


@pytest.mark.parametrize("name", ["home"])
@pytest.mark.checklist(12)
def test_relative_directories(checked, name):
    rejected(checked, option(name, "relative"), name, "absolute")


@ours
@pytest.mark.parametrize("name", ["chroot", "python-home", "env-file"])
def test_relative_paths(checked, name):
    rejected(checked, option(name, "relative"), name, "absolute")


@ours
def test_home(checked):
    assert checked(option("home", "{root}/data")) == ""
    rejected(checked, option("home", "{root}/absent"), "home", "absent", "No such file")
    rejected(checked, option("home", "/etc/passwd"), "home", "no directory")


@ours
@root_only
def test_home_that_the_user_cannot_enter(checked):
    private = checked.httpd.root / "private"
    private.mkdir(mode=0o700)
    rejected(checked, option("home", private), "RWSGI0330", "entered", USER, line=False)


@ours
@root_only
def test_environment_file(checked):
    httpd = checked.httpd
    good = httpd.write("good.env", "# note\n\nA=1\nexport B='two words'\nC=\"x\\ny\"\n")
    assert checked(option("env-file", good)) == ""
    bad = httpd.write("bad.env", "A=1\nthis is none\n")
    rejected(checked, option("env-file", bad), "env-file", "bad.env", "line 2")
    rejected(checked, option("env-file", "/does/not/exist"), "env-file", "No such file")
    good.chmod(0o600)
    rejected(checked, option("env-file", good), "RWSGI0330", "env-file", USER, line=False)


@ours
def test_environment_variables(checked):
    assert checked('WSGIDaemonProcess site env=A=1 env="B=two words" env=D=') == ""
    for value in ("A", "=x", "1A=x", "A-B=x"):
        rejected(checked, option("env", value), "env", "NAME=VALUE")


def a_venv(httpd, version, executable=None):
    """A virtual environment, as far as its files tell."""
    major_minor = ".".join(version.split(".")[:2])
    home = httpd.root / f"venv-{version}"
    (home / "bin").mkdir(parents=True)
    (home / f"lib/python{major_minor}/site-packages").mkdir(parents=True)
    (home / "pyvenv.cfg").write_text(f"home = /usr/bin\nversion = {version}\n")
    if executable:
        (home / "bin" / "python").symlink_to(executable)
    return home


@ours
def test_python_home(checked):
    record = paths.gateway_record()
    good = a_venv(checked.httpd, record["version"], record["executable"])
    assert checked(option("python-home", good)) == ""
    rejected(
        checked, option("python-home", "/does/not/exist"), "RWSGI0004", "python-home", line=False
    )
    (good / "bin" / "python").unlink()
    rejected(checked, option("python-home", good), "RWSGI0004", "bin/python", line=False)
    nothing = checked.httpd.root / "htdocs"
    rejected(checked, option("python-home", nothing), "RWSGI0004", "pyvenv.cfg", line=False)


@ours
def test_python_home_of_a_version_without_gateway(checked):
    """The message names the group, the version found, those installed, and the remedy."""
    home = a_venv(checked.httpd, "3.8.18", paths.gateway_record()["executable"])
    words = ["RWSGI0003", "site", "python-home", "Python 3.8", "installed: 3."]
    rejected(checked, option("python-home", home), *words, "make gateway PYTHON=", line=False)


@ours
def test_the_configured_interpreter_is_not_run(checked):
    """Not as root, and not at all: its version is read from its files."""
    httpd = checked.httpd
    trap = httpd.write("trap", f"#!/bin/sh\necho ran >>{httpd.root}/data/ran\n")
    trap.chmod(0o755)
    home = a_venv(httpd, paths.gateway_record()["version"], trap)
    assert checked(option("python-home", home)) == ""
    assert not (httpd.root / "data" / "ran").exists()


@ours
@root_only
def test_a_python_that_the_user_cannot_run(checked):
    httpd = checked.httpd
    private = httpd.root / "private"
    private.mkdir(mode=0o700)
    record = paths.gateway_record()
    home = a_venv(httpd, record["version"], record["executable"]).rename(private / "venv")
    rejected(checked, option("python-home", home), "RWSGI0330", "interpreter", USER, line=False)


@root_only
def test_chroot(checked):
    rejected(checked, option("chroot", "{root}/absent"), "chroot", line=False)


@ours
@root_only
def test_chroot_without_what_is_needed(checked):
    """Interpreter and gateways must be there within the root directory."""
    jail = checked.httpd.root / "jail"
    jail.mkdir()
    rejected(checked, option("chroot", jail), "root directory", str(jail), line=False)
    text = f"WSGIDaemonProcess site chroot={jail} home=/inside"
    rejected(checked, text, "home", f"{jail}/inside")


@ours
@root_only
@pytest.mark.checklist(12)
def test_without_root(checked):
    """chroot is an error, another user only a warning: another start may be root's."""
    httpd = checked.httpd
    uid = str(int(os.popen(f"id -u {USER}").read()))
    import subprocess

    def check(text):
        httpd.config.clear().add(text)
        command = ["setpriv", f"--reuid={uid}", "--clear-groups", *httpd._command(), "-t"]
        return subprocess.run(command, capture_output=True, text=True, env=httpd._environment())

    done = check("WSGIDaemonProcess site chroot=/")
    assert done.returncode != 0 and "root" in done.stderr
    done = check("WSGIDaemonProcess site user=nobody group=nogroup")
    assert done.returncode == 0, done.stderr


# Sockets


def test_socket_prefix(checked):
    assert checked("WSGISocketPrefix run/sockets") == ""
    rejected(checked, "WSGISocketPrefix", "WSGISocketPrefix")


@ours
def test_socket_paths_that_are_too_long(checked):
    prefix = "/tmp/" + "x" * 100
    words = ["RWSGI0330", "site", "WSGISocketPrefix", "bytes"]
    text = f"WSGISocketPrefix {prefix}\nWSGIDaemonProcess site"
    rejected(checked, text, *words, line=False)
    # Without a process group nobody needs a socket.
    assert checked(f"WSGISocketPrefix {prefix}") == ""


@pytest.mark.parametrize("value", ["On", "Off", "off"])
def test_socket_rotation(checked, value):
    assert checked(f"WSGISocketRotation {value}") == ""
    rejected(checked, "WSGISocketRotation Maybe", "WSGISocketRotation", "Off | On")


@pytest.mark.checklist(26)
def test_accept_mutex(checked):
    for value in ("default", "flock", "fcntl", "sysvsem", "posixsem", "pthread"):
        if not (paths.PEER and value == "posixsem"):
            assert checked(f"WSGIAcceptMutex {value}") == ""
    words = ["flock", "fcntl", "sysvsem", "posixsem", "pthread", "'bogus'"]
    rejected(checked, "WSGIAcceptMutex bogus", "WSGIAcceptMutex", *words)


# Contexts


@pytest.mark.parametrize(
    "line", ["WSGISocketPrefix run/x", "WSGISocketRotation Off", "WSGIAcceptMutex default"]
)
def test_main_server_only(checked, line):
    assert checked(line) == ""
    words = [line.split()[0], "cannot occur within", "VirtualHost"]
    rejected(checked, f"<VirtualHost *>\n{line}\n</VirtualHost>", *words)


@pytest.mark.parametrize(
    "line",
    [
        "WSGIDaemonProcess site",
        "WSGIImportScript /x.wsgi process-group=%{GLOBAL} application-group=%{GLOBAL}",
    ],
)
def test_servers_only(checked, line):
    assert checked(line) == ""
    assert checked(f"<VirtualHost *>\n{line}\n</VirtualHost>") == ""
    rejected(checked, f"<Directory />\n{line}\n</Directory>", line.split()[0], "not allowed")


@pytest.mark.parametrize("line", ["WSGIRestrictProcess a b %{GLOBAL}", "WSGIIgnoreActivity On"])
def test_allowed_in_directories(checked, line):
    for section in ("VirtualHost *", "Directory /", "Location /", "Files x"):
        name = section.partition(" ")[0]
        assert checked(f"<{section}>\n{line}\n</{name}>") == ""


def test_ignore_activity(checked):
    rejected(checked, "WSGIIgnoreActivity Maybe", "WSGIIgnoreActivity", "Off | On")


# Imports, and aliases that import

VHOST = "<VirtualHost *:{port}>\nServerName {name}\n{text}\n</VirtualHost>\n"
IMPORT = "WSGIImportScript /x.wsgi process-group=site application-group=app"
ALIAS = "WSGIScriptAlias / /x.wsgi process-group=site application-group=app"
MATCH = "WSGIScriptAliasMatch ^/x /x.wsgi process-group=site application-group=app"
IMPORTERS = pytest.mark.parametrize("line", [IMPORT, ALIAS, MATCH])


@pytest.mark.parametrize(
    "options",
    ["", "process-group=site", "application-group=app", "process-group=%{GLOBAL}"],
)
@pytest.mark.checklist(20)
def test_import_needs_both_groups(checked, options):
    text = f"WSGIDaemonProcess site\nWSGIImportScript /x.wsgi {options}"
    rejected(checked, text, "WSGIImportScript", "group")


@pytest.mark.parametrize("arguments", ["", "/x.wsgi process-group= application-group=x"])
def test_import_without_values(checked, arguments):
    rejected(checked, f"WSGIImportScript {arguments}", "WSGIImportScript")


@ours
def test_import_with_other_options(checked):
    words = ["WSGIImportScript", "'callable-object'", "process-group=", "application-group="]
    rejected(checked, f"WSGIDaemonProcess site\n{IMPORT} callable-object=x", *words)
    text = "WSGIImportScript /x.wsgi process-group=%{ENV:X} application-group=x"
    rejected(checked, text, "process-group", "'%{ENV:X}'")


@IMPORTERS
@pytest.mark.checklist(6)
def test_the_group_must_stand_before(checked, line):
    assert checked(f"WSGIDaemonProcess site\n{line}") == ""
    rejected(checked, line, "site", "not yet configured")
    rejected(checked, f"{line}\nWSGIDaemonProcess site", "site", "not yet configured")


@IMPORTERS
def test_the_group_of_another_virtual_host(checked, line):
    own = VHOST.format(port=1, name="a", text=f"WSGIDaemonProcess site\n{line}")
    assert checked(own) == ""
    declared = VHOST.format(port=1, name="a", text="WSGIDaemonProcess site")
    same = VHOST.format(port=2, name="a", text=line)
    assert checked(declared + same) == ""
    other = VHOST.format(port=2, name="b", text=line)
    rejected(checked, declared + other, "site", "not accessible")
    rejected(checked, declared + line, "site", "not ")


@pytest.mark.parametrize(
    "options",
    [
        "process-group=site",
        "process-group=%{ENV:X} application-group=app",
        "process-group=site application-group=%{ENV:X}",
        "process-group=site application-group=%{RESOURCE}",
    ],
)
def test_an_alias_without_literal_groups_needs_no_group(checked, options):
    assert checked(f"WSGIScriptAlias / /x.wsgi {options}") == ""


def test_a_match_with_a_variable_target_needs_no_group(checked):
    options = "process-group=site application-group=app"
    assert checked(f"WSGIScriptAliasMatch ^/(.*) /srv/$1.wsgi {options}") == ""
