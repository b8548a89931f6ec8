"""A curve that grows while a network trains: one output, replaced, without widgets."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from typing import Any

from matplotlib.figure import Figure

from capsnb.plot.style import styled
from capsnb.plot.training import learning_curve


class LiveCurve:
    """Draws columns of a run's rows as they come, at most every `pause` seconds, and once more at the end.

        for row in LiveCurve("accuracy", "validation accuracy").follow(train(model, digits, recipe)):
            ...

    columns: accuracy and validation accuracy when none is given. names: another name for a column in the legend.
    Outside a notebook nothing is shown; `rows` and `figure` hold the same things.
    """

    def __init__(
        self,
        *columns: str,
        names: Mapping[str, str] | None = None,
        x: str = "epoch",
        ylabel: str | None = None,
        pause: float = 1.0,
    ) -> None:
        self.columns, self.names = columns or ("accuracy", "validation accuracy"), names
        self.x, self.ylabel, self.pause = x, ylabel, pause
        self.rows: list[Mapping[str, Any]] = []
        self.figure: Figure | None = None
        self._handle = None
        self._drawn = float("-inf")

    def follow(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """The same rows, drawn on their way through; the last state is drawn even when the loop is left early."""
        try:
            for row in rows:
                self.add(row)
                yield row
        finally:
            if self.rows:
                self.draw()

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one more row and redraw, unless the last drawing is younger than `pause`."""
        self.rows.append(row)
        if time.monotonic() - self._drawn >= self.pause:
            self.draw()

    def draw(self) -> None:
        """Draw all rows so far into the one output of this curve."""
        with styled():
            # a figure that pyplot does not know is not shown a second time at the end of the cell
            self.figure = Figure(figsize=(6, 3.2))
            known = [name for name in self.columns if any(name in row for row in self.rows)]
            ax = self.figure.add_subplot()
            learning_curve(self.rows, known, names=self.names, x=self.x, ylabel=self.ylabel, ax=ax)
            self._show()
        self._drawn = time.monotonic()

    def _show(self) -> None:
        try:
            from IPython import get_ipython
            from IPython.display import Image, display
        except ImportError:
            return
        if get_ipython() is None:
            return
        picture = BytesIO()
        self.figure.savefig(picture, format="png", dpi=100)
        image = Image(data=picture.getvalue(), format="png")
        if self._handle is None:
            self._handle = display(image, display_id=True)
        else:
            self._handle.update(image)
