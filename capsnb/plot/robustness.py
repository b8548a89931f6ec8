"""Robustness side by side: effects with their seeds, curves against a transformation, sizes, perturbations, planes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from capsnb.plot.images import image_grid
from capsnb.plot.style import BLUE, GREY, ORANGE, PALETTE, RED, array, axes, named_rows, styled

MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "*")


def paired_effects(
    effects: Mapping[str, Mapping[str, Any]], *, unit: str = "difference, percentage points", ax: Axes | None = None
) -> Axes:
    """What each change does, paired by seed: a dot per seed, a bar for the interval, the published difference.

    effects: change -> {"differences": values, "interval": (low, high) or None, "published": number or None,
    "recorded": values}, all optional. The interval is that of the differences, of the recorded values where none are.
    Zero is marked: an interval that holds it decides nothing.
    """
    ax = axes(ax, 7.0, 1.2 + 0.48 * len(effects))
    labelled: set[str] = set()

    def once(name: str) -> str | None:
        return None if name in labelled else labelled.add(name) or name

    ax.axvline(0, color=RED, linestyle="--", linewidth=1.2, zorder=1)
    for row, found in enumerate(effects.values()):
        if (value := found.get("published")) is not None:
            style = {"color": "white", "markeredgecolor": "black", "markersize": 8, "zorder": 3}
            ax.plot(value, row, "D", label=once("published"), **style)
        for kind, key, colour, lift in (
            ("recorded run", "recorded", ORANGE, -0.2),
            ("this run", "differences", BLUE, 0.2),
        ):
            values = list(found.get(key) or ())
            if values:
                ax.plot(values, [row + lift] * len(values), "o", color=colour, alpha=0.75, zorder=4, label=once(kind))
                ax.vlines(np.mean(values), row + lift - 0.13, row + lift + 0.13, color=colour, linewidth=2.5, zorder=5)
        if found.get("interval") is not None:
            low, high = found["interval"]
            colour, lift = (BLUE, 0.2) if found.get("differences") else (ORANGE, -0.2)
            ax.hlines(row + lift, low, high, color=colour, linewidth=1.4, zorder=2, label=once("95 % interval"))
    return named_rows(ax, list(effects), unit, legend=len(labelled))


def factor_curves(
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    values: Mapping[str, Sequence[float]],
    *,
    units: Mapping[str, str] | None = None,
    neutral: Mapping[str, float] | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Accuracy against one transformation at a time: model -> factor -> shares, a panel per factor of `values`.

    units: what a value of a factor means; neutral: the value of the unchanged image, marked by a line.
    """
    count = len(values)
    with styled():
        figure = figure or plt.figure(figsize=(min(9.5, 1 + 2.2 * count), 3.0))
        panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    for panel, (factor, steps) in zip(panels, values.items(), strict=True):
        if neutral and factor in neutral:
            panel.axvline(neutral[factor], color=GREY, linewidth=0.8, linestyle=":")
        for (model, found), colour, marker in zip(curves.items(), PALETTE, MARKERS, strict=False):
            if factor in found:
                panel.plot(steps, 100 * array(found[factor]), marker=marker, color=colour, label=model)
        panel.set_title(factor)
        panel.set_xlabel((units or {}).get(factor, ""))
        panel.grid(axis="y", color=GREY, alpha=0.25)
    panels[0].set_ylabel("accuracy (%)")
    handles, names = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, names, loc="outside upper center", ncols=min(6, len(names)))
    return figure


