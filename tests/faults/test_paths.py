"""Names and links in a data set never lead a reader out of its folder, nor a writer out of OUT, unless `allow_outside` is said.

A reader joins READERS by a line: a function that writes a data set which names one picture, and one that lists the files that are read. A writer joins WRITERS.
"""
from __future__ import annotations

import json
import os
import shutil
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

from sam_nb.core import SamNbError
from sam_nb.datasets.earth import open_earth
from sam_nb.datasets.objects import load_objects
from sam_nb.datasets.referring import load_referring
from sam_nb.datasets.rgbt import RGBTDataset
from sam_nb.datasets.saom_files import load_saom_metadata
from sam_nb.datasets.unlabelled import open_unlabelled

PIXELS = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
RUNS = coco.encode(np.asfortranarray(np.pad(np.ones((6, 8), np.uint8), ((2, 4), (3, 5)))))
RLE = {"size": [12, 16], "counts": RUNS["counts"].decode()}
SQUARE = [[3, 2, 11, 2, 11, 8, 3, 8]]


def picture(path: Path, pixels: np.ndarray = PIXELS) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path.name


def write(path: Path, said) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(said if isinstance(said, str) else json.dumps(said), errors="replace")


# --- data sets that name a picture: each writes root with images/good.png and one more picture of the given name ---

def of_coco(root: Path, name: str) -> None:
    picture(root / "images/good.png")
    shape = {"category_id": 1, "segmentation": SQUARE, "bbox": [3, 2, 8, 6], "area": 48, "iscrowd": 0}
    images = [{"id": k, "file_name": n, "height": 12, "width": 16, "coco_url": "file:///etc/passwd"} for k, n in enumerate(("good.png", name))]
    write(root / "annotations/instances_train.json", {"images": images, "annotations": [{"id": k, "image_id": k, **shape} for k in range(2)], "categories": [{"id": 1, "name": "a"}]})


def of_panoptic(root: Path, name: str) -> None:
    ids = np.zeros((12, 16, 3), np.uint8)
    ids[2:8, 3:11, 2] = 7
    for n in ("good", "other"): picture(root / f"train/{n}.png"); picture(root / f"annotations/panoptic_train/{n}.png", ids)
    images = [{"id": k, "file_name": f"{n}.png", "height": 12, "width": 16} for k, n in enumerate(("good", "other"))]
    notes = [{"image_id": k, "file_name": n, "segments_info": [{"id": 7, "category_id": 1}]} for k, n in enumerate(("good.png", name))]
    write(root / "annotations/panoptic_train.json", {"images": images, "annotations": notes, "categories": [{"id": 1, "name": "a"}]})


def of_refer(root: Path, name: str) -> None:
    picture(root / "images/own/JPEGImages/good.png")
    images = [{"id": k, "file_name": n, "height": 12, "width": 16} for k, n in enumerate(("good.png", name))]
    notes = [{"id": k, "image_id": k, "category_id": 1, "segmentation": [RLE], "area": 48, "iscrowd": 0} for k in range(2)]
    write(root / "own/instances.json", {"images": images, "annotations": notes, "categories": [{"id": 1, "name": "a"}]})
    write(root / "own/refs(unc).json", [{"ref_id": k, "ann_id": k, "image_id": k, "split": "train", "file_name": n, "sentences": [{"raw": f"thing {k}", "sent": f"thing {k}"}]}
                                        for k, n in enumerate(("good.png", name))])


def of_risors(root: Path, name: str) -> None:
    picture(root / "JPEGImages/good_1.png")
    said = {"image": {"height": 12, "width": 16}, "annotations": [{"id": 1, "name": "a", "description": "a thing", "segmentation": RLE, "area": 48}]}
    write(root / "Annotations/good_1.json", said)
    write(root.parent / "secret.json", said)
    write(root / "RISORS_train.txt", f"good_1\n{name}\n")


def of_refsegrs(root: Path, name: str) -> None:
    picture(root / "images/good.tif"); picture(root / "masks/good.tif", np.uint8(255) * coco.decode(RUNS))
    write(root / "output_phrase_train.txt", f"good a thing\n{name} another\n")


def of_labelme(root: Path, name: str) -> None:
    picture(root / "good.png")
    shape = {"label": "a", "shape_type": "polygon", "points": [[3, 2], [11, 2], [11, 8]]}
    for stem, n in (("good", "good.png"), ("other", name)): write(root / f"{stem}.json", {"shapes": [shape], "imagePath": n, "imageHeight": 12, "imageWidth": 16})


def of_yolo(root: Path, name: str) -> None:
    picture(root / "images/good.png")
    for stem in ("good", "secret"): write(root / f"labels/{stem}.txt", "0 0.2 0.2 0.7 0.2 0.7 0.7\n")
    write(root / "train.txt", f"images/good.png\n{name}\n")
    write(root / "data.yaml", "train: train.txt\nval: train.txt\nnames: [a]\n")


def of_yolo_places(root: Path, name: str, train: str = "") -> None:
    of_yolo(root, "")
    import yaml
    write(root / "data.yaml", yaml.safe_dump({"path": name, "train": train or name, "val": "images", "names": ["a"]}))


