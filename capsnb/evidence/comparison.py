"""The runs of a notebook brought together: by name, by seed, against what was published and what is recorded."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from capsnb.evidence.records import recorded
from capsnb.evidence.rules import align
from capsnb.evidence.verdicts import MINIMUM_SEEDS, interval

Values = Mapping[Any, Mapping[int, float]]  # setting -> seed -> number

if TYPE_CHECKING:
    import pandas as pd

    from capsnb.evidence.plans import Plan
    from capsnb.evidence.published import Published


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
    """Mean and standard deviation over seeds at every step that all have: name -> seed -> `series` -> x, mean, std.

    std is that of the sample (over n - 1), 0 for a single seed. Steps without a value are passed over; where seeds
    share none, the lists are empty.
    """
    curves = {}
    for name, seeds in found.items():
        rows = [dict(zip(each["step"], each.get(value, ()), strict=False)) for each in seeds.values()]
        shared = sorted(set.intersection(*({x for x in row if row[x] is not None} for row in rows))) if rows else []
        columns = [[row[x] for row in rows] for x in shared]
        stds = [statistics.stdev(column) if len(column) > 1 else 0.0 for column in columns]
        curves[name] = {"x": shared, "mean": list(map(statistics.fmean, columns)), "std": stds}
    return curves


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


def apart_from_means(values: Values) -> dict[Any, dict[int, float]]:
    """What is left of each setting when its own mean over seeds is taken away: only how its seeds differ.

    Of the seeds that all settings have. Correlated (`correlations`), this says nothing of how settings differ.
    """
    seeds = sorted(set.intersection(*map(set, values.values()))) if values else []
    means = {name: statistics.fmean(each[seed] for seed in seeds) for name, each in values.items() if seeds}
    return {name: {seed: each[seed] - means[name] for seed in seeds} for name, each in values.items()}


def late_gain(found: Mapping[int, Mapping[str, Sequence]], value: str, epochs: float = 2) -> dict[int, float]:
    """What the last epochs brought: a value's mean over so many of them, less that over as many before: seed -> number.

    found: seed -> a `series` with its epochs. Seeds whose training was too short to have records of both are left out.
    """
    gains = {}
    for seed, each in found.items():
        ages = [each["epoch"][-1] - epoch for epoch in each["epoch"]]  # a record ends the part of an epoch before it
        late, before = (
            [number for age, number in zip(ages, each[value], strict=True) if low - 1e-9 < age < low + epochs - 1e-9]
            for low in (0, epochs)
        )
        if late and before:
            gains[seed] = statistics.fmean(late) - statistics.fmean(before)
    return gains


def best_elsewhere(values: Values) -> dict[int, Any]:
    """For each seed the setting with the highest mean over the other seeds, so that no seed chooses for itself.

    Of the seeds that all settings have; empty for fewer than two of them.
    """
    seeds = sorted(set.intersection(*map(set, values.values()))) if values else []
    if len(seeds) < 2:
        return {}
    means = {
        seed: {name: statistics.fmean(each[other] for other in seeds if other != seed) for name, each in values.items()}
        for seed in seeds
    }
    return {seed: max(found, key=found.__getitem__) for seed, found in means.items()}


def inner_peak(levels: Values, values: Values) -> dict[int, float]:
    """How surely values rise before, and fall after, the best level: an inverted U by two lines (Simonsohn 2018).

    The settings of each seed stand in the order of their levels, from 0 to 1; the lines, of three settings at least,
    meet at the one that is best on the other seeds (`best_elsewhere`). The number is the lesser of the rise of the
    first line and the fall of the second, in the values' unit over the whole order: above 0 only if both are. Unlike
    Simonsohn's, lines go over ranks, as levels may crowd at one end.
    Raises ValueError for fewer than five settings.
    """
    if len(values) < 5:
        raise ValueError(f"an inner peak of {len(values)} settings: two lines of three with one in common need 5")
    found = {}
    for seed, best in best_elsewhere(values).items():
        order = sorted(values, key=lambda name: levels[name][seed])
        heights = [values[name][seed] for name in order]
        peak = min(max(order.index(best), 2), len(order) - 3)
        rise, fall = _slope(heights[: peak + 1]), -_slope(heights[peak:])
        found[seed] = (len(order) - 1) * min(rise, fall)
    return found


def _slope(heights: Sequence[float]) -> float:
    """Of the least-squares line through values at 0, 1, 2, ..."""
    return statistics.linear_regression(range(len(heights)), heights).slope


def at_level(levels: Values, values: Values, wanted: Mapping[int, float]) -> dict[int, float]:
    """Values where a level is the wanted one: seed -> number, on straight lines through the settings in its order.

    Seeds that a setting lacks, or whose levels do not reach it, are left out.
    """
    found = {}
    for seed, level in wanted.items():
        if all(seed in each for each in (*levels.values(), *values.values())):
            points = sorted((levels[name][seed], values[name][seed]) for name in values)
            for (low, first), (high, second) in itertools.pairwise(points):
                if low <= level <= high:
                    share = (level - low) / (high - low) if high > low else 0.5
                    found[seed] = first + share * (second - first)
                    break
    return found


def apart_at_level(levels: Mapping[str, Values], values: Mapping[str, Values]) -> dict[str, dict[int, float]]:
    """Values of two groups of settings at the same levels: group -> seed -> mean over the levels that both reach.

    Compared at the levels of all settings of both (`at_level`); seeds of which none is reached by both have no number.
    """
    wanted = [each for settings in levels.values() for each in settings.values()]
    seen = [{name: at_level(levels[name], values[name], each) for name in values} for each in wanted]
    found: dict[str, dict[int, float]] = {name: {} for name in values}
    for seed in sorted(set().union(*wanted)):
        both = [each for each in seen if all(seed in group for group in each.values())]
        for name in found if both else ():
            found[name][seed] = statistics.fmean(each[name][seed] for each in both)
    return found


def group(trained: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a plan calls name/variant, by variant alone; empty where the profile trains none of them."""
    return {key.removeprefix(f"{name}/"): found for key, found in trained.items() if key.startswith(f"{name}/")}


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


