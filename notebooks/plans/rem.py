"""Notebook 03: few and stable parse trees by pruning (REM, Renzulli, Tartaglione & Grangetto 2022).

Variants are named set/variant, the sets as in the paper's tables: mnist (Tables 2 to 5, figures 4 to 8), fashion-mnist,
cifar10, tiny-imagenet (Table 6), affnist and "affnist, under-trained" (Table 7); at long also "mnist 14x14", the
networks of sweeps/rem_dose.toml with more controls, and decoders stacked on them. Of MNIST:

plain, rem        the paper's pair: without and with LOBSTER
pull alone        REM's pull, nothing pruned: is it the weights that are gone, or those that are small?
pruning alone     REM's threshold, nothing pulled
l2                REM with plain l2 as the penalty
magnitude, random as many weights gone as REM is expected to take, chosen otherwise
1 iteration       T = 1, exactly zero entropy with uniform couplings (sec. 3.1)
fewer capsules    a quarter of the types of primary capsules, not pruned
decoder,
rem and decoder   trained with a decoder, which is said to undo the gain (sec. 4.3)
stacked, rem stacked,
untrained stacked a decoder trained alone on the frozen encoder, that of plain, of rem (figure 8), or one never trained

Costs, on one thread of a fast core: 4.4 minutes of a plain 14x14 network, 6.7 of REM's, whose threshold is sought; what
is measured of one afterwards half a minute. The slow core of the pilot (seed 100, which is not declared) took 15. Tiny
ImageNet, which can seldom be tried: 47 ms an image (in batches of 128, random pixels and backbone), so 1.3
hours an epoch of 100,000 images and 11 days for 200 epochs; ten networks are declared, REM's threshold comes on top.

Order of worth where hours are short: sweeps/rem_dose.toml, MNIST's pair, sweeps/rem_pull.toml, then the rest of long;
Tables 6 and 7 at their own size are of full. `capsnb results open` has the hours of each.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from capsnb.data import Augment, DataSpec
from capsnb.data.transforms import Affine, Translated
from capsnb.evidence.plans import Watched
from capsnb.nn.models import ZOO, StridedStem
from capsnb.nn.models.backbone import BackboneStem
from capsnb.training.pruning import Lobster, Penalty, ToSparsity, ramp
from capsnb.training.recipe import Recipe
from capsnb.training.spec import Spec

OPENS = "long"
ENCODER = ("conv1", "primary", "class")
# "epochs: 100" of the released configurations stops nothing: a run ends when 200 epochs have not lowered the loss
PAPER = Recipe(
    epochs=1000,
    decay=0.99,
    decay_every=1,
    decay_unit="epochs",
    min_learning_rate=0.0,
    patience=201,
)
MNIST = DataSpec(name="mnist", validation=5500)
AFFNIST = replace(MNIST, derive=Translated(splits=("validation",)))  # trained on digits anywhere: shifts of 6 px
SPARSITY = 0.8553  # Table 4
SPARSITY_14 = 0.49  # what REM took of the first three 14x14 networks
HALF = replace(
    ZOO["rem-28"].config, size=14, stem=StridedStem(channels=16, kernel=5, types=4), decoder_widths=(64, 128)
)
EIGHTH = StridedStem(channels=32, types=4)
SMALLEST = replace(HALF, stem=StridedStem(channels=8, kernel=5, types=2, dim=4), decoder_widths=(16, 32))
# of every network: those of rem_dose.toml, and what the tables of single networks show
MEASURES = (
    "trees by class",
    "keys by levels",
    "bins",
    "key information",
    "key groups",
    "known keys",
    "images of a key",
    "ideal tree",
    "why couplings stay open",
    "mean couplings",
    "sparsity",
)
OF_DECODERS = ("beyond the class", "redrawn")
CLUSTERS = "clusters of a key"  # figure 7, of the paper's network
DOSE = 4.26  # what all pulls of the released schedule add up to, however long, in steps of MNIST
# released: 0.0005 times the sum of squares of pixels in units of their standard deviation, 0.3081; ours are in [0, 1]
RECONSTRUCTION = 5e-4 / 0.3081**2


def pruned(spec: Spec, hook: Any) -> Spec:
    """The same training with a pruning hook."""
    return replace(spec, recipe=replace(spec.recipe, hooks=(hook,)))


def dosed(epochs: int, steps: int) -> Penalty:
    """The released pull, stronger, so that so many epochs of so many steps have all of it."""
    return Penalty(strength=float(f"{DOSE / (steps * sum(Penalty().decay ** epoch for epoch in range(epochs))):.3g}"))


def stacked(spec: Spec, epochs: int) -> Spec:
    """A decoder trained alone on a run's encoder: nothing of the encoder changes (sec. 4.3)."""
    recipe = replace(spec.recipe, epochs=epochs, hooks=(), patience=None, target_accuracy=None)
    recipe = replace(recipe, reconstruction_weight=RECONSTRUCTION)
    model = replace(spec.model, decoder="conditional")
    return replace(spec, model=model, recipe=recipe, start=spec, reset=("decoder",), frozen=ENCODER)


