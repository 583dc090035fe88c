"""The pages' snippets run as a reader would run them: Python in order, a namespace for each page; shell line by line.

What a page prints must be what the comment beside `print` says; "…" there stands for anything. A Python snippet whose
first line names a file, as in `# train.py`, is written to it, for a shell line to start.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from editions import ROOT, project, topics
from PIL import Image
from rewrite_links import PAGES, README

from rvq_tutorial.course import data

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+\.py)\n")
# Not for a test of pages to do; tests/course/test_assignments.py does what nbgrader is asked for.
ELSEWHERE = re.compile(r"(git|cd|cp|sudo|conda|jupyter|python3 -m venv|\.venv/bin/pre-commit|(\S+/)?nbgrader) ")
# While Python shuts down, a thread of gloo's may want it once more, and abort (pytorch/pytorch, pull request 179291).
RUN_AND_LEAVE = "import os, runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__'); os._exit(0)"
PIP = re.compile(r"(\.venv/bin/)?pip install ")


class Snippet(NamedTuple):
    language: str
    code: str
    line: int  # of the page, where the code begins


def snippets(page: Path) -> Iterator[Snippet]:
    """Every fenced block of a page."""
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        yield Snippet(match[1], match[2], text.count("\n", 0, match.start(2)) + 1)


def run_python(snippet: Snippet, page: Path, names: dict[str, Any], said: pytest.CaptureFixture[str]) -> None:
    """Run it with what the page's earlier snippets defined, and compare what it prints."""
    if file := FILE.match(snippet.code):
        Path(file[1]).write_text(snippet.code, encoding="utf-8")
        return
    said.readouterr()
    exec(compile("\n" * (snippet.line - 1) + snippet.code, page, "exec"), names)
    printed = said.readouterr().out.splitlines()
    promised = re.findall(r"^print\(.*\)  # (.*)$", snippet.code, re.MULTILINE)
    place = f"{page.name}, line {snippet.line}"
    assert len(printed) == len(promised), f"{place}: every print needs a comment with what it prints; got {printed}"
    for line, promise in zip(printed, promised, strict=True):
        pattern = ".*".join(map(re.escape, promise.split("…")))
        assert re.fullmatch(pattern, line), f"{place}: {promise!r} is promised, {line!r} is printed"


def run_shell(snippet: Snippet, page: Path) -> None:
    """Run what needs no more than what is installed; of the rest, see that it exists."""
    for line in snippet.code.splitlines():
        for words in commands(line):
            command = shlex.join(words)
            if words[0] == "torchrun":
                *options, file = words[1:]
                start = [sys.executable, "-m", "torch.distributed.run", *options, "--no-python"]
                run([*start, sys.executable, "-c", RUN_AND_LEAVE, file])
            elif words[:2] == ["python", "-m"] and words[2].startswith("rvq_tutorial."):
                run([sys.executable, *words[1:]])
            elif not exists(command):
                pytest.fail(f"{page.name}, below line {snippet.line}: nothing here knows the command {command}")


def commands(line: str) -> Iterator[list[str]]:
    """The words of each command of a shell line."""
    words: list[str] = []
    for word in [*shlex.split(line, comments=True), "&&"]:
        if word != "&&":
            words.append(word)
        elif words:
            yield words
            words = []


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def exists(command: str) -> bool:
    """Would the command find what it names: a target, a tool, a test, a notebook, an extra?"""
    words = shlex.split(command)
    if words[0] == "make":
        return all(target in targets() for target in words[1:])
    if words[0] == ".venv/bin/python":
        places = [word.partition("::")[0] for word in words[1:] if "/" in word and not word.startswith("build/")]
        named = {word for word in words[1:] if re.fullmatch(r"\d\d_\w+", word)}
        modules = {following for word, following in pairwise(words) if word == "-m"}
        runnable = {"pytest", *(path.parent.name for path in ROOT.glob("*/__main__.py"))}
        return all((ROOT / place).exists() for place in places) and named <= set(topics()) and modules <= runnable
    if PIP.match(command):
        extras = re.findall(r"\[([\w,]+)\]", command)
        return {name for each in extras for name in each.split(",")} <= set(project()["optional-dependencies"])
    return bool(ELSEWHERE.match(command + " "))


def targets() -> set[str]:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return set(phony.split())


@pytest.fixture
def a_readers_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder but for a small photo; and torch.compile stops before machine code, as in test_compile."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    crop = data.photos().held_out["chelsea"][:, 80:144, 130:226]
    Image.fromarray((crop.movedim(0, -1) * 255).byte().numpy()).save("photo.jpg")
    torch.manual_seed(0)
    return tmp_path


@pytest.mark.filterwarnings("error")  # the one about random codewords, too
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_snippet_runs(page: Path, a_readers_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for snippet in snippets(page):
        if snippet.language == "python":
            run_python(snippet, page, names, capsys)
        else:
            assert snippet.language == "sh", f"{page.name}, line {snippet.line}: a snippet is python or sh"
            run_shell(snippet, page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_the_text_exists(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    found = re.findall(r"`((?:make|\.venv/bin/\w+) [^`]+)`", text)
    assert not [command for command in found if not exists(command)]


def test_the_pages_have_snippets() -> None:
    assert {snippet.language for snippet in snippets(README)} == {"python", "sh"}


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("print(1 + 1)  # 3\n", "'3' is promised, '2' is printed"),
        ("print(1 + 1)\n", "needs a comment"),
        ("for i in range(2):\n    undefined\n", "undefined"),
    ],
)
def test_a_broken_snippet_is_seen(code: str, fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((AssertionError, NameError), match=fault):
        run_python(Snippet("python", code, 1), README, {}, capsys)


@pytest.mark.parametrize(
    "line",
    [
        "make tests",
        ".venv/bin/python tools/build_notebook.py",
        ".venv/bin/python tools/build_notebooks.py 04_residual",
        ".venv/bin/python -m bench",
        "pip install 'rvq-tutorial[kodec]'",
        "rm -rf build",
    ],
)
def test_a_command_that_does_not_exist_is_seen(line: str) -> None:
    with pytest.raises(pytest.fail.Exception, match="nothing here knows the command"):
        run_shell(Snippet("sh", f"{line}  # a remark\n", 1), README)
