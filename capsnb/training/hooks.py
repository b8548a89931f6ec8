"""Hooks of a `Recipe`: what changes as a network learns, and what is done to a training from outside.

`GrowMargin` is Hinton et al.'s. `FollowFitness` is ours: Lin, Li & Ma 2018, sec. 3.1, end on a heuristic that they do
not try, "the EM operation should be modulated such that the certainty of the resultant association matches the model
fitness to the data". `DecoupledDecay`, `PartDecay`, `KeepNorms` and `Revival` are interventions against starving
capsules; none is Mitterreiter et al.'s, and what they do is measured in notebook 04. Cures that belong to the model are
its fields: `Dynamic(temperature=..., leaky=True)`, `Attention`, `hidden_squash`, `residual`.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from capsnb.data import ImageSet, evenly_spaced
from capsnb.nn import taps
from capsnb.nn.layers import RoutedCapsules, length
from capsnb.nn.taps import evaluating
from capsnb.training.evaluation import correct
from capsnb.training.recipe import Moment, Stateless

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
        with evaluating(model):
            parts = evenly_spaced(data.train, self.config.images)
            right = torch.cat([correct(model(batch.images).scores, batch.labels) for batch in parts])
        self.fitness = right.sum().item() / len(right)
        self._set()

    def _set(self) -> None:
        value = self.config.value(self.fitness)
        for layer in self.layers:
            routing: Any = layer.routing
            layer.routing = replace(routing, **{self.config.field: value})

    def state_dict(self) -> dict[str, Any]:
        return {"fitness": self.fitness}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.fitness = state["fitness"]
        self._set()


@dataclass(frozen=True, kw_only=True)
class DecoupledDecay:
    """Weight decay apart from the gradient, as AdamW's: every parameter times 1 - learning rate * weight_decay.

    `Recipe.weight_decay` is Adam's own: it joins the gradient, and is divided by its size. Where the loss has no
    gradient left, Adam then moves a weight towards 0 by a whole learning rate per step, however small the decay. Apart
    from the gradient the same 1e-5 takes 1e-8 of a weight per step (Loshchilov and Hutter 2019), which float32 rounds
    away: training then ends in a ValueError, since it would be that without decay.
    """

    weight_decay: float

    def __post_init__(self) -> None:
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay = {self.weight_decay}: it cannot be negative")

    def build(self, model: nn.Module) -> _Decay:
        return _Decay(self)


class _Decay(Stateless):
    @torch.no_grad()
    def after_step(self, model: nn.Module, moment: Moment) -> None:
        trained: list[Tensor] = [parameter for parameter in model.parameters() if parameter.requires_grad]
        decay = self.config.weight_decay
        part = moment.learning_rate * decay
        if moment.epoch == 0 and 0 < part < torch.finfo(trained[0].dtype).eps / 4:
            raise ValueError(
                f"weight_decay = {decay}, apart from the gradient, takes {part:.1g} of a weight per step, "
                f"which {trained[0].dtype} rounds away: give a larger one."
            )
        torch._foreach_mul_(trained, 1 - part)


@dataclass(frozen=True, kw_only=True)
class PartDecay:
    """Weight decay that joins the gradient, as `Recipe.weight_decay` does, of a part of the parameters alone.

    on: the "transforms" of the routed capsule layers, or the "others", all parameters but those.
    """

    weight_decay: float
    on: str = "transforms"

    def __post_init__(self) -> None:
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay = {self.weight_decay}: it cannot be negative")
        if self.on not in ("transforms", "others"):
            raise ValueError(f"on = {self.on!r} is unknown; allowed: transforms, others")

    def build(self, model: nn.Module) -> _PartDecay:
        """The hook; ValueError for a model without routed capsule layers."""
        return _PartDecay(model, self)


class _PartDecay(Stateless):
    def __init__(self, model: nn.Module, config: PartDecay) -> None:
        super().__init__(config)
        transforms = [part.weight for part in model.modules() if isinstance(part, RoutedCapsules)]
        if not transforms:
            raise ValueError(f"{type(model).__name__} has no transforms that could decay")
        others = [each for each in model.parameters() if not any(each is one for one in transforms)]
        self.parameters = transforms if config.on == "transforms" else others

    @torch.no_grad()
    def after_backward(self, model: nn.Module, moment: Moment) -> None:
        trained: list[Tensor] = [each for each in self.parameters if each.grad is not None]
        gradients = [each.grad for each in trained if each.grad is not None]
        torch._foreach_add_(gradients, trained, alpha=self.config.weight_decay)


@dataclass(frozen=True, kw_only=True)
class Revival:
    """After so many epochs another weight decay, from then on; and what the optimiser has gathered reset, or kept.

    Up to then the training is, bit for bit, that without the hook: arms that differ in it alone go on from one network.
    weight_decay: None leaves it as it is. reset: of Adam both moments and the count of steps, so that its first steps
    are those of a training's beginning. ramp: over so many steps from then on the learning rate grows evenly from near
    0 to what it would be, so that what has been forgotten and large first steps can be told apart.
    """

    after: int
    weight_decay: float | None = 0.0
    reset: bool = True
    ramp: int = 0

    def __post_init__(self) -> None:
        if self.after < 1:
            raise ValueError(f"after = {self.after}: at least one epoch is needed")
        if self.weight_decay is not None and self.weight_decay < 0:
            raise ValueError(f"weight_decay = {self.weight_decay}: it cannot be negative")
        if self.ramp < 0:
            raise ValueError(f"ramp = {self.ramp}: it must be a number of steps, 0 for none")

    def build(self, model: nn.Module) -> _Revival:
        return _Revival(self)


class _Revival:
    def __init__(self, config: Revival) -> None:
        self.config = config
        self.began: int | None = None  # the step at which it set in

    def before_step(self, optimizer: torch.optim.Optimizer, moment: Moment) -> None:
        if moment.epoch < self.config.after:
            return
        if self.began is None:
            self.began = moment.step
            if self.config.reset:
                optimizer.state.clear()
            if self.config.weight_decay is not None:
                for group in optimizer.param_groups:
                    group["weight_decay"] = self.config.weight_decay
        if moment.step - self.began < self.config.ramp:
            for group in optimizer.param_groups:
                group["lr"] = moment.learning_rate * (moment.step - self.began + 1) / self.config.ramp

    def state_dict(self) -> dict[str, Any]:
        return {"began": self.began}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.began = state["began"]


@dataclass(frozen=True, kw_only=True)
class KeepNorms:
    """A small loss that asks every hidden capsule for a mean norm of at least `floor` over the batch.

    Adds weight * sum over layers and capsules of max(0, floor - mean norm)^2 to the batch's loss, by its gradient with
    respect to the poses; the loss shown in rows is without it. A pose of exactly 0 has no direction to grow in.
    """

    floor: float = 0.05
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.floor < 1:
            raise ValueError(f"floor = {self.floor}: it must be above 0 and below 1")
        if not self.weight > 0:
            raise ValueError(f"weight = {self.weight}: it must be above 0")

    def build(self, model: nn.Module) -> _Keeper:
        return _Keeper(model, self)


class _Keeper(Stateless):
    def __init__(self, model: nn.Module, config: KeepNorms) -> None:
        hidden = [name for name in taps.names(model) if name.endswith(".poses") and name != "class.poses"]
        if not hidden:
            raise ValueError(f"{type(model).__name__} has no hidden capsules whose norms could be kept")
        super().__init__(config)
        self.model = model
        self._readers = ExitStack()
        read = torch.compiler.disable(self._read)  # here: it imports the compiler, which nobody else has to wait for
        for name in hidden:
            self._readers.enter_context(taps.find(model, name).reading(read))

    def close(self) -> None:
        """Leave the model alone again."""
        self._readers.close()

    def _read(self, poses: Tensor) -> None:
        if self.model.training and poses.requires_grad:
            added = self._gradient(poses.detach())
            poses.register_hook(lambda gradient: gradient + added)

    def _gradient(self, poses: Tensor) -> Tensor:
        """Of the penalty, (B, J, D)."""
        norms = length(poses).unsqueeze(-1)
        short = (self.config.floor - norms.mean(0)).clamp_min(0)  # (J, 1)
        direction = torch.where(norms > 0, poses / norms, 0)
        return -2 * self.config.weight * short * direction / len(poses)
