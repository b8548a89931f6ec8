"""Notebook 07: a reader's own routing, network and images through the measurements of the five papers.

The plan trains one network of capsnb's on the digits; the reader's own are made of its spec in the notebook, by
`replace`, since only there their classes exist. `settings` says how they are trained and measured.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from capsnb.data import Augment, DataSpec
from capsnb.measure.survey import Sizes
from capsnb.nn.models import CapsNetConfig, StridedStem
from capsnb.training.recipe import Recipe
from capsnb.training.spec import Spec

NETWORK = CapsNetConfig(size=20, stem=StridedStem(channels=16, kernel=5, types=4), decoder_widths=(64, 128))
SMALLEST = CapsNetConfig(size=14, stem=StridedStem(channels=4, kernel=5, types=2), decoder_widths=(16, 32))
OWN_IMAGES = True  # `capsnb run 07 --data my-images` puts them in place of those that are drawn
# the pixels of a 20x20 image are half as many as the paper's, those of a 14x14 image a quarter
RECIPE = Recipe(epochs=3, batch=32, learning_rate=3e-3, reconstruction_weight=1e-3, augment=Augment(shift=1))


def content(profile: str) -> dict[str, Any]:
    """A small network on the embedded digits; at long and full more seeds, at full Sabour's network on MNIST.

    settings: "own", the reader's images or None, "drawn", images of each class in the folder that is drawn without,
    "recipe" for them, "sizes" of the survey, "grid", the base of a grid file, whose networks are small.
    """
    every = {"smoke": 1, "quick": 55, "long": 55, "full": 430}[profile]  # steps; half an epoch at quick
    plan = {"watch": {"life": ("life", {})}, "every": every}
    if profile == "smoke":
        data, recipe = DataSpec(resize=14, train=64, validation=40, test=40), replace(RECIPE, epochs=1)
        settings = {
            "own": None,
            "drawn": 12,
            "recipe": recipe,
            "sizes": Sizes(images=20, few=4, parts=4),
            "grid": _grid(40, 1),
        }
        return plan | {
            "seeds": 1,
            "variants": {"capsnet": Spec(model=SMALLEST, data=data, recipe=recipe)},
            "settings": settings,
        }
    settings = {
        "own": None,
        "drawn": 120,
        "recipe": replace(RECIPE, epochs=20),
        "sizes": Sizes(images=200),
        "grid": _grid(500, 2),
    }
    if profile == "full":
        spec = Spec(model=CapsNetConfig(), data=DataSpec(name="mnist"), recipe=Recipe(epochs=50))
        settings["sizes"] = Sizes(images=1000, few=100)
    else:
        spec = Spec(model=NETWORK, data=DataSpec(crop=20), recipe=RECIPE)
    if profile == "quick":
        spec = replace(spec, recipe=replace(RECIPE, epochs=2))
        settings["sizes"] = Sizes(images=100, few=10)
    return plan | {
        "seeds": {"quick": 1, "long": 3, "full": 3}[profile],
        "variants": {"capsnet": spec},
        "settings": settings,
    }


def _grid(train: int, epochs: int) -> str:
    """The base of a grid file for networks that train in seconds."""
    return f"""[base]
model = "deep-rba-40"
"model.size" = 20
"model.hidden" = [[8, 4]]
"model.dim" = 4
"model.stem" = {{ type = "depthwise-stem", widths = [4, 8, 8], strides = [1, 2, 1, 2], capsules = 8, dim = 4 }}
"model.decoder_widths" = [16, 32]
"data.crop" = 20
"data.train" = {train}
"data.validation" = 40
"data.test" = 40
"recipe.epochs" = {epochs}
"recipe.decay_every" = 1
"recipe.decay_unit" = "epochs"
"recipe.weight_decay" = 1e-5
"recipe.reconstruction_weight" = 1.25e-5 # 0.005 times the mean over 400 pixels
"recipe.augment" = {{ type = "augment", rotation = 8.0, shear = 15.0, scale = [0.9, 1.1] }}
"""
