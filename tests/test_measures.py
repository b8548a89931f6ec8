"""The protocol of measures, those that come with capsnb on a small network, and that none changes at its version.

`python tests/test_measures.py` writes tests/fingerprints.json, measure -> [version, fingerprint of its code], anew.
"""

import copy
import importlib
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from capsnb.data import DataSpec, prepare
from capsnb.data.transforms import Affine, Pairs, Translated
from capsnb.measure import catalogue, observations, survey
from capsnb.measure.protocol import MEASURES, NULL, WHILE_TRAINING, Measure, find, measurement
from capsnb.nn.models import CapsNetConfig, ConvNetAvgConfig, StridedStem
from capsnb.training import runs
from capsnb.training.code_fingerprint import source_fingerprint
from capsnb.training.loop import Training
from capsnb.training.recipe import Recipe
from capsnb.training.spec import Spec

FINGERPRINTS = Path(__file__).with_name("fingerprints.json")
MODEL = CapsNetConfig(size=14, stem=StridedStem(channels=4, kernel=5, types=2), hidden=((4, 8),), decoder_widths=(8,))
SPEC = Spec(
    model=MODEL,
    data=DataSpec(resize=14, train=64, validation=20, test=40),
    recipe=Recipe(epochs=1, batch=16, report_every=2),
)
SIZES = survey.Sizes(images=12, few=3, parts=2)


def own() -> dict[str, Measure]:
    """The measures that come with capsnb, whatever tests have registered beside them."""
    find("accuracy")
    return {name: each for name, each in MEASURES.items() if each.function.__module__.startswith("capsnb.")}


def fingerprints() -> dict[str, list]:
    return {name: [each.version, source_fingerprint(each.function)] for name, each in sorted(own().items())}


@pytest.fixture
def registered():
    """Measures that a test registers go when it ends."""
    find("accuracy")
    before = dict(MEASURES)
    yield MEASURES
    MEASURES.clear()
    MEASURES.update(before)


@pytest.fixture(scope="module")
def digits():
    return prepare(SPEC.data)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return runs.get(SPEC, root_folder=tmp_path_factory.mktemp("runs"), progress=False).model


# --- the protocol


def test_settings_are_keywords_with_defaults(registered, network, digits):
    @measurement("toy", version=3, paper="ours", rows=("x",))
    def toy(model, data, *, images=20, share=0.5, derive=None):
        return {"x": images * share}

    measure = find("toy")
    assert measure.function is toy, "the function stays as it is"
    assert (measure.name, measure.version, measure.paper, measure.rows, measure.needs) == ("toy", 3, "ours", ("x",), ())
    assert measure.defaults == {"images": 20, "share": 0.5, "derive": None}
    assert measure(network, digits) == {"x": 10} and measure(network, digits, images=4) == {"x": 2}
    assert measure.settings() == measure.settings(images=20) == {}
    assert measure.settings(share=0.1, images=3) == {"images": 3, "share": 0.1}
    assert measure.settings(derive=Translated(size=20)) == {"derive": {"type": "translated@1", "size": 20}}
    assert measure.column() == "toy@3"
    assert measure.column(share=0.1, images=3) == 'toy@3 {"images": 3, "share": 0.1}'
    assert find(measure) is measure
    for asked in (measure.settings, measure.column, measure.watched, lambda **more: measure(network, digits, **more)):
        with pytest.raises(ValueError, match="the measure 'toy' has no setting 'size'; it has: images, share, derive"):
            asked(size=3)
    with pytest.raises(ValueError, match="the measure 'accuracy' has no setting 'images'; it has none"):
        find("accuracy").settings(images=3)
    with pytest.raises(ValueError, match=r"there is no measure 'beauty'; there are: accuracy, adam step, "):
        find("beauty")


