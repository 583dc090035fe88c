"""What the checks have accepted is kept beside the notebooks, and shown; where it can't be kept, nothing breaks."""

import json
import os
import re
from pathlib import Path

import pytest

from rvq_tutorial.course import check
from rvq_tutorial.course.check import judging, solved


def right(height: int, width: int, size: int) -> float:
    """The solution of notebook 01's first exercise, for sizes that are powers of two."""
    return height * width * (size.bit_length() - 1) + 24 * size


def test_an_accepted_answer_is_remembered_and_a_wrong_one_is_not(folder: Path) -> None:
    check.predicted_slopes(lambda: (1.0, 1.0))
    assert not (folder / "progress.json").exists()
    check.file_bits(right)
    check.predicted_slopes(lambda: (0.0, -1.8))
    assert json.loads((folder / "progress.json").read_text()) == {"solved": ["file_bits", "predicted_slopes"]}
    check.file_bits(None)
    assert solved.remembered() == {"file_bits", "predicted_slopes"}


def test_the_map_marks_what_is_solved_and_counts_it() -> None:
    assert "✓" not in repr(check.progress())
    check.file_bits(right)
    course = check.progress()
    for shown in (repr(course), course._repr_html_()):
        assert "✓ file_bits" in shown and "○ nearest_colours" in shown
        total = sum(len(row) for row in course.notebooks.values())
        assert f"1 of {total} exercises are solved" in shown


def test_the_map_has_every_exercise_of_every_notebook_once() -> None:
    rows = check.progress().notebooks
    assert [title[:2] for title in rows] == [f"{number:02}" for number in range(1, len(rows) + 1)]
    names = [name for row in rows.values() for name in row]
    assert len(set(names)) == len(names)
    assert set(names) | {"progress"} == set(check.__all__)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"solved": 3}', '{"other": []}', '{"solved": [[1], null]}'])
def test_a_file_that_is_not_ours_to_read_counts_as_none(folder: Path, content: str) -> None:
    (folder / "progress.json").write_text(content)
    assert "✓" not in repr(check.progress())
    check.file_bits(right)
    assert solved.remembered() == {"file_bits"}


def test_where_nothing_can_be_written_nothing_is_said_and_nothing_breaks(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    (folder / "progress.json").mkdir()  # even root can't replace a folder by a file
    check.file_bits(right)
    assert re.fullmatch(r"✓ .*\n", capsys.readouterr().out)
    assert "✓" not in repr(check.progress())
    assert os.listdir(folder) == ["progress.json"]


def test_exercises_of_others_are_not_in_the_map() -> None:
    judging.exercise(lambda answer: "fine")(1)
    assert solved.remembered() == {"<lambda>"}
    assert "lambda" not in repr(check.progress())
