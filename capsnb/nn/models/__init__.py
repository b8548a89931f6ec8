"""The models of the papers as configurations: `ZOO[name].config.build()` makes one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch

from capsnb.nn.em import EM
from capsnb.nn.models.base import (
    Model,
    ModelConfig,
    Network,
    Output,
    Scores,
    as_pixels,
    decode,
    lacks,
    make_decoder,
    scores_of,
)
from capsnb.nn.models.capsnet import CapsNet, CapsNetConfig
from capsnb.nn.models.convnets import ConvNetAvgConfig, ConvNetFCConfig, ConvNetRConfig
from capsnb.nn.models.lin2018 import FIVE_LAYERS, FOUR_LAYERS, NeuronNetConfig, neuron_twin
from capsnb.nn.models.matrix import MatrixCapsNet, MatrixCapsNetConfig
from capsnb.nn.models.residual import ResCaps, ResCapsConfig
from capsnb.nn.models.stems import DepthwiseStem, StridedStem
from capsnb.nn.routing import Dynamic, SelfAttention, Uniform

__all__ = [
    "ZOO",
    "CapsNet",
    "CapsNetConfig",
    "ConvNetAvgConfig",
    "ConvNetFCConfig",
    "ConvNetRConfig",
    "DepthwiseStem",
    "Entry",
    "MatrixCapsNet",
    "MatrixCapsNetConfig",
    "Model",
    "ModelConfig",
    "Network",
    "NeuronNetConfig",
    "Output",
    "ResCaps",
    "ResCapsConfig",
    "Scores",
    "StridedStem",
    "as_pixels",
    "count_parameters",
    "decode",
    "lacks",
    "make_decoder",
    "scores_of",
]


class Entry(NamedTuple):
    """A model of a paper: its configuration, its training loss, its number of parameters, where it comes from."""

    config: Any
    loss: str
    parameters: int
    paper: str


def count_parameters(config: Any) -> int:
    """The number of parameters of a model's configuration, counted on a model without memory (the meta device)."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in config.build().parameters())


AVERAGE = Uniform(value="1/I")
SABOUR = CapsNetConfig()
AFFINE = replace(SABOUR, size=40)  # Gu et al.'s for digits that are shifted and deformed
# Mitterreiter et al.'s three layers between primary and class capsules
DEEP = replace(
    AFFINE,
    stem=DepthwiseStem(),
    hidden=((16, 8), (16, 8), (16, 8)),
    dim=8,
    routing=Dynamic(learned_prior=True),
    squash="exponential",
    init_scale=0.25,
)
# paper 3's released code: a routing that is not differentiated, a bias before the squash, Sabour's start
REM = replace(SABOUR, decoder="none", routing=Dynamic(gradient="detached"), bias=0.1, init="normal")
# as Sabour's network, so that all is alike but stem and routing; its own recipe differs (Adam 5e-4 times 0.97 an epoch)
EFFICIENT = replace(
    SABOUR,
    stem=DepthwiseStem(widths=(32, 64, 64), pointwise=False),
    routing=SelfAttention(),
    squash="exponential",
)
# Tawalbeh & Oramas' released routings; 9.6 makes the transforms its N(0, 1); losses, decoder and lambda are ours
CHILDREN = replace(SABOUR, routing=Dynamic(over="children"), init_scale=9.6)
CANCELLED = MatrixCapsNetConfig(routing=EM(rivals="position", cancels=True))
# a 28x28 image padded by 2 has the maps of Hinton et al.'s 32x32 without padding: 14x14, 6x6, 4x4
HINTON = MatrixCapsNetConfig(width=32, batch_norm=False, types=32, layers=((32, 3, 2), (32, 3, 1)), decoder="none")
HINTON_SMALL = replace(HINTON, width=64, types=8, layers=((16, 3, 2), (16, 3, 1)))
# ConvNet-FC(LK): 328 and 192 neurons shrunk to CapsNet's 11,361,808 parameters
LARGE_KERNEL = ConvNetFCConfig(size=36, kernel=9, hidden=(182, 106))

