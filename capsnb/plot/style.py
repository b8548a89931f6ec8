"""One look for every figure: a palette that colour-blind readers can tell apart, readable sizes, no chart junk.

What is neither data nor white of its own is of a grey that is read on a light and on a dark page, and in notebooks the
ground is the page's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure

from capsnb.plot.words import alternative

# seaborn's "colorblind"; to import seaborn takes scipy's statistics with it, seconds in each process that draws
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#949494"
PALETTE = (BLUE, ORANGE, GREEN, RED, PURPLE, "#ca9161", "#fbafe4", GREY, "#ece133", "#56b4e9")
INK = "#767676"  # text and lines: 4.5 times as dark as white, 4.1 times as light as a dark page
PALE = "#94949433"  # a tint on any ground
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "*")
SETTINGS = {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.prop_cycle": mpl.cycler(color=PALETTE),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.grid": False,
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "image.cmap": "gray",
    "image.interpolation": "nearest",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}


def style() -> None:
    """Make every figure of this session look like capsnb's, and in a notebook tell what it shows (`words.describe`);
    call once at the top of a notebook."""
    mpl.rcParams.update(SETTINGS)
    try:
        from IPython import get_ipython
        from matplotlib_inline.config import InlineBackend
    except ImportError:
        return
    if (shell := get_ipython()) is not None:
        shell.display_formatter.mimebundle_formatter.for_type(Figure, alternative)
        # when a figure is drawn, not its own colour: JupyterLab puts white behind figures that are clear by themselves
        inline = InlineBackend.instance(parent=shell)
        inline.print_figure_kwargs = inline.print_figure_kwargs | {"facecolor": "none"}
        if "inline" in mpl.get_backend():
            # a figure is drawn where it is sent to the page, and not once more before, for a window that is not there
            pyplot.uninstall_repl_displayhook()


@contextmanager
def styled() -> Iterator[None]:
    """capsnb's style inside the block."""
    # not rc_context: it also puts back `interactive`, which the notebook backend sets with the first figure, and every
    # later figure would stay unseen
    before = {name: mpl.rcParams[name] for name in SETTINGS}
    mpl.rcParams.update(SETTINGS)
    try:
        yield
    finally:
        mpl.rcParams.update(before)


def array(data: Any) -> np.ndarray:
    """Numbers from an array, a list, or a tensor on any device, with or without a gradient."""
    if hasattr(data, "detach"):
        data = data.detach().cpu()
        data = data.float() if data.is_floating_point() else data  # numpy has no bfloat16
    return np.asarray(data)


def pixels(images: Any) -> np.ndarray:
    """Images as matplotlib shows them: (..., C, H, W) or (..., H, W), uint8 or [0, 1] -> (..., H, W, 3) in [0, 1].

    The third axis from the right is taken for channels when it has 1 to 3 entries and there are at least four axes; two
    are a pair of cameras, shown as red and cyan.
    """
    values = array(images)
    values = values / 255.0 if values.dtype == np.uint8 else np.clip(values.astype(float), 0, 1)
    coloured = values.ndim >= 4 and values.shape[-3] in (1, 2, 3)
    values = np.moveaxis(values, -3, -1) if coloured else values[..., None]
    if values.shape[-1] == 2:
        values = values[..., [0, 1, 1]]
    return np.broadcast_to(values, (*values.shape[:-1], 3)) if values.shape[-1] == 1 else values
