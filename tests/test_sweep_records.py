"""A recorded sweep, its numbers per network, and the map over its grid."""

import json
import math

import matplotlib as mpl
import numpy as np
import pytest

from capsnb import plot
from capsnb.evidence.sweep import hidden_means, recorded

mpl.use("Agg")


pytestmark = pytest.mark.usefixtures("figures_closed")


def row(digest, **more):
    base = {"digest": digest, "error": None, "depth": 3, "capsules": 4, "alive": [4, 4, 1, 10], "dyr": [0.1, 0.2, 0.6]}
    return base | {"test accuracy": 0.75, "kept": [0.9, 0.5, 0.25, 0.8]} | more


def test_rows_of_a_recorded_sweep_without_those_that_failed(tmp_path):
    lines = [row("a"), row("b", error="ValueError: no"), row("c")]
    (tmp_path / "small.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    assert [each["digest"] for each in recorded("small", tmp_path)] == ["a", "c"]


def test_a_sweep_that_was_not_recorded_has_no_rows(tmp_path):
    assert recorded("small", tmp_path) == []
    assert recorded("small", tmp_path / "nowhere") == []


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "small.jsonl").write_text("depth,capsules\n2,4\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"is not a row of a sweep|does not end in a row"):
        recorded("small", tmp_path)


def test_means_of_hidden_capsules_by_hand():
    found = hidden_means(row("a"))
    assert found == pytest.approx({"living %": 100 * 5 / 8, "dyr": 0.3, "accuracy %": 75.0, "kept %": 37.5})


def test_a_silent_layer_keeps_nothing_and_does_not_count():
    assert hidden_means(row("a", kept=[0.9, 0.5, None, 0.8]))["kept %"] == 50


def test_a_network_without_hidden_layers_has_no_living_share():
    found = hidden_means(row("a", alive=[4, 10], dyr=[0.5], kept=[0.9, 0.8]))
    assert [name for name, value in found.items() if math.isnan(value)] == ["living %", "kept %"]


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
