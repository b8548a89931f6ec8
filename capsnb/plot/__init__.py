"""Figures: data first, keyword options, `ax=None`, the axes (or, for panels, the figure) returned. Nothing is computed
beyond layout, nothing written, nothing shown. `style()` once per notebook makes the rest of matplotlib match.
"""

from capsnb.plot.architecture import architecture
from capsnb.plot.characterization import (
    class_intervals,
    class_perturbations,
    feature_effects,
    features_moved,
    perturbed_accuracy,
    picture_rows,
)
from capsnb.plot.dictionary import (
    coupling_distributions,
    entropy_by_class,
    key_clusters,
    layer_sparsity,
    level_curves,
    training_path,
)
from capsnb.plot.entropy import certainty_against_fitness, transfer_points, trial_bands
from capsnb.plot.images import image_grid, perturbation_grid, reconstructions
from capsnb.plot.live import LiveCurve
from capsnb.plot.manifold import embedded_grid, embedded_grids, faithfulness_points, grid_distances, shift_images
from capsnb.plot.maps import heat_maps
from capsnb.plot.parse_tree import norm_bars, parse_tree, parse_tree_statistics, parse_trees
from capsnb.plot.paths import ablation_curves, overlap_maps, overlap_scores, shared_activation, unit_sharing
from capsnb.plot.robustness import (
    accuracy_against_parameters,
    accuracy_against_setting,
    accuracy_path,
    factor_curves,
    paired_effects,
    perturbation_panels,
    pose_planes,
)
from capsnb.plot.routing import coupling_histogram, couplings
from capsnb.plot.starvation import network_life, pull_balance, scaling, viewpoint_curves
from capsnb.plot.style import PALETTE, style
from capsnb.plot.training import confusion, learning_curve, lengths, seed_points

__all__ = [
    "PALETTE",
    "LiveCurve",
    "ablation_curves",
    "accuracy_against_parameters",
    "accuracy_against_setting",
    "accuracy_path",
    "architecture",
    "certainty_against_fitness",
    "class_intervals",
    "class_perturbations",
    "confusion",
    "coupling_distributions",
    "coupling_histogram",
    "couplings",
    "embedded_grid",
    "embedded_grids",
    "entropy_by_class",
    "factor_curves",
    "faithfulness_points",
    "feature_effects",
    "features_moved",
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
    "overlap_maps",
    "overlap_scores",
    "paired_effects",
    "parse_tree",
    "parse_tree_statistics",
    "parse_trees",
    "perturbation_grid",
    "perturbation_panels",
    "perturbed_accuracy",
    "picture_rows",
    "pose_planes",
    "pull_balance",
    "reconstructions",
    "scaling",
    "seed_points",
    "shared_activation",
    "shift_images",
    "style",
    "training_path",
    "transfer_points",
    "trial_bands",
    "unit_sharing",
    "viewpoint_curves",
]
