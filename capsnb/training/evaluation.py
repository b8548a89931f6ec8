"""Models on data: device, loss of a batch, accuracy, and a whole split at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from capsnb.data import Batch
from capsnb.nn.losses import LOSSES, reconstruction
from capsnb.nn.models import Output
from capsnb.nn.taps import evaluating


class Evaluation(NamedTuple):
    """A model on a split."""

    accuracy: float  # share of images with every label among its highest scores
    loss: float  # mean over images, reconstruction included
    count: int  # type: ignore[assignment]  # the field hides tuple.count, which nobody needs


def pick_device(name: str | torch.device | None = "auto") -> torch.device:
    """CUDA, else Apple's MPS, else the CPU; a named device is returned, or ValueError when it is not here."""
    if name in (None, "auto"):
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {str(name)!r} cannot be used here; 'auto' takes the best one there is") from error
    return device


def correct(scores: Tensor, labels: Tensor) -> Tensor:
    """Whether all of an image's m labels are its m highest scores. (B, K), (B,) or (B, m) -> (B,) bool."""
    if labels.dim() == 1:
        return scores.argmax(1) == labels
    top = scores.topk(labels.shape[1], 1).indices
    return (top.sort(1).values == labels.sort(1).values).all(1)


def batch_loss(
    output: Output, batch: Batch, loss: str, reconstruction_weight: float, options: Mapping[str, Any] | None = None
) -> Tensor:
    """Class loss, with the loss's own options, plus weighted reconstruction, one number per image. -> (B,)"""
    total = LOSSES[loss](output.scores.float(), batch.labels, **(options or {}))
    if output.reconstruction is not None and reconstruction_weight:
        target = (batch.images if batch.targets is None else batch.targets).to(total.dtype) / 255
        total = total + reconstruction_weight * reconstruction(output.reconstruction.to(total.dtype), target)
    return total


def evaluate(
    model: nn.Module, split: Any, *, batch: int = 500, loss: str = "margin", reconstruction_weight: float = 5e-4
) -> Evaluation:
    """Accuracy and mean loss of a model on a split; the decoder is masked by the highest score, as in use.

    A split of pairs is masked by its labels instead: its two pictures need them. Raises ValueError where scores are no
    finite numbers, of which the highest means nothing, and for a split without images.
    """
    if not len(split):
        raise ValueError("the split has no images, so a model has no accuracy on it")
    device = next(model.parameters()).device
    right, bad = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(2))
    total = torch.zeros((), dtype=torch.float64, device="cpu" if device.type == "mps" else device)
    with evaluating(model):
        for part in split.to(device).batches(batch):
            output = model(part.images, part.labels if part.labels.dim() > 1 else None)
            right += correct(output.scores, part.labels).sum()
            bad += (~output.scores.isfinite()).any(1).sum()
            total += batch_loss(output, part, loss, reconstruction_weight).sum().to(total)
    _refuse(int(bad), len(split))
    return Evaluation(right.item() / len(split), total.item() / len(split), len(split))


def predict(model: nn.Module, split: Any, *, batch: int = 500) -> Output:
    """The model's output on a whole split, in order, on the CPU; reconstructions are left out, being large."""
    device = next(model.parameters()).device
    with evaluating(model):
        parts = [model(part.images)[:2] for part in split.to(device).batches(batch)]
    scores, poses = zip(*parts, strict=True)
    found = torch.cat(scores).cpu()
    _refuse(int((~found.isfinite()).any(1).sum()), len(split))
    return Output(found, None if poses[0] is None else torch.cat(poses).cpu(), None)


def _refuse(bad: int, count: int) -> None:
    if bad:
        raise ValueError(f"the model's scores of {bad:,} of {count:,} images are no finite numbers, so none is right")
