"Golden checks of SARTM. Sizes, class counts and names are read from the folder's JSON files."
from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTextModelWithProjection

from sam_nb.datasets.rgbt import RGBTDataset
from sam_nb.datasets.transforms import AugmentParams, Normalise, PadTo, SegmentationAugment
from sam_nb.encoders.lora import lora_from_released, lora_to_released, merge_lora
from sam_nb.encoders.sam2 import SAM2_SIZES
from sam_nb.encoders.text import class_relation, clip_config, clip_from_openai
from sam_nb.losses import (
    PrototypeBank,
    class_counts,
    class_prototypes,
    nearest_labels,
    ohem_cross_entropy,
    over_outputs,
    prototype_loss,
    relation_loss,
    semantic_cross_entropy,
    semantic_dice,
)
from sam_nb.methods.sartm import SARTM
from sam_nb.methods.sartm_recipe import RELEASED, SARTM_PRESETS, SartmRecipe
from sam_nb.methods.sartm_weights import released_name
from sam_nb.metrics import SemanticScores
from sam_nb.optim import decay_groups, schedule
from sam_nb.recipe import check_recipe
from sam_nb.weights import load_state
from tests.parity.checks import Checks
from tests.parity.checks import facts as facts_of
from tests.parity.checks import stored as read

TIGHT = 1e-5


def run(folder: Path) -> Checks:
    "Every golden check of the folder."
    torch.set_num_threads(min(2, torch.get_num_threads()))
    checks = Checks()
    whole = "components.json" if (folder / "components.json").exists() else "components_small.json"  # the repository's own folder has fewer cases
    groups = {"tiny": ("tiny.json", tiny), "components": (whole, components), "full layout": ("layout_full_bplus.json", full_layout, "float64"), "real size": ("realsize.json", real_size)}
    checks.passes(lambda: _all(checks, folder, groups))
    return checks


def _all(checks: Checks, folder: Path, groups: Mapping) -> None:
    for name, (needed, function, *only) in groups.items():
        if (folder / needed).exists(): checks.group(name, lambda function=function: function(checks, folder), *only)
        else: checks.absent(name, needed)


# --- the tiny model --------------------------------------------------------------------------------------------------------------

def tiny_size(config: Mapping) -> dict:
    "A Sam2Size from the golden's configuration."
    return dict(embed_dim=config["embed_dim"], num_heads=config["num_heads"], stages=config["stages"], global_att_blocks=config["global_att_blocks"],
                window_pos_embed_bkg_spatial_size=config["bkg"], window_spec=config["window_spec"], d_model=config["D"], decoder_mlp_dim=config["M"],
                iou_hidden=config["IOUH"], fpn_top_down_levels=config["fpn"])


def tiny_model(folder: Path, config: Mapping, text: Tensor | None = None, **switches) -> SARTM:
    "The golden weights through the loader for released checkpoints."
    width = {"text_dim": text.shape[1]} if text is not None else {}
    model, _ = SARTM.from_released(folder / "tiny_weights.safetensors", classes=config["names"], image_size=config["S"], backbone=tiny_size(config), **width, **switches)
    if text is not None: model.set_text(text)
    return model


def tiny(checks: Checks, folder: Path) -> None:
    about, io = facts_of(folder / "tiny.json"), read(folder / "tiny_io.safetensors")
    config = about["config"]
    batch = {"image": io["in.rgb"], "thermal": io["in.thermal"], "semantic": io["in.label"].long()}
    for group in (tiny_forward, tiny_fusion, tiny_gate, tiny_units, tiny_text):
        checks.group(group.__name__, lambda group=group: group(checks, folder, about, io, batch))
    for kind in ("train_released", "train_fixed"):
        if kind in about: checks.group(kind, lambda kind=kind: tiny_training(checks, folder, about, io, batch, kind), "float64")
    wanted = {k for k in about["weight_keys"] if not k.startswith("model_clip.")}
    model = tiny_model(folder, config)
    checks.equal("tiny: every live key has a place of its shape", sorted(wanted - _reached(model, wanted, about)), [])


def _reached(model: SARTM, keys: set[str], about: Mapping) -> set[str]:
    "Those of the released keys that have a place of the right shape in `model`."
    there = lora_to_released({k: v for k, v in model.state_dict().items()}, model.switches.lora_pairs)
    own = {k: tuple(v.shape) for k, v in there.items()}
    return {k for k in keys if own.get(released_name(k)) == tuple(about["weight_keys"][k])}


