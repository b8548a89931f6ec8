"""Sweeps: grids of dotted overrides by hand, the committed grids and their evidence, and the command."""

import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from capsnb import cli
from capsnb.data import DataSpec
from capsnb.data.transforms import Affine
from capsnb.evidence import sweep
from capsnb.evidence.sweep import expand, hidden_means, override, read_grid, rows
from capsnb.measure import parse_tree, survey
from capsnb.measure.observations import Observation, read, store_folder
from capsnb.measure.protocol import Measure
from capsnb.nn.models import ZOO, CapsNetConfig
from capsnb.nn.routing import Attention, Dynamic, Uniform
from capsnb.training import backends, runs
from capsnb.training.evaluation import evaluate
from capsnb.training.hooks import DecoupledDecay, KeepNorms
from capsnb.training.recipe import Recipe
from capsnb.training.spec import Spec

# a network of 5 ms a step, on 20 images
TINY = """
measures = ["accuracy", "parse tree"]

[base]
"model.size" = 12
"model.dim" = 4
"model.hidden" = [[3, 4]]
"model.stem" = {type = "strided-stem", channels = 4, kernel = 3, types = 2, dim = 4}
"model.decoder" = "none"
"data.crop" = 24
"data.resize" = 12
"data.train" = 20
"data.validation" = 10
"data.test" = 10
"recipe.epochs" = 1
"recipe.batch" = 10
"""


def call(*args):
    return CliRunner().invoke(cli.main, ["sweep", *(str(arg) for arg in args)])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAPSNB_RUNS", str(tmp_path / "runs"))
    return tmp_path


def grid(text, name="grid.toml"):
    with open(name, "w", encoding="utf-8") as stream:
        stream.write(TINY + text)
    return name


