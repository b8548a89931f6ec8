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
        inner, middle = (found[f"{name}, {place}"] for place in ("inner", "middle"))
        assert all(map(torch.equal, cut(inner.images), cut(middle.images)))
        assert torch.equal(inner.labels, data.test.labels)
    bare = [found[f"{name}, inner"].images for name in placement.DISTORTIONS]
    assert len({each.sum().item() for each in bare}) == len(bare)  # each changes something else


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
