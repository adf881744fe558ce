"""Folders as people bring them, from SAM_NB_CASES: each is read right, or refused with a remedy that works.

Every picture in them is dark ground with bright objects, so that a mask in the wrong place, or a picture read wrong, shows as a lost contrast."""
import os
from pathlib import Path

import numpy as np
import pytest

from sam_nb.cli import main
from sam_nb.datasets.objects import load_objects
from sam_nb.datasets.pictures import image_array, read_image

FIELD = Path(os.environ.get("SAM_NB_CASES", "/nowhere")) / "field"
pytestmark = pytest.mark.skipif(not FIELD.is_dir(), reason="SAM_NB_CASES is not set")


def read_all(folder: Path, split: str | None = "all", **options) -> tuple[int, int, float]:
    "Images, objects, and the least contrast of an image: mean inside the objects minus mean outside."
    data, objects, contrast = load_objects(folder, split, **options), 0, []
    for i in range(len(data)):
        image, masks = data.read(i)
        inside = np.zeros(tuple(image.shape[-2:]), bool)
        for mask in masks[:]: inside |= mask.numpy()
        grey = image.float().mean(0).numpy()
        contrast.append(grey[inside].mean() - grey[~inside].mean())
        objects += len(masks)
    return len(data), objects, min(contrast)


READ = {  # case -> images, objects, least contrast, options
    "capital_folders": (6, 24, 80, {}),
    "cityscapes_like": (4, 16, 80, {"split": "train"}),
    "coco_absolute_paths": (6, 24, 80, {}),
    "coco_converted_to_png": (6, 24, 80, {}),
    "coco_no_size": (6, 24, 80, {}),
    "coco_rle_in_list": (6, 24, 80, {}),
    "coco_string_ids": (6, 24, 80, {}),
    "cvat_images_xml": (6, 24, 80, {}),
    "cvat_masks_iscrowd": (6, 24, 80, {}),
    "davis_video": (6, 24, 80, {}),
    "exif_upside_down": (6, 24, 80, {"orientation": "stored"}),
    "geotiff_8band_planar": (2, 8, 80, {}),
    "geotiff_float_nodata": (2, 8, 80, {}),
    "geotiff_uint16_planar": (2, 8, 100, {}),
    "geotiff_uint8_rgbn_default": (2, 8, 80, {}),
    "geotiff_zstd": (2, 8, 70, {}),
    "hidden_checkpoints": (6, 24, 80, {}),
    "images_and_masks_in_one_folder": (6, 6, 80, {}),
    "instance_float_tif": (6, 24, 80, {}),
    "jp2_images": (6, 24, 80, {}),
    "labelme_json": (6, 24, 80, {}),
    "labelstudio_coco_upload_path": (6, 24, 80, {}),
    "list_utf16": (6, 24, 80, {}),
    "list_with_bom_crlf": (4, 16, 80, {"split": "train"}),
    "masks_alpha_cutout": (6, 6, 80, {}),
    "masks_antialiased": (6, 6, 80, {}),
    "mixed_rgb_and_rgba_tif": (6, 24, 80, {}),
    "prefix_both": (6, 24, 80, {}),
    "stray_json": (6, 24, 80, {}),
    "yolo_seg": (4, 16, 80, {"split": "train"}),
}


@pytest.mark.parametrize("case", READ)
def test_a_folder_is_read_right(case):
    images, objects, least, options = READ[case]
    found = read_all(FIELD / case / "data", **options)
    assert found[:2] == (images, objects) and found[2] > least, found


def check(capsys, *words: str) -> tuple[int, str]:
    code = main(["check", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out + said.err


@pytest.mark.parametrize("case", [c for c in READ if c != "exif_upside_down"])
def test_check_says_what_it_took_the_folder_for(case, capsys):
    code, said = check(capsys, FIELD / case / "data")
    assert code == 0, said
    assert "sam_nb train" in said, said


def test_a_turned_picture_is_counted(capsys):
    said = check(capsys, FIELD / "exif_upside_down/data")[1]
    assert "6" in said and "orientation stored" in said, said


def test_many_pieces_are_split_or_told(capsys):
    folder = FIELD / "binary_many_pieces/data"
    said = check(capsys, folder)[1]
    assert read_all(folder)[1] == 6 * 64 or ("64" in said and "--components" in said), said
    assert read_all(folder, components=True)[:2] == (6, 6 * 64)


def test_colours_of_classes_are_pieces_or_told(capsys):
    folder = FIELD / "masks_colour_classes/data"
    said = check(capsys, folder)[1]
    assert read_all(folder)[1] == 24 or "--kind label" in said, said
    assert read_all(folder, kind="label")[:2] == (6, 24)


def test_two_pictures_of_one_stem_are_told(capsys):
    said = check(capsys, FIELD / "same_stem_two_endings/data")[1]
    assert "0000.jpg" in said and "0000.tif" in said or "6 x" in said, said


def test_shares_of_the_side_are_named(capsys):
    code, said = check(capsys, FIELD / "coco_normalised_polygons/data")
    assert code == 1 and "shares of the side" in said, said


def test_boxes_alone_are_no_masks(capsys):
    data = FIELD / "check_of_a_json_says_ok/data"
    code, said = check(capsys, data / "annotations/instances_train.json")
    assert code == 1 and "box" in said, said
    code, said = check(capsys, data / "list.json")
    assert code == 1 and "Traceback" not in said and "list" in said, said


def test_a_float_raster_is_stretched_by_its_valid_pixels():
    image = read_image(FIELD / "geotiff_float_nodata/data/images/t0.tif")
    assert len(image.unique()) > 40
    eight = read_image(FIELD / "geotiff_8band_planar/data/images/t0.tif")
    assert eight.shape == (8, 256, 256)
    rgbn = read_image(FIELD / "geotiff_uint8_rgbn_default/data/images/t0.tif").float().mean((1, 2))
    assert (rgbn[:3] - rgbn.new_tensor([92, 95, 90])).abs().max() < 6


def test_a_picture_is_the_same_by_path_as_bytes_and_as_a_pil_image():
    from PIL import Image
    wrong = []
    for file in sorted((FIELD / "pil_modes/data").iterdir()):
        by_path = image_array(file)
        for how, source in {"bytes": file.read_bytes(), "PIL": Image.open(file)}.items():
            other = image_array(source)
            if by_path.shape != other.shape or np.abs(by_path.astype(int) - other).max() > 0: wrong.append((file.name, how))
    assert not wrong


def test_refcoco_as_published_is_read(capsys):
    code, said = check(capsys, FIELD / "refcoco_original/data")
    assert code == 0 and "3 of 3 images" in said and "2 of 2 images" in said, said


def test_lists_of_pairs_keep_names_with_spaces(capsys):
    code, said = check(capsys, FIELD / "rgbt_list_spaces/data")
    assert code == 0 and "sartm" in said, said
