"""The explorers: every callback by setting a value, what they show against the measures' functions."""

import math
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from helpers import noise_set
from PIL import Image
from torch.testing import assert_close

from capsnb import explore
from capsnb.explore import (
    Compare,
    PathExplorer,
    PerturbationExplorer,
    RoutingExplorer,
    ViewpointExplorer,
    pictures,
)
from capsnb.explore.routing import agreement, reaching, rerouted
from capsnb.explore.viewpoint import KIND
from capsnb.measure.entropy import mean_entropy
from capsnb.measure.intervals import activation_statistics, class_intervals
from capsnb.measure.perturbation import perturbation_grid
from capsnb.measure.viewpoint import KINDS, moved, viewpoint
from capsnb.nn import taps
from capsnb.nn.layers import length
from capsnb.nn.models import CapsNetConfig, ConvNetFCConfig, ConvNetRConfig, MatrixCapsNetConfig, StridedStem
from capsnb.nn.routing import Dynamic, SelfAttention, Uniform

pytestmark = pytest.mark.usefixtures("figures_closed")
EXPLORERS = (PathExplorer, PerturbationExplorer, RoutingExplorer, ViewpointExplorer)
STEM = StridedStem(channels=4, kernel=5, types=2, dim=4)
SMALL = CapsNetConfig(size=16, classes=3, dim=4, stem=STEM, decoder_widths=(8, 12), init_scale=2.0)
DEEP = CapsNetConfig(size=16, classes=3, dim=4, stem=STEM, hidden=((5, 4), (4, 4)), decoder_widths=(8,))


def build(config=SMALL, seed=0):
    torch.manual_seed(seed)
    return config.build().eval()


@pytest.fixture(scope="module")
def data():
    return noise_set(6, 40, 20, border=4)


# the pose of a class capsule


@pytest.fixture
def explorer(data):
    return PerturbationExplorer(build(), data=data, capsule=2, index=4)


def test_a_slider_replaces_a_dimension_as_the_grid_does(explorer, data):
    explorer.sliders[1].value = 0.05
    value = explorer.sliders[1].value
    image = data.test.images[4:5]
    grid = perturbation_grid(explorer.subject.model, image, torch.tensor([2]), [value], change="replacement")
    assert_close(explorer.reconstruction, grid[0, 1, 0])
    assert explorer.values == {1: value}
    assert explorer.pose[1] == pytest.approx(value)


def test_steps_that_a_page_answers_with_are_no_moves(explorer):
    for each in explorer.sliders:  # as a browser does with values between its steps
        each.value = each.min + round((each.value - each.min) / each.step) * each.step
    assert explorer.values == {}
    explorer.sliders[1].value += explorer.sliders[1].step
    assert list(explorer.values) == [1]


def test_a_slider_adds_to_a_dimension_as_sabour_do(explorer, data):
    explorer.bound.value = "sabour"
    assert explorer.ranges == "sabour"
    assert [(each.min, each.max, each.value) for each in explorer.sliders] == [(-0.25, 0.25, 0.0)] * 4
    explorer.sliders[3].value = -0.2
    grid = perturbation_grid(explorer.subject.model, data.test.images[4:5], torch.tensor([2]), [-0.2, 0.0])
    assert_close(explorer.reconstruction, grid[0, 3, 0])
    assert_close(explorer.unchanged, grid[0, 3, 1])


def test_several_dimensions_are_changed_at_once(explorer):
    with torch.no_grad():
        own = explorer.subject.model(explorer.image[None]).poses[0, 2]
    explorer.values = {0: 0.1, 2: -0.1}
    assert_close(explorer.pose, torch.tensor([0.1, own[1], -0.1, own[3]]))
    assert explorer.sliders[0].value == 0.1
    assert explorer.sliders[1].value == pytest.approx(float(own[1]))


def test_the_sliders_span_the_measured_interval(explorer, data):
    found = activation_statistics(explorer.subject.model, data.validation, ["class.poses"])["class.poses"]
    low, high = class_intervals(found).alpha
    own = explorer.pose
    for each, value in zip(explorer.sliders, own, strict=True):
        assert (each.min, each.max) == pytest.approx((min(low, float(value)), max(high, float(value))))


def test_the_network_is_shown_the_decoded_picture(explorer):
    explorer.sliders[0].value = 0.02
    with torch.no_grad():
        fed_back = explorer.subject.model(explorer.reconstruction[None]).scores[0]
    assert_close(explorer.lengths, fed_back)
    assert f"{float(fed_back[0]):.2f}</text>" in explorer.fed_back.value


