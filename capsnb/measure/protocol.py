"""One protocol for every measurement: registered once, it serves notebooks, training, sweeps, survey and scorecard.

    @measurement("certainty", rows=("certainty",), paper="2 Lin et al.", needs=("class.coupling",))
    def certainty(model, data, *, images=200):
        "..."
        return {"certainty": ..., "null: uniform couplings": ...}

    MEASURES["certainty"](model, data, images=50)       # {"certainty": 0.4, ...}

A measure is a function of a model in evaluation mode and an image set; what else it may be told are keywords with
defaults, its settings. It returns plain values by name: numbers, texts, lists, small arrays. A value whose name begins
with "null: " is a level that says nothing about the network, had in the same pass; the level of the untrained network
of the same seed is had for every measure (`observe(..., null="untrained")`). Its version is raised when the same
network would give other values.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from capsnb.data import Split
from capsnb.nn import taps
from capsnb.training.identity import encode

if TYPE_CHECKING:
    from capsnb.data import ImageSet
    from capsnb.training.loop import Training

# the papers as measures name them, and what is no paper's
TAWALBEH, LIN, RENZULLI = "1 Tawalbeh & Oramas", "2 Lin et al.", "3 Renzulli et al."
MITTERREITER, GU = "4 Mitterreiter et al.", "5 Gu et al."
NETWORK = "network"
NULL = "null: "
WHILE_TRAINING = ("gradients", "optimizer")  # needs that only a training under way can meet


@dataclass(frozen=True)
class Measure:
    """A measurement with its name, its version, what it needs, and the rows that a survey shows of it.

    needs: names of taps that the model must have, or "gradients" or "optimizer": then it is taken while a network
    trains, and `function(model, data, training=...)` is called where "optimizer" is needed.
    """

    name: str
    function: Callable[..., Mapping[str, Any]]
    version: int = 1
    paper: str = ""
    rows: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    @property
    def defaults(self) -> dict[str, Any]:
        """Setting -> its default."""
        named = inspect.signature(self.function).parameters.values()
        return {each.name: each.default for each in named if each.kind is each.KEYWORD_ONLY and each.name != "training"}

    def settings(self, **given: Any) -> dict[str, Any]:
        """Those of the given settings that are not the default, as JSON-able data: what names an observation.

        Raises ValueError for a setting that the measure has not.
        """
        defaults = self.defaults
        if unknown := [name for name in given if name not in defaults]:
            known = f"; it has: {', '.join(defaults)}" if defaults else "; it has none"
            raise ValueError(f"the measure {self.name!r} has no setting {unknown[0]!r}{known}")
        return {name: encode(value) for name, value in sorted(given.items()) if value != defaults[name]}

    def __call__(self, model: nn.Module, data: ImageSet, **settings: Any) -> dict[str, Any]:
        """Its values of a model; ValueError with one sentence where the model lacks what it needs."""
        self.settings(**settings)
        if moments := [need for need in self.needs if need in WHILE_TRAINING]:
            raise ValueError(f"{self.name} needs the {moments[0]} of a training under way: watch it while one trains")
        self._check(model)
        # gradients: relevance is had by going backwards
        with taps.evaluating(model, gradients=True):
            return dict(self.function(model, data, **settings))

    def watched(self, **settings: Any) -> Callable[[Training], Any]:
        """What is taken of a training at each report: the values, or the number of {"value": number} alone."""
        self.settings(**settings)

        def take(training: Training) -> Any:
            more = {"training": training} if "optimizer" in self.needs else {}
            self._check(training.model)
            values = dict(self.function(training.model, training.data, **settings, **more))
            return values["value"] if list(values) == ["value"] else values

        return take

    def column(self, **settings: Any) -> str:
        """Its name in watched.csv, with its version and settings."""
        named = self.settings(**settings)
        return f"{self.name}@{self.version}" + (f" {json.dumps(named, sort_keys=True)}" if named else "")

    def _check(self, model: nn.Module) -> None:
        wanted = [need for need in self.needs if need not in WHILE_TRAINING]
        if wanted and (missing := [tap for tap in wanted if tap not in taps.names(model)]):
            raise ValueError(f"{type(model).__name__} has no {missing[0]}, which {self.name} needs")


MEASURES: dict[str, Measure] = {}


def first(split: Any, count: int) -> Split:
    """The first images of a split, all where it has fewer. ValueError for pairs, whose images have two labels each."""
    if not isinstance(split, Split):
        raise ValueError("the images are pairs, with two labels each, and this needs images with one")
    return split.select(torch.arange(min(count, len(split)), device=split.labels.device))


def measurement(
    name: str, *, version: int = 1, paper: str = "", rows: tuple[str, ...] = (), needs: tuple[str, ...] = ()
) -> Callable[[Callable], Callable]:
    """Register a function as a measure; the function itself stays as it is. Raises ValueError for a name in use."""

    def register(function: Callable) -> Callable:
        known = MEASURES.get(name)
        if known is not None and (known.function.__module__, known.function.__qualname__) != (
            function.__module__,
            function.__qualname__,
        ):
            raise ValueError(f"a measure is already called {name!r}: {known.function.__module__}; choose another name")
        MEASURES[name] = Measure(name, function, version, paper, rows, needs)
        return function

    return register


def find(name: str | Measure) -> Measure:
    """The measure of a name; ValueError with those there are."""
    if isinstance(name, Measure):
        return name
    import capsnb.measure.catalogue  # noqa: F401  registers those that come with capsnb

    if name not in MEASURES:
        raise ValueError(f"there is no measure {name!r}; there are: {', '.join(sorted(MEASURES))}")
    return MEASURES[name]
