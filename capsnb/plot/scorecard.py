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

Shown = tuple[float, bool] | str | None  # effect and whether zero is excluded; why there is none; not run


@describes("Networks by measures: each cell an effect over its null, coloured where its interval excludes zero")
def scorecard(
    cells: Mapping[str, Mapping[str, Shown]],
    columns: Sequence[tuple[str, str]],
    *,
    controls: Sequence[str] = (),
    most: int = 8,
) -> Figure:
    """A row per network, a column per measure, at most so many columns in a panel that is read on a small screen.

    cells: network -> measure -> (effect, zero excluded), a sentence where nothing can be measured, or None where it was
    not run. columns: (measure, group), groups side by side and whole. Blue is above the null, orange below it, darker
    the larger it is within its column; pale where the interval contains zero; grey where nothing can be measured.
    controls: networks below a line.
    """
    names = [name for name in cells if name not in controls] + [name for name in cells if name in controls]
    parts: list[list[tuple[str, str]]] = [[]]
    for _, several in groupby(columns, key=lambda each: each[1]):
        group = list(several)
        if parts[-1] and len(parts[-1]) + len(group) > most:
            parts.append([])
        parts[-1] += group
    widest = max(map(len, parts))
    figure, found = panels(1.9 + 0.68 * widest, (1.7 + 0.36 * len(names)) * len(parts), rows=len(parts))
    for ax, part in zip(found[:, 0], parts, strict=True):
        _panel(ax, [[cells[name][measure] for measure, _ in part] for name in names])
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
        if below := [name for name in names if name in controls]:
            ax.hlines(len(names) - len(below) - 0.5, -0.5, len(part) - 0.5, color=INK, linewidth=1)
        bare(ax)
    return figure


def _panel(ax: Axes, rows: Sequence[Sequence[Shown]]) -> None:
    for column, found in enumerate(zip(*rows, strict=True)):
        most = max((abs(each[0]) for each in found if isinstance(each, tuple)), default=0.0) or 1.0
        for row, shown in enumerate(found):
            face: Any = "none"
            text, ink = "", INK
            if isinstance(shown, tuple):
                effect, decided = shown
                text, face = _short(effect), PALE
                if decided:
                    strength = 0.25 + 0.65 * min(1.0, abs(effect) / most)
                    face = _tint(BLUE if effect > 0 else ORANGE, strength)
                    ink = "white" if effect > 0 and strength > 0.6 else "black"
            elif shown is not None:
                face, text = (GREY, 0.55), "none"
            ax.add_patch(Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, facecolor=face, edgecolor="none"))
            ax.text(column, row, text, ha="center", va="center", color=ink, fontsize=11)


def _tint(colour: str, strength: float) -> tuple[float, ...]:
    """The colour mixed with white, opaque: numbers on it are read on a dark page, too."""
    return tuple(1 - strength * (1 - part) for part in to_rgb(colour))


def _short(value: float) -> str:
    """Two significant digits with a sign, without the zero before the point."""
    text = f"{value:+.0f}" if abs(value) >= 9.95 else f"{value:+.1f}" if abs(value) >= 0.995 else f"{value:+.2f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text
