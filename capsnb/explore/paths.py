"""Keep only the few filters and capsules that a network decides by, and see what it still knows (Tawalbeh & Oramas
2024, sec. 4.2 and 6.2)."""

from __future__ import annotations

from collections.abc import Iterator

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure
from torch import Tensor
from traitlets import Enum, Int

from capsnb import plot
from capsnb.explore import charts, pictures
from capsnb.explore.base import Explorer, settled
from capsnb.explore.controls import Sentence, dropdown, panel, row, slider
from capsnb.explore.path_network import Kept, PathNetwork, RunningPathAccuracy, shares
from capsnb.explore.subjects import class_shares
from capsnb.measure.paths import CHOICES, Reading

ALONE = 8  # capsules with a heatmap of their own; not more than `UnitMaps.make` makes at once
COLUMNS = 4
TIME = 0.012  # seconds that an event gives to heatmaps; those that are left follow
NO_PICTURE = "{} has no decoder, so a path makes no picture."
SLIDERS = {"filters": "Filters", "units": "Capsules"}


class PathExplorer(Explorer):
    """Sliders for how many filters and primary capsules are kept, the most relevant first; the reconstruction from
    them, their heatmaps and the class lengths follow, and then the accuracy of what is left on a few test images.

        PathExplorer("capsnet-small", units=25)

    filters, units: how many are kept; None, the default, keeps all.
    direction: "backward" ranks capsules for the class that the network names, "forward" whatever the class.
    of: what ranks a capsule, as in `measure.paths.Reading`: "random" is the null.
    sets: a path for each "class", ranked on validation images, of which a picture takes that of the class which the
        network names, and which thereby tells the answer; the "image"'s own, likewise; or one for "all", which tells
        nothing. Filters are ranked by the mean of their map.
    A heatmap is the gradient of the prediction that a capsule makes alone, behind the filters that are kept
    (`measure.overlap`).
    """

    filters = Int(None, allow_none=True).tag(state=True)
    units = Int(None, allow_none=True).tag(state=True)
    direction = Enum(CHOICES["direction"], "backward").tag(state=True)
    of = Enum(CHOICES["of"], "coupling").tag(state=True)
    sets = Enum(CHOICES["sets"], "class").tag(state=True)

    def _build(self) -> None:
        self.latest.follow = self._follow
        self.sliders = {}
        for name, text in SLIDERS.items():
            each = slider(text, widgets.IntSlider, min=1, max=1, value=1)
            self.sliders[name] = self.bind(
                name,
                each,
                show=lambda kept, each=each: each.max if kept is None else kept,  # the end of a slider is all there are
                take=lambda kept, each=each: None if kept == each.max else kept,
            )
        options = [("backward, for the class", "backward"), ("forward, whatever the class", "forward")]
        self.directions = self.bind("direction", dropdown("Direction", options))
        options = [(each if each != "random" else "random (the null)", each) for each in CHOICES["of"]]
        self.rankings = self.bind("of", dropdown("Ranked by", options))
        options = [("of the predicted class", "class"), ("of this picture", "image"), ("one for all", "all")]
        self.owners = self.bind("sets", dropdown("Path", options))
        # two sliders of many steps: as long as there is room
        sliders = panel(self.sliders.values(), grid_template_columns="repeat(auto-fit, minmax(250px, 1fr))")
        self.controls.children = [row([self.directions, self.rankings, self.owners]), sliders]
        self.original, self.rebuilt, self.changed, self.over = (pictures.Picture() for _ in range(4))
        self.alone = pictures.Picture(width=300, height=150)
        self.classes, self.accuracies = widgets.HTML(), widgets.HTML()
        self.undecoded = Sentence()
        shown = [self.original, self.rebuilt, self.changed, self.undecoded, self.over, self.alone]
        self.view.children = [*shown, self.classes, self.accuracies]

    def _fit(self) -> None:
        self._running: RunningPathAccuracy | None = None
        try:
            self._network: PathNetwork | None = PathNetwork(self.subject)
        except ValueError:
            self._network = None  # said by the update
        for name, each in self.sliders.items():
            each.disabled = self._network is None
            each.max = 1 if self._network is None else self._network.counts[name]
            if getattr(self, name) is not None and getattr(self, name) > each.max:
                setattr(self, name, None)

    def _update(self) -> None:
        network = self._network or PathNetwork(self.subject)
        reading = Reading(direction=self.direction, of=self.of, sets=self.sets)
        kept = Kept(self.filters, self.units)
        network.check(reading, kept)
        self._seen = network.see(self.image, reading)
        self._path = network.path(self._seen, kept)
        order = self._seen.units[0].argsort(descending=True, stable=True)
        self._units = order[: kept.units].tolist()
        self._maps = network.maps(self._seen, kept)
        if self._maps.quick:
            self._maps.make(self._units, TIME)
        if self._running is None or (self._running.reading, self._running.kept) != (reading, kept):
            self._running = RunningPathAccuracy(network, reading, kept)
        self._show()

    def _follow(self) -> Iterator[None]:
        """The heatmaps that are left, then the accuracy."""
        if self.message.text:
            return
        while self._maps.missing(self._units):
            self._maps.make(self._units)
            self._show_maps()
            yield
        while not self._running.done:
            self._running.step()
            self._show_accuracy()
            yield

    def _show(self) -> None:
        names, label = self.subject.data.classes, int(self._seen.predicted)
        self.original.show(pictures.as_bytes(self.image), f"Picture ({self.chooser.title})")
        decoded = self._path.reconstruction is not None
        self.rebuilt.layout.display = self.changed.layout.display = "" if decoded else "none"
        if decoded:
            self.undecoded.clear()
            told = f"Capsule {names[label]}, decoded from"
            whole, path = (pictures.as_bytes(each) for each in self._decoded())
            self.rebuilt.show(whole, f"{told} all")
            self.changed.show(path, f"{told} the path")
        else:
            self.undecoded.say(NO_PICTURE.format(self.subject.name))
        before, now = (class_shares(each)[0] for each in (self._seen.output, self._path))
        caption = "Class scores of the path (ticks: of all)"
        self.classes.value = charts.bars(names, now, caption, marks=before, chosen=label)
        self._show_maps()
        self._show_accuracy()

    def _show_maps(self) -> None:
        units, maps = self._maps.known(self._units)
        if not units:
            return  # the last ones stay until the first of these is there
        maps = shares(maps)
        count = f"{len(self._units)} capsules" if len(self._units) > 1 else "one capsule"
        count = count if len(units) == len(self._units) else f"{len(units)} of {count} so far"
        alt = f"Heatmaps of {count}, their pixelwise maximum over the picture"
        self.over.show(pictures.overlay(self.image, maps.amax(0)), f"Where {count} look", alt)
        first = [pictures.overlay(self.image, each) for each in maps[:ALONE]]
        blank = [first[0] * 0] * (ALONE - len(first))
        told = f"The first {len(first)}, each alone" if len(first) > 1 else "The first"
        alt = f"{told}: heatmaps of capsules {', '.join(map(str, units[:ALONE]))}"
        self.alone.show(pictures.tiles([*first, *blank], COLUMNS), told, alt)

    def _show_accuracy(self) -> None:
        running, total = self._running, len(self._network.sample)
        told = f"Accuracy on {total} test images: follows"
        if running.images:
            path, whole = (f"{100 * each:.1f} %" for each in running.accuracy)
            count = f"{total}" if running.done else f"the first {running.images}"
            told = f"Accuracy of the path {path}, of all {whole} (ticks), on {count} test images"
        by_path, by_whole = running.by_class
        self.accuracies.value = charts.bars(self.subject.data.classes, by_path, told, marks=by_whole, longest=False)

    def _decoded(self) -> tuple[Tensor, Tensor]:
        """The pictures decoded from all of the network and from the path."""
        if self._path.reconstruction is None:
            raise ValueError(NO_PICTURE.format(self.subject.name))
        return self._seen.output.reconstruction[0].cpu(), self._path.reconstruction[0].cpu()

    # what there is now

    @settled
    def reconstruction(self) -> Tensor:
        """The picture decoded from the path, (C, H, W). Raises ValueError for a model without decoder."""
        return self._decoded()[1]

    @settled
    def full_reconstruction(self) -> Tensor:
        """The picture decoded from all of the network, (C, H, W). Raises ValueError for a model without decoder."""
        return self._decoded()[0]

    @settled
    def lengths(self) -> Tensor:
        """Class scores of the path, (K,): lengths, or shares by softmax of logits."""
        return class_shares(self._path)[0]

    @settled
    def chosen(self) -> list[int]:
        """The capsules that are kept, the most relevant first."""
        return self._units

    @settled
    def heatmaps(self) -> Tensor:
        """Their heatmaps, each between 0 and 1, (k, H, W); makes those that still follow."""
        self._maps.make(self._units, float("inf"))
        return shares(self._maps.known(self._units)[1])

    @settled
    def accuracy(self) -> tuple[float, float]:
        """Of the path and of all of the network on the sample of test images; counts what still follows."""
        self.latest.finish()
        return self._running.accuracy

    def figure(self) -> Figure:
        """Picture, reconstructions and heatmaps, with the path's accuracy below."""
        path, whole = self.accuracy
        heat = self.heatmaps
        shown = {"picture": self.image / 255}
        if self._path.reconstruction is not None:
            shown |= zip(("decoded from all", "from the path"), self._decoded(), strict=True)
        alone = {f"capsule {unit}": each for unit, each in zip(self._units[:ALONE], heat, strict=False)}
        for title, each in ({"all heatmaps": heat.amax(0)} | alone).items():
            shown[title] = torch.from_numpy(pictures.overlay(self.image, each)).permute(2, 0, 1) / 255
        images = torch.stack([each.expand(3, -1, -1) for each in shown.values()])
        axes = plot.image_grid(images, titles=list(shown), columns=COLUMNS, size=1.4)
        counts = self._network.counts
        told = ", ".join(f"{getattr(self, n) or counts[n]} of {counts[n]} {SLIDERS[n].lower()}" for n in SLIDERS)
        told += f" ({self.direction}, by {self.of}, sets: {self.sets})"
        count = f"{len(self._network.sample)} test images"
        axes.set_xlabel(f"{self.subject.name}: {told}\n{100 * path:.1f} % of {count} right, of all {100 * whole:.1f} %")
        return axes.figure
