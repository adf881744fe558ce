"""What a person does wrong, and what a file holds wrong, is a SamNbError with the fact and what to do: never a raw exception.

One table for each door: recipes in Python, commands and papermill; names and kinds of files; sizes that headers declare; names of
classes; errors of one sample in a loader process.
"""
from __future__ import annotations

import io
import json
import math
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
import yaml
from PIL import Image

from sam_nb.cli import main
from sam_nb.core import DatasetError, ParameterError, SamNbError, read_json
from sam_nb.datasets.catalog import read_dataset_file
from sam_nb.datasets.coco_tables import read_coco
from sam_nb.datasets.json_files import json_kind, open_json
from sam_nb.datasets.object_checks import check_objects
from sam_nb.datasets.objects import load_objects
from sam_nb.datasets.pictures import Picture, read_image, read_label, read_map, read_pixels
from sam_nb.datasets.rasters import OpenRaster
from sam_nb.datasets.refer import read_refs
from sam_nb.evaluation.plan import EvalRecipe
from sam_nb.methods.promptable_recipe import PromptableRecipe, PromptableSwitches
from sam_nb.methods.remotesam_recipe import RemoteSamRecipe
from sam_nb.methods.rsam_recipe import RsamRecipe
from sam_nb.methods.s4m_recipe import S4mRecipe
from sam_nb.methods.saom_recipe import SaomRecipe
from sam_nb.methods.sartm_recipe import SartmRecipe, sartm_recipe
from sam_nb.recipe import Recipe
from sam_nb.training.loader import AugmentedSamples, StepSampler, batches
from sam_nb.weights import open_weights, read_metadata

ROOT = Path(__file__).resolve().parents[2]
RECIPES = (Recipe, SartmRecipe, RsamRecipe, SaomRecipe, RemoteSamRecipe, S4mRecipe, PromptableRecipe)
WRONG: dict[str, tuple[Any, ...]] = {
    "steps": (0, -1, 2**70, 1.5, "many", [3]), "lr": (-1.0, 0.0, math.nan, math.inf, "fast"), "seed": (-1, 2**70, "one"),
    "batch_size": (0, -3, 2**64), "epochs": (0, True), "device": (3, None), "precision": ("fp8",), "milestones": ("half", [math.nan]),
    "workers": (-1,), "stepz": (1,), "x" * 100_000: (1,)}  # each is refused by every recipe


@pytest.mark.parametrize("kind", RECIPES)
def test_a_wrong_value_in_python(kind):
    for name, values in WRONG.items():
        for value in values:
            with pytest.raises(ParameterError) as error: kind(**{name: value})
            said = str(error.value)
            assert name[:80] in said and "to do: " in said and len(said) < 3000, said
            with pytest.raises(ParameterError): kind.model_validate({name: value})
            if name in kind.model_fields:
                with pytest.raises(ParameterError, match=name): setattr(kind(), name, value)


@pytest.mark.parametrize("kind", [k for k in RECIPES if "image_size" in k.model_fields])
def test_a_side_below_one_pixel(kind):
    with pytest.raises(ParameterError, match="image_size=-3"): kind(image_size=-3)


@pytest.mark.parametrize("kind, values", [(EvalRecipe, {"worst": 0}), (EvalRecipe, {"images": 2**64}), (PromptableSwitches, {"clicks": -1})])
def test_other_models_of_parameters(kind, values):
    with pytest.raises(ParameterError, match=f"(?s){next(iter(values))}=.*to do: "): kind(**values)


def test_the_meaning_is_in_the_remedy():
    with pytest.raises(ParameterError, match=r"(?s)steps=0: should be greater than 0.*to do: steps: stop after so many"): sartm_recipe({"steps": 0})


class OneBadSample(torch.utils.data.Dataset):
    name, split = "crops", "train"
    def __init__(self, error): self.error, self.entries = error, [type("Entry", (), {"name": f"field-{k}"}) for k in range(4)]
    def __len__(self): return 4
    def __getitem__(self, index):
        if index == 2: raise self.error
        return {"image": torch.zeros(1), "name": str(index)}


