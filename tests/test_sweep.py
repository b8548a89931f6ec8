import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
import time
import tomllib
import types
from concurrent.futures.process import BrokenProcessPool

import pytest
import torch
from capsnb.evidence.sweep.measures import accuracies, invariance, tree
from click.testing import CliRunner

from capsnb import cli
from capsnb.data import DataSpec
from capsnb.evidence import sweep
from capsnb.evidence.sweep import Cell, backends, expand, plan, read, read_grid, table
from capsnb.measure import parse_tree
from capsnb.nn.models import ZOO
from capsnb.nn.routing import Attention, Dynamic, Uniform
from capsnb.training import runs
from capsnb.training.hooks import DecoupledDecay, KeepNorms

# a network of 5 ms a step, on 20 images
TINY = """
depth = 2
capsules = 3
dimension = 2
widths = [2]
kernels = [5, 3]
strides = [2, 2]
alpha = 0
crop = 20
placement = "none"
augment = false
train = 20
validation = 10
test = 10
epochs = 1
batch = 10
"""


def tiny(**changes):
    return tomllib.loads(TINY) | changes


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


# --- the grid


def test_a_grid_is_the_product_of_its_lists_and_the_last_setting_changes_fastest():
    cells = expand({"depth": [2, 3], "data": "mnist", "capsules": [10, 16]})
    assert [(cell.depth, cell.capsules) for cell in cells] == [(2, 10), (2, 16), (3, 10), (3, 16)]
    assert {cell.data for cell in cells} == {"mnist"}
    assert sweep.varied(cells) == ["depth", "capsules"]


def test_a_setting_that_is_a_list_varies_by_a_list_of_lists():
    assert [cell.widths for cell in expand({"widths": [8, 16, 32]})] == [(8, 16, 32)]
    assert [cell.widths for cell in expand({"widths": [[8, 16, 32], [4, 8, 16]]})] == [(8, 16, 32), (4, 8, 16)]


def test_whole_numbers_do_for_a_float():
    assert expand({"temperature": [1, 1.0]}) == [Cell(), Cell()]
    assert isinstance(expand({"temperature": 2})[0].temperature, float)


def test_an_empty_grid_is_the_network_of_tables_1_and_2():
    (cell,) = expand({})
    spec = cell.spec((1, 40, 40), 10)
    assert spec.model == ZOO["deep-rba-40"].config
    # .005 times the mean over 1,600 pixels
    assert spec.recipe.reconstruction_weight == pytest.approx(3.125e-6)
    assert [spec.recipe.learning_rate_at(500, epoch) for epoch in (0, 1, 2)] == pytest.approx([1e-3, 9.6e-4, 9.216e-4])
    assert (spec.recipe.weight_decay, spec.data.derive.kind, spec.data.derive.size) == (1e-5, "c", 40)


def test_the_strided_stem_makes_sabours_network(project):
    cells = read_grid(project / "notebooks/sweeps/starvation_sabour.toml")
    found = {dataclasses.replace(cell, widths=(256,)).spec((1, 28, 28), 10).model for cell in cells}
    assert found == {ZOO["capsnet"].config}
    spec = cells[0].spec((1, 28, 28), 10)
    assert spec.recipe.reconstruction_weight == pytest.approx(5e-4)  # section 4.1 of Sabour et al. 2017
    assert spec.data == DataSpec()
    with pytest.raises(ValueError, match=r"a strided stem has one width, its channels, not 3: \(32, 64, 128\)\."):
        Cell(stem="strided")


OTHER = {
    "case": "another",
    "primary": 5,
    "routing": "uniform",
    "learned_prior": False,
    "squash": "sabour",
    "init": "uniform",
    "stem": "strided",
    "widths": (3,),
    "kernels": (3, 3),
    "strides": (2, 1),
    "decoder_widths": (8,),
    "data": "mnist",
    "crop": 18,
    "placement": "affine-b",
    "augment": False,
    "target_accuracy": 0.5,
    "leaky": True,
    "hidden_squash": "layer-norm",
    "residual": True,
    "decoupled": True,
    "loss": "cross-entropy",
    "keep_norms": 0.5,
}


def test_every_setting_but_the_name_of_a_case_makes_another_run():
    # hidden layers alike, so that poses can be residual
    base = expand(tiny(depth=3, alpha=0.1, placement="affine-c", augment=True))[0]
    found = {"": base.spec((1, 24, 24), 10)}
    for name in sweep.grid.SETTINGS:
        old = getattr(base, name)
        value = OTHER[name] if name in OTHER else old + 1 if isinstance(old, int) else old / 2
        found[name] = dataclasses.replace(base, **{name: value}).spec((1, 24, 24), 10)
    assert len(found) == len(dataclasses.fields(Cell)) + 1
    assert found.pop("case") == found[""]
    assert len(set(found.values())) == len(found)


