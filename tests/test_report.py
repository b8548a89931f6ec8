import re

import nbformat
import nbformat.v4 as v4
import pytest
from helpers import links

from capsnb import evidence
from capsnb.evidence import offline, report


@pytest.fixture(scope="module")
def page(executed, tmp_path_factory):
    target = report.write(executed[0], tmp_path_factory.mktemp("report") / "deep" / "report.html")
    return target.read_text(encoding="utf-8")


def test_the_page_loads_nothing(page):
    loaded = links(page).loaded
    assert loaded
    assert all(value.startswith("data:") for _, value in loaded), loaded
    assert not re.search(r"url\(\s*['\"]?(https?:)?//|@import", page)
    assert "<b>kept</b>" in page
    assert "[not embedded: https://cdn.example/x.js]" in page
    assert "default-src 'none'" in page


def test_the_index_says_how_each_notebook_ended(page):
    index = page[: page.index('<section class="notebook"')]
    assert "2 notebooks executed, 1 failed." in index
    assert re.search(r'90 A stand-in</a></td>\s*<td class="state"><span class="passed">passed', index)
    assert "code cell 2</a>: ZeroDivisionError: division by zero" in index
    assert "smoke, seed 3" in index


def test_claims_stand_in_the_index(page):
    index = page[: page.index('<section class="notebook"')]
    assert "capsnb-claims" in index
    assert "It has &lt;8&gt; million." in index
    assert "✓ reproduced" in index


def test_every_anchor_is_there_and_is_the_only_one(page):
    found = links(page)
    assert set(found.targets) <= set(found.ids), set(found.targets) - set(found.ids)
    assert len(found.ids) == len(set(found.ids))
    assert "nb-91-failed" in found.targets


def test_equations_are_mathml(page):
    assert links(page).tags.count("math") == 2
    assert "<mfrac>" in page
    assert "$" not in page[page.index('id="nb-90"') : page.index('id="nb-91"')]


def test_no_trace_of_papermill(page):
    assert "injected" not in page
    assert "papermill" not in page.lower()
    assert 'profile = "smoke"' not in page


def test_numbers_are_those_of_the_source(page):
    body = page[page.index('id="nb-91"') :]
    assert re.findall(r'class="number">\[(.)\]', body) == ["1", "2", " "]
    assert "In[2]" in body
    assert "In[3]" not in body


def test_code_is_folded_under_its_first_statement(page):
    assert "<code>print(1 + 1, profile)</code></summary>" in page
    assert offline.headline("# only\n# comments") == "# only"
    assert offline.headline("") == ""


def test_a_notebook_executed_by_hand_is_read_too(tmp_path):
    cell = v4.new_code_cell("print(1)", execution_count=1, outputs=[v4.new_output("stream", text="1\n")])
    error = v4.new_output("error", ename="KeyError", evalue="'x'", traceback=["Cell In[5], line 1"])
    fails = v4.new_code_cell("d['x']", execution_count=5, outputs=[error])
    nbformat.write(v4.new_notebook(cells=[cell]), tmp_path / "07_own_thing.ipynb")
    nbformat.write(v4.new_notebook(cells=[cell, fails]), tmp_path / "08_other.ipynb")
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell("1")]), tmp_path / "09_never.ipynb")
    passed, failed, never = (report.read(path) for path in sorted(tmp_path.glob("*.ipynb")))
    assert (passed.state, passed.title, passed.time) == ("passed", "own thing", "")
    assert (failed.state, failed.cell, failed.error) == ("failed", 2, "KeyError: 'x'")
    assert "In[2]" in failed.body
    assert never.state == "not executed"
    html = report.write(tmp_path, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "2 notebooks executed, 1 failed." in html


def test_claims_of_another_version_are_no_failure(tmp_path):
    output = v4.new_output("display_data", data={evidence.MIME: [{"claim": "x"}], "text/plain": ""})
    nbformat.write(
        v4.new_notebook(cells=[v4.new_code_cell("t", execution_count=1, outputs=[output])]), tmp_path / "07_x.ipynb"
    )
    assert "another version of capsnb" in report.read(tmp_path / "07_x.ipynb").claims


def test_no_executed_notebook_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no executed notebook in"):
        report.write(tmp_path / "missing", tmp_path / "r.html")


def test_the_results_table_comes_from_the_records(tmp_path):
    assert report.results_table(tmp_path, tmp_path) == "No run has been recorded yet."
    values = {"error": {"3 iterations": {0: 0.25, 1: 0.27, 2: 0.29}}}
    evidence.record("00", values, seeds=[0, 1, 2], settings={}, device="a device", root=tmp_path)
    row = {"notebook": "00", "claim": "error", "published": "0.25 % error"}
    output = v4.new_output("display_data", data={evidence.MIME: [row]})
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell("t", outputs=[output])]), tmp_path / "00_x.ipynb")
    table = report.results_table(tmp_path, tmp_path)
    assert "| 00 | error | paper | 0.25 % error | 3 iterations 0.27 ± 0.02 (3) | - | - | - |" in table
    assert "a device" in table


def test_the_results_table_has_the_verdicts_of_the_notebooks(tmp_path):
    values = {"better": {"a": {0: 1.0}, "b": {0: 2.0}}, "half": {"a": {0: 1.0}}}
    evidence.record("00", values, seeds=[0], settings={}, device="a device", root=tmp_path)
    base = {"notebook": "00", "published": "1", "recorded origin": "a device", "recorded reason": "it is wide"}
    better = base | {"claim": "better", "recorded run": "-1 (n=1)", "recorded verdict": "undecided"}
    half = base | {"claim": "half", "recorded run": "", "recorded verdict": "not run"}
    output = v4.new_output("display_data", data={evidence.MIME: [better, half]})
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell("t", outputs=[output])]), tmp_path / "00_x.ipynb")
    table = report.results_table(tmp_path, tmp_path)
    assert "| 00 | better | paper | 1 | -1 (n=1) | undecided | - | - |" in table
    assert "half" not in table
    assert "The papers' claims: 2; 0 decided, 2 undecided (1 interval too wide, 1 not run), 0 met by null." in table


def test_the_results_table_leaves_out_what_no_notebook_states_any_more(tmp_path):
    options = {"seeds": [0], "settings": {}, "device": "a device", "root": tmp_path}
    evidence.record("00", {"old": {"a": {0: 1.0}}, "kept": {"a": {0: 2.0}}}, **options)
    evidence.record("00", {"kept": {"a": {0: 3.0}}, "new": {"a": {0: 4.0}}}, **options)
    assert "| 00 | old |" in report.results_table(tmp_path, tmp_path)  # no notebook: nobody knows
    row = {"notebook": "00", "claim": "kept", "published": "1"}
    output = v4.new_output("display_data", data={evidence.MIME: [row]})
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell("t", outputs=[output])]), tmp_path / "00_x.ipynb")
    table = report.results_table(tmp_path, tmp_path)
    assert (
        "old" not in table
        and "| 00 | kept | paper | 1 | a 3 (1) | - |" in table
        and "| 00 | new | - | - | a 4 (1) | - |" in table
    )


def test_the_readme_is_filled_between_its_marks():
    text = f"a\n{report.MARKS[0]}\nold\n{report.MARKS[1]}\nb\n"
    filled = report.fill_readme(text, "new")
    assert filled == f"a\n{report.MARKS[0]}\nnew\n{report.MARKS[1]}\nb\n"
    assert report.fill_readme(filled, "new") == filled
    with pytest.raises(ValueError, match="lacks the marks"):
        report.fill_readme("nothing here", "new")
