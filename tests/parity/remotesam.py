"Golden checks of RemoteSAM. Sizes, heads, windows and prompts are read from the folder's files; everything is computed in float64."
from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sam_nb.datasets.referring_transform import ReferringTransform
from sam_nb.encoders.sentences import Words, read_vocabulary, word_pieces
from sam_nb.encoders.text import sentence_tokens
from sam_nb.heads.pixel_words import VariousReceptive
from sam_nb.heads.rotated import RotatedConv, enlarge, rotation_matrix
from sam_nb.heads.scales import ScaleGate
from sam_nb.losses import foreground_loss
from sam_nb.methods.remotesam import RemoteSAM
from sam_nb.methods.remotesam_recipe import RemoteSamRecipe
from sam_nb.methods.remotesam_weights import load_released, load_swin
from sam_nb.optim import make_optimizer, schedule
from tests.parity.checks import Checks, Stored, facts, stored

OTHERS = ("tests.parity.remotesam_tasks", "tests.parity.remotesam_data")  # what follows from the network's masks, and the data


def run(folder: Path) -> Checks:
    "Every golden check of the folder."
    torch.set_num_threads(1)
    folder, checks = Path(folder), Checks()
    networks = sorted({p.stem for p in folder.glob("model_*.json")} | {"model_tiny", "model_heads"})
    starts = sorted({p.stem for p in folder.glob("swin_init_*.json")} | {"swin_init_model_heads"})
    groups = {name: (network, "float64", f"{name}.json", f"{name}.safetensors") for name in networks}
    groups |= {f"{name} in float32": (single, "float32", f"{name}.json", f"{name}.safetensors") for name in networks}
    groups |= {name: (swin_init, "float32", f"{name}.json", f"{name}.safetensors") for name in starts}
    groups |= {"modules": (modules, "float64", "modules.safetensors"), "loss": (losses, "float64", "loss.safetensors"),
               "transforms": (transforms, "float32", "transforms.safetensors"), "tokens": (tokens, "float32", "tokens.json"),
               "full size": (full_size, "float32", "full_size_keys.json")}
    checks.passes(lambda: _all(checks, folder, groups))
    read = {file for _, _, *files in groups.values() for file in files}
    for module in OTHERS:
        other = importlib.import_module(module)
        checks.group(module.rpartition(".")[2], lambda other=other: other.check(folder, checks))
        read |= names_of(other, folder)
    stems = {name.partition(".")[0] for name in read}
    for path in sorted(folder.iterdir()):
        if path.name not in read and path.stem not in stems: checks.absent("unknown file", f"a check of {path.name}")
    return checks


def _all(checks: Checks, folder: Path, groups: dict[str, tuple]) -> None:
    for name, (function, only, *files) in groups.items():
        missing = [f for f in files if not (folder / f).is_file()]
        if not missing: checks.group(name, lambda function=function, stem=Path(files[0]).stem: function(checks, folder, stem), only)
        elif only == "float32": checks.absent(name, " and ".join(missing))


def names_of(other: Any, folder: Path) -> set[str]:
    "The files and folders that another module reads."
    if hasattr(other, "FILES"): return {Path(f).parts[0] for f in other.FILES.values()}
    entries = json.loads((folder / "expected.json").read_text()) if (folder / "expected.json").is_file() else {}
    return {"expected.json"} | {Path(needed(e)).parts[0] for e in entries for start, needed, _ in other.READERS if e.startswith(start) and needed(e) != "."}


# --- the network -----------------------------------------------------------------------------------------------------------------

@lru_cache
def about(folder: Path, name: str) -> Stored: return facts(folder / f"{name}.json")


def tensors(folder: Path, name: str) -> Stored: return _tensors(folder, name, torch.get_default_dtype())


@lru_cache
def _tensors(folder: Path, name: str, dtype: torch.dtype) -> Stored: return stored(folder / f"{name}.safetensors")


def golden_model(folder: Path, name: str) -> RemoteSAM:
    "RemoteSAM of the golden's size, with its weights, without dropout."
    c, t = about(folder, name)["config"], tensors(folder, name)
    size = dict(embed_dim=c["embed_dim"], depths=list(c["depths"]), heads=list(c["num_heads"]), window=c["window_size"])
    model = RemoteSAM(backbone=size, image_size=c["img_size"], text=dict(c["text"], hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), word_heads=list(c.get("mha", [1] * 4)), train_text="all", drop_path=0.0)
    load_released(model, {k.removeprefix("sd."): v for k, v in t.items() if k.startswith("sd.")})
    for part in model.modules():
        if isinstance(part, nn.Dropout): part.p = 0.0
    return model.eval()


