"""The exercises' checks: each accepts the solution in its notebook's source, and rejects likely wrong ones.

To add a check's wrong answers, give them to WRONG, each with a part of what the learner should then be told.
"""

import ast
import contextlib
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jupytext
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rvq_tutorial import check, nearest, straight_through

SOURCES = Path(__file__).parent.parent / "notebooks" / "sources"
DEFINITIONS = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef

# Exercise → wrong answers, each with a regular expression for what its learner is told.
WRONG: dict[str, list[tuple[Any, str]]] = {}

# --- 02 · How does a lookup learn? -----------------------------------------------------------------

WRONG["nearest_code"] = [
    (lambda x, codebook: torch.cdist(x, codebook).argmax(1), "farthest"),
    (lambda x, codebook: torch.cdist(x, codebook).argmin(0), "over the codewords"),
    (lambda x, codebook: (x @ codebook.T).argmax(1), "large norm"),
    (lambda x, codebook: (codebook.square().sum(1) - x @ codebook.T).argmin(1), "weigh too much"),
    (lambda x, codebook: torch.cdist(x, codebook).amin(1), "whole numbers"),
    (lambda x, codebook: (x @ codebook).argmin(1), "raises RuntimeError .* for x of shape"),
]

WRONG["predicted_slopes"] = [
    (lambda: (-1.8, -1.8), "true slope is not -1.8: a small step"),
    (lambda: (0, 0), "moves with x"),
    (lambda: (0.0, -1.2), "value of x̂"),
    (lambda: (0.0, 1.8), "other sign"),
    (lambda: (0.0, -0.9), "factor 2"),
    (lambda: (0.0, 5.0), "is not 5: take"),
    (lambda: -1.8, "Return 2 things, in this order: the true slope"),
]


def _undetached(x: Tensor, quantized: Tensor) -> tuple[Tensor, Tensor]:
    return F.mse_loss(quantized, x), F.mse_loss(x, quantized)


def _swapped(x: Tensor, quantized: Tensor) -> tuple[Tensor, Tensor]:
    return F.mse_loss(x, quantized.detach()), F.mse_loss(quantized, x.detach())


def _detached(x: Tensor, quantized: Tensor) -> tuple[Tensor, Tensor]:
    return F.mse_loss(x.detach(), quantized.detach()), F.mse_loss(x, quantized.detach())


def _frozen_commitment(x: Tensor, quantized: Tensor) -> tuple[Tensor, Tensor]:
    return F.mse_loss(x.detach(), quantized), F.mse_loss(x.detach(), quantized.detach())


def _loose_commitment(x: Tensor, quantized: Tensor) -> tuple[Tensor, Tensor]:
    return F.mse_loss(x.detach(), quantized), F.mse_loss(x, quantized)


def _summed(x: Tensor, quantized: Tensor) -> tuple[Tensor, Tensor]:
    return tuple(x.numel() * loss for loss in _swapped(quantized, x))


WRONG["vq_losses"] = [
    (_undetached, "detach x"),
    (_loose_commitment, "detach quantized"),
    (_swapped, "wrong way round"),
    (_detached, "codebook loss moves nothing"),
    (_frozen_commitment, "commitment loss moves nothing"),
    (_summed, "codebook loss is a sum, 18 times too large"),
    (lambda x, quantized: (x - quantized).square().sum(1).mean().expand(2).unbind(), "3 times too large"),
    (lambda x, quantized: (F.mse_loss(x, quantized), 0.25 * F.mse_loss(x, quantized)), "The commitment loss should be"),
    (lambda x, quantized: F.mse_loss(x, quantized), "Return 2 things"),
]


