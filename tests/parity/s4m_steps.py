"""Golden checks of whole steps of S4M: a teacher's, three of a student; learning rates and parameter groups.

`python -m tests.parity.s4m_steps FOLDER` runs these alone. Sizes, seeds and draws come from the files.
"""
from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sam_nb.datasets.colour import StrongColour
from sam_nb.heads.mask2former import build_mask2former
from sam_nb.heads.mask2former_size import Mask2FormerSize
from sam_nb.heads.mask2former_weights import load_weights, reference_names, size_of_reference
from sam_nb.methods.s4m import S4M, move_teacher
from sam_nb.methods.s4m_recipe import S4mRecipe
from sam_nb.optim import make_optimizer, schedule
from tests.parity.checks import Checks, Stored, alone, facts, moved
from tests.parity.checks import stored as read
from tests.parity.s4m_data import Recorded
from tests.parity.s4m_pseudo import golden_sam, numbered, unpacked

PIXELS = 3  # of a mask that may differ: logits next to zero
LEFT_OUT = r"^ssl_criterion\.|num_batches_tracked$"  # a second copy; counters, which the released teacher does not follow


def check(folder: Path, checks: Checks) -> None:
    "Every golden check of this part."
    checks.passes(lambda: _all(folder, checks))


def _all(folder: Path, checks: Checks) -> None:
    needed = ("m2f_r50.safetensors", "sam.safetensors")
    groups = {"teacher's step": (teacher_step, "sd_teacher_step.safetensors"), "student's steps": (student_steps, "student_steps.safetensors", "float64")}
    for name, (function, file, *only) in groups.items():
        absent = [f for f in (file, *needed) if not (folder / f).is_file()]
        if absent: checks.absent(name, " and ".join(absent))
        else: checks.group(name, lambda function=function: function(folder, checks), *only)
    if (folder / "schedules.json").is_file(): checks.group("schedules", lambda: schedules(folder, checks), "float64")
    else: checks.absent("schedules", "schedules.json")


@contextmanager
def float32() -> Iterator[torch.dtype]:
    "Tensors made inside are in float32; gives the type that is computed in."
    wanted = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try: yield wanted
    finally: torch.set_default_dtype(wanted)


class _Float32Draws(TorchFunctionMode):
    "Random numbers as the published run drew them, in float32, whatever is computed in."

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is not torch.rand: return function(*args, **(kwargs or {}))
        with float32() as wanted: return function(*args, **(kwargs or {})).to(wanted)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    torch.manual_seed(seed)
    with _Float32Draws(): yield


# --- the model ---------------------------------------------------------------------------------------------------------------------

def golden_model(folder: Path, **switches: Any) -> S4M:
    "S4M with the golden's networks and SAM."
    about, t = facts(folder / "m2f_r50.json"), read(folder / "m2f_r50.safetensors")
    state = {k.removeprefix("sd."): v for k, v in t.items() if k.startswith("sd.")}
    size, classes, norm = size_of_reference(state)
    weights = about.get("loss_weights", {})
    size = replace(size, points=about.get("points", size.points), oversample=about.get("oversample", 3.0), importance=about.get("importance", 0.75),
                   num_heads=about["config"].get("heads", size.num_heads), ffn=about["config"].get("ffn", size.ffn),
                   class_weight=float(weights.get("loss_ce", 2)), mask_weight=float(weights.get("loss_mask", 5)), dice_weight=float(weights.get("loss_dice", 5)),
                   no_object_weight=about.get("no_object_weight", 0.1))
    norm = {"SyncBN": "BN", "FrozenBN": "FrozenBN", "BN": "BN"}.get(about["config"].get("norm", norm), norm)
    model = S4M(backbone=size.values, norm=norm, classes=[str(k) for k in range(classes)], **switches)
    load_weights(model.network, state)
    return model.set_helper(golden_sam(folder))


def optimiser(model: S4M, lr: float) -> torch.optim.Optimizer:
    recipe = S4mRecipe(backbone=model.switches.backbone, lr=lr, weight_decay=0.05)
    return make_optimizer(model.parameter_groups(recipe), recipe)


