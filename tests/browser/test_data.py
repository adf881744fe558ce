"explore_data: thumbnails, filters, and a sample with its masks."
import re
import shutil

import numpy as np
import pytest

from sam_nb.core import read_json
from sam_nb.datasets.pictures import image_array, read_map
from sam_nb.demo.aerial import ensure_demo_aerial
from sam_nb.demo.files import make_demo
from sam_nb.view.data_index import OKABE_ITO

from .lab import CHECKOUT, Canvas, Notebook, Stage, changed, expect

CLASSES = ("road", "pavement", "building", "tree", "sky", "car", "person", "cyclist", "sign")


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    folder = make_demo("street", tmp_path_factory.mktemp("data") / "street", size=96, train=24, val=6, test=6, workers=1)
    damaged = folder / "train/Visible/00003.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    return folder


def showing(folder, name: str) -> set[str]:
    "Samples whose label map has a class."
    files = [*folder.glob("*/Label/*.png")]
    return {f"{f.parts[-3]}/{f.stem}" for f in files if (read_map(f) == CLASSES.index(name)).any()} - {"train/00003"}


def test_filter_and_open(notebook, street):
    notebook.open("explore_data.ipynb", dataset="demo", data_root=str(street), samples=2).run_all()
    shown, page = notebook.output_after("In JupyterLab"), notebook.page
    tiles, status = shown.locator(".sam-tile"), shown.locator(".sam-count")

    def drawn(): page.wait_for_function("e => [...e.querySelectorAll('.sam-face canvas')].every(c => c.dataset.drawn)", arg=shown.element_handle())
    total = len([*street.glob("*/Visible/*.png")])
    expect(status).to_have_text(f"{total} of {total} shown; {total} of {total} samples read")
    expect(tiles).to_have_count(24)
    drawn()
    expect(shown.locator("img")).to_be_hidden()  # the sheet for pages without a kernel
    faces = shown.locator(".sam-face canvas")
    first = [Canvas(face, (96, 96)).pixels() for face in faces.all()]
    assert all(p.shape == (160, 160, 4) and p[..., :3].std() > 20 for p in first), "something is drawn"
    notebook.shot("data_all", shown)

    # a damaged picture says so, in its place
    damaged = tiles.filter(has_text="file damaged")
    assert damaged.count() == 1 and "00003" in damaged.inner_text()

    # a class: the samples are those whose label maps have it
    shown.get_by_role("button", name="cyclist").click()
    wanted = showing(street, "cyclist")
    assert status.inner_text().startswith(f"{len(wanted)} of {total} shown") and 0 < len(wanted) < total
    drawn()
    names = {f"{t.split()[1]}/{t.split()[0]}" for t in tiles.evaluate_all("all => all.map(t => t.querySelector('.sam-name').innerText + ' ' + t.title.split('\\n')[1].split(',')[0])")}
    assert names == {*sorted(wanted)} if len(wanted) <= 24 else names < wanted
    now = [Canvas(face, (96, 96)).pixels() for face in faces.all()]
    assert {p.tobytes() for p in now} != {p.tobytes() for p in first}, "other thumbnails are drawn"
    notebook.shot("data_cyclists", shown)

    # with a size: fewer
    shown.get_by_label("from").fill("60")
    assert int(status.inner_text().split()[0]) < len(wanted)
    shown.get_by_label("from").fill("")
    shown.get_by_role("button", name="cyclist").click()

    # by name, by split, by order
    words = shown.locator(".sam-tools input[type=search]")
    words.fill("0002")
    assert status.inner_text().startswith("11 of"), "00002, and 00020 to 00029"
    shown.get_by_label("split", exact=True).select_option("val")
    assert status.inner_text().startswith("6 of")
    words.fill("00026")
    assert status.inner_text().startswith("1 of")
    drawn()

    # a click opens it: the picture with the label's classes in their colours
    tiles.nth(0).click()
    stage = Labels(shown.locator(".samnb-stage"), (96, 96))
    stage.at.wait_for(state="visible")
    expect(tiles.nth(0)).to_be_hidden()
    expect(shown.locator(".sam-bar b")).to_contain_text("00026")
    image, warm, ids = image_array(street / "val/Visible/00026.png"), image_array(street / "val/Infrared/00026.png"), read_map(street / "val/Label/00026.png")
    stage.wait_until(lambda now: stage.off(now, image, ids, range(9)) < 0.01)
    notebook.shot("data_large", shown)

    # one class alone, then all; what lies under the mouse; what the other camera saw
    line = shown.locator("[data-mask]", has_text="building").locator(".samnb-name")
    line.click(); page.mouse.move(0, 0)
    stage.wait_until(lambda now: stage.off(now, image, ids, [CLASSES.index("building")]) < 0.01)
    line.click(); page.mouse.move(0, 0)
    stage.wait_until(lambda now: stage.off(now, image, ids, range(9)) < 0.01)
    # the mouse that comes, clicks and goes before the next frame leaves no light behind
    for _ in range(2): line.evaluate("e => { e.parentElement.dispatchEvent(new PointerEvent('pointerenter')); e.click(); }")
    stage.wait_until(lambda now: stage.off(now, image, ids, range(9)) < 0.01)
    y, x = np.argwhere(ids == CLASSES.index("sky"))[0]
    page.mouse.move(*stage.on_page(int(x), int(y)))
    expect(shown.locator(".samnb-status")).to_contain_text("sky")
    shown.get_by_role("button", name="thermal", exact=True).click(); page.mouse.move(0, 0)
    low, high = np.percentile(warm, (0.5, 99.5))
    stretched = ((warm - low) * (255 / (high - low))).clip(0, 255).round()
    stage.wait_until(lambda now: stage.off(now, stretched, ids, range(9)) < 0.01)
    notebook.shot("data_thermal", shown)

    # back by the keyboard, in the dark
    shown.get_by_role("button", name="all samples").focus()
    page.keyboard.press("Escape")
    tiles.nth(0).wait_for(state="visible")
    words.fill("")
    shown.get_by_label("split", exact=True).select_option("")
    shown.get_by_label("problems", exact=True).select_option("error")
    assert status.inner_text().startswith("1 of") and tiles.count() == 1
    shown.get_by_label("problems", exact=True).select_option("")
    notebook.theme("JupyterLab Dark")
    tiles.nth(0).focus()
    page.keyboard.press("ArrowRight"); page.keyboard.press("Enter")
    stage.at.wait_for(state="visible")
    stage.ready()
    notebook.shot("data_dark", shown)
    page.keyboard.press("Escape")
    tiles.nth(0).wait_for(state="visible")
    drawn()
    notebook.shot("data_dark_all", shown)

    # keys belong to the tiles, not to the notebook: pages turn, and no cell is made or left
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    page.keyboard.press("PageDown")
    assert shown.get_by_text("page 2 of 2").is_visible() and tiles.count() == total - 24
    for key in ("ArrowDown", "a", "b", "x", "End"): page.keyboard.press(key)
    assert tiles.nth(total - 25).evaluate("e => e === document.activeElement")
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells
    notebook.theme("JupyterLab Light")

    assert not page.wrong, page.wrong[0]


