"""What each dimension of a class capsule's pose encodes: change one, decode, look (Sabour et al. 2017, sec. 5.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from capsnb.data import ImageSet
from capsnb.losses import reconstruction
from capsnb.models import decode
from capsnb.taps import evaluating

STEPS = tuple(round(-0.25 + 0.05 * step, 2) for step in range(11))  # the paper's: 11 values, 0.05 apart


def perturbation_grid(
    model: nn.Module, images: Tensor, labels: Tensor | None = None, values: Sequence[float] | Tensor = STEPS
) -> Tensor:
    """Pictures that the decoder makes when one dimension of one class pose is changed. -> (B, D, S, C, H, W)

    Picture [b, d, s] decodes image b's poses with values[s] added to dimension d of the pose of class labels[b], all
    else as it was; a value of 0 gives the plain reconstruction (Sabour et al. 2017, fig. 4).
    images: (B, C, H, W), uint8 or in [0, 1]. labels: (B,), the class with the highest score when None.
    values: S numbers in the pose's own scale, or (D, S), a row of steps for each dimension.
    Raises ValueError for a model without poses or decoder, or another shape of labels or values.
    """
    if getattr(model, "decoder", None) is None:
        raise ValueError(f"{type(model).__name__} has no decoder, so a changed pose cannot be turned into a picture.")
    device = next(model.parameters()).device
    with evaluating(model):
        scores, poses, _ = model(images.to(device))
        if poses is None:
            raise ValueError(f"{type(model).__name__} has no poses to change.")
        labels = scores.argmax(1) if labels is None else labels.to(device)
        if labels.shape != poses.shape[:1]:
            raise ValueError(f"{len(poses)} images need labels ({len(poses)},), not {tuple(labels.shape)}.")
        steps = _steps(values, poses)
        return torch.stack([_pictures(model, pose, label, steps) for pose, label in zip(poses, labels, strict=True)])


def kept_beyond_class(model: nn.Module, data: ImageSet, *, batch: int = 500) -> float:
    """Share of what sets test images apart from the mean image of their class that the decoder redraws.

    1 - (squared error of the reconstructions, masked by the label) / (squared error of the mean training image of each
    class): 0 when a pose says no more than its class, 1 when it holds the whole image. Ours, not the paper's.
    """
    device = next(model.parameters()).device
    train = data.train.to(device)
    classes = train.labels.unique()
    means = torch.zeros(int(classes.max()) + 1, *data.image_shape, device=device)
    for label in classes:
        means[label] = train.images[train.labels == label].float().mean(0) / 255
    errors = torch.zeros(2, dtype=torch.float64)
    with evaluating(model):
        for images, labels, _ in data.test.to(device).batches(batch):
            rebuilt = model(images, labels).reconstruction
            pair = [reconstruction(guess, images / 255).sum() for guess in (rebuilt, means[labels])]
            errors += torch.stack(pair).cpu()
    return 1 - (errors[0] / errors[1]).item()


def _steps(values: Sequence[float] | Tensor, poses: Tensor) -> Tensor:
    """values as (D, S)."""
    steps = torch.as_tensor(values).to(poses)
    dim = poses.shape[-1]
    if steps.dim() == 1:
        steps = steps.expand(dim, -1)
    if steps.dim() != 2 or len(steps) != dim:
        raise ValueError(f"values are (S,) or ({dim}, S) for poses of {dim} numbers, not {tuple(steps.shape)}.")
    return steps


def _pictures(model: nn.Module, poses: Tensor, label: Tensor, steps: Tensor) -> Tensor:
    """All changes of one image in one batch: poses (K, D), steps (D, S) -> (D, S, C, H, W)."""
    dim, count = steps.shape
    changed = poses.expand(dim, count, *poses.shape).clone()  # (D, S, K, D)
    changed[:, :, label] += torch.diag_embed(steps.T).transpose(0, 1)  # [d, s, e] is steps[d, s] where e = d
    pictures = decode(model, changed.flatten(0, 1), label.expand(dim * count))
    return pictures.unflatten(0, (dim, count))
