"""What the conversions of the eight tasks cost, against plain ways to the same answers.

    python -m benchmarks.earth_tasks boxes [--side 1000] [--repeat 5]      # boxes of 200 components: one pass, or a full-size mask and drawn pairs
    python -m benchmarks.earth_tasks contours [--classes 16]               # detection with a contour model: once an image, or once a class
    python -m benchmarks.earth_tasks tiles [--side 4000] [--tile 256]      # a large image in tiles: time, memory, and what differs at the seams
    python -m benchmarks.earth_tasks demo --models runs/a/model,runs/b/model,runs/c/model [--beside tiny_rsam] [--root FOLDER]
        [--split test] [--images N] [--prompt "{} in the image"] [--tasks detection,counting] [--choose val]     # models of several seeds on every task

Answers are compared first. Each prints a table; one CPU thread unless `--threads` says otherwise.
"""
from __future__ import annotations

import argparse
import os
import resource
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

from sam_nb.boxes import boxes_of_mask
from sam_nb.earth_tasks import EarthTasks, seam_error
from tests.parity.checks import machine


def timed(function: Callable, *arguments) -> tuple[object, float]:  # result, processor seconds
    start = time.process_time()
    return function(*arguments), time.process_time() - start


def peak() -> float: return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # MiB


# ---- boxes ------------------------------------------------------------------------------------------------------------------------------

