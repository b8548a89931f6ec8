"""Readings of votes against einsum: values, the shared gradient, and what may not leak from one backward pass."""

import pytest
import torch
from torch.testing import assert_close

from capsnb.nn.fast.votes import MOST_PARENTS, Combine, VoteReader
from capsnb.nn.models import CapsNetConfig, MatrixCapsNetConfig, StridedStem

SHAPES = [(1, 1, 1, 1), (2, 7, 3, 4), (3, 5, MOST_PARENTS, 2), (2, 4, MOST_PARENTS + 1, 3), (1, 3, 40, 2)]


def tensors(shape, *, children_first=False, dtype=torch.float64):
    batch, children, parents, size = shape
    generator = torch.Generator().manual_seed(sum(shape))
    votes = torch.randn(children, batch, parents, size, generator=generator, dtype=dtype)
    votes = votes.transpose(0, 1) if children_first else votes.transpose(0, 1).contiguous()
    coupling = torch.rand(batch, children, parents, generator=generator, dtype=dtype)
    poses = torch.randn(batch, parents, size, generator=generator, dtype=dtype)
    return [tensor.requires_grad_() for tensor in (votes.detach(), coupling, poses)]


def plain(votes, coupling, poses):
    return torch.einsum("bij,bijd->bjd", coupling, votes), torch.einsum("bijd,bjd->bij", votes, poses)


def read(votes, coupling, poses):
    reader = VoteReader(votes)
    return reader.weighted_sum(coupling), reader.agreement(poses)


def scalar(outputs):
    return sum((output * output.detach().cos()).sum() for output in outputs)


@pytest.mark.parametrize("children_first", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_einsum(shape, children_first):
    given = tensors(shape, children_first=children_first)
    ours, theirs = read(*given), plain(*given)
    for our, their in zip(ours, theirs, strict=True):
        assert_close(our, their)
    assert_close(torch.autograd.grad(scalar(ours), given), torch.autograd.grad(scalar(theirs), given))


def test_many_readings_share_one_gradient():
    votes, coupling, poses = tensors((2, 6, 3, 4))

    def twice(sums, agreement):
        first = sums(coupling)
        second = agreement(first + poses)
        return sums(second.softmax(-1)), agreement(first * 2)

    reader = VoteReader(votes)
    ours = twice(reader.weighted_sum, reader.agreement)
    theirs = twice(lambda c: plain(votes, c, poses)[0], lambda p: plain(votes, coupling, p)[1])
    given = (votes, coupling, poses)
    assert_close(torch.autograd.grad(scalar(ours), given), torch.autograd.grad(scalar(theirs), given))


def test_gradcheck():
    assert torch.autograd.gradcheck(read, tensors((2, 3, 4, 2)))


def test_a_backward_pass_that_stops_early_leaves_nothing_behind():
    votes, coupling, poses = tensors((2, 3, 4, 2))
    loss = scalar(read(votes, coupling, poses))
    torch.autograd.grad(loss, coupling, retain_graph=True)
    (first,) = torch.autograd.grad(loss, votes, retain_graph=True)
    (second,) = torch.autograd.grad(loss, votes)
    (expected,) = torch.autograd.grad(scalar(plain(votes, coupling, poses)), votes)
    assert_close(first, expected)
    assert torch.equal(first, second)


def test_gradients_of_several_outputs_at_once():
    votes, coupling, poses = tensors((2, 3, 4, 2))
    sums, _ = read(votes, coupling, poses)
    units = sums[0].flatten()
    (batched,) = torch.autograd.grad(
        units, votes, torch.eye(len(units), dtype=units.dtype), is_grads_batched=True, retain_graph=True
    )
    single = [torch.autograd.grad(unit, votes, retain_graph=True)[0] for unit in units]
    assert_close(batched, torch.stack(single))


def test_no_graph_without_need():
    votes, coupling, poses = tensors((2, 3, 4, 2))
    with torch.no_grad():
        assert not any(output.requires_grad for output in read(votes, coupling, poses))
    constants = [tensor.detach() for tensor in (votes, coupling, poses)]
    assert not any(output.requires_grad for output in read(*constants))
    sums, agreement = read(constants[0], coupling, constants[2])
    assert sums.requires_grad and not agreement.requires_grad


def test_a_second_derivative_is_refused():
    votes, coupling, poses = tensors((2, 3, 4, 2))
    for wanted in (votes, coupling):
        with pytest.raises(RuntimeError, match="votes can be differentiated once only"):
            torch.autograd.grad(scalar(read(votes, coupling, poses)), wanted, create_graph=True)


def test_combine_sums_other_votes_on_their_own():
    votes, coupling, _ = tensors((2, 3, 4, 2))
    combine = Combine(VoteReader(votes), lambda total: 2 * total)
    for heard in (votes, votes * 3):
        assert_close(combine(coupling, heard), 2 * torch.einsum("bij,bijd->bjd", coupling, heard))


def test_switched_off_it_is_einsum_and_can_be_differentiated_twice(monkeypatch):
    monkeypatch.setenv("CAPSNB_FAST", "0")
    given = tensors((2, 3, 4, 2))
    ours = read(*given)
    assert all(torch.equal(our, their) for our, their in zip(ours, plain(*given), strict=True))
    assert torch.autograd.gradgradcheck(read, given)


MODELS = {
    "vectors": CapsNetConfig(size=20, stem=StridedStem(channels=4, types=2), dim=4, classes=3, decoder="none"),
    "matrices": MatrixCapsNetConfig(size=12, classes=3, width=4, types=2, layers=((3, 3, 2),), decoder="none"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_the_same_gradients_switched_off(name, monkeypatch):
    torch.manual_seed(0)
    model = MODELS[name].build().double()
    images = torch.rand(2, *model.image_shape, dtype=torch.float64, requires_grad=True)

    def pushed():
        scores = model(images).scores
        return [scores, *torch.autograd.grad(scores.square().sum(), [images, *model.parameters()])]

    quick = pushed()
    monkeypatch.setenv("CAPSNB_FAST", "0")
    assert_close(pushed(), quick)
    (slope,) = torch.autograd.grad(model(images).scores.sum(), images, create_graph=True)
    assert torch.autograd.grad(slope.square().sum(), images)[0].isfinite().all()
