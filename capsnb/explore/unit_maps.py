"""Heatmaps of single capsules as fast as a finger moves: each capsule's once, from its own patch of the image alone."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import torch
from torch import Tensor, nn

from capsnb.explore.rerouting import Field, field
from capsnb.measure.overlap import POOLS, Heatmaps, normalise, unit_heatmaps
from capsnb.measure.paths import Places
from capsnb.nn import taps
from capsnb.nn.layers import PrimaryCapsules, RoutedCapsules, full, length
from capsnb.nn.models import as_pixels
from capsnb.nn.routing import Dynamic

POOL = "max"  # the default of `measure.overlap`


class UnitMaps:
    """Heatmaps of the capsules of one picture, each propagated alone: `measure.overlap.unit_heatmaps`, when asked for.

    image: (C, H, W) uint8. behind: edits of the model, under which the maps are made.
    """

    def __init__(self, model: nn.Module, image: Tensor, places: Places, behind: dict[str, taps.Edit]) -> None:
        self.model, self.image, self.places, self.behind = model, image, places, behind
        self._patch = patch(model, places)
        self.quick = self._patch is not None  # some 0.3 ms each, where others take two passes through all the network
        self._known: dict[int, Tensor] = {}

    def missing(self, units: Sequence[int]) -> list[int]:
        """Those of the units that have no map yet."""
        return [unit for unit in units if unit not in self._known]

    def make(self, units: Sequence[int], seconds: float = 0.0) -> None:
        """Make maps that are missing, a few at a time, until there are all or the time is over; a few at least."""
        end, missing = perf_counter() + seconds, self.missing(units)
        few = 32 if self.quick else 16  # 10 ms of a core in a small network, or 30
        while missing:
            some, missing = missing[:few], missing[few:]
            self._known.update(zip(some, self._maps(some), strict=True))
            if perf_counter() >= end:
                return

    def known(self, units: Sequence[int]) -> tuple[list[int], Tensor]:
        """Those of the units that have a map, and their maps as they are, (k, H, W)."""
        have = [unit for unit in units if unit in self._known]
        size = self.image.shape[1:]
        return have, torch.stack([self._known[unit] for unit in have]) if have else torch.zeros(0, *size)

    def _maps(self, units: list[int]) -> Tensor:
        chosen, images = torch.tensor(units), self.image[None]
        with taps.evaluating(self.model, gradients=True), taps.edit(self.model, self.behind):
            if self._patch is not None:
                return local_heatmaps(self.model, images, chosen, self._patch).cpu()
            # a copy of the picture for each: one pass down the convolutions in place of one per capsule
            copies = images.expand(len(units), -1, -1, -1)
            return unit_heatmaps(self.model, copies, chosen[:, None], pool=POOL, places=self.places).maps[:, 0].cpu()


def shares(units: Sequence[int], maps: Tensor) -> Tensor:
    """Maps (k, H, W) between 0 and 1, each by its own least and largest value."""
    if not len(maps):
        return maps
    chosen = torch.tensor(units)[None]
    return normalise(Heatmaps(maps[None], chosen, chosen)).maps[0]


def patch(model: nn.Module, places: Places) -> Field | None:
    """What primary capsules see, where a heatmap needs no more: convolutions without padding, and one layer above them
    that answers with one child as it does when the others are silent. None elsewhere."""
    layer, primary = model.get_submodule(places.layer), getattr(model, "primary", None)
    if places.units != "primary" or not isinstance(primary, PrimaryCapsules) or not isinstance(layer, RoutedCapsules):
        return None
    if not isinstance(layer.routing, Dynamic) or layer.prior is not None or layer.residual or len(layer.weight) == 1:
        return None
    where = field(model)
    return where if where is not None and where.start == (where.size - 1) / 2 else None


def local_heatmaps(model: nn.Module, images: Tensor, units: Tensor, where: Field) -> Tensor:
    """`unit_heatmaps` of one image (1, C, H, W), computed on what each unit (k,) sees: the same maps, (k, H, W).

    A unit's row of the batch is its patch, on which the convolutions have one position; one pass down serves all rows.
    """
    device = next(model.parameters()).device
    pixels = as_pixels(images.to(device), model.image_shape)[0]
    units = units.to(device)
    primary, layer = model.primary, model.get_submodule("class")
    _, columns, types = primary.grid
    position, kind = units // types, units % types
    top, left = (where.step * each for each in (position // columns, position % columns))
    span, rows = torch.arange(where.size, device=device), torch.arange(len(units), device=device)
    down, across = (top[:, None] + span)[:, :, None], (left[:, None] + span)[:, None, :]
    seen = pixels[:, down, across].transpose(0, 1).detach().clone().requires_grad_()  # (k, C, size, size)
    maps = seen
    for name in model.stages:
        maps = model.get_submodule(name)(maps)
    poses = primary.squash(full(primary.conv(maps)).view(len(units), types, -1))[rows, kind].to(layer.weight.dtype)
    votes = torch.einsum("kp,kpjd->kjd", poses, layer.weight[units].detach()).unsqueeze(1)
    best = length(layer.combine(layer.routing(votes, layer.combine), votes)).amax(1)
    (gradient,) = torch.autograd.grad(best.sum(), seen)
    canvas = gradient.new_zeros(len(units), *pixels.shape[1:])
    canvas[rows[:, None, None], down, across] = POOLS[POOL](gradient)
    return canvas
