"""A promptable model of few pixels on a small demo world, and processes that train it."""
from __future__ import annotations

import multiprocessing
from pathlib import Path

from sam_nb.contract import job
from sam_nb.demo.files import make_demo
from sam_nb.training.loop import Trainer, trainer_for
from sam_nb.training.runs import Run
from tests.toy import Slow, in_process

RECIPE = dict(dataset="demo", preset="default", backbone="tiny_sam2", checkpoint="scratch", image_size=64, trainable="lora", clicks=2, vary_clicks=True,
              mask_share=0.2, scale_min=0.8, scale_max=1.2, jitter=0.5, objects=3, min_area=4, epochs=3, batch_size=2, lr=1e-3, ema_decay=0.9,
              save_every=2, device="cpu", workers=2)


def world(root: Path) -> Path:
    return make_demo(("street", "room", "things"), root / "demo_objects", layout="coco", size=64, train=12, val=2, test=2, hard=0)


def trainer(root: Path, name: str, resume: bool = False, callbacks=(), **changes) -> Trainer:
    "What train_promptable makes of these parameters, in a new or resumed run."
    card = job("promptable")
    recipe = card.check({**RECIPE, "data_root": str(root / "demo_objects"), "run_name": name, **changes})
    run = Run.resume(name, card.name, recipe, root) if resume else Run.create(card.name, recipe, root)
    data = card.data(recipe)
    return trainer_for(card, card.build(recipe, data)[0], recipe, run, data, callbacks=callbacks)


def train(root: Path, name: str, slow: float = 0, **changes) -> multiprocessing.Process:
    "Start a training of a promptable model in a process of its own."
    return in_process(lambda: trainer(root, name, callbacks=[Slow(slow)], **changes).fit(), root / f"{name}.log")
