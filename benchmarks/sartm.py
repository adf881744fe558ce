"""SARTM, this library's way, against the schedule of calls of the release: equal outputs, less time.

    python -m benchmarks.sartm [--size 512] [--backbone t] [--classes 15] [--batch 1] [--repeats 7] [--device cpu] [--save FILE.md]

Both sides are made of this library's classes and SAM 2's package and hold the same weights. The schedule of the release:

- three separate adapter pairs on q and v of every block, at test time too;
- SAM 2's encoder as it stands (windows cut and joined in every block, padding multiplied) with the sine position encodings of its neck;
- mask token 0, its hypernetwork and the IoU head computed and thrown away;
- fusion modules and auxiliary head also at test time, where their answer is not used;
- the K maps of every image enlarged, then averaged over the modalities; a softmax before the arg-max;
- CLIP's text tower (ViT-B/32 size) over all class names in every training step.

Before anything is timed, outputs, losses and gradients of both are compared in float32; it stops if they differ.
They then take turns in one process. Peak memory is taken in processes of their own; that of the release holds CLIP's text tower.
"""
from __future__ import annotations

import argparse
import copy
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from sam2.modeling.backbones.hieradet import Hiera
from torch import Tensor, nn

from sam_nb.encoders.lora import QVLoRA, SeparatePairsQV, lora_to_released, merge_lora
from sam_nb.encoders.sam2 import build_image_encoder, prompt_constants, sam2_size
from sam_nb.heads.fusion import resize_bilinear
from sam_nb.heads.semantic import object_gate
from sam_nb.losses import semantic_cross_entropy
from sam_nb.methods.sartm import SARTM, distillation_losses
from sam_nb.optim import decay_groups
from sam_nb.recipe import Recipe

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
RECIPE = Recipe(dataset="demo", lr=1e-4, weight_decay=0.01)


# ---- the two sides ----------------------------------------------------------------------------------------------------------------------------------

class ClipTower(nn.Module):
    "CLIP's text tower at the size of ViT-B/32, random weights, and K class names of a few tokens each."
    def __init__(self, classes: int, device: torch.device):
        super().__init__()
        from transformers import CLIPTextConfig, CLIPTextModelWithProjection
        config = CLIPTextConfig(bos_token_id=49406, eos_token_id=49407)  # 12 layers of 512, 77 places
        self.model = CLIPTextModelWithProjection(config).eval().requires_grad_(False).to(device)
        if device.type == "cuda": self.model.half()  # as OpenAI's package loads it
        tokens = torch.zeros(classes, config.max_position_embeddings, dtype=torch.int64)
        tokens[:, 0], tokens[:, 3] = config.bos_token_id, config.eos_token_id
        tokens[:, 1:3] = torch.arange(2 * classes).reshape(classes, 2) + 320
        self.register_buffer("tokens", tokens.to(device))

    def forward(self) -> Tensor:  # [K, 512]
        with torch.no_grad(): return self.model(input_ids=self.tokens).text_embeds


def released_encoder(model: SARTM) -> nn.Module:
    "SAM 2's own encoder with separate adapter pairs and the weights of `model`."
    size, s = sam2_size(model.switches.backbone), model.switches
    encoder = build_image_encoder(size, positions=True)
    encoder.trunk = Hiera(embed_dim=size.embed_dim, num_heads=size.num_heads, stages=size.stages, global_att_blocks=size.global_att_blocks,
                          window_pos_embed_bkg_spatial_size=size.window_pos_embed_bkg_spatial_size, window_spec=size.window_spec)
    for block in encoder.trunk.blocks: block.attn.qkv = SeparatePairsQV(block.attn.qkv, s.lora_rank, s.lora_pairs)
    encoder.load_state_dict(lora_to_released(model.image_encoder.state_dict(), s.lora_pairs))
    for name, parameter in encoder.named_parameters(): parameter.requires_grad_("linear_" in name)
    return encoder


