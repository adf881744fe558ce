"""Do the tests notice a change? Mutants of the library's cells, made by cosmic-ray and judged by the notebooks and tests.

    python -m venv .venv-mutation && .venv-mutation/bin/pip install cosmic-ray==8.7.0        once: beside the project's environment, not in it
    OMP_NUM_THREADS=1 python -m benchmarks.mutation run [masks losses ...] [--count 300] [--seed 0]
    python -m benchmarks.mutation table

run: the same number of mutants in each notebook, at places drawn by the seed; not in type hints, `__repr__` and texts of errors. Each is put into its notebook and its module in a copy of the
checkout; the notebook runs there, and at the end, for what passed, the related files below, until one fails (three times the usual processor time and 5 s are allowed). Results are appended to runs/mutation.jsonl
as they come; what is there is not judged again, a survivor only where the file that let it pass has changed.
table: the counts, and every survivor with its reason, in benchmarks/results/mutation.json (reasons are written there by hand and kept).
"""
from __future__ import annotations
import __future__

import argparse
import ast
import contextlib
import gc
import hashlib
import importlib
import io
import json
import math
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON, JUDGED, RESULTS = ROOT / ".venv-mutation/bin/python", ROOT / "runs/mutation.jsonl", ROOT / "benchmarks/results/mutation.json"
NOTEBOOKS = {  # and what else is run for a mutant that its own notebook lets pass
    "01_masks": ("02_instance_metrics", "10_datasets.object_masks", "30_heads.everything", "72_segment.tiles", "72_segment.joining"),
    "02_metrics": ("50_evaluation.semantic", "50_evaluation.sentences", "50_evaluation.everything"),
    "02_instance_metrics": ("50_evaluation.instances", "50_evaluation.boxes", "50_evaluation.everything"),
    "02_label_metrics": ("50_evaluation.labels", "50_evaluation.captions"),
    "03_losses": ("30_heads.promptable", "30_heads.semantic", "60_methods.rsam_losses", "60_methods.sartm"),
    "10_datasets.transforms": ("10_datasets.object_masks", "10_datasets.instances", "10_datasets.rgbt", "60_methods.sartm_recipe"),
    "10_datasets.object_masks": ("10_datasets.turned_masks", "10_datasets.coco_masks", "60_methods.promptable", "10_datasets.saom_files"),
    "40_training.loader": ("41_training.state", "41_training.callbacks", "42_training.loop", "tests/test_distributed.py"),
    "41_training.state": ("41_training.callbacks", "42_training.loop", "tests/test_resume.py"),
    "07_prompts": ("30_heads.promptable", "60_methods.promptable", "50_evaluation.clicks"),
    "06_weights": ("20_encoders.sam", "60_methods.promptable_weights", "60_methods.sartm_weights", "tests/test_weights.py"),
    "41_training.callbacks": ("42_training.loop", "tests/test_resume.py"),
}
GIVEN = (  # changes that no test noticed once: judged first
    ("10_datasets.object_masks", "part[::-1 if crop.turn else 1, ::-1 if crop.flip else 1]", "part[::-1 if crop.flip else 1, ::-1 if crop.turn else 1]"),
    ("40_training.loader", "(k * self.processes + self.rank)", "(self.rank * self.accumulate + k)"),
    ("41_training.callbacks", "self.write(t, t.epoch + 1)", "self.write(t, t.epoch)"),
    ("41_training.callbacks", "self.waited >= self.patience", "self.waited > self.patience"),
    ("41_training.callbacks", "score > self.best):\n            self.best, self.step", "score >= self.best):\n            self.best, self.step"),
    ("41_training.callbacks", "min(self.decay, (1 + t.step) / (10 + t.step))", "self.decay"),
)


# ---- in cosmic-ray's environment: mutants of a notebook's cells

def untested(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    "Stretches (line, column) of a cell that no test need notice: type hints, `__repr__`, texts of errors and warnings."
    nodes = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name in ("__repr__", "__str__"): nodes.append(node)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call): nodes += [*node.exc.args, *node.exc.keywords]
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "warn": nodes += [*node.args, *node.keywords]
        nodes += [hint for name in ("annotation", "returns") if (hint := getattr(node, name, None)) is not None]
    return [((n.lineno, n.col_offset), (n.end_lineno, n.end_col_offset)) for n in nodes]


