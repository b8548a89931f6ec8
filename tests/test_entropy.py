"""Association entropy: uniform, one-hot and two-way couplings by hand, a loop, streaming, the trend of a run."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from capsnb.data import DataSpec, ImageSet, Split, evenly_spaced, prepare
from capsnb.data.transforms import Pairs
from capsnb.measure.entropy import (
    association_entropy,
    associations,
    coupling_taps,
    layer_entropy,
    mean_entropy,
    parent_shares,
)
from capsnb.measure.protocol import find
from capsnb.nn import taps
from capsnb.nn.models import CapsNetConfig, ConvNetAvgConfig, MatrixCapsNetConfig, NeuronNetConfig, StridedStem
from capsnb.nn.routing import Dynamic, Uniform
from capsnb.training import runs
from capsnb.training.recipe import Recipe
from capsnb.training.spec import Spec

SMALL = CapsNetConfig(
    size=11, classes=4, dim=3, stem=StridedStem(channels=3, kernel=3, types=2, dim=3), hidden=((3, 2),), decoder="none"
)


def build(config=SMALL):
    torch.manual_seed(0)
    return config.build()


def pictures(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, 11, 11), generator=generator, dtype=torch.uint8)
    return Split(images, torch.arange(count) * 4 // count)


# ---------------------------------------------------------------- the formula


def test_uniform_one_hot_and_two_way_by_hand():
    uniform, one, two = torch.full((5,), 0.2), torch.eye(5)[2], torch.tensor([0.5, 0.0, 0.5, 0.0, 0.0])
    coupling = torch.stack((uniform, one, two)).double()[None]  # one image, three children, five parents
    assert association_entropy(coupling)[0].tolist() == pytest.approx([math.log(5), 0, math.log(2)])
    words = (math.log(5) + math.log(2)) / 3
    assert mean_entropy(coupling) == pytest.approx(words)
    assert mean_entropy(coupling, reading="printed") == pytest.approx(words / 5)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(2, 6), st.floats(0.05, 20), st.integers(0, 99))
def test_both_readings_by_the_loops_of_the_paper(images, children, parents, sharpness, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(images, children, parents, generator=generator, dtype=torch.float64)
    coupling = logits.softmax(-1)
    total = 0.0
    for n in range(images):
        for i in range(children):
            for j in range(parents):
                c = coupling[n, i, j].item()
                total -= c * math.log(c) if c > 0 else 0.0
    assert mean_entropy(coupling) == pytest.approx(total / (images * children), abs=1e-12)
    assert mean_entropy(coupling, reading="printed") == pytest.approx(total / (images * children * parents), abs=1e-12)
    each = association_entropy(coupling)
    assert each.shape == (images, children) and (each >= 0).all() and (each <= math.log(parents) + 1e-9).all()


@pytest.mark.parametrize(
    ("coupling", "sentence"),
    [
        (torch.ones(3, 4), r"shape \(B, I, J\), not \(3, 4\)"),
        (torch.full((1, 2, 4), 0.2), "do not sum to 1"),
        (torch.tensor([[[1.5, -0.5]]]), "not a distribution"),
    ],
)
def test_refuses_what_is_no_distribution(coupling, sentence):
    with pytest.raises(ValueError, match=sentence):
        association_entropy(coupling)


def test_refuses_an_unknown_reading():
    with pytest.raises(ValueError, match="'both' is unknown; allowed: words, printed"):
        mean_entropy(torch.full((1, 1, 2), 0.5), reading="both")


# ---------------------------------------------------------------- of a network


def test_streaming_is_the_whole_at_once():
    model, split = build(), pictures(7)
    with torch.no_grad(), taps.record(model, "caps1.coupling", "class.coupling") as seen:
        model(split.images)
    found = associations(model, split.batches(3))
    assert list(found) == coupling_taps(model) == ["caps1.coupling", "class.coupling"]
    for name, association in found.items():
        exact = association_entropy(seen[name]).double()
        assert_close(association.per_image, exact.mean(1), atol=1e-6, rtol=0)
        assert_close(association.per_capsule, exact.mean(0), atol=1e-6, rtol=0)
        assert association.mean == pytest.approx(mean_entropy(seen[name]), abs=1e-6)
        assert association.printed == pytest.approx(association.mean / seen[name].shape[2])
        assert association.certainty == pytest.approx(1 - association.mean / math.log(seen[name].shape[2]))


def test_one_iteration_is_undecided_and_more_decide():
    entropies = []
    for iterations in (1, 2, 6):
        config = CapsNetConfig(**{**vars(SMALL), "routing": Dynamic(iterations=iterations), "init_scale": 3.0})
        entropies.append(associations(build(config), pictures(6).batches(6))["caps1.coupling"].mean)
    assert entropies[0] == pytest.approx(math.log(3))
    assert entropies[0] > entropies[1] > entropies[2]


def test_a_smaller_rate_leaves_more_undecided():
    values = []
    for rate in (0.01, 0.3, 1.0):
        config = CapsNetConfig(**{**vars(SMALL), "routing": Dynamic(iterations=6, rate=rate), "init_scale": 3.0})
        values.append(associations(build(config), pictures(6).batches(6))["caps1.coupling"].mean)
    assert values[0] > values[1] > values[2]


def test_any_tap_can_be_edited_first():
    model = build()
    hard = {"caps1.coupling": lambda c: torch.nn.functional.one_hot(c.argmax(-1), c.shape[-1]).to(c)}
    with taps.edit(model, hard):
        found = associations(model, pictures(4).batches(4))
    assert found["caps1.coupling"].mean == 0 and found["caps1.coupling"].certainty == 1
    assert found["class.coupling"].mean > 0


@pytest.mark.parametrize(
    ("config", "batches", "options", "sentence"),
    [
        (ConvNetAvgConfig(size=11, classes=4, width=3, kernel=3), 4, {}, "ConvNetAvg has no coupling"),
        (SMALL, 0, {}, "at least one batch"),
        (SMALL, 4, {"names": ["caps2.coupling"]}, "has no tap 'caps2.coupling'"),
        (CapsNetConfig(**{**vars(SMALL), "routing": Uniform(value="1/I")}), 4, {}, "do not sum to 1"),
        (CapsNetConfig(**{**vars(SMALL), "hidden": ((1, 2),)}), 4, {}, "caps1.coupling has one parent only"),
    ],
)
def test_refuses(config, batches, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        associations(build(config), pictures(4).select(torch.arange(batches)).batches(4), **options)


# ---------------------------------------------------------------- while it trains


def image_set(split):
    return ImageSet("toy", "", tuple("abcd"), split, split, split)


def test_a_layer_is_measured_on_images_spread_over_the_split():
    split = pictures(40)
    chosen = torch.cat([batch.labels for batch in evenly_spaced(split, 8, batch=3)])
    assert chosen.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]  # the split is sorted by class
    assert sum(len(batch.labels) for batch in evenly_spaced(split, 100)) == 40
    model = build()
    by_hand = associations(model, [split.batch(torch.arange(8) * 5)], ["class.coupling"])["class.coupling"].mean
    measure = find("routing entropy")
    assert measure(model, image_set(split), layer="class", images=8) == {"value": pytest.approx(by_hand)}
    assert measure.column(layer="class", images=8) == 'routing entropy@1 {"images": 8, "layer": "class"}'
    assert layer_entropy(model, image_set(split), layer="caps2") == {"value": None}
    plain = NeuronNetConfig(size=11, classes=4, width=2, primary=2, kernel=3, hidden=(3,)).build()
    assert layer_entropy(plain, image_set(split)) == {"value": None}


def test_shares_of_parents_by_a_loop_and_none_without_couplings():
    model, data = build(), image_set(pictures(12))
    found = parent_shares(model, data, images=12)
    with torch.no_grad(), taps.record(model, *coupling_taps(model)) as seen:
        model(data.validation.images)
    for tap, shares in found.items():
        coupling = seen[tap]  # (B, I, J)
        for parent, share in enumerate(shares):
            own = [coupling[b, i, parent].item() for b in range(12) for i in range(coupling.shape[1])]
            assert share == pytest.approx(sum(own) / len(own), abs=1e-5)
        assert sum(shares) == pytest.approx(1, abs=1e-5)
    assert list(found) == ["caps1.coupling", "class.coupling"]
    even = parent_shares(build(CapsNetConfig(**{**vars(SMALL), "routing": Uniform()})), data)
    assert even["class.coupling"] == [0.25] * 4
    plain = NeuronNetConfig(size=11, classes=4, width=2, primary=2, kernel=3, hidden=(3,)).build()
    assert parent_shares(plain, data) == {"value": None}
    assert find("parent shares").watched()(type("Training", (), {"model": plain, "data": data})) is None


def test_shares_of_parents_by_windows_are_those_of_the_whole_coupling():
    torch.manual_seed(0)
    model = MatrixCapsNetConfig(size=11, classes=4, width=4, types=2, layers=((2, 3, 1),), decoder="none").build()
    data = image_set(pictures(6))
    found = parent_shares(model, data, images=6)
    with torch.no_grad(), taps.record(model, "caps1.coupling") as seen:
        model(data.validation.images[:6])
    whole = model.get_submodule("caps1").dense(seen["caps1.coupling"]).double()  # (B, I, J)
    assert found["caps1.coupling"] == pytest.approx(whole.mean((0, 1)).tolist(), abs=1e-5)
    assert sum(found["caps1.coupling"]) == pytest.approx(1, abs=1e-4) and len(found["class.coupling"]) == 4


def test_all_routings_after_training_are_those_of_associations():
    model, data = build(), image_set(pictures(12))
    found = find("associations")(model, data, images=12)
    by_hand = associations(model, data.test.batches(5))
    for tap, each in by_hand.items():
        assert found[tap]["words"] == pytest.approx(each.mean)
        assert found[tap]["printed"] == pytest.approx(each.mean / each.parents)
        assert found[tap]["certainty"] == pytest.approx(1 - each.mean / math.log(each.parents))
        most = 1 - each.per_capsule.min().item() / math.log(each.parents)
        assert found[tap]["most certain child"] == pytest.approx(most)


def test_pairs_are_measured_too():
    data = prepare(DataSpec(crop=20, resize=10, train=40, derive=Pairs(size=18, train=9, validation=9, test=9)))
    assert [batch.images.shape for batch in evenly_spaced(data.validation, 5)] == [(5, 1, 18, 18)]
    assert torch.equal(next(evenly_spaced(data.validation, 9)).images, data.validation.batch(torch.arange(9)).images)


def test_a_run_records_the_trend(tmp_path):
    data = DataSpec(crop=22, resize=11, train=40, validation=20, test=20)
    recipe = Recipe(epochs=2, batch=20, report_every=1)
    spec = Spec(model=CapsNetConfig(**{**vars(SMALL), "classes": 10}), data=data, recipe=recipe)
    measure = find("routing entropy")
    column = measure.column(images=10)
    watch = {column: measure.watched(images=10)}
    rows = list(runs.follow(spec, watch=watch, root_folder=tmp_path, progress=False))
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(0 < row[column] <= math.log(3) + 1e-6 for row in rows)
    final = runs.load(runs.folder_of(spec, root_folder=tmp_path), device="cpu").model
    assert layer_entropy(final, prepare(data), images=10)["value"] == pytest.approx(rows[-1][column], abs=1e-6)


def test_bad_settings_say_so():
    model, data = build(), image_set(pictures(4))
    with pytest.raises(ValueError, match="split 'all' is unknown"):
        layer_entropy(model, data, split="all")
    with pytest.raises(ValueError, match="images = 0"):
        layer_entropy(model, data, images=0)
