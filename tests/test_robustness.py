"""Accuracy against one factor, readings at an accuracy, derived test sets, counts: by loops and by hand."""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from capsnb import losses
from capsnb.evaluation import evaluate
from capsnb.measures import robustness as measure
from capsnb.models import ZOO, CapsNetConfig, ConvNetAvgConfig, ConvNetRConfig, StridedStem
from capsnb.routing import Uniform
from capsnb.synthesis import Affine, DataSpec, Translated, prepare
from capsnb.synthesis.factors import vary
from capsnb.training import Recipe, train

AVG = ConvNetAvgConfig(size=20, width=6, kernel=5)
HALF = DataSpec(resize=14, train=96, validation=40, test=60, derive=Translated(size=20, splits=("validation",)))


def build(config=AVG):
    torch.manual_seed(0)
    return config.build()


@pytest.fixture(scope="module")
def data():
    return prepare(HALF)


# ---------------------------------------------------------------- one factor at a time


def test_accuracy_against_equals_one_image_at_a_time(data):
    model, values = build(), (-8.0, 0.0, 15.0)
    expected = []
    for value in values:
        right = 0
        for image, label in zip(data.test.images, data.test.labels, strict=True):
            with torch.no_grad():
                right += int(model(vary(image[None], "rotation", value)).scores.argmax() == label)
        expected.append(right / len(data.test))
    found = measure.accuracy_against(model, data.test, "rotation", values, batch=7)
    assert_close(torch.tensor(found), torch.tensor(expected))
    assert found[1] == pytest.approx(evaluate(model, data.test).accuracy)
    assert measure.surface(model, data.test, {"rotation": values}) == {"rotation": pytest.approx(expected)}


def test_a_drop_by_hand():
    assert measure.drop([0.5, 0.9, 0.7], [0.8, 1.0, 1.2], "scale") == pytest.approx(0.9 - 0.7)
    with pytest.raises(ValueError, match="do not hold 0"):
        measure.drop([0.5], [4.0], "rotation")
    with pytest.raises(ValueError, match="2 accuracies"):
        measure.drop([0.5, 0.5], [0.0], "rotation")


def test_refusals_of_accuracy_against(data):
    with pytest.raises(ValueError, match="no values"):
        measure.accuracy_against(build(), data.test, "rotation", ())
    with pytest.raises(ValueError, match="no images"):
        measure.accuracy_against(build(), data.test.select(torch.arange(0)), "rotation", (0.0,))
    with pytest.raises(ValueError, match="twist"):
        measure.accuracy_against(build(), data.test, "twist", (0.0,))


# ---------------------------------------------------------------- derived sets and stop-at-accuracy readings


@pytest.mark.parametrize("derive", [Affine(kind="b", size=20, reach=4.0), Translated(size=20)])
def test_a_derived_set_equals_the_one_prepared_from_the_start(data, derive):
    model = build()
    found = measure.DerivedAccuracy(derive=derive, side=14).split(data)
    expected = prepare(replace(HALF, derive=derive)).test
    assert torch.equal(found.images, expected.images) and torch.equal(found.labels, expected.labels)
    assert measure.DerivedAccuracy(derive=derive, side=14)(model, data) == evaluate(model, expected).accuracy


def test_other_data_has_no_derived_accuracy():
    plain = prepare(replace(HALF, derive=None))
    assert measure.DerivedAccuracy(derive=Translated(size=20), side=14)(build(), plain) is None


def test_the_reach_of_affine_b():
    plain = prepare(DataSpec(train=50, validation=50, test=50))
    near, far = (replace(Affine(kind="b"), reach=reach)(plain).test.images for reach in (0.0, 8.0))
    assert torch.equal(far, Affine(kind="b")(plain).test.images) and not torch.equal(near, far)
    middle = near.float().sum(1)
    columns = (middle.sum(1) * torch.arange(40)).sum(1) / middle.sum((1, 2)) - 19.5
    assert columns.abs().max() < 8  # nobody is moved: only turned, sheared and scaled about the centre
    with pytest.raises(ValueError, match=r"Affine\.reach"):
        Affine(reach=-1.0)


ROWS = [
    {"step": 10, "mnist": 0.5, "aff": 0.2},
    {"step": 20, "mnist": 0.7, "aff": 0.6},
    {"step": 30, "mnist": 0.9, "aff": 0.5},
    {"step": 40, "mnist": 0.8, "aff": 0.9},
]


