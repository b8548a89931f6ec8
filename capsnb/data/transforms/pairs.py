"""Overlapping pairs of images (MultiMNIST), made when asked for; and paper 2's (Lin et al. 2018) grids and splits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from capsnb.data.image_set import SPLITS, Batch, ImageSet, Split, spans
from capsnb.data.pixels import place, whole
from capsnb.data.transforms import counters

_PARTNER, _SHIFTS, _ORDER = range(3)  # streams of random numbers


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pairs of images of different classes from one split, each shifted at random, added and clipped at 255.

    Sabour et al. 2017 make 1,000 pairs per image with shifts up to 4 px on 36x36; paper 5 trains on 100 per image and
    goes from 1 to 1,000; paper 2 has a fixed set of 30,889 training and 4,738 test pairs: `Pairs(train=30_889,
    test=4_738)`. Validation and test are pairs too, `test_per_image` of each image. Only the base images are stored:
    partner and shifts of pair k of image i are a hash of (seed, split, i, k).
    """

    per_image: int = 100  # training pairs of each image
    test_per_image: int = 1  # validation and test pairs of each image
    train: int | None = None  # this many pairs in all, whatever per_image says; likewise the next two
    validation: int | None = None
    test: int | None = None
    size: int = 36  # side of the canvas
    shift: int = 4  # each image moves up to so many pixels along each axis
    pairs: tuple[tuple[int, int], ...] | None = None  # the class pairs that may occur, in either order; None: all
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("per_image", "test_per_image", "size"):
            whole(self, name, 1)
        whole(self, "shift", 0)
        for name in SPLITS:
            if getattr(self, name) is not None:
                whole(self, name, 1)
        if self.pairs is not None and (
            not self.pairs or any(len(p) != 2 or p[0] == p[1] or min(p) < 0 for p in self.pairs)
        ):
            raise ValueError(
                f"Pairs.pairs={self.pairs} must hold pairs of two different classes, such as ((0, 1), (2, 3))."
            )

    def __call__(self, data: ImageSet) -> ImageSet:
        """The set with each split replaced by its pairs."""
        made: dict[str, Any] = {
            name: PairSplit(base=getattr(data, name), config=self, stream=stream, classes=len(data.classes))
            for stream, name in enumerate(SPLITS)
        }
        side = f"{self.size}x{self.size}"
        source = f"{data.source}; overlapping pairs of different classes on {side}, each shifted up to {self.shift} px"
        return replace(data, name=f"{data.name} pairs", source=source, **made)


