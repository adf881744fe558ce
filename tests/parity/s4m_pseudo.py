"""Golden checks of S4M's helper: pseudo-labels, SAM's refinement of them, structural distillation.

`python -m tests.parity.s4m_pseudo FOLDER` runs these alone. Sizes, counts and seeds come from the files.
"""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sam_nb.encoders.sam2 import VIDEO_KEYS
from sam_nb.heads.distillation import SimilarityTarget, distillation_loss, draw_query_points, query_cells, sam_similarity, student_similarity
from sam_nb.heads.point_decoder import PointDecoder
from sam_nb.heads.promptable import View, embed_prompts, encode_images
from sam_nb.heads.pseudo_labels import PseudoLabels, cell_points, pseudo_labels_of_batch
from sam_nb.heads.refinement import best_masks, encode_views, label_prompts, refine
from sam_nb.methods.promptable import Promptable
from sam_nb.prompts import Prompts
from sam_nb.weights import load_state
from tests.parity.checks import Checks, Stored, alone
from tests.parity.checks import facts as facts_of
from tests.parity.checks import stored as read

PIXELS = 3  # of a refined mask that may differ: logits next to zero


def check(folder: Path, checks: Checks) -> None:
    "Every golden check of this part."
    checks.passes(lambda: _all(folder, checks))


def _all(folder: Path, checks: Checks) -> None:
    groups = {"pseudo-labels": ("pseudo_labels", labels), "SAM": ("sam", sam), "query points": ("sd_teacher_step", query_points, "float32"),
              "structural distillation": ("sd_teacher_step", distillation), "refinement": ("student_steps", refinement)}
    for name, (needed, function, *only) in groups.items():
        if (folder / f"{needed}.safetensors").exists(): checks.group(name, lambda function=function: function(folder, checks), *only)
        else: checks.absent(name, f"{needed}.safetensors")


def unpacked(bits: Tensor, width: int) -> Tensor:  # uint8 [..., ceil(width / 8)] -> bool [..., width]
    return torch.from_numpy(np.unpackbits(bits.numpy(), axis=-1)[..., :width].astype(bool))


def numbered(tensors: Mapping, name: str) -> list[int]:
    "The numbers i of the keys `name` + i."
    return sorted(int(k.removeprefix(name)) for k in tensors if k.removeprefix(name).isdigit() and k.startswith(name))


# --- pseudo-labels ---------------------------------------------------------------------------------------------------------------

def labels(folder: Path, checks: Checks) -> None:
    t, about = read(folder / "pseudo_labels.safetensors"), facts_of(folder / "pseudo_labels.json")
    found = pseudo_labels_of_batch(t["pred_logits"], t["pred_masks"], about.get("thresh_class", 0.7), about.get("mask_size", 5))
    checks.equal("labels an image", [len(f) for f in found], about["counts"])
    for i, own in enumerate(found):
        checks.equal(f"image {i}: classes", own.labels, t[f"labels{i}"])
        checks.equal(f"image {i}: masks", own.masks, t[f"masks{i}"].bool())
        checks.equal(f"image {i}: logits", own.logits, t[f"mask_logits{i}"])


# --- SAM -------------------------------------------------------------------------------------------------------------------------

def golden_sam(folder: Path) -> Promptable:
    "The golden's SAM 2, sizes read from its config and tensors."
    config, state = facts_of(folder / "sam.json")["config"], {k.removeprefix("sam."): v for k, v in read(folder / "sam.safetensors").items()}
    trunk = "image_encoder.trunk."
    size = {k: config[k] for k in ("embed_dim", "stages", "global_att_blocks", "d_model", "num_heads", "window_spec", "fpn_top_down_levels") if k in config}
    size["window_pos_embed_bkg_spatial_size"] = tuple(state[trunk + "pos_embed"].shape[2:])
    size.setdefault("window_spec", (state[trunk + "pos_embed_window"].shape[-1], 4, 14, 7))
    model = Promptable(backbone={"family": "sam2", "size": size, "image_size": config["image_size"], "version": "2"}).eval()
    model.model.sam_mask_decoder.dynamic_multimask_via_stability = False  # the reference's predictor has no post-processing
    load_state(model.model, state, optional=VIDEO_KEYS)
    return model


def sam(folder: Path, checks: Checks) -> None:
    "Every tensor of the file is used, and the model encodes and answers."
    model, state = golden_sam(folder), read(folder / "sam.safetensors")
    own = model.model.state_dict()
    checks.equal("weights", all(torch.equal(own[k.removeprefix("sam.")], v) for k, v in state.items()), True)
    side = model.image_size
    checks.equal("features are finite", bool(encode_images(model.model, torch.zeros(1, 3, side, side)).embedding.isfinite().all()), True)


# --- structural distillation -----------------------------------------------------------------------------------------------------

def sd_images(t: Stored) -> list[int]: return numbered(t, "img")


def query_points(folder: Path, checks: Checks) -> None:
    "The published draws, from the seed: one random stream over the images."
    t, about = read(folder / "sd_teacher_step.safetensors"), facts_of(folder / "sd_teacher_step.json")
    generator = torch.Generator().manual_seed(about["torch_seed"])
    for i in sd_images(t):
        golden = t[f"prompt_wh{i}"].flatten(0, -2).flip(-1).long()
        masks = unpacked(t[f"masks_bits{i}"], t[f"img{i}"].shape[-1])
        drawn = draw_query_points(masks, tuple(about["resized_image_hw"][i]), len(golden), generator=generator)
        checks.equal(f"image {i}: query points", drawn, golden)


