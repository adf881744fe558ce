"""Golden checks of RemoteSAM's conversions and eight tasks. Names, sizes, thresholds and seeds come from the files.

`python -m tests.parity.remotesam_tasks FOLDER` runs these alone; `tests.parity.remotesam` calls `check`.
"""
from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from sam_nb.boxes import boxes_inside, boxes_of_mask, suppress
from sam_nb.captions import caption_boxes, cider, ptb_tokens
from sam_nb.datasets.transforms import Normalise, ResizeSquare
from sam_nb.earth_tasks import EarthTasks
from sam_nb.encoders.contours import contour_tiles, load_contour_model, rim_weights
from sam_nb.label_metrics import grounding_iou, merge_masks, multi_class_scores, multi_label_scores
from sam_nb.metrics import ReferringScores, SemanticScores
from tests.parity.checks import Checks, alone

FILES = {"boxes": "boxes.json", "captions": "captions.json", "CIDEr": "cider.json", "CIDEr, more": "cider_more.json", "metrics": "metrics.json",
         "contours": "contour/contour.json", "tasks": "tasks.json"}


def check(folder: Path, checks: Checks) -> None:
    "Add every check of this module (once: what needs float64 is computed in it); a file that is absent is listed as absent."
    functions = {"boxes": boxes, "captions": captions, "CIDEr": cider_few, "CIDEr, more": cider_more, "metrics": metrics, "contours": contours,
                 "tasks": tasks}
    for name, file in FILES.items():
        if (folder / file).exists(): checks.group(name, lambda name=name: functions[name](checks, folder))
        else: checks.absent(name, file)


def read(folder: Path, name: str) -> Any: return json.loads((folder / name).read_text())
def floats(values: list) -> torch.Tensor: return torch.tensor(values, dtype=torch.float64)


# --- boxes -----------------------------------------------------------------------------------------------------------------------

def by_score(rows: list[list[float]], width: int) -> np.ndarray:
    "Rows as an array, sorted by score and then by box; corners of oriented boxes sorted."
    array = np.array(rows, np.float64).reshape(-1, width + 1)
    if width == 8:
        for row in array: row[:8] = np.array(sorted(map(tuple, row[:8].reshape(4, 2)))).ravel()
    return array[np.lexsort((*array.T[:-1], array[:, -1].round(5)))]


def same_set(checks: Checks, name: str, ours: list, theirs: list | None, pixels: float = 0.0, width: int = 4) -> None:
    ours, theirs = by_score(ours or [], width), by_score(theirs or [], width)
    if len(ours) != len(theirs): return checks.equal(f"{name}: number of boxes, {len(ours)} for {len(theirs)}", len(ours), len(theirs))
    checks.close(f"{name}: corners", torch.from_numpy(ours[:, :-1]), torch.from_numpy(theirs[:, :-1]), pixels, relative=False)
    checks.close(f"{name}: confidence", torch.from_numpy(ours[:, -1]), torch.from_numpy(theirs[:, -1]), 1e-6, relative=False)


def boxes(checks: Checks, folder: Path) -> None:
    facts, arrays = read(folder, "boxes.json"), np.load(folder / "boxes.npz")
    for k, case in enumerate(facts["cases"]):
        mask, chance, contour = (torch.from_numpy(arrays[f"{k}.{n}"]) for n in ("mask", "prob", "contour"))
        mask, refined = mask.bool(), mask.bool() & ~contour.bool()
        for name, theirs in case.items():
            if name == "detect_with_epoc":
                found = suppress(boxes_of_mask(mask, chance, refined, keep_one=False))
                same_set(checks, f"{k}, {name}", found.rows(), theirs)
                continue
            kind, epoc, inner = name.split(".")
            oriented = kind == "obb"
            found = boxes_of_mask(mask, chance, refined if epoc == "epoc1" else None, oriented, inner == "remove_inner0", False, False)
            same_set(checks, f"{k}, {name}", found.rows(), theirs, float(oriented), 8 if oriented else 4)
    pairs = facts["box1_in_box2"]
    checks.equal(f"{len(pairs)} pairs of boxes, one in the other", [boxes_inside(*(torch.tensor([p[n][:4]]) for n in ("box1", "box2"))).item() for p in pairs],
                 [p["inside"] for p in pairs])
    for name in arrays.files:
        if not name.startswith("boundary_zero_padding_ones_"): continue
        height, rest = name.removeprefix("boundary_zero_padding_ones_").split("x")
        width, overlap = rest.split("_p")
        checks.close(f"weights of a tile {name[-9:]}", rim_weights((int(height), int(width)), int(overlap)), torch.from_numpy(arrays[name]), 1e-6)


