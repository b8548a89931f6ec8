"""Notebooks executed for real: stand-ins, side by side and one by one, failing, killed; and what is trained before."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from capsnb.evidence import ahead, notebook_files, notebooks, report
from capsnb.training import backends


def test_every_notebook_runs_though_one_fails_and_the_failure_is_named(executed):
    out, process = executed
    assert process.returncode == 1
    assert "90_stand_in.ipynb: passed in" in process.stdout
    assert "91_fails.ipynb: failed in code cell 2: ZeroDivisionError: division by zero" in process.stderr
    assert "1 of 2 notebooks failed" in process.stderr
    assert "Traceback" not in process.stderr
    assert sorted(path.name for path in out.iterdir()) == ["90_stand_in.ipynb", "91_fails.ipynb"]


def test_one_after_the_other_each_notebook_has_a_progress_bar_with_its_name(stand_ins, tmp_path, capfd):
    chosen = notebook_files.select(stand_ins)
    found = list(notebooks.execute_all(chosen, tmp_path, {"profile": "smoke"}, profile="smoke", jobs=1))
    assert [(outcome.notebook, outcome.cell) for outcome in found] == [
        ("90_stand_in.ipynb", None),
        ("91_fails.ipynb", 2),
    ]
    shown = capfd.readouterr().err
    assert "90_stand_in: 100%" in shown
    assert "91_fails: " in shown
    assert "IPKernelApp" not in shown


def test_side_by_side_they_have_no_bars_that_would_break_each_other(executed):
    _, process = executed
    assert "cell/s" not in process.stderr
    assert "IPKernelApp" not in process.stderr


WAITS = """import time
from pathlib import Path
Path("NAME").touch()
until = time.monotonic() + 200
while len(list(Path(".").glob("here-*"))) < 2 and time.monotonic() < until:
    time.sleep(0.1)
