"""`sam_nb check`, as a user meets it: what a folder was taken for, the command that trains on it, and the exit code."""
from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from sam_nb.cli import main
from sam_nb.contract import job
from sam_nb.datasets.pictures import read_image

# folder of the samples -> what the first line says, exit code, method of the last line
SAMPLES = {
    "DOTA": ("DOTA: oriented boxes", 0, "remotesam"), "FMB": ("FMB", 0, "sartm"), "LoveDA": ("LoveDA", 0, "remotesam"), "MFNet": ("MFNet", 0, "sartm"),
    "MSRS_unlabelled": ("RGB-thermal pairs", 1, ""), "PST900": ("PST900", 0, "sartm"), "VOC2012": ("images beside masks", None, ""),
    "cityscapes": ("Cityscapes", 0, "s4m"), "coco": ("COCO", 0, "promptable"), "coco_panoptic": ("COCO panoptic", 1, ""),
    "demo_images": ("no known layout", 1, ""),
    "earth_tasks": ("Falcon", 0, "remotesam"), "earth_tasks/DIORcoco": ("DIOR", 0, "remotesam"), "earth_tasks/Counting": ("Falcon", 0, "remotesam"), "earth_tasks/RSVG": ("DIOR-RSVG", 0, "remotesam"),
    "earth_tasks/DOTAv2_patches": ("DOTA", 0, "remotesam"), "earth_tasks/UCM_captions": ("UCM-Captions", 0, "remotesam"),
    "earth_tasks/UCMerced_LandUse": ("a folder of images for each class", 0, "remotesam"), "indoor_instances": ("images beside masks", 0, "promptable"),
    "isprs_potsdam": ("ISPRS Potsdam", 0, "remotesam"), "panoramas": ("no known layout", 1, ""), "refsegrs_layout": ("referring expressions", 0, "rsam"),
    "risors_layout": ("referring expressions", 0, "rsam"), "rrsisd_layout": ("referring expressions", 0, "rsam"), "text": ("no known layout", 1, "")}


def checked(capsys, *words: str) -> tuple[int, list[str]]:
    "Exit code and lines of `sam_nb check`."
    code = main(["check", *map(str, words)])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, (said.out + said.err).strip().splitlines()


@pytest.mark.skipif("SAM_NB_SAMPLES" not in os.environ, reason="needs the sample data sets")
@pytest.mark.parametrize("folder", SAMPLES)
def test_samples_are_named(capsys, folder):
    title, code, method = SAMPLES[folder]
    got, lines = checked(capsys, Path(os.environ["SAM_NB_SAMPLES"]) / folder, "--sample", "3")
    assert title in lines[0] and code in (got, None), lines
    assert not method or f"sam_nb train {method} " in lines[-1] or f"sam_nb eval {method} " in lines[-1], lines


@pytest.fixture
def pairs(tmp_path) -> Path:
    "Six RGB-thermal pairs whose names hold a space."
    for folder in ("rgb", "thermal", "labels"): (tmp_path / folder).mkdir()
    for k in range(6):
        cv2.imwrite(str(tmp_path / f"rgb/frame {k}.png"), np.full((24, 32, 3), 30 * k + 9, np.uint8))
        cv2.imwrite(str(tmp_path / f"thermal/frame {k}.png"), np.arange(24 * 32, dtype=np.uint8).reshape(24, 32))
        cv2.imwrite(str(tmp_path / f"labels/frame {k}.png"), np.uint8(np.arange(24 * 32).reshape(24, 32) > 300))
    return tmp_path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_of_pairs_with_spaces_in_its_names(pairs, capsys, encoding):
    (pairs / "dataset.json").write_text('{"classes": ["ground", "crack"]}')
    for split, names in dict(train=range(4), val=range(4, 6)).items():
        (pairs / f"{split}.txt").write_bytes("".join(f"frame {k}.png\r\n" for k in names).encode(encoding))
    code, lines = checked(capsys, pairs)
    assert code == 0 and any("train: 4 of 4 pairs read, 0 errors" in line for line in lines) and any("val: 2 of 2 pairs" in line for line in lines)
    assert lines[-1].startswith("to train: sam_nb train sartm ")


def test_pairs_without_a_dataset_file(pairs, capsys):
    code, lines = checked(capsys, pairs)
    assert code == 1 and "RGB-thermal pairs" in lines[0] and "ids in 6 label images: 0, 1" in lines[2]
    assert "nothing says what the label ids mean" in lines[-2] and '{"classes": ["class 0", "class 1"]}' in lines[-1]
    (pairs / "dataset.json").write_text(lines[-1].partition(": {")[2].join(["{", ""]))
    assert checked(capsys, pairs)[0] == 0


