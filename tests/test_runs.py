"""Runs on disk: names, caching, SIGKILL and resume bit for bit, starting from another run."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import pytest
import torch

from capsnb.data import Augment, DataSpec
from capsnb.nn.models import CapsNetConfig, StridedStem
from capsnb.nn.routing import Dynamic, Uniform
from capsnb.training import runs
from capsnb.training.recipe import Recipe
from capsnb.training.spec import Spec

MODEL = CapsNetConfig(
    size=12, dim=4, stem=StridedStem(channels=4, kernel=3, types=2, dim=4), decoder_widths=(8,), classes=10
)
SPEC = Spec(
    model=MODEL,
    data=DataSpec(crop=24, resize=12, train=64, validation=20, test=20),
    recipe=Recipe(epochs=2, batch=16),
)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "model.pt", weights_only=True)


def test_a_run_is_trained_once_and_then_replayed(tmp_path):
    first = list(runs.follow(SPEC, root_folder=tmp_path, progress=False))
    folder = runs.folder_of(SPEC, root_folder=tmp_path)
    assert sorted(file.name for file in folder.iterdir()) == ["history.csv", "made.json", "model.pt", "spec.json"]
    stamp = (folder / "model.pt").stat().st_mtime_ns
    assert list(runs.follow(SPEC, root_folder=tmp_path, progress=False)) == first
    run = runs.get(SPEC, root_folder=tmp_path, progress=False)
    assert (folder / "model.pt").stat().st_mtime_ns == stamp
    assert run.spec == SPEC
    assert run.history == first
    assert not run.model.training
    assert runs.load(folder).spec == SPEC


def test_a_run_says_what_made_it_and_a_resume_adds_to_that(tmp_path, monkeypatch):
    rows = runs.follow(SPEC, root_folder=tmp_path, progress=False)
    next(rows)
    rows.close()
    folder = runs.folder_of(SPEC, root_folder=tmp_path)
    first = runs.read_made(folder)
    assert {"code", "versions", "device", "date"} == first.keys()
    assert first["versions"]["torch"] == torch.__version__.split("+")[0]
    for _ in range(2):  # a second resume by the same code adds nothing
        monkeypatch.setattr(runs, "circumstances", lambda: first | {"code": "later"})
        rows = runs.follow(SPEC, root_folder=tmp_path, progress=False)
        next(rows)
        rows.close()
        assert runs.read_made(folder)["code"] == f"{first['code']}, then later"
        assert runs.read_made(folder)["device"] == first["device"]


def test_observed_curves_are_recorded_and_part_of_the_name(tmp_path):
    calls = []

    def lengths(model, data):
        calls.append(1)
        return model(data.test.images[:4]).scores.mean(0)

    rows = list(runs.follow(SPEC, observe={"lengths": lengths}, every=3, root_folder=tmp_path, progress=False))
    assert [row["step"] for row in rows] == [3, 6, 8]
    assert len(rows[0]["lengths"]) == 10
    count = len(calls)
    again = list(runs.follow(SPEC, observe={"lengths": lengths}, every=3, root_folder=tmp_path, progress=False))
    assert again == rows
    assert len(calls) == count, "a cached run replays what it observed"
    names = {
        runs.folder_of(SPEC, root_folder=tmp_path),
        runs.folder_of(SPEC, observe=["lengths"], root_folder=tmp_path),
        runs.folder_of(SPEC, observe=["lengths"], every=3, root_folder=tmp_path),
    }
    assert len(names) == 3


TRAIN_SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_runs import LONG
import torch
torch.set_num_threads(1)
for row in runs.follow(LONG, root_folder=Path(sys.argv[1]), every=7, progress=False, device="cpu"):
    print(row["step"], flush=True)
"""
LONG = replace(SPEC, recipe=Recipe(epochs=40, batch=16, learning_rate=3e-3))


def start(folder: Path) -> subprocess.Popen:
    script = TRAIN_SCRIPT.format(tests=str(Path(__file__).parent))
    return subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True)


