"""Golden checks of S4M's label shares: Cityscapes' polygons, published lists, split tools, unlabelled lists, repeat factors.

`python -m tests.parity.s4m_shares FOLDER` runs these alone; `tests.parity.s4m` calls `check`. Names, counts and cases come from the files.
"""
from __future__ import annotations

import hashlib
import json
import re
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sam_nb.core import SamNbError
from sam_nb.datasets.cityscapes import CityscapesMasks, visible_outlines
from sam_nb.datasets.label_shares import draw_share, link_share, share_count, share_label, share_of_coco
from sam_nb.datasets.object_masks import Entry, RunLengths
from sam_nb.datasets.unlabelled import base_name, pictures_below, read_names, unlabelled_json
from sam_nb.instance_metrics import CITYSCAPES_IDS
from sam_nb.training.loader import repeat_factors, repeated_order
from tests.parity.checks import Checks, Stored, alone, facts, stored


def check(folder: Path, checks: Checks) -> None:
    "The Cityscapes part of `transforms`, the sampler part of `schedules`, and the published tools and lists."
    parts = {"transforms.json": polygons, "schedules.json": repeats, "cityscapes_tools/expected.json": city_tools,
             "coco_tools/expected.json": coco_tools, "cityscapes_lists.json": published_lists}
    for name, function in parts.items():
        if (folder / name).is_file(): checks.group(f"shares {name}", partial(function, folder, facts(folder / name), checks))
        else: checks.absent(f"shares {function.__name__}", name)


def polygons(folder: Path, said: Stored, checks: Checks) -> None:
    "Polygons of Cityscapes -> visible outlines -> masks."
    city, golden = said["city_json"], said["city_annotations"]
    size = (city["imgHeight"], city["imgWidth"])
    found, wrong = visible_outlines(city["objects"], size)
    ids = list(CITYSCAPES_IDS.values())
    checks.equal("polygons: none is left out", wrong, [])
    checks.equal("polygons: label ids in order", [ids[t.category] for t in found], [a["category_id"] for a in golden])
    checks.equal("polygons: groups", [t.crowd for t in found], [a["iscrowd"] for a in golden])
    checks.equal("polygons: pieces", [len(t.rings) for t in found], [a["n_rings"] for a in golden])
    for k, (t, a) in enumerate(zip(found, golden, strict=False)):
        corners = torch.tensor(np.concatenate([np.reshape(r, (-1, 2)) for r in t.rings]))
        checks.close(f"polygons: box of {k}", torch.cat([corners.amin(0), corners.amax(0)]), torch.tensor(a["bbox"], dtype=torch.float64), 1e-9)
        if "ring0" in a: checks.add(f"polygons: area between first outlines of {k}", min(_apart(r, a["ring0"]) for r in t.rings), 1e-6)
    columns = [[getattr(t, name) for t in found] for name in ("number", "category", "crowd")]
    masks = CityscapesMasks(RunLengths([t.rings for t in found], size), *columns, None)
    bits = stored(folder / "transforms.safetensors")["city_masks_bits"]
    checks.equal("polygons: masks", masks[:], torch.from_numpy(np.unpackbits(bits.numpy(), axis=-1)[..., :size[1]].copy()).bool())


def _apart(ours: list[float], theirs: list[float]) -> float:
    from shapely import Polygon
    return Polygon(np.reshape(ours, (-1, 2))).symmetric_difference(Polygon(np.reshape(theirs, (-1, 2)))).area


def repeats(folder: Path, said: Stored, checks: Checks) -> None:
    "Repeat factors, and the first indices that a seeded sampler draws; `threshold10` and `threshold_half` name their thresholds."
    golden = said["repeat_factor"]
    factors = {}
    for name in (n for n in golden if n.startswith("threshold")):
        threshold = 0.5 if name == "threshold_half" else float(name.removeprefix("threshold").lstrip("_").replace("_", "."))
        factors[name] = repeat_factors(golden["images"], threshold)
        checks.equal(f"repeat factors: {name}", factors[name].tolist(), torch.tensor(golden[name], dtype=torch.float32).tolist())
    for name in (n for n in golden if re.fullmatch(r"first\d+_indices_seed\d+", n)):
        count, seed = map(int, re.findall(r"\d+", name))
        generator, order = torch.Generator().manual_seed(seed), []
        chosen = factors.get("threshold10", next(iter(factors.values())))
        while len(order) < count: order += repeated_order(chosen, generator)
        checks.equal(f"repeat factors: {name}", order[:count], list(golden[name]))


