"""Interrupts that wait for what is under way: Ctrl-C in a terminal, the stop button of a notebook.

Raised at any moment, as Python does it, one may cut in two an optimizer's step, a codebook's start or the loading of a
module, and some, of PyTorch's too, can't be loaded any more after that.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


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
