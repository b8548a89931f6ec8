"""The contract of every notebook: static on the committed file, then executed by papermill at profile smoke."""

import re
from pathlib import Path

import nbformat
import pytest

from capsnb import evidence
from capsnb.evidence import notebook_files, notebooks, plans

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob(notebook_files.PATTERN))
PAPERS = [path for path in NOTEBOOKS if path.name[:2] <= "05"]
MACHINE_PATH = re.compile(r"/(?:home|root|Users|tmp|work)/\w|[A-Z]:\\Users\\")


def tags(cell):
    return cell.metadata.get("tags", ())


def checked(cell):
    return "NBVAL_CHECK_OUTPUT" in cell.source or "nbval-check-output" in tags(cell)


def code(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def texts(output):
    """The text that a reader sees of an output, pictures left out."""
    data = output.get("data", {})
    yield from (str(value) for kind, value in data.items() if not kind.startswith("image/"))
    yield "".join([output.get("text", ""), *output.get("traceback", ())])


def untold(cells):
    """Where figures stand that say nothing to those who do not see them."""
    shown = [(cell.execution_count, output) for cell in cells for output in cell.get("outputs", ())]
    pictures = [(count, output) for count, output in shown if "image/png" in output.get("data", {})]
    return [count for count, output in pictures if not output.metadata.get("image/png", {}).get("alt", "").strip()]


each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_notebooks():
    assert "00" in notebook_files.find(FOLDER)


@each
def test_executed_from_top_to_bottom(path):
    assert [cell.execution_count for cell in code(path)] == list(range(1, len(code(path)) + 1))


@each
def test_exactly_one_parameters_cell_with_the_four_names(path):
    found = [cell for cell in code(path) if "parameters" in tags(cell)]
    assert len(found) == 1
    assert re.findall(r"^(\w+) = (\w+)", found[0].source, re.MULTILINE) == [
        ("profile", "None"),
        ("seed", "0"),
        ("seeds", "None"),
        ("data", "None"),
    ]


@each
def test_at_least_two_cells_are_compared_by_nbval(path):
    assert sum(checked(cell) and bool(cell.outputs) for cell in code(path)) >= 2


@each
def test_every_compared_cell_has_something_to_compare(path):
    assert all(cell.outputs for cell in code(path) if checked(cell))


@each
def test_small(path):
    assert path.stat().st_size < 1_000_000


@each
def test_no_traces_of_the_execution(path):
    notebook = nbformat.read(path, as_version=4)
    assert not {"papermill", "widgets"} & set(notebook.metadata)
    for cell in notebook.cells:
        assert not {"papermill", "execution"} & set(cell.metadata)
        assert "injected-parameters" not in tags(cell)


@each
def test_the_code_is_that_which_was_executed(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata["capsnb"] == {"code": notebook_files.code_digest(notebook)}, (
        "make notebooks executes it again"
    )


@each
def test_short_cells(path):
    assert max(len(cell.source.splitlines()) for cell in code(path)) <= 15


@each
def test_outputs_are_clean(path):
    for number, cell in enumerate(code(path), 1):
        for output in cell.outputs:
            assert output.output_type != "error", f"code cell {number}"
            assert output.get("name") != "stderr", f"code cell {number} wrote to stderr: {output.text}"
            for text in texts(output):
                assert not MACHINE_PATH.search(text), f"code cell {number} shows a path of one machine: {text[:300]}"


@each
def test_every_figure_has_a_text_alternative(path):
    assert not untold(code(path)), "figures of these cells have none: execute the notebook again"


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_ends_with_verdicts(path):
    final = code(path)[-1]
    assert any(evidence.MIME in output.get("data", {}) for output in final.outputs)


@each
def test_runs_at_smoke_with_injected_parameters(path, tmp_path, monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # the other cores have tests of their own
    monkeypatch.setenv(plans.ROUTINGS, "guest=capsnb.nn.routing:Attention")  # a reader's own beside the papers'
    outcome = notebooks.execute(path, tmp_path / path.name, {"profile": "smoke", "seed": 1}, progress=False)
    assert outcome.passed, outcome
    cells = nbformat.read(outcome.path, as_version=4).cells
    injected = [cell for cell in cells if "injected-parameters" in tags(cell)]
    assert len(injected) == 1
    assert 'profile = "smoke"\nseed = 1' in injected[0].source
    assert not any(output.output_type == "error" for cell in cells for output in cell.get("outputs", ()))
    assert not untold(cells)
