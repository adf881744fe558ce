"""What must hold for every mask, box, tile, size and prompt: a thousand drawn examples a property, the smallest failing one is printed."""
from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from PIL import Image, ImageOps
from pycocotools import mask as coco

from sam_nb.boxes import MaskBoxes, boxes_of_mask, boxes_to_quads, outer_boxes, quad_iou, quads_to_boxes, suppress
from sam_nb.datasets import mask_outlines
from sam_nb.datasets.coco_segmentations import sound_segmentation, sound_strings
from sam_nb.datasets.mask_outlines import coco_polygons, crop_of_runs, fill_rings, one_path, runs_of_crop
from sam_nb.datasets.object_masks import IdMap, MaskSet, ObjectTransform, RunLengths, _resize_mask
from sam_nb.datasets.objects import load_objects
from sam_nb.datasets.picture_files import stored_region, turned, turned_back, turned_transform
from sam_nb.datasets.polygons import crop_polygons
from sam_nb.datasets.transforms import PadTo, ResizeLongest, ResizeSquare, SegmentationAugment, fit_size, to_original
from sam_nb.datasets.turned_masks import Turned, shown_region
from sam_nb.datasets.writers import WRITERS, Labelled, _painted, _yolo_line, write_coco
from sam_nb.datasets.written_folder import Written, WrittenFolder
from sam_nb.datasets.yolo import draw_row
from sam_nb.masks import (
    box_iou,
    connected_components,
    mask_iou,
    mask_nms,
    mask_to_rle,
    masks_to_boxes,
    nms,
    rle_area,
    rle_to_mask,
    split_labels,
    stitch,
    tile_windows,
)
from sam_nb.prompts import Prompts, centre_points, correct_points, mask_boxes, noised_boxes, sample_points
from sam_nb.segment.joining import Found, enlarged, join, joined_window, tight_window, whole_rle
from sam_nb.segment.label_maps import _strips
from sam_nb.segment.models import Segmenter
from sam_nb.segment.results import Result, as_crop
from sam_nb.segment.tiles import _extent, _window_for, tiled_labels, tiled_objects, tiles_of

_FOLDER = tempfile.TemporaryDirectory(prefix="sam_nb_properties_")
set_hypothesis_home_dir(_FOLDER.name)  # nothing is stored in the checkout
many = settings(max_examples=1000, deadline=None, derandomize=True, database=None, suppress_health_check=[])
sides = st.integers(1, 12)
seeds = st.integers(0, 2**31)


def generator(seed: int) -> torch.Generator: return torch.Generator().manual_seed(seed)


