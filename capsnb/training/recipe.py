"""How a model is trained, as plain settings, and what a hook that takes part in it may do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from capsnb.data import Augment, ImageSet
from capsnb.nn.losses import LOSSES

Row = dict[str, Any]
PRECISIONS = ("float32", "bfloat16")
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


class Diverged(RuntimeError):
    """The loss stopped being a finite number; the state of the last report is kept."""


class Moment(NamedTuple):
    """Where in training a hook is called."""

    epoch: int  # from 0
    step: int  # steps taken so far
    learning_rate: float


class Hook(Protocol):
    """Something that takes part in training and has state. Its class is named by a frozen configuration with
    `build(model) -> Hook`; a method that it lacks is not called."""

    def before_step(self, optimizer: torch.optim.Optimizer, moment: Moment) -> None: ...
    def after_backward(self, model: nn.Module, moment: Moment) -> None: ...
    def after_step(self, model: nn.Module, moment: Moment) -> None: ...
    def after_epoch(self, model: nn.Module, data: ImageSet, moment: Moment) -> None: ...
    def loss_options(self, moment: Moment) -> dict[str, float]: ...
    def state_dict(self) -> dict: ...
    def load_state_dict(self, state: dict) -> None: ...


class Stateless:
    """A hook that has its configuration and nothing to keep."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained. The defaults are Sabour et al. 2017: Adam at 1e-3, times 0.96 every 2,000 steps, batches
    of 128, shifts of up to 2 pixels, reconstruction weight 0.0005 on the sum of squares.

    decay_every, decay_unit: learning_rate * decay ** (step / decay_every), smooth, for "steps"; for "epochs" it drops
        at the end of every `decay_every` epochs. Never below min_learning_rate.
    stop_on: the split whose accuracy `target_accuracy` and whose loss `patience` (in reports) look at.
    keep: "last" weights, or those of the "best" loss on `stop_on`.
    optimizer: weight_decay joins the gradient in "adam" and "sgd", which has `momentum`; in "adamw" it stays apart.
    precision: "bfloat16" runs convolutions and decoder in it; votes, coupling and poses stay float32.
    hooks: configurations of `Hook`.
    report_every: steps from one row of the history to the next, None: an epoch. Stopping and keep-best look at rows.
    """

    epochs: int = 10
    batch: int = 128
    learning_rate: float = 1e-3
    decay: float = 0.96
    decay_every: float = 2000
    decay_unit: str = "steps"
    min_learning_rate: float = 1e-6
    weight_decay: float = 0.0
    loss: str = "margin"
    reconstruction_weight: float = 5e-4
    augment: Augment = field(default_factory=lambda: Augment(shift=2))
    target_accuracy: float | None = None
    stop_on: str = "validation"
    patience: int | None = None
    keep: str = "last"
    precision: str = "float32"
    hooks: tuple[Any, ...] = ()
    report_every: int | None = None
    optimizer: str = "adam"
    momentum: float = 0.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value, named = getattr(self, each.name), getattr(each.type, "__name__", str(each.type))
            wanted = named.removesuffix(" | None")
            kinds = {"int": (int,), "float": (int, float)}.get(wanted)
            if kinds and type(value) not in kinds and not (value is None and wanted != named):
                raise ValueError(f"{each.name} = {value!r}: {wanted} is needed")
        for name, allowed in {
            "loss": tuple(LOSSES),
            "decay_unit": ("steps", "epochs"),
            "stop_on": ("validation", "test"),
            "keep": ("last", "best"),
            "precision": PRECISIONS,
            "optimizer": tuple(OPTIMIZERS),
        }.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} {getattr(self, name)!r} is unknown; allowed: {', '.join(allowed)}")
        for name in ("epochs", "batch", "decay_every", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)}: it must be above 0")
        if not 0 <= self.momentum < 1 or (self.momentum and self.optimizer != "sgd"):
            raise ValueError(f"momentum = {self.momentum}: it is for sgd, from 0 and below 1")
        if self.report_every is not None and self.report_every < 1:
            raise ValueError(f"report_every = {self.report_every}: it must be a number of steps, at least 1, or None")

    def learning_rate_at(self, step: int, epoch: int) -> float:
        """The learning rate of a step; both counts start at 0."""
        powers = step / self.decay_every if self.decay_unit == "steps" else epoch // self.decay_every
        return max(self.learning_rate * self.decay**powers, self.min_learning_rate)

    def build_optimizer(self, parameters: Iterable[nn.Parameter], device: torch.device) -> torch.optim.Optimizer:
        """The optimiser of these, at the first learning rate, with fused kernels where the device has them."""
        more = {"momentum": self.momentum} if self.optimizer == "sgd" else {}
        fused = device.type in ("cuda", "cpu")
        kind = OPTIMIZERS[self.optimizer]
        return kind(parameters, lr=self.learning_rate, weight_decay=self.weight_decay, fused=fused, **more)
