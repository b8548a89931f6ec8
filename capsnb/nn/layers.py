"""Capsule layers: squash, primary capsules, routed capsules, decoder. Poses are (B, capsules, pose size)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capsnb.nn import taps
from capsnb.nn.convolution import Conv2d
from capsnb.nn.fast.votes import Combine, VoteReader
from capsnb.nn.precision import autocast
from capsnb.nn.routing import Routing, check_coupling, has_numbers


def length(poses: Tensor) -> Tensor:
    """Euclidean length of each pose, (..., D) -> (...); its gradient at a zero pose is 0, not NaN."""
    return torch.linalg.vector_norm(poses, dim=-1)


def squash(total: Tensor) -> Tensor:
    """Sabour et al. 2017, eq. 1: keeps the direction, maps length n to n^2 / (1 + n^2). (..., D) -> same.

    Exact, with no epsilon: at 0 the value is 0 and the gradient 0.
    """
    n = length(total).unsqueeze(-1)
    return total * (n / (1 + n * n))


def squash_exponential(total: Tensor) -> Tensor:
    """Mitterreiter et al. 2023, eq. 1: keeps the direction, maps length n to 1 - exp(-n). (..., D) -> same.

    Near 0 it is the identity, gradient included, which is what lets layers of it be stacked.
    """
    n = length(total).unsqueeze(-1)
    zero = n == 0
    safe = torch.where(zero, 1, n)
    return total * torch.where(zero, 1, -torch.expm1(-safe) / safe)


def identity(total: Tensor) -> Tensor:
    """No squash (the ablation of Gu et al. 2021): lengths are unbounded."""
    return total


def unit_norm(total: Tensor) -> Tensor:
    """Layer norm in place of a squash (Tsai et al. 2020), without gain, divided by sqrt(D). (..., D) -> same.

    The components' mean is taken away and the rest has length 1 (less where it is all but 0): such a capsule says
    nothing by its length, and cannot die by it. No squash for class capsules, whose lengths are scores.
    """
    return F.layer_norm(total, total.shape[-1:]) * total.shape[-1] ** -0.5


SQUASHES = {"sabour": squash, "exponential": squash_exponential, "none": identity, "layer-norm": unit_norm}


def full(tensor: Tensor) -> Tensor:
    """At least float32: half-precision lengths saturate, and a saturated length flips the argmax."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def by_position(maps: Tensor, capsules: int) -> Tensor:
    """Channels cut into poses, position by position, at least float32. (B, C, H, W) -> (B, I, P)"""
    return full(maps).permute(0, 2, 3, 1).reshape(len(maps), capsules, -1)


def squash_named(name: str) -> Callable[[Tensor], Tensor]:
    """The squash of that name; ValueError lists the names."""
    if name not in SQUASHES:
        raise ValueError(f"squash {name!r} is unknown; allowed: {', '.join(SQUASHES)}")
    return SQUASHES[name]


def sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of a size: a side, or the two of them."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def convolved(size: tuple[int, int], kernel: int, stride: int = 1, padding: int = 0) -> tuple[int, int]:
    """Height and width of what a convolution makes of a map."""
    height, width = ((side + 2 * padding - kernel) // stride + 1 for side in size)
    return height, width


class Units(nn.Module):
    """A part of a network whose units can be taken away, which makes them zero at the taps named in `zeroed`."""

    zeroed: ClassVar[tuple[str, ...]] = ("tap",)

    @contextmanager
    def keep(self, mask: Tensor) -> Iterator[None]:
        """Inside the block only the units (channels, capsules) of `mask` (I,) or (B, I) are left."""
        with ExitStack() as stack:
            for name in self.zeroed:
                tap: Any = self.get_submodule(name)
                stack.enter_context(tap.editing(taps.keep(mask)))
            yield


class Stage(Units, nn.Sequential):
    """A few modules in a row whose output has a name. (B, C, H, W) -> (B, C', H', W')."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__(*modules)
        self.tap = taps.Tap()


class PrimaryCapsules(Units):
    """The first capsules: a convolution whose channels are cut into poses. (B, C, H, W) -> (B, I, P).

    Capsule i = (y * W' + x) * types + type (position-major), its component p is channel type * dim + p, and `grid` is
    (H', W', types). Sabour's released code also divides the convolution by the number of types before the squash (one
    pass of routing with nothing to route); the paper does not, nor do we.
    """

    def __init__(
        self,
        in_channels: int,
        size: int | tuple[int, int],
        *,
        types: int = 32,
        dim: int = 8,
        kernel: int = 9,
        stride: int = 2,
        squash: str = "sabour",
    ) -> None:
        super().__init__()
        height, width = convolved(sides(size), kernel, stride)
        if min(height, width) < 1:
            raise ValueError(f"primary capsules with kernel {kernel} need a map of at least {kernel}, not {size}")
        self.grid = (height, width, types)
        self.capsules, self.dim = height * width * types, dim
        self.conv = Conv2d(in_channels, types * dim, kernel, stride)
        self.squash = squash_named(squash)
        self.tap = taps.Tap()

    def forward(self, maps: Tensor) -> Tensor:
        poses = self.squash(by_position(self.conv(maps), self.capsules))
        return self.tap(poses.to(self.conv.weight.dtype))


class RoutedCapsules(Units):
    """Parents made from the votes of their children. poses (B, I, P) -> (B, J, D).

    vote[b, i, j] = pose[b, i] @ weight[i, :, j]      weight (I, P, J, D), or (1, P, J, D) when `shared`
    pose[b, j]    = squash(sum_i coupling[b, i, j] * vote[b, i, j] + bias[j])

    routing: the callable that makes the coupling (`capsnb.nn.routing`).
    bias: start value of a learned (J, D) added before the squash (0.1 in Sabour's and Renzulli's code; not in the
        papers), or None for none.
    init, init_scale: the transforms' start. "vote-sum" keeps the size of the weighted sum whatever the layer's size:
        with c the coupling before any agreement, each component of the sum has variance c^2 * I * P * std^2 * E[u^2],
        so std = init_scale / (c * sqrt(I * P)) makes its standard deviation init_scale times that of a child's
        component. That takes the children's terms as independent; under one shared transform they are not (the sum of
        fresh primary poses is 4 to 6 times as long as independent ones would make it), so std is a fifth of it there.
        "normal": N(0, 0.1), Sabour's and Renzulli's code. "uniform": U(+-1/sqrt(I)), Mitterreiter's and Gu's code,
        with which deep networks may never leave chance.
    residual: add child j's pose to parent j's sum of votes, before the squash; as many parents as children, as large.
    Taps: votes (B, I, J, D), coupling (B, I, J), poses (B, J, D), and coefficients (B, I, J) where the routing hands on
        others than its coupling.
    """

    zeroed = ("poses",)
    INITS = ("vote-sum", "normal", "uniform")

    def __init__(
        self,
        children: int,
        child_dim: int,
        parents: int,
        parent_dim: int,
        *,
        routing: Routing,
        shared: bool = False,
        squash: str = "sabour",
        bias: float | None = None,
        init: str = "vote-sum",
        init_scale: float = 0.5,
        residual: bool = False,
    ) -> None:
        super().__init__()
        if residual and (children, child_dim) != (parents, parent_dim):
            wanted, given = f"{children} of {child_dim}", f"{parents} of {parent_dim}"
            raise ValueError(f"residual poses need parents like their children, {wanted} numbers, not {given}")
        if init not in self.INITS:
            raise ValueError(f"init {init!r} is unknown; allowed: {', '.join(self.INITS)}")
        self.children_count, self.capsules, self.dim = children, parents, parent_dim
        self.routing, self.squash = routing, squash_named(squash)
        self.init, self.init_scale, self.residual = init, init_scale, residual
        self.weight = nn.Parameter(torch.empty(1 if shared else children, child_dim, parents, parent_dim))
        self.bias = None if bias is None else nn.Parameter(torch.full((parents, parent_dim), float(bias)))
        learned = getattr(routing, "learned_prior", False)
        self.prior = nn.Parameter(torch.zeros(children, parents)) if learned else None
        self.votes, self.coupling, self.poses = taps.Tap(), taps.Tap(), taps.Tap()
        self.coefficients = taps.Tap() if getattr(routing, "coefficients", None) else None
        self.checked = False  # whether a coupling of this routing, which may be anybody's, has been looked at
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the transforms anew by the layer's rule."""
        _, child_dim, parents, _ = self.weight.shape
        if self.init == "uniform":
            nn.init.uniform_(self.weight, -(self.children_count**-0.5), self.children_count**-0.5)
        elif self.init == "normal":
            nn.init.normal_(self.weight, std=0.1)
        else:
            start = self._constant_coupling() or 1 / parents
            coherence = 5 if len(self.weight) == 1 else 1
            std = self.init_scale / (start * math.sqrt(self.children_count * child_dim) * coherence)
            nn.init.normal_(self.weight, std=std)

    def _constant_coupling(self) -> float | None:
        constant = getattr(self.routing, "constant", None)
        return constant(self.children_count, self.capsules) if constant else None

    def forward(self, poses: Tensor) -> Tensor:
        if poses.shape[1:] != (self.children_count, self.weight.shape[1]):
            wanted = (self.children_count, self.weight.shape[1])
            raise ValueError(f"the layer routes poses (B, {wanted[0]}, {wanted[1]}), not {tuple(poses.shape)}")
        # float32 also under autocast, see `full`
        with autocast(poses.device, enabled=False):
            poses = poses.to(self.weight.dtype)
            activate = (lambda total: self._activate(total + poses)) if self.residual else self._activate
            constant = self._constant_coupling()
            if constant is not None and self.votes.idle and self.coupling.idle:
                return self.poses(activate(constant * self._vote_sum(poses)))
            votes = self.votes(self.vote(poses))
            prior = {} if self.prior is None else {"prior": self.prior}
            combine = Combine(VoteReader(votes), activate)
            coupling = self.routing(votes, combine, **prior)
            if not self.checked:
                check_coupling(self.routing, coupling, votes)
                self.checked = has_numbers(coupling)
            if not self.coupling.idle:
                coupling = self.coupling(coupling.contiguous())
            if self.coefficients is not None and not self.coefficients.idle:
                declared: Any = self.routing
                self.coefficients(declared.coefficients(votes, combine, **prior))
            return self.poses(combine(coupling, votes))

    def vote(self, poses: Tensor) -> Tensor:
        """What each child predicts for each parent. (B, I, P) -> (B, I, J, D).

        One batched matrix product with capsules first; the result is a view in (I, B, J, D) memory.
        """
        transforms = self.weight.flatten(2)
        shape = self.weight.shape[2:]
        if len(transforms) == 1:
            return (poses @ transforms[0]).unflatten(-1, shape)
        return torch.bmm(poses.transpose(0, 1), transforms).unflatten(-1, shape).transpose(0, 1)

    def combine(self, coupling: Tensor, votes: Tensor) -> Tensor:
        """Weighted sum, bias, squash, no residual. coupling (B, I, J), votes (B, I, J, D) -> poses (B, J, D)."""
        return Combine(VoteReader(votes), self._activate)(coupling, votes)

    @property
    def can_route_one(self) -> bool:
        """Whether `route_one` answers as the layer does when the poses of all other children are zero."""
        alone = getattr(self.routing, "silent_is_absent", False)
        return alone and self.prior is None and not self.residual and len(self.weight) > 1

    def route_one(self, poses: Tensor, children: Tensor) -> Tensor:
        """Parents of single children, each routed alone and untapped: poses (R, P) of children (R,) -> (R, J, D)."""
        votes = torch.einsum("rp,rpjd->rjd", poses, self.weight[children]).unsqueeze(1)
        return self.combine(self.routing(votes, self.combine), votes)

    def _activate(self, total: Tensor) -> Tensor:
        return self.squash(total if self.bias is None else total + self.bias)

    def _vote_sum(self, poses: Tensor) -> Tensor:
        # with one coupling for all, the sum over children is a single matrix product: no votes are made
        if len(self.weight) == 1:
            return (poses.sum(1) @ self.weight[0].flatten(1)).unflatten(-1, self.weight.shape[2:])
        return (poses.flatten(1) @ self.weight.flatten(0, 1).flatten(1)).unflatten(-1, self.weight.shape[2:])


