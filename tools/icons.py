"""The theme's icons, drawn in the page: of a script of 1.5 MB, which has two thousand, the few that are shown."""

import re
from functools import partial
from importlib.metadata import distribution
from pathlib import Path

STATIC = Path(
    str(distribution("pydata-sphinx-theme").locate_file("pydata_sphinx_theme/theme/pydata_sphinx_theme/static"))
)
SCRIPT = "scripts/fontawesome.js"
TAG = re.compile(r"\s*<(?:script|link)\b[^>]*fontawesome\.js[^>]*>(?:</script>)?")
ICON = re.compile(
    r'<(?:i|span) class="((?:[\w-]+ )*?)fa(?:-(?:solid|brands|regular)|[srb]) fa-([\w-]+)((?: [\w-]+)*)"([^>]*)>'
    r"</(?:i|span)>"
)


def drawn(page: str, script: str) -> str:
    """A page without the script, and with each of its icons drawn where its name stood."""
    return TAG.sub("", ICON.sub(partial(_drawing, script), page))


def _drawing(script: str, icon: re.Match[str]) -> str:
    before, name, after, attributes = icon.groups()
    found = re.search(rf'[,{{]"?{re.escape(name)}"?:\[(\d+),(\d+),\[[^\]]*\],"[0-9a-f]+","([^"]+)"\]', script)
    if not found:
        raise KeyError(f"Font Awesome has no icon named {name!r}")
    width, height, path = found.groups()
    kept = " ".join(f"{before}{after}".split())
    return (
        f'<svg class="icon {kept}" aria-hidden="true" viewBox="0 0 {width} {height}"{attributes}>'
        f'<path fill="currentColor" d="{path}"/></svg>'
    )
