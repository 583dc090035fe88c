"""The language that the course speaks: English, or one of those in `locale`.

Each is a folder of catalogues, gettext's PO files, and of a font where pictures need other letters than Latin ones.
"""

import functools
from pathlib import Path

from rvq_tutorial import language as package

ENGLISH = "en"
LOCALE = Path(__file__).with_name("locale")


def use(language: str) -> None:
    """From here on, say checks, pictures, sliders, errors and reports in this language: "zh" is Chinese, "en" English.

    What isn't translated stays English.

    Raises:
        ValueError: there are no catalogues of this language.
    """
    there_are = ENGLISH, *sorted({path.parent.name for path in LOCALE.glob("*/*.po")})
    if language not in there_are:
        names = package.said(", ").join(map(repr, there_are))
        sentence = package.said(
            "{name} must be one of {names}, got {value!r}", name="language", names=names, value=language
        )
        raise ValueError(sentence)
    from rvq_tutorial.course.plots.figure import add_letters  # brings matplotlib, which not everything here needs

    for font in LOCALE.glob(f"{language}/*.otf"):
        add_letters(font)
    package.speak(_words(language))


@functools.cache
def _words(language: str) -> dict[str, str]:
    """What stands for the English sentences, as far as they are translated."""
    from babel.messages.pofile import read_po  # takes as long to import as all the rest of this

    words = {}
    for path in sorted((LOCALE / language).glob("*.po")):
        with path.open("rb") as file:
            entries = [entry for entry in read_po(file) if entry.id and entry.string and not entry.fuzzy]
        words |= {entry.id: entry.string for entry in entries}
    return words
