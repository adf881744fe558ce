"Golden checks of RSAM. Sizes and rates are read from the folder's JSON files."
from __future__ import annotations

import random
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from sam_nb.datasets.object_masks import MaskSet, RunLengths
from sam_nb.datasets.pictures import read_rgb
from sam_nb.datasets.referring_transform import ReferringTransform, black_boxes, cap_expressions
from sam_nb.datasets.transforms import Normalise
from sam_nb.encoders.sam2 import VIDEO_KEYS
from sam_nb.encoders.sentences import read_vocabulary, word_pieces
from sam_nb.encoders.text import sentence_tokens
from sam_nb.heads.promptable import ImageFeatures, resize_logits
from sam_nb.methods.rsam import RSAM, gated
from sam_nb.methods.rsam_losses import referring_losses
from sam_nb.methods.rsam_recipe import RsamRecipe, RsamSwitches
from sam_nb.methods.rsam_weights import load_released, released_state
from sam_nb.metrics import ReferringScores
from sam_nb.optim import make_optimizer, schedule
from sam_nb.prompts import Prompts
from sam_nb.weights import load_state
from tests.parity.checks import Checks, moved
from tests.parity.checks import facts as facts_of
from tests.parity.checks import stored as read

LOOSE, LOGIT = 2e-5, 6e-5  # a rounding of the text goes through a sharp softmax, and the golden is float32; a logit may be near zero
TERMS = {"focal": "loss_mask", "dice": "loss_dice", "iou": "loss_iou", "object": "loss_class"}


def run(folder: Path) -> Checks:
    "Every golden check of the folder."
    torch.set_num_threads(1)  # Adam turns the rounding of a gradient near zero into a whole step: equal sums on every machine
    checks = Checks()
    groups = {"forward": ("tiny_io.safetensors", forward), "gradients": ("tiny_io.safetensors", gradients, "float64"), "prompts": ("tiny_io.safetensors", prompts),
              "training": ("train_steps.json", training, "float64"), "parameter groups": ("optim_full.json", full_groups, "float32"), "weights": ("full_state_keys.json", full_keys, "float32"),
              "initialisation": ("init_mapping.json", mapping, "float32"), "tokenizer": ("tokenizer.json", tokens, "float32"), "losses": ("parts.safetensors", losses),
              "metrics": ("parts.safetensors", metrics, "float32"), "data": ("parts.json", data, "float32")}
    checks.passes(lambda: _all(checks, folder, groups))
    return checks


def _all(checks: Checks, folder: Path, groups: Mapping) -> None:
    for name, (needed, function, *only) in groups.items():
        if (folder / needed).exists(): checks.group(name, lambda function=function: function(checks, folder), *only)
        else: checks.absent(name, needed)


# --- the tiny model --------------------------------------------------------------------------------------------------------------

@lru_cache
def about(folder: Path) -> dict: return facts_of(folder / "tiny.json")


def tensors(folder: Path) -> dict[str, Tensor]: return _tensors(folder, torch.get_default_dtype())


@lru_cache
def _tensors(folder: Path, dtype: torch.dtype) -> dict[str, Tensor]: return read(folder / "tiny_io.safetensors")


def golden_rsam(folder: Path, **switches) -> RSAM:
    "RSAM of the golden's size, with its weights."
    config = about(folder)["config"]
    trunk = config["trunk"]
    size = {k: trunk[k] for k in ("embed_dim", "num_heads", "stages", "global_att_blocks", "window_spec", "window_pos_embed_bkg_spatial_size")}
    model = RSAM(backbone={"size": {**size, "d_model": config["d_model"]}}, image_size=config["image_size"], text=config["bert"],
                 num_twgt=config["num_twgt"], drop_path=trunk.get("drop_path_rate", 0.0), **{"mask_text_padding": False, **switches})
    state = {k.removeprefix("sd."): v for k, v in read(folder / "tiny_state.safetensors").items()}
    if whole(folder): load_released(model, state)
    else: load_state(model, state, optional=[r"^image_encoder\.trunk\."])
    return model


@lru_cache
def whole(folder: Path) -> bool:
    "Whether the folder has the image encoder's weights; the repository's own set has its features instead."
    with safe_open(folder / "tiny_state.safetensors", "pt") as f: return any(k.startswith("sd.image_encoder.trunk.") for k in f.keys())


