"""A configuration error of each kind fails ``configtest`` with a message that says what was wrong
and what is accepted."""

from __future__ import annotations

import re

import pytest
from harness import paths

ALIAS_OPTIONS = ["process-group", "application-group", "callable-object", "pass-authorization"]
ON_OFF = ["On", "Off"]
SWITCHES_SERVER = [
    "WSGIDontWriteBytecode",
    "WSGIRestrictStdin",
    "WSGIRestrictStdout",
    "WSGIRestrictSignal",
    "WSGIRestrictEmbedded",
    "WSGICaseSensitivity",
    "WSGIPerInterpreterGIL",
    "WSGIFreeThreading",
    "WSGIDestroyInterpreter",
]
SWITCHES_ANYWHERE = [
    "WSGIPassApacheRequest",
    "WSGIPassAuthorization",
    "WSGIScriptReloading",
    "WSGIChunkedRequest",
    "WSGIEnableSendfile",
    "WSGIErrorOverride",
]
SWITCHES = SWITCHES_SERVER + SWITCHES_ANYWHERE
ours = pytest.mark.rwsgi


@pytest.fixture
def checked(new_httpd):
    """Checks a configuration; its error text, empty if it is accepted."""
    with new_httpd(module_under_test=True) as httpd:

        def check(text):
            httpd.config.clear().add(text)
            done = httpd.check()
            if done.returncode == 0:
                assert "Syntax OK" in done.stderr
                return ""
            assert "Syntax OK" not in done.stderr
            return done.stderr

        yield check


def rejected(checked, text, *words):
    """The configuration fails, and the message has all these words."""
    message = checked(text)
    assert message, f"accepted: {text}"
    assert re.search(r"line \d+", message), "the message names no line"
    if paths.PEER:
        return
    for word in words:
        assert word in message, f"{word!r} is not in the message: {message}"
    # A message, not a dump.
    assert "panicked" not in message and len(message) < 1000


# Missing arguments


@pytest.mark.parametrize("directive", ["WSGIScriptAlias", "WSGIScriptAliasMatch"])
@pytest.mark.parametrize("arguments", ["", "/"])
@pytest.mark.checklist(1)
def test_missing_arguments(checked, directive, arguments):
    rejected(checked, f"{directive} {arguments}", directive)


@pytest.mark.parametrize(
    "directive", ["WSGIApplicationGroup", "WSGICallableObject", "WSGIPythonHome", *SWITCHES]
)
def test_missing_argument(checked, directive):
    rejected(checked, directive, directive)


@pytest.mark.parametrize("directive", ["WSGIPythonHome", "WSGIPythonPath", *SWITCHES])
def test_too_many_arguments(checked, directive):
    rejected(checked, f"{directive} On Off", directive)


# Options of the alias


@ours
@pytest.mark.parametrize("directive", ["WSGIScriptAlias", "WSGIScriptAliasMatch"])
@pytest.mark.parametrize("option", ["colour=red", "Process-Group=x", "threads=5"])
@pytest.mark.checklist(2)
def test_unknown_option(checked, directive, option):
    name = option.partition("=")[0]
    rejected(checked, f"{directive} / /x.wsgi {option}", directive, name, *ALIAS_OPTIONS)


@pytest.mark.parametrize("option", ["colour=red", "colour", "=x", "process-group"])
def test_option_that_is_none(checked, option):
    rejected(checked, f"WSGIScriptAlias / /x.wsgi {option}")


@pytest.mark.parametrize("option", ["process-group", "application-group", "callable-object"])
@pytest.mark.checklist(3)
def test_empty_value(checked, option):
    rejected(checked, f"WSGIScriptAlias / /x.wsgi {option}=", option)


@pytest.mark.parametrize("value", ["maybe", "1", "yes", ""])
@pytest.mark.checklist(4)
def test_bad_switch_of_an_option(checked, value):
    words = ["pass-authorization"] + ([] if value == "" else ON_OFF)
    rejected(checked, f"WSGIScriptAlias / /x.wsgi pass-authorization={value}", *words)


@pytest.mark.parametrize("value", ["On", "off", "OFF", "on"])
def test_good_switch_of_an_option(checked, value):
    assert checked(f"WSGIScriptAlias / /x.wsgi pass-authorization={value}") == ""


