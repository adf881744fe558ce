"""`sam_nb segment` on what people have: GeoTIFFs in any CRS, broken pictures, lists, prompts outside, folders that may not be written.

The model is a threshold, so that the right objects are known to the pixel; what needs a real one uses `tiny_sam2`.
"""
from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
import shapely
import torch
from PIL import Image
from rasterio.transform import Affine
from rasterio.warp import transform as warp

from sam_nb.cli import main
from sam_nb.core import ParameterError, RunError, SamNbError
from sam_nb.segment.joining import Found, tight_window
from sam_nb.segment.models import Segmenter
from sam_nb.segment.run import segment_folder

pytestmark = pytest.mark.filterwarnings("ignore")  # rasterio's, of pictures without CRS
DISCS = ((60, 50, 30), (150, 120, 40), (230, 40, 25))  # x, y, radius of bright discs, in pixels; the second has a hole


def threshold(channels: int = 3) -> Segmenter:
    "Each connected bright region is an object; in pieces of 64 pixels."
    def answer(image):
        count, labels = cv2.connectedComponents((image[..., 0] > 128).astype(np.uint8))
        windows = [tight_window(labels == i) for i in range(1, count)]
        return Found.of(windows, [0.9] * len(windows), [-1] * len(windows))
    return Segmenter("everything", (), channels, 512, torch.nn.Linear(1, 1), answer, by_class=False)


