"python -m tests.parity METHOD FOLDER"
import importlib
import sys
from pathlib import Path


def main() -> int:
    here = Path(__file__).parent
    methods = sorted(p.stem for p in here.glob("*.py") if p.stem not in ("__init__", "__main__", "checks"))
    if len(sys.argv) != 3 or sys.argv[1] not in methods:
        print(f"usage: python -m tests.parity METHOD FOLDER   (methods: {', '.join(methods)})", file=sys.stderr)
        return 2
    folder = Path(sys.argv[2])
    if not folder.is_dir():
        print(f"no such folder: {folder}", file=sys.stderr)
        return 2
    checks = importlib.import_module(f"tests.parity.{sys.argv[1]}").run(folder)
    checks.print()
    return 1 if checks.failed or not checks.rows else 0


sys.exit(main())
