"""What each part of SARTM gives on the demo street: three seeds a variant, the same budget for all.

    python -m benchmarks.sartm_demo [--epochs 5] [--seeds 3] [--processes 2] [--save benchmarks/results/sartm_demo.md]

Variants start from random weights and train the whole encoder, unless they say otherwise. Runs are kept in runs/study-* and not repeated.
"""
from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from sam_nb.core import workspace

RELEASED = dict(released=True, val_is_test=False)  # validation stays apart from test, so that only training differs
FROM_NOTHING = dict(checkpoint="scratch", train_encoder=True, lora_rank=4)
VARIANTS = {  # name -> (parameters, what it shows)
    "RGB alone": dict(modalities="rgb"),
    "thermal alone": dict(modalities="thermal"),
    "RGB and thermal (default)": dict(),
    "released": RELEASED,
    "released + thermal in the fusion": dict(RELEASED, fusion_inputs="rgb_thermal"),
    "released + learned auxiliary head": dict(RELEASED, aux_random=False),
    "released + true prototypes": dict(RELEASED, prototype_mode="mean", absent_classes="skip"),
    "released, no distillation": dict(RELEASED, use_text_kl=False, use_prototype_loss=False),
    "default, no distillation": dict(use_text_kl=False, use_prototype_loss=False),
    "default, no language": dict(use_text_kl=False),
    "default, text weight 10": dict(text_weight=10.0),
    "default, fusion by mean": dict(fusion="mean"),
    "from tiny_sam2, frozen encoder, no adapters": dict(checkpoint=None, train_encoder=False, lora_rank=0),
    "from tiny_sam2, adapters (as the paper)": dict(checkpoint=None, train_encoder=False, lora_rank=8),
    "from tiny_sam2, whole encoder": dict(checkpoint=None, train_encoder=True, lora_rank=4),
    "from nothing, adapters": dict(train_encoder=False, lora_rank=8),
}


def one(name: str, seed: int, epochs: int, lr: float) -> None:
    "Train one variant and score each head on the test split."
    import torch

    from sam_nb.evaluation import evaluate_semantic
    from sam_nb.methods.sartm import build_sartm, sartm_data, sartm_transforms
    from sam_nb.methods.sartm_recipe import sartm_recipe
    from sam_nb.metrics import SemanticScores
    from sam_nb.runs import Run
    from sam_nb.trainer import Trainer
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(seed)
    common = dict(dataset="demo", seed=seed, epochs=epochs, lr=lr, batch_size=8, schedule="warmup_poly", warmup_epochs=0.5, eval_every=epochs)
    recipe = sartm_recipe({**common, **FROM_NOTHING, **VARIANTS[name], "run_name": run_name(name, seed, epochs)})
    data, transforms = sartm_data(recipe), sartm_transforms(recipe)
    with Run.create("sartm", recipe) as run:
        model, _ = build_sartm(recipe, data["train"].classes, data["train"].palette)
        Trainer(model, recipe, run, data["train"], transforms["train"], data["val"], transforms["val"], SemanticScores(len(model.classes))).fit()
        scores = {}
        for head in ("decoder", "aux", "both"):
            if head != "decoder" and recipe.aux_random: continue
            model.switches.output = head
            result = evaluate_semantic(model, data["test"], transforms["test"], len(model.classes), batch_size=10).scores
            scores[head] = {"miou": result["miou"], "iou": result["iou"].tolist()}
        run.record(study=scores, majority=100 * float(result["confusion"].sum(1).max() / result["confusion"].sum()) / len(model.classes))


def run_name(name: str, seed: int, epochs: int) -> str:
    return f"study-{epochs}-" + "".join(c if c.isalnum() else "-" for c in name.lower()) + f"-{seed}"


def results(name: str, seeds: int, epochs: int) -> list[dict]:
    from sam_nb.runs import Run
    runs = [workspace().runs / run_name(name, s, epochs) for s in range(seeds)]
    return [i["study"] | {"majority": i["majority"]} for r in runs if (r / "run.json").exists() and "study" in (i := Run.open(r).info)]


def train_all(seeds: int, epochs: int, lr: float, processes: int) -> None:
    "All runs that are not there yet, a few at a time."
    first = list(VARIANTS)[:3]  # the main question before the finer ones
    order = [(v, s) for s in range(seeds) for v in first] + [(v, s) for s in range(seeds) for v in VARIANTS if v not in first]
    wanted = [(v, s) for v, s in order if not (workspace().runs / run_name(v, s, epochs)).exists()]
    running: list[subprocess.Popen] = []
    for number, (name, seed) in enumerate(wanted, 1):
        while sum(p.poll() is None for p in running) >= processes: time.sleep(0.5)
        print(f"{number}/{len(wanted)}  {name}, seed {seed}", flush=True)
        running.append(subprocess.Popen([sys.executable, "-m", "benchmarks.sartm_demo", "--one", name, "--seed", str(seed), "--epochs", str(epochs), "--lr", str(lr)], stdout=subprocess.DEVNULL))
    if any(p.wait() for p in running): raise SystemExit("a run failed; its message is above")


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else "".join(f"{v:.1f}" for v in values)


def table(seeds: int, epochs: int) -> str:
    "Mean and standard deviation over seeds of the test mIoU, by head."
    lines = ["| variant | mask decoder | auxiliary head | both | seeds |", "|---|---|---|---|---|"]
    for name in VARIANTS:
        found = results(name, seeds, epochs)
        if found: lines.append(f"| {name} | " + " | ".join(spread([f[h]["miou"] for f in found if h in f]) or "-" for h in ("decoder", "aux", "both")) + f" | {len(found)} |")
    majority = results("RGB and thermal (default)", seeds, epochs)
    if majority: lines.append(f"\nMost frequent class everywhere: {majority[0]['majority']:.1f}.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--processes", type=int, default=2, help="runs at a time")
    parser.add_argument("--save", type=Path, help="write the table to this file")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one: return one(arguments.one, arguments.seed, arguments.epochs, arguments.lr)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if not arguments.table:
        from sam_nb.datasets.demo import ensure_demo
        ensure_demo()
        train_all(arguments.seeds, arguments.epochs, arguments.lr, arguments.processes)
    import torch
    text = f"`python -m benchmarks.sartm_demo --epochs {arguments.epochs} --seeds {arguments.seeds}`: test mIoU (%) on the demo street, 400 training scenes, {arguments.epochs} epochs, tiny preset from random weights; " \
           f"{platform.machine()} CPU, torch {torch.__version__}.\n\n{table(arguments.seeds, arguments.epochs)}\n"
    print(text)
    if arguments.save:
        arguments.save.parent.mkdir(parents=True, exist_ok=True)
        arguments.save.write_text(text)


if __name__ == "__main__": main()
