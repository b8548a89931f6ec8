"""EM routing: parents as Gaussians over the votes of their children (Hinton, Sabour & Frosst 2018).

    M-step   amount_j = sum_i R_ij a_i        mean_j = sum_i R_ij a_i V_ij / amount_j, the variance alike
             a_j = sigmoid(lambda (beta_a - sum_h (beta_u + ln sigma_jh) amount_j))
    E-step   R_ij = a_j p_j(V_ij) / sum of that over all parents of child i, whatever their type and position

where h runs over the D numbers of a pose and p_j is the product of the D normal densities. R is kept as its logarithm
throughout: no probability underflows, and a parent that hardly anybody votes for still has the right mean.

Shapes: B images, I children, L positions of parents, C types of parents at each, N places that one position sees,
D numbers of a pose. votes (B, L, N, C, D), coupling (B, L, N, C); `Windows` say which child stands at which place. The
memory of votes is best (B, L, C, D, N): each reading is a matrix product then.

Gradients flow through every iteration: "a routing of 3 is like a 3 layer network where the weights of layers are
shared" (the authors, on OpenReview).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from capsnb.nn import fast
from capsnb.nn.fast.moments import Moments

DATA = 100.0  # what lambda and the betas are scaled to: the children per parent of a layer, "amount of data" normalised
STEEPER = 0.95  # lambda after t iterations is final * (1 - STEEPER ** t), t from 1: the authors' answer on OpenReview
TINY = 1e-30  # stands for an activation of 0, whose logarithm must stay a number
HEARD = 1e-8  # what the released code of Tawalbeh & Oramas adds to a sum that it divides by


@dataclass(frozen=True, kw_only=True)
class EM:
    """EM routing as a model's configuration.

    iterations: T, the number of M-steps. final: lambda in the limit, times the normalised amount of data (0.01 x 100).
    floor: added to every variance. The released codes add 1e-9 and 1e-8, so little that in float32 the rounding of the
        vote decides the gradient where a parent has one child; 1e-4, a hundredth of a unit's deviation, is ours.
    rivals: the parents among whom a child spends its 1, "all" that see it, or those of each "position" apart, so that a
        child that several windows see spends more.
    cancels: the M-step divides R a by its sum over the parents, R a / (sum_j R_ij a_i + 1e-8), and since R sums to 1
        there, the child's activation cancels: a child is heard as a / (a + 1e-8), fully or, at 0, not at all. With
        rivals = "position" that is the released code of Tawalbeh & Oramas 2024.
    """

    iterations: int = 3
    final: float = 0.01
    floor: float = 1e-4
    rivals: str = "all"
    cancels: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.iterations, int) or self.iterations < 1:
            raise ValueError(f"iterations = {self.iterations}: a whole number of at least 1 is needed")
        for name in ("final", "floor"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)}: it must be above 0")
        if self.rivals not in ("all", "position"):
            raise ValueError(f"rivals = {self.rivals!r} is unknown; allowed: 'all', 'position'")

    def inverse_temperature(self, iteration: int) -> float:
        """lambda of an M-step, counted from 0."""
        return self.final * (1 - STEEPER ** (iteration + 1))


class Windows(NamedTuple):
    """Which children the parents at each position see."""

    child: Tensor  # (L, N) int64, the child at each place
    positions: Tensor  # (L, N), at how many positions that child has parents
    covered: int  # children that have a parent at all


def windows(height: int, width: int, types: int, kernel: int | None, stride: int) -> Windows:
    """Windows of kernel x kernel places over a grid of children, or of all: child (y * width + x) * types + type.

    Positions stand row by row, and the places of a window alike, the types of one place side by side.
    """
    grid = np.arange(height * width * types).reshape(height, width, types)
    window = (kernel, kernel) if kernel else (height, width)
    seen = sliding_window_view(grid, window, (0, 1))[::stride, ::stride]  # (rows, columns, types, y, x)
    child = seen.transpose(0, 1, 3, 4, 2).reshape(-1, math.prod(window) * types)
    positions = np.bincount(child.ravel())
    crowd = torch.tensor(positions[child], dtype=torch.get_default_dtype())
    return Windows(torch.tensor(child), crowd, int(np.count_nonzero(positions)))


class Parents(NamedTuple):
    """What an M-step makes, one of each for the C types at the L positions."""

    poses: Tensor  # (B, L, C, D) means
    logits: Tensor  # (B, L, C) of the activations
    variances: Tensor  # (B, L, C, D), the floor included
    distances: Tensor  # (B, L, C, N) of each vote, squared, in standard deviations; empty unless asked for


def couple(votes: Tensor, activations: Tensor, seen: Windows, beta_u: Tensor, beta_a: Tensor, em: EM) -> Tensor:
    """The coupling of the last M-step, as its logarithm: (B, L, N, C), in (B, L, C, N) memory.

    At first every child spends 1 evenly over its parents, or over those of each position.
    votes (B, L, N, C, D), activations (B, I) of the children, beta_u and beta_a (C,).
    """
    types = votes.shape[3]
    everywhere = em.rivals == "all"
    start = -((seen.positions if everywhere else torch.ones_like(seen.positions)) * float(types)).log().to(votes)
    logs = start[None, :, :, None].expand(votes.shape[:-1])
    for iteration in range(em.iterations - 1):
        parents = m_step(votes, logs, activations, seen, beta_u, beta_a, em, iteration, distances=True)
        density = -0.5 * (parents.distances + parents.variances.log().sum(-1, keepdim=True))
        logs = density + F.logsigmoid(parents.logits).unsqueeze(-1)
        spent = _over_parents(logs, seen.child, activations.shape[1]) if everywhere else logs.logsumexp(2)
        logs = (logs - spent.unsqueeze(2)).transpose(2, 3)
    return logs


def m_step(
    votes: Tensor,
    log_coupling: Tensor,
    activations: Tensor,
    seen: Windows,
    beta_u: Tensor,
    beta_a: Tensor,
    em: EM,
    iteration: int,
    *,
    distances: bool = False,
) -> Parents:
    """The parents that a coupling makes. `iteration` from 0 sets lambda; shapes as in `couple`.

    The cost is scaled by the amount of data: with J = L C parents of I children it is DATA / (I / J) times the sum of
    R a, so that one lambda fits every layer, the class layer too, where few parents hear all children; where each
    position's parents share all of a child, DATA / (N / C). beta_a is written in units of DATA as well, so that an
    optimiser moves both betas alike.
    """
    active = _at_places(activations, seen.child).clamp_min(TINY)
    heard = -(HEARD / active).log1p() if em.cancels else active.log()
    weighted = (log_coupling + heard.unsqueeze(-1)).transpose(2, 3)
    share = weighted.softmax(-1)
    _, positions, places, types, _ = votes.shape
    per_child = positions * types / seen.covered if em.rivals == "all" else types / places
    amount = weighted.logsumexp(-1).exp() * per_child
    mean, variance, far = moments(votes.permute(0, 1, 3, 4, 2), share, em.floor, distances)
    cost = (beta_u.unsqueeze(-1) + 0.5 * variance.log()).sum(-1) * amount
    return Parents(mean, DATA * em.inverse_temperature(iteration) * (beta_a - cost), variance, far)


def moments(votes: Tensor, share: Tensor, floor: float, distances: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of votes under shares, and each vote's squared distance in standard deviations.

    votes (..., D, N), share (..., N), which sums to 1 over N -> (..., D), (..., D), (..., N) or empty. The variance has
    the floor in it. Differentiable once, by `capsnb.nn.fast`.
    """
    if torch.compiler.is_compiling() or fast.switched_off():
        mean = (votes * share.unsqueeze(-2)).sum(-1)
        squares = (votes - mean.unsqueeze(-1)).square()
        variance = (squares * share.unsqueeze(-2)).sum(-1) + floor
        far = (squares / variance.unsqueeze(-1)).sum(-2) if distances else mean.new_empty(0)
        return mean, variance, far
    lead = share.shape[:-1]
    mean, variance, far = Moments.apply(votes.flatten(0, -3), share.flatten(0, -2), floor, distances)
    return mean.unflatten(0, lead), variance.unflatten(0, lead), far.unflatten(0, lead) if distances else far


