"""What a figure shows, in words: its text alternative, made of what was drawn, for those who listen to a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

Drawn = TypeVar("Drawn", bound=Callable[..., Axes | Figure])

MOST = 10  # names in a list, series of a panel
PANELS = 6  # told one by one; of more, their titles alone
LONGEST = 900  # characters


def describes(what: str) -> Callable[[Drawn], Drawn]:
    """Let what a plot function returns say what kind of figure it is: the first words of its alternative."""

    def with_label(draw: Drawn) -> Drawn:
        @wraps(draw)
        def drawn(*data: Any, **options: Any) -> Axes | Figure:
            made = draw(*data, **options)
            made.set_label(what)  # shown nowhere; of a panel's function that another one calls, the latter's stands
            return made

        return drawn  # type: ignore[return-value]  # takes and returns what `draw` does, which mypy cannot follow

    return with_label


def describe(figure: Figure) -> str:
    """The text alternative of a figure, at most LONGEST characters and never empty.

    Its kind, as the function that drew it says; then of each panel title, axes with their ends, and series by name with
    where they begin and end, bars with their heights, pictures and cells by rows and columns.
    """
    panels = [ax for ax in figure.axes if ax.get_visible() and ax.get_label() != "<colorbar>" and _drawn(ax)]
    kinds = [figure.get_label()] if figure.get_label() else [str(ax.get_label()) for ax in panels]
    around = [figure.get_suptitle(), figure.get_supxlabel(), figure.get_supylabel()]
    said = [*dict.fromkeys(kinds), *around]
    if len(panels) > PANELS:
        titles = _some(dict.fromkeys(filter(None, map(_title, panels))))
        said.append(f"{len(panels)} panels" + (f": {titles}; the first" if titles else ", of which the first"))
        panels = panels[:1]
    said += [_panel(ax) for ax in panels]
    text = ". ".join(dict.fromkeys(" ".join(each.split()).rstrip(".") for each in said if each and each.strip()))
    if not text:
        text = "A figure without any label"
    return text + "." if len(text) < LONGEST else text[: LONGEST - 1].rsplit(" ", 1)[0] + "…"


def alternative(figure: Figure) -> tuple[dict[str, Any], dict[str, Any]]:
    """What IPython is to publish with a figure: no data of its own, and the alternative of its PNG."""
    return {}, {"image/png": {"alt": describe(figure)}}


def _drawn(ax: Axes) -> bool:
    return bool(ax.lines or ax.images or ax.patches or ax.collections or ax.texts)


def _title(ax: Axes) -> str:
    return next((text for place in ("left", "center", "right") if (text := ax.get_title(place))), "")


def _panel(ax: Axes) -> str:
    said = [_title(ax)]
    cells = bool(ax.images) and not ax.lines
    if cells:
        said.append(_cells(ax))
    if ax.axison:
        said += [_axis(ax.xaxis, ax.dataLim.intervalx, cells), _axis(ax.yaxis, ax.dataLim.intervaly, cells)]
    rows, columns = (_names(axis) if _counted(axis) else [] for axis in (ax.yaxis, ax.xaxis))
    bars = [each for each in ax.containers if isinstance(each, BarContainer)]
    if bars:
        said += [_bars(each, rows or columns) for each in bars[:MOST]]
    elif rows and ax.lines:
        said.append(_by_row(ax, rows))
    else:
        said.append(_some(map(_series, ax.get_legend_handles_labels()[0])))
    if not cells and (not ax.axison or not any(said[1:])):
        said.append(_some(text.get_text() for text in ax.texts))
    return ". ".join(" ".join(each.split()) for each in said if each)


def _axis(axis: Axis, ends: np.ndarray, cells: bool) -> str:
    """Its label and how far the data go, or what stands along it."""
    label = axis.get_label_text()
    along = f"{'Horizontal' if axis.axis_name == 'x' else 'Vertical'} axis"
    if names := _names(axis) if cells or _counted(axis) else []:
        return f"{along}{f' {label}' * bool(label)}: {_some(names)}"
    scale = ", logarithmic" if axis.get_scale() == "log" else ""
    far = "" if cells or not np.isfinite(ends).all() else f", {_number(min(ends))} to {_number(max(ends))}{scale}"
    return f"{along} {label}{far}" if label else ""


def _names(axis: Axis) -> list[str]:
    """What ticks are called, where they were set."""
    if not isinstance(axis.get_major_locator(), FixedLocator):
        return []
    return [text.get_text() for text in axis.get_majorticklabels() if text.get_text()]


def _counted(axis: Axis) -> bool:
    """Whether ticks stand at 0, 1, ..., as those of rows and columns do and those of a quantity do not."""
    places = axis.get_majorticklocs()
    return len(places) > 1 and bool(np.array_equal(places[:2], [0, 1]))


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _series(artist: Any) -> str:
    """A curve's name, its ends, and its turn where it leaves what lies between them."""
    name = str(artist.get_label())
    if not isinstance(artist, Line2D) or artist.get_linestyle() == "None":
        return name
    values = np.ma.filled(np.ma.asarray(artist.get_ydata(orig=False), float), np.nan)
    values = values[np.isfinite(values)]
    if len(values) < 2 or len(np.unique(np.asarray(artist.get_xdata(orig=False), float))) < 3:
        return name  # a mark
    low, high = sorted((values[0], values[-1]))
    more = f", at most {_number(values.max())}" if values.max() > high + 0.05 * np.ptp(values) else ""
    more += f", at least {_number(values.min())}" if values.min() < low - 0.05 * np.ptp(values) else ""
    return f"{name} from {_number(values[0])} to {_number(values[-1])}{more}"


