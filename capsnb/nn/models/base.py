"""What all models share: images in, an `Output` out, perhaps a decoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from capsnb.nn import taps
from capsnb.nn.layers import Decoder, sides
from capsnb.nn.routing import has_numbers

BRIGHTEST = 16.0  # of float images: beyond white, since images are changed, and far from the 255 of others

OWED = ("image_shape", "stages", "layers", "primary", "decoder")  # attributes of a Network


class Output(NamedTuple):
    """What every model returns."""

    scores: Tensor  # (B, K) lengths of the class poses, or logits
    poses: Tensor | None  # (B, K, D) class poses, for models that have them
    reconstruction: Tensor | None  # (B, C, H, W), or (B, m, C, H, W) when m labels were given


class Network(Protocol):
    """What a model owes whoever measures it; one's own needs no base class, only this. `lacks` says what is missing.

    Taps are known by these names: each stage's own, "primary", "LAYER.poses" (and "LAYER.votes", "LAYER.coupling" where
    there is routing), "reconstruction" where there is a decoder.
    """

    image_shape: tuple[int, int, int]  # (C, H, W) of its images
    stages: Sequence[str]  # names of its convolutions, in their order
    layers: Sequence[str]  # names of its layers of capsules above the primary ones, the last "class"; or empty
    decoder: nn.Module | None  # (B, K, D) -> (B, C, H, W)

    @property
    def primary(self) -> nn.Module | None:
        """The first capsules, (B, I, P), if any."""

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> Output:
        """images (B, C, H, W), uint8 or in [0, 1]; labels (B,) or (B, m): what a decoder shows."""


class Model(nn.Module, ABC):
    """A `Network` for the images of its configuration. A subclass registers its parts and says what they `answer`."""

    config: Any  # of a subclass, with what it alone has

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, self.image_shape = config, config.image_shape
        self.stages: list[str] = []
        self.layers: list[str] = []
        self.primary: Any = None
        self.decoder: Decoder | None = None
        self.looked = False  # whether float images, which may be anybody's, have been looked at

    def add_decoder(self, dim: int) -> None:
        """The decoder of the configuration, if any, for class poses of `dim` numbers."""
        config = self.config
        self.decoder, self.reconstruction = make_decoder(
            config.decoder, config.classes, dim, self.image_shape, config.decoder_widths
        )

    def part(self, name: str) -> Any:
        """The part of that name: torch.compile cannot get_submodule("class"), a word of Python's."""
        return self._modules[name]

    def through(self, names: Iterable[str], tensor: Any) -> Any:
        """What the parts of these names make of a tensor, one after the other."""
        for name in names:
            tensor = self.part(name)(tensor)
        return tensor

    @abstractmethod
    def answer(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scores (B, K) and class poses (B, K, D) of pixels (B, C, H, W) in [0, 1]."""

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Output:
        """images (B, C, H, W), uint8 or in [0, 1]; labels mask the decoder (training), else the highest score does."""
        pixels = as_pixels(images, self.image_shape, look=images.device.type == "cpu" or not self.looked)
        if images.is_floating_point() and not self.looked:
            self.looked = has_numbers(images)
        scores, poses = self.answer(pixels)
        if self.decoder is None:
            return Output(scores, poses, None)
        assert poses is not None, "a decoder needs class poses"
        return Output(scores, poses, decode(self, poses, scores.argmax(1) if labels is None else labels))


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What every configuration says: the shape of the images and the number of classes.

    size: the side of square images, or (height, width).
    """

    model: ClassVar[type[Model]]  # what is built of it

    channels: int = 1
    size: int | tuple[int, int] = 28
    classes: int = 10

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (self.channels, *sides(self.size))

    def build(self) -> Model:
        """The model with fresh parameters from torch's global generator."""
        return self.model(self)

    def reduced(self, size: int) -> Self:
        """The same kind of model for grey images of size x size, narrow enough to leave chance in seconds."""
        return replace(self, channels=1, size=size)


def lacks(model: Any) -> list[str]:
    """What a model lacks of a `Network`, in words; it is asked about two black images. Empty for a whole one."""
    if missing := [f"no {name}" for name in OWED if not hasattr(model, name)]:
        return missing
    named = [*model.stages, *["primary"] * (model.primary is not None), *(f"{layer}.poses" for layer in model.layers)]
    named += ["reconstruction"] * (model.decoder is not None)
    if missing := [f"no tap {name}" for name in named if name not in taps.names(model)]:
        return missing
    weights = next(model.parameters())
    images = torch.zeros(2, *model.image_shape, dtype=weights.dtype, device=weights.device)
    with taps.evaluating(model), taps.record(model, *named) as seen:
        output = model(images)
    shapes = {"scores": (output.scores, 2), "poses": (output.poses, 3), "reconstruction": (output.reconstruction, 4)}
    wanted = {"scores", *["poses"] * bool(model.layers), *["reconstruction"] * (model.decoder is not None)}
    found = [f"no {name}" for name in wanted if shapes[name][0] is None]
    for name, (tensor, axes) in shapes.items():
        if tensor is not None and (tensor.dim() != axes or len(tensor) != 2):
            found.append(f"{name} of shape {tuple(tensor.shape)}, not of {axes} axes with the batch first")
    return found + [f"nothing of the batch at {name}" for name in named if len(seen[name]) != 2]


class Scores(nn.Module):
    """The scores alone of a model, images (B, C, H, W) -> (B, K): what captum, Quantus and others explain."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).scores


def scores_of(model: nn.Module) -> Scores:
    """A model as a module from images to class scores (B, K), with its gradients: `Saliency(scores_of(model))`.

    The model itself is inside, as `model`, so that layers are named as in it; modes and weights are shared.
    """
    return Scores(model)


def as_pixels(images: Tensor, image_shape: tuple[int, ...], *, look: bool = True) -> Tensor:
    """Images as a model computes with them: uint8 becomes [0, 1].

    Raises ValueError for another shape than the model's, for another type than uint8 and floats, and for floats beyond
    `BRIGHTEST`, which are those of 0..255. look: False for floats whose numbers would have to be waited for.
    """
    if tuple(images.shape[1:]) != tuple(image_shape):
        raise ValueError(f"the model takes images {tuple(image_shape)}, not {tuple(images.shape[1:])}")
    if images.dtype == torch.uint8:
        return images.to(torch.get_default_dtype()).div_(255)
    if not images.is_floating_point():
        raise ValueError(f"the model takes images as uint8, or as floats in [0, 1], not {images.dtype}")
    if look and len(images) and has_numbers(images) and (top := float(images.detach().max())) > BRIGHTEST:
        raise ValueError(f"float images are in [0, 1], these go up to {top:g}: divide them by 255, or give uint8")
    return images


def make_decoder(
    kind: str, classes: int, dim: int, image_shape: tuple[int, int, int], widths: tuple[int, ...]
) -> tuple[Decoder | None, taps.Tap | None]:
    """A decoder and the tap of its pictures, or (None, None) for kind "none"."""
    if kind == "none":
        return None, None
    return Decoder(classes, dim, image_shape, kind=kind, widths=widths), taps.Tap()


def decode(model: Any, poses: Tensor, labels: Tensor | None = None) -> Tensor | None:
    """Pictures of class poses (B, K, D) by the model's decoder; None when it has none."""
    return None if model.decoder is None else model.reconstruction(model.decoder(poses, labels))


def check_positive(config: ModelConfig, *names: str) -> None:
    """ValueError unless these fields of a configuration are above 0."""
    for name in names:
        value = getattr(config, name)
        numbers = value if name == "size" and isinstance(value, tuple) and len(value) == 2 else (value,)
        if not all(isinstance(number, int | float) and number > 0 for number in numbers):
            raise ValueError(f"{name} = {value!r}: it must be above 0{', or two such' if name == 'size' else ''}")
