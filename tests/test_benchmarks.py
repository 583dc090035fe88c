"""The committed benchmark is of the committed code."""

import sys

import pytest
from editions import ROOT

sys.path.insert(0, str(ROOT))
from benchmarks.fingerprint import SOURCES, fingerprint

CODE = '''
"""A module."""
def double(x):
    """Twice x."""
    return 2 * x
'''


def test_results_are_of_todays_code():
    results = (ROOT / "benchmarks" / "results" / "results.md").read_text(encoding="utf-8")
    assert fingerprint() in results, "the results are of another code: run make bench"


@pytest.fixture
def mark(tmp_path):
    """The fingerprint of a source."""

    def mark(code):
        (tmp_path / "code.py").write_text(code, encoding="utf-8")
        return fingerprint([tmp_path / "code.py"])

    return mark


@pytest.mark.parametrize(
    ("old", "new"),
    [("A module", "Some module"), ('"""Twice x."""', ""), ("2 * x", "(2*x)  # twice"), ("\n", "\n\n")],
)
def test_words_and_layout_leave_the_fingerprint_alone(mark, old, new):
    assert mark(CODE.replace(old, new)) == mark(CODE)


@pytest.mark.parametrize(("old", "new"), [("2 *", "3 *"), ("2 *", "2.0 *"), ("double", "twice"), ("return", "print")])
def test_code_changes_the_fingerprint(mark, old, new):
    assert mark(CODE.replace(old, new).replace("print 2 * x", "print(2 * x)")) != mark(CODE)


def test_every_measured_module_is_there():
    assert all(path.is_file() for path in SOURCES)
