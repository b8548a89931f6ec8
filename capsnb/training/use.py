"""A network in one line: named, made, loaded, asked.

list_models()                                             # the papers' networks; trained=True: those that come along
model = create_model("capsnet", size=40, classes=5)       # fresh
run = load("capsnet-small")                               # a checkpoint, or a finished run by its name or folder
predict(run, "seven.png").classes                         # ["7"]
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from capsnb.data import DataSpec, single, sources
from capsnb.data.folders import Pictures
from capsnb.data.pixels import centre, sides
from capsnb.data.spec import framed
from capsnb.nn import taps
from capsnb.nn.models import ZOO, as_pixels
from capsnb.training import checkpoints, runs
from capsnb.training.evaluation import pick_device
from capsnb.training.runs import Run

ROWS = 256  # pictures at a time
LOOKED_AT = 100  # training images that tell light on dark from dark on light


class Prediction(NamedTuple):
    """What a network says of pictures, on the CPU."""

    classes: list[str]  # of each picture, the name of the class with the highest score
    scores: Tensor  # (B, K)
    reconstruction: Tensor | None  # (B, C, H, W) in [0, 1], of that class; None for a network without a decoder
    images: Tensor  # (B, C, H, W) as the network saw them
    names: tuple[str, ...]  # of the K classes


def list_models(*, trained: bool = False) -> list[str]:
    """Names of the papers' networks, for `create_model`; trained: of the small trained ones, for `load`."""
    return list(checkpoints.CHECKPOINTS if trained else ZOO)


def create_model(name: str, **changes: Any) -> nn.Module:
    """A network of a paper by name, with fresh weights from torch's global generator.

    changes: fields of its configuration, such as size, channels, classes, routing, decoder. Raises ValueError for a
    name or a field that is not there, and for a value that cannot be.
    """
    if name not in ZOO:
        raise ValueError(f"there is no model {name!r}; {_hint(name, ZOO)}")
    config = ZOO[name].config
    known = [field.name for field in fields(config)]
    if unknown := [field for field in changes if field not in known]:
        raise ValueError(f"the model {name!r} has no {unknown[0]!r}; {_hint(unknown[0], known)}")
    return replace(config, **changes).build()


def load(name: str | Path, *, device: str | torch.device | None = "cpu") -> Run:
    """A trained network in evaluation mode, with history and spec: a checkpoint's name, or a finished run's or folder.

    Raises ValueError for what is none of these, and for a folder that is damaged.
    """
    if str(name) in checkpoints.CHECKPOINTS:
        return checkpoints.load(str(name), device=device)
    for folder in (Path(name).expanduser(), runs.root() / name):
        if (folder / "model.pt").is_file():
            return runs.load(folder, device=device)
    known = ", ".join(checkpoints.CHECKPOINTS)
    raise ValueError(f"{str(name)!r} is neither a checkpoint ({known}) nor the name or folder of a finished run.")


def predict(
    model: str | Path | Run | nn.Module, pictures: Any, *, dark: bool | None = None, device: Any = None
) -> Prediction:
    """What a network says of one picture or many.

    model: what `load` takes, a Run, or a model, whose classes are then called by their numbers.
    pictures: a file, or an array or tensor (H, W), (C, H, W) or (B, C, H, W), uint8 or in [0, 1]; or several of one
    kind. A file is padded to the proportions of the network's images, or stretched to them where it learned from files
    that were, and resized, and cropped or placed on a canvas where the network learned so.
    dark: whether the network learned light on dark, so that a file that is dark on light is inverted; None: as its
    training images are, and not for a model alone. device: the best one there is when None; a model stays where it is.
    Raises ValueError for a file that is no picture and an array that does not fit; FileNotFoundError for no file.
    """
    if not isinstance(model, Run | nn.Module):
        model = load(model, device=pick_device(device))
    network, spec = (model.model, model.spec.data) if isinstance(model, Run) else (model, None)
    seen = _Learned.from_spec(spec)
    shape = tuple(getattr(network, "image_shape", ())) or seen.shape
    if not shape:
        raise ValueError(f"{type(network).__name__} does not say which images it takes: give it image_shape (C, H, W)")
    images = _images(pictures, shape, seen, seen.dark if dark is None else dark)
    weights = next(network.parameters(), images)
    with taps.evaluating(network):
        found = [network(part.to(weights.device)) for part in images.split(ROWS)]
    scores = torch.cat([each.scores.cpu() for each in found]).clone()
    names = seen.names if len(seen.names) == scores.shape[1] else tuple(map(str, range(scores.shape[1])))
    rebuilt = None
    if found[0].reconstruction is not None:
        rebuilt = torch.cat([each.reconstruction.cpu() for each in found]).clone()
    return Prediction([names[k] for k in scores.argmax(1).tolist()], scores, rebuilt, images, names)


