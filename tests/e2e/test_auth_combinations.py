"""Access, users and groups together: `Satisfy`, `<RequireAny>` and its like, chains of providers,
and the rest of httpd's own authentication beside ours."""

from __future__ import annotations

import base64
import json
from hashlib import md5, sha1

import pytest
from harness.config import BOTH
from harness.curl import curl

MODES = BOTH

#: What httpd says about users who are not let in.
NOISE = r"AH0161[78]: |AH01631: |AH01790: |AH01794: |AH01630: |AH01797: "

MODULES = [
    "auth_basic",
    "auth_digest",
    "authn_anon",
    "authz_host",
    "authz_groupfile",
    "access_compat",
    "env",
    "setenvif",
]


def basic(user, password="secret"):
    credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {credentials}"}


@pytest.fixture(scope="module")
def server(new_httpd):
    with new_httpd(modules=MODULES) as httpd:
        script = httpd.apps / "auth.py"
        passwords = {"filed": "from-file", "check": "other", "none": "from-file", "both": "secret"}
        lines = [
            f"{user}:{{SHA}}{base64.b64encode(sha1(word.encode()).digest()).decode()}"
            for user, word in passwords.items()
        ]
        httpd.write("users", "\n".join(lines) + "\n")
        hashes = [
            f"{user}:realm:{md5(f'{user}:realm:{word}'.encode()).hexdigest()}"
            for user, word in passwords.items()
        ]
        httpd.write("digests", "\n".join(hashes) + "\n")
        httpd.write("groups", "filed-group: filed member-of-list=other\n")
        user_script = f"WSGIAuthUserScript {script}"
        common = f"""
            AuthType Basic
            AuthName realm
            AuthUserFile {httpd.root}/users
            AuthGroupFile {httpd.root}/groups
            {user_script}
            WSGIAuthGroupScript {script}
        """
        sections = {
            # Chains.
            "file-wsgi": "AuthBasicProvider file wsgi\nRequire valid-user",
            "wsgi-file": "AuthBasicProvider wsgi file\nRequire valid-user",
            "aliases": "AuthBasicProvider first second\nRequire valid-user",
            "not-authoritative": """
                AuthBasicProvider wsgi
                AuthBasicAuthoritative Off
                Require valid-user
            """,
            # Requirements.
            "any": """
                AuthBasicProvider wsgi
                <RequireAny>
                    Require wsgi-group staff
                    Require user true
                    Require env LET_IN
                </RequireAny>
            """,
            "all": """
                AuthBasicProvider wsgi
                <RequireAll>
                    Require valid-user
                    Require wsgi-group staff
                    Require env LET_IN
                </RequireAll>
            """,
            "none": """
                AuthBasicProvider wsgi
                <RequireAll>
                    Require valid-user
                    <RequireNone>
                        Require wsgi-group banned
                    </RequireNone>
                </RequireAll>
            """,
            "nested": """
                AuthBasicProvider wsgi file
                <RequireAny>
                    <RequireAll>
                        Require wsgi-group staff
                        Require wsgi-group board
                    </RequireAll>
                    Require group filed-group
                </RequireAny>
            """,
            "negated": """
                AuthBasicProvider wsgi
                <RequireAll>
                    Require valid-user
                    Require not wsgi-group banned
                </RequireAll>
            """,
            "two-lines": """
                AuthBasicProvider wsgi
                Require wsgi-group staff
                Require wsgi-group board
            """,
            "file-users-wsgi-groups": """
                AuthBasicProvider file anon
                Anonymous *
                Anonymous_MustGiveEmail Off
                Require wsgi-group staff
            """,
            "wsgi-users-file-groups": "AuthBasicProvider wsgi\nRequire group filed-group",
            "authoritative": """
                AuthBasicProvider wsgi
                WSGIGroupAuthoritative Off
                Require wsgi-group staff
            """,
            # Access beside users.
            "satisfy-all": f"""
                AuthBasicProvider wsgi
                WSGIAccessScript {script}
                Satisfy All
                Require valid-user
            """,
            "satisfy-any": f"""
                AuthBasicProvider wsgi
                WSGIAccessScript {script}
                Satisfy Any
                Require valid-user
            """,
            "satisfy-any-deny": f"""
                AuthBasicProvider wsgi
                WSGIAccessScript {script}
                Satisfy Any
                Order Allow,Deny
                Require valid-user
            """,
            "access-and-user": f"""
                AuthBasicProvider wsgi
                WSGIAccessScript {script}
                Require valid-user
            """,
            "access-and-require-any": f"""
                AuthBasicProvider wsgi
                WSGIAccessScript {script}
                <RequireAny>
                    Require env LET_IN
                    Require valid-user
                </RequireAny>
            """,
        }
        httpd.add(f"""
            <Directory "{httpd.root}">
                Require all granted
            </Directory>
            <AuthnProviderAlias wsgi first>
                WSGIAuthUserScript {httpd.root}/first.py application-group=first
            </AuthnProviderAlias>
            <AuthnProviderAlias wsgi second>
                WSGIAuthUserScript {httpd.root}/second.py application-group=second
            </AuthnProviderAlias>
            SetEnvIf X-Let-In . LET_IN
            WSGIScriptAlias / {httpd.apps}/who.wsgi
            <Location /denied>
                WSGIAccessScript {script}
                Require all denied
            </Location>
            <Location /granted>
                WSGIAccessScript {script}
                Require all granted
            </Location>
        """)
        for name in ("first", "second"):
            httpd.write(
                f"{name}.py",
                f"""
                def check_password(environ, user, password):
                    group = environ["mod_wsgi.application_group"]
                    assert group == "{name}", group
                    return "{name}" if user == "{name}" else None
                """,
            )
        for name, section in sections.items():
            httpd.add(f"<Location /{name}>\n{common}\n{section}\n</Location>")
        digest = {"digest-file-wsgi": "file wsgi", "digest-wsgi-file": "wsgi file"}
        for name, providers in digest.items():
            httpd.add(f"""
                <Location /{name}>
                    AuthType Digest
                    AuthName realm
                    AuthDigestProvider {providers}
                    AuthUserFile {httpd.root}/digests
                    {user_script}
                    Require valid-user
                </Location>
            """)
        yield httpd.start()


