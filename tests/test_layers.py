import math
from itertools import product

import pytest
import reference
import torch
from torch.testing import assert_close

from capsnb.nn import layers, taps
from capsnb.nn.layers import Decoder, PrimaryCapsules, RoutedCapsules
from capsnb.nn.routing import Attention, Dynamic, SelfAttention, Uniform

DOUBLE = torch.float64


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- squash


@pytest.mark.parametrize("name", ["sabour", "exponential", "none"])
def test_squash_follows_the_paper(name):
    totals = random(3, 4, 5) * 3
    expected = torch.stack([reference.SQUASHES[name](s) for s in totals.flatten(0, 1)]).reshape(totals.shape)
    assert_close(layers.SQUASHES[name](totals), expected)


@pytest.mark.parametrize("n", [1e-12, 1e-9, 1e-7, 9e-7, 1e-6, 1e-3, 0.5, 1.0, 3.0, 30.0, 1e3, 1e6])
def test_squashed_lengths_are_exact_at_every_size(n):
    total = torch.tensor([0.6, -0.8], dtype=DOUBLE) * n  # of length n
    for squash, length in ((layers.squash, n * n / (1 + n * n)), (layers.squash_exponential, -math.expm1(-n))):
        expected = torch.tensor([0.6, -0.8], dtype=DOUBLE) * length
        assert_close(squash(total), expected, rtol=1e-12, atol=0)


def test_squash_by_hand():
    assert_close(layers.squash(torch.tensor([3.0, 4.0])), torch.tensor([0.6, 0.8]) * 25 / 26)
    assert_close(layers.squash_exponential(torch.tensor([3.0, 4.0])), torch.tensor([0.6, 0.8]) * (1 - math.exp(-5)))


@pytest.mark.parametrize(("name", "at_zero"), [("sabour", 0.0), ("exponential", 1.0), ("none", 1.0)])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE, torch.bfloat16])
def test_the_derivative_at_exactly_zero(name, at_zero, dtype):
    zero = torch.zeros(4, dtype=dtype)
    jacobian = torch.autograd.functional.jacobian(layers.SQUASHES[name], zero)
    assert torch.equal(layers.SQUASHES[name](zero), zero)
    assert torch.equal(jacobian, at_zero * torch.eye(4, dtype=dtype))


@pytest.mark.parametrize("name", ["sabour", "exponential"])
@pytest.mark.parametrize("n", [1e-8, 1e-6, 1e-5, 1e-3, 0.3, 2.0, 20.0])
def test_the_derivative_elsewhere_is_that_of_finite_differences(name, n):
    squash, total = layers.SQUASHES[name], torch.tensor([0.6, -0.8, 0.0], dtype=DOUBLE) * n
    jacobian = torch.autograd.functional.jacobian(squash, total)
    step = 1e-4 * n
    noise = 1e-11 * (min(n, 1) if name == "sabour" else 1)  # rounding of the differences, over the step
    columns = [(squash(total + step * e) - squash(total - step * e)) / (2 * step) for e in torch.eye(3, dtype=DOUBLE)]
    assert_close(jacobian, torch.stack(columns, dim=1), rtol=1e-6, atol=noise)


