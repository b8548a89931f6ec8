"""Which transformation breaks a model: accuracy against one factor at a time, on affNIST-like sets, and for its size.

Gu et al. 2021 report one accuracy on affNIST; the curves split it by factor. Everything streams batch by batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from capsnb.data import ImageSet, Split
from capsnb.data.pixels import centre
from capsnb.data.transforms import Affine, Translated
from capsnb.data.transforms.factors import NEUTRAL, vary
from capsnb.nn.taps import evaluating
from capsnb.training.evaluation import correct
from capsnb.training.recipe import Row


class AtAccuracy(NamedTuple):
    """What a run measured when it had a given accuracy."""

    value: float  # of the quantity that is read, at exactly the target; at the best row when it was not reached
    watched: float  # the target, or the best accuracy when it was not reached
    step: int  # of the first row at or above the target, where a stopped training would have ended
    reached: bool


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


def at_accuracy(history: Sequence[Row], target: float, watch: str, read: str) -> AtAccuracy:
    """What a run's column `read` was when its column `watch` first reached the target: a stop-at-accuracy reading.

    Between the last row below the target and the first at or above it both columns are taken to be linear, so that all
    models are compared at exactly the target however often they are evaluated; the first row of all is read as it is.
    A run that never reaches it is read at its best row, and says so. The weights are those that a training stopped
    there would have: nothing in a training depends on its evaluations. Raises ValueError for a history without the
    columns.
    """
    rows = [row for row in history if row.get(watch) is not None and row.get(read) is not None]
    if not rows:
        raise ValueError(f"the run has no rows with {watch!r} and {read!r}: it observed something else.")
    place = next((n for n, row in enumerate(rows) if row[watch] >= target), None)
    if place is None:
        best = max(rows, key=lambda row: row[watch])
        return AtAccuracy(best[read], best[watch], best["step"], False)
    row = rows[place]
    if place == 0:
        return AtAccuracy(row[read], row[watch], row["step"], True)
    before = rows[place - 1]
    share = (target - before[watch]) / (row[watch] - before[watch])
    return AtAccuracy(before[read] + share * (row[read] - before[read]), target, row["step"], True)


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
