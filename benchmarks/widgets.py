"""What a touch of the widgets costs in Python: packing masks, and a click on an encoded image.

    python -m benchmarks.widgets [--threads 1] [--models tiny_sam,tiny_sam2,sam-vit-b,sam2.1-t] [--save FILE.md]

What the browser needs (first picture, frames a second, click to picture) is printed by `pytest -s tests/browser/test_masks.py tests/browser/test_prompts.py`.
Models without published weights here are drawn at random: the time is the same.
"""
from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.sartm import machine
from sam_nb.masks import mask_to_rle
from sam_nb.methods.promptable import Promptable
from sam_nb.view.mask_layers import as_layer, layer_message
from sam_nb.view.prompt_view import PromptView


def discs(side: int, count: int) -> np.ndarray:  # bool [N, side, side]
    "Overlapping masks."
    rng, (y, x) = np.random.default_rng(0), np.mgrid[:side, :side]
    masks = np.zeros((count, side, side), bool)
    for mask, r, a, b in zip(masks, rng.integers(20, 150, count), *rng.integers(0, side - 300, (2, count)), strict=True):
        mask[b:b + 2 * r, a:a + 2 * r] = (y[:2 * r, :2 * r] - r) ** 2 + (x[:2 * r, :2 * r] - r) ** 2 < r * r
    return masks


def timed(act, times: int = 5) -> float:
    "Median seconds of the processor."
    taken = []
    for _ in range(times):
        begun = time.process_time()
        act()
        taken.append(time.process_time() - begun)
    return statistics.median(taken)


def masks_table() -> pd.DataFrame:
    rows = []
    for side, count in ((512, 50), (1024, 100), (2048, 300)):
        planes = discs(side, count)
        runs = [{"segmentation": r} for r in mask_to_rle(planes)]
        message = layer_message(as_layer("masks", planes))
        rows.append({"image": f"{side} x {side}", "masks": count, "as planes (s)": timed(lambda p=planes: layer_message(as_layer("masks", p)), 3),
                     "as run lengths (s)": timed(lambda r=runs: layer_message(as_layer("masks", r)), 3),
                     "sent (kB)": sum(len(v) for v in message.values() if isinstance(v, bytes)) / 1e3, "planes would be (MB)": planes.nbytes / 1e6})
    return pd.DataFrame(rows)


def clicks_table(models: list[str]) -> pd.DataFrame:
    photo = np.random.default_rng(0).integers(0, 255, (1200, 1800, 3), np.uint8)
    rows = []
    for name in models:
        own = name.startswith("tiny")
        model = (Promptable.from_pretrained(name) if own else Promptable(backbone=name)).eval()
        begun = time.process_time()
        view = PromptView(photo, model)
        encoded, serial = time.process_time() - begun, iter(range(1, 1000))

        def click(k: int, view: PromptView = view) -> None: view.prompt = {"clicks": [[200 + 13 * k, 300 + 7 * k, 1]], "serial": k}
        rows.append({"model": name, "input": model.image_size, "encoded once (s)": encoded, "a click (ms)": 1000 * timed(lambda s=serial, c=click: c(next(s)), 9)})
        view.close()
    return pd.DataFrame(rows)


def markdown(table: pd.DataFrame) -> str:
    rows = [list(table.columns), ["---"] * len(table.columns), *table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(f"{v:.2f}" if isinstance(v, float) else str(v) for v in row) + " |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", default="tiny_sam,tiny_sam2,sam-vit-b,sam2.1-t")
    parser.add_argument("--save")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    said = "\n".join([machine(argparse.Namespace(device="cpu", compile=False, precision="fp32")), "", "Packing masks:", "", markdown(masks_table()), "",
                      "A photograph of 1800 x 1200 pixels; a click from its arrival in Python to the masks on their way, processor time:", "",
                      markdown(clicks_table(options.models.split(",")))])
    print(said)
    if options.save: Path(options.save).write_text(said + "\n")


if __name__ == "__main__":
    main()
