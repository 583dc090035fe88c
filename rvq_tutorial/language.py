"""What the package says, in the language that was chosen: in English, until `rvq_tutorial.course.use` chooses another.

Nothing is followed, neither the system's language nor any setting. A sentence stands in English where it is said, and
is found in the other language by that.
"""

from collections.abc import Mapping

_words: Mapping[str, str] = {}  # of the language chosen, by the English ones


def said(sentence: str, /, **facts: object) -> str:
    """The sentence in the language chosen, with the facts in it: `said("{n} of {all}", n=1, all=2)`."""
    sentence = _words.get(sentence, sentence)
    return sentence.format(**facts) if facts else sentence


def speak(words: Mapping[str, str]) -> None:
    """Say these words for the English ones from now on."""
    global _words
    _words = words


def later(sentence: str) -> str:
    """The same sentence: a mark, for the catalogues, of what `said` will say later."""
    return sentence
