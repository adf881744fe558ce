"""Faults are told with file, fact and remedy, and lose nothing."""
from __future__ import annotations

import errno
import os
import signal
import time
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from sam_nb.core import RunError, SamNbError, TrainingError
from sam_nb.training.callbacks import NaNGuard
from sam_nb.training.run_list import list_runs
from sam_nb.training.runs import Run
from sam_nb.training.state import load_training_state
from sam_nb.training.stop import TrainingInterrupted
from tests import toy

SMALL = dict(epochs=2, workers=0)


@pytest.fixture(autouse=True)
def one_thread(): torch.set_num_threads(1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "The tensors of an unbroken run."
    torch.set_num_threads(1)
    trainer = toy.trainer(tmp_path_factory.mktemp("whole"), "whole", **SMALL)
    trainer.fit()
    return load_file(trainer.run.last)


def same(run: Run, tensors: dict) -> bool: return all(torch.equal(v, tensors[k]) for k, v in load_file(run.last).items())


def test_second_run_with_the_same_name(tmp_path):
    toy.trainer(tmp_path, "mine")
    with pytest.raises(RunError, match="a second run with the same name(.|\n)*resume='mine'"): toy.trainer(tmp_path, "mine")


def test_resume_with_another_recipe_lists_every_difference(tmp_path):
    toy.trainer(tmp_path, "mine")
    with pytest.raises(RunError) as error: toy.trainer(tmp_path, "mine", resume=True, lr=1e-2, epochs=9)
    assert "epochs: 4 -> 9" in str(error.value) and "lr: 0.003 -> 0.01" in str(error.value) and "-p lr 0.003" in str(error.value)


def test_resume_on_other_data(tmp_path):
    trainer = toy.trainer(tmp_path, "mine", **SMALL)
    trainer.callbacks.append(Stop(at=4))
    with pytest.raises(TrainingInterrupted): trainer.fit()
    with pytest.raises(RunError, match="dataset of run 'mine' has changed"): toy.trainer(tmp_path, "mine", resume=True, size=61, **SMALL).fit()


class Stop(toy.Callback):
    "Sends ourselves a signal after a step."
    def __init__(self, at: int, number: int = signal.SIGTERM): self.at, self.number = at, number

    def after_step(self, t) -> None:
        if t.step == self.at: os.kill(os.getpid(), self.number)


def test_not_a_number_names_the_images_and_keeps_the_last_good_state(tmp_path):
    trainer = toy.trainer(tmp_path, "nan", bad=7, **SMALL)
    with pytest.raises(TrainingError, match="the loss of step .* is not a number; its images: .*shape7") as error: trainer.fit()
    assert Run.open("nan", tmp_path).status == "failed" and "not a number" in Run.open("nan", tmp_path).info["error"]
    step = int(str(error.value).split("the loss of step ")[1].split()[0])
    if trainer.run.last.exists(): assert load_training_state(trainer.run.last)[1]["step"] < step
    assert all(torch.isfinite(p).all() for p in trainer.method.parameters())
    assert max([r["step"] for r in toy.lines(tmp_path, "nan")], default=0) == step - 1


def test_not_a_number_on_a_gpu_is_read_late_but_before_anything_is_saved():
    guard = NaNGuard()
    t = SimpleNamespace(device=SimpleNamespace(type="cuda"), run=SimpleNamespace(folder="runs/x"), log_every=20, names={})
    for t.step, loss in enumerate([1.0, float("inf"), float("nan")]):
        t.loss, t.batch = torch.tensor(loss), {"name": [f"image{t.step}"]}
        guard.after_loss(t)
        guard.after_step(t)
        if t.step == 0: guard.check(t)
    with pytest.raises(TrainingError, match="step 2 is not a number; its images: image1"): guard.before_save(t)


def test_weights_that_are_not_numbers_are_not_saved(tmp_path):
    class Spoil(toy.Callback):
        def after_step(self, t):
            if t.step == 2: next(t.method.parameters()).data.fill_(float("nan"))
    trainer = toy.trainer(tmp_path, "spoilt", **{**SMALL, "save_every": 2})
    trainer.callbacks.insert(0, Spoil())
    with pytest.raises(TrainingError, match="not numbers any more at step 2; nothing was saved"): trainer.fit()
    assert not trainer.run.last.exists()


def test_disk_full_while_saving_keeps_the_state_before(tmp_path, monkeypatch, whole):
    class Fill(toy.Callback):
        def after_step(self, t):
            def full(*_): raise OSError(errno.ENOSPC, "No space left on device")
            if t.step == 4: monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SamNbError, match="no space left on the device(.|\n)*training.safetensors(.|\n)*free some space"):
        toy.trainer(tmp_path, "full", callbacks=[Fill()], **SMALL).fit()
    monkeypatch.undo()
    run = Run.open("full", tmp_path)
    assert load_training_state(run.last)[1]["step"] == 3 and not list(run.last.parent.glob(".*"))
    toy.trainer(tmp_path, "full", resume=True, **SMALL).fit()
    assert same(run, whole)