class ReleasedSchedule(nn.Module):
    "The network of a `SARTM`, computed in the order of the release."
    def __init__(self, model: SARTM, tower: ClipTower,
                 text_once: bool = False):  # leave the text tower out
        super().__init__()
        self.switches, self.classes, self.text_once = model.switches, model.classes, text_once
        self.image_encoder, self.tower = released_encoder(model), tower
        for name in ("prompt_encoder", "mask_decoder", "fusion", "aux_head", "prototypes", "text_features"):
            part = copy.deepcopy(getattr(model, name))
            self.register_buffer(name, part) if isinstance(part, Tensor) else self.add_module(name, part)

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:  # logits, auxiliary logits, fused levels
        images, decoder = torch.cat([batch["image"], batch["thermal"]]), self.mask_decoder
        f0, f1, f2 = self.image_encoder(images)["backbone_fpn"]
        levels = [decoder.conv_s0(f0), decoder.conv_s1(f1), f2]
        sparse, dense, image_pe = prompt_constants(self.prompt_encoder)
        n, size = len(images), images.shape[-2:]
        masks, ious, tokens, seen = decoder.predict_masks(f2, image_pe, sparse.expand(n, -1, -1), dense.expand(n, -1, -1, -1), False, levels[:2])
        logits = resize_bilinear(object_gate(masks[:, 1:], seen), tuple(size)).unflatten(0, (2, -1)).mean(0)
        rgb, thermal = zip(*(level.chunk(2) for level in levels), strict=True)
        fused = self.fusion(rgb, rgb if self.switches.fusion_inputs == "rgb_rgb" else thermal)
        aux = resize_bilinear(self.aux_head(fused, lean=False), tuple(size))
        return logits, aux, fused

    def losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        logits, aux, fused = self(batch)
        if not self.text_once: self.text_features = self.tower().float()
        terms = {"decoder": semantic_cross_entropy(logits, batch["semantic"], lean=False), "aux": semantic_cross_entropy(aux, batch["semantic"], lean=False)}
        return terms | distillation_losses(self, fused[2], batch["semantic"])

    @torch.no_grad()
    def predict(self, batch: Mapping[str, Tensor]) -> list[Tensor]:
        answers = self(batch)[0].softmax(1).argmax(1)
        return [a[:h, :w] for a, (h, w) in zip(answers, batch["content_size"].tolist(), strict=True)]


def build(options: argparse.Namespace) -> tuple[SARTM, ClipTower]:
    "This library's model, adapters away from zero so that they count."
    torch.manual_seed(0)
    device = torch.device(options.device)
    classes = [f"class {i}" for i in range(options.classes)]
    model = SARTM(classes, backbone=options.backbone, image_size=options.size, prototype_mode="released", absent_classes="zero", output="decoder")
    for layer in model.modules():
        if isinstance(layer, QVLoRA):
            for target in layer.rows: nn.init.normal_(layer.b(target), std=0.01)
    tower = ClipTower(options.classes, device)
    model.to(device).set_text(tower().float())
    return model, tower


