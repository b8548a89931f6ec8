"""The measures that come with capsnb, registered: a few numbers of each paper, the tables of sweeps, what is watched.

The numbers of a survey are meant to be set side by side for networks on the same images, with their nulls. They are no
replication of a paper: each notebook measures more, on more images, and says what a number does not tell.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from capsnb.data import ImageSet, Split, evenly_spaced
from capsnb.data.pixels import resize
from capsnb.data.transforms import shift_grid
from capsnb.measure import (
    characterization,  # noqa: F401  registers its measures
    compactness,
    dictionary,
    entropy,
    exposure,  # noqa: F401  registers its measure itself
    gradients,
    ideal_tree,  # noqa: F401  registers its measures itself
    intervals,
    key_contents,  # noqa: F401  so do these two
    key_statistics,  # noqa: F401
    manifold,
    overlap,
    parse_tree,
    path_accuracy,
    paths,
    perturbation,
    placement,  # noqa: F401  and this one
    quantisation,
    robustness,
    viewpoint,
)
from capsnb.measure.protocol import GU, LIN, MITTERREITER, NETWORK, RENZULLI, TAWALBEH, first, measurement
from capsnb.training import pruning
from capsnb.training.evaluation import evaluate, predict

CLASS = "class.coupling"
SHIFTED = 4  # classes of which an image is moved
MASK = 0.25  # the middle threshold of Tawalbeh & Oramas's Table 4
SHORT_REACH, REACH = 0.2, 8.0  # what Gu et al.'s figure 4 adds to poses that are shorter than 1, and to others
REDRAWN = 9  # steps of it
ACTIVE = 0.1  # norm from which a capsule is active; Mitterreiter et al.'s threshold is not printed


@measurement("accuracy", paper=NETWORK, rows=("accuracy, %", "parameters"))
def accuracy(model: nn.Module, data: ImageSet) -> dict[str, float]:
    """Percent of test and of validation images that are right, and the number of parameters."""
    test, held = evaluate(model, data.test).accuracy, evaluate(model, data.validation).accuracy
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"accuracy, %": 100 * test, "validation accuracy, %": 100 * held, "parameters": parameters}


@measurement("test accuracy", paper=NETWORK)
def test_accuracy(model: nn.Module, data: ImageSet) -> dict[str, float]:
    """The share of test images that are right: to be watched."""
    return {"value": evaluate(model, data.test).accuracy}


@measurement("confusion", paper=NETWORK)
def confusion(model: nn.Module, data: ImageSet) -> dict[str, list]:
    """How many test images of each class (a row) are taken for each (a column): "matrix"."""
    split, count = first(data.test, len(data.test)), len(data.classes)
    guesses = predict(model, split).scores.argmax(dim=1).cpu()
    cells = torch.bincount(split.labels.cpu() * count + guesses, minlength=count * count)
    return {"matrix": cells.view(count, count).tolist()}


@measurement("curve", paper=NETWORK, needs=("optimizer",))
def curve(model: nn.Module, data: ImageSet, *, training: Any) -> dict[str, float]:
    """Loss and accuracy (a share) of training and validation, as the training's own report has them: to be watched."""
    row = training.history[-1]
    return {name: row[name] for name in ("loss", "accuracy", "validation loss", "validation accuracy")}


@measurement("sparsity", paper=RENZULLI)
def sparsity(model: nn.Module, data: ImageSet) -> dict[str, float]:
    """See `pruning.sparsity`: the share of weights that are exactly 0, by layer and in "total"."""
    return pruning.sparsity(model)


@measurement("intervals", paper=TAWALBEH, rows=("poses reach down to", "poses reach up to"))
def pose_intervals(model: nn.Module, data: ImageSet, *, images: int = 200) -> dict[str, float]:
    """The interval over which the class capsules' numbers range (Table 2)."""
    low, high = _intervals(model, data, images).alpha
    return {"poses reach down to": float(low), "poses reach up to": float(high)}


@measurement("perturbed", paper=TAWALBEH, rows=("right on its own perturbed pictures, %",))
def perturbed(model: nn.Module, data: ImageSet, *, images: int = 200, few: int = 20) -> dict[str, float]:
    """Percent of the decoder's pictures of perturbed poses that the network still takes for the class (figure 8)."""
    steps = _intervals(model, data, images).steps()
    found = perturbation.perturbed_accuracy(model, first(data.test, few), steps)
    return {"right on its own perturbed pictures, %": 100 * float(found.mean())}


