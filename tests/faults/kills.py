"""Kill what is being done at random moments, do it again, and compare with what undisturbed work leaves.

    python -m tests.faults.kills 300                        every target in turn; results are appended to kills.jsonl, and a stopped pass goes on
    python -m tests.faults.kills 20 --what train,segment    some of them, by the beginning of their names
    python -m tests.faults.kills --table                    the results so far

Each trial does its work in a process of its own, a fork of one that has torch and the package imported. It is killed with SIGKILL, mostly as a whole
process group, sometimes only one of its loader processes or its kernel; at a share of the processor time that undisturbed work takes (the clock of a
busy machine would aim badly), or at the n-th call that changes a name or flushes a file. Then the same command is given again, in some trials killed
once more, until it ends. Afterwards every file must be there with the bytes of undisturbed work, and nothing else once `sam_nb doctor --clean` has run.
Where a person keeps something, it is looked at after each kill, before anything is done again.

A target is a line in TARGETS; the label page and sweeps have none yet, for they are not there yet.
"""
from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from sam_nb.core import RunError, SamNbError

RESULTS = Path(__file__).parents[2] / "benchmarks/results/kills.json"
LIMIT = 600.0  # seconds of one attempt
CALLS = ("replace", "rename", "fsync", "unlink", "mkdir", "rmdir", "link")  # of the module os, at which a kill is aimed


# what is done

def trained(make: Callable[..., Any], **options: Any) -> Callable[[Path, Path], None]:
    "A training with one name: begun, or resumed where it was begun."
    def act(inputs: Path, folder: Path) -> None:
        try: trainer = make(inputs, folder / "runs", "one", **options)
        except RunError as error:
            from sam_nb.training.runs import Run
            if "resume" not in str(error): raise
            if Run.open("one", folder / "runs").status == "finished": return
            trainer = make(inputs, folder / "runs", "one", resume=True, **options)
        trainer.fit()
    return act


def _trainer(module: str, **changes: Any) -> Callable[..., Any]:
    "Of tests/MODULE.py: the world lies in the inputs, the run elsewhere."
    def make(inputs: Path, runs: Path, name: str, resume: bool = False, **options: Any) -> Any:
        from sam_nb.training.loop import trainer_for
        from sam_nb.training.runs import Run
        tests = importlib.import_module(f"tests.{module}")
        card = importlib.import_module(f"sam_nb.methods.{module}_job").JOB
        values = {**tests.RECIPE, "data_root": str(next(inputs.glob("demo_*"))), "run_name": name, "save_every": 2, **changes, **options}
        recipe = card.check(values)
        run = Run.resume(name, module, recipe, runs) if resume else Run.create(module, recipe, runs)
        data = card.data(recipe)
        return trainer_for(card, card.build(recipe, data)[0], recipe, run, data)
    return make


def _s4m(values: str) -> Callable[..., Any]:
    def make(inputs: Path, runs: Path, name: str, resume: bool = False, **options: Any) -> Any:
        from sam_nb.methods.s4m_job import JOB
        from sam_nb.training.loop import trainer_for
        from sam_nb.training.runs import Run
        from tests import s4m
        teacher = {"teacher": str(inputs / "teacher")} if values == "STUDENT" else {}
        recipe = JOB.check({**getattr(s4m, values), **teacher, "data_root": str(inputs / "street"), "run_name": name, **options})
        run = Run.resume(name, "s4m", recipe, runs) if resume else Run.create("s4m", recipe, runs)
        data = JOB.data(recipe)
        return trainer_for(JOB, JOB.build(recipe, data)[0], recipe, run, data)
    return make


def _sartm(inputs: Path, runs: Path, name: str, resume: bool = False, **options: Any) -> Any:
    from sam_nb.methods.sartm_job import JOB
    from sam_nb.training.loop import trainer_for
    from sam_nb.training.runs import Run
    values = dict(dataset="demo", preset="demo", checkpoint="scratch", backbone="tiny", image_size=64, lora_rank=2, lora_pairs=1, batch_size=2, save_every=2, device="cpu")
    recipe = JOB.check({**values, "data_root": str(inputs / "demo"), "run_name": name, **options})
    run = Run.resume(name, "sartm", recipe, runs) if resume else Run.create("sartm", recipe, runs)
    data = JOB.data(recipe)
    return trainer_for(JOB, JOB.build(recipe, data)[0], recipe, run, data)