@st.composite
def masks(draw, height=sides, width=sides, empty: bool = True) -> np.ndarray:  # bool [H, W]
    h, w = draw(height), draw(width)
    kind = draw(st.sampled_from(("any", "any", "any", "full", "pixel", "box", *(("empty",) if empty else ()))))
    if kind == "any": made = np.unpackbits(np.frombuffer(draw(st.binary(min_size=(h * w + 7) // 8, max_size=(h * w + 7) // 8)), np.uint8))[:h * w].reshape(h, w).astype(bool)
    else: made = np.full((h, w), kind == "full")
    if kind == "pixel": made[draw(st.integers(0, h - 1)), draw(st.integers(0, w - 1))] = True
    if kind == "box": made[draw(st.integers(0, h - 1)):, :draw(st.integers(1, w))] = True
    if not empty and not made.any(): made[0, 0] = True
    return made


@st.composite
def stacks(draw, most: int = 4, **options) -> np.ndarray:  # bool [N, H, W]
    h, w = draw(sides), draw(sides)
    return np.stack([draw(masks(st.just(h), st.just(w), **options)) for _ in range(draw(st.integers(1, most)))])


def encoded(mask: np.ndarray) -> dict: return coco.encode(np.asfortranarray(mask.astype(np.uint8)))


# run lengths

@many
@given(stacks())
def test_run_lengths_are_those_of_pycocotools_and_decode_to_the_masks(planes):
    rles, runs = mask_to_rle(planes), mask_to_rle(planes, compress=False)
    for mask, rle, plain in zip(planes, rles, runs, strict=True):
        assert rle["counts"].encode() == encoded(mask)["counts"] and rle["size"] == list(mask.shape) == plain["size"]
        columns = [(k, len([*g])) for k, g in itertools.groupby(mask.T.ravel().tolist())]  # COCO counts column by column, background first
        assert plain["counts"] == [0] * columns[0][0] + [n for _, n in columns]
    assert (rle_to_mask(rles).numpy() == planes).all() and (rle_to_mask(runs).numpy() == planes).all()
    assert rle_area(rles).tolist() == rle_area(runs).tolist() == planes.sum((1, 2)).tolist()


@many
@given(stacks())
def test_measures_of_run_lengths_are_those_of_the_pixels(planes):
    source = RunLengths(mask_to_rle(planes), planes.shape[1:])
    areas, boxes = source.measure()
    assert areas.tolist() == planes.sum((1, 2)).tolist() and (source.planes(range(len(planes))) == planes).all()
    assert boxes.tolist() == masks_to_boxes(torch.from_numpy(planes)).tolist()
    for mask, box in zip(planes, boxes.tolist(), strict=True):
        ys, xs = mask.nonzero()
        assert box == ([xs.min(), ys.min(), xs.max(), ys.max()] if len(xs) else [0, 0, 0, 0])


@many
@given(masks(), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.booleans())
def test_a_crop_of_run_lengths_and_back(mask, left, top, right, bottom, large):
    whole, small = encoded(np.pad(mask, ((top, bottom), (left, right)))), mask_outlines._SMALL
    try:
        mask_outlines._SMALL = 0 if large else small  # a large picture is not decoded
        x, y, crop = crop_of_runs(whole)
    finally: mask_outlines._SMALL = small
    assert crop.sum() == mask.sum() and (not crop.size or crop.any(1)[[0, -1]].all() and crop.any(0)[[0, -1]].all())
    assert runs_of_crop(x, y, crop, whole["size"])["counts"] == whole["counts"]


@many
@given(masks(empty=False), st.integers(0, 60000), st.integers(0, 60000), st.integers(0, 40), st.integers(0, 40), st.integers(1, 5))
def test_objects_of_huge_pictures(mask, x, y, right, below, factor):
    "Windows in pictures of up to 60,000 pixels a side, which are never decoded."
    size = (y + mask.shape[0] + below, x + mask.shape[1] + right)
    rle = whole_rle(tight_window(mask, x, y), size)
    ys, xs = mask.nonzero()
    assert rle_area([rle]).item() == mask.sum() and rle["size"] == list(size)
    runs = np.array(coco.toBbox(rle), np.int64).tolist()
    assert runs == [x + xs.min(), y + ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
    left, top, crop = crop_of_runs({**rle, "counts": rle["counts"].encode()})
    assert (left, top) == (runs[0], runs[1]) and (crop == mask[ys.min():ys.max() + 1, xs.min():xs.max() + 1]).all()
    assert sound_strings([rle["counts"]], [size[0] * size[1]]).all() and not sound_strings([rle["counts"]], [size[0] * size[1] + 1]).any()
    large = enlarged(tight_window(mask), factor)
    assert (large.paste((mask.shape[0] * factor, mask.shape[1] * factor)) == mask.repeat(factor, 0).repeat(factor, 1)).all()


@many
@given(stacks(), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=4, max_size=4))
def test_joined_windows_are_the_union(planes, places):
    canvas = np.zeros((24, 24), bool)
    parts = [(m, x, y) for m, (x, y) in zip(planes, places)]
    for m, x, y in parts: canvas[y:y + m.shape[0], x:x + m.shape[1]] |= m
    window = joined_window(parts)
    assert (window is None) == (not canvas.any())
    if window:
        assert (window.paste(canvas.shape) == canvas).all() and window == tight_window(canvas)
        assert whole_rle(window, canvas.shape)["counts"].encode() == encoded(canvas)["counts"]
        assert coco.merge([encoded(np.pad(m, ((y, 24 - y - m.shape[0]), (x, 24 - x - m.shape[1])))) for m, x, y in parts])["counts"] == encoded(canvas)["counts"]


@many
@given(stacks(), seeds)
def test_overlaps_are_those_of_pycocotools(planes, seed):
    others = planes[np.random.default_rng(seed).permutation(len(planes))]
    found = mask_iou(torch.from_numpy(planes), torch.from_numpy(others))
    a, b = [encoded(m) for m in planes], [encoded(m) for m in others]
    assert torch.allclose(found, torch.from_numpy(np.nan_to_num(coco.iou(a, b, [0] * len(b)))).float())
    assert torch.equal(found, mask_iou(torch.from_numpy(others), torch.from_numpy(planes)).T)


@many
@given(masks(), st.sampled_from((4, 8)))
def test_connected_components_are_a_partition(mask, connectivity):
    labels, boxes, areas = connected_components(mask, connectivity)
    assert ((labels.numpy() > 0) == mask).all() and areas.tolist() == np.bincount(labels.numpy().ravel(), minlength=len(areas) + 1)[1:].tolist()
    pieces, ids = split_labels(torch.from_numpy(mask.astype(np.uint8)), connected=True)
    assert (pieces.sum(0) == torch.from_numpy(mask)).all() and (ids == 1).all()
    assert len(pieces) == len(connected_components(mask)[1]) and masks_to_boxes(pieces).tolist() == connected_components(mask)[1].tolist()


@many
@given(st.integers(1, 9), st.integers(1, 9), st.binary(min_size=81, max_size=81))
def test_masks_of_a_map_of_numbers(h, w, values):
    ids = np.frombuffer(values, np.uint8)[:h * w].reshape(h, w) % 5
    found = IdMap(ids, [3, 1, 9, 2])
    planes, (areas, boxes) = found.planes(range(4)), found.measure()
    assert all((planes[k] == (ids == v)).all() for k, v in enumerate([3, 1, 9, 2])) and areas.tolist() == planes.sum((1, 2)).tolist()
    assert boxes.tolist() == masks_to_boxes(torch.from_numpy(planes)).tolist()
    split, numbers = split_labels(torch.from_numpy(ids))
    assert (sum(m.int() * i for m, i in zip(split, numbers)) == torch.from_numpy(ids.astype(np.int32))).all() if len(split) else not ids.any()


# outlines

@many
@given(masks(empty=False))
def test_outlines_fill_to_the_mask(mask):
    crop = np.ascontiguousarray(mask[mask.any(1).argmax():, mask.any(0).argmax():].astype(np.uint8))
    if polygons := coco_polygons(3, 2, crop):
        filled = coco.decode(coco.merge(coco.frPyObjects(polygons, crop.shape[0] + 4, crop.shape[1] + 4)))
        assert (filled == np.pad(crop, ((2, 2), (3, 1)))).all()
    assert not (crop & ~fill_rings([one_path(crop)], crop.shape) & 1).any()  # one path may add a line, and loses nothing


@many
@given(masks(empty=False), st.integers(0, 300), st.integers(0, 300), st.integers(0, 30), st.integers(0, 30))
def test_normalised_outlines_of_yolo(mask, left, top, right, bottom):
    "A row between 0 and 1 is drawn to the mask, but for the pixels that were counted as added."
    whole = np.pad(mask, ((top, bottom), (left, right)))
    made = WrittenFolder(Written("YOLO", Path()), Path(), ["a"], False)
    x, y, crop = draw_row(_yolo_line(made, encoded(whole), 0), whole.shape)
    found = np.zeros_like(whole)
    found[y:y + crop.shape[0], x:x + crop.shape[1]] = crop
    assert (found & whole == whole).all() and (found & ~whole).sum() == made.lost["pixels that these lines add"]


@st.composite
def polygons(draw) -> list[float]:
    n = draw(st.integers(3, 7))
    return [float(v) for v in draw(st.lists(st.integers(0, 80).map(lambda v: v / 4), min_size=2 * n, max_size=2 * n))]


@many
@given(polygons())
def test_a_polygon_in_each_way_of_writing_is_one_mask(flat):
    pairs = [[x, y] for x, y in zip(flat[::2], flat[1::2])]
    size, wanted = (20, 20), coco.decode(coco.merge(coco.frPyObjects([flat], 20, 20)))
    assume(min(max(flat[::2]), max(flat[1::2])) > 0 and max(flat) > 1)
    for written in ([flat], flat, pairs, [pairs], [{"x": x, "y": y} for x, y in pairs]):
        kept, wrong = sound_segmentation(written, size)
        assert not wrong and (RunLengths([kept], size).planes([0])[0] == wanted).all()


@many
@given(st.lists(polygons(), min_size=1, max_size=4), st.integers(1, 200))
def test_small_areas_without_drawing_the_large_ones(shapes, pixels):
    found = RunLengths([[p] for p in shapes], (20, 20))
    assert sorted(found.areas_below(pixels).tolist()) == sorted(a for a in found.measure()[0].tolist() if a < pixels)


@many
@given(polygons(), st.integers(1, 19), st.integers(1, 19))
def test_the_parts_of_a_cut_polygon_have_its_area(flat, x, y):
    import shapely
    points = np.array(flat).reshape(-1, 2)
    whole = shapely.make_valid(shapely.Polygon(points), method="structure", keep_collapsed=False).area
    windows = [(0, 0, y, x), (0, x, y, 20 - x), (y, 0, 20 - y, x), (y, x, 20 - y, 20 - x)]
    parts = [p for w in windows for p in crop_polygons([points], w)]
    assert abs(sum(shapely.Polygon(p).area for p in parts) - whole) < 1e-6


# boxes

coordinates = st.integers(0, 20)
rectangles = st.lists(st.tuples(coordinates, coordinates, st.integers(1, 9), st.integers(1, 9)).map(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]), min_size=1, max_size=6)


@many
@given(rectangles, rectangles)
def test_box_overlap_is_symmetric_and_that_of_the_pixels(a, b):
    p, q = torch.tensor(a), torch.tensor(b)
    found = box_iou(p, q)
    assert torch.equal(found, box_iou(q, p).T) and torch.equal(box_iou(p, p).diag(), torch.ones(len(p)))
    drawn = _drawn(a), _drawn(b)
    assert torch.allclose(found, mask_iou(*drawn)) and torch.allclose(box_iou(masks_to_boxes(drawn[0]), masks_to_boxes(drawn[1]), inclusive=True), found)
    quads = boxes_to_quads(p), boxes_to_quads(q)
    assert torch.equal(quads_to_boxes(quads[0]), p) and torch.allclose(quad_iou(*quads).float(), found, atol=1e-5)


@many
@given(rectangles, rectangles, st.floats(-3.2, 3.2))
def test_overlap_of_turned_boxes(a, b, angle):
    turn = torch.tensor([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]], dtype=torch.float32)
    p, q = ((boxes_to_quads(torch.tensor(r)).float().view(-1, 4, 2) @ turn).reshape(-1, 8) for r in (a, b))
    assert torch.allclose(quad_iou(p, q).float(), box_iou(torch.tensor(a), torch.tensor(b)), atol=1e-3)
    assert torch.allclose(quad_iou(p, q), quad_iou(q, p).T, atol=1e-4)
    around = quads_to_boxes(p)
    corners = p.view(-1, 4, 2)
    assert (corners >= around[:, None, :2]).all() and (corners <= around[:, None, 2:]).all()


@many
@given(masks(), st.booleans())
def test_boxes_enclose_their_components(mask, oriented):
    tensor = torch.from_numpy(mask)
    found = boxes_of_mask(tensor, torch.ones(mask.shape), oriented=oriented, inner=True)
    labels, boxes, _ = connected_components(mask)
    assert len(found) == len(boxes)
    for number, corners in enumerate(found.corners.numpy(), 1):
        ys, xs = (labels.numpy() == number).nonzero()
        if not oriented: assert corners.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]; continue
        pixels = np.stack([xs, ys], 1)[:, None] + np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
        quad = corners.reshape(4, 1, 2).astype(np.float32)
        assert all(cv2.pointPolygonTest(quad, (float(x), float(y)), True) > -1e-2 for x, y in pixels.reshape(-1, 2))


def _drawn(rows: list[list[int]]) -> torch.Tensor:  # bool [N, 40, 40]
    out = torch.zeros(len(rows), 40, 40, dtype=torch.bool)
    for plane, (x0, y0, x1, y1) in zip(out, rows): plane[y0:y1, x0:x1] = True
    return out


@many
@given(rectangles, seeds, st.sampled_from((0.0, 0.31, 0.51, 0.91)))
def test_suppression_keeps_what_no_better_one_overlaps(rows, seed, threshold):
    boxes, scores = torch.tensor(rows), torch.rand(len(rows), generator=generator(seed), dtype=torch.float64)
    overlap, value = box_iou(boxes, boxes).tolist(), scores.tolist()
    kept = nms(boxes, scores, threshold).tolist()
    assert kept == mask_nms(_drawn(rows), scores, threshold).tolist() and kept == sorted(kept, key=lambda k: -value[k])
    quads = suppress(MaskBoxes(boxes_to_quads(boxes), scores), threshold)
    assert quads.scores.tolist() == [value[k] for k in kept]
    for k in range(len(rows)): assert (k in kept) != any(value[j] > value[k] and overlap[j][k] > threshold for j in kept if j != k)


@many
@given(rectangles, seeds)
def test_outer_boxes_lie_in_no_other(rows, seed):
    "What is dropped lies in another box, but for a pixel at its far end."
    kept = outer_boxes(torch.tensor(rows), torch.rand(len(rows), generator=generator(seed), dtype=torch.float64)).tolist()
    def within(a, b, more=0): return a[0] >= b[0] and a[1] >= b[1] and a[2] <= b[2] + more and a[3] <= b[3] + more
    assert kept and all(k in kept or any(within(r, o, 1) for j, o in enumerate(rows) if j != k) for k, r in enumerate(rows))
    assert not any(within(rows[j], rows[k]) for j in kept for k in kept if j != k)


@many
@given(stacks(empty=False), seeds, st.floats(0, 3), st.floats(0, 40))
def test_noised_boxes_stay_in_the_image(planes, seed, noise, most):
    boxes = noised_boxes(torch.from_numpy(planes), generator(seed), noise, most)
    h, w = planes.shape[1:]
    assert (boxes >= 0).all() and (boxes[:, [0, 2]] <= w - 1).all() and (boxes[:, [1, 3]] <= h - 1).all()
    assert (boxes[:, :2] <= boxes[:, 2:]).all() and ((boxes - mask_boxes(torch.from_numpy(planes))).abs() <= max(most, 0) + max(h, w)).all()


# tiles

@many
@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from((None, 0, 32, 40, 64, 100, 333)), st.floats(0.05, 0.75), st.booleans(), st.sampled_from((32, 48, 64)))
def test_tiles_cover_every_pixel(h, w, tile, overlap, is_map, side):
    tiles = np.array(tiles_of((h, w), side, tile, overlap, is_map))
    assert (tiles[:, :2] >= 0).all() and (tiles[:, 2:] <= [w, h]).all() and len({*map(tuple, tiles.tolist())}) == len(tiles)
    assert len({(x1 - x0, y1 - y0) for x0, y0, x1, y1 in tiles.tolist()}) == 1
    for low, high, length in ((0, 2, w), (1, 3, h)):
        spans = sorted({(t[low], t[high]) for t in tiles.tolist()})
        assert spans[0][0] == 0 and spans[-1][1] == length
        shared = [a[1] - b[0] for a, b in zip(spans, spans[1:])]
        assert all(s >= overlap * (spans[0][1] - spans[0][0]) - 8 for s in shared) and all(s > 0 for s in shared)
    assert [tuple(t) for t in tiles.tolist()] == sorted(map(tuple, tiles.tolist()), key=lambda t: (t[1], t[0]))


