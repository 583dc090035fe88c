"""The catalogues of the other languages: every text there is to translate, and what stands for it.

python tools/catalogues.py              bring all catalogues in step with the sources; what is new is still empty
python tools/catalogues.py zh           begin a language, or bring the catalogues of that one in step
python tools/catalogues.py zh --check 04_residual_vq    say what a catalogue still lacks; all if none is named
python tools/catalogues.py zh --preview 04_residual_vq  write that notebook, not executed, into build/preview

They are gettext's PO files. Those of the notebooks lie in notebooks/sources/LANGUAGE, one for each and one, common.po,
for what several notebooks say; those of the package in rvq_tutorial/course/locale/LANGUAGE. Where an English text was
changed, its translation is marked fuzzy and the old text stands beside it; where it is gone, so is the entry.
"""

import argparse
import ast
import configparser
import difflib
import functools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import fidelity
import jupytext
import po
import texts
from babel.messages.catalog import Message
from editions import learner_edition, tagged, topics
from languages import COMMON, ROOT, SOURCES, speaking

from rvq_tutorial.autoencoder.files import write_whole
from rvq_tutorial.course.plots import COLORS

PACKAGE = ROOT / "rvq_tutorial"
LOCALE = PACKAGE / "course" / "locale"
CHECKS = PACKAGE / "course" / "check"
PICTURES = PACKAGE / "course" / "plots", PACKAGE / "course" / "measured", PACKAGE / "course" / "widgets.py"
SHARED = "judging"  # the catalogue of what all checks say
SAYING = "said", "later"
ALIKE = 0.6  # a new text is taken for an old one that was changed if they have this share in common

Template = dict[str, list[str]]  # the texts of a catalogue in order, each with remarks for translators


def languages() -> list[str]:
    """The languages that have catalogues."""
    return sorted({path.name for folder in (SOURCES, LOCALE) for path in folder.glob("*/") if any(path.glob("*.po"))})


def path_of(name: str, language: str) -> Path:
    """Where a catalogue lies."""
    folder = SOURCES if name == COMMON or name in topics() else LOCALE
    return folder / language / f"{name}.po"


# What there is to translate


@functools.cache
def templates() -> dict[str, Template]:
    """What each catalogue should hold, by its name."""
    return {**_of_notebooks(), **_of_package()}


def _of_notebooks() -> dict[str, Template]:
    found = {topic: of_notebook(topic) for topic in topics()}
    common = dict(_said(Path(__file__).parent))
    for topic, template in found.items():
        for text in template:
            if any(text in other for name, other in found.items() if name != topic):
                common.setdefault(text, template[text])
    own = {topic: {t: r for t, r in template.items() if t not in common} for topic, template in found.items()}
    return {COMMON: common, **own}


def of_notebook(topic: str) -> Template:
    """The texts of a notebook's source; claims have none, for no reader sees them."""
    template: Template = {}
    for cell in jupytext.read(SOURCES / f"{topic}.py").cells:
        if not tagged(cell, "claim"):
            marks = [tag for tag in ("exercise", "hint", "doubters") if tagged(cell, tag)]

            def look(text: str, kind: str, marks: list[str] = marks) -> None:
                remarks = [", ".join(filter(None, [*marks, kind]))]
                template.setdefault(text, [remark for remark in remarks if remark])

            texts.translated(cell, look)
    return template


def _of_package() -> dict[str, Template]:
    found = {SHARED: {**_sentences(CHECKS / f"{SHARED}.ini"), **_said(CHECKS)}}
    for path in sorted(CHECKS.glob("*.ini"), key=_place_in_course):
        found.setdefault(path.stem, _sentences(path))
    pictures: Template = {}
    for place in PICTURES:
        pictures |= {text: remarks for text, remarks in _said(place).items() if text not in pictures}
    pictures |= {name: ["name"] for name in _names() if name not in pictures}
    pictures |= {text: ["what was measured"] for text in _measured() if text not in pictures}
    found["pictures"] = pictures
    found["package"] = {
        text: remarks
        for path in sorted(PACKAGE.rglob("*.py"))
        if CHECKS not in path.parents and not any(path == place or place in path.parents for place in PICTURES)
        for text, remarks in _said(path).items()
    }
    once: set[str] = set()
    for name, template in found.items():
        found[name] = {text: remarks for text, remarks in template.items() if text not in once}
        once |= set(template)
    return found


def _place_in_course(path: Path) -> int:
    return next(number for number, topic in enumerate([*topics(), path.stem]) if topic.endswith(path.stem))


def _sentences(path: Path) -> Template:
    """The sentences of the checks of one notebook."""
    parser = configparser.RawConfigParser(delimiters="=", comment_prefixes="#")
    parser.optionxform = str
    parser.read(path, encoding="utf-8")
    template: Template = {}
    for section in (parser.default_section, *parser.sections()):
        own = parser.defaults() if section == parser.default_section else parser._sections[section]
        for key, text in own.items():
            template.setdefault(text, []).append(f"{section}: {key}" if section != parser.default_section else key)
    return template


