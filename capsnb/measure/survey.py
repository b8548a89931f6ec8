"""One trained network through the measures of all five papers: a few numbers of each, and a reason where there is none.

The numbers are meant to be set side by side for networks on the same images, with their nulls. They are no replication
of a paper: each notebook measures more, on more images, and says what a number does not tell. A measure raises
ValueError with one sentence for a network that lacks what it needs (a tap, a decoder); that sentence is the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from capsnb.data import ImageSet, Split
from capsnb.data.pixels import resize
from capsnb.data.transforms import shift_grid
from capsnb.measure import (
    compactness,
    dictionary,
    entropy,
    intervals,
    manifold,
    overlap,
    parse_tree,
    path_accuracy,
    paths,
    perturbation,
    quantisation,
    robustness,
    viewpoint,
)
from capsnb.training.evaluation import evaluate

if TYPE_CHECKING:
    import pandas as pd

CLASS = "class.coupling"
SHIFTED = 4  # classes of which an image is moved
MASK = 0.25  # the middle threshold of Tawalbeh & Oramas's Table 4


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is measured. images: test images at most; few: of them, for measures that change each image many times.

    kept: share of the capsules that a path keeps. parts: capsules whose heatmaps are made, at most. seed: of the nulls.
    """

    images: int = 200
    few: int = 20
    kept: float = 0.1
    parts: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.images, self.few, self.parts) < 2 or not 0 < self.kept <= 1:
            raise ValueError(f"{self}: at least 2 images and parts are needed, and a share kept above 0 and up to 1.")


class Measure(NamedTuple):
    """Some rows of a survey: `function(model, data, sizes)` returns as many numbers as it has names."""

    paper: str
    names: tuple[str, ...]
    function: Callable[[nn.Module, ImageSet, Sizes], Iterable[float]]


class Survey(NamedTuple):
    """What was measured of one network."""

    values: dict[tuple[str, str], float]  # (paper, row) -> number, nan where there is none
    reasons: dict[tuple[str, str], str]  # (paper, row) -> why there is none


def survey(
    model: nn.Module, data: ImageSet, sizes: Sizes | None = None, *, measures: Iterable[Measure] | None = None
) -> Survey:
    """All numbers of a trained network, on the test images of a set (paths are ranked on the validation images).

    measures: MEASURES when None; add a Measure of your own to them. Raises what a measure raises that is no ValueError.
    """
    sizes, values, reasons = sizes or Sizes(), {}, {}
    for measure in MEASURES if measures is None else measures:
        rows = [(measure.paper, name) for name in measure.names]
        try:
            values |= zip(rows, map(float, measure.function(model, data, sizes)), strict=True)
        except ValueError as error:
            values |= dict.fromkeys(rows, math.nan)
            reasons |= dict.fromkeys(rows, str(error))
    return Survey(values, reasons)


def side_by_side(surveys: Mapping[str, Survey]) -> pd.DataFrame:
    """Rows: paper and measure; a column per network."""
    import pandas as pd

    frame = pd.DataFrame({name: pd.Series(found.values) for name, found in surveys.items()})
    return frame.rename_axis(["paper", "measure"])


def missing(surveys: Mapping[str, Survey]) -> dict[str, list[str]]:
    """Reason -> the networks and rows that it leaves empty, as "network: row"."""
    found: dict[str, list[str]] = {}
    for name, each in surveys.items():
        for (_, row), reason in each.reasons.items():
            found.setdefault(reason, []).append(f"{name}: {row}")
    return found


def first(split: Any, count: int) -> Split:
    """The first images of a split, all where it has fewer."""
    return split.select(torch.arange(min(count, len(split)), device=split.labels.device))


def _accuracy(model: nn.Module, data: ImageSet, sizes: Sizes) -> Iterable[float]:
    return 100 * evaluate(model, data.test).accuracy, sum(parameter.numel() for parameter in model.parameters())


def _interval(model: nn.Module, data: ImageSet, sizes: Sizes) -> Iterable[float]:
    return _intervals(model, data, sizes).alpha


def _intervals(model: nn.Module, data: ImageSet, sizes: Sizes) -> intervals.Intervals:
    split = first(data.test, sizes.images)
    found = intervals.activation_statistics(model, split, ["class.poses"], classes=len(data.classes))
    return intervals.class_intervals(found["class.poses"])


def _perturbed(model: nn.Module, data: ImageSet, sizes: Sizes) -> Iterable[float]:
    steps = _intervals(model, data, sizes).steps()
    return (100 * perturbation.perturbed_accuracy(model, first(data.test, sizes.few), steps).mean(),)


def _path(model: nn.Module, data: ImageSet, sizes: Sizes) -> Iterable[float]:
    held, test = first(data.validation, sizes.images), first(data.test, sizes.images)
    for reading in (paths.Reading(), paths.Reading(of="random", seed=sizes.seed)):
        ranking = paths.rank(model, held, reading, classes=len(data.classes))
        kept = math.ceil(sizes.kept * ranking.units.shape[1])
        yield 100 * path_accuracy.path_accuracy(model, test, ranking, reading, units=(kept,)).accuracy.item()