def encoded(model: RSAM, folder: Path) -> ImageFeatures:
    t = tensors(folder)
    if whole(folder): return model.encode(t["in.img_batch"][0])
    return ImageFeatures(t["mid.fpn_2"], (t["mid.conv_s0"], t["mid.conv_s1"]))


def inputs(folder: Path) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # images, index, ids, real, masks
    t = tensors(folder)
    return t["in.img_batch"][0], t["in.obj_to_frame_idx"][0, :, 1], t["in.input_ids"][0], t["in.attention_mask"][0].bool(), t["in.masks"][0].bool()


# --- forward ---------------------------------------------------------------------------------------------------------------------

def forward(checks: Checks, folder: Path) -> None:
    model, t = golden_rsam(folder).eval(), tensors(folder)
    model.text_encoder.set_attn_implementation("eager")  # as the golden was computed; rounding apart the same
    images, index, ids, real, masks = inputs(folder)
    guidance_alone(checks, model, t, index)
    taken = taps(model)
    with torch.no_grad():
        features, words = encoded(model, folder), model.reader.read(ids, real)
        answer = model.decode(features, index, words=words)
    checks.close("text encoder", words.hidden, t["mid.bert_last_hidden"], LOOSE)
    checks.close("text projection", model.text_proj(words.hidden), t["mid.text_proj"], LOOSE)
    for name, ours in (("mid.fpn_2", features.embedding), ("mid.conv_s0", features.high_res[0]), ("mid.conv_s1", features.high_res[1])):
        checks.close(name, ours, t[name], LOOSE)
    for name in sorted(k for k in t if k.startswith("mid.twg")):  # here a rounding of the text has gone through a sharp softmax
        checks.close(name, taken[name], t[name], LOOSE)
    checks.close("decoder's tokens", taken["tokens"], t["mid.dec_tokens_in"], LOOSE)
    checks.close("decoder's masks", answer.logits, t["mid.dec_masks"], LOOSE)
    checks.close("gated masks", gated(answer), t["out.low_res_masks"], LOOSE)
    checks.close("full-size masks", resize_logits(gated(answer), images.shape[-1]), t["out.high_res_masks"], LOOSE)
    checks.close("predicted IoU", answer.predicted_iou, t["out.ious"], LOOSE)
    checks.close("object logits", answer.object_logits, t["out.obj_logits"], LOGIT)
    padded = golden_rsam(folder, mask_text_padding=True).eval()
    with torch.no_grad(): apart = padded.decode(features, index, words=words).logits[t["alone.index"]]
    checks.close("padding left out: as alone", apart, t["alone.dec_masks_before_gate"], LOOSE)


def guidance_alone(checks: Checks, model: RSAM, t: dict[str, Tensor], index: Tensor) -> None:
    "The guidance module, given the golden's features and text."
    places = model.sam_prompt_encoder.description_pe.weight[None, :t["mid.text_proj"].shape[1]]
    taken = taps(model)
    with torch.no_grad(): model.description_transformer(t["mid.fpn_2"], model.sam_prompt_encoder.get_dense_pe(), t["mid.text_proj"], places, index)
    for name in sorted(k for k in t if k.startswith("mid.twg")): checks.close(f"guidance alone: {name}", taken[name], t[name], LOOSE)


def taps(model: RSAM) -> dict[str, Tensor]:
    "What the guidance module and the decoder compute on the way, by the golden's names."
    taken: dict[str, Tensor] = {}

    def tap(name, pick=lambda out: out): return lambda module, args, out: taken.__setitem__(name, pick(out))
    for i, layer in enumerate(model.description_transformer.layers):
        for part in ("self_attn_query", "cross_attn_token_to_image", "mlp", "cross_attn_image_to_token", "self_attn_key"):
            getattr(layer, part).register_forward_hook(tap(f"mid.twgt_{i}_{part}_out"))
        layer.register_forward_hook(tap(f"mid.twgt_{i}_text", lambda out: out[0]))
        layer.register_forward_hook(tap(f"mid.twgt_{i}_image", lambda out: out[1]))
    whole = model.description_transformer
    original = whole.forward

    def every_word(image, pe, text, places, index, padding=None, words=None):
        text, image = original(image, pe, text, places, index, padding)  # the golden has all words; the decoder needs the first
        taken["mid.twgm_text"], taken["mid.twgm_image"] = text, image
        return text[:, :words], image
    whole.forward = every_word
    model.sam_mask_decoder.transformer.register_forward_pre_hook(lambda module, args: taken.__setitem__("tokens", args[2]))
    return taken


