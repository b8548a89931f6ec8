"""Notebook 08: every kind of capsule network through the measures of all five papers, trained alike to one accuracy.

Variants are the rows of the page. All are trained in one way until so many validation digits are right (`TARGET`), EM
with its own loss, at the width that two cores carry for five seeds; REM alone trains for a fixed number of epochs, in
which it has its whole dose, whatever it has learned by then. `CONTROLS` have neither votes nor routing. Costs at long,
measured on one slow core with a seed that is not declared (100), in minutes an epoch: agreement and attention 1.5, not
routed and one transform 0.7, self-attention 1.9, one layer more 2.2, REM 1.2, the deep ones 1, EM 2.9, the ConvNets 0.7
each; with about five epochs and two minutes of measuring each, 70 networks take some 8 core-hours. ResCaps (38 an epoch
at half its width) belongs to full.

Three kinds are trained on Fashion-MNIST, too, in the same way but for the accuracy that they stop at: agreement and
even couplings, whose difference is what routing does, and the ConvNet of their width with lengths, beside which both
stand. A step takes what it takes on MNIST, 0.1 s of agreement (195 steps of seed 100; no epoch was finished): 15
networks, about ten epochs each, some 3 core-hours.

Said before any of these numbers was looked at: where dead capsules were revived, the routings between hidden layers
move more than where they stayed dead ("revived, hidden": over the untrained networks, five seeds that the evidence
store has); and REM's couplings are less even than agreement's ("REM, certain").

Said on 2026-12-01 of the networks of notebook 05's affine.toml (digits of 14 pixels placed at random, five seeds),
whose surveys lie in the evidence store and had not been looked at, while their accuracies on affNIST and the numbers
of the deep networks had been: agreement's parts look where their wholes do more than before training; its poses
follow shifts better than pixels; it keeps more of the classes' lengths when the image is turned, has more compact
poses and loses less accuracy by shifts than even couplings ("1/I"); one transform for all makes poses more compact
(couplings even), and routed couplings more even and less different between images; agreement loses less accuracy by
rotation, and by shifts, than the mean of ConvNet-Avg and ConvNet-FC. Everything at the end of equal trainings, not at
equal accuracy.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from capsnb.data import Augment, DataSpec
from capsnb.evidence.columns import COLUMNS
from capsnb.measure.survey import surveyed
from capsnb.nn.em import EM
from capsnb.nn.models import (
    EFFICIENT,
    ZOO,
    CapsNetConfig,
    ConvNetAvgConfig,
    ConvNetRConfig,
    DepthwiseStem,
    MatrixCapsNetConfig,
    ResCapsConfig,
    StridedStem,
)
from capsnb.nn.routing import Attention, Uniform
from capsnb.training.pruning import Lobster
from capsnb.training.recipe import Recipe
from capsnb.training.spec import Spec
from plans.rem import dosed

OPENS = "long"
TARGET = 0.985
AGREEMENT = "by agreement"
CONTROLS = ("ConvNet, lengths", "ConvNet, linear", "ConvNet, averaged")
FASHION = "Fashion-MNIST"
FASHION_TARGET = 0.88
TELLING = (AGREEMENT, "not routed", "ConvNet, lengths")  # what routing does, and what capsules do
DECAY = 1e-3  # coupled, on every weight: what notebook 04's grids kill capsules with
AVERAGE = Uniform(value="1/I")
CONVOLVED = {"width": 64, "kernel": 9, "stride": 3, "padding": 0, "types": 4, "layers": ((8, 3, 2),)}
SEPARATE = DepthwiseStem(widths=(16, 32, 32), pointwise=False)
STRIDED = DepthwiseStem(widths=(8, 16, 32), strides=(2, 1, 1, 2))
# measure -> settings below long, where cells only have to run
FEWER: dict[str, dict[str, Any]] = {
    "swapped set": {"units": (2,), "images": 20},
    "entanglement": {"images": 2, "poses": 200, "draws": 1},
    "compactness by factor": {"images": 10},
    "key groups": {"images": 60},
    "warp by place": {"images": 40},
}
RECIPE = Recipe(
    epochs=10,
    batch=64,
    learning_rate=2e-3,
    decay=0.8,
    decay_every=1,
    decay_unit="epochs",
    target_accuracy=TARGET,
    report_every=200,
    reconstruction_weight=2e-3,
)


def content(profile: str) -> dict[str, Any]:
    """Fourteen networks at a reduced width at long, at their papers' own in full; fewer and smaller below."""
    plans = {"smoke": _smoke, "quick": _quick, "long": _long, "full": _full}
    variants, seeds, sizes = plans[profile]()
    apart = {}
    if elsewhere := [name for name in variants if name.endswith(FASHION)]:
        apart[FASHION] = {"networks": elsewhere, "controls": [on_fashion(TELLING[-1])]}
    surveys = {measure.name for measure in surveyed()}
    return {
        "seeds": seeds,
        "variants": variants,
        "watch": {"curve": ("curve", {})},
        "measures": dict.fromkeys(variants, tuple((name, sizes[name]) for name in sizes if name not in surveys)),
        "hosts": {"{}": AGREEMENT},
        "settings": {
            "sizes": sizes,
            "controls": tuple(name for name in CONTROLS if name in variants),
            "apart": apart,
        },
    }


def on_fashion(name: str) -> str:
    """What a network is called on the other set."""
    return f"{name}, {FASHION}"


def fashioned(variants: dict[str, Spec]) -> dict[str, Spec]:
    """The most telling kinds, trained as they are but on the other set."""
    found = {}
    for name in TELLING:
        recipe = replace(variants[name].recipe, target_accuracy=FASHION_TARGET)
        found[on_fashion(name)] = replace(variants[name], data=DataSpec(name="fashion-mnist"), recipe=recipe)
    return found


