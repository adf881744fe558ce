"""What pre-training and each part of SARTM give on the demo street: three seeds a variant, the same steps for all.

    python -m benchmarks.sartm_demo [--steps 250] [--seeds 3] [--processes 1] [--save benchmarks/results/sartm_demo.md]

The variants are the demo preset (from `tiny_sam2`, frozen encoder, adapters) with what their line says changed. Runs are kept in runs/study-* and not repeated.
"""
from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from sam_nb.core import workspace

RELEASED = dict(released=True, val_is_test=False)  # validation stays apart from test, so that only training differs
WHOLE = dict(train_encoder=True, lora_rank=4, lr=2e-3)  # the rate is the best of 1e-3, 2e-3, 4e-3 on the validation split
STARTS = {  # name -> parameters beside the preset's
    "from nothing, everything trained": dict(WHOLE, checkpoint="scratch"),
    "from nothing, adapters, encoder frozen": dict(checkpoint="scratch"),
    "**from `tiny_sam2`, adapters, encoder frozen (the preset)**": {},
    "from `tiny_sam2`, everything trained": dict(WHOLE),
    "from `tiny_sam2`, encoder frozen, no adapters": dict(lora_rank=0),
    "the preset, thermal normalised like the colours": dict(thermal_normalised=True),
}
PARTS = {
    "RGB alone": dict(modalities="rgb"),
    "thermal alone": dict(modalities="thermal"),
    "released": RELEASED,
    "released + thermal in the fusion": dict(RELEASED, fusion_inputs="rgb_thermal"),
    "released + learned auxiliary head": dict(RELEASED, aux_random=False),
    "released + true prototypes": dict(RELEASED, prototype_mode="mean", absent_classes="skip"),
    "no distillation": dict(use_text_kl=False, use_prototype_loss=False),
    "fusion by mean": dict(fusion="mean"),
}
VARIANTS = STARTS | PARTS


def one(name: str, seed: int, steps: int) -> None:
    "Train one variant and score each head on the test split."
    import torch

    from sam_nb.contract import job
    from sam_nb.evaluation.semantic import evaluate_semantic
    from sam_nb.training.loop import trainer_for
    from sam_nb.training.runs import Run
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    parameters = dict(VARIANTS[name])
    normalised = parameters.pop("thermal_normalised", False)
    card = job("sartm")
    recipe = card.check(dict(dataset="demo", seed=seed, steps=steps, workers=0, eval_every=steps, run_name=run_name(name, seed, steps)) | parameters)
    data, transforms = card.data(recipe), transforms_of(recipe, normalised)
    with Run.create("sartm", recipe) as run:
        model, _ = card.build(recipe, data)
        begun = time.process_time()
        trainer_for(card, model, recipe, run, data, transforms).fit()
        seconds, scores = time.process_time() - begun, {}
        for head in ("decoder", "aux", "both"):
            if head != "decoder" and recipe.aux_random: continue
            model.switches.output = head
            result = evaluate_semantic(model, data["test"], transforms["test"], model.classes, batch_size=10, workers=0).figures
            scores[head] = {"miou": result["miou"], "iou": result["iou"].tolist()}
        run.record(study=scores, cpu_seconds=seconds)


def transforms_of(recipe, normalised: bool) -> dict:
    "The method's transforms; with thermal at mean 0 and deviation 1, about, where asked."
    from sam_nb.datasets.transforms import Normalise
    from sam_nb.methods.sartm_job import sartm_transforms
    like_colours = Normalise(thermal_mean=(0.45,), thermal_std=(0.225,))
    return {split: replace(t, normalise=like_colours) if normalised else t for split, t in sartm_transforms(recipe).items()}


def run_name(name: str, seed: int, steps: int) -> str:
    return f"study-{steps}-" + "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-") + f"-{seed}"


def results(name: str, seeds: int, steps: int) -> list[dict]:
    from sam_nb.training.runs import Run
    runs = [workspace().runs / run_name(name, s, steps) for s in range(seeds)]
    return [i["study"] | {"seconds": i["cpu_seconds"]} for r in runs if (r / "run.json").exists() and "study" in (i := Run.open(r).info)]


def train_all(seeds: int, steps: int, processes: int) -> None:
    "All runs that are not there yet, a few at a time."
    first = list(VARIANTS)[:4]  # the main question before the finer ones
    order = [(v, s) for s in range(seeds) for v in first] + [(v, s) for s in range(seeds) for v in VARIANTS if v not in first]
    wanted = [(v, s) for v, s in order if not (workspace().runs / run_name(v, s, steps)).exists()]
    running: list[subprocess.Popen] = []
    for number, (name, seed) in enumerate(wanted, 1):
        while sum(p.poll() is None for p in running) >= processes: time.sleep(0.5)
        print(f"{number}/{len(wanted)}  {name}, seed {seed}", flush=True)
        command = [sys.executable, "-m", "benchmarks.sartm_demo", "--one", name, "--seed", str(seed), "--steps", str(steps)]
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    if any(p.wait() for p in running): raise SystemExit("a run failed; its message is above")


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else "".join(f"{v:.1f}" for v in values)


def table(seeds: int, steps: int) -> str:
    "Mean and standard deviation over seeds of the test mIoU, by head; then what looks at no shapes."
    from sam_nb.demo.files import trivial_baselines
    lines = ["| variant | mask decoder | auxiliary head | both | training, processor seconds | seeds |", "|---|---|---|---|---|---|"]
    for name in VARIANTS:
        found = results(name, seeds, steps)
        scores = [spread([f[h]["miou"] for f in found if h in f]) or "-" for h in ("decoder", "aux", "both")]
        if found: lines.append(f"| {name} | {' | '.join(scores)} | {statistics.mean(f['seconds'] for f in found):.0f} | {len(found)} |")
    guesses = "; ".join(f"{name} {value:.1f}" for name, value in trivial_baselines(workspace().data / "demo").items())
    return "\n".join(lines) + f"\n\nPredictors that look at no shapes: {guesses}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=1, help="runs at a time")
    parser.add_argument("--save", type=Path, help="write the table to this file")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one: return one(arguments.one, arguments.seed, arguments.steps)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if not arguments.table:
        from sam_nb.demo.files import ensure_demo
        ensure_demo()
        train_all(arguments.seeds, arguments.steps, arguments.processes)
    packages = ", ".join(f"{p} {version(p)}" for p in ("torch", "torchvision", "sam2"))
    text = f"`python -m benchmarks.sartm_demo --steps {arguments.steps} --seeds {arguments.seeds}`: test mIoU (%) on the demo street, 400 training scenes of 128 x 128 pixels, " \
           f"{arguments.steps} steps of the demo preset; mean ± standard deviation. {platform.machine()} CPU, one thread a run, Python {platform.python_version()}, {packages}.\n\n" \
           f"{table(arguments.seeds, arguments.steps)}\n"
    print(text)
    if arguments.save:
        arguments.save.parent.mkdir(parents=True, exist_ok=True)
        arguments.save.write_text(text)


if __name__ == "__main__": main()
