"""The life of a network as it trains, how little its capsules see through a change of viewpoint, what routing costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from capsnb.plot.style import BLUE, GREEN, GREY, PALETTE, RED, array, axes, styled
from capsnb.plot.training import MARKERS


def network_life(
    history: Iterable[Mapping[str, Any]], *, names: Sequence[str] | None = None, column: str = "life"
) -> Figure:
    """Norm of every capsule, capsules alive, and dyr against training steps, a row of panels per layer.

    history: rows of a run that observed `capsnb.measure.parse_tree.life`. Capsules dead in the last row are red.
    """
    rows = [row for row in history if row.get(column)]
    if not rows:
        raise ValueError(f"the history has no column {column!r}: observe `life` while training.")
    steps = [row["step"] for row in rows]
    count = len(rows[0][column]["mean"])
    shown = names or ["primary", *(f"caps{n}" for n in range(1, count - 1)), "class"]
    with styled():
        figure = plt.figure(figsize=(11, 1.5 * count + 0.6))
        panels = figure.subplots(count, 3, sharex=True, squeeze=False, gridspec_kw={"width_ratios": (3, 2, 2)})
    for layer, (norms, alive, moves) in enumerate(panels):
        means = np.array([row[column]["mean"][layer] for row in rows])  # (rows, I)
        dead = np.array([row[column]["dead"][layer] for row in rows], bool)
        for capsule, gone in enumerate(dead[-1]):
            norms.plot(steps, means[:, capsule], color=RED if gone else GREEN, linewidth=1, alpha=0.6, zorder=2 + gone)
        norms.set(ylabel=shown[layer], ylim=(0, max(1.0, means.max()) if layer in (0, count - 1) else None))
        living = (~dead).sum(1)
        alive.step(steps, living, where="post", color=BLUE)
        alive.set(ylim=(-0.04 * dead.shape[1], 1.08 * dead.shape[1]))
        alive.annotate(
            f"{living[-1]} of {dead.shape[1]}", (1, 0.06), xycoords="axes fraction", ha="right", fontsize=9, color=BLUE
        )
        alive.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        if layer < count - 1:
            moves.plot(steps, [row[column]["dyr"][layer] for row in rows], color=BLUE)
            moves.set(ylim=(0, 1.1 * max(max(row[column]["dyr"]) for row in rows) or 1))
        else:
            moves.annotate(
                "the last layer routes nothing", (0.5, 0.5), xycoords="axes fraction", ha="center", color=GREY
            )
            moves.set_yticks([])
    for panel, title in zip(
        panels[0], ("norm of each capsule (mean)", "capsules alive", "dyr, of its couplings"), strict=True
    ):
        panel.set_title(title, loc="left")
    for panel in panels[-1]:
        panel.set_xlabel("training step")
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    figure.align_ylabels(panels[:, 0])
    return figure


def pull_balance(
    history: Iterable[Mapping[str, Any]], weight_decay: float, *, names: Sequence[str] | None = None
) -> Figure:
    """Weight decay's pull on each capsule's transforms over that of the loss, against steps, a panel per layer.

    Above the dashed line the transforms to the next layer are drawn to 0 more strongly than the loss moves them.
    history: rows that observed `life` and `pull`, of starvation and gradients. Capsules dead in the last row are red.
    """
    rows = [row for row in history if row.get("pull") and row.get("life")]
    if not rows:
        raise ValueError("the history has no columns 'pull' and 'life': observe both while training.")
    steps = [row["step"] for row in rows]
    count = len(rows[0]["pull"]["transform"])
    shown = names or ["primary", *(f"caps{n}" for n in range(1, count))]
    with styled():
        figure = plt.figure(figsize=(2.9 * count, 3.0))
        panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    for layer, panel in enumerate(panels):
        loss = np.array([row["pull"]["transform"][layer] for row in rows])  # (rows, I)
        decay = weight_decay * np.array([row["pull"]["weight"][layer] for row in rows])
        ratio = np.where(loss > 0, decay / np.maximum(loss, 1e-30), np.nan)
        for capsule, gone in enumerate(rows[-1]["life"]["dead"][layer]):
            panel.plot(steps, ratio[:, capsule], color=RED if gone else GREEN, linewidth=1, alpha=0.6, zorder=2 + gone)
        panel.axhline(1, color="black", linestyle="--", linewidth=1)
        panel.set_title(shown[layer], loc="left")
        panel.set(xlabel="training step", yscale="log")
        panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    panels[0].set_ylabel("weight decay / gradient")
    return figure


def viewpoint_curves(
    found: Mapping[str, tuple[str, Sequence[float], Mapping[str, Any]]],
    *,
    chance: Mapping[str, Mapping[str, Any]] | None = None,
    ylabel: str = "cosine of norms",
) -> Figure:
    """Similarity of capsule norms against the degree of a transform, a panel per kind, a line per layer (fig. 4).

    found: kind -> (unit, amounts, {layer: (A,)}). chance: kind -> {layer: (A,)}, what unrelated images would give,
    dashed in the layer's colour. The axis begins at the lowest value, as capsules' norms are never opposed.
    """
    count = len(found)
    columns = min(3, count)
    with styled():
        figure = plt.figure(figsize=(3.7 * columns, 2.9 * -(-count // columns)))
        panels = figure.subplots(-(-count // columns), columns, squeeze=False, sharey=True)
    for panel, (kind, (unit, amounts, layers)) in zip(panels.flat, found.items(), strict=False):
        for (layer, values), colour, marker in zip(layers.items(), PALETTE, MARKERS, strict=False):
            panel.plot(amounts, array(values), color=colour, marker=marker, markersize=4, label=layer)
            if chance is not None:
                panel.plot(amounts, array(chance[kind][layer]), color=colour, linestyle=":", linewidth=1.2)
        panel.set_title(kind, loc="left")
        panel.set_xlabel(unit)
    for panel in panels.flat[count:]:
        panel.axis("off")
    for panel in panels[:, 0]:
        panel.set_ylabel(ylabel)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    if chance is not None:
        handles.append(plt.Line2D([], [], color=GREY, linestyle=":"))
        labels.append("unrelated images")
    free = panels.flat[count:]
    if len(free):
        free[0].legend(handles, labels, loc="center", title="layer")
    else:
        panels[0, -1].legend(handles, labels, title="layer")
    return figure


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
    for (name, values), colour, marker in zip(costs.items(), PALETTE, MARKERS, strict=False):
        fitted = "" if exponents is None else f", exponent {exponents[name]:.2f}"
        ax.plot(sizes, values, color=colour, marker=marker, label=f"{name}{fitted}")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(sizes, [f"{size:g}" for size in sizes])
    ax.minorticks_off()
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend()
    return ax
