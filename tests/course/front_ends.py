"""What the tests of Jupyter's front ends share: a server on a folder, and a picture that has to follow its slider."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import nbformat
import pytest
from nbformat import NotebookNode
from playwright.sync_api import Locator

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"
MINUTE = 60_000

# Of JupyterLab, Notebook 7 and the classic Notebook alike.
OPTIONS = ["--no-browser", "--allow-root", "--ip=127.0.0.1"]
FOLDERS = {
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    "IPYTHONDIR": "ipython",
}
# A picture that a widget replaces while it is decoded can't be: then the new one is.
PIXELS = """async image => {
    for (let tries = 0; tries < 20; tries++) {
        if (await image.decode().then(() => true, () => false)) break;
        await new Promise(done => setTimeout(done, 50));
    }
    await image.decode();
    const canvas = document.createElement('canvas');
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    canvas.getContext('2d').drawImage(image, 0, 0);
    return canvas.toDataURL();
}"""


@contextmanager
def served(
    command: Sequence[str | Path], folder: Path, home: Path, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """The address of one of Jupyter's applications on a folder; all that it writes by itself goes into `home`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = home / "log"
    with log.open("w") as file:
        server = subprocess.Popen(
            [*command, *OPTIONS, f"--port={port}", "--port-retries=0"],
            cwd=folder,
            env=os.environ | {name: str(home / path) for name, path in FOLDERS.items()} | (environment or {}),
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/api", server, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(timeout=30)


def _wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(300):
        try:
            with urlopen(url):
                return
        except OSError:
            time.sleep(0.2)
        if server.poll() is not None:
            break
    pytest.fail(f"the server did not start:\n{log.read_text()}")


@contextmanager
def changed(slider: Locator) -> Iterator[Locator]:
    """The box of a slider, whose picture has to be another one after the block."""
    box = slider.locator("xpath=ancestor::*[contains(@class, 'widget-vbox')][descendant::img][1]")
    picture = box.locator("figure img")
    before = picture.evaluate(PIXELS)
    yield box
    for _ in range(100):
        if picture.evaluate(PIXELS) != before:
            return
        time.sleep(0.1)
    pytest.fail(f"the slider {box.inner_text()!r} moved and its picture stayed the same")


def up_to_the_first_slider(notebook: Path) -> NotebookNode:
    """The notebook without what comes after."""
    shortened = nbformat.read(notebook, as_version=4)
    sliders = (i for i, cell in enumerate(shortened.cells) if cell.cell_type == "code" and "explore(" in cell.source)
    del shortened.cells[next(sliders) + 1 :]
    return shortened
