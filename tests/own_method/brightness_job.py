"""A method of somebody's own: class maps from one 1 x 1 convolution. Its card is all that the workbench needs.

For brevity it imports torch at the top; a card that does so inside its functions keeps `sam_nb --help` fast.
"""
import torch
from torch import nn

from sam_nb.contract import Evaluator, Job, register
from sam_nb.core import seed_everything
from sam_nb.datasets.catalog import load_dataset
from sam_nb.datasets.transforms import PadTo, collate, to_original
from sam_nb.evaluation.plan import EvalRecipe, check_evaluation, open_data, plan_evaluation
from sam_nb.evaluation.semantic import evaluate_semantic
from sam_nb.metrics import SemanticScores
from sam_nb.optim import decay_groups
from sam_nb.recipe import Field, Recipe, check_recipe
from sam_nb.training.callbacks import update_semantic
from sam_nb.weights import HubModel


class Brightness(nn.Module, HubModel):
    parameter_groups = decay_groups
    def __init__(self, classes: list[str], size: int):
        super().__init__()
        self.classes, self.image_size, self.layer = classes, size, nn.Conv2d(3, len(classes), 1)

    def losses(self, batch):
        return {"ce": nn.functional.cross_entropy(self.layer(batch["image"]), batch["semantic"].long(), ignore_index=255)}

    @torch.no_grad()
    def predict(self, batch):
        sizes = zip(self.layer(batch["image"]), batch["content_size"], batch["original_size"], strict=True)
        return [to_original(logits, content, original).argmax(0) for logits, content, original in sizes]

    @torch.no_grad()
    def probabilities(self, image):  # uint8 [H, W, 3] -> [K, H, W], for `sam_nb segment`
        ready = PadTo(self.image_size)({"image": torch.from_numpy(image).permute(2, 0, 1), "original_size": image.shape[:2], "content_size": image.shape[:2]})
        return to_original(self.layer(ready["image"][None])[0], ready["content_size"], image.shape[:2]).softmax(0)


class BrightnessRecipe(Recipe):
    size: int = Field(64, gt=0, description="side of the square input, pixels")


def build(recipe, data):
    seed_everything(recipe.seed)
    return Brightness(list(data["train"].classes), recipe.size), None


JOB = register(Job(
    name="brightness", title="Brightness", what="class maps from colour alone", task="semantic", demo="demo", recipe=BrightnessRecipe,
    presets={"demo": dict(epochs=2, batch_size=4, lr=1e-2)}, check=lambda values: check_recipe(BrightnessRecipe, values, JOB.presets),
    data=lambda recipe: {s: load_dataset(JOB.dataset(recipe.dataset), s, recipe.data_root) for s in ("train", "val", "test")},
    build=build, load=Brightness.from_pretrained, transforms=lambda model, recipe, data: dict.fromkeys(("train", "val"), PadTo(recipe.size)),
    collate=lambda recipe: collate, metric=lambda recipe, data: SemanticScores(len(data["train"].classes)), update=lambda recipe: update_semantic,
    monitor="miou", evaluators={"semantic": Evaluator(
        what="scores by class", recipe=EvalRecipe, check=lambda values: check_evaluation(EvalRecipe, values, JOB),
        plan=lambda recipe: plan_evaluation(JOB, recipe), open=lambda recipe, plan: ({"model": JOB.load(plan.weights)}, open_data(JOB, plan)),
        run=lambda models, data, recipe, plan: {n: evaluate_semantic(m, data, PadTo(m.image_size), data.classes) for n, m in models.items()})}))
