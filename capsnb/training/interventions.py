"""Against starving capsules: what can be done to a training from outside, as hooks of a `Recipe`.

Cures that belong to the model are its fields: `Dynamic(temperature=..., leaky=True)`, `Attention`, `hidden_squash`,
`residual`. None of them is Mitterreiter et al.'s; what they do is measured in notebook 04.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from capsnb.nn import taps
from capsnb.nn.layers import length
from capsnb.training.loop import Moment, Stateless


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
        return _Decay(self.weight_decay)


class _Decay(Stateless):
    def __init__(self, weight_decay: float) -> None:
        self.weight_decay = weight_decay

    @torch.no_grad()
    def after_step(self, model: nn.Module, moment: Moment) -> None:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        part = moment.learning_rate * self.weight_decay
        if moment.epoch == 0 and 0 < part < torch.finfo(trained[0].dtype).eps / 4:
            raise ValueError(
                f"weight_decay = {self.weight_decay}, apart from the gradient, takes {part:.1g} of a weight per step, "
                f"which {trained[0].dtype} rounds away: give a larger one."
            )
        torch._foreach_mul_(trained, 1 - part)


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
        self.model, self.config = model, config
        self._readers = ExitStack()
        for name in hidden:
            self._readers.enter_context(taps.find(model, name).reading(self._read))

    def close(self) -> None:
        """Leave the model alone again."""
        self._readers.close()

    @torch.compiler.disable
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
