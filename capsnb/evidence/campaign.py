"""A campaign: train, measure and record what is declared and not yet in the evidence store, for so many hours.

Declared are the seeds of the notebooks' plans and of the grids (notebooks/sweeps) that name a notebook; no other is
trained. What belongs together is a row: one seed of all variants of a plan, or networks of a grid, on one image set,
since claims compare variants seed by seed. How many claims a row will decide is not known before it is measured, so
each counts alike and the one that costs least comes first: then the most rows an hour are complete, at whatever moment
a campaign stops.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from capsnb.evidence import plans
from capsnb.evidence.plans import Watched
from capsnb.evidence.recording import survey_run
from capsnb.evidence.sweep import read_grid
from capsnb.installation import project
from capsnb.measure import observe, protocol, survey
from capsnb.training import parallel, runs
from capsnb.training.parallel import Failure
from capsnb.training.spec import Spec

Taken = tuple[tuple[protocol.Measure, dict[str, Any]], ...]  # measures with their settings


@dataclass(frozen=True)
class Part:
    """What a plan or a grid declares: its networks, and what the evidence store is to hold of each.

    more: of some networks, besides.
    """

    name: str
    specs: tuple[Spec, ...]
    measures: Taken
    watched: Taken = ()
    more: Mapping[Spec, tuple[Watched, ...]] = field(default_factory=dict)
    nulls: bool = True
    threads: int = 1

    def missing(self, *, data_dir: str | Path | None = None) -> list[Spec]:
        """The networks of which the store does not hold all that is declared."""
        wanted: dict[str, Any] = {"nulls": self.nulls, "watched": self.watched, "data_dir": data_dir}
        return [spec for spec in self.specs if not observe.is_recorded(spec, self._of(spec), **wanted)]

    def _of(self, spec: Spec) -> Taken:
        return *self.measures, *((protocol.find(name), dict(settings)) for name, settings in self.more.get(spec, ()))

    def recording(self) -> dict[Spec, tuple[Watched, ...]]:
        """What is measured of each network besides the survey, as `recording.survey_run` takes it."""
        named = tuple((measure.name, settings) for measure, settings in self.measures)
        return {spec: named + tuple(self.more.get(spec, ())) for spec in self.specs}

    def watching(self) -> dict[str, Any]:
        """What the trainings are watched by, as `parallel.train` takes it."""
        return {measure.column(**settings): measure.watched(**settings) for measure, settings in self.watched}


@dataclass(frozen=True)
class Row:
    """One seed of a part on one image set, as far as it is missing.

    seconds: of training, about, of each network and of those that it starts from. why: it cannot be trained here.
    """

    part: Part
    images: str
    seed: int
    specs: tuple[Spec, ...]
    seconds: dict[Spec, float] = field(default_factory=dict)
    why: str | None = None

    @property
    def hours(self) -> float:
        """Of one core, or GPU."""
        return sum(self.seconds.values()) / 3600


def declared(numbers: Sequence[str] = (), profile: str = "long", *, data_dir: str | Path | None = None) -> list[Part]:
    """The plans of these notebooks at a profile, all when empty, and the grids that belong to them.

    Of a plan's networks the store is to hold the whole survey with its nulls; of a grid's, what the grid says. Raises
    ValueError for a notebook without a plan, an unknown profile, and a grid that cannot be read.
    """
    numbers = list(dict.fromkeys(number.zfill(2) for number in numbers)) or list(plans.planned())
    found, surveyed = [], _bare(survey.surveyed())
    for number in numbers:
        plan = plans.plan(number, profile, data=data_dir)
        specs, watched = tuple(dict.fromkeys(plan.all_specs())), tuple(plan.watched_measures())
        more = {spec: plan.measures.get(name, ()) for name, each in plan.specs.items() for spec in each}
        found.append(Part(f"notebook {number} ({profile})", specs, surveyed, watched, more, threads=plan.threads))
    for file in sorted((project() / "notebooks" / "sweeps").glob("*.toml")):
        grid = read_grid(file)
        if grid.notebook in numbers:
            measures, watched = _bare(grid.measures), _bare(grid.watch)
            found.append(Part(file.name, grid.unique().specs, measures, watched, nulls=grid.nulls))
    return found


def rows(parts: Iterable[Part], *, data_dir: str | Path | None = None) -> list[Row]:
    """What is missing, in the order in which it is trained; those that cannot be trained here stand last."""
    found: list[Row] = []
    for part in parts:
        missing = part.missing(data_dir=data_dir)
        for images in dict.fromkeys(spec.data.name for spec in missing):
            specs = [spec for spec in missing if spec.data.name == images]
            found += _forecast(part, images, specs, data_dir)
    return sorted(found, key=lambda row: (row.why is not None, row.hours))


def run(
    todo: Iterable[Row],
    hours: float,
    *,
    jobs: int | None = None,
    data_dir: str | Path | None = None,
    tell: Callable[[str], None] = print,
) -> list[Failure]:
    """Train rows, measure them by the whole survey with its nulls and record them, until the hours are over.

    What would not end in time by its forecast is not begun, what is under way then is cut and goes on when called
    again; an interrupt loses as little. Each row is recorded as it ends. Returns what failed.
    """
    until, failed = time.time() + 3600 * hours, []
    for row in todo:
        if row.why is not None or time.time() + min(row.seconds.values()) > until:
            continue
        part, watch = row.part, row.part.watching()
        then = partial(survey_run, more=part.recording(), watched=part.watched, data_dir=data_dir)
        how: dict[str, Any] = {"jobs": jobs, "threads": part.threads, "seconds": row.seconds, "until": until}
        try:
            work = dict.fromkeys(row.specs, watch)
            failed += parallel.train(work, data_dir=data_dir, then=then, tell=tell, **how)
        finally:
            count, files = observe.record(row.specs, data_dir=data_dir)
            told = f"{count} new observations of {len(files)} of {len(row.specs)} networks."
            tell(f"{part.name}, seed {row.seed}: {told}")
    return failed


def _bare(names: Iterable[str | protocol.Measure]) -> Taken:
    return tuple((protocol.find(name), {}) for name in names)


def _forecast(part: Part, images: str, specs: list[Spec], data_dir: str | Path | None) -> list[Row]:
    """The rows of networks on one image set, seed by seed."""
    seeds = {seed: tuple(spec for spec in specs if spec.seed == seed) for seed in sorted({spec.seed for spec in specs})}
    chain = parallel.with_starts(specs)
    try:
        seconds = dict(zip(chain, runs.forecast(chain, watch=part.watching(), data_dir=data_dir), strict=True))
    except (ValueError, FileNotFoundError) as error:
        return [Row(part, images, seed, each, why=" ".join(str(error).split())) for seed, each in seeds.items()]
    cost = {seed: {spec: seconds[spec] for spec in parallel.with_starts(each)} for seed, each in seeds.items()}
    return [Row(part, images, seed, each, cost[seed]) for seed, each in seeds.items()]
