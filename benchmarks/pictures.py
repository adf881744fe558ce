"""Opening and checking a large COCO folder: this tree against an older one, side by side.

    OMP_NUM_THREADS=1 python -m benchmarks.pictures [--before d7089c1] [--pictures 10000] [--polygons 100000] [--rounds 3]

Pictures and polygons are made in a temporary folder. Each measurement is a process of its own; the two trees take turns.
`open` is `load_objects`, `check` is `check_objects` (it opens, too). Seconds on the clock and of the processor without the
imports, which tell the load of the machine apart; memory is the peak above what the imports need. Areas and ids of every 97th picture are compared first.
"""
from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SIDES = (240, 320)

PROBE = """
import gc, json, sys, time
from sam_nb.datasets.objects import load_objects
try: from sam_nb.datasets.object_checks import check_objects
except ImportError: from sam_nb.datasets.objects import check_objects
def memory(key): return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) / 1024
def reset(): open("/proc/self/clear_refs", "w").write("5")  # the peak starts again from here
task, folder = sys.argv[1:]
gc.collect(); reset(); before, started, processor = memory("VmRSS"), time.perf_counter(), time.process_time()
if task == "check": found = check_objects(folder, "all").objects
else: data = load_objects(folder, "all"); found = len(data)
seconds, processor, peak = time.perf_counter() - started, time.process_time() - processor, memory("VmHWM") - before
held = memory("VmRSS") - before
if task == "facts":
    read = [data.read(k)[1] for k in range(0, len(data), 97)]
    found = [len(data), list(data.classes), [[m.ids.tolist(), m.categories.tolist(), m.areas.tolist(), m.boxes.tolist()] for m in read]]
print(json.dumps({"seconds": seconds, "processor": processor, "peak": peak, "held": held, "found": found}))
"""


def outline(rng: np.random.Generator, corners: int) -> list[float]:
    "A star-shaped polygon inside the picture, two decimals, as COCO has them."
    angles, radii = np.sort(rng.random(corners)) * 2 * np.pi, rng.uniform(8, 40) * rng.uniform(.6, 1, corners)
    x, y = rng.uniform(45, SIDES[1] - 45), rng.uniform(45, SIDES[0] - 45)
    return np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], 1).round(2).ravel().tolist()


def make_folder(folder: Path, pictures: int, polygons: int, corners: int = 24) -> None:
    "A COCO folder: JPEG pictures of 240 x 320 pixels, and polygons of 24 corners."
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    grounds = [cv2.resize(rng.integers(0, 255, (12, 16, 3), np.uint8), SIDES[::-1], interpolation=cv2.INTER_CUBIC) for _ in range(20)]
    files = [cv2.imencode(".jpg", g)[1].tobytes() for g in grounds]
    for k in range(pictures): (folder / f"images/{k:06d}.jpg").write_bytes(files[k % len(files)])
    images = [{"id": k, "file_name": f"{k:06d}.jpg", "height": SIDES[0], "width": SIDES[1]} for k in range(pictures)]
    annotations = []
    for k in range(polygons):
        points = outline(rng, corners)
        (x0, y0), (x1, y1) = (np.reshape(points, (-1, 2)).min(0), np.reshape(points, (-1, 2)).max(0))
        annotations.append({"id": k + 1, "image_id": k % pictures, "category_id": 1 + k % 7, "segmentation": [points],
                            "area": float((x1 - x0) * (y1 - y0)), "bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": 0})
    categories = [{"id": k, "name": f"class {k}"} for k in range(1, 8)]
    (folder / "annotations/instances_default.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def measure(tree: Path, task: str, folder: Path) -> dict:
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", PROBE, task, str(folder)], cwd=tree, env=environment, capture_output=True, text=True)
    if done.returncode: sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", default="d7089c1", help="the older revision")
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--polygons", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, old = Path(name) / "data", Path(name) / "tree"
        make_folder(folder, options.pictures, options.polygons)
        subprocess.run(["git", "worktree", "add", "--detach", "-q", str(old), options.before], cwd=ROOT, check=True)
        try: compare({options.before: old, "here": ROOT}, folder, options)
        finally: subprocess.run(["git", "worktree", "remove", "--force", str(old)], cwd=ROOT, check=True)


def compare(trees: dict[str, Path], folder: Path, options: argparse.Namespace) -> None:
    facts = {who: measure(tree, "facts", folder)["found"] for who, tree in trees.items()}
    if len({json.dumps(f) for f in facts.values()}) > 1: sys.exit("the two trees read different masks")
    print(f"ids, classes, areas and boxes of {len(facts['here'][2])} pictures are equal")
    taken = {(task, who): [] for task in ("open", "check") for who in trees}
    for task in ("open", "check"):
        for _ in range(options.rounds):
            for who, tree in trees.items(): taken[task, who].append(measure(tree, task, folder))
    print(f"{options.pictures} pictures, {options.polygons} polygons, medians of {options.rounds}; {platform.machine()}, {os.cpu_count()} cores, "
          f"load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, "
          + ", ".join(f"{p} {version(p)}" for p in ("numpy", "opencv-python", "orjson", "pycocotools", "torch")))
    print(f"{'':<22}{'seconds':>9}{'processor':>11}{'peak MB':>9}{'held MB':>9}")
    for task in ("open", "check"):
        middle = {who: [statistics.median(t[key] for t in taken[task, who]) for key in ("seconds", "processor", "peak", "held")] for who in trees}
        for who, row in middle.items(): print(f"{task + ', ' + who:<22}{row[0]:>9.2f}{row[1]:>11.2f}{row[2]:>9.0f}{row[3]:>9.0f}")
        before, here = middle.values()
        print(f"{'ratio':<22}" + "".join(f"{b / a if a else 0:>{9 + 2 * (k == 1)}.2f}" for k, (a, b) in enumerate(zip(before, here, strict=True))))


if __name__ == "__main__": main()