def dense(coupling: Tensor, child: Tensor, children: int) -> Tensor:
    """A coupling by windows as one by children and parents, 0 where a parent does not see a child.

    (B, L, N, C), child (L, N) -> (B, I, J), parent j = position * C + type, as poses and activations have them.
    """
    batch, positions, _, types = coupling.shape
    found = coupling.new_zeros(batch, positions, children, types)
    found = found.scatter(2, child[None, :, :, None].expand_as(coupling), coupling)
    return found.transpose(1, 2).flatten(2)


def _at_places(of_children: Tensor, child: Tensor) -> Tensor:
    """What the children at each place of each window have: (B, I) -> (B, L, N)."""
    index = child.flatten().expand(len(of_children), -1)
    return of_children.gather(1, index).unflatten(1, child.shape)


def _over_parents(logs: Tensor, child: Tensor, children: int) -> Tensor:
    """ln of the sum, over all parents of a child, of exp(logs), at each place of that child.

    logs (B, L, C, N) -> (B, L, N). The places that one child has in several windows get the same number.
    """
    of_window = logs.logsumexp(2)
    if len(of_window[0]) == 1:
        return of_window
    flat, index = of_window.flatten(1), child.flatten().expand(len(logs), -1)
    start = flat.new_full((len(logs), children), -torch.inf)
    top = start.scatter_reduce(1, index, flat.detach(), "amax").gather(1, index)
    total = flat.new_zeros(len(logs), children).scatter_add(1, index, (flat - top).exp())
    return (top + total.gather(1, index).log()).unflatten(1, child.shape)
