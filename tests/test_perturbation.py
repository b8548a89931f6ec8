"""The perturbation grid of Sabour et al. 2017: against a loop, one picture at a time, and its refusals."""

import pytest
import torch
from torch.testing import assert_close

from capsnb import measure
from capsnb.data import ImageSet, Split
from capsnb.measure.perturbation import (
    STEPS,
    kept_beyond_class,
    perturbation_grid,
    perturbed_accuracy,
    pose_directions,
)
from capsnb.nn import taps
from capsnb.nn.models import CapsNetConfig, ConvNetAvgConfig, Output, StridedStem, decode

SMALL = CapsNetConfig(
    size=20, classes=3, dim=4, stem=StridedStem(channels=4, types=2), decoder_widths=(8, 12), channels=2
)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 2, 20, 20, generator=torch.Generator().manual_seed(3))


def build(config=SMALL):
    torch.manual_seed(0)
    return config.build()


def one_at_a_time(model, images, labels, values, change="addition"):
    """Slow reference: every picture by its own call of the decoder."""
    with torch.no_grad():
        poses = model(images).poses
        rows = []
        for image, label in enumerate(labels.tolist()):
            for dim in range(poses.shape[-1]):
                for step in range(values.shape[1]):
                    changed = poses[image : image + 1].clone()
                    if change == "addition":
                        changed[0, label, dim] += values[dim, step]
                    else:
                        changed[0, label, dim] = values[dim, step]
                    rows.append(decode(model, changed, torch.tensor([label]))[0])
    return torch.stack(rows).unflatten(0, (len(images), *values.shape))


def test_the_steps_are_those_of_the_paper():
    assert STEPS == (-0.25, -0.2, -0.15, -0.1, -0.05, 0.0, 0.05, 0.1, 0.15, 0.2, 0.25)


@pytest.mark.parametrize("decoder", ["conditional", "plain"])
@pytest.mark.parametrize("own", [False, True], ids=["one row of steps", "a row per dimension"])
def test_equals_one_picture_at_a_time(images, decoder, own):
    model = build(CapsNetConfig(**{**vars(SMALL), "decoder": decoder}))
    labels = torch.tensor([2, 0])
    values = torch.linspace(-1, 1, 20).view(4, 5) if own else torch.tensor([-0.3, 0.0, 0.5])
    grid = perturbation_grid(model, images, labels, values)
    assert grid.shape == (2, 4, values.shape[-1], 2, 20, 20)
    assert_close(grid, one_at_a_time(model, images, labels, values.expand(4, -1)))


def test_replacement_sets_the_dimension(images):
    model, labels, values = build(), torch.tensor([2, 0]), torch.linspace(-1, 1, 20).view(4, 5)
    grid = perturbation_grid(model, images, labels, values, change="replacement")
    assert_close(grid, one_at_a_time(model, images, labels, values, "replacement"))


def test_a_length_is_set_in_the_direction_of_the_pose(images):
    model, labels = build(), torch.tensor([1, 1])
    poses = model(images).poses.detach()
    grid = perturbation_grid(model, images, labels, [0.0, 0.7], change="length")
    assert grid.shape == (2, 1, 2, 2, 20, 20)
    poses[:, 1] *= 0.7 / poses[:, 1].norm(dim=-1, keepdim=True)
    assert_close(grid[:, 0, 1], decode(model, poses, labels))
    poses[:, 1] = 0
    assert_close(grid[:, 0, 0], decode(model, poses, labels))


@pytest.mark.parametrize("change", ["addition", "replacement"])
def test_directions_turn_the_axes(images, change):
    model, labels = build(), torch.tensor([2, 0])
    axes = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)))[0][:2]
    grid = perturbation_grid(model, images, labels, [-0.4, 0.3], change=change, directions=axes)
    assert grid.shape[:3] == (2, 2, 2)
    poses = model(images).poses.detach()
    own = poses[0, 2]
    along = own @ axes[1] if change == "replacement" else 0
    poses[0, 2] = own + (0.3 - along) * axes[1]
    assert_close(grid[0, 1, 1], decode(model, poses[:1], labels[:1])[0])
    same = perturbation_grid(model, images, labels, [-0.4, 0.3], change=change, directions=torch.eye(4))
    assert_close(same, perturbation_grid(model, images, labels, [-0.4, 0.3], change=change))


