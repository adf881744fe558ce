"""COCO files as people have them: names, ids, sizes and masks written by many tools, read right or refused by name.

Every picture is dark with bright shapes, so that a mask in the wrong place shows as a lost contrast.
"""
from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

from sam_nb.core import DatasetError
from sam_nb.datasets.json_files import json_kind
from sam_nb.datasets.object_checks import check_objects
from sam_nb.datasets.objects import load_objects
from sam_nb.datasets.referring import load_referring
from sam_nb.datasets.referring_files import convert_referring

SIZE, COUNT, EACH = (60, 80), 5, 3


def shapes(k: int) -> list[np.ndarray]:
    "Three bright shapes of picture k: a rectangle, a disc and a triangle, each somewhere else in every picture."
    rng, found = np.random.default_rng(k), []
    for n, x in enumerate((14, 40, 66)):
        mask, y = np.zeros(SIZE, np.uint8), int(rng.integers(14, 46))
        if n == 0: cv2.rectangle(mask, (x - 8, y - 5), (x + 8, y + 5), 1, -1)
        if n == 1: cv2.circle(mask, (x, y), 9, 1, -1)
        if n == 2: cv2.fillPoly(mask, [np.array([(x - 8, y + 6), (x + 8, y + 6), (x, y - 9)])], 1)
        found.append(mask)
    return found


def outline(mask: np.ndarray) -> list[float]:
    return cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0][0].astype(float).ravel().tolist()


def packed(mask: np.ndarray) -> dict:
    runs = coco.encode(np.asfortranarray(mask))
    return {"size": list(SIZE), "counts": runs["counts"].decode()}


def runs_of(mask: np.ndarray) -> dict:
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat, prepend=0))
    return {"size": list(SIZE), "counts": np.diff([0, *edges, flat.size]).tolist()}


def make(root: Path, file: str = "annotations/instances_train.json", images: str = "images", ending: str = ".png") -> dict:
    "A sound COCO folder; its data, to be changed and written again by `save`."
    (root / images).mkdir(parents=True, exist_ok=True)
    data = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "box"}, {"id": 2, "name": "disc"}, {"id": 3, "name": "tent"}]}
    for k in range(COUNT):
        masks = shapes(k)
        picture = np.full((*SIZE, 3), 20, np.uint8)
        for mask in masks: picture[mask > 0] = 220
        cv2.imwrite(str(root / images / f"{k:04}{ending}"), picture)
        data["images"].append({"id": k + 1, "file_name": f"{k:04}{ending}", "height": SIZE[0], "width": SIZE[1]})
        for n, mask in enumerate(masks):
            x, y, w, h = cv2.boundingRect(mask)
            data["annotations"].append({"id": EACH * k + n + 1, "image_id": k + 1, "category_id": n + 1, "iscrowd": 0, "area": int(mask.sum()),
                                        "bbox": [x, y, w, h], "segmentation": [outline(mask)]})
    save(root, data, file)
    return data


def save(root: Path, data: object, file: str = "annotations/instances_train.json", **how) -> None:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(data, **how), encoding="utf-8")


def mask_of(k: int, n: int) -> np.ndarray: return shapes(k)[n]


def read(root: Path, split: str | None = "all", **options) -> tuple[int, int, float]:
    "Images, objects, and the least contrast of an image: mean inside the objects minus mean outside."
    data, objects, contrast = load_objects(root, split, **options), 0, []
    for i in range(len(data)):
        image, masks = data.read(i)
        inside, grey = masks[:].any(0).numpy(), image.float().mean(0).numpy()
        contrast.append(grey[inside].mean() - grey[~inside].mean())
        objects += len(masks)
    return len(data), objects, min(contrast)


def read_whole(root: Path, split: str | None = "all", **options) -> None:
    images, objects, contrast = read(root, split, **options)
    assert (images, objects) == (COUNT, COUNT * EACH) and contrast > 150, (images, objects, contrast)


def refused(root: Path, *wanted: str, **options) -> None:
    with pytest.raises(DatasetError) as said: load_objects(root, "all", **options)
    assert all(w in str(said.value) for w in wanted), str(said.value)