def test_without_a_kernel(lab, page):
    "The stored notebook: instead of the browser, a sheet of some samples."
    shutil.copy(CHECKOUT / "nbs/explore_data.ipynb", lab.root / "nbs/stored.ipynb")
    page.goto(f"http://127.0.0.1:{lab.port}/doc/tree/nbs/stored.ipynb?token={lab.token}")
    sheet = Notebook(lab, page).output_after("In JupyterLab").locator("img")
    sheet.wait_for(state="visible")
    assert sheet.evaluate("e => e.complete && e.naturalWidth") > 400
    sheet.scroll_into_view_if_needed()
    lab.stop_kernels()


def test_objects_and_expressions(notebook, tmp_path):
    rooms = make_demo("room", tmp_path / "rooms", size=96, train=6, val=2, test=2, layout="coco", workers=1)
    aerial = ensure_demo_aerial(tmp_path / "aerial", size=128, train=6, val=2, test=2)
    opened = "from sam_nb.view.data_browser import DataBrowser\nDataBrowser(%r)"
    notebook.open("browsers.ipynb", opened % str(rooms), opened % str(aerial)).run_all()
    objects, spoken, page = notebook.output(0), notebook.output(1), notebook.page
    for browser in (objects, spoken): expect(browser.locator(".sam-face canvas").first).to_be_visible()
    page.wait_for_function("() => [...document.querySelectorAll('.sam-face canvas')].every(c => c.dataset.drawn)")
    notebook.shot("data_objects", objects)
    notebook.shot("data_expressions", spoken)

    # objects: the most crowded first, then one open
    objects.get_by_label("order", exact=True).select_option("objects")
    counts = [int(t.split()[0]) for t in objects.locator(".sam-tile > small").all_inner_texts()]
    assert counts == sorted(counts, reverse=True) and counts[0] > 3
    objects.locator(".sam-tile").first.click()
    stage = Stage(objects.locator(".samnb-stage"), (96, 96))
    stage.at.wait_for(state="visible")
    stage.wait_until(lambda now: now[..., :3].std() > 10)
    notebook.shot("data_objects_large", objects)

    # expressions: words are found, and a click on one shows its mask alone
    expression = read_json(next((aerial / "Annotations").glob("*.json")))["annotations"][0]["description"]
    spoken.locator(".sam-tools input[type=search]").fill(expression)
    spoken.locator(".sam-tile").first.click()
    stage = Stage(spoken.locator(".samnb-stage"), (128, 128))
    stage.at.wait_for(state="visible")
    everything = stage.wait_until(lambda now: now[..., :3].std() > 10)
    line = spoken.locator("[data-mask]").filter(has_text=expression).first
    line.locator(".samnb-name").click(); page.mouse.move(0, 0)
    alone = stage.wait_change(everything)
    notebook.shot("data_expression", spoken)
    stage.at.focus(); page.keyboard.press("h")  # hides the masks
    bare = stage.wait_change(alone)
    pixels = int(re.search(r"([\d,]+) px", line.inner_text()).group(1).replace(",", ""))
    assert 0.8 * pixels < changed(alone, bare, 12).sum() / stage.view[0]**2 < 1.2 * pixels + 60, "as many pixels as the line says, and its outline"
    assert not page.wrong, page.wrong[0]


