"""Label shares and Cityscapes' layout, as a user meets them: the command, published lists, and what is wrong with a folder."""
from __future__ import annotations

import json
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam_nb.cli import main
from sam_nb.datasets.catalog import load_dataset
from sam_nb.datasets.label_shares import open_shares
from sam_nb.demo.files import make_demo

BUS, PERSON = [[2, 2], [60, 2], [60, 30], [2, 30]], [[20, 8], [30, 8], [30, 20], [20, 20]]


@pytest.fixture(scope="module")
def street(tmp_path_factory) -> Path:
    return make_demo("street", tmp_path_factory.mktemp("shares") / "street", layout="coco", size=64, train=20, val=2, test=2, hard=0, workers=1)


@pytest.fixture
def city(tmp_path) -> Path:
    "Two images in Cityscapes' layout: a bus with a person before it, a group, a polygon of two points; and one with a car."
    things = [[("bus", BUS), ("person", PERSON), ("cargroup", [[64, 2], [90, 2], [90, 20]]), ("car", [[1, 1], [4, 4]])], [("car", BUS)]]
    for k, listed in enumerate(things):
        for folder in ("leftImg8bit", "gtFine"): (tmp_path / folder / "train/ulm").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / f"leftImg8bit/train/ulm/ulm_{k}_leftImg8bit.png"), np.random.default_rng(k).integers(0, 255, (40, 96, 3), np.uint8))
        said = {"imgHeight": 40, "imgWidth": 96, "objects": [{"label": n, "polygon": p} for n, p in listed]}
        (tmp_path / f"gtFine/train/ulm/ulm_{k}_gtFine_polygons.json").write_text(json.dumps(said))
        ids = np.full((40, 96), 7, np.uint16)
        for value, polygon in ((28000, BUS), (24000, PERSON)): cv2.fillPoly(ids, [np.array(polygon)], value)
        cv2.imwrite(str(tmp_path / f"gtFine/train/ulm/ulm_{k}_gtFine_instanceIds.png"), ids)
    return tmp_path


def told(capsys, words: list[str]) -> tuple[int, str]:
    code = main(words)
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, said.out + said.err


def test_the_remedy_of_a_share_is_accepted(street, tmp_path, capsys):
    def shares(*words): return told(capsys, ["shares", "demo_street", *words, "--data_root", str(street), "--out", str(tmp_path / "out")])
    code, out = shares("1")
    assert code == 1 and "is no image (rounded down)" in out and "share=5 is the smallest percentage" in out and not (tmp_path / "out").exists()
    seed = next(str(s) for s in range(40) if "no label of" in shares("5", "--seed", str(s), "--overwrite")[1])
    code, out = shares("10", "--seed", seed, "--every-class")
    assert (code, "no label of" in out) == (0, False) or "cannot show every class" in out
    assert shares("20", "--seed", "1")[0] == 0 and "another share of this size is here" in shares("20", "--seed", "2")[1]


def test_lists_of_others(street, tmp_path):
    data = load_dataset("demo_street", "train", street)
    names = [e.name for e in data.entries]
    (tmp_path / "perc_20.txt").write_text("\r\n".join([f"{n}.png" for n in names[2:6]] + ["absent.png"]))  # another suffix, no last newline
    with warnings.catch_warnings(action="ignore"): labelled, _ = open_shares(data, tmp_path / "perc_20.txt")
    assert [e.name for e in labelled.entries] == names[2:6] and "1 names are absent, such as absent.png" in str(labelled)
    images = [{"file_name": f"{n}.png", "id": n} for n in names[4:9]]  # no sizes, another suffix, two of them labelled
    (tmp_path / "unlabelled.json").write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    with warnings.catch_warnings(action="ignore"):
        both, rest = (open_shares(data, tmp_path / "perc_20.txt", unlabelled=tmp_path / "unlabelled.json", leave_out_labelled=out)[1] for out in (False, True))
    assert ([e.name for e in both.entries], [e.name for e in rest.entries]) == (names[4:9], names[6:9])
    assert "2 of 5 are labelled too" in str(both) and len(both[0]["masks"]) == 0


def test_cityscapes_with_a_group_a_hole_and_a_broken_polygon(city, capsys):
    code, out = told(capsys, ["check", str(city)])
    assert code == 0 and "3 objects" in out and "1 x polygon left out (warning)" in out and "object 3: polygon of fewer than 3 points" in out, out
    data = load_dataset("objects", "all", city, crowd=True)
    masks = data[0]["masks"]
    assert [data.classes[k] for k in masks.categories] == ["car", "person", "bus"] and masks.crowd.tolist() == [True, False, False]
    exact = load_dataset("objects", "all", city, exact=True)[0]["masks"]
    hole = int(masks.areas[2] - exact.areas[exact.categories == 4])
    assert hole == int(exact.areas[exact.categories == 0]) == 11 * 13  # outlines fill what pixels leave out


@pytest.mark.parametrize("gone, code, words", [
    ("polygons.json", 0, ["masks from instanceIds.png (no polygons.json here)", "4 objects"]),
    ("instanceIds.png", 0, ["masks from polygons.json"]),
    ("*", 1, ["neither polygons.json nor instanceIds.png", "take all files of gtFine"])])
def test_cityscapes_without_some_files(city, capsys, gone, code, words):
    for file in (city / "gtFine").rglob(f"*_gtFine_{gone}"): file.unlink()
    got, out = told(capsys, ["check", "cityscapes", "--data_root", str(city)])
    assert got == code and all(w in out for w in words), out


def test_cityscapes_with_damaged_files(city, capsys):
    polygons = sorted((city / "gtFine").rglob("*.json"))
    polygons[0].write_text(polygons[0].read_text()[:40])
    said = json.loads(polygons[1].read_text())
    polygons[1].write_text(json.dumps({**said, "imgHeight": 41}))
    code, out = told(capsys, ["check", str(city)])
    assert code == 1 and "not a JSON file" in out and "the polygons are for 41 x 96 pixels, the image has 40 x 96" in out, out