# --- captions --------------------------------------------------------------------------------------------------------------------

def captions(checks: Checks, folder: Path) -> None:
    for case in read(folder, "captions.json"):
        ours = caption_boxes(case["pred"], tuple(case["shape"]), case["region_count"], case["seed"])
        checks.equal(f"caption, {case['region_count']} regions, seed {case['seed']}", ours, case["caption"])


def tokens(checks: Checks, facts: dict) -> None:
    for kind in ("references", "candidates"):
        for key, texts in facts[kind].items():
            texts = [texts] if isinstance(texts, str) else texts
            checks.equal(f"tokens of {kind} {key}", [" ".join(ptb_tokens(t)) for t in texts], facts[f"tokenised_{kind}"][key])


def scores(checks: Checks, facts: dict, each: list[float], mean: float) -> None:
    ours = cider(facts["candidates"], facts["references"])
    checks.close("CIDEr of each image", floats(list(ours.each.values())), floats(each), 1e-9, relative=False)
    checks.add("CIDEr", abs(ours.mean - mean), 1e-9)


def cider_few(checks: Checks, folder: Path) -> None:
    facts = read(folder, "cider.json")
    tokens(checks, facts)
    scores(checks, facts, facts["cider_per_image"], facts["cider"])


def cider_more(checks: Checks, folder: Path) -> None:
    facts = read(folder, "cider_more.json")
    for sentence, theirs in zip(facts["sentences"], facts["tokens"], strict=True): checks.equal(f"tokens of {sentence!r}", " ".join(ptb_tokens(sentence)), theirs)
    tokens(checks, facts)
    scores(checks, facts, facts["cider"], facts["mean"])
    key = next(iter(facts["candidates"]))
    if "one_image" in facts: checks.add("CIDEr of one image", abs(cider({key: facts["candidates"][key]}, facts["references"]).mean - facts["one_image"]), 1e-9)


# --- metrics ---------------------------------------------------------------------------------------------------------------------

def metrics(checks: Checks, folder: Path) -> None:
    facts = read(folder, "metrics.json")
    for name, function in {"referring": referring, "segmentation": segmentation, "grounding": grounding, "multi_class": multi_class, "multi_label": multi_label}.items():
        if name in facts: checks.group(f"metrics, {name}", lambda name=name, function=function: function(checks, facts[name], folder))


def referring(checks: Checks, facts: dict, folder: Path) -> None:
    arrays, metric = np.load(folder / "metrics.npz"), ReferringScores(strict=False)
    metric.update(*(torch.from_numpy(arrays[k]).bool() for k in ("ref_pred", "ref_gt")))
    ours = metric.compute()
    checks.equal("shared pixels and unions", torch.stack([torch.cat(metric.intersection), torch.cat(metric.union)], 1).tolist(), facts["inter_union"])
    checks.close("IoU of each sample", ours["iou"] / 100, floats(facts["train_loop_iou"]), 1e-9, relative=False)
    lines = [f"Mean IoU is {ours['miou']:.2f}", f"overall IoU = {ours['oiou']:.2f}", *(f"precision@0.{x} = {ours[f'p{x}0']:.2f}" for x in range(5, 10))]
    for line in lines: checks.equal(f"printed: {line}", line in facts["printed"], True)


def segmentation(checks: Checks, facts: dict, folder: Path) -> None:
    metric = SemanticScores(facts["num_classes"])
    metric.update(*(torch.tensor(facts[k]) for k in ("pred", "label")))
    ours = metric.compute()
    checks.equal("confusion of pixels", ours["confusion"].tolist(), facts["hist"])
    for name, own in (("iou", "iou"), ("pa", "acc")): checks.close(f"{name} of each class", ours[own] / 100, floats(facts[name]), 1e-9, relative=False)
    width = len(facts["merged"][0])
    masks = np.unpackbits(np.array(facts["binary_masks_by_class"], np.uint8), axis=2)[:, :, :width]
    checks.equal("masks merged by class number", merge_masks(masks).tolist(), facts["merged"])


def grounding(checks: Checks, facts: list, folder: Path) -> None:
    for k, case in enumerate(facts): checks.add(f"overlap of boxes {k}", abs(grounding_iou(case["pred"], case["gt"]) - case["iou"]), 1e-9)


def label_figures(checks: Checks, name: str, ours: dict, by_class: dict, facts: dict) -> None:
    for group, own in (("precision", "precision"), ("recall", "recall"), ("f1", "F1")):
        for title, value in facts[group].items():
            kind = title.split()[-1].lower()
            found = by_class[own] if kind == "class" else ours[f"{own} {kind}"]
            checks.add(f"{name}: {title}", float(np.abs(np.asarray(found) / 100 - np.asarray(value)).max()), 1e-9)