@many
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 12), st.integers(1, 12), st.floats(0, 0.95), seeds)
def test_stitched_windows_are_the_picture(h, w, th, tw, overlap, seed):
    picture = torch.rand(2, h, w, generator=generator(seed), dtype=torch.float64)
    windows = tile_windows((h, w), (th, tw), overlap)
    tiles = torch.stack([picture[:, y0:y1, x0:x1] for x0, y0, x1, y1 in windows.tolist()])
    assert torch.allclose(stitch(tiles, windows, (h, w)), picture)


class Memory:
    "A picture in memory that is read window by window."
    def __init__(self, pixels: np.ndarray, valid: np.ndarray | None = None):
        self.pixels, self.valid, self.size, self.channels = pixels, valid, pixels.shape[:2], pixels.shape[2]

    def read(self, region=None):
        x0, y0, x1, y1 = region or (0, 0, self.size[1], self.size[0])
        return self.pixels[y0:y1, x0:x1], None if self.valid is None else self.valid[y0:y1, x0:x1]


@many
@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from((32, 40, 64)), st.floats(0.05, 0.75), st.integers(1, 6), seeds, st.booleans())
def test_a_class_map_of_tiles_is_that_of_the_whole(h, w, tile, overlap, classes, seed, holes):
    chance = np.random.default_rng(seed)
    pixels = chance.integers(0, 256, (h, w, 1), np.uint8)
    valid = chance.random((h, w)) > 0.3 if holes else None
    segmenter = Segmenter("semantic", tuple("abcdef"[:classes]), 1, 32, None,
                          lambda image, partners: np.stack([np.cos(image[..., 0] * (k + 1.0)) for k in range(classes)]).astype(np.float32))
    found, real = np.full((h, w), 99, np.uint8), np.ones((h, w), bool)
    def write(box, labels, inside):
        x0, y0, x1, y1 = box
        assert (found[y0:y1, x0:x1] == 99).all()
        found[y0:y1, x0:x1] = labels
        if inside is not None: real[y0:y1, x0:x1] = inside
    tiled_labels(segmenter, Memory(pixels, valid), tile, overlap, write)
    wanted = segmenter.scores(pixels)
    best, second = np.sort(wanted, 0)[-1], np.sort(wanted, 0)[-2] if classes > 1 else np.full((h, w), -9)
    clear = (best - second > 1e-4) & (True if valid is None else valid)
    assert (found[clear] == wanted.argmax(0)[clear]).all() and (valid is None or (real == valid).all())


