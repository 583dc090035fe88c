"""Which code the results are of: a few digits that change with it, but not with its comments, docstrings or layout."""

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent
MEASURED = "search", "clustering", "codebook", "gradients", "base", "paths", "quantizers"
SOURCES = [
    *(ROOT / "rvq_tutorial" / f"{name}.py" for name in MEASURED),
    *(ROOT / "benchmarks" / f"{name}.py" for name in ("works", "peers", "timing")),
]


def fingerprint(sources: Iterable[Path] = SOURCES) -> str:
    """The same for the same code, in every version of Python."""
    digest = hashlib.sha256()
    for path in sources:
        digest.update(repr(_outline(ast.parse(path.read_text(encoding="utf-8")))).encode())
    return digest.hexdigest()[:16]


def _outline(node: object) -> object:
    """A syntax tree as nested lists. Empty fields are left out: newer versions of Python have more of them."""
    if isinstance(node, list):
        return [_outline(child) for child in node]
    if not isinstance(node, ast.AST):
        return node
    fields = dict(ast.iter_fields(node))
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
        fields["body"] = node.body[1:]
    return [
        type(node).__name__,
        *([name, _outline(child)] for name, child in fields.items() if child not in (None, [])),
    ]
