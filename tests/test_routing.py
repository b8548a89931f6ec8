import math
from dataclasses import fields, replace
from itertools import pairwise

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from capsnb.nn import layers, routing

DOUBLE = torch.float64


def combine_with(squash="sabour", bias=None):
    """A layer's weighted sum, as routing gets it: (B, I, J), (B, I, J, D) -> (B, J, D)."""

    def combine(coupling, votes):
        s = torch.einsum("bij,bijd->bjd", coupling, votes)
        return layers.SQUASHES[squash](s if bias is None else s + bias)

    return combine


def random_votes(*shape, seed=0, size=1.5):
    return size * torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("squash", ["sabour", "exponential", "none"])
@pytest.mark.parametrize("iterations", [1, 2, 3, 4])
def test_dynamic_routing_follows_procedure_1(iterations, squash):
    votes = random_votes(2, 5, 3, 4)
    coupling = routing.dynamic(votes, combine_with(squash), iterations=iterations)
    assert_close(coupling, reference.procedure_1(votes, iterations, squash=reference.SQUASHES[squash]))
    assert_close(coupling.sum(-1), torch.ones(2, 5, dtype=DOUBLE))  # each child spends exactly 1 over its parents


@pytest.mark.parametrize("iterations", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("temperature", "rate", "with_prior", "with_bias"),
    [(0.5, 1.0, False, False), (4.0, 1.0, True, False), (1.0, 0.3, False, False), (1.0, 1.0, True, True),
     (0.7, 0.6, True, True)],
)  # fmt: skip
def test_every_option_follows_the_reference(iterations, temperature, rate, with_prior, with_bias):
    votes = random_votes(2, 4, 3, 5, seed=1)
    prior = random_votes(4, 3, seed=2) if with_prior else None
    bias = random_votes(3, 5, seed=3) if with_bias else None
    options = {"prior": prior, "temperature": temperature, "rate": rate}
    coupling = routing.dynamic(votes, combine_with(bias=bias), iterations=iterations, **options)
    assert_close(coupling, reference.procedure_1(votes, iterations, bias=bias, **options))


def test_two_children_who_agree_by_hand():
    votes = torch.tensor([[[[1.0], [0.0]], [[1.0], [0.0]]]], dtype=DOUBLE)  # both send 1 to parent 0, nothing to 1
    # c = 1/2; s_0 = 1/2 + 1/2 = 1; v_0 = 1/2; b = (1/2, 0); c = e^(1/2) / (e^(1/2) + 1)
    half = math.exp(0.5) / (math.exp(0.5) + 1)
    second = routing.dynamic(votes, combine_with(), iterations=2)
    assert_close(second, torch.tensor([[[half, 1 - half]] * 2], dtype=DOUBLE))
    # rate 1/4 (Lin et al., eq. 3): a quarter of the way from 1/2
    soft = routing.dynamic(votes, combine_with(), iterations=2, rate=0.25)
    assert_close(soft[0, 0, 0].item(), 0.5 + 0.25 * (half - 0.5))
    # T = 3: s_0 = 2 half, v_0 = s^2 / (1 + s^2), b_0 = 1/2 + v_0
    b = 0.5 + (2 * half) ** 2 / (1 + (2 * half) ** 2)
    third = routing.dynamic(votes, combine_with(), iterations=3)
    assert_close(third[0, 0, 0].item(), math.exp(b) / (math.exp(b) + 1))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    shape=st.tuples(*[st.integers(1, n) for n in (2, 5, 4, 3)]),
    iterations=st.integers(1, 4),
    temperature=st.floats(0.1, 10),
    rate=st.floats(0.01, 1),
    squash=st.sampled_from(["sabour", "exponential"]),
    size=st.sampled_from([0.0, 1e-6, 1.0, 20.0]),
    seed=st.integers(0, 1000),
)
def test_coupling_is_a_distribution_over_parents_for_any_shape(
    shape, iterations, temperature, rate, squash, size, seed
):
    votes = random_votes(*shape, seed=seed, size=size)
    prior = random_votes(*shape[1:3], seed=seed + 1)
    options = {"prior": prior, "temperature": temperature, "rate": rate}
    coupling = routing.dynamic(votes, combine_with(squash), iterations=iterations, **options)
    assert coupling.shape == shape[:3]
    assert ((coupling >= 0) & (coupling <= 1 + 1e-12)).all()
    assert_close(coupling.sum(-1), torch.ones(shape[:2], dtype=DOUBLE))
    expected = reference.procedure_1(votes, iterations, squash=reference.SQUASHES[squash], **options)
    assert_close(coupling, expected, rtol=1e-9, atol=1e-11)


