"""Do parts lie inside their whole? Heatmaps of single capsules against that of the class (Tawalbeh & Oramas 2024, 6.3).

A unit's heatmap is the gradient with respect to the image of the prediction made when only this unit is propagated. The
class capsule's heatmap, binarised, is the mask; relevance mass accuracy (RMA; Arras et al. 2022) is the share of the
unit's relevance inside it. A mask that covers half of the image already gives one half to a map that knows nothing:
`Overlap` therefore has the mask's area and the score of shuffled pairs beside each score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from capsnb.measure.path_accuracy import undecoded
from capsnb.measure.paths import Places, Reading, look
from capsnb.nn import taps
from capsnb.nn.layers import length
from capsnb.nn.models import as_pixels

THRESHOLDS = (0.1, 0.25, 0.5)  # of Table 4


class Heatmaps(NamedTuple):
    """Relevance of pixels: not negative, unless gradients keep their sign (`signed`)."""

    maps: Tensor  # (B, H, W), or (B, k, H, W) of k units
    predicted: Tensor  # (B,) or (B, k): the class whose score has this gradient
    units: Tensor  # the same shape: which unit a map belongs to; of class maps, the predicted class


class Overlap(NamedTuple):
    """Relevance mass accuracy at T thresholds, its chance level by shuffled pairs, and the masks' share of pixels."""

    isolated: Tensor  # (T, B, k) of each unit alone, the most relevant first
    aggregated: Tensor  # (T, B) of the pixelwise maximum over units
    isolated_chance: Tensor  # (T, B, k) against the masks of other images
    aggregated_chance: Tensor  # (T, B)
    area: Tensor  # (T, B) share of pixels in the mask: the score of a map that is the same everywhere


def pooled(gradient: Tensor) -> Tensor:
    """The largest channel of a gradient's size, (..., C, H, W) -> (..., H, W).

    As Simonyan et al. 2014 have it, to whom the paper seems to refer.
    """
    return gradient.abs().amax(-3)


def signed(gradient: Tensor) -> Tensor:
    """The channel of largest size with its sign, (..., C, H, W) -> (..., H, W).

    The paper mentions no absolute value. Between the least and the largest value, as `normalise` has it, what is not
    relevant at all then lies in the middle, and a map is nearly even.
    """
    return gradient.gather(-3, gradient.abs().argmax(-3, keepdim=True)).squeeze(-3)


def class_heatmaps(model: nn.Module, images: Tensor, *, pool: Callable[[Tensor], Tensor] = pooled) -> Heatmaps:
    """Gradient of each image's predicted score with respect to the image: the response of the class layer.

    pool: of the gradient's channels.
    """
    images = _pixels(model, images).requires_grad_()
    with taps.evaluating(model, gradients=True), undecoded(model):
        scores = model(images).scores
        best, predicted = scores.max(1)
        (gradient,) = torch.autograd.grad(best.sum(), images)
    return Heatmaps(pool(gradient), predicted, predicted)


def top_units(model: nn.Module, images: Tensor, reading: Reading, k: int, *, places: Places | None = None) -> Tensor:
    """Each image's k most relevant units, best first; at most as many as there are. -> (B, k) indices"""
    with taps.evaluating(model), undecoded(model):
        images = _pixels(model, images)
        labels = model(images).scores.argmax(1)
        _, found, _ = look(model, images, labels, reading, places or Places.of(model))
    return found.topk(min(k, found.shape[1]), 1).indices


