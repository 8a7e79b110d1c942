"""The account of the checklist itself, without httpd."""

from checklist.items import items
from checklist.report import differences, judge, summary

pytest_plugins = ["pytester"]


def entry(number, mode="embedded", outcome="passed", test="test_x"):
    return {"number": number, "mode": mode, "outcome": outcome, "test": f"{test}[{mode}]"}


def word(number, results, differing=()):
    return judge(results, set(differing))[number - 1].word


def test_the_list_is_complete():
    assert list(items()) == list(range(1, 236))


def test_an_item_of_both_modes_needs_both():
    assert items()[27].modes == ("embedded", "daemon")
    assert word(27, [entry(27)]) == "missing"
    assert word(27, [entry(27), entry(27, "daemon")]) == "covered"
    assert judge([entry(27)], set())[26].lacking == ("daemon",)


def test_an_item_of_any_mode_needs_one():
    assert items()[1].modes == ()
    assert word(1, []) == "missing"
    assert word(1, [entry(1, "daemon")]) == "covered"


def test_neither_a_skipped_nor_a_failed_test_shows_anything():
    assert word(1, [entry(1, outcome="skipped")]) == "missing"
    assert word(1, [entry(1), entry(1, outcome="failed")]) == "missing"
    assert word(1, [entry(1), entry(1, "daemon", "failed")]) == "missing"
    assert word(1, [entry(1, outcome="failed")], differing=[1]) == "missing"


def test_what_a_machine_lacks_needs_a_test_all_the_same():
    assert items()[179].needs
    assert word(179, []) == "missing"
    assert word(179, [entry(179, outcome="skipped")]) == "not here"
    assert word(170, [entry(170, outcome="skipped")]) == "missing"
    assert word(170, [entry(170), entry(170, "daemon", "skipped")]) == "not here"
    both = [entry(170), entry(170, "daemon")]
    assert word(170, both) == "covered"
    assert word(170, [*both, entry(170, outcome="skipped")]) == "covered"
    assert word(170, [*both, entry(170, outcome="skipped", test="test_y")]) == "not here"


def test_differences():
    text = "| what | why | how | checklist |\n|---|---|---|---|\n| a 7 | b | c | 44, 49–51 |\n12\n"
    text += "| x | y | z | – |\n"
    assert differences(text) == {44, 49, 50, 51}
    assert word(1, [], differing=[1]) == "differing"
    assert word(1, [entry(1)], differing=[1]) == "covered"


def test_the_summary_names_what_is_missing():
    differing = {1, 2}
    shown = [entry(number) for number in items() if number not in (1, 27)]
    text = summary(judge(shown, differing), differing)
    assert "differing (docs/coming-from-mod_wsgi.md): 1\n" in text
    assert "covered, and differing in a detail: 2\n" in text
    assert f"  27 [embedded, daemon] {items()[27].title}" in text


CONFTEST = """\
import sys
import pytest
sys.path.insert(0, {path!r})
pytest_plugins = ["checklist.plugin"]
"""


def run(pytester, monkeypatch, text, name="test_it"):
    """Runs a test file; what it noted as (number, mode, outcome)."""
    import json
    from pathlib import Path

    pytester.makeconftest(CONFTEST.format(path=str(Path(__file__).resolve().parents[1])))
    pytester.makepyfile(**{name: "import pytest\n" + text})
    results = pytester.path / "results"
    monkeypatch.setenv("RWSGI_CHECKLIST", str(results))
    outcome = pytester.runpytest_subprocess("--strict-markers")
    lines = results.read_text().splitlines() if results.exists() else []
    entries = [json.loads(line) for line in lines]
    return outcome, [(e["number"], e["mode"], e["outcome"]) for e in entries]


def test_outcomes_are_noted(pytester, monkeypatch):
    text = """
@pytest.fixture
def broken():
    yield
    raise RuntimeError
@pytest.mark.checklist(1, 2)
def test_passes(): pass
@pytest.mark.checklist(3)
def test_fails(): assert False
@pytest.mark.checklist(4)
def test_ends_badly(broken): pass
@pytest.mark.checklist(5)
def test_is_skipped(): pytest.skip()
@pytest.mark.skip
@pytest.mark.checklist(6)
def test_is_never_begun(): pass
@pytest.mark.xfail
@pytest.mark.checklist(7)
def test_is_expected_to_fail(): assert False
def test_shows_nothing(): pass
"""
    _, noted = run(pytester, monkeypatch, text)
    assert noted == [
        (1, "embedded", "passed"),
        (2, "embedded", "passed"),
        (3, "embedded", "failed"),
        (4, "embedded", "failed"),
        (5, "embedded", "skipped"),
        (6, "embedded", "skipped"),
        (7, "embedded", "skipped"),
    ]


def test_modes(pytester, monkeypatch):
    text = """
@pytest.mark.parametrize("mode", ["embedded", "daemon"])
@pytest.mark.checklist(27)
def test_parameter(mode): pass
@pytest.mark.checklist(28, mode="both")
def test_marker(): pass
@pytest.mark.checklist(29, mode="embedded")
@pytest.mark.checklist(30)
def test_file(): pass
"""
    _, noted = run(pytester, monkeypatch, text, "test_daemon_it")
    assert sorted((number, mode) for number, mode, _ in noted) == [
        (27, "daemon"),
        (27, "embedded"),
        (28, "daemon"),
        (28, "embedded"),
        (29, "embedded"),
        (30, "daemon"),
    ]


def test_wrong_markers_end_the_run(pytester, monkeypatch):
    for marker in ("checklist(236)", "checklist('1')", "checklist(1, mode='x')"):
        outcome, noted = run(pytester, monkeypatch, f"@pytest.mark.{marker}\ndef test_x(): pass\n")
        assert outcome.ret == 4 and noted == [], marker
