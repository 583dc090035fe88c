"""How long a notebook takes to read: the one rule behind every stated reading time.

Words at a pace for technical prose, and some seconds for each line of code and each picture. Measured once: readers
took 55 to 65 minutes for four notebooks that this rule puts at 49 to 56, and 45 to 60 for three at 52 to 64. Exercises
are timed by their own headings; what is folded, the cell that installs the package, the list of sources and the
solutions at the end are not read.
"""

import re
from itertools import takewhile

from nbformat import NotebookNode

WORDS_A_MINUTE = 160
SECONDS_A_LINE = 6
SECONDS_A_PICTURE = 30

FOLDED = re.compile(r"<details>.*?</details>", re.DOTALL)
HEADING = re.compile(r"^(?=#{2,3} )", re.MULTILINE)
EXERCISE = re.compile(r"### Exercise.*?(\d+) minutes")
SKIPPED = "### Exercise", "## Where to read on"


def minutes(notebook: NotebookNode) -> float:
    """Minutes to read an executed notebook, without its exercises."""
    words = lines = pictures = 0
    skipped = False
    for cell in takewhile(lambda cell: cell.id != "solutions", notebook.cells):
        if cell.cell_type == "markdown":
            for part in HEADING.split(FOLDED.sub("", cell.source)):
                if part.startswith(("## ", "### ")):
                    skipped = part.startswith(SKIPPED)
                words += 0 if skipped else _with_letters(part.split())
        elif cell.source.startswith("check."):
            skipped = False
        elif not skipped and cell.id != "bootstrap":
            lines += _with_letters(cell.source.splitlines())
            pictures += sum("<img" in output.get("data", {}).get("text/html", "") for output in cell.outputs)
    return words / WORDS_A_MINUTE + (lines * SECONDS_A_LINE + pictures * SECONDS_A_PICTURE) / 60


def _with_letters(pieces: list[str]) -> int:
    """How many of the words or lines are more than marks and brackets."""
    return sum(any(character.isalnum() for character in piece) for piece in pieces)


def stated(notebook: NotebookNode) -> str:
    """The reading time as a notebook states it: "about 40 minutes"."""
    return f"about {max(1, round(minutes(notebook)))} minutes"


def exercise_minutes(notebook: NotebookNode) -> int:
    """Minutes that the headings of the exercises add up to."""
    return sum(int(time) for cell in notebook.cells for time in EXERCISE.findall(cell.source))
