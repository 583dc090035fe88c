"""The sentences of the checks: each that is asked for is there, and each that is there is asked for."""

import ast
import functools
import importlib
from collections.abc import Iterator

import pytest

from rvq_tutorial.course import check
from rvq_tutorial.course.check import judging
from rvq_tutorial.course.check.sentences import SHARED, sentences

FOLDER = SHARED.parent
SHARED_NAMES = set(sentences(SHARED).defaults())
MODULES = sorted(path.stem for path in FOLDER.glob("*.ini") if path != SHARED)
each_module = pytest.mark.parametrize("module", MODULES)
# Where the names stand among the arguments: from this place on, and up to that one.
ASKED = {"say": (0, 1), "Wrong": (0, 1), "Unsolved": (0, 1), "parts": (1, None), "difference": (2, 3)}


@functools.cache
def _definitions(module: str) -> dict[str, ast.AST]:
    """The functions and constants of a module, by name."""
    definitions = {}
    for node in ast.parse((FOLDER / f"{module}.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            definitions[node.name] = node
        elif isinstance(node, ast.Assign):
            names = [name.id for name in ast.walk(node.targets[0]) if isinstance(name, ast.Name)]
            definitions |= dict.fromkeys(names, node)
    return definitions


def _reached(module: str, exercise: str) -> list[ast.AST]:
    """The definitions that an exercise needs, its own first."""
    found, definitions = [exercise], _definitions(module)
    for name in found:  # grows
        used = {node.id for node in ast.walk(definitions[name]) if isinstance(node, ast.Name)}
        found += [other for other in used if other in definitions and other not in found]
    return [definitions[name] for name in found]


def _asked(node: ast.AST) -> Iterator[str]:
    """The names of the sentences that a definition asks for: `dict(name=…)` is a table of mistakes."""
    for call in (each for each in ast.walk(node) if isinstance(each, ast.Call) and isinstance(each.func, ast.Name)):
        if call.func.id == "dict":
            yield from (keyword.arg for keyword in call.keywords if keyword.arg)
        places = slice(*ASKED.get(call.func.id, (0, 0)))
        for argument in call.args[places]:
            yield from (
                each.value
                for each in ast.walk(argument)
                if isinstance(each, ast.Constant) and isinstance(each.value, str)
            )


def _asked_by(module: str, exercise: str) -> set[str]:
    return {name for node in _reached(module, exercise) for name in _asked(node)}


def _exercises(module: str) -> list[str]:
    return judging.exercises[importlib.import_module(f"{check.__name__}.{module}").__name__]


@each_module
def test_each_exercise_has_its_section(module: str) -> None:
    assert sentences(FOLDER / f"{module}.ini").sections() == _exercises(module)


@each_module
def test_each_sentence_that_is_asked_for_is_there(module: str) -> None:
    there = sentences(FOLDER / f"{module}.ini")
    asked = {(name, key) for name in _exercises(module) for key in _asked_by(module, name)}
    assert [(name, key) for name, key in asked if key not in there[name] and key not in SHARED_NAMES] == []


@each_module
def test_each_sentence_that_is_there_is_asked_for(module: str) -> None:
    there = {(name, key) for name, section in sentences(FOLDER / f"{module}.ini").items() for key in section}
    asked = {(name, key) for name in _exercises(module) for key in _asked_by(module, name)}
    assert there - asked == set()


@each_module
def test_no_exercise_says_something_else_where_all_say_the_same(module: str) -> None:
    there = sentences(FOLDER / f"{module}.ini")
    assert [(name, key) for name in there for key in there[name] if key in SHARED_NAMES] == []


def test_each_shared_sentence_is_asked_for() -> None:
    trees = [
        ast.parse((FOLDER / f"{module}.py").read_text(encoding="utf-8")) for module in ["judging", "solved", *MODULES]
    ]
    assert SHARED_NAMES - {name for tree in trees for name in _asked(tree)} == set()