def distillation(folder: Path, checks: Checks) -> None:
    t, about = read(folder / "sd_teacher_step.safetensors"), facts_of(folder / "sd_teacher_step.json")
    model, side = golden_sam(folder), about["feat_res"]
    views, targets = encode_views(model, [t[f"img{i}"] for i in sd_images(t)]), []
    for i, view in zip(sd_images(t), views, strict=True):
        points, content = t[f"prompt_wh{i}"].flatten(0, -2).flip(-1).long(), tuple(about["resized_image_hw"][i])
        found = sam_similarity(view, points, content, "reference", chunk=5)
        golden = t[f"coords_hw_long{i}"].flatten(0, -2)
        checks.equal(f"image {i}: feature cells", found.cells, golden[:, 0] * side + golden[:, 1])
        checks.close(f"image {i}: SAM's similarity", found.similarity, t[f"sam_sim{i}"], 1e-5)
        aligned = sam_similarity(view, points, content, "aligned")
        checks.equal(f"image {i}: cells of the prompts", aligned.cells, query_cells(points, (side, side), view.original_size))
        for key in (k for k in t if k.startswith("sam_tokens_first") and k.endswith(f"_{i}")): first_tokens(checks, f"image {i}", model, view, points, t[key])
        targets.append(SimilarityTarget(found.cells, t[f"sam_sim{i}"], found.grid, found.size))
    features = t["mask_features"].clone().requires_grad_()
    for i, target in enumerate(targets): checks.close(f"image {i}: the student's similarity", student_similarity(features[i], target.cells, target.grid), t["student_sim"][i], 1e-5)
    loss = distillation_loss(features, targets)
    loss.backward()
    checks.number("distillation loss", loss.item(), about["loss_sd"], 1e-5)
    checks.close("gradient of the mask features", features.grad, t["mask_features_grad_sd"], 1e-5)


@torch.no_grad()
def first_tokens(checks: Checks, name: str, model: Promptable, view: View, points: Tensor, golden: Tensor) -> None:
    "The image tokens behind the decoder in steps and behind the shared first layer, for the first points."
    scale = torch.tensor([model.image_size / n for n in view.original_size]).flip(0)
    some = points[:len(golden)].flip(1) * scale
    sparse, dense = embed_prompts(model.model, Prompts.from_points(some))
    decoder = model.mask_decoder
    _, image = decoder.attend(decoder.tokens(sparse, len(some)), view.features.embedding + dense, model.prompt_encoder.get_dense_pe())
    checks.close(f"{name}: tokens of the decoder in steps", image.flatten(2).transpose(1, 2), golden, 1e-5)
    checks.close(f"{name}: tokens of the shared first layer", PointDecoder(model.model, view.features).image_tokens(some), golden, 1e-5)


# --- refinement ------------------------------------------------------------------------------------------------------------------

def refinement(folder: Path, checks: Checks) -> None:
    "SAM's masks for the published points of every step; weights of SAM and images are the same in all."
    t, about = read(folder / "student_steps.safetensors"), facts_of(folder / "student_steps.json")
    model = golden_sam(folder)
    images = [t[f"unl{i}.image_wo_weak"] for i in range(len({k.split(".")[0] for k in t if k.startswith("unl")}))]
    weak = [(image.numpy().astype(np.float32) * 0.9 + 10).astype(np.uint8) for image in images]  # as the golden's `weak_image` says
    views = encode_views(model, [torch.from_numpy(w) for w in weak])
    for step in about["its"]:
        drawn = [torch.tensor(d[1]) for d in step["draws"] if d[0] == "np.choice"]
        for i, view in enumerate(views):
            own, name = t.part(f"it{step['iter']}.pl{i}."), f"step {step['iter']}, image {i}"
            cells, drawn = drawn[:step["images"][i]["n"]], drawn[step["images"][i]["n"]:]
            if cells: refined(checks, name, view, own, torch.stack(cells))


def refined(checks: Checks, name: str, view: View, own: Stored, cells: Tensor) -> None:
    height, width = view.original_size
    grid, n = (height // 4, width // 4), len(cells)
    points = cell_points(cells, grid[1]) * 4
    checks.equal(f"{name}: points", points, own["points_xy"].float())
    logits = own.get("mask_logits", torch.zeros(n, *grid))
    asked = PseudoLabels(own["labels"].long(), logits > 0, logits, torch.ones(n), torch.arange(n))
    found = refine(view, asked, cells=cells)
    checks.equal(f"{name}: prompts", label_prompts(view, asked, cells=cells).points, own["points_xy"].float())
    answer = view.ask(Prompts.from_points(own["points_xy"].float()), multimask=True)
    checks.close(f"{name}: predicted IoU", answer.predicted_iou, own["sam_iou"], 1e-5)
    checks.close(f"{name}: highest predicted IoU", found.predicted_iou, own["sam_iou"].amax(1), 1e-5)
    if "sam_low_res" in own:
        low = best_masks(view, found.prompts)[2].clamp(-32, 32)
        checks.close(f"{name}: low-resolution logits", low, own["sam_low_res"], 1e-5)
    for ours, key, wide in ((found.masks, "refined_full_bits", width), (found.small, "refined_quarter_bits", grid[1])):
        checks.add(f"{name}: {key.removesuffix('_bits')}, pixels", (ours != unpacked(own[key], wide)).flatten(1).sum(1).max(), PIXELS)


if __name__ == "__main__": raise SystemExit(alone(check))