def _small_world(name: str) -> Callable[[Path], None]:
    def make(inputs: Path) -> None:
        importlib.import_module(f"tests.{name}").world(inputs)
    return make


def _street(inputs: Path) -> None:
    from sam_nb.demo.files import make_demo
    make_demo("street", inputs / "demo", size=64, train=6, val=2, test=2, hard=0)


def _toy(inputs: Path, runs: Path, name: str, resume: bool = False, **options: Any) -> Any:
    from tests import toy
    return toy.trainer(runs, name, resume, size=24, epochs=2, **options)


def _pictures(inputs: Path) -> None:
    from sam_nb.demo.files import make_demo
    make_demo("things", inputs / "things", size=96, train=8, val=2, test=2, hard=0, layout="coco")
    (inputs / "small").mkdir()
    for k, file in enumerate(sorted((inputs / "things/train").iterdir())[:3]): shutil.copy(file, inputs / f"small/{k}{file.suffix}")


class _Bright(torch.nn.Module):
    "Stands for a model: it has weights, and answers by brightness."
    def __init__(self) -> None:
        super().__init__()
        self.level = torch.nn.Parameter(torch.tensor(100.0))


def _segmenter(task: str) -> Any:
    from sam_nb.masks import connected_components
    from sam_nb.segment.joining import Found, tight_window
    from sam_nb.segment.models import Segmenter
    def objects(image: np.ndarray) -> Found:
        labels = connected_components(image[..., 0] > 100)[0].numpy()
        return Found.of([tight_window(labels == k) for k in range(1, min(labels.max(), 9) + 1)], labels=[0] * min(labels.max(), 9))
    def scores(image: np.ndarray, partners: Any) -> np.ndarray:
        return np.stack([image[..., 0] > 100, image[..., 0] <= 100]).astype(np.float32)
    return Segmenter(task, ("light", "dark"), 3, 64, _Bright(), scores if task == "semantic" else objects)


def segmented(task: str, to: str, overwrite: bool = False) -> Callable[[Path, Path], None]:
    def act(inputs: Path, folder: Path) -> None:
        from sam_nb.segment.run import segment_folder
        if overwrite and not (folder / "begun").exists():  # an earlier result of other pictures; the command that is killed replaces it
            segment_folder(_segmenter(task), inputs / "small", folder / "out", to="coco", progress=False, tile=64)
            (folder / "begun").touch()
        segment_folder(_segmenter(task), inputs / "things/train", folder / "out", to=to.split(","), progress=False, overwrite=overwrite)
    return act


def converted(to: str, overwrite: bool = False, copy: bool | str = True) -> Callable[[Path, Path], None]:
    def act(inputs: Path, folder: Path) -> None:
        from sam_nb.datasets.conversion import convert
        if overwrite and not (folder / "begun").exists():
            convert(inputs / "things", folder / "out", to, splits=["test"])
            (folder / "begun").touch()
        if (folder / "out").exists() and not overwrite: return  # it ended before the kill
        convert(inputs / "things", folder / "out", to, copy=copy, overwrite=overwrite)
    return act


def cached(inputs: Path, folder: Path) -> None:
    from sam_nb.encoders.cache import FeatureCache, WithFeatures, encoder_key, precompute
    from tests.toy import Shapes
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 64, 3, padding=1)).requires_grad_(False)
    data, cache = Shapes(60), FeatureCache(folder / "data/features", encoder_key(encoder))
    data.names = [f"shape{i}" for i in range(60)]
    precompute(encoder, encoder, data, _same, cache, batch_size=4, say=lambda text: None)
    ready = WithFeatures(_same, cache)
    for i in range(60): assert torch.allclose(ready(data[i])["features"][0], encoder(data[i]["image"][None])[0], atol=1e-5)


def _same(sample: dict, generator: Any = None) -> dict: return sample


def generated(overwrite: bool = False, workers: int = 1) -> Callable[[Path, Path], None]:
    def act(inputs: Path, folder: Path) -> None:
        from sam_nb.demo.files import make_demo
        if overwrite and not (folder / "begun").exists():
            make_demo("room", folder / "data/demo", size=32, train=2, val=1, test=1, hard=0)
            (folder / "begun").touch()
        make_demo("street", folder / "data/demo", size=64, train=12, val=2, test=2, hard=0, overwrite=overwrite, workers=workers)
    return act


