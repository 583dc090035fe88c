"""What a translation keeps of its text: facts, code, formulas, links, numbers and marks."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import texts
from babel.messages.catalog import Message

SAME = "same"  # a remark on an entry whose translation is meant to be the English text
DAY = re.compile(r"\{day[^}]*\}")  # a date has parts of its own in every language


FORMULA = re.compile(r"\$\$.*?\$\$|\$[^$]+\$")


def _formulas(text: str) -> list[str]:
    return [re.sub(r"\\text\{[^}]*\}", r"\\text", formula) for formula in FORMULA.findall(text)]


def _code(text: str) -> list[str]:
    return re.findall(r"`[^`]*`", text)


def _facts(text: str) -> list[str]:
    return [DAY.sub("{day}", fact) for fact in re.findall(r"\{\{?[^{}]*\}\}?", FORMULA.sub(" ", text))]


def _numbers(text: str) -> list[str]:
    return re.findall(r"[0-9]+(?:[.,:][0-9]+)*", re.sub(r"\{[^{}]*\}|\$[^$]*\$|`[^`]*`|https?://\S+", " ", text))


KEPT: dict[str, Callable[[str], list[str]]] = {
    "facts": _facts,
    "code": _code,
    "formulas": _formulas,
    "numbers": _numbers,
    "links": lambda text: re.findall(r"\]\(([^)\s]+)\)|https?://[^\s)）>]+", text),
    "tags": lambda text: re.findall(r"</?\w+[^>]*>", text),
    "bold marks": lambda text: re.findall(r"\*\*", text),
    "new lines": lambda text: re.findall(r"\n", text),
    "stars and ticks": lambda text: re.findall(r"[★☆✓○✗]", text),
}


def faults(entry: Message) -> Iterator[str]:
    """In words, what is wrong with an entry of a catalogue; nothing if it is done."""
    text, translation = entry.id, entry.string
    if not translation:
        yield "is not translated"
        return
    if entry.fuzzy:
        yield "is fuzzy: the English text was changed"
    if translation == text and texts.has_words(text) and SAME not in entry.user_comments:
        yield f'is the English text; if that is meant, put the comment "# {SAME}" above it'
    for name, kept in KEPT.items():
        before, after = Counter(kept(text)), Counter(kept(translation))
        if name in ("facts", "code"):  # once or twice, as the language needs it
            before, after = Counter(set(before)), Counter(set(after))
        if before != after:
            lost, added = (", ".join(map(repr, difference)) for difference in (before - after, after - before))
            yield f"has other {name}: {f'without {lost}' if lost else ''}{'; ' * bool(lost and added)}" + (
                f"with {added}" if added else ""
            )


class Term(NamedTuple):
    """A row of a language's terms.csv: an English term, with `|` between its forms, and what stands for it."""

    english: str
    other: str
    first: str  # "yes" where the first mention in a notebook gives the English, too
    note: str

    def uses(self, text: str) -> int:
        """How often the term is in a text, in English; code, formulas, facts and titles of papers are no text."""
        words = re.sub(r"\*[^*]+\*", " ", texts.NO_WORDS.sub(" ", text))
        return len(re.findall(rf"(?i)\b(?:{self.english})s?\b", words))


def terms(path: Path) -> list[Term]:
    """The terms in a file."""
    with path.open(encoding="utf-8", newline="") as file:
        return [Term(*row) for row in list(csv.reader(file))[1:]]


def other_terms(entry: Message, known: list[Term]) -> Iterator[str]:
    """The terms of the text that its translation doesn't have."""
    for term in known:
        # What is still English is a name in the code.
        missed = term.uses(entry.id) > term.uses(entry.string)
        if missed and not any(word in entry.string for word in term.other.split("|")):
            yield f"has {term.english}, but not {term.other}"


def not_introduced(prose: str, known: list[Term]) -> Iterator[str]:
    """The terms whose first mention in a notebook's prose, headings apart, doesn't give the English in parentheses."""
    prose = re.sub(r"(?m)^#.*$", "", prose)
    for term in known:
        word, english = (forms.split("|")[0] for forms in (term.other, term.english))
        introduced = re.compile(rf"(?i){re.escape(word)}[^，。；：（）]{{0,8}}（[^）]*(?:{term.english})")
        place = prose.find(word)
        if term.first and place >= 0 and not introduced.match(prose, place):
            yield f"the first {word} should be {word}（{english}）: …{prose[max(place - 10, 0) : place + 20]!r}…"