class Places(NamedTuple):
    """Which two images make a pair and where each is put on the canvas."""

    images: Tensor  # (B, 2) int64: positions in the base split, the base image first
    corners: Tensor  # (B, 2, 2) int64: top and left corner of each


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PairSplit:
    """Overlapping pairs of a split's images, computed batch by batch; pair n is number n // M of image n mod M.

    M counts the images whose class may have a partner. With a fixed total the images are taken in a random order,
    so that the first pairs cover all classes.
    """

    base: Split
    config: Pairs
    stream: int  # which split: 0 train, 1 validation, 2 test
    classes: int
    _partners: Tensor = field(init=False)  # (K, K), those of class k up to and with class l
    _starts: Tensor = field(init=False)  # (K,), where a class begins in the order of _by_class
    _by_class: Tensor = field(init=False)  # (N,)
    _able: Tensor = field(init=False)  # (M,)
    _total: int = field(init=False)

    def __post_init__(self) -> None:
        labels, config = self.base.labels, self.config
        side = max(self.base.image_shape[1:])
        if config.size < side + 2 * config.shift:
            raise ValueError(
                f"Pairs.size={config.size} is too small for images of {side} px shifted by {config.shift}: "
                f"give at least {side + 2 * config.shift}."
            )
        allowed = torch.ones(self.classes, self.classes, dtype=torch.bool).fill_diagonal_(False)
        if config.pairs is not None:
            if max(max(p) for p in config.pairs) >= self.classes:
                raise ValueError(
                    f"Pairs.pairs names class {max(map(max, config.pairs))}, but there are {self.classes}."
                )
            first, second = torch.tensor(config.pairs).T
            allowed = torch.zeros_like(allowed)
            allowed[first, second] = allowed[second, first] = True
        counts = torch.bincount(labels.cpu(), minlength=self.classes)
        partners = (allowed * counts).cumsum(1)  # (K, K): partners of class k up to and with class l
        able = (partners[:, -1] > 0)[labels.cpu()].nonzero().flatten()
        if len(self.base) and not len(able):
            raise ValueError("no two images of this split have classes that may be paired; give more images or pairs.")
        total = (config.train, config.validation, config.test)[self.stream]
        if total is not None:
            place = counters.draw(config.seed, 10 * self.stream + _ORDER, able)
            able = able[torch.argsort(place, stable=True)]
        else:
            total = len(able) * (config.per_image if self.stream == 0 else config.test_per_image)
        device = self.base.images.device
        tables = {
            "_partners": partners,
            "_starts": counts.cumsum(0) - counts,
            "_by_class": torch.argsort(labels.cpu(), stable=True),
            "_able": able,
        }
        for name, table in tables.items():
            object.__setattr__(self, name, table.to(device))
        object.__setattr__(self, "_total", total if len(able) else 0)

    def __len__(self) -> int:
        return self._total

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.image_shape))
        return f"PairSplit({len(self):,} pairs {shape} of {len(self.base):,} images on {self.base.images.device})"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the canvas."""
        return self.base.image_shape[0], self.config.size, self.config.size

    def places(self, index: Tensor) -> Places:
        """What pairs `index`, (B,) int64 on the split's device, are made of."""
        count = max(len(self._able), 1)
        i, k = self._able[index % count], index // count
        seed, salt = self.config.seed, 10 * self.stream
        partners = self._partners[self.base.labels[i]]  # (B, K)
        rank = counters.below(counters.draw(seed, salt + _PARTNER, i, k), partners[:, -1])
        partner_class = (rank[:, None] >= partners).sum(1)
        before = torch.where(partner_class > 0, partners.gather(1, (partner_class - 1).clamp(min=0)[:, None])[:, 0], 0)
        partner = self._by_class[self._starts[partner_class] + rank - before]
        axes = torch.arange(4, device=index.device)
        bits = counters.draw(seed, salt + _SHIFTS, i[:, None], k[:, None], axes)
        shifts = counters.below(bits, 2 * self.config.shift + 1) - self.config.shift
        middle = torch.tensor([(self.config.size - side) // 2 for side in self.base.image_shape[1:]], device=i.device)
        return Places(torch.stack((i, partner), 1), shifts.view(-1, 2, 2) + middle)

    def batch(self, index: Tensor) -> Batch:
        """Pairs `index`: the clipped sums, both labels, the base image's first, and both shifted images as targets."""
        images, corners = self.places(index)
        chosen = self.base.images[images.flatten()]
        top, left = corners.view(-1, 2).unbind(1)
        targets = place(chosen, top, left, self.config.size, self.config.size).unflatten(0, (-1, 2))
        return Batch(overlap(targets[:, 0], targets[:, 1]), self.base.labels[images], targets)

    def batches(self, size: int) -> Iterator[Batch]:
        """All pairs in order, `size` at a time; the last batch may be smaller."""
        for start, end in spans(len(self), size):
            yield self.batch(torch.arange(start, end, device=self.base.images.device))

    def to(self, device: torch.device | str) -> PairSplit:
        """The same pairs on `device`."""
        return replace(self, base=self.base.to(device))


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """The sum of two uint8 images, clipped at 255."""
    return first + torch.minimum(second, 255 - first)


class Grid(NamedTuple):
    """Images at every shift of a square grid."""

    images: Tensor  # (S, B, C, H + 2 radius, W + 2 radius) uint8, S = (2 radius + 1) squared shifts
    offsets: Tensor  # (S, 2) int64: how far down and to the right


def shift_grid(images: Tensor, radius: int = 4, *, fixed: Tensor | None = None) -> Grid:
    """Every image (B, C, H, W) at all shifts up to `radius`: the 9x9 = 81 images of paper 2 at radius 4.

    `fixed` (C, H, W) or (B, C, H, W) lies unmoved in the centre, added and clipped: paper 2 moves an 8 over a 7 and a
    5 over a 3. Rows of the grid come first, from the top left shift to the bottom right one.
    """
    if radius < 0:
        raise ValueError(f"radius={radius} is negative; give how far the images move, in pixels.")
    size = images.shape[2] + 2 * radius, images.shape[3] + 2 * radius
    steps = torch.arange(2 * radius + 1, device=images.device)
    corners = torch.cartesian_prod(steps, steps)
    count, batch = len(corners), len(images)
    repeated = images.expand(count, *images.shape).flatten(0, 1)
    top, left = corners.repeat_interleave(batch, 0).unbind(1)
    moved = place(repeated, top, left, *size).unflatten(0, (count, batch))
    if fixed is not None:
        still = fixed.expand_as(images)
        centre = torch.full((batch,), radius, device=images.device)
        moved = overlap(moved, place(still, centre, centre, *size).expand_as(moved))
    return Grid(moved, corners - radius)


def pair_splits() -> tuple[tuple[tuple[int, int], ...], ...]:
    """All pairs of ten classes in two disjoint parts (S_A, S_B), each of which has every class (paper 2, section 3.3).

    22 of the 45 go to S_A; which ones is drawn once and for all. Use with `Pairs(pairs=part)`.
    """
    rng = np.random.RandomState(0)  # its numbers never change
    ring = rng.permutation(10).tolist()
    # alternate edges of a random ring cover every class in each part
    edges = [tuple(sorted((ring[i - 1], ring[i]))) for i in range(10)]
    first, second = set(edges[1::2]), set(edges[::2])
    rest = [pair for pair in combinations(range(10), 2) if pair not in first | second]
    rest = [rest[i] for i in rng.permutation(len(rest))]
    return tuple(sorted(first | set(rest[:17]))), tuple(sorted(second | set(rest[17:])))
