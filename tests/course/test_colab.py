"""The course on an imitation of Colab: its versions of Jupyter, and the package absent until a notebook installs it.

torch and whatever else the course needs are the newest, from the environment that runs the tests; Colab's own lag some
months behind. Colab's page can't be had: the classic Notebook, as old as its widgets, stands in for it.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import threading
import venv
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import nbformat
import pytest
from editions import ROOT, learner_edition, repository
from front_ends import MINUTE, changed, served, up_to_the_first_slider
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Locator, Page

VERSIONS = ["ipywidgets==7.7.1", "ipython==7.34.0", "ipykernel==6.17.1", "notebook==6.5.7", "setuptools<80"]
ABSENT = "rvq_tutorial", "constriction"  # of all that the course needs
ADDRESS = f"https://github.com/{repository()}"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WEEKLY = [pytest.param(path, id=path.stem, marks=pytest.mark.weekly) for path in NOTEBOOKS]
COLAB = ROOT / "build" / "colab"
PREINSTALLED = COLAB / "preinstalled"  # links to all packages of the environment that runs the tests, but those absent

CELLS = "Jupyter.notebook.get_cells().filter(cell => cell.cell_type === 'code')"
READY = "() => window.Jupyter?.notebook?.kernel?.is_connected() && Jupyter.notebook.kernel.widget_manager"
# The page looks for old widgets first, and then draws all outputs anew: it is done with that when a second look is.
RUN_ALL = """async () => {
    await Jupyter.notebook.kernel.widget_manager._loadFromKernel();
    Jupyter.notebook.clear_all_output();
    Jupyter.notebook.execute_all_cells();
}"""
ERRORS = f"""() => {CELLS}.flatMap(cell => cell.output_area.outputs
    .filter(output => output.output_type === 'error' || output.name === 'stderr')
    .map(output => `${{cell.get_text()}}\n${{output.ename ?? ''}} ${{output.evalue ?? output.text}}`))"""
DONE = f"() => {CELLS}.every(cell => Number.isInteger(cell.input_prompt_number)) || ({ERRORS})().length > 0"


@pytest.fixture(scope="session")
def colab() -> Path:
    """The environment that all runtimes of Colab share. It is made in 15 seconds, and kept in build/colab."""
    packages = [path for path in _packages(Path(sys.prefix)).iterdir() if not path.name.startswith(ABSENT)]
    contents = "\n".join([sys.version, *VERSIONS, *sorted(str(path) for path in packages)])
    stamp, environment = COLAB / "contents", COLAB / "environment"
    if not stamp.exists() or stamp.read_text() != contents:
        shutil.rmtree(COLAB, ignore_errors=True)
        PREINSTALLED.mkdir(parents=True)
        for path in packages:
            (PREINSTALLED / path.name).symlink_to(path)
        python = _new(environment, PREINSTALLED)
        subprocess.run([python, "-m", "pip", "install", "-q", *VERSIONS], check=True)
        stamp.write_text(contents)
    return environment


@pytest.fixture
def runtime(colab: Path, tmp_path: Path) -> Path:
    """The Python of a runtime as Colab hands it out: nothing of its own is installed yet."""
    python = _new(tmp_path / "runtime", _packages(colab), PREINSTALLED)
    module = _packages(tmp_path / "runtime") / "google" / "colab" / "__init__.py"
    module.parent.mkdir(parents=True)
    module.touch()
    return python


def _new(environment: Path, *preinstalled: Path) -> Path:
    """The Python of a new environment that has packages from elsewhere; pip leaves those alone."""
    venv.create(environment, symlinks=True)
    (_packages(environment) / "preinstalled.pth").write_text("\n".join(map(str, preinstalled)))
    return environment / "bin" / "python"


def _packages(environment: Path) -> Path:
    return Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))


@pytest.fixture(scope="session")
def working_tree(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The git address of these files as they are now, committed or not."""
    copy = tmp_path_factory.mktemp("repository")
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "rvq_tutorial", copy / "rvq_tutorial")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "As it is now"]):
        subprocess.run([*git, *command], cwd=copy, check=True)
    return copy.as_uri()


