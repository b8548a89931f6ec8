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
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from capsnb.evidence.columns import ALONE, COLUMNS, CONTROLS, Column, Read
from capsnb.evidence.plans import Plan
from capsnb.evidence.sweep import Grid, read_grid
from capsnb.evidence.verdicts import Sample, sample
from capsnb.measure.dictionary import grouped_alike
from capsnb.measure.observe import UNTRAINED, in_store
from capsnb.measure.protocol import find
from capsnb.training.runs import run_name
from capsnb.training.spec import Spec

if TYPE_CHECKING:
    import pandas as pd

BySeed = dict[int, float]
Values = dict[int, Mapping[str, Any]]  # seed -> what a measure says


class Seen(NamedTuple):
    """What a measure says of a network's runs: names of the runs, and values, by seed; and what the store calls it.

    even: whether its couplings are even by construction (`is_even`).
    """

    runs: dict[int, str]
    values: Values
    observation: str
    even: bool = False


Look = Callable[..., Seen]  # (network, measure, null=..., **settings)
EVEN = "its couplings are even by construction, and even couplings rank no units"
ITSELF = "the null of this column is the untrained network itself"
BEFORE = ", untrained"  # after a network's name, the same before training


class Cell(NamedTuple):
    """A network in a column: numbers and nulls by seed, the sample of their differences, or why there are none.

    runs: seed -> the run that was measured, whose file in the evidence store has the number. observation: the measure,
    its version and its settings, "starvation@1", as the store has them.
    """

    values: BySeed
    nulls: BySeed
    reason: str = ""
    runs: Mapping[int, str] = MappingProxyType({})
    observation: str = ""

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
    called = {spec: run_name(spec, plan.data_dir) for spec in plan.all_specs()}

    def look(network: str, measure: str, null: str | None = None, **settings: Any) -> Seen:
        source = live if network in plan.guests else plan
        settings = sizes.get(measure, settings)
        found = source.observe(network, measure, null=null, **settings)
        named = {spec.seed: called[spec] for spec in plan.specs[network] if spec.seed in found}
        values = {seed: each.values for seed, each in found.items()}
        return Seen(named, values, find(measure).column(**settings), any(map(is_even, plan.specs[network])))

    return look


def is_even(spec: Spec) -> bool:
    """Whether a network's couplings are the same number for all votes: its routing says so itself."""
    return hasattr(getattr(spec.model, "routing", None), "constant")


def of_grid(grid: Grid, name: Callable[[Mapping[str, Any]], str]) -> Look:
    """What the evidence store has of a grid's networks, called as `name` makes it of their settings."""
    called = dict(zip(grid.specs, grid.names, strict=True))

    def look(network: str, measure: str, null: str | None = None, **settings: Any) -> Seen:
        specs = [spec for each, spec in zip(grid.settings, grid.specs, strict=True) if name(each) == network]
        found = in_store([called[spec] for spec in specs], measure, null=null, **settings)
        there = {spec: each.values for spec, each in zip(specs, found, strict=True) if each is not None}
        values = {spec.seed: each for spec, each in there.items()}
        named = {spec.seed: called[spec] for spec in there}
        return Seen(named, values, find(measure).column(**settings), any(map(is_even, specs)))

    return look


def before_training(look: Look) -> Look:
    """What `look` sees, but of the same networks as their seeds draw them."""

    def seen(network: str, measure: str, null: str | None = None, **settings: Any) -> Seen:
        return look(network, measure, null=UNTRAINED, **settings)

    return seen


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


def untrained(
    networks: Iterable[str], look: Look, columns: Sequence[Column] = COLUMNS, *, controls: Sequence[str] = ()
) -> Card:
    """The same networks before training, over the same nulls; a column whose null they are says so.

    Arguments: `scorecard`'s.
    """
    networks = list(networks)
    others = [column for column in columns if column.null != UNTRAINED]
    card = scorecard(networks, before_training(look), others, controls=controls)
    own = {column.name: Cell({}, {}, ITSELF) for column in columns if column.null == UNTRAINED}
    return {name: own | cells for name, cells in card.items()}


class Page(NamedTuple):
    """A card with what it takes to show it: its columns, the controls below a line, network -> notebook or grid."""

    card: Card
    columns: Sequence[Column]
    controls: tuple[str, ...]
    sources: Mapping[str, str]

    def frame(self) -> pd.DataFrame:
        return frame(self.card, self.columns, sources=self.sources)

    @property
    def groups(self) -> list[tuple[str, str]]:
        """The columns with their papers' authors, as `plot.scorecard` takes them."""
        return [(column.name, column.author) for column in self.columns]


def of_sets(plan: Plan, columns: Sequence[Column] = COLUMNS) -> Page:
    """The networks of a plan beside its controls, then those on each other set of images beside that set's own.

    plan.settings["apart"]: set -> {"networks": ..., "controls": ...}.
    """
    look, apart = of_plan(plan), plan.settings.get("apart", {}).values()
    elsewhere = {name for each in apart for name in each["networks"]}
    controls = tuple(plan.settings["controls"])
    card = scorecard([name for name in plan.specs if name not in elsewhere], look, columns, controls=controls)
    for each in apart:
        card |= scorecard(each["networks"], look, columns, controls=each["controls"])
        controls += tuple(each["controls"])
    return Page(card, columns, controls, dict.fromkeys(card, f"notebook {plan.notebook} at {plan.profile}"))


