"""What RSAM's sharing saves, against the release's order of work built from the same parts with the same weights; and what its parts give.

    python -m benchmarks.rsam speed [--backbone sam2.1-b+ --size 800 --expressions 8 --repeats 3] [--device cuda --precision bf16]
    python -m benchmarks.rsam train [--backbone sam2.1-b+ --size 800 --expressions 8]     # a training step: time and peak memory
    python -m benchmarks.rsam text [--expressions 64]                                     # BERT read again in every step, or remembered
    python -m benchmarks.rsam demo [--seeds 0,1,2] [--steps N] [--variants ...]           # accuracy on the demo's aerial scenes, and ablations
        [--keep DONE.jsonl] [any parameter of `sam_nb train rsam`]

Outputs are compared first. Each prints a table; `--save FILE.md` writes it too. One CPU thread unless `--threads` says otherwise.
"""
from __future__ import annotations

import argparse
import json
import resource
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.position_encoding import PositionEmbeddingSine

from benchmarks.sartm import machine
from sam_nb.encoders.sentences import vocabulary_of
from sam_nb.heads.promptable import embed_prompts, resize_logits
from sam_nb.launch.parameters import find_notebook, read_command, read_parameters
from sam_nb.losses import iou_target, mask_dice, sigmoid_focal
from sam_nb.methods.rsam import RSAM, gated
from sam_nb.prompts import Prompts

SAID = ("the red roof on the left", "the small house beside the road", "a white ship near the upper harbour", "the second plane from the right",
        "the large storage tank at the top", "the vehicle next to the blue house", "the tennis court", "the house nearest to the water in the middle")


def sentences(count: int) -> list[str]: return [f"{SAID[i % 8]}{' ' + str(i // 8) if i >= 8 else ''}" for i in range(count)]


def build(chosen: argparse.Namespace) -> RSAM:
    torch.manual_seed(0)
    pieces = vocabulary_of(sentences(chosen.expressions))
    text = {"vocab_size": max(30522, len(pieces))} if chosen.text == "bert-base-uncased" else chosen.text
    model = RSAM(backbone=chosen.backbone, image_size=chosen.size, text=text, drop_path=0.0, loss_chunk=chosen.chunk, mask_text_padding=False)
    torch.nn.init.constant_(model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias, 10.0)  # an open gate, or there is nothing to compare
    return model.set_vocabulary(pieces).to(chosen.device)


# ---- the release's order of work ----------------------------------------------------------------------------------------------------------------------

