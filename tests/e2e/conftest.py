"""Fixtures: servers shared by the tests of one module, and the account of the error log."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
pytest_plugins = ["checklist.plugin"]

from harness import paths  # noqa: E402
from harness.server import Httpd, remove_shared_directory  # noqa: E402

#: The MPMs of daemon mode, unless a test file says ``DAEMON_MPMS``: the application does not see
#: the MPM there, httpd's side is the same code as in embedded mode.
DAEMON_MPMS = ("event",)


def pytest_configure(config):
    config.addinivalue_line(
        "markers",
        "rwsgi(*modes): differs from mod_wsgi on purpose, or is ours only; in all modes if none",
    )
    config.addinivalue_line("markers", "modes(*modes): the modes that a test runs in")
    config.addinivalue_line("markers", "soak: long; run with RWSGI_TEST_SOAK=1")


def pytest_collection_modifyitems(config, items):
    import os

    superfluous = [item for item in items if _superfluous(item)]
    if superfluous:
        config.hook.pytest_deselected(items=superfluous)
        items[:] = [item for item in items if not _superfluous(item)]
    for item in items:
        if paths.PEER and _is_ours(item):
            item.add_marker(pytest.mark.skip(reason="differs from mod_wsgi on purpose"))
        if not os.environ.get("RWSGI_TEST_SOAK") and item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.skip(reason="soak: set RWSGI_TEST_SOAK=1"))


def pytest_generate_tests(metafunc):
    modes = getattr(metafunc.module, "MODES", ())
    marker = metafunc.definition.get_closest_marker("modes")
    if marker:
        modes = marker.args
    if modes and "mode" in metafunc.fixturenames:
        metafunc.parametrize("mode", modes, indirect=True, scope="module")


def _is_ours(item) -> bool:
    """Whether mod_wsgi behaves otherwise."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    mode = parameters.get("mode", "embedded")
    return any(not marker.args or mode in marker.args for marker in item.iter_markers("rwsgi"))


def _superfluous(item) -> bool:
    """Whether the item is daemon mode under an MPM that adds nothing."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    if parameters.get("mode") != "daemon":
        return False
    wanted = getattr(item.module, "DAEMON_MPMS", DAEMON_MPMS)
    values = [value for value in parameters.values() if value in ("worker", "prefork")]
    return any(value not in wanted for value in values)


def pytest_sessionstart():
    if not paths.PEER and not (paths.MODULE_DIR / "mod_rwsgi.so").exists():
        pytest.exit(f"{paths.MODULE_DIR}/mod_rwsgi.so does not exist: make build", returncode=2)


def pytest_sessionfinish():
    remove_shared_directory()


_running: list[Httpd] = []


@contextmanager
def _tracked(mode, **options):
    with Httpd(**{"mode": mode, **options}) as server:
        _running.append(server)
        try:
            yield server
        finally:
            _running.remove(server)


@pytest.fixture(scope="module")
def mode(request):
    """Where the applications of a test run."""
    return getattr(request, "param", "embedded")


@pytest.fixture(scope="module")
def new_httpd(mode):
    """Makes a server (a context manager) whose error log is settled after every test."""
    return partial(_tracked, mode=mode)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """The error log is part of every test: what it holds too much or lacks fails the test."""
    try:
        result = yield
        for server in list(_running):
            server.settle_log()
        return result
    finally:
        # A test that failed leaves no announcements, and no blame, to the next one.
        for server in _running:
            server.log.expectations = []
            server.log.problems = []
