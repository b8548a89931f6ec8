"""One trained network through the measures of all five papers: a few numbers of each, and a reason where there is none.

The numbers are meant to be set side by side for networks on the same images, with their nulls: see `catalogue`. A
measure raises ValueError with one sentence for a network that lacks what it needs; that sentence is the reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

from torch import nn

from capsnb.data import ImageSet
from capsnb.measure import catalogue
from capsnb.measure.protocol import MEASURES, WHILE_TRAINING, Measure

if TYPE_CHECKING:
    import pandas as pd


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

    def of(self, measure: Measure) -> dict[str, float]:
        """Those that are settings of a measure."""
        return {name: value for name, value in asdict(self).items() if name in measure.defaults}


class Survey(NamedTuple):
    """What was measured of one network."""

    values: dict[tuple[str, str], float]  # (paper, row) -> number, nan where there is none
    reasons: dict[tuple[str, str], str]  # (paper, row) -> why there is none


def surveyed() -> list[Measure]:
    """The measures that have rows in a survey, in the papers' order: those of `catalogue`, then a reader's own."""
    found = [each for each in MEASURES.values() if each.rows and not set(each.needs) & set(WHILE_TRAINING)]
    return sorted(found, key=lambda each: (each.paper != catalogue.NETWORK, each.paper))


def survey(
    model: nn.Module, data: ImageSet, sizes: Sizes | None = None, *, measures: Iterable[Measure] | None = None
) -> Survey:
    """All numbers of a trained network, on the test images of a set (paths are ranked on the validation images).

    measures: all that are registered with rows when None. Raises what a measure raises that is no ValueError.
    """
    values: dict[tuple[str, str], float] = {}
    reasons: dict[tuple[str, str], str] = {}
    for measure in surveyed() if measures is None else measures:
        rows = [(measure.paper, name) for name in measure.rows]
        try:
            found = measure(model, data, **(sizes or Sizes()).of(measure))
            values |= {row: float(found[row[1]]) for row in rows}
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
