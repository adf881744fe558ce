"""Do the tests notice a change? Mutants of the library's cells, made by cosmic-ray and judged by the notebooks and tests.

    python -m venv .venv-mutation && .venv-mutation/bin/pip install cosmic-ray==8.7.0        once: beside the project's environment, not in it
    OMP_NUM_THREADS=1 python -m benchmarks.mutation run [masks losses ...] [--count 300] [--seed 0] [--again]
    python -m benchmarks.mutation table

run: the same number of mutants in each notebook, at places drawn by the seed; not in type hints, `__repr__` and texts of errors. Each is put into its notebook and its module in a copy of the
checkout; the notebook runs there, and at the end, for what passed, the related files below, until one fails (three times the usual processor time and 5 s are allowed). Results are appended to runs/mutation.jsonl
as they come; what is there is not judged again, survivors are with --again. table: the counts, and every survivor with its reason, in benchmarks/results/mutation.json (reasons are written there by hand and kept).
"""
from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import importlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
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
    "41_training.callbacks": ("42_training.loop", "tests/test_resume.py"),
    "07_prompts": ("30_heads.promptable", "60_methods.promptable", "50_evaluation.clicks"),
    "06_weights": ("20_encoders.sam", "60_methods.promptable_weights", "60_methods.sartm_weights", "tests/test_weights.py"),
}


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
    cells = json.loads(notebook.read_text())["cells"]
    return {c["id"]: "".join(c["source"]) for c in cells if c["cell_type"] == "code" and "".join(c["source"]).startswith("#| export\n")}


def copied_checkout(folder: Path) -> Path:
    "What git knows of the checkout, as it is now."
    names = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


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


def judge(file: str, usual: float | None, folder: Path) -> tuple[bool, float, str]:
    "Whether a file passes, its processor seconds, and its output's last line."
    from tests.run import Job
    shutil.rmtree(folder, ignore_errors=True)
    job, allowed = Job(file, [], folder).start(), None if usual is None else 3 * usual + 5
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(job.process.pid, resource.RLIMIT_DATA, (6 * 2**30,) * 2)
        if allowed: resource.prlimit(job.process.pid, resource.RLIMIT_CPU, (int(allowed) + 1,) * 2)
    job.process.join(600 if usual is None else 60 + 5 * allowed)  # what waits for something uses no processor
    late = job.process.is_alive()
    job.stop()
    outcome = job.end()
    lines = [line for line in outcome.output.splitlines() if line.strip()]
    return not outcome.failed, outcome.processor, "time limit" if late or job.process.exitcode == -9 and not lines else lines[-1][:200] if lines else ""