def places(cell: str, source: str) -> Iterator[dict]:
    "Where cosmic-ray's operators apply: each place with every mutation of it."
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.operators.provider import OperatorProvider
    provider, out, nodes, found = OperatorProvider(), untested(source), [*ast_nodes(get_ast(source))], {}
    for name in provider:
        if name in ("VariableReplacer", "VariableInserter"): continue  # these draw random numbers
        occurrence, operator = 0, provider[name]()
        for node in nodes:
            for start, end in operator.mutation_positions(node):
                if not any(a <= tuple(start) < b for a, b in out): found.setdefault((start, end), []).append((name, occurrence))
                occurrence += 1
    for (start, end), mutations in found.items(): yield dict(cell=cell, line=start[0], column=start[1], end=list(end), mutations=mutations)


def mutants(cells: dict[str, str], count: int, seed: int) -> list[dict]:
    "So many mutants of these cells, at most one at a place. The order depends on the cells' own text alone: a change elsewhere changes no other draw."
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.operators.provider import OperatorProvider
    def number(*of): return hashlib.sha256(repr((seed, *of)).encode()).hexdigest()
    every = [place for cell, source in cells.items() for place in places(cell, source)]
    made = []
    for place in sorted(every, key=lambda p: number(p["cell"], cells[p["cell"]], p["line"], p["column"], p["end"])):
        source = cells[place["cell"]]
        for name, occurrence in sorted(place["mutations"], key=lambda m: number(place["line"], place["column"], m)):
            changed = mutate_code(source, OperatorProvider()[name](), occurrence)
            try: same = ast.dump(ast.parse(changed)) == ast.dump(ast.parse(source))
            except SyntaxError: continue
            if same: continue
            line, was = place["line"] - 1, source.splitlines()
            now = changed.splitlines()
            made.append(dict(id=number(place["cell"], source, name, occurrence)[:12], cell=place["cell"], operator=name, was=was[line].strip(),
                             now="".join(now[line:line + 1 + len(now) - len(was)]).strip(), source=changed))
            break
        if len(made) == count: break
    return made


# ---- in the project's environment: judging them

def file_of(name: str) -> str: return name if name.endswith(".py") else f"nbs/lib/{name}.ipynb"


def cells_of(notebook: Path) -> dict[str, str]:
    "The sources of exported cells; not those with imports of the package, which nbdev rewrites."
    cells = {c["id"]: "".join(c["source"]) for c in json.loads(notebook.read_text())["cells"] if c["cell_type"] == "code"}
    return {name: source for name, source in cells.items() if source.startswith("#| export\n") and "\nfrom sam_nb." not in source}


def copied_checkout(folder: Path) -> Path:
    "What git knows of the checkout, as it is now."
    names = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def digest(file: Path) -> str:
    "Of a notebook's sources (its outputs do not matter), or of a file: what passed a mutant once is asked again when it has changed."
    text = file.read_text() if file.suffix == ".py" else repr(["".join(c["source"]) for c in json.loads(file.read_text())["cells"]])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@contextlib.contextmanager
def mutated(copy: Path, notebook: str, cell: str, source: str) -> Iterator[None]:
    "Inside this context a cell of the copy's notebook, and of the module that it exports, has another source."
    text = (copy / notebook).read_text()
    book = json.loads(text)
    changed = next(c for c in book["cells"] if c["id"] == cell)
    module = copy / "sam_nb" / (Path(notebook).stem.split("_", 1)[1].replace(".", "/") + ".py")
    code, was = module.read_text(), "".join(changed["source"]).removeprefix("#| export\n").strip()
    if code.count(was) != 1: raise SystemExit(f"{module.name} does not hold the source of cell {cell} of {notebook} once: run `make export`")
    changed["source"] = source.splitlines(keepends=True)
    (copy / notebook).write_text(json.dumps(book))
    module.write_text(code.replace(was, source.removeprefix("#| export\n").strip()))
    for kept in (module.parent / "__pycache__").glob(f"{module.stem}.*"): kept.unlink()
    try: yield
    finally: (copy / notebook).write_text(text), module.write_text(code)


