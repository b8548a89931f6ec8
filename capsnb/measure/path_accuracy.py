"""What is left of a network when only a path is kept: accuracy, per class, pictures (Tawalbeh & Oramas 2024, 6.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from capsnb.measure.paths import Places, Ranking, Reading, look, top
from capsnb.nn import taps

# whose set an image is given -> that scope of units as a reading says it; classes take turns for both or for neither
SCOPES = {"image": ("image", "prediction"), "class": ("class", "prediction"), "all": ("all", "prediction")}
SCOPES |= {"each": ("class", "each")}
PAIRS = tuple((filters, units) for filters in SCOPES for units in SCOPES if (filters == "each") == (units == "each"))


class PathAccuracy(NamedTuple):
    """Accuracy when only so many filters and units are left; None means all of them."""

    filters: tuple[int | None, ...]
    units: tuple[int | None, ...]
    accuracy: Tensor  # (filters, units), shares
    by_class: Tensor  # (filters, units, K), shares of the images of each class


def path_accuracy(
    model: nn.Module,
    split: Any,
    ranking: Ranking,
    reading: Reading,
    *,
    filters: Sequence[int | None] = (None,),
    units: Sequence[int | None] = (None,),
    against: str = "label",
    places: Places | None = None,
    batch: int = 500,
) -> PathAccuracy:
    """Accuracy with the k best filters and units, for every pair of the two lists of k; None keeps all of a layer.

    One list alone ablates one layer; both together, the complete path. batch: images times sets at once. A layer's
    convolutions run once for all sets of units.
    against: "label", or "prediction", how often a path answers as the whole network does: a candidate for what Table 1
    reports of CIFAR-10.
    """
    if against not in ("label", "prediction"):
        raise ValueError(f"against = {against!r} is unknown; allowed: label, prediction")
    places, classes = places or Places.of(model), len(ranking.count)
    turns = classes if "each" in reading.scopes else 1
    device, size = next(model.parameters()).device, max(1, batch // (len(units) * turns))
    right = torch.zeros(len(filters), len(units), classes, dtype=torch.float64)
    count = torch.zeros(classes, dtype=torch.float64)
    with taps.evaluating(model), undecoded(model):
        for images, labels, _ in split.to(device).batches(size):
            rows = _rows(model, images, labels, ranking, reading, places)
            truth = labels if against == "label" else model(images).scores.argmax(1)
            one_hot = nn.functional.one_hot(labels, classes).double().cpu()
            count += one_hot.sum(0)
            for place, keep in enumerate(filters):
                with keep_only(model, rows, keep, units, reading, places):
                    scores = model(images).scores.unflatten(0, (len(images), turns, len(units)))
                # where paths take turns, a class is scored by its own
                scores = scores.diagonal(dim1=1, dim2=3) if turns > 1 else scores[:, 0]
                hits = scores.argmax(-1) == truth[:, None]
                right[place] += torch.einsum("bu,bk->uk", hits.double().cpu(), one_hot)
    if not count.sum():
        raise ValueError("the split has no images, so there is no accuracy.")
    by_class = right / count.clamp_min(1)
    return PathAccuracy(tuple(filters), tuple(units), right.sum(-1) / count.sum(), by_class)


def choose_k(ks: Sequence[int], accuracy: Any, *, tolerance: float = 0.0) -> int:
    """The lowest k with the highest accuracy, to be measured on validation images (sec. 4.2).

    tolerance: how far below the highest still counts as it, as a share; the paper has none.
    """
    values = torch.as_tensor(accuracy).flatten().tolist()
    if not values or len(values) != len(ks):
        raise ValueError(f"{len(ks)} values of k need as many accuracies, not {len(values)}.")
    best = max(values) - tolerance
    return min(k for k, value in zip(ks, values, strict=True) if value >= best)


def path_grid(
    model: nn.Module, split: Any, rankings: Mapping[Reading, Ranking], *, units: Sequence[int], share: float
) -> Tensor:
    """Accuracy of complete paths by pair of scopes, reading and k. -> (pairs, readings, k), shares

    PAIRS of the scopes of filters and of units, in their order, which replace those of the readings. share: of the
    filters that is left.
    """
    found: dict[tuple[str | None, str, Reading], Tensor] = {}
    keys = []
    for filters, units_of in PAIRS:
        sets, assign = SCOPES[units_of]
        for reading, ranking in rankings.items():
            keep = None if share == 1 else max(1, round(share * ranking.filters.shape[1]))
            # where all filters stay, their scope says nothing
            key = None if keep is None else filters, units_of, reading
            keys.append(key)
            if key not in found:
                scoped = replace(reading, sets=sets, assign=assign, filters=filters)
                found[key] = path_accuracy(model, split, ranking, scoped, filters=(keep,), units=units).accuracy[0]
    return torch.stack([found[key] for key in keys]).unflatten(0, (len(PAIRS), len(rankings)))


def path_reconstructions(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    ranking: Ranking,
    reading: Reading,
    *,
    units: Sequence[int | None],
    filters: int | None = None,
    places: Places | None = None,
) -> Tensor:
    """Pictures decoded from the class poses when only k units are left (figures 16 and 17). -> (B, len(units), C, H, W)

    The decoder is masked by `labels` (B,). Raises ValueError for a model without decoder, or sets for each class.
    """
    if getattr(model, "decoder", None) is None:
        raise ValueError(f"{type(model).__name__} has no decoder, so a path makes no picture.")
    if "each" in reading.scopes:
        raise ValueError("a picture shows one path, but with 'each' an image has as many as there are classes.")
    places, device = places or Places.of(model), next(model.parameters()).device
    images, labels = images.to(device), labels.to(device)
    with taps.evaluating(model):
        rows = _rows(model, images, labels, ranking, reading, places)
        with keep_only(model, rows, filters, units, reading, places):
            pictures = model(images, labels.repeat_interleave(len(units))).reconstruction
    return pictures.unflatten(0, (len(images), len(units))).cpu()


def _rows(
    model: nn.Module, images: Tensor, labels: Tensor, ranking: Ranking, reading: Reading, places: Places
) -> tuple[Tensor, Tensor]:
    """Relevance of filters and units that decides over each image: (B, G, C) and (B, G, U), for G paths in turn."""
    own: Any = look(model, images, labels, reading, places) if "image" in reading.scopes else (None, None)
    owner = None
    if "class" in reading.scopes:
        owner = labels if reading.assign == "label" else model(images).scores.argmax(1)
        if owner.max() >= len(ranking.units):
            raise ValueError(
                f"the ranking is of {len(ranking.units)} classes, but an image belongs to class {owner.max()}."
            )
    rows = []
    for scope, part, alone in zip(reading.scopes, ranking[:2], own[:2], strict=True):
        part = part.to(images.device)
        if scope == "image":
            rows.append(alone.unsqueeze(1))
        elif scope == "class":
            rows.append(part[owner].unsqueeze(1))
        else:
            shares = (ranking.count / ranking.count.sum()).to(part)
            chosen = part if scope == "each" else (shares @ part).unsqueeze(0)
            rows.append(chosen.expand(len(images), -1, -1))
    turns = max(part.shape[1] for part in rows)
    filters, units = (part.expand(-1, turns, -1) for part in rows)
    return filters, units


@contextmanager
def keep_only(
    model: nn.Module,
    rows: tuple[Tensor, Tensor],
    keep: int | None,
    units: Sequence[int | None],
    reading: Reading,
    places: Places,
) -> Iterator[None]:
    """Inside, the model answers for each image once per path and number of units: rows in the order (B, G, units)."""
    filters, ranks = rows
    paths = ranks.shape[1]
    masks = top(ranks, units, positive=reading.threshold is not None)  # (B, G, S, U)
    if reading.unit == "type":
        layer: Any = model.get_submodule(places.units)
        positions = layer.capsules // masks.shape[-1]
        masks = masks.unsqueeze(-2).expand(*masks.shape[:-1], positions, -1).flatten(-2)
    keep_units = taps.keep(masks.flatten(0, 2))
    repeats = len(units) * paths
    edits = {}
    if keep is not None:
        keep_filters = taps.keep(top(filters, [keep])[:, :, 0].flatten(0, 1))
        edits[places.filters] = lambda maps: keep_filters(maps.repeat_interleave(paths, 0))
        repeats = len(units)
    for name in places.taps(model):  # a pose of zeros alone would go on voting, where there are activations
        edits[name] = lambda tensor: keep_units(tensor.repeat_interleave(repeats, 0))
    with taps.edit(model, edits):
        yield


@contextmanager
def undecoded(model: Any) -> Iterator[None]:
    """Inside, the model makes no pictures, which would take as long as its class layer."""
    decoder = getattr(model, "decoder", None)
    if decoder is not None:
        model.decoder = None
    try:
        yield
    finally:
        if decoder is not None:
            model.decoder = decoder
