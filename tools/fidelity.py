"""What a translation keeps of its text: facts, code, formulas, links, numbers and marks."""

import re
from collections import Counter
from collections.abc import Callable, Iterator

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