def test_the_softmax_runs_over_parents_not_children():
    coupling = routing.dynamic(random_votes(3, 7, 2, 4), combine_with(), iterations=3)
    assert_close(coupling.sum(2), torch.ones(3, 7, dtype=DOUBLE))
    assert not torch.allclose(coupling.sum(1), torch.ones(3, 2, dtype=DOUBLE), atol=0.5)


@pytest.mark.parametrize("iterations", [2, 3, 4])
@pytest.mark.parametrize("squash", ["sabour", "none"])
def test_routing_over_the_children_follows_the_released_code_s_loops(iterations, squash):
    votes, config = random_votes(2, 5, 3, 4, seed=4), routing.Dynamic(iterations=iterations, over="children")
    shares, agreed = reference.over_children(votes, iterations, squash=reference.SQUASHES[squash])
    coupling = config(votes, combine_with(squash))
    assert_close(coupling, shares)
    assert_close(coupling.sum(1), torch.ones(2, 3, dtype=DOUBLE))  # each parent spends exactly 1 on its children
    assert_close(config.coefficients(votes, combine_with(squash)), agreed)
    assert not torch.allclose(agreed, coupling, atol=0.1)


def test_what_routing_over_the_parents_hands_on_is_its_coupling():
    assert routing.Dynamic(temperature=0.5).coefficients is None


def test_over_the_children_a_parent_is_deaf_to_what_others_hear():
    """Over the parents a child that another parent wins is lost for this one; over the children it is not."""
    votes = random_votes(1, 6, 2, 3, seed=7)
    changed = votes.clone()
    changed[:, :, 1] = 5.0  # now all agree on parent 1
    for over, same in {"children": True, "parents": False}.items():
        before, after = (routing.dynamic(v, combine_with(), over=over)[..., 0] for v in (votes, changed))
        assert torch.allclose(before, after) == same
    with pytest.raises(ValueError, match="leaky = True: a place for nobody"):
        routing.Dynamic(over="children", leaky=True)


def test_agreeing_votes_sharpen_with_each_iteration():
    votes = torch.zeros(1, 6, 3, 2, dtype=DOUBLE)
    votes[:, :, 0, 0] = 1  # all agree on parent 0; for the parents 1 and 2 they cancel in pairs
    votes[:, ::2, 1:, 1], votes[:, 1::2, 1:, 1] = 1, -1
    heard = [routing.dynamic(votes, combine_with(), iterations=t)[0, 0, 0].item() for t in range(1, 8)]
    assert heard[0] == 1 / 3
    assert all(later > earlier + 1e-3 for earlier, later in pairwise(heard))
    assert heard[-1] > 0.95


@pytest.mark.parametrize("parents", [1, 2, 3, 7, 10])
def test_one_iteration_is_exactly_the_uniform_start(parents):
    votes = random_votes(2, 4, parents, 3)
    expected = torch.full((2, 4, parents), 1 / parents, dtype=DOUBLE)
    assert torch.equal(routing.dynamic(votes, combine_with(), iterations=1), expected)
    assert torch.equal(routing.uniform(votes, combine_with()), expected)


def test_one_iteration_is_the_prior_alone():
    prior = random_votes(4, 3, seed=5)
    coupling = routing.dynamic(random_votes(2, 4, 3, 2), combine_with(), iterations=1, prior=prior, temperature=2.0)
    assert_close(coupling, (prior / 2).softmax(-1).expand(2, 4, 3))


@pytest.mark.parametrize(("value", "number"), [("1/J", 1 / 3), ("1/I", 1 / 5), ("1", 1.0)])
def test_uniform_coupling_has_the_value_it_names(value, number):
    votes = random_votes(2, 5, 3, 4)
    for coupling in (routing.uniform(votes, value=value), routing.Uniform(value=value)(votes, combine_with())):
        assert torch.equal(coupling, torch.full((2, 5, 3), number, dtype=DOUBLE))


def test_a_smaller_number_of_iterations_shows_the_earlier_coupling():
    votes, seen = random_votes(2, 5, 3, 4), []

    def spying(coupling, heard):
        seen.append(coupling.clone())
        return combine_with()(coupling, heard)

    last = routing.dynamic(votes, spying, iterations=4, rate=0.8)
    assert len(seen) == 3  # the fourth weighted sum is the layer's own
    for step, coupling in enumerate([*seen, last], start=1):
        assert_close(routing.dynamic(votes, combine_with(), iterations=step, rate=0.8), coupling)


# ---------------------------------------------------------------- symmetry


def test_images_of_a_batch_do_not_hear_each_other():
    votes = random_votes(4, 5, 3, 4)
    alone = torch.cat([routing.dynamic(one[None], combine_with()) for one in votes])
    assert_close(routing.dynamic(votes, combine_with()), alone)