class Decoder(nn.Module):
    """Rebuilds the image from class poses (Sabour et al. 2017, fig. 2). (B, K, D) -> (B, C, H, W) in [0, 1].

    kind: "conditional" sees one class's pose, the others set to zero; "plain" sees all of them.
    """

    KINDS = ("conditional", "plain")

    def __init__(
        self,
        classes: int,
        dim: int,
        image_shape: tuple[int, int, int],
        *,
        kind: str = "conditional",
        widths: tuple[int, ...] = (512, 1024),
    ) -> None:
        super().__init__()
        if kind not in self.KINDS:
            raise ValueError(f"decoder {kind!r} is unknown; allowed: {', '.join(self.KINDS)}")
        self.kind, self.classes, self.image_shape = kind, classes, tuple(image_shape)
        sizes = (classes * dim, *widths, math.prod(image_shape))
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))

    def forward(self, poses: Tensor, labels: Tensor | None = None) -> Tensor:
        """labels (B,): the class kept by a conditional decoder; None keeps each image's longest pose.
        labels (B, m): one picture per label, (B, m, C, H, W), whatever the kind."""
        pictures = 1 if labels is None or labels.dim() == 1 else labels.shape[1]
        if self.kind == "conditional":
            labels = length(poses).argmax(1) if labels is None else labels
            kept = F.one_hot(labels.reshape(len(poses), pictures), self.classes).to(poses)
            seen = (poses[:, None] * kept[..., None]).flatten(2)
        else:
            seen = poses.flatten(1)[:, None].expand(-1, pictures, -1)
        for linear in self.linears[:-1]:
            seen = F.relu(linear(seen))
        rebuilt = torch.sigmoid(self.linears[-1](seen)).unflatten(-1, self.image_shape)
        return rebuilt[:, 0] if labels is None or labels.dim() == 1 else rebuilt
