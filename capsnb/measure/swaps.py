"""Does a path carry what the image says, or is the path itself the answer? Give an image another class's set and see.

Ours, as a test of Tawalbeh & Oramas 2024, sec. 6.2. Only the units of a set are left. Where the network then answers
the image's class whatever the set, the units carry the image; where it answers the class that the set was chosen for,
the choice of units has told it the answer, and accuracy along a class's own set says nothing about the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from capsnb.measure.path_accuracy import keep_only, undecoded
from capsnb.measure.paths import Places, Ranking, Reading, look
from capsnb.nn import taps

SCOPES = ("class", "image")


class Swap(NamedTuple):
    """Shares of images that are answered so, for each number of units; what is left was answered otherwise."""

    units: tuple[int | None, ...]
    own: Tensor  # (k,) the image's class, with the set of its own class
    image: Tensor  # (k,) the image's class, with the set of another
    set: Tensor  # (k,) the class of that set
    null_image: Tensor  # (k,) the image's class, with as many units at random
    null_set: Tensor  # (k,) the class of the set that it would have had, with as many units at random


def swap(
    model: nn.Module,
    split: Any,
    ranking: Ranking,
    reading: Reading,
    *,
    units: Sequence[int | None],
    seed: int = 0,
    places: Places | None = None,
    batch: int = 500,
) -> Swap:
    """What is answered with the k best units of another class, each image paired with one of another class.

    reading.sets: "class", the other class's set by `ranking`; "image", the other image's own. Classes are the true
    ones, and what looks at a class looks at that, so that an untrained network is measured likewise. seed: of pairs.
    Raises ValueError for another scope, and for images of one class alone.
    """
    if reading.sets not in SCOPES:
        raise ValueError(
            f"sets = {reading.sets!r} belong to nobody and cannot be swapped; allowed: {', '.join(SCOPES)}"
        )
    places, device = places or Places.of(model), next(model.parameters()).device
    partner = other_class(split.labels, seed).to(device)
    labels = split.labels.to(device)
    size, found = max(1, batch // len(units)), []
    with taps.evaluating(model), undecoded(model):
        sets = _sets(model, split.to(device), ranking, replace(reading, target="label"), places, batch)
        chance = torch.rand(sets.shape, generator=torch.Generator().manual_seed(seed)).to(sets)
        for at in torch.arange(len(split), device=device).split(size):
            answers = []
            for rows in (sets[at], sets[partner[at]], chance[at]):
                with keep_only(model, (rows.new_zeros(len(at), 1, 0), rows.unsqueeze(1)), None, units, reading, places):
                    scores = model(split.images[at.cpu()].to(device)).scores
                answers.append(scores.argmax(-1).unflatten(0, (len(at), len(units))))
            own, other = labels[at, None], labels[partner[at], None]
            kept, swapped, drawn = answers
            hits = (kept == own, swapped == own, swapped == other, drawn == own, drawn == other)
            found.append(torch.stack(hits).double().sum(1).cpu())
    return Swap(tuple(units), *(torch.stack(found).sum(0) / len(split)))


def other_class(labels: Tensor, seed: int = 0) -> Tensor:
    """For each image the index of one of another class, drawn. (B,) -> (B,). ValueError where all are of one class."""
    if len(labels.unique()) < 2:
        raise ValueError("a set cannot be swapped among images of one class.")
    weights = (labels[:, None] != labels).double().cpu()
    return torch.multinomial(weights, 1, generator=torch.Generator().manual_seed(seed)).squeeze(1)


def _sets(model: nn.Module, split: Any, ranking: Ranking, reading: Reading, places: Places, batch: int) -> Tensor:
    """The relevance of all units that decides over each image, its own: (B, U)."""
    if reading.sets == "class":
        return ranking.units.to(split.labels.device)[split.labels]
    parts = [look(model, images, labels, reading, places)[1] for images, labels, _ in split.batches(batch)]
    return torch.cat(parts)
