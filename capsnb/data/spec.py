"""From a DataSpec to the images that a run sees: cropped, resized, padded, limited, derived; and augmentation.

Everything works on whole batches on the images' device. A derived set is fixed by its seed: image i's transform is a
function of (seed, split, i) alone. What changes from batch to batch is an Augment.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from capsnb.data.image_set import SPLITS, ImageSet, Split, balanced_order
from capsnb.data.loading import load
from capsnb.data.pixels import by, centre, resize, rotate_shear_scale, sides, warp, whole, window
from capsnb.data.transforms import Affine, Pairs, Translated


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """The data of a run: a set by name (or path), what is done to its images, how many of them, and what is derived.

    Done in this order: load, crop, resize, pad, limit, derive. Limits take the first images of an order in which every
    prefix is balanced over the classes, so that a smaller limit's images are among a larger one's. `validation` above
    the set's own number takes the difference from the training images (5,500 or 10,000 of MNIST's 60,000).
    """

    name: str = "mnist-sample"
    crop: int | tuple[int, int] | None = None  # of the centre that is kept: side, or height and width
    resize: int | tuple[int, int] | None = None  # to resize to, alike
    pad: int | tuple[int, int] = 0  # black pixels added on every side, or above and below, left and right
    train: int | None = None  # this many images of each split at most
    validation: int | None = None
    test: int | None = None
    seed: int = 0  # which training images validate
    derive: Translated | Affine | Pairs | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"DataSpec.name={self.name!r} must be a string, the name or the path of an image set.")
        for name in ("crop", "resize", *SPLITS):
            if getattr(self, name) is not None:
                whole(self, name, 1, pair=name not in SPLITS)
        whole(self, "pad", 0, pair=True)
        whole(self, "seed", 0)
        if self.derive is not None and not isinstance(self.derive, Translated | Affine | Pairs):
            raise ValueError(f"DataSpec.derive={self.derive!r} must be a Translated, an Affine, a Pairs or None.")


def unseeded(spec: DataSpec) -> DataSpec:
    """The spec with no seed of its own: as many images of the same shape, whichever they are."""
    return replace(spec, seed=0, derive=spec.derive and replace(spec.derive, seed=0))


def prepare(
    spec: DataSpec,
    *,
    data_dir: str | os.PathLike | None = None,
    device: torch.device | str = "cpu",
) -> ImageSet:
    """The images of a DataSpec on `device`; errors as `data.load`, ValueError where a size or limit is too large."""
    options: dict[str, Any] = {"data_dir": data_dir, "seed": spec.seed}
    if spec.crop is None:
        options["size"] = spec.resize  # resizing while reading lets a folder mix sizes
    data = load(spec.name, **options)
    if spec.validation is not None and spec.validation > len(data.validation):
        data = load(spec.name, validation=spec.validation, **options)
    limited: dict[str, Any] = {
        name: _limited(getattr(data, name), getattr(spec, name), name, spec.name) for name in SPLITS
    }
    data = replace(data, **limited).to(device)
    made: dict[str, Any] = {name: _framed_split(getattr(data, name), spec) for name in SPLITS}
    data = replace(data, **made)
    done = [f"central {by(spec.crop)}"] if spec.crop else []
    done += [f"resized to {by(spec.resize)}"] if spec.resize else []
    done += [f"padded by {spec.pad if isinstance(spec.pad, int) else by(spec.pad)} px"] if spec.pad else []
    data = replace(data, source="; ".join((data.source, *done)))
    return data if spec.derive is None else spec.derive(data)


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random changes of each image of a batch, new each time: flip, then rotation, shear, scale, then shift."""

    shift: int = 0  # up to so many whole pixels along each axis, zero filled
    flip: bool = False  # left and right exchanged for half of the images
    rotation: float = 0.0  # up to so many degrees to either side
    shear: float = 0.0  # up to so many degrees to either side, along x
    scale: tuple[float, float] = (1.0, 1.0)  # a factor in this range, one for both axes

    def __post_init__(self) -> None:
        whole(self, "shift", 0)
        if not isinstance(self.flip, bool):
            raise ValueError(f"Augment.flip={self.flip!r} must be True or False.")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"Augment.rotation={self.rotation!r} must be 0 to 180 degrees.")
        if not 0 <= self.shear < 90:
            raise ValueError(f"Augment.shear={self.shear!r} must be 0 to less than 90 degrees.")
        if not isinstance(self.scale, tuple) or len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"Augment.scale={self.scale!r} must be two positive factors (low, high).")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """uint8 (B, C, H, W) -> the same shape on the same device; the same generator state gives the same images."""
        count, device, (height, width) = len(images), images.device, images.shape[2:]

        def draw(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=generator.device).to(device)

        if self.flip:
            images = torch.where(draw(count, 1, 1, 1) < 0.5, images.flip(-1), images)
        if self.rotation or self.shear or self.scale != (1.0, 1.0):
            rotation, shear, scale = draw(3, count)
            scale = self.scale[0] + (self.scale[1] - self.scale[0]) * scale
            slant = torch.tan(torch.deg2rad(self.shear * (2 * shear - 1)))
            matrix = rotate_shear_scale(self.rotation * (2 * rotation - 1), slant, torch.stack((scale, scale), 1))
            images = warp(images, matrix, torch.zeros(count, 2, device=device), height, width)
        if self.shift:
            size = (2, count)
            shifts = torch.randint(-self.shift, self.shift + 1, size, generator=generator, device=generator.device)
            top, left = shifts.to(device)
            images = window(images, top, left, height, width, self.shift)
        return images


def _limited(split: Split, limit: int | None, name: str, where: str) -> Split:
    if limit is None:
        return split
    if limit > len(split):
        raise ValueError(f"DataSpec.{name}={limit:,} asks for more than the {len(split):,} {name} images of {where}.")
    return split.select(torch.from_numpy(balanced_order(split.labels)[:limit].copy()))


def _framed_split(split: Split, spec: DataSpec) -> Split:
    return Split(framed(split.images, spec).contiguous(), split.labels)


def framed(images: Tensor, spec: DataSpec) -> Tensor:
    """uint8 images (B, C, H, W) of a set, cropped, resized and padded as a DataSpec says.

    Raises ValueError where the images are smaller than the crop.
    """
    if spec.crop is not None:
        height, width = sides(spec.crop)
        if height > images.shape[2] or width > images.shape[3]:
            raise ValueError(
                f"DataSpec.crop={spec.crop} is larger than the images, {images.shape[2]}x{images.shape[3]}."
            )
        images = centre(images, height, width)
    if spec.resize is not None and images.shape[2:] != sides(spec.resize):
        images = resize(images, *sides(spec.resize))
    if spec.pad:
        down, across = sides(spec.pad)
        images = centre(images, images.shape[2] + 2 * down, images.shape[3] + 2 * across)
    return images
