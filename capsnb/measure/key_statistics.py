"""Which key counts: what keys depend on besides the network, and what they say of an image.

Renzulli et al. 2022, sec. 3.1, give one number, the entropy of the keys at one number of levels K. Here are the same
over all K; where the couplings lie in the bins of one K and how many hang on their edges; what a key says of its
image's class, beside shuffled classes and of images that the dictionary has not seen; and all of it against training,
with the pull that pruning has applied so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from capsnb.data import ImageSet, Split
from capsnb.measure import dictionary
from capsnb.measure.dictionary import Keys
from capsnb.measure.protocol import RENZULLI, measurement
from capsnb.measure.quantisation import COUPLING, Quantiser, fewest_levels, quantised_accuracies
from capsnb.nn import taps
from capsnb.nn.layers import length
from capsnb.training import pruning
from capsnb.training.evaluation import evaluate

if TYPE_CHECKING:
    from capsnb.training.loop import Training

LEVELS = (2, 3, 4, 5, 6, 8, 11, 16, 21, 32, 64, 128)
NEAR = 0.01  # of a coupling: a tenth of a bin of K = 11


@measurement("keys in training", paper=RENZULLI, needs=(COUPLING, "optimizer"))
def keys_in_training(
    model: nn.Module, data: ImageSet, *, images: int = 10_000, training: Training
) -> dict[str, float | int]:
    """Keys of test images with the dose so far, to be watched: numbers all.

    "entropy", "bound" (bits), "share" (of the bound), "keys", "accuracy" (+Q, a share), "even": the share of couplings
    in the bin of 1/J. "sparsity": the share of weights that are 0; "norm": that of all weights that could be pruned;
    "pull": the sum of the penalty's rates over all steps, 0 without one.
    """
    quantiser = Quantiser.released(len(data.classes))
    keys = dictionary.collect(model, dictionary.balanced(data.test, images), quantiser)
    found = dictionary.trees(keys)
    numbers = {"entropy": found.mean_entropy, "bound": found.mean_bound, "share": found.share, "keys": sum(found.keys)}
    even = float(occupancy(keys, quantiser)[even_bin(quantiser, len(data.classes))])
    weights = pruning.weights(model).values()
    norm = float(sum(weight.detach().double().square().sum() for weight in weights)) ** 0.5
    pull = sum(hook.pull for hook in training.hooks if isinstance(hook, pruning.Pruner))
    numbers |= {"accuracy": keys.accuracy, "even": even}
    return numbers | {"sparsity": pruning.sparsity(model)["total"], "norm": norm, "pull": pull}


@measurement("keys by levels", paper=RENZULLI, needs=(COUPLING,))
def keys_by_levels(
    model: nn.Module, data: ImageSet, *, images: int = 10_000, levels: tuple[int, ...] = LEVELS
) -> dict[str, Any]:
    """For every number of levels K, on test images: "accuracy" (+Q, shares), "entropy" and "bound" (bits), "keys".

    "share": mean entropy over mean bound, the mean over all K, 0 to 1. "lowest K": the paper's rule, the fewest levels
    that cost no accuracy on the validation images; None where all do.
    """
    quantisers, found = [Quantiser(levels=count) for count in levels], []
    for keys in dictionary.collect_all(model, dictionary.balanced(data.test, images), quantisers):
        trees = dictionary.trees(keys)
        found.append((keys.accuracy, trees.mean_entropy, trees.mean_bound, sum(trees.keys), trees.share))
    *columns, shares = zip(*found, strict=True)
    held = quantised_accuracies(model, data.validation, quantisers)
    lowest = fewest_levels(dict(zip(levels, held, strict=True)), evaluate(model, data.validation).accuracy)
    named = dict(zip(("accuracy", "entropy", "bound", "keys"), map(list, columns), strict=True))
    return {"levels": list(levels), **named, "share": float(np.mean(shares)), "lowest K": lowest}


@measurement("bins", paper=RENZULLI, needs=(COUPLING,))
def bins(model: nn.Module, data: ImageSet, *, images: int = 10_000, near: float = NEAR) -> dict[str, Any]:
    """Where the couplings to the predicted class lie among the bins of the released quantiser, on test images.

    "occupancy": the share of couplings in each of the K bins. "outside": how many of an image's couplings are not in
    the bin of 1/J, mean. "fixed": the share of edges, capsule to class, whose bin is one for all images of the class.
    "hanging": the share of images whose key is another when all edges of bins move by `near`, up or down. "moved": the
    entropy (bits) with edges moved down, as they are, and up.
    """
    quantiser = Quantiser.released(len(data.classes))
    coupling, predicted = to_predicted(model, dictionary.balanced(data.test, images))
    moved = [quantiser.bins(coupling + shift) for shift in (near, 0.0, -near)]
    own = moved[1]
    even = even_bin(quantiser, len(data.classes))
    same = [(own[predicted == label] == own[predicted == label][0]).all(0) for label in predicted.unique()]
    hanging = (moved[0] != own).any(1) | (moved[2] != own).any(1)
    shares = torch.bincount(own.flatten(), minlength=quantiser.levels).double() / own.numel()
    return {
        "occupancy": [round(share, 6) for share in shares.tolist()],
        "outside": float((own != even).sum(1).double().mean()),
        "fixed": float(torch.stack(same).double().mean()),
        "hanging": float(hanging.double().mean()),
        "moved": [class_entropy(each, predicted) for each in moved],
    }


@measurement("key groups", paper=RENZULLI, needs=(COUPLING,))
def key_groups(model: nn.Module, data: ImageSet, *, images: int = 400) -> dict[str, list[int]]:
    """Which test images have one key, to be set beside another seed's (`dictionary.grouped_alike`).

    "groups": the number of each image's key; "predicted": its class.
    """
    split, quantiser = dictionary.balanced(data.test, images), Quantiser.released(len(data.classes))
    keys = dictionary.collect(model, split, quantiser)
    return {"groups": keys.codes.tolist(), "predicted": keys.predicted.tolist()}


@measurement("key information", paper=RENZULLI, needs=(COUPLING,))
def key_information(model: nn.Module, data: ImageSet, *, images: int = 10_000, seed: int = 0) -> dict[str, float]:
    """What a key, its bins alone, says of its image's true class, in bits: at most "bound", the entropy of the classes.

    "same images": the mutual information on test images, of which unique keys have all, whatever they are. "null:
    shuffled classes": the same with the test images' classes in random order. "held out": what a dictionary of
    training images says of test images (`held_out`). "known": the share of test images whose bins it has.
    """
    quantiser = Quantiser.released(len(data.classes))
    tests = dictionary.collect(model, dictionary.balanced(data.test, images), quantiser)
    seen = dictionary.collect(model, dictionary.balanced(data.train, images), quantiser)
    codes, earlier = _numbered(tests, seen)
    order = np.random.default_rng(seed).permutation(len(codes))
    return {
        "same images": information(codes, tests.labels),
        "null: shuffled classes": information(codes, tests.labels[order]),
        "held out": held_out(earlier, seen.labels, codes, tests.labels),
        "known": float(np.isin(codes, earlier).mean()),
        "bound": dictionary.entropy(np.bincount(tests.labels)),
    }


def to_predicted(model: nn.Module, split: Split, *, batch: int = 250) -> tuple[Tensor, Tensor]:
    """Each capsule's coupling to the predicted class, (N, I), and that class, (N,), both on the CPU."""
    found: list[tuple[Tensor, Tensor]] = []

    def fold(state: None, seen: Mapping[str, Tensor], images: Any) -> None:
        winner = length(seen[dictionary.POSES]).argmax(1)
        own = seen[COUPLING].take_along_dim(winner[:, None, None], 2).squeeze(2)
        found.append((own.cpu(), winner.cpu()))

    batches = split.to(next(model.parameters()).device).batches(batch)
    taps.stream(model, batches, (COUPLING, dictionary.POSES), fold)
    coupling, predicted = map(torch.cat, zip(*found, strict=True))
    return coupling, predicted


