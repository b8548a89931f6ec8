"""What a sweep measures on each trained network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from capsnb.data import ImageSet
from capsnb.measure import parse_tree, viewpoint
from capsnb.training.evaluation import evaluate

Measure = Callable[[nn.Module, ImageSet], dict[str, Any]]
ACTIVE = 0.1  # norm from which a capsule is active; the paper's threshold is not printed


def accuracies(model: nn.Module, data: ImageSet) -> dict[str, Any]:
    """The share of validation and of test images that are right."""
    splits = {"validation": data.validation, "test": data.test}
    return {f"{name} accuracy": evaluate(model, split).accuracy for name, split in splits.items()}


def tree(model: nn.Module, data: ImageSet) -> dict[str, Any]:
    """Statistics of the parse tree over the test images, a number per capsule layer, primary capsules first.

    Names and definitions are those of Mitterreiter et al. 2023, Tables 1 and 2, read by `parse_tree.TABLE_1`;
    dyr and dys lack the last layer, from which nothing is routed.
    """
    device = next(model.parameters()).device
    layers = parse_tree.trace(model, data.test.to(device).batches(500), thresholds=(ACTIVE,))
    rows = [parse_tree.activation(layer, ACTIVE) for layer in layers]
    moves = [parse_tree.dynamics(*pair) for pair in itertools.pairwise(layers)]
    return {
        "alive": [len(layer.norm_mean) - row.cds for layer, row in zip(layers, rows, strict=True)],
        **{name: [getattr(row, name) for row in rows] for name in ("cdr", "cnm", "cns", "car", "cas")},
        **{name: [getattr(move, name) for move in moves] for name in ("dyr", "dys")},
    }


def invariance(model: nn.Module, data: ImageSet) -> dict[str, Any]:
    """`viewpoint.share_kept` of each capsule layer, 200 test images turned by TURN; None: silent."""
    batch = data.test.to(next(model.parameters()).device).batch(torch.arange(min(200, len(data.test))))
    found = viewpoint.viewpoint(model, [batch], "rotation", [viewpoint.TURN])
    shares = [viewpoint.share_kept(layer).item() for layer in found.values()]
    return {"kept": [None if math.isnan(share) else share for share in shares]}


# The names are part of a task's digest: a new measure has every network measured again, on its run that is on disk.
MEASURES: dict[str, Measure] = {"accuracies": accuracies, "tree": tree, "invariance": invariance}
