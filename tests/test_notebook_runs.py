import json
import os
import sys

import nbformat
import pytest

from capsnb.evidence import notebooks


def test_every_notebook_runs_though_one_fails_and_the_failure_is_named(executed):
    out, process = executed
    assert process.returncode == 1
    assert "90_stand_in.ipynb: passed in" in process.stdout
    assert "91_fails.ipynb: failed in code cell 2: ZeroDivisionError: division by zero" in process.stderr
    assert "1 of 2 notebooks failed" in process.stderr
    assert "Traceback" not in process.stderr
    assert sorted(path.name for path in out.iterdir()) == ["90_stand_in.ipynb", "91_fails.ipynb"]


def test_each_notebook_has_a_progress_bar_with_its_name(executed):
    _, process = executed
    assert "90_stand_in: 100%" in process.stderr
    assert "91_fails: " in process.stderr
    assert "IPKernelApp" not in process.stderr


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
    outcome = notebooks.refresh(source, progress=False)
    assert outcome.passed, outcome
    first = source.read_bytes()
    notebook = nbformat.reads(first.decode(), as_version=4)
    assert [cell.execution_count for cell in notebook.cells] == [1, 2, 3, 4]
    assert notebook.cells[1].outputs[0].text == "quick None in\n"
    assert notebook.cells[2].outputs == []
    assert notebook.cells[3].outputs[0].text == "True\n"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert [dict(cell.metadata) for cell in notebook.cells] == [{"tags": ["parameters"]}, {}, {}, {}]
    assert os.environ["CAPSNB_PROFILE"] == "full"
    assert notebooks.refresh(source, progress=False).passed
    assert source.read_bytes() == first
    assert [path.name for path in source.parent.iterdir()] == [source.name]


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
    assert [path.name for path in notebooks.select(tmp_path)] == ["00_a.ipynb", "03_b.ipynb"]
    assert [path.name for path in notebooks.select(tmp_path, ("3", "03", "0"))] == ["00_a.ipynb", "03_b.ipynb"]
    with pytest.raises(ValueError, match=r"no notebook '7' in .*; there are 00, 03"):
        notebooks.select(tmp_path, ("7",))
    make_notebook(tmp_path / "03_c.ipynb", [])
    with pytest.raises(ValueError, match=r"share a number: 03_b\.ipynb and 03_c\.ipynb"):
        notebooks.select(tmp_path)


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
