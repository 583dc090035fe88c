"""What all checks share: a judge of answers becomes a check that prints one line, or grades."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rvq_tutorial.course.check import sentences, solved
from rvq_tutorial.course.check.sentences import say
from rvq_tutorial.language import said

exercises: dict[str, list[str]] = {}  # by the module that holds their checks, in the order of its notebook


class Wrong(Exception):
    """An answer is wrong: a sentence tells the learner why, and another on which inputs, where they are given."""

    def __init__(self, name: str, seen: Mapping[str, Any] | str = "", /, **facts: Any) -> None:
        seen = seen if isinstance(seen, str) else say("seen", given=given(seen))
        super().__init__(f"{say(name, **facts)} {seen}".rstrip())
        self.name = name


class Unsolved(Exception):
    """There is no answer yet; the message says what was found instead."""


class NotRight(AssertionError):
    """What grading raises: an answer isn't right. `mistake` is the name of what is wrong, and the message says it."""

    def __init__(self, mistake: str, line: str) -> None:
        super().__init__(f"{mistake}: {line}")
        self.mistake = mistake


class Verdict(NamedTuple):
    """What a judge found."""

    line: str  # what the learner is told
    mistake: str  # the name of the sentence that it says; "" of a right answer


class Check:
    """The check of an exercise: called with an answer, it prints one line, whatever happens; `grade` raises instead."""

    def __init__(self, judge: Callable[[Any], str]) -> None:
        functools.update_wrapper(self, judge)
        self._judge = judge

    def __call__(self, answer: Any) -> None:
        """Print whether the answer is right, and remember it if it is."""
        verdict = self._verdict(answer)
        print(verdict.line)
        if not verdict.mistake:
            solved.remember(self._judge.__name__)

    def grade(self, answer: Any) -> None:
        """Return in silence if the answer is right; else raise `NotRight`, an AssertionError. Nothing is remembered."""
        verdict = self._verdict(answer)
        if verdict.mistake:
            raise NotRight(verdict.mistake, verdict.line)

    def _verdict(self, answer: Any) -> Verdict:
        with sentences.of(self._judge):
            return _verdict(self._judge, answer)


def exercise(judge: Callable[[Any], str]) -> Check:
    """Make a check of a judge of answers; it leaves torch's seed alone."""
    exercises.setdefault(judge.__module__, []).append(judge.__name__)
    return Check(judge)


def _verdict(judge: Callable[[Any], str], answer: Any) -> Verdict:
    if answer is None or answer is ...:
        return Verdict(f"○ {say('not_solved_yet')}", "not_solved_yet")
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Verdict(f"✓ {judge(answer)}", "")
    except Unsolved as unsolved:
        return Verdict(f"○ {say('not_solved_since', why=unsolved)}", "not_solved_since")
    except Wrong as wrong:
        return Verdict(f"✗ {wrong}", wrong.name)
    except Exception as error:  # of the judge, on an answer unlike any it knows
        return Verdict(f"✗ {say('unusable', error=_told(error))}", "unusable")


def run(function: Callable, **inputs: Any) -> Any:
    """What the learner's function returns for these inputs, given to it in this order.

    Raises Unsolved for None, and Wrong where it raises or changes an input.
    """
    before = [value.detach().clone() if isinstance(value, Tensor) else value for value in inputs.values()]
    try:
        result = function(*inputs.values())
    except Exception as error:
        raise Wrong("raises", function=_named(function), error=_told(error), given=given(inputs)) from error
    if result is None:
        raise Unsolved(say("returns_none", function=_named(function)))
    for (name, value), old in zip(inputs.items(), before, strict=True):
        if isinstance(value, Tensor) and not torch.equal(value, old):
            raise Wrong("in_place", function=_named(function), name=name, given=given(inputs))
    return result


def compare(
    function: Callable, reference: Callable, mistakes: Mapping[str, Any] | None = None, /, **inputs: Any
) -> Any:
    """Run the learner's function and the reference on the same inputs; return the result where both agree.

    Raises Wrong where they differ: with the sentence of the first of `mistakes` that gives the learner's result, or
    else with the first place where they differ.
    """
    result, wanted = run(function, **inputs), reference(*inputs.values())
    if fault := difference(result, wanted):
        if mistake := known(result, mistakes or {}, *inputs.values()):
            raise Wrong(mistake, inputs)
        raise Wrong("differs", function=_named(function), fault=fault, given=given(inputs))
    return result


