"""What there is to read in a notebook's source, and the same source in another language.

A text is a paragraph of markdown, a list's item, a heading or a table; a comment, a docstring, or a string that a
reader sees. Formulas without words, code, and names that the package knows are none. Everything goes by way of one
function, `look`, which is shown each text and its kind, and returns what stands for it, or None to leave it as it is.
"""

import ast
import functools
import io
import json
import re
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path

from nbformat import NotebookNode

Look = Callable[[str, str], str | None]

PACKAGE = Path(__file__).resolve().parent.parent / "rvq_tutorial"
MEASURED = PACKAGE / "course" / "measured"

WORD = re.compile(r"[A-Za-z]*[a-z]{3,}")
NO_WORDS = re.compile(r"`[^`]*`|\$[^$]*\$|\{[^{}]*\}|https?://\S+")  # code, formulas, facts and links
TEXT_IN_FORMULA = re.compile(r"\\text\{([^}]*)\}")
START = re.compile(r"(\s*(?:#{1,6} |[-*] |\d+\. )|<details><summary>)?(.*?)(</summary>)?", re.DOTALL)
# Arguments whose string is always seen, be it a single word.
SEEN = {"title", "xlabel", "ylabel", "label", "caption"}
LITERAL = re.compile(r"""([A-Za-z]*)(\"{3}|'{3}|"|')""")
NAME = re.compile(r"\w+_\w+|\w+(\.\w+)+")  # snake_case, or a path through modules
IN_QUOTES = re.compile(r"""(['"])([^'"]*)\1""")


def has_words(text: str) -> bool:
    """Whether there is anything to translate: a word outside code, formulas, facts and links."""
    return WORD.search(NO_WORDS.sub("", text)) is not None


def translated(cell: NotebookNode, look: Look) -> str:
    """The cell's source with what `look` has for each of its texts."""
    return _markdown(cell.source, look) if cell.cell_type == "markdown" else _code(cell.source, look)


# Markdown


def _markdown(source: str, look: Look) -> str:
    return "".join(_block(block, look) for block in _blocks(source))


def _blocks(source: str) -> Iterator[str]:
    """Pieces of the source, each with its line's end: all of them together are the source again."""
    block, kind = "", ""
    for line in source.splitlines(keepends=True):
        following = "code" if line.startswith("```") != (kind == "code") else _kind(line)
        if kind == "code" or (following == kind and kind in ("text", "table")):
            block += line
            kind = kind if kind != "code" or not line.startswith("```") else ""
            continue
        if block:
            yield block
        block, kind = line, following
    if block:
        yield block


def _kind(line: str) -> str:
    if line.startswith("|"):
        return "table"
    return "text" if line.strip() and not START.fullmatch(line)[1] and not line.startswith("$$") else "line"


def _block(block: str, look: Look) -> str:
    text = block.strip()
    if block.startswith(("```", "</")) or not _is_read(text):
        return block
    start, inner, end = START.fullmatch(text).groups(default="")
    kind = "heading" if start.startswith("#") else ""
    found = look(inner, kind)
    return block if found is None else block.replace(text, f"{start}{found}{end}")


def _is_read(text: str) -> bool:
    if text.startswith("$$"):
        return any(map(has_words, TEXT_IN_FORMULA.findall(text)))
    return has_words(text)


# Code


def _code(source: str, look: Look) -> str:
    pieces = sorted([*_comments(source), *_strings(source)])
    done, end = "", 0
    for start, stop, written in pieces:
        if start < end:
            raise ValueError(f"a comment stands within this string: {source[start:stop]}")
        done += source[end:start] + written(look)
        end = stop
    return done + source[end:]


Piece = tuple[int, int, Callable[[Look], str]]


def _starts(source: str) -> list[int]:
    lines = source.splitlines(keepends=True)
    return [sum(map(len, lines[:number])) for number in range(len(lines) + 1)]


def _comments(source: str) -> Iterator[Piece]:
    """Comments; those that fill neighbouring lines are one text."""
    starts, block = _starts(source), []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or token.string.startswith("###"):
            continue
        (line, column), alone = token.start, not token.line[: token.start[1]].strip()
        if block and alone and (line - 1, column) == block[-1][:2]:
            block.append((line, column, token.string))
            continue
        yield from _comment(source, starts, block)
        block = [(line, column, token.string)]
        if not alone:
            yield from _comment(source, starts, block)
            block = []
    yield from _comment(source, starts, block)


def _comment(source: str, starts: list[int], block: list[tuple[int, int, str]]) -> Iterator[Piece]:
    if block:
        start = starts[block[0][0] - 1] + block[0][1]
        stop = starts[block[-1][0] - 1] + block[-1][1] + len(block[-1][2])
        text = " ".join(string.removeprefix("#").strip() for *_, string in block)

        def written(look: Look) -> str:
            found = look(text, "comment") if has_words(text) else None
            return source[start:stop] if found is None else f"# {found}"

        yield start, stop, written