def released_encode(model: RSAM, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    "sam2's own encoder: windows cut and joined in every block, four sine position maps, two convolutions in a row at the fine levels."
    encoder, decoder = model.image_encoder, model.sam_mask_decoder
    lean, silent = encoder.trunk.__class__, encoder.neck.position_encoding
    encoder.trunk.__class__ = Hiera
    encoder.neck.position_encoding = PositionEmbeddingSine(encoder.neck.d_model, temperature=10000, normalize=True, scale=None, warmup_cache=False)
    try: f0, f1, f2 = encoder(images)["backbone_fpn"]
    finally: encoder.trunk.__class__, encoder.neck.position_encoding = lean, silent
    return decoder.conv_s0(f0), decoder.conv_s1(f1), f2


def released_answer(model: RSAM, levels: tuple, index: torch.Tensor, said: list[str]):
    "Features copied for every sentence; nothing shared in the guidance module; all words, all four masks."
    s0, s1, f2 = (level[index] for level in levels)
    ids, real = model.reader.tokens(said)
    words = model.reader.read(ids, real)
    text, n = model.text_proj(words.hidden), len(said)
    places, pe = model.sam_prompt_encoder.description_pe.weight[None, :text.shape[1]], model.sam_prompt_encoder.get_dense_pe()
    text, seen = model.description_transformer(f2, pe, text, places, torch.arange(n, device=f2.device))
    nothing = Prompts(torch.zeros(n, 1, 2, device=f2.device), -torch.ones(n, 1, dtype=torch.int64, device=f2.device), None, False)
    sparse, dense = embed_prompts(model, nothing)
    decoder = model.sam_mask_decoder
    tokens, image = decoder.attend(decoder.tokens(sparse, n, text[:, :1]), seen + dense, pe)
    masks = decoder.mask_logits(tokens, decoder.upscale(image, (s0, s1)), range(4))[:, :1]
    logits = torch.where(decoder.object_logit(tokens)[..., None, None] > 0, masks, -1024.0)
    return logits, decoder.predicted_iou(tokens)[:, :1], decoder.object_logit(tokens)


def turns(sides: dict, repeats: int, device: str) -> dict[str, list[float]]:
    "Seconds of each side, in turns."
    def once(run) -> float:
        if device != "cpu": torch.cuda.synchronize()
        begun = time.perf_counter() if device != "cpu" else time.process_time()
        run()
        if device != "cpu": torch.cuda.synchronize()
        return (time.perf_counter() if device != "cpu" else time.process_time()) - begun
    taken = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items(): taken[name].append(once(run))
    return taken


def speed_table(taken: dict[str, list[float]], against: str) -> pd.DataFrame:
    rows = {n: (statistics.median(t), statistics.median(a / b for a, b in zip(taken[against], t, strict=True))) for n, t in taken.items()}
    return pd.DataFrame(rows, index=["seconds", "faster"]).T.round(3)


def markdown(frame: pd.DataFrame) -> str:
    rows = [["", *frame.columns], ["---"] * (1 + len(frame.columns)), *([i, *r] for i, r in zip(frame.index, frame.to_numpy().tolist(), strict=True))]
    return "\n".join("| " + " | ".join(str(round(v, 4)) if isinstance(v, float) else str(v) for v in row) + " |" for row in rows)


# ---- one image, many sentences ------------------------------------------------------------------------------------------------------------------------

def speed(chosen: argparse.Namespace) -> str:
    model = build(chosen).eval()
    image, said = torch.randn(1, 3, chosen.size, chosen.size, device=chosen.device), sentences(chosen.expressions)
    zero, auto = torch.zeros(len(said), dtype=torch.int64, device=chosen.device), torch.autocast(chosen.device.split(":")[0], torch.bfloat16, enabled=chosen.precision == "bf16")

    @torch.inference_mode()
    def one_by_one():
        with auto: return torch.cat([resize_logits(released_answer(model, released_encode(model, image), zero[:1], [s])[0], chosen.size) for s in said])

    @torch.inference_mode()
    def batched():
        with auto: return resize_logits(released_answer(model, released_encode(model, image), zero, said)[0], chosen.size)

    @torch.inference_mode()
    def ours():
        model.reader.kept.clear()
        with auto: return resize_logits(gated(model.decode(model.encode(image), zero, words=model.read(said))), chosen.size)

    @torch.inference_mode()
    def asked_again():
        with auto: return resize_logits(gated(model.decode(kept, zero, words=model.read(said))), chosen.size)
    with torch.inference_mode(), auto: kept = model.encode(image)
    model.reader.memory, model.switches = 2**30, model.switches.model_copy(update={"mask_text_padding": True})  # as alone: a padded batch of the release gives other answers
    a, b = one_by_one(), ours()
    differ = (a - b).abs().max().item() / a.abs().max().item()
    if chosen.precision == "fp32" and differ > 1e-4: raise SystemExit(f"outputs differ by {differ:.1e} of the largest")
    taken = turns({f"{len(said)} single calls, release": one_by_one, "one call with all, release": batched, "sam_nb": ours,
                   "sam_nb, image and sentences known": asked_again}, chosen.repeats, chosen.device)
    return f"## {len(said)} sentences about one image\n\n{chosen.backbone}, {chosen.size} px, {chosen.text}; largest difference of outputs {differ:.1e} of the largest\n\n" + \
        markdown(speed_table(taken, f"{len(said)} single calls, release"))


# ---- a training step -----------------------------------------------------------------------------------------------------------------------------------

def step(chosen: argparse.Namespace) -> dict:
    "One side's training step, in a process of its own: seconds, peak memory, loss, gradient norm."
    model = build(chosen).train()
    torch.manual_seed(1)
    said, size = sentences(chosen.expressions), chosen.size
    batch = {"image": torch.randn(chosen.images, 3, size, size, device=chosen.device), "expressions": said * chosen.images,
             "masks": torch.rand(len(said) * chosen.images, size, size, device=chosen.device) > 0.9,
             "image_index": torch.arange(chosen.images, device=chosen.device).repeat_interleave(len(said))}

    def released() -> torch.Tensor:
        logits, ious, objects = released_answer(model, released_encode(model, batch["image"]), batch["image_index"], batch["expressions"])
        large, truth = resize_logits(logits, size), batch["masks"][:, None]
        s, n = model.switches, len(batch["masks"])
        terms = s.focal_weight * sigmoid_focal(large, truth) + s.dice_weight * mask_dice(large, truth) + (ious - iou_target(large, truth)).abs()
        return terms.sum() / n + F.binary_cross_entropy_with_logits(objects, torch.ones_like(objects), reduction="sum") / n
    base, taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, []
    for _ in range(chosen.repeats):
        model.zero_grad()
        begun = time.process_time() if chosen.device == "cpu" else time.perf_counter()
        with torch.autocast(chosen.device.split(":")[0], torch.bfloat16, enabled=chosen.precision == "bf16"):
            loss = released() if chosen.side == "released" else sum(model.losses(batch).values())
        loss.backward()
        if chosen.device != "cpu": torch.cuda.synchronize()
        taken.append((time.process_time() if chosen.device == "cpu" else time.perf_counter()) - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - base if chosen.device == "cpu" else torch.cuda.max_memory_allocated() / 2**20
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    return {"seconds": statistics.median(taken), "peak memory, MiB": round(peak), "loss": loss.item(), "gradient norm": norm.item()}


def train(chosen: argparse.Namespace) -> str:
    found = {}
    for side in ("released", "sam_nb"):
        words = [sys.executable, "-m", "benchmarks.rsam", "step", "--side", side, *chosen.words]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode: raise SystemExit(done.stderr)
        found[side] = json.loads(done.stdout.splitlines()[-1])
    a, b = found["released"], found["sam_nb"]
    if chosen.precision == "fp32" and abs(a["loss"] - b["loss"]) > 1e-4 * abs(a["loss"]): raise SystemExit(f"losses differ: {a['loss']}, {b['loss']}")
    head = f"## A training step: {chosen.images} image(s), {chosen.expressions} sentences each\n\n{chosen.backbone}, {chosen.size} px, {chosen.text}; "
    ratio = f"{a['seconds'] / b['seconds']:.2f}x the speed, {b['peak memory, MiB'] / a['peak memory, MiB']:.2f} of the memory"
    return head + ratio + "\n\n" + markdown(pd.DataFrame(found).T)


def text(chosen: argparse.Namespace) -> str:
    model, said = build(chosen).eval(), sentences(chosen.expressions)

    def anew():
        with torch.no_grad(): model.reader.kept.clear(); return model.read(said)
    model.read(said)
    taken = turns({"read by BERT": anew, "remembered": lambda: model.read(said)}, chosen.repeats, chosen.device)
    return f"## Reading {len(said)} sentences\n\n" + markdown(speed_table(taken, "read by BERT"))


# ---- accuracy on the demo's scenes ------------------------------------------------------------------------------------------------------------------

VARIANTS = {
    "the preset": {}, "without the guidance module": dict(num_twgt=0), "without text in the decoder": dict(text_injection="none"),
    "padding takes part": dict(mask_text_padding=False), "without negatives": dict(negatives=0.0, absent=False),
    "sentences closed with [SEP]": dict(add_sep=True), "SAM 2's decoder not loaded": dict(init_decoder_from_sam2=False),
    "image encoder frozen": dict(train_image_encoder=False), "no box asked of sentences": dict(where_weight=0.0), "right object asked for": dict(which_weight=1.0),
    "positions on keys alone": dict(positions="keys"),
}


def demo(chosen: argparse.Namespace) -> str:
    kept = [json.loads(line) for line in chosen.keep.read_text().splitlines()] if chosen.keep and chosen.keep.is_file() else []
    tables, kinds = {}, {}
    for name in chosen.variants.split(",") if chosen.variants else VARIANTS:
        for seed in (int(s) for s in chosen.seeds.split(",")):
            row = next((r for r in kept if (r["variant"], r["seed"], r["command"]) == (name, seed, chosen.asked)), None)
            if not row:
                row = {"variant": name, "seed": seed, "command": chosen.asked, **measured(name, seed, chosen)}
                if chosen.keep:
                    with chosen.keep.open("a") as file: print(json.dumps(row), file=file)
            tables.setdefault(name, []).append(row["scores"])
            for kind, hits in row["kinds"].items(): kinds.setdefault(name, {}).setdefault(kind, []).append(hits)
            print(name, seed, {k: round(v, 1) for k, v in row["scores"].items()}, {k: round(v, 1) for k, v in row["kinds"].items()}, flush=True)
    shown = ("P@0.5", "mIoU", "oIoU", "P@0.5, sentences swapped", "another object overlaps more", "absent, rejected", "AUROC", "processor seconds")

    def mean(values: list[float]) -> str:
        values = [v for v in values if v == v]
        return "-" if not values else f"{statistics.mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")
    rows = {name: {**{k: mean([t.get(k, float("nan")) for t in some]) for k in shown}, **{f"P@0.5, {k}": mean(v) for k, v in kinds[name].items()}, "seeds": len(some)}
            for name, some in tables.items()}
    return "## Demo aerial scenes, test split, percent\n\n" + markdown(pd.DataFrame(rows).T)


def measured(name: str, seed: int, chosen: argparse.Namespace) -> dict[str, dict[str, float]]:
    "One variant's scores on the test split, and P@0.5 by kind of sentence."
    from sam_nb.evaluation.sentence_tables import sentence_kind
    from sam_nb.evaluation.sentences import main_scores
    found, seconds = trained(name, seed, chosen)
    table = found.scores | {"processor seconds": seconds}
    kinds = {kind: [r for r in found.named if sentence_kind(r) == kind] for kind in ("looks", "place", "order", "relation")}
    return {"scores": table, "kinds": {kind: main_scores(some)["P@0.5"] for kind, some in kinds.items() if some}}


def trained(name: str, seed: int, chosen: argparse.Namespace):
    "One variant's answers on the test split, and the processor seconds of its training."
    from sam_nb.datasets.catalog import load_dataset
    from sam_nb.evaluation.sentences import evaluate_sentences
    from sam_nb.methods.rsam_job import JOB
    from sam_nb.training.loop import Trainer
    from sam_nb.training.runs import Run
    values = dict(preset=chosen.preset, dataset="demo", seed=seed, workers=0, run_name=f"benchmark-rsam-{seed}-{time.time_ns()}", **chosen.recipe)
    if chosen.steps: values["steps"] = chosen.steps
    if chosen.data_root: values["data_root"] = chosen.data_root
    change = dict(VARIANTS[name])
    guided = change.pop("num_twgt", None) != 0
    recipe = JOB.check(values).model_copy(update=change)
    data, run = JOB.data(recipe), Run.create("rsam", recipe)
    model, _ = JOB.build(recipe, data)
    if not guided: model.description_transformer = None  # saved weights may have it
    transforms, begun = JOB.transforms(model, recipe, data), time.process_time()
    Trainer(model, recipe, run, data["train"], transforms["train"], data["val"], transforms["val"], JOB.metric(recipe, data), JOB.collate(recipe),
            JOB.monitor, update=JOB.update(recipe)).fit()
    seconds = time.process_time() - begun
    return evaluate_sentences(model, load_dataset("demo_aerial", "test", recipe.data_root, empty=True), chosen.test_images), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("what", choices=("speed", "train", "text", "demo", "step"))
    parser.add_argument("--backbone", default="sam2.1-b+"); parser.add_argument("--size", type=int, default=800)
    parser.add_argument("--expressions", type=int, default=8); parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--text", default="bert-base-uncased", choices=("bert-base-uncased", "tiny")); parser.add_argument("--chunk", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3); parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu"); parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--side", default="sam_nb", choices=("released", "sam_nb"), help=argparse.SUPPRESS)
    parser.add_argument("--seeds", default="0,1,2"); parser.add_argument("--steps", type=int); parser.add_argument("--preset", default="tiny")
    parser.add_argument("--variants", help="names of VARIANTS, separated by commas"); parser.add_argument("--test_images", type=int)
    parser.add_argument("--data_root"); parser.add_argument("--save", type=Path)
    parser.add_argument("--keep", type=Path, help="a .jsonl: every run's scores are added to it, and those that are there already are not run again")
    chosen, rest = parser.parse_known_args()
    if rest and chosen.what != "demo": parser.error(f"unknown: {' '.join(rest)}")
    if chosen.what == "demo":
        chosen.asked = " ".join(f"--{k} {getattr(chosen, k)}" for k in ("preset", "steps", "test_images", "data_root")) + " " + " ".join(rest)
        chosen.recipe = read_command("train", "rsam", rest, read_parameters(find_notebook("train", "rsam")))[1]
        own = sorted(set(chosen.recipe) & {"dataset", "seed", "workers", "run_name", "resume"})
        if own: parser.error(f"--{own[0]} is chosen by the benchmark itself")
    chosen.compile = False
    torch.set_num_threads(chosen.threads)
    if chosen.what == "step": print(json.dumps(step(chosen))); return
    chosen.words = [w for name in ("backbone", "size", "expressions", "images", "text", "chunk", "repeats", "threads", "device", "precision")
                    for w in (f"--{name}", str(getattr(chosen, name)))]
    words = shlex.join(w for w, before in zip(sys.argv[1:], sys.argv) if "--save" not in (w, before))
    said = f"`python -m benchmarks.rsam {words}`\n\n{machine(chosen)}\n\n" + {"speed": speed, "train": train, "text": text, "demo": demo}[chosen.what](chosen) + "\n"
    print(said)
    if chosen.save: chosen.save.write_text(said)


if __name__ == "__main__": main()