def _instead_of_github(address: str) -> dict[str, str]:
    """What makes git look elsewhere for our repository."""
    return {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{address}.insteadOf", "GIT_CONFIG_VALUE_0": ADDRESS}


Opened = Callable[[NotebookNode], Page]


@pytest.fixture
def opened(colab: Path, runtime: Path, working_tree: str, page: Page, tmp_path: Path) -> Iterator[Opened]:
    """Opens a notebook in a new runtime, and nothing else of the course lies beside it."""
    content = tmp_path / "content"
    content.mkdir()
    environment = {
        "JUPYTER_PATH": str(colab / "share" / "jupyter"),
        "JUPYTER_CONFIG_PATH": str(colab / "etc" / "jupyter"),
        "PYTHONPATH": "",
        **_instead_of_github(working_tree),
    }
    with served([runtime, "-m", "notebook", "--NotebookApp.token="], content, tmp_path, environment) as address:

        def open_(notebook: NotebookNode) -> Page:
            nbformat.write(notebook, content / "notebook.ipynb")
            page.goto(f"{address}/notebooks/notebook.ipynb")
            page.wait_for_function(READY)
            return page

        yield open_
    installed = [path.name for path in _packages(tmp_path / "runtime").glob("*.dist-info")]
    assert installed and all(name.startswith(ABSENT) for name in installed), "nothing preinstalled may be replaced"


def test_the_first_slider_moves_after_the_first_cell_has_installed_the_course(opened: Opened) -> None:
    _run_and_move(opened(up_to_the_first_slider(NOTEBOOKS[0])))


@pytest.mark.parametrize("notebook", WEEKLY)
def test_a_notebook_installs_the_course_and_runs_and_its_sliders_move(notebook: Path, opened: Opened) -> None:
    _run_and_move(opened(nbformat.read(notebook, as_version=4)))


def _run_and_move(page: Page) -> None:
    """Run all cells of the notebook, then move every slider by key and by drag."""
    page.evaluate(RUN_ALL)
    page.wait_for_function(DONE, timeout=10 * MINUTE)
    assert page.evaluate(ERRORS) == []
    said = page.evaluate(f"() => {CELLS}[0].output_area.outputs.map(output => output.text)")
    assert len(said) == 1 and "no restart" in said[0]
    sliders = page.locator(".widget-slider .ui-slider-handle")
    sliders.first.wait_for()
    for slider in sliders.all():  # it stands in the middle or at the end
        with changed(slider):
            slider.press("ArrowLeft")
        with changed(slider):
            _drag_to_the_end(page, slider)
    assert page.evaluate(ERRORS) == []


def _drag_to_the_end(page: Page, handle: Locator) -> None:
    handle.scroll_into_view_if_needed()
    start, track = handle.bounding_box(), handle.locator("xpath=..").bounding_box()
    middle = start["y"] + start["height"] / 2
    page.mouse.move(start["x"] + start["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(track["x"] + track["width"] + 30, middle, steps=5)
    page.mouse.up()


class _Private(BaseHTTPRequestHandler):
    """Answers as GitHub does where a repository is private."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="GitHub"')
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def private() -> Iterator[str]:
    """The address of a repository that asks who is there."""
    with HTTPServer(("127.0.0.1", 0), _Private) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/repository"
        server.shutdown()


@pytest.fixture
def unreachable() -> str:
    """An address where nobody answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/repository"


@pytest.fixture
def first_cell(runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], str]:
    """Runs a notebook's first cell where it must fail, and gives what it says."""
    spec = tmp_path / "kernels" / "runtime" / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [str(runtime), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "Runtime", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))

    def said(environment: dict[str, str]) -> str:
        sources = [learner_edition(NOTEBOOKS[0].stem).cells[1].source, "'the second cell'"]
        notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
        with pytest.raises(CellExecutionError):
            client = NotebookClient(notebook, kernel_name="runtime")
            client.execute(cwd=tmp_path, env={**os.environ, "PYTHONPATH": "", **environment})
        first, second = notebook.cells
        assert second.execution_count is None, "the second cell must wait"
        return "".join(output.text for output in first.outputs if output.name == "stderr")

    return said


Said = Callable[[dict[str, str]], str]


def test_without_a_network_the_first_cell_says_so_in_one_line(first_cell: Said, unreachable: str) -> None:
    said = first_cell(_instead_of_github(unreachable))
    assert re.fullmatch(r"UsageError: .* a network.* failed: fatal: unable to access .*\n", said)


def test_a_private_repository_is_named_as_a_reason(first_cell: Said, private: str) -> None:
    said = first_cell(_instead_of_github(private))
    assert re.fullmatch(r"UsageError: .* a public repository.* failed: fatal: could not read Username .*\n", said)


def test_git_is_named_where_it_is_missing_in_a_jupyter_of_today(first_cell: Said, tmp_path: Path) -> None:
    _new(tmp_path / "runtime", PREINSTALLED)
    said = first_cell({"PATH": str(tmp_path)})
    assert re.fullmatch(r"UsageError: .* git .* failed: ERROR: [\w ]+ .*'git'[^\033]*\n", said)
