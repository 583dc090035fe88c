"""The notebooks' pipeline: what the build makes of a source, what --check catches, what nbval catches.

That the course's own notebooks run is not tested here: `make test` hands them to nbval and to the browser.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
import reading
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]

SOURCE = '''\
# %% [markdown]
# # Halves
#
# It takes {{run_time}}, and reading {{reading_time}}.

# %%
for step in range(3):
    print(f"\\rstep {step}", end="")

# %% [markdown]
# ### Exercise 1 · ★☆☆ · 2 minutes

# %% tags=["exercise"]
def half(x):
    """Half of x."""
    ### BEGIN SOLUTION
    result = x / 2
    return result
    ### END SOLUTION

# %% [markdown] tags=["hint"]
# Divide.

# %%
print("not solved yet" if half(3) is None else "right")

# %% tags=["claim"]
assert half(3) in (None, 1.5)

# %% [markdown] tags=["doubters"]
# ### Is it exact?
#
# It is.

# %% tags=["doubters"]
_quarter = 3 / 2 / 2

# %% [markdown]
# The end.
'''
PICTURE = """
# %% tags=["readme-picture"]
import base64, io
from IPython.display import HTML
from PIL import Image
buffer = io.BytesIO()
Image.new("RGB", (3, 2), "red").save(buffer, "WEBP", lossless=True)
HTML(f'<img alt="red" src="data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}">')
"""
STILL = """
# %%
import ipywidgets

class Explorer(ipywidgets.VBox):
    def _repr_mimebundle_(self, **kwargs):
        return super()._repr_mimebundle_(**kwargs) | {"text/html": "<img alt='nothing'>"}

Explorer([])
"""


class Course:
    """A course of one notebook, with the project's own tools."""

    def __init__(self, root: Path) -> None:
        self.notebooks = root / "notebooks"
        self.source = self.notebooks / "sources" / "01_halves.py"
        self.notebook = self.notebooks / "01_halves.ipynb"
        self.tool = root / "tools" / "build_notebooks.py"
        self.source.parent.mkdir(parents=True)
        shutil.copytree(ROOT / "tools", root / "tools")
        shutil.copy(ROOT / "pyproject.toml", root)
        self.source.write_text(SOURCE, encoding="utf-8")

    def build(self, *arguments: str | Path) -> subprocess.CompletedProcess:
        """Run tools/build_notebooks.py with these arguments."""
        return subprocess.run([sys.executable, self.tool, *arguments], capture_output=True, text=True)

    def rebuilt(self, source: str) -> NotebookNode:
        """The notebook that the build makes of this source."""
        self.source.write_text(source, encoding="utf-8")
        run = self.build()
        assert run.returncode == 0, run.stderr
        return nbformat.read(self.notebook, as_version=4)


def stated_seconds(notebook: NotebookNode) -> int:
    """The run time that a notebook promises where it opens."""
    ((number, unit),) = re.findall(r"(?:runs in|It takes) about (\d+) (seconds|minutes)", notebook.cells[0].source)
    return int(number) * {"seconds": 1, "minutes": 60}[unit]


@pytest.fixture
def course(tmp_path: Path) -> Course:
    """A new course, not yet built."""
    return Course(tmp_path)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Course:
    """A course built once; whoever changes it works on a copy."""
    course = Course(tmp_path_factory.mktemp("built"))
    course.rebuilt(SOURCE + STILL)
    return course


@pytest.fixture
def committed(built: Course, course: Course) -> Course:
    """A copy of the built course, to be changed."""
    shutil.copy(built.source, course.source)
    shutil.copy(built.notebook, course.notebook)
    return course


def test_a_learner_gets_a_stub_and_a_folded_hint_and_the_solution_at_the_very_end(built: Course) -> None:
    cells = nbformat.read(built.notebook, as_version=4).cells
    assert cells[4].source == 'def half(x):\n    """Half of x."""\n    ...  # your code here'
    hint = r"<details><summary>.*Hint</summary>\n\nDivide\.\n\n</details>\n\nThe solution stands at .*"
    assert re.fullmatch(hint, cells[5].source)
    assert cells[6].outputs[0].text == "not solved yet\n"
    *others, heading, solution = cells
    assert heading.source.startswith("## Solutions\n")
    assert re.match("### .*half\n\n<details><summary>Solution</summary>\n\n```python\ndef half", solution.source)
    assert "    return result\n```\n\n" in solution.source and solution.source.endswith("\n\n</details>")
    assert not any("result" in cell.source or "# BEGIN" in cell.source for cell in others)