def of_cvat(root: Path, name: str) -> None:
    from xml.sax.saxutils import quoteattr
    picture(root / "images/good.png")
    shape = '<polygon label="a" points="3,2;11,2;11,8"/>'
    clean = "".join(c for c in name if c >= " " and c != "\ud800")
    write(root / "annotations.xml", "<annotations>" + "".join(f'<image id="{k}" name={quoteattr(n)} width="16" height="12">{shape}</image>'
                                                              for k, n in enumerate(("good.png", clean))) + "</annotations>")


def of_label_studio(root: Path, name: str) -> None:
    picture(root / "good.png")
    value = {"points": [[20, 20], [70, 20], [70, 70]], "polygonlabels": ["a"]}
    result = [{"id": "r", "from_name": "x", "original_width": 16, "original_height": 12, "value": value}]
    write(root / "export.json", [{"id": k, "data": {"image": n}, "file_upload": n, "annotations": [{"completed_by": 1, "result": result}]} for k, n in enumerate(("good.png", name))])


def of_saom(root: Path, name: str, mask: str = "/masks/good-a.png") -> None:
    picture(root / "images/good.png"); picture(root / "masks/good-a.png", PIXELS * 0 + np.uint8(255))
    rows = [{"image_name": n, "entity_masks": [m], "entity_indices": [0]} for n, m in (("images/good.png", "/masks/good-a.png"), (name, mask))]
    write(root / "metadata.json", {"entity classes": ["a"], "train_data": rows, "val_data": rows})


def of_saom_masks(root: Path, name: str) -> None: of_saom(root, "images/good.png", name)


def of_dior(root: Path, name: str) -> None:
    picture(root / "JPEGImages/good.png")
    write(root / "Annotations/DIOR_train.json", {"images": [{"id": k, "file_name": n} for k, n in enumerate(("good.png", name))], "categories": [{"id": 1, "name": "ship"}],
                                                 "annotations": [{"image_id": k, "category_id": 1, "bbox": [1, 1, 5, 5]} for k in range(2)]})


def of_captions(root: Path, name: str) -> None:
    picture(root / "Images/good.png")
    write(root / "dataset.json", {"images": [{"filename": n, "split": "train", "sentences": [{"raw": "a thing"}]} for n in ("good.png", name)]})


def of_counts(root: Path, name: str) -> None:
    picture(root / "train/own/Images/good.png")
    talk = [{"role": "user", "content": "<image>\nTell me the number of ship."}, {"role": "assistant", "content": "2"}]
    write(root / "train/own/Annotation/train_IMG_CT.json", [{"images": [n], "conversations": talk} for n in ("Images/good.png", name)])


def of_rsvg(root: Path, name: str) -> None:
    from xml.sax.saxutils import escape
    picture(root / "JPEGImages/good.png")
    box = "<object><name>a</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox><description>a thing</description></object>"
    clean = escape("".join(c for c in name if c >= " " and c != "\ud800"))
    for stem, n in (("good", "good.png"), ("other", clean)): write(root / f"Annotations/{stem}.xml", f"<annotation><filename>{n}</filename>{box}</annotation>")
    write(root / "train.txt", "0\n1\n")


def of_pairs(root: Path, name: str) -> None:
    for folder in ("rgb", "thermal"): picture(root / folder / "good.png"); picture(root / folder / "more.png")
    for n in ("good", "more"): picture(root / "labels" / f"{n}.png", coco.decode(RUNS))
    write(root / "train.txt", f"good\nmore\n{name}\n"); write(root / "val.txt", "good\n")


def of_pair_folders(root: Path, name: str) -> None:
    of_pairs(root, "good")
    write(root / "dataset.json", {"classes": ["a", "b"], "folders": {"rgb": name}})


def of_list(root: Path, name: str) -> None: picture(root / "good.png"); write(root / "list.txt", f"good.png\n{name}\n")
def of_json_list(root: Path, name: str) -> None: picture(root / "good.png"); write(root / "list.json", {"images": [{"file_name": n} for n in ("good.png", name)]})


def of_mask_list(root: Path, name: str) -> None:
    for n in ("good", "more"): picture(root / f"images/{n}.png"); picture(root / f"masks/{n}.png", 255 * coco.decode(RUNS))
    write(root / "train.txt", f"good\nmore\n{name}\n"); write(root / "val.txt", "more\n")


# --- what of it is read: all files of the samples ---

def objects(root: Path, **options) -> list[str]:
    data = load_objects(root, "all", **options)
    files = [f for e in data.entries for f in (e.image, e.truth, *(e.truth if isinstance(e.truth, (list, tuple)) else ())) if isinstance(f, str) and os.sep in f]
    assert not any(".." in e.name.split("/") for e in data.entries)  # names become names of files that are written
    for k in range(len(data)):
        with suppress(SamNbError): data.read(k)
    return files


def expressions(root: Path, **options) -> list[str]:
    data = load_referring(root, "all", **options)
    for k in range(len(data)): data.read(k)
    return [e.image for e in data.entries]


def earth(root: Path, **options) -> list[str]:
    data = open_earth(root, "train", **options)
    for sample in data: sample.pixels()
    return [s.file for s in data]


def pairs(root: Path, **options) -> list[str]:
    from sam_nb.datasets.catalog import info_from_folder
    info = info_from_folder(root)
    if info is None: data = RGBTDataset.open(root, "train", ["a", "b"], strict=False, **options)
    else: data = RGBTDataset.from_info(info, "train", root, strict=False, **options)
    for k in range(len(data)): data[k]
    return [f for p in data.pairs for f in (p.rgb, p.thermal, p.label)]