def prompts(checks: Checks, folder: Path) -> None:
    "One sentence about one image: alone, without text, with points, with a box and a mask."
    model, t = golden_rsam(folder).eval(), tensors(folder)
    images, index, ids, real, _ = inputs(folder)
    i = int(t["alone.index"])
    side, none = images.shape[-1], Prompts.none(1)
    with torch.no_grad():
        features, only = encoded(model, folder)[index[i:i + 1]], real[i].sum()
        words = model.reader.read(ids[i:i + 1, :only], real[i:i + 1, :only])
    points = none.add(torch.tensor([[[0.3, 0.4], [0.7, 0.6]]]) * side, torch.tensor([[1, 0]]))
    cases = {"alone": (none, words, False), "notext": (none, None, False), "text_points": (points, words, False), "text_points_multi": (points, words, True)}
    if "text_box_mask.mask_input" in t:
        box = Prompts.from_boxes(torch.tensor([[0.2, 0.25, 0.8, 0.7]]) * side).with_masks(t["text_box_mask.mask_input"])
        cases["text_box_mask"] = (box, words, False)
    for name, (asked, said, multimask) in cases.items():
        if f"{name}.ious" not in t: continue
        with torch.no_grad(): answer = model.decode(features, torch.tensor([0]), asked, said, multimask)
        best = answer.logits[:, answer.predicted_iou[0].argmax()][:, None]
        checks.close(f"{name}: masks", answer.logits, t[f"{name}.dec_masks_before_gate"], LOOSE)
        checks.close(f"{name}: gated", gated(answer), t[f"{name}.low_res_multimasks"], LOOSE)
        checks.close(f"{name}: best", torch.where(answer.object_logits[..., None, None] > 0, best, -1024.0), t[f"{name}.low_res_masks"], LOOSE)
        checks.close(f"{name}: predicted IoU", answer.predicted_iou, t[f"{name}.ious"], LOOSE)
        checks.close(f"{name}: object logit", answer.object_logits, t[f"{name}.obj_logits"], LOGIT)


# --- training --------------------------------------------------------------------------------------------------------------------

def terms_of(model: RSAM, folder: Path) -> dict[str, Tensor]:
    images, index, ids, real, masks = inputs(folder)
    model.read = lambda said: model.reader.read(ids, real)
    return model.losses({"image": images, "image_index": index, "masks": masks, "expressions": [""] * len(index)})


def unweighted(model: RSAM, terms: dict[str, Tensor]) -> dict[str, float]:
    s = model.switches
    weights = {"focal": s.focal_weight, "dice": s.dice_weight, "iou": s.iou_weight, "object": s.object_weight}
    return {TERMS[k]: v.item() / weights[k] for k, v in terms.items()} | {"core_loss": sum(terms.values()).item()}


def gradients(checks: Checks, folder: Path) -> None:
    if not whole(folder): return checks.absent("gradients", "the image encoder")
    model, t, facts = golden_rsam(folder).train(), tensors(folder), about(folder)
    terms = terms_of(model, folder)
    for name, value in unweighted(model, terms).items(): checks.number(name, value, t[f"loss.{name}"].item(), 1e-5)
    sum(terms.values()).backward()
    total = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    checks.number("gradient norm before clipping", total.item(), facts["clip"]["total_norm_before"], 1e-3)
    worst = {"norm": 0.0, "value": 0.0}
    for name, p in model.named_parameters():
        golden, own = facts["grad_norms"].get(name), 0.0 if p.grad is None else p.grad.norm().item()
        if golden is None:
            if own: checks.add(f"{name}: a gradient where the golden has none", own, 0)
            continue
        if abs(own - golden) > 1e-4: worst["norm"] = max(worst["norm"], abs(own - golden) / golden)
        if f"grad.{name}" in t and golden > 1e-4:
            stored = t[f"grad.{name}"]
            own = p.grad[:len(stored)] if p.ndim == stored.ndim else p.grad  # of a long table the golden holds the first rows
            worst["value"] = max(worst["value"], ((own - stored).abs().max() / stored.abs().max()).item())
    checks.add("gradient norms, relative", worst["norm"], 1e-3)
    checks.add("gradients, of the largest value", worst["value"], 1e-3)


