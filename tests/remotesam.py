"A RemoteSAM of few pixels on a small aerial demo, and processes that train it."
from __future__ import annotations

import multiprocessing
from pathlib import Path

from sam_nb.demo.aerial import make_demo_aerial
from sam_nb.methods.remotesam_job import JOB
from sam_nb.training.loop import Trainer, trainer_for
from sam_nb.training.runs import Run
from tests.toy import Slow, in_process

SIZE = dict(embed_dim=8, depths=[1, 2, 1, 1], heads=[1, 1, 2, 2], window=4)
RECIPE = dict(dataset="demo", preset="tiny", backbone=SIZE, image_size=64, epochs=None, steps=16, batch_size=2, expressions=3, negatives=1.0, drop_path=0.2,
              workers=0, save_every=2, eval_every=2, device="cpu")


def world(root: Path) -> Path: return make_demo_aerial(root / "demo_aerial", size=64, train=8, val=2, test=2, absent=1)


def trainer(root: Path, name: str, resume: bool = False, callbacks=(), **changes) -> Trainer:
    "What train_remotesam makes of these parameters, in a new or resumed run."
    recipe = JOB.check({**RECIPE, "data_root": str(root / "demo_aerial"), "run_name": name, **changes})
    run = Run.resume(name, "remotesam", recipe, root) if resume else Run.create("remotesam", recipe, root)
    data = JOB.data(recipe)
    return trainer_for(JOB, JOB.build(recipe, data)[0], recipe, run, data, callbacks=callbacks)


def train(root: Path, name: str, slow: float = 0, **changes) -> multiprocessing.Process:
    "Start a training of RemoteSAM in a process of its own."
    return in_process(lambda: trainer(root, name, callbacks=[Slow(slow)], **changes).fit(), root / f"{name}.log")
