"""Bring the course up to date, and lose nothing: python tools/update.py, or make update.

Running a notebook changes its file. Where the course has changed the same file since, yours is moved to the folder
`mine`, under today's date, and the new one takes its place. All other files of yours stay as they are.
"""

import subprocess
import sys
from datetime import date
from itertools import count
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "mine"


def git(*arguments: str) -> str:
    """What git prints; what it complains of ends the program, with its own words."""
    run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    if run.returncode:
        sys.exit(f"Nothing was updated: git {arguments[0]} says\n{run.stderr.strip()}")
    return run.stdout


def paths(listing: str) -> list[str]:
    """The paths that git lists with -z."""
    return [path for path in listing.split("\0") if path]


def main() -> None:
    """Fetch; move out of the way what both sides have changed; go forward."""
    git("fetch", "--quiet")
    if git("rev-list", "@{upstream}..HEAD"):
        sys.exit("Nothing was updated: there are commits of your own here. `git pull` merges them.")
    theirs = paths(git("diff", "-z", "--name-only", "--no-renames", "HEAD", "@{upstream}"))
    if not theirs:
        print("The course is up to date.")
        return
    changed = paths(git("diff", "-z", "--name-only", "--no-renames", "HEAD"))
    added = paths(git("ls-files", "-z", "--others"))
    folder = next(each for n in count(1) if not (each := KEPT / f"{date.today()}-{n}").exists())
    for path in sorted({*theirs} & {*changed, *added}):
        if (ROOT / path).exists():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).rename(folder / path)
            print(f"Yours is now {(folder / path).relative_to(ROOT)}")
        if path in changed:
            git("checkout", "--quiet", "HEAD", "--", path)
    git("merge", "--quiet", "--ff-only", "@{upstream}")
    print("The course is up to date now.")


if __name__ == "__main__":
    main()
