"""Mean and variance of votes under shares, with a gradient that keeps nothing of the votes' size but the votes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from capsnb.nn.fast import refuse_graph


class Moments(torch.autograd.Function):
    """votes (G, D, N), share (G, N) -> mean (G, D), variance (G, D), distance (G, N), empty unless asked for.

    The squares, which all three are products with, are made again for the gradient.
    """

    @staticmethod
    def forward(ctx: Any, votes: Tensor, share: Tensor, floor: float, distances: bool) -> tuple[Tensor, Tensor, Tensor]:
        column = share.unsqueeze(-1)
        mean = torch.bmm(votes, column)
        squares = (votes - mean).square_()
        variance = torch.bmm(squares, column).squeeze(-1) + floor
        far = torch.bmm(variance.reciprocal().unsqueeze(1), squares).squeeze(1) if distances else mean.new_empty(0)
        mean = mean.squeeze(-1)
        ctx.save_for_backward(votes, share, mean, variance)
        ctx.distances = distances
        return mean, variance, far

    @staticmethod
    def backward(ctx: Any, d_mean: Tensor, d_variance: Tensor, d_far: Tensor) -> tuple[Tensor | None, ...]:
        refuse_graph("EM routing")
        votes, share, mean, variance = ctx.saved_tensors
        apart = votes - mean.unsqueeze(-1)
        squares = apart.square()
        if ctx.distances:
            precision = variance.reciprocal()
            d_precision = torch.bmm(squares, d_far.unsqueeze(-1)).squeeze(-1)
            d_variance = d_variance - d_precision * precision * precision
            left, right = torch.stack((d_variance, precision), -1), torch.stack((share, d_far), -2)
        else:
            left, right = d_variance.unsqueeze(-1), share.unsqueeze(-2)
        d_votes = torch.bmm(2 * left, right) * apart
        d_mean = d_mean - d_votes.sum(-1)
        d_share = torch.bmm(d_mean.unsqueeze(1), votes) + torch.bmm(d_variance.unsqueeze(1), squares)
        d_votes = torch.baddbmm(d_votes, d_mean.unsqueeze(-1), share.unsqueeze(-2))
        return d_votes, d_share.squeeze(1), None, None
