"""Dictionaries of parse trees: how many different ones a capsule network carves out of a set of images.

Renzulli et al. 2022, sec. 3.1. An image's key are the bins of the couplings of all primary capsules to its predicted
class; each class has a dictionary, key -> number of images. Few keys and a low entropy: recurrent, stable trees. A
class's entropy cannot exceed log2 of its images: at 100 images 6.6 bits, at 1,000 10.0, so that it means little
without that bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from capsnb.data import ImageSet, balanced_order
from capsnb.measure.quantisation import COUPLING, Quantiser
from capsnb.nn import taps
from capsnb.nn.layers import length


@dataclass(frozen=True, eq=False, repr=False)
class Keys:
    """The key of each of N images. A key is known by a number, 0 to M - 1, in the order in which keys appeared.

    The same bins under two predicted classes are two keys: each class has a dictionary of its own.
    """

    codes: np.ndarray  # (N,) the number of each image's key
    labels: np.ndarray  # (N,) true classes
    digests: tuple[bytes, ...]  # M hashes of class and bins: equal keys have equal ones in every dictionary
    owners: np.ndarray  # (M,) the predicted class that each key belongs to
    bins: np.ndarray  # (M, I) bins of each key, from 0
    classes: int

    @property
    def predicted(self) -> np.ndarray:
        """The class predicted for each image, (N,)."""
        return self.owners[self.codes]

    @property
    def accuracy(self) -> float:
        """Share of images whose prediction is right."""
        return float((self.predicted == self.labels).mean())

    @property
    def counts(self) -> np.ndarray:
        """Images of each key, (M,)."""
        return np.bincount(self.codes, minlength=len(self.digests))

    @property
    def nbytes(self) -> int:
        """Bytes that the dictionary holds: bins of each different key, and a few numbers per image."""
        arrays = (self.codes, self.labels, self.owners, self.bins)
        return sum(array.nbytes for array in arrays) + sum(map(len, self.digests))

    def text(self, code: int) -> str:
        """A key as the paper's string of bin numbers, from 1, joined by hyphens."""
        return "-".join(str(number + 1) for number in self.bins[code].tolist())

    def __repr__(self) -> str:
        return f"Keys({len(self.digests):,} keys of {len(self.codes):,} images, {self.bins.shape[1]:,} couplings each)"


class Trees(NamedTuple):
    """The dictionaries of all classes in numbers, one entry per class. A class without images has 0 everywhere."""

    images: tuple[int, ...]  # predicted as the class
    keys: tuple[int, ...]
    entropy: tuple[float, ...]  # bits, eq. 8
    bound: tuple[float, ...]  # bits, log2(images): every image a key of its own

    @property
    def mean_entropy(self) -> float:
        """Eq. 9, over the classes that were predicted at all."""
        return float(np.mean(self._of(self.entropy)))

    @property
    def mean_bound(self) -> float:
        """The largest that `mean_entropy` can be with so many images."""
        return float(np.mean(self._of(self.bound)))

    @property
    def share(self) -> float:
        """Mean entropy over mean bound, 0 to 1: 1 where every image has a key of its own. 0 where the bound is 0."""
        return self.mean_entropy / self.mean_bound if self.mean_bound else 0.0

    @property
    def std_entropy(self) -> float:
        """Standard deviation of the entropy over classes (of the population), as the paper's +- most likely is."""
        return float(np.std(self._of(self.entropy)))

    def _of(self, values: tuple[float, ...]) -> list[float]:
        return [value for value, count in zip(values, self.images, strict=True) if count]


def collect(
    model: nn.Module,
    split: Any,
    quantiser: Quantiser | None = None,
    *,
    tap: str = COUPLING,
    quantised: bool = True,
    batch: int = 100,
) -> Keys:
    """The key of every image of a split, batch by batch; kept are a hash of each key and its bins, a byte each.

    quantised: predictions are those of the network with quantised couplings ("+Q"); False takes the continuous ones.
    tap: of couplings that lead to class capsules. Raises ValueError for a model without it, or no images.
    """
    quantiser = quantiser or Quantiser()
    gathered = _Gathered(quantiser, tap)
    with taps.edit(model, {tap: quantiser} if quantised else {}):
        device = next(model.parameters()).device
        taps.stream(model, split.to(device).batches(batch), (tap, gathered.poses), gathered.fold)
    return gathered.keys()


