"""Vector capsule networks: Sabour's, its ablations and deep ones are configurations of one class."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from capsnb.nn import taps
from capsnb.nn.layers import Decoder, RoutedCapsules, length
from capsnb.nn.models.stems import DepthwiseStem, StridedStem
from capsnb.nn.routing import Dynamic, Routing


class Output(NamedTuple):
    """What every model returns."""

    scores: Tensor  # (B, K) lengths of the class poses, or logits
    poses: Tensor | None  # (B, K, D) class poses, for models that have them
    reconstruction: Tensor | None  # (B, C, H, W), or (B, m, C, H, W) when m labels were given


@dataclass(frozen=True, kw_only=True)
class CapsNetConfig:
    """A capsule network. The defaults are Sabour et al. 2017 on MNIST.

    hidden: (capsules, pose size) of each routed layer between primary and class capsules.
    routing: of every routed layer. shared: one transform for all children (Aff-CapsNet, Gu et al.), in every layer.
    squash: of every capsule, the primary ones too. bias: see `RoutedCapsules`.
    decoder: "conditional", "plain" or "none".
    hidden_squash: of the hidden capsules, where it is not `squash`. residual: add each child's pose to the sum of votes
        of the hidden parent in its place, in layers with parents like their children.
    """

    channels: int = 1
    size: int = 28
    classes: int = 10
    stem: StridedStem | DepthwiseStem = field(default_factory=StridedStem)
    hidden: tuple[tuple[int, int], ...] = ()
    dim: int = 16
    routing: Routing = field(default_factory=Dynamic)
    shared: bool = False
    squash: str = "sabour"
    bias: float | None = None
    decoder: str = "conditional"
    decoder_widths: tuple[int, ...] = (512, 1024)
    init: str = "vote-sum"
    init_scale: float = 0.5
    hidden_squash: str | None = None
    residual: bool = False

    def __post_init__(self) -> None:
        for name in ("channels", "size", "classes", "dim", "init_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)}: it must be above 0")
        if not all(len(layer) == 2 and min(layer) > 0 for layer in self.hidden):
            raise ValueError(f"hidden = {self.hidden}: each layer is (capsules, pose size), both above 0")
        if not callable(self.routing):
            raise ValueError(f"routing = {self.routing!r}: a routing is called with votes and combine, as Dynamic() is")

    def build(self) -> CapsNet:
        """The model with fresh parameters from torch's global generator."""
        return CapsNet(self)


class CapsNet(nn.Module):
    """Stem, primary capsules, routed layers `caps1`, `caps2`, ... and `class`, decoder.

    Taps: conv1 (and on), primary (B, I, P); for each routed layer votes, coupling, poses; reconstruction.
    """

    def __init__(self, config: CapsNetConfig) -> None:
        super().__init__()
        self.config = config
        self.image_shape = (config.channels, config.size, config.size)
        stages, primary = config.stem.build(config.channels, config.size, config.squash)
        self.stages = [f"conv{n}" for n, _ in enumerate(stages, 1)]
        for name, stage in zip(self.stages, stages, strict=True):
            self.add_module(name, stage)
        self.primary = primary
        self.layers = [*(f"caps{n}" for n, _ in enumerate(config.hidden, 1)), "class"]
        children, child_dim = self.primary.capsules, self.primary.dim
        for name, (parents, dim) in zip(self.layers, (*config.hidden, (config.classes, config.dim)), strict=True):
            hidden = name != "class"
            layer = RoutedCapsules(
                children,
                child_dim,
                parents,
                dim,
                routing=config.routing,
                shared=config.shared,
                squash=(hidden and config.hidden_squash) or config.squash,
                bias=config.bias,
                init=config.init,
                init_scale=config.init_scale,
                residual=hidden and config.residual and (children, child_dim) == (parents, dim),
            )
            self.add_module(name, layer)
            children, child_dim = parents, dim
        if config.residual and not any(self.get_submodule(name).residual for name in self.layers):
            raise ValueError(f"hidden = {config.hidden}: no layer is like its children, so residual changes nothing")
        if config.hidden_squash and not config.hidden:
            raise ValueError(f"hidden_squash = {config.hidden_squash!r}: there is no hidden layer")
        self.decoder, self.reconstruction = make_decoder(
            config.decoder, config.classes, config.dim, self.image_shape, config.decoder_widths
        )

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Output:
        """images (B, C, H, W), uint8 or in [0, 1]; labels mask the decoder (training), else the longest pose does."""
        poses = as_pixels(images, self.image_shape)
        for name in self.stages:
            poses = self._modules[name](poses)
        poses = self.primary(poses)
        for name in self.layers:
            poses = self._modules[name](poses)
        return Output(length(poses), poses, decode(self, poses, labels))


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
