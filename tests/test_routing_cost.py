"""Costs of routing beside self-attention: exponents by hand, counts that are known, refusals."""

import pytest
import torch

from capsnb.measure import routing_cost
from capsnb.measure.routing_cost import exponent, measure, measure_together


@pytest.mark.parametrize("power", [0, 1, 2, 1.5])
def test_the_exponent_of_a_power(power):
    assert exponent([2, 4, 8, 32], [7 * size**power for size in (2, 4, 8, 32)]) == pytest.approx(power)


def test_the_exponent_is_the_least_squares_slope():
    torch.manual_seed(0)
    sizes, costs = [1.0, 3.0, 7.0, 20.0], [2.0, 5.0, 11.0, 90.0]
    x = torch.tensor(sizes).double().log()
    design = torch.stack((x, torch.ones(4).double()), 1)
    slope = torch.linalg.lstsq(design, torch.tensor(costs).double().log()[:, None]).solution[0]
    assert exponent(sizes, costs) == pytest.approx(float(slope))


def test_learned_numbers_are_those_of_the_papers_orders():
    for n, d in ((4, 8), (8, 8), (8, 16)):
        assert measure("agreement", n, d, batch=2, repeats=1).parameters == n * n * d * d
        assert measure("attention", n, d, batch=2, repeats=1).parameters == 4 * d * d


def test_what_is_kept_holds_the_votes():
    small, large = (measure("agreement", n, 8, batch=4, repeats=1) for n in (8, 16))
    assert small.kept >= 4 * 4 * 8 * 8 * 8  # float32 votes (B, I, J, D)
    assert 2.5 < large.kept / small.kept < 4.2
    assert small.seconds > 0
    assert small.kept == measure("agreement", 8, 8, batch=4, repeats=1).kept


def test_both_are_measured_at_all_sizes():
    found = measure_together([(4, 8), (8, 8)], rounds=2, batch=2, repeats=1)
    assert set(found) == set(routing_cost.LAYERS) and all(len(costs) == 2 for costs in found.values())


def test_refusals():
    with pytest.raises(ValueError, match="'em' is unknown; allowed: agreement, attention"):
        measure("em", 4, 8)
    with pytest.raises(ValueError, match="at least two sizes"):
        exponent([2, 2], [1, 1])
    with pytest.raises(ValueError, match="at least two sizes"):
        exponent([2, 4, 8], [1, 1])
    with pytest.raises(ValueError, match="above 0"):
        exponent([2, 4], [1, 0])
