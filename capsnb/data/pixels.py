"""Operations on batches of uint8 images, on their device and without a loop over images: windows, resizing, warping.

Coordinates are in pixels, (0, 0) the centre of the top left pixel, x to the right and y downwards.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK = 1 << 24  # float pixels held at once while resizing or warping: 64 MB


def by(size: int | tuple[int, ...]) -> str:
    """A size in words, "28x28", of one side or of several."""
    return "x".join(map(str, sides(size) if isinstance(size, int) else size))


def window(images: Tensor, top: Tensor, left: Tensor, height: int, width: int, margin: int) -> Tensor:
    """A window of each image, zero where it leaves the image: (B, C, H, W) -> (B, C, height, width).

    Row y of the result is row y + top of the image; top and left, (B,) int64, are at least -margin, and the window
    ends at most `margin` outside.
    """
    padded = F.pad(images, (margin,) * 4)
    views = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, C, tops, lefts, height, width), no copy
    each = torch.arange(len(images), device=images.device)
    return views.permute(0, 2, 3, 1, 4, 5)[each, top + margin, left + margin]


def place(images: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Each image on a black canvas, fully inside, its top left corner at (top, left): -> (B, C, height, width)."""
    margin = max(height - images.shape[2], width - images.shape[3])
    return window(images, -top, -left, height, width, margin)


def centre(images: Tensor, height: int, width: int) -> Tensor:
    """The central height x width of each image, or the image in the centre of a black canvas: a view where possible."""
    top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
    bottom, right = images.shape[2] - height - top, images.shape[3] - width - left
    return F.pad(images, (-left, -right, -top, -bottom))


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resizing with anti-aliasing, in float32, rounded to the nearest of 0..255."""
    parts = [
        _bytes(F.interpolate(part.float(), (height, width), mode="bilinear", antialias=True))
        for part in images.split(_rows(images, height, width))
    ]
    return torch.cat(parts) if parts else images.new_empty((0, images.shape[1], height, width))


def warp(images: Tensor, matrix: Tensor, shift: Tensor, height: int, width: int) -> Tensor:
    """Each image under x -> matrix x + shift, x from the centre of image and canvas; bilinear, zero outside.

    images (B, C, H, W) uint8; matrix (B, 2, 2) in the order (x, y), taking points of the image to points of the canvas;
    shift (B, 2) in pixels; both on any device. Sampled in float32, rounded: (B, C, height, width) uint8. A pixel
    depends on its image and transform alone, never on the rest of the batch.
    """
    a, b, c, d = matrix.flatten(1).unbind(1)
    inverse = torch.stack((d, -b, -c, a), 1) / (a * d - b * c)[:, None]  # the canvas asks where a pixel came from
    inverse, shift = inverse.float().to(images.device), shift.float().to(images.device)
    x = torch.arange(width, dtype=torch.float32, device=images.device) - (width - 1) / 2
    y = torch.arange(height, dtype=torch.float32, device=images.device) - (height - 1) / 2
    half = torch.tensor((images.shape[3], images.shape[2]), dtype=torch.float32, device=images.device) / 2
    parts = []
    for part, m, t in zip(*(v.split(_rows(images, height, width)) for v in (images, inverse, shift)), strict=True):
        dx = (x - t[:, :1])[:, None, :]  # (B, 1, W)
        dy = (y - t[:, 1:])[:, :, None]  # (B, H, 1)
        m = m[:, :, None, None]
        # elementwise rather than by matmul, whose rounding may change with the batch
        grid = torch.stack((m[:, 0] * dx + m[:, 1] * dy, m[:, 2] * dx + m[:, 3] * dy), -1) / half
        parts.append(_bytes(F.grid_sample(part.float(), grid, mode="bilinear", align_corners=False)))
    return torch.cat(parts) if parts else images.new_empty((0, images.shape[1], height, width))


def ink_box(images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First and last row and column with a pixel above 0, (B,) int64 each: top, bottom, left, right (inclusive).

    A black image is all ink.
    """
    rows, columns = (images.amax(1).amax(axis) > 0 for axis in (2, 1))

    def ends(ink: Tensor) -> tuple[Tensor, Tensor]:
        ink = ink | ~ink.any(1, keepdim=True)
        return ink.int().argmax(1), ink.shape[1] - 1 - ink.flip(1).int().argmax(1)

    return *ends(rows), *ends(columns)


def rotate_shear_scale(rotation: Tensor, shear: Tensor, scale: Tensor) -> Tensor:
    """rotation (degrees) @ [[1, shear], [0, 1]] @ diag(scale): (B, 2, 2) in (x, y) order."""
    angle = torch.deg2rad(rotation)
    cos, sin = torch.cos(angle), torch.sin(angle)
    x = torch.stack((cos, sin), 1) * scale[:, :1]
    y = torch.stack((shear * cos - sin, shear * sin + cos), 1) * scale[:, 1:]
    return torch.stack((x, y), 2)


def sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of a size: a side, or the two of them."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def whole(config: object, name: str, low: int, *, pair: bool = False) -> None:
    """Raise ValueError unless the config's field is a whole number, at least `low`, or with `pair` a tuple of two."""
    value = getattr(config, name)
    numbers = value if pair and isinstance(value, tuple) and len(value) == 2 else (value,)
    if not all(isinstance(number, int) and not isinstance(number, bool) and number >= low for number in numbers):
        more = ", or a height and a width" if pair else ""
        raise ValueError(f"{type(config).__name__}.{name}={value!r} must be a whole number, at least {low}{more}.")


def _rows(images: Tensor, height: int, width: int) -> int:
    return max(1, _CHUNK // (images.shape[1] * max(height * width, images.shape[2] * images.shape[3])))


def _bytes(images: Tensor) -> Tensor:
    return images.add_(0.5).clamp_(0, 255).to(torch.uint8)
