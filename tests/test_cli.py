import os
import subprocess
import sys
import time

import nbformat
import pytest
from click.testing import CliRunner

from capsnb import __version__, cli, installation
from capsnb.disk import locked
from capsnb.evidence import ahead, notebooks, plans
from capsnb.training import checkpoints


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


@pytest.mark.parametrize("line", ["capsnb.cli.main(['--help'])", "capsnb.cli.main(['run', '--help'])", ""])
def test_neither_help_nor_the_package_loads_torch(line):
    code = (
        f"import sys, capsnb{', capsnb.cli' * bool(line)}\ntry:\n    {line or 'pass'}\nexcept SystemExit:\n    pass\n"
    )
    code += "assert not {'torch', 'numpy', 'papermill', 'joblib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


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
    "results --readme README": "README lacks the marks <!-- results:start --> and <!-- results:end -->.",
    "results record 00": "Invalid value for '--from': Directory 'build/notebooks' does not exist.",
    "results record 00 --from empty": "There is no notebook named like 00_name.ipynb in empty.",
    "results record 42 --from notebooks": "There is no notebook '42' in notebooks; there are 00.",
    "results record 00 --from notebooks": (
        "notebooks/00_only.ipynb names no profile it was executed at: only long and full are recorded."
    ),
    "checkpoints make nothing": (f"There is no checkpoint 'nothing'; there are: {', '.join(checkpoints.CHECKPOINTS)}"),
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


PROJECT_NEEDED = ("run", "results", "results open", "results survey 00", "campaign --hours 1", "audit")


@pytest.mark.parametrize("line", PROJECT_NEEDED)
def test_what_needs_the_project_says_so_in_one_sentence_and_takes_it(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(installation.VARIABLE, raising=False)
    monkeypatch.setattr(installation, "checkout", lambda: None)
    result = call(*line.split())
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "capsnb is installed without its project" in result.stderr and "--project" in result.stderr
    (tmp_path / "elsewhere").mkdir()
    result = call(*line.split(), "--project", "elsewhere")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "elsewhere is no" in result.stderr and "notebooks/plans" in result.stderr
    assert installation.VARIABLE not in os.environ


def test_a_folder_that_cannot_be_written_is_one_sentence(bad, monkeypatch):
    monkeypatch.chdir(bad)
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)
    result = call("run", "--out", "empty")
    assert (result.exit_code, result.stderr) == (2, "Error: --out empty is not writable: choose another folder.\n")


def test_a_bug_keeps_its_traceback(bad, monkeypatch):
    monkeypatch.chdir(bad)
    monkeypatch.setattr(ahead.Training, "forecast", lambda self: int("a library's own ValueError"))
    result = call("run")
    assert isinstance(result.exception, ValueError)


def test_an_unpaired_torchvision_is_one_sentence(bad, monkeypatch):
    def fail(self):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.chdir(bad)
    monkeypatch.setattr(ahead.Training, "forecast", fail)
    result = call("run")
    assert (result.exit_code, result.stderr) == (2, f"Error: {notebooks.MISMATCH}\n")


def test_a_true_process_prints_no_traceback(bad):
    command = [sys.executable, "-m", "capsnb.cli", "run", "42"]
    process = subprocess.run(command, capture_output=True, text=True, cwd=bad, timeout=60)
    assert process.returncode == 2
    assert process.stderr.startswith("Error: There is no notebook '42'")
    assert process.stderr.count("\n") == 1


@pytest.fixture
def here(bad, make_notebook, monkeypatch):
    """The working folder, its notebook one that prints what it was given."""
    show = "import os\nprint(profile, seed, seeds, data, os.environ.get('CAPSNB_PROFILE'))"
    parameters = "profile = None\nseed = 0\nseeds = None\ndata = None"
    make_notebook(bad / "notebooks" / "00_only.ipynb", [(parameters, "parameters"), (show, "")])
    monkeypatch.chdir(bad)
    return bad


def printed(path):
    return nbformat.read(path, as_version=4).cells[-1].outputs[0].text.split()


def test_options_reach_the_notebook(here):
    options = ("--profile", "smoke", "--seed", 2, "--seeds", 3, "--data", "empty", "--out", "o", "--jobs", 1)
    result = call("run", "0", *options)
    assert result.exit_code == 0, result.output
    assert printed(here / "o" / "00_only.ipynb")[:4] == ["smoke", "2", "3", str(here / "empty")]
    assert result.stdout.startswith("Profile smoke: every cell runs")
    assert "00_only.ipynb: passed in" in result.stdout