def vectors(base: CapsNetConfig, deep: CapsNetConfig) -> dict[str, CapsNetConfig]:
    """Capsules that are vectors: routings and transforms on one stem, and deep networks."""
    return {
        AGREEMENT: base,
        "not routed": replace(base, routing=AVERAGE),
        "one transform": replace(base, routing=AVERAGE, shared=True),
        "attention": replace(base, routing=Attention()),
        "one layer more": replace(base, hidden=((16, 16),)),
        "REM": replace(ZOO["rem-28"].config, size=base.size, stem=base.stem),
        "deep": deep,
        "deep, decay": deep,
        "deep, residual": replace(deep, residual=True),
    }


def convnets(size: int, width: int, widths: tuple[int, ...], kernel: int = 9) -> dict[str, Any]:
    """The controls: what is left of a capsule network without votes, without lengths, without places."""
    lengths = ConvNetRConfig(size=size, width=width, kernel=kernel, decoder_widths=widths)
    average = ConvNetAvgConfig(size=size, width=width, kernel=kernel)
    linear = replace(lengths, head="linear", decoder="plain")
    return dict(zip(CONTROLS, (lengths, linear, average), strict=True))


def pull(recipe: Recipe, steps: int) -> float:
    """What all pulls of a recipe that stops at no accuracy add up to, over so many steps an epoch; 0 without one.

    A weight that nothing holds is exp(-pull) of what it was.
    """
    found = [hook.penalty for hook in recipe.hooks if getattr(hook, "penalty", None)]
    return steps * sum(penalty.rate(epoch) for penalty in found for epoch in range(recipe.epochs))


def trained(models: dict[str, Any], data: DataSpec, recipe: Recipe, lobster: Lobster, dose: int) -> dict[str, Spec]:
    """One recipe for all, but for what a network is nothing without: its loss, its hook, its weight decay.

    dose: REM's epochs, after which it has had all of its pull. It stops at no accuracy, on which its dose would depend.
    """
    own: dict[str, dict[str, Any]] = {
        "EM": {"loss": "spread"},
        "ResCaps": {"loss": "spread"},
        "REM": {"hooks": (lobster,), "epochs": dose, "target_accuracy": None},
        "deep, decay": {"weight_decay": DECAY},
        "ConvNet, linear": {"loss": "cross-entropy"},
        "ConvNet, averaged": {"loss": "cross-entropy"},
    }
    return {n: Spec(model=model, data=data, recipe=replace(recipe, **own.get(n, {}))) for n, model in models.items()}


def _sized(settings: dict[str, dict[str, Any]] | None = None) -> dict[str, dict[str, Any]]:
    own = {column.measure: dict(column.settings) for column in COLUMNS if not column.why}
    return own | (settings or {})


def _smoke() -> tuple:
    models = _small(StridedStem(channels=8, kernel=5, types=2, dim=4), 8)
    chosen = (AGREEMENT, "not routed", "REM", *CONTROLS)
    data = DataSpec(resize=14, train=128, validation=60, test=60)
    recipe = replace(RECIPE, epochs=1, batch=32, report_every=None, target_accuracy=None)
    return trained({name: models[name] for name in chosen}, data, recipe, Lobster(trials=3), 1), 1, _sized(FEWER)


def _quick() -> tuple:
    models = _small(StridedStem(channels=16, kernel=5, types=4), 16)
    chosen = (AGREEMENT, "not routed", "one transform", "REM", *CONTROLS[:2])
    recipe = replace(RECIPE, epochs=6, batch=32, learning_rate=3e-3, report_every=None, augment=Augment(shift=1))
    lobster = Lobster(penalty=dosed(6, 110), images=250, trials=12)
    data = DataSpec(resize=14, validation=500)
    return trained({name: models[name] for name in chosen}, data, recipe, lobster, 6), 1, _sized(FEWER)


def _small(stem: StridedStem, width: int) -> dict[str, Any]:
    base = CapsNetConfig(size=14, stem=stem, decoder_widths=(32, 64))
    return vectors(base, base) | convnets(14, width, (32, 64), kernel=5)


def _long() -> tuple:
    widths = (128, 256)
    base = CapsNetConfig(stem=StridedStem(channels=32, types=4), decoder_widths=widths)
    deep = replace(ZOO["deep-rba-40"].config, size=28, stem=STRIDED, decoder_widths=widths, init_scale=0.5)
    models = vectors(base, deep) | {
        "self-attention": replace(EFFICIENT, stem=SEPARATE, decoder_widths=widths),
        "EM": MatrixCapsNetConfig(**CONVOLVED, routing=EM(iterations=2), decoder_widths=widths),
    }
    lobster = Lobster(penalty=dosed(5, 860), images=1_000, trials=12)
    variants = trained(models | convnets(28, 32, widths), DataSpec(name="mnist"), RECIPE, lobster, 5)
    return variants | fashioned(variants), 5, _sized()


def _full() -> tuple:
    deep = replace(ZOO["deep-rba-40"].config, size=28)
    own = {"self-attention": EFFICIENT, "EM": MatrixCapsNetConfig(), "ResCaps": ResCapsConfig()}
    models = vectors(CapsNetConfig(), deep) | own | convnets(28, 256, (512, 1024))
    recipe = Recipe(epochs=60, target_accuracy=0.9925, report_every=215)
    return trained(models, DataSpec(name="mnist"), recipe, Lobster(penalty=dosed(60, 430)), 60), 5, _sized()
