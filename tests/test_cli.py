import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
from click.testing import CliRunner

from capsnb import __version__, cli
from capsnb.evidence import notebooks, plans


def call(*args, **more):
    return CliRunner().invoke(cli.main, [str(arg) for arg in args], **more)


def commands(group=cli.main, path=()):
    for name, command in group.commands.items():
        yield (*path, name), command
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize("path", [(), *(path for path, _ in commands())], ids=" ".join)
def test_every_command_has_help_with_an_example(path):
    result = call(*path, "--help")
    assert result.exit_code == 0
    assert f"capsnb {' '.join(path)}".strip() in result.output.split("Options:")[0].split("\n", 1)[1]


def test_help_is_quick_to_come():
    code = "import sys, capsnb.cli; print([m for m in ('torch', 'numpy', 'papermill', 'nbformat') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_profiles_are_those_of_the_plans():
    assert list(plans.PROFILES) == list(cli.notebooks.PROFILES)


def test_version():
    assert call("--version").output == f"capsnb, version {__version__}\n"


@pytest.fixture
def bad(tmp_path, make_notebook):
    """A working folder with one notebook, a file, and nothing else."""
    make_notebook(tmp_path / "notebooks" / "00_only.ipynb", [("seed = 0", "parameters")])
    make_notebook(tmp_path / "bare" / "00_bare.ipynb", [("1", "")])
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "README").write_text("no marks")
    return tmp_path


BAD = {
    "run 42": "There is no notebook '42' in notebooks; there are 00.",
    "run first": "There is no notebook 'first' in notebooks; there are 00.",
    "run --profile huge": "Invalid value for '--profile': 'huge' is not one of 'smoke', 'quick', 'long', 'full'.",
    "run --seed x": "Invalid value for '--seed': 'x' is not a valid integer range.",
    "run --seed 1.5": "Invalid value for '--seed': '1.5' is not a valid integer range.",
    "run --seed -1": "Invalid value for '--seed': -1 is not in the range x>=0.",
    "run --seeds 0": "Invalid value for '--seeds': 0 is not in the range x>=1.",
    "run --seeds -3": "Invalid value for '--seeds': -3 is not in the range x>=1.",
    "run --data nowhere": "Invalid value for '--data': Directory 'nowhere' does not exist.",
    "run --data file": "Invalid value for '--data': Directory 'file' is a file.",
    "run --notebooks nowhere": "Invalid value for '--notebooks': Directory 'nowhere' does not exist.",
    "run --notebooks empty": "There is no notebook named like 00_name.ipynb in empty.",
    "run --notebooks bare": "00_bare.ipynb has no cell tagged parameters, so profile and seed cannot be passed to it.",
    "run --out file": "Invalid value for '--out': Directory 'file' is a file.",
    "run --out file/deeper": "file/deeper: Not a directory.",
    "run --out notebooks": "--out notebooks is the folder of the notebooks themselves: choose another.",
    "run --in-place --seed 3": "--in-place takes no --seed: committed notebooks are runs of the defaults.",
    "run --in-place --out other": "--in-place takes no --out: committed notebooks are runs of the defaults.",
    "run --colour": "No such option '--colour'. Did you mean '--out'?",
    "walk": "No such command 'walk'.",
    "--colour": "No such option '--colour'.",
    "report": "There is no executed notebook in build/notebooks: execute some with capsnb run first.",
    "report --from empty": "There is no executed notebook in empty: execute some with capsnb run first.",
    "report --from notebooks": "There is no executed notebook in notebooks: execute some with capsnb run first.",
    "report --out empty": "Invalid value for '--out': File 'empty' is a directory.",
    "data --data nowhere": "Invalid value for '--data': Directory 'nowhere' does not exist.",
    "data fetch": "Missing argument 'NAME'.",
    "runs list --root nowhere": "Invalid value for '--root': Directory 'nowhere' does not exist.",
    "runs prune --older-than soon": "Invalid value for '--older-than': 'soon' is not a valid float range.",
    "results --readme README": "The README lacks the marks <!-- results:start --> and <!-- results:end -->.",
    "results record 00": "Invalid value for '--from': Directory 'build/notebooks' does not exist.",
    "results record 00 --from empty": "There is no notebook named like 00_name.ipynb in empty.",
    "results record 42 --from notebooks": "There is no notebook '42' in notebooks; there are 00.",
    "results record 00 --from notebooks": (
        "notebooks/00_only.ipynb names no profile it was executed at: only long and full are recorded."
    ),
    "checkpoints make nothing": (
        "There is no checkpoint 'nothing'; there are: capsnet-small, rem-small, deep-rba-small, "
        "efficient-capsnet-small, convnet-cr-sf-small"
    ),
    "results --readme nowhere": "Invalid value for '--readme': File 'nowhere' does not exist.",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_sentence_and_exit_2(line, bad, monkeypatch):
    monkeypatch.chdir(bad)
    result = call(*line.split())
    assert (result.exit_code, result.stderr) == (2, f"Error: {BAD[line]}\n")
    assert isinstance(result.exception, SystemExit)


def test_an_unknown_image_set_is_one_sentence_that_lists_the_known(tmp_path):
    result = call("data", "--data", tmp_path, "fetch", "nothing")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "nothing" in result.stderr
    assert "mnist" in result.stderr


def test_an_unknown_profile_in_the_environment_is_one_sentence(bad, monkeypatch):
    monkeypatch.chdir(bad)
    monkeypatch.setenv("CAPSNB_PROFILE", "huge")
    result = call("run")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "'huge'" in result.stderr


def test_no_notebooks_anywhere_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.notebooks.places, "project", lambda: tmp_path)
    assert "There is no folder notebooks here" in call("run").stderr