PATH = "accuracy of its few best capsules, %", "null: of as many at random, %"


@measurement("path", paper=TAWALBEH, rows=PATH)
def path(model: nn.Module, data: ImageSet, *, images: int = 200, kept: float = 0.1, seed: int = 0) -> dict[str, float]:
    """Accuracy of the network of the first capsules of greatest relevance (section 3.3), and of as many at random."""
    held, test = first(data.validation, images), first(data.test, images)
    found = {}
    for name, reading in zip(PATH, (paths.Reading(), paths.Reading(of="random", seed=seed)), strict=True):
        ranking = paths.rank(model, held, reading, classes=len(data.classes))
        count = math.ceil(kept * ranking.units.shape[1])
        right = path_accuracy.path_accuracy(model, test, ranking, reading, units=(count,)).accuracy
        found[name] = 100 * right.item()
    return found


PART = "part inside its whole (RMA), %", "null: inside another image's, %"


@measurement("part-whole", paper=TAWALBEH, rows=PART)
def part_whole(model: nn.Module, data: ImageSet, *, few: int = 20, parts: int = 10, seed: int = 0) -> dict[str, float]:
    """How much of a unit's heatmap lies in its class's (RMA, Table 4), and in the class's of another image."""
    images = first(data.test, few).images
    units = overlap.top_units(model, images, paths.Reading(), parts)
    maps, whole = overlap.unit_heatmaps(model, images, units), overlap.class_heatmaps(model, images)
    found = overlap.overlap(maps, whole, thresholds=(MASK,), seed=seed)
    levels = found.isolated.nanmean(), found.isolated_chance.nanmean()
    return {name: 100 * float(level) for name, level in zip(PART, levels, strict=True)}


@measurement("certainty", paper=LIN, rows=("entropy of the routing to classes, nats", "certainty, 0 to 1"))
def certainty(model: nn.Module, data: ImageSet, *, images: int = 200) -> dict[str, float]:
    """Entropy of the routing to the classes (section 3.1), and 1 less its share of the bound."""
    found = entropy.associations(model, _batches(model, data, images), [CLASS])[CLASS]
    return {"entropy of the routing to classes, nats": found.mean, "certainty, 0 to 1": found.certainty}


# to be watched
measurement("routing entropy", paper=LIN)(entropy.layer_entropy)
measurement("parent shares", paper=LIN)(entropy.parent_shares)

PLANE = "class poses keep the plane of shifts (Spearman)", "null: pixels"


