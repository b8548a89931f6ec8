"""What the evidence store has of a sweep's networks: one measure's numbers, or a series that was watched."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from capsnb.evidence.sweep import Grid
from capsnb.measure.observe import in_store
from capsnb.training.runs import run_name

Series = Mapping[str, Sequence]
Histories = dict[Any, dict[int, Series]]


class Swept(NamedTuple):
    """One network: what it is set to, labels too; what was measured of it; its training's seconds, where known."""

    settings: Mapping[str, Any]
    values: Mapping[str, Any]
    seconds: float | None


def swept(
    grid: Grid,
    measure: str,
    *,
    null: str | None = None,
    watched: bool = False,
    store: str | Path | None = None,
    data_dir: str | Path | None = None,
) -> list[Swept]:
    """The networks of a grid that the store has a measure of, in the grid's order; arguments as `in_store`'s.

    Settings that train the same network each have it.
    """
    names = grid.names if data_dir is None else [run_name(spec, data_dir) for spec in grid.specs]
    found = in_store(names, measure, null=null, watched=watched, store=store)
    rows = zip(grid.settings, found, strict=True)
    return [Swept(settings, each.values, each.made.get("seconds")) for settings, each in rows if each is not None]


def told(grid: Grid, measure: str = "accuracy", **where: Any) -> str:
    """How many of a grid's networks the store has, and what their trainings took: "12 of 20 networks, 0.4 core-hours".

    Settings that train the same network are one.
    """
    found = swept(grid.unique(), measure, **where)
    hours = sum(each.seconds or 0 for each in found) / 3600
    return f"{len(found)} of {len(grid.unique().specs)} networks, {hours:.1f} core-hours of training"


def dead_hidden(life: Series) -> list[int]:
    """How many hidden capsules are dead at each record of a series of `life`: the primary and class layers left out."""
    return [sum(map(sum, layers[1:-1])) for layers in life["dead"]]


def returned(life: Series, at: float) -> tuple[int, int]:
    """How many hidden capsules were dead at the last record up to an epoch, and how many of these live at the end.

    Raises ValueError where no record is as early.
    """
    places = [place for place, epoch in enumerate(life["epoch"]) if epoch <= at]
    if not places:
        raise ValueError(f"there is no record up to epoch {at:g}; the first is at {life['epoch'][0]:g}")
    before, after = ([flag for layer in life["dead"][place][1:-1] for flag in layer] for place in (places[-1], -1))
    return sum(before), sum(was and not now for was, now in zip(before, after, strict=True))


def joined(first: Series, then: Series) -> dict[str, list]:
    """The series of a training and of the one that went on from its end as one: epochs and steps count on."""
    ends = {name: first[name][-1] if name in ("epoch", "step") else None for name in first}
    return {
        name: [*first[name], *(then[name] if end is None else (end + each for each in then[name]))]
        for name, end in ends.items()
        if name in then
    }


def dead_when_right(life: Series, curve: Series, level: float) -> tuple[float, float] | None:
    """Where `level` percent of the validation images are first right: the epoch, and percent of hidden capsules dead.

    life, curve: of one training, with the same records. None where it never is as right.
    """
    right = curve["validation accuracy"]
    place = next((place for place, share in enumerate(right) if 100 * share >= level - 1e-9), None)
    if place is None:
        return None
    hidden = sum(map(len, life["dead"][place][1:-1]))
    return life["epoch"][place], 100 * dead_hidden(life)[place] / hidden


def came_back(life: Series) -> int:
    """How many hidden capsules died and were seen alive again, over a series of `life`: a lower bound.

    Mitterreiter et al. 2023, sec. 4.3: "once a capsule is dead, it never becomes active again".
    """
    hidden = list(zip(*life["dead"], strict=True))[1:-1]  # layer -> record -> capsule
    capsules = [flags for layer in hidden for flags in zip(*layer, strict=True)]
    return sum(sum(not dead for dead, _ in groupby(flags)) > 1 for flags in capsules)


def by_state(life: Series, values: Sequence[Sequence[Sequence[float]]], at: float) -> dict[str, dict[str, list[float]]]:
    """A number of each hidden capsule, apart for those dead and those alive at the last record up to an epoch.

    values: record -> layer above the primary one -> capsule, at the records of `life`. "dead", "alive" -> "before",
    that record, "just after", the next, "end" -> the numbers.
    """
    before = sum(epoch <= at for epoch in life["epoch"]) - 1
    hidden = len(life["dead"][before]) - 2
    flags = [flag for layer in life["dead"][before][1:-1] for flag in layer]
    found: dict[str, dict[str, list[float]]] = {"dead": {}, "alive": {}}
    for when, place in {"before": before, "just after": before + 1, "end": len(values) - 1}.items():
        numbers = [number for layer in values[place][:hidden] for number in layer]
        for number, flag in zip(numbers, flags, strict=True):
            found["dead" if flag else "alive"].setdefault(when, []).append(number)
    return found


def deaths(
    grid: Grid, name: Callable[[Mapping[str, Any]], Hashable], *, learned: float, **where: Any
) -> tuple[dict[Any, dict[int, float]], dict[Any, dict[int, float]]]:
    """Percent of hidden capsules dead in each network: name of its settings -> seed -> percent.

    Networks that have learned, `learned` percent of validation images right, and those that have not.
    """
    right = [row.values["validation accuracy, %"] for row in swept(grid, "accuracy", **where)]
    found: tuple[dict[Any, dict[int, float]], dict[Any, dict[int, float]]] = ({}, {})
    for row, accuracy in zip(swept(grid, "parse tree", **where), right, strict=True):
        alive = row.values["alive"][1:-1]
        dead = 100 * (1 - sum(alive) / (len(alive) * row.settings["capsules"]))
        found[accuracy < learned].setdefault(name(row.settings), {})[row.settings["seed"]] = dead
    return found