def words_of(model: RemoteSAM, t: dict[str, Tensor]) -> Words: return model.reader.read(t["in.input_ids"], t["in.attention_mask"].bool())


def network(checks: Checks, folder: Path, name: str) -> None:
    keys = about(folder, name)["state_dict_keys"]
    model = golden_model(folder, name)
    checks.equal(f"{name}: names and shapes", {k: list(v.shape) for k, v in model.state_dict().items()}, keys)
    forward(checks, folder, name, model)
    if "out.eval_loss" in tensors(folder, name): evaluation_loss(checks, folder, name, model)
    if "out.per_prompt_logits_image0" in tensors(folder, name): prompts(checks, folder, name, model)
    if "train" in about(folder, name): training(checks, folder, name)


def taps(model: RemoteSAM) -> dict[str, Tensor]:
    "What the network computes on the way, by the golden's names; filled by a forward pass."
    taken: dict[str, Tensor] = {}

    def tap(module: nn.Module, name: str, pick: Callable = lambda out: out) -> None:
        module.register_forward_hook(lambda _, args, out: taken.__setitem__(f"mid.{name}", pick(out)))
    swin, decoder = model.backbone, model.classifier
    for k, layer in enumerate(swin.layers):
        tap(layer.blocks[-1], f"stage{k}.blocks_out", lambda out: out.flatten(1, 2))
        tap(layer.fusion, f"stage{k}.pwam")
        tap(layer.visual_residual, f"stage{k}.visual_residual", lambda out: out.flatten(1, 2))
        tap(swin.get_submodule(f"norm{k}"), f"stage{k}.normed", lambda out: out.flatten(1, 2))
        if layer.downsample is not None: tap(layer.downsample, f"stage{k}.next")
    block = swin.cim.block[0]
    swin.cim.down_channel.register_forward_pre_hook(lambda _, args: taken.__setitem__("mid.cim.pooled", args[0]))
    for part, name in ((block.csa1, "csa1"), (block.intra_ff, "intra_ff"), (block.csa2, "csa2"), (block.ff, "ff")): tap(part, f"cim.after_{name}")
    for k, gate in enumerate(swin.cim.fusion): tap(gate, f"cim.out{k}")
    for level in (4, 3, 2):
        tap(getattr(decoder, f"conv1_{level}"), f"dec.conv1_{level}")
        arc = getattr(decoder, f"conv2_{level}")
        tap(arc, f"dec.arc_{level}")
        tap(arc.rounting_func, f"dec.lambda_{level}", lambda out: out[0])
        tap(arc.rounting_func, f"dec.theta_{level}", lambda out: out[1])
    tap(decoder.conv1_1, "dec.logits_stride4")
    return taken


def last_stage(model: RemoteSAM, taken: dict[str, Tensor]) -> None:
    "The parts of the last stage that the network leaves out, since nothing uses them."
    layer, k = model.backbone.layers[-1], len(model.backbone.layers) - 1
    x, fused = taken[f"mid.stage{k}.blocks_out"], taken[f"mid.stage{k}.pwam"]
    side = round(x.shape[1] ** 0.5)
    seen = layer.visual_residual(x.unflatten(1, (side, side))).flatten(1, 2)
    taken[f"mid.stage{k}.next"] = x + layer.res_gate(fused) * fused + layer.visual_gate(seen) * seen


@torch.no_grad()
def forward(checks: Checks, folder: Path, name: str, model: RemoteSAM) -> None:
    t, side = tensors(folder, name), about(folder, name)["config"]["img_size"]
    taken, words = taps(model), words_of(model, t)
    logits = enlarge(model.classifier(model.maps(model.encode(t["in.image"]), words)), (side, side))
    last_stage(model, taken)
    taken["mid.text_last_hidden"] = words.hidden
    for key in sorted(k for k in t if k.startswith("mid.")): checks.close(f"{name}: {key}", taken[key], t[key], 1e-5)
    checks.close(f"{name}: logits", logits, t["out.logits"], 1e-5)
    one = enlarge(model.foreground(model.encode(t["in.image"]), words), (side, side))[:, 0]
    checks.close(f"{name}: one channel instead of two", one, (t["out.logits"][:, 1] - t["out.logits"][:, 0]), 1e-5)