def saom(root: Path, **options) -> list[str]:
    data = load_saom_metadata(root / "metadata.json", "train", **options)
    for k in range(len(data)): data.read(k)
    return [f for e in data.entries for f in (e.image, *e.truth[0])]


def unlabelled(root: Path, **options) -> list[str]:
    like = load_objects(_labelled(root))
    return [e.image for e in open_unlabelled(root / ("list.txt" if (root / "list.txt").exists() else "list.json"), like, **options).entries]


def _labelled(root: Path) -> Path:
    if not (root / "labelled").is_dir(): of_coco(root / "labelled", "good.png")
    return root / "labelled"


def segmented(root: Path) -> list[str]:
    from sam_nb.segment.sources import pictures_of
    return [str(s.path) for s in pictures_of(root / "list.txt") if not s.refused]


READERS = {  # name -> writes the data set, lists the files, the folder that names are relative to
    "coco": (of_coco, objects, "images"), "panoptic": (of_panoptic, objects, "annotations/panoptic_train"), "labelme": (of_labelme, objects, ""),
    "yolo list": (of_yolo, objects, ""), "yolo data.yaml": (of_yolo_places, objects, ""), "cvat": (of_cvat, objects, ""),
    "label studio": (of_label_studio, objects, ""), "masks list": (of_mask_list, objects, ""),
    "refer": (of_refer, expressions, "images/own/JPEGImages"), "risors list": (of_risors, expressions, "Annotations"), "refsegrs": (of_refsegrs, expressions, "images"),
    "saom": (of_saom, saom, ""), "saom masks": (of_saom_masks, saom, ""), "dior": (of_dior, earth, "JPEGImages"), "captions": (of_captions, earth, "Images"),
    "counts": (of_counts, earth, "train/own"), "rsvg": (of_rsvg, earth, "JPEGImages"), "pairs list": (of_pairs, pairs, ""), "pairs dataset.json": (of_pair_folders, pairs, ""),
    "unlabelled list": (of_list, unlabelled, ""), "unlabelled json": (of_json_list, unlabelled, ""), "segment list": (of_list, segmented, "")}

NAMES = {  # name -> what a file says, given the way up to the folder that holds the data set
    "up": lambda up, world: f"{up}secret.png", "up, Windows": lambda up, world: f"{up}secret.png".replace("/", "\\"), "up in the middle": lambda up, world: f"x/../{up}secret.png",
    "stem, up": lambda up, world: f"{up}secret", "absolute": lambda up, world: f"{world}/secret.png", "absolute folder": lambda up, world: str(world / "elsewhere"),
    "folder, up": lambda up, world: f"{up}elsewhere", "drive": lambda up, world: r"C:\secret.png", "home": lambda up, world: "~/secret.png", "address": lambda up, world: f"file://{world}/secret.png",
    "web": lambda up, world: "https://example.com/secret.png", "null": lambda up, world: "sec\0ret.png", "long": lambda up, world: "s" * 300 + ".png", "deep": lambda up, world: "s/" * 3000 + "s.png",
    "dot": lambda up, world: ".", "two dots": lambda up, world: "..", "empty": lambda up, world: "", "space": lambda up, world: "   ", "half a letter": lambda up, world: "\ud800.png",
    "device": lambda up, world: "/dev/zero", "kernel": lambda up, world: "/proc/self/environ", "line": lambda up, world: "a\x1b[2Jb.png",
    "link": lambda up, world: "link.png", "link folder": lambda up, world: "away/secret.png", "link of link": lambda up, world: "second.png", "ring": lambda up, world: "ring.png",
    "ring of folders": lambda up, world: "round/round/round/secret.png", "dead link": lambda up, world: "dead.png"}

OPENED: list[str] | None = None
sys.addaudithook(lambda event, args: OPENED.append(os.fsdecode(args[0])) if event == "open" and OPENED is not None and isinstance(args[0], (str, bytes)) else None)


@contextmanager
def opened_files():
    "The files that Python opens in this block."
    global OPENED
    OPENED = []
    try: yield OPENED
    finally: OPENED = None


@pytest.fixture
def world(tmp_path) -> Path:
    "A folder with a picture that no data set may show."
    for name in ("secret.png", "elsewhere/secret.png", "elsewhere/good.png"): picture(tmp_path / name, 255 - PIXELS)
    return tmp_path


def add_links(folder: Path, world: Path) -> None:
    for name, to in {"link.png": world / "secret.png", "away": world / "elsewhere", "second.png": "link.png", "ring.png": "ring.png", "round": ".", "dead.png": world / "none.png"}.items():
        folder.mkdir(parents=True, exist_ok=True)
        os.symlink(to, folder / name)


def outside(files, root: Path, world: Path) -> list[str]:
    "The files of the world that do not lie in a data set."
    real = [os.path.realpath(f) for f in files if f.startswith("/")]
    return [f for f in real if (f == "/dev/zero" or f.endswith("/environ") or f.startswith(f"{os.path.realpath(world)}/")) and not f.startswith(f"{os.path.realpath(root)}/")]


WHOLE = ("saom", "saom masks", "pairs dataset.json")  # readers that refuse a data set for one wrong name