def finish(folder: Path) -> None:
    with start(folder) as process:
        process.communicate(timeout=240)
    assert process.returncode == 0


def test_sigkill_at_random_moments_and_resume_give_the_uncut_weights_bit_for_bit(tmp_path):
    finish(tmp_path / "whole")
    chance = random.Random(20171107)
    kills = 0
    while kills < 3:
        with start(tmp_path / "cut") as process:
            # past its start-up, then somewhere inside the work, saving included
            process.stdout.readline()
            time.sleep(chance.uniform(0.0, 0.15))
            if process.poll() is not None:
                break
            os.kill(process.pid, signal.SIGKILL)
        kills += 1
    assert kills == 3, "the run ended before it could be killed three times: make it longer"
    folder = runs.folder_of(LONG, every=7, root_folder=tmp_path / "cut")
    assert (folder / "state.pt").exists()
    finish(tmp_path / "cut")
    uncut = runs.folder_of(LONG, every=7, root_folder=tmp_path / "whole")
    left, right = weights(folder), weights(uncut)
    assert all(torch.equal(left[name], right[name]) for name in right)
    timeless = [[{**row, "images/s": 0} for row in runs.read_history(where)] for where in (folder, uncut)]
    assert timeless[0] == timeless[1]


def test_a_resume_with_other_threads_says_that_it_is_not_bit_identical(tmp_path, capsys):
    rows = runs.follow(SPEC, root_folder=tmp_path, progress=False)
    next(rows)
    rows.close()
    file = runs.folder_of(SPEC, root_folder=tmp_path) / "state.pt"
    state = torch.load(file, weights_only=True)
    torch.save(state | {"threads": state["threads"] + 1}, file)
    assert len(list(runs.follow(SPEC, root_folder=tmp_path, progress=False))) == 2
    assert "not bit-identical" in capsys.readouterr().out


def test_start_reset_and_frozen_decide_where_weights_come_from(tmp_path):
    first = runs.get(SPEC, root_folder=tmp_path, progress=False).model.state_dict()
    moved = replace(SPEC, start=SPEC, reset=("class",), frozen=("conv1", "primary"), seed=3)
    second = runs.get(moved, root_folder=tmp_path, progress=False)
    now = second.model.state_dict()
    assert torch.equal(now["conv1.0.weight"], first["conv1.0.weight"])
    assert torch.equal(now["primary.conv.bias"], first["primary.conv.bias"])
    assert not torch.equal(now["class.weight"], first["class.weight"])
    assert runs.load(second.folder).spec == moved
    file = runs.folder_of(SPEC, root_folder=tmp_path) / "model.pt"
    by_path = runs.get(
        replace(SPEC, start=str(file), frozen=("conv1",)), root_folder=tmp_path, progress=False
    ).model.state_dict()
    assert torch.equal(by_path["conv1.0.weight"], first["conv1.0.weight"])


def test_a_decoder_can_be_stacked_on_a_trained_encoder(tmp_path):
    encoder = replace(SPEC, model=replace(MODEL, decoder="none"))
    stacked = replace(SPEC, start=encoder, reset=("decoder",), frozen=("conv1", "primary", "class"))
    runs.get(stacked, root_folder=tmp_path, progress=False)
    forgot = replace(stacked, reset=())
    with pytest.raises(ValueError, match=r"no weights for decoder\.linears\.0\.bias.*`reset`"):
        runs.get(forgot, root_folder=tmp_path, progress=False)


