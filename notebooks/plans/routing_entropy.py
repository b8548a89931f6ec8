"""Notebook 02: routing entropy, a known manifold, and transfer (Lin, Li & Ma 2018).

Variants:

iterations/N           the capsule network with N iterations (figure 2a); 6 is also eta = 1 of figures 2b and 3
rate/ETA               6 iterations, soft updates (figures 2b, 3)
cnn, average           as many plain neurons in each layer (sec. 3.1, 3.2); a ConvNet with global average pooling, ours
transfer/NET/SCHEME    networks with one more layer on two halves of the class pairs (sec. 3.3), NET capsnet or cnn;
                       SCHEME source (trained on A), base, B1B, B2B, A1B, A2B; controls: B1B+, B2B+, where nothing is
                       kept still, and continued, base going on for as many steps. A seed draws the split, too
random/NET/SCHEME      their null: R1B, R2B, whose lower layers are kept as they were drawn
re-adjusted/NET/...    the same, the layers above going on from where they were
schedule/FIELD         6 iterations, certainty made to follow the training accuracy: the paper's own heuristic, untried
other/CHOICE/...       the claims of figure 2 under another choice where the paper is silent
routing/NAME           a reader's own, in place of three iterations
sabour                 Sabour et al.'s network on MNIST: does its entropy fall as well?

What is recorded took, by the clock beside other load, 6.7 core-hours for ten seeds of all variants of long, 0.2 of
them for `random`, which was declared last; sweeps/certainty.toml, 13 routings and five seeds, 1.7, and
sweeps/longer.toml, four routings for 24 passes, 1.2: 9.6 of the 20 that this notebook may cost. A network of ten
passes took about a minute beside another. Left to full: other and sabour, which no claim rests on, and more than ten
passes of every network. At full, 36x36 at Sabour's widths, a network takes 4.6 to 7.2 core-hours, and five seeds of
all variants a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from capsnb.data import Augment, DataSpec
from capsnb.data.transforms import Pairs
from capsnb.evidence.plans import Watched
from capsnb.measure import manifold, transfer
from capsnb.nn.models import ZOO, CapsNetConfig, ConvNetAvgConfig, StridedStem, neuron_twin
from capsnb.nn.routing import Dynamic
from capsnb.training.hooks import FollowFitness
from capsnb.training.recipe import Recipe
from capsnb.training.spec import Spec

PAPER = ZOO["lin-36"].config
REDUCED = replace(PAPER, size=20, stem=StridedStem(channels=16, kernel=5, types=4), hidden=((8, 8),), dim=8)
SMALLEST = replace(PAPER, size=18, stem=StridedStem(channels=4, kernel=5, types=2, dim=4), hidden=((4, 4),), dim=4)
# the paper: 30,889 training and 4,738 test images of 36x36, fixed
MULTIMNIST = DataSpec(name="mnist", derive=Pairs(train=30_889, validation=2_000, test=4_738))
# pairs are placed once and for all, so that nothing is augmented
RECIPE = Recipe(epochs=20, augment=Augment())
OPENS = "long"
ITERATIONS = (1, 2, 3, 4, 5, 6, 7, 9)
RATES = (0.01, 0.1, 0.5)
SOFT = 6  # the iterations of figure 2b
SEEN = (0, 1, 2)  # seeds of long that were measured before some of the claims were put down
HALVED = ("half the learning rate",)
CHOICES: dict[str, Callable[[Spec], Spec]] = {
    "half the learning rate": lambda spec: _with(spec, "recipe", learning_rate=spec.recipe.learning_rate / 2),
    "32 capsules of 8": lambda spec: _with(spec, "model", hidden=((32, 8),)),
    "exponential squash": lambda spec: _with(spec, "model", squash="exponential"),
    "gradient of the last iteration": lambda spec: _with(spec, "model", routing=Dynamic(gradient="last")),
}


def _with(spec: Spec, part: str, **changes: Any) -> Spec:
    return replace(spec, **{part: replace(getattr(spec, part), **changes)})


def routed(spec: Spec, **changes: Any) -> Spec:
    """The same training with other fields of its routing, in all layers."""
    return replace(spec, model=replace(spec.model, routing=replace(spec.model.routing, **changes)))


def updates(base: Spec, iterations: Sequence[int], rates: Sequence[float]) -> dict[str, Spec]:
    """Figures 2 and 3: numbers of iterations, and soft updates at 6 of them."""
    found = {f"iterations/{count}": routed(base, iterations=count) for count in iterations}
    return found | {f"rate/{rate:g}": routed(base, iterations=SOFT, rate=rate) for rate in rates}


def convnets(base: Spec) -> dict[str, Spec]:
    """The network of equal neurons, and one that averages over all positions."""
    stem = base.model.stem
    average = ConvNetAvgConfig(size=base.model.size, width=stem.types * stem.dim, kernel=stem.kernel)
    recipe = replace(base.recipe, loss="bce")
    return {
        "cnn": replace(base, model=neuron_twin(base.model), recipe=recipe),
        "average": replace(base, model=average, recipe=recipe),
    }


def transfers(base: Spec, data: DataSpec, *, fresh: bool = True, epochs: int | None = None) -> dict[str, Spec]:
    """NET/SCHEME -> Spec for networks of `deeper`; `data` is of one domain's size.

    epochs: of source and base, which the others start from, where these train longer.
    """
    halves = transfer.domains(data)
    return {
        f"{name}/{scheme}": found
        for name, spec in deeper(base).items()
        for scheme, found in transfer.schemes(
            spec, halves, fresh=fresh, first=epochs and replace(spec.recipe, epochs=epochs)
        ).items()
    }


def deeper(base: Spec) -> dict[str, Spec]:
    """Capsules and as many neurons, with one more layer like the last hidden one."""
    deep = replace(base.model, hidden=(*base.model.hidden, base.model.hidden[-1]))
    plain = replace(base.recipe, loss="bce")
    return {"capsnet": replace(base, model=deep), "cnn": replace(base, model=neuron_twin(deep), recipe=plain)}


def transfer_nulls(base: Spec, data: DataSpec) -> dict[str, Spec]:
    """NET/SCHEME -> Spec of networks whose lower layers are kept as they were drawn."""
    halves = transfer.domains(data)
    return {
        f"{name}/{scheme}": found
        for name, spec in deeper(base).items()
        for scheme, found in transfer.random_layers(spec, halves).items()
    }


def schedules(base: Spec, fields: Sequence[str] = ("rate", "temperature")) -> dict[str, Spec]:
    """6 iterations whose rate rises from 0.01 (or whose temperature falls from 10) to 1 with the training accuracy."""
    hooks = {"rate": FollowFitness(), "temperature": FollowFitness(field="temperature", start=10.0)}
    hard = routed(base, iterations=SOFT)
    return {name: replace(hard, recipe=replace(hard.recipe, hooks=(hooks[name],))) for name in fields}


def choices(
    base: Spec,
    names: Sequence[str] = tuple(CHOICES),
    iterations: Sequence[int] = (3, 6, 7),
    rates: Sequence[float] = (0.01,),
) -> dict[str, Spec]:
    """CHOICE/variant: what figures 2a and 2b compare, one choice made otherwise."""
    found = {}
    for name in names:
        other = CHOICES[name](base)
        found |= {f"{name}/{variant}": spec for variant, spec in updates(other, iterations, rates).items()}
    return found


def named(group: str, specs: dict[str, Spec]) -> dict[str, Spec]:
    """group/variant -> Spec."""
    return {f"{group}/{name}": spec for name, spec in specs.items()}


def settings(base: Spec, entropies: dict[str, str], **changes: Any) -> dict[str, Any]:
    """Sizes of the measurements.

    entropy: "R1" and "R2" -> the column of a row that its mean entropy stands in. taps: network -> the intermediate
    layer whose representation is embedded (Cap1, Linear1). digits: (fixed, moving) classes of the shift sets; sets: how
    many of each; radius: how far they move, in pixels. embedding seeds, perplexity: of t-SNE. null draws: of points
    that know nothing. entropy images: of the test set, after training. capsnet: the variant whose network is compared.
    seen: seeds that claims put down after them are not judged on.
    """
    return {
        "entropy": entropies,
        "taps": {"capsnet": "caps1.poses", "cnn": "linear1", "average": "features"},
        "capsnet": "iterations/3",
        "digits": manifold.DIGITS,
        "sets": 5,
        "radius": 4,
        "size": base.model.size,
        "embedding seeds": 10,
        "perplexity": 30.0,
        "null draws": 50,
        "entropy images": 2000,
        "seen": (),
    } | changes


def content(profile: str) -> dict[str, Any]:
    """Everything in full; at long narrower networks, some of the settings; at quick crops of the embedded digits."""
    plans = {"smoke": _smoke, "quick": _quick, "long": _long, "full": _full}
    return plans[profile]()


def _plan(base: Spec, variants: dict[str, Spec], seeds: int, images: int, every: int | None, **changes: Any) -> dict:
    columns = {"R1": "entropy of R1", "R2": "entropy of R2"}
    watch: dict[str, Watched] = {"curve": ("curve", {}), "shares": ("parent shares", {"images": images})}
    for name, layer in {"R1": "caps1", "R2": "class"}.items():
        watch[columns[name]] = ("routing entropy", {"layer": layer, "images": images})
    sizes = settings(base, columns, **changes)
    few = {"sets": sizes["sets"], "radius": sizes["radius"], "seeds": sizes["embedding seeds"]}
    embedded = {sizes["capsnet"] if name == "capsnet" else name: tap for name, tap in sizes["taps"].items()}
    measures: dict[str, tuple[Watched, ...]] = {
        variant: (("associations", {"images": sizes["entropy images"]}),) for variant in variants
    }
    for variant, tap in embedded.items():
        measures[variant] += (("shift manifold", {"tap": tap, **few}),)
    return {
        "seeds": seeds,
        "variants": variants,
        "watch": watch,
        "measures": measures,
        "draws": transfer.redrawn,
        "every": every,
        "settings": sizes,
        "hosts": {"routing/{}": "iterations/3"},
    }


def _smoke() -> dict[str, Any]:
    data = DataSpec(crop=20, resize=10, derive=Pairs(size=18, train=64, validation=40, test=40))
    base = Spec(model=SMALLEST, data=data, recipe=replace(RECIPE, epochs=1, batch=32))
    variants = updates(base, (1, 3, 6, 7), (0.01,)) | convnets(base) | named("transfer", transfers(base, data))
    variants |= named("schedule", schedules(base, ("rate",))) | named("other", choices(base, HALVED, (3, 7), ()))
    variants |= named("random", transfer_nulls(base, data))
    sizes = {"sets": 1, "embedding seeds": 1, "perplexity": 10.0, "null draws": 3, "entropy images": 40}
    return _plan(base, variants | {"sabour": _sabour(base, 64)}, 1, 20, 1, **sizes)


def _quick() -> dict[str, Any]:
    # digits of 12 px move by 4 as those of 28 do: the grid of shifts is the paper's
    data = DataSpec(crop=20, resize=12, derive=Pairs(size=20, train=6_000, validation=200, test=500))
    base = Spec(model=REDUCED, data=data, recipe=replace(RECIPE, epochs=3, batch=32, learning_rate=6e-3))
    domain = replace(data, derive=replace(data.derive, train=4_500))
    variants = updates(base, (1, 3, 6, 7), (0.01,)) | convnets(base)
    variants |= named("transfer", transfers(base, domain)) | named("schedule", schedules(base, ("rate",)))
    variants |= named("random", transfer_nulls(base, domain))
    variants |= named("other", choices(base, HALVED, (3, 7), ())) | {"sabour": _sabour(base, 3_500)}
    sizes = {"sets": 1, "embedding seeds": 1, "null draws": 20, "entropy images": 500}
    return _plan(base, variants, 1, 200, 94, **sizes)  # twice per pass


def _long() -> dict[str, Any]:
    # the paper's number of pairs; digits resized, so that all of their ink stays, and moved by the paper's 4 pixels
    pairs = replace(MULTIMNIST.derive, size=20, validation=2_000, test=10_000)
    data = DataSpec(name="mnist", crop=24, resize=12, derive=pairs)
    base = Spec(model=REDUCED, data=data, recipe=replace(RECIPE, epochs=10, batch=32, learning_rate=3e-3))
    variants = updates(base, (1, 3, 6, 7), RATES) | convnets(base)
    half = replace(data, derive=replace(pairs, train=MULTIMNIST.derive.train // 2))
    # what is kept is kept of a network that has learned: as many steps as the main networks have, on half of the pairs
    variants |= named("schedule", schedules(base, ("rate",))) | named("transfer", transfers(base, half, epochs=20))
    variants |= named("random", transfer_nulls(base, half))
    return _plan(base, variants, 10, 250, 483, sets=2, seen=SEEN, **{"embedding seeds": 2})  # twice per pass


def _full() -> dict[str, Any]:
    base = Spec(model=PAPER, data=MULTIMNIST, recipe=RECIPE)
    half = _half(MULTIMNIST)
    variants = updates(base, ITERATIONS, RATES) | convnets(base) | named("transfer", transfers(base, half))
    again = transfers(base, half, fresh=False)
    variants |= named("re-adjusted", {name: spec for name, spec in again.items() if spec.frozen})
    variants |= named("schedule", schedules(base)) | named("other", choices(base))
    variants |= named("random", transfer_nulls(base, half))
    mnist = Spec(model=CapsNetConfig(), data=DataSpec(name="mnist"), recipe=Recipe(epochs=20))
    return _plan(base, variants | {"sabour": mnist}, 5, 500, 121)  # twice per pass


def _sabour(base: Spec, train: int) -> Spec:
    """Primary and class capsules alone, on so many single digits as they are before they are paired."""
    pairs = base.data.derive
    single = replace(base.data, derive=None, train=train, validation=pairs.validation, test=pairs.test)
    return replace(base, model=replace(base.model, size=single.resize or single.crop, hidden=(), dim=16), data=single)


def _half(data: DataSpec) -> DataSpec:
    """Half of the images for each domain: the paper splits one set in two."""
    sizes = {name: getattr(data.derive, name) // 2 for name in ("train", "validation", "test")}
    return replace(data, derive=replace(data.derive, **sizes))
