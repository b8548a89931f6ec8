"""Sets that take affNIST apart: the places are those asked for, distortions alike at each, and a network that knows one
place alone is told from one that knows them all."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from capsnb.data import DataSpec, Split, prepare
from capsnb.data.pixels import ink_box, warp
from capsnb.data.transforms import Affine, Translated
from capsnb.measure import placement
from capsnb.measure.protocol import find
from capsnb.nn.models import Output

SPEC = DataSpec(resize=14, train=20, validation=10, test=60, derive=Translated(size=20, splits=("validation",)))


@pytest.fixture(scope="module")
def data():
    return prepare(SPEC)


def cut(images):
    """Each image's ink, from its first row and column on."""
    top, bottom, left, right = (found.tolist() for found in ink_box(images))
    return [
        image[:, t : b + 1, le : r + 1] for image, t, b, le, r in zip(images, top, bottom, left, right, strict=True)
    ]


@pytest.mark.parametrize("place", list(placement.PLACES))
def test_places_by_the_farther_axis_and_every_one_of_them(place):
    above, up_to = placement.PLACES[place]
    dots = torch.zeros(4000, 1, 20, 20, dtype=torch.uint8)
    dots[..., 9:11, 9:11] = 200
    moved, room = placement.placed(dots, above, up_to)
    assert room.all()
    top, _, left, _ = ink_box(moved)
    shifts = torch.stack((top - 9, left - 9), 1)
    wanted = {(y, x) for y in range(-up_to, up_to + 1) for x in range(-up_to, up_to + 1) if max(abs(y), abs(x)) > above}
    assert set(map(tuple, shifts.tolist())) == wanted
    counts = shifts.unique(dim=0, return_counts=True)[1]
    assert counts.max() < 2 * counts.min() + 20  # no place is preferred


def test_ink_is_never_lost_and_what_has_no_room_is_left_out():
    wide = torch.zeros(2, 1, 20, 20, dtype=torch.uint8)
    wide[0, :, 2:18, 2:18] = 9  # two pixels to each side, none farther
    wide[1, :, 8:12, 8:12] = 9
    moved, room = placement.placed(wide, 3, 5)
    assert room.tolist() == [False, True]
    assert int((moved > 0).sum()) == 16


def test_one_distortion_is_the_same_at_every_place(data):
    found = placement.parts(data, images=60)
    assert list(found)[:4] == ["upright", *placement.GENERATORS]
    for name in placement.DISTORTIONS:
        inner, *others = (found[f"{name}, {place}"] for place in placement.PLACES)
        for other in others:
            assert all(map(torch.equal, cut(inner.images), cut(other.images)))
    bare = [found[f"{name}, inner"].images for name in placement.DISTORTIONS]
    assert len({each.sum().item() for each in bare}) == len(bare)  # each changes something else


def test_the_same_digits_at_every_place_and_those_without_room_are_left_out(data):
    images = torch.zeros(4, 1, 20, 20, dtype=torch.uint8)
    images[:3, :, 8:12, 9:11] = 200
    images[3, :, 3:17, 3:17] = 200  # room in the middle alone
    made = replace(data, test=Split(images, torch.arange(4)))
    found = placement.parts(made, images=4)
    sets = [found[f"{name}, {place}"] for name in placement.DISTORTIONS for place in placement.PLACES]
    assert all(each.labels.tolist() == [0, 1, 2] for each in sets)
    assert len(found["a"]) == len(found["upright"]) == 4
    full = replace(made, test=Split(images[3:], torch.zeros(1, dtype=torch.long)))
    with pytest.raises(ValueError, match="no digit has room at every place"):
        placement.parts(full, images=1)


class OneClass(nn.Module):
    """Of two classes, right about class 0 where a rule on the image says so."""

    def __init__(self, rule):
        super().__init__()
        self.rule, self.weight = rule, nn.Parameter(torch.zeros(1))

    def forward(self, images):
        right = self.rule((images > 0).float()) + 0 * self.weight
        return Output(torch.stack((right, 0.5 + 0 * right), 1), None, None)


def in_the_middle(ink):
    rows, columns = ink.amax(3).squeeze(1), ink.amax(2).squeeze(1)
    at = [(each * torch.arange(28)).sum(1) / each.sum(1) - 13.5 for each in (rows, columns)]
    return ((at[0].abs() < 1.6) & (at[1].abs() < 1.6)).float()


