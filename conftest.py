"""What every notebook's checks must say when nbval runs it: ✓ where the exercises are solved, ○ where not."""

import re

import pytest
from nbval.plugin import IPyNbCell

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
