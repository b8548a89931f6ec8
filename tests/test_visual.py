"""Visual features of hand-made bars, regressions with known slopes, scores of hand-made effects."""

import math

import pytest
import torch
from torch.testing import assert_close

from capsnb.data import DataSpec, Split, prepare
from capsnb.data.transforms.factors import vary
from capsnb.measure import viewpoint
from capsnb.measure.visual import (
    FEATURES,
    Effects,
    class_agreement,
    class_std,
    effects,
    entangled,
    moved,
    properties_moved,
    random_axes,
    shuffled_dimensions,
    visual_effects,
    visual_features,
)
from capsnb.nn.models import CapsNetConfig, StridedStem

ROTATION, THICKNESS, WIDTH, SLANT, AREA = range(5)


def bar(width, height, size=41):
    image = torch.zeros(1, 1, size, size, dtype=torch.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    image[..., top : top + height, left : left + width] = 255
    return image


def test_an_upright_bar_is_measured_exactly():
    found = visual_features(bar(3, 15))[0]
    # the outline in cells of 2x2 pixels: each corner is one cell, where the edge is halved in both directions
    outline = 2 * (2 + 14) + 4 * 0.5**0.5
    expected = torch.tensor([90.0, 2 * 45 / outline, 3.0, 0.0, 45.0])
    assert_close(found[1:], expected[1:], atol=1e-4, rtol=0)
    assert abs(found[ROTATION]) == pytest.approx(90, abs=1e-3)
    assert list(FEATURES) == ["rotation", "thickness", "width", "slant", "area"]


def test_the_ground_does_not_count():
    dim = bar(3, 15).float() / 255
    found = visual_features(dim.clamp_min(0.1))
    assert_close(found, visual_features(dim))
    assert visual_features(torch.zeros(2, 1, 5, 5)).isnan().any()
    coloured = dim.expand(-1, 3, -1, -1)
    assert_close(visual_features(coloured), visual_features(dim))


@pytest.mark.parametrize("angle", [-25, 10, 30])
def test_a_turned_bar_has_turned(angle):
    turned = visual_features(vary(bar(15, 3), "rotation", angle))[0]
    assert turned[ROTATION] == pytest.approx(angle, abs=0.5)
    assert turned[AREA] == pytest.approx(45, rel=0.06)  # the floor eats of grey edges
    assert turned[THICKNESS] == pytest.approx(2.55, rel=0.03)


@pytest.mark.parametrize("angle", [-20, 15])
def test_a_slanted_bar_is_slanted_and_as_wide_as_before(angle):
    found = visual_features(vary(bar(3, 21), "shear-x", angle))[0]
    assert found[SLANT] == pytest.approx(angle, abs=0.7)
    assert found[WIDTH] == pytest.approx(3, abs=0.4)


def test_spread_by_class_and_round_the_half_turn():
    features = torch.zeros(4, 5)
    features[:, ROTATION] = torch.tensor([89.0, -89.0, 10.0, 10.0])  # two degrees apart, not 178
    features[:, AREA] = torch.tensor([1.0, 3.0, 5.0, 5.0])
    found = class_std(features, torch.tensor([0, 0, 1, 1]), 2)
    assert found[0, ROTATION] == pytest.approx(1, rel=1e-3)
    assert found[0, AREA] == pytest.approx(2**0.5)
    assert found[1].tolist() == pytest.approx([0] * 5, abs=1e-3)
    with pytest.raises(ValueError, match="class 2 has 0 pictures"):
        class_std(features, torch.tensor([0, 0, 1, 1]), 3)


def test_a_known_slope_is_found_and_explains_what_it_does():
    steps = torch.tensor([-1.0, 0.0, 1.0, 2.0])
    features = torch.zeros(3, 2, 4, 5)
    features[:, 0, :, AREA] = 2 * steps + torch.tensor([[5.0], [9.0], [-4.0]])  # an intercept per image
    features[:, 1, :, WIDTH] = torch.tensor([1.0, -1.0, -1.0, 1.0])  # a curve without a slope
    features[:, 0, :, ROTATION] = 80 + 10 * steps  # passes the half turn
    features[features > 90] -= 180
    labels = torch.tensor([0, 0, 2])
    scale = torch.full((3, 5), 4.0)
    found = effects(features, steps, labels, scale)
    for label in (0, 2):
        assert found.effect[label, 0, AREA] == pytest.approx(2 * 3 / 4)
        assert found.effect[label, 0, ROTATION] == pytest.approx(10 * 3 / 4, rel=1e-5)
        assert found.explained[label, 0, [ROTATION, AREA]].tolist() == pytest.approx([1, 1], rel=1e-5)
        assert found.effect[label, 1, WIDTH] == found.explained[label, 1, WIDTH] == 0
    assert found.effect[1].isnan().all()
    assert moved(found)[[0, 2]].tolist() == [[2, 0], [2, 0]]
    assert moved(found, threshold=2)[0].tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"features are \(B, D, S, 5\)"):
        effects(features[0], steps, labels, scale)


