"""Small charts as SVG: as quick to make as a string, sharp at any size, in the colours of the page's own theme.

Each is HTML with its caption above, which a screen reader says of it. Text and lines take `currentColor`, grounds stay
clear, so that a light and a dark page both show them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

from capsnb.plot.style import BLUE, GREEN, ORANGE, array

ROW = 17  # pixels of a bar with its name
LEVELS = 8  # of opacity, among lines and nodes
MOST_EDGES = 300  # drawn between two layers, the largest


def bars(
    names: Sequence[str],
    values: Any,
    caption: str,
    *,
    marks: Any = None,
    chosen: int | None = None,
    longest: bool = True,
) -> str:
    """A horizontal bar per name, full at 1. marks: a second set of values, as ticks; nan in either is left out. chosen:
    a name in bold. longest: it is orange."""
    shown = array(values)
    ticks = np.full(len(shown), np.nan) if marks is None else array(marks)
    best, parts = int(shown.argmax()) if longest else -1, []
    for row, (name, value) in enumerate(zip(names, shown, strict=True)):
        y = row * ROW
        weight = ' font-weight="bold"' if row == chosen else ""
        parts.append(f'<text x="62" y="{y + 12}" text-anchor="end"{weight}>{escape(_short(name))}</text>')
        if np.isfinite(value):
            colour, width = ORANGE if row == best else BLUE, 150 * float(np.clip(value, 0, 1))
            parts.append(f'<rect x="68" y="{y + 3}" width="{width:.1f}" height="11" fill="{colour}"/>')
            parts.append(f'<text x="224" y="{y + 12}">{value:.2f}</text>')
        if np.isfinite(ticks[row]):
            x = 68 + 150 * float(np.clip(ticks[row], 0, 1))
            parts.append(f'<path d="M{x:.1f} {y + 1}v15" stroke="currentColor" stroke-width="1.5"/>')
    return _figure(parts, 256, len(names) * ROW + 2, caption)


def columns(values: Any, caption: str, *, marks: Any, largest: float) -> str:
    """A thin column per value, as for the norms of a layer, full at the largest. marks: other values, as ticks."""
    shown = np.clip(array(values) / largest, 0, 1) * 46
    step = 250 / len(shown)
    x = np.arange(len(shown)) * step
    width = max(0.8 * step, 0.5)
    path = "".join(f"M{a:.1f} 48h{width:.2f}v{-h:.1f}h{-width:.2f}z" for a, h in zip(x, shown, strict=True))
    ticks = 48 - np.clip(array(marks) / largest, 0, 1) * 46
    lines = "".join(f"M{a:.1f} {y:.1f}h{max(step, 1):.2f}" for a, y in zip(x, ticks, strict=True))
    parts = [
        f'<path d="{path}" fill="{GREEN}"/>',
        f'<path d="{lines}" stroke="currentColor" stroke-width="1.2"/>',
        '<path d="M0 48.5H250" stroke="currentColor" stroke-opacity=".4"/>',
    ]
    return _figure(parts, 250, 50, caption)


def curve(values: Any, caption: str, *, name: str, limit: float | None = None) -> str:
    """Values over the iterations 1, 2, ... limit: a dashed line, such as the largest value that there can be."""
    shown = array(values).astype(float)
    top = max(float(shown.max()), limit or 0.0, 1e-12) * 1.05
    low = min(float(shown.min()), 0.0)
    x = 34 + (np.arange(len(shown)) + 0.5) * 210 / len(shown)

    def height(value: Any) -> Any:
        return 92 - 70 * (value - low) / (top - low)

    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, height(shown), strict=True))
    parts = [
        f'<text x="0" y="11">{escape(name)}</text>',
        '<path d="M34 22V92H246" fill="none" stroke="currentColor" stroke-opacity=".5"/>',
        f'<polyline points="{points}" fill="none" stroke="{BLUE}" stroke-width="2"/>',
    ]
    for number, (a, b, value) in enumerate(zip(x, height(shown), shown, strict=True), 1):
        parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{BLUE}"><title>{value:.4f}</title></circle>')
        parts.append(f'<text x="{a:.1f}" y="105" text-anchor="middle">{number}</text>')
    if limit is not None:
        parts.append(f'<path d="M34 {height(limit):.1f}H246" stroke="currentColor" stroke-dasharray="4 3"/>')
    shift = -7 if height(shown[-1]) > 40 else 15
    parts.append(
        f'<text x="{x[-1]:.1f}" y="{height(shown[-1]) + shift:.1f}" text-anchor="middle">{shown[-1]:.3g}</text>'
    )
    return _figure(parts, 250, 110, caption)


def tree(norms: Sequence[Any], couplings: Sequence[Any], caption: str, *, names: Sequence[str]) -> str:
    """A parse tree, layers from left to right: nodes green as capsules are long, edges blue as couplings are large.

    norms: (I,) for each layer; couplings: (I, J) between neighbours, of which the MOST_EDGES largest are drawn.
    """
    layers = [array(each) for each in norms]
    wide, high = 150 * (len(layers) - 1), 230
    rows = [14 + high * (np.arange(len(each)) + 0.5) / len(each) for each in layers]
    parts = []
    for place, each in enumerate(map(array, couplings)):
        order = np.argsort(each, axis=None)[-MOST_EDGES:]
        child, parent = np.unravel_index(order, each.shape)
        level = _levels(each[child, parent] / max(float(each.max()), 1e-12))
        starts, ends = rows[place][child], rows[place + 1][parent]
        for number in range(1, LEVELS + 1):
            chosen = zip(starts[level == number], ends[level == number], strict=True)
            path = "".join(f"M{46 + 150 * place} {a:.1f}L{46 + 150 * (place + 1)} {b:.1f}" for a, b in chosen)
            if path:
                opacity = (number / LEVELS) ** 1.5
                parts.append(f'<path d="{path}" fill="none" stroke="{BLUE}" stroke-opacity="{opacity:.2f}"/>')
    for place, (row, length) in enumerate(zip(rows, layers, strict=True)):
        parts += _nodes(46 + 150 * place, row, length)
        text = f"{escape(_short(names[place]))} {len(row):,}"
        parts.append(f'<text x="{46 + 150 * place}" y="{high + 32}" text-anchor="middle">{text}</text>')
    return _figure(parts, wide + 92, high + 38, caption)


def nothing(caption: str) -> str:
    """A caption alone, where there is nothing to draw."""
    return f"<figure><figcaption>{escape(caption)}</figcaption></figure>"


def _nodes(x: int, rows: np.ndarray, lengths: np.ndarray) -> list[str]:
    radius = min(6.0, max(0.8, 0.45 * 230 / len(rows)))
    level = _levels(lengths / max(float(lengths.max()), 1.0))
    outline = ' stroke="currentColor" stroke-width=".7"' if radius > 3 else ""
    parts = []
    for number in range(LEVELS + 1):
        path = "".join(
            f"M{x - radius:.1f} {y:.1f}a{radius:.1f} {radius:.1f} 0 1 0 {2 * radius:.1f} 0"
            f"a{radius:.1f} {radius:.1f} 0 1 0 {-2 * radius:.1f} 0"
            for y in rows[level == number]
        )
        if path:
            parts.append(f'<path d="{path}" fill="{GREEN}" fill-opacity="{number / LEVELS:.2f}"{outline}/>')
    return parts


def _levels(share: np.ndarray) -> np.ndarray:
    return np.ceil(np.clip(share, 0, 1) * LEVELS - 1e-6).astype(int)


def _short(name: str) -> str:
    return name if len(name) <= 10 else name[:9] + "…"


def _figure(parts: Iterable[str], width: float, height: float, caption: str) -> str:
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    svg = f'<svg role="img" aria-label="{escape(caption)}" {size} fill="currentColor">{"".join(parts)}</svg>'
    return f'<figure style="width:{width}px"><figcaption>{escape(caption)}</figcaption>{svg}</figure>'
