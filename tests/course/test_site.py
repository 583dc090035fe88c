"""The site as `make site` has built it: read in a browser, from its files and from a plain server."""

import functools
import http.server
import posixpath
import re
import statistics
import threading
from collections.abc import Callable, Iterator
from html import unescape
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from editions import topics
from languages import ROOT
from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.site
served = pytest.mark.parametrize("root", ["server"], indirect=True)  # files would show the same

SITE = ROOT / "build" / "site"
PAGES = sorted(path.relative_to(SITE).as_posix() for path in [*SITE.glob("*.html"), *SITE.glob("zh/*.html")])
WITH_SLIDERS = [name for name in PAGES if 'class="explorer"' in (SITE / name).read_text(encoding="utf-8")]
FIRST_VIEW, WHOLE = 1e6, 60e6  # bytes
SHOWN_WITHIN = 50  # milliseconds
AA = {"preload": False, "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}
# From now on keeps how many milliseconds an explorer's picture takes to follow its sliders.
WATCH = """explorer => explorer.addEventListener('input', () => {
    const moved = performance.now(), picture = explorer.querySelector('img');
    const look = () => {
        if (picture.complete && picture.naturalWidth) explorer.waited = performance.now() - moved;
        else setTimeout(look);
    };
    explorer.waited = undefined;
    setTimeout(look);
})"""
WAITED = (
    "async explorer => { while (explorer.waited === undefined) await new Promise(setTimeout); return explorer.waited; }"
)


# Still under way when the next page was opened; a script where none may run.
NO_FAULTS = "net::ERR_ABORTED", "csp"
IN_VIEW = "[...document.images].filter(i => i.getBoundingClientRect().top < innerHeight).map(i => i.src)"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A plain server of files that says nothing."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module", params=["files", "server"])
def root(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of the site, as files and as a plain server has them."""
    if request.param == "files":
        yield SITE.as_uri()
        return
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


Visit = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser, root: str) -> Iterator[Visit]:
    """Opens a page; afterwards, no request has left the site, and no script has complained."""
    contexts: list[BrowserContext] = []
    faults: list[str] = []

    def open_page(name: str, width: int = 1280, **options: object) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda asked: faults.append(asked.url) if not ours(asked.url) else None)
        page.on(
            "requestfailed",
            lambda asked: faults.append(f"{asked.failure}: {asked.url}") if asked.failure not in NO_FAULTS else None,
        )
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
        page.goto(f"{root}/{name}")
        return page

    def ours(url: str) -> bool:
        return url.startswith((f"{root}/", "data:", "blob:"))

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


@functools.cache
def text(name: str) -> str:
    return (SITE / name).read_text(encoding="utf-8")


def test_every_notebook_is_a_page_in_both_languages_and_has_its_sliders() -> None:
    for topic in topics():
        for language in ("", "zh/"):
            assert text(f"{language}{topic}.html").count('class="explorer"') >= 1
    english = [re.findall('class="explorer"|type="range"', text(f"{topic}.html")) for topic in topics()]
    chinese = [re.findall('class="explorer"|type="range"', text(f"zh/{topic}.html")) for topic in topics()]
    assert english == chinese


@pytest.mark.parametrize("name", WITH_SLIDERS)
def test_every_slider_moves_by_key_and_its_picture_follows(visit: Visit, name: str) -> None:
    page, waited = visit(name), []
    for explorer in page.locator(".explorer").all():
        explorer.scroll_into_view_if_needed()
        page.wait_for_load_state("networkidle")
        explorer.evaluate(WATCH)
        for number, slider in enumerate(explorer.locator("input").all()):
            seen = {picture_of(explorer)}
            slider.focus()
            values = int(slider.get_attribute("max")) + 1
            page.keyboard.press("Home")
            for place in range(values):
                if place:
                    page.keyboard.press("ArrowRight")
                    waited.append(explorer.evaluate(WAITED))
                assert slider.input_value() == str(place)
                assert slider.get_attribute("aria-valuetext") == explorer.locator("output").nth(number).inner_text()
                seen.add(picture_of(explorer))
            assert len({source for source, _ in seen}) >= min(values, 2)
            assert len(seen) >= values - 1, "the words stay the same"
    assert statistics.median(waited) < SHOWN_WITHIN


@pytest.mark.parametrize("name", WITH_SLIDERS)
def test_every_slider_moves_by_touch_on_a_phone(visit: Visit, name: str) -> None:
    page = visit(name, width=390, has_touch=True, is_mobile=True)
    for explorer in page.locator(".explorer").all():
        for slider in explorer.locator("input").all():
            slider.scroll_into_view_if_needed()
            box = slider.bounding_box()
            assert box["width"] >= 96 and box["height"] >= 24
            before, end = picture_of(explorer), int(slider.get_attribute("max"))
            at = box["width"] - 4 if int(slider.input_value()) < end else 4
            page.touchscreen.tap(box["x"] + at, box["y"] + box["height"] / 2)
            assert picture_of(explorer) != before


def picture_of(explorer) -> tuple[str, str]:
    picture = explorer.locator("img")
    return picture.get_attribute("src"), picture.get_attribute("alt")


@served
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_nothing_overflows_sideways(visit: Visit, name: str, width: int) -> None:
    page = visit(name, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@served
@pytest.mark.parametrize("name", ["index.html", "01_codebooks.html", "zh/04_residual_vq.html", "package.html"])
def test_the_first_view_is_small(visit: Visit, name: str, root: str) -> None:
    page, asked = visit("terms.html"), set()
    page.on("request", lambda request: asked.add(request.url) if "/pictures/" not in request.url else None)
    page.goto(f"{root}/{name}")
    asked |= set(page.evaluate(IN_VIEW))
    sizes = {url: (SITE / unquote(urlsplit(url.removeprefix(f"{root}/")).path)).stat().st_size for url in asked}
    assert sum(sizes.values()) < FIRST_VIEW, sorted(sizes.items(), key=lambda size: -size[1])[:8]


def test_the_site_is_small() -> None:
    assert sum(path.stat().st_size for path in SITE.rglob("*") if path.is_file()) < WHOLE


@served
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(visit: Visit, name: str, theme: str) -> None:
    page = visit(name, color_scheme=theme)
    page.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true; })")
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    found = Axe().run(page, options=AA).response["violations"]
    assert [(rule["id"], [node["html"][:200] for node in rule["nodes"]][:5]) for rule in found] == []


@pytest.mark.parametrize("name", [name for name in PAGES if not name.endswith("search.html")])
def test_headings_are_in_order_and_each_picture_has_words_of_its_own(name: str) -> None:
    page = re.sub(r"<script.*?</script>", "", text(name).partition("<article")[2], flags=re.DOTALL)
    levels = [int(level) for level in re.findall(r"<h([1-6])[ >]", page)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(below - above <= 1 for above, below in pairwise(levels)), levels
    alts = [re.search(r'alt="([^"]*)"', picture) for picture in re.findall(r"<img[^>]*>", page)]
    assert all(alt and alt[1] for alt in alts)
    assert len({alt[1] for alt in alts}) == len(alts)


@pytest.mark.parametrize("name", PAGES)
def test_no_link_inside_is_broken(name: str) -> None:
    links = re.findall(r'<(?:a|link|img|script)\b[^>]*? (?:href|src)="([^"]+)"', text(name))
    assert links
    for link in map(unescape, links):
        parts = urlsplit(link)
        if parts.scheme:
            continue
        path = posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(parts.path))) if parts.path else name
        assert (SITE / path).exists(), link
        if parts.fragment and path.endswith(".html"):
            assert f'id="{unquote(parts.fragment)}"' in text(path), link


@pytest.mark.parametrize("name", PAGES)
def test_no_page_asks_for_a_kernel(name: str) -> None:
    words = unescape(re.sub(r"<[^>]*>", "", text(name)))
    if Path(name).stem in topics():
        assert not re.search(
            r"[Rr]un (?:the|this) cell|运行(?:这个)?单元|not solved yet|Not solved yet|scrollTo", words
        )


def test_without_a_script_a_page_stands_still_and_says_the_same(visit: Visit) -> None:
    page = visit("04_residual_vq.html", java_script_enabled=False)
    explorer = page.locator(".explorer").first
    assert explorer.locator("img").is_visible() and not explorer.locator("input").first.is_visible()
    assert page.locator("details.self-test summary").first.is_visible()


def test_a_self_test_asks_first_and_the_map_counts_the_answers(visit: Visit, root: str) -> None:
    page = visit("01_codebooks.html")
    test, field = page.locator("details.self-test").first, page.get_by_label("Your answer").first
    test.locator("summary").click()
    assert test.get_attribute("open") is None and page.get_by_text("a guess counts").is_visible()
    field.fill("750 kB")
    test.locator("summary").click()
    assert test.get_attribute("open") is not None
    page.wait_for_timeout(1000)  # until the browser's other processes know of it
    page.goto(f"{root}/index.html")
    assert page.locator("[data-page='01_codebooks'] .done").inner_text() == "1 of 5 self-tests answered"
    page.goto(f"{root}/01_codebooks.html")
    assert page.get_by_label("Your answer").first.input_value() == "750 kB"


def test_a_question_comes_before_what_happens(visit: Visit) -> None:
    page = visit("01_codebooks.html")
    question = page.locator("details.predict").first
    assert not question.locator("img").is_visible()
    question.locator("summary").click()
    assert question.locator("img").is_visible() and "A byte has no room" in question.inner_text()


@pytest.mark.parametrize(("language", "word"), [("", "collapse"), ("zh/", "码本坍塌")])
def test_the_search_finds(visit: Visit, language: str, word: str) -> None:
    page = visit(f"{language}search.html?q={word}")
    page.locator("#search-results a[href*='03_codebook_collapse']").first.wait_for(timeout=10_000)


def test_a_printed_page_has_its_pictures_and_answers(visit: Visit, tmp_path: Path) -> None:
    page = visit("04_residual_vq.html")
    page.pdf(path=tmp_path / "page.pdf")
    assert page.locator("details:not([open])").count() == 0
    assert (tmp_path / "page.pdf").stat().st_size > 200_000