def _strings(source: str) -> Iterator[Piece]:
    """Strings, each with all its neighbours that Python makes one of it."""
    encoded, tree = source.splitlines(keepends=True), ast.parse(source)
    starts = _starts(source)

    def place(line: int, column: int) -> int:
        return starts[line - 1] + len(encoded[line - 1].encode()[:column].decode())

    for node, kind in _literals(tree, ""):
        start, stop = place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)
        yield start, stop, functools.partial(_string, source[start:stop], kind)


def _literals(node: ast.AST, kind: str) -> Iterator[tuple[ast.expr, str]]:
    """The strings below a node, each with its kind: "docstring", "seen", or "" where it may be a name."""
    if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
        yield node, kind
        return
    printed = isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
    for child in ast.iter_child_nodes(node):
        if isinstance(node, ast.Expr) and isinstance(child, ast.Constant):
            yield from _literals(child, "docstring")
        elif isinstance(node, ast.keyword):
            yield from _literals(child, "seen" if node.arg in SEEN else "")
        else:
            yield from _literals(child, "seen" if printed and child in node.args else "")


def _string(literal: str, kind: str, look: Look) -> str:
    prefix, quotes, text = _read(literal)
    names_translated = _in_facts(text, look) if "f" in prefix else text
    found = None
    if "r" not in prefix and has_words(text) and (kind or not is_name(text)):
        found = look(text, kind if kind == "docstring" else "string")
    if found is None and names_translated == text:
        return literal
    text = names_translated if found is None else _in_facts(found, look) if "f" in prefix else found
    return f"{prefix}{quotes}{_escaped(text, quotes, 'f' in prefix)}{quotes}"


def _read(literal: str) -> tuple[str, str, str]:
    """The prefix, the quotes and the text of a literal, made one if it is of several; a new line is a new line."""
    parts, rest = [], literal
    while match := LITERAL.match(rest):
        prefix, quotes = match.groups()
        end = match.end()
        while not rest.startswith(quotes, end):
            end += 2 if rest[end] == "\\" else 1
        parts.append((prefix.lower(), quotes, rest[match.end() : end]))
        rest = rest[end + len(quotes) :].lstrip()
    prefix = max((prefix for prefix, *_ in parts), key=len)
    bodies = [body if "f" in p or "f" not in prefix else re.sub("[{}]", r"\g<0>\g<0>", body) for p, _, body in parts]
    text = "".join(bodies)
    quotes = parts[0][1]
    return prefix, quotes, text if len(quotes) == 3 else text.replace("\\n", "\n").replace('\\"', '"')


def _escaped(text: str, quotes: str, is_f: bool) -> str:
    if len(quotes) == 3:
        return text
    outside = re.split(r"(\{[^{}]*\})", text) if is_f else [text]
    return "".join(
        part if number % 2 else part.replace("\n", "\\n").replace(quotes, f"\\{quotes}")
        for number, part in enumerate(outside)
    )


def _in_facts(text: str, look: Look) -> str:
    """An f-string's text whose facts look things up by names that are translated."""

    def name(match: re.Match[str]) -> str:
        found = None if is_name(match[2]) or not has_words(match[2]) else look(match[2], "string")
        return match[0] if found is None else f"{match[1]}{found}{match[1]}"

    return re.sub(r"\{[^{}]*\}", lambda fact: IN_QUOTES.sub(name, fact[0]), text)


@functools.cache
def names() -> frozenset[str]:
    """What must not be translated in a notebook's code: words of the package's code, and names of what was measured."""
    found: set[str] = set()
    for path in MEASURED.glob("*.json"):
        found |= {path.stem, *json.loads(path.read_text(encoding="utf-8"))["settings"]}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
                found |= set(re.findall(r"\w+", node.value))
            found |= {value for key in ("id", "attr", "arg", "name") if isinstance(value := getattr(node, key, 0), str)}
    return frozenset(found | set(table_names()))


def table_names() -> list[str]:
    """The names in the tables that were measured beforehand."""
    found: dict[str, None] = {}

    def collect(table: object) -> None:
        if isinstance(table, dict):
            found.update(dict.fromkeys(table))
            for part in table.values():
                collect(part)

    for path in sorted(MEASURED.glob("*.json")):
        collect(json.loads(path.read_text(encoding="utf-8"))["results"])
    return [name for name in found if has_words(name)]


def is_name(text: str) -> bool:
    """Whether a string in a notebook's code is a name: one that the package knows, or of another kind than words."""
    return text in names() or NAME.fullmatch(text) is not None


def shown_names(cell: NotebookNode) -> Iterator[str]:
    """The names that a notebook's code gives to what it shows: keys of tables, and parts of lists, of a single word."""
    for node in ast.walk(ast.parse(cell.source)):
        parts = {ast.Dict: "keys", ast.Tuple: "elts", ast.List: "elts"}.get(type(node))
        for part in getattr(node, parts) if parts else ():
            name = getattr(part, "value", None)
            if isinstance(name, str) and has_words(name) and name in names() and not NAME.fullmatch(name):
                yield name
