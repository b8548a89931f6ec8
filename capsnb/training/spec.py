"""A Spec names a training, and nothing else does: what is watched or measured is no part of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from capsnb.data import DataSpec
from capsnb.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Everything that decides a run's result.

    start: where weights come from: another Spec (trained first when needed), or the path of a run's or checkpoint's
        folder or of a file of weights; None: fresh.
    reset: names of parts that start fresh all the same. frozen: names of parts that stay as they are.
    redraw: another draw of all that starts fresh. Without it a part that is reset begins with the very numbers that it
        had when the start began, as both are drawn by one seed.
    """

    model: Any
    data: DataSpec = field(default_factory=DataSpec)
    recipe: Recipe = field(default_factory=Recipe)
    seed: int = 0
    start: Spec | str | None = None
    reset: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    redraw: int = 0

    def __post_init__(self) -> None:
        for name in ("seed", "redraw"):
            if type(getattr(self, name)) is not int:
                raise ValueError(f"{name} = {getattr(self, name)!r}: a whole number is needed")

    def build(self) -> nn.Module:
        """The model at its start, as the seed draws it (and `start` overwrites it, if given)."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + 1_000_003 * self.redraw)
            return self.model.build()