def step(model: S4M, optimizer: torch.optim.Optimizer, batch: dict[str, Any]) -> dict[str, Tensor]:
    "One optimiser step as the trainer makes it; the loss items."
    terms = model.train().losses(batch)
    sum(terms.values()).backward()
    nn.utils.clip_grad_norm_([p for p in model.network.parameters() if p.requires_grad], 0.01)
    optimizer.step()
    optimizer.zero_grad()
    return {f"loss_{k}": v.detach() for k, v in terms.items()}


def named(network: nn.Module) -> dict[str, Tensor]:
    "The network's tensors by their published names."
    state = network.net.state_dict()
    return {theirs: torch.cat([state[n] for n in ours]) if len(ours) > 1 else state[ours[0]] for theirs, ours in reference_names(state).items()}


def compare_losses(checks: Checks, title: str, ours: dict[str, Tensor], golden: dict[str, float], rtol: float) -> None:
    checks.equal(f"{title}: names of the losses", sorted(ours), sorted(golden))
    for name in golden:
        checks.number(f"{title}: {name}", ours[name].item(), golden[name], rtol)


def compare_norms(checks: Checks, title: str, network: nn.Module, golden: dict[str, float], rtol: float) -> None:
    "All norms in one row."
    ours = {k: v.double().norm().item() for k, v in named(network).items()}
    golden = {k: v for k, v in golden.items() if not k.startswith("ssl_criterion.")}
    checks.equal(f"{title}: names of the weights", sorted(set(golden) - set(ours)), [])
    worst = max(abs(ours[k] - v) / max(abs(v), 1e-2) for k, v in golden.items() if k in ours)
    checks.add(f"{title}: {len(golden)} norms", worst, rtol)


def compare_weights(checks: Checks, title: str, ours: Tensor, golden: Tensor, lr: float, share: float = 0.02) -> None:
    """Statistics by their values. Of weights the number that is off by a tenth of the rate or more: Adam makes a whole step of the rounding of a
    gradient near zero."""
    if "running_" in title: return checks.close(title, ours, golden, 1e-4)
    step = lr * (0.1 if "backbone." in title else 1.0)
    checks.add(f"{title}: weights with another step", ((ours - golden).abs() > step / 10).sum().item(), max(1, share * golden.numel()))


# --- the steps ---------------------------------------------------------------------------------------------------------------------

def teacher_step(folder: Path, checks: Checks) -> None:
    about, t = facts(folder / "sd_teacher_step.json"), read(folder / "sd_teacher_step.safetensors")
    images = numbered(t, "img")
    model = golden_model(folder, sd_points=len(t["prompt_wh0"]), sd_coords="reference")
    batch = {"image": [t[f"img{i}"] for i in images], "masks": [unpacked(t[f"masks_bits{i}"], t[f"img{i}"].shape[-1]) for i in images],
             "labels": [t[f"labels{i}"] for i in images], "content": [tuple(hw) for hw in about["resized_image_hw"]]}
    compare_norms(checks, "teacher's step, before", model.network, about["weight_norms_before"], 1e-6)
    with seeded(about["torch_seed"]): terms = step(model, optimiser(model, about["lr"]), batch)
    compare_losses(checks, "teacher's step", terms, about["losses"], 1e-5)
    checks.number("teacher's step: total", sum(terms.values()).item(), about["total"], 1e-5)
    compare_norms(checks, "teacher's step, after", model.network, about["weight_norms_after"], 1e-4)
    for key, value in t.part("after.").items(): compare_weights(checks, f"teacher's step: {key}", named(model.network)[key], value, about["lr"])


@torch.no_grad()
def start_networks(model: S4M, config: dict[str, Any]) -> None:
    "As the golden's `init` says."
    head = model.network.net.class_predictor
    head.weight.mul_(config["cls_scale"])
    head.bias[-1] += config["cls_bias"]
    model.teacher.load_state_dict(model.network.state_dict())
    for name, value in model.network.state_dict().items():
        if value.is_floating_point() and not name.endswith("empty_weight"): value.mul_(0.97).add_(0.001)


def recorded_colour(radii: list[float]) -> StrongColour:
    "Torch's draws from its own generator; the radius of the blur comes from Python's, and takes none of torch's."
    before = torch.get_rng_state()
    drawn = StrongColour.draw(None)
    if not drawn.blur: return drawn
    torch.set_rng_state(before)
    torch.rand(1)
    if drawn.order:
        torch.randperm(4)
        for _ in range(4): torch.empty(1).uniform_()
    torch.rand(1), torch.rand(1)
    return replace(drawn, blur=radii.pop(0))


