"""Golden checks of RemoteSAM's data: what the published task datasets list for the folders beside `expected.json`.

`python -m tests.parity.remotesam_data FOLDER` runs these alone; `tests.parity.remotesam` calls `check`. Names, sizes and counts come from the files.
"""
from __future__ import annotations

import contextlib
import io
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from sam_nb.captions import caption_detections, read_detections
from sam_nb.datasets.earth_boxes import read_counts, read_dior, read_dota, read_rsvg
from sam_nb.datasets.earth_files import coco_detections
from sam_nb.datasets.earth_labels import longest_stem, read_captions, read_cover, read_scenes
from sam_nb.datasets.earth_samples import images_in
from sam_nb.datasets.referring import load_referring
from sam_nb.encoders.sentences import read_vocabulary, word_pieces
from sam_nb.label_metrics import count_boxes, counting_scores
from sam_nb.testing import samples
from tests.parity.checks import Checks, alone

SCENES = {"UCM": "UCMerced_LandUse", "AID": "AID"}


def check(folder: Path, checks: Checks) -> None:
    "Every entry of the folder's `expected.json`; what is absent, or not known here, is reported as such."
    file = folder / "expected.json"
    if not file.is_file(): return checks.absent("data", "expected.json")
    for name, theirs in json.loads(file.read_text()).items():
        found = next(((needed, function) for start, needed, function in READERS if name.startswith(start)), None)
        if found is None: checks.absent(name, "a check of this entry")
        elif not (folder / found[0](name)).exists(): checks.absent(name, found[0](name))
        else: checks.group(name, partial(found[1], checks, folder, name, theirs))


