import itertools
import re

import nbformat
import nbformat.v4 as v4
import pytest
from helpers import links

from capsnb import evidence, installation
from capsnb.evidence import findings, ledger, offline, report


@pytest.fixture(scope="module")
def index(executed, tmp_path_factory):
    return report.write(executed[0], tmp_path_factory.mktemp("report") / "deep" / "report.html")


@pytest.fixture(scope="module")
def html(index):
    return index.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(index):
    return (index.parent / "report-pages" / "90_stand_in.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def failed(index):
    return (index.parent / "report-pages" / "91_fails.html").read_text(encoding="utf-8")


def notebook(folder, *made, name="07_x.ipynb"):
    """A notebook of these cells, as if executed by hand; data becomes the output of a code cell."""
    outputs = [[v4.new_output("display_data", data=data)] if isinstance(data, dict) else [] for data in made]
    code = [v4.new_code_cell("t", execution_count=1, outputs=each) for each in outputs]
    cells = [
        v4.new_markdown_cell(each) if isinstance(each, str) else cell for each, cell in zip(made, code, strict=True)
    ]
    nbformat.write(v4.new_notebook(cells=cells), folder / name)
    return folder / name


def row(claim, word="undecided", **more):
    """Of a claims table, as an earlier version wrote it."""
    said = {"verdict": word, "reason": "1 of at least 3 seeds", "recorded verdict": word, "recorded reason": "wide"}
    texts = dict.fromkeys(("text", "rule", "published", "source", "recorded run", "recorded origin", "this run"), "")
    return {"notebook": "07", "claim": claim, **texts, **said, **more}


def test_the_pages_load_nothing(page, html):
    loaded = links(page).loaded
    assert loaded
    assert all(value.startswith("data:") for _, value in loaded), loaded
    assert [value[:15] for _, value in links(html).loaded] == ["data:image/png;"]  # the scorecard
    assert "<b>kept</b>" in page
    assert "[not embedded: https://cdn.example/x.js]" in page
    for text in (page, html):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//|@import", text)
        assert "default-src 'none'" in text


def test_the_index_says_how_each_notebook_ended(html):
    assert "2 notebooks executed, 1 failed." in html
    (said,) = re.findall(
        r'<tr>\s*<th scope="row"><a href="report-pages/90_stand_in.html">90 A stand-in</a>.*?</tr>', html, re.S
    )
    assert '<span class="passed">passed' in said
    assert "<td>0 of 1 <small>1 undecided: 1 not run</small></td>" in said
    assert "<td>-</td>" in said
    assert "<small>smoke, seed 3</small>" in said
    assert re.search(r"<small>\d+ s</small>", said)
    assert 'href="report-pages/91_fails.html#failed-cell">code cell 2</a>: ZeroDivisionError: division by zero' in html


def test_the_index_opens_with_the_findings_and_leads_to_their_page(index, html):
    said = findings.findings((installation.project() / findings.PAGE).read_text(encoding="utf-8"))
    there = (index.parent / "report-pages" / report.FINDINGS).read_text(encoding="utf-8")
    flat = " ".join(html.split())
    for each in said[: findings.SHOWN]:
        assert f'href="report-pages/{report.FINDINGS}#{each.anchor}">{each.title}</a>' in flat
        assert each.sentence in flat
        assert each.anchor in links(there).ids
    assert html.index("What was found") < html.index("<table")
    assert "](" not in there and "results.md" not in there  # nothing leads to pages that the report has not


def test_claims_stand_in_their_page(page):
    assert "capsnb-claims" in page
    assert "It has &lt;8&gt; million." in page
    assert "✓ reproduced" in page
    assert "1 claim not run" not in page


def test_every_link_is_to_something_there(index, html, page, failed):
    for text in (html, page, failed):
        found = links(text)
        assert set(found.targets) <= set(found.ids), set(found.targets) - set(found.ids)
        assert len(found.ids) == len(set(found.ids))
        own = index.parent if text is html else index.parent / "report-pages"
        addresses = [each.partition("#") for each in re.findall(r'<a[^>]* href="([^#"][^"]*)"', text)]
        assert addresses
        for file, _, anchor in addresses:
            there = (own / file).read_text(encoding="utf-8")
            assert not anchor or anchor in links(there).ids


def test_headings_and_header_cells_are_in_order(html, page, failed):
    for text in (html, page, failed):
        levels = [int(level) for level in re.findall(r"<h([1-6])\b", text)]
        assert levels.count(1) == 1
        assert levels[0] == 1
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
        assert all("scope=" in tag for tag in re.findall(r"<th\b[^>]*>", text))


def test_a_page_has_one_first_heading_whatever_its_notebook_has(tmp_path):
    cells = [
        "some text",
        "# A\n\n#### deep\n\n# B",
        {"image/png": "iVBORw0KGgo="},
        {"text/html": "<table><tr><th>x</th></tr></table>"},
    ]
    shown = report.read(notebook(tmp_path, *cells))
    assert ">A<" in shown.heading
    assert re.findall(r"<(h\d)", shown.body) == ["h2", "h2"]
    assert 'alt="figure of notebook 07, B"' in shown.body
    assert '<th scope="col">x</th>' in shown.body
    assert report.read(notebook(tmp_path, "text", name="08_own_thing.ipynb")).heading == "<h1>own thing</h1>"


def test_claims_that_never_ran_are_folded(tmp_path):
    ran = [
        row("a", **{"recorded origin": "a machine", "recorded run": "1"}),
        row("b", **{"recorded origin": "a machine"}),
    ]
    given = {evidence.MIME: [row("idle", "not run"), *ran], "text/html": "as it was"}
    shown = report.read(notebook(tmp_path, given))
    open_part, folded = shown.body.split("<details><summary>1 claim not run</summary>")
    assert "idle" in folded
    assert "idle" not in open_part
    assert "as it was" not in shown.body
    assert shown.body.count("a machine") == 1  # said once, below the table
    assert shown.claims[0] == ("0 of 3", "3 undecided: 2 interval too wide, 1 not run")


def test_the_answer_is_what_is_tagged_so_else_the_first_paragraph(tmp_path):
    path = notebook(
        tmp_path,
        "# T\n\n*Paper: a.\nb*\n\nIt *opens* so.\n\nAnd on.",
        {"text/plain": "<said>"},
        "## Answer\n\nYes, [see](#T).",
    )
    assert report.read(path).answer == "<p>It <em>opens</em> so.</p>\n"
    for place, answer in ((2, '<p>Yes, <a href="#T">see</a>.</p>'), (1, "<p>&lt;said&gt;</p>")):
        made = nbformat.read(path, as_version=4)
        made.cells[place].metadata["tags"] = ["answer"]
        nbformat.write(made, path)
        assert report.read(path).answer == answer + "\n"
        written = report.write(tmp_path, tmp_path / "r.html").read_text(encoding="utf-8")
        assert answer.replace("#T", "r-pages/07_x.html#T") in written


def test_pages_of_the_committed_notebooks_are_small(project, tmp_path):
    largest = max((project / "notebooks").glob("*.ipynb"), key=lambda path: path.stat().st_size)
    (tmp_path / largest.name).write_bytes(largest.read_bytes())
    report.write(tmp_path, tmp_path / "r.html")
    assert (tmp_path / "r-pages" / f"{largest.stem}.html").stat().st_size < 3e6


def test_equations_are_mathml(page):
    assert links(page).tags.count("math") == 2
    assert "<mfrac>" in page
    assert "$" not in page[page.index("<main>") :]


def test_no_trace_of_papermill(page):
    assert "injected" not in page
    assert "papermill" not in page.lower()
    assert 'profile = "smoke"' not in page


def test_numbers_are_those_of_the_source(failed):
    assert re.findall(r'class="number">\[(.)\]', failed) == ["1", "2", " "]
    assert "In[2]" in failed
    assert "In[3]" not in failed


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
    assert "2 notebooks executed, 1 failed. Not executed: 09." in html


def test_claims_of_another_version_are_no_failure(tmp_path):
    shown = report.read(notebook(tmp_path, {evidence.MIME: [{"claim": "x"}], "text/html": "as it was"}))
    assert "another version of capsnb" in shown.note
    assert "as it was" in shown.body


def test_no_executed_notebook_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no executed notebook in"):
        report.write(tmp_path / "missing", tmp_path / "r.html")


def test_the_results_table_comes_from_the_records(tmp_path):
    assert ledger.whole(tmp_path, tmp_path) == "No run has been recorded yet."
    values = {"error": {"3 iterations": {0: 0.25, 1: 0.27, 2: 0.29}}}
    evidence.record("00", values, seeds=[0, 1, 2], settings={}, device="a device", root=tmp_path)
    row = {"notebook": "00", "claim": "error", "published": "0.25 % error"}
    output = v4.new_output("display_data", data={evidence.MIME: [row]})
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell("t", outputs=[output])]), tmp_path / "00_x.ipynb")
    table = ledger.whole(tmp_path, tmp_path)
    assert "| error | - | paper | 0.25 % error | 3 iterations 0.27 ± 0.02 (3) | - | - | - | (1) |" in table
    assert re.search(r"^\(1\) .* a device", table, re.MULTILINE)


