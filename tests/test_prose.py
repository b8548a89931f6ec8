"""No number without a cell: what the prose of a notebook says was measured stands in an output of that notebook.

Only for those that are drawn from the evidence store: what they show is the same for every reader.
"""

import html
import re

import nbformat
import pytest
from test_notebooks import FOLDER, NOTEBOOKS, texts

from capsnb.evidence import plans
from capsnb.installation import project

STORED = [path for path in NOTEBOOKS if path.name[:2] in plans.planned() and plans.opens(path.name[:2]) != "quick"]
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?![\w]|\.\d)")
# a decimal, or a percentage; whole numbers are settings, places and counts of what one sees
MEASURED = re.compile(r"(?<![\w.])\d[\d,]*\.\d+(?![\w]|\.\d)|(?<![\w.])\d[\d,]*(?:\.\d+)?(?= ?(?:%|points))")
NOT_PROSE = re.compile(
    r"95 % interval|\$\$.*?\$\$|\$[^$]*\$|`[^`]*`|\]\([^)]*\)|^#.*?$|sec(?:tion|\.) [\d.]+|arXiv [\d.]+",
    re.DOTALL | re.M,
)


def value(text):
    return float(text.replace(",", ""))


def unfounded(notebook):
    """The numbers of the prose that stand in no output, no code and no published table, each with its cell."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            sources += [html.unescape(re.sub(r"<[^>]*>", " ", text)) for text in texts(output)]
    asked = " ".join(sources)  # tables of the papers that the code names, as in lookup("lin2018/chamfer/cnn")
    tables = [file for file in (project() / "data" / "published").glob("*.csv") if f"{file.stem}/" in asked]
    sources += [file.read_text(encoding="utf-8") for file in tables]
    known = {value(found) for text in sources for found in NUMBER.findall(text)}
    for place, cell in enumerate(notebook.cells):
        if cell.cell_type != "markdown":
            continue
        for found in MEASURED.findall(NOT_PROSE.sub(" ", cell.source)):
            digits = len(found.partition(".")[2])
            shown = {round(scale * each, digits) for each in known for scale in (1, 100)}
            if value(found) not in shown:
                yield place, found


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_every_measured_number_in_the_prose_comes_from_a_cell(path):
    assert list(unfounded(nbformat.read(path, as_version=4))) == []


def test_a_number_that_no_cell_shows_is_found():
    new = nbformat.v4
    output = new.new_output("stream", text="accuracy 0.4712, of 1,500 images\n")
    code = new.new_code_cell("rate = 0.05", outputs=[output])
    prose = (
        "It is right on 47.1 % (0.471), at a rate of 0.05; $0.99^5$, `0.3`, section 3.2. Not on 48 % or by 2.5 points."
    )
    notebook = new.new_notebook(cells=[code, new.new_markdown_cell(prose)])
    assert list(unfounded(notebook)) == [(1, "48"), (1, "2.5")]
    assert FOLDER.is_dir() and {"00", "02"} <= {path.name[:2] for path in STORED}
