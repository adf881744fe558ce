"""Golden checks of S4M's scores: COCO's twelve figures of masks by both libraries, and Cityscapes' AP. Classes, thresholds and sizes come from the files.

`python -m tests.parity.s4m_scores FOLDER` runs these alone; `tests.parity.s4m` calls `check`.
"""
from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from sam_nb.contract import Instances
from sam_nb.instance_metrics import CITYSCAPES_IDS, COCO_FIGURES, CityscapesAP, CocoAP
from tests.parity.checks import Checks, Stored, alone


def check(folder: Path, checks: Checks) -> None:
    "Add every check of this module (once: scores are computed in float64); a file that is absent is listed as absent."
    for name in ("metrics.json", "metrics.safetensors"):
        if not (folder / name).exists(): return checks.absent("metrics", name)
    checks.group("metrics", lambda: metrics(checks, folder), only="float64")


def metrics(checks: Checks, folder: Path) -> None:
    known = json.loads((folder / "metrics.json").read_text(), object_hook=Stored)
    tensors = Stored(load_file(folder / "metrics.safetensors"))
    maps = [tensors[f"gt{k}"].long() for k in range(sum(n.startswith("gt") for n in tensors))]
    names = list(known["cityscapes"]["classes"])
    numbers = {CITYSCAPES_IDS[n]: k for k, n in enumerate(names)}
    found = [predicted(tensors.part(f"pred{k}."), ids.shape[1], numbers, names) for k, ids in enumerate(maps)]
    cityscapes(checks, known, names, found, maps)
    truth = [instances(ids, numbers, names) for ids in maps]
    for library in ("pycocotools", "faster_coco_eval"): coco(checks, known, names, found, truth, library)


def predicted(stored: Stored, width: int, numbers: dict[int, int], names: list[str]) -> Instances:
    masks = torch.from_numpy(np.unpackbits(stored["masks_bits"].numpy(), axis=-1)[..., :width]).bool()
    return Instances(masks, stored["scores"], torch.tensor([numbers[c] for c in stored["classes"].tolist()], dtype=torch.int64), names)


def instances(ids: torch.Tensor, numbers: dict[int, int], names: list[str]) -> Instances:
    "The instances of an id map; groups are none."
    values = [v for v in ids.unique().tolist() if v >= 1000 and v // 1000 in numbers]
    masks = torch.stack([ids == v for v in values]) if values else torch.zeros(0, *ids.shape, dtype=torch.bool)
    return Instances(masks, torch.ones(len(values)), torch.tensor([numbers[v // 1000] for v in values], dtype=torch.int64), names)


def same(checks: Checks, name: str, ours: float, theirs: float | None) -> None:
    "Equal to nine digits (percent against 0..1), or nothing to score on both sides."
    theirs = math.nan if theirs is None or theirs < 0 else 100 * theirs
    if math.isnan(ours) or math.isnan(theirs): checks.equal(name, math.isnan(ours), math.isnan(theirs))
    else: checks.close(name, torch.tensor([ours]).double(), torch.tensor([theirs]).double(), 1e-7, relative=False)


def cityscapes(checks: Checks, known: Stored, names: list[str], found: list[Instances], maps: list[torch.Tensor]) -> None:
    metric = CityscapesAP(names, min_area=known.get("min_region_size", [100])[0])
    if "overlaps" in known: metric.thresholds = np.array(known["overlaps"], np.float64)
    metric.update(found, maps)
    ours, theirs = metric.compute(), known["cityscapes"]
    for figure, key in (("AP", "allAp"), ("AP50", "allAp50%")):
        same(checks, f"Cityscapes {figure}", ours[figure], theirs[key])
        for name in names: same(checks, f"Cityscapes {figure} of {name}", ours["by_class"][name][figure], theirs["classes"][name]["ap" if figure == "AP" else "ap50%"])


def coco(checks: Checks, known: Stored, names: list[str], found: list[Instances], truth: list[Any], library: str) -> None:
    metric = CocoAP(names, library=library)
    metric.update(found, truth)
    ours = metric.compute()
    for figure, value in zip(known.get("coco_stats_names", COCO_FIGURES), known["coco_segm_stats"], strict=True):
        same(checks, f"COCO {figure}, {library}", ours[figure], value)


if __name__ == "__main__": sys.exit(alone(check))