def test_the_results_table_has_the_verdicts_of_the_notebooks(tmp_path):
    values = {"better": {"a": {0: 1.0}, "b": {0: 2.0}}, "half": {"a": {0: 1.0}}}
    evidence.record("00", values, seeds=[0], settings={}, device="a device", root=tmp_path)
    base = {"notebook": "00", "published": "1", "recorded origin": "a device", "recorded reason": "it is wide"}
    better = base | {"claim": "better", "recorded run": "-1 (n=1)", "recorded verdict": "undecided"}
    half = base | {"claim": "half", "recorded run": "", "recorded verdict": "not run"}
    output = v4.new_output("display_data", data={evidence.MIME: [better, half]})
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell("t", outputs=[output])]), tmp_path / "00_x.ipynb")
    table = ledger.whole(tmp_path, tmp_path)
    assert "| better | - | paper | 1 | -1 (n=1) | undecided | - | - | (1) |" in table
    assert "| half" not in table
    assert "Not run: half." in table
    assert "The papers' claims: 2; 0 decided, 2 undecided (1 interval too wide, 1 not run), 0 met by null." in table


def test_the_results_table_only_names_what_its_notebook_does_not_state(tmp_path):
    options = {"seeds": [0], "settings": {}, "device": "a device", "root": tmp_path}
    evidence.record("00", {"old": {"a": {0: 1.0}}, "kept": {"a": {0: 2.0}}}, **options)
    evidence.record("00", {"kept": {"a": {0: 3.0}}, "new": {"a": {0: 4.0}}}, **options)
    assert "| old |" in ledger.whole(tmp_path, tmp_path)  # no notebook: nobody knows
    row = {"notebook": "00", "claim": "kept", "published": "1"}
    output = v4.new_output("display_data", data={evidence.MIME: [row]})
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell("t", outputs=[output])]), tmp_path / "00_x.ipynb")
    table = ledger.whole(tmp_path, tmp_path)
    assert (
        "old" not in table
        and "| kept | - | paper | 1 | a 3 (1) | - |" in table
        and "| new |" not in table
        and "Recorded, but not stated by the notebook as it is: new." in table
    )


