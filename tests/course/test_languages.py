"""Other languages: their catalogues are whole, in step and true to the English; the package speaks them.

A language is held to all of this once its notebooks are built. What is translated of the others is held to it too.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import catalogues
import fidelity
import font
import nbformat
import po
import pytest
import torch
from babel.messages.catalog import Message
from editions import learner_edition, topics
from fidelity import other_terms
from languages import COMMON, ENGLISH, LANGUAGES, ROOT, SOURCES, speaking

from rvq_tutorial import language as package
from rvq_tutorial.arguments import check_vectors
from rvq_tutorial.course import languages, plots, use
from rvq_tutorial.course.plots.figure import titled

BEGUN = catalogues.languages()
each_begun = pytest.mark.parametrize("language", BEGUN)
SOURCE = """\
# %% [markdown]
# # Halves
#
# It takes {{run_time}}, and reading {{reading_time}}.
#
# One half of everything.

# %%
curves = {"our half": [1, 2], "held_out": [3]}
print(f"the end: {curves['our half'][0]}")  # of the curve

# %% tags=["claim"]
assert curves["our half"]
"""


@pytest.fixture(autouse=True)
def english_afterwards() -> Iterator[None]:
    """Whatever a test chooses, the next one begins in English."""
    yield
    use(ENGLISH)


# What is translated


@pytest.mark.parametrize("name", catalogues.templates())
def test_a_language_that_is_built_has_every_text(name: str) -> None:
    assert [each for language in LANGUAGES if language != ENGLISH for each in catalogues.lacking(name, language)] == []


@cache
def _done(language: str) -> list[tuple[str, Message]]:
    """Every entry that is translated, with the name of its catalogue."""
    names = catalogues.templates()
    entries = ((name, entry) for name in names for entry in po.read(catalogues.path_of(name, language)))
    return [(name, entry) for name, entry in entries if entry.string and not entry.fuzzy]


@each_begun
def test_a_translation_keeps_facts_code_formulas_links_numbers_and_marks(language: str) -> None:
    assert [(name, entry.id[:60], fault) for name, entry in _done(language) for fault in fidelity.faults(entry)] == []


@each_begun
def test_a_translation_takes_the_terms_of_its_list(language: str) -> None:
    terms = fidelity.terms(SOURCES / language / "terms.csv")
    faults = [(name, entry.id[:60], list(other_terms(entry, terms))) for name, entry in _done(language)]
    assert [each for each in faults if each[-1]] == []


@each_begun
@pytest.mark.parametrize("topic", topics())
def test_a_notebook_is_the_same_program_in_each_language(topic: str, language: str) -> None:
    def trees() -> Iterator[ast.AST]:
        for cell in learner_edition(topic).cells:
            if cell.cell_type == "code" and cell.id != "bootstrap":
                yield ast.parse(cell.source)

    words = po.words(*(catalogues.path_of(name, language) for name in (topic, COMMON)))
    english = list(trees())
    with speaking(language):
        assert all(same(*pair, words) for pair in zip(english, trees(), strict=True))


def same(english: object, other: object, words: dict[str, str]) -> bool:
    """Whether two syntax trees differ in nothing but words: of an f-string the facts are kept, in whatever order."""
    if type(english) is not type(other):
        return False
    if isinstance(english, ast.JoinedStr):
        facts, left = ([p for p in tree.values if isinstance(p, ast.FormattedValue)] for tree in (english, other))
        for fact in facts:
            if (found := next((each for each in left if same(fact, each, words)), None)) is None:
                return False
            left.remove(found)
        return not left
    if isinstance(english, ast.FormattedValue):
        formats = {tree.format_spec and ast.dump(tree.format_spec) for tree in (english, other)}
        if len(formats) > 1:
            return False
    if isinstance(english, ast.AST):
        pairs = zip(ast.iter_fields(english), ast.iter_fields(other), strict=True)
        return all(same(mine, yours, words) for (_, mine), (_, yours) in pairs)
    if isinstance(english, list):
        return len(english) == len(other) and all(same(*pair, words) for pair in zip(english, other, strict=True))
    return english == other or (isinstance(english, str) and words.get(english) == other)


@pytest.mark.parametrize(
    ("changed", "is_same"),
    [
        ("f(f'{b} 与 {a:.2f}', {'一': 1})", True),
        ("f(f'{b} 与 {a:.3f}', {'一': 1})", False),
        ("f(f'{b} 与 {a:.2f} {a}', {'一': 1})", False),
        ("f(f'{b} 与 {a:.2f}', {'二': 1})", False),
        ("g(f'{b} 与 {a:.2f}', {'一': 1})", False),
        ("f(f'{b} 与 {a:.2f}', {'一': 2})", False),
    ],
)
def test_another_program_is_seen(changed: str, is_same: bool) -> None:
    assert same(ast.parse("f(f'{a:.2f} and {b}', {'one': 1})"), ast.parse(changed), {"one": "一"}) == is_same


@each_begun
def test_pictures_have_every_letter_that_is_translated(language: str) -> None:
    letters = font.plain().union(*map(font.known, languages.LOCALE.glob(f"{language}/*.otf")))
    assert {letter for _, entry in _done(language) for letter in entry.string} - letters == set(), "run `make font`"


# How it is held to that


@pytest.mark.parametrize(
    ("text", "translation", "fault"),
    [
        ("One half", "", "not translated"),
        ("One half", "One half", "English text"),
        ("{a:.2f} halves", "{a:.3f} 半", r"other facts: without '\{a:.2f\}'; with '\{a:.3f\}'"),
        ("Call `half(x)`", "调用 `half`", "other code"),
        ("As $x_1$ is", "$x_2$ 如此", "other formulas"),
        ("See [it](a.md)", "见 [它](b.md)", "other links"),
        ("1,024 halves, 3 wholes", "1024 半，3 整", "other numbers: without '1,024'; with '1024'"),
        ("**Two** halves", "两半", "other bold marks"),
        ("two\nhalves", "两半", "other new lines"),
        ("a <b>half</b>", "一半", "other tags"),
        ("Exercise ★☆☆", "练习 ★★☆", "other stars"),
    ],
)
def test_what_a_translation_loses_is_named(text: str, translation: str, fault: str) -> None:
    assert re.search(fault, " ".join(fidelity.faults(Message(text, translation))))


def test_what_a_translation_may_change_is_let_be() -> None:
    done = [
        ("{a} of {b}", "{b} 中的 {a}"),
        ("{a} and {a}", "{a}"),
        (r"$$\text{half}\,x$$", r"$$\text{一半}\,x$$"),
        ("x = 1", "x = 1"),
    ]
    meant = Message("Chebyshev", "Chebyshev", user_comments=[fidelity.SAME])
    assert [fault for entry in (*(Message(*pair) for pair in done), meant) for fault in fidelity.faults(entry)] == []


def test_a_term_is_held_and_introduced() -> None:
    terms = [fidelity.Term("codebook", "码本", "yes", "")]
    assert list(other_terms(Message("Two codebooks", "两本词典"), terms)) == ["has codebook, but not 码本"]
    assert not list(other_terms(Message("`codebook` is of *The Codebook*", "`codebook` 来自"), terms))
    assert not list(other_terms(Message("pass codebook", "传入 codebook"), terms))
    assert list(fidelity.not_introduced("# 码本\n一个码本，再一个码本（codebook）", terms))
    assert not list(fidelity.not_introduced("# 码本\n一个**码本**（codebook），再一个码本", terms))


# How a language comes about


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A course of one notebook, which is also built in a language of its own: capitals."""
    root = tmp_path_factory.mktemp("course")
    (root / "notebooks" / "sources" / "xx").mkdir(parents=True)
    (root / "notebooks" / "sources" / "01_halves.py").write_text(SOURCE, encoding="utf-8")
    (root / "notebooks" / "sources" / "xx" / "terms.csv").write_text("english,other,first,note\n")
    shutil.copytree(ROOT / "tools", root / "tools")
    shutil.copy(ROOT / "pyproject.toml", root)
    heavy = shutil.ignore_patterns("weights", "locale", "__pycache__")
    shutil.copytree(ROOT / "rvq_tutorial", root / "rvq_tutorial", ignore=heavy)
    line = root / "tools" / "languages.py"
    line.write_text(re.sub(r"(?m)^LANGUAGES = .*$", 'LANGUAGES = (ENGLISH, "xx")', line.read_text(encoding="utf-8")))
    run(root, "import catalogues", "catalogues.bring_in_step('xx')")
    for path in root.rglob("xx/*.po"):
        path.write_text(po.written(map(_in_capitals, po.read(path)), "xx"), encoding="utf-8")
    return root


