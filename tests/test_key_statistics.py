"""Which key counts, and how far from an ideal tree: images, keys and couplings whose answers are worked out by hand."""

import math

import numpy as np
import pytest
import torch
from test_dictionary import SIX, Transparent, six
from test_pruning import STRONG, made_set, training
from torch import nn

from capsnb.data import ImageSet, Split
from capsnb.data.transforms import Pairs
from capsnb.measure import dictionary, ideal_tree, key_statistics
from capsnb.measure.protocol import find
from capsnb.measure.quantisation import Quantiser
from capsnb.nn import taps
from capsnb.nn.layers import length
from capsnb.nn.models import Output
from capsnb.training.pruning import Lobster, ToSparsity


def image_set(test, train=None):
    return ImageSet("made", "made by the test", tuple("ab"), train or test, test, test)


def coupled(rows, labels):
    """Images whose pixels are couplings of capsules to classes, in 250ths."""
    return Split(torch.tensor(rows, dtype=torch.uint8).unsqueeze(1), torch.tensor(labels))


# ---------------------------------------------------------------- bins and levels


def test_edges_whose_bin_is_one_for_all_images_of_a_class():
    # class 0: the first capsule in the bins of 0.6 and 0.7, the second always at 1
    split = coupled([[[150, 100], [250, 0]], [[175, 75], [250, 0]], [[0, 250], [0, 250]]], (0, 0, 1))
    assert find("bins")(Transparent(), image_set(split))["fixed"] == pytest.approx(3 / 4)


def test_where_couplings_lie_among_eleven_levels():
    # to the predicted class, in tenths: 10 10, 9 8, 5 10, then 10 10, 5 10, 8 6
    values = find("bins")(Transparent(), image_set(six()))
    expected = [0, 0, 0, 0, 0, 2 / 12, 1 / 12, 0, 2 / 12, 1 / 12, 6 / 12]
    assert values["occupancy"] == pytest.approx(expected, abs=1e-6)
    assert values["outside"] == pytest.approx(10 / 6), "1/J is 0.5 here: all but the two halves"
    assert values["fixed"] == 0
    assert values["hanging"] == 0 and values["moved"] == pytest.approx([math.log2(3)] * 3)


def test_a_key_that_hangs_on_an_edge_and_an_edge_that_never_moves():
    # 0.552 is 0.002 above the edge at 0.55, and in one bin with 0.6
    split = coupled([[[138, 112], [250, 0]], [[150, 100], [250, 0]], [[0, 250], [0, 250]]], (0, 0, 1))
    values = find("bins")(Transparent(), image_set(split))
    assert values["fixed"] == 1
    assert values["hanging"] == pytest.approx(1 / 3)
    assert values["moved"] == [0, 0, pytest.approx(0.5)], "with edges up by 0.01 the first image's bin is another's"
    assert find("bins")(Transparent(), image_set(split), near=0.001)["hanging"] == 0


def test_keys_for_every_number_of_levels():
    values = find("keys by levels")(Transparent(), image_set(six()), levels=(2, 3))
    # K = 2 takes 0.5 to 0: keys 1-1, 1-1, 0-1 and 1-1, 0-1, 1-1
    two, three = dictionary.entropy([2, 1]), (dictionary.entropy([2, 1]) + math.log2(3)) / 2
    assert values["levels"] == [2, 3] and values["keys"] == [4, 5]
    assert values["entropy"] == pytest.approx([two, three]) and values["bound"] == pytest.approx([math.log2(3)] * 2)
    assert values["share"] == pytest.approx((two + three) / 2 / math.log2(3))
    assert values["accuracy"] == pytest.approx([5 / 6] * 2) and values["lowest K"] == 2


# ---------------------------------------------------------------- information


def test_information_of_two_labellings():
    labels = np.array([0, 0, 1, 1])
    assert key_statistics.information(np.array([5, 5, 9, 9]), labels) == pytest.approx(1)
    assert key_statistics.information(np.arange(4), labels) == pytest.approx(1), "unique keys know all, trivially"
    assert key_statistics.information(np.array([0, 1, 0, 1]), labels) == 0
    assert key_statistics.information(np.array([0, 0, 0, 1]), labels) == pytest.approx(
        dictionary.entropy([3, 1]) + 1 - 1.5
    )


def test_what_a_dictionary_says_of_images_that_it_has_not_seen():
    known, classes = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 0, 1, 1, 1])
    # three of three and half of the one more item: 3.5 of 4
    assert key_statistics.held_out(known, classes, np.array([0, 1]), np.array([0, 1])) == pytest.approx(
        1 + math.log2(3.5 / 4)
    )
    assert key_statistics.held_out(known, classes, np.array([0, 1]), np.array([1, 0])) == pytest.approx(
        1 + math.log2(0.5 / 4)
    )
    unique = key_statistics.held_out(np.arange(6), classes, np.array([6, 7]), np.array([0, 1]))
    assert unique == pytest.approx(0), "an unknown key says nothing"


def test_information_of_keys_leaves_the_predicted_class_out():
    # all bins are 3-3 in both classes' first images: with the class as a part of the key they would be told apart
    split = coupled([SIX[0], SIX[3], SIX[0], SIX[3]], (0, 1, 0, 1))
    values = find("key information")(Transparent(), image_set(split))
    assert values == {
        "same images": 0,
        "null: shuffled classes": 0,
        "held out": pytest.approx(0),
        "known": 1,
        "bound": pytest.approx(1),
    }
    apart = coupled([SIX[0], [[100, 150], [0, 250]]] * 2, (0, 1, 0, 1))
    values = find("key information")(Transparent(), image_set(apart))
    assert values["same images"] == pytest.approx(1) and values["held out"] == pytest.approx(1 + math.log2(2.5 / 3))
    other = find("key information")(Transparent(), image_set(apart, six()))
    assert other["known"] == 0.5