def test_the_order_of_children_and_parents_does_not_matter():
    votes, prior = random_votes(2, 5, 4, 3), random_votes(5, 4, seed=9)
    children, parents = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([2, 3, 1, 0])
    coupling = routing.dynamic(votes, combine_with(), prior=prior)
    moved = routing.dynamic(votes[:, children][:, :, parents], combine_with(), prior=prior[children][:, parents])
    assert_close(moved, coupling[:, children][:, :, parents])


def test_routing_does_not_change_its_arguments():
    votes, prior = random_votes(2, 5, 4, 3), random_votes(5, 4)
    before = votes.clone(), prior.clone()
    routing.dynamic(votes, combine_with(), prior=prior, rate=0.5)
    assert torch.equal(votes, before[0]) and torch.equal(prior, before[1])


# ---------------------------------------------------------------- gradients


def gradients(output, *inputs):
    weights = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).reshape(output.shape)
    return torch.autograd.grad((output * weights).sum(), inputs)


@pytest.mark.parametrize("rate", [1.0, 0.4])
@pytest.mark.parametrize("iterations", [1, 2, 3, 4])
def test_gradient_all_goes_through_every_iteration(iterations, rate):
    votes, prior = random_votes(1, 4, 3, 2).requires_grad_(), random_votes(4, 3, seed=1).requires_grad_()
    options = {"prior": prior, "rate": rate, "temperature": 0.8}
    combine = combine_with()
    fast = combine(routing.dynamic(votes, combine, iterations=iterations, gradient="all", **options), votes)
    slow = reference.weighted_sum(reference.procedure_1(votes, iterations, **options), votes)
    for ours, theirs in zip(gradients(fast, votes, prior), gradients(slow, votes, prior), strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("iterations", [1, 2, 3, 4])
def test_gradient_last_takes_the_coupling_as_a_constant(iterations):
    votes, combine = random_votes(2, 4, 3, 2).requires_grad_(), combine_with()
    coupling = routing.dynamic(votes, combine, iterations=iterations, gradient="last")
    assert not coupling.requires_grad
    with torch.no_grad():
        constant = reference.procedure_1(votes, iterations)
    assert_close(coupling, constant)
    (ours,) = gradients(combine(coupling, votes), votes)
    (theirs,) = gradients(reference.weighted_sum(constant, votes), votes)
    assert_close(ours, theirs)
    (through,) = gradients(combine(routing.dynamic(votes, combine, iterations=iterations), votes), votes)
    assert torch.allclose(ours, through) == (iterations == 1)  # the two settings differ as soon as there is routing


@pytest.mark.parametrize("rate", [1.0, 0.4])
@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_gradient_last_leaves_a_learned_prior_its_gradient(iterations, rate):
    votes, prior = random_votes(1, 4, 3, 2).requires_grad_(), random_votes(4, 3, seed=1).requires_grad_()
    combine, options = combine_with(), {"prior": prior, "rate": rate}
    fast = routing.dynamic(votes, combine, iterations=iterations, gradient="last", **options)
    slow = reference.procedure_1(votes, iterations, constant_agreement=True, **options)
    assert_close(gradients(combine(fast, votes), votes, prior), gradients(combine(slow, votes), votes, prior))


@pytest.mark.parametrize("squash", ["sabour", "exponential", "none"])
def test_gradcheck(squash):
    votes, prior = random_votes(1, 3, 2, 2).requires_grad_(), random_votes(3, 2, seed=1).requires_grad_()
    bias = random_votes(2, 2, seed=2).requires_grad_()

    def poses(votes, prior, bias):
        combine = combine_with(squash, bias)
        return combine(routing.dynamic(votes, combine, prior=prior, temperature=0.9, rate=0.7), votes)

    assert torch.autograd.gradcheck(poses, (votes, prior, bias))


def test_routing_keeps_the_gradient_mode_it_found():
    votes = random_votes(1, 3, 2, 2).requires_grad_()
    with torch.no_grad():
        for gradient in ("all", "last", "detached"):
            assert not routing.dynamic(votes, combine_with(), gradient=gradient).requires_grad
            assert not torch.is_grad_enabled()
    routing.dynamic(votes, combine_with(), gradient="last")
    assert torch.is_grad_enabled()
    assert routing.dynamic(votes, combine_with()).requires_grad


# ---------------------------------------------------------------- numbers at the edge


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1.0, 1e3])
@pytest.mark.parametrize("squash", ["sabour", "exponential"])
def test_finite_values_and_gradients_at_any_size(size, dtype, squash):
    votes = (random_votes(2, 6, 4, 3) * size).to(dtype).requires_grad_()
    combine = combine_with(squash)
    coupling = routing.dynamic(votes, combine, iterations=4)
    poses = combine(coupling, votes)
    poses.float().square().sum().backward()
    assert coupling.isfinite().all() and poses.isfinite().all() and votes.grad.isfinite().all()
    tolerance = 2e-2 if dtype is torch.bfloat16 else 1e-5
    assert_close(coupling.sum(-1), torch.ones_like(coupling.sum(-1)), rtol=0, atol=tolerance)


