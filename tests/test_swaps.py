"""Swapped sets on networks where it is known what an image is answered with another class's units."""

from dataclasses import replace

import pytest
import torch
from toys import TwoPaths, two_path_images

from capsnb.data import Split
from capsnb.measure.paths import Ranking, Reading
from capsnb.measure.swaps import other_class, swap

# capsules 0 and 1 vote for class 0, 2 and 3 for class 1; all are active, those of the own class more so
IMAGES = two_path_images([[1.0, 0.9, 0.5, 0.4], [0.9, 0.8, 0.4, 0.3], [0.5, 0.4, 1.0, 0.9], [0.3, 0.4, 0.8, 0.9]])
SPLIT = Split(IMAGES, torch.tensor([0, 0, 1, 1]))
OWN = Ranking(torch.ones(2, 4), torch.tensor([[4.0, 3, 2, 1], [2.0, 1, 4, 3]]), torch.tensor([2.0, 2.0]))


def shares(found):
    return {name: part.tolist() for name, part in zip(found._fields[1:], found[1:], strict=True)}


@pytest.mark.parametrize("sets", ["class", "image"])
def test_where_each_unit_votes_for_one_class_the_set_is_the_answer_until_all_units_are_left(sets):
    found = shares(swap(TwoPaths(), SPLIT, OWN, Reading(sets=sets), units=(1, 2, 4, None)))
    assert found["own"] == [1, 1, 1, 1]
    assert found["set"] == [1, 1, 0, 0], "one or two units of the other class say that class, whatever the image"
    assert found["image"] == [0, 0, 1, 1]
    assert found["null_image"][2:] == [1, 1], "all units at random are all units"


def test_where_the_other_class_s_units_are_silent_the_image_is_followed_by_what_is_left():
    """Three units: both of the other class and the best of the own, which alone is active."""
    silent = Split(two_path_images([[1.0, 0.9, 0.0, 0.0], [0.0, 0.0, 1.0, 0.9]]), torch.tensor([0, 1]))
    found = shares(swap(TwoPaths(), silent, OWN, Reading(), units=(3,)))
    assert found["image"] == [1] and found["set"] == [0]


def test_scores_do_not_depend_on_how_many_images_go_at_once():
    many = Split(IMAGES.repeat(5, 1, 1, 1), SPLIT.labels.repeat(5))
    one, all_ = (swap(TwoPaths(), many, OWN, Reading(), units=(1, 3), seed=3, batch=size) for size in (2, 500))
    assert shares(one) == shares(all_)


def test_random_units_answer_as_chance_has_it():
    many = Split(IMAGES[:1].repeat(2000, 1, 1, 1), torch.arange(2000) % 2)
    found = swap(TwoPaths(), many, OWN, Reading(), units=(1,))
    assert abs(found.null_image.item() - 0.5) < 0.05 and abs(found.null_set.item() - 0.5) < 0.05


def test_each_image_is_paired_with_one_of_another_class():
    labels = torch.tensor([0, 1, 2, 2, 1, 0, 0])
    partner = other_class(labels, seed=1)
    assert (labels[partner] != labels).all() and torch.equal(partner, other_class(labels, seed=1))
    with pytest.raises(ValueError, match="cannot be swapped among images of one class"):
        other_class(torch.zeros(3, dtype=torch.long))


def test_a_set_of_all_images_belongs_to_nobody():
    with pytest.raises(ValueError, match="sets = 'all' belong to nobody and cannot be swapped; allowed: class, image"):
        swap(TwoPaths(), SPLIT, OWN, replace(Reading(), sets="all"), units=(1,))
