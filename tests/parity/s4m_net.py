"""Golden checks of Mask2Former: key maps, features, outputs, losses and gradients of any size in the folder, Swin's features, post-processing.

`python -m tests.parity.s4m_net FOLDER` runs these alone; `tests.parity.s4m` calls `check`. Sizes, cases, draws and seeds come from the files.
"""
from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sam_nb.heads.mask2former import Mask2Former, QueryOutput, build_mask2former
from sam_nb.heads.mask2former_loss import _draw_shapes, match_queries, matching_costs
from sam_nb.heads.mask2former_size import MASK2FORMER_SIZES, Mask2FormerSize
from sam_nb.heads.mask2former_weights import load_weights, reference_names, size_of_reference, to_reference
from tests.parity.checks import Checks, Stored, alone, facts, moved, stored

NETWORKS = ("m2f_r50", "m2f_frozenbn")
UNLEARNED = ("criterion.empty_weight", "ssl_criterion.empty_weight")  # constants; the second has no place


def check(folder: Path, checks: Checks) -> None:
    "Every network of the folder (NETWORKS, and others of the name m2f_*), `swin_backbone`, `postprocess`, `keymap`; both precisions."
    checks.group("net keymap", partial(keymaps, checks, folder))
    checks.passes(partial(groups, checks, folder))


def groups(checks: Checks, folder: Path) -> None:
    for name in sorted({*NETWORKS, *(f.stem for f in folder.glob("m2f_*.json"))}):
        if absent(checks, folder, name): continue
        checks.group(f"net {name}", partial(network, checks, folder, name))
        checks.group(f"net {name} in training", partial(training, checks, folder, name), only="float32")
        for case in sorted(k for k in about(folder, name) if k.startswith("case")):
            checks.group(f"net {name} {case}", partial(losses, checks, folder, name, case))
    for name, function in (("swin_backbone", swin), ("postprocess", postprocess)):
        if not absent(checks, folder, name): checks.group(f"net {name}", partial(function, checks, folder, name))


def absent(checks: Checks, folder: Path, name: str) -> bool:
    missing = [f for f in (f"{name}.json", f"{name}.safetensors") if not (folder / f).is_file()]
    if missing: checks.absent(f"net {name}", missing[0])
    return bool(missing)


@lru_cache
def about(folder: Path, name: str) -> Stored: return facts(folder / f"{name}.json")


def tensors(folder: Path, name: str) -> Stored: return _tensors(folder, name, torch.get_default_dtype())


@lru_cache
def _tensors(folder: Path, name: str, dtype: torch.dtype) -> Stored: return stored(folder / f"{name}.safetensors")


def golden_model(folder: Path, name: str) -> Mask2Former:
    "The Mask2Former of a golden, with its weights, in evaluation mode; its size is read from the shapes of the weights."
    said, state = about(folder, name), tensors(folder, name).part("sd.")
    size, classes, norm = size_of_reference(state)
    own = {k: said[v] for k, v in (("oversample", "oversample"), ("importance", "importance"), ("no_object_weight", "no_object_weight")) if v in said}
    weights = {f"{k}_weight": said["loss_weights"][f"loss_{v}"] for k, v in (("class", "ce"), ("mask", "mask"), ("dice", "dice")) if "loss_weights" in said}
    size = replace(size, points=said["config"].get("points", said.get("points")), **own, **weights)
    model = build_mask2former(size, classes, "FrozenBN" if "Frozen" in said["config"].get("norm", norm) else "BN")
    load_weights(model, state)
    for part in ("mean", "std"):
        if f"pixel_{part}" in said: getattr(model, f"pixel_{part}").copy_(torch.tensor(said[f"pixel_{part}"])[:, None, None])
    return model.eval()


def unpacked(bits: Tensor,  # uint8 [n, H, ceil(W / 8)]
             width: int) -> Tensor:  # bool [n, H, W]
    return torch.from_numpy(np.unpackbits(bits.numpy(), axis=-1)[..., :width].copy()).bool()


