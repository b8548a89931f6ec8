"""Parts that figures share: new axes and panels, looks told apart, legends in one place, rows by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from capsnb.plot.style import GREY, INK, MARKERS, PALETTE, styled

BESIDE = {"loc": "upper left", "bbox_to_anchor": (1, 1)}  # a legend to the right of its axes
PUBLISHED = {"marker": "D", "color": "white", "markeredgecolor": INK, "markersize": 8, "linestyle": "none"}


def axes(ax: Axes | None, width: float, height: float) -> Axes:
    """The axes given, or those of a new figure of that size in inches, in capsnb's style."""
    if ax is not None:
        return ax
    with styled():
        return plt.subplots(figsize=(width, height))[1]


def panels(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, np.ndarray]:
    """A new figure of that size in inches in capsnb's style, and its axes (rows, columns).

    options: of `Figure.subplots`.
    """
    with styled():
        figure = plt.figure(figsize=(width, height))
        return figure, figure.subplots(rows, columns, squeeze=False, **options)


def panels_of(
    count: int, columns: int, size: tuple[float, float], margin: tuple[float, float], **options: Any
) -> tuple[Figure, np.ndarray]:
    """`panels` of that size for so many parts, rows of at most so many; places that are left are blank."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, found = panels(margin[0] + size[0] * columns, margin[1] + size[1] * rows, rows, columns, **options)
    for ax in found.flat[count:]:
        ax.set_axis_off()
    return figure, found


def distinct(named: Mapping[str, Any]) -> Iterator[tuple[str, Any, dict[str, str]]]:
    """Name, value and look of each: a colour and a marker, as options of a line; after ten they come again."""
    for (name, value), colour, marker in zip(named.items(), cycle(PALETTE), cycle(MARKERS), strict=False):
        yield name, value, {"color": colour, "marker": marker}


def bare(ax: Axes) -> None:
    """Neither frame nor tick marks, for pictures and coloured cells; labels stay."""
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)


def labelled(panels: Iterable[Axes]) -> dict[str, Artist]:
    """What stands in a legend of all these panels: name -> artist, each name once."""
    return {name: artist for ax in panels for artist, name in zip(*ax.get_legend_handles_labels(), strict=True)}


def legend_above(figure: Figure, entries: Mapping[str, Artist], most: int) -> None:
    """One legend for all panels of the figure, above them, at most so many names side by side."""
    if entries:
        figure.legend(entries.values(), entries, loc="outside upper center", ncols=min(most, len(entries)))


def named_rows(ax: Axes, names: Sequence[Any], xlabel: str, *, legend: bool = True) -> Axes:
    """Rows 0, 1, ... by name from the top, light vertical lines, and above a legend with each label once, if any."""
    ax.set_yticks(range(len(names)), names)
    ax.set(ylim=(len(names) - 0.5, -0.5), xlabel=xlabel)
    ax.grid(axis="x", color=GREY, alpha=0.25)
    ax.tick_params(axis="y", length=0)
    seen: set[str] = set()
    for artist, name in zip(*ax.get_legend_handles_labels(), strict=True):
        if name in seen:
            artist.set_label("_nolegend_")
        seen.add(name)
    if legend and seen:
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(seen), borderaxespad=0.2)
    return ax


def number_cells(
    ax: Axes, drawn: AxesImage, values: np.ndarray, digits: int = 0, fontsize: float | None = None
) -> None:
    """Each value (R, C) in its cell of the drawn image, black or white, whichever is seen; nan is left blank."""
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            shade = np.dot(drawn.to_rgba(value)[:3], (0.299, 0.587, 0.114))
            style = {"ha": "center", "va": "center", "fontsize": fontsize}
            ax.text(column, row, f"{value:.{digits}f}", color="black" if shade > 0.5 else "white", **style)


def finished(ax: Axes, xlabel: str, ylabel: str, *, grid: str | None = "both", title: str | None = None) -> Axes:
    """Its labels, a light grid along "x", "y" or "both", and beside it a legend, if there is a name for one to show."""
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if grid:
        ax.grid(axis=grid, color=GREY, alpha=0.25)
    if labelled([ax]):
        ax.legend(title=title, **BESIDE)
    return ax


def layer_names(count: int) -> list[str]:
    """What the capsule layers of a network are called where the user does not say."""
    return ["primary", *(f"caps{number}" for number in range(1, count - 1)), "class"]


def observed(history: Iterable[Mapping[str, Any]], *columns: str) -> list[Mapping[str, Any]]:
    """The rows of a run that hold all the columns; ValueError where none does."""
    rows = [row for row in history if all(row.get(column) for column in columns)]
    if not rows:
        missing = f"columns {' and '.join(map(repr, columns))}" if len(columns) > 1 else f"column {columns[0]!r}"
        raise ValueError(f"the history has no {missing}: observe it while training.")
    return rows
