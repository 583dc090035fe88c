"""What the checks say: a name for each sentence, in the .ini beside its module, in the section of its exercise.

What any exercise may say stands in `judging.ini`.
"""

import configparser
import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from rvq_tutorial.language import said

SHARED = Path(__file__).with_name("judging.ini")
_judge: ContextVar[Callable | None] = ContextVar("the judge whose sentences are said", default=None)


@functools.cache
def sentences(*files: Path) -> configparser.RawConfigParser:
    """The sentences in these files, by exercise and name; those of `[DEFAULT]` are every exercise's."""
    parser = configparser.RawConfigParser(delimiters="=", comment_prefixes="#")
    parser.optionxform = str
    parser.read(files, encoding="utf-8")
    return parser


@contextlib.contextmanager
def of(judge: Callable) -> Iterator[None]:
    """Within it, `say` says the sentences of this judge's exercise."""
    token = _judge.set(judge)
    try:
        yield
    finally:
        _judge.reset(token)


def say(name: str, /, **facts: Any) -> str:
    """The sentence of this name, in the language chosen, with the facts in it."""
    judge = _judge.get()
    known = sentences(SHARED, Path(inspect.getfile(judge)).with_suffix(".ini")) if judge else sentences(SHARED)
    section = judge.__name__ if judge and judge.__name__ in known else configparser.DEFAULTSECT
    return said(known[section][name], **facts)
