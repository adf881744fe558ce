"""What SAM costs as the helper of S4M: masks of an image refined together, and structural distillation that stops after the transformer.

    python -m benchmarks.s4m_helper [--backbone tiny_sam2] [--input 256] [--height 512] [--width 1024] [--masks 20] [--points 128] [--repeats 7] [--device cpu] [--save FILE.md]

- refine: three points in each of N masks of one encoded image. *one by one*: sam2's predictor, three masks of the image's size for each, the best one kept.
  *together*: `heads.refinement.refine`. Points are the same; masks are compared before anything is timed.
- distil: P query points of one encoded image. *full decode*: sam2's predictor for all points at once, the tokens taken on the way, masks enlarged to the image
  as published. *stopped, chunked*: `heads.distillation.sam_similarity`. The losses of equal student features are compared.

Weights are random (time does not depend on them) unless the backbone has its own. Encoding the image is not part of the times.
"""
from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from sam2.sam2_image_predictor import SAM2ImagePredictor
from torch import Tensor

from benchmarks.sartm import machine
from sam_nb.heads.distillation import SimilarityTarget, distillation_loss, query_cells, sam_similarity
from sam_nb.heads.promptable import View
from sam_nb.heads.pseudo_labels import PseudoLabels, draw_cells
from sam_nb.heads.refinement import encode_views, label_prompts, refine
from sam_nb.losses import similarity_to
from sam_nb.methods.promptable import Promptable


