"""Figures: data first, keyword options, `ax=None`, the axes (or, for panels, the figure) returned. Nothing is computed
beyond layout, nothing written, nothing shown. `style()` once per notebook makes the rest of matplotlib match.
"""

from capsnb.plots.architecture import architecture
from capsnb.plots.dictionary import (
    coupling_distributions,
    entropy_by_class,
    key_clusters,
    layer_sparsity,
    level_curves,
    training_path,
)
from capsnb.plots.entropy import certainty_against_fitness, transfer_points, trial_bands
from capsnb.plots.images import image_grid, perturbation_grid, reconstructions
from capsnb.plots.live import LiveCurve
from capsnb.plots.manifold import embedded_grid, embedded_grids, faithfulness_points, grid_distances, shift_images
from capsnb.plots.maps import heat_maps
from capsnb.plots.parse_tree import norm_bars, parse_tree, parse_tree_statistics, parse_trees
from capsnb.plots.robustness import (
    accuracy_against_parameters,
    accuracy_against_setting,
    accuracy_path,
    factor_curves,
    paired_effects,
    perturbation_panels,
    pose_planes,
)
from capsnb.plots.routing import coupling_histogram, couplings
from capsnb.plots.starvation import network_life, pull_balance, scaling, viewpoint_curves
from capsnb.plots.style import PALETTE, style
from capsnb.plots.training import confusion, learning_curve, lengths, seed_points

__all__ = [
    "PALETTE",
    "LiveCurve",
    "accuracy_against_parameters",
    "accuracy_against_setting",
    "accuracy_path",
    "architecture",
    "certainty_against_fitness",
    "confusion",
    "coupling_distributions",
    "coupling_histogram",
    "couplings",
    "embedded_grid",
    "embedded_grids",
    "entropy_by_class",
    "factor_curves",
    "faithfulness_points",
    "grid_distances",
    "heat_maps",
    "image_grid",
    "key_clusters",
    "layer_sparsity",
    "learning_curve",
    "lengths",
    "level_curves",
    "network_life",
    "norm_bars",
    "paired_effects",
    "parse_tree",
    "parse_tree_statistics",
    "parse_trees",
    "perturbation_grid",
    "perturbation_panels",
    "pose_planes",
    "pull_balance",
    "reconstructions",
    "scaling",
    "seed_points",
    "shift_images",
    "style",
    "training_path",
    "transfer_points",
    "trial_bands",
    "viewpoint_curves",
]
