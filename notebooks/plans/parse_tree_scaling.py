"""Notebook 04: do parse trees exist, and why do deep capsule networks starve (Mitterreiter et al. 2023)?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from capsnb.data import Augment, DataSpec
from capsnb.data.transforms import Affine
from capsnb.measure import viewpoint
from capsnb.nn.models import ZOO, CapsNetConfig, DepthwiseStem
from capsnb.nn.routing import Attention, Uniform
from capsnb.training.hooks import DecoupledDecay, KeepNorms
from capsnb.training.recipe import Recipe
from capsnb.training.spec import Spec

# 16/16/16/16/10 capsules of 8 numbers: the working code's stem, the cheaper one of `long`, and smaller networks
PAPER = ZOO["deep-rba-40"].config
STRIDED = replace(PAPER, stem=DepthwiseStem(strides=(2, 2, 1, 1)))
REDUCED = replace(
    PAPER,
    size=28,
    stem=DepthwiseStem(widths=(8, 16, 32), strides=(2, 1, 1, 2)),
    decoder_widths=(32, 64),
    init_scale=0.5,  # leaves chance at once, where the paper's network takes 800 steps
)
SMALLEST = replace(
    PAPER,
    size=20,
    stem=DepthwiseStem(widths=(4,), kernels=(5, 3), strides=(3, 2), capsules=6, dim=4),
    hidden=((6, 4), (6, 4), (6, 4)),
    dim=4,
    decoder_widths=(8,),
)
# the working code: placed at random in 40x40, then turned, sheared and scaled a little in every batch
MNIST = DataSpec(name="mnist", validation=2000, derive=Affine(kind="c"))
CIFAR = DataSpec(name="cifar10", validation=2000)
AUGMENT = Augment(rotation=8.0, shear=15.0, scale=(0.9, 1.1))
# 0.005 times the mean squared error of 40x40 pixels in the working code; ours is a sum
RECIPE = Recipe(
    epochs=12,
    decay_every=1,
    decay_unit="epochs",
    weight_decay=1e-5,
    reconstruction_weight=0.005 / 1600,
    augment=AUGMENT,
)
# minutes for hours: all that wants time goes faster, the learning rate falls per step as slowly as the paper's
HASTE = replace(
    RECIPE,
    epochs=10,
    batch=32,
    learning_rate=2e-3,
    decay=0.99,
    weight_decay=1e-3,
    reconstruction_weight=0.005 / 784,
)
OPENS = "long"
# the variants that claims are about; decoupled decay is not among them: float32 rounds the working code's 1e-5 away
JUDGED = ("agreement", "no weight decay", "uniform", "3 layers", "8 layers", "attention over children", "CIFAR-10")
AUTHORS = ", the authors' start"
LATER = ", 30 epochs"  # declared when the first seed of twelve had left chance in the fifth and nobody was dead yet
# declared when in two seeds without decay none of the dead had returned: the margin loss of 99 % leaves little gradient
UNSATISFIED = "decay off, a loss never satisfied"
KEPT = "decay kept, a loss never satisfied"  # declared when in two seeds of the former all had returned
SETTINGS = {
    "threshold": 0.1,
    "test images": 10_000,
    "viewpoint images": 1000,
    "rotation": [float(a) for a in range(-25, 26, 5)],
    "translation x": [float(a) for a in range(-5, 6)],
    "translation y": [float(a) for a in range(-5, 6)],
    "scale": [0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.25],
    "shear": [float(a) for a in range(-10, 11, 2)],
    "cost n": [64, 128, 256, 512],
    "cost d": [256, 512, 1024, 2048],
    "cost rounds": 3,
    "costs judged": ["time", "space"],
}
# at small sizes what a call costs anyway hides the order of its time
BRIEF = {"cost n": [64, 128, 256], "cost d": [128, 256, 512], "cost rounds": 2, "costs judged": ["space"]}
FEWER = BRIEF | {
    "test images": 500,
    "viewpoint images": 100,
    "rotation": [-25.0, -15.0, -5.0, 0.0, 5.0, 15.0, 25.0],
    "translation x": [-4.0, -2.0, 0.0, 2.0, 4.0],
    "translation y": [-4.0, -2.0, 0.0, 2.0, 4.0],
    "scale": [0.75, 0.9, 1.0, 1.1, 1.25],
    "shear": [-10.0, -5.0, 0.0, 5.0, 10.0],
}


def content(profile: str) -> dict[str, Any]:
    """The deep network, its twins, one for each suspect of starvation, one for each cure; three of them at quick."""
    found = _content(profile)
    wanted = tuple((name, {}) for name in ("parse tree", "invariance", "dead parents"))
    measures = dict.fromkeys(found["variants"], wanted)
    return found | {"measures": measures, "hosts": {"{}": "agreement"}}


def _content(profile: str) -> dict[str, Any]:
    plan = {"seeds": 1, "watch": {name: (name, {}) for name in ("curve", "life", "pull")}}
    if profile == "smoke":
        data = DataSpec(train=128, validation=60, test=60, resize=14, derive=Affine(kind="c", size=20))
        base = Spec(model=SMALLEST, data=data, recipe=replace(RECIPE, epochs=1, batch=32))
        sizes = {"test images": 60, "viewpoint images": 20, "cost n": [4, 8], "cost d": [8, 16], "cost rounds": 1}
        sizes |= {"costs judged": ["space"]}
        sizes |= {kind: [FEWER[kind][0], viewpoint.KINDS[kind][1], FEWER[kind][-1]] for kind in viewpoint.KINDS}
        return plan | {"variants": pair(base), "every": 2, "settings": SETTINGS | sizes}
    if profile == "quick":
        data = DataSpec(crop=20, derive=Affine(kind="c", size=28))
        base = Spec(model=REDUCED, data=data, recipe=HASTE)
        variants = pair(base) | {"decoupled decay": _decoupled(base, base.recipe.weight_decay)}
        return plan | {"variants": variants, "every": 110, "settings": SETTINGS | FEWER}
    if profile == "long":
        base = Spec(model=STRIDED, data=MNIST, recipe=RECIPE)
        every = pair(base) | suspects(base) | cures(base) | others(base)
        started = {f"{name}{AUTHORS}": authors_start(spec) for name, spec in pair(base).items()}
        late = started[f"agreement{AUTHORS}"]
        started[f"agreement{AUTHORS}{LATER}"] = replace(late, recipe=replace(late.recipe, epochs=30))
        on = {"decay off from then on": going_on(base, 0.0), "decay kept": going_on(base, RECIPE.weight_decay)}
        for name, weight_decay in {UNSATISFIED: 0.0, KEPT: RECIPE.weight_decay}.items():
            on[name] = going_on(base, weight_decay, loss="cross-entropy")
        variants = {name: every[name] for name in JUDGED[:2]} | on | started
        variants |= {name: every[name] for name in JUDGED[2:]}
        return plan | {"seeds": 5, "variants": variants, "every": 215, "settings": SETTINGS}
    # as the paper trains: pixels standardised, its start, until its accuracy, 50 epochs at most
    model = replace(PAPER, init="uniform", stem=replace(PAPER.stem, standard=(0.0641, 0.2257)))
    base = Spec(model=model, data=MNIST, recipe=replace(RECIPE, epochs=50, target_accuracy=0.992))
    variants = pair(base) | suspects(base) | cures(base) | others(base)
    return plan | {"seeds": 10, "variants": variants, "every": 215, "settings": SETTINGS}


def pair(base: Spec) -> dict[str, Spec]:
    """The paper's network, and the same without weight decay."""
    return {"agreement": base, "no weight decay": replace(base, recipe=replace(base.recipe, weight_decay=0.0))}


