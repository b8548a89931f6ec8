"""What is left of a network for one picture when only its most relevant filters and capsules are kept."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from capsnb.explore.ranges import IMAGES
from capsnb.explore.subjects import Subject, sample
from capsnb.explore.unit_maps import UnitMaps
from capsnb.measure.paths import Places, Ranking, Reading, look, rank, top
from capsnb.nn import taps
from capsnb.nn.models import Output

UNCOUPLED = ("activation", "random")  # what ranks capsules without a coupling


class Whole(NamedTuple):
    """One picture seen by all of the network, and how relevant its parts are to it."""

    image: Tensor  # (1, C, H, W) uint8
    output: Output
    predicted: Tensor  # (1,)
    filters: Tensor  # (1, C) relevance
    units: Tensor  # (1, U)


class PathNetwork:
    """A model's filters and capsules, ranked by `measure.paths`; a ranking is made once, on validation images.

    places: where the path runs. counts: how many "filters" and "units" there are. Raises ValueError for a model that
    has no capsules between filters and classes.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject, self.model = subject, subject.model
        self.device = next(self.model.parameters()).device
        if not all(isinstance(getattr(self.model, name, None), list | tuple) for name in ("stages", "layers")):
            raise ValueError(f"{subject.name} has no capsule layers for a path to run through.")
        self.places = Places.of(self.model)
        self._rankings: dict[Reading, Ranking] = {}
        self._last: tuple[Reading, Whole] | None = None
        self._maps: tuple[Tensor, UnitMaps] | None = None
        wanted = {"filters": self.places.filters, "units": self.places.taps(self.model)[-1]}
        missing = [name for name in wanted.values() if name not in taps.names(self.model)]
        if missing:
            raise ValueError(f"{subject.name} has no tap {missing[0]} for a path to run through.")
        with taps.evaluating(self.model), taps.record(self.model, *wanted.values()) as seen:
            output = self.model(subject.data.test.images[:1].to(self.device))
        self.counts = {name: seen[tap].shape[1] for name, tap in wanted.items()}
        self.classes = output.scores.shape[1]

    def checked(self, reading: Reading) -> Reading:
        """The reading, if it can be had of this model; else ValueError."""
        coupling = f"{self.places.layer}.coupling"
        if reading.of not in UNCOUPLED and coupling not in taps.names(self.model):
            raise ValueError(
                f"{self.subject.name} has no couplings to rank its capsules by; rank them by activation instead."
            )
        return reading

    def chosen(self, name: str, k: int | None) -> int | None:
        """A number of "filters" or "units" to keep, if there are so many; else ValueError."""
        if k is not None and not 1 <= k <= self.counts[name]:
            what = f"filters in {self.places.filters}" if name == "filters" else f"capsules in {self.places.units}"
            raise ValueError(
                f"{self.subject.name} has {self.counts[name]:,} {what}: 1 to {self.counts[name]} can be kept, not {k}."
            )
        return k

    def ranking(self, reading: Reading) -> Ranking:
        """The sets that a reading takes; empty where each image has its own."""
        if reading.sets == "image":
            return Ranking(torch.zeros(0), torch.zeros(0), torch.zeros(self.classes))
        if reading not in self._rankings:
            split: Any = sample(self.subject.data.validation, IMAGES)
            self._rankings[reading] = rank(self.model, split, reading, classes=self.classes, places=self.places)
        return self._rankings[reading]

    def whole(self, image: Tensor, reading: Reading) -> Whole:
        """A picture (C, H, W) uint8, and what its path is chosen by; kept as long as both are the same."""
        if self._last is None or self._last[0] != reading or not torch.equal(self._last[1].image[0].cpu(), image):
            self._last = reading, self._see(image[None].to(self.device), reading)
        return self._last[1]

    def _see(self, images: Tensor, reading: Reading) -> Whole:
        with taps.evaluating(self.model):
            output = self.model(images)
            predicted = output.scores.argmax(1)
            if reading.sets == "image":
                filters, units, _ = look(self.model, images, predicted, reading, self.places)
            else:
                ranking = self.ranking(reading)
                filters, units = (part.to(self.device) for part in ranking[:2])
                if reading.sets == "class":
                    filters, units = filters[predicted], units[predicted]
                else:
                    share = (ranking.count / ranking.count.sum()).to(filters)
                    filters, units = (share @ filters)[None], (share @ units)[None]
        return Whole(images, output, predicted, filters, units)

    def edits(self, whole: Whole, *, filters: int | None, units: int | None) -> dict[str, taps.Edit]:
        """What leaves the k most relevant filters and capsules; None leaves all."""
        found = {}
        if filters is not None:
            found[self.places.filters] = taps.keep(top(whole.filters, [filters])[:, 0])
        if units is not None:
            kept = taps.keep(top(whole.units, [units])[:, 0])
            found |= dict.fromkeys(self.places.taps(self.model), kept)
        return found

    def path(self, whole: Whole, *, filters: int | None, units: int | None) -> Output:
        """What the path alone says of the picture; the decoder shows the class that the whole network names."""
        with taps.evaluating(self.model), taps.edit(self.model, self.edits(whole, filters=filters, units=units)):
            return self.model(whole.image, whole.predicted)

    def maps(self, whole: Whole, filters: int | None) -> UnitMaps:
        """Heatmaps of the picture's capsules behind the k most relevant filters; kept as long as both are the same."""
        behind, image = top(whole.filters, [filters])[0, 0], whole.image[0].cpu()
        last = self._maps
        if last is None or not torch.equal(last[0], behind) or not torch.equal(last[1].image, image):
            edits = self.edits(whole, filters=filters, units=None)
            self._maps = behind, UnitMaps(self.model, image, self.places, edits)
        return self._maps[1]
