"""Which units classes share, and how active those are (Tawalbeh & Oramas 2024, sec. 6.2, Table 3 and figure 15)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from capsnb.measure.paths import Places, Ranking, Reading, look, top
from capsnb.nn import taps


class Sharing(NamedTuple):
    """Counts of units among the chosen ones of each class."""

    pairs: Tensor  # (K, K) units that two classes both chose; each class's own count on the diagonal
    exclusive: Tensor  # (K,) units that no other class chose
    shared: Tensor  # (K,) units that at least one other class chose


class Strength(NamedTuple):
    """Mean activation of a class's chosen units on its own images; nan where a class has none of the kind."""

    exclusive: Tensor  # (K,)
    shared: Tensor  # (K,)

    def means(self) -> dict[str, float]:
        """Mean of both kinds over the classes that have both, so that no class counts on one side alone."""
        both = self.exclusive.isfinite() & self.shared.isfinite()
        return {name: getattr(self, name)[both].mean().item() for name in self._fields}


def unit_sets(ranking: Ranking, k: int) -> Tensor:
    """The k most relevant units of each class. -> (K, U) bool"""
    if not 0 < k <= ranking.units.shape[1]:
        raise ValueError(f"k = {k}: there are {ranking.units.shape[1]} units to choose from.")
    return top(ranking.units, [k])[:, 0]


def sharing(sets: Tensor) -> Sharing:
    """Exclusive and shared units of sets (K, U), bool."""
    counts = sets.long()
    alone = sets & (counts.sum(0) == 1)
    return Sharing(counts @ counts.T, alone.sum(1), (sets & ~alone).sum(1))


def shared_by_chance(k: int, units: int) -> float:
    """Units that two classes share when each draws k of them at random: the mean, k^2 / units."""
    return k * k / units


def shuffled(ranking: Ranking, *, seed: int = 0) -> Ranking:
    """The null: every class's relevances belong to other units, drawn anew for each class; filters likewise."""
    generator = torch.Generator().manual_seed(seed)
    filters, units = (part.gather(1, torch.rand(part.shape, generator=generator).argsort(1)) for part in ranking[:2])
    return Ranking(filters, units, ranking.count)


def activation_by_sharing(
    model: nn.Module, split: Any, sets: Tensor, reading: Reading, *, places: Places | None = None, batch: int = 500
) -> Strength:
    """Whether shared units are less active than exclusive ones, as sec. 6.2 says of every set of images.

    A vector capsule's activation is its pose's length, a matrix capsule's its own; a type's is the mean over its
    positions. sets: (K, U) bool of `unit_sets`.
    """
    places = places or Places.of(model)
    sums, count = torch.zeros(sets.shape, dtype=torch.float64), torch.zeros(len(sets), dtype=torch.float64)
    with taps.evaluating(model):
        for images, labels, _ in split.to(next(model.parameters()).device).batches(batch):
            _, active, _ = look(model, images, labels, Reading(of="activation"), places)
            if reading.unit == "type":
                active = active.unflatten(-1, (-1, places.types(model))).mean(-2)
            one_hot = nn.functional.one_hot(labels, len(sets)).double()
            sums += (one_hot.T @ active.double()).cpu()
            count += one_hot.sum(0).cpu()
    means = sums / count.unsqueeze(1)
    alone = sets & (sets.sum(0) == 1)
    kinds = [torch.where(kind, means, 0).sum(1) / kind.sum(1) for kind in (alone, sets & ~alone)]
    return Strength(*kinds)


def class_similarity(split: Any, classes: int) -> Tensor:
    """How alike two classes look: the correlation of their mean images. -> (K, K)

    Ours, so that "similar classes share more units" is measured on all pairs, not on the seven of Table 3.
    """
    shown = split.labels.unique()
    if len(shown) != classes:
        raise ValueError(f"the split shows {len(shown)} of {classes} classes; each needs an image to have a mean.")
    means = torch.stack([split.images[split.labels == label].double().mean(0).flatten() for label in range(classes)])
    return torch.corrcoef(means)


def sharing_follows(pairs: Tensor, similarity: Tensor) -> float:
    """Spearman's rank correlation of shared units with similarity over all pairs of classes; nan if one is constant."""
    from scipy.stats import spearmanr

    first, second = torch.triu_indices(len(pairs), len(pairs), 1)
    x, y = pairs[first, second].double().cpu(), similarity[first, second].double().cpu()
    if x.unique().numel() < 2 or y.unique().numel() < 2:
        return float("nan")
    return float(spearmanr(x.numpy(), y.numpy()).statistic)
