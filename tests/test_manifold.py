"""Faithfulness to a known grid: the grid itself, shifted, turned, shuffled; slow loops; scikit-learn's own number."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.manifold import trustworthiness as sklearn_trustworthiness

from capsnb.data import Split
from capsnb.data.transforms import overlap
from capsnb.measure import manifold as measure
from capsnb.nn import taps
from capsnb.nn.models import CapsNetConfig, NeuronNetConfig, StridedStem

GRID = np.array([(down, right) for down in range(-4, 5) for right in range(-4, 5)], dtype=float)
SEEDED = np.random.RandomState(0)


def turned(points, degrees):
    a = math.radians(degrees)
    return points @ np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]]).T


def slow_chamfer(first, second):
    def side(one, other):
        return sum(min(math.dist(a, b) for b in other) for a in one) / len(one)

    return side(first, second) + side(second, first)


# ---------------------------------------------------------------- Chamfer


def test_two_points_by_hand():
    first, second = [[0, 0], [3, 4]], [[0, 0]]
    assert measure.chamfer(first, second) == 2.5  # (0 + 5) / 2 one way, 0 the other way


def test_chamfer_by_a_loop():
    first, second = SEEDED.standard_normal((7, 2)), SEEDED.standard_normal((5, 2))
    assert measure.chamfer(first, second) == pytest.approx(slow_chamfer(first, second))


def test_normalised_is_centred_and_of_unit_size():
    points = measure.normalised(5 + 3 * SEEDED.standard_normal((40, 3)))
    assert points.mean(0) == pytest.approx(0, abs=1e-12)
    assert (points**2).sum(1).mean() == pytest.approx(1)
    # the spacing of the 9x9 grid: the mean square of -4..4 is 20/3, twice that in the plane
    assert measure.normalised(GRID)[1, 1] - measure.normalised(GRID)[0, 1] == pytest.approx((40 / 3) ** -0.5)


@pytest.mark.parametrize("degrees", [0, 1, 30, 45, 89, 90, 137, 270])
def test_the_grid_shifted_scaled_and_turned_scores_0(degrees):
    assert measure.aligned_chamfer(7 + 0.3 * turned(GRID, degrees), GRID) == pytest.approx(0, abs=1e-9)
    assert measure.aligned_chamfer(turned(GRID, degrees) * [1, -1], GRID) == pytest.approx(0, abs=1e-9)


def test_as_it_lies_the_grid_turned_by_45_degrees_does_not():
    grid = measure.normalised(GRID)
    found = measure.chamfer(turned(grid, 45), grid)
    assert found == pytest.approx(slow_chamfer(turned(grid, 45), grid)) == pytest.approx(0.28228, abs=1e-5)
    assert measure.aligned_chamfer(turned(GRID, 45), GRID, step=90) == pytest.approx(found)  # no turns tried
    assert measure.aligned_chamfer(turned(GRID, 45), GRID, step=45) == pytest.approx(0, abs=1e-9)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.floats(-10, 10), st.floats(0.1, 20))
def test_chamfer_does_not_change_with_place_size_or_order(seed, place, size):
    rng = np.random.RandomState(seed)
    points = rng.standard_normal((25, 2))
    grid = GRID[(abs(GRID) <= 2).all(1)]
    score = measure.aligned_chamfer(points, grid, step=15)
    assert measure.aligned_chamfer(place + size * rng.permutation(points), grid, step=15) == pytest.approx(score)
    assert score <= measure.chamfer(measure.normalised(points), measure.normalised(grid)) + 1e-12


def test_what_points_score_that_know_nothing():
    found = measure.chance_chamfer(GRID, seed=1, draws=12)
    assert found == measure.chance_chamfer(GRID, seed=1, draws=12) != measure.chance_chamfer(GRID, seed=2, draws=12)
    # printed for the paper's capsules: 0.313
    assert found["uniform square"] == pytest.approx(0.243, abs=0.015)
    assert found["Gaussian cloud"] == pytest.approx(0.302, abs=0.02)
    random = np.random.default_rng(4)
    one = measure.chance_chamfer(GRID, seed=4, draws=1)
    assert one["uniform square"] == measure.aligned_chamfer(random.random(GRID.shape), GRID)
    assert one["Gaussian cloud"] == measure.aligned_chamfer(random.standard_normal(GRID.shape), GRID)


# ---------------------------------------------------------------- measures that know which point is which


@pytest.mark.parametrize("degrees", [0, 45, 200])
def test_the_grid_shifted_and_turned_is_perfect(degrees):
    found = measure.faithfulness(3 - 5 * turned(GRID, degrees), GRID)
    assert found == pytest.approx((0, 0, 1, 1), abs=1e-9)
    assert measure.procrustes(GRID * [1, -1], GRID) == pytest.approx(0, abs=1e-12)


def test_shuffled_points_fool_chamfer_alone():
    rng = np.random.RandomState(1)
    scores = [measure.faithfulness(GRID[rng.permutation(81)], GRID) for _ in range(20)]
    chamfer, procrustes, trust, spearman = np.mean(scores, 0)
    assert chamfer == pytest.approx(0, abs=1e-9)
    assert procrustes > 0.95 and abs(trust - 0.5) < 0.05 and abs(spearman) < 0.05


def test_procrustes_by_its_closed_form():
    """1 - (sum of the singular values of the correlation)^2, both sets centred and of Frobenius norm 1."""
    points = SEEDED.standard_normal((81, 2)) + 0.3 * GRID
    a, b = (each - each.mean(0) for each in (points, GRID))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    expected = 1 - np.linalg.svd(a.T @ b, compute_uv=False).sum() ** 2
    assert measure.procrustes(points, GRID) == pytest.approx(expected)
    wide = points @ np.linalg.qr(SEEDED.standard_normal((7, 7)))[0][:2]  # the same plane, somewhere in seven numbers
    assert measure.procrustes(wide, GRID) == pytest.approx(expected)


def test_a_plane_in_a_space_of_noise_by_hand():
    """Half of the variance outside of the plane: half is left over."""
    noise = np.zeros((81, 81))
    np.fill_diagonal(noise, 1.0)
    noise -= noise.mean(0)
    basis, values, _ = np.linalg.svd(noise)
    grid = GRID / np.linalg.norm(GRID)
    beside = basis[:, np.isclose(values, 1)] @ np.linalg.svd(basis[:, np.isclose(values, 1)].T @ grid)[0][:, 2:3]
    points = np.concatenate((grid, beside / np.linalg.norm(beside)), 1)  # a third axis that says nothing of the grid
    assert measure.procrustes(points, GRID) == pytest.approx(0.5)


def slow_trustworthiness(points, grid, k):
    n, total = len(points), 0
    for i in range(n):
        others = [j for j in range(n) if j != i]
        nearest = sorted(others, key=lambda j: math.dist(points[i], points[j]))[:k]
        for j in nearest:
            d = math.dist(grid[i], grid[j])
            rank = 1 + sum(math.dist(grid[i], grid[m]) < d - 1e-9 for m in others)
            total += max(rank - k, 0)
    return 1 - 2 * total / (n * k * (2 * n - 3 * k - 1))


@pytest.mark.parametrize("k", [1, 5, 8])
def test_trustworthiness_by_a_loop_and_by_scikit_learn_without_ties(k):
    points, plane = SEEDED.standard_normal((30, 4)), SEEDED.standard_normal((30, 2))
    found = measure.trustworthiness(points, plane, neighbours=k)
    assert found == pytest.approx(slow_trustworthiness(points, plane, k))
    assert found == pytest.approx(sklearn_trustworthiness(plane, points, n_neighbors=k))
    near = 0.05 * SEEDED.standard_normal((81, 2)) + GRID
    assert measure.trustworthiness(near, GRID, neighbours=k) == pytest.approx(slow_trustworthiness(near, GRID, k))


def test_spearman_of_any_rising_distance_is_1():
    corners = np.array([[0.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    assert measure.spearman(corners * 9, corners) == pytest.approx(1)
    bent = np.array([[0.0, 0.0, 0.0], [0.0, 0.1, 0.0], [5.0, 0.0, 5.0]])  # the same order of the three distances
    assert measure.spearman(bent, corners) == pytest.approx(1)
    assert measure.spearman(corners[[1, 2, 0]], corners) == pytest.approx(-0.5)  # ranks 3, 1, 2 against 1, 2, 3
    assert math.isnan(measure.spearman(np.eye(3), corners))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: measure.normalised(np.ones((4, 2))), "all points are the same"),
        (lambda: measure.faithfulness(np.ones((81, 5)), GRID), "all points are the same"),
        (lambda: measure.faithfulness(GRID[:80], GRID), r"not \(80, 2\) and \(81, 2\)"),
        (lambda: measure.trustworthiness(GRID, GRID, neighbours=41), "neighbours = 41"),
        (lambda: measure.embed(GRID[:30]), "perplexity 30 needs more than 30 points"),
    ],
)
def test_refuses(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


# ---------------------------------------------------------------- images and networks


def digits(count=40, side=6):
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(0, 200, (count, 1, side, side), generator=generator, dtype=torch.uint8)
    return Split(images, torch.arange(count) % 10)


def test_sets_are_the_shifts_of_one_digit_over_another():
    split = digits()
    sets = measure.shift_sets(split, count=2)
    assert [each.labels for each in sets] == [(7, 8), (7, 8), (3, 5), (3, 5)]
    seven, eight = split.images[split.labels == 7], split.images[split.labels == 8]
    for number in range(2):
        images, offsets, _ = sets[number]
        assert images.shape == (81, 1, 14, 14) and offsets.tolist() == GRID.astype(int).tolist()
        for place in (0, 40, 77):
            down, right = offsets[place].tolist()
            still, moved = torch.zeros(2, 1, 14, 14, dtype=torch.uint8)
            still[:, 4:10, 4:10] = seven[number]
            moved[:, 4 + down : 10 + down, 4 + right : 10 + right] = eight[number]
            assert torch.equal(images[place], overlap(still, moved))
    padded = measure.shift_sets(split, ((3, 5),), radius=2, size=16)[0]
    assert padded.images.shape == (25, 1, 16, 16)
    assert torch.equal(padded.images[:, :, 3:13, 3:13], measure.shift_sets(split, ((3, 5),), radius=2)[0].images)


def test_sets_that_cannot_be_made():
    with pytest.raises(ValueError, match="fewer than 9 images of class 7"):
        measure.shift_sets(digits(), count=9)
    with pytest.raises(ValueError, match="size = 9: the shifted images are 14 pixels wide"):
        measure.shift_sets(digits(), size=9)


def test_a_representation_is_what_the_tap_saw():
    torch.manual_seed(0)
    stem = StridedStem(channels=3, kernel=3, types=2, dim=3)
    model = CapsNetConfig(size=14, dim=3, stem=stem, hidden=((3, 2),), decoder="none").build()
    images = measure.shift_sets(digits(), ((7, 8),))[0].images
    points = measure.representation(model, images, "caps1.poses")
    with torch.no_grad(), taps.record(model, "caps1.poses") as seen:
        model(images)
    assert points.shape == (81, 6) and np.allclose(points, seen["caps1.poses"].flatten(1).double().numpy())
    pixels = measure.representation(None, images, None)
    assert pixels.shape == (81, 14 * 14) and pixels.max() == images.max().item() / 255
    with pytest.raises(ValueError, match="has no tap 'linear1'"):
        measure.representation(model, images, "linear1")
    with pytest.raises(ValueError, match=r"tap 'caps1\.poses' needs a model"):
        measure.representation(None, images, "caps1.poses")


def test_t_sne_keeps_neighbours_and_follows_its_seed():
    points = np.pad(GRID, ((0, 0), (0, 3)))
    first, again, other = (measure.embed(points, seed) for seed in (0, 0, 1))
    assert first.shape == (81, 2) and np.array_equal(first, again) and not np.allclose(first, other)
    found = measure.faithfulness(first, GRID)
    assert found.trustworthiness > 0.95 and found.spearman > 0.8 and found.procrustes < 0.2


def test_the_measure_is_the_mean_over_sets_and_seeds_beside_the_pixels():
    torch.manual_seed(0)
    model, data = NeuronNetConfig(size=14, width=3, primary=4, kernel=3, hidden=(5,)).build(), SimpleNamespace()
    data.test, data.image_shape = digits(), (1, 14, 14)
    found = measure.shift_manifold(model, data, tap="linear1", sets=1, radius=3, seeds=2)
    sets = measure.shift_sets(data.test, radius=3, size=14)
    for prefix, net, tap in (("", model, "linear1"), ("null: pixels, ", None, None)):
        points = [measure.representation(net, each.images, tap) for each in sets]
        own = [measure.faithfulness(each, sets[0].offsets) for each in points]
        assert found[f"{prefix}own spearman"] == np.mean([each.spearman for each in own])
        planes = [measure.embed(each, seed) for each in points for seed in (0, 1)]
        scores = [measure.faithfulness(each, sets[0].offsets) for each in planes]
        assert found[f"{prefix}tsne chamfer"] == np.mean([each.chamfer for each in scores])
        assert f"{prefix}own chamfer" not in found, "for the plane alone"
    assert np.shape(found["pictures"]["7, 8"]) == (49, 2)