@torch.no_grad()
def tiny_forward(checks: Checks, folder: Path, about: Mapping, io: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
    model = tiny_model(folder, about["config"])
    f0, f1, f2 = model.encode(batch)
    checks.close("encoder: stride 4, conv_s0", f0, io["eval.fpn0"], TIGHT)
    checks.close("encoder: stride 8, conv_s1", f1, io["eval.fpn1"], TIGHT)
    checks.close("encoder: stride 16", f2, io["eval.feat"], TIGHT)
    sparse, dense, image_pe = model._prompts(f2.shape[-2:])
    masks = model.mask_decoder(f2, image_pe, sparse, dense, [f0, f1], with_predicted_iou=True)
    checks.close("decoder: predicted IoU", masks.predicted_iou, io["eval.ious"], TIGHT)
    out = model(batch, parts=("decoder",))
    checks.close("decoder: low-res logits after the gate", out.low_res, io["eval.low_res"], TIGHT)
    checks.close("decoder: object logit", out.object_logit, io["eval.obj_logit"], TIGHT)
    checks.close("m_output (mean of both images)", out.logits, io["eval.m_output"], TIGHT)
    checks.equal("arg-max", out.logits.argmax(1).to(torch.uint8), io["eval.pred"])
    merge_lora(model.image_encoder)
    merged = model(batch, parts=("decoder",)).logits
    checks.close("m_output, adapters merged", merged, io["eval.m_output"], TIGHT)
    checks.equal("arg-max, adapters merged", merged.argmax(1).to(torch.uint8), io["eval.pred"])


@torch.no_grad()
def tiny_fusion(checks: Checks, folder: Path, about: Mapping, io: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
    for kind, inputs in (("eval_released", "rgb_rgb"), ("eval_fixed", "rgb_thermal")):
        model = tiny_model(folder, about["config"], fusion_inputs=inputs)
        features = model.encode(batch)
        rgb, thermal = zip(*(level.chunk(2) for level in features), strict=True)
        for i, frm in enumerate(model.fusion.FRMs):
            pair = torch.stack(frm(rgb[i], rgb[i] if inputs == "rgb_rgb" else thermal[i]))
            stride = round(pair.shape[-1] / io[f"{kind}.frm{i}"].shape[-1])
            checks.close(f"{kind}: FRM {i}", pair[..., ::stride, ::stride], io[f"{kind}.frm{i}"], TIGHT)
        out = model(batch, parts=("aux", "fused"))
        for key in sorted(k for k in io if k.startswith(f"{kind}.fused")):
            level, _, stride = key.removeprefix(f"{kind}.fused").partition("_s")
            ours = out.fused[int(level)]
            checks.close(f"{kind}: fused level {level}", ours[..., ::int(stride or 1), ::int(stride or 1)], io[key], TIGHT)
        for key in (k for k in io if k.startswith(f"{kind}.aux")):
            stride = int(key.partition("_s")[2] or 1)
            checks.close(f"{kind}: auxiliary logits", out.aux_logits[..., ::stride, ::stride], io[key], TIGHT)


@torch.no_grad()
def tiny_gate(checks: Checks, folder: Path, about: Mapping, io: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
    model = tiny_model(folder, about["config"])
    model.mask_decoder.pred_obj_score_head.layers[2].bias.fill_(about["gate"]["mixed_bias"])
    out = model(batch, parts=("decoder",))
    checks.close("gate closed for some: object logit", out.object_logit, io["eval_released_gatemixed.obj_logit"], TIGHT)
    low = torch.nn.functional.avg_pool2d(out.logits, out.logits.shape[-1] // io["eval_released_gatemixed.m_output_low"].shape[-1])
    checks.close("gate closed for some: m_output, pooled (absolute)", low, io["eval_released_gatemixed.m_output_low"], 1e-3, relative=False)


@torch.no_grad()
def tiny_units(checks: Checks, folder: Path, about: Mapping, io: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
    model = tiny_model(folder, about["config"])
    for block in sorted({k.split(".")[2] for k in io if k.startswith("unit.lora_qkv.")}):
        layer = model.image_encoder.trunk.blocks[int(block.removeprefix("block"))].attn.qkv
        checks.close(f"unit: adapted qkv of {block}", layer(io[f"unit.lora_qkv.{block}.in"]), io[f"unit.lora_qkv.{block}.out"], TIGHT)
        checks.close(f"unit: merged qkv of {block}", layer.merged()(io[f"unit.lora_qkv.{block}.in"]), io[f"unit.lora_qkv.{block}.out"], TIGHT)
    for i, (frm, ffm) in enumerate(zip(model.fusion.FRMs, model.fusion.FFMs, strict=True)):
        pair = io[f"unit.frm{i}.in"]
        rectified = torch.stack(frm(*pair))
        checks.close(f"unit: FRM {i}", rectified, io[f"unit.frm{i}.out"], TIGHT)
        checks.close(f"unit: FFM {i}", ffm(*io[f"unit.frm{i}.out"]), io[f"unit.ffm{i}.out"], TIGHT)


@torch.no_grad()
def tiny_text(checks: Checks, folder: Path, about: Mapping, io: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
    checks.close("text: softmax of similarities", class_relation(io["text.features"]), io["text.softmax_sim"], TIGHT)
    features = golden_clip(folder, io)
    checks.close("text: CLIP features through transformers", features, io["text.features"], TIGHT)


def golden_clip(folder: Path, io: Mapping[str, Tensor]) -> Tensor:
    "Text features of the golden's token ids by the golden's CLIP text tower."
    state = {k.removeprefix("model_clip."): v for k, v in read(folder / "tiny_weights.safetensors").items() if k.startswith("model_clip.")}
    ids, rows = state.pop("token_embedding.used_ids").long(), state.pop("token_embedding.used_rows")
    table = torch.zeros(49408, rows.shape[1])
    table[ids] = rows
    named, heads = clip_from_openai({**state, "token_embedding.weight": table}), facts_of(folder / "tiny.json")["config"]["clip"]["heads"]
    clip = CLIPTextModelWithProjection(clip_config(named, heads)).eval()
    load_state(clip, named, optional=[r"position_ids"])
    return clip(input_ids=io["text.ids"].long()).text_embeds


def tiny_training(checks: Checks, folder: Path, about: Mapping, io: Mapping[str, Tensor], batch: Mapping[str, Tensor], kind: str) -> None:
    switches = {**RELEASED, "aux_random": False, "fusion_inputs": "rgb_rgb" if kind == "train_released" else "rgb_thermal"}
    model = tiny_model(folder, about["config"], io["text.features"], **switches).train()
    model.aux_head.requires_grad_(False)  # the release never trains it
    optimizer = torch.optim.AdamW(decay_groups(model, check_recipe(SartmRecipe, {"dataset": "demo", "lr": 1e-4}, SARTM_PRESETS)), betas=(0.9, 0.999), eps=1e-8)
    for number, theirs in enumerate(about[kind]):
        start = {k: v.clone() for k, v in model.state_dict().items()}
        with torch.no_grad(): fused = model(batch, parts=("fused",)).fused[2]
        model.load_state_dict(start)
        terms = model.losses(batch)
        if number == 0: training_maps(checks, kind, io, model, batch, fused)
        for name, key, rtol in (("decoder", "loss_sam", 1e-5), ("aux", "loss_aux", 1e-5), ("prototype", "proto", 5e-3), ("text", "kl", 1e-5)):
            checks.number(f"{kind}: step {number} {key}", terms[name].item(), theirs[key], rtol)
        checks.number(f"{kind}: step {number} total", sum(terms.values()).item(), theirs["total"], 1e-5)
        checks.close(f"{kind}: running prototypes after step {number}", model.prototypes.prototypes, io[f"{kind}.step{number}.prototypes_global"], TIGHT)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        gradients(checks, kind, number, model, batch, theirs, io, start)
        optimizer.step()
    after_steps(checks, kind, model, io)


def training_maps(checks: Checks, kind: str, io: Mapping[str, Tensor], model: SARTM, batch: Mapping[str, Tensor], fused: Tensor) -> None:
    K, labels = len(model.classes), nearest_labels(batch["semantic"], fused.shape[-2:])
    prototypes = class_prototypes(fused, labels, K, mode="released")
    checks.close(f"{kind}: fused features", fused, io[f"{kind}.fused2"], TIGHT)
    checks.close(f"{kind}: batch prototypes", prototypes, io[f"{kind}.batch_prototypes"], TIGHT)
    checks.close(f"{kind}: prototype loss map (absolute)", prototype_loss(prototypes, model.prototypes.prototypes), io[f"{kind}.proto_loss_map"], 1e-7, relative=False)
    checks.close(f"{kind}: KL map (absolute)", relation_loss(prototypes, model.text_features), io[f"{kind}.kl_map"], 1e-6, relative=False)


def released_gradients(model: SARTM) -> dict[str, Tensor]:
    "Gradients under the released names; a parameter that no loss reaches has none."
    own = {n: p.grad for n, p in model.named_parameters() if p.requires_grad and p.grad is not None}
    split = lora_to_released(own, model.switches.lora_pairs)
    def back(name: str) -> str:
        for new, old in (("prompt_encoder.", "sam.sam_prompt_encoder."), ("mask_decoder.", "sam.sam_mask_decoder."), ("image_encoder.", "sam.image_encoder."), ("fusion.", "")):
            if name.startswith(new): return old + name.removeprefix(new)
        return name
    return {back(k): v for k, v in split.items()}


def norm_errors(model: SARTM, norms: Mapping[str, float]) -> list[tuple[float, str]]:
    "Relative errors of the gradient norms, worst first. Norms below 1e-7 are rounding noise (biases that a normalisation removes): ours must be below 1e-6."
    ours = released_gradients(model)
    errors = [(abs(ours[k].norm().item() - v) / v if v > 1e-7 else max(0.0, ours[k].norm().item() - 1e-6), k) for k, v in norms.items() if v > 0 and k in ours]
    return sorted(errors, reverse=True)


def settle_kinks(model: SARTM, batch: Mapping[str, Tensor], norms: Mapping[str, float], start: Mapping[str, Tensor], near: float = 1e-6) -> list[str]:
    """A unit that rounding puts within `near` of zero before a ReLU may pass or block its gradient. Take the ones that bring the norms closer on the other side.

    The gradients of `model` are left as found best; returns the units that were turned.
    """
    layers = {n: m for n, m in model.named_modules() if not n.startswith("image_encoder.") and n.endswith(("channel_proj1", "channel_proj2", "spatial_weights.mlp.0", "channel_embed.1", "mlp.layers.0"))}
    turned: dict[str, list[int]] = {}
    close: list[tuple[str, int, float]] = []
    def watch(name: str):
        def hook(module, inputs, out):
            flat = out.detach().flatten()
            if not turned: close.extend((name, i, flat[i].item()) for i in (flat.abs() < near).nonzero().flatten().tolist())
            if name not in turned: return None
            shift = torch.zeros_like(flat)
            for i in turned[name]: shift[i] = -2 * flat[i] if flat[i] else near
            return out + shift.view_as(out)
        return hook
    handles = [m.register_forward_hook(watch(n)) for n, m in layers.items()]
    def attempt() -> float:
        model.load_state_dict(start)
        model.zero_grad()
        sum(model.losses(batch).values()).backward()
        return norm_errors(model, norms)[0][0]
    best, kept = attempt(), []
    for name, i, value in sorted(close, key=lambda c: abs(c[2]))[:12]:
        turned.setdefault(name, []).append(i)
        if (error := attempt()) < best: best = error; kept.append(f"unit {i} of {name.removeprefix('fusion.')} at {value:.0e}")
        else:
            turned[name].remove(i)
            turned = {n: u for n, u in turned.items() if u} or {"": []}
    attempt()
    for handle in handles: handle.remove()
    return kept


def gradients(checks: Checks, kind: str, number: int, model: SARTM, batch: Mapping[str, Tensor], theirs: Mapping, io: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> None:
    norms, said = theirs.get("grad_norms"), ""
    if norms and norm_errors(model, norms)[0][0] > 1e-4:
        kept = settle_kinks(model, batch, norms, start)
        said = f", with {'; '.join(kept)} on the other side of a ReLU" if kept else ""
    ours = released_gradients(model)
    if theirs.get("total_grad_norm"): checks.number(f"{kind}: step {number} total gradient norm", torch.stack([g.norm() for g in ours.values()]).norm().item(), theirs["total_grad_norm"], 1e-4)
    if not norms: return
    checks.equal(f"{kind}: the same parameters have gradients", sorted(ours), sorted(k for k, v in norms.items() if v > 0))
    worst = norm_errors(model, norms)[0]
    checks.add(f"{kind}: {len(norms)} gradient norms, worst {worst[1].rsplit('trunk.')[-1]}{said}", worst[0], 1e-4)
    for key in (k for k in io if k.startswith(f"{kind}.grad.")):
        name = key.removeprefix(f"{kind}.grad.")
        checks.close(f"{kind}: gradient of {name.rsplit('trunk.')[-1]}", ours[name], io[key], 1e-4)


def after_steps(checks: Checks, kind: str, model: SARTM, io: Mapping[str, Tensor]) -> None:
    now = lora_to_released(model.state_dict(), model.switches.lora_pairs)
    for key in (k for k in io if k.startswith(f"{kind}.bn.")):
        name = key.removeprefix(f"{kind}.bn.")
        checks.close(f"{kind}: {name} after two steps", now[released_name(name)], io[key], 5e-5)
    for key in (k for k in io if k.startswith(f"{kind}.after2.")):
        short = key.removeprefix(f"{kind}.after2.")
        full = released_name(short if short.split(".")[0] in ("FRMs", "FFMs") or short.startswith("sam.") else _full_name(short, now))
        checks.close(f"{kind}: {short} after two steps (absolute)", now[full], io[key], 2e-5, relative=False)


def _full_name(short: str, names: Mapping) -> str:
    "`blocks.1.qkv.linear_b_q` -> the one name that has these parts in this order."
    parts = short.split(".")
    def fits(name: str) -> bool:
        rest = iter(name.split("."))
        return all(part in rest for part in parts)
    found = [n for n in names if fits(n)]
    if len(found) != 1: raise KeyError(f"{short} fits {found}")
    return found[0]


# --- components ------------------------------------------------------------------------------------------------------------------

def components(checks: Checks, folder: Path) -> None:
    name = "components" if (folder / "components.json").exists() else "components_small"
    about, io = facts_of(folder / f"{name}.json"), read(folder / f"{name}.safetensors")
    for group in (losses, prototypes): checks.group(group.__name__, lambda group=group: group(checks, folder, about, io))
    for group in (augmentation, metrics, schedules, tokens, palettes, mini_datasets):  # pictures are bytes and float32
        checks.group(group.__name__, lambda group=group: group(checks, folder, about, io), "float32")


def _uint8_sample(io: Mapping[str, Tensor], prefix: str) -> dict:
    image, thermal, mask = (io[f"{prefix}.{k}"] for k in ("img", "thermal", "mask"))
    size = tuple(image.shape[-2:])
    return {"image": image, "thermal": thermal, "semantic": mask[0], "name": prefix, "original_size": size, "content_size": size}


def augmentation(checks: Checks, folder: Path, about: Mapping, io: Mapping[str, Tensor]) -> None:
    for i, case in enumerate(about["train_aug"]):
        if f"aug{i}.in.img" not in io: checks.absent(f"augmentation {i}", "its tensors"); continue
        known = {k: v for k, v in case["params"].items() if k in AugmentParams.__dataclass_fields__}
        out = SegmentationAugment(tuple(case["size"]), released=True).apply(_uint8_sample(io, f"aug{i}.in"), AugmentParams(**known))
        jittered = 1.01 / 255 / 0.224 if known.get("jit") else 1e-6
        checks.close(f"augmentation {i}: image (absolute)", out["image"], io[f"aug{i}.out.img"], jittered, relative=False)
        checks.close(f"augmentation {i}: thermal (absolute)", out["thermal"], io[f"aug{i}.out.thermal"], 1e-6, relative=False)
        checks.equal(f"augmentation {i}: label", out["semantic"].to(torch.uint8), io[f"aug{i}.out.mask"][0])
    if "val.in.img" not in io: return checks.absent("validation transform", "its tensors")
    out = PadTo(tuple(about["val_size"]), larger="crop")(_uint8_sample(io, "val.in"))
    checks.close("validation transform: image (absolute)", out["image"], io["val.out.img"], 1e-6, relative=False)
    checks.close("validation transform: thermal (absolute)", out["thermal"], io["val.out.thermal"], 1e-6, relative=False)
    checks.equal("validation transform: label", out["semantic"].to(torch.uint8), io["val.out.mask"][0])


def metrics(checks: Checks, folder: Path, about: Mapping, io: Mapping[str, Tensor]) -> None:
    theirs = about["metrics"]
    if "metric.logits0" in io:
        scores = SemanticScores(len(theirs["ious"]))
        for i in range(sum(k.startswith("metric.logits") for k in io)): scores.update(io[f"metric.logits{i}"].softmax(1).argmax(1), io[f"metric.label{i}"].long())
        ours = scores.compute()
    else: return checks.absent("metrics", "metric.logits*")
    checks.equal("metrics: confusion matrix", ours["confusion"].double(), io["metric.hist"].double())
    for one, mean, mine in (("ious", "miou", "iou"), ("f1s", "mf1", "f1"), ("accs", "macc", "acc")):
        values = torch.tensor(theirs[one], dtype=torch.float64)
        rounded = torch.tensor([round(v, 2) for v in ours[mine].tolist()], dtype=torch.float64)
        checks.close(f"metrics: {one} (percent, two decimals, absolute)", rounded, values, 1e-5, relative=False)
        checks.add(f"metrics: {mean}", abs(round(float(ours[f"m{mine}"]), 2) - theirs[mean]), 1e-9)


def schedules(checks: Checks, folder: Path, about: Mapping, io: Mapping[str, Tensor]) -> None:
    for name, values in about["schedules"].items():
        kind, ipe, epochs, warm = name.split("_")
        if kind != "warmuppolylr": continue  # the release's other three are broken and unused
        per_epoch, epochs, warmup = int(ipe.removeprefix("ipe")), int(epochs.removeprefix("ep")), int(warm.removeprefix("wu"))
        ours = {t: 1e-4 * schedule("warmup_poly", int(t), epochs * per_epoch, per_epoch, warmup * per_epoch, 0.9) for t in values}
        worst = max(abs(ours[t] - v) / max(v, 1e-12) for t, v in values.items())
        checks.add(f"schedule {name}: {len(values)} steps, worst", worst, 1e-6)


def losses(checks: Checks, folder: Path, about: Mapping, io: Mapping[str, Tensor]) -> None:
    if "loss.logits" not in io: return checks.absent("losses", "loss.logits")
    x, y, theirs = io["loss.logits"], io["loss.label"].long(), about["losses"]
    ours = {"CrossEntropy": semantic_cross_entropy(x, y), "OhemCrossEntropy": ohem_cross_entropy(x, y), "Dice_softmax_ignore_as_0": semantic_dice(x, y, ignored="background"),
            "CrossEntropy_tuple": over_outputs(semantic_cross_entropy, (x, 0.5 * x, 0.25 * x), y)}
    for name, value in theirs.items(): checks.number(f"loss {name}", ours[name].item(), value, 1e-5)


def prototypes(checks: Checks, folder: Path, about: Mapping, io: Mapping[str, Tensor]) -> None:
    if "proto.features" not in io: return checks.absent("prototypes", "proto.features")
    K = io["proto.step0.batch"].shape[0]
    bank = PrototypeBank(K, io["proto.step0.batch"].shape[1])
    for number, scale in ((0, 1.0), (1, 2.0)):
        key, features = f"proto.step{number}", io["proto.features"].clone().requires_grad_()
        labels = nearest_labels(io["proto.label"].long(), features.shape[-2:])
        batch = class_prototypes(scale * features, labels, K, mode="released")
        running = bank.update(batch, class_counts(labels, K))
        own, relation = prototype_loss(batch, running), relation_loss(batch, io["proto.text"])
        (own.mean() + relation.mean()).backward()
        checks.close(f"prototypes step {number}: batch", batch, io[f"{key}.batch"], TIGHT)
        checks.close(f"prototypes step {number}: running", running, io[f"{key}.global"], TIGHT)
        checks.close(f"prototypes step {number}: loss map", own, io[f"{key}.loss_map"], 1e-4)
        checks.close(f"prototypes step {number}: KL map (absolute)", relation, io[f"{key}.kl_map"], 1e-6, relative=False)
        checks.close(f"prototypes step {number}: gradient on features", features.grad, io[f"{key}.grad_features"], 1e-4)
        checks.number(f"prototypes step {number}: mean", own.mean().item(), about[f"proto_step{number}"]["proto_mean"], 5e-3)
        checks.number(f"prototypes step {number}: KL mean", relation.mean().item(), about[f"proto_step{number}"]["kl_mean"], 1e-5)


def tokens(checks: Checks, folder: Path, about: Mapping, io: Mapping[str, Tensor]) -> None:
    from sam_nb.encoders.text import clip_tokenizer, clip_tokens
    from sam_nb.testing import samples
    place = samples("text/clip")
    if place is None: return checks.absent("tokens", "CLIP's vocabulary (SAM_NB_SAMPLES/text/clip)")
    tokenizer = clip_tokenizer(place)
    for dataset, names in about["tokens"].items():
        ids = clip_tokens(tokenizer, list(names))
        ours = [[i for i in row.tolist() if i] for row in ids]
        checks.equal(f"tokens: {dataset}", ours, list(names.values()))


CATALOG = {"PST": "pst900", "MFNet": "mfnet", "FMB": "fmb"}


def palettes(checks: Checks, folder: Path, about: Mapping, io: Mapping[str, Tensor]) -> None:
    from sam_nb.datasets.catalog import dataset_info
    for name, theirs in about["palettes"].items():
        ours = [list(c) for c in dataset_info(CATALOG[name]).palette]
        checks.equal(f"palette: {name}", ours[-len(theirs):], [list(c) for c in theirs])
        if name in about["tokens"]:
            info = dataset_info(CATALOG[name])
            checks.equal(f"class names: {name}", list(info.options.get("released_classes", info.classes)), list(about["tokens"][name]))


def mini_datasets(checks: Checks, folder: Path, about: Mapping, io: Mapping[str, Tensor]) -> None:
    for name, theirs in about["datasets"].items():
        if not (folder / "mini" / name).is_dir(): checks.absent(f"dataset {name}", f"mini/{name}"); continue
        from sam_nb.datasets.catalog import dataset_info
        size = tuple(io[f"ds.{name}.0.img"].shape[-2:]) if f"ds.{name}.0.img" in io else None
        data = {split: RGBTDataset.from_info(dataset_info(CATALOG[name]), split, folder / "mini" / name, PadTo(size, larger="crop", normalise=Normalise()) if size else None, val_is_test=True)
                for split in ("train", "val")}
        checks.equal(f"dataset {name}: train names", [p.name for p in data["train"].pairs], theirs["files"])
        checks.equal(f"dataset {name}: val names", [p.name for p in data["val"].pairs], theirs["val_files"])
        checks.equal(f"dataset {name}: classes", data["train"].num_classes, theirs["n_classes"])
        if size is None: checks.absent(f"dataset {name}", f"ds.{name}.*"); continue
        for i in range(len(data["train"])):
            sample = data["train"][i]
            checks.close(f"dataset {name}: sample {i} image (absolute)", sample["image"], io[f"ds.{name}.{i}.img"], 1e-6, relative=False)
            checks.close(f"dataset {name}: sample {i} thermal (absolute)", sample["thermal"], io[f"ds.{name}.{i}.thermal"], 1e-6, relative=False)
            checks.equal(f"dataset {name}: sample {i} label", sample["semantic"].to(torch.uint8), io[f"ds.{name}.{i}.label"])


# --- the real layout and the real size ---------------------------------------------------------------------------------------------

def full_layout(checks: Checks, folder: Path) -> None:
    import re

    from sam_nb.methods.sartm_weights import _DEAD_MLP, DEAD
    layout = facts_of(folder / "layout_full_bplus.json")
    alive = {k: v for k, v in layout.items() if not any(re.search(d, k) for d in (*DEAD, *_DEAD_MLP))}
    meta = lora_from_released({k: torch.empty(v[0], device="meta") for k, v in alive.items()})
    theirs = {released_name(k): tuple(v.shape) for k, v in meta.items()}
    K = theirs["mask_decoder.mask_tokens.weight"][0] - 1
    rank, pairs = layout["sam.image_encoder.trunk.blocks.0.attn.qkv.linear_a_q.weight"][0][0], 1 + sum(f"sam.image_encoder.trunk.blocks.0.attn.qkv.linear_a_q{j}.weight" in layout for j in (2, 3, 4))
    model = SARTM([f"c{i}" for i in range(K)], lora_rank=rank, lora_pairs=pairs)
    own = {k: tuple(v.shape) for k, v in model.state_dict().items() if not k.startswith(("aux_head.", "prototypes.", "text_features"))}
    checks.equal(f"full B+ layout: {len(layout)} keys, the {len(alive)} live ones have our names and shapes", theirs, own)
    trained = {released_name(k) for k in lora_from_released({k: torch.empty(v[0], device="meta") for k, v in alive.items() if v[1] == "trainable"})}
    ours = {n for n, p in model.named_parameters() if p.requires_grad and not n.startswith("aux_head.")}
    unreached = {n for n in trained - ours if n.startswith("mask_decoder.output_hypernetworks_mlps.0.")}
    checks.equal("full B+ layout: trained parameters (but token 0's hypernetwork, which no loss reaches)", sorted(trained - unreached), sorted(ours))


def _scaled(key: str, z: np.ndarray, shape: list[int]) -> np.ndarray:
    "The recipe of realsize.json for one key."
    if "positional_encoding_gaussian_matrix" in key: return z
    if key.endswith(("trunk.pos_embed", "trunk.pos_embed_window")) or key.endswith("running_mean"): return np.float32(0.1) * z
    if key.endswith("running_var"): return np.exp(np.float32(0.1) * z)
    if len(shape) <= 1: return np.float32(0.02) * z + np.float32(key.endswith(".weight"))
    return (z / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def generated_state(about: Mapping) -> dict[str, Tensor]:
    "Weights by the recipe of realsize.json: seeded normal numbers for every key."
    state = {}
    for key in about["keys"]:
        shape = about["shapes"][key]
        z = np.random.Generator(np.random.PCG64([about["seed"], zlib.crc32(key.encode())])).standard_normal(shape).astype(np.float32)
        state[key] = torch.from_numpy(_scaled(key, z, shape))
    last = "sam.sam_mask_decoder.pred_obj_score_head.layers.2.bias"
    if about.get("obj_head_last_bias") is not None and last in state: state[last] = torch.full_like(state[last], about["obj_head_last_bias"])
    return state


def generated_inputs(about: Mapping) -> dict[str, Tensor]:
    "RGB and thermal by the same recipe: normal numbers in 32x32 blocks."
    def blocks(key: str) -> np.ndarray:
        z = np.random.Generator(np.random.PCG64([about["seed"], zlib.crc32(key.encode())])).standard_normal((1, 3, about["S"] // 32, about["S"] // 32)).astype(np.float32)
        return z.repeat(32, 2).repeat(32, 3)
    thermal = np.abs(blocks("input.thermal"))
    pair = {"image": torch.from_numpy(blocks("input.rgb")), "thermal": torch.from_numpy(thermal / thermal.max())}
    return {k: v.to(torch.get_default_dtype()) for k, v in pair.items()}


@torch.no_grad()
def real_size(checks: Checks, folder: Path) -> None:
    about, io = facts_of(folder / "realsize.json"), read(folder / "realsize.safetensors")
    batch, LOOSE = generated_inputs(about), 2e-5
    model, _ = SARTM.from_released(generated_state(about), image_size=about["S"], backbone=about["backbone"] if about["backbone"] in SAM2_SIZES else None, fusion_inputs=about["fusion_inputs"])
    f0, f1, f2 = features = model.encode(batch)
    low_res, object_logit = model.decode(features)
    out = model(batch, parts=("decoder",))
    fused = model.fuse(features)
    ours = {"fpn0": f0, "fpn1": f1, "feat": f2, "low_res": low_res, "m_output": out.logits, "fused0": fused[0], "fused1": fused[1], "fused2": fused[2]}
    def sampled(name: str, x: Tensor) -> Tensor:
        strides = about["sampling"][name][-x.ndim:] if len(about["sampling"][name]) >= x.ndim else [1] * (x.ndim - len(about["sampling"][name])) + about["sampling"][name]
        return x[tuple(slice(None, None, s) for s in strides)]
    for name, x in ours.items():
        if name in io: checks.close(f"real size: {name}", sampled(name, x), io[name], LOOSE)
    checks.close("real size: object logit", object_logit, io["obj_logit"], LOOSE)
    checks.equal("real size: arg-max", sampled("pred", out.logits.argmax(1).to(torch.uint8)), io["pred"])
    sums = [out.logits.double().sum(), out.logits.double().abs().sum(), f2.double().sum(), f2.double().abs().sum()]
    scale = [sums[1], sums[1], sums[3], sums[3]]
    for name, mine, theirs, size in zip(("m_output", "|m_output|", "feat", "|feat|"), sums, io["sums"], scale, strict=True):
        checks.add(f"real size: sum of {name} (of the sum of magnitudes)", abs(mine - theirs).item() / size.item(), LOOSE)
    merge_lora(model.image_encoder)
    checks.close("real size: m_output, adapters merged", sampled("m_output", model(batch, parts=("decoder",)).logits), io["m_output"], LOOSE)
