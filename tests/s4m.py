"A small S4M on a small street, and processes that train it."
from __future__ import annotations

import multiprocessing
from pathlib import Path

import torch

from sam_nb.demo.files import make_demo
from sam_nb.methods.s4m import S4M
from sam_nb.methods.s4m_job import JOB
from sam_nb.training.loop import Trainer, trainer_for
from sam_nb.training.runs import Run
from tests.toy import Slow, in_process

SIZE = dict(backbone=dict(kind="resnet", embedding_size=8, hidden_sizes=[8, 16, 32, 64], depths=[1, 1, 1, 1]), feature_size=32, mask_feature_size=16,
            hidden_dim=32, queries=24, decoder_layers=3, encoder_layers=1, num_heads=4, encoder_ffn=32, ffn=32, points=64)
CLASSES = ["building", "tree", "car", "person", "cyclist", "sign"]
COMMON = dict(dataset="demo", preset="demo", share="6 images", batch_size=3, image_size=64, test_min=64, test_max=128, eval_steps=100, save_every=2,
              workers=0, device="cpu")
TEACHER = dict(COMMON, stage="teacher", backbone=SIZE, checkpoint="scratch", sd_points=4, steps=4)
STUDENT = dict(COMMON, stage="student", threshold=0.05, steps=12, burn_in=3, decay=0.8, paste_area=1)


def world(root: Path, **switches) -> None:
    "A street of eight images, and a teacher that is sure of everything."
    make_demo("street", root / "street", size=64, train=8, val=2, test=2, hard=0, layout="coco", workers=1)
    torch.manual_seed(0)
    teacher = S4M(backbone=SIZE, classes=CLASSES, **switches)
    with torch.no_grad(): teacher.network.net.class_predictor.bias[-1] -= 3
    teacher.save_pretrained(root / "teacher")


def trainer(root: Path, name: str, resume: bool = False, callbacks=(), values=STUDENT, **changes) -> Trainer:
    "What train_s4m makes of these parameters, in a new or resumed run."
    teacher = {"teacher": str(root / "teacher")} if values is STUDENT else {}
    recipe = JOB.check({**values, **teacher, "data_root": str(root / "street"), "run_name": name, **changes})
    run = Run.resume(name, "s4m", recipe, root) if resume else Run.create("s4m", recipe, root)
    data = JOB.data(recipe)
    return trainer_for(JOB, JOB.build(recipe, data)[0], recipe, run, data, callbacks=callbacks)


def train(root: Path, name: str, slow: float = 0, **changes) -> multiprocessing.Process:
    "Start a training of S4M in a process of its own."
    return in_process(lambda: trainer(root, name, callbacks=[Slow(slow)], **changes).fit(), root / f"{name}.log")
