"""Objects and class maps of a large picture in tiles, against answers in which no seam plays a part.

    python -m benchmarks.segment seams [--kinds known,prompts,everything,text,semantic] [--side 2048] [--overlaps 0.25,0.5] [--grid 16] [--save FILE.md]

A model with a square of 256 pixels cannot see 2,048 x 2,048 pixels at once at this scale, so "one piece" has to be made: a window of the model's size slides over
the picture in steps of half a tile, and of each window only the objects whose middle lies in its central quarter are taken (of a class map: the pixels of the
central quarter). Every object is then seen whole, near the middle, and nothing is joined; objects larger than half a tile are counted apart. A second such
reference, with the windows moved by a quarter of a tile, says how far the model disagrees with itself when a picture is moved: this is the ceiling.
`known` puts the true masks in the model's place (each tile sees what of each object lies inside it; disturbed: one in twenty pixels along
an outline are wrong, and one object in fifty is missed by a tile): there one piece is known, and what is measured is the joining alone.
"""
from __future__ import annotations

import argparse
import copy
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from pycocotools import mask as coco

from benchmarks.sartm import machine
from sam_nb.demo.engine import Scene, expose, find_place, random_stream
from sam_nb.masks import tile_windows
from sam_nb.segment.joining import Box, Found, join, tight_window, whole_rle
from sam_nb.segment.models import Segmenter, open_segmenter
from sam_nb.segment.tiles import tiled_labels, tiled_objects, tiles_of

TEXT = ["the red vehicle", "the white boat", "the blue house", "the round storage tank", "the white plane", "the yellow vehicle"]
NAMES = ["house", "ship", "vehicle", "storage tank", "plane", "court"]


# ---- a mosaic without grid lines ----------------------------------------------------------------------------------------------------------------------

def moved(thing: Any, scale: float, shift: np.ndarray) -> Any:
    "A thing of a scene at another place."
    def at(polygons: Any) -> list[np.ndarray]: return [np.asarray(p) * scale + shift for p in (polygons if isinstance(polygons, list) else list(polygons))]
    parts = [replace(p, polygons=at(p.polygons)) for p in thing.parts]
    return replace(thing, parts=parts, shadow=None if thing.shadow is None else at(thing.shadow if isinstance(thing.shadow, list) else [thing.shadow]))


def compose(place: str, cells: int, seed: int) -> Scene:
    "The objects of many scenes on one ground, in units of a cell; each scene lies up to a third of a cell away from its place."
    where = find_place(place)
    light = next(iter(where.lightings.values()))[1]
    scenes = [where.compose(random_stream(seed, place, k), light) for k in range(cells * cells)]
    rng, things = random_stream(seed, "places"), []
    for k, scene in enumerate(scenes):
        shift = np.array(divmod(k, cells))[::-1] + rng.uniform(-1 / 3, 1 / 3, 2)
        things += [moved(t, 1.0, shift) for t in scene.things if not t.stuff]
    ground = copy.deepcopy(next(t for t in scenes[0].things if t.stuff))
    ground.parts = ground.parts[:1]
    ground.parts[0].polygons = [np.array([(-1.0, -1), (cells + 1, -1), (cells + 1, cells + 1), (-1, cells + 1)])]
    return replace(scenes[0], things=[ground, *things])


def mosaic(place: str, side: int, seed: int = 0, tile: int = 256) -> tuple[np.ndarray, np.ndarray]:  # uint8 [side, side, 3], int32 [side, side]: 0 ground, 1.. objects
    "A picture of a composed scene, exposed cell by cell with a rim that is cut off."
    cells, rim = side // tile, 1 / 4
    scene = compose(place, cells, seed)
    rng = random_stream(seed, "texture")
    fine = rng.standard_normal((side + tile, side + tile)).astype(np.float32)
    coarse = cv2.resize(rng.standard_normal((6 * cells, 6 * cells)).astype(np.float32), (side + tile,) * 2, interpolation=cv2.INTER_CUBIC)
    picture, numbers = np.zeros((side, side, 3), np.uint8), np.zeros((side, side), np.int32)
    boxes = [np.concatenate([p for part in t.parts for p in part.polygons]) for t in scene.things]
    low, high = np.array([b.min(0) for b in boxes]), np.array([b.max(0) for b in boxes])
    wide = round(tile * (1 + 2 * rim))
    for y in range(cells):
        for x in range(cells):
            corner = np.array([x - rim, y - rim])
            near = ((high + 0.2 > corner) & (low - 0.2 < corner + 1 + 2 * rim)).all(1).nonzero()[0]
            top, left = y * tile, x * tile
            grain = tuple(noise[top:top + wide, left:left + wide] for noise in (fine, coarse))
            part = replace(scene, things=[moved(scene.things[k], 1 / (1 + 2 * rim), -corner / (1 + 2 * rim)) for k in near],
                           texture=lambda size, grain=grain: grain)
            expose(part, wide, random_stream(seed, "sensor", x, y), thermal=False)
            cut = slice(round(rim * tile), round(rim * tile) + tile)
            picture[top:top + tile, left:left + tile] = part.images["rgb"][cut, cut]
            numbers[top:top + tile, left:left + tile] = near[part.shown[cut, cut]]
    return picture, numbers


