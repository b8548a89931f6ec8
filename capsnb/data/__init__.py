"""Image sets as uint8 tensors, whole on one device: `load("mnist-sample")`, `load("mnist")`, `load("my/folder")`.

Every set has train, validation and test splits. Nothing is downloaded at import or without `download=True`, nothing is
replaced silently: a missing or damaged file is one sentence with the file's name and the remedy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from capsnb.data import sources
from capsnb.data.formats import Arrays

_TEST_SEED = 2017  # fixed: no seed may train on images that another seed is tested on


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
        return tuple(self.images.shape[1:])

    def batch(self, index: Tensor) -> Batch:
        """The images at `index`, (B,) int64 on the split's device."""
        return Batch(self.images[index], self.labels[index])

    def batches(self, size: int) -> Iterator[Batch]:
        """All images in order, `size` at a time; the last batch may be smaller."""
        for start in range(0, len(self), _positive(size)):
            yield Batch(self.images[start : start + size], self.labels[start : start + size])

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


def data_dir() -> Path:
    """Where image sets are looked for: CAPSNB_DATA, else data/cache of the project, else of the working directory."""
    return sources.data_dir()


def names() -> tuple[str, ...]:
    """The names that `load` knows; it also takes the path of a class folder or an .npz file."""
    return tuple(sources.SOURCES)


def load(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    download: bool = False,
    validation: int | None = None,
    seed: int = 0,
    size: int | tuple[int, int] | None = None,
) -> ImageSet:
    """Load an image set by name, or from the path of a class folder or .npz file.

    A set without validation images of its own gives up `validation` of its training images, stratified by class and
    chosen by `seed` (default: a tenth, at most 5,000 for the named sets). One without test images, such as
    mnist-sample, first gives up a fifth for testing, the same fifth for every seed. `size` (side, or height and width)
    resizes the images; needed where a folder mixes sizes.
    Raises FileNotFoundError where the set is missing, ValueError where something in it is wrong.
    """
    if validation is not None and validation < 0:
        raise ValueError(f"validation={validation} is negative; say how many training images validate, or None.")
    if download and name in sources.SOURCES and sources.find(name, data_dir) is None:
        sources.fetch(name, data_dir)
    found = sources.read(name, data_dir, _size(size))
    classes, train, held, test = found.parts
    counts = sources.shares(
        sources.Counts(*(len(p.labels) if p else None for p in (train, held, test))), found.validation_cap
    )
    if held is not None and validation not in (None, len(held.labels)):
        raise ValueError(
            f"{name} has {len(held.labels):,} validation images of its own, so validation={validation:,} cannot be met."
        )
    if test is None and not all(counts):
        raise ValueError(
            f"{name} has {len(train.labels)} images, too few to train, validate and test; give 10 or more."
        )
    if test is None:
        shuffled = _permutation(len(train.labels), _TEST_SEED)  # files are often sorted by class
        train = Arrays(train.images[shuffled], train.labels[shuffled])
        test, train = _carve(train, counts[2], _TEST_SEED, name)
    if held is None:
        held, train = _carve(train, counts[1] if validation is None else validation, seed, name)
    return ImageSet(found.name, found.source, classes, _split(train), _split(held), _split(test))


def content_name(name: str) -> str:
    """What tells a set's images apart: a known set's name, a folder's or file's own name with a hash of its content.

    The same images elsewhere have the same; a path at which nothing lies is returned as it is.
    """
    return sources.content_name(name)


def available(data_dir: str | os.PathLike | None = None) -> list[dict]:
    """What is where: a row (name, where, train, validation, test, note) per known set; counts come from headers only.

    `where` and the counts are None for a set that is not there, whose note then says how to get it.
    """
    return sources.available(data_dir)


def fetch(name: str, data_dir: str | os.PathLike | None = None) -> Path:
    """Download a set through torchvision into the data folder, all of it or nothing, and return where it lies."""
    return sources.fetch(name, data_dir)


def balanced_order(labels: Tensor | np.ndarray) -> np.ndarray:
    """An order of all positions whose every prefix holds the classes in proportion, to an image or so. (N,) -> (N,)"""
    labels = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    rank = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.argsort(rank, kind="stable")


def _carve(arrays: Arrays, count: int, seed: int, name: str) -> tuple[Arrays, Arrays]:
    """Take `count` images, stratified and seeded, out of `arrays`; both parts keep the order they had."""
    total = len(arrays.labels)
    if count >= total and count:
        raise ValueError(f"{name} has {total:,} images to train on, so {count:,} of them cannot be held out.")
    shuffled = _permutation(total, seed)
    order = shuffled[balanced_order(arrays.labels[shuffled])]
    taken, rest = np.sort(order[:count]), np.sort(order[count:])
    return Arrays(arrays.images[taken], arrays.labels[taken]), Arrays(arrays.images[rest], arrays.labels[rest])


def _permutation(count: int, seed: int) -> np.ndarray:
    # numpy promises that RandomState never changes its numbers, and promises it of nothing newer
    return np.random.RandomState(seed % (1 << 32)).permutation(count)


def _split(arrays: Arrays) -> Split:
    return Split(torch.from_numpy(np.array(arrays.images, order="C")), torch.from_numpy(np.array(arrays.labels)))


def _size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"size={size} is not a side in pixels; give a positive integer or (height, width).")
    return height, width


def _positive(size: int) -> int:
    if size < 1:
        raise ValueError(f"a batch of {size} images was asked for; give at least 1.")
    return size
