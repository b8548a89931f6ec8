"""Activation statistics against a direct computation, intervals of a toy known by hand, refusals."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from capsnb.data import Split
from capsnb.measure.intervals import Intervals, activation_statistics, class_intervals
from capsnb.nn import taps
from capsnb.nn.models import Output


class Toy(nn.Module):
    """Class poses (B, 2, 2) that are the four pixels of an image, in tens, less 3."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.1))
        self.poses = taps.Tap()

    def forward(self, images):
        poses = self.poses(images.float().flatten(1).unflatten(1, (2, 2)) * self.scale - 3)
        return Output(poses.norm(dim=-1), poses, None)


def split(rows, labels):
    images = torch.tensor(rows, dtype=torch.uint8).view(-1, 1, 2, 2)
    return Split(images, torch.tensor(labels))


class Pairs(Split):
    """Two labels per image."""

    def to(self, device):
        return self

    def batches(self, size):
        for batch in super().batches(size):
            yield batch._replace(labels=torch.stack([batch.labels, batch.labels], 1))


# class 0 shows its own pose in pixels 0 and 1, class 1 in pixels 2 and 3
HAND = split([[10, 40, 200, 0], [50, 20, 0, 250], [0, 200, 60, 30]], [0, 0, 1])


def test_the_intervals_of_a_toy_known_by_hand():
    found = activation_statistics(Toy(), HAND, ["poses", "|poses|"])
    intervals = class_intervals(found["poses"])
    assert_close(torch.stack([intervals.low, intervals.high], 1), torch.tensor([[-2.0, 2.0], [0.0, 3.0]]).double())
    assert intervals.alpha == pytest.approx((-2, 3))
    # own lengths: |(-2, 1)| and |(2, -1)| are both sqrt 5; |(3, 0)| is 3
    lengths = class_intervals(found["|poses|"])
    assert_close(lengths.low, torch.tensor([5**0.5, 3.0]).double())
    assert_close(lengths.high, torch.tensor([5**0.5, 3.0]).double())


def test_steps_are_twelve_with_both_ends_as_in_figure_9():
    statistics = activation_statistics(Toy(), HAND, ["poses"])["poses"]
    steps = class_intervals(statistics).steps(0)
    assert len(steps) == 12 and steps[0] == -2 and steps[-1] == 2
    assert steps[1] - steps[0] == pytest.approx(4 / 11)
    assert class_intervals(statistics).steps(count=3).tolist() == pytest.approx([-2, 0.5, 3])


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_streaming_equals_all_at_once(batch):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 1, 2, 2), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 3, (60,), generator=generator)
    model = Toy()
    found = activation_statistics(model, Split(images, labels), ["poses"], classes=4, batch=batch)["poses"]
    poses = model(images).poses.detach().double()
    for label in range(3):
        own = poses[labels == label]
        assert_close(found.low[label], own.amin(0))
        assert_close(found.high[label], own.amax(0))
    assert found.low[3].isinf().all()


def test_refuses():
    statistics = activation_statistics(Toy(), HAND, ["poses"], classes=3)["poses"]
    with pytest.raises(ValueError, match=r"needs statistics \(K, K, ...\), not \(3, 2, 2\)"):
        class_intervals(statistics)
    unseen = Intervals(torch.tensor([0.0, torch.inf]), torch.tensor([1.0, -torch.inf]))
    with pytest.raises(ValueError, match="class 1 has no interval"):
        unseen.steps(1)
    with pytest.raises(ValueError, match="1 steps do not span"):
        unseen.steps(0, 1)
    with pytest.raises(ValueError, match="no tap 'pose'"):
        activation_statistics(Toy(), HAND, ["pose"])
    with pytest.raises(ValueError, match="no images"):
        activation_statistics(Toy(), HAND.select(torch.arange(0)), ["poses"])
    pairs = Pairs(HAND.images, HAND.labels)
    with pytest.raises(ValueError, match="each image needs one label"):
        activation_statistics(Toy(), pairs, ["poses"], classes=2)
