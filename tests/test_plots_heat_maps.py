"""The map over the grid of a sweep."""

import matplotlib as mpl
import numpy as np
import pytest

from capsnb import plot

mpl.use("Agg")


pytestmark = pytest.mark.usefixtures("figures_closed")


def test_a_map_shows_every_number_in_its_cell_and_leaves_a_missing_one_blank():
    values = {"dead %": np.array([[0.0, 62.5, 100.0], [10.0, np.nan, 30.0]]), "dyr": np.full((2, 3), 0.25)}
    figure = plot.heat_maps(values, [2, 5], [4, 8, 16], ylabel="layers", xlabel="capsules", digits={"dyr": 2})
    first, second = figure.axes
    shown = {tuple(map(int, text.get_position())): text.get_text() for text in first.texts}
    assert shown == {(0, 0): "0", (1, 0): "62", (2, 0): "100", (0, 1): "10", (2, 1): "30"}
    assert {text.get_text() for text in second.texts} == {"0.25"}
    assert np.array_equal(first.images[0].get_array().filled(np.nan), values["dead %"], equal_nan=True)
    assert [label.get_text() for label in first.get_xticklabels()] == ["4", "8", "16"]
    assert [label.get_text() for label in first.get_yticklabels()] == ["2", "5"]
    assert (first.get_ylabel(), second.get_ylabel(), second.get_title("left")) == ("layers", "", "dyr")


def test_numbers_stand_out_from_their_cells():
    figure = plot.heat_maps({"x": [[0.0, 1.0]]}, ["row"], ["a", "b"])
    assert [text.get_color() for text in figure.axes[0].texts] == ["black", "white"]


def test_figures_can_share_a_scale():
    figure = plot.heat_maps({"x": [[0.0, 1.0]], "y": [[0.0, 1.0]]}, ["row"], ["a", "b"], limits={"x": (0.0, 4.0)})
    assert [panel.images[0].get_clim() for panel in figure.axes] == [(0.0, 4.0), (0.0, 1.0)]


def test_a_map_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"dyr has the shape \(2, 2\), not 2 rows by 3 columns"):
        plot.heat_maps({"dyr": np.zeros((2, 2))}, [2, 5], [4, 8, 16])
