"""The networks of Lin, Li & Ma 2018: a capsule network of four layers and one of plain neurons, as many in each layer.

What the paper fixes (sec. 3.1, figure 1): a convolution and three layers of capsules with two routings, R1 and R2,
"similar to" Sabour et al.'s network for 36x36 MultiMNIST; in each intermediate layer as many neurons in both networks.
Sizes, loss and decoder are not printed: Sabour's convolution and primary capsules, 16 capsules of 16 numbers between,
no decoder and, for the neurons, sigmoid cross-entropy are ours.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from torch import Tensor, nn

from capsnb.nn import taps
from capsnb.nn.layers import Stage
from capsnb.nn.models.base import Model, ModelConfig
from capsnb.nn.models.capsnet import CapsNetConfig
from capsnb.nn.models.stems import StridedStem, strided_pair

# R1 routes to caps1 (the paper's Cap1), R2 to the classes
FOUR_LAYERS = CapsNetConfig(size=36, hidden=((16, 16),), decoder="none")
# section 3.3: "with one more capsule/CNN layer"
FIVE_LAYERS = replace(FOUR_LAYERS, hidden=((16, 16), (16, 16)))


class NeuronNet(Model):
    """Scores are logits. Taps: conv1, conv2 (B, C, H, W); linear1, linear2, ... (B, units), after their ReLU."""

    def __init__(self, config: NeuronNetConfig) -> None:
        super().__init__(config)
        widths = (config.width, config.primary)
        self.stages = ["conv1", "conv2"]
        self.conv1, self.conv2, places = strided_pair(config.channels, config.size, config.kernel, widths)
        self.linears = [f"linear{n}" for n, _ in enumerate(config.hidden, 1)]
        sizes = (config.primary * places, *config.hidden)
        for name, (children, units) in zip(self.linears, itertools.pairwise(sizes), strict=True):
            self.add_module(name, Stage(nn.Linear(children, units), nn.ReLU()))
        self.out = nn.Linear(sizes[-1], config.classes)

    def answer(self, pixels: Tensor) -> tuple[Tensor, None]:
        units = self.conv2(self.conv1(pixels)).flatten(1)
        return self.out(self.through(self.linears, units)), None


@dataclass(frozen=True, kw_only=True)
class NeuronNetConfig(ModelConfig):
    """The standard CNN: two convolutions, fully connected layers, ReLU after each but the last. Scores are logits.

    width, primary: channels of the first convolution (stride 1) and of the second (stride 2), which has as many neurons
    as the capsule network's primary capsules have numbers. hidden: neurons of each layer between (Linear1, ...).
    """

    model: ClassVar = NeuronNet
    size: int | tuple[int, int] = 36
    width: int = 256
    primary: int = 256
    kernel: int = 9
    hidden: tuple[int, ...] = (256,)

    def reduced(self, size: int) -> Self:
        return replace(super().reduced(size), width=16, primary=32, kernel=5)

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden = {self.hidden}: at least one layer of at least one neuron is needed")


def neuron_twin(config: CapsNetConfig) -> NeuronNetConfig:
    """The network of neurons with as many of them in every intermediate layer as a capsule network has numbers.

    Raises ValueError for a capsule network without hidden layer, or with another stem than Sabour's.
    """
    if not isinstance(config.stem, StridedStem) or not config.hidden:
        raise ValueError("a twin of neurons is known for capsule networks on a StridedStem with a hidden layer")
    stem = config.stem
    return NeuronNetConfig(
        channels=config.channels,
        size=config.size,
        classes=config.classes,
        width=stem.channels,
        primary=stem.types * stem.dim,
        kernel=stem.kernel,
        hidden=tuple(capsules * dim for capsules, dim in config.hidden),
    )


def layer_sizes(model: nn.Module, images: Tensor) -> dict[str, int]:
    """Numbers per image in every intermediate layer of either network, by its tap: for the table of equal neurons."""
    inside = ("votes", "coupling", "reconstruction")
    names = [name for name in taps.names(model) if name.split(".")[-1] not in inside and not name.startswith("class")]
    with taps.evaluating(model), taps.record(model, *names) as seen:
        model(images)
    return {name: math.prod(seen[name].shape[1:]) for name in names}
