"explore_everything: the page filters as Python does."
import json

from .lab import Stage, expect, wait_until

ASK = """
from dataclasses import replace
now = view.limits
options = replace(everything.options, pred_iou_thresh=now["score"], stability_score_thresh=now["stability"], box_nms_thresh=now["overlap"])
print(json_of([view.kept, view.found().boxes.tolist() == view.candidates.select(options).boxes.tolist(), now["score"]]))
"""


def test_filters(notebook):
    notebook.open("explore_everything.ipynb", model="tiny_sam2", grid="10", pred_iou_thresh=0.2, stability_score_thresh=0.3, device="cpu").run_all(120)
    shown, page = notebook.output(), notebook.page
    stage, words = Stage(shown.locator(".samnb-stage"), (256, 256)).ready(), shown.locator(".samnb-status")
    page.wait_for_function("e => / of \\d+ masks/.test(e.innerText)", arg=words.element_handle())
    before, count = stage.pixels(), int(words.inner_text().split()[0])
    notebook.shot("everything_all", shown)
    assert count > 3
    shown.get_by_label("predicted IoU").fill("0.5")
    page.wait_for_function("([e, n]) => Number(e.innerText.split(' ')[0]) < n", arg=[words.element_handle(), count])
    stage.wait_change(before)
    fewer = int(words.inner_text().split()[0])
    shown.get_by_label("overlap").fill("0.1")  # the page filters at once
    least = int(words.inner_text().split()[0])
    assert least <= fewer < count
    shown.get_by_label("area from").fill("1500")
    notebook.shot("everything_few", shown)
    shown.get_by_label("area from").fill("0")
    expect(words).to_contain_text(f"{least} of")
    # Python gets the last limits, and finds the same by its own rules
    wait_until(lambda: notebook.ask("print(view.limits['least'], view.limits['overlap'])").split() == ["0", "0.1"], "Python has other limits")
    said = notebook.ask("import json", "json_of = json.dumps", ASK)
    kept, same, score = json.loads(said)
    assert len(kept) == least and same and score == 0.5
    assert not page.wrong
