"""Profiles decide cost; a plan passes what it observes to every run, so that a cached run is found again."""

import json
import math

import pytest

from capsnb.evidence import plans
from capsnb.nn.models import ZOO, CapsNetConfig
from capsnb.training import runs


@pytest.mark.parametrize("profile", list(plans.PROFILES))
@pytest.mark.parametrize("notebook", list(profiles.PLANS))
def test_every_notebook_has_a_plan_at_every_profile(notebook, profile):
    plan = plans.plan(notebook, profile)
    assert plan.profile == profile
    assert plan.specs
    seeds = {tuple(spec.seed for spec in specs) for specs in plan.specs.values()}
    assert plan.seeds in seeds <= {plan.seeds, plan.seeds[:1]}  # all of them, or what is trained once
    assert len({runs.folder_of(spec).name for spec in plan.all_specs()}) == len(plan.all_specs())


def test_seeds_count_from_the_first():
    plan = plans.plan("00", "smoke", seed=7, seeds=3)
    assert plan.seeds == (7, 8, 9)
    assert [spec.seed for specs in plan.specs.values() for spec in specs] == [7, 8, 9]


def test_the_profile_is_the_argument_else_the_environment_else_quick(monkeypatch):
    monkeypatch.setenv("CAPSNB_PROFILE", "smoke")
    assert plans.current() == "smoke"
    assert plans.current("full") == "full"
    monkeypatch.delenv("CAPSNB_PROFILE")
    assert plans.current() == "quick"


def test_a_protocol_names_no_seed_not_even_that_of_a_start():
    first, other = (plans.plan("03", "quick", seed=seed) for seed in (0, 7))
    stacked = [spec for spec in other.all_specs() if spec.start is not None]
    assert {(spec.seed, spec.start.seed) for spec in stacked} == {(7, 7)}
    assert first.protocol() == other.protocol()


def test_the_full_first_notebook_is_sabours_own_training():
    plan = plans.plan("00", "full")
    assert set(plan.specs) == {
        "baseline CNN", "1 iteration", "1 iteration, reconstruction", "3 iterations", "3 iterations, reconstruction"
    }  # fmt: skip
    assert len(plan.seeds) == 3  # table 1 has three trials
    for variant, specs in plan.specs.items():
        spec = specs[0]
        assert spec.data.name == "mnist"
        assert (spec.recipe.batch, spec.recipe.learning_rate, spec.recipe.decay) == (128, 1e-3, 0.96)
        assert spec.recipe.augment.shift == 2
        # 300,000 steps of 128 images
        assert spec.recipe.epochs * math.ceil(55_000 / 128) == pytest.approx(300_000, abs=430)
        if variant != "baseline CNN":
            assert spec.model.routing.iterations == int(variant[0])
            assert (spec.model.decoder == "conditional") == variant.endswith("reconstruction")
    assert plan.specs["3 iterations, reconstruction"][0].model == CapsNetConfig() == ZOO["capsnet"].config


def test_a_plans_runs_are_found_again_with_what_they_observe(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPSNB_RUNS", str(tmp_path))
    plan = plans.plan("00", "smoke")
    (spec,) = plan.all_specs()
    assert plan.forecast()[0] > 0
    rows = list(plan.follow(spec, progress=False))
    assert 0 <= rows[-1]["test accuracy"] <= 1
    assert plan.forecast() == [0.0]
    assert plan.get(spec).history == rows


def test_a_record_names_each_code_version_once(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPSNB_RUNS", str(tmp_path))
    plan = plans.plan("04", "long")
    assert plan.made() == {}
    for spec, code, date in zip(plan.all_specs(), ["b", "a, then b", "b, then c"], "132", strict=False):
        folder = runs.folder_of(spec, observe=plan.observe, every=plan.every)
        folder.mkdir()
        (folder / "model.pt").touch()
        made = {"code": code, "device": "CPU", "date": date, "versions": {"torch": "2"}}
        (folder / "made.json").write_text(json.dumps(made), encoding="utf-8")
    assert plan.made() == {"code": "b, a, c", "device": "CPU", "date": "3", "versions": {"torch": "2"}}


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        (("99",), {}, "no notebook '99'; there are: 00"),
        (("00", "fast"), {}, "profile 'fast' is unknown; allowed: smoke, quick, long, full"),
        (("00", "smoke"), {"seeds": 0}, "seeds = 0: at least 1"),
    ],
)
def test_bad_arguments_say_what_is_allowed(arguments, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        plans.plan(*arguments, **options)
