"""Relevance mass accuracy of hand-made maps; heatmaps of single units against one gradient at a time; captum's maps."""

import pytest
import torch
from helpers import keeping
from torch.testing import assert_close
from toys import TwoPaths, two_path_images

from capsnb.measure.attribution import gradcam
from capsnb.measure.overlap import (
    Heatmaps,
    Overlap,
    class_heatmaps,
    mass_accuracy,
    normalise,
    overlap,
    pooled,
    score_table,
    signed,
    top_units,
    unit_heatmaps,
)
from capsnb.measure.paths import Places, Reading, look
from capsnb.nn import taps
from capsnb.nn.layers import RoutedCapsules
from capsnb.nn.models import CapsNetConfig, MatrixCapsNetConfig, StridedStem
from capsnb.nn.routing import Attention, Uniform

SMALL = {"size": 20, "classes": 3, "dim": 4, "channels": 2, "decoder_widths": (8, 12)}
STEM = StridedStem(channels=5, types=3, dim=2)


def build(**changes):
    torch.manual_seed(0)
    return CapsNetConfig(**(SMALL | {"stem": STEM} | changes)).build()


@pytest.fixture
def images():
    return torch.rand(3, 2, 20, 20, generator=torch.Generator().manual_seed(7))


def test_mass_accuracy_of_hand_made_maps():
    mask = torch.zeros(4, 4)
    mask[:, :2] = 1
    left, right, even = mask.clone(), 1 - mask, torch.full((4, 4), 0.3)
    assert mass_accuracy(torch.stack([left, right, even]), mask).tolist() == pytest.approx([1, 0, 0.5])
    assert mass_accuracy(torch.zeros(4, 4), mask).isnan()
    assert mass_accuracy(even, torch.zeros(4, 4)) == 0
    with pytest.raises(ValueError, match="non-negative"):
        mass_accuracy(-even, mask)
    with pytest.raises(ValueError, match=r"\(4, 4\) pixels cannot be judged by a mask of \(2, 4\)"):
        mass_accuracy(even, mask[:2])


def test_maps_are_normalised_over_all_maps_of_their_unit():
    maps = torch.tensor([[[1.0, 3.0]], [[2.0, 5.0]], [[4.0, 4.0]], [[7.0, 7.0]]])
    heat = Heatmaps(maps, torch.zeros(4), torch.tensor([5, 5, 0, 2]))
    assert normalise(heat).maps.flatten().tolist() == [0, 0.5, 0.25, 1, 0, 0, 0, 0]


def one_at_a_time(model, images, units):
    """Each map by its own forward and backward pass of the whole network."""
    found = []
    for image, row in zip(images, units.tolist(), strict=True):
        for u in row:
            mask = torch.zeros(model.primary.capsules)
            mask[u] = 1
            pixels = image[None].clone().requires_grad_()
            with keeping(model, "primary", mask):
                scores = model(pixels).scores[0]
            scores.max().backward()
            found.append((pixels.grad[0].abs().amax(0), int(scores.argmax())))
    maps, guesses = zip(*found, strict=True)
    return torch.stack(maps).unflatten(0, units.shape), torch.tensor(guesses).view(units.shape)


def test_heatmaps_of_matrix_capsules(images):
    torch.manual_seed(0)
    model = MatrixCapsNetConfig(channels=2, size=20, classes=3, width=4, types=2, layers=((3, 3, 2), (2, 3, 1))).build()
    model.eval()
    units = torch.tensor([[0, 3], [1, 0], [2, 5]])
    found = unit_heatmaps(model, images, units, rows=3)
    for image, row, maps, guesses in zip(images, units, found.maps, found.predicted, strict=True):
        for u, heat, guess in zip(row, maps, guesses, strict=True):
            pixels = image[None].clone().requires_grad_()
            with keeping(model, "caps2", torch.nn.functional.one_hot(u, model.caps2.capsules)):
                scores = model(pixels).scores[0]
            scores.max().backward()
            assert_close(heat, pixels.grad[0].abs().amax(0), atol=1e-8, rtol=1e-3)
            assert guess == scores.argmax()


@pytest.mark.parametrize(
    "changes",
    [{}, {"routing": Uniform(value="1/I")}, {"routing": Attention()}, {"hidden": ((4, 3),)}, {"shared": True}],
    ids=["one child", "uniform", "attention", "hidden", "shared"],
)
@pytest.mark.parametrize("rows", [1, 512])
def test_heatmaps_equal_one_gradient_at_a_time(images, changes, rows):
    model = build(**changes)
    units = torch.tensor([[0, 7], [5, 0], [11, 3]])
    places = Places("conv1", "primary", "class")
    found = unit_heatmaps(model, images, units, places=places, rows=rows)
    maps, guesses = one_at_a_time(model, images, units)
    assert_close(found.maps, maps, atol=1e-7, rtol=1e-3)
    assert torch.equal(found.predicted, guesses) and torch.equal(found.units, units)
    assert model.decoder is not None and not any(
        p.grad is not None and p.grad.isnan().any() for p in model.parameters()
    )


