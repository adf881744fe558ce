"""What the parts of RemoteSAM give on the demo's aerial scenes: small trainings without one of them.

    python -m benchmarks.remotesam_ablation DATA [--steps 150] [--image_size 96] [--seeds 1,2,3] [--keep DONE.jsonl]

DATA is a referring dataset (`sam_nb demo-data aerial --layout refer`). Each training begins with nothing, so the figures say what is learnt early.
"""
from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from sam_nb.core import workspace

VARIANTS = {"all parts": {}, "without cross-scale interaction": {"cross_scale": "false"}, "without rotated convolutions": {"rotated": "false"},
            "without various-receptive gates": {"various": "false"}, "without sentences that name nothing": {"absent": "false", "negatives": "0"}}
FIGURES = ("mIoU", "oIoU", "P@0.5", "P@0.7")


def spread(values: list[float]) -> str:
    "Mean and standard deviation."
    return f"{statistics.mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def markdown(rows: dict[str, dict]) -> str:
    text = lambda value: f"{value:.1f}" if isinstance(value, float) else "" if value is None else str(value)
    columns = list(next(iter(rows.values())))
    lines = [["", *columns], ["---"] * (len(columns) + 1), *([name, *(text(row[c]) for c in columns)] for name, row in rows.items())]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def trained(chosen: argparse.Namespace, variant: str, seed: int) -> dict[str, float]:
    "The test scores of one training."
    name = f"ablation-{list(VARIANTS).index(variant)}-{seed}"
    settings = {"dataset": "demo_aerial", "data_root": chosen.data, "preset": "tiny", "steps": chosen.steps, "image_size": chosen.image_size, "batch_size": 8,
                "expressions": 4, "precision": "bf16", "eval_every": 1000, "test_images": chosen.images, "seed": seed, "run_name": name, **VARIANTS[variant]}
    words = [w for k, v in settings.items() for w in (f"--{k}", str(v))]
    subprocess.run([str(Path(sys.executable).with_name("sam_nb")), "train", "remotesam", *words], check=True, stdout=subprocess.DEVNULL)
    return json.loads((workspace().runs / name / "run.json").read_text())["test"]


def ablation(chosen: argparse.Namespace) -> str:
    "Trainings of each variant and seed, kept one by one in `--keep`."
    keep = Path(chosen.keep)
    done = [json.loads(line) for line in keep.read_text().splitlines()] if keep.is_file() else []
    for seed in map(int, chosen.seeds.split(",")):
        for variant in VARIANTS:
            if any((d["variant"], d["seed"]) == (variant, seed) for d in done): continue
            done.append({"variant": variant, "seed": seed, "scores": trained(chosen, variant, seed)})
            with keep.open("a") as f: f.write(json.dumps(done[-1]) + "\n")
            print(variant, seed, {k: round(done[-1]["scores"].get(k, float("nan")), 1) for k in FIGURES}, flush=True)
    rows = {v: {k: spread([d["scores"][k] for d in done if d["variant"] == v and k in d["scores"]] or [float("nan")]) for k in FIGURES} for v in VARIANTS}
    return markdown(rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.remotesam_ablation", description=__doc__.partition("\n")[0])
    parser.add_argument("data", help="folder of the data")
    parser.add_argument("--images", type=int, default=30, help="at most so many to test on")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--image_size", type=int, default=96)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--keep", default="runs/remotesam_ablation.jsonl")
    print("\n" + ablation(parser.parse_args()))


if __name__ == "__main__": main()