def test_every_viewer_finds_the_way_from_a_hint_to_the_solution_and_back(built: Course) -> None:
    """Each by its own rule. (GitHub has none; JupyterLab is asked itself, in the browser.)"""
    cells = nbformat.read(built.notebook, as_version=4).cells
    hint, solution = cells[5], cells[-1]
    for start, end in [(hint, solution), (solution, hint)]:
        ((text, target),) = re.findall(r"\[([\w ]+)\]\(#([^)]+)\)", start.source)
        assert text in ("half", "Back to the exercise")
        assert target == f"scrollTo={end.id}"  # Colab
        ids = re.findall(r' id="([^"]+)"', end.source)
        assert target in ids  # nbviewer, Jupyter, and VS Code until 2022
        assert re.sub(r"[^\w-]", "", target.lower()) in ids  # VS Code makes a heading's id of every link


def test_a_learner_gets_no_claims_and_what_is_for_doubters_is_folded(built: Course) -> None:
    cells = nbformat.read(built.notebook, as_version=4).cells
    assert not any("assert" in cell.source for cell in cells)
    folded = "<details><summary>For doubters: Is it exact?</summary>\n\nIt is.\n\n```python\n_quarter = 3 / 2 / 2\n```"
    assert [cell.source for cell in cells[7:9]] == [f"{folded}\n\n</details>", "The end."]


def test_the_solved_edition_has_the_solution_and_no_outputs(built: Course, tmp_path: Path) -> None:
    assert built.build("--solved", tmp_path / "solved").returncode == 0
    cells = nbformat.read(tmp_path / "solved" / "01_halves.ipynb", as_version=4).cells
    assert re.search(r"takes about \d+ seconds, and reading about \d+ minutes", cells[0].source)
    assert cells[4].source.endswith("result = x / 2\n    return result")
    assert "Hint" in cells[5].source and "Solution" not in cells[5].source
    assert not any(cell.get("outputs") for cell in cells)
    assert not any("assert" in cell.source for cell in cells)


def test_the_tests_run_the_claims_and_the_longer_ones_each_solved_cell_twice_and_then_all_once_more(
    built: Course, tmp_path: Path
) -> None:
    assert built.build("--rehearsals", tmp_path).returncode == 0
    unsolved, solved, repeated = (
        nbformat.read(tmp_path / edition / "01_halves.ipynb", as_version=4)
        for edition in ("unsolved", "solved", "repeated")
    )
    nbformat.validate(repeated)
    code, once, twice = (
        [cell.source for cell in notebook.cells if cell.cell_type == "code"]
        for notebook in (unsolved, solved, repeated)
    )
    assert any("your code here" in source for source in code)
    assert "assert half(3) in (None, 1.5)" in code and "_quarter = 3 / 2 / 2" in code
    assert twice == [source for source in once for _ in range(2)] + once
    assert len(once) == len(code) and "    return result" in "".join(once)


def test_the_time_to_read_is_that_of_words_code_and_pictures_without_exercises_and_what_is_not_read() -> None:
    picture = new_output("display_data", {"text/html": "<img alt='x'>"})
    cells = [
        new_markdown_cell("# Title\n\n" + 158 * "word " + "\n\n<details>" + 500 * "folded " + "</details>"),
        new_code_cell("if missing:\n    install()", id="bootstrap"),
        new_code_cell("x = 1\n\ny = 2", outputs=[picture]),
        new_markdown_cell("## Next\n\n### Exercise 1 · Predict · ★☆☆ · 7 minutes\n\n" + 500 * "word "),
        new_code_cell("def f():\n    ...", metadata={"tags": ["exercise"]}),
        new_code_cell("check.f(f)"),
        new_code_cell("z = f(\n    3\n)"),
        new_markdown_cell("## Where to read on\n\n- " + 500 * "source "),
        new_markdown_cell("## Solutions\n\n" + 500 * "word ", id="solutions"),
        new_markdown_cell("### f\n\n" + 500 * "word "),
    ]
    notebook = new_notebook(cells=cells)
    # 159 words of the first text and 1 of "## Next", 4 lines that are more than brackets, 1 picture
    assert reading.minutes(notebook) == pytest.approx(160 / 160 + 4 * 6 / 60 + 0.5)
    assert reading.stated(notebook) == "about 2 minutes"
    assert reading.exercise_minutes(notebook) == 7


