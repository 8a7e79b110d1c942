"""What proxies in front of the server say of a request, and what clients make up."""

from __future__ import annotations

import json

import pytest
from harness import paths
from harness.config import BOTH
from harness.curl import curl

MODES = BOTH
ours = pytest.mark.rwsgi
checklist = pytest.mark.checklist

#: The peer of a request that comes from no trusted proxy.
STRANGER = "127.0.0.66"
#: By this header a test says whose request it is (mod_remoteip): any address, IPv6 as well.
PEER = "X-Test-Peer"
PROXIES = "WSGITrustedProxies 127.0.0.1 10.0.0.0/8\nWSGITrustedProxies 2001:db8::/32"

#: Every header with a value; each changes something that the request itself does not say.
SPOOFED = {
    "X-Forwarded-For": "198.51.100.1",
    "X-Client-IP": "198.51.100.2",
    "X-Real-IP": "198.51.100.3",
    "X-Forwarded-Host": "forwarded.example",
    "X-Host": "host.example",
    "X-Forwarded-Server": "server.example",
    "X-Forwarded-Port": "4443",
    "X-Script-Name": "/script",
    "X-Forwarded-Script-Name": "/forwarded-script",
    "X-Forwarded-Prefix": "/prefix",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Scheme": "https",
    "X-Scheme": "https",
    "X-Forwarded-HTTPS": "on",
    "X-Forwarded-SSL": "1",
    "X-HTTPS": "true",
    "Forwarded": 'for="[2001:db9::4]:80";host=rfc.example;proto=https',
}
#: What mod_wsgi has not.
OURS = {"Forwarded", "X-Forwarded-Prefix"}
#: Headers that a client makes up.
MADE_UP = {n: v for n, v in SPOOFED.items() if not (paths.PEER and n in OURS)}
CATEGORIES = {
    "client": ["X-Forwarded-For", "X-Client-IP", "X-Real-IP", "Forwarded"],
    "host": ["X-Forwarded-Host", "X-Host", "Forwarded"],
    "server": ["X-Forwarded-Server"],
    "port": ["X-Forwarded-Port"],
    "script": ["X-Script-Name", "X-Forwarded-Script-Name", "X-Forwarded-Prefix"],
    "scheme": [
        "X-Forwarded-Proto",
        "X-Forwarded-Scheme",
        "X-Scheme",
        "X-Forwarded-HTTPS",
        "X-Forwarded-SSL",
        "X-HTTPS",
        "Forwarded",
    ],
}
CHANGED = [
    "REMOTE_ADDR",
    "HTTP_HOST",
    "SERVER_NAME",
    "SERVER_PORT",
    "SCRIPT_NAME",
    "mod_wsgi.mount_point",
    "wsgi.url_scheme",
]


def each(names):
    return [pytest.param(name, marks=[ours] if name in OURS else []) for name in names]


def mount(name):
    return "/" + name.lower()


@pytest.fixture(scope="module")
def server(new_httpd):
    modules = ["remoteip", "headers", "env"]
    with new_httpd(modules=modules, tls=True, http2=True) as httpd:
        script = httpd.apps / "environ.wsgi"
        locations = {"/plain": "", "/listed": PROXIES, "/unlisted": ""}
        for name in SPOOFED:
            locations[mount(name)] = f"{PROXIES}\nWSGITrustedProxyHeaders {name}"
            locations["/any" + mount(name)] = f"WSGITrustedProxyHeaders {name}"
        locations["/listed"] += "\nWSGITrustedProxyHeaders X-Forwarded-For"
        locations["/unlisted"] += "\nWSGITrustedProxyHeaders x-forwarded-FOR"
        clients = "WSGITrustedProxyHeaders X-Real-IP X-Client-IP\n"
        locations["/clients"] = clients + "WSGITrustedProxyHeaders X-Forwarded-For"
        locations["/schemes"] = "WSGITrustedProxyHeaders X-Forwarded-Proto X-Forwarded-SSL"
        locations["/schemes-variable"] = locations["/schemes"] + "\nSetEnv HTTPS On"
        locations["/clients/none"] = "WSGITrustedProxyHeaders"
        locations["/clients/hosts"] = "WSGITrustedProxyHeaders X-Forwarded-Host"
        locations["/added"] = locations["/listed"] + "\nRequestHeader add X-Forwarded-For 10.0.0.9"
        locations["/all"] = f"{PROXIES}\nWSGITrustedProxyHeaders {' '.join(SPOOFED)}"
        sections = "\n".join(
            f"<Location {path}>\n{text}\n</Location>" for path, text in sorted(locations.items())
        )
        httpd.add(f"""
            WSGIApplicationGroup %{{GLOBAL}}
            RemoteIPHeader {PEER}
            RemoteIPInternalProxy 127.0.0.1
            <Directory "{httpd.apps}">
                Require all granted
            </Directory>
            <LocationMatch "^/any/">
                SetEnv CONFIGURED yes
            </LocationMatch>
            WSGIScriptAliasMatch ^(?:/any|/clients)?/[a-z-]+ "{script}"
        """)
        httpd.add(sections)
        yield httpd.start()


