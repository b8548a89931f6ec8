"""What class capsules encode: perturbed pictures, the intervals of their dimensions, accuracies and visual effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from capsnb.plot.images import GAP, image_grid
from capsnb.plot.layout import bare, named_rows, panels
from capsnb.plot.style import BLUE, ORANGE, RED, array
from capsnb.plot.words import describes


@describes("Pictures decoded from a class capsule whose pose is changed, a row per dimension")
def perturbation_grid(images: Any, values: Sequence[float], *, size: float = 0.5, ax: Axes | None = None) -> Axes:
    """What each dimension of a class capsule encodes: images (dims, steps, [C,] H, W), one row per dimension.

    values: the steps, in the pose's own scale; the step nearest to no change is framed when a zero is among them.
    """
    shown = array(images)
    if shown.ndim == 4:
        shown = shown[:, :, None]
    if shown.ndim != 5 or shown.shape[1] != len(values):
        raise ValueError(f"perturbation_grid takes (dims, {len(values)} steps, [C,] H, W), not {array(images).shape}.")
    rows = len(shown)
    labels = [f"{value:+.2f}" if value else "0" for value in np.round(values, 10)]
    ax = image_grid(shown, row_labels=[str(row) for row in range(rows)], column_labels=labels, size=size, ax=ax)
    ax.set_xlabel("added to the dimension", labelpad=6)
    ax.set_ylabel("dimension of the pose")
    if "0" in labels:
        width = shown.shape[-1]
        left = labels.index("0") * width * (1 + GAP)
        ax.axvspan(left - GAP * width / 2, left + width * (1 + GAP / 2), fill=False, edgecolor=RED, linewidth=1.5)
    return ax


@describes("Pictures decoded from changed poses, models side by side, a row per dimension")
def perturbation_panels(
    grids: Mapping[str, Any], values: Mapping[str, Sequence[float]], *, size: float = 0.24
) -> Figure:
    """Perturbed pictures of several models side by side: model -> (dims, steps, C, H, W), values: model -> its steps.

    Each panel's title names the model and its range; rows are dimensions of the pose, columns the steps.
    """
    if missing := [name for name in grids if name not in values]:
        raise ValueError(f"perturbation_panels needs the steps of {missing[0]}; it has those of {', '.join(values)}.")
    grids = {name: array(grid) for name, grid in grids.items()}
    figure, found = _panels_for(grids, size, (0.5, 0.8), "dimension of the pose", "added to the dimension")
    for ax, (name, grid) in zip(found, grids.items(), strict=True):
        steps = values[name]
        if grid.shape[1] != len(steps):
            raise ValueError(f"{name} has {grid.shape[1]} pictures a row for {len(steps)} steps.")
        image_grid(_few_greys(grid), ax=ax)
        ax.set_title(f"{name}\n[{min(steps):g}, {max(steps):g}]", loc="center")
    return figure


@describes("Pictures decoded from changed poses, a row per class, networks side by side")
def class_perturbations(
    grids: Mapping[str, Any],
    values: Mapping[str, Any],
    *,
    rows: Sequence[Any] | None = None,
    size: float = 0.36,
    xlabel: str = "from the interval's low end to its high end",
) -> Figure:
    """Perturbed pictures, a row per class: network -> (R, S, C, H, W), network -> steps (S,) or (R, S).

    Figures 5 to 7 with one interval for all classes, which stands in the title; figure 9 with one per class, which
    stands at the row's right end. rows: what the classes are called.
    """
    grids = {name: array(grid) for name, grid in grids.items()}
    figure, found = _panels_for(grids, size, (1.1, 1.0), "class", xlabel)
    for ax, (name, grid) in zip(found, grids.items(), strict=True):
        steps = array(values[name])
        if steps.shape not in {grid.shape[1:2], grid.shape[:2]}:
            raise ValueError(f"{name} has pictures {grid.shape[:2]} for steps {steps.shape}.")
        names = [str(row) for row in (rows if rows is not None else range(len(grid)))]
        image_grid(_few_greys(grid), row_labels=names, ax=ax)
        if steps.ndim == 1:
            ax.set_title(f"{name}\n[{steps.min():.2f}, {steps.max():.2f}]", loc="center")
        else:
            ax.set_title(name, loc="center")
            right = ax.secondary_yaxis("right")
            right.set_yticks(ax.get_yticks(), [f"[{row.min():.2f}, {row.max():.2f}]" for row in steps], fontsize=8)
            bare(right)
    return figure


def _panels_for(
    grids: Mapping[str, np.ndarray], size: float, margin: tuple[float, float], ylabel: str, xlabel: str
) -> tuple[Figure, np.ndarray]:
    """A panel for each grid (R, S, C, H, W) of images that are `size` inches wide, in margins of so many inches."""
    width = sum(size * (1 + GAP) * grid.shape[1] + margin[0] for grid in grids.values())
    height = size * (1 + GAP) * max(len(grid) for grid in grids.values()) + margin[1]
    figure, (found,) = panels(width, height, columns=len(grids))
    found[0].set_ylabel(ylabel)
    figure.supxlabel(xlabel, fontsize=10)
    return figure, found


def _few_greys(images: np.ndarray) -> np.ndarray:
    """32 levels, which no eye tells from the rest: hundreds of soft pictures make a notebook's largest output."""
    return (images * 31).round() / 31


