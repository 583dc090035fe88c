"""What holds for all tests: they have one thread each, and the checks in notebooks say what they should."""

import os
import re
import signal
from collections.abc import Iterator

import frames
import pytest
from languages import ENGLISH, LANGUAGES
from nbval.plugin import IPyNbCell

# Tests run beside each other, and so do the kernels that they start. Before torch is loaded anywhere:
os.environ.setdefault("OMP_NUM_THREADS", "1")

CHECK = re.compile(r"^check\.(?!progress\b)\w+\(", re.MULTILINE)
MARK = re.compile(r"^[✓○✗].*", re.MULTILINE)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> object:
    """Fail a cell that calls a check which doesn't say what it should; keep what sliders show, for the site."""
    result = yield
    if isinstance(item, IPyNbCell) and frames.has_sliders(item.cell):
        _keep_frames(item)
    if isinstance(item, IPyNbCell) and CHECK.search(item.cell.source):
        wanted = "✓" if item.path.parent.name in ("solved", "repeated") else "○"
        said = MARK.findall("".join(output.get("text", "") for output in item.test_outputs))
        if not said or any(not line.startswith(wanted) for line in said):
            item.raise_cell_error(f"This check should say {wanted}. It says: {' '.join(said) or 'nothing'}")
    return result


def _keep_frames(item: IPyNbCell) -> None:
    language = {"unsolved": ENGLISH}.get(item.path.parent.name, item.path.parent.name)
    if language in LANGUAGES:
        kernel = item.parent.kernel
        asked = kernel.execute_cell_input(frames.hand_over(language, item.path.stem, item.cell))
        kernel.await_reply(asked, timeout=60)
        kernel.await_idle(asked, 60)
        try:
            frames.frames_of(language, item.path.stem, item.cell)
        except FileNotFoundError as missing:
            item.raise_cell_error("What its sliders show could not be kept for the site:", str(missing))


@pytest.fixture
def python_is_interrupted() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt, also where the tests run in the background and inherit that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
