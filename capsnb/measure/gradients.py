"""How much gradient reaches each capsule and each transform: theorems 1 and 2 of Mitterreiter et al. 2023, measured.

The theorems say that a capsule's gradient scales with the transforms above it, and the gradient of those transforms
with the capsule: where both are small, the loss moves neither. What then still moves a transform is weight decay;
`Pull` sets the two side by side.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from capsnb.data import Batch, ImageSet
from capsnb.measure.parse_tree import layer_taps
from capsnb.nn import taps
from capsnb.nn.layers import RoutedCapsules, length
from capsnb.nn.losses import present
from capsnb.training.evaluation import batch_loss
from capsnb.training.recipe import Moment, Recipe

if TYPE_CHECKING:
    from capsnb.training.loop import Training


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


def pulls(
    model: nn.Module, batch: Batch, *, loss: str = "margin", reconstruction_weight: float = 0.0
) -> dict[str, Pull]:
    """Gradients of a batch's loss in evaluation mode, by the taps of the capsule layers, primary first.

    With reconstruction_weight 0 it is the loss of the theorems, else the decoder is masked by the labels, as in
    training. The model's own gradients stay as they are.
    """
    nodes, edges = layer_taps(model)
    device = next(model.parameters()).device
    layers = [_layer(model, name) for name in edges]
    with taps.evaluating(model, gradients=True), torch.enable_grad(), taps.record(model, *nodes) as seen:
        images, labels = batch.images.to(device), batch.labels.to(device)
        output = model(images, labels)
        total = batch_loss(output, batch._replace(images=images, labels=labels), loss, reconstruction_weight).mean()
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


def last_step(training: Training) -> dict[str, list]:
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
    for edge in layer_taps(training.model)[1]:
        state = optimizer.state[_layer(training.model, edge).weight]
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


@dataclass(frozen=True, kw_only=True)
class RecordGradients:
    """A training hook that keeps, every so many steps, the norm of the gradient at each capsule and each transform.

    training = Training(model, data, Recipe(hooks=(RecordGradients(),)))
    for row in training.rows(): ...
    recorder = training.hooks[0]        # .steps, .capsules[tap] (S, I), .transforms[layer] (S, I, J)
    """

    every: int = 1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every = {self.every}: it must be at least 1")

    def build(self, model: nn.Module) -> GradientRecorder:
        return GradientRecorder(model, self.every)


class GradientRecorder:
    """What `RecordGradients` builds. All numbers are of the loss that is trained, reconstruction included."""

    def __init__(self, model: nn.Module, every: int) -> None:
        self.model, self.every, self.steps = model, every, []
        self.nodes, edges = layer_taps(model)
        self.layers = {name.removesuffix(".coupling"): _layer(model, name) for name in edges}
        self._capsules: dict[str, list[Tensor]] = {name: [] for name in self.nodes}
        self._transforms: dict[str, list[Tensor]] = {name: [] for name in self.layers}
        self._last: dict[str, Tensor] = {}
        self._readers = ExitStack()
        for name in self.nodes:
            self._readers.enter_context(taps.find(model, name).reading(self._reader(name)))

    def close(self) -> None:
        """Leave the model alone again."""
        self._readers.close()

    @property
    def capsules(self) -> dict[str, Tensor]:
        """Tap -> (S, I), the norm of the gradient of an image's loss at each capsule, mean over the batch."""
        return {name: torch.stack(rows) for name, rows in self._capsules.items() if rows}

    @property
    def transforms(self) -> dict[str, Tensor]:
        """Layer -> (S, I, J), the norm of the gradient of the batch's mean loss at each transform."""
        return {name: torch.stack(rows) for name, rows in self._transforms.items() if rows}

    def after_backward(self, model: nn.Module, moment: Moment) -> None:
        if moment.step % self.every == 0 and len(self._last) == len(self.nodes):
            self.steps.append(moment.step)
            for name, rows in self._capsules.items():
                rows.append(self._last[name].cpu())
            for name, rows in self._transforms.items():
                rows.append(_transforms(self.layers[name].weight.grad).cpu())
        self._last = {}

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "capsules": self._capsules, "transforms": self._transforms}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self._capsules, self._transforms = (state[name] for name in ("steps", "capsules", "transforms"))

    def _reader(self, name: str):
        def keep(gradient: Tensor) -> None:
            self._last[name] = len(gradient) * length(gradient.detach()).mean(0)

        @torch.compiler.disable
        def read(poses: Tensor) -> None:
            if self.model.training and poses.requires_grad:
                poses.register_hook(keep)

        return read


def _layer(model: nn.Module, edge: str) -> RoutedCapsules:
    return model.get_submodule(edge.removesuffix(".coupling"))


def _transforms(weight: Tensor) -> Tensor:
    """Norm of each transform: (I, P, J, D) -> (I, J)."""
    return torch.linalg.vector_norm(weight, dim=(1, 3))


def _over_parents(values: Tensor) -> list[float]:
    values = values if values.dim() == 1 else torch.linalg.vector_norm(values, dim=1)
    return [float(f"{value:.4g}") for value in values.tolist()]