def unlabelled(t: Stored) -> dict[str, list[Tensor]]:
    clean = [t[f"unl{i}.image_wo_weak"] for i in range(len({k.split(".")[0] for k in t if k.startswith("unl")}))]
    weak = [torch.from_numpy((c.numpy().astype("float32") * 0.9 + 10).astype("uint8")) for c in clean]  # as the golden's `weak_image` says
    return {"clean": clean, "weak": weak}


def student_steps(folder: Path, checks: Checks) -> None:
    about, t = facts(folder / "student_steps.json"), read(folder / "student_steps.safetensors")
    losses = {f"step {one['iter']}: {name}": value for one in about["its"] for name, value in {**one["losses"], "total": one["total"]}.items()}
    norms = {f"{who} at the end: norm of {k}": v for who in ("student", "teacher") for k, v in about["its"][-1].get(f"{who}_norms", {}).items()
             if not re.search(LEFT_OUT, k)}
    runs = {seed: student_run(folder, about, t, seed, checks if seed == 0 else None) for seed in range(3)}
    checks.equal("student's steps: names of losses and weights", sorted({*losses, *norms} - set(runs[0])), [])
    checks.steps(runs.get, losses, 1e-3)  # one sampled point, or one pixel of a refined mask, may be another
    checks.steps(runs.get, norms, 1e-4)


def student_run(folder: Path, about: Stored, t: Stored, seed: int, checks: Checks | None) -> dict[str, float]:
    "The losses of every step and the norms at the end, of networks whose weights were moved where `seed` is not 0."
    config = about["config"]
    model = golden_model(folder, stage="student", points=config["num_points"], arp="static" if config["static"] else "dynamic", paste_area=3000)
    start_networks(model, config)
    if seed: moved(model, seed)
    number = range(len({k.split(".")[0] for k in t if k.startswith("lab")}))
    batch = {"image": [t[f"lab{i}.image"] for i in number], "labels": [t[f"lab{i}.labels"] for i in number],
             "masks": [unpacked(t[f"lab{i}.masks_bits"], t[f"lab{i}.image"].shape[-1]) for i in number]}
    optimizer, images, numbers = optimiser(model, about["lr"]), unlabelled(t), {}
    for one in about["its"]:
        made, terms = student_step(model, optimizer, batch, images, one, config)
        numbers |= {f"step {one['iter']}: {k}": v.item() for k, v in {**terms, "total": sum(terms.values())}.items()}
        if checks: compare_step(checks, model, made, one, t.part(f"it{one['iter']}."), about["lr"])
    for who, network in (("student", model.network), ("teacher", model.teacher)):
        numbers |= {f"{who} at the end: norm of {k}": v.double().norm().item() for k, v in named(network).items()}
    return numbers