def _bars(bars: BarContainer, names: list[str]) -> str:
    sizes = [bar.get_height() if bars.orientation != "horizontal" else bar.get_width() for bar in bars]
    shown = [f"{name} {size:.3g}" for name, size in zip(names, sizes, strict=False)] or [
        f"{size:.3g}" for size in sizes
    ]
    label = str(bars.get_label())
    return f"{'Bars' if label.startswith('_') else label}: {_some(shown)}"


def _by_row(ax: Axes, rows: list[str]) -> str:
    """Of each named row the points on it, called as the legend calls their look."""
    known = {_look(line): str(line.get_label()) for line in ax.lines if not str(line.get_label()).startswith("_")}
    found: dict[str, dict[str, list[float]]] = {row: {} for row in rows}
    for line in ax.lines:
        name = known.get(_look(line))
        for x, y in zip(*(np.asarray(each, float) for each in line.get_data(orig=False)), strict=True) if name else ():
            if np.isfinite(x) and 0 <= round(y) < len(rows):
                found[rows[round(y)]].setdefault(str(name), []).append(x)
    told = (f"{row}: {', '.join(f'{name} {_range(each)}' for name, each in at.items())}" for row, at in found.items())
    return "; ".join(list(told)[:MOST])


def _look(line: Line2D) -> tuple[Any, ...]:
    return str(line.get_color()), str(line.get_marker()), str(line.get_markeredgecolor())


def _range(values: list[float]) -> str:
    low, high = map(_number, (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _cells(ax: Axes) -> str:
    """Pictures, or one table of coloured values."""
    values = ax.images[0].get_array()
    if values is None or len(ax.images) > 1 or np.ndim(values) == 3:
        heads = [text.get_text() for text in ax.texts if text.get_text()]
        count = f"{len(ax.images)} picture{'s' * (len(ax.images) > 1)}"
        return f"{count}: {_some(heads)}" if heads else count
    seen = np.ma.masked_invalid(np.ma.asarray(values, float))
    if seen.mask.all():
        return ""
    low, high = float(seen.min()), float(seen.max())
    return f"{values.shape[0]} rows by {values.shape[1]} columns of values from {low:.3g} to {high:.3g}"


def _some(names: Iterable[str] | Mapping[str, Any]) -> str:
    every = [told for name in names if any(map(str.isalnum, told := " ".join(str(name).split())))]
    more = f" and {len(every) - MOST} more" if len(every) > MOST else ""
    return ", ".join(every[:MOST]) + more