def test_thermal_and_label_follow_a_turned_picture(pairs):
    from sam_nb.datasets.rgbt import RGBTDataset
    upright = RGBTDataset.open(pairs, "all", ["ground", "crack"])[0]
    note = Image.Exif()
    note[274] = 6
    Image.open(pairs / "rgb/frame 0.png").save(pairs / "rgb/frame 0.png", exif=note)
    turned = RGBTDataset.open(pairs, "all", ["ground", "crack"])[0]
    for name in ("image", "thermal", "semantic"): assert (np.rot90(upright[name].numpy(), -1, (-2, -1)) == turned[name].numpy()).all(), name


def test_files_of_json(tmp_path, capsys):
    "A COCO file of boxes alone, a list, and what is neither."
    (tmp_path / "images").mkdir(), (tmp_path / "annotations").mkdir()
    for k in range(4): cv2.imwrite(str(tmp_path / f"images/{k}.png"), np.full((40, 40, 3), 50 * k, np.uint8))
    said = {"images": [{"id": k, "file_name": f"{k}.png", "height": 40, "width": 40} for k in range(4)], "categories": [{"id": 1, "name": "thing"}],
            "annotations": [{"id": k, "image_id": k, "category_id": 1, "bbox": [4, 4, 20, 20]} for k in range(4)]}
    file = tmp_path / "annotations/instances_train.json"
    file.write_text(json.dumps(said))
    code, lines = checked(capsys, file)
    assert code == 1 and "COCO" in lines[0] and "boxes only, no masks" in lines[-2], lines
    for a in said["annotations"]: a["segmentation"] = [[4, 4, 24, 4, 24, 24, 4, 24]]
    file.write_text(json.dumps(said))
    code, lines = checked(capsys, file)
    assert code == 0 and "4 objects" in " ".join(lines) and f"--annotations {shlex.quote(str(file))}" in lines[-1], lines
    for text, fact in (('["a", "b"]', "a list of strs"), ('{"title": "x"}', "an object with 'title'"), ('{"a": ', "not a JSON file")):
        (tmp_path / "other.json").write_text(text)
        code, lines = checked(capsys, tmp_path / "other.json")
        assert code == 1 and fact in " ".join(lines), lines


def test_what_a_folder_is_not(tmp_path, capsys):
    for words, fact in (((tmp_path,), "no known layout"), ((tmp_path / "nowhere",), "there is no such folder"), (("demo", "--kind", "coco"), "does nothing for a generated demo")):
        code, lines = checked(capsys, *words)
        assert code == 1 and fact in " ".join(lines), lines


@pytest.fixture
def aerial(tmp_path) -> Path:
    "Four bands in TIFF, the fourth marked as alpha, and black-and-white masks of two squares each, in folders of unusual names."
    import rasterio
    for name in ("survey/tiles", "survey/outlines"): (tmp_path / name).mkdir(parents=True)
    noise = np.random.default_rng(0)
    for k in range(6):
        with rasterio.open(tmp_path / f"survey/tiles/{k}.tif", "w", driver="GTiff", width=64, height=48, count=4, dtype="uint8") as out:
            out.write(noise.integers(9, 240, (4, 48, 64), dtype=np.uint8))
        mask = np.zeros((48, 64), np.uint8)
        mask[4:20, 4:24], mask[26:44, 30:60] = 255, 255
        cv2.imwrite(str(tmp_path / f"survey/outlines/{k}.png"), mask)
    return tmp_path


def trained(lines: list[str], root: Path, monkeypatch, **more) -> dict:
    "Run the command of the last line of a check, in this process, for two steps; what its notebook defined."
    from sam_nb.launch.parameters import find_notebook, read_command, read_parameters
    from tests.test_bad_input import do_job
    method, *words = shlex.split(lines[-1].removeprefix("to train: "))[2:]
    values = read_command("train", method, words, read_parameters(find_notebook("train", method)))[1]
    return do_job(f"train_{method}", root, monkeypatch, **{**values, "steps": 2, "device": "cpu", "workers": 0, "test_images": 1, "checkpoint": "scratch", **more})


