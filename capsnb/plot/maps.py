"""Maps over a grid of networks: a coloured cell, with its number, for each pair of settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from capsnb.plot.style import array, styled


def heat_maps(
    maps: Mapping[str, Any],
    rows: Sequence[Any],
    columns: Sequence[Any],
    *,
    ylabel: str = "",
    xlabel: str = "",
    digits: Mapping[str, int] | None = None,
    limits: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """A panel per name: values (R, C), darker where larger, each on a scale of its own; nan is left blank.

    rows, columns: what the cells of a row or of a column share, as shown on the axes. digits: decimals of the numbers
    in a panel's cells, 0 by default. limits: ends of a panel's scale, by default its least and its largest value.
    Raises ValueError for values of another shape than rows by columns.
    """
    values = {name: array(each).astype(float) for name, each in maps.items()}
    for name, each in values.items():
        if each.shape != (len(rows), len(columns)):
            raise ValueError(f"{name} has the shape {each.shape}, not {len(rows)} rows by {len(columns)} columns.")
    colours = mpl.colormaps["cividis_r"]
    with styled():
        size = (1.4 + (1.3 + 0.75 * len(columns)) * len(values), 1.3 + 0.5 * len(rows))
        figure = plt.figure(figsize=size)
        panels = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
    for panel, (name, each) in zip(panels, values.items(), strict=True):
        low, high = (limits or {}).get(name, (None, None))
        drawn = panel.imshow(each, cmap=colours, aspect="auto", vmin=low, vmax=high)
        for (row, column), value in np.ndenumerate(each):
            if np.isfinite(value):
                shade = np.dot(drawn.to_rgba(value)[:3], (0.299, 0.587, 0.114))
                text = f"{value:.{(digits or {}).get(name, 0)}f}"
                panel.text(column, row, text, ha="center", va="center", color="black" if shade > 0.5 else "white")
        panel.set_title(name, loc="left")
        panel.set_xticks(range(len(columns)), [str(each) for each in columns])
        panel.set(xlabel=xlabel)
        panel.spines[:].set_visible(False)
        panel.tick_params(length=0)
    panels[0].set_yticks(range(len(rows)), [str(each) for each in rows])
    panels[0].set_ylabel(ylabel)
    return figure