def test_a_folder_that_cannot_be_written_is_one_sentence(bad, monkeypatch):
    monkeypatch.chdir(bad)
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)
    result = call("run", "--out", "empty")
    assert (result.exit_code, result.stderr) == (2, "Error: --out empty is not writable: choose another folder.\n")


def test_a_bug_keeps_its_traceback(bad, monkeypatch):
    monkeypatch.chdir(bad)
    monkeypatch.setattr(notebooks, "forecast", lambda *args, **more: int("a library's own ValueError"))
    result = call("run")
    assert isinstance(result.exception, ValueError)


def test_an_unpaired_torchvision_is_one_sentence(bad, monkeypatch):
    def fail(*args, **more):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.chdir(bad)
    monkeypatch.setattr(notebooks, "forecast", fail)
    result = call("run")
    assert (result.exit_code, result.stderr) == (2, f"Error: {notebooks.MISMATCH}\n")


def test_a_true_process_prints_no_traceback(bad):
    command = [sys.executable, "-m", "capsnb.cli", "run", "42"]
    process = subprocess.run(command, capture_output=True, text=True, cwd=bad, timeout=60)
    assert process.returncode == 2
    assert process.stderr.startswith("Error: There is no notebook '42'")
    assert process.stderr.count("\n") == 1


@pytest.fixture
def executed_with(bad, monkeypatch):
    """Calls of execute and refresh are recorded in place of being made."""
    calls = []

    def execute_one(source, target, parameters):
        calls.append((source, target, parameters))
        return notebooks.Outcome(source.name, target, 1.0)

    def refresh(source, *, profile):
        calls.append((source, profile))
        return notebooks.Outcome(source.name, source, 1.0)

    monkeypatch.chdir(bad)
    monkeypatch.setattr(notebooks, "execute", execute_one)
    monkeypatch.setattr(notebooks, "refresh", refresh)
    monkeypatch.setattr(notebooks, "forecast", lambda *args, **more: [f"announced {more}"])
    return calls


def test_options_reach_papermill(executed_with, bad):
    result = call("run", "0", "--profile", "smoke", "--seed", 2, "--seeds", 3, "--data", "empty", "--out", "o")
    assert result.exit_code == 0, result.output
    (source, target, parameters) = executed_with[0]
    assert (source.name, str(target)) == ("00_only.ipynb", "o/00_only.ipynb")
    assert parameters == {"profile": "smoke", "seed": 2, "seeds": 3, "data": str(bad / "empty")}
    assert result.output.startswith("announced {'seed': 2, 'seeds': 3, ")


def test_the_defaults(executed_with, monkeypatch):
    call("run")
    monkeypatch.setenv("CAPSNB_PROFILE", "full")
    call("run")
    parameters = {"profile": "quick", "seed": 0, "seeds": None, "data": None}
    assert executed_with[0][1:] == (Path("build/notebooks/00_only.ipynb"), parameters)
    assert executed_with[1][2] == parameters | {"profile": "full"}


def test_in_place(executed_with):
    assert call("run", "--in-place", "--profile", "quick").exit_code == 0
    assert executed_with == [(Path("notebooks/00_only.ipynb"), "quick")]


def test_report_says_where_it_is(executed, tmp_path):
    result = call("report", "--from", executed[0], "--out", tmp_path / "r.html")
    assert (result.exit_code, result.output) == (0, f"The report is {tmp_path / 'r.html'}\n")
    assert (tmp_path / "r.html").exists()