def read_case(reader: str, what: str, world: Path) -> str:
    "What a reader does with a name: `stays`, or what is wrong."
    made, files, folder = READERS[reader]
    root = world / "data" / what.replace(" ", "_").replace(",", "")
    if "link" in what or "ring" in what: add_links(root / folder, world)
    made(root, NAMES[what]("../" * (2 + len(Path(folder).parts)), world))
    found, raw = [], ""
    with opened_files() as opened:
        try: found = files(root)
        except SamNbError: pass
        except Exception as error: raw = f"raw {type(error).__name__}"  # noqa: BLE001 - counted
    left = outside(found, root, world) or outside(opened, root, world)
    shutil.rmtree(root)
    if raw or left: return "leaves" if left else raw
    return "stays" if reader in WHOLE or any(Path(f).stem.startswith("good") for f in found) else "reads nothing"


@pytest.mark.parametrize("reader", READERS)
def test_no_name_leads_a_reader_out_of_its_folder(reader, world):
    assert {what: done for what in NAMES if (done := read_case(reader, what, world)) != "stays"} == {}


@pytest.mark.parametrize("reader", [r for r in READERS if r != "pairs dataset.json"])
def test_the_root_may_lie_under_a_link(reader, world):
    made, files, _ = READERS[reader]
    (world / "private").mkdir()
    os.symlink("private", world / "tmp")  # as /tmp is on a Mac
    made(world / "private/data", "none" if reader not in WHOLE else "images/good.png" if reader == "saom" else "/masks/good-a.png")
    good = next(p for p in (world / "private/data").rglob("good*") if p.suffix in (".png", ".tif") and p.parent.name not in ("masks", "labels", "panoptic_train"))
    (good.parent / ".kept").mkdir()
    os.symlink(shutil.move(good, good.parent / ".kept" / good.name), good)  # a link inside, by the other path
    assert any(Path(f).stem.startswith("good") for f in files(world / "tmp/data"))


def test_paths_are_compared_by_identity_where_text_differs(monkeypatch):
    from sam_nb.datasets import inside
    monkeypatch.setattr(inside, "_identity", {"/DATA": (1, 2), "/data": (1, 2), "/mnt/other/data": (1, 2), "/mnt": (1, 1), "/": (0, 0)}.get)
    assert [inside._lies_in(path, ["/data"]) for path in ("/DATA/a.png", "/mnt/other/data/x/a.png", "/mnt/a.png", "/data2/a.png")] == [True, True, False, False]


FOLLOWED = [r for r in READERS if r not in ("segment list", "refsegrs", "risors list", "masks list", "pairs list", "panoptic")]  # where a name is a path; the others look names up in folders


@pytest.mark.parametrize("reader", FOLLOWED)
def test_names_are_followed_when_it_is_said(reader, world):
    made, files, folder = READERS[reader]
    up = "../" * (2 + len(Path(folder).parts))
    if "dataset.json" in reader: names = [f"{up}elsewhere", str(world / "elsewhere")]
    elif "data.yaml" in reader: names = [f"{up}elsewhere", str(world / "elsewhere")]; write(world / "elsewhere/labels/train/secret.txt", "0 0.2 0.2 0.7 0.2 0.7 0.7\n")
    else: names = [f"{up}secret.png", str(world / "secret.png")]
    for k, name in enumerate(names):
        made(root := world / f"data/{k}", name)
        if reader == "yolo list": write(world / "secret.txt", "0 0.2 0.2 0.7 0.2 0.7 0.7\n")
        if reader == "yolo data.yaml": picture(world / "elsewhere/images/train/secret.png"); of_yolo_places(root, name, "images/train")
        found = files(root, allow_outside=True)
        assert outside(found, root, world), (name, found)


def linked(root: Path, world: Path, file: Path) -> None:
    "Move a file or folder out, and leave a link to it."
    target = world / "elsewhere" / "_".join(file.relative_to(root).parts)
    shutil.move(file, target)
    os.symlink(target, file)


LINKS = {  # reader -> a picture and other things that may be links
    "coco": ("images/good.png", "images", "annotations/instances_train.json", "annotations"), "panoptic": ("train/good.png", "train", "annotations/panoptic_train/good.png", "annotations/panoptic_train"),
    "labelme": ("good.png", "good.json"), "yolo list": ("images/good.png", "images", "labels", "labels/good.txt"), "cvat": ("images/good.png", "images", "annotations.xml"),
    "label studio": ("good.png", "export.json"), "masks list": ("images/good.png", "images", "masks/good.png", "masks"),
    "refer": ("images/own/JPEGImages/good.png", "images/own/JPEGImages", "images", "own/instances.json", "own/refs(unc).json"),
    "risors list": ("JPEGImages/good_1.png", "JPEGImages", "Annotations/good_1.json", "Annotations"), "refsegrs": ("images/good.tif", "images", "masks/good.tif", "masks"),
    "saom": ("images/good.png", "images", "masks/good-a.png", "masks"), "dior": ("JPEGImages/good.png", "JPEGImages", "Annotations/DIOR_train.json"), "captions": ("Images/good.png", "Images"),
    "counts": ("train/own/Images/good.png", "train/own/Images", "train/own/Annotation/train_IMG_CT.json"), "rsvg": ("JPEGImages/good.png", "JPEGImages", "Annotations/good.xml", "Annotations"),
    "pairs list": ("rgb/good.png", "rgb", "thermal/good.png", "labels"), "unlabelled list": ("good.png",)}


