"""A run that is killed with `kill -9` and resumed equals an unbroken one, bit for bit."""
from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import sam_nb.training.state
from sam_nb.core import RunError
from sam_nb.training.state import load_training_state
from tests import promptable, toy


def kill_after(process, root: Path, name: str, step: int, delay: float) -> int:
    "SIGKILL the process a moment after it has logged `step`; returns the last step it logged."
    toy.wait_for_step(process, root, name, step)
    time.sleep(delay)
    process.kill()
    process.join()
    return toy.lines(root, name)[-1]["step"]


def differences(a: Path, b: Path) -> list[str]:
    "Names of the tensors that are not bit-identical in two training states (and best weights)."
    different = []
    for file in ("last/training.safetensors", "weights.safetensors"):
        one, other = load_file(a / file), load_file(b / file)
        assert one.keys() == other.keys()
        different += [name for name in one if one[name].numpy().tobytes() != other[name].numpy().tobytes()]
    return different


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    "Two runs of the same recipe: `whole` (never broken) and `broken` (killed twice; resumed to the end as `resumed`)."
    root, chance = tmp_path_factory.mktemp("runs"), random.Random(os.environ.get("SAM_NB_TEST_SEED", time.time()))
    whole, broken = toy.train(root, "whole"), toy.train(root, "broken", slow=0.03)
    first = kill_after(broken, root, "broken", chance.randint(4, 8), chance.random() * 0.06)
    for other in ("reseeded", "forgetful"): shutil.copytree(root / "broken", root / other)
    second = kill_after(toy.train(root, "broken", slow=0.03, resume=True), root, "broken", chance.randint(first + 4, 22), chance.random() * 0.06)
    toy.finish(toy.train(root, "broken", resume=True), root, "broken")
    toy.finish(whole, root, "whole")
    print(f"killed at steps {first} and {second} of 28")
    return root


def test_resumed_run_is_bit_identical(runs):
    assert differences(runs / "whole", runs / "broken") == []
    names = load_file(runs / "whole/last/training.safetensors").keys()
    assert {n.split(".")[0] for n in names} == {"model", "optimizer", "callback"}


def test_logged_numbers_are_identical(runs):
    assert toy.lines(runs, "whole") == toy.lines(runs, "broken")
    assert [row["step"] for row in toy.lines(runs, "whole") if "loss" in row] == list(range(1, 29))
    assert (runs / "broken.log").read_text().count("goes on at step") == 2


@pytest.mark.parametrize("name, changes, broken_part", [("reseeded", dict(seed=1), "recipe_digest"), ("forgetful", {}, "_restore_optimizer")])
def test_a_wrong_resume_is_noticed(runs, monkeypatch, name, changes, broken_part):
    "Negative controls: another seed, or forgotten moments, must give other weights; else the test above proves nothing."
    torch.set_num_threads(1)
    state = sam_nb.training.state.load_training_state(runs / name / "last" / "training.safetensors")[1]
    monkeypatch.setattr(sam_nb.training.state, broken_part, lambda *a: state["recipe"])
    monkeypatch.setattr("sam_nb.training.runs.recipe_changes", lambda *a: {})
    toy.trainer(runs, name, resume=True, **changes).fit()
    assert any(n.startswith("model.body") for n in differences(runs / "whole", runs / name))


