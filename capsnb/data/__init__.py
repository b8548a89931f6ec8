"""Image sets as uint8 tensors, whole on one device: `load("mnist-sample")`, `load("mnist")`, `load("my/folder")`.

Every set has train, validation and test splits. Nothing is downloaded at import or without `download=True`, nothing is
replaced silently: a missing or damaged file is one sentence with the file's name and the remedy. `prepare(DataSpec())`
gives the images of a run, `digest` tells sets apart by their content.
"""

from capsnb.data.identity import digest
from capsnb.data.image_set import Batch, ImageSet, Split, balanced_order, evenly_spaced
from capsnb.data.loading import load
from capsnb.data.sources import (
    available,
    data_dir,
    fetch,
    folder_of_sets,
    is_own,
    names,
    refuse_own,
    short_name,
    true_digest,
)
from capsnb.data.spec import Augment, DataSpec, prepare, unseeded

__all__ = [
    "Augment",
    "Batch",
    "DataSpec",
    "ImageSet",
    "Split",
    "available",
    "balanced_order",
    "data_dir",
    "digest",
    "evenly_spaced",
    "fetch",
    "folder_of_sets",
    "is_own",
    "load",
    "names",
    "prepare",
    "refuse_own",
    "short_name",
    "true_digest",
    "unseeded",
]