ERRORS = (KeyError("masks"), IndexError("7"), OSError(5, "input/output error"), cv2.error("assertion failed"), ValueError("x" * 10_000), MemoryError(),
          AssertionError(), UnicodeDecodeError("utf-8", b"x", 0, 1, "invalid"), DatasetError("a broken picture", file="f.png", remedy="copy it again"))


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("workers", (0, 1))
def test_an_error_of_a_loader_names_the_sample(error, workers):
    data = AugmentedSamples(OneBadSample(error), None, 0)
    with pytest.raises(SamNbError) as caught: list(batches(data, StepSampler(4, 2, 0, 0, 2), workers))
    said = str(caught.value)
    assert "sample 'field-2' of crops train" in said and "to do: " in said and len(said) < 1000, said
    if isinstance(error, SamNbError): assert (type(caught.value), caught.value.file, caught.value.remedy) == (type(error), error.file, error.remedy)
    else: assert type(error).__name__ in said and isinstance(caught.value, DatasetError)
    if not workers: assert caught.value.__cause__ is error


# ---- by command and by papermill -----------------------------------------------------------------------------------------------------------
SAID = (("--steps", "0", "greater than 0"), ("--lr", "-1", "greater than 0"), ("--lr", "nan", "finite"), ("--lr", "inf", "finite"), ("--seed", str(2**70), "below 2**63"),
        ("--batch_size", "0", "greater than 0"), ("--image_size", "-3", "greater than 0"), ("--stepz", "3", "did you mean 'steps'?"), ("--workers", "many", "whole number"))


@pytest.mark.parametrize("option, value, said", SAID)
def test_a_wrong_value_by_the_command(option, value, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SAM_NB_ROOT", str(tmp_path))
    with pytest.raises(SystemExit) as ended: sys.exit(main(["train", "sartm", option, value]))
    shown = capsys.readouterr()
    assert ended.value.code == 1 and said in shown.err and "Traceback" not in shown.err, shown.err


def test_a_wrong_value_by_papermill(tmp_path):
    words = [sys.executable, "-m", "papermill", str(ROOT / "nbs/train_sartm.ipynb"), str(tmp_path / "o.ipynb"), "-p", "steps", "0", "-p", "seed", str(2**70)]
    said = subprocess.run([*words, "--no-progress-bar"], capture_output=True, text=True, env={**os.environ, "SAM_NB_ROOT": str(tmp_path)}, timeout=300)
    last = said.stderr.strip().splitlines()[-6:]
    assert said.returncode and any("ParameterError: steps=0: should be greater than 0" in line for line in last), last


LONG = "x" * 5000
NAMES = (".", "..", "", LONG, f"{LONG}.png", "a\0b", "a\0b.png", "\ud800", "/dev/zero", "/", "~nobody/x", "con.png\n")


@pytest.mark.parametrize("option", ["--checkpoint", "--data_root", "--dataset", "--run_name", "--resume", "--preset", "--backbone"])
def test_names_by_the_command(option, tmp_path, monkeypatch, capsys):
    "A name that no file can have, or that is no file, is refused; what is left behind is nothing."
    monkeypatch.setenv("SAM_NB_ROOT", str(tmp_path))
    for name in NAMES:
        if name == "" or option == "--data_root" and name in (".", "..", "~nobody/x", "con.png\n"): continue  # nothing was said; folders that a demo may be in
        code = main(["train", "sartm", option, name, "--dry-run"])
        shown = capsys.readouterr()
        assert code == 1 and "Traceback" not in shown.err + shown.out and len(shown.err) < 9000, (name[:20], shown.err)


# ---- files that are none -------------------------------------------------------------------------------------------------------------------
READERS: dict[str, Callable[[Any], Any]] = {
    "Picture": lambda f: Picture(f).read(), "read_image": read_image, "read_label": read_label, "read_map": read_map, "read_pixels": read_pixels,
    "OpenRaster": OpenRaster, "open_json": open_json, "read_coco": read_coco, "read_refs": read_refs, "read_json": read_json, "read_metadata": read_metadata,
    "open_weights": lambda f: open_weights(f).state, "load_objects": load_objects, "json_kind": lambda f: json_kind(f)}


@contextmanager
def odd_files(folder: Path) -> Iterator[dict[str, Any]]:
    fifo, link = folder / "pipe.png", folder / "round.png"
    os.mkfifo(fifo)
    link.symlink_to(link)
    (folder / "folder.png").mkdir()
    listening = socket.socket(socket.AF_UNIX)
    with tempfile.TemporaryDirectory() as short:  # the path of a socket has 108 bytes at most
        listening.bind(f"{short}/s.png")
        yield {"fifo": fifo, "socket": f"{short}/s.png", "device": "/dev/zero", "folder": folder / "folder.png", "link to itself": link,
               "nothing": folder / "gone.png", **{repr(n[:12]): n for n in NAMES if n not in (".", "..", "", "/", "/dev/zero")},
               "below a file": f"{__file__}/x.png"}
        listening.close()


@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_is_refused_at_once(reader, tmp_path):
    def late(*_): raise TimeoutError(reader)
    signal.signal(signal.SIGALRM, late)
    with odd_files(tmp_path) as files:
        for what, file in files.items():
            signal.alarm(20)
            try: answer = READERS[reader](file)
            except SamNbError as error: assert str(error), what
            except FileNotFoundError: assert reader == "read_json", what  # whoever reads it says what is missing
            else: assert reader == "json_kind" and answer[0] == "broken", (what, answer)
            finally: signal.alarm(0)


# ---- sizes that headers declare ------------------------------------------------------------------------------------------------------------
def _bmp(side: int) -> bytes: return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 70, 0, 0, 54, 40, side, side, 1, 24, 0, 16, 0, 0, 0, 0) + b"\0" * 16