@pytest.mark.checklist(6)
def test_literal_groups_need_a_known_process_group(checked):
    rejected(
        checked, "WSGIScriptAlias / /x.wsgi process-group=nobody application-group=x", "nobody"
    )


def test_literal_embedded_groups(checked):
    text = "WSGIScriptAlias / /x.wsgi process-group=%{GLOBAL} application-group=%{GLOBAL}"
    assert checked(text) == ""


@pytest.mark.parametrize("pattern", ["^/(x", "^/[x", "*x", "^/x{5"])
@pytest.mark.checklist(5)
def test_bad_regular_expression(checked, pattern):
    if pattern == "^/x{5":
        # PCRE takes this one literally.
        assert checked(f'WSGIScriptAliasMatch "{pattern}" /x.wsgi') == ""
    else:
        rejected(checked, f'WSGIScriptAliasMatch "{pattern}" /x.wsgi', "WSGIScriptAliasMatch")


@ours
def test_bad_regular_expression_is_named(checked):
    rejected(checked, 'WSGIScriptAliasMatch "^/(x" /x.wsgi', "^/(x", "regular expression")


# WSGIHandlerScript

HANDLER_OPTIONS = ["process-group", "application-group", "pass-authorization"]


@pytest.mark.parametrize("arguments", ["", "name", '"" /x.py', 'name ""'])
def test_handler_script_needs_two_arguments(checked, arguments):
    rejected(checked, f"WSGIHandlerScript {arguments}", "WSGIHandlerScript")


@ours
@pytest.mark.parametrize("option", ["colour=red", "callable-object=x", "Process-Group=x"])
def test_unknown_option_of_a_handler_script(checked, option):
    words = [option.partition("=")[0], *HANDLER_OPTIONS]
    rejected(checked, f"WSGIHandlerScript name /x.py {option}", "WSGIHandlerScript", *words)


@pytest.mark.parametrize(
    "option",
    ["colour", "process-group", "process-group=", "application-group=", "pass-authorization=maybe"]
    + ["pass-authorization=", "=x"],
)
def test_bad_option_of_a_handler_script(checked, option):
    rejected(checked, f"WSGIHandlerScript name /x.py {option}", "WSGIHandlerScript")


def test_good_handler_scripts(checked):
    lines = [
        "WSGIHandlerScript name /x.py",
        "WSGIHandlerScript name relative.py",
        "WSGIHandlerScript name /y.py process-group=%{GLOBAL} application-group=%{SERVER}",
        'WSGIHandlerScript "another name" "/z z.py" pass-authorization=oN process-group=%{ENV:X}',
        "WSGIHandlerScript wsgi-script /x.py",
    ]
    assert checked("\n".join(lines)) == ""


@ours
def test_handler_script_with_an_undeclared_process_group(checked, new_httpd):
    """Not an error, since the handler may never be used, but worth a warning."""
    with new_httpd() as httpd:
        httpd.add("WSGIHandlerScript name /x.py process-group=nobody")
        httpd.expect_log("RWSGI0345: .*'nobody'")
        httpd.start()


# WSGIDispatchScript


@pytest.mark.parametrize(
    "arguments",
    ["", '""', "/x.py group", "/x.py application-group=", "/x.py process-group=x", "/x.py =x"],
)
def test_bad_dispatch_script(checked, arguments):
    rejected(checked, f"WSGIDispatchScript {arguments}", "WSGIDispatchScript")


@pytest.mark.parametrize("option", ["", " application-group=x", " application-group=%{SERVER}"])
def test_good_dispatch_script(checked, option):
    assert checked(f'WSGIDispatchScript "/x y.py"{option}') == ""


# On and Off


@pytest.mark.parametrize("directive", SWITCHES)
@pytest.mark.parametrize("value", ["Maybe", "1", "Yes", '""'])
def test_bad_switch(checked, directive, value):
    if value == '""':
        rejected(checked, f"{directive} {value}")
    else:
        rejected(checked, f"{directive} {value}", directive, *ON_OFF)


@pytest.mark.parametrize("value", ["On", "Off", "on", "OFF", "oN"])
def test_good_switch(checked, value):
    assert checked("\n".join(f"{directive} {value}" for directive in SWITCHES)) == ""


