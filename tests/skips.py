"""What keeps a test or a notebook's cell from being run, found by walking the sources and held to a list (skips.json).

    python -m tests.skips            compare with the list
    python -m tests.skips --write    write the list: look at its difference before you commit it
"""
from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_name("skips.json")
SKIPS = {"skip", "skipif", "xfail", "importorskip", "SkipTest", "skipTest", "skipIf", "skipUnless", "expectedFailure"}  # of pytest and unittest
HOOKS = {"collect_ignore", "collect_ignore_glob", "pytest_ignore_collect", "pytest_collection_modifyitems", "pytest_runtest_setup", "__test__"}
MATERIAL = {"golden", "samples", "count_skip"}  # of sam_nb.testing: None where the material is not here
MACHINE = {"is_available", "device_count", "environ", "getenv", "which", "find_spec", "platform", "geteuid", "getuid", "cpu_count"}
SETTINGS = ("pytest.ini", ".pytest.ini", "tox.ini", "setup.cfg", "pyproject.toml", "settings.ini")


def sources(root: Path = ROOT) -> list[str]:
    "Every file that git keeps or would keep; without git, every file."
    said = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=root, capture_output=True, text=True)
    names = said.stdout.splitlines() if not said.returncode else [f.relative_to(root).as_posix() for f in root.rglob("*") if f.is_file()]
    return sorted({name for name in names if (root / name).is_file()})


def name_of(node: ast.AST) -> str | None:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None


def names_in(node: ast.AST) -> set[str]:
    return {name for n in ast.walk(node) if (name := name_of(n))}


def short(node: ast.AST) -> str:
    return " ".join(ast.unparse(node).split())[:120]


def within(function: ast.AST) -> Iterator[ast.AST]:
    "Nodes of a function's body, without those of functions in it."
    waiting = [*ast.iter_child_nodes(function)]
    while waiting:
        yield (node := waiting.pop())
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)): waiting += ast.iter_child_nodes(node)


def is_here(call: ast.Call, root: Path) -> bool:
    "A golden file that the repository has: never missing."
    first = call.args[0] if call.args else None
    return name_of(call.func) == "golden" and isinstance(first, ast.Constant) and (root / "tests/golden" / str(first.value)).is_file()


def in_code(tree: ast.AST, root: Path = ROOT) -> Iterator[str]:
    "What may leave out a part of this code, as `kind: text`."
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and name_of(node.func) in MATERIAL and not is_here(node, root): yield f"material: {short(node)}"
        elif isinstance(node, ast.Call) and name_of(node.func) in SKIPS: yield f"skip: {short(node)}"
        elif isinstance(node, ast.Attribute) and id(node) not in called and node.attr in SKIPS:
            yield f"skip: {short(node)}"
        elif isinstance(node, ast.Assign) and HOOKS & {*map(name_of, node.targets)}: yield f"skip: {short(node)}"
        elif isinstance(node, ast.FunctionDef) and node.name in HOOKS: yield f"skip: def {node.name}"
        elif isinstance(node, ast.ImportFrom) and node.module in ("pytest", "unittest"):
            yield from (f"skip: from {node.module} import {a.name}" for a in node.names if a.name in SKIPS | {"mark"})
        elif isinstance(node, (ast.If, ast.IfExp, ast.While)):
            if isinstance(node.test, ast.Constant) and not node.test.value: yield f"never: if {short(node.test)}"
            elif names_in(node.test) & MACHINE: yield f"condition: if {short(node.test)}"
        elif isinstance(node, ast.ExceptHandler):
            caught = {"everything"} if node.type is None else names_in(node.type)
            if caught & {"ImportError", "ModuleNotFoundError", "AssertionError", "Exception", "BaseException", "everything", "Skipped"}:
                yield f"swallowed: except {short(node.type) if node.type else ''}: {short(node.body[0])}"
        elif isinstance(node, ast.Call) and name_of(node.func) == "suppress" and names_in(node) & {"ImportError", "AssertionError", "Exception", "BaseException"}:
            yield f"swallowed: {short(node)}"


def tests_in(tree: ast.Module) -> list[str]:
    "Names of the tests that pytest should find in a file, with their class."
    found = []
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test"): found.append(node.name)
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            found += [f"{node.name}::{n.name}" for n in node.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)) and n.name.startswith("test")]
    return found


def in_test_file(tree: ast.Module, named: Counter) -> Iterator[str]:
    "What pytest leaves out without a word; `named`: how often each name occurs in all test sources."
    if not tests_in(tree): yield "empty: no test in this file"
    for scope in (tree, *(n for n in ast.walk(tree) if isinstance(n, ast.ClassDef))):
        defined = [n for n in scope.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))]
        counts = Counter(n.name for n in defined if "overload" not in map(name_of, n.decorator_list) and not any(isinstance(d, ast.Attribute) for d in n.decorator_list))
        yield from (f"shadowed: {name} is defined {count} times" for name, count in counts.items() if count > 1)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test") and "__init__" in [getattr(n, "name", "") for n in node.body]:
            yield f"unseen: class {node.name} has __init__"
        if isinstance(node, ast.AsyncFunctionDef) and node.name.startswith("test"): yield f"unseen: async {node.name}"
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            yield from (f"return: {node.name} ends before its last line" for n in within(node) if isinstance(n, ast.Return))
            yield from (f"empty: {node.name} has no statement" for _ in [0] if all(isinstance(n, (ast.Pass, ast.Expr)) and not isinstance(getattr(n, "value", None), ast.Call)
                                                                                   for n in node.body))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith(("test", "pytest_")) and not node.decorator_list and not named[node.name]:
            yield f"unseen: nothing calls {node.name}"


