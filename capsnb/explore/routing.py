"""Route a trained network anew by slider: iterations, temperature, eta; the parse tree and its couplings follow."""

from __future__ import annotations

import math

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure
from torch import Tensor
from traitlets import Enum, Float, Int, Unicode

from capsnb import plot
from capsnb.explore import charts, encoding
from capsnb.explore.base import Explorer
from capsnb.explore.parts import LABEL, Chart, Picture, dropdown, slider
from capsnb.explore.rerouting import (
    SETTINGS,
    Trail,
    agreement,
    field,
    grouped,
    reaching,
    rerouted,
    routed_layers,
    settings_of,
    spread_over,
)
from capsnb.measure.entropy import association_entropy
from capsnb.nn.layers import length
from capsnb.nn.taps import evaluating, names, record


class RoutingExplorer(Explorer):
    """Sliders for a routing's iterations, temperature and rate (eta); its couplings as parse tree and heat map follow,
    its entropy and agreement iteration by iteration, and where in the image the primary capsules vote for a class.

        RoutingExplorer("capsnet-small", iterations=5)

    iterations, temperature, rate: of every routed layer; None, the default, keeps what it was trained with.
    layer: the one whose couplings are shown, the last by default. capsule: the class that is voted for; -1, the
    default, the one that the network names. type: of the primary capsules drawn over the image; -1 draws all.
    votes: what is drawn there: the "share" of each capsule's coupling that reaches the class, or "share x length", that
        times the length of its pose.
    """

    iterations = Int(None, allow_none=True).tag(state=True)
    temperature = Float(None, allow_none=True).tag(state=True)
    rate = Float(None, allow_none=True).tag(state=True)
    layer = Unicode("").tag(state=True)
    capsule = Int(-1).tag(state=True)
    type = Int(-1).tag(state=True)
    votes = Enum(("share", "share x length"), "share").tag(state=True)

    def _build(self) -> None:
        style = {"description_width": LABEL}
        self.sliders = {
            "iterations": widgets.IntSlider(
                3, description="Iterations", min=1, max=10, style=style, layout={"width": "auto"}
            ),
            "temperature": widgets.FloatLogSlider(
                1.0,
                description="Temperature",
                base=10,
                min=-1.5,
                max=1.5,
                step=0.02,
                readout_format=".2f",
                style=style,
                layout={"width": "auto"},
            ),
            "rate": slider("Rate (eta)", 0.05, 1.0, 1.0, 0.01, ".2f"),
        }
        for name, each in self.sliders.items():
            each.observe(lambda change, name=name: self._slide(name, change["new"]), "value")
        self.layers = self.bind("layer", dropdown("Layer", [("last", "")]))
        self.capsules = self.bind("capsule", dropdown("Voted for", [("as predicted", -1)]))
        self.types = self.bind("type", dropdown("Primary type", [("all", -1)]))
        self.drawn = self.bind("votes", dropdown("Votes as", ["share", "share x length"]))
        panel = widgets.Box(list(self.sliders.values()))
        panel.add_class("capsnb-sliders")
        choices = widgets.HBox([self.layers, self.capsules, self.types, self.drawn])
        choices.add_class("capsnb-row")
        self.controls.children = [choices, panel]
        self.over, self.couplings = Picture(), Picture(width=280, height=130)
        self.classes, self.tree, self.entropy, self.agreement = Chart(), Chart(), Chart(), Chart()
        self.view.children = [self.over, self.classes, self.tree, self.couplings, self.entropy, self.agreement]

    def _fit(self) -> None:
        classes, model, grid = self.subject.data.classes, self.subject.model, _grid(self.subject.model)
        try:
            layers = routed_layers(model)
        except ValueError:
            layers = {}  # said by the update
        own = settings_of(next(iter(layers.values())).routing) if layers else {}
        self._own = {"iterations": 1, "temperature": 1.0, "rate": 1.0} | own
        for name, each in self.sliders.items():
            each.disabled = name not in own
        types = 0 if grid is None else grid[2]
        self.layer = self.layer if self.layer in layers else ""
        self.capsule = self.capsule if self.capsule < len(classes) else -1
        self.type = self.type if self.type < types else -1
        self.offer("layer", [("last", ""), *((name, name) for name in layers)])
        self.offer("capsule", [("as predicted", -1), *((each, n) for n, each in enumerate(classes))])
        self.offer("type", [("all", -1), *((str(n), n) for n in range(types))])

    def _slide(self, name: str, value: float) -> None:
        if not self._quiet:
            setattr(self, name, value if name == "iterations" else round(value, 4))

    def _update(self) -> None:
        model = self.subject.model
        layers = routed_layers(model)
        if self.layer and self.layer not in layers:
            raise ValueError(f"{self.subject.name} has no layer {self.layer!r}; it has: {', '.join(layers)}.")
        settings = {name: getattr(self, name) for name in SETTINGS}
        wanted = [name for name in ("primary",) if name in names(model)]
        with evaluating(model), rerouted(model, **settings) as trails, record(model, *wanted) as seen:
            scores = model(self.image[None].to(next(model.parameters()).device)).scores[0].cpu()
            self._primary = length(seen["primary"])[0].cpu() if wanted else None
        self._trails = {name: Trail(*(part.cpu() for part in trail)) for name, trail in trails.items()}
        if not -1 <= self.capsule < len(scores):
            raise ValueError(f"{self.subject.name} has class capsules 0 to {len(scores) - 1}, but no {self.capsule}.")
        self._scores = scores
        self._label = int(scores.argmax()) if self.capsule == -1 else self.capsule
        with self.quiet():
            for name, each in self.sliders.items():
                value = settings[name]
                each.value = self._own[name] if value is None else value
        self._show()

    def _show(self) -> None:
        name = self.layer or next(reversed(self._trails))
        trail, classes = self._trails[name], self.subject.data.classes
        chart = charts.bars(classes, self._scores, chosen=self._label, label="length of each class capsule")
        self.classes.show(chart, "Class capsules")
        self._show_votes()
        sizes = [self._primary if self._primary is not None else length(trail.votes[0]).mean(-1)]
        sizes += [length(each.poses[-1, 0]) for each in self._trails.values()]
        drawing = charts.tree(
            sizes,
            [each.coupling[-1, 0] for each in self._trails.values()],
            names=["primary", *self._trails],
            label="parse tree: nodes are capsules, edges couplings",
        )
        self.tree.show(drawing, "Parse tree (green: long capsules; blue: large couplings)")
        last = trail.coupling[-1, 0]
        count = last.shape[1]
        pixels = encoding.heat(last[grouped(last)].T, 1 / count, max(float(last.max()), 1.001 / count))
        told = f"Couplings of {name}, 0 to {float(last.max()):.2f}: a row per parent, children by winner"
        self.couplings.show(encoding.png(pixels), told, f"heat map of the couplings of {name}")
        values = self._entropies(name)
        if values is None:
            self.entropy.show("", "No entropy: a child's couplings do not sum to 1.")
        else:
            limit = math.log(count)
            drawing = charts.curve(values, name="nats", limit=limit, label="entropy of the couplings by iteration")
            self.entropy.show(drawing, f"Entropy of {name} by iteration (dashed: undecided)")
        values = agreement(trail)[:, 0]
        drawing = charts.curve(values, name="coupling x vote · pose", label="agreement by iteration")
        self.agreement.show(drawing, f"Agreement in {name} by iteration")

    def _show_votes(self) -> None:
        grid, where = _grid(self.subject.model), field(self.subject.model)
        class_name = self.subject.data.classes[self._label]
        if grid is None or where is None or grid[0] * grid[1] == 1:
            plain = encoding.png(encoding.as_bytes(self.image))
            self.over.show(plain, "Each primary capsule sees the whole picture: no position to draw")
            return
        share = self._position_votes()
        strongest = float(share.max())
        laid = spread_over(share / max(strongest, 1e-12), where, self.subject.model.image_shape[1:])
        kind = "all types" if self.type == -1 else f"type {self.type}"
        told = f"Votes for {class_name}, {kind}: {float(share.min()):.2f} to {strongest:.2f} per position"
        alt = f"{told}; each position sees {where.size} x {where.size} pixels around it"
        self.over.show(encoding.png(encoding.overlay(self.image, laid)), told, alt)

    def _entropies(self, name: str) -> Tensor | None:
        trail = self._trails[name]
        if trail.coupling.shape[-1] < 2:
            return None
        try:
            return association_entropy(trail.coupling[:, 0]).mean(1)
        except ValueError:
            return None

    # what there is now

    @property
    def trails(self) -> dict[str, Trail]:
        """Votes, couplings and poses of every routed layer, iteration by iteration, for the one picture."""
        self.settle()
        return self._trails

    @property
    def child_votes(self) -> Tensor:
        """What each primary capsule gives to the class, (I,), as `votes` says."""
        self.settle()
        return self._child_votes()

    @property
    def position_votes(self) -> Tensor:
        """The same by position, (H', W'), of one type or summed over all. ValueError without positions."""
        self.settle()
        return self._position_votes()

    @property
    def scores(self) -> Tensor:
        """Class scores with this routing, (K,)."""
        self.settle()
        return self._scores

    def _child_votes(self) -> Tensor:
        share = reaching(self._trails, self._label)[0]
        return share if self.votes == "share" or self._primary is None else share * self._primary

    def _position_votes(self) -> Tensor:
        grid = _grid(self.subject.model)
        if grid is None:
            raise ValueError(f"the primary capsules of {self.subject.name} have no positions.")
        if not -1 <= self.type < grid[2]:
            raise ValueError(
                f"{self.subject.name} has primary capsules of types 0 to {grid[2] - 1}, but no {self.type}."
            )
        votes = self._child_votes().view(grid)
        return votes.sum(-1) if self.type == -1 else votes[..., self.type]

    def figure(self) -> Figure:
        """Couplings iteration by iteration."""
        name = self.layer or next(reversed(self.trails))
        coupling = self._trails[name].coupling[:, 0]
        last = name == next(reversed(self._trails))
        chosen = {"classes": self.subject.data.classes, "label": self._label} if last else {}
        figure = plot.couplings(coupling, **chosen)
        figure.suptitle(f"{self.subject.name}, {name}", fontsize=11)
        return figure


def _grid(model: torch.nn.Module) -> tuple[int, int, int] | None:
    return getattr(getattr(model, "primary", None), "grid", None)
