"""The range that activations really take: first-order statistics per unit, class and layer, and from them the interval
alpha over which a capsule is perturbed (Tawalbeh & Oramas 2024, sec. 4.1 and Table 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from capsnb.nn import taps
from capsnb.nn.layers import length

STEPS = 12  # values that divide an interval, both ends included: Table 2's steps in figure 9 are (high - low) / 11


@dataclass(frozen=True, eq=False)
class Statistics:
    """First-order statistics of every unit of one place, by class: the paper's eta, in float64.

    `std` is that of the population. A class without images has infinite ends and nan elsewhere.
    """

    count: Tensor  # (K,) images of each class
    low: Tensor  # (K, ...) smallest value of each unit
    high: Tensor  # (K, ...)
    mean: Tensor  # (K, ...)
    std: Tensor  # (K, ...)

    def overall(self) -> Statistics:
        """The same over all classes at once (A_all), as one class."""
        weight = (self.count / self.count.sum()).reshape(-1, *[1] * (self.mean.dim() - 1))
        seen = self.count > 0
        weight, parts = weight[seen], self.mean[seen]
        mean = (weight * parts).sum(0, keepdim=True)
        variance = (weight * (self.std[seen] ** 2 + (parts - mean) ** 2)).sum(0, keepdim=True)
        ends = self.low.amin(0, keepdim=True), self.high.amax(0, keepdim=True)
        return Statistics(self.count.sum(0, keepdim=True), *ends, mean, variance.sqrt())


@dataclass(frozen=True, eq=False)
class Intervals:
    """[low, high] of each class, and the overarching alpha that holds them all."""

    low: Tensor  # (K,)
    high: Tensor  # (K,)

    @property
    def alpha(self) -> tuple[float, float]:
        """From the lowest low to the highest high of the classes that were seen."""
        return float(self.low.min()), float(self.high.max())

    def steps(self, label: int | None = None, count: int = STEPS) -> Tensor:
        """`count` values from end to end, alpha's or one class's. -> (count,)"""
        if count < 2:
            raise ValueError(f"{count} steps do not span an interval; at least 2 are needed.")
        low, high = self.alpha if label is None else (float(self.low[label]), float(self.high[label]))
        if not low < high < float("inf"):
            raise ValueError(f"class {label} has no interval: no image of it was seen, or its values do not vary.")
        return torch.linspace(low, high, count)


def activation_statistics(
    model: nn.Module, split: Any, places: Sequence[str], *, classes: int | None = None, batch: int = 500
) -> dict[str, Statistics]:
    """Smallest, largest, mean and std of every unit at taps of a model, by true class, one batch in memory at a time.

    places: names of taps; between bars, "|class.poses|", the lengths of the vectors there, which is what a vector
    capsule's activation is. classes: K; as many as the split's labels tell when None.
    Raises ValueError for a missing tap or labels of pairs.
    """
    names = {place: place.strip("|") for place in places}
    folds: dict[str, _Fold] = {}

    def fold(state: None, seen: taps.Record, part: Any) -> None:
        if part.labels.dim() != 1:
            raise ValueError("activation statistics are by class: each image needs one label, these have several.")
        for place, name in names.items():
            values = length(seen[name]) if place.startswith("|") else seen[name]
            if place not in folds:
                folds[place] = _Fold(count, values)
            folds[place].add(values, part.labels)

    split = split.to(next(model.parameters()).device)
    if not len(split):
        raise ValueError("the split has no images, so there are no activations.")
    count = classes or 1 + max(int(part.labels.max()) for part in split.batches(batch))
    taps.stream(model, split.batches(batch), set(names.values()), fold)
    return {place: folds[place].result() for place in places}


def class_intervals(statistics: Statistics, *, own: bool = True) -> Intervals:
    """Table 2: the interval of each class, over all dimensions of the class capsule.

    statistics: of poses (K, K, D) or of activations (K, K), such as "class.poses" and "|class.poses|".
    own: the class's own capsule on its images; False takes all capsules of the layer. The paper says neither; the
    interval is applied to the active capsule, so its own is our reading.
    """
    low, high = statistics.low, statistics.high
    if own:
        if low.dim() < 2 or low.shape[0] != low.shape[1]:
            raise ValueError(f"a class's own capsule needs statistics (K, K, ...), not {tuple(low.shape)}.")
        each = torch.arange(len(low), device=low.device)
        low, high = low[each, each], high[each, each]
    return Intervals(low.flatten(1).amin(1), high.flatten(1).amax(1)) if low.dim() > 1 else Intervals(low, high)


class _Fold:
    """Running statistics by class; means are merged batch by batch, so that no large sum loses small variances."""

    def __init__(self, classes: int, like: Tensor) -> None:
        shape = (classes, *like.shape[1:])
        self.count = torch.zeros(classes, dtype=torch.float64, device=like.device)
        self.low = torch.full(shape, torch.inf, dtype=torch.float64, device=like.device)
        self.high = -self.low
        self.mean, self.squares = torch.zeros_like(self.low), torch.zeros_like(self.low)

    def add(self, values: Tensor, labels: Tensor) -> None:
        for label in labels.unique().tolist():
            part = values[labels == label].double()
            self.low[label] = self.low[label].minimum(part.amin(0))
            self.high[label] = self.high[label].maximum(part.amax(0))
            mean, before = part.mean(0), self.count[label].clone()
            self.count[label] += len(part)
            delta = mean - self.mean[label]
            self.mean[label] += delta * (len(part) / self.count[label])
            self.squares[label] += ((part - mean) ** 2).sum(0) + delta**2 * (before * len(part) / self.count[label])

    def result(self) -> Statistics:
        count = self.count.reshape(-1, *[1] * (self.mean.dim() - 1))
        mean = torch.where(count > 0, self.mean, torch.nan)
        return Statistics(self.count, self.low, self.high, mean, (self.squares / count).sqrt())
