"""Parse trees: capsules are nodes, couplings edges, dead capsules red (Mitterreiter et al. 2023, figs. 2, 3, 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from capsnb.plot.images import image_grid
from capsnb.plot.layout import axes, bare, layer_names, panels
from capsnb.plot.style import BLUE, GREEN, GREY, PALE, RED, array
from capsnb.plot.words import describes

HEIGHT = 10.0  # of a layer, in the drawing's own units
WIDE = 64  # a layer with more capsules is drawn without outlines, and without bars
# clear to solid: strong edges stand out of a light and of a dark page
EDGES = mpl.colors.LinearSegmentedColormap.from_list("edges", [(*mpl.colors.to_rgb(BLUE), share) for share in (0, 1)])
NODES = mpl.colormaps["Greens"]


@describes("A parse tree: capsules as nodes, layer by layer, joined by their largest couplings")
def parse_tree(
    norms: Sequence[Any],
    couplings: Sequence[Any],
    *,
    dead: Sequence[Any] | None = None,
    names: Sequence[str] | None = None,
    top: int | None = None,
    largest: float | None = None,
    label: str = "coupling",
    bar: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Layers from left to right: a capsule is a node, green as it is long; a coupling an edge, blue as it is large.

    norms: (I,) for each layer; couplings: (I, J) between neighbours: of one image, or statistics of many.
    dead: (I,) bool for each layer, crossed out in red. top: draw only so many of the largest edges between two layers
    (200 by default where more than 4,096 lead from layer to layer). largest: the value drawn darkest, the largest one
    there is by default.
    """
    lengths, edges = [array(each) for each in norms], [array(each) for each in couplings]
    sizes = [len(each) for each in lengths]
    for place, each in enumerate(edges):
        if each.shape != tuple(sizes[place : place + 2]):
            raise ValueError(f"between layers of {sizes} capsules, couplings {place} have the shape {each.shape}.")
    if len(edges) != len(lengths) - 1:
        raise ValueError(f"{len(lengths)} layers are joined by {len(lengths) - 1} couplings, not {len(edges)}.")
    ax = axes(ax, max(5.0, 1.6 + 1.7 * len(edges)), 4.2)
    largest = largest or max(float(each.max()) for each in edges) or 1.0
    rows = [HEIGHT * (1 - (np.arange(size) + 0.5) / size) for size in sizes]
    for place, each in enumerate(edges):
        _edges(ax, place, each, rows, 200 if top is None and each.size > 4096 else top, largest)
    for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        gone = np.zeros(len(row), bool) if dead is None else array(dead[place]).astype(bool)
        _nodes(ax, place, row, length, gone)
    shown = zip(names or layer_names(len(sizes)), sizes, strict=True)
    ax.set_xticks(range(len(sizes)), [f"{name}\n{size:,}" for name, size in shown])
    ax.set(xlim=(-0.3, len(edges) + 0.3), ylim=(-0.2, HEIGHT + 0.2), yticks=[])
    bare(ax)
    if bar:
        ax.figure.colorbar(_scale(largest), ax=ax, label=label, shrink=0.8, aspect=25, pad=0.02)
    return ax


def _edges(ax: Axes, place: int, values: np.ndarray, rows: list[np.ndarray], top: int | None, largest: float) -> None:
    """Lines from layer `place` to the next, the darkest drawn last."""
    order = np.argsort(values, axis=None)[-(top or values.size) :]
    child, parent = np.unravel_index(order, values.shape)
    starts = np.stack((np.full(len(order), place), rows[place][child]), 1)
    ends = np.stack((np.full(len(order), place + 1), rows[place + 1][parent]), 1)
    share = np.clip(values[child, parent] / largest, 0, 1)
    colours = EDGES(0.15 + 0.85 * share)
    colours[:, 3] = 0.08 + 0.92 * share
    thick = 0.7 if max(values.shape) > WIDE else 2.0
    ax.add_collection(LineCollection(np.stack((starts, ends), 1), colors=colours, linewidths=0.4 + thick * share))


def _scale(largest: float) -> ScalarMappable:
    """Of the edges' colours, for a colour bar."""
    return ScalarMappable(mpl.colors.Normalize(0, largest), EDGES)


def _nodes(ax: Axes, place: int, rows: np.ndarray, norms: np.ndarray, dead: np.ndarray) -> None:
    wide = len(rows) > WIDE
    area = 4 if wide else float(np.clip(1600 / len(rows), 30, 110))
    x = np.full(len(rows), place)
    style = {"linewidths": 0} if wide else {"linewidths": 0.8, "edgecolors": GREY}
    ax.scatter(x, rows, area, NODES(0.05 + 0.9 * np.clip(norms, 0, 1)), zorder=3, **style)
    if dead.any():
        ax.scatter(x[dead], rows[dead], area, RED, marker="X", linewidths=0, zorder=4)


