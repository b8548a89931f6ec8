"""Figures: data first, keyword options, `ax=None`, the axes (or, for panels, the figure) returned. Nothing is computed
beyond layout, nothing written, nothing shown. `style()` once per notebook makes the rest of matplotlib match, and has
every figure carry a text alternative (`describe`).
"""

# ruff: noqa: F401 - what is imported here is what the package offers

from capsnb.plot.architecture import architecture, transfer_schemes
from capsnb.plot.curves import (
    ablation_curves,
    factor_curves,
    level_curves,
    scaling,
    seed_bands,
    viewpoint_curves,
)
from capsnb.plot.images import image_grid, key_clusters, overlap_maps, picture_rows, reconstructions
from capsnb.plot.life import (
    dose_response,
    hidden_gradients,
    network_life,
    revival,
    starving,
    training_path,
)
from capsnb.plot.manifold import embedded_grid, embedded_grids, pose_planes
from capsnb.plot.parse_tree import norm_bars, parse_tree, parse_tree_statistics, parse_trees
from capsnb.plot.perturbation import (
    class_intervals,
    class_perturbations,
    feature_effects,
    perturbation_grid,
    perturbation_panels,
)
from capsnb.plot.points import (
    accuracy_against_setting,
    paired_effects,
    seed_points,
    transfer_points,
    two_places,
)
from capsnb.plot.routing import coupling_distributions, coupling_histogram, couplings, entropy_by_class, lengths
from capsnb.plot.scorecard import scorecard
from capsnb.plot.style import PALETTE, style
from capsnb.plot.tables import confusion, heat_maps, unit_sharing
from capsnb.plot.training import LiveCurve, certainty_against_fitness, learning_curve, trial_bands
from capsnb.plot.words import describe
