"""The range that activations really take, per unit, class and layer, and from it the interval alpha over which a
capsule is perturbed (Tawalbeh & Oramas 2024, sec. 4.1 and Table 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from capsnb.nn import taps
from capsnb.nn.layers import length

STEPS = 12  # values that divide an interval, both ends included: Table 2's steps in figure 9 are (high - low) / 11


class Statistics(NamedTuple):
    """Ends of the values of every unit of one place, by class, in float64: what Table 2 needs of the paper's eta.

    A class without images has infinite ends.
    """

    low: Tensor  # (K, ...) smallest value of each unit
    high: Tensor  # (K, ...)


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
    """Smallest and largest value of every unit at taps of a model, by true class, one batch in memory at a time.

    places: names of taps; between bars, "|class.poses|", the lengths of the vectors there, which is what a vector
    capsule's activation is. classes: K; as many as the split's labels tell when None.
    Raises ValueError for a missing tap or labels of pairs.
    """
    names = {place: place.strip("|") for place in places}
    found: dict[str, Statistics] = {}

    def fold(state: None, seen: taps.Record, part: Any) -> None:
        if part.labels.dim() != 1:
            raise ValueError("activation statistics are by class: each image needs one label, these have several.")
        for place, name in names.items():
            values = (length(seen[name]) if place.startswith("|") else seen[name]).double()
            if place not in found:
                unseen = values.new_full((count, *values.shape[1:]), torch.inf)
                found[place] = Statistics(unseen, -unseen)
            low, high = found[place]
            for label in part.labels.unique().tolist():
                own = values[part.labels == label]
                low[label] = low[label].minimum(own.amin(0))
                high[label] = high[label].maximum(own.amax(0))

    split = split.to(next(model.parameters()).device)
    if not len(split):
        raise ValueError("the split has no images, so there are no activations.")
    count = classes or 1 + max(int(part.labels.max()) for part in split.batches(batch))
    taps.stream(model, split.batches(batch), set(names.values()), fold)
    return found


def class_intervals(statistics: Statistics) -> Intervals:
    """Table 2: the interval of each class, over all dimensions of its own class capsule.

    statistics: of poses (K, K, D) or of activations (K, K), such as "class.poses" and "|class.poses|". The paper does
    not say whether a class's own capsule or all of them are meant; the interval is applied to the active capsule, so
    its own is our reading.
    """
    low, high = statistics.low, statistics.high
    if low.dim() < 2 or low.shape[0] != low.shape[1]:
        raise ValueError(f"a class's own capsule needs statistics (K, K, ...), not {tuple(low.shape)}.")
    each = torch.arange(len(low), device=low.device)
    low, high = low[each, each], high[each, each]
    return Intervals(low.flatten(1).amin(1), high.flatten(1).amax(1)) if low.dim() > 1 else Intervals(low, high)
