"""Figures of notebook 01, judged by their artists and data; their looks are judged by eye."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
from helpers import legend_texts as texts

from capsnb import plot
from capsnb.plot.style import GREY

mpl.use("Agg")
pytestmark = pytest.mark.usefixtures("figures_closed")
FEATURES = ["rotation", "thickness", "width", "slant", "area"]


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_pictures_stand_in_named_rows():
    inputs = torch.full((3, 1, 4, 4), 255, dtype=torch.uint8)
    ax = plot.picture_rows({"input": inputs, "DR": torch.zeros(3, 1, 4, 4)}, labels=[7, 8, 9])
    assert len(ax.images) == 6 and ax.images[2].get_array().min() == 1 and ax.images[3].get_array().max() == 0
    assert ticks(ax.yaxis) == ["input", "DR"] and ticks(ax.xaxis) == ["7", "8", "9"]
    with pytest.raises(ValueError, match=r"need one shape, not \(3, 1, 4, 4\), \(2, 1, 4, 4\)"):
        plot.picture_rows({"a": inputs, "b": inputs[:2]})


def test_perturbations_by_class_name_their_interval():
    grid = torch.rand(2, 3, 1, 4, 4)
    shared, own = torch.tensor([-0.5, 0, 0.5]), torch.tensor([[-0.2, 0, 0.3], [-0.45, 0, 0.22]])
    figure = plot.class_perturbations({"one": grid, "own": grid}, {"one": shared, "own": own}, rows=(2, 8))
    one, each = figure.axes[:2]
    assert one.get_title() == "one\n[-0.50, 0.50]" and each.get_title() == "own"
    assert len(one.images) == 6 and ticks(one.yaxis) == ["2", "8"]
    right = each.child_axes[0]
    assert ticks(right.yaxis) == ["[-0.20, 0.30]", "[-0.45, 0.22]"]
    with pytest.raises(ValueError, match=r"own has pictures \(2, 3\) for steps \(2,\)"):
        plot.class_perturbations({"own": grid}, {"own": shared[:2]})


def test_intervals_stand_beside_the_published_ones():
    ends = (torch.tensor([-0.4, -0.2]), torch.tensor([0.4, 0.3]))
    figure = plot.class_intervals(
        {"DR": ends, "EM": ends},
        published={"DR": ([-0.44, -0.24], [0.4, 0.3])},
        xlabel={"DR": "a dimension's value", "EM": "activation"},
    )
    assert [ax.get_xlabel() for ax in figure.axes] == ["a dimension's value", "activation"]
    ours, published = figure.axes[0].collections
    assert [segment[:, 0].tolist() for segment in ours.get_segments()] == [
        pytest.approx([-0.4, 0.4]),
        pytest.approx([-0.2, 0.3]),
    ]
    assert published.get_segments()[0][:, 0].tolist() == [-0.44, 0.4]
    assert len(figure.axes[1].collections) == 1 and figure.axes[1].get_legend() is None
    assert texts(figure.axes[0].get_legend()) == ["this run", "published"]


def test_effects_have_a_dot_from_the_threshold_on():
    effect = torch.zeros(3, 5)
    effect[1, 2], effect[2, 4], effect[0, 0] = -0.5, 4.0, 0.4
    figure = plot.feature_effects({"class 1": effect}, FEATURES)
    ax = figure.axes[0]
    assert ax.lines[0].get_xydata().tolist() == [[2, 1], [4, 2]]
    assert ticks(ax.xaxis) == FEATURES and np.allclose(ax.images[0].get_array(), effect)
    with pytest.raises(ValueError, match=r"has effects \(3, 5\) for 2 features"):
        plot.feature_effects({"class 1": effect}, ["a", "b"])


def test_ablation_curves_by_layer_and_by_class():
    panels = {
        "filters": {"GAP": ((1, 2, 4), [0.1, 0.5, 0.9])},
        "capsules": {
            "backward": ((1, 10), torch.tensor([[0.2, 0.4], [0.9, 1.0]])),
            "null: random units": ((1, 10), [0.1, 0.2]),
        },
    }
    figure = plot.ablation_curves(panels, chosen={"capsules": 10}, dense=0.95)
    filters, capsules = figure.axes[:2]
    assert filters.lines[0].get_ydata().tolist() == pytest.approx([10, 50, 90])
    assert filters.lines[1].get_ydata()[0] == 95
    assert [line.get_ydata().tolist() for line in capsules.lines[:3]] == [
        pytest.approx(values) for values in ([20, 90], [40, 100], [30, 95])
    ]
    assert capsules.lines[-1].get_xdata()[0] == 10
    assert texts(figure.legends[0]) == ["GAP", "whole network", "backward", "null: random units", "k in use"]
    with pytest.raises(ValueError, match="filters, GAP: 3 values of k for 2 accuracies"):
        plot.ablation_curves({"filters": {"GAP": ((1, 2, 4), [0.1, 0.5])}})
    assert len(plot.ablation_curves(dict.fromkeys("abcd", panels["filters"]), columns=3).axes) == 6


def test_sharing_has_bars_and_pairs():
    pairs = torch.tensor([[3, 2, 0], [2, 3, 1], [0, 1, 2]])
    figure = plot.unit_sharing({"DR": ([1, 0, 1], [2, 3, 1], pairs)}, classes="abc", chance=0.5)
    bars, table = figure.axes[:2]
    assert [bar.get_height() for bar in bars.patches] == [1, 0, 1, 2, 3, 1]
    assert [bar.get_y() for bar in bars.patches[3:]] == [1, 0, 1]
    assert [text.get_text() for text in table.texts] == ["2", "0", "1"]
    assert texts(bars.get_legend()) == ["exclusive", "shared"] and ticks(table.xaxis) == ["a", "b", "c"]


def test_maps_stand_beside_their_image():
    images = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    maps = torch.rand(2, 4, 4)
    figure = plot.overlap_maps(images, {"class": maps, "mask": maps > 0.5}, rows=[3, 5])
    assert len(figure.axes) == 6
    assert [ax.get_title(loc="center") for ax in figure.axes[:3]] == ["image", "class", "mask"]
    assert figure.axes[1].images[0].get_clim() == (0, pytest.approx(float(maps[0].max())))
    assert figure.axes[2].images[0].get_clim() == (0, 1) and figure.axes[3].get_ylabel() == "5"
    with pytest.raises(ValueError, match=r"class has maps \(1, 4, 4\) for 2 images"):
        plot.overlap_maps(images, {"class": maps[:1]})


def test_bands_reach_from_seed_to_seed_and_nulls_are_grey():
    parts = {
        "DR": {"own": ([1, 10], [[10, 20], [30, 40]]), "null: random": ([1, 10], [[5, 5]])},
        "EM": {"own": ([1, 10], [1, 2])},
    }
    figure = plot.seed_bands(parts, xlabel="k", ylabel="%", log=True, marks={"DR": [50, 60]}, ylim=(0, 100))
    first, second = figure.axes[:2]
    assert first.lines[0].get_ydata().tolist() == [20, 30] and first.lines[1].get_color() == GREY
    band = first.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (10, 40)
    assert first.lines[2].get_ydata().tolist() == [50, 60] and first.get_xscale() == "log"
    assert second.get_title() == "EM" and ticks(second.xaxis) == ["1", "10"]
    assert texts(figure.legends[0]) == ["own", "null: random", "printed"]
    assert len(plot.seed_bands(dict.fromkeys("abcd", parts["DR"]), columns=3).axes) == 6
    apart = {"DR": {"one": ([1], [1]), "two": ([1], [2])}, "EM": {"two": ([1], [2]), "three": ([1], [3])}}
    first, second = plot.seed_bands(apart).axes[:2]
    assert second.lines[0].get_marker() == first.lines[1].get_marker()  # a curve looks alike in all panels
    assert second.lines[1].get_marker() not in {line.get_marker() for line in first.lines}
    low, high = plot.seed_bands({"a": {"own": ([1, 2], [50, 60])}, "b": {"own": ([1, 2], [2, 90])}}).axes[:2]
    assert low.get_ylim() == high.get_ylim() and low.get_ylim()[0] < 2 and low.get_ylim()[1] > 90  # nothing is cut off
    with pytest.raises(ValueError, match="DR, own: 3 values of x for 2 of the curve"):
        plot.seed_bands({"DR": {"own": ([1, 2, 3], [[1, 2]])}})
