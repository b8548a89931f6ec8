"""A known plane of shifts, what a network makes of it, and how faithful that is (Lin, Li & Ma 2018, sec. 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from capsnb.plot.images import image_grid
from capsnb.plot.style import BLUE, GREY, ORANGE, PALETTE, array, axes, styled
from capsnb.plot.training import MARKERS

BETTER = {"chamfer": "lower", "procrustes": "lower", "trustworthiness": "higher", "spearman": "higher"}


def shift_images(images: Any, offsets: Any, *, step: int = 4, size: float = 0.7, ax: Axes | None = None) -> Axes:
    """Images of a shift set at every `step`-th shift, in their grid (figure 4): (S, C, H, W), shifts (S, 2)."""
    shown, places = array(images), array(offsets).astype(int)
    kept = sorted(set(places[:, 0].tolist()))[::step]
    index = {tuple(place): number for number, place in enumerate(places.tolist())}
    table = np.stack([[shown[index[row, column]] for column in kept] for row in kept])
    ax = image_grid(
        table,
        row_labels=[f"{row:+d}" if row else "0" for row in kept],
        column_labels=[f"{column:+d}" if column else "0" for column in kept],
        size=size,
        ax=ax,
    )
    ax.set(ylabel="down (px)", xlabel="to the right (px)")
    return ax


def embedded_grid(points: Any, offsets: Any, *, title: str = "", ax: Axes | None = None) -> Axes:
    """Points of the plane (S, 2) joined as their shifts (S, 2) are neighbours in the grid (figure 5).

    Shifts along a row are joined in one colour, along a column in the other; the unshifted image has a ring. A faithful
    embedding is a net of squares.
    """
    places, shifts = array(points), array(offsets).astype(int)
    if places.shape != (len(shifts), 2):
        raise ValueError(f"points of the plane (S, 2) are needed for shifts {shifts.shape}, not {places.shape}.")
    ax = axes(ax, 3.4, 3.4)
    for axis, colour, name in ((0, BLUE, "to the right"), (1, ORANGE, "down")):
        for number, value in enumerate(sorted(set(shifts[:, axis].tolist()))):
            line = np.flatnonzero(shifts[:, axis] == value)
            line = line[np.argsort(shifts[line, 1 - axis])]
            label = None if number else name
            ax.plot(*places[line].T, color=colour, linewidth=1.1, alpha=0.8, label=label, zorder=1 + axis)
    ax.plot(*places.T, "o", color="black", markersize=2.2, zorder=3)
    home = places[(shifts == 0).all(1)]
    ax.plot(*home.T, "o", color="none", markeredgecolor="black", markersize=8, markeredgewidth=1.4, zorder=4)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(xticks=[], yticks=[])  # t-SNE has neither units nor orientation
    ax.spines[:].set_visible(False)
    ax.set_title(title, loc="left")
    return ax


def embedded_grids(panels: Mapping[str, tuple[Any, Any]], *, columns: int = 4) -> Figure:
    """A panel per representation: title -> (points, shifts)."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    with styled():
        figure = plt.figure(figsize=(2.7 * columns, 2.9 * rows + 0.3))
        places = figure.subplots(rows, columns, squeeze=False)
    for ax, (title, (points, offsets)) in zip(places.flat, panels.items(), strict=False):
        embedded_grid(points, offsets, title=title, ax=ax)
    for ax in places.flat[len(panels) :]:
        ax.axis("off")
    handles, names = places[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper right", ncols=2, title="the digit moves")
    return figure


def faithfulness_points(
    networks: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    nulls: Mapping[str, Mapping[str, float]] | None = None,
    published: Mapping[str, float] | None = None,
    measures: Sequence[str] = tuple(BETTER),
) -> Figure:
    """A panel per measure: network -> measure -> values, every one a point, their mean a bar.

    nulls: name -> measure -> number, what points that know nothing score, as a line. published: network -> Chamfer
    distance of the paper.
    """
    with styled():
        figure = plt.figure(figsize=(2.5 * len(measures) + 1.2, 1.5 + 0.42 * len(networks)))
        panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    rng = np.random.default_rng(0)
    for panel, measure in zip(panels, measures, strict=True):
        for row, (name, found) in enumerate(networks.items()):
            values = array(found.get(measure, ())).astype(float)
            values = values[np.isfinite(values)]
            if len(values):
                jitter = row + rng.uniform(-0.18, 0.18, len(values))
                panel.plot(values, jitter, "o", color=BLUE, alpha=0.45, markersize=4, label="this run")
                panel.vlines(values.mean(), row - 0.3, row + 0.3, color=BLUE, linewidth=2.5)
            if measure == "chamfer" and name in (published or {}):
                style = {"color": "white", "markeredgecolor": "black", "markersize": 8, "linestyle": "none"}
                panel.plot(published[name], row, "D", zorder=4, label="published", **style)
        for (name, scores), style in zip((nulls or {}).items(), ("--", ":", "-."), strict=False):
            if np.isfinite(scores.get(measure, np.nan)):
                panel.axvline(scores[measure], color=GREY, linestyle=style, label=name, zorder=0)
        panel.set_title(measure, loc="left")
        panel.set_xlabel(f"{BETTER.get(measure, '')} is better")
        panel.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(networks)), list(networks))
    panels[0].set_ylim(len(networks) - 0.4, -0.6)
    labels = {}
    for panel in panels:
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True):
            labels.setdefault(name, handle)
    figure.legend(labels.values(), labels, loc="outside upper center", ncols=5)
    return figure


def grid_distances(
    networks: Mapping[str, tuple[Any, Any]], *, ylabel: str = "distance of the representations", ax: Axes | None = None
) -> Axes:
    """What `spearman` ranks: distances of representations (S, d) against those of the shifts (S, 2), in pixels.

    network -> (points, shifts). Mean and range from the 10th to the 90th percentile at each distance of the grid, every
    network scaled to a mean of 1.
    """
    ax = axes(ax, 5.2, 3.4)
    for (name, (points, offsets)), colour, marker in zip(networks.items(), PALETTE, MARKERS, strict=False):
        points, offsets = array(points).astype(float), array(offsets).astype(float)
        upper = np.triu_indices(len(points), 1)
        found = np.linalg.norm(points[upper[0]] - points[upper[1]], axis=1)
        true = np.linalg.norm(offsets[upper[0]] - offsets[upper[1]], axis=1).round(6)
        steps = np.unique(true)
        each = [found[true == step] / found.mean() for step in steps]
        ax.plot(steps, [part.mean() for part in each], color=colour, marker=marker, markersize=4, label=name)
        low, high = (np.array([np.percentile(part, at) for part in each]) for at in (10, 90))
        ax.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    ax.set(xlabel="distance of the shifts (px)", ylabel=ylabel, ylim=(0, None))
    ax.legend()
    return ax
