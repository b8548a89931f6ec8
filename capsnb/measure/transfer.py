"""Are the layers of a network coupled, and do they fit another task? Schemes of Lin, Li & Ma 2018, sec. 3.3.

After Yosinski et al. 2014: a network is trained on pairs of digits, its lower layers are kept, the layers above start
afresh and learn domain B. "B1B" keeps one layer that was trained on B itself: what it loses against "base", all layers
trained together on B, is due to layers that had grown to fit each other. "A1B" keeps one trained on A, whose pairs of
digits are other ones: what it loses beyond B1B is due to the other task.

The paper counts three layers, of which the last one or two are trained anew, in networks with one layer more than those
of figure 1; the lowest of the three is then all below the last two. Whether the layers above start afresh or go on from
where they were ("re-adjust") is not said: `fresh` chooses.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch

from capsnb.data import DataSpec
from capsnb.data.transforms import Pairs, pair_splits
from capsnb.training.spec import Spec

CONTINUED = "continued"  # ours: base, trained for as long again, as long as BnB has seen domain B in all
Blocks = tuple[tuple[str, ...], ...]  # names of a model's parts, lowest layer first


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


def schemes(spec: Spec, data: Domains, *, fresh: bool = True) -> dict[str, Spec]:
    """A run for each scheme and for CONTINUED by its name, after "source", the same network trained on A.

    spec: model, recipe and seed of all of them. Layers are the model's `blocks`. fresh: the layers above start anew, by
    another draw than at first, else they go on from where they were.
    """
    layers = blocks(spec.model)
    trained = {"A": replace(spec, data=data.a), "B": replace(spec, data=data.b)}
    found = {"source": trained["A"], "base": trained["B"], CONTINUED: replace(trained["B"], start=trained["B"])}
    for domain in ("B", "A"):
        for kept in range(1, len(layers)):
            below, above = (tuple(name for layer in part for name in layer) for part in (layers[:kept], layers[kept:]))
            start = replace(trained["B"], start=trained[domain], frozen=below)
            found[f"{domain}{kept}B"] = replace(start, reset=above, redraw=spec.redraw + 1) if fresh else start
    return found