def test_a_name_in_use_is_refused_and_the_same_function_registers_again(registered):
    def toy(model, data):
        return {"x": 1}

    measurement("toy")(toy)
    measurement("toy", version=2)(toy)
    assert MEASURES["toy"].version == 2, "as when a notebook's cell is run again"
    with pytest.raises(ValueError, match=r"a measure is already called 'accuracy': capsnb\.measure\.catalogue"):
        measurement("accuracy")(toy)
    assert MEASURES["accuracy"].function is catalogue.accuracy


def test_a_tap_that_is_missing_is_a_sentence_and_the_measure_is_not_called(registered, network, digits):
    @measurement("toy", needs=("class.coupling", "primary"))
    def toy(model, data):
        return {"x": 1}

    assert find("toy")(network, digits) == {"x": 1}
    plain = ConvNetAvgConfig(size=14, width=3, kernel=3).build()
    with pytest.raises(ValueError, match=r"^ConvNetAvg has no class\.coupling, which toy needs$"):
        find("toy")(plain, digits)


def test_a_measure_sees_the_model_in_evaluation_mode_with_gradients(registered, network, digits):
    @measurement("toy")
    def toy(model, data):
        score = model(data.test.images[:2]).scores.sum()
        found = torch.autograd.grad(score, next(model.parameters()))[0]
        return {"training": any(module.training for module in model.modules()), "gradient": bool(found.any())}

    network.train()
    try:
        assert find("toy")(network, digits) == {"training": False, "gradient": True}
        assert network.training
    finally:
        network.eval()


@pytest.fixture
def exp_avg(registered):
    """The mean size of Adam's running mean of gradients, which the optimiser alone knows."""

    @measurement("momentum", needs=("gradients", "optimizer"))
    def momentum(model, data, *, scale=1.0, training):
        states = [training.optimizer.state[each]["exp_avg"] for each in model.parameters()]
        return {"value": scale * float(sum(each.abs().mean() for each in states))}

    return find("momentum")


def test_what_needs_a_training_is_refused_outside_and_works_while_it_trains(exp_avg, network, digits, tmp_path):
    assert exp_avg.defaults == {"scale": 1.0}, "the training is no setting"
    with pytest.raises(ValueError, match="momentum needs the gradients of a training under way: watch it while one"):
        exp_avg(network, digits)
    with pytest.raises(ValueError, match="pull needs the gradients of a training under way"):
        find("pull")(network, digits)
    plain = runs.get(SPEC, root_folder=tmp_path / "plain", progress=False)
    watch = {each.column(): each.watched() for each in (exp_avg, find("pull"), find("test accuracy"), find("life"))}
    watch[exp_avg.column(scale=2.0)] = exp_avg.watched(scale=2.0)
    watched = runs.get(SPEC, watch=watch, root_folder=tmp_path / "watched", progress=False)
    assert [row["step"] for row in watched.history] == [2, 4]
    for row in watched.history:
        assert row["momentum@1"] > 0
        assert row['momentum@1 {"scale": 2.0}'] == 2 * row["momentum@1"]
        assert 0 <= row["test accuracy@1"] <= 1, "the number of {'value': number} alone"
        assert [len(each) for each in row["pull@1"]["capsule"]] == [18, 4, 10]
        assert [len(each) for each in row["life@1"]["dead"]] == [18, 4, 10]
    names = plain.model.state_dict()
    assert names.keys() == watched.model.state_dict().keys()
    for name, value in watched.model.state_dict().items():
        assert torch.equal(value, names[name]), f"{name} was changed by being watched"


def test_what_is_watched_of_a_training_is_the_value_alone_or_all_values(registered, network, digits):
    @measurement("one")
    def one(model, data):
        return {"value": 3}

    @measurement("two", needs=("class.coupling",))
    def two(model, data):
        return {"value": 3, "other": 4}

    training = Training(network, digits, SPEC.recipe, device="cpu")
    assert find("one").watched()(training) == 3
    assert find("two").watched()(training) == {"value": 3, "other": 4}
    plain = Training(ConvNetAvgConfig(size=14, width=3, kernel=3).build(), digits, SPEC.recipe, device="cpu")
    with pytest.raises(ValueError, match=r"has no class\.coupling, which two needs"):
        find("two").watched()(plain)


