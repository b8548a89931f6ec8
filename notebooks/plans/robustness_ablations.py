"""Notebook 05: which component of a capsule network helps or harms its robustness (Gu, Tresp & Hu 2021).

Variants are named group/variant. The groups:

affine    trained on digits placed at random on a larger canvas: Tables 1 and 2. One run per model and seed is followed
          on the translated and on the affNIST-like test set, so that both "stopped at an accuracy" (Table 1) and "not
          stopped" (Table 2) are read from it.
kernel    the same with other kernel sizes: Table 3 (where a model's own size is missing it is in `affine`)
uniform   Aff-CapsNet with other values of its uniform coupling; groups: with its 256 channels cut otherwise (supp. A)
overlap   overlapping digits: Table 4, ConvNet-Avg, ConvNet-FC(LK), data sizes (figure 3), kernels (supp. B)
semantic  the four networks with a decoder, on unmoved digits: Table 5, figure 4; fashion: supp. C
plane     three of them with poses of two numbers: figure 5
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from capsnb.data import Augment, DataSpec
from capsnb.data.transforms import Affine, Pairs, Translated
from capsnb.evidence.plans import Watched
from capsnb.measure.compactness import VALUES
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

# Figure 4: "a range of [-8, 8]" for the convolutional networks; CapsNet's has steps of 0.05
WIDE = tuple(2.0 * step for step in range(-4, 5))
PERTURBATIONS = {"convnet-r": WIDE, "convnet-cr": WIDE, "convnet-cr-sf": WIDE} | {
    "capsnet": tuple(round(0.05 * step, 2) for step in range(-4, 5))
}
RIVALS = ("capsnet", "convnet-fc-lk")  # on overlapping digits: figure 3, supplement B
FC, AVG = "affine/convnet-fc", "affine/convnet-avg"
# at quick networks do not yet know their training digits, as those of Tables 2 and 5 do: measured, but not judged
JUDGED = ("gu2021/table1", "gu2021/parameters")
HALF = Scale(side=14, canvas=20, pair_canvas=18, width=24, kernel=5, fc_kernel=3, fc_widths=(24, 24, 12))
QUICK = replace(HALF, hidden=(82, 48), lk_hidden=(45, 26), decoder=(64, 128))
SMALLEST = replace(HALF, width=8, fc_widths=(8, 8, 4), hidden=(16, 8), lk_hidden=(8, 8), decoder=(16, 32))
HALVED = replace(HALF, width=32, fc_widths=(32, 32, 16), lk_hidden=(325, 190), decoder=(128, 256))
REDUCED = replace(PAPER, width=32, fc_widths=(32, 32, 16), hidden=(82, 48), lk_hidden=(45, 26), decoder=(128, 256))


def specs(group: str, models: Models, data: DataSpec, recipe: Recipe) -> dict[str, Spec]:
    """group/variant -> Spec, each with its own loss; a group "" leaves the names as they are."""
    prefix = f"{group}/" if group else ""
    return {
        f"{prefix}{name}": Spec(model=model, data=data, recipe=replace(recipe, loss=loss))
        for name, (model, loss) in models.items()
    }


def trained_by(spec: Spec, **changes: Any) -> Spec:
    """The same run with other fields of its recipe, such as more passes for the small ConvNet-Avgs, which learn slowly.

    Table 1 compares at one accuracy and so bears other recipes. Table 2's models all keep one.
    """
    return replace(spec, recipe=replace(spec.recipe, **changes))


def placed(scale: Scale, **limits: Any) -> tuple[DataSpec, Augment]:
    """Digits on the larger canvas, in the middle of it, and the shifts that place each anew whenever it is trained on.

    Validation digits are placed once and for all; test digits stay centred, to derive sets from.
    """
    resize = None if scale.side == 28 else scale.side
    derive = Translated(size=scale.canvas, splits=("validation",))
    return DataSpec(resize=resize, derive=derive, **limits), Augment(shift=(scale.canvas - scale.side) // 2)


def watched(scale: Scale) -> dict[str, Watched]:
    """What an affine run records: accuracy on translated and on affNIST-like (b) test digits."""
    derived = {"mnist accuracy": Translated(size=scale.canvas), "affnist accuracy": affnist(scale)}
    return {name: ("derived accuracy", {"derive": derive, "side": scale.side}) for name, derive in derived.items()}


def affnist(scale: Scale, kind: str = "b") -> Affine:
    """The affNIST-like set of a kind at this scale; the paper's 8 px shrink with the canvas."""
    return Affine(kind=kind, size=scale.canvas, reach=8.0 * scale.canvas / 40)


