"""Promptable fine-tuning, this library's way, against the loops people write; and what fits where.

    python -m benchmarks.promptable [--parts step,click,cache,fit] [--backbones tiny_sam,tiny_sam2,sam-vit-b,sam2.1-b+] [--device cpu] [--save FILE.md]

- step: one interactive training step of an image with K objects and R rounds. *sample per object*: image and object are one sample, as in most fine-tuning
  scripts, so the image is encoded K times. *object after object*: encoded once, decoded K times a round. *sam_nb*: encoded once, all objects decoded together.
  Weights and prompts are the same; losses and gradients are compared in float32 first, and it stops if they differ.
- click: an image is encoded; then every click is answered in masks of the original size. Beside it the predictor of segment-anything or sam2 on the same weights.
- cache: training steps with the frozen encoder against steps that read its features from disk, loading and transforms included. Losses are compared.
- fit: peak memory and time of a training step by backbone and by what is trained, each in a process of its own.

Weights are random: time and memory do not depend on them.
"""
from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.sartm import TYPES, forget_peak, largest_difference, machine, table, take_turns
from sam_nb.datasets.object_masks import IdMap, MaskSet, collate_objects
from sam_nb.encoders.cache import FeatureCache, WithFeatures, collate_features, encoder_key, format_bytes, precompute
from sam_nb.heads.promptable import ImageFeatures
from sam_nb.masks import coverage
from sam_nb.methods.promptable import Promptable, answer_losses
from sam_nb.methods.promptable_recipe import PromptableRecipe
from sam_nb.prompts import Prompts, sample_points
from sam_nb.training.loader import AugmentedSamples, StepSampler, batches

TRAINABLE = ("decoder", "lora", "encoder_last_n", "all")
QUIET = dict(say=lambda text: None)
LIMITS = {"losses": 1e-5, "gradient (difference of all, relative)": 1e-3}


# ---- data -------------------------------------------------------------------------------------------------------------------------------------------

def blobs(size: int, objects: int, seed: int) -> np.ndarray:  # int32 [size, size], 0: none
    "An id map of ellipses on a grid."
    rng, across = np.random.default_rng(seed), int(np.ceil(objects ** 0.5))
    y, x = np.mgrid[:size, :size] / size * across
    cell = (np.floor(y) * across + np.floor(x)).astype(np.int32)
    radius = rng.uniform(0.2, 0.45, (2, across * across))
    inside = ((y % 1 - 0.5) / radius[0][cell]) ** 2 + ((x % 1 - 0.5) / radius[1][cell]) ** 2 < 1
    return np.where(inside & (cell < objects), cell + 1, 0)


class Scenes(list):
    "Noise with ellipses, as samples of a dataset."
    def __init__(self, count: int, size: int, objects: int):
        super().__init__(self.scene(size, objects, seed) for seed in range(count))
        self.names = [s["name"] for s in self]

    def scene(self, size: int, objects: int, seed: int) -> dict:
        ids = blobs(size, objects, seed)
        noise = torch.randint(0, 128, (3, size, size), generator=torch.Generator().manual_seed(seed))
        masks = MaskSet(IdMap(ids, range(1, objects + 1)))
        return {"image": (noise + torch.from_numpy(ids) * 7 % 128).to(torch.uint8), "masks": masks, "name": f"scene {seed}", "original_size": (size, size)}


def build(backbone: str, trainable: str, options: argparse.Namespace, **switches) -> Promptable:
    torch.manual_seed(0)
    switches = {"clicks": options.rounds - 1, "mask_rounds": 0, "image_size": options.size, **switches}
    model = Promptable(backbone=backbone, trainable=trainable, **switches).to(options.device)
    return model.train()


def make_batch(model: Promptable, options: argparse.Namespace, images: int = 1) -> dict:
    scenes = Scenes(images, model.image_size, options.objects)
    batch = collate_objects([model.transform(min_area=1)(s) for s in scenes])
    return {k: v.to(options.device) if isinstance(v, Tensor) else v for k, v in batch.items()}