def _parts(model: nn.Module, data: ImageSet, sizes: Sizes) -> Iterable[float]:
    images = first(data.test, sizes.few).images
    units = overlap.top_units(model, images, paths.Reading(), sizes.parts)
    parts, whole = overlap.unit_heatmaps(model, images, units), overlap.class_heatmaps(model, images)
    found = overlap.overlap(parts, whole, thresholds=(MASK,), seed=sizes.seed)
    return 100 * found.isolated.nanmean(), 100 * found.isolated_chance.nanmean()


def _certainty(model: nn.Module, data: ImageSet, sizes: Sizes) -> Iterable[float]:
    found = entropy.associations(model, _batches(model, data, sizes), [CLASS])[CLASS]
    return found.mean, found.certainty


def _plane(model: nn.Module, data: ImageSet, sizes: Sizes) -> Iterable[float]:
    # one object moves, alone: these networks have not learned two. Shrunk, so that it has room at their image's size
    side = data.image_shape[1]
    radius = max(2, side // 9)
    owners = [int((data.test.labels == label).nonzero()[0]) for label in data.test.labels.unique()[:SHIFTED]]
    small = resize(data.test.images[owners], side - 2 * radius, side - 2 * radius)
    grid = shift_grid(small, radius)
    sets = [manifold.ShiftSet(grid.images[:, n], grid.offsets, (n, n)) for n in range(len(small))]
    for net, tap in ((model, "class.poses"), (None, None)):
        rows = manifold.manifold(net, sets, tap, seeds=())
        yield sum(row["spearman"] for row in rows) / len(rows)


def _trees(model: nn.Module, data: ImageSet, sizes: Sizes) -> Iterable[float]:
    split, quantiser = first(data.test, sizes.images), quantisation.Quantiser.released(len(data.classes))
    keys = dictionary.collect(model, split, quantiser)
    plain = evaluate(model, split).accuracy
    return 100 * len(keys.digests) / len(split), dictionary.trees(keys).share, 100 * (plain - keys.accuracy)


def _parse_tree(model: nn.Module, data: ImageSet, sizes: Sizes) -> Iterable[float]:
    layers = parse_tree.trace(model, _batches(model, data, sizes), thresholds=())
    dead = torch.cat([layer.dead() for layer in layers])
    return 100 * dead.double().mean(), parse_tree.dynamics(layers[-2], layers[-1]).dyr


def _turned(model: nn.Module, data: ImageSet, sizes: Sizes) -> Iterable[float]:
    found = viewpoint.viewpoint(model, _batches(model, data, sizes), "rotation", [viewpoint.TURN])
    return [viewpoint.share_kept(list(found.values())[place]) for place in (0, -1)]


def _compactness(model: nn.Module, data: ImageSet, sizes: Sizes) -> Iterable[float]:
    rows = compactness.table(model, first(data.test, sizes.few)).values()
    return sum(row.mean for row in rows) / len(rows), next(iter(rows)).bound


def _robustness(model: nn.Module, data: ImageSet, sizes: Sizes) -> Iterable[float]:
    split = first(data.test, sizes.images)
    for factor in ("rotation", "trans-x", "scale"):
        values = compactness.VALUES[factor]
        yield 100 * robustness.drop(robustness.accuracy_against(model, split, factor, values), values, factor)


def _batches(model: nn.Module, data: ImageSet, sizes: Sizes) -> Iterable:
    return first(data.test, sizes.images).to(next(model.parameters()).device).batches(50)


TAWALBEH, LIN, RENZULLI = "1 Tawalbeh & Oramas", "2 Lin et al.", "3 Renzulli et al."
MITTERREITER, GU = "4 Mitterreiter et al.", "5 Gu et al."
MEASURES = (
    Measure("network", ("accuracy, %", "parameters"), _accuracy),
    Measure(TAWALBEH, ("poses reach down to", "poses reach up to"), _interval),
    Measure(TAWALBEH, ("right on its own perturbed pictures, %",), _perturbed),
    Measure(TAWALBEH, ("accuracy of its few best capsules, %", "null: of as many at random, %"), _path),
    Measure(TAWALBEH, ("part inside its whole (RMA), %", "null: inside another image's, %"), _parts),
    Measure(LIN, ("entropy of the routing to classes, nats", "certainty, 0 to 1"), _certainty),
    Measure(LIN, ("class poses keep the plane of shifts (Spearman)", "null: pixels"), _plane),
    Measure(RENZULLI, ("keys per 100 images", "entropy of keys, share of its bound", "points lost by +Q"), _trees),
    Measure(MITTERREITER, ("dead capsules, %", "dyr of the routing to classes, 0 to 1"), _parse_tree),
    Measure(MITTERREITER, ("first capsules keep of a turn, share", "class capsules keep of a turn, share"), _turned),
    Measure(GU, ("compactness, mean of six factors, nats", "its bound, nats"), _compactness),
    Measure(GU, ("points lost by rotation", "points lost by shifts", "points lost by scale"), _robustness),
)
