"""Figures: data first, keyword options, `ax=None`, the axes (or, for panels, the figure) returned. Nothing is computed
beyond layout, nothing written, nothing shown. `style()` once per notebook makes the rest of matplotlib match.
"""

from capsnb.plots.architecture import architecture
from capsnb.plots.images import image_grid, perturbation_grid, reconstructions
from capsnb.plots.live import LiveCurve
from capsnb.plots.routing import coupling_histogram, couplings
from capsnb.plots.style import PALETTE, style
from capsnb.plots.training import confusion, learning_curve, lengths, seed_points

__all__ = [
    "PALETTE",
    "LiveCurve",
    "architecture",
    "confusion",
    "coupling_histogram",
    "couplings",
    "image_grid",
    "learning_curve",
    "lengths",
    "perturbation_grid",
    "reconstructions",
    "seed_points",
    "style",
]
