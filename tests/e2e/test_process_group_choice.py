"""Which process group serves: the server's, the section's, the alias's, in this order."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def server(new_httpd):
    with new_httpd(modules=["env"]) as httpd:
        app = f"{httpd.apps}/where.wsgi"
        for name in ("server", "vhost", "outer", "inner", "files", "alias"):
            httpd.add(f"WSGIDaemonProcess {name} threads=1")
        httpd.add(f"""
            <Directory "{httpd.apps}">
                Require all granted
            </Directory>
            WSGIProcessGroup server
            WSGIApplicationGroup server-group
            WSGIScriptAlias /plain {app}
            WSGIScriptAlias /section {app}
            WSGIScriptAlias /aliased {app} process-group=alias application-group=alias-group
            WSGIScriptAlias /embedded {app} process-group=%{{GLOBAL}}
            <Location /section>
                WSGIProcessGroup outer
                WSGIApplicationGroup outer-group
            </Location>
            <Location /section/inner>
                WSGIProcessGroup inner
            </Location>
            <Location /section/embedded>
                WSGIProcessGroup %{{GLOBAL}}
            </Location>
            <Location /section/variable>
                SetEnv GROUP files
                WSGIProcessGroup %{{ENV:GROUP}}
            </Location>
            <Location /aliased>
                WSGIProcessGroup outer
                WSGIApplicationGroup outer-group
            </Location>
            <VirtualHost *:{httpd.port}>
                ServerName localhost
            </VirtualHost>
            <VirtualHost *:{httpd.port}>
                ServerName second.example
                WSGIProcessGroup vhost
            </VirtualHost>
        """)
        yield httpd.start()


@pytest.mark.checklist(35)
@pytest.mark.parametrize(
    ("target", "process_group", "application_group"),
    [
        ("/plain", "server", "server-group"),
        ("/section", "outer", "outer-group"),
        ("/section/inner/x", "inner", "outer-group"),
        ("/section/embedded", "", "outer-group"),
        ("/section/variable", "files", "outer-group"),
        ("/aliased", "alias", "alias-group"),
        ("/embedded", "", "server-group"),
    ],
)
def test_the_nearest_wins(server, target, process_group, application_group):
    told = server.json(target)
    assert told["process_group"] == process_group
    assert told["application_group"] == application_group


@pytest.mark.checklist(35)
@pytest.mark.parametrize(
    ("target", "process_group"),
    [("/plain", "vhost"), ("/section", "outer"), ("/aliased", "alias")],
)
def test_virtual_host(server, target, process_group):
    """Its own setting instead of the main server's, which sections and aliases still overrule."""
    told = server.json(target, headers={"Host": f"second.example:{server.port}"})
    assert told["process_group"] == process_group
    assert told["application_group"] in ("server-group", "outer-group", "alias-group")