def optimizer_of(model: Promptable) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameter_groups(PromptableRecipe(lr=1e-4)), fused=next(model.parameters()).is_cuda or None)


def precise(options: argparse.Namespace) -> contextlib.AbstractContextManager:
    return torch.autocast(options.device, TYPES[options.precision], enabled=options.precision != "fp32")


# ---- step -------------------------------------------------------------------------------------------------------------------------------------------

class Interactive(nn.Module):
    "One image, K objects, R rounds: a point each, then the answer as a mask prompt and one more point of a given list."
    def __init__(self, model: Promptable, way: str, options: argparse.Namespace):
        super().__init__()
        self.model, self.way, self.rounds = model, way, options.rounds
        self.train()

    def forward(self, batch: Mapping) -> Tensor:  # the loss; gradients are computed on the way where samples are apart
        model, each = self.model, torch.arange(len(batch["masks"]), device=batch["masks"].device)
        if self.way == "sample per object":
            losses = []
            for k in each.split(1):
                loss = self.conversation(model.encode(batch["image"]), k, batch).sum() / len(each)
                loss.backward()
                losses.append(loss.detach())
            return torch.stack(losses).sum()
        features = model.encode(batch["image"])
        groups = each.split(1) if self.way == "object after object" else [each]
        loss = torch.cat([self.conversation(features, g, batch) for g in groups]).mean()
        loss.backward()
        return loss.detach()

    def conversation(self, features: ImageFeatures, which: Tensor, batch: Mapping) -> Tensor:  # [n]
        model, truth, total = self.model, batch["truth"][which], 0
        prompts, index = Prompts.from_points(batch["points"][which, :1]), torch.zeros(len(which), dtype=torch.int64, device=which.device)
        for number in range(1, self.rounds + 1):
            answer = model.decode(features, index, prompts, multimask_output=number == 1)
            total = total + sum(answer_losses(model.switches, model.family, answer, truth).values())
            if number < self.rounds: prompts = prompts.with_masks(answer.pick().logits.detach()).add(batch["points"][which, number])
        return total / self.rounds


def with_points(batch: dict, model: Promptable, options: argparse.Namespace) -> dict:
    "The clicks that all sides are given, and the truth at the decoder's size."
    generator = torch.Generator(options.device).manual_seed(0)
    points = torch.stack([sample_points(batch["masks"], generator) for _ in range(options.rounds)], 1)
    return {**batch, "points": points, "truth": coverage(batch["masks"], model.prompt_encoder.mask_input_size[0])}


def losses_and_gradients(side: Interactive, batch: Mapping) -> tuple[Tensor, dict[str, Tensor]]:
    side.zero_grad(set_to_none=True)
    loss = side(batch)
    found = {k: p.grad.clone() for k, p in side.model.named_parameters() if p.grad is not None}
    side.zero_grad(set_to_none=True)
    return loss, found


def compare(sides: Mapping[str, Interactive], batch: Mapping) -> dict[str, float]:
    "Largest relative differences of the sides to the first."
    (loss, wanted), *others = (losses_and_gradients(s, batch) for s in sides.values())
    size = sum(g.square().sum() for g in wanted.values()).sqrt()
    assert all(g.keys() == wanted.keys() for _, g in others)
    gradient = max((sum((g[k] - wanted[k]).square().sum() for k in g).sqrt() / size).item() for _, g in others)
    return {"losses": max(largest_difference(other, loss) for other, _ in others), "gradient (difference of all, relative)": gradient}


def stepping(side: Interactive, options: argparse.Namespace) -> Callable[[Mapping], None]:
    optimizer = optimizer_of(side.model)

    def step(batch: Mapping) -> None:
        with precise(options): side(batch)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return step


