"""A student's run that is killed goes on to the same weights; two processes are one with the whole batch; mistakes are told before a step."""
from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sam_nb.core import CheckpointError, ParameterError, TrainingError
from sam_nb.heads import mask2former_loss
from sam_nb.methods import s4m as method
from sam_nb.methods.s4m import S4M, TeachStudent
from sam_nb.methods.s4m_job import JOB
from sam_nb.methods.s4m_weights import load, load_helper
from sam_nb.testing import samples
from sam_nb.training.loop import trainer_for
from sam_nb.training.runs import Run
from sam_nb.training.state import load_training_state
from tests import s4m, toy
from tests.test_distributed import Keep, one_and_two
from tests.test_resume import differences, kill_after


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("s4m")
    s4m.world(root)
    return root


def test_a_killed_student_goes_on_to_the_same_weights(folder):
    "Student and teacher, both streams, points, pasting, colours, counters."
    whole, broken = s4m.train(folder, "whole"), s4m.train(folder, "broken", slow=0.1)
    at = kill_after(broken, folder, "broken", 7, 0.03)
    toy.finish(s4m.train(folder, "broken", resume=True), folder, "broken")
    toy.finish(whole, folder, "whole")
    assert at < 12 and differences(folder / "whole", folder / "broken") == []
    lines = toy.lines(folder, "whole")
    assert lines == toy.lines(folder, "broken")
    assert [row["step"] for row in lines if "labels_per_image" in row] == list(range(1, 13))
    assert len({row["loss_ce_ssl"] for row in lines if "loss_ce_ssl" in row}) == 12


def test_the_state_holds_the_teacher_and_not_the_sam(folder):
    state, about = load_training_state(folder / "whole/last/training.safetensors")
    names = {n.split(".")[1] for n in state if n.startswith("model.")}
    trained = {n.split(".", 2)[2].split(".")[0] for n in state if n.startswith("optimizer.")}
    assert names == {"network", "teacher"} and trained == {"network"} and about["frozen"].keys() == {"helper"}
    first, last = (load_file(f)["teacher.net.class_predictor.weight" if "whole" in str(f) else "network.net.class_predictor.weight"]
                   for f in (folder / "teacher/model.safetensors", folder / "whole/weights.safetensors"))
    assert not torch.equal(first, last)  # the teacher has moved
    assert load(folder / "whole/model", which="teacher").answering.training is False


def test_pseudo_labels_every_third_step(folder):
    made = s4m.trainer(folder, "third", every=3, steps=6)
    made.fit()
    assert [row["step"] for row in toy.lines(folder, "third") if "loss_ce_ssl" in row] == [1, 4]
    assert [row["step"] for row in toy.lines(folder, "third") if "labels_per_image" in row] == [1, 4]


def test_two_processes_equal_one_with_the_same_batch(tmp_path, monkeypatch):
    "Uneven numbers of masks; every mask is compared at the same points, nothing else is random but the images' frames."
    def points(size, counts, device="cpu", generator=None):
        fixed = torch.rand(4096, 2, generator=torch.Generator().manual_seed(1))
        return [fixed[:shape[1]].expand(shape[0], -1, -1) for shape in mask2former_loss._draw_shapes(size, counts)]
    monkeypatch.setattr(mask2former_loss, "draw_points", points)
    s4m.world(tmp_path, norm="FrozenBN")
    def make(name, batch): return s4m.trainer(tmp_path, name, batch_size=batch, steps=4, share="8 images", burn_in=1, arp="off", strong=False, prompts="box", callbacks=[Keep(tmp_path)])
    one_and_two(tmp_path, make)
    single, first, second = (load_file(tmp_path / f"rank{name}.safetensors") for name in ("0of1", "0of2", "1of2"))
    assert all(torch.equal(first[k], second[k]) for k in first)
    for a, b in zip(toy.lines(tmp_path, "single"), toy.lines(tmp_path, "double"), strict=True):
        for key in (k for k in a if "loss" in k or k == "labels_per_image"): assert b[key] == pytest.approx(a[key], rel=1e-6 if a["step"] == 1 else 1e-3), key
    off = torch.cat([(first[k] - single[k]).abs().flatten() for k in single if single[k].is_floating_point()])
    assert (off > 1e-4).float().mean() < 0.02  # Adam makes a whole step of the rounding of a gradient near zero


# What somebody may get wrong

def test_a_batch_of_two_is_not_pasted_and_said_once(folder):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        s4m.trainer(folder, "two", batch_size=2, steps=3, burn_in=1).fit()
    assert sum("a batch of 3 or more" in str(w.message) for w in said) == 1


def test_a_batch_of_one(folder): s4m.trainer(folder, "one", batch_size=1, steps=2, burn_in=1, arp="off").fit()


def test_a_teacher_that_is_sure_of_nothing_is_refused(folder):
    with pytest.raises(TrainingError, match="no pseudo-label above 0.99 on 8 unlabelled images; the surest has") as told:
        s4m.trainer(folder, "unsure", threshold=0.99).fit()
    lower = float(re.search(r"threshold=([0-9.]+),", str(told.value))[1])
    s4m.trainer(folder, "surer", threshold=lower, steps=2, burn_in=1).fit()  # the remedy works