@pytest.mark.parametrize("reader", LINKS)
def test_links_are_followed_inside_only(reader, world):
    made, files, _ = READERS[reader]
    usual = {"panoptic": "other.png", "yolo list": "images/good.png", "masks list": "more", "pairs list": "more", "saom": "images/good.png", "saom masks": "/masks/good-a.png"}.get(reader, "none")
    for k, place in enumerate(LINKS[reader]):
        made(root := world / f"data/{k}", usual)
        whole = files(root)
        linked(root, world, root / place)
        with opened_files() as opened:
            try: found, said = files(root), ""
            except SamNbError as error: found, said = [], str(error)
        assert not outside(found, root, world) and not outside(opened, root, world), (place, found)
        assert not said or "--allow_outside true" in said or not place.endswith((".png", ".tif")) , (place, said)
        assert sorted(files(root, allow_outside=True)) == sorted(whole), place


def test_every_evaluation_takes_the_option_that_its_error_names(world):
    from types import SimpleNamespace

    from sam_nb.contract import job
    from sam_nb.demo.aerial import make_demo_aerial
    from sam_nb.evaluation.plan import open_data
    for method in ("promptable", "remotesam", "rsam", "s4m", "saom", "sartm"):
        assert all("allow_outside" in way.recipe.model_fields for way in job(method).evaluators.values()), method
    root = make_demo_aerial(world / "data", size=64, train=2, val=1, test=1, hard=0)
    shutil.move(root / "JPEGImages", world / "disk")
    os.symlink(world / "disk", root / "JPEGImages")
    for trained, same in (({}, False), ({"allow_outside": True}, True)):
        plan = SimpleNamespace(dataset="referring", data_root=str(root), split="test", trained=trained, same_folder=same)
        with pytest.raises(SamNbError, match="--allow_outside true"): open_data(job("rsam"), plan, allow_outside=False)
        assert len(open_data(job("rsam"), plan, allow_outside=True)) == 1
    assert len(open_data(job("rsam"), plan)) == 1  # as the run


def test_any_name_stays_inside(world):
    from hypothesis import given, settings
    from hypothesis import strategies as st

    from sam_nb.datasets.inside import file_word, inside
    from sam_nb.datasets.written_folder import safe_name
    root = world / "data"
    add_links(root, world); add_links(root / "sub", world); picture(root / "sub/good.png")
    part = st.sampled_from(["..", ".", "", "sub", "good.png", "link.png", "away", "round", "ring.png", "secret.png", "~", "C:", "x" * 300, "elsewhere", str(world)]) | st.text(max_size=8)

    @settings(max_examples=400, deadline=None)
    @given(st.lists(part, max_size=6), st.sampled_from(["/", "\\", "//"]), st.booleans())
    def holds(parts, between, rooted):
        name = "/" * rooted + between.join(parts)
        path = inside(root, name)
        if path is not None: assert os.path.realpath(path).startswith(os.path.realpath(root)); path.is_file()  # and it raises nothing
        assert file_word(name).strip(".") and not {"/", "\\", "\0"} & set(file_word(name)) and len(file_word(name).encode()) <= 200
        with suppress(SamNbError): assert os.path.normpath(root / safe_name(name)).startswith(f"{root}/")
    holds()


# --- writers: everything lies below OUT, nothing else has changed ---

EVIL = ["../../evil", "/abs/evil", "a/../../evil", "..\\..\\evil", "C:\\evil", "a\0b", ".", "..", "", "   ", "x" * 300, "é" * 250, "a/" * 400 + "a", "con:evil", "-rf", "a\nb", "conversion", "data.yaml",
        "annotations/instances", "same", "Same", "same", "a.png/b", "a.json/b", "a", "\udce9", "~/evil", "file:///evil"]


SPLITS = ["../../evil", "/abs/evil", "C:\\evil", "a\0b", "..", "x" * 300, "a\nb", "\udce9", "images", "conversion.txt"]


def snapshot(folder: Path, leave: Path) -> dict[str, object]:
    "Everything in a folder without following links: links by their target, files by their bytes."
    found = {}
    for at, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if Path(at, f) != leave]
        for name in (*folders, *files):
            path = Path(at, name)
            if path != leave: found[str(path)] = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else "folder"
    return found


@contextmanager
def stays_in(out: Path, around: Path):
    "The block writes to OUT alone: nothing around it changes, and no part of OUT leads out."
    before = snapshot(around, out)
    try: yield
    except SamNbError: pass
    assert snapshot(around, out) == before
    for at, folders, files in os.walk(out):
        for name in (*folders, *files): assert os.path.realpath(Path(at, name)).startswith(os.path.realpath(out) + os.sep)


def labelled(world: Path, names, split: str = ""):
    from sam_nb.datasets.written_folder import Labelled
    file = str(world / "elsewhere/good.png")
    return [Labelled(n, file, (12, 16), [RUNS], [0], split=split) for n in names]


WRITTEN = [*(([n, "good"], "", ["a"]) for n in EVIL), (EVIL[-10:], "", ["../c", "a\nb"]), *((["good"], n, ["a"]) for n in SPLITS)]


