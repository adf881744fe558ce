"Folders whose pictures are of other kinds than JPEG and PNG, read as objects; and a raster of 20,000 x 20,000 pixels in windows."
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image

from sam_nb.datasets.objects import load_objects
from sam_nb.datasets.pictures import image_array


def scene(seed: int, side: int = 96) -> tuple[np.ndarray, np.ndarray]:  # float [H, W, 3] in 0..1, ids [H, W]
    "Dark ground with three bright objects."
    rng = np.random.default_rng(seed)
    ids, picture = np.zeros((side, side + 32), np.uint8), rng.uniform(0.2, 0.35, (side, side + 32, 3))
    for k in range(3): cv2.circle(ids, (20 + 40 * k, int(rng.integers(20, 70))), 12, k + 1, -1)
    picture[ids > 0] += 0.5
    return picture, ids


def raster(file: Path, values: np.ndarray, **options) -> None:  # [H, W, C]
    h, w, bands = values.shape
    with rasterio.open(file, "w", driver="GTiff", width=w, height=h, count=bands, dtype=values.dtype, **options) as out:
        out.write(np.moveaxis(values, -1, 0))


def eight_bands(file, picture): raster(file.with_suffix(".tif"), (picture[..., [0, 1, 2, 0, 1, 2, 0, 1]] * 9000 + 1200).astype(np.uint16), interleave="band", compress="lzw")
def planar(file, picture): raster(file.with_suffix(".tif"), (picture * 9000 + 1200).astype(np.uint16), interleave="band")
def zstandard(file, picture): raster(file.with_suffix(".tif"), (picture * 255).astype(np.uint8), compress="zstd")
def jpeg_2000(file, picture): Image.fromarray((picture * 255).astype(np.uint8)).save(file.with_suffix(".jp2"))
def webp(file, picture): Image.fromarray((picture * 255).astype(np.uint8)).save(file.with_suffix(".webp"))
def gif(file, picture): Image.fromarray((picture * 255).astype(np.uint8)).save(file.with_suffix(".gif"))


def holes(file, picture):
    values = (picture * 60 + 100).astype(np.float32)
    values[:15] = -9999
    raster(file.with_suffix(".tif"), values, nodata=-9999)


def near_infrared(file, picture):
    raster(file.with_suffix(".tif"), (np.dstack([picture, picture[..., 0] / 2 + 0.1]) * 255).astype(np.uint8))  # rasterio marks the fourth as alpha


def with_and_without_alpha(file, picture):
    values = (picture * 255).astype(np.uint8)
    raster(file.with_suffix(".tif"), np.dstack([values, np.full_like(values[..., 0], 255)]) if file.stem == "0" else values)


@pytest.mark.parametrize("write", [eight_bands, planar, zstandard, jpeg_2000, webp, gif, holes, near_infrared, with_and_without_alpha])
@pytest.mark.parametrize("floats", [False, True])
def test_a_folder_of_pictures_is_read_as_objects(tmp_path, write, floats):
    (tmp_path / "images").mkdir(), (tmp_path / "masks").mkdir()
    for name in "01":
        picture, ids = scene(int(name))
        write(tmp_path / "images" / name, picture)
        if floats: tifffile.imwrite(tmp_path / "masks" / f"{name}.tif", ids.astype(np.float32))  # as ImageJ and TrackMate write them
        else: Image.fromarray(ids).save(tmp_path / "masks" / f"{name}.png")
    data = load_objects(tmp_path)
    for i in range(2):
        image, masks = data.read(i)
        grey, inside = image.float().mean(0).numpy(), masks[:].any(0).numpy()
        valid = grey > 0
        assert image.shape[0] == (8 if write is eight_bands else 3) and len(masks) == 3
        assert grey[inside].mean() - grey[~inside & valid].mean() > 100


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_turned_picture_is_the_same_on_every_way_in(tmp_path, turn):
    picture = (scene(0)[0] * 255).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = turn
    for ending, options in {"png": {}, "webp": {"lossless": True}, "tif": {}}.items():
        file = tmp_path / f"a.{ending}"
        Image.fromarray(picture).save(file, exif=exif, **options)
        with Image.open(file) as opened: ways = [image_array(file), image_array(file.read_bytes()), image_array(opened), image_array(opened.convert("RGB"))]
        mirrored = {2, 4, 5, 7}
        for way in ways: assert np.array_equal(way, ways[0]) and (way.shape[0] > way.shape[1]) == (turn > 4)
        assert sorted(ways[0].reshape(-1, 3).tolist()) == sorted(picture.reshape(-1, 3).tolist())
        back = np.rot90(ways[0], {1: 0, 2: 0, 3: 2, 4: 2, 5: 3, 6: 1, 7: 1, 8: 3}[turn])
        assert np.array_equal(back[:, ::-1] if turn in mirrored else back, picture)


WINDOWS = """
import resource, sys
import numpy as np
from sam_nb.datasets.pictures import Picture
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MiB
picture = Picture(sys.argv[1])
before = peak()
assert picture.size == (20000, 20000) and picture.channels == 3 and picture.crs == "EPSG:32633"
seen = [picture.read((x, y, x + 1024, y + 1024))[0].max() for y in range(0, 18000, 2048) for x in range(0, 18000, 2048)]
small = picture.thumbnail(512)
assert max(seen) == 255 and small.shape == (512, 512, 3) and picture.notes == ()
print(round(peak() - before))
"""


@pytest.mark.parametrize("options", [{"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "zstd"}, {"compress": "deflate"}, {}], ids=["tiles", "strips", "plain"])
def test_a_raster_of_20000_x_20000_pixels_is_read_in_windows(tmp_path, options):
    file = tmp_path / "large.tif"
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, 4e5, 0, -0.5, 5e6)}
    with rasterio.open(file, "w", driver="GTiff", width=20000, height=20000, count=3, dtype="uint16", sparse_ok=True, **place, **options) as out:
        part = np.random.default_rng(0).integers(200, 4000, (3, 512, 512)).astype(np.uint16)
        for y in range(0, 18000, 2048):
            for x in range(0, 18000, 2048): out.write(part, window=((y, y + 512), (x, x + 512)))
    run = subprocess.run([sys.executable, "-c", WINDOWS, str(file)], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 500, f"{run.stdout} MiB for a picture of 2,400 MB"