def parsed(text: str) -> ast.Module | None:
    try: return ast.parse(text)
    except SyntaxError: return None


def code_of(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def in_notebook(notebook: dict[str, Any], flags: set[str], root: Path = ROOT) -> Iterator[str]:
    "What keeps a cell of a notebook from being run; `flags`: nbdev's, of cells that are left out."
    cells = [(c["cell_type"], code_of(c)) for c in notebook["cells"]]
    runs = [text for kind, text in cells if kind == "code" and any(line.strip() and not line.startswith("#") for line in text.splitlines())]
    if not runs: yield "empty: no code in this notebook"
    if re.search(r"^skip_exec:\s*true", "\n".join(text for kind, text in cells[:2] if kind != "code"), re.M | re.I): yield "skip: skip_exec"
    language = notebook["metadata"].get("kernelspec", {}).get("language", "python")
    if language != "python": yield f"unseen: a notebook of {language}"
    for kind, text in cells:
        if kind == "raw" and not text.startswith("---"): yield f"unseen: raw cell {text[:60]!r}"
        if kind != "code": continue
        yield from in_cell(text, flags)
        exported = re.match(r"#\|\s*export", text)
        tree = parsed(re.sub(r"^\s*[!%].*$", "", text, flags=re.M))
        if tree is None: yield f"unseen: not Python: {text[:60]!r}"
        elif not exported: yield from in_code(tree, root)


def in_cell(text: str, flags: set[str]) -> Iterator[str]:
    for line in text.splitlines():
        directive = re.match(r"#\s*\|\s*([\w-]+:?)\s*(\S*)", line)
        if directive and (directive[1] in flags or (directive[1] == "eval:" and directive[2].lower() == "false")): yield f"skip: {line.strip()}"
        elif re.match(r"#\s*(assert |test_\w+\(|with expect_error)", line): yield f"commented out: {line[:100]}"
    if text.lstrip().startswith("%%"): yield f"skip: {text.lstrip().splitlines()[0]}"
    if "nbdev_export(" in text: yield "skip: a cell that says nbdev_export( is not run by nbdev"


def in_settings(name: str, text: str) -> Iterator[str]:
    for line in text.splitlines():
        if re.match(r"(tst_flags|skip_procs|file_re|folder_re|skip_file_\w+)\s*=\s*[^\s\[]", line): yield f"setting: {line.strip()}"
        elif name != "settings.ini" and re.match(r"(addopts|norecursedirs|testpaths|python_(files|classes|functions)|collect_ignore)", line.strip()):
            yield f"setting: {line.strip()}"


def found(root: Path = ROOT, run: Iterable[str] | None = None) -> dict[str, list[str]]:
    "Everything that may be left out, by file; `run`: the notebooks and test files that the runner runs."
    from nbdev.config import get_config

    from tests import run as runner
    flags, names = set(get_config().tst_flags.split()) | {"notest"}, sources(root)
    ran = set(runner.everything() if run is None else run)
    browser = {name for name in names if name.startswith("tests/browser/test_")}  # make test-browser
    trees = {name: parsed((root / name).read_text()) for name in names if name.startswith(("tests/", "benchmarks/")) and name.endswith(".py")}
    named = Counter(n for tree in trees.values() if tree for node in ast.walk(tree) for n in [name_of(node) or (node.arg if isinstance(node, ast.arg) else None)] if n)
    entries: dict[str, list[str]] = {}
    for name in names:
        path, here = root / name, entries.setdefault(name, [])
        if Path(name).name == ".notest": here.append("skip: nbdev leaves out this folder")
        elif name.endswith(".ipynb"):
            here += in_notebook(json.loads(path.read_text()), flags, root)
            if name not in ran: here.append("unseen: the runner does not find this notebook")
        elif trees.get(name):
            is_test = bool(re.search(r"(^|/)test_[^/]*\.py$", name))
            if name.startswith("tests/"): here += in_code(trees[name], root)
            if is_test: here += in_test_file(trees[name], named)
            if (is_test or (tests_in(trees[name]) and name != "tests/skips.py")) and name not in ran | browser: here.append("unseen: the runner does not find this file")
        elif Path(name).name in SETTINGS: here += in_settings(Path(name).name, path.read_text())
    return {name: sorted(lines) for name, lines in entries.items() if lines}


def listed() -> dict[str, list[str]]: return json.loads(LIST.read_text())


def differences(now: dict[str, list[str]], then: dict[str, list[str]]) -> list[str]:
    "What the list lacks (+) and what it has too much (-), a line each."
    lines = []
    for name in sorted({*now, *then}):
        a, b = Counter(now.get(name, [])), Counter(then.get(name, []))
        lines += [f"+ {name}: {line}" for line in (a - b).elements()] + [f"- {name}: {line}" for line in (b - a).elements()]
    return lines


def counts(entries: dict[str, list[str]]) -> Counter: return Counter(line.partition(":")[0] for lines in entries.values() for line in lines)


def main(words: list[str]) -> int:
    now = found()
    if words == ["--write"]: LIST.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n")
    said = differences(now, listed())
    print(*said, sep="\n", end="\n" if said else "")
    print(f"{sum(counts(now).values())} places in {len(now)} files where something may be left out, {len(said)} not as in tests/skips.json: {dict(counts(now))}")
    return int(bool(said))


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