def test_the_answer_in_the_readme_is_the_first_sentence_of_the_one_in_the_notebook(tmp_path):
    said = "**Answer, so far** (0 of 9). It leans 0.5 of the way, as 1 of 3 does. Then it stops."
    cells = [v4.new_markdown_cell("# 08 Why?"), v4.new_markdown_cell(said, metadata={"tags": ["answer"]})]
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / "08_x.ipynb")
    assert "| Why? | It leans 0.5 of the way, as 1 of 3 does. | - | - |" in ledger.summary(tmp_path)


def test_readme_and_ledger_are_filled_between_their_marks(tmp_path):
    text = f"a\n{ledger.MARKS[0]}\nold\n{ledger.MARKS[1]}\nb\n"
    (tmp_path / "results").mkdir()
    for file in (tmp_path / "README.md", tmp_path / ledger.LEDGER):
        file.write_text(text)
    notebook(
        tmp_path,
        "# 07 Why?",
        {evidence.MIME: [row("x", text="It | is so.", **{"recorded run": "1 (n=1)"}), row("y", "not run")]},
    )
    for again in range(2):
        readme, whole = ledger.filled(tmp_path / "README.md", tmp_path).values()
        for file, filled in ((tmp_path / "README.md", readme), (tmp_path / ledger.LEDGER, whole)):
            assert filled.startswith(f"a\n{ledger.MARKS[0]}\n")
            assert filled.endswith(f"\n{ledger.MARKS[1]}\nb\n")
            assert "old" not in filled
            assert not again or filled == file.read_text(encoding="utf-8")
            file.write_text(filled, encoding="utf-8")
    known = "none of its claims is decided"
    assert f"07_x.ipynb) | Why? | {known} | [0 of 2](results/README.md#notebook-07) | - |" in readme
    assert "It" not in readme
    assert "### Notebook 07\n" in whole
    assert "| x | It \\| is so. | paper | - | 1 (n=1) | undecided | - | - |" in whole
    assert "Not run: y." in whole
    (tmp_path / ledger.LEDGER).write_text("nothing here")
    with pytest.raises(ValueError, match="lacks the marks"):
        ledger.filled(tmp_path / "README.md", tmp_path)