def accuracy_path(
    paths: Mapping[str, Sequence[Sequence[tuple[float, float]]]],
    *,
    target: float | None = None,
    xlabel: str = "accuracy on translated digits (%)",
    ylabel: str = "accuracy on affNIST-like digits (%)",
    ax: Axes | None = None,
) -> Axes:
    """Two accuracies as training goes on: model -> a list of (x, y) per seed, in shares. At one x models are equal.

    target: the accuracy at which they are compared, marked by a line.
    """
    ax = axes(ax, 6.2, 3.8)
    for (model, seeds), colour, marker in zip(paths.items(), PALETTE, MARKERS, strict=False):
        for number, points in enumerate(seeds):
            x, y = 100 * array(points).reshape(-1, 2).T
            style = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.2}
            ax.plot(x, y, label=None if number else model, **style)
    if target is not None:
        ax.axvline(100 * target, color=RED, linestyle="--", linewidth=1.2, label=f"compared at {100 * target:.2f} %")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.grid(color=GREY, alpha=0.25)
    if paths:
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def accuracy_against_parameters(
    models: Mapping[str, tuple[int, Sequence[float]]],
    *,
    ylabel: str = "accuracy on affNIST-like digits (%)",
    ax: Axes | None = None,
) -> Axes:
    """Model -> (parameters, accuracy of each seed in percent): every seed a point, on a log axis of sizes."""
    ax = axes(ax, 6.5, 3.8)
    for (model, (size, values)), colour, marker in zip(models.items(), _colours(len(models)), _markers(), strict=False):
        if len(values):
            ax.plot([size] * len(values), values, marker, color=colour, alpha=0.8, label=model, linestyle="none")
    ax.set(xscale="log", xlabel="parameters", ylabel=ylabel)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(color=GREY, alpha=0.25)
    if models:
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def accuracy_against_setting(
    models: Mapping[str, Mapping[float, Mapping[int, float]]],
    *,
    published: Mapping[str, Mapping[float, float]] | None = None,
    xlabel: str,
    ylabel: str,
    log: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Accuracy against kernel size or pairs per digit (Table 3 and figure 3 of Gu et al. 2021).

    models: model -> setting -> seed -> accuracy in percent; seeds are dots, the line joins their means.
    published: model -> setting -> the printed accuracy, white diamonds on a dashed line of the model's colour.
    """
    ax, published = axes(ax, 6.5, 3.8), published or {}
    names = list(dict.fromkeys([*models, *published]))
    for name, colour, marker in zip(names, _colours(len(names)), _markers(), strict=False):
        settings = {x: [*seeds.values()] for x, seeds in sorted(models.get(name, {}).items()) if seeds}
        if settings:
            ax.plot(list(settings), [np.mean(values) for values in settings.values()], color=colour)
            dots = [(x, value) for x, values in settings.items() for value in values]
            ax.plot(*zip(*dots, strict=True), marker, color=colour, alpha=0.8, label=name)
        if printed := sorted(published.get(name, {}).items()):
            style = {"color": colour, "markerfacecolor": "white", "linewidth": 1.2}
            ax.plot(*zip(*printed, strict=True), "D--", label=f"{name}, published", **style)
    if log:
        ax.set_xscale("log")
    ax.set_xticks(sorted({x for found in (*models.values(), *published.values()) for x in found}))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.grid(color=GREY, alpha=0.25)
    if ax.lines:
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def perturbation_panels(
    grids: Mapping[str, Any], values: Mapping[str, Sequence[float]], *, size: float = 0.24, figure: Figure | None = None
) -> Figure:
    """Perturbed pictures of several models side by side: model -> (dims, steps, C, H, W), values: model -> its steps.

    Each panel's title names the model and its range; rows are dimensions of the pose, columns the steps. Greys are
    rounded to 32 levels, which no eye tells from the rest: hundreds of soft pictures make a notebook's largest output.
    """
    if missing := [name for name in grids if name not in values]:
        raise ValueError(f"perturbation_panels needs the steps of {missing[0]}; it has those of {', '.join(values)}.")
    shapes = [array(grid).shape for grid in grids.values()]
    with styled():
        width = sum(size * 1.08 * shape[1] + 0.5 for shape in shapes)
        figure = figure or plt.figure(figsize=(width, size * 1.08 * max(shape[0] for shape in shapes) + 0.8))
        panels = figure.subplots(1, len(grids), squeeze=False)[0]
    for panel, (name, grid) in zip(panels, grids.items(), strict=True):
        steps = list(values[name])
        if array(grid).shape[1] != len(steps):
            raise ValueError(f"{name} has {array(grid).shape[1]} pictures a row for {len(steps)} steps.")
        image_grid((array(grid) * 31).round() / 31, ax=panel)
        panel.set_title(f"{name}\n[{min(steps):g}, {max(steps):g}]", loc="center")
        panel.set_xticks([])
        panel.set_yticks([])
    panels[0].set_ylabel("dimension of the pose")
    figure.supxlabel("added to the dimension", fontsize=10)
    return figure


def pose_planes(
    clouds: Mapping[str, Mapping[Any, Any]], *, disc: Sequence[str] = (), figure: Figure | None = None
) -> Figure:
    """Poses of two numbers: model -> class -> (N, 2), a panel per model; `disc` names those that live in the unit disc.

    Every class is drawn at its own capsule's two numbers, classes of one panel over each other.
    """
    with styled():
        figure = figure or plt.figure(figsize=(3.6 * len(clouds), 3.8))
        panels = figure.subplots(1, len(clouds), squeeze=False)[0]
    for panel, (model, classes) in zip(panels, clouds.items(), strict=True):
        for (name, points), colour, marker in zip(classes.items(), PALETTE, MARKERS, strict=False):
            x, y = array(points).reshape(-1, 2).T
            panel.plot(x, y, marker, color=colour, markersize=4, alpha=0.6, label=str(name), linestyle="none")
        if model in disc:
            panel.add_patch(plt.Circle((0, 0), 1, fill=False, color=GREY, linestyle="--", linewidth=1.2))
            panel.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1))
        panel.plot(0, 0, "+", color="black", markersize=9)
        panel.set_aspect("equal", adjustable="datalim" if model not in disc else "box")
        panel.set_title(model)
        panel.set_xlabel("first number of the pose")
    panels[0].set_ylabel("second number of the pose")
    panels[-1].legend(title="class", loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _colours(count: int) -> list[str]:
    return [PALETTE[place % len(PALETTE)] for place in range(count)]


def _markers() -> list[str]:
    return list(MARKERS) * 4