def status(server, path, user=None, password="secret", **headers):
    server.allow_log(NOISE)
    if user:
        headers |= basic(user, password)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.request(path, headers=headers).status


LET_IN = {"X_Let_In": "1"}


# Chains of providers


@pytest.mark.checklist(217)
@pytest.mark.parametrize(
    ("user", "password", "expected"),
    [
        # Known to the file only.
        ("filed", "from-file", 200),
        ("filed", "secret", 401),
        # Known to both: the first decides, whatever the second would say.
        ("check", "other", 200),
        ("check", "secret", 401),
        ("none", "from-file", 200),
        # Unknown to the file.
        ("true", "any", 200),
        ("false", "any", 401),
        ("rename", "any", 200),
    ],
)
def test_file_then_wsgi(server, user, password, expected):
    assert status(server, "/file-wsgi", user, password) == expected


@pytest.mark.checklist(217)
@pytest.mark.parametrize(
    ("user", "password", "expected"),
    [
        ("check", "secret", 200),
        # A wrong password ends the chain.
        ("check", "other", 401),
        # None: the next one is asked.
        ("none", "from-file", 200),
        ("none", "secret", 401),
        ("true", "any", 200),
    ],
)
def test_wsgi_then_file(server, user, password, expected):
    assert status(server, "/wsgi-file", user, password) == expected


@pytest.mark.checklist(217)
def test_an_error_ends_the_chain(server):
    server.expect_log("RWSGI0501: ")
    # The file is not asked, which does not matter: it does not know the user either.
    assert status(server, "/wsgi-file", "raise") == 500


@pytest.mark.checklist(216, 217)
def test_named_providers(server):
    for user in ("first", "second"):
        response = server.json("/aliases", headers=basic(user))
        assert response["REMOTE_USER"] == user
    assert status(server, "/aliases", "third") == 401


def test_not_authoritative(server):
    """Nobody else knows the user: httpd says that no module does."""
    server.expect_log("AH01796: ")
    assert status(server, "/not-authoritative", "none") == 500
    assert status(server, "/not-authoritative", "false") == 401
    assert status(server, "/not-authoritative", "true") == 200


@pytest.mark.checklist(217)
@pytest.mark.parametrize(
    ("path", "user", "password", "expected"),
    [
        ("/digest-file-wsgi", "filed", "from-file", 200),
        ("/digest-file-wsgi", "str", "secret", 200),
        ("/digest-file-wsgi", "str", "guess", 401),
        ("/digest-wsgi-file", "str", "secret", 200),
        ("/digest-wsgi-file", "none", "from-file", 200),
        ("/digest-wsgi-file", "none", "guess", 401),
    ],
)
def test_digest(server, path, user, password, expected):
    server.allow_log(NOISE)
    response = curl(server.url(path), "--digest", "--user", f"{user}:{password}")
    assert response.status == expected
    if expected == 200:
        assert json.loads(response.body)["REMOTE_USER"] == user


# Requirements


@pytest.mark.checklist(217)
@pytest.mark.parametrize(
    ("user", "headers", "expected"),
    [
        (None, {}, 401),
        (None, LET_IN, 200),
        ("true", {}, 200),
        ("member-of-list=staff", {}, 200),
        ("member-of-list=other", {}, 401),
        ("member-of-list=other", LET_IN, 200),
        # Who has no right password is not let in by another requirement, if a name is needed...
        ("false", {}, 401),
        # ...and is not asked for it, if not.
        ("false", LET_IN, 200),
    ],
)
def test_require_any(server, user, headers, expected):
    assert status(server, "/any", user, **headers) == expected