def of_recorded(files: Iterable[Path], *, before: bool = False, controls: Sequence[str] = ()) -> Page:
    """What the evidence store has of grids' cases, a row each, in the columns that have a number.

    before: each case has a row before training, too: "agreement, untrained". controls: cases of every grid, whose
    mean stands for CONTROLS; without them costs stand for themselves.
    Raises ValueError for a grid without cases, or without a control, and as `read_grid`.
    """
    card: Card = {}
    sources: dict[str, str] = {}
    columns = [own if controls and own.null == CONTROLS else alone for own, alone in zip(COLUMNS, ALONE, strict=True)]
    for file in files:
        grid = read_grid(file)
        if not all("case" in each for each in grid.settings):
            raise ValueError(f"{file} has no cases, of which a scorecard has a row each.")
        cases = list(dict.fromkeys(map(_case, grid.settings)))
        if lacking := [name for name in controls if name not in cases]:
            raise ValueError(f"{file} has no case {lacking[0]!r} that could be a control; it has: {', '.join(cases)}.")
        look = of_grid(grid, _case)
        card |= scorecard(cases, look, columns, controls=controls)
        drawn = untrained(cases, look, columns, controls=controls) if before else {}
        card |= {f"{case}{BEFORE}": cells for case, cells in drawn.items()}
        sources |= dict.fromkeys([*cases, *(f"{case}{BEFORE}" for case in drawn)], file.name)
    columns = [each for each in columns if any(cells[each.name].sample.n for cells in card.values())]
    return Page(card, columns, tuple(controls), sources)


def _case(settings: Mapping[str, Any]) -> str:
    return settings["case"]


def _numbers(look: Look, network: str, column: Column) -> Cell:
    if column.why:
        return Cell({}, {}, column.why)
    seen = look(network, column.measure, **column.settings)
    found, empty = seen.values, Cell({}, {}, "", seen.runs, seen.observation)
    if reasons := [each["reason"] for each in found.values() if "reason" in each]:
        return empty._replace(reason=reasons[0])
    if column.ranks and seen.even:
        return empty._replace(reason=EVEN)
    read, null = column.value, column.null
    if read is None:
        return empty._replace(values=(alike := pairwise_alike(found)), nulls=dict.fromkeys(alike, 0.0))
    values = _finite(read, found)
    if found and not values:
        return empty._replace(reason=f"{column.measure} finds nothing to count")
    if null == UNTRAINED:
        before = look(network, column.measure, null=UNTRAINED, **column.settings).values
        return empty._replace(values=values, nulls=_finite(read, before))
    nulls = _finite(null, found) if isinstance(null, Read) else dict.fromkeys(values, 0.0)
    return empty._replace(values=values, nulls=nulls)


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


NUMBERS = ("effect", "low", "high", "null", "seeds")  # of a row of `frame`


def frame(
    card: Card, columns: Sequence[Column] = COLUMNS, *, sources: Mapping[str, str] = MappingProxyType({})
) -> pd.DataFrame:
    """A row per network and column: `NUMBERS`, the effect with the ends of its interval, and "why" where there is none.

    And what it is traced by: "source", its network's among `sources`; "observation", the measure, its version and its
    settings; "number", which of its values; "over", which null; "runs", the names of the evidence store's files of all
    seeds, in one text.
    """
    import pandas as pd

    rows, known = {}, {column.name: column for column in columns}
    for name, cells in card.items():
        for column, cell in cells.items():
            if column not in known:
                continue
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
                "source": sources.get(name, ""),
                "observation": cell.observation,
                "number": str(known[column].value or ""),
                "over": str(known[column].null),
                "runs": " ".join(cell.runs[seed] for seed in sorted(cell.runs)),
            }
    return pd.DataFrame(rows).T.rename_axis(["network", "measure"])


WORDS = {  # what a reason speaks of -> what a cell has room for
    "trainings of its own": "trainings",
    "rank no units": "no ranks",
    "network itself": "the null",
    "decoder": "no decoder",
    "distribution": "no shares",
    "coupling": "no routing",
    "capsule layers": "no layers",
    "room": "no room",
    "nothing to count": "no count",
    "poses": "no poses",
}


def shown(card: Card) -> dict[str, dict[str, tuple[float, bool] | str | None]]:
    """What `plot.scorecard` draws: (effect, zero excluded), one of `WORDS` where there is none, None: not run."""

    def word(reason: str) -> str | None:
        return next((short for part, short in WORDS.items() if part in reason), "none") if reason else None

    return {
        name: {
            column: (cell.sample.mean, cell.decided) if cell.sample.n else word(cell.reason)
            for column, cell in cells.items()
        }
        for name, cells in card.items()
    }