@st.composite
def scenes(draw) -> np.ndarray:  # uint8 [H, W]: 0, or the number of a rectangle; they do not touch
    h, w = draw(st.integers(20, 120)), draw(st.integers(20, 120))
    ids = np.zeros((h, w), np.uint8)
    for number in range(1, draw(st.integers(0, 6)) + 1):
        y, x = draw(st.integers(0, h - 6)), draw(st.integers(0, w - 6))
        y1, x1 = min(h, y + draw(st.integers(5, 70))), min(w, x + draw(st.integers(5, 70)))
        if not ids[max(0, y - 1):y1 + 1, max(0, x - 1):x1 + 1].any(): ids[y:y1, x:x1] = number
    return ids


def _objects(image: np.ndarray) -> Found:
    numbers = [int(v) for v in np.unique(image[..., 0]) if v]
    return Found.of([tight_window(image[..., 0] == v) for v in numbers], labels=numbers)


@many
@given(scenes(), st.sampled_from((32, 40, 48)), st.floats(0.05, 0.5), seeds)
def test_objects_joined_over_the_seams_are_whole(ids, tile, overlap, seed):
    segmenter = Segmenter("instances", tuple(map(str, range(9))), 1, 32, None, _objects)
    whole = _objects(ids[..., None])
    found = tiled_objects(segmenter, Memory(ids[..., None]), tile, overlap)
    assert sorted(found.labels) == sorted(whole.labels)
    for window, label in zip(found.masks, found.labels.tolist()): assert (window.paste(ids.shape) == (ids == label)).all()
    tiles = tiles_of(ids.shape, 32, tile, overlap)  # the order of the tiles does not matter
    parts = [_objects(ids[y0:y1, x0:x1, None]).moved(x0, y0) for x0, y0, x1, y1 in tiles]
    order = np.random.default_rng(seed).permutation(len(tiles))
    again = join([tiles[i] for i in order], [parts[i] for i in order], ids.shape)
    assert again.labels.tolist() == found.labels.tolist() and again.masks == found.masks


