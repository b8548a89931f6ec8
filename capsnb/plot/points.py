"""Every seed a point: beside the published value, paired with a baseline, against a size or a setting, by scheme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from capsnb.plot.layout import PUBLISHED, axes, distinct, finished, labelled, legend_above, named_rows, panels
from capsnb.plot.style import BLUE, GREY, ORANGE, RED, array
from capsnb.plot.words import describes

SCHEMES = ("base", "continued", "B1B+", "B1B", "A1B", "B2B+", "B2B", "A2B")  # of `capsnb.measure.transfer`
RUNS = {"recorded run": (ORANGE, -1), "this run": (BLUE, 1)}  # its colour, and whether above or below the row


@describes("Published value and every seed of each variant as points, a row per variant")
def seed_points(
    data: Mapping[str, Mapping[str, Any]], *, unit: str = "", paired: bool = False, ax: Axes | None = None
) -> Axes:
    """Published value, recorded run and this run of each variant, every seed a point and a bar at the mean.

    data: variant -> {"published": number or None, "recorded": values, "this run": values}, each of them optional, one
    value per seed (a sequence, or seed -> value). paired: join the points of one seed across the variants.
    """
    ax = axes(ax, 6.5, 1.1 + 0.55 * len(data))
    lift = 0.17
    recorded = [_values(found.get("recorded")) for found in data.values()]
    this = [_values(found.get("this run")) for found in data.values()]
    for row, found in enumerate(data.values()):
        _row(ax, row, found.get("published"), (recorded[row], this[row]), lift, 0.14)
    if paired:
        for (colour, side), variants in zip(RUNS.values(), (recorded, this), strict=True):
            drawn = [(row + side * lift, values) for row, values in enumerate(variants) if len(values)]
            for seed in range(min((len(values) for _, values in drawn), default=0)):
                line = [(values[seed], height) for height, values in drawn]
                ax.plot(*zip(*line, strict=True), color=colour, alpha=0.35, linewidth=1, zorder=2)
    return named_rows(ax, list(data), unit)


@describes("What each change does, paired by seed, a row per change; zero is marked")
def paired_effects(
    effects: Mapping[str, Mapping[str, Any]], *, unit: str = "difference, percentage points", ax: Axes | None = None
) -> Axes:
    """What each change does, paired by seed: a dot per seed, a bar for the interval, the published difference.

    effects: change -> {"differences": values, "interval": (low, high) or None, "published": number or None,
    "recorded": values}, all optional. The interval is that of the differences, of the recorded values where none are.
    Zero is marked: an interval that holds it decides nothing.
    """
    ax = axes(ax, 7.0, 1.2 + 0.48 * len(effects))
    lift = 0.2
    ax.axvline(0, color=RED, linestyle="--", linewidth=1.2, zorder=1)
    for row, found in enumerate(effects.values()):
        recorded, this = _values(found.get("recorded")), _values(found.get("differences"))
        _row(ax, row, found.get("published"), (recorded, this), lift, 0.13)
        if found.get("interval") is not None:
            low, high = found["interval"]
            colour, side = RUNS["this run" if len(this) else "recorded run"]
            ax.hlines(row + side * lift, low, high, color=colour, linewidth=1.4, zorder=2, label="95 % interval")
    return named_rows(ax, list(effects), unit)


def _row(ax: Axes, row: int, published: Any, runs: Sequence[np.ndarray], lift: float, bar: float) -> None:
    """The published value as a diamond; above it the recorded run's points, below it this run's, with their means."""
    if published is not None:
        ax.plot(getattr(published, "value", published), row, label="published", zorder=3, **PUBLISHED)
    for (name, (colour, side)), values in zip(RUNS.items(), runs, strict=True):
        if len(values):
            height = row + side * lift
            ax.plot(values, [height] * len(values), "o", color=colour, alpha=0.75, zorder=4, label=name)
            ax.vlines(values.mean(), height - bar, height + bar, color=colour, linewidth=2.5, zorder=5)


def _values(found: Any) -> np.ndarray:
    """Numbers of the seeds (S,), from a sequence, from seed -> number, or from None, which is none."""
    found = () if found is None else list(found.values()) if isinstance(found, Mapping) else found
    return array(found).astype(float)


@describes("Accuracy of transferred layers, every seed a point, by scheme")
def transfer_points(
    accuracy: Mapping[str, Mapping[str, Any]], schemes: Sequence[str] = SCHEMES, *, ax: Axes | None = None
) -> Axes:
    """Accuracy of each scheme, networks side by side (Lin, Li & Ma 2018, figure 7): network -> scheme -> percents.

    Values are a sequence or seed -> percent; every seed is a point, a bar stands at the mean.
    """
    ax = axes(ax, max(6.4, 0.8 * len(schemes)), 3.6)
    count = max(len(accuracy), 1)
    for number, (network, found, look) in enumerate(distinct(accuracy)):
        aside = (number - (count - 1) / 2) * min(0.25, 0.7 / count)
        drawn = [(place + aside, _values(found.get(scheme))) for place, scheme in enumerate(schemes)]
        for x, values in drawn:
            if len(values):
                ax.plot([x] * len(values), values, alpha=0.75, linestyle="none", zorder=3, **look)
                ax.hlines(values.mean(), x - 0.1, x + 0.1, color=look["color"], linewidth=2.5, zorder=4)
        if any(len(values) for _, values in drawn):
            ax.plot([], [], label=network, linestyle="none", **look)
    ax.set_xticks(range(len(schemes)), schemes)
    ax.set_xlim(-0.5, len(schemes) - 0.5)
    return finished(ax, "scheme (layers kept, trained on A or B)", "accuracy on domain B (%)", grid="y")


@describes("Accuracy against a setting, a line through the means of the seeds")
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

    models: model -> setting -> seed -> accuracy in percent; seeds are dots, the line joins their means. Settings that
    are whole numbers each have a tick; others were measured and may lie close.
    published: model -> setting -> the printed accuracy, white diamonds on a dashed line of the model's colour.
    """
    ax, published = axes(ax, 6.5, 3.8), published or {}
    every = {name: models.get(name, {}) for name in (*models, *published)}
    for name, ran, look in distinct(every):
        colour = look["color"]
        settings = {x: [*seeds.values()] for x, seeds in sorted(ran.items()) if seeds}
        if settings:
            ax.plot(list(settings), [np.mean(values) for values in settings.values()], color=colour)
            dots = [(x, value) for x, values in settings.items() for value in values]
            ax.plot(*zip(*dots, strict=True), alpha=0.8, label=name, linestyle="none", **look)
        if printed := sorted(published.get(name, {}).items()):
            style = {"color": colour, "markerfacecolor": "white", "linewidth": 1.2}
            ax.plot(*zip(*printed, strict=True), "D--", label=f"{name}, published", **style)
    if log:
        ax.set_xscale("log")
    places = sorted({x for found in (*models.values(), *published.values()) for x in found})
    if all(float(x).is_integer() for x in places):
        ax.set_xticks(places)
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    return finished(ax, xlabel, ylabel)


