"""When capsules die, and whether they ever come back: what an observer saw of each capsule as a network trained.

Mitterreiter et al. 2023, sec. 4.3: "once a capsule is dead, it never becomes active again".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import nn

from capsnb.data import ImageSet
from capsnb.measure.parse_tree import dynamics, trace


class Fate(NamedTuple):
    """What became of the capsules of one layer, from the first observed row to the last."""

    capsules: int
    asleep: int  # dead from the first row on and never awake: they have not lived
    died: int  # alive in one row and dead in a later one
    returned: int  # of those, alive again later
    dead: int  # dead in the last row, the sleepers included
    first: float | None  # step at which the first of them died


def life(model: nn.Module, data: ImageSet, *, images: int = 500) -> dict[str, list]:
    """An observer for runs: norms of every capsule, who is dead, and how much each layer's routing moves.

    On the first validation images, layers from the primary one up. "mean", "std", "dead": a list per layer with one
    entry per capsule; "dyr": one number per layer that routes, all capsules counted.
    """
    split = data.validation
    split = split.select(torch.arange(min(images, len(split)), device=split.labels.device))
    layers = trace(model, split.to(next(model.parameters()).device).batches(250), thresholds=())
    return {
        "mean": [[round(value, 5) for value in layer.norm_mean.tolist()] for layer in layers],
        "std": [[round(value, 5) for value in layer.norm_std.tolist()] for layer in layers],
        "dead": [layer.dead().int().tolist() for layer in layers],
        "dyr": [round(dynamics(first, second).dyr, 5) for first, second in pairwise(layers)],
    }


def fates(history: Iterable[Mapping[str, Any]], column: str = "life") -> list[Fate]:
    """The fate of each capsule layer over a run's rows that `life` was observed with.

    Between two rows a capsule may die and return unseen: counts are lower bounds. Raises ValueError without such rows.
    """
    rows = [row for row in history if row.get(column)]
    if not rows:
        raise ValueError(f"the history has no column {column!r}: observe `life` while training.")
    return [_fate([row[column]["dead"][layer] for row in rows], rows) for layer in range(len(rows[0][column]["dead"]))]


def _fate(dead: list[list[int]], rows: list[Mapping[str, Any]]) -> Fate:
    asleep = died = returned = 0
    first = None
    for flags in zip(*dead, strict=True):
        births = [place for place, flag in enumerate(flags) if not flag]
        if not births:
            asleep += 1
            continue
        deaths = [place for place in range(births[0], len(flags)) if flags[place]]
        if deaths:
            died += 1
            returned += any(place > deaths[0] for place in births)
            step = rows[deaths[0]]["step"]
            first = step if first is None else min(first, step)
    return Fate(len(dead[0]), asleep, died, returned, sum(dead[-1]), first)
