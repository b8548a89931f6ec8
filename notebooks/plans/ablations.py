"""The ablations of Gu, Tresp & Hu 2021 at any scale: every row of their tables as a configuration and its loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from capsnb.nn.models import count_parameters
from capsnb.nn.models.capsnet import CapsNetConfig
from capsnb.nn.models.convnets import ConvNetAvgConfig, ConvNetFCConfig, ConvNetRConfig
from capsnb.nn.models.stems import StridedStem
from capsnb.nn.routing import Uniform

AVERAGE = Uniform(value="1/I")  # "NoR": the average of the votes, in the paper's words
KERNELS = (3, 5, 7, 9, 11)
SIX = ("convnet-fc", "capsnet", "capsnet-nor", "aff-capsnet-dr", "aff-capsnet", "convnet-avg")  # of Table 1
# init_scale with which Aff-CapsNet, cut into other groups, starts from vote sums as long as its own: longer primary
# poses have longer sums. Found by trial on untrained networks, of the grids' width and of the paper's.
STARTS = {"quarter": 0.33, "half": 0.42, "twice": 0.7}
Models = dict[str, tuple[Any, str]]  # variant -> (configuration, loss)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Every size of the models and images of a profile. The defaults are the paper's.

    Halved geometry (digits of 14 px, kernels of 5 for 9 and 3 for 5) keeps every feature map's share of the image.
    """

    side: int = 28  # of a digit
    canvas: int = 40  # of the affine task
    pair_canvas: int = 36  # of the overlapping digits
    width: int = 256  # channels of the convolutions
    dim: int = 8  # of a primary capsule; there are width / dim types
    kernel: int = 9
    fc_kernel: int = 5
    fc_widths: tuple[int, ...] = (256, 256, 128)
    hidden: tuple[int, ...] = (328, 192)
    decoder: tuple[int, ...] = (512, 1024)

    def capsnet(self, size: int, *, kernel: int | None = None, **changes: Any) -> CapsNetConfig:
        """CapsNet at this scale."""
        stem = StridedStem(
            channels=self.width, kernel=kernel or self.kernel, types=self.width // self.dim, dim=self.dim
        )
        return replace(CapsNetConfig(size=size, stem=stem, decoder_widths=self.decoder), **changes)

    def average(self, size: int, *, kernel: int | None = None) -> ConvNetAvgConfig:
        """ConvNet-Avg at this scale."""
        return ConvNetAvgConfig(size=size, width=self.width, kernel=kernel or self.kernel)

    def dense(self, size: int, *, kernel: int | None = None) -> ConvNetFCConfig:
        """ConvNet-FC at this scale."""
        kernel = kernel or self.fc_kernel
        return ConvNetFCConfig(size=size, widths=self.fc_widths, kernel=kernel, hidden=self.hidden)

    def rival(self, kernel: int | None = None) -> ConvNetFCConfig:
        """ConvNet-FC(LK) on overlapping digits, its hidden layers the widest with which it is no larger than CapsNet
        with the same kernel. The paper reduces them, too, and does not say to what; ours keep their ratio."""
        kernel, (first, second) = kernel or self.kernel, self.hidden
        most = count_parameters(self.capsnet(self.pair_canvas, kernel=kernel))
        convolved = ConvNetFCConfig(size=self.pair_canvas, widths=self.fc_widths, kernel=kernel, hidden=(1,))
        places = self.fc_widths[-1] * (self.pair_canvas - len(self.fc_widths) * (kernel - 1)) ** 2
        rest = count_parameters(convolved) - (places + 1) - 20  # the convolutions alone: one hidden unit, ten classes
        chosen = (1, 1)
        for units in range(1, 8 * first):
            following = max(1, units * second // first)
            sizes = (places, units, following, 10)
            if rest + sum((a + 1) * b for a, b in pairwise(sizes)) > most:
                break
            chosen = (units, following)
        return replace(convolved, hidden=chosen)

    def decoded(self, size: int, head: str, **changes: Any) -> ConvNetRConfig:
        """ConvNet-R, -CR or -CR-SF at this scale, by its head."""
        decoder = "plain" if head == "linear" else "conditional"
        config = ConvNetRConfig(size=size, width=self.width, kernel=self.kernel, primary_dim=self.dim, head=head)
        return replace(config, decoder=decoder, decoder_widths=self.decoder, **changes)


PAPER = Scale()


def affine_models(scale: Scale) -> Models:
    """Tables 1 and 2: variant -> (model, loss). Two rows of Table 2 are models of Table 1 under their own name."""
    aff = scale.capsnet(scale.canvas, routing=AVERAGE, shared=True)
    capsnet = scale.capsnet(scale.canvas)
    return {
        "convnet-fc": (scale.dense(scale.canvas), "cross-entropy"),
        "capsnet": (capsnet, "margin"),
        "capsnet-nor": (replace(capsnet, routing=AVERAGE), "margin"),
        "aff-capsnet-dr": (replace(capsnet, shared=True), "margin"),
        "aff-capsnet": (aff, "margin"),
        "convnet-avg": (scale.average(scale.canvas), "cross-entropy"),
        "no-squash": (replace(aff, squash="none"), "margin"),
        "normal-reconstruction": (replace(aff, decoder="plain"), "margin"),
        "no-reconstruction": (replace(aff, decoder="none"), "margin"),
        "cross-entropy": (aff, "cross-entropy"),  # the lengths are its logits
        "cross-entropy-shares": (aff, "length-cross-entropy"),  # or shares of a whole
    }


def overlap_models(scale: Scale) -> Models:
    """Table 4 and its text: variant -> (model, loss)."""
    capsnet = scale.capsnet(scale.pair_canvas)
    return {
        "capsnet": (capsnet, "margin"),
        "no-routing": (replace(capsnet, routing=AVERAGE), "margin"),
        "shared-transform": (replace(capsnet, shared=True), "margin"),
        "no-squash": (replace(capsnet, squash="none"), "margin"),
        "normal-reconstruction": (replace(capsnet, decoder="plain"), "margin"),
        "no-reconstruction": (replace(capsnet, decoder="none"), "margin"),
        "binary-cross-entropy": (capsnet, "length-bce"),
        "convnet-avg": (scale.average(scale.pair_canvas), "bce"),
        "convnet-fc-lk": (scale.rival(), "bce"),
    }


def rival_models(scale: Scale, kernels: dict[int, int]) -> Models:
    """Supplement B: CapsNet and ConvNet-FC(LK) on overlapping digits; kernels: the paper's -> the one at this scale."""
    models = {}
    for name, kernel in kernels.items():
        models[f"capsnet-k{name}"] = (scale.capsnet(scale.pair_canvas, kernel=kernel), "margin")
        models[f"convnet-fc-lk-k{name}"] = (scale.rival(kernel), "bce")
    return models


def semantic_models(scale: Scale, **changes: Any) -> Models:
    """Table 5: variant -> (model, loss)."""
    return {
        "convnet-r": (scale.decoded(scale.side, "linear", **changes), "cross-entropy"),
        "convnet-cr": (scale.decoded(scale.side, "sum", **changes), "bce"),
        "convnet-cr-sf": (scale.decoded(scale.side, "length", **changes), "margin"),
        "capsnet": (scale.capsnet(scale.side, **changes), "margin"),
    }


def kernel_models(scale: Scale, kernels: tuple[int, ...] = KERNELS, *, own: bool = False) -> Models:
    """Table 3: variant -> (model, loss), for the kernels that the models of Table 1 do not have; own: for all."""
    models = {}
    for kernel in kernels:
        if own or kernel != scale.kernel:
            models[f"capsnet-k{kernel}"] = (scale.capsnet(scale.canvas, kernel=kernel), "margin")
            models[f"convnet-avg-k{kernel}"] = (scale.average(scale.canvas, kernel=kernel), "cross-entropy")
        if (own or kernel != scale.fc_kernel) and kernel <= 7:
            models[f"convnet-fc-k{kernel}"] = (scale.dense(scale.canvas, kernel=kernel), "cross-entropy")
    return models


def group_models(scale: Scale, *, own: bool = False) -> Models:
    """Supplement A: Aff-CapsNet with its channels cut into other numbers of groups; own: also into the usual number."""
    aff = scale.capsnet(scale.canvas, routing=AVERAGE, shared=True)
    usual = scale.width // scale.dim
    counts = {"quarter": usual // 4, "half": usual // 2, "twice": 2 * usual} | ({"own": usual} if own else {})
    stems = {name: replace(aff.stem, types=types, dim=scale.width // types) for name, types in counts.items()}
    starts = STARTS | {"own": aff.init_scale}
    return {
        f"{name}-groups": (replace(aff, stem=stem, init_scale=starts[name]), "margin") for name, stem in stems.items()
    }


def uniform_models(scale: Scale) -> Models:
    """Ours: Aff-CapsNet with the other values of its uniform coupling."""
    aff = scale.capsnet(scale.canvas, routing=AVERAGE, shared=True)
    return {f"coupling-{value}": (replace(aff, routing=Uniform(value=value)), "margin") for value in ("1/J", "1")}