def blobs(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:  # logits [count, h, w]
    "Discs as a teacher's masks."
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centre, radius = torch.rand(count, 2, generator=generator) * torch.tensor([height, width]), 4 + 12 * torch.rand(count, generator=generator)
    away = torch.stack([(y - cy) ** 2 + (x - cx) ** 2 for cy, cx in centre]).sqrt()
    return (radius[:, None, None] - away).clamp(-8, 8)


def predictor_of(view: View) -> SAM2ImagePredictor:
    "sam2's own predictor with the image already encoded."
    predictor = SAM2ImagePredictor(view.model.model)
    predictor._orig_hw, predictor._is_image_set = [view.original_size], True
    predictor._features = {"image_embed": view.features.embedding, "high_res_feats": list(view.features.high_res)}
    return predictor


def one_by_one(view: View, points: Tensor) -> Tensor:  # [N, 3, 2] in pixels of the image -> bool [N, H, W]
    predictor, (height, width), found = predictor_of(view), view.original_size, []
    scaled = points * points.new_tensor([view.image_size / width, view.image_size / height])
    for own in scaled.split(1):
        masks, quality, _ = predictor._predict(own, torch.ones(own.shape[:2], dtype=torch.int64, device=own.device), multimask_output=True)
        best = masks[0, quality[0].argmax()]
        F.interpolate(best[None, None].float(), (height // 4, width // 4))  # the small mask that the student learns from
        found.append(best)
    return torch.stack(found)


@torch.no_grad()
def full_decode(view: View, points: Tensor) -> SimilarityTarget:  # [P, 2] row, column
    predictor, taken, (height, width) = predictor_of(view), [], view.original_size
    hook = view.model.mask_decoder.transformer.register_forward_hook(lambda module, args, out: taken.append(out[1]))
    scaled = points.flip(1)[:, None] * torch.tensor([view.image_size / width, view.image_size / height], device=points.device)
    predictor._predict(scaled, torch.ones(len(points), 1, dtype=torch.int64, device=points.device), multimask_output=False)
    hook.remove()
    side = view.features.embedding.shape[-1]
    cells = query_cells(points, (side, side), view.original_size)
    return SimilarityTarget(cells, similarity_to(taken[0], cells), (side, side), view.original_size)


def seconds(run: Callable[[], object], device: str) -> float:
    if device == "cuda": torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device == "cuda": torch.cuda.synchronize()
    return time.perf_counter() - start


def take_turns(sides: dict[str, Callable[[], object]], options: argparse.Namespace) -> dict[str, list[float]]:
    "The sides in turn, every other round backwards; the first round warms up."
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(options.repeats + 1):
        for name in list(sides)[::-1 if number % 2 else 1]:
            spent = seconds(sides[name], options.device)
            if number: taken[name].append(spent)
    return taken


def rows(taken: dict[str, list[float]], notes: dict[str, str]) -> list[str]:
    first = next(iter(taken.values()))
    lines = ["| side | seconds, median | faster, median of the turns | |", "|---|---|---|---|"]
    for name, own in taken.items():
        ratio = statistics.median(a / b for a, b in zip(first, own, strict=True))
        lines.append(f"| {name} | {statistics.median(own):.3f} | {ratio:.2f} | {notes.get(name, '')} |")
    return lines


def refining(view: View, options: argparse.Namespace, generator: torch.Generator) -> list[str]:
    height, width = view.original_size
    logits = blobs(options.masks, height // 4, width // 4, generator).to(view.device)
    n = len(logits)
    labels = PseudoLabels(torch.zeros(n, dtype=torch.int64), logits > 0, logits, torch.ones(n, device=view.device), torch.arange(n))
    cells = draw_cells(logits, 3, "mask_prob", generator)
    points = label_prompts(view, labels, cells=cells).points
    sides = {"one by one": lambda: one_by_one(view, points), "together": lambda: refine(view, labels, cells=cells)}
    different = (one_by_one(view, points) != refine(view, labels, cells=cells).masks).flatten(1).sum(1)
    if different.max() > 1e-4 * height * width: raise SystemExit(f"masks differ by up to {different.max()} pixels: nothing is timed")
    note = f"masks differ by at most {different.max()} of {height * width} pixels"
    return [f"Refine {n} masks:", "", *rows(take_turns(sides, options), {"together": note})]


def distilling(view: View, options: argparse.Namespace, generator: torch.Generator) -> list[str]:
    height, width = view.original_size
    points = (torch.rand(options.points, 2, generator=generator) * torch.tensor([height, width])).long().to(view.device)
    features = torch.randn(1, 256, height // 4, width // 4, generator=generator).to(view.device)
    sides = {"full decode": lambda: full_decode(view, points), "stopped, chunked": lambda: sam_similarity(view, points, chunk=options.chunk)}
    a, b = (distillation_loss(features, [run()]).item() for run in sides.values())
    if abs(a - b) > 1e-5: raise SystemExit(f"losses differ: {a} and {b}: nothing is timed")
    kept = view.features.embedding[0].numel() * 4 / 2**20
    notes = {"full decode": f"tokens of {len(points)} points at once: {len(points) * kept:.1f} MiB a copy",
             "stopped, chunked": f"of {options.chunk}: {options.chunk * kept:.1f} MiB; losses {a:.6f} and {b:.6f}"}
    return [f"Similarities of {len(points)} query points:", "", *rows(take_turns(sides, options), notes)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="tiny_sam2", help="tiny_sam2, sam2-t, s, b+, l: of SAM 2")
    parser.add_argument("--input", type=int, help="side of the square input; default: the backbone's own")
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--masks", type=int, default=20)
    parser.add_argument("--points", type=int, default=128)
    parser.add_argument("--chunk", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--save", type=Path, help="write the tables to this Markdown file")
    options = parser.parse_args()
    options.precision, options.compile = "fp32", False
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = Promptable(backbone=options.backbone, image_size=options.input).to(options.device).eval()
    image = torch.randint(0, 256, (3, options.height, options.width), generator=generator, dtype=torch.uint8)
    view = encode_views(model, [image])[0]
    lines = [f"{options.backbone}, input {model.image_size}, image {options.height} x {options.width}; {machine(options)}; {options.repeats} turns", "",
             *refining(view, options, generator), "", *distilling(view, options, generator), ""]
    print("\n".join(lines))
    if options.save: options.save.write_text("\n".join(["# S4M's helper", "", *lines]))


if __name__ == "__main__": main()