@pytest.mark.parametrize(
    ("target", "reading"),
    [
        (0.6, (0.4, 0.6, 20, True)),  # half way between two rows
        (0.75, (0.575, 0.75, 30, True)),  # a quarter
        (0.9, (0.5, 0.9, 30, True)),  # exactly a row
        (0.4, (0.2, 0.5, 10, True)),  # already at the first row
        (0.95, (0.5, 0.9, 30, False)),  # never: the best row
    ],
)
def test_readings_at_an_accuracy_by_hand(target, reading):
    found = measure.at_accuracy(ROWS, target, "mnist", "aff")
    assert found.value == pytest.approx(reading[0]) and found.watched == pytest.approx(reading[1])
    assert (found.step, found.reached) == reading[2:]


def test_rows_without_the_columns():
    assert measure.at_accuracy([{"mnist": None, "aff": None}, *ROWS], 0.9, "mnist", "aff").step == 30
    with pytest.raises(ValueError, match="'mnist' and 'other'"):
        measure.at_accuracy(ROWS, 0.9, "mnist", "other")
    assert measure.highest_common([ROWS, ROWS[:2]], "mnist") == 0.7
    with pytest.raises(ValueError, match="no runs"):
        measure.highest_common([], "mnist")


def test_a_stopped_training_ends_where_the_reading_says(data):
    """Nothing in a training depends on its evaluations, so that one run serves every target."""
    recipe = Recipe(epochs=3, batch=16, loss="cross-entropy", learning_rate=1e-2)
    rows = list(train(build(), data, recipe, every=3, device="cpu", progress=False))
    target = sorted(row["validation accuracy"] for row in rows)[len(rows) // 2]
    stopped = list(train(build(), data, replace(recipe, target_accuracy=target), every=3, device="cpu", progress=False))
    reading = measure.at_accuracy(rows, target, "validation accuracy", "validation accuracy")
    assert len(stopped) < len(rows) and stopped[-1]["step"] == reading.step
    assert [row["loss"] for row in stopped] == [row["loss"] for row in rows[: len(stopped)]]


# ---------------------------------------------------------------- counts, clouds, the loss of Table 4


@pytest.mark.parametrize("name", ["capsnet-40", "aff-capsnet-40", "convnet-avg-40", "convnet-fc-lk-36", "convnet-r"])
def test_parameters_are_counted_without_memory(name):
    assert measure.parameters(ZOO[name].config) == ZOO[name].parameters


@pytest.mark.parametrize("kernel", [3, 5, 7, 9, 11])
def test_convnet_cr_sf_is_capsnet_without_routing_at_every_kernel(kernel):
    """Gu et al. 2021, sec. 3.3: the same function once the weights are copied, the votes being summed as they are."""
    config = ConvNetRConfig(size=23, classes=3, width=8, kernel=kernel, dim=4, primary_dim=4, decoder="none")
    stem = StridedStem(channels=8, kernel=kernel, types=2, dim=4)
    nor = CapsNetConfig(size=23, classes=3, dim=4, stem=stem, routing=Uniform(value="1"), decoder="none")
    first, second = build(config).double(), build(nor).double()
    with torch.no_grad():
        second.conv1.load_state_dict(first.conv1.state_dict())
        second.primary.load_state_dict(first.primary.state_dict())
        linear, transforms = first.get_submodule("class").linear.weight, second.get_submodule("class").weight
        transforms.copy_(linear.T.reshape(transforms.shape))
        images = torch.rand(2, 1, 23, 23, dtype=torch.float64)
        assert_close(first(images).scores, second(images).scores)
    assert measure.parameters(config) == measure.parameters(nor)


def test_clouds_are_the_poses_of_the_true_class(data):
    model = build(CapsNetConfig(size=20, dim=2, stem=StridedStem(channels=8, types=1, kernel=5), decoder="none"))
    found = measure.pose_clouds(model, data.test, (0, 3), batch=16)
    with torch.no_grad():
        poses = model.eval()(data.test.images).poses
    assert_close(found[3], poses[data.test.labels == 3, 3])
    assert found[0].shape == (6, 2)
    with pytest.raises(ValueError, match="class 3"):
        measure.pose_clouds(model, data.test.select((data.test.labels != 3).nonzero().flatten()), (0, 3))
    with pytest.raises(ValueError, match="no poses"):
        measure.pose_clouds(build(), data.test, (0,))


def test_binary_cross_entropy_of_lengths_by_hand():
    lengths = torch.tensor([[0.9, 0.2, 0.4]], dtype=torch.float64)
    one = -(math.log(0.9) + math.log(0.8) + math.log(0.6))
    two = -(math.log(0.9) + math.log(0.2) + math.log(0.6))
    loss = losses.LOSSES["length-bce"]
    assert loss(lengths, torch.tensor([0])).item() == pytest.approx(one)
    assert loss(lengths, torch.tensor([[1, 0]])).item() == pytest.approx(two)
    assert loss(torch.tensor([[1.0000001, 0.0]]), torch.tensor([0])).item() == pytest.approx(0.0)
