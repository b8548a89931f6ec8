"""The scorecard as one picture: networks down, measures across, each cell an effect over its null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from capsnb.plot.layout import bare, panels
from capsnb.plot.style import BLUE, GREY, INK, ORANGE, PALE
from capsnb.plot.words import describes

Shown = tuple[float, bool] | str | None  # effect and whether zero is excluded; a word on why there is none; not run


@describes("Networks by measures: each cell an effect over its null, coloured where its interval excludes zero")
def scorecard(
    cells: Mapping[str, Mapping[str, Shown]],
    columns: Sequence[tuple[str, str]],
    *,
    controls: Sequence[str] = (),
    most: int = 8,
    turned: bool = False,
) -> Figure:
    """A row per network, a column per measure, at most so many columns in a panel that is read on a small screen.

    cells: network -> measure -> (effect, zero excluded), a word or two where nothing can be measured, None where it was
    not run. columns: (measure, group), groups side by side and whole. Blue is above the null, orange below it, darker
    the larger it is within its column; pale where the interval contains zero; grey where nothing can be measured.
    controls: networks below a line. turned: a row per measure instead, and all networks in one panel, controls last.
    """
    names = [name for name in cells if name not in controls] + [name for name in cells if name in controls]
    below = [name for name in names if name in controls]
    if turned:
        return _turned(cells, columns, names, len(names) - len(below))
    parts: list[list[tuple[str, str]]] = [[]]
    for _, several in groupby(columns, key=lambda each: each[1]):
        group = list(several)
        if parts[-1] and len(parts[-1]) + len(group) > most:
            parts.append([])
        parts[-1] += group
    widest = max(map(len, parts))
    figure, found = panels(1.9 + 0.68 * widest, (1.7 + 0.36 * len(names)) * len(parts), rows=len(parts))
    for ax, part in zip(found[:, 0], parts, strict=True):
        _draw(ax, [[cells[name][measure] for name in names] for measure, _ in part])
        ax.set(xlim=(-0.5, widest - 0.5), ylim=(len(names) - 0.5, -0.5))
        ax.set_yticks(range(len(names)), names, fontsize=11)
        ax.set_xticks(range(len(part)), [measure for measure, _ in part], rotation=40, ha="left", fontsize=11)
        ax.xaxis.tick_top()
        start = 0
        for group, several in groupby(part, key=lambda each: each[1]):
            end = start + len(list(several)) - 1
            ax.text((start + end) / 2, len(names) - 0.3, group, ha="center", va="top", fontsize=10, color=INK)
            ax.hlines(len(names) - 0.42, start - 0.4, end + 0.4, color=INK, linewidth=1, clip_on=False)
            start = end + 1
        if below:
            ax.hlines(len(names) - len(below) - 0.5, -0.5, len(part) - 0.5, color=INK, linewidth=1)
        bare(ax)
    return figure


def _turned(
    cells: Mapping[str, Mapping[str, Shown]], columns: Sequence[tuple[str, str]], names: Sequence[str], first: int
) -> Figure:
    """Measures down, networks across, those from `first` on beyond a line."""
    figure, found = panels(1.9 + 0.56 * len(names), 1.7 + 0.36 * len(columns))
    ax = found[0, 0]
    _draw(ax, [[cells[name][measure] for name in names] for measure, _ in columns], turned=True, size=13)
    ax.set(xlim=(-0.5, len(names) - 0.1), ylim=(len(columns) - 0.5, -0.5))
    ax.set_yticks(range(len(columns)), [measure for measure, _ in columns], fontsize=13)
    ax.set_xticks(range(len(names)), names, rotation=40, ha="left", fontsize=13)
    ax.xaxis.tick_top()
    start = 0
    for group, several in groupby(columns, key=lambda each: each[1]):
        end = start + len(list(several))
        ax.text(len(names) - 0.4, (start + end - 1) / 2, group, rotation=90, va="center", fontsize=9, color=INK)
        if start:
            ax.hlines(start - 0.5, -0.5, len(names) - 0.5, color=INK, linewidth=1)
        start = end
    if 0 < first < len(names):
        ax.vlines(first - 0.5, -0.5, len(columns) - 0.5, color=INK, linewidth=1)
    bare(ax)
    return figure


def _draw(ax: Axes, measures: Sequence[Sequence[Shown]], *, turned: bool = False, size: int = 11) -> None:
    """A cell for each measure and network, as strongly coloured as it is within its measure."""
    for place, found in enumerate(measures):
        most = max((abs(each[0]) for each in found if isinstance(each, tuple)), default=0.0) or 1.0
        for network, shown in enumerate(found):
            x, y = (network, place) if turned else (place, network)
            face: Any = "none"
            text, ink, font = "", INK, size
            if isinstance(shown, tuple):
                effect, decided = shown
                text, face = _short(effect), PALE
                font -= 3 * (len(text) > 4)
                if decided:
                    strength = 0.25 + 0.65 * min(1.0, abs(effect) / most)
                    face = _tint(BLUE if effect > 0 else ORANGE, strength)
                    ink = "white" if effect > 0 and strength > 0.6 else "black"
            elif shown is not None:
                face, ink = _tint(GREY, 0.55), "black"
                text, font = shown, 7
            ax.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=face, edgecolor="none"))
            ax.text(x, y, text, ha="center", va="center", color=ink, fontsize=font)


def _tint(colour: str, strength: float) -> tuple[float, ...]:
    """The colour mixed with white, opaque: numbers on it are read on a dark page, too."""
    return tuple(1 - strength * (1 - part) for part in to_rgb(colour))


def _short(value: float) -> str:
    """Two significant digits with a sign, without the zero before the point; at most three places."""
    places = 0 if abs(value) >= 9.95 else 1 if abs(value) >= 0.995 else 2 if abs(value) >= 0.00995 else 3
    text = f"{value:+.{places}f}"
    if float(text) == 0:
        return "0"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text