class Moves:
    """What a network computes. Attention masks and the points of the loss come from comparisons, which rounding can turn.

    What is off by more than its tolerance may be off by three times the largest change that two moves of the weights by 2^-20 make.
    """

    def __init__(self, run: Callable[[int], dict[str, Tensor]]): self.run = run

    @cached_property
    def ours(self) -> dict[str, Tensor]: return self.run(0)

    @cached_property
    def others(self) -> list[dict[str, Tensor]]: return [self.run(1), self.run(2)]

    def allowed(self, key: str, off: float, scale: float, tolerance: float) -> float:
        if off <= tolerance * scale: return tolerance
        return max(tolerance, 3 * max((o[key] - self.ours[key]).abs().max().item() for o in self.others) / scale)

    def number(self, checks: Checks, name: str, key: str, theirs: float, tolerance: float) -> None:
        ours = self.ours[key].item()
        if not theirs: return checks.add(name, abs(ours), 1e-7)
        checks.number(name, ours, theirs, self.allowed(key, abs(ours - theirs), abs(theirs), tolerance))

    def close(self, checks: Checks, name: str, key: str, theirs: Tensor, tolerance: float) -> None:
        ours, scale = self.ours[key], theirs.abs().max().item()
        checks.close(name, ours, theirs, self.allowed(key, (ours - theirs).abs().max().item(), scale, tolerance))


@torch.no_grad()
def pairs(checks: Checks, name: str, model: Mask2Former, output: QueryOutput, masks: list, labels: list, draws: list, t: Stored) -> None:
    "Matched queries and objects of every output (the last one first) and image."
    answers, batch = [(output.class_logits, output.mask_logits), *output.aux], len(labels)
    each = len(draws) // len(answers)
    costs = [matching_costs([c[i] for c, _ in answers], [m[i] for _, m in answers], masks[i].to(output.mask_logits), labels[i],
                            [draws[k * each + i] for k in range(len(answers))], model.size) for i in range(batch)]
    found, starts = match_queries(costs), np.cumsum([0, *map(len, labels)])
    for k, (image, query, target) in enumerate(found):
        for i in range(batch):
            ours = torch.stack([query[image == i], target[image == i] - starts[i]])
            checks.equal(f"{name}: pairs of output {k}, image {i}", ours, t[f"match{k}.img{i}"])


# --- forward ------------------------------------------------------------------------------------------------------------------------

def network(checks: Checks, folder: Path, name: str) -> None:
    said, t, model = about(folder, name), tensors(folder, name), golden_model(folder, name)
    keys = {k: list(v.shape) for k, v in to_reference(model).items()}
    checks.equal(f"net {name}: names and shapes", keys, {k: v for k, v in said["state_keys"].items() if k != UNLEARNED[1]})
    moves = Moves(lambda seed: computed(golden_model(folder, name), seed, list(t["in.images"])))
    for key in sorted(k for k in t if k.startswith("feat.")): checks.close(f"net {name}: {key}", moves.ours[key], t[key], 1e-5)
    for key in sorted(k for k in t if k.startswith("out.")): moves.close(checks, f"net {name}: {key}", key, t[key], 1e-5)


@torch.no_grad()
def computed(model: Mask2Former, seed: int, images: list[Tensor]) -> dict[str, Tensor]:
    "Features and outputs; with a seed, of weights moved by 2^-20."
    if seed: moved(model, seed)
    pixels = model.prepare(images)
    maps, output = model.net.model.pixel_level_module(pixels, output_hidden_states=True), model(pixels)
    found = {f"feat.res{k + 2}": m for k, m in enumerate(maps.encoder_hidden_states)} | {"feat.mask_features": output.mask_features}
    return found | {f"feat.multi_scale{k}": m for k, m in enumerate(maps.decoder_hidden_states)} | outputs("out.", output)


def outputs(prefix: str, output: QueryOutput) -> dict[str, Tensor]:
    found = {f"{prefix}pred_logits": output.class_logits, f"{prefix}pred_masks": output.mask_logits}
    for k, (classes, masks) in enumerate(output.aux): found |= {f"{prefix}aux{k}.pred_logits": classes, f"{prefix}aux{k}.pred_masks": masks}
    return found