def aerial(inputs: Path, folder: Path) -> None:
    from sam_nb.demo.aerial import make_demo_aerial
    make_demo_aerial(folder / "data/demo_aerial", size=64, train=4, val=1, test=1, absent=1)


def labelled(inputs: Path, folder: Path) -> None:
    "A person keeps six pictures, one after the other, and goes on with those that were not said to be saved."
    from sam_nb.view.prompt_view import SAVE_FORMATS, KeptObject, LabelledImage, ObjectPrompts
    said = folder / "said"
    for k in range(len(said.read_text().split()) if said.exists() else 0, 6):
        mask = np.zeros((200, 200), bool)
        mask[20 + k:90, 30:120] = True
        objects = [KeptObject(mask, "thing", ObjectPrompts(), 0.9), KeptObject(mask.T.copy(), f"other{k % 2}", ObjectPrompts(), 0.8)]
        picture = LabelledImage(np.random.default_rng(k).integers(0, 255, (200, 200, 3), np.uint8), f"picture{k}", objects)
        for save in SAVE_FORMATS.values(): save(picture, folder / "labels")
        said.open("a").write(f"picture{k}\n")


def nothing_kept_is_lost(folder: Path) -> list[str]:
    "What was said to be saved before the kill can be read, whole."
    from sam_nb.datasets.objects import load_objects
    said = (folder / "said").read_text().split() if (folder / "said").exists() else []
    if not said: return []
    data = load_objects(folder / "labels", "all")
    there = {Path(e.image).stem: len(data.masks(i)) for i, e in enumerate(data.entries)}
    return [f"{name} was saved and has {there.get(name, 0)} of 2 objects" for name in said if there.get(name) != 2]


def replaced(name: str, file: str) -> Callable[[Path], list[str]]:
    "Whatever the moment, a whole result lies under its name, or is put aside beside it."
    def lost(folder: Path) -> list[str]:
        place = folder / name
        if not (folder / "begun").exists() or (place / file).exists(): return []
        aside = [p for p in place.parent.glob(f".{place.name}.unfinished-*.old") if (p / file).exists()]
        return [] if aside else [f"neither the former nor the new {name} is there"]
    return lost


def _evaluated_run(inputs: Path) -> None:
    from tests import promptable
    promptable.world(inputs)
    with workspace_at(inputs): promptable_trainer(inputs, inputs / "runs", "one", steps=2, epochs=None).fit()


def evaluated(inputs: Path, folder: Path) -> None:
    import matplotlib.pyplot as plt

    from sam_nb.contract import job
    from sam_nb.evaluation.plan import save_evaluations
    if not (folder / "runs/one").exists():
        shutil.copytree(inputs / "runs/one", folder / "runs/half", dirs_exist_ok=True)
        (folder / "runs/half").rename(folder / "runs/one")
    card = job("promptable")
    how = card.evaluators["clicks"]
    recipe = how.check(dict(run="one", images=2, clicks=2, before="none", device="cpu", data_root=str(inputs / "demo_objects")))
    plan = how.plan(recipe)
    models, data = how.open(recipe, plan)
    figure = plt.figure(figsize=(1, 1))
    save_evaluations(how.run(models, data, recipe, plan), plan, recipe, {"empty": figure})
    plt.close(figure)


def commanded(words: str) -> Callable[[Path, Path], None]:
    "sam_nb train, with a kernel; once it has begun, with --resume."
    def act(inputs: Path, folder: Path) -> None:
        from sam_nb.cli import main
        from sam_nb.training.runs import Run
        begun = (folder / "runs/one/run.json").exists()
        if begun and Run.open("one", folder / "runs").status == "finished": return
        more = words.format(inputs=inputs).split()
        code = main(["train", *more, "--run_name", "one"])
        if code and begun: code = main(["train", more[0], "--resume", "one"])
        if code: raise SystemExit(f"sam_nb train ended with {code}")
    return act


promptable_trainer = _trainer("promptable", workers=0, clicks=1, objects=2)


@dataclass(frozen=True)
class Target:
    "Something that is killed and done again."
    name: str
    act: Callable[[Path, Path], None]  # inputs, folder
    inputs: Callable[[Path], None] = lambda folder: None  # makes what all trials read
    kept: Callable[[Path], list[str]] = lambda folder: []  # what is lost, looked at right after a kill
    share: int = 4  # how often it is taken, among the others
    children: str = ""  # what else may be killed alone: "loader process", "kernel"; "": only the whole group