@many
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from((32, 48)), st.floats(-20, 320), st.floats(-20, 320), st.floats(0, 150), st.floats(0, 150))
def test_a_prompt_gets_a_window_that_holds_it(h, w, tile, x, y, dx, dy):
    tiles = tiles_of((h, w), 32, tile)
    box = _extent({"box": (x, y, x + dx, y + dy)})
    window = _window_for(box, np.array(tiles), (h, w))
    outside = box[2] < 0 or box[3] < 0 or box[0] >= w or box[1] >= h
    assert (window is None) == outside
    if window:
        assert 0 <= window[0] < window[2] <= w and 0 <= window[1] < window[3] <= h
        assert window[0] <= max(box[0], 0) and window[1] <= max(box[1], 0) and window[2] >= min(box[2], w) and window[3] >= min(box[3], h)


# resize and back

@many
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 1100), st.integers(1, 1100), st.booleans())
def test_a_picture_fits_into_its_frame(h, w, frame_h, frame_w, enlarge):
    y, x = fit_size(h, w, (frame_h, frame_w), enlarge)
    factor = min(frame_h / h, frame_w / w)
    if factor >= 1 and not enlarge: assert (y, x) == (h, w); return
    assert 1 <= y <= frame_h and 1 <= x <= frame_w and (y == frame_h or x == frame_w)
    assert abs(y - h * factor) <= 0.5 + 1e-6 or y == 1
    assert abs(x - w * factor) <= 0.5 + 1e-6 or x == 1


