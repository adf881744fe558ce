"""An RSAM of few pixels on a small aerial demo, and processes that train it."""
from __future__ import annotations

import multiprocessing
from pathlib import Path

from sam_nb.demo.aerial import make_demo_aerial
from sam_nb.methods.rsam_job import JOB
from sam_nb.training.loop import Trainer
from sam_nb.training.runs import Run
from tests.toy import Slow, in_process

RECIPE = dict(dataset="demo", preset="demo", checkpoint="scratch", image_size=64, loss_size=32, guidance_mlp=32, steps=16, batch_size=2, expressions=3,
              black_boxes=0.5, negatives=1.0, drop_path=0.1, workers=0, save_every=2, eval_every=20, device="cpu")


def world(root: Path) -> Path: return make_demo_aerial(root / "demo_aerial", size=64, train=8, val=2, test=2, absent=1)


def trainer(root: Path, name: str, resume: bool = False, callbacks=(), **changes) -> Trainer:
    "What train_rsam makes of these parameters, in a new or resumed run."
    recipe = JOB.check({**RECIPE, "data_root": str(root / "demo_aerial"), "run_name": name, **changes})
    run = Run.resume(name, "rsam", recipe, root) if resume else Run.create("rsam", recipe, root)
    data = JOB.data(recipe)
    model, _ = JOB.build(recipe, data)
    transforms = JOB.transforms(model, recipe, data)
    return Trainer(model, recipe, run, data["train"], transforms["train"], data["val"], transforms["val"], JOB.metric(recipe, data),
                   JOB.collate(recipe), JOB.monitor, update=JOB.update(recipe), callbacks=callbacks)


def train(root: Path, name: str, slow: float = 0, **changes) -> multiprocessing.Process:
    "Start a training of RSAM in a process of its own."
    return in_process(lambda: trainer(root, name, callbacks=[Slow(slow)], **changes).fit(), root / f"{name}.log")
