"""Semantic compactness: do few units of a representation carry a change of the image? (Gu et al. 2021, sec. 3.3)

The paper's four steps for an image and a latent factor z (a rotation, say):

1. make a list of images with different z;                          V images
2. take their representations, the true class's alone;              (V, D)
3. the variance of each dimension, divided by the sum of all;       p (D,)
4. the KL divergence of that from uniform: sum_d p_d ln(D p_d) = ln D - H(p).

0 when all units move alike, ln D when a single one moves. An image at which no unit moves has no p: its score is
undefined, and it is counted instead of scored. The natural logarithm and the values of z are ours: neither is printed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from capsnb.data import ImageSet
from capsnb.data.transforms.factors import NEUTRAL, series
from capsnb.measure.protocol import first
from capsnb.nn.taps import evaluating

# Eleven values of each factor, within what the paper's affNIST has (shears half of it: a digit stays a digit).
APART = {"rotation": 4.0, "trans-x": 1.0, "trans-y": 1.0, "scale": 0.04, "shear-x": 4.0, "shear-y": 4.0}
VALUES: dict[str, tuple[float, ...]] = {
    factor: tuple(round(NEUTRAL[factor] + apart * step, 2) for step in range(-5, 6)) for factor, apart in APART.items()
}
STILL = 1e-6  # a root mean square change below this share of the vectors' size is rounding, not movement


class Compactness(NamedTuple):
    """A model's score for one factor."""

    mean: float  # nats, over the images whose score is defined; NaN when none is
    std: float  # over images, n in the denominator
    images: int  # that have a score
    undefined: int  # at which nothing moves
    bound: float  # ln D, the largest score there can be


def variance_shares(vectors: Tensor) -> Tensor:
    """Each dimension's share of an image's variance over its V changes (step 3). (V, B, D) -> (B, D), float64.

    Rows sum to 1; a row is NaN where nothing moves. Population or sample variance makes no difference to a share.
    """
    variance = _variance(vectors)
    return variance / variance.sum(1, keepdim=True)


def _variance(vectors: Tensor) -> Tensor:
    """Each dimension's variance over the V changes, 0 in images at which nothing moves. (V, B, D) -> (B, D)"""
    if vectors.dim() != 3 or len(vectors) < 2:
        raise ValueError(f"representations are (V, B, D) with at least 2 values of the factor, not {vectors.shape}.")
    wide = vectors if vectors.device.type == "mps" else vectors.double()  # variances of small changes cancel badly
    variance, size = (wide - wide.mean(0)).square().mean(0), wide.square().mean(0).sum(1, keepdim=True)
    return torch.where(variance.sum(1, keepdim=True) > STILL**2 * size, variance, 0)


def kl_from_uniform(shares: Tensor) -> Tensor:
    """sum_d p_d ln(D p_d), in nats: 0 for uniform shares, ln D for one-hot ones (step 4). (B, D) -> (B,)."""
    return math.log(shares.shape[-1]) - torch.special.entr(shares).sum(-1)


def compactness(vectors: Tensor) -> Tensor:
    """The semantic compactness of each image, in nats, NaN where nothing moves (steps 3 and 4). (V, B, D) -> (B,)."""
    return kl_from_uniform(variance_shares(vectors)).clamp_min(0)  # rounding may leave -1e-16


def representations(model: nn.Module, images: Tensor, labels: Tensor, *, units: str = "class") -> Tensor:
    """What a score looks at (step 2): the pose of the true class (B, D), or with units="all" all classes' (B, K * D).

    ConvNet-R has no capsule of its class: its 160 units are not grouped. The paper does not say what it takes there.
    "class" takes the 16 units that stand where the class's group stands in the other models (bound ln 16), "all" the
    160 (bound ln 160). Raises ValueError for a model without poses, or other units.
    """
    if units not in ("class", "all"):
        raise ValueError(f"units {units!r} is unknown; allowed: 'class', 'all'")
    poses = model(images).poses
    if poses is None:
        raise ValueError(f"{type(model).__name__} has no poses whose compactness could be measured.")
    return poses.flatten(1) if units == "all" else poses[torch.arange(len(poses), device=poses.device), labels]


def image_scores(
    model: nn.Module, split: Any, factor: str, values: Sequence[float] | None = None, **options: Any
) -> tuple[Tensor, float]:
    """The compactness of every image of a split, in order, (N,) nats on the CPU with NaN where nothing moves; and ln D.

    values: of the factor, as `transforms.factors.FACTORS` explains them; VALUES[factor] when None.
    options: `units` as in `representations`, and `batch`, how many images (times values) go through at once.
    """
    found = []
    for seen in _series(model, split, factor, values, **options):
        found.append(compactness(seen).cpu())
    return torch.cat(found), math.log(seen.shape[-1])