def write_case(to: str, names, split: str, classes, world: Path) -> str:
    "What a writer does with names: `stays`, or what is wrong."
    from sam_nb.datasets.writers import WRITERS
    out, before = world / "made/OUT", snapshot(world, world / "made/OUT")
    try: WRITERS[to](labelled(world, names, split), list(classes), out)
    except SamNbError: pass
    except Exception as error: return f"raw {type(error).__name__}"  # noqa: BLE001 - counted
    whole, same = (out / "conversion.txt").is_file() or not out.exists(), snapshot(world, out) == before
    shutil.rmtree(out, ignore_errors=True)
    return "stays" if whole and same else "leaves"


@pytest.mark.parametrize("to", ["coco", "yolo", "voc", "instance", "labelme"])
def test_a_writer_stays_in_its_folder(to, world):
    (world / "made").mkdir()
    assert [(case, done) for case in WRITTEN if (done := write_case(to, *case, world)) != "stays"] == []


def test_many_pictures_of_one_name_are_all_written(world):
    from sam_nb.datasets.writers import WRITERS
    for to, write_all in WRITERS.items():
        written = write_all(labelled(world, ["same", "Same", "same", "b/same", "x" * 300, "x" * 300 + "y", "same_2"]), ["a"], world / to)
        assert written.pictures == 7 and len([f for f in (world / to).rglob("*.png")]) == (21 if to in ("voc", "instance") else 7)
        assert written.files == sum(f.is_file() for f in (world / to).rglob("*"))  # what --overwrite counts by


def test_overwrite_replaces_only_what_a_conversion_wrote(world):
    from sam_nb.datasets.writers import WRITERS
    out = world / "OUT"
    WRITERS["coco"](labelled(world, ["good"]), ["a"], out)
    write(out / "images/mine.txt", "a note of mine")
    with pytest.raises(SamNbError, match="1 files that were not written"): WRITERS["coco"](labelled(world, ["good"]), ["a"], out, overwrite=True)
    (out / "images/mine.txt").unlink()
    os.symlink(world / "elsewhere", out / "elsewhere")
    before = snapshot(world / "elsewhere", out)
    WRITERS["coco"](labelled(world, ["good"]), ["a"], out, overwrite=True)
    assert snapshot(world / "elsewhere", out) == before and not (out / "elsewhere").exists()


def test_out_may_be_a_link_and_stays_one(world):
    from sam_nb.datasets.writers import WRITERS
    (world / "disk").mkdir()
    os.symlink(world / "disk", world / "OUT")
    for overwrite in (False, True): WRITERS["coco"](labelled(world, ["good"]), ["a"], world / "OUT", overwrite=overwrite)
    assert (world / "OUT").is_symlink() and (world / "disk/conversion.txt").is_file()
    assert sorted(p.name for p in world.iterdir()) == ["OUT", "disk", "elsewhere", "secret.png"]


@pytest.mark.parametrize("layout", ["risors", "refer", "refsegrs"])
def test_a_writer_of_expressions_stays_in_its_folder(layout, world):
    from sam_nb.datasets.object_masks import Entry
    from sam_nb.datasets.referring import Target, as_referring
    from sam_nb.datasets.referring_files import WRITERS
    out = world / "made/OUT"
    out.parent.mkdir()
    def data(name: str): return as_referring([Entry(n, str(world / "elsewhere/good.png"), (Target("a thing", RUNS, "../c"),), (12, 16)) for n in (name, "good")])
    for name in EVIL:
        for splits in ({"train": data(name)}, *([{name: data("good")}] if name in SPLITS else [])):
            with stays_in(out, world): WRITERS[layout](splits, out)
            shutil.rmtree(out, ignore_errors=True)


def test_writers_of_earth_observation_stay_in_their_folder(world):
    from sam_nb.datasets import earth_files
    from sam_nb.datasets.earth_samples import BoxImage, BoxObject, CaptionImage, ClassImage, CountImage, GroundingImage
    out, file = world / "made/OUT", str(world / "elsewhere/good.png")
    out.parent.mkdir()
    for name in EVIL:
        label = name.encode("utf-8", "replace").decode().replace("\0", "")
        box = BoxObject(label, (1, 1, 5, 5))
        for writer, sample in (("dota", BoxImage(name, file, (box,))), ("counts", CountImage(name, file, label, 2)), ("rsvg", GroundingImage(name, file, "a thing", (1, 1, 5, 5), "a")),
                               ("scenes", ClassImage(name, file, label)), ("captions", CaptionImage(name, file, ("a thing",)))):
            for split in ("train", name) if name in SPLITS else ("train",):
                with stays_in(out, world): getattr(earth_files, f"write_{writer}")({split: [sample]}, out)
                shutil.rmtree(out, ignore_errors=True)


def results(out: Path, world: Path, names):
    from sam_nb.segment.results import Result, ResultFolder, as_crop
    folder = ResultFolder.open(out, {"classes": ["a"]})
    for name in names: folder.save(Result(name, str(world / "elsewhere/good.png"), (12, 16), [as_crop(coco.decode(RUNS).astype(bool))], [0.9], [0]))
    return folder