def recipe_of(lrs: dict, weight_decay: float = 0.1) -> RsamRecipe:
    "The rates of a golden file as a recipe; a rate that the recipe cannot express is an error."
    if unknown := set(lrs) - {"base", "vision", "description", "text", "layer_decay"}: raise ValueError(f"rates unknown to the recipe: {sorted(unknown)}")
    share = {"encoder_lr": lrs["vision"] / lrs["base"], "guidance_lr": lrs.get("description", lrs["base"]) / lrs["base"]}
    return RsamRecipe(lr=lrs["base"], **share, layer_decay=lrs["layer_decay"], weight_decay=weight_decay, clip_norm=0.1, schedule="cosine")


def training(checks: Checks, folder: Path) -> None:
    if not whole(folder): return checks.absent("training", "the image encoder")
    golden = facts_of(folder / "train_steps.json")
    expected, errors = {}, {"lr": 0.0, "weight decay": 0.0}
    for i, step in enumerate(golden["steps"]): expected |= {f"step {i}: {k}": v for k, v in (step["losses"] | {"gradient norm": step["grad_norm_before_clip"]}).items()}
    own = dict(golden_rsam(folder).named_parameters())
    expected |= {f"norm after: {name}": norm for name, (norm, _) in golden["param_norm_and_sum_after"].items() if name in own}
    checks.equal("groups by names", *group_names(folder, golden))
    checks.steps(lambda seed: some_steps(folder, golden, seed, errors), expected, 1e-5)
    for name, error in errors.items(): checks.add(f"{name} of every group and step", error, 1e-9)


def beginning(folder: Path, golden: dict) -> tuple[RSAM, torch.optim.Optimizer, RsamRecipe]:
    model, recipe = golden_rsam(folder).train(), recipe_of(golden["lrs"], max(golden["steps"][0]["wd"]))
    return model, make_optimizer(model.parameter_groups(recipe), recipe), recipe


def group_names(folder: Path, golden: dict) -> tuple[set, set]:
    "The groups as sets of parameter names: ours, the golden's."
    model, optimizer, _ = beginning(folder, golden)
    names = {p: n for n, p in model.named_parameters()}
    theirs = {frozenset(n for n in g["names"] if n in set(names.values())) for g in golden["groups"]}
    return {frozenset(names[p] for p in g["params"]) for g in optimizer.param_groups}, {g for g in theirs if g and not any(n.startswith("text_encoder.") for n in g)}


def some_steps(folder: Path, golden: dict, seed: int, errors: dict[str, float]) -> dict[str, float]:
    "Losses, gradient norms and last parameter norms of the golden's steps; `seed` moves the weights by 2^-20. Rates are compared on the way."
    model, optimizer, recipe = beginning(folder, golden)
    if seed: moved(model, seed)
    names, steps, numbers = {p: n for n, p in model.named_parameters()}, golden["steps"], {}
    place = {n: i for i, g in enumerate(golden["groups"]) for n in g["names"]}
    for i, step in enumerate(steps):
        terms = terms_of(model, folder)
        numbers |= {f"step {i}: {name}": value for name, value in unweighted(model, terms).items()}
        optimizer.zero_grad(); sum(terms.values()).backward()
        for name, p in model.named_parameters():  # masks that no loss asks for: computed and decayed as published, neither here
            if p.grad is None and "output_hypernetworks_mlps" in name: p.grad = torch.zeros_like(p)
        factor = schedule(recipe.schedule, i, len(steps), len(steps))
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * (factor + group["end"] * (1 - factor))
            k = place[names[group["params"][0]]]
            errors["lr"] = max(errors["lr"], abs(group["lr"] - step["lr"][k]) / step["lr"][k])
            errors["weight decay"] = max(errors["weight decay"], abs(group["weight_decay"] - step["wd"][k]))
        numbers[f"step {i}: gradient norm"] = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm).item()
        optimizer.step()
    return numbers | {f"norm after: {n}": p.norm().item() for p, n in names.items()}


@lru_cache
def published() -> RSAM: return RSAM()  # the published size


