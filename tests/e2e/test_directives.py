"""Every directive of mod_wsgi in `.htaccess`, allowed or refused where mod_wsgi does so, and every
switch with other words. The contexts of the configuration files are in `test_contexts.py`."""

from __future__ import annotations

import re

import pytest
from harness import paths
from test_contexts import ANYWHERE, AUTH, GLOBAL, SERVER

#: Of those that are allowed anywhere: not in `.htaccess`, which the site's owner writes.
NOT_IN_HTACCESS = {
    "WSGIApplicationGroup",
    "WSGIDispatchScript",
    "WSGIHandlerScript",
    "WSGIPassApacheRequest",
    "WSGIProcessGroup",
    "WSGIRestrictProcess",
}
DOCUMENTED = (paths.REPOSITORY / "docs" / "directives.md").read_text()
#: Directives that take "On" and "Off" and nothing else, ours included, by the documentation.
SWITCHES = re.findall(r"^Syntax: `(\w+) (?:On\|Off|Off\|On)`", DOCUMENTED, re.MULTILINE)
#: Those of mod_wsgi; the others cannot be tried with it.
OLD_SWITCHES = GLOBAL.keys() | ANYWHERE.keys() | AUTH.keys()


@pytest.fixture(scope="module")
def checked(new_httpd):
    """Checks a configuration; its error text, empty if it is accepted."""
    with new_httpd() as httpd:

        def check(text):
            httpd.config.clear().add(text)
            done = httpd.check()
            if done.returncode == 0:
                assert "Syntax OK" in done.stderr
                return ""
            return done.stderr

        yield check


@pytest.mark.checklist(22)
def test_htaccess(new_httpd):
    """One directory for each directive: 500 where it is not allowed, as httpd answers then."""
    with new_httpd() as httpd:
        expected = {}

        def directory(name, arguments, override, status):
            place = f"{name}-{override}"
            httpd.write(f"htdocs/{place}/file.txt", "static")
            httpd.write(f"htdocs/{place}/.htaccess", f"{name} {arguments}\n")
            httpd.add(f"""
                <Directory "{httpd.root}/htdocs/{place}">
                    AllowOverride {override}
                </Directory>
            """)
            expected[place] = status

        for name, arguments in {**GLOBAL, **SERVER, **ANYWHERE}.items():
            allowed = name in ANYWHERE and name not in NOT_IN_HTACCESS
            directory(name, arguments, "FileInfo", 200 if allowed else 500)
            directory(name, arguments, "AuthConfig", 500)
        httpd.add(f"""
            <Directory "{httpd.root}/htdocs">
                Require all granted
            </Directory>
        """)
        httpd.start()
        httpd.expect_log("not allowed here", count=None)
        found = {place: httpd.request(f"/{place}/file.txt").status for place in expected}
        assert found == expected


@pytest.mark.checklist(16)
@pytest.mark.parametrize("name", SWITCHES)
def test_switches(checked, name):
    if paths.PEER and name not in OLD_SWITCHES:
        pytest.skip("ours only")

    def check(value):
        line = f"{name} {value}"
        return checked(f"<Directory />\n{line}\n</Directory>" if name in AUTH else line)

    for value in ("On", "Off", "on", "off", "ON", "OFF", "oN"):
        assert check(value) == "", value
    for value in ("Maybe", "1", "0", "Yes", "true", "Onn", '""', "", "On Off"):
        message = check(value)
        assert name in message, f"{name} {value}: {message}"
        if value in ("Maybe", "1") and not paths.PEER:
            assert "Off | On" in message


def test_switches_are_found():
    assert {"WSGIPassAuthorization", "WSGISocketRotation", "WSGIGroupAuthoritative"} <= set(
        SWITCHES
    )