def renamed(root: Path, written, on_disk=None) -> None:
    "Other names in the file, and on disk."
    data = make(root)
    for image in data["images"]:
        name = image["file_name"]
        image["file_name"] = written(name)
        if on_disk:
            (root / on_disk(name)).parent.mkdir(parents=True, exist_ok=True)
            (root / "images" / name).rename(root / on_disk(name))
    save(root, data)


NAMES = {  # how the file names a picture, and where it is
    "another machine": (lambda n: f"/home/anna/project/images/{n}", None),
    "Windows": (lambda n: rf"C:\Users\anna\images\{n}", None),
    "backslashes": (lambda n: rf"images\{n}", None),
    "another ending": (lambda n: n.replace(".png", ".jpg"), None),
    "no ending": (lambda n: n.replace(".png", ""), None),
    "capital letters": (lambda n: n.upper(), None),
    "capital letters on disk": (lambda n: n, lambda n: f"images/{n.upper()}"),
    "a folder too many": (lambda n: f"batch_7/{n}", None),
    "a folder too few": (lambda n: n, lambda n: f"images/batch_7/{n}"),
    "folders deep": (lambda n: n, lambda n: f"images/a/b/c/{n}"),
    "an upload": (lambda n: f"../../label-studio/data/media/upload/4/0a1b2c3d-{n}", None),
    "an upload kept": (lambda n: f"/data/upload/4/0a1b2c3d-{n}", lambda n: f"images/0a1b2c3d-{n}"),
    "an upload on disk": (lambda n: n, lambda n: f"images/0a1b2c3d-{n}"),
    "local files": (lambda n: f"/data/local-files/?d=field/{n}", None),
    "an address": (lambda n: f"https://bucket.example/set%201/{n}?token=abc", None),
    "escaped": (lambda n: f"my%20photo%20{n}", lambda n: f"images/my photo {n}"),
    "escapes on disk": (lambda n: f"my%20photo%20{n}", lambda n: f"images/my%20photo%20{n}"),
    "dots": (lambda n: f"./images/./{n}", None),
    "leaves the folder": (lambda n: f"../elsewhere/{n}", None),
    "the folder itself": (lambda n: f"images/{n}", None),
    "decomposed letters": (lambda n: f"cafe\u0301_{n}", lambda n: f"images/caf\u00e9_{n}"),
    "COCO's split folder": (lambda n: n, lambda n: f"train2017/{n}"),
    "the annotations' folder": (lambda n: n, lambda n: f"annotations/{n}"),
    "CVAT's subset": (lambda n: n, lambda n: f"images/Train/{n}"),
    "VOC's folder": (lambda n: n, lambda n: f"JPEGImages/{n}"),
    "beside the root": (lambda n: n, lambda n: n),
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_pictures_are_found_by_their_names(tmp_path, names):
    renamed(tmp_path, *names)
    read_whole(tmp_path)


def test_a_picture_outside_the_folder_is_not_read(tmp_path):
    data = make(tmp_path / "data")
    (tmp_path / "data/images/0000.png").rename(tmp_path / "0000.png")
    for name in ("../0000.png", "../../0000.png", str(tmp_path / "0000.png"), "images/../../0000.png"):
        data["images"][0]["file_name"] = name
        save(tmp_path / "data", data)
        found = load_objects(tmp_path / "data", "all")
        assert [p.kind for p in found.problems] == ["image missing"] and len(found) == COUNT - 1


def test_two_pictures_of_one_name_are_told_apart(tmp_path):
    data = make(tmp_path)
    for k, image in enumerate(data["images"]):
        folder = f"cam{k % 2}"
        (tmp_path / "images" / folder).mkdir(exist_ok=True)
        (tmp_path / "images" / image["file_name"]).rename(tmp_path / "images" / folder / f"{k // 2}.png")
        image["file_name"] = f"/mnt/disk/{folder}/{k // 2}.png"
    save(tmp_path, data)
    read_whole(tmp_path)
    for k, image in enumerate(data["images"]): image["file_name"] = f"/mnt/disk/{k // 2}.png"
    save(tmp_path, data)
    found = load_objects(tmp_path, "all")  # 2.png is there once, 0 and 1 twice
    assert [p.kind for p in found.problems] == ["image missing"] * 4 and "cam0/0.png, cam1/0.png" in found.problems[0].fact
    (tmp_path / "images/cam1/0.png").unlink()  # now two images of the list name one picture
    assert [p.kind for p in load_objects(tmp_path, "all").problems] == ["picture twice", "image missing", "image missing"]


def test_a_missing_picture_is_not_replaced(tmp_path):
    make(tmp_path)
    for folder in ("masks", "val"):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "0000.png"), np.zeros((*SIZE, 3), np.uint8))
    (tmp_path / "images/0000.png").unlink()
    assert read(tmp_path)[:2] == (COUNT - 1, EACH * (COUNT - 1))


def changed(root: Path, change) -> None:
    data = make(root)
    change(data)
    save(root, data)


def each(key: str, value):  # changes every annotation (or image, where the key begins with "images.")
    def change(data: dict) -> None:
        rows, name = (data["images"], key.partition(".")[2]) if key.startswith("images.") else (data["annotations"], key)
        for row in rows: row[name] = value(row)
    return change


def segment(make_one, **more):  # replaces every segmentation by one of its mask
    def change(data: dict) -> None:
        for i, a in enumerate(data["annotations"]): a.update(segmentation=make_one(mask_of(i // EACH, i % EACH)), **more)
    return change


def all_of(*changes):
    def change(data: dict) -> None:
        for c in changes: c(data)
    return change


def halves(mask: np.ndarray, form) -> list:
    left, right = mask.copy(), mask.copy()
    middle = int(np.flatnonzero(mask.any(0)).mean())
    left[:, middle:], right[:, :middle] = 0, 0
    return [form(left), form(right)]


def without(key: str):
    def change(data: dict) -> None: [i.pop(key) for i in data["images"]]
    return change


READ = {
    "sizes of 160.0": all_of(each("images.height", lambda i: 60.0), each("images.width", lambda i: 80.0)),
    "sizes as text": all_of(each("images.height", lambda i: "60"), each("images.width", lambda i: " 80.0 ")),
    "sizes null": all_of(each("images.height", lambda i: None), each("images.width", lambda i: None)),
    "sizes 0": all_of(each("images.height", lambda i: 0), each("images.width", lambda i: 0)),
    "sizes missing": all_of(without("height"), without("width")),
    "one size missing": lambda data: data["images"][2].update(height=None, width=None),
    "no sizes, run lengths": all_of(without("height"), without("width"), segment(packed)),
    "image ids as text": each("images.id", lambda i: str(i["id"])),
    "image ids with zeros": each("images.id", lambda i: f"{i['id']:06}"),
    "references as text": each("image_id", lambda a: str(a["image_id"])),
    "references as 1.0": each("image_id", lambda a: float(a["image_id"])),
    "ids that are names": all_of(each("images.id", lambda i: f"img_{i['id']}"), each("image_id", lambda a: f"img_{a['image_id']}")),
    "categories as text": each("category_id", lambda a: str(a["category_id"])),
    "annotation ids as text": each("id", lambda a: f"ann-{a['id']}"),
    "annotation ids missing": lambda data: [a.pop("id") for a in data["annotations"]],
    "one id for all": each("id", lambda a: 1),
    "run lengths": segment(packed),
    "uncompressed": segment(runs_of),
    "run lengths in a list": segment(lambda m: [packed(m)]),
    "uncompressed in a list": segment(lambda m: [runs_of(m)]),
    "several run lengths": segment(lambda m: halves(m, packed)),
    "several uncompressed": segment(lambda m: halves(m, runs_of)),
    "run lengths and polygons": segment(lambda m: [packed(m), outline(m)]),
    "bytes that Python printed": segment(lambda m: {**packed(m), "counts": str(packed(m)["counts"].encode())}),
    "sizes of run lengths as floats": segment(lambda m: {**packed(m), "size": [60.0, 80.0]}),
    "counts as floats": segment(lambda m: {"size": [60.0, 80.0], "counts": [float(c) for c in runs_of(m)["counts"]]}),
    "width before height": segment(lambda m: {**packed(m), "size": [80, 60]}),
    "width before height, uncompressed": segment(lambda m: {**runs_of(m), "size": [80, 60]}),
    "width before height, in a list": segment(lambda m: [{**packed(m), "size": [80, 60]}]),
    "run lengths without size": segment(lambda m: {"counts": packed(m)["counts"]}),
    "points in pairs": segment(lambda m: [np.reshape(outline(m), (-1, 2)).tolist()]),
    "one list of numbers": segment(outline),
    "polygons as text": segment(lambda m: [[str(v) for v in outline(m)]]),
    "two polygons": segment(lambda m: [outline(p) for p in halves(m, lambda h: h)]),
    "brush masks of CVAT": segment(runs_of, iscrowd=1),
    "brush masks, packed": segment(packed, iscrowd=True),
    "no categories": lambda data: data.pop("categories"),
    "categories null": lambda data: data.update(categories=None),
    "a category twice": lambda data: data["categories"].append({"id": 1, "name": "box"}),
    "an id of two categories": lambda data: data["categories"].append({"id": 1, "name": "crate"}),
    "a name of two categories": lambda data: data["categories"].append({"id": 9, "name": "box"}),
    "no keys but the needed": lambda data: [[a.pop(k) for k in ("iscrowd", "area", "bbox")] for a in data["annotations"]],
    "info of any kind": lambda data: data.update(info={"images": [1, {"annotations": []}]}, licenses=None, note='a "[{" in text \\'),
}


@pytest.mark.parametrize("change", READ.values(), ids=READ)
def test_a_file_is_read_as_it_was_meant(tmp_path, change):
    changed(tmp_path, change)
    read_whole(tmp_path)


def test_brush_masks_beside_polygons_are_objects(tmp_path):
    def change(data):
        for i, a in enumerate(data["annotations"]):
            a["attributes"] = {"occluded": False}
            if i % 2: a.update(segmentation=runs_of(mask_of(i // EACH, i % EACH)), iscrowd=1)
    changed(tmp_path, change)
    read_whole(tmp_path)
    assert not any(load_objects(tmp_path, "all").read(0)[1].crowd)


def test_a_real_crowd_stays_one(tmp_path):
    changed(tmp_path, lambda data: data["annotations"][0].update(segmentation=runs_of(mask_of(0, 0)), iscrowd=1))
    assert read(tmp_path)[1] == COUNT * EACH - 1
    assert read(tmp_path, crowd=True)[1] == COUNT * EACH
    problem, = load_objects(tmp_path, "all").problems
    assert (problem.kind, problem.severity) == ("crowd", "warning") and "--crowd true" in problem.remedy


def test_a_file_of_crowds_says_so(tmp_path):
    changed(tmp_path, segment(runs_of, iscrowd=1))
    assert any("marked as crowds" in note for note in load_objects(tmp_path, "all").found.notes)


def test_nothing_and_masks_may_be_mixed(tmp_path):
    def change(data):
        for a, nothing in zip(data["annotations"][:4], (None, [], {}, [[]]), strict=True): a["segmentation"] = nothing
        data["annotations"][4].pop("segmentation")
    changed(tmp_path, change)
    assert read(tmp_path)[1] == COUNT * EACH - 5


@pytest.mark.parametrize("by", [(1 / 80, 1 / 60), (0.5 / 80, 0.5 / 60)])
def test_shares_of_the_side_are_refused_by_name(tmp_path, by):
    def shares(mask): return [(np.reshape(outline(mask), (-1, 2)) * by).ravel().tolist()]
    changed(tmp_path, segment(shares))
    refused(tmp_path, "coordinates are shares of the side", "instances_train.json", "multiply x by the width")


@pytest.mark.parametrize("nothing", [None, [], {}, ""])
def test_boxes_alone_are_no_masks(tmp_path, nothing):
    changed(tmp_path, each("segmentation", lambda a: nothing))
    refused(tmp_path, "boxes only, no masks", "sam_nb segment")


def test_boxes_without_the_key_are_no_masks(tmp_path):
    changed(tmp_path, lambda data: [a.pop("segmentation") for a in data["annotations"]])
    refused(tmp_path, "boxes only, no masks")


def test_a_wrong_size_is_named(tmp_path):
    changed(tmp_path, all_of(each("images.height", lambda i: 120), each("images.width", lambda i: 160)))
    data = load_objects(tmp_path, "all")
    with pytest.raises(DatasetError, match="60 x 80.*120 x 160"): data.read(0)


def test_exchanged_sides_without_a_box_are_named(tmp_path):
    changed(tmp_path, all_of(segment(lambda m: {**packed(m), "size": [80, 60]}), each("bbox", lambda a: [])))
    refused(tmp_path, "height and width exchanged")


def test_damage_is_counted_and_the_rest_is_read(tmp_path):
    def change(data):
        broken = ([[1, 1, 5, 5]], [[1, 1, None, 5, 5, 5]], [[900, 0, 950, 0, 950, 20]], {"size": [6, 8], "counts": [48]}, {**packed(mask_of(1, 2)), "counts": "a~"},
                  {"size": list(SIZE), "counts": [5, 5]}, [{"size": list(SIZE), "counts": "zz"}], "text", 7, [[.1, .1, .2, .3, .3, .1]])
        for a, s in zip(data["annotations"], broken, strict=False): a["segmentation"] = s
        data["annotations"] += [None, 5, {"image_id": 99}, {}]
        data["images"] += [{"id": 77, "file_name": "gone.png", "height": 60, "width": 80}, {"file_name": "no_id.png"}, None]
    changed(tmp_path, change)
    assert read(tmp_path)[1] == COUNT * EACH - 10
    problems = load_objects(tmp_path, "all").problems
    assert {"image missing", "annotation of an unknown image", "run lengths that do not fill the image"} <= {p.kind for p in problems}
    assert {p.kind for p in problems if p.severity == "error"} == {"image missing", "image without id or file name"}


@pytest.mark.parametrize("nothing", [None, [], {}, [[]], [[1, 2, 3, 4]]])
def test_a_single_broken_annotation_is_a_warning(tmp_path, nothing):
    changed(tmp_path, lambda data: data["annotations"][4].update(segmentation=nothing))
    report = check_objects(load_objects(tmp_path, "all"))
    assert report.ok and report.objects == COUNT * EACH - 1 and len(report.problems) == 1, str(report)


@pytest.mark.parametrize("how", [{"indent": 2}, {"ensure_ascii": False}, {"separators": (",", ":")}, {"sort_keys": True}])
def test_any_way_of_writing_json(tmp_path, how):
    data = make(tmp_path)
    data["categories"][0]["name"] = 'Straße "[\\'
    save(tmp_path, data, **how)
    read_whole(tmp_path)
    assert load_objects(tmp_path, "all").classes[0] == 'Straße "[\\'


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_any_encoding(tmp_path, encoding):
    data = make(tmp_path)
    (tmp_path / "annotations/instances_train.json").write_text(json.dumps(data), encoding=encoding)
    read_whole(tmp_path)


def test_values_that_only_python_writes(tmp_path):
    changed(tmp_path, each("score", lambda a: float("nan")))
    read_whole(tmp_path)


PLACES = {"result.json": "images", "annotations.json": "images", "train/_annotations.coco.json": "train", "annotations/instances_default.json": "images/default",
          "annotations/instances_Train.json": "images/Train", "Annotations/Instances_Train.json": "Images", "labels.json": "data", "annotations/train.json": "train",
          "rrsisd/instances.json": "images/rrsisd/JPEGImages", "coco.json": ".", "annotations/instances.json": "images", "Annotations/coco.json": "."}


@pytest.mark.parametrize("file", PLACES)
def test_where_tools_put_the_file(tmp_path, file):
    make(tmp_path, file, PLACES[file])
    (tmp_path / "package.json").write_text('{"name": "x"}')
    read_whole(tmp_path)


def test_splits_of_tools_are_kept(tmp_path):
    for split, folder in {"Train": "images/Train", "Validation": "images/Validation"}.items(): make(tmp_path, f"annotations/instances_{split}.json", folder)
    for split in ("train", "val"): read_whole(tmp_path, split)
    for split in ("train", "valid", "test"): make(tmp_path / "robo", f"{split}/_annotations.coco.json", split)
    for split in ("train", "val", "test"): read_whole(tmp_path / "robo", split)


def test_a_file_given_by_name_is_read(tmp_path):
    make(tmp_path)
    for where in (tmp_path / "annotations/instances_train.json",): read_whole(where)
    (tmp_path / "a.json").write_text((tmp_path / "annotations/instances_train.json").read_text())
    read_whole(tmp_path, annotations=tmp_path / "a.json")
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "images").rename(elsewhere)
    read_whole(tmp_path, images=elsewhere)


def test_what_a_json_file_is(tmp_path):
    data = make(tmp_path)
    kinds = {"coco": data, "list": ["a"], "results": [{"image_id": 1, "score": .5, "bbox": [0, 0, 1, 1]}], "saom": {"entity classes": []},
             "annotations": data["annotations"], "boxes": [{"bbox": [0, 0, 1, 1]}], "object": {"a": 1}, "value": 3,
             "images": {"images": [], "categories": []}, "panoptic": {"images": [], "annotations": [{"segments_info": []}]}}
    for kind, value in kinds.items():
        save(tmp_path, value, "x.json")
        assert json_kind(tmp_path / "x.json")[0] == kind
    (tmp_path / "x.json").write_text("{")
    assert json_kind(tmp_path / "x.json")[0] == "broken"
    for value, wanted in (([1, 2], "list"), ({"shapes": [], "imagePath": "a"}, "LabelMe"), (3, "int")):
        save(tmp_path, value, "x.json")
        refused(tmp_path, "not a COCO file", wanted, annotations=tmp_path / "x.json", kind="coco")


def refer_folder(root: Path, base: str = "", **changes) -> None:
    "RefCOCO as the REFER code has it: a pickle of references, instances.json, and COCO's pictures of 2014."
    data = make(root, f"{base}refcoco/instances.json", f"{base}images/mscoco/images/train2014")
    refs = [{"ref_id": a["id"], "ann_id": a["id"], "image_id": a["image_id"], "category_id": a["category_id"], "split": ("train", "val", "testA")[a["image_id"] % 3],
             "file_name": "COCO_train2014_000000000000_0.jpg", "sent_ids": [a["id"]],
             "sentences": [{"raw": f"Thing {a['id']}", "sent": f"thing {a['id']}", "tokens": ["thing"], "sent_id": a["id"]}]} for a in data["annotations"]]
    for ref in refs: ref.update({key: change(ref) for key, change in changes.items()})
    (root / f"{base}refcoco/refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))


@pytest.mark.parametrize("changes", [{}, {"ann_id": lambda r: str(r["ann_id"])}, {"ann_id": lambda r: float(r["ann_id"])}])
@pytest.mark.parametrize("base", ["", "data/"])
def test_refcoco_is_read_as_published(tmp_path, base, changes, monkeypatch):
    refer_folder(tmp_path, base, **changes)
    found = {s: load_referring(tmp_path, s) for s in ("train", "val", "test")}
    assert [len(d) for d in found.values()] == [1, 2, 2] and all(len(d.expressions) == EACH * len(d) for d in found.values())
    image, masks = found["train"].read(0)
    assert image.float().mean(0)[masks[0]].min() > 150
    monkeypatch.chdir(tmp_path / f"{base}refcoco")
    assert len(load_referring(".", "train")) == 1


def test_what_referring_data_writes_is_read_as_objects(tmp_path):
    refer_folder(tmp_path / "in")
    convert_referring(tmp_path / "in", tmp_path / "out", "refer")
    read_whole(tmp_path / "out")


def test_a_copy_is_one_mask(tmp_path):
    changed(tmp_path, lambda data: data["annotations"].extend({**a, "id": 100 + a["id"]} for a in copy.deepcopy(data["annotations"])))
    read_whole(tmp_path)
    assert {p.kind for p in load_objects(tmp_path, "all").problems} == {"mask twice"}


def in_percent(m: np.ndarray) -> list: return [(np.reshape(outline(m), (-1, 2)) / [SIZE[1], SIZE[0]] * 100).ravel().tolist()]


def row_by_row(m: np.ndarray) -> dict: return {"size": list(SIZE), "counts": np.diff([0, *np.flatnonzero(np.diff(m.ravel(), prepend=0)), m.size]).tolist()}


@pytest.mark.parametrize(("form", "words"), [(in_percent, "coordinates look like percent"), (row_by_row, "run lengths look written row by row")])
def test_masks_beside_their_boxes_are_a_warning(tmp_path, form, words):
    changed(tmp_path, segment(form))
    problem, = (p for p in load_objects(tmp_path, "all").problems if p.kind == "masks beside their boxes")
    assert problem.severity == "warning" and words in problem.fact and "masks looked at overlap their bbox by less than half" in problem.fact


@pytest.mark.parametrize("box", [lambda a: [a[0], a[1], a[0] + a[2], a[1] + a[3]], lambda a: [0, 0, 0, 0], lambda a: [0, 0, 1, 1], lambda a: None, lambda a: "none"])
def test_boxes_that_say_nothing_about_the_masks_are_no_problem(tmp_path, box):
    changed(tmp_path, lambda data: [a.update(bbox=box(a["bbox"])) for a in data["annotations"]])
    assert not load_objects(tmp_path, "all").problems


def test_exchanged_height_and_width_have_a_remedy_that_works(tmp_path):
    changed(tmp_path, all_of(each("images.height", lambda i: 80), each("images.width", lambda i: 60)))
    report = check_objects(tmp_path)
    assert {p.kind for p in report.errors} == {"image size differs"}
    assert all("exchange height and width in the annotation file" in p.remedy and "--orientation" not in p.remedy for p in report.errors)


def test_the_file_with_masks_is_chosen_among_coco_files(tmp_path):
    data = make(tmp_path, "labels.json")
    captions = [{"id": 1, "image_id": 1, "caption": "a disc"}]
    save(tmp_path, {**data, "annotations": captions}, "captions.json")
    read_whole(tmp_path)
    assert "labels.json is taken, not captions.json" in load_objects(tmp_path, "all").found.notes[0]
    save(tmp_path, data, "more.json")
    for options in ({}, {"kind": "coco"}): refused(tmp_path, "3 files are like COCO's: labels.json, more.json, captions.json", "--annotations", **options)
    read_whole(tmp_path, annotations=tmp_path / "labels.json")


def test_names_that_fit_several_pictures_are_named(tmp_path):
    data = make(tmp_path)
    for folder in ("a0", "a1"):
        for image in data["images"]:
            (tmp_path / "images" / folder).mkdir(exist_ok=True)
            (tmp_path / "images" / folder / image["file_name"]).write_bytes((tmp_path / "images" / image["file_name"]).read_bytes())
    for image in data["images"]: (tmp_path / "images" / image["file_name"]).unlink()
    refused(tmp_path, "5 of 5 names fit several pictures", "a0/0000.png and a1/0000.png", "--images", "images/a0")
    read_whole(tmp_path, images=tmp_path / "images/a0")


@pytest.mark.parametrize("form", [lambda p: [p], lambda p: p])
def test_corners_may_be_written_as_x_and_y(tmp_path, form):
    changed(tmp_path, segment(lambda m: form([{"x": x, "y": y} for x, y in np.reshape(outline(m), (-1, 2)).tolist()])))
    read_whole(tmp_path)


def test_a_segmentation_as_text_is_named(tmp_path):
    changed(tmp_path, segment(lambda m: json.dumps([outline(m)])))
    refused(tmp_path, "15 x segmentation stored as text")


def test_a_list_of_annotations_is_named(tmp_path):
    save(tmp_path, make(tmp_path)["annotations"])
    refused(tmp_path, "a list of annotations without their images and categories")


@pytest.mark.parametrize("side", [10**9, 0, -1, "wide"])
def test_a_size_that_no_image_has_is_named(tmp_path, side):
    changed(tmp_path, all_of(each("images.height", lambda i: side), each("images.width", lambda i: side)))
    read_whole(tmp_path)
    problems = load_objects(tmp_path, "all").problems
    assert {(p.kind, p.severity) for p in problems} == {("size that no image has", "warning")} and f"height {side}, width {side}" in problems[0].fact