def test_autocast_keeps_a_distribution_and_finite_gradients():
    votes = random_votes(2, 6, 4, 3).float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coupling = routing.dynamic(votes, combine_with(), iterations=3)
        combine_with()(coupling, votes).float().square().sum().backward()
    exact = routing.dynamic(votes.detach().double(), combine_with(), iterations=3)
    assert votes.grad.isfinite().all()
    assert_close(coupling.double(), exact, rtol=0, atol=3e-2)
    assert_close(coupling.float().sum(-1), torch.ones(2, 6), rtol=0, atol=1e-2)


# ---------------------------------------------------------------- configurations and errors

CHANGED = {
    routing.Dynamic: {
        "iterations": 2, "temperature": 0.5, "rate": 0.5, "learned_prior": True, "gradient": "last", "leaky": True,
        "over": "children",
    },
    routing.Uniform: {"value": "1/I"},
    routing.Attention: {"iterations": 2, "over": "children"},
}  # fmt: skip


@pytest.mark.parametrize("config", [routing.Dynamic(), routing.Dynamic(iterations=2, temperature=2.0, rate=0.5)])
def test_a_config_calls_its_function(config):
    votes, prior = random_votes(2, 5, 3, 4), random_votes(5, 3)
    options = {"iterations": config.iterations, "temperature": config.temperature, "rate": config.rate}
    assert_close(config(votes, combine_with(), prior), routing.dynamic(votes, combine_with(), prior=prior, **options))
    assert_close(config(votes, combine_with()), routing.dynamic(votes, combine_with(), **options))


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in CHANGED for name in CHANGED[kind]])
def test_every_field_of_a_config_matters(kind, name):
    assert set(CHANGED[kind]) == {field.name for field in fields(kind)}, "a new field needs a changed value here"
    if name == "learned_prior":
        return  # it decides a parameter of the layer: tests/test_layers.py
    before, after = kind(), replace(kind(), **{name: CHANGED[kind][name]})
    votes = random_votes(2, 5, 3, 4).requires_grad_()
    first, second = before(votes, combine_with()), after(votes, combine_with())
    assert not torch.allclose(first, second) or first.requires_grad != second.requires_grad


BAD = [
    {"iterations": 0},
    {"iterations": -1},
    {"iterations": 1.5},
    {"iterations": math.inf},
    {"temperature": 0.0},
    {"temperature": -1.0},
    {"temperature": math.nan},
    {"rate": 0.0},
    {"rate": 1.01},
    {"rate": -0.5},
    {"rate": math.nan},
    {"gradient": "some"},
    {"over": "classes"},
]


def one_sentence(error):
    text = str(error.value)
    return 10 < len(text) < 300 and "\n" not in text


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_a_value_out_of_range_is_named(bad):
    (name, value), votes = *bad.items(), random_votes(1, 3, 2, 2)
    for call in (lambda: routing.dynamic(votes, combine_with(), **bad), lambda: routing.Dynamic(**bad)):
        with pytest.raises(ValueError, match=name) as error:
            call()
        assert one_sentence(error) and str(value) in str(error.value)


def test_a_whole_float_of_iterations_is_taken_or_named():
    votes = random_votes(1, 3, 2, 2)
    try:
        coupling = routing.dynamic(votes, combine_with(), iterations=2.0)
    except ValueError as error:
        assert "iterations" in str(error)
    else:
        assert torch.equal(coupling, routing.dynamic(votes, combine_with(), iterations=2))


@pytest.mark.parametrize("shape", [(2, 3), (3,), (1, 3, 2), (3, 1), (4, 2)])
def test_a_prior_of_wrong_shape_is_named(shape):
    with pytest.raises(ValueError, match="prior") as error:
        routing.dynamic(random_votes(1, 3, 2, 2), combine_with(), prior=torch.zeros(shape, dtype=DOUBLE))
    assert one_sentence(error) and str(shape) in str(error.value)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (1, 2, 3, 4, 5)])
@pytest.mark.parametrize("route", [lambda v: routing.dynamic(v, combine_with()), routing.uniform])
def test_votes_of_wrong_shape_are_named(route, shape):
    with pytest.raises(ValueError, match="votes") as error:
        route(torch.zeros(shape))
    assert one_sentence(error)


@pytest.mark.parametrize("call", [lambda v: routing.uniform(v, value="1/K"), lambda v: routing.Uniform(value="1/K")])
def test_an_unknown_uniform_value_lists_the_known(call):
    with pytest.raises(ValueError, match="1/K") as error:
        call(random_votes(1, 3, 2, 2))
    assert one_sentence(error) and "1/J" in str(error.value) and "1/I" in str(error.value)