# --- the catalogue

SMALL = {"images": 16, "few": 3, "parts": 2}


@pytest.mark.parametrize("name", sorted(own()))
def test_every_measure_gives_plain_values_with_its_rows_or_says_why_not(name, network, digits):
    measure = own()[name]
    settings = {setting: value for setting, value in SMALL.items() if setting in measure.defaults}
    assert all(default is None or default for default in measure.defaults.values() if not isinstance(default, int))
    if set(measure.needs) & set(WHILE_TRAINING):
        training = Training(copy.deepcopy(network), digits, SPEC.recipe, device="cpu")
        next(training.rows(progress=False))  # a report with a step behind it
        values = measure.watched(**settings)(training)
    elif name == "derived accuracy":
        with pytest.raises(ValueError, match="needs to be told which images to derive"):
            measure(network, digits)
        values = measure(network, digits, derive=Affine(kind="c", size=20), side=14)
    elif name == "shift manifold":
        with pytest.raises(ValueError, match="size = 14: the shifted images are 22 pixels wide"):
            measure(network, digits)
        pairs = prepare(DataSpec(resize=6, derive=Pairs(size=14, train=20, validation=20, test=20)))
        values = measure(network, pairs, sets=1, seeds=1)
        assert set(values["pictures"]) == {"7, 8", "3, 5"} and len(values["pictures"]["7, 8"]) == 81
        with pytest.raises(ValueError, match="CapsNet has no caps7, whose plane of shifts"):
            measure(network, pairs, tap="caps7")
    else:
        values = measure(network, digits, **settings)
        again = measure(network, digits, **settings)
        assert observations.pack(again) == observations.pack(values), "what is drawn is seeded"
    assert json.loads(json.dumps(observations.pack(values)), object_hook=observations.unpack) is not None
    assert set(measure.rows) <= set(values)
    for row in measure.rows:
        assert math.isfinite(values[row]), f"{row} of a capsule network"
    plain = ConvNetAvgConfig(size=14, width=3, kernel=3).build()
    try:
        given = {"derive": Affine(kind="c", size=20)} if name == "derived accuracy" else settings
        if not set(measure.needs) & set(WHILE_TRAINING):
            assert set(measure.rows) <= set(measure(plain, digits, **given))
    except ValueError as error:
        sentence = str(error)
        assert sentence and "\n" not in sentence


def test_the_survey_has_every_row_of_every_paper(network, digits):
    found = survey.survey(network, digits, SIZES)
    assert found.reasons == {}
    assert found.values.keys() == {(each.paper, row) for each in own().values() for row in each.rows}
    frame = survey.side_by_side({"capsnet": found})
    assert frame.index.names == ["paper", "measure"]
    papers = list(dict.fromkeys(frame.index.get_level_values("paper")))
    assert papers == [
        catalogue.NETWORK,
        catalogue.TAWALBEH,
        catalogue.LIN,
        catalogue.RENZULLI,
        catalogue.MITTERREITER,
        catalogue.GU,
    ]
    assert frame["capsnet"].notna().all()
    assert any(row.startswith(NULL) for _, row in found.values)
    own_values = find("certainty")(network, digits, images=12)
    for row, value in own_values.items():
        assert frame.loc[(catalogue.LIN, row), "capsnet"] == value


# --- no measure changes at its version


def test_no_measure_changed_at_the_same_version():
    known = json.loads(FINGERPRINTS.read_text(encoding="utf-8"))
    now = fingerprints()
    changed = [name for name in now if name in known and now[name] != known[name] and now[name][0] == known[name][0]]
    assert not changed, (
        f"the code of {', '.join(changed)} is not what it was at the same version. Where the same network gives other "
        "values now, raise the measure's version; in either case write the fingerprints anew: "
        "python tests/test_measures.py"
    )
    assert now == known, "a measure is new, gone or raised: write the fingerprints anew, python tests/test_measures.py"