@describes("Parse trees side by side: capsules as nodes, joined by their largest couplings")
def parse_trees(
    images: Any,
    norms: Sequence[Any],
    couplings: Sequence[Any],
    *,
    dead: Sequence[Any] | None = None,
    names: Sequence[str] | None = None,
    titles: Sequence[str] | None = None,
    top: int | None = None,
) -> Figure:
    """One row per image: its tree, the norms of its capsules, the image (figures 2 and 5 of the paper).

    images: (B, C, H, W). norms: (B, I) for each layer. couplings: (B, I, J) between neighbours. dead: as `parse_tree`,
    for all images alike. Edges have one scale in all rows. Norms of layers of more than 64 capsules are left out.
    """
    lengths, edges = [array(each) for each in norms], [array(each) for each in couplings]
    shown, largest = array(images), max(float(each.max()) for each in edges)
    figure, found = panels(11, 2.9 * len(shown), len(shown), 3, gridspec_kw={"width_ratios": (5.5, 3.2, 1.3)})
    options = {"dead": dead, "names": names}
    for row, (tree, bars, picture) in enumerate(found):
        own, joined = [each[row] for each in lengths], [each[row] for each in edges]
        parse_tree(own, joined, top=top, largest=largest, bar=False, ax=tree, **options)
        norm_bars(own, top=1.0, ax=bars, **options)
        bars.set_title("norms" if row == 0 else "", loc="left")
        image_grid(shown[row][None], ax=picture)
        if titles is not None:
            tree.set_title(titles[row], loc="left")
    figure.colorbar(_scale(largest), ax=found[:, 2], label="coupling", location="right", aspect=30)
    return figure


@describes("Norm of each capsule, layer by layer")
def norm_bars(
    values: Sequence[Any],
    *,
    dead: Sequence[Any] | None = None,
    names: Sequence[str] | None = None,
    top: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A row of bars for each layer, one bar per capsule; a dead capsule's track is empty, with a red cross in it.

    top: the value of a full bar, the largest one by default. Layers of more than 64 capsules are left out.
    """
    rows = [array(each) for each in values]
    shown = names or layer_names(len(rows))
    kept = [place for place, each in enumerate(rows) if len(each) <= WIDE]
    top = top or max((float(rows[place].max()) for place in kept), default=1.0) or 1.0
    ax = axes(ax, 4.5, 0.6 + 0.55 * len(kept))
    for step, place in enumerate(kept):
        count, base = len(rows[place]), -float(step)
        x = np.arange(count)
        ax.bar(x, 0.82, bottom=base, width=0.86, color=PALE, zorder=1)
        gone = np.zeros(count, bool) if dead is None else array(dead[place]).astype(bool)
        heights = 0.82 * np.clip(np.where(gone, 0, rows[place]) / top, 0, 1)
        ax.bar(x, heights, bottom=base, width=0.86, color=GREEN, zorder=3)
        ax.scatter(x[gone], np.full(gone.sum(), base + 0.41), 22, RED, marker="X", linewidths=0, zorder=4)
    ax.set_yticks([0.41 - step for step in range(len(kept))], [shown[place] for place in kept])
    ax.set(xticks=[], xlabel=f"capsules; a full bar is {top:.2g}")
    bare(ax)
    return ax


@describes("Mean and standard deviation over images of the parse tree's couplings and norms")
def parse_tree_statistics(layers: Sequence[Any], *, top: int | None = None) -> Figure:
    """Mean and standard deviation of couplings and of norms over many images, dead capsules in red (fig. 3).

    Both trees have one scale: an edge that is pale in the second, dark in the first, is the same for every image.
    layers: of `capsnb.measure.parse_tree.trace`.
    """
    means, stds = [each.norm_mean for each in layers], [each.norm_std for each in layers]
    options = {"dead": [each.dead() for each in layers]}
    figure, ((left, right), (below, beside)) = panels(12, 7, 2, 2, gridspec_kw={"height_ratios": (5, 3)})
    couplings = [each.coupling_mean for each in layers[:-1]], [each.coupling_std for each in layers[:-1]]
    largest = max(float(each.max()) for each in couplings[0])
    parse_tree(means, couplings[0], top=top, largest=largest, label="coupling, mean", ax=left, **options)
    label = "coupling, standard deviation"
    parse_tree(means, couplings[1], top=top, largest=largest, label=label, ax=right, **options)
    norm_bars(means, top=1.0, ax=below, **options)
    norm_bars(stds, ax=beside, **options)
    left.set_title("(a) couplings, mean", loc="left")
    right.set_title("(b) couplings, standard deviation", loc="left")
    below.set_title("(c) norms, mean", loc="left")
    beside.set_title("(d) norms, standard deviation", loc="left")
    return figure