def occupancy(keys: Keys, quantiser: Quantiser) -> np.ndarray:
    """The share of all couplings, images x capsules, in each bin: (K,), of sum 1."""
    counts = np.zeros(quantiser.levels)
    np.add.at(counts, keys.bins, keys.counts[:, None])
    return counts / counts.sum()


def even_bin(quantiser: Quantiser, classes: int) -> int:
    """The bin of 1/J, where an undecided capsule stands."""
    return int(quantiser.bins(torch.tensor([1 / classes])))


def class_entropy(bins: Tensor, predicted: Tensor) -> float:
    """Eq. 9 of bins (N, I), each class (N,) with a dictionary of its own: mean over those predicted, in bits."""
    counts = [torch.unique(bins[predicted == label], dim=0, return_counts=True)[1] for label in predicted.unique()]
    return float(np.mean([dictionary.entropy(each) for each in counts]))


def information(codes: np.ndarray, labels: np.ndarray) -> float:
    """Mutual information of two labellings of N items, in bits, of their counts as they are (no correction)."""
    joint = np.stack((codes, labels), 1)
    parts = (np.unique(each, axis=0, return_counts=True)[1] for each in (codes, labels, joint))
    of_codes, of_labels, of_both = map(dictionary.entropy, parts)
    return max(0.0, of_codes + of_labels - of_both)


def held_out(known: np.ndarray, classes: np.ndarray, codes: np.ndarray, labels: np.ndarray) -> float:
    """Bits that a dictionary known (N,) -> classes (N,) spares in naming the labels (M,) of other codes (M,).

    The label's entropy less the mean of -log2 p(label | code), p being the dictionary's counts of the code and one more
    item, spread over the classes as the dictionary has them; an unknown code leaves that spread. Below 0 where codes
    mislead.
    """
    count = int(max(classes.max(), labels.max())) + 1
    table = np.zeros((int(max(known.max(), codes.max())) + 1, count))
    np.add.at(table, (known, classes), 1)
    # a class that the dictionary lacks has the spread of half an item, so that no label is impossible
    spread = np.maximum(np.bincount(classes, minlength=count), 0.5)
    spread = spread / spread.sum()
    rows = table[codes] + spread
    chance = rows[np.arange(len(labels)), labels] / rows.sum(1)
    return float(dictionary.entropy(np.bincount(labels)) + np.log2(chance).mean())


def _numbered(*several: Keys) -> list[np.ndarray]:
    """One numbering of the bins of several dictionaries, whatever class they belong to: (N,) of each one's images."""
    numbers: dict[bytes, int] = {}
    rows = [[numbers.setdefault(row.tobytes(), len(numbers)) for row in keys.bins] for keys in several]
    return [np.array(row)[keys.codes] for row, keys in zip(rows, several, strict=True)]
