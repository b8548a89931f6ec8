"""Is there a parse tree? How couplings move, which capsules live, and whether they see through a change of viewpoint.

Mitterreiter et al. 2023, sec. 4. A parse tree has capsules as nodes and couplings as edges. Everything is gathered
batch by batch (`trace`), so that a whole test set costs no memory; the statistics are plain functions of what was
gathered. Standard deviations are those of a population, as in the authors' working code.

`life` watches the capsules as a network trains.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product, zip_longest
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from capsnb.data import ImageSet
from capsnb.nn import taps
from capsnb.nn.layers import length

THRESHOLDS = (0.05, 0.1, 0.2, 0.5)  # of an active capsule's norm: the paper does not print its own
DEAD = 0.01  # bound of mean and of standard deviation of a dead capsule's norm (the authors' working code)
COUNTED = ("all", "live")


class Conventions(NamedTuple):
    """One way to read the definitions of dyr and dys, which leave open what becomes of dead capsules."""

    dyr_targets: str = "all"  # n in dyr: "all" next capsules, or the "live" ones only
    dys_targets: str = "live"  # n in dys; Table 1 as printed has the live ones
    sources: str = "all"  # whose mean is the layer's: "all" its capsules, or the "live" ones only


TABLE_1 = Conventions()
CONVENTIONS = tuple(Conventions(*each) for each in product(COUNTED, COUNTED, COUNTED))


@dataclass(frozen=True)
class Layer:
    """What `trace` gathers of one capsule layer with I capsules over k images; the next layer has J. float64, CPU."""

    name: str  # of its tap
    norm_mean: Tensor  # (I,)
    norm_std: Tensor  # (I,)
    active: dict[float, Tensor]  # threshold -> (I,) share of images in which each capsule's norm reaches it
    coupling_mean: Tensor | None  # (I, J), None for the last layer
    coupling_std: Tensor | None  # (I, J)

    def dead(self, mean: float = DEAD, std: float = DEAD) -> Tensor:
        """Capsules whose norm has a mean of at most `mean` and a standard deviation of at most `std`. (I,) bool"""
        return (self.norm_mean <= mean) & (self.norm_std <= std)


class Activation(NamedTuple):
    """A row of the paper's Table 2."""

    cnm: float  # mean norm of a capsule
    cns: float  # sum of the norms, mean over images
    car: float  # share of active capsules
    cas: float  # number of active capsules, mean over images
    cdr: float  # share of dead capsules
    cds: int  # number of dead capsules


class Dynamics(NamedTuple):
    """A row of the paper's Table 1."""

    alive: int
    dyr: float  # 0 a routing that never moves, 1 a perfect one
    dys: float  # expected number of targets


class Moments:
    """Mean and population standard deviation over the first axis of what it is fed, batch by batch.

    Sums run over differences from the first row: what never changes has a standard deviation of exactly 0.
    """

    def __init__(self) -> None:
        self.count = 0

    def add(self, values: Tensor) -> None:
        """values: (B, ...)."""
        values = values.double()
        if not self.count:
            self.origin = values[0].clone()
            self.total, self.square = torch.zeros_like(self.origin), torch.zeros_like(self.origin)
        values = values - self.origin
        self.count += len(values)
        self.total += values.sum(0)
        self.square += values.square().sum(0)

    @property
    def mean(self) -> Tensor:
        return (self.origin + self.total / self.count).cpu()

    @property
    def std(self) -> Tensor:
        variance = self.square / self.count - (self.total / self.count).square()
        return variance.clamp_min(0).sqrt().cpu()


def layer_taps(model: nn.Module) -> tuple[list[str], list[str]]:
    """Taps of a model's capsule layers, primary first, and of the couplings between them, in order.

    Raises ValueError for a model whose layers do not follow each other by couplings.
    """
    names = taps.names(model)
    edges = [name for name in names if name.endswith(".coupling")]
    nodes = ["primary", *(name.removesuffix("coupling") + "poses" for name in edges)]
    if not edges or (missing := [name for name in nodes if name not in names]):
        lacks = "couplings" if not edges else ", ".join(missing)
        raise ValueError(f"{type(model).__name__} has no parse tree: it lacks the taps of {lacks}.")
    return nodes, edges


