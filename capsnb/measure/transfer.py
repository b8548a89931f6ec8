"""Are the layers of a network coupled, and do they fit another task? Schemes of Lin, Li & Ma 2018, sec. 3.3.

After Yosinski et al. 2014: a network is trained on pairs of digits, its lower layers are kept, the layers above start
afresh and learn domain B. "B1B" keeps one layer that was trained on B itself. Layers that start afresh have had fewer
steps than base going on, so that what breaking costs is told by Yosinski's "B1B+": the same layers start afresh from
the same network for as many steps, and nothing is kept still. What B1B loses against it is due to layers that had
grown to fit each other. "A1B" keeps one trained on A, whose pairs of digits are other ones: what it loses beyond B1B is
due to the other task.

The paper counts three layers, of which the last one or two are trained anew, in networks with one layer more than those
of figure 1; the lowest of the three is then all below the last two. Whether the layers above start afresh or go on from
where they were ("re-adjust") is not said: `fresh` chooses.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from capsnb.data import DataSpec
from capsnb.data.transforms import Pairs, pair_splits
from capsnb.training.recipe import Recipe
from capsnb.training.spec import Spec

CONTINUED = "continued"  # ours: base going on, trained as long as BnB has seen domain B in all
Blocks = tuple[tuple[str, ...], ...]  # names of a model's parts, lowest layer first
DOMAINS = "A", "B"


class Domains(NamedTuple):
    """Two tasks on overlapping digits: no pair of classes is in both, every class is in each."""

    a: DataSpec
    b: DataSpec


def domains(data: DataSpec) -> Domains:
    """S_A and S_B: the same overlapping digits, limited to the class pairs of one half each (`pair_splits`).

    Limits of the pairs (`Pairs.train`, ...) hold for each domain alone. Raises ValueError unless the data is derived by
    `Pairs` of all classes.
    """
    if not isinstance(data.derive, Pairs) or data.derive.pairs is not None:
        raise ValueError("domains are made of overlapping digits: give a DataSpec with derive=Pairs(...) of all pairs.")
    return Domains(*(replace(data, derive=replace(data.derive, pairs=part)) for part in pair_splits()))


def redrawn(data: DataSpec, seed: int) -> DataSpec:
    """A domain in another split of the class pairs: the same half, the classes renamed as the seed draws it.

    Seed 0 is the split of `domains`; data of all pairs, or of no pairs, stays as it is. Raises ValueError for pairs
    that are no domain's.
    """
    if not isinstance(data.derive, Pairs) or data.derive.pairs is None:
        return data
    names = np.random.RandomState(seed).permutation(10).tolist() if seed else range(10)
    pairs = [(min(pair), max(pair)) for pair in ((names[a], names[b]) for a, b in pair_splits()[_half(data)])]
    return replace(data, derive=replace(data.derive, pairs=tuple(sorted(pairs))))


def blocks(config: Any, *, above: int = 2) -> Blocks:
    """The layers of a model as the schemes count them: all below the last `above`, then each of these.

    A decoder goes with the last layer. Raises ValueError for a model with too few parts.
    """
    with torch.device("meta"):  # names only
        model = config.build()
    parts = [name for name, part in model.named_children() if next(part.parameters(), None) is not None]
    layers = [name for name in parts if name != "decoder"]
    if not 0 < above < len(layers):
        raise ValueError(
            f"{type(model).__name__} has {len(layers)} parts: none is left to keep below the last {above}."
        )
    decoder = ("decoder",) if "decoder" in parts else ()
    *upper, last = layers[-above:]
    return (tuple(layers[:-above]), *((name,) for name in upper), (last, *decoder))


def schemes(spec: Spec, data: Domains, *, fresh: bool = True, first: Recipe | None = None) -> dict[str, Spec]:
    """A run for each scheme and for CONTINUED by its name, after "source", the same network trained on A.

    spec: model, recipe and seed of all of them. Layers are the model's `blocks`. fresh: the layers above start anew, by
    another draw than at first, else they go on from where they were. first: the recipe of the networks trained first,
    source and base, where it is another.
    """
    layers = blocks(spec.model)
    begun = replace(spec, recipe=first or spec.recipe)
    trained = {"A": replace(begun, data=data.a), "B": replace(begun, data=data.b)}
    again = replace(spec, data=data.b)
    found = {"source": trained["A"], "base": trained["B"], CONTINUED: replace(again, start=trained["B"])}
    for domain in ("B", "A"):
        for kept in range(1, len(layers)):
            below, above = (tuple(name for layer in part for name in layer) for part in (layers[:kept], layers[kept:]))
            start = replace(again, start=trained[domain], frozen=below)
            scheme = found[f"{domain}{kept}B"] = replace(start, reset=above, redraw=spec.redraw + 1) if fresh else start
            if fresh and domain == "B":
                found[f"B{kept}B+"] = replace(scheme, frozen=())
    return found


def random_layers(spec: Spec, data: Domains) -> dict[str, Spec]:
    """The null of `schemes`, ours: "R1B" keeps the lowest block as it was drawn, and the layers above learn domain B.

    What B1B and A1B have over it is due to what their kept layers learned.
    """
    layers = blocks(spec.model)
    return {
        f"R{kept}B": replace(spec, data=data.b, frozen=tuple(name for layer in layers[:kept] for name in layer))
        for kept in range(1, len(layers))
    }


def states(spec: Spec) -> list[tuple[str, str]]:
    """Of each of the three layers of a scheme, lowest first: the domain it learns or has learned, and how.

    How: "trained" from the start, "goes on" from there, "kept" as it was, "redrawn" and trained. A layer kept as it was
    drawn at random has no domain, which reads "random".
    """
    now, found = DOMAINS[_half(spec.data)], []
    for parts in blocks(spec.model):
        begun = spec.start if isinstance(spec.start, Spec) else None
        if set(parts) <= set(spec.frozen):
            found.append((DOMAINS[_half(begun.data)] if begun else "random", "kept"))
        elif not begun:
            found.append((now, "trained"))
        else:
            found.append((now, "redrawn" if set(parts) <= set(spec.reset) else "goes on"))
    return found


def _half(data: DataSpec) -> int:
    """0 for domain A, 1 for B, whatever the split: they differ in how many pairs they have."""
    counts = [len(part) for part in pair_splits()]
    pairs = data.derive.pairs if isinstance(data.derive, Pairs) else None
    if pairs is None or len(pairs) not in counts:
        raise ValueError(f"{'all' if pairs is None else len(pairs)} pairs are no domain: those have {counts}.")
    return counts.index(len(pairs))
