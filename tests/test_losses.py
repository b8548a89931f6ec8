import math

import pytest
import reference
import torch
from torch.testing import assert_close

from capsnb.nn import losses

DOUBLE = torch.float64


def test_margin_loss_by_hand():
    scores = torch.tensor([[0.95, 0.05, 0.5], [0.05, 0.95, 0.5], [0.4, 0.1, 0.9]], dtype=DOUBLE)
    labels = torch.tensor([0, 0, 2])
    # image 0: nothing missed, 0.5 is 0.4 above 0.1: 0.5 * 0.16
    # image 1: missed by 0.85; 0.95 is 0.85 above and 0.5 is 0.4 above: 0.7225 + 0.5 * (0.7225 + 0.16)
    # image 2: 0.9 and 0.1 are on their margins; 0.4 is 0.3 above: 0.5 * 0.09
    expected = torch.tensor([0.08, 0.7225 + 0.44125, 0.045], dtype=DOUBLE)
    assert_close(losses.margin(scores, labels), expected)


def test_margin_loss_has_its_square():
    loss = [losses.margin(torch.tensor([[score]], dtype=DOUBLE), torch.tensor([0])).item() for score in (0.7, 0.5)]
    assert_close(loss, [0.04, 0.16])  # twice the miss, four times the loss


def test_margin_loss_follows_the_reference_with_any_margins():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(20, 7, dtype=DOUBLE, generator=generator)
    for labels in (torch.randint(7, (20,), generator=generator), torch.randint(7, (20, 3), generator=generator)):
        for margins in ({}, {"m_plus": 0.8, "m_minus": 0.3, "down_weight": 0.7}):
            shown = labels.reshape(20, -1).tolist()
            expected = [reference.margin(s, k, **margins) for s, k in zip(scores.tolist(), shown, strict=True)]
            assert_close(losses.margin(scores, labels, **margins), torch.tensor(expected, dtype=DOUBLE))


def test_margin_loss_of_two_digits_by_hand():
    scores = torch.tensor([[0.9, 0.8, 0.2, 0.0]], dtype=DOUBLE)
    # both digits are present: 0 + 0.01; absent: 0.5 * 0.01 + 0
    for labels in ([[0, 1]], [[1, 0]]):
        assert_close(losses.margin(scores, torch.tensor(labels)).item(), 0.015)
    # the same class twice is one present class, not two
    assert_close(losses.margin(scores, torch.tensor([[0, 0]])), losses.margin(scores, torch.tensor([0])))


def test_margin_gradient_is_zero_inside_the_margins():
    scores = torch.tensor([[0.95, 0.05, 0.5]], dtype=DOUBLE, requires_grad=True)
    losses.margin(scores, torch.tensor([0])).sum().backward()
    assert_close(scores.grad, torch.tensor([[0.0, 0.0, 0.4]], dtype=DOUBLE))  # 2 * 0.5 * (0.5 - 0.1)


def test_spread_loss_by_hand():
    scores = torch.tensor([[0.9, 0.3, 0.0], [0.2, 0.6, 0.5], [0.5, 0.5, 0.5]], dtype=DOUBLE)
    labels = torch.tensor([0, 1, 2])
    # at 0.9: gaps of 0.6 and 0.9 miss 0.3 and 0; of 0.4 and 0.1 miss 0.5 and 0.8; of 0 miss 0.9 twice
    expected = torch.tensor([0.09, 0.25 + 0.64, 1.62], dtype=DOUBLE)
    assert_close(losses.spread(scores, labels), expected)
    # at 0.2 only 0.1 of the second image and both of the third are too near
    expected = torch.tensor([0.0, 0.01, 0.08], dtype=DOUBLE)
    assert_close(losses.spread(scores, labels, margin=0.2), expected)
    assert_close(losses.spread(scores, labels, margin=torch.tensor(0.2, dtype=DOUBLE)), expected)
    # both digits present: each against the one that is not, 0.9 - (0.9 - 0.0) and 0.9 - (0.3 - 0.0)
    assert_close(losses.spread(scores[:1], torch.tensor([[0, 1]])).item(), 0.36)


def test_cross_entropy_by_hand():
    scores = torch.tensor([[math.log(1), math.log(2), math.log(5)]], dtype=DOUBLE)  # softmax 1/8, 2/8, 5/8
    assert_close(losses.cross_entropy(scores, torch.tensor([2])).item(), math.log(8 / 5))
    two = losses.cross_entropy(scores, torch.tensor([[2, 0]]))
    assert two.shape == (1,)
    assert_close(two.item(), (math.log(8 / 5) + math.log(8)) / 2)  # the mean over the labels


