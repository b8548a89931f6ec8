"""The plan of notebook 07: a network to start from, and what the reader's own are trained and measured with."""

import tomllib

import pytest
import torch

from capsnb.evidence import plans, sweep
from capsnb.nn.models import CapsNetConfig, count_parameters
from capsnb.training.identity import decode, encode

PLANS = {profile: plans.plan("07", profile) for profile in plans.PROFILES}


@pytest.mark.parametrize("profile", list(PLANS))
def test_one_network_with_a_decoder_that_a_readers_can_be_made_of(profile):
    plan = PLANS[profile]
    (spec,) = (specs[0] for specs in plan.specs.values())
    assert list(plan.specs) == ["capsnet"]
    assert spec.model.decoder == "conditional"
    assert decode(encode(spec)) == spec
    assert plan.watch == {"life": ("life", {})}
    assert len(plan.seeds) == {"smoke": 1, "quick": 1, "long": 3, "full": 3}[profile]


@pytest.mark.parametrize("profile", list(PLANS))
def test_settings_leave_images_enough_to_be_split_and_measured(profile):
    settings = PLANS[profile].settings
    assert settings["drawn"] >= 10, "a class needs images to train, validate and test"
    assert settings["sizes"].few <= settings["sizes"].images
    assert settings["recipe"].epochs >= 1


@pytest.mark.parametrize("profile", list(PLANS))
def test_the_grids_networks_are_small(profile):
    grid = sweep.expand(tomllib.loads(PLANS[profile].settings["grid"]))
    (spec,) = grid.specs
    assert count_parameters(spec.model) < 50_000
    assert (spec.data.crop, spec.model.size) == (20, 20)
    with torch.no_grad():
        assert spec.build()(torch.zeros(2, 1, 20, 20)).scores.shape == (2, 10)


def test_a_reader_adds_what_is_varied_to_the_grids_base():
    varied = '[grid]\n"model.routing.temperature" = [1.0, 0.5]\nseed = [0, 1]\n'
    grid = sweep.expand(tomllib.loads(PLANS["smoke"].settings["grid"] + varied))
    assert [(spec.model.routing.temperature, spec.seed) for spec in grid.specs] == [(1, 0), (1, 1), (0.5, 0), (0.5, 1)]


def test_full_is_sabours_network_on_mnist():
    spec = PLANS["full"].specs["capsnet"][0]
    assert spec.model == CapsNetConfig()
    assert spec.data.name == "mnist"
    assert all(plan.specs["capsnet"][0].data.name == "mnist-sample" for p, plan in PLANS.items() if p != "full")
