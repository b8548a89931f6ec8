"""Figures of notebook 04, judged by their artists and data; their looks are judged by eye."""

from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection

from capsnb import plot
from capsnb.measure.parse_tree import Layer
from capsnb.plot.style import GREEN, RED

mpl.use("Agg")
SIZES = (6, 5, 4, 3)
NUMBERS = np.random.default_rng(0)


pytestmark = pytest.mark.usefixtures("figures_closed")


def norms(images=None):
    shape = () if images is None else (images,)
    return [NUMBERS.random((*shape, size)) for size in SIZES]


def couplings(images=None):
    shape = () if images is None else (images,)
    return [NUMBERS.dirichlet(np.ones(b), (*shape, a)) for a, b in pairwise(SIZES)]


def dead():
    gone = [np.zeros(size, bool) for size in SIZES]
    gone[1][2] = gone[2][:2] = True
    return gone


def edges(ax):
    return [each for each in ax.collections if isinstance(each, LineCollection)]


def crosses(ax):
    red = mpl.colors.to_rgba(RED)
    found = [each for each in ax.collections if isinstance(each, PathCollection)]
    return sum(
        len(each.get_offsets())
        for each in found
        if len(each.get_offsets()) and np.allclose(each.get_facecolor()[0], red)
    )


def test_every_coupling_is_an_edge_and_the_largest_is_drawn_last_and_darkest():
    values = couplings()
    ax = plot.parse_tree(norms(), values, dead=dead())
    assert [len(each.get_segments()) for each in edges(ax)] == [30, 20, 12]
    first = edges(ax)[0]
    assert first.get_linewidths()[-1] == max(first.get_linewidths())
    child, parent = np.unravel_index(values[0].argmax(), values[0].shape)
    start, end = first.get_segments()[-1]
    assert tuple(start) == pytest.approx((0, 10 * (1 - (child + 0.5) / 6)))
    assert tuple(end) == pytest.approx((1, 10 * (1 - (parent + 0.5) / 5)))
    assert crosses(ax) == 3
    assert [label.get_text() for label in ax.get_xticklabels()] == ["primary\n6", "caps1\n5", "caps2\n4", "class\n3"]


def test_only_the_top_edges_of_a_wide_layer():
    wide, narrow = NUMBERS.random(1152), NUMBERS.random(10)
    coupling = NUMBERS.dirichlet(np.ones(10), 1152)
    ax = plot.parse_tree([wide, narrow], [coupling])
    assert [len(each.get_segments()) for each in edges(ax)] == [200]
    ax = plot.parse_tree([wide, narrow], [coupling], top=30)
    starts = {round(float(segment[0][1]), 6) for segment in edges(ax)[0].get_segments()}
    children = np.unravel_index(np.argsort(coupling, axis=None)[-30:], coupling.shape)[0]
    assert starts == {round(10 * (1 - (child + 0.5) / 1152), 6) for child in children.tolist()}


def test_couplings_of_0_are_drawn_too():
    ax = plot.parse_tree([np.ones(2), np.ones(2)], [np.zeros((2, 2))])
    assert max(edges(ax)[0].get_linewidths()) == pytest.approx(0.4)


def test_one_row_per_image_with_tree_norms_and_picture():
    images = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    figure = plot.parse_trees(images, norms(2), couplings(2), dead=dead(), titles=["a", "b"], names=list("pqrs"))
    panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    assert len(panels) == 6
    assert [panels[place].get_title("left") for place in (0, 3)] == ["a", "b"]
    assert sum(ax.get_label() == "<colorbar>" for ax in figure.axes) == 1
    assert [label.get_text() for label in panels[1].get_yticklabels()] == list("pqrs")


def test_bars_are_as_high_as_the_norms_and_the_dead_have_a_cross_in_an_empty_track():
    values, gone = norms(), np.concatenate(dead())
    ax = plot.norm_bars(values, dead=dead(), top=1.0)
    green = [bar for bar in ax.patches if mpl.colors.to_hex(bar.get_facecolor()) == GREEN.lower()]
    heights = np.where(gone, 0, np.concatenate(values))
    assert [bar.get_height() / 0.82 for bar in green] == pytest.approx(heights.tolist())
    where = [(round(x), round(y, 2)) for each in ax.collections for x, y in each.get_offsets().tolist()]
    assert where == [(2, -0.59), (0, -1.59), (1, -1.59)] and crosses(ax) == 3
    wide = plot.norm_bars([np.ones(100), np.ones(3)])
    assert [label.get_text() for label in wide.get_yticklabels()] == ["class"]


def test_statistics_have_two_trees_and_two_rows_of_bars():
    layers = []
    for place, (mean, size) in enumerate(zip(norms(), SIZES, strict=True)):
        edge = torch.tensor(couplings()[place]) if place < 3 else None
        mean = torch.tensor(mean)
        mean[0] = 0.0
        layers.append(Layer(f"caps{place}", mean, mean / 10, {}, edge, None if edge is None else edge / 5))
        assert size == len(mean)
    figure = plot.parse_tree_statistics(layers)
    titles = [ax.get_title("left") for ax in figure.axes if ax.get_title("left")]
    assert [title[:3] for title in titles] == ["(a)", "(b)", "(c)", "(d)"]
    assert crosses(figure.axes[0]) == 4


def test_a_tree_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"couplings 1 have the shape \(3, 4\)"):
        plot.parse_tree(norms(), [couplings()[0], np.ones((3, 4)), couplings()[2]])
    with pytest.raises(ValueError, match="4 layers are joined by 3 couplings, not 2"):
        plot.parse_tree(norms(), couplings()[:2])