def execute(notebook: str, folder: Path) -> None:
    "In a process of its own: the cells of a notebook one after the other, without drawing what they show (most of a notebook's time)."
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    folder.mkdir()
    with open(folder / "output", "w") as file: os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
    os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
    os.chdir("nbs")
    main = sys.modules["__main__"] = types.ModuleType("__main__")  # as in a kernel: what the notebook defines can be pickled
    main.display = lambda *things, **options: None
    for cell in json.loads((Path("..") / notebook).read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and "#| eval: false" not in source: exec(compile(source, notebook, "exec", __future__.annotations.compiler_flag), vars(main))
    (folder / "seconds").write_text(str(time.process_time()))


def judge(file: str, usual: float | None, folder: Path) -> tuple[bool, float, str]:
    "Whether a file passes, its processor seconds, and its output's last line."
    from tests.run import Job
    shutil.rmtree(folder, ignore_errors=True)
    if file.endswith(".py"): process = (job := Job(file, [], folder).start()).process
    else:
        process = multiprocessing.get_context("fork").Process(target=execute, args=(file, folder))
        process.start()
    allowed = None if usual is None else 3 * usual + 5
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(process.pid, resource.RLIMIT_DATA, (6 * 2**30,) * 2)
        if allowed: resource.prlimit(process.pid, resource.RLIMIT_CPU, (int(allowed) + 1,) * 2)
    process.join(600 if usual is None else 60 + 5 * allowed)  # what waits for something uses no processor
    late = process.is_alive()
    with contextlib.suppress(ProcessLookupError): os.killpg(process.pid, signal.SIGKILL)
    process.join()
    output = (folder / "output").read_text(errors="replace") if (folder / "output").exists() else ""
    lines = [line for line in output.splitlines() if line.strip()]
    why = "time limit" if late or process.exitcode in (-signal.SIGKILL, -signal.SIGXCPU) else lines[-1][:200] if lines else f"exit code {process.exitcode}"
    if file.endswith(".py"): return not (outcome := job.end()).failed, outcome.processor, why
    ended = (folder / "seconds").exists()
    return ended and process.exitcode == 0, float((folder / "seconds").read_text()) if ended else 0.0, why


def sample(names: list[str], count: int, seed: int, python: Path) -> list[dict]:
    "The given mutants and the drawn ones, of the notebooks as they are."
    made = []
    for name in [n for n in NOTEBOOKS if not names or n.split("_", 1)[1].split(".")[-1] in names or n in names]:
        cells = cells_of(ROOT / file_of(name))
        for _, was, now in (g for g in GIVEN if g[0] == name):
            cell = next(c for c, source in cells.items() if was in source)
            made.append(dict(id=hashlib.sha256((was + now).encode()).hexdigest()[:12], notebook=name, cell=cell, operator="given", was=was, now=now, source=cells[cell].replace(was, now)))
        asked = json.dumps(dict(cells=cells, count=-(-count // len(NOTEBOOKS)), seed=seed))
        done = subprocess.run([python, __file__, "mutants"], input=asked, capture_output=True, text=True, check=True)
        made += [dict(m, notebook=name) for m in json.loads(done.stdout)]
    return sorted(made, key=lambda m: m["operator"] != "given")


def run(names: list[str], count: int, seed: int, python: Path, out: Path) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # nothing is left behind
    out.parent.mkdir(exist_ok=True)
    known = {r["id"]: r for r in map(json.loads, out.read_text().splitlines())} if out.exists() else {}
    with tempfile.TemporaryDirectory(prefix="sam_nb_mutants_") as place:
        copy, folder = copied_checkout(Path(place) / "copy"), Path(place) / "job"
        os.chdir(copy)
        sys.path[:] = [str(copy), *(p for p in sys.path if p not in ("", str(ROOT)))]
        os.environ.update(PYTHONPATH=str(copy), MPLBACKEND="agg", OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", "1"))
        with contextlib.redirect_stdout(io.StringIO()):  # once: each file is run in a fork of this process
            for package in importlib.import_module("tests.run").PACKAGES: importlib.import_module(package)
        gc.freeze()  # forks would copy what the collector touches
        usual: dict[str, float] = {}  # processor seconds of a file without a mutant
        def passes(file: str, mutant: dict) -> tuple[bool, str]:
            if file not in usual:
                sys.dont_write_bytecode = False
                passed, usual[file], why = judge(file, None, folder)
                sys.dont_write_bytecode = True
                print(f"{file}: {usual[file]:.1f} s of processor time", flush=True)
                if not passed and file == file_of(mutant["notebook"]): raise SystemExit(f"{file} fails without any mutant: {why}")
                if not passed:
                    usual[file] = math.nan
                    print(f"{file} fails without any mutant, and judges none: {why}", flush=True)
            if math.isnan(usual[file]): return True, ""
            with mutated(copy, file_of(mutant["notebook"]), mutant["cell"], mutant["source"]): passed, _, why = judge(file, usual[file], folder)
            return passed, why

        drawn = sample(names, count, seed, python)
        for files in (lambda name: [name], lambda name: NOTEBOOKS[name]):  # first everything by its notebook
            for mutant in drawn:
                result = known.get(mutant["id"]) or dict({k: mutant[k] for k in ("id", "notebook", "cell", "operator", "was", "now")}, caught=None, why=None, passed={})
                left = [f for f in map(file_of, files(mutant["notebook"])) if result["passed"].get(f) != digest(copy / f)]
                if result["caught"] or not left: continue
                for file in left:
                    passed, why = passes(file, mutant)
                    if passed: result["passed"][file] = digest(copy / file)
                    else:
                        result.update(caught=file, why=why)
                        break
                known[mutant["id"]] = result
                with open(out, "a") as lines: lines.write(json.dumps(result) + "\n")
                print(f"{mutant['notebook']:26} {'caught by ' + Path(result['caught']).name if result['caught'] else 'SURVIVED':40} {mutant['was'][:80]}  ->  {mutant['now'][:80]}", flush=True)


def table(names: list[str], count: int, seed: int, python: Path, out: Path) -> None:
    "Counts a notebook, and every survivor with its reason."
    results = {r["id"]: r for r in map(json.loads, out.read_text().splitlines())}
    drawn = sample(names, count, seed, python)
    judged = [{**m, **results[m["id"]]} for m in drawn if m["id"] in results]
    reasons = {s["id"]: s["reason"] for s in json.loads(RESULTS.read_text())["survivors"]} if RESULTS.exists() else {}
    def counts(mine: list[dict]) -> dict: return dict(mutants=len(mine), by_its_notebook=sum(r["caught"] == file_of(r["notebook"]) for r in mine), caught=sum(bool(r["caught"]) for r in mine))
    rows = {"given": counts([r for r in judged if r["operator"] == "given"]),
            **{name: counts([r for r in judged if r["notebook"] == name and r["operator"] != "given"]) for name in NOTEBOOKS},
            "all drawn": counts([r for r in judged if r["operator"] != "given"])}
    survivors = [{**{k: r[k] for k in ("id", "notebook", "cell", "operator", "was", "now")}, "reason": reasons.get(r["id"], "")} for r in judged if not r["caught"]]
    RESULTS.write_text(json.dumps(dict(command="python -m benchmarks.mutation run", tool="cosmic-ray 8.7.0", seed=seed, not_judged=len(drawn) - len(judged), rows=rows, survivors=survivors),
                                  indent=1) + "\n")
    for name, row in rows.items(): print(f"{name:26} {row['mutants']:4} mutants, caught by its notebook {row['by_its_notebook']:4}, caught {row['caught']:4}")
    for s in survivors: print(f"{s['notebook']:26} {s['was'][:90]}  ->  {s['now'][:90]}: {s['reason'] or 'no reason given yet'}")
    if len(drawn) > len(judged): print(f"{len(drawn) - len(judged)} of the sample are not judged yet")


def main(words: list[str]) -> None:
    if words == ["mutants"]: return print(json.dumps(mutants(**json.load(sys.stdin))))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutation", description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("names", nargs="*", help="modules, such as masks; none: all of them")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--python", type=Path, default=PYTHON, help="of the environment that has cosmic-ray")
    parser.add_argument("--out", type=Path, default=JUDGED)
    options = vars(parser.parse_args(words))
    what = options.pop("what")
    options |= {"out": options["out"].absolute(), "python": options["python"].absolute()}
    (run if what == "run" else table)(**options)


if __name__ == "__main__": main(sys.argv[1:])
