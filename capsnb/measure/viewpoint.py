"""Do capsules see through a change of viewpoint? Norms on images and on the same images transformed.

Mitterreiter et al. 2023, sec. 4.2 and figure 4: a capsule's norm says whether its entity is there, and should be the
same when the entity is rotated, moved, scaled or sheared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from capsnb.data.pixels import rotate_shear_scale, warp
from capsnb.measure.parse_tree import layer_taps
from capsnb.nn import taps
from capsnb.nn.layers import length

# kind -> unit, identity, amounts: the ranges of the authors' working code
KINDS: dict[str, tuple[str, float, tuple[float, ...]]] = {
    "rotation": ("degrees", 0.0, tuple(float(a) for a in range(-25, 26))),
    "translation x": ("pixels", 0.0, tuple(float(a) for a in range(-5, 6))),
    "translation y": ("pixels", 0.0, tuple(float(a) for a in range(-5, 6))),
    "scale": ("factor", 1.0, tuple(round(0.75 + 0.05 * step, 2) for step in range(11))),
    "shear": ("degrees", 0.0, tuple(float(a) for a in range(-10, 11, 2))),
}
TURN = KINDS["rotation"][2][-1]  # degrees: the strongest rotation, where one number has to stand for figure 4


class Similarity(NamedTuple):
    """Norms of I capsules on k images against those on the same images under A transforms. NaN where a norm is 0 on
    every image; for the correlation, where it is the same on every image."""

    cosine: Tensor  # (A, I), the paper's; 1 for a capsule that is invariant
    correlation: Tensor  # (A, I), of the norms less their means, as the authors' working code has it
    chance: Tensor  # (A, I), the cosine expected if the transformed images were in a random order


def moved(images: Tensor, amounts: Mapping[str, float]) -> Tensor:
    """All images scaled, sheared, rotated, then shifted about their centre: uint8 (B, C, H, W) -> the same shape.

    amounts: of KINDS, each in its unit; rotation is clockwise, shear moves x by y. Ink may leave the image. Raises
    ValueError for another kind, a scale that is not above 0, or images that are not uint8.
    """
    if unknown := [kind for kind in amounts if kind not in KINDS]:
        raise ValueError(f"transform {unknown[0]!r} is unknown; allowed: {', '.join(KINDS)}.")
    if images.dtype != torch.uint8:
        raise ValueError(f"images are transformed as uint8, not {images.dtype}.")
    starts = {name: start for name, (_, start, _) in KINDS.items()}
    chosen = {**starts, **amounts}
    if chosen == starts:
        return images
    if not chosen["scale"] > 0:
        raise ValueError(f"scale = {chosen['scale']}: a factor above 0 is needed.")
    numbers = {name: torch.full((len(images),), float(amount)) for name, amount in chosen.items()}
    slant = torch.tan(torch.deg2rad(numbers["shear"]))
    matrix = rotate_shear_scale(numbers["rotation"], slant, numbers["scale"][:, None].expand(-1, 2))
    shift = torch.stack((numbers["translation x"], numbers["translation y"]), 1)
    return warp(images, matrix, shift, *images.shape[2:])


def viewpoint(
    model: nn.Module, batches: Iterable, kind: str, amounts: Sequence[float] | None = None
) -> dict[str, Similarity]:
    """How alike the norms of each capsule layer stay under one kind of transform: tap's name -> Similarity.

    batches: of (images, ...), uint8. amounts: in the kind's unit, all of KINDS[kind] when None. A batch is passed
    through the model len(amounts) + 1 times as large. Raises ValueError when there is no image, or an unknown kind.
    """
    nodes, _ = layer_taps(model)
    if kind not in KINDS:
        raise ValueError(f"transform {kind!r} is unknown; allowed: {', '.join(KINDS)}.")
    amounts = KINDS[kind][2] if amounts is None else tuple(amounts)

    def fold(state: dict[str, Tensor] | None, seen: Mapping[str, Tensor], batch: Any) -> dict[str, Tensor]:
        sums = {name: _sums(length(seen[name]), batch[1]) for name in nodes}
        return sums if state is None else {name: state[name] + sums[name] for name in nodes}

    sums = taps.stream(model, _enlarged(batches, kind, amounts), nodes, fold)
    if sums is None:
        raise ValueError("viewpoint invariance needs at least one batch of images.")
    return {name: _similarity(values.cpu()) for name, values in sums.items()}


def layer_mean(values: Tensor, kept: Tensor | None = None) -> Tensor:
    """Mean over the capsules of a layer that have a value (A, I) -> (A,). kept: (I,) bool, the only ones that count."""
    return (values if kept is None else values[:, kept]).nanmean(1)


def share_kept(found: Similarity) -> Tensor:
    """How much of the way from unrelated images (0) to the same ones (1) a layer's cosine keeps, (A,).

    Ours: Mitterreiter et al. print the cosine alone, which is high by chance where every capsule is active. NaN for a
    layer whose norms are all 0, and for one whose chance is 1.
    """
    cosine, chance = layer_mean(found.cosine), layer_mean(found.chance)
    return (cosine - chance) / (1 - chance)


def _enlarged(batches: Iterable, kind: str, amounts: Sequence[float]) -> Iterator[tuple[Tensor, int]]:
    """Each batch followed by its transforms, with its own size: one pass through the model sees them all."""
    for batch in batches:
        images = batch[0]
        yield torch.cat([images, *(moved(images, {kind: amount}) for amount in amounts)]), len(images)


def _sums(norms: Tensor, count: int) -> Tensor:
    """norms ((1 + A) * count, I), plain images first -> (6, A, I): count, sums of r, t, r r, t t, r t."""
    r, *others = norms.double().split(count)
    rows = [torch.stack((torch.ones_like(r), r, t, r * r, t * t, r * t)).sum(1) for t in others]
    return torch.stack(rows, 1)


def _similarity(sums: Tensor) -> Similarity:
    count, r, t, rr, tt, rt = sums
    size = (rr * tt).sqrt()
    spread = ((rr - r * r / count).clamp_min(0) * (tt - t * t / count).clamp_min(0)).sqrt()
    # rounding leaves about 1e-16 of a square of a norm that never changes
    flat = spread <= 1e-12 * size
    correlation = torch.where(flat, torch.nan, (rt - r * t / count) / spread)
    nothing = size == 0
    cosine, chance = (torch.where(nothing, torch.nan, value / size) for value in (rt, r * t / count))
    return Similarity(cosine, correlation, chance)
