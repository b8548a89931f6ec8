"""Whether a network and images go together: said before anything is trained, and how to make them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from capsnb.data import ImageSet
from capsnb.data.pixels import by

MANY, BYTES = 100_000_000, 16  # parameters; bytes of each with its gradient and the two averages of Adam


def following(config: Any, data: ImageSet, given: Iterable[str]) -> Any:
    """A configuration that follows the set wherever it has its class's default and "model.<field>" is not `given`."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    free = [n for n in _wanted(data) if f"model.{n}" not in given and getattr(config, n, None) == defaults.get(n)]
    return dataclasses.replace(config, **{name: _wanted(data)[name] for name in free if name in defaults})


def check(model: Any, data: ImageSet) -> None:
    """ValueError unless the set can train a model, or one of a configuration: its images, their shape and classes.

    What neither says of itself (`image_shape`, `classes`) is not checked. Of a configuration a warning says how many
    parameters a huge network would have, and what would make them fewer; once it is made there is no more to say.
    """
    for split in ("train", "validation"):
        if not len(getattr(data, split)):
            raise ValueError(f"{data.name} has no {split} images, so nothing is trained on it ({data.source})")
    if not isinstance(model, nn.Module) and (told := heavy(model)):
        warnings.warn(told, stacklevel=1)  # here, so that the same words are said once
    wanted, config = _wanted(data), getattr(model, "config", model)
    shape = tuple(getattr(model, "image_shape", data.image_shape))
    classes = getattr(config, "classes", wanted["classes"])
    given = {"channels": shape[0], "size": shape[1:], "classes": classes}
    theirs = {"channels": data.image_shape[0], "size": tuple(data.image_shape[1:]), "classes": wanted["classes"]}
    if wrong := [name for name in given if given[name] != theirs[name]]:
        raise ValueError(
            f"{data.name} has images {by(data.image_shape)} of {wanted['classes']} classes, the model takes "
            f"{by(shape)} of {classes}: give it {', '.join(f'{name}={wanted[name]}' for name in wrong)}"
        )


def heavy(model: Any) -> str:
    """What to say of a model, or one of a configuration, before it is trained: nothing unless it is huge."""
    if isinstance(model, nn.Module):
        parts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    elif hasattr(model, "image_shape") and hasattr(model, "build"):
        with torch.device("meta"):
            return heavy(model.build())
    else:
        return ""
    total = sum(parts.values())
    if total < MANY:
        return ""
    largest = max(parts, key=lambda name: parts[name])
    return (
        f"{type(model).__name__} has {total:,} parameters, about {total * BYTES / 1e9:.0f} GB while it trains; "
        f"{parts[largest] / total:.0%} of them are in {largest}: smaller images (DataSpec(resize=...)), fewer capsules "
        "(a stem with fewer types or larger strides, a DepthwiseStem) or decoder='none' make it small"
    )


def _wanted(data: ImageSet) -> dict[str, Any]:
    channels, height, width = data.image_shape
    return {
        "channels": channels,
        "size": height if height == width else (height, width),
        "classes": len(data.classes),
    }
