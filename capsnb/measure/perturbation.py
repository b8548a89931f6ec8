"""What each dimension of a class capsule's pose encodes: change one, decode, look (Sabour et al. 2017, sec. 5.1).

Tawalbeh & Oramas 2024, sec. 4.1, replace the dimension's value by 12 values from the interval that poses really take
(`measure.intervals`), and show the network its own pictures again (figure 8).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from capsnb.data import ImageSet
from capsnb.nn.layers import length
from capsnb.nn.losses import reconstruction
from capsnb.nn.models import decode
from capsnb.nn.taps import evaluating

STEPS = tuple(round(-0.25 + 0.05 * step, 2) for step in range(11))  # the paper's: 11 values, 0.05 apart
CHANGES = ("addition", "replacement", "length")


class Directions(NamedTuple):
    """Axes of a class's poses, and how the poses spread along them."""

    axes: Tensor  # (D, D), a unit vector per row
    std: Tensor  # (D,) of the poses along each axis
    mean: Tensor  # (D,) of the poses along each axis

    def steps(self, count: int = 12, *, reach: float = 2.0) -> Tensor:
        """Values for a replacement along each axis, from the mean - reach std to the mean + reach std. -> (D, count)"""
        return self.mean[:, None] + self.std[:, None] * torch.linspace(-reach, reach, count).to(self.std)

    def evened(self) -> Directions:
        """The same axes, each with the root mean square of all spreads, so that steps go equally far along each."""
        return self._replace(std=self.std.square().mean().sqrt().expand_as(self.std))


def perturbation_grid(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | None = None,
    values: Sequence[float] | Tensor = STEPS,
    *,
    change: str = "addition",
    directions: Tensor | None = None,
) -> Tensor:
    """Pictures that the decoder makes when one dimension of one class pose is changed. -> (B, D, S, C, H, W)

    Picture [b, d, s] decodes image b's poses with values[s] added to dimension d of the pose of class labels[b], all
    else as it was; a value of 0 gives the plain reconstruction (Sabour et al. 2017, fig. 4).
    images: (B, C, H, W), uint8 or in [0, 1]. labels: (B,), the class with the highest score when None.
    values: S numbers in the pose's own scale, or (D, S), a row of steps for each dimension.
    change: "addition"; "replacement" of the dimension by the value (Tawalbeh & Oramas 2024, algorithm 1); "length", the
        pose in its own direction with the value as its length, which has a single row, D = 1.
    directions: (M, D) unit vectors in place of the D dimensions, and M rows of pictures; replacement then sets the
        pose's coordinate along each of them.
    Raises ValueError for a model without poses or decoder, or another shape of labels, values or directions.
    """
    check_change(model, change)
    device = next(model.parameters()).device
    with evaluating(model):
        poses, labels, steps, axes = _plan(model, images.to(device), labels, values, change, directions)
        count, pictures = steps.numel(), []
        for changed, label in zip(_changed(poses, labels, steps, axes, change), labels, strict=True):
            made = decode(model, changed.flatten(0, 1), label.expand(count))
            assert made is not None  # there is a decoder: `check_change`
            pictures.append(made.unflatten(0, steps.shape))
        return torch.stack(pictures)