def authors_start(spec: Spec) -> Spec:
    """The same training from the working code's start, 2.5 times smaller than ours at the recorded size."""
    return replace(spec, model=replace(spec.model, init="uniform"))


def going_on(spec: Spec, weight_decay: float, **changed: Any) -> Spec:
    """Four epochs more from the network's end, by an optimiser that remembers nothing."""
    rate = spec.recipe.learning_rate_at(0, spec.recipe.epochs)
    recipe = replace(spec.recipe, epochs=4, learning_rate=rate, weight_decay=weight_decay, **changed)
    return replace(spec, recipe=recipe, start=spec)


def suspects(base: Spec) -> dict[str, Spec]:
    """One thing changed at a time: what kills capsules?"""
    model, recipe = base.model, base.recipe
    trained = {
        "learning rate kept": replace(recipe, decay=1.0),
        "no reconstruction": replace(recipe, reconstruction_weight=0.0),
        "a loss never satisfied": replace(recipe, loss="cross-entropy"),
    }
    ours = replace(model, init="vote-sum")
    built = {
        "our start": ours,
        "our start halved": replace(ours, init_scale=ours.init_scale / 2),
        "our start doubled": replace(ours, init_scale=ours.init_scale * 2),
        "3 layers": replace(model, hidden=model.hidden[:1]),
        "8 layers": replace(model, hidden=model.hidden * 2),
    }
    found = {name: replace(base, recipe=changed) for name, changed in trained.items()}
    # float32 rounds the working code's 1e-5 away where it does not join the gradient; this is AdamW's usual one
    return {"decoupled decay": _decoupled(base, 0.01)} | found | _built(base, built)


