"""Dictionaries of parse trees: the quantiser, six images by hand, a slow loop with text keys, clusters, agreement."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from torch import nn
from torch.testing import assert_close

from capsnb.data import DataSpec, Split, prepare
from capsnb.data.transforms import Pairs
from capsnb.measure.dictionary import (
    adjusted_rand,
    clusters,
    collect,
    collect_all,
    entropy,
    grouped_alike,
    known,
    mean_couplings,
    trees,
)
from capsnb.measure.quantisation import Quantiser, fewest_levels, quantised_accuracies, quantised_accuracy
from capsnb.nn import taps
from capsnb.nn.layers import length
from capsnb.nn.models import CapsNetConfig, ConvNetAvgConfig, Output, StridedStem
from capsnb.nn.routing import Dynamic, Uniform
from capsnb.training.evaluation import evaluate

SMALL = CapsNetConfig(
    size=12, classes=3, dim=4, stem=StridedStem(channels=4, kernel=3, types=3, dim=4), decoder="none", init="normal"
)
THREE = Quantiser(levels=3)


# ---------------------------------------------------------------- the quantiser


def test_edges_and_levels_of_the_released_code_for_ten_classes():
    quantiser = Quantiser()
    edges = [-0.05, 0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95, 1.05]
    assert_close(quantiser.bounds, torch.tensor(edges, dtype=torch.float64))
    assert_close(quantiser.values, torch.arange(11, dtype=torch.float64) / 10)
    assert quantiser == Quantiser.released(10)
    found = quantiser(torch.tensor([0.0, 0.049, 0.051, 0.1, 0.949, 0.951, 1.0]))
    assert_close(found, torch.tensor([0.0, 0.0, 0.1, 0.1, 0.9, 1.0, 1.0]))


def test_edges_and_levels_of_the_released_code_for_two_hundred_classes():
    quantiser = Quantiser.released(200)
    assert (quantiser.levels, quantiser.edges) == (128, "inside")
    assert_close(quantiser.bounds, torch.arange(129, dtype=torch.float64) / 128)
    assert_close(quantiser.values, (torch.arange(128, dtype=torch.float64) + 0.5) / 128)
    assert quantiser(torch.tensor([0.0, 1.0])).tolist() == [0.5 / 128, 127.5 / 128]  # no level is 0
    assert quantiser.bins(torch.tensor([1 / 128, 1 / 128 + 1e-6])).tolist() == [0, 1]  # an edge belongs below it


@pytest.mark.parametrize(("levels", "first", "second"), [(6, -0.1, 0.1), (5, -0.125, 0.125), (3, -0.25, 0.25)])
def test_the_alternatives_left_in_the_released_code(levels, first, second):
    bounds = Quantiser(levels=levels).bounds.tolist()
    assert bounds[:2] == pytest.approx([first, second]) and bounds[-1] == pytest.approx(1 - first)


@pytest.mark.parametrize("edges", ["centred", "inside"])
@pytest.mark.parametrize("levels", [2, 7, 11, 300])
def test_bins_against_a_loop(levels, edges):
    quantiser = Quantiser(levels=levels, edges=edges)
    coupling = torch.rand(4, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bounds = quantiser.bounds.tolist()
    for value, found in zip(coupling.flatten().tolist(), quantiser.bins(coupling).flatten().tolist(), strict=True):
        (expected,) = [n for n, (low, high) in enumerate(pairwise(bounds)) if low < value <= high]
        assert found == expected
    assert torch.equal(quantiser(coupling), quantiser.values[quantiser.bins(coupling).long()])
    assert torch.equal(quantiser(quantiser(coupling)), quantiser(coupling))


@pytest.mark.parametrize("changes", [{"levels": 1}, {"levels": 2.5}, {"edges": "outside"}])
def test_a_quantiser_says_what_it_takes(changes):
    with pytest.raises(ValueError, match=r"is needed|allowed: 'centred', 'inside'"):
        Quantiser(**changes)


# ---------------------------------------------------------------- a model whose images are its couplings


def text(keys, code):
    """A key as the paper's string of bin numbers, from 1, joined by hyphens."""
    return "-".join(str(number + 1) for number in keys.bins[code].tolist())


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.coupling, self.poses = taps.Tap(), taps.Tap()

    def forward(self, coupling):
        return self.poses(self.coupling(coupling).sum(1).unsqueeze(-1))