def decoded(spec: Spec) -> Spec:
    """The same training with a decoder."""
    recipe = replace(spec.recipe, reconstruction_weight=RECONSTRUCTION)
    return replace(spec, model=replace(spec.model, decoder="conditional"), recipe=recipe)


def pair(base: Spec, lobster: Lobster) -> dict[str, Spec]:
    """Without and with REM."""
    return {"plain": base, "rem": pruned(base, lobster)}


def controls(base: Spec, lobster: Lobster, schedule: tuple[float, ...]) -> dict[str, Spec]:
    """Is a low entropy the pruning's doing? Each half of REM alone, other weights gone, fewer or unrouted capsules."""
    l2, none = replace(lobster.penalty, sensitive=False), replace(lobster.penalty, strength=0.0)
    model, stem = base.model, base.model.stem
    few = replace(stem, types=max(1, stem.types // 4))
    return {
        "pull alone": pruned(base, ToSparsity(schedule=(0.0,), penalty=lobster.penalty)),
        "pruning alone": pruned(base, replace(lobster, penalty=none)),
        "l2": pruned(base, replace(lobster, penalty=l2)),
        "magnitude": pruned(base, ToSparsity(schedule=schedule)),
        "random": pruned(base, ToSparsity(schedule=schedule, choose="random")),
        "1 iteration": replace(base, model=replace(model, routing=replace(model.routing, iterations=1))),
        "fewer capsules": replace(base, model=replace(model, stem=few)),
    }


def with_decoders(specs: dict[str, Spec]) -> dict[str, Spec]:
    """With a decoder in training."""
    return {"decoder": decoded(specs["plain"]), "rem and decoder": decoded(specs["rem"])}


def with_stacked(specs: dict[str, Spec], epochs: int) -> dict[str, Spec]:
    """With a decoder stacked on what was trained without, and on what was not trained at all."""
    found = {"stacked": stacked(specs["plain"], epochs), "rem stacked": stacked(specs["rem"], epochs)}
    return found | {"untrained stacked": replace(found["stacked"], start=None, reset=())}


def named(group: str, specs: dict[str, Spec]) -> dict[str, Spec]:
    """group/variant -> Spec."""
    return {f"{group}/{name}": spec for name, spec in specs.items()}


def measured(variants: dict[str, Spec], sizes: dict[str, dict[str, Any]]) -> dict[str, tuple[Watched, ...]]:
    """Of each variant, what is measured besides the survey."""
    more = {name: OF_DECODERS for name, spec in variants.items() if spec.model.decoder != "none"}
    more["mnist/rem"] = (CLUSTERS,)
    return {name: tuple((each, sizes.get(each, {})) for each in (*MEASURES, *more.get(name, ()))) for name in variants}


def content(profile: str) -> dict[str, Any]:
    """All sets in full; MNIST's pair for 12 epochs at long; MNIST's variants, reduced, on the embedded digits below."""
    small = {"smoke": _smoke, "quick": _quick}
    return small[profile]() if profile in small else _long() if profile == "long" else _full()


def _plan(
    variants: dict[str, Spec], seeds: int, *, images: int | None = None, levels: tuple[int, ...] | None = None
) -> dict[str, Any]:
    """images: test images of every measure, levels: numbers of them that are compared; where not the measures' own.

    Its settings: sizes: measure -> settings. affnist: the released set, and the affNIST-like one that stands in where
    it is not there, both as a `DataSpec` (the second one derived from MNIST's test digits).
    """
    sizes: dict[str, dict[str, Any]] = {
        name: {"images": images} for name in (*MEASURES, CLUSTERS, "keys in training") if images and name != "sparsity"
    }
    if levels:
        sizes["keys by levels"] = sizes.get("keys by levels", {}) | {"levels": levels}
    watch = {"curve": ("curve", {}), "keys": ("keys in training", sizes.get("keys in training", {}))}
    affnist = {"affnist": DataSpec(name="affnist"), "affnist-like": replace(MNIST, derive=Affine(kind="a"))}
    return {
        "seeds": seeds,
        "variants": variants,
        "watch": watch,
        "measures": measured(variants, sizes),
        "settings": {"sizes": sizes} | affnist,
    }


def _smoke() -> dict[str, Any]:
    data = DataSpec(resize=14, train=128, validation=60, test=60)
    base = Spec(model=SMALLEST, data=data, recipe=replace(PAPER, epochs=2, batch=32, patience=None))
    lobster = Lobster(penalty=Penalty(strength=0.01), above=0.0, trials=6)
    specs = pair(base, lobster)
    specs |= controls(base, lobster, ramp(0.5, 1)) | with_decoders(specs) | with_stacked(specs, 1)
    return _plan(named("mnist", specs), 1, images=60, levels=(3, 11))


def _quick() -> dict[str, Any]:
    recipe = replace(PAPER, epochs=10, batch=64, learning_rate=3e-3, decay=0.9, augment=Augment(shift=1), patience=None)
    base = Spec(model=HALF, data=DataSpec(resize=14, validation=500), recipe=recipe)
    # 550 steps where the paper has some 80,000: a penalty 30 times as strong makes up for a part of it
    lobster = Lobster(penalty=Penalty(strength=3e-3), images=250, trials=12)
    specs = pair(base, lobster)
    specs |= controls(base, lobster, ramp(0.5, 8)) | with_decoders(specs)
    return _plan(named("mnist", specs), 1, images=1000)


def _long() -> dict[str, Any]:
    base = Spec(model=ZOO["rem-28"].config, data=MNIST, recipe=replace(PAPER, epochs=12, patience=None))
    variants = named("mnist", pair(base, Lobster(penalty=dosed(12, 426), images=2_000, trials=12)))
    recipe = replace(base.recipe, epochs=60, augment=Augment(shift=1))
    small = Spec(model=HALF, data=replace(MNIST, resize=14), recipe=recipe)
    specs = pair(small, Lobster())
    specs |= controls(small, Lobster(), ramp(SPARSITY_14, 50)) | with_decoders(specs) | with_stacked(specs, 60)
    variants |= named("mnist 14x14", specs)
    fashion = replace(base, model=replace(base.model, stem=EIGHTH), data=replace(MNIST, name="fashion-mnist"))
    fashion = replace(fashion, recipe=replace(base.recipe, augment=Augment(shift=2, flip=True)))
    variants |= named("fashion-mnist", pair(fashion, Lobster(penalty=dosed(12, 426))))
    model = replace(ZOO["rem-24"].config, stem=replace(EIGHTH, types=8))
    data = DataSpec(name="cifar10", resize=24, validation=5500)
    cifar = Spec(model=model, data=data, recipe=replace(base.recipe, augment=Augment(flip=True)))
    variants |= named("cifar10", pair(cifar, Lobster(penalty=dosed(12, 348))))
    return _plan(variants, 3)


def _full() -> dict[str, Any]:
    mnist = Spec(model=ZOO["rem-28"].config, data=MNIST, recipe=PAPER)
    specs = pair(mnist, Lobster())
    specs |= controls(mnist, Lobster(), ramp(SPARSITY, 50)) | with_decoders(specs) | with_stacked(specs, 50)
    fashion = replace(
        mnist,
        data=replace(MNIST, name="fashion-mnist"),
        recipe=replace(PAPER, augment=Augment(shift=2, flip=True)),
    )
    # the released code also jitters brightness and contrast
    cifar = Spec(
        model=ZOO["rem-24"].config,
        data=DataSpec(name="cifar10", resize=24, validation=5500),
        recipe=replace(PAPER, augment=Augment(flip=True)),
    )
    tiny = Spec(
        model=replace(ZOO["rem-28"].config, channels=3, size=64, classes=200, stem=BackboneStem()),
        data=DataSpec(name="tiny-imagenet"),
        recipe=replace(PAPER, augment=Augment(flip=True, rotation=20.0)),
    )
    affnist = Spec(model=ZOO["rem-40"].config, data=AFFNIST, recipe=replace(PAPER, augment=Augment(shift=6)))
    early = replace(affnist.recipe, target_accuracy=0.9922, stop_on="test", keep="last")
    variants = named("mnist", specs)
    for group, base in {"fashion-mnist": fashion, "cifar10": cifar, "tiny-imagenet": tiny, "affnist": affnist}.items():
        variants |= named(group, pair(base, Lobster()))
    variants |= named("affnist, under-trained", pair(replace(affnist, recipe=early), Lobster()))
    return _plan(variants, 5)
