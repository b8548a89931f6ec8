"""How training went and what it led to: curves, confusion, seeds beside the published value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from capsnb.plot.style import BLUE, GREY, ORANGE, PALETTE, RED, array, axes, named_rows

MARKERS = ("o", "s", "D", "^", "v", "P", "X")


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
    for name, colour, marker in zip(columns, PALETTE, MARKERS, strict=False):
        known = rows[[x, name]].dropna() if len(rows) else rows
        if len(known):
            dots = marker if len(known) <= 30 else None
            ax.plot(known[x], known[name], marker=dots, color=colour, label=(names or {}).get(name, name))
    ax.set(xlabel=x, ylabel=ylabel or (columns[0] if len(columns) == 1 else ""))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(columns) > 1 and ax.lines:
        ax.legend()
    return ax


def confusion(matrix: Any, classes: Sequence[Any], *, ax: Axes | None = None) -> Axes:
    """Counts (K true, K predicted). Colour shows mistakes alone, or a good network would be one blue diagonal."""
    counts = array(matrix)
    if counts.shape != (len(classes), len(classes)):
        raise ValueError(f"A confusion matrix of {len(classes)} classes is square in them, not {counts.shape}.")
    size = 1.6 + 0.42 * len(classes)
    ax = axes(ax, size + 0.9, size)
    mistakes = np.ma.masked_array(counts, np.eye(len(counts), dtype=bool))
    drawn = ax.imshow(mistakes, cmap="Reds", vmin=0, vmax=max(1, mistakes.max()))
    ax.figure.colorbar(drawn, ax=ax, label="mistakes (images)", shrink=0.75, ticks=MaxNLocator(5, integer=True))
    for row, column in np.ndindex(*counts.shape):
        if counts[row, column] or row == column:
            dark = row != column and counts[row, column] > 0.6 * mistakes.max()
            colour = "white" if dark else "black"
            ax.text(column, row, f"{counts[row, column]:g}", ha="center", va="center", color=colour, fontsize=8)
    ticks = range(len(classes))
    slanted = any(len(str(name)) > 3 for name in classes)
    ax.set_xticks(ticks, classes, rotation=45 if slanted else 0, ha="right" if slanted else "center")
    ax.set_yticks(ticks, classes)
    right = counts.trace() / max(1, counts.sum())
    ax.set(xlabel="predicted", ylabel="true")
    ax.set_title(f"{counts.sum() - counts.trace():g} mistakes, {100 * right:.2f} % right", loc="left")
    return ax


def seed_points(
    data: Mapping[str, Mapping[str, Any]], *, unit: str = "", paired: bool = False, ax: Axes | None = None
) -> Axes:
    """Published value, recorded run and this run of each variant, every seed a point and a bar at the mean.

    data: variant -> {"published": number or None, "recorded": values, "this run": values}, each of them optional, one
    value per seed (a sequence, or seed -> value). paired: join the points of one seed across the variants.
    """
    ax = axes(ax, 6.5, 1.1 + 0.55 * len(data))
    kinds = {"recorded": (ORANGE, -0.17, "recorded run"), "this run": (BLUE, 0.17, "this run")}
    labelled: set[str] = set()
    places = {kind: [] for kind in kinds}
    for row, found in enumerate(data.values()):
        if (value := found.get("published")) is not None:
            value = getattr(value, "value", value)
            name = None if "published" in labelled else "published"
            ax.plot(value, row, "D", color="white", markeredgecolor="black", markersize=8, zorder=3, label=name)
            labelled.add("published")
        for kind, (colour, lift, name) in kinds.items():
            values = found.get(kind)
            values = list(values.values()) if isinstance(values, Mapping) else [] if values is None else list(values)
            places[kind].append((row + lift, values))
            if values:
                label = None if kind in labelled else name
                ax.plot(values, [row + lift] * len(values), "o", color=colour, alpha=0.75, zorder=4, label=label)
                ax.vlines(np.mean(values), row + lift - 0.14, row + lift + 0.14, color=colour, linewidth=2.5, zorder=5)
                labelled.add(kind)
    if paired:
        for kind, rows in places.items():
            counts = {len(values) for _, values in rows if values}
            for seed in range(min(counts, default=0)):
                line = [(values[seed], height) for height, values in rows if values]
                ax.plot(*zip(*line, strict=True), color=kinds[kind][0], alpha=0.35, linewidth=1, zorder=2)
    return named_rows(ax, list(data), unit, legend=len(labelled))


def lengths(
    scores: Any,
    *,
    classes: Sequence[Any] | None = None,
    label: int | None = None,
    margins: tuple[float, float] | None = (0.1, 0.9),
    ax: Axes | None = None,
) -> Axes:
    """Lengths of the class capsules for one image, (K,): the network's belief in each class, in [0, 1).

    label: index of the true class, drawn in colour. margins: the lengths the margin loss asks for, absent and present.
    """
    values = array(scores).squeeze()
    if values.ndim != 1:
        raise ValueError(f"lengths shows one image, scores (K,), not {array(scores).shape}.")
    ax = axes(ax, 1.5 + 0.42 * len(values), 2.6)
    colours = [BLUE if place == label else GREY for place in range(len(values))]
    ax.bar(range(len(values)), values, color=colours, width=0.75)
    ax.set_xticks(range(len(values)), classes if classes is not None else range(len(values)))
    ax.set(ylim=(0, max(1.0, float(values.max()))), ylabel="length", xlabel="class capsule")
    for margin in margins or ():
        ax.axhline(margin, color=RED, linewidth=1, linestyle="--", zorder=0)
        ax.annotate(
            f"{margin:g}",
            (1.0, margin),
            (3, 0),  # points to the right of the line's end
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            color=RED,
            fontsize=8,
            va="center",
        )
    return ax
