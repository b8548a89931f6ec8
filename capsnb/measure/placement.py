"""affNIST taken apart: is it the distortion that a network cannot read, or the place where the digit lies?

A network is trained on digits that are shifted, and tested on digits that are rotated, sheared, scaled and shifted
farther. Here each distortion stands alone, and each of its images lies at three distances from the middle, so that the
places a network was trained on and those it was not are told apart.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from capsnb.data import ImageSet, Split
from capsnb.data.pixels import centre, ink_box, rotate_shear_scale, warp, window
from capsnb.data.transforms import Affine, Translated, counters
from capsnb.measure.protocol import GU, first, measurement
from capsnb.measure.robustness import derived_split, percent

WARP = ("rotation", "shear", "scale")
DISTORTIONS: dict[str, tuple[str, ...]] = {"none": (), **{name: (name,) for name in WARP}, "warp": WARP}
# how far a digit lies from the middle along the axis along which it lies farther, in twentieths of the canvas: above
# the first number and up to the second; 6 pixels of 40, what networks are trained on, are 3
PLACES = {"inner": (-1, 1), "middle": (1, 3), "outer": (3, 5)}
GENERATORS = ("a", "b", "c")
_STREAM = 200  # of the random numbers that choose a place


def distorted(images: Tensor, names: Collection[str], size: int) -> Tensor:
    """Images in the middle of a canvas, distorted as generator (a) of `Affine` distorts them, by the named parts alone.

    (B, C, H, W) uint8 -> (B, C, size, size). Raises ValueError for other names than those of WARP.
    """
    if unknown := [name for name in names if name not in WARP]:
        raise ValueError(f"there is no distortion {unknown[0]!r}; there are: {', '.join(WARP)}")
    chosen = Affine(kind="a", size=size).transforms(torch.arange(len(images)))
    matrix = rotate_shear_scale(
        chosen.rotation * ("rotation" in names),
        chosen.shear * ("shear" in names),
        chosen.scale if "scale" in names else torch.ones_like(chosen.scale),
    )
    return warp(images, matrix, torch.zeros(len(images), 2), size, size)


def placed(images: Tensor, above: int, up_to: int, *, stream: int = _STREAM) -> tuple[Tensor, Tensor]:
    """Images shifted by whole pixels, the farther axis by more than `above` and at most `up_to`, with all ink inside.

    Uniform over those places. Returns the images that have such a place, and which they are: (B,) bool.
    """
    count, size, device = len(images), images.shape[-1], images.device
    top, bottom, left, right = ink_box(images)
    steps = torch.arange(-up_to, up_to + 1, device=device)
    down, across = (
        (steps >= -first[:, None]) & (steps < size - last[:, None]) for first, last in ((top, bottom), (left, right))
    )
    far = torch.maximum(steps.abs()[:, None], steps.abs()) > above
    fits = (down[:, :, None] & across[:, None] & far).flatten(1)  # (B, places)
    room = fits.any(1)
    bits = counters.draw(0, stream, torch.arange(count, device=device))
    wanted = counters.below(bits, fits.sum(1).clamp_min(1))
    chosen = (fits.cumsum(1) > wanted[:, None]).int().argmax(1)
    moved = window(images, -steps[chosen // len(steps)], -steps[chosen % len(steps)], size, size, up_to)
    return moved[room], room


def parts(data: ImageSet, *, images: int) -> dict[str, Split]:
    """The sets of `affine_parts`, of the first test images: "upright", "a", "b", "c", "rotation, outer" and so on.

    Digits of one distortion are distorted alike at every place. The same digits in every set of a distortion and a
    place: those that have room at all places, however distorted. Raises ValueError for data other than a `Translated`
    whose test images lie in the middle, and where no digit has room.
    """
    if not data.name.endswith(" translated"):
        raise ValueError(f"{data.name} has no digits in the middle of a larger canvas, which are taken apart")
    size = data.image_shape[1]
    side, unit = 7 * size // 10, size // 20  # digits of 28 on 40, of 14 on 20
    test = data.test.select(torch.arange(min(images, len(data.test)), device=data.test.images.device))
    whole: dict[str, Any] = {"upright": Translated(size=size)}
    whole |= {kind: Affine(kind=kind, size=size, reach=8.0 * size / 40) for kind in GENERATORS}
    found = {name: derived_split(replace(data, test=test), derive, side=side) for name, derive in whole.items()}
    bare = centre(test.images, side, side)
    made = {name: distorted(bare, names, size) for name, names in DISTORTIONS.items()}
    moved = {
        f"{name}, {place}": placed(each, above * unit, up_to * unit)
        for name, each in made.items()
        for place, (above, up_to) in PLACES.items()
    }
    room = torch.stack([fits for _, fits in moved.values()]).all(0)
    if not room.any():
        raise ValueError("no digit has room at every place: its ink reaches the border")
    labels = test.labels[room]
    return found | {name: Split(each[room[fits]], labels) for name, (each, fits) in moved.items()}


NEAR, FAR = "near", "far"


def near_and_far(data: ImageSet, *, images: int) -> dict[str, Split]:
    """The first test images, each distortion where digits of the training lay and shifted: "shear, near" and so on.

    For sets whose digits lie in the middle of their own canvas. Far: by more than 1/14 and at most 1/7 of the canvas,
    along one axis at least, 3 or 4 pixels of 28. The same digits in every set: those that have room, however distorted.
    Raises ValueError for images that are not square, for pairs, and where no digit has room.
    """
    split, (_, size, width) = first(data.test, images), data.image_shape
    if size != width:
        raise ValueError(f"images of {size} x {width} pixels are not square, as those that are distorted must be")
    made = {name: distorted(split.images, names, size) for name, names in DISTORTIONS.items()}
    moved = {name: placed(each, size // 14, size // 7) for name, each in made.items()}
    room = torch.stack([fits for _, fits in moved.values()]).all(0)
    if not room.any():
        raise ValueError("no image has room to be shifted: its ink reaches the border")
    labels = split.labels[room]
    found = {f"{name}, {NEAR}": Split(each[room], labels) for name, each in made.items()}
    return found | {f"{name}, {FAR}": Split(each[room[fits]], labels) for name, (each, fits) in moved.items()}


@measurement("warp by place", paper=GU)
def warp_by_place(model: nn.Module, data: ImageSet, *, images: int = 500) -> dict[str, float]:
    """Percent right of each set of `near_and_far`, and what distortions cost: "points lost by shear, near" and so on,
    against the undistorted digits at the same places; "digits", how many of the images have room."""
    sets = near_and_far(data, images=images)
    right = {name: percent(model, split) for name, split in sets.items()}
    lost = {
        f"points lost by {name}, {place}": right[f"none, {place}"] - right[f"{name}, {place}"]
        for name in DISTORTIONS
        for place in (NEAR, FAR)
        if name != "none"
    }
    return right | lost | {"digits": len(sets[f"none, {NEAR}"])}


@measurement("affine parts", version=2, paper=GU)
def affine_parts(model: nn.Module, data: ImageSet, *, images: int = 2000) -> dict[str, float | None]:
    """Percent of images right: upright digits anywhere, three affNIST-like generators, and each distortion at three
    distances from the middle (`DISTORTIONS`, `PLACES`). None for other data (overlapping pairs, unmoved digits)."""
    if not data.name.endswith(" translated"):
        return {"value": None}
    return {name: percent(model, split) for name, split in parts(data, images=images).items()}
