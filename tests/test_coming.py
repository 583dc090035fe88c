"""The page for those who come from vector-quantize-pytorch leaves no argument of theirs out, and makes none up."""

import inspect
import re
from importlib.metadata import version

import pytest
import vector_quantize_pytorch
from editions import ROOT

PAGE = (ROOT / "docs" / "coming-from-vector-quantize-pytorch.md").read_text(encoding="utf-8")
CLASSES = ["VectorQuantize", "ResidualVQ", "GroupedResidualVQ", "FSQ", "ResidualFSQ", "LFQ"]


def named(section: str) -> list[str]:
    """The names in the first column of a section's tables."""
    cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]


def arguments(function) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [each.name for each in parameters if each.name != "self" and each.kind is not each.VAR_KEYWORD]


@pytest.mark.parametrize("name", CLASSES)
def test_every_argument_has_its_row(name):
    section = PAGE.split(f"### {name}\n")[1].split("\n### ")[0]
    of_the_class, of_a_call = section.split("Of a call:\n")
    theirs = getattr(vector_quantize_pytorch, name)
    assert sorted(named(of_the_class)) == sorted(arguments(theirs.__init__))
    assert {*named(of_a_call), "x"} == {*arguments(theirs.forward), "x"}
    assert len(named(of_a_call)) == len(set(named(of_a_call)))


def test_the_page_names_the_version_that_is_installed():
    assert f"version {version('vector-quantize-pytorch')})" in PAGE
