"""`load`: a set's checked arrays as an ImageSet; splits that its files lack are held out of the training images."""

from __future__ import annotations

import os

import numpy as np
import torch

from capsnb.data import sources
from capsnb.data.formats import Arrays
from capsnb.data.image_set import ImageSet, Split, balanced_order

_TEST_SEED = 2017  # fixed: no seed may train on images that another seed is tested on


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
    counts = sources.shares(sources.counts_of(found.parts), found.validation_cap)
    if held is not None and validation not in (None, len(held.labels)):
        raise ValueError(
            f"{name} has {len(held.labels):,} validation images of its own, so validation={validation:,} cannot be met."
        )
    if test is None and not all(counts):
        raise ValueError(
            f"{name} has {len(train.labels)} images, too few to train, validate and test; give 10 or more."
        )
    if held is None and validation is None and len(train.labels) and not counts[1]:
        raise ValueError(
            f"{name} has {len(train.labels)} training images, too few for a tenth of them to validate; give 10 or "
            "more, or validation=1 or more."
        )
    if test is None:
        shuffled = _permutation(len(train.labels), _TEST_SEED)  # files are often sorted by class
        train = Arrays(train.images[shuffled], train.labels[shuffled])
        test, train = _carve(train, counts[2], _TEST_SEED, name)
    if held is None:
        held, train = _carve(train, counts[1] if validation is None else validation, seed, name)
    return ImageSet(found.name, found.source, classes, _split(train), _split(held), _split(test))


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
    numbers = (size,) if isinstance(size, int) else tuple(size) if isinstance(size, tuple | list) else ()
    if len(numbers) not in (1, 2) or not all(isinstance(number, int) and number > 0 for number in numbers):
        raise ValueError(f"size={size!r} is not a side in pixels; give a positive integer or (height, width).")
    return numbers[0], numbers[-1]