def run(root: Path, *lines: str) -> str:
    """What these lines print, with the tools and the package of this course."""
    paths = os.pathsep.join(map(str, (root, root / "tools")))
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr
    return done.stdout


def _in_capitals(entry: Message) -> Message:
    kept = re.split(r"(\{\{?[^{}]*\}\}?|`[^`]*`|https?:\S*)", entry.id)
    entry.string = "".join(part if number % 2 else part.upper() for number, part in enumerate(kept))
    return entry


def test_a_new_language_is_a_catalogue_and_a_line(course: Path) -> None:
    build = "import sys, build_notebooks; sys.argv[1:] = ['--language', 'xx']; build_notebooks.main()"
    assert run(course, build).startswith("xx/01_halves: executed")
    notebook = nbformat.read(course / "notebooks" / "xx" / "01_halves.ipynb", as_version=4)
    opening, bootstrap, code, *_ = notebook.cells
    assert opening.source.startswith("# HALVES\n\n[![Open in Colab]")
    assert "blob/main/notebooks/xx/01_halves.ipynb)" in opening.source
    assert re.search(r"IT TAKES ABOUT \d+ SECONDS, AND READING ABOUT 1 MINUTES\.", opening.source)
    assert bootstrap.source.endswith('from rvq_tutorial.course import use\n\nuse("xx")')
    assert code.source.startswith('curves = {"OUR HALF": [1, 2], "held_out": [3]}\n')
    assert code.source.endswith("""print(f"THE END: {curves['OUR HALF'][0]}")  # OF THE CURVE""")
    assert code.outputs[0].text == "THE END: 1\n"


