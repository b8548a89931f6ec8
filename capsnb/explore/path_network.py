"""What is left of a network for one picture when only its most relevant filters and capsules are kept: what it says,
how accurate that is on other pictures, and where the capsules look. All in steps that a moving slider can wait for."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor, nn

from capsnb.explore.subjects import Field, Subject, field, sample
from capsnb.measure.overlap import Heatmaps, normalise, pooled, unit_heatmaps
from capsnb.measure.path_accuracy import path_accuracy
from capsnb.measure.paths import Places, Ranking, Reading, look, rank, top
from capsnb.nn import taps
from capsnb.nn.layers import PrimaryCapsules, RoutedCapsules, full, length
from capsnb.nn.models import Output, as_pixels

RANKED = 250  # validation images that filters and capsules are ranked on
COUNTED = 200  # test images that the accuracy is of, evenly spaced over the split
STEP = 10  # of them at once: about as long as a picture takes
UNCOUPLED = ("activation", "random")  # what ranks capsules without a coupling


class Kept(NamedTuple):
    """How many of the most relevant filters and capsules a path keeps; None keeps all."""

    filters: int | None
    units: int | None


class Seen(NamedTuple):
    """One picture seen by all of the network, and how relevant its parts are to it."""

    image: Tensor  # (1, C, H, W) uint8
    output: Output
    predicted: Tensor  # (1,)
    filters: Tensor  # (1, C) relevance
    units: Tensor  # (1, U)


class PathNetwork:
    """A model of which paths are left over, ranked by `measure.paths`; a ranking is made once, on validation images.

    places: where the path runs. counts: how many "filters" and "units" there are. Raises ValueError for a model that
    has no capsules between filters and classes.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject, self.model = subject, subject.model
        parts = [getattr(self.model, name, None) for name in ("stages", "layers")]
        if not all(isinstance(each, list | tuple) and each for each in parts):
            raise ValueError(f"{subject.name} has no capsule layers for a path to run through.")
        self.places = Places.of(self.model)
        tapped = {"filters": self.places.filters, "units": self.places.taps(self.model)[-1]}
        missing = [name for name in tapped.values() if name not in taps.names(self.model)]
        if missing:
            raise ValueError(f"{subject.name} has no tap {missing[0]} for a path to run through.")
        with taps.evaluating(self.model), taps.record(self.model, *tapped.values()) as seen:
            output = self.model(subject.data.test.images[:1].to(subject.device))
        self.counts = {name: seen[tap].shape[1] for name, tap in tapped.items()}
        self.classes = output.scores.shape[1]
        self.sample = sample(subject.data.test, COUNTED)
        self._rankings: dict[Reading, Ranking] = {}
        self._right: dict[int, Tensor] = {}  # of the sample by the whole network, from an image on
        self._last: tuple[Reading, Seen] | None = None
        self._maps: tuple[Tensor, UnitMaps] | None = None

    def check(self, reading: Reading, kept: Kept) -> None:
        """Raise ValueError for a reading that cannot be had of this model, or more parts than it has."""
        name, places = self.subject.name, self.places
        if reading.of not in UNCOUPLED and f"{places.layer}.coupling" not in taps.names(self.model):
            raise ValueError(f"{name} has no couplings to rank its capsules by; rank them by activation instead.")
        parts = {"filters": f"filters in {places.filters}", "units": f"capsules in {places.units}"}
        for part, k in kept._asdict().items():
            count = self.counts[part]
            if k is not None and not 1 <= k <= count:
                raise ValueError(f"{name} has {count:,} {parts[part]}: 1 to {count} can be kept, not {k}.")

    def see(self, image: Tensor, reading: Reading) -> Seen:
        """A picture (C, H, W) uint8, and what its path is chosen by; kept as long as both are the same."""
        if self._last is None or self._last[0] != reading or not torch.equal(self._last[1].image[0].cpu(), image):
            self._last = reading, self._see(image[None].to(self.subject.device), reading)
        return self._last[1]

    def _see(self, images: Tensor, reading: Reading) -> Seen:
        with taps.evaluating(self.model):
            output = self.model(images)
            predicted = output.scores.argmax(1)
            if reading.sets == "image":
                filters, units, _ = look(self.model, images, predicted, reading, self.places)
            else:
                ranking = self._ranking(reading)
                filters, units = (part.to(images.device) for part in ranking[:2])
                if reading.sets == "class":
                    filters, units = filters[predicted], units[predicted]
                else:
                    share = (ranking.count / ranking.count.sum()).to(filters)
                    filters, units = (share @ filters)[None], (share @ units)[None]
        return Seen(images, output, predicted, filters, units)

    def _ranking(self, reading: Reading) -> Ranking:
        """The sets that a reading takes; empty where each image has its own."""
        if reading.sets == "image":
            return Ranking(torch.zeros(0), torch.zeros(0), torch.zeros(self.classes))
        if reading not in self._rankings:
            images = sample(self.subject.data.validation, RANKED)
            self._rankings[reading] = rank(self.model, images, reading, classes=self.classes, places=self.places)
        return self._rankings[reading]

    def _edits(self, seen: Seen, kept: Kept) -> dict[str, taps.Edit]:
        found = {}
        if kept.filters is not None:
            found[self.places.filters] = taps.keep(top(seen.filters, [kept.filters])[:, 0])
        if kept.units is not None:
            mask = top(seen.units, [kept.units])[:, 0]
            found |= dict.fromkeys(self.places.taps(self.model), taps.keep(mask))
        return found

    def path(self, seen: Seen, kept: Kept) -> Output:
        """What the path alone says of the picture; the decoder shows the class that the whole network names."""
        with taps.evaluating(self.model), taps.edit(self.model, self._edits(seen, kept)):
            return self.model(seen.image, seen.predicted)

    def maps(self, seen: Seen, kept: Kept) -> UnitMaps:
        """Heatmaps of the picture's capsules behind the filters that are kept; the same as long as both are."""
        behind, image, last = top(seen.filters, [kept.filters])[0, 0], seen.image[0].cpu(), self._maps
        if last is None or not torch.equal(last[0], behind) or not torch.equal(last[1].image, image):
            edits = self._edits(seen, kept._replace(units=None))
            self._maps = behind, UnitMaps(self.model, image, self.places, edits)
        return self._maps[1]

    def right(self, start: int, reading: Reading, kept: Kept) -> Tensor:
        """How many of STEP images of the sample are named right: by the path, by the whole, there are. (3, K)"""
        chosen = torch.arange(start, min(start + STEP, len(self.sample)), device=self.sample.labels.device)
        images, ranking = self.sample.select(chosen), self._ranking(reading)
        count = images.labels.cpu().bincount(minlength=self.classes).double()

        def hits(filters: int | None, units: int | None) -> Tensor:
            lists = {"filters": [filters], "units": [units], "places": self.places}
            return path_accuracy(self.model, images, ranking, reading, **lists).by_class[0, 0] * count

        if start not in self._right:
            self._right[start] = hits(None, None)
        return torch.stack([hits(*kept), self._right[start], count])