def full_groups(checks: Checks, folder: Path) -> None:
    "Groups, rates and ends of the published size."
    golden = facts_of(folder / "optim_full.json")
    model = published()
    recipe = RsamRecipe(lr=5e-5, weight_decay=0.1)
    names, own = {p: n for n, p in model.named_parameters()}, model.parameter_groups(recipe)
    theirs = {frozenset(n for n in g["names"] if n in set(names.values())): g for g in golden["groups"]}
    worst = 0.0
    for group in own:
        members = frozenset(names[p] for p in group["params"])
        if members not in theirs: checks.add(f"group {group['name']!r} is not the golden's", 1, 0); continue
        for at, lr in theirs[members]["lr"].items():
            factor = schedule("cosine", round(float(at) * 1e6), 10**6, 10**6)
            worst = max(worst, abs(group["lr"] * (factor + group["end"] * (1 - factor)) - lr) / lr)
            worst = max(worst, abs(group["weight_decay"] - theirs[members]["wd"][at]))
    checks.add(f"{len(own)} groups at full size: rates", worst, 1e-9)
    trained = {n for g in own for n in (names[p] for p in g["params"])}
    checks.equal("trained parameters", trained, {n for g in golden["groups"] for n in g["names"] if n in set(names.values()) and not n.startswith("text_encoder.")})


# --- weights ---------------------------------------------------------------------------------------------------------------------

def full_keys(checks: Checks, folder: Path) -> None:
    golden = facts_of(folder / "full_state_keys.json")
    golden = golden.get("keys", golden)
    model = published()
    ours = {k: list(v.shape) for k, v in model.state_dict().items()}
    with_dead = ours | {k: list(v.shape) for k, v in released_state(model).items()}
    checks.equal("keys and shapes of a released checkpoint", with_dead, {k: list(v) for k, v in golden.items()})


def mapping(checks: Checks, folder: Path) -> None:
    "Which keys of SAM 2.1 and BERT the released code took."
    golden = facts_of(folder / "init_mapping.json")["mapping"]
    model = published()
    own = set(model.state_dict())
    kept = {k: v for k, v in golden.items() if v is not None}
    checks.equal("kept keys exist here", [v for v in kept.values() if v not in own], [])
    state = model.state_dict()
    sam2 = {k: state[k] for k in golden if k in own}
    report = load_state(model, {k: v for k, v in sam2.items() if k.startswith("image_encoder.")}, optional=[r"^(?!image_encoder\.)"])
    checks.equal("encoder alone, as released", sorted(report.loaded), sorted(v for k, v in kept.items() if k.startswith("image_encoder.")))
    checks.equal("dead keys are dropped", [k for k, v in golden.items() if v is None and k not in own and not k.startswith(("bert.", "cls."))
                                           and not any(re.search(p, k) for p in VIDEO_KEYS)], [])


# --- parts -----------------------------------------------------------------------------------------------------------------------

def tokens(checks: Checks, folder: Path) -> None:
    from sam_nb.testing import samples
    golden, place = facts_of(folder / "tokenizer.json"), samples("text/bert_base_uncased")
    if place is None: return checks.absent("tokenizer", "BERT's vocabulary")
    tokenizer = word_pieces(read_vocabulary(place))
    ids, real = sentence_tokens(tokenizer, golden["texts"], sep=False)
    checks.equal("ids", ids.tolist(), golden["input_ids"])
    checks.equal("attention mask", real.long().tolist(), golden["attention_mask"])
    checks.equal("with [SEP]", [tokenizer(t)["input_ids"] for t in golden["texts"]], golden["standard_bert_ids_with_sep"])
    checks.equal("overlong", list(sentence_tokens(tokenizer, golden["overlong"]["texts"], sep=False)[0].shape), golden["overlong"]["shape"])


def losses(checks: Checks, folder: Path) -> None:
    t, facts = read(folder / "parts.safetensors"), facts_of(folder / "parts.json")
    for case in sorted(k for k in facts if k.startswith("loss_M")):
        src, ious, objects = (t[f"{case}.{k}"].clone().requires_grad_(True) for k in ("src", "ious", "obj_logits"))
        switches = RsamSwitches()
        terms = referring_losses(src, ious, objects, t[f"{case}.targets"].bool(), switches)
        weights = {"focal": switches.focal_weight, "dice": switches.dice_weight, "iou": switches.iou_weight, "object": switches.object_weight}
        for name, value in terms.items(): checks.number(f"{case}: {name}", value.item() / weights[name], facts[case][TERMS[name]], 1e-5)
        checks.number(f"{case}: total", sum(terms.values()).item(), facts[case]["core_loss"], 1e-5)
        sum(terms.values()).backward()
        for name, x in (("src", src), ("ious", ious), ("obj", objects)): checks.close(f"{case}: gradient of {name}", x.grad, t[f"{case}.grad_{name}"], 1e-5)


