"""The scorecard: every network through measures of all five papers, each number beside what says nothing.

    plan = plans.plan("08")
    found = scorecard(plan.specs, of_plan(plan))
    found["by agreement"]["parts in wholes"].sample.interval

A cell is the effect of a network over the null of its column, paired seed by seed, with a 95 % interval; where the
network lacks what the measure needs, the sentence that says so.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from capsnb.evidence.columns import ALONE, COLUMNS, CONTROLS, Column, Read
from capsnb.evidence.plans import Plan
from capsnb.evidence.sweep import Grid
from capsnb.evidence.verdicts import Sample, holm, sample
from capsnb.measure.dictionary import grouped_alike
from capsnb.measure.observe import UNTRAINED, observe

if TYPE_CHECKING:
    import pandas as pd

BySeed = dict[int, float]
Values = dict[int, Mapping[str, Any]]  # seed -> what a measure says
Look = Callable[..., Values]  # (network, measure, null=..., **settings)


class Cell(NamedTuple):
    """A network in a column: numbers and nulls by seed, the sample of their differences, or why there are none."""

    values: BySeed
    nulls: BySeed
    reason: str = ""

    @property
    def sample(self) -> Sample:
        return sample([self.values[seed] - self.nulls[seed] for seed in sorted(self.values.keys() & self.nulls.keys())])

    @property
    def decided(self) -> bool:
        """Whether the interval over seeds excludes zero."""
        ends = self.sample.interval
        return ends is not None and not ends[0] <= 0 <= ends[1]


Card = dict[str, dict[str, Cell]]  # network -> column -> cell


def of_plan(plan: Plan) -> Look:
    """What a plan's networks are measured to be, at the sizes in its settings, as `Plan.observe` answers.

    A reader's own routings are trained and measured where they are not yet.
    """
    live, sizes = replace(plan, stored=False), plan.settings.get("sizes", {})

    def look(network: str, measure: str, null: str | None = None, **settings: Any) -> Values:
        source = live if network in plan.guests else plan
        found = source.observe(network, measure, null=null, **sizes.get(measure, settings))
        return {seed: each.values for seed, each in found.items()}

    return look


def of_grid(grid: Grid, name: Callable[[Mapping[str, Any]], str]) -> Look:
    """What the evidence store has of a grid's networks, called as `name` makes it of their settings."""

    def look(network: str, measure: str, null: str | None = None, **settings: Any) -> Values:
        wanted = [(each, spec) for each, spec in zip(grid.settings, grid.specs, strict=True) if name(each) == network]
        specs = [spec for _, spec in wanted]
        found = observe(specs, measure, recorded=True, partial=True, null=null, **settings)
        return {spec.seed: each.values for spec, each in zip(specs, found, strict=True) if each is not None}

    return look


def scorecard(
    networks: Iterable[str], look: Look, columns: Sequence[Column] = COLUMNS, *, controls: Sequence[str] = ()
) -> Card:
    """Every network in every column, of the seeds that are there.

    look: `of_plan` or `of_grid`. controls: the networks whose mean stands for CONTROLS.
    """
    networks = list(networks)
    card: Card = {network: {} for network in networks}
    for column in columns:
        found = {network: _numbers(look, network, column) for network in networks}
        means = _means([found[name].values for name in controls])
        for network, cell in found.items():
            card[network][column.name] = cell if column.null != CONTROLS else cell._replace(nulls=means)
    return card


def by_case(grid: Grid) -> Card:
    """What the evidence store has of a grid's cases, a row each, without controls. Raises KeyError for no cases."""

    def case(settings: Mapping[str, Any]) -> str:
        return settings["case"]

    return scorecard(dict.fromkeys(map(case, grid.settings)), of_grid(grid, case), ALONE)


def measured(card: Card, columns: Sequence[Column] = COLUMNS) -> list[tuple[str, str]]:
    """Those columns in which any network has a number, with their papers' authors: what `plot.scorecard` takes."""
    return [(each.name, each.author) for each in columns if any(cells[each.name].sample.n for cells in card.values())]