def test_what_check_calls_good_trains_and_is_evaluated_alike(aerial, capsys, monkeypatch):
    words = ["--images", "survey/tiles", "--annotations", "survey/outlines", "--components", "true", "--bands", "4,2,1"]
    monkeypatch.chdir(aerial)
    code, lines = checked(capsys, "survey", *words)
    assert code == 0 and "6 of 6 images read, 12 objects" in " ".join(lines), lines
    assert "--bands 4,2,1" in lines[-1] and "--components true" in lines[-1]
    done = trained(lines, aerial, monkeypatch, run_name="bands", image_size=64)
    data, wanted = done["data"]["train"], read_image(done["data"]["train"].entries[0].image, bands=(4, 2, 1))
    assert (data[0]["image"] == wanted).all() and len(data[0]["masks"]) == 2
    how = job("promptable").evaluators["clicks"]
    recipe = how.check({"run": "bands", "device": "cpu"})
    again = how.open(recipe, how.plan(recipe))[1]
    assert again.reading["bands"] == (4, 2, 1) and (again[0]["image"] == read_image(again.entries[0].image, bands=(4, 2, 1))).all() and len(again[0]["masks"]) == 2


def test_an_option_that_does_nothing_is_refused_by_name(aerial, monkeypatch, capsys):
    monkeypatch.chdir(aerial)
    for words in (["train", "promptable", "--bands", "1,2,3", "--dry_run"], ["train", "saom", "--kind", "coco", "--dry_run"], ["train", "s4m", "--nodata", "0", "--dry_run"]):
        assert main(words) == 1
        assert f"{words[2][2:]}=" in (said := capsys.readouterr().err) and "does nothing for a generated demo" in said and f"leave {words[2][2:]} out" in said
    folders = ["survey", "--images", "survey/tiles", "--annotations", "survey/outlines"]
    for more, fact in ((["--crowd"], "crowd=True does nothing for masks of the kind 'binary'"), (["--kind", "binry"], "did you mean 'binary'?"), (["--bands", "9"], "band")):
        code, lines = checked(capsys, *folders, *more)
        assert code == 1 and fact in " ".join(lines), lines