def test_results_of_segmentation_stay_in_out(world):
    from sam_nb.segment.formats import Formats
    out = world / "made/OUT"
    out.parent.mkdir()
    for name in filter(str.isprintable, [*EVIL[:8], "x" * 300, "con:evil", "a.json/b"]):
        with stays_in(out, world): Formats(results(out, world, [name, "good"]), [name, "good"], ["a"]).write(("coco", "labels", "geojson"))
        shutil.rmtree(out, ignore_errors=True)
    with stays_in(out, world): Formats(results(out, world, ["a/same", "b/same"]), ["a/same", "b/same"], ["a"]).write(("coco", "yolo", "labels", "geojson"))
    assert len([*out.rglob("objects/*/same.json")]) == len([*out.rglob("labels/*/same.tif")]) == len([*(out / "coco").rglob("same*.png")]) == 2


def test_links_in_out_are_not_followed(world):
    from sam_nb.segment.formats import Formats
    out = world / "made/OUT"
    results(out, world, ["good"])
    for place in ("objects", "objects/deep", "labels", "coco", "geojson", "geojson/pixels"):
        shutil.rmtree(out)
        results(out, world, ["good"])
        if (out / place).is_dir(): shutil.rmtree(out / place)
        (out / place).parent.mkdir(exist_ok=True)
        os.symlink(world / "elsewhere", out / place)
        before = snapshot(world, out)
        with suppress(SamNbError): Formats(results(out, world, ["deep/good", "good"]), ["good"], ["a"]).write(("coco", "labels", "geojson"))
        assert snapshot(world, out) == before, place


def test_demo_data_replaces_no_data_of_a_users_own(world):
    from sam_nb.demo.files import make_demo
    root = world / "mine"
    write(root / "dataset.json", {"classes": ["a", "b"], "title": "my photographs"}); picture(root / "rgb/good.png")
    with stays_in(world / "none", world), pytest.raises(SamNbError, match="was not made by the demo world"): make_demo("street", root, size=16, train=1, val=0, test=0, overwrite=True)
    for made in (world / "link", world / "link"):
        if not made.is_symlink(): os.symlink(world / "elsewhere", made)
        with stays_in(world / "none", world), pytest.raises(SamNbError): make_demo("street", made, size=16, train=1, val=0, test=0, overwrite=True)


def test_an_export_overwrites_nothing_of_a_users_own(world):
    from sam_nb.encoders.sam import SamSize, build_sam
    from sam_nb.export.packages import export_state_dict
    model = build_sam(SamSize(embed_dim=32, depth=2, num_heads=2, global_attn_indexes=(1,), window_size=4, patch_size=16, image_size=64, dim=32, decoder_mlp_dim=32, iou_hidden=16))
    write(world / "model.json", {"mine": 1})
    with stays_in(world / "none", world), pytest.raises(SamNbError, match="was not written by an export"): export_state_dict(model, world / "model.pth")
    (world / "model.json").unlink()
    for _ in range(2): export_state_dict(model, world / "model.pth")  # its own files it writes again


def test_a_saved_model_follows_no_link(world):
    import torch

    from sam_nb.weights import HubModel
    class Small(HubModel, torch.nn.Module):
        def __init__(self):
            torch.nn.Module.__init__(self)
            self.layer = torch.nn.Linear(2, 2)
    for name in ("model.safetensors", "config.json", "README.md"):
        write(world / f"mine/{name}", "mine")
        (world / "OUT").mkdir(exist_ok=True)
        os.symlink(world / "mine" / name, world / "OUT" / name)
    Small().save_pretrained(world / "OUT")
    assert {p.read_text() for p in (world / "mine").iterdir()} == {"mine"} and (world / "OUT/model.safetensors").stat().st_size > 4


def test_a_run_lies_in_the_folder_of_runs(world):
    from sam_nb.recipe import Recipe
    from sam_nb.training.runs import Run
    refused = 0
    for name in EVIL:
        with stays_in(world / "runs", world):
            refused += 1
            run = Run.create("own", Recipe(run_name=name), root=world / "runs")
            refused -= 1
            assert run.folder.parent == world / "runs"
            run.fail(KeyboardInterrupt())  # which gives its lock back
    assert refused >= 15


# --- the commands: what leaves the folder is named, and the remedy is one that they take ---

def said(capsys, *words) -> tuple[int, str]:
    from sam_nb.cli import main
    code = main(list(map(str, words)))
    out, error = capsys.readouterr()
    return code, out + error


def many(root: Path, world: Path, far: bool = True) -> None:
    "COCO with train and val, of which some pictures are named or linked outside."
    shape = {"category_id": 1, "segmentation": SQUARE, "bbox": [3, 2, 8, 6], "area": 48, "iscrowd": 0}
    for split in ("train", "val"):
        names = [f"{split}{k}.png" for k in range(4)]
        for k, n in enumerate(names): picture(root / split / n, np.roll(PIXELS, k + 5 * (split == "val"), 1))
        if far and split == "train": names[0] = "../../../secret.png"
        images = [{"id": k, "file_name": n, "height": 12, "width": 16} for k, n in enumerate(names)]
        write(root / f"annotations/instances_{split}.json", {"images": images, "annotations": [{"id": k, "image_id": k, **shape} for k in range(4)], "categories": [{"id": 1, "name": "a"}]})


