"""The accuracy of a path, a few images at a time, so that whoever moves a slider never waits for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from capsnb.explore.path_network import PathNetwork
from capsnb.measure.path_accuracy import path_accuracy
from capsnb.measure.paths import Reading

IMAGES = 200  # that are counted, evenly spaced over a split
STEP = 10  # of them at once: about as long as a picture takes


class RunningAccuracy:
    """How many of a sample's images a path names right, class by class, beside the whole network on the same images.

    filters, units: how many are kept, None for all. known: what the whole network names right, by step; filled here,
    and kept by the caller as long as network and sample stay.
    """

    def __init__(
        self,
        network: PathNetwork,
        sample: Any,
        reading: Reading,
        known: dict[int, Tensor],
        *,
        filters: int | None,
        units: int | None,
    ) -> None:
        self.network, self.sample, self.reading, self.known = network, sample, reading, known
        self.filters, self.units = filters, units
        self._parts = torch.arange(len(sample), device=sample.labels.device).split(STEP)
        self._next = 0
        self._right = torch.zeros(3, network.classes, dtype=torch.float64)  # of the path, of the whole, there are

    def step(self) -> None:
        """Count some more images."""
        part = self.sample.select(self._parts[self._next])
        count = part.labels.cpu().bincount(minlength=self._right.shape[1]).double()
        if self._next not in self.known:
            self.known[self._next] = self._hits(part, None, None) * count
        path = self._hits(part, self.filters, self.units) * count
        self._right += torch.stack([path, self.known[self._next], count])
        self._next += 1

    @property
    def done(self) -> bool:
        """Whether all images are counted."""
        return self._next == len(self._parts)

    @property
    def images(self) -> int:
        """How many are counted."""
        return int(self._right[2].sum())

    @property
    def accuracy(self) -> tuple[float, float]:
        """Of the path and of the whole network, on the images counted so far; nan before the first one."""
        path, whole, count = self._right.sum(1)
        return float(path / count), float(whole / count)

    @property
    def by_class(self) -> tuple[Tensor, Tensor]:
        """The same, (K,) each; nan for classes without an image so far."""
        return self._right[0] / self._right[2], self._right[1] / self._right[2]

    def _hits(self, part: Any, filters: int | None, units: int | None) -> Tensor:
        net = self.network
        lists = {"filters": [filters], "units": [units], "places": net.places}
        return path_accuracy(net.model, part, net.ranking(self.reading), self.reading, **lists).by_class[0, 0]