def settings(scale: Scale, **changes: Any) -> dict[str, Any]:
    """Sizes of the measurements.

    pair scale: of the networks on overlapping digits. target: the accuracy at which models are compared, the highest
    common one when None. judged: where the claims stand that the profile's networks are trained long enough for (a
    beginning of their place, "" for every one).
    """
    unit = scale.side / 28  # pixels shrink with the digit
    values = {name: tuple(v * unit for v in steps) if "trans" in name else steps for name, steps in VALUES.items()}
    shown = {
        "rotation": (-60.0, -40.0, -20.0, 0.0, 20.0, 40.0, 60.0),
        "shear-x": (-45.0, -30.0, -15.0, 0.0, 15.0, 30.0, 45.0),
        "scale": (0.6, 0.7, 0.8, 1.0, 1.2, 1.3, 1.4),
        "trans-x": tuple(step * unit for step in (-8.0, -6.0, -4.0, 0.0, 4.0, 6.0, 8.0)),
    }
    return {
        "scale": scale,
        "pair scale": scale,
        "target": None,
        "compactness values": values,
        "compactness images": 200,
        "surface values": shown,
        "surface images": 500,
        "perturbations": PERTURBATIONS,
        "judged": ("",),
    } | changes


def content(profile: str) -> dict[str, Any]:
    """The paper's five tables in full; at long Table 1 and its rows of Table 2; at quick those at half size."""
    plans = {"smoke": _smoke, "quick": _quick, "long": _long, "full": _full}
    # a reader's own routing beside Sabour et al.'s: in Table 1, and on overlapping digits
    return plans[profile]() | {"hosts": {"affine/{}": "affine/capsnet", "overlap/{}": "overlap/capsnet"}}


def _smoke() -> dict[str, Any]:
    scale = SMALLEST
    data, augment = placed(scale, train=64, validation=20, test=40)
    recipe = Recipe(epochs=1, batch=32, augment=augment)
    plain, near = DataSpec(resize=scale.side, train=64, validation=20, test=40), replace(recipe, augment=Augment())
    pairs = replace(plain, derive=Pairs(size=scale.pair_canvas, shift=2, train=64, validation=20, test=40))
    chosen = {name: affine_models(scale)[name] for name in (*SIX, "no-squash")}
    overlap = {name: overlap_models(scale)[name] for name in ("capsnet", "convnet-avg", "convnet-fc-lk")}
    return {
        "seeds": 1,
        "watch": watched(scale),
        "variants": specs("affine", chosen, data, recipe)
        | specs("kernel", kernel_models(scale, (3, 5)), data, recipe)
        | specs("overlap", overlap, pairs, recipe)
        | specs("semantic", semantic_models(scale), plain, near)
        | specs("plane", semantic_models(scale, dim=2), plain, near),
        "settings": settings(scale, **{"compactness images": 10, "surface images": 20}),
    }