def multi_class(checks: Checks, facts: dict, folder: Path) -> None:
    ours, by_class, confusion = multi_class_scores(facts["true"], facts["prob"])
    label_figures(checks, "one class", ours, by_class, facts)
    checks.equal("one class: confusion", confusion.tolist(), facts["confusion"])
    checks.add("one class: accuracy", abs(ours["accuracy"] / 100 - facts["accuracy"]["Accuracy"]), 1e-9)
    checks.add("one class: IoU", float(np.abs(by_class["IoU"] / 100 - facts["iou"]["IOU"]).max()), 1e-9)
    checks.add("one class: mean IoU", abs(ours["IoU macro"] / 100 - facts["iou"]["mIOU"]), 1e-9)


def multi_label(checks: Checks, facts: dict, folder: Path) -> None:
    ours, by_class = multi_label_scores(facts["true"], facts["prob"], facts["pred"])
    label_figures(checks, "labels", ours, by_class, facts)
    pairs = {"mAP": (ours["mAP"], facts["mAP"]["mAP"]), "accuracy": (ours["accuracy"], facts["accuracy"]["Accuracy"]),
             "accuracy of each": (by_class["accuracy"], facts["accuracy"]["Accuracy per Class"]), "IoU": (ours["IoU micro"], facts["iou"]["IOU"]),
             "mean IoU": (ours["IoU macro"], facts["iou"]["IOU mean"]), "IoU of each": (by_class["IoU"], facts["iou"]["IOU per Class"])}
    for name, (own, theirs) in pairs.items(): checks.add(f"labels: {name}", float(np.abs(np.asarray(own) / 100 - np.asarray(theirs)).max()), 1e-9)


# --- contours --------------------------------------------------------------------------------------------------------------------

def contours(checks: Checks, folder: Path) -> None:
    facts, arrays = read(folder, "contour/contour.json"), np.load(folder / "contour/contour.npz")
    image = Image.open(folder / "contour/image.png")
    vectors = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    allowed = 1e-6 if vectors else 2e-3  # without them torch resizes uint8 by another routine, a grey level off in places
    for name, theirs in facts["crop_boxes"].items():
        level, overlap = map(int, name.split("_"))
        checks.equal(f"tiles {name}", sorted(map(list, contour_tiles(tuple(facts["image"]), level, overlap))), sorted(theirs))
    for name in arrays.files:
        options = {}
        if name.startswith("pyramid"): options = dict(zip(("levels", "overlap"), map(int, name.removeprefix("pyramid").split("_overlap")), strict=True))
        model = load_contour_model(folder / "contour/model", "cpu", **options)
        ours, theirs = model(image), torch.from_numpy(arrays[name])
        checks.close(f"contours, {name}", ours, theirs, allowed, relative=False)
        again = model(image)
        checks.equal(f"contours, {name}: once an image", again is ours, True)
        for threshold, share in facts.get("share_above", {}).get(name, {}).items():
            checks.add(f"contours, {name}: share above {threshold}", abs((ours > float(threshold)).double().mean().item() - share), allowed)


# --- the eight tasks -------------------------------------------------------------------------------------------------------------

class InDouble:
    "A referring model in float64."
    def __init__(self, model: Any):
        self.model, self.image_size, self.device, self.calls = model.double().eval(), model.image_size, torch.device("cpu"), 0

    def read(self, sentences: list[str]) -> Any: return self.model.read(sentences)
    def encode(self, images: torch.Tensor) -> Any: return self.model.encode(images.double())

    def answer(self, features: Any, words: Any) -> Any:
        self.calls += 1
        return self.model.answer(features, words)

    def embed(self, image: np.ndarray) -> Any:
        size, pixels = image.shape[:2], torch.from_numpy(image.copy()).permute(2, 0, 1)
        ready = ResizeSquare(self.image_size, Normalise(), by_pillow=True)({"image": pixels, "original_size": size, "content_size": size})
        return SimpleNamespace(features=self.encode(ready["image"][None]))


def tiny_network(folder: Path, shift: float, vocabulary: list[str]) -> InDouble:
    "The golden's tiny network, with its foreground bias shifted."
    from sam_nb.methods.remotesam import RemoteSAM
    from sam_nb.methods.remotesam_weights import load_released
    config = read(folder, "model_tiny.json")["config"]
    swin = dict(embed_dim=config["embed_dim"], depths=config["depths"], heads=config["num_heads"], window=config["window_size"])
    model = RemoteSAM(backbone=swin, image_size=config["img_size"], text=config["text"], word_heads=config["mha"], drop_path=0.0)
    load_released(model, {k.removeprefix("sd."): v for k, v in load_file(folder / "model_tiny.safetensors").items() if k.startswith("sd.")})
    model.set_vocabulary(vocabulary)
    model.double()
    with torch.no_grad(): model.classifier.conv1_1.bias[1] += shift
    return InDouble(model)