def test_mixed_channels_and_how_to_choose_bands(aerial, capsys, monkeypatch):
    monkeypatch.chdir(aerial)
    cv2.imwrite("survey/tiles/0.png", np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
    np.save("survey/tiles/1.npy", np.random.default_rng(0).integers(0, 255, (48, 64, 6), np.uint8))
    for name in ("0.tif", "1.tif"): os.remove(f"survey/tiles/{name}")
    folders = ["survey", "--images", "survey/tiles", "--annotations", "survey/outlines"]
    code, lines = checked(capsys, *folders)
    assert code == 1 and "5 images of 3 channels and 1 images of 6 channels" in lines[-2] and "--bands 1,2,3" in lines[-1], lines
    code, lines = checked(capsys, *folders, "--bands", "1,2,3")
    assert code == 0 and "--bands 1,2,3" in lines[-1], lines


def test_pieces_can_be_trained_on_with_the_command_that_check_prints(tmp_path, capsys):
    for name in ("images", "masks"): (tmp_path / name).mkdir()
    for k in range(6):
        mask = np.zeros((64, 64), np.uint8)
        for x in range(0, 60, 16): mask[4 + k:16 + k, x:x + 8] = mask[36:50, x:x + 8] = 255
        cv2.imwrite(str(tmp_path / f"images/{k}.png"), np.random.default_rng(k).integers(0, 255, (64, 64, 3), np.uint8))
        cv2.imwrite(str(tmp_path / f"masks/{k}.png"), mask)
    code, lines = checked(capsys, tmp_path)
    assert code == 0 and "  each file is an object" in lines and "6 objects" in " ".join(lines), lines
    assert lines[-2].startswith("to train, each piece as an object: ") and "--components true" in lines[-2] and lines[-1].startswith("to train: ") and "--components" not in lines[-1], lines
    code, lines = checked(capsys, tmp_path, "--components", "true")
    assert code == 0 and "  each connected piece of a file is an object" in lines and "48 objects" in " ".join(lines), lines
    assert lines[-1].startswith("to train: ") and "--components true" in lines[-1] and "many pieces" not in " ".join(lines), lines


@pytest.mark.parametrize("kind, name, wanted", [
    (np.float32, "Labels", "instance"), (np.uint16, "labels", "instance"), (np.uint8, "Labels", "label"), (np.uint16, "SegmentationClass", "label")])
def test_numbers_of_objects_in_a_folder_called_labels(tmp_path, capsys, kind, name, wanted):
    "Cells numbered 1, 2, 3 ...; one of them is cut in two by another."
    import tifffile
    for folder in ("images", name): (tmp_path / folder).mkdir()
    for k in range(6):
        ids = np.zeros((80, 80), kind)
        for n in range(10 + k): ids[4 + 18 * (n // 4):18 + 18 * (n // 4), 4 + 18 * (n % 4):18 + 18 * (n % 4)] = n + 1
        if k == 0: ids[4:18, 9:13] = 2
        if k == 0: ids[10:12, 13:22] = 2
        cv2.imwrite(str(tmp_path / f"images/{k}.png"), np.random.default_rng(k).integers(0, 255, (80, 80, 3), np.uint8))
        tifffile.imwrite(tmp_path / name / f"{k}.tif", ids)
    code, lines = checked(capsys, tmp_path)
    said = " ".join(lines)
    assert code == 0 and f"  kind: {wanted}" in lines and (wanted == "label" or "75 objects" in said), lines
    assert ("values like object numbers" in said and "10 to 15 values a map" in said and "--kind instance" in said) == (kind == np.uint8), lines


@pytest.mark.parametrize("turn, drawn_on, size, kind", [
    (6, "shown", (40, 64), "turned (note)"), (6, "stored", (40, 64), "masks turned (note)"), (6, "shown", (64, 64), "orientation of the masks (warning)"),
    (3, "shown", (40, 64), "orientation of the masks (warning)")])
def test_an_orientation_is_offered_only_where_there_is_one_to_choose(tmp_path, capsys, turn, drawn_on, size, kind):
    from sam_nb.datasets.pictures import turned
    note = Image.Exif()
    note[274] = turn
    for folder in ("images", "instance"): (tmp_path / folder).mkdir()
    for k in range(4):
        ids = np.zeros(size, np.uint16)
        ids[4:20, 4:20], ids[24:38, 30:60] = 1, 2
        Image.fromarray(np.dstack([np.uint8(ids * 90)] * 3)).save(tmp_path / f"images/{k}.jpg", exif=note)
        cv2.imwrite(str(tmp_path / f"instance/{k}.png"), ids if drawn_on == "stored" else np.ascontiguousarray(turned(ids, turn)))
    code, lines = checked(capsys, tmp_path)
    said = " ".join(lines)
    assert code == 0 and f"4 x {kind}" in said and ("--orientation stored" in said) == ("warning" in kind) and said.count(" 4 x ") == 1, lines


@pytest.mark.parametrize("where, split, folders, title", [
    ("FMB", "train", ("Visible", "Infrared", "Label"), "FMB"), ("archive/PST900_RGBT_Dataset", "train", ("rgb", "thermal", "labels"), "PST900"),
    ("mine", "", ("rgb", "thermal", "labels"), "RGB-thermal pairs")])
def test_a_dataset_one_folder_deeper_is_taken_for_what_it_is(tmp_path, capsys, where, split, folders, title):
    inner = tmp_path / "r" / where
    for part in ([split, "test"] if split else [""]):
        for folder, shape in zip(folders, ((24, 32, 3), (24, 32), (24, 32)), strict=True):
            (inner / part / folder).mkdir(parents=True)
            for k in range(4): cv2.imwrite(str(inner / part / folder / f"00_rect_rgb_frame{k}.png"), np.full(shape, k, np.uint8))
    (tmp_path / "r/__MACOSX").mkdir(); (tmp_path / "r/readme.txt").write_text("unpacked")
    code, lines = checked(capsys, tmp_path / "r")
    assert lines[0] == f"{tmp_path / 'r'} holds one dataset, {inner}:" and title in lines[1], lines
    assert (f"train sartm --dataset {title.lower()} --data_root {inner}" in lines[-1]) if split else str(inner / "dataset.json") in lines[-1], lines


def test_potsdam_as_it_is_published(tmp_path, capsys):
    from sam_nb.datasets.earth_classes import POTSDAM_COLOURS
    for k in (10, 11):
        for folder, name, drawn in (("2_Ortho_RGB", "RGB", np.full((60, 90, 3), 90, np.uint8)), ("5_Labels_all", "label", np.uint8([POTSDAM_COLOURS]).repeat(60, 0).repeat(15, 1))):
            (tmp_path / "Potsdam" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(drawn).save(tmp_path / "Potsdam" / folder / f"top_potsdam_2_{k}_{name}.tif")
    code, lines = checked(capsys, tmp_path / "Potsdam")
    assert code == 0 and "ISPRS Potsdam" in lines[0] and "2 of 2" in " ".join(lines) and "sam_nb train remotesam" in lines[-1], lines
    assert any("0 errors, 0 warnings" in line for line in lines), lines
    assert checked(capsys, tmp_path)[1][1:] == lines


@pytest.mark.parametrize("name, words", [("clip.mp4", ("a video (clip.mp4)", "ffmpeg -i clip.mp4")), ("all.zip", ("an archive (all.zip)", "unpack it"))])
def test_a_video_or_an_archive_is_named(tmp_path, capsys, name, words):
    (tmp_path / name).write_bytes(b"?")
    for what in (tmp_path, tmp_path / name):
        code, lines = checked(capsys, what)
        assert code == 1 and all(w in " ".join(lines) for w in words), lines
