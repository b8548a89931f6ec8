"""The convolutional networks that capsule networks are compared with (Gu et al. 2021)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from capsnb.nn import taps
from capsnb.nn.convolution import Conv2d
from capsnb.nn.layers import PrimaryCapsules, Stage, full, length, squash
from capsnb.nn.models.capsnet import Output, as_pixels, decode, make_decoder
from capsnb.nn.models.stems import check_size


@dataclass(frozen=True, kw_only=True)
class ConvNetFCConfig:
    """ConvNet-FC: convolutions of stride 1, then fully connected layers; ReLU after each but the last.

    padding: "valid" gives Gu et al.'s counts at 40x40, "same" Sabour's baseline at 28x28.
    """

    channels: int = 1
    size: int = 28
    classes: int = 10
    widths: tuple[int, ...] = (256, 256, 128)
    kernel: int = 5
    padding: str = "valid"
    hidden: tuple[int, ...] = (328, 192)

    def build(self) -> ConvNetFC:
        """The model with fresh parameters from torch's global generator."""
        return ConvNetFC(self)


@dataclass(frozen=True, kw_only=True)
class ConvNetAvgConfig:
    """ConvNet-Avg: the two convolutions of the capsule network, the mean over all positions, one linear layer."""

    channels: int = 1
    size: int = 28
    classes: int = 10
    width: int = 256
    kernel: int = 9

    def build(self) -> ConvNetAvg:
        """The model with fresh parameters from torch's global generator."""
        return ConvNetAvg(self)


@dataclass(frozen=True, kw_only=True)
class ConvNetRConfig:
    """ConvNet-R, -CR and -CR-SF: the convolutions of the capsule network, 160 units in groups of 16, and a decoder.

    head: how the groups become class scores: "linear" (FC(10) on all units; ConvNet-R), "sum" of each group as a logit
        (ConvNet-CR), "length" of each group after a squash (ConvNet-CR-SF, whose second map is squashed in vectors of
        `primary_dim` in place of its ReLU).
    decoder: "plain" sees all units (-R), "conditional" the true class's group (-CR, -CR-SF), or "none".
    The 160 units have no ReLU (their sum is a logit of either sign) and no bias: the paper gives them the parameters of
    the capsule network's transforms, which have none.
    """

    channels: int = 1
    size: int = 28
    classes: int = 10
    width: int = 256
    kernel: int = 9
    dim: int = 16
    primary_dim: int = 8
    head: str = "length"
    decoder: str = "conditional"
    decoder_widths: tuple[int, ...] = (512, 1024)

    def __post_init__(self) -> None:
        if self.head not in ("linear", "sum", "length"):
            raise ValueError(f"head {self.head!r} is unknown; allowed: 'linear', 'sum', 'length'")
        if self.width % self.primary_dim:
            raise ValueError(f"a map of {self.width} channels cannot be cut into vectors of {self.primary_dim}")

    def build(self) -> ConvNetR:
        """The model with fresh parameters from torch's global generator."""
        return ConvNetR(self)


class ConvNetFC(nn.Module):
    """Taps: conv1, conv2, ... (B, C, H, W); features (B, units) before the last layer."""

    def __init__(self, config: ConvNetFCConfig) -> None:
        super().__init__()
        self.config, self.image_shape = config, (config.channels, config.size, config.size)
        valid = config.padding == "valid"
        size = config.size - len(config.widths) * (config.kernel - 1) if valid else config.size
        check_size(config.size, *[config.kernel] * (len(config.widths) if valid else 1))
        self.stages, channels = [], config.channels
        for n, width in enumerate(config.widths, 1):
            self.stages.append(f"conv{n}")
            conv = Conv2d(channels, width, config.kernel, padding=config.padding)
            self.add_module(f"conv{n}", Stage(conv, nn.ReLU()))
            channels = width
        sizes = (channels * size * size, *config.hidden)
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.features = taps.Tap()
        self.out = nn.Linear(sizes[-1], config.classes)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Output:
        """images (B, C, H, W), uint8 or in [0, 1]; labels are not used. Scores are logits."""
        maps = as_pixels(images, self.image_shape)
        for name in self.stages:
            maps = self._modules[name](maps)
        units = maps.flatten(1)
        for linear in self.linears:
            units = F.relu(linear(units))
        return Output(self.out(self.features(units)), None, None)


class ConvNetAvg(nn.Module):
    """Taps: conv1, conv2 (B, C, H, W); features (B, C), the mean over positions."""

    def __init__(self, config: ConvNetAvgConfig) -> None:
        super().__init__()
        self.config, self.image_shape = config, (config.channels, config.size, config.size)
        check_size(config.size, config.kernel, config.kernel)
        self.conv1 = Stage(Conv2d(config.channels, config.width, config.kernel), nn.ReLU())
        self.conv2 = Stage(Conv2d(config.width, config.width, config.kernel, 2), nn.ReLU())
        self.features = taps.Tap()
        self.out = nn.Linear(config.width, config.classes)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Output:
        """images (B, C, H, W), uint8 or in [0, 1]; labels are not used. Scores are logits."""
        maps = self.conv2(self.conv1(as_pixels(images, self.image_shape)))
        return Output(self.out(self.features(maps.mean((2, 3)))), None, None)


class ConvNetR(nn.Module):
    """Taps: conv1, conv2 (B, C, H, W) or primary (B, I, P) with the "length" head; class.poses (B, K, D);
    reconstruction."""

    def __init__(self, config: ConvNetRConfig) -> None:
        super().__init__()
        self.config, self.image_shape = config, (config.channels, config.size, config.size)
        check_size(config.size, config.kernel, config.kernel)
        side = config.size - config.kernel + 1
        self.conv1 = Stage(Conv2d(config.channels, config.width, config.kernel), nn.ReLU())
        if config.head == "length":
            types = config.width // config.primary_dim
            self.primary = PrimaryCapsules(
                config.width, side, types=types, dim=config.primary_dim, kernel=config.kernel
            )
        else:
            self.conv2 = Stage(Conv2d(config.width, config.width, config.kernel, 2), nn.ReLU())
        side = (side - config.kernel) // 2 + 1
        self.add_module("class", Groups(config.width * side * side, config.classes, config.dim))
        self.out = nn.Linear(config.classes * config.dim, config.classes) if config.head == "linear" else None
        self.decoder, self.reconstruction = make_decoder(
            config.decoder, config.classes, config.dim, self.image_shape, config.decoder_widths
        )

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Output:
        """images (B, C, H, W), uint8 or in [0, 1]; labels mask a conditional decoder, else the highest score does.
        Scores are logits, or lengths in [0, 1) for the "length" head."""
        maps = self.conv1(as_pixels(images, self.image_shape))
        squashed = self.config.head == "length"
        units = (self.primary(maps) if squashed else self.conv2(maps)).flatten(1)
        poses = self._modules["class"](units, squashed)
        scores = self.out(poses.flatten(1)) if self.out is not None else length(poses) if squashed else poses.sum(-1)
        return Output(scores, poses, decode(self, poses, scores.argmax(1) if labels is None else labels))


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
