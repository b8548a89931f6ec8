"""Images that share a parse tree: their overlays, and whether two networks put the same ones together."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from capsnb.measure.dictionary import Keys


class Cluster(NamedTuple):
    """The images of one key."""

    key: int  # its number in `Keys`
    label: int  # the predicted class
    positions: Tensor  # (n,) of its images in the split
    overlay: Tensor  # (C, H, W) mean of its images, [0, 1]


class KeyAgreement(NamedTuple):
    """How alike two networks sort the same images."""

    same_class: float  # share of images that both predict alike
    same_key: float  # share of images with one key in both
    rand: float | None  # adjusted Rand index of the clusters within classes: 1 alike, 0 as by chance


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


def agreement(first: Keys, second: Keys) -> KeyAgreement:
    """How alike two networks, or one at two times, sort the same images into keys.

    Capsules of two seeds stand in no order to each other, so that their keys cannot be compared, but their clusters
    can: by the adjusted Rand index (Hubert and Arabie 1985) among the images that both predict as the same class, mean
    over images. It is None where nothing can be said: in both one cluster, or all images apart. Raises ValueError for
    other numbers of images.
    """
    if len(first.codes) != len(second.codes):
        raise ValueError(f"{len(first.codes):,} and {len(second.codes):,} images cannot be the same ones.")
    alike = first.predicted == second.predicted
    parts = []
    for label in np.unique(first.predicted[alike]):
        own = alike & (first.predicted == label)
        index = adjusted_rand(first.codes[own], second.codes[own])
        if index is not None:
            parts.append((index, int(own.sum())))
    indices, sizes = zip(*parts, strict=True) if parts else ((), ())
    rand = float(np.average(indices, weights=sizes)) if parts else None
    names = [np.array(keys.digests, dtype=object)[keys.codes] for keys in (first, second)]
    return KeyAgreement(float(alike.mean()), float((names[0] == names[1]).mean()), rand)


def adjusted_rand(first: Any, second: Any) -> float | None:
    """Pairs of items that two partitions both keep together, beyond chance; 1 when alike. None where it is 0 / 0.

    first, second: (n,) the part that each item belongs to.
    """

    def pairs(counts: np.ndarray) -> float:
        return float((counts * (counts - 1) / 2).sum())

    one, two = (np.unique(each, return_inverse=True)[1].astype(np.int64) for each in (first, second))
    cells = np.unique(one * (two.max() + 1) + two, return_counts=True)[1]
    together, a, b = pairs(cells), pairs(np.bincount(one)), pairs(np.bincount(two))
    chance = a * b / max(1.0, len(one) * (len(one) - 1) / 2)
    most = (a + b) / 2
    return None if most == chance else (together - chance) / (most - chance)
