"""How undecided a routing is: the entropy of each child's coupling over its parents (Lin, Li & Ma 2018, sec. 3.1).

A child's couplings (c_i1, ..., c_iJ) are taken as a distribution over the capsules of the layer above. Its entropy, in
nats (the paper names no unit), is ln J when the child listens to none in particular, and 0 when it has chosen.

The paper averages it over images and children, and prints the average with two right-hand sides that differ:

    H = 1/(N I) sum_n sum_i H[P_i^n]                        "words": its text and its first line
      = -1/(N I J) sum_n sum_i sum_j c_ij^n log c_ij^n      "printed": its second line, smaller by a factor J

With all networks of one J the two have the same order. We show "words".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from capsnb.data import ImageSet, evenly_spaced
from capsnb.nn import taps

READINGS = ("words", "printed")


def association_entropy(coupling: Tensor) -> Tensor:
    """Entropy of each child's distribution over its parents, in nats: 0 to ln J. (B, I, J) -> (B, I)

    Raises ValueError where the couplings of a child are negative or do not sum to 1 (leaky or averaging routings): they
    are no distribution then.
    """
    if coupling.dim() != 3:
        raise ValueError(f"couplings have shape (B, I, J), not {tuple(coupling.shape)}.")
    if coupling.numel() and ((coupling.sum(-1) - 1).abs().max() > 1e-3 or coupling.min() < 0):
        raise ValueError("the couplings of a child are not a distribution over its parents: they do not sum to 1.")
    return torch.special.entr(coupling).sum(-1)


def mean_entropy(coupling: Tensor, *, reading: str = "words") -> float:
    """The paper's average over images and children (B, I, J), in nats, by the reading of that name."""
    if reading not in READINGS:
        raise ValueError(f"reading {reading!r} is unknown; allowed: {', '.join(READINGS)}.")
    value = association_entropy(coupling).double().mean().item()
    return value if reading == "words" else value / coupling.shape[-1]


class Association(NamedTuple):
    """The entropy of one routing over N images, in nats."""

    per_image: Tensor  # (N,) mean over the children
    per_capsule: Tensor  # (I,) mean over the images
    parents: int  # J

    @property
    def mean(self) -> float:
        """Over images and children: the reading of the paper's words."""
        return self.per_image.mean().item()

    @property
    def printed(self) -> float:
        """The same with the printed formula's additional 1/J."""
        return self.mean / self.parents

    @property
    def certainty(self) -> float:
        """1 - mean / ln J: 0 undecided, 1 decided; comparable between layers with different numbers of parents."""
        return 1 - self.mean / math.log(self.parents)


def coupling_taps(model: nn.Module) -> list[str]:
    """The couplings of a model from its lowest routing up (the paper's R1, R2); empty for a network without routing."""
    return [name for name in taps.names(model) if name.endswith("coupling")]


def associations(model: nn.Module, batches: Iterable, names: Sequence[str] | None = None) -> dict[str, Association]:
    """The entropy of each named coupling over all images of `batches`, one batch in memory at a time.

    batches: of (images, ...), as `Split.batches` gives them. names: all couplings of the model when None. Raises
    ValueError for a model without couplings, an unknown tap, no image, or one parent, whose entropy is always 0.
    """
    chosen = coupling_taps(model) if names is None else list(names)
    if not chosen:
        raise ValueError(f"{type(model).__name__} has no coupling whose entropy could be measured.")

    parts: dict[str, list[Association]] = {name: [] for name in chosen}

    def fold(state: None, seen: Mapping[str, Tensor], batch: Any) -> None:
        for name in chosen:
            if seen[name].shape[-1] < 2:
                raise ValueError(f"{name} has one parent only: there is nothing to be undecided about.")
            found = association_entropy(seen[name]).double()
            parts[name].append(Association(found.mean(1).cpu(), found.sum(0).cpu(), seen[name].shape[-1]))

    taps.stream(model, batches, chosen, fold)
    if not parts[chosen[0]]:
        raise ValueError("an entropy needs at least one batch of images.")
    result = {}
    for name, found in parts.items():
        images, totals, parents = zip(*found, strict=True)
        per_image = torch.cat(images)
        result[name] = Association(per_image, sum(totals) / len(per_image), parents[0])
    return result


def layer_entropy(
    model: nn.Module, data: ImageSet, *, layer: str = "caps1", images: int = 500, split: str = "validation"
) -> dict[str, float | None]:
    """The mean entropy of one layer's routing as "value", in nats, on so many images evenly spaced over a split.

    A model without that layer's coupling has None. Raises ValueError for an unknown split, or no images.
    """
    if split not in ("train", "validation", "test"):
        raise ValueError(f"split {split!r} is unknown; allowed: train, validation, test.")
    if images < 1:
        raise ValueError(f"images = {images}: at least 1 is needed.")
    tap = f"{layer}.coupling"
    if tap not in taps.names(model):
        return {"value": None}
    device = next(model.parameters()).device
    batches = evenly_spaced(getattr(data, split).to(device), images)
    return {"value": associations(model, batches, [tap])[tap].mean}


def parent_shares(model: nn.Module, data: ImageSet, *, images: int = 250) -> dict[str, list[float] | None]:
    """How much of all coupling each parent gets, mean over validation images and children: tap -> (J,), of sum 1.

    A parent that starves has nearly 0, an even share is 1/J. Parents by windows (matrix capsules) come position by
    position, J = positions * types. A model without couplings has None, as "value".
    """
    chosen = coupling_taps(model)
    totals: dict[str, Any] = dict.fromkeys(chosen, 0)
    count = 0
    for batch in evenly_spaced(data.validation.to(next(model.parameters()).device), images):
        with taps.record(model, *chosen) as seen, torch.no_grad():
            model(batch.images)
        count += len(batch.images)
        totals = {name: totals[name] + _share(seen[name].double()).sum(0) for name in chosen}
    shares: dict[str, list[float] | None]
    shares = {name: [round(share, 6) for share in (total / count).tolist()] for name, total in totals.items()}
    return shares or {"value": None}


def _share(coupling: Tensor) -> Tensor:
    """What each parent gets of a child, mean over children: (B, I, J), or by windows (B, L, N, C) -> (B, J)."""
    if coupling.dim() == 3:
        return coupling.mean(1)
    got = coupling.sum(2).flatten(1)
    return got / got.sum(1, keepdim=True)
