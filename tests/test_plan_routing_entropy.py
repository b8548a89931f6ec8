"""The plan of notebook 02: the paper's data in full, one thing changed at a time, starts that were trained before."""

from dataclasses import replace
from functools import partial
from itertools import product

import helpers
import pytest

from capsnb.data import prepare
from capsnb.evidence import plans
from capsnb.evidence.published import find, lookup
from capsnb.evidence.sweep import read_grid
from capsnb.measure import manifold
from capsnb.nn.models import ZOO
from capsnb.plot.points import SCHEMES
from capsnb.training import runs
from capsnb.training.hooks import FollowFitness
from capsnb.training.identity import decode, encode
from plans import routing_entropy

PLANS = {profile: plans.plan("02", profile) for profile in plans.PROFILES}
changes = partial(helpers.changes, into=("model", "recipe", "routing"))


def test_the_published_numbers_are_those_of_the_paper():
    chamfer = {name: (entry.value, entry.spread) for name, entry in find("lin2018/chamfer").items()}
    assert chamfer == {"capsnet": (0.313, 0.010), "cnn": (0.394, 0.025)}
    assert [entry.value for entry in find("lin2018/multimnist-images").values()] == [30_889, 4_738]


@pytest.mark.parametrize(("profile", "side", "seeds", "tested"), [("long", 20, 10, 10_000), ("full", 36, 5, 4_738)])
def test_the_paper_s_data_in_its_size(profile, side, seeds, tested):
    plan = PLANS[profile]
    spec = plan.specs["iterations/3"][0]
    pairs = spec.data.derive
    published = [lookup(f"lin2018/multimnist-images/{split}").value for split in ("train", "test")]
    assert pairs.train == published[0] and pairs.test == tested >= published[1]
    assert (spec.data.name, pairs.size, pairs.shift, spec.model.size) == ("mnist", side, 4, side)
    assert (spec.data.crop, spec.data.resize) == ((24, 12) if side == 20 else (None, None))
    assert len(plan.seeds) == seeds  # 5 trials in the paper
    drawn = [spec.data for spec in plan.specs["iterations/3"]]
    assert [(each.seed, each.derive.seed) for each in drawn] == [(seed, seed) for seed in range(seeds)]
    for domain in ("source", "base"):
        half = plan.specs[f"transfer/capsnet/{domain}"][0].data.derive
        assert half.train == published[0] // 2
        assert profile == "long" or half.test == published[1] // 2


def test_full_has_the_networks_of_the_zoo_and_all_variants():
    plan = PLANS["full"]
    assert plan.specs["iterations/3"][0].model == ZOO["lin-36"].config
    assert plan.specs["cnn"][0].model == ZOO["lin-cnn-36"].config
    assert plan.specs["transfer/capsnet/base"][0].model == ZOO["lin-transfer-36"].config
    assert plan.specs["transfer/cnn/base"][0].model == ZOO["lin-transfer-cnn-36"].config
    assert plan.specs["sabour"][0].model == ZOO["capsnet"].config
    groups = {name.split("/")[0] for name in plan.specs}
    names = {"iterations", "rate", "cnn", "average", "transfer", "re-adjusted", "schedule", "other", "sabour"}
    names |= {"random"}
    assert groups == names


@pytest.mark.parametrize("profile", list(PLANS))
def test_every_profile_can_test_every_claim(profile):
    plan = PLANS[profile]
    specs = {name: found[0] for name, found in plan.specs.items()}
    assert {"iterations/1", "iterations/3", "iterations/6", "iterations/7", "rate/0.01", "cnn", "average"} <= set(specs)
    others = {f"other/{routing_entropy.HALVED[0]}/iterations/{count}" for count in (3, 7)} | {"sabour"}
    assert others.isdisjoint(specs) if profile == "long" else others <= set(specs), "no claim rests on them"
    if profile != "long":
        assert specs["sabour"].model.hidden == () and specs["sabour"].data.derive is None
    for network in ("capsnet", "cnn"):
        assert {f"transfer/{network}/{scheme}" for scheme in ("source", *SCHEMES)} <= set(specs)
    hard = specs["iterations/6"]
    for name, spec in specs.items():
        group, _, value = name.partition("/")
        if group == "iterations":
            assert spec.model.routing.iterations == int(value) and spec.model.routing.rate == 1
            assert changes(hard, spec) <= {"model.routing.iterations"}
        if group == "rate":
            assert spec.model.routing.rate == float(value) and changes(hard, spec) == {"model.routing.rate"}
        if group == "schedule":
            (hook,) = spec.recipe.hooks
            assert isinstance(hook, FollowFitness) and changes(hard, spec) == {"recipe.hooks"}
            assert hook.field == value and hook.end == getattr(hard.model.routing, value)
    assert changes(specs["cnn"], specs["average"]) == {"model"}
    assert changes(hard, specs["cnn"]) == {"model", "recipe.loss"}


