"""The runs of a notebook brought together: by name, by seed, against what was published and what is recorded."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from capsnb.evidence.records import recorded
from capsnb.evidence.rules import align
from capsnb.evidence.verdicts import MINIMUM_SEEDS, interval
from capsnb.measure.entropy import mean_path
from capsnb.measure.robustness import AtAccuracy, at_accuracy
from capsnb.training.runs import Run

if TYPE_CHECKING:
    import pandas as pd

    from capsnb.evidence.plans import Plan


def finals(plan: Plan, variant: str, measure: str, value: str, **settings: Any) -> dict[int, float]:
    """One value of a measure of a variant's finished runs: seed -> number; empty where none is there."""
    return {seed: each.values[value] for seed, each in plan.observe(variant, measure, **settings).items()}


def series(plan: Plan, variant: str | None, watched: str) -> dict[int, dict[str, list]]:
    """What was watched of a variant under the plan's name for it: seed -> {"step": [...], value: [...]}.

    Empty for no variant, for one that the profile lacks, and where nothing was there to be watched.
    """
    found = plan.observe(variant, watched) if variant else {}
    return {seed: dict(each.values) for seed, each in found.items() if each.values["step"]}


def bands(
    found: Mapping[str, Mapping[int, Mapping[str, Sequence]]], value: str = "value"
) -> dict[str, dict[str, list]]:
    """Mean and standard deviation over seeds at every step: name -> seed -> `series` becomes name -> x, mean, std."""
    rows = {
        name: [
            [dict(zip(each, row, strict=True)) for row in zip(*each.values(), strict=True)] for each in seeds.values()
        ]
        for name, seeds in found.items()
    }
    return {name: mean_path(histories, value) for name, histories in rows.items()}


def correlations(first: Sequence[Mapping[int, float]], second: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """Spearman's rank correlation over settings, for each seed that all of them have: seed -> -1 to 1.

    A seed whose values are all equal on one side has none. first, second: seed -> value, one for each setting.
    """
    from scipy.stats import spearmanr

    seeds = set.intersection(*map(set, (*first, *second))) if first else set()
    columns = {seed: ([each[seed] for each in first], [each[seed] for each in second]) for seed in sorted(seeds)}
    return {
        seed: round(float(spearmanr(*pair).statistic), 9)
        for seed, pair in columns.items()
        if all(len(set(values)) > 1 for values in pair)
    }


def group(trained: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a plan calls name/variant, by variant alone; empty where the profile trains none of them."""
    return {key.removeprefix(f"{name}/"): found for key, found in trained.items() if key.startswith(f"{name}/")}


def by_setting(values: Mapping[str, Any], mark: str) -> dict[str, dict[int, Any]]:
    """What is called name-{mark}{number}, by name and number: "capsnet-k9" at mark "k" is ["capsnet"][9].

    Other names are left out.
    """
    found: dict[str, dict[int, Any]] = {}
    for key, value in values.items():
        name, _, setting = key.rpartition(f"-{mark}")
        if name and setting.isdecimal():
            found.setdefault(name, {})[int(setting)] = value
    return found


def last(trained: Mapping[str, Mapping[int, Run]], column: str) -> dict[str, dict[int, float]]:
    """The last row's share of every run, in percent: variant -> seed -> Run becomes variant -> seed -> number."""
    return {name: {seed: 100 * run.history[-1][column] for seed, run in runs.items()} for name, runs in trained.items()}


def stopped(
    trained: Mapping[str, Mapping[int, Run]], target: float, watch: str, read: str
) -> dict[str, dict[int, AtAccuracy]]:
    """`at_accuracy` of every run: variant -> seed -> AtAccuracy."""
    return {
        name: {seed: at_accuracy(run.history, target, watch, read) for seed, run in runs.items()}
        for name, runs in trained.items()
    }


def reach(readings: Mapping[int, AtAccuracy]) -> str:
    """How many runs of a model reached the target, and what the others did: "1 of 3; else 98.90 %", a mean."""
    short = [found.watched for found in readings.values() if not found.reached]
    rest = f"; else {100 * statistics.fmean(short):.2f} %" if short else ""
    return f"{len(readings) - len(short)} of {len(readings)}{rest}"


def paired(values: Mapping[str, Mapping[int, float]], variant: str, against: str) -> dict[str, Any]:
    """Differences `variant - against` of the seeds both have, and their 95 % interval (None for fewer than 3 seeds).

    Empty where one of the two was not run: {"differences": [...], "interval": (low, high) or None} or {}.
    """
    if variant not in values or against not in values:
        return {}
    first, second = align(values, variant, against)
    differences = [a - b for a, b in zip(first, second, strict=True)]
    enough = len(differences) >= MINIMUM_SEEDS
    return {"differences": differences, "interval": interval(differences) if enough else None}


def compare(
    published: Mapping[str, Any], recorded: Mapping[str, Any], values: Mapping[str, Mapping[int, float]]
) -> pd.DataFrame:
    """Published, recorded run and this run of each variant: mean ± std over seeds, "not run" where there is nothing."""
    import pandas as pd

    def shown(found: Mapping[int, float] | None) -> str:
        numbers = list((found or {}).values())
        spread = f" ± {statistics.stdev(numbers):.2g}" if len(numbers) > 1 else ""
        return f"{statistics.fmean(numbers):.4g}{spread} (n={len(numbers)})" if numbers else "not run"

    names = list(dict.fromkeys([*published, *recorded, *values]))
    rows = {
        name: {
            "published": str(published.get(name, "-")),
            "recorded run": shown(recorded.get(name)),
            "this run": shown(values.get(name)),
        }
        for name in names
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def recorded_values(notebook: str, claims: Iterable[str]) -> dict[str, dict[int, float]]:
    """What the recorded run of a notebook measured for these claims: variant -> seed -> value."""
    record = recorded(notebook)
    found: dict[str, dict[int, float]] = {}
    for claim in claims:
        found |= record.measured(claim)
    return found