def _quick() -> dict[str, Any]:
    scale = QUICK
    data, augment = placed(scale, validation=250)
    # squared errors are summed over a quarter of the paper's pixels, so that they weigh four times as much
    recipe = Recipe(epochs=4, batch=32, learning_rate=5e-3, reconstruction_weight=2e-3, augment=augment)
    plain, near = DataSpec(resize=scale.side, validation=250), replace(recipe, epochs=3, augment=Augment(shift=1))
    chosen = {name: affine_models(scale)[name] for name in (*SIX, "no-squash")}
    variants = specs("affine", chosen, data, recipe) | specs("semantic", semantic_models(scale), plain, near)
    planes = semantic_models(replace(scale, width=16, decoder=(32, 64)), dim=2)
    planes.pop("capsnet")  # figure 5 draws the other three
    variants |= specs("plane", planes, plain, replace(near, epochs=2))
    # ConvNet-FC dies at the capsule networks' rate, ConvNet-Avg crawls: tried on seeds 0 and 1, by training accuracy
    own = {
        FC: trained_by(variants[FC], learning_rate=2e-3),
        AVG: trained_by(variants[AVG], epochs=8, learning_rate=1e-2),
    }
    return {
        "seeds": 3,
        "once": tuple(name for name in variants if name.removeprefix("affine/") not in SIX),  # of no judged claim
        "watch": watched(scale),
        "variants": variants | own,
        "settings": settings(scale, judged=JUDGED, **{"compactness images": 60, "surface images": 250}),
    }


def _long() -> dict[str, Any]:
    scale = REDUCED
    data, augment = placed(scale, name="mnist", train=20_000, validation=2_000, test=5_000)
    recipe = Recipe(epochs=5, batch=64, learning_rate=2e-3, augment=augment)
    plain = DataSpec(name="mnist", train=20_000, validation=2_000, test=5_000)
    near = replace(recipe, epochs=3, augment=Augment(shift=2))
    variants = specs("affine", affine_models(scale), data, recipe)
    variants |= specs("semantic", semantic_models(scale), plain, near)
    variants |= specs("fashion", semantic_models(scale), replace(plain, name="fashion-mnist"), near)
    fewer, brief = replace(data, train=8_000, test=2_000), replace(recipe, epochs=4, batch=32)
    kernels = specs("kernel", kernel_models(scale, own=True), fewer, brief)
    # at small batches as at quick: ConvNet-FC dies at the capsule networks' rate, ConvNet-Avg crawls
    own = {"convnet-avg": {"epochs": 8, "learning_rate": 1e-2}, "convnet-fc": {"learning_rate": 1e-3}}
    for name in kernels:
        model = name.removeprefix("kernel/").rpartition("-")[0]
        kernels[name] = trained_by(kernels[name], **own.get(model, {}))
    return {
        "seeds": 3,
        "watch": watched(scale),
        "variants": variants
        | {AVG: trained_by(variants[AVG], epochs=10)}
        | kernels
        | specs("groups", group_models(scale, own=True), fewer, brief)
        | specs("uniform", uniform_models(scale), fewer, brief)
        | _halved_pairs(),
        "settings": settings(scale, **{"surface images": 1000, "pair scale": HALVED}),
    }


def _halved_pairs() -> dict[str, Spec]:
    """Overlapping digits of half the side: 100,000 pairs seen by each network, of 10,000 digits."""
    digits = DataSpec(name="mnist", resize=HALVED.side, train=10_000, validation=2_000, test=5_000)
    once = Recipe(epochs=1, batch=32, learning_rate=2e-3, reconstruction_weight=2e-3)
    models = overlap_models(HALVED) | rival_models(HALVED, {5: 3, 7: 4})
    pairs = {
        count: replace(digits, derive=Pairs(per_image=count, size=HALVED.pair_canvas, shift=2)) for count in (1, 10)
    }
    rivals = {f"{name}-n1": models[name] for name in RIVALS}
    variants = specs("overlap", models, pairs[10], once)
    return variants | specs("overlap", rivals, pairs[1], replace(once, epochs=10))


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
    return {
        "seeds": 5,
        "watch": watched(scale),
        "every": 215,  # about twice per pass over MNIST
        "variants": variants,
        "settings": settings(scale, **{"target": 0.9922, "compactness images": 10_000, "surface images": 10_000}),
    }