def picture(bands: int = 3, low: int = 20) -> np.ndarray:  # uint8 [180, 280, bands]
    rows, columns = np.mgrid[:180, :280]
    bright = np.zeros((180, 280), bool)
    for x, y, r in DISCS: bright |= (columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 < r * r
    bright &= (columns + 0.5 - 150) ** 2 + (rows + 0.5 - 120) ** 2 >= 15 ** 2
    return np.where(bright[..., None], np.uint8(220), np.uint8(low)).repeat(bands, 2)


def write_tiff(path: Path, crs=None, transform=None, bands: int = 3, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = picture(bands)
    placed = {"crs": crs, "transform": Affine(*transform)} if crs else {}
    with rasterio.open(path, "w", driver="GTiff", height=180, width=280, count=bands, dtype="uint8", **placed, **options) as file:
        file.write(pixels.transpose(2, 0, 1))
    return path


def segment(pictures, out: Path, **options):
    return segment_folder(options.pop("model", None) or threshold(), pictures, out, progress=False, sheet=options.pop("sheet", 0), **options)


def features(path: Path) -> list[dict]: return json.loads(path.read_text())["features"]


def files(folder: Path) -> dict[str, bytes]: return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def listed(out: Path) -> list[dict[str, str]]:
    with open(out / "failed.csv", encoding="utf-8") as file: return list(csv.DictReader(file))


# ---- on the map ----------------------------------------------------------------------------------------------------------------------------

PLACES = {"EPSG:32633": (0.5, 0, 4e5, 0, -0.5, 5.8e6), "EPSG:4326": (1e-5, 0, 13, 0, -1e-5, 52),
          "rotated": (0.4, 0.3, 4e5, 0.3, -0.4, 5.8e6), "south up": (0.5, 0, 4e5, 0, 0.5, 5.8e6)}


@pytest.mark.parametrize("crs", ["wgs84", "source"])
@pytest.mark.parametrize("place", PLACES)
def test_georeference(tmp_path, place, crs):
    "Centroids come back within half a pixel, areas within 1 %."
    transform, code = PLACES[place], place if place.startswith("EPSG") else "EPSG:32633"
    write_tiff(tmp_path / "in/a.tif", code, transform)
    summary = segment(tmp_path / "in", tmp_path / "out", to="geojson,labels,instances", crs=crs)
    found = features(summary.written["geojson"])
    assert len(found) == len(DISCS) and summary.ok
    for (x, y, radius) in DISCS:
        def distance(feature, x=x, y=y):
            middle = shapely.geometry.shape(feature["geometry"]).centroid
            (u,), (v,) = ([middle.x], [middle.y]) if crs == "source" else warp("EPSG:4326", code, [middle.x], [middle.y])
            column, row = ~Affine(*transform) @ (u, v)
            return float(np.hypot(column - x, row - y))
        nearest = min(found, key=distance)
        assert distance(nearest) < 0.5
        geometry = shapely.geometry.shape(nearest["geometry"])
        assert geometry.is_valid and len(geometry.interiors) == (radius == 40)
        assert abs(nearest["properties"]["area_m2"] / true_area(nearest["properties"]["pixels"], code, transform) - 1) < 0.01
    for kind in ("labels", "instances"):
        with rasterio.open(summary.out / f"{kind}/a.tif") as file:
            assert file.crs.to_string() == code and tuple(file.transform)[:6] == pytest.approx(transform)
            assert (file.read(1) != file.nodata).sum() == (picture()[..., 0] > 128).sum()


def true_area(pixels: int, crs: str, transform) -> float:
    "Pixels times the area of one, by the geodesic on the ellipsoid."
    if not importlib.util.find_spec("pyproj"): pytest.skip("needs pyproj")
    from pyproj import Geod
    corners = [Affine(*transform) @ p for p in ((140, 90), (141, 90), (141, 91), (140, 91))]
    return abs(Geod(ellps="WGS84").polygon_area_perimeter(*warp(crs, "EPSG:4326", *zip(*corners)))[0]) * pixels


def test_without_crs(tmp_path):
    write_tiff(tmp_path / "in/a.tif")
    summary = segment(tmp_path / "in", tmp_path / "out", to="geojson")
    assert summary.written["geojson"].relative_to(tmp_path / "out").as_posix() == "geojson/pixels/a.geojson"
    middles = [shapely.geometry.shape(f["geometry"]).centroid.coords[0] for f in features(summary.written["geojson"])]
    assert sorted(middles) == [pytest.approx(d[:2], abs=0.5) for d in sorted(DISCS)]
    assert {f["properties"]["area_m2"] for f in features(summary.written["geojson"])} == {None}
    assert "no CRS" in str(summary) and "pixels" in str(summary)


def test_mixed_crs(tmp_path):
    for code in ("EPSG:32633", "EPSG:4326"): write_tiff(tmp_path / f"in/{code[5:]}.tif", code, PLACES[code])
    write_tiff(tmp_path / "in/bare.tif")
    to = "geojson,gpkg" if importlib.util.find_spec("pyogrio") and importlib.util.find_spec("geopandas") else "geojson"
    summary = segment(tmp_path / "in", tmp_path / "out", to=to)
    assert len(features(tmp_path / "out/geojson/objects.geojson")) == 6 and len(features(tmp_path / "out/geojson/pixels/bare.geojson")) == 3
    assert "2 CRS" in str(summary) and "1 pictures have no CRS" in str(summary)
    if "gpkg" not in to: return
    import pyogrio
    assert {name for name, _ in pyogrio.list_layers(tmp_path / "out/objects.gpkg")} == {"objects_EPSG_32633", "objects_EPSG_4326", "objects_pixels"}


def test_pixels_without_data(tmp_path):
    "Nothing is found where the file has no data, and the label map says so."
    path = write_tiff(tmp_path / "in/a.tif", "EPSG:32633", PLACES["EPSG:32633"], nodata=220)
    summary = segment(path, tmp_path / "out", to="labels")
    assert summary.counts == {}
    with rasterio.open(tmp_path / "out/labels/a.tif") as file: assert (file.read(1) == file.nodata).all()


def test_in_tiles_as_in_one_piece(tmp_path):
    path = write_tiff(tmp_path / "in/a.tif", "EPSG:32633", PLACES["EPSG:32633"])
    whole, tiled = (features(segment(path, tmp_path / str(tile), to="geojson", tile=tile, overlap=0.5).written["geojson"]) for tile in (512, 96))
    assert sorted(f["properties"]["pixels"] for f in tiled) == sorted(f["properties"]["pixels"] for f in whole)


def classes(partners: tuple[str, ...] = ()) -> Segmenter:
    "Dark, bright; and hot, where a second camera's picture is bright."
    def answer(image, more):
        bright = (image[..., 0] > 128).astype(np.float32)
        hot = (more["thermal"][..., 0] > 128).astype(np.float32) * 2 if partners else bright * 0
        return np.stack([1 - bright, bright, hot])
    return Segmenter("semantic", ("dark", "bright", "hot"), 3, 512, torch.nn.Linear(1, 1), answer, partners=partners)


def test_classes_of_pixels(tmp_path):
    write_tiff(tmp_path / "in/a.tif", "EPSG:32633", PLACES["EPSG:32633"])
    summary = segment(tmp_path / "in", tmp_path / "out", model=classes(), to="labels,coco,geojson", sheet=3)
    bright = picture()[..., 0] > 128
    with rasterio.open(tmp_path / "out/labels/a.tif") as file:
        assert (file.read(1) == bright).all() and file.crs.to_epsg() == 32633 and file.tags()["class_1"] == "bright"
    assert summary.counts == {"dark": int((~bright).sum()), "bright": int(bright.sum())}
    regions = features(summary.written["geojson"])
    assert sorted(f["properties"]["class"] for f in regions) == ["bright"] * 3 + ["dark"] * 2  # the ground, and what is seen through the hole
    notes = json.loads((tmp_path / "out/coco/annotations/instances.json").read_text())["annotations"]
    assert [a["area"] for a in notes] == [summary.counts["dark"], summary.counts["bright"]]
    with pytest.raises(ParameterError, match="finds classes"): segment(tmp_path / "in", tmp_path / "new", model=classes(), to="yolo")


def test_rgb_thermal(tmp_path):
    thermal = np.zeros((180, 280), np.uint8)
    thermal[:40, :50] = 255
    for folder, pixels in (("Visible", picture()), ("Infrared", thermal), ("Label", thermal)):
        (tmp_path / "fmb/test" / folder).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / f"fmb/test/{folder}/1.png")
    Image.fromarray(np.dstack([picture(), thermal])).save(tmp_path / "four.png")
    for k, what in enumerate((tmp_path / "fmb", tmp_path / "fmb/test", tmp_path / "four.png")):
        summary = segment(what, tmp_path / f"out{k}", model=classes(("thermal",)), sheet=2)
        assert (summary.pictures, summary.counts["hot"]) == (1, 40 * 50), str(summary)
    assert segment(tmp_path / "fmb", tmp_path / "all").pictures == 3  # a model of one camera takes each picture as it is
    summary = segment(tmp_path / "fmb/test/Visible", tmp_path / "out3", model=classes(("thermal",)))
    assert "no thermal picture" in summary.failures[0].fact and "--thermal" in summary.failures[0].remedy
    assert segment(tmp_path / "fmb/test/Visible", tmp_path / "out4", model=classes(("thermal",)), thermal=tmp_path / "fmb/test/Infrared").ok


# ---- prompts -------------------------------------------------------------------------------------------------------------------------------

def test_boxes_outside(tmp_path):
    write_tiff(tmp_path / "in/a.tif")
    rows = [{"id": 1, "image_id": 1, "bbox": [30, 20, 60, 60]}, {"id": 2, "image_id": 1, "bbox": [400, 20, 60, 60]}, {"id": 3, "image_id": 2, "bbox": [1, 1, 9, 9]}]
    (tmp_path / "boxes.json").write_text(json.dumps({"images": [{"id": 1, "file_name": "a.tif"}, {"id": 2, "file_name": "gone.tif"}], "annotations": rows}))
    summary = segment(tmp_path / "in", tmp_path / "out", model="tiny_sam2", prompts=tmp_path / "boxes.json", to="geojson", device="cpu")
    assert [f["properties"]["prompt"] for f in features(summary.written["geojson"])] == [1]
    facts = [row["fact"] for row in listed(tmp_path / "out")]
    assert len(facts) == 2 and "annotation 2" in facts[0] and "outside" in facts[0] and "none of the pictures: 3" in facts[1]


# ---- what may not stop the rest ------------------------------------------------------------------------------------------------------------

def broken_folder(folder: Path) -> Path:
    for i in range(5): write_tiff(folder / f"sub{i % 2}/{i}.tif", "EPSG:32633", (0.5, 0, 4e5 + 200 * i, 0, -0.5, 5.8e6))
    whole = (folder / "sub0/0.tif").read_bytes()
    (folder / "sub0/cut.tif").write_bytes(whole[:len(whole) // 2])
    chunks = (b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(99))), (b"IEND", b"")
    png = b"".join(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + png)
    write_tiff(folder / "eight.tif", bands=8)
    return folder


def test_broken_pictures(tmp_path):
    summary = segment(broken_folder(tmp_path / "in"), tmp_path / "out", to="coco,geojson")
    assert summary.pictures == 5 and not summary.ok
    rows = {Path(row["file"]).name: row for row in listed(tmp_path / "out")}
    assert set(rows) == {"bomb.png", "cut.tif", "eight.tif"} and all(row["remedy"] for row in rows.values())
    assert "40,000 x 40,000" in rows["bomb.png"]["fact"] or "40000" in rows["bomb.png"]["fact"]
    assert "8 bands" in rows["eight.tif"]["fact"] and "--bands 1,2,3" in rows["eight.tif"]["remedy"]
    again = segment(tmp_path / "in/eight.tif", tmp_path / "other", bands=(1, 2, 3))
    assert again.ok and sum(again.counts.values()) == 3


def test_bands(tmp_path):
    "One band for a model of three, and three for a model of one."
    path = write_tiff(tmp_path / "one.tif", bands=1)
    assert sum(segment(path, tmp_path / "a").counts.values()) == 3
    assert sum(segment(write_tiff(tmp_path / "three.tif"), tmp_path / "b", model=threshold(channels=1)).counts.values()) == 3


@pytest.mark.parametrize("workers", [1, 7])
def test_results_do_not_depend_on_workers_or_stops(tmp_path, workers):
    folder, to = broken_folder(tmp_path / "in"), "coco,yolo,labels,instances,geojson"
    segment(folder, tmp_path / "whole", to=to, workers=3, sheet=6)
    stopping, left = threshold(), [None, None]
    answer = stopping.answer
    def stop_in_the_third(image):
        if not left: raise KeyboardInterrupt
        left.pop()
        return answer(image)
    stopping.answer = stop_in_the_third
    model = threshold()
    stopping.model = model.model
    with pytest.raises(KeyboardInterrupt): segment(folder, tmp_path / "out", model=stopping, to=to, workers=workers)
    assert len(list((tmp_path / "out/objects").rglob("*.json"))) < 5 and not (tmp_path / "out/coco").exists()
    (tmp_path / "out/objects/.0.json.x.tmp").write_text("{")  # what kill -9 leaves of a file that is being written
    segment(folder, tmp_path / "out", model=model, to=to, workers=workers, sheet=6)
    (tmp_path / "out/objects/.0.json.x.tmp").unlink()
    one, other = files(tmp_path / "whole"), files(tmp_path / "out")
    for content in (one, other): content.pop("segment.json")  # the weights of the two thresholds differ
    assert one == other


def test_changed_and_further_pictures(tmp_path):
    model = threshold()
    path = write_tiff(tmp_path / "in/a.tif")
    segment(tmp_path / "in", tmp_path / "out", model=model)
    Image.fromarray(picture()[:, :100]).save(tmp_path / "in/b.png")
    os.utime(path, (1, 1))
    summary = segment(tmp_path / "in", tmp_path / "out", model=model)
    assert (summary.pictures, summary.earlier, summary.counts) == (2, 0, {"object": 4})
    path.write_bytes(b"II*\0")  # broken now: its old result is forgotten
    summary = segment(tmp_path / "in", tmp_path / "out", model=model)
    assert (summary.counts, len(summary.failures)) == ({"object": 1}, 1)


# ---- what is refused at once ---------------------------------------------------------------------------------------------------------------

def test_out_that_may_not_be_written(tmp_path):
    path = write_tiff(tmp_path / "in/a.tif")
    for out in (tmp_path / "in", path, tmp_path):
        with pytest.raises(RunError) as error: segment(tmp_path / "in", out)
        assert error.value.remedy
    assert files(tmp_path) == {"in/a.tif": path.read_bytes()}
    segment(tmp_path / "in", tmp_path / "out")
    with pytest.raises(RunError, match="another run: weights") as error: segment(tmp_path / "in", tmp_path / "out")
    assert "--overwrite" in error.value.remedy
    (tmp_path / "out/notes.txt").write_text("mine")
    segment(tmp_path / "in", tmp_path / "out", overwrite=True)
    assert (tmp_path / "out/notes.txt").read_text() == "mine"


def test_out_below_the_pictures_is_not_read(tmp_path):
    write_tiff(tmp_path / "in/a.tif")
    model = threshold()
    for _ in range(2): summary = segment(tmp_path / "in", tmp_path / "in/out", model=model, to="instances", sheet=4)
    assert (summary.pictures, summary.earlier) == (0, 1)


@pytest.mark.parametrize(("images", "masks"), [("train/{}_sat.jpg", "train/{}_mask.png"), ("images/{}.jpg", "masks/{}.png")])
def test_masks_of_a_data_set_are_left_out(tmp_path, images, masks):
    for k in range(12):
        for name in (images, masks):
            path = tmp_path / "in" / name.format(k)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture()[:40, :60]).save(path)
    model, first = threshold(), masks.format(0)
    summary = segment(tmp_path / "in", tmp_path / "out", model=model)
    assert summary.pictures == 12
    assert summary.notes[0] == f"12 files look like masks of others ({first}): left out; name them by a pattern to segment them"
    again = segment(tmp_path / "in", tmp_path / "out", model=model)
    assert (again.pictures, again.earlier, again.notes[0]) == (0, 12, summary.notes[0])
    named = segment(str(tmp_path / "in" / masks.format("*")), tmp_path / "masks")
    assert named.pictures == 12 and "masks of others" not in str(named)
    one = segment(tmp_path / "in" / first, tmp_path / "one")
    assert one.pictures == 1 and "mask of another" not in str(one)


def test_a_folder_without_pairs_is_taken_whole(tmp_path):
    for name in ("masks/1.tif", "masks/2.tif", "photos/3.tif", "label.tif"): write_tiff(tmp_path / "in" / name)
    summary = segment(tmp_path / "in", tmp_path / "out")
    assert summary.pictures == 4 and "left out" not in str(summary)


def test_a_turned_picture_is_not_said_to_have_masks(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(picture()).save(tmp_path / "in/a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")
    summary = segment(tmp_path / "in", tmp_path / "out")
    assert json.loads((tmp_path / "out/objects/a.json").read_text())["size"] == [280, 180]  # it is turned
    assert not summary.notes, summary.notes


def test_names_that_lead_outside(tmp_path):
    write_tiff(tmp_path / "secret.tif")
    write_tiff(tmp_path / "in/a.tif")
    (tmp_path / "in/list.txt").write_text(f"a.tif\n../secret.tif\n{tmp_path}/secret.tif\nsub/../../a.png\n")  # the last one's name is taken
    model = threshold()
    summary = segment(tmp_path / "in/list.txt", tmp_path / "out", model=model)
    assert summary.pictures == 1 and [r["fact"].split(", which ")[1].split()[0] for r in listed(tmp_path / "out")] == ["leads"] * 3
    assert segment(tmp_path / "in/list.txt", tmp_path / "out", model=model).earlier == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out", "secret.tif"]


def test_what_a_model_cannot_do(tmp_path):
    path = write_tiff(tmp_path / "in/a.tif")
    for options in ({"text": ["the red roof"]}, {"task": "semantic"}, {"to": "shp"}, {"tile": 5}, {"overlap": 2.0}, {"bands": (9,)}, {"thermal": tmp_path / "in"}):
        try: summary = segment_folder("tiny_sam2", path, tmp_path / "out", progress=False, device="cpu", sheet=0, **options)
        except SamNbError as error: assert error.remedy, options
        else: assert options.get("bands") and "9" in summary.failures[0].fact
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
    with pytest.raises(ParameterError, match="text"): segment_folder("tiny_sam2", path, tmp_path / "out", text=["a roof"], progress=False)


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    broken_folder(tmp_path / "in")
    assert main("segment tiny_sam2 in out --grid 2 --tile 512 --device cpu --sheet 2".split()) == 1
    said = capsys.readouterr().out
    assert "5 pictures segmented" in said and "3 failed" in said and (tmp_path / "out/sheet.png").is_file()
    assert main("segment tiny_sam2 in in".split()) == 1
    assert "to do:" in capsys.readouterr().err
