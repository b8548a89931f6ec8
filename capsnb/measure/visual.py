"""What a change of a pose changes in the picture: rotation, thickness, width, slant and area, measured.

Tawalbeh & Oramas 2024, sec. 6.1, judge by eye that one dimension changes several visual features, and other ones in
other classes. Here each feature of the decoder's pictures is regressed on the perturbation, in units of the feature's
own spread among the images of the class, so that "how many features move" is a count with a stated threshold. All of
this module is ours; the paper has no such number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capsnb.measure.perturbation import perturbation_grid

FEATURES = {
    "rotation": "degrees, clockwise, of the ink's longer axis; modulo 180",
    "thickness": "pixels: 2 area / outline",
    "width": "pixels, of the upright bar with the ink's spread, slant taken out",
    "slant": "degrees, rows shifted along x",
    "area": "pixels of ink",
}
# what can be changed alone: a sheared digit has another rotation too, a thicker one more ink
PROPERTIES = {"pose": ("rotation", "slant"), "stroke": ("thickness", "area"), "width": ("width",)}
MOVES = 0.5  # of the feature's spread in its class, over the whole interval: from here on a feature is said to move


class Effects(NamedTuple):
    """One regression per class, dimension and feature, of changes within images."""

    effect: Tensor  # (K, D, F) change from the interval's low end to its high end, in spreads of the feature
    explained: Tensor  # (K, D, F) share of the feature's variance over the steps of an image that the line explains


def visual_features(images: Tensor, *, floor: float = 0.1) -> Tensor:
    """Features of bright figures on a dark ground, by the moments of their ink. (..., C, H, W) -> (..., F)

    The order is that of FEATURES. images: uint8 or in [0, 1], channels are averaged; ink is what exceeds `floor`,
    scaled so that a white pixel counts 1: decoders leave a faint grey everywhere, which would outweigh a thin stroke.
    A picture without ink has nan.
    """
    pixels = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    ink = (pixels.mean(-3) - floor).clamp_min(0) / (1 - floor)
    y = torch.arange(ink.shape[-2], device=ink.device).unsqueeze(-1)
    x = torch.arange(ink.shape[-1], device=ink.device)
    area = ink.sum((-2, -1))

    def moment(values: Tensor) -> Tensor:
        return (ink * values).sum((-2, -1)) / area

    x = x - moment(x)[..., None, None]
    y = y - moment(y)[..., None, None]
    xx, yy, xy = moment(x * x), moment(y * y), moment(x * y)
    yy = yy + 1 / 12  # a pixel is a square, not a point: a single row of ink has a height too
    rotation = torch.atan2(2 * xy, xx + 1 / 12 - yy) / 2
    width = (12 * (xx - xy**2 / yy) + 1).sqrt()
    # gradients of cells of 2x2 pixels, which are as long across a slanted edge as across an upright one
    edges = F.pad(ink, (1, 1, 1, 1))
    down, right = edges.diff(dim=-2), edges.diff(dim=-1)
    down, right = (down[..., 1:] + down[..., :-1]) / 2, (right[..., 1:, :] + right[..., :-1, :]) / 2
    thickness = 2 * area / (down**2 + right**2).sqrt().sum((-2, -1))
    slant = torch.atan(xy / yy)
    return torch.stack([rotation.rad2deg(), thickness, width, slant.rad2deg(), area], -1)


def class_std(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Standard deviation of each feature among the images of each class; of rotation, the circular one. -> (K, F)"""
    found = []
    for label in range(classes):
        own = features[labels == label]
        own = own[own.isfinite().all(1)].double()
        if len(own) < 2:
            raise ValueError(f"class {label} has {len(own)} pictures with ink; a spread needs at least 2.")
        double = 2 * own[:, 0].deg2rad()  # a half turn leaves an axis as it is
        resultant = torch.hypot(double.cos().mean(), double.sin().mean())
        turn = (-2 * resultant.log()).clamp_min(0).sqrt() / 2
        found.append(torch.cat([turn.rad2deg()[None], own[:, 1:].std(0)]))
    return torch.stack(found).to(features)


def effects(features: Tensor, values: Tensor, labels: Tensor, scale: Tensor) -> Effects:
    """Regress features of perturbed pictures on the perturbation, with an intercept per image and a slope per class.

    features: (B, D, S, F) of pictures [image, dimension, step]; values: (S,) or (D, S), or (B, D, S); labels: (B,);
    scale: (K, F), the spread of each feature. A class without images has nan.
    """
    if features.dim() != 4 or features.shape[-1] != len(FEATURES):
        raise ValueError(f"features are (B, D, S, {len(FEATURES)}), not {tuple(features.shape)}.")
    steps = values.to(features).expand(features.shape[:3]).unsqueeze(-1)
    y = torch.cat([_unwrap(features[..., :1]), features[..., 1:]], -1)
    x = steps - steps.mean(2, keepdim=True)
    y = y - y.mean(2, keepdim=True)
    products, x_squares, y_squares = (x * y).sum(2), (x * x).sum(2), (y * y).sum(2)
    reach = (steps.amax(2) - steps.amin(2)).expand_as(products)
    whole = products.isfinite()
    found: list[list[Tensor]] = []
    for label in range(len(scale)):
        own = whole & (labels == label)[:, None, None]
        sums = [torch.where(own, part, 0).sum(0) for part in (products, x_squares.expand_as(products), y_squares)]
        slope = sums[0] / sums[1]
        travel = torch.where(own, reach, 0).sum(0) / own.sum(0)
        # a feature that does not change at all is explained by a slope of 0, to no share
        explained = torch.where(sums[2] > 0, slope * sums[0] / sums[2], 0 * slope)
        found.append([slope * travel / scale[label], explained])
    return Effects(*(torch.stack(part) for part in zip(*found, strict=True)))


