"""The plan of notebook 04: the paper's network where the paper is compared with, one thing changed at a time."""

from dataclasses import replace

import pytest
from helpers import changes

from capsnb.evidence import plans, published
from capsnb.measure import viewpoint
from capsnb.nn.models import ZOO
from capsnb.training.hooks import DecoupledDecay
from capsnb.training.identity import decode, encode
from plans import parse_tree_scaling

PLANS = {profile: plans.plan("04", profile) for profile in plans.PROFILES}


@pytest.mark.parametrize("profile", ["long", "full"])
def test_the_papers_network_on_the_papers_digits(profile):
    plan = PLANS[profile]
    spec = plan.specs["agreement"][0]
    paper = ZOO["deep-rba-40"].config
    assert replace(spec.model, stem=paper.stem) == (paper if profile == "long" else replace(paper, init="uniform"))
    assert [spec.model.stem.capsules, *(n for n, _ in spec.model.hidden), spec.model.classes] == [16, 16, 16, 16, 10]
    assert (spec.data.name, spec.data.derive.kind, spec.data.derive.size) == ("mnist", "c", 40)
    recipe = spec.recipe
    assert (recipe.learning_rate, recipe.decay, recipe.decay_unit, recipe.weight_decay) == (1e-3, 0.96, "epochs", 1e-5)
    assert recipe.reconstruction_weight * 1600 == pytest.approx(0.005)
    assert len(plan.seeds) == {"long": 5, "full": 10}[profile]


def test_full_stops_where_the_paper_does_and_sees_its_pixels():
    spec = PLANS["full"].specs["agreement"][0]
    assert spec.recipe.target_accuracy == published.find("mitterreiter2023/training")["target"].value / 100
    assert spec.model.stem == replace(ZOO["deep-rba-40"].config.stem, standard=(0.0641, 0.2257))
    assert PLANS["full"].specs["CIFAR-10"][0].model.stem.standard is None, "those are the digits' numbers"


def test_cifar_has_the_decay_of_the_digits():
    for profile in ("long", "full"):
        one, other = (PLANS[profile].specs[name][0].recipe for name in ("agreement", "CIFAR-10"))
        assert one.weight_decay == other.weight_decay


def test_what_goes_on_starts_from_the_networks_end():
    specs = PLANS["long"].specs
    unsatisfied = specs[parse_tree_scaling.UNSATISFIED][0]
    assert changes(specs["decay off from then on"][0], unsatisfied) == {"recipe.loss"}
    assert changes(unsatisfied, specs[parse_tree_scaling.KEPT][0]) == {"recipe.weight_decay"}
    for name, decay in (("decay off from then on", 0.0), ("decay kept", 1e-5)):
        for before, after in zip(specs["agreement"], specs[name], strict=True):
            assert after.start == before and after.recipe.weight_decay == decay
            assert after.recipe.learning_rate == before.recipe.learning_rate_at(0, 12)
    assert changes(specs["agreement, the authors' start"][0], specs["agreement, the authors' start, 30 epochs"][0]) == {
        "recipe.epochs"
    }


@pytest.mark.parametrize("profile", list(PLANS))
def test_the_pair_differs_in_weight_decay_alone(profile):
    for first, second in zip(PLANS[profile].specs["agreement"], PLANS[profile].specs["no weight decay"], strict=True):
        assert changes(first, second) == {"recipe.weight_decay"}
        assert second.recipe.weight_decay == 0 < first.recipe.weight_decay


@pytest.mark.parametrize("profile", ["long", "full"])
def test_every_other_variant_changes_one_thing(profile):
    plan = PLANS[profile]
    base = plan.specs["agreement"][0]
    on = {"decay off from then on", "decay kept", parse_tree_scaling.UNSATISFIED, parse_tree_scaling.KEPT}
    wide = {"Sabour's network", "CIFAR-10"} | on
    two = {
        "our start halved": {"model.init", "model.init_scale"},
        "our start doubled": {"model.init", "model.init_scale"},
    }
    two["no weight decay, the authors' start"] = {"recipe.weight_decay", "model.init"}
    two["agreement, the authors' start, 30 epochs"] = {"recipe.epochs", "model.init"}
    for name, specs in plan.specs.items():
        found = changes(base, specs[0])
        if name == "decoupled decay":
            assert found == {"recipe.weight_decay", "recipe.hooks"}
            assert specs[0].recipe.hooks == (DecoupledDecay(weight_decay=0.01),)
        elif name in two:
            assert found == two[name]
        elif name != "agreement" and name not in wide:
            assert len(found) == 1, (name, found)
    assert wide - set(plan.specs) == ({"Sabour's network"} if profile == "long" else on)
    assert plan.specs["CIFAR-10"][0].data.name == "cifar10"
    assert [len(plan.specs[name][0].model.hidden) + 2 for name in ("3 layers", "agreement", "8 layers")] == [3, 5, 8]


@pytest.mark.parametrize("profile", list(PLANS))
def test_settings_and_what_is_watched_are_those_the_notebook_reads(profile):
    plan = PLANS[profile]
    assert plan.watch == {name: (name, {}) for name in ("curve", "life", "pull")}
    assert set(plan.measures) == set(plan.specs)
    assert set(plan.settings) == set(parse_tree_scaling.SETTINGS)
    for kind, (_, identity, _) in viewpoint.KINDS.items():
        assert identity in plan.settings[kind]
    assert len(plan.settings["cost n"]) >= 2 and len(plan.settings["cost d"]) >= 2


@pytest.mark.parametrize("name", list(PLANS["full"].specs))
def test_every_variant_can_be_built_and_written_down(name):
    spec = PLANS["full"].specs[name][0]
    assert decode(encode(spec)) == spec
    spec.build()
    for hook in spec.recipe.hooks:
        hook.build(spec.build())