@many
@given(masks(), st.integers(4, 24), st.sampled_from(("pad", "crop", "longest", "square")))
def test_resized_pictures_and_labels_agree_and_come_back(mask, side, how):
    transform = {"pad": PadTo(side, normalise=None), "crop": PadTo(side, "crop", None), "longest": ResizeLongest(side, None), "square": ResizeSquare(side, None)}[how]
    label = torch.from_numpy(mask.astype(np.uint8))
    sample = transform({"image": (255 * label)[None].repeat(3, 1, 1), "semantic": label, "content_size": mask.shape})
    (h, w), inside = sample["content_size"], sample["semantic"] != 255
    assert sample["image"].shape == (3, side, side) and inside[:h, :w].all() and inside.sum() == h * w and not sample["image"][:, ~inside].any()
    _agree(sample["image"][0, :h, :w], sample["semantic"][:h, :w])
    if how == "crop": assert torch.equal(sample["semantic"][:h, :w], label[:side, :side])
    back = to_original(sample["image"][:1].float(), sample["content_size"], mask.shape)
    assert back.shape == (1, *mask.shape)
    if (h, w) == mask.shape: assert torch.equal(back[0], 255.0 * label)
    elif mask.all() or not mask.any(): assert (back - 255 * int(mask.any())).abs().max() < 1e-3


def _agree(image: torch.Tensor, label: torch.Tensor) -> None:  # uint8 [h, w] each
    "Where a picture is 255 (0) in all neighbours, too, its label is 1 (0)."
    wide = image.numpy()
    assert not (label.numpy()[cv2.erode(wide, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE) == 255] == 0).any()
    assert not (label.numpy()[cv2.dilate(wide, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE) == 0] == 1).any()


@many
@given(masks(), sides, sides)
def test_resized_masks_do_not_depend_on_their_order_in_memory(mask, h, w):
    plane = mask.astype(np.uint8)
    small, again = _resize_mask(plane, (h, w)), _resize_mask(np.asfortranarray(plane), (h, w))
    halves = np.abs(cv2.resize(plane.astype(np.float64), (w, h), interpolation=cv2.INTER_AREA) - 0.5) < 1e-6  # rounded either way
    assert small.shape == (h, w) and small.max(initial=0) <= 1 and not ((small != again) & ~halves).any()
    if mask.all() or not mask.any(): assert (small == mask.any()).all()
    large = _resize_mask(plane, (3 * mask.shape[0], 3 * mask.shape[1]))
    assert (_resize_mask(large, mask.shape) == plane).all()


