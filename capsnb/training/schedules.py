"""What changes as a network learns: the margin of its loss, its routing. Hooks of a `Recipe`.

`GrowMargin` is Hinton et al.'s. `FollowFitness` is ours: Lin, Li & Ma 2018, sec. 3.1, end on a heuristic that they do
not try, "the EM operation should be modulated such that the certainty of the resultant association matches the model
fitness to the data".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from capsnb.data import ImageSet
from capsnb.nn.layers import RoutedCapsules
from capsnb.nn.taps import evaluating
from capsnb.training.evaluation import correct
from capsnb.training.loop import Moment, Stateless

FIELDS = ("rate", "temperature")


@dataclass(frozen=True, kw_only=True)
class GrowMargin:
    """The margin of the spread loss grows while training: start + growth * sigmoid(min(10, step / every - delay)).

    The defaults are Hinton et al.'s (2018, their answer on OpenReview, batches of 64): from 0.21 to 0.99, half way
    after 200,000 steps. Losses that are reported, of the validation split too, have the margin of `losses.spread`.
    """

    start: float = 0.2
    growth: float = 0.79
    every: float = 50_000
    delay: float = 4.0

    def __post_init__(self) -> None:
        if not self.every > 0:
            raise ValueError(f"every = {self.every}: it must be above 0")

    def margin(self, step: int) -> float:
        """The margin of a step, counted from 0."""
        return self.start + self.growth / (1 + math.exp(-min(10.0, step / self.every - self.delay)))

    def build(self, model: nn.Module) -> _Margin:
        return _Margin(self)


class _Margin(Stateless):
    def __init__(self, config: GrowMargin) -> None:
        self.config = config

    def loss_options(self, moment: Moment) -> dict[str, float]:
        return {"margin": self.config.margin(moment.step)}


@dataclass(frozen=True, kw_only=True)
class FollowFitness:
    """The routing's update rate (or temperature) goes from `start` to `end` as the training accuracy goes from 0 to 1.

    value = start * (end / start) ** accuracy, measured after each epoch on so many training images, spread evenly;
    `start` itself in the first epoch. All routed layers have it. A run's rows are measured at the value of their
    moment. A finished run that is loaded routes as its configuration says: let that be `end`.
    """

    field: str = "rate"
    start: float = 0.01
    end: float = 1.0
    images: int = 500

    def __post_init__(self) -> None:
        if self.field not in FIELDS:
            raise ValueError(f"field {self.field!r} is unknown; allowed: {', '.join(FIELDS)}")
        for name in ("start", "end"):
            if not getattr(self, name) > 0 or (self.field == "rate" and getattr(self, name) > 1):
                raise ValueError(f"{name} = {getattr(self, name)} is no {self.field}")
        if self.images < 1:
            raise ValueError(f"images = {self.images}: at least 1 is needed")

    def value(self, fitness: float) -> float:
        """The rate or temperature at a training accuracy, in shares."""
        return self.start * (self.end / self.start) ** fitness

    def build(self, model: nn.Module) -> _Follower:
        """The hook; ValueError for a model none of whose routings has the field."""
        return _Follower(model, self)


class _Follower:
    def __init__(self, model: nn.Module, config: FollowFitness) -> None:
        self.config, self.fitness = config, 0.0
        self.layers = [
            part for part in model.modules() if isinstance(part, RoutedCapsules) and hasattr(part.routing, config.field)
        ]
        if not self.layers:
            raise ValueError(f"{type(model).__name__} has no routing with a {config.field}")
        self._set()

    def after_epoch(self, model: nn.Module, data: ImageSet, moment: Moment) -> None:
        split = data.train
        count = min(self.config.images, len(split))
        index = torch.arange(count, device=getattr(split, "base", split).images.device) * len(split) // count
        right = 0
        with evaluating(model):
            for part in index.split(250):
                batch = split.batch(part)
                right += correct(model(batch.images).scores, batch.labels).sum().item()
        self.fitness = right / count
        self._set()

    def _set(self) -> None:
        value = self.config.value(self.fitness)
        for layer in self.layers:
            layer.routing = replace(layer.routing, **{self.config.field: value})

    def state_dict(self) -> dict[str, Any]:
        return {"fitness": self.fitness}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.fitness = state["fitness"]
        self._set()
