"""Whatever a dataset or a run says is text: in no view does markup from their files leave a mark on the page, and all of it can be read."""
from __future__ import annotations

import json
from pathlib import Path

import pytest

from sam_nb.markup import page as html_page
from sam_nb.view.run_browser import run_records, save_report

from . import hostile
from .hostile import READ_MARKS
from .lab import CHECKOUT, expect

DATASETS = {"pairs": "mine", "objects": "objects", "sentences": "referring", "captions": "earth"}  # folder -> name for `explore_data`
READABLE = (  # places whose text must be on the page; that of figures is in pictures
    "pairs title", "pairs source", "pairs licence", "pairs class 0", "pairs class 1", "pairs file 0", "pairs file 1",
    "objects file 0", "objects class 0", "objects class 1", "sentence 0", "captions file 0", "caption 0",
    "run 1", "run 2", "run dataset", "run score name", "run parameter", "run value 1", "run class", "run error", "run picture",
    "prompt class", "prompt file", "asked", "task class", "mask class", "progress", "weights", "caption", "a row", "a label", "column", "index")


def cells(name: str, **parameters: object) -> list[str]:
    "The code cells of a notebook, with other parameters."
    found = []
    for cell in json.loads((CHECKOUT / "nbs" / f"{name}.ipynb").read_text())["cells"]:
        if cell["cell_type"] != "code": continue
        found.append("".join(cell["source"]))
        if "parameters" in cell["metadata"].get("tags", ()): found.append("\n".join(f"{k} = {v!r}" for k, v in parameters.items()))
    return found


def marks(page) -> list[str]:
    page.evaluate("() => new Promise(done => setTimeout(done, 150))")  # an image that cannot be loaded says so a little later
    return page.evaluate(READ_MARKS)


def unread(page, places: tuple[str, ...]) -> list[str]:
    "The places whose text is nowhere among the outputs: neither as text nor in a tooltip."
    shown = page.evaluate("""() => [...document.querySelectorAll(".jp-OutputArea-output, body > :not(script)")].map(
      e => e.innerText + [...e.querySelectorAll("[title], [aria-label], option")].map(f => f.title + f.ariaLabel + f.textContent).join()).join()""")
    return [place for place in places if f"`{place}`)" not in shown]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("hostile")
    for name in ("pairs", "objects", "sentences", "captions"): getattr(hostile, name)(made / name)
    for number in (1, 2): hostile.run(made / "runs", number)
    hostile.failed_run(made / "runs")
    hostile.picture(made / f"{hostile.hostile('prompt file')}.png", side=96)
    return made


def test_views(notebook, root):
    image, names = str(root / f"{hostile.hostile('prompt file')}.png"), [r["name"] for r in run_records(root / "runs")]
    data = [c for name, kind in DATASETS.items() for c in cells("explore_data", dataset=kind, data_root=str(root / name), samples=2)]
    runs = [c.replace("names.split()", "names") for c in cells("explore_runs", names=names, root=str(root / "runs"), out=str(root / "report.html"))]
    prompts = cells("explore_prompts", image=image, classes=hostile.hostile("prompt class"), clicks="+20,20")
    everything = cells("explore_everything", image=image, grid="6")
    referring = cells("explore_referring", image=image, clicks="+20,20", expressions=hostile.hostile("asked"))
    tasks = cells("explore_tasks", image=image, sentence=hostile.hostile("sentence"), classes=hostile.hostile("task class"), grounds=hostile.hostile("ground"))
    notebook.open("markers.ipynb", *data, *runs, *prompts, VIEWS.replace("IMAGE", repr(image)), *everything, *referring, *tasks).run_all(300)
    page = notebook.page
    assert marks(page) == []
    for name in ("sam-data", "sam-nb-runs", "samnb"): notebook.shot(f"hostile_{name}", page.locator(f".{name}:visible").first)
    for grid in page.locator(".sam-data").all():
        grid.locator(".sam-tile").first.click()
        expect(grid.locator(".sam-bar b").first).to_be_visible()
    expect(page.locator(".sam-sample .samnb-row").first).to_be_visible()
    for summary in page.locator(".sam-nb-runs summary").all(): summary.click()
    for stage in page.locator(".samnb-stage:visible").all(): stage.hover()
    assert marks(page) == []
    assert unread(page, READABLE) == []
    assert not page.wrong


