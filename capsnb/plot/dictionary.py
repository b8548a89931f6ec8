"""Parse trees in numbers: couplings, entropy with its bound, what pruning does to them, clusters of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from capsnb.plot.images import image_grid
from capsnb.plot.style import BLUE, GREY, ORANGE, PALETTE, RED, array, axes, styled

MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "*")


def coupling_distributions(
    models: Mapping[str, Any],
    *,
    classes: Sequence[int] | None = None,
    names: Sequence[Any] | None = None,
    bins: int = 50,
    figure: Figure | None = None,
) -> Figure:
    """How the mean couplings of primary capsules to each class are distributed, a panel per model (figs. 4 and 6).

    models: name -> (I, J), of `capsnb.measure.dictionary.mean_couplings`. classes: those that are drawn, the first
    five when None; names: what each class is called. Shares of capsules on a log scale; 1/J is marked.
    """
    values = {name: array(each) for name, each in models.items()}
    with styled():
        figure = figure or plt.figure(figsize=(min(11, 1 + 4.0 * len(values)), 3.4))
        panels = figure.subplots(1, len(values), sharex=True, sharey=True, squeeze=False)[0]
    edges = np.linspace(0, 1, bins + 1)
    for panel, (name, each) in zip(panels, values.items(), strict=True):
        drawn = range(min(5, each.shape[1])) if classes is None else classes
        for label, colour in zip(drawn, PALETTE, strict=False):
            own = each[:, label]
            style = {"histtype": "step", "linewidth": 1.6, "color": colour}
            shown = str(label if names is None else names[label])
            panel.hist(np.clip(own, 0, 1), edges, weights=np.full(len(own), 1 / len(own)), label=shown, **style)
        uniform = f"uniform, 1/{each.shape[1]}"
        panel.axvline(1 / each.shape[1], color="black", linestyle="--", linewidth=1.2, label=uniform, zorder=0)
        panel.set(yscale="log", xlim=(0, 1), xlabel="mean coupling to the class")
        panel.set_title(name, loc="left")
    panels[0].set_ylabel(f"share of primary capsules per {1 / bins:g}")
    panels[-1].legend(title="class", loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def training_path(
    paths: Mapping[str, Sequence[Mapping[str, float]]], *, against: str = "sparsity", figure: Figure | None = None
) -> Figure:
    """Entropy, and accuracy below it, as networks train: against the share of pruned weights (fig. 5), or the epoch.

    paths: name -> rows with epoch, sparsity and accuracy in shares, entropy and bound in bits. The bound, log2 of the
    images per class, is a dotted line in each path's colour. Rows without the column `against` are left out.
    """
    with styled():
        figure = figure or plt.figure(figsize=(7.5, 5.2))
        upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 2)})
    scale = 100 if against == "sparsity" else 1
    for (name, rows), colour, marker in zip(paths.items(), PALETTE, MARKERS, strict=False):
        kept = [row for row in rows if row.get(against) is not None]
        x = [scale * row[against] for row in kept]
        style = {"color": colour, "marker": marker, "linewidth": 1.5}
        upper.plot(x, [row["entropy"] for row in kept], label=name, **style)
        lower.plot(x, [100 * row["accuracy"] for row in kept], **style)
        if all("bound" in row for row in kept):
            upper.plot(x, [row["bound"] for row in kept], color=colour, linewidth=1.2, linestyle=":")
    handles, shown = upper.get_legend_handles_labels()
    handles.append(Line2D([], [], color=GREY, linewidth=1.2, linestyle=":"))
    upper.legend(handles, [*shown, "most it can be"], loc="upper left", bbox_to_anchor=(1, 1))
    upper.set(ylabel="entropy (bits)", ylim=(0, None))
    lower.set(ylabel="accuracy +Q (%)", xlabel="weights pruned (%)" if against == "sparsity" else against)
    for panel in (upper, lower):
        panel.grid(color=GREY, alpha=0.25)
    if against == "epoch":
        lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.align_ylabels()
    return figure


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
        values = [*found.entropy, found.mean_entropy]
        bounds = [*found.bound, found.mean_bound]
        ax.bar(x, values, width * 0.92, color=colour, label=name)
        ax.hlines(bounds, x - width / 2, x + width / 2, color="black", linewidth=1.4)
    handles, shown = ax.get_legend_handles_labels()
    handles.append(Line2D([], [], color="black", linewidth=1.4))
    ax.legend(handles, [*shown, "most it can be, log2(images)"], loc="upper left", bbox_to_anchor=(1, 1))
    ax.set_xticks(places, [*map(str, names if names is not None else range(count)), "mean"])
    ax.set(xlabel="predicted class", ylabel="entropy (bits)")
    ax.tick_params(axis="x", length=0)
    return ax


def level_curves(
    models: Mapping[str, Mapping[int, Mapping[str, float]]], *, chosen: int | None = None, figure: Figure | None = None
) -> Figure:
    """Accuracy, entropy and keys against the number of levels K: model -> K -> accuracy (share), entropy, bound, keys.

    keys: of all classes together. chosen: the K that the dictionaries are made with, marked by a line.
    """
    columns = {"accuracy": "accuracy +Q (%)", "entropy": "entropy (bits)", "keys": "keys of all classes"}
    with styled():
        figure = figure or plt.figure(figsize=(10.5, 3.3))
        panels = figure.subplots(1, 3, squeeze=False)[0]
    for panel, (column, label) in zip(panels, columns.items(), strict=True):
        scale = 100 if column == "accuracy" else 1
        for (name, levels), colour, marker in zip(models.items(), PALETTE, MARKERS, strict=False):
            steps = sorted(levels)
            style = {"color": colour, "marker": marker, "linewidth": 1.5, "label": name}
            panel.plot(steps, [scale * levels[step][column] for step in steps], **style)
            if column == "entropy":
                panel.plot(steps, [levels[step]["bound"] for step in steps], color=colour, linewidth=1.2, linestyle=":")
        if chosen is not None:
            panel.axvline(chosen, color=RED, linestyle="--", linewidth=1.2)
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter(lambda count, _: f"{count:g}")
        panel.set(xlabel="levels K", ylabel=label)
        panel.grid(color=GREY, alpha=0.25)
    panels[1].set_ylim(0, None)
    panels[2].set_yscale("log")
    handles, names = panels[0].get_legend_handles_labels()
    handles.append(Line2D([], [], color=GREY, linewidth=1.2, linestyle=":"))
    names.append("most the entropy can be")
    if chosen is not None:
        handles.append(Line2D([], [], color=RED, linewidth=1.2, linestyle="--"))
        names.append(f"K = {chosen}")
    figure.legend(handles, names, loc="outside upper center", ncols=min(5, len(names)))
    return figure


def key_clusters(found: Mapping[Any, Sequence[Any]], *, size: float = 0.8, figure: Figure | None = None) -> Figure:
    """Images of one key laid over each other, largest clusters first, a row per class, their sizes above (fig. 7).

    found: what a row is called -> `capsnb.measure.dictionary.clusters`. A row with fewer clusters ends in blanks.
    """
    columns = max(len(row) for row in found.values())
    if not columns:
        raise ValueError(f"none of the classes {', '.join(map(str, found))} has a cluster to draw.")
    shape = next(each.overlay.shape for row in found.values() for each in row)
    blank = np.ones(shape)
    shown, titles = [], []
    for row in found.values():
        shown += [array(each.overlay) for each in row] + [blank] * (columns - len(row))
        titles += [f"{len(each.positions):,}" for each in row] + [""] * (columns - len(row))
    with styled():
        figure = figure or plt.figure(figsize=(size * 1.1 * columns + 1.2, size * 1.45 * len(found) + 0.5))
        ax = figure.subplots()
    image_grid(np.stack(shown), columns=columns, titles=titles, size=size, ax=ax)
    height = shape[-2]
    step = height * (1 + 0.08 + 0.32)  # as image_grid lays rows with titles
    ax.set_yticks([row * step + 0.82 * height for row in range(len(found))], [str(name) for name in found])
    ax.set_ylabel("predicted class")
    ax.set_xlabel("images of one key; their number above", labelpad=6)
    ax.xaxis.set_label_position("bottom")
    return figure


def layer_sparsity(history: Sequence[Mapping[str, Any]], column: str = "sparsity", *, ax: Axes | None = None) -> Axes:
    """Share of pruned weights of each layer, and of all, against the epoch.

    history: rows of a run that observed `capsnb.training.pruning.sparsity` under the name `column`.
    """
    rows = [row for row in history if row.get(column)]
    if not rows:
        raise ValueError(f"the history has no column {column!r}: observe `sparsity` while training.")
    ax = axes(ax, 6.0, 3.4)
    epochs = [row["epoch"] for row in rows]
    styles = {"total": {"color": "black", "linewidth": 2.2, "linestyle": "--"}}
    for (name, _), colour, marker in zip(rows[0][column].items(), (BLUE, ORANGE, *PALETTE[2:]), MARKERS, strict=False):
        style = styles.get(name, {"color": colour, "marker": marker})
        ax.plot(epochs, [100 * row[column][name] for row in rows], label="all" if name == "total" else name, **style)
    ax.set(xlabel="epoch", ylabel="weights pruned (%)", ylim=(-2, 102))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(color=GREY, alpha=0.25)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax
