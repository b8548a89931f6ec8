"""What a layer of routing by agreement costs beside multi-head self-attention (Mitterreiter et al. 2023, Table 3).

Both take n vectors of d numbers to n vectors of d numbers, in one run on one device: seconds of a forward and backward
pass, bytes kept for the backward pass, numbers that are learned. The exponent in a size is the slope of a straight line
through (log size, log cost).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from statistics import linear_regression
from typing import NamedTuple

import torch
from torch import Tensor, nn

from capsnb.nn.layers import RoutedCapsules
from capsnb.nn.routing import Dynamic
from capsnb.training.evaluation import pick_device


class Cost(NamedTuple):
    """Of one layer at one size."""

    seconds: float  # of a forward and backward pass, the fastest of several
    kept: int  # bytes of all tensors that the forward pass keeps for the backward pass, parameters included
    parameters: int  # learned numbers


class Attention(nn.Module):
    """Multi-head self-attention, as a transformer has it, without dropout: (B, n, d) -> (B, n, d)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(dim, heads, bias=False, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.inner(tokens, tokens, tokens, need_weights=False)[0]


LAYERS: dict[str, Callable[[int, int], nn.Module]] = {
    "agreement": lambda n, d: RoutedCapsules(n, d, n, d, routing=Dynamic(iterations=3), squash="exponential"),
    "attention": lambda n, d: Attention(d, heads=4 if d % 4 == 0 else 1),
}


def measure(
    kind: str, n: int, d: int, *, batch: int = 16, repeats: int = 5, device: str | torch.device | None = None
) -> Cost:
    """The cost of one layer from n vectors of d numbers to as many. Raises ValueError for an unknown kind."""
    if kind not in LAYERS:
        raise ValueError(f"layer {kind!r} is unknown; allowed: {', '.join(LAYERS)}.")
    device = pick_device(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer, vectors = LAYERS[kind](n, d).to(device), torch.randn(batch, n, d).to(device).requires_grad_()
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = layer(vectors)
        held = sum(kept.values())
    output.sum().backward()
    times = []
    for _ in range(repeats):
        _wait(device)
        start = time.perf_counter()
        layer(vectors).sum().backward()
        _wait(device)
        times.append(time.perf_counter() - start)
    return Cost(min(times), held, sum(parameter.numel() for parameter in layer.parameters()))


def measure_together(
    sizes: Sequence[tuple[int, int]], *, rounds: int = 3, device: str | torch.device | None = None, **options: int
) -> dict[str, list[Cost]]:
    """Both layers at all sizes (n, d), in turns, so that whatever else the machine does falls on both: kind -> costs.

    Of each the fastest of all rounds.
    """
    turns = [
        {kind: [measure(kind, n, d, device=device, **options) for n, d in sizes] for kind in LAYERS}
        for _ in range(rounds)
    ]
    return {kind: [min(costs) for costs in zip(*(turn[kind] for turn in turns), strict=True)] for kind in LAYERS}


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Slope of log cost over log size by least squares: k where the cost is proportional to size ** k.

    Raises ValueError for fewer than two sizes, lists of different lengths, or anything that is not above 0.
    """
    if len(sizes) != len(costs) or len(set(sizes)) < 2:
        raise ValueError(f"an exponent needs at least two sizes with a cost each, not {len(sizes)} and {len(costs)}.")
    if min(*sizes, *costs) <= 0:
        raise ValueError("an exponent needs sizes and costs above 0.")
    return linear_regression([math.log(size) for size in sizes], [math.log(cost) for cost in costs]).slope


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