def test_cross_entropy_of_lengths_as_shares_by_hand():
    scores = torch.tensor([[0.1, 0.2, 0.5], [0.0, 0.0, 0.9]], dtype=DOUBLE)  # shares 1/8, 2/8, 5/8, and all for one
    found = losses.length_cross_entropy(scores, torch.tensor([2, 2]))
    assert_close(found, torch.tensor([math.log(8 / 5), 0.0], dtype=DOUBLE), atol=1e-9, rtol=0)
    assert_close(losses.length_cross_entropy(3 * scores, torch.tensor([2, 2])), found)  # only shares count
    two = losses.length_cross_entropy(scores[:1], torch.tensor([[2, 0]]))
    assert_close(two.item(), (math.log(8 / 5) + math.log(8)) / 2)
    silent = losses.length_cross_entropy(torch.zeros(1, 4, dtype=DOUBLE), torch.tensor([1]))
    assert_close(silent.item(), math.log(4))


def test_binary_cross_entropy_by_hand():
    scores = torch.tensor([[0.0, math.log(3), -math.log(4)]], dtype=DOUBLE)  # sigmoid 1/2, 3/4, 1/5
    expected = math.log(2) - math.log(3 / 4) - math.log(4 / 5)
    assert_close(losses.binary_cross_entropy(scores, torch.tensor([1])).item(), expected)
    both = math.log(2) - math.log(3 / 4) - math.log(1 / 5)
    assert_close(losses.binary_cross_entropy(scores, torch.tensor([[1, 2]])).item(), both)


def test_logit_losses_stay_finite_far_out():
    scores = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    for loss in (losses.cross_entropy, losses.binary_cross_entropy):
        for labels in (torch.tensor([1]), torch.tensor([[1, 2]])):
            value = loss(scores, labels)
            (gradient,) = torch.autograd.grad(value.sum(), scores)
            assert value.isfinite().all() and gradient.isfinite().all()


def test_reconstruction_is_a_sum_per_image():
    rebuilt, target = torch.zeros(2, 3, 4, 4, dtype=DOUBLE), torch.zeros(2, 3, 4, 4, dtype=DOUBLE)
    rebuilt[0, 0, 0, 0], target[0, 2, 3, 3], target[1, 1, 1, 1] = 0.5, 1.0, 0.1
    assert_close(losses.reconstruction(rebuilt, target), torch.tensor([1.25, 0.01], dtype=DOUBLE))
    whole = losses.reconstruction(torch.ones(2, 1, 28, 28), torch.zeros(2, 1, 28, 28))
    assert_close(whole, torch.full((2,), 784.0))  # 784 pixels, not 1


def test_reconstruction_of_two_digits_sums_both():
    rebuilt, target = torch.zeros(2, 2, 1, 3, 3), torch.zeros(2, 2, 1, 3, 3)
    rebuilt[0, 0, 0, 1, 1], rebuilt[0, 1, 0, 2, 2] = 1, 2
    assert_close(losses.reconstruction(rebuilt, target), torch.tensor([5.0, 0.0]))


@pytest.mark.parametrize("shape", [(2, 1, 4, 5), (2, 3, 4, 4), (1, 1, 4, 4), (2, 2, 1, 4, 4)])
def test_reconstruction_of_another_shape_is_an_error_and_never_broadcast(shape):
    with pytest.raises(ValueError, match="reconstruction") as error:
        losses.reconstruction(torch.zeros(2, 1, 4, 4), torch.zeros(shape))
    assert str(shape) in str(error.value)


@pytest.mark.parametrize("name", ["margin", "cross-entropy", "length-cross-entropy", "bce", "length-bce"])
@pytest.mark.parametrize("labels", [torch.tensor([0, 2, 1, 1]), torch.tensor([[0, 1], [2, 0], [1, 2], [0, 2]])])
def test_every_loss_gives_one_number_per_image(name, labels):
    scores = torch.rand(4, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = losses.LOSSES[name](scores, labels)
    assert loss.shape == (4,) and loss.dtype == DOUBLE
    alone = torch.cat([losses.LOSSES[name](scores[n : n + 1], labels[n : n + 1]) for n in range(4)])
    assert_close(loss, alone)
    assert torch.autograd.gradcheck(lambda s: losses.LOSSES[name](s, labels), (scores,))


def test_losses_have_the_names_that_recipes_use():
    assert set(losses.LOSSES) >= {"margin", "cross-entropy", "bce"}