def test_data_lists_what_is_there(tmp_path):
    result = call("data", "--data", tmp_path)
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line for line in result.output.splitlines()}
    assert rows["mnist-sample"].split()[1:4] == ["3,500", "500", "1,000"]
    assert rows["mnist"].split()[1:4] == ["-", "-", "-"]
    assert "capsnb data fetch mnist" in rows["mnist"]


def test_runs_list_and_prune(tmp_path):
    assert call("runs", "list", "--root", tmp_path).output == f"There are no runs in {tmp_path}.\n"
    for name, file in {"done": "model.pt", "cut": "state.pt"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "spec.json").write_text("{}")
        (tmp_path / name / file).write_text("x" * 100_000)
    listed = call("runs", "list", "--root", tmp_path).output.splitlines()
    assert [line.split()[:2] for line in listed[1:]] == [["cut", "unfinished"], ["done", "finished"]]
    assert call("runs", "prune", "--root", tmp_path).output == "Deleted 1 run.\n"
    assert call("runs", "prune", "--root", tmp_path, "--all", input="n\n").exit_code == 1
    assert (tmp_path / "done").exists()
    assert call("runs", "prune", "--root", tmp_path, "--all", "--older-than", 1, "--yes").output == "Deleted 0 runs.\n"
    assert call("runs", "prune", "--root", tmp_path, "--all", "--yes").output == "Deleted 1 run.\n"


def test_results_are_written_into_a_readme(bad, monkeypatch):
    monkeypatch.chdir(bad)
    (bad / "README").write_text("<!-- results:start -->\n<!-- results:end -->\n")
    assert call("results", "--readme", "README").exit_code == 0
    table = call("results").output
    assert (bad / "README").read_text() == f"<!-- results:start -->\n{table}<!-- results:end -->\n"


def specs(*epochs):
    return tuple(types.SimpleNamespace(recipe=types.SimpleNamespace(epochs=n), data=DATA) for n in epochs)


DATA = types.SimpleNamespace(name="mnist-sample")


def announced(monkeypatch, variants, forecast):
    plan = types.SimpleNamespace(specs=variants, forecast=forecast)
    monkeypatch.setattr(profiles, "PLANS", {"00": None})
    monkeypatch.setattr(profiles, "plan", lambda *args, **more: plan)
    paths = [Path("00_a.ipynb"), Path("77_own.ipynb")]
    return list(notebooks.forecast(paths, "smoke", seed=0, seeds=None, data=None))


def test_what_will_be_trained_is_said_with_about_how_long_it_takes(monkeypatch):
    lines = announced(
        monkeypatch,
        {"a": specs(5, 5), "b": specs(1)},
        lambda: [100.0, 100.0, 0.0],
    )
    assert lines[1:] == [
        "00_a.ipynb:",
        "  a: 2 seeds x 5 epochs on mnist-sample, about 3 min",
        "  b: 1 seed x 1 epoch on mnist-sample, trained before",
        "Training takes about 3 min on this machine.",
    ]


def test_nothing_to_train_and_missing_data_are_said(monkeypatch):
    def missing():
        raise FileNotFoundError("mnist is not\nthere.")

    assert announced(monkeypatch, {"a": specs(1)}, lambda: [0.0])[-1] == "Nothing to train."
    assert announced(monkeypatch, {"a": specs(1)}, missing)[1:] == ["00_a.ipynb: no forecast. mnist is not there."]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (119, "119 s"), (180, "3 min"), (9000, "2 hours"), (400_000, "5 days")]
)
def test_durations(seconds, words):
    assert notebooks._duration(seconds) == words


def test_results_record_says_where(bad, monkeypatch):
    monkeypatch.chdir(bad)
    monkeypatch.setattr(
        "capsnb.evidence.recording.record", lambda source, number, only: source / f"{number} {only}.json"
    )
    result = call("results", "record", "00", "--from", "notebooks", "--claim", "a", "--claim", "b c")
    assert (result.exit_code, result.output) == (0, "Recorded in notebooks/00 ('a', 'b c').json\n")


def test_checkpoints_are_listed_and_made(monkeypatch):
    assert "capsnet-small" in call("checkpoints", "list").output
    monkeypatch.setattr("capsnb.training.checkpoints.make", lambda name: f"somewhere/{name}")
    assert call("checkpoints", "make", "capsnet-small").output == "capsnet-small is in somewhere/capsnet-small\n"
