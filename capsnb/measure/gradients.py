"""How much gradient reaches each capsule and each transform: theorems 1 and 2 of Mitterreiter et al. 2023, measured.

The theorems say that a capsule's gradient scales with the transforms above it, and the gradient of those transforms
with the capsule: where both are small, the loss moves neither. What then still moves a transform is weight decay;
`Pull` sets the two side by side.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from capsnb.data import Batch, ImageSet
from capsnb.measure.parse_tree import layer_taps
from capsnb.nn import taps
from capsnb.nn.layers import RoutedCapsules, length
from capsnb.nn.losses import margin, present

if TYPE_CHECKING:
    from capsnb.training.loop import Training
    from capsnb.training.recipe import Recipe


def margin_gradient(
    poses: Tensor, labels: Tensor, *, m_plus: float = 0.9, m_minus: float = 0.1, down_weight: float = 0.5
) -> Tensor:
    """Theorem 1: the gradient of the margin loss with respect to the class capsules. (B, K, D) -> (B, K, D)

    Its length is 2 max(0, m_plus - |u|) for the class that is there and 2 lambda max(0, |u| - m_minus) for the others:
    0 once an image is satisfied, whatever the capsule's direction. At a pose of exactly 0 it is 0, as autograd has it.
    """
    norms = length(poses)
    shown = present(labels, poses.shape[1]).to(poses)
    slope = -shown * (m_plus - norms).clamp_min(0) + down_weight * (1 - shown) * (norms - m_minus).clamp_min(0)
    direction = torch.where(norms.unsqueeze(-1) > 0, poses / norms.unsqueeze(-1), 0)
    return 2 * slope.unsqueeze(-1) * direction


def capsule_gradient(vote_gradient: Tensor, weight: Tensor) -> Tensor:
    """Theorem 2, first half: the gradient at a capsule. That at its votes (B, I, J, D), (I, P, J, D) -> (B, I, P)"""
    return torch.einsum("bijd,ipjd->bip", vote_gradient, weight.expand(vote_gradient.shape[1], -1, -1, -1))


def transform_gradient(vote_gradient: Tensor, poses: Tensor) -> Tensor:
    """Theorem 2, second half: the gradient of its transforms. At votes (B, I, J, D), (B, I, P) -> (I, P, J, D)"""
    return torch.einsum("bijd,bip->ipjd", vote_gradient, poses)


class Pull(NamedTuple):
    """What pulls on one layer of I capsules and on their transforms to the J capsules of the next layer."""

    capsule: Tensor  # (I,) norm of the gradient of an image's loss at each capsule, mean over images
    transform: Tensor | None  # (I, J) norm of the gradient of the mean loss; None for the last layer
    weight: Tensor | None  # (I, J) norm of each transform: times the weight decay, what pulls it towards 0


def pulls(model: nn.Module, batch: Batch) -> dict[str, Pull]:
    """Gradients of a batch's margin loss, that of the theorems, by the taps of the capsule layers, primary first.

    In evaluation mode and without the reconstruction; the model's own gradients stay as they are.
    """
    nodes, edges = layer_taps(model)
    device = next(model.parameters()).device
    layers = [_layer(model, name) for name in edges]
    with taps.evaluating(model, gradients=True), torch.enable_grad(), taps.record(model, *nodes) as seen:
        images, labels = batch.images.to(device), batch.labels.to(device)
        total = margin(model(images, labels).scores.float(), labels).mean()
        poses = [seen[name] for name in nodes]
        found = torch.autograd.grad(total, [*poses, *(layer.weight for layer in layers)])
    capsules = [len(images) * length(gradient).mean(0) for gradient in found[: len(nodes)]]
    transforms = [_transforms(gradient) for gradient in found[len(nodes) :]]
    weights = [_transforms(layer.weight.detach()) for layer in layers]
    return {name: Pull(*each) for name, *each in zip_longest(nodes, capsules, transforms, weights)}


def pull_of_training(model: nn.Module, data: ImageSet, *, images: int = 256) -> dict[str, list]:
    """An observer for runs: gradients of the margin loss at every capsule and transform on the first training images.

    "capsule": a list per layer with one number per capsule. "transform", "weight": a list per layer that routes, with
    one number per capsule: the norm over all of its transforms.
    """
    index = torch.arange(min(images, len(data.train)), device=data.train.labels.device)
    found = pulls(model, data.train.batch(index)).values()
    rounded = [[None if part is None else _over_parents(part) for part in each] for each in found]
    names = ("capsule", "transform", "weight")
    return {name: [row[n] for row in rounded if row[n] is not None] for n, name in enumerate(names)}


def last_step(model: nn.Module, data: ImageSet, *, training: Training) -> dict[str, list]:
    """How far Adam's last step moved the transforms: "in", "out": a list per layer that routes, one number per capsule.

    "out": the norm over all transforms of a child; "in": that over all transforms to a parent. lr m / (sqrt(v) + eps)
    with both moments as Adam corrects them, which the gradient, however small, decides by its direction and steadiness
    alone; decay that stays apart from the gradient (adamw) is left out. Raises ValueError for another optimiser.
    """
    optimizer = training.optimizer
    if not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
        raise ValueError(f"{type(optimizer).__name__} keeps no moments as Adam does, of which the step is made")
    group = optimizer.param_groups[0]
    found: dict[str, list] = {"in": [], "out": []}
    for edge in layer_taps(model)[1]:
        state = optimizer.state[_layer(model, edge).weight]
        first, second = (1 - beta ** state["step"].item() for beta in group["betas"])
        step = group["lr"] * state["exp_avg"] / first / ((state["exp_avg_sq"] / second).sqrt() + group["eps"])
        moved = _transforms(step)
        found["in"].append(_over_parents(moved.T))
        found["out"].append(_over_parents(moved))
    return found


def dose(recipe: Recipe, weights: Tensor, steps_per_epoch: int) -> Tensor:
    """What a recipe's weight decay alone makes of weights that no gradient holds: before each step, and at the end.

    (N,) -> (steps + 1, N). The recipe's own optimiser and learning rates, with a gradient of 0 at every step. Decay
    that joins Adam's gradient takes about a learning rate a step, whatever its size: lambda alone is no dose. Raises
    ValueError for a recipe with hooks, which may decay weights themselves.
    """
    if recipe.hooks:
        raise ValueError("a recipe with hooks has no dose of its own: give it without")
    weight = nn.Parameter(weights.detach().clone())
    optimizer = recipe.build_optimizer([weight], weight.device)
    found = [weight.detach().clone()]
    for step in range(recipe.epochs * steps_per_epoch):
        weight.grad = torch.zeros_like(weight)
        optimizer.param_groups[0]["lr"] = recipe.learning_rate_at(step, step // steps_per_epoch)
        optimizer.step()
        found.append(weight.detach().clone())
    return torch.stack(found)


def _layer(model: nn.Module, edge: str) -> RoutedCapsules:
    layer: Any = model.get_submodule(edge.removesuffix(".coupling"))
    return layer


def _transforms(weight: Tensor) -> Tensor:
    """Norm of each transform: (I, P, J, D) -> (I, J)."""
    return torch.linalg.vector_norm(weight, dim=(1, 3))


def _over_parents(values: Tensor) -> list[float]:
    values = values if values.dim() == 1 else torch.linalg.vector_norm(values, dim=1)
    return [float(f"{value:.4g}") for value in values.tolist()]
