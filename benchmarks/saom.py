"""What SAOM's fine-tuning gives on the demo rooms, what its cache gives, and what everything mode costs where it is large.

    python -m benchmarks.saom demo [--seeds 0,1,2] [--steps 300]   # part bias, whole objects, classes, before and after, by thresholds and grid
    python -m benchmarks.saom fast                                 # everything mode that leaves points out: time, agreement, objects found
    python -m benchmarks.saom cache                                # a training step with and without cached features (ViT-B)
    python -m benchmarks.saom steps                                # where everything mode spends its time, here and in segment-anything (ViT-B, input 512)
    python -m benchmarks.saom panorama                             # one column of a 320 x 64 grid on 4096 x 820 pixels (ViT-B, input 1024)

Each prints a table; `--save FILE.md` writes it too. One CPU thread unless `--threads` says otherwise.
"""
from __future__ import annotations

import argparse
import copy
import resource
import statistics
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.everything import THRESHOLDS, exchanged, public
from benchmarks.sartm import machine
from sam_nb.datasets.objects import collate_objects
from sam_nb.evaluation.clicks import chosen_objects
from sam_nb.evaluation.everything import evaluate_everything, match_objects, whole_object_scores
from sam_nb.evaluation.object_points import evaluate_points
from sam_nb.evaluation.rows import evenly_spaced
from sam_nb.heads.everything import Enlarger, Everything, EverythingOptions, _encode
from sam_nb.heads.point_decoder import PointDecoder
from sam_nb.heads.promptable import build_backbone
from sam_nb.masks import mask_iou
from sam_nb.methods.saom_job import JOB, everything_options, plain_transform
from sam_nb.training.loop import trainer_for
from sam_nb.training.runs import Run

THRESHOLDS_TRIED = {"predicted IoU > 0.5, stability >= 0.7": (0.5, 0.7, 0.7), "predicted IoU > 0.3, stability >= 0.7": (0.3, 0.7, 0.5), "all, stability >= 0.5": (0.0, 0.5, 0.9)}


# ---- demo: three seeds ------------------------------------------------------------------------------------------------------------------------------

def train(seed: int, steps: int):
    "The model before and after, the data, the recipe, seconds."
    recipe = JOB.check(dict(preset="demo", seed=seed, steps=steps, run_name=f"benchmark-saom-{seed}-{time.time_ns()}"))
    data = JOB.data(recipe)
    model, _ = JOB.build(recipe, data)
    before, run, start = copy.deepcopy(model), Run.create("saom", recipe), time.perf_counter()
    with run: transforms = JOB.transforms(model, recipe, data)
    trainer_for(JOB, model, recipe, run, data, transforms).fit()
    return before, model, data, recipe, time.perf_counter() - start


def scores(model, data, recipe, grids: tuple[int, ...], images: int) -> dict[tuple[str, str], float]:
    "Both protocols."
    points = evaluate_points(model, data, images=images, min_area=recipe.min_area)
    found = {("at the points", "mIoU"): points.scores["mIoU"], ("at the points", "a part was chosen"): points.tables["part bias"]["a part was chosen"]}
    options = {(name, grid): EverythingOptions(grid=grid, pred_iou_thresh=p, stability_score_thresh=s, box_nms_thresh=n, min_mask_region_area=recipe.min_mask_region_area)
               for grid in grids for name, (p, s, n) in THRESHOLDS_TRIED.items() if p or grid == grids[0]}
    whole = evaluate_everything(model, data, options, images=images, parts=recipe.parts, min_area=recipe.min_area)
    for (name, grid), e in whole.items():
        for figure in ("mIoU", "AR@10", "class accuracy", "proposals an image"): found[f"everything mode {grid} x {grid}, {name}", figure] = e.scores[figure]
    return found


def demo(chosen: argparse.Namespace) -> str:
    columns: dict[str, list[dict]] = {"before": [], "after": []}
    for seed in (int(s) for s in chosen.seeds.split(",")):
        before, after, data, recipe, seconds = train(seed, chosen.steps)
        for name, model in (("before", before), ("after", after)): columns[name].append(scores(model, data["test"], recipe, (16, 32), chosen.images))
        print(seed, round(seconds), pd.DataFrame({n: c[-1] for n, c in columns.items()}).round(1).to_string(), flush=True)
    first = columns["before"][0]
    rows = []
    for key in first:
        a, b = ([c[key] for c in columns[n]] for n in ("before", "after"))
        gains = [y - x for x, y in zip(a, b, strict=True)]
        spread_ = f" ± {statistics.stdev(b):.1f}" if len(b) > 1 else ""
        rows.append((*key, f"{statistics.mean(a):.1f}", f"{statistics.mean(b):.1f}{spread_}", f"{statistics.mean(gains):+.1f}"))
    return table(["", "figure", "before", "after", "gain"], rows)


