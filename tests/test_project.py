"""What the project's own files promise each other: one address, one list of dependencies, links that lead somewhere."""

import re
import subprocess
from importlib import import_module
from itertools import pairwise, zip_longest
from pathlib import Path

import catalogues
import fidelity
import nbformat
import po
import pytest
import reading
import texts
import yaml
from babel.messages.catalog import Message
from editions import NOTEBOOKS, ROOT, project, repository
from languages import LANGUAGES, SOURCES, folder, speaking
from markdown_it import MarkdownIt
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rewrite_links import BUILT, PAGES, README, TRANSLATED, WITH_LINKS, rewritten, timed

import rvq_tutorial

CHINESE = ROOT / "README.zh-CN.md"
READMES = [README, *TRANSLATED]
CONDA_NAMES = {"pytorch": "torch"}


def _texts() -> dict:
    """Every file of the repository that is text, also those not yet committed."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in names.split("\0") if (ROOT / name).is_file()]
    contents = {path: path.read_bytes() for path in paths}
    return {path: content.decode() for path, content in contents.items() if b"\0" not in content}


def _requirements(*extras: str) -> dict[str, Requirement]:
    """What the package and these extras of it need, by name; what is said last of one holds."""
    wanted = [
        *project()["dependencies"],
        *(name for extra in extras for name in project()["optional-dependencies"][extra]),
    ]
    return {each.name: each for each in map(Requirement, wanted) if each.name != project()["name"]}


def test_the_environment_of_conda_and_binder_is_that_of_a_learner() -> None:
    wanted = _requirements("codec", "course", "lab")
    del wanted["constriction"]  # not known to be on conda-forge; pip brings it
    *conda, pip = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    assert pip == {"pip": ["-e .[course]"]}
    found = [Requirement(name) for name in conda if not name.startswith("python=") and name != "pip"]
    assert {(CONDA_NAMES.get(each.name, each.name), each.specifier) for each in found} == {
        (each.name, each.specifier) for each in wanted.values()
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # that it warns of is its own
def test_binder_builds_our_environment_with_the_python_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    from repo2docker.app import Repo2Docker
    from repo2docker.buildpacks import CondaBuildPack

    monkeypatch.chdir(ROOT)
    pack = next(pack for each in Repo2Docker().buildpacks if (pack := each("")).detect())
    pack.platform = "linux/amd64"
    assert isinstance(pack, CondaBuildPack)
    assert pack.environment_yaml["dependencies"][0] == f"python={pack.python_version}"
    assert pack.python_version in SpecifierSet(project()["requires-python"])
    assert f"conda/environment.py-{pack.python_version}-linux-64.lock" in pack.get_build_script_files()
    scripts = "".join(script for _, script in pack.get_assemble_scripts())  # those that run with our files in place
    assert "environment.yml" in scripts


def test_whatever_the_course_depends_on_says_how_old_it_may_be() -> None:
    """Those are the versions with which `make versions` runs the tests."""
    extras = project()["optional-dependencies"]
    wanted = map(Requirement, [*project()["dependencies"], *extras["codec"], *extras["course"]])
    bounds = {each.name: [bound.operator for bound in each.specifier] for each in wanted if not each.extras}
    assert set(map(tuple, bounds.values())) == {(">=",)}, bounds
    python = [name.rpartition(" ")[2] for name in project()["classifiers"] if " :: 3." in name]
    assert project()["requires-python"] == f">={python[0]}"


def test_the_workflows_run_commands_that_exist() -> None:
    targets = re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    sessions = re.findall(r"@nox\.session.*\ndef (\w+)", (ROOT / "noxfile.py").read_text(encoding="utf-8"))
    called = {"tests": [], "weekly": []}
    for workflow, commands in called.items():
        text = (ROOT / ".github" / "workflows" / f"{workflow}.yml").read_text(encoding="utf-8")
        content = yaml.safe_load(text)
        assert content["permissions"] == {"contents": "read"}
        for job in content["jobs"].values():
            assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in job["steps"] if "uses" in step)
            for command in [step["run"] for step in job["steps"] if "run" in step]:
                matrix = job.get("strategy", {}).get("matrix", {})
                name = (re.findall(r"{{ matrix\.(\w+) }}", command) or [""])[0]
                commands += [command.replace(f"${{{{ matrix.{name} }}}}", each) for each in matrix.get(name, [""])]
    known = {f"make {target}" for target in targets}
    known |= {f'pipx run --spec "nox[uv]" nox --session {session}' for session in sessions}
    assert called["tests"] == ["make test-all"]
    assert set(called["weekly"]) <= known, set(called["weekly"]) - known
    assert set(sessions) <= {command.rpartition(" ")[2] for command in called["weekly"]}
    assert "cache" not in re.sub("#.*", "", text)  # weekly, everything is installed anew


def test_every_link_to_the_repository_is_the_one_in_pyproject() -> None:
    for path in WITH_LINKS:
        text = path.read_text(encoding="utf-8")
        assert text == rewritten(text), f"{path.name}: run tools/rewrite_links.py"


def test_every_notebook_has_its_own_badge_and_installs_this_repository() -> None:
    for path in BUILT:
        text = path.read_text(encoding="utf-8")
        place = path.relative_to(ROOT).as_posix()
        assert f"colab.research.google.com/github/{repository()}/blob/main/{place})" in text
        assert f"git+https://github.com/{repository()}" in text


def test_the_address_stands_nowhere_else() -> None:
    owner, name = repository().split("/")
    address = re.compile(rf"(github\.com|/github|/gh)/({owner}/[\w-]+|[\w-]+/{name}\b)", re.IGNORECASE)
    for path, text in _texts().items():
        found = {match[2] for match in address.finditer(text)}
        allowed = {repository()} if path in {*WITH_LINKS, ROOT / "pyproject.toml"} else set()
        assert found <= allowed, f"{path.relative_to(ROOT)} has a hard-coded address: {found - allowed}"


def _local_links(page: Path) -> set[str]:
    """Where a page leads to within the repository, from its own folder."""
    links = re.findall(r"\]\(([^)#\s]+)|(?:src|href)=\"([^\"#]+)\"", page.read_text(encoding="utf-8"))
    return {link for pair in links for link in pair if link and not re.match(r"\w+:", link)}


def test_the_pages_link_to_what_exists_and_the_readmes_to_every_notebook() -> None:
    to_come = tuple(f"notebooks/{language}/" for language in catalogues.languages() if language not in LANGUAGES)
    for page in (*PAGES, *TRANSLATED, ROOT / "CHANGELOG.md"):
        missing = [link for link in _local_links(page) if not (page.parent / link).exists()]
        assert not [link for link in missing if not link.startswith(to_come)], page.name
    linked = {link for readme in READMES for link in _local_links(readme)}
    assert {path.relative_to(ROOT).as_posix() for path in BUILT} <= linked


def test_every_page_is_reached_from_the_readme() -> None:
    reached = {(README.parent / link).resolve() for link in _local_links(README)}
    assert set(PAGES) - {README} <= reached


@pytest.mark.parametrize("readme", READMES, ids=lambda readme: readme.name)
def test_the_readme_states_the_minutes_that_each_notebook_takes(readme: Path) -> None:
    text = readme.read_text(encoding="utf-8")
    assert len(re.findall(r"\| \d+ \+ \d+ \|", text)) == len(list(NOTEBOOKS.glob("*.ipynb")))
    assert text == timed(text), "run tools/rewrite_links.py"
    assert timed(re.sub(r"\d+ \+ \d+", "1 + 1", text)) == text


def _pieces(readme: Path) -> list[tuple[str, str]]:
    """Headings, paragraphs, items, a table's cells and snippets, each with what it is.

    Apart are the first line, which leads to the other languages, the comments in snippets, and a language's folder.
    """
    text = readme.read_text(encoding="utf-8").partition("\n")[2].replace("(README.zh-CN.md)", "(README.md)")
    tokens = MarkdownIt().enable("table").parse(re.sub(r"notebooks/[a-z][a-z]/", "notebooks/", text))
    pieces = []
    for before, token in pairwise(tokens):
        if token.type == "inline" and token.content:
            pieces.append((f"{before.tag} {before.level}", " ".join(token.content.split())))
        elif token.type == "fence":
            pieces.append((token.info, re.sub(r" *# .*", "", token.content)))
    return pieces


def _out_of_step(english: Path, translated: Path) -> list[tuple[str, list[str]]]:
    """What a translated README has not as the English one has it: snippets, links, code, numbers, marks, terms."""
    found, terms = [], fidelity.terms(SOURCES / "zh" / "terms.csv")
    for (kind, text), (other_kind, other) in zip_longest(_pieces(english), _pieces(translated), fillvalue=("", "")):
        if kind != other_kind:
            return [*found, (text[:60], [f"{kind!r} stands where {other_kind!r} does: {other[:60]}"])]
        if kind in ("sh", "python"):
            faults = ["has another snippet"] if text != other else []
        else:
            has_words = texts.has_words(re.sub(r"\]\(\S+\)", "]", text))
            entry = Message(text, other, user_comments=[] if has_words else [fidelity.SAME])
            faults = [*fidelity.faults(entry), *fidelity.other_terms(entry, terms)]
        found += [(text[:60], faults)] if faults else []
    return found


def test_the_chinese_readme_is_in_step_with_the_english_one() -> None:
    assert _out_of_step(README, CHINESE) == []
    for readme, other in ((README, CHINESE), (CHINESE, README)):
        assert f"]({other.name})" in readme.read_text(encoding="utf-8").partition("\n")[0]


@pytest.mark.parametrize(
    ("old", "new", "seen"),
    [
        ("\n## Symbols\n", "\n### Symbols\n", "'h2 0'|'h3 0'"),
        ("\n- **VS Code.**", "\n- **Emacs.** As well.\n- **VS Code.**", "other code"),
        ("num_quantizers=8, ", "num_quantizers=4, ", "another snippet"),
        ("  # from the first two stages alone", "", "^$"),
        ("](docs/package.md)", "](docs/others.md)", "other links"),
        ("| 45 + 38 |", "| 45 + 39 |", "other numbers"),
        ("| a vector that", "| `a` vector that", "other code"),
        ("the codewords; together", "the perplexity; together", "has perplexity, but not 困惑度"),
    ],
)
def test_an_edited_readme_waits_for_the_chinese_one(old: str, new: str, seen: str, tmp_path: Path) -> None:
    text, edited = README.read_text(encoding="utf-8"), tmp_path / "README.md"
    assert old in text
    edited.write_text(text.replace(old, new), encoding="utf-8")
    found = _out_of_step(edited, CHINESE)
    assert re.search(seen, " ".join(fault for _, faults in found for fault in faults)), found


def test_the_course_map_asks_the_notebooks_questions() -> None:
    """As they are translated there."""
    words = po.words(catalogues.path_of("judging", "zh"))
    asked = re.compile(r"^\| \[(\d\d)\].*?\| (.*?) \|", re.MULTILINE)
    english, chinese = (asked.findall(readme.read_text(encoding="utf-8")) for readme in (README, CHINESE))
    assert len(english) == len(list(NOTEBOOKS.glob("*.ipynb")))
    assert [words[" · ".join(row)] for row in english] == [" · ".join(row) for row in chinese]


def test_every_notebook_is_read_in_45_minutes() -> None:
    for language in LANGUAGES:
        with speaking(language):
            for path in folder().glob("*.ipynb"):
                assert round(reading.minutes(nbformat.read(path, as_version=4))) <= 45, path


def test_one_table_says_where_every_module_and_floor_lives() -> None:
    package = ROOT / "rvq_tutorial"
    links = {(ROOT / "docs" / link).resolve() for link in _local_links(ROOT / "docs" / "package.md")}
    modules = {path for path in package.glob("*.py") if path.name != "__init__.py"}
    floors = {path.parent for path in package.glob("*/__init__.py")}
    assert modules <= links
    assert floors <= links | {path.parent for path in links}


def test_the_citation_is_of_this_version_and_address() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # what its schema asks for
    assert citation["version"] == rvq_tutorial.__version__
    assert citation["repository-code"] == project()["urls"]["Repository"]
    assert citation["license"] == project()["license"]


def test_the_changelog_has_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert text.index("\n## [Unreleased]\n") < text.index(f"\n## [{rvq_tutorial.__version__}] – ")


def test_the_changelog_leads_to_names_that_exist() -> None:
    rows = re.findall(r"^ *\| `[^|]+` \| `([^`]+)`.*\|$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert len(rows) >= 5
    for now in rows:
        if now.startswith("from "):
            exec(now, {})
        else:
            module, _, name = now.rpartition(".")
            assert hasattr(import_module(module), name), now


def test_a_commit_is_held_to_what_make_test_looks_at_first() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    assert [(repository["repo"], hook["language"]) for repository in config["repos"] for hook in hooks] == [
        ("local", "system")
    ]
    assert [hook["entry"] for hook in hooks] == ["make lint"]
    assert re.search(r"^test: lint\b", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