TOY = '''
from toy_helpers import shrink

TABLE = {"low": 0.25, "high": [0.5, 0.75]}


def measure(model, data, *, images=20):
    """Says something."""
    return {"x": shrink(images) + TABLE["low"]}
'''
HELPERS = """
FACTOR = 3


def shrink(value):
    # by how much
    return scale(value) - 1


def scale(value):
    product = FACTOR * value * 2
    return product
"""
CHANGES = {
    "a constant in a helper's helper": (TOY, HELPERS.replace("* 2", "* 4")),
    "a constant of the module": (TOY, HELPERS.replace("FACTOR = 3", "FACTOR = 4")),
    "a table": (TOY.replace("0.25", "0.26"), HELPERS),
    "a list in a table": (TOY.replace("0.75", "0.76"), HELPERS),
    "a default": (TOY.replace("images=20", "images=21"), HELPERS),
    "the order of a difference": (TOY, HELPERS.replace("scale(value) - 1", "1 - scale(value)")),
}
SAME = {
    "a comment": (TOY, HELPERS.replace("# by how much", "# by so much, and no more")),
    "a docstring": (TOY.replace("Says something.", "Says it in other words."), HELPERS),
    "annotations": (TOY, HELPERS.replace("(value):", "(value: int) -> int:").replace("product =", "product: int =")),
    "a move": (TOY, "\n\n\n" + HELPERS.replace("FACTOR = 3\n", "") + "\n\nFACTOR = 3\n"),
    "what it does not call": (TOY, HELPERS + "\n\ndef other():\n    return 4\n"),
}


@pytest.fixture
def toy_fingerprint(tmp_path, monkeypatch):
    """Of a measure in a package of its own, whose source is given."""
    monkeypatch.syspath_prepend(tmp_path)
    count = iter(range(1000))

    def fingerprint(measure, helpers):
        package = f"toy_package_{next(count)}"
        folder = tmp_path / package
        folder.mkdir()
        (folder / "__init__.py").write_text("")
        (folder / "toy.py").write_text(measure.replace("toy_helpers", f"{package}.toy_helpers"))
        (folder / "toy_helpers.py").write_text(helpers)
        importlib.invalidate_caches()
        return source_fingerprint(importlib.import_module(f"{package}.toy").measure)

    yield fingerprint
    for name in [name for name in sys.modules if name.startswith("toy_package_")]:
        del sys.modules[name]


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_a_value_changes_the_fingerprint(change, toy_fingerprint):
    assert toy_fingerprint(*CHANGES[change]) != toy_fingerprint(TOY, HELPERS)


@pytest.mark.parametrize("change", SAME)
def test_what_changes_no_value_does_not_change_the_fingerprint(change, toy_fingerprint):
    assert toy_fingerprint(*SAME[change]) == toy_fingerprint(TOY, HELPERS)


def test_a_measure_of_capsnb_is_followed_into_the_modules_that_it_calls(monkeypatch):
    measure = find("robustness")
    before = source_fingerprint(measure.function)
    values = catalogue.compactness.VALUES
    monkeypatch.setattr(catalogue.compactness, "VALUES", values | {"rotation": (0.0, 1.0)})
    assert source_fingerprint(measure.function) != before
    monkeypatch.undo()
    assert source_fingerprint(measure.function) == before
    monkeypatch.setattr(catalogue.robustness, "drop", lambda accuracies, values, factor: 0.0)
    assert source_fingerprint(measure.function) != before


def test_sizes_are_settings(network, digits):
    assert SIZES.of(find("path")) == {"images": 12, "kept": 0.1, "seed": 0}
    assert replace(SIZES, few=5).of(find("compactness")) == {"few": 5}


if __name__ == "__main__":
    FINGERPRINTS.write_text(json.dumps(fingerprints(), indent=1) + "\n", encoding="utf-8")