def test_pairs_have_no_keys():
    from capsnb.data import DataSpec, prepare

    pairs = prepare(DataSpec(resize=6, derive=Pairs(size=14, train=20, validation=20, test=20)))
    with pytest.raises(ValueError, match="the images are pairs, with two labels each, and keys need images with one"):
        dictionary.balanced(pairs.test, 10)


# ---------------------------------------------------------------- in training


def test_what_is_watched_of_keys_with_the_pull_so_far():
    run = training(Lobster(penalty=STRONG, above=0.0))
    watch = find("keys in training").watched()
    rows = [watch(run) for _ in run.rows(progress=False)]
    last, model = rows[-1], run.model
    keys = dictionary.collect(model, made_set().test, Quantiser())
    assert last["entropy"] == pytest.approx(dictionary.trees(keys).mean_entropy)
    assert last["share"] == pytest.approx(last["entropy"] / last["bound"]) and last["keys"] == len(keys.digests)
    assert last["even"] == pytest.approx((keys.bins[keys.codes] == 3).mean()), "1/3 lies in the bin of 0.3"
    assert last["accuracy"] == keys.accuracy and 0 < last["sparsity"] < 1
    assert last["pull"] == pytest.approx(3 * sum(STRONG.rate(epoch) for epoch in range(4)))
    assert [row["pull"] for row in rows] == sorted(row["pull"] for row in rows)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.fill_(0.5 if name.endswith("weight") else 7.0)
    count = sum(value.numel() for name, value in model.named_parameters() if name.endswith("weight"))
    assert watch(run)["norm"] == pytest.approx(0.5 * count**0.5)
    assert find("keys in training").watched()(training(ToSparsity(schedule=(0.0,))))["pull"] == 0


# ---------------------------------------------------------------- the ideal tree


class Tree(nn.Module):
    """Image (1, I, J) holds couplings in 250ths; pose i has a given length, vote ij is (transform ij, 0)."""

    def __init__(self, lengths, transforms):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.primary = taps.Tap()
        self.lengths, self.transforms = torch.tensor(lengths), torch.tensor(transforms)
        layer = nn.Module()
        layer.votes, layer.coupling, layer.poses = taps.Tap(), taps.Tap(), taps.Tap()
        self.add_module("class", layer)

    def forward(self, images, labels=None):
        layer = self.get_submodule("class")
        batch = len(images)
        self.primary(torch.stack((self.lengths, 0 * self.lengths), 1).expand(batch, -1, -1))
        votes = layer.votes(torch.stack((self.transforms, 0 * self.transforms), 2).expand(batch, -1, -1, -1))
        coupling = layer.coupling(images[:, 0] / 250)
        poses = layer.poses((coupling.unsqueeze(3) * votes).sum(1))
        return Output(length(poses), poses, None)


EVEN = [[125, 125], [125, 125]]
SURE = [[250, 0], [250, 0]]
HALF = [[250, 0], [125, 125]]
VOTES = [[0.5, 0.0], [0.4, 0.25]]


def measured(name, rows, labels, lengths=(1.0, 1.0), **settings):
    return find(name)(Tree(lengths, VOTES), image_set(coupled(rows, labels)), **settings)


def test_distances_of_couplings_to_the_ideal_tree():
    even = measured("ideal tree", [EVEN], [0])
    assert (even["to the ideal"], even["to even"], even["right"], even["null: even"]) == (0.5, 0, 0, 0.5)
    sure = measured("ideal tree", [SURE], [0])
    assert (sure["to the ideal"], sure["to even"], sure["right"]) == (0, 0.5, 1)
    wrong = measured("ideal tree", [SURE], [1])
    assert (wrong["to the ideal"], wrong["right"]) == (1, 0)
    half = measured("ideal tree", [HALF, SURE], [0, 0], lengths=(3.0, 1.0))
    assert half["to the ideal"] == pytest.approx((0.25 + 0) / 2) and half["right"] == pytest.approx(0.75)
    assert half["of long capsules"] == pytest.approx((0.5 * 1 / 4 + 0) / 2), "the undecided one is the short one"
    assert half["null: shuffled classes"] == half["to the ideal"], "both images are of one class"


def test_equations_12_to_15():
    # sure: the lengths are 0.9 and 0, so that the margin loss is satisfied; even: 0.45 and 0.125
    values = measured("why couplings stay open", [SURE, EVEN], [0, 0])
    slopes = (2 * 0.45, 2 * 0.5 * 0.025)
    assert values["gradient"] == pytest.approx(max(slopes) / 2) and values["satisfied"] == 0.5
    assert values["decided then"] == 1
    assert values["lead"] == pytest.approx(0.45 / 0.125), "the lower of two"
    assert values["empty"] == 0.25 and values["spread of empty"] == pytest.approx(0.25)
    assert values["spread"] == pytest.approx(0.25)
    open_ = measured("why couplings stay open", [EVEN, EVEN], [0, 0])
    assert open_["decided then"] is None and open_["spread"] == 0


def test_distances_are_those_of_a_loop():
    coupling, labels = torch.rand(3, 4, 5).softmax(2), torch.tensor([0, 4, 2])
    found = ideal_tree.distance(coupling.double(), ideal_tree.one_tree(labels, 5))
    for image, label in enumerate(labels.tolist()):
        for child in range(4):
            assert float(found[image, child]) == pytest.approx(1 - float(coupling[image, child, label]))
