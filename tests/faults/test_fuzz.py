"""Some mutated files of every format are read or refused, as in `python -m tests.faults.fuzz`, and so are files that once were neither."""
from __future__ import annotations

import pytest

from tests.faults import fuzz

FILES = 5  # of each format; thousands by hand
FOUND: dict[str, tuple[int, ...]] = {  # numbers of files that raised something else, took too long, or too much memory: one of each kind
    "coco panoptic": (240,),
    "refs json": (60, 62, 170, 238),
    "dataset.json": (63, 119),
    "dataset.yaml": (3, 78, 146, 182),
    "run.json": (8, 21, 42, 120, 234),
    "metrics.jsonl": (1, 12, 14, 15, 42, 49, 53, 60),
    "pth": (3, 7, 63, 86, 120, 210, 224),
    "pth before 1.6": (42, 132),
    "yolo": (116, 178),
    "cvat": (35,),
    "saom": (14, 34, 57, 210),
    "dior": (97, 171, 185),
    "counts": (24,),
    "rsvg": (171,),
    "captions": (36, 58),
    "tiff strips": (197,),
    "tiff tiles": (33, 79, 99),
    "tiff float": (20,),
    "tiff big": (2, 5, 41, 106, 134),
    "png palette": (9,),
    "gif": (4,),
    "bmp": (246,),
    "npy": (4,),
    "label studio": (126,)}


@pytest.fixture(scope="module", autouse=True)
def imported(): fuzz.warm()


@pytest.mark.parametrize("name", fuzz.FORMATS)
def test_mutated_files(name):
    numbers = sorted({*range(FILES), *FOUND.get(name, ())})
    tally = fuzz.fuzz(name, numbers)
    assert not tally.found and sum(tally.counts.values()) == len(numbers), tally.found
