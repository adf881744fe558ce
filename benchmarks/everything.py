"""Everything mode against the packages' own generators, on the same weights, in one process, in turns.

    python -m benchmarks.everything [--backbone sam-vit-b] [--image_size 512] [--grid 32] [--sizes 448x448,960x1280] [--repeats 1] [--save FILE.md]

Weights are random, and random weights draw no masks. So both sides run the real encoder and the real decoder, and then the decoder's answer is exchanged,
on both sides alike, for three soft discs around each point with a predicted IoU drawn from the point, so that about 30 % of the masks pass, as on photographs.
The masks that come out are compared run length by run length before anything is timed.
"""
from __future__ import annotations

import argparse
import functools
import statistics
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from segment_anything import SamAutomaticMaskGenerator
from torch import Tensor

from benchmarks.sartm import machine
from sam_nb.heads.everything import Everything
from sam_nb.heads.point_decoder import PointDecoder
from sam_nb.heads.promptable import build_backbone

THRESHOLDS = dict(pred_iou_thresh=0.7, stability_score_thresh=0.8)


# ---- the same answers on both sides -----------------------------------------------------------------------------------------------------------------

def discs(points: Tensor, side: int, low: int) -> tuple[Tensor, Tensor]:  # [B, 2] in the square -> [B, 3, low, low] logits, [B, 3] predicted IoU
    "Discs of three sizes with a soft edge around each point; the numbers depend on the point alone."
    at = (torch.arange(low, device=points.device) + 0.5) * (side / low)
    far = ((at - points[:, :1]).square()[:, None] + (at - points[:, 1:]).square()[:, :, None]).sqrt()[:, None]  # [B, 1, low, low]
    kind = torch.arange(3, device=points.device)
    drawn = torch.frac(torch.sin(points[:, :1].double() * 12.9898 + points[:, 1:].double() * 78.233 + kind * 37.719) * 43758.5453).abs().float()  # [B, 3]
    radius = side * (0.03 + 0.05 * kind) * (0.6 + drawn)
    logits = (radius[..., None, None] - far) / (0.004 * side)
    return logits.clamp(-20, 20), drawn


@contextmanager
def exchanged(model, family: str, side: int):
    "While it lasts, both decoders answer with discs."
    prompts, decoder = (model.prompt_encoder, model.mask_decoder) if family == "sam" else (model.sam_prompt_encoder, model.sam_mask_decoder)
    kept, original = {}, (prompts.forward, decoder.predict_masks, PointDecoder.attend, PointDecoder.predicted_iou, PointDecoder.mask_logits)

    def forward(points, boxes, masks, **words):
        kept["points"] = points[0][:, 0].float()
        return original[0](points=points, boxes=boxes, masks=masks, **words)

    def predict_masks(**words):
        masks, ious, *rest = original[1](**words)
        logits, drawn = discs(kept["points"], side, masks.shape[-1])
        return (torch.cat([masks[:, :1], logits], 1), torch.cat([ious[:, :1], drawn], 1), *rest)

    def attend(self, points):
        tokens, cells = original[2](self, points)
        kept["last"] = points
        return tokens, cells

    def predicted_iou(self, tokens):
        original[3](self, tokens)
        return discs(kept["last"], side, 4)[1]

    def mask_logits(self, tokens, cells):
        painted = original[4](self, tokens, cells)
        wanted = (discs(kept["last"], side, 4)[1] > THRESHOLDS["pred_iou_thresh"]).any(1)
        return discs(kept["last"][wanted], side, painted.shape[-1])[0]

    prompts.forward, decoder.predict_masks, PointDecoder.attend, PointDecoder.predicted_iou, PointDecoder.mask_logits = forward, predict_masks, attend, predicted_iou, mask_logits
    try: yield
    finally:
        del prompts.forward, decoder.predict_masks
        PointDecoder.attend, PointDecoder.predicted_iou, PointDecoder.mask_logits = original[2:]


# ---- the two sides ----------------------------------------------------------------------------------------------------------------------------------

def public(model, family: str, side: int, grid: int):
    "The package's generator."
    make = SamAutomaticMaskGenerator if family == "sam" else SAM2AutomaticMaskGenerator
    generator = make(model, points_per_side=grid, output_mode="coco_rle", **THRESHOLDS)
    if family == "sam2": generator.predictor._bb_feat_sizes = [(side // n,) * 2 for n in (4, 8, 16)]  # the class assumes an input of 1024 pixels
    return generator.generate


def same(ours: list[dict], theirs: list[dict]) -> int:
    "Masks with other run lengths."
    if len(ours) != len(theirs): raise SystemExit(f"{len(ours)} masks here, {len(theirs)} there: not the same, nothing is timed")
    return sum(a["segmentation"] != b["segmentation"] for a, b in zip(ours, theirs, strict=True))


def measure(backbone: str, image_size: int, grid: int, size: tuple[int, int], repeats: int) -> dict:
    model, family, side = build_backbone(backbone, image_size)
    model.eval()
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    sides = {"package": public(model, family, side, grid),
             "sam_nb": functools.partial(Everything(model, grid=grid, **THRESHOLDS).generate, output_mode="coco_rle")}
    times: dict[str, list[float]] = {name: [] for name in sides}
    with exchanged(model, family, side), torch.no_grad():
        for _ in range(repeats):
            for name, generate in sides.items():
                start = time.perf_counter()
                found = generate(image)
                times[name].append(time.perf_counter() - start)
                if name == "package": theirs = found
                else: other = same(found, theirs)
    ratios = [a / b for a, b in zip(times["package"], times["sam_nb"], strict=True)]
    return {"backbone": backbone, "input": side, "grid": f"{grid} x {grid}", "image": f"{size[0]} x {size[1]}", "masks": len(theirs), "other run lengths": other,
            "package, s": statistics.median(times["package"]), "sam_nb, s": statistics.median(times["sam_nb"]), "faster": statistics.median(ratios)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="sam-vit-b"); parser.add_argument("--image_size", type=int, default=512)
    parser.add_argument("--grid", type=int, default=32); parser.add_argument("--sizes", default="448x448,960x1280")
    parser.add_argument("--repeats", type=int, default=1); parser.add_argument("--threads", type=int, default=1); parser.add_argument("--save", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads); torch.manual_seed(0)
    rows = []
    for size in chosen.sizes.split(","):
        rows.append(measure(chosen.backbone, chosen.image_size, chosen.grid, tuple(int(n) for n in size.split("x")), chosen.repeats))
        print(rows[-1], flush=True)
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(f"{v:.2f}" if isinstance(v, float) else str(v) for v in r.values()) + " |" for r in rows]
    words = f"--backbone {chosen.backbone} --image_size {chosen.image_size} --grid {chosen.grid} --sizes {chosen.sizes} --repeats {chosen.repeats} --threads {chosen.threads}"
    text = "\n".join([f"`python -m benchmarks.everything {words}`", "", machine(argparse.Namespace(device="cpu", compile=False, precision="fp32")), "", *lines, ""])
    print(text)
    if chosen.save: chosen.save.write_text(text)


if __name__ == "__main__":
    main()
