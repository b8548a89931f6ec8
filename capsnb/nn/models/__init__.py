"""The models of the papers as configurations: `ZOO[name].config.build()` makes one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from capsnb.nn.models.capsnet import CapsNet, CapsNetConfig, Output, as_pixels, decode, make_decoder
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
    "NeuronNetConfig",
    "Output",
    "ResCaps",
    "ResCapsConfig",
    "StridedStem",
    "as_pixels",
    "count_parameters",
    "decode",
    "make_decoder",
]


@dataclass(frozen=True, kw_only=True)
class Entry:
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
# paper 3's released code: a routing that is not differentiated, a bias before the squash, Sabour's start
REM = CapsNetConfig(decoder="none", routing=Dynamic(gradient="last"), bias=0.1, init="normal")
# as Sabour's network, so that all is alike but stem and routing; its own recipe differs (Adam 5e-4 times 0.97 an epoch)
EFFICIENT = CapsNetConfig(
    stem=DepthwiseStem(widths=(32, 64, 64), pointwise=False), routing=SelfAttention(), squash="exponential"
)
# a 28x28 image padded by 2 has the maps of Hinton et al.'s 32x32 without padding: 14x14, 6x6, 4x4
HINTON = MatrixCapsNetConfig(width=32, batch_norm=False, types=32, layers=((32, 3, 2), (32, 3, 1)), decoder="none")

ZOO: dict[str, Entry] = {
    "capsnet": Entry(
        config=CapsNetConfig(), loss="margin", parameters=8_215_568, paper="Sabour et al. 2017, figs. 1 and 2"
    ),
    "capsnet-no-decoder": Entry(
        config=CapsNetConfig(decoder="none"), loss="margin", parameters=6_804_224, paper="Sabour et al. 2017, fig. 1"
    ),
    "capsnet-36": Entry(
        config=CapsNetConfig(size=36), loss="margin", parameters=11_361_808, paper="Sabour et al. 2017, MultiMNIST"
    ),
    "capsnet-40": Entry(
        config=CapsNetConfig(size=40), loss="margin", parameters=13_475_648, paper="Gu et al. 2021, table 1"
    ),
    "capsnet-nor-40": Entry(
        config=CapsNetConfig(size=40, routing=AVERAGE),
        loss="margin",
        parameters=13_475_648,
        paper="Gu et al. 2021, table 1 (CapsNet-NoR)",
    ),
    "aff-capsnet-40": Entry(
        config=CapsNetConfig(size=40, routing=AVERAGE, shared=True),
        loss="margin",
        parameters=7_578_688,
        paper="Gu et al. 2021, table 1 (Aff-CapsNet)",
    ),
    "aff-capsnet-dr-40": Entry(
        config=CapsNetConfig(size=40, shared=True),
        loss="margin",
        parameters=7_578_688,
        paper="Gu et al. 2021, table 1 (Aff-CapsNet-DR)",
    ),
    "deep-rba-40": Entry(
        config=CapsNetConfig(
            size=40,
            stem=DepthwiseStem(),
            hidden=((16, 8), (16, 8), (16, 8)),
            dim=8,
            routing=Dynamic(learned_prior=True),
            squash="exponential",
            init_scale=0.25,
        ),
        loss="margin",
        parameters=2_554_016,
        paper="Mitterreiter et al. 2023, tables 1 and 2",
    ),
    "rem-28": Entry(
        config=REM, loss="margin", parameters=6_804_384, paper="Renzulli et al. 2022, MNIST and Fashion-MNIST"
    ),
    "rem-24": Entry(
        config=replace(REM, channels=3, size=24, stem=StridedStem(types=64)),
        loss="margin",
        parameters=11_990_688,
        paper="Renzulli et al. 2022, CIFAR-10",
    ),
    "rem-40": Entry(
        config=replace(REM, size=40), loss="margin", parameters=11_228_064, paper="Renzulli et al. 2022, affNIST"
    ),
    "efficient-capsnet": Entry(
        config=EFFICIENT, loss="margin", parameters=1_573_168, paper="Mazzia et al. 2021, MNIST, with its generator"
    ),
    "efficient-capsnet-no-decoder": Entry(
        config=replace(EFFICIENT, decoder="none"),
        loss="margin",
        parameters=161_824,
        paper="Mazzia et al. 2021, MNIST (printed 161K)",
    ),
    "em-12": Entry(
        config=MatrixCapsNetConfig(),
        loss="spread",
        parameters=1_457_792,
        paper="Tawalbeh & Oramas 2024, CapsNetEM (12 units per layer, Sabour's decoder)",
    ),
    "em-16": Entry(
        config=replace(HINTON, width=64, types=8, layers=((16, 3, 2), (16, 3, 1))),
        loss="spread",
        parameters=68_444,
        paper="Hinton et al. 2018, the small network (A = 64, B = 8, C = D = 16), for 10 classes",
    ),
    "em-32": Entry(
        config=HINTON,
        loss="spread",
        parameters=318_964,
        paper="Hinton et al. 2018 (A = B = C = D = 32; printed 310K for 5 classes), for 10 classes",
    ),
    "rescaps": Entry(
        config=ResCapsConfig(),
        loss="spread",
        parameters=26_632_244,
        paper="Liu et al. 2024 (ResCaps, by its released code), with Sabour's decoder",
    ),
    "convnet-fc-28": Entry(
        config=ConvNetFCConfig(padding="same"),
        loss="cross-entropy",
        parameters=35_445_522,
        paper="Sabour et al. 2017, the MNIST baseline",
    ),
    "convnet-fc-40": Entry(
        config=ConvNetFCConfig(size=40),
        loss="cross-entropy",
        parameters=35_445_522,
        paper="Gu et al. 2021, table 1 (ConvNet-FC)",
    ),
    "convnet-fc-lk-36": Entry(
        config=ConvNetFCConfig(size=36, kernel=9, hidden=(182, 106)),
        loss="bce",
        parameters=11_359_274,
        paper="Gu et al. 2021, sec. 3.2 (ConvNet-FC(LK); widths ours: 328 to 192 shrunk to CapsNet's 11,361,808)",
    ),
    "convnet-avg-40": Entry(
        config=ConvNetAvgConfig(size=40),
        loss="cross-entropy",
        parameters=5_332_234,
        paper="Gu et al. 2021, table 1 (ConvNet-Avg)",
    ),
    "convnet-r": Entry(
        config=ConvNetRConfig(head="linear", decoder="plain"),
        loss="cross-entropy",
        parameters=8_217_178,
        paper="Gu et al. 2021, sec. 3.3 (ConvNet-R)",
    ),
    "convnet-cr": Entry(
        config=ConvNetRConfig(head="sum"),
        loss="bce",
        parameters=8_215_568,
        paper="Gu et al. 2021, sec. 3.3 (ConvNet-CR)",
    ),
    "convnet-cr-sf": Entry(
        config=ConvNetRConfig(),
        loss="margin",
        parameters=8_215_568,
        paper="Gu et al. 2021, sec. 3.3 (ConvNet-CR-SF)",
    ),
    "lin-36": Entry(
        config=FOUR_LAYERS,
        loss="margin",
        parameters=11_924_224,
        paper="Lin et al. 2018, sec. 3.1 (CapsNet; sizes ours)",
    ),
    "lin-cnn-36": Entry(
        config=neuron_twin(FOUR_LAYERS),
        loss="bce",
        parameters=11_886_090,
        paper="Lin et al. 2018, sec. 3.1 (standard CNN; sizes ours)",
    ),
    "lin-transfer-36": Entry(
        config=FIVE_LAYERS,
        loss="margin",
        parameters=11_989_760,
        paper="Lin et al. 2018, sec. 3.3 (CapsNet with one more layer; sizes ours)",
    ),
    "lin-transfer-cnn-36": Entry(
        config=neuron_twin(FIVE_LAYERS),
        loss="bce",
        parameters=11_951_882,
        paper="Lin et al. 2018, sec. 3.3 (standard CNN with one more layer; sizes ours)",
    ),
}
