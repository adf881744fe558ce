"""Mutated files for every reader of files that come from elsewhere: each must be read, or be refused by a SamNbError, within a second and 500 MB.

    python -m tests.faults.fuzz 10000                    so many files, of all formats; the table is kept in benchmarks/results/fuzz.json
    python -m tests.faults.fuzz 600 cvat "refs pickle"   of some formats
    python -m tests.faults.fuzz --show cvat 17           file 17 of a format: what came of it, and where it was raised

A file is a pure function of (format, number). It is read in a child process whose memory is bounded; a child that dies is recorded with
the number of its file, and the next one goes on behind it. Seconds are of the processor, so that a busy machine does not count.
"""
from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SECONDS, MEGABYTES = 1.0, 500
PATIENCE = 120  # seconds of the clock after which a child that says nothing is ended
KINDS = ("accepted", "refused", "raw", "slow", "memory", "crash")


# ---- mutations -----------------------------------------------------------------------------------------------------------------------------
EXTREME = (0, 1, -1, 2, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64, -2**31, -2**63, 10**30)
ODD: tuple[Callable[[], Any], ...] = (
    *(lambda n=n: n for n in EXTREME), lambda: 1e308, lambda: -1e308, lambda: float("nan"), lambda: float("inf"), lambda: 0.5, lambda: 1e-320,
    lambda: None, lambda: True, lambda: False, lambda: "", lambda: " ", lambda: "0", lambda: "-1", lambda: "x", lambda: "1e9999", lambda: "9" * 5000,
    lambda: "\ud800", lambda: "\0", lambda: "a\0b", lambda: "../../x", lambda: "/etc/passwd", lambda: ".", lambda: "x" * 5000, lambda: "²", lambda: "<b>",
    lambda: [], lambda: {}, lambda: [[]], lambda: [None], lambda: [{}], lambda: {"": ""}, lambda: [1, "a", None], lambda: [[1, 2]] * 3, lambda: {"a": {"b": [1]}},
    lambda: DEEP % 50, lambda: DEEP % 3000, lambda: [0] * 2000)
DEEP = "<%d lists>"  # a list in so many others, which Python cannot write