def same(checks: Checks, name: str, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    for key in ours: checks.equal(f"{name} {key}", ours[key], theirs[key])


# --- boxes -----------------------------------------------------------------------------------------------------------------------

def dior(checks: Checks, folder: Path, name: str, theirs: dict[str, Any]) -> None:
    data, label = read_dior(folder / "DIORcoco"), name.rpartition(".")[2]
    same(checks, name, {"order": [s.name for s in data], "ids": {s.name: s.number for s in data}, "class_index": 1 + data.classes.index(label),
                        "boxes": {s.name: [list(o.box) for o in s.of(label)] for s in data}}, theirs)


def dota(checks: Checks, folder: Path, name: str, theirs: dict[str, Any]) -> None:
    label = name.rpartition(".")[2]
    data = read_dota(folder / "DOTAv2_patches", "test" if label == "test_has_no_labels" else "val")
    quads = {s.name: np.array([o.quad for o in s.objects if label in (o.label, "test_has_no_labels")], float).ravel().tolist() for s in data}
    same(checks, name, {"order": [s.name for s in data], "polygons": quads},
         {**theirs, "polygons": {k: np.array(v, float).ravel().tolist() for k, v in theirs["polygons"].items()}})


def labels(checks: Checks, folder: Path, name: str, theirs: dict[str, Any]) -> None:
    data = read_dior(folder / "DIORcoco") if name == "MLC.DIOR" else read_dota(folder / "DOTAv2_patches", "val")
    same(checks, name, {"order": [s.name for s in data], "labels": {s.name: s.present(data.classes) for s in data}, "classes": list(data.classes)}, theirs)


def detections(checks: Checks, folder: Path, name: str, theirs: dict[str, Any]) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    data = read_dior(folder / "DIORcoco")
    with contextlib.redirect_stdout(io.StringIO()): truth = COCO(str(next((folder / "DIORcoco/Annotations").glob("*.json"))))
    for label, said in theirs["classes"].items():
        number = 1 + data.classes.index(label)
        rows = coco_detections(data, number, [(d["image"], d["box"]) for d in said["detections"]])
        with contextlib.redirect_stdout(io.StringIO()):
            scores = COCOeval(truth, truth.loadRes(rows), "bbox")  # which adds area, segmentation, id
            scores.params.catIds = [number]
            scores.evaluate(); scores.accumulate(); scores.summarize()
        checks.equal(f"{name} {label} rows", rows, said["rows"])
        checks.add(f"{name} {label} stats", np.abs(scores.stats - said["stats"]).max(), 1e-12)


# --- counts, sentences -------------------------------------------------------------------------------------------------------------

def counts(checks: Checks, folder: Path, name: str, theirs: dict[str, Any]) -> None:
    data = read_counts(folder / "Counting", name=name.rpartition(".")[2])
    same(checks, name, {"images": [s.name for s in data], "classes": [s.label for s in data], "counts": [s.count for s in data],
                        "prior_area": [s.prior_area for s in data]}, theirs)


def count_rule(checks: Checks, folder: Path, name: str, theirs: dict[str, Any]) -> None:
    ours = [count_boxes(case["boxes"], case["prior"]) for case in theirs["cases"]]
    checks.equal(f"{name} counts", ours, [case["count"] for case in theirs["cases"]])
    checks.number(f"{name} accuracy", counting_scores(ours, [case["truth"] for case in theirs["cases"]])["exact"], theirs["accuracy"], 1e-12)


def grounding(checks: Checks, folder: Path, name: str, theirs: dict[str, Any]) -> None:
    data = read_rsvg(folder / "RSVG", name.rpartition(".")[2])
    same(checks, name, {"images": [s.name for s in data], "boxes": [list(s.box) for s in data], "sentences": [s.sentence for s in data]}, theirs)


def refer(checks: Checks, folder: Path, name: str, theirs: dict[str, Any]) -> None:
    folder, masks = folder / "RemoteSAM-270K", np.load(folder / "RemoteSAM-270K/masks.npz")
    for split, rows in theirs.items():
        data = load_referring(folder, split, faithful=True)
        ours = [(t.number, Path(e.image).stem, t.expression, coco.decode(t.runs)) for e in data.entries for t in e.truth]
        order = sorted(range(len(rows)), key=lambda k: Path(rows[k]["image"]).stem)  # the published list is by reference, ours by image
        golden = [(rows[k]["ann_id"], Path(rows[k]["image"]).stem, rows[k]["sentence"], masks[f"{split}.{k}.mask"]) for k in order]
        checks.equal(f"{name} {split} rows", [o[:3] for o in sorted(ours, key=lambda o: o[1])], [g[:3] for g in golden])
        for o, g in zip(sorted(ours, key=lambda o: o[1]), golden, strict=True): checks.equal(f"{name} {split} mask of {o[0]}", o[3].tolist(), g[3].tolist())
        checks.equal(f"{name} {split} sizes", [[*o[3].T.shape, int(o[3].sum())] for o in sorted(ours, key=lambda o: o[1])],
                     [[*rows[k]["size"], rows[k]["foreground"]] for k in order])
        tokens(checks, f"{name} {split} word pieces", rows)


def tokens(checks: Checks, name: str, rows: list[dict[str, Any]]) -> None:
    vocabulary = samples("text/bert_base_uncased")
    if vocabulary is None: return checks.absent(name, "BERT's vocabulary")
    ours = word_pieces(read_vocabulary(vocabulary))([r["sentence"] for r in rows], padding="max_length", truncation=False, max_length=20)
    checks.equal(name, [[i[:20] for i in ours["input_ids"]], [m[:20] for m in ours["attention_mask"]]], [[r[k] for r in rows] for k in ("input_ids", "attention_mask")])


# --- whole images ------------------------------------------------------------------------------------------------------------------

def scenes(checks: Checks, folder: Path, name: str, theirs: dict[str, Any]) -> None:
    which = name.rpartition(".")[2]
    data = read_scenes(folder / SCENES[which], name=which)
    same(checks, name, {"labels": {s.name: data.classes.index(s.label) for s in data}, "classes": list(data.classes)}, theirs)


def captions(checks: Checks, folder: Path, name: str, theirs: dict[str, Any]) -> None:
    data = read_captions(folder / "UCM_captions")
    same(checks, name, {"order": [s.name for s in data], "captions": {s.name: list(s.captions) for s in data}, "ids": {s.name: s.number for s in data},
                        "classes": list(data.classes)}, theirs)


def stored_detections(checks: Checks, folder: Path, name: str, theirs: dict[str, Any]) -> None:
    folder = folder / "caption_from_detections"
    checks.equal(f"{name} files", sorted(f.name for f in (folder / "detections").glob("*.json")), theirs["listing"])
    images = json.loads((folder / "gt.json").read_text())["images"]
    ours = caption_detections(images, read_detections(folder / "detections"), regions=theirs["region_count"], seed=theirs["seed"])
    checks.equal(f"{name} captions", ours, theirs["captions"])


def isaid(checks: Checks, folder: Path, name: str, theirs: dict[str, Any]) -> None:
    (sample, *_), images = (data := read_cover(folder / "iSAID", form="isaid")), images_in(folder / "iSAID/images")
    checks.equal(f"{name} colours", {c: list(rgb) for c, rgb in zip(data.classes, sample.colours, strict=True)}, theirs["colours"])
    checks.equal(f"{name} ids", sample.ids().tolist(), np.load(folder / theirs["ids"]).tolist())
    checks.equal(f"{name} image of label", Path(sample.file).stem, longest_stem(Path(sample.label_file).stem[:5], images))


def fixed(path: str): return lambda name: path


READERS = [("DET.DIOR.scores", fixed("DIORcoco"), detections), ("DET.DIOR.", fixed("DIORcoco"), dior), ("DET.DOTAv2.", fixed("DOTAv2_patches"), dota),
           ("MLC.DIOR", fixed("DIORcoco"), labels), ("MLC.DOTAv2", fixed("DOTAv2_patches"), labels), ("CNT.rule", fixed("."), count_rule),
           ("CNT.", lambda name: f"Counting/test/{name.rpartition('.')[2]}", counts), ("VG.RSVG.", fixed("RSVG"), grounding),
           ("MCC.", lambda name: SCENES[name.rpartition(".")[2]], scenes), ("CAP.UCM", fixed("UCM_captions"), captions),
           ("CAP.from_detections", fixed("caption_from_detections"), stored_detections),
           ("SEG.iSAID", fixed("iSAID"), isaid), ("REFER.", fixed("RemoteSAM-270K"), refer)]


if __name__ == "__main__": sys.exit(alone(check))