def measure_step(options: argparse.Namespace) -> list[str]:
    lines = [f"## One interactive training step: {options.objects} objects, {options.rounds} rounds", ""]
    for backbone, trainable in itertools.product(options.backbones, ("decoder", "all")):
        if trainable == "all" and backbone not in options.trained_backbones: continue
        model = build(backbone, trainable, options)
        batch = with_points(make_batch(model, options), model, options)
        sides = {way: Interactive(model, way, options) for way in ("sample per object", "object after object", "sam_nb")}
        found = compare(sides, batch)
        if far := [k for k, v in found.items() if not v <= LIMITS[k]]: sys.exit(f"not equal: {', '.join(far)} {found}")
        taken = take_turns({name: stepping(side, options) for name, side in sides.items()}, batch, options)
        lines += [*table(f"{backbone}, {model.image_size} px, trained: {trainable}", taken, {}), "",
                  "Largest relative differences: " + "; ".join(f"{k} {v:.1e}" for k, v in found.items()), ""]
        say(lines)
        del model, sides, batch
        gc.collect()
    return lines


# ---- click ------------------------------------------------------------------------------------------------------------------------------------------

def stock_predictor(model: Promptable) -> object:
    "The package's predictor on the same weights."
    if model.family == "sam":
        from segment_anything import SamPredictor
        return SamPredictor(model.model)
    from sam2.sam2_image_predictor import SAM2ImagePredictor
    predictor = SAM2ImagePredictor(model.model)
    predictor._bb_feat_sizes = [(model.image_size // s,) * 2 for s in (4, 8, 16)]  # it takes 1024 pixels for granted
    return predictor


def median_ms(run: Callable, points: Sequence, options: argparse.Namespace) -> float:
    taken = []
    for number, point in enumerate(points):
        if options.device == "cuda": torch.cuda.synchronize()
        start = time.perf_counter()
        run(point)
        if options.device == "cuda": torch.cuda.synchronize()
        if number >= options.warmup: taken.append(1e3 * (time.perf_counter() - start))
    return statistics.median(taken)


@torch.no_grad()
def measure_click(options: argparse.Namespace) -> list[str]:
    height, width = 768, 1024
    lines = [f"## A click: three masks of {height} x {width}, medians of {options.clicks} clicks", "",
             "| backbone | px | encode, ms | answer on the grid, ms | masks of the image, ms | package's predictor, ms | same masks |",
             "|---|---|---|---|---|---|---|"]
    image = np.stack([blobs(width, 9, seed)[:height] * 25 for seed in range(3)], -1).astype(np.uint8)
    points = np.random.default_rng(1).integers(0, [width, height], (options.clicks + options.warmup, 2)).astype(np.float32)
    for backbone in options.backbones:
        model = build(backbone, "decoder", options).eval()
        with precise(options):
            encode = median_ms(lambda _, m=model: m.embed(image), points[:options.warmup + options.repeats], options)
            embedded, stock, one = model.embed(image), stock_predictor(model), torch.zeros(1, dtype=torch.int64, device=options.device)
            stock.set_image(image)
            grid = lambda p, m=model, e=embedded, i=one: m.decode(e.view.features, i, Prompts.from_points(torch.from_numpy(p)[None] * (m.image_size / max(e.size))).to(m.device))
            times = [median_ms(f, points, options) for f in (grid, lambda p, e=embedded: e.segment(p[None, None]),
                                                             lambda p, s=stock: s.predict(p[None], np.ones(1), multimask_output=True))]
            own, other = embedded.segment(points[:1, None]), stock.predict(points[:1], np.ones(1), multimask_output=True)
        agree = (own.masks[0] == other[0][np.argsort(-other[1], kind="stable")].astype(bool)).mean()
        lines.append(f"| {backbone} | {model.image_size} | {encode:.0f} | {' | '.join(f'{t:.1f}' for t in times)} | {100 * agree:.3f} % |")
        say(lines)
    print()
    return [*lines, "", "With random weights logits are near 0, so a grey value rounded otherwise turns some pixels over.", ""]


# ---- cache ------------------------------------------------------------------------------------------------------------------------------------------

def trained_steps(model: Promptable, data: Scenes, transform: Callable, collate: Callable, options: argparse.Namespace) -> tuple[list[float], list[float]]:
    "Losses and seconds of steps, loading included."
    optimizer, losses, seconds = optimizer_of(model), [], []
    draws = StepSampler(len(data), options.batch, 0, 0, options.warmup + options.repeats)
    stream, start = batches(AugmentedSamples(data, transform, 0), draws, options.workers, collate), time.perf_counter()
    for number, batch in enumerate(stream):
        batch.pop("image") if "features" in batch else None  # it is not needed on the device
        batch = {k: v.to(options.device) if isinstance(v, Tensor) else tuple(t.to(options.device) for t in v) if isinstance(v, tuple) else v
                 for k, v in batch.items()}
        torch.manual_seed(number)
        with precise(options): loss = sum(model.losses(batch).values())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
    return losses, seconds[options.warmup:]


def measure_cache(options: argparse.Namespace) -> list[str]:
    lines = [f"## Frozen encoder: encoded every step, or read from disk ({options.batch} images a step, {options.objects} objects, {options.rounds} rounds)", "",
             "| backbone | px | features of an image, fp32 | encoding, s a step | from disk, s a step | ratio | largest relative difference of losses |",
             "|---|---|---|---|---|---|---|"]
    for backbone in options.backbones:
        model, taken = build(backbone, "decoder", options), {}
        start = {k: v.clone() for k, v in model.state_dict().items()}
        data, transform = Scenes(2 * options.batch, model.image_size, options.objects), model.transform(train=True, objects=options.objects, flip=0.0,
                                                                                                      scale=(1, 1), jitter=0.0)
        with tempfile.TemporaryDirectory() as folder:
            cache = FeatureCache(folder, encoder_key(*model.encoder_parts()))
            precompute(lambda images, m=model: m.encode(images).tensors, model, data, transform, cache, options.batch, **QUIET)
            ways = {"encoding": (transform, collate_objects), "kept": (WithFeatures(transform, cache), functools.partial(collate_features, collate=collate_objects))}
            for name, way in ways.items():
                model.load_state_dict(start)
                taken[name] = trained_steps(model, data, *way, options)
            each = format_bytes(cache.nbytes() / len(cache))
        (losses, slow), (kept, fast) = taken["encoding"], taken["kept"]
        off = max(abs(a - b) / abs(a) for a, b in zip(losses, kept, strict=True))
        if options.precision == "fp32" and off > 1e-4: sys.exit(f"not equal: losses of {backbone} differ by {off:.1e}")
        slow, fast = statistics.median(slow), statistics.median(fast)
        lines.append(f"| {backbone} | {model.image_size} | {each} | {slow:.3f} | {fast:.3f} | {slow / fast:.2f} | {off:.1e} |")
        say(lines)
    print()
    return [*lines, ""]


# ---- fit --------------------------------------------------------------------------------------------------------------------------------------------

def one_fit(options: argparse.Namespace) -> dict[str, float]:
    "Peak MiB and seconds of a training step; runs alone (--fit BACKBONE,TRAINABLE)."
    backbone, trainable = options.fit.split(",")
    model = build(backbone, trainable, options)
    batch, optimizer = make_batch(model, options, options.batch), optimizer_of(model)
    gc.collect()
    if options.device == "cuda": torch.cuda.reset_peak_memory_stats()
    else: forget_peak()
    for _ in range(2):
        start = time.perf_counter()
        with precise(options): sum(model.losses(batch).values()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if options.device == "cuda": torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    if options.device == "cuda": peak = torch.cuda.max_memory_allocated() / 2**20
    else: peak = int(next(w for w in Path("/proc/self/status").read_text().splitlines() if w.startswith("VmHWM")).split()[1]) / 2**10
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"peak": peak, "seconds": seconds, "trained": trained, "size": model.image_size}


def fit_of(backbone: str, trainable: str, options: argparse.Namespace) -> dict[str, float] | str:
    "The row of one process; a word where it does not fit."
    words = [f"--{k}={getattr(options, k)}" for k in ("batch", "objects", "rounds", "device", "precision", "threads")]
    words += [f"--fit={backbone},{trainable}", *([f"--size={options.size}"] if options.size else [])]
    done = subprocess.run([sys.executable, "-m", "benchmarks.promptable", *words], capture_output=True, text=True)
    if done.returncode == 0: return json.loads(done.stdout.splitlines()[-1])
    if done.returncode == -9 or "OutOfMemory" in done.stderr or "allocate memory" in done.stderr: return "out of memory"
    sys.exit(done.stderr)


def measure_fit(options: argparse.Namespace) -> list[str]:
    lines = [f"## What fits where: {options.batch} image(s) a step, {options.objects} objects each, {options.rounds} rounds", "",
             f"Peak memory of {'the device' if options.device == 'cuda' else 'the whole process'}; the second step's time.", "",
             "| backbone | px | trained | parameters trained, M | peak memory, MiB | a step, s |", "|---|---|---|---|---|---|"]
    for backbone, trainable in itertools.product(options.fit_backbones, options.trainable):
        row = fit_of(backbone, trainable, options)
        cells = [row["size"], trainable, f"{row['trained'] / 1e6:.2f}", f"{row['peak']:.0f}", f"{row['seconds']:.2f}"] if isinstance(row, dict) \
            else [options.size or "", trainable, "", row, ""]
        lines.append(f"| {backbone} | {' | '.join(map(str, cells))} |")
        say(lines)
    print()
    return [*lines, ""]


# ---- the report -------------------------------------------------------------------------------------------------------------------------------------

def say(lines: Sequence[str]) -> None:
    "What is new since the last time."
    known = say.__dict__.setdefault("known", {})
    print("\n".join(lines[known.get(lines[0], 0):]), flush=True)
    known[lines[0]] = len(lines)


def words(text: str) -> list[str]: return [w for w in text.split(",") if w]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=words, default=["step", "click", "cache", "fit"], help="step,click,cache,fit")
    parser.add_argument("--backbones", type=words, default=["tiny_sam", "tiny_sam2", "sam-vit-b", "sam2.1-b+"], help="of step, click and cache")
    parser.add_argument("--trained-backbones", type=words, default=["tiny_sam", "tiny_sam2"], help="of these, step is measured with trainable='all' too")
    parser.add_argument("--fit-backbones", type=words, default=["tiny_sam", "tiny_sam2", "sam-vit-b", "sam2.1-t", "sam2.1-s", "sam2.1-b+"], help="of fit")
    parser.add_argument("--trainable", type=words, default=list(TRAINABLE), help="of fit")
    parser.add_argument("--size", type=int, help="side of the square input; default: the backbone's own")
    parser.add_argument("--objects", type=int, default=16, help="of an image")
    parser.add_argument("--rounds", type=int, default=3, help="answers of a training step")
    parser.add_argument("--batch", type=int, default=1, help="images a step (cache, fit)")
    parser.add_argument("--clicks", type=int, default=21)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1, help="rounds that do not count")
    parser.add_argument("--workers", type=int, default=0, help="loader processes (cache)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", 1)))
    parser.add_argument("--save", type=Path, help="write the tables to this Markdown file")
    parser.add_argument("--fit", help=argparse.SUPPRESS)
    parser.set_defaults(compile=False)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32, on both sides
    if options.fit: return print(json.dumps(one_fit(options)))
    measure(options)


def measure(options: argparse.Namespace) -> None:
    parts = {"step": measure_step, "click": measure_click, "cache": measure_cache, "fit": measure_fit}
    lines = [f"`python -m benchmarks.promptable {' '.join(sys.argv[1:])}`", "", f"{machine(options)}; random weights", ""]
    print("\n".join(lines), flush=True)
    for name in options.parts:
        lines += parts[name](options)
        if not options.save: continue
        options.save.parent.mkdir(parents=True, exist_ok=True)
        options.save.write_text("\n".join(lines))


if __name__ == "__main__": main()