@pytest.fixture(scope="module", params=[{}, dict(trainable="decoder", cache=True, flip=0.0, jitter=0.0, scale_min=1.0, scale_max=1.0)], ids=["lora", "cache"])
def promptable_runs(request, tmp_path_factory) -> Path:
    "Two runs of a promptable model, `whole` and `broken` (killed once): clicks, boxes and masks are drawn anew in every step."
    root, chance = tmp_path_factory.mktemp("promptable"), random.Random(os.environ.get("SAM_NB_TEST_SEED", time.time()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAM_NB_ROOT", str(root))
        promptable.world(root)
        broken = promptable.train(root, "broken", slow=0.03, **request.param)
        print("killed at step", kill_after(broken, root, "broken", chance.randint(3, 12), chance.random() * 0.1))
        again, whole = promptable.train(root, "broken", resume=True, **request.param), promptable.train(root, "whole", **request.param)
        toy.finish(again, root, "broken")
        toy.finish(whole, root, "whole")
    return root


def test_a_promptable_run_resumes_bit_identically(promptable_runs):
    assert differences(promptable_runs / "whole", promptable_runs / "broken") == []
    assert toy.lines(promptable_runs, "whole") == toy.lines(promptable_runs, "broken")
    assert [row["step"] for row in toy.lines(promptable_runs, "whole") if "loss" in row] == list(range(1, 19))
    assert (promptable_runs / "broken.log").read_text().count("goes on at step") == 1
    losses = {row["loss"] for row in toy.lines(promptable_runs, "whole") if "loss" in row}
    assert len(losses) == 18  # else nothing was learned or drawn


@pytest.fixture(scope="module", params=[0, 2], ids=["0 workers", "2 workers"])
def semi_runs(request, tmp_path_factory) -> Path:
    "Two runs with labelled and unlabelled images, `whole` and `broken` (killed once)."
    root, chance = tmp_path_factory.mktemp("semi"), random.Random(os.environ.get("SAM_NB_TEST_SEED", time.time()))
    options = dict(make=toy.semi_trainer, workers=request.param, epochs=3)
    broken = toy.train(root, "broken", slow=0.03, **options)
    print("killed at step", kill_after(broken, root, "broken", chance.randint(4, 14), chance.random() * 0.06))
    shutil.copytree(root / "broken", root / "other")
    again, whole = toy.train(root, "broken", resume=True, **options), toy.train(root, "whole", **options)
    toy.finish(again, root, "broken")
    toy.finish(whole, root, "whole")
    return root


def test_two_streams_and_a_teacher_resume_bit_identically(semi_runs):
    assert differences(semi_runs / "whole", semi_runs / "broken") == []
    assert toy.lines(semi_runs, "whole") == toy.lines(semi_runs, "broken")
    assert [row["step"] for row in toy.lines(semi_runs, "whole") if "loss_unlabelled" in row] == list(range(1, 22))
    assert (semi_runs / "broken.log").read_text().count("goes on at step") == 1


def test_a_teacher_is_saved_and_a_frozen_helper_is_not(semi_runs):
    for file in ("last/training.safetensors", "weights.safetensors"):
        names = load_file(semi_runs / "whole" / file).keys()
        assert any("teacher." in n for n in names) and not any("smooth." in n for n in names)
    state, about = load_training_state(semi_runs / "whole/last/training.safetensors")
    trained = {n.split(".", 2)[2].split(".")[0] for n in state if n.startswith("optimizer.")}
    averaged = {n.split(".", 2)[2].split(".")[0] for n in state if n.startswith("callback.EMA.")}
    assert trained == averaged == {"student"} and about["frozen"].keys() == {"smooth"} and about["streams"] == {"unlabelled": 12}


@pytest.mark.parametrize("changes, message", [(dict(helper=2.0), "does not fit: frozen"), (dict(unlabelled=51), "dataset of run 'other' has changed")])
def test_another_helper_or_stream_is_refused(semi_runs, changes, message):
    with pytest.raises(RunError, match=message):
        toy.semi_trainer(semi_runs, "other", resume=True, workers=0, epochs=3, **changes).fit()


def test_each_stream_counts_its_own_epochs(tmp_path):
    "60 labelled images are 7 steps of 8; 50 unlabelled ones are 4 steps of 12. Every image is seen once an epoch, at most."
    class Look(toy.Callback):
        labelled, unlabelled = [], []
        def after_loss(self, t):
            self.labelled.append(t.batch["name"]), self.unlabelled.append(t.batch["unlabelled"]["name"])
    look = Look()
    trainer = toy.semi_trainer(tmp_path, "look", workers=0, epochs=2, callbacks=[look])
    trainer.repeat = None  # every image as often as the others
    trainer.fit()
    for seen, of_epoch, size in ((look.labelled, 14, 4), (look.unlabelled, 8, 6)):
        names = [name for batch in seen for name in batch]
        assert len(seen) == 28 and all(len(batch) == size for batch in seen)
        first, second = names[:of_epoch * size], names[of_epoch * size:2 * of_epoch * size]
        assert len(set(first)) == len(first) and len(set(second)) == len(second) and first != second