def _classic(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    x = features.permute(0, 2, 3, 1)
    quantized = codebook[nearest(x, codebook)].permute(0, 3, 1, 2)
    loss = (quantized - x.detach()).square().mean() + beta * (quantized.detach() - x).square().mean()
    return straight_through(features, quantized), loss


def _cut_by_reshape(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    x = features.reshape(-1, codebook.shape[1])
    chosen = codebook[nearest(x, codebook)]
    loss = F.mse_loss(chosen, x.detach()) + beta * F.mse_loss(x, chosen.detach())
    return straight_through(x, chosen).reshape(features.shape), loss


def _mended(features: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features and codewords, both with channels last, and the mean squared difference, with every gradient."""
    x = features.permute(0, 2, 3, 1)
    chosen = codebook[nearest(x, codebook)]
    return x, chosen, F.mse_loss(x, chosen)


def _channels_last(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    x, chosen, loss = _mended(features, codebook)
    return straight_through(x, chosen), (1 + beta) * loss


def _plain_lookup(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    _, chosen, loss = _mended(features, codebook)
    return chosen.permute(0, 3, 1, 2), (1 + beta) * loss


def _no_gradient(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    _, chosen, loss = _mended(features, codebook)
    return chosen.permute(0, 3, 1, 2).detach(), (1 + beta) * loss


def _everything_moves(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    _, chosen, loss = _mended(features, codebook)
    return straight_through(features, chosen.permute(0, 3, 1, 2)), (1 + beta) * loss


def _beta_misplaced(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    x, chosen, _ = _mended(features, codebook)
    loss = beta * F.mse_loss(chosen, x.detach()) + F.mse_loss(x, chosen.detach())
    return straight_through(features, chosen.permute(0, 3, 1, 2)), loss


WRONG["quantize_features"] = [
    (_classic, "still compares"),
    (_cut_by_reshape, "reshape"),
    (_channels_last, "permute it back"),
    (_plain_lookup, "must not move the codebook"),
    (_no_gradient, "reach the features"),
    (_everything_moves, "not the right gradient"),
    (_beta_misplaced, "β weighs the term"),
    (lambda features, codebook, beta: features, "Return 2 things"),
]

WRONG["beta_for"] = [
    (lambda share: 1 - share, "share that x goes"),
    (lambda share: share / (1 - share), "here it is the codeword"),
    (lambda share: 1 / share, "Too large by 1"),
    (lambda share: 1 / (1 + share), "other way round"),
    (lambda share: 0.25, "should be 1, and is 0.25 for share = 0.5"),
]

# --- Every exercise of every notebook --------------------------------------------------------------


class Exercise(NamedTuple):
    """A call `check.name(answer)` that stands in a notebook's source."""

    topic: str
    name: str
    answer: str  # an expression


def _code_cells(topic: str) -> list[Any]:
    notebook = jupytext.read(SOURCES / f"{topic}.py")
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _exercises() -> list[Exercise]:
    calls = re.compile(r"^check\.(\w+)\((.*)\)$", re.MULTILINE)
    topics = sorted(path.stem for path in SOURCES.glob("*.py"))
    return [Exercise(t, *call) for t in topics for cell in _code_cells(t) for call in calls.findall(cell.source)]


@functools.cache
def _solved_names(topic: str) -> dict[str, Any]:
    """What a notebook's imports, functions, classes and solved exercises define; nothing else of it is run."""
    names: dict[str, Any] = {}
    for cell in _code_cells(topic):
        body = ast.parse(cell.source).body
        if "exercise" not in cell.metadata.get("tags", []):
            body = [node for node in body if isinstance(node, DEFINITIONS)]
        for node in body:
            with contextlib.suppress(NameError):  # a definition that needs the notebook's data; no solution may
                exec(compile(ast.Module([node], []), topic, "exec"), names)
    return names


def solution(exercise: Exercise) -> Any:
    """The answer to an exercise that its notebook's source holds."""
    return eval(exercise.answer, _solved_names(exercise.topic))


EXERCISES = _exercises()
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
each_wrong_answer = pytest.mark.parametrize(
    ("name", "answer", "words"),
    [pytest.param(name, *case, id=f"{name}-{i}") for name, cases in WRONG.items() for i, case in enumerate(cases)],
)


@each_exercise
def test_a_check_accepts_the_solution(exercise: Exercise, capsys: pytest.CaptureFixture) -> None:
    getattr(check, exercise.name)(solution(exercise))
    assert re.fullmatch(r"✓ .*\n", capsys.readouterr().out)


@each_exercise
def test_a_check_waits_for_a_stub(exercise: Exercise, capsys: pytest.CaptureFixture) -> None:
    stub = (lambda *_: None) if callable(solution(exercise)) else None
    getattr(check, exercise.name)(stub)
    assert re.fullmatch(r"○ .*\n", capsys.readouterr().out)


@each_exercise
def test_a_check_has_three_wrong_answers_to_reject(exercise: Exercise) -> None:
    assert len(WRONG.get(exercise.name, [])) >= 3


@each_wrong_answer
def test_a_check_says_what_is_wrong(name: str, answer: Any, words: str, capsys: pytest.CaptureFixture) -> None:
    getattr(check, name)(answer)
    said = capsys.readouterr().out
    assert re.fullmatch(r"✗ .*\n", said) and re.search(words, said), said


# --- What all checks share -------------------------------------------------------------------------


@check.exercise
def _double(answer: Callable) -> str:
    """A check as small as can be: x → 2 x."""
    check.compare(answer, lambda x: 2 * x, {"That is the square.": lambda x: x**2}, x=torch.tensor([3.0, 1.0]))
    return "doubled"


def _in_place(x: Tensor) -> Tensor:
    return x.mul_(2)


def _raising(x: Tensor) -> Tensor:
    raise ValueError("first line\nsecond line")


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (lambda x: x + x, "✓ doubled"),
        (None, "○ Not solved yet."),
        (..., "○ Not solved yet."),
        (lambda x: None, "○ Not solved yet: your answer returns None."),
        (lambda x: x**2, "✗ That is the square. Seen for x of shape (2,)."),
        (lambda x: 3 * x, "✗ your answer: the result should be 6 at [0], and is 9 for x of shape (2,)."),
        (lambda x: x[:1], "✗ your answer: the result should have shape (2,), and has (1,) for x of shape (2,)."),
        (
            lambda x: "six",
            "✗ your answer: the result should be a tensor or a number, and is 'six' for x of shape (2,).",
        ),
        (_in_place, "✗ _in_place changes x in place for x of shape (2,): leave it as it was."),
        (_raising, "✗ _raising raises ValueError (first line) for x of shape (2,)."),
        (6, "✗ your answer raises TypeError ('int' object is not callable) for x of shape (2,)."),
    ],
)
def test_a_check_prints_one_line_and_never_raises(answer: Any, line: str, capsys: pytest.CaptureFixture) -> None:
    _double(answer)
    assert capsys.readouterr().out == f"{line}\n"


def test_a_check_that_fails_itself_still_prints_one_line(capsys: pytest.CaptureFixture) -> None:
    check.exercise(lambda answer: answer.missing)(6)
    assert capsys.readouterr().out.startswith("✗ This answer can't be used: AttributeError")


def test_a_check_leaves_the_random_numbers_alone(capsys: pytest.CaptureFixture) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    _double(lambda x: 2 * x + 0 * torch.rand(1))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("result", "wanted", "words"),
    [
        ((1, 2.0), (1, 2.0), "^$"),
        ([torch.ones(2), 3], (torch.ones(2), 3), "^$"),
        ((1, 2.5), (1, 2.0), "part 2, should be 2, and is 2.5"),
        (1, (1, 2), "should be 2 things, in order, and is 1"),
        (torch.ones(3), torch.ones(3).long(), "whole numbers, and holds torch.float32"),
        (float("nan"), 0.0, "should be 0, and is nan"),
    ],
)
def test_a_difference_is_put_into_words(result: Any, wanted: Any, words: str) -> None:
    assert re.search(words, check.difference(result, wanted))