@pytest.mark.parametrize("name", ["sabour", "exponential"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n", [1e-38, 1e-30, 1e-20, 1e-10, 1.0, 1e10, 1e15])
def test_squash_is_finite_from_the_smallest_to_the_largest_number(name, dtype, n):
    total = torch.full((5,), n, dtype=dtype, requires_grad=True)
    squashed = layers.SQUASHES[name](total)
    squashed.sum().backward()
    assert squashed.isfinite().all() and total.grad.isfinite().all()
    assert squashed.norm() <= 1.01
    if n >= 1e10:
        assert squashed.norm() > 0.98


def test_length_has_a_finite_gradient_at_zero():
    poses = torch.zeros(2, 3, 4, requires_grad=True)
    layers.length(poses).sum().backward()
    assert torch.equal(poses.grad, torch.zeros(2, 3, 4))
    assert_close(layers.length(torch.tensor([[3.0, 4.0]])), torch.tensor([5.0]))


def test_an_unknown_squash_lists_the_known():
    for make in (
        lambda: RoutedCapsules(3, 2, 2, 2, routing=Dynamic(), squash="soft"),
        lambda: PrimaryCapsules(1, 5, types=1, dim=2, kernel=3, squash="soft"),
    ):
        with pytest.raises(ValueError, match="soft") as error:
            make()
        assert "sabour" in str(error.value) and "exponential" in str(error.value) and "\n" not in str(error.value)


# ---------------------------------------------------------------- primary capsules


@pytest.mark.parametrize("squash", ["sabour", "exponential", "none"])
@pytest.mark.parametrize(("size", "kernel", "stride"), [(7, 3, 2), (6, 3, 2), (5, 2, 1)])
def test_primary_capsules_follow_the_loops(size, kernel, stride, squash):
    layer = PrimaryCapsules(2, size, types=3, dim=2, kernel=kernel, stride=stride, squash=squash).double()
    maps = random(2, 2, size, size)
    features = reference.convolution(maps, layer.conv.weight, layer.conv.bias, stride)
    expected = reference.primary(features, types=3, dim=2, squash=reference.SQUASHES[squash])
    assert_close(layer(maps), expected)


def test_a_primary_capsule_is_one_place_and_one_type():
    layer = PrimaryCapsules(1, 5, types=3, dim=4, kernel=3, stride=2, squash="none").double()
    channels = torch.arange(12, dtype=DOUBLE)
    with torch.no_grad():
        layer.conv.weight.zero_()
        layer.conv.weight[:, 0, 0, 0] = 1  # each channel passes on the pixel it stands on
        layer.conv.bias.copy_(100 * channels)
    image = torch.arange(25, dtype=DOUBLE).reshape(1, 1, 5, 5)
    poses = layer(image)
    height, width, types = layer.grid
    assert (height, width, types) == (2, 2, 3) and poses.shape == (1, 12, 4)
    for y, x, kind, component in product(range(2), range(2), range(3), range(4)):
        value = image[0, 0, 2 * y, 2 * x] + 100 * (kind * 4 + component)
        assert poses[0, (y * width + x) * types + kind, component] == value


def test_a_map_smaller_than_the_kernel_is_named():
    with pytest.raises(ValueError, match="9") as error:
        PrimaryCapsules(1, 8)
    assert "8" in str(error.value) and "\n" not in str(error.value)


# ---------------------------------------------------------------- routed capsules


def slow(layer, poses, squash="sabour", **options):
    """Votes, coupling and poses of a layer by the reference."""
    votes = reference.votes(poses, layer.weight)
    options = {"squash": reference.SQUASHES[squash], "bias": layer.bias} | options
    coupling = reference.procedure_1(votes, prior=layer.prior, **options)
    return votes, coupling, reference.weighted_sum(coupling, votes, options["squash"], layer.bias)


@pytest.mark.parametrize("iterations", [1, 2, 3, 4])
@pytest.mark.parametrize(("shared", "bias", "prior", "squash"), [
    (False, None, False, "sabour"), (True, None, False, "sabour"), (False, 0.1, True, "exponential"),
    (True, 0.1, True, "none"),
])  # fmt: skip
def test_a_routed_layer_follows_the_loops(iterations, shared, bias, prior, squash):
    routing = Dynamic(iterations=iterations, temperature=0.8, rate=0.7, learned_prior=prior)
    layer = RoutedCapsules(5, 3, 4, 2, routing=routing, shared=shared, squash=squash, bias=bias).double()
    with torch.no_grad():
        for parameter in (layer.bias, layer.prior):
            if parameter is not None:
                parameter.add_(random(*parameter.shape, seed=3))
        poses = random(2, 5, 3, seed=4)
        with taps.record(layer, "votes", "coupling", "poses") as seen:
            out = layer(poses)
        expected = slow(layer, poses, squash, iterations=iterations, temperature=0.8, rate=0.7)
    for name, value in zip(("votes", "coupling", "poses"), expected, strict=True):
        assert_close(seen[name], value)
    assert_close(out, expected[2])


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("value", ["1/J", "1/I", "1"])
@pytest.mark.parametrize("bias", [None, 0.1])
def test_the_uniform_layer_watched_or_not_is_a_linear_map(value, shared, bias):
    layer = RoutedCapsules(5, 3, 4, 2, routing=Uniform(value=value), shared=shared, bias=bias).double()
    poses = random(2, 5, 3)
    constant = torch.full((2, 5, 4), {"1/J": 1 / 4, "1/I": 1 / 5, "1": 1.0}[value], dtype=DOUBLE)
    with torch.no_grad():
        expected = reference.weighted_sum(constant, reference.votes(poses, layer.weight), bias=layer.bias)
        assert_close(layer(poses), expected)
        with taps.record(layer, "votes", "coupling") as seen:
            assert_close(layer(poses), expected)
    assert_close(seen["coupling"], constant)
    assert seen["votes"].shape == (2, 5, 4, 2)


def test_the_uniform_layer_has_one_gradient_watched_or_not():
    layer, poses = RoutedCapsules(5, 3, 4, 2, routing=Uniform()).double(), random(2, 5, 3).requires_grad_()
    quick = torch.autograd.grad(layer(poses).square().sum(), (poses, layer.weight))
    with taps.record(layer, "coupling"):
        watched = torch.autograd.grad(layer(poses).square().sum(), (poses, layer.weight))
    assert_close(quick, watched)


@pytest.mark.parametrize("iterations", [1, 3])
def test_gradient_last_of_a_layer_is_the_one_built_by_hand(iterations):
    layer = RoutedCapsules(5, 3, 4, 2, routing=Dynamic(iterations=iterations, gradient="last"), bias=0.1).double()
    poses = random(2, 5, 3).requires_grad_()
    inputs = (poses, layer.weight, layer.bias)
    ours = torch.autograd.grad(layer(poses).square().sum(), inputs)
    with torch.no_grad():
        _, constant, _ = slow(layer, poses, iterations=iterations)
    votes = torch.einsum("bip,ipjd->bijd", poses, layer.weight)
    total = torch.einsum("bij,bijd->bjd", constant, votes) + layer.bias
    n = total.norm(dim=-1, keepdim=True)
    theirs = torch.autograd.grad((n / (1 + n**2) * total).square().sum(), inputs)
    assert_close(ours, theirs)


@pytest.mark.parametrize("fast", ["1", "0"])
@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_gradient_detached_of_a_layer_leaves_the_bias_its_way_through_the_routing(iterations, fast, monkeypatch):
    monkeypatch.setenv("CAPSNB_FAST", fast)
    layer = RoutedCapsules(5, 3, 4, 2, routing=Dynamic(iterations=iterations, gradient="detached"), bias=0.1).double()
    poses = random(2, 5, 3).requires_grad_()
    inputs = (poses, layer.weight, layer.bias)
    ours = torch.autograd.grad(layer(poses).square().sum(), inputs)

    def squashed(coupling, votes):
        total = torch.einsum("bij,bijd->bjd", coupling, votes) + layer.bias
        n = total.norm(dim=-1, keepdim=True)
        return n / (1 + n**2) * total

    votes = torch.einsum("bip,ipjd->bijd", poses, layer.weight)
    logits = torch.zeros(2, 5, 4, dtype=torch.float64)
    for _ in range(iterations - 1):
        held = squashed(logits.softmax(-1), votes.detach())
        logits = logits + torch.einsum("bijd,bjd->bij", votes.detach(), held)
    theirs = torch.autograd.grad(squashed(logits.softmax(-1), votes).square().sum(), inputs)
    assert_close(ours, theirs)
    layer.routing = Dynamic(iterations=iterations, gradient="last")
    constant = torch.autograd.grad(layer(poses).square().sum(), inputs)
    assert_close(ours[:2], constant[:2])
    assert torch.allclose(ours[2], constant[2]) == (iterations == 1)


@pytest.mark.parametrize("squash", ["sabour", "exponential"])
def test_gradcheck_of_a_layer(squash):
    layer = RoutedCapsules(3, 2, 2, 2, routing=Dynamic(learned_prior=True), bias=0.1, squash=squash).double()
    names, values = zip(*layer.named_parameters(), strict=True)

    def call(poses, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (poses,))

    leaves = [value.detach().clone().requires_grad_() for value in values]
    assert set(names) == {"weight", "bias", "prior"}
    assert torch.autograd.gradcheck(call, (random(2, 3, 2).requires_grad_(), *leaves))


@pytest.mark.parametrize("routing", [Dynamic(), Dynamic(gradient="last"), Uniform(), Dynamic(learned_prior=True)])
@pytest.mark.parametrize("squash", ["sabour", "exponential", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_is_finite_at_zero_poses(routing, squash, dtype):
    layer = RoutedCapsules(6, 3, 4, 2, routing=routing, squash=squash).to(dtype)
    poses = torch.zeros(2, 6, 3, dtype=dtype, requires_grad=True)
    out = layer(poses)
    layers.length(out).sum().backward()
    assert torch.equal(out, torch.zeros_like(out))
    gradients = [poses.grad, *(parameter.grad for parameter in layer.parameters() if parameter.grad is not None)]
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_routing_under_autocast_is_that_of_float32(size):
    layer = RoutedCapsules(20, 8, 10, 16, routing=Dynamic())
    poses = (random(4, 20, 8) * size).float().requires_grad_()
    exact = layer(poses)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(poses)
        from_half = layer(poses.bfloat16())
    (gradient,) = torch.autograd.grad(out.sum() + from_half.sum(), poses)
    assert out.dtype == from_half.dtype == torch.float32 and gradient.isfinite().all()
    assert_close(out, exact)  # half-precision lengths would saturate and flip the longest capsule
    if size < 10:  # larger logits amplify what rounding the poses themselves lost
        assert_close(from_half, exact, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("size", [1.0, 1e3])
@pytest.mark.parametrize("squash", ["sabour", "exponential"])
def test_a_layer_is_finite_at_large_votes_and_in_bfloat16(size, squash):
    for dtype in (torch.float32, torch.bfloat16):
        layer = RoutedCapsules(20, 8, 10, 16, routing=Dynamic(), squash=squash, bias=0.1).to(dtype)
        poses = (random(4, 20, 8) * size).to(dtype).requires_grad_()
        layers.length(layer(poses)).sum().backward()
        assert poses.grad.isfinite().all() and layer.weight.grad.isfinite().all() and layer.bias.grad.isfinite().all()


def test_parameters_are_those_of_the_paper():
    def count(**options):
        layer = RoutedCapsules(6, 4, 3, 5, **({"routing": Dynamic()} | options))
        return {name: tuple(parameter.shape) for name, parameter in layer.named_parameters()}

    assert count() == {"weight": (6, 4, 3, 5)}
    assert count(shared=True) == {"weight": (1, 4, 3, 5)}
    assert count(bias=0.1) == {"weight": (6, 4, 3, 5), "bias": (3, 5)}
    assert count(routing=Dynamic(learned_prior=True)) == {"weight": (6, 4, 3, 5), "prior": (6, 3)}
    assert count(routing=Uniform()) == {"weight": (6, 4, 3, 5)}


def test_bias_and_prior_start_where_they_say():
    layer = RoutedCapsules(6, 4, 3, 5, routing=Dynamic(learned_prior=True), bias=0.1)
    assert_close(layer.bias.detach(), torch.full((3, 5), 0.1))
    assert torch.equal(layer.prior.detach(), torch.zeros(6, 3))


@pytest.mark.parametrize(("children", "parents", "routing", "shared"), [
    (1152, 10, Dynamic(), False), (16, 16, Dynamic(), False), (50, 10, Uniform(value="1/I"), False),
    (50, 10, Uniform(value="1"), False), (400, 10, Uniform(), False),
])  # fmt: skip
def test_vote_sum_start_keeps_the_size_of_the_sum(children, parents, routing, shared):
    torch.manual_seed(0)
    layer = RoutedCapsules(
        children, 8, parents, 16, routing=routing, shared=shared, squash="none", init_scale=0.5
    )  # fmt: skip
    poses = torch.randn(64, children, 8)
    first = Dynamic(iterations=1) if isinstance(routing, Dynamic) else routing  # before any agreement
    with torch.no_grad():
        votes = layer.vote(poses)
        total = layer.combine(first(votes, layer.combine), votes)
    assert abs(total.std().item() / 0.5 - 1) < 0.2


def test_the_start_rules_by_name():
    torch.manual_seed(0)
    normal = RoutedCapsules(400, 8, 10, 16, routing=Dynamic(), init="normal").weight
    uniform = RoutedCapsules(400, 8, 10, 16, routing=Dynamic(), init="uniform").weight
    assert abs(normal.std().item() - 0.1) < 0.002
    assert uniform.abs().max() <= 0.05 and abs(uniform.std().item() - 0.05 / math.sqrt(3)) < 0.001
    with pytest.raises(ValueError, match="xavier") as error:
        RoutedCapsules(4, 8, 10, 16, routing=Dynamic(), init="xavier")
    assert "vote-sum" in str(error.value)


@pytest.mark.parametrize("shape", [(2, 5, 4), (2, 6, 3), (5, 3), (2, 1, 5, 3)])
def test_poses_of_another_shape_are_named(shape):
    layer = RoutedCapsules(5, 3, 4, 2, routing=Dynamic())
    with pytest.raises(ValueError, match="poses") as error:
        layer(torch.zeros(shape))
    assert str(shape) in str(error.value) and "\n" not in str(error.value)


def test_the_order_of_children_and_parents_does_not_matter():
    layer, moved = (RoutedCapsules(5, 3, 4, 2, routing=Dynamic()).double() for _ in range(2))
    children, parents = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([2, 3, 1, 0])
    poses = random(2, 5, 3)
    with torch.no_grad():
        moved.weight.copy_(layer.weight[children][:, :, parents])
        assert_close(moved(poses[:, children]), layer(poses)[:, parents])


# ---------------------------------------------------------------- removing units


@pytest.mark.parametrize("mask", [[True, False, True, True, False], [[True, False, True, True, False], [False] * 5]])
def test_a_removed_child_casts_no_vote(mask):
    layer = RoutedCapsules(5, 3, 4, 2, routing=Dynamic()).double()
    poses, mask = random(2, 5, 3), torch.tensor(mask)
    keep = taps.keep(mask)(poses)
    rows = mask.expand(2, 5)
    assert torch.equal(keep[rows], poses[rows]) and (keep[~rows] == 0).all()
    with torch.no_grad(), taps.record(layer, "votes") as seen:
        out = layer(keep)
    assert (seen["votes"][~rows] == 0).all()
    left = [
        RoutedCapsules(int(row.sum()), 3, 4, 2, routing=Dynamic()).double() if row.any() else None for row in rows
    ]  # fmt: skip
    for n, (alone, row) in enumerate(zip(left, rows, strict=True)):
        if alone is None:
            assert torch.equal(out[n], torch.zeros(4, 2, dtype=DOUBLE))
            continue
        with torch.no_grad():
            alone.weight.copy_(layer.weight[row])
            assert_close(out[n], alone(poses[n : n + 1, row])[0])


def test_keep_of_a_layer_leaves_only_those_parents():
    layer, poses = RoutedCapsules(5, 3, 4, 2, routing=Dynamic()).double(), random(2, 5, 3)
    mask = torch.tensor([True, False, False, True])
    before = layer(poses)
    with layer.keep(mask):
        inside = layer(poses)
    assert torch.equal(inside[:, mask], before[:, mask]) and (inside[:, ~mask] == 0).all()
    assert torch.equal(layer(poses), before)


@pytest.mark.parametrize("mask", [torch.ones(4), torch.ones(2, 6), torch.ones(1, 2, 5), torch.tensor(1.0)])
def test_a_mask_of_another_shape_is_named(mask):
    with pytest.raises(ValueError, match="mask") as error:
        taps.keep(mask)(torch.zeros(2, 5, 3))
    assert "\n" not in str(error.value)


def test_a_mask_for_another_batch_is_named():
    with pytest.raises(ValueError, match="mask"):
        taps.keep(torch.ones(3, 5))(torch.zeros(2, 5, 3))


ROUTINGS = [
    Dynamic(), Dynamic(temperature=0.5, rate=0.4, leaky=True), Attention(), Attention(over="children"),
    SelfAttention(learned_prior=False), Uniform(), Uniform(value="1"), Uniform(value="1/I"),
]  # fmt: skip


@pytest.mark.parametrize("routing", ROUTINGS, ids=str)
@pytest.mark.parametrize("bias", [None, 0.1])
def test_a_routing_declares_truly_whether_silent_children_are_as_if_absent(routing, bias):
    layer = RoutedCapsules(5, 3, 4, 2, routing=routing, bias=bias).double()
    poses, spoken = random(5, 3), torch.arange(5)
    with torch.no_grad():
        together = layer(torch.diag_embed(poses.T).permute(1, 2, 0))  # child b alone speaks in row b
        alone = layer.route_one(poses, spoken)
    assert torch.allclose(together, alone) == layer.can_route_one == routing.silent_is_absent


def test_a_layer_of_which_one_child_does_not_tell_all_says_so():
    def can(**options):
        return RoutedCapsules(4, 3, 4, 3, **({"routing": Dynamic()} | options)).can_route_one

    assert can()
    assert not can(residual=True) and not can(shared=True) and not can(routing=Dynamic(learned_prior=True))
    assert not can(routing=lambda votes, combine: votes.norm(dim=-1).softmax(-1))  # it does not say


# ---------------------------------------------------------------- decoder


def slow_decoder(decoder, seen):
    *inner, last = decoder.linears
    for linear in inner:
        seen = reference.dense(seen, linear.weight, linear.bias, "relu")
    return reference.dense(seen, last.weight, last.bias, "sigmoid").reshape(len(seen), *decoder.image_shape)


def test_the_decoder_is_masked_by_the_label_when_given():
    decoder, poses = Decoder(4, 3, (2, 5, 5), widths=(7, 6)).double(), random(3, 4, 3)
    labels = torch.tensor([2, 0, 3])
    expected = slow_decoder(decoder, reference.masked(poses, labels.tolist()))
    with torch.no_grad():
        rebuilt = decoder(poses, labels)
    assert_close(rebuilt, expected)
    assert rebuilt.shape == (3, 2, 5, 5) and (rebuilt > 0).all() and (rebuilt < 1).all()


def test_the_decoder_is_masked_by_the_longest_capsule_otherwise():
    decoder, poses = Decoder(4, 3, (1, 5, 5), widths=(7, 6)).double(), random(3, 4, 3)
    longest = reference.longest(poses)
    assert longest != poses.sum(-1).argmax(1).tolist()  # the test can tell length from sum
    with torch.no_grad():
        assert_close(decoder(poses), slow_decoder(decoder, reference.masked(poses, longest)))
        assert_close(decoder(poses), decoder(poses, torch.tensor(longest)))


def test_the_masked_capsules_get_no_gradient():
    decoder, poses = Decoder(4, 3, (1, 5, 5), widths=(7,)).double(), random(2, 4, 3).requires_grad_()
    decoder(poses, torch.tensor([1, 3])).sum().backward()
    reached = poses.grad.abs().sum(-1) > 0
    assert reached.tolist() == [[False, True, False, False], [False, False, False, True]]


def test_two_labels_give_one_picture_each():
    decoder, poses = Decoder(4, 3, (1, 5, 5), widths=(7,)).double(), random(2, 4, 3)
    labels = torch.tensor([[1, 3], [2, 0]])
    both = decoder(poses, labels)
    assert both.shape == (2, 2, 1, 5, 5)
    for m in range(2):
        assert_close(both[:, m], decoder(poses, labels[:, m]))


def test_the_plain_decoder_sees_all_capsules():
    decoder, poses = Decoder(4, 3, (1, 5, 5), kind="plain", widths=(7,)).double(), random(2, 4, 3)
    with torch.no_grad():
        expected = slow_decoder(decoder, poses.flatten(1))
        assert_close(decoder(poses), expected)
        assert_close(decoder(poses, torch.tensor([0, 1])), expected)


def test_sabours_decoder_has_1_411_344_parameters():
    with torch.device("meta"):
        decoder = Decoder(10, 16, (1, 28, 28))
    # 160 -> 512 -> 1024 -> 784, weights and biases
    assert sum(p.numel() for p in decoder.parameters()) == 160 * 512 + 512 + 512 * 1024 + 1024 + 1024 * 784 + 784
    assert 160 * 512 + 512 + 512 * 1024 + 1024 + 1024 * 784 + 784 == 1_411_344


def test_an_unknown_decoder_lists_the_known():
    with pytest.raises(ValueError, match="upside") as error:
        Decoder(4, 3, (1, 5, 5), kind="upside")
    assert "conditional" in str(error.value) and "plain" in str(error.value)
