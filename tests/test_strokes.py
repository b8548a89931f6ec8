"""Digits drawn of known strokes: their parts, their ink, and that a network which learned MNIST reads them."""

import pytest
import torch
from torch.testing import assert_close

from capsnb.data.strokes import DIGITS, INK, MOST, _to_line, stroke_digits
from capsnb.training import checkpoints


def test_every_pixel_of_ink_belongs_to_one_stroke_and_every_stroke_has_some():
    drawn = stroke_digits(40, seed=3)
    assert drawn.images.shape == (40, 1, 28, 28) and drawn.images.dtype == torch.uint8
    assert drawn.masks.shape == (40, MOST, 28, 28) and drawn.masks.dtype == torch.bool
    assert drawn.labels.tolist() == [*range(10)] * 4
    inked = drawn.images[:, 0] >= 255 * INK
    assert torch.equal(drawn.masks.sum(1), inked.long())
    counts = drawn.masks.flatten(2).any(2).sum(1)
    assert counts.tolist() == [len(DIGITS[label]) for label in drawn.labels]
    assert drawn.images[:, 0, :2].max() == drawn.images[:, 0, :, :2].max() == 0, "a digit keeps off the border"


def test_the_same_seed_draws_the_same_digits_and_another_others():
    first, again, other = (stroke_digits(10, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.images, other.images) and torch.equal(first.labels, other.labels)
    assert torch.equal(stroke_digits(20, seed=1).labels[:10], first.labels)
    assert stroke_digits(3, size=14).images.shape == (3, 1, 14, 14)


def test_distance_to_a_line_by_hand():
    """A line from (0, 0) to (4, 0) and on to (4, 3): beside it, beyond its end, at its corner."""
    x, y = torch.tensor([[2.0, -3.0, 6.0]]), torch.tensor([[1.5, 4.0, 1.0]])
    found = _to_line(x, y, torch.tensor([[0.0, 0.0], [4.0, 0.0], [4.0, 3.0]]))
    assert_close(found, torch.tensor([[1.5, 5.0, 2.0]]))


@pytest.mark.parametrize(("count", "size"), [(0, 28), (5, 7)])
def test_no_pictures_and_pictures_too_small_are_a_sentence(count, size):
    with pytest.raises(ValueError, match=f"^{count} pictures of {size} pixels: at least 1 picture of 8 pixels"):
        stroke_digits(count, size=size)


def test_a_network_that_learned_mnist_reads_them():
    model, drawn = checkpoints.load("capsnet-small").model.eval(), stroke_digits(100, seed=5)
    with torch.no_grad():
        right = model(drawn.images).scores.argmax(1) == drawn.labels
    assert right.float().mean() >= 0.95
