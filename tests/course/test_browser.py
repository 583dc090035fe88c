"""The course in a real JupyterLab in a headless browser, as a learner meets it: Run All, then every slider.

Screenshots are kept in build/screenshots.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from front_ends import MINUTE, PIXELS, ROOT, SCREENSHOTS, changed, served, up_to_the_first_slider
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from playwright.sync_api import Locator, Page, expect

from rvq_tutorial.course import plots

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Every notebook's cells run outside the browser. In it, one shows what all have, and one in Chinese its letters.
ALWAYS = [NOTEBOOKS[0], *(ROOT / "notebooks").glob("[a-z][a-z]/04_*.ipynb")]
IN_BROWSER = [
    pytest.param(path, id=f"{path.parent.name}-{path.stem}", marks=marks)
    for paths, marks in ((ALWAYS, ()), (NOTEBOOKS[1:], pytest.mark.whole))
    for path in paths
]
LAB_OPTIONS = ["--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True"]

CELLS = "jupyterapp.shell.currentWidget.content.model.sharedModel.cells.filter(cell => cell.cell_type === 'code')"
READY = """() => {
    const panel = window.jupyterapp?.shell.currentWidget;
    const kernel = panel?.context?.isReady && panel.sessionContext?.session?.kernel;
    return kernel && kernel.connectionStatus === 'connected' && kernel.status === 'idle';
}"""
RUN_ALL = """async () => {
    await jupyterapp.commands.execute('notebook:clear-all-cell-outputs');
    jupyterapp.commands.execute('notebook:run-all-cells');
}"""
DONE = f"""() => {CELLS}.every(cell => cell.execution_count !== null)
    || {CELLS}.some(cell => cell.getOutputs().some(output => output.output_type === 'error'))"""
ERRORS = f"""() => {CELLS}.flatMap(cell => cell.getOutputs()
    .filter(output => output.output_type === 'error' || output.name === 'stderr')
    .map(output => `${{cell.source}}\n${{output.ename ?? ''}} ${{output.evalue ?? output.text}}`))"""
STICKS_OUT = """() => [...document.querySelectorAll('.jp-Notebook :is(figure, img, .widget-vbox, .widget-hslider)')]
    .filter(part => part.offsetParent && part.getBoundingClientRect().right
        > part.closest('.jp-OutputArea-output, .jp-MarkdownOutput').getBoundingClientRect().right + 1)
    .map(part => part.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab on a copy of the course (it saves by itself), with no settings of ours."""
    home = tmp_path_factory.mktemp("lab")
    course = home / "course"
    shutil.copytree(ROOT / "notebooks", course / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copy(ROOT / "README.md", course)
    overrides = home / "config" / "labconfig" / "default_setting_overrides.json"
    overrides.parent.mkdir(parents=True)
    shutil.copy(ROOT / "tools" / "overrides.json", overrides)
    with served([sys.executable, "-m", "jupyterlab", *LAB_OPTIONS], course, home) as address:
        yield address


def test_the_course_map_is_rendered_and_its_links_open_the_notebooks(lab: str, page: Page) -> None:
    for notebook in NOTEBOOKS:
        page.goto(f"{lab}/lab/tree/README.md?reset")
        page.locator(f".jp-MarkdownViewer a[href*='/files/notebooks/{notebook.name}']").first.click()
        page.wait_for_function(READY)
        assert page.evaluate("jupyterapp.shell.currentWidget.context.path") == f"notebooks/{notebook.name}"


def test_a_page_made_of_a_notebook_holds_when_narrow_too(page: Page) -> None:
    """What nbconvert makes of pictures stands for all viewers that run nothing."""
    pictures = [plots.curve({"loss": [2.0, 1.0]}), plots.bars({"a": 1.0}, label="error")]
    outputs = [new_output("display_data", picture._repr_mimebundle_()) for picture in pictures]
    cells = [new_markdown_cell("# Two pictures"), new_code_cell("pictures", outputs=outputs)]
    html, _ = HTMLExporter().from_notebook_node(new_notebook(cells=cells))
    page.route("http*://**", lambda route: route.abort())
    page.set_content(html, wait_until="domcontentloaded")
    for width in (600, 390):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate(STICKS_OUT.replace(".jp-Notebook", "main")) == []
        sizes = page.locator("figure img").evaluate_all(
            "images => images.map(i => [i.width / i.height, i.naturalWidth / i.naturalHeight])"
        )
        assert len(sizes) == 2 and all(shown == pytest.approx(true, rel=0.02) for shown, true in sizes)


@pytest.mark.parametrize("notebook", IN_BROWSER)
def test_a_notebook_runs_and_each_of_its_sliders_changes_a_picture(notebook: Path, lab: str, page: Page) -> None:
    page.goto(f"{lab}/doc/tree/{notebook.relative_to(ROOT).as_posix()}?reset")
    page.wait_for_function(READY)
    page.evaluate(RUN_ALL)
    page.wait_for_function(DONE, timeout=10 * MINUTE)
    assert page.evaluate(ERRORS) == []
    name = f"{notebook.parent.name}-{notebook.stem}"
    _keep(page, name)
    sliders = page.locator(".widget-slider .noUi-handle").all()
    assert sliders, "a notebook of this course has at least one slider"
    for number, slider in enumerate(sliders, 1):
        _move(slider, SCREENSHOTS / f"{name}-slider-{number}.png")
    assert page.evaluate(ERRORS) == []
    undescribed = "img:not([alt]), img[alt='']:not(.widget-html-content > *)"  # a widget's own does not show
    assert page.locator(".jp-Notebook").locator(undescribed).count() == 0
    if notebook == NOTEBOOKS[0]:  # what is tested here is the same in all
        _every_key_moves(sliders[0])
        _holds_when_narrow(page)
        _axe_finds_nothing_of_ours(page)
    for button in page.locator("button.widget-upload").all():
        for key in ("Enter", "Space"):
            with page.expect_file_chooser():
                button.press(key)


EXPLORE = """
from rvq_tutorial.course import plots, widgets
widgets.explore(lambda size: plots.bars({"bits": float(size)}, label="bits"), size=[1, 2, 3])
"""
SAVE_AND_CLOSE = """async () => {
    const panel = jupyterapp.shell.currentWidget;
    await panel.context.save();
    await panel.sessionContext.shutdown();
}"""


def test_a_notebook_that_was_saved_and_closed_still_shows_the_pictures_of_its_sliders(lab: str, page: Page) -> None:
    """Without what a running kernel knows of them, JupyterLab says "model not found" where they stood."""
    page.goto(f"{lab}/lab?reset")
    page.wait_for_function("window.jupyterapp?.serviceManager.isReady")
    kernel = {"name": "python3", "display_name": "Python 3"}
    notebook = new_notebook(cells=[new_code_cell(EXPLORE)], metadata={"kernelspec": kernel})
    page.evaluate(
        "content => jupyterapp.serviceManager.contents.save('one.ipynb', {type: 'notebook', format: 'json', content})",
        notebook,
    )
    page.goto(f"{lab}/doc/tree/one.ipynb?reset")
    page.wait_for_function(READY)
    page.evaluate(RUN_ALL)
    page.wait_for_function(DONE)
    picture = page.locator(".jp-OutputArea-output .widget-html figure img")
    before = picture.evaluate(PIXELS)
    page.evaluate(SAVE_AND_CLOSE)
    page.goto(f"{lab}/doc/tree/one.ipynb?reset")
    page.wait_for_function(READY)
    page.locator(".widget-slider").wait_for(timeout=20_000)
    assert picture.evaluate(PIXELS) == before


def test_a_link_leads_from_a_hint_to_the_solution_and_back(lab: str, page: Page) -> None:
    page.goto(f"{lab}/doc/tree/notebooks/{NOTEBOOKS[0].name}?reset")
    solution = page.locator("details", has_text="def nearest_colours").filter(has_text="Back to the exercise")
    solution.wait_for(state="attached")  # JupyterLab renders what is far below when it has time
    for _ in range(2):  # the first time JupyterLab misses by some lines: it hasn't yet measured the cells on the way
        page.get_by_role("link", name="nearest_colours").click()
        page.wait_for_timeout(500)
    expect(solution).to_be_in_viewport()
    solution.locator("summary").click()
    solution.get_by_role("link").click()
    expect(solution).not_to_be_in_viewport()
    expect(page.locator(".jp-CodeCell", has_text="check.nearest_colours")).to_be_in_viewport()


def test_page_keys_move_the_first_slider_in_notebook_7(page: Page, tmp_path: Path) -> None:
    """The arrow keys don't: there they are the notebook's, before any slider sees them."""
    course = tmp_path / "course"
    course.mkdir()
    nbformat.write(up_to_the_first_slider(NOTEBOOKS[0]), course / "first.ipynb")
    options = ["--IdentityProvider.token=", "--JupyterNotebookApp.expose_app_in_browser=True"]
    with served([sys.executable, "-m", "notebook", *options], course, tmp_path) as address:
        page.goto(f"{address}/notebooks/first.ipynb")
        page.wait_for_function(READY)
        page.evaluate(RUN_ALL)
        page.wait_for_function(DONE)
        assert page.evaluate(ERRORS) == []
        slider = page.locator(".widget-slider .noUi-handle")
        for key in ("PageDown", "PageUp"):
            with changed(slider):
                slider.press(key)


def _move(slider: Locator, screenshot: Path) -> None:
    """Press one arrow key on a slider and wait until the picture in the same box is another one."""
    slider.scroll_into_view_if_needed()  # what JupyterLab hasn't shown yet is in no tree
    value = _says(slider)
    label = slider.locator("xpath=ancestor::*[contains(@class, 'widget-slider')]/label").text_content()
    assert label in _names(slider.page, "slider")
    at_the_end = slider.get_attribute("aria-valuenow") == slider.get_attribute("aria-valuemax")
    with changed(slider) as box:
        picture = box.locator("figure img")
        assert picture.get_attribute("alt") in _names(slider.page, "image")
        slider.press("ArrowLeft" if at_the_end else "ArrowRight")
    assert _says(slider) != value
    images = _names(slider.page, "image")
    assert picture.get_attribute("alt") in images and all(images)
    box.screenshot(path=screenshot)


def _says(slider: Locator) -> str:
    """The slider's value as it is read out, which is what stands beside it. (In CDP's tree is only its index.)"""
    value = slider.get_attribute("aria-valuetext")
    assert value == slider.locator("xpath=ancestor::*[contains(@class, 'widget-slider')]/div[last()]").text_content()
    return value


def _names(page: Page, role: str) -> list[str]:
    """What Chromium's accessibility tree calls the things of this role in the notebook."""
    devtools = page.context.new_cdp_session(page)
    root = devtools.send("DOM.getDocument")["root"]["nodeId"]
    notebook = devtools.send("DOM.querySelector", {"nodeId": root, "selector": ".jp-Notebook"})["nodeId"]
    nodes = devtools.send("Accessibility.queryAXTree", {"nodeId": notebook, "role": role})["nodes"]
    return [node["name"]["value"] for node in nodes if not node["ignored"]]