@pytest.mark.parametrize("value", ["On", "Off", "Auto", "auto", "ON"])
def test_head_mapping(checked, value):
    assert checked(f"WSGIMapHEADToGET {value}") == ""


def test_bad_head_mapping(checked):
    rejected(checked, "WSGIMapHEADToGET Maybe", "WSGIMapHEADToGET", "On", "Off", "Auto")


@ours
@pytest.mark.checklist(16)
@pytest.mark.parametrize("value", ["Maybe", "1", "yes"])
def test_bad_local_redirect(checked, value):
    assert checked("WSGILocalRedirect oN") == ""
    rejected(checked, f"WSGILocalRedirect {value}", "WSGILocalRedirect", *ON_OFF)


@ours
def test_reload_failure(checked):
    for value in ("Keep", "Fail", "keep", "FAIL"):
        assert checked(f"WSGIReloadFailure {value}") == ""
    for value in ("On", "Maybe"):
        rejected(checked, f"WSGIReloadFailure {value}", "WSGIReloadFailure", "Keep", "Fail")


@pytest.mark.parametrize("value", ["0", "1", "4294967295", "random"])
@pytest.mark.checklist(17)
def test_good_hash_seed(checked, value):
    assert checked(f"WSGIPythonHashSeed {value}") == ""


@pytest.mark.parametrize("value", ["abc", "4294967296", "-1", "1.5"])
@pytest.mark.checklist(17)
def test_bad_hash_seed(checked, value):
    rejected(checked, f"WSGIPythonHashSeed {value}", "WSGIPythonHashSeed")


@ours
def test_bad_hash_seed_says_what_is_accepted(checked):
    rejected(checked, "WSGIPythonHashSeed abc", "random", "4294967295")


@ours
@pytest.mark.parametrize("value", ["abc", "-1"])
def test_bad_optimization(checked, value):
    rejected(checked, f"WSGIPythonOptimize {value}", "WSGIPythonOptimize")


@pytest.mark.checklist(18)
@pytest.mark.parametrize("value", ["0", "-1", "x", "0.0", "1s", '""'])
def test_bad_switch_interval(checked, value):
    rejected(checked, f"WSGISwitchInterval {value}", "WSGISwitchInterval")
    section = f"<WSGIInterpreterOptions>\nWSGISwitchInterval {value}\n</WSGIInterpreterOptions>"
    rejected(checked, section, "WSGISwitchInterval")


# Options of interpreters


def options(text, selectors=""):
    return f"<WSGIInterpreterOptions{selectors}>\n{text}\n</WSGIInterpreterOptions>"


@ours
@pytest.mark.checklist(23)
@pytest.mark.parametrize(
    ("selectors", "words"),
    [
        (" thread=1", ["unknown selector 'thread'", "process-group="]),
        (" application-group=a application-group=b", ["application-group", "more than once"]),
        (" process-group=a Process-Group=b", ["more than once"]),
        (" word", ["'word'", "name=value"]),
        (" application-group", ["'application-group'", "name=value"]),
    ],
)
def test_bad_selectors(checked, selectors, words):
    rejected(checked, options("WSGIRestrictStdin On", selectors), *words)


@ours
@pytest.mark.checklist(23)
def test_selectors(checked):
    for selectors in (
        "",
        " process-group=%{GLOBAL}",
        ' application-group="two words" process-group=nobody',
    ):
        assert checked(options("WSGIRestrictStdin On", selectors)) == ""
    rejected(
        checked,
        "<WSGIInterpreterOptions application-group=a\n</WSGIInterpreterOptions>",
        "missing closing '>'",
    )


@ours
@pytest.mark.checklist(16, 23)
def test_what_may_stand_in_the_options_of_interpreters(checked):
    for line in (
        "WSGIPerInterpreterGIL Off",
        "WSGIFreeThreading Off",
        "WSGISwitchInterval 1",
        "WSGIPythonPath /a:/b",
        "WSGIRestrictStdin On",
        "WSGIRestrictStdout On",
        "wsgirestrictsignal off",
    ):
        assert checked(options(line)) == ""
    for line in (
        "WSGIDestroyInterpreter Off",
        "WSGIPythonHome /usr",
        "WSGIScriptAlias / /x.wsgi",
        "ServerName x",
        "<Location />\n</Location>",
        options("WSGIRestrictStdin On"),
    ):
        rejected(checked, options(line), "WSGIInterpreterOptions", "cannot stand here")
    rejected(checked, options("WSGIRestrictStdin Maybe"), "WSGIRestrictStdin", *ON_OFF)