def test_read_only_folder(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    if os.geteuid():
        (tmp_path / "runs").chmod(0o500)
        said = "no permission to write here"
    else:  # root may write anywhere
        def refuse(*_, **__): raise OSError(errno.EROFS, "Read-only file system")
        monkeypatch.setattr(os, "mkdir", refuse)
        said = "the disk is read-only"
    with pytest.raises(SamNbError, match=said): toy.trainer(tmp_path / "runs", "mine")


def test_out_of_memory_says_what_to_lower(tmp_path):
    trainer = toy.trainer(tmp_path, "large", **SMALL)
    def losses(batch): raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 TiB")
    trainer.method.losses = losses
    with pytest.raises(TrainingError, match="out of memory in step 1(.|\n)*batch_size \\(now 4(.|\n)*bf16"): trainer.fit()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_process_group_is_heard(tmp_path, number, whole):
    "As a scheduler or Ctrl-C sends it: to the loader processes, too."
    process = toy.train(tmp_path, "stopped", slow=0.03, **{**SMALL, "workers": 2})
    toy.wait_for_step(process, tmp_path, "stopped", 5)
    os.killpg(process.pid, number)
    process.join(30)
    log = (tmp_path / "stopped.log").read_text()
    assert process.exitcode and "interrupted at step" in log and "go on with --resume stopped (resume='stopped')" in log
    run = Run.open("stopped", tmp_path)
    assert run.status == "interrupted" and load_training_state(run.last)[1]["step"] == run.info["steps"] >= 5
    toy.finish(toy.train(tmp_path, "stopped", resume=True, **SMALL), tmp_path, "stopped")
    assert same(run, whole)


def test_a_signal_during_evaluation_repeats_the_evaluation(tmp_path, whole):
    trainer = toy.trainer(tmp_path, "late", **SMALL)
    update, trainer.update = trainer.update, lambda *a: os.kill(os.getpid(), signal.SIGINT) or update(*a)
    with pytest.raises(TrainingInterrupted, match="step 7 of 14"): trainer.fit()
    assert not [r for r in toy.lines(tmp_path, "late") if "val_miou" in r]
    toy.trainer(tmp_path, "late", resume=True, **SMALL).fit()
    assert [r["step"] for r in toy.lines(tmp_path, "late") if "val_miou" in r] == [7, 14] and same(trainer.run, whole)


def test_a_killed_run_is_shown_as_killed(tmp_path):
    process = toy.train(tmp_path, "gone", slow=0.05, **SMALL)
    toy.wait_for_step(process, tmp_path, "gone", 1)
    assert Run.open("gone", tmp_path).status == "running"
    with pytest.raises(RunError, match="is in use by process"): toy.trainer(tmp_path, "gone", resume=True, **SMALL)
    process.kill()
    process.join()
    time.sleep(0.01)
    assert list_runs(tmp_path).loc["gone", "status"] == "killed"