def environ(server, target, headers=(), **options):
    fields = list(headers.items() if isinstance(headers, dict) else headers)
    return server.json(target, headers=fields, **options)["values"]


def forwarded(env):
    """The headers of proxies that the application sees."""
    names = {"HTTP_" + name.upper().replace("-", "_"): name for name in SPOOFED}
    return {names[key]: env[key] for key in names if key in env}


def own(server, target, peer="127.0.0.1"):
    """What a request without such headers gives."""
    return {
        "REMOTE_ADDR": peer,
        "HTTP_HOST": f"localhost:{server.port}",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": str(server.port),
        "SCRIPT_NAME": target,
        "mod_wsgi.mount_point": None,
        "wsgi.url_scheme": "http",
    }


def changed(env):
    return {key: env.get(key) for key in CHANGED}


def expected(name):
    """What each header changes."""
    value = SPOOFED[name]
    if name == "Forwarded":
        return {
            "REMOTE_ADDR": "2001:db9::4",
            "HTTP_HOST": "rfc.example",
            "wsgi.url_scheme": "https",
        }
    category = next(kind for kind, names in CATEGORIES.items() if name in names)
    return {
        "client": {"REMOTE_ADDR": value},
        "host": {"HTTP_HOST": value},
        "server": {"SERVER_NAME": value},
        "port": {"SERVER_PORT": value},
        "script": {"SCRIPT_NAME": value, "mod_wsgi.mount_point": value},
        "scheme": {"wsgi.url_scheme": "https"},
    }[category]


@checklist(80)
def test_nothing_is_believed_unless_configured(server):
    env = environ(server, "/plain/x", SPOOFED)
    assert changed(env) == own(server, "/plain")
    assert forwarded(env) == SPOOFED


# One header


@checklist(85, 89)
@pytest.mark.parametrize("name", each(SPOOFED))
@pytest.mark.parametrize("prefix", ["", "/any"])
def test_each_header(server, name, prefix):
    target = prefix + mount(name)
    env = environ(server, target + "/x", {name: SPOOFED[name]})
    assert changed(env) == {**own(server, target), **expected(name)}
    assert forwarded(env) == {name: SPOOFED[name]}
    # What was before stays visible.
    assert env["mod_wsgi.script_name"] == target
    assert env["PATH_INFO"] == env["mod_wsgi.path_info"] == "/x"
    assert env["REQUEST_SCHEME"] == "http"
    assert env["mod_wsgi.listener_port"] == str(server.port)
    assert env["REMOTE_PORT"].isdigit()
    # The next request on the same worker is not affected.
    assert changed(environ(server, target + "/x")) == own(server, target)


@checklist(86, 87)
@pytest.mark.parametrize("name", each(SPOOFED))
def test_a_stranger_is_not_believed(server, name):
    """Its headers of the same kind disappear, all others are what they are: headers."""
    target = mount(name)
    env = environ(server, target, MADE_UP, source=STRANGER)
    assert changed(env) == own(server, target, STRANGER)
    kinds = [set(names) for names in CATEGORIES.values() if name in names]
    managed = set().union(*kinds)
    assert forwarded(env) == {n: v for n, v in MADE_UP.items() if n not in managed}