def test_scores_that_are_logits_are_shown_as_shares(data):
    model = build(ConvNetRConfig(size=16, classes=3, dim=4, kernel=3, width=8, head="sum", decoder_widths=(8,)))
    explorer = PerturbationExplorer(model, data=data)
    with torch.no_grad():
        scores = model(explorer.reconstruction[None]).scores[0]
    assert_close(explorer.lengths, scores.softmax(0))


def test_without_a_capsule_chosen_it_is_the_predicted_one(data):
    explorer = PerturbationExplorer(build(), data=data)
    with torch.no_grad():
        predicted = explorer.subject.model(explorer.image[None])
    assert_close(explorer.pose, predicted.poses[0, predicted.scores[0].argmax()])
    assert_close(explorer.reconstruction, predicted.reconstruction[0])


def test_play_sweeps_the_chosen_dimension_there_and_back(explorer):
    explorer.swept.value = 2
    low, high = explorer.sliders[2].min, explorer.sliders[2].max
    seen = []
    for stop in range(explorer.play.min, explorer.play.max + 1):
        explorer.play.value = stop
        seen.append(explorer.sliders[2].value)
    # stop 0 is where the player stands, so that it comes first when it starts over
    assert len(seen) == 22
    assert seen[1:12] == sorted(seen[1:12])
    assert seen[12:] == sorted(seen[12:], reverse=True)
    assert seen[11] == pytest.approx(high, abs=1e-3)
    explorer.play.value = 0
    assert explorer.sliders[2].value == pytest.approx(low, abs=1e-3)
    assert list(explorer.values) == [2]


def test_reset_keeps_model_and_picture(explorer):
    explorer.play.playing, explorer.play.value = True, 5
    explorer.sliders[0].value, explorer.difference = 0.05, "unchanged"
    explorer.resetter.click()
    assert explorer.state == {"index": 4}
    assert (explorer.play.playing, explorer.play.value) == (False, 0)
    assert_close(explorer.reconstruction, explorer.unchanged)


def test_the_difference_is_to_the_picture_or_to_the_unchanged_pose(explorer):
    explorer.against.value = "unchanged"
    assert explorer.difference == "unchanged"
    assert "unchanged pose" in explorer.differs.value
    pixels = Image.open(BytesIO(explorer.differs.png))
    assert pixels.mode == "RGBA"
    assert pixels.getextrema()[3] == (0, 0)  # nothing was changed, all is clear


@pytest.mark.parametrize("kind", EXPLORERS)
def test_the_state_as_code_opens_the_same_state(kind, data, tmp_path):
    states = {
        PathExplorer: {"units": 9, "filters": 3, "direction": "forward", "of": "agreement", "sets": "image"},
        PerturbationExplorer: {"capsule": 1, "values": {0: 0.125}, "ranges": "sabour"},
        RoutingExplorer: {"iterations": 5, "temperature": 0.5, "type": 1, "votes": "share x length"},
        ViewpointExplorer: {"rotation": 12.5, "scale": 1.1},
    }
    model = build()
    first = kind(model, data=data, index=7, **states[kind])
    first.coder.click()
    assert first.line.layout.display == ""
    second = eval(
        first.line.value.replace("(model", "(model, data=data"), vars(explore) | {"model": model, "data": data}
    )
    assert second.state == first.state == {"index": 7} | states[kind]
    assert [each.value for each in second.view.children if hasattr(each, "value")] == [
        each.value for each in first.view.children if hasattr(each, "value")
    ]
    assert first.save(tmp_path / "state.png").stat().st_size > 1000
    first.saver.click()
    assert f'download="{kind.__name__}.png"' in first.answer.value


def test_setting_a_trait_moves_its_control(explorer):
    explorer.capsule, explorer.ranges, explorer.index = 0, "sabour", 3
    assert (explorer.capsules.value, explorer.bound.value, explorer.chooser.index) == (0, "sabour", 3)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (CapsNetConfig(size=16, classes=3, stem=STEM, decoder="none"), "CapsNet has no decoder"),
        (ConvNetFCConfig(size=16, classes=3, widths=(4,), hidden=(8,)), "ConvNetFC has no decoder"),
    ],
)
def test_a_model_without_decoder_is_told_in_the_widget(config, sentence, data):
    explorer = PerturbationExplorer(build(config), data=data)
    assert sentence in explorer.message.text
    assert explorer.message.text.endswith("cannot be turned into a picture.")
    assert 'role="alert"' in explorer.message.value
    assert explorer.view.layout.display == "none"
    explorer.play.value = 3
    explorer.saver.click()
    with pytest.raises(ValueError, match=sentence):
        explorer.reconstruction  # noqa: B018


