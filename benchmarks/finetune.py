"""What fine-tuning gives on a folder of your own: before and after, several seeds.

    python -m benchmarks.finetune --dataset coco --data_root PATH [--preset tiny] [--seeds 3] [--clicks 9] [--save benchmarks/results/finetune_coco.md] [-p NAME VALUE ...]

Every seed is a run of `train_promptable`'s recipe in runs/finetune-*; the validation split is scored before and after by a simulated user, at original size.
"""
from __future__ import annotations

import argparse
import ast
import copy
import platform
import time
from pathlib import Path

import pandas as pd
import torch


def one(values: dict, clicks: int) -> tuple[dict, dict, float]:
    "Scores before and after, and the seconds between."
    from sam_nb.contract import job
    from sam_nb.evaluation.clicks import evaluate_prompts
    from sam_nb.training.loop import trainer_for
    from sam_nb.training.runs import Run
    card = job("promptable")
    recipe = card.check(values)
    data = card.data(recipe)
    model, _ = card.build(recipe, data)
    start = copy.deepcopy(model)
    with Run.create(card.name, recipe) as run:
        begin = time.perf_counter()
        trainer_for(card, model, recipe, run, data).fit()
        seconds = time.perf_counter() - begin
        scores = [evaluate_prompts(m, data["test"], clicks, device=recipe.device).scores for m in (start, model)]
        run.record(before=scores[0], after=scores[1])
    return *scores, seconds


def table(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    "Mean and standard deviation over seeds, a row a figure."
    gain = after - before
    def words(frame: pd.DataFrame) -> pd.Series:
        return pd.Series({k: f"{frame[k].mean():.1f}" + (f" ± {frame[k].std():.1f}" if len(frame) > 1 else "") for k in frame})
    return pd.DataFrame({"before": before.iloc[0].map("{:.1f}".format), "after": words(after), "gain": words(gain), "smallest gain": gain.min().map("{:+.1f}".format)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("dataset", "coco"), ("data_root", None), ("preset", "tiny"), ("save", None)): parser.add_argument(f"--{name}", default=default)
    for name, default in (("seeds", 3), ("clicks", 9)): parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    options = parser.parse_args()
    def value(text: str):
        try: return ast.literal_eval(text)
        except (ValueError, SyntaxError): return text
    common = dict(dataset=options.dataset, data_root=options.data_root, preset=options.preset, **{k: value(v) for k, v in options.p})
    rows = [one({**common, "seed": seed, "run_name": f"finetune-{options.dataset}-{seed}-{int(time.time())}"}, options.clicks) for seed in range(options.seeds)]
    found = table(*(pd.DataFrame([r[i] for r in rows]) for i in (0, 1)))
    minutes = ", ".join(f"{r[2] / 60:.1f}" for r in rows)
    said = f"{options.seeds} seeds, {minutes} minutes of training each, torch {torch.__version__}, {torch.get_num_threads()} thread(s), {platform.machine()}"
    lines = ["| | " + " | ".join(found.columns) + " |", "|---" * (len(found.columns) + 1) + "|", *(f"| {k} | " + " | ".join(row) + " |" for k, row in zip(found.index, found.values, strict=True))]
    text = f"{said}\n\n" + "\n".join(lines) + "\n"
    print(text)
    if options.save: Path(options.save).write_text(f"# Fine-tuning on {options.dataset}, preset {options.preset}\n\n{text}")


if __name__ == "__main__": main()
