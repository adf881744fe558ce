"""What RemoteSAM's names of one image cost together, against the released schedule of single calls, from the same parts.

    python -m benchmarks.remotesam names [--names 1,4,16] [--side 896] [--repeat 3]   # masks of names of one image
    python -m benchmarks.remotesam channel [--side 896] [--repeat 15]              # two classes as one channel: enlarged, and made a mask

The released schedule is one call a name: image resized and encoded, name tokenised and encoded, a graph for gradients kept, two channels enlarged,
softmax, argmax, mask and probability resized to the image. Each schedule runs in turn; times are processor seconds of one thread, medians.
"""
from __future__ import annotations

import argparse
import os
import resource
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from sam_nb.datasets.transforms import Normalise, ResizeSquare
from sam_nb.encoders.sentences import vocabulary_of
from sam_nb.heads.rotated import enlarge
from sam_nb.methods.remotesam import RemoteSAM
from tests.parity.checks import machine

CLASSES = ["airplane", "airport", "baseballfield", "basketballcourt", "bridge", "chimney", "dam", "golffield", "groundtrackfield", "harbor", "overpass",
           "ship", "stadium", "storagetank", "tenniscourt", "trainstation", "vehicle", "windmill", "roundabout", "helicopter"]
SENTENCES = [f"{c} in the image" for c in CLASSES]


def published(side: int) -> RemoteSAM:
    "The published size with random weights and the words of the sentences."
    torch.manual_seed(0)
    pieces = vocabulary_of(SENTENCES)
    text = dict(vocab_size=len(pieces), hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072, max_position_embeddings=512)
    return RemoteSAM(image_size=side, text=text).set_vocabulary(pieces).eval()


def one(model: RemoteSAM, image: np.ndarray, sentence: str) -> Tensor:  # bool [H, W]
    "A call as released."
    pixels, side, size = torch.from_numpy(image.copy()).permute(2, 0, 1), (model.image_size,) * 2, image.shape[:2]
    ready = ResizeSquare(model.image_size, Normalise(), by_pillow=True)({"image": pixels, "original_size": size, "content_size": size})
    logits = enlarge(model.classifier(model.maps(model.encode(ready["image"][None]), model.read([sentence]))), side)
    probability, chosen = logits.softmax(1)[:, 1:], logits.argmax(1)[:, None].float()
    F.interpolate(probability, size, mode="nearest")
    return F.interpolate(chosen, size, mode="nearest")[0, 0].bool()


def one_by_one(model: RemoteSAM, image: np.ndarray, sentences: list[str]) -> Tensor:  # bool [N, H, W]
    return torch.stack([one(model, image, sentence) for sentence in sentences])


def together(model: RemoteSAM, image: np.ndarray, sentences: list[str]) -> Tensor:
    return torch.from_numpy(model.segment(image, sentences).masks)


def timed(function: Callable, *arguments) -> tuple[Tensor, float]:
    start = time.process_time()
    return function(*arguments), time.process_time() - start


SCHEDULES = {"one by one, as released": lambda *a: one_by_one(*a), "one by one, no graph": torch.no_grad()(one_by_one), "together": together}


def names(chosen: argparse.Namespace) -> str:
    model = published(chosen.side)
    image = np.random.default_rng(0).integers(0, 256, (chosen.side, chosen.side, 3), np.uint8)
    lines = []
    for count in chosen.names:
        seconds, found = {name: [] for name in SCHEDULES}, {}
        for _ in range(chosen.repeat):
            for name, schedule in SCHEDULES.items():
                found[name], spent = timed(schedule, model, image, SENTENCES[:count])
                seconds[name].append(spent / count)
        medians = {name: statistics.median(s) for name, s in seconds.items()}
        differing = (found["together"] != found["one by one, no graph"]).float().mean().item()
        lines.append({"names": count, **medians, **{f"{name}: times": medians[name] / medians["together"] for name in list(SCHEDULES)[:2]}, "pixels that differ": f"{differing:.0e}"})
    table = pd.DataFrame(lines).set_index("names").round(2)
    rows = ["| " + " | ".join(str(v) for v in row) + " |" for row in (["names", *table.columns], ["---"] * (1 + len(table.columns)), *table.itertuples())]
    text = "\n".join(rows)
    return f"{chosen.side} x {chosen.side}, seconds a name\n\n{text}\n\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB"


def channel(chosen: argparse.Namespace) -> str:
    "From what the decoder gives at stride 4 to masks."
    logits, side = torch.randn(1, 2, chosen.side // 4, chosen.side // 4), (chosen.side,) * 2

    def two() -> Tensor: return enlarge(logits, side).argmax(1)
    def one() -> Tensor: return enlarge(logits[:, 1:] - logits[:, :1], side)[:, 0] > 0
    seconds = {"two channels": [], "one channel": []}
    for _ in range(chosen.repeat):
        for name, function in (("two channels", two), ("one channel", one)):
            with torch.no_grad(): seconds[name].append(timed(function)[1])
    a, b = (statistics.median(s) for s in seconds.values())
    differing = (two().bool() != one()).sum().item()
    return f"two channels {1e3 * a:.1f} ms, one {1e3 * b:.1f} ms: {a / b:.1f} x; {differing} of {chosen.side**2} pixels differ"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("names", "channel"))
    parser.add_argument("--names", type=lambda text: [int(n) for n in text.split(",")], default=[1, 4, 16])
    parser.add_argument("--side", type=int, default=896)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    words = shlex.join(w for w, before in zip(sys.argv[1:], sys.argv) if "--save" not in (w, before))
    said = f"{machine()}, load {os.getloadavg()[0]:.1f}\n\n{ {'names': names, 'channel': channel}[chosen.what](chosen)}"
    print(said)
    if chosen.save: chosen.save.write_text(f"`python -m benchmarks.remotesam {words}`\n\n{said}\n")


if __name__ == "__main__": main()
