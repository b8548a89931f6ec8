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
from capsnb.explore import charts, encoding
from capsnb.explore.base import Explorer
from capsnb.explore.parts import LABEL, Chart, Picture, Sentence, dropdown
from capsnb.explore.path_accuracy import IMAGES, RunningAccuracy
from capsnb.explore.path_network import PathNetwork
from capsnb.explore.subjects import class_shares, sample
from capsnb.explore.unit_maps import shares
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
        style = {"description_width": LABEL}
        self.sliders = {
            name: widgets.IntSlider(1, min=1, max=1, description=text, style=style, layout={"width": "auto"})
            for name, text in SLIDERS.items()
        }
        for name, each in self.sliders.items():
            each.observe(lambda change, name=name: self._slide(name, change["new"]), "value")
        names = [("backward, for the class", "backward"), ("forward, whatever the class", "forward")]
        self.directions = self.bind("direction", dropdown("Direction", names))
        names = [(each if each != "random" else "random (the null)", each) for each in CHOICES["of"]]
        self.rankings = self.bind("of", dropdown("Ranked by", names))
        names = [("of the predicted class", "class"), ("of this picture", "image"), ("one for all", "all")]
        self.owners = self.bind("sets", dropdown("Path", names))
        choices = widgets.HBox([self.directions, self.rankings, self.owners])
        choices.add_class("capsnb-row")
        # two sliders of many steps: as long as there is room
        layout = {"grid_template_columns": "repeat(auto-fit, minmax(270px, 1fr))"}
        panel = widgets.Box(list(self.sliders.values()), layout=layout)
        panel.add_class("capsnb-sliders")
        self.controls.children = [choices, panel]
        self.original, self.rebuilt, self.changed, self.over = (Picture() for _ in range(4))
        self.alone = Picture(width=300, height=150)
        self.classes, self.accuracies, self.undecoded = Chart(), Chart(layout={"max_width": "256px"}), Sentence()
        pictures = [self.original, self.rebuilt, self.changed, self.undecoded, self.over, self.alone]
        self.view.children = [*pictures, self.classes, self.accuracies]

    def _fit(self) -> None:
        self._counted: tuple | None = None
        self._known: dict[int, Tensor] = {}
        self._sample = sample(self.subject.data.test, IMAGES)
        try:
            self._network: PathNetwork | None = PathNetwork(self.subject)
        except ValueError:
            self._network = None  # said by the update
        with self.quiet():
            for name, each in self.sliders.items():
                each.disabled = self._network is None
                each.max = 1 if self._network is None else self._network.counts[name]
                each.value = each.max
        for name, each in self.sliders.items():
            if getattr(self, name) is not None and getattr(self, name) > each.max:
                setattr(self, name, None)

    def _slide(self, name: str, value: int) -> None:
        if not self._quiet:
            setattr(self, name, None if value == self.sliders[name].max else value)

    def _update(self) -> None:
        network = self._network or PathNetwork(self.subject)
        reading = network.checked(Reading(direction=self.direction, of=self.of, sets=self.sets))
        kept = {name: network.chosen(name, getattr(self, name)) for name in SLIDERS}
        self._whole = network.whole(self.image, reading)
        self._path = network.path(self._whole, **kept)
        order = self._whole.units[0].argsort(descending=True, stable=True)
        self._units = order[: kept["units"]].tolist()
        self._maps = network.maps(self._whole, kept["filters"])
        if self._maps.quick:
            self._maps.make(self._units, TIME)
        if self._counted is None or self._counted[0] != (reading, kept):
            self._counted = (reading, kept), RunningAccuracy(network, self._sample, reading, self._known, **kept)
        with self.quiet():
            for name, each in self.sliders.items():
                each.value = each.max if kept[name] is None else kept[name]
        self._show()

    def _follow(self) -> Iterator[None]:
        """The heatmaps that are left, then the accuracy."""
        if self.message.text:
            return
        while self._maps.missing(self._units):
            self._maps.make(self._units)
            self._show_maps()
            yield
        while not self._counted[1].done:
            self._counted[1].step()
            self._show_accuracy()
            yield

    def _show(self) -> None:
        names, whole = self.subject.data.classes, self._whole
        true = "your own" if self.chooser.label is None else f"class {names[self.chooser.label]}"
        self.original.show(encoding.png(encoding.as_bytes(self.image)), f"Picture ({true})")
        label, decoded = int(whole.predicted), whole.output.reconstruction is not None
        self.undecoded.clear()
        if decoded:
            pictures = (each.reconstruction[0].cpu() for each in (whole.output, self._path))
            told = (f"Capsule {names[label]}, decoded from all", f"Capsule {names[label]}, decoded from the path")
            for each, picture, caption in zip((self.rebuilt, self.changed), pictures, told, strict=True):
                each.show(encoding.png(encoding.as_bytes(picture)), caption)
        else:
            self.undecoded.say(NO_PICTURE.format(self.subject.name))
        self.rebuilt.layout.display = self.changed.layout.display = "" if decoded else "none"
        before, now = (class_shares(each)[0] for each in (whole.output, self._path))
        chart = charts.bars(names, now, marks=before, chosen=label, label="class scores of the path")
        self.classes.show(chart, "Class scores of the path (ticks: of all)")
        self._show_maps()
        self._show_accuracy()

    def _show_maps(self) -> None:
        units, maps = self._shares()
        if not units:
            return  # the last ones stay until the first of these is there
        count = f"{len(self._units)} capsules" if len(self._units) > 1 else "one capsule"
        count = count if len(units) == len(self._units) else f"{len(units)} of {count} so far"
        alt = f"Heatmaps of {count}, their pixelwise maximum over the picture"
        self.over.show(encoding.png(encoding.overlay(self.image, maps.amax(0))), f"Where {count} look", alt)
        first = [encoding.overlay(self.image, each) for each in maps[:ALONE]]
        blank = [first[0] * 0] * (ALONE - len(first))
        told = f"The first {len(first)}, each alone" if len(first) > 1 else "The first"
        alt = f"{told}: heatmaps of capsules {', '.join(map(str, units[:ALONE]))}"
        self.alone.show(encoding.png(encoding.tiles([*first, *blank], COLUMNS)), told, alt)

    def _show_accuracy(self) -> None:
        tally = self._counted[1]
        path, whole = tally.by_class
        chart = charts.bars(self.subject.data.classes, path, marks=whole, longest=False, label="accuracy by class")
        told = f"Accuracy on {len(self._sample)} test images: follows"
        if tally.images:
            path, whole = (f"{100 * each:.1f} %" for each in tally.accuracy)
            count = f"{tally.images} test images" if tally.done else f"the first {tally.images} test images"
            told = f"Accuracy of the path {path}, of all {whole} (ticks), on {count}"
        self.accuracies.show(chart, told)

    def _shares(self) -> tuple[list[int], Tensor]:
        units, maps = self._maps.known(self._units)
        return units, shares(units, maps)

    # what there is now

    @property
    def reconstruction(self) -> Tensor:
        """The picture decoded from the path, (C, H, W). Raises ValueError for a model without decoder."""
        return self._decoded()[1]

    @property
    def full_reconstruction(self) -> Tensor:
        """The picture decoded from all of the network, (C, H, W). Raises ValueError for a model without decoder."""
        return self._decoded()[0]

    @property
    def lengths(self) -> Tensor:
        """Class scores of the path, (K,): lengths, or shares by softmax of logits."""
        self.settle()
        return class_shares(self._path)[0]

    @property
    def chosen(self) -> list[int]:
        """The capsules that are kept, the most relevant first."""
        self.settle()
        return self._units

    @property
    def heatmaps(self) -> Tensor:
        """Their heatmaps, each between 0 and 1, (k, H, W); makes those that still follow."""
        self.settle()
        self._maps.make(self._units, float("inf"))
        return self._shares()[1]

    @property
    def accuracy(self) -> tuple[float, float]:
        """Of the path and of all of the network on the sample of test images; counts what still follows."""
        self.settle()  # the widget's sentence is an error here
        self.latest.finish()
        return self._counted[1].accuracy

    def _decoded(self) -> tuple[Tensor, Tensor]:
        self.settle()
        if self._path.reconstruction is None:
            raise ValueError(NO_PICTURE.format(self.subject.name))
        return self._whole.output.reconstruction[0].cpu(), self._path.reconstruction[0].cpu()

    def figure(self) -> Figure:
        """Picture, reconstructions and heatmaps, with the path's accuracy below."""
        path, whole = self.accuracy
        heat, rebuilt = self.heatmaps, self._path.reconstruction
        shown = {"picture": self.image / 255}
        if rebuilt is not None:
            shown |= zip(("decoded from all", "from the path"), self._decoded(), strict=True)
        alone = {f"capsule {unit}": each for unit, each in zip(self._units[:ALONE], heat, strict=False)}
        for title, each in ({"all heatmaps": heat.amax(0)} | alone).items():
            shown[title] = torch.from_numpy(encoding.overlay(self.image, each)).permute(2, 0, 1) / 255
        pictures = torch.stack([each.expand(3, -1, -1) for each in shown.values()])
        axes = plot.image_grid(pictures, titles=list(shown), columns=COLUMNS, size=1.4)
        told = ", ".join(
            f"{getattr(self, name) or count} of {count} {text.lower()}"
            for (name, text), count in zip(SLIDERS.items(), self._network.counts.values(), strict=True)
        )
        told += f" ({self.direction}, by {self.of}, sets: {self.sets})"
        count = f"{len(self._sample)} test images"
        axes.set_xlabel(f"{self.subject.name}: {told}\n{100 * path:.1f} % of {count} right, of all {100 * whole:.1f} %")
        return axes.figure