@checklist(87)
@pytest.mark.parametrize("name", each(SPOOFED))
def test_what_the_proxy_does_not_set_is_dropped(server, name):
    """A client's header of another name cannot speak in place of the proxy's."""
    target = mount(name)
    env = environ(server, target, MADE_UP)
    assert changed(env) == {**own(server, target), **expected(name)}
    kinds = [set(names) for names in CATEGORIES.values() if name in names]
    managed = set().union(*kinds) - {name}
    assert forwarded(env) == {n: v for n, v in MADE_UP.items() if n not in managed}


@checklist(86)
@pytest.mark.parametrize("name", each(SPOOFED))
@pytest.mark.parametrize("spelling", [str.lower, str.upper, str.swapcase])
def test_spelling_does_not_matter(server, name, spelling):
    target = mount(name)
    headers = {spelling(name): SPOOFED[name]}
    assert changed(environ(server, target, headers)) == {**own(server, target), **expected(name)}
    env = environ(server, target, headers, source=STRANGER)
    assert changed(env) == own(server, target, STRANGER)
    assert forwarded(env) == {}


@checklist(86)
@pytest.mark.parametrize("name", each(name for name in SPOOFED if "-" in name))
@pytest.mark.parametrize("source", ["127.0.0.1", STRANGER])
def test_underscores_are_no_way_in(server, name, source):
    target = mount(name)
    spellings = {name.replace("-", "_"), name.replace("-", ".")}
    headers = [(spelling, SPOOFED[name]) for spelling in spellings]
    env = environ(server, target, headers, source=source)
    assert changed(env) == own(server, target, source)
    assert forwarded(env) == {}


@checklist(86)
def test_a_stranger_with_everything_at_once(server):
    headers = [*MADE_UP.items(), *MADE_UP.items()]
    env = environ(server, "/all", headers, source=STRANGER)
    assert changed(env) == own(server, "/all", STRANGER)
    assert forwarded(env) == {}


# X-Forwarded-For


@checklist(81)
@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("198.51.100.1", "198.51.100.1"),
        ("198.51.100.1, 10.0.0.2", "198.51.100.1"),
        (" , ,198.51.100.1 ,10.0.0.2", "198.51.100.1"),
        ("2001:db9::1,10.0.0.2", "2001:db9::1"),
    ],
)
def test_list_of_clients_without_list_of_proxies(server, value, client):
    env = environ(server, "/unlisted", {"X-Forwarded-For": value}, source=STRANGER)
    assert env["REMOTE_ADDR"] == client
    assert env["HTTP_X_FORWARDED_FOR"] == value.strip()


@checklist(82, 83)
@pytest.mark.parametrize(
    ("value", "client", "rewritten"),
    [
        ("198.51.100.1", "198.51.100.1", "198.51.100.1"),
        ("203.0.113.6, 198.51.100.1", "198.51.100.1", "198.51.100.1"),
        ("203.0.113.6, 198.51.100.1,10.0.0.2", "198.51.100.1", "198.51.100.1, 10.0.0.2"),
        ("203.0.113.6,198.51.100.1,10.0.0.2,,10.0.0.3,", "198.51.100.1", None),
        ("10.0.0.1, 203.0.113.6, 10.0.0.2", "203.0.113.6", "203.0.113.6, 10.0.0.2"),
        ("10.0.0.9, 10.0.0.2", "10.0.0.9", "10.0.0.9, 10.0.0.2"),
        ("203.0.113.6, 1.2.3.4.5, 10.0.0.2", "1.2.3.4.5", "1.2.3.4.5, 10.0.0.2"),
        ("2001:db9::1, 2001:db8::7, 10.0.0.2", "2001:db9::1", "2001:db9::1, 2001:db8::7, 10.0.0.2"),
        ("2001:db9::1", "2001:db9::1", "2001:db9::1"),
    ],
)
def test_list_of_clients(server, value, client, rewritten):
    env = environ(server, "/listed", {"X-Forwarded-For": value})
    assert env["REMOTE_ADDR"] == client
    assert env["HTTP_X_FORWARDED_FOR"] == (rewritten or "198.51.100.1, 10.0.0.2, 10.0.0.3")


@checklist(82)
def test_repeated_lists_are_one(server):
    """A client that sends a header of its own comes first, the proxy's after it."""
    headers = [
        ("X-Forwarded-For", "203.0.113.6"),
        ("x-forwarded-for", "198.51.100.1"),
        ("X-FORWARDED-FOR", "10.0.0.2"),
    ]
    env = environ(server, "/listed", headers)
    assert env["REMOTE_ADDR"] == "198.51.100.1"
    assert env["HTTP_X_FORWARDED_FOR"] == "198.51.100.1, 10.0.0.2"