def crowd(side: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    "Turned rectangles, and a probability of each pixel."
    g, mask = np.random.default_rng(0), np.zeros((side, side), np.uint8)
    for _ in range(count):
        middle, size = tuple(float(v) for v in g.uniform(8, side - 8, 2)), tuple(float(v) for v in g.uniform(8, 36, 2))
        cv2.fillPoly(mask, [cv2.boxPoints((middle, size, float(g.uniform(0, 90)))).astype(np.int32)], 1)
    return torch.from_numpy(mask).bool(), torch.from_numpy(g.random((side, side)).astype(np.float32))


def plainly(mask: torch.Tensor, probability: torch.Tensor) -> list[list[float]]:
    "A full-size mask a component, and every pair of boxes drawn."
    count, labels = cv2.connectedComponents(mask.numpy().view(np.uint8), connectivity=8)
    rows = []
    for k in range(1, count):
        piece = labels == k
        y, x = np.nonzero(piece)
        rows.append([int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1, float((probability.numpy() * piece).sum(dtype=np.float64) / piece.sum())])

    def drawn(box: list[float], shape: tuple[int, int]) -> np.ndarray:
        canvas = np.zeros(shape, bool)
        canvas[box[1]:box[3] + 1, box[0]:box[2] + 1] = True
        return canvas

    def within(a: list[float], b: list[float]) -> bool:
        shape = (max(a[3], b[3]), max(a[2], b[2]))
        return not (drawn(a, shape) & ~drawn(b, shape)).any()
    return [a for i, a in enumerate(rows) if not any(i != j and within(a, b) for j, b in enumerate(rows))]


def boxes(chosen: argparse.Namespace) -> str:
    mask, probability = crowd(chosen.side, 400)
    ways = {"one pass": lambda: boxes_of_mask(mask, probability, keep_one=False).rows(), "a full-size mask a component": lambda: plainly(mask, probability)}
    answers, seconds = {}, {name: [] for name in ways}
    for _ in range(chosen.repeat):
        for name, way in ways.items():
            answers[name], spent = timed(way)
            seconds[name].append(spent)
    a, b = (np.array(sorted(rows)) for rows in answers.values())
    fast, slow = (statistics.median(s) for s in seconds.values())
    return f"{len(a)} boxes of {chosen.side} x {chosen.side}: {1e3 * fast:.1f} ms, {slow:.2f} s plainly: {slow / fast:.0f} x; largest difference {np.abs(a - b).max():.1e}"


# ---- contours ---------------------------------------------------------------------------------------------------------------------------

def contours(chosen: argparse.Namespace) -> str:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

    from sam_nb.encoders.contours import ContourModel
    from sam_nb.methods.rsam_weights import load
    torch.manual_seed(0)
    network = SegformerForSemanticSegmentation(SegformerConfig(num_labels=1))  # MiT-B0
    model, names = load("tiny_rsam"), [f"the thing {k}" for k in range(chosen.classes)]
    image = np.random.default_rng(0).integers(0, 256, (800, 800, 3), np.uint8)

    def detect(each: bool) -> tuple[dict, int]:
        cut = ContourModel(network, SegformerImageProcessor(size={"height": 512, "width": 512}))
        tasks, found = EarthTasks(model, cut, prompt="{}"), {}
        if not each: return dict(tasks.detection(image, names)), cut.runs
        for name in names:
            cut._known.clear(); tasks._last = None
            found |= tasks.detection(image, name)
        return found, cut.runs
    (once, few), fast = timed(detect, False)
    (again, many), slow = timed(detect, True)
    return f"{chosen.classes} classes, 800 x 800: {fast:.1f} s with {few} run of the contour model, {slow:.1f} s with {many}: {slow / fast:.1f} x; equal boxes: {once == again}"


# ---- tiles ------------------------------------------------------------------------------------------------------------------------------

def mosaic(side: int, folder: Path) -> np.ndarray:
    "An image of demo scenes, each of 256 x 256 pixels."
    from sam_nb.datasets.pictures import image_array
    from sam_nb.demo.aerial import make_demo_aerial
    root = make_demo_aerial(folder, size=256, train=16, val=0, test=0, hard=0)
    scenes = [image_array(f)[:256, :256] for f in sorted(root.rglob("*.png")) + sorted(root.rglob("*.jpg"))][:16]
    n, g = -(-side // 256), np.random.default_rng(0)
    rows = [np.concatenate([np.rot90(scenes[int(g.integers(len(scenes)))], int(g.integers(4))) for _ in range(n)], 1) for _ in range(n)]
    return np.ascontiguousarray(np.concatenate(rows)[:side, :side])


def tiles(chosen: argparse.Namespace) -> str:
    from sam_nb.methods.rsam_weights import load
    model, names, lines = load("tiny_rsam"), ["plane", "ship"], []
    with tempfile.TemporaryDirectory() as there: image = mosaic(chosen.side, Path(there) / "aerial")
    EarthTasks(model, prompt="the {}").semantic_seg(image[:512, :512], names)
    before, first = peak(), None
    for overlap in (0.25, 0.0, 0.5):
        tasks = EarthTasks(model, prompt="the {}", tile=chosen.tile, overlap=overlap)
        found, spent = timed(tasks.semantic_seg, image, names)
        windows, first = tasks._last.windows, first or peak() - before
        half = chosen.tile // 2
        shifted = EarthTasks(model, prompt="the {}", tile=chosen.tile, overlap=overlap).semantic_seg(np.pad(image, ((half, 0), (half, 0), (0, 0)), "reflect"), names)
        other = {name: mask[half:, half:] for name, mask in shifted.items()}
        near = np.mean([seam_error(found[n], other[n], windows) for n in names])
        everywhere = np.mean([(found[n] != other[n]).mean() for n in names])
        lines.append((overlap, len(windows), spent, near, 100 * everywhere))
    head = f"{chosen.side} x {chosen.side}, tiles of {chosen.tile}"
    columns = [head, "tiles", "seconds", "differs near seams, %", "differs anywhere, %"]
    maps = 4 * len(names) * chosen.side**2 / 2**20
    table = pd.DataFrame(lines, columns=columns).set_index(head).sort_index().round(3).to_string()
    return f"{table}\n(the same with all tiles moved by half a tile)\nmemory: {first:.0f} MiB more than for 512 x 512; {maps:.0f} of it are the maps of {len(names)} names"


# ---- several seeds on every task --------------------------------------------------------------------------------------------------------

def demo(chosen: argparse.Namespace) -> str:
    "Mean and deviation of the main figures over the seeds, beside floor, ceiling and another model."
    from sam_nb.core import workspace
    from sam_nb.demo.aerial import ensure_demo_aerial
    from sam_nb.earth_evaluation import MAIN_FIGURES, choose_class_balance, evaluate_tasks
    from sam_nb.evaluation.bounds import over_seeds
    from sam_nb.view.sentence_view import open_referring_model
    root = chosen.root or ensure_demo_aerial(workspace().data / "demo_aerial_earth", layout="earth")
    how = dict(tasks=chosen.tasks, split=chosen.split, images=chosen.images)
    seeds = []
    for name in chosen.models.split(","):
        model, own = open_referring_model(name), dict(prompt=chosen.prompt)
        if chosen.choose: own["class_balance"] = choose_class_balance(model, root, chosen.choose, images=chosen.images, **own)
        print(name, own)
        seeds.append(evaluate_tasks(model, root, progress=print, **how, **own))
    table = pd.concat({task: over_seeds([found[task] for found in seeds], [MAIN_FIGURES[task]]) for task in seeds[0]})
    if chosen.beside:
        other = evaluate_tasks(open_referring_model(chosen.beside), root, prompt=chosen.beside_prompt, **how)
        table.insert(2, chosen.beside, [found.scores[MAIN_FIGURES[task]] for task, found in other.items()])
    numbers = [c for c in table if c != "verdict"]
    return f"{len(seeds)} models, {Path(root).name}, {chosen.split}\n\n{table.assign(**{c: table[c].astype(float).round(1) for c in numbers}).to_string()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("boxes", "contours", "tiles", "demo"))
    parser.add_argument("--models", default="tiny_rsam")
    parser.add_argument("--beside")
    parser.add_argument("--beside_prompt", default="the {}")
    parser.add_argument("--root")
    parser.add_argument("--split", default="test")
    parser.add_argument("--images", type=int)
    parser.add_argument("--prompt", default="{} in the image")
    parser.add_argument("--tasks")
    parser.add_argument("--choose", help="split on which the class balance is chosen, such as val")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--side", type=int)
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--classes", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    chosen.side = chosen.side or {"boxes": 1000, "tiles": 4000}.get(chosen.what)
    torch.set_num_threads(chosen.threads)
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}")
    text = {"boxes": boxes, "contours": contours, "tiles": tiles, "demo": demo}[chosen.what](chosen)
    print(text)
    if chosen.save: chosen.save.write_text(f"`{shlex.join(['python', '-m', 'benchmarks.earth_tasks', *sys.argv[1:]])}`\n\n{machine()}\n\n```\n{text}\n```\n")


if __name__ == "__main__": main()