def tasks(checks: Checks, folder: Path) -> None:
    if not (folder / "model_tiny.safetensors").exists(): return checks.absent("tasks", "model_tiny.safetensors")
    facts, arrays = read(folder, "tasks.json"), np.load(folder / "tasks.npz")
    network, image, names = tiny_network(folder, facts["foreground_bias_shift"], facts["vocab"]), arrays["image"], facts["classes"]
    plain = EarthTasks(network, released=True)
    ids, real = network.model.reader.tokens([*map(plain.prompt.format, names), facts["sentence"]])
    side = ids.shape[1]
    checks.equal("word pieces", [(i[:side], m[:side]) for i, m in zip(ids.tolist(), real.long().tolist(), strict=True)],
                 [(i[:side], m[:side]) for i, m in zip(facts["input_ids"], facts["attention_mask"], strict=True)])
    masks(checks, plain, facts, arrays)
    cut = EarthTasks(network, lambda image: torch.from_numpy(arrays["contour_prob"]), facts["epoc_threshold"], released=True)
    for title, facade in (("no_epoc", plain), ("epoc", cut)):
        found = facade.detection(image, names)
        for name in names: same_set(checks, f"detection_{title}, {name}", found[name], facts[f"detection_{title}"][name])
        checks.equal(f"counting_{title}", dict(facade.counting(image, names)), facts[f"counting_{title}"])
    answers(checks, plain, image, names, facts)
    background(checks, tiny_network(folder, facts["foreground_bias_shift"] + facts["all_background"]["extra_shift"], facts["vocab"]), image, facts)


def masks(checks: Checks, plain: EarthTasks, facts: dict, arrays: Any) -> None:
    image, width = arrays["image"], arrays["image"].shape[1]
    found, one = plain.semantic_seg(image, facts["classes"], return_prob=True), plain.referring_seg(image, facts["sentence"])
    maps = {f"seg_{{}}.{n}": (found[n], found.probabilities[n]) for n in facts["classes"]} | {"ref_{}": (one.mask, one.probability)}
    for name, (mask, chance) in maps.items():
        theirs = np.unpackbits(arrays[name.format("mask")], axis=1)[:, :width].astype(bool)
        checks.add(f"{name.format('mask')}: pixels that differ", (mask != theirs).sum(), 3)
        stored = arrays[name.format("prob_sub")]
        checks.close(name.format("prob"), torch.from_numpy(chance[::3, ::3].copy()), torch.from_numpy(stored), 1e-5, relative=False)
    checks.add("ref_mask_sum", abs(int(one.mask.sum()) - facts["ref_mask_sum"]), 3)


def answers(checks: Checks, plain: EarthTasks, image: np.ndarray, names: list[str], facts: dict) -> None:
    labels, scene = plain.multi_label_cls(image, names), plain.multi_class_cls(image, names)
    checks.equal("labels", labels.labels, facts["multi_label"]["labels"])
    checks.equal("class", scene.label, facts["multi_class"]["label"])
    for name in names:
        checks.add(f"score of label {name}", abs(labels.scores[name] - facts["multi_label"]["scores"][name]), 1e-6)
        checks.add(f"score of class {name}", abs(scene.scores[name] - facts["multi_class"]["scores"][name]), 1e-6)
    checks.equal("grounding", plain.visual_grounding(image, facts["sentence"]).box, facts["grounding"])
    for name in facts:
        if not name.startswith("caption_"): continue
        _, regions, seed = name.split("_")
        checks.equal(name, str(plain.captioning(image, names, int(regions), int(seed.removeprefix("seed")))), facts[name])


def background(checks: Checks, network: InDouble, image: np.ndarray, facts: dict) -> None:
    known, facade, names = facts["all_background"], EarthTasks(network), facts["classes"]
    ours = {"multi_class": facade.multi_class_cls(image, names).label, "multi_label": facade.multi_label_cls(image, names).labels,
            "detection": dict(facade.detection(image, names)), "counting": dict(facade.counting(image, names)),
            "grounding": facade.visual_grounding(image, facts["sentence"]).box}
    for name, value in ours.items(): checks.equal(f"nothing but background: {name}", value, known[name])
    for name in known:
        if name.startswith("caption_"):
            _, regions, seed = name.split("_")
            checks.equal(f"nothing but background: {name}", str(facade.captioning(image, names, int(regions), int(seed.removeprefix("seed")))), known[name])


if __name__ == "__main__": sys.exit(alone(check))
