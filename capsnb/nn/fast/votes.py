"""Weighted sums of votes and agreements with them: matrix products that share one gradient.

Routing reads the votes 2 T - 1 times, and each reading has a gradient with respect to the votes, the largest tensor
there is. Both readings are batched matrix products: with the poses of the parents as blocks on a diagonal,

    agreement[b] = votes[b] @ blocks(poses[b])        (I, J D) @ (J D, J),
    sums[b] = blocks of coupling[b]^T @ votes[b]      (J, I) @ (I, J D),

so that each is one pass over the votes at the speed of memory, although most products are with zeros. Both gradients
are outer products over parents, coupling x d sums and d agreement x poses, so that all of them together are one more,

    d votes[b] = [coupling_1, ..., d agreement_1, ...] @ blocks([d sums_1, ..., poses_1, ...]),

made once, when the last of them is known. To that end every reading also takes a gradient token: a scalar whose own
gradient, which autograd asks for after all the readings', is that product. Only the votes, one (B, J, I) tensor and one
(B, J, D) tensor per reading are kept between the passes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from capsnb.nn.fast import refuse_graph, switched_off
from capsnb.nn.precision import autocast

MOST_PARENTS = 16  # in one block-diagonal product: beyond it, the zeros cost more than another pass


class VoteReader:
    """Votes (B, I, J, D) that are read several times in one forward pass. Differentiable once.

    Plain einsums, which may be differentiated again, while torch.compile traces or when switched off.
    """

    def __init__(self, votes: Tensor) -> None:
        self.votes, self._parts = votes, []
        if torch.compiler.is_compiling() or switched_off():
            return
        parts = -(-votes.shape[2] // MOST_PARENTS)
        self._parts = [_Part(part) for part in (votes.tensor_split(parts, 2) if parts > 1 else [votes])]

    def weighted_sum(self, coupling: Tensor) -> Tensor:
        """What the parents receive: sum over i of coupling (B, I, J) times vote. -> (B, J, D)"""
        if not self._parts:
            return torch.einsum("bij,bijd->bjd", coupling, self.votes)
        return self._read(False, coupling.transpose(1, 2))

    def agreement(self, poses: Tensor) -> Tensor:
        """Scalar product of each vote with its parent's pose (B, J, D). -> (B, I, J), in (B, J, I) memory"""
        if not self._parts:
            return torch.einsum("bijd,bjd->bij", self.votes, poses)
        return self._read(True, poses).transpose(1, 2)

    def _read(self, agree: bool, x: Tensor) -> Tensor:
        x = x.to(self.votes.dtype)  # exact under autocast too
        with autocast(x.device, enabled=False):
            if len(self._parts) == 1:
                return self._parts[0].read(agree, x)
            shares = zip(self._parts, x.tensor_split(len(self._parts), 1), strict=True)
            return torch.cat([part.read(agree, share) for part, share in shares], 1)


class _Part:
    """The votes of some of the parents."""

    def __init__(self, votes: Tensor) -> None:
        self.votes = votes.detach()
        self.factors: list[_Factors] = []
        wanted = votes.requires_grad and torch.is_grad_enabled()
        self.token = _GradientToken.apply(votes, self.factors) if wanted else None

    def read(self, agree: bool, x: Tensor) -> Tensor:
        return _Reading.apply(agree, x, self.votes, self.token, self.factors)


class _Factors(NamedTuple):
    """One outer product of the votes' gradient."""

    over_children: Tensor  # (B, J, I)
    over_size: Tensor  # (B, J, D)
    task: int  # the backward pass that made it: of one that stopped before the token nothing may be left


class _GradientToken(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, votes: Tensor, factors: list[_Factors]) -> Tensor:
        ctx.factors = factors
        return votes.new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        refuse_graph("votes")
        own = [each for each in ctx.factors if each.task == torch._C._current_graph_task_id()]
        ctx.factors.clear()
        left = torch.cat([each.over_children for each in own], 1)
        right = torch.cat([_blocks(each.over_size) for each in own], 1)
        gradient = torch.bmm(left.transpose(1, 2), right)
        return gradient.reshape(*gradient.shape[:2], *own[0].over_size.shape[1:]), None


class _Reading(torch.autograd.Function):
    """Agreement with poses x (B, J, D), or weighted sum with coupling x (B, J, I): linear, and each other's adjoint."""

    @staticmethod
    def forward(
        ctx: Any, agree: bool, x: Tensor, votes: Tensor, token: Tensor | None, factors: list[_Factors]
    ) -> Tensor:
        ctx.save_for_backward(x, votes)
        ctx.agree, ctx.factors = agree, factors
        return _agreements(x, votes) if agree else _sums(x, votes)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_graph("votes")
        x, votes = ctx.saved_tensors
        _, need_x, _, need_votes, _ = ctx.needs_input_grad
        if need_votes:
            left, right = (grad, x) if ctx.agree else (x, grad)
            ctx.factors.append(_Factors(left, right, torch._C._current_graph_task_id()))
        adjoint = _sums if ctx.agree else _agreements
        token = grad.new_zeros(()) if need_votes else None
        return None, adjoint(grad, votes) if need_x else None, None, token, None


def _blocks(poses: Tensor) -> Tensor:
    """(B, J, D) -> (B, J, J D): row j holds the pose of parent j at its own columns and zeros elsewhere."""
    own = torch.eye(poses.shape[1], dtype=poses.dtype, device=poses.device)
    blocks = poses.unsqueeze(2) * own.unsqueeze(2)
    return blocks.reshape(*poses.shape[:2], -1)  # here, not flatten: torch cannot batch it over many gradients


def _sums(coupling: Tensor, votes: Tensor) -> Tensor:
    """(B, J, I), (B, I, J, D) -> (B, J, D)"""
    product = torch.bmm(coupling, votes.flatten(2))
    product = product.reshape(*product.shape[:2], *votes.shape[2:])
    return product.diagonal(dim1=1, dim2=2).transpose(1, 2)


def _agreements(poses: Tensor, votes: Tensor) -> Tensor:
    """(B, J, D), (B, I, J, D) -> (B, J, I)"""
    return torch.bmm(_blocks(poses), votes.flatten(2).transpose(1, 2))


class Combine:
    """What a layer lends its routing: `combine(coupling, votes) -> poses`, the weighted sum, bias and squash.

    activate: (B, J, D) -> same, the bias and the squash. Votes other than the reader's are summed on their own.
    """

    def __init__(self, reader: VoteReader, activate: Callable[[Tensor], Tensor]) -> None:
        self.reader, self.activate = reader, activate

    def __call__(self, coupling: Tensor, votes: Tensor) -> Tensor:
        reader = self.reader if votes is self.reader.votes else VoteReader(votes)
        return self.activate(reader.weighted_sum(coupling))