def student_step(model: S4M, optimizer: torch.optim.Optimizer, batch: dict[str, Any], images: dict[str, list[Tensor]], one: Stored,
                 config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    "Pseudo-labels and losses of a step with the recorded draws."
    cells, counts = [torch.tensor(d[1]) for d in one["draws"] if d[0] == "np.choice"], [i["n"] for i in one["images"]]
    ends = [sum(counts[:i + 1]) for i in range(len(counts))]
    split = [torch.stack(cells[end - n:end]) if n else torch.zeros(0, config["num_points"], dtype=torch.int64) for end, n in zip(ends, counts, strict=True)]
    rest = [d for d in one["draws"] if d[0] != "np.choice"]
    radii = [d[1] for d in rest if d[0] == "py.uniform"]
    move_teacher(model, one["iter"], config["burn_in"], config["ema"])
    with seeded(one["seed"]):
        with float32(): colours = [recorded_colour(radii) for _ in counts]
        made = model.label(images, None, split, Recorded([d for d in rest if d[0] != "py.uniform"]), colours)
        return made, step(model, optimizer, {**batch, "unlabelled": made})


def compare_step(checks: Checks, model: S4M, made: dict[str, Any], one: Stored, golden: Stored, lr: float) -> None:
    title = f"step {one['iter']}"
    checks.equal(f"{title}: pseudo-labels", made["counts"]["labels"], sum(i["n"] for i in one["images"]))
    for i, (labels, masks, image) in enumerate(zip(made["labels"], made["masks"], made["strong"], strict=True)):
        own = golden.part(f"arp{i}.")
        if "labels" in own: checks.equal(f"{title}, image {i}: labels after pasting", labels, own["labels"])
        if "masks_bits" in own:
            wrong = (masks != unpacked(own["masks_bits"], masks.shape[-1])).flatten(1).sum(1)
            checks.add(f"{title}, image {i}: masks after pasting, pixels", wrong.max() if len(wrong) else 0, PIXELS)
        if "image_aug" in own: checks.equal(f"{title}, image {i}: strong colours", image, own["image_aug"])
    for who, network in (("student", model.network), ("teacher", model.teacher)):
        for key, value in golden.part(f"{who}_after.").items():
            compare_weights(checks, f"{title}: {who}, {key}", named(network)[key], value, lr, 0.02 * 3 ** one["iter"])


# --- schedules and parameter groups -----------------------------------------------------------------------------------------------

def schedules(folder: Path, checks: Checks) -> None:
    about = facts(folder / "schedules.json")
    for name, one in about.items():
        if isinstance(one, dict) and "lr" in one and "max_iter" in one: rates(checks, name, one)
    for name in (k for k in about if k.startswith("param_groups_")): groups(folder, checks, name, about[name])


def rates(checks: Checks, name: str, one: Stored) -> None:
    "Where the rate falls to a tenth is read off the golden, as is the warm-up."
    total, lr = one["max_iter"], {int(k): v for k, v in one["lr"].items()}
    steps = sorted(lr)
    peak = max(v[0] for v in lr.values())
    falls = [b / total for a, b in zip(steps, steps[1:]) if abs(lr[b][0] / lr[a][0] - 0.1) < 1e-9]
    warm = next(s for s in steps if lr[s][0] == peak)
    kind = "multistep" if falls else "poly"
    ours = {s: schedule(kind, s, total, 1, warm, 0.9, falls) for s in steps}
    checks.add(f"{name}: {len(steps)} rates of the heads", max(abs(peak * ours[s] - lr[s][0]) for s in steps), 1e-12)
    checks.add(f"{name}: {len(steps)} rates of the backbone", max(abs(0.1 * peak * ours[s] - lr[s][1]) for s in steps), 1e-12)


def groups(folder: Path, checks: Checks, name: str, golden: Stored) -> None:
    "Rate and decay of every parameter; the networks have any width, since only names count."
    network = build_mask2former(_size_of_names(golden), 8)
    model = nn.Module()
    model.network = network
    given = {p: (g["lr"], g["weight_decay"]) for g in network.parameter_groups(S4mRecipe(lr=1e-4, weight_decay=0.05)) for p in g["params"]}
    params = dict(network.net.named_parameters())
    ours = {theirs: given[params[mine[0]]] for theirs, mine in reference_names(params).items()}
    checks.equal(f"{name}: names", sorted(ours), sorted(golden))
    checks.equal(f"{name}: rate and weight decay", {k: v for k, v in ours.items() if list(v) != golden.get(k)}, {})


def _size_of_names(names: dict[str, Any]) -> Mask2FormerSize:
    def count(pattern: str) -> int: return len({m[1] for k in names if (m := re.match(pattern, k))})
    if any(k.startswith("backbone.res2") for k in names):
        backbone = dict(kind="resnet", embedding_size=4, hidden_sizes=[8, 16, 32, 64], depths=[count(rf"backbone\.res{s}\.(\d+)\.") for s in range(2, 6)])
    else:
        backbone = dict(kind="swin", embed_dim=8, num_heads=[1, 1, 2, 2], window_size=4, depths=[count(rf"backbone\.layers\.{s}\.blocks\.(\d+)\.") for s in range(4)])
    other = any(k.startswith("sem_seg_head.predictor.input_proj.") for k in names)
    return Mask2FormerSize(backbone, 32, 32, 16 if other else 32, num_heads=4, encoder_layers=count(r"sem_seg_head\.pixel_decoder\.transformer\.encoder\.layers\.(\d+)\."),
                           decoder_layers=1 + count(r"sem_seg_head\.predictor\.transformer_ffn_layers\.(\d+)\."), queries=8, points=16)


if __name__ == "__main__": raise SystemExit(alone(check))
