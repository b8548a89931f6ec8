"""One transformation at a time, by a chosen amount: what a robustness curve and a compactness score vary.

Images are whole batches on their device; a value is the same for every image of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from capsnb.data.pixels import rotate_shear_scale, warp

# What a value means, by factor. All are about the image's centre; what leaves the image is lost, what enters is black.
FACTORS = {
    "rotation": "degrees, clockwise",
    "trans-x": "pixels to the right",
    "trans-y": "pixels down",
    "scale": "factor, both axes",
    "shear-x": "degrees, rows shifted along x",
    "shear-y": "degrees, columns shifted along y",
}
NEUTRAL = {factor: 1.0 if factor == "scale" else 0.0 for factor in FACTORS}


def matrix_of(factor: str, value: float) -> tuple[Tensor, Tensor]:
    """The map x -> A x + t of one factor, about the image's centre, in (x, y) order: A (2, 2) and t (2,), float64.

    rotation by a: [[cos a, -sin a], [sin a, cos a]], clockwise as y points down. scale by s: s times the identity.
    shear-x by a: x gains y tan a; shear-y by a: y gains x tan a. trans-x, trans-y: t alone.
    Raises ValueError for another factor, a shear of 90 degrees or more, or a scale that is not positive.
    """
    if factor not in FACTORS:
        raise ValueError(f"factor {factor!r} is unknown; allowed: {', '.join(FACTORS)}")
    if factor.startswith("shear") and not abs(value) < 90:
        raise ValueError(f"{factor} = {value}: a shear is less than 90 degrees to either side")
    if factor == "scale" and not value > 0:
        raise ValueError(f"scale = {value}: a factor above 0 is needed")
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    slant = one * math.tan(math.radians(value)) if factor.startswith("shear") else zero
    angle, size = (value if factor == name else NEUTRAL[name] for name in ("rotation", "scale"))
    matrix = rotate_shear_scale(one * angle, slant, torch.full((1, 2), size, dtype=torch.float64))[0]
    shift = torch.tensor([value * (factor == "trans-x"), value * (factor == "trans-y")], dtype=torch.float64)
    return (matrix.T if factor == "shear-y" else matrix), shift


def vary(images: Tensor, factor: str, value: float) -> Tensor:
    """All images changed by one factor: (B, C, H, W) uint8 -> the same shape; bilinear, zero outside.

    The factor's neutral value gives the images back. Errors as `matrix_of`.
    """
    matrix, shift = matrix_of(factor, value)
    count = len(images)
    return warp(images, matrix.expand(count, 2, 2), shift.expand(count, 2), *images.shape[2:])


def series(images: Tensor, factor: str, values: Sequence[float]) -> Tensor:
    """The images at every value of one factor. (B, C, H, W) uint8 -> (V, B, C, H, W)."""
    if not len(values):
        raise ValueError(f"{factor} has no values to vary the images by; give at least one")
    return torch.stack([vary(images, factor, value) for value in values])
