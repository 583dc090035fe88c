"""Interrupts that wait for what is under way: Ctrl-C in a terminal, the stop button of a notebook.

Raised at any moment, as Python does it, one may cut in two an optimizer's step, a codebook's start or PyTorch's loading
of its own modules, which then can't be loaded any more.
"""

import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from rvq_tutorial.language import said

Item = TypeVar("Item")


@contextmanager
def held() -> Iterator[Callable[[], bool]]:
    """In here an interrupt raises nothing; the function that is given says whether one has come.

    Where interrupts are ignored, or end the process at once, and in threads, which none reaches, nothing is changed.
    """
    came = False

    def note(*_: Any) -> None:
        nonlocal came
        came = True

    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGINT, before)


def interruptible(steps: Collection[Item]) -> Iterator[Item]:
    """The steps of a training loop: an interrupt ends the loop after the step under way, and a sentence says so."""
    with held() as interrupted:
        for done, step in enumerate(steps):
            if interrupted():
                print(stopped(done, len(steps)))
                return
            yield step


def stopped(done: int, steps: int) -> str:
    """What is said of a model whose training was stopped."""
    return said(
        "Stopped after {done} of {steps} steps: the model keeps what it has learned, "
        "but it is trained too little for what the text says of it.",
        done=done,
        steps=steps,
    )