@pytest.mark.parametrize("batch", [3, 500])
def test_accuracy_on_its_own_perturbed_pictures(batch):
    model = build()
    pixels = torch.randint(0, 256, (5, 2, 20, 20), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    split = Split(pixels, torch.tensor([0, 1, 2, 1, 0]))
    values = torch.tensor([-2.0, 0.1, 2.0])
    grid = perturbation_grid(model, split.images, split.labels, values, change="replacement")
    with torch.no_grad():
        guesses = model(grid.flatten(0, 2)).scores.argmax(1).view(5, 4, 3)
    expected = (guesses == split.labels[:, None, None]).float().mean(0)
    assert_close(perturbed_accuracy(model, split, values, batch=batch), expected)
    assert 0 < expected.mean() < 1
    with pytest.raises(ValueError, match="no images"):
        perturbed_accuracy(model, split.select(torch.arange(0)), values)


def test_directions_of_poses_on_a_line():
    line = torch.tensor([3.0, -4.0]) / 5
    poses = torch.tensor([-2.0, 0.0, 2.0])[:, None] * line + torch.tensor([1.0, 2.0])
    found = pose_directions(poses)
    assert_close(found.axes, torch.tensor([[-0.6, 0.8], [0.8, 0.6]]))
    assert_close(found.std, torch.tensor([2.0, 0.0]), atol=1e-6, rtol=0)
    assert_close(found.mean, torch.tensor([1.0, 2.0]))  # (1, 2) along (-0.6, 0.8) and (0.8, 0.6)
    assert_close(found.steps(3), torch.tensor([[-3.0, 1.0, 5.0], [2.0, 2.0, 2.0]]))
    even = found.evened()
    assert_close(even.std, torch.full((2,), 2**0.5))  # the total variance is what it was
    assert_close(even.axes, found.axes)
    plain = pose_directions(poses, torch.eye(2))
    assert_close(plain.axes, torch.eye(2))
    assert_close(plain.std, torch.tensor([1.2, 1.6]))
    assert_close(plain.steps(3, reach=1), torch.tensor([[-0.2, 1.0, 2.2], [0.4, 2.0, 3.6]]))
    with pytest.raises(ValueError, match="at least 2 images"):
        pose_directions(poses[:1])


def test_a_step_of_zero_is_the_reconstruction(images):
    model = build()
    labels = torch.tensor([1, 2])
    grid = perturbation_grid(model, images, labels)
    rebuilt = model(images, labels).reconstruction
    assert_close(grid[:, :, STEPS.index(0)], rebuilt[:, None].expand(-1, 4, -1, -1, -1))
    assert not torch.equal(grid[:, 0, 0], grid[:, 0, -1])


def test_without_labels_the_longest_pose_is_changed(images):
    model = build()
    assert_close(perturbation_grid(model, images), perturbation_grid(model, images, model(images).scores.argmax(1)))


def test_bytes_are_pixels_and_modes_come_back(images):
    model = build().train()
    whole = (images * 255).to(torch.uint8)
    assert_close(perturbation_grid(model, whole), perturbation_grid(model, whole / 255))
    assert model.training


def test_edits_reach_the_grid(images):
    model = build()
    with taps.edit(model, {"reconstruction": torch.zeros_like}):
        assert not perturbation_grid(model, images).any()


@pytest.mark.parametrize(
    ("config", "options", "sentence"),
    [
        (CapsNetConfig(**{**vars(SMALL), "decoder": "none"}), {}, "CapsNet has no decoder"),
        (ConvNetAvgConfig(channels=2, size=20), {}, "ConvNetAvg has no decoder"),
        (SMALL, {"labels": torch.tensor([1])}, r"2 images need labels \(2,\), not \(1,\)"),
        (SMALL, {"labels": torch.zeros(2, 2, dtype=torch.int64)}, r"not \(2, 2\)"),
        (SMALL, {"values": torch.zeros(3, 5)}, r"values are \(S,\) or \(4, S\)"),
        (SMALL, {"values": 0.1}, r"values are \(S,\)"),
        (SMALL, {"change": "swap"}, "change 'swap' is unknown; allowed: addition, replacement, length"),
        (SMALL, {"directions": torch.zeros(2, 3)}, r"directions are \(M, 4\) .* not \(2, 3\)"),
        (SMALL, {"change": "length", "directions": torch.eye(4)}, "a length has no directions"),
        (SMALL, {"change": "length", "values": torch.zeros(4, 2)}, r"values are \(S,\) or \(1, S\)"),
    ],
)
def test_refuses(images, config, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        perturbation_grid(build(config), images, **options)


class Redraws(torch.nn.Module):
    """A model whose reconstruction is `share` of the way from its class's mean image (0.2 or 0.6) to the image."""

    def __init__(self, share):
        super().__init__()
        self.share = torch.nn.Parameter(torch.tensor(share))

    def forward(self, images, labels):
        means = torch.tensor([0.2, 0.0, 0.6])[labels][:, None, None, None]
        return Output(None, None, means + self.share * (images / 255 - means))


@pytest.mark.parametrize(("share", "kept"), [(0.0, 0.0), (1.0, 1.0), (0.5, 0.75)])
def test_kept_beyond_class(share, kept):
    labels = torch.tensor([0, 0, 2, 2])  # nobody is of class 1
    train = torch.tensor([31, 71, 144, 162], dtype=torch.uint8)[:, None, None, None].expand(4, 1, 3, 3)
    test = torch.tensor([10, 90, 140, 200], dtype=torch.uint8)[:, None, None, None].expand(4, 1, 3, 3)
    data = ImageSet("toy", "", ("a", "b", "c"), Split(train, labels), Split(train, labels), Split(test, labels))
    assert kept_beyond_class(Redraws(share), data, batch=3) == pytest.approx(kept, abs=1e-5)


def test_measures_say_what_they_are():
    assert measure.__doc__