def test_what_transfers_start_from_trains_as_many_steps_at_long_as_the_main_networks():
    for name, specs in PLANS["long"].specs.items():
        if name.startswith("transfer/"):
            begun = name.rpartition("/")[2] in ("source", "base")
            assert specs[0].recipe.epochs == (20 if begun else 10) and 2 * specs[0].data.derive.train in (30_888,)
            assert begun or specs[0].start.recipe == replace(specs[0].recipe, epochs=20)
    assert all(spec.recipe.epochs == 20 for name in PLANS["full"].specs for spec in PLANS["full"].specs[name][:1])


def test_layers_kept_as_drawn_are_the_null_of_those_of_base():
    for profile, plan in PLANS.items():
        specs = {name: found[0] for name, found in plan.specs.items()}
        for net, kept in product(("capsnet", "cnn"), (1, 2)):
            null, base = specs[f"random/{net}/R{kept}B"], specs[f"transfer/{net}/B{kept}B"]
            assert null == replace(base, start=None, reset=(), redraw=0) and null.frozen, profile


def test_seeds_seen_before_some_claims_are_those_of_long_alone():
    assert {profile: plan.settings["seen"] for profile, plan in PLANS.items()} == {
        "smoke": (), "quick": (), "long": (0, 1, 2), "full": ()
    }  # fmt: skip


def test_another_choice_changes_that_alone():
    specs = {name: found[0] for name, found in PLANS["full"].specs.items()}
    seen = set()
    for choice in routing_entropy.CHOICES:
        variants = ("iterations/3", "iterations/6", "iterations/7", "rate/0.01")
        found = {frozenset(changes(specs[name], specs[f"other/{choice}/{name}"])) for name in variants}
        ((field,),) = found
        seen.add(field)
    assert seen == {"recipe.learning_rate", "model.hidden", "model.squash", "model.routing.gradient"}
    again = [name for name in specs if name.startswith("re-adjusted/")]
    assert len(again) == 8
    for name in again:
        fresh = specs[name.replace("re-adjusted", "transfer")]
        assert specs[name] == replace(fresh, reset=(), redraw=0)


def test_the_grid_of_certainty_is_the_plan_s_network_on_seeds_of_its_own(project):
    grid, plan = read_grid(project / "notebooks/sweeps/certainty.toml"), PLANS["long"]
    assert len(set(grid.specs)) == 65 and grid.notebook == "02"
    seeds = {settings["seed"] for settings in grid.settings}
    assert len(seeds) == 5 and not seeds & set(plan.seeds)
    base, free = plan.specs["iterations/3"][0], ("iterations", "rate", "temperature")
    arms = set()
    for settings, spec in zip(grid.settings, grid.specs, strict=True):
        routing, chosen = spec.model.routing, tuple(settings[name] for name in free)
        assert tuple(getattr(routing, name) for name in free) == chosen, "labels say what is set"
        assert spec.data.seed == spec.data.derive.seed == spec.seed == settings["seed"]
        same = replace(plans.seeded(spec, 0, draws=True), model=base.model)
        assert same == replace(base, recipe=replace(base.recipe, report_every=spec.recipe.report_every))
        assert replace(spec.model, routing=base.model.routing) == base.model
        assert replace(routing, **{name: getattr(base.model.routing, name) for name in free}) == base.model.routing
        arms.add(chosen)
    assert {(count, rate, 1.0) for count in (3, 6) for rate in (0.01, 0.1, 0.5, 1.0)} | {(1, 1.0, 1.0)} <= arms
    weights = {count: {(count - 1) / t for n, rate, t in arms if n == count and rate == 1} for count in (3, 6)}
    assert [sorted(weights[count]) for count in (3, 6)] == [pytest.approx([2, 5, 12.5])] * 2


