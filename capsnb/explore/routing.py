"""Route a trained network anew by slider: iterations, temperature, eta; the parse tree and its couplings follow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any, NamedTuple

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from traitlets import Enum, Float, Int, Unicode

from capsnb import plot
from capsnb.explore import charts, pictures
from capsnb.explore.base import Explorer, settled
from capsnb.explore.controls import dropdown, panel, row, slider
from capsnb.explore.subjects import field, grid, spread_over
from capsnb.measure.entropy import association_entropy
from capsnb.nn import taps
from capsnb.nn.layers import RoutedCapsules, length
from capsnb.nn.routing import Combine, Routing

SETTINGS = {"iterations": 1, "temperature": 1.0, "rate": 1.0}  # what stands on the slider of a routing that has none


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
        temperatures = {"base": 10, "min": -1.5, "max": 1.5, "step": 0.02, "value": 1.0, "readout_format": ".2f"}
        rates = {"min": 0.05, "max": 1.0, "step": 0.01, "value": 1.0, "readout_format": ".2f"}
        self.sliders = {
            "iterations": slider("Iterations", widgets.IntSlider, min=1, max=10, value=3),
            "temperature": slider("Temperature", widgets.FloatLogSlider, **temperatures),
            "rate": slider("Rate (eta)", **rates),
        }
        for name, each in self.sliders.items():
            self.bind(
                name,
                each,
                show=lambda value, name=name: self._own[name] if value is None else value,
                take=lambda value: round(value, 4),  # an integer stays one
            )
        self.layers = self.bind("layer", dropdown("Layer"))
        self.capsules = self.bind("capsule", dropdown("Voted for"))
        self.types = self.bind("type", dropdown("Primary type"))
        self.drawn = self.bind("votes", dropdown("Votes as", ["share", "share x length"]))
        choices = row([self.layers, self.capsules, self.types, self.drawn])
        self.controls.children = [choices, panel(self.sliders.values())]
        self.over, self.couplings = pictures.Picture(), pictures.Picture(width=280, height=130)
        self.classes, self.tree, self.entropy, self.agreement = (widgets.HTML() for _ in range(4))
        self.view.children = [self.over, self.classes, self.tree, self.couplings, self.entropy, self.agreement]

    def _fit(self) -> None:
        model = self.subject.model
        self._grid, self._field = grid(model), field(model)
        try:
            layers = routed_layers(model)
        except ValueError:
            layers = {}  # said by the update
        own = settings_of(next(iter(layers.values())).routing) if layers else {}
        self._own = SETTINGS | own
        for name, each in self.sliders.items():
            each.disabled = name not in own
        types = 0 if self._grid is None else self._grid[2]
        self.offer("layer", self.layers, [("last", ""), *((name, name) for name in layers)])
        self.offer("capsule", self.capsules, self.subject.class_options)
        self.offer("type", self.types, [("all", -1), *((str(number), number) for number in range(types))])

    def _update(self) -> None:
        subject, model = self.subject, self.subject.model
        layers = routed_layers(model)
        if self.layer and self.layer not in layers:
            raise ValueError(f"{subject.name} has no layer {self.layer!r}; it has: {', '.join(layers)}.")
        settings = {name: getattr(self, name) for name in SETTINGS}
        wanted = [name for name in ("primary",) if name in taps.names(model)]
        with taps.evaluating(model), rerouted(model, **settings) as trails, taps.record(model, *wanted) as seen:
            self._scores = model(self.image[None].to(subject.device)).scores[0].cpu()
            self._primary = length(seen["primary"])[0].cpu() if wanted else None
        self._trails = {name: Trail(*(part.cpu() for part in trail)) for name, trail in trails.items()}
        self._label = subject.class_capsule(self._scores, self.capsule)
        self._show()

    def _show(self) -> None:
        name, classes = self._layer_shown(), self.subject.data.classes
        trail = self._trails[name]
        last = trail.coupling[-1, 0]
        count, largest = last.shape[1], float(last.max())
        self.classes.value = charts.bars(classes, self._scores, "Lengths of the class capsules", chosen=self._label)
        self._show_votes()
        sizes = [self._primary if self._primary is not None else length(trail.votes[0]).mean(-1)]
        sizes += [length(each.poses[-1, 0]) for each in self._trails.values()]
        edges = [each.coupling[-1, 0] for each in self._trails.values()]
        caption = "Parse tree (green: long capsules; blue: large couplings)"
        self.tree.value = charts.tree(sizes, edges, caption, names=["primary", *self._trails])
        pixels = pictures.heat(last[grouped(last)].T, 1 / count, max(largest, 1.001 / count))
        caption = f"Couplings of {name}, 0 to {largest:.2f}: a row per parent, children by winner"
        self.couplings.show(pixels, caption, f"heat map of the couplings of {name}")
        entropies = self._entropies(name)
        if entropies is None:
            self.entropy.value = charts.nothing("No entropy: a child's couplings do not sum to 1.")
        else:
            caption = f"Entropy of {name} by iteration (dashed: undecided)"
            self.entropy.value = charts.curve(entropies, caption, name="nats", limit=math.log(count))
        caption = f"Agreement in {name} by iteration"
        self.agreement.value = charts.curve(agreement(trail)[:, 0], caption, name="coupling x vote · pose")

    def _show_votes(self) -> None:
        if self._grid is None or self._field is None or self._grid[0] * self._grid[1] == 1:
            told = "Each primary capsule sees the whole picture: no position to draw"
            self.over.show(pictures.as_bytes(self.image), told)
            return
        share, where = self._position_votes(), self._field
        strongest = float(share.max())
        laid = spread_over(share / max(strongest, 1e-12), where, self.subject.model.image_shape[1:])
        kind = "all types" if self.type == -1 else f"type {self.type}"
        name = self.subject.data.classes[self._label]
        told = f"Votes for {name}, {kind}: {float(share.min()):.2f} to {strongest:.2f} per position"
        alt = f"{told}; each position sees {where.size} x {where.size} pixels around it"
        self.over.show(pictures.overlay(self.image, laid), told, alt)

    def _layer_shown(self) -> str:
        return self.layer or next(reversed(self._trails))

    def _entropies(self, name: str) -> Tensor | None:
        coupling = self._trails[name].coupling[:, 0]
        if coupling.shape[-1] < 2:
            return None
        try:
            return association_entropy(coupling).mean(1)
        except ValueError:
            return None

    def _child_votes(self) -> Tensor:
        share = reaching(self._trails, self._label)[0]
        return share if self.votes == "share" or self._primary is None else share * self._primary

    def _position_votes(self) -> Tensor:
        if self._grid is None:
            raise ValueError(f"the primary capsules of {self.subject.name} have no positions.")
        types = self._grid[2]
        if not -1 <= self.type < types:
            raise ValueError(f"{self.subject.name} has primary capsules of types 0 to {types - 1}, but no {self.type}.")
        votes = self._child_votes().view(self._grid)
        return votes.sum(-1) if self.type == -1 else votes[..., self.type]

    # what there is now

    @settled
    def trails(self) -> dict[str, Trail]:
        """Votes, couplings and poses of every routed layer, iteration by iteration, for the one picture."""
        return self._trails

    @settled
    def child_votes(self) -> Tensor:
        """What each primary capsule gives to the class, (I,), as `votes` says."""
        return self._child_votes()

    @settled
    def position_votes(self) -> Tensor:
        """The same by position, (H', W'), of one type or summed over all. ValueError without positions."""
        return self._position_votes()

    @settled
    def scores(self) -> Tensor:
        """Class scores with this routing, (K,)."""
        return self._scores

    def figure(self) -> Figure:
        """Couplings iteration by iteration."""
        self.settle()
        name = self._layer_shown()
        last = name == next(reversed(self._trails))
        chosen = {"classes": self.subject.data.classes, "label": self._label} if last else {}
        figure = plot.couplings(self._trails[name].coupling[:, 0], **chosen)
        figure.suptitle(f"{self.subject.name}, {name}", fontsize=11)
        return figure


class Trail(NamedTuple):
    """One layer's routing of a batch; T weighted sums were made."""

    coupling: Tensor  # (T, B, I, J), that of each sum
    poses: Tensor  # (T, B, J, D), which it made
    votes: Tensor  # (B, I, J, D)