class RunningPathAccuracy:
    """`measure.path_accuracy` on a sample of test images, a few at a time, so that whoever moves a slider never waits
    for it; beside that of the whole network on the same images. images: how many are counted."""

    def __init__(self, network: PathNetwork, reading: Reading, kept: Kept) -> None:
        self.network, self.reading, self.kept = network, reading, kept
        self.images = 0
        self._right = torch.zeros(3, network.classes, dtype=torch.float64)

    def step(self) -> None:
        """Count some more images."""
        self._right += self.network.right(self.images, self.reading, self.kept)
        self.images = int(self._right[2].sum())

    @property
    def done(self) -> bool:
        """Whether all images are counted."""
        return self.images == len(self.network.sample)

    @property
    def accuracy(self) -> tuple[float, float]:
        """Of the path and of the whole network, on the images counted so far; nan before the first one."""
        path, whole, count = self._right.sum(1)
        return float(path / count), float(whole / count)

    @property
    def by_class(self) -> tuple[Tensor, Tensor]:
        """The same, (K,) each; nan for classes without an image so far."""
        return self._right[0] / self._right[2], self._right[1] / self._right[2]


class UnitMaps:
    """Heatmaps of the capsules of one picture, each propagated alone: `measure.overlap.unit_heatmaps`, when asked for,
    each once.

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
            return unit_heatmaps(self.model, copies, chosen[:, None], places=self.places).maps[:, 0].cpu()


def shares(maps: Tensor) -> Tensor:
    """Maps (k, H, W) between 0 and 1, each by its own least and largest value."""
    each = torch.arange(len(maps))
    return normalise(Heatmaps(maps, each, each)).maps if len(maps) else maps


def patch(model: nn.Module, places: Places) -> Field | None:
    """What primary capsules see, where a heatmap needs no more: convolutions without padding, and one layer above them
    that answers with one child as it does when the others are silent. None elsewhere."""
    layer, primary = model.get_submodule(places.layer), getattr(model, "primary", None)
    if places.units != "primary" or not isinstance(primary, PrimaryCapsules) or not isinstance(layer, RoutedCapsules):
        return None
    if not layer.can_route_one:
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
    above, left = (where.step * each for each in (position // columns, position % columns))
    span, rows = torch.arange(where.size, device=device), torch.arange(len(units), device=device)
    down, across = (above[:, None] + span)[:, :, None], (left[:, None] + span)[:, None, :]
    seen = pixels[:, down, across].transpose(0, 1).detach().clone().requires_grad_()  # (k, C, size, size)
    maps = seen
    for name in model.stages:
        maps = model.get_submodule(name)(maps)
    poses = primary.squash(full(primary.conv(maps)).view(len(units), types, -1))[rows, kind].to(layer.weight.dtype)
    votes = torch.einsum("kp,kpjd->kjd", poses, layer.weight[units].detach()).unsqueeze(1)
    best = length(layer.combine(layer.routing(votes, layer.combine), votes)).amax(1)
    (gradient,) = torch.autograd.grad(best.sum(), seen)
    canvas = gradient.new_zeros(len(units), *pixels.shape[1:])
    canvas[rows[:, None, None], down, across] = pooled(gradient)
    return canvas
