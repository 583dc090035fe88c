"""Interrupts that wait: real signals, on the main thread, as a notebook's stop button sends them."""

import signal
import threading

import pytest

from rvq_tutorial.autoencoder.interrupts import held
from rvq_tutorial.autoencoder.training import interruptible

pytestmark = pytest.mark.usefixtures("python_is_interrupted")


def press():
    signal.raise_signal(signal.SIGINT)


def test_an_interrupt_waits_and_is_known():
    with held() as interrupted:
        assert not interrupted()
        press()
        press()
        assert interrupted()
    with held() as interrupted:
        assert not interrupted()
    with pytest.raises(KeyboardInterrupt):
        press()


def test_afterwards_all_is_as_before_also_after_an_error_and_within_another():
    def own(*_):
        pass

    signal.signal(signal.SIGINT, own)
    with held() as outer:
        with pytest.raises(ZeroDivisionError), held():
            1 / 0  # noqa: B018
        press()
        assert outer()
    assert signal.getsignal(signal.SIGINT) is own


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_whoever_ignores_interrupts_or_dies_of_them_is_left_alone(handler):
    signal.signal(signal.SIGINT, handler)
    with held() as interrupted:
        assert signal.getsignal(signal.SIGINT) is handler and not interrupted()


def test_in_a_thread_there_is_nothing_to_hold():
    seen = []

    def work():
        with held() as interrupted:
            seen.append(interrupted())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_loop_ends_after_the_step_under_way(capsys):
    done = []
    for step in interruptible(range(1, 10)):
        if step == 4:
            press()
        done.append(step)
    assert done == [1, 2, 3, 4]
    assert capsys.readouterr().out == (
        "Stopped after 4 of 9 steps: the model keeps what it has learned, "
        "but it is trained too little for what the text says of it.\n"
    )
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_loop_that_is_through_was_not_stopped(capsys):
    for step in interruptible(range(3)):
        if step == 2:
            press()
    assert capsys.readouterr().out == ""


def test_a_loop_that_fails_or_breaks_leaves_interrupts_as_they_were():
    def fails():
        for step in interruptible(range(3)):
            assert step < 1

    with pytest.raises(AssertionError):
        fails()
    for _ in interruptible(range(3)):
        break
    with pytest.raises(KeyboardInterrupt):
        press()
