"""Sets derived from sets, on the device and never stored: moved, affine-transformed, overlapping in pairs, in a grid.

A derived set is fixed by its seed: image i's transform is a function of (seed, split, i) alone.
"""

from capsnb.data.transforms.affine import Affine, Transforms, Translated
from capsnb.data.transforms.pairs import Grid, Pairs, PairSplit, overlap, pair_splits, shift_grid

__all__ = [
    "Affine",
    "Grid",
    "PairSplit",
    "Pairs",
    "Transforms",
    "Translated",
    "overlap",
    "pair_splits",
    "shift_grid",
]