def run(names: list[str], count: int, seed: int, again: bool, python: Path, out: Path) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # nothing is left behind
    out.parent.mkdir(exist_ok=True)
    known = {r["id"]: r for r in map(json.loads, out.read_text().splitlines())} if out.exists() else {}
    with tempfile.TemporaryDirectory(prefix="sam_nb_mutants_") as place:
        copy, folder = copied_checkout(Path(place) / "copy"), Path(place) / "job"
        os.chdir(copy)
        sys.path[:] = [str(copy), *(p for p in sys.path if p not in ("", str(ROOT)))]
        os.environ.update(PYTHONPATH=str(copy), MPLBACKEND="agg", OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", "1"))
        with contextlib.redirect_stdout(io.StringIO()):
            for package in importlib.import_module("tests.run").PACKAGES: importlib.import_module(package)
        usual: dict[str, float] = {}  # processor seconds of a file without a mutant
        def passes(file: str, mutant: dict) -> tuple[bool, str]:
            if file not in usual:
                sys.dont_write_bytecode = False
                passed, usual[file], why = judge(file, None, folder)
                sys.dont_write_bytecode = True
                print(f"{file}: {usual[file]:.1f} s of processor time", flush=True)
                if not passed: raise SystemExit(f"{file} fails without any mutant: {why}")
            with mutated(copy, file_of(mutant["notebook"]), mutant["cell"], mutant["source"]): passed, _, why = judge(file, usual[file], folder)
            return passed, why

        sampled = []
        for name in [n for n in NOTEBOOKS if not names or n.split("_", 1)[1].split(".")[-1] in names or n in names]:
            asked = json.dumps(dict(cells=cells_of(copy / file_of(name)), count=-(-count // len(NOTEBOOKS)), seed=seed))
            made = json.loads(subprocess.run([python, __file__, "mutants"], input=asked, capture_output=True, text=True, check=True).stdout)
            sampled += [dict(m, notebook=name) for m in made]
        if again: known = {i: r for i, r in known.items() if r["caught"]}
        for files in (lambda name: [name], lambda name: NOTEBOOKS[name]):  # first everything by its notebook
            for mutant in sampled:
                result = known.get(mutant["id"]) or dict({k: mutant[k] for k in ("id", "notebook", "cell", "operator", "was", "now")}, caught=None, why=None, passed=[])
                left = [f for f in map(file_of, files(mutant["notebook"])) if f not in result["passed"]]
                if result["caught"] or not left: continue
                for file in left:
                    passed, why = passes(file, mutant)
                    if passed: result["passed"].append(file)
                    else:
                        result.update(caught=file, why=why)
                        break
                known[mutant["id"]] = result
                with open(out, "a") as lines: lines.write(json.dumps(result) + "\n")
                print(f"{mutant['notebook']:26} {'caught by ' + Path(result['caught']).name if result['caught'] else 'SURVIVED':40} {mutant['was'][:80]}  ->  {mutant['now'][:80]}", flush=True)


def table(out: Path) -> None:
    "Counts a notebook, and every survivor with its reason."
    results = {r["id"]: r for r in map(json.loads, out.read_text().splitlines())}.values()
    reasons = {s["id"]: s["reason"] for s in json.loads(RESULTS.read_text())["survivors"]} if RESULTS.exists() else {}
    rows = [dict(notebook=name, mutants=len(mine), by_its_notebook=sum(r["caught"] == file_of(name) for r in mine), caught=sum(bool(r["caught"]) for r in mine))
            for name in NOTEBOOKS if (mine := [r for r in results if r["notebook"] == name])]
    total = {k: sum(row[k] for row in rows) for k in ("mutants", "by_its_notebook", "caught")}
    survivors = [{**{k: r[k] for k in ("id", "notebook", "cell", "operator", "was", "now")}, "reason": reasons.get(r["id"], "")} for r in results if not r["caught"]]
    RESULTS.write_text(json.dumps(dict(command="python -m benchmarks.mutation run", tool="cosmic-ray 8.7.0", **total, notebooks=rows, survivors=survivors), indent=1) + "\n")
    for row in [*rows, dict(notebook="all", **total)]: print(f"{row['notebook']:26} {row['mutants']:4} mutants, caught by its notebook {row['by_its_notebook']:3}, caught {row['caught']:3}")
    for s in survivors: print(f"{s['notebook']:26} {s['was'][:90]}  ->  {s['now'][:90]}: {s['reason'] or 'no reason given yet'}")


def main(words: list[str]) -> None:
    if words == ["mutants"]: return print(json.dumps(mutants(**json.load(sys.stdin))))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutation", description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("names", nargs="*", help="modules, such as masks; none: all of them")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="judge survivors again")
    parser.add_argument("--python", type=Path, default=PYTHON, help="of the environment that has cosmic-ray")
    parser.add_argument("--out", type=Path, default=JUDGED)
    options = vars(parser.parse_args(words))
    if options.pop("what") == "table": return table(options["out"].absolute())
    run(**{**options, "out": options["out"].absolute(), "python": options["python"].absolute()})


if __name__ == "__main__": main(sys.argv[1:])
