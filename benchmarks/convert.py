"""Conversion: what comes back after a round trip through each format; speed and memory for many pictures.

    python -m benchmarks.convert trip FOLDER ...                         objects equal, mean and least IoU, class kept, what is lost
    python -m benchmarks.convert speed [--pictures 10000] [--polygons 100000]
"""
from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from pycocotools import mask as coco

from benchmarks.pictures import make_folder
from sam_nb.datasets.conversion import convert, open_source
from sam_nb.datasets.writers import WRITERS


def memory(key: str) -> float:  # MB
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) / 1024


def objects(folder: Path) -> dict[str, dict[str, list[tuple[str, dict]]]]:
    "Split -> picture -> (class, run lengths) of each object."
    source, found = open_source(folder), {}
    for p in source: found.setdefault(p.split, {})[p.name] = [(source.names[c] if c >= 0 else "", m) for m, c in zip(p.masks, p.categories, strict=True)]
    return found


def compare(before: dict, after: dict) -> dict[str, float]:
    "Each object against the one that fits it best in the same picture afterwards."
    ious, same_class = [], 0
    for split, pictures in before.items():
        again = after.get(split) or after.get("train") or {}  # without splits, YOLO calls all train
        for name, found in pictures.items():
            others = again.get(name.replace("/", "_"), again.get(name, []))
            runs = [m for _, m in found], [m for _, m in others]
            scores = coco.iou(*runs, [False] * len(others)) if found and others else np.zeros((len(found), 1))
            ious += scores.max(1).tolist()
            for (label, _), row in zip(found, scores, strict=True): same_class += any(others[k][0] == label for k in np.flatnonzero(row == row.max()) if others)
    values = np.array(ious)
    return {"objects": len(values), "equal": float((values == 1).mean()), "mean": float(values.mean()), "least": float(values.min()), "class": same_class / len(values)}


def trip(folder: Path) -> None:
    before = objects(folder)
    with tempfile.TemporaryDirectory() as place:
        for to in WRITERS:
            written = convert(folder, Path(place) / to, to)
            c = compare(before, objects(Path(place) / to))
            said = "; ".join(f"{n} x {fact}" for fact, n in written.lost.items()) or "nothing"
            print(f"{folder.name} | {to} | {c['objects']} | {c['equal']:.1%} | {c['mean']:.4f} | {c['least']:.3f} | {c['class']:.1%} | {said}", flush=True)


def one(folder: str, out: str, to: str) -> None:
    "A conversion in a process of its own: seconds, and the most memory above what the imports take."
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts again from here
    before, start = memory("VmRSS"), time.perf_counter()
    written = convert(folder, out, to, copy="link")
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "memory": memory("VmHWM") - before, "pictures": written.pictures, "objects": written.objects, "files": written.files}))


def speed(pictures: int, polygons: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        make_folder(Path(place) / "coco", pictures, polygons)
        for to in WRITERS:
            out = subprocess.run([sys.executable, "-m", "benchmarks.convert", "one", f"{place}/coco", f"{place}/{to}_out", to], capture_output=True, text=True, check=True)
            c = json.loads(out.stdout.splitlines()[-1])
            print(f"{to} | {c['pictures']} pictures, {c['objects']} objects | {c['seconds']:.1f} s | {c['pictures'] / c['seconds']:.0f} pictures/s | {c['memory']:.0f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["trip", "speed", "one"])
    parser.add_argument("words", nargs="*")
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--polygons", type=int, default=100_000)
    options = parser.parse_args()
    if options.what == "one": one(*options.words)
    elif options.what == "speed": speed(options.pictures, options.polygons)
    else:
        print("data | format | objects | equal | mean IoU | least IoU | class kept | lost")
        for folder in options.words: trip(Path(folder))


if __name__ == "__main__": main()
