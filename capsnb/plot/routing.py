"""Where capsules send their votes: couplings of an image, how they are distributed, the entropy of what they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from capsnb.plot.layout import BESIDE, axes, bare, labelled, panels
from capsnb.plot.style import BLUE, GREY, INK, PALETTE, RED, array
from capsnb.plot.words import describes

BINS = 50  # of a histogram over [0, 1]


@describes("Couplings of one image at each routing iteration, a row per parent capsule")
def couplings(coupling: Any, *, classes: Sequence[Any] | None = None, label: int | None = None) -> Figure:
    """Couplings of one image at each routing iteration, (T, I, J): a panel per iteration, a row per parent capsule.

    Children stand in the same order in all panels, grouped by the parent that wins them last and from the surest down,
    so that the groups are seen to form. Colour runs from 0 over the uniform 1/J (white) to the largest coupling.
    label: index of the true class, printed bold. The bars give each parent's share of all coupling.
    """
    steps = array(coupling)
    if steps.ndim != 3:
        raise ValueError(f"couplings shows one image, (T, I, J), not {steps.shape}.")
    count, children, parents = steps.shape
    names = [str(name) for name in (classes if classes is not None else range(parents))]
    winner = steps[-1].argmax(-1)
    order = np.lexsort((-steps[-1].max(-1), winner))
    bounds = np.searchsorted(winner[order], np.arange(1, parents)) - 0.5
    top = max(float(steps.max()), 1.001 / parents)
    norm = mpl.colors.TwoSlopeNorm(vmin=0, vcenter=1 / parents, vmax=top)
    height = count * (0.55 + 0.17 * parents) + 0.3
    figure, grid = panels(9, height, count, 2, sharey="row", gridspec_kw={"width_ratios": (7, 1)})
    share = steps.mean(1)
    for step, (panel, bars) in enumerate(grid):
        drawn = panel.imshow(steps[step][order].T, aspect="auto", cmap="PuOr_r", norm=norm, interpolation="nearest")
        uniform = f": uniform, 1/{parents}" if np.allclose(steps[step], 1 / parents, atol=1e-6) else ""
        panel.set_title(f"iteration {step + 1}{uniform}", loc="left")
        panel.set_yticks(range(parents), names)
        panel.vlines(bounds, -0.5, parents - 0.5, color="black", linewidth=0.4, alpha=0.5)
        panel.tick_params(labelbottom=step == count - 1)
        bare(panel)
        bars.barh(range(parents), share[step], color=[BLUE if row == label else "#bbbbbb" for row in range(parents)])
        bars.axvline(1 / parents, color=RED, linewidth=1, linestyle="--")
        bars.set_xlim(0, 1.08 * share.max())
        bars.tick_params(length=0, labelleft=False, labelbottom=step == count - 1)
        if label is not None:
            panel.get_yticklabels()[label].set(fontweight="bold", color=BLUE)
    grid[-1, 0].set_xlabel(f"{children:,} child capsules, grouped by the parent that wins them")
    grid[-1, 1].set_xlabel("mean coupling")
    figure.supylabel("parent capsule", fontsize=10)
    bar = figure.colorbar(drawn, ax=grid[:, 1], label="coupling", ticks=[0, 1 / parents, top], aspect=30)
    bar.ax.set_yticklabels(["0", f"1/{parents}", f"{top:.2f}"])
    return figure


@describes("How couplings are distributed between 0 and 1")
def coupling_histogram(coupling: Any | Mapping[str, Any], *, ax: Axes | None = None) -> Axes:
    """How couplings (..., J) are distributed over [0, 1], as shares on a log scale, with the uniform 1/J marked.

    A mapping name -> couplings draws one outline each.
    """
    named = coupling if isinstance(coupling, Mapping) else {"": coupling}
    named = {name: array(values) for name, values in named.items()}
    ax = axes(ax, 6.0, 3.2)
    alone = {"histtype": "stepfilled", "alpha": 0.85}
    style = alone if len(named) == 1 else {"histtype": "step", "linewidth": 1.8}
    for (name, values), colour in zip(named.items(), PALETTE, strict=False):
        weights = np.full(values.size, 1 / values.size)
        values = np.clip(values.ravel(), 0, 1)
        ax.hist(values, np.linspace(0, 1, BINS + 1), weights=weights, color=colour, label=name or None, **style)
    parents = next(iter(named.values())).shape[-1]
    ax.axvline(1 / parents, color=RED, linestyle="--", linewidth=1.2, label=f"uniform, 1/{parents}")
    ax.set(yscale="log", xlim=(0, 1), xlabel="coupling", ylabel=f"share of couplings per {1 / BINS:g}")
    ax.legend()
    return ax


@describes("How many primary capsules have a mean coupling of at most so much, a curve per class, a panel per model")
def coupling_distributions(
    models: Mapping[str, Any],
    *,
    names: Sequence[Any] | None = None,
    least: float = 0.0,
) -> Figure:
    """How the mean couplings of primary capsules to each class are distributed, a panel per model (figs. 4 and 6).

    models: name -> (I, J), of `capsnb.measure.dictionary.mean_couplings` or as many quantiles of it, of which the first
    five classes are drawn. names: what each class is called. Cumulative: the percentage of capsules with at most this
    coupling, which no width of bins decides; 1/J is marked. least: percentage at which the axis begins.
    """
    figure, (found,) = panels(min(11, 1 + 4.0 * len(models)), 3.4, columns=len(models), sharex=True, sharey=True)
    most = min(1.0, 1.1 * max(float(np.nanmax(array(coupling))) for coupling in models.values()))
    room = 0.02 * (100 - least)
    for ax, (name, coupling) in zip(found, models.items(), strict=True):
        coupling = array(coupling)
        count, parents = coupling.shape
        for label, colour in zip(range(min(5, parents)), PALETTE, strict=False):
            shown = str(label if names is None else names[label])
            values = np.concatenate(([0.0], np.sort(coupling[:, label]), [1.0]))
            shares = np.concatenate(([0.0], np.arange(1, count + 1), [count])) / count
            ax.step(values, 100 * shares, where="post", linewidth=1.6, color=colour, label=shown)
        style = {"color": INK, "linestyle": "--", "linewidth": 1.2, "zorder": 0}
        ax.axvline(1 / parents, label=f"uniform, 1/{parents}", **style)
        ax.set(xlim=(0, most), ylim=(least - room, 100 + room), xlabel="mean coupling to the class, at most")
        ax.set_title(name, loc="left")
        ax.grid(color=GREY, alpha=0.25)
    found[0].set_ylabel("primary capsules (%)")
    found[-1].legend(title="class", **BESIDE)
    return figure


@describes("Entropy of each class's dictionary of parse trees, a bar per model")
def entropy_by_class(models: Mapping[str, Any], *, names: Sequence[Any] | None = None, ax: Axes | None = None) -> Axes:
    """Entropy of each class's dictionary, a bar per model, each below the line of the most it can be: log2(images).

    models: name -> `capsnb.measure.dictionary.Trees`. The last group of bars is the mean over classes.
    """
    count = len(next(iter(models.values())).entropy)
    ax = axes(ax, 1.5 + 0.75 * (count + 1), 3.4)
    width = 0.8 / len(models)
    places = np.append(np.arange(count), count + 0.4)
    for step, ((name, found), colour) in enumerate(zip(models.items(), PALETTE, strict=False)):
        x = places + (step - (len(models) - 1) / 2) * width
        ax.bar(x, [*found.entropy, found.mean_entropy], width * 0.92, color=colour, label=name)
        bounds = [*found.bound, found.mean_bound]
        ax.hlines(bounds, x - width / 2, x + width / 2, color=INK, linewidth=1.4)
    entries = labelled([ax]) | {"most it can be, log2(images)": Line2D([], [], color=INK, linewidth=1.4)}
    ax.legend(entries.values(), entries, **BESIDE)
    ax.set_xticks(places, [*map(str, names if names is not None else range(count)), "mean"])
    ax.set(xlabel="predicted class", ylabel="entropy (bits)")
    ax.tick_params(axis="x", length=0)
    return ax


@describes("Lengths of the class capsules for one image")
def lengths(
    scores: Any,
    *,
    classes: Sequence[Any] | None = None,
    label: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Lengths of the class capsules for one image, (K,): the network's belief in each class, in [0, 1).

    label: index of the true class, drawn in colour. Lines: the lengths the margin loss asks for, absent and present.
    """
    values = array(scores).squeeze()
    if values.ndim != 1:
        raise ValueError(f"lengths shows one image, scores (K,), not {array(scores).shape}.")
    ax = axes(ax, 1.5 + 0.42 * len(values), 2.6)
    colours = [BLUE if place == label else GREY for place in range(len(values))]
    ax.bar(range(len(values)), values, color=colours, width=0.75)
    ax.set_xticks(range(len(values)), classes if classes is not None else range(len(values)))
    ax.set(ylim=(0, max(1.0, float(values.max()))), ylabel="length", xlabel="class capsule")
    beside = {"xytext": (3, 0), "textcoords": "offset points"}  # of the line's right end
    for margin in (0.1, 0.9):
        ax.axhline(margin, color=RED, linewidth=1, linestyle="--", zorder=0)
        where = {"xy": (1.0, margin), "xycoords": ("axes fraction", "data"), **beside}
        ax.annotate(f"{margin:g}", **where, color=RED, fontsize=8, va="center")
    return ax
