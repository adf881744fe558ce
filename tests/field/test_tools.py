"""Folders as labelling tools leave them, opened as a user opens them: recognised, paired, drawn, and checked."""
import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam_nb.core import DatasetError
from sam_nb.datasets.object_checks import check_objects
from sam_nb.datasets.objects import load_objects, splits_on_disk

GOLDEN = Path(__file__).parents[1] / "golden/formats"
H, W = 120, 160
BOX = [[10, 20], [40, 20], [40, 60], [10, 60]]  # 30 x 40 between pixel edges, 31 x 41 with its outline


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(H * W, dtype=np.uint32).reshape(H, W).astype(np.uint8)).convert("RGB").save(path, "JPEG")


def write(path: Path, text: str | dict | list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((text if isinstance(text, str) else json.dumps(text)).encode())


def labelme(image: str | None, points=BOX, **more) -> dict:
    shapes = [{"label": label, "points": points, "group_id": None, "shape_type": "polygon", "flags": {}} for label in ("cup", "plate")]
    return {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": image, "imageData": None, "imageHeight": H, "imageWidth": W, **more}


def rows(points=BOX, end="\n") -> str: return "".join(" ".join([str(c), *(f"{v:.6f}" for x, y in points for v in (x / W, y / H))]) + end for c in (0, 1))


def cvat(*names: str, shape='points="10,20;40,20;40,60;10,60"') -> str:
    images = "".join(f'<image id="{k}" name="{n}" width="{W}" height="{H}"><polygon label="cup" {shape}/><polygon label="plate" {shape}/></image>'
                     for k, n in enumerate(names))
    return f"<?xml version='1.0' encoding='utf-8'?>\n<annotations><version>1.1</version>{images}</annotations>"


def areas(data) -> list[list[int]]: return [data.read(k)[1].areas.tolist() for k in range(len(data))]


@pytest.mark.parametrize("tool, kind", [("labelme", "labelme"), ("yolo", "yolo"), ("cvat", "cvat"), ("label_studio", "labelstudio"),
                                        ("supervisely", "supervisely"), ("roboflow", "roboflow")])
def test_what_a_tool_wrote_is_read_as_the_tool_draws_it(tool, kind, tmp_path):
    shutil.copytree(GOLDEN / tool, tmp_path / tool)
    said = json.loads((tmp_path / tool / "expected.json").read_text())
    (tmp_path / tool / "expected.json").unlink()
    data = load_objects(tmp_path / tool, "all")
    assert data.kind == kind
    masks = data.read(0)[1]
    for mask, o in zip(masks[:].numpy(), said["objects"], strict=True):
        assert (mask == np.repeat(np.arange(len(o["runs"])) % 2, o["runs"]).reshape(H, W)).all(), o["label"]
    named = [data.classes[c] if c >= 0 else None for c in masks.categories]
    assert named == [o["label"] for o in said["objects"]]
    assert not [p for p in check_objects(data).problems if p.severity == "error"]


LABELME = {"beside the picture": ("{n}.jpg", "{n}.json", "{n}.jpg"), "capital endings": ("{n}.JPG", "{n}.JSON", "{n}.JPG"),
           "a folder annotations": ("images/{n}.jpg", "annotations/{n}.json", "../images/{n}.jpg"),
           "a folder labels": ("images/{n}.jpg", "labels/{n}.json", "{n}.jpg"), "a path of Windows": ("{n}.jpg", "{n}.json", "..\\pictures\\{n}.jpg"),
           "no imagePath": ("images/{n}.jpg", "annotations/{n}.json", None), "another ending": ("{n}.jpg", "{n}.json", "{n}.png"),
           "a renamed pair": ("new_{n}.jpg", "new_{n}.json", "{n}.jpg")}


@pytest.mark.parametrize("image, annotation, path", LABELME.values(), ids=LABELME)
def test_labelme(image, annotation, path, tmp_path):
    for n in range(3):
        picture(tmp_path / image.format(n=n))
        write(tmp_path / annotation.format(n=n), labelme(path and path.format(n=n)))
    data = load_objects(tmp_path, "all")
    assert (data.kind, data.classes, areas(data)) == ("labelme", ("cup", "plate"), [[31 * 41] * 2] * 3)


def test_labelme_in_splits(tmp_path):
    for split in ("train", "val"):
        for n in range(2):
            picture(tmp_path / f"images/{split}/{n}.jpg")
            write(tmp_path / f"annotations/{split}/{n}.json", labelme(f"{n}.jpg", BOX if split == "train" else [[0, 0], [9, 0], [9, 9], [0, 9]]))
    assert splits_on_disk(tmp_path) == ["train", "val"]
    assert areas(load_objects(tmp_path, "train")) == [[31 * 41] * 2] * 2 and areas(load_objects(tmp_path, "val")) == [[100] * 2] * 2


def test_labelme_with_damaged_and_stray_files(tmp_path):
    for n in range(4):
        picture(tmp_path / f"{n}.jpg")
        write(tmp_path / f"{n}.json", labelme(f"{n}.jpg"))
    write(tmp_path / "1.json", '{"version": "5.4.1", "shapes": [{"label')
    write(tmp_path / "2.json", labelme("2.jpg", [[-50, -50], [1000, -50], [1000, 1000], [-50, 1000]]))
    write(tmp_path / "settings.json", {"theme": "dark"})
    data = load_objects(tmp_path, "all")
    assert [e.name for e in data.entries] == ["0", "2", "3"] and areas(data)[1] == [H * W] * 2
    assert sorted((p.kind, Path(p.file).name) for p in data.problems) == [
        ("image without masks", "1.jpg"), ("not a JSON file", "1.json"), ("not a LabelMe file", "settings.json")]


def test_labelme_shapes_that_are_no_objects_are_counted(tmp_path):
    picture(tmp_path / "a.jpg")
    said = labelme("a.jpg")
    odd = [("point", [[5, 5]]), ("polygon", [[1, 1], [5, 5]]), ("polygon", [[900, 900], [990, 900], [990, 990]]), ("polygon", [["a", 1], [2, 2], [3, 3]])]
    said["shapes"] += [{"label": "cup", "points": p, "shape_type": kind} for kind, p in odd] + [{"label": "cup", "shape_type": "mask", "points": [[0, 0], [2, 2]]}]
    write(tmp_path / "a.json", said)
    report = check_objects(load_objects(tmp_path, "all"))
    assert report.objects == 2 and len([p for p in report.problems if "left out" in p.fact and p.severity == "warning"]) == 5


def test_labelme_pictures_only_inside_the_json(tmp_path):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.json", labelme("a.jpg", imageData=base64.b64encode((tmp_path / "a.jpg").read_bytes()).decode()))
    picture(tmp_path / "b.jpg")
    write(tmp_path / "0.json", labelme("b.jpg"))
    (tmp_path / "a.jpg").unlink()
    data = load_objects(tmp_path, "all")
    assert len(data) == 1 and [p.kind for p in data.problems] == ["picture only inside the JSON"]
    remedy = data.problems[0].remedy.partition(": ")[2].replace("python", sys.executable, 1)
    subprocess.run(remedy, shell=True, cwd=tmp_path, check=True)
    assert areas(load_objects(tmp_path, "all")) == [[31 * 41] * 2] * 2


YOLO = {"Ultralytics": ("images/{s}/{n}.jpg", "labels/{s}/{n}.txt"), "capitals": ("Images/{s}/{n}.JPG", "Labels/{s}/{n}.TXT"),
        "Roboflow": ("{s}/images/{n}.jpg", "{s}/labels/{n}.txt"), "beside the pictures": ("{s}/{n}.jpg", "{s}/{n}.txt")}


@pytest.mark.parametrize("names", ["data.yaml", "classes.txt", ""])
@pytest.mark.parametrize("image, label", YOLO.values(), ids=YOLO)
def test_yolo(image, label, names, tmp_path):
    for split in ("train", "val"):
        for n in range(3):
            picture(tmp_path / image.format(s=split, n=n))
            write(tmp_path / label.format(s=split, n=n), rows(end="\r\n") if n else "")
    folders = {s: str(Path(image.format(s=s, n=0)).parent) for s in ("train", "val")}
    if names == "data.yaml": write(tmp_path / names, f"path: ../datasets/cups\ntrain: {folders['train']}\nval: ./{folders['val']}\nnames: {{0: cup, 1: plate}}\n")
    elif names: write(tmp_path / names, "cup\r\nplate\r\n")
    assert splits_on_disk(tmp_path) == ["train", "val"]
    data = load_objects(tmp_path, "val")
    assert (data.kind, data.classes) == ("yolo", ("cup", "plate") if names else ())
    assert all("val" in e.name for e in data.entries) and areas(data) == [[], [31 * 41] * 2, [31 * 41] * 2]


def test_yolo_rows_beyond_the_picture_and_boxes(tmp_path):
    for n, text in enumerate((rows([[-8, -6], [168, -6], [168, 126], [-8, 126]]), rows() + "0 0.5 0.5 0.2 0.2\n", rows() + "0 20 30 40 30 40 50\n")):
        picture(tmp_path / f"images/{n}.jpg")
        write(tmp_path / f"labels/{n}.txt", text)
    data = load_objects(tmp_path, "all")
    assert areas(data) == [[H * W] * 2, [31 * 41] * 2, [31 * 41] * 2]
    assert sorted(p.kind for p in check_objects(data).problems) == ["box without an outline", "coordinates that are no shares of width and height"]


CVAT = {"images beside": ("images/{n}.jpg", "{n}.jpg"), "capitals": ("Images/{n}.JPG", "{n}.jpg"), "a task's folders": ("images/batch/{n}.jpg", "batch/{n}.jpg"),
        "a share's path": ("{n}.jpg", "share\\set\\{n}.jpg")}


@pytest.mark.parametrize("image, name", CVAT.values(), ids=CVAT)
def test_cvat(image, name, tmp_path):
    for n in range(3): picture(tmp_path / image.format(n=n))
    write(tmp_path / "annotations.xml", cvat(*(name.format(n=n) for n in range(3))))
    data = load_objects(tmp_path, "all")
    assert (data.kind, data.classes, areas(data)) == ("cvat", ("cup", "plate"), [[30 * 40] * 2] * 3)


def test_cvat_subsets_are_splits_and_nothing_outside_is_read(tmp_path):
    for n in ("Train/0.jpg", "Validation/0.jpg"): picture(tmp_path / "data/images" / n)
    picture(tmp_path / "secret.jpg")
    text = cvat("0.jpg", "0.jpg", "../secret.jpg").replace('id="0"', 'id="0" subset="Train"').replace('id="1"', 'id="1" subset="Validation"')
    write(tmp_path / "data/annotations.xml", text)
    assert splits_on_disk(tmp_path / "data") == ["train", "val"]
    assert [e.name for e in load_objects(tmp_path / "data", "val").entries] == ["images/Validation/0"]
    train = load_objects(tmp_path / "data", "train")
    assert [e.name for e in train.entries] == ["images/Train/0"] and [p.kind for p in train.problems] == ["image missing"]


def test_cvat_coordinates_beyond_the_picture(tmp_path):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "annotations.xml", cvat("a.jpg", shape='points="-10,-10;500,-10;500,500;-10,500"'))
    assert areas(load_objects(tmp_path, "all")) == [[H * W] * 2]


def test_a_folder_of_boxes_is_told(tmp_path):
    picture(tmp_path / "a.jpg")
    box = f'<image id="0" name="a.jpg" width="{W}" height="{H}"><box label="cup" xtl="10" ytl="20" xbr="40" ybr="60"/></image>'
    write(tmp_path / "annotations.xml", f"<annotations><version>1.1</version>{box}</annotations>")
    data = load_objects(tmp_path, "all")
    assert areas(data) == [[30 * 40]] and [(p.kind, p.severity) for p in data.problems] == [("boxes as masks", "warning")]


@pytest.mark.parametrize("shown", [True, False], ids=["drawn on the picture as shown", "drawn on the pixels as stored"])
def test_masks_follow_a_turned_picture(shown, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    Image.new("RGB", (W, H), (90, 120, 60)).save(tmp_path / "a.jpg", exif=exif)
    size = {"imageHeight": W, "imageWidth": H} if shown else {"imageHeight": H, "imageWidth": W}
    write(tmp_path / "a.json", labelme("a.jpg", **size))
    image, masks = load_objects(tmp_path, "all").read(0)
    assert tuple(image.shape[-2:]) == masks.size == (W, H)
    assert masks.boxes[0].tolist() == ([10, 20, 40, 60] if shown else [H - 1 - 60, 10, H - 1 - 20, 40])


@pytest.mark.parametrize("kind", [None, "labelme"])
def test_labelme_pictures_that_are_only_in_the_json(tmp_path, kind):
    for n in range(2): write(tmp_path / f"{n}.json", labelme(f"{n}.jpg", imageData="aGVsbG8="))
    with pytest.raises(DatasetError, match="2 LabelMe files are in imageData") as said: load_objects(tmp_path, kind=kind)
    assert "python -c" in str(said.value)
