"""What holds for all tests: they have one thread each, and the checks in notebooks say what they should."""

import os
import re
import signal
from collections.abc import Iterator

import pytest
from nbval.plugin import IPyNbCell

# Tests run beside each other, and so do the kernels that they start. Before torch is loaded anywhere:
os.environ.setdefault("OMP_NUM_THREADS", "1")

CHECK = re.compile(r"^check\.(?!progress\b)\w+\(", re.MULTILINE)
MARK = re.compile(r"^[✓○✗].*", re.MULTILINE)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> object:
    """Fail a notebook's cell that calls a check which doesn't say what it should."""
    result = yield
    if isinstance(item, IPyNbCell) and CHECK.search(item.cell.source):
        wanted = "✓" if item.path.parent.name == "solved" else "○"
        said = MARK.findall("".join(output.get("text", "") for output in item.test_outputs))
        if not said or any(not line.startswith(wanted) for line in said):
            item.raise_cell_error(f"This check should say {wanted}. It says: {' '.join(said) or 'nothing'}")
    return result


@pytest.fixture
def python_is_interrupted() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt, also where the tests run in the background and inherit that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
