"""The explorer of paths: every callback by setting a value, pictures, heatmaps and accuracy against the measures."""

import asyncio
import math
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from helpers import keeping, noise_set
from torch.testing import assert_close

from capsnb.data import prepare
from capsnb.explore import PathExplorer, charts, pictures
from capsnb.explore.events import Latest
from capsnb.explore.path_network import UnitMaps
from capsnb.explore.subjects import sample
from capsnb.measure.overlap import Heatmaps, normalise, unit_heatmaps
from capsnb.measure.path_accuracy import path_accuracy, path_reconstructions
from capsnb.measure.paths import Places, Reading, look, rank
from capsnb.nn import taps
from capsnb.nn.models import (
    CapsNetConfig,
    ConvNetRConfig,
    MatrixCapsNetConfig,
    NeuronNetConfig,
    ResCapsConfig,
    StridedStem,
)
from capsnb.nn.routing import SelfAttention
from capsnb.training import checkpoints

pytestmark = pytest.mark.usefixtures("figures_closed")
STEM = StridedStem(channels=4, kernel=5, types=2, dim=4)
SMALL = CapsNetConfig(size=16, classes=3, dim=4, stem=STEM, decoder_widths=(8, 12), init_scale=2.0)
DEEP = replace(SMALL, hidden=((5, 4), (4, 4)))


def build(config=SMALL):
    torch.manual_seed(0)
    return config.build().eval()


@pytest.fixture(scope="module")
def data():
    return noise_set(6, 40, 25)


@pytest.fixture
def explorer(data):
    return PathExplorer(build(), data=data, index=4)


def ranked(explorer, data, reading):
    return rank(explorer.subject.model, data.validation, reading, classes=3)


def predicted(explorer):
    with torch.no_grad():
        return explorer.subject.model(explorer.image[None]).scores.argmax(1)


# what is kept


def test_at_the_start_it_is_all_of_the_network(explorer):
    assert (explorer.filters, explorer.units, explorer.state) == (None, None, {"index": 4})
    assert [(each.min, each.value, each.max) for each in explorer.sliders.values()] == [(1, 4, 4), (1, 32, 32)]
    with torch.no_grad():
        output = explorer.subject.model(explorer.image[None])
    assert_close(explorer.reconstruction, output.reconstruction[0])
    assert_close(explorer.lengths, output.scores[0])
    assert sorted(explorer.chosen) == list(range(32))


@pytest.mark.parametrize("sets", ["class", "image", "all"])
@pytest.mark.parametrize("direction", ["backward", "forward"])
def test_what_the_sliders_keep_is_the_measures_path(direction, sets, explorer, data):
    explorer.sliders["units"].value = 5
    explorer.sliders["filters"].value = 2
    explorer.directions.value, explorer.owners.value = direction, sets
    assert (explorer.units, explorer.filters, explorer.direction, explorer.sets) == (5, 2, direction, sets)
    reading = Reading(direction=direction, sets=sets)
    ranking = ranked(explorer, data, reading)
    arguments = (explorer.subject.model, explorer.image[None], predicted(explorer), ranking, reading)
    assert_close(explorer.reconstruction, path_reconstructions(*arguments, units=[5], filters=2)[0, 0])
    assert_close(explorer.full_reconstruction, path_reconstructions(*arguments, units=[None])[0, 0])
    assert explorer.changed.png == pictures.png(pictures.as_bytes(explorer.reconstruction))
    assert explorer.rebuilt.png == pictures.png(pictures.as_bytes(explorer.full_reconstruction))


def test_lengths_are_those_of_the_kept_capsules_alone(explorer, data):
    explorer.units, explorer.filters = 3, 2
    model, label = explorer.subject.model, predicted(explorer)
    ranking = ranked(explorer, data, Reading())
    kept = torch.zeros(32)
    kept[ranking.units[label][0].argsort(descending=True)[:3]] = 1
    filters = torch.zeros(4)
    filters[ranking.filters[label][0].argsort(descending=True)[:2]] = 1
    with torch.no_grad(), keeping(model, "primary", kept), keeping(model, "conv1", filters):
        scores = model(explorer.image[None]).scores[0]
    assert_close(explorer.lengths, scores)
    assert sorted(explorer.chosen) == kept.nonzero().flatten().tolist()
    assert f"{float(scores[0]):.2f}</text>" in explorer.classes.value