ZOO: dict[str, Entry] = {
    "capsnet": Entry(SABOUR, "margin", 8_215_568, "Sabour et al. 2017, figs. 1 and 2"),
    "capsnet-children": Entry(
        CHILDREN, "margin", 8_215_568, "Tawalbeh & Oramas 2024, CapsNetDR as its released code routes"
    ),
    "capsnet-no-decoder": Entry(replace(SABOUR, decoder="none"), "margin", 6_804_224, "Sabour et al. 2017, fig. 1"),
    "capsnet-36": Entry(replace(SABOUR, size=36), "margin", 11_361_808, "Sabour et al. 2017, MultiMNIST"),
    "capsnet-40": Entry(AFFINE, "margin", 13_475_648, "Gu et al. 2021, table 1"),
    "capsnet-nor-40": Entry(
        replace(AFFINE, routing=AVERAGE), "margin", 13_475_648, "Gu et al. 2021, table 1 (CapsNet-NoR)"
    ),
    "aff-capsnet-40": Entry(
        replace(AFFINE, routing=AVERAGE, shared=True), "margin", 7_578_688, "Gu et al. 2021, table 1 (Aff-CapsNet)"
    ),
    "aff-capsnet-dr-40": Entry(
        replace(AFFINE, shared=True), "margin", 7_578_688, "Gu et al. 2021, table 1 (Aff-CapsNet-DR)"
    ),
    "deep-rba-40": Entry(DEEP, "margin", 2_554_016, "Mitterreiter et al. 2023, tables 1 and 2"),
    "rem-28": Entry(REM, "margin", 6_804_384, "Renzulli et al. 2022, MNIST and Fashion-MNIST"),
    "rem-24": Entry(
        replace(REM, channels=3, size=24, stem=StridedStem(types=64)),
        "margin",
        11_990_688,
        "Renzulli et al. 2022, CIFAR-10",
    ),
    "rem-40": Entry(replace(REM, size=40), "margin", 11_228_064, "Renzulli et al. 2022, affNIST"),
    "efficient-capsnet": Entry(EFFICIENT, "margin", 1_573_168, "Mazzia et al. 2021, MNIST, with its generator"),
    "efficient-capsnet-no-decoder": Entry(
        replace(EFFICIENT, decoder="none"), "margin", 161_824, "Mazzia et al. 2021, MNIST (printed 161K)"
    ),
    "em-12": Entry(
        MatrixCapsNetConfig(),
        "spread",
        1_457_792,
        "Tawalbeh & Oramas 2024, CapsNetEM (12 units per layer, Sabour's decoder)",
    ),
    "em-12-cancelled": Entry(
        CANCELLED,
        "spread",
        1_457_792,
        "Tawalbeh & Oramas 2024, CapsNetEM as its released code routes (a child's activation cancels)",
    ),
    "em-16": Entry(
        HINTON_SMALL,
        "spread",
        68_444,
        "Hinton et al. 2018, the small network (A = 64, B = 8, C = D = 16), for 10 classes",
    ),
    "em-32": Entry(
        HINTON,
        "spread",
        318_964,
        "Hinton et al. 2018 (A = B = C = D = 32; printed 310K for 5 classes), for 10 classes",
    ),
    "rescaps": Entry(
        ResCapsConfig(),
        "spread",
        26_632_244,
        "Liu et al. 2024 (ResCaps, by its released code), with Sabour's decoder",
    ),
    "convnet-fc-28": Entry(
        ConvNetFCConfig(padding="same"), "cross-entropy", 35_445_522, "Sabour et al. 2017, the MNIST baseline"
    ),
    "convnet-fc-40": Entry(
        ConvNetFCConfig(size=40), "cross-entropy", 35_445_522, "Gu et al. 2021, table 1 (ConvNet-FC)"
    ),
    "convnet-fc-lk-36": Entry(
        LARGE_KERNEL,
        "bce",
        11_359_274,
        "Gu et al. 2021, sec. 3.2 (ConvNet-FC(LK); widths ours: 328 to 192 shrunk to CapsNet's 11,361,808)",
    ),
    "convnet-avg-40": Entry(
        ConvNetAvgConfig(size=40), "cross-entropy", 5_332_234, "Gu et al. 2021, table 1 (ConvNet-Avg)"
    ),
    "convnet-r": Entry(
        ConvNetRConfig(head="linear", decoder="plain"),
        "cross-entropy",
        8_217_178,
        "Gu et al. 2021, sec. 3.3 (ConvNet-R)",
    ),
    "convnet-cr": Entry(ConvNetRConfig(head="sum"), "bce", 8_215_568, "Gu et al. 2021, sec. 3.3 (ConvNet-CR)"),
    "convnet-cr-sf": Entry(ConvNetRConfig(), "margin", 8_215_568, "Gu et al. 2021, sec. 3.3 (ConvNet-CR-SF)"),
    "lin-36": Entry(FOUR_LAYERS, "margin", 11_924_224, "Lin et al. 2018, sec. 3.1 (CapsNet; sizes ours)"),
    "lin-cnn-36": Entry(
        neuron_twin(FOUR_LAYERS), "bce", 11_886_090, "Lin et al. 2018, sec. 3.1 (standard CNN; sizes ours)"
    ),
    "lin-transfer-36": Entry(
        FIVE_LAYERS, "margin", 11_989_760, "Lin et al. 2018, sec. 3.3 (CapsNet with one more layer; sizes ours)"
    ),
    "lin-transfer-cnn-36": Entry(
        neuron_twin(FIVE_LAYERS),
        "bce",
        11_951_882,
        "Lin et al. 2018, sec. 3.3 (standard CNN with one more layer; sizes ours)",
    ),
}
