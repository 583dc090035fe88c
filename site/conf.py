"""How Sphinx makes the site out of the pages that tools/build_site.py lays down, in one language at a time."""

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import jieba  # noqa: E402
from docutils import nodes  # noqa: E402
from editions import repository  # noqa: E402
from mathml import mathml  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402

jieba.setLogLevel("WARNING")  # it cuts Chinese into words for the search, and tells everything

project = "Residual vector quantization, by hand"
author = "the course's authors"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
nb_execution_mode = "off"  # the notebooks are built and tested elsewhere
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
default_role = "code"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"

html_theme = "sphinx_book_theme"
html_math_renderer = "mathml"
html_static_path = ["static"]
html_favicon = "static/favicon.svg"
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_copy_source = html_show_sourcelink = False
html_show_search_summary = False  # it would fetch pages, which files of a browser may not
html_use_index = html_domain_indices = False
html_theme_options: dict[str, Any] = {
    "repository_url": f"https://github.com/{repository()}",
    "use_repository_button": True,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "show_toc_level": 2,
    "navbar_start": [],
    "navbar_center": [],
    "navbar_end": [],
    "navbar_persistent": [],
}
html_context = {"default_mode": "auto"}


def setup(app: Sphinx) -> None:
    """Have browsers draw the formulas themselves, and take a star in a docstring, as in (*, dim), for a star."""

    def draw(writer: Any, node: nodes.Element) -> None:
        block = isinstance(node, nodes.math_block)
        formula = mathml(node.astext(), block=block)
        writer.body.append(f'<div class="formula" tabindex="0">{formula}</div>' if block else formula)
        raise nodes.SkipNode

    def keep_stars(_app: Sphinx, _kind: str, _name: str, _of: object, _options: object, lines: list[str]) -> None:
        lines[:] = [re.sub(r"(`[^`]*`)|\*", lambda found: found[1] or r"\*", line) for line in lines]

    app.connect("autodoc-process-docstring", keep_stars, priority=900)
    app.add_html_math_renderer("mathml", (draw, None), (draw, None))