TARGETS = [
    Target("labels of the prompt page", labelled, kept=nothing_kept_is_lost, share=16),
    Target("segment objects", segmented("instances", "coco,yolo,geojson,instances"), _pictures, share=10),
    Target("segment classes", segmented("semantic", "labels"), _pictures, share=8),
    Target("segment over an earlier result", segmented("instances", "coco", overwrite=True), _pictures, share=10),
    Target("convert to COCO", converted("coco"), _pictures, share=8),
    Target("convert to YOLO, linked, over an earlier result", converted("yolo", overwrite=True, copy="link"), _pictures, replaced("out", "conversion.txt"), 10),
    Target("convert to LabelMe", converted("labelme"), _pictures, share=6),
    Target("fill the feature cache", cached, share=12),
    Target("demo data", generated(), share=8),
    Target("demo data over another", generated(overwrite=True), kept=replaced("data/demo", "dataset.json"), share=8),
    Target("demo data, aerial", aerial),
    Target("train toy", trained(_toy), share=12, children="loader process"),
    Target("train sartm", trained(_sartm, steps=5, epochs=None), _street),
    Target("train saom", trained(_trainer("saom"), steps=6), _small_world("saom")),
    Target("train remotesam", trained(_trainer("remotesam"), steps=6), _small_world("remotesam"), share=3),
    Target("train rsam", trained(_trainer("rsam"), steps=6), _small_world("rsam"), share=3),
    Target("train s4m, teacher", trained(_s4m("TEACHER"), steps=4), _small_world("s4m"), share=2),
    Target("train s4m, student", trained(_s4m("STUDENT"), steps=6, burn_in=2), _small_world("s4m"), share=2),
    Target("train promptable", trained(promptable_trainer, steps=6, epochs=None), _small_world("promptable"), share=3),
    Target("train promptable, features cached", trained(promptable_trainer, steps=6, epochs=None, trainable="decoder", cache=True, flip=0.0, jitter=0.0,
                                                        scale_min=1.0, scale_max=1.0), _small_world("promptable"), share=2),
    Target("train promptable, loader processes", trained(_trainer("promptable", workers=2, objects=2), steps=6, epochs=None), _small_world("promptable"),
           share=2, children="loader process"),
    Target("evaluate into a run", evaluated, _evaluated_run, share=3),
    Target("train by the command", commanded("promptable --dataset demo --data_root {inputs}/demo_objects --preset tiny --image_size 64 --steps 4 "
                                             "--save_every 1 --batch_size 2 --device cpu --workers 0"), _small_world("promptable"), share=1, children="kernel"),
]


PACKAGES = ("sam_nb.cli", "sam_nb.training.loop", "sam_nb.segment.run", "sam_nb.datasets.conversion", "sam_nb.view.prompt_view", "sam_nb.evaluation.plan",
            "sam_nb.encoders.cache", "sam2.build_sam", "transformers.models.clip.modeling_clip", "peft", "matplotlib.pyplot", "rasterio", "shapely",
            "accelerate.optimizer", *(f"sam_nb.methods.{name}" for name in ("sartm", "promptable", "saom", "rsam", "remotesam", "s4m")))  # imported once


# a process that does it

@contextlib.contextmanager
def workspace_at(folder: Path):
    before = os.environ.get("SAM_NB_ROOT")
    os.environ["SAM_NB_ROOT"] = str(folder)
    try: yield
    finally: os.environ.pop("SAM_NB_ROOT") if before is None else os.environ.update(SAM_NB_ROOT=before)


def aim(call: int | None, count: Path) -> None:
    "In the process that is to be killed: count the calls that change names or flush, and end at one of them, before it is done or after."
    made = 0
    def hooked(original: Callable) -> Callable:
        def changed(*arguments: Any, **named: Any) -> Any:
            nonlocal made
            made += 1
            if call is None: count.write_text(str(made))
            elif made == call // 2 + 1 and not call % 2: os.kill(os.getpid(), signal.SIGKILL)
            value = original(*arguments, **named)
            if call is not None and made == call // 2 + 1: os.kill(os.getpid(), signal.SIGKILL)
            return value
        return changed
    for name in CALLS: setattr(os, name, hooked(getattr(os, name)))