print(len(list(Path(".").glob("here-*"))))"""


def test_two_notebooks_are_under_way_at_a_time(make_notebook, tmp_path):
    for name in ("96_a", "97_b"):  # each waits until both have begun
        make_notebook(
            tmp_path / f"{name}.ipynb", [("profile = None", "parameters"), (WAITS.replace("NAME", f"here-{name}"), "")]
        )
    chosen = notebook_files.select(tmp_path)
    found = list(notebooks.execute_all(chosen, tmp_path / "out", {"profile": "smoke"}, profile="smoke", jobs=2))
    assert all(outcome.passed for outcome in found), found
    for outcome in found:
        assert nbformat.read(outcome.path, as_version=4).cells[-1].outputs[0].text == "2\n"


def test_the_longest_begin_first_by_their_last_execution(make_notebook, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    last = {"00_a": {"seconds": 5.0, "error": None}, "02_c": {"seconds": 30.0, "error": None}}
    last |= {"03_d": {"seconds": 1.0, "error": "it stopped early"}, "04_e": None, "05_f": {"code": "1a2b"}}
    for name in ("00_a", "01_b", *list(last)[1:], "07_g"):
        make_notebook(tmp_path / f"{name}.ipynb", [("profile = None", "parameters")])
    for name, told in last.items():
        text = "no json" if told is None else json.dumps({"metadata": {"capsnb": told} if told else {}})
        (out / f"{name}.ipynb").write_text(text)
    order = [path.stem for path in notebooks.longest_first(notebook_files.select(tmp_path), out)]
    # 01 and 07 are known to be long; of the others that have not told theirs, one may be
    assert order == ["01_b", "07_g", "03_d", "04_e", "05_f", "02_c", "00_a"]
    without = notebooks.longest_first(notebook_files.select(tmp_path, ["0", "1"]), None)
    assert [path.stem for path in without] == ["01_b", "00_a"]


def test_a_process_that_executes_a_notebook_does_not_load_torch():
    code = "import sys, capsnb.evidence.notebooks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_killed_process_is_the_failure_of_its_notebook_alone(make_notebook, tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "ALONE", 1)  # each try is slow; tests of backends have both
    kills = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nimport time\ntime.sleep(60)"
    for name, code in {"96_kills": kills, "97_fine": "print(7)", "98_dies": "import os\nos._exit(3)"}.items():
        make_notebook(tmp_path / f"{name}.ipynb", [("profile = None", "parameters"), (code, "")])
    chosen, out = notebook_files.select(tmp_path), tmp_path / "out"
    found = {each.notebook: each for each in notebooks.execute_all(chosen, out, {}, profile="smoke", jobs=2)}
    assert len(found) == 3
    assert found["97_fine.ipynb"].passed
    assert str(found["98_dies.ipynb"]).startswith("98_dies.ipynb: failed in code cell 2: DeadKernelError")
    lost = str(found["96_kills.ipynb"])
    assert lost.startswith("96_kills.ipynb: failed in its kernel: its process was lost: ")
    assert "\n" not in lost and len(lost) < 400
    # nothing half executed is left, which a report would take for a notebook that passed
    assert sorted(path.name for path in out.iterdir()) == ["97_fine.ipynb", "98_dies.ipynb"]


def test_notebooks_are_refreshed_side_by_side(make_notebook, tmp_path):
    for name in ("96_a", "97_b", "98_c"):
        show = "import os\nprint(os.environ['CAPSNB_PROFILE'])"
        make_notebook(tmp_path / f"{name}.ipynb", [("profile = None", "parameters"), (show, "")])
    chosen = notebook_files.select(tmp_path)
    assert all(outcome.passed for outcome in notebooks.execute_all(chosen, None, None, profile="long", jobs=2))
    assert [nbformat.read(path, as_version=4).cells[1].outputs[0].text for path in chosen] == ["long\n"] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in chosen]


# what is trained before ----------------------------------------------------------------------------------------------


def training(*names, seeds=None, profile="smoke"):
    return ahead.Training([Path(name) for name in names], profile, seed=0, seeds=seeds, data=None)


def test_what_will_be_trained_is_said_then_trained_then_found(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPSNB_RUNS", str(tmp_path))
    name = "00_first_capsule_network.ipynb"
    first = training(name, seeds=2)
    lines = list(first.forecast())
    assert lines[0].startswith("Profile smoke: every cell runs")
    assert lines[1] == f"{name}:"
    assert lines[2].startswith("  3 iterations, reconstruction: 2 seeds x 1 epoch on mnist-sample, about ")
    assert lines[3].startswith("Training takes about ") and lines[3].endswith(" on one core.")
    assert first.run(2) == []
    assert len(list(tmp_path.glob("capsnet-mnist-sample-s*/model.pt"))) == 2
    again = training(name, seeds=2)
    assert list(again.forecast())[2:] == [
        "  3 iterations, reconstruction: 2 seeds x 1 epoch on mnist-sample, trained before",
        "Nothing to train.",
    ]
    changed = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert again.run(2) == []
    assert changed == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}


def test_plans_are_those_of_the_chosen_notebooks():
    both = training("00_first_capsule_network.ipynb", "01_characterization.ipynb", "06_explorer.ipynb")
    assert list(both.plans) == ["00_first_capsule_network.ipynb", "01_characterization.ipynb"]
    assert next(iter(both.plans.values())).notebook == "00"


def test_missing_images_are_told_and_leave_the_rest(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPSNB_DATA", str(tmp_path))
    drawn = list(training("00_first_capsule_network.ipynb", profile="long").forecast())
    assert len(drawn) == 1, "what the evidence store answers needs no training"
    monkeypatch.setenv("CAPSNB_EVIDENCE", "runs")
    lines = list(training("00_first_capsule_network.ipynb", profile="long").forecast())
    assert len(lines) == 2
    assert lines[1].startswith("00_first_capsule_network.ipynb: no forecast. mnist ")
    assert "\n" not in lines[1]


def test_notebooks_without_a_plan_train_nothing(executed, tmp_path, monkeypatch):
    monkeypatch.setenv("CAPSNB_RUNS", str(tmp_path))
    for name in ("90_stand_in.ipynb", "00_only.ipynb"):  # a number of ours makes no notebook ours
        none = training(name)
        assert len(list(none.forecast())) == 1
        assert none.run() == []
    assert list(tmp_path.iterdir()) == []
    _, process = executed
    assert "Training takes" not in process.stdout and "Nothing to train" not in process.stdout


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (119, "119 s"), (180, "3 min"), (9000, "2 hours"), (400_000, "5 days")]
)
def test_durations(seconds, words):
    assert notebooks.duration(seconds) == words


def test_parameters_are_injected(executed):
    out, _ = executed
    cells = nbformat.read(out / "90_stand_in.ipynb", as_version=4).cells
    injected = [cell for cell in cells if "injected-parameters" in cell.metadata.get("tags", ())]
    assert len(injected) == 1
    assert 'profile = "smoke"' in injected[0].source
    assert "seed = 3" in injected[0].source
    assert any(output.get("text") == "2 smoke\n" for cell in cells for output in cell.get("outputs", ()))


def test_the_outcome_is_kept_in_the_executed_notebook(executed):
    out, _ = executed
    about = nbformat.read(out / "91_fails.ipynb", as_version=4).metadata["capsnb"]
    assert about["cell"] == 2
    assert about["error"] == "ZeroDivisionError: division by zero"
    assert about["parameters"] == {"profile": "smoke", "seed": 3, "seeds": None, "data": None}
    assert about["seconds"] > 0


def test_the_sources_stay_as_they_were(executed, stand_ins):
    for path in stand_ins.glob("*.ipynb"):
        assert all(cell.get("execution_count") is None for cell in nbformat.read(path, as_version=4).cells)


def test_a_kernel_that_dies_is_a_failure_in_its_cell(make_notebook, tmp_path):
    cells = ["# Dies", ("seed = 0", "parameters"), ("import os\nos._exit(3)", ""), ("1", "")]
    source = make_notebook(tmp_path / "in" / "92_dies.ipynb", cells)
    outcome = notebooks.execute(source, tmp_path / "out" / source.name, {"seed": 1}, progress=False)
    assert not outcome.passed
    assert outcome.cell == 2
    assert str(outcome).startswith("92_dies.ipynb: failed in code cell 2: DeadKernelError")
    assert outcome.path.exists()


def test_in_place_execution_is_clean_byte_identical_and_uses_this_python(make_notebook, tmp_path, monkeypatch):
    foreign = tmp_path / "share" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    kernel = {"argv": ["false", "{connection_file}"], "display_name": "foreign", "language": "python"}
    (foreign / "kernel.json").write_text(json.dumps(kernel))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    monkeypatch.setenv("CAPSNB_PROFILE", "full")
    show = "import os, sys\nprint(os.environ['CAPSNB_PROFILE'], profile, os.path.basename(os.getcwd()))"
    widget = (
        "from IPython.display import display\nview = 'application/vnd.jupyter.widget-view+json'\n"
        "display({view: {'model_id': 'x'}, 'text/plain': 'w'}, raw=True)"
    )
    same = f"print(sys.executable == {sys.executable!r})"
    cells = [("profile = None", "parameters"), (show, ""), (widget, ""), (same, "")]
    source = make_notebook(tmp_path / "in" / "93_again.ipynb", cells)
    outcome = notebooks.refresh(source, profile="quick", progress=False)
    assert outcome.passed, outcome
    first = source.read_bytes()
    notebook = nbformat.reads(first.decode(), as_version=4)
    assert [cell.execution_count for cell in notebook.cells] == [1, 2, 3, 4]
    assert notebook.cells[1].outputs[0].text == "quick None in\n"
    assert notebook.cells[2].outputs == []
    assert notebook.cells[3].outputs[0].text == "True\n"
    assert set(notebook.metadata) == {"kernelspec", "language_info", "capsnb"}
    assert notebook.metadata["capsnb"] == {"code": notebook_files.code_digest(nbformat.read(source, as_version=4))}
    assert [dict(cell.metadata) for cell in notebook.cells] == [{"tags": ["parameters"]}, {}, {}, {}]
    assert os.environ["CAPSNB_PROFILE"] == "full"
    assert notebooks.refresh(source, profile="quick", progress=False).passed
    assert source.read_bytes() == first
    assert [path.name for path in source.parent.iterdir()] == [source.name]


def test_in_place_without_a_profile_is_the_notebooks_own_whatever_the_environment_says(
    make_notebook, tmp_path, monkeypatch
):
    monkeypatch.setenv("CAPSNB_PROFILE", "full")
    source = make_notebook(
        tmp_path / "94_own.ipynb", [("import os\nprint(os.environ.get('CAPSNB_PROFILE'))", "parameters")]
    )
    assert notebooks.refresh(source, progress=False).passed
    assert nbformat.read(source, as_version=4).cells[0].outputs[0].text == "None\n"
    assert os.environ["CAPSNB_PROFILE"] == "full"


def test_changed_code_has_another_digest_and_changed_prose_has_not(make_notebook, tmp_path):
    notebook = nbformat.read(make_notebook(tmp_path / "95_code.ipynb", [("a = 1", ""), ("b = 2", "")]), as_version=4)
    digest = notebook_files.code_digest(notebook)
    notebook.cells.append(nbformat.v4.new_markdown_cell("prose"))
    assert notebook_files.code_digest(notebook) == digest
    notebook.cells[0].source = "a = 2"
    assert notebook_files.code_digest(notebook) != digest


def test_a_failure_in_place_leaves_the_committed_file(make_notebook, tmp_path):
    source = make_notebook(tmp_path / "94_fails.ipynb", [("1 / 0", "parameters")])
    before = source.read_bytes()
    assert not notebooks.refresh(source, progress=False).passed
    assert source.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_selection_by_number(make_notebook, tmp_path):
    for name in ("00_a", "03_b"):
        make_notebook(tmp_path / f"{name}.ipynb", [])
    (tmp_path / "notes.ipynb").write_text("{}")
    assert [path.name for path in notebook_files.select(tmp_path)] == ["00_a.ipynb", "03_b.ipynb"]
    assert [path.name for path in notebook_files.select(tmp_path, ("3", "03", "0"))] == ["00_a.ipynb", "03_b.ipynb"]
    with pytest.raises(ValueError, match=r"no notebook '7' in .*; there are 00, 03"):
        notebook_files.select(tmp_path, ("7",))
    make_notebook(tmp_path / "03_c.ipynb", [])
    with pytest.raises(ValueError, match=r"share a number: 03_b\.ipynb and 03_c\.ipynb"):
        notebook_files.select(tmp_path)


def test_a_notebook_without_parameters_is_refused(make_notebook, tmp_path):
    source = make_notebook(tmp_path / "95_bare.ipynb", [("1", "")])
    with pytest.raises(ValueError, match=r"95_bare\.ipynb has no cell tagged parameters"):
        notebooks.execute(source, tmp_path / "out.ipynb", {})


def test_an_interrupt_leaves_no_half_executed_notebook(make_notebook, tmp_path, monkeypatch):
    import papermill

    def cut(source, target, **options):
        target.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(papermill, "execute_notebook", cut)
    source = make_notebook(tmp_path / "96_cut.ipynb", [("seed = 0", "parameters")])
    with pytest.raises(KeyboardInterrupt):
        notebooks.execute(source, tmp_path / "out.ipynb", {})
    assert not (tmp_path / "out.ipynb").exists()


def test_errors_become_one_line():
    assert notebooks._one_line("\x1b[31mbad\x1b[0m\n  thing") == "bad thing"
    assert len(notebooks._one_line("x" * 1000)) == 300
    assert "not a pair" in notebooks._one_line("RuntimeError: operator torchvision::nms does not exist")


ODD = [("profile = None\nseed = 0", "parameters"), ("1", "")]


def test_a_cell_that_ends_the_notebook_has_failed(make_notebook, tmp_path):
    source = make_notebook(
        tmp_path / "a {brace} {0}" / "90_exit.ipynb", [*ODD, ("import sys\nsys.exit(0)", ""), ("2", "")]
    )
    outcome = notebooks.execute(source, tmp_path / "{seed}" / source.name, {"seed": 1}, progress=False)
    assert (outcome.cell, outcome.error) == (3, "SystemExit: 0, which ended the notebook")
    page = report.read(tmp_path / "{seed}" / source.name)
    assert (page.state, page.cell) == ("failed", 3)


def test_expected_errors_and_skipped_cells_are_no_failures_and_said_once(make_notebook, tmp_path):
    cells = [*ODD, ("1 / 0", "raises-exception"), ("raise SystemExit", "skip-execution"), ("", ""), ("print(7)", "")]
    source = make_notebook(tmp_path / "90_odd.ipynb", cells)
    outcome = notebooks.execute(source, tmp_path / "out" / source.name, {"seed": 1}, progress=False)
    assert outcome.passed
    assert str(outcome).endswith(" s, 1 cell skipped (skip-execution), 1 cell raised as expected (raises-exception)")
    executed = nbformat.read(outcome.path, as_version=4)
    assert [cell.source for cell in executed.cells if cell.cell_type == "markdown"] == []
    assert executed.cells[-1].outputs[0].text == "7\n"
    assert report.read(outcome.path).state == "passed"
    make_notebook(source, [*cells[:-1], ("[][1]", ""), ("print(7)", "")])
    outcome = notebooks.execute(source, tmp_path / "out" / source.name, {"seed": 1}, progress=False)
    assert (outcome.cell, outcome.error) == (6, "IndexError: list index out of range")


BAD = {
    "90_conflict": b'{"cells": [\n<<<<<<< HEAD\n1\n=======\n2\n>>>>>>> theirs\n]}',
    "91_empty": b"",
    "92_bom": b"\xef\xbb\xbf{}",
    "93_pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
    "94_table": b"a,b\n1,2\n",
    "95_list": b"[1, 2]",
}
WHY = (
    "git's marks of a conflict",
    "is empty",
    "byte order mark",
    "pointer of Git LFS",
    "is no notebook",
    "is no notebook",
)


def test_notebooks_that_cannot_be_read_stop_no_other(make_notebook, tmp_path):
    for name, content in BAD.items():
        (tmp_path / f"{name}.ipynb").write_bytes(content)
    make_notebook(tmp_path / "96_fine.ipynb", [*ODD, ("print(7)", "")])
    command = [sys.executable, "-m", "capsnb.cli", "run", "--notebooks", str(tmp_path), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "96_fine.ipynb: passed" in done.stdout and "Traceback" not in done.stderr
    for name, why in zip(BAD, WHY, strict=True):
        (line,) = (line for line in done.stderr.splitlines() if line.startswith(f"{name}.ipynb"))
        assert line.startswith(f"{name}.ipynb: failed before its first cell: ") and why in line
    assert "6 of 7 notebooks failed" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["96_fine.ipynb"]
    assert all((tmp_path / f"{name}.ipynb").read_bytes() == content for name, content in BAD.items())
    (tmp_path / "out" / "90_conflict.ipynb").write_bytes(BAD["90_conflict"])
    index = report.write(tmp_path / "out", tmp_path / "report.html").read_text()
    assert "1 notebook executed, none failed." in index and "git&#39;s marks of a conflict" in index