def metrics(checks: Checks, folder: Path) -> None:
    t, golden = read(folder / "parts.safetensors"), facts_of(folder / "parts.json")["metrics"]
    scores, found, truth = ReferringScores(), t["metric_logits"] >= 0.5, t["metric_targets"].bool()
    for part in (slice(0, 5), slice(5, None)): scores.update(found[part], truth[part])
    ours = scores.compute()
    flat = {k: v for group in golden.values() for k, v in group.items()}
    names = {"mDice": "mdice", "mIoU": "miou", "cIoU": "oiou", **{f"P@{k}": f"p{k}0" for k in range(5, 10)}}
    for theirs, own in names.items(): checks.number(theirs, ours[own] / 100, flat[theirs], 1e-6)
    for name, own in (("tp", found & truth), ("fp", found & ~truth), ("fn", ~found & truth)):
        checks.equal(f"{name} of each object", own.flatten(1).sum(1), t[f"metric_{name}"])


def data(checks: Checks, folder: Path) -> None:
    facts, t = facts_of(folder / "parts.json"), read(folder / "parts.safetensors")
    names = [n.rpartition(".")[0] for n in facts["data"]["list"]]
    side = t["data_eval0.image"].shape[-1]
    plain, raw = ReferringTransform(side), ReferringTransform(side, normalise=None)
    for k, sample in enumerate(facts["eval_samples"]):
        ready = plain(stored(folder, facts, names[k]))
        checks.equal(f"evaluation sample {k}: expressions", ready["expressions"], sample["descriptions"])
        checks.equal(f"evaluation sample {k}: categories", ready["categories"], sample["categories"])
        checks.equal(f"evaluation sample {k}: masks", ready["masks"], t[f"data_eval{k}.masks"].bool())
        checks.close(f"evaluation sample {k}: image", ready["image"], t[f"data_eval{k}.image"], 1e-6, relative=False)
    train = facts["train_sample"]
    draw, sample, box = random.Random(train["python_random_seed"]), stored(folder, facts, names[train["index"]]), train["blackbox"]
    draw.randrange(1); draw.uniform(0, 1)
    chosen = draw.sample(range(len(sample["expressions"])), len(train["object_ids"]))
    draw.choice([side]); draw.random()
    count = draw.randint(box["min_num"], box["max_num"])
    corners = [(draw.randint(0, side - box["size"]), draw.randint(0, side - box["size"])) for _ in range(count)]
    picture = black_boxes(raw.picture(sample["image"], None), corners, box["size"])
    index = f"data_train{train['index']}"
    checks.equal("training sample: sentences", chosen, train["object_ids"])
    checks.close("training sample: image with black boxes", Normalise()({"image": picture})["image"], t[f"{index}.image"], 1e-6, relative=False)
    checks.equal("training sample: masks", raw.take(sample, chosen, picture)["masks"], t[f"{index}.masks"].bool())
    for case in facts["collate"]:
        counts = [len(stored(folder, facts, names[k])["expressions"]) for k in case["batch_order"]]
        kept = cap_expressions(counts, case["cap"], random.Random(case["python_random_seed"]))
        theirs = [(at[1], i[1]) for at, i in zip(case["obj_to_frame_idx"][0], case["identifiers"][0], strict=True)]
        checks.equal(f"kept of a batch, at most {case['cap']}", [(b, k) for b, some in enumerate(kept) for k in some], theirs)


def stored(folder: Path, facts: dict, stem: str) -> dict:
    said = [a for a in facts["data"]["annotations"][stem]["annotations"] if a["area"] > 0]
    size = tuple(said[0]["segmentation"]["size"])
    return {"image": read_rgb(folder / f"data_{stem}.png"), "masks": MaskSet(RunLengths([a["segmentation"] for a in said], size)),
            "expressions": [a["description"] for a in said], "categories": [a["name"] for a in said], "name": stem, "original_size": size, "content_size": size}
