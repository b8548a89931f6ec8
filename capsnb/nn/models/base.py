"""What all models share: images in, an `Output` out, perhaps a decoder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from capsnb.nn import taps
from capsnb.nn.layers import Decoder


class Output(NamedTuple):
    """What every model returns."""

    scores: Tensor  # (B, K) lengths of the class poses, or logits
    poses: Tensor | None  # (B, K, D) class poses, for models that have them
    reconstruction: Tensor | None  # (B, C, H, W), or (B, m, C, H, W) when m labels were given


class Model(nn.Module):
    """A network for the images of its configuration. A subclass registers its parts and says what they `answer`.

    Parts that others look for by name: `stages` of convolutions, `primary` capsules, `layers` of capsules up to
    "class", `decoder` and the tap `reconstruction`. One's own model needs no such base, only parts of these names.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, self.image_shape = config, (config.channels, config.size, config.size)
        self.decoder: Decoder | None = None

    def add_decoder(self, dim: int) -> None:
        """The decoder of the configuration, if any, for class poses of `dim` numbers."""
        config = self.config
        self.decoder, self.reconstruction = make_decoder(
            config.decoder, config.classes, dim, self.image_shape, config.decoder_widths
        )

    def through(self, names: Iterable[str], tensor: Any) -> Any:
        """What the parts of these names make of a tensor, one after the other."""
        for name in names:
            tensor = self._modules[name](tensor)  # torch.compile cannot get_submodule("class"), a word of Python's
        return tensor

    def answer(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scores (B, K) and class poses (B, K, D) of pixels (B, C, H, W) in [0, 1]."""
        raise NotImplementedError

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Output:
        """images (B, C, H, W), uint8 or in [0, 1]; labels mask the decoder (training), else the highest score does."""
        scores, poses = self.answer(as_pixels(images, self.image_shape))
        if self.decoder is None:
            return Output(scores, poses, None)
        return Output(scores, poses, decode(self, poses, scores.argmax(1) if labels is None else labels))


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What every configuration says: the shape of the images (channels, size, size) and the number of classes."""

    model: ClassVar[type[Model]]  # what is built of it

    channels: int = 1
    size: int = 28
    classes: int = 10

    def build(self) -> Model:
        """The model with fresh parameters from torch's global generator."""
        return self.model(self)


def as_pixels(images: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
    """Images as a model computes with them: uint8 becomes [0, 1]; ValueError for another shape than the model's."""
    if tuple(images.shape[1:]) != tuple(image_shape):
        raise ValueError(f"the model takes images {tuple(image_shape)}, not {tuple(images.shape[1:])}")
    return images.to(torch.get_default_dtype()).div_(255) if images.dtype == torch.uint8 else images


def make_decoder(
    kind: str, classes: int, dim: int, image_shape: tuple[int, int, int], widths: tuple[int, ...]
) -> tuple[Decoder | None, taps.Tap | None]:
    """A decoder and the tap of its pictures, or (None, None) for kind "none"."""
    if kind == "none":
        return None, None
    return Decoder(classes, dim, image_shape, kind=kind, widths=widths), taps.Tap()


def decode(model: nn.Module, poses: Tensor, labels: Tensor | None = None) -> Tensor | None:
    """Pictures of class poses (B, K, D) by the model's decoder; None when it has none."""
    return None if model.decoder is None else model.reconstruction(model.decoder(poses, labels))


def check_positive(config: ModelConfig, *names: str) -> None:
    """ValueError unless these fields of a configuration are above 0."""
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} = {getattr(config, name)}: it must be above 0")