class Strangers:
    """A routing of somebody else's, which declares nothing: children prefer the parents that they vote longest for."""

    def __call__(self, votes, combine):
        return votes.norm(dim=-1).softmax(-1)


class Declared(Strangers):
    silent_is_absent = True


def test_a_routing_that_declares_nothing_gets_the_same_maps_the_general_way(images, monkeypatch):
    units, alone = torch.tensor([[0, 7], [5, 0], [11, 3]]), []
    route_one = RoutedCapsules.route_one
    monkeypatch.setattr(
        RoutedCapsules, "route_one", lambda layer, *given: alone.append(layer) or route_one(layer, *given)
    )
    general = unit_heatmaps(build(routing=Strangers()), images, units)
    assert not alone
    quick = unit_heatmaps(build(routing=Declared()), images, units)
    assert alone
    assert_close(general.maps, quick.maps, atol=1e-7, rtol=1e-3)
    assert torch.equal(general.predicted, quick.predicted)
    maps, guesses = one_at_a_time(build(routing=Strangers()), images, units)
    assert_close(general.maps, maps, atol=1e-7, rtol=1e-3)
    assert torch.equal(general.predicted, guesses)


def test_class_heatmaps(images):
    model = build()
    pixels = images.clone().requires_grad_()
    best, guess = model(pixels).scores.max(1)
    (gradient,) = torch.autograd.grad(best.sum(), pixels)
    found = class_heatmaps(model, images)
    assert_close(found.maps, gradient.abs().amax(1))
    assert torch.equal(found.predicted, guess) and torch.equal(found.units, guess)
    whole = (images * 255).to(torch.uint8)
    assert_close(class_heatmaps(model, whole).maps, class_heatmaps(model, whole / 255).maps)


def test_top_units_are_those_of_the_relevance(images):
    model = build()
    reading = Reading(direction="forward", of="contribution")
    with torch.no_grad():
        _, units, _ = look(model, images, torch.zeros(3, dtype=torch.int64), reading, Places.of(model))
    found = top_units(model, images, reading, 4)
    assert_close(units.gather(1, found), units.sort(1, descending=True).values[:, :4])
    assert top_units(model, images, reading, 200).shape == (3, model.primary.capsules)


def test_parts_of_the_right_path_lie_in_the_whole():
    model = TwoPaths()
    images = two_path_images([[1.0, 0.9, 0.25, 0.1], [0.1, 0.3, 0.8, 1.0]])
    whole = class_heatmaps(model, images)
    parts = unit_heatmaps(model, images, torch.tensor([[0, 2], [0, 2]]))
    # a unit sees its own pixel alone and names the class it votes for
    assert (parts.maps[:, 0, 0, 1:] == 0).all() and (parts.maps[:, 1, 0, [0, 1, 3]] == 0).all()
    assert parts.predicted.tolist() == [[0, 1], [0, 1]]
    found = overlap(parts, whole, thresholds=(0.5,), shuffles=3)
    # image 0's class map lies on pixels 0 and 1: unit 0 is inside, unit 2 outside; image 1 the other way round
    assert found.isolated[0].tolist() == [[1, 0], [0, 1]]
    # each image's only other one is of the other class
    assert found.isolated_chance[0].tolist() == [[0, 1], [1, 0]]
    assert found.area[0].tolist() == [0.5, 0.5]
    inside = normalise(parts).maps.amax(1)[:, 0]
    expected = [inside[0, :2].sum() / inside[0].sum(), inside[1, 2:].sum() / inside[1].sum()]
    assert found.aggregated[0].tolist() == pytest.approx([float(value) for value in expected])


def test_overlap_by_hand():
    # one unit, two images; the class map of image 0 is high on the left half, that of image 1 on the right
    whole = Heatmaps(torch.tensor([[[1.0, 0.3, 0, 0]], [[0, 0, 0.2, 1.0]]]), torch.zeros(2), torch.tensor([0, 0]))
    parts = Heatmaps(
        torch.tensor([[[[1.0, 1, 1, 1]], [[0, 0, 0, 1.0]]], [[[0, 0, 1.0, 1]], [[1.0, 0, 0, 0]]]]),
        torch.zeros(2, 2),
        torch.tensor([[1, 2], [1, 2]]),
    )
    found = overlap(parts, whole, thresholds=(0.1, 0.25, 0.5), shuffles=2)
    assert found.isolated[:, 0].tolist() == [[0.5, 0], [0.5, 0], [0.25, 0]]
    assert found.isolated[:, 1].tolist() == [[1, 0], [0.5, 0], [0.5, 0]]
    assert found.isolated_chance[:, 0].tolist() == [[0.5, 1], [0.25, 1], [0.25, 1]]
    expected = torch.tensor([[0.5, 2 / 3], [0.5, 1 / 3], [0.25, 1 / 3]])
    assert_close(found.aggregated, expected)
    assert found.area.tolist() == [[0.5, 0.5], [0.5, 0.25], [0.25, 0.25]]
    with pytest.raises(ValueError, match="at least two images"):
        overlap(parts._replace(maps=parts.maps[:1], units=parts.units[:1]), whole)


