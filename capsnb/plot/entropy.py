"""Trials in one line with a band, certainty against fitness, and what transfers (Lin, Li & Ma 2018, 3.1 and 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from capsnb.plot.style import GREY, PALETTE, array, axes
from capsnb.plot.training import MARKERS


def trial_bands(
    paths: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    ylabel: str = "",
    xlabel: str = "training step",
    scale: float = 1.0,
    bound: float | None = None,
    bound_name: str = "ln J, undecided",
    title: str = "",
    legend: str = "",
    ax: Axes | None = None,
) -> Axes:
    """A line per variant at the mean of its trials, a band of one standard deviation (figures 2 and 3a).

    paths: variant -> {"x", "mean", "std"}, as `capsnb.measure.entropy.mean_path` gives them; empty ones are left out.
    scale: a factor for the values, 100 for shares in percent. bound: a value to mark, such as the largest entropy.
    """
    ax = axes(ax, 6.0, 3.6)
    if bound is not None:
        ax.axhline(bound, color=GREY, linestyle="--", linewidth=1.2, label=bound_name, zorder=0)
    for number, (name, path) in enumerate(paths.items()):
        if not len(path["x"]):
            continue
        x, mean, std = (array(path[key]).astype(float) for key in ("x", "mean", "std"))
        colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]
        dots = marker if len(x) <= 30 else None
        ax.plot(x, scale * mean, color=colour, marker=dots, markersize=4, label=name)
        if std.any():
            ax.fill_between(x, scale * (mean - std), scale * (mean + std), color=colour, alpha=0.18, linewidth=0)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_title(title, loc="left")
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.grid(axis="y", color=GREY, alpha=0.25)
    if ax.lines:
        ax.legend(title=legend or None, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def certainty_against_fitness(
    paths: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    xlabel: str = "accuracy (%)",
    ylabel: str = "mean entropy (nats)",
    ax: Axes | None = None,
) -> Axes:
    """Entropy against accuracy, a curve per variant that darkens as training goes on (figure 3b).

    paths: variant -> (accuracies in shares, entropies), one value per row of the run. Grey lines join the variants at
    the same row, as far as all have it.
    """
    ax = axes(ax, 6.0, 3.8)
    curves = {name: (100 * array(x).astype(float), array(y).astype(float)) for name, (x, y) in paths.items()}
    if bad := [name for name, (x, y) in curves.items() if x.shape != y.shape or x.ndim != 1]:
        raise ValueError(f"{bad[0]} needs as many accuracies as entropies.")
    for row in range(min((len(x) for x, _ in curves.values()), default=0)):
        together = [(x[row], y[row]) for x, y in curves.values()]
        ax.plot(*zip(*together, strict=True), color=GREY, alpha=0.35, linewidth=1, zorder=1)
    for number, (name, (x, y)) in enumerate(curves.items()):
        colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]
        ax.plot(x, y, color=colour, linewidth=1, alpha=0.5, zorder=2)
        ax.scatter(x, y, s=26, color=colour, marker=marker, alpha=np.linspace(0.25, 1, len(x)), zorder=3)
        ax.plot([], [], color=colour, marker=marker, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if curves:
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def transfer_points(
    accuracy: Mapping[str, Mapping[str, Any]],
    schemes: Sequence[str] = ("base", "B1B", "B2B", "A1B", "A2B"),
    *,
    ylabel: str = "accuracy on domain B (%)",
    ax: Axes | None = None,
) -> Axes:
    """Accuracy of each scheme, networks side by side (figure 7): network -> scheme -> percents, one per seed.

    Values are a sequence or seed -> percent; every seed is a point, a bar stands at the mean. A line joins the means.
    """
    ax = axes(ax, 6.4, 3.6)
    count = max(len(accuracy), 1)
    for number, (network, found) in enumerate(accuracy.items()):
        colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]
        aside = (number - (count - 1) / 2) * min(0.25, 0.7 / count)
        means = []
        for place, scheme in enumerate(schemes):
            values = found.get(scheme, ())
            values = array(list(values.values()) if isinstance(values, Mapping) else values).astype(float)
            if values.size:
                x = place + aside
                ax.plot([x] * len(values), values, marker, color=colour, alpha=0.75, linestyle="none", zorder=3)
                ax.hlines(values.mean(), x - 0.1, x + 0.1, color=colour, linewidth=2.5, zorder=4)
                means.append((x, values.mean()))
        if means:
            ax.plot(*zip(*means, strict=True), color=colour, alpha=0.35, linewidth=1.2, zorder=2)
            ax.plot([], [], marker, color=colour, label=network, linestyle="none")
    ax.set_xticks(range(len(schemes)), schemes)
    ax.set(xlim=(-0.5, len(schemes) - 0.5), ylabel=ylabel, xlabel="scheme (layers kept, trained on A or B)")
    ax.grid(axis="y", color=GREY, alpha=0.25)
    if ax.lines:
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax
