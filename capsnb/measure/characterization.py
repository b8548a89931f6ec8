"""What notebook 01 records of a network: the tables of Tawalbeh & Oramas 2024 with their nulls, as measures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from capsnb.data import ImageSet, Split
from capsnb.data.strokes import stroke_digits
from capsnb.measure import attribution, intervals, overlap, path_accuracy, paths, perturbation, sharing, swaps, visual
from capsnb.measure.protocol import NULL, TAWALBEH, first, measurement
from capsnb.measure.robustness import pose_clouds
from capsnb.nn import taps
from capsnb.training.evaluation import evaluate

FEW = (5, 10, 20)  # units of a complete path, about the paper's 10
KS = (1, 2, 5, 10, 20, 50, 100, 200)  # units of a path; those beyond a layer are left out
MOVES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # spreads of a feature from which on it is said to move
EM_RANGE = (0.1, 1.0)  # alpha of EM in Table 2


@measurement("class ranges", paper=TAWALBEH)
def class_ranges(model: nn.Module, data: ImageSet, *, images: int = 2_000) -> dict[str, dict[str, list[float]]]:
    """The interval of each class's own capsule on its training images (Table 2): "poses" and "activations".

    A vector capsule's activation is its pose's length. "alpha" holds all classes.
    """
    active = "class.activations" if "class.activations" in taps.names(model) else "|class.poses|"
    found = intervals.activation_statistics(
        model, first(data.train, images), ["class.poses", active], classes=len(data.classes)
    )
    told = {}
    for name, place in {"poses": "class.poses", "activations": active}.items():
        each = intervals.class_intervals(found[place])
        told[name] = {"low": each.low.tolist(), "high": each.high.tolist(), "alpha": list(each.alpha)}
    return told


@measurement("perturbed curves", paper=TAWALBEH)
def perturbed_curves(model: nn.Module, data: ImageSet, *, images: int = 500, turns: int = 1) -> dict[str, Any]:
    """Percent of pictures of changed poses that the network still takes for the class, by value (figure 8).

    Each of the test images has `turns` of its pose's dimensions changed, in turn, so that all dimensions have as many
    images; the mean over dimensions, and the lowest and the highest dimension. "replacement" goes over the alpha of
    training poses, "addition" over Sabour's values; of capsules that have activations apart from their poses,
    "activations" replaces by 0.1 to 1, as Table 2 has it for EM.
    Raises ValueError for a model without decoder.
    """
    perturbation.check_change(model, "replacement")
    low, high = class_ranges(model, data)["poses"]["alpha"]
    ways = {"replacement": torch.linspace(low, high, intervals.STEPS), "addition": torch.tensor(perturbation.STEPS)}
    if "class.activations" in taps.names(model):
        ways |= {"activations": torch.linspace(*EM_RANGE, intervals.STEPS)}
    split, found = first(data.test, images), {}
    for name, values in ways.items():
        change = "addition" if name == "addition" else "replacement"
        right = 100 * _right_when_changed(model, split, values, change, turns)
        curves = {"mean": right.mean(0), "lowest": right.amin(0), "highest": right.amax(0)}
        found[name] = {"values": values.tolist()} | {curve: each.tolist() for curve, each in curves.items()}
    return found


def _right_when_changed(model: nn.Module, split: Split, values: Tensor, change: str, turns: int) -> Tensor:
    """Shares (D, S) of the images whose turn a dimension has."""
    with torch.no_grad():
        dim = model(split.images[:1].to(next(model.parameters()).device)).poses.shape[-1]
    every, rows = max(1, dim // turns), []
    if len(split) < every:
        raise ValueError(
            f"{len(split)} images are too few for each of {dim} dimensions to have one: {every} are needed"
        )
    for number in range(dim):
        own = split.select(torch.arange(number % every, len(split), every))
        axis = torch.eye(dim)[number : number + 1]
        grid = perturbation.perturbation_grid(model, own.images, own.labels, values, change=change, directions=axis)
        with taps.evaluating(model), path_accuracy.undecoded(model):
            guesses = torch.cat([model(part).scores.argmax(1) for part in grid.flatten(0, 2).split(500)])
        rows.append((guesses.view(len(own), -1) == own.labels.to(guesses)[:, None]).double().mean(0).cpu())
    return torch.stack(rows)


@measurement("entanglement", paper=TAWALBEH)
def entanglement(
    model: nn.Module, data: ImageSet, *, images: int = 10, poses: int = 2_000, draws: int = 2, seed: int = 0
) -> dict[str, Any]:
    """Of the dimensions that move a property of the digit, percent that move several, by the threshold of moving.

    "dimensions", moved in proportion to how poses spread along them; the nulls are axes of pose space turned at random,
    mean over `draws`, and the same pictures with their steps shuffled. "features": of the five, how many a dimension
    moves by half a spread. "even reach": the same, with every axis moved equally far. "cosine": of two classes'
    effects. images: of each class. poses: test images that the spread along an axis is measured on.
    Raises ValueError for a model without decoder, or images of several channels: the features are of ink.
    """
    if data.image_shape[0] != 1:
        raise ValueError(f"the features are of grey ink, but images have {data.image_shape[0]} channels")
    perturbation.check_change(model, "replacement")
    classes, test = len(data.classes), data.test
    clouds = pose_clouds(model, first(test, poses), range(classes))
    dim = clouds[0].shape[1]

    def moved(axes: Any, even: bool = False, shuffle: int | None = None) -> visual.Effects:
        found = {label: perturbation.pose_directions(cloud, axes) for label, cloud in clouds.items()}
        found = {label: each.evened() for label, each in found.items()} if even else found
        steps = {label: each.steps() for label, each in found.items()}
        turned = {label: each.axes for label, each in found.items()}
        return visual.visual_effects(
            model, test, steps, classes=classes, images=images, directions=turned, shuffle=shuffle
        )

    own, turned = torch.eye(dim), [visual.random_axes(dim, seed=seed + draw) for draw in range(draws)]
    plain, random = moved(own), [moved(axes) for axes in turned]
    even = {"dimensions": [moved(own, True)], "principal axes": [moved(None, True)]}
    even[f"{NULL}random axes"] = [moved(axes, True) for axes in turned]
    shown = {"dimensions": [plain], f"{NULL}random axes": random, f"{NULL}shuffled steps": [moved(own, shuffle=seed)]}
    others = visual.shuffled_dimensions(plain, seed=seed)
    return {
        "thresholds": list(MOVES),
        "several, %": {name: [_several(found, threshold) for threshold in MOVES] for name, found in shown.items()},
        "features": {name: _features(found) for name, found in shown.items()},
        "features, even reach": {name: _features(found) for name, found in even.items()},
        "cosine": visual.class_agreement(plain).mean().item(),
        f"{NULL}cosine, other dimensions": visual.class_agreement(others).mean().item(),
    }


def _several(found: list[visual.Effects], threshold: float) -> float | None:
    """Mean percent over draws; None where no dimension moves anything."""
    shares = torch.tensor([visual.entangled(each, threshold=threshold) for each in found])
    return None if shares.isnan().all() else 100 * shares.nanmean().item()


def _features(found: list[visual.Effects]) -> float:
    return sum(visual.moved(each).double().mean().item() for each in found) / len(found)


@measurement("path scopes", version=2, paper=TAWALBEH)
def path_scopes(
    model: nn.Module,
    data: ImageSet,
    *,
    units: Any = FEW,
    filters: float = 35 / 256,
    images: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """Percent right along complete paths (Table 1), by whose set an image is given: "cells", each a list over k.

    Scopes of filters and of units: the image's own (the nearest reading of algorithms 2 and 3), that of the predicted
    class, one for all, each class scored by its own. "combinations": how many were tried, by which one that gives a
    printed number is to be judged. The null keeps as many units at random.
    units: values of k. filters: the share of filters that is left.
    """
    held, test, directions = first(data.validation, images), first(data.test, images), ("backward", "forward")
    readings = [*(paths.Reading(direction=way) for way in directions), paths.Reading(of="random", seed=seed)]
    rankings = {reading: paths.rank(model, held, reading, classes=len(data.classes)) for reading in readings}
    ks = _fitting(units, rankings[readings[0]])
    found = 100 * path_accuracy.path_grid(model, test, rankings, units=ks, share=filters)
    names = (*directions, f"{NULL}random units")
    cells = [
        {"filters": scope, "units": of} | dict(zip(names, cell.tolist(), strict=True))
        for (scope, of), cell in zip(path_accuracy.PAIRS, found, strict=True)
    ]
    dense = 100 * evaluate(model, test).accuracy
    return {"k": ks, "cells": cells, "combinations": found[:, :2].numel(), "whole network, %": dense}


def _fitting(units: Any, ranking: paths.Ranking) -> list[int]:
    """The values of k that the layer has units for; all its units where it has fewer than any of them."""
    there = ranking.units.shape[1]
    return [k for k in units if k <= there] or [there]


@measurement("swapped set", version=2, paper=TAWALBEH)
def swapped_set(
    model: nn.Module,
    data: ImageSet,
    *,
    direction: str = "backward",
    sets: str = "class",
    units: Any = KS,
    images: int = 500,
    seed: int = 0,
) -> dict[str, list]:
    """What test images are answered with the k best units of another class, in percent: see `swaps.swap`. units: k."""
    held, test = first(data.validation, images), first(data.test, images)
    reading = paths.Reading(direction=direction, sets=sets)
    ranking = paths.rank(model, held, replace(reading, target="label"), classes=len(data.classes))
    ks = _fitting(units, ranking)
    found = swaps.swap(model, test, ranking, reading, units=ks, seed=seed)
    names = ("own set", "the image's class", "the set's class", "null: random, the image's", "null: random, the set's")
    return {"k": ks} | {name: (100 * each).tolist() for name, each in zip(names, found[1:], strict=True)}


@measurement("shared units", paper=TAWALBEH)
def shared_units(
    model: nn.Module,
    data: ImageSet,
    *,
    units: int = 10,
    images: int = 1_000,
    direction: str = "backward",
    seed: int = 0,
) -> dict[str, Any]:
    """Units that classes share among their best (Table 3), how alike those classes look, how active units are.

    "pairs": [class][class] counts, each class's own on the diagonal. "null: chance": of two random sets. "similarity":
    Spearman's correlation over all pairs of classes of shared units with the likeness of mean images; its null gives
    each class's relevances to other units. "exclusive" and "shared": mean activation, of classes that have both.
    """
    reading, classes = paths.Reading(direction=direction), len(data.classes)
    ranking = paths.rank(model, first(data.validation, images), reading, classes=classes)
    sets = sharing.unit_sets(ranking, min(units, ranking.units.shape[1]))
    likeness, found = sharing.class_similarity(data.train, classes), sharing.sharing(sets)
    mixed = sharing.unit_sets(sharing.shuffled(ranking, seed=seed), min(units, ranking.units.shape[1]))
    strength = sharing.activation_by_sharing(model, first(data.test, images), sets, reading).means()
    values = {
        "similarity": sharing.sharing_follows(found.pairs, likeness),
        f"{NULL}similarity, shuffled units": sharing.sharing_follows(sharing.sharing(mixed).pairs, likeness),
    } | strength
    return {
        "pairs": found.pairs.tolist(),
        f"{NULL}chance": sharing.shared_by_chance(int(sets[0].sum()), sets.shape[1]),
        **{name: value if value == value else None for name, value in values.items()},
    }


ROWS = (
    *("isolated, first unit", "isolated, all units", "aggregated"),
    *(f"{NULL}{row}" for row in ("mask area", "first unit, shuffled pairs", "isolated, shuffled pairs")),
)


@measurement("relevance", version=2, paper=TAWALBEH)
def relevance(
    model: nn.Module, data: ImageSet, *, images: int = 50, units: int = 50, cam: int = 10, seed: int = 0
) -> dict[str, Any]:
    """Table 4: percent of the parts' relevance in the whole, [heatmap][scale of the whole][row], by threshold.

    Heatmaps: "absolute", the size of gradients; "signed", of parts with their sign, as the text mentions no absolute
    value; "signed, whole too"; "Grad-CAM". Scales: the whole's mask is cut at a share of its "image"'s largest value,
    or of its "class"'s. Rows of `overlap.score_table`, beside the masks of other images, and the masks' area, which is
    what a map that is the same everywhere has, and on average a map laid anywhere at random. "spread": over class
    means. "combinations": how many heatmaps and scales. units: of each image, the most relevant first; cam: of them,
    for Grad-CAM.
    """
    split, reading = first(data.test, images), paths.Reading()
    chosen = overlap.top_units(model, split.images, reading, units)
    size, sign = overlap.pooled, overlap.signed
    parts = {pool: overlap.unit_heatmaps(model, split.images, chosen, pool=pool) for pool in (size, sign)}
    wholes = {pool: overlap.class_heatmaps(model, split.images, pool=pool) for pool in (size, sign)}
    kinds = {"absolute": (parts[size], wholes[size]), "signed": (parts[sign], wholes[size])}
    kinds["signed, whole too"] = parts[sign], wholes[sign]
    few = attribution.gradcam(model, split.images, units=chosen[:, :cam])
    kinds["Grad-CAM"] = few, attribution.gradcam(model, split.images)
    found: dict[str, Any] = {"thresholds": list(overlap.THRESHOLDS), "combinations": 2 * len(kinds)}
    for name, pair in kinds.items():
        for scale, each in {"image": True, "class": False}.items():
            table = overlap.score_table(overlap.overlap(*pair, each=each, seed=seed), split.labels)
            rows = {row: (100 * table[row][0]).tolist() for row in ROWS}
            spread = {row: (100 * table[row][1]).tolist() for row in ROWS if NULL not in row}
            found.setdefault(name, {})[scale] = rows | {"spread": spread}
    return found


@measurement("lone units", paper=TAWALBEH)
def lone_units(
    model: nn.Module, data: ImageSet, *, images: int = 50, units: int = 100, seed: int = 0
) -> dict[str, Any]:
    """Percent of units that, left alone, answer one and the same class for every image: heatmaps of such test nothing.

    "answers": how many classes a lone unit answers, mean. units: drawn of all.
    """
    places, split = paths.Places.of(model), first(data.test, images)
    with taps.evaluating(model), path_accuracy.undecoded(model):
        tap = places.taps(model)[0]
        with taps.record(model, tap) as seen:
            model(split.images[:1].to(next(model.parameters()).device))
        count = seen[tap].shape[1]
        drawn = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:units]
        masks = F.one_hot(drawn, count).bool()
        answers = []
        for image in split.images.split(1):
            keep = taps.keep(masks)
            edits = {
                name: lambda state, keep=keep: keep(state.repeat_interleave(len(masks), 0))
                for name in places.taps(model)
            }
            with taps.edit(model, edits):
                answers.append(model(image.to(next(model.parameters()).device)).scores.argmax(1).cpu())
    kinds = torch.tensor([len(own.unique()) for own in torch.stack(answers, 1)])
    return {"one answer, %": 100 * (kinds == 1).double().mean().item(), "answers": kinds.double().mean().item()}


@measurement("known strokes", paper=TAWALBEH)
def known_strokes(
    model: nn.Module, data: ImageSet, *, images: int = 50, units: int = 10, margin: int = 1, seed: int = 0
) -> dict[str, float]:
    """Do units look at parts? Heatmaps on digits drawn of known strokes (`data.strokes`).

    Percent of the best units' relevance on ink, and of that the percent on its best stroke, of digits with several;
    "null: even" of a map that is the same everywhere, "null: whole" of the class's own heatmap: parts would be on one
    stroke more than their whole is. margin: pixels about a stroke that count as it.
    Raises ValueError for data that are not square grey images of ten classes.
    """
    channels, height, width = data.image_shape
    if channels != 1 or height != width or len(data.classes) != 10:
        raise ValueError(f"strokes are of square grey digits, not of {len(data.classes)} classes of {data.image_shape}")
    drawn = stroke_digits(images, size=height, seed=seed)
    device = next(model.parameters()).device
    masks = F.max_pool2d(drawn.masks.float(), 2 * margin + 1, 1, margin).to(device)
    several = (drawn.masks.flatten(2).any(2).sum(1) > 1).to(device)
    with taps.evaluating(model), path_accuracy.undecoded(model):
        right = model(drawn.images.to(device)).scores.argmax(1) == drawn.labels.to(device)
    chosen = overlap.top_units(model, drawn.images, paths.Reading(), units)
    parts = overlap.unit_heatmaps(model, drawn.images, chosen).maps
    whole = overlap.class_heatmaps(model, drawn.images).maps.unsqueeze(1)
    found = {"right, %": 100 * right.double().mean().item()}
    for name, maps in {"": parts, f"{NULL}whole, ": whole, f"{NULL}even, ": torch.ones_like(whole)}.items():
        inked, stroke = _on_strokes(maps, masks)
        found[f"{name}on ink, %"] = 100 * inked.nanmean().item()
        found[f"{name}of that on one stroke, %"] = 100 * stroke[several].nanmean().item()
    return found


def _on_strokes(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Share of maps (B, k, H, W) on the ink of masks (B, S, H, W), and of that on the best stroke: (B, k) each.

    Where strokes touch, a pixel counts for each of them in equal parts.
    """
    total, shares = maps.sum((-2, -1)), masks / masks.sum(1, keepdim=True).clamp_min(1)
    each = torch.einsum("bkhw,bshw->bks", maps, shares)
    ink = each.sum(-1)
    return ink / total, each.amax(-1) / ink
