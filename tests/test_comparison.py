"""Settings compared at equal levels, and an inner peak by two lines: every number worked by hand."""

import pytest

from capsnb.evidence.comparison import (
    apart_at_level,
    apart_from_means,
    at_level,
    bands,
    best_elsewhere,
    contrast,
    correlations,
    inner_peak,
    late_gain,
    mean_std,
    too_far,
)
from capsnb.evidence.published import Published

LEVELS = {name: {0: level, 1: level + 0.01} for name, level in zip("abcde", (0.0, 0.1, 0.4, 0.8, 0.9), strict=True)}


def of(*columns):
    return {name: dict(enumerate(column)) for name, column in zip("abcde", columns, strict=False)}


def test_the_best_of_the_other_seeds():
    found = best_elsewhere({"low": {0: 9, 1: 1, 2: 2}, "high": {0: 0, 1: 3, 2: 3}})
    assert found == {0: "high", 1: "low", 2: "low"}, "seed 0 alone likes low, and has no say for itself"
    assert best_elsewhere({"low": {0: 9}, "high": {0: 1}}) == {} == best_elsewhere({})


def test_what_arms_differ_by_is_taken_away():
    values = {"a": {0: 1.0, 1: 3.0}, "b": {0: 10.0, 1: 14.0, 2: 99.0}}
    assert apart_from_means(values) == {"a": {0: -1.0, 1: 1.0}, "b": {0: -2.0, 1: 2.0}}, "seed 2 only b has"
    assert apart_from_means({}) == {}
    # arms alone make the order: starving and accuracy agree over arms in every seed, and not at all within them
    starving = {"a": {0: 0.1, 1: 0.2}, "b": {0: 0.5, 1: 0.4}, "c": {0: 0.9, 1: 0.9}}
    right = {"a": {0: 56.1, 1: 56.0}, "b": {0: 58.2, 1: 58.3}, "c": {0: 60.0, 1: 60.3}}
    whole, within = (
        correlations([*one.values()], [*other.values()])
        for one, other in ((starving, right), (apart_from_means(starving), apart_from_means(right)))
    )
    assert whole == {0: 1.0, 1: 1.0} and within == {0: pytest.approx(-0.5), 1: pytest.approx(-0.5)}


def test_what_the_last_passes_brought():
    epochs = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    found = {0: {"epoch": epochs, "right": [9.0, 9.0, 1.0, 3.0, 4.0, 6.0]}, 1: {"epoch": [0.5], "right": [1.0]}}
    assert late_gain(found, "right", 1) == {0: 3.0}, "seed 1 was too short"
    thirds = {0: {"epoch": [1 / 3, 2 / 3, 1.0, 4 / 3, 5 / 3, 2.0], "right": [0.0, 0.0, 3.0, 3.0, 3.0, 6.0]}}
    assert late_gain(thirds, "right", 1) == {0: 3.0} and late_gain(thirds, "right") == {}


def test_seeds_in_a_table():
    assert mean_std({0: 60.0, 1: 62.0, 2: 64.0}) == "62.0 ± 2.0" and mean_std({0: 1 / 3}, 3) == "0.333"
    assert mean_std({}) == ""


def test_an_inner_peak_by_hand():
    # seed 0: up by 2 and 2, down by 1 and 1, over four steps from 0 to 1; seed 1: up by 1 and 1, down by 3 and 3
    found = inner_peak(LEVELS, of((1, 1), (3, 2), (5, 3), (4, 0), (3, -3)))
    assert found == {0: pytest.approx(4 * 1), 1: pytest.approx(4 * 1)}


def test_what_only_rises_has_no_inner_peak_wherever_it_bends():
    straight = inner_peak(LEVELS, of((1, 1), (2, 2), (3, 3), (4, 4), (5, 5)))
    assert straight == {0: pytest.approx(-4), 1: pytest.approx(-4)}
    saturates = inner_peak(LEVELS, of((1, 1), (3, 3), (4, 4), (4.1, 4.1), (4.2, 4.2)))
    assert all(number < 0 for number in saturates.values())
    falls = inner_peak(LEVELS, of((5, 5), (4, 4), (3, 3), (2, 2), (1, 1)))
    assert falls == {0: pytest.approx(-4), 1: pytest.approx(-4)}


