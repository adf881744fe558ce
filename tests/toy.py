"""A toy method on generated images, and processes that train it."""
from __future__ import annotations

import copy
import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torchmetrics
from torch import nn

from sam_nb.core import derive_seed
from sam_nb.frozen import FrozenParts
from sam_nb.optim import average_into
from sam_nb.recipe import Recipe
from sam_nb.training.callbacks import Callback
from sam_nb.training.loader import TrainStream
from sam_nb.training.loop import Trainer
from sam_nb.training.runs import Run

RECIPE = dict(dataset="shapes", epochs=4, batch_size=4, accumulate=2, lr=3e-3, warmup_epochs=0.5, clip_norm=1.0, ema_decay=0.9, save_every=3,
              device="cpu", workers=2)


class Shapes:
    "Generated 16 x 16 images with a square of one of two colours."
    def __init__(self, size: int, part: str = "train", bad: int | None = None):  # bad: a sample that holds NaN
        self.size, self.part, self.bad = size, part, bad

    def __len__(self) -> int: return self.size

    def __getitem__(self, i: int) -> dict:
        g = torch.Generator().manual_seed(derive_seed("toy", self.part, i))
        image, label = torch.rand(3, 16, 16, generator=g), torch.zeros(16, 16, dtype=torch.long)
        (y, x), kind = torch.randint(0, 9, (2,), generator=g), int(torch.randint(0, 2, (), generator=g))
        image[kind, y:y + 7, x:x + 7] += 1
        label[y:y + 7, x:x + 7] = kind + 1
        return dict(image=image * (float("nan") if i == self.bad else 1), semantic=label, name=f"shape{i}")


def augment(sample: dict, generator: torch.Generator) -> dict:
    "Flip and add noise."
    flip = [-1] if torch.rand((), generator=generator) < 0.5 else []
    image = sample["image"] + 0.1 * torch.randn(sample["image"].shape, generator=generator)
    return {**sample, "image": image.flip(flip), "semantic": sample["semantic"].flip(flip)}


class Toy(nn.Module):
    "Three convolutions, with batch norm (buffers) and dropout (randomness) unless `plain`."
    def __init__(self, plain: bool = False, width: int = 8):
        super().__init__()
        middle = [] if plain else [nn.BatchNorm2d(width), nn.Dropout(0.2)]
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), *middle, nn.ReLU(), nn.Conv2d(width, 3, 3, padding=1))
        self.unused = nn.Linear(2, 2)  # never gets a gradient

    def losses(self, batch: dict) -> dict[str, torch.Tensor]:
        logits = self.body(batch["image"])
        return dict(ce=nn.functional.cross_entropy(logits, batch["semantic"]), flat=1e-3 * logits.square().mean())

    def predict(self, batch: dict) -> list[torch.Tensor]: return list(self.body(batch["image"]))

    def parameter_groups(self, recipe: Recipe) -> list[dict]:
        first, rest = [*self.body[0].parameters()], [*self.body[1:].parameters(), *self.unused.parameters()]
        return [dict(name="first", params=first, lr=recipe.lr / 2, weight_decay=0.0),
                dict(name="rest", params=rest, lr=recipe.lr, weight_decay=recipe.weight_decay)]


class Score(torchmetrics.Metric):
    "Mean IoU of the three labels, in percent."
    def __init__(self):
        super().__init__()
        self.add_state("counts", torch.zeros(3, 3), dist_reduce_fx="sum")

    def update(self, labels: torch.Tensor, target: torch.Tensor) -> None:
        self.counts += torch.bincount((target * 3 + labels).flatten(), minlength=9).reshape(3, 3)

    def compute(self) -> dict[str, torch.Tensor]:
        hit = self.counts.diag()
        return {"miou": 100 * (hit / (self.counts.sum(0) + self.counts.sum(1) - hit)).mean()}


class Slow(Callback):
    "Gives the killer time to aim."
    def __init__(self, seconds: float): self.seconds = seconds
    def after_step(self, t: Trainer) -> None: time.sleep(self.seconds)


