"""A SAOM of few pixels on small rooms, and processes that train it."""
from __future__ import annotations

import multiprocessing
from pathlib import Path

from sam_nb.demo.files import make_demo
from sam_nb.methods.saom_job import JOB
from sam_nb.training.loop import Trainer, trainer_for
from sam_nb.training.runs import Run
from tests.toy import Slow, in_process

RECIPE = dict(dataset="demo", preset="demo", checkpoint="scratch", image_size=96, grid=8, steps=18, batch_size=2, min_area=4, iou_weight=1.0,
              assignment="random", workers=0, save_every=2, device="cpu", cache=False)


def world(root: Path) -> Path:
    return make_demo("room", root / "demo_rooms", layout="coco", size=64, train=12, val=2, test=2, hard=0)


def trainer(root: Path, name: str, resume: bool = False, callbacks=(), **changes) -> Trainer:
    "What train_saom makes of these parameters, in a new or resumed run."
    recipe = JOB.check({**RECIPE, "data_root": str(root / "demo_rooms"), "run_name": name, **changes})
    run = Run.resume(name, "saom", recipe, root) if resume else Run.create("saom", recipe, root)
    data = JOB.data(recipe)
    model, _ = JOB.build(recipe, data)
    return trainer_for(JOB, model, recipe, run, data, callbacks=callbacks)


def train(root: Path, name: str, slow: float = 0, **changes) -> multiprocessing.Process:
    "Start a training of SAOM in a process of its own."
    return in_process(lambda: trainer(root, name, callbacks=[Slow(slow)], **changes).fit(), root / f"{name}.log")
