"""Where capsules send their votes: couplings of one image iteration by iteration, and their distribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from capsnb.plot.style import BLUE, PALETTE, RED, array, axes, styled


def couplings(
    coupling: Any, *, classes: Sequence[Any] | None = None, label: int | None = None, figure: Figure | None = None
) -> Figure:
    """Couplings of one image at each routing iteration, (T, I, J): a panel per iteration, a row per parent capsule.

    Children stand in the same order in all panels, grouped by the parent that wins them last and from the surest down,
    so that the groups are seen to form. Colour runs from 0 over the uniform 1/J (white) to the largest coupling.
    label: index of the true class, printed bold. The bars give each parent's share of all coupling.
    """
    steps = array(coupling)
    if steps.ndim != 3:
        raise ValueError(f"couplings shows one image, (T, I, J), not {steps.shape}.")
    count, children, parents = steps.shape
    names = [str(name) for name in (classes if classes is not None else range(parents))]
    winner = steps[-1].argmax(-1)
    order = np.lexsort((-steps[-1].max(-1), winner))
    bounds = np.searchsorted(winner[order], np.arange(1, parents)) - 0.5
    top = max(float(steps.max()), 1.001 / parents)
    norm = mpl.colors.TwoSlopeNorm(vmin=0, vcenter=1 / parents, vmax=top)
    with styled():
        figure = figure or plt.figure(figsize=(9, count * (0.55 + 0.17 * parents) + 0.3))
        grid = figure.subplots(count, 2, squeeze=False, sharey="row", gridspec_kw={"width_ratios": (7, 1)})
    share = steps.mean(1)
    for step, (panel, bars) in enumerate(grid):
        drawn = panel.imshow(steps[step][order].T, aspect="auto", cmap="PuOr_r", norm=norm, interpolation="nearest")
        uniform = f": uniform, 1/{parents}" if np.allclose(steps[step], 1 / parents, atol=1e-6) else ""
        panel.set_title(f"iteration {step + 1}{uniform}", loc="left")
        panel.set_yticks(range(parents), names)
        panel.vlines(bounds, -0.5, parents - 0.5, color="black", linewidth=0.4, alpha=0.5)
        panel.tick_params(length=0, labelbottom=step == count - 1)
        panel.spines[:].set_visible(False)
        bars.barh(range(parents), share[step], color=[BLUE if row == label else "#bbbbbb" for row in range(parents)])
        bars.axvline(1 / parents, color=RED, linewidth=1, linestyle="--")
        bars.set_xlim(0, 1.08 * share.max())
        bars.tick_params(length=0, labelleft=False, labelbottom=step == count - 1)
        if label is not None:
            panel.get_yticklabels()[label].set(fontweight="bold", color=BLUE)
    grid[-1, 0].set_xlabel(f"{children:,} child capsules, grouped by the parent that wins them")
    grid[-1, 1].set_xlabel("mean coupling")
    figure.supylabel("parent capsule", fontsize=10)
    bar = figure.colorbar(drawn, ax=grid[:, 1], label="coupling", ticks=[0, 1 / parents, top], aspect=30)
    bar.ax.set_yticklabels(["0", f"1/{parents}", f"{top:.2f}"])
    return figure


def coupling_histogram(
    coupling: Any | Mapping[str, Any], *, parents: int | None = None, bins: int = 50, ax: Axes | None = None
) -> Axes:
    """How couplings (..., J) are distributed over [0, 1], as shares on a log scale, with the uniform 1/J marked.

    A mapping name -> couplings draws one outline each. parents: J, where the last axis is not J.
    """
    named = coupling if isinstance(coupling, Mapping) else {"": coupling}
    ax = axes(ax, 6.0, 3.2)
    edges = np.linspace(0, 1, bins + 1)
    found = None
    for (name, values), colour in zip(named.items(), PALETTE, strict=False):
        values = array(values)
        found = parents or found or values.shape[-1]
        weights = np.full(values.size, 1 / values.size)
        alone = len(named) == 1
        style = {"histtype": "stepfilled", "alpha": 0.85} if alone else {"histtype": "step", "linewidth": 1.8}
        ax.hist(np.clip(values.ravel(), 0, 1), edges, weights=weights, color=colour, label=name or None, **style)
    ax.axvline(1 / found, color=RED, linestyle="--", linewidth=1.2, label=f"uniform, 1/{found}")
    ax.set(yscale="log", xlim=(0, 1), xlabel="coupling", ylabel=f"share of couplings per {1 / bins:g}")
    ax.legend()
    return ax