@pytest.mark.checklist(217)
@pytest.mark.parametrize(
    ("user", "headers", "expected"),
    [
        ("member-of-list=staff", LET_IN, 200),
        # No name would help: httpd does not ask for one.
        ("member-of-list=staff", {}, 403),
        ("member-of-list=other", LET_IN, 401),
        (None, LET_IN, 401),
    ],
)
def test_require_all(server, user, headers, expected):
    assert status(server, "/all", user, **headers) == expected


@pytest.mark.checklist(217)
@pytest.mark.parametrize("path", ["/none", "/negated"])
@pytest.mark.parametrize(
    ("groups", "expected"), [("staff", 200), ("banned", 401), ("staff,banned", 401), ("", 200)]
)
def test_require_none(server, path, groups, expected):
    assert status(server, path, f"member-of-list={groups}") == expected


@pytest.mark.checklist(217)
@pytest.mark.parametrize(
    ("user", "password", "expected"),
    [
        ("member-of-list=staff,board", "x", 200),
        ("member-of-list=staff", "x", 401),
        ("member-of-list=board", "x", 401),
        ("member-of-list=other", "x", 200),
    ],
)
def test_nested(server, user, password, expected):
    assert status(server, "/nested", user, password) == expected


@pytest.mark.checklist(217)
@pytest.mark.parametrize(
    ("groups", "expected"), [("staff", 200), ("board", 200), ("other", 401), ("", 401)]
)
def test_two_lines_are_alternatives(server, groups, expected):
    assert status(server, "/two-lines", f"member-of-list={groups}") == expected


@pytest.mark.checklist(217)
def test_groups_of_users_of_another_provider(server):
    assert status(server, "/file-users-wsgi-groups", "filed", "from-file") == 401
    assert status(server, "/file-users-wsgi-groups", "member-of-list=staff", "x") == 200
    assert status(server, "/wsgi-users-file-groups", "member-of-list=other") == 200
    assert status(server, "/wsgi-users-file-groups", "member-of-list=staff") == 401


def test_group_authoritative_has_no_effect(server):
    assert status(server, "/authoritative", "member-of-list=staff") == 200
    assert status(server, "/authoritative", "member-of-list=other") == 401


# Access and users


@pytest.mark.checklist(217)
@pytest.mark.parametrize("path", ["/satisfy-all", "/access-and-user"])
@pytest.mark.parametrize(
    ("access", "user", "expected"),
    [
        ("true", "true", 200),
        ("none", "true", 200),
        ("false", "true", 403),
        ("true", "false", 401),
        ("none", "false", 401),
        ("true", None, 401),
        ("false", None, 403),
    ],
)
def test_both_access_and_user(server, path, access, user, expected):
    if expected == 403:
        server.expect_log("RWSGI0503: ")
    assert status(server, f"{path}?{access}", user) == expected


@pytest.mark.checklist(217)
@pytest.mark.parametrize(
    ("access", "user", "expected"),
    [
        ("true", None, 200),
        ("true", "false", 200),
        ("false", "true", 200),
        ("false", "false", 401),
        ("false", None, 401),
    ],
)
def test_access_or_user(server, access, user, expected):
    """A refusal is not worth a line of the log where a password can make up for it."""
    assert status(server, f"/satisfy-any?{access}", user) == expected


@pytest.mark.checklist(217)
@pytest.mark.parametrize(
    ("access", "user", "expected"),
    [("true", None, 401), ("none", None, 401), ("none", "true", 200), ("false", "true", 200)],
)
def test_access_or_user_beside_allow_and_deny(server, access, user, expected):
    """What one script has no objection to, `Deny` may still refuse."""
    assert status(server, f"/satisfy-any-deny?{access}", user) == expected


@pytest.mark.checklist(217)
def test_a_failing_access_script_and_satisfy_any(server):
    server.expect_log("RWSGI0501: ", count=2)
    assert status(server, "/satisfy-any?raise") == 401
    assert status(server, "/satisfy-any?raise", "true") == 200


@pytest.mark.checklist(217)
@pytest.mark.parametrize(
    ("access", "user", "headers", "expected"),
    [
        ("true", None, LET_IN, 200),
        ("true", "true", {}, 200),
        ("true", None, {}, 401),
        ("false", "true", LET_IN, 403),
    ],
)
def test_access_and_one_of_several_requirements(server, access, user, headers, expected):
    if expected == 403:
        server.expect_log("RWSGI0503: ")
    assert status(server, f"/access-and-require-any?{access}", user, **headers) == expected


@pytest.mark.checklist(213, 217)
def test_access_does_not_replace_requirements(server):
    assert status(server, "/denied?true") == 403
    assert status(server, "/granted?true") == 200
    server.expect_log("RWSGI0503: ")
    assert status(server, "/granted?false") == 403