def unit_heatmaps(
    model: nn.Module,
    images: Tensor,
    units: Tensor,
    *,
    places: Places | None = None,
    rows: int = 512,
    pool: Callable[[Tensor], Tensor] = pooled,
) -> Heatmaps:
    """Heatmaps of units, each propagated alone. images (B, C, H, W), units (B, k) -> maps (B, k, H, W)

    pool: of the gradient's channels. The convolutions run once. The class layer runs for `rows` units at once, and its
    gradients at the units go down to the image in one pass per k, all images together.
    """
    places, images = places or Places.of(model), _pixels(model, images).requires_grad_()
    taken = places.taps(model)
    count = units.shape[1]
    found: list[Tensor] = []
    guesses: list[Tensor] = []
    with taps.evaluating(model, gradients=True), undecoded(model):
        with taps.record(model, *taken) as seen:
            model(images)
        states = [seen[name] for name in taken]
        alone = _one_child if _single(model, places) else _masked
        for some in units.to(images.device).split(max(1, rows // len(images)), 1):
            gradients, guess = alone(model, places, [state.detach() for state in states], some, images[:1])
            guesses.append(guess)
            for each in zip(*gradients, strict=True):
                last = len(found) + 1 == count
                (gradient,) = torch.autograd.grad(states, images, each, retain_graph=not last)
                found.append(pool(gradient))
    return Heatmaps(torch.stack(found, 1), torch.cat(guesses, 1), units.to(images.device))


def normalise(heat: Heatmaps, *, each: bool = False) -> Heatmaps:
    """Maps between 0 and 1 by the least and largest value of all the maps of the same unit (or class).

    each: of each map alone.
    """
    groups = torch.arange(heat.units.numel(), device=heat.units.device) if each else heat.units.flatten()
    maps = heat.maps.reshape(len(groups), -1)
    count = int(groups.max()) + 1
    low = maps.new_full((count,), torch.inf).scatter_reduce(0, groups, maps.amin(1), "amin")[groups]
    high = maps.new_full((count,), -torch.inf).scatter_reduce(0, groups, maps.amax(1), "amax")[groups]
    reach = (high - low).clamp_min(torch.finfo(maps.dtype).tiny)
    return heat._replace(maps=((maps - low[:, None]) / reach[:, None]).reshape(heat.maps.shape))


def mass_accuracy(relevance: Tensor, mask: Tensor) -> Tensor:
    """RMA: the share of the relevance that lies inside the mask; nan for a map without any. (..., H, W) -> (...)"""
    if relevance.shape[-2:] != mask.shape[-2:]:
        sides = tuple(relevance.shape[-2:]), tuple(mask.shape[-2:])
        raise ValueError(f"a map of {sides[0]} pixels cannot be judged by a mask of {sides[1]}.")
    if (relevance < 0).any():
        raise ValueError("relevance mass accuracy is of non-negative maps; pool the gradient first.")
    return (relevance * mask).sum((-2, -1)) / relevance.sum((-2, -1))


def overlap(
    parts: Heatmaps,
    whole: Heatmaps,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    shuffles: int = 10,
    each: bool = False,
    seed: int = 0,
) -> Overlap:
    """Table 4: RMA of units in isolation and aggregated, with the class map at each threshold as the mask.

    parts (B, k, H, W) and whole (B, H, W) are normalised here: parts over all maps of a unit, as the paper says; the
    whole, of which it says nothing, over all maps of a class, or `each` by itself. The chance level takes each image's
    maps against the mask of another image, mean over `shuffles` draws. Raises ValueError for fewer than two images.
    """
    maps, classes = normalise(parts).maps, normalise(whole, each=each).maps
    images = len(maps)
    if images < 2:
        raise ValueError("a chance level by shuffled pairs needs at least two images.")
    masks = torch.stack([classes >= threshold for threshold in thresholds]).to(maps)  # (T, B, H, W)
    most = maps.amax(1)
    generator = torch.Generator().manual_seed(seed)

    def score(masks: Tensor) -> tuple[Tensor, Tensor]:
        return mass_accuracy(maps, masks.unsqueeze(2)), mass_accuracy(most, masks)

    chance = []
    for _ in range(shuffles):
        # a turn of a shuffled ring: nobody keeps its own mask
        ring = torch.randperm(images, generator=generator)
        other = torch.empty_like(ring).scatter_(0, ring, ring.roll(1)).to(maps.device)
        chance.append(score(masks[:, other]))
    isolated, aggregated = (torch.stack(kind).mean(0) for kind in zip(*chance, strict=True))
    return Overlap(*score(masks), isolated, aggregated, masks.mean((-2, -1)))


def score_table(found: Overlap, labels: Tensor | None = None) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and standard deviation of each score at the T thresholds, as Table 4 prints them: name -> ((T,), (T,)).

    The deviation is over images, or, with labels (B,), over the means of classes ("across all classes"; the table's
    caption has neither). Table 4's isolated scores are said to be of the top unit, and of each of the top 200: both
    are here. Maps without relevance do not count.
    """
    parts = {
        "isolated, first unit": found.isolated[:, :, 0],
        "isolated, all units": found.isolated.nanmean(2),
        "aggregated": found.aggregated,
        "null: first unit, shuffled pairs": found.isolated_chance[:, :, 0],
        "null: isolated, shuffled pairs": found.isolated_chance.nanmean(2),
        "null: aggregated, shuffled pairs": found.aggregated_chance,
        "null: mask area": found.area,
    }
    if labels is not None:
        owners = [labels.to(found.area.device) == label for label in labels.unique()]
        parts = {name: torch.stack([part[:, own].nanmean(1) for own in owners], 1) for name, part in parts.items()}
    table = {}
    for name, part in parts.items():
        mean = part.nanmean(1)
        table[name] = mean, (part - mean.unsqueeze(1)).square().nanmean(1).sqrt()
    return table


def _pixels(model: Any, images: Tensor) -> Tensor:
    device = next(model.parameters()).device
    return as_pixels(images.to(device), model.image_shape).detach().clone()


def _single(model: Any, places: Places) -> bool:
    """Whether one layer is left above the units, and answers with one child as it does when the others are silent."""
    last = ["primary", *model.layers][-2:] == [places.units, places.layer]
    return last and getattr(model.get_submodule(places.layer), "can_route_one", False)


def _one_child(
    model: nn.Module, places: Places, states: list[Tensor], units: Tensor, image: Tensor
) -> tuple[list[Tensor], Tensor]:
    """`_masked` by a layer that has no other children: hundreds of times less work, the same numbers."""
    index = units.T.unsqueeze(-1).expand(-1, -1, states[0].shape[-1])  # (c, B, P)
    poses = states[0].expand(len(index), -1, -1, -1).gather(2, index.unsqueeze(2)).squeeze(2).requires_grad_()
    layer: Any = model.get_submodule(places.layer)
    parents = layer.route_one(poses.flatten(0, 1), units.T.flatten())
    best, guess = length(parents).max(1)
    (gradient,) = torch.autograd.grad(best.sum(), poses)
    whole = gradient.new_zeros(len(index), *states[0].shape).scatter_(2, index.unsqueeze(2), gradient.unsqueeze(2))
    return [whole], guess.view(units.T.shape).T


def _masked(
    model: nn.Module, places: Places, states: list[Tensor], units: Tensor, image: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Gradients at the units' poses (and activations), (c, B, I, ...) each, and the classes (B, c) of c units alone."""
    capsules = states[0].shape[1]
    chosen = torch.arange(capsules, device=units.device)
    mask = (units.T.unsqueeze(-1) == chosen).flatten(0, 1)  # (c B, I)
    leaves = [state.repeat(units.shape[1], *[1] * (state.dim() - 1)).requires_grad_() for state in states]
    # the network runs for one image up to the units, where the rows take its place
    rows = [taps.keep(mask)(leaf) for leaf in leaves]
    edits = {name: lambda _, own=own: own for name, own in zip(places.taps(model), rows, strict=True)}
    with taps.edit(model, edits):
        best, guess = model(image.detach()).scores.max(1)
    gradients = torch.autograd.grad(best.sum(), leaves)
    split = [gradient.unflatten(0, (units.shape[1], -1)) for gradient in gradients]
    return split, guess.view(units.T.shape).T
