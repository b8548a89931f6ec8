"""Change the pose of a class capsule by hand, and see what the decoder makes of it (Sabour et al. 2017, sec. 5.1)."""

from __future__ import annotations

import math

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure
from torch import Tensor
from traitlets import Dict, Enum, Int

from capsnb import plot
from capsnb.explore import charts, pictures
from capsnb.explore.base import Explorer, settled
from capsnb.explore.controls import dropdown, panel, row, slider
from capsnb.explore.subjects import Subject, class_shares, sample
from capsnb.measure.intervals import activation_statistics, class_intervals
from capsnb.nn import taps
from capsnb.nn.models import decode
from capsnb.training import checkpoints

SABOUR = (-0.25, 0.25)  # added to a dimension, Sabour et al. 2017, sec. 5.1
IMAGES = 250  # that the interval alpha is measured on
POSES = "class.poses"
STEP = 0.001  # of a slider
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
        self._placed: dict[int, float] = {}  # where the program put them
        self.capsules = self.bind("capsule", dropdown("Capsule"))
        options = [("interval alpha, measured", "alpha"), ("Sabour's, ±0.25", "sabour")]
        self.bound = self.bind("ranges", dropdown("Ranges", options))
        options = [("original", "original"), ("unchanged pose", "unchanged")]
        self.against = self.bind("difference", dropdown("Difference to", options))
        self.swept = dropdown("Sweep dimension", [("none", 0)])
        # there and back, so that the picture never jumps
        self.play = widgets.Play(min=0, max=2 * STOPS - 3, interval=150, show_repeat=True, repeat=True)
        self.play.description = "sweep the dimension"
        self.play.observe(lambda change: self._sweep(change["new"]), "value")
        self.panel = panel([])
        self.controls.children = [row([self.capsules, self.bound, self.against, self.swept, self.play]), self.panel]
        self.original, self.changed, self.differs = (pictures.Picture() for _ in range(3))
        self.fed_back = widgets.HTML()
        self.view.children = [self.original, self.changed, self.differs, self.fed_back]
        self.observe(self._switch, "ranges")

    def _fit(self) -> None:
        self.offer("capsule", self.capsules, self.subject.class_options)
        try:
            self._alpha, size = measured(self.subject)
        except ValueError:
            self._alpha, size = None, 0  # said by the update
        if len(self.sliders) != size:
            options = {"min": -1, "max": 1, "value": 0, "step": STEP, "readout_format": "+.3f"}
            self.sliders = [slider(f"Dimension {number}", **options) for number in range(size)]
            for number, each in enumerate(self.sliders):
                each.observe(lambda change, number=number: self._slide(number, change["new"]), "value")
            self.panel.children = self.sliders
            self.swept.options = [(str(number), number) for number in range(size)] or [("none", 0)]

    def _slide(self, number: int, value: float) -> None:
        # a page answers each value that it is given with its nearest step, which nobody has moved
        if not self._quiet and abs(value - self._placed.get(number, math.inf)) > 0.501 * STEP:
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

    def offers(self, name: str) -> bool:
        """Checkpoints without a decoder make no pictures."""
        shipped = checkpoints.CHECKPOINTS.get(name)
        return shipped is None or getattr(shipped.model, "decoder", "none") != "none"

    def _update(self) -> None:
        subject, model = self.subject, self.subject.model
        if getattr(model, "decoder", None) is None:
            raise ValueError(f"{subject.name} has no decoder, so a changed pose cannot be turned into a picture.")
        with taps.evaluating(model):
            output = model(self.image[None].to(subject.device))
            if output.poses is None or self._alpha is None:
                raise ValueError(f"{subject.name} has no poses to change.")
            label = subject.class_capsule(output.scores[0], self.capsule)
            own = output.poses[0, label].clone()
            after = output.poses.clone()
            after[0, label] = self._changed(own)
            chosen = torch.tensor([label, label], device=own.device)
            before, picture = decode(model, torch.cat([output.poses, after]), chosen)
            self._scores = class_shares(output)[0], class_shares(model(picture[None]))[0]
        self._label, self._pose = label, after[0, label].cpu()
        self._before, self._picture = before.cpu(), picture.cpu()
        self._place_sliders(own.tolist())
        self._show()

    def _changed(self, own: Tensor) -> Tensor:
        pose = own.clone()
        for number, value in self.values.items():
            if 0 <= number < len(pose):
                pose[number] = value if self.ranges == "alpha" else own[number] + value
        return pose

    def _place_sliders(self, own: list[float]) -> None:
        """Ranges that hold what there is, and untouched sliders at the pose's own values."""
        low, high = self._alpha if self.ranges == "alpha" else SABOUR
        for number, each in enumerate(self.sliders):
            value = self.values.get(number, own[number] if self.ranges == "alpha" else 0.0)
            with self.quiet(), each.hold_sync():
                # neither range nor value may be outside the other on the way
                each.min, each.max = min(low, value, each.min), max(high, value, each.max)
                each.value = self._placed[number] = value
                each.min, each.max = min(low, value), max(high, value)

    def _show(self) -> None:
        name = self.subject.data.classes[self._label]
        self.original.show(pictures.as_bytes(self.image), f"Picture ({self.chooser.title})")
        self.changed.show(pictures.as_bytes(self._picture), f"Decoded from capsule {name}")
        against = self.image / 255 if self.difference == "original" else self._before
        caption = f"Its difference to the {'picture' if self.difference == 'original' else 'unchanged pose'}"
        alt = f"{caption}: orange where there is more ink, blue where there is less"
        self.differs.show(pictures.signed(self._picture - against), caption, alt)
        now, again = self._scores
        caption = "The network on the decoded picture (ticks: on the original)"
        names = self.subject.data.classes
        self.fed_back.value = charts.bars(names, again, caption, marks=now, chosen=self._label)

    # what there is now

    @settled
    def reconstruction(self) -> Tensor:
        """The picture decoded from the changed pose, (C, H, W)."""
        return self._picture

    @settled
    def unchanged(self) -> Tensor:
        """The picture decoded from the pose as it was, (C, H, W)."""
        return self._before

    @settled
    def pose(self) -> Tensor:
        """The changed pose, (D,)."""
        return self._pose

    @settled
    def lengths(self) -> Tensor:
        """Class scores of the decoded picture shown to the network, (K,): lengths, or shares by softmax of logits."""
        return self._scores[1]

    def figure(self) -> Figure:
        """Original, unchanged and changed reconstruction side by side."""
        shown = torch.stack([self.image / 255, self.unchanged, self.reconstruction])
        titles = ("picture", f"capsule {self.subject.data.classes[self._label]}", "changed")
        axes = plot.image_grid(shown, titles=titles, size=1.6)
        told = ", ".join(f"{number}: {value:+.2f}" for number, value in sorted(self.values.items()))
        verb = "replaced by" if self.ranges == "alpha" else "added to"
        axes.set_xlabel(f"{self.subject.name}, dimensions {verb} {told}" if told else f"{self.subject.name}, unchanged")
        return axes.figure


def measured(subject: Subject) -> tuple[tuple[float, float], int]:
    """The interval alpha over all dimensions and classes (`measure.intervals`), on validation images, and how many
    numbers a pose has. Raises ValueError for a model without class poses."""
    if POSES not in taps.names(subject.model):
        raise ValueError(f"{subject.name} has no poses to change.")
    images = sample(subject.data.validation, IMAGES)
    with taps.evaluating(subject.model):
        classes = subject.model(images.images[:1].to(subject.device)).scores.shape[1]
    found = activation_statistics(subject.model, images, [POSES], classes=classes)[POSES]
    return class_intervals(found).alpha, found.low.shape[-1]