def test_the_notebooks_of_a_language_have_12_megabytes_at_most() -> None:
    """Of each alone `make lint` sees that it has 2."""
    for folder in {path.parent for path in (ROOT / "notebooks").glob("**/[0-9]*.ipynb")}:
        assert sum(path.stat().st_size for path in folder.glob("[0-9]*.ipynb")) < 12_000_000, folder


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_time_that_a_notebook_states_was_measured_when_it_was_built(path: Path) -> None:
    """The build's own measurement: how long it takes here and now, beside other work, is no judge of it."""
    notebook = nbformat.read(path, as_version=4)
    measured = notebook.metadata["run_time_seconds"]
    assert measured / 2 < stated_seconds(notebook) < 2 * measured
    assert measured < (60 if path.stem < "06" else 120)  # from 06 on a network is trained


def test_outputs_are_what_a_reader_should_see(built: Course) -> None:
    notebook = nbformat.read(built.notebook, as_version=4)
    assert notebook.cells[2].outputs == [{"output_type": "stream", "name": "stdout", "text": "step 2"}]
    assert set(notebook.cells[9].outputs[0].data) == {"text/html", "text/plain"}
    assert set(notebook.metadata) == {"kernelspec", "language_info", "run_time_seconds"}
    assert not any("execution" in cell.metadata for cell in notebook.cells)


def test_the_readmes_picture_is_that_of_the_tagged_cell_as_png(course: Course) -> None:
    course.rebuilt(SOURCE + PICTURE)
    picture = Image.open(course.notebooks / "rebuilt.png")
    assert (picture.format, picture.size, picture.getpixel((2, 1))) == ("PNG", (3, 2), (255, 0, 0))


def test_building_again_gives_the_same_file(committed: Course) -> None:
    def without_time() -> str:
        return re.sub(r"about \d+|_seconds\": [\d.]+", "", committed.notebook.read_text(encoding="utf-8"))

    before = without_time()
    assert committed.build().returncode == 0
    assert without_time() == before


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import sys\nprint('noise', file=sys.stderr)", "stderr"),
        ("import warnings\nwarnings.warn('old')", "stderr"),
        ("import ipywidgets\nipywidgets.IntSlider()", "widget without a picture"),
        ("from IPython.display import Image\nImage(b'', format='png')", "alt text"),
        ("object()", "address"),
        ("import os\nprint(os.getcwd())", "path of this machine"),
        ("import pathlib\nprint(pathlib.Path.home())", "path of this machine"),
    ],
)
def test_the_build_refuses_what_a_reader_should_not_see(course: Course, cell: str, fault: str) -> None:
    course.source.write_text(f"{SOURCE}\n# %%\n{cell}\n", encoding="utf-8")
    run = course.build()
    assert run.returncode == 1
    assert fault in run.stderr
    assert not course.notebook.exists()


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("# # Halves", "Halves", "title"),
        ("    ### BEGIN SOLUTION\n", "", "no solution between its markers"),
        (' tags=["hint"]', "", "hint"),
    ],
)
def test_a_faulty_source_is_named(course: Course, old: str, new: str, fault: str) -> None:
    course.source.write_text(SOURCE.replace(old, new), encoding="utf-8")
    run = course.build("--check")
    assert run.returncode == 1
    assert "01_halves" in run.stderr and fault in run.stderr


def test_check_agrees_with_what_was_built(built: Course) -> None:
    run = built.build("--check")
    assert (run.returncode, run.stderr) == (0, "")


def _cleared(notebook: NotebookNode) -> None:
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None


def _retitled(notebook: NotebookNode) -> None:
    notebook.cells[0].source = notebook.cells[0].source.replace("Halves", "Quarters")


def _undescribed(notebook: NotebookNode) -> None:
    notebook.cells[9].outputs[0].data["text/html"] = "<img alt='described'><img alt=''>"


def _from_elsewhere(notebook: NotebookNode) -> None:
    notebook.cells[9].outputs[0].data["text/html"] = "<img alt='described' src='https://example.org/picture.png'>"


def _swollen(notebook: NotebookNode) -> None:
    notebook.cells[9].outputs[0].data["text/html"] = 2_000_000 * " "


def _shortened(notebook: NotebookNode) -> None:
    notebook.cells.pop()