@torch.no_grad()
def training(checks: Checks, folder: Path, name: str) -> None:
    """A forward pass in training mode: outputs by the batch's statistics, and the running ones after it.

    A batch of two small maps has few values a channel, so rounding moves the outputs and flips cells of attention masks: they may be off by three
    times the largest change that two moves of the weights by 2^-20 make.
    """
    t = tensors(folder, name)
    keys = sorted(k for k in t if k.startswith("trainbn."))

    def run(seed: int) -> dict[str, Tensor]:
        model = golden_model(folder, name)
        if seed: moved(model, seed)
        return outputs("trainbn.", model.train()(model.prepare(list(t["in.images"])))) | {f"trainbn.{k}": v for k, v in to_reference(model).items()}
    found, others = run(0), [run(1), run(2)] if keys else []
    for key in keys:
        spread = max((o[key] - found[key]).abs().max().item() for o in others) / t[key].abs().max().item()
        checks.close(f"net {name}: {key}", found[key], t[key], 1e-5 if "running" in key else max(1e-5, 3 * spread))


# --- losses -------------------------------------------------------------------------------------------------------------------------

def drawn(size: Mask2FormerSize, counts: list[int], seed: int) -> Iterator[Tensor]:
    "Torch's draws after a seed, in float32 whatever precision is computed in."
    generator = torch.Generator().manual_seed(seed)
    for shape in _draw_shapes(size, counts): yield torch.from_numpy(np.empty(shape, np.float32)).uniform_(generator=generator)


def losses(checks: Checks, folder: Path, name: str, case: str) -> None:
    said, t, model = about(folder, name)[case], tensors(folder, name).part(f"{case}."), golden_model(folder, name)
    images = list(tensors(folder, name)["in.images"])
    labels = [t[f"tgt{i}.labels"] for i in range(len(images))]
    masks = [unpacked(t[f"tgt{i}.masks_bits"], image.shape[-1]) for i, image in enumerate(images)]
    counts = [len(lab) for lab in labels]
    draws = [d.to(torch.get_default_dtype()) for d in drawn(model.size, counts, said["torch_seed"])]
    if "rand0" in t and not checks.single:
        theirs = [t[f"rand{i}"] for i in range(len(draws))]
        checks.equal(f"net {name} {case}: shapes of draws", [list(d.shape) for d in theirs], [list(d.shape) for d in draws])
        checks.close(f"net {name} {case}: draws", torch.cat([d.flatten() for d in draws]), torch.cat([d.flatten() for d in theirs]), 0.0)
        draws = theirs
    with torch.no_grad(): output = model(model.prepare(images))
    pairs(checks, f"net {name} {case}", model, output, masks, labels, draws, t)
    moves = Moves(lambda seed: learned(golden_model(folder, name), seed, images, masks, labels, draws, bool(said.get("grad_norms"))))
    for key, value in {**said["losses"], "total": said["total"]}.items():
        moves.number(checks, f"net {name} {case}: {key}", key, value, 1e-6 if key.startswith("loss_ce") else 1e-5)
    if said.get("grad_norms"): gradients(checks, f"net {name} {case}", moves, said["grad_norms"], t.part("grad."))


def learned(model: Mask2Former, seed: int, images: list, masks: list, labels: list, draws: list, backward: bool) -> dict[str, Tensor]:
    "Losses, their sum, and gradients by published names; with a seed, of weights moved by 2^-20."
    if seed: moved(model, seed)
    found = model.set_losses(model(model.prepare(images)), masks, labels, draws=draws)
    total = sum(found.values())
    values = {f"loss_{k}": v.detach() for k, v in found.items()} | {"total": total.detach()}
    if not backward: return values
    total.backward()
    params = dict(model.net.named_parameters())
    grads = {theirs: torch.cat([params[n].grad for n in ours]) for theirs, ours in reference_names(params).items() if params[ours[0]].grad is not None}
    return values | {f"grad.{k}": g for k, g in grads.items()}


def gradients(checks: Checks, name: str, moves: Moves, norms: dict[str, float], full: Stored) -> None:
    grads = {k.removeprefix("grad."): g for k, g in moves.ours.items() if k.startswith("grad.")}
    checks.equal(f"{name}: parameters with a gradient", sorted(grads), sorted(k for k, v in norms.items() if v is not None))
    largest = max(v for v in norms.values() if v)  # a bias before a norm has no gradient but rounding
    def worst(of: Callable[[str], float]) -> float: return max(abs(grads[k].norm().item() - of(k)) / (v + 0.01 * largest) for k, v in norms.items() if k in grads)
    off, tolerance = worst(norms.get), 1e-4
    if off > tolerance: tolerance = max(tolerance, 3 * max(worst(lambda k, o=o: o[f"grad.{k}"].norm().item()) for o in moves.others))
    checks.add(f"{name}: {len(norms)} gradient norms", off, tolerance)
    for key, value in full.items(): moves.close(checks, f"{name}: gradient of {key}", f"grad.{key}", value, 1e-4)


