"explore_referring: a sentence, clicks, and what is saved."
import numpy as np

from sam_nb.core import read_json
from sam_nb.datasets.pictures import image_array

from .lab import CHECKOUT, Canvas, changed, expect


def test_ask_click_save(notebook):
    notebook.open("explore_referring.ipynb", expressions="the red plane; the ship", device="cpu").run_all()
    shown, page = notebook.output(), notebook.page
    canvas = Canvas(shown.locator("canvas"), (256, 256))
    status = shown.locator(".widget-html-content")
    page.wait_for_function("element => element.width > 300", arg=canvas.at.element_handle())
    plane = canvas.pixels()
    notebook.shot("referring_sentence", shown)
    expect(status).to_contain_text("predicted IoU")

    # another sentence: the mask leaves the plane and comes to the ship
    words = shown.locator("input[type=text]")
    words.fill("the ship"); words.press("Enter")
    ship = canvas.wait_change(plane)
    moved = changed(plane, ship)
    assert moved[246:326, 54:82].mean() > 0.3, "the ship is marked"
    assert moved[230:308, 290:364].mean() > 0.15, "the plane is not any more"
    assert moved.mean() < 0.05, "and the picture below is the same"

    # back, and a click inside: a green disc where it was clicked, and nowhere else
    words.fill("the red plane"); words.press("Enter")
    canvas.wait_until(lambda now: not changed(plane, now).any())
    before = status.inner_text()
    canvas.click(163, 134)
    page.wait_for_function("([e, t]) => e.innerText !== t", arg=[status.element_handle(), before])
    notebook.wait_idle()
    canvas.wait_until(lambda now: disc(now, 163, 134) == [40, 170, 70])

    # a click outside with Shift: a red disc, and the mask goes away there
    before = status.inner_text()
    canvas.click(175, 64, "Shift")
    page.wait_for_function("([e, t]) => e.innerText !== t", arg=[status.element_handle(), before])
    notebook.wait_idle()
    canvas.wait_until(lambda now: disc(now, 175, 64) == [210, 40, 40] and disc(now, 163, 134) == [40, 170, 70])
    notebook.shot("referring_clicks", shown)

    # saved: what the files hold is what was drawn
    shown.get_by_role("button", name="save").click()
    page.wait_for_function("e => e.innerText.startsWith('saved')", arg=status.element_handle())
    said = read_json(notebook.lab.root / "runs/referring/aerial-001.json")
    assert (said["expression"], said["clicks"]) == ("the red plane", [[163, 134, 1], [175, 64, 0]])
    kept = image_array(notebook.lab.root / "runs/referring/aerial-001.png")[..., 0] > 0
    canvas.wait_until(lambda now: off(now, image_array(CHECKOUT / "nbs/images/aerial.png"), kept) < 0.001)

    shown.get_by_role("button", name="clear").click()
    canvas.wait_until(lambda now: not changed(plane, now).any())
    assert not page.wrong


def disc(pixels: np.ndarray, x: int, y: int) -> list[int]:
    "The colour of a click; the canvas shows each pixel of the image as 2 x 2."
    return pixels[2 * y + 1, 2 * x + 1, :3].tolist()


def off(drawn: np.ndarray, image: np.ndarray, mask: np.ndarray) -> float:
    "Share of the canvas that is not the image with this mask over it, clicks left out."
    wanted = np.where(mask[..., None], image + (np.array([255, 0, 220]) - image) * (140 / 255), image).repeat(2, 0).repeat(2, 1)
    wrong = np.abs(drawn[..., :3] - wanted).max(-1) > 6
    for x, y in ((163, 134), (175, 64)): wrong[2 * y - 9:2 * y + 12, 2 * x - 9:2 * x + 12] = False
    return float(wrong.mean())