@measurement("plane", paper=LIN, rows=PLANE)
def plane(model: nn.Module, data: ImageSet) -> dict[str, float]:
    """Whether distances between class poses keep those between shifts of an image (section 3.2), as its pixels do."""
    # one object moves, alone: these networks have not learned two. Shrunk, so that it has room at their image's size
    side, test = data.image_shape[1], first(data.test, len(data.test))
    radius = max(2, side // 9)
    owners = [int((test.labels == label).nonzero()[0]) for label in test.labels.unique()[:SHIFTED]]
    small = resize(test.images[owners], side - 2 * radius, side - 2 * radius)
    grid = shift_grid(small, radius)
    sets, offsets = grid.images.unbind(1), grid.offsets.cpu()
    found = {}
    for name, net, tap in zip(PLANE, (model, None), ("class.poses", None), strict=True):
        scores = [manifold.faithfulness(manifold.representation(net, images, tap), offsets) for images in sets]
        found[name] = sum(score.spearman for score in scores) / len(scores)
    return found


measurement("shift manifold", paper=LIN)(manifold.shift_manifold)


@measurement("associations", paper=LIN)
def associations(model: nn.Module, data: ImageSet, *, images: int = 2000) -> dict[str, dict[str, float]]:
    """Entropy of every routing on test images: both readings, certainty, that of the most certain child (section 3.1).

    Coupling's tap -> "words", "printed" (nats), "certainty", "most certain child", "bound" (ln J).
    """
    batches, found = evenly_spaced(data.test.to(next(model.parameters()).device), images), {}
    for tap, each in entropy.associations(model, batches).items():
        bound = math.log(each.parents)
        most = 1 - each.per_capsule.min().item() / bound
        found[tap] = {"words": each.mean, "printed": each.printed, "certainty": each.certainty}
        found[tap] |= {"most certain child": most, "bound": bound}
    return found


@measurement(
    "keys", paper=RENZULLI, rows=("keys per 100 images", "entropy of keys, share of its bound", "points lost by +Q")
)
def keys(model: nn.Module, data: ImageSet, *, images: int = 200) -> dict[str, float]:
    """Parse trees as keys (section 3.2): how many, how much their entropy is of its bound, what quantising costs."""
    split, quantiser = first(data.test, images), quantisation.Quantiser.released(len(data.classes))
    found = dictionary.collect(model, split, quantiser)
    return {
        "keys per 100 images": 100 * len(found.digests) / len(split),
        "entropy of keys, share of its bound": dictionary.trees(found).share,
        "points lost by +Q": 100 * (evaluate(model, split).accuracy - found.accuracy),
    }


@measurement("starvation", paper=MITTERREITER, rows=("dead capsules, %", "dyr of the routing to classes, 0 to 1"))
def starved(model: nn.Module, data: ImageSet, *, images: int = 200) -> dict[str, float]:
    """Dead capsules of all layers, and how much the last routing moves (Tables 1 and 2)."""
    layers = parse_tree.trace(model, _batches(model, data, images), thresholds=())
    dead = torch.cat([layer.dead() for layer in layers])
    moves = parse_tree.dynamics(layers[-2], layers[-1]).dyr
    return {"dead capsules, %": 100 * float(dead.double().mean()), "dyr of the routing to classes, 0 to 1": moves}


@measurement("parse tree", paper=MITTERREITER)
def tree(model: nn.Module, data: ImageSet) -> dict[str, list]:
    """Statistics of the parse tree over the test images, a number per capsule layer, primary capsules first.

    Names and definitions are those of Tables 1 and 2, read as `parse_tree.TABLE_1`; dyr and dys lack the last layer,
    from which nothing is routed.
    """
    layers = parse_tree.trace(model, _batches(model, data, None, size=500), thresholds=(ACTIVE,))
    rows = [parse_tree.activation(layer, ACTIVE) for layer in layers]
    moves = [parse_tree.dynamics(*pair) for pair in itertools.pairwise(layers)]
    return {
        "alive": [len(layer.norm_mean) - row.cds for layer, row in zip(layers, rows, strict=True)],
        **{name: [getattr(row, name) for row in rows] for name in ("cdr", "cnm", "cns", "car", "cas")},
        **{name: [getattr(move, name) for move in moves] for name in ("dyr", "dys")},
    }


@measurement("dead parents", paper=MITTERREITER)
def dead_parents(model: nn.Module, data: ImageSet) -> dict[str, list]:
    """Over the test images, for each layer that routes: "dead", the share of its parents that are dead, and "given",
    the share of its living capsules' coupling that goes to them; None where the whole layer is dead."""
    layers = parse_tree.trace(model, _batches(model, data, None, size=500), thresholds=())
    given = [parse_tree.lost(*pair) for pair in itertools.pairwise(layers)]
    return {
        "dead": [float(layer.dead().double().mean()) for layer in layers[1:]],
        "given": [None if math.isnan(share) else share for share in given],
    }


TURNED = "first capsules keep of a turn, share", "class capsules keep of a turn, share"


@measurement("turned", paper=MITTERREITER, rows=TURNED)
def turned(model: nn.Module, data: ImageSet, *, images: int = 200) -> dict[str, float]:
    """What a rotation by 25 degrees leaves of the similarity of norms: first and class capsules (section 4.4)."""
    found = list(viewpoint.viewpoint(model, _batches(model, data, images), "rotation", [viewpoint.TURN]).values())
    return {name: float(viewpoint.share_kept(found[place])) for name, place in zip(TURNED, (0, -1), strict=True)}


@measurement("invariance", paper=MITTERREITER)
def invariance(model: nn.Module, data: ImageSet, *, images: int = 200) -> dict[str, list]:
    """ "kept": `viewpoint.share_kept` of each capsule layer, test images turned by TURN; None: silent."""
    batch = first(data.test, images).to(next(model.parameters()).device).batches(images)
    found = viewpoint.viewpoint(model, batch, "rotation", [viewpoint.TURN])
    shares = [viewpoint.share_kept(layer).item() for layer in found.values()]
    return {"kept": [None if math.isnan(share) else share for share in shares]}


# to be watched
measurement("life", paper=MITTERREITER)(parse_tree.life)
measurement("pull", paper=MITTERREITER, needs=("gradients",))(gradients.pull_of_training)
measurement("adam step", paper=MITTERREITER, needs=("optimizer",))(gradients.last_step)


@measurement("compactness", paper=GU, rows=("compactness, mean of six factors, nats", "its bound, nats"))
def compact(model: nn.Module, data: ImageSet, *, few: int = 20) -> dict[str, float]:
    """How few dimensions of the class poses a factor moves (Table 5), mean over six factors, and its bound."""
    rows = compactness.table(model, first(data.test, few)).values()
    mean = sum(row.mean for row in rows) / len(rows)
    return {"compactness, mean of six factors, nats": mean, "its bound, nats": next(iter(rows)).bound}


measurement("compactness by factor", paper=GU)(compactness.by_factor)


@measurement("redrawn", paper=GU, needs=("reconstruction",))
def redrawn(model: nn.Module, data: ImageSet, *, label: int = 4, rows: int = 4) -> dict[str, Any]:
    """Figure 4: a class's first test image, redrawn with up to `reach` added to or taken from a number of its pose, in
    nine steps: "pictures" (rows, 9, H, W) uint8, of the numbers that change the picture most, largest first.

    "change" is the mean absolute change of a pixel, in shares of white, of every number of the pose. reach is 0.2 where
    poses are shorter than 1, else 8, as in the paper. Raises ValueError where the test images show no such class.
    """
    test = first(data.test, len(data.test))
    places = (test.labels == label).nonzero()
    if not len(places):
        raise ValueError(f"the test images show no image of class {label}")
    image = test.select(places[0])
    device = next(model.parameters()).device
    with torch.no_grad():
        poses = model(image.images.to(device)).poses
    reach = SHORT_REACH if poses.norm(dim=-1).max() < 1 else REACH
    steps = [reach * (2 * n / (REDRAWN - 1) - 1) for n in range(REDRAWN)]
    grid = perturbation.perturbation_grid(model, image.images, image.labels, steps)[0, :, :, 0]  # (D, steps, H, W)
    change = (grid - grid[:, REDRAWN // 2, None]).abs().mean(dim=(1, 2, 3))
    most = change.topk(min(rows, len(change))).indices
    pictures = (255 * grid[most].clamp(0, 1)).round().to(torch.uint8).cpu().numpy()
    return {"pictures": pictures, "change": change.tolist(), "reach": reach}


@measurement("pose clouds", paper=GU)
def pose_clouds(
    model: nn.Module, data: ImageSet, *, images: int = 1000, classes: tuple[int, ...] = (0, 1, 4)
) -> dict[str, list]:
    """Figure 5: each class's own poses at its images among the first test images, "0" -> N lists of D numbers."""
    found = robustness.pose_clouds(model, first(data.test, images), classes)
    return {str(label): (1000 * poses).round().div(1000).tolist() for label, poses in found.items()}


@measurement("robustness", paper=GU, rows=("points lost by rotation", "points lost by shifts", "points lost by scale"))
def points_lost(model: nn.Module, data: ImageSet, *, images: int = 200) -> dict[str, float]:
    """What each of three transformations costs in accuracy, mean over its range."""
    split, found = first(data.test, images), {}
    for factor, name in {"rotation": "rotation", "trans-x": "shifts", "scale": "scale"}.items():
        values = compactness.VALUES[factor]
        lost = robustness.drop(robustness.accuracy_against(model, split, factor, values), values, factor)
        found[f"points lost by {name}"] = 100 * lost
    return found


@measurement("derived accuracy", paper=GU)
def derived_accuracy(
    model: nn.Module, data: ImageSet, *, derive: Any = None, side: int = 28
) -> dict[str, float | None]:
    """The share of right answers on `robustness.derived_split`, to be watched; None for other data (overlapping pairs,
    unmoved images). Raises ValueError where it is not told what to derive."""
    if derive is None:
        raise ValueError("derived accuracy needs to be told which images to derive: derive=Affine(kind='c'), say")
    if not data.name.endswith(" translated"):
        return {"value": None}
    return {"value": evaluate(model, robustness.derived_split(data, derive, side=side)).accuracy}


def _intervals(model: nn.Module, data: ImageSet, images: int) -> intervals.Intervals:
    split = first(data.test, images)
    found = intervals.activation_statistics(model, split, ["class.poses"], classes=len(data.classes))
    return intervals.class_intervals(found["class.poses"])


def _batches(model: nn.Module, data: ImageSet, images: int | None, *, size: int = 50) -> Iterable:
    device = next(model.parameters()).device
    if images is not None and not isinstance(data.test, Split):
        return evenly_spaced(data.test.to(device), images, batch=size)
    split = data.test if images is None else first(data.test, images)
    return split.to(device).batches(size)
