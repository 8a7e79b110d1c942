"""Fixtures: workers that end with their test."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
pytest_plugins = ["checklist.plugin"]

import harness  # noqa: E402

APP = """\
def application(environ, start_response):
    {}
"""


@pytest.fixture
def start(tmp_path):
    """Starts workers: `start(threads=4, …)`."""
    workers = []

    def start(**options):
        worker = harness.Worker(tmp_path, **options)
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.kill()


@pytest.fixture
def app(tmp_path):
    """Makes a script whose application has this body; gives its path."""

    def app(body, name="app.wsgi", before=""):
        path = tmp_path / name
        text = APP.format(body.strip().replace("\n", "\n    "))
        path.write_text(before + "\n" + text)
        return path

    return app