class Labels(Stage):
    "A label map over its picture."
    def off(self, drawn: np.ndarray, image: np.ndarray, ids: np.ndarray, classes) -> float:
        "Share of the image's pixels that are not the picture with these classes over it; outlines are left out."
        (scale, x0, y0), over = self.view, np.zeros((*ids.shape, 3))
        if not 0 < scale < 64: return 1.0
        for c in classes: over[ids == c] = colours()[c]
        wanted = np.where(np.isin(ids, list(classes))[..., None], (image + over) / 2, image)
        edge = np.zeros(ids.shape, bool)
        edge[:, :-1] |= ids[:, 1:] != ids[:, :-1]
        edge[:-1] |= ids[1:] != ids[:-1]
        edge[:, 1:] |= ids[:, 1:] != ids[:, :-1]
        edge[1:] |= ids[1:] != ids[:-1]
        ys, xs = ((start + (np.arange(n) + 0.5) * scale).astype(int) for start, n in ((y0, ids.shape[0]), (x0, ids.shape[1])))
        if ys[-1] >= drawn.shape[0] or xs[-1] >= drawn.shape[1]: return 1.0
        wrong = np.abs(drawn[ys[:, None], xs[None], :3] - wanted).max(-1) > 6
        return float(wrong[~edge].mean())


def colours() -> np.ndarray:
    "Seven colours, then the first two lighter."
    return np.concatenate([OKABE_ITO, OKABE_ITO[:2] * 0.45 + 255 * 0.55]).round()
