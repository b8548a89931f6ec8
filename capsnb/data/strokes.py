"""Digits drawn of known strokes: pictures whose parts are known, to ask whether capsules stand for parts.

Ours. Each digit is a few strokes, polylines drawn with a round pen, turned, slanted, scaled, moved and thickened a
little at random as handwriting is; every pixel of ink belongs to the stroke whose line is nearest.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

PEN = (0.05, 0.08)  # half the width of the line, in heights of a digit
INK = 0.5  # from this brightness on a pixel belongs to a stroke


class Strokes(NamedTuple):
    """Pictures, and which pixels belong to which stroke of theirs."""

    images: Tensor  # (N, 1, H, W) uint8, bright ink on black
    labels: Tensor  # (N,)
    masks: Tensor  # (N, S, H, W) bool; a digit of fewer than S strokes has empty ones


def arc(x: float, y: float, rx: float, ry: float, start: float, end: float) -> list[tuple[float, float]]:
    """Points of an ellipse about (x, y), degrees clockwise from the right; y points down."""
    turns = [math.radians(start + (end - start) * step / 16) for step in range(17)]
    return [(x + rx * math.cos(turn), y + ry * math.sin(turn)) for turn in turns]


# strokes in a box of width 0.7 and height 1 about the origin
DIGITS: tuple[tuple[list[tuple[float, float]], ...], ...] = (
    (arc(0, 0, 0.3, 0.45, 90, 270), arc(0, 0, 0.3, 0.45, -90, 90)),
    ([(0, -0.45), (0, 0.45)],),
    (arc(0, -0.2, 0.27, 0.25, -170, 20), [(0.25, -0.1), (-0.3, 0.45)], [(-0.3, 0.45), (0.32, 0.45)]),
    (arc(-0.02, -0.23, 0.27, 0.22, -150, 90), arc(-0.02, 0.22, 0.3, 0.23, -90, 150)),
    ([(0.0, -0.45), (-0.32, 0.12)], [(-0.32, 0.12), (0.33, 0.12)], [(0.14, -0.15), (0.14, 0.45)]),
    ([(-0.2, -0.45), (0.28, -0.45)], [(-0.2, -0.45), (-0.22, -0.08)], arc(-0.02, 0.17, 0.28, 0.27, -135, 140)),
    (arc(0.32, 0.2, 0.58, 0.68, -180, -105), arc(0, 0.2, 0.26, 0.25, -180, 180)),
    ([(-0.3, -0.45), (0.3, -0.45)], [(0.3, -0.45), (-0.08, 0.45)]),
    (arc(0, -0.23, 0.23, 0.22, 90, 450), arc(0, 0.22, 0.28, 0.23, -90, 270)),
    (arc(0, -0.2, 0.25, 0.25, 0, 360), [(0.25, -0.2), (0.12, 0.45)]),
)
MOST = max(map(len, DIGITS))


def stroke_digits(count: int, *, size: int = 28, seed: int = 0) -> Strokes:
    """`count` digits, the classes in turn; a digit is about 20/28 of the picture's height, as MNIST's are.

    Raises ValueError for fewer than 1 picture, or a side below 8 pixels.
    """
    if count < 1 or size < 8:
        raise ValueError(f"{count} pictures of {size} pixels: at least 1 picture of 8 pixels is needed.")
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(count, 6, generator=generator, dtype=torch.float64)
    turn, slant, wide, high = (draws[:, n] * 2 - 1 for n in range(4))
    pen = PEN[0] + (PEN[1] - PEN[0]) * draws[:, 4]
    scale = (0.95 + 0.1 * draws[:, 5]) * 20 / 28 * size
    turn, cells = (8 * turn).deg2rad(), torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    y, x = torch.meshgrid(cells, cells, indexing="ij")
    labels, distances = torch.arange(count) % 10, torch.full((count, MOST, size, size), torch.inf, dtype=torch.float64)
    for n, label in enumerate(labels.tolist()):
        for s, line in enumerate(DIGITS[label]):
            points = torch.tensor(line, dtype=torch.float64)
            px = points[:, 0] * (1 + 0.1 * wide[n]) - (0.15 + 0.15 * slant[n]) * points[:, 1]
            py = points[:, 1] * (1 + 0.05 * high[n])
            cos, sin = turn[n].cos(), turn[n].sin()
            ends = torch.stack([px * cos - py * sin, px * sin + py * cos], -1) * scale[n]
            distances[n, s] = _to_line(x, y, ends)
    radius = (pen * scale)[:, None, None]
    ink = (radius - distances.amin(1) + 0.5).clamp(0, 1)
    nearest = torch.nn.functional.one_hot(distances.argmin(1), MOST).movedim(-1, 1).bool()
    return Strokes((255 * ink).round().to(torch.uint8).unsqueeze(1), labels, nearest & (ink >= INK).unsqueeze(1))


def _to_line(x: Tensor, y: Tensor, ends: Tensor) -> Tensor:
    """Distance of pixels (H, W) to a polyline (P, 2). -> (H, W)"""
    start, along = ends[:-1], ends.diff(dim=0)
    offset = torch.stack([x, y], -1)[..., None, :] - start  # (H, W, P - 1, 2)
    part = ((offset * along).sum(-1) / along.square().sum(-1)).clamp(0, 1)
    return (offset - part.unsqueeze(-1) * along).norm(dim=-1).amin(-1)
