"""Text alternatives: what is said of a figure, and that it reaches notebook, page and report."""

import inspect
from base64 import b64decode
from io import BytesIO

import nbformat
import nbformat.v4 as v4
import numpy as np
import pytest
from bs4 import BeautifulSoup
from matplotlib.figure import Figure
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from PIL import Image

from capsnb import plot
from capsnb.evidence import report
from capsnb.plot import words

NOT_DRAWN = {plot.style, plot.describe, plot.LiveCurve}


def test_every_figure_says_of_which_kind_it_is():
    drawn = [each for each in vars(plot).values() if callable(each) and each not in NOT_DRAWN]
    assert len(drawn) > 40
    assert not [each.__name__ for each in drawn if not hasattr(each, "__wrapped__")]
    assert "columns" in inspect.signature(plot.learning_curve).parameters  # its own are still seen


def test_curves_are_told_by_name_with_their_ends_and_their_turn():
    curves = {"capsnet": {"rotation": [0.5, 0.9, 0.4]}}
    told = plot.describe(plot.factor_curves(curves, {"rotation": [-30, 0, 30]}, units={"rotation": "degrees"}))
    assert told.startswith("Accuracy against one transformation at a time")
    assert "rotation. Horizontal axis degrees, -30 to 30. Vertical axis accuracy (%), 40 to 90" in told
    assert "capsnet from 50 to 40, at most 90" in told


def test_points_are_told_row_by_row():
    data = {"base": {"published": 99.2, "this run": [97, 98]}, "deep": {"this run": [96.5]}}
    told = plot.describe(plot.seed_points(data, unit="accuracy (%)").figure)
    assert "base: published 99.2, this run 97 to 98; deep: this run 96.5" in told


def test_bars_cells_and_pictures_are_told():
    assert "Bars: 3 0.25, 7 0.75" in plot.describe(plot.lengths([0.25, 0.75], classes=["3", "7"]).figure)
    heat = plot.heat_maps({"alive": [[0.1, 0.5]]}, ["deep"], [1, 2], xlabel="decay")
    assert "alive. 1 rows by 2 columns of values from 0.1 to 0.5. Horizontal axis decay: 1, 2" in plot.describe(heat)
    grid = plot.image_grid(np.zeros((2, 4, 4)), titles=["3", "7"]).figure
    assert plot.describe(grid) == "Pictures in rows and columns. 2 pictures: 3, 7."


def test_the_kind_is_that_of_the_function_that_was_called():
    rebuilt = plot.reconstructions(np.zeros((1, 1, 4, 4)), np.ones((1, 1, 4, 4)), labels=[3], predictions=[3])
    assert plot.describe(rebuilt.figure).startswith("Images above what the decoder rebuilt of them")


def test_any_figure_says_something_and_none_too_much():
    empty, own, many = Figure(), Figure(), Figure()
    assert plot.describe(empty) == "A figure without any label."
    own.subplots().plot(["a", "b"], [1, 2], label="mine")
    own.axes[0].set_xlabel("letters")
    assert "letters" in plot.describe(own)
    for number, ax in enumerate(many.subplots(4, 4).flat):
        ax.plot([0, 1, 2], [0, 1, 2])
        ax.set_title(f"panel {number} {'long ' * 60}")
    assert "16 panels: panel 0" in plot.describe(many)
    assert len(plot.describe(many)) <= words.LONGEST


SHOWN = """from matplotlib import pyplot as plt
from capsnb import plot
plot.style()
drawn = []
figure = plot.lengths([0.25, 0.75], classes=["3", "7"]).figure
figure.canvas.mpl_connect("draw_event", drawn.append);"""


@pytest.fixture(scope="module")
def executed():
    notebook = v4.new_notebook(cells=[v4.new_code_cell(SHOWN), v4.new_code_cell("print(len(drawn))")])
    return NotebookClient(notebook, timeout=120).execute()


def test_a_figure_in_a_notebook_carries_it_and_has_the_ground_of_the_page(executed):
    (output,) = executed.cells[0].outputs
    assert "Bars: 3 0.25, 7 0.75" in output.metadata["image/png"]["alt"]
    assert "needs_background" not in output.metadata  # JupyterLab would put white behind it
    picture = Image.open(BytesIO(b64decode(output.data["image/png"]))).convert("RGBA")
    assert picture.getpixel((0, 0))[3] == 0


def test_it_is_laid_out_once_for_its_size_and_drawn_once(executed):
    (output,) = executed.cells[1].outputs
    assert output.text == "2\n"


@pytest.mark.parametrize("export", ["nbconvert", "report"])
def test_so_do_a_page_and_the_report(executed, export, tmp_path):
    if export == "nbconvert":
        html, _ = HTMLExporter(template_name="classic").from_notebook_node(executed)
    else:
        path = tmp_path / "00_shown.ipynb"
        nbformat.write(executed, path)
        html = str(report.read(path).body)
    (picture,) = BeautifulSoup(html, "html.parser").find_all("img")
    assert "Bars: 3 0.25, 7 0.75" in picture["alt"]