# ---- fast -------------------------------------------------------------------------------------------------------------------------------------------

def fast(chosen: argparse.Namespace) -> str:
    recipe = JOB.check(dict(preset="demo"))
    splits, rows = JOB.data(recipe), []
    data, (model, _) = splits["test"], JOB.build(recipe, splits)
    for grid in (32, 64):
        times, masks, agree = ({n: [] for n in ("exact", "fast")} for _ in range(3))
        matched = {n: [] for n in times}
        for i in evenly_spaced(len(data), chosen.images):
            sample, found = data[i], {}
            objects = chosen_objects(sample["masks"], parts="none", min_area=recipe.min_area)
            for name in times:
                start = time.perf_counter()
                generator = model.everything(everything_options(recipe))
                found[name] = generator.found(sample["image"], grid=grid, pred_iou_thresh=0.3, stability_score_thresh=0.5, fast=name == "fast")
                times[name].append(time.perf_counter() - start)
                if len(objects): matched[name] += match_objects(found[name], sample["masks"][objects], sample["masks"].categories[objects], sample["name"])
                masks[name].append(len(found[name]))
            overlap = mask_iou(*(torch.from_numpy(f.masks()) for f in found.values()))
            agree["exact"].append((overlap.max(1).values >= 0.9).double().mean().item()); agree["fast"].append((overlap.max(0).values >= 0.9).double().mean().item())
        ratio = statistics.median(a / b for a, b in zip(times["exact"], times["fast"], strict=True))
        mean = {n: statistics.mean(v) for n, v in masks.items()}
        score = {n: whole_object_scores(m)["object IoU"] for n, m in matched.items()}
        rows.append((f"{grid} x {grid}", f"{ratio:.2f}", f"{mean['exact']:.0f} / {mean['fast']:.0f}", f"{statistics.mean(agree['exact']):.2f}", f"{statistics.mean(agree['fast']):.2f}",
                     f"{score['exact']:.1f} / {score['fast']:.1f}"))
    return table(["grid", "times as fast", "masks, exact / fast", "of exact found", "of fast right", "object IoU, exact / fast"], rows)


# ---- cache ------------------------------------------------------------------------------------------------------------------------------------------

def cache(chosen: argparse.Namespace) -> str:
    "The same losses; the time of a step (forward, backward), and of picking the points."
    recipe = JOB.check(dict(preset="demo", backbone="sam-vit-b", checkpoint="scratch", image_size=chosen.image_size, grid=32, batch_size=1))
    data = JOB.data(recipe)
    model, _ = JOB.build(recipe, data)
    transform, times, losses = plain_transform(model, recipe), {"uncached": [], "cached": [], "points": []}, {"uncached": [], "cached": []}
    for i in range(chosen.images):
        batch = collate_objects([transform(data["train"][i])])
        for name in ("uncached", "cached"):
            if name == "cached": batch = {**batch, "features": model.encode(batch["image"]).tensors}
            start = time.perf_counter()
            terms = model.losses(batch)
            sum(terms.values()).backward()
            times[name].append(time.perf_counter() - start); losses[name].append(sum(terms.values()).item())
        start = time.perf_counter()
        target = batch["target"][0]
        masks = torch.from_numpy(target.planes(batch["object_index"].tolist()).astype(bool))
        model.assignment.points(batch["features"][0][0], masks, model.image_size, tuple(batch["content_size"][0].tolist()), None)
        times["points"].append(time.perf_counter() - start)
    assert np.allclose(losses["cached"], losses["uncached"], rtol=1e-5)
    middle = {n: statistics.median(t) for n, t in times.items()}
    ratio = statistics.median(a / b for a, b in zip(times["uncached"], times["cached"], strict=True))
    return table(["input", "images", "step, uncached, s", "step, cached, s", "times as fast", "picking the points, s"],
                 [(chosen.image_size, chosen.images, f"{middle['uncached']:.2f}", f"{middle['cached']:.2f}", f"{ratio:.1f}", f"{middle['points']:.2f}")])


# ---- steps ------------------------------------------------------------------------------------------------------------------------------------------

@contextmanager
def timed(times: dict[str, float], *calls: tuple[object, str, str]):  # owner, attribute, what it counts as
    "Seconds spent in some functions or generators, summed."
    kept = [(owner, name, owner.__dict__.get(name)) for owner, name, _ in calls]
    def wrapped(inner, key):
        def outer(*args, **words):
            start = time.perf_counter()
            result = inner(*args, **words)
            times[key] = times.get(key, 0.0) + time.perf_counter() - start
            return each(result, key) if hasattr(result, "__next__") else result
        return outer
    def each(steps_, key):
        while True:
            start = time.perf_counter()
            try: value = next(steps_)
            except StopIteration: return
            finally: times[key] = times.get(key, 0.0) + time.perf_counter() - start
            yield value
    for owner, name, key in calls: setattr(owner, name, wrapped(getattr(owner, name), key))
    try: yield times
    finally:
        for owner, name, before in kept: delattr(owner, name) if before is None else setattr(owner, name, before)


