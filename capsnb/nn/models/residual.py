"""Capsules with residual pose routing, ResCaps (Liu, Cheng, Zhang, Xu & Han 2024, by their released code).

A pose is multiplied by a learned matrix plus one: a layer learns what it changes. There is no routing by agreement:
activations and the fusion of a window's poses into the next layer's are learned, by fully connected layers that all
positions share (1x1 convolutions). So there is no coupling, and no tap of that name.

From the code, and different from what one might expect: one is added to every entry of the matrix, not on its diagonal
alone; each place of a window and type has one transform, whatever the parent; the activations of a stage's primary
capsules are computed there and never read (left out here, as are its unused branches and betas).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capsnb.nn import taps
from capsnb.nn.convolution import Conv2d
from capsnb.nn.layers import Stage, Units, convolved, sides
from capsnb.nn.models.base import Model, ModelConfig
from capsnb.nn.models.stems import check_size

SIDE = 4  # poses are 4 x 4
DIM = SIDE * SIDE
KERNEL = 3


class ResCaps(Model):
    """Convolution, stages of residual capsules, class capsules, decoder. Scores are sigmoids, in (0, 1).

    Stage n halves the map to poses (tap `primary`, then `primary2`, ...) and has two layers, `caps1` and `caps2` in the
    first, `caps3` and `caps4` in the second, and so on.
    Taps: conv1 (B, C, H, W); primary, primary2, ... (B, I, D); of each layer votes (B, L, N, D) by windows, poses
    (B, J, D), activations (B, J); class.poses (B, K, D), class.activations (B, K); reconstruction.
    """

    def __init__(self, config: ResCapsConfig) -> None:
        super().__init__(config)
        check_size(config.size, 2 ** len(config.types))
        conv = Conv2d(config.channels, config.width, config.kernel, padding=config.kernel // 2)
        self.stages = ["conv1"]
        self.conv1 = Stage(conv, nn.BatchNorm2d(config.width, eps=1e-3), nn.ReLU())
        self.layers, self.order = [], []
        size, features = sides(config.size), config.width
        for stage, types in enumerate(config.types):
            size = convolved(size, 1, 2)
            name = f"primary{stage + 1}" if stage else "primary"
            inner = [f"caps{2 * stage + 1}", f"caps{2 * stage + 2}"]
            setattr(self, name, HalvedPoses(features, size, types))
            for layer in inner:
                self.add_module(layer, ResidualPoses(size, types))
            self.add_module(f"norm{stage + 1}", nn.BatchNorm1d(types * (DIM + 1), eps=1e-3))
            self.order.append((name, *inner, f"norm{stage + 1}"))
            self.layers += inner
            features = types * (DIM + 1)
        self.layers.append("class")
        self.add_module("class", ResidualClasses(features * math.prod(size), config.classes))
        self.add_decoder(DIM)

    def answer(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.conv1(pixels).permute(0, 2, 3, 1)
        for names in self.order:
            primary, first, second, norm = (self.part(name) for name in names)
            maps = first(primary(maps))
            maps = second(second.poses_of(maps))
            maps = norm(maps.flatten(0, 2)).reshape(maps.shape)
        poses, scores = self.part("class")(maps.flatten(1))
        return scores, poses


@dataclass(frozen=True, kw_only=True)
class ResCapsConfig(ModelConfig):
    """ResCaps. The defaults are those of the released code: stages of 32, 32, 32 and 8 types.

    width, kernel: of the first convolution (stride 1, padded to keep the size). types: of each stage, which halves the
    map and has two layers of residual poses. decoder: sees the pose of the true class, without labels that of the
    highest score (Tawalbeh & Oramas 2024 add it).
    """

    model: ClassVar = ResCaps
    width: int = 32
    kernel: int = 5
    types: tuple[int, ...] = (32, 32, 32, 8)
    decoder: str = "conditional"
    decoder_widths: tuple[int, ...] = (512, 1024)

    def reduced(self, size: int) -> Self:
        return replace(super().reduced(size), width=8, types=(4, 4), decoder_widths=(64,))

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel = {self.kernel}: padding keeps the size for odd kernels only")
        if not self.types or min(self.types) < 1:
            raise ValueError(f"types = {self.types}: at least one stage of at least one type is needed")


class HalvedPoses(Units):
    """A 1x1 convolution of stride 2 to poses. Maps (B, H, W, F) -> poses (B, H', W', types, D); tap (B, I, D)."""

    def __init__(self, features: int, size: tuple[int, int], types: int) -> None:
        super().__init__()
        self.grid, self.capsules, self.dim = (*size, types), math.prod(size) * types, DIM
        self.linear = nn.Linear(features, types * DIM)
        self.tap = taps.Tap()

    def forward(self, maps: Tensor) -> Tensor:
        poses = self.linear(maps[:, ::2, ::2])
        return self.tap(poses.reshape(len(maps), self.capsules, DIM)).unflatten(1, self.grid)


class ResidualPoses(Units):
    """vote = pose @ (weight + 1) at each place of a 3x3 window, padded with zeros; then as the module says.

    Poses (B, H, W, types, D) -> maps (B, H, W, types * (D + 1)), the types' poses and then their activations.
    """

    zeroed = ("poses", "activations")

    def __init__(self, size: tuple[int, int], types: int) -> None:
        super().__init__()
        self.grid, self.capsules, self.dim = (*size, types), math.prod(size) * types, DIM
        places = KERNEL * KERNEL * types
        self.weight = nn.Parameter(torch.randn(places, SIDE, SIDE))
        self.active = nn.Linear(places * DIM, places, bias=False)
        self.fuse = nn.Linear(places * (DIM + 1), types * (DIM + 1), bias=False)
        self.active_norm, self.fuse_norm = nn.BatchNorm1d(places), nn.BatchNorm1d(types * (DIM + 1))
        self.votes, self.poses, self.activations = taps.Tap(), taps.Tap(), taps.Tap()

    def forward(self, poses: Tensor) -> Tensor:
        height, width, types = self.grid
        padded = F.pad(poses, (0, 0, 0, 0, 1, 1, 1, 1))
        windows = padded.unfold(1, KERNEL, 1).unfold(2, KERNEL, 1)  # (B, H, W, types, D, 3, 3)
        seen = windows.permute(5, 6, 3, 0, 1, 2, 4).reshape(len(self.weight), -1, SIDE)
        votes = torch.bmm(seen, self.weight + 1).reshape(len(self.weight), -1, DIM).transpose(0, 1)
        votes = self.votes(votes.unflatten(0, (len(poses), height * width))).flatten(0, 1).flatten(1)
        active = self.active_norm(self.active(votes)).sigmoid()
        fused = F.relu(self.fuse_norm(self.fuse(torch.cat((votes, active), 1))))
        made, activations = fused.unflatten(0, (len(poses), height * width)).split((types * DIM, types), -1)
        made = self.poses(made.reshape(len(poses), self.capsules, DIM))
        activations = self.activations(activations.reshape(len(poses), self.capsules))
        # an edit at the taps may have made more rows of each image
        maps = (each.reshape(len(made), height, width, -1) for each in (made, activations))
        return torch.cat(tuple(maps), -1)

    def poses_of(self, maps: Tensor) -> Tensor:
        """The poses in the maps of a layer like this one: (B, H, W, types * (D + 1)) -> (B, H, W, types, D)."""
        return maps[..., : self.grid[2] * DIM].unflatten(-1, (self.grid[2], DIM))


class ResidualClasses(Units):
    """All of the last map makes a pose per class; residual again; all of these poses make the scores.

    (B, features) -> poses (B, K, D), activations (B, K).
    """

    zeroed = ("poses",)

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.capsules, self.dim = classes, DIM
        self.pose = nn.Linear(features, classes * DIM)
        self.weight = nn.Parameter(torch.randn(classes, SIDE, SIDE))
        self.active, self.norm = nn.Linear(classes * DIM, classes, bias=False), nn.BatchNorm1d(classes)
        self.poses, self.activations = taps.Tap(), taps.Tap()

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        before = self.pose(features).unflatten(1, (self.capsules, SIDE, SIDE))
        poses = self.poses((before @ (self.weight + 1)).flatten(2))
        return poses, self.activations(self.norm(self.active(poses.flatten(1))).sigmoid())
