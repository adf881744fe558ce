"""Folders of images and masks as people have them: names, nesting, lists, videos, and what the masks turn out to be."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from sam_nb.core import DatasetError
from sam_nb.datasets.object_checks import check_objects
from sam_nb.datasets.objects import load_objects, splits_on_disk

HEIGHT, WIDTH = 60, 80


def ids(k: int = 0) -> np.ndarray:
    "Three objects, numbered 1 to 3."
    found = np.zeros((HEIGHT, WIDTH), np.uint8)
    for n, x in enumerate((12, 38, 64), 1): cv2.circle(found, (x + k % 3, 16 + 8 * n), 9, n, -1)
    return found


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy": np.save(path, array)
    else: assert cv2.imwrite(str(path), array)


def image(k: int = 0) -> np.ndarray: return np.dstack([ids(k) * 70 + 20, ids(k) * 40 + 60, ids(k) * 10 + 90]).astype(np.uint8)


def write(root: Path, images: str, masks: str, count: int = 4, draw=lambda k: ids(k)) -> Path:
    "Images and masks under names with a {} in them."
    for k in range(count):
        save(root / images.format(k), image(k))
        save(root / masks.format(k), draw(k))
    return root


def found_in(data, index: int = 0) -> list[int]: return sorted(data.read(index)[1].areas.tolist())


def areas(k: int = 0) -> list[int]: return sorted(np.bincount(ids(k).ravel())[1:].tolist())


NAMES = {
    "capitals": ("Images/{}.png", "Masks/{}.png"), "shouting": ("IMG/{}.jpg", "MASK/{}.png"), "inside": ("my data/Images/{}.png", "my data/Masks/{}.png"),
    "ground truth": ("Original/{}.jpg", "Ground Truth/{}.png"), "instances": ("JPEGImages/{}.jpg", "SegmentationObject/{}.png"),
    "prefixes": ("images/image_{:04}.png", "masks/mask_{:04}.png"), "suffixes": ("images/{}_sat.jpg", "masks/{}_mask.png"),
    "suffix of one": ("imgs/{}.jpg", "gts/{}_gt.png"), "prefix of one": ("images/{}.png", "masks/seg-{}.png"), "capital names": ("images/IMG_{}.png", "masks/img_{}.png"),
    "zeros": ("images/frame{:04}.png", "masks/mask{}.png"), "dots": ("images/scene.{}.rgb.png", "masks/scene.{}.mask.png"), "spaces": ("images/my photo ({}).jpg", "masks/my photo ({}).png"),
    "one folder": ("train/{}_sat.jpg", "train/{}_mask.png"), "one folder at the root": ("{}.jpg", "{}_seg.png"), "one folder, prefixes": ("all/img_{}.jpg", "all/mask_{}.png"),
    "beside": ("{}.jpg", "masks/{}.png"), "tiles": ("tiles/{}.png", "annotation/{}.png"), "below": ("images/north/a/{}.png", "masks/north/a/{}.png"),
    "other endings": ("images/{}.webp", "masks/{}.bmp"), "upper endings": ("images/{}.PNG", "masks/{}.PNG"),
    "a folder each": ("images/{}.png", "masks/{}/all.png"), "cases": ("case{}/image.png", "case{}/mask.png"), "one name": ("all/{}.jpg", "all/{}.png"),
    "numbered": ("all/image{}.png", "all/label{}.png")}


@pytest.mark.parametrize("name", NAMES)
def test_pairs_are_found(tmp_path, name):
    data = load_objects(write(tmp_path, *NAMES[name]))
    assert (len(data), data.kind, found_in(data)) == (4, "instance", areas())
    assert sorted(e.name for e in load_objects(tmp_path, "train").entries + load_objects(tmp_path, "val").entries) == sorted(e.name for e in data.entries)


@pytest.mark.parametrize("images, masks", [("{s}/images/{{}}.png", "{s}/masks/{{}}.png"), ("images/{s}/{{}}.png", "masks/{s}/{{}}.png"), ("{s}_images/{{}}.png", "{s}_masks/{{}}.png"),
                                           ("Images/{S}/{{}}.png", "Labels/{S}_labels/{{}}.png"), ("{s}/{{}}.png", "{s}annot/{{}}.png"), ("data/{S}/Image/{{}}.jpg", "data/{S}/GT/{{}}.png"),
                                           ("{s}/{{}}.jpg", "{s}/{{}}_mask.png"), ("images/{s}/{{}}_img.png", "masks/{s}/{{}}_mask.png")])
def test_splits_are_folders(tmp_path, images, masks):
    for split, count in (("train", 4), ("val", 2)):
        write(tmp_path, images.format(s=split, S=split.capitalize()), masks.format(s=split, S=split.capitalize()), count)
    assert splits_on_disk(tmp_path) == ["train", "val"]
    assert [len(load_objects(tmp_path, s)) for s in ("train", "val")] == [4, 2]


def test_what_gets_left_behind_is_ignored(tmp_path):
    write(tmp_path, "images/{}.png", "masks/{}.png")
    for junk in ("images/.ipynb_checkpoints/0-checkpoint.png", "masks/.ipynb_checkpoints/0-checkpoint.png", "__MACOSX/images/._0.png", "masks/._1.png", ".Trash/images/9.png", "images/@eaDir/0.png"):
        save(tmp_path / junk, ids())
    for junk in ("images/Thumbs.db", "masks/.DS_Store", "masks/desktop.ini", "notes.txt", "images/index.csv"): (tmp_path / junk).write_bytes(b"x")
    (tmp_path / "dataset-metadata.json").write_text(json.dumps({"title": "mine", "id": "me/mine", "licenses": [{"name": "CC0"}]}))
    (tmp_path / "package.json").write_text("{}"); (tmp_path / "broken.json").write_text("{")
    report = check_objects(tmp_path)
    assert (report.total, report.problems) == (4, [])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("line", ["{}\r\n", "{}.png\n", "images/{}.png masks/{}.png\n", ".\\images\\{}.png\r\n", "{},1\n", "{}\t-1\n"])
def test_lists(tmp_path, encoding, line):
    write(tmp_path, "images/scene {}.png", "masks/scene {}.png", 6)
    for split, some in (("train", range(4)), ("val", (4, 5))):
        (tmp_path / f"{split}.txt").write_bytes("".join(line.format(f"scene {k}", f"scene {k}") for k in some).encode(encoding))
    data = [load_objects(tmp_path, s) for s in ("train", "val")]
    assert [[e.name for e in d.entries] for d in data] == [[f"scene {k}" for k in range(4)], ["scene 4", "scene 5"]] and not any(d.problems for d in data)


def test_a_list_of_other_names_is_named(tmp_path):
    write(tmp_path, "images/{}.png", "masks/{}.png")
    (tmp_path / "train.txt").write_text("a\nb\n")
    with pytest.raises(DatasetError, match="none of 2 names in this list"): load_objects(tmp_path, "train")
    (tmp_path / "train.txt").write_text("0\n1\n9\n")
    assert [p.kind for p in load_objects(tmp_path, "train").problems] == ["image missing"]


@pytest.mark.parametrize("between", ["", "480p/"])
def test_frames_of_videos(tmp_path, between):
    for video in ("bear", "cat"): write(tmp_path, f"JPEGImages/{between}{video}/{{:05}}.jpg", f"Annotations/{between}{video}/{{:05}}.png", 3, lambda k: np.where(ids(k) == 3, 1, ids(k)))
    (tmp_path / "ImageSets/2017").mkdir(parents=True)
    (tmp_path / "ImageSets/2017/train.txt").write_text("bear\n"); (tmp_path / "ImageSets/2017/val.txt").write_text("cat\n")
    data = load_objects(tmp_path, "train")
    assert (data.kind, [e.name for e in data.entries], len(data.read(0)[1])) == ("instance", ["bear/00000", "bear/00001", "bear/00002"], 2)
    assert [e.name for e in load_objects(tmp_path, "val").entries] == ["cat/00000", "cat/00001", "cat/00002"]


def test_masks_of_one_object_a_file_in_videos(tmp_path):
    "SA-V: Annotations_6fps/VIDEO/OBJECT/FRAME.png; not every frame has masks."
    for k in range(3): save(tmp_path / f"JPEGImages_24fps/sav_1/{k:05}.jpg", image(k))
    for n in (1, 2): save(tmp_path / f"Annotations_6fps/sav_1/{n:03}/00000.png", (ids() == n) * np.uint8(255))
    data = load_objects(tmp_path)
    assert ([e.name for e in data.entries], data.kind, len(data.read(0)[1])) == (["sav_1/00000"], "binary", 2)


def test_voc(tmp_path):
    def outlined(k):
        edges = cv2.morphologyEx(ids(k), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        return np.where(edges, 255, ids(k)).astype(np.uint8)
    write(tmp_path, "JPEGImages/2007_{:06}.jpg", "SegmentationObject/2007_{:06}.png", 5, outlined)
    write(tmp_path, "JPEGImages/2007_{:06}.jpg", "SegmentationClass/2007_{:06}.png", 5, lambda k: np.where(outlined(k) % 255 > 0, 7, outlined(k)).astype(np.uint8))
    save(tmp_path / "JPEGImages/2007_000099.jpg", image())
    for place, names in (("Segmentation/train", (0, 1, 2)), ("Segmentation/val", (3, 4)), ("Main/train", (0, 99)), ("Main/aeroplane_train", (0,))):
        (tmp_path / f"ImageSets/{place}.txt").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"ImageSets/{place}.txt").write_text("".join(f"2007_{k:06}{' -1' * ('_' in place)}\n" for k in names))
    data = load_objects(tmp_path, "train")
    assert (data.kind, len(data), len(data.read(0)[1]), set(data.read(0)[1].categories.tolist()), data.problems) == ("instance", 3, 3, {7}, [])
    assert (load_objects(tmp_path, "train", kind="label").kind, len(load_objects(tmp_path, "val"))) == ("label", 2)


def test_isaid(tmp_path):
    def numbered(k): return np.dstack([np.zeros_like(ids()), np.zeros_like(ids()), ids(k) * 40])  # blue, green, red
    def classes(k): return np.where(ids(k)[..., None] > 0, np.array((63, 0, 0), np.uint8), 0).astype(np.uint8)  # ship is (0, 0, 63)
    write(tmp_path, "train/images/P{:04}.png", "train/Instance_masks/images/P{:04}_instance_id_RGB.png", 4, numbered)
    write(tmp_path, "train/images/P{:04}.png", "train/Semantic_masks/images/P{:04}_instance_color_RGB.png", 4, classes)
    data = load_objects(tmp_path, kind="instance")
    assert (len(data), found_in(data)) == (4, areas())
    labels = load_objects(tmp_path, kind="label")
    assert (labels.kind, len(labels.read(0)[1]), labels.classes) == ("label", 3, ("ship",))


def test_cases_of_kaggle(tmp_path):
    "Data Science Bowl 2018: a folder an image, a file a nucleus."
    for k in range(3):
        save(tmp_path / f"stage1_train/c{k}/images/c{k}.png", image(k))
        for n in (1, 2, 3): save(tmp_path / f"stage1_train/c{k}/masks/{n * 7919 + k:x}.png", (ids(k) == n) * np.uint8(255))
    data = load_objects(tmp_path)
    assert (len(data), data.kind, found_in(data)) == (3, "binary", areas())


def test_of_several_forms_of_the_same_masks_one_is_read(tmp_path):
    for k in range(3):
        save(tmp_path / f"images/{k}.png", image(k))
        for ending, drawn in (("color", np.dstack([ids(k) * 50] * 3)), ("labelIds", (ids(k) > 0) * np.uint8(5)), ("instanceIds", ids(k).astype(np.uint16) * 1000)): save(tmp_path / f"masks/{k}_{ending}.png", drawn)
    data = load_objects(tmp_path)
    assert (data.kind, found_in(data)) == ("instance", areas()) and "instanceIds" in " ".join(data.found.notes)


def test_two_pictures_of_one_name_are_told(tmp_path):
    write(tmp_path, "images/{}.jpg", "masks/{}.png")
    for k in range(4): save(tmp_path / f"images/{k}.tif", 255 - image(k))
    data = load_objects(tmp_path)
    assert [p.kind for p in data.problems] == ["two pictures of one name"] * 4 and "--images" in data.problems[0].remedy and data.entries[0].image.endswith("0.jpg")


def test_named_folders(tmp_path):
    write(tmp_path, "photos/{}_a.jpg", "photos/{}_mask.png")
    write(tmp_path, "photos/{}_a.jpg", "drawn by hand/{}.png")
    assert len(load_objects(tmp_path, images=tmp_path / "photos", annotations=tmp_path / "photos")) == 4
    assert found_in(load_objects(tmp_path / "photos", annotations=tmp_path / "drawn by hand")) == areas()
    with pytest.raises(DatasetError, match="is not there"): load_objects(tmp_path, images=tmp_path / "nowhere")


# what the masks are

def white(k: int = 0) -> np.ndarray: return (ids(k) == 2) * np.uint8(255)


def blurred(k: int, sigma: float = 1.5) -> np.ndarray: return cv2.GaussianBlur(white(k), (0, 0), sigma)


def cut_out(k: int, colours) -> np.ndarray:
    return np.dstack([np.broadcast_to(np.asarray(colours, np.uint8), (HEIGHT, WIDTH, 3)), white(k)])


ONE_OBJECT = {
    "white": ("{}.png", white), "one": ("{}.png", lambda k: white(k) // 255), "soft": ("{}.png", blurred), "feathered": ("{}.png", lambda k: blurred(k, 2)),
    "soft in colours": ("{}.png", lambda k: np.dstack([blurred(k)] * 3)), "soft alpha": ("{}.png", lambda k: np.dstack([np.full((HEIGHT, WIDTH, 3), 255, np.uint8), blurred(k)])),
    "resized": ("{}.png", lambda k: cv2.resize(cv2.resize(white(k), (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_AREA), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)),
    "JPEG": ("{}.jpg", white), "GIF": ("{}.gif", white), "16 bits": ("{}.png", lambda k: white(k).astype(np.uint16) * 257), "probabilities": ("{}.npy", lambda k: (blurred(k) / 255).astype(np.float32)),
    "alpha over white": ("{}.png", lambda k: cut_out(k, (255, 255, 255))), "alpha over black": ("{}.png", lambda k: cut_out(k, (0, 0, 0))), "alpha over the photograph": ("{}.png", lambda k: cut_out(k, np.random.default_rng(k).integers(0, 255, (HEIGHT, WIDTH, 3))))}


@pytest.mark.parametrize("name", ONE_OBJECT)
def test_one_object_a_file(tmp_path, name):
    ending, draw = ONE_OBJECT[name]
    for k in range(4):
        save(tmp_path / f"images/{k}.png", image(k))
        file = tmp_path / "masks" / ending.format(k)
        file.parent.mkdir(exist_ok=True)
        if file.suffix == ".gif": Image.fromarray(draw(k)).save(file)
        else: save(file, draw(k))
    data = load_objects(tmp_path)
    truth = int((white() > 0).sum())
    assert (data.kind, len(data.read(0)[1])) == ("binary", 1) and abs(found_in(data)[0] - truth) <= 0.08 * truth
    assert check_objects(data).ok


def test_class_colours_are_pieces(tmp_path):
    table = np.array([(0, 0, 0), (0, 0, 255), (0, 255, 0), (0, 0, 255)], np.uint8)
    def draw(k):
        both = table[ids(k)].copy(); both[50:58, 5:15] = (0, 255, 0)
        return both
    data = load_objects(write(tmp_path, "images/{}.png", "masks/{}.png", draw=draw))
    assert (data.kind, len(data.read(0)[1]), data.classes, [p.kind for p in data.problems]) == ("label", 4, ("#FF0000", "#00FF00"), ["class colours"])
    assert sorted(data.read(0)[1].categories.tolist()) == [0, 0, 1, 1] and "--kind instance" in data.problems[0].remedy
    assert len(load_objects(tmp_path, kind="instance").read(0)[1]) == 2


def test_object_colours_are_objects(tmp_path):
    rng = np.random.default_rng(0)
    def draw(k): return np.concatenate([np.zeros((1, 3), np.uint8), rng.integers(1, 255, (3, 3), dtype=np.uint8)])[ids(k)]
    data = load_objects(write(tmp_path, "images/{}.png", "masks/{}.png", draw=draw))
    assert (data.kind, found_in(data), data.problems) == ("instance", areas(), [])


def test_transparent_pixels_are_no_object(tmp_path):
    table = np.array([(255, 255, 255, 0), (9, 9, 200, 255), (200, 9, 9, 255), (9, 200, 9, 255)], np.uint8)
    data = load_objects(write(tmp_path, "images/{}.png", "masks/{}.png", draw=lambda k: table[ids(k)]))
    assert (data.kind, found_in(data)) == ("instance", areas())


def test_masks_of_many_pieces_are_told_and_split(tmp_path):
    def draw(k): return np.kron(np.ones((5, 6), np.uint8), np.pad(np.full((6, 7), 255, np.uint8), ((0, 6), (0, 6))))[:HEIGHT, :WIDTH]
    write(tmp_path, "images/{}.png", "masks/{}.png", draw=lambda k: np.pad(draw(k), ((0, HEIGHT - draw(k).shape[0]), (0, WIDTH - draw(k).shape[1]))))
    problems = load_objects(tmp_path).problems
    assert [p.kind for p in problems] == ["mask of many pieces"] and "median 30" in problems[0].fact and "--components true" in problems[0].remedy
    split = load_objects(tmp_path, components=True)
    assert (len(split.read(0)[1]), split.problems) == (30, [])
    assert len(load_objects(tmp_path, kind="label").read(0)[1]) == 30  # 255 is the class where there is no other


def test_negatives_are_told(tmp_path):
    write(tmp_path, "images/{}.png", "masks/{}.png", draw=lambda k: 255 - white(k))
    problems = load_objects(tmp_path).problems
    assert [p.kind for p in problems] == ["masks may be negatives"] and "--kind negative" in problems[0].remedy
    data = load_objects(tmp_path, kind="negative")
    assert (found_in(data), data.problems) == ([int((white() > 0).sum())], [])


@pytest.mark.parametrize("void, dtype", [(255, np.uint8), (65535, np.uint16)])
def test_void_is_no_object(tmp_path, void, dtype):
    def draw(k):
        found = ids(k).astype(dtype); found[:4] = void
        return found
    data = load_objects(write(tmp_path, "images/{}.png", "instances/{}.png", draw=draw))
    assert found_in(data) == areas() and str(void) in " ".join(data.found.notes)


@pytest.mark.parametrize("draw", [lambda k: ids(k).astype(np.float32), lambda k: ids(k).astype(np.int64), lambda k: ids(k) > 1])
def test_arrays(tmp_path, draw):
    data = load_objects(write(tmp_path, "images/{}.png", "masks/{}.npy", draw=draw))
    assert sum(found_in(data)) == int((draw(0) > 0).sum())


@pytest.mark.parametrize("drawn_on", ["shown", "stored"])
def test_masks_of_turned_pictures(tmp_path, drawn_on):
    exif = Image.Exif(); exif[274] = 6
    for k in range(3):
        save(tmp_path / f"masks/{k}.png", np.ascontiguousarray(np.rot90(ids(k), -1)) if drawn_on == "shown" else ids(k))
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(image(k)[..., ::-1]).save(tmp_path / f"images/{k}.jpg", exif=exif, quality=100)
    picture, masks = load_objects(tmp_path).read(0)
    assert tuple(picture.shape[-2:]) == masks.size == (WIDTH, HEIGHT) and np.array_equal(masks[:].any(0).numpy(), np.rot90(ids() > 0, -1))


CITY = {"published": ("leftImg8bit/{s}/town/town_{k:06}_leftImg8bit.png", "gtFine/{s}/town/town_{k:06}_gtFine_{what}.png"),
        "archives": ("leftImg8bit_trainvaltest/leftImg8bit/{s}/town/t_{k:06}_leftImg8bit.png", "gtFine_trainvaltest/gtFine/{s}/town/t_{k:06}_gtFine_{what}.png"),
        "plain names": ("leftImg8bit/{s}/town/{k:06}.jpg", "gtFine/{s}/town/{k:06}_{what}.png"), "no towns": ("leftImg8bit/{s}/{k:06}_leftImg8bit.png", "gtFine/{s}/{k:06}_gtFine_{what}.png")}


@pytest.mark.parametrize("name", CITY)
def test_cityscapes_without_polygons(tmp_path, name):
    images, truth = CITY[name]
    for split, count in (("train", 3), ("val", 2)):
        for k in range(count):
            save(tmp_path / images.format(s=split, k=k), image(k))
            save(tmp_path / truth.format(s=split, k=k, what="instanceIds"), np.where(ids(k) > 0, 26000 + ids(k).astype(np.uint16), 7).astype(np.uint16))
            for what in ("labelIds", "color"): save(tmp_path / truth.format(s=split, k=k, what=what), ids(k))
    data = load_objects(tmp_path, "train")
    assert (data.kind, splits_on_disk(tmp_path), len(data), found_in(data), len(load_objects(tmp_path, "val"))) == ("cityscapes", ["train", "val"], 3, areas(), 2)


def test_cityscapes_with_label_maps_alone(tmp_path):
    images, truth = CITY["published"]
    for k in range(3):
        save(tmp_path / images.format(s="train", k=k), image(k))
        for what, drawn in (("labelIds", np.where(ids(k) > 0, 26, 7)), ("color", np.where(ids(k) > 0, 142, 128))): save(tmp_path / truth.format(s="train", k=k, what=what), drawn.astype(np.uint8))
    data = load_objects(tmp_path, "train")
    assert data.kind == "label" and "labelIds" in " ".join(data.found.notes)


def test_links_that_lead_back_or_nowhere_are_left_out(tmp_path):
    root = write(tmp_path / "d", "images/{}.png", "masks/{}.png")
    for name, to in {"again": root, "images/up": root, "images/gone.png": root / "nothing.png"}.items(): (root / name).symlink_to(to)
    data = load_objects(root)
    assert len(data) == 4 and not data.problems and "4 pictures in images, 4 masks in masks" in data.found.notes[0], data.found.notes


@pytest.mark.parametrize("folder, extra, kind", [("masks", "0_1", "instance"), ("masks", "0_old", "instance"), ("masks", "0 (1)", "instance"), ("labels", "0_color", "label")])
def test_one_more_file_does_not_change_what_the_masks_are(tmp_path, folder, extra, kind):
    write(tmp_path, "images/{}.png", folder + "/{}.png")
    save(tmp_path / folder / f"{extra}.png", ids(1))
    data = load_objects(tmp_path)
    assert (data.kind, found_in(data), [p.kind for p in data.problems]) == (kind, areas(), ["several masks of an image"])
    assert data.problems[0].fact == "2 mask files for 1 image: 0.png is taken"
    assert load_objects(tmp_path, kind="binary").problems[-1:] == [] and len(load_objects(tmp_path, kind="binary").read(0)[1]) == 2


RED, BLUE, WHITE = (0, 0, 255), (255, 0, 0), (255, 255, 255)


@pytest.mark.parametrize("table", [[WHITE, RED], [1, 2], [7, 3]])
def test_two_values_without_0_are_ground_and_object(tmp_path, table):
    shown = np.array(table, np.uint8)
    data = load_objects(write(tmp_path, "images/{}.png", "masks/{}.png", draw=lambda k: shown[(ids(k) > 0).astype(int)]))
    assert (data.kind, found_in(data)) == ("binary", [sum(areas())]) and "is the background" in " ".join(data.found.notes)
    assert [found_in(load_objects(tmp_path, kind=kind, components=c)) for kind, c in (("label", None), ("binary", True), (None, True))] == [areas()] * 3
    assert found_in(load_objects(tmp_path, kind="binary")) == [sum(areas())]


@pytest.mark.parametrize("table", [[WHITE, RED, BLUE, RED], [1, 2, 3, 2]])
def test_classes_on_a_background_that_is_not_0(tmp_path, table):
    shown = np.array(table, np.uint8)
    data = load_objects(write(tmp_path, "images/{}.png", "labels/{}.png", draw=lambda k: shown[ids(k)]))
    assert (data.kind, found_in(data)) == ("label", areas()) and "is the background" in " ".join(data.found.notes)


def test_a_common_class_is_no_background(tmp_path):
    "Classes 1 to 7 without 0, as LoveDA has them: 7 covers most of each border, and is a class."
    data = load_objects(write(tmp_path, "images/{}.png", "labels/{}.png", draw=lambda k: np.array((7, 1, 2, 5), np.uint8)[ids(k)]))
    assert (data.kind, len(data.read(0)[1])) == ("label", 4)


UNREAD = {  # files -> words of the fact, of the remedy
    "heic": (["images/{}.heic", "masks/{}.png"], "masks but no images: 4 files end in .heic, which cannot be read", "convert them to PNG or JPEG"),
    "dicom": (["images/{}.dcm", "masks/{}.png"], "4 files end in .dcm", "convert them"), "both": (["images/{}.tga", "masks/{}.tga"], "8 files end in .tga", "convert them"),
    "arrays": (["images/{}.png", "masks/{}.npz"], "4 files end in .npz", "convert them to PNG or .npy"),
    "a video": (["clip {}.mp4"], "a video (clip 0.mp4)", "ffmpeg -i 'clip 0.mp4'"), "an archive": (["all.zip"], "an archive (all.zip)", "unpack it")}


@pytest.mark.parametrize("name", UNREAD)
def test_files_that_cannot_be_read_are_named(tmp_path, name):
    files, fact, remedy = UNREAD[name]
    for k in range(4):
        for f in files:
            if f.endswith("png"): save(tmp_path / f.format(k), ids(k))
            else: (tmp_path / f.format(k)).parent.mkdir(exist_ok=True); (tmp_path / f.format(k)).write_bytes(b"?")
    with pytest.raises(DatasetError) as told: load_objects(tmp_path)
    assert fact in told.value.fact and remedy in told.value.remedy, told.value
    if "masks/{}.npz" in files:
        with pytest.raises(DatasetError) as told: load_objects(tmp_path, images=tmp_path / "images", annotations=tmp_path / "masks")
        assert fact in told.value.fact and remedy in told.value.remedy, told.value


def test_some_pictures_that_cannot_be_read_are_a_warning(tmp_path):
    write(tmp_path, "images/{}.png", "masks/{}.png")
    for k in (7, 8): (tmp_path / f"images/{k}.heic").write_bytes(b"?")
    data = load_objects(tmp_path)
    assert len(data) == 4 and [(p.fact, p.severity) for p in data.problems] == [("2 files end in .heic, which cannot be read", "warning")]


@pytest.mark.parametrize("images, masks", [("{}.png", "{}_L.png"), ("train/1{}_x.png", "train/1{}_y.png"), ("1{}_a.png", "1{}.png"), ("a-{}-b.png", "a-{}-a.png")])
def test_one_folder_named_twice_is_paired_by_two_endings(tmp_path, images, masks):
    noise = np.random.default_rng(0)
    for k in range(4):
        save(tmp_path / images.format(k), noise.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8))
        save(tmp_path / masks.format(k), ids(k))
    data = load_objects(tmp_path, "all", images=tmp_path, annotations=tmp_path)
    assert (len(data), data.kind, found_in(data)) == (4, "instance", areas())


def test_255_in_solid_pieces(tmp_path):
    grey, small = np.array((0, 128, 255, 128), np.uint8), np.array((0, 1, 255, 2), np.uint8)
    data = load_objects(write(tmp_path / "grey", "images/{}.png", "masks/{}.png", draw=lambda k: grey[ids(k)]))
    assert (data.kind, found_in(data), data.problems) == ("label", areas(), []) and "255 is no void" in " ".join(data.found.notes)
    data = load_objects(write(tmp_path / "small", "images/{}.png", "masks/{}.png", draw=lambda k: small[ids(k)]))
    assert (len(data.read(0)[1]), [p.kind for p in data.problems]) == (2, ["255 may be an object"]) and "4 of 4" in data.problems[0].fact
    assert found_in(load_objects(tmp_path / "small", kind="instance")) == areas()


@pytest.mark.parametrize("dtype", [np.int32, np.int16])
def test_ids_from_0_on_a_negative_background(tmp_path, dtype):
    data = load_objects(write(tmp_path, "images/{}.png", "masks/{}.npy", draw=lambda k: ids(k).astype(dtype) - 1))
    assert (data.kind, found_in(data)) == ("instance", areas()) and "-1 is the background" in " ".join(data.found.notes)
    def filled(k):
        found = ids(k).astype(dtype); found[0] = found[-1] = found[:, 0] = -1
        return found
    assert found_in(load_objects(write(tmp_path / "b", "images/{}.png", "masks/{}.npy", draw=filled))) == areas()


@pytest.mark.parametrize("pages", [2, 3, 4])
@pytest.mark.parametrize("kind", [None, "binary", "instance"])
def test_masks_of_several_pages_are_refused_and_read_as_files(tmp_path, pages, kind):
    for k in range(3):
        planes = [Image.fromarray((ids(k) == n) * np.uint8(255)) for n in range(pages)]
        save(tmp_path / f"images/{k}.png", image(k)); (tmp_path / "masks").mkdir(exist_ok=True)
        planes[0].save(tmp_path / f"masks/{k}.tif", save_all=True, append_images=planes[1:])
    with pytest.raises(DatasetError, match=f"{pages} pages") as refused: load_objects(tmp_path, kind=kind).read(0)
    assert "0001/1.png" in refused.value.remedy
    for k in range(3):
        (tmp_path / f"masks/{k}.tif").unlink()
        for n in (1, 2, 3): save(tmp_path / f"masks/{k}/{n}.png", (ids(k) == n) * np.uint8(255))
    assert found_in(load_objects(tmp_path)) == areas()


def test_one_more_file_that_cannot_be_read(tmp_path):
    write(tmp_path, "images/{}.png", "masks/{}.png")
    (tmp_path / "masks/0_old.png").write_bytes(b"no picture")
    data = load_objects(tmp_path)
    assert (data.kind, found_in(data)) == ("instance", areas())
