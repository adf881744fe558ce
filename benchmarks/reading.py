"""Reading pictures: `read_image` against the bare decoders, in turns.

    OMP_NUM_THREADS=1 python -m benchmarks.reading [--side 512] [--rounds 60]

The picture is nbs/images/aerial.png, in every format; milliseconds are the least of all rounds. `before` is what
read_image did for JPEG and PNG until it asked for orientation, bands and size first: np.fromfile, cv2.imdecode, RGB order.
"""
from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import rasterio
from PIL import Image

from sam_nb.datasets.pictures import Picture, read_image

ROOT = Path(__file__).resolve().parents[1]


def before(file: Path) -> np.ndarray:
    pixels = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR if file.suffix == ".jpg" else cv2.IMREAD_UNCHANGED)
    if file.suffix == ".jpg": return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    if pixels.ndim == 2: return pixels[..., None].repeat(3, -1)
    pixels = np.concatenate([pixels[..., 2::-1], pixels[..., 3:]], -1)
    return np.ascontiguousarray(pixels[..., :3])


def by_pillow(file: Path) -> np.ndarray:
    with Image.open(file) as image: return np.asarray(image.convert("RGB"))


def by_gdal(file: Path) -> np.ndarray:
    with rasterio.open(file) as raster: return np.ascontiguousarray(np.moveaxis(raster.read(), 0, -1))


WAYS: dict[str, Callable[[Path], object]] = {"before": before, "read_image": read_image, "Pillow": by_pillow, "GDAL": by_gdal, "notes": lambda f: Picture(f).notes}


def least(ways: dict[str, Callable[[Path], object]], file: Path, rounds: int) -> dict[str, float]:  # milliseconds
    "The least time of every way, which take turns; not a number where a way cannot read the file."
    found = {}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            try: way(file)
            except Exception: found[name] = float("nan"); continue  # noqa: BLE001 - whatever a decoder raises
            found[name] = min(found.get(name, 1e9), 1000 * (time.perf_counter() - start))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(0)
    colour = Image.open(ROOT / "nbs/images/aerial.png").convert("RGB").resize((options.side, options.side), Image.Resampling.BICUBIC)
    with tempfile.TemporaryDirectory() as folder:
        kinds = {"jpg": colour, "png": colour, "grey.png": colour.convert("L"), "rgba.png": colour.convert("RGBA"), "tif": colour, "webp": colour,
                 "jp2": colour, "gif": colour.quantize(256), "bmp": colour, "avif": colour}
        print(f"{'ms':9}" + "".join(f"{name:>11}" for name in WAYS) + f"{'ratio':>8}")
        for ending, image in kinds.items():
            file = Path(folder) / f"picture.{ending}"
            image.save(file)
            times = least(WAYS, file, options.rounds)
            print(f"{ending:9}" + "".join(f"{times[name]:11.2f}" for name in WAYS) + f"{times['read_image'] / times['before']:8.2f}")


if __name__ == "__main__": main()
