"""The plan of notebook 01: the paper's sets and recipe in full, what smaller profiles leave out, what is measured."""

from functools import partial

import helpers
import pytest
import torch

from capsnb.data import Augment
from capsnb.evidence import plans
from capsnb.evidence.published import find, lookup
from capsnb.measure import protocol
from capsnb.measure.paths import Places
from capsnb.nn.models import ZOO
from capsnb.training.identity import decode, encode
from plans import characterization

PLANS = {profile: plans.plan("01", profile) for profile in plans.PROFILES}
changes = partial(helpers.changes, into=("model", "data", "recipe"))


def first(plan, name):
    return plan.specs[name][0]


@pytest.mark.parametrize("profile", list(PLANS))
def test_every_profile_has_both_routings_of_each_network_with_decoders(profile):
    plan = PLANS[profile]
    assert {f"mnist/{name}" for name in characterization.NETWORKS} <= set(plan.specs)
    assert all(specs[0].model.decoder == "conditional" for specs in plan.specs.values())
    assert len(plan.seeds) == {"smoke": 1, "quick": 1, "long": 3, "full": 3}[profile]
    assert plan.opens == "long"


@pytest.mark.parametrize("profile", list(PLANS))
def test_every_network_is_measured_by_what_the_notebook_reads(profile):
    plan = PLANS[profile]
    for name in characterization.NETWORKS:
        found = plan.measures[f"mnist/{name}"]
        asked = [settings for measure, settings in found if measure == "swapped set"]
        assert {(each["direction"], each["sets"]) for each in asked} == {
            (way, sets) for way in ("backward", "forward") for sets in ("class", "image")
        }
        for measure, settings in found:
            protocol.find(measure).settings(**settings)  # raises ValueError for one that it has not
            assert plan.settings["sizes"].get(measure, {}).items() <= settings.items()
        scopes = dict(found)["path scopes"]
        assert scopes.get("filters") == (1.0 if name.startswith("em") else None)
    assert plan.settings["k"] == (5 if profile == "smoke" else lookup("tawalbeh2024/chosen-k/primary-capsules").value)
    assert {name for name in plan.specs if name.split("/")[1] in characterization.NETWORKS} == set(plan.measures)


@pytest.mark.parametrize("profile", list(PLANS))
def test_nothing_is_augmented_and_every_spec_can_be_written_down(profile):
    for specs in PLANS[profile].specs.values():
        assert specs[0].recipe.augment == Augment()
        assert decode(encode(specs[0])) == specs[0]


def test_full_is_the_paper_s_recipe():
    plan = PLANS["full"]
    names = {f"{name}/{network}" for name in characterization.SETS for network in ("dr", "em")}
    twins = {f"{name}/{network}" for name in characterization.SETS for network in ("dr-children", "em-cancelled")}
    enhanced = {f"{name}/{network}" for name in characterization.ENHANCED for network in ("efficient", "rescaps")}
    assert set(plan.specs) == names | twins | enhanced
    zoo = {"dr": "capsnet", "em": "em-12", "efficient": "efficient-capsnet", "rescaps": "rescaps"}
    assert {name: first(plan, f"mnist/{name}").model for name in zoo} == {n: ZOO[key].config for n, key in zoo.items()}
    epochs = {name: first(plan, name).recipe.epochs for name in names}
    assert [epochs[f"{name}/dr"] for name in characterization.SETS] == [50, 32, 7, 35]
    assert (epochs["mnist/em"], epochs["svhn/em"], epochs["cifar10/em"]) == (50, 32, 120)
    recipes = [specs[0].recipe for specs in plan.specs.values()]
    assert {(recipe.batch, recipe.decay) for recipe in recipes} == {(32, 1.0)}
    for name in names:
        recipe = first(plan, name).recipe
        rate, decay, loss = (3e-3, 2e-7, "spread") if name.endswith("em") else (1e-3, 0.0, "margin")
        assert (recipe.learning_rate, recipe.weight_decay, recipe.loss) == (rate, decay, loss)
        assert recipe.loss == ZOO[zoo[name.split("/")[1]]].loss


def test_full_has_the_paper_s_image_sizes_and_splits():
    plan = PLANS["full"]
    found = {name: first(plan, f"{name}/dr") for name in characterization.SETS}
    assert [spec.model.size for spec in found.values()] == [28, 32, 32, 64]
    assert [spec.model.channels for spec in found.values()] == [1, 3, 3, 3]
    assert [spec.model.classes for spec in found.values()] == [10, 10, 2, 10]
    assert [spec.data.validation for spec in found.values()] == [10_000, 10_000, None, 10_000]
    assert found["cifar10"].data.resize == 64 and found["mnist"].data.resize is None
    published = {name.split("/")[0] for name in find("tawalbeh2024/table1")}
    assert published == set(characterization.SETS)


def test_filters_of_a_path_are_the_paper_s_share():
    own = protocol.find("path scopes").defaults["filters"]
    assert own * 256 == lookup("tawalbeh2024/chosen-k/conv-filters").value


def test_long_has_both_routings_of_each_network_and_the_paper_s_validation_and_test_digits():
    plan = PLANS["long"]
    for name in characterization.NETWORKS:
        data = first(plan, f"mnist/{name}").data
        assert (data.name, data.validation, data.test) == ("mnist", 10_000, None)
    both = {"dr", "dr-children", "em", "em-cancelled"}
    assert set(plan.specs) == {f"{name}/{n}" for name in ("mnist", *characterization.LATER) for n in both}
    assert list(plan.specs)[:4] == ["mnist/dr", "mnist/em", "mnist/dr-children", "mnist/em-cancelled"]
    for specs in plan.specs.values():
        assert [spec.seed for spec in specs] == [0, 1, 2]


@pytest.mark.parametrize("name", ["mnist", *characterization.LATER])
def test_the_released_variants_differ_by_their_routing_and_dr_by_its_start(name):
    plan = PLANS["long"]
    assert changes(first(plan, f"{name}/em"), first(plan, f"{name}/em-cancelled")) == {"model.routing"}
    ours, theirs = first(plan, f"{name}/dr"), first(plan, f"{name}/dr-children")
    assert changes(ours, theirs) == {"model.routing", "model.init_scale"}
    assert theirs.model.routing == ZOO["capsnet-children"].config.routing
    assert characterization.released("dr", ZOO["capsnet"].config) == ZOO["capsnet-children"].config
    assert characterization.released("em", ZOO["em-12"].config) == ZOO["em-12-cancelled"].config
    torch.manual_seed(0)
    start = theirs.model.build().get_submodule("class").weight
    assert abs(start.std() - 1) < 0.01  # their N(0, 1)


@pytest.mark.parametrize("profile", ["smoke", "quick", "long"])
def test_networks_fit_their_images_and_have_places_for_paths(profile):
    plan = PLANS[profile]
    for name in characterization.NETWORKS:
        spec = first(plan, f"mnist/{name}")
        assert spec.model.size == (spec.data.crop or spec.data.resize or 28)
        if profile == "smoke":
            model = spec.build().eval()
            places = Places.of(model)
            assert places.layer == "class"
            assert model.get_submodule(places.units).capsules >= plan.settings["k"]
            with torch.no_grad():
                output = model(torch.zeros(2, 1, spec.model.size, spec.model.size))
            assert output.scores.shape == (2, 10) and output.reconstruction.shape == (2, 1, 14, 14)
