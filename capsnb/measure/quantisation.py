"""Couplings on a few levels, "+Q": the uniform quantiser of Renzulli et al. 2022, and what it costs in accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from capsnb.nn import taps
from capsnb.training.evaluation import correct

COUPLING = "class.coupling"  # the tap of the couplings to the class capsules
MOST = 1 << 15


@dataclass(frozen=True, kw_only=True)
class Quantiser:
    """q_K of sec. 3.1: a coupling becomes the centre of its bin. Called with a tensor it is an edit of a tap.

    levels: K. edges: how K bins lie on [0, 1]:
      "centred": levels 0, 1 / (K - 1), ..., 1, edges half-way between them and as far beyond the ends. A coupling of at
        most 1 / (2 (K - 1)) becomes 0. The released code for 10 classes has K = 11: edges -0.05, 0.05, ..., 1.05.
      "inside": K equal bins from 0 to 1, levels (k + 1/2) / K: none is 0. The released code for 200 classes: K = 128.
    A value exactly on an edge belongs to the bin below it, as in the released forward pass; the released dictionary,
    made with another function, counts it to the bin above. Quantised couplings no longer sum to 1 (nor do the paper's).
    """

    levels: int = 11
    edges: str = "centred"

    def __post_init__(self) -> None:
        if not isinstance(self.levels, int) or not 2 <= self.levels <= MOST:
            raise ValueError(f"levels = {self.levels!r}: a whole number from 2 to {MOST:,} is needed")
        if self.edges not in ("centred", "inside"):
            raise ValueError(f"edges = {self.edges!r} is unknown; allowed: 'centred', 'inside'")

    @classmethod
    def released(cls, classes: int) -> Quantiser:
        """That of the released code: K = 11 for sets of 10 classes, 128 bins without a 0 for Tiny ImageNet's 200."""
        return cls() if classes <= 10 else cls(levels=128, edges="inside")

    @property
    def bounds(self) -> Tensor:
        """The K + 1 edges, float64."""
        beyond = 0.5 / (self.levels - 1) if self.edges == "centred" else 0.0
        return torch.linspace(-beyond, 1 + beyond, self.levels + 1, dtype=torch.float64)

    @property
    def values(self) -> Tensor:
        """The K levels, float64."""
        count = torch.arange(self.levels, dtype=torch.float64)
        return count / (self.levels - 1) if self.edges == "centred" else (count + 0.5) / self.levels

    def bins(self, coupling: Tensor) -> Tensor:
        """The bin of each coupling, 0 to K - 1, int32, same shape."""
        inner = self.bounds[1:-1].to(coupling)
        return torch.bucketize(coupling.contiguous(), inner, out_int32=True)

    def __call__(self, coupling: Tensor) -> Tensor:
        return self.values.to(coupling)[self.bins(coupling)]


def quantised_accuracy(model: nn.Module, split: Any, quantiser: Quantiser | None = None, *, batch: int = 250) -> float:
    """Share of right answers when the last iteration's couplings are quantised before the poses are made: "+Q".

    Raises ValueError for a model without the tap COUPLING.
    """
    return quantised_accuracies(model, split, [quantiser or Quantiser()], batch=batch)[0]


def quantised_accuracies(
    model: nn.Module, split: Any, quantisers: Sequence[Quantiser], *, batch: int = 250
) -> list[float]:
    """`quantised_accuracy` with each of several quantisers, in little more than the time of one."""
    if not len(split):
        raise ValueError("the split has no images, so a model has no accuracy on it")
    right = [0] * len(quantisers)
    with taps.evaluating(model), taps.once(model):
        for part in split.to(next(model.parameters()).device).batches(batch):
            for place, quantiser in enumerate(quantisers):
                with taps.edit(model, {COUPLING: quantiser}):
                    scores = model(part.images, *[part.labels] * (part.labels.dim() > 1)).scores
                if not scores.isfinite().all():
                    raise ValueError("the model's scores are no finite numbers, so none is right")
                right[place] += int(correct(scores, part.labels).sum())
    return [count / len(split) for count in right]


def fewest_levels(accuracies: Mapping[int, float], plain: float) -> int | None:
    """ "The lowest K such that the accuracy is not deteriorated" (sec. 3.1), None when every K costs accuracy.

    accuracies: K -> accuracy with K levels, best on validation images. plain: that of continuous couplings.
    """
    return min((count for count, accuracy in accuracies.items() if accuracy >= plain), default=None)