@pytest.mark.parametrize("of", ["contribution", "agreement", "activation", "random"])
def test_other_rankings_choose_other_capsules(of, explorer, data):
    explorer.units, explorer.sets = 4, "image"
    explorer.rankings.value = of
    assert explorer.of == of
    reading = Reading(of=of, sets="image")
    with taps.evaluating(explorer.subject.model):
        places = Places.of(explorer.subject.model)
        _, units, _ = look(explorer.subject.model, explorer.image[None], torch.tensor([0]), reading, places)
    assert explorer.chosen == units[0].topk(4).indices.tolist()


def test_the_end_of_a_slider_keeps_all_and_reset_too(explorer):
    explorer.units, explorer.filters, explorer.direction, explorer.of = 3, 1, "forward", "random"
    assert [each.value for each in explorer.sliders.values()] == [1, 3]
    explorer.sliders["units"].value = 32
    assert explorer.units is None
    explorer.resetter.click()
    assert explorer.state == {"index": 4}
    assert [each.value for each in explorer.sliders.values()] == [4, 32]


def test_capsules_of_a_deep_network_are_those_below_the_classes(data):
    explorer = PathExplorer(build(DEEP), data=data, units=2)
    assert explorer.sliders["units"].max == 4
    reading = Reading()
    arguments = (explorer.subject.model, explorer.image[None], predicted(explorer))
    found = path_reconstructions(*arguments, ranked(explorer, data, reading), reading, units=[2])
    assert_close(explorer.reconstruction, found[0, 0])


# heatmaps


def one_by_one(explorer, filters=None):
    """Each kept capsule's heatmap by the measure, between 0 and 1."""
    model, units = explorer.subject.model, torch.tensor(explorer.chosen)[None]
    edits = {} if filters is None else {"conv1": taps.keep(filters)}
    with taps.edit(model, edits):
        found = unit_heatmaps(model, explorer.image[None], units)
    return normalise(Heatmaps(found.maps, units, units)).maps[0]


@pytest.mark.parametrize("config", [SMALL, DEEP, replace(SMALL, routing=SelfAttention()), replace(SMALL, shared=True)])
def test_heatmaps_are_the_measures(config, data):
    explorer = PathExplorer(build(config), data=data, units=3)
    assert explorer.heatmaps.shape == (3, 16, 16)
    assert_close(explorer.heatmaps, one_by_one(explorer), atol=1e-5, rtol=1e-4)


def test_heatmaps_that_take_the_whole_network_follow_the_picture(data):
    explorer = PathExplorer(build(DEEP), data=data, units=3)
    explorer.latest.finish()
    maps, drawn = explorer.over.value, explorer.latest.drawn

    async def slide():
        explorer.filters = 1
        explorer.settle()
        assert explorer.latest.drawn == drawn + 1
        assert explorer.over.value == maps  # the last ones stay meanwhile
        while explorer.latest.following:
            await asyncio.sleep(0.001)

    asyncio.run(slide())
    assert explorer.over.value != maps
    assert len(explorer.heatmaps) == 3


def test_heatmaps_lie_behind_the_filters_that_are_kept(explorer, data):
    explorer.units, explorer.filters = 6, 1
    kept = torch.zeros(4)
    kept[ranked(explorer, data, Reading()).filters[predicted(explorer)][0].argmax()] = 1
    assert_close(explorer.heatmaps, one_by_one(explorer, kept), atol=1e-5, rtol=1e-4)
    before = explorer.over.png, explorer.alone.png
    explorer.filters = None
    assert_close(explorer.heatmaps, one_by_one(explorer), atol=1e-5, rtol=1e-4)
    assert explorer.over.png != before[0]
    assert explorer.alone.png != before[1]


def test_heatmaps_of_patches_are_those_of_the_whole_picture():
    run = checkpoints.load("capsnet-small")
    image = prepare(checkpoints.shown(run)).test.images[3]
    maps = UnitMaps(run.model, image, Places.of(run.model), {})
    units = [0, 3, 50, 77, 143]
    maps.make(units, 1e9)
    found = unit_heatmaps(run.model, image[None], torch.tensor(units)[None]).maps[0]
    assert_close(maps.known(units)[1], found, atol=1e-6, rtol=1e-3)
    assert maps.missing([3, 4]) == [4]


def test_a_map_is_made_once(explorer, monkeypatch):
    made = []
    own = UnitMaps._maps
    monkeypatch.setattr(UnitMaps, "_maps", lambda self, units: made.extend(units) or own(self, units))
    explorer.index = 5
    explorer.units = 8
    explorer.units = 12
    explorer.direction = "forward"
    explorer.heatmaps  # noqa: B018
    assert len(made) == len(set(made)) >= 12


# the accuracy that follows


def measured(explorer, data, reading, filters, units):
    arguments = (explorer.subject.model, data.test, ranked(explorer, data, reading), reading)
    return path_accuracy(*arguments, filters=[filters], units=[units])