# --- parts --------------------------------------------------------------------------------------------------------------------------

@torch.no_grad()
def swin(checks: Checks, folder: Path, name: str) -> None:
    said, t = about(folder, name), tensors(folder, name)
    c = said["config"]
    backbone = dict(kind="swin", embed_dim=c["swin_dim"], depths=c["swin_depths"], num_heads=c["swin_heads"], window_size=c["swin_window"])
    model = build_mask2former(replace(MASK2FORMER_SIZES["tiny"], backbone=backbone), c["classes"]).eval()
    state = t.part("sd.")
    load_weights(model, {k: v for k, v in state.items() if k.startswith("backbone.")})
    ours = {k: list(v.shape) for k, v in to_reference(model).items() if k.startswith("backbone.")}
    checks.equal(f"net {name}: names and shapes", ours, {k: list(v.shape) for k, v in state.items() if k in ours} | {
        k: v for k, v in said.get("state_keys", {}).items() if k.startswith("backbone.") and not k.endswith("relative_position_index")})
    for case in sorted({k.split(".")[0] for k in t if k.startswith("case")}):
        pixels = (t[f"{case}.images"].to(model.pixel_mean) - model.pixel_mean) / model.pixel_std
        for k, found in enumerate(model.backbone(pixels).feature_maps):
            if f"{case}.res{k + 2}" in t: checks.close(f"net {name}: {case}.res{k + 2}", found, t[f"{case}.res{k + 2}"], 1e-5)


@torch.no_grad()
def postprocess(checks: Checks, folder: Path, name: str) -> None:
    said, t = about(folder, name), tensors(folder, name)
    if absent(checks, folder, said["model"]): return
    model, size = golden_model(folder, said["model"]), tuple(said["output_hw"])
    output = model(model.prepare([t["in.image"]]))
    checks.equal(f"net {name}: padded size", list(output.padded_size), said["padded_hw"])
    checks.close(f"net {name}: class logits", output.class_logits, t["pred_logits"], 1e-5)
    checks.close(f"net {name}: mask logits", output.mask_logits, t["pred_masks"], 1e-5)
    given = QueryOutput(t["pred_logits"], t["pred_masks"])
    found = model.instances(given, content=[said["input_hw"]], original=[size], at_most=said["topk"])[0]
    checks.close(f"net {name}: scores", found.scores, t["out.scores"], 1e-5)
    checks.equal(f"net {name}: classes", found.labels, t["out.classes"])
    checks.add(f"net {name}: pixels of masks that differ", (found.masks ^ unpacked(t["out.masks_bits"], size[1])).sum().item(), 0)


def keymaps(checks: Checks, folder: Path) -> None:
    if not (folder / "keymap.json").is_file(): return checks.absent("net keymap", "keymap.json")
    for name, wanted in facts(folder / "keymap.json").items(): keymap(checks, f"net keymap {name}", wanted)


def keymap(checks: Checks, name: str, wanted: dict[str, Any]) -> None:
    "The published keys of a full-size network, and where each goes; its size is read from the shapes."
    with torch.device("meta"):
        size, classes, norm = size_of_reference({k: torch.empty(v["shape"]) for k, v in wanted.items()})
        model = Mask2Former(size.values, classes, norm)
    state, placed = model.net.state_dict(), {k: v["to"] for k, v in wanted.items() if v["to"]}
    names = reference_names(state)
    checks.equal(f"{name}: {len(wanted)} keys", names, {k: [n for n, _ in to] for k, to in placed.items()})
    rows = {k: [len(state[n]) if len(ours) > 1 else 0 for n in ours] for k, ours in names.items()}
    checks.equal(f"{name}: rows", rows, {k: [r[1] - r[0] if r else 0 for _, r in to] for k, to in placed.items()})
    shapes = {k: [sum(len(state[n]) for n in ours), *state[ours[0]].shape[1:]] if state[ours[0]].ndim else [] for k, ours in names.items()}
    checks.equal(f"{name}: shapes", shapes, {k: wanted[k]["shape"] for k in placed})


if __name__ == "__main__": sys.exit(alone(check))
