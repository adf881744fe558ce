"""One row a check: what, how far off, how far allowed.

Models are compared in float64: their weights and inputs are a golden's float32 values, so what differs is the rounding of the published run,
which is the same on every processor. A second pass computes in float32, as users do. It may differ from the first as much as the published
float32 values do, times `ROUNDINGS`, or by what the check allows.
"""
from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ROUNDINGS = 32  # float32 against float64: how many times the published run's own difference


class Absent(KeyError):
    "A golden that is not in the folder."


class Stored(dict):
    "What a golden file holds; a key that it lacks is absent, not a failure."

    def __missing__(self, key: str) -> Any: raise Absent(key)

    def part(self, prefix: str) -> Stored:
        "The entries whose names begin so, without that beginning."
        return Stored({k.removeprefix(prefix): v for k, v in self.items() if k.startswith(prefix)})


def facts(path: Path) -> Stored:
    "A golden JSON file."
    return json.loads(path.read_text(), object_hook=Stored)


def stored(path: Path) -> Stored:
    "The tensors of a golden file; floating ones in the type that is computed in."
    return Stored({k: v.to(torch.get_default_dtype()) if v.is_floating_point() else v for k, v in load_file(path).items()})


_BITS = (torch.frombuffer, Tensor.view)  # here a type says how bits are read


class _Double(TorchFunctionMode):
    "Whatever asks for float32 gets float64: the library, segment-anything and sam2 as they are, in double precision."

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is Tensor.float: function = Tensor.double
        if function in _BITS: return function(*args, **(kwargs or {}))
        wide = lambda x: torch.float64 if x is torch.float32 else x
        return function(*map(wide, args), **{k: wide(v) for k, v in (kwargs or {}).items()})


@torch.no_grad()
def moved(model: nn.Module, seed: int, by: float = 2**-20) -> None:
    "Move every weight by at most `by`, relative: sixteen roundings of float32."
    noise = torch.Generator().manual_seed(seed)
    for p in model.parameters(): p.mul_(1 + by * (2 * torch.rand(p.shape, generator=noise) - 1))


@contextmanager
def double() -> Iterator[None]:
    "Models and tensors made inside, and what is computed with them, are in float64."
    torch.set_default_dtype(torch.float64)
    try:
        with _Double(): yield
    finally: torch.set_default_dtype(torch.float32)


def machine() -> str:
    "What the numbers depend on, in a line."
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists(): name = next((line.partition(":")[2].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), name)
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}, torch {torch.__version__}"


def alone(check: Callable[[Path, Checks], None]) -> int:
    "One part of a runner as a command: `python -m tests.parity.PART FOLDER`; the exit status."
    checks = Checks()
    check(Path(sys.argv[1]), checks)
    checks.print()
    return int(bool(checks.failed or not checks.rows))


@dataclass
class Checks:
    "Collects checks; a check that raises is a failure, a check whose golden is absent is listed as absent."
    rows: list[tuple[str, float, float, str]] = field(default_factory=list)
    single: bool = False  # the pass in float32
    alone: bool = False  # inside a group that is computed in float32 only
    exact: dict[str, Tensor | float] = field(default_factory=dict)  # what float64 gave

    def passes(self, groups: Callable[[], None]) -> None:
        "All groups in float64, then those that are not `only=\"float64\"` in float32."
        with double(): groups()
        self.single = True
        groups()
        self.single = False

    @property
    def again(self) -> bool: return self.single and not self.alone

    def add(self, name: str, error: float, tolerance: float) -> None:
        if not self.again: self.rows.append((name, float(error), tolerance, "ok" if error <= tolerance else "FAIL"))

    def equal(self, name: str, ours: Any, theirs: Any) -> None:
        same = torch.equal(ours, theirs) if isinstance(ours, Tensor) else ours == theirs
        self.add(name, 0.0 if same else 1.0, 0.0)

    def close(self, name: str, ours: Tensor, theirs: Tensor, tolerance: float, relative: bool = True) -> None:
        "Largest difference (relative to the golden's largest value, unless `relative` is False)."
        if tuple(ours.shape) != tuple(theirs.shape): return self.rows.append((f"{name}: shape {tuple(ours.shape)}, golden {tuple(theirs.shape)}", float("inf"), tolerance, "FAIL"))
        ours, theirs = ours.detach().double(), theirs.double()
        scale = theirs.abs().max().clamp_min(1e-30) if relative else 1.0
        difference = lambda a, b: ((a - b).abs().max() / scale).nan_to_num(float("inf")).item() if a.numel() else 0.0
        if self.again: return self._rounding(name, difference(ours, self.exact[name]), difference(theirs, self.exact[name]), tolerance)
        self.exact[name] = ours
        self.add(name, difference(ours, theirs), tolerance)

    def number(self, name: str, ours: float, theirs: float, rtol: float) -> None:
        difference = lambda a, b: abs(float(a) - float(b)) / max(abs(float(theirs)), 1e-30)
        if self.again: return self._rounding(name, difference(ours, self.exact[name]), difference(theirs, self.exact[name]), rtol)
        self.exact[name] = float(ours)
        self.add(name, difference(ours, theirs), rtol)

    def _rounding(self, name: str, own: float, published: float, tolerance: float) -> None:
        allowed = max(tolerance, ROUNDINGS * published)
        self.rows.append((f"float32: {name}", own, allowed, "ok" if own <= allowed else "FAIL"))

    def steps(self, run: Callable[[float], dict[str, float]], golden: dict[str, float], rtol: float) -> None:
        """Numbers of some training steps; `run(0)` gives ours, `run(seed)` those of a start whose weights are moved by 2^-20, relative.

        Adam turns the rounding of a gradient near zero into a whole step, so no rounding may change more than such a move does: a number may
        be off by `rtol`, or by three times the largest change that two moves make.
        """
        ours, moved = run(0), [run(1), run(2)]
        for name, value in golden.items():
            size, spread = max(abs(value), 1e-30), max(abs(other[name] - ours[name]) for other in moved)
            self.add(name, abs(ours[name] - value) / size, max(rtol, 3 * spread / size))

    def group(self, name: str, function: Callable[[], None], only: str | None = None) -> None:
        "Run a group of checks, in one precision `only` or in both; whatever it raises is a failure of its own."
        if only and (only == "float32") != self.single: return
        before, self.alone = self.alone, self.alone or only == "float32"
        try: function()
        except Absent as error: self.absent(name, error.args[0])
        except Exception as error: self.rows.append((f"{name}: {type(error).__name__}: {error}", float("inf"), 0.0, "FAIL"))
        self.alone = before

    def absent(self, name: str, what: str) -> None:
        if not self.again: self.rows.append((f"{name}: {what} is not in this folder", float("nan"), 0.0, "absent"))

    @property
    def failed(self) -> list[str]: return [name for name, *_, verdict in self.rows if verdict == "FAIL"]

    @property
    def missing(self) -> list[str]: return [name for name, *_, verdict in self.rows if verdict == "absent"]

    def print(self) -> None:
        print(machine())
        width = min(100, max(len(name) for name, *_ in self.rows))
        print(f"{'check':<{width}}  {'error':>10}  {'tolerance':>10}  verdict")
        for name, error, tolerance, verdict in self.rows: print(f"{name:<{width}}  {error:>10.2e}  {tolerance:>10.1e}  {verdict}")
        absent = sum(verdict == "absent" for *_, verdict in self.rows)
        print(f"{len(self.rows) - absent} checks, {len(self.failed)} failed" + (f", {absent} groups absent" if absent else ""))
