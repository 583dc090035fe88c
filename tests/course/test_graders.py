"""Graders of other kinds than nbgrader: the teachers' script, on a class of three."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
from editions import solved_edition
from languages import NOTEBOOKS, ROOT

TOPIC = "04_residual_vq"
SCRIPT = re.compile(r"^```python\n(# grade\.py\n.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_teachers_script_tells_solved_from_half_solved_and_unsolved_and_names_the_mistakes(tmp_path: Path) -> None:
    (script,) = SCRIPT.findall((ROOT / "docs" / "for-teachers.md").read_text(encoding="utf-8"))
    (tmp_path / "grade.py").write_text(script, encoding="utf-8")
    solved = solved_edition(TOPIC)
    nbformat.write(solved, tmp_path / "ann.ipynb")
    for cell in solved.cells:  # a mistake, an exception, and a cell that is no Python
        cell.source = cell.source.replace("num_quantizers * math.log2", "math.log2")
        cell.source = cell.source.replace("residual, indices = x, []", "residual, indices = x, [][0]")
        cell.source = cell.source.replace("return [2, 0, 0], 20.0 - 3.0 - 1.0", "return [2, 0,")
    nbformat.write(solved, tmp_path / "bob.ipynb")
    names = ["ann.ipynb", "bob.ipynb", str(NOTEBOOKS / f"{TOPIC}.ipynb")]
    run = subprocess.run([sys.executable, "grade.py", *names], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    ann, bob, nobody = run.stdout.splitlines()
    assert ann.strip() == "ann.ipynb: 5 of 5"
    assert bob == (
        "bob.ipynb: 2 of 5 {'predicted_stages': 'not_solved_yet', 'residual_encode': 'raises', "
        "'cost': 'one_stage_of_bits'}"
    )
    assert nobody.endswith(f"{TOPIC}.ipynb: 0 of 5 {{{nobody.partition('{')[2]}") and "not_solved_since" in nobody