def visual_effects(
    model: nn.Module,
    split: Any,
    values: Any,
    *,
    classes: int,
    images: int = 20,
    change: str = "replacement",
    directions: Any = None,
    shuffle: int | None = None,
) -> Effects:
    """`effects` of a model's perturbed pictures, on the first `images` images of each class of a split.

    values, directions: as `perturbation_grid` takes them, or a mapping class -> them (class intervals, PCA axes).
    shuffle: a seed, with which the steps of every image and dimension change places: the null, what noise alone moves.
    The spread is that of all the split's images. Raises ValueError for a class with fewer than 2 images.
    """
    natural = class_std(visual_features(split.images), split.labels, classes).cpu()
    generator = None if shuffle is None else torch.Generator().manual_seed(shuffle)
    parts, steps, owners = [], [], []
    for label in range(classes):
        index = (split.labels == label).nonzero().flatten()[:images]
        part = split.batch(index)
        own = values[label] if isinstance(values, Mapping) else values
        axes = directions[label] if isinstance(directions, Mapping) else directions
        grid = perturbation_grid(model, part.images, part.labels, own, change=change, directions=axes)
        found = visual_features(grid).cpu()
        if generator is not None:
            order = torch.rand(found.shape[:3], generator=generator).argsort(2)
            found = found.gather(2, order.unsqueeze(-1).expand_as(found))
        parts.append(found)
        steps.append(torch.as_tensor(own).cpu().to(found).expand(found.shape[:3]))
        owners.append(part.labels.cpu())
    return effects(torch.cat(parts), torch.cat(steps), torch.cat(owners), natural)


def moved(found: Effects, *, threshold: float = MOVES) -> Tensor:
    """How many features each dimension moves by at least `threshold` spreads. -> (K, D)"""
    return (found.effect.abs() >= threshold).sum(-1)


def properties_moved(found: Effects, *, threshold: float = MOVES) -> Tensor:
    """How many of the three `PROPERTIES` each dimension moves; one moves when any of its features does. -> (K, D)

    Features overlap, so that a pose with one dimension for shear and one for thickness would still move two features
    with each; of properties it would move one.
    """
    moves, names = found.effect.abs() >= threshold, list(FEATURES)
    groups = [moves[..., [names.index(feature) for feature in group]].any(-1) for group in PROPERTIES.values()]
    return torch.stack(groups).sum(0)


def entangled(found: Effects, *, threshold: float = MOVES) -> float:
    """Of the dimensions (of all classes) that move a property, the share that moves several; nan where none moves."""
    counts = properties_moved(found, threshold=threshold)
    return ((counts > 1).sum() / (counts > 0).sum()).item()


def class_agreement(found: Effects) -> Tensor:
    """Cosine of two classes' effects on the features, mean over pairs of classes: 1 where a dimension means the same in
    all of them. -> (D,). Compare with `shuffled_dimensions`."""
    effect = found.effect
    pairs = torch.triu_indices(len(effect), len(effect), 1)
    if not pairs.numel():
        raise ValueError("a comparison of classes needs at least two of them.")
    return F.cosine_similarity(effect[pairs[0]], effect[pairs[1]], dim=-1).mean(0)


def shuffled_dimensions(found: Effects, *, seed: int = 0) -> Effects:
    """The null of `class_agreement`: in every class the dimensions in another order."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(found.effect.shape[:2], generator=generator).argsort(1).unsqueeze(-1).expand_as(found.effect)
    return Effects(*(part.gather(1, order.to(part.device)) for part in found))


def random_axes(dim: int, *, seed: int = 0) -> Tensor:
    """An orthonormal basis turned at random, a vector per row. -> (D, D)"""
    gaussian = torch.randn(dim, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    return (q * r.diagonal().sign()).T.float()  # the signs make the draw even over all turns


def _unwrap(angles: Tensor) -> Tensor:
    """Angles modulo 180 along the steps, axis 2, without jumps."""
    jump = angles.diff(dim=2)
    jump = jump - 180 * (jump / 180).round()
    return torch.cat([angles[:, :, :1], angles[:, :, :1] + jump.cumsum(2)], 2)
