"""From an executed notebook's claims to its record in the evidence store."""

import json

import nbformat
import pytest

from capsnb import evidence
from capsnb.evidence import recording
from capsnb.evidence.tables import RUN

MADE = {"code": "abc1234", "versions": {"torch": "2"}, "device": "CPU", "date": "2026-01-02T03:04:05+00:00"}
CLAIMS = [
    evidence.Claim(
        name, "It errs little.", evidence.Value("net", 0.1, better="lower"), "sabour2017/table1/mnist/baseline"
    )
    for name in ("error", "other")
]


def executed(folder, *, profile="long", measured=None, made=MADE):
    """A notebook whose last cell displayed a claims table."""
    measured = {"error": {"net": {0: 0.4, 1: 0.5}}} if measured is None else measured
    shown = evidence.table("05", CLAIMS, measured, settings={"profile": profile}, made=made, root=folder)
    output = nbformat.v4.new_output("execute_result", data=shown._repr_mimebundle_(), execution_count=1)
    cell = nbformat.v4.new_code_cell("table(...)", outputs=[output], execution_count=1)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), folder / "05_made.ipynb")
    return folder


def test_values_settings_and_circumstances_reach_the_record(tmp_path):
    path = recording.record(executed(tmp_path), "05", root=tmp_path / "results")
    header, row = map(json.loads, path.read_text().splitlines())
    assert (header["notebook"], header["protocol"]) == ("05", {"profile": "long"})
    assert (row["settings"], row["values"]) == ({"claim": "error"}, {"net": {"0": 0.4, "1": 0.5}})
    assert {name: row["made"][name] for name in MADE} == MADE
    assert evidence.recorded("05", tmp_path / "results").measured("error") == {"net": {0: 0.4, 1: 0.5}}


def test_a_second_recording_joins_the_first(tmp_path):
    recording.record(executed(tmp_path), "05", root=tmp_path / "results")
    more = {"error": {"net": {2: 0.6}}}
    recording.record(executed(tmp_path, measured=more), "05", root=tmp_path / "results")
    found = evidence.recorded("05", tmp_path / "results").measured("error")
    assert found == {"net": {0: 0.4, 1: 0.5, 2: 0.6}}


def test_only_the_claims_that_are_named_are_recorded(tmp_path):
    root = tmp_path / "results"
    measured = {"error": {"net": {0: 0.4}}, "other": {"net": {0: 7.0}}}
    recording.record(executed(tmp_path, measured=measured), "05", root=root)
    again = {"error": {"net": {0: 0.3}}, "other": {"net": {0: 8.0}}}
    recording.record(executed(tmp_path, measured=again), "05", only=["other"], root=root)
    found = evidence.recorded("05", root)
    assert (found.measured("error"), found.measured("other")) == ({"net": {0: 0.4}}, {"net": {0: 8.0}})


def test_a_claim_that_was_not_measured_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"measured no claim 'eror'; it measured 'error'\."):
        recording.record(executed(tmp_path), "05", only=["eror"], root=tmp_path / "results")


def test_a_quick_table_carries_nothing_that_differs_from_run_to_run(tmp_path):
    shown = evidence.table("05", CLAIMS, {}, settings={"profile": "quick"}, made={}, root=tmp_path)
    assert RUN not in shown._repr_mimebundle_()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"profile": "quick"}, r"executed at profile quick: only long and full are recorded"),
        ({"measured": {}}, r"measured none of its claims"),
        ({"made": {}}, r"names no profile it was executed at"),
    ],
)
def test_what_cannot_be_recorded_is_told(tmp_path, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        recording.record(executed(tmp_path, **options), "05", root=tmp_path / "results")


def test_a_quick_run_is_refused_by_its_profile(tmp_path):
    notebook = nbformat.v4.new_notebook(metadata={"capsnb": {"parameters": {"profile": "quick"}}})
    nbformat.write(notebook, tmp_path / "00_x.ipynb")
    with pytest.raises(ValueError, match=r"00_x.ipynb was executed at profile quick: only long and full are recorded"):
        recording.record(tmp_path, "00")
