"""Notebook 00: a first capsule network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from capsnb.data import DataSpec
from capsnb.nn.models import ZOO, CapsNetConfig, StridedStem
from capsnb.nn.models.base import ModelConfig
from capsnb.nn.routing import Dynamic
from capsnb.training.recipe import Recipe
from capsnb.training.spec import Spec

REDUCED = CapsNetConfig(stem=StridedStem(channels=64, types=8), decoder_widths=(256, 512))
NARROW = CapsNetConfig(stem=StridedStem(channels=32, types=8), decoder_widths=(128, 256))
SMALLEST = CapsNetConfig(stem=StridedStem(channels=8, types=2), decoder_widths=(16, 32))
FULL = "3 iterations, reconstruction"
OPENS = "long"


def content(profile: str) -> dict[str, Any]:
    """Sabour et al. 2017, Table 1 on MNIST in full, and with an eighth of the channels at long; else one network."""
    plan = {"seeds": 1, "watch": {"curve": ("curve", {})}, "settings": {"histogram images": 200}}
    plan |= {"measures": {FULL: (("confusion", {}),)}}
    if profile == "smoke":
        data = DataSpec(train=256, validation=100, test=100)
        return plan | {"variants": {FULL: Spec(model=SMALLEST, data=data, recipe=Recipe(epochs=1))}}
    if profile == "quick":
        return plan | {"variants": {FULL: Spec(model=REDUCED, recipe=Recipe(epochs=8))}}
    baseline = ZOO["convnet-fc-28"].config
    if profile == "long":
        narrow = replace(baseline, widths=(32, 32, 16), hidden=(41, 24))
        return plan | {"seeds": 5, "variants": table_1(NARROW, narrow, Recipe(epochs=4))}
    # 300,000 steps of 128, as the released code trains
    return plan | {"seeds": 3, "variants": table_1(CapsNetConfig(), baseline, Recipe(epochs=698))}


def table_1(capsnet: CapsNetConfig, baseline: ModelConfig, recipe: Recipe) -> dict[str, Spec]:
    """The rows of Table 1 that MNIST has: one and three iterations, with and without a decoder, and a plain network."""
    one, bare = Dynamic(iterations=1), replace(capsnet, decoder="none")
    models = {
        "1 iteration": replace(bare, routing=one),
        "1 iteration, reconstruction": replace(capsnet, routing=one),
        "3 iterations": bare,
        FULL: capsnet,
    }
    mnist = DataSpec(name="mnist")
    variants = {variant: Spec(model=model, data=mnist, recipe=recipe) for variant, model in models.items()}
    return {"baseline CNN": Spec(model=baseline, data=mnist, recipe=replace(recipe, loss="cross-entropy"))} | variants
