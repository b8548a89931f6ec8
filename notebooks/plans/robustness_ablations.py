"""Notebook 05: which component of a capsule network helps or harms its robustness (Gu, Tresp & Hu 2021).

The evidence rests on grids, at every profile, five seeds each; in this order of worth, with hours of one free core, of
the slow machine that the pilots ran on and of one about four times as fast, training alone:

sweeps/heads.toml            2    0.6  Table 5: head x squash x mask
sweeps/heads_routed.toml     1.5  0.4  the same with routing; the arm with squash and mask first, the paper's CapsNet
sweeps/affine.toml          10    2    the six models at 14 pixels, each distortion at trained and untrained places
sweeps/affine_size.toml     30    8    Tables 1 and 2 at the paper's 28 pixels, the three models that are at stake first
sweeps/affine_ranges.toml    3    0.8  two of them trained on nearer and on farther places
sweeps/aff_capsnet.toml      4    1    the decoder first, then supplement A and couplings
sweeps/kernels.toml         20    6    Table 3 at 28 pixels: small and large kernels, small ones that see as far
sweeps/overlap.toml          8.5  2    Table 4, ConvNet-Avg and ConvNet-FC(LK)
sweeps/overlap_rivals.toml   8    2    figure 3 and supplement B

This notebook may cost 20 core-hours: on the slow machine they end with the first arms of affine_size.toml, on the fast
one with overlap.toml. What is left stays declared and is listed with its cost by `capsnb results open --cost`.

smoke and quick train the same networks for minutes, to show what a measure does: nothing is judged by them. long has
the networks of Table 5 on MNIST and Fashion-MNIST at 28 pixels, whose decoders learn (figures 4 and 5, supplement C).
full is the paper: every table at its own size. Variants are named group/variant:

affine    Tables 1 and 2; one run is read where it reaches an accuracy ("stopped", Table 1) and at its end (Table 2)
kernel    the same with other kernel sizes: Table 3 (where a model's own size is missing it is in `affine`)
uniform   Aff-CapsNet with other values of its uniform coupling; groups: with its 256 channels cut otherwise (supp. A)
overlap   overlapping digits: Table 4, ConvNet-Avg, ConvNet-FC(LK), data sizes (figure 3), kernels (supp. B)
semantic  the four networks with a decoder, on unmoved digits: Table 5, figure 4; fashion: supp. C
plane     the same with poses of two numbers: figure 5
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from capsnb.data import Augment, DataSpec
from capsnb.data.transforms import Pairs, Translated
from capsnb.training.recipe import Recipe
from capsnb.training.spec import Spec
from plans.ablations import (
    PAPER,
    SIX,
    Models,
    Scale,
    affine_models,
    group_models,
    kernel_models,
    overlap_models,
    rival_models,
    semantic_models,
    uniform_models,
)

RIVALS = ("capsnet", "convnet-fc-lk")  # on overlapping digits: figure 3, supplement B
HALF = Scale(side=14, canvas=20, pair_canvas=18, width=24, kernel=5, fc_kernel=3, fc_widths=(24, 24, 12))
QUICK = replace(HALF, hidden=(82, 48), decoder=(64, 128))
SMALLEST = replace(HALF, width=8, fc_widths=(8, 8, 4), hidden=(16, 8), decoder=(16, 32))
GRID = replace(HALF, width=48, fc_widths=(48, 48, 24), hidden=(82, 48), decoder=(128, 256))  # of the sweeps
PAIRS = replace(HALF, width=32, fc_widths=(32, 32, 16), decoder=(128, 256))  # of sweeps/overlap.toml
REDUCED = replace(PAPER, width=32, fc_widths=(32, 32, 16), hidden=(82, 48), decoder=(128, 256))


def specs(group: str, models: Models, data: DataSpec, recipe: Recipe) -> dict[str, Spec]:
    """group/variant -> Spec, each with its own loss; a group "" leaves the names as they are."""
    prefix = f"{group}/" if group else ""
    return {
        f"{prefix}{name}": Spec(model=model, data=data, recipe=replace(recipe, loss=loss))
        for name, (model, loss) in models.items()
    }


def placed(scale: Scale, **limits: Any) -> tuple[DataSpec, Augment]:
    """Digits on the larger canvas, in the middle of it, and the shifts that place each anew whenever it is trained on.

    Validation digits are placed once and for all; test digits stay centred, to derive sets from.
    """
    resize = None if scale.side == 28 else scale.side
    derive = Translated(size=scale.canvas, splits=("validation",))
    return DataSpec(resize=resize, derive=derive, **limits), Augment(shift=(scale.canvas - scale.side) // 2)


def settings(scale: Scale, **changes: Any) -> dict[str, Any]:
    """Sizes of what is shown of trained networks: ranges of one factor, how many images its curve takes."""
    unit = scale.side / 28  # pixels shrink with the digit
    shown = {
        "rotation": (-60.0, -40.0, -20.0, 0.0, 20.0, 40.0, 60.0),
        "shear-x": (-45.0, -30.0, -15.0, 0.0, 15.0, 30.0, 45.0),
        "scale": (0.6, 0.7, 0.8, 1.0, 1.2, 1.3, 1.4),
        "trans-x": tuple(step * unit for step in (-8.0, -6.0, -4.0, 0.0, 4.0, 6.0, 8.0)),
    }
    return {"scale": scale, "surface values": shown, "surface images": 500} | changes


def content(profile: str) -> dict[str, Any]:
    """What each profile trains besides the grids: see the module."""
    plans = {"smoke": _smoke, "quick": _quick, "long": _long, "full": _full}
    # a reader's own routing beside Sabour et al.'s: in Table 1, and on overlapping digits
    hosts = {"affine/{}": "affine/capsnet", "overlap/{}": "overlap/capsnet"}
    return {"watch": {"parts": ("affine parts", {}), "curve": ("curve", {})}} | plans[profile]() | {"hosts": hosts}


def _smoke() -> dict[str, Any]:
    scale = SMALLEST
    data, augment = placed(scale, train=64, validation=20, test=40)
    recipe = Recipe(epochs=1, batch=32, augment=augment)
    plain, near = DataSpec(resize=scale.side, train=64, validation=20, test=40), replace(recipe, augment=Augment())
    variants = specs("affine", _shown(scale), data, recipe) | specs("semantic", semantic_models(scale), plain, near)
    return {
        "seeds": 1,
        "watch": {"parts": ("affine parts", {"images": 20})},
        "variants": variants | specs("plane", semantic_models(scale, dim=2), plain, near),
        "settings": settings(scale, **{"surface images": 20}),
    }


def _quick() -> dict[str, Any]:
    scale = QUICK
    data, augment = placed(scale, validation=250)
    # squared errors are summed over a quarter of the paper's pixels, so that they weigh four times as much
    recipe = Recipe(epochs=5, batch=32, learning_rate=5e-3, reconstruction_weight=2e-3, augment=augment)
    plain, near = DataSpec(resize=scale.side, validation=250), replace(recipe, epochs=6, augment=Augment(shift=1))
    affine = specs("affine", _shown(scale), data, recipe)
    # ConvNet-FC dies at the capsule networks' rate, ConvNet-Avg crawls: tried on seeds 0 and 1, by training accuracy
    rates = {"affine/convnet-fc": 2e-3, "affine/convnet-avg": 1e-2}
    for name, rate in rates.items():
        affine[name] = replace(affine[name], recipe=replace(affine[name].recipe, learning_rate=rate))
    planes = semantic_models(replace(scale, width=16, decoder=(32, 64)), dim=2)
    variants = affine | specs("semantic", semantic_models(scale), plain, near)
    variants |= specs("plane", planes, plain, replace(near, epochs=2))
    few = {"parts": ("affine parts", {"images": 150})}
    return {"seeds": 1, "watch": few, "variants": variants, "settings": settings(scale)}


def _long() -> dict[str, Any]:
    scale = REDUCED
    plain = DataSpec(name="mnist")
    near = Recipe(epochs=10, batch=64, learning_rate=2e-3, augment=Augment(shift=2))
    variants = specs("semantic", semantic_models(scale), plain, near)
    variants |= specs("fashion", semantic_models(scale), replace(plain, name="fashion-mnist"), near)
    variants |= specs("plane", semantic_models(scale, dim=2), plain, near)
    own = {"measures": _drawn(variants, ("compactness by factor", {}))}
    return own | {"seeds": 5, "watch": {"curve": ("curve", {})}, "variants": variants, "settings": settings(scale)}


def _drawn(variants: dict[str, Spec], *measures: tuple[str, dict[str, Any]]) -> dict[str, tuple]:
    """variant -> these measures, and what figure 4 needs of networks with a decoder, figure 5 of flat poses."""
    more = {"semantic": ("redrawn", {}), "plane": ("pose clouds", {})}
    groups = {name: name.split("/")[0] for name in variants}
    return {name: (*measures, more[group]) if group in more else measures for name, group in groups.items()}


def _shown(scale: Scale) -> Models:
    """The models of Table 1, and the one without a squash."""
    return {name: affine_models(scale)[name] for name in (*SIX, "no-squash")}


def _full() -> dict[str, Any]:
    scale = PAPER
    data, augment = placed(scale, name="mnist")
    recipe = Recipe(epochs=60, augment=augment)
    plain = DataSpec(name="mnist")
    near = replace(recipe, epochs=30, augment=Augment(shift=2))
    pairs = replace(plain, derive=Pairs(per_image=100, validation=2_000))
    once = replace(recipe, epochs=2, augment=Augment())  # two passes over 5.5 million pairs
    models = overlap_models(scale)
    variants = specs("affine", affine_models(scale), data, recipe)
    variants |= specs("kernel", kernel_models(scale), data, recipe) | specs("groups", group_models(scale), data, recipe)
    variants |= specs("uniform", uniform_models(scale), data, recipe)
    variants |= specs("overlap", models, pairs, once)
    rivals = {name: models[name] for name in RIVALS}
    for count, epochs in ((1, 60), (10, 12), (1000, 1)):
        data_size = replace(plain, derive=Pairs(per_image=count, validation=2_000))
        named = {f"{name}-n{count}": model for name, model in rivals.items()}
        variants |= specs("overlap", named, data_size, replace(once, epochs=epochs))
    variants |= specs("overlap", rival_models(scale, {5: 5, 7: 7}), pairs, once)
    variants |= specs("semantic", semantic_models(scale), plain, near)
    variants |= specs("fashion", semantic_models(scale), replace(plain, name="fashion-mnist"), near)
    variants |= specs("plane", semantic_models(scale, dim=2), plain, near)
    measured = _drawn(variants, ("affine parts", {}), ("compactness by factor", {"images": 10_000}))
    return {
        "seeds": 5,
        "every": 215,  # about twice per pass over MNIST
        "variants": variants,
        "measures": measured,
        "settings": settings(scale, **{"surface images": 10_000}),
    }