def pooled_score(
    model: nn.Module, split: Any, factor: str, values: Sequence[float] | None = None, **options: Any
) -> float:
    """Another reading of the paper's steps: variances are averaged over a split's images *before* they are normalised.

    In nats; NaN when no image moves anything. What single images lack in evenness evens out over many, so that this is
    at most the mean of `image_scores` weighted by how much each image moves (the KL divergence is convex), and may be
    far below it. Arguments as `image_scores`.
    """
    total: Any = sum(
        _variance(seen).sum(0, keepdim=True).cpu() for seen in _series(model, split, factor, values, **options)
    )
    return kl_from_uniform(total / total.sum()).clamp_min(0).item() if total.sum() > 0 else math.nan


def _series(
    model: nn.Module, split: Any, factor: str, values: Sequence[float] | None, **options: Any
) -> Iterator[Tensor]:
    """The representations of a split's images at every value, (V, B, D), batch by batch."""
    units, batch = options.pop("units", "class"), options.pop("batch", 50)
    if options:
        raise ValueError(f"{', '.join(options)}: the options of a compactness score are units and batch.")
    if not len(split):
        raise ValueError("the split has no images, so there is nothing to score.")
    values = VALUES.get(factor, ()) if values is None else values
    with evaluating(model):
        for images, labels, _ in split.to(next(model.parameters()).device).batches(batch):
            changed = series(images, factor, values)  # (V, B, C, H, W)
            seen = representations(model, changed.flatten(0, 1), labels.repeat(len(values)), units=units)
            yield seen.unflatten(0, (len(values), -1))


def score(
    model: nn.Module, split: Any, factor: str, values: Sequence[float] | None = None, **options: Any
) -> Compactness:
    """A model's semantic compactness for one factor, averaged over a split (Gu et al. 2021, Table 5).

    Arguments as `image_scores`.
    """
    scores, bound = image_scores(model, split, factor, values, **options)
    known = scores[~scores.isnan()]
    mean, std = (known.mean().item(), known.std(correction=0).item()) if len(known) else (math.nan, math.nan)
    return Compactness(mean, std, len(known), len(scores) - len(known), bound)


def table(
    model: nn.Module, split: Any, values: Mapping[str, Sequence[float]] | None = None, **options: Any
) -> dict[str, Compactness]:
    """A row of Table 5: factor -> Compactness, for the factors of `values` (all six when None)."""
    values = VALUES if values is None else values
    return {factor: score(model, split, factor, steps, **options) for factor, steps in values.items()}


def beside_rotated(
    model: nn.Module, split: Any, values: Mapping[str, Sequence[float]] | None = None, *, draws: int = 8, **options: Any
) -> dict[str, tuple[float, float]]:
    """factor -> `score`, and that of the same poses in axes turned at random, mean of `draws` (Haar) rotations.

    Turned poses hold the same, but no number of theirs stands for anything: what a network has above them is what its
    own axes are worth. Nats, NaN where nothing moves in any image. Arguments as `table`.
    """
    generator = torch.Generator().manual_seed(0)
    found, turns = {}, None
    for factor, steps in (VALUES if values is None else values).items():
        own, turned = [], []
        for seen in _series(model, split, factor, steps, **options):
            seen = seen.cpu().double()
            if turns is None:
                turns = [_rotation(seen.shape[-1], generator) for _ in range(draws)]
            own.append(compactness(seen))
            turned.append(torch.stack([compactness(seen @ turn) for turn in turns]).mean(0))
        found[factor] = torch.cat(own).nanmean().item(), torch.cat(turned).nanmean().item()
    return found


def by_factor(model: nn.Module, data: ImageSet, *, images: int = 300) -> dict[str, float]:
    """Table 5: the score of each factor on test images, "rotation", and of turned poses, "turned: rotation"; in nats.

    Pixels of a shift shrink with the image. Raises ValueError for a model without poses.
    """
    unit = data.image_shape[1] / 28
    values = {name: tuple(v * unit for v in each) if "trans" in name else each for name, each in VALUES.items()}
    found = beside_rotated(model, first(data.test, images), values)
    own, turned = ({name: each[place] for name, each in found.items()} for place in (0, 1))
    return own | {f"turned: {name}": score for name, score in turned.items()}


def _rotation(size: int, generator: torch.Generator) -> Tensor:
    q, r = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    return q * r.diagonal().sign()
