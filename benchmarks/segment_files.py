"""`sam_nb segment` on a folder against the model alone, and its peak memory on a 20,000 x 20,000 GeoTIFF.

    python -m benchmarks.segment_files speed [--pictures 200] [--side 512] [--tile 512] [--grid 16] [--rounds 3] [--workers 2] [--to coco]
    python -m benchmarks.segment_files memory [--side 20000] [--tile 2048] [--grid 4]

speed: the same pictures, the same opened model. "model alone" hands arrays that are in memory to `tiled_objects`; "end to end" is `segment_folder`: reading PNG files,
segmenting, and writing results, formats and the contact sheet. In turns, each round with a new OUT; the model is opened before.
memory: a tiled, compressed GeoTIFF of demo scenes is generated block by block; a process of its own segments it and reports its peak resident memory.
"""
from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.sartm import machine


def scenes(count: int, side: int) -> list[np.ndarray]:  # uint8 [side, side, 3]
    "Aerial scenes of the demo world; every further eighth is one of the first, mirrored or turned."
    from sam_nb.demo.engine import render
    first = [render("aerial", 3, i, side).images["rgb"] for i in range(min(count, max(8, count // 8)))]
    turns = [lambda a: a, np.fliplr, np.flipud, np.rot90, lambda a: np.rot90(a, 2), lambda a: np.rot90(a, 3), lambda a: a.swapaxes(0, 1), lambda a: np.rot90(a).swapaxes(0, 1)]
    return [np.ascontiguousarray(turns[i // len(first) % 8](first[i % len(first)])) for i in range(count)]


def speed(pictures: int, side: int, tile: int, grid: int, rounds: int, workers: int, to: str) -> None:
    from PIL import Image

    from sam_nb.segment.models import open_segmenter
    from sam_nb.segment.run import segment_folder
    from sam_nb.segment.tiles import tiled_objects

    class Held:
        def __init__(self, pixels: np.ndarray): self.pixels, self.size, self.channels = pixels, pixels.shape[:2], 3
        def read(self, region=None):
            x0, y0, x1, y1 = region or (0, 0, *self.size[::-1])
            return self.pixels[y0:y1, x0:x1], None

    place, arrays = Path(tempfile.mkdtemp()), scenes(pictures, side)
    (place / "pictures").mkdir()
    for i, a in enumerate(arrays): Image.fromarray(a).save(place / f"pictures/{i:05}.png")
    segmenter = open_segmenter("tiny_sam2", grid=grid)
    for a in arrays[:3]: tiled_objects(segmenter, Held(a), tile)
    seconds: dict[str, list[float]] = {"model alone": [], "end to end": []}
    cpu: dict[str, list[float]] = {"model alone": [], "end to end": []}
    objects: dict[str, int] = {}
    for k in range(rounds):
        started, busy, objects["model alone"] = time.perf_counter(), time.process_time(), 0
        for a in arrays: objects["model alone"] += len(tiled_objects(segmenter, Held(a), tile))
        seconds["model alone"].append(time.perf_counter() - started)
        cpu["model alone"].append(time.process_time() - busy)
        started, busy = time.perf_counter(), time.process_time()
        summary = segment_folder(segmenter, place / "pictures", place / f"out{k}", to=to, tile=tile, workers=workers, progress=False)
        seconds["end to end"].append(time.perf_counter() - started)
        cpu["end to end"].append(time.process_time() - busy)
        objects["end to end"] = sum(summary.counts.values())
        print(f"round {k + 1}: {compared(seconds, k)}; processor time: {compared(cpu, k)}", flush=True)
    assert objects["model alone"] == objects["end to end"], objects
    middle, busy = ({name: [statistics.median(s)] for name, s in both.items()} for both in (seconds, cpu))
    print(f"{pictures} pictures of {side} x {side}, tiny_sam2, tiles of {tile}, grid {grid}, {objects['end to end']} objects, to {to}, {workers} workers, medians "
          f"of {rounds}: {compared(middle)}; processor time: {compared(busy)}")


def compared(seconds: dict[str, list[float]], k: int = 0) -> str:
    alone, whole = seconds["model alone"][k], seconds["end to end"][k]
    return f"model alone {alone:.1f} s, end to end {whole:.1f} s, ratio {whole / alone:.3f}"


def large_file(path: Path, side: int) -> None:
    "A GeoTIFF of demo scenes, block by block."
    import rasterio
    from rasterio.windows import Window
    tiles = scenes(8, 1024)
    options = {"driver": "GTiff", "height": side, "width": side, "count": 3, "dtype": "uint8", "crs": "EPSG:32633", "photometric": "rgb", "interleave": "pixel",
               "transform": rasterio.Affine(0.1, 0, 400_000, 0, -0.1, 5_800_000), "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate",
               "zlevel": 1, "BIGTIFF": "YES"}
    with rasterio.open(path, "w", **options) as out:
        for i, y in enumerate(range(0, side, 1024)):
            for k, x in enumerate(range(0, side, 1024)):
                h, w = min(1024, side - y), min(1024, side - x)
                out.write(tiles[(5 * i + k) % 8][:h, :w].transpose(2, 0, 1), window=Window(x, y, w, h))


PEAK = "next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM'))"  # kB; ru_maxrss would count the parent's
CHILD = f"""
import json, sys
from sam_nb.segment.run import segment_folder
picture, out, tile, grid, to = sys.argv[1:]
s = segment_folder("tiny_sam2", picture, out, to=to, tile=int(tile), grid=int(grid), progress=True)
print(json.dumps(dict(objects=sum(s.counts.values()), seconds=s.seconds, peak={PEAK})))
"""


def memory(side: int, tile: int, grid: int) -> None:
    place, to = Path(tempfile.mkdtemp()), "coco,labels,instances,geojson"
    large_file(place / "large.tif", side)
    said = subprocess.run([sys.executable, "-c", CHILD, str(place / "large.tif"), str(place / "out"), str(tile), str(grid), to], stdout=subprocess.PIPE, text=True, check=True).stdout
    found = json.loads(said.splitlines()[-1])
    size = (place / "large.tif").stat().st_size / 2**30
    print(f"{side} x {side} GeoTIFF ({size:.2f} GiB on disk, {3 * side * side / 2**30:.2f} GiB of pixels), tiles of {tile}, tiny_sam2, grid {grid}, to {to}: "
          f"{found['objects']} objects in {found['seconds']:.0f} s, peak memory {found['peak'] / 2**20:.2f} GiB (the imports alone: {imports():.2f} GiB)")


def imports() -> float:  # GiB
    code = f"import sam_nb.segment.run, rasterio; print({PEAK})"
    return int(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "memory"])
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--side", type=int)
    parser.add_argument("--grid", type=int)
    parser.add_argument("--tile", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--to", default="coco", help="formats of speed (default: coco, as the command's)")
    o = parser.parse_args()
    print(machine(argparse.Namespace(device="cpu", precision="fp32", compile=False)))
    if o.what == "speed": speed(o.pictures, o.side or 512, o.tile or 512, o.grid or 16, o.rounds, o.workers, o.to)
    else: memory(o.side or 20_000, o.tile or 2048, o.grid or 4)


if __name__ == "__main__": main()