def test_a_capsule_that_is_not_there_is_told_and_the_next_one_shown(explorer):
    explorer.capsule = 7
    assert explorer.message.text == "CapsNet has class capsules 0 to 2, but no 7."
    assert explorer.capsules.value is None
    explorer.capsule = 1
    assert explorer.message.text == ""
    assert explorer.view.layout.display == ""


def test_an_unknown_state_is_refused(data):
    with pytest.raises(ValueError, match="has no angle; its state is: capsule, difference"):
        PerturbationExplorer(build(), data=data, angle=3)
    with pytest.raises(ValueError, match="ranges = 'beta' is no state"):
        PerturbationExplorer(build(), data=data, ranges="beta")
    with pytest.raises(ValueError, match="index = 99: there are 20 test images"):
        PerturbationExplorer(build(), data=data, index=99)


# routing


def test_the_settings_are_those_of_the_sliders_and_the_model_keeps_its_own(data):
    model = build()
    explorer = RoutingExplorer(model, data=data, index=2)
    own = model.get_submodule("class").routing
    explorer.sliders["iterations"].value = 5
    explorer.sliders["temperature"].value = 0.4
    explorer.sliders["rate"].value = 0.7
    assert (explorer.iterations, explorer.temperature, explorer.rate) == (5, 0.4, 0.7)
    assert model.get_submodule("class").routing == own == Dynamic()
    model.get_submodule("class").routing = Dynamic(iterations=5, temperature=0.4, rate=0.7)
    with taps.evaluating(model), taps.record(model, "class.coupling", "class.poses") as seen:
        scores = model(explorer.image[None]).scores[0]
    trail = explorer.trails["class"]
    assert_close(trail.coupling[-1], seen["class.coupling"])
    assert_close(trail.poses[-1], seen["class.poses"])
    assert_close(explorer.scores, scores)
    assert len(trail.coupling) == 5


@pytest.mark.parametrize("sums", [1, 2, 3])
def test_an_iteration_of_the_trail_is_the_end_of_a_shorter_routing(data, sums):
    long, short = (RoutingExplorer(build(), data=data, iterations=count).trails["class"] for count in (4, sums))
    assert_close(long.coupling[sums - 1], short.coupling[-1])
    assert_close(long.poses[sums - 1], short.poses[-1])


def test_entropy_and_agreement_by_iteration(data):
    explorer = RoutingExplorer(build(), data=data)
    trail = explorer.trails["class"]
    found = explorer._entropies("class")
    assert found.tolist() == pytest.approx([mean_entropy(each) for each in trail.coupling], rel=1e-5)
    assert float(found[0]) == pytest.approx(math.log(3), rel=1e-5)
    votes, coupling, poses = trail.votes[0], trail.coupling[1, 0], trail.poses[1, 0]
    total = 0.0
    for child in range(len(votes)):
        for parent in range(3):
            total += float(coupling[child, parent] * (votes[child, parent] @ poses[parent]))
    assert float(agreement(trail)[1, 0]) == pytest.approx(total / len(votes), rel=1e-4)


def test_votes_for_a_class_by_position_and_type(data):
    explorer = RoutingExplorer(build(), data=data, capsule=1)
    height, width, types = explorer.subject.model.primary.grid
    coupling = explorer.trails["class"].coupling[-1, 0, :, 1]
    assert_close(explorer.child_votes, coupling)
    explorer.types.value = 1
    explorer.drawn.value = "share x length"
    norms = explorer._primary
    for row in range(height):
        for column in range(width):
            child = (row * width + column) * types + 1
            assert float(explorer.position_votes[row, column]) == pytest.approx(float(coupling[child] * norms[child]))
    explorer.types.value = -1
    assert_close(explorer.position_votes.sum(), (coupling * norms).sum())


def test_through_several_layers_the_shares_multiply(data):
    explorer = RoutingExplorer(build(DEEP), data=data, capsule=0)
    assert [value for _, value in explorer.layers.options] == ["", "caps1", "caps2", "class"]
    one, two, three = (trail.coupling[-1, 0] for trail in explorer.trails.values())
    assert_close(explorer.child_votes, (one @ two @ three)[:, 0])
    everything = sum(reaching(explorer.trails, parent) for parent in range(3))
    assert_close(everything, torch.ones_like(everything))
    explorer.layers.value = "caps1"
    assert explorer.layer == "caps1"
    assert "caps1" in explorer.couplings.value
    assert explorer.figure() is not None


