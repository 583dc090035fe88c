"""How long a notebook takes to read: the one rule behind every stated reading time.

Words at a pace for technical prose, and some seconds for each line of code and each picture. Measured once: readers
took 55 to 65 minutes for four notebooks that this rule puts at 49 to 56, and 45 to 60 for three at 52 to 64. Exercises
are timed by their own headings; what is folded, the cell that installs the package, the list of sources and the
solutions at the end are not read. Chinese is counted by its characters, so that a text takes as long as in English, as
it does (Trauzettel-Klosinski & Dietz 2012, in 17 languages).
"""

import re
from itertools import takewhile

from nbformat import NotebookNode

from rvq_tutorial.language import said

WORDS_A_MINUTE = 160
CHARACTERS_A_MINUTE = 250  # of Chinese: as many tell about what 160 English words do
SECONDS_A_LINE = 6
SECONDS_A_PICTURE = 30

FOLDED = re.compile(r"<details>.*?</details>", re.DOTALL)
HEADING = re.compile(r"^(?=#{2,3} )", re.MULTILINE)
EXERCISE = re.compile(r"^### .*★.* (\d+) \S+$", re.MULTILINE)  # an exercise's heading, in any language
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def minutes(notebook: NotebookNode) -> float:
    """Minutes to read an executed notebook, without its exercises."""
    words = characters = lines = pictures = 0
    skipped = False
    for cell in takewhile(lambda cell: cell.id != "solutions", notebook.cells):
        if cell.cell_type == "markdown":
            for part in HEADING.split(FOLDED.sub("", cell.source)):
                if part.startswith(("## ", "### ")):
                    skipped = EXERCISE.match(part) or part.startswith(f"## {said('Where to read on')}")
                if not skipped:
                    characters += len(CHINESE.findall(part))
                    words += _with_letters(CHINESE.sub(" ", part).split())
        elif cell.source.startswith("check."):
            skipped = False
        elif not skipped and cell.id != "bootstrap":
            lines += _with_letters(cell.source.splitlines())
            pictures += sum("<img" in output.get("data", {}).get("text/html", "") for output in cell.outputs)
    text = words / WORDS_A_MINUTE + characters / CHARACTERS_A_MINUTE
    return text + (lines * SECONDS_A_LINE + pictures * SECONDS_A_PICTURE) / 60


def _with_letters(pieces: list[str]) -> int:
    """How many of the words or lines are more than marks and brackets."""
    return sum(any(character.isalnum() for character in piece) for piece in pieces)


def stated(notebook: NotebookNode) -> str:
    """The reading time as a notebook states it: "about 40 minutes"."""
    return said("about {number} minutes", number=max(1, round(minutes(notebook))))


def exercise_minutes(notebook: NotebookNode) -> int:
    """Minutes that the headings of the exercises add up to."""
    return sum(int(time) for cell in notebook.cells for time in EXERCISE.findall(cell.source))
