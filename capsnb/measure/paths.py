"""Activation paths: the few filters and primary capsules by which a network decides (Tawalbeh & Oramas 2024, sec. 4.2).

Filters are ranked by the mean of their map (GAP), primary capsules by the coupling with which the class layer listens
to them: forward, whatever the class (algorithm 2, equation 1), or backward from the predicted class (algorithm 3,
equation 2). The best k stay, all others are removed, and the accuracy of what is left is the path's.

The text leaves much open. `Reading` names each choice and its alternatives; its defaults are the reading that we take
first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from capsnb.nn import taps
from capsnb.nn.layers import length

CHOICES = {
    "direction": ("forward", "backward"),
    "of": ("coupling", "contribution", "agreement", "activation", "random"),
    "maximum": ("child", "layer"),
    "unit": ("position", "type"),
    "sets": ("class", "image", "all"),
    "target": ("prediction", "label"),
    "assign": ("prediction", "label", "each"),
    "filters": ("units", "image", "class", "each", "all"),
}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One way to read the paper's selection of units.

    direction: forward is class-agnostic, backward looks at one class.
    of: what ranks a child: its "coupling" (algorithms 2 and 3 rank e_ij); its "contribution", the length of its coupled
        vote e_ij u_ij (the term of equations 1 and 2); its "agreement", what that vote adds to the length of the
        parent's sum. "activation" is the child's own length, for layers without coupling; "random" is the null. Where
        the routing declares `coefficients`, other than its coupling, e_ij are these.
    maximum: of equation 1: over the parents of each "child" (algorithm 2 ranks all e_ij), or over the sums of the
        "layer", as the equation is written: that maximum is the predicted class, so forward then equals backward.
    unit: each capsule at its "position" (1,152 of them on MNIST; the paper's k = 200) or a "type", summed over its
        positions (32 of them; the k = 10 of MNIST fits both).
    sets: one set of units per "class" (Table 3 counts units shared by classes), per "image" (the algorithms rank the
        coefficients of one input), or one for "all".
    target: the class that backward looks at: the predicted one (equation 2), or the true one.
    assign: the class whose set an image is given: its "prediction" by the whole network; its true "label", which tells
        the network the answer; or "each" in turn, where a class is scored by its own set.
    filters: the scope of the set of filters: as that of the "units", or by itself one of `sets`, or "each".
    threshold: couplings up to it do not count (algorithm 2 has e_ij > 0.4), and a set may then have fewer than k units.
    seed: of the null.
    """

    direction: str = "backward"
    of: str = "coupling"
    maximum: str = "child"
    unit: str = "position"
    sets: str = "class"
    target: str = "prediction"
    assign: str = "prediction"
    filters: str = "units"
    threshold: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} = {getattr(self, name)!r} is unknown; allowed: {', '.join(allowed)}")
        if self.sets != "class" and self.assign != "prediction":
            raise ValueError(f"assign = {self.assign!r} chooses between sets per class, but sets = {self.sets!r}.")

    @property
    def scopes(self) -> tuple[str, str]:
        """Whose set an image is given, of filters and of units: "image", "class", "each" or "all"."""
        units = "each" if self.assign == "each" else self.sets
        return units if self.filters == "units" else self.filters, units


class Places(NamedTuple):
    """Where a path runs: the map of filters, the capsules that are chosen from, the layer whose children they are."""

    filters: str
    units: str
    layer: str

    @classmethod
    def of(cls, model: Any) -> Places:
        """The last convolution's map, and the children of the class capsules: in most networks the primary capsules."""
        if not getattr(model, "layers", ()):
            raise ValueError(f"{type(model).__name__} has no capsule layers for a path to run through.")
        return cls(model.stages[-1], [*["primary"], *model.layers][-2], model.layers[-1])

    def taps(self, model: nn.Module) -> tuple[str, ...]:
        """The tap of the units' poses, and that of their activations where they have some beside (matrix capsules)."""
        found = taps.names(model)
        poses = self.units if self.units in found else f"{self.units}.poses"
        return (poses, *(name for name in (f"{self.units}.activations",) if name in found))

    def types(self, model: nn.Module) -> int:
        """How many types the units have; each stands at several positions, type last."""
        grid = getattr(model.get_submodule(self.units), "grid", None)
        if grid is None:
            raise ValueError(f"{self.units!r} has no grid of types and positions; read its units as 'position'.")
        return grid[2]


class Ranking(NamedTuple):
    """Mean relevance over the images of each class (true labels, as both algorithms take a sample of a given class)."""

    filters: Tensor  # (K, C)
    units: Tensor  # (K, U)
    count: Tensor  # type: ignore[assignment]  # (K,) images; hides tuple.count, which nobody needs