def perturbed_accuracy(
    model: nn.Module,
    split: Any,
    values: Sequence[float] | Tensor,
    *,
    change: str = "replacement",
    batch: int = 500,
) -> Tensor:
    """How often the network still names the class of its own perturbed pictures (figure 8). -> (D, S), shares

    Each image's pose of its true class is changed as `perturbation_grid` does, decoded and shown to the network; right
    is that class. The paper does not say whether its class is the true or the predicted one. batch: pictures at once.
    """
    check_change(model, change)
    if not len(split):
        raise ValueError("the split has no images, so there is no accuracy.")
    device = next(model.parameters()).device
    right: Any = 0
    with evaluating(model):
        for images, labels, _ in split.to(device).batches(batch):
            poses, labels, steps, axes = _plan(model, images, labels, values, change, None)
            group = max(1, batch // steps.numel())
            for some, label in zip(poses.split(group), labels.split(group), strict=True):
                changed = _changed(some, label, steps, axes, change).flatten(0, 2)
                owner = label.repeat_interleave(steps.numel())
                pairs = zip(changed.split(batch), owner.split(batch), strict=True)
                hits = torch.cat([model(decode(model, pose, own)).scores.argmax(1) == own for pose, own in pairs])
                right = right + hits.view(-1, *steps.shape).sum(0)
    return (right / len(split)).cpu()


def pose_directions(poses: Tensor, axes: Tensor | None = None) -> Directions:
    """Principal components of poses (N, D) of one class, most variance first; each points to its largest entry.

    axes (D, D): other orthonormal axes, such as the dimensions themselves (`torch.eye`), to be perturbed as far in
    proportion to how the poses spread along them. Raises ValueError for fewer than 2 poses.
    """
    if poses.dim() != 2 or len(poses) < 2:
        raise ValueError(f"directions need poses (N, D) of at least 2 images, not {tuple(poses.shape)}.")
    exact = poses.double()
    if axes is None:
        axes = torch.linalg.eigh(torch.cov(exact.T).reshape(poses.shape[1], -1)).eigenvectors.T.flip(0)
        axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    along = exact @ axes.to(exact).T
    return Directions(axes.to(poses), along.std(0).to(poses), along.mean(0).to(poses))


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


def check_change(model: nn.Module, change: str) -> None:
    """Raise ValueError for an unknown change of poses, and for a model that makes no pictures of them."""
    if change not in CHANGES:
        raise ValueError(f"change {change!r} is unknown; allowed: {', '.join(CHANGES)}")
    if getattr(model, "decoder", None) is None:
        raise ValueError(f"{type(model).__name__} has no decoder, so a changed pose cannot be turned into a picture.")


def _plan(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | None,
    values: Sequence[float] | Tensor,
    change: str,
    directions: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Poses (B, K, D), labels (B,), steps (M, S) and axes (M, D), checked; no axes where the length is changed."""
    scores, poses, _ = model(images)
    if poses is None:
        raise ValueError(f"{type(model).__name__} has no poses to change.")
    labels = scores.argmax(1) if labels is None else labels.to(poses.device)
    if labels.shape != poses.shape[:1]:
        raise ValueError(f"{len(poses)} images need labels ({len(poses)},), not {tuple(labels.shape)}.")
    dim, axes, rows = poses.shape[-1], None, 1
    if change == "length":
        if directions is not None:
            raise ValueError("a length has no directions; give them with addition or replacement.")
    else:
        axes = torch.eye(dim).to(poses) if directions is None else directions.to(poses)
        if axes.dim() != 2 or axes.shape[1] != dim:
            raise ValueError(f"directions are (M, {dim}) for poses of {dim} numbers, not {tuple(axes.shape)}.")
        rows = len(axes)
    steps = torch.as_tensor(values).to(poses)
    if steps.dim() == 1:
        steps = steps.expand(rows, -1)
    if steps.dim() != 2 or len(steps) != rows:
        raise ValueError(f"values are (S,) or ({rows}, S) for poses of {dim} numbers, not {tuple(steps.shape)}.")
    return poses, labels, steps, axes


def _changed(poses: Tensor, labels: Tensor, steps: Tensor, axes: Tensor | None, change: str) -> Tensor:
    """All changes of all images: poses (B, K, D), steps (M, S), axes (M, D) -> (B, M, S, K, D)."""
    each = torch.arange(len(poses), device=poses.device)
    own = poses[each, labels]
    if axes is None:
        unit = own / length(own).clamp_min(torch.finfo(own.dtype).tiny).unsqueeze(-1)
        fresh = steps[None, :, :, None] * unit[:, None, None]
    else:
        moved = steps[None].expand(len(own), -1, -1)
        if change == "replacement":
            moved = moved - (own @ axes.T).unsqueeze(-1)
        fresh = own[:, None, None] + moved.unsqueeze(-1) * axes[:, None]
    changed = poses[:, None, None].expand(-1, *steps.shape, -1, -1).clone()
    changed[each, :, :, labels] = fresh
    return changed
