"""How long a notebook takes to read: the one rule behind every stated reading time.

Words at a pace for technical prose, and some seconds for each line of code and each picture. Measured once: readers
took 55 to 65 minutes for notebooks that this rule puts at 51 to 57, and 45 to 60 for two at 63 and 66. Exercises are
timed by their own headings; what is folded is not read.
"""

import re

from nbformat import NotebookNode

WORDS_A_MINUTE = 160
SECONDS_A_LINE = 6
SECONDS_A_PICTURE = 30

FOLDED = re.compile(r"<details>.*?</details>", re.DOTALL)
HEADING = re.compile(r"^(?=#{2,3} )", re.MULTILINE)
EXERCISE = re.compile(r"### Exercise.*?(\d+) minutes")


def minutes(notebook: NotebookNode) -> float:
    """Minutes to read an executed notebook, without its exercises."""
    words = lines = pictures = 0
    in_exercise = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for part in HEADING.split(FOLDED.sub("", cell.source)):
                if part.startswith(("## ", "### ")):
                    in_exercise = part.startswith("### Exercise")
                words += 0 if in_exercise else len(part.split())
        elif cell.source.startswith("check."):
            in_exercise = False
        elif not in_exercise:
            lines += sum(bool(line.strip()) for line in cell.source.splitlines())
            pictures += sum("<img" in output.get("data", {}).get("text/html", "") for output in cell.outputs)
    return words / WORDS_A_MINUTE + (lines * SECONDS_A_LINE + pictures * SECONDS_A_PICTURE) / 60


def stated(notebook: NotebookNode) -> str:
    """The reading time as a notebook states it: "about 40 minutes"."""
    return f"about {max(1, round(minutes(notebook)))} minutes"


def exercise_minutes(notebook: NotebookNode) -> int:
    """Minutes that the headings of the exercises add up to."""
    return sum(int(time) for cell in notebook.cells for time in EXERCISE.findall(cell.source))