def written(name="rows.csv"):
    with open(name, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


# --- the grid


def test_a_grid_is_the_product_of_its_lists_and_the_last_setting_changes_fastest():
    found = expand({"grid": {"seed": [0, 1], "recipe.batch": [8, 16]}, "base": {"recipe.epochs": 3}})
    assert [(spec.seed, spec.recipe.batch) for spec in found.specs] == [(0, 8), (0, 16), (1, 8), (1, 16)]
    assert {spec.recipe.epochs for spec in found.specs} == {3}
    assert found.varied == ["seed", "recipe.batch"]
    assert found.measures == ("accuracy", "parse tree", "invariance")


def test_an_empty_grid_is_the_default_network():
    assert expand({}).specs == (Spec(model=CapsNetConfig()),)
    assert expand({}).varied == []


def test_a_byte_order_mark_is_no_part_of_a_grid(tmp_path):
    text = '[base]\n"recipe.epochs" = 3\n'
    for name, encoding in (("plain", "utf-8"), ("marked", "utf-8-sig")):
        (tmp_path / f"{name}.toml").write_text(text, encoding=encoding)
    assert sweep.read_grid(tmp_path / "marked.toml").specs == sweep.read_grid(tmp_path / "plain.toml").specs


def test_whole_numbers_do_for_a_float_and_lists_become_tuples():
    specs = expand({"grid": {"recipe.weight_decay": [1, 1.0]}, "base": {"model.hidden": [[16, 8], [4, 2]]}}).specs
    assert specs[0] == specs[1]
    assert isinstance(specs[0].recipe.weight_decay, float)
    assert specs[0].model.hidden == ((16, 8), (4, 2))


def test_a_key_that_toml_reads_as_a_table_is_the_same_setting():
    quoted = tomllib.loads('[base]\n"recipe.epochs" = 3\n[grid]\n"model.routing.iterations" = [1, 2]')
    bare = tomllib.loads("[base]\nrecipe.epochs = 3\n[grid]\nmodel.routing.iterations = [1, 2]")
    assert expand(bare) == expand(quoted)
    assert [spec.model.routing.iterations for spec in expand(bare).specs] == [1, 2]
    assert expand({"base": {"model": {"stem": {"channels": 7}}}}).specs[0].model.stem.channels == 7


def test_labels_change_nothing_and_name_the_network_in_its_row():
    found = expand({"grid": {"name": ["one", "two"]}, "base": {"recipe.epochs": 2}})
    assert found.specs[0] == found.specs[1]
    assert [each["name"] for each in found.settings] == ["one", "two"]
    assert found.varied == ["name"]


def test_a_table_in_a_list_sets_several_keys_together():
    shapes = [{"layers": 2, "model.hidden": [[8, 4]], "model.dim": 4}, {"layers": 1, "model.hidden": []}]
    found = expand({"grid": {"shape": shapes, "seed": [0, 1]}})
    assert [(each["layers"], each["seed"]) for each in found.settings] == [(2, 0), (2, 1), (1, 0), (1, 1)]
    assert [(spec.model.hidden, spec.model.dim) for spec in found.specs[::2]] == [(((8, 4),), 4), ((), 16)]
    assert not any("shape" in each for each in found.settings)


def test_cases_stand_in_for_settings_and_the_product_is_made_for_each():
    cases = [{"case": "plain"}, {"case": "deep", "model.hidden": [[4, 4]], "recipe.batch": 9}, {"seed": 7}]
    found = expand({"base": {"recipe.batch": 8}, "grid": {"seed": [0, 1]}, "cases": cases})
    seen = [
        (each.get("case"), spec.recipe.batch, spec.seed) for each, spec in zip(found.settings, found.specs, strict=True)
    ]
    assert seen == [
        ("plain", 8, 0),
        ("plain", 8, 1),
        ("deep", 9, 0),
        ("deep", 9, 1),
        (None, 8, 7),
        (None, 8, 7),
    ]


def test_a_model_of_the_zoo_and_parts_of_it_whatever_order_they_stand_in():
    (spec,) = expand({"base": {"model.routing.iterations": 5, "model": "deep-rba-40"}}).specs
    config = ZOO["deep-rba-40"].config
    assert spec.model == replace(config, routing=replace(config.routing, iterations=5))
    (spec,) = expand({"base": {"model": {"type": "capsnet@1", "size": 20}, "data.name": "mnist"}}).specs
    assert (spec.model, spec.data) == (CapsNetConfig(size=20), DataSpec(name="mnist"))


def test_parts_are_given_whole_by_their_registered_names():
    routings = [{"type": "uniform"}, {"type": "attention", "over": "children"}]
    hooks = [{"type": "decoupled-decay", "weight_decay": 1e-3}, {"type": "keep-norms"}]
    derive = {"type": "affine", "kind": "c", "size": 28}
    found = expand({"base": {"recipe.hooks": hooks, "data.derive": derive}, "grid": {"model.routing": routings}})
    assert [spec.model.routing for spec in found.specs] == [Uniform(), Attention(over="children")]
    assert found.specs[0].recipe.hooks == (DecoupledDecay(weight_decay=1e-3), KeepNorms())
    assert found.specs[0].data.derive == Affine(kind="c", size=28)


OWN = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Loudest:
    temperature: float = 1.0
    power: int = 2

    def __call__(self, votes, combine, prior=None):
        return (votes.norm(dim=-1) ** self.power / self.temperature).softmax(-1)
"""


def test_a_routing_of_ones_own_is_named_by_module_and_class_and_known_by_its_code(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    names = []
    for name, text in {"first_of_mine": OWN, "second_of_mine": OWN.replace("** self", "* self")}.items():
        (tmp_path / f"{name}.py").write_text(text)
        (spec,) = expand({"base": {"model.routing": {"type": f"{name}:Loudest", "power": 3}}}).specs
        own = spec.model.routing
        assert (type(own).__name__, own.temperature, own.power) == ("Loudest", 1.0, 3)
        names.append(runs.run_name(spec))
        within = {"type": "capsnet", "routing": {"type": f"{name}:Loudest", "power": 3}}
        assert expand({"base": {"model": within}}).specs == (spec,)
    assert names[0] != names[1]


def test_the_same_network_is_trained_once_and_its_first_settings_stay():
    found = expand({"grid": {"model.routing.iterations": [3, 1, 3], "name": ["a", "b"]}})
    assert len(found.specs) == 6
    once = found.unique()
    assert [spec.model.routing.iterations for spec in once.specs] == [3, 1]
    assert [(each["model.routing.iterations"], each["name"]) for each in once.settings] == [(3, "a"), (1, "a")]


def test_overrides_by_hand():
    spec = Spec(model=CapsNetConfig(), recipe=Recipe())
    assert override(spec, "seed", 4) == replace(spec, seed=4)
    assert override(spec, "recipe.weight_decay", 1).recipe == Recipe(weight_decay=1.0)
    assert override(spec, "model.routing", Dynamic(iterations=1)).model.routing == Dynamic(iterations=1)
    assert override(spec, "recipe.target_accuracy", 0.5).recipe.target_accuracy == 0.5


# --- bad input

BAD = {
    "[base]\n'recipe.weight_decays' = 1": "Recipe has no 'weight_decays'; did you mean weight_decay?",
    "[base]\n'recipes.epochs' = 1": "Spec has no 'recipes'; did you mean recipe?",
    "[base]\n'model.xyzzy' = 1": "CapsNetConfig has no 'xyzzy'; there are: channels, size, ",
    "[base]\n'seed.more' = 1": "int has no 'more'; there are: none",
    "[base]\n'data.derive.size' = 40": (
        "data.derive.size: derive is not set, so it has no 'size'; give it whole, with its type"
    ),
    "[base]\n'recipe.epochs' = 'ten'": "recipe.epochs = 'ten': int is needed, such as 10",
    "[base]\n'recipe.epochs' = 2.5": "recipe.epochs = 2.5: int is needed, such as 10",
    "[base]\n'recipe.epochs' = true": "recipe.epochs = True: int is needed, such as 10",
    "[base]\n'recipe.weight_decay' = 'a'": "recipe.weight_decay = 'a': float is needed, such as 0.0",
    "[base]\n'recipe.weight_decay' = nan": "recipe.weight_decay = nan: a finite number is needed",
    "[base]\n'model.hidden' = 16": "model.hidden = 16: tuple is needed, such as ()",
    "[base]\nrecipe = 3": "recipe = 3: a table with its type is needed, such as recipe@1",
    "[base]\n'model.routing' = 'uniform'": (
        "model.routing = 'uniform': a table with its type is needed, such as dynamic@1"
    ),
    "[base]\n'recipe.epochs' = 0": "epochs = 0: it must be above 0",
    "[base]\n'recipe.loss' = 'hinge'": "loss 'hinge' is unknown; allowed: ",
    "[base]\n'model.routing.iterations' = 0": "iterations = 0: a whole number of at least 1 is needed",
    "[base]\nmodel = 'nothing'": "model 'nothing' is not in the zoo; there are: capsnet, ",
    "[base]\n'model.routing' = {type = 'round'}": "'round'",
    "[base]\n'model.routing' = {type = 'uniform', iterations = 2}": "uniform cannot be made of iterations: ",
    "[base]\n'model.routing' = {type = 'nowhere:Mine'}": (
        "type 'nowhere:Mine' cannot be used (No module named 'nowhere'): "
    ),
    "[base]\n'model.routing' = {type = 'math:pi'}": "type 'math:pi' cannot be used (must be called with a dataclass",
    "[grid]\nseed = []": "seed = [] in [grid]: a list of at least one value is needed; others go to [base]",
    "[grid]\nseed = 3": "seed = 3 in [grid]: a list of at least one value is needed; others go to [base]",
    "base = 3": "base = 3: a table is needed",
    "nulls = 1": "nulls = 1: a true or false is needed",
    "watch = ['beauty']": "there is no measure 'beauty'; there are: accuracy, ",
    "cases = 3": "cases = 3: a list is needed",
    "cases = [1]": "cases are tables: write [[cases]], and below it what is set in that case",
    "cases = []": "cases are tables: write [[cases]], and below it what is set in that case",
    "[network]": "there is no 'network' in a grid; there are: base, grid, cases, measures, watch, nulls, notebook",
    "measures = ['beauty']": "there is no measure 'beauty'; there are: accuracy, ",
    "base 3": "is not TOML: Expected '=' after a key in a key/value pair",
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_grid_is_one_sentence_and_exit_2(text, folder):
    (folder / "grid.toml").write_text(text)
    result = call("grid.toml", "--dry-run")
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: grid.toml")
    assert BAD[text] in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (folder / "build").exists()


BAD_CALLS = {
    "": "Missing argument 'GRID'.",
    "nowhere.toml": "Invalid value for 'GRID': File 'nowhere.toml' does not exist.",
    "empty": "Invalid value for 'GRID': File 'empty' is a directory.",
    "binary": "binary is not TOML: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte.",
    "grid.toml --jobs 0": "Invalid value for '--jobs': 0 is not in the range x>=1.",
    "grid.toml --jobs two": "Invalid value for '--jobs': 'two' is not a valid integer range.",
    "grid.toml --backend slurm": ("Invalid value for '--backend': 'slurm' is not one of 'processes', 'dask', 'ray'."),
    "grid.toml --address tcp://a:1": "An address is of a cluster: choose the backend dask or ray with it.",
    "grid.toml --backend dask --address tcp://a:1 --jobs 2": (
        "The cluster at an address has its own number of workers: leave the number of jobs out."
    ),
    "grid.toml --backend dask --address tcp://127.0.0.1:1": (
        "There is no dask scheduler at tcp://127.0.0.1:1: start one and give its address."
    ),
    "grid.toml --backend dask --address nonsense": (
        "There is no dask scheduler at nonsense: start one and give its address."
    ),
    "grid.toml --data nowhere": "Invalid value for '--data': Directory 'nowhere' does not exist.",
    "grid.toml --out empty": "Invalid value for '--out': File 'empty' is a directory.",
    "grid.toml --out binary/rows": "binary/rows cannot be: a file lies where its folder would.",
    "grid.toml --out binary/deeper/rows": "binary/deeper/rows cannot be: a file lies where its folder would.",
}


@pytest.mark.parametrize("line", BAD_CALLS)
def test_a_bad_call_is_one_sentence_and_exit_2(line, folder, monkeypatch):
    monkeypatch.setattr(backends, "CONNECT_SECONDS", 0.3)
    (folder / "empty").mkdir()
    (folder / "binary").write_bytes(b"\xff")
    grid("")
    result = call(*line.split())
    assert (result.exit_code, result.stderr) == (2, f"Error: {BAD_CALLS[line]}\n")


@pytest.mark.parametrize(("backend", "package"), [("dask", "dask[distributed]"), ("ray", "ray")])
def test_a_backend_that_is_not_installed_is_one_sentence(backend, package, folder, monkeypatch):
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None)
    result = call(grid(""), "--backend", backend)
    sentence = f"Error: The backend {backend} is not installed: pip install '{package}' brings it.\n"
    assert (result.exit_code, result.stderr) == (2, sentence)


def test_the_command_names_the_backends_that_there_are():
    assert tuple(backends.NEEDS) == cli.training.BACKENDS


# --- the sweep


def test_rows_hold_settings_and_measures(folder):
    file = grid("[grid]\n'model.routing' = [{type = 'dynamic'}, {type = 'uniform'}]\n[[cases]]\ncase = 'mine'\n")
    result = call(file, "--jobs", 1, "--out", "rows.csv")
    assert result.exit_code == 0, result.output
    assert "2 networks." in result.output and "The rows are in rows.csv" in result.output
    found = rows(read_grid(file), recorded=False)
    for spec, row in zip(read_grid(file).specs, found, strict=True):
        run = runs.load(runs.folder_of(spec))
        assert (row["case"], row["error"], row["model.routing"]) == ("mine", None, spec.model.routing)
        assert row["parameters"] == sum(parameter.numel() for parameter in run.model.parameters())
        data = runs.prepare(spec.data)
        assert row["accuracy, %"] == 100 * evaluate(run.model, data.test).accuracy
        layers = parse_tree.trace(run.model, data.test.batches(3), thresholds=(0.1,))
        assert row["cnm"] == pytest.approx([float(layer.norm_mean.mean()) for layer in layers], rel=1e-5, abs=1e-6)
        assert row["alive"] == [int((~layer.dead()).sum()) for layer in layers]
        assert [len(row[name]) for name in ("alive", "cdr", "cnm", "cas", "dyr", "dys")] == [3, 3, 3, 3, 2, 2]
        assert "code " in row["origin"]
    assert found[1]["dyr"] == found[1]["dys"] == [0, 0]
    assert found[0]["dyr"] != [0, 0]
    # the same rows as text
    table = written()
    assert [json.loads(row["model.routing"]) for row in table] == [{"type": "dynamic@1"}, {"type": "uniform@1"}]
    assert [json.loads(row["dyr"]) for row in table] == [row["dyr"] for row in found]
    assert [float(row["accuracy, %"]) for row in table] == [row["accuracy, %"] for row in found]
    stamps = [(runs.folder_of(spec) / "model.pt").stat().st_mtime_ns for spec in read_grid(file).specs]
    assert call(file, "--jobs", 1, "--out", "new/rows.jsonl").exit_code == 0
    lines = [json.loads(line) for line in (folder / "new" / "rows.jsonl").read_text().splitlines()]
    assert [line["dyr"] for line in lines] == [row["dyr"] for row in found]
    assert [line["error"] for line in lines] == [None, None]
    assert [(runs.folder_of(spec) / "model.pt").stat().st_mtime_ns for spec in read_grid(file).specs] == stamps


def test_what_was_measured_is_not_measured_again(folder, monkeypatch):
    file = grid("[grid]\nseed = [0, 1]\n")
    assert call(file, "--jobs", 1).exit_code == 0
    assert len(written("build/sweeps/grid.csv")) == 2
    beside = [runs.folder_of(spec) / "observations.jsonl" for spec in read_grid(file).specs]
    before = [each.read_bytes() for each in beside]
    calls = []
    original = Measure.__call__

    def counted(self, *args, **settings):
        calls.append(self.name)
        return original(self, *args, **settings)

    monkeypatch.setattr(Measure, "__call__", counted)
    assert call(file, "--jobs", 1).exit_code == 0
    assert calls == []
    assert [each.read_bytes() for each in beside] == before
    grid("[grid]\nseed = [0, 1]\n")
    (folder / "grid.toml").write_text((folder / "grid.toml").read_text().replace('"parse tree"]', '"intervals"]'))
    assert call(file, "--jobs", 1).exit_code == 0
    assert calls == ["intervals", "intervals"], "one measure more is taken of the networks that are there"


def test_a_network_that_lacks_what_a_measure_needs_has_its_reason_in_its_row(folder):
    (folder / "grid.toml").write_text(
        TINY.replace('"parse tree"]', '"certainty"]')
        .replace('"model.hidden" = [[3, 4]]\n', "")
        .replace('"model.dim" = 4\n', "")
        .replace('"model.stem" = {type = "strided-stem", channels = 4, kernel = 3, types = 2, dim = 4}\n', "")
        .replace('"model.size" = 12\n', 'model = {type = "convnet-avg", width = 3, kernel = 3}\n"model.size" = 12\n')
        .replace('"model.decoder" = "none"\n', "")
    )
    result = call("grid.toml", "--jobs", 1, "--out", "rows.csv")
    assert result.exit_code == 0, result.output
    (row,) = written()
    assert row["reason"] == "ConvNetAvg has no tap 'class.coupling'; it has: conv1, conv2, features"
    assert float(row["accuracy, %"]) >= 0


def test_a_failing_network_leaves_the_others_and_exit_1(folder):
    file = grid("[grid]\n'recipe.learning_rate' = [1e30, 1e-3]\n")
    result = call(file, "--jobs", 1, "--out", "rows.csv")
    assert result.exit_code == 1
    assert result.stderr.rstrip().endswith("Error: 1 of 2 networks failed; calling it again tries them again.")
    assert "failed: Diverged: the loss was not a finite number" in result.stderr
    bad, good = written()
    assert float(bad["recipe.learning_rate"]) == 1e30 and "has no accuracy@1 of 1 of 1 runs" in bad["error"]
    assert good["error"] == "" and good["accuracy, %"]
    assert call(file, "--jobs", 1, "--out", "rows.csv").exit_code == 1, "it is tried again"


def test_a_dry_run_lists_the_networks_and_trains_none(folder):
    result = call(grid("[grid]\nseed = [0, 1]\nname = ['a', 'b']\n"), "--dry-run", "--jobs", 2)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "2 networks, 2 more settings train the same ones."
    assert lines[1].split() == ["seed", "parameters", "seconds"]
    assert [line.split()[0] for line in lines[2:4]] == ["0", "1"]
    assert lines[4].startswith("About 00:0")
    assert not (folder / "build").exists()
    assert not (folder / "runs").exists()


def test_record_keeps_the_observations_in_the_evidence_store(folder, monkeypatch):
    from capsnb.measure import observe

    monkeypatch.setattr(observe, "store_folder", lambda: folder / "store")
    file = grid("[grid]\nseed = [0, 1]\n")
    result = call(file, "--jobs", 1, "--record")
    assert "4 new observations in 2 files of the evidence store." in result.output
    assert "0 new observations in 2 files" in call(file, "--jobs", 1, "--record").output
    for spec in read_grid(file).specs:
        header, found = read(folder / "store" / f"{runs.run_name(spec)}.jsonl")
        assert header["run"] == runs.run_name(spec).rpartition("-")[2]
        assert sorted(each.measure for each in found) == ["accuracy", "parse tree"]
    monkeypatch.setenv("CAPSNB_RUNS", str(folder / "none"))
    assert [row["error"] for row in rows(read_grid(file))] == [None, None], "the store alone answers"


def test_a_grid_may_watch_its_trainings_and_measure_the_whole_survey_with_its_null(folder):
    found = read_grid(grid("", "plain.toml"))
    more = TINY.replace('["accuracy", "parse tree"]', "['survey']\nwatch = ['curve', 'life']\nnulls = true")
    (folder / "watch.toml").write_text(more)
    watching = read_grid(folder / "watch.toml")
    assert watching.specs == found.specs, "what is watched is no part of a network's name"
    assert watching.measures == tuple(each.name for each in survey.surveyed())
    assert call("watch.toml", "--jobs", 1).exit_code == 0
    (spec,) = watching.specs
    _, seen = read(runs.folder_of(spec) / "observations.jsonl")
    assert {each.measure for each in seen if each.watched} == {"curve", "life"}
    for null in (None, "untrained"):
        names = {each.measure for each in seen if each.null == null and not each.watched}
        assert names == {*watching.measures}
    (curve,) = [each.values for each in seen if each.measure == "curve"]
    history = runs.get(spec).history
    assert curve["loss"] == pytest.approx([row["loss"] for row in history], rel=1e-5)
    assert curve["step"] == [row["step"] for row in history]


def test_a_killed_sweep_goes_on(folder):
    file = grid("'recipe.report_every' = 1\n[grid]\nseed = [0, 1, 2]\n")
    folders = [runs.folder_of(spec) for spec in read_grid(file).specs]
    finished = lambda: [each for each in folders if runs.is_finished(each)]  # noqa: E731
    command = [sys.executable, "-m", "capsnb.cli", "sweep", file, "--jobs", "1", "--out", "rows.csv"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 100
        while not finished() and time.monotonic() < until and process.poll() is None:
            time.sleep(0.002)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    before = {each: (each / "model.pt").stat().st_mtime_ns for each in finished()}
    assert before
    assert not (folder / "rows.csv").exists(), "killed too late"
    result = call(file, "--jobs", 1, "--out", "rows.csv")
    assert result.exit_code == 0, result.output
    assert [row["error"] for row in written()] == ["", "", ""]
    for each, stamp in before.items():
        assert (each / "model.pt").stat().st_mtime_ns == stamp, "what was finished is not trained again"


# --- the committed grids and what is recorded of them


@pytest.mark.parametrize(
    ("file", "count"),
    [
        ("parse_tree", 144),
        ("parse_tree_small", 48),
        ("starvation_small", 66),
        ("starvation_routings", 12),
        ("starvation_sabour", 6),
    ],
)
def test_committed_grids_have_their_networks_and_their_rows_are_in_the_store(project, file, count, folder):
    found = read_grid(project / f"notebooks/sweeps/{file}.toml")
    assert len(found.specs) == len(set(found.specs)) == count
    for spec in (*found.specs[::20], found.specs[-1]):
        with torch.device("meta"):
            spec.model.build()
    if file == "parse_tree":  # a GPU's, not run yet
        return
    table = rows(found)
    assert [row["error"] for row in table] == [None] * count
    for row in table:
        assert not math.isnan(hidden_means({"capsules": 1} | row)["accuracy %"])


def test_the_grids_are_the_networks_that_they_say(project):
    parse = read_grid(project / "notebooks/sweeps/parse_tree.toml").specs
    table_1 = replace(ZOO["deep-rba-40"].config)
    assert {spec.model.stem.strides for spec in parse} == {(1, 1, 2, 2)}
    for spec in parse:
        hidden = len(spec.model.hidden)
        assert hidden in (1, 2) and spec.model.size == table_1.size == 40
        assert spec.model.hidden == ((spec.model.stem.capsules, spec.model.dim),) * hidden
    # 0.005 times the mean over 1,600 pixels
    assert {spec.recipe.reconstruction_weight for spec in parse} == {3.125e-6}
    rates = [parse[0].recipe.learning_rate_at(500, epoch) for epoch in (0, 1, 2)]
    assert rates == pytest.approx([1e-3, 9.6e-4, 9.216e-4])
    assert (parse[0].recipe.weight_decay, parse[0].data.derive.kind, parse[0].data.derive.size) == (1e-5, "c", 40)
    sabour = read_grid(project / "notebooks/sweeps/starvation_sabour.toml").specs
    wide = {replace(spec.model, stem=replace(spec.model.stem, channels=256)) for spec in sabour}
    assert wide == {ZOO["capsnet"].config}
    assert sabour[0].recipe.reconstruction_weight == pytest.approx(5e-4)  # section 4.1 of Sabour et al. 2017
    assert sabour[0].data == DataSpec()


def test_every_recorded_file_of_a_run_is_of_the_run_that_its_spec_names():
    files = [file for file in sorted(store_folder().glob("*.jsonl")) if not file.name.startswith("claims-")]
    assert len(files) >= 129
    for file in files:
        header, found = read(file)
        spec = sweep.decode(header["spec"])
        assert file.name == f"{runs.run_name(spec)}.jsonl"
        assert header["run"] == runs.key(spec)
        assert found and all(each.values and each.made["code"] and each.made["date"] for each in found)


# mended since a record was made: it stays, and says of which version it is
SUPERSEDED = {"lobster@1", "penalty@1"}


def test_every_recorded_file_of_claims_decodes():
    files = sorted(store_folder().glob("claims-*.jsonl"))
    assert files
    for file in files:
        header, found = read(file)
        assert file.name == f"claims-{header['notebook']}-{header['run']}.jsonl"
        assert runs.digest(header["protocol"]) == header["run"]
        assert found and all(set(each.settings) == {"claim"} for each in found)
        for variant in header["protocol"].get("specs", {}).values():
            kinds = set(re.findall(r'"type": "([\w-]+@\d+)"', json.dumps(variant)))
            if older := kinds & SUPERSEDED:
                with pytest.raises(ValueError, match=f"^({'|'.join(older)}) is not what this capsnb makes"):
                    sweep.decode(variant)
            else:
                assert isinstance(sweep.decode(variant), Spec)


# --- numbers per network


def row(**more):
    base = {"capsules": 4, "alive": [4, 4, 1, 10], "dyr": [0.1, 0.2, 0.6], "accuracy, %": 75.0}
    return base | {"kept": [0.9, 0.5, 0.25, 0.8]} | more


def test_means_of_hidden_capsules_by_hand():
    found = hidden_means(row())
    assert found == pytest.approx({"living %": 100 * 5 / 8, "dyr": 0.3, "accuracy %": 75.0, "kept %": 37.5})


def test_a_silent_layer_keeps_nothing_and_does_not_count():
    assert hidden_means(row(kept=[0.9, 0.5, None, 0.8]))["kept %"] == 50


def test_a_network_without_hidden_layers_has_no_living_share():
    found = hidden_means(row(alive=[4, 10], dyr=[0.5], kept=[0.9, 0.8]))
    assert [name for name, value in found.items() if math.isnan(value)] == ["living %", "kept %"]


def test_invariance_of_silent_layers_is_none(folder):
    (spec,) = read_grid(grid("")).specs
    model, data = spec.model.build(), runs.prepare(spec.data)
    with torch.no_grad():
        model.caps1.weight.zero_()
    kept = sweep.find("invariance")(model, data)["kept"]
    assert kept[1:] == [None, None]
    assert -1 < kept[0] < 1
    lost = sweep.find("dead parents")(model, data)
    assert lost["dead"][0] == 1 and lost["given"] == [1.0, None]


def test_pictures_have_no_cell_in_a_table_of_rows(monkeypatch, tmp_path):
    found = Observation("redrawn", values={"pictures": np.zeros((1, 2, 3), np.uint8), "reach": 0.2})
    monkeypatch.setattr(sweep, "observe", lambda *specs, **how: [found])
    made = rows(expand({"base": {"model": "capsnet"}, "measures": ["redrawn"]}))
    assert [(row["reach"], "pictures" in row) for row in made] == [(0.2, False)]
    sweep.write_rows(tmp_path / "rows.jsonl", made)
