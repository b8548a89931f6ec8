"""The drawing of a network from the shapes of its taps: image, convolutions, capsules, routing, decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Polygon, Rectangle

from capsnb.plot.layout import axes
from capsnb.plot.style import BLUE, GREEN, GREY, INK, ORANGE, PALE, array, pixels
from capsnb.plot.words import describes

HEIGHT = 4.0  # of the drawing area, in its own units
MOST = 16  # capsules drawn of a layer; of more, the first and last few with dots between
FEW = 4
SHEET = "#d3dae2"  # hides what lies behind it
SCALE, WIDEST = 0.62, 14.0  # inches per unit of the drawing, and inches in all


class _Column(NamedTuple):
    """One drawn layer: where it ends, and the heights that connections to the next one start from."""

    right: float
    rows: tuple[float, ...] = ()


@describes("A network drawn layer by layer: its feature maps, capsules, units and decoder")
def architecture(seen: Mapping[str, Any], *, image: Any | None = None, ax: Axes | None = None) -> Axes:
    """A network from what its taps recorded: name -> tensor, or name -> shape, both with the batch axis first.

        with taps.record(model, *taps.names(model)) as seen:
            model(images[:1])
        plot.architecture(seen, image=images[0])

    (B, C, H, W) is drawn as feature maps, `primary` and `*.poses` as capsules, (B, N) as plain units, `reconstruction`
    as a decoder with its picture. Capsules recorded as tensors are as long as those of the first image; without values
    all are alike.
    """
    layers = [(tap, data) for tap, data in seen.items() if not tap.endswith((".votes", ".coupling", ".coefficients"))]
    if not layers:
        raise ValueError("architecture needs at least one tap that is not a layer's votes or coupling.")
    own = ax is None
    ax = axes(ax, 8.0, 3.6)
    x, before = 0.0, None
    if image is not None:
        before = _picture(ax, x, image, "image")
        x = before.right + 1.0
    for tap, data in layers:
        shape = _shape(data)
        caption = tap.removesuffix(".poses")
        if tap == "reconstruction":
            column = _decoder(ax, x - 0.25, data, shape, caption, before)
        elif len(shape) == 4:
            column = _maps(ax, x, shape, caption, before)
        elif len(shape) == 3:
            lengths = np.linalg.norm(array(data)[0], axis=-1) if hasattr(data, "dtype") else np.full(shape[1], np.nan)
            how = None
            if tap.endswith(".poses"):
                how = "routing" if f"{tap.removesuffix('.poses')}.coupling" in seen else "votes"
            column = _capsules(ax, x if how is None else x + 0.35, shape, lengths, caption, before, how)
        else:
            column = _units(ax, x, shape, caption, before)
        x, before = column.right + 1.0, column
    low, high, span = -1.35, HEIGHT + 0.45, before.right + 0.8
    ax.set(xlim=(-0.4, before.right + 0.4), ylim=(low, high))
    ax.set_aspect("equal")
    ax.axis("off")
    if own:
        scale = min(SCALE, WIDEST / span)
        ax.figure.set_size_inches(span * scale, (high - low) * scale)
    return ax


@describes("Schemes of transfer, a row each: which layers are kept, drawn anew or go on, on which domain")
def transfer_schemes(schemes: Mapping[str, Sequence[tuple[str, str]]], *, ax: Axes | None = None) -> Axes:
    """Schemes as rows of layers, lowest first, coloured by the domain that each learns or has learned (figure 6b).

    schemes: name -> (domain, how) for each layer, as `capsnb.measure.transfer.states` gives them: "kept" has a thick
    frame, "redrawn" is hatched, "goes on" and "trained" are plain. Raises ValueError for none.
    """
    if not schemes:
        raise ValueError("transfer_schemes needs at least one scheme to draw.")
    ax = axes(ax, 6.4, 0.7 + 0.42 * len(schemes))
    looks = {"A": (ORANGE, "black"), "B": (BLUE, "white"), "random": (GREY, "black")}
    for row, (name, layers) in enumerate(schemes.items()):
        for place, (domain, how) in enumerate(layers):
            colour, word = looks[domain]
            style = {"facecolor": colour, "edgecolor": INK, "linewidth": 2.6 if how == "kept" else 0.6}
            if how == "redrawn":
                style |= {"facecolor": "white", "edgecolor": colour, "hatch": "////"}
            ax.add_patch(Rectangle((1.05 * place, row - 0.38), 1, 0.76, **style))
            text = {"bbox": {"facecolor": "white", "linewidth": 0, "pad": 1.5}} if how == "redrawn" else {}
            text |= {"color": "black" if how == "redrawn" else word, "ha": "center", "va": "center", "fontsize": 9}
            ax.text(1.05 * place + 0.5, row, f"{how}, {domain}", **text)
        ax.text(-0.08, row, name, ha="right", va="center")
    most = max(map(len, schemes.values()))
    for place in range(most):
        ax.text(1.05 * place + 0.5, -0.62, f"layer {place + 1}", ha="center", fontsize=9)
    ax.set(xlim=(-1.0, 1.05 * most), ylim=(len(schemes) - 0.5, -0.95))
    ax.axis("off")
    return ax


def _shape(data: Any) -> tuple[int, ...]:
    return tuple(data.shape) if hasattr(data, "shape") else tuple(data)


def _caption(ax: Axes, x: float, title: str, detail: str) -> None:
    ax.text(x, -0.12, title, ha="center", va="top", fontsize=10, fontweight="bold")
    ax.text(x, -0.48, detail, ha="center", va="top", fontsize=8.5, color=INK, linespacing=1.25)


def _arrow(ax: Axes, before: _Column | None, end: float) -> None:
    """From the layer before, where there is one."""
    if before:
        where = {"xy": (end - 0.06, HEIGHT / 2), "xytext": (before.right + 0.06, HEIGHT / 2)}
        ax.annotate("", **where, arrowprops={"arrowstyle": "-|>", "color": GREY, "linewidth": 1.6})


def _picture(ax: Axes, x: float, image: Any, title: str) -> _Column:
    shown = pixels(array(image)[None])[0]
    side = 1.5
    extent = (x, x + side, HEIGHT / 2 - side / 2, HEIGHT / 2 + side / 2)
    ax.imshow(shown, extent=extent, zorder=2, interpolation="nearest")
    ax.add_patch(Rectangle((x, extent[2]), side, side, fill=False, edgecolor=GREY, linewidth=0.8, zorder=3))
    channels = array(image).shape[0] if array(image).ndim == 3 else 1
    _caption(ax, x + side / 2, title, f"{channels}x{shown.shape[0]}x{shown.shape[1]}")
    return _Column(x + side)


def _maps(ax: Axes, x: float, shape: tuple[int, ...], title: str, before: _Column | None) -> _Column:
    """A stack of sheets: the larger the maps the larger the sheets, the more channels the deeper the stack."""
    _, channels, height, width = shape
    side = 0.55 + 1.25 * min(1.0, (height / 40) ** 0.5)
    sheets = int(np.clip(np.log2(max(2, channels)), 3, 9))
    depth = 0.09 * (sheets - 1)
    _arrow(ax, before, x)
    bottom = HEIGHT / 2 - (side + depth) / 2
    for sheet in reversed(range(sheets)):
        corner = (x + 0.09 * sheet, bottom + 0.09 * sheet)
        shade = 1 - 0.5 * sheet / sheets
        style = {"facecolor": SHEET, "edgecolor": BLUE, "alpha": 0.35 + 0.65 * shade, "linewidth": 1}
        ax.add_patch(Rectangle(corner, side, side, **style))
    _caption(ax, x + (side + depth) / 2, title, f"{channels} maps\n{height}x{width}")
    return _Column(x + side + depth)


def _capsules(
    ax: Axes,
    x: float,
    shape: tuple[int, ...],
    lengths: np.ndarray,
    title: str,
    before: _Column | None,
    how: str | None,
) -> _Column:
    """A column of capsules, each a frame that is filled as far as the capsule is long: lengths (I,), nan if unknown.

    how: what leads to them from the capsules before, drawn as a fan of lines; None where nothing but an arrow does.
    """
    _, count, size = shape
    gap = count > MOST
    picked = np.arange(count) if not gap else np.r_[0:FEW, count - FEW : count]
    slots = np.linspace(HEIGHT - 0.2, 0.2, len(picked) + gap) if count > 1 else np.array([HEIGHT / 2])
    rows = np.delete(slots, FEW) if gap else slots
    width, height = 1.1, min(0.26, 0.7 * (HEIGHT - 0.4) / len(slots))
    amounts = lengths[picked]
    if how and before and before.rows:
        for start in before.rows:
            for end, amount in zip(rows, amounts, strict=True):
                alpha = 0.12 if np.isnan(amount) else 0.06 + 0.4 * float(np.clip(amount, 0, 1))
                across = (before.right + 0.04, x - 0.04)
                ax.plot(across, (start, end), color=ORANGE, alpha=alpha, linewidth=0.9, zorder=1)
        ax.text((before.right + x) / 2, HEIGHT + 0.1, how, ha="center", fontsize=9, color=ORANGE)
    else:
        _arrow(ax, before, x)
    for row, amount in zip(rows, amounts, strict=True):
        corner = (x, row - height / 2)
        box = f"round,pad=0,rounding_size={height * 0.4}"
        frame = FancyBboxPatch(corner, width, height, boxstyle=box, facecolor="white", edgecolor=GREEN, zorder=3)
        part = 1.0 if np.isnan(amount) else float(np.clip(amount, 0, 1))
        alpha = 0.4 if np.isnan(amount) else 0.85
        fill = Rectangle(corner, width * part, height, facecolor=GREEN, alpha=alpha, linewidth=0, zorder=4)
        ax.add_patch(frame)
        ax.add_patch(fill)
        fill.set_clip_path(frame)
    if gap:
        ax.text(x + width / 2, HEIGHT / 2, "⋮", ha="center", va="center", fontsize=15, color=INK)
    _caption(ax, x + width / 2, title, f"{count:,} capsules\nof {size} numbers")
    return _Column(x + width, tuple(rows))


def _units(ax: Axes, x: float, shape: tuple[int, ...], title: str, before: _Column | None) -> _Column:
    count = int(np.prod(shape[1:]))
    tall = HEIGHT * float(np.clip(np.log10(max(10, count)) / 3, 0.35, 0.95))
    _arrow(ax, before, x)
    ax.add_patch(Rectangle((x, HEIGHT / 2 - tall / 2), 0.3, tall, facecolor=PALE, edgecolor=BLUE, linewidth=1))
    _caption(ax, x + 0.15, title, f"{count:,} units")
    return _Column(x + 0.3)


def _decoder(ax: Axes, x: float, data: Any, shape: tuple[int, ...], title: str, before: _Column | None) -> _Column:
    """A funnel that opens towards the picture it rebuilds."""
    _arrow(ax, before, x)
    corners = ((x, 1.55), (x, HEIGHT - 1.55), (x + 0.8, HEIGHT - 1.05), (x + 0.8, 1.05))
    ax.add_patch(Polygon(corners, facecolor=PALE, edgecolor=BLUE, linewidth=1))
    ax.text(x + 0.4, HEIGHT / 2, "decoder", ha="center", va="center", rotation=90, fontsize=9)
    image = array(data)[0] if hasattr(data, "dtype") else np.full(shape[-3:], 0.93)
    image = image[0] if image.ndim == 4 else image  # the first of two pictures, where digits overlap
    return _picture(ax, x + 1.05, image, title)
