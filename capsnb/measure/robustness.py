"""Which transformation breaks a model: accuracy against one factor at a time, on affNIST-like sets, and for its size.

Gu et al. 2021 report one accuracy on affNIST; the curves split it by factor. Everything streams batch by batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from capsnb.data import ImageSet, Split
from capsnb.data.pixels import centre
from capsnb.data.transforms import Affine, Translated
from capsnb.data.transforms.factors import NEUTRAL, vary
from capsnb.nn.taps import evaluating
from capsnb.training.evaluation import correct


def accuracy_against(
    model: nn.Module, split: Any, factor: str, values: Sequence[float], *, batch: int = 500
) -> list[float]:
    """Share of right answers on a split when all its images are changed by one factor: one number per value.

    values: as `synthesis.factors.FACTORS` explains them. Raises ValueError for no values, no images, an unknown factor.
    """
    if not len(values):
        raise ValueError(f"{factor} has no values to measure the accuracy at; give at least one.")
    if not len(split):
        raise ValueError("the split has no images, so there is no accuracy.")
    device = next(model.parameters()).device
    right = torch.zeros(len(values), dtype=torch.int64, device=device)
    with evaluating(model):
        for images, labels, _ in split.to(device).batches(batch):
            for place, value in enumerate(values):
                right[place] += correct(model(vary(images, factor, value)).scores, labels).sum()
    return (right / len(split)).tolist()


def surface(
    model: nn.Module, split: Any, values: Mapping[str, Sequence[float]], *, batch: int = 500
) -> dict[str, list[float]]:
    """`accuracy_against` for several factors: factor -> one share of right answers per value."""
    return {factor: accuracy_against(model, split, factor, steps, batch=batch) for factor, steps in values.items()}


def drop(accuracies: Sequence[float], values: Sequence[float], factor: str) -> float:
    """How much accuracy a factor costs: that of the unchanged images less the mean over all values. In shares.

    Raises ValueError when the neutral value (0, or a scale of 1) is not among the values.
    """
    if len(accuracies) != len(values):
        raise ValueError(f"{len(accuracies)} accuracies do not go with {len(values)} values of {factor}.")
    plain = [accuracy for accuracy, value in zip(accuracies, values, strict=True) if value == NEUTRAL[factor]]
    if not plain:
        raise ValueError(f"the values of {factor} do not hold {NEUTRAL[factor]:g}, the unchanged image.")
    return plain[0] - math.fsum(accuracies) / len(accuracies)


def derived_split(data: ImageSet, derive: Translated | Affine, *, side: int = 28) -> Split:
    """A set derived from a run's centred test images, so that one run is followed on several sets at once.

    The run's data is `Translated(splits=...)` without "test": its test images lie in the middle of their canvas. The
    central `side` pixels of each, what it was before, are derived anew.
    """
    bare = Split(centre(data.test.images, side, side), data.test.labels)
    none = bare.select(torch.arange(0, device=bare.images.device))
    return derive(replace(data, train=none, validation=none, test=bare)).test


def percent(model: nn.Module, split: Any, *, batch: int = 500) -> float:
    """Percent of images of a split that are right; of pairs, those with both digits among the two highest scores."""
    device = next(model.parameters()).device
    right: float = 0
    with evaluating(model):
        for part in split.to(device).batches(batch):
            right += correct(model(part.images).scores, part.labels).sum().item()
    return 100 * right / len(split)


def pose_clouds(model: nn.Module, split: Any, classes: Sequence[int], *, batch: int = 500) -> dict[int, Tensor]:
    """Each class's own pose at its images: class -> (N, D), what figure 5 of Gu et al. draws for D = 2.

    Raises ValueError for a model without poses, or a class that the split does not show.
    """
    device = next(model.parameters()).device
    found: dict[int, list[Tensor]] = {label: [] for label in classes}
    with evaluating(model):
        for images, labels, _ in split.to(device).batches(batch):
            poses = model(images).poses
            if poses is None:
                raise ValueError(f"{type(model).__name__} has no poses to draw.")
            for label in classes:
                found[label].append(poses[labels == label, label].cpu())
    clouds = {label: torch.cat(parts) for label, parts in found.items() if parts}
    if empty := [label for label in classes if not len(clouds.get(label, ()))]:
        raise ValueError(f"the split shows no image of class {empty[0]}.")
    return clouds