def upright(ink):
    return (ink.flatten(1).sum(1) == 40).float()


@pytest.mark.parametrize(
    ("rule", "near", "far", "shifted"),
    [
        (lambda ink: torch.ones(len(ink)), 0, 0, 100),  # always right
        (in_the_middle, 0, 0, 0),  # never where it was not trained, warped or not
        (upright, 100, 100, 100),  # never warped, wherever
        (lambda ink: torch.maximum(in_the_middle(ink), upright(ink)), 0, 100, 100),  # warped ones in the middle alone
    ],
)
def test_what_a_warp_costs_where_digits_lay_and_elsewhere(rule, near, far, shifted):
    images = torch.zeros(30, 1, 28, 28, dtype=torch.uint8)
    images[:, :, 9:19, 12:16] = 200  # 10 x 4 pixels in the middle
    made = Split(images, torch.zeros(30, dtype=torch.long))
    whole = replace(prepare(DataSpec(train=20, validation=10, test=20)), test=made)
    found = find("warp by place")(OneClass(rule), whole)
    assert found["points lost by warp, near"] == near and found["points lost by warp, far"] == far
    assert found["none, near"] == 100 and found["none, far"] == shifted and found["digits"] == 30


def test_near_and_far_are_the_same_digits_and_those_without_room_are_left_out():
    images = torch.zeros(4, 1, 28, 28, dtype=torch.uint8)
    images[:3, :, 9:19, 12:16] = 200
    images[3] = 200  # no room at all
    made = replace(prepare(DataSpec(train=20, validation=10, test=20)), test=Split(images, torch.arange(4)))
    sets = placement.near_and_far(made, images=4)
    assert {len(each) for each in sets.values()} == {3}
    assert all(each.labels.tolist() == [0, 1, 2] for each in sets.values())
    top, _, left, _ = ink_box(sets["none, far"].images)
    away = torch.stack((top - 9, left - 12)).abs().amax(0)
    assert sorted(set(away.tolist())) in ([3], [4], [3, 4])
    for name in placement.DISTORTIONS:
        assert all(map(torch.equal, *(cut(sets[f"{name}, {place}"].images) for place in ("near", "far"))))
    full = replace(made, test=Split(images[3:], torch.zeros(1, dtype=torch.long)))
    with pytest.raises(ValueError, match="no image has room"):
        placement.near_and_far(full, images=1)


def test_a_warp_is_its_three_parts_and_none_is_the_digit(data):
    digits = data.test.images[:, :, 3:17, 3:17]
    assert torch.equal(placement.distorted(digits, (), 20), data.test.images)
    chosen = Affine(kind="a", size=20).transforms(torch.arange(len(digits)))
    whole = warp(digits, chosen.matrix, torch.zeros(len(digits), 2), 20, 20)
    assert torch.equal(placement.distorted(digits, placement.WARP, 20), whole)
    with pytest.raises(ValueError, match="no distortion 'blur'; there are: rotation, shear, scale"):
        placement.distorted(digits, ("blur",), 20)


class Middle(nn.Module):
    """Right where all ink lies within `reach` pixels of the middle of a canvas of 20, wrong elsewhere."""

    def __init__(self, reach):
        super().__init__()
        self.reach, self.none = reach, nn.Parameter(torch.zeros(1))

    def forward(self, images, labels=None):
        top, bottom, left, right = ink_box(images)
        off = torch.stack(((top + bottom - 19) / 2, (left + right - 19) / 2)).abs().amax(0)
        return Output(torch.stack((off <= self.reach, off > self.reach), 1).float(), None, None)


def test_a_network_that_knows_the_middle_alone_is_found_out(data):
    """Its answer is class 0 near the middle and class 1 elsewhere; every digit is made a 0."""
    zeros = Split(data.test.images, torch.zeros_like(data.test.labels))
    found = find("affine parts")(Middle(2.6), replace(data, test=zeros))
    for name in placement.DISTORTIONS:
        assert found[f"{name}, inner"] > found[f"{name}, outer"] + 60
    assert found["upright"] > found["none, outer"]


def test_other_data_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="has no digits in the middle of a larger canvas"):
        placement.parts(prepare(DataSpec(train=20, validation=10, test=10)), images=10)