def _every_key_moves(slider: Locator) -> None:
    slider.press("Home")
    first = _says(slider)
    for there, back in (("ArrowRight", "ArrowLeft"), ("ArrowUp", "ArrowDown"), ("End", "Home"), ("PageUp", "PageDown")):
        slider.press(there)
        assert _says(slider) != first, there
        slider.press(back)
        assert _says(slider) == first, back


def _holds_when_narrow(page: Page) -> None:
    """At 200 % (half the width) and on a phone nothing sticks out of its cell, and a slider has room to be moved."""
    before = page.viewport_size
    for width in (before["width"] // 2, 390):
        page.set_viewport_size({"width": width, "height": before["height"]})
        page.wait_for_timeout(500)
        assert page.evaluate(STICKS_OUT) == []
        for track in page.locator(".widget-slider .noUi-base").all():
            assert track.bounding_box()["width"] >= 100
        page.screenshot(path=SCREENSHOTS / f"{width}-wide.png")
    page.set_viewport_size(before)


def _axe_finds_nothing_of_ours(page: Page) -> None:
    """axe-core on the prose and the outputs; what is around them is JupyterLab's."""
    ours = {"include": [[".jp-Notebook .jp-RenderedMarkdown"], [".jp-Notebook .jp-OutputArea-output"]]}
    found = Axe().run(page, context=ours).response["violations"]
    assert [(rule["id"], [node["html"][:200] for node in rule["nodes"]]) for rule in found] == []


def _keep(page: Page, name: str) -> None:
    """Screenshots of the whole notebook, a window's height each."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    panel = page.locator(".jp-WindowedPanel-outer")
    total, height = panel.evaluate("panel => [panel.scrollHeight, panel.clientHeight]")
    for number, top in enumerate(range(0, total, height), 1):
        panel.evaluate("(panel, top) => panel.scrollTo(0, top)", top)
        page.screenshot(path=SCREENSHOTS / f"{name}-{number:02}.png")
