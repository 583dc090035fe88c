"""`make update`, in real repositories: a course, a learner's clone of it, and what both have changed meanwhile."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from editions import ROOT

ANSWERED, NEW = "my answer\n", "the new notebook\n"


class Repository:
    """A folder with git in it; nobody's settings but ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def git(self, *arguments: str) -> str:
        names = {"GIT_AUTHOR_NAME": "a", "GIT_COMMITTER_NAME": "a", "GIT_AUTHOR_EMAIL": "", "GIT_COMMITTER_EMAIL": ""}
        settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        command = ["git", "-c", "init.defaultBranch=main", *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=os.environ | names | settings, capture_output=True, text=True, check=True
        ).stdout

    def write(self, files: dict[str, str]) -> None:
        for path, text in files.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_text(text)

    def commit(self, files: dict[str, str]) -> None:
        self.write(files)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "a")

    def read(self, path: str) -> str:
        return (self.folder / path).read_text()

    def update(self) -> subprocess.CompletedProcess:
        """What a learner types."""
        return subprocess.run(
            [sys.executable, "tools/update.py"], cwd=self.folder, capture_output=True, text=True, check=False
        )

    def kept(self) -> dict[str, str]:
        """What was moved, by its path below the folder of the day."""
        files = [path for path in (self.folder / "mine").rglob("*") if path.is_file()]
        return {"/".join(path.relative_to(self.folder / "mine").parts[1:]): path.read_text() for path in files}


@pytest.fixture
def course(tmp_path: Path) -> Repository:
    """Two notebooks, and the tool."""
    course = Repository(tmp_path / "course")
    (course.folder / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "tools" / "update.py", course.folder / "tools")
    shutil.copy(ROOT / ".gitignore", course.folder)
    course.git("init", "--quiet")
    course.commit({"notebooks/01.ipynb": "one\n", "notebooks/02 é.ipynb": "two\n", "README.md": "read\n"})
    return course


@pytest.fixture
def learner(course: Repository, tmp_path: Path) -> Repository:
    """A clone of the course."""
    course.git("clone", "--quiet", str(course.folder), str(tmp_path / "learner"))
    return Repository(tmp_path / "learner")


def test_what_both_changed_is_kept_and_what_one_changed_stays(course: Repository, learner: Repository) -> None:
    learner.write({"notebooks/01.ipynb": "mine\n", "notebooks/02 é.ipynb": ANSWERED, "notebooks/03.ipynb": "own\n"})
    course.commit({"notebooks/02 é.ipynb": NEW, "notebooks/03.ipynb": "three\n", "notebooks/04.ipynb": "four\n"})
    with pytest.raises(subprocess.CalledProcessError):  # what would become of it otherwise
        learner.git("pull", "--quiet", "--ff-only")
    run = learner.update()
    assert run.returncode == 0, run.stderr
    assert "02 é.ipynb" in run.stdout and "03.ipynb" in run.stdout and "01.ipynb" not in run.stdout
    now = [learner.read(f"notebooks/{name}.ipynb") for name in ("01", "02 é", "03", "04")]
    assert now == ["mine\n", NEW, "three\n", "four\n"]
    assert learner.kept() == {"notebooks/02 é.ipynb": ANSWERED, "notebooks/03.ipynb": "own\n"}
    assert learner.git("rev-parse", "HEAD") == course.git("rev-parse", "HEAD")
    assert learner.git("status", "--porcelain", "-z") == " M notebooks/01.ipynb\0"


def test_it_goes_on_from_update_to_update(course: Repository, learner: Repository) -> None:
    for answer in ("first\n", "second\n"):
        learner.write({"notebooks/01.ipynb": answer})
        learner.git("add", "--all")
        course.commit({"notebooks/01.ipynb": f"after {answer}"})
        assert learner.update().returncode == 0
        assert learner.read("notebooks/01.ipynb") == f"after {answer}"
    kept = [path.read_text() for path in (learner.folder / "mine").rglob("*.ipynb")]
    assert sorted(kept) == ["first\n", "second\n"]
    assert learner.update().stdout == "The course is up to date.\n"


def test_what_a_learner_deleted_comes_back_only_when_it_is_new(course: Repository, learner: Repository) -> None:
    for name in ("01", "02 é"):
        (learner.folder / "notebooks" / f"{name}.ipynb").unlink()
    course.commit({"notebooks/01.ipynb": NEW})
    assert learner.update().returncode == 0
    assert learner.read("notebooks/01.ipynb") == NEW
    assert not (learner.folder / "notebooks" / "02 é.ipynb").exists() and learner.kept() == {}


@pytest.mark.parametrize("obstacle", ["commits of one's own", "no network", "no clone"])
def test_where_it_can_not_go_forward_nothing_is_changed(course: Repository, learner: Repository, obstacle: str) -> None:
    if obstacle == "commits of one's own":
        learner.commit({"README.md": "mine\n"})
    course.commit({"notebooks/01.ipynb": NEW})
    learner.write({"notebooks/01.ipynb": ANSWERED})
    if obstacle == "no network":
        learner.git("remote", "set-url", "origin", str(learner.folder / "nowhere"))
    elif obstacle == "no clone":
        learner.git("remote", "remove", "origin")
    run = learner.update()
    assert run.returncode == 1 and run.stderr.startswith("Nothing was updated: ")
    assert "Traceback" not in run.stderr
    assert learner.read("notebooks/01.ipynb") == ANSWERED and learner.kept() == {}