def test_an_edited_text_fails_and_its_translation_waits_beside_it(course: Path) -> None:
    source = course / "notebooks" / "sources" / "01_halves.py"
    source.write_text(SOURCE.replace("One half of everything.", "One half of nearly everything."))
    path = course / "notebooks" / "sources" / "xx" / "01_halves.po"
    before, step, after, again, last = run(
        course,
        "import catalogues",
        f"path = __import__('pathlib').Path({str(path)!r})",
        "def lacking(): print('|'.join(catalogues.lacking('01_halves', 'xx')) + '##')",
        "lacking(); catalogues.bring_in_step('xx'); print('##'); lacking()",
        "text = path.read_bytes(); catalogues.bring_in_step('xx'); print('##', text == path.read_bytes())",
    ).split("##")
    where = "notebooks/sources/xx/01_halves.po"
    assert f"{where}: 'One half of nearly everything.' is missing; run `make catalogues`" in before
    assert f"{where}: 'One half of everything.' is no longer there; run `make catalogues`" in before
    assert re.search(r"01_halves.po: 6 texts, 0 to translate, 1 fuzzy", step)
    assert after.strip() == f"{where}: 'One half of nearly everything.' is fuzzy: the English text was changed"
    assert "1 fuzzy" in again and last.strip() == "True"
    text = path.read_text(encoding="utf-8")
    assert '#, fuzzy\n#| msgid "One half of everything."\nmsgid "One half of nearly everything."\nmsgstr "ONE' in text


def _merged(*texts: str, old: list[Message], others: dict[str, Message] | None = None) -> list[tuple]:
    entries = catalogues.merged({text: [] for text in texts}, old, others or {})
    return [(entry.id, entry.string, entry.fuzzy, list(entry.previous_id)) for entry in entries]


