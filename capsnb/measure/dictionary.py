"""Dictionaries of parse trees: how many different ones a capsule network carves out of a set of images.

Renzulli et al. 2022, sec. 3.1. An image's key are the bins of the couplings of all primary capsules to its predicted
class; each class has a dictionary, key -> number of images. Few keys and a low entropy: recurrent, stable trees. A
class's entropy cannot exceed log2 of its images: at 100 images 6.6 bits, at 1,000 10.0, so that it means little
without that bound. Images of one key share a parse tree: `clusters` lays them over each other, `grouped_alike` says
whether two networks put the same ones together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from capsnb.data import Split, balanced_order
from capsnb.measure.quantisation import COUPLING, Quantiser
from capsnb.nn import taps
from capsnb.nn.layers import length

POSES = "class.poses"  # the tap of the class capsules, whose couplings are at COUPLING


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

    def _of(self, values: tuple[float, ...]) -> list[float]:
        return [value for value, count in zip(values, self.images, strict=True) if count]


class Cluster(NamedTuple):
    """The images of one key."""

    key: int  # its number in `Keys`
    label: int  # the predicted class
    positions: Tensor  # (n,) of its images in the split
    overlay: Tensor  # (C, H, W) mean of its images, [0, 1]


def collect(
    model: nn.Module,
    split: Any,
    quantiser: Quantiser | None = None,
    *,
    quantised: bool = True,
    batch: int = 100,
) -> Keys:
    """The key of every image of a split, batch by batch; kept are a hash of each key and its bins, a byte each.

    quantised: predictions are those of the network with quantised couplings ("+Q"); False takes the continuous ones.
    Raises ValueError for a model without couplings to class capsules, or no images.
    """
    return collect_all(model, split, [quantiser or Quantiser()], quantised=quantised, batch=batch)[0]


def collect_all(
    model: nn.Module, split: Any, quantisers: Sequence[Quantiser], *, quantised: bool = True, batch: int = 100
) -> list[Keys]:
    """`collect` with each of several quantisers, in little more than the time of one."""
    found = [_Collected(quantiser) for quantiser in quantisers]
    with taps.evaluating(model), taps.once(model):
        for images, labels, *_ in split.to(next(model.parameters()).device).batches(batch):
            for each in found:
                edits = {COUPLING: each.quantiser} if quantised else {}
                with taps.edit(model, edits), taps.record(model, COUPLING, POSES) as seen:
                    model(images)
                each.add(seen[COUPLING], length(seen[POSES]).argmax(1), labels)
    return [each.keys() for each in found]


class _Collected:
    """Keys of the images seen so far."""

    def __init__(self, quantiser: Quantiser) -> None:
        self.quantiser, self.classes = quantiser, 0
        self.kind = np.uint8 if quantiser.levels <= 256 else np.uint16
        self.found: dict[bytes, tuple[int, int, np.ndarray]] = {}  # hash -> number, class, bins
        self.codes: list[int] = []
        self.labels: list[np.ndarray] = []

    def add(self, coupling: Tensor, winner: Tensor, labels: Tensor) -> None:
        """coupling (B, I, J), the predicted and the true class (B,)."""
        own = coupling.gather(2, winner[:, None, None].expand(-1, coupling.shape[1], 1)).squeeze(2)  # (B, I)
        rows = self.quantiser.bins(own).cpu().numpy().astype(self.kind)
        for row, label in zip(rows, winner.tolist(), strict=True):
            digest = blake2b(row.tobytes(), digest_size=16, salt=label.to_bytes(8, "big")).digest()
            self.codes.append(self.found.setdefault(digest, (len(self.found), label, row))[0])
        self.labels.append(labels.cpu().numpy())
        self.classes = coupling.shape[2]

    def keys(self) -> Keys:
        if not self.codes:
            raise ValueError("a dictionary needs at least one image.")
        _, owners, bins = zip(*self.found.values(), strict=True)
        labels, digests = np.concatenate(self.labels), tuple(self.found)
        return Keys(np.array(self.codes), labels, digests, np.array(owners), np.stack(bins), self.classes)


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


def mean_couplings(model: nn.Module, split: Any, quantiser: Quantiser | None = None, *, batch: int = 100) -> Tensor:
    """Each primary capsule's coupling to class j, mean over the images predicted as j (figs. 4 and 6). -> (I, J)

    quantiser: couplings are quantised first; None takes them as they are. float64; NaN for a class never predicted.
    """

    def fold(state: Any, seen: Mapping[str, Tensor], images: Any) -> Any:
        coupling = seen[COUPLING].cpu().double()
        chosen = nn.functional.one_hot(length(seen[POSES]).argmax(1).cpu(), coupling.shape[2]).double()
        return state[0] + torch.einsum("bij,bj->ij", coupling, chosen), state[1] + chosen.sum(0)

    if not len(split):
        raise ValueError("mean couplings need at least one image.")
    with taps.edit(model, {COUPLING: quantiser} if quantiser else {}):
        batches = split.to(next(model.parameters()).device).batches(batch)
        sums: Any = taps.stream(model, batches, (COUPLING, POSES), fold, (0, 0))
    return sums[0] / sums[1]


def clusters(keys: Keys, split: Any, label: int, *, top: int | None = 6, threshold: int | None = 125) -> list[Cluster]:
    """The `top` largest clusters of a predicted class, largest first, with their images laid over each other.

    Renzulli et al. 2022, fig. 7. split: the images that `keys` were made of, in the same order. threshold: pixels above
    it count as 1, others as 0, as in the released code; None: grey values. Raises ValueError for another number of
    images.
    """
    if len(split) != len(keys.codes):
        raise ValueError(f"the keys are those of {len(keys.codes):,} images, the split has {len(split):,}.")
    own = np.flatnonzero(keys.owners == label)
    own = own[np.argsort(-keys.counts[own], kind="stable")][:top]
    found = []
    for code in own.tolist():
        positions = torch.from_numpy(np.flatnonzero(keys.codes == code))
        images = split.batch(positions.to(split.labels.device)).images.cpu()
        shown = images / 255 if threshold is None else (images > threshold).float()
        found.append(Cluster(code, label, positions, shown.mean(0)))
    return found


def grouped_alike(first: tuple[Any, Any], second: tuple[Any, Any]) -> float | None:
    """How alike two networks, or one at two times, sort the same images into keys: 1 alike, 0 as by chance.

    first, second: of each image the number of its key and its predicted class, (N,) each. Capsules of two seeds stand
    in no order to each other, so that their keys cannot be compared, but their clusters can: by the adjusted Rand index
    (Hubert and Arabie 1985) among the images that both predict as the same class, mean over images. None where nothing
    can be said: in both one cluster, or all images apart. Raises ValueError for other numbers of images.
    """
    groups, predicted = zip(*((np.asarray(each[0]), np.asarray(each[1])) for each in (first, second)), strict=True)
    if len(groups[0]) != len(groups[1]):
        raise ValueError(f"{len(groups[0]):,} and {len(groups[1]):,} images cannot be the same ones.")
    alike, parts = predicted[0] == predicted[1], []
    for label in np.unique(predicted[0][alike]):
        own = alike & (predicted[0] == label)
        index = adjusted_rand(groups[0][own], groups[1][own])
        if index is not None:
            parts.append((index, int(own.sum())))
    indices, sizes = zip(*parts, strict=True) if parts else ((), ())
    return float(np.average(indices, weights=sizes)) if parts else None


def adjusted_rand(first: Any, second: Any) -> float | None:
    """Pairs of items that two partitions both keep together, beyond chance; 1 when alike. None where it is 0 / 0.

    first, second: (n,) the part that each item belongs to.
    """
    from sklearn.metrics import adjusted_rand_score

    parts = {len(np.unique(each)) for each in (first, second)}
    return None if parts in ({1}, {len(first)}) else float(adjusted_rand_score(first, second))


def balanced(split: Any, images: int) -> Split:
    """So many images of a split, the first of an order balanced by class; all where it has fewer.

    Raises ValueError for pairs, whose images have two labels each.
    """
    if not isinstance(split, Split):
        raise ValueError("the images are pairs, with two labels each, and keys need images with one")
    chosen = np.sort(balanced_order(split.labels)[:images])
    return split.select(torch.from_numpy(chosen).to(split.labels.device))