def test_each_seed_of_a_scheme_starts_from_its_own_networks_that_are_trained_before():
    plan = plans.plan("02", "smoke", seed=3, seeds=2)
    order = list(plan.specs)
    for network in ("capsnet", "cnn"):
        for scheme, start in {"A1B": "source", "A2B": "source", "B1B": "base", "B2B": "base"}.items():
            name, begun = f"transfer/{network}/{scheme}", f"transfer/{network}/{start}"
            assert [spec.start for spec in plan.specs[name]] == list(plan.specs[begun])
            assert [spec.seed for spec in plan.specs[name]] == [3, 4]
            splits = [spec.start.data.derive.pairs for spec in plan.specs[name]]
            assert splits[0] != splits[1], "each seed has a split of its own"
            if start == "base":
                assert splits == [spec.data.derive.pairs for spec in plan.specs[name]]
            assert order.index(begun) < order.index(name)


@pytest.mark.parametrize("profile", list(PLANS))
def test_settings_and_what_is_watched_are_those_the_notebook_reads(profile):
    plan = PLANS[profile]
    columns = plan.settings["entropy"]
    assert set(plan.watch) == {"curve", "shares", *columns.values()} and list(columns) == ["R1", "R2"]
    images = {"smoke": 20, "quick": 200, "long": 250, "full": 500}[profile]
    for name, layer in {"R1": "caps1", "R2": "class"}.items():
        assert plan.watch[columns[name]] == ("routing entropy", {"layer": layer, "images": images})
    assert plan.watch["shares"] == ("parent shares", {"images": images})
    for name, tap in plan.settings["taps"].items():
        variant = plan.settings["capsnet"] if name == "capsnet" else name
        measures = dict(plan.measures[variant])
        assert measures["shift manifold"]["tap"] == tap and "associations" in measures
    assert set(plan.settings["taps"]) == {"capsnet", "cnn", "average"}
    assert plan.settings["capsnet"] in plan.specs
    images = (2 * plan.settings["radius"] + 1) ** 2
    assert images == 81 and plan.settings["perplexity"] < images
    assert plan.settings["embedding seeds"] >= (10 if profile == "full" else 1)


@pytest.mark.parametrize("name", list(PLANS["smoke"].specs))
def test_every_variant_can_be_written_down(name):
    spec = PLANS["smoke"].specs[name][0]
    assert decode(encode(spec)) == spec
    assert all(decode(encode(found[0])) == found[0] for found in PLANS["full"].specs.values())


@pytest.mark.parametrize("profile", ["smoke", "quick"])
def test_small_profiles_fit_their_shift_sets(profile):
    plan = PLANS[profile]
    settings, spec = plan.settings, plan.specs["cnn"][0]
    plain = prepare(replace(spec.data, derive=None))
    sets = manifold.shift_sets(
        plain.test, settings["digits"], count=settings["sets"], radius=settings["radius"], size=settings["size"]
    )
    assert len(sets) == 2 * settings["sets"]
    for network, variant in {"capsnet": settings["capsnet"], "cnn": "cnn", "average": "average"}.items():
        model = plan.specs[variant][0].build()
        assert manifold.representation(model, sets[0].images, settings["taps"][network]).shape[0] == 81


def test_smoke_trains_every_kind_of_variant(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPSNB_RUNS", str(tmp_path))
    plan = PLANS["smoke"]
    for name in ("rate/0.01", "cnn", "transfer/capsnet/source", "transfer/capsnet/A2B", "schedule/rate"):
        (spec,) = plan.specs[name]
        rows = list(plan.follow(spec, progress=False))
        assert 0 <= rows[-1]["curve"]["validation accuracy"] <= 1
        assert (rows[-1][plan.settings["entropy"]["R1"]] is None) == (name == "cnn")
    folders = {runs.read_spec(folder).data for folder in tmp_path.iterdir()}
    assert len(folders) == 3  # all pairs, and both domains: the start was found, not trained a second time
    assert len(list(tmp_path.iterdir())) == 5
