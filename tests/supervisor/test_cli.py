"""The command line."""

import os
import subprocess

import pytest
from conftest import DAEMON, text_of


def run(*arguments):
    return subprocess.run([str(DAEMON), *map(str, arguments)], capture_output=True, text=True)


def test_help():
    result = run("--help")
    assert result.returncode == 0
    assert "--config-fd" in result.stdout


@pytest.mark.parametrize("arguments", [[], ["--what"], ["a", "b"], ["--config-fd", "x"]])
def test_wrong_usage(arguments):
    result = run(*arguments)
    assert result.returncode == 64
    assert "--help" in result.stderr


def test_a_good_file(tmp_path, settings):
    file = tmp_path / "good"
    file.write_text(text_of(settings()))
    result = run("--check", file)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"threads": "x"}, "threads: 'x' is no number"),
        ({"typo": "x"}, "typo: there is no such key"),
        ({"name": None}, "name: must be given"),
        ({"processes": 2, "socket": "/tmp/a"}, "socket: 2 are needed"),
        ({"python": "/no/such/python"}, "python: /no/such/python"),
        ({"env_file": "/no/such/file"}, "env-file: env-file /no/such/file cannot be read"),
    ],
)
def test_bad_files(tmp_path, settings, changed, message):
    file = tmp_path / "bad"
    file.write_text(text_of(settings(**changed)))
    result = run("--check", file)
    assert result.returncode == 78
    assert str(file) in result.stderr and message in result.stderr
    # And so it does not run, and says it to the log.
    result = run(file)
    assert result.returncode == 78
    assert "[rwsgi:alert]" in result.stderr and "RWSGI0400: " in result.stderr


def test_a_descriptor_is_read_from_its_beginning(settings):
    fd = os.memfd_create("config")
    os.write(fd, text_of(settings(threads="x")).encode())
    command = [str(DAEMON), "--config-fd", str(fd)]
    result = subprocess.run(command, capture_output=True, text=True, pass_fds=[fd])
    os.close(fd)
    assert result.returncode == 78
    assert "threads: 'x' is no number" in result.stderr


def test_a_descriptor_that_is_not_open():
    assert run("--config-fd", "77").returncode == 66


def test_no_file(tmp_path):
    assert run("--check", tmp_path / "none").returncode == 66
    assert run(tmp_path / "none").returncode == 66


def test_a_socket_that_cannot_be_made(tmp_path, settings):
    file = tmp_path / "config"
    file.write_text(text_of(settings(socket="/no/such/directory/x.sock")))
    result = run(file)
    assert result.returncode == 71
    assert "RWSGI0401: " in result.stderr
