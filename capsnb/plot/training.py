"""How training went: curves of one run, also while it trains, of variants with bands over their trials, and paths."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from capsnb.plot.layout import axes, distinct, finished
from capsnb.plot.style import GREY, array, styled
from capsnb.plot.words import describe, describes


@describes("How training went: one curve per quantity")
def learning_curve(
    history: pd.DataFrame | Iterable[Mapping[str, Any]],
    columns: Sequence[str] = ("accuracy", "validation accuracy"),
    *,
    names: Mapping[str, str] | None = None,
    x: str = "epoch",
    ylabel: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Columns of a run's history against epochs (or steps); rows without a value in a column are passed over.

    names: another name for a column in the legend.
    """
    rows = pd.DataFrame(history)
    if missing := [name for name in (x, *columns) if name not in rows] if len(rows) else []:
        raise ValueError(f"The history has no column {missing[0]!r}; it has: {', '.join(map(str, rows.columns))}.")
    ax = axes(ax, 6.0, 3.4)
    for name, shown, look in distinct({name: (names or {}).get(name, name) for name in columns}):
        known = rows[[x, name]].dropna() if len(rows) else rows
        if len(known):
            _curve(ax, known[x], known[name], label=shown, **look)
    ax.set(xlabel=x, ylabel=ylabel or (columns[0] if len(columns) == 1 else ""))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(columns) > 1 and ax.lines:
        ax.legend()
    return ax


def _curve(ax: Axes, x: Any, y: Any, *, marker: str, **options: Any) -> None:
    """A line, its points marked as long as they can be told apart."""
    ax.plot(x, y, marker=marker if len(x) <= 30 else None, **options)


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
        self.figure.savefig(picture, format="png", dpi=100, facecolor="none")
        image = Image(data=picture.getvalue(), format="png", alt=describe(self.figure))
        if self._handle is None:
            self._handle = display(image, display_id=True)
        else:
            self._handle.update(image)


@describes("One line per variant at the mean of its trials, with a band of one standard deviation")
def trial_bands(
    paths: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    ylabel: str = "",
    scale: float = 1.0,
    bound: float | None = None,
    title: str = "",
    legend: str = "",
    ax: Axes | None = None,
) -> Axes:
    """A line per variant at the mean of its trials, a band of one standard deviation (Lin, Li & Ma 2018, figs. 2, 3a).

    paths: variant -> {"x", "mean", "std"}, as `capsnb.evidence.comparison.bands` gives them; empty ones are left out.
    scale: a factor for the values, 100 for shares in percent. bound: a value to mark, such as the largest entropy.
    """
    ax = axes(ax, 6.0, 3.6)
    if bound is not None:
        ax.axhline(bound, color=GREY, linestyle="--", linewidth=1.2, label="ln J, undecided", zorder=0)
    for name, path, look in distinct(paths):
        if not len(path["x"]):
            continue
        x, mean, std = (array(path[key]).astype(float) for key in ("x", "mean", "std"))
        _curve(ax, x, scale * mean, markersize=4, label=name, **look)
        if std.any():
            low, high = scale * (mean - std), scale * (mean + std)
            ax.fill_between(x, low, high, color=look["color"], alpha=0.18, linewidth=0)
    ax.set_title(title, loc="left")
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return finished(ax, "training step", ylabel, grid="y", title=legend or None)


@describes("Entropy of the routing against accuracy as training goes on, a curve per variant")
def certainty_against_fitness(
    paths: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    spread: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    ylabel: str = "mean entropy (nats)",
    ax: Axes | None = None,
) -> Axes:
    """Entropy against accuracy, a curve per variant that darkens as training goes on (Lin, Li & Ma 2018, figure 3b).

    paths: variant -> (accuracies in shares, entropies), one value per row of the run; one without any is left out and
    keeps its colour. Grey lines join the variants at the same row, as far as all have it.
    spread: variant -> standard deviations of both over its seeds, drawn as thin bars.
    """
    ax = axes(ax, 6.0, 3.8)
    curves = {name: (100 * array(x).astype(float), array(y).astype(float)) for name, (x, y) in paths.items()}
    if bad := [name for name, (x, y) in curves.items() if x.shape != y.shape or x.ndim != 1]:
        raise ValueError(f"{bad[0]} needs as many accuracies as entropies.")
    shown = [curve for curve in curves.values() if len(curve[0])]
    for row in range(min((len(x) for x, _ in shown), default=0)):
        together = [(x[row], y[row]) for x, y in shown]
        ax.plot(*zip(*together, strict=True), color=GREY, alpha=0.35, linewidth=1, zorder=1)
    for name, (x, y), look in distinct(curves):
        if not len(x):
            continue
        ax.plot(x, y, color=look["color"], linewidth=1, alpha=0.5, zorder=2)
        ax.scatter(x, y, s=26, alpha=np.linspace(0.25, 1, len(x)), zorder=3, **look)
        if spread and name in spread:
            across, along = (array(each).astype(float) for each in spread[name])
            ax.errorbar(x, y, along, 100 * across, fmt="none", ecolor=look["color"], alpha=0.3, linewidth=0.8, zorder=2)
        ax.plot([], [], label=name, **look)
    return finished(ax, "accuracy (%)", ylabel, grid=None)