def history(rows=4):
    made = []
    for step in range(rows):
        life = {
            "mean": [[0.9 - 0.1 * step] * size for size in SIZES],
            "std": [[0.1] * size for size in SIZES],
            "dead": [[int(step > 1 and n == 0)] * size for n, size in enumerate(SIZES)],
            "dyr": [0.3, 0.2, 0.1],
        }
        pull = {name: [[0.5 * (step + 1)] * size for size in SIZES[:3]] for name in ("transform", "weight")}
        made.append({"step": 10 * step, "life": life, "pull": pull})
    return made


def test_the_life_of_a_network():
    figure = plot.network_life([{"step": 0}, *history()])
    panels = np.array(figure.axes).reshape(4, 3)
    assert len(panels[0, 0].lines) == 6
    assert {line.get_color() for line in panels[0, 0].lines} == {RED}
    assert {line.get_color() for line in panels[1, 0].lines} == {GREEN}
    assert panels[0, 1].lines[0].get_ydata().tolist() == [6, 6, 0, 0]
    assert panels[1, 2].lines[0].get_ydata().tolist() == [0.2] * 4
    assert panels[0, 1].texts[0].get_text() == "0 of 6"
    with pytest.raises(ValueError, match="no column 'life'"):
        plot.network_life([{"step": 0}])


def revived(flags):
    """A series of life of two hidden capsules: dead as flagged at each record of an epoch each."""
    return {
        "epoch": [1.0, 2.0, 3.0],
        "dead": [[[0], list(pair), [0]] for pair in flags],
        "mean": [[[0.9], [0.0 if gone else 0.5 for gone in pair], [0.9]] for pair in flags],
    }


def test_the_revival_of_the_dead():
    arms = {
        "off": {0: revived([(0, 1), (0, 1), (0, 0)]), 1: revived([(1, 1), (1, 1), (0, 0)])},
        "on": {0: revived([(0, 1), (0, 1), (0, 1)])},
    }
    figure = plot.revival(arms, at=2, seed=0)
    off, on, below, beside = figure.axes
    assert [line.get_color() for line in off.lines[:2]] == [GREEN, RED]
    assert off.lines[1].get_ydata().tolist() == [1e-5, 1e-5, 0.5]
    assert on.lines[1].get_ydata()[-1] == 1e-5
    assert below.lines[2].get_ydata().tolist() == [1.5, 1.5, 0.0]
    assert beside.lines[1].get_ydata().tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="'none' has no seed"):
        plot.revival({"none": {}}, at=1, seed=0)


def test_who_starves_of_gradient():
    def heard(*records):
        return {"epoch": [0.5, 1.0], "gradient": records}

    arms = {
        "even": {10: heard((0.5, 0.5), (0.5, 0.5)), 11: heard((0.5, 0.5), (0.9, 0.1))},
        "strict, cold": {10: heard((0.6, 0.4), (0.8, 0.2)), 11: heard((0.8, 0.2), (1.0, 0.0))},
    }
    figure = plot.starving(arms, seed=10)
    even, strict, below, beside = figure.axes
    assert [line.get_color() for line in even.lines[:2]] == [GREEN, GREEN]
    assert [line.get_color() for line in strict.lines[:2]] == [GREEN, RED], "0.4 of an even share at the second record"
    assert strict.lines[1].get_ydata() == pytest.approx([0.8, 0.4]), "in even shares"
    assert strict.lines[2].get_ydata()[0] == 0.5 and strict.get_title(loc="left") == "strict,\ncold"
    assert below.lines[2].get_ydata().tolist() == [0.0, 0.5], "mean over the seeds"
    assert beside.lines[2].get_ydata().tolist() == [0.5, 1.0]
    with pytest.raises(ValueError, match="'none' has no seed"):
        plot.starving({"none": {}}, seed=0)


def test_gradients_of_the_dead_and_of_the_living():
    life = revived([(0, 1), (0, 1), (0, 0)])
    pull = {
        "epoch": life["epoch"],
        "capsule": [[[9.0], [0.1 * n, 0.01 * n], [9.0]] for n in (1, 2, 3)],
        "transform": [[[9.0], [1.0 * n, 1e-3 * n]] for n in (1, 2, 3)],
    }
    capsules, transforms = plot.hidden_gradients(life, pull, at=2).axes
    assert [line.get_color() for line in capsules.lines[:2]] == [GREEN, RED]
    assert capsules.lines[1].get_ydata().tolist() == pytest.approx([0.01, 0.02, 0.03])
    assert transforms.lines[0].get_ydata().tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match="not of the same records"):
        plot.hidden_gradients(life, pull | {"epoch": [1.0]}, at=2)


@pytest.mark.parametrize("kinds", [1, 3, 5])
def test_viewpoints_have_a_panel_each_and_one_legend(kinds):
    found = {
        f"kind {n}": ("degrees", (-1.0, 0.0, 1.0), {"a": torch.ones(3), "b": torch.zeros(3)}) for n in range(kinds)
    }
    chance = {kind: {"a": torch.full((3,), 0.5), "b": torch.zeros(3)} for kind in found}
    figure = plot.viewpoint_curves(found, chance=chance)
    drawn = [ax for ax in figure.axes if ax.lines]
    assert [ax.get_title("left") for ax in drawn] == list(found)
    assert all(len(ax.lines) == 4 for ax in drawn)
    (legend,) = [ax.get_legend() for ax in figure.axes if ax.get_legend()]
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "unrelated images"]


def test_scaling_is_logarithmic_and_names_exponents():
    ax = plot.scaling([2, 4, 8], {"a": [1, 2, 4], "b": [1, 4, 16]}, exponents={"a": 1.0, "b": 2.0}, xlabel="n")
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a, exponent 1.00", "b, exponent 2.00"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["2", "4", "8"]
