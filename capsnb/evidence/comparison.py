"""The runs of a notebook brought together: by name, by seed, against what was published and what is recorded."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from capsnb.evidence.records import recorded
from capsnb.evidence.rules import align
from capsnb.evidence.verdicts import MINIMUM_SEEDS, interval
from capsnb.measure.robustness import AtAccuracy, at_accuracy
from capsnb.training.runs import Run

if TYPE_CHECKING:
    import pandas as pd


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
