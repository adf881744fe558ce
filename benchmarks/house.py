"""How the package is built, in figures: modules, lines, imports, public names, and who knows the methods by name.

    python -m benchmarks.house                  the working tree
    python -m benchmarks.house e4e183d HEAD     two revisions side by side
"""
from __future__ import annotations

import argparse
import ast
import io
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

METHODS = ("sartm", "promptable", "saom", "rsam")


def modules(root: Path) -> dict[str, Path]:
    paths = [p for p in sorted((root / "sam_nb").rglob("*.py")) if p.name not in ("__init__.py", "_modidx.py")]
    return {".".join(p.relative_to(root).with_suffix("").parts): p for p in paths}


def imports(name: str, path: Path, known: set[str]) -> set[str]:
    "Modules of the package that a module imports, at the top or inside a function."
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import): found |= {a.name for a in node.names}
        if isinstance(node, ast.ImportFrom):
            package = ".".join(name.split(".")[:-node.level]) if node.level else ""
            base = ".".join(part for part in (package, node.module) if part)
            found |= {base, *(f"{base}.{a.name}" for a in node.names)}
    return found & known - {name}


def public(path: Path) -> int:
    "Names in __all__."
    listed = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "__all__"]
    return len(ast.literal_eval(listed[0].value)) if listed else 0


def names_a_method(path: Path) -> bool:
    "Whether the code names a published method: it imports its modules, or holds its name as a value."
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and re.search(rf"(methods\.|^)({'|'.join(METHODS)})(_|$)", node.module or "") and "methods" in (node.module or ""): return True
        if isinstance(node, ast.Constant) and node.value in METHODS: return True
    return False


def own(name: str) -> bool: return name.startswith("sam_nb.methods.")


def figures(root: Path) -> dict[str, object]:
    there = modules(root)
    lines = {name: len(path.read_text().splitlines()) for name, path in there.items()}
    small = {name: n for name, n in lines.items() if "demo" not in name}
    longest = max(small, key=small.get)
    return {
        "modules": len(there), "lines": sum(lines.values()), "median lines of a module": sorted(lines.values())[len(lines) // 2],
        "longest, demo world apart": f"{small[longest]} ({longest.removeprefix('sam_nb.')})", "modules over 450 lines, demo world apart": sum(n > 450 for n in small.values()),
        "import edges": sum(len(imports(name, path, set(there))) for name, path in there.items()), "public names": sum(map(public, there.values())),
        "modules, not a method's own, that name a method": sum(names_a_method(path) for name, path in there.items() if not own(name)),
        "words in README": len((root / "README.md").read_text().split()),
    }


def at_revision(revision: str) -> dict[str, object]:
    top = Path(__file__).parents[1]
    packed = subprocess.run(["git", "archive", revision, "sam_nb", "README.md"], cwd=top, capture_output=True, check=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        tarfile.open(fileobj=io.BytesIO(packed)).extractall(folder, filter="data")
        return figures(Path(folder))


def main(revisions: list[str]) -> None:
    columns = {r: at_revision(r) for r in revisions} or {"working tree": figures(Path(__file__).parents[1])}
    width = max(len(k) for k in next(iter(columns.values())))
    print(" " * width, *(f"{name:>36}" for name in columns))
    for row in next(iter(columns.values())): print(f"{row:{width}}", *(f"{c[row]!s:>36}" for c in columns.values()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revisions", nargs="*", help="of git, side by side; none: the working tree")
    main(parser.parse_args().revisions)