class _Gathered:
    def __init__(self, quantiser: Quantiser, tap: str) -> None:
        self.quantiser, self.tap, self.poses = quantiser, tap, _poses(tap)
        self.kind = np.uint8 if quantiser.levels <= 256 else np.uint16
        self.found: dict[bytes, tuple[int, int, np.ndarray]] = {}  # hash -> number, class, bins
        self.codes: list[int] = []
        self.labels: list[np.ndarray] = []
        self.classes = 0

    def fold(self, _: None, seen: Mapping[str, Tensor], batch: Any) -> None:
        scores, coupling = length(seen[self.poses]), seen[self.tap]
        self.classes, winner = scores.shape[1], scores.argmax(1)
        own = coupling.gather(2, winner[:, None, None].expand(-1, coupling.shape[1], 1)).squeeze(2)  # (B, I)
        rows = self.quantiser.bins(own).cpu().numpy().astype(self.kind)
        for row, label in zip(rows, winner.tolist(), strict=True):
            digest = blake2b(row.tobytes(), digest_size=16, salt=label.to_bytes(8, "big")).digest()
            self.codes.append(self.found.setdefault(digest, (len(self.found), label, row))[0])
        self.labels.append(batch[1].cpu().numpy())

    def keys(self) -> Keys:
        if not self.codes:
            raise ValueError("a dictionary needs at least one image.")
        _, owners, bins = zip(*self.found.values(), strict=True)
        labels = np.concatenate(self.labels)
        return Keys(np.array(self.codes), labels, tuple(self.found), np.array(owners), np.stack(bins), self.classes)


def entropy(counts: Any) -> float:
    """Entropy in bits of how often each key occurs: 0 for one key, log2 N for N keys of one image each (eq. 8)."""
    counts = np.asarray(counts, dtype=float)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum() + 0.0)


def trees(keys: Keys) -> Trees:
    """Images, keys, entropy and its bound for each class."""
    counts = [keys.counts[keys.owners == label] for label in range(keys.classes)]
    images = tuple(int(each.sum()) for each in counts)
    entropies = tuple(entropy(each) if len(each) else 0.0 for each in counts)
    bounds = tuple(float(np.log2(count)) if count else 0.0 for count in images)
    return Trees(images, tuple(len(each) for each in counts), entropies, bounds)


def known(keys: Keys, earlier: Keys) -> np.ndarray:
    """Whether each image's key is in another dictionary, such as that of the training images. (N,) bool"""
    there = set(earlier.digests)
    return np.array([digest in there for digest in keys.digests])[keys.codes]


def mean_couplings(
    model: nn.Module, split: Any, quantiser: Quantiser | None = None, *, tap: str = COUPLING, batch: int = 100
) -> Tensor:
    """Each primary capsule's coupling to class j, mean over the images predicted as j (figs. 4 and 6). -> (I, J)

    quantiser: couplings are quantised first; None takes them as they are. float64; NaN for a class never predicted.
    """
    poses = _poses(tap)

    def fold(state: tuple | None, seen: Mapping[str, Tensor], _: Any) -> tuple:
        coupling = seen[tap].cpu().double()
        chosen = nn.functional.one_hot(length(seen[poses]).argmax(1).cpu(), coupling.shape[2]).double()
        total = torch.einsum("bij,bj->ij", coupling, chosen)
        return (total, chosen.sum(0)) if state is None else (state[0] + total, state[1] + chosen.sum(0))

    with taps.edit(model, {tap: quantiser} if quantiser else {}):
        device = next(model.parameters()).device
        found = taps.stream(model, split.to(device).batches(batch), (tap, poses), fold)
    if found is None:
        raise ValueError("mean couplings need at least one image.")
    return found[0] / found[1]


def quantised_trees(
    model: nn.Module, data: ImageSet, *, images: int = 1000, quantiser: Quantiser | None = None
) -> dict[str, Any]:
    """Entropy, bound, keys and accuracy, all of "+Q", on so many test images, the first of an order balanced by class.

    quantiser: that of the released code for so many classes when None.
    """
    chosen = np.sort(balanced_order(data.test.labels)[:images])
    split = data.test.select(torch.from_numpy(chosen).to(data.test.labels.device))
    keys = collect(model, split, quantiser or Quantiser.released(len(data.classes)))
    found = trees(keys)
    numbers = {"accuracy": keys.accuracy, "entropy": found.mean_entropy, "bound": found.mean_bound}
    return numbers | {"keys": list(found.keys), "images": list(found.images)}


def _poses(tap: str) -> str:
    return tap.removesuffix("coupling") + "poses"