def steps(chosen: argparse.Namespace) -> str:
    "Where both generators spend their time, on the same answers of the decoder."
    model, family, side = build_backbone("sam-vit-b", chosen.image_size)
    model.eval()
    rows = []
    for size in ((448, 448), (960, 1280)):
        image = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
        theirs, ours, total = {}, {}, {}
        with exchanged(model, family, side), torch.no_grad():
            generate = public(model, family, side, chosen.grid)
            with timed(theirs, (model.image_encoder, "forward", "encoder"), (model.mask_decoder, "forward", "decoder"),
                       (model, "postprocess_masks", "masks to the image's size")):
                start = time.perf_counter(); generate(image); total["package"] = time.perf_counter() - start
            ours_generator = Everything(model, grid=chosen.grid, **THRESHOLDS)
            with timed(ours, (model.image_encoder, "forward", "encoder"), (PointDecoder, "attend", "decoder"), (PointDecoder, "predicted_iou", "decoder"),
                       (PointDecoder, "mask_logits", "decoder"), (Enlarger, "window", "masks to the image's size")):
                start = time.perf_counter(); ours_generator.generate(image, output_mode="coco_rle"); total["sam_nb"] = time.perf_counter() - start
        theirs["thresholds, boxes, run lengths, competition"] = total["package"] - sum(theirs.values())
        ours["thresholds, boxes, run lengths, competition"] = total["sam_nb"] - sum(ours.values())
        for key in theirs: rows.append((f"{size[0]} x {size[1]}", key, f"{theirs[key]:.1f}", f"{ours[key]:.1f}", f"{theirs[key] / ours[key]:.1f}"))
        rows.append((f"{size[0]} x {size[1]}", "all", f"{total['package']:.1f}", f"{total['sam_nb']:.1f}", f"{total['package'] / total['sam_nb']:.1f}"))
    return table(["image", "step", "package, s", "sam_nb, s", "faster"], rows)


# ---- panorama ---------------------------------------------------------------------------------------------------------------------------------------

def panorama(chosen: argparse.Namespace) -> str:
    "One column of the grid; its time times 320; peak memory, and what the candidates of all columns would add."
    model, family, side = build_backbone("sam-vit-b", chosen.image_size)
    model.eval()
    image = np.random.default_rng(0).integers(0, 255, (820, 4096, 3), np.uint8)
    with exchanged(model, family, side), torch.no_grad():
        start = time.perf_counter()
        encoded = _encode(Everything(model), [image])[0]
        middle = time.perf_counter()
        found = Everything(model, grid=(1, 64), **THRESHOLDS).candidates(image, encoded=encoded)
        column = time.perf_counter() - middle
    kept = sum(len(w.rle["counts"]) + 200 for w in found.windows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    row = (chosen.image_size, f"{middle - start:.1f}", f"{column:.1f}", f"{(middle - start + 320 * column) / 60:.0f}", len(found), f"{peak:.2f}", f"{peak + 320 * kept / 2**30:.2f}")
    return table(["input", "encoder, s", "one column (64 points), s", "all 320, extrapolated, min", "masks of the column", "peak, GiB", "with all candidates, extrapolated, GiB"], [row])


# ---- all --------------------------------------------------------------------------------------------------------------------------------------------

def table(head: list[str], rows: list[tuple]) -> str:
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(map(str, r)) + " |" for r in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("demo", "fast", "cache", "steps", "panorama"))
    parser.add_argument("--seeds", default="0,1,2"); parser.add_argument("--steps", type=int, default=300); parser.add_argument("--images", type=int)
    parser.add_argument("--image_size", type=int); parser.add_argument("--grid", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1); parser.add_argument("--save", type=Path)
    chosen = parser.parse_args()
    usual = {"demo": (24, None), "fast": (12, None), "cache": (3, 1024), "steps": (None, 512), "panorama": (None, 1024)}[chosen.what]
    chosen.images, chosen.image_size = chosen.images or usual[0], chosen.image_size or usual[1]
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    asked = {"demo": ("seeds", "steps", "images"), "fast": ("images",), "cache": ("images", "image_size"), "steps": ("image_size", "grid"), "panorama": ("image_size",)}
    words = " ".join(f"--{name} {getattr(chosen, name)}" for name in (*asked[chosen.what], "threads"))
    text = "\n".join([f"`python -m benchmarks.saom {chosen.what} {words}`", "", machine(argparse.Namespace(device="cpu", compile=False, precision="fp32")), "",
                      globals()[chosen.what](chosen), ""])
    print(text)
    if chosen.save: chosen.save.write_text(text)


if __name__ == "__main__":
    main()
