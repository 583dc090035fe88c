"""What all checks share: a judge of answers becomes a check that prints one line and never raises."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from rvq_tutorial.course.check import solved

exercises: dict[str, list[str]] = {}  # by the module that holds their checks, in the order of its notebook


class Wrong(Exception):
    """An answer is wrong; the message tells the learner why, on which input."""


class Unsolved(Exception):
    """There is no answer yet; the message says what was found instead."""


def exercise(judge: Callable[[Any], str]) -> Callable[[Any], None]:
    """Make a check of a judge of answers: it prints one line, whatever happens, and leaves torch's seed alone."""

    @functools.wraps(judge)
    def check(answer: Any) -> None:
        verdict = _verdict(judge, answer)
        print(verdict)
        if verdict.startswith("✓"):
            solved.remember(judge.__name__)

    exercises.setdefault(judge.__module__, []).append(judge.__name__)
    check.__annotations__ = {"answer": Any, "return": None}
    return check


def _verdict(judge: Callable[[Any], str], answer: Any) -> str:
    if answer is None or answer is ...:
        return "○ Not solved yet."
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return f"✓ {judge(answer)}"
    except Unsolved as unsolved:
        return f"○ Not solved yet: {unsolved}"
    except Wrong as wrong:
        return f"✗ {wrong}"
    except Exception as error:  # of the judge, on an answer unlike any it knows
        return f"✗ This answer can't be used: {_told(error)}"


def run(function: Callable, **inputs: Any) -> Any:
    """What the learner's function returns for these inputs, given to it in this order.

    Raises Unsolved for None, and Wrong where it raises or changes an input.
    """
    before = [value.detach().clone() if isinstance(value, Tensor) else value for value in inputs.values()]
    try:
        result = function(*inputs.values())
    except Exception as error:
        raise Wrong(f"{_named(function)} raises {_told(error)} {given(inputs)}.") from error
    if result is None:
        raise Unsolved(f"{_named(function)} returns None.")
    for (name, value), old in zip(inputs.items(), before, strict=True):
        if isinstance(value, Tensor) and not torch.equal(value, old):
            raise Wrong(f"{_named(function)} changes {name} in place {given(inputs)}: leave it as it was.")
    return result


def compare(
    function: Callable,
    reference: Callable,
    mistakes: Mapping[str, Callable | list[Callable]] | None = None,
    /,
    **inputs: Any,
) -> Any:
    """Run the learner's function and the reference on the same inputs; return the result where both agree.

    Raises Wrong where they differ: with the words of the first of `mistakes`, a function or several, that gives the
    learner's result, or else with the first place where they differ.
    """
    result, wanted = run(function, **inputs), reference(*inputs.values())
    if fault := difference(result, wanted):
        known = [words for words, mistake in (mistakes or {}).items() if _gives(mistake, inputs, result)]
        raise Wrong(f"{known[0]} Seen {given(inputs)}." if known else f"{_named(function)}: {fault} {given(inputs)}.")
    return result


def _gives(mistake: Callable | list[Callable], inputs: Mapping[str, Any], result: Any) -> bool:
    if isinstance(mistake, list):
        return any(_gives(each, inputs, result) for each in mistake)
    try:
        return not difference(result, mistake(*inputs.values()))
    except Exception:  # this mistake can't be made on these inputs
        return False


def parts(result: Any, *names: str) -> Any:
    """The parts of a result, one for each name; raises Wrong, with the names, where there are not as many."""
    if not isinstance(result, tuple | list) or len(result) != len(names):
        raise Wrong(f"Return {len(names)} things, in this order: {', '.join(names)}. This is {shown(result)}.")
    return result


def gradients(output: Any, *inputs: Tensor) -> list[Tensor]:
    """The gradient of the sum of a tensor by each of the inputs; zeros where there is none."""
    zeros = [torch.zeros_like(x) for x in inputs]
    if not (isinstance(output, Tensor) and output.requires_grad):
        return zeros
    found = torch.autograd.grad(output.sum(), inputs, retain_graph=True, allow_unused=True)
    return [zero if gradient is None else gradient for zero, gradient in zip(zeros, found, strict=True)]


def difference(result: Any, wanted: Any, name: str = "the result") -> str:
    """In words, the first thing in which a result differs from what is wanted (numbers, tensors, tuples); or ""."""
    if isinstance(wanted, tuple):
        if not isinstance(result, tuple | list) or len(result) != len(wanted):
            return f"{name} should be {len(wanted)} things, in order, and is {shown(result)}"
        parts = enumerate(zip(result, wanted, strict=True), 1)
        return next((fault for i, (a, b) in parts if (fault := difference(a, b, f"{name}, part {i},"))), "")
    if isinstance(result, tuple | list) and result and all(isinstance(part, Tensor) for part in result):
        return f"{name} should be one tensor, and is {len(result)} of them (torch.stack makes one of several)"
    try:
        result = torch.as_tensor(result).detach()
    except Exception:
        return f"{name} should be a tensor or a number, and is {shown(result)}"
    wanted = torch.as_tensor(wanted).detach()
    if result.shape != wanted.shape:
        return f"{name} should have shape {tuple(wanted.shape)}, and has {tuple(result.shape)}"
    if not wanted.is_floating_point() and result.is_floating_point():
        return f"{name} should hold whole numbers, and holds {result.dtype}"
    close = torch.isclose(result.double(), wanted.double(), rtol=1e-4, atol=1e-5)
    if close.all():
        return ""
    place = tuple((~close).nonzero()[0].tolist())
    at = f" at {list(place)}" if place else ""
    return f"{name} should be {wanted[place].item():.5g}{at}, and is {result[place].item():.5g}"


def given(inputs: Mapping[str, Any]) -> str:
    """The inputs in words: "for x of shape (3, 2), codebook of shape (5, 2) and beta = 0.5"."""
    if not inputs:
        return "without input"
    *others, last = (shown(value, name) for name, value in inputs.items())
    return f"for {', '.join(others)} and {last}" if others else f"for {last}"


def shown(value: Any, name: str = "") -> str:
    if isinstance(value, Tensor) and value.ndim:
        return f"{name or 'a tensor'} of shape {tuple(value.shape)}"
    value = f"{value:.4g}" if isinstance(value, float) else " ".join(repr(value).split())
    value = value if len(value) <= 60 else value[:57] + "..."
    return f"{name} = {value}" if name else value


def _named(function: Callable) -> str:
    return getattr(function, "__name__", "your answer").replace("<lambda>", "your answer")


def _told(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return type(error).__name__ + (f" ({lines[0]})" if lines else "")
