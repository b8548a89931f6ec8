"""The only place where cost is decided: what each notebook trains, on what, how long, with how many seeds.

A notebook asks `plan("00", profile)` and never looks at the profile itself. What it trains stands beside it, in
notebooks/plans: a module named as the notebook is, less its number, whose `content(profile)` says the variants, the
seeds that are declared, which variants are trained `once` (with the first seed alone), whether a seed `draws` the data,
too, what is watched, `every` how many steps their histories have a row, and other sizes. `OPENS`, where the module has
it, is the profile of a notebook that is opened and executed as it is: a recorded one, drawn from the evidence store.
`hosts`, where the content has them, say beside which variants a reader's own routing is shown, and under which name.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from capsnb.data import DataSpec, ImageSet, is_own, refuse_own
from capsnb.installation import import_own, project
from capsnb.measure import protocol
from capsnb.measure.observations import Observation
from capsnb.measure.observe import observe, stored
from capsnb.measure.protocol import Measure
from capsnb.training import parallel, runs
from capsnb.training.identity import encode
from capsnb.training.loop import Watch
from capsnb.training.recipe import Row
from capsnb.training.runs import Run
from capsnb.training.spec import Spec

PROFILES = {
    "smoke": "every cell runs, nothing is learned: for continuous integration",
    "quick": "embedded real digits, reduced widths, a subset of the variants: minutes on two cores",
    "long": "the papers' own sets and sizes, shortened schedules, fewer seeds: hours on two cores",
    "full": "the papers' own sets, sizes and schedules: a GPU, or patience",
}
RECORDED = ("long", "full")  # whose observations are kept with the project

ROUTINGS = "CAPSNB_ROUTINGS"  # readers' own, as "name=module:Class", with spaces between

Watched = tuple[str, Mapping[str, Any]]  # a measure's name and its settings
Draws = bool | Callable[[DataSpec, int], DataSpec]


@dataclass(frozen=True)
class Plan:
    """What a notebook works with.

    specs: variant -> one spec per seed, or that of the first seed alone. watch: name in a row -> what is watched while
    the runs train. measures: variant -> what is recorded of it besides the survey. draws: whether a seed is that of the
    split and of what is derived, too; a function (data, seed) draws more of the data by it. threads: of each training.
    opens: the notebook's own profile. settings: its other sizes, by name. data_dir: of the sets, CAPSNB_DATA when None.
    hosts: "group/{}" -> the variant that one's own routing is trained as, but for the routing. guests: such variants.
    stored: whether the evidence store answers, at a recorded profile, for what is observed.
    """

    notebook: str
    profile: str
    seeds: tuple[int, ...]
    specs: dict[str, tuple[Spec, ...]]
    watch: dict[str, Watched] = field(default_factory=dict)
    measures: dict[str, tuple[Watched, ...]] = field(default_factory=dict)
    draws: Draws = False
    threads: int = 1
    opens: str = "quick"
    settings: dict[str, Any] = field(default_factory=dict)
    data_dir: Path | None = None
    hosts: Mapping[str, str] = field(default_factory=dict)
    guests: tuple[str, ...] = ()
    stored: bool = True

    @property
    def recorded(self) -> bool:
        """Whether its observations come from the evidence store: at a recorded profile, unless CAPSNB_EVIDENCE=runs."""
        return self.stored and self.profile in RECORDED and os.environ.get("CAPSNB_EVIDENCE") != "runs"

    def all_specs(self) -> list[Spec]:
        """Every spec that the notebook trains."""
        return [spec for specs in self.specs.values() for spec in specs]

    def with_routing(self, name: str, routing: Any) -> Plan:
        """The plan with a reader's own routing beside the others, trained, watched and measured as they are.

        No claim is about it, so that it is no part of a record. Raises ValueError for a plan that compares no routings,
        and for a name that is taken.
        """
        hosts = {pattern.format(name): host for pattern, host in self.hosts.items() if host in self.specs}
        if not hosts:
            raise ValueError(f"notebook {self.notebook} compares no routings, so that {name!r} has no place in it")
        if taken := [variant for variant in hosts if variant in self.specs]:
            raise ValueError(f"notebook {self.notebook} has a variant {taken[0]!r} already: choose another name")
        specs = {
            variant: tuple(replace(spec, model=replace(spec.model, routing=routing)) for spec in self.specs[host])
            for variant, host in hosts.items()
        }
        measures = {variant: self.measures[host] for variant, host in hosts.items() if host in self.measures}
        return replace(self, specs=self.specs | specs, measures=self.measures | measures, guests=(*self.guests, *specs))

    def protocol(self) -> dict[str, Any]:
        """What names this plan's runs in a record: profile and each variant's spec; seeds are left out, they join."""
        own = {variant: specs[0] for variant, specs in self.specs.items() if variant not in self.guests}
        specs = {variant: encode(seeded(spec, 0, draws=self.draws)) for variant, spec in own.items()}
        return {"profile": self.profile, "specs": specs}

    def made(self, also: Iterable[Spec] = ()) -> dict[str, Any]:
        """Code, versions, device and date of this plan's finished runs; where they differ, each one is named.

        Those of the evidence store where the notebook is drawn from it, and `also` those of a grid of the notebook's.
        Empty at the profiles that are never recorded.
        """
        if self.recorded and self.opens in RECORDED:
            newest = [each[-1].made for spec in (*self.all_specs(), *also) if (each := self._stored(spec))]
            found = sorted(newest, key=lambda made: made["date"])
        else:
            folders = [runs.folder_of(spec, data_dir=self.data_dir) for spec in self.all_specs()]
            finished = [folder for folder in folders if runs.is_finished(folder) and self.profile in RECORDED]
            found = [runs.read_made(folder) for folder in finished]
        # a run that was cut names its versions "one, then another"
        parts = {name: [part for made in found for part in made[name].split(", then ")] for name in ("code", "device")}
        texts = {name: ", ".join(dict.fromkeys(each)) for name, each in parts.items()}
        return texts | {"date": max(made["date"] for made in found), "versions": found[-1]["versions"]} if found else {}

    def follow(self, spec: Spec, **options: Any) -> Iterator[Row]:
        """`runs.follow` with what this plan watches and where its data lies."""
        names = self._columns()
        for row in runs.follow(spec, **self._how(), **options):
            yield _renamed(row, names)

    def get(self, spec: Spec, **options: Any) -> Run:
        """`runs.get` with what this plan watches and where its data lies."""
        run, names = runs.get(spec, **self._how(), **options), self._columns()
        return run._replace(history=[_renamed(row, names) for row in run.history])

    def train(self, specs: Iterable[Spec] | None = None, *, jobs: int | None = None, **options: Any) -> list[Any]:
        """Train what is not trained yet, all specs or these, side by side; returns what failed (`parallel.train`)."""
        work = {spec: self.watching() for spec in (self.all_specs() if specs is None else specs)}
        return parallel.train(work, jobs=jobs, threads=self.threads, data_dir=self.data_dir, **options)

    def take(self, name: str, model: nn.Module, data: ImageSet) -> Any:
        """What this plan watches under a name, of a model that is not training."""
        measure, settings = self.watch[name]
        values = protocol.find(measure)(model, data, **settings)
        return values["value"] if list(values) == ["value"] else values

    def observe(
        self, variant: str, measure: str, *, null: str | None = None, **settings: Any
    ) -> dict[int, Observation]:
        """What a measure says of a variant's runs: seed -> Observation, `observe` with this plan's ways.

        measure: its name, or the name that this plan watches it under: then the series that was watched. At a recorded
        profile the evidence store answers, without the seeds that it lacks: `told` counts them. Else runs are trained
        and measured as they are needed. A variant that the profile does not train has no seed. null: as `observe`'s.
        """
        if watched := measure in self.watch:
            measure, settings = self.watch[measure][0], dict(self.watch[measure][1])
        specs = self.specs.get(variant, ())
        found = observe(
            specs,
            measure,
            recorded=self.recorded,
            partial=True,
            train=not self.recorded,
            null=null,
            watched=watched,
            data_dir=self.data_dir,
            **settings,
        )
        return {spec.seed: each for spec, each in zip(specs, found, strict=True) if each}

    def told(self) -> str:
        """A sentence on the declared runs that the evidence store has nothing of, and about what they would cost.

        By the seconds that other seeds of a variant took on what trained them, so that it is the same everywhere. Where
        it has all of them, what they took.
        """
        lacking = {name: [s for s in specs if not self._stored(s)] for name, specs in self.specs.items()}
        count, total = sum(map(len, lacking.values())), len(self.all_specs())
        if not count:
            took = [max(each.made.get("seconds", 0) for each in self._stored(spec)) for spec in self.all_specs()]
            hours = sum(took) / 3600
            return f"The evidence store has all {total} runs that are declared, {hours:.1f} core-hours of training."
        if count == total:
            return (
                f"The evidence store has none of the {total} declared runs. The first: "
                f"capsnb campaign --hours 2 {self.notebook}"
            )
        seconds, unknown = 0.0, []
        for name, specs in lacking.items():
            known = [each for spec in self.specs[name] for each in self._stored(spec) if "seconds" in each.made]
            seconds += len(specs) * statistics.fmean([each.made["seconds"] for each in known]) if known else 0
            unknown += [name] if specs and not known else []
        parts = [f"The evidence store has {total - count} of {total} declared runs"]
        if seconds:
            parts.append(f"those it lacks of variants that were run would take about {seconds / 3600:.2g} core-hours")
        if unknown:
            parts.append(f"{len(unknown)} variant{'s' * (len(unknown) > 1)}, such as {unknown[0]}, nobody has run yet")
        return f"{'; '.join(parts)}. A seed more: capsnb campaign --hours 2 {self.notebook}"

    def _stored(self, spec: Spec) -> list[Observation]:
        return stored(spec, data_dir=self.data_dir)

    def forecast(self) -> list[float]:
        """`runs.forecast` of all its specs: about how many seconds each will train."""
        return runs.forecast(self.all_specs(), watch=self.watching(), data_dir=self.data_dir)

    def _how(self) -> dict[str, Any]:
        return {"watch": self.watching(), "data_dir": self.data_dir, "threads": self.threads}

    def watching(self) -> Watch:
        """What its runs are watched by, as `runs.follow` takes it."""
        found = self.watched_measures()
        return {measure.column(**settings): measure.watched(**settings) for measure, settings in found}

    def watched_measures(self) -> list[tuple[Measure, dict[str, Any]]]:
        """The measures that its runs are watched by, each with its settings."""
        return [(protocol.find(measure), dict(settings)) for measure, settings in self.watch.values()]

    def _columns(self) -> dict[str, str]:
        return {protocol.find(measure).column(**each): name for name, (measure, each) in self.watch.items()}


def _renamed(row: Row, names: Mapping[str, str]) -> Row:
    return {names.get(column, column): value for column, value in row.items()}


def current(profile: str | None = None, opens: str = "quick") -> str:
    """The profile asked for, else CAPSNB_PROFILE, else a notebook's own. ValueError for an unknown one."""
    name = profile or os.environ.get("CAPSNB_PROFILE") or opens
    if name not in PROFILES:
        raise ValueError(f"profile {name!r} is unknown; allowed: {', '.join(PROFILES)}")
    return name


