"""Whether a student beats its teacher on the demo's streets, with the controls that make the number honest.

    python -m benchmarks.s4m_demo [--seeds 0,1,2] [--steps 500] [--arms "teacher, first half;teacher;labels only, as long"] [--keep DONE.jsonl]

Every arm starts from the same teacher (which started from `tiny_m2f`) and sees as many images: a step of the second stage has 4 labelled and 4
unlabelled ones, a step with labels only 8. A seed changes which tenth of the images is labelled, and everything random. Runs that are there are
scored again, not trained again: `--split val` while choices are made, `--split test` once.
"""
from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from sam_nb.contract import job
from sam_nb.core import workspace
from sam_nb.datasets.catalog import resolve_dataset
from sam_nb.datasets.instances import InstanceTransform, UnlabelledTransform
from sam_nb.heads.refinement import Refined, reduced, unrefined
from sam_nb.instance_metrics import CocoAP
from sam_nb.masks import mask_iou
from sam_nb.methods.s4m import S4M
from sam_nb.training.loop import trainer_for
from sam_nb.training.runs import Run

FIGURES = ("AP", "AP50", "APs", "APm", "APl")
COMMON = dict(preset="street", eval_steps=100_000, save_every=100_000)
TEACHER = dict(stage="teacher")
STUDENT = dict(stage="student")
ARMS: dict[str, dict[str, Any]] = {  # name -> recipe; "then": what the arm goes on from
    "teacher, first half": dict(TEACHER, batch_size=4, lr=1e-3),
    "teacher": dict(TEACHER, then="teacher, first half"),
    "labels only, as long": dict(TEACHER, then="teacher"),
    "student: no refinement": dict(STUDENT, refine=False),
    "student: refined where it helps": dict(STUDENT, prompts="mask", acceptance="measured"),
    "student: refined by points": dict(STUDENT, prompts="points", acceptance="always"),
    "student: no refinement, published thresholds": dict(STUDENT, refine=False, threshold=0.7, min_certainty=0.0, unlabelled_weight=2.0),
    "student: no refinement, no pasting": dict(STUDENT, refine=False, arp="off"),
    "student: true masks of its labels": dict(STUDENT, refine=False, truth=True),
    "all labels, as long": dict(TEACHER, share=None, then="teacher"),
}


class WithTruth:
    "Unlabelled images together with the masks of their objects, through the same window."

    def __init__(self, plain: UnlabelledTransform):
        frame = {f.name: getattr(plain, f.name) for f in fields(plain)}
        self.plain, self.labelled = plain, InstanceTransform(**frame)

    def __call__(self, sample: dict, generator: torch.Generator) -> dict:
        window, colour = self.plain.draw(generator, tuple(sample["image"].shape[-2:]))
        return {**self.plain.apply(sample, window, colour), "truth": self.labelled.apply(sample, window)["masks"]}


def give_truth(model: S4M) -> None:
    "Replace the masks of pseudo-labels by those of the objects that they overlap most: the ceiling of refinement."
    plain, model.truth = model.label, None

    def label(batch, generator):
        model.truth = batch["truth"]
        try: return plain(batch, generator)
        finally: model.truth = None

    def refined(images, found, generator=None, cells=None):
        out = []
        if model.truth is None: return [unrefined(own, tuple(image.shape[-2:])) for image, own in zip(images, found, strict=True)]  # an evaluation
        for image, own, truth in zip(images, found, model.truth, strict=True):
            masks = unrefined(own, tuple(image.shape[-2:])).masks
            if len(own) and len(truth):
                overlap, which = mask_iou(masks, truth).max(1)
                masks = torch.where((overlap > 0.1)[:, None, None], truth[which], masks)
            out.append(Refined(masks, reduced(masks, own.masks.shape[1:]), own.scores, torch.ones_like(own.labels, dtype=torch.bool)))
        return out

    model.label, model.refined = label, refined


