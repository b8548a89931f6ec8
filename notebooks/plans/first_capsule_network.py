"""Notebook 00: a first capsule network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from capsnb.data import DataSpec
from capsnb.nn.models import ZOO, CapsNetConfig, StridedStem
from capsnb.nn.routing import Dynamic
from capsnb.training.recipe import Recipe
from capsnb.training.spec import Spec

REDUCED = CapsNetConfig(stem=StridedStem(channels=64, types=8), decoder_widths=(256, 512))
SMALLEST = CapsNetConfig(stem=StridedStem(channels=8, types=2), decoder_widths=(16, 32))


def content(profile: str) -> dict[str, Any]:
    """Sabour et al. 2017, Table 1 on MNIST in full; its reference network alone below that."""
    name = "3 iterations, reconstruction"
    plan = {"seeds": 1, "watch": {"test accuracy": ("test accuracy", {})}, "settings": {"histogram images": 200}}
    if profile == "smoke":
        data = DataSpec(train=256, validation=100, test=100)
        return plan | {"variants": {name: Spec(model=SMALLEST, data=data, recipe=Recipe(epochs=1))}}
    if profile == "quick":
        return plan | {"variants": {name: Spec(model=REDUCED, recipe=Recipe(epochs=8))}}
    mnist = DataSpec(name="mnist")
    if profile == "long":
        return plan | {"variants": {name: Spec(model=CapsNetConfig(), data=mnist, recipe=Recipe(epochs=6))}}
    # 300,000 steps of 128, as the released code trains
    recipe = Recipe(epochs=698)
    no_decoder = replace(CapsNetConfig(), decoder="none")
    models = {
        "1 iteration": replace(no_decoder, routing=Dynamic(iterations=1)),
        "1 iteration, reconstruction": CapsNetConfig(routing=Dynamic(iterations=1)),
        "3 iterations": no_decoder,
        name: CapsNetConfig(),
    }
    variants = {variant: Spec(model=model, data=mnist, recipe=recipe) for variant, model in models.items()}
    baseline = Spec(model=ZOO["convnet-fc-28"].config, data=mnist, recipe=replace(recipe, loss="cross-entropy"))
    return plan | {"seeds": 3, "variants": {"baseline CNN": baseline} | variants}
