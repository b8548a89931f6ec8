"""Into the evidence store: what a notebook measured for its claims, and what a plan's runs are measured by."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from capsnb import evidence
from capsnb.evidence.notebook_files import load, outputs, select
from capsnb.evidence.plans import RECORDED, Plan, Watched
from capsnb.evidence.tables import RUN
from capsnb.measure import observe, protocol, survey
from capsnb.training import parallel, runs
from capsnb.training.runs import Run
from capsnb.training.spec import Spec


def record(source: Path, number: str, *, only: Collection[str] = (), root: Path | None = None) -> Path:
    """Add what notebook `number` of the folder measured to its record and return the record's path.

    only: names of the claims that are recorded, all that were measured when empty: so that what a notebook measured
    again on the way to something else does not stand in for an earlier, larger run.
    Raises ValueError for a notebook that was executed at another profile than long or full, failed, or measured
    nothing of its claims, and for a name that is not among those measured.
    """
    (path,) = select(source, [number])
    notebook = load(path)
    displayed = outputs(notebook)
    rows = [row for data in displayed for row in data.get(evidence.MIME, ())]
    run: dict[str, Any] = next((data[RUN] for data in displayed if RUN in data), {"settings": {}, "made": {}})
    told = notebook.metadata.get("capsnb", {}).get("parameters") or {}
    profile = run["settings"].get("profile") or told.get("profile")
    if profile not in RECORDED:
        shown = f"was executed at profile {profile}" if profile else "names no profile it was executed at"
        raise ValueError(f"{path} {shown}: only {' and '.join(RECORDED)} are recorded.")
    measured = {row["claim"]: row["values"] for row in rows if row.get("values")}
    if not measured or not run["made"]:
        raise ValueError(f"{path} measured none of its claims, so there is nothing to record.")
    if unknown := sorted(set(only) - set(measured)):
        raise ValueError(f"{path} measured no claim {unknown[0]!r}; it measured {', '.join(map(repr, measured))}.")
    found = {
        claim: {variant: {int(seed): value for seed, value in values.items()} for variant, values in variants.items()}
        for claim, variants in measured.items()
        if not only or claim in only
    }
    seeds = sorted({seed for variants in found.values() for values in variants.values() for seed in values})
    made = dict(run["made"])
    device = made.pop("device")
    return evidence.record(
        path.name[:2], found, seeds=seeds, settings=run["settings"], device=device, made=made, root=root
    )


def survey_runs(plan: Plan, *, jobs: int | None = None, root: Path | None = None, **how: Any) -> tuple[int, list[Path]]:
    """Measure every finished run of a plan by the whole survey, nulls included, and put that into the evidence store.

    With the plan's own measures, and with what was watched while it trained. What is there already is not measured
    again, what is not trained is passed over. Returns how many observations are new there, and the files. Raises
    RuntimeError where a measuring failed.
    """
    where: dict[str, Any] = {"data_dir": plan.data_dir}
    finished = [spec for spec in plan.all_specs() if runs.is_finished(runs.folder_of(spec, **where), plan.watching())]
    more = {spec: plan.measures.get(name, ()) for name, specs in plan.specs.items() for spec in specs}
    then = partial(survey_run, more=more, watched=plan.watched_measures(), **where)
    failed = parallel.train({spec: {} for spec in finished}, jobs=jobs, then=then, **where, **how)
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(finished)} runs could not be measured; the first was {failed[0]}")
    return observe.record(finished, store=root, **where)


def survey_run(spec: Spec, run: Run, *, more: Mapping[Spec, tuple[Watched, ...]], **how: Any) -> None:
    """The whole survey of a finished run with its nulls, and what `more` names for its spec, kept beside it."""
    named = [*((measure.name, {}) for measure in survey.surveyed()), *more.get(spec, ())]
    measures = {(name, str(settings)): (protocol.find(name), dict(settings)) for name, settings in named}
    observe.take_all(spec, run, measures.values(), nulls=True, **how)
