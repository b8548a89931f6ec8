"""Points of a plane: embeddings of a grid of shifts (Lin, Li & Ma 2018, sec. 3.2), and poses of two numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from capsnb.plot.layout import BESIDE, axes, distinct, labelled, panels, panels_of
from capsnb.plot.style import BLUE, GREY, INK, ORANGE, array
from capsnb.plot.words import describes


@describes("Points of a plane joined as their shifts are neighbours in the grid")
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
    ax.plot(*places.T, "o", color=INK, markersize=2.2, zorder=3)
    home = places[(shifts == 0).all(1)]
    ax.plot(*home.T, "o", color="none", markeredgecolor=INK, markersize=8, markeredgewidth=1.4, zorder=4)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(xticks=[], yticks=[])  # t-SNE has neither units nor orientation
    ax.spines[:].set_visible(False)
    ax.set_title(title, loc="left")
    return ax


@describes("Grids of shifts embedded in the plane, a panel per representation")
def embedded_grids(grids: Mapping[str, tuple[Any, Any]], *, columns: int = 4) -> Figure:
    """A panel per representation: title -> (points, shifts)."""
    figure, found = panels_of(len(grids), columns, (2.7, 2.9), (0, 0.3))
    for ax, (title, (points, offsets)) in zip(found.flat, grids.items(), strict=False):
        embedded_grid(points, offsets, title=title, ax=ax)
    entries = labelled(found[0, :1])
    figure.legend(entries.values(), entries, loc="outside upper right", ncols=2, title="the digit moves")
    return figure


@describes("Poses of two numbers as points of the plane, coloured by class, a panel per model")
def pose_planes(clouds: Mapping[str, Mapping[Any, Any]], *, disc: Sequence[str] = ()) -> Figure:
    """Poses of two numbers: model -> class -> (N, 2), a panel per model; `disc` names those that live in the unit disc.

    Every class is drawn at its own capsule's two numbers, classes of one panel over each other.
    """
    figure, (found,) = panels(3.6 * len(clouds), 3.8, columns=len(clouds))
    for ax, (model, classes) in zip(found, clouds.items(), strict=True):
        for name, points, look in distinct(classes):
            x, y = array(points).reshape(-1, 2).T
            ax.plot(x, y, markersize=4, alpha=0.6, label=str(name), linestyle="none", **look)
        if model in disc:
            ax.add_patch(Circle((0, 0), 1, fill=False, color=GREY, linestyle="--", linewidth=1.2))
            ax.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1))
        ax.plot(0, 0, "+", color=INK, markersize=9)
        ax.set_aspect("equal", adjustable="datalim" if model not in disc else "box")
        ax.set_title(model)
        ax.set_xlabel("first number of the pose")
    found[0].set_ylabel("second number of the pose")
    found[-1].legend(title="class", **BESIDE)
    return figure
