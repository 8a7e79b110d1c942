"""Fixtures: servers shared by the tests of one module, and the account of the error log."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness import paths  # noqa: E402
from harness.server import Httpd, remove_shared_directory  # noqa: E402

MPMS = ("event", "worker", "prefork")


def pytest_configure(config):
    config.addinivalue_line("markers", "rwsgi: differs from mod_wsgi on purpose, or is ours only")
    config.addinivalue_line("markers", "soak: long; run with RWSGI_TEST_SOAK=1")


def pytest_collection_modifyitems(items):
    import os

    for item in items:
        if paths.PEER and item.get_closest_marker("rwsgi"):
            item.add_marker(pytest.mark.skip(reason="differs from mod_wsgi on purpose"))
        if not os.environ.get("RWSGI_TEST_SOAK") and item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.skip(reason="soak: set RWSGI_TEST_SOAK=1"))


def pytest_sessionstart():
    if not paths.PEER and not (paths.MODULE_DIR / "mod_rwsgi.so").exists():
        pytest.exit(f"{paths.MODULE_DIR}/mod_rwsgi.so does not exist: make build", returncode=2)


def pytest_sessionfinish():
    remove_shared_directory()


_running: list[Httpd] = []


@contextmanager
def _tracked(**options):
    with Httpd(**options) as server:
        _running.append(server)
        try:
            yield server
        finally:
            _running.remove(server)


@pytest.fixture(scope="session")
def new_httpd():
    """Makes a server (a context manager) whose error log is settled after every test."""
    return _tracked


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