def start(target: Target, inputs: Path, folder: Path, call: int | None = None, counted: Path | None = None) -> multiprocessing.Process:
    "Do it in a process group of its own; its output goes to FOLDER.log."
    def main() -> None:
        os.setsid()
        torch.set_num_threads(1)
        file = open(f"{folder}.log", "a", buffering=1)
        os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = file
        os.environ.update(SAM_NB_ROOT=str(folder), TMPDIR=str(folder.parent / "tmp"))
        tempfile.tempdir = None
        os.chdir(folder)
        if counted is not None: aim(call, counted)
        try: target.act(inputs, folder)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / "tmp").mkdir(exist_ok=True)
    process = multiprocessing.get_context("fork").Process(target=main)
    process.start()
    return process


def _group(pid: int) -> list[psutil.Process]:
    try: return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error: return []


def _worked(group: list[psutil.Process]) -> float:  # seconds of processor time
    total = 0.0
    for process in group:
        with contextlib.suppress(psutil.Error): total += sum(process.cpu_times()[:2])
    return total


def _kill(process: multiprocessing.Process, group: list[psutil.Process]) -> None:
    with contextlib.suppress(ProcessLookupError): os.killpg(process.pid, signal.SIGKILL)
    for other in group:  # a kernel has a session of its own
        with contextlib.suppress(psutil.Error): other.kill()
    process.join()


def finish(process: multiprocessing.Process, seconds: float | None = None,  # of processor time, after which it is killed; None: never
           alone: bool = False,  # only one of its children
           ) -> tuple[str, float]:  # "ended", "failed", "killed", "late"; processor time
    "Wait for a process, or kill it."
    began, worked, group = time.monotonic(), 0.0, []
    looked = 0.0
    while process.is_alive():
        if time.monotonic() - looked > 0.1: group, looked = _group(process.pid), time.monotonic()
        worked = max(worked, _worked(group))
        if seconds is not None and worked >= seconds:
            others = [p for p in group[1:] if p.is_running()]
            if alone and others:
                with contextlib.suppress(psutil.Error): random.choice(others).kill()
                seconds, alone = None, False
                continue
            time.sleep(random.random() * 0.02)
            _kill(process, _group(process.pid))
            return "killed", worked
        if time.monotonic() - began > LIMIT:
            _kill(process, _group(process.pid))
            return "late", worked
        process.join(0.004)
    _kill(process, group[1:])
    return ("killed" if process.exitcode == -signal.SIGKILL else "failed" if process.exitcode else "ended"), worked


# what it leaves

_CLOCK = re.compile(r'"images_per_second": [^,}]*,? ?')
_COMPARED = ("method", "status", "score", "metrics", "steps", "recipe", "dataset", "error", "name", "stopped")


def _told(path: Path) -> str:
    "What must be equal in a file, as a digest."
    if path.name == "run.json":
        info = json.loads(path.read_text())
        return json.dumps({k: info.get(k) for k in _COMPARED}, sort_keys=True)
    if path.name == "metrics.jsonl": return _CLOCK.sub("", path.read_text())
    if path.suffix == ".ipynb": return "a notebook"
    content = path.read_bytes()
    if path.suffix == ".safetensors":  # the header's entries have no order
        end = 8 + int.from_bytes(content[:8], "little")
        content = json.dumps(json.loads(content[8:end]), sort_keys=True).encode() + content[end:]
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def listing(folder: Path) -> dict[str, str]:  # relative name -> what must be equal
    "Every file of a folder, hidden ones too; lock files stay where work has been."
    return {str(p.relative_to(folder)): _told(p) for p in sorted(folder.rglob("*"))
            if p.is_file() and p.name not in (".lock", ".eval.lock", "begun") and not re.fullmatch(r"notebook(-\d+)?\.ipynb", p.name)}


def clean(folder: Path) -> None:
    "What `sam_nb doctor --clean` does, for this folder."
    from sam_nb.launch.litter import find_litter, remove_litter
    with workspace_at(folder):
        for one in find_litter([folder / "out", folder / "labels"]):
            if folder in one.path.parents: remove_litter(one)


@dataclass
class Undisturbed:
    "What a target leaves without a kill, and what it takes."
    files: dict[str, str]
    volatile: set[str]  # files that two undisturbed passes do not write alike
    seconds: float  # of processor time
    calls: int  # that change names or flush


