"""Activation paths and heatmaps: ablation curves, shared units, parts beside their whole (Tawalbeh & Oramas 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from capsnb.plot.style import BLUE, GREY, ORANGE, PALETTE, RED, array, axes, pixels, styled
from capsnb.plot.training import MARKERS


def ablation_curves(
    panels: Mapping[str, Mapping[str, tuple[Sequence[int], Any]]],
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
    rows = -(-len(panels) // columns)
    columns = min(columns, len(panels))
    with styled():
        figure = plt.figure(figsize=(1 + 3.1 * columns, 0.9 + 2.5 * rows))
        found = figure.subplots(rows, columns, squeeze=False, sharey=True)
    legend: dict[str, Any] = {}
    colours = _colours(panels)
    for place, (panel, (name, curves)) in enumerate(zip(found.flat, panels.items(), strict=False)):
        ticks: set[int] = set()
        for marker, (curve, (ks, shares)) in zip(MARKERS, curves.items(), strict=False):
            shares = 100 * array(shares).astype(float)
            if len(shares) != len(ks):
                raise ValueError(f"{name}, {curve}: {len(ks)} values of k for {len(shares)} accuracies.")
            colour, dashes = colours[curve], "--" if curve.startswith("null") else "-"
            if shares.ndim == 2:
                panel.plot(ks, shares, color=colour, alpha=0.35, linewidth=0.8)
                shares = shares.mean(1)
            style = {"color": colour, "linestyle": dashes, "marker": marker, "markersize": 4}
            (line,) = panel.plot(ks, shares, **style)
            legend.setdefault(curve, line)
            ticks.update(ks)
        if dense is not None:
            legend["whole network"] = panel.axhline(100 * dense, color=GREY, linewidth=1, linestyle=":")
        if chosen and name in chosen:
            legend["k in use"] = panel.axvline(chosen[name], color=RED, linewidth=1.2, linestyle="--")
        panel.set(xscale="log", ylim=(0, 103), xlabel=xlabel)
        panel.xaxis.set_major_locator(FixedLocator(_apart(sorted(ticks))))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(lambda k, _: f"{k:g}")
        panel.set_title(name)
        panel.grid(axis="y", color=GREY, alpha=0.25)
        if place % columns == 0:
            panel.set_ylabel("accuracy (%)")
    for panel in found.flat[len(panels) :]:
        panel.set_axis_off()
    figure.legend(legend.values(), legend.keys(), loc="outside upper center", ncols=min(4, len(legend)))
    return figure


def unit_sharing(
    networks: Mapping[str, tuple[Any, Any, Any]], *, classes: Sequence[Any] | None = None, chance: float | None = None
) -> Figure:
    """Exclusive and shared units of each class, and of each pair (figure 15, Table 3).

    networks: name -> (exclusive (K,), shared (K,), pairs (K, K)). chance: units that two random sets share, marked at
    the scale of the pairs.
    """
    with styled():
        figure = plt.figure(figsize=(8.2, 0.3 + 3.2 * len(networks)))
        found = figure.subplots(len(networks), 2, squeeze=False, gridspec_kw={"width_ratios": (3, 2)})
    for (bars, table), (name, (exclusive, shared, pairs)) in zip(found, networks.items(), strict=True):
        exclusive, shared, pairs = (array(part) for part in (exclusive, shared, pairs))
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
        for (row, column), value in np.ndenumerate(others):
            if np.isfinite(value) and row > column:
                light = np.dot(drawn.to_rgba(value)[:3], (0.299, 0.587, 0.114)) < 0.5
                style = {"ha": "center", "va": "center", "fontsize": 8, "color": "white" if light else "black"}
                table.text(column, row, f"{value:.0f}", **style)
        table.set_xticks(where, names)
        table.set_yticks(where, names)
        table.tick_params(length=0)
        table.spines[:].set_visible(False)
        table.set(xlabel="class", ylabel="class")
        table.set_title("shared by two classes")
        bar = figure.colorbar(drawn, ax=table, label="units")
        if chance is not None:
            bar.ax.axhline(chance, color=RED, linewidth=2)
            bar.ax.text(
                1.4, chance, "chance", color=RED, fontsize=8, va="center", transform=bar.ax.get_yaxis_transform()
            )
            bar.set_label("units", labelpad=14)
    return figure


def overlap_maps(
    images: Any, columns: Mapping[str, Any], *, rows: Sequence[Any] | None = None, size: float = 1.0
) -> Figure:
    """Images and heatmaps side by side, an image per row (figures 18 and 19): name -> (B, H, W).

    Masks (bool) are black and white; other maps are coloured from 0 to their own largest value.
    """
    shown = pixels(array(images))
    with styled():
        figure = plt.figure(figsize=(size * (1 + len(columns)) + 0.7, size * len(shown) + 0.5))
        found = figure.subplots(len(shown), 1 + len(columns), squeeze=False)
    maps = {name: array(each) for name, each in columns.items()}
    for name, each in maps.items():
        if len(each) != len(shown) or each.ndim != 3:
            raise ValueError(f"{name} has maps {each.shape} for {len(shown)} images.")
    for row, panels in enumerate(found):
        panels[0].imshow(shown[row])
        for panel, each in zip(panels[1:], maps.values(), strict=True):
            mask = each.dtype == bool
            top = 1 if mask else max(float(each[row].max()), np.finfo(float).tiny)
            panel.imshow(each[row], cmap="gray" if mask else "magma", vmin=0, vmax=top)
        for panel in panels:
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
        if rows is not None:
            panels[0].set_ylabel(str(rows[row]), rotation=0, ha="right", va="center")
    for panel, name in zip(found[0], ["image", *maps], strict=True):
        panel.set_title(name, loc="center", fontsize=9)
    return figure


def overlap_scores(
    scores: Mapping[str, Mapping[str, tuple[Any, Any]]],
    thresholds: Sequence[float],
    *,
    published: Mapping[str, Any] | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Relevance mass accuracy against the threshold (Table 4): panel -> curve -> (mean (T,), std (T,)), shares.

    Curves whose name starts with "null" are grey: shuffled pairs, the mask's area. published: panel -> (T,) in percent.
    """
    with styled():
        figure = figure or plt.figure(figsize=(1.2 + 2.7 * len(scores), 3.5))
        panels = figure.subplots(1, len(scores), squeeze=False, sharey=True)[0]
    places, legend, colours = np.arange(len(thresholds)), {}, _colours(scores)
    for panel, (name, curves) in zip(panels, scores.items(), strict=True):
        dashes = iter(("--", ":", "-."))
        lift = iter(np.linspace(-0.12, 0.12, max(2, len(curves))))
        for marker, (curve, (mean, std)) in zip(MARKERS, curves.items(), strict=False):
            style = {"color": colours[curve], "linestyle": next(dashes) if curve.startswith("null") else "-"}
            mean, std = 100 * array(mean).astype(float), 100 * array(std).astype(float)
            drawn = panel.errorbar(places + next(lift), mean, std, marker=marker, capsize=2, elinewidth=1, **style)
            legend.setdefault(curve, drawn)
        if published and name in published:
            style = {"color": "white", "markeredgecolor": "black", "markersize": 8, "linestyle": "none"}
            (legend["published"],) = panel.plot(places, array(published[name]), "D", **style)
        panel.set_xticks(places, [f"{threshold:g}" for threshold in thresholds])
        panel.set(xlabel="threshold of the class map", ylim=(0, None))
        panel.set_title(name)
        panel.grid(axis="y", color=GREY, alpha=0.25)
    panels[0].set_ylabel("relevance mass accuracy (%)")
    figure.legend(legend.values(), legend.keys(), loc="outside upper center", ncols=min(3, len(legend)))
    return figure