def make_batch(options: argparse.Namespace) -> dict[str, Tensor]:
    "Noise, and class regions of 32 pixels; three quarters of the height hold image, as FMB's 600 x 800 in a square."
    generator = torch.Generator().manual_seed(1)
    b, s = options.batch, options.size
    small = torch.randint(0, options.classes, (b, s // 32, s // 32), generator=generator)
    labels = small.repeat_interleave(32, 1).repeat_interleave(32, 2)
    content = torch.tensor([[s * 3 // 4, s]] * b)
    labels[:, s * 3 // 4:] = 255
    batch = dict(image=torch.randn(b, 3, s, s, generator=generator), thermal=torch.rand(b, 3, s, s, generator=generator), semantic=labels)
    return {k: v.to(options.device) for k, v in batch.items()} | {"content_size": content, "original_size": content}


def own_side(model: SARTM, work: str, options: argparse.Namespace) -> SARTM:
    "This library's model as its jobs use it: adapters merged for evaluation."
    model = copy.deepcopy(model)
    if work == "evaluation": merge_lora(model.image_encoder)
    if options.compile: model.image_encoder.trunk.compile()
    return model


# ---- what is measured ----------------------------------------------------------------------------------------------------------------------------------

def training_step(side: nn.Module, options: argparse.Namespace) -> Callable[[Mapping], dict[str, float]]:
    "Losses, gradients, AdamW."
    optimizer = torch.optim.AdamW(decay_groups(side, RECIPE), lr=RECIPE.lr, fused=options.device == "cuda" or None)

    def step(batch: Mapping) -> dict[str, float]:
        with torch.autocast(options.device, TYPES[options.precision], enabled=options.precision != "fp32"): terms = side.losses(batch)
        sum(terms.values()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {name: term.item() for name, term in terms.items()}
    side.train()
    return step


def evaluation(side: nn.Module, options: argparse.Namespace) -> Callable[[Mapping], list[Tensor]]:
    "From two normalised images to a class map."
    def answer(batch: Mapping) -> list[Tensor]:
        with torch.no_grad(), torch.autocast(options.device, TYPES[options.precision], enabled=options.precision != "fp32"): return side.predict(batch)
    side.eval()
    return answer


def timed(run: Callable[[Mapping], object], batch: Mapping, device: str) -> tuple[float, float]:
    "Seconds on the clock, and of the processor."
    if device == "cuda": torch.cuda.synchronize()
    clock, processor = time.perf_counter(), time.process_time()
    run(batch)
    if device == "cuda": torch.cuda.synchronize()
    return time.perf_counter() - clock, time.process_time() - processor


def take_turns(runs: dict[str, Callable], batch: Mapping, options: argparse.Namespace) -> dict[str, list[tuple[float, float]]]:
    "All sides in turn, every other round backwards; the first round warms up."
    taken = {name: [] for name in runs}
    for number in range(-options.warmup, options.repeats):
        for name in list(runs)[::-1 if number % 2 else 1]:
            seconds = timed(runs[name], batch, options.device)
            if number >= 0: taken[name].append(seconds)
    return taken


# ---- equality --------------------------------------------------------------------------------------------------------------------------------------

def largest_difference(a: Tensor, b: Tensor) -> float: return ((a - b).abs().max() / b.abs().max()).item()


def gradients(side: nn.Module, batch: Mapping) -> tuple[dict[str, float], dict[str, Tensor]]:
    "Loss terms, and gradients of the trained parameters under the names of the released adapters."
    side.train().zero_grad(set_to_none=True)
    terms = side.losses(batch)
    sum(terms.values()).backward()
    found = lora_to_released({k: p.grad for k, p in side.named_parameters() if p.grad is not None})
    side.zero_grad(set_to_none=True)
    return {k: v.item() for k, v in terms.items()}, found


def compare(ours: SARTM, theirs: ReleasedSchedule, batch: Mapping) -> dict[str, float]:
    "Largest relative differences; both sides start equal and end equal."
    start = [copy.deepcopy(side.state_dict()) for side in (ours, theirs)]
    (terms, own), (wanted, other) = gradients(ours, batch), gradients(theirs, batch)
    total = sum(wanted.values())
    size = sum(g.square().sum() for g in other.values()).sqrt()
    assert own.keys() == other.keys(), own.keys() ^ other.keys()
    for side, state in zip((ours, theirs), start, strict=True): side.load_state_dict(state)
    ours.eval(), theirs.eval()
    with torch.no_grad():
        logits, reference = ours(batch, parts=("decoder",)).logits, theirs(batch)[0]
        merged = copy.deepcopy(ours)
        merge_lora(merged.image_encoder)
        quick = merged(batch, parts=("decoder",)).logits
    pairs = zip(merged.predict(batch), theirs.predict(batch), strict=True)
    return {"test logits": largest_difference(logits, reference), "test logits, adapters merged": largest_difference(quick, reference),
            "share of pixels with another class": max((a != b).float().mean().item() for a, b in pairs),
            "losses": max(abs(terms[k] - wanted[k]) / max(abs(wanted[k]), 1e-2 * total) for k in wanted),
            "gradient (difference of all, relative)": (sum((own[k] - other[k]).square().sum() for k in own).sqrt() / size).item()}


LIMITS = {"test logits": 1e-5, "test logits, adapters merged": 1e-5, "share of pixels with another class": 1e-4, "losses": 1e-5,
          "gradient (difference of all, relative)": 1e-3}  # 3e-8 in float64; in float32 a max-pool may choose the other of two near-equal cells


# ---- memory --------------------------------------------------------------------------------------------------------------------------------------

def peak_memory(options: argparse.Namespace) -> float:
    "Peak of this process in MiB while it does one kind of work twice on one side; runs alone (--memory SIDE,WORK)."
    name, work = options.memory.split(",")
    (model, tower), batch = build(options), make_batch(options)
    model = ReleasedSchedule(model, tower).to(options.device) if name == "released" else own_side(model, work, options)
    del tower
    gc.collect()
    if options.device == "cuda": torch.cuda.empty_cache(); torch.cuda.reset_peak_memory_stats()
    else: forget_peak()
    run = (training_step if work == "training" else evaluation)(model, options)
    for _ in range(2): run(batch)
    if options.device == "cuda": return torch.cuda.max_memory_allocated() / 2**20
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1]) / 2**10


def forget_peak() -> None:
    "Give free memory back, then set the recorded peak to what is in use now (Linux)."
    import ctypes
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def memory_of(side: str, work: str, options: argparse.Namespace) -> float:
    words = [f"--{k}={getattr(options, k)}" for k in ("size", "backbone", "classes", "batch", "device", "precision", "threads")]
    words += [f"--memory={side},{work}", *(["--compile"] if options.compile else [])]
    done = subprocess.run([sys.executable, "-m", "benchmarks.sartm", *words], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


# ---- the report --------------------------------------------------------------------------------------------------------------------------------------

def table(title: str, taken: dict[str, list[tuple[float, float]]], memory: dict[str, float]) -> list[str]:
    "Rows: sides, medians. The ratios are the first side's time over each side's: of the medians, and the median of those of every turn."
    lines = [f"| {title} | clock, s | processor, s | faster, ratio of medians: clock | processor | faster, median ratio of a turn: clock | processor | "
             "peak memory, MiB |", "|---|---|---|---|---|---|---|---|"]
    first = next(iter(taken.values()))
    for name, rows in taken.items():
        medians, of_medians, of_turns = [], [], []
        for own, other in zip(zip(*rows), zip(*first), strict=True):  # clock, processor
            medians.append(statistics.median(own))
            of_medians.append(statistics.median(other) / medians[-1])
            of_turns.append(statistics.median(b / a for a, b in zip(own, other, strict=True)))
        cells = [name, *(f"{m:.3f}" for m in medians), *(f"{r:.2f}" for r in of_medians + of_turns), f"{memory[name]:.0f}" if name in memory else ""]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def machine(options: argparse.Namespace) -> str:
    name = torch.cuda.get_device_name() if options.device == "cuda" else platform.machine()
    if options.device == "cpu" and Path("/proc/cpuinfo").exists():
        name = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), name)
    compiled = ", compiled trunk" if options.compile else ""
    return (f"{options.device} ({name}), torch {torch.__version__}, {torch.get_num_threads()} thread(s), {options.precision}{compiled}, "
            f"load {os.getloadavg()[0]:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="side of the square input")
    parser.add_argument("--backbone", default="t", help="t, s, b+, l")
    parser.add_argument("--classes", type=int, default=15)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=1, help="rounds that do not count")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=tuple(TYPES))
    parser.add_argument("--compile", action="store_true", help="torch.compile this library's trunk")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", 1)))
    parser.add_argument("--no-memory", action="store_true", help="leave the memory runs out")
    parser.add_argument("--save", type=Path, help="write the tables to this Markdown file")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32, on both sides
    if options.memory: return print(json.dumps(peak_memory(options)))
    measure(options)


def measure(options: argparse.Namespace) -> None:
    ours, tower = build(options)
    theirs, batch = ReleasedSchedule(ours, tower).to(options.device), make_batch(options)
    once = copy.deepcopy(theirs)
    once.text_once = True
    lines = [f"`python -m benchmarks.sartm {' '.join(w for w in sys.argv[1:])}`", "",
             f"Hiera {options.backbone}, {options.size} x {options.size}, {options.batch} RGB-thermal pair(s), {options.classes} classes; "
             f"{machine(options)}; {options.repeats} turns", ""]
    found = compare(ours, theirs, batch)
    lines += ["Largest relative differences in float32, before timing: " + "; ".join(f"{k} {v:.1e}" for k, v in found.items()), ""]
    print("\n".join(lines), flush=True)
    if far := [k for k, v in found.items() if not v <= LIMITS[k]]: sys.exit(f"not equal: {', '.join(far)}")
    for work, start in {"evaluation": evaluation, "training": training_step}.items():
        without = {"released, text computed once": once} if work == "training" else {}
        sides = {"released schedule": theirs, **without, "sam_nb": own_side(ours, work, options)}
        taken = take_turns({name: start(side, options) for name, side in sides.items()}, batch, options)
        measured = {} if options.no_memory else {"released schedule": "released", "sam_nb": "ours"}
        memory = {name: memory_of(side, work, options) for name, side in measured.items()}
        new = [*table({"evaluation": "evaluation forward", "training": "training step"}[work], taken, memory), ""]
        print("\n".join(new), flush=True)
        lines += new
    if options.save:
        options.save.parent.mkdir(parents=True, exist_ok=True)
        options.save.write_text("\n".join(lines))


if __name__ == "__main__": main()
