"""Activation paths: a network whose right path is known by hand, a slow loop for every reading, counts, refusals."""

import math
from dataclasses import replace

import pytest
import reference
import torch
from helpers import keeping
from torch import nn
from torch.testing import assert_close
from toys import TwoPaths, two_path_images

from capsnb.data import Split
from capsnb.measure import sharing
from capsnb.measure.path_accuracy import PAIRS, choose_k, path_accuracy, path_grid, path_reconstructions
from capsnb.measure.paths import Places, Ranking, Reading, look, rank, relevance, top
from capsnb.nn import taps
from capsnb.nn.layers import length
from capsnb.nn.models import CapsNetConfig, MatrixCapsNetConfig, NeuronNetConfig, ResCapsConfig, StridedStem
from capsnb.nn.routing import Dynamic

SMALL = CapsNetConfig(size=20, classes=3, dim=4, stem=StridedStem(channels=5, types=3, dim=2), decoder_widths=(8, 12))
HAND = two_path_images([[1.0, 0.5, 0.25, 0.0], [0.0, 0.2, 0.4, 1.0], [0.2, 0.9, 0.6, 0.0], [0.5, 0.0, 0.9, 0.4]])
LABELS = torch.tensor([0, 1, 0, 1])


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (6, 1, 20, 20), generator=generator, dtype=torch.uint8)
    return SMALL.build(), Split(images, torch.arange(6) % 3)