def shared_activation(
    networks: Mapping[str, tuple[Any, Any]], *, classes: Sequence[Any] | None = None, ax: Axes | None = None
) -> Axes:
    """Mean activation of each class's exclusive against its shared units: network -> (exclusive (K,), shared (K,)).

    Below the diagonal, shared units are less active, which is the paper's claim. classes: written beside the points.
    """
    ax = axes(ax, 4.4, 4.0)
    seen: list[float] = []
    for (name, pair), colour, marker in zip(networks.items(), PALETTE, MARKERS, strict=False):
        exclusive, shared = (array(part).astype(float) for part in pair)
        ax.plot(exclusive, shared, marker, color=colour, label=name, linestyle="none", alpha=0.85)
        for label, x, y in zip(classes if classes is not None else [], exclusive, shared, strict=False):
            if np.isfinite(x) and np.isfinite(y):
                ax.annotate(str(label), (x, y), xytext=(4, 2), textcoords="offset points", fontsize=8)
        seen += [*exclusive[np.isfinite(exclusive)], *shared[np.isfinite(shared)]]
    if seen:
        edge = 0.08 * (max(seen) - min(seen)) or 0.1
        ends = (min(seen) - edge, max(seen) + edge)
        ax.plot(ends, ends, color=GREY, linestyle="--", linewidth=1, label="equal")
        ax.set(xlim=ends, ylim=ends)
    ax.set(xlabel="activation of exclusive units", ylabel="activation of shared units")
    ax.legend(loc="best")
    return ax


def _colours(panels: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """One colour per name of a curve in all panels; nulls are grey."""
    names = dict.fromkeys(curve for curves in panels.values() for curve in curves)
    own = [name for name in names if not name.startswith("null")]
    return dict.fromkeys(names, GREY) | dict(zip(own, PALETTE, strict=False))


def _apart(ticks: Sequence[int]) -> list[int]:
    """Those of the ticks of a log axis that leave room for each other's label."""
    kept: list[int] = []
    for tick in ticks:
        if tick > 0 and (not kept or tick >= 1.8 * kept[-1]):
            kept.append(tick)
    return kept