@pytest.mark.checklist(21, 23)
def test_the_options_of_interpreters_are_for_the_main_server(checked):
    section = options("WSGIRestrictStdin On")
    words = ["WSGIInterpreterOptions"]
    rejected(checked, f"<VirtualHost *>\n{section}\n</VirtualHost>", *words)
    rejected(checked, f"<Directory />\n{section}\n</Directory>", *words)


# Trusted proxies


@pytest.mark.parametrize(
    "value",
    [
        "localhost",
        "proxy.example.org",
        "10.0.0.256",
        "10.0.0.0/33",
        "10.0.0.0/x",
        "10.0.0.0/",
        "10.0.0.1 nonsense",
        "::1/129",
        "1.2.3.4.5",
        "[::1]",
        "*",
        '""',
    ],
)
@pytest.mark.checklist(19, mode="both")
def test_bad_trusted_proxy(checked, value):
    culprit = value.split()[-1].strip('"')
    words = ["Unable to parse trusted proxy", f'"{culprit}"']
    rejected(checked, f"WSGITrustedProxies {value}", *words)
    rejected(checked, f"<Location />\nWSGITrustedProxies {value}\n</Location>", *words)


@pytest.mark.parametrize(
    "value",
    [
        "10.0.0.1",
        "10.0.0.0/8 192.168.0.0/255.255.0.0",
        "10 172.16",
        "::1 2001:db8::/32 fe80::1/128",
        pytest.param("2001:DB8::/32 0.0.0.0/0 ::/0 ::ffff:10.0.0.0/104", marks=ours),
        "",
    ],
)
@pytest.mark.checklist(19, mode="both")
def test_good_trusted_proxy(checked, value):
    assert checked(f"WSGITrustedProxies {value}") == ""


@ours
def test_trusted_header_that_means_nothing(new_httpd):
    """It is accepted, and said, since a misspelt name would leave a client's header in place."""
    with new_httpd() as httpd:
        httpd.config.log_level = "notice"
        httpd.add("WSGITrustedProxyHeaders X-Forwarded-For X-Forwarded-Four x-real-ip")
        done = httpd.check()
        assert done.returncode == 0
        httpd.expect_log("RWSGI0632: .*'X-Forwarded-Four'", count=None)
        httpd.start()


# Contexts

SERVER_ONLY = [
    *(f"{name} On" for name in SWITCHES_SERVER),
    "WSGIPythonHome /usr",
    "WSGIPythonPath /tmp",
    "WSGIPythonOptimize 1",
    "WSGIPythonWarnings ignore",
    "WSGIPythonHashSeed 0",
    "WSGISwitchInterval 0.01",
]
NOT_IN_DIRECTORIES = ["WSGIScriptAlias / /x", "WSGIScriptAliasMatch / /x"]


@pytest.mark.parametrize("line", SERVER_ONLY)
def test_server_only(checked, line):
    assert checked(line) == ""
    words = [line.partition(" ")[0], "cannot occur within", "VirtualHost"]
    rejected(checked, f"<VirtualHost *>\n{line}\n</VirtualHost>", *words)
    rejected(checked, f"<Directory />\n{line}\n</Directory>", words[0], "not allowed in")


@pytest.mark.parametrize("line", NOT_IN_DIRECTORIES)
def test_aliases_are_not_for_directories(checked, line):
    assert checked(line) == ""
    assert checked(f"<VirtualHost *>\n{line}\n</VirtualHost>") == ""
    for section in ("Directory /", "Location /", "Files x"):
        name = section.partition(" ")[0]
        rejected(checked, f"<{section}>\n{line}\n</{name}>", line.split()[0], "not allowed")


