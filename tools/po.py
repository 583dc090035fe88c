"""Catalogues as files: gettext's PO, read and quoted by Babel.

Written here is only what a translator needs, in the order of the sources: no dates and no line numbers, which would
change with every commit.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from babel.messages.catalog import Message
from babel.messages.pofile import denormalize, normalize, read_po

HEADER = """\
# Read and written by `make catalogues`; CONTRIBUTING.md says how to translate.
msgid ""
msgstr ""
"Language: {language}\\n"
"MIME-Version: 1.0\\n"
"Content-Type: text/plain; charset=UTF-8\\n"
"Content-Transfer-Encoding: 8bit\\n"
"""


def read(path: Path) -> list[Message]:
    """The entries of a catalogue; none if there is no file."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        entries = [entry for entry in read_po(file, ignore_obsolete=True, abort_invalid=True) if entry.id]
    for entry in entries:  # Babel takes the previous text for a comment
        previous = [comment.removeprefix("| ") for comment in entry.user_comments if comment.startswith("| ")]
        entry.user_comments = [comment for comment in entry.user_comments if not comment.startswith("| ")]
        entry.previous_id = [denormalize("\n".join(previous).removeprefix("msgid "))] if previous else []
    return entries


def words(*paths: Path) -> dict[str, str]:
    """What stands for each text in these catalogues, as far as it is translated."""
    return {entry.id: entry.string for path in paths for entry in read(path) if entry.string and not entry.fuzzy}


def written(entries: Iterable[Message], language: str) -> str:
    """The text of a catalogue's file."""
    return HEADER.format(language=language) + "".join("\n" + "\n".join(_lines(entry)) + "\n" for entry in entries)


def _lines(entry: Message) -> Iterator[str]:
    yield from (f"# {comment}" for comment in entry.user_comments)
    yield from (f"#. {comment}" for comment in entry.auto_comments)
    if entry.fuzzy:
        yield "#, fuzzy"
        for previous in entry.previous_id:
            yield from (f"#| {line}" for line in f"msgid {normalize(previous, width=0)}".splitlines())
    yield f"msgid {normalize(entry.id, width=0)}"
    yield f"msgstr {normalize(entry.string or '', width=0)}"
