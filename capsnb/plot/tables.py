"""Coloured cells with their numbers: confusions, maps over pairs of settings, units that classes share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from capsnb.plot.layout import axes, bare, number_cells, panels
from capsnb.plot.style import BLUE, INK, ORANGE, RED, array
from capsnb.plot.words import describes


@describes("Confusion matrix: a row per true class, a column per predicted class")
def confusion(matrix: Any, classes: Sequence[Any], *, ax: Axes | None = None) -> Axes:
    """Counts (K true, K predicted). Colour shows mistakes alone, or a good network would be one blue diagonal."""
    counts = array(matrix)
    if counts.shape != (len(classes), len(classes)):
        raise ValueError(f"A confusion matrix of {len(classes)} classes is square in them, not {counts.shape}.")
    size = 1.6 + 0.42 * len(classes)
    ax = axes(ax, size + 0.9, size)
    right, most = np.eye(len(counts), dtype=bool), max(1, (counts - np.diag(np.diag(counts))).max())
    drawn = ax.imshow(np.ma.masked_array(counts, right | (counts == 0)), cmap="Reds", vmin=0, vmax=most)
    ax.figure.colorbar(drawn, ax=ax, label="mistakes (images)", shrink=0.75, ticks=MaxNLocator(5, integer=True))
    for row, column in np.ndindex(*counts.shape):
        if counts[row, column] or row == column:
            dark = counts[row, column] > 0.6 * most
            colour = INK if row == column else "white" if dark else "black"
            ax.text(column, row, f"{counts[row, column]:g}", ha="center", va="center", color=colour, fontsize=8)
    ticks = range(len(classes))
    slanted = any(len(str(name)) > 3 for name in classes)
    ax.set_xticks(ticks, classes, rotation=45 if slanted else 0, ha="right" if slanted else "center")
    ax.set_yticks(ticks, classes)
    share = counts.trace() / max(1, counts.sum())
    ax.set(xlabel="predicted", ylabel="true")
    ax.set_title(f"{counts.sum() - counts.trace():g} mistakes, {100 * share:.2f} % right", loc="left")
    return ax


@describes("Values of pairs of settings as coloured cells with their numbers")
def heat_maps(
    maps: Mapping[str, Any],
    rows: Sequence[Any],
    columns: Sequence[Any],
    *,
    ylabel: str = "",
    xlabel: str = "",
    digits: Mapping[str, int] | None = None,
    limits: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """A panel per name: values (R, C), darker where larger, each on a scale of its own; nan is left blank.

    rows, columns: what the cells of a row or of a column share, as shown on the axes. digits: decimals of the numbers
    in a panel's cells, 0 by default. limits: ends of a panel's scale, by default its least and its largest value.
    Raises ValueError for values of another shape than rows by columns.
    """
    values = {name: array(each).astype(float) for name, each in maps.items()}
    for name, each in values.items():
        if each.shape != (len(rows), len(columns)):
            raise ValueError(f"{name} has the shape {each.shape}, not {len(rows)} rows by {len(columns)} columns.")
    width = 1.4 + (1.3 + 0.75 * len(columns)) * len(values)
    figure, (found,) = panels(width, 1.3 + 0.5 * len(rows), columns=len(values), sharey=True)
    for ax, (name, each) in zip(found, values.items(), strict=True):
        low, high = (limits or {}).get(name, (None, None))
        drawn = ax.imshow(each, cmap="cividis_r", aspect="auto", vmin=low, vmax=high)
        number_cells(ax, drawn, each, (digits or {}).get(name, 0))
        ax.set_title(name, loc="left")
        ax.set_xticks(range(len(columns)), [str(each) for each in columns])
        ax.set_xlabel(xlabel)
        bare(ax)
    found[0].set_yticks(range(len(rows)), [str(each) for each in rows])
    found[0].set_ylabel(ylabel)
    return figure


@describes("Exclusive and shared units of each class, and of each pair of classes")
def unit_sharing(
    networks: Mapping[str, tuple[Any, Any, Any]], *, classes: Sequence[Any] | None = None, chance: float | None = None
) -> Figure:
    """Exclusive and shared units of each class, and of each pair (figure 15, Table 3 of Tawalbeh & Oramas 2024).

    networks: name -> (exclusive (K,), shared (K,), pairs (K, K)). chance: units that two random sets share, marked at
    the scale of the pairs.
    """
    figure, found = panels(8.2, 0.3 + 3.2 * len(networks), len(networks), 2, gridspec_kw={"width_ratios": (3, 2)})
    for (bars, table), (name, sets) in zip(found, networks.items(), strict=True):
        exclusive, shared, pairs = (array(part) for part in sets)
        names = [str(each) for each in (classes if classes is not None else range(len(exclusive)))]
        where = np.arange(len(names))
        bars.bar(where, exclusive, color=BLUE, label="exclusive", width=0.75)
        bars.bar(where, shared, bottom=exclusive, color=ORANGE, label="shared", width=0.75, hatch="//", edgecolor="w")
        bars.set_xticks(where, names)
        bars.set(ylabel="units of the class", xlabel="class")
        bars.set_title(name)
        bars.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)
        others = np.where(np.eye(len(names), dtype=bool), np.nan, pairs.astype(float))
        drawn = table.imshow(others, cmap="cividis_r", vmin=0, vmax=max(1, np.nanmax(others)))
        below = np.tri(len(names), k=-1, dtype=bool)  # each pair's number once
        number_cells(table, drawn, np.where(below, others, np.nan), fontsize=8)
        table.set_xticks(where, names)
        table.set_yticks(where, names)
        bare(table)
        table.set(xlabel="class", ylabel="class")
        table.set_title("shared by two classes")
        bar = figure.colorbar(drawn, ax=table, label="units")
        if chance is not None:
            bar.ax.axhline(chance, color=RED, linewidth=2)
            style = {"color": RED, "fontsize": 8, "va": "center", "transform": bar.ax.get_yaxis_transform()}
            bar.ax.text(1.4, chance, "chance", **style)
            bar.set_label("units", labelpad=14)
    return figure