@torch.no_grad()
def single(checks: Checks, folder: Path, name: str) -> None:
    "The published run in float32: the instance norm enlarges rounding, so logits may differ by a hundredth."
    model, t, side = golden_model(folder, name), tensors(folder, name), about(folder, name)["config"]["img_size"]
    logits = enlarge(model.classifier(model.maps(model.encode(t["in.image"]), words_of(model, t))), (side, side))
    checks.close(f"{name}: float32 against float64 (absolute)", logits, t["out.logits"], 1e-2, relative=False)
    if "out.logits_fp32_run" not in t: return
    checks.close(f"{name}: float32 against the published float32 (absolute)", logits[..., ::2, ::2], t["out.logits_fp32_run"], 1e-2, relative=False)


@torch.no_grad()
def evaluation_loss(checks: Checks, folder: Path, name: str, model: RemoteSAM) -> None:
    t = tensors(folder, name)
    target = t["in.target"]
    logits = enlarge(model.foreground(model.encode(t["in.image"]), words_of(model, t)), target.shape[-2:])[:, 0]
    entropy, dice = foreground_loss(logits, target)
    checks.number(f"{name}: cross entropy", entropy, t["out.eval_ce"], 1e-6)
    checks.number(f"{name}: dice", dice.sum(), t["out.eval_dice"], 1e-6)
    checks.number(f"{name}: loss", 0.9 * entropy + 0.1 * dice.sum(), t["out.eval_loss"], 1e-6)


@torch.no_grad()
def prompts(checks: Checks, folder: Path, name: str, model: RemoteSAM) -> None:
    "All prompts about the first image at once, what comes before the words computed once; the golden ran them one by one."
    t, side = tensors(folder, name), about(folder, name)["config"]["img_size"]
    theirs, words = t["out.per_prompt_logits_image0"], words_of(model, t)
    features = model.encode(t["in.image"][:1]).of(torch.zeros(len(theirs), dtype=torch.int64))
    logits = enlarge(model.classifier(model.maps(features, words)), (side, side))[..., ::2, ::2]
    checks.close(f"{name}: prompts of one image together", logits, theirs, 1e-5)


# --- training --------------------------------------------------------------------------------------------------------------------

UNUSED = ("res_gate", "visual_gate", "visual_residual")  # of the last stage: the release computes them and uses nothing of it


def training(checks: Checks, folder: Path, name: str) -> None:
    golden, t, c = about(folder, name)["train"], tensors(folder, name), about(folder, name)["config"]
    model = golden_model(folder, name).train()
    dead = {k for k, p in model.named_parameters() if not p.requires_grad}
    checks.equal(f"{name}: parameters without a gradient", sorted(dead), sorted(golden["no_grad_params"]))
    part = model.text_encoder.encoder.layer[:-1]  # what the golden trained stands for layers 0 to 9 of 12
    recipe = RemoteSamRecipe(lr=c["train_lr"], schedule="poly", weight_decay=0.01)
    params = dict(model.named_parameters())
    names = {p: k for k, p in params.items()}
    moved = {id(p) for p in part.parameters()} | {id(p) for k, p in params.items() if not k.startswith("text_encoder.")}
    groups = [{**g, "params": [p for p in g["params"] if id(p) in moved]} for g in model.parameter_groups(recipe)]
    own = sorted(sorted(names[p] for p in g["params"]) for g in groups if g["params"])
    checks.equal(f"{name}: groups", own, sorted(sorted(set(v) - dead) for v in golden["groups"].values()))
    decays = {names[p]: g["weight_decay"] for g in groups for p in g["params"]}
    free = {n for k, v in golden["groups"].items() if "no_decay" in k for n in v}
    checks.equal(f"{name}: weight decay", {n for n, d in decays.items() if not d}, free - dead)
    optimizer = make_optimizer([g for g in groups if g["params"]], recipe)
    for step, wanted in enumerate(golden["losses"]):
        model.zero_grad()
        logits = enlarge(model.foreground(model.encode(t["in.image"]), words_of(model, t)), t["in.target"].shape[-2:])[:, 0]
        entropy, dice = foreground_loss(logits, t["in.target"])
        loss = 0.9 * entropy + 0.1 * dice.sum()
        checks.number(f"{name}: loss of step {step}", loss.item(), wanted, 1e-6)
        if not step and "train.logits_step0" in t:
            both = t["train.logits_step0"]
            checks.close(f"{name}: logits of step 0", logits[..., ::2, ::2], both[:, 1] - both[:, 0], 1e-5)
        loss.backward()
        if not step: gradients(checks, name, params, golden, t)
        factor = schedule(recipe.schedule, step, c["train_total_steps"], c["train_total_steps"])
        checks.number(f"{name}: rate of step {step}", recipe.lr * factor, golden["lrs"][step], 1e-9)
        for group in optimizer.param_groups: group["lr"] = recipe.lr * factor
        optimizer.step()
    state = model.state_dict()
    for key, values in (("parameters", golden["param_norms_after"]), ("running statistics", golden["bn_norms_after"])):
        alive = {k: v for k, v in values.items() if not (f"layers.{len(c['depths']) - 1}." in k and any(u in k for u in UNUSED) and key != "parameters")}
        worst = max(abs(state[k].double().norm().item() - v) / max(abs(v), 1e-6) for k, v in alive.items())
        checks.add(f"{name}: norms of {len(alive)} {key} after {len(golden['losses'])} steps", worst, 1e-4)
    for key in sorted(k for k in t if k.startswith("train.after.")):
        checks.close(f"{name}: {key}", state[key.removeprefix("train.after.")], t[key], 1e-4)