def undisturbed(target: Target, inputs: Path, work: Path) -> Undisturbed:
    passes = []
    for k in range(2):
        folder, counted = work / "trial", work / "calls"
        counted.unlink(missing_ok=True)
        outcome, seconds = finish(start(target, inputs, folder, counted=counted if k else None))
        if outcome != "ended": raise SystemExit(f"{target.name} {outcome} without a kill:\n{Path(f'{folder}.log').read_text()[-3000:]}")
        passes.append((listing(folder), seconds))
        shutil.rmtree(folder)
        Path(f"{folder}.log").unlink()
    (a, seconds), (b, _) = passes
    assert a.keys() == b.keys(), f"{target.name}: two undisturbed passes leave {sorted(a.keys() ^ b.keys())}"
    return Undisturbed(a, {name for name in a if a[name] != b[name]}, seconds, int(counted.read_text()) if counted.exists() else 0)


# trials

@dataclass
class Trial:
    "A kill, or two, and what came of it."
    target: str
    number: int
    kills: list[str] = field(default_factory=list)  # how and when
    came: list[str] = field(default_factory=list)  # "killed", or "ended" where it was quicker
    lost: list[str] = field(default_factory=list)  # that had been kept, was not done again, or differs
    litter: list[str] = field(default_factory=list)  # left after doctor --clean
    cleaned: list[str] = field(default_factory=list)  # by doctor --clean
    seconds: float = 0.0

    @property
    def sound(self) -> bool: return not self.lost and not self.litter
    @property
    def killed(self) -> int:  # kills that came before the end; where one process was killed alone, the others may end by themselves
        return sum(c == "killed" or (c == "failed" and k.startswith("one ")) for k, c in zip(self.kills, self.came, strict=True))


def trial(target: Target, number: int, seed: int, inputs: Path, work: Path, quiet: Undisturbed) -> Trial:
    "Kill, do again until it ends, compare."
    chance, found, began, folder = random.Random(f"{seed}/{target.name}/{number}"), Trial(target.name, number), time.monotonic(), work / "trial"
    random.seed(f"{seed}/{target.name}/{number}/moment")
    log = Path(f"{folder}.log")
    try:
        for _ in range(2 if chance.random() < 0.25 else 1):
            alone = False
            if quiet.calls and chance.random() < 0.4:
                call = chance.randrange(2 * quiet.calls)
                found.kills.append(f"{'after' if call % 2 else 'before'} call {call // 2 + 1} of {quiet.calls}")
                outcome, _ = finish(start(target, inputs, folder, call, work / "calls"))
            else:
                share, alone = chance.random(), bool(target.children) and chance.random() < 0.3
                found.kills.append(f"{f'one {target.children}' if alone else 'all'} at {100 * share:.0f} %")
                outcome, _ = finish(start(target, inputs, folder), share * quiet.seconds, alone)
            found.came.append(outcome)
            if outcome == "late" or (outcome == "failed" and not alone): found.lost.append(f"{found.kills[-1]}: it {outcome}")
            found.lost += target.kept(folder)
        outcome, _ = finish(start(target, inputs, folder))
        if outcome != "ended": found.lost.append(f"done again, it {outcome}: {' | '.join(log.read_text().strip().splitlines()[-3:])[-400:]}")
        left = listing(folder)
        if more := left.keys() - quiet.files.keys():
            clean(folder)
            left = listing(folder)
            found.cleaned = sorted(more - left.keys())
        found.litter = sorted(left.keys() - quiet.files.keys())
        found.lost += [f"missing: {name}" for name in quiet.files.keys() - left.keys()]
        found.lost += [f"differs: {name}" for name in quiet.files if name in left and name not in quiet.volatile and left[name] != quiet.files[name]]
        found.lost += target.kept(folder)
    except SamNbError as error: found.lost.append(f"{type(error).__name__}: {error}")
    finally:
        found.seconds = round(time.monotonic() - began, 1)
        if not found.sound and (keep := os.environ.get("SAM_NB_KEEP_KILLED")): 
            shutil.copytree(folder, Path(keep) / f"{target.name}-{number}", dirs_exist_ok=True)
            shutil.copy(log, Path(keep) / f"{target.name}-{number}")
        shutil.rmtree(folder, ignore_errors=True)
        log.unlink(missing_ok=True)
    return found


