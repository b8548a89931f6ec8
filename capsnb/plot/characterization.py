"""What class capsules encode: pictures of several networks, perturbations, intervals, measured visual effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from capsnb.plot.images import image_grid
from capsnb.plot.style import GREY, ORANGE, PALETTE, array, axes, named_rows, styled
from capsnb.plot.training import MARKERS


def picture_rows(
    rows: Mapping[str, Any], *, labels: Sequence[Any] | None = None, size: float = 0.6, ax: Axes | None = None
) -> Axes:
    """A named row of pictures each, same images in the same column: name -> (N, C, H, W).

    Inputs above what networks rebuild (figure 4), above pictures from k units (figure 16) or from a path (figure 17).
    """
    shown = [array(images) for images in rows.values()]
    if len({each.shape for each in shown}) != 1:
        raise ValueError(f"rows of pictures need one shape, not {', '.join(str(each.shape) for each in shown)}.")
    shown = [each / 255.0 if each.dtype == np.uint8 else each for each in shown]
    heads = None if labels is None else [str(label) for label in labels]
    return image_grid(np.stack(shown), row_labels=list(rows), column_labels=heads, size=size, ax=ax)


def class_perturbations(
    panels: Mapping[str, Any],
    values: Mapping[str, Any],
    *,
    rows: Sequence[Any] | None = None,
    size: float = 0.36,
    ylabel: str = "class",
    xlabel: str = "from the interval's low end to its high end",
) -> Figure:
    """Perturbed pictures, a row per class: network -> (R, S, C, H, W), network -> steps (S,) or (R, S).

    Figures 5 to 7 with one interval for all classes, which stands in the title; figure 9 with one per class, which
    stands at the row's right end.
    """
    shapes = [array(grid).shape for grid in panels.values()]
    with styled():
        width = sum(size * 1.08 * shape[1] + 1.1 for shape in shapes)
        figure = plt.figure(figsize=(width, size * 1.08 * max(shape[0] for shape in shapes) + 1.0))
        found = figure.subplots(1, len(panels), squeeze=False)[0]
    for panel, (name, grid) in zip(found, panels.items(), strict=True):
        grid, steps = array(grid), array(values[name])
        if steps.shape not in {grid.shape[1:2], grid.shape[:2]}:
            raise ValueError(f"{name} has pictures {grid.shape[:2]} for steps {steps.shape}.")
        # 32 levels of grey, as in `perturbation_panels`
        names = [str(row) for row in (rows if rows is not None else range(len(grid)))]
        image_grid((grid * 31).round() / 31, row_labels=names, ax=panel)
        if steps.ndim == 1:
            panel.set_title(f"{name}\n[{steps.min():.2f}, {steps.max():.2f}]", loc="center")
        else:
            panel.set_title(name, loc="center")
            right = panel.secondary_yaxis("right")
            right.set_yticks(panel.get_yticks(), [f"[{row.min():.2f}, {row.max():.2f}]" for row in steps], fontsize=8)
            right.tick_params(length=0)
            right.spines[:].set_visible(False)
        panel.set_xticks([])
    found[0].set_ylabel(ylabel)
    figure.supxlabel(xlabel, fontsize=10)
    return figure


def perturbed_accuracy(
    networks: Mapping[str, Mapping[str, tuple[Any, Any]]], *, xlabel: str = "value", figure: Figure | None = None
) -> Figure:
    """Accuracy of a network on its own perturbed pictures (figure 8): network -> range -> (values (S,), shares (D, S)).

    A panel per network; lines are means over the dimensions, bands reach from the worst dimension to the best.
    """
    with styled():
        figure = figure or plt.figure(figsize=(1.2 + 3.1 * len(networks), 3.4))
        panels = figure.subplots(1, len(networks), squeeze=False, sharey=True)[0]
    for panel, (name, ranges) in zip(panels, networks.items(), strict=True):
        for (kind, (values, shares)), colour, marker in zip(ranges.items(), PALETTE, MARKERS, strict=False):
            shares = 100 * np.atleast_2d(array(shares))
            panel.plot(array(values), shares.mean(0), color=colour, marker=marker, markersize=4, label=kind)
            panel.fill_between(array(values), shares.min(0), shares.max(0), color=colour, alpha=0.15, linewidth=0)
        panel.set(xlabel=xlabel, ylim=(0, 103))
        panel.set_title(name)
        panel.grid(axis="y", color=GREY, alpha=0.25)
    panels[0].set_ylabel("accuracy on own pictures (%)")
    lines = {line.get_label(): line for panel in panels for line in panel.get_lines()}  # ranges differ among networks
    figure.legend(lines.values(), lines, loc="outside upper center", ncols=len(lines))
    return figure


def class_intervals(
    networks: Mapping[str, tuple[Any, Any]],
    *,
    published: Mapping[str, tuple[Any, Any]] | None = None,
    classes: Sequence[Any] | None = None,
    xlabel: str | Mapping[str, str] = "value of a pose's dimension",
    figure: Figure | None = None,
) -> Figure:
    """Each class's interval (Table 2): panel -> (low (K,), high (K,)), ours above the published one where there is one.

    xlabel: what the values are, of all panels or of each.
    """
    published = published or {}
    with styled():
        count = len(next(iter(networks.values()))[0])
        figure = figure or plt.figure(figsize=(1 + 2.9 * len(networks), 1.4 + 0.3 * count))
        panels = figure.subplots(1, len(networks), squeeze=False, sharey=True)[0]
    for panel, (name, ends) in zip(panels, networks.items(), strict=True):
        kinds = (("this run", ends, PALETTE[0], -0.14), ("published", published.get(name), ORANGE, 0.18))
        for kind, pair, colour, lift in kinds:
            if pair is not None:
                low, high = (array(end).astype(float) for end in pair)
                style = {"color": colour, "linewidth": 5 if lift < 0 else 3, "label": kind}
                panel.hlines(np.arange(len(low)) + lift, low, high, **style)
        names = [str(each) for each in (classes if classes is not None else range(len(array(ends[0]))))]
        own = xlabel if isinstance(xlabel, str) else xlabel[name]
        named_rows(panel, names, own, legend=2 if name in published else 0)
        panel.set_title(name, pad=22 if published else None)
    panels[0].set_ylabel("class")
    return figure


def feature_effects(
    effects: Mapping[str, Any],
    features: Sequence[str],
    *,
    threshold: float = 0.5,
    ylabel: str = "dimension of the pose",
    figure: Figure | None = None,
) -> Figure:
    """What each dimension moves: class or network -> (D, F) changes in spreads of the feature.

    Colours end at 3 spreads; a dot marks a change of at least `threshold`.
    """
    with styled():
        rows = len(array(next(iter(effects.values()))))
        size = (1.6 + (0.45 + 0.3 * len(features)) * len(effects), 1.5 + 0.22 * rows)
        figure = figure or plt.figure(figsize=size)
        panels = figure.subplots(1, len(effects), squeeze=False, sharey=True)[0]
    for panel, (name, values) in zip(panels, effects.items(), strict=True):
        values = array(values).astype(float)
        if values.shape[1:] != (len(features),):
            raise ValueError(f"{name} has effects {values.shape} for {len(features)} features.")
        drawn = panel.imshow(values, cmap="PuOr_r", norm=mpl.colors.Normalize(-3, 3), aspect="auto")
        row, column = np.nonzero(np.abs(values) >= threshold)
        panel.plot(column, row, ".", color="black", markersize=3)
        panel.set_title(name, loc="center")
        panel.set_xticks(range(len(features)), features, rotation=90)
        panel.set_yticks(range(len(values)))
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
    panels[0].set_ylabel(ylabel)
    label = f"change over the interval (spreads)\ndot: at least {threshold:g}"
    figure.colorbar(drawn, ax=panels, extend="both", label=label)
    return figure


def features_moved(
    counts: Mapping[str, Mapping[str, Any]], features: int, *, threshold: float = 0.5, ax: Axes | None = None
) -> Axes:
    """How many features a dimension moves: network -> "dimensions", "PCA directions", null... -> counts, any shape.

    Means, with a line from the least to the most class (rows of (K, D) counts).
    """
    ax = axes(ax, 7.0, 1.2 + 0.5 * len(counts))
    kinds = list(dict.fromkeys(kind for found in counts.values() for kind in found))
    labelled: set[str] = set()
    for row, found in enumerate(counts.values()):
        for kind, values in found.items():
            place = kinds.index(kind)
            height = row + 0.6 * ((place + 0.5) / len(kinds) - 0.5)
            classes = np.atleast_2d(array(values).astype(float)).mean(-1)
            colour = GREY if kind.startswith("null") else PALETTE[place % len(PALETTE)]
            ax.hlines(height, classes.min(), classes.max(), color=colour, linewidth=2)
            label = None if kind in labelled else kind
            labelled.add(kind)
            style = {"color": colour, "label": label, "linestyle": "none", "markersize": 7}
            ax.plot(classes.mean(), height, MARKERS[place % len(MARKERS)], **style)
    ax.set_xlim(-0.1, features + 0.1)
    xlabel = f"features of {features} that a dimension moves by at least {threshold:g} spreads"
    return named_rows(ax, list(counts), xlabel, legend=len(kinds))