@pytest.mark.parametrize(
    "line",
    [*(f"{name} On" for name in SWITCHES_ANYWHERE)]
    + ["WSGIApplicationGroup x", "WSGICallableObject x", "WSGIMapHEADToGET Auto"]
    + ["WSGIProcessGroup %{GLOBAL}", "WSGIHandlerScript name /x.py"]
    + ["WSGIDispatchScript /x.py"]
    + ["WSGITrustedProxies 10.0.0.0/8", "WSGITrustedProxyHeaders X-Real-IP"]
    + [pytest.param("WSGIReloadFailure Fail", marks=ours)]
    + [pytest.param("WSGILocalRedirect On", marks=ours)],
)
def test_allowed_in_directories(checked, line):
    for section in ("VirtualHost *", "Directory /", "Location /", "Files x", "LocationMatch x"):
        name = section.partition(" ")[0]
        assert checked(f"<{section}>\n{line}\n</{name}>") == ""


def htaccess(new_httpd, line, override):
    with new_httpd() as httpd:
        (httpd.root / "site").mkdir()
        httpd.write("site/app.wsgi", (httpd.apps / "where.wsgi").read_text())
        httpd.write("site/.htaccess", line + "\n")
        httpd.add(f"""
            <Directory "{httpd.root}/site">
                Require all granted
                AllowOverride {override}
            </Directory>
            WSGIScriptAlias / "{httpd.root}/site/app.wsgi"
        """)
        httpd.start()
        httpd.allow_log(f".*{line.split()[0]} not allowed here|Unable to parse trusted proxy")
        return httpd.request("/").status


@pytest.mark.parametrize(
    ("line", "override", "status"),
    [
        ("WSGICallableObject other", "FileInfo", 200),
        ("WSGICallableObject other", "AuthConfig", 500),
        ("WSGIScriptReloading Off", "FileInfo", 200),
        ("WSGIPassAuthorization On", "FileInfo", 200),
        ("WSGITrustedProxies 10.0.0.0/8", "FileInfo", 200),
        ("WSGITrustedProxies 10.0.0.0/8", "AuthConfig", 500),
        ("WSGITrustedProxies nonsense", "FileInfo", 500),
        ("WSGITrustedProxyHeaders X-Real-IP X-Odd", "FileInfo", 200),
        pytest.param("WSGILocalRedirect On", "FileInfo", 200, marks=ours),
        ("WSGIApplicationGroup x", "All", 500),
        ("WSGIProcessGroup x", "All", 500),
        ("WSGIHandlerScript x /x.py", "All", 500),
        ("WSGIDispatchScript /x.py", "All", 500),
        ("WSGIPassApacheRequest On", "All", 500),
        ("WSGIScriptAlias / /x", "All", 500),
        ("WSGIPythonPath /x", "All", 500),
    ],
)
@pytest.mark.checklist(22)
def test_htaccess(new_httpd, line, override, status):
    assert htaccess(new_httpd, line, override) == status


# Start-up errors


@ours
def test_python_home_that_does_not_exist(new_httpd):
    with new_httpd() as httpd:
        httpd.add("WSGIPythonHome /does/not/exist")
        said = httpd.start_failing()
        assert "RWSGI0004" in said and "/does/not/exist" in said


@ours
def test_python_home_that_is_none(new_httpd):
    with new_httpd() as httpd:
        httpd.add(f'WSGIPythonHome "{httpd.root}/htdocs"')
        said = httpd.start_failing()
        assert "RWSGI0004" in said and "htdocs" in said


@ours
def test_python_home_of_a_version_without_gateway(new_httpd):
    """The error names the version found, those installed, and the command that adds it."""
    with new_httpd() as httpd:
        home = httpd.root / "venv"
        (home / "bin").mkdir(parents=True)
        (home / "lib" / "python3.8" / "site-packages").mkdir(parents=True)
        httpd.write("venv/bin/python", "#!/bin/false")
        httpd.write("venv/pyvenv.cfg", "home = /opt/python3.8/bin\nversion = 3.8.18\n")
        httpd.add(f'WSGIPythonHome "{home}"')
        said = httpd.start_failing()
        assert "RWSGI0003" in said
        assert "3.8" in said
        assert re.search(r"3\.(9|1\d)", said), "the versions installed are not named"
        assert re.search(r"make gateway PYTHON=\S+", said)