def _png(side: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes: return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def _saved(kind: str, find: bytes, put: Callable[[int], bytes]) -> Callable[[int], bytes]:
    def make(side: int) -> bytes:
        file = io.BytesIO()
        Image.new("RGB", (40, 30)).convert("P" if kind == "GIF" else "RGB").save(file, kind)
        assert file.getvalue().count(find), kind
        return file.getvalue().replace(find, put(side), 1)
    return make


def _tiff(side: int) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((30, 40), np.uint8))
    file.seek(0)
    with tifffile.TiffFile(file, mode="r+") as tiff:
        for tag in (256, 257): tiff.pages[0].tags[tag].overwrite(side)
    return file.getvalue()


def _npy(side: int) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (side, side)})
    return file.getvalue() + b"\0" * 99


DECLARED: dict[str, tuple[Callable[[int], bytes], int]] = {  # bytes of a file of this side, the largest side of the format
    "png": (_png, 2**31 - 1), "bmp": (_bmp, 2**31 - 1), "ppm": (lambda n: b"P6 %d %d 255\n" % (n, n) + b"\0" * 99, 2**31 - 1), "npy": (_npy, 2**40), "tiff": (_tiff, 2**32 - 1),
    "jpeg": (_saved("JPEG", struct.pack(">HH", 30, 40), lambda n: struct.pack(">HH", n, n)), 65535),
    "gif": (_saved("GIF", struct.pack("<HH", 40, 30), lambda n: struct.pack("<HH", n, n)), 65535),
    "webp": (_saved("WEBP", struct.pack("<HH", 40, 30), lambda n: struct.pack("<HH", n, n)), 16383),
    "jp2": (_saved("JPEG2000", struct.pack(">II", 40, 30), lambda n: struct.pack(">II", n, n)), 2**32 - 1)}


@pytest.mark.parametrize("kind", DECLARED)
def test_declared_sizes_are_refused_without_memory(kind, tmp_path):
    make, largest = DECLARED[kind]
    for side in sorted({33_000, 50_000, 65_535, 2**20, largest}):
        if side > largest: continue
        file = tmp_path / f"{side}.{kind}"
        file.write_bytes(make(side))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for source in (file, file.read_bytes()):
            for read in (lambda s: Picture(s).read(), read_pixels):
                with pytest.raises(DatasetError): read(source)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
        assert grown < 300, f"{side}: {grown} MB"