def test_check_names_what_leaves_the_folder(world, capsys):
    many(root := world / "data/names", world)
    code, text = said(capsys, "check", root)
    assert code == 1 and "'../../../secret.png' leads outside the folder" in text and "--allow_outside true" in text
    code, text = said(capsys, "check", root, "--allow_outside", "true")
    assert code == 0 and "leads outside" not in text and "--allow_outside true" in text.splitlines()[-1]  # the command that trains
    many(root := world / "data/links", world, far=False)
    linked(root, world, root / "train/train1.png")
    code, text = said(capsys, "check", root)
    assert code == 1 and f"{root}/train/train1.png is a link to {os.path.realpath(root / 'train/train1.png')}" in text and "--allow_outside true" in text
    assert said(capsys, "check", root, "--allow_outside", "true")[0] == 0
    shutil.rmtree(root); many(root, world, far=False)
    linked(root, world, root / "train")
    code, text = said(capsys, "check", root)
    assert code == 1 and f"{root}/train is a link to" in text and "--allow_outside true" in text
    for split in ("train", "val"): (root / f"annotations/instances_{split}.json").rename(root / f"annotations/{split}.json")
    (root / "annotations/val.json").unlink(); (root / "val").rename(root / "unused"); shutil.rmtree(root / "unused")
    code, text = said(capsys, "check", root)  # nothing is left: the reason is named all the same
    assert code == 1 and f"{root}/train is a link to" in text and "--allow_outside true" in text
    os.symlink(root, world / "way")
    shutil.rmtree(world / "elsewhere/train", ignore_errors=True)
    shutil.rmtree(root, ignore_errors=True); many(root, world, far=False)
    assert said(capsys, "check", world / "way")[0] == 0  # the folder itself may be a link


def test_every_kind_of_data_set_is_checked_with_allow_outside(world, capsys):
    for k, (made, place) in enumerate(((of_risors, "JPEGImages/good_1.png"), (of_dior, "JPEGImages/good.png"), (of_pair_folders, "labels/good.png"), (of_saom, "images/good.png"))):
        made(root := world / f"data/{k}", {of_pair_folders: "rgb", of_saom: "images/good.png"}.get(made, "none"))
        linked(root, world, root / place)
        what = root / "metadata.json" if made is of_saom else root
        code, text = said(capsys, "check", what)
        assert code == 1 and "--allow_outside true" in text, (made, text)
        assert "is a link to" not in said(capsys, "check", what, "--allow_outside", "true")[1], made


def test_convert_follows_when_it_is_said(world, capsys):
    many(root := world / "data/names", world)
    assert said(capsys, "convert", root, world / "inside", "--to", "coco")[0] == 0 and len([*(world / "inside").rglob("*.png")]) == 7
    assert said(capsys, "convert", root, world / "all", "--to", "coco", "--allow_outside", "true")[0] == 0 and len([*(world / "all").rglob("*.png")]) == 8
    assert "--to 'foo' is not a choice" in said(capsys, "convert", root, world / "no", "--to", "foo")[1] and not (world / "no").exists()


def test_a_training_remembers_it_and_its_evaluation_too(world):
    from sam_nb.datasets.catalog import open_splits, resolve_dataset
    from sam_nb.datasets.folder_options import FolderChoices, folder_options, options_like_run
    from sam_nb.methods.promptable_recipe import PromptableRecipe
    from sam_nb.methods.rsam_recipe import RsamRecipe
    from sam_nb.methods.s4m_recipe import S4mRecipe
    from sam_nb.methods.saom_recipe import SaomRecipe
    many(root := world / "data/names", world)
    found = resolve_dataset("objects", root, "objects")
    for kind in (PromptableRecipe, SaomRecipe, S4mRecipe):
        for choice, images in ((None, 3), (False, 3), (True, 4)):
            recipe = kind(dataset="objects", data_root=str(root), allow_outside=choice)
            assert recipe.model_dump()["allow_outside"] is choice and len(open_splits(found, **folder_options(recipe, found))["train"]) == images
    kept = options_like_run(FolderChoices(), {"allow_outside": True}, found, same=True)
    assert kept == {"allow_outside": True} and options_like_run(FolderChoices(), {"allow_outside": True}, found, same=False) == {}
    assert RsamRecipe().allow_outside is False


if __name__ == "__main__":  # python -m tests.faults.test_paths: what happens, counted
    import tempfile
    import warnings
    from collections import Counter
    warnings.simplefilter("ignore")
    counts = {"names x readers": Counter(), "names x writers": Counter()}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("secret.png", "elsewhere/secret.png", "elsewhere/good.png"): picture(Path(folder, name), 255 - PIXELS)
        Path(folder, "made").mkdir()
        for reader in READERS:
            done = Counter(read_case(reader, what, Path(folder)) for what in NAMES)
            counts["names x readers"] += done
            print(f"{reader:20}", *(f"{n} {what}" for what, n in done.most_common()), sep="  ", flush=True)
        for to in ("coco", "yolo", "voc", "instance", "labelme"):
            done = Counter(write_case(to, *case, Path(folder)) for case in WRITTEN)
            counts["names x writers"] += done
            print(f"{to:20}", *(f"{n} {what}" for what, n in done.most_common()), sep="  ", flush=True)
    for what, done in counts.items(): print(f"{what}: {done.total()} cases,", ", ".join(f"{n} {how}" for how, n in done.most_common()))