def of_bytes(data: bytes, random: random.Random) -> bytes:
    "One change of a file's bytes; half of the places are near its begin."
    n = len(data)
    def place(limit: int = 0) -> int: return random.randrange(max(1, min(n, 256 if random.random() < 0.5 else n) - limit))
    a, b = sorted((place(), place()))
    kind = random.randrange(8)
    if kind == 0:
        changed = bytearray(data)
        for _ in range(random.choice((1, 1, 2, 8, 64))): changed[place()] ^= 1 << random.randrange(8)
        return bytes(changed)
    if kind == 1: return data[:random.choice((a, b, n - 1, n // 2, 0))]
    if kind == 2: return data[:a] + data[a:b] * random.choice((2, 3, 50)) + data[b:]
    if kind == 3: return data[:a] + data[b:b + (b - a)] + data[a:b] + data[b + (b - a):]
    if kind == 4: return data[:a] + random.randbytes(random.choice((1, 4, 100, 5000))) + data[a:]
    if kind == 5: return data[:a] + data[b:]
    if kind == 6:
        width, order = random.choice((1, 2, 4, 8)), random.choice("<>")
        number = random.choice(EXTREME) % 2**(8 * width)
        return data[:a] + number.to_bytes(width, "little" if order == "<" else "big") + data[a + width:]
    return data[:a] + random.choice((b"\0", b"\xff", b"[", b"{", b'"', b"<", b"9")) * random.choice((1, 16, 1000, 100_000)) + data[a:]


def of_json(data: bytes, random: random.Random) -> bytes:
    "One to three values of a JSON text exchanged for ones of another type, keys left out, renamed or repeated; or its bytes changed."
    if random.random() < 0.25: return of_bytes(data, random)
    text = json.dumps(of_value(json.loads(data), random))
    for depth in (50, 3000): text = text.replace(json.dumps(DEEP % depth), "[" * depth + "]" * depth)
    return text.encode("utf-8", "surrogatepass")


def of_value(value: Any, random: random.Random) -> Any:
    for _ in range(random.choice((1, 1, 1, 2, 3))): value = _with_one_change(value, random)
    return value


def _with_one_change(value: Any, random: random.Random) -> Any:
    "A value with one odd one in it, at a random depth."
    if not isinstance(value, (dict, list)) or not value or random.random() < 0.12: return random.choice(ODD)()
    key = random.choice(list(value)) if isinstance(value, dict) else random.randrange(len(value))
    changed, kind = (dict(value) if isinstance(value, dict) else list(value)), random.randrange(10)
    if kind == 0: del changed[key]
    elif kind == 1 and isinstance(changed, dict): changed[random.choice((*value, "", "x", "id"))] = changed.pop(key)
    elif kind == 1: changed = changed * random.choice((2, 50))
    elif kind == 2: changed[key] = random.choice(ODD)()
    else: changed[key] = _with_one_change(value[key], random)
    return changed


def of_text(data: bytes, random: random.Random) -> bytes:
    "A number, a word or a line of a text exchanged; or its bytes changed."
    if random.random() < 0.4: return of_bytes(data, random)
    import re
    text, pattern = data.decode("utf-8", "replace"), random.choice((r"-?\d+(\.\d+)?", r'"[^"]*"', r"\w+", r"[^\n]+\n"))
    found = list(re.finditer(pattern, text))
    if not found: return of_bytes(data, random)
    at = random.choice(found)
    odd = str(random.choice(ODD)())
    new = random.choice((odd, f'"{odd}"' if at[0].startswith('"') else odd, "", at[0] * 2, at[0] * 200, random.choice(found)[0]))
    return (text[:at.start()] + new + text[at.end():]).encode("utf-8", "surrogatepass")


def of_pickle(data: bytes, random: random.Random) -> bytes:
    "Another object in the pickle, an opcode with a huge length, or other bytes."
    import pickle
    if random.random() < 0.4: return pickle.dumps(of_value(pickle.loads(data), random), protocol=random.randrange(6))
    if random.random() < 0.4:
        huge = random.choice((2**31 - 1, 2**30, 2**32 - 1)), random.choice((2**33, 2**40, 2**62, 2**63))
        op = random.choice((b"X", b"T", b"B", b"\x8b", b"j", b"r", b"\x8d", b"\x8e", b"\x96", b"\x95"))
        code = op + (struct.pack("<I", huge[0]) if op in (b"X", b"T", b"B", b"\x8b", b"j", b"r") else struct.pack("<Q", huge[1]))
        at = random.randrange(2, min(len(data), 60))
        return data[:at] + code + data[at:]
    return of_bytes(data, random)


def of_safetensors(data: bytes, random: random.Random) -> bytes:
    "Another header with a fitting or a wrong length; or other bytes."
    size = int.from_bytes(data[:8], "little")
    if random.random() < 0.4: return of_bytes(data, random)
    header = of_json(data[8:8 + size], random)
    length = len(header) if random.random() < 0.8 else random.choice(EXTREME) % 2**64
    return length.to_bytes(8, "little") + header + data[8 + size:]


def of_zip(data: bytes, random: random.Random) -> bytes:
    "One member of an archive changed, its check sum made right again; or other bytes."
    if random.random() < 0.4: return of_bytes(data, random)
    import io
    import zipfile
    new = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(new, "w") as out:
        chosen = random.choice([n for n in old.namelist() for _ in range(8 if n.endswith("data.pkl") else 1)])
        for name in old.namelist(): out.writestr(name, of_bytes(old.read(name), random) if name == chosen else old.read(name))
    return new.getvalue()


def of_png(data: bytes, random: random.Random) -> bytes:
    "One chunk changed, its length and check sum made right again; or other bytes."
    import zlib
    if random.random() < 0.3: return of_bytes(data, random)
    chunks, at = [], 8
    while at < len(data):
        size = int.from_bytes(data[at:at + 4], "big")
        chunks.append((data[at + 4:at + 8], data[at + 8:at + 8 + size]))
        at += 12 + size
    k = random.randrange(len(chunks))
    name, content = chunks[k]
    if name == b"IDAT" and random.random() < 0.5: content = zlib.compress(of_bytes(zlib.decompress(content), random))
    else: content = of_bytes(content or b"\0" * 13, random)
    chunks[k:k + 1] = [(name, content)] * random.choice((1, 1, 1, 0, 2))
    return data[:8] + b"".join(len(c).to_bytes(4, "big") + n + c + zlib.crc32(n + c).to_bytes(4, "big") for n, c in chunks)


# ---- what is read --------------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Format:
    "A kind of file: examples, how they are changed, and how they are read."
    make: Callable[[Path], None]  # writes a whole folder
    files: tuple[str, ...]  # that are changed, one at a time
    change: Callable[[bytes, random.Random], bytes]
    read: Callable[[Path], Any]  # of the folder; raises


def _picture(path: Path, side: tuple[int, int] = (48, 64)) -> None:
    import numpy as np
    from PIL import Image
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(side[0] * side[1] * 3, dtype=np.uint32).reshape(*side, 3).astype(np.uint8)).save(path)


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


POLYGON = [4.0, 4.0, 40.0, 5.5, 38.0, 30.0, 6.0, 28.0]


def _coco(segmentations: list[Any]) -> dict[str, Any]:
    images = [{"id": k + 1, "file_name": f"{k}.png", "height": 48, "width": 64} for k in range(2)]
    notes = [{"id": k + 1, "image_id": k % 2 + 1, "category_id": k % 2 + 1, "segmentation": s, "bbox": [4, 4, 36, 26], "area": 900, "iscrowd": 0}
             for k, s in enumerate(segmentations)]
    return {"images": images, "annotations": notes, "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "plate"}]}


def _coco_folder(segmentations: list[Any]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for k in range(2): _picture(folder / f"images/{k}.png")
        _write(folder / "annotations/instances_train.json", _coco(segmentations))
    return make


def _runs(packed: bool) -> dict[str, Any]:
    import numpy as np
    from pycocotools import mask as coco
    plane = np.zeros((48, 64), np.uint8, order="F")
    plane[4:30, 4:40] = 1
    flat = plane.T.reshape(-1)
    if packed: return {"size": [48, 64], "counts": coco.encode(plane)["counts"].decode()}
    edges = np.flatnonzero(np.diff(flat)) + 1
    return {"size": [48, 64], "counts": np.diff([0, *edges.tolist(), len(flat)]).tolist()}


def _panoptic(folder: Path) -> None:
    import numpy as np
    from PIL import Image
    for k in range(2): _picture(folder / f"train/{k}.png")
    ids = np.zeros((48, 64, 3), np.uint8)
    ids[4:30, 4:40, 0] = 7
    (folder / "annotations/panoptic_train").mkdir(parents=True)
    Image.fromarray(ids).save(folder / "annotations/panoptic_train/0.png")
    _write(folder / "annotations/panoptic_train.json", {
        "images": [{"id": k, "file_name": f"{k}.png", "height": 48, "width": 64} for k in range(2)], "categories": [{"id": 3, "name": "cup", "isthing": 1}],
        "annotations": [{"image_id": 0, "file_name": "0.png", "segments_info": [{"id": 7, "category_id": 3, "iscrowd": 0, "area": 900, "bbox": [4, 4, 36, 26]}]}]})


def _golden(tool: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        shutil.copytree(ROOT / "tests/golden/formats" / tool, folder, dirs_exist_ok=True)
        (folder / "expected.json").unlink()
    return make


def _objects(folder: Path, **options: Any) -> None:
    "A folder as `sam_nb check` and a training read it: every image, every mask, every class."
    from sam_nb.core import DatasetError
    from sam_nb.datasets.object_checks import describe_objects
    from sam_nb.datasets.objects import load_objects
    data = load_objects(folder, "all", **options)
    refused = None
    for k in range(min(len(data), 4)):
        try:
            masks = data.read(k)[1]
            masks.areas.sum(), masks.boxes.sum(), masks[:2].sum()
            if hasattr(data.found.read_masks, "classes_of"): data.found.read_masks.classes_of(data.entries[k])
        except DatasetError as error: refused = error
    describe_objects(data)
    repr(data), str(data.problems)
    data.fingerprint()
    if refused: raise refused


def _refer(ending: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import pickle
        for k in range(2): _picture(folder / f"refs/JPEGImages/{k}.png")
        _write(folder / "refs/instances.json", _coco([[POLYGON], _runs(True)]))
        refs = [{"ref_id": k, "ann_id": k + 1, "image_id": k + 1, "category_id": 1, "split": "train", "file_name": f"{k}_1.png", "sent_ids": [k],
                 "sentences": [{"sent_id": k, "tokens": ["the", "cup"], "raw": "the cup", "sent": "the cup"}]} for k in range(2)]
        if ending == "p": (folder / "refs/refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
        else: _write(folder / "refs/refs(unc).json", refs)
    return make


def _referring(folder: Path) -> None:
    from sam_nb.datasets.referring import load_referring, referring_splits
    referring_splits(folder)
    data = load_referring(folder, "train")
    for k in range(len(data)): str(data[k]["expressions"])
    repr(data), str(data.problems), data.fingerprint()


def _pairs(file: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import cv2
        import numpy as np
        for k in range(3):
            _picture(folder / f"rgb/{k}.png"); _picture(folder / f"thermal/{k}.png")
            (folder / "labels").mkdir(exist_ok=True)
            cv2.imwrite(str(folder / f"labels/{k}.png"), np.ones((48, 64), np.uint8))
        said = {"classes": ["background", "crack"], "title": "Cracks", "palette": [[0, 0, 0], [255, 0, 0]], "folders": {"rgb": "rgb"}, "label_values": [0, 1],
                "ignore_index": 255, "thermal_range": [0, 255], "every": 2, "suffixes": {}, "sequence": r"(\d)", "source": "here", "licence": "CC0"}
        if file.endswith(".json"): _write(folder / file, said)
        else:
            import yaml
            _write(folder / file, yaml.safe_dump(said))
    return make


def _dataset(folder: Path) -> None:
    from sam_nb.datasets.catalog import dataset_info, load_dataset
    dataset_info("own", folder)
    data = load_dataset("own", "train", folder)
    for k in range(len(data)): data[k]["semantic"].max()
    repr(data)


def _image(kind: str, **options: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import numpy as np
        from PIL import Image
        pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
        image = Image.fromarray(pixels)
        mode = options.pop("mode", None) if "mode" in options else None
        if mode == "P": image = image.quantize(16)
        elif mode: image = image.convert(mode)
        image.save(folder / f"a.{kind}", **options)
    return make


def _tiff(kind: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import numpy as np
        import tifffile
        rng = np.random.default_rng(0)
        options: dict[str, Any] = {"strips": {"photometric": "rgb"}, "tiles": {"photometric": "rgb", "tile": (16, 16), "compression": "deflate"},
                                   "float": {"compression": "lzw", "predictor": True}, "big": {"bigtiff": True}, "pages": {}}[kind]
        shape = {"strips": (24, 32, 3), "tiles": (32, 32, 3), "float": (24, 32), "big": (24, 32), "pages": (3, 24, 32)}[kind]
        data = rng.random(shape, np.float32) if kind == "float" else rng.integers(0, 255, shape).astype(np.uint16 if kind == "big" else np.uint8)
        if options.get("compression") == "lzw": options = {"compression": "deflate"}
        tifffile.imwrite(folder / "a.tif", data, **({"photometric": "minisblack"} | options))
    return make


def _npy(folder: Path) -> None:
    import numpy as np
    np.save(folder / "a.npy", np.ones((24, 32, 3), np.float32))


def _read_picture(folder: Path) -> None:
    "A picture in every way that it is read."
    from sam_nb.core import DatasetError
    from sam_nb.datasets.pictures import Picture, read_label, read_map, read_pixels, read_thermal
    file, = folder.iterdir()
    picture = Picture(file)
    picture.notes, picture.thumbnail(16), picture.read((0, 0, 1, 1))
    whole = picture.read()
    Picture(file.read_bytes()).read(), read_pixels(file), read_thermal(file, "auto")
    for read in (read_label, read_map):
        try: read(file)
        except DatasetError: pass  # a photograph is no label
    assert whole[0].shape[:2] == picture.size


def _weights(ending: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import torch
        from safetensors.torch import save_file
        state = {"blocks.0.norm1.weight": torch.ones(8), "pos_embed": torch.ones(1, 4, 4, 8), "head.weight": torch.ones(3, 8, dtype=torch.float16)}
        if ending == "safetensors": save_file(state, folder / "w.safetensors", {"format": "pt", "classes": '["cup"]', "steps": "12"})
        elif ending == "pth": torch.save({"model": state, "epoch": 3, "args": {"lr": 0.1}}, folder / "w.pth")
        else: torch.save(state, folder / "w.pt", _use_new_zipfile_serialization=False)
    return make


def _read_weights(folder: Path) -> None:
    from sam_nb.weights import open_weights, read_metadata, state_hash
    file, = folder.iterdir()
    if file.suffix == ".safetensors": read_metadata(file)
    held = open_weights(file)
    repr(held), held.family, held.title, held.metadata
    state_hash(held.state)


def _runs_folder(folder: Path) -> None:
    for name in ("a", "b"):
        for file in ("run.json", "metrics.jsonl"):
            (folder / name).mkdir(exist_ok=True)
            shutil.copy(ROOT / "tests/old_run/toy" / file, folder / name / file)


def _list_runs(folder: Path) -> None:
    from sam_nb.training.run_files import read_log, read_run_info
    from sam_nb.training.run_list import compare_runs, find_run, inspect_run, list_runs, metrics_table
    for name in "ab": read_run_info(folder / name), read_log(folder / name / "metrics.jsonl"), inspect_run(folder / name)
    repr(list_runs(folder))
    find_run("last", root=folder)
    compare_runs([folder / "a", folder / "b"]), metrics_table(find_run(folder / "a"))


def _saom(folder: Path) -> None:
    _picture(folder / "0.png")
    _picture(folder / "0_cup.png")
    _write(folder / "metadata.json", {"entity classes": ["cup", "plate"], "train_data": [
        {"image_name": "/0.png", "entity_masks": ["/0_cup.png"], "entity_indices": [0]}] * 2})


def _metadata(folder: Path) -> None:
    from sam_nb.datasets.saom_files import check_metadata, load_saom_metadata
    data = load_saom_metadata(folder / "metadata.json")
    for k in range(len(data)): data[k]["masks"].areas.sum()
    check_metadata(folder / "metadata.json")


def _sa1b(folder: Path) -> None:
    _picture(folder / "0.png")
    masks = [{"id": k, "segmentation": _runs(k > 0), "area": 900, "bbox": [4, 4, 36, 26], "predicted_iou": 0.9, "stability_score": 0.9} for k in range(2)]
    _write(folder / "0.json", {"image": {"image_id": 1, "width": 64, "height": 48, "file_name": "0.png"}, "annotations": masks})


def _cityscapes(folder: Path) -> None:
    _picture(folder / "leftImg8bit/train/a/a_0_leftImg8bit.png")
    outline = [[4, 4], [40, 5], [38, 30], [6, 28]]
    _write(folder / "gtFine/train/a/a_0_gtFine_polygons.json", {"imgHeight": 48, "imgWidth": 64, "objects": [
        {"label": label, "polygon": outline} for label in ("road", "car", "cargroup", "person")]})


def _aerial(layout: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        from sam_nb.demo.aerial import make_demo_aerial
        make_demo_aerial(folder / "x", 64, 2, 1, 1, hard=0, layout=layout)
        shutil.copytree(folder / "x", folder, dirs_exist_ok=True)
        shutil.rmtree(folder / "x")
    return make


def _earth(folder: Path) -> None:
    from sam_nb.datasets.earth import check_earth, describe_earth, open_earth, tally_earth
    data = open_earth(folder)
    check_earth(data), describe_earth(data), tally_earth(data), data.fingerprint(), repr(data)


def _log(data: bytes, random: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    if random.random() < 0.3 or not lines: return of_bytes(data, random)
    at = random.randrange(len(lines))
    return b"".join([*lines[:at], of_json(lines[at], random) + b"\n", *lines[at + 1:]])


FORMATS: dict[str, Format] = {
    "coco polygons": Format(_coco_folder([[POLYGON], [POLYGON, [1, 1, 9, 1, 9, 9]]]), ("annotations/instances_train.json",), of_json, _objects),
    "coco run lengths": Format(lambda f: _coco_folder([_runs(False), _runs(True)])(f), ("annotations/instances_train.json",), of_json, _objects),
    "coco panoptic": Format(_panoptic, ("annotations/panoptic_train.json",), of_json, lambda f: _objects(f, kind="panoptic")),
    "refs json": Format(_refer("json"), ("refs/refs(unc).json", "refs/instances.json"), of_json, _referring),
    "refs pickle": Format(_refer("p"), ("refs/refs(unc).p",), of_pickle, _referring),
    "dataset.json": Format(_pairs("dataset.json"), ("dataset.json",), of_json, _dataset),
    "dataset.yaml": Format(_pairs("dataset.yaml"), ("dataset.yaml",), of_text, _dataset),
    "run.json": Format(_runs_folder, ("a/run.json", "b/run.json"), of_json, _list_runs),
    "metrics.jsonl": Format(_runs_folder, ("a/metrics.jsonl",), _log, _list_runs),
    "safetensors": Format(_weights("safetensors"), ("w.safetensors",), of_safetensors, _read_weights),
    "pth": Format(_weights("pth"), ("w.pth",), of_zip, _read_weights),
    "pth before 1.6": Format(_weights("pt"), ("w.pt",), of_bytes, _read_weights),
    "labelme": Format(_golden("labelme"), ("photo.json",), of_json, lambda f: _objects(f, kind="labelme")),
    "yolo": Format(_golden("yolo"), ("data.yaml", "labels/train/*.txt"), of_text, lambda f: _objects(f, kind="yolo")),
    "cvat": Format(_golden("cvat"), ("annotations.xml",), of_text, lambda f: _objects(f, kind="cvat")),
    "label studio": Format(_golden("label_studio"), ("project-4.json",), of_json, lambda f: _objects(f, kind="labelstudio")),
    "supervisely": Format(_golden("supervisely"), ("meta.json", "photos/ann/*"), of_json, lambda f: _objects(f, kind="supervisely")),
    "saom": Format(_saom, ("metadata.json",), of_json, _metadata),
    "sa1b": Format(_sa1b, ("0.json",), of_json, lambda f: _objects(f, kind="sa1b")),
    "cityscapes": Format(_cityscapes, ("gtFine/train/a/*.json",), of_json, _objects),
    "risors": Format(_aerial("risors"), ("Annotations/*.json",), of_json, _referring),
    "dota": Format(_aerial("dota"), ("train/annfiles/*.txt", "dataset.json"), of_text, _earth),
    "dior": Format(_aerial("dior"), ("Annotations/DIOR_t*.json",), of_json, _earth),
    "counts": Format(_aerial("counts"), ("*/aerial/Annotation/*.json",), of_json, _earth),
    "rsvg": Format(_aerial("rsvg"), ("Annotations/*.xml", "*.txt"), of_text, _earth),
    "captions": Format(_aerial("captions"), ("dataset.json",), of_json, _earth),
    **{f"tiff {kind}": Format(_tiff(kind), ("a.tif",), of_bytes, _read_picture) for kind in ("strips", "tiles", "float", "big", "pages")},
    **{kind: Format(make, (f"a.{ending}",), of_png if ending == "png" else of_bytes, _read_picture) for kind, ending, make in (
        ("png", "png", _image("png")), ("png palette", "png", _image("png", mode="P")), ("jpeg", "jpg", _image("jpg")), ("jp2", "jp2", _image("jp2")),
        ("webp", "webp", _image("webp")), ("gif", "gif", _image("gif", mode="P")), ("bmp", "bmp", _image("bmp")), ("ppm", "ppm", _image("ppm")),
        ("npy", "npy", _npy))},
}


# ---- one file ------------------------------------------------------------------------------------------------------------------------------
class TooSlow(BaseException): "The processor seconds of a file are used up."


def mutated(name: str, number: int, folder: Path, whole: Path) -> Path:
    "The folder with the file of this number; the same bytes in every process."
    kind = FORMATS[name]
    chance = random.Random(f"{name}/{number}")
    shutil.copytree(whole, folder)
    file = chance.choice(sorted(f for pattern in kind.files for f in folder.glob(pattern.replace("(", "[(]").replace(")", "[)]"))))
    file.write_bytes(kind.change(file.read_bytes(), chance))
    return file


def peak() -> int:  # bytes
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def judge(name: str, folder: Path) -> tuple[str, str]:  # one of KINDS, and what was raised
    "What comes of a folder, in this process."
    from sam_nb.core import SamNbError
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = peak()
    def late(*_: Any) -> None: raise TooSlow
    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, 5 * SECONDS)
    began, said = time.process_time(), ""
    try: FORMATS[name].read(folder); kind = "accepted"
    except SamNbError as error: kind = "refused"; str(error)
    except TooSlow as error: kind, said = "slow", where(error)
    except MemoryError as error: kind, said = "memory", where(error)
    except BaseException as error: kind, said = "raw", where(error)  # noqa: BLE001 - this is what is counted
    finally: signal.setitimer(signal.ITIMER_PROF, 0)
    seconds, grown = time.process_time() - began, peak() - before
    if kind in ("accepted", "refused", "raw") and grown > MEGABYTES * 2**20: return "memory", f"{grown >> 20} MB"
    if kind in ("accepted", "refused") and seconds > SECONDS: return "slow", f"{seconds:.1f} s"
    return kind, said


def where(error: BaseException) -> str:
    "An exception in one line, with the last place of it in this project."
    own = [f for f in traceback.extract_tb(error.__traceback__) if "sam_nb" in f.filename]
    place = f"{Path(own[-1].filename).name}:{own[-1].name}" if own else "?"
    return f"{type(error).__name__} in {place}: {str(error)[:120]!r}"


def child(name: str, numbers: list[int], whole: Path, folder: Path, pipe: Any) -> None:
    "Read file after file, and send what came of each."
    sys.setrecursionlimit(1000)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (MEGABYTES + 300) * 2**20,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1); os.dup2(quiet, 2)
    try: FORMATS[name].read(whole)  # what is not changed is read; imports its modules
    except BaseException as error: pipe.send((-1, "broken", where(error))); raise
    for number in numbers:
        shutil.rmtree(folder, ignore_errors=True)
        mutated(name, number, folder, whole)
        pipe.send((number, *judge(name, folder)))
        if number % 50 == 0: gc.collect()
    pipe.close()


def warm() -> None:
    "Import what the readers need, once."
    import importlib
    for module in ("cv2", "torch", "rasterio", "tifffile", "PIL.Image", "yaml", "pandas", "pycocotools.mask", "safetensors.torch", "orjson",
                   "sam_nb.datasets.object_checks", "sam_nb.datasets.catalog", "sam_nb.datasets.referring", "sam_nb.weights", "sam_nb.datasets.rgbt",
                   "sam_nb.training.run_list", "sam_nb.datasets.layouts"): importlib.import_module(module)
    import cv2
    import torch
    from PIL import Image

    from sam_nb.datasets.layouts import known_layouts
    Image.init(), list(known_layouts())
    cv2.setNumThreads(1), torch.set_num_threads(1)


@dataclass
class Tally:
    "What came of the files of a format."
    counts: Counter = field(default_factory=Counter)
    found: list[tuple[int, str, str]] = field(default_factory=list)  # number, kind, what was raised
    seconds: float = 0.0

    @property
    def wrong(self) -> int: return sum(self.counts[k] for k in KINDS[2:])


def fuzz(name: str, numbers: list[int], note: Callable[[int, str, str], None] = lambda *_: None) -> Tally:
    "Read these files of a format in child processes, each bounded; a child that dies is replaced."
    tally, began = Tally(), time.perf_counter()
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(prefix="fuzz.") as there:
        whole = Path(there) / "whole"
        whole.mkdir()
        FORMATS[name].make(whole)
        left = list(numbers)
        while left:
            receive, send = fork.Pipe(duplex=False)
            process = fork.Process(target=child, args=(name, left, whole, Path(there) / "one", send))
            process.start()
            send.close()
            try:
                while left and receive.poll(PATIENCE):
                    number, kind, said = receive.recv()
                    if kind == "broken": raise AssertionError(f"the unchanged {name} is not read: {said}")
                    left.remove(number)
                    _count(tally, number, kind, said, note)
                if left: process.kill(); _count(tally, left.pop(0), "slow", f"nothing for {PATIENCE} s", note)
            except EOFError:
                process.join()
                _count(tally, left.pop(0), "crash", f"exit code {process.exitcode}", note)
            process.join()
    tally.seconds = time.perf_counter() - began
    return tally


def _count(tally: Tally, number: int, kind: str, said: str, note: Callable[[int, str, str], None]) -> None:
    tally.counts[kind] += 1
    if kind in KINDS[2:]: tally.found.append((number, kind, said)); note(number, kind, said)


def show(name: str, number: int, keep: Path | None = None) -> None:
    "Read one file in this process, with the traceback of what is raised."
    warm()
    with tempfile.TemporaryDirectory(prefix="fuzz.") as there:
        whole, one = Path(there) / "whole", Path(there) / "one"
        whole.mkdir()
        FORMATS[name].make(whole)
        file = mutated(name, number, one, whole)
        print(file.relative_to(one), len(file.read_bytes()), file.read_bytes()[:2000])
        if keep: shutil.copytree(one, keep, dirs_exist_ok=True)
        try: FORMATS[name].read(one); print("accepted")
        except BaseException: traceback.print_exc()  # noqa: BLE001 - shown to a person


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("count", type=int, nargs="?", default=1000, help="files of all formats together")
    parser.add_argument("formats", nargs="*", help="all of them, if none is named")
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--show", nargs=2, metavar=("FORMAT", "NUMBER"))
    parser.add_argument("--keep", type=Path, help="with --show: copy the folder here")
    parser.add_argument("--out", type=Path, help="where the counts are stored; none: benchmarks/results/fuzz.json, if all formats are read")
    options = parser.parse_args()
    if options.show: show(options.show[0], int(options.show[1]), options.keep); return 0
    if unknown := set(options.formats) - set(FORMATS): parser.error(f"no format {unknown.pop()!r}; there are: {', '.join(FORMATS)}")
    warm()
    names, rows = options.formats or list(FORMATS), {}
    each = -(-options.count // len(names))
    print(f"{'files of each: ' + format(each, ','):22}" + "".join(f"{k:>10}" for k in KINDS) + f"{'seconds':>10}")
    for name in names:
        def note(number: int, kind: str, said: str, name: str = name) -> None: print(f"    {name} {number}: {kind}: {said}", flush=True)
        tally = fuzz(name, list(range(options.first, options.first + each)), note)
        print(f"{name:22}" + "".join(f"{tally.counts[k]:10,}" for k in KINDS) + f"{tally.seconds:10.0f}", flush=True)
        rows[name] = {**{k: tally.counts[k] for k in KINDS}, "seconds": round(tally.seconds), "found": tally.found}
        out = options.out or (ROOT / "benchmarks/results/fuzz.json" if not options.formats else None)
        if out: out.write_text(json.dumps({"files of each format": each, "formats": rows}, indent=1) + "\n")
    total = Counter({k: sum(r[k] for r in rows.values()) for k in KINDS})
    print(f"{'all':22}" + "".join(f"{total[k]:10,}" for k in KINDS))
    return int(any(total[k] for k in KINDS[2:]))


if __name__ == "__main__": sys.exit(main())