def test_a_routing_without_settings_has_no_sliders(data):
    explorer = RoutingExplorer(build(replace(SMALL, routing=Uniform(value="1/I"))), data=data)
    assert [each.disabled for each in explorer.sliders.values()] == [True] * 3
    assert "No entropy" in explorer.entropy.value
    assert len(explorer.trails["class"].coupling) == 1


def test_a_network_without_routing_is_told_in_the_widget(data):
    model = build(ConvNetRConfig(size=16, classes=3, dim=4, kernel=3, width=8, decoder_widths=(8,)))
    explorer = RoutingExplorer(model, data=data)
    assert explorer.message.text == "ConvNetR has no layer of vector capsules whose routing could be exchanged."


def test_an_unknown_layer_is_told_in_the_widget(data):
    explorer = RoutingExplorer(build(), data=data)
    explorer.layer = "caps9"
    assert explorer.message.text == "CapsNet has no layer 'caps9'; it has: class."
    explorer.layer, explorer.type = "", 5
    assert explorer.message.text == "CapsNet has primary capsules of types 0 to 1, but no 5."


def test_the_routing_comes_back_after_an_error():
    model = build()
    own = model.get_submodule("class").routing
    with pytest.raises(ValueError, match="temperature"), rerouted(model, temperature=-1.0):
        pass
    assert model.get_submodule("class").routing is own


# viewpoint


@pytest.mark.parametrize(
    ("name", "amount"), [("rotation", 17.0), ("right", -2.5), ("down", 3), ("scale", 0.8), ("shear", 9)]
)
def test_one_slider_moves_the_picture_as_the_measure_does(name, amount, data):
    explorer = ViewpointExplorer(build(), data=data, index=3)
    explorer.sliders[name].value = amount
    assert getattr(explorer, name) == amount
    assert torch.equal(explorer.moved_image, moved(data.test.images[3:4], {KIND[name]: amount})[0])
    with torch.no_grad():
        poses = explorer.subject.model(explorer.moved_image[None]).poses
    assert_close(explorer.layer_norms["class.poses"], length(poses)[0])


def test_moves_add_up_and_reset_takes_them_back(data):
    explorer = ViewpointExplorer(build(), data=data)
    explorer.rotation, explorer.scale = 10.0, 0.9
    turned = moved(data.test.images[:1], {"rotation": 10, "scale": 0.9})
    assert torch.equal(explorer.moved_image, turned[0])
    assert len(explorer.history) == 2
    explorer.resetter.click()
    assert torch.equal(explorer.moved_image, data.test.images[0])
    assert explorer.invariance == {}


def test_the_invariance_is_the_measure_over_the_last_moves(data):
    model = build()
    explorer = ViewpointExplorer(model, data=data, index=5)
    amounts = (-20.0, 4.0, 11.0)
    for amount in amounts:
        explorer.sliders["rotation"].value = amount
    # the measure compares k images with the same under one move: here each "image" is this one under another move
    image = data.test.images[5:6]
    with torch.no_grad():
        plain = length(model(image).poses)[0].double()
        norms = [length(model(moved(image, {"rotation": each})).poses)[0].double() for each in amounts]
    cosines = []
    for capsule in range(3):
        pairs = [(float(plain[capsule]), float(each[capsule])) for each in norms]
        product = sum(a * b for a, b in pairs)
        cosines.append(product / math.sqrt(sum(a * a for a, _ in pairs) * sum(b * b for _, b in pairs)))
    assert explorer.invariance["class.poses"] == pytest.approx(sum(cosines) / 3)
    # one move of one image is no comparison: the measure gives 1 as well
    alone = ViewpointExplorer(model, data=data, index=5, rotation=4.0).invariance["class.poses"]
    measured = viewpoint(model, [(image,)], "rotation", [4.0])["class.poses"].cosine
    assert alone == pytest.approx(float(measured.nanmean()))


def test_another_picture_begins_its_moves_anew(data):
    explorer = ViewpointExplorer(build(), data=data, rotation=5.0)
    assert len(explorer.history) == 1
    explorer.index = 1
    assert [here[0] for here, _ in explorer.history] == [5.0]
    explorer.rotation = 6.0
    assert len(explorer.history) == 2