@dataclass
class Array:
    "An array as a picture that is read by windows."
    array: np.ndarray
    @property
    def size(self) -> tuple[int, int]: return self.array.shape[:2]
    @property
    def channels(self) -> int: return self.array.shape[2]
    def read(self, region: Box | None = None) -> tuple[np.ndarray, None]:
        x0, y0, x1, y1 = region
        return np.ascontiguousarray(self.array[y0:y1, x0:x1]), None


# ---- answers without seams ----------------------------------------------------------------------------------------------------------------------------

def centred(size: tuple[int, int], tile: int, offset: int) -> list[tuple[Box, Box]]:  # the window, and what of it counts
    "Windows in steps of half a tile, and the quarter in the middle of each; at the border all up to it."
    half, out = tile // 2, []
    for y in range(-offset, size[0], half):
        for x in range(-offset, size[1], half):
            core = max(x, 0), max(y, 0), min(x + half, size[1]), min(y + half, size[0])
            if core[2] <= core[0] or core[3] <= core[1]: continue
            left, top = (int(np.clip(c - tile // 4, 0, n - tile)) for c, n in ((x, size[1]), (y, size[0])))
            out.append(((left, top, left + tile, top + tile), core))
    return out


def reference_objects(segmenter: Segmenter, picture: Array, tile: int, offset: int) -> Found:
    "Objects by the window that has them in its middle."
    parts = []
    for (x0, y0, x1, y1), core in centred(picture.size, tile, offset):
        found = segmenter.objects(picture.read((x0, y0, x1, y1))[0]).moved(x0, y0)
        middle = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
        parts.append(found[((middle >= core[:2]) & (middle < core[2:])).all(1)])
    return Found.cat(parts)


def reference_labels(segmenter: Segmenter, picture: Array, tile: int, offset: int) -> np.ndarray:
    labels = np.zeros(picture.size, np.uint8)
    for (x0, y0, x1, y1), core in centred(picture.size, tile, offset):
        part = segmenter.scores(picture.read((x0, y0, x1, y1))[0]).argmax(0)
        labels[core[1]:core[3], core[0]:core[2]] = part[core[1] - y0:core[3] - y0, core[0] - x0:core[2] - x0]
    return labels


# ---- comparison ---------------------------------------------------------------------------------------------------------------------------------------

def found_in(a: Found, b: Found, size: tuple[int, int], at: float = 0.9) -> np.ndarray:  # bool [len(a)]
    "Which objects of a are in b too, with the same label."
    runs_a, runs_b = ([whole_rle(w, size) for w in f.masks] for f in (a, b))
    boxes, out = b.boxes, np.zeros(len(a), bool)
    for k, box in enumerate(a.boxes):
        near = ((boxes[:, :2] < box[2:]) & (boxes[:, 2:] > box[:2])).all(1) & (b.labels == a.labels[k])
        near = near.nonzero()[0]
        out[k] = len(near) > 0 and coco.iou([runs_a[k]], [runs_b[i] for i in near], [0] * len(near)).max() >= at
    return out


def seam_band(tiles: list[Box], size: tuple[int, int], near: int = 32) -> np.ndarray:  # bool [H, W]
    "Pixels near an edge of a tile that is no edge of the picture."
    band = np.zeros(size, bool)
    for x0, y0, x1, y1 in tiles:
        for x in (x0, x1):
            if 0 < x < size[1]: band[y0:y1, max(0, x - near):x + near] = True
        for y in (y0, y1):
            if 0 < y < size[0]: band[max(0, y - near):y + near, x0:x1] = True
    return band


def crossing(found: Found, tiles: list[Box], size: tuple[int, int]) -> np.ndarray:  # bool [N]
    "Objects that an edge of a tile goes through."
    lines = [{t[i] for t in tiles for i in (k, k + 2)} - {0, size[1 - k]} for k in (0, 1)]
    return np.array([any(b[k] < line < b[k + 2] for k in (0, 1) for line in lines[k]) for b in found.boxes], bool)


def shares(found: Found, reference: Found, tiles: list[Box], size: tuple[int, int], largest: int) -> dict[str, Any]:
    "Both ways; objects larger than half a tile are left out."
    small = [f[(f.boxes[:, 2:] - f.boxes[:, :2]).max(1, initial=0) <= largest] for f in (found, reference)]
    ahead, back = found_in(small[0], reference, size), found_in(small[1], found, size)
    cut = crossing(small[1], tiles, size)
    return {"objects": len(small[0]), "reference": len(small[1]), "found in tiles %": 100 * back.mean(), "of those on seams %": 100 * back[cut].mean(),
            "others %": 100 * back[~cut].mean() if (~cut).any() else float("nan"), "right of tiles' %": 100 * ahead.mean(),
            "larger": len(found) - len(small[0]), "found at IoU 0.5 %": 100 * found_in(small[1], found, size, 0.5).mean()}


# ---- a model that knows the truth -----------------------------------------------------------------------------------------------------------------------

def outline(mask: np.ndarray) -> np.ndarray:  # bool [h, w]
    "The pixels on both sides of an outline."
    plane, square = mask.astype(np.uint8), np.ones((3, 3), np.uint8)
    return cv2.dilate(plane, square) != cv2.erode(plane, square)


def known(numbers: np.ndarray, tile: int, overlap: float, noise: bool) -> dict[str, Any]:
    "Joining alone: true masks cut by the tiles."
    class Numbers(Array):
        def read(self, region: Box | None = None) -> tuple[np.ndarray, None]:
            self.region = region
            return super().read(region)

    picture = Numbers(numbers[..., None])

    class Truth:
        task, classes, channels, side, by_class = "instances", (), 1, 256, True
        def objects(self, image: np.ndarray) -> Found:
            rng, masks = random_stream(0, *picture.region), []
            for k in np.unique(image[image > 0]):
                mask = image[..., 0] == k
                if noise and rng.random() < 0.02: continue
                if noise: mask = mask ^ (outline(mask) & (rng.random(mask.shape) < 0.05))
                if window := tight_window(mask): masks.append(window)
            return Found.of(masks)

    truth = Found.of([w for k in np.unique(numbers[numbers > 0]) if (w := tight_window(numbers == k))])
    truth = truth[truth.areas >= 64]
    found = tiled_objects(Truth(), picture, tile, overlap)
    tiles = tiles_of(picture.size, tile, tile, overlap)
    return {"what": f"known masks{', disturbed' if noise else ''}", "overlap": overlap, **shares(found, truth, tiles, picture.size, tile // 2)}


# ---- the table ------------------------------------------------------------------------------------------------------------------------------------------

def objects_rows(what: str, segmenter: Segmenter, picture: Array, overlaps: list[float], tile: int) -> list[dict[str, Any]]:
    reference = [reference_objects(segmenter, picture, tile, offset) for offset in (tile // 8, 3 * tile // 8)]
    def row(kind: Any, found: Found, overlap: float = 0.25, seconds: float = 0.0) -> dict[str, Any]:
        tiles = tiles_of(picture.size, tile, tile, overlap)
        print(out := {"what": what, "overlap": kind, **shares(found, reference[0], tiles, picture.size, tile // 2), "seconds": seconds}, flush=True)
        return out

    rows = [row("one piece, moved", reference[1])]
    for overlap in overlaps:
        start = time.perf_counter()
        found = tiled_objects(segmenter, picture, tile, overlap)
        rows.append(row(overlap, found, overlap, time.perf_counter() - start))
    tiles = [tuple(t) for t in tile_windows(picture.size, tile, overlaps[0]).tolist()]
    found = [segmenter.objects(picture.read(t)[0]).moved(*t[:2]) for t in tiles]
    return [*rows, row(f"{overlaps[0]}, tiles at any pixel", join(tiles, found, picture.size, by_class=segmenter.by_class))]


def prompts_rows(segmenter: Segmenter, picture: Array, numbers: np.ndarray, overlaps: list[float], tile: int) -> list[dict[str, Any]]:
    "The boxes of the true objects as prompts, in tiles and each in a window around it."
    boxes = Found.of([w for k in np.unique(numbers[numbers > 0]) if (w := tight_window(numbers == k))]).boxes
    boxes = boxes[((boxes[:, 2:] - boxes[:, :2]) <= tile // 2).all(1)].tolist()
    reference = []
    for offset in (0, tile // 4):
        rows = []
        for x0, y0, x1, y1 in boxes:
            left, top = (int(np.clip(((a + b) // 2 - tile // 2) // (tile // 8) * (tile // 8) + offset, 0, n - tile)) for a, b, n in ((x0, x1, picture.size[1]), (y0, y1, picture.size[0])))
            prompt = {"box": (x0 - left, y0 - top, x1 - left, y1 - top)}
            rows.append(segmenter.objects(picture.read((left, top, left + tile, top + tile))[0], [prompt]).moved(left, top))
        reference.append(Found.cat(rows))
    every = {"one piece, moved": reference[1], **{o: tiled_objects(segmenter, picture, tile, o, [{"box": tuple(b)} for b in boxes]) for o in overlaps}}
    rows = []
    for kind, found in every.items():
        tiles = tiles_of(picture.size, tile, tile, kind if isinstance(kind, float) else 0.25)
        rows.append({"what": "boxes, tiny_sam2", "overlap": kind, **shares(found, reference[0], tiles, picture.size, tile)})
        print(rows[-1], flush=True)
    return rows


def labels_rows(segmenter: Segmenter, picture: Array, overlaps: list[float], tile: int) -> list[dict[str, Any]]:
    reference = [reference_labels(segmenter, picture, tile, offset) for offset in (tile // 8, 3 * tile // 8)]
    rows = []
    for overlap in [None, *overlaps]:
        labels = reference[1] if overlap is None else np.zeros(picture.size, np.uint8)
        def write(window: Box, part: np.ndarray, valid: Any, labels: np.ndarray = labels) -> None:
            labels[window[1]:window[3], window[0]:window[2]] = part
        if overlap is not None: tiled_labels(segmenter, picture, tile, overlap, write)
        band = seam_band(tiles_of(picture.size, tile, tile, overlap or 0.25), picture.size)
        other, thing = labels != reference[0], (labels > 0) | (reference[0] > 0)
        rows.append({"what": "class map", "overlap": overlap or "one piece, moved", "other within 32 of a seam %": 100 * other[band].mean(),
                     "elsewhere %": 100 * other[~band].mean() if (~band).any() else float("nan"), "of the pixels with a class %": 100 * other.sum() / thing.sum()})
        print(rows[-1], flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    return lines + ["| " + " | ".join(f"{v:.1f}" if isinstance(v, float) and k != "overlap" else str(v) for k, v in r.items()) + " |" for r in rows]


def seams(chosen: argparse.Namespace) -> str:
    overlaps, kinds, tile = [float(o) for o in chosen.overlaps.split(",")], chosen.kinds.split(","), 256
    out: list[str] = []
    if "known" in kinds:
        rows = [known(mosaic(place, chosen.side)[1], tile, overlap, noise) for place in ("things", "aerial") for noise in (False, True) for overlap in overlaps]
        out += [*table(rows), ""]
    if {"everything", "prompts"} & set(kinds): pixels, numbers = mosaic("things", chosen.side)
    if "prompts" in kinds:
        segmenter = open_segmenter("tiny_sam2", prompts=True, device=chosen.device)
        out += [*table(prompts_rows(segmenter, Array(pixels), numbers, overlaps, tile)), ""]
    if "everything" in kinds:
        picture, segmenter = Array(pixels), open_segmenter("tiny_sam2", grid=chosen.grid, device=chosen.device)
        out += [*table(objects_rows("everything, tiny_sam2", segmenter, picture, overlaps, tile)), ""]
    if {"text", "semantic"} & set(kinds): picture = Array(mosaic("aerial", chosen.side)[0])
    if "text" in kinds:
        segmenter = open_segmenter("tiny_rsam", text=TEXT, device=chosen.device)
        out += [*table(objects_rows("text, tiny_rsam", segmenter, picture, overlaps, tile)), ""]
    if "semantic" in kinds:
        segmenter = open_segmenter("tiny_remotesam", text=NAMES, task="semantic", device=chosen.device)
        out += [*table(labels_rows(segmenter, picture, overlaps, segmenter.side)), ""]
    return "\n".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["seams"]); parser.add_argument("--kinds", default="known,prompts,everything,text,semantic")
    parser.add_argument("--side", type=int, default=2048); parser.add_argument("--overlaps", default="0.25,0.5"); parser.add_argument("--grid", type=int, default=16)
    parser.add_argument("--device", default="cpu"); parser.add_argument("--threads", type=int, default=1); parser.add_argument("--save", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    start = time.perf_counter()
    text = seams(chosen)
    words = f"--kinds {chosen.kinds} --side {chosen.side} --overlaps {chosen.overlaps} --grid {chosen.grid}"
    text = "\n".join([f"`python -m benchmarks.segment seams {words}`, {time.perf_counter() - start:.0f} s", "",
                      machine(argparse.Namespace(device=chosen.device, compile=False, precision="fp32")), "", text])
    print(text)
    if chosen.save: chosen.save.write_text(text)


if __name__ == "__main__":
    main()
