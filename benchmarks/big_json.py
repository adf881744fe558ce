"""Reading a large COCO file: seconds of the processor and peak memory, beside `json.load` of the same file.

    OMP_NUM_THREADS=1 python -m benchmarks.big_json [--megabytes 158]

Each way reads the file in a process of its own. `load_objects` finds every picture and checks every mask; `references` makes Python objects
of a quarter of the annotations, as RefCOCO's expressions name them; `json_kind` only says what the file is.
"""
from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def write(folder: Path, megabytes: float) -> Path:
    "A COCO file of polygons and run lengths, ten masks an image, and its (empty) pictures."
    draw, file = random.Random(0), folder / "annotations/instances_train.json"
    file.parent.mkdir(parents=True)
    (folder / "train").mkdir()
    images, size = 0, 0
    with open(file, "w") as out:
        classes = json.dumps([{"id": k, "name": f"class {k}"} for k in range(80)])
        out.write(f'{{"categories": {classes}, "annotations": [')
        while size < megabytes * 1e6:
            for k in range(10):
                runs = [1000, *([20, 460] * 100), 640 * 480 - 1000 - 48_000]
                mask = [[round(draw.uniform(0, side), 2) for _ in range(30) for side in (640, 480)]] if k else {"size": [480, 640], "counts": runs}
                note = {"id": 10 * images + k, "image_id": images, "category_id": k, "iscrowd": 0, "area": 1000.5, "bbox": [1.5, 2.5, 30, 40], "segmentation": mask}
                size += out.write(", " * bool(images or k) + json.dumps(note))
            (folder / f"train/{images:012}.jpg").touch()
            images += 1
        entries = json.dumps([{"id": k, "file_name": f"{k:012}.jpg", "height": 480, "width": 640} for k in range(images)])
        out.write(f'], "images": {entries}}}')
    return file


def by_json(file: Path) -> None:
    with open(file) as opened: json.load(opened)


def by_load_objects(file: Path) -> None:
    from sam_nb.datasets.objects import load_objects
    load_objects(file.parents[1], "train")


def by_references(file: Path) -> None:
    from sam_nb.datasets.coco_tables import Ids, read_coco
    read_coco(file, Ids(range(0, 10**6, 4)))


def by_json_kind(file: Path) -> None:
    from sam_nb.datasets.json_files import json_kind
    json_kind(file)


WAYS: dict[str, Callable[[Path], None]] = {"json.load": by_json, "load_objects": by_load_objects, "references": by_references, "json_kind": by_json_kind}


def peak() -> float:  # megabytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _measure(way: Callable[[Path], None], file: Path, small: Path, answer: multiprocessing.connection.Connection) -> None:
    way(small)  # imports
    before, began = peak(), time.process_time()
    way(file)
    answer.send((time.process_time() - began, peak() - before))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=float, default=158)
    options, rows = parser.parse_args(), {}
    with tempfile.TemporaryDirectory() as folder:
        small, file = write(Path(folder) / "small", 0.1), write(Path(folder) / "large", options.megabytes)
        print(f"{os.path.getsize(file) / 1e6:.0f} MB{'seconds':>15}{'peak MB':>12}")
        for name, way in WAYS.items():
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.get_context("spawn").Process(target=_measure, args=(way, file, small, theirs))
            process.start()
            rows[name] = ours.recv()
            process.join()
            print(f"{name:14}{rows[name][0]:9.1f}{rows[name][1]:12.0f}", flush=True)
    result = {"megabytes": options.megabytes, **{name: {"seconds": round(s, 1), "peak_mb": round(m)} for name, (s, m) in rows.items()}}
    (ROOT / "benchmarks/results/big_json.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__": main()
