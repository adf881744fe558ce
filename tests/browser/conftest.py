"""One JupyterLab and one browser for all tests; a page and a kernel for each. Without a browser they are skipped, and counted."""
from __future__ import annotations

import pytest

from sam_nb.testing import count_skip

from .lab import FLAGS, Lab, Notebook, find_chromium, missing, screenshots


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    if reason := missing():
        count_skip(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    running = Lab(tmp_path_factory.mktemp("lab"))
    try: yield running.wait()
    finally: running.stop()


@pytest.fixture(scope="session")
def browser(lab):
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def page(browser, request):
    made = browser.new_page(viewport={"width": 1100, "height": 1000})
    made.set_default_timeout(30_000)
    made.wrong = []  # what the page's own code stumbled over
    made.on("pageerror", lambda error: made.wrong.append(error.stack or str(error)))
    yield made
    made.screenshot(path=screenshots() / f"{request.node.name}.png")  # also, and above all, of a test that failed
    made.close()


@pytest.fixture
def notebook(lab, page):
    yield Notebook(lab, page)
    lab.stop_kernels()