class EqualLoss(NamedTuple):
    """Deaths where training losses first came down to one level."""

    level: float
    reached: dict[Any, dict[int, float]]  # name of its settings -> seed -> percent of hidden capsules dead there


def at_equal_loss(
    grid: Grid, name: Callable[[Mapping[str, Any]], Hashable], *, learned: float, **where: Any
) -> EqualLoss:
    """As `deaths`, at one training loss: the highest that any network ended with of those that have learned.

    Of networks that never come down to it there is no number. Raises ValueError where none has learned.
    """
    rows = swept(grid, "life", watched=True, **where)
    losses = [row.values["loss"] for row in swept(grid, "curve", watched=True, **where)]
    right = [row.values["validation accuracy, %"] >= learned for row in swept(grid, "accuracy", **where)]
    ends = [min(loss) for loss, fit in zip(losses, right, strict=True) if fit]
    if not ends:
        raise ValueError(f"no network has {learned:g} % of its validation images right: there is no loss to compare at")
    found = EqualLoss(max(ends), {})
    for row, loss in zip(rows, losses, strict=True):
        if (place := first_below(loss, found.level)) is not None:
            hidden = sum(map(len, row.values["dead"][place][1:-1]))
            dead = 100 * dead_hidden(row.values)[place] / hidden
            found.reached.setdefault(name(row.settings), {})[row.settings["seed"]] = dead
    return found


def first_below(series: Sequence[float], level: float) -> int | None:
    """The first record at which a series has come down to a level; None where it never does."""
    return next((place for place, value in enumerate(series) if value <= level), None)


def histories(grid: Grid, measure: str, name: Callable[[Mapping[str, Any]], Hashable], **where: Any) -> Histories:
    """What was watched of each network that the store has: name of its settings -> seed -> series."""
    found: Histories = {}
    for row in swept(grid, measure, watched=True, **where):
        found.setdefault(name(row.settings), {})[row.settings["seed"]] = row.values
    return found


def at_end(found: Histories, value: str) -> dict[Any, dict[int, float]]:
    """The last record of a value: name -> seed -> number."""
    return {name: {seed: each[value][-1] for seed, each in seeds.items()} for name, seeds in found.items()}


def at_same(found: Histories, names: Sequence[Any], by: str, value: str, *, falls: bool = False) -> dict:
    """A value of two arms where another is the same in both, seed by seed: name -> seed -> number.

    The level of `by` is, of the two ends, the one that both reach: the lower, or where it falls the higher. Each arm is
    taken at the first record that reaches it; where it falls, at the first from which on it is never above it again.
    Seeds that one of the arms lacks are left out; empty where one lacks all.
    """
    one, other = (found.get(name, {}) for name in names)
    ends: dict[Any, dict[int, float]] = {name: {} for name in names}
    for seed in sorted(one.keys() & other.keys()):
        level = (max if falls else min)(each[seed][by][-1] for each in (one, other))
        for name, each in zip(names, (one, other), strict=True):
            series = each[seed][by]
            reached = [place for place, number in enumerate(series) if (number > level if falls else number >= level)]
            place = max(reached, default=-1) + 1 if falls else reached[0]
            ends[name][seed] = each[seed][value][place]
    return ends if ends[names[0]] else {}


def at_equal(found: Histories, names: Sequence[Any], by: str, value: str) -> dict[Any, dict[int, float]]:
    """A value of arms where another first comes to the highest level that all of them reach: name -> seed -> number.

    Seed by seed, linear between two records. Seeds that one of the arms lacks are left out; empty where one lacks all.
    """
    each = {name: found.get(name, {}) for name in names}
    ends: dict[Any, dict[int, float]] = {name: {} for name in names}
    for seed in sorted(set.intersection(*map(set, each.values()))):
        level = min(max(seeds[seed][by]) for seeds in each.values())
        for name, seeds in each.items():
            ends[name][seed] = _when_at(seeds[seed], level, by, value)
    return ends if all(ends.values()) else {}


def across(found: Histories, by: str, value: str, levels: Sequence[float]) -> dict[Any, tuple[list[float], list]]:
    """A value against another, as seeds first come to each level of it: name -> the levels that all seeds reach, and
    values, seed -> level; an arm whose seeds reach none together is left out."""
    curves: dict[Any, tuple[list[float], list]] = {}
    for name, seeds in found.items():
        least = max(each[by][0] for each in seeds.values())
        most = min(max(each[by]) for each in seeds.values())
        shared = [level for level in levels if least <= level <= most]
        if shared:
            curves[name] = shared, [[_when_at(each, at, by, value) for at in shared] for each in seeds.values()]
    return curves


def _when_at(series: Series, level: float, by: str, value: str) -> float:
    """A value where another first comes to a level that it reaches: as both are linear between two records.

    The first record of all is read as it is.
    """
    place = next(place for place, number in enumerate(series[by]) if number >= level)
    low, high = series[by][max(0, place - 1)], series[by][place]
    before, after = series[value][max(0, place - 1)], series[value][place]
    return before + (level - low) / (high - low) * (after - before) if place else after
