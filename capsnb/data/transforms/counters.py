"""Random numbers that are functions of their place: draw i is a hash of (seed, stream, i), whatever is drawn beside it.

Derived images made so need no storage and no order: image i, or pair k of image i, is the same in any batch. The hash
is splitmix64 (Steele, Lea and Flood 2014), whose 64-bit arithmetic int64 tensors do with wrap-around on any device.
"""

from __future__ import annotations

import torch
from torch import Tensor

_GOLDEN, _MIX1, _MIX2 = (c - (1 << 64) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def draw(seed: int, stream: int, *place: Tensor) -> Tensor:
    """64 random bits for every place: int64 tensors that broadcast, such as image numbers and pair numbers."""
    wrapped = (seed + (1 << 63)) % (1 << 64) - (1 << 63)
    bits = torch.tensor(wrapped, dtype=torch.int64, device=place[0].device)
    for word in (torch.full_like(bits, stream), *place):
        bits = _splitmix(bits ^ word)
    return bits


def below(bits: Tensor, limit: int | Tensor) -> Tensor:
    """Integers 0..limit-1 out of random bits, uniform to limit / 2^31."""
    return _shifted(bits, 33) % limit


def uniform(bits: Tensor) -> Tensor:
    """Floats in [0, 1) out of random bits, float64: 53 bits of each."""
    return _shifted(bits, 11).double() * 2.0**-53


def _splitmix(x: Tensor) -> Tensor:
    x = x + _GOLDEN
    x = (x ^ _shifted(x, 30)) * _MIX1
    x = (x ^ _shifted(x, 27)) * _MIX2
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, by: int) -> Tensor:
    """Logical shift to the right; torch's own copies the sign."""
    return (x >> by) & ((1 << (64 - by)) - 1)
