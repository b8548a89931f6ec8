"""capsnb for a stopwatch: `entries()` gives what outside tools time, one optimisation step or one inference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from capsnb.data import Batch
from capsnb.nn.models import ZOO
from capsnb.nn.taps import evaluating
from capsnb.training.cpu_settings import keep_pages
from capsnb.training.evaluation import pick_device
from capsnb.training.recipe import Recipe
from capsnb.training.step import WORTH, TrainStep

Train, Infer = Callable[[Tensor, Tensor], None], Callable[[Tensor], Tensor]
Factory = Callable[[str, int, Any], tuple[Train, Infer] | None]

# task -> its model in the zoo; the image's size is that of the images given
TASKS = {
    "capsnet": "capsnet-no-decoder",
    "capsnet_dec": "capsnet",
    "capsnet36": "capsnet-36",
    "capsnet40": "capsnet-40",
    "deep5": "deep-rba-40",
    "em32": "em-32",
    "em16": "em-16",
    "efficient": "efficient-capsnet-no-decoder",
}


def entries() -> dict[str, Factory]:
    """Name -> factory(task, batch, device) -> (train, infer), or None for a task that capsnb does not have.

    train(x, y): one whole step of Adam on images x (B, C, H, W) in [0, 1] with labels y (B,).
    infer(x): class scores (B, K). The model is made for the first images that come.
    """
    return {"capsnb": fast}


def fast(task: str, batch: int, device: str | torch.device) -> tuple[Train, Infer] | None:
    """capsnb as it trains: every fast path that its rules choose."""
    return Timed(task, device).both() if task in TASKS else None


class Timed:
    """A model of the zoo that is trained and asked with plain tensors. Tasks are `TASKS`."""

    def __init__(self, task: str, device: str | torch.device) -> None:
        self.task, self.device = task, pick_device(device)
        self.model: torch.nn.Module | None = None
        if self.device.type == "cpu":
            keep_pages()

    def both(self) -> tuple[Train, Infer]:
        return self.train, self.infer

    def train(self, x: Tensor, y: Tensor) -> None:
        """One whole optimisation step, finished on the device or under way there."""
        self._made_for(x)
        # the reconstruction's target is given in the scale of stored images
        self.train_step(Batch(x, y, x * 255))
        self.optimizer.step()

    def infer(self, x: Tensor) -> Tensor:
        """Class scores, (B, K)."""
        self._made_for(x)
        with evaluating(self.model):
            return self.model(x).scores

    def _made_for(self, x: Tensor) -> None:
        if self.model is not None:
            return
        recipe, entry = Recipe(), ZOO[TASKS[self.task]]
        on_cuda = self.device.type == "cuda"
        self.model = replace(entry.config, channels=x.shape[1], size=x.shape[2]).build().to(self.device).train()
        self.train_step = TrainStep(
            self.model, entry.loss, recipe.reconstruction_weight, low=on_cuda, steps=WORTH if on_cuda else 0
        )
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=recipe.learning_rate, fused=self.device.type in ("cuda", "cpu")
        )