@describes("Interval that the dimensions of each class's pose take, a row per class")
def class_intervals(
    networks: Mapping[str, tuple[Any, Any]],
    *,
    published: Mapping[str, tuple[Any, Any]] | None = None,
    xlabel: str | Mapping[str, str] = "value of a pose's dimension",
) -> Figure:
    """Each class's interval (Table 2): panel -> (low (K,), high (K,)), ours above the published one where there is one.

    xlabel: what the values are, of all panels or of each.
    """
    published = published or {}
    count = len(next(iter(networks.values()))[0])
    figure, (found,) = panels(1 + 2.9 * len(networks), 1.4 + 0.3 * count, columns=len(networks), sharey=True)
    for ax, (name, ends) in zip(found, networks.items(), strict=True):
        kinds = {"this run": (ends, BLUE, -0.14, 5), "published": (published.get(name), ORANGE, 0.18, 3)}
        for kind, (pair, colour, lift, thick) in kinds.items():
            if pair is not None:
                low, high = (array(end).astype(float) for end in pair)
                ax.hlines(np.arange(len(low)) + lift, low, high, color=colour, linewidth=thick, label=kind)
        own = xlabel if isinstance(xlabel, str) else xlabel[name]
        named_rows(ax, range(count), own, legend=name in published)
        ax.set_title(name, pad=22 if published else None)
    found[0].set_ylabel("class")
    return figure


@describes("What each dimension of a pose moves: a row per dimension, a column per visual feature")
def feature_effects(effects: Mapping[str, Any], features: Sequence[str], *, threshold: float = 0.5) -> Figure:
    """What each dimension moves: class or network -> (D, F) changes, in units of the feature's spread in the class.

    Colours end at 3 spreads; a dot marks a change of at least `threshold`.
    """
    rows = len(next(iter(effects.values())))
    width = 1.6 + (0.45 + 0.3 * len(features)) * len(effects)
    figure, (found,) = panels(width, 1.5 + 0.22 * rows, columns=len(effects), sharey=True)
    for ax, (name, values) in zip(found, effects.items(), strict=True):
        values = array(values).astype(float)
        if values.shape[1:] != (len(features),):
            raise ValueError(f"{name} has effects {values.shape} for {len(features)} features.")
        drawn = ax.imshow(values, cmap="PuOr_r", vmin=-3, vmax=3, aspect="auto")
        row, column = np.nonzero(np.abs(values) >= threshold)
        ax.plot(column, row, ".", color="black", markersize=3)
        ax.set_title(name, loc="center")
        ax.set_xticks(range(len(features)), features, rotation=90)
        ax.set_yticks(range(len(values)))
        bare(ax)
    found[0].set_ylabel("dimension of the pose")
    label = f"change over the interval (spreads)\ndot: at least {threshold:g}"
    figure.colorbar(drawn, ax=found, extend="both", label=label)
    return figure
