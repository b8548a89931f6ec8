"""Heatmaps by another method than the plain gradient: Grad-CAM (Selvaraju et al. 2017), by captum.

Tawalbeh & Oramas 2024 name it as their future work. The plain gradient is sparse, and relevance mass accuracy favours
smooth maps: these are smooth.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from capsnb.measure.overlap import Heatmaps
from capsnb.measure.path_accuracy import undecoded
from capsnb.measure.paths import Places
from capsnb.nn import taps
from capsnb.nn.models import as_pixels, scores_of


def gradcam(model: Any, images: Tensor, *, units: Tensor | None = None, rows: int = 256) -> Heatmaps:
    """Grad-CAM of each image's predicted class at the map of the last convolution before the capsules, enlarged.

    units (B, k): of the predictions made when each unit alone is propagated, as `overlap.unit_heatmaps` does with the
    plain gradient; None: of the whole network. rows: images, or pairs of an image and a unit, at a time.
    """
    from captum.attr import LayerAttribution, LayerGradCam

    device, places, forward = next(model.parameters()).device, Places.of(model), scores_of(model)
    pixels = as_pixels(images.to(device), model.image_shape).detach()
    owner, taken = torch.arange(len(pixels), device=device), places.taps(model)
    if units is not None:
        units = units.to(device)
        owner = owner.repeat_interleave(units.shape[1])
    found, guesses = [], []
    with taps.evaluating(model, gradients=True), undecoded(model):
        cam = LayerGradCam(forward, model.get_submodule(places.filters))
        for part in torch.arange(len(owner), device=device).split(rows):
            some = pixels[owner[part]].requires_grad_()
            with taps.edit(model, {} if units is None else dict.fromkeys(taken, _alone(units.flatten()[part]))):
                with torch.no_grad():
                    target = forward(some).argmax(1)
                maps = cam.attribute(some, target=target, relu_attributions=True)
            maps = LayerAttribution.interpolate(maps, tuple(some.shape[2:]), interpolate_mode="bilinear")
            found.append(maps[:, 0].detach())
            guesses.append(target)
    maps, predicted = torch.cat(found), torch.cat(guesses)
    if units is None:
        return Heatmaps(maps, predicted, predicted)
    return Heatmaps(maps.unflatten(0, units.shape), predicted.view(units.shape), units)


def _alone(units: Tensor) -> taps.Edit:
    """Only one unit of each row is left, (B,)."""
    return lambda tensor: taps.keep(nn.functional.one_hot(units, tensor.shape[1]))(tensor)