@ours
@checklist(82)
def test_lists_that_another_module_adds_to(server):
    env = environ(server, "/added", {"X-Forwarded-For": "203.0.113.6, 198.51.100.1"})
    assert env["REMOTE_ADDR"] == "198.51.100.1"
    assert env["HTTP_X_FORWARDED_FOR"] == "198.51.100.1, 10.0.0.9"


@ours
@checklist(83)
@pytest.mark.parametrize("value", ["", ",", " , ,"])
def test_empty_lists_say_nothing(server, value):
    env = environ(server, "/listed", {"X-Forwarded-For": value})
    assert env["REMOTE_ADDR"] == "127.0.0.1"
    assert "HTTP_X_FORWARDED_FOR" not in env


@ours
@checklist(83)
@pytest.mark.parametrize("name", ["localhost", "10.0.0.2:80", "[2001:db8::1]", "10.0.0", "a\tb"])
def test_names_are_not_looked_up(server, name):
    """What is no address ends the list, whatever a name server would say of it."""
    env = environ(server, "/listed", {"X-Forwarded-For": f"203.0.113.6, {name}"})
    assert env["REMOTE_ADDR"] == env["HTTP_X_FORWARDED_FOR"] == name


@checklist(82, 86)
@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        ("10.200.0.1", True),
        ("11.0.0.1", False),
        ("2001:db8:ffff::1", True),
        ("2001:db9::1", False),
        ("::1", False),
    ],
)
def test_peers_are_told_apart(server, peer, trusted):
    """mod_remoteip decides who the peer is."""
    headers = {PEER: peer, "X-Forwarded-For": "198.51.100.1"}
    env = environ(server, "/listed", headers)
    assert env["REMOTE_ADDR"] == ("198.51.100.1" if trusted else peer)
    assert ("HTTP_X_FORWARDED_FOR" in env) is trusted


# One address, one name


@checklist(84)
@pytest.mark.parametrize("name", ["X-Client-IP", "X-Real-IP"])
@pytest.mark.parametrize("value", ["198.51.100.1, 10.0.0.2", "no address", "::1"])
def test_addresses_are_taken_as_they_are(server, name, value):
    assert environ(server, mount(name), {name: value})["REMOTE_ADDR"] == value


@ours
@checklist(85)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Forwarded-Port", "https"),
        ("X-Forwarded-Port", "443, 80"),
        ("X-Forwarded-Port", "65536"),
        ("X-Forwarded-Port", "0"),
        ("X-Forwarded-Port", "-1"),
        ("X-Forwarded-Host", "evil.example, good.example"),
        ("X-Forwarded-Host", "evil.example/path"),
        ("X-Host", "<script>"),
        ("X-Forwarded-Server", "a b"),
        ("X-Script-Name", "relative"),
        ("X-Forwarded-Script-Name", "//evil.example"),
        ("X-Forwarded-Prefix", "//evil.example/"),
        ("X-Forwarded-Prefix", "https://evil.example/"),
        ("X-Forwarded-Prefix", "/evil,/prefix"),
    ],
)
def test_impossible_values_change_nothing(server, name, value):
    target = mount(name)
    env = environ(server, target, {name: value})
    assert changed(env) == own(server, target)
    assert forwarded(env) == {name: value}


@ours
@checklist(85)
@pytest.mark.parametrize("name", ["X-Real-IP", "X-Host", "X-Forwarded-Server", "X-Forwarded-Port"])
def test_empty_values_say_nothing(server, name):
    """PEP 3333: server name and port are never empty."""
    env = environ(server, mount(name), {name: ""})
    assert changed(env) == own(server, mount(name))


@checklist(85, 89)
def test_a_mount_point_may_be_the_root(server):
    env = environ(server, "/x-script-name/y", {"X-Script-Name": ""})
    assert (env["SCRIPT_NAME"], env["mod_wsgi.mount_point"]) == ("", "")
    assert (env["PATH_INFO"], env["mod_wsgi.script_name"]) == ("/y", "/x-script-name")