@pytest.mark.parametrize("sets", ["class", "image", "all"])
def test_the_accuracy_is_the_measures(sets, explorer, data):
    explorer.units, explorer.filters, explorer.sets = 2, 3, sets
    reading = Reading(sets=sets)
    path, whole = (measured(explorer, data, reading, *kept) for kept in ((3, 2), (None, None)))
    assert explorer.accuracy == pytest.approx((float(path.accuracy[0, 0]), float(whole.accuracy[0, 0])))
    found = explorer._running.by_class
    assert_close(found[0], path.by_class[0, 0])
    assert_close(found[1], whole.by_class[0, 0])
    assert f"path {100 * explorer.accuracy[0]:.1f} %" in explorer.accuracies.value
    assert "on 25 test images" in explorer.accuracies.value


def test_the_accuracy_follows_in_small_steps_and_is_dropped(explorer, data):
    async def drag():
        explorer.units = 3
        explorer.settle()
        running = explorer._running
        assert running.images == 0
        assert "follows" in explorer.accuracies.value
        seen = set()
        while not running.images:
            await asyncio.sleep(0.001)
        while running.images < 20:
            seen.add(running.images)
            await asyncio.sleep(0.001)
        assert "on the first 20 test images" in explorer.accuracies.value
        dropped = explorer.latest.dropped
        explorer.units = 1
        assert explorer.latest.dropped == dropped + 1
        explorer.settle()
        assert explorer._running is not running
        assert "follows" in explorer.accuracies.value
        while explorer.latest.following:
            await asyncio.sleep(0.001)
        assert running.images == 20  # nobody went on with it
        return seen

    assert asyncio.run(drag()) == {10}
    assert "on 25 test images" in explorer.accuracies.value
    assert explorer.accuracy[0] == pytest.approx(float(measured(explorer, data, Reading(), None, 1).accuracy))


def test_another_picture_goes_on_with_the_same_count(explorer):
    explorer.units = 3
    running = explorer._running
    running.step()
    explorer.index = 7
    assert explorer._running is running
    assert running.images == 10
    explorer.latest.finish()
    assert running.images == 25


def test_steps_follow_a_picture_until_the_next_request():
    seen, state = [], {"picture": 0}

    def follow():
        for step in range(5):
            seen.append((state["picture"], step))
            yield

    def draw():
        state["picture"] += 1

    latest = Latest(draw, follow)
    latest.request()
    assert (seen, latest.following) == ([], True)  # no loop: they wait
    latest.finish()
    assert (seen, latest.following) == ([(1, step) for step in range(5)], False)
    seen.clear()

    async def events():
        latest.request()
        while (2, 1) not in seen:
            await asyncio.sleep(0.001)
        latest.request()
        assert not latest.following
        while latest.waiting or latest.following:
            await asyncio.sleep(0.001)

    asyncio.run(events())
    assert seen == [(2, 0), (2, 1), *((3, step) for step in range(5))]
    assert latest.dropped == 1


def test_a_step_that_fails_is_the_last_one():
    def follow():
        yield
        raise RuntimeError("broken")

    latest = Latest(lambda: None, follow)
    latest.request()
    with pytest.raises(RuntimeError, match="broken"):
        latest.finish()
    assert not latest.following
    latest.request()
    assert latest.following


def test_a_sample_is_spread_evenly_over_the_split(data):
    found = sample(data.test, 5)
    assert torch.equal(found.images, data.test.images[::5])
    assert len(sample(data.test, 100)) == 25


# its parts of pages


def test_a_bar_without_a_value_is_left_out():
    root = ElementTree.fromstring(charts.bars("abc", [0.5, math.nan, 1.0], "bars", marks=[math.nan, 0.2, 0.3]))
    assert [float(each.get("width")) for each in root.iter("rect")] == [75.0, 150.0]
    assert [each.text for each in root.iter("text")] == ["a", "0.50", "b", "c", "1.00"]
    assert len(list(root.iter("path"))) == 2
    plain = charts.bars("ab", [0.5, 1.0], "bars", longest=False)
    assert charts.ORANGE not in plain


def test_tiles_stand_in_rows_with_clear_pixels_between():
    each = [np.full((2, 3, 3), value, np.uint8) for value in (10, 20, 30)]
    found = pictures.tiles(each, 2)
    assert found.shape == (5, 7, 4)
    assert found[0, :, 0].tolist() == [10, 10, 10, 0, 20, 20, 20]
    assert found[:, 0, 0].tolist() == [10, 10, 0, 30, 30]
    assert found[0, :, 3].tolist() == [255, 255, 255, 0, 255, 255, 255]
    assert not found[3:, 4:].any()


