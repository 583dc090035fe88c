"""Checks remember what they accept beside the notebook: here, in a folder that each test has to itself."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the checks run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