@ours
@checklist(85, 89)
@pytest.mark.parametrize(("value", "name"), [("/a/b/", "/a/b"), ("/", ""), ("", "")])
def test_prefixes_do_not_end_with_a_slash(server, value, name):
    env = environ(server, "/x-forwarded-prefix", {"X-Forwarded-Prefix": value})
    assert (env["SCRIPT_NAME"], env["mod_wsgi.mount_point"]) == (name, name)


# Schemes


@checklist(85, 88)
@pytest.mark.parametrize("name", ["X-Forwarded-Proto", "X-Forwarded-Scheme", "X-Scheme"])
@pytest.mark.parametrize(
    ("value", "tls", "scheme"),
    [
        ("https", False, "https"),
        ("HTTPS", False, "https"),
        ("http", True, "http"),
        ("Http", True, "http"),
        ("gopher", False, "http"),
        ("https, http", False, "http"),
        # Not understood: what mod_ssl has said in the variable HTTPS stays.
        ("gopher", True, "https"),
    ],
)
def test_schemes(server, name, value, tls, scheme):
    env = environ(server, mount(name), {name: value}, tls=tls)
    assert env["wsgi.url_scheme"] == scheme
    assert "HTTPS" not in env


@checklist(85, 88)
@pytest.mark.parametrize("name", ["X-Forwarded-HTTPS", "X-Forwarded-SSL", "X-HTTPS"])
@pytest.mark.parametrize(
    ("value", "tls", "scheme"),
    [
        ("On", False, "https"),
        ("TRUE", False, "https"),
        ("1", False, "https"),
        ("off", True, "http"),
        ("False", True, "http"),
        ("0", True, "http"),
        ("yes", False, "http"),
        ("yes", True, "https"),
    ],
)
def test_switches(server, name, value, tls, scheme):
    assert environ(server, mount(name), {name: value}, tls=tls)["wsgi.url_scheme"] == scheme


@checklist(88)
def test_tls_counts_where_the_proxy_says_nothing(server):
    target = "/x-forwarded-proto"
    assert environ(server, target, tls=True)["wsgi.url_scheme"] == "https"
    headers = {"X-Forwarded-Proto": "http"}
    env = environ(server, target, headers, tls=True, source=STRANGER)
    assert env["wsgi.url_scheme"] == "https"


@checklist(88)
@pytest.mark.parametrize(
    ("headers", "scheme"),
    [({}, "https"), ({"X-Forwarded-Proto": "http"}, "http"), ({"X-Forwarded-Proto": "?"}, "https")],
)
def test_a_variable_counts_unless_the_proxy_says_otherwise(server, headers, scheme):
    assert environ(server, "/schemes-variable", headers)["wsgi.url_scheme"] == scheme


# Several headers


@checklist(90)
def test_the_last_configured_header_wins(server):
    headers = {"X-Forwarded-For": "203.0.113.1", "X-Real-IP": "203.0.113.2", "X-Client-IP": "3"}
    for names, winner in [
        (["X-Real-IP"], "X-Real-IP"),
        (["X-Client-IP", "X-Real-IP"], "X-Client-IP"),
        (["X-Forwarded-For", "X-Real-IP", "X-Client-IP"], "X-Forwarded-For"),
    ]:
        env = environ(server, "/clients/x", {name: headers[name] for name in names})
        assert env["REMOTE_ADDR"] == headers[winner]
        assert forwarded(env) == {winner: headers[winner]}


@checklist(90)
def test_the_last_scheme_wins(server):
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-SSL": "off"}
    env = environ(server, "/schemes", headers)
    assert env["wsgi.url_scheme"] == "http"
    assert forwarded(env) == {"X-Forwarded-SSL": "off"}
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-SSL": "?"}
    assert environ(server, "/schemes", headers)["wsgi.url_scheme"] == "https"


@checklist(90)
def test_an_inner_section_replaces_the_list(server):
    headers = {"X-Real-IP": "203.0.113.2", "X-Forwarded-Host": "outer.example"}
    env = environ(server, "/clients/hosts", headers)
    assert (env["REMOTE_ADDR"], env["HTTP_HOST"]) == ("127.0.0.1", "outer.example")
    assert forwarded(env) == headers
    env = environ(server, "/clients/none", headers)
    assert changed(env) == own(server, "/clients/none")
    assert forwarded(env) == headers