def known(result: Any, mistakes: Mapping[Any, Any], /, *inputs: Any) -> Any:
    """The mistake that gives a result, by name, or None: a function of the inputs, a value, or a list of either."""
    return next((name for name, mistake in mistakes.items() if _gives(mistake, inputs, result)), None)


def _gives(mistake: Any, inputs: Sequence[Any], result: Any) -> bool:
    if isinstance(mistake, list):
        return any(_gives(each, inputs, result) for each in mistake)
    try:
        return not difference(result, mistake(*inputs) if callable(mistake) else mistake)
    except Exception:  # this mistake can't be made on these inputs
        return False


def parts(result: Any, *names: str) -> Any:
    """The parts of a result, one for each name; raises Wrong, with what the names say, where there are not as many."""
    if not isinstance(result, tuple | list) or len(result) != len(names):
        raise Wrong("not_as_many", number=len(names), names=said(", ").join(map(say, names)), result=shown(result))
    return result


def gradients(output: Any, *inputs: Tensor) -> list[Tensor]:
    """The gradient of the sum of a tensor by each of the inputs; zeros where there is none."""
    zeros = [torch.zeros_like(x) for x in inputs]
    if not (isinstance(output, Tensor) and output.requires_grad):
        return zeros
    found = torch.autograd.grad(output.sum(), inputs, retain_graph=True, allow_unused=True)
    return [zero if gradient is None else gradient for zero, gradient in zip(zeros, found, strict=True)]


def difference(result: Any, wanted: Any, name: str = "", /, **facts: Any) -> str:
    """In words, the first thing in which a result differs from what is wanted (numbers, tensors, tuples); or ""."""
    return _difference(result, wanted, say(name or "the_result", **facts))


def _difference(result: Any, wanted: Any, name: str) -> str:
    if isinstance(wanted, tuple):
        if not isinstance(result, tuple | list) or len(result) != len(wanted):
            return say("not_in_order", name=name, number=len(wanted), result=shown(result))
        pairs = enumerate(zip(result, wanted, strict=True), 1)
        faults = (_difference(*pair, say("part", name=name, number=number)) for number, pair in pairs)
        return next(filter(None, faults), "")
    if isinstance(result, tuple | list) and result and all(isinstance(part, Tensor) for part in result):
        return say("several_tensors", name=name, number=len(result))
    try:
        result = torch.as_tensor(result).detach()
    except Exception:
        return say("no_number", name=name, result=shown(result))
    wanted = torch.as_tensor(wanted).detach()
    if result.shape != wanted.shape:
        return say("shape", name=name, wanted=tuple(wanted.shape), result=tuple(result.shape))
    if not wanted.is_floating_point() and result.is_floating_point():
        return say("whole_numbers", name=name, result=result.dtype)
    close = torch.isclose(result.double(), wanted.double(), rtol=1e-4, atol=1e-5)
    if close.all():
        return ""
    place = tuple((~close).nonzero()[0].tolist())
    values = {"wanted": wanted[place].item(), "result": result[place].item()}
    return say("value_at" if place else "value", name=name, place=list(place), **values)


def given(inputs: Mapping[str, Any]) -> str:
    """The inputs in words: "for x of shape (3, 2), codebook of shape (5, 2) and beta = 0.5"."""
    if not inputs:
        return say("given_nothing")
    *others, last = (shown(value, name) for name, value in inputs.items())
    return say("given_several", others=said(", ").join(others), last=last) if others else say("given_one", value=last)


def shown(value: Any, name: str = "") -> str:
    if isinstance(value, Tensor) and value.ndim:
        return say("tensor", name=name or say("a_tensor"), shape=tuple(value.shape))
    value = f"{value:.4g}" if isinstance(value, float) else " ".join(repr(value).split())
    value = value if len(value) <= 60 else value[:57] + "..."
    return say("plain", name=name, value=value) if name else value


def _named(function: Callable) -> str:
    name = getattr(function, "__name__", "<lambda>")
    return say("your_answer") if name == "<lambda>" else name


def _told(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return type(error).__name__ + (f" ({lines[0]})" if lines else "")
