"""The shipped checkpoints: they load, reach what their record says, and can be made again."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from capsnb.data import DataSpec, prepare
from capsnb.evidence.sweep import read_grid
from capsnb.nn.models import CapsNetConfig, StridedStem
from capsnb.training import checkpoints, runs
from capsnb.training.evaluation import evaluate
from capsnb.training.identity import key
from capsnb.training.recipe import Recipe
from capsnb.training.spec import Spec


@pytest.mark.parametrize("name", list(checkpoints.CHECKPOINTS))
def test_a_shipped_checkpoint_is_the_one_its_spec_and_record_describe(name):
    run, record = checkpoints.load(name), checkpoints.record(name)
    assert run.spec == checkpoints.CHECKPOINTS[name]
    assert run.history[-1]["epoch"] == run.spec.recipe.epochs
    embedded = checkpoints.shown(run) != run.spec.data
    which = "embedded" if embedded else "test"
    reached = evaluate(run.model, prepare(checkpoints.shown(run)).test)
    # one image may fall on the other side of a near tie on another processor
    assert reached.accuracy == pytest.approx(record[f"{which} accuracy"], abs=2 / reached.count)
    assert reached.loss == pytest.approx(record[f"{which} loss"], rel=1e-3)
    assert {"made by", "data", "device", "code", "versions"} <= record.keys()
    if embedded:
        assert record["test accuracy"] >= 0.99 and record["data"].startswith("MNIST")


@pytest.mark.parametrize("name", [name for name, spec in checkpoints.CHECKPOINTS.items() if spec.data.name == "mnist"])
def test_a_checkpoint_reaches_on_mnist_what_its_record_says(name, mnist):
    reached, record = evaluate(checkpoints.load(name).model, mnist.test), checkpoints.record(name)
    assert reached.accuracy == pytest.approx(record["test accuracy"], abs=3 / reached.count)
    assert reached.loss == pytest.approx(record["test loss"], rel=1e-3)
    assert reached.count == record["test images"] == 10_000


@pytest.fixture(scope="module")
def mnist():
    try:
        return prepare(checkpoints.DIGITS)
    except FileNotFoundError:
        pytest.skip("MNIST is not here: capsnb data fetch mnist")


def test_the_dead_and_the_revived_are_networks_of_the_recorded_grid():
    grid = read_grid(Path(__file__).parents[1] / "notebooks" / "sweeps" / "resurrection.toml")
    keys = {(each["case"], each["seed"]): key(spec) for each, spec in zip(grid.settings, grid.specs, strict=True)}
    assert key(checkpoints.CHECKPOINTS["deep-rba-dead"]) == keys["decay on, moments kept", 0]
    assert key(checkpoints.CHECKPOINTS["deep-rba-revived"]) == keys["decay off, moments reset", 0]


def test_the_shipped_checkpoints_are_small():
    folder = checkpoints.folder("capsnet-small").parent
    assert sum(file.stat().st_size for file in folder.rglob("*")) < 15e6


def test_make_trains_anew_and_replaces_the_old_one_whole(tmp_path, monkeypatch):
    model = CapsNetConfig(size=12, dim=4, stem=StridedStem(channels=4, kernel=3, types=2, dim=4), decoder_widths=(8,))
    data = DataSpec(crop=24, resize=12, train=64, validation=20, test=20)
    spec = Spec(model=model, data=data, recipe=Recipe(epochs=1, batch=16))
    monkeypatch.setattr(checkpoints, "project", lambda: tmp_path)
    monkeypatch.setattr(checkpoints, "shipped", lambda name: tmp_path / "data" / name)
    monkeypatch.setenv("CAPSNB_RUNS", str(tmp_path / "runs"))
    for seed in (0, 1):
        monkeypatch.setitem(checkpoints.CHECKPOINTS, "mine", replace(spec, seed=seed))
        target = checkpoints.make("mine", progress=False)
        assert target == tmp_path / "data" / "checkpoints" / "mine"
        assert checkpoints.load("mine").spec.seed == seed
        assert json.loads((target / "record.json").read_text())["made by"] == "capsnb checkpoints make mine"
        made = torch.load(target / "model.pt", weights_only=True)
        kept = torch.load(runs.folder_of(replace(spec, seed=seed)) / "model.pt", weights_only=True)
        assert all(torch.equal(made[key], kept[key]) for key in kept)
        assert [entry.name for entry in target.parent.iterdir()] == ["mine"]


def test_an_unknown_checkpoint_lists_those_there_are():
    with pytest.raises(ValueError, match="no checkpoint 'nothing'; there are: capsnet-small"):
        checkpoints.load("nothing")
