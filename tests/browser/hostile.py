"""Datasets and runs whose every text is markup that leaves a mark on the page that runs it."""
from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np

from sam_nb.core import write_json
from sam_nb.recipe import Recipe
from sam_nb.training.runs import Run

READ_MARKS = "() => window.marked ?? []"


def hostile(place: str) -> str:
    "A text that adds `place` to `window.marked` where a page takes it for HTML. No `/`, `,`, `;` or `.`: it may be the name of a file, or one of a list."
    return f"<img src=x onerror='(window[`marked`]??=[])[`push`](`{place}`)'>"


def hostile_sentence(place: str) -> str:
    "The same for what may hold any character: it ends attributes, scripts and titles first, and is a link, a formula and an escape sequence too."
    script = f"<script>(window.marked??=[]).push('{place}')</script>"
    return f"\"'></title></style></script>{script}{hostile(place)}[a](javascript:a) ${{a}} $x_1^{{$ \x1b[31m\u202e"


def picture(file: Path, seed: int = 0, side: int = 48) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (side // 8, side // 8, 3), np.uint8)
    file.write_bytes(cv2.imencode(".png", cv2.resize(noise, (side, side), interpolation=cv2.INTER_LINEAR))[1].tobytes())
    return file


def mask(file: Path, value: int = 1, side: int = 48) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((side, side), np.uint8)
    pixels[10:30, 12:34] = value
    file.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return file


def pairs(root: Path) -> Path:
    "RGB-thermal pairs that describe themselves; one of them is damaged."
    write_json(root / "dataset.json", {"classes": [hostile("pairs class 0"), hostile_sentence("pairs class 1")], "title": hostile_sentence("pairs title"),
                                       "source": hostile_sentence("pairs source"), "licence": hostile_sentence("pairs licence")})
    for k, split in enumerate(("train", "train", "train", "val", "test")):
        name = hostile(f"pairs file {k}")
        for kind in ("rgb", "thermal"): picture(root / split / kind / f"{name}.png", k)
        mask(root / split / "labels" / f"{name}.png")
    damaged = root / "train" / "rgb" / f"{hostile('pairs file 1')}.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    return root


def objects(root: Path) -> Path:
    "A COCO folder; the image of its validation split is a web page."
    names = [hostile(f"objects file {k}") + "\x1b[2J\u202e" * (k == 1) + ".png" for k in range(3)]
    for k, name in enumerate(names): picture(root / "images" / name, k)
    (root / "images" / names[2]).write_bytes(b"<html>" + hostile_sentence("objects damaged").encode("utf-8"))
    images = [{"id": k, "file_name": name, "height": 48, "width": 48} for k, name in enumerate(names)]
    categories = [{"id": k + 1, "name": hostile_sentence(f"objects class {k}"), "supercategory": hostile_sentence("objects supercategory")} for k in range(2)]
    annotations = [{"id": k, "image_id": k % 3, "category_id": 1 + k % 2, "bbox": [4, 5, 20, 22], "area": 440, "iscrowd": 0,
                    "attributes": {hostile_sentence("objects attribute"): hostile_sentence("objects value")},
                    "segmentation": [[4, 5, 24, 5, 24, 27, 4, 27]]} for k in range(6)]
    about = {"info": {"description": hostile_sentence("objects info")}, "licenses": [{"name": hostile_sentence("objects licence")}], "categories": categories}
    for split, which in {"train": (0, 1), "val": (2,)}.items():
        write_json(root / "annotations" / f"instances_{split}.json", {**about, "images": [images[k] for k in which], "annotations": [a for a in annotations if a["image_id"] in which]})
    return root


def sentences(root: Path) -> Path:
    "Images with expressions, in the layout of RefSegRS."
    lines = [f"{k} {' '.join(hostile_sentence(f'sentence {k}').split())}" for k in range(3)]
    for k in range(3): picture(root / "images" / f"{k}.png", k); mask(root / "masks" / f"{k}.png", 255)
    for split in ("train", "val", "test"): (root / f"output_phrase_{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def captions(root: Path) -> Path:
    "Images with captions."
    names = [hostile(f"captions file {k}") + ".png" for k in range(2)]
    for k, name in enumerate(names): picture(root / "images" / name, k)
    said = [{"filename": name, "split": "train", "imgid": k, "sentences": [{"raw": hostile_sentence(f"caption {k}"), "tokens": [], "imgid": k, "sentid": k}]} for k, name in enumerate(names)]
    write_json(root / "dataset.json", {"images": said, "dataset": hostile_sentence("captions title")})
    return root


def run(root: Path, number: int) -> Run:
    "A run with hostile recipe, metrics, classes, error and pictures; then its folder gets a hostile name."
    made = Run.create("sartm", Recipe(dataset=hostile_sentence("run dataset"), run_name=f"hostile-{number}"), root)
    made.start()
    for k in range(1, 60): made.log(k, loss=2 / (k + number), **{hostile_sentence("run metric"): k / 60})
    made.log(60, val_miou=40.0 + number)
    made.finish({"miou": 40.0 + number, hostile_sentence("run score"): 3.0, "iou": [80.0, 30.0]}, score={"name": hostile_sentence("run score name"), "value": 40.0 + number, "step": 60}, steps=60)
    write_json(made.folder / "model" / "config.json", {"classes": [hostile_sentence("run class"), "car"]})
    picture(made.folder / "figures" / f"{hostile('run picture')}.png")
    said = json.loads((made.folder / "run.json").read_text())
    said["recipe"] |= {hostile_sentence("run parameter"): hostile_sentence(f"run value {number}")}
    said["notes"] = said["note"] = hostile_sentence("run note")
    said["packages"] = {**(said.get("packages") or {}), hostile_sentence("run package"): hostile_sentence(f"run version {number}")}
    write_json(made.folder / "run.json", said)
    return Run.open(shutil.move(made.folder, root / hostile(f"run {number}")))


def failed_run(root: Path) -> Run:
    made = Run.create("rsam", Recipe(run_name="failed"), root)
    made.start()
    made.fail(ValueError(hostile_sentence("run error")))
    return made