class _Learned(NamedTuple):
    """What is known of the images that a network was trained on; nothing where they are not here."""

    spec: DataSpec = DataSpec()
    names: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()  # (C, H, W) before anything else is done to them
    dark: bool = False
    how: str = "pad"  # a file is brought to that shape, as `single.fit` has it

    @classmethod
    def from_spec(cls, spec: DataSpec | None) -> _Learned:
        if spec is None:
            return cls()
        try:
            shown = checkpoints.stand_in(DataSpec(name=spec.name))
            names, (images, _), *_ = sources.gather(shown.name).parts
            how = "pad"
            if isinstance(images, Pictures):  # files, not decoded yet
                images, how = replace(images, files=images.files[:LOOKED_AT]), "crop" if images.square else "stretch"
                shape = images.shape(sides(spec.resize) if spec.resize and spec.crop is None else None)
                images = images.read((16, 16))
            else:
                shape, images = tuple(images.shape[1:]), images[:LOOKED_AT]
        except (FileNotFoundError, ValueError):
            return cls(spec)
        return cls(spec, names, shape, single.is_dark(torch.from_numpy(np.array(images))), how)

    def framed(self, images: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Images of the set's own size as the network sees its test images: framed, in the middle of its canvas."""
        found = framed(images, self.spec)
        return found if found.shape[1:] == shape else centre(found, *shape[1:])


def _images(pictures: Any, shape: tuple[int, ...], seen: _Learned, dark: bool) -> Tensor:
    """Pictures (B, C, H, W) of the shape that the network takes."""
    if isinstance(pictures, str | Path) or hasattr(pictures, "shape"):
        pictures = [pictures]
    found, before = [], (shape[0], *seen.shape[1:]) if seen.shape else shape
    for each in pictures:
        file = isinstance(each, str | Path)
        images = _read(Path(each), before, seen.how, dark) if file else _array(each, shape)
        own = bool(seen.shape) and images.dtype == torch.uint8 and tuple(images.shape[1:]) == before
        if own and (file or tuple(images.shape[1:]) != shape):
            images = seen.framed(images, shape)
        found.append(as_pixels(images, shape))
    if not found:
        raise ValueError("there are no pictures: give a file or an array, or several")
    return torch.cat(found)


def _read(file: Path, shape: tuple[int, ...], how: str, dark: bool) -> Tensor:
    content = file.expanduser().read_bytes()
    return single.fit(single.read_picture(content, str(file)), shape, dark=dark, how=how)[0][None]


def _array(values: Any, shape: tuple[int, ...]) -> Tensor:
    images = torch.as_tensor(values)
    if images.dim() not in (2, 3, 4):
        raise ValueError(f"pictures have shape (H, W), (C, H, W) or (B, C, H, W), not {tuple(images.shape)}")
    images = images.reshape(-1, *(images.shape[-3:] if images.dim() > 2 else (1, *images.shape)))
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point() or not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError(f"pictures are uint8, or numbers from 0 to 1; these are {images.dtype} outside of that")
    return images.to(torch.get_default_dtype())


def _hint(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), 1)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}"