def city_tools(folder: Path, said: Stored, checks: Checks) -> None:
    "A published list -> folders of links, and the unlabelled list of all training images."
    here = folder / "cityscapes_tools"
    splits = [n for n in said if n.startswith("train_")]
    for split in splits:
        file = here / "splits" / f"perc_{split.removeprefix('train_')}.txt"
        if not file.is_file():
            checks.absent(f"city tools: {split}", file.name)
            continue
        names = {base_name(n) for n in read_names(file)}
        if len(splits) == 1: checks.equal(f"city tools: names of {file.name}", sorted(names), sorted(said["kept"]))
        with tempfile.TemporaryDirectory() as out:
            checks.equal(f"city tools: links of {split}", sorted(link_share(here / "in", names, split, out)), sorted(said[split]))
    entries = [Entry(base_name(f), f, None) for f in pictures_below(here / "in" / "leftImg8bit" / "train")]
    checks.equal("city tools: unlabelled pictures", sorted(Path(e.image).name for e in entries), sorted(said["unlabelled_links"]))
    checks.equal("city tools: unlabelled list", _ordered(unlabelled_json(entries)), _ordered(said["unlabelled"]))


def _ordered(listed: dict[str, Any]) -> dict[str, Any]:
    return {**listed, "images": sorted(map(dict, listed["images"]), key=lambda i: i["id"]),
            "annotations": sorted(map(dict, listed["annotations"]), key=lambda a: a["image_id"])}


def coco_tools(folder: Path, said: Stored, checks: Checks) -> None:
    "Shares of a COCO file: names, counts, images without annotations of others (the draw has no seed); the unlabelled list."
    here = folder / "coco_tools"
    for file in sorted((here / "annotations").glob("*.json")):
        data = json.loads(file.read_text())
        for name, golden in said["split_files"].items():
            if not name.startswith(f"{file.stem}_"): continue
            label = name.removeprefix(f"{file.stem}_").removesuffix(".json")
            share = float(label) if float(label) <= 100 else 100 / float(label)
            checks.equal(f"coco tools: name of {name}", share_label(share), label)
            try: count = share_count(share, len(data["images"]))
            except SamNbError: count = 0  # refused here, an empty file there
            checks.equal(f"coco tools: images of {name}", count, golden["images"])
            kept = draw_share(len(data["images"]), count, seed=0)
            part = share_of_coco(data, {base_name(data["images"][k]["file_name"]) for k in kept})
            ids = {i["id"] for i in part["images"]}
            own = [a for a in data["annotations"] if a["image_id"] in ids]
            checks.equal(f"coco tools: content of {name}", (len(ids), sorted(part), part["annotations"] == own),
                         (count, sorted(golden["keys"]), golden["annotations_match"]))
    entries = [Entry(base_name(f), f, None) for f in pictures_below(here / "coco_unlabel" / "images")]
    checks.equal("coco tools: unlabelled list", _ordered(unlabelled_json(entries)), _ordered(said["unlabelled"]))


def published_lists(folder: Path, said: Stored, checks: Checks) -> None:
    "The published lists, where they are in the folder (found by their SHA-256)."
    for name, golden in said.items():
        found = next((f for f in sorted(folder.rglob(name)) if hashlib.sha256(f.read_bytes()).hexdigest() == golden["sha256"]), None)
        if found is None:
            checks.absent(f"lists: {name}", f"a file of SHA-256 {golden['sha256'][:8]}...")
            continue
        names = read_names(found)
        cities = {base_name(n).partition("_")[0] for n in names}
        ours = [len(names), len(set(names)), names[0], names[-1], len(cities)]
        checks.equal(f"lists: {name}", ours, [golden[k] for k in ("lines", "unique", "first", "last", "cities")])


if __name__ == "__main__": sys.exit(alone(check))