def test_a_teacher_that_sees_no_object_is_told_so(folder, tmp_path):
    blind = S4M(backbone=s4m.SIZE, classes=s4m.CLASSES)
    with torch.no_grad(): blind.network.net.class_predictor.bias[-1] += 30
    blind.save_pretrained(tmp_path / "blind")
    with pytest.raises(TrainingError, match="every query of the teacher is 'no object'"):
        s4m.trainer(folder, "blind", teacher=str(tmp_path / "blind")).fit()


@pytest.mark.parametrize("name", ["tiny_m2f", "tiny_rsam"])
def test_what_is_no_sam_cannot_refine(name):
    with pytest.raises(CheckpointError, match=f"'{name}' is no SAM"): load_helper(name)


def test_a_run_without_labels_for_long_stops(folder, monkeypatch):
    monkeypatch.setattr(method, "check_teacher", lambda *a: 1.0)
    made = s4m.trainer(folder, "silent", threshold=0.99)
    next(c for c in made.callbacks if isinstance(c, TeachStudent)).patience = 3
    with pytest.raises(TrainingError, match="no pseudo-label above 0.99 in 3 steps"): made.fit()
    assert made.step == 3


def test_more_objects_than_queries_is_warned_of(tmp_path):
    s4m.world(tmp_path)
    with pytest.warns(UserWarning, match="more objects than the model has queries"):
        s4m.trainer(tmp_path, "few", values=s4m.TEACHER, backbone={**s4m.SIZE, "queries": 2}, steps=2).fit()


def test_a_first_stage_is_no_student(folder):
    with pytest.raises(CheckpointError, match="there is no student here"): load(folder / "teacher", which="student")


@pytest.mark.parametrize("changes, error, message", [
    (dict(teacher=None), ParameterError, "a student needs a teacher"),
    (dict(teacher="tiny_sam2"), CheckpointError, "not an S4M"),
    (dict(teacher="nowhere"), CheckpointError, "no weights 'nowhere'"),
    (dict(refiner="tiny_sma2"), CheckpointError, "did you mean 'tiny_sam2'"),
    (dict(burn_in=12), ParameterError, "would never follow"),
    (dict(classes=["cat"]), ParameterError, "but the teacher has"),
    (dict(sd_points=3), ParameterError, "does nothing in stage 'student'"),
])
def test_wrong_parameters_are_told_before_anything_is_read(folder, changes, error, message):
    values = {**s4m.STUDENT, "teacher": str(folder / "teacher"), "data_root": str(folder / "street"), **changes}
    with pytest.raises(error, match=message): JOB.check({k: v for k, v in values.items() if v is not None})


def test_a_teacher_of_other_classes_is_told(folder, tmp_path):
    S4M(backbone=s4m.SIZE, classes=["cat", "dog"]).save_pretrained(tmp_path / "pets")
    with pytest.raises(ParameterError, match="no class cat, dog"): s4m.trainer(folder, "pets", teacher=str(tmp_path / "pets"))


# The original layouts

@pytest.mark.parametrize("name, preset, share, changes", [
    ("coco", "coco_10", "12 images", dict(image_size=96, test_min=96, test_max=128)),
    ("cityscapes", "cityscapes_30", "2 images", dict(image_size=[64, 128], test_min=128, test_max=256)),
])
def test_both_stages_on_samples_in_their_original_layout(tmp_path, name, preset, share, changes):
    root = samples(name)
    if root is None: pytest.skip("SAM_NB_SAMPLES is not set")
    quick = dict(dataset=name, data_root=str(root), preset=preset, share=share, refiner="tiny_sam2", steps=2, batch_size=1, precision="fp32", device="cpu", workers=0,
                 eval_steps=100, save_every=100, released=True, **changes)
    recipe = JOB.check({**quick, "stage": "teacher", "backbone": s4m.SIZE, "checkpoint": "scratch", "sd_points": 4})
    data = JOB.data(recipe)
    model, _ = JOB.build(recipe, data)
    with torch.no_grad(): model.network.net.class_predictor.bias[-1] -= 4
    fit(tmp_path, "teacher", model, recipe, data)
    assert [tuple(f.masks.shape[1:]) for f in model.segment([data["val"][0]["image"]])] == [tuple(data["val"][0]["image"].shape[1:])]
    model.save_pretrained(tmp_path / "model")
    student = JOB.check({**quick, "stage": "student", "teacher": str(tmp_path / "model"), "student_init": "teacher", "threshold": 0.01, "burn_in": 1, "arp": "static"})
    lines = fit(tmp_path, "student", JOB.build(student, data)[0], student, data)
    assert all(torch.isfinite(torch.tensor(row["loss"])) for row in lines if "loss" in row) and lines[1]["labels_per_image"] > 0


def fit(root: Path, name: str, model, recipe, data) -> list[dict]:
    "A run without evaluation."
    run = Run.create("s4m", recipe, root / name)
    trainer = trainer_for(JOB, model, recipe, run, data)
    trainer.val_data = None
    trainer.callbacks = [c for c in trainer.callbacks if type(c).__name__ not in ("Scores", "WatchLabels")]
    trainer.fit()
    return toy.lines(run.folder.parent, run.name)
