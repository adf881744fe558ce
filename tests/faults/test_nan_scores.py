"""Validation labels of which nothing can be scored: one warning that names the cause, the last weights, a run that ends well and is shown."""
from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from sam_nb.contract import job, jobs
from sam_nb.metrics import SemanticScores
from sam_nb.training.callbacks import BestWeights, EarlyStop, Scores
from sam_nb.training.run_list import compare_runs, inspect_run, list_runs
from sam_nb.training.toy import Shapes, toy_trainer


class Ignored(Shapes):
    "Shapes whose labels are ignored everywhere."
    def __getitem__(self, i): return {**super().__getitem__(i), "semantic": torch.full((32, 32), 255)}


def fit(trainer) -> None:
    with pytest.warns(UserWarning) as said: trainer.fit()
    said = [str(w.message) for w in said if "cannot choose the best weights" in str(w.message)]
    assert len(said) == 1 and trainer.monitor in said[0] and "ignored" in said[0], said


def shown(trainer) -> None:
    "The run ended, holds the last weights and no best score, and every list of runs takes it."
    folder, root = trainer.run.folder, trainer.run.folder.parent
    assert math.isnan(trainer.scores[trainer.monitor])
    assert trainer.run.info["status"] == "finished" and trainer.run.info["score"] is None and trainer.run.weights.exists()
    row = list_runs(root).loc[folder.name]
    assert row["status"] == "finished", row
    inspect_run(folder), compare_runs([folder.name, folder.name], root)


@pytest.mark.parametrize("name", sorted(jobs()))
def test_the_metric_of_every_method(name, tmp_path):
    "The card's metric, which sees no object."
    card = job(name)
    data = {"train": SimpleNamespace(classes=("a", "b")), "val": SimpleNamespace(classes=("a", "b"))}
    trainer = toy_trainer(tmp_path, name, epochs=2, callbacks=[Scores(), BestWeights(), EarlyStop(9)])
    trainer.metric, trainer.monitor = card.metric(SimpleNamespace(absent="zero"), data), card.monitor
    trainer.update = lambda metric, predictions, batch: None
    fit(trainer)
    shown(trainer)


@pytest.mark.parametrize("absent", ["zero", "skip"])
def test_labels_that_are_ignored_everywhere(absent, tmp_path):
    trainer = toy_trainer(tmp_path, "ignored", epochs=2, usual=True)
    trainer.val_data, trainer.metric = Ignored(4), SemanticScores(3, absent=absent)
    fit(trainer)
    shown(trainer)


def test_a_split_that_can_be_scored_later(tmp_path):
    "The first number is best, however late it comes."
    class Late(SemanticScores):
        evaluations = 0
        def compute(self):
            Late.evaluations += 1
            return {**super().compute(), **({"miou": math.nan} if Late.evaluations < 3 else {})}
    trainer = toy_trainer(tmp_path, "late", epochs=3, usual=True)
    trainer.metric = Late(3)
    fit(trainer)
    assert trainer.run.info["score"]["step"] == 9 and trainer.run.info["score"]["value"] > 0