# ---- sizes and names in annotations --------------------------------------------------------------------------------------------------------
HUGE = (2**31, 2**62, 2**63, 10**30, 1e308, -5, 0, "9" * 40)


def _photo(folder: Path, name: str = "a.png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48)).save(folder / name)


def _coco(folder: Path, segmentation: Any, size: Any = (48, 64), category: Any = "cup") -> None:
    _photo(folder / "train")
    said = {"images": [{"id": 1, "file_name": "a.png", "height": size[0], "width": size[1]}], "categories": [{"id": 1, "name": category}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "segmentation": segmentation}]}
    (folder / "instances_train.json").write_text(json.dumps(said))


SQUARE = [[1, 1, 20, 1, 20, 20, 1, 20]]


def read_all(folder: Path) -> tuple[str, ...]:
    "Classes of a folder that is read whole, or refused."
    try:
        data = load_objects(folder, "train")
        for k in range(len(data)): data.read(k)[1].areas.sum()
        check_objects(data)
        return data.classes
    except SamNbError as error: assert str(error); return ()


@pytest.mark.parametrize("huge", HUGE, ids=lambda h: str(h)[:12])
def test_huge_sizes_in_coco_and_labelme(huge, tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for k, (segmentation, size) in enumerate((
            (SQUARE, (huge, huge)), ({"size": [huge, huge], "counts": [1, 2]}, (48, 64)), ({"size": [48, 64], "counts": [huge, huge]}, (48, 64)),
            ({"size": [huge, 1], "counts": "PPYo0"}, (huge, 1)), ([[huge, 1, 20, huge, 20, 20]], (48, 64)))):
        _coco(tmp_path / f"coco{k}", segmentation, size)
        read_all(tmp_path / f"coco{k}")
    _photo(tmp_path / "labelme")
    shapes = [{"label": "cup", "shape_type": "polygon", "points": [[huge, 1], [2, 2], [3, huge]]}, {"label": "cup", "shape_type": "circle", "points": [[1, 1], [huge, 1]]}]
    (tmp_path / "labelme/a.json").write_text(json.dumps({"imagePath": "a.png", "imageHeight": huge, "imageWidth": huge, "shapes": shapes, "imageData": None}))
    read_all(tmp_path / "labelme")
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10 < 300


ODD_NAMES = ({"en": "cup"}, ["cup"], 7, 1.5, None, True, "", "x" * 200_000, "<b>cup</b>", "cup\n\x1b[31m")


@pytest.mark.parametrize("name", ODD_NAMES, ids=lambda n: str(n)[:12])
def test_odd_class_names(name, tmp_path):
    "Classes stay short texts; what is no name is a number, or refused."
    _coco(tmp_path / "coco", SQUARE, category=name)
    _photo(tmp_path / "labelme")
    (tmp_path / "labelme/a.json").write_text(json.dumps({"imagePath": "a.png", "shapes": [{"label": name, "points": [[1, 1], [20, 1], [20, 20]]}], "imageData": None}))
    _photo(tmp_path / "yolo/images/train")
    (tmp_path / "yolo/labels/train").mkdir(parents=True)
    (tmp_path / "yolo/labels/train/a.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5\n")
    (tmp_path / "yolo/data.yaml").write_text(yaml.safe_dump({"train": "images/train", "names": {0: name}}))
    for kind in ("coco", "labelme", "yolo"):
        for said in read_all(tmp_path / kind): assert isinstance(said, str) and len(said) <= 200, (kind, said[:80])
    (tmp_path / "dataset.json").write_text(json.dumps({"classes": ["background", name], "title": "x"}))
    try: assert all(isinstance(c, str) and len(c) <= 200 for c in read_dataset_file(tmp_path / "dataset.json").classes)
    except DatasetError as error: assert len(str(error)) < 2000
