"""What keys say image by image: couplings, keys and pixels whose answers are worked out by hand."""

import math

import numpy as np
import pytest
import torch
from test_dictionary import Transparent, six
from test_key_statistics import coupled, image_set

from capsnb.data import DataSpec, prepare
from capsnb.measure import dictionary, key_contents, perturbation
from capsnb.measure.protocol import find
from capsnb.nn.models import CapsNetConfig, StridedStem

# in tenths, to the predicted class: (10, 5), (10, 5), (6, 10) of class 0; (5, 10) of class 1
FOUR = coupled(
    [[[250, 0], [125, 125]], [[245, 5], [125, 125]], [[150, 100], [250, 0]], [[125, 125], [0, 250]]], (0, 0, 1, 1)
)


def test_images_keys_entropy_and_bound_of_each_class():
    values = find("trees by class")(Transparent(), image_set(FOUR))
    two_thirds = -(2 / 3) * math.log2(2 / 3) - (1 / 3) * math.log2(1 / 3)
    assert values["images"] == [3, 1] and values["keys"] == [2, 1]
    assert values["entropy"] == pytest.approx([two_thirds, 0]) and values["bound"] == pytest.approx([math.log2(3), 0])
    assert values["accuracy"] == 3 / 4 and values["share"] == pytest.approx(two_thirds / math.log2(3))


def test_trees_are_those_of_a_part_of_the_test_images_balanced_by_class():
    split = FOUR.select(torch.tensor([0, 0, 0, 3, 3]))
    values = find("trees by class")(Transparent(), image_set(split), images=4)
    assert values["images"] == [2, 2] and values["keys"] == [1, 1] and values["share"] == 0
    found = dictionary.trees(dictionary.collect(Transparent(), split))
    whole = find("trees by class")(Transparent(), image_set(split))
    assert {name: tuple(values) for name, values in whole.items() if isinstance(values, list)} == found._asdict()


def test_quantiles_of_mean_couplings_by_hand_and_a_class_without_images():
    # class 0, quantised: the first capsule 1, 1, 0.6, the second 0.5, 0.5, 1
    values = find("mean couplings")(Transparent(), image_set(FOUR))
    first, second = values["quantiles"]
    assert len(first) == key_contents.QUANTILES
    assert first[0] == pytest.approx(2 / 3, abs=1e-5) and first[-1] == pytest.approx(2.6 / 3, abs=1e-5)
    assert first[50] == pytest.approx(2.3 / 3, abs=1e-5)  # half-way between the two
    assert second[0] == 0.5 and second[-1] == 1
    lacking = find("mean couplings")(Transparent(), image_set(FOUR.select(torch.arange(3))))["quantiles"]
    assert lacking == [first, [None] * key_contents.QUANTILES]


def test_known_and_new_keys_who_is_right_and_how_even():
    train = FOUR.select(torch.tensor([0, 3]))
    values = find("known keys")(Transparent(), image_set(FOUR, train))
    # known: the first two (one key) and the last; new: the third, of class 0 by the network, of class 1 in truth
    assert values["known"] == 3 / 4
    assert values["right, known"] == 1 and values["right, new"] == 0
    assert values["even, known"] == 1 / 2 and values["even, new"] == 0  # 1/J is 0.5: one of two couplings
    alone = find("known keys")(Transparent(), image_set(FOUR, FOUR))
    assert alone["known"] == 1 and alone["right, new"] is None and alone["even, new"] is None


def test_the_variance_that_is_gone_within_keys_against_its_definition():
    rng = np.random.default_rng(0)
    classes, codes = np.repeat([0, 1, 2], (9, 8, 2)), np.array([0, 0, 0, 1, 1, 1, 2, 2, 3, *[4] * 4, *[5] * 4, 6, 7])
    pixels = rng.random((19, 5)) + codes[:, None]
    inner = expected = 0.0
    for label in (0, 1):  # the two images of class 2 are alone with their keys
        own = classes == label
        for code in set(codes[own]):
            group = pixels[own & (codes == code)]
            inner += ((group - group.mean(0)) ** 2).sum()
        freedom = own.sum() - len(set(codes[own]))
        expected += freedom * ((pixels[own] - pixels[own].mean(0)) ** 2).sum() / (own.sum() - 1)
    assert key_contents.explained(pixels, codes, classes) == pytest.approx(1 - inner / expected)
    assert 0.7 < key_contents.explained(pixels, codes, classes) < 1
    assert key_contents.explained(pixels, np.arange(19), classes) is None
    # the images of a group are the same in every pixel
    assert key_contents.explained(codes[:, None] * 1.0, codes, classes) == 1


def test_keys_at_random_explain_nothing_on_average():
    rng = np.random.default_rng(1)
    classes, codes, pixels = np.zeros(400, int), rng.integers(0, 20, 400), rng.random((400, 30))
    assert key_contents.explained(pixels, codes, classes) == pytest.approx(0, abs=0.02)


def test_images_of_one_key_are_counted_and_compared_with_shuffled_keys():
    values = find("images of a key")(Transparent(), image_set(FOUR))
    assert values["alone"] == 2 / 4
    assert values["explained"] > 0.9, "the two images of one key differ by five 255ths of two pixels"
    assert values["null: keys at random"] < values["explained"]
    apart = find("images of a key")(Transparent(), image_set(six()))
    assert apart == {"explained": None, "null: keys at random": None, "alone": 1}


def test_clusters_of_a_key_are_those_of_the_dictionary_as_pictures():
    values = find("clusters of a key")(Transparent(), image_set(FOUR), labels=(0, 1), top=1)
    assert values["counts"] == [[2], [1]] and values["largest"] == 2
    keys = dictionary.collect(Transparent(), FOUR)
    for label, row in enumerate(values["pictures"]):
        (cluster,) = dictionary.clusters(keys, FOUR, label, top=1)
        assert row[0].dtype == np.uint8 and row[0].shape == FOUR.images.shape[1:]
        assert np.array_equal(row[0], (255 * cluster.overlay).round().byte().numpy())


def test_what_is_redrawn_beyond_the_class_is_that_of_the_perturbation():
    torch.manual_seed(0)
    model = CapsNetConfig(size=14, stem=StridedStem(channels=4, kernel=5, types=2), decoder_widths=(8,)).build()
    digits = prepare(DataSpec(resize=14, train=60, validation=20, test=30))
    values = find("beyond the class")(model, digits)
    assert values == {"share": perturbation.kept_beyond_class(model, digits)}
