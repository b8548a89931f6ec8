"""Turn, move, scale, shear the picture by hand: which capsules keep their norm (Mitterreiter et al. 2023, fig. 4)?"""

from __future__ import annotations

from collections import deque

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure
from torch import Tensor
from traitlets import Float

from capsnb import plot
from capsnb.explore import charts, pictures
from capsnb.explore.base import Explorer, settled
from capsnb.explore.controls import Sentence, panel, slider
from capsnb.explore.subjects import class_shares
from capsnb.measure.parse_tree import layer_taps
from capsnb.measure.viewpoint import KINDS, layer_mean, moved
from capsnb.nn.layers import length
from capsnb.nn.taps import evaluating, names, record

MOVES = 20  # that the invariance is of
KIND = {"rotation": "rotation", "right": "translation x", "down": "translation y", "scale": "scale", "shear": "shear"}


class ViewpointExplorer(Explorer):
    """Sliders that rotate, shift, scale and shear the picture; norms of every capsule layer and the parse tree follow.

        ViewpointExplorer("capsnet-small", rotation=15)

    rotation, shear: in degrees, clockwise and along x; right, down: pixels; scale: a factor. The picture is scaled,
    sheared, rotated, then shifted, about its centre. The invariance of a layer is that of `measure.viewpoint`, over
    the last MOVES moves of this picture in place of many pictures under one move.
    """

    rotation = Float(0.0).tag(state=True)
    right = Float(0.0).tag(state=True)
    down = Float(0.0).tag(state=True)
    scale = Float(1.0).tag(state=True)
    shear = Float(0.0).tag(state=True)

    def _build(self) -> None:
        self.sliders = {}
        for name, kind in KIND.items():
            unit, start, amounts = KINDS[kind]
            low, high = 2 * amounts[0] - start, 2 * amounts[-1] - start  # twice as far as the paper goes
            step, form = (0.01, ".2f") if name == "scale" else (0.5, "+.1f")
            each = slider(name.capitalize(), min=low, max=high, value=start, step=step, readout_format=form)
            each.tooltip = unit
            self.sliders[name] = self.bind(name, each)
        self.controls.children = [panel(self.sliders.values())]
        self.moved, self.classes, self.tree = pictures.Picture(), widgets.HTML(), widgets.HTML()
        self.norms, self.told = widgets.VBox(), Sentence()
        self.view.children = [self.moved, self.classes, self.norms, widgets.VBox([self.told, self.tree])]
        self.history: deque[tuple[tuple[float, ...], dict[str, Tensor]]] = deque(maxlen=MOVES)

    def _fit(self) -> None:
        known = names(self.subject.model)
        self._nodes, self._edges = [name for name in known if name.endswith("activations")], []
        self._treeless = "its couplings by windows join no whole layers" if self._nodes else "it has no couplings"
        if not self._nodes:
            try:
                self._nodes, self._edges = layer_taps(self.subject.model)
            except ValueError:
                self._nodes = [name for name in known if name == "primary" or name.endswith(".poses")]
        self.norms.children = [widgets.HTML() for _ in self._nodes]
        self._unmoved: Tensor | None = None

    def _update(self) -> None:
        model, image = self.subject.model, self.image
        if not self._nodes:
            raise ValueError(f"{self.subject.name} has no capsules: none of its taps is `primary` or of poses.")
        moves = {name: getattr(self, name) for name in KIND}
        self._image = moved(image[None], {KIND[name]: amount for name, amount in moves.items()})
        with evaluating(model), record(model, *self._nodes, *self._edges) as seen:
            self._scores = class_shares(model(torch.cat([image[None], self._image]).to(self.subject.device)))
        norms = {name: sizes(name, seen[name]).flatten(1).cpu() for name in self._nodes}
        self._before, self._norms = ({name: each[row] for name, each in norms.items()} for row in (0, 1))
        self._couplings = [seen[name][1].cpu() for name in self._edges]
        if self._unmoved is None or not torch.equal(self._unmoved, image):
            self._unmoved = image.clone()
            self.history.clear()
        here, neutral = tuple(moves.values()), tuple(KINDS[kind][1] for kind in KIND.values())
        if here != neutral and (not self.history or self.history[-1][0] != here):
            self.history.append((here, self._norms))
        self._show()

    def _show(self) -> None:
        self.moved.show(pictures.as_bytes(self._image[0]), f"Picture ({self.chooser.title}), moved")
        before, now = self._scores
        classes, caption = self.subject.data.classes, "Class scores of the moved picture (ticks: unmoved)"
        self.classes.value = charts.bars(classes, now, caption, marks=before)
        found = self._invariance()
        for each, tap in zip(self.norms.children, self._nodes, strict=True):
            plain, moved = self._before[tap], self._norms[tap]
            largest = max(1.0, float(plain.max()), float(moved.max()))
            told = f"Norms in {short(tap)}" + (f", invariance {found[tap]:.3f}" if found else "")
            each.value = charts.columns(moved, told, marks=plain, largest=largest)
        count = len(self.history)
        told = {0: "shown after the first move", 1: "over one move"}.get(count, f"over the last {count} moves")
        self.told.say(f"Invariance, {told}: cosine of a capsule's norms before and after, mean over its layer.")
        if not self._edges:
            self.tree.value = charts.nothing(f"No parse tree: {self._treeless}.")
            return
        layers, titles = list(self._norms.values()), [short(tap) for tap in self._nodes]
        self.tree.value = charts.tree(layers, self._couplings, "Parse tree of the moved picture", names=titles)

    def reset(self) -> None:
        """The picture as it was; the moves are forgotten."""
        super().reset()
        self.history.clear()
        self.latest.request()

    # what there is now

    @settled
    def moved_image(self) -> Tensor:
        """The picture that the network is shown, (C, H, W) uint8."""
        return self._image[0]

    @settled
    def layer_norms(self) -> dict[str, Tensor]:
        """Norms of the capsules on the moved picture: tap's name -> (I,)."""
        return self._norms

    @settled
    def invariance(self) -> dict[str, float]:
        """Of each layer, over the last moves; empty before the first one."""
        return self._invariance()

    def figure(self) -> Figure:
        """The parse tree of the moved picture; its class scores for a network without one."""
        self.settle()
        if self._edges:
            titles = [short(tap) for tap in self._nodes]
            axes = plot.parse_tree(list(self._norms.values()), self._couplings, names=titles)
        else:
            axes = plot.lengths(self._scores[1], classes=self.subject.data.classes)
        told = ", ".join(f"{name} {getattr(self, name):g}" for name in KIND)
        axes.set_title(f"{self.subject.name}: {told}", fontsize=10)
        return axes.figure

    def _invariance(self) -> dict[str, float]:
        if not self.history:
            return {}
        found = {}
        for tap in self._nodes:
            moved = torch.stack([norms[tap] for _, norms in self.history])
            found[tap] = float(layer_mean(invariance(self._before[tap], moved)[None])[0])
        return found


def invariance(plain: Tensor, moved: Tensor) -> Tensor:
    """Cosine of each capsule's norms before and after N moves of one picture. (I,), (N, I) -> (I,), nan for a norm of 0

    Before is the same for every move, so that it is the mean norm over the root mean square of the moved ones.
    """
    before, after = plain.double().expand_as(moved), moved.double()
    return (before * after).sum(0) / (length(before.T) * length(after.T))


def sizes(tap: str, values: Tensor) -> Tensor:
    """What says that a capsule's thing is there: an activation where the tap has them, else the length of a pose."""
    return values if tap.endswith("activations") else length(values)


def short(tap: str) -> str:
    """A layer's name, from that of its tap."""
    return tap.removesuffix(".poses").removesuffix(".activations")