def test_a_host_is_given_to_requests_without_one(server):
    headers = {"X-Host": "outer.example:81"}
    env = environ(server, "/x-host", headers, version="HTTP/1.0", host=None)
    assert env["HTTP_HOST"] == "outer.example:81"


# RFC 7239


@ours
@pytest.mark.parametrize(
    ("value", "client", "kept"),
    [
        ("for=198.51.100.1", "198.51.100.1", None),
        ('For="198.51.100.1:4711"', "198.51.100.1", None),
        ('for="[2001:db9::1]"', "2001:db9::1", None),
        ('for="[2001:DB9:0::1]:4711"', "2001:db9::1", None),
        ('for="[2001:db9::1]:_port"', "2001:db9::1", None),
        ("for=_hidden", "_hidden", None),
        ('for="unknown:80"', "unknown", None),
        ("for=203.0.113.6, for=198.51.100.1", "198.51.100.1", "for=198.51.100.1"),
        (
            "for=203.0.113.6, for=198.51.100.1 ,for=10.0.0.2",
            "198.51.100.1",
            "for=198.51.100.1, for=10.0.0.2",
        ),
        ('for="[2001:db8::1]", for=10.0.0.2', "2001:db8::1", None),
        ("for=_a, for=10.0.0.2", "_a", None),
        ("for=203.0.113.6, for=_a", "_a", "for=_a"),
        # A client cannot swallow what the proxy appends.
        ('for="203.0.113.6, for=198.51.100.1', "198.51.100.1", "for=198.51.100.1"),
        ('for="203.0.113.6\\, for="198.51.100.1:1"', "198.51.100.1", 'for="198.51.100.1:1"'),
        ("{{{, for=10.0.0.2", "10.0.0.2", "for=10.0.0.2"),
        # A proxy whose own words make no sense has an unknown client, not itself.
        ("for=198.51.100.1, for=a b", "unknown", "for=unknown"),
        ('for="198.51.100.1', "unknown", "for=unknown"),
        ("for=198.51.100.1;for=198.51.100.2", "unknown", "for=unknown"),
        ("for=client.example", "unknown", "for=unknown"),
    ],
)
def test_forwarded(server, value, client, kept):
    env = environ(server, "/forwarded", {"Forwarded": value})
    assert env["REMOTE_ADDR"] == client
    assert env["HTTP_FORWARDED"] == (value if kept is None else kept)


@ours
def test_forwarded_host_and_scheme_are_the_outermost_trusted_ones(server):
    value = (
        "for=203.0.113.6;host=evil.example;proto=http, "
        "for=198.51.100.1;host=outer.example;proto=https;by=_edge, "
        'for=10.0.0.2;host="inner.example:8080";proto=http'
    )
    env = environ(server, "/forwarded", {"Forwarded": value})
    assert env["REMOTE_ADDR"] == "198.51.100.1"
    assert (env["HTTP_HOST"], env["wsgi.url_scheme"]) == ("outer.example", "https")
    assert env["HTTP_FORWARDED"] == value.partition(", ")[2]


@ours
@pytest.mark.parametrize("value", ['host="evil.example/x"', 'host=""', 'host="a b"', "host=a,b"])
def test_forwarded_host_must_be_one(server, value):
    env = environ(server, "/any/forwarded", {"Forwarded": value})
    assert env["HTTP_HOST"] in (f"localhost:{server.port}", "a")
    assert "evil" not in env["HTTP_HOST"]


@ours
def test_forwarded_and_the_older_headers(server):
    """Both in one configuration: for each kind, the last one that was sent."""
    headers = {"X-Forwarded-Proto": "http", "Forwarded": "for=198.51.100.9;proto=https"}
    env = environ(server, "/all", headers)
    assert (env["REMOTE_ADDR"], env["wsgi.url_scheme"]) == ("198.51.100.9", "https")
    assert forwarded(env) == {"Forwarded": headers["Forwarded"]}
    headers = {"X-Forwarded-Proto": "https", "Forwarded": "for=198.51.100.9"}
    env = environ(server, "/all", headers)
    assert (env["REMOTE_ADDR"], env["wsgi.url_scheme"]) == ("198.51.100.9", "https")
    assert forwarded(env) == headers