VIEWS = """
import numpy as np, pandas as pd, torch
from types import SimpleNamespace
from IPython.display import display
from sam_nb import charts, show
from sam_nb.datasets.pictures import image_array
from sam_nb.training.progress import Progress, _PageBar
from sam_nb.view.everything_view import EverythingView
from sam_nb.view.label_view import LabelView
from sam_nb.view.mask_view import MaskView
from sam_nb.weights import LoadReport
def hostile(place): return f"\\"'></title></style></script><script>(window.marked ??= []).push('{place}')</script><img src=x onerror='(window[`marked`] ??= [])[`push`](`{place}`)'>"
picture = image_array(IMAGE)
labels = np.zeros(picture.shape[:2], np.uint8); labels[8:40, 8:40] = 1
display(MaskView(picture, truth=labels, prediction=labels, classes=[hostile("a row"), hostile("mask class")]))
display(EverythingView(picture, [dict(segmentation=labels > 0, predicted_iou=0.9, stability_score=0.9, category_id=0)], [hostile("mask class")]))
masks = torch.from_numpy(labels > 0)[None]
kept = (torch.tensor([0]), masks, masks, masks, torch.tensor([0]), torch.tensor([0.9]))
view = LabelView(torch.from_numpy(picture).permute(2, 0, 1), kept, [hostile("label view")], 0.5)
import sam_nb.view.label_view as module
module.describe_labels = lambda *_: hostile("a label")
view.update(); display(view)
bar = _PageBar(3); bar.show(1, hostile("progress")); bar = _PageBar(3); bar.end(2, hostile("progress"), True)
display(charts.table(pd.DataFrame({hostile("column"): [hostile("a row"), "x"]}, index=[hostile("name"), "b"]), caption=hostile("caption")))
display(pd.DataFrame({hostile("column"): [hostile("a row")]}, index=pd.Index([hostile("name")], name=hostile("index"))))
display(LoadReport(source=hostile("weights"), loaded=[hostile("weights")], missing=[hostile("weights")]))
display(show.show_images([picture], ["$x_1^{$ " + hostile("title")]), show.legend([hostile("legend")], [[0, 0, 0]]))
""".strip()


def test_reports_run_no_script_but_their_own(browser, root, tmp_path):
    names = [r["name"] for r in run_records(root / "runs")]
    report = save_report(names, tmp_path / "report.html", root / "runs")
    attack = hostile.hostile_sentence("by hand") + "<svg onload=\"(window.marked ??= []).push('svg')\"></svg><script src='https://example.org/x.js'></script><a id=link href=\"javascript:(window.marked ??= []).push('link')\">link</a>"
    for name, text in {"as written": report.read_text("utf-8"), "by hand": report.read_text("utf-8").replace("<body>", "<body>" + attack, 1),
                       "a page": html_page(hostile.hostile_sentence("title"), hostile.hostile_sentence("body"), ["document.body.dataset.ran = 'yes'"])}.items():
        (tmp_path / "shown.html").write_text(text, "utf-8")
        page, answered = browser.new_page(viewport={"width": 1100, "height": 900}), []
        page.on("response", lambda response, answered=answered: answered.append(response.url))
        page.goto((tmp_path / "shown.html").as_uri())
        if name == "by hand": page.locator("#link").click()
        else: assert marks(page) == []
        if name != "a page": assert page.locator(".sam-nb-runs tbody tr").count() >= 3, "its own script ran"
        else: assert page.evaluate("() => document.body.dataset.ran") == "yes"
        assert marks(page) == []
        assert page.evaluate("""() => { try { document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.marked = [1]'>"); } catch (error) { return error.name; } }""") == "TypeError"
        assert marks(page) == [] and not [url for url in answered if not url.startswith(("file:", "data:", "blob:"))]
        if name == "as written": assert unread(page, ("run 1", "run 2", "run dataset", "run value 1", "run error")) == []
        page.close()