def hand(effect):
    effect = torch.as_tensor(effect, dtype=torch.float64)
    return Effects(effect, torch.ones_like(effect))


def test_properties_by_hand():
    # rotation, thickness, width, slant, area: one property with two features, two properties, three, none
    rows = [[0.6, 0, 0, -0.9, 0], [0, 0.5, 0, 0.7, 0], [-1.0, 0, 2.0, 0, 0.8], [0.4, 0.4, 0.4, 0.4, 0.4]]
    found = hand([rows, [[0.0] * 5] * 4])
    assert properties_moved(found).tolist() == [[1, 2, 3, 0], [0, 0, 0, 0]]
    assert entangled(found) == pytest.approx(2 / 3)
    assert math.isnan(entangled(found, threshold=5))


@pytest.mark.parametrize(("kind", "reach"), [("rotation", 15.0), ("shear", 15.0)])
def test_a_turn_or_a_shear_alone_moves_one_property(kind, reach):
    digits = prepare(DataSpec()).test
    natural = class_std(visual_features(digits.images), digits.labels, 10)
    images = digits.images[digits.labels == 7][:20]
    steps = torch.tensor([-reach, 0.0, reach])
    changed = [viewpoint.moved(images, {kind: step}) for step in steps.tolist()]
    features = visual_features(torch.stack(changed, 1)[:, None])
    found = effects(features, steps, torch.full((20,), 7), natural)
    assert (moved(found)[7].item(), properties_moved(found)[7].item()) == (2, 1)


def test_agreement_of_classes():
    first = [[1.0, 0, 0, 0, 0], [0, 2.0, 0, 0, 0]]
    second = [[3.0, 0, 0, 0, 0], [0, 0, -1.0, 0, 0]]
    found = class_agreement(hand([first, second]))
    assert found.tolist() == [1, 0]
    with pytest.raises(ValueError, match="at least two"):
        class_agreement(hand([first]))
    mixed = [shuffled_dimensions(hand([first, second]), seed=seed) for seed in range(8)]
    assert all(sorted(each.effect.flatten().tolist()) == [-1, *[0] * 16, 1, 2, 3] for each in mixed)
    assert len({tuple(each.effect.flatten().tolist()) for each in mixed}) > 1


def test_random_axes_are_orthonormal_and_seeded():
    axes = random_axes(16, seed=3)
    assert_close(axes @ axes.T, torch.eye(16), atol=1e-5, rtol=0)
    assert torch.equal(axes, random_axes(16, seed=3)) and not torch.equal(axes, random_axes(16, seed=4))


def test_effects_of_a_model():
    torch.manual_seed(0)
    model = CapsNetConfig(size=20, classes=2, dim=3, stem=StridedStem(channels=4, types=2), decoder_widths=(8, 12))
    model = model.build()
    images = torch.cat([vary(bar(3, 11, 20), "rotation", angle) for angle in (0, 20, -30, 5, 15, 40)])
    split = Split(images, torch.tensor([0, 1, 0, 1, 0, 1]))
    steps = torch.linspace(-1, 1, 6)
    found = visual_effects(model, split, steps, classes=2, images=2)
    assert found.effect.shape == (2, 3, 5) and found.effect.isfinite().all()
    each = visual_effects(model, split, {0: steps, 1: steps}, classes=2, images=2, directions=torch.eye(3))
    assert_close(each.effect, found.effect)
    assert (found.explained >= 0).all() and (found.explained <= 1 + 1e-5).all()
    null = visual_effects(model, split, steps, classes=2, images=2, shuffle=0)
    assert null.explained.mean() < found.explained.mean()