# what is said


def test_a_model_without_decoder_shows_the_rest(data, tmp_path):
    explorer = PathExplorer(build(replace(SMALL, decoder="none")), data=data, units=4)
    sentence = "CapsNet has no decoder, so a path makes no picture."
    assert (explorer.message.text, explorer.undecoded.text) == ("", sentence)
    assert explorer.rebuilt.layout.display == explorer.changed.layout.display == "none"
    with pytest.raises(ValueError, match=sentence):
        explorer.reconstruction  # noqa: B018
    assert explorer.heatmaps.shape == (4, 16, 16)
    assert 0 <= explorer.accuracy[0] <= 1
    assert explorer.save(tmp_path / "path.png").stat().st_size > 1000
    explorer.model = build()
    assert explorer.undecoded.text == ""
    assert explorer.rebuilt.layout.display == ""


def test_matrix_capsules_are_kept_by_pose_and_activation(data):
    config = MatrixCapsNetConfig(size=16, classes=3, width=4, types=2, layers=((2, 3, 1),), decoder="none")
    explorer = PathExplorer(build(config), data=data, units=6)
    assert explorer.sliders["units"].max == 72
    found = measured(explorer, data, Reading(), None, 6)
    assert explorer.accuracy[0] == pytest.approx(float(found.accuracy))
    assert_close(explorer.heatmaps, one_by_one(explorer), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        ConvNetRConfig(size=16, classes=3, dim=4, kernel=3, width=8, decoder_widths=(8,)),
        NeuronNetConfig(size=16, classes=3, width=4, primary=4, kernel=3, hidden=(8,)),
    ],
)
def test_a_model_without_capsules_is_told(config, data):
    model = build(config)
    explorer = PathExplorer(model, data=data)
    assert explorer.message.text == f"{type(model).__name__} has no capsule layers for a path to run through."
    assert explorer.view.layout.display == "none"
    assert all(each.disabled for each in explorer.sliders.values())
    with pytest.raises(ValueError, match="no capsule layers"):
        explorer.accuracy  # noqa: B018
    explorer.model = build()
    assert (explorer.message.text, explorer.view.layout.display) == ("", "")


def test_capsules_without_couplings_are_ranked_by_activation(data):
    explorer = PathExplorer(build(ResCapsConfig(size=16, classes=3, width=4, types=(1, 1), decoder="none")), data=data)
    told = "ResCaps has no couplings to rank its capsules by; rank them by activation instead."
    assert explorer.message.text == told
    explorer.of, explorer.units = "activation", 2
    assert explorer.message.text == ""
    assert explorer.heatmaps.shape == (2, 16, 16)


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({"units": 0}, "CapsNet has 32 capsules in primary: 1 to 32 can be kept, not 0."),
        ({"units": 500}, "CapsNet has 32 capsules in primary: 1 to 32 can be kept, not 500."),
        ({"filters": -1}, "CapsNet has 4 filters in conv1: 1 to 4 can be kept, not -1."),
    ],
)
def test_a_k_that_there_is_not_is_told(state, sentence, data):
    explorer = PathExplorer(build(), data=data, **state)
    assert explorer.message.text == sentence
    assert not explorer.latest.following or not list(explorer.latest.follow())
    with pytest.raises(ValueError, match="can be kept, not"):
        explorer.lengths  # noqa: B018
    explorer.units = explorer.filters = 2
    assert explorer.message.text == ""


def test_every_control_has_a_name(explorer):
    controls = [*explorer.sliders.values(), *explorer.controls.children[0].children, *explorer.tools.children[:3]]
    assert len(controls) == 8
    assert all(each.description for each in controls)


def test_a_smaller_model_keeps_what_it_has(data):
    explorer = PathExplorer(build(), data=data, units=30, filters=3)
    explorer.model = build(replace(SMALL, stem=replace(STEM, types=1)))
    assert (explorer.units, explorer.filters) == (None, 3)
    assert explorer.sliders["units"].max == 16


def test_the_figure_tells_the_path_and_its_accuracy(explorer):
    explorer.units = 5
    axes = explorer.figure().axes[0]
    path, whole = explorer.accuracy
    assert "CapsNet: 4 of 4 filters, 5 of 32 capsules (backward, by coupling, sets: class)" in axes.get_xlabel()
    assert f"{100 * path:.1f} % of 25 test images right, of all {100 * whole:.1f} %" in axes.get_xlabel()
    titles = [text.get_text() for text in axes.texts]
    assert titles[:4] == ["picture", "decoded from all", "from the path", "all heatmaps"]
    assert titles[4:] == [f"capsule {unit}" for unit in explorer.chosen]
