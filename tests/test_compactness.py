"""Semantic compactness (Gu et al. 2021, sec. 3.3) by hand-made cases, against a slow loop, and its refusals."""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from capsnb.data import ImageSet, Split
from capsnb.data.transforms.factors import FACTORS, NEUTRAL, matrix_of, series, vary
from capsnb.measure import compactness as measure
from capsnb.measure.perturbation import perturbation_grid
from capsnb.measure.protocol import find
from capsnb.nn.models import CapsNetConfig, ConvNetAvgConfig, ConvNetRConfig, Output, StridedStem

SMALL = CapsNetConfig(size=9, classes=3, dim=4, stem=StridedStem(channels=4, types=2, kernel=3), decoder="none")
DOUBLE = torch.float64


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def digits():
    images = torch.randint(0, 256, (5, 1, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return Split(images, torch.tensor([0, 2, 1, 1, 0]))


def build(config=SMALL):
    torch.manual_seed(0)
    return config.build().eval()


# ---------------------------------------------------------------- steps 3 and 4


@pytest.mark.parametrize("dims", [2, 16, 160])
def test_one_moving_unit_gives_ln_d(dims):
    vectors = torch.ones(7, 1, dims, dtype=DOUBLE)
    vectors[:, 0, dims // 2] = torch.arange(7)
    assert_close(measure.compactness(vectors), torch.tensor([math.log(dims)], dtype=DOUBLE))


def test_units_that_move_alike_give_0():
    steps = torch.linspace(-1, 1, 5, dtype=DOUBLE)
    vectors = random(1, 1, 16) + steps[:, None, None] * torch.tensor([1.0, -1.0], dtype=DOUBLE).repeat(8)
    assert_close(measure.compactness(vectors), torch.zeros(1, dtype=DOUBLE))


def test_worked_by_hand():
    """Two dimensions with variances 1 and 3 of three: shares 1/4, 3/4, 0; ln 3 - H."""
    vectors = torch.tensor([[1.0, 3**0.5, 2.0], [-1.0, -(3**0.5), 2.0]], dtype=DOUBLE)[:, None]
    assert_close(measure.variance_shares(vectors), torch.tensor([[0.25, 0.75, 0.0]], dtype=DOUBLE))
    by_hand = 0.25 * math.log(3 * 0.25) + 0.75 * math.log(3 * 0.75)
    assert_close(measure.compactness(vectors).item(), by_hand)


def test_against_a_loop():
    vectors = random(6, 4, 5) * torch.tensor([1.0, 0.1, 2.0, 0.5, 0.01], dtype=DOUBLE)
    expected = []
    for image in range(4):
        variances = [float(vectors[:, image, d].var(correction=1)) for d in range(5)]  # sample: shares are the same
        shares = [v / sum(variances) for v in variances]
        expected.append(sum(p * math.log(p / (1 / 5)) for p in shares))
    assert_close(measure.compactness(vectors), torch.tensor(expected, dtype=DOUBLE))


def test_size_and_place_of_the_vectors_do_not_matter():
    vectors = random(6, 4, 5)
    assert_close(measure.compactness(1e-3 * vectors + 7), measure.compactness(vectors), rtol=1e-6, atol=1e-9)


def test_no_movement_is_undefined_and_rounding_is_no_movement():
    vectors = random(1, 3, 8).float().repeat(5, 1, 1)
    vectors[:, 1] *= 1 + 1e-7 * random(5, 8).float()
    vectors[:, 2, 0] += torch.arange(5) * 1e-3
    found = measure.compactness(vectors)
    assert found.isnan().tolist() == [True, True, False]
    assert measure.compactness(torch.zeros(4, 1, 3)).isnan().all()


def test_a_single_value_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        measure.compactness(torch.zeros(1, 4, 3))


# ---------------------------------------------------------------- whole models


@pytest.mark.parametrize("units", ["class", "all"])
@pytest.mark.parametrize("factor", list(FACTORS))
def test_scores_equal_image_by_image(digits, units, factor):
    model, values = build(), measure.VALUES[factor]
    found, bound = measure.image_scores(model, digits, factor, units=units, batch=2)
    expected = []
    for image, label in zip(digits.images, digits.labels.tolist(), strict=True):
        poses = []
        for value in values:
            with torch.no_grad():
                pose = model(vary(image[None], factor, value)).poses[0]
            poses.append(pose.flatten() if units == "all" else pose[label])
        expected.append(measure.compactness(torch.stack(poses)[:, None])[0])
    assert_close(found, torch.stack(expected), rtol=1e-3, atol=1e-6)
    assert bound == math.log(4 if units == "class" else 12)
    assert (found >= 0).all() and (found <= bound).all()


def test_images_at_which_nothing_moves_are_counted(digits):
    digits = Split(
        torch.cat([digits.images, torch.zeros(2, 1, 9, 9, dtype=torch.uint8)]), digits.labels[[*range(5), 0, 1]]
    )
    found = measure.score(build(), digits, "rotation", batch=3)
    assert (found.images, found.undefined, found.bound) == (5, 2, math.log(4))
    scores, _ = measure.image_scores(build(), digits, "rotation", batch=3)
    assert_close(found.mean, scores[:5].mean().item())
    assert_close(found.std, scores[:5].std(correction=0).item())


def test_black_images_alone_have_no_score():
    black = Split(torch.zeros(2, 1, 9, 9, dtype=torch.uint8), torch.tensor([0, 1]))
    found = measure.score(build(), black, "scale")
    assert math.isnan(found.mean) and (found.images, found.undefined) == (0, 2)


def test_a_table_has_the_papers_six_factors_and_leaves_the_model_as_it_was(digits):
    model = build().train()
    found = measure.table(model, digits, batch=5)
    assert tuple(found) == tuple(FACTORS) and model.training
    assert tuple(measure.table(model, digits, {"scale": (0.9, 1.1)})) == ("scale",)


@pytest.mark.parametrize("units", ["class", "all"])
def test_the_pooled_score_equals_a_loop(digits, units):
    model, values, total = build(), (-8.0, 0.0, 12.0), 0.0
    for image, label in zip(digits.images, digits.labels.tolist(), strict=True):
        with torch.no_grad():
            poses = [model(vary(image[None], "rotation", value)).poses[0].double() for value in values]
        total += torch.stack([p.flatten() if units == "all" else p[label] for p in poses]).var(0, correction=0)
    shares = (total / total.sum()).tolist()
    expected = sum(p * math.log(p * len(shares)) for p in shares)
    found = measure.pooled_score(model, digits, "rotation", values, units=units, batch=2)
    assert found == pytest.approx(expected, rel=1e-4)


def test_pooling_the_variances_never_exceeds_their_weighted_scores(digits):
    """KL is convex: pooled shares are the images' shares weighted by how much each moves."""
    model = build()
    with torch.no_grad():
        images = series(digits.images, "trans-x", (-2.0, 0.0, 2.0)).flatten(0, 1)
        seen = measure.representations(model, images, digits.labels.repeat(3)).unflatten(0, (3, -1))
    weight = seen.double().var(0, correction=0).sum(1)
    bound = (weight * measure.compactness(seen)).sum() / weight.sum()
    assert 0 <= measure.pooled_score(model, digits, "trans-x", (-2.0, 0.0, 2.0)) <= bound


def test_the_pooled_score_of_nothing(digits):
    black = Split(torch.zeros(2, 1, 9, 9, dtype=torch.uint8), torch.tensor([0, 1]))
    assert math.isnan(measure.pooled_score(build(), black, "scale"))
    with pytest.raises(ValueError, match="no images"):
        measure.pooled_score(build(), digits.select(torch.arange(0)), "scale")


@pytest.mark.parametrize(("alpha", "score"), [(5.0, 0.0904), (0.5, 0.668)])
def test_what_chance_alone_scores(alpha, score):
    """Units that move alike but independently, at 11 values; a pose that moves along a random line.

    Their shares follow a Dirichlet distribution with all parameters 10/2 or 1/2, whose mean entropy is known.
    """
    moving = random(11, 4000, 16)
    vectors = moving if alpha == 5.0 else moving[:1] * torch.arange(11, dtype=DOUBLE)[:, None, None]
    first, second = torch.digamma(torch.tensor([16 * alpha + 1, alpha + 1])).tolist()
    assert math.log(16) - (first - second) == pytest.approx(score, abs=1e-3)
    assert measure.compactness(vectors).mean().item() == pytest.approx(score, abs=0.01)


def test_convnet_r_has_two_bounds(digits):
    config = ConvNetRConfig(size=9, width=8, kernel=3, head="linear", decoder="none")
    bounds = [measure.score(build(config), digits, "trans-x", units=units).bound for units in ("class", "all")]
    assert bounds == [math.log(16), math.log(160)]


def test_refusals(digits):
    with pytest.raises(ValueError, match="ConvNetAvg has no poses"):
        measure.score(build(ConvNetAvgConfig(size=9, width=4, kernel=3)), digits, "scale")
    with pytest.raises(ValueError, match="'class', 'all'"):
        measure.score(build(), digits, "scale", units="one")
    with pytest.raises(ValueError, match="rotation, trans-x"):
        measure.score(build(), digits, "twist", (0.0, 1.0))
    with pytest.raises(ValueError, match="no values"):
        measure.score(build(), digits, "twist")
    with pytest.raises(ValueError, match="no images"):
        measure.score(build(), digits.select(torch.arange(0)), "scale")
    with pytest.raises(ValueError, match="units and batch"):
        measure.score(build(), digits, "scale", size=3)


# ---------------------------------------------------------------- one factor at a time


@pytest.mark.parametrize("factor", list(FACTORS))
def test_the_neutral_value_gives_the_images_back(digits, factor):
    assert torch.equal(vary(digits.images, factor, NEUTRAL[factor]), digits.images)
    assert NEUTRAL[factor] in measure.VALUES[factor] and len(measure.VALUES[factor]) == 11


def test_whole_pixels_move_the_image(digits):
    right, down = vary(digits.images, "trans-x", 2), vary(digits.images, "trans-y", -3)
    assert torch.equal(right[..., 2:], digits.images[..., :-2]) and not right[..., :2].any()
    assert torch.equal(down[..., :-3, :], digits.images[..., 3:, :]) and not down[..., -3:, :].any()


def test_a_quarter_turn_is_clockwise(digits):
    turned = vary(digits.images, "rotation", 90.0).int()
    assert (turned - digits.images.rot90(-1, (2, 3)).int()).abs().max() <= 1


@pytest.mark.parametrize(("factor", "point"), [("shear-x", (1.0, 1.0)), ("shear-y", (1.0, 1.0)), ("scale", (2.0, 2.0))])
def test_matrices_by_hand(factor, point):
    matrix, shift = matrix_of(factor, 45.0 if factor != "scale" else 2.0)
    moved = {"shear-x": (2.0, 1.0), "shear-y": (1.0, 2.0), "scale": (4.0, 4.0)}[factor]
    assert_close(matrix @ torch.tensor(point, dtype=DOUBLE), torch.tensor(moved, dtype=DOUBLE))
    assert not shift.any()


def test_series_stacks_the_values(digits):
    found = series(digits.images, "shear-y", (-8.0, 0.0))
    assert found.shape == (2, 5, 1, 9, 9) and torch.equal(found[1], digits.images)
    with pytest.raises(ValueError, match="no values"):
        series(digits.images, "shear-y", ())


@pytest.mark.parametrize(("factor", "value"), [("twist", 0.0), ("shear-x", 90.0), ("scale", 0.0)])
def test_impossible_factors_are_refused(digits, factor, value):
    with pytest.raises(ValueError, match=factor):
        vary(digits.images, factor, value)


def test_turned_axes_are_the_level_of_poses_that_stand_for_nothing(digits):
    """One unit that moves scores ln D, and about as much as a line in a random direction when its axes are turned."""

    class OneUnit(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.none = torch.nn.Parameter(torch.zeros(1))

        def forward(self, images, labels=None):
            poses = torch.zeros(len(images), 3, 16)
            poses[..., 5] = images.float().mean((1, 2, 3))[:, None]
            return Output(poses.norm(dim=-1), poses, None)

    found = measure.beside_rotated(OneUnit(), digits, {"scale": (0.6, 0.8, 1.0)}, draws=40)
    own, turned = found["scale"]
    assert own == pytest.approx(math.log(16))
    line = random(20_000, 16).square()
    assert turned == pytest.approx(measure.kl_from_uniform(line / line.sum(1, keepdim=True)).mean().item(), abs=0.08)
    assert found == measure.beside_rotated(OneUnit(), digits, {"scale": (0.6, 0.8, 1.0)}, draws=40)


def test_figure_4_is_kept_as_a_few_small_pictures(digits):
    config = ConvNetRConfig(size=9, classes=3, width=6, kernel=3, dim=5, primary_dim=3, decoder_widths=(6,))
    few = digits.select(torch.tensor([0, 2, 3]))  # classes 0 and 1
    data = ImageSet("toy", "toy", ("a", "b", "c"), **dict.fromkeys(("train", "validation", "test"), few))
    for head, reach in {"length": 0.2, "sum": 8.0}.items():
        torch.manual_seed(0)
        model = replace(config, head=head).build()
        if head == "sum":
            model.get_submodule("class").linear.weight.data.mul_(100)
        found = find("redrawn")(model, data, label=1, rows=2)
        assert found["reach"] == reach and found["pictures"].shape == (2, 9, 9, 9) and len(found["change"]) == 5
        image = few.select((few.labels == 1).nonzero()[0])
        most = max(range(5), key=found["change"].__getitem__)
        steps = [reach * (n / 4 - 1) for n in range(9)]
        whole = perturbation_grid(model, image.images, image.labels, steps)[0, most, :, 0]
        assert_close(torch.from_numpy(found["pictures"][0].copy()), (255 * whole).round().to(torch.uint8))
    with pytest.raises(ValueError, match="no image of class 2"):
        find("redrawn")(model, data, label=2)
