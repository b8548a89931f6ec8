"""Does a representation keep a known plane? 9x9 shifts of a digit, embedded and compared with their grid.

Lin, Li & Ma 2018, sec. 3.2: one digit moves by up to 4 px over another, which stays; the 81 representations at an
intermediate layer are embedded in the plane by t-SNE, and the Chamfer distance to the grid of shifts is reported. How
the plane is scaled and turned, and which of the Chamfer distances is meant, is not said. Ours is stated here:

both sets centred and scaled to a root mean square distance of 1 from their centre; the plain (not squared) distances
to the nearest point, averaged over each set, the two averages added; the least over turns of 0 to 90 degrees in steps
of 1, which takes in mirror images, as the grid is its own.

The Chamfer distance does not know which image lies where: shuffled points score 0. `procrustes`, `trustworthiness` and
`spearman` do, and the last two, and Procrustes in the space of the poses, need no t-SNE.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from capsnb.data import ImageSet, Split
from capsnb.data.pixels import centre
from capsnb.data.transforms import shift_grid
from capsnb.nn import taps

DIGITS = ((7, 8), (3, 5))  # (fixed, moving) of figure 4
NEIGHBOURS = 8  # those around an inner point of the grid


class ShiftSet(NamedTuple):
    """One digit at all shifts over another one."""

    images: Tensor  # (S, C, H, W) uint8
    offsets: Tensor  # (S, 2) int64: pixels down and to the right
    labels: tuple[int, int]  # of the fixed and of the moving digit


class Faithfulness(NamedTuple):
    """How well points keep the grid of shifts; nan where a measure is not defined."""

    chamfer: float  # 0 best; blind to which point is which
    procrustes: float  # 0 best, 1 worst: share of the points' variance that no turned and scaled grid explains
    trustworthiness: float  # 1 best, about 0.5 by chance
    spearman: float  # 1 best, 0 by chance


SCORES = Faithfulness._fields


def shift_sets(
    split: Split,
    digits: Sequence[tuple[int, int]] = DIGITS,
    *,
    count: int = 1,
    radius: int = 4,
    size: int | None = None,
) -> list[ShiftSet]:
    """`count` sets for each (fixed, moving) pair of classes, from the first images of both classes. Rows come first.

    size: side of the canvas, if larger than the image and its shifts. Raises ValueError when the split shows fewer
    images of a class than `count`, or the canvas is too small.
    """
    found = []
    for fixed, moving in digits:
        chosen = [(split.labels == label).nonzero().flatten()[:count] for label in (fixed, moving)]
        if short := [label for label, index in zip((fixed, moving), chosen, strict=True) if len(index) < count]:
            raise ValueError(f"the split has fewer than {count} images of class {short[0]}.")
        still, moved = (split.images[index] for index in chosen)
        grid = shift_grid(moved, radius, fixed=still)
        images = grid.images
        if size is not None:
            if size < images.shape[-1]:
                raise ValueError(f"size = {size}: the shifted images are {images.shape[-1]} pixels wide.")
            images = centre(images.flatten(0, 1), size, size).unflatten(0, images.shape[:2])
        found += [ShiftSet(images[:, n], grid.offsets, (fixed, moving)) for n in range(count)]
    return found


def representation(model: nn.Module | None, images: Tensor, tap: str | None) -> np.ndarray:
    """What a named place of a model holds for each image, as one row of numbers: (S, C, H, W) -> float64 (S, units).

    tap: None for the pixels themselves, in [0, 1]: what a network must beat to have discovered anything.
    """
    if tap is None:
        return images.flatten(1).double().cpu().numpy() / 255
    if model is None:
        raise ValueError(f"tap {tap!r} needs a model to be read from, and none was given.")
    with taps.evaluating(model), taps.record(model, tap) as seen:
        model(images.to(next(model.parameters()).device))
    return seen[tap].flatten(1).double().cpu().numpy()


def embed(points: Any, seed: int = 0, *, perplexity: float = 30.0) -> np.ndarray:
    """t-SNE in the plane, from a random start: (S, units) -> (S, 2). Exact gradients, as suits so few points.

    Raises ValueError when there are no more points than the perplexity.
    """
    points = np.asarray(points, dtype=np.float64)
    if len(points) <= perplexity:
        raise ValueError(f"t-SNE at perplexity {perplexity:g} needs more than {len(points)} points.")
    return _laid_out(points.tobytes(), points.shape, seed, perplexity).copy()


@lru_cache(maxsize=64)  # the pixels, which are the null, are the same of every network
def _laid_out(points: bytes, shape: tuple[int, ...], seed: int, perplexity: float) -> np.ndarray:
    from sklearn.manifold import TSNE

    method = TSNE(2, perplexity=perplexity, init="random", method="exact", random_state=seed)
    return method.fit_transform(np.frombuffer(points).reshape(shape)).astype(np.float64)


def normalised(points: Any) -> np.ndarray:
    """Centred, and scaled to a root mean square distance of 1 from the centre. (S, d) -> (S, d)

    Raises ValueError for points that are all the same.
    """
    points = np.asarray(points, dtype=np.float64)
    centred = points - points.mean(0)
    size = np.sqrt((centred**2).sum(1).mean())
    if not size > 1e-12 * max(1.0, np.abs(points).max()):
        raise ValueError("all points are the same: they have no size to be scaled by.")
    return centred / size


def chamfer(first: Any, second: Any) -> float:
    """Chamfer distance of two sets of points (S, d), (R, d) as they lie.

    The mean distance of the first set's points to the nearest of the second, and the same the other way round, added.
    """
    from scipy.spatial.distance import cdist

    distances = cdist(np.asarray(first), np.asarray(second))
    return float(distances.min(1).mean() + distances.min(0).mean())


def aligned_chamfer(points: Any, offsets: Any, *, step: float = 1.0) -> float:
    """The least Chamfer distance between points of the plane (S, 2) and a square grid (S, 2), both normalised.

    Least over turns of 0 to 90 degrees, `step` apart.
    """
    points, grid = normalised(points), normalised(offsets)
    angles = np.deg2rad(np.arange(0, 90, step))
    turns = np.array([[[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]] for a in angles])
    return min(chamfer(points @ turn.T, grid) for turn in turns)


def chance_chamfer(offsets: Any, *, seed: int = 0, draws: int = 50) -> dict[str, float]:
    """`aligned_chamfer` of as many points that know nothing of a grid (S, 2), mean over so many draws.

    "uniform square": points of a square, "Gaussian cloud": of a normal distribution; both of as many points.
    """
    random, shape = np.random.default_rng(seed), np.shape(offsets)
    square = [random.random(shape) for _ in range(draws)]
    cloud = [random.standard_normal(shape) for _ in range(draws)]
    return {
        name: float(np.mean([aligned_chamfer(points, offsets) for points in sets]))
        for name, sets in {"uniform square": square, "Gaussian cloud": cloud}.items()
    }


def procrustes(points: Any, offsets: Any) -> float:
    """Procrustes disparity, 0 to 1, of points (S, d) and the grid (S, 2), which lies in a plane of their space.

    The share of the points' variance that is left when the grid, turned (or mirrored) and scaled, is taken away.
    """
    from scipy.spatial import procrustes as matched

    points, grid = normalised(points), normalised(offsets)
    wide = max(points.shape[1], grid.shape[1])
    first, second = (np.pad(each, ((0, 0), (0, wide - each.shape[1]))) for each in (grid, points))
    return float(matched(first, second)[2])


def trustworthiness(points: Any, offsets: Any, *, neighbours: int = NEIGHBOURS) -> float:
    """Are the neighbours of each point (S, d) its neighbours in the grid (S, 2)? 1: all of them (Venna & Kaski 2001).

    scikit-learn's number, but that points of the grid which are equally far have equal rank: with its own, the grid
    would not trust itself. Raises ValueError unless 0 < neighbours < S / 2.
    """
    from scipy.spatial.distance import cdist

    points, grid = np.asarray(points, dtype=np.float64), np.asarray(offsets, dtype=np.float64)
    count = len(points)
    if not 0 < neighbours < count / 2:
        raise ValueError(f"neighbours = {neighbours}: it must be above 0 and below half of the {count} points.")
    near = cdist(points, points)
    np.fill_diagonal(near, np.inf)  # nobody is its own neighbour, not even among points that fall together
    chosen = np.argsort(near, axis=1, kind="stable")[:, :neighbours]
    true = cdist(grid, grid)
    np.fill_diagonal(true, np.inf)
    ranks = 1 + (true[:, None, :] < true[:, :, None] - 1e-9).sum(2)  # [i, j]: 1 + how many are nearer to i than j
    excess = np.maximum(np.take_along_axis(ranks, chosen, 1) - neighbours, 0).sum()
    return float(1 - 2 * excess / (count * neighbours * (2 * count - 3 * neighbours - 1)))


def spearman(points: Any, offsets: Any) -> float:
    """Rank correlation of all pairwise distances of points (S, d) with those of the grid (S, 2), -1 to 1.

    nan where all points are equally far from each other.
    """
    from scipy.spatial.distance import pdist
    from scipy.stats import spearmanr

    # rounded, or distances that are equal on the grid would have an order on the grid turned
    first, second = (pdist(np.asarray(each, dtype=np.float64)) for each in (points, offsets))
    first, second = (np.round(each / (each.mean() or 1), 9) for each in (first, second))
    return float(spearmanr(first, second).statistic) if np.ptp(first) else float("nan")


def faithfulness(points: Any, offsets: Any) -> Faithfulness:
    """All four measures of points (S, d) against their shifts (S, 2); the Chamfer distance for the plane alone.

    Raises ValueError for points that are all the same, or another number of points than shifts.
    """
    points, offsets = np.asarray(points, dtype=np.float64), np.asarray(offsets, dtype=np.float64)
    if points.ndim != 2 or offsets.shape != (len(points), 2):
        raise ValueError(f"points (S, d) and shifts (S, 2) are needed, not {points.shape} and {offsets.shape}.")
    return Faithfulness(
        aligned_chamfer(points, offsets) if points.shape[1] == 2 else float("nan"),
        procrustes(points, offsets),
        trustworthiness(points, offsets),
        spearman(points, offsets),
    )


def shift_manifold(
    model: nn.Module, data: ImageSet, *, tap: str = "class.poses", sets: int = 2, radius: int = 4, seeds: int = 2
) -> dict[str, Any]:
    """The scores of section 3.2 for its digits on test images, means over sets (and t-SNE seeds), the pixels as null.

    "tsne ...": of t-SNE's plane; "own ...": of the representation itself; "pictures": "fixed, moving" -> points of the
    first set in the plane (S, 2), of t-SNE seed 0. Images of a set of pairs are taken before they are paired.
    Raises ValueError for a tap that the model has not, and as `shift_sets` does.
    """
    if tap not in taps.names(model):
        raise ValueError(f"{type(model).__name__} has no {tap}, whose plane of shifts is asked for")
    single = getattr(data.test, "base", data.test).to(next(model.parameters()).device)
    chosen = shift_sets(single, count=sets, radius=radius, size=data.image_shape[1])
    found: dict[str, Any] = {}
    pictures = {}
    for prefix, net, place in (("null: pixels, ", None, None), ("", model, tap)):
        scores: dict[str, list[Faithfulness]] = {"tsne": [], "own": []}
        for number, each in enumerate(chosen):
            points, offsets = representation(net, each.images, place), each.offsets.cpu().numpy()
            laid = [embed(points, seed) for seed in range(seeds)]
            scores["own"].append(faithfulness(points, offsets))
            scores["tsne"] += [faithfulness(plane, offsets) for plane in laid]
            if number % sets == 0:
                pictures[", ".join(map(str, each.labels))] = normalised(laid[0]).round(4).tolist()
        for kind, rows in scores.items():
            for name in SCORES[kind == "own" :]:  # of a representation there is no Chamfer distance
                found[f"{prefix}{kind} {name}"] = float(np.mean([getattr(row, name) for row in rows]))
    return found | {"pictures": pictures}