def test_routings_and_what_works_against_dead_capsules():
    cells = expand(tiny(depth=3, routing=["dynamic", "uniform", "attention", "attention-over-children"]))
    wanted = [Dynamic(learned_prior=True), Uniform(), Attention(), Attention(over="children")]
    assert [cell.spec((1, 20, 20), 10).model.routing for cell in cells] == wanted
    (cell,) = expand(tiny(depth=3, weight_decay=0.01, decoupled=True, keep_norms=2))
    recipe = cell.spec((1, 20, 20), 10).recipe
    assert (recipe.weight_decay, recipe.hooks) == (0, (DecoupledDecay(weight_decay=0.01), KeepNorms(weight=2.0)))


def test_a_routing_of_ones_own_is_named_by_module_and_class_and_known_by_its_code(tmp_path, monkeypatch):
    source = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Loudest:
    temperature: float = 1.0
    power: int = 2

    def __call__(self, votes, combine, prior=None):
        return (votes.norm(dim=-1) ** self.power / self.temperature).softmax(-1)
"""
    monkeypatch.syspath_prepend(tmp_path)
    digests = []
    for name, text in {"first_of_mine": source, "second_of_mine": source.replace("** self", "* self")}.items():
        (tmp_path / f"{name}.py").write_text(text)
        tasks = plan(expand(tiny(routing=["dynamic", f"{name}:Loudest"], temperature=[1, 0.5], iterations=[2, 3])))
        assert [task.cell.routing for task in tasks].count(f"{name}:Loudest") == 2, "it has no iterations to vary"
        (own,) = {task.spec.model.routing for task in tasks if task.cell == tasks[-1].cell}
        assert (type(own).__name__, own.temperature, own.power) == ("Loudest", 0.5, 2)
        digests.append(tasks[-1].digest)
    assert digests[0] != digests[1]


def test_cases_stand_in_for_settings_and_the_product_is_made_for_each():
    cases = [{"case": "plain"}, {"case": "deep", "depth": 5, "weight_decay": 0}, {"widths": [4, 8]}]
    cells = expand({"depth": 3, "weight_decay": 0.1, "seed": [0, 1], "cases": cases})
    settings = [(cell.case, cell.depth, cell.weight_decay, cell.seed) for cell in cells]
    plain, deep, last = settings[:2], settings[2:4], settings[4:]
    assert plain == [("plain", 3, 0.1, 0), ("plain", 3, 0.1, 1)]
    assert deep == [("deep", 5, 0.0, 0), ("deep", 5, 0.0, 1)]
    assert last == [("", 3, 0.1, 0), ("", 3, 0.1, 1)]
    assert [cell.widths for cell in cells[3:5]] == [Cell().widths, (4, 8)]


def test_a_digest_does_not_depend_on_how_the_grid_says_it():
    one = plan(expand(tiny(seed=[0, 1], temperature=1)))
    other = plan(expand(dict(reversed(tiny(seed=[1, 0], temperature=[1.0], iterations=3).items()))))
    assert [task.digest for task in one] == [task.digest for task in reversed(other)]
    assert len({task.digest for task in one}) == 2


def test_a_measure_more_makes_another_digest(monkeypatch):
    before = plan(expand(tiny()))[0].digest
    monkeypatch.setitem(sweep.MEASURES, "one more", accuracies)
    assert plan(expand(tiny()))[0].digest != before


def test_networks_that_are_the_same_are_trained_once():
    tasks = plan(expand(tiny(routing=["dynamic", "uniform"], iterations=[1, 3])))
    assert [(task.cell.routing, task.cell.iterations) for task in tasks] == [
        ("dynamic", 1),
        ("dynamic", 3),
        ("uniform", 1),
    ]
    # primary: 3 x 2; 3 children, 3 parents, 10 classes; prior logits for dynamic routing only
    assert tasks[0].parameters - tasks[2].parameters == 3 * 3 + 3 * 10


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
def test_committed_grids(project, file, count):
    cells = read_grid(project / f"notebooks/sweeps/{file}.toml")
    assert len(set(cells)) == count
    for cell in (*cells[::20], cells[-1]):
        with torch.device("meta"):
            cell.spec((1, cell.canvas, cell.canvas), 10).model.build()


# --- the file


ROWS = [{"digest": "aa", "error": None, "n": 1}, {"digest": "bb", "error": "Oh: no", "n": [1.5, 2]}]


def test_rows_come_back_and_of_a_digest_the_last_counts(tmp_path):
    file = tmp_path / "new" / "rows.jsonl"
    again = {"digest": "bb", "error": None, "n": 3}
    with table.Table(file) as out:
        for row in (*ROWS, again):
            out.append(row)
    assert read(file) == [ROWS[0], again]
    assert sweep.finished(file) == {"aa", "bb"}
    assert sweep.finished(tmp_path / "none") == set()


def test_a_line_torn_anywhere_is_passed_over_and_then_removed(tmp_path):
    file = tmp_path / "rows.jsonl"
    whole, last = (json.dumps(row).encode() + b"\n" for row in ROWS)
    for cut in range(len(last)):
        file.write_bytes(whole + last[:cut])
        assert read(file) == ROWS[:1]
    with table.Table(file) as out:
        assert file.read_bytes() == whole
        out.append(ROWS[1])
    assert read(file) == ROWS


@pytest.mark.parametrize("content", [b"notes", b"notes\n", b"[1]\n", b'{"digest": "a"}\nnot json\n', b"\xff\xfe\n"])
def test_a_file_of_another_kind_stays_as_it_is(tmp_path, content):
    file = tmp_path / "notes"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="give another file"), table.Table(file):
        pass
    assert file.read_bytes() == content


def test_one_sweep_at_a_time_writes_to_a_file(tmp_path):
    with table.Table(tmp_path / "rows"):
        with pytest.raises(ValueError, match="Another sweep is writing"), table.Table(tmp_path / "rows"):
            pass
        assert read(tmp_path / "rows") == []
    with table.Table(tmp_path / "rows") as out, pytest.raises(ValueError, match="starts with its digest"):
        out.append({"n": 1})


# --- the sweep


def test_rows_hold_settings_and_measures(folder):
    file = grid("routing = ['dynamic', 'uniform']")
    assert call(file, "--jobs", 1, "--out", "rows").exit_code == 0
    rows = read("rows")
    assert [row["routing"] for row in rows] == ["dynamic", "uniform"]
    for task, row in zip(plan(read_grid(file)), rows, strict=True):
        assert row["digest"] == task.digest
        run = runs.load(runs.folder_of(task.spec))
        assert row["parameters"] == sum(parameter.numel() for parameter in run.model.parameters())
        assert row["validation accuracy"] == run.history[-1]["validation accuracy"]
        assert row["error"] is None
        assert row["epochs trained"] == 1
        assert 0 < row["seconds"] < 10
        data = runs.prepare(task.spec.data)
        layers = parse_tree.trace(run.model, data.test.batches(3), thresholds=(0.1,))
        assert row["cnm"] == pytest.approx([float(layer.norm_mean.mean()) for layer in layers], abs=1e-6)
        assert row["alive"] == [int((~layer.dead()).sum()) for layer in layers]
        assert [len(row[name]) for name in ("alive", "cdr", "cnm", "cas", "dyr", "dys")] == [3, 3, 3, 3, 2, 2]
        assert row["kept"] == invariance(run.model, data)["kept"]
    assert rows[1]["dyr"] == rows[1]["dys"] == [0, 0]
    assert rows[0]["dyr"] != [0, 0]


def test_seconds_of_training_by_hand():
    data = types.SimpleNamespace(train=range(100))
    # one epoch of 100 images at 50 a second; another half at 25
    history = [{"epoch": 1.0, "images/s": 50.0}, {"epoch": 1.5, "images/s": 25.0}]
    assert sweep.training_seconds(history, data) == 2 + 2


def test_a_killed_sweep_goes_on_where_it_stopped(folder):
    file = grid("seed = [0, 1, 2]")
    command = [sys.executable, "-m", "capsnb.cli", "sweep", file, "--jobs", "1", "--out", "rows"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while not (os.path.exists("rows") and read("rows")) and time.monotonic() < until:
            time.sleep(0.002)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    before = (folder / "rows").read_bytes()
    assert 1 <= len(read("rows")) < 3, "killed too late"
    with open("rows", "ab") as stream:
        stream.write(b'{"digest": "torn')
    result = call(file, "--jobs", 1, "--out", "rows")
    assert result.exit_code == 0, result.output
    assert (folder / "rows").read_bytes().startswith(before)
    assert sorted(row["seed"] for row in read("rows")) == [0, 1, 2]
    assert f"{len(before.splitlines())} in rows" in result.output
    after = (folder / "rows").read_bytes()
    assert "3 in rows, 0 to train" in call(file, "--out", "rows").output
    assert (folder / "rows").read_bytes() == after


def test_a_failing_network_is_recorded_and_the_others_go_on(folder):
    file = grid("learning_rate = [1e30, 1e-3]")
    for attempt in (1, 2):
        result = call(file, "--jobs", 1, "--out", "rows")
        assert result.exit_code == 1
        failed = 2 - (attempt == 2)
        assert result.stderr.rstrip().endswith(
            f"Error: 1 of {failed} networks failed; calling it again tries them again."
        )
        assert "learning_rate 1e+30 failed: Diverged: the loss was not a finite number" in result.stderr
        # tried again: its row moves nowhere, the last one counts
        assert [row["learning_rate"] for row in read("rows")] == [1e30, 1e-3]
        assert read("rows")[0]["error"].startswith("Diverged")
        assert read("rows")[1]["error"] is None
    assert len((folder / "rows").read_text().splitlines()) == 3


def test_a_dry_run_lists_the_networks_and_trains_none(folder):
    result = call(grid("seed = [0, 1]"), "--dry-run", "--jobs", 2)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "2 networks; 0 in build/sweeps/grid.jsonl, 2 to train and measure."
    assert lines[1].split() == ["seed", "parameters", "seconds"]
    assert [line.split()[0] for line in lines[2:4]] == ["0", "1"]
    assert lines[4].startswith("About 00:0")
    assert not (folder / "build").exists()
    assert not (folder / "runs").exists()


# --- where the work is done


def test_under_dasks_local_cluster(folder, monkeypatch):
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    threads = torch.get_num_threads()
    with distributed.LocalCluster(**options, silence_logs=logging.CRITICAL) as cluster:
        result = call(
            grid("seed = [0, 1]\nlearning_rate = [1e-3, 1e30]"),
            *("--backend", "dask", "--address", cluster.scheduler_address, "--out", "rows"),
        )
    assert result.exit_code == 1
    rows = {(row["seed"], row["learning_rate"]): row["error"] for row in read("rows")}
    assert [rows[seed, 1e-3] for seed in (0, 1)] == [None, None]
    assert all(rows[seed, 1e30].startswith("Diverged") for seed in (0, 1))
    assert torch.get_num_threads() == threads


def test_a_lost_dask_worker_costs_its_own_task():
    future = types.SimpleNamespace(status="error", exception=lambda: RuntimeError("gone"))
    assert str(backends._failure(future)) == "gone"
    assert "cancelled" in str(backends._failure(types.SimpleNamespace(status="cancelled")))


def test_processes_give_the_same_row_as_one(folder, monkeypatch):
    file = grid("seed = [0, 1]")
    assert call(file, "--jobs", 2, "--out", "two").exit_code == 0
    monkeypatch.setenv("CAPSNB_RUNS", str(folder / "other runs"))
    assert call(file, "--jobs", 1, "--out", "one").exit_code == 0
    one, two = ({row["seed"]: row for row in read(name)} for name in ("one", "two"))
    for seed in (0, 1):
        for row in (one[seed], two[seed]):
            for name in ("seconds", "date", "code"):
                row.pop(name)
    assert one == two


def test_a_killed_process_costs_only_the_task_that_killed_it(monkeypatch):
    """The pool breaks whenever `bad` is worked on, after what came before it in the order is done."""
    calls = []

    def pool(function, tasks, jobs):
        calls.append((list(tasks), jobs))
        for key in list(tasks):
            if key == "bad":
                raise BrokenProcessPool("killed")
            yield key, function(*tasks[key])

    monkeypatch.setattr(backends, "_pool", pool)
    tasks = {key: (key,) for key in ("a", "b", "bad", "c", "d")}
    found = dict(backends.results(str.upper, tasks, backend="processes", jobs=2, address=None))
    assert isinstance(found.pop("bad"), BrokenProcessPool)
    assert found == {"a": "A", "b": "B", "c": "C", "d": "D"}
    assert calls == [(["a", "b", "bad", "c", "d"], 2), (["bad"], 2), (["c"], 2), (["d"], 2)]


def test_a_lost_worker_is_an_error_in_the_row():
    (task,) = plan(expand(tiny()))
    assert sweep._row(task, BrokenProcessPool("was\nkilled"))["error"] == (
        "its worker was lost (BrokenProcessPool: was killed)"
    )


# --- bad input

BAD = {
    "depth = '4'": "grid.toml: depth = '4': a whole number is needed.",
    "depth = true": "grid.toml: depth = True: a whole number is needed.",
    "depth = [2, 2.5]": "grid.toml: depth = 2.5: a whole number is needed.",
    "depth = [[2]]": "grid.toml: depth = [2]: a whole number is needed.",
    "depth = 0": "grid.toml: depth = 0: it must be at least 1.",
    "depth = []": "grid.toml: depth is an empty list, so the grid has no cell.",
    "widths = []": "grid.toml: widths is an empty list, so the grid has no cell.",
    "widths = 16": "grid.toml: widths = 16: a list of whole numbers, or a list of such lists, is needed.",
    "widths = [[2], 3]": "grid.toml: widths = 3: a list of whole numbers, or a list of such lists, is needed.",
    "widths = [2, 'a']": "grid.toml: widths = [2, 'a']: a list of whole numbers, or a list of such lists, is needed.",
    "widths = [0]": "grid.toml: widths = [0]: each number must be at least 1.",
    "temperature = nan": "grid.toml: temperature = nan: a finite number is needed.",
    "augment = 1": "grid.toml: augment = 1: true or false is needed.",
    "data = 3": "grid.toml: data = 3: a string is needed.",
    "seeds = [0, 1]": "grid.toml: there is no setting 'seeds'; did you mean seed?",
    "[network]": "grid.toml: there is no setting 'network'; there are: case, depth, capsules, ",
    "[cases]": "grid.toml: cases are tables: write [[cases]] and below it the settings of one case.",
    "cases = []": "grid.toml: cases are tables: write [[cases]] and below it the settings of one case.",
    "[[cases]]\nseed = [0, 1]": "grid.toml: seed has 2 values in a case: it takes one; lists stand above the cases.",
    "[[cases]]\nseeds = 1": "grid.toml: there is no setting 'seeds'; did you mean seed?",
    "[[cases]]\nseed = -1": "grid.toml: seed = -1: it must not be negative.",
    "loss = 'hinge'": "loss 'hinge' is unknown; allowed: ",
    "keep_norms = -1": "grid.toml: keep_norms = -1.0: it must not be negative.",
    "seed = -1": "grid.toml: seed = -1: it must not be negative.",
    "routing = 'em'": "grid.toml: routing 'em' is unknown; allowed: dynamic, uniform, attention, ",
    "routing = 'nowhere:Mine'": "grid.toml: routing 'nowhere:Mine' cannot be used (No module named 'nowhere'): ",
    "routing = 'math:pi'": "grid.toml: routing 'math:pi' cannot be used (must be called with a dataclass type ",
    "stem = 'round'": "grid.toml: stem 'round' is unknown; allowed: depthwise, strided.",
    "placement = 'left'": "grid.toml: placement 'left' is unknown; allowed: none, translated, affine-a, ",
    "depth 2": "grid.toml is not TOML: Expected '=' after a key in a key/value pair",
    "iterations = 0": "iterations = 0: a whole number of at least 1 is needed",
    "squash = 'flat'": "squash 'flat' is unknown; allowed: sabour, exponential, none",
    "epochs = 0": "epochs = 0: it must be above 0",
    "strides = [1, 1, 1]": "a depthwise stem of 1 widths needs 2 kernels and strides, not 2 and 3",
    "kernels = [50, 3]": "images of 20 pixels are too small: kernels (50,) need at least 50",
    "train = 9_999": "DataSpec.train=9,999 asks for more than the ",
    "data = 'nowhere'": "'nowhere' is neither ",
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_grid_is_one_sentence_and_exit_2(text, folder):
    kept = [line for line in TINY.splitlines() if line.split(" ")[0] != text.split(" ")[0] or text == "depth 2"]
    (folder / "grid.toml").write_text("\n".join([*kept, text]))
    result = call("grid.toml", "--jobs", 1)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {BAD[text]}")
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
    "grid.toml --out grid.toml": "grid.toml, line 1, is not a row of a sweep: give another file.",
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
    with pytest.raises(ValueError, match="'slurm' is unknown; there are processes, dask, ray"):
        backends.check("slurm", None, None)


def test_measures_are_named_by_functions_of_model_and_data():
    assert {"accuracies": accuracies, "tree": tree, "invariance": invariance} == sweep.MEASURES


def test_invariance_of_silent_layers_is_none(folder):
    (task,) = plan(expand(tiny()))
    model, data = task.spec.model.build(), runs.prepare(task.spec.data)
    with torch.no_grad():
        model.caps1.weight.zero_()
    kept = invariance(model, data)["kept"]
    assert kept[1:] == [None, None]
    assert -1 < kept[0] < 1