def routed_layers(model: nn.Module) -> dict[str, RoutedCapsules]:
    """The layers of a model that are routed, in order; ValueError where there are none."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, RoutedCapsules)}
    if not found:
        raise ValueError(f"{type(model).__name__} has no layer of vector capsules whose routing could be exchanged.")
    return found


def settings_of(routing: Routing) -> dict[str, Any]:
    """Those of SETTINGS that a routing has, with their values."""
    names = {each.name for each in fields(routing)} if is_dataclass(routing) else set()
    return {name: getattr(routing, name) for name in SETTINGS if name in names}


@contextmanager
def rerouted(model: nn.Module, **settings: Any) -> Iterator[dict[str, Trail]]:
    """Inside, every routed layer routes with the given settings (of those that it has) and leaves a trail.

    settings: of SETTINGS; None keeps what the model has. The dictionary is filled anew by each call of the model.
    Raises ValueError for a value that the routing refuses.
    """
    layers, trails = routed_layers(model), {}
    own = {name: layer.routing for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            known = settings_of(layer.routing)
            wanted = {key: value for key, value in settings.items() if value is not None and key in known}
            layer.routing = _watched(replace(layer.routing, **wanted) if wanted else layer.routing, name, trails)
        yield trails
    finally:
        for name, layer in layers.items():
            layer.routing = own[name]


def _watched(routing: Routing, name: str, trails: dict[str, Trail]) -> Routing:
    """A routing that keeps the couplings it hands out, and the poses made of them."""

    def route(votes: Tensor, combine: Combine, **prior: Tensor) -> Tensor:
        couplings, poses = [], []

        def watched(coupling: Tensor, votes: Tensor) -> Tensor:
            couplings.append(coupling)
            poses.append(combine(coupling, votes))
            return poses[-1]

        coupling = routing(votes, watched, **prior)
        watched(coupling, votes)
        trails[name] = Trail(torch.stack(couplings), torch.stack(poses), votes)
        return coupling

    return route


def agreement(trail: Trail) -> Tensor:
    """How far children agree with the parents that they made: sum over j of coupling x <vote, pose>, mean over the
    children. -> (T, B)"""
    products = torch.einsum("bijd,tbjd->tbij", trail.votes, trail.poses)
    return (trail.coupling * products).sum(-1).mean(-1)


def reaching(trails: dict[str, Trail], parent: int) -> Tensor:
    """The share of each child of the first layer that reaches a capsule of the last: the product of the last couplings
    along all ways there. -> (B, I)"""
    share = None
    for trail in reversed(trails.values()):
        last = trail.coupling[-1]
        share = last[..., parent] if share is None else torch.einsum("bij,bj->bi", last, share)
    return share


def grouped(coupling: Tensor) -> Tensor:
    """An order of children (I, J): by the parent that wins them, the surest first. -> (I,)"""
    winner = coupling.argmax(-1).numpy()
    return torch.from_numpy(np.lexsort((-coupling.amax(-1).numpy(), winner)))
