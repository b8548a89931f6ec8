"""The convolutional networks that capsule networks are compared with (Gu et al. 2021)."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch.nn.functional as F
from torch import Tensor, nn

from capsnb.nn import taps
from capsnb.nn.convolution import Conv2d
from capsnb.nn.layers import Stage, full, length, sides, squash
from capsnb.nn.models.base import Model, ModelConfig
from capsnb.nn.models.stems import StridedStem, check_size, strided_pair


class ConvNetFC(Model):
    """Scores are logits. Taps: conv1, conv2, ... (B, C, H, W); features (B, units) before the last layer."""

    def __init__(self, config: ConvNetFCConfig) -> None:
        super().__init__(config)
        valid = config.padding == "valid"
        lost = len(config.widths) * (config.kernel - 1) if valid else 0
        places = math.prod(side - lost for side in sides(config.size))
        check_size(config.size, *[config.kernel] * (len(config.widths) if valid else 1))
        channels = config.channels
        for n, width in enumerate(config.widths, 1):
            self.stages.append(f"conv{n}")
            conv = Conv2d(channels, width, config.kernel, padding=config.padding)
            self.add_module(f"conv{n}", Stage(conv, nn.ReLU()))
            channels = width
        sizes = (channels * places, *config.hidden)
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.features = taps.Tap()
        self.out = nn.Linear(sizes[-1], config.classes)

    def answer(self, pixels: Tensor) -> tuple[Tensor, None]:
        units = self.through(self.stages, pixels).flatten(1)
        for linear in self.linears:
            units = F.relu(linear(units))
        return self.out(self.features(units)), None


@dataclass(frozen=True, kw_only=True)
class ConvNetFCConfig(ModelConfig):
    """ConvNet-FC: convolutions of stride 1, then fully connected layers; ReLU after each but the last.

    padding: "valid" gives Gu et al.'s counts at 40x40, "same" Sabour's baseline at 28x28.
    """

    model: ClassVar = ConvNetFC
    widths: tuple[int, ...] = (256, 256, 128)
    kernel: int = 5
    padding: str = "valid"
    hidden: tuple[int, ...] = (328, 192)

    def reduced(self, size: int) -> Self:
        return replace(super().reduced(size), widths=(8, 8, 8), kernel=5, hidden=(64, 32))


class ConvNetAvg(Model):
    """Scores are logits. Taps: conv1, conv2 (B, C, H, W); features (B, C), the mean over positions."""

    def __init__(self, config: ConvNetAvgConfig) -> None:
        super().__init__(config)
        widths = (config.width, config.width)
        self.stages = ["conv1", "conv2"]
        self.conv1, self.conv2, _ = strided_pair(config.channels, config.size, config.kernel, widths)
        self.features = taps.Tap()
        self.out = nn.Linear(config.width, config.classes)

    def answer(self, pixels: Tensor) -> tuple[Tensor, None]:
        maps = self.conv2(self.conv1(pixels))
        return self.out(self.features(maps.mean((2, 3)))), None


@dataclass(frozen=True, kw_only=True)
class ConvNetAvgConfig(ModelConfig):
    """ConvNet-Avg: the two convolutions of the capsule network, the mean over all positions, one linear layer."""

    model: ClassVar = ConvNetAvg
    width: int = 256
    kernel: int = 9

    def reduced(self, size: int) -> Self:
        return replace(super().reduced(size), width=32, kernel=5)


class ConvNetR(Model):
    """Scores are logits, or lengths for the "length" head, in [0, 1) where poses are squashed.

    Taps: conv1, conv2 (B, C, H, W), where poses are squashed primary (B, I, P) for conv2; class.poses (B, K, D);
    reconstruction.
    """

    def __init__(self, config: ConvNetRConfig) -> None:
        super().__init__(config)
        width, kernel, dim = config.width, config.kernel, config.primary_dim
        if config.squashed:
            stem = StridedStem(channels=width, kernel=kernel, types=width // dim, dim=dim)
            self.stages = ["conv1"]
            (self.conv1,), self.primary = stem.build(config.channels, config.size, "sabour")
            units = self.primary.capsules * dim
        else:
            self.stages = ["conv1", "conv2"]
            self.conv1, self.conv2, places = strided_pair(config.channels, config.size, kernel, (width, width))
            units = width * places
        self.add_module("class", Groups(units, config.classes, config.dim))
        self.out = nn.Linear(config.classes * config.dim, config.classes) if config.head == "linear" else None
        self.add_decoder(config.dim)

    def answer(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        squashed = self.config.squashed
        units = self.through((*self.stages, *["primary"] * squashed), pixels).flatten(1)
        poses = self.part("class")(units, squashed)
        if self.out is not None:
            return self.out(poses.flatten(1)), poses
        return length(poses) if self.config.head == "length" else poses.sum(-1), poses


@dataclass(frozen=True, kw_only=True)
class ConvNetRConfig(ModelConfig):
    """ConvNet-R, -CR and -CR-SF: the convolutions of the capsule network, 160 units in groups of 16, and a decoder.

    head: how the groups become class scores: "linear" (FC(10) on all units; ConvNet-R), "sum" of each group as a logit
        (ConvNet-CR), "length" of each group (ConvNet-CR-SF).
    squash: of each group, and of the second map in vectors of `primary_dim` in place of its ReLU; None: with the head
        "length" alone, as in the paper.
    decoder: "plain" sees all units (-R), "conditional" the true class's group (-CR, -CR-SF), or "none".
    The 160 units have no ReLU (their sum is a logit of either sign) and no bias: the paper gives them the parameters of
    the capsule network's transforms, which have none.
    """

    model: ClassVar = ConvNetR
    width: int = 256
    kernel: int = 9
    dim: int = 16
    primary_dim: int = 8
    head: str = "length"
    decoder: str = "conditional"
    decoder_widths: tuple[int, ...] = (512, 1024)
    squash: bool | None = None

    @property
    def squashed(self) -> bool:
        return self.head == "length" if self.squash is None else self.squash

    def reduced(self, size: int) -> Self:
        return replace(super().reduced(size), width=16, kernel=5, decoder_widths=(64,))

    def __post_init__(self) -> None:
        if self.head not in ("linear", "sum", "length"):
            raise ValueError(f"head {self.head!r} is unknown; allowed: 'linear', 'sum', 'length'")
        if self.width % self.primary_dim:
            raise ValueError(f"a map of {self.width} channels cannot be cut into vectors of {self.primary_dim}")


class Groups(nn.Module):
    """A linear layer without bias whose units stand in one group per class. (B, units) -> (B, K, D)."""

    def __init__(self, units: int, classes: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(units, classes * dim, bias=False)
        self.dim = dim
        self.poses = taps.Tap()

    def forward(self, units: Tensor, squashed: bool) -> Tensor:
        poses = full(self.linear(units)).unflatten(-1, (-1, self.dim))
        return self.poses((squash(poses) if squashed else poses).to(self.linear.weight.dtype))
