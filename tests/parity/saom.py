"Golden checks of SAOM. Sizes, class counts and names are read from the folder's JSON files."
from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from scipy.spatial import cKDTree
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn

from sam_nb.datasets.object_masks import MaskSet, RunLengths
from sam_nb.datasets.saom_files import load_saom_metadata
from sam_nb.evaluation.object_points import name_scores, released_lines
from sam_nb.heads.everything import Everything, EverythingOptions
from sam_nb.heads.grid_assignment import GRID_PIXELS, Assignment, location_prior, mask_cells, object_similarity, resize_masks
from sam_nb.heads.promptable import ImageFeatures, embed_prompts, with_decoder_steps
from sam_nb.losses import mask_dice, sigmoid_focal
from sam_nb.masks import crop_boxes, mask_to_rle, masks_to_boxes, near_crop_edge, nms, remove_small_regions, rle_area, stability_score
from sam_nb.methods.saom import SAOM, _freeze
from sam_nb.optim import schedule
from sam_nb.prompts import Prompts, point_grid
from sam_nb.weights import load_state
from tests.parity.checks import Checks, Stored
from tests.parity.checks import facts as facts_of
from tests.parity.checks import stored as read


def run(folder: Path) -> Checks:
    "Every golden check of the folder."
    torch.set_num_threads(min(2, torch.get_num_threads()))
    checks = Checks()
    groups = {"grids": ("saom_grids.npz", grids), "forward": ("saom_forward.safetensors", forward), "train": ("saom_train.safetensors", train, "float64"),
              "everything mode": ("saom_amg.safetensors", everything), "masks and losses": ("saom_utils.safetensors", utilities),
              "metadata file": ("dataset/metadata.json", dataset, "float32"), "evaluation": ("eval/expected.json", evaluation, "float32")}
    checks.passes(lambda: _all(checks, folder, groups))
    return checks


def _all(checks: Checks, folder: Path, groups: Mapping) -> None:
    for name, (needed, function, *only) in groups.items():
        if (folder / needed).exists(): checks.group(name, lambda function=function: function(checks, folder), *only)
        else: checks.absent(name, needed)


# --- the tiny model --------------------------------------------------------------------------------------------------------------