def gradients(checks: Checks, name: str, params: dict[str, nn.Parameter], golden: dict, t: dict[str, Tensor]) -> None:
    norms = {k: v for k, v in golden["grad_norms_step0"].items() if v is not None}
    ours = {k: params[k].grad.norm().item() if params[k].grad is not None else 0.0 for k in norms}
    largest = max(norms.values())
    checks.add(f"{name}: {len(norms)} gradient norms", max(abs(ours[k] - v) / max(abs(v), 1e-6 * largest) for k, v in norms.items()), 1e-4)
    for key in sorted(k for k in t if k.startswith("train.grad0.")):
        checks.close(f"{name}: {key}", params[key.removeprefix("train.grad0.")].grad, t[key], 1e-4)


# --- parts -----------------------------------------------------------------------------------------------------------------------

def filled(module: nn.Module, t: dict[str, Tensor], prefix: str) -> nn.Module:
    module.load_state_dict({k.removeprefix(prefix): v for k, v in t.items() if k.startswith(prefix)}, strict=True)
    return module.eval()


@torch.no_grad()
def modules(checks: Checks, folder: Path, name: str) -> None:
    t = tensors(folder, name)
    if "rot.theta" in t: checks.close("rotation matrix (absolute)", rotation_matrix(t["rot.theta"]), t["rot.matrix"], 1e-6, relative=False)
    for part in sorted({k.split(".")[0] for k in t if k.startswith("arc")}):
        kernels, out, width = t[f"{part}.sd.weight"].shape[:3]
        conv, x = filled(RotatedConv(width, out, kernels), t, f"{part}.sd."), t[f"{part}.x"]
        for key, ours in zip(("lambda", "theta"), conv.rounting_func(x), strict=True): checks.close(f"{part}: {key}", ours, t[f"{part}.{key}"], 1e-5)
        checks.close(f"{part}: rotated convolution", conv(x), t[f"{part}.y"], 1e-5)
    if "vr.x" in t:
        x = t["vr.x"]
        side = round(x.shape[1] ** 0.5)
        ours = filled(VariousReceptive(), t, "vr.sd.")(x.unflatten(1, (side, side))).flatten(1, 2)
        checks.close("various-receptive", ours, t["vr.y"], 1e-5)
    if "gate.local" in t:
        own, shared = t["gate.local"], t["gate.global"]
        checks.close("scale gate", filled(ScaleGate(own.shape[1]), t, "gate.sd.")(own, shared), t["gate.y"], 1e-5)


