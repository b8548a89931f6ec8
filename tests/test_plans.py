"""Profiles decide cost; a plan's runs are watched, found again and measured; a recorded profile asks the store."""

import json
import math

import pytest

from capsnb.data import prepare
from capsnb.evidence import plans
from capsnb.measure import protocol
from capsnb.measure.observations import Observation
from capsnb.measure.observe import observe
from capsnb.nn.models import ZOO, CapsNetConfig
from capsnb.training import runs
from capsnb.training.evaluation import evaluate


@pytest.mark.parametrize("profile", list(plans.PROFILES))
@pytest.mark.parametrize("notebook", list(plans.planned()))
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
    first, other = (plans.plan("03", "smoke", seed=seed) for seed in (0, 7))
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


def test_a_plans_runs_are_found_again_with_what_was_watched(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPSNB_RUNS", str(tmp_path))
    plan = plans.plan("00", "smoke")
    (spec,) = plan.all_specs()
    assert plan.forecast()[0] > 0
    rows = list(plan.follow(spec, progress=False))
    assert 0 <= rows[-1]["curve"]["validation accuracy"] <= 1
    assert plan.forecast() == [0.0]
    assert plan.get(spec).history == rows


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The plan of notebook 07 at smoke, two seeds, whose runs go to a folder of their own."""
    monkeypatch.setenv("CAPSNB_RUNS", str(tmp_path))
    return plans.plan("07", "smoke", seeds=2)


def test_a_plan_trains_and_observes_its_runs_side_by_side(small, tmp_path):
    small.train(jobs=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(runs.run_name(spec) for spec in small.all_specs())
    assert small.forecast() == [0.0, 0.0]
    weights = [(runs.folder_of(spec) / "model.pt").stat().st_mtime_ns for spec in small.all_specs()]
    found = small.observe("capsnet", "accuracy")
    assert list(found) == [0, 1]
    for spec, each in zip(small.all_specs(), found.values(), strict=True):
        right = 100 * evaluate(small.get(spec).model, prepare(spec.data).test).accuracy
        assert each.values["accuracy, %"] == pytest.approx(right)
    # nothing was trained or measured twice
    assert small.observe("capsnet", "accuracy") == found
    assert weights == [(runs.folder_of(spec) / "model.pt").stat().st_mtime_ns for spec in small.all_specs()]


def test_what_is_watched_is_a_column_by_the_plans_name_and_taken_of_any_model(small):
    spec = small.all_specs()[0]
    run = small.get(spec, progress=False)
    assert [row["step"] for row in run.history] == [1, 2]  # 64 images in batches of 32, a row for each step
    taken = small.take("life", run.model, prepare(spec.data))
    assert taken == run.history[-1]["life"]
    (series,) = observe([spec], "life", watched=True)
    assert series.values["step"] == [1, 2]
    assert [each["dead"] for each in (row["life"] for row in run.history)] == series.values["dead"]


def test_a_training_that_fails_is_named_and_the_plans_others_are_trained(small):
    (folder := runs.folder_of(small.all_specs()[0])).mkdir()
    (folder / "state.pt").write_text("no state")
    (failed,) = small.train(jobs=1)
    assert failed.name == folder.name and "state.pt is damaged" in failed.sentence
    assert runs.is_finished(runs.folder_of(small.all_specs()[1]))


def test_at_a_recorded_profile_the_store_answers_unless_runs_are_asked_for(monkeypatch):
    plan = plans.plan("07", "long")
    assert plan.recorded and not plans.plan("07", "smoke").recorded
    assert plan.observe("capsnet", "accuracy") == {}, "what the store lacks is never trained unasked"
    assert plan.told().startswith("The evidence store has none of the ")
    monkeypatch.setenv("CAPSNB_EVIDENCE", "runs")
    assert not plan.recorded


def test_a_plan_whose_runs_are_all_stored_says_what_they_took(small, monkeypatch):
    found = [Observation("accuracy", made={"seconds": 5400.0}), Observation("life")]
    monkeypatch.setattr(plans, "stored", lambda spec, **where: found)
    count = len(small.all_specs())
    whole = f"The evidence store has all {count} runs that are declared, {1.5 * count:.1f} core-hours of training."
    assert small.told() == whole


def test_a_history_has_a_row_for_so_many_steps_where_a_run_starts_too():
    specs = plans.plan("02", "long").all_specs()
    started = [spec for spec in specs if spec.start]
    assert {spec.recipe.report_every for spec in specs} == {spec.start.recipe.report_every for spec in started} == {483}
    assert {spec.start for spec in started} <= set(specs)
    assert {spec.recipe.report_every for spec in plans.plan("00", "smoke").all_specs()} == {None}  # a row per epoch


def test_planned_notebooks_are_those_with_a_module_beside_them(tmp_path):
    assert plans.planned()["03"] == "rem" and "06" not in plans.planned()
    (tmp_path / "plans").mkdir()
    for name in ("00_with_plan.ipynb", "01_without.ipynb", "notes.ipynb", "plans/with_plan.py", "plans/helper.py"):
        (tmp_path / name).touch()
    assert plans.planned(tmp_path) == {"00": "with_plan"}


@pytest.mark.parametrize("profile", list(plans.PROFILES))
@pytest.mark.parametrize("notebook", list(plans.planned()))
def test_what_is_watched_is_a_registered_measure_with_its_settings(notebook, profile):
    plan = plans.plan(notebook, profile)
    columns = list(plan.watching())
    assert len(columns) == len(plan.watch) > 0
    for column, (measure, settings) in zip(columns, plan.watch.values(), strict=True):
        assert column == protocol.find(measure).column(**settings)


def test_a_record_names_each_code_version_once(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPSNB_RUNS", str(tmp_path))
    plan = plans.plan("05", "long")
    assert plan.made() == {}
    for spec, code, date in zip(plan.all_specs(), ["b", "a, then b", "b, then c"], "132", strict=False):
        folder = runs.folder_of(spec)
        folder.mkdir()
        (folder / "model.pt").touch()
        made = {"code": code, "device": "CPU", "date": date, "versions": {"torch": "2"}}
        (folder / "made.json").write_text(json.dumps(made), encoding="utf-8")
    assert plan.made() == {"code": "b, a, c", "device": "CPU", "date": "3", "versions": {"torch": "2"}}


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        (("99",), {}, "no notebook '99' with a plan; there are: 00, 01, 02, 03, 04, 05, 07"),
        (("00", "fast"), {}, "profile 'fast' is unknown; allowed: smoke, quick, long, full"),
        (("00", "smoke"), {"seeds": 0}, "seeds = 0: at least 1"),
    ],
)
def test_bad_arguments_say_what_is_allowed(arguments, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        plans.plan(*arguments, **options)
