"""One quantity against another, a line per model, a panel per part: ablations, levels, transforms, thresholds, cost."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from capsnb.plot.layout import BESIDE, PUBLISHED, axes, distinct, labelled, legend_above, panels, panels_of
from capsnb.plot.style import GREY, MARKERS, PALETTE, RED, array
from capsnb.plot.words import describes


@describes("Accuracy against the number of units that are left, a panel per part")
def ablation_curves(
    parts: Mapping[str, Mapping[str, tuple[Sequence[int], Any]]],
    *,
    chosen: Mapping[str, int] | None = None,
    dense: float | None = None,
    xlabel: str = "units left (k)",
    columns: int = 3,
) -> Figure:
    """Accuracy against the number of units that are left (figures 10 to 14): panel -> curve -> (ks, shares).

    shares: (S,), or (S, K) for the classes, which are drawn as thin lines around their mean. A curve whose name starts
    with "null" is grey. chosen: panel -> the k in use; dense: the share of the whole network.
    """
    figure, found = panels_of(len(parts), columns, (3.1, 2.5), (1, 0.9), sharey=True)
    colours = _colours(parts)
    for ax, (name, curves) in zip(found.flat, parts.items(), strict=False):
        for marker, (curve, (ks, shares)) in zip(MARKERS, curves.items(), strict=False):
            shares = 100 * array(shares).astype(float)
            if len(shares) != len(ks):
                raise ValueError(f"{name}, {curve}: {len(ks)} values of k for {len(shares)} accuracies.")
            if shares.ndim == 2:
                ax.plot(ks, shares, color=colours[curve], alpha=0.35, linewidth=0.8)
                shares = shares.mean(1)
            style = {"linestyle": "--" if curve.startswith("null") else "-", "marker": marker, "markersize": 4}
            ax.plot(ks, shares, color=colours[curve], label=curve, **style)
        if dense is not None:
            ax.axhline(100 * dense, color=GREY, linewidth=1, linestyle=":", label="whole network")
        if chosen and name in chosen:
            ax.axvline(chosen[name], color=RED, linewidth=1.2, linestyle="--", label="k in use")
        ax.set(ylim=(0, 103), xlabel=xlabel)
        _log_scale(ax, {k for ks, _ in curves.values() for k in ks})
        ax.set_title(name)
        ax.grid(axis="y", color=GREY, alpha=0.25)
    for ax in found[:, 0]:
        ax.set_ylabel("accuracy (%)")
    legend_above(figure, labelled(found.flat), 4)
    return figure


def _colours(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """One colour per name of a curve in all panels; nulls are grey."""
    names = dict.fromkeys(curve for curves in parts.values() for curve in curves)
    own = [name for name in names if not name.startswith("null")]
    return dict.fromkeys(names, GREY) | dict(zip(own, PALETTE, strict=False))


def _log_scale(ax: Axes, ticks: set[int]) -> None:
    """A logarithmic x axis, with those of the ticks that leave room for each other's label."""
    kept: list[int] = []
    for tick in sorted(ticks):
        if tick > 0 and (not kept or tick >= 1.8 * kept[-1]):
            kept.append(tick)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(kept))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(lambda k, _: f"{k:g}")


@describes("A quantity against a setting, a panel per part; lines are means over seeds, bands reach from seed to seed")
def seed_bands(
    parts: Mapping[str, Mapping[str, tuple[Sequence[float], Any]]],
    *,
    xlabel: str = "",
    ylabel: str = "",
    ylim: tuple[float, float] | None = None,
    log: bool = False,
    marks: Mapping[str, Sequence[float]] | None = None,
    columns: int = 3,
) -> Figure:
    """Curves of several seeds: panel -> curve -> (x (S,), values (seeds, S)), mean and range over seeds.

    A curve whose name starts with "null" is grey and dashed or dotted. marks: panel -> printed values at the first
    curve's x. Raises ValueError for values of another length than x.
    """
    figure, found = panels_of(len(parts), columns, (2.9, 2.5), (1, 0.9), sharey=True)
    colours, entries = _colours(parts), {}
    markers = dict(zip(colours, itertools.cycle(MARKERS), strict=False))
    for ax, (name, curves) in zip(found.flat, parts.items(), strict=False):
        dashes = itertools.cycle(("--", ":", "-."))
        for curve, (x, values) in curves.items():
            each = np.atleast_2d(array(values).astype(float))
            if each.shape[1] != len(x):
                raise ValueError(f"{name}, {curve}: {len(x)} values of x for {each.shape[1]} of the curve.")
            style = {"color": colours[curve], "linestyle": next(dashes) if curve.startswith("null") else "-"}
            (line,) = ax.plot(x, each.mean(0), marker=markers[curve], markersize=4, **style)
            entries.setdefault(curve, line)
            ax.fill_between(x, each.min(0), each.max(0), color=colours[curve], alpha=0.18, linewidth=0)
        if marks and name in marks:
            (entries["printed"],) = ax.plot(next(iter(curves.values()))[0], array(marks[name]), **PUBLISHED)
        ax.set_xlabel(xlabel)
        if ylim:
            ax.set_ylim(ylim)
        if log:
            _log_scale(ax, {int(at) for x, _ in curves.values() for at in x})
        ax.set_title(name)
        ax.grid(axis="y", color=GREY, alpha=0.25)
    for ax in found[:, 0]:
        ax.set_ylabel(ylabel)
    legend_above(figure, entries, 4)
    return figure