def test_the_table_has_means_over_images_or_classes():
    nan = float("nan")
    isolated = torch.tensor([[[0.2, 0.4], [0.6, nan], [0.4, 0.0]]])
    flat = torch.tensor([[0.1, 0.2, 0.6]])
    table = score_table(Overlap(isolated, flat, isolated, flat, flat))
    assert table["isolated, first unit"][0].item() == pytest.approx(0.4)
    assert table["isolated, first unit"][1].item() == pytest.approx((0.08 / 3) ** 0.5)
    assert table["isolated, all units"][0].item() == pytest.approx((0.3 + 0.6 + 0.2) / 3)
    assert table["aggregated"][0].item() == pytest.approx(0.3)
    by_class = score_table(Overlap(isolated, flat, isolated, flat, flat), torch.tensor([0, 0, 1]))
    assert by_class["aggregated"][0].item() == pytest.approx((0.15 + 0.6) / 2)
    assert by_class["aggregated"][1].item() == pytest.approx(0.225)
    chance = torch.tensor([[[0.1, 0.9], [0.3, 0.9], [0.2, 0.9]]])
    first = score_table(Overlap(isolated, flat, chance, flat, flat))["null: first unit, shuffled pairs"][0]
    assert first.item() == pytest.approx(0.2)
    assert [name for name in table if name.startswith("null")] == [
        "null: first unit, shuffled pairs",
        "null: isolated, shuffled pairs",
        "null: aggregated, shuffled pairs",
        "null: mask area",
    ]


def test_no_image_keeps_its_own_mask_in_the_chance_level():
    eye = torch.eye(9).view(9, 1, 9)
    whole = Heatmaps(eye, torch.zeros(9), torch.zeros(9, dtype=torch.int64))
    found = overlap(Heatmaps(eye[:, None], torch.zeros(9, 1), torch.zeros(9, 1, dtype=torch.int64)), whole, shuffles=20)
    assert (found.isolated == 1).all() and (found.isolated_chance == 0).all() and (found.aggregated_chance == 0).all()


def test_grad_cam_is_its_formula(images):
    model = build()
    pixels = images.clone().requires_grad_()
    with taps.record(model, "conv1") as seen:
        scores = model(pixels).scores
    (gradient,) = torch.autograd.grad(scores.max(1).values.sum(), seen["conv1"])
    cam = torch.relu((gradient.mean((2, 3), keepdim=True) * seen["conv1"]).sum(1, keepdim=True))
    expected = torch.nn.functional.interpolate(cam, (20, 20), mode="bilinear")[:, 0]
    found = gradcam(model, images, rows=2)
    assert_close(found.maps, expected.detach(), atol=1e-6, rtol=1e-4)
    assert torch.equal(found.predicted, scores.argmax(1))


def test_a_unit_alone_by_grad_cam_differs_from_the_whole(images):
    model = build()
    found = gradcam(model, images, units=torch.tensor([[0], [5], [11]]))
    assert found.maps.shape == (3, 1, 20, 20) and (found.maps >= 0).all()
    _, guesses = one_at_a_time(model, images, found.units)
    assert torch.equal(found.predicted, guesses)


def test_a_signed_gradient_is_the_channel_of_largest_size():
    gradient = torch.tensor([[[[1.0, -2.0]], [[-3.0, 0.5]], [[0.0, 2.0]]]])  # (1, 3, 1, 2)
    assert signed(gradient).tolist() == [[[-3.0, -2.0]]]
    assert pooled(gradient).tolist() == [[[3.0, 2.0]]]


def test_a_whole_is_scaled_over_its_class_or_by_itself():
    maps = torch.tensor([[[0.0, 4.0]], [[1.0, 2.0]]])
    heat = Heatmaps(maps, torch.tensor([0, 0]), torch.tensor([0, 0]))
    assert normalise(heat).maps.tolist() == [[[0.0, 1.0]], [[0.25, 0.5]]]
    assert normalise(heat, each=True).maps.tolist() == [[[0.0, 1.0]], [[0.0, 1.0]]]
    parts = Heatmaps(maps.unsqueeze(1), torch.zeros(2, 1).long(), torch.zeros(2, 1).long())
    by_class = overlap(parts, heat, thresholds=(0.6,)).area
    assert by_class.tolist() == [[0.5, 0.0]]
    assert overlap(parts, heat, thresholds=(0.6,), each=True).area.tolist() == [[0.5, 0.5]]


def test_a_map_laid_anywhere_scores_the_mask_s_area_on_average():
    generator = torch.Generator().manual_seed(0)
    part, mask = torch.rand(5, 6, generator=generator), (torch.rand(5, 6, generator=generator) < 0.3).float()
    laid = [part.roll((down, right), (0, 1)) for down in range(5) for right in range(6)]
    mean = torch.stack([mass_accuracy(each, mask) for each in laid]).mean()
    assert mean.item() == pytest.approx(mask.mean().item())