def _numbers(look: Look, network: str, column: Column) -> Cell:
    found = look(network, column.measure, **column.settings)
    if reasons := [each["reason"] for each in found.values() if "reason" in each]:
        return Cell({}, {}, reasons[0])
    read, null = column.value, column.null
    if read is None:
        return Cell(values := pairwise_alike(found), dict.fromkeys(values, 0.0))
    values = _finite(read, found)
    if found and not values:
        return Cell({}, {}, f"{column.measure} finds nothing to count")
    if null == UNTRAINED:
        return Cell(values, _finite(read, look(network, column.measure, null=UNTRAINED, **column.settings)))
    return Cell(values, _finite(null, found) if callable(null) else dict.fromkeys(values, 0.0))


def _finite(read: Read, found: Mapping[int, Mapping[str, Any]]) -> BySeed:
    """seed -> number, of the seeds that have one."""
    return {seed: number for seed, each in found.items() if math.isfinite(number := read(each))}


def pairwise_alike(found: Mapping[int, Mapping[str, Sequence[int]]]) -> BySeed:
    """How alike two seeds group the images, a number for each seed: the jackknife's pseudo-values of the pairs' mean.

    Pairs that share a seed are not independent; the pseudo-values have the mean of all pairs, and spread as seeds do.
    Empty for fewer than three seeds. found: seed -> "groups" and "predicted" of the same images.
    """
    pairs = {
        pair: alike
        for pair in itertools.combinations(sorted(found), 2)
        if (alike := grouped_alike(*((found[seed]["groups"], found[seed]["predicted"]) for seed in pair))) is not None
    }
    number = len(found)
    if number < 3 or len(pairs) < number * (number - 1) // 2:
        return {}
    whole = statistics.fmean(pairs.values())
    without = {s: statistics.fmean(each for pair, each in pairs.items() if s not in pair) for s in found}
    return {s: number * whole - (number - 1) * each for s, each in without.items()}


def _means(several: Sequence[BySeed]) -> BySeed:
    shared = set.intersection(*map(set, several)) if several else set()
    return {seed: statistics.fmean(each[seed] for each in several) for seed in sorted(shared)}


def frame(card: Card) -> pd.DataFrame:
    """A row per network and column: "effect", the ends of its interval ("low", "high"), "null", "seeds", and "why"
    where there is no number."""
    import pandas as pd

    rows = {}
    for name, cells in card.items():
        for column, cell in cells.items():
            found = cell.sample
            low, high = found.interval or (None, None)
            null = statistics.fmean(cell.nulls.values()) if cell.nulls else None
            why = cell.reason or ("" if found.n else "not run")
            effect = found.mean if found.n else None
            rows[name, column] = {
                "effect": effect,
                "low": low,
                "high": high,
                "null": null,
                "seeds": found.n,
                "why": why,
            }
    return pd.DataFrame(rows).T.rename_axis(["network", "measure"])


def shown(card: Card) -> dict[str, dict[str, tuple[float, bool] | str | None]]:
    """What `plot.scorecard` draws: (effect, zero excluded), why there is none, or None where it was not run."""
    return {
        name: {
            column: (cell.sample.mean, cell.decided) if cell.sample.n else cell.reason or None
            for column, cell in cells.items()
        }
        for name, cells in card.items()
    }


class Rank(NamedTuple):
    """Spearman's correlation of two columns over networks, and whether it survives Holm's correction over the page."""

    columns: tuple[str, str]
    rho: float
    networks: int
    p: float
    survives: bool = False


def rank_correlations(card: Card, columns: Sequence[Column] = COLUMNS, *, least: int = 6) -> list[Rank]:
    """Of each two columns over the networks that have both: effects' means, since seeds are no independent rows.

    The surest first. Pairs with fewer than `least` networks, or a column without any spread, are left out.
    """
    from scipy.stats import spearmanr

    effects = {
        column.name: {
            name: cells[column.name].sample.mean for name, cells in card.items() if cells[column.name].sample.n
        }
        for column in columns
    }
    found = []
    for first, second in itertools.combinations(effects, 2):
        both = [name for name in effects[first] if name in effects[second]]
        sides = [[effects[column][name] for name in both] for column in (first, second)]
        if len(both) >= least and all(len(set(side)) > 1 for side in sides):
            result = spearmanr(*sides)
            found.append(Rank((first, second), float(result.statistic), len(both), float(result.pvalue)))
    kept = holm(found)
    ranked = [each._replace(survives=bool(own)) for each, own in zip(found, kept, strict=True)]
    return sorted(ranked, key=lambda each: each.p)
