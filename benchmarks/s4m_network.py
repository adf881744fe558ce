"""What Mask2Former's matching and losses cost, beside transformers' own.

    python -m benchmarks.s4m_network [--images 2] [--objects 10] [--height 512 --width 1024] [--repeats 3] [--device cpu]

The same answers, objects and random points go into both; pairs and losses are compared first. Without `--device cuda` what a GPU saves (one transfer to
the host where transformers makes one for each output and image) is not in the figures. `--save FILE.md` keeps the table.
"""
from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

from sam_nb.heads.mask2former_loss import match_queries, matching_costs, set_losses
from sam_nb.heads.mask2former_size import Mask2FormerSize
from tests.parity.checks import machine

SIZES = {"published": Mask2FormerSize("r50"), "demonstration": Mask2FormerSize("tiny", queries=32, decoder_layers=4, points=1024)}


def cost(work: Callable[[], Any], chosen: argparse.Namespace) -> float:
    "Milliseconds, the least of some repeats: processor time, or wall time of a GPU."
    clock = time.perf_counter if chosen.device.startswith("cuda") else time.process_time
    spent = []
    for _ in range(chosen.repeats):
        begin = clock()
        work()
        if chosen.device.startswith("cuda"): torch.cuda.synchronize()
        spent.append(1e3 * (clock() - begin))
    return min(spent)


def answers(size: Mask2FormerSize, chosen: argparse.Namespace, height: int, width: int, classes: int = 8) -> tuple[list, list[Tensor], list[Tensor]]:
    "Smooth random mask logits and random boxes as objects."
    dice = torch.Generator().manual_seed(0)
    def smooth() -> Tensor:
        coarse = 6 * torch.randn(chosen.images, size.queries, 8, 8, generator=dice)
        return torch.nn.functional.interpolate(coarse, size=(height // 4, width // 4), mode="bilinear").to(chosen.device).requires_grad_()
    outputs = [(torch.randn(chosen.images, size.queries, classes + 1, generator=dice).to(chosen.device).requires_grad_(), smooth()) for _ in range(size.decoder_layers)]
    masks = [torch.zeros(chosen.objects, height, width) for _ in range(chosen.images)]
    for of_image in masks:
        for mask in of_image:
            y, x, h, w = (torch.rand(4, generator=dice) * torch.tensor([height * 0.7, width * 0.7, height / 3, width / 3])).int().tolist()
            mask[y:y + h + 8, x:x + w + 8] = 1
    labels = [torch.randint(classes, (chosen.objects,), generator=dice).to(chosen.device) for _ in masks]
    return outputs, [m.to(chosen.device) for m in masks], labels


def compare(name: str, size: Mask2FormerSize, chosen: argparse.Namespace, height: int, width: int) -> list[tuple]:
    outputs, masks, labels = answers(size, chosen, height, width)
    library = Mask2FormerLoss(Mask2FormerConfig(num_labels=8, train_num_points=size.points, num_queries=size.queries, class_weight=2.0, mask_weight=5.0, dice_weight=5.0), {}).to(chosen.device)
    aux = [{"class_queries_logits": c, "masks_queries_logits": m} for c, m in outputs[1:]]
    counts = [len(m) for m in masks]

    def theirs() -> dict[str, Tensor]: return library(outputs[0][1], outputs[0][0], masks, labels, aux)

    def ours() -> dict[str, Tensor]: return set_losses(outputs, masks, labels, library.empty_weight, size)

    def match_theirs() -> list: return [library.matcher(m, c, masks, labels) for c, m in outputs]

    def match_ours() -> Tensor:
        draws = [[torch.rand(1, size.points, 2, device=chosen.device) for _ in counts] for _ in outputs]
        return match_queries([matching_costs([c[i] for c, _ in outputs], [m[i] for _, m in outputs], masks[i], labels[i], [d[i] for d in draws], size) for i in range(len(counts))])

    torch.manual_seed(1)
    pairs = match_theirs()
    torch.manual_seed(1)
    for mine, them in zip(match_ours(), pairs, strict=True):
        if not torch.equal(mine[1].cpu(), torch.cat([q for q, _ in them])): sys.exit(f"{name}: the pairs differ")
    torch.manual_seed(1)
    first = theirs()
    torch.manual_seed(1)
    second = ours()
    factor = {"loss_cross_entropy": 2, "loss_mask": 5, "loss_dice": 5}
    worst = max(abs(f * first[k] - second[k.replace("loss_", "").replace("cross_entropy", "ce")]).item() / max(abs(f * first[k].item()), 1e-6)
                for k in first for start, f in factor.items() if k.startswith(start))
    rows, what = [], f"{name}: {size.decoder_layers} outputs, {chosen.images} images of {height} x {width}, {chosen.objects} objects each"
    for part, slow, fast in (("matching", match_theirs, match_ours), ("losses", theirs, ours),
                             ("losses and gradients", lambda: sum(theirs().values()).backward(), lambda: sum(ours().values()).backward())):
        a, b = cost(slow, chosen), cost(fast, chosen)
        rows.append((f"{what}, {part}", f"{a:.0f}", f"{b:.0f}", f"{a / b:.2f}", f"{worst:.0e}"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in dict(images=2, objects=10, height=512, width=1024, repeats=3, threads=1).items(): parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--save", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    rows = compare("published", SIZES["published"], chosen, chosen.height, chosen.width) + compare("demonstration", SIZES["demonstration"], chosen, 192, 192)
    table = pd.DataFrame(rows, columns=["what", "transformers, ms", "here, ms", "ratio", "losses differ by"])
    lines = ["| " + " | ".join(map(str, r)) + " |" for r in (tuple(table.columns), ("---",) * len(table.columns), *table.itertuples(index=False))]
    text = "\n".join([f"`python -m benchmarks.s4m_network {' '.join(sys.argv[1:])}`", "", machine(), "", *lines])
    print(text)
    if chosen.save: chosen.save.write_text(text + "\n")


if __name__ == "__main__": main()