@describes("What each model has right of digits at two kinds of places, a panel per distortion; lines join the two")
def two_places(
    parts: Mapping[str, Mapping[str, Mapping[str, Any]]], *, unit: str = "", chance: float | None = None
) -> Figure:
    """What a place costs, model by model: panel -> model -> {"where it was trained": values, "elsewhere": values}.

    Values are a sequence or seed -> number, the first name is drawn filled and the second open, every seed a point, and
    a line joins their means: its length is what the place costs. chance: marked, where given.
    """
    models = list(next(iter(parts.values())))
    figure, (found,) = panels(2.0 + 1.9 * len(parts), 1.4 + 0.36 * len(models), columns=len(parts), sharey=True)
    for ax, (title, rows) in zip(found, parts.items(), strict=True):
        for row, places in enumerate(rows.values()):
            means = []
            for (place, found_there), colour in zip(places.items(), (BLUE, ORANGE), strict=True):
                values = _values(found_there)
                face = colour if not means else "white"
                style = {"color": colour, "markerfacecolor": face, "linestyle": "none", "alpha": 0.85}
                ax.plot(values, [row] * len(values), "o", label=place, zorder=3, markersize=5, **style)
                means.append(values.mean())
            ax.plot(means, [row, row], color=GREY, linewidth=2.5, alpha=0.6, zorder=2)
        if chance is not None:
            ax.axvline(chance, color=RED, linestyle="--", linewidth=1.2, label="chance")
        ax.set_title(title)
        ax.set_yticks(range(len(models)), models)
        ax.set_xlabel(unit)
        ax.grid(axis="x", color=GREY, alpha=0.25)
    found[0].invert_yaxis()
    legend_above(figure, labelled(found), 3)
    return figure
