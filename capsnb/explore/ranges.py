"""Over which values a pose's dimension is moved: measured on images, or by rule of thumb."""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import nn

from capsnb.explore.subjects import sample
from capsnb.measure.intervals import activation_statistics, class_intervals
from capsnb.nn import taps

SABOUR = (-0.25, 0.25)  # added to a dimension, Sabour et al. 2017, sec. 5.1
IMAGES = 250
PLACE = "class.poses"

_known: WeakKeyDictionary[nn.Module, dict[int, Ranges]] = WeakKeyDictionary()


class Ranges(NamedTuple):
    """What the dimensions of class capsules take on images of their own class."""

    alpha: tuple[float, float]  # from the lowest to the highest value of any dimension and class
    size: int  # numbers in a pose
    images: int  # that it was measured on


def measured(model: nn.Module, split: Any, *, images: int = IMAGES) -> Ranges:
    """The overarching interval alpha of `measure.intervals`, on so many images of a split; kept per model.

    Raises ValueError for a model without class poses.
    """
    known = _known.setdefault(model, {})
    key = hash((images, len(split), int(split.images[:images].long().sum())))
    if key not in known:
        known[key] = _measure(model, split, images)
    return known[key]


def _measure(model: nn.Module, split: Any, images: int) -> Ranges:
    if PLACE not in taps.names(model):
        raise ValueError(f"{type(model).__name__} has no class poses to change.")
    chosen = sample(split, images)
    found = activation_statistics(model, chosen, [PLACE], classes=len(_scores(model, chosen)))[PLACE]
    return Ranges(class_intervals(found).alpha, found.mean.shape[-1], len(chosen))


def _scores(model: nn.Module, split: Any) -> torch.Tensor:
    with taps.evaluating(model):
        return model(split.images[:1].to(next(model.parameters()).device)).scores[0]
