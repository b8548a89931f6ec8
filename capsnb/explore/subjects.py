"""What an explorer looks at: a model and its images, from whatever the reader has in hand, and where capsules look."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from capsnb.data import DataSpec, ImageSet, prepare
from capsnb.nn.models import Output
from capsnb.training import checkpoints, runs
from capsnb.training.runs import Run
from capsnb.training.use import load


class Subject(NamedTuple):
    """A model and its images."""

    name: str  # in the widget
    code: str  # how a line of Python names it
    model: nn.Module
    data: ImageSet

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def class_options(self) -> list[tuple[str, int]]:
        """What a list of class capsules offers: -1, the predicted one, then each by name."""
        return [("as predicted", -1), *((name, label) for label, name in enumerate(self.data.classes))]

    def class_capsule(self, scores: Tensor, wanted: int) -> int:
        """The wanted one, or the one with the highest of the scores (K,) for -1; ValueError where there is none."""
        if not -1 <= wanted < len(scores):
            raise ValueError(f"{self.name} has class capsules 0 to {len(scores) - 1}, but no {wanted}.")
        return int(scores.argmax()) if wanted == -1 else wanted


def subject(what: Any, data: ImageSet | DataSpec | str | None = None) -> Subject:
    """A subject from a checkpoint's name, the name or folder of a finished run, a `Run`, or a model.

    data: the images, as an ImageSet, a DataSpec or the name of a set; those that a run was trained on when None, and
    the embedded digits for a model alone and for a checkpoint trained on MNIST. Only their test images are shown.
    Raises ValueError for an unknown name, and for images that the model does not take; errors as `data.load` where a
    set is not there.
    """
    if isinstance(what, Subject):
        return what if data is None else _checked(what._replace(data=_images(data)))
    if isinstance(what, str | Path):
        name, run = str(what), load(what)
        return _checked(Subject(name, repr(name), run.model, _images(data or checkpoints.shown(run))))
    if isinstance(what, Run):
        return _checked(Subject(what.folder.name, "run", what.model, _images(data or checkpoints.shown(what))))
    if isinstance(what, nn.Module):
        return _checked(Subject(type(what).__name__, "model", what, _images(data or DataSpec())))
    raise ValueError(f"an explorer takes a checkpoint's or a run's name, a Run or a model, not {type(what).__name__}.")


def names() -> list[str]:
    """What can be chosen by name: the checkpoints that are there, then the finished runs."""
    shipped = [name for name in checkpoints.CHECKPOINTS if (checkpoints.folder(name) / "model.pt").exists()]
    return shipped + [row["name"] for row in runs.list_runs() if row["finished"]]


def _images(data: ImageSet | DataSpec | str) -> ImageSet:
    if isinstance(data, ImageSet):
        return data
    return prepare(DataSpec(name=data) if isinstance(data, str) else data)


def _checked(found: Subject) -> Subject:
    split = found.data.test
    if getattr(split, "labels", None) is None or split.labels.dim() != 1:
        raise ValueError(f"{found.data.name} has several labels for each picture; an explorer shows sets with one.")
    if not len(split):
        raise ValueError(f"{found.data.name} has no test images to show.")
    takes, given = getattr(found.model, "image_shape", None), tuple(found.data.image_shape)
    if takes is not None and tuple(takes) != given:
        raise ValueError(
            f"{found.name} takes images {tuple(takes)}, those of {found.data.name} are {given}; "
            "give it images of its own with data=."
        )
    return found


def sample(split: Any, images: int) -> Any:
    """So many images of a split, evenly spaced; all of a smaller one."""
    count = min(images, len(split))
    return split.select(torch.arange(count, device=split.labels.device) * len(split) // max(count, 1))


def class_shares(output: Output) -> Tensor:
    """How much a network says for each class, in [0, 1]: lengths and activations as they are, logits by softmax.
    -> (B, K)"""
    scores = output.scores
    plain = bool(scores.min() >= 0 and scores.max() <= 1)
    return (scores if plain else scores.softmax(1)).cpu()


class Field(NamedTuple):
    """Where the primary capsules of one position look: `size` pixels around `start + step * position`."""

    start: float
    step: float
    size: int


def field(model: nn.Module) -> Field | None:
    """What primary capsules see of the image; None where convolutions in a row do not tell."""
    convolutions = [m for name in getattr(model, "stages", ()) for m in model.get_submodule(name).modules()]
    convolutions += getattr(model, "primary", nn.Identity()).modules()
    start, step, size = 0.0, 1, 1
    for module in convolutions:
        if isinstance(module, nn.Conv2d):
            if not isinstance(module.padding, tuple):
                return None
            start += ((module.kernel_size[0] - 1) / 2 - module.padding[0]) * step
            size += (module.kernel_size[0] - 1) * step
            step *= module.stride[0]
    places = grid(model)
    known = places is not None and size > 1 and start + step * (places[0] - 1) < model.image_shape[-1]
    return Field(start, step, size) if known else None


def grid(model: nn.Module) -> tuple[int, int, int] | None:
    """Rows, columns and types of the primary capsules, where they stand at positions."""
    return getattr(getattr(model, "primary", None), "grid", None)


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
