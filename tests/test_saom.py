"""SAOM in two processes is SAOM in one; a run that is killed goes on to the same weights; the frozen encoder stays as it was."""
from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from tests import saom, toy
from tests.test_distributed import Keep, one_and_two
from tests.test_resume import differences, kill_after


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "One run of one process with batch 4, and one of two processes with batch 2."
    root = tmp_path_factory.mktemp("runs")
    saom.world(root)
    one_and_two(root, lambda name, batch: saom.trainer(root, name, batch_size=batch, assignment="nearest", steps=6, callbacks=[Keep(root)]))
    return root


def test_ranks_stay_equal(folder):
    one, other = (load_file(folder / f"rank{r}of2.safetensors") for r in (0, 1))
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_two_processes_equal_one_with_the_same_batch(folder):
    one, two = load_file(folder / "rank0of1.safetensors"), load_file(folder / "rank0of2.safetensors")
    for k in one: torch.testing.assert_close(two[k], one[k], atol=2e-5, rtol=1e-4)


def test_the_encoder_stays_and_the_rest_learns(folder):
    start, end = saom.trainer(folder, "start", assignment="nearest").method.state_dict(), load_file(folder / "rank0of1.safetensors")
    changed = {k.split(".")[1 if k.startswith("model.") else 0] for k in start if not torch.equal(start[k], end[k])}
    assert changed == {"mask_decoder", "prompt_encoder", "classifier"}


def test_a_killed_run_goes_on_to_the_same_weights(folder):
    "With random points, which come from the trainer's generator."
    whole, broken = saom.train(folder, "whole"), saom.train(folder, "broken", slow=0.1)
    at = kill_after(broken, folder, "broken", 5, 0.03)
    toy.finish(saom.train(folder, "broken", resume=True), folder, "broken")
    toy.finish(whole, folder, "whole")
    assert at < 18 and differences(folder / "whole", folder / "broken") == []


def test_everything_mode_of_a_huge_image():
    "20,000 x 4,000 pixels: masks are kept as run lengths of windows, so memory stays at a few floats for each pixel."
    import numpy as np

    from sam_nb.heads.everything import Everything, records
    from sam_nb.methods.promptable import Promptable
    image = np.zeros((4000, 20000, 3), np.uint8)
    image[1000:3000, 5000:9000] = 90
    generator = Everything(Promptable.from_pretrained("tiny_sam"), grid=1, pred_iou_thresh=0.0, stability_score_thresh=0.0, points_per_batch=1)
    found = generator.candidates(image)
    assert len(found) and sum(len(w.rle["counts"]) for w in found.windows) < 2**20
    first = records(found[torch.tensor([0])], "coco_rle")[0]
    assert first["segmentation"]["size"] == [4000, 20000] and first["area"] == int(found.areas[0])
