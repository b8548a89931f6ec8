"""Accuracy against one factor, readings at an accuracy, derived test sets, counts: by loops and by hand."""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from capsnb import plot
from capsnb.data import DataSpec, prepare
from capsnb.data.transforms import Affine, Pairs, Translated
from capsnb.data.transforms.factors import vary
from capsnb.evidence import comparison
from capsnb.measure import robustness as measure
from capsnb.measure.protocol import find
from capsnb.nn import losses
from capsnb.nn.models import ZOO, CapsNetConfig, ConvNetAvgConfig, ConvNetRConfig, StridedStem, count_parameters
from capsnb.nn.routing import Uniform
from capsnb.training.evaluation import evaluate
from capsnb.training.loop import train
from capsnb.training.recipe import Recipe

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
    found = measure.derived_split(data, derive, side=14)
    expected = prepare(replace(HALF, derive=derive)).test
    assert torch.equal(found.images, expected.images) and torch.equal(found.labels, expected.labels)
    expected = evaluate(model, expected).accuracy
    assert find("derived accuracy")(model, data, derive=derive, side=14) == {"value": expected}


def test_other_data_has_no_derived_accuracy():
    plain = prepare(replace(HALF, derive=None))
    assert find("derived accuracy")(build(), plain, derive=Translated(size=20), side=14) == {"value": None}


def test_the_reach_of_affine_b():
    plain = prepare(DataSpec(train=50, validation=50, test=50))
    near, far = (replace(Affine(kind="b"), reach=reach)(plain).test.images for reach in (0.0, 8.0))
    assert torch.equal(far, Affine(kind="b")(plain).test.images) and not torch.equal(near, far)
    middle = near.float().sum(1)
    columns = (middle.sum(1) * torch.arange(40)).sum(1) / middle.sum((1, 2)) - 19.5
    assert columns.abs().max() < 8  # nobody is moved: only turned, sheared and scaled about the centre
    with pytest.raises(ValueError, match=r"Affine\.reach"):
        Affine(reach=-1.0)


def test_a_stopped_training_ends_where_the_target_is_reached(data):
    """Nothing in a training depends on its evaluations, so that one run serves every target."""
    recipe = Recipe(epochs=3, batch=16, loss="cross-entropy", learning_rate=1e-2, report_every=3)
    rows = list(train(build(), data, recipe, device="cpu", progress=False))
    target = sorted(row["validation accuracy"] for row in rows)[len(rows) // 2]
    stopped = list(train(build(), data, replace(recipe, target_accuracy=target), device="cpu", progress=False))
    reached = next(row["step"] for row in rows if row["validation accuracy"] >= target)
    assert len(stopped) < len(rows) and stopped[-1]["step"] == reached
    assert [row["loss"] for row in stopped] == [row["loss"] for row in rows[: len(stopped)]]


# ---------------------------------------------------------------- counts, clouds, the loss of Table 4


@pytest.mark.parametrize("name", ["capsnet-40", "aff-capsnet-40", "convnet-avg-40", "convnet-fc-lk-36", "convnet-r"])
def test_parameters_are_counted_without_memory(name):
    assert count_parameters(ZOO[name].config) == ZOO[name].parameters


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
    assert count_parameters(config) == count_parameters(nor)


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


def test_clouds_as_a_measure_are_rounded_and_of_the_first_images(data):
    model = build(CapsNetConfig(size=20, dim=2, stem=StridedStem(channels=8, types=1, kernel=5), decoder="none"))
    found = find("pose clouds")(model, data, classes=(0, 3))
    whole = measure.pose_clouds(model, data.test, (0, 3))
    assert list(found) == ["0", "3"]
    assert_close(torch.tensor(found["3"]), whole[3], atol=6e-4, rtol=0)
    assert len(find("pose clouds")(model, data, classes=(0,), images=20)["0"]) < len(found["0"])


def test_binary_cross_entropy_of_lengths_by_hand():
    lengths = torch.tensor([[0.9, 0.2, 0.4]], dtype=torch.float64)
    one = -(math.log(0.9) + math.log(0.8) + math.log(0.6))
    two = -(math.log(0.9) + math.log(0.2) + math.log(0.6))
    loss = losses.LOSSES["length-bce"]
    assert loss(lengths, torch.tensor([0])).item() == pytest.approx(one)
    assert loss(lengths, torch.tensor([[1, 0]])).item() == pytest.approx(two)
    assert loss(torch.tensor([[1.0000001, 0.0]]), torch.tensor([0])).item() == pytest.approx(0.0)


# ---------------------------------------------------------------- what the notebook makes of its runs


RUNS = {"affine/a": {0: 1}, "affine/b": {0: 2}, "overlap/a": {}}


def test_groups():
    assert comparison.group(RUNS, "affine") == {"a": {0: 1}, "b": {0: 2}} and comparison.group(RUNS, "none") == {}


def test_paired_differences_by_hand():
    values = {"x": {0: 5.0, 1: 6.0, 2: 7.0}, "y": {0: 4.0, 1: 4.0, 2: 4.0, 3: 0.0}, "z": {0: 1.0}}
    found = comparison.paired(values, "x", "y")
    assert found["differences"] == [1.0, 2.0, 3.0]
    assert found["interval"] == pytest.approx((2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5), abs=1e-3)  # t(2) = 4.303
    assert comparison.paired(values, "x", "z") == {"differences": [4.0], "interval": None}
    assert comparison.paired(values, "x", "none") == {}


def test_compare_shows_what_was_not_run():
    recorded, ran = {"a": {0: 60.0}, "d": {0: 2.0}}, {"a": {0: 50.0, 1: 52.0}, "b": {}}
    shown = comparison.compare({"a": 66.0, "c": 1.0}, recorded, ran)
    assert shown.loc["a"].tolist() == ["66.0", "60 (n=1)", "51 ± 1.4 (n=2)"]
    assert shown.loc["b"].tolist() == ["-", "not run", "not run"]
    assert shown.loc["c"].tolist() == ["1.0", "not run", "not run"]
    assert shown.loc["d"].tolist() == ["-", "2 (n=1)", "not run"]  # recorded alone


def test_percent_of_pairs_needs_both_digits():
    spec = DataSpec(resize=14, train=40, validation=40, test=40, derive=Pairs(size=18, shift=2, train=40))
    split, model = prepare(spec).test, build(replace(AVG, size=18))
    right = 0
    for number in range(len(split)):
        batch = split.batch(torch.tensor([number]))
        with torch.no_grad():
            top = model(batch.images).scores[0].topk(2).indices
        right += set(top.tolist()) == set(batch.labels[0].tolist())
    assert measure.percent(model, split, batch=7) == pytest.approx(100 * right / len(split))


def test_nothing_is_recorded_for_unknown_claims():
    assert comparison.recorded_values("05", ["no such claim"]) == {}


# ---------------------------------------------------------------- figures, by their artists


def test_effects_have_a_dot_per_seed_and_a_published_diamond():
    effects = {"a": {"differences": [1.0, 2.0], "interval": (0.5, 2.5), "published": -3.0}, "b": {"recorded": [4.0]}}
    ax = plot.paired_effects(effects)
    drawn = [line.get_xdata() for line in ax.lines]
    assert [list(x) for x in drawn[1:]] == [[-3.0], [1.0, 2.0], [4.0]]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"]


def test_curves_are_in_percent():
    figure = plot.factor_curves({"m": {"scale": [0.5, 1.0]}}, {"scale": (0.9, 1.0)}, neutral={"scale": 1.0})
    assert figure.axes[0].lines[1].get_ydata().tolist() == [50.0, 100.0]


def test_what_a_place_costs_is_the_line_between_its_two_means():
    there = {"middle": [90.0, 92.0], "outer": {0: 60.0, 1: 64.0}}
    figure = plot.two_places({"none": {"a": there, "b": there}, "warp": {"a": there, "b": there}}, chance=10.0)
    first = figure.axes[0]
    assert [label.get_text() for label in first.get_yticklabels()] == ["a", "b"]
    lines = [line for line in first.lines if len(line.get_xdata()) == 2 and len(set(line.get_xdata())) == 2]
    assert [list(line.get_xdata()) for line in lines if line.get_marker() == "None"] == [[91.0, 62.0]] * 2
    assert len(figure.axes) == 2


def test_accuracy_against_a_setting_has_dots_means_and_what_is_printed():
    ran = {"m": {10: {0: 50.0, 1: 60.0}, 1: {0: 40.0}, 100: {}}}
    ax = plot.accuracy_against_setting(ran, published={"m": {1: 45.0}}, xlabel="pairs", ylabel="right", log=True)
    line, dots, printed = ax.lines
    assert line.get_xydata().tolist() == [[1, 40.0], [10, 55.0]]
    assert dots.get_xydata().tolist() == [[1, 40.0], [10, 50.0], [10, 60.0]]
    assert printed.get_xydata().tolist() == [[1, 45.0]] and ax.get_xscale() == "log"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["m", "m, published"]
    assert ax.get_xticks().tolist() == [1, 10, 100], "what was chosen has a tick each"
    measured = plot.accuracy_against_setting({"m": {0.10137: {0: 5.0}, 0.10242: {0: 6.0}}}, xlabel="", ylabel="")
    assert 0.10137 not in measured.get_xticks().tolist(), "what was measured has none of its own"


def test_perturbation_panels_name_their_ranges():
    grids = {"m": torch.rand(3, 2, 1, 4, 4)}
    figure = plot.perturbation_panels(grids, {"m": (-8.0, 8.0)})
    assert figure.axes[0].get_title(loc="center") == "m\n[-8, 8]" and len(figure.axes[0].images) == 6
    with pytest.raises(ValueError, match="steps of m"):
        plot.perturbation_panels(grids, {})
    with pytest.raises(ValueError, match="2 pictures a row for 3"):
        plot.perturbation_panels(grids, {"m": (1.0, 2.0, 3.0)})


def test_planes_have_a_panel_per_model_and_a_disc_where_named():
    clouds = {name: {0: torch.rand(4, 2), 1: torch.rand(3, 2)} for name in ("r", "sf")}
    first, second = plot.pose_planes(clouds, disc=("sf",)).axes
    assert not first.patches and len(second.patches) == 1 and len(second.lines) == 3
