"""Images side by side: plain grids, reconstructions, and what each dimension of a class capsule encodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from capsnb.plot.style import RED, array, axes, pixels

GAP = 0.08  # of an image's size, between neighbours


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
    head = 0.32 if titles is not None else 0.0  # room above each image for its title, of its height
    down, across = height * (1 + GAP + head), width * (1 + GAP)
    ax = axes(ax, size * columns * (1 + GAP) + (0.9 if row_labels else 0.1), size * rows * down / height + 0.4)
    for place, image in enumerate(pixels(shown)):
        row, column = divmod(place, columns)
        left, top = column * across, row * down + head * height
        ax.imshow(image, extent=(left, left + width, top + height, top), interpolation="nearest")
        if titles is not None and place < len(titles):
            wrong = titles[place].endswith("✗")
            where = (left + width / 2, top - 0.05 * height)
            ax.text(*where, titles[place], ha="center", va="bottom", fontsize=9, color=RED if wrong else "black")
    ax.set(xlim=(-0.5, columns * across - GAP * width + 0.5), ylim=(rows * down - GAP * height + 0.5, -0.5))
    ax.set_aspect("equal")
    _edges(ax, "x", column_labels, [(column + 0.5) * across - GAP * width / 2 for column in range(columns)])
    _edges(ax, "y", row_labels, [row * down + (head + 0.5) * height for row in range(rows)])
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


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
    first, second = array(originals), array(rebuilt)
    if first.shape != second.shape:
        raise ValueError(f"{first.shape} originals cannot stand above {second.shape} reconstructions.")
    first, second = (images / 255.0 if images.dtype == np.uint8 else images for images in (first, second))
    heads = None
    if labels is not None:
        heads = [str(label) for label in labels]
        if predictions is not None:
            pairs = zip(labels, predictions, strict=True)
            heads = [str(label) if label == guess else f"{label}→{guess} ✗" for label, guess in pairs]
    ax = image_grid(np.stack([first, second]), row_labels=("image", "rebuilt"), column_labels=heads, size=size, ax=ax)
    for text in ax.get_xticklabels():
        text.set_color(RED if text.get_text().endswith("✗") else "black")
    return ax


def perturbation_grid(
    images: Any,
    values: Sequence[float],
    *,
    size: float = 0.5,
    unit: str = "added to the dimension",
    ax: Axes | None = None,
) -> Axes:
    """What each dimension of a class capsule encodes: images (dims, steps, [C,] H, W), one row per dimension.

    values: the steps, in the pose's own scale; the step nearest to no change is framed when a zero is among them.
    """
    shown = array(images)
    if shown.ndim == 4:
        shown = shown[:, :, None]
    if shown.ndim != 5 or shown.shape[1] != len(values):
        raise ValueError(f"perturbation_grid takes (dims, {len(values)} steps, [C,] H, W), not {array(images).shape}.")
    rows = len(shown)
    labels = [f"{value:+.2f}" if value else "0" for value in np.round(values, 10)]
    ax = image_grid(shown, row_labels=[str(row) for row in range(rows)], column_labels=labels, size=size, ax=ax)
    ax.set_xlabel(unit, labelpad=6)
    ax.set_ylabel("dimension of the pose")
    if "0" in labels:
        width = shown.shape[-1]
        left = labels.index("0") * width * (1 + GAP)
        ax.axvspan(left - GAP * width / 2, left + width * (1 + GAP / 2), fill=False, edgecolor=RED, linewidth=1.5)
    return ax


def _edges(ax: Axes, side: str, labels: Sequence[str] | None, places: Sequence[float]) -> None:
    """Labels along one side of the grid, or none."""
    if labels is not None and len(labels) != len(places):
        raise ValueError(f"{len(labels)} labels for {len(places)} {'columns' if side == 'x' else 'rows'} of images.")
    getattr(ax, f"set_{side}ticks")(places if labels is not None else [], labels if labels is not None else [])