def too_far(right: Mapping[int, float], printed: Published, within: float) -> str:
    """Why networks say nothing of a paper's: how right they are and the printed one is, both in percent.

    right: seed -> test accuracy in percent. "" where their mean is within so many points, or none is there.
    """
    reached = statistics.fmean(right.values()) if right else printed.value
    if abs(reached - printed.value) <= within:
        return ""
    return f"too far from the paper's network: {reached:.1f} % right, printed {printed.value:g} %"


def mean_std(found: Mapping[int, float], digits: int = 1) -> str:
    """Seeds in a table: "61.6 ± 1.4", the standard deviation over n - 1; of one seed its number, "" of none."""
    numbers = list(found.values())
    spread = f" ± {statistics.stdev(numbers):.{digits}f}" if len(numbers) > 1 else ""
    return f"{statistics.fmean(numbers):.{digits}f}{spread}" if numbers else ""


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


def contrast(
    cells: Mapping[tuple, Mapping[int, float]], place: int, one: Any, other: Any, held: Mapping[int, Any] | None = None
) -> dict[int, float]:
    """What one level of a factor is above another with all other factors held: seed -> mean over pairs of cells.

    cells: the levels of all factors -> seed -> number; place: of the factor among them. A cell counts where its twin
    is there; held: place -> level, of the factors that are not averaged over. Seeds that a cell lacks are left out.
    """
    twins = {key: (*key[:place], other, *key[place + 1 :]) for key in cells if key[place] == one}
    pairs = [
        (cells[key], cells[twin])
        for key, twin in twins.items()
        if twin in cells and all(key[at] == level for at, level in (held or {}).items())
    ]
    seeds = set.intersection(*(first.keys() & second.keys() for first, second in pairs)) if pairs else set()
    return {seed: statistics.fmean(first[seed] - second[seed] for first, second in pairs) for seed in sorted(seeds)}
