"""What keys say image by image: of each class, of images never seen, of the pixels that images of one key share.

Renzulli et al. 2022: Table 5 and figure 5 count the keys of each class, figures 4 and 6 show mean couplings, figure 7
images of one key, and sec. 4.3 asks what a pose says beyond its class. Keys are those of the released quantiser.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from capsnb.data import ImageSet
from capsnb.measure import dictionary, perturbation
from capsnb.measure.key_statistics import even_bin
from capsnb.measure.protocol import RENZULLI, measurement
from capsnb.measure.quantisation import COUPLING, Quantiser

QUANTILES = 101
SHUFFLES = 10


@measurement("trees by class", paper=RENZULLI, needs=(COUPLING,))
def trees_by_class(model: nn.Module, data: ImageSet, *, images: int = 10_000) -> dict[str, Any]:
    """`dictionary.Trees` of test images: of each predicted class "images", "keys", "entropy" and "bound" in bits.

    "accuracy": the share that is right, +Q. "share": mean entropy over mean bound.
    """
    keys = dictionary.collect(model, dictionary.balanced(data.test, images), Quantiser.released(len(data.classes)))
    found = dictionary.trees(keys)
    return {name: list(each) for name, each in found._asdict().items()} | {
        "accuracy": keys.accuracy,
        "share": found.share,
    }


@measurement("mean couplings", paper=RENZULLI, needs=(COUPLING,))
def mean_couplings(model: nn.Module, data: ImageSet, *, images: int = 10_000) -> dict[str, list]:
    """How a class's mean couplings, quantised, are distributed over the primary capsules of test images (figs. 4, 6).

    "quantiles": of each class, from the least to the largest in equal steps of their share; None each for a class that
    is never predicted.
    """
    split, quantiser = dictionary.balanced(data.test, images), Quantiser.released(len(data.classes))
    means = dictionary.mean_couplings(model, split, quantiser).T.numpy()
    at = np.linspace(0, 1, QUANTILES)
    none = [None] * QUANTILES
    found = [none if np.isnan(own).any() else np.quantile(own, at).round(5).tolist() for own in means]
    return {"quantiles": found}


@measurement("known keys", paper=RENZULLI, needs=(COUPLING,))
def known_keys(model: nn.Module, data: ImageSet, *, images: int = 10_000) -> dict[str, float | None]:
    """How many test images have a key of the training images' dictionary, and what sets them apart: shares.

    "known". "right, known" and "right, new": of them that are right. "even, known" and "even, new": of their couplings
    in the bin of 1/J. None where there are no such images.
    """
    quantiser = Quantiser.released(len(data.classes))
    seen, keys = (
        dictionary.collect(model, dictionary.balanced(split, images), quantiser) for split in (data.train, data.test)
    )
    known = dictionary.known(keys, seen)
    even = (keys.bins == even_bin(quantiser, len(data.classes))).mean(1)[keys.codes]
    found: dict[str, float | None] = {"known": float(known.mean())}
    for name, values in {"right": keys.predicted == keys.labels, "even": even}.items():
        for word, own in {"known": known, "new": ~known}.items():
            found[f"{name}, {word}"] = float(values[own].mean()) if own.any() else None
    return found


@measurement("images of a key", paper=RENZULLI, needs=(COUPLING,))
def images_of_a_key(
    model: nn.Module, data: ImageSet, *, images: int = 10_000, seed: int = 0
) -> dict[str, float | None]:
    """How much of the pixels' variance within predicted classes is gone within keys: an adjusted R^2 (figure 7).

    "explained": 1 - (variance within keys) / (variance within classes), each with its own degrees of freedom; None
    where all images are alone with their key. "null: keys at random": the mean of ten shuffles within classes. "alone":
    the share of images that share their key with no other.
    """
    split = dictionary.balanced(data.test, images)
    keys = dictionary.collect(model, split, Quantiser.released(len(data.classes)))
    pixels = (split.images.flatten(1).double() / 255).cpu().numpy()
    rng = np.random.default_rng(seed)
    shuffled = [explained(pixels, _shuffled(keys.codes, keys.predicted, rng), keys.predicted) for _ in range(SHUFFLES)]
    chance = [each for each in shuffled if each is not None]
    return {
        "explained": explained(pixels, keys.codes, keys.predicted),
        "null: keys at random": float(np.mean(chance)) if chance else None,
        "alone": float((keys.counts[keys.codes] == 1).mean()),
    }


@measurement("clusters of a key", paper=RENZULLI, needs=(COUPLING,))
def clusters_of_a_key(
    model: nn.Module, data: ImageSet, *, images: int = 10_000, labels: tuple[int, ...] = (0, 7, 9), top: int = 6
) -> dict[str, Any]:
    """Figure 7: the largest clusters of test images of one key, of some predicted classes, laid over each other.

    Of each of the labels, largest first, at most `top`: "counts", how many images, and "pictures", (clusters, C, H, W)
    uint8, the share of them that a pixel is bright in. "largest": how many images the most frequent key has.
    """
    split = dictionary.balanced(data.test, images)
    keys = dictionary.collect(model, split, Quantiser.released(len(data.classes)))
    found = [dictionary.clusters(keys, split, label, top=top) for label in labels]
    return {
        "counts": [[len(each.positions) for each in row] for row in found],
        "pictures": [[(255 * each.overlay).round().byte().numpy() for each in row] for row in found],
        "largest": int(keys.counts.max()),
    }


@measurement("beyond the class", paper=RENZULLI, needs=("reconstruction",))
def beyond_the_class(model: nn.Module, data: ImageSet) -> dict[str, float]:
    """ "share": see `perturbation.kept_beyond_class`."""
    return {"share": perturbation.kept_beyond_class(model, data)}


def explained(pixels: np.ndarray, codes: np.ndarray, classes: np.ndarray) -> float | None:
    """Adjusted R^2 of pixels (N, P) by groups (N,) within classes (N,): 1 alike within groups, 0 as by chance.

    A class whose images are all alone in their group says nothing and is left out; None where that is so of all.
    """
    inner = expected = 0.0
    for label in np.unique(classes):
        own = pixels[classes == label]
        places = np.unique(codes[classes == label], return_inverse=True)[1]
        counts = np.bincount(places)
        if len(own) > len(counts):
            sums = np.zeros((len(counts), own.shape[1]))
            np.add.at(sums, places, own)
            inner += float(np.square(own - (sums / counts[:, None])[places]).sum())
            expected += (len(own) - len(counts)) * float(own.var(axis=0, ddof=1).sum())
    return 1 - inner / expected if expected else None


def _shuffled(codes: np.ndarray, classes: np.ndarray, rng: Any) -> np.ndarray:
    """Each class's codes in random order."""
    found = codes.copy()
    for label in np.unique(classes):
        own = np.flatnonzero(classes == label)
        found[own] = found[rng.permutation(own)]
    return found