class Transparent(nn.Module):
    """Image (1, I, J) holds the couplings of I capsules to J classes; a class's length is the sum of its couplings."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.add_module("class", Layer())

    def forward(self, images, labels=None):
        poses = self._modules["class"](images[:, 0] / 250)
        return Output(length(poses), poses, None)


SIX = [  # couplings of two capsules to two classes, in 250ths
    [[250, 0], [250, 0]],  # class 0, bins 3-3
    [[225, 25], [200, 50]],  # class 0, bins 3-3
    [[125, 125], [250, 0]],  # class 0, bins 2-3
    [[0, 250], [0, 250]],  # class 1, bins 3-3
    [[125, 125], [0, 250]],  # class 1, bins 2-3
    [[50, 200], [100, 150]],  # class 1, bins 3-2
]


def six(labels=(0, 0, 1, 1, 1, 1)):
    return Split(torch.tensor(SIX, dtype=torch.uint8).unsqueeze(1), torch.tensor(labels))


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_a_dictionary_of_six_images_by_hand(batch):
    keys = collect(Transparent(), six(), THREE, batch=batch)
    assert keys.codes.tolist() == [0, 0, 1, 2, 3, 4]
    assert keys.owners.tolist() == [0, 0, 1, 1, 1]
    assert keys.counts.tolist() == [2, 1, 1, 1, 1]
    assert keys.bins.tolist() == [[2, 2], [1, 2], [2, 2], [1, 2], [2, 1]]
    assert keys.predicted.tolist() == [0, 0, 0, 1, 1, 1]
    assert keys.accuracy == pytest.approx(5 / 6)
    found = trees(keys)
    assert found.images == (3, 3) and found.keys == (2, 3)
    two_thirds = -(2 / 3) * math.log2(2 / 3) - (1 / 3) * math.log2(1 / 3)  # 0.918 bits
    assert found.entropy == pytest.approx((two_thirds, math.log2(3)))
    assert found.bound == pytest.approx((math.log2(3), math.log2(3)))
    assert found.mean_entropy == pytest.approx(1.2516, abs=1e-4)
    assert found.share == pytest.approx(1.2516 / math.log2(3), abs=1e-4)
    assert repr(keys) == "Keys(5 keys of 6 images, 2 couplings each)"
    # code and label of 6 images, owner, two bins and a hash of 16 bytes for each of 5 keys
    assert keys.nbytes == 6 * (8 + 8) + 5 * (8 + 2 + 16)


def test_a_class_that_is_never_predicted_is_left_out_of_the_mean():
    found = trees(collect(Transparent(), six().select(torch.arange(3)), THREE))
    assert found.images == (3, 0) and found.keys == (2, 0)
    assert found.mean_entropy == found.entropy[0] and found.mean_bound == pytest.approx(math.log2(3))


def test_entropy_of_one_two_and_n_keys():
    assert entropy([5]) == 0
    assert str(entropy([7])) == "0.0"  # not -0.0
    assert entropy([4, 4]) == 1
    assert entropy([3, 1]) == pytest.approx(0.75 * math.log2(4 / 3) + 0.25 * 2)
    assert entropy([1] * 1000) == pytest.approx(math.log2(1000))


def test_overlays_of_clusters_by_hand():
    split = six()
    keys = collect(Transparent(), split, THREE)
    first, second = clusters(keys, split, 0)
    assert first.positions.tolist() == [0, 1] and second.positions.tolist() == [2]
    assert first.overlay.tolist() == [[[1, 0], [1, 0]]]  # above 125 in both
    assert second.overlay.tolist() == [[[0, 0], [1, 0]]]
    grey = clusters(keys, split, 0, top=1, threshold=None)[0].overlay
    assert_close(grey, torch.tensor([[[475.0, 25.0], [450.0, 50.0]]]) / 2 / 255)
    with pytest.raises(ValueError, match="those of 6 images, the split has 3"):
        clusters(keys, split.select(torch.arange(3)), 0)


def test_mean_couplings_by_hand():
    found = mean_couplings(Transparent(), six(), batch=4)
    assert_close(found[:, 0], torch.tensor([600 / 750, 700 / 750], dtype=torch.float64), rtol=0, atol=1e-6)
    assert_close(found[:, 1], torch.tensor([575 / 750, 650 / 750], dtype=torch.float64), rtol=0, atol=1e-6)
    quantised = mean_couplings(Transparent(), six(), THREE)
    assert_close(quantised[:, 1], torch.tensor([2.5 / 3, 2.5 / 3], dtype=torch.float64))


def test_keys_that_training_images_had():
    keys = collect(Transparent(), six(), THREE)
    earlier = collect(Transparent(), six().select(torch.tensor([1, 4])), THREE)
    assert known(keys, earlier).tolist() == [True, True, False, False, True, False]
    assert known(keys, keys).all()


# ---------------------------------------------------------------- real networks against a slow loop


def build(**changes):
    torch.manual_seed(0)
    model = CapsNetConfig(**{**vars(SMALL), **changes}).build()
    with torch.no_grad():
        model.get_submodule("class").weight.mul_(40)  # couplings far from 1/J
    return model


def pictures(count=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, 12, 12), dtype=torch.uint8, generator=generator)
    return Split(images, torch.arange(count) % 3)


def slow_dictionary(model, split, quantiser, quantised):
    """Text keys, one image at a time, from the paper and the released code."""
    centres, edges = quantiser.values.tolist(), quantiser.bounds.tolist()
    found, predicted = [Counter() for _ in range(3)], []
    layer = model.get_submodule("class")
    for image in split.images:
        with torch.no_grad(), taps.record(model, "class.votes", "class.coupling") as seen:
            scores = model(image[None]).scores[0]
        coupling, votes = seen["class.coupling"][0], seen["class.votes"]
        bins = [[max(n for n, edge in enumerate(edges[:-1]) if edge < c) for c in row] for row in coupling.tolist()]
        if quantised:
            levels = torch.tensor([[centres[n] for n in row] for row in bins])
            with torch.no_grad():
                scores = layer.combine(levels[None], votes)[0].norm(dim=-1)
        winner = int(scores.argmax())
        found[winner]["-".join(str(row[winner] + 1) for row in bins)] += 1
        predicted.append(winner)
    return found, predicted


@pytest.mark.parametrize("quantised", [True, False])
@pytest.mark.parametrize("quantiser", [Quantiser(), Quantiser(levels=4, edges="inside"), Quantiser(levels=300)])
def test_collect_against_a_loop_with_text_keys(quantiser, quantised):
    model, split = build(), pictures()
    keys = collect(model, split, quantiser, quantised=quantised, batch=7)
    expected, predicted = slow_dictionary(model, split, quantiser, quantised)
    assert keys.predicted.tolist() == predicted
    for label in range(3):
        own = {text(keys, c): int(keys.counts[c]) for c in range(len(keys.digests)) if keys.owners[c] == label}
        assert own == expected[label]


def test_several_quantisers_at_once_find_what_each_finds_alone():
    model, split = build(), pictures()
    quantisers = [Quantiser(levels=count) for count in (2, 3, 11, 64)]
    for keys, quantiser in zip(collect_all(model, split, quantisers, batch=7), quantisers, strict=True):
        alone = collect(model, split, quantiser, batch=7)
        assert keys.digests == alone.digests and keys.codes.tolist() == alone.codes.tolist()
    found = quantised_accuracies(model, split, quantisers, batch=7)
    assert found == [quantised_accuracy(model, split, quantiser) for quantiser in quantisers]
    with pytest.raises(ValueError, match="no images"):
        quantised_accuracies(model, split.select(slice(0, 0)), quantisers)


def test_pairs_of_digits_are_quantised_as_they_are_evaluated():
    spec = DataSpec(resize=10, train=60, validation=20, test=20, derive=Pairs(per_image=1, size=12, shift=1))
    test, model, quantiser = prepare(spec).test, build(classes=10), Quantiser(levels=3)
    with taps.edit(model, {"class.coupling": quantiser}):
        expected = evaluate(model, test).accuracy
    assert quantised_accuracies(model, test, [quantiser], batch=7) == [expected]


def test_quantised_accuracy_is_measured_with_quantised_couplings():
    model, split, coarse = build(), pictures(60), Quantiser(levels=2)
    _, predicted = slow_dictionary(model, split, coarse, True)
    expected = (torch.tensor(predicted) == split.labels).double().mean().item()
    assert quantised_accuracy(model, split, coarse) == pytest.approx(expected)
    assert collect(model, split, coarse).accuracy == pytest.approx(expected)
    _, continuous = slow_dictionary(model, split, coarse, False)
    assert predicted != continuous  # the two are not the same thing


def test_the_fewest_levels_that_keep_the_accuracy():
    accuracies = {11: 0.95, 3: 0.90, 5: 0.949, 2: 0.5}
    assert fewest_levels(accuracies, 0.95) == 11
    assert fewest_levels(accuracies, 0.949) == 5
    assert fewest_levels(accuracies, 0.96) is None


@pytest.mark.parametrize("routing", [Dynamic(iterations=1), Uniform()])
def test_one_iteration_has_exactly_no_entropy(routing):
    keys = collect(build(routing=routing), pictures(), Quantiser())
    assert trees(keys).mean_entropy == 0 and len(keys.digests) == len(set(keys.predicted.tolist()))
    assert set(keys.bins[0].tolist()) == {3}  # 1/3 lies in the bin of 0.3


def test_more_levels_never_merge_keys():
    model, split = build(), pictures()
    counts = [len(collect(model, split, Quantiser(levels=k), quantised=False).digests) for k in (3, 5, 9, 17, 1025)]
    assert counts[-1] == 40 and counts[0] <= counts[-1]


# ---------------------------------------------------------------- agreement


def test_adjusted_rand_by_hand_and_as_sklearn_has_it():
    # 6 items; pairs together in both: (0, 1); in the first 3 + 3, in the second 1 + 1 + 1 pairs, of 15
    first, second = [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 2, 2]
    chance = 6 * 3 / 15
    assert adjusted_rand(first, second) == pytest.approx((2 - chance) / ((6 + 3) / 2 - chance))
    numbers = np.random.default_rng(0)
    for _ in range(5):
        a, b = numbers.integers(0, 6, 50), numbers.integers(0, 9, 50)
        assert adjusted_rand(a, b) == pytest.approx(adjusted_rand_score(a, b))
    assert adjusted_rand([0, 1, 2], [5, 6, 7]) is None and adjusted_rand([0, 0], [1, 1]) is None


def test_how_alike_two_networks_sort_images():
    first = [0, 0, 0, 1, 1, 1, 2, 2], [0, 0, 0, 0, 0, 0, 1, 1]
    assert grouped_alike(first, first) == 1.0
    # other numbers for the same clusters, and one image of class 1 that the second predicts as class 0
    second = [1, 1, 1, 0, 0, 0, 2, 0], [0, 0, 0, 0, 0, 0, 1, 0]
    assert grouped_alike(first, second) == 1.0
    # within class 0 the pairs of the six images above, class 1 the same image alone: it says nothing
    third = [0, 0, 1, 1, 2, 2, 3, 3], [0, 0, 0, 0, 0, 0, 1, 1]
    assert grouped_alike(first, third) == pytest.approx(adjusted_rand([0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 2, 2]))
    assert grouped_alike(([0, 1], [0, 0]), ([0, 1], [0, 0])) is None
    with pytest.raises(ValueError, match="8 and 2 images cannot be the same ones"):
        grouped_alike(first, ([0, 1], [0, 0]))


# ---------------------------------------------------------------- refusals


def test_refusals():
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"no tap 'class\.coupling'"):
        collect(ConvNetAvgConfig(size=12, width=4, kernel=3).build(), pictures())
    none = six().select(torch.arange(0))
    with pytest.raises(ValueError, match="at least one image"):
        collect(Transparent(), none)
    with pytest.raises(ValueError, match="at least one image"):
        mean_couplings(Transparent(), none)