def cures(base: Spec) -> dict[str, Spec]:
    """What might keep capsules alive, the weight decay left as it is."""
    model, routing = base.model, base.model.routing
    built = {
        "temperature 10": replace(model, routing=replace(routing, temperature=10.0)),
        "temperature 0.1": replace(model, routing=replace(routing, temperature=0.1)),
        "leaky routing": replace(model, routing=replace(routing, leaky=True)),
        "layer norm": replace(model, hidden_squash="layer-norm"),
        "residual poses": replace(model, residual=True),
        "attention over parents": replace(model, routing=Attention()),
        "attention over children": replace(model, routing=Attention(over="children")),
    }
    kept = replace(base, recipe=replace(base.recipe, hooks=(KeepNorms(),)))
    return {"uniform": replace(base, model=replace(model, routing=Uniform())), "norms kept": kept} | _built(base, built)


def others(base: Spec) -> dict[str, Spec]:
    """Sabour's 1,152 primary capsules with the same weight decay, and CIFAR-10."""
    sabour = Recipe(epochs=50, weight_decay=base.recipe.weight_decay)
    return {
        "Sabour's network": Spec(model=CapsNetConfig(), data=DataSpec(name="mnist"), recipe=sabour),
        "CIFAR-10": cifar(base),
    }


def cifar(base: Spec) -> Spec:
    """The network of `base` on CIFAR-10, with the working code's shifts for it, but the weight decay of `base`, so that
    the images alone differ; theirs is 2e-5, twice that of MNIST."""
    recipe = replace(base.recipe, reconstruction_weight=0.005 / 3072, augment=Augment(shift=4, flip=True))
    model = replace(base.model, channels=3, size=32, stem=replace(base.model.stem, standard=None))
    return replace(base, model=model, data=CIFAR, recipe=recipe)


def _built(base: Spec, models: dict[str, CapsNetConfig]) -> dict[str, Spec]:
    return {name: replace(base, model=model) for name, model in models.items()}


def _decoupled(base: Spec, weight_decay: float) -> Spec:
    """Weight decay apart from the gradient: without Adam's division by the gradient's size."""
    hook = DecoupledDecay(weight_decay=weight_decay)
    return replace(base, recipe=replace(base.recipe, weight_decay=0.0, hooks=(hook,)))
