"""Images moved and transformed at random, once and for all: MNIST translated in 40x40, and three affNIST-like sets.

Image i's transform is a function of (seed, split, i) alone; images are rendered in whole batches on their device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from capsnb.data.image_set import SPLITS, ImageSet, Split, spans
from capsnb.data.pixels import centre, ink_box, place, rotate_shear_scale, warp, whole, window
from capsnb.data.transforms import counters

_TOP, _LEFT, _ROTATION, _SHEAR, _WIDTH, _HEIGHT = range(6)  # streams of random numbers
_CHUNK = 4096  # images derived at once


@dataclass(frozen=True, kw_only=True)
class Translated:
    """Images placed at random, fully inside a black square: MNIST in 40x40, fixed by the seed.

    Splits not named in `splits` are centred instead. To train on a fresh placement in every batch, leave "train" out
    and augment with `Augment(shift=(size - side) // 2)`: 6 for MNIST in 40x40, which reaches every place.
    """

    size: int = 40  # side of the canvas
    splits: tuple[str, ...] = SPLITS  # the splits whose images are placed
    seed: int = 0

    def __post_init__(self) -> None:
        whole(self, "size", 1)
        _split_names(self)

    def __call__(self, data: ImageSet) -> ImageSet:
        """The set on the larger canvas."""
        made: dict[str, Any] = {
            name: _placed(getattr(data, name), self.size, self.seed, name, centred=name not in self.splits)
            for name in SPLITS
        }
        source = f"{data.source}; each image placed at random on {self.size}x{self.size}"
        return replace(data, name=f"{data.name} translated", source=source, **made)


class Transforms(NamedTuple):
    """What an Affine does to each image, in the order scale, shear, rotation about the image's centre. float64."""

    rotation: Tensor  # (B,) degrees, clockwise
    shear: Tensor  # (B,) x gains shear * y: a factor, the tangent of the angle
    scale: Tensor  # (B, 2) along x and y
    matrix: Tensor  # (B, 2, 2) in (x, y) order: rotation @ shear @ scale
    place: Tensor  # (B, 2) random bits that choose where along x and y


@dataclass(frozen=True, kw_only=True)
class Affine:
    """affNIST-like images: random affine transforms of three kinds. None of them is affNIST, the released files.

    | kind | rotation | shear | scale | place |
    | a | within 20 degrees | factor within 0.2 | 0.8 to 1.2, x and y apart | any that keeps all ink inside |
    | b | within 20 degrees | within 45 degrees | 0.8 to 1.2, x and y apart | within 8 px of the centre |
    | c | within 20 degrees | within 40 degrees | 0.8 to 1.2, one for both | cut to the ink, anywhere inside |

    All uniform. a: Toronto's release (Tieleman); its rotation is confirmed by a loader, the other numbers are inferred.
    Ink that fits nowhere is centred and cut. b: paper 5 (Gu et al. 2021), ranges confirmed; that the distributions are
    uniform and that places are fractions of a pixel is inferred. Ink may leave the canvas. c: paper 4 (Mitterreiter et
    al. 2023), confirmed in its code, which samples the nearest pixel where this interpolates; ink that leaves the
    canvas before it is cut to its box is lost there too. That shear moves x only is confirmed for c and inferred for
    a and b, as is the order of the three for a and b.

    As in the papers only the test split is transformed by default; the others are placed at random (`others="placed"`,
    as Translated does) or centred, to be shifted anew in every batch by `Augment(shift=6)` (`others="centred"`).
    """

    kind: str = "b"
    size: int = 40  # side of the canvas
    splits: tuple[str, ...] = ("test",)  # the splits that are transformed
    others: str = "placed"  # what the other splits are: "placed" or "centred"
    seed: int = 0
    reach: float = 8.0  # kind b moves up to so many pixels along each axis: paper 5's 8, less on a smaller canvas

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"Affine.kind={self.kind!r} is not one of {', '.join(_KINDS)}.")
        if self.others not in ("placed", "centred"):
            raise ValueError(f"Affine.others={self.others!r} is neither 'placed' nor 'centred'.")
        if not self.reach >= 0:
            raise ValueError(f"Affine.reach={self.reach!r} must be a number of pixels, at least 0.")
        whole(self, "size", 1)
        _split_names(self)

    def __call__(self, data: ImageSet) -> ImageSet:
        """The set with the named splits transformed."""
        made: dict[str, Any] = {}
        for name in SPLITS:
            split = getattr(data, name)
            if name in self.splits:
                made[name] = Split(self._transformed(split.images, name), split.labels)
            else:
                made[name] = _placed(split, self.size, self.seed, name, centred=self.others == "centred")
        which = " and ".join(self.splits)
        source = f"{data.source}; {which} images affine-transformed, affNIST-like ({self.kind}), not affNIST"
        return replace(data, name=f"{data.name} affNIST-like ({self.kind})", source=source, **made)

    def transforms(self, index: Tensor, split: str = "test") -> Transforms:
        """The transforms of images `index` (B,) of a split, computed on the CPU so that every device gets the same."""
        kind, index = _KINDS[self.kind], index.cpu()
        bits = [counters.draw(self.seed, 10 * SPLITS.index(split) + stream, index) for stream in range(6)]
        rotation, shear, width, height = (
            2 * counters.uniform(bits[s]) - 1 for s in (_ROTATION, _SHEAR, _WIDTH, _HEIGHT)
        )
        rotation = kind.rotation * rotation
        shear = (
            kind.shear * shear if kind.shear_degrees is None else torch.tan(torch.deg2rad(kind.shear_degrees * shear))
        )
        scale = 1 + kind.scale * torch.stack((width, width if kind.one_scale else height), 1)
        return Transforms(
            rotation,
            shear,
            scale,
            rotate_shear_scale(rotation, shear, scale),
            torch.stack((bits[_LEFT], bits[_TOP]), 1),
        )

    def _transformed(self, images: Tensor, split: str) -> Tensor:
        made = [images.new_empty((0, images.shape[1], self.size, self.size))]
        for start, end in spans(len(images), _CHUNK):
            chosen = self.transforms(torch.arange(start, end), split)
            made.append(_KINDS[self.kind].render(images[start:end], chosen, self.size, self.reach))
        return torch.cat(made)