def test_levels_are_taken_in_their_order_and_peaks_from_the_other_seeds():
    shuffled = {name: LEVELS[name] for name in "dbeac"}
    values = of((1, 1), (3, 2), (5, 3), (4, 0), (3, -3))
    assert inner_peak(shuffled, values) == inner_peak(LEVELS, values)
    with pytest.raises(ValueError, match="an inner peak of 4 settings"):
        inner_peak(LEVELS, of((1,), (2,), (3,), (4,)))


def test_values_between_two_settings():
    levels, values = {"a": {0: 0.0, 1: 0.0}, "b": {0: 1.0, 1: 1.0}}, {"a": {0: 10.0, 1: 10.0}, "b": {0: 20.0, 1: 0.0}}
    assert at_level(levels, values, {0: 0.25, 1: 0.5, 2: 0.5}) == {0: 12.5, 1: 5.0}, "seed 2 was not run"
    assert at_level(levels, values, {0: 1.5, 1: 1.0}) == {1: 0.0}, "nobody is as certain as 1.5"
    level = {"a": {0: 0.5}, "b": {0: 0.5}}
    assert at_level(level, {"a": {0: 1.0}, "b": {0: 3.0}}, {0: 0.5}) == {0: 2.0}


def test_two_groups_at_the_levels_that_both_reach():
    levels = {"three": {"warm": {0: 0.0}, "cold": {0: 0.5}}, "six": {"warm": {0: 0.25}, "cold": {0: 1.0}}}
    values = {"three": {"warm": {0: 60.0}, "cold": {0: 64.0}}, "six": {"warm": {0: 59.0}, "cold": {0: 56.0}}}
    # both reach 0.5 (64 and 58) and 0.25 (62 and 59); 0 and 1 only one of them
    assert apart_at_level(levels, values) == {"three": {0: 63.0}, "six": {0: 58.5}}
    apart = {"three": levels["three"], "six": {"warm": {0: 0.6}, "cold": {0: 1.0}}}
    assert apart_at_level(apart, values) == {"three": {}, "six": {}}


def test_seeds_are_averaged_where_all_have_a_row():
    seeds = {0: {"step": [1, 2, 3], "a": [0.2, 0.4, 1.0]}, 1: {"step": [1, 2, 3], "a": [0.4, 0.8, None]}}
    path = bands({"both": seeds}, "a")["both"]
    assert path["x"] == [1, 2] and path["mean"] == pytest.approx([0.3, 0.6])
    assert path["std"] == pytest.approx([0.02**0.5, 0.08**0.5])
    assert bands({"one": {0: seeds[0]}}, "a") == {"one": {"x": [1, 2, 3], "mean": [0.2, 0.4, 1.0], "std": [0, 0, 0]}}
    assert bands({"none": {}}, "a") == {"none": {"x": [], "mean": [], "std": []}}


def test_networks_more_than_so_many_points_from_the_printed_accuracy_are_too_far():
    printed = Published(90.0, None, "% accuracy", "a paper", "Table 1")
    assert too_far({0: 80.0, 1: 81.0}, printed, 1.0) == "too far from the paper's network: 80.5 % right, printed 90 %"
    assert too_far({0: 92.5}, printed, 2.0)
    assert not too_far({0: 89.0, 1: 91.5}, printed, 1.0)
    assert not too_far({0: 91.0}, printed, 1.0)
    assert not too_far({}, printed, 1.0)


def test_a_contrast_is_the_mean_over_pairs_of_cells_that_differ_in_one_factor_alone():
    cells = {
        ("linear", "yes"): {0: 5.0, 1: 6.0},
        ("sum", "yes"): {0: 1.0, 1: 1.0, 2: 9.0},
        ("linear", "no"): {0: 3.0, 1: 3.0},
        ("sum", "no"): {0: 1.0, 1: 2.0},
        ("length", "yes"): {0: 7.0, 1: 7.0},  # without its twin: no part of what a squash does
    }
    assert contrast(cells, 0, "linear", "sum") == {0: 3.0, 1: 3.0}  # (4 + 2) / 2, (5 + 1) / 2
    assert contrast(cells, 0, "linear", "sum", {1: "yes"}) == {0: 4.0, 1: 5.0}
    assert contrast(cells, 1, "yes", "no") == {0: 1.0, 1: 1.0}  # (2 + 0) / 2, (3 - 1) / 2
    assert contrast(cells, 0, "length", "sum", {1: "no"}) == contrast({}, 0, "a", "b") == {}
