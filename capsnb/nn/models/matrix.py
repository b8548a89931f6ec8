"""Matrix capsules with EM routing (Hinton, Sabour & Frosst 2018): poses of 4x4 with an activation beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from capsnb.nn import em, taps
from capsnb.nn.convolution import Conv2d
from capsnb.nn.layers import Stage, Units, by_position, convolved, sides
from capsnb.nn.models.base import Model, ModelConfig, check_positive
from capsnb.nn.models.stems import check_size
from capsnb.nn.precision import autocast

AT_ONCE = 2**20  # votes' numbers that are routed together on a CPU: what a core's cache holds
START_A = -10.0  # of beta_a, see `MatrixCapsNetConfig`
KEPT = 2**27  # of a batch and layer beyond which votes are made again for the gradient instead of kept


class MatrixCapsNet(Model):
    """Convolution, primary capsules, convolutional capsules `caps1`, `caps2`, ..., class capsules, decoder.

    Scores are the class capsules' activations, in (0, 1). Taps: conv1 (B, C, H, W); primary (B, I, D) and
    primary.activations (B, I); of each routed layer poses (B, J, D), activations (B, J), and, by windows, votes
    (B, L, N, C, D) and coupling (B, L, N, C); those of the class layer are (B, I, K, D) and (B, I, K); reconstruction.
    """

    def __init__(self, config: MatrixCapsNetConfig) -> None:
        super().__init__(config)
        padded = convolved(sides(config.size), 1, padding=config.padding)
        check_size(padded, config.kernel)
        conv = Conv2d(config.channels, config.width, config.kernel, config.stride, config.padding)
        norm = [nn.BatchNorm2d(config.width)] if config.batch_norm else []
        self.stages = ["conv1"]
        self.conv1 = Stage(conv, *norm, nn.ReLU())
        grid = convolved(padded, config.kernel, config.stride)
        self.primary = MatrixPrimary(config.width, grid, config.types, config.side)
        self.layers = [*(f"caps{n}" for n, _ in enumerate(config.layers, 1)), "class"]
        size, types = grid, config.types
        options: dict[str, Any] = {"side": config.side, "routing": config.routing, "init_scale": config.init_scale}
        for name, (parents, kernel, stride) in zip(self.layers, config.layers, strict=False):
            check_size(size, kernel)
            self.add_module(name, MatrixCapsules(size, types, parents, kernel=kernel, stride=stride, **options))
            size, types = convolved(size, kernel, stride), parents
        self.add_module("class", MatrixCapsules(size, types, config.classes, coordinates=config.coordinates, **options))
        self.add_decoder(config.side**2)

    def answer(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        poses, activations = self.primary(self.conv1(pixels))
        for name in self.layers:
            poses, activations = self.part(name)(poses, activations)
        return activations, poses


@dataclass(frozen=True, kw_only=True)
class MatrixCapsNetConfig(ModelConfig):
    """A network of matrix capsules. The defaults are those of Tawalbeh & Oramas 2024: 12 units in every layer.

    width, kernel, stride, padding: of the first convolution (A in Hinton et al.); batch_norm: before its ReLU, as in
        the released code of both; Hinton et al. name none.
    types: of primary capsules (B), made by a 1x1 convolution. layers: (types, kernel, stride) of each layer of
        convolutional capsules (C and D). side: a pose has side x side numbers.
    coordinates: where a class capsule's child stands is added to its vote (Coordinate Addition).
    init_scale: of the transforms, N(0, init_scale^2 / side): at 1 a vote is as large as its child's pose. At 2, the
        N(0, 1) of Tawalbeh & Oramas' code, and with beta_a at -10, the mean of -1000 in units of `em.DATA` that
        Gritzman 2019 draws it around, about half of the capsules of every layer are active at first, as Hinton et al.
        want. beta_u starts at 0.
    decoder: "conditional" sees the pose of the true class, without labels that of the most active one.
    """

    model: ClassVar = MatrixCapsNet
    width: int = 12
    kernel: int = 5
    stride: int = 2
    padding: int = 2
    batch_norm: bool = True
    types: int = 12
    layers: tuple[tuple[int, int, int], ...] = ((12, 3, 2), (12, 3, 1))
    side: int = 4
    routing: em.EM = field(default_factory=em.EM)
    coordinates: bool = True
    init_scale: float = 2.0
    decoder: str = "conditional"
    decoder_widths: tuple[int, ...] = (512, 1024)

    def reduced(self, size: int) -> Self:
        narrow = super().reduced(size)
        return replace(narrow, width=16, padding=0, types=4, layers=((4, 3, 2),), batch_norm=True, decoder="none")

    def __post_init__(self) -> None:
        check_positive(self, "channels", "size", "classes", "width", "kernel", "stride", "types", "init_scale")
        if self.side < 2:
            raise ValueError(f"side = {self.side}: the coordinates need poses of at least 2x2")
        if not all(len(layer) == 3 and min(layer) > 0 for layer in self.layers):
            raise ValueError(f"layers = {self.layers}: each is (types, kernel, stride), all above 0")


class MatrixPrimary(Units):
    """Poses and activations by 1x1 convolutions. (B, C, H, W) -> (B, I, D), (B, I); I as in `PrimaryCapsules`.

    A capsule that is taken away has no activation: a pose of zeros instead would go on voting, for zeros.
    """

    zeroed = ("activations",)

    def __init__(self, in_channels: int, size: tuple[int, int], types: int, side: int) -> None:
        super().__init__()
        self.grid, self.capsules, self.dim = (*size, types), math.prod(size) * types, side * side
        self.pose, self.active = Conv2d(in_channels, types * self.dim, 1), Conv2d(in_channels, types, 1)
        self.activations, self.tap = taps.Tap(), taps.Tap()

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        poses = by_position(self.pose(maps), self.capsules)
        logits = by_position(self.active(maps), self.capsules).squeeze(-1)
        dtype = self.pose.weight.dtype
        return self.tap(poses.to(dtype)), self.activations(logits.sigmoid().to(dtype))


class MatrixCapsules(Units):
    """Parents by EM routing. Poses (B, I, D) and activations (B, I) -> (B, J, D), (B, J).

    The children stand on a grid, a side or height and width, with `types` at each place. With a kernel the parents do
    too, with `parents` types, and each place and pair of types has its transform; without, they are `parents` class
    capsules that see all children, and all positions share one transform per pair of types.
    vote = pose matrix @ weight, both side x side, weight (places of a window * types or types, side, parents, side).
    A capsule that is taken away has no activation.
    """

    zeroed = ("activations",)
    child: Tensor
    positions: Tensor
    offset: Tensor | None

    def __init__(
        self,
        size: int | tuple[int, int],
        types: int,
        parents: int,
        *,
        kernel: int | None = None,
        stride: int = 1,
        side: int = 4,
        routing: em.EM,
        coordinates: bool = False,
        init_scale: float = 2.0,
    ) -> None:
        super().__init__()
        height, width = sides(size)
        self.child_grid, self.kernel, self.stride = (height, width, types), kernel, stride
        self.side, self.routing = side, routing
        out = convolved((height, width), kernel, stride) if kernel else (1, 1)
        self.grid, self.dim, self.capsules = (*out, parents), side * side, math.prod(out) * parents
        child, positions, self.covered = em.windows(height, width, types, kernel, stride)
        self.register_buffer("child", child, persistent=False)
        self.register_buffer("positions", positions, persistent=False)
        self.register_buffer("offset", self._coordinates() if coordinates else None, persistent=False)
        shape = (types * (kernel or 1) ** 2, side, parents, side)
        self.weight = nn.Parameter(torch.randn(shape) * (init_scale * side**-0.5))
        self.beta_u, self.beta_a = (nn.Parameter(torch.full((parents,), start)) for start in (0.0, START_A))
        self.activations = taps.Tap()
        self.votes, self.coupling, self.poses = taps.Tap(), taps.Tap(), taps.Tap()

    def _coordinates(self) -> Tensor:
        """What is added to the votes, (D, N): row and column, scaled to (0, 1), in the right-hand column of the matrix,
        its first two numbers."""
        height, width, types = self.child_grid
        offset = torch.zeros(self.side, self.side, height, width, types)
        offset[0, -1] += ((torch.arange(height) + 0.5) / height)[:, None, None]
        offset[1, -1] += ((torch.arange(width) + 0.5) / width)[:, None]
        return offset.flatten(2).flatten(0, 1)

    def forward(self, poses: Tensor, activations: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(poses.device, enabled=False):
            poses, activations = poses.to(self.weight.dtype), activations.to(self.weight.dtype)
            routed = self._in_parts(poses, activations)
        return self.poses(routed[0].flatten(1, 2)), self.activations(routed[1].flatten(1, 2).sigmoid())

    def _in_parts(self, poses: Tensor, activations: Tensor) -> tuple[Tensor, Tensor]:
        """Images know nothing of each other: as many at once as the cache holds, unless someone watches."""
        each = self.child.numel() * self.grid[2] * self.dim
        kept = each * len(poses) <= KEPT or not torch.is_grad_enabled()
        count = max(1, (AT_ONCE if poses.device.type == "cpu" else KEPT) // each)
        if not (self.votes.idle and self.coupling.idle) or (kept and count >= len(poses)):
            return self._route(poses, activations)
        parts = zip(poses.split(count), activations.split(count), strict=True)
        again: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
        routed = [self._route(*part) if kept else checkpoint(self._route, *part, **again) for part in parts]
        means, logits = zip(*routed, strict=True)
        return torch.cat(means), torch.cat(logits)

    def _route(self, poses: Tensor, activations: Tensor) -> tuple[Tensor, Tensor]:
        seen = em.Windows(self.child, self.positions, self.covered)
        votes = self._tapped(self.votes, self.vote(poses))
        logs = em.couple(votes, activations, seen, self.beta_u, self.beta_a, self.routing)
        if not self.coupling.idle:
            logs = self._tapped(self.coupling, logs.exp()).clamp_min(em.TINY).log()
        last = self.routing.iterations - 1
        parents = em.m_step(votes, logs, activations, seen, self.beta_u, self.beta_a, self.routing, last)
        return parents.poses, parents.logits

    def _tapped(self, tap: taps.Tap, tensor: Tensor) -> Tensor:
        # what the class capsules hear has the shape that it has in every other network, without an axis of positions
        return tensor if tap.idle else tap(tensor) if self.kernel else tap(tensor.squeeze(1)).unsqueeze(1)

    def dense(self, coupling: Tensor) -> Tensor:
        """This layer's recorded coupling as (B, I, J), whatever its windows; 0 where child and parent do not meet."""
        return em.dense(coupling, self.child, math.prod(self.child_grid)) if self.kernel else coupling

    def vote(self, poses: Tensor) -> Tensor:
        """What each child predicts for each parent: (B, I, D) -> (B, L, N, C, D), in (B, L, C, D, N) memory.

        One batched product with the places of a window first, each transform being as large as side poses' rows.
        """
        own = torch.eye(self.side, dtype=poses.dtype, device=poses.device)
        transforms = torch.einsum("nkjc,rs->nrkjsc", self.weight, own).reshape(len(self.weight), self.dim, -1)
        grid = poses.unflatten(1, self.child_grid)
        if self.kernel:
            windows = grid.unfold(1, self.kernel, self.stride).unfold(2, self.kernel, self.stride)
            places = windows.permute(5, 6, 3, 0, 1, 2, 4).reshape(len(transforms), -1, self.dim)
            made = torch.bmm(places, transforms).flatten(1).t().contiguous()
        else:
            places = grid.permute(3, 0, 1, 2, 4).reshape(len(transforms), -1, self.dim)
            made = torch.bmm(places, transforms).unflatten(1, (len(poses), -1)).permute(1, 3, 2, 0)
        made = made.reshape(len(poses), len(self.child), self.grid[2], self.dim, -1)
        return (made if self.offset is None else made + self.offset).permute(0, 1, 4, 2, 3)