def relevance(coupling: Tensor, votes: Any, target: Tensor, reading: Reading, *, poses: Any = None) -> Tensor:
    """Relevance of each child capsule of one layer. coupling (B, I, J) -> (B, I)

    votes (B, I, J, D): for contribution and agreement. target (B,): the class that backward looks at. poses (B, J, D)
    of the parents: for agreement.
    """
    weight = coupling
    if reading.of == "contribution":
        weight = coupling * length(votes)
    elif reading.of == "agreement":
        weight = coupling * torch.einsum("bijd,bjd->bij", votes, nn.functional.normalize(poses, dim=-1))
    if reading.threshold is not None:
        weight = torch.where(coupling > reading.threshold, weight, 0)
    if reading.direction == "forward" and reading.maximum == "child":
        return weight.amax(-1)
    if reading.direction == "forward":
        totals = (coupling.unsqueeze(-1) * votes).sum(1)
        target = length(totals).argmax(-1)
    return weight.gather(-1, target[:, None, None].expand(-1, weight.shape[1], 1)).squeeze(-1)


def rank(
    model: nn.Module, split: Any, reading: Reading, *, classes: int, places: Places | None = None, batch: int = 250
) -> Ranking:
    """Mean relevance of filters and units for each class of a split, one batch in memory at a time."""
    places, sums, count = places or Places.of(model), None, torch.zeros(classes, dtype=torch.float64)
    with taps.evaluating(model):
        for images, labels, _ in split.to(next(model.parameters()).device).batches(batch):
            found = look(model, images, labels, reading, places)
            one_hot = nn.functional.one_hot(labels, classes).double()
            parts = [(one_hot.T @ part.double()).cpu() for part in found[:2]]
            sums = parts if sums is None else [a + b for a, b in zip(sums, parts, strict=True)]
            count += one_hot.sum(0).cpu()
    if sums is None:
        raise ValueError("the split has no images, so there is nothing to rank by.")
    if reading.of == "random":
        sums[1] = torch.rand(sums[1].shape, generator=torch.Generator().manual_seed(reading.seed)).double()
    filters, units = (part / count.clamp_min(1).unsqueeze(1) for part in sums)
    return Ranking(filters.float(), units.float(), count)


def top(relevance: Tensor, ks: Sequence[int | None], *, positive: bool = False) -> Tensor:
    """Masks of the k most relevant of U units. (..., U) -> (..., len(ks), U) bool; None keeps all of them.

    positive: units of no relevance are not kept, so that a mask may have fewer than k. Ties go to the first unit.
    """
    order = relevance.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    limits = torch.tensor([relevance.shape[-1] if k is None else k for k in ks], device=relevance.device)
    masks = order.unsqueeze(-2) < limits.unsqueeze(-1)
    if positive:
        everything = torch.tensor([k is None for k in ks], device=relevance.device).unsqueeze(-1)
        masks = masks & ((relevance > 0).unsqueeze(-2) | everything)
    return masks


def look(model: nn.Module, images: Tensor, labels: Tensor, reading: Reading, places: Places) -> tuple[Tensor, ...]:
    """GAP of the filters (B, C), relevance of the units (B, U), predictions (B,): the whole network's, in one pass."""
    named = {"maps": places.filters}
    if reading.of in ("activation", "random"):
        named["active"] = places.taps(model)[-1]
    else:
        told = f"{places.layer}.coefficients"
        named["coupling"] = told if told in taps.names(model) else f"{places.layer}.coupling"
        if reading.of != "coupling" or (reading.direction, reading.maximum) == ("forward", "layer"):
            named |= {"votes": f"{places.layer}.votes", "parents": f"{places.layer}.poses"}
    with taps.record(model, *named.values()) as seen:
        predicted = model(images).scores.argmax(1)
    got = {key: seen[name] for key, name in named.items()}
    if "coupling" in got:
        target = predicted if reading.target == "prediction" else labels
        children = relevance(got["coupling"], got.get("votes"), target, reading, poses=got.get("parents"))
    else:
        children = got["active"] if got["active"].dim() == 2 else length(got["active"])
    units = children if reading.unit == "position" else children.unflatten(-1, (-1, places.types(model))).sum(-2)
    if reading.of == "random":
        generator = torch.Generator().manual_seed(reading.seed + int(images.double().sum()))
        units = torch.rand(units.shape, generator=generator).to(units)
    return got["maps"].flatten(2).mean(-1), units, predicted
