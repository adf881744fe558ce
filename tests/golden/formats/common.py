"""What the scripts beside this file share: one picture, run lengths, and the file of expected masks."""
import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (120, 160)  # height, width
HERE = Path(__file__).parent


def picture(path: Path) -> None:
    "A smooth picture of a kilobyte."
    y, x = np.mgrid[:SIZE[0], :SIZE[1]]
    pixels = np.stack([x, y * 2, (x + y) // 2], -1).clip(0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=40)


def runs(mask: np.ndarray) -> list[int]:
    "Lengths of alternating runs of 0 and 1, row by row, beginning with 0."
    flat = np.concatenate([[0], np.asarray(mask, bool).ravel().astype(np.int8), [0]])
    ends = np.append(np.flatnonzero(np.diff(flat)), mask.size)
    return np.diff(ends, prepend=0).tolist()


def write_expected(folder: Path, tool: str, objects: list[tuple[str, np.ndarray]], **more) -> None:
    "Name, area and run lengths of each mask that the tool drew."
    listed = [{"label": label, "area": int(np.asarray(mask, bool).sum()), "runs": runs(mask)} for label, mask in objects]
    (folder / "expected.json").write_text(json.dumps({"tool": tool, "size": SIZE, "objects": listed, **more}) + "\n")
    for o in listed: print(o["label"], o["area"])
