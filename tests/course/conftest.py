"""A real browser, for all tests of Jupyter's front ends."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from front_ends import MINUTE
from playwright.sync_api import Browser, Page, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


@pytest.fixture(scope="module")  # as long as it lives, the thread has an event loop, which other tests start themselves
def browser() -> Iterator[Browser]:
    """Debian's Chromium if there is one, else Playwright's own."""
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or playwright.chromium.executable_path
        if not Path(path).exists():
            pytest.fail("No browser to test the notebooks in: `make browser` fetches one.")
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A new window without a memory; the kernels it started end with it."""
    context = browser.new_context(viewport={"width": 1200, "height": 1000})
    context.set_default_timeout(MINUTE)
    page = context.new_page()
    yield page
    # a server that is gone has taken its kernels along
    page.evaluate("window.jupyterapp?.serviceManager.sessions.shutdownAll().catch(() => {})")
    context.close()