def _said(place: Path) -> Template:
    """The sentences that Python code says now or later: `said("…")`, `later("…")`."""
    template: Template = {}
    for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        for call in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
            if getattr(call.func, "id", getattr(call.func, "attr", "")) in SAYING and isinstance(
                call.args[0], ast.Constant
            ):
                template.setdefault(call.args[0].value, [])
    return template


def _names() -> Iterator[str]:
    """Names that pictures show: of tables that were measured, of roles, and single words that notebooks give."""
    yield from (name.replace("_", " ") for name in (*texts.table_names(), *COLORS))
    for topic in topics():
        for cell in jupytext.read(SOURCES / f"{topic}.py").cells:
            if cell.cell_type == "code" and not tagged(cell, "claim"):
                yield from texts.shown_names(cell)


def _measured() -> Iterator[str]:
    for path in sorted((PACKAGE / "course" / "measured").glob("*.json")):
        yield json.loads(path.read_text(encoding="utf-8"))["what"]


# Files


def merged(template: Template, old: list[Message], others: dict[str, Message]) -> list[Message]:
    """The entries of a template, each with its translation from the old catalogue, from another, or from a text alike.

    others: entries of the language's other catalogues, by text, for what has moved.
    """
    before = {entry.id: entry for entry in old}
    gone = {text: entry for text, entry in before.items() if text not in template and entry.string}
    entries = []
    for text, remarks in template.items():
        entry = Message(text, auto_comments=remarks)
        entry.flags = set()
        if found := before.get(text) or others.get(text):
            entry.string, entry.user_comments = found.string, found.user_comments
            if found.fuzzy and found.string:
                entry.flags, entry.previous_id = {"fuzzy"}, found.previous_id
        elif alike := difflib.get_close_matches(text, gone, 1, ALIKE):
            entry.string, entry.user_comments = gone[alike[0]].string, gone[alike[0]].user_comments
            entry.flags, entry.previous_id = {"fuzzy"}, [alike[0]]
        entries.append(entry)
    return entries


def bring_in_step(language: str) -> None:
    """Write every catalogue of a language anew where it differs from its sources, and remove those without any."""
    wanted = templates()
    old = {name: po.read(path_of(name, language)) for name in wanted}
    everything = {entry.id: entry for entries in old.values() for entry in entries if entry.string}
    for name, template in wanted.items():
        entries = merged(template, old[name], everything)
        path, text = path_of(name, language), po.written(entries, language)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, text.encode())
        empty, fuzzy = sum(not entry.string for entry in entries), sum(entry.fuzzy for entry in entries)
        print(f"{path.relative_to(ROOT)}: {len(entries)} texts, {empty} to translate, {fuzzy} fuzzy")
    for path in sorted({*SOURCES.glob(f"{language}/*.po"), *LOCALE.glob(f"{language}/*.po")}):
        if path not in {path_of(name, language) for name in wanted}:
            path.unlink()


def lacking(name: str, language: str) -> Iterator[str]:
    """What is wrong with the entries of a catalogue, and where it isn't in step with the sources."""
    path, wanted = path_of(name, language), templates()[name]
    where, entries = path.relative_to(ROOT), {entry.id: entry for entry in po.read(path)}
    terms = fidelity.terms(SOURCES / language / "terms.csv")
    for text in wanted:
        if text not in entries:
            yield f"{where}: {text[:60]!r} is missing; run `make catalogues`"
    for text, entry in entries.items():
        if text not in wanted:
            yield f"{where}: {text[:60]!r} is no longer there; run `make catalogues`"
            continue
        for fault in (*fidelity.faults(entry), *fidelity.other_terms(entry, terms)):
            yield f"{where}: {text[:60]!r} {fault}"
    if name in topics() and all(entry.string for entry in entries.values()):
        with speaking(language):
            prose = [cell.source for cell in learner_edition(name).cells if cell.cell_type == "markdown"]
        yield from (f"{where}: {fault}" for fault in fidelity.not_introduced("\n".join(prose), terms))


def preview(topic: str, language: str) -> None:
    """Write a notebook as it would be built, without its outputs."""
    for suffix in ("ipynb", "md"):
        path = ROOT / "build" / "preview" / language / f"{topic}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with speaking(language):
            jupytext.write(learner_edition(topic), path)
        print(path.relative_to(ROOT))


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("language", nargs="?", help="such as zh; all that there are if none is named")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", nargs="*", metavar="CATALOGUE", help="say what these catalogues lack, or all of them")
    mode.add_argument("--preview", nargs="+", metavar="NN_topic", help="write these notebooks, not executed")
    arguments = parser.parse_args()
    named = [arguments.language] if arguments.language else languages()
    for topic in arguments.preview or ():
        preview(topic, *named)
    if arguments.check is not None:
        complaints = [
            c for language in named for name in arguments.check or templates() for c in lacking(name, language)
        ]
        if complaints:
            sys.exit("\n".join(complaints))
    elif not arguments.preview:
        for language in named:
            bring_in_step(language)


if __name__ == "__main__":
    main()