def opens(notebook: str) -> str:
    """The profile at which a notebook, named by its number, is opened and executed as it is."""
    return getattr(_module(planned()[notebook]), "OPENS", "quick")


def planned(folder: Path | None = None) -> dict[str, str]:
    """Number of each notebook that has a plan -> the name of the plan's module."""
    folder = folder or project() / "notebooks"
    found = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    named = {path.stem[:2]: path.stem[3:] for path in found}
    return {number: name for number, name in named.items() if (folder / "plans" / f"{name}.py").exists()}


def plan(
    notebook: str,
    profile: str | None = None,
    *,
    seed: int = 0,
    seeds: int | None = None,
    data: str | Path | None = None,
) -> Plan:
    """The plan of a notebook, named by its number.

    seed: the first seed. seeds: how many, in place of the profile's own number. data: folder of the image sets, or
    images of one's own where the plan has `OWN_IMAGES`, whose path is then settings["own"].
    Routings that CAPSNB_ROUTINGS names stand beside its own where it compares routings.
    Raises ValueError for an unknown notebook or profile, or fewer than one seed.
    """
    import_own()
    names = planned()
    if notebook not in names:
        raise ValueError(f"there is no notebook {notebook!r} with a plan; there are: {', '.join(names)}")
    if seeds is not None and seeds < 1:
        raise ValueError(f"seeds = {seeds}: at least 1 is needed")
    profile = current(profile, opens(notebook))
    module = _module(names[notebook])
    content = module.content(profile)
    if data is not None and is_own(Path(data)):
        if not getattr(module, "OWN_IMAGES", False):
            refuse_own(
                Path(data),
                f"notebook {notebook} compares with a paper's numbers on that paper's sets; notebook 07 takes your own",
            )
        content["settings"] |= {"own": str(data)}
        data = None
    run_seeds = tuple(range(seed, seed + (seeds or content.pop("seeds"))))
    content.pop("seeds", None)
    content["opens"] = opens(notebook)
    variants, once, every = content.pop("variants"), content.pop("once", ()), content.pop("every", None)
    draws = content.get("draws", False)
    if every is not None:
        variants = {name: reporting(spec, every) for name, spec in variants.items()}
    seeds_of = {name: run_seeds[:1] if name in once else run_seeds for name in variants}
    specs = {
        name: tuple(seeded(spec, number, draws=draws) for number in seeds_of[name]) for name, spec in variants.items()
    }
    found = Plan(notebook, profile, run_seeds, specs, data_dir=None if data is None else Path(data), **content)
    for name, routing in own_routings().items() if found.hosts else ():
        found = found.with_routing(name, routing)
    return found


