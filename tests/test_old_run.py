"""Runs and models that an earlier version wrote (tests/old_run) are still listed, resumed and loaded."""
from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import sam_nb.training.state
from sam_nb.training.run_list import compare_runs, find_run, list_runs, metrics_table
from sam_nb.training.state import recipe_digest
from sam_nb.view.run_browser import run_records
from tests import toy

OLD = Path(__file__).parent / "old_run"
METHODS = {"sartm": "SARTM", "rsam": "RSAM", "saom": "SAOM", "promptable": "Promptable"}
KINDS = {"F32": torch.float32, "I64": torch.int64}


@pytest.fixture
def root(tmp_path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "runs"))


def resume(root: Path) -> toy.Trainer:
    torch.set_num_threads(1)
    return toy.trainer(root, "toy", resume=True, epochs=2, workers=0, save_every=None)


def off(root: Path) -> float:
    "How far the resumed weights are from those of the whole run, as a share of the way from step 9 to step 14."
    here, whole, start = (load_file(file) for file in (root / "toy/weights.safetensors", OLD / "whole/weights.safetensors", OLD / "toy/last/training.safetensors"))
    assert here.keys() == whole.keys()
    length = lambda other: sum((other(k) - v).double().pow(2).sum() for k, v in whole.items() if v.is_floating_point()) ** 0.5
    return float(length(lambda k: here[k]) / length(lambda k: start[f"model.{k}"]))


def test_an_old_run_resumes_and_goes_on(root):
    """`toy` was stopped by SIGTERM at step 9 of 14; `whole` is what the earlier version made of the same recipe without a stop.

    Equal bits where this processor computes as the one that wrote them; elsewhere its rounding may change a fiftieth of the way.
    """
    trainer = resume(root)
    trainer.fit()
    assert find_run("toy", root=root).status == "finished" and trainer.step == 14
    before, after = toy.lines(OLD, "toy"), toy.lines(root, "toy")
    assert after[:len(before)] == before and [r["step"] for r in after if "loss" in r] == list(range(1, 15))
    here = toy.trainer(root, "here", epochs=2, workers=0, save_every=None)
    here.fit()
    resumed, old, new = (load_file(folder / "last/training.safetensors") for folder in (root / "toy", OLD / "whole", root / "here"))
    assert resumed.keys() == old.keys() == new.keys() and off(root) < 0.02
    if all(torch.equal(old[k], new[k]) for k in old): assert after == toy.lines(OLD, "whole") and all(torch.equal(old[k], resumed[k]) for k in old)


def test_forgotten_moments_of_an_old_run_are_noticed(root, monkeypatch):
    monkeypatch.setattr(sam_nb.training.state, "_restore_optimizer", lambda *a: None)
    resume(root).fit()
    assert off(root) > 0.05


def test_an_old_run_is_resumed_where_it_stopped(root):
    tensors, trainer = load_file(OLD / "toy/last/training.safetensors"), resume(root)
    class Look(toy.Callback):
        def begin(self, t):
            assert (t.step, t.epoch) == (9, 1)
            for name, value in t.method.state_dict().items(): assert torch.equal(value, tensors[f"model.{name}"])
    trainer.callbacks.append(Look())
    trainer.fit()


def test_old_runs_are_listed(root):
    runs = list_runs(root)
    assert set(runs.index) == {"toy", "whole", *(f"old-{m}" for m in METHODS)}
    assert runs.loc["toy", "status"] == "interrupted" and (runs.drop("toy")["status"] == "finished").all()
    assert dict(runs["of"]) == dict.fromkeys(runs.index, "miou") and runs.loc["old-sartm", "steps"] == 2
    assert find_run("last", method="saom", root=root).name == "old-saom"
    assert list(metrics_table(find_run("whole", root=root)).index) == list(range(1, 15))
    assert "miou" in str(compare_runs(["toy", "whole"], root))


def test_the_run_browser_reads_old_runs(root):
    records = {r["name"]: r for r in run_records(root)}
    assert len(records) == 6 and not any(r["problems"] for r in records.values())
    for method in METHODS:
        record = records[f"old-{method}"]
        assert record["method"] == method and record["score"]["name"] == "miou" and record["steps"] == 2 and record["curves"]
    assert records["old-sartm"]["classes"]["from"] == "eval.json" and len(records["old-sartm"]["classes"]["values"]) == 9
    assert {"test before mIoU", "test after mIoU"} <= records["old-saom"]["scores"].keys()
    assert "interrupted" in records["toy"]["message"]


@pytest.mark.parametrize("method", METHODS)
def test_an_old_recipe_is_unchanged(method):
    "A run of this recipe may go on: it reads as the same recipe, and has the same digest."
    about, info = json.loads((OLD / f"old-{method}/state.json").read_text()), json.loads((OLD / f"old-{method}/run.json").read_text())
    kind = getattr(import_module(f"sam_nb.methods.{method}_recipe"), f"{method.capitalize()}Recipe")
    assert recipe_digest(kind(**info["recipe"]), info["recipe"]) == about["recipe"]


@pytest.mark.parametrize("method, name", METHODS.items())
def test_an_old_model_loads(tmp_path, method, name):
    "A saved model of the old names, shapes and configuration."
    folder = Path(shutil.copytree(OLD / f"old-{method}/model", tmp_path / "model"))
    tensors = json.loads((OLD / f"old-{method}/state.json").read_text())["tensors"]
    g = torch.Generator().manual_seed(0)
    made = {k: torch.rand(shape, generator=g).to(KINDS[kind]) for k, (kind, *shape) in tensors.items()}
    save_file(made, folder / "model.safetensors")
    state = getattr(import_module(f"sam_nb.methods.{method}"), name).from_pretrained(folder).state_dict()
    assert state.keys() == made.keys() and all(torch.equal(state[k], made[k]) for k in made)
