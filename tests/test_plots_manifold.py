"""Figures of notebook 02, judged by their artists and data; their looks are judged by eye."""

import matplotlib as mpl
import pytest
import torch
from helpers import legend_texts as texts

from capsnb.plot import (
    certainty_against_fitness,
    embedded_grid,
    embedded_grids,
    transfer_points,
    transfer_schemes,
    trial_bands,
)
from capsnb.plot.points import SCHEMES

mpl.use("Agg")
GRID = torch.cartesian_prod(torch.arange(-2, 3), torch.arange(-2, 3))


pytestmark = pytest.mark.usefixtures("figures_closed")


def test_an_embedded_grid_joins_neighbours():
    points = GRID.double() * 3 + 1
    ax = embedded_grid(points, GRID, title="7, 8")
    rows, columns = ax.lines[:5], ax.lines[5:10]
    assert rows[0].get_xydata().tolist() == [[-5, -5], [-5, -2], [-5, 1], [-5, 4], [-5, 7]]
    assert columns[0].get_xydata()[:, 1].tolist() == [-5] * 5
    assert ax.lines[-1].get_xydata().tolist() == [[1, 1]]  # the unshifted image
    shuffled = torch.randperm(25, generator=torch.Generator().manual_seed(0))
    again = embedded_grid(points[shuffled], GRID[shuffled])
    assert [line.get_xydata().tolist() for line in again.lines[:10]] == [
        line.get_xydata().tolist() for line in ax.lines[:10]
    ]
    with pytest.raises(ValueError, match=r"points of the plane \(S, 2\) are needed .* not \(25, 3\)"):
        embedded_grid(torch.zeros(25, 3), GRID)


def test_grids_have_a_panel_each_and_no_more():
    figure = embedded_grids({name: (GRID, GRID) for name in "abcde"}, columns=3)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["a", "b", "c", "d", "e", ""]
    assert not figure.axes[5].axison
    assert texts(figure.legends[0]) == ["to the right", "down"]


def test_trials_have_a_mean_and_a_band():
    paths = {
        "3": {"x": [10, 20], "mean": [0.5, 0.8], "std": [0.1, 0.0]},
        "7": {"x": [10, 20], "mean": [0.2, 0.3], "std": [0.0, 0.0]},
        "none": {"x": [], "mean": [], "std": []},
    }
    ax = trial_bands(paths, scale=100, bound=70.0, legend="iterations")
    assert [line.get_ydata()[0] for line in ax.lines] == pytest.approx([70, 50, 20])
    assert len(ax.collections) == 1  # the second has a single trial
    heights = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((40, 80))
    assert (
        texts(ax.get_legend()) == ["ln J, undecided", "3", "7"]
        and ax.get_legend().get_title().get_text() == "iterations"
    )
    assert trial_bands({}).get_legend() is None


def test_certainty_against_fitness_joins_rows_of_one_step():
    ax = certainty_against_fitness({"soft": ([0.1, 0.5, 0.9], [2.0, 1.9, 1.8]), "hard": ([0.1, 0.2], [1.0, 0.9])})
    joined = [line.get_xydata().tolist() for line in ax.lines[:2]]
    assert joined == [[[10, 2.0], [10, 1.0]], [[50, 1.9], [20, 0.9]]]
    assert [points.get_alpha().tolist() for points in ax.collections] == [[0.25, 0.625, 1.0], [0.25, 1.0]]
    assert texts(ax.get_legend()) == ["soft", "hard"]
    alone = certainty_against_fitness({"soft": ([], []), "hard": ([0.1, 0.2], [1.0, 0.9])})
    assert texts(alone.get_legend()) == ["hard"]
    assert alone.lines[-1].get_color() == ax.lines[-1].get_color(), "what was not run keeps its colour"
    spread = {"hard": ([0.01, 0.02], [0.1, 0.3])}
    barred = certainty_against_fitness({"hard": ([0.1, 0.2], [1.0, 0.9])}, spread=spread)
    ends = [bar.get_segments() for bar in barred.collections[1:]]
    across = [[list(map(list, segment)) for segment in bar] for bar in ends]
    assert across[0] == [[[pytest.approx(9), 1.0], [pytest.approx(11), 1.0]], [[18, 0.9], [22, 0.9]]]
    assert across[1] == [[[10, pytest.approx(0.9)], [10, 1.1]], [[20, pytest.approx(0.6)], [20, pytest.approx(1.2)]]]
    with pytest.raises(ValueError, match="soft needs as many accuracies as entropies"):
        certainty_against_fitness({"soft": ([0.1], [1.0, 2.0])})


def test_schemes_drawn_as_rows_of_layers():
    trained, kept, redrawn = ("B", "trained"), ("A", "kept"), ("B", "redrawn")
    ax = transfer_schemes({"base": [trained] * 3, "A1B": [kept, redrawn, redrawn]})
    assert [patch.get_hatch() for patch in ax.patches] == [None] * 4 + ["////"] * 2
    assert [patch.get_linewidth() for patch in ax.patches] == [0.6] * 3 + [2.6, 0.6, 0.6]
    assert ax.patches[3].get_facecolor()[:3] != ax.patches[0].get_facecolor()[:3], "A and B"
    assert {"base", "A1B", "kept, A", "redrawn, B", "layer 3"} <= {text.get_text() for text in ax.texts}
    with pytest.raises(ValueError, match="at least one scheme"):
        transfer_schemes({})


def test_transfer_points_have_every_seed_and_the_mean():
    accuracy = {
        "CapsNet": {"base": [90.0, 94.0], "A2B": {0: 88.0}},
        "CNN": {"base": [91.0], "B1B": []},
    }
    ax = transfer_points(accuracy)
    assert [label.get_text() for label in ax.get_xticklabels()] == list(SCHEMES)
    assert not [line for line in ax.lines if line.get_linestyle() != "None"], "no line between categories"
    assert list(ax.lines[0].get_ydata()) == [90, 94] and list(ax.lines[1].get_ydata()) == [88]
    assert [part.get_segments()[0][0][1] for part in ax.collections] == [92, 88, 91]
    assert texts(ax.get_legend()) == ["CapsNet", "CNN"]