def _render_inside(images: Tensor, chosen: Transforms, size: int, reach: float) -> Tensor:
    """Kind a: shifted so that no ink is lost."""
    return warp(images, chosen.matrix, _inside(images, chosen, size), size, size)


def _inside(images: Tensor, chosen: Transforms, size: int) -> Tensor:
    """A shift (B, 2) for each image, uniform over those for which no ink is lost; the middle one where none is."""
    matrix = chosen.matrix.to(images.device, torch.float32)
    height, width = images.shape[2:]
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = (torch.arange(height, device=images.device) - (height - 1) / 2)[:, None]
    ink = images.amax(1) > 0  # (B, H, W)
    shifts = []
    for axis, bits in enumerate(chosen.place.to(images.device).unbind(1)):
        m = matrix[:, axis]
        points = m[:, 0, None, None] * x + m[:, 1, None, None] * y  # (B, H, W): where each pixel's centre comes to lie
        reach = m.abs().sum(1)  # how far a pixel's bilinear tent spreads from there
        low = reach - (size + 1) / 2 - points.masked_fill(~ink, torch.inf).amin((1, 2))
        high = (size + 1) / 2 - reach - points.masked_fill(~ink, -torch.inf).amax((1, 2))
        share = counters.below(bits, 1 << 24).float() / (1 << 24)
        shift = torch.where(low <= high, low + share * (high - low), (low + high) / 2)
        shifts.append(shift.nan_to_num(0.0))  # a black image goes anywhere
    return torch.stack(shifts, 1)


def _render_near(images: Tensor, chosen: Transforms, size: int, reach: float) -> Tensor:
    """Kind b: shifted by up to `reach` px along each axis."""
    shift = 2 * reach * counters.uniform(chosen.place) - reach
    return warp(images, chosen.matrix, shift, size, size)


def _render_cut(images: Tensor, chosen: Transforms, size: int, reach: float) -> Tensor:
    """Kind c: transformed in the centre of the canvas, cut to its ink, put anywhere by whole pixels."""
    canvas = warp(images, chosen.matrix, torch.zeros(len(images), 2), size, size)
    first_row, last_row, first_column, last_column = ink_box(canvas)
    left, top = chosen.place.to(images.device).unbind(1)
    top = counters.below(top, size - (last_row - first_row))
    left = counters.below(left, size - (last_column - first_column))
    return window(canvas, first_row - top, first_column - left, size, size, size)


class _Kind(NamedTuple):
    render: Callable[[Tensor, Transforms, int, float], Tensor]
    shear: float = 0.0
    shear_degrees: float | None = None
    one_scale: bool = False
    rotation: float = 20.0
    scale: float = 0.2


_KINDS = {
    "a": _Kind(_render_inside, shear=0.2),
    "b": _Kind(_render_near, shear_degrees=45.0),
    "c": _Kind(_render_cut, shear_degrees=40.0, one_scale=True),
}


def _placed(split: Split, size: int, seed: int, name: str, *, centred: bool) -> Split:
    height, width = split.image_shape[1:]
    if size < max(height, width):
        raise ValueError(
            f"a canvas of size={size} cannot hold images of {height}x{width}; give at least {max(height, width)}."
        )
    if centred or not len(split):
        return Split(centre(split.images, size, size), split.labels)
    index, salt = torch.arange(len(split), device=split.images.device), 10 * SPLITS.index(name)
    top = counters.below(counters.draw(seed, salt + _TOP, index), size - height + 1)
    left = counters.below(counters.draw(seed, salt + _LEFT, index), size - width + 1)
    parts = [
        place(split.images[start:end], top[start:end], left[start:end], size, size)
        for start, end in spans(len(split), _CHUNK)
    ]
    return Split(torch.cat(parts), split.labels)


def _split_names(config: Translated | Affine) -> None:
    unknown = [name for name in config.splits if name not in SPLITS]
    if not isinstance(config.splits, tuple) or unknown:
        raise ValueError(
            f"{type(config).__name__}.splits={config.splits!r} must be a tuple out of {', '.join(SPLITS)}."
        )
