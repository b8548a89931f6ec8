"""A network through the measures of five papers: rows agree with the measures, and what is missing has its sentence."""

import copy
import math

import pytest
import torch

from capsnb.data import DataSpec, prepare
from capsnb.measure import catalogue, entropy, survey
from capsnb.measure.protocol import Measure
from capsnb.nn import taps
from capsnb.nn.models import CapsNetConfig, ConvNetRConfig, StridedStem
from capsnb.training.evaluation import evaluate

SIZES = survey.Sizes(images=12, few=3, parts=2)
ROWS = {(measure.paper, name) for measure in survey.surveyed() for name in measure.rows}


@pytest.fixture(scope="module")
def digits():
    return prepare(DataSpec(resize=14, train=20, validation=20, test=20))


@pytest.fixture(scope="module")
def network():
    stem = StridedStem(channels=4, kernel=5, types=2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CapsNetConfig(size=14, stem=stem, decoder_widths=(8,)).build()


def test_a_capsule_network_has_all_numbers_and_they_are_those_of_the_measures(network, digits):
    found = survey.survey(network, digits, SIZES)
    assert found.values.keys() == ROWS
    assert found.reasons == {}
    assert all(math.isfinite(value) for value in found.values.values())
    assert found.values["network", "accuracy, %"] == 100 * evaluate(network, digits.test).accuracy
    batches = catalogue.first(digits.test, 12).batches(50)
    routing = entropy.associations(network, batches)["class.coupling"]
    assert found.values[catalogue.LIN, "certainty, 0 to 1"] == pytest.approx(routing.certainty)
    assert found.values[catalogue.GU, "its bound, nats"] == pytest.approx(math.log(16))
    assert survey.survey(network, digits, SIZES).values == found.values, "the nulls are seeded"


def test_what_a_network_lacks_is_a_sentence_and_the_rest_is_measured(network, digits):
    plain = ConvNetRConfig(size=14, width=8, kernel=5, head="sum", decoder="none").build()
    found = survey.survey(plain, digits, SIZES)
    assert found.values.keys() == ROWS
    assert {row for row, value in found.values.items() if math.isnan(value)} == found.reasons.keys()
    assert math.isfinite(found.values[catalogue.GU, "points lost by rotation"])
    told = survey.missing({"plain": found, "ours": survey.survey(network, digits, SIZES, measures=())})
    assert any("has no tap 'class.coupling'; it has: conv1, conv2, class.poses" in reason for reason in told)
    assert sum(map(len, told.values())) == len(found.reasons)
    assert "plain: dead capsules, %" in next(rows for reason, rows in told.items() if "has no parse tree" in reason)


def test_a_measure_of_ones_own_joins_and_tables_stand_side_by_side(network, digits):
    def count(model, data, *, few=1):
        return {"images": len(data.test), "few": few, "not in the survey": 5}

    mine = Measure("count", count, paper="ours", rows=("images", "few"))
    found = survey.survey(network, digits, SIZES, measures=[mine])
    assert found.values == {("ours", "images"): 20.0, ("ours", "few"): 3.0}
    frame = survey.side_by_side({"a": found, "b": survey.Survey({("ours", "images"): 7.0}, {})})
    assert frame.loc[("ours", "images")].tolist() == [20.0, 7.0]
    assert math.isnan(frame.loc[("ours", "few"), "b"])


def test_what_is_no_missing_part_is_raised(network, digits):
    def broken(model, data):
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        survey.survey(network, digits, SIZES, measures=[Measure("broken", broken, paper="ours", rows=("x",))])
    for wrong in ({"few": 1}, {"kept": 0.0}, {"parts": 1}):
        with pytest.raises(ValueError, match="at least 2 images"):
            survey.Sizes(**wrong)


class Scaled(torch.nn.Linear):
    def forward(self, values):
        return 2 * super().forward(values)


@pytest.mark.parametrize("inner", [Scaled(3, 2), torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU())])
def test_a_tap_can_be_attached_to_a_part_of_a_model_and_reads_and_edits_there(network, inner):
    class Bare(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = copy.deepcopy(inner)

        def forward(self, values):
            return 10 * self.inner(values)

    model, values = Bare(), torch.randn(4, 3)
    plain, names = model(values), set(model.state_dict())
    tap = taps.attach(model, "inner")
    assert taps.names(model) == ("inner",)
    assert set(model.state_dict()) == names
    with taps.record(model, "inner") as seen:
        assert torch.equal(model(values), plain)
    assert torch.equal(10 * seen["inner"], plain)
    with taps.edit(model, {"inner": torch.zeros_like}):
        assert not model(values).any()
    assert tap.idle
    twin = copy.deepcopy(model)
    with taps.edit(twin, {"inner": torch.zeros_like}):
        assert not twin(values).any()
        assert torch.equal(model(values), plain), "a copy has a tap of its own"
    with pytest.raises(ValueError, match="has a tap 'inner' already"):
        taps.attach(model, "inner")
    with pytest.raises(ValueError, match="has no part 'outer'; it has: inner"):
        taps.attach(model, "outer")
    with pytest.raises(ValueError, match="has a tap 'primary' already"):
        taps.attach(network, "primary")