def test_every_field_of_a_spec_changes_its_name_and_defaults_do_not():
    assert configs.encode(Recipe()) == {"type": "capsnb.training.loop:Recipe"}
    variants = [
        replace(SPEC, model=replace(MODEL, routing=Dynamic(iterations=2))),
        replace(SPEC, model=replace(MODEL, routing=Uniform())),
        replace(SPEC, data=replace(SPEC.data, seed=1)),
        replace(SPEC, recipe=replace(SPEC.recipe, augment=Augment())),
        replace(SPEC, seed=1),
        replace(SPEC, start=SPEC),
        replace(SPEC, start=SPEC, reset=("class",)),
        replace(SPEC, frozen=("conv1",)),
    ]
    names = {runs.folder_of(spec).name for spec in [SPEC, *variants]}
    assert len(names) == len(variants) + 1
    changes = {
        "epochs": 3, "batch": 8, "learning_rate": 0.1, "decay": 0.5, "decay_every": 1, "decay_unit": "epochs",
        "min_learning_rate": 0.0, "weight_decay": 0.1, "loss": "bce", "reconstruction_weight": 0.0,
        "augment": Augment(), "target_accuracy": 0.5, "stop_on": "test", "patience": 1, "keep": "best",
        "precision": "bfloat16", "hooks": (Augment(),),
    }  # fmt: skip
    assert set(changes) == {entry.name for entry in fields(Recipe)}
    digests = {configs.digest(configs.encode(replace(Recipe(), **{name: value}))) for name, value in changes.items()}
    assert len(digests) == len(changes)


@dataclass(frozen=True)
class Mine:
    """A user's own configuration, with one field."""

    width: int = 3
    inner: tuple[int, ...] = field(default=(1, 2))


def test_specs_survive_json_also_with_a_users_own_class():
    for value in (SPEC, replace(SPEC, start=SPEC), Mine(), Mine(width=5, inner=(7,)), (Mine(), 1, None, True)):
        assert configs.decode(json.loads(json.dumps(configs.encode(value)))) == value


def test_a_class_that_is_not_here_and_a_value_without_a_name_are_told_in_a_sentence():
    with pytest.raises(ValueError, match=r"Theirs of their\.module, which is not imported here"):
        configs.decode({"type": "their.module:Theirs"})
    with pytest.raises(ValueError, match="cannot be part of a run's name"):
        configs.encode(Mine(width=torch.zeros(1)))


def test_listing_and_pruning(tmp_path):
    assert runs.list_runs(tmp_path) == []
    runs.get(SPEC, root_folder=tmp_path, progress=False)
    cut = replace(SPEC, seed=9)
    rows = runs.follow(cut, root_folder=tmp_path, progress=False)
    next(rows)
    rows.close()
    listed = {row["name"]: row for row in runs.list_runs(tmp_path)}
    assert sorted(row["finished"] for row in listed.values()) == [False, True]
    assert listed[runs.folder_of(cut).name]["epoch"] == 1
    assert runs.prune(tmp_path, older_than_days=1) == 0
    assert runs.prune(tmp_path) == 1
    assert [row["finished"] for row in runs.list_runs(tmp_path)] == [True]
    assert runs.prune(tmp_path, unfinished_only=False) == 1


def test_missing_and_damaged_folders_are_told_in_a_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"spec\.json is not there"):
        runs.load(tmp_path / "nowhere")
    (tmp_path / "spec.json").write_text("{")
    with pytest.raises(ValueError, match="does not describe a run"):
        runs.load(tmp_path)


def test_forecast_is_zero_for_a_finished_run_and_positive_otherwise(tmp_path):
    assert runs.forecast([SPEC], root_folder=tmp_path)[0] > 0
    runs.get(SPEC, root_folder=tmp_path, progress=False)
    longer = replace(SPEC, recipe=replace(SPEC.recipe, epochs=4))
    seconds = runs.forecast([SPEC, longer], root_folder=tmp_path)
    assert seconds[0] == 0
    assert seconds[1] > 0


def test_root_is_the_argument_else_the_environment_else_the_project(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPSNB_RUNS", str(tmp_path / "env"))
    assert runs.root(tmp_path / "given") == tmp_path / "given"
    assert runs.root() == tmp_path / "env"
    monkeypatch.delenv("CAPSNB_RUNS")
    assert runs.root().name == "runs"
