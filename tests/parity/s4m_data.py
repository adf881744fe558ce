"""Golden checks of S4M's data: mapper transforms, SSD and strong colours, and the paste augmentation (ARP), with the recorded draws.

`python -m tests.parity.s4m_data FOLDER` runs these alone; `tests.parity.s4m` calls `check`. Cases, sizes and counts come from the files.
"""
from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from sam_nb.datasets.colour import SSDColour, StrongColour
from sam_nb.datasets.instances import InstanceTransform, UnlabelledTransform, Window, crop_window, edge_choices, jitter_window, shortest_edge
from sam_nb.datasets.object_masks import MaskSet, RunLengths
from sam_nb.datasets.paste import PasteDraws, paste_instances
from tests.parity.checks import Checks, Stored, alone, facts, stored


def check(folder: Path, checks: Checks) -> None:
    "Every case of the folder's `transforms`, `arp` and `arp_more`, and the sizes in `schedules`."
    for name, function in (("transforms", transforms), ("arp", arp), ("arp_more", arp), ("schedules", sizes)):
        files = [folder / f"{name}.json"] + [folder / f"{name}.safetensors"] * (name != "schedules")
        missing = [f.name for f in files if not f.is_file()]
        if missing: checks.absent(f"data {name}", missing[0])
        else: checks.group(f"data {name}", partial(function, checks, name, *(r(f) for r, f in zip((facts, stored), files, strict=False))))


def unpacked(bits: Tensor,  # uint8 [n, H, ceil(W / 8)]
             width: int) -> Tensor:  # bool [n, H, W]
    return torch.from_numpy(np.unpackbits(bits.numpy(), axis=-1)[..., :width].copy()).bool()


# --- recorded draws -----------------------------------------------------------------------------------------------------------------

class Recorded(PasteDraws):
    "Draws that a published run made, one after the other: [name, value] or [name, arguments, value]."

    def __init__(self, draws: Sequence[Sequence[Any]]): self.left = [(d[0].rpartition(".")[2], d[-1]) for d in draws]

    def take(self, *names: str) -> Any:
        name, value = self.left.pop(0)
        if name not in names: raise ValueError(f"the published run drew {name} here, not {' or '.join(names)}")
        return value

    def order(self, count: int) -> list[int]: return self.take("shuffle")
    def scale(self, low: float, high: float) -> float: return self.take("uniform")
    def below(self, high: int) -> int: return self.take("randint")

    def ssd(self) -> SSDColour:
        "The colour change that the next draws mean."
        def some(name: str) -> Any: return self.take(name) if self.take("randrange") else None
        brightness = some("uniform")
        first = bool(self.take("randrange"))
        contrast = some("uniform") if first else None
        saturation, hue = some("uniform"), some("randint")
        return SSDColour(brightness, contrast if first else some("uniform"), saturation, hue, first)


def strong(seed: int, left: Sequence[tuple[str, Any]]) -> StrongColour:
    "Torch's draws from the seed; the blur's radius is a number of Python's generator."
    drawn = StrongColour.draw(torch.Generator().manual_seed(seed))
    return replace(drawn, blur=left[-1][1]) if drawn.blur else drawn


# --- transforms ---------------------------------------------------------------------------------------------------------------------

def transforms(checks: Checks, name: str, said: Stored, tensors: Stored) -> None:
    image = tensors["image"].permute(2, 0, 1)
    for case, one in said["cases"].items():
        run = partial(ssd if case.startswith("ssd") else mapped, checks, case, one, said, tensors.part(f"{case}."), image)
        checks.group(f"data transforms {case}", run)


def ssd(checks: Checks, case: str, one: Stored, said: Stored, tensors: Stored, image: Tensor) -> None:
    checks.equal(f"data transforms {case} image", Recorded(one["draws"]).ssd()(image), tensors["image"].permute(2, 0, 1))


