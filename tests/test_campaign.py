"""Campaigns: what is declared and missing, its order, the store filled, hours that end, interrupts, and the command."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from capsnb import cli
from capsnb.data import DataSpec
from capsnb.evidence import campaign, plans
from capsnb.evidence.campaign import Part, Row
from capsnb.evidence.sweep import read_grid
from capsnb.measure import observe
from capsnb.measure.observations import read
from capsnb.measure.protocol import find
from capsnb.nn.models import CapsNetConfig
from capsnb.nn.models.stems import StridedStem
from capsnb.training import files, parallel, runs
from capsnb.training.recipe import Recipe
from capsnb.training.spec import Spec

MODEL = CapsNetConfig(
    size=12, dim=4, hidden=((3, 4),), stem=StridedStem(channels=4, kernel=3, types=2, dim=4), decoder="none"
)
DATA = DataSpec(crop=24, resize=12, train=20, validation=10, test=10)
TINY = Spec(model=MODEL, data=DATA, recipe=Recipe(epochs=1, batch=10))
ACCURACY, CURVE = (find("accuracy"), {}), (find("curve"), {})


def part(*specs, seeds=(0, 1), name="tiny", **more):
    every = tuple(replace(spec, seed=seed) for spec in specs for seed in seeds)
    return Part(name, every, (ACCURACY,), (CURVE,), **more)


def longer(epochs):
    return replace(TINY, recipe=replace(TINY.recipe, epochs=epochs))


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    """A store of the test's own, runs of its own, a survey of one measure, an epoch for each hour of forecast."""
    monkeypatch.setenv("CAPSNB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(observe, "store_folder", lambda: tmp_path / "store")
    monkeypatch.setattr(campaign.survey, "surveyed", lambda: [find("accuracy")])
    monkeypatch.setattr(runs, "forecast", lambda specs, **_: [3600.0 * spec.recipe.epochs for spec in specs])
    return tmp_path / "store"


def go(todo, hours=100.0, **more):
    told = []
    failed = campaign.run(todo, hours, jobs=1, tell=told.append, **more)
    return failed, told


# --- what is declared


def test_declared_are_the_plans_of_the_notebooks_and_the_grids_that_name_one(tmp_path, monkeypatch):
    (tmp_path / "notebooks/sweeps").mkdir(parents=True)
    text = "measures = ['accuracy', 'intervals']\nwatch = ['curve']\n[grid]\nseed = [0, 1]\nname = ['a', 'b']"
    (tmp_path / "notebooks/sweeps/mine.toml").write_text(f"notebook = '07'\n{text}")
    (tmp_path / "notebooks/sweeps/of_nobody.toml").write_text(text)
    monkeypatch.setattr(campaign, "project", lambda: tmp_path)
    plan, grid = campaign.declared(["7"], "full")
    assert (plan.name, plan.specs) == ("notebook 07 (full)", tuple(plans.plan("07", "full").all_specs()))
    assert (plan.measures, plan.nulls) == ((ACCURACY,), True), "the whole survey with its nulls"
    assert (grid.name, len(grid.specs), grid.nulls) == ("mine.toml", 2, False), "each network once"
    assert [each.name for each, _ in grid.measures] == ["accuracy", "intervals"]
    assert grid.watched == (CURVE,)
    (other,) = campaign.declared(["00"], "long")
    assert other.name == "notebook 00 (long)"
    assert {each.name for each in campaign.declared()} > {"notebook 00 (long)", "notebook 05 (long)", "mine.toml"}


def test_every_committed_grid_belongs_to_a_notebook_with_a_plan(project):
    files = sorted((project / "notebooks/sweeps").glob("*.toml"))
    assert files and {read_grid(file).notebook for file in files} <= set(plans.planned())


def test_the_cheapest_seed_comes_first_and_what_cannot_be_trained_last(monkeypatch):
    def forecast(specs, **_):
        if specs[0].data.name == "mnist":
            raise FileNotFoundError("mnist is\nnot here")
        return [3600.0 * spec.recipe.epochs for spec in specs]

    monkeypatch.setattr(runs, "forecast", forecast)
    away = replace(longer(1), data=DataSpec(name="mnist"))
    found = campaign.rows([part(away, TINY, name="some"), part(longer(2), longer(3)), part(longer(4), name="long")])
    assert [(row.part.name, row.images, row.seed, row.hours) for row in found] == [
        ("some", TINY.data.name, 0, 1),
        ("some", TINY.data.name, 1, 1),
        ("long", TINY.data.name, 0, 4),
        ("long", TINY.data.name, 1, 4),
        ("tiny", TINY.data.name, 0, 5),
        ("tiny", TINY.data.name, 1, 5),
        ("some", "mnist", 0, 0),
        ("some", "mnist", 1, 0),
    ]
    assert [row.why for row in found[-2:]] == ["mnist is not here"] * 2
    assert go(found[-2:]) == ([], []), "passed over"


def test_what_a_network_starts_from_counts_with_it():
    start = longer(5)
    (row,) = campaign.rows([part(replace(TINY, start=start), seeds=[0])])
    assert (row.hours, row.specs[0].start, len(row.seconds)) == (6, start, 2)


# --- what is done


def test_a_campaign_completes_what_is_declared_and_no_more(store):
    wanted = part(TINY, longer(2))
    todo = campaign.rows([wanted])
    failed, told = go(todo[:1])
    assert failed == []
    assert told == ["tiny, seed 0: 6 new observations of 2 of 2 networks."]
    assert {spec.seed for spec in wanted.missing()} == {1}
    assert [row.seed for row in campaign.rows([wanted])] == [1], "what is in the store is passed over"
    go(campaign.rows([wanted]))
    assert wanted.missing() == [] and campaign.rows([wanted]) == []
    assert {file.stem for file in store.iterdir()} == {runs.run_name(spec) for spec in wanted.specs}
    for file in store.iterdir():
        found = [(each.measure, each.null, each.watched) for each in read(file)[1]]
        assert sorted(found, key=str) == [
            ("accuracy", "untrained", False),
            ("accuracy", None, False),
            ("curve", None, True),
        ]


def test_what_lies_trained_and_measured_beside_its_run_is_only_recorded(monkeypatch, tmp_path):
    wanted = part(TINY, seeds=[0])
    go(campaign.rows([wanted]))
    (tmp_path / "store" / f"{runs.run_name(TINY)}.jsonl").unlink()
    monkeypatch.setattr(observe, "_measured", lambda *_, **__: pytest.fail("measured again"))
    assert go(campaign.rows([wanted])) == ([], ["tiny, seed 0: 3 new observations of 1 of 1 networks."])


def test_what_does_not_fit_by_its_forecast_is_not_begun(tmp_path):
    todo = campaign.rows([part(TINY, longer(3))])
    assert go(todo, 0.5) == ([], [])
    assert not (tmp_path / "runs").exists()
    go(todo, 1.5)
    assert {runs.run_name(spec) for row in todo for spec in row.specs if spec.recipe.epochs == 1} == {
        file.stem for file in (tmp_path / "store").iterdir()
    }, "of each row what fits"


def test_a_network_whose_start_would_not_end_in_time_is_not_begun(tmp_path):
    start = longer(2)
    spec = replace(TINY, start=start)
    go([Row(part(spec, seeds=[0]), "", 0, (spec,), {spec: 0.0, start: 3600.0})], 0.5)
    assert not (tmp_path / "runs").exists()
    runs.get(start, progress=False)
    go([Row(part(spec, seeds=[0]), "", 0, (spec,), {spec: 0.0, start: 3600.0})], 0.5)
    assert runs.is_finished(runs.folder_of(spec)), "one that is there takes no time"


class Clock:
    """A second later each time that somebody asks."""

    def __init__(self):
        self.now = 0

    def time(self):
        self.now += 1
        return self.now

    monotonic = time


def test_a_training_is_cut_when_the_time_is_over_and_goes_on(store, monkeypatch):
    spec = longer(20)
    wanted, clock = part(spec, seeds=[0]), Clock()
    todo = [replace(row, seconds={spec: 0.0}) for row in campaign.rows([wanted])]
    with monkeypatch.context() as patched:
        for module in (campaign, parallel):
            patched.setattr(module, "time", SimpleNamespace(time=clock.time, monotonic=clock.monotonic))
        assert go(todo, 40 / 3600) == ([], ["tiny, seed 0: 0 new observations of 0 of 1 networks."])
    folder = runs.folder_of(spec)
    assert (folder / "state.pt").exists() and not runs.is_finished(folder)
    assert 0 < files.last_epoch(folder) < 20
    go(campaign.rows([wanted]))
    assert wanted.missing() == []
    whole = runs.get(spec, root_folder=store / "whole", progress=False).history
    assert [row["loss"] for row in runs.get(spec).history] == [row["loss"] for row in whole]


def test_an_interrupt_loses_nothing_that_was_measured(monkeypatch):
    original, wanted = campaign.survey_run, part(TINY, longer(2), seeds=[0])

    def interrupted(spec, run, **how):
        if spec != TINY:
            raise KeyboardInterrupt
        return original(spec, run, **how)

    monkeypatch.setattr(campaign, "survey_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        go(campaign.rows([wanted]))
    assert wanted.missing() == [longer(2)]
    monkeypatch.undo()


# --- the command


def call(*args):
    return CliRunner().invoke(cli.main, ["campaign", *map(str, args)])


def test_a_dry_run_lists_rows_with_their_hours_and_trains_nothing(tmp_path, monkeypatch):
    away = Row(part(TINY), "mnist", 0, (TINY,), why="mnist is not here.")
    monkeypatch.setattr(campaign, "declared", lambda *_, **__: [part(TINY, longer(3))])
    found = campaign.rows([part(TINY, longer(3))])
    monkeypatch.setattr(campaign, "rows", lambda *_, **__: [*found, away])
    result = call("--hours", 2, "--jobs", 2, "--dry-run")
    assert result.exit_code == 0, result.output
    head, first, second, left, total = result.output.splitlines()
    assert head.split("  ")[0] == "declared in"
    assert first.split()[-4:] == ["0", "2", "4.00", "2.00"]
    assert second.split()[-4:] == ["1", "2", "4.00", "4.00"]
    assert left == "Left out, of tiny: 1 networks on mnist. mnist is not here."
    assert total.startswith(
        "In 2 h, 2 at a time, 1 of 2 rows would be done on a machine like this one; all take about 4"
    )
    assert not (tmp_path / "runs").exists()


def test_the_command_says_what_is_left_and_fails_with_a_network(monkeypatch):
    bad = replace(TINY, recipe=replace(TINY.recipe, learning_rate=1e30))
    monkeypatch.setattr(campaign, "declared", lambda *_, **__: [part(TINY, bad, seeds=[0])])
    result = call("--hours", 2.5, "--jobs", 1)
    assert result.exit_code == 1
    assert "1 of 2 declared networks are not recorded yet." in result.output
    assert result.stderr.rstrip().endswith("Error: 1 networks failed; calling it again tries them again.")


@pytest.mark.parametrize(
    ("line", "sentence"),
    {
        "": "Missing option '--hours'.",
        "--hours 0": "Invalid value for '--hours': 0.0 is not in the range x>0.",
        "--hours nan": "Invalid value for '--hours': a number is needed.",
        "--hours 1 --profile quick": "Invalid value for '--profile': 'quick' is not one of 'long', 'full'.",
        "--hours 1 42": "there is no notebook '42' with a plan; there are: 00, 01, 02, 03, 04, 05, 07, 08",
    }.items(),
)
def test_a_bad_call_is_one_sentence_and_exit_2(line, sentence):
    result = call(*line.split())
    assert (result.exit_code, result.stderr) == (2, f"Error: {sentence}\n")
