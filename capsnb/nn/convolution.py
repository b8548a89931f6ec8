"""The convolution that models use: torch's own, or the fast one by a fixed rule on shapes, dtype and device."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from capsnb.nn.fast import switched_off, toom_cook

TRANSFORM = 100  # a transform is bound by memory: a number of it costs what this many multiplications of a GEMM do
MARGIN = 1.8  # how many times fewer multiplications pay: torch's own way is more efficient in small layers


def pays(
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    stride: int,
    dtype: torch.dtype,
    device: torch.device | str,
    *,
    enabled: bool = True,
) -> bool:
    """Whether `toom_cook.conv2d` is clearly faster; by shapes, dtype and device alone: a resumed run decides alike.

    Compares multiplications, where a number that is transformed counts as many as TRANSFORM. Only float32 on a CPU;
    `enabled=False` and the environment's CAPSNB_FASTCONV=0 or CAPSNB_FAST=0 say no.
    """
    if not enabled or switched_off() or os.environ.get("CAPSNB_FASTCONV") == "0":
        return False
    if dtype != torch.float32 or torch.device(device).type != "cpu" or len(x_shape) != 4:
        return False
    images, (outputs, inputs) = x_shape[0], weight_shape[:2]
    direct, points, tiles = images * outputs * inputs, 1, images
    for size, kernel in zip(x_shape[2:], weight_shape[2:], strict=True):
        if size < kernel:
            return False
        out, taps = (size - kernel) // stride + 1, -(-kernel // stride)
        m = toom_cook.tile_outputs(out, taps)
        direct *= out * kernel
        points *= m + taps - 1
        tiles *= -(-out // m)
    channels = inputs * min(stride, weight_shape[2]) * min(stride, weight_shape[3])
    transformed = tiles * channels + outputs * channels + tiles * outputs
    return direct > MARGIN * points * (tiles * channels * outputs + TRANSFORM * transformed)


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d`, with the same parameters, that takes `toom_cook.conv2d` where it pays unless `fast` is False.

    The weight lies in channels_last memory, which both ways read fastest, and so does the output, even that of a layer
    with one input channel: torch is faster so, and what follows need not reorder it.
    """

    def __init__(self, *args: Any, fast: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fast = fast
        self.weight = nn.Parameter(self.weight.detach().clone(memory_format=torch.channels_last))

    def forward(self, x: Tensor) -> Tensor:
        square, padded = self.stride[0] == self.stride[1], self.padding not in ((0, 0), "valid")
        simple = square and not padded and self.groups == 1 and self.dilation == (1, 1)
        if simple and pays(x.shape, self.weight.shape, self.stride[0], x.dtype, x.device, enabled=self.fast):
            return toom_cook.conv2d(x, self.weight, self.bias, self.stride[0])
        return super().forward(x)
