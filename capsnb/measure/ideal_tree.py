"""How far couplings are from an ideal parse tree, and what the paper's argument for REM says of them, measured.

Renzulli et al. 2022, sec. 3: of an image of class j, each primary capsule's coupling would ideally be 1 for j and 0 for
all others (eq. 6). Sec. 3.2 argues why it is not: couplings start even (eq. 11); a transform's gradient vanishes
whatever the couplings are (eq. 12) once the outputs are right (eq. 13), which asks for lengths alone (eq. 14); where
transforms are zero, a coupling has less to vary with (eq. 15).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from capsnb.data import ImageSet
from capsnb.measure import dictionary
from capsnb.measure.gradients import margin_gradient
from capsnb.measure.parse_tree import layer_taps
from capsnb.measure.protocol import RENZULLI, measurement
from capsnb.measure.quantisation import COUPLING
from capsnb.nn import taps
from capsnb.nn.layers import length

ZERO = 1e-6  # a gradient at a class capsule, or a vote, that is shorter is none


@measurement("ideal tree", paper=RENZULLI, needs=(COUPLING,))
def ideal_tree(model: nn.Module, data: ImageSet, *, images: int = 10_000, seed: int = 0) -> dict[str, float]:
    """Distances of couplings on test images, 0 to 1: mean over images and capsules of half the sum of differences.

    "to the ideal": to all for the true class (eq. 6); "of long capsules": each weighs as much as it is long. "to even":
    to 1/J each (eq. 11). "right": the share of capsules whose largest coupling is that to the true class. "null:
    even": what even couplings have to the ideal. "null: shuffled classes": the distance to other images' trees.
    """
    split, children = dictionary.balanced(data.test, images), layer_taps(model)[0][-2]
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    shuffled = split.labels.cpu()[order]
    count = len(data.classes)

    def fold(state: Any, seen: Mapping[str, Tensor], batch: Any) -> Any:
        place, total = state
        coupling, labels = seen[COUPLING].cpu().double(), batch[1].cpu()
        weight = length(seen[children]).cpu().double()
        ideal = distance(coupling, one_tree(labels, count))
        right = (coupling.argmax(2) == labels[:, None]) & (coupling.amax(2) > coupling.amin(2))
        others = distance(coupling, one_tree(shuffled[place : place + len(labels)], count))
        even = distance(coupling, torch.full_like(coupling[:, :1], 1 / count))
        parts = (ideal.mean(1), (weight * ideal).sum(1) / weight.sum(1), even.mean(1), right.double().mean(1))
        return place + len(labels), total + torch.stack((*parts, others.mean(1))).sum(1)

    batches = split.to(next(model.parameters()).device).batches(250)
    sums: Any = taps.stream(model, batches, (COUPLING, children), fold, (0, torch.zeros(5, dtype=torch.float64)))
    names = ("to the ideal", "of long capsules", "to even", "right", "null: shuffled classes")
    return dict(zip(names, (sums[1] / sums[0]).tolist(), strict=True)) | {"null: even": 1 - 1 / count}


@measurement("why couplings stay open", paper=RENZULLI, needs=(COUPLING, "class.votes"))
def openness(model: nn.Module, data: ImageSet, *, images: int = 2000) -> dict[str, float | None]:
    """Equations 12 to 15 on test images, of the margin loss.

    "gradient": its norm at the class capsule where it is largest, mean (eq. 13). "satisfied": the share of images
    without any, whose transforms have none either; "decided then": the largest coupling of a capsule, mean over their
    capsules, 1/J to 1 (eq. 12: the gradient vanishes although it is not 1; None without such images). "lead": length
    of the true class over that of the longest other, median (eq. 14). "empty": the share of edges whose vote is 0 for
    every image (eq. 15). "spread": a coupling's standard deviation over images, mean over the other edges; "spread of
    empty": over those (None without).
    """
    split = dictionary.balanced(data.test, images)
    found: dict[str, list[Tensor]] = {name: [] for name in ("gradient", "decided", "lead")}

    def fold(state: Any, seen: Mapping[str, Tensor], batch: Any) -> Any:
        poses, coupling = (seen[name].cpu().double() for name in (dictionary.POSES, COUPLING))
        labels, votes = batch[1].cpu(), length(seen["class.votes"]).amax(0).cpu()
        found["gradient"].append(length(margin_gradient(poses, labels)).amax(1))
        found["decided"].append(coupling.amax(2).mean(1))
        lengths = length(poses)
        own = lengths.gather(1, labels[:, None]).squeeze(1)
        others = lengths.scatter(1, labels[:, None], 0.0).amax(1)
        found["lead"].append(own / others.clamp_min(ZERO))
        count, first, second, longest = state
        moments = (first + coupling.sum(0), second + coupling.square().sum(0))
        return count + len(labels), *moments, torch.maximum(longest, votes)

    batches = split.to(next(model.parameters()).device).batches(100)
    wanted = (COUPLING, dictionary.POSES, "class.votes")
    start: Any = (0, 0, 0, torch.zeros(()))
    sums: Any = taps.stream(model, batches, wanted, fold, start)
    count, first, second, longest = sums
    spread = (second / count - (first / count).square()).clamp_min(0).sqrt()
    gradient, decided, lead = (torch.cat(each) for each in found.values())
    satisfied, empty = gradient < ZERO, longest < ZERO
    return {
        "gradient": float(gradient.mean()),
        "satisfied": float(satisfied.double().mean()),
        "decided then": float(decided[satisfied].mean()) if satisfied.any() else None,
        "lead": float(lead.median()),
        "empty": float(empty.double().mean()),
        "spread": float(spread[~empty].mean()) if (~empty).any() else None,
        "spread of empty": float(spread[empty].mean()) if empty.any() else None,
    }


def one_tree(labels: Tensor, classes: int) -> Tensor:
    """The couplings of eq. 6, of every capsule alike: 1 to the image's class. (B,) -> (B, 1, J)"""
    return nn.functional.one_hot(labels, classes).double().unsqueeze(1)


def distance(coupling: Tensor, other: Tensor) -> Tensor:
    """Half the sum of absolute differences over the parents: 0 alike, 1 nothing shared. (B, I, J) -> (B, I)"""
    return (coupling - other).abs().sum(2) / 2