def by_hand(activity):
    """Couplings of TwoPaths after two iterations: 1/2 first, then by what each vote adds to its own parent."""
    sums = [2 * (activity[0] + activity[1]), 2 * (activity[2] + activity[3])]
    norms = [(s / 2) ** 2 / (1 + (s / 2) ** 2) for s in sums]
    own = [1 / (1 + math.exp(-2 * a * norms[child // 2])) for child, a in enumerate(activity)]
    return torch.tensor([[c, 1 - c] if child < 2 else [1 - c, c] for child, c in enumerate(own)])


@pytest.mark.parametrize("activity", [(1.0, 0.5, 0.25, 0.0), (0.2, 0.9, 0.6, 0.0)])
def test_the_couplings_of_two_paths_by_hand(activity):
    model = TwoPaths()
    with taps.record(model, "class.coupling") as seen:
        model(two_path_images([activity]))
    assert_close(seen["class.coupling"][0], by_hand(activity), atol=1e-3, rtol=0)


def ranked(reading):
    """Each image's units, best first; ties go to the first."""
    _, units, predicted = look(TwoPaths(), HAND, LABELS, reading, Places.of(TwoPaths()))
    assert predicted.tolist() == LABELS.tolist()
    return units.argsort(dim=1, descending=True, stable=True).tolist()


def test_the_right_path_is_found():
    # image 0, class 0: children 0 and 1 vote for it; child 3 is silent and keeps 1/2, child 2 votes for the other
    assert ranked(Reading(direction="backward"))[0] == [0, 1, 3, 2]
    # forward, child 2 counts too, for the class it votes for
    assert ranked(Reading(direction="forward"))[0] == [0, 1, 2, 3]
    # image 1, class 1: children 3 and 2; child 0 is silent
    assert ranked(Reading(direction="backward"))[1] == [3, 2, 0, 1]
    assert ranked(Reading(direction="forward"))[1] == [3, 2, 1, 0]
    # the maximum over the layer's sums is the predicted class: the backward path
    assert ranked(Reading(direction="forward", maximum="layer")) == ranked(Reading(direction="backward"))
    # votes for a class that they miss are nothing: only children 0 and 1 contribute to class 0
    assert ranked(Reading(of="contribution"))[0][:2] == [0, 1]
    assert ranked(Reading(of="activation"))[1] == [3, 2, 1, 0]


def test_filters_are_ranked_by_their_mean():
    filters, *_ = look(TwoPaths(), HAND, LABELS, Reading(), Places.of(TwoPaths()))
    assert_close(filters, HAND[:, 0, 0].float() / 255 / 4)  # each pixel is one of four positions


def test_the_path_of_two_units_decides_as_the_whole_network():
    model, split = TwoPaths(), Split(HAND, LABELS)
    reading = Reading(direction="backward")
    ranking = rank(model, split, reading, classes=2)
    assert sharing.unit_sets(ranking, 2).tolist() == [[True, True, False, False], [False, False, True, True]]
    found = path_accuracy(model, split, ranking, reading, units=(0, 1, 2, None))
    # without any unit all classes score 0 and the first is taken
    assert found.accuracy.tolist() == [[0.5, 1, 1, 1]]
    assert found.by_class.tolist() == [[[1, 0], [1, 1], [1, 1], [1, 1]]]
    # a path that agrees with the whole network is faithful, whatever the labels
    faithful = path_accuracy(model, Split(HAND, 1 - LABELS), ranking, reading, units=(2, 0), against="prediction")
    assert faithful.accuracy.tolist() == [[1, 0.5]]
    with pytest.raises(ValueError, match="against = 'truth' is unknown; allowed: label, prediction"):
        path_accuracy(model, split, ranking, reading, against="truth")
    # the other class's path answers for the other class
    swapped = Ranking(ranking.filters, ranking.units.flip(0), ranking.count)
    wrong = path_accuracy(model, split, swapped, reading, units=(2,)).accuracy.item()
    assert wrong == 0
    # told the label by a set that leaves only its class's votes, even a network that knows nothing is right
    told = Reading(assign="label")
    mixed = Split(HAND, 1 - LABELS)
    assert path_accuracy(model, mixed, ranking, told, units=(2, None)).accuracy.tolist() == [[1, 0]]


READINGS = [
    Reading(),
    Reading(direction="forward"),
    Reading(direction="forward", maximum="layer"),
    Reading(direction="forward", of="contribution"),
    Reading(of="agreement", target="label"),
    Reading(unit="type"),
    Reading(unit="type", sets="image", of="activation"),
    Reading(sets="image"),
    Reading(sets="all", of="contribution"),
    Reading(assign="label"),
    Reading(assign="each"),
    Reading(sets="image", filters="each"),
    Reading(assign="each", filters="class"),
    Reading(filters="all"),
    Reading(direction="forward", threshold=0.334),
    Reading(of="random", seed=4),
]


def slow_relevance(model, image, label, reading):
    """Equations 1 and 2 for one image, child by child."""
    with taps.record(model, "primary", "class.coupling", "class.votes", "class.poses") as seen:
        guess = int(model(image[None]).scores.argmax())
    coupling, votes, poses = (seen[f"class.{name}"][0] for name in ("coupling", "votes", "poses"))
    children, classes = coupling.shape
    found = torch.zeros(children)
    winner = max(range(classes), key=lambda j: sum(coupling[i, j] * votes[i, j] for i in range(children)).norm())
    for i in range(children):
        terms = []
        for j in range(classes):
            value = coupling[i, j]
            if reading.of == "contribution":
                value = (coupling[i, j] * votes[i, j]).norm()
            if reading.of == "agreement":
                value = coupling[i, j] * votes[i, j] @ poses[j] / poses[j].norm()
            if reading.threshold is not None and coupling[i, j] <= reading.threshold:
                value = torch.zeros(())
            terms.append(float(value))
        looked = label if reading.target == "label" else guess
        if reading.direction == "forward":
            found[i] = max(terms) if reading.maximum == "child" else terms[winner]
        else:
            found[i] = terms[looked]
        if reading.of == "activation":
            found[i] = seen["primary"][0, i].norm()
    if reading.unit == "type":
        found = torch.stack([found[kind::3].sum() for kind in range(3)])
    return found, guess


@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_every_reading_equals_a_loop(small, reading):
    model, split = small
    kept, ks = 3, (1, 2, None)
    with torch.no_grad():
        ranking = rank(model, split, reading, classes=3, batch=5)
        found = path_accuracy(model, split, ranking, reading, filters=(kept, None), units=ks, batch=7)
        rows = [slow_relevance(model, *each, reading) for each in zip(split.images, split.labels.tolist(), strict=True)]
        if reading.of != "random":
            means = torch.stack([sum(row for row, _ in rows[c::3]) / 2 for c in range(3)])
            assert_close(ranking.units, means, atol=1e-5, rtol=1e-4)
        right = torch.zeros(2, 3)
        for n, label in enumerate(split.labels.tolist()):
            for column, k in enumerate(ks):
                for row, limit in enumerate((kept, None)):
                    right[row, column] += slow_answer(model, split, n, rows[n], ranking, reading, k, limit) == label
    assert_close(found.accuracy, (right / 6).double())
    assert_close(found.by_class.mean(-1), found.accuracy)


def slow_answer(model, split, n, row, ranking, reading, k, limit):
    """The class of one image with k units and `limit` filters left."""
    image, label = split.images[n : n + 1], int(split.labels[n])
    own, each = label if reading.assign == "label" else row[1], "each" in reading.scopes
    sets = range(3) if each else [own]
    scores = []
    for c in sets:
        with taps.record(model, "conv1", "primary") as seen:
            model(image)
        choices = {  # the scope of a set -> filters, units
            "class": (ranking.filters[own], ranking.units[own]),
            "each": (ranking.filters[c], ranking.units[c]),
            "all": (ranking.filters.mean(0), ranking.units.mean(0)),
            "image": (seen["conv1"][0].mean((1, 2)), row[0]),
        }
        filters, units = (choices[scope][at] for at, scope in enumerate(reading.scopes))
        best = sorted(range(len(units)), key=lambda u: -float(units[u]))[: len(units) if k is None else k]
        if reading.threshold is not None and k is not None:
            best = [u for u in best if units[u] > 0]
        mask = torch.zeros(len(units))
        mask[best] = 1
        if reading.unit == "type":
            mask = mask.repeat(model.primary.capsules // 3)
        maps = torch.zeros(5)
        maps[filters.argsort(descending=True)[: 5 if limit is None else limit]] = 1
        with keeping(model, "conv1", maps), keeping(model, "primary", mask):
            scores.append(model(image).scores[0])
    if each:
        return max(range(3), key=lambda c: scores[c][c])
    return int(scores[0].argmax())


@pytest.mark.parametrize("direction", ["backward", "forward"])
def test_what_a_routing_hands_on_ranks_its_children(small, direction):
    """The released dynamic routing hands on agreements, which rank otherwise than its coupling."""
    torch.manual_seed(0)
    model, images = replace(SMALL, routing=Dynamic(over="children"), init_scale=5.0).build().eval(), small[1].images
    with torch.no_grad(), taps.record(model, "class.votes", "class.coupling") as seen:
        guess = model(images).scores.argmax(1)
    told, coupling = reference.over_children(seen["class.votes"], 3)[1], seen["class.coupling"]
    assert not torch.allclose(told, coupling, atol=0.01)
    reading = Reading(direction=direction, sets="image")
    found = look(model, images, small[1].labels, reading, Places.of(model))[1]
    assert_close(found, told.amax(2) if direction == "forward" else told[range(6), :, guess], atol=1e-6, rtol=1e-4)


def test_the_grid_of_scopes_holds_each_path_accuracy_of_its_own(small):
    model, split = small
    readings = [Reading(), Reading(direction="forward", sets="image")]
    rankings = {reading: rank(model, split, reading, classes=3) for reading in readings}
    grid = path_grid(model, split, rankings, units=(1, 4), share=0.4)
    assert grid.shape == (10, 2, 2)
    ranking = rankings[readings[1]]
    for filters, units, changed in (("all", "image", {"sets": "image"}), ("each", "each", {"assign": "each"})):
        reading = replace(readings[1], sets="class", filters=filters)
        options = {"filters": (2,), "units": (1, 4)}
        found = path_accuracy(model, split, ranking, replace(reading, **changed), **options).accuracy[0]
        assert torch.equal(grid[PAIRS.index((filters, units)), 1], found)


@pytest.mark.parametrize("unit", ["position", "type"])
def test_paths_of_matrix_capsules(small, unit):
    torch.manual_seed(0)
    model = MatrixCapsNetConfig(size=20, classes=3, width=4, types=2, layers=((3, 3, 2), (2, 3, 1))).build().eval()
    split, reading = small[1], Reading(unit=unit, sets="image")
    assert Places.of(model) == ("conv1", "caps2", "class")
    ranking = rank(model, split, reading, classes=3)
    found = path_accuracy(model, split, ranking, reading, units=(1, None), filters=(2, None))
    with torch.no_grad(), taps.record(model, "class.coupling") as seen:
        dense = model(split.images).scores.argmax(1)
    units = seen["class.coupling"].gather(2, dense[:, None, None].expand(-1, model.caps2.capsules, 1))[..., 0]
    units = units if unit == "position" else units.unflatten(1, (-1, 2)).sum(1)
    mask = top(units, [1])[:, 0]
    with (
        torch.no_grad(),
        keeping(model, "caps2", mask if unit == "position" else mask.repeat(1, model.caps2.capsules // 2)),
    ):
        guesses = model(split.images).scores.argmax(1)
    right = [(guess == split.labels).double().mean().item() for guess in (guesses, dense)]
    assert found.accuracy[1].tolist() == pytest.approx(right)
    strength = sharing.activation_by_sharing(model, split, sharing.unit_sets(ranking, 1), reading)
    assert torch.stack(strength).nan_to_num(0.5).le(1).all()


def test_paths_where_there_is_no_coupling(small):
    torch.manual_seed(0)
    model, split = ResCapsConfig(size=20, classes=3, width=4, types=(2, 2)).build().eval(), small[1]
    with pytest.raises(ValueError, match=r"ResCaps has no tap 'class.coupling'"):
        rank(model, split, Reading(), classes=3)
    reading = Reading(of="activation", sets="image")
    ranking = rank(model, split, reading, classes=3)
    found = path_accuracy(model, split, ranking, reading, units=(3, None))
    with torch.no_grad(), taps.record(model, "caps4.activations") as seen:
        dense = model(split.images).scores.argmax(1)
    with torch.no_grad(), keeping(model, "caps4", top(seen["caps4.activations"], [3])[:, 0]):
        guesses = model(split.images).scores.argmax(1)
    right = [(guess == split.labels).double().mean().item() for guess in (guesses, dense)]
    assert found.accuracy[0].tolist() == pytest.approx(right)


def test_pictures_of_a_path(small):
    model, split = small
    reading = Reading(sets="image")
    ranking = rank(model, split, reading, classes=3)
    found = path_reconstructions(model, split.images, split.labels, ranking, reading, units=(2, None))
    assert found.shape == (6, 2, 1, 20, 20)
    with torch.no_grad():
        assert_close(found[:, 1], model(split.images, split.labels).reconstruction)
        _, units, _ = look(model, split.images, split.labels, reading, Places.of(model))
        with keeping(model, "primary", top(units, [2])[:, 0]):
            assert_close(found[:, 0], model(split.images, split.labels).reconstruction)
    kept = path_reconstructions(model, split.images, split.labels, ranking, reading, units=(None,), filters=2)
    assert not torch.allclose(kept[:, 0], found[:, 1])
    assert model.decoder is not None


def test_relevance_of_hand_made_couplings():
    coupling = torch.tensor([[[0.7, 0.3], [0.45, 0.55], [0.5, 0.5]]])
    target = torch.tensor([1])
    assert relevance(coupling, None, target, Reading(direction="forward"))[0].tolist() == pytest.approx(
        [0.7, 0.55, 0.5]
    )
    assert relevance(coupling, None, target, Reading())[0].tolist() == pytest.approx([0.3, 0.55, 0.5])
    strict = Reading(direction="forward", threshold=0.5)
    assert relevance(coupling, None, target, strict)[0].tolist() == pytest.approx([0.7, 0.55, 0])
    votes = torch.tensor([[[[3.0, 4.0], [0, 1.0]], [[0, 0], [2.0, 0]], [[1.0, 0], [0, -1.0]]]])
    longest = relevance(coupling, votes, target, Reading(direction="forward", of="contribution"))
    assert longest[0].tolist() == pytest.approx([3.5, 1.1, 0.5])
    poses = torch.tensor([[[1.0, 0], [0, 2.0]]])
    agreed = relevance(coupling, votes, target, Reading(of="agreement"), poses=poses)
    assert agreed[0].tolist() == pytest.approx([0.3, 0, -0.5])


def test_the_best_k_with_ties_and_without_relevance():
    values = torch.tensor([0.2, 0.5, 0.5, 0.0])
    assert top(values, [2, None]).tolist() == [[False, True, True, False], [True] * 4]
    assert top(values, [1]).tolist() == [[False, True, False, False]]
    assert top(values, [4, None], positive=True).tolist() == [[True, True, True, False], [True] * 4]


def test_the_lowest_k_of_the_highest_accuracy():
    assert choose_k((1, 5, 10, 35), (0.5, 0.9, 0.97, 0.97)) == 10
    assert choose_k((35, 10, 5), torch.tensor([[0.97, 0.97, 0.96]])) == 10
    assert choose_k((35, 10, 5), (0.97, 0.97, 0.96), tolerance=0.011) == 5
    with pytest.raises(ValueError, match="2 values of k need as many accuracies, not 1"):
        choose_k((1, 2), (0.5,))


def test_shared_and_exclusive_units():
    sets = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 1, 1]], dtype=torch.bool)
    found = sharing.sharing(sets)
    assert found.pairs.tolist() == [[3, 2, 0], [2, 3, 1], [0, 1, 2]]
    assert found.exclusive.tolist() == [1, 0, 1] and found.shared.tolist() == [2, 3, 1]
    assert sharing.shared_by_chance(10, 100) == 1
    similar = torch.tensor([[1.0, 0.9, -0.5], [0.9, 1.0, 0.1], [-0.5, 0.1, 1.0]])
    assert sharing.sharing_follows(found.pairs, similar) == 1
    assert math.isnan(sharing.sharing_follows(torch.ones(3, 3), similar))


def test_random_sets_share_what_chance_says():
    ranking = Ranking(torch.rand(40, 6), torch.arange(30.0).expand(40, -1), torch.ones(40))
    pairs = sharing.sharing(sharing.unit_sets(sharing.shuffled(ranking, seed=1), 6)).pairs
    others = pairs[~torch.eye(40, dtype=torch.bool)].double().mean()
    assert others.item() == pytest.approx(sharing.shared_by_chance(6, 30), abs=0.15)
    with pytest.raises(ValueError, match="k = 31: there are 30 units"):
        sharing.unit_sets(ranking, 31)


def test_activation_of_shared_units():
    model, split = TwoPaths(), Split(HAND, LABELS)
    sets = torch.tensor([[True, True, False, False], [False, True, False, True]])
    found = sharing.activation_by_sharing(model, split, sets, Reading())
    assert found.exclusive.tolist() == pytest.approx([0.6, 0.7])  # (1 + 0.2) / 2 and (1 + 0.4) / 2
    values = HAND[:, 0, 0, 1].float() / 255
    assert found.shared.tolist() == pytest.approx(
        [(values[0] + values[2]).item() / 2, (values[1] + values[3]).item() / 2]
    )
    lone = sharing.activation_by_sharing(model, split, torch.eye(4, dtype=torch.bool)[:2], Reading())
    assert lone.shared.isnan().all() and math.isnan(lone.means()["shared"])
    nan = float("nan")
    some = sharing.Strength(torch.tensor([0.2, 0.9, nan]), torch.tensor([0.1, nan, 0.7]))
    assert some.means() == pytest.approx({"exclusive": 0.2, "shared": 0.1})  # only class 0 has both


def test_similarity_of_classes():
    images = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    images[0, 0, 0] = images[1, 0, 0] = 200
    images[2, 0, 1] = 200
    found = sharing.class_similarity(Split(images, torch.arange(3)), 3)
    assert_close(found, torch.tensor([[1.0, 1, -1], [1, 1, -1], [-1, -1, 1]]).double())
    with pytest.raises(ValueError, match="3 of 4 classes"):
        sharing.class_similarity(Split(images, torch.arange(3)), 4)


class Bare(nn.Module):
    """A network whose capsules have no grid."""

    def __init__(self):
        super().__init__()
        self.units = nn.Identity()


def test_refuses(small):
    model, split = small
    with pytest.raises(ValueError, match="unit = 'pixel' is unknown; allowed: position, type"):
        Reading(unit="pixel")
    with pytest.raises(ValueError, match="assign = 'label' chooses between sets per class, but sets = 'image'"):
        Reading(sets="image", assign="label")
    with pytest.raises(ValueError, match="Bare has no capsule layers"):
        Places.of(Bare())
    with pytest.raises(ValueError, match="NeuronNet has no capsule layers"):
        Places.of(NeuronNetConfig(size=14, width=1, primary=1, kernel=3, hidden=(2,)).build())
    with pytest.raises(ValueError, match="'units' has no grid"):
        Places("", "units", "").types(Bare())
    none = split.select(torch.arange(0))
    ranking = rank(model, split, Reading(), classes=3)
    with pytest.raises(ValueError, match="no images"):
        rank(model, none, Reading(), classes=3)
    with pytest.raises(ValueError, match="no images"):
        path_accuracy(model, none, ranking, Reading())
    few = Ranking(ranking.filters[:1], ranking.units[:1], ranking.count[:1])
    with pytest.raises(ValueError, match="the ranking is of 1 classes, but an image belongs to class 2"):
        path_accuracy(model, split.select(torch.tensor([2])), few, Reading(assign="label"))
    with pytest.raises(ValueError, match="one path"):
        path_reconstructions(model, split.images, split.labels, ranking, Reading(assign="each"), units=(1,))
    with pytest.raises(ValueError, match="TwoPaths has no decoder"):
        path_reconstructions(TwoPaths(), HAND, LABELS, ranking, Reading(), units=(1,))


def test_lengths_are_what_a_vector_capsule_is_worth(small):
    model, split = small
    reading = Reading(of="activation")
    _, units, _ = look(model, split.images, split.labels, reading, Places.of(model))
    with taps.record(model, "primary") as seen:
        model(split.images)
    assert_close(units, length(seen["primary"]))
