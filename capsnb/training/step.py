"""A batch's loss with its gradients: eager, or on a CUDA device compiled once for each shape."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from capsnb.data import Batch
from capsnb.nn.precision import autocast
from capsnb.training.evaluation import batch_loss

WORTH = 2000  # steps: below that, compiling takes longer than it saves

Loss = Callable[[Batch], tuple[Tensor, Tensor]]


class TrainStep:
    """`step(batch) -> (loss, scores)`, after which the gradients lie in the parameters. Mean over the batch.

    low: run convolutions and decoder in bfloat16. steps: how many there will be; from WORTH on a CUDA device the step
    is compiled with reduced overhead, unless CAPSNB_COMPILE=0. Where that fails, a warning says so and the step is
    eager from then on. The model itself is never replaced: measurements run it as it is.
    """

    def __init__(
        self, model: nn.Module, loss: str, reconstruction_weight: float, *, low: bool = False, steps: int = 0
    ) -> None:
        self.model, self.loss, self.reconstruction_weight, self.low = model, loss, reconstruction_weight, low
        self.options: dict[str, Tensor] = {}  # of the loss, on the device: a number in a graph would never change
        on_cuda = next(model.parameters()).device.type == "cuda"
        wanted = on_cuda and steps >= WORTH and os.environ.get("CAPSNB_COMPILE") != "0"
        self._compiled: Loss | None = torch.compile(self.value, mode="reduce-overhead") if wanted else None

    def value(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss (a scalar) and scores (B, K), with their graph."""
        with autocast(batch.images.device, torch.bfloat16) if self.low else nullcontext():
            output = self.model(batch.images, batch.labels)
        total = batch_loss(output, batch, self.loss, self.reconstruction_weight, self.options)
        return total.mean(), output.scores

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if self._compiled is not None:
            try:
                torch.compiler.cudagraph_mark_step_begin()
                return self._with_gradients(self._compiled, batch)
            except Exception as error:  # whatever the compiler stumbles over, the eager step gives the same numbers
                first = str(error).strip().split("\n")[0]
                warnings.warn(f"the step could not be compiled and runs eagerly: {first}", stacklevel=2)
                self._compiled = None
        return self._with_gradients(self.value, batch)

    def _with_gradients(self, value: Loss, batch: Batch) -> tuple[Tensor, Tensor]:
        self.model.zero_grad()
        loss, scores = value(batch)
        loss.backward()
        return loss.detach(), scores.detach()
