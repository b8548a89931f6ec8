"""Weights by name: read from a file in any of the usual wrappings, compared bit for bit, and put into a model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from capsnb.training import files

WRAPPINGS = ("state_dict", "model", "model_state_dict", "net", "weights")


def load_weights(file: Path, remedy: str = "give another one, or the folder of a finished run") -> dict[str, Tensor]:
    """Weights by name, also out of {"state_dict": ...}, {"model": ...} and other usual wrappings."""
    found = files.load(file, remedy)
    for name in WRAPPINGS:
        if isinstance(found.get(name), dict):
            found = found[name]
    weights = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    if not weights:
        raise ValueError(f"{file} holds no weights; it has: {', '.join(map(str, found)) or 'nothing'}")
    return weights


def renamed(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names that a model has for them: DataParallel's "module." and the like go where none fits."""
    own, found = set(model.state_dict()), dict(weights)
    while found and not own & set(found) and len(heads := {name.partition(".")[0] for name in found}) == 1:
        if not all(name.partition(".")[2] for name in found):
            break
        found = {name.removeprefix(f"{min(heads)}."): value for name, value in found.items()}
    return found if own & set(found) else dict(weights)


def misfits(model: nn.Module, weights: Mapping[str, Tensor], fresh: Collection[str] = ()) -> dict[str, str]:
    """What of a model has no weights of its shape, but for what starts fresh: name -> in words."""
    own = {name: value for name, value in model.state_dict().items() if name not in fresh}
    missing = {name: f"{name} is not there" for name in own if name not in weights}
    return missing | {
        name: f"{name} is {tuple(weights[name].shape)} there and {tuple(value.shape)} here"
        for name, value in own.items()
        if name in weights and weights[name].shape != value.shape
    }


def in_words(unfit: Mapping[str, str]) -> str:
    """The first of `misfits`, and how many more."""
    return "; ".join(list(unfit.values())[:4]) + (f"; and {len(unfit) - 4} more" if len(unfit) > 4 else "")


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
    own, weights = model.state_dict(), renamed(model, weights)
    fresh = {name for name in own if any(f"{name}.".startswith(f"{part}.") for part in reset)}
    if unfit := misfits(model, weights, fresh):
        heads = ", ".join(repr(name) for name in dict.fromkeys(name.split(".")[0] for name in unfit))
        raise ValueError(
            f"the start does not fit the model: {in_words(unfit)}. reset=({heads},) would begin these parts fresh"
        )
    if unused := sorted({name.split(".")[0] for name in weights if name not in own}):
        print(f"of the start, {', '.join(unused)} has no place in the model and is left out")
    model.load_state_dict({name: weights[name] for name in own if name not in fresh}, strict=False)