def own_routings() -> dict[str, Any]:
    """The routings that CAPSNB_ROUTINGS names, "name=module:Class": name -> what it names, made where it is a class.

    Raises ValueError with one sentence where there is none.
    """
    found = {}
    for text in os.environ.get(ROUTINGS, "").split():
        name, _, place = text.partition("=")
        try:
            routing = pkgutil.resolve_name(place)
            found[name] = routing() if isinstance(routing, type) else routing
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"the routing {text!r} cannot be used ({error}): name=module:Class is needed, a module on PYTHONPATH"
            ) from error
    return found


def seeded(spec: Spec, seed: int, *, draws: Draws = False) -> Spec:
    """The spec with a seed, and with that of the run it starts from: each seed goes on from its own.

    draws: it also draws the validation split, and what is derived (pairs, shifts), and what a function draws by it.
    """
    start = seeded(spec.start, seed, draws=draws) if isinstance(spec.start, Spec) else spec.start
    data = spec.data
    if draws:
        data = replace(data, seed=seed, derive=data.derive and replace(data.derive, seed=seed))
    if callable(draws):
        data = draws(data, seed)
    return replace(spec, seed=seed, data=data, start=start)


def reporting(spec: Spec, every: int) -> Spec:
    """The spec with a row of its history for so many steps, and the run it starts from alike."""
    start = reporting(spec.start, every) if isinstance(spec.start, Spec) else spec.start
    return replace(spec, recipe=replace(spec.recipe, report_every=every), start=start)


def _module(name: str) -> ModuleType:
    """The plan's module, known by the same name as in a notebook, whose kernel starts in its folder."""
    folder = str(project() / "notebooks")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(f"plans.{name}")
