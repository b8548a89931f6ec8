"""Two models side by side under one set of controls."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets
import traitlets

from capsnb.data import DataSpec, ImageSet
from capsnb.explore.base import Explorer
from capsnb.explore.controls import STYLE, row, stage
from capsnb.explore.perturbation import PerturbationExplorer
from capsnb.explore.subjects import subject


class Compare(widgets.VBox):
    """An explorer of two models with the same picture and the same state.

        Compare("capsnet-small", "rem-small", RoutingExplorer, iterations=5)

    explorer: the class of explorer. data: the images of both, those of the first model when None. state: as the
    explorer's. `left` and `right` are explorers, each with its own model to choose; setting a trait of one sets it in
    the other. Raises ValueError for models that do not take the same images.
    """

    def __init__(
        self,
        first: Any = "capsnet-small",
        second: Any = "rem-small",
        explorer: type[Explorer] = PerturbationExplorer,
        *,
        data: ImageSet | DataSpec | str | None = None,
        **state: Any,
    ) -> None:
        given = subject(first, data)
        self.left, self.right = (explorer(each, data=given.data, **state) for each in (given, second))
        for name in explorer.state_names():
            traitlets.link((self.left, name), (self.right, name))
        traitlets.link((self.left.chooser, "uploaded"), (self.right.chooser, "uploaded"))
        super().__init__()
        self.sides = [self.left.shown, self.right.shown]
        for side in self.sides:
            side.layout = {"flex": "1 1 260px", "min_width": "256px", "overflow": "visible"}
        self.add_class("capsnb")
        self.children = [widgets.HTML(STYLE), stage(row(self.sides, "capsnb-view"), self.left.head)]

    def code(self) -> str:
        """The line of Python that opens this comparison in its present state (but for an uploaded picture)."""
        models = f"{self.left.subject.code}, {self.right.subject.code}"
        return f"Compare({models}, {type(self.left).__name__}{self.left.arguments()})"
