"""Another routing for a trained network, and what it does iteration by iteration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from capsnb.nn.layers import RoutedCapsules
from capsnb.nn.routing import Combine, Routing

SETTINGS = ("iterations", "temperature", "rate")


class Trail(NamedTuple):
    """One layer's routing of a batch; T weighted sums were made."""

    coupling: Tensor  # (T, B, I, J), that of each sum
    poses: Tensor  # (T, B, J, D), which it made
    votes: Tensor  # (B, I, J, D)


def routed_layers(model: nn.Module) -> dict[str, RoutedCapsules]:
    """The layers of a model that are routed, in order; ValueError where there are none."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, RoutedCapsules)}
    if not found:
        raise ValueError(f"{type(model).__name__} has no layer of vector capsules whose routing could be exchanged.")
    return found


def settings_of(routing: Routing) -> dict[str, Any]:
    """Those of SETTINGS that a routing has, with their values."""
    names = {field.name for field in fields(routing)} if is_dataclass(routing) else set()
    return {name: getattr(routing, name) for name in SETTINGS if name in names}


@contextmanager
def rerouted(model: nn.Module, **settings: Any) -> Iterator[dict[str, Trail]]:
    """Inside, every routed layer routes with the given settings (of those that it has) and leaves a trail.

    settings: of SETTINGS; None keeps what the model has. The dictionary is filled anew by each call of the model.
    Raises ValueError for a value that the routing refuses.
    """
    layers, trails = routed_layers(model), {}
    own = {name: layer.routing for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            known = settings_of(layer.routing)
            wanted = {key: value for key, value in settings.items() if value is not None and key in known}
            layer.routing = _Watched(replace(layer.routing, **wanted) if wanted else layer.routing, name, trails)
        yield trails
    finally:
        for name, layer in layers.items():
            layer.routing = own[name]


def agreement(trail: Trail) -> Tensor:
    """How far children agree with the parents that they made: sum over j of coupling x <vote, pose>, mean over the
    children. -> (T, B)"""
    products = torch.einsum("bijd,tbjd->tbij", trail.votes, trail.poses)
    return (trail.coupling * products).sum(-1).mean(-1)


def reaching(trails: dict[str, Trail], parent: int) -> Tensor:
    """The share of each child of the first layer that reaches a capsule of the last: the product of the last couplings
    along all ways there. -> (B, I)"""
    share = None
    for trail in reversed(trails.values()):
        last = trail.coupling[-1]
        share = last[..., parent] if share is None else torch.einsum("bij,bj->bi", last, share)
    return share


class Field(NamedTuple):
    """Where the primary capsules of one position look: `size` pixels around `start + step * position`."""

    start: float
    step: float
    size: int


def field(model: nn.Module) -> Field | None:
    """What primary capsules see of the image; None where convolutions in a row do not tell."""
    convolutions = [m for name in getattr(model, "stages", ()) for m in model.get_submodule(name).modules()]
    convolutions += getattr(model, "primary", nn.Identity()).modules()
    start, step, size, grid = 0.0, 1, 1, getattr(getattr(model, "primary", None), "grid", None)
    for module in convolutions:
        if isinstance(module, nn.Conv2d):
            if not isinstance(module.padding, tuple):
                return None
            start += ((module.kernel_size[0] - 1) / 2 - module.padding[0]) * step
            size += (module.kernel_size[0] - 1) * step
            step *= module.stride[0]
    known = grid is not None and size > 1 and start + step * (grid[0] - 1) < model.image_shape[-1]
    return Field(start, step, size) if known else None


def grouped(coupling: Tensor) -> Tensor:
    """An order of children (I, J): by the parent that wins them, the surest first. -> (I,)"""
    winner = coupling.argmax(-1).numpy()
    return torch.from_numpy(np.lexsort((-coupling.amax(-1).numpy(), winner)))


def spread_over(values: Tensor, where: Field, size: tuple[int, int]) -> Tensor:
    """Values (H', W') at the middle of what each position sees, on a picture of that size; 0 beside them."""
    canvas = torch.zeros(size)
    rows, columns = (torch.arange(n) for n in size)
    # floor, not round, which would make blocks of 1 and 3 pixels where steps are 2
    row, column = (((each - where.start) / where.step + 0.5).floor().long() for each in (rows, columns))
    inside = [(place >= 0) & (place < n) for place, n in zip((row, column), values.shape, strict=True)]
    block = values[row[inside[0]]][:, column[inside[1]]]
    canvas[inside[0][:, None] & inside[1]] = block.flatten()
    return canvas


class _Watched:
    """A routing that keeps the couplings it hands out, and the poses made of them."""

    def __init__(self, routing: Routing, name: str, trails: dict[str, Trail]) -> None:
        self.routing, self.name, self.trails = routing, name, trails

    def __call__(self, votes: Tensor, combine: Combine, **prior: Tensor) -> Tensor:
        watched = _Noted(combine)
        coupling = self.routing(votes, watched, **prior)
        watched(coupling, votes)
        couplings, poses = zip(*watched.seen, strict=True)
        self.trails[self.name] = Trail(torch.stack(couplings), torch.stack(poses), votes)
        return coupling


class _Noted:
    def __init__(self, combine: Combine) -> None:
        self.combine, self.reader = combine, combine.reader
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __call__(self, coupling: Tensor, votes: Tensor) -> Tensor:
        poses = self.combine(coupling, votes)
        self.seen.append((coupling, poses))
        return poses
