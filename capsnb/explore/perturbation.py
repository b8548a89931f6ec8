"""Change the pose of a class capsule by hand, and see what the decoder makes of it (Sabour et al. 2017, sec. 5.1)."""

from __future__ import annotations

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from traitlets import Dict, Enum, Int

from capsnb import plot
from capsnb.explore import charts, encoding
from capsnb.explore.base import Explorer
from capsnb.explore.parts import Chart, Picture, dropdown, move, slider
from capsnb.explore.ranges import SABOUR, Ranges, measured
from capsnb.explore.subjects import class_shares
from capsnb.nn.models import decode
from capsnb.nn.taps import evaluating

STOPS = 12  # of a sweep from one end of a slider to the other


class PerturbationExplorer(Explorer):
    """Sliders for the dimensions of a class capsule's pose; the picture, its difference and its class follow.

        PerturbationExplorer("capsnet-small", capsule=3, values={5: 0.1})

    capsule: the class whose pose is changed and decoded; -1, the default, the one that the network names.
    ranges: "alpha" replaces a dimension by a value of the interval that these dimensions take on validation images
        (Tawalbeh & Oramas 2024, sec. 4.1); "sabour" adds up to 0.25 to it (Sabour et al. 2017, fig. 4).
    values: dimension -> its value, or what is added to it, of the dimensions that were changed.
    difference: of the changed picture to the "original", or to the "unchanged" reconstruction.
    """

    capsule = Int(-1).tag(state=True)
    ranges = Enum(("alpha", "sabour"), "alpha").tag(state=True)
    values = Dict(key_trait=Int()).tag(state=True)
    difference = Enum(("original", "unchanged"), "original").tag(state=True)

    def _build(self) -> None:
        self.sliders: list[widgets.FloatSlider] = []
        self.capsules = self.bind("capsule", dropdown("Capsule", [("as predicted", -1)]))
        names = [("interval alpha, measured", "alpha"), ("Sabour's, ±0.25", "sabour")]
        self.bound = self.bind("ranges", dropdown("Ranges", names))
        self.against = self.bind(
            "difference", dropdown("Difference to", [("original", "original"), ("unchanged pose", "unchanged")])
        )
        self.swept = dropdown("Sweep dimension", [0])
        # there and back, so that the picture never jumps
        self.play = widgets.Play(min=0, max=2 * STOPS - 3, interval=150, show_repeat=True, repeat=True)
        self.play.description = "sweep the dimension"
        self.play.observe(lambda change: self._sweep(change["new"]), "value")
        self.panel = widgets.Box()
        self.panel.add_class("capsnb-sliders")
        choices = widgets.HBox([self.capsules, self.bound, self.against, self.swept, self.play])
        choices.add_class("capsnb-row")
        self.controls.children = [choices, self.panel]
        self.original, self.changed, self.differs = Picture(), Picture(), Picture()
        self.fed_back = Chart()
        self.view.children = [self.original, self.changed, self.differs, self.fed_back]
        self.observe(self._switch, "ranges")

    def _fit(self) -> None:
        subject, classes = self.subject, self.subject.data.classes
        self.capsule = self.capsule if self.capsule < len(classes) else -1
        self.offer("capsule", [("as predicted", -1), *((each, n) for n, each in enumerate(classes))])
        try:
            self.measured: Ranges | None = measured(subject.model, subject.data.validation)
        except ValueError:
            self.measured = None  # no poses: said by the update
        size = 0 if self.measured is None else self.measured.size
        with self.quiet():
            if len(self.sliders) != size:
                self.sliders = [slider(f"Dimension {n}", -1, 1, 0, 0.001, "+.3f") for n in range(size)]
                for number, each in enumerate(self.sliders):
                    each.observe(lambda change, number=number: self._slide(number, change["new"]), "value")
                self.panel.children = self.sliders
                self.swept.options = [(str(number), number) for number in range(size)] or [("none", 0)]

    def _slide(self, number: int, value: float) -> None:
        if not self._quiet:
            self.values = self.values | {number: value}

    def _switch(self, change: dict) -> None:
        if not self._quiet:
            self.values = {}  # a value that replaces is not one that is added

    def _sweep(self, stop: int) -> None:
        if not self.sliders:
            return
        self.latest.settle()
        moved = self.sliders[self.swept.value]
        share = min(stop, 2 * (STOPS - 1) - stop) / (STOPS - 1)
        moved.value = round(moved.min + share * (moved.max - moved.min), 3)

    def reset(self) -> None:
        """All but the model and the picture as at the start; a sweep stops."""
        self.play.playing, self.play.value = False, 0
        super().reset()

    def _update(self) -> None:
        model = self.subject.model
        if getattr(model, "decoder", None) is None:
            raise ValueError(f"{self.subject.name} has no decoder, so a changed pose cannot be turned into a picture.")
        with evaluating(model):
            output = model(self.image[None].to(_device(model)))
            scores, poses, _ = output
            if poses is None or self.measured is None:
                raise ValueError(f"{self.subject.name} has no poses to change.")
            label = int(scores.argmax()) if self.capsule == -1 else self.capsule
            if not 0 <= label < poses.shape[1]:
                raise ValueError(f"{self.subject.name} has class capsules 0 to {poses.shape[1] - 1}, but no {label}.")
            own = poses[0, label].clone()
            pose = self._changed(own)
            after = poses.clone()
            after[0, label] = pose
            chosen = torch.tensor([label, label], device=poses.device)
            before, picture = decode(model, torch.cat([poses, after]), chosen)
            self._lengths = class_shares(output)[0], class_shares(model(picture[None]))[0]
        self._found = (before.cpu(), picture.cpu(), pose.cpu(), label)
        self._place_sliders(own.cpu())
        self._show()

    def _changed(self, own: Tensor) -> Tensor:
        pose = own.clone()
        for number, value in self.values.items():
            if 0 <= number < len(pose):
                pose[number] = value if self.ranges == "alpha" else own[number] + value
        return pose

    def _place_sliders(self, own: Tensor) -> None:
        """Ranges that hold what there is, and untouched sliders at the pose's own values."""
        low, high = self.measured.alpha if self.ranges == "alpha" else SABOUR
        with self.quiet():
            for number, each in enumerate(self.sliders):
                start = float(own[number]) if self.ranges == "alpha" else 0.0
                value = self.values.get(number, start)
                move(each, min(low, value), max(high, value), value)

    def _show(self) -> None:
        before, picture, _, label = self._found
        names = self.subject.data.classes
        true = "your own" if self.chooser.label is None else f"class {names[self.chooser.label]}"
        self.original.show(encoding.png(encoding.as_bytes(self.image)), f"Picture ({true})")
        self.changed.show(encoding.png(encoding.as_bytes(picture)), f"Decoded from capsule {names[label]}")
        against = self.image / 255 if self.difference == "original" else before
        what = "picture" if self.difference == "original" else "unchanged pose"
        caption = f"Its difference to the {what}"
        alt = f"{caption}: orange where there is more ink, blue where there is less"
        self.differs.show(encoding.png(encoding.signed(picture - against)), caption, alt)
        now, again = self._lengths
        chart = charts.bars(names, again, marks=now, chosen=label, label="class scores of the decoded picture")
        self.fed_back.show(chart, "The network on the decoded picture (ticks: on the original)")

    # what there is now

    @property
    def reconstruction(self) -> Tensor:
        """The picture decoded from the changed pose, (C, H, W)."""
        self.settle()
        return self._found[1]

    @property
    def unchanged(self) -> Tensor:
        """The picture decoded from the pose as it was, (C, H, W)."""
        self.settle()
        return self._found[0]

    @property
    def pose(self) -> Tensor:
        """The changed pose, (D,)."""
        self.settle()
        return self._found[2]

    @property
    def lengths(self) -> Tensor:
        """Class scores of the decoded picture shown to the network, (K,): lengths, or shares by softmax of logits."""
        self.settle()
        return self._lengths[1]

    def figure(self) -> Figure:
        """Original, unchanged and changed reconstruction side by side."""
        names = self.subject.data.classes
        pictures = torch.stack([self.image / 255, self.unchanged, self.reconstruction])
        told = ", ".join(f"{number}: {value:+.2f}" for number, value in sorted(self.values.items()))
        titles = ("picture", f"capsule {names[self._found[3]]}", "changed")
        axes = plot.image_grid(pictures, titles=titles, size=1.6)
        verb = "replaced by" if self.ranges == "alpha" else "added to"
        axes.set_xlabel(f"{self.subject.name}, dimensions {verb} {told}" if told else f"{self.subject.name}, unchanged")
        return axes.figure


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
