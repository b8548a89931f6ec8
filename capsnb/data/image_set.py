"""What an image set is: three splits of uint8 images, whole on one device, that give batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

SPLITS = ("train", "validation", "test")


class Batch(NamedTuple):
    """Images with their labels, and what a decoder should rebuild where that is not the images."""

    images: Tensor  # (B, C, H, W) uint8
    labels: Tensor  # (B,) int64, or (B, 2) for overlapping pairs
    targets: Tensor | None = None  # (B, 2, C, H, W) uint8 for overlapping pairs


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Images and their labels on one device; anything with the same methods can stand in (see PairSplit)."""

    images: Tensor  # (N, C, H, W) uint8
    labels: Tensor  # (N,) int64

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise ValueError(
                f"Split.images is {self.images.dtype} of shape {tuple(self.images.shape)}, not uint8 (N, C, H, W)."
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"Split.labels is {self.labels.dtype} of shape {tuple(self.labels.shape)}, "
                f"not int64 of shape ({len(self.images)},) as the images ask for."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Split({len(self):,} images {'x'.join(map(str, self.image_shape))} on {self.images.device})"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def batch(self, index: Tensor) -> Batch:
        """The images at `index`, (B,) int64 on the split's device."""
        return Batch(self.images[index], self.labels[index])

    def batches(self, size: int) -> Iterator[Batch]:
        """All images in order, `size` at a time; the last batch may be smaller."""
        for start, end in spans(len(self), size):
            yield Batch(self.images[start:end], self.labels[start:end])

    def to(self, device: torch.device | str) -> Split:
        """The same split on `device`."""
        return Split(self.images.to(device), self.labels.to(device))

    def select(self, index: Tensor) -> Split:
        """The images at `index` (positions or a mask, on the split's device) as a split of their own."""
        return Split(self.images[index], self.labels[index])


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """A named set of images in three splits; `source` is the sentence that is printed with every result on it."""

    name: str
    source: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.train.image_shape

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set with every split on `device`."""
        return replace(
            self, train=self.train.to(device), validation=self.validation.to(device), test=self.test.to(device)
        )

    def __repr__(self) -> str:
        counts = " + ".join(f"{len(split):,}" for split in (self.train, self.validation, self.test))
        shape = "x".join(map(str, self.image_shape))
        return f"ImageSet({self.name}: {counts} images {shape}, {len(self.classes)} classes)"


def balanced_order(labels: Tensor | np.ndarray) -> np.ndarray:
    """An order of all positions whose every prefix holds the classes in proportion, to an image or so. (N,) -> (N,)"""
    labels = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    rank = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.argsort(rank, kind="stable")


def evenly_spaced(split: Any, images: int, *, batch: int = 250) -> Iterator[Batch]:
    """So many images of a split (of pairs, too) in batches, evenly spaced over it; all where it has fewer."""
    count = min(images, len(split))
    device = getattr(split, "base", split).images.device  # pairs keep their images in a base split
    index = torch.arange(count, device=device) * len(split) // max(count, 1)
    for part in index.split(batch):
        yield split.batch(part)


def spans(count: int, size: int) -> Iterator[tuple[int, int]]:
    """Start and end of every batch of `size` images in order; the last may be smaller. Raises ValueError below 1."""
    if size < 1:
        raise ValueError(f"a batch of {size} images was asked for; give at least 1.")
    for start in range(0, count, size):
        yield start, min(start + size, count)