def chosen(what: str) -> list[Target]:
    words = [w.strip() for w in what.split(",") if w.strip()]
    some = [t for t in TARGETS if not words or any(t.name.startswith(w) for w in words)]
    if not some: raise SystemExit(f"no target begins with {what!r}: {', '.join(t.name for t in TARGETS)}")
    return some


def plan(targets: list[Target], count: int) -> list[tuple[Target, int]]:
    "How often each is killed, by its share: one target after the other, so that its inputs are made once."
    whole = sum(t.share for t in targets)
    ends = [round(count * sum(t.share for t in targets[:k + 1]) / whole) for k in range(len(targets))]
    return [(t, n) for t, first, end in zip(targets, [0, *ends], ends) for n in range(end - first)]


def run(targets: list[Target], count: int, seed: int, out: Path | None = None, say: Callable[[str], None] = lambda text: print(text, flush=True)) -> list[Trial]:
    "The trials that are not in `out` yet; each is appended to it."
    torch.set_num_threads(1)
    os.environ.update(OMP_NUM_THREADS="1", MPLBACKEND="agg")
    for name in PACKAGES: importlib.import_module(name)
    done = read(out) if out else []
    known = {(t.target, t.number) for t in done}
    todo = [(t, n) for t, n in plan(targets, count) if (t.name, n) not in known]
    with tempfile.TemporaryDirectory(prefix="sam_nb_kills_", ignore_cleanup_errors=True) as scratch:
        for target in dict.fromkeys(t for t, _ in todo):
            work = Path(tempfile.mkdtemp(dir=scratch))
            inputs = work / "inputs"
            inputs.mkdir()
            made = multiprocessing.get_context("fork").Process(target=target.inputs, args=(inputs,))
            made.start(), made.join()
            if made.exitcode: raise SystemExit(f"{target.name}: its inputs could not be made")
            quiet = undisturbed(target, inputs, work)
            say(f"{time.strftime('%H:%M')} {target.name}: {quiet.seconds:.1f} s of processor time, {len(quiet.files)} files, {quiet.calls} calls; not compared: {sorted(quiet.volatile) or 'none'}")
            for number in [n for t, n in todo if t is target]:
                found = trial(target, number, seed, inputs, work, quiet)
                done.append(found)
                if out: out.open("a").write(json.dumps(asdict(found)) + "\n")
                if not found.sound: say(f"  {number}: {found.kills} {found.came}: LOST {found.lost} LITTER {found.litter}")
            shutil.rmtree(work)
    return done


def read(out: Path) -> list[Trial]:
    return [Trial(**json.loads(line)) for line in out.read_text().splitlines()] if out.exists() else []


def table(trials: list[Trial]) -> str:
    rows = [("", "trials", "kills", "twice", "one process alone", "at a call", "not sound", "litter that was cleaned")]
    for name in [*dict.fromkeys(t.target for t in trials), "all"]:
        some = [t for t in trials if name in ("all", t.target)]
        kills = Counter("alone" if k.startswith("one ") else "call" if "call" in k else "all" for t in some for k in t.kills)
        rows.append((name, len(some), sum(t.killed for t in some), sum(len(t.kills) > 1 for t in some), kills["alone"], kills["call"],
                     sum(not t.sound for t in some), sum(bool(t.cleaned) for t in some)))
    widths = [max(len(str(v)) for v in column) for column in zip(*rows)]
    return "\n".join("  ".join(str(v).ljust(w) for v, w in zip(row, widths)).rstrip() for row in rows)


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.kills", description=__doc__.partition("\n")[0])
    parser.add_argument("count", nargs="?", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--what", default="", help="targets, by the beginning of their names; none: all")
    parser.add_argument("--out", type=Path, default=Path("kills.jsonl"), help="results, one line each; a later pass goes on with what is missing")
    parser.add_argument("--table", action="store_true", help="only show the results")
    options = parser.parse_args(words)
    trials = read(options.out) if options.table else run(chosen(options.what), options.count, options.seed, options.out)
    print(table(trials))
    failed = [t for t in trials if not t.sound]
    about = {"trials": len(trials), "kills": sum(t.killed for t in trials), "not_sound": [asdict(t) for t in failed],
             "seconds": round(sum(t.seconds for t in trials)), "seed": options.seed, "table": table(trials).splitlines()}
    if not options.what and len(trials) >= options.count: RESULTS.write_text(json.dumps(about, indent=1) + "\n")
    return int(bool(failed))


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
