"""What the evidence store has of a sweep's networks: one measure's numbers, or a series that was watched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from capsnb.evidence.sweep import Grid
from capsnb.measure.observe import observe

Series = Mapping[str, Sequence]


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
    """The networks of a grid that the store has a measure of, in the grid's order; arguments as `observe`'s.

    Settings that train the same network each have it.
    """
    where = {"null": null, "watched": watched, "store": store, "data_dir": data_dir}
    found = observe(grid.specs, measure, recorded=True, partial=True, **where)
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


def first_below(series: Sequence[float], level: float) -> int | None:
    """The first record at which a series has come down to a level; None where it never does."""
    return next((place for place, value in enumerate(series) if value <= level), None)