def package_sam(config: dict) -> Sam:
    "A SAM of segment-anything's own classes with the golden's sizes."
    side, c, patch = config["img_size"], config["prompt_embed_dim"], config["patch_size"]
    encoder = ImageEncoderViT(img_size=side, patch_size=patch, embed_dim=config["enc_dim"], depth=config["enc_depth"], num_heads=config["enc_heads"],
                              mlp_ratio=4, out_chans=c, qkv_bias=True, norm_layer=partial(nn.LayerNorm, eps=1e-6), use_rel_pos=True,
                              window_size=config["window"], global_attn_indexes=config["global_attn"])
    prompts = PromptEncoder(embed_dim=c, image_embedding_size=(side // patch,) * 2, input_image_size=(side, side), mask_in_chans=config["mask_in_chans"])
    transformer = TwoWayTransformer(depth=config["dec_depth"], embedding_dim=c, mlp_dim=config["dec_mlp"], num_heads=config["dec_heads"])
    decoder = MaskDecoder(transformer_dim=c, transformer=transformer, num_multimask_outputs=3, iou_head_depth=3, iou_head_hidden_dim=config["iou_hidden"])
    return Sam(encoder, prompts, decoder)


def golden_saom(config: dict, state: dict[str, Tensor], **switches) -> SAOM:
    "SAOM with the golden's weights (released layout: `model.*`, `classifier.*`)."
    names = [f"class {i}" for i in range(config["class_num"])]
    model = SAOM(backbone="tiny_sam", classes=names, grid_frame="released", truncate_coords=True, **switches)
    model.model, model.image_size = with_decoder_steps(package_sam(config)), config["img_size"]
    model.classifier = nn.Linear(config["prompt_embed_dim"], config["class_num"])
    load_state(model, state)
    _freeze(model)
    return model.eval()


def start(tensors: Stored) -> Stored: return tensors.part("sd.")


def a_batch(model: SAOM, image: Tensor, masks: Tensor, labels: Tensor) -> dict:
    "One image [H, W, 3] as a batch of the training."
    size = tuple(image.shape[:2])
    ready = model.frame()({"image": image.permute(2, 0, 1), "original_size": size, "content_size": size})
    target = MaskSet(RunLengths(mask_to_rle(masks.bool()), size), categories=labels.long())
    return {"image": ready["image"][None], "content_size": torch.tensor([ready["content_size"]]), "original_size": torch.tensor([size]),
            "target": [target], "object_index": torch.arange(len(masks)), "image_index": torch.zeros(len(masks), dtype=torch.int64)}


# --- forward ---------------------------------------------------------------------------------------------------------------------

def forward(checks: Checks, folder: Path) -> None:
    tensors, facts = read(folder / "saom_forward.safetensors"), facts_of(folder / "saom_model.json")
    cases = sorted({k.split(".")[0] for k in tensors if not k.startswith("sd.")})
    for case in cases:
        own, about = tensors.part(f"{case}."), facts["forward"].part(f"{case}.")
        model = golden_saom(facts["config"], start(tensors), decay_unused=True)
        checks.group(case, lambda case=case, own=own, about=about, model=model: one_case(checks, case, own, about, model))


def one_case(checks: Checks, case: str, own: dict, about: dict, model: SAOM) -> None:
    masks, keep, content = own["masks"].bool(), own["keep"].bool(), tuple(about["input_size"])
    batch = a_batch(model, own["image"], own["masks"], own["labels"])
    checks.equal(f"{case}: size in the square", tuple(batch["content_size"][0].tolist()), content)
    with torch.no_grad(): features = model.encode(batch["image"])
    checks.close(f"{case}: features", features.embedding, own["features"], 1e-5)
    pictures = resize_masks(masks, content)
    if "ref_masks_ch0" in own: checks.add(f"{case}: mask pictures, grey levels", (pictures.int() - own["ref_masks_ch0"].int()).abs().max(), 1)
    else: checks.absent(f"{case}: mask pictures", "ref_masks_ch0")
    cells = mask_cells(own.get("ref_masks_ch0", pictures), model.image_size, features.embedding.shape[-1])
    checks.equal(f"{case}: cells of masks", cells, own["mask_cells"].bool())
    checks.equal(f"{case}: masks kept", cells.flatten(1).any(1), keep)
    similarity = object_similarity(own["features"][0], cells[keep])
    prior, sure = location_prior(similarity, model.image_size, content, masks.shape[1:]), torch.tensor(about["prior_top1_margin"]) > 1e-5
    checks.equal(f"{case}: location priors", prior[sure], own["prior_xy"][sure].long())
    for key in (k for k in own if k.startswith("nearest_xy.")):
        name = key.split(".")[1]
        assign = Assignment(tuple(int(n) for n in name.split("x")), frame="released", truncate=True)
        near = assign.nearest(own["prior_xy"], content, masks.shape[1:])
        checks.equal(f"{case}, grid {name}: nearest points", near, own[key].double())
        scaled = (near * torch.tensor([content[1] / masks.shape[2], content[0] / masks.shape[1]])).trunc()
        checks.equal(f"{case}, grid {name}: in the square", scaled, own[f"model_xy.{name}"].double())
    for grid in sorted({k.split(".")[0] for k in own if k.startswith("g") and k.split(".")[0][1:2].isdigit()}):
        with_points(checks, case, grid, own, about, model, batch, features, keep)


def with_points(checks: Checks, case: str, grid: str, own: dict, about: dict, model: SAOM, batch: dict, features: ImageFeatures, keep: Tensor) -> None:
    get, name = (lambda key: own[f"{grid}.{key}"]), f"{case}, grid {grid[1:]}"
    points, chosen = own[f"model_xy.{grid[1:]}"].float(), keep.nonzero()[:, 0]
    prompts, index = Prompts.from_points(points), torch.zeros(len(points), dtype=torch.int64)
    with torch.no_grad():
        checks.close(f"{name}: point embeddings", embed_prompts(model.model, prompts)[0], get("sparse"), 1e-5)
        answer = model.decode(features, index, prompts)
    checks.close(f"{name}: quality tokens", answer.iou_tokens, get("iou_token"), 1e-5)
    checks.close(f"{name}: predicted IoU", answer.predicted_iou, get("iou_pred"), 1e-5)
    checks.equal(f"{name}: chosen masks", answer.predicted_iou.argmax(1), get("best").long())
    checks.close(f"{name}: class logits", model.classify(answer.iou_tokens), get("entity_logits"), 1e-5)
    size, content = batch["original_size"][0].tolist(), batch["content_size"][0].tolist()
    if f"{grid}.low_res_logits" in own: checks.close(f"{name}: low-resolution logits", answer.logits, get("low_res_logits"), 1e-5)
    whole = torch.stack([model.to_original(answer.logits[:, k], content, size) for k in range(3)], 1)
    if f"{grid}.high_res_logits" in own: checks.close(f"{name}: logits of the image's size", whole, get("high_res_logits"), 2e-5)
    if f"{grid}.selected_logits" in own: checks.close(f"{name}: chosen logits", whole[index * 0 + torch.arange(len(points)), get("best").long()], get("selected_logits"), 2e-5)
    fixed = lambda *args, **kwargs: (points, chosen)
    model.assignment = SimpleNamespace(points=fixed, kind="nearest")
    losses = model.losses(batch)
    for term, golden in zip(("dice", "focal", "class"), get("losses_dice_focal_ce").tolist(), strict=True): checks.number(f"{name}: {term} loss", losses[term].item(), golden, 1e-4)
    if (expected := about.get(f"{grid}.grad_norm")) is None: return
    model.zero_grad(); sum(losses.values()).backward()
    worst, missing, noise = 0.0, [], 1e-5 * max(g or 0 for g in expected.values())  # biases of keys: zero but for rounding
    for parameter, p in model.named_parameters():
        norm, golden = None if p.grad is None else p.grad.norm().item(), expected[parameter]
        if not golden:
            if norm: missing.append(parameter)
        elif norm is None: missing.append(parameter)
        else: worst = max(worst, abs(norm - golden) / max(golden, noise))
    checks.add(f"{name}: gradient norms", worst, 1e-3)
    checks.equal(f"{name}: parameters with a gradient", missing, [])


# --- training --------------------------------------------------------------------------------------------------------------------

def train(checks: Checks, folder: Path) -> None:
    tensors, facts = read(folder / "saom_train.safetensors"), facts_of(folder / "saom_model.json")
    about = facts["train"]
    grid = tuple(about.get("grid", (64, 64)))
    model = golden_saom(facts["config"], start(tensors), decay_unused=True, grid="x".join(map(str, grid)))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    settings = about["optim"]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], settings["lr"], betas=tuple(settings["betas"]), eps=settings["eps"], weight_decay=settings["weight_decay"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings["T_max"], settings["eta_min"])
    epoch = 0
    for i, step in enumerate(about["steps"]):
        if step["epoch"] != epoch: schedule.step(); epoch = step["epoch"]
        data = tensors.part(f"data{step['sample']}.")
        batch = a_batch(model, data["image"], data["masks"], data["labels"])
        losses = model.losses(batch)
        for term, key in (("dice", "dice"), ("focal", "focal"), ("class", "ce")): checks.number(f"step {i}: {key}", losses[term].item(), step[key], 1e-4)
        checks.number(f"step {i}: learning rate", optimizer.param_groups[0]["lr"], step["lr"], 1e-6)
        optimizer.zero_grad(); sum(losses.values()).backward()
        norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm().item()
        checks.number(f"step {i}: gradient norm", norm, step["grad_norm"], 1e-3)
        optimizer.step()
    state = model.state_dict()
    for key in (k for k in tensors if k.startswith("after.")): checks.close(key, state[key.removeprefix("after.")], tensors[key], 1e-4, relative=False)
    for key, (norm, _) in about["after_norm"].items(): checks.add(f"norm after: {key}", abs(state[key].norm().item() - norm), 1e-3)
    same = {k for k, p in model.named_parameters() if "image_encoder" not in k and torch.equal(p, before[k])}
    checks.equal(f"unchanged, and nothing else ({sorted(same ^ set(about['unchanged']))})", same, set(about["unchanged"]))
    checks.equal("image encoder unchanged", all(torch.equal(state[k], before[k]) for k in state if "image_encoder" in k), True)


# --- grids and everything mode ---------------------------------------------------------------------------------------------------

def grids(checks: Checks, folder: Path) -> None:
    golden = np.load(folder / "saom_grids.npz")
    for key in golden.files:
        kind, name, *rest = key.split("_")
        if kind == "grid" and name != "px": checks.close(key, torch.from_numpy(point_grid(*map(int, name.split("x")))), torch.from_numpy(golden[key]), 1e-12, relative=False)
        if kind == "grid" and name == "px": checks.equal(key, (GRID_PIXELS * point_grid(*map(int, rest[0].split("x")))).astype(np.int64).tolist(), golden[key].tolist())
        if kind == "nearest":
            (h, w), grid = map(int, rest[0].split("x")), (GRID_PIXELS * point_grid(*map(int, name.split("x")))).astype(np.int64)
            y, x = np.mgrid[:h, :w]
            checks.equal(key, bool((cKDTree(grid).query(np.stack([x, y], -1))[1] == golden[key]).all()), True)
        if kind == "layers":
            options = EverythingOptions(grid=tuple(map(int, name.split("x"))), crop_n_layers=int(rest[0][1:]), crop_n_points_downscale_factor=int(rest[1][1:]))
            checks.close(key, torch.from_numpy(point_grid(*options.grid_of(int(rest[2])))), torch.from_numpy(golden[key]), 1e-12, relative=False)


def everything(checks: Checks, folder: Path) -> None:
    tensors, facts = read(folder / "saom_amg.safetensors"), facts_of(folder / "saom_amg.json")
    model = golden_saom(facts["config"], start(tensors))
    for run_, expected in facts["runs"].items():
        options = dict(expected["config"])
        options["grid"] = options.pop("points_per_side", None) or (options.pop("n_points_x"), options.pop("n_points_y"))
        generator = Everything(model, class_order="released", **options)
        ours = generator.generate(tensors[run_.split(".")[0] + ".image"].numpy(), output_mode="uncompressed_rle")
        theirs = expected["records"]
        checks.equal(f"{run_}: masks", len(ours), len(theirs))
        checks.equal(f"{run_}: boxes, areas, crops", [[a["bbox"], a["area"], a["crop_box"]] for a in ours], [[b["bbox"], b["area"], b["crop_box"]] for b in theirs])
        checks.equal(f"{run_}: run lengths", [a["segmentation"] for a in ours], [b["segmentation"] for b in theirs])
        for key, tolerance in (("predicted_iou", 1e-4), ("stability_score", 2e-3)):
            checks.close(f"{run_}: {key}", torch.tensor([a[key] for a in ours]), torch.tensor([b[key] for b in theirs]), tolerance, relative=False)
        if theirs and "class" in theirs[0]: checks.equal(f"{run_}: classes as released", [a["class"] for a in ours], [b["class"] for b in theirs])
        if "point_class" in expected: right_classes(checks, run_, model, tensors, options, expected)


def right_classes(checks: Checks, run_: str, model: SAOM, tensors: dict, options: dict, expected: dict) -> None:
    "With the classes in the right order, each mask has that of its point."
    if options.get("crop_n_layers"): return
    image = tensors[run_.split(".")[0] + ".image"].numpy()
    ours = Everything(model, **options).generate(image)
    where = point_grid(*options["grid"]) * np.array(image.shape[1::-1])
    numbers = [int(np.abs(where - np.array(a["point_coords"][0])).sum(1).argmin()) for a in ours]
    checks.equal(f"{run_}: classes of the points", [a["class"] for a in ours], [expected["point_class"][n] for n in numbers])


# --- masks, losses, schedule, data -----------------------------------------------------------------------------------------------

def utilities(checks: Checks, folder: Path) -> None:
    golden, facts = read(folder / "saom_utils.safetensors"), facts_of(folder / "saom_utils.json")
    masks, areas = golden["logits"] > 0, facts["small.areas"]
    checks.close("stability", stability_score(golden["logits"]).nan_to_num(-1), golden["stability"].nan_to_num(-1), 1e-6, relative=False)
    checks.equal("boxes", masks_to_boxes(masks).long(), golden["boxes"].long())
    runs = mask_to_rle(masks, compress=False)
    checks.equal("run lengths", [r["counts"] for r in runs], [r["counts"] for r in facts["rles"]])
    checks.equal("COCO's run lengths", [r["counts"] for r in mask_to_rle(masks)], [r["counts"] for r in facts["coco_rles"]])
    checks.equal("areas", rle_area(mask_to_rle(masks)).tolist(), facts["areas"])
    for i, area in enumerate(areas): small_regions(checks, masks, area, {k: golden[f"small.{k}"][i * len(masks):(i + 1) * len(masks)] for k in ("holes", "islands", "changed")})
    for name, (boxes, layers) in facts["crop_boxes"].items():
        size, layer, ratio = name.split("_")
        ours = crop_boxes(tuple(map(int, size.split("x"))), int(layer[1:]), float(ratio[1:]))
        checks.equal(f"crops {name}", [t.tolist() for t in ours], [boxes, layers])
    crop, image = facts["near_edge"]["crop"], facts["near_edge"]["orig"]
    checks.equal("near the edge of a crop", near_crop_edge(golden["nms.boxes"], crop, (image[3], image[2])), golden["near_edge"].bool())
    for name in (n for n in golden if n.startswith("nms.keep_")):
        checks.equal(name, nms(golden["nms.boxes"], golden["nms.scores"], float(name.removeprefix("nms.keep_"))), golden[name].long())
    logits, targets = golden["loss.logits"][:, None], golden["loss.targets"][:, None]  # one row of pixels each
    checks.close("dice", mask_dice(logits, targets).sum().view(1), golden["loss.dice"], 1e-6)
    checks.close("focal", sigmoid_focal(logits, targets).sum().view(1), golden["loss.focal"], 1e-6)
    for epoch, lr in facts["lr_per_epoch_T500"].items(): checks.number(f"learning rate of epoch {epoch}", 1e-3 * schedule("cosine_epoch", int(epoch) * 7 + 3, 500 * 7, per_epoch=7), lr, 1e-6)


def small_regions(checks: Checks, masks: Tensor, area: int, golden: dict[str, Tensor]) -> None:
    "Holes first, then islands of what that left."
    filled = [remove_small_regions(m, area, "holes") for m in masks]
    cleaned = [remove_small_regions(m, area, "islands") for m, _ in filled]
    checks.equal(f"holes below {area} pixels", torch.stack([m for m, _ in filled]), golden["holes"].bool())
    checks.equal(f"islands below {area} pixels", torch.stack([m for m, _ in cleaned]), golden["islands"].bool())
    checks.equal(f"changed below {area} pixels", [[a, b] for (_, a), (_, b) in zip(filled, cleaned, strict=True)], golden["changed"].bool().tolist())


def dataset(checks: Checks, folder: Path) -> None:
    "The items of a metadata file, and its masks resized as the image is."
    expected, facts = read(folder / "dataset/expected.safetensors"), facts_of(folder / "dataset/expected.json")
    data = load_saom_metadata(folder / "dataset/metadata.json", "val")
    for i, about in facts["items"].items():
        sample, ours = data[int(i)], {k.split(".", 1)[1]: v for k, v in expected.items() if k.startswith(f"{i}.")}
        masks = sample["masks"][torch.arange(len(sample["masks"]))]
        checks.equal(f"item {i}: name", sample["name"], about["image_name"])
        checks.equal(f"item {i}: image", sample["image"].permute(1, 2, 0).contiguous().as_subclass(Tensor), ours["image"])
        checks.equal(f"item {i}: masks", masks.flatten(1).float(), ours["gt_masks"])
        checks.equal(f"item {i}: classes", sample["masks"].categories, ours["labels"].long())
        pictures = resize_masks(masks, tuple(ours["ref_masks"].shape[2:]))
        checks.close(f"item {i}: resized masks", pictures.float(), ours["ref_masks"][:, 0].float(), 1, relative=False)


# --- evaluation ------------------------------------------------------------------------------------------------------------------

def evaluation(checks: Checks, folder: Path) -> None:
    expected = facts_of(folder / "eval/expected.json")
    variants = {"released": dict(substring_classes=True, stale_gt_bug=True), "stale_fixed": dict(substring_classes=True), "stale_fixed_exact_class": {}}
    for name, flags in variants.items():
        checks.equal(f"published measure, {name}", released_lines(name_scores(folder / "eval/gt", folder / "eval/pred", **flags)), expected[name])