def _retagged(notebook: NotebookNode) -> None:
    notebook.cells[4].metadata.tags = []


def _with_widget_state(notebook: NotebookNode) -> None:
    notebook.metadata.widgets = {}


def _of_another_length(notebook: NotebookNode) -> None:
    notebook.cells[0].source = notebook.cells[0].source.replace("reading about 1", "reading about 2")


def _untimed(notebook: NotebookNode) -> None:
    del notebook.metadata["run_time_seconds"]


def _twice_as_slow(notebook: NotebookNode) -> None:
    notebook.metadata["run_time_seconds"] = 2 * stated_seconds(notebook)


def _stated_otherwise(notebook: NotebookNode) -> None:
    opening, seconds = notebook.cells[0], stated_seconds(notebook)
    opening.source = opening.source.replace(f"takes about {seconds}", f"takes about {seconds + 1}")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_cleared, "cell 2 .* was never executed"),
        (_retitled, "cell 1 .*Halves.* differs"),
        (_shortened, "cell 12 .* differs"),
        (_undescribed, "cell 10 .* shows a picture without an alt text"),
        (_from_elsewhere, "cell 10 .* shows a picture that isn't in the notebook"),
        (_swollen, "2.0 MB"),
        (_retagged, "cell 5 .*def half.* differs"),
        (_with_widget_state, "metadata"),
        (_of_another_length, "cell 1 .*Halves.* differs"),
        (_untimed, "never measured"),
        (_twice_as_slow, "cell 1 .*Halves.* differs"),
        (_stated_otherwise, "cell 1 .*Halves.* differs"),
    ],
)
def test_check_names_the_first_cell_that_was_changed(
    committed: Course, change: Callable[[NotebookNode], None], complaint: str
) -> None:
    notebook = nbformat.read(committed.notebook, as_version=4)
    change(notebook)
    nbformat.write(notebook, committed.notebook)
    run = committed.build("--check")
    assert run.returncode == 1
    assert re.match(f"01_halves: .*{complaint}", run.stderr)


def test_check_sees_an_edited_source(committed: Course) -> None:
    committed.source.write_text(committed.source.read_text().replace("x / 2", "0.5 * x"), encoding="utf-8")
    assert "01_halves: cell 5" in committed.build("--check").stderr


def test_check_sees_a_notebook_without_a_source_and_a_source_without_a_notebook(committed: Course) -> None:
    committed.source.rename(committed.source.with_name("02_doubles.py"))
    complaints = committed.build("--check").stderr
    assert "02_doubles.ipynb is missing" in complaints
    assert "01_halves.ipynb has no source" in complaints


def test_an_unknown_topic_is_named(committed: Course) -> None:
    run = committed.build("--check", "03_thirds")
    assert run.returncode == 1
    assert "03_thirds: no such source" in run.stderr


def test_nbval_fails_what_the_course_must_not_do(tmp_path: Path) -> None:
    """A raising callback inside an Output, and a check that doesn't say what it should, fail; nothing else does."""
    checks = "class check:\n    def say(mark): print(mark, 'that is so')"
    raising = "import ipywidgets\ndef f(x): 1 / 0\nipywidgets.interact(f, x=(0, 3));"
    cells = [checks, "check.say('○')", "check.say('✓')", "check.say('✗')", "check.say('')", raising, "print('✗')"]
    for path in (tmp_path / "learner.ipynb", tmp_path / "solved" / "teacher.ipynb"):
        path.parent.mkdir(exist_ok=True)
        nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells]), path)
    shutil.copy(ROOT / "conftest.py", tmp_path)
    arguments = ["--nbval-lax", "--nbval-current-env", "-q", "-rA", "--rootdir", tmp_path, tmp_path]
    command, ways = [sys.executable, "-m", "pytest", *arguments], os.pathsep.join(map(str, (ROOT, ROOT / "tools")))
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": ways})
    failed = set(re.findall(r"^FAILED .*?(\w+).ipynb::Cell (\d)", run.stdout, re.MULTILINE))
    passed = set(re.findall(r"^PASSED .*?(\w+).ipynb::Cell (\d)", run.stdout, re.MULTILINE))
    assert passed == {("learner", n) for n in "016"} | {("teacher", n) for n in "026"}
    assert failed == {("learner", n) for n in "2345"} | {("teacher", n) for n in "1345"}