def trained(name: str, settings: dict[str, Any], chosen: argparse.Namespace, seed: int) -> tuple[S4M, dict[str, float]]:
    "A model, trained or read from its run, and facts about its training."
    settings = dict(settings)
    before, truth = settings.pop("then", None), settings.pop("truth", False)
    if settings["stage"] == "student": settings["teacher"] = run_name("teacher", seed)
    if before: settings["checkpoint"] = run_name(before, seed)
    values = {"dataset": "demo_street", "share_seed": seed, "seed": seed, "run_name": run_name(name, seed), **COMMON,
              "steps": chosen.steps, **settings}
    if (workspace().runs / values["run_name"] / "model").is_dir(): return card.load(values["run_name"]), {}
    recipe = card.check(values)
    if "share" in settings: recipe = recipe.model_copy(update={"share": settings["share"]})
    data = card.data(recipe)
    model, _ = card.build(recipe, data)
    options: dict[str, Any] = {}
    if truth:
        give_truth(model)
        stream = card.trainer_options(model, recipe, data)["extra_data"]["unlabelled"]
        options["extra_data"] = {"unlabelled": replace(stream, transform=WithTruth(stream.transform))}
    began = time.perf_counter()
    run = Run.create("s4m", recipe)
    trainer_for(card, model, recipe, run, data, **options).fit()
    return model, {"minutes": (time.perf_counter() - began) / 60}


@torch.no_grad()
def scores(model: S4M, which: str, split: str = "test") -> dict[str, float]:
    "AP of one of its networks."
    recipe = card.check({"dataset": "demo_street"})
    data = resolve_dataset("demo_street", None, "objects").open(split)
    model.switches = model.switches.model_copy(update={"evaluate": which})
    transform = InstanceTransform("resize", (model.switches.test_min,), model.switches.test_max, keep_target=True)
    metric = CocoAP(data.classes)
    for i in range(len(data)):
        batch = card.collate(recipe)([transform(data[i], None)])
        metric.update(model.eval().predict(batch), batch["target"], batch["name"])
    return {k: float(v) for k, v in metric.compute().items() if k in FIGURES}


def run_name(arm: str, seed: int) -> str: return f"s4m-demo-{re.sub('[^a-z]+', '-', arm)}-{seed}"


def markdown(done: list[dict]) -> str:
    def cell(values: list[float]) -> str: return f"{statistics.mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")
    lines = ["| arm | " + " | ".join(FIGURES) + " | AP of the EMA teacher | seeds |", "|---" * (len(FIGURES) + 3) + "|"]
    for arm in ARMS:
        own = [d for d in done if d["arm"] == arm]
        if not own: continue
        average = [d["average"]["AP"] for d in own if d.get("average")]
        lines.append(f"| {arm} | " + " | ".join(cell([d["scores"][k] for d in own]) for k in FIGURES) + f" | {cell(average) if average else ''} | {len(own)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.s4m_demo", description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--arms", help="names, separated by semicolons; None: all")
    parser.add_argument("--steps", type=int, default=500, help="of every arm")
    parser.add_argument("--split", default="test")
    parser.add_argument("--keep", default="runs/s4m_table.jsonl")
    chosen = parser.parse_args()
    keep = Path(chosen.keep)
    done = [json.loads(line) for line in keep.read_text().splitlines()] if keep.is_file() else []
    for seed in map(int, chosen.seeds.split(",")):
        for arm in [a.strip() for a in chosen.arms.split(";")] if chosen.arms else ARMS:
            if any((d["arm"], d["seed"]) == (arm, seed) for d in done): continue
            model, facts = trained(arm, ARMS[arm], chosen, seed)
            found = {"arm": arm, "seed": seed, "scores": scores(model, "student", chosen.split), **facts}
            if model.switches.stage == "student": found["average"] = scores(model, "teacher", chosen.split)
            done.append(found)
            with keep.open("a") as f: f.write(json.dumps(found) + "\n")
            print(arm, seed, {k: round(v, 1) for k, v in found["scores"].items()}, {k: round(v, 1) for k, v in found.get("average", {}).items()}, facts, flush=True)
    print("\n" + markdown(done))


card = job("s4m")
if __name__ == "__main__": main()