def trainer(root: str | Path, name: str, resume: bool = False, size: int = 60, plain: bool = False, bad: int | None = None, callbacks=(),
            **changes) -> Trainer:
    "A trainer of the toy method in a new or resumed run."
    recipe = Recipe(**{**RECIPE, **changes, "run_name": name})
    run = Run.resume(name, "toy", recipe, root) if resume else Run.create("toy", recipe, root)
    torch.manual_seed(recipe.seed)
    return Trainer(Toy(plain), recipe, run, Shapes(size, bad=bad), augment, Shapes(10, "val"), metric=Score(), callbacks=callbacks)


class SemiToy(FrozenParts):
    "A student, its mean teacher, and a frozen network that smooths the teacher's maps."
    frozen_parts, teacher_parts = ("smooth",), ("teacher",)

    def __init__(self, helper: float = 1.0, plain: bool = False):
        super().__init__()
        self.student, self.smooth = Toy(plain), nn.Conv2d(3, 3, 3, padding=1)
        self.teacher = copy.deepcopy(self.student)
        nn.init.constant_(self.smooth.bias, helper)

    def losses(self, batch: dict) -> dict[str, torch.Tensor]:
        return {**self.student.losses(batch), "unlabelled": self.student.losses(batch["unlabelled"])["ce"]}

    def predict(self, batch: dict) -> list[torch.Tensor]: return self.student.predict(batch)
    def parameter_groups(self, recipe: Recipe) -> list[dict]: return self.student.parameter_groups(recipe)


class Teach(Callback):
    "Before each step: the teacher moves towards the student, and labels the unlabelled images."
    @torch.no_grad()
    def before_step(self, t: Trainer) -> None:
        average_into(t.method.teacher, t.method.student, 0.8)
        for batch in t.batches:
            more = batch["unlabelled"]
            more["semantic"] = t.method.smooth(torch.stack(t.method.teacher.predict(more))).argmax(1)


def semi_trainer(root: str | Path, name: str, helper: float = 1.0, plain: bool = False, unlabelled: int = 50, batch: int = 6, callbacks=(),
                 **options) -> Trainer:
    "A trainer of the semi-supervised toy: 60 labelled images with repeat factors in batches of 4, 50 unlabelled ones in batches of 6."
    made = trainer(root, name, callbacks=[Teach(), *callbacks], **options)
    made.method, made.extra_data = SemiToy(helper, plain), {"unlabelled": TrainStream(Shapes(unlabelled, "unlabelled"), augment, batch)}
    made.repeat = [1 + k % 4 / 4 for k in range(len(made.train_data))]
    return made


def lines(root: str | Path, name: str) -> list[dict]:
    "The complete lines of metrics.jsonl, without the one number that depends on the clock."
    path = Path(root) / name / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")] if path.exists() else []
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]


def in_process(function: Callable, log: Path, *arguments, **named) -> multiprocessing.Process:
    "Start `function(*arguments, **named)` in a process of its own (forked, so that torch is imported once); its output goes to `log`."
    def main() -> None:
        os.setsid()
        torch.set_num_threads(1)
        sys.stdout = sys.stderr = file = open(log, "a", buffering=1)
        os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
        try: function(*arguments, **named)
        except BaseException:
            traceback.print_exc()
            raise
    process = multiprocessing.get_context("fork").Process(target=main)
    process.start()
    return process


def train(root: Path, name: str, slow: float = 0, make: Callable = trainer, **changes) -> multiprocessing.Process:
    "Start a training of the toy method in a process of its own."
    return in_process(lambda: make(root, name, callbacks=[Slow(slow)], **changes).fit(), root / f"{name}.log")


def finish(process: multiprocessing.Process, root: Path, name: str) -> None:
    "Wait for a training that must end well."
    process.join(600)
    assert process.exitcode == 0, (root / f"{name}.log").read_text()


def wait_for_step(process: multiprocessing.Process, root: Path, name: str, step: int) -> None:
    "Wait until a training has logged `step`."
    while not any(row["step"] >= step for row in lines(root, name)):
        assert process.is_alive(), (root / f"{name}.log").read_text()
        time.sleep(0.005)