def test_catalogues_keep_what_stays_and_what_moved_and_drop_what_is_gone() -> None:
    old = [Message("One half of it", "A"), Message("Another sentence", "B"), Message("gone", "C")]
    assert _merged("new", "Another sentence", "One half of this", old=old, others={"moved": Message("moved", "D")}) == [
        ("new", "", False, []),
        ("Another sentence", "B", False, []),
        ("One half of this", "A", True, ["One half of it"]),
    ]
    assert _merged("Another sentence", "Another sentence!", old=old)[1] == ("Another sentence!", "", False, [])
    assert _merged("moved", old=old, others={"moved": Message("moved", "D")}) == [("moved", "D", False, [])]
    waiting = Message("One half of this", "A", flags=["fuzzy"], previous_id="One half of it")
    assert _merged("One half of this", old=[waiting]) == [("One half of this", "A", True, ["One half of it"])]


def test_a_catalogue_is_read_as_it_was_written(tmp_path: Path) -> None:
    text = 'Two "lines",\nand \\alpha # ' + 60 * "long "
    entries = [
        Message(text, text, user_comments=[fidelity.SAME], auto_comments=["string"]),
        Message("half", "A", flags=["fuzzy"], previous_id=text),
    ]
    path = tmp_path / "some.po"
    path.write_text(po.written(entries, "xx"), encoding="utf-8")
    found = po.read(path)
    assert [(e.id, e.string, e.user_comments, e.fuzzy, e.previous_id) for e in found] == [
        (text, text, [fidelity.SAME], False, []),
        ("half", "A", [], True, [text]),
    ]
    assert po.written(found, "xx") == path.read_text(encoding="utf-8")
    assert po.words(path) == {text: text}


# What the package says


def test_the_package_speaks_the_language_that_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(languages, "LOCALE", tmp_path)
    (tmp_path / "yy").mkdir()
    done = Message("{name} must be a torch.Tensor, got {kind}", "KEIN TENSOR: {name}, {kind}")
    doubtful = Message("{name} must be finite, got NaN or infinity among its values", "?", flags=["fuzzy"])
    (tmp_path / "yy" / "some.po").write_text(po.written([done, doubtful], "yy"), encoding="utf-8")

    def complaint(x: object) -> str:
        with pytest.raises((TypeError, ValueError)) as raised:
            check_vectors(x, "x")
        return str(raised.value)

    use("yy")
    assert complaint([1]) == "KEIN TENSOR: x, list"
    assert complaint(torch.full((1, 2), torch.inf)) == doubtful.id.format(name="x")
    use("en")
    assert complaint([1]) == "x must be a torch.Tensor, got list"


def test_what_is_in_no_catalogue_stays_as_it_is() -> None:
    use("zh")
    assert [package.said(text) for text in ("", "no such text")] == ["", "no such text"]


def test_titles_of_names_and_facts_are_said() -> None:
    use("zh")
    names = {"warmth:\nred − blue": 2, "by gradient, 17.4 dB\nK = 3": 2, "original": 1}
    titles = [titled(name) for name in names]
    assert not any(re.search("warmth|gradient", title) for title in titles)
    assert [len(title.splitlines()) for title in titles] == list(names.values())
    assert titles[1].endswith(", 17.4 dB\nK = 3") and titles[2] == "original"


def test_an_unknown_language_is_refused_and_nothing_is_chosen() -> None:
    use("zh")
    with pytest.raises(ValueError, match=r"'en'.*'zh'.*'tlh'$"):
        use("tlh")
    assert package.said("step") != "step"


def test_chinese_pictures_have_their_letters_and_a_missing_one_fails() -> None:
    use("zh")
    chinese = plots.bars({"码本": 0.2, "贪心": 0.1}, label="误差", title="一层，“两级”：")
    assert chinese.png() != plots.bars({"码字": 0.2, "残差": 0.1}, label="误差", title="一层，“两级”：").png()
    with pytest.raises(UserWarning, match=r"Glyph \d+ .*missing"):
        plots.bars({"\U00020000": 0.2}, label="误差").png()


def test_english_pictures_are_the_same_whatever_was_chosen_before() -> None:
    def picture() -> bytes:
        return plots.bars({"greedy": 0.2, "beam": 0.1}, label="error", title="Two").png()

    before = picture()
    use("zh")
    use("en")
    assert picture() == before