@many
@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from((64, 256, 1024)), st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_points_and_boxes_scaled_and_back(h, w, side, y, x, square):
    content = (side, side) if square else fit_size(h, w, (side, side), enlarge=True)
    point, box = [x * w, y * h], [0, 0, x * w, y * h]
    prompts = Prompts.from_boxes([box]).add([point])
    there = prompts.scaled((content[1] / w, content[0] / h))
    assert (there.points >= 0).all() and (there.points <= torch.tensor([content[1], content[0]]) * (1 + 1e-6)).all()
    assert torch.allclose(there.scaled((w / content[1], h / content[0])).points, prompts.points, rtol=1e-5) and there.has_box()


# prompts under augmentation

@many
@given(stacks(empty=False), seeds, st.sampled_from(("square", "longest")), st.integers(4, 24))
def test_masks_points_and_boxes_move_with_the_picture(planes, seed, frame, side):
    "Flipped, turned, cropped and scaled: a point on an object is on it in the picture, a box holds all of it."
    picture = torch.from_numpy(np.concatenate([planes[:1] * 255] * 3).astype(np.uint8))
    transform = ObjectTransform(side, frame, train=True, flip=0.5, turn=0.5, scale=(0.5, 2.0), jitter=0.0, min_area=1, normalise=None)
    sample = transform({"image": picture, "masks": MaskSet(RunLengths(mask_to_rle(planes), planes.shape[1:])), "name": "x"}, generator(seed))
    (h, w), found = sample["content_size"], sample["masks"]
    assert not found[:, h:].any() and not found[:, :, w:].any() and found.flatten(1).any(1).all()
    for k in (sample["object_index"] == 0).nonzero()[:, 0].tolist():
        image = sample["image"][0]
        _agree(image[:h, :w], found[k, :h, :w].byte())
        for x, y in torch.cat([sample_points(found[k:k + 1], generator(seed)), centre_points(found[k:k + 1])]).long().tolist(): assert found[k, y, x] and image[y, x]
    ys, xs = found.any(0).nonzero().unbind(1)
    boxes = mask_boxes(found)
    if len(xs): assert [boxes[:, 0].min(), boxes[:, 1].min(), boxes[:, 2].max(), boxes[:, 3].max()] == [xs.min(), ys.min(), xs.max(), ys.max()]


@many
@given(masks(st.integers(2, 16), st.integers(2, 16)), seeds, st.integers(4, 20), st.booleans())
def test_labels_move_with_the_picture(mask, seed, side, released):
    label = torch.from_numpy(mask.astype(np.uint8))
    augment = SegmentationAugment(side, jitter=0.0, blur=0.0, normalise=None, crop_off_by_one=released)
    sample = augment({"image": (255 * label)[None].repeat(3, 1, 1), "semantic": label}, generator(seed))
    h, w = sample["content_size"]
    assert (sample["semantic"][:h, :w] < 2).all() and (sample["semantic"] < 2).sum() == h * w
    if h * w or not released: _agree(sample["image"][0, :h, :w], sample["semantic"][:h, :w])  # off by one, as released, a crop may lie beside the picture


@many
@given(stacks(most=2), seeds, st.sampled_from(("random", "centre")))
def test_a_correcting_click_is_where_the_mask_is_wrong(planes, seed, where):
    predicted, truth = torch.from_numpy(planes[:1]), torch.from_numpy(planes[-1:])
    points, labels = correct_points(predicted, truth, generator(seed), where)
    x, y = points[0].long().tolist()
    if not torch.equal(predicted, truth): assert predicted[0, y, x] != truth[0, y, x] and labels.item() == truth[0, y, x]
    else: assert labels.item() == (1 if truth.any() else -1) and truth[0, y, x] == truth.any()


# orientations

@many
@given(st.integers(1, 8), masks(), coordinates, coordinates, coordinates, coordinates)
def test_turned_masks_and_regions_and_back(turn, mask, x0, y0, x1, y1):
    (h, w), shown = mask.shape, np.ascontiguousarray(turned(mask, turn))
    assert (turned_back(shown, turn) == mask).all()
    note = Image.Exif()
    note[0x112] = turn
    stored = Image.fromarray(mask.astype(np.uint8))
    stored.getexif().update(note)
    assert (np.asarray(ImageOps.exif_transpose(stored)).astype(bool) == shown).all()
    x0, x1, y0, y1 = *sorted((x0 % (w + 1), x1 % (w + 1))), *sorted((y0 % (h + 1), y1 % (h + 1)))
    region = shown_region((x0, y0, x1, y1), (h, w), turn)
    assert stored_region(region, (h, w), turn) == (x0, y0, x1, y1)
    a, b, c, d = region
    assert (shown[b:d, a:c] == turned(mask[y0:y1, x0:x1], turn)).all()
    found = Turned(RunLengths([mask_to_rle(mask)], (h, w)), turn)
    areas, boxes = found.measure()
    assert (found.planes([0])[0] == shown).all() and areas[0] == mask.sum() and boxes[0].tolist() == masks_to_boxes(torch.from_numpy(shown)).tolist()
    along = turned_transform((2.0, 0.0, 5.0, 0.0, -3.0, 7.0), (h, w), turn)  # the same place on the ground, by either transform
    sx, sy = x0 + 0.5, y0 + 0.5
    tx, ty = shown_region((sx, sy, sx, sy), (h, w), turn)[:2]
    assert np.allclose([2 * sx + 5, -3 * sy + 7], [along[0] * tx + along[1] * ty + along[2], along[3] * tx + along[4] * ty + along[5]])


