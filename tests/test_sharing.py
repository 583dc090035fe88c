"""Kernels that share a machine: how many threads each has, and how long these wait in a loop."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from editions import ROOT
from jupyter_client.manager import start_new_kernel

sys.path.insert(0, str(ROOT))
from benchmarks import busy

# In JupyterLab's place: one kernel, as its server would start it, that says what it finds.
SERVER = f"""#!{sys.executable}
from jupyter_client.manager import start_new_kernel

manager, client = start_new_kernel()
code = "import os; print([f'{{name}}={{value}}' for name, value in os.environ.items()])"
client.execute_interactive(code, store_history=False)
manager.shutdown_kernel(now=True)
"""


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A .venv in which everything is installed already, so that `make lab` has nothing to do but to begin."""
    for name, content in {"pip": "", "jupyter": SERVER}.items():
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(content, encoding="utf-8")
        script.chmod(0o755)
    (tmp_path / ".has-lab").touch()
    return tmp_path


def test_a_kernel_of_make_lab_gives_cores_and_memory_back(environment: Path) -> None:
    lab = subprocess.run(["make", "lab", f"VENV={environment}"], cwd=ROOT, capture_output=True, text=True)
    assert lab.returncode == 0, lab.stderr
    for name, value in busy.SETTINGS[busy.LAB].items():
        assert f"'{name}={value}'" in lab.stdout


def test_the_tests_and_their_kernels_have_one_thread_each() -> None:
    assert torch.get_num_threads() == 1
    manager, client = start_new_kernel()
    try:
        heard: list[str] = []
        client.execute_interactive(
            "import os; print(os.environ['OMP_NUM_THREADS'])",
            output_hook=lambda message: heard.append(message["content"].get("text", "")),
        )
        assert "".join(heard) == "1\n"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_nbgraders_kernels_have_one_thread_each() -> None:
    """They inherit what its configuration sets."""
    script = (
        "from traitlets.config import PyFileConfigLoader; PyFileConfigLoader('tools/nbgrader_config.py').load_config()"
    )
    script += "; import os; print(os.environ['OMP_NUM_THREADS'])"
    bare = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    said = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=bare, capture_output=True, text=True)
    assert said.stdout == "1\n", said.stderr
