"""Weights by name: read from a file in any of the usual wrappings, compared bit for bit, and put into a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from capsnb.training import files


def load_weights(file: Path) -> dict[str, Tensor]:
    """Weights by name, also out of {"state_dict": ...} or {"model": ...} and from under DataParallel's "module."."""
    found = files.load(file, "give another one, or the folder of a finished run")
    for name in ("state_dict", "model"):
        if isinstance(found.get(name), dict):
            found = found[name]
    weights = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    if not weights:
        raise ValueError(f"{file} holds no weights; it has: {', '.join(map(str, found)) or 'nothing'}")
    if all(name.startswith("module.") for name in weights):
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    return weights


def same_weights(file: Path, weights: Mapping[str, Tensor]) -> bool:
    """Whether a file holds these very weights, bit for bit."""
    try:
        found = files.load(file, "")
    except ValueError:
        return False
    return found.keys() == weights.keys() and all(torch.equal(found[name], weights[name]) for name in weights)


def check_parts(model: nn.Module, names: tuple[str, ...]) -> None:
    """Raise ValueError for the name of a part to reset that the model lacks."""
    parts = {name for name, _ in model.named_modules() if name} | set(model.state_dict())
    if unknown := [part for part in names if part not in parts]:
        known = ", ".join(name for name, _ in model.named_children())
        raise ValueError(f"{type(model).__name__} has no part {unknown[0]!r} to reset; it has: {known}")


def start_from(model: nn.Module, weights: Mapping[str, Tensor], reset: tuple[str, ...]) -> None:
    """Put weights into a model, but for the parts that are reset; prints what has no place in it.

    Raises ValueError that names what does not fit, and the `reset` that would begin it fresh.
    """
    own = model.state_dict()
    fresh = {name for name in own if any(f"{name}.".startswith(f"{part}.") for part in reset)}
    wrong = {
        name: f"{name} is {tuple(weights[name].shape)} there and {tuple(own[name].shape)} here"
        for name in own
        if name in weights and name not in fresh and weights[name].shape != own[name].shape
    }
    missing = {name: f"{name} is not there" for name in own if name not in weights and name not in fresh}
    if unfit := missing | wrong:
        named = "; ".join(list(unfit.values())[:4]) + (f"; and {len(unfit) - 4} more" if len(unfit) > 4 else "")
        heads = ", ".join(repr(name) for name in dict.fromkeys(name.split(".")[0] for name in unfit))
        raise ValueError(f"the start does not fit the model: {named}. reset=({heads},) would begin these parts fresh")
    if unused := sorted({name.split(".")[0] for name in weights if name not in own}):
        print(f"of the start, {', '.join(unused)} has no place in the model and is left out")
    model.load_state_dict({name: weights[name] for name in own if name not in fresh}, strict=False)