def mapped(checks: Checks, case: str, one: Stored, said: Stored, tensors: Stored, image: Tensor) -> None:
    draws, city, size = Recorded(one["draws"]), case.startswith("city"), tuple(image.shape[-2:])
    window = city_window(said["cityscapes_like"], draws, size) if city else coco_window(said["coco_like"], draws, size)
    if "unl" in case: return unlabelled(checks, case, one, draws, tensors, image, window, city)
    colour = draws.ssd() if city else None
    if city: window = replace(window, flip=draws.take("uniform") < 0.5)
    listed = said["annotations"]
    masks = MaskSet(RunLengths([a["segmentation"] for a in listed], size), categories=[a["category_id"] for a in listed],
                    crowd=[bool(a["iscrowd"]) for a in listed])
    ours = InstanceTransform(keep_empty=city, released=True).apply({"image": image, "masks": masks}, window, colour)
    checks.equal(f"data transforms {case} image", ours["image"], tensors["image"])
    checks.equal(f"data transforms {case} classes", ours["labels"], tensors["classes"])
    checks.equal(f"data transforms {case} masks", ours["masks"], unpacked(tensors["masks_bits"], ours["image"].shape[-1]))
    if one.get("resized_image_hw"): checks.equal(f"data transforms {case} content", list(ours["content"]), one["resized_image_hw"])


def unlabelled(checks: Checks, case: str, one: Stored, draws: Recorded, tensors: Stored, image: Tensor, window: Window, city: bool) -> None:
    if city: window = replace(window, flip=draws.take("uniform") < 0.5)
    ours = UnlabelledTransform().apply({"image": image}, window, draws.ssd() if city else None)
    checks.equal(f"data transforms {case} image", ours["weak"], tensors["image"])
    checks.equal(f"data transforms {case} image_wo_weak", ours["clean"], tensors["image_wo_weak"])
    checks.equal(f"data transforms {case} image_aug", strong(one["seed"], draws.left)(ours["weak"]), tensors["image_aug"])


def city_window(said: Stored, draws: Recorded, size: tuple[int, int]) -> Window:
    whole = shortest_edge(size, draws.take("choice"), said["max_size"])
    return crop_window(size, whole, tuple(said["crop"]), draws.take("randint"), draws.take("randint"), False)


def coco_window(said: Stored, draws: Recorded, size: tuple[int, int]) -> Window:
    flip, scale, where = draws.take("uniform") < 0.5, draws.take("uniform"), draws.take("uniform")
    return jitter_window(size, (said["image_size"],) * 2, scale, where, flip)


# --- paste, sizes -------------------------------------------------------------------------------------------------------------------

def arp(checks: Checks, name: str, said: Stored, tensors: Stored) -> None:
    for case, one in said["cases"].items():
        checks.group(f"data {name} {case}", partial(pasted, checks, f"data {name} {case}", case, one, said, tensors.part(f"{case}.")))


def pasted(checks: Checks, title: str, case: str, one: Stored, said: Stored, tensors: Stored) -> None:
    count, dynamic = one["batch"], one.get("dynamic", case.startswith("dynamic"))
    images, labels = ([tensors[f"in{k}.{key}"] for k in range(count)] for key in ("image", "labels"))
    masks = [unpacked(tensors[f"in{k}.masks_full_bits"], image.shape[-1]) for k, image in enumerate(images)]
    draws = Recorded(one["draws"])
    ours = paste_instances(images, labels, masks, draws, "dynamic" if dynamic else "static", said["min_area"])
    for k, (image, label, mask) in enumerate(zip(*ours, strict=True)):
        quarter = tuple(n // 4 for n in image.shape[-2:])
        small = interpolate(mask.float()[None], size=quarter)[0] > 0.5 if len(mask) else mask.new_zeros(0, *quarter)
        checks.equal(f"{title} {k} image", image, tensors.get(f"out{k}.image_wo_weak", images[k]))
        checks.equal(f"{title} {k} labels", label, tensors[f"out{k}.labels"])
        checks.equal(f"{title} {k} masks", small, unpacked(tensors[f"out{k}.masks_bits"], quarter[1]))
    checks.equal(f"{title} draws left", [name for name, _ in draws.left if name != "uniform"], [])


def sizes(checks: Checks, name: str, said: Stored) -> None:
    for h, w, edge, longest, *wanted in said["shortest_edge"]: checks.equal(f"data shortest edge {h} x {w} {edge}", list(shortest_edge((h, w), edge, longest)), wanted)
    for h, w, scale, *wanted in said["lsj_resize"]: checks.equal(f"data scale jitter {h} x {w} {scale}", list(jitter_window((h, w), (1024, 1024), scale, 0, False).whole), wanted)
    checks.equal("data mapper sizes", list(edge_choices(1024)), said["mapper_min_sizes"])


if __name__ == "__main__": sys.exit(alone(check))
