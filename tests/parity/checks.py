"One row a check: what, how far off, how far allowed."
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Checks:
    "Collects checks; a check that raises is a failure, a check whose golden is absent is listed as absent."
    rows: list[tuple[str, float, float, str]] = field(default_factory=list)

    def add(self, name: str, error: float, tolerance: float) -> None:
        self.rows.append((name, float(error), tolerance, "ok" if error <= tolerance else "FAIL"))

    def equal(self, name: str, ours: Any, theirs: Any) -> None:
        same = torch.equal(ours, theirs) if isinstance(ours, Tensor) else ours == theirs
        self.add(name, 0.0 if same else 1.0, 0.0)

    def close(self, name: str, ours: Tensor, theirs: Tensor, tolerance: float, relative: bool = True) -> None:
        "Largest difference (relative to the golden's largest value, unless `relative` is False)."
        if tuple(ours.shape) != tuple(theirs.shape): return self.rows.append((f"{name}: shape {tuple(ours.shape)}, golden {tuple(theirs.shape)}", float("inf"), tolerance, "FAIL"))
        ours, theirs = ours.detach().double(), theirs.double()
        scale = theirs.abs().max().clamp_min(1e-30) if relative else 1.0
        difference = (ours - theirs).abs().max() / scale if ours.numel() else torch.zeros(())
        self.add(name, float("inf") if difference.isnan() else difference.item(), tolerance)

    def number(self, name: str, ours: float, theirs: float, rtol: float) -> None:
        self.add(name, abs(float(ours) - float(theirs)) / max(abs(float(theirs)), 1e-30), rtol)

    def group(self, name: str, function: Callable[[], None]) -> None:
        "Run a group of checks; whatever it raises is a failure of its own."
        try: function()
        except KeyError as error: self.rows.append((f"{name}: golden {error} is absent", float("nan"), 0.0, "FAIL"))
        except Exception as error: self.rows.append((f"{name}: {type(error).__name__}: {error}", float("inf"), 0.0, "FAIL"))

    def absent(self, name: str, what: str) -> None: self.rows.append((f"{name}: {what} is not in this folder", float("nan"), 0.0, "absent"))

    @property
    def failed(self) -> list[str]: return [name for name, *_, verdict in self.rows if verdict == "FAIL"]

    def print(self) -> None:
        width = min(100, max(len(name) for name, *_ in self.rows))
        print(f"{'check':<{width}}  {'error':>10}  {'tolerance':>10}  verdict")
        for name, error, tolerance, verdict in self.rows: print(f"{name:<{width}}  {error:>10.2e}  {tolerance:>10.1e}  {verdict}")
        absent = sum(verdict == "absent" for *_, verdict in self.rows)
        print(f"{len(self.rows) - absent} checks, {len(self.failed)} failed" + (f", {absent} groups absent" if absent else ""))
