"Golden checks of S4M: the parts of each room, then whole steps. Sizes, counts, seeds and draws come from the files."
from __future__ import annotations

import importlib
from pathlib import Path

import torch

from tests.parity.checks import Checks

PARTS = ("net", "data", "shares", "pseudo", "scores", "steps")  # each runs both precisions itself, where it has both
READ = {"arp", "arp_more", "cityscapes_lists", "cityscapes_tools", "coco_tools", "keymap", "metrics", "postprocess", "pseudo_labels", "sam",
        "schedules", "sd_teacher_step", "student_steps", "swin_backbone", "transforms"}  # besides m2f_*: what the parts read


def run(folder: Path) -> Checks:
    "Every golden check of the folder."
    torch.set_num_threads(1)
    folder, checks = Path(folder), Checks()
    for part in PARTS: importlib.import_module(f"tests.parity.s4m_{part}").check(folder, checks)
    for path in sorted(folder.iterdir()):
        if path.stem not in READ and not path.name.startswith("m2f_"): checks.absent("unknown file", f"a check of {path.name}")
    return checks
