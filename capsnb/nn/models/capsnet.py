"""Vector capsule networks: Sabour's, its ablations and deep ones are configurations of one class."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from torch import Tensor

from capsnb.nn.layers import RoutedCapsules, length
from capsnb.nn.models.base import Model, ModelConfig, check_positive
from capsnb.nn.models.stems import DepthwiseStem, StridedStem
from capsnb.nn.routing import Dynamic, Routing


class CapsNet(Model):
    """Stem, primary capsules, routed layers `caps1`, `caps2`, ... and `class`, decoder.

    Taps: conv1 (and on), primary (B, I, P); for each routed layer votes, coupling, poses; reconstruction.
    """

    def __init__(self, config: CapsNetConfig) -> None:
        super().__init__(config)
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
        self.add_decoder(config.dim)

    def answer(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        poses = self.through((*self.stages, "primary", *self.layers), pixels)
        return length(poses), poses


@dataclass(frozen=True, kw_only=True)
class CapsNetConfig(ModelConfig):
    """A capsule network. The defaults are Sabour et al. 2017 on MNIST.

    hidden: (capsules, pose size) of each routed layer between primary and class capsules.
    routing: of every routed layer. shared: one transform for all children (Aff-CapsNet, Gu et al.), in every layer.
    squash: of every capsule, the primary ones too. bias: see `RoutedCapsules`.
    decoder: "conditional", "plain" or "none".
    hidden_squash: of the hidden capsules, where it is not `squash`. residual: add each child's pose to the sum of votes
        of the hidden parent in its place, in layers with parents like their children.
    """

    model: ClassVar = CapsNet
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

    def reduced(self, size: int) -> Self:
        """As `ModelConfig.reduced`, on a narrow stem of its own kind, else on Sabour et al.'s."""
        stem = getattr(self.stem, "reduced", StridedStem().reduced)()
        return replace(super().reduced(size), stem=stem, decoder_widths=(64,))

    def __post_init__(self) -> None:
        check_positive(self, "channels", "size", "classes", "dim", "init_scale")
        if not all(len(layer) == 2 and min(layer) > 0 for layer in self.hidden):
            raise ValueError(f"hidden = {self.hidden}: each layer is (capsules, pose size), both above 0")
        if not callable(self.routing):
            raise ValueError(f"routing = {self.routing!r}: a routing is called with votes and combine, as Dynamic() is")
