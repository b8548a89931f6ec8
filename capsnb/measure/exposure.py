"""Who is heard, and who learns: what each parent capsule gets of the coupling and of the gradient.

Lin, Li & Ma 2018, sec. 3.1, explain why too many iterations harm: routing that decides before votes mean anything
would "deprive high-layer capsules the chance of being exposed to all data samples". They measure neither what a parent
is exposed to nor what it learns from it. Here are both, beside how certain the routing is at that moment.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from capsnb.data import ImageSet, evenly_spaced
from capsnb.measure import gradients
from capsnb.measure.entropy import mean_entropy
from capsnb.measure.parse_tree import layer_taps
from capsnb.measure.protocol import LIN, measurement
from capsnb.nn import taps

STARVED = 0.5  # of an even share: a parent that gets less starves


@measurement("exposure", paper=LIN)
def exposure(
    model: nn.Module, data: ImageSet, *, layer: str = "caps1", images: int = 250, starved: float = STARVED
) -> dict[str, Any]:
    """What each parent of one routing gets, on so many images evenly spaced over those trained on; to be watched, too.

    "certainty": 1 less the mean entropy's share of ln J, 0 to 1. "coupling": each parent's share of all coupling;
    "gradient": that of the margin loss's gradient at the transforms to it, by norms; both of sum 1 over J, 1/J if even.
    "least coupling", "least gradient": the least of them, in even shares, 0 to 1. "starved": how many parents get less
    gradient than `starved` of an even share. Raises ValueError for a model without that layer's coupling.
    """
    nodes, edges = layer_taps(model)
    tap = f"{layer}.coupling"
    if tap not in edges:
        raise ValueError(f"{type(model).__name__} has no {tap}; its couplings are: {', '.join(edges)}")
    (batch,) = evenly_spaced(data.train, images, batch=images)
    with taps.evaluating(model), taps.record(model, tap) as seen:
        model(batch.images.to(next(model.parameters()).device))
    transforms = gradients.pulls(model, batch)[nodes[edges.index(tap)]].transform
    assert transforms is not None  # only the last layer has none, and nothing is routed from it
    shares = {
        "coupling": seen[tap].double().mean((0, 1)),
        "gradient": share_of_norms(transforms),
    }
    parents = len(shares["gradient"])
    lists = {name: [round(each, 6) for each in share.tolist()] for name, share in shares.items()}
    least = {f"least {name}": parents * share.min().item() for name, share in shares.items()}
    hungry = int((parents * shares["gradient"] < starved).sum())
    certainty = 1 - mean_entropy(seen[tap]) / math.log(parents)
    return {"certainty": certainty} | lists | least | {"starved": hungry}


def share_of_norms(transforms: Tensor) -> Tensor:
    """Each parent's share of what reaches all, by norms over the children: (I, J) -> (J,) of sum 1.

    Even where nothing reaches any.
    """
    norms = torch.linalg.vector_norm(transforms.double(), dim=0)
    total = norms.sum()
    return norms / total if total > 0 else torch.full_like(norms, 1 / len(norms))