@ours
def test_long_lists(server):
    """As long as httpd lets in."""
    value = ", ".join(["10.0.0.2"] * 800)
    assert environ(server, "/listed", {"X-Forwarded-For": value})["REMOTE_ADDR"] == "10.0.0.2"
    for start, client in [
        ('"' * 8000, "198.51.100.1"),
        ("for=10.0.0.2," * 600, "198.51.100.1"),
        ("for=10.0.0.2,\\" * 500, "198.51.100.1"),
        ("," * 8000, "198.51.100.1"),
    ]:
        value = f"{start}, for={client}, for=10.0.0.3"
        assert environ(server, "/forwarded", {"Forwarded": value})["REMOTE_ADDR"] == client


# HTTP/2


@checklist(82, 85)
def test_http_2(server):
    options = ["--http2-prior-knowledge", "-H", "X-Forwarded-For: 203.0.113.6, 198.51.100.1"]
    response = curl(server.url("/listed"), *options)
    assert response.protocol == "HTTP/2"
    env = json.loads(response.body)["values"]
    assert env["REMOTE_ADDR"] == env["HTTP_X_FORWARDED_FOR"] == "198.51.100.1"
    options += ["-H", "X-Forwarded-For: 10.0.0.2", "-H", "X_Forwarded_For: 203.0.113.7"]
    env = json.loads(curl(server.url("/listed"), *options).body)["values"]
    assert env["REMOTE_ADDR"] == "198.51.100.1"
    assert env["HTTP_X_FORWARDED_FOR"] == "198.51.100.1, 10.0.0.2"


# A real proxy


@pytest.fixture(scope="module")
def chain(new_httpd):
    """mod_proxy in front of the application, in the same httpd; ``/twice`` passes it two times."""
    modules = ["proxy", "proxy_http"]
    with new_httpd(modules=modules) as httpd:
        httpd.add(f"""
            WSGIApplicationGroup %{{GLOBAL}}
            <Directory "{httpd.apps}">
                Require all granted
            </Directory>
            WSGIScriptAliasMatch ^/(once|list)-behind "{httpd.apps}/environ.wsgi"
            ProxyPass /once http://127.0.0.1:{httpd.port}/once-behind
            ProxyPass /twice http://127.0.0.1:{httpd.port}/once
            ProxyPass /list http://127.0.0.1:{httpd.port}/list-behind
            <LocationMatch "^/(once|list)-behind">
                WSGITrustedProxies 127.0.0.1
                WSGITrustedProxyHeaders X-Forwarded-For X-Forwarded-Host
            </LocationMatch>
        """)
        yield httpd.start()


@checklist(82, 86)
@pytest.mark.parametrize("target", ["/once/x", "/twice/x"])
def test_the_client_of_a_chain(chain, target):
    """Whatever the client says, it is who it is."""
    for spoofed in ({}, {"X-Forwarded-For": "127.0.0.1, 10.0.0.1"}, {"X-Forwarded-For": ",x,"}):
        env = environ(chain, target, spoofed, source=STRANGER)
        assert env["REMOTE_ADDR"] == STRANGER
        rest = [] if target == "/once/x" else ["127.0.0.1"]
        assert env["HTTP_X_FORWARDED_FOR"].split(", ") == [STRANGER, *rest]


@ours
@checklist(85, 86)
def test_the_host_of_a_chain(chain):
    """mod_proxy adds to what it has got: a list is nobody's host, and not the client's choice."""
    env = environ(chain, "/list/x", source=STRANGER)
    assert env["HTTP_HOST"] == f"localhost:{chain.port}"
    headers = {"X-Forwarded-Host": "evil.example"}
    env = environ(chain, "/list/x", headers, source=STRANGER)
    assert env["HTTP_HOST"] == f"127.0.0.1:{chain.port}"
    assert env["HTTP_X_FORWARDED_HOST"].startswith("evil.example, ")


@checklist(86)
def test_around_the_proxy(chain):
    """A client that reaches the application directly is no proxy."""
    headers = {"X-Forwarded-For": "10.0.0.1", "X-Forwarded-Host": "evil.example"}
    env = environ(chain, "/once-behind", headers, source=STRANGER)
    assert env["REMOTE_ADDR"] == STRANGER
    assert env["HTTP_HOST"] == f"localhost:{chain.port}"
    assert "evil.example" not in str(env)