@describes("Accuracy, entropy and keys against the number of levels that couplings are rounded to")
def level_curves(models: Mapping[str, Mapping[int, Mapping[str, float]]], *, chosen: int | None = None) -> Figure:
    """Accuracy, entropy and keys against the number of levels K: model -> K -> accuracy (share), entropy, bound, keys.

    keys: of all classes together. chosen: the K that the dictionaries are made with, marked by a line.
    """
    columns = {"accuracy": "accuracy +Q (%)", "entropy": "entropy (bits)", "keys": "keys of all classes"}
    figure, (found,) = panels(10.5, 3.3, columns=3)
    for ax, (column, label) in zip(found, columns.items(), strict=True):
        scale = 100 if column == "accuracy" else 1
        for name, levels, look in distinct(models):
            steps = sorted(levels)
            ax.plot(steps, [scale * levels[step][column] for step in steps], linewidth=1.5, label=name, **look)
            if column == "entropy":
                bounds = [levels[step]["bound"] for step in steps]
                ax.plot(steps, bounds, color=look["color"], linewidth=1.2, linestyle=":")
        if chosen is not None:
            ax.axvline(chosen, color=RED, linestyle="--", linewidth=1.2)
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(lambda count, _: f"{count:g}")
        ax.set(xlabel="levels K", ylabel=label)
        ax.grid(color=GREY, alpha=0.25)
    found[1].set_ylim(0, None)
    found[2].set_yscale("log")
    entries = labelled(found) | {"most the entropy can be": Line2D([], [], color=GREY, linewidth=1.2, linestyle=":")}
    if chosen is not None:
        entries[f"K = {chosen}"] = Line2D([], [], color=RED, linewidth=1.2, linestyle="--")
    legend_above(figure, entries, 5)
    return figure


@describes("Accuracy against one transformation at a time, a panel per transformation")
def factor_curves(
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    values: Mapping[str, Sequence[float]],
    *,
    units: Mapping[str, str] | None = None,
    neutral: Mapping[str, float] | None = None,
) -> Figure:
    """Accuracy against one transformation at a time: model -> factor -> shares, a panel per factor of `values`.

    units: what a value of a factor means; neutral: the value of the unchanged image, marked by a line.
    """
    count = len(values)
    figure, (found,) = panels(min(9.5, 1 + 2.2 * count), 3.0, columns=count, sharey=True)
    for ax, (factor, steps) in zip(found, values.items(), strict=True):
        if neutral and factor in neutral:
            ax.axvline(neutral[factor], color=GREY, linewidth=0.8, linestyle=":")
        for model, shares, look in distinct(curves):
            if factor in shares:
                ax.plot(steps, 100 * array(shares[factor]), label=model, **look)
        ax.set_title(factor)
        ax.set_xlabel((units or {}).get(factor, ""))
        ax.grid(axis="y", color=GREY, alpha=0.25)
    found[0].set_ylabel("accuracy (%)")
    legend_above(figure, labelled(found[:1]), 6)
    return figure


@describes("Similarity of capsule norms before and after a change of viewpoint, a line per layer")
def viewpoint_curves(
    found: Mapping[str, tuple[str, Sequence[float], Mapping[str, Any]]],
    *,
    chance: Mapping[str, Mapping[str, Any]] | None = None,
) -> Figure:
    """Similarity of capsule norms against the degree of a transform, a panel per kind, a line per layer (fig. 4).

    found: kind -> (unit, amounts, {layer: (A,)}). chance: kind -> {layer: (A,)}, what unrelated images would give,
    dashed in the layer's colour. The axis begins at the lowest value, as capsules' norms are never opposed.
    """
    figure, grid = panels_of(len(found), 3, (3.7, 2.9), (0, 0), sharey=True)
    for ax, (kind, (unit, amounts, layers)) in zip(grid.flat, found.items(), strict=False):
        for layer, values, look in distinct(layers):
            ax.plot(amounts, array(values), markersize=4, label=layer, **look)
            if chance is not None:
                ax.plot(amounts, array(chance[kind][layer]), color=look["color"], linestyle=":", linewidth=1.2)
        ax.set_title(kind, loc="left")
        ax.set_xlabel(unit)
    for ax in grid[:, 0]:
        ax.set_ylabel("cosine of norms")
    entries = labelled(grid[0, :1])
    if chance is not None:
        entries["unrelated images"] = Line2D([], [], color=GREY, linestyle=":")
    free = grid.flat[len(found) :]
    if len(free):
        free[0].legend(entries.values(), entries, loc="center", title="layer")
    else:
        grid[0, -1].legend(entries.values(), entries, title="layer", **BESIDE)
    return figure


@describes("Costs against a size, a line per method")
def scaling(
    sizes: Sequence[float],
    costs: Mapping[str, Sequence[float]],
    *,
    exponents: Mapping[str, float] | None = None,
    xlabel: str = "",
    ylabel: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Costs against a size, both logarithmic, a line per method; exponents: fitted ones, for the legend."""
    ax = axes(ax, 4.6, 3.4)
    for name, values, look in distinct(costs):
        fitted = "" if exponents is None else f", exponent {exponents[name]:.2f}"
        ax.plot(sizes, values, label=f"{name}{fitted}", **look)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(sizes, [f"{size:g}" for size in sizes])
    ax.minorticks_off()
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend()
    return ax