def test_the_ranges_reach_twice_as_far_as_the_measure(data):
    sliders = ViewpointExplorer(build(), data=data).sliders
    assert (sliders["rotation"].min, sliders["rotation"].max) == (-50, 50)
    assert (sliders["scale"].min, sliders["scale"].max) == (0.5, 1.5)
    assert all(KINDS[kind][1] == sliders[name].value for name, kind in KIND.items())


def test_a_network_without_couplings_has_norms_and_no_tree(data):
    model = build(ConvNetRConfig(size=16, classes=3, dim=4, kernel=3, width=8, decoder_widths=(8,)))
    explorer = ViewpointExplorer(model, data=data, rotation=10.0)
    assert set(explorer.layer_norms) == {"primary", "class.poses"}
    assert "No parse tree" in explorer.tree.value
    assert explorer.figure() is not None
    plain = build(ConvNetFCConfig(size=16, classes=3, widths=(4,), hidden=(8,)))
    assert "has no capsules" in ViewpointExplorer(plain, data=data).message.text


def test_matrix_capsules_are_shown_by_their_activations(data):
    model = build(MatrixCapsNetConfig(size=16, classes=3, width=4, types=2, layers=((2, 3, 1),), decoder="none"))
    explorer = ViewpointExplorer(model, data=data, rotation=10.0)
    with taps.evaluating(model), taps.record(model, "primary.activations", "class.activations") as seen:
        model(explorer.moved_image[None])
    assert list(explorer.layer_norms) == [name for name in taps.names(model) if name.endswith("activations")]
    for name in seen:
        assert_close(explorer.layer_norms[name], seen[name][0].flatten())
    assert "couplings by windows" in explorer.tree.value
    assert 0 < explorer.invariance["class.activations"] <= 1 + 1e-6
    told = "MatrixCapsNet has no decoder, so a changed pose cannot be turned into a picture."
    assert PerturbationExplorer(model, data=data).message.text == told


def test_self_attention_has_a_coupling_and_no_settings(data):
    explorer = RoutingExplorer(build(replace(SMALL, routing=SelfAttention())), data=data)
    model = explorer.subject.model
    with taps.evaluating(model), taps.record(model, "class.coupling") as seen:
        model(explorer.image[None])
    assert_close(explorer.trails["class"].coupling[-1], seen["class.coupling"])
    assert all(each.disabled for each in explorer.sliders.values())


# two models


@pytest.mark.parametrize("kind", EXPLORERS)
def test_two_models_have_one_state(kind, data):
    pair = Compare(build(seed=0), build(seed=1), kind, data=data, index=2)
    state = {
        PathExplorer: {"units": 9, "direction": "forward"},
        PerturbationExplorer: {"values": {1: 0.02}, "capsule": 1},
        RoutingExplorer: {"iterations": 2},
        ViewpointExplorer: {"rotation": 20.0},
    }[kind]
    for name, value in state.items():
        setattr(pair.left, name, value)
    assert pair.right.state == pair.left.state == {"index": 2} | state
    pair.left.chooser.thumbnails[5].click()
    assert (pair.left.index, pair.right.index) == (5, 5)
    alone = kind(pair.right.subject.model, data=data, **(state | {"index": 5}))
    shown = [each.value for each in pair.right.view.children if hasattr(each, "value")]
    # the invariance is of the moves there were
    assert shown[:2] == [each.value for each in alone.view.children if hasattr(each, "value")][:2]
    assert pair.code().startswith(f"Compare(model, model, {kind.__name__}, ")


def test_an_upload_reaches_both_models(data):
    pair = Compare(build(seed=0), build(seed=1), data=data)
    pair.left.chooser.take(pictures.png(np.full((16, 16), 200, np.uint8)), "grey.png")
    assert torch.equal(pair.right.image, pair.left.image)
    assert len(pair.right.image.unique()) == 1
    assert (pair.left.index, pair.right.index) == (-1, -1)


def test_a_reset_of_one_resets_both(data):
    pair = Compare(build(seed=0), build(seed=1), data=data)
    pair.left.sliders[0].value = 0.01
    assert pair.right.values == pair.left.values != {}
    pair.left.resetter.click()
    assert pair.right.values == {}


def test_the_code_of_two_models_leaves_out_an_upload(data):
    pair = Compare(build(seed=0), build(seed=1), data=data, capsule=1)
    pair.left.chooser.take(pictures.png(np.full((16, 16), 200, np.uint8)), "grey.png")
    assert pair.code() == "Compare(model, model, PerturbationExplorer, capsule=1)"
