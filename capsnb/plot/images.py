"""Images side by side: plain grids, rows of pictures, clusters, heatmaps beside their image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from capsnb.plot.layout import axes, bare, panels
from capsnb.plot.style import INK, RED, array, pixels
from capsnb.plot.words import describes

GAP = 0.08  # of an image's size, between neighbours
HEAD = 0.32  # of an image's height, room above it for its title


@describes("Pictures in rows and columns")
def image_grid(
    images: Any,
    *,
    columns: int | None = None,
    titles: Sequence[str] | None = None,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    size: float = 0.75,
    ax: Axes | None = None,
) -> Axes:
    """Images in rows and columns on one axes: (N, [C,] H, W), or (rows, columns, C, H, W) for a table.

    uint8 or floats in [0, 1]; C is 1 or 3. `titles` has one text per image, `size` is an image's width in inches.
    An image of nan alone leaves its place free.
    """
    shown = array(images)
    shown = shown[:, None] if shown.ndim == 3 else shown
    if shown.ndim == 4:
        columns = min(len(shown), columns or 10)
        rows = -(-len(shown) // columns)
    elif shown.ndim == 5:
        rows, columns = shown.shape[:2]
        shown = shown.reshape(-1, *shown.shape[2:])
    else:
        raise ValueError(f"image_grid takes (N, [C,] H, W) or (rows, columns, C, H, W), not an array of {shown.shape}.")
    height, width = shown.shape[-2:]
    head = HEAD if titles is not None else 0.0
    down, across = height * (1 + GAP + head), width * (1 + GAP)
    ax = axes(ax, size * columns * (1 + GAP) + (0.9 if row_labels else 0.1), size * rows * down / height + 0.4)
    for place, image in enumerate(pixels(shown)):
        row, column = divmod(place, columns)
        left, top = column * across, row * down + head * height
        if not np.isnan(image).all():
            ax.imshow(image, extent=(left, left + width, top + height, top), interpolation="nearest")
        if titles is not None and place < len(titles):
            wrong = titles[place].endswith("✗")
            where = (left + width / 2, top - 0.05 * height)
            ax.text(*where, titles[place], ha="center", va="bottom", fontsize=9, color=RED if wrong else INK)
    ax.set(xlim=(-0.5, columns * across - GAP * width + 0.5), ylim=(rows * down - GAP * height + 0.5, -0.5))
    ax.set_aspect("equal")
    _edges(ax, "x", column_labels, [(column + 0.5) * across - GAP * width / 2 for column in range(columns)])
    _edges(ax, "y", row_labels, [row * down + (head + 0.5) * height for row in range(rows)])
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    bare(ax)
    return ax


def _edges(ax: Axes, side: str, labels: Sequence[str] | None, places: Sequence[float]) -> None:
    """Labels along one side of the grid, or none."""
    if labels is not None and len(labels) != len(places):
        raise ValueError(f"{len(labels)} labels for {len(places)} {'columns' if side == 'x' else 'rows'} of images.")
    getattr(ax, f"set_{side}ticks")(places if labels is not None else [], labels if labels is not None else [])


@describes("Rows of pictures, the same image in each column")
def picture_rows(
    rows: Mapping[str, Any], *, labels: Sequence[Any] | None = None, size: float = 0.6, ax: Axes | None = None
) -> Axes:
    """A named row of pictures each, same images in the same column: name -> (N, C, H, W).

    Inputs above what networks rebuild, above pictures from k units or from a path (figures 4, 16 and 17 of Tawalbeh and
    Oramas 2024).
    """
    shown = [array(images) for images in rows.values()]
    if len({each.shape for each in shown}) != 1:
        shapes = ", ".join(str(each.shape) for each in shown)
        raise ValueError(f"pictures that cannot stand above each other: they need one shape, not {shapes}.")
    shown = [each / 255.0 if each.dtype == np.uint8 else each for each in shown]
    heads = None if labels is None else [str(label) for label in labels]
    return image_grid(np.stack(shown), row_labels=list(rows), column_labels=heads, size=size, ax=ax)


@describes("Images above what the decoder rebuilt of them; a cross marks a wrong prediction")
def reconstructions(
    originals: Any,
    rebuilt: Any,
    *,
    labels: Sequence[Any] | None = None,
    predictions: Sequence[Any] | None = None,
    size: float = 0.75,
    ax: Axes | None = None,
) -> Axes:
    """Originals above what the decoder rebuilt, both (N, C, H, W); a wrong prediction is marked with a red cross."""
    if labels is not None and predictions is not None:
        pairs = zip(labels, predictions, strict=True)
        labels = [label if label == guess else f"{label}→{guess} ✗" for label, guess in pairs]
    ax = picture_rows({"image": originals, "rebuilt": rebuilt}, labels=labels, size=size, ax=ax)
    for text in ax.get_xticklabels():
        text.set_color(RED if text.get_text().endswith("✗") else INK)
    return ax


@describes("Images of one key laid over each other, a row per class")
def key_clusters(found: Mapping[Any, Sequence[Any]], *, size: float = 0.8) -> Figure:
    """Images of one key laid over each other, largest clusters first, a row per class, their sizes above (fig. 7).

    found: what a row is called -> `capsnb.measure.dictionary.clusters`. A row with fewer clusters ends in blanks.
    """
    columns = max(len(row) for row in found.values())
    if not columns:
        raise ValueError(f"none of the classes {', '.join(map(str, found))} has a cluster to draw.")
    shape = next(each.overlay.shape for row in found.values() for each in row)
    blank = np.full(shape, np.nan)
    shown, titles = [], []
    for row in found.values():
        shown += [array(each.overlay) for each in row] + [blank] * (columns - len(row))
        titles += [f"{len(each.positions):,}" for each in row] + [""] * (columns - len(row))
    figure, ((ax,),) = panels(size * 1.1 * columns + 1.2, size * 1.45 * len(found) + 0.5)
    image_grid(np.stack(shown), columns=columns, titles=titles, size=size, ax=ax)
    height = shape[-2]
    step = height * (1 + GAP + HEAD)
    ax.set_yticks([row * step + 0.82 * height for row in range(len(found))], [str(name) for name in found])
    ax.set_ylabel("predicted class")
    ax.set_xlabel("images of one key; their number above", labelpad=6)
    ax.xaxis.set_label_position("bottom")
    return figure


@describes("Images with heatmaps beside them, an image per row")
def overlap_maps(
    images: Any, columns: Mapping[str, Any], *, rows: Sequence[Any] | None = None, size: float = 1.0
) -> Figure:
    """Images and heatmaps side by side, an image per row (figures 18 and 19 of Tawalbeh & Oramas): name -> (B, H, W).

    Masks (bool) are black and white; other maps are coloured from 0 to their own largest value.
    """
    shown = pixels(images)
    maps = {name: array(each) for name, each in columns.items()}
    for name, each in maps.items():
        if len(each) != len(shown) or each.ndim != 3:
            raise ValueError(f"{name} has maps {each.shape} for {len(shown)} images.")
    across = 1 + len(maps)
    figure, found = panels(size * across + 0.7, size * len(shown) + 0.5, len(shown), across)
    for row, (picture, *others) in enumerate(found):
        picture.imshow(shown[row])
        for panel, each in zip(others, maps.values(), strict=True):
            mask = each.dtype == bool
            top = 1 if mask else max(float(each[row].max()), np.finfo(float).tiny)
            panel.imshow(each[row], cmap="gray" if mask else "magma", vmin=0, vmax=top)
        for panel in found[row]:
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
        if rows is not None:
            picture.set_ylabel(str(rows[row]), rotation=0, ha="right", va="center")
    for panel, name in zip(found[0], ["image", *maps], strict=True):
        panel.set_title(name, loc="center", fontsize=9)
    return figure