def losses(checks: Checks, folder: Path, name: str) -> None:
    t = tensors(folder, name)
    for case in sorted({k.split(".")[0] for k in t}):
        logits = t[f"{case}.logits"].clone().requires_grad_()
        entropy, dice = foreground_loss(logits[:, 1] - logits[:, 0], t[f"{case}.target"])
        total = 0.9 * entropy + 0.1 * dice.sum()
        total.backward()
        for key, ours in (("ce", entropy), ("dice", dice.sum()), ("total", total)): checks.number(f"loss {case}: {key}", ours.item(), t[f"{case}.{key}"], 1e-6)
        checks.close(f"loss {case}: gradient", logits.grad, t[f"{case}.grad"], 1e-6)


def transforms(checks: Checks, folder: Path, name: str) -> None:
    from sam_nb.datasets.object_masks import MaskSet, RunLengths
    from sam_nb.masks import mask_to_rle
    t = tensors(folder, name)
    for case in sorted({k.split(".")[0] for k in t}):
        image, mask, wanted = t[f"{case}.image"].permute(2, 0, 1), t[f"{case}.mask"], t[f"{case}.out_mask"]
        size = tuple(mask.shape)
        sample = {"image": image, "masks": MaskSet(RunLengths([mask_to_rle(mask.numpy())], size)), "expressions": ["it"], "categories": [""], "original_size": size}
        ready = ReferringTransform(wanted.shape[0], nearest=True)(sample)
        checks.close(f"transform {case}: image (absolute)", ready["image"][:, ::3, ::3], t[f"{case}.out_image_sub"], 1e-5, relative=False)
        checks.close(f"transform {case}: mean (absolute)", ready["image"].mean((1, 2)), t[f"{case}.out_image_mean"], 1e-5, relative=False)
        checks.equal(f"transform {case}: mask", ready["masks"][0].to(wanted.dtype), wanted)


def tokens(checks: Checks, folder: Path, name: str) -> None:
    from sam_nb.testing import samples
    place = samples("text/bert_base_uncased")
    if place is None: return checks.absent(name, "BERT's vocabulary (SAM_NB_SAMPLES/text/bert_base_uncased)")
    tokenizer, rows = word_pieces(read_vocabulary(place)), json.loads((folder / f"{name}.json").read_text())
    said, length = [r["sentence"] for r in rows], len(rows[0]["input_ids"])
    ids, real = sentence_tokens(tokenizer, said, cut=length, pad_to=length)
    checks.equal("tokens: ids", ids.tolist(), [r["input_ids"] for r in rows])
    checks.equal("tokens: mask", real.long().tolist(), [r["attention_mask"] for r in rows])
    full = tokenizer(said)["input_ids"]
    checks.equal("tokens: length before the cut", [len(r) for r in full], [r["full_length"] for r in rows])
    checks.equal("tokens: pieces", [tokenizer.convert_ids_to_tokens(r) for r in full], [r["tokens"] for r in rows])


# --- weights ---------------------------------------------------------------------------------------------------------------------

def full_size(checks: Checks, folder: Path, name: str) -> None:
    entries = json.loads((folder / "full_size_keys.json").read_text())["entries"]
    with torch.device("meta"): model = RemoteSAM()
    ours = {k: [list(v.shape), str(v.dtype).removeprefix("torch.")] for k, v in model.state_dict().items()}
    checks.equal(f"full size: {len(entries)} names, shapes and types", ours, entries)


def swin_init(checks: Checks, folder: Path, name: str) -> None:
    said, t = about(folder, name), tensors(folder, name)
    if not (folder / f"{said['model']}.json").is_file(): return checks.absent(name, f"{said['model']}.json")
    c = about(folder, said["model"])["config"]
    size = dict(embed_dim=c["embed_dim"], depths=list(c["depths"]), heads=list(c["num_heads"]), window=said["model_window"])
    model = RemoteSAM(backbone=size, image_size=c["img_size"], text=dict(c["text"]))
    file = {k.removeprefix("file."): v for k, v in t.items() if k.startswith("file.")}
    report = load_swin(model, file)
    state = model.backbone.state_dict()
    checks.equal(f"{name}: loaded names", sorted(report.loaded), sorted(said["changed"]))
    checks.equal(f"{name}: ignored names", sorted(set(file) - set(report.loaded)), sorted(said["ignored"]))
    checks.equal(f"{name}: unchanged values", [k for k in said["loaded_unchanged_value"] if not torch.equal(state[k], file[k])], [])
    for key in sorted(k for k in t if k.startswith("after.")): checks.close(f"{name}: {key}", state[key.removeprefix("after.")], t[key], 1e-6)