def test_the_defaults(here, monkeypatch):
    assert call("run").exit_code == 0
    monkeypatch.setenv("CAPSNB_PROFILE", "full")
    assert call("run", "--out", "other").exit_code == 0
    assert printed(here / "build" / "notebooks" / "00_only.ipynb")[:4] == ["quick", "0", "None", "None"]
    assert printed(here / "other" / "00_only.ipynb")[:4] == ["full", "0", "None", "None"]
    assert "CAPSNB_EVIDENCE" not in os.environ, "only the call itself shows what it trained"


def test_in_place(here):
    assert call("run", "--in-place", "--profile", "long").exit_code == 0
    assert printed(here / "notebooks" / "00_only.ipynb") == ["None", "0", "None", "None", "long"]
    assert not (here / "build").exists()


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


@pytest.fixture
def some_runs(tmp_path):
    """A finished run and three that are not: two hours old, being trained now, and cut a minute ago."""
    for name, file in {"done": "model.pt", "cut": "state.pt", "under-way": "state.pt", "young": "state.pt"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "spec.json").write_text("{}")
        (tmp_path / name / file).write_text("x" * 100_000)
        (tmp_path / name / "lock").touch()
        old = time.time() - (60 if name == "young" else 7200)
        for path in (tmp_path / name).iterdir():
            os.utime(path, (old, old))
    with locked(tmp_path / "under-way" / "lock"):
        os.utime(tmp_path / "under-way" / "lock", (old - 7200, old - 7200))
        yield tmp_path


def left(folder):
    return {path.name for path in folder.iterdir()}


def test_runs_are_listed_with_their_state(some_runs):
    listed = call("runs", "list", "--root", some_runs).output.splitlines()
    assert [line.split()[:2] for line in listed[1:]] == [
        ["cut", "unfinished"], ["done", "finished"], ["under-way", "training"], ["young", "unfinished"]
    ]  # fmt: skip


def test_no_runs_are_told(tmp_path):
    assert call("runs", "list", "--root", tmp_path).output == f"There are no runs in {tmp_path}.\n"


def test_prune_names_what_goes_and_asks(some_runs):
    refused = call("runs", "prune", "--root", some_runs, input="n\n")
    assert (refused.exit_code, refused.stdout) == (1, "cut, unfinished, 0.1 MB\nDelete this run? [y/N]: n\n")
    assert left(some_runs) == {"done", "cut", "under-way", "young"}
    allowed = call("runs", "prune", "--root", some_runs, input="y\n")
    assert (allowed.exit_code, allowed.output.splitlines()[-1]) == (0, "Deleted 1 run.")
    assert left(some_runs) == {"done", "under-way", "young"}


def test_prune_spares_what_is_trained_or_young_or_finished_unless_told(some_runs):
    assert call("runs", "prune", "--root", some_runs, "--older-than", 1, "--yes").output == "Deleted 0 runs.\n"
    assert call("runs", "prune", "--root", some_runs, "--yes").output == "Deleted 1 run.\n"
    assert left(some_runs) == {"done", "under-way", "young"}
    both = call("runs", "prune", "--root", some_runs, "--all", "--older-than", 0, input="y\n")
    assert both.stdout.startswith("done, finished, 0.1 MB\nyoung, unfinished, 0.1 MB\nDelete these 2 runs? [y/N]")
    assert left(some_runs) == {"under-way"}  # whatever was asked for
    assert call("runs", "prune", "--root", some_runs, "--all", "--older-than", 0).output == "Deleted 0 runs.\n"


def test_results_are_written_into_a_readme_and_the_ledger_beside_it(bad, monkeypatch):
    monkeypatch.chdir(bad)
    (bad / "results").mkdir()
    marks = "<!-- results:start -->\n<!-- results:end -->\n"
    for file in (bad / "README", bad / "results" / "README.md"):
        file.write_text(marks)
    assert call("results", "--readme", "README").exit_code == 0
    table = call("results").output
    assert (bad / "results" / "README.md").read_text() == f"<!-- results:start -->\n{table}<!-- results:end -->\n"
    assert "| notebook | question |" in (bad / "README").read_text()


def test_what_the_record_leaves_open_is_listed(bad, monkeypatch):
    monkeypatch.chdir(bad)
    output = call("results", "open").output
    assert output.startswith("| notebook | claim | of | why it is open | seeds | seeds asked for | cost here |")
    assert "| networks of | not observed | of | cost here |" in output
    assert "With --cost each is forecast" in output


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
