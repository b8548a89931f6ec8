"""Heatmaps by other methods than the plain gradient: Grad-CAM (Selvaraju et al. 2017), which Tawalbeh & Oramas 2024
name as their future work, and SmoothGrad (Smilkov et al. 2017), which is ours; both by captum.

The plain gradient is sparse, and relevance mass accuracy favours smooth maps: these two are smooth.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from capsnb.measure.overlap import Heatmaps
from capsnb.measure.path_accuracy import undecoded
from capsnb.measure.paths import Places
from capsnb.nn import taps
from capsnb.nn.models import as_pixels, scores_of


def gradcam(
    model: nn.Module, images: Tensor, *, units: Tensor | None = None, layer: str | None = None, rows: int = 256
) -> Heatmaps:
    """Grad-CAM of each image's predicted class at a convolution's map, enlarged to the image.

    units (B, k): of the predictions made when each unit alone is propagated, as `overlap.unit_heatmaps` does with the
    plain gradient; None: of the whole network. layer: the last convolution before the capsules when None.
    """
    from captum.attr import LayerAttribution, LayerGradCam

    def attribute(forward: Callable[[Tensor], Tensor], pixels: Tensor, target: Tensor) -> Tensor:
        cam = LayerGradCam(forward, model.get_submodule(layer or Places.of(model).filters))
        maps = cam.attribute(pixels, target=target, relu_attributions=True)
        return LayerAttribution.interpolate(maps, tuple(pixels.shape[2:]), interpolate_mode="bilinear")[:, 0]

    return _attributed(model, images, units, attribute, rows)


def smoothgrad(
    model: nn.Module,
    images: Tensor,
    *,
    units: Tensor | None = None,
    samples: int = 25,
    noise: float = 0.15,
    seed: int = 0,
    rows: int = 256,
) -> Heatmaps:
    """Mean of the absolute gradients at noisy copies of the image, largest channel; arguments as `gradcam`'s.

    noise: standard deviation, of pixels in [0, 1]. samples: copies of each image.
    """
    from captum.attr import NoiseTunnel, Saliency

    def attribute(forward: Callable[[Tensor], Tensor], pixels: Tensor, target: Tensor) -> Tensor:
        tunnel = NoiseTunnel(Saliency(forward))
        with torch.random.fork_rng(devices=[pixels.device] if pixels.is_cuda else []):
            torch.manual_seed(seed)
            options = {"nt_type": "smoothgrad", "nt_samples": samples, "nt_samples_batch_size": max(1, rows // 8)}
            return tunnel.attribute(pixels, stdevs=noise, target=target, **options).amax(1)

    return _attributed(model, images, units, attribute, max(1, rows // 8))


def _attributed(model: Any, images: Tensor, units: Tensor | None, attribute: Callable, rows: int) -> Heatmaps:
    """Maps of all images, or of all pairs of an image and one of its units, `rows` of them at a time."""
    device = next(model.parameters()).device
    pixels = as_pixels(images.to(device), model.image_shape).detach()
    owner = torch.arange(len(pixels), device=device)
    if units is not None:
        owner = owner.repeat_interleave(units.shape[1])
    found, guesses = [], []

    forward = scores_of(model)
    with taps.evaluating(model, gradients=True), undecoded(model):
        for part in torch.arange(len(owner), device=device).split(rows):
            some = pixels[owner[part]].requires_grad_()
            with nullcontext() if units is None else _alone(model, units.to(device).flatten()[part]):
                with torch.no_grad():
                    target = forward(some).argmax(1)
                found.append(attribute(forward, some, target).detach())
                guesses.append(target)
    maps, predicted = torch.cat(found), torch.cat(guesses)
    if units is None:
        return Heatmaps(maps, predicted, predicted)
    shape = tuple(units.shape)
    return Heatmaps(maps.unflatten(0, shape), predicted.view(shape), units.to(device))


def _alone(model: nn.Module, units: Tensor) -> AbstractContextManager[None]:
    """Only one unit of each row is left; captum's noisy copies of a row stand one after another."""
    places = Places.of(model)

    def only(tensor: Tensor) -> Tensor:
        mask = nn.functional.one_hot(units, tensor.shape[1]).repeat_interleave(len(tensor) // len(units), 0)
        return taps.keep(mask)(tensor)

    return taps.edit(model, dict.fromkeys(places.taps(model), only))
