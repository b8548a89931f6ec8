"""Figures of notebook 03, judged by their artists and data; their looks are judged by eye."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
from helpers import legend_texts as texts

from capsnb.measure.dictionary import Cluster, Trees
from capsnb.plot import (
    coupling_distributions,
    dose_response,
    entropy_by_class,
    key_clusters,
    level_curves,
    training_path,
)

mpl.use("Agg")
NUMBERS = np.random.default_rng(0)
FEW = Trees((8, 4), (2, 1), (0.8, 0.0), (3.0, 2.0))
MANY = Trees((6, 6), (6, 6), (2.585, 2.585), (2.585, 2.585))


pytestmark = pytest.mark.usefixtures("figures_closed")


def test_distributions_have_a_panel_per_model_and_a_rising_curve_per_class():
    models = {"plain": NUMBERS.dirichlet(np.ones(10), 200), "REM": torch.full((4, 10), 0.1)}
    figure = coupling_distributions(models, names="abcdefghij")
    first, second = figure.axes
    assert first.get_title(loc="left") == "plain" and second.get_title(loc="left") == "REM"
    curves, (mark,) = first.lines[:5], first.lines[5:]
    assert sorted(texts(second.get_legend())) == ["a", "b", "c", "d", "e", "uniform, 1/10"]
    for label, curve in enumerate(curves):
        values, shares = curve.get_data()
        half = np.searchsorted(values, 0.1, side="right") - 1
        assert shares[half] == pytest.approx(100 * (models["plain"][:, label] <= 0.1).mean())
        assert (shares[0], shares[-1]) == (0, 100)
    assert second.lines[0].get_xydata().round(6).tolist() == [[0, 0], *([0.1, 25 * n] for n in (1, 2, 3, 4)), [1, 100]]
    assert mark.get_xdata()[0] == pytest.approx(0.1)
    upper = coupling_distributions(models, least=95).axes[0]
    assert first.get_ylim() == (-2, 102) and upper.get_ylim() == (94.9, 100.1)


def arm(pull, *shares):
    rows = range(1, len(shares) + 1)
    series = {"epoch": list(rows), "pull": [pull * n for n in rows], "share": list(shares)}
    return series | {"accuracy": [0.9 + 0.01 * n for n in rows], "even": [1 - share for share in shares]}


ARMS = {
    "plain": {0: arm(0, 0.6, 0.7, 0.72), 1: arm(0, 0.5, 0.68)},
    "REM": {0: arm(0.5, 0.6, 0.5, 0.4), 1: arm(0.5, 0.58, 0.52)},
    "twice": {0: arm(1, 0.5, 0.3, 0.2)},
    "never run": {},
}


def test_a_dose_has_arms_against_epochs_and_their_ends_against_the_pull():
    figure = dose_response(ARMS, shown=("plain", "REM"), doses=("plain", "REM", "twice"), published=3.7)
    (share, ends), (right, _), (even, _) = np.reshape(figure.axes, (3, 2))
    seeds, mean = share.lines[:2], share.lines[2]
    assert [line.get_ydata().tolist() for line in seeds] == [
        pytest.approx([60, 70, 72]),
        pytest.approx([50, 68]),
    ]
    assert mean.get_xydata().tolist() == [pytest.approx([1, 55]), pytest.approx([2, 69])], "records that all seeds have"
    assert len(share.lines) == 6, "twice is not shown beside them"
    assert right.lines[0].get_ydata().tolist() == pytest.approx([91, 92, 93])
    assert even.lines[0].get_ydata().tolist() == pytest.approx([40, 30, 28])
    points = [each.get_offsets().tolist() for each in ends.collections]
    assert points[1] == [pytest.approx([1.5, 40]), pytest.approx([1, 52])] and len(points) == 3
    joined, paper = ends.lines
    assert joined.get_xydata().tolist() == [pytest.approx(each) for each in ([0, 70], [1.25, 46], [3, 20])]
    assert paper.get_xdata()[0] == 3.7
    (legend,) = figure.legends
    assert texts(legend) == ["plain", "REM", "twice", "the paper's dose, at least"]
    assert not dose_response({"plain": {}}).axes[0].lines, "nothing was run yet"


def test_a_training_path_has_entropy_above_accuracy_and_the_bound():
    rows = [
        {"epoch": 1, "sparsity": 0.2, "accuracy": 0.9, "entropy": 5.0, "bound": 6.6},
        {"epoch": 2, "sparsity": 0.6, "accuracy": 0.95, "entropy": 3.0, "bound": 6.7},
    ]
    figure = training_path({"rem": rows})
    upper, lower = figure.axes
    assert upper.lines[0].get_xydata().tolist() == [[20, 5], [60, 3]]
    assert upper.lines[1].get_xydata().tolist() == [[20, 6.6], [60, 6.7]]
    assert lower.lines[0].get_xydata().tolist() == [[20, 90], [60, 95]]
    assert texts(upper.get_legend()) == ["rem", "most it can be"]
    assert lower.get_xlabel() == "weights pruned (%)"
    figure = training_path({"rem": rows, "plain": [row | {"sparsity": None} for row in rows]}, against="epoch")
    assert figure.axes[1].lines[1].get_xdata().tolist() == [1, 2] and figure.axes[1].get_xlabel() == "epoch"


def test_every_class_and_the_mean_stand_below_their_bounds():
    ax = entropy_by_class({"rem": FEW, "plain": MANY}, names=("zero", "one"))
    heights = [bar.get_height() for bar in ax.patches]
    assert heights == pytest.approx([0.8, 0, 0.4, 2.585, 2.585, 2.585])
    lines = [segment[0][1] for each in ax.collections for segment in each.get_segments()]
    assert lines == pytest.approx([3, 2, 2.5, 2.585, 2.585, 2.585])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["zero", "one", "mean"]
    assert texts(ax.get_legend())[-1].startswith("most it can be")


def test_levels_are_drawn_in_order_with_the_chosen_one():
    levels = {
        11: {"accuracy": 0.95, "entropy": 6.0, "bound": 6.6, "keys": 900},
        3: {"accuracy": 0.7, "entropy": 2.0, "bound": 6.6, "keys": 50},
    }
    figure = level_curves({"plain": levels}, chosen=11)
    accuracy, entropy, keys = figure.axes
    assert accuracy.lines[0].get_xydata().tolist() == [[3, 70], [11, 95]]
    assert entropy.lines[0].get_ydata().tolist() == [2, 6] and entropy.lines[1].get_ydata().tolist() == [6.6, 6.6]
    assert keys.lines[0].get_ydata().tolist() == [50, 900] and keys.get_yscale() == "log"
    assert all(ax.lines[-1].get_xdata()[0] == 11 for ax in figure.axes)
    assert texts(figure.legends[0]) == ["plain", "most the entropy can be", "K = 11"]


def test_clusters_stand_in_rows_with_their_sizes():
    def cluster(count):
        return Cluster(0, 0, torch.arange(count), torch.rand(1, 6, 6))

    figure = key_clusters({0: [cluster(1200), cluster(3)], 7: [cluster(5)]})
    (ax,) = figure.axes
    assert len(ax.images) == 3  # the last place is left free
    assert [text.get_text() for text in ax.texts] == ["1,200", "3", "5", ""]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "7"]
    with pytest.raises(ValueError, match="none of the classes 0, 7 has a cluster"):
        key_clusters({0: [], 7: []})
