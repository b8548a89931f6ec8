"""From pixels to the first capsules: the stems that the papers' capsule networks stand on.

A stem is a configuration with `build(channels, size, squash) -> (stages, primary)`: named stages of convolutions, and a
module from the last map to poses (B, I, P) that knows its number of `capsules` and their `dim`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor, nn

from capsnb.nn import taps
from capsnb.nn.convolution import Conv2d
from capsnb.nn.layers import PrimaryCapsules, Stage, Units, by_position, convolved, sides, squash_named

Size = int | tuple[int, int]  # a side, or height and width


@dataclass(frozen=True, kw_only=True)
class StridedStem:
    """Sabour et al. 2017: Conv(channels, kernel, 1) + ReLU, then primary capsules by Conv(types * dim, kernel, 2).

    depth: convolutions before the primary one; seven of kernel 3 see as far as one of kernel 9, with as many capsules.
    """

    channels: int = 256
    kernel: int = 9
    types: int = 32
    dim: int = 8
    depth: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.depth, int) or self.depth < 1:
            raise ValueError(f"depth = {self.depth!r}: how many convolutions stand before the primary one, at least 1")

    def reduced(self) -> StridedStem:
        """As few maps and types as learn digits of 20 pixels."""
        return StridedStem(channels=16, kernel=5, types=4)

    def build(self, channels: int, size: Size, squash: str) -> tuple[list[nn.Module], PrimaryCapsules]:
        """Stages and primary capsules for images of this size; ValueError when they are too small."""
        check_size(size, *[self.kernel] * (self.depth + 1))
        stages: list[nn.Module] = []
        seen: Size = sides(size)
        for _ in range(self.depth):
            stages.append(Stage(Conv2d(channels, self.channels, self.kernel), nn.ReLU(inplace=True)))
            channels, seen = self.channels, convolved(sides(seen), self.kernel)
        primary = PrimaryCapsules(
            self.channels,
            seen,
            types=self.types,
            dim=self.dim,
            kernel=self.kernel,
            squash=squash,
        )
        return stages, primary


def strided_pair(channels: int, size: Size, kernel: int, widths: tuple[int, int]) -> tuple[Stage, Stage, int]:
    """The convolutions of a `StridedStem` for plain neurons, ReLU after both, and the places of the second's map."""
    check_size(size, kernel, kernel)
    first = Stage(Conv2d(channels, widths[0], kernel), nn.ReLU())
    second = Stage(Conv2d(widths[0], widths[1], kernel, 2), nn.ReLU())
    return first, second, math.prod(convolved(convolved(sides(size), kernel), kernel, 2))


@dataclass(frozen=True, kw_only=True)
class DepthwiseStem:
    """Mitterreiter et al. 2023 (their working code): four convolutions with ReLU and batch norm, then a depthwise
    convolution as large as the map and a 1x1 convolution: few primary capsules, each of which sees the whole image.

    strides: their notebooks have (1, 1, 1, 2); (1, 1, 2, 2) is their faster variant.
    pointwise: the 1x1 convolution; Efficient-CapsNet (Mazzia et al. 2021), whose stem this is otherwise, has none.
    standard: (mean, deviation) that pixels in [0, 1] lose and are divided by first; their working code has
        (0.0641, 0.2257) for MNIST. None: as they are.
    """

    widths: tuple[int, ...] = (32, 64, 128)
    kernels: tuple[int, ...] = (5, 3, 3, 3)
    strides: tuple[int, ...] = (1, 1, 1, 2)
    capsules: int = 16
    dim: int = 8
    pointwise: bool = True
    standard: tuple[float, float] | None = None

    def reduced(self) -> DepthwiseStem:
        """As few maps and capsules as learn digits of 20 pixels."""
        return replace(self, widths=(8, 16), kernels=(3, 3, 3), strides=(1, 2, 1), capsules=12)

    def __post_init__(self) -> None:
        if not len(self.kernels) == len(self.strides) == len(self.widths) + 1:
            raise ValueError(
                f"a depthwise stem of {len(self.widths)} widths needs {len(self.widths) + 1} kernels and strides, "
                f"not {len(self.kernels)} and {len(self.strides)}"
            )
        if self.standard is not None and not (len(self.standard) == 2 and self.standard[1] > 0):
            raise ValueError(f"standard = {self.standard!r}: it is (mean, deviation) of pixels, the deviation above 0")

    def build(self, channels: int, size: Size, squash: str) -> tuple[list[nn.Module], GlobalCapsules]:
        """Stages and primary capsules for images of this size; ValueError when they are too small."""
        stages: list[nn.Module] = []
        size = sides(size)
        for width, kernel, stride in zip(
            (*self.widths, self.capsules * self.dim), self.kernels, self.strides, strict=True
        ):
            check_size(size, kernel)
            first = [Standardise(*self.standard)] if self.standard and not stages else []
            convolution = Conv2d(channels, width, kernel, stride)
            stages.append(Stage(*first, convolution, nn.ReLU(inplace=True), nn.BatchNorm2d(width)))
            channels, size = width, convolved(size, kernel, stride)
        return stages, GlobalCapsules(self.capsules, self.dim, size, squash, self.pointwise)


class Standardise(nn.Module):
    """Pixels less their mean, divided by their deviation."""

    def __init__(self, mean: float, deviation: float) -> None:
        super().__init__()
        self.mean, self.deviation = mean, deviation

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - self.mean) / self.deviation


class GlobalCapsules(Units):
    """Primary capsules that see the whole map: depthwise convolution of the map's size, perhaps 1x1. -> (B, I, P)."""

    def __init__(self, capsules: int, dim: int, size: Size, squash: str, pointwise: bool) -> None:
        super().__init__()
        self.capsules, self.dim, self.grid = capsules, dim, (1, 1, capsules)
        width = capsules * dim
        self.depthwise = nn.Conv2d(width, width, size, groups=width)
        self.pointwise = nn.Conv2d(width, width, 1) if pointwise else nn.Identity()
        self.squash = squash_named(squash)
        self.tap = taps.Tap()

    def forward(self, maps: Tensor) -> Tensor:
        poses = self.squash(by_position(self.pointwise(self.depthwise(maps)), self.capsules))
        return self.tap(poses.to(self.depthwise.weight.dtype))


def check_size(size: Size, *kernels: int) -> None:
    """ValueError unless convolutions of these kernels, one after the other, leave at least one pixel of `size`."""
    needed = sum(kernels) - len(kernels) + 1
    if min(sides(size)) < needed:
        raise ValueError(
            f"images of {size if isinstance(size, int) else 'x'.join(map(str, size))} pixels are too small: kernels "
            f"{kernels} need at least {needed}"
        )