# label maps, and data sets written and read

@many
@given(stacks(empty=False), st.integers(1, 5))
def test_label_maps_show_the_smaller_objects_on_top(planes, rows):
    wanted, order = np.zeros(planes.shape[1:], np.int64), sorted(range(len(planes)), key=lambda k: -planes[k].sum())
    for k in order: wanted[planes[k]] = k + 1
    result = Result("a", "a.png", planes.shape[1:], [as_crop(m) for m in planes])
    found = np.concatenate([values for _, values in _strips(result, np.arange(1, len(planes) + 1), 0, rows)])
    assert (found == wanted).all()
    made = WrittenFolder(Written("maps", Path()), Path(), ["a"], False)
    ids, drawn = _painted(made, Labelled("a", None, planes.shape[1:], [encoded(m) for m in planes], [0] * len(planes)), range(len(planes)), 255)
    assert drawn == [*range(len(planes))] and (ids == wanted).all()




def _picture(size: tuple[int, int]) -> str:
    file = Path(_FOLDER.name) / "pictures" / f"{size[0]}x{size[1]}.png"
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(file), np.full((*size, 3), 7, np.uint8))
    return str(file)


@st.composite
def labelled(draw, apart: bool = False, **options) -> Labelled:
    planes = draw(stacks(empty=False))
    if apart:
        planes &= np.cumsum(planes, 0) == 1
        planes = planes[planes.any((1, 2))]
    n = len(planes)
    return Labelled("a/b", _picture(planes.shape[1:]), planes.shape[1:], [encoded(m) for m in planes], draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)), **options)


@many
@given(labelled(), st.lists(st.booleans(), min_size=4, max_size=4), st.integers(-1, 3), st.sampled_from(("train", "val", "")))
def test_coco_written_and_read(picture, crowd, whole, split):
    n = len(picture.masks)
    picture.crowd, picture.split = crowd[:n], split
    picture.part_of = [whole if k and whole < k else -1 for k in range(n)]
    with tempfile.TemporaryDirectory(dir=_FOLDER.name) as folder:
        written = write_coco([picture], ["one", "two", "three"], Path(folder) / "out", copy="link")
        data = load_objects(Path(folder) / "out", "all", crowd=True)
        masks = data.masks(0)
        found = {(r["counts"], int(c), bool(g)) for r, c, g in zip(masks.rles(), masks.categories, masks.crowd)}
    assert written.objects == n and not written.lost and not written.failed and data.classes == ("one", "two", "three")
    groups = not all(picture.crowd)  # where all are marked as groups, they are read as objects; a mask that is there twice is one
    wanted = {(r["counts"], c, g and groups) for r, c, g in zip(picture.masks, picture.categories, picture.crowd)}
    assert found <= wanted and {f[:2] for f in found} == {w[:2] for w in wanted} and masks.size == tuple(picture.size)


@many
@given(labelled(apart=True), st.sampled_from(("yolo", "voc", "instance", "labelme")))
def test_other_formats_written_and_read(picture, to):
    with tempfile.TemporaryDirectory(dir=_FOLDER.name) as folder:
        written = WRITERS[to]([picture], ["one", "two", "three"], Path(folder) / "out", copy="link")
        kind, place = ("instance", Path(folder) / "out/SegmentationObject") if to == "voc" else (to, None)
        masks = load_objects(Path(folder) / "out", "all", kind=kind, annotations=place).masks(0)
        found, categories = masks.rles(), masks.categories.tolist()
    wanted, added = sorted(m["counts"] for m in picture.masks), written.lost.get("pixels that these lines add", 0)
    assert written.objects == len(wanted) == len(found) and masks.size == tuple(picture.size)
    if added: assert sum(map(coco.area, found)) == sum(map(coco.area, picture.masks)) + added
    else: assert sorted(r["counts"] for r in found) == wanted
    if to == "labelme": assert len({*categories}) == len({*picture.categories})
