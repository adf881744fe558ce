"""What a person does wrong, and what a file holds wrong, is a SamNbError with the fact and what to do: never a raw exception.

One table for each door: recipes in Python, commands and papermill; names and kinds of files; sizes that headers declare; names of
classes; errors of one sample in a loader process.
"""
from __future__ import annotations

import math
from typing import Any

import cv2
import pytest
import torch

from sam_nb.core import DatasetError, ParameterError, SamNbError
from sam_nb.evaluation.plan import EvalRecipe
from sam_nb.methods.promptable_recipe import PromptableRecipe, PromptableSwitches
from sam_nb.methods.remotesam_recipe import RemoteSamRecipe
from sam_nb.methods.rsam_recipe import RsamRecipe
from sam_nb.methods.s4m_recipe import S4mRecipe
from sam_nb.methods.saom_recipe import SaomRecipe
from sam_nb.methods.sartm_recipe import SartmRecipe, sartm_recipe
from sam_nb.recipe import Recipe
from sam_nb.training.loader import AugmentedSamples, StepSampler, batches

RECIPES = (Recipe, SartmRecipe, RsamRecipe, SaomRecipe, RemoteSamRecipe, S4mRecipe, PromptableRecipe)
WRONG: dict[str, tuple[Any, ...]] = {
    "steps": (0, -1, 2**70, 1.5, "many", [3]), "lr": (-1.0, 0.0, math.nan, math.inf, "fast"), "seed": (-1, 2**70, "one"),
    "batch_size": (0, -3, 2**64), "epochs": (0, True), "device": (3, None), "precision": ("fp8",), "milestones": ("half", [math.nan]),
    "workers": (-1,), "stepz": (1,), "x" * 100_000: (1,)}  # each is refused by every recipe


@pytest.mark.parametrize("kind", RECIPES)
def test_a_wrong_value_in_python(kind):
    for name, values in WRONG.items():
        for value in values:
            with pytest.raises(ParameterError) as error: kind(**{name: value})
            said = str(error.value)
            assert name[:80] in said and "to do: " in said and len(said) < 3000, said
            with pytest.raises(ParameterError): kind.model_validate({name: value})
            if name in kind.model_fields:
                with pytest.raises(ParameterError, match=name): setattr(kind(), name, value)


@pytest.mark.parametrize("kind", [k for k in RECIPES if "image_size" in k.model_fields])
def test_a_side_below_one_pixel(kind):
    with pytest.raises(ParameterError, match="image_size=-3"): kind(image_size=-3)


@pytest.mark.parametrize("kind, values", [(EvalRecipe, {"worst": 0}), (EvalRecipe, {"images": 2**64}), (PromptableSwitches, {"clicks": -1})])
def test_other_models_of_parameters(kind, values):
    with pytest.raises(ParameterError, match=f"(?s){next(iter(values))}=.*to do: "): kind(**values)


def test_the_meaning_is_in_the_remedy():
    with pytest.raises(ParameterError, match=r"(?s)steps=0: should be greater than 0.*to do: steps: stop after so many"): sartm_recipe({"steps": 0})


class OneBadSample(torch.utils.data.Dataset):
    name, split = "crops", "train"
    def __init__(self, error): self.error, self.entries = error, [type("Entry", (), {"name": f"field-{k}"}) for k in range(4)]
    def __len__(self): return 4
    def __getitem__(self, index):
        if index == 2: raise self.error
        return {"image": torch.zeros(1), "name": str(index)}


ERRORS = (KeyError("masks"), IndexError("7"), OSError(5, "input/output error"), cv2.error("assertion failed"), ValueError("x" * 10_000), MemoryError(),
          AssertionError(), UnicodeDecodeError("utf-8", b"x", 0, 1, "invalid"), DatasetError("a broken picture", file="f.png", remedy="copy it again"))


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("workers", (0, 1))
def test_an_error_of_a_loader_names_the_sample(error, workers):
    data = AugmentedSamples(OneBadSample(error), None, 0)
    with pytest.raises(SamNbError) as caught: list(batches(data, StepSampler(4, 2, 0, 0, 2), workers))
    said = str(caught.value)
    assert "sample 'field-2' of crops train" in said and "to do: " in said and len(said) < 1000, said
    if isinstance(error, SamNbError): assert (type(caught.value), caught.value.file, caught.value.remedy) == (type(error), error.file, error.remedy)
    else: assert type(error).__name__ in said and isinstance(caught.value, DatasetError)
    if not workers: assert caught.value.__cause__ is error
