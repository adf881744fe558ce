"""What S4M's parts cost, and what another order of work saves at the same output.

    python -m benchmarks.s4m data [--masks 30] [--height 512 --width 1024] [--side 160] [--batch 8] [--repeats 5]   # occlusion, paste, samples, colours

Outputs are compared first. Times are processor time, the least of some repeats; one CPU thread unless `--threads` says otherwise. `--save FILE.md` keeps the table.
"""
from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from tests.parity.checks import machine


def cost(work: Callable[[], Any], repeats: int) -> float:
    "Milliseconds of this process, the least of `repeats`."
    spent = []
    for _ in range(repeats):
        begin = time.process_time()
        work()
        spent.append(1e3 * (time.process_time() - begin))
    return min(spent)


def seeded(seed: int) -> torch.Generator: return torch.Generator().manual_seed(seed)


# ---- data ---------------------------------------------------------------------------------------------------------------------------

def ellipses(count: int, height: int, width: int, seed: int = 0) -> Tensor:  # bool [count, height, width]
    y, x = torch.arange(height)[:, None], torch.arange(width)
    a, b, r, s = torch.rand(4, count, 1, 1, generator=seeded(seed))
    return ((y - a * height) / (height * (0.05 + r / 4))) ** 2 + ((x - b * width) / (width * (0.05 + s / 4))) ** 2 < 1


def pairwise(masks: Tensor) -> Tensor:
    "Each mask minus every later one, pair by pair."
    masks = masks.clone()
    for j in range(len(masks) - 2, -1, -1):
        for k in range(j + 1, len(masks)): masks[j] &= ~masks[k]
    return masks


def unions(masks: Tensor) -> Tensor:
    "Each mask minus the union of the later ones."
    masks = masks.clone()
    for j in range(len(masks) - 2, -1, -1): masks[j] &= ~masks[j + 1:].any(0)
    return masks


def data(chosen: argparse.Namespace) -> pd.DataFrame:
    "Occlusion of pasted masks, the paste augmentation, samples of the demo street, colours."
    from sam_nb.datasets.colour import ssd_colour, strong_colour
    from sam_nb.datasets.instances import InstanceTransform, UnlabelledTransform, choose_classes, edge_choices
    from sam_nb.datasets.objects import load_objects
    from sam_nb.datasets.paste import MODES, front_most, paste_instances, published_share
    from sam_nb.demo.files import make_demo

    rows, side, masks = [], chosen.side, ellipses(chosen.masks, chosen.height, chosen.width)
    def row(what: str, work: Callable[[], Any], per: int = 1, than: float | None = None) -> float:
        spent = cost(work, chosen.repeats) / per
        rows.append((what, f"{spent:.2f}", f"{than / spent:.1f}" if than else ""))
        return spent
    if not all(torch.equal(front_most(masks), other(masks)) for other in (pairwise, unions)): sys.exit("the masks differ")
    slow = [row(f"occlusion of {len(masks)} masks of {chosen.height} x {chosen.width}, {name}", lambda f=f: f(masks)) for name, f in (("pair by pair", pairwise), ("by unions", unions))]
    row("the same, in one pass; ratio to the faster of both", lambda: front_most(masks), than=min(slow))
    with tempfile.TemporaryDirectory() as folder:
        street = choose_classes(load_objects(make_demo("street", Path(folder) / "street", size=192, train=8, val=1, test=1, hard=0, layout="coco"), "train"))
        raw = [street[k] for k in range(8)]
        frames = dict(crop=dict(edges=edge_choices(side), longest=4 * side, size=side, colour=True), scale_jitter=dict(size=side), resize=dict(edges=(side,)))
        for frame, options in frames.items():
            for kind in (InstanceTransform, UnlabelledTransform):
                transform = kind(frame, **options)
                row(f"{kind.__name__} {frame} to {side}, reading included", lambda t=transform: [t(street[k], seeded(k)) for k in range(8)], 8)
        resized = [InstanceTransform(edges=(side,))(raw[k % 8]) for k in range(chosen.batch)]
        batch = [[s[key] for s in resized] for key in ("image", "labels", "masks")]
        for mode in MODES: row(f"paste, {mode}, batch of {chosen.batch}", lambda m=mode: paste_instances(*batch, seeded(0), m, published_share(side, side)))
        for f in (ssd_colour, strong_colour): row(f"{f.__name__} at {side} x {side}", lambda f=f: [f(batch[0][0], seeded(k)) for k in range(16)], 16)
    return pd.DataFrame(rows, columns=["what", "ms", "ratio"])


PARTS = {"data": data}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    for name, value in dict(masks=30, height=512, width=1024, side=160, batch=8, repeats=5, threads=1).items(): parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--save", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    table = PARTS[chosen.part](chosen)
    lines = ["| " + " | ".join(map(str, r)) + " |" for r in (tuple(table.columns), ("---",) * len(table.columns), *table.itertuples(index=False))]
    text = "\n".join([f"`python -m benchmarks.s4m {' '.join(sys.argv[1:])}`", "", machine(), "", *lines])
    print(text)
    if chosen.save: chosen.save.write_text(text + "\n")


if __name__ == "__main__": main()