def trace(model: nn.Module, batches: Iterable, *, thresholds: Sequence[float] = THRESHOLDS) -> list[Layer]:
    """Norms, activity and couplings of every capsule layer over all images of `batches`, first layer first.

    batches: of (images, ...), as `Split.batches` gives them. Raises ValueError when there is no image.
    """
    nodes, edges = layer_taps(model)
    norms, couplings = {name: Moments() for name in nodes}, {name: Moments() for name in edges}
    active: dict[str, dict[float, Any]] = {name: dict.fromkeys(thresholds, 0) for name in nodes}

    def fold(state: None, seen: Mapping[str, Tensor], batch: Any) -> None:
        for name in nodes:
            size = length(seen[name])
            norms[name].add(size)
            for bound in thresholds:
                active[name][bound] = active[name][bound] + (size >= bound).double().sum(0).cpu()
        for name in edges:
            couplings[name].add(seen[name])

    taps.stream(model, batches, (*nodes, *edges), fold)
    if not norms[nodes[0]].count:
        raise ValueError("a trace needs at least one batch of images.")
    layers = []
    for name, edge in zip_longest(nodes, edges):
        shares = {bound: count / norms[name].count for bound, count in active[name].items()}
        coupling = (couplings[edge].mean, couplings[edge].std) if edge else (None, None)
        layers.append(Layer(name, norms[name].mean, norms[name].std, shares, *coupling))
    return layers


def perfect_std(targets: int) -> float:
    """Standard deviation of the coupling of a perfect routing to n targets: sqrt((1 - 1/n) / n) (sec. 4.1).

    Perfect: all to one target, to each of them equally often. 0 for one target, which leaves no choice.
    """
    if targets < 1:
        raise ValueError(f"perfect routing to {targets} targets: at least 1 is needed.")
    return math.sqrt((1 - 1 / targets) / targets)


def dyr(coupling_std: Tensor, live: Tensor | None = None) -> Tensor:
    """Dynamic routing coefficient of each capsule: mean over targets of std / perfect std. (I, J) -> (I,), in [0, 1].

    live: (J,) bool, the only targets that count, in n too. With fewer than two targets there is no choice, hence 0.
    """
    kept = coupling_std if live is None else coupling_std[:, live]
    targets = kept.shape[1]
    return kept.mean(1) / perfect_std(targets) if targets > 1 else coupling_std.new_zeros(len(coupling_std))


def dynamics(layer: Layer, following: Layer, conventions: Conventions = TABLE_1) -> Dynamics:
    """Living capsules, dyr and dys of one layer, whose couplings lead to `following`; Table 1 of the paper.

    A layer without a counted capsule routes nothing: 0. Raises ValueError for the last layer or conventions that are
    not made of "all" and "live".
    """
    if layer.coupling_std is None:
        raise ValueError(f"{layer.name} is the last layer: nothing is routed from it.")
    if unknown := [each for each in conventions if each not in COUNTED]:
        raise ValueError(f"{unknown[0]!r} capsules cannot be counted; allowed: {', '.join(COUNTED)}.")
    live, targets = ~layer.dead(), ~following.dead()
    rates = dyr(layer.coupling_std, targets if conventions.dyr_targets == "live" else None)
    rates = rates[live] if conventions.sources == "live" else rates
    rate = float(rates.mean()) if len(rates) else 0.0
    reach = int(targets.sum()) if conventions.dys_targets == "live" else len(targets)
    return Dynamics(int(live.sum()), rate, reach * rate)


def lost(layer: Layer, following: Layer) -> float:
    """The share of its coupling that a living capsule of a layer gives to dead ones of `following`, mean over both
    capsules and images, 0 to 1; NaN where all of the layer is dead. As many as are dead get it where routing is even.

    Raises ValueError for the last layer.
    """
    if layer.coupling_mean is None:
        raise ValueError(f"{layer.name} is the last layer: nothing is routed from it.")
    given = layer.coupling_mean[~layer.dead()]
    return float((given[:, following.dead()].sum(1) / given.sum(1)).mean())  # of none: NaN


def activation(layer: Layer, threshold: float) -> Activation:
    """Norms, active and dead capsules of one layer; Table 2 of the paper. threshold: one that was traced."""
    if threshold not in layer.active:
        raise ValueError(f"threshold {threshold:g} was not traced; traced: {', '.join(map(str, layer.active))}.")
    count, dead = len(layer.norm_mean), layer.dead()
    cns, cas, cds = float(layer.norm_mean.sum()), float(layer.active[threshold].sum()), int(dead.sum())
    return Activation(cns / count, cns, cas / count, cas, cds / count, cds)


def life(model: nn.Module, data: ImageSet, *, images: int = 500) -> dict[str, list]:
    """An observer for runs: norms of every capsule, who is dead, and how much each layer's routing moves.

    On the first validation images, layers from the primary one up. "mean", "std", "dead": a list per layer with one
    entry per capsule; "dyr": one number per layer that routes, all capsules counted.
    """
    split = data.validation
    split = split.select(torch.arange(min(images, len(split)), device=split.labels.device))
    layers = trace(model, split.to(next(model.parameters()).device).batches(250), thresholds=())
    return {
        "mean": [[round(value, 5) for value in layer.norm_mean.tolist()] for layer in layers],
        "std": [[round(value, 5) for value in layer.norm_std.tolist()] for layer in layers],
        "dead": [layer.dead().int().tolist() for layer in layers],
        "dyr": [round(dynamics(first, second).dyr, 5) for first, second in pairwise(layers)],
    }
