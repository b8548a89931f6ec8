"""EM routing against loops written from Hinton, Sabour & Frosst 2018, and each of its known pitfalls."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from capsnb.nn import em
from capsnb.nn.em import EM, TINY, Windows, couple, m_step, moments, windows

DOUBLE = torch.float64


def reference(votes, activations, child, beta_u, beta_a, config):
    """The published procedure with one loop per index and plain probabilities, lists of float64 scalars.

    votes[b][l][n][c][h]; returns coupling, poses and activations as nested lists. Nothing here is in logarithms.
    """
    images, positions, places, types, size = votes.shape
    parents = [(at, kind) for at in range(positions) for kind in range(types)]
    of_child = {}  # child -> the places at which parents see it
    for at in range(positions):
        for place in range(places):
            of_child.setdefault(int(child[at][place]), []).append((at, place))
    results = []
    for b in range(images):
        r = {}
        for seen in of_child.values():
            for at, place in seen:
                for kind in range(types):
                    r[at, place, kind] = votes.new_tensor(1 / (len(seen) * types))
        for t in range(config.iterations):
            mean, variance, active = {}, {}, {}
            for at, kind in parents:
                weight = [r[at, n, kind] * activations[b][int(child[at][n])] for n in range(places)]
                amount = sum(weight)
                mean[at, kind] = [
                    sum(weight[n] * votes[b][at][n][kind][h] for n in range(places)) / amount for h in range(size)
                ]
                variance[at, kind] = [
                    sum(weight[n] * (votes[b][at][n][kind][h] - mean[at, kind][h]) ** 2 for n in range(places)) / amount
                    + config.floor
                    for h in range(size)
                ]
                per_parent = len(of_child) / len(parents)  # children per parent
                data = amount * 100 / per_parent
                cost = sum((beta_u[kind] + torch.sqrt(variance[at, kind][h]).log()) * data for h in range(size))
                steep = config.final * (1 - 0.95 ** (t + 1))
                active[at, kind] = 1 / (1 + torch.exp(-steep * (100 * beta_a[kind] - cost)))
            if t == config.iterations - 1:
                break
            for seen in of_child.values():
                p = {}
                for at, place in seen:
                    for kind in range(types):
                        density = 1.0
                        for h in range(size):
                            far = (votes[b][at][place][kind][h] - mean[at, kind][h]) ** 2 / variance[at, kind][h]
                            density = density * torch.exp(-far / 2) / torch.sqrt(2 * math.pi * variance[at, kind][h])
                        p[at, place, kind] = active[at, kind] * density
                for key, value in p.items():
                    r[key] = value / sum(p.values())
        results.append((r, mean, active))

    def stacked(image, name, *axes):
        found = {"r": 0, "mean": 1, "active": 2}[name]
        return image[found][axes]

    coupling = [
        [[[stacked(i, "r", at, n, c) for c in range(types)] for n in range(places)] for at in range(positions)]
        for i in results
    ]
    poses = [[[stacked(i, "mean", at, c) for c in range(types)] for at in range(positions)] for i in results]
    active = [[[stacked(i, "active", at, c) for c in range(types)] for at in range(positions)] for i in results]
    return stack(coupling), stack(poses), stack(active)


def stack(nested):
    """Nested lists of scalars -> a tensor, with its graph."""
    return torch.stack([stack(item) for item in nested]) if isinstance(nested, list) else nested


def case(height, width, types, kernel, stride, parents, *, images=2, size=3, seed=0):
    """Votes, activations, windows and betas, in float64, all of which may be differentiated."""
    seen = windows(height, width, types, kernel, stride)
    made = torch.Generator().manual_seed(seed)
    shape = (images, *seen.child.shape, parents, size)
    votes = torch.randn(shape, dtype=DOUBLE, generator=made)
    activations = torch.rand(images, height * width * types, dtype=DOUBLE, generator=made) * 0.9 + 0.05
    betas = torch.randn(2, parents, dtype=DOUBLE, generator=made)
    return [part.requires_grad_() for part in (votes, activations, *betas)], seen


def routed(votes, activations, seen, beta_u, beta_a, config=EM()):  # noqa: B008
    """Coupling, poses and activations, as `capsnb.nn.em` makes them."""
    logs = couple(votes, activations, seen, beta_u, beta_a, config)
    parents = m_step(votes, logs, activations, seen, beta_u, beta_a, config, config.iterations - 1)
    return logs.exp(), parents.poses, parents.logits.sigmoid()


GRIDS = {"convolution": (3, 3, 2, 2, 1, 3), "stride 2": (4, 5, 1, 3, 2, 2), "classes": (2, 2, 2, 2, 1, 3)}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=list(GRIDS))
@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_it_follows_the_loops(grid, iterations):
    (votes, activations, beta_u, beta_a), seen = case(*grid)
    config = EM(iterations=iterations)
    ours = routed(votes, activations, seen, beta_u, beta_a, config)
    theirs = reference(votes, activations, seen.child.tolist(), beta_u, beta_a, config)
    for mine, loop in zip(ours, theirs, strict=True):
        assert_close(mine, loop)


@pytest.mark.parametrize("grid", [GRIDS["classes"], (3, 2, 1, 2, 1, 2)], ids=["classes", "convolution"])
def test_the_gradients_are_those_of_the_loops(grid):
    leaves, seen = case(*grid, images=1, size=2)
    torch.manual_seed(0)
    pull = None
    gradients = []
    for make in (
        lambda v, a, u, b: routed(v, a, seen, u, b),
        lambda v, a, u, b: reference(v, a, seen.child, u, b, EM()),
    ):
        out = make(*leaves)
        pull = pull or [torch.randn_like(part) for part in out]
        gradients.append(torch.autograd.grad(out, leaves, pull))
    for mine, loop in zip(*gradients, strict=True):
        assert_close(mine, loop)


@pytest.mark.parametrize("distances", [True, False])
def test_the_gradient_written_by_hand_is_right(distances):
    made = torch.Generator().manual_seed(0)
    votes = torch.randn(2, 3, 5, dtype=DOUBLE, generator=made, requires_grad=True)
    share = torch.rand(2, 5, dtype=DOUBLE, generator=made, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, s: moments(v, s, 1e-2, distances), (votes, share))


def test_a_whole_layer_passes_gradcheck():
    leaves, seen = case(3, 2, 1, 2, 1, 2, images=1, size=2)
    assert torch.autograd.gradcheck(lambda v, a, u, b: routed(v, a, seen, u, b), leaves)


def test_moments_by_hand():
    votes = torch.tensor([[[0.0, 2.0, 10.0]]])  # one number, three children
    mean, variance, far = moments(votes, torch.tensor([[0.5, 0.5, 0.0]]), 0.25, True)
    assert mean.item() == 1 and variance.item() == 1.25
    assert_close(far, torch.tensor([[1, 1, 81]]) / 1.25)
    assert moments(votes, torch.tensor([[0.5, 0.5, 0.0]]), 0.25, False)[2].numel() == 0


def test_a_second_derivative_is_refused():
    votes = torch.randn(1, 2, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match="EM routing can be differentiated once only"):
        torch.autograd.grad(moments(votes, torch.full((1, 3), 1 / 3), 1e-4, True)[2].sum(), votes, create_graph=True)


# ---------------------------------------------------------------- the released code of Tawalbeh & Oramas 2024


def released(votes, activations, child, beta_u, beta_a, config):
    """Its M- and E-step as it has them, on plain probabilities: each position of parents by itself, (b, children, C).

    Only the constants of the cost are ours. Returns coupling, poses, activations.
    """
    made = []
    for at, seen in enumerate(child.tolist()):
        v, a = votes[:, at], activations[:, seen, None]  # (b, N, C, D), (b, N, 1)
        _, children, types, _ = v.shape
        r = torch.full(v.shape[:3], 1 / types, dtype=v.dtype)
        for t in range(config.iterations):
            heard = r * a
            heard = heard / (heard.sum(2, keepdim=True) + 1e-8)
            amount = heard.sum(1)  # (b, C)
            share = (heard / amount.unsqueeze(1)).unsqueeze(-1)
            mean = (share * v).sum(1, keepdim=True)
            variance = (share * (v - mean) ** 2).sum(1) + config.floor
            cost = (beta_u[:, None] + variance.sqrt().log()).sum(-1) * amount * types / children
            active = (em.DATA * config.inverse_temperature(t) * (beta_a - cost)).sigmoid()
            if t < config.iterations - 1:
                far = (v - mean) ** 2 / (2 * variance.unsqueeze(1)) + 0.5 * variance.log().unsqueeze(1)
                r = (active.log().unsqueeze(1) - far.sum(-1)).softmax(2)
        made.append((r, mean.squeeze(1), active))
    return [torch.stack(part, 1) for part in zip(*made, strict=True)]


RELEASED = EM(rivals="position", cancels=True)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=list(GRIDS))
@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_the_released_variant_follows_its_loops(grid, iterations):
    leaves, seen = case(*grid)
    config = EM(iterations=iterations, rivals="position", cancels=True)
    ours = routed(*leaves[:2], seen, *leaves[2:], config)
    for mine, theirs in zip(ours, released(*leaves[:2], seen.child, *leaves[2:], config), strict=True):
        assert_close(mine, theirs)
    assert_close(ours[0].sum(-1), torch.ones_like(ours[0][..., 0]))  # 1 at every position anew


def test_the_released_variant_passes_gradcheck():
    leaves, seen = case(3, 2, 1, 2, 1, 2, images=1, size=2)
    assert torch.autograd.gradcheck(
        lambda v, u, b: routed(v, leaves[1], seen, u, b, RELEASED), leaves[::2] + leaves[3:]
    )


@pytest.mark.parametrize("rivals", ["all", "position"])
def test_a_child_s_activation_cancels_there_and_nowhere_else(rivals):
    (votes, activations, beta_u, beta_a), seen = case(4, 4, 2, 3, 1, 4, size=16)
    for cancels in (True, False):
        config = EM(rivals=rivals, cancels=cancels)
        before = routed(votes, activations, seen, beta_u, beta_a, config)
        after = routed(votes, activations * 0 + 0.01, seen, beta_u, beta_a, config)
        moved = [float((new - old).detach().abs().max()) for new, old in zip(after, before, strict=True)]
        assert max(moved) < 1e-6 if cancels else min(moved) > 1e-3


def test_a_child_of_no_activation_is_not_heard_there_either():
    (votes, activations, beta_u, beta_a), seen = case(2, 2, 2, 2, 1, 3)
    silent = activations * (torch.arange(8) != 5)
    before = routed(votes, silent, seen, beta_u, beta_a, RELEASED)
    louder = votes + 7.0 * (torch.arange(8) == 5)[:, None, None]
    after = routed(louder, silent, seen, beta_u, beta_a, RELEASED)
    for mine, theirs in zip(before[1:], after[1:], strict=True):
        assert_close(mine, theirs)


# ---------------------------------------------------------------- windows


def test_windows_by_hand():
    seen = windows(2, 3, 2, 2, 1)  # two windows side by side over 2 x 3 places of two types
    assert seen.child.tolist() == [[0, 1, 2, 3, 6, 7, 8, 9], [2, 3, 4, 5, 8, 9, 10, 11]]
    assert seen.positions.tolist() == [[1, 1, 2, 2, 1, 1, 2, 2], [2, 2, 1, 1, 2, 2, 1, 1]]
    assert seen.covered == 12


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3))
def test_windows_count_what_they_cover(height, width, types, kernel, stride):
    if kernel > min(height, width):
        return
    seen = windows(height, width, types, kernel, stride)
    counts = seen.child.flatten().bincount(minlength=height * width * types)
    assert seen.covered == (counts > 0).sum()
    assert torch.equal(seen.positions.long(), counts[seen.child])


# ---------------------------------------------------------------- pitfalls


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_parents_at_different_positions_compete_for_a_child(iterations):
    """Pitfall 1: what a child spends over all its parents, whatever their position, is 1; in one window it is less."""
    (votes, activations, beta_u, beta_a), seen = case(3, 3, 2, 2, 1, 3)
    coupling, *_ = routed(votes, activations, seen, beta_u, beta_a, EM(iterations=iterations))
    spent = torch.zeros(2, 18, dtype=DOUBLE)
    spent.index_add_(1, seen.child.flatten(), coupling.detach().sum(-1).flatten(1))
    assert_close(spent, torch.ones_like(spent))
    middle = (seen.child == 8).nonzero()[0]  # the first type at the centre, which four windows see
    assert coupling[0, middle[0], middle[1]].sum() < 1
    # one window's parents agree on nothing: the child goes to the other window, which a softmax per window forbids
    votes = torch.zeros(1, 2, 4, 1, 2, dtype=DOUBLE)
    votes[0, 0, :, 0, 0] = torch.tensor([-3.0, 3.0, -3.0, 3.0])
    shared = windows(2, 3, 1, 2, 1)
    nothing = torch.zeros(1, dtype=DOUBLE)
    coupling, *_ = routed(votes, torch.full((1, 6), 0.5, dtype=DOUBLE), shared, nothing, nothing)
    assert coupling[0, 1, 0, 0] > 0.9  # child 1 stands at place 0 of the second window


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("heard", [0, 1])
def test_a_parent_of_one_child_is_stable(dtype, heard):
    """Pitfall 2: one active child has no variance, none at all has no amount; both stay finite, gradients included."""
    (votes, activations, beta_u, beta_a), seen = case(2, 2, 2, 2, 1, 3)
    only = torch.zeros(2, 8, dtype=DOUBLE)
    only[:, :heard] = 0.7
    leaves = [part.detach().to(dtype).requires_grad_() for part in (votes, activations * 0 + only, beta_u, beta_a)]
    coupling, poses, active = routed(*leaves[:2], seen, *leaves[2:])
    (coupling.sum() + poses.square().sum() + active.sum()).backward()
    assert all(part.isfinite().all() for part in (coupling, poses, active, *(leaf.grad for leaf in leaves)))
    if heard:
        assert_close(poses[:, 0], leaves[0][:, 0, 0])  # every parent's pose is that child's vote
        assert_close(coupling[:, 0, 0].sum(-1), torch.ones(2, dtype=dtype))
    else:
        steep = em.DATA * EM().inverse_temperature(2)
        assert_close(active, (steep * leaves[3]).sigmoid().expand(2, 1, 3))  # no data, no cost


def test_a_larger_floor_is_what_keeps_the_gradient_of_a_lonely_child_small():
    """Why the floor is not the 1e-9 of released code: in float32 a mean is wrong by 1e-7 of a vote."""
    votes = (torch.rand(50, 4, 6, generator=torch.Generator().manual_seed(0)) + 0.5).requires_grad_()
    share = torch.full((50, 6), 1e-7)
    share[:, 0] = 1 - 5e-7
    sizes = []
    for floor in (1e-9, EM().floor):
        _, variance, _ = moments(votes, share, floor, False)
        (gradient,) = torch.autograd.grad(variance.log().sum(), votes)
        sizes.append(gradient.abs().max().item())
    assert sizes[1] < 0.01 < 0.1 < sizes[0]


@pytest.mark.parametrize("layer", ["few children per parent", "many"])
def test_the_amount_of_data_is_the_same_in_every_layer(layer):
    """Pitfall 3: with all children active, parents get DATA on average, be they many or the classes."""
    grid = (4, 4, 2, 3, 1, 8) if layer.startswith("few") else (4, 4, 2, 4, 1, 2)
    (votes, activations, _, _), seen = case(*grid, images=1)
    activations = torch.ones_like(activations)
    # the activations' logits are DATA lambda (beta_a - sum_h (beta_u + ln sigma) amount): beta_u reads the amount
    beta_u, beta_a = (torch.zeros(grid[-1], dtype=DOUBLE, requires_grad=True) for _ in range(2))
    logs = couple(votes, activations, seen, beta_u, beta_a, EM())
    logits = m_step(votes, logs.detach(), activations, seen, beta_u, beta_a, EM(), 2).logits
    (reading,) = torch.autograd.grad(logits.sum(), beta_u)
    parents, size = logits.numel(), votes.shape[-1]
    amount = -reading.sum() / (EM().inverse_temperature(2) * size * parents)
    assert_close(amount.item(), 100.0)


def test_votes_far_apart_do_not_underflow():
    """Pitfall 4: in logarithms, with variances. The plain densities of these votes are 0 in float32 for all parents."""
    votes = torch.zeros(1, 1, 3, 2, 16)
    votes[0, 0, :, 0] = torch.tensor([0.0, 0.01, 100.0]).unsqueeze(-1)
    votes[0, 0, :, 1] = torch.tensor([0.0, -0.01, 130.0]).unsqueeze(-1)
    votes.requires_grad_()
    seen = Windows(torch.arange(3)[None], torch.ones(1, 3), 3)
    share = torch.tensor([[0.5, 0.5, 0.0]])
    far = moments(votes.detach()[0, 0, :, 0].T[None], share, EM().floor, True)[2]
    assert (far[0, 2] > 1e6) and torch.exp(-far[0, 2] / 2) == 0
    active = torch.tensor([[1.0, 1.0, TINY]])
    nothing = torch.zeros(2)
    coupling, poses, _ = routed(votes, active, seen, nothing, nothing)
    assert_close(coupling.sum(-1), torch.ones(1, 1, 3))  # 0 / 0 without logarithms
    (coupling.square().sum() + poses.sum()).backward()
    assert coupling.isfinite().all() and votes.grad.isfinite().all()
    double = routed(votes.detach().double(), active.double(), seen, nothing.double(), nothing.double())
    assert_close(coupling, double[0].float(), rtol=1e-3, atol=1e-3)


def test_lambda_grows_with_the_iterations():
    """final * (1 - 0.95^(i + 1)), the authors' answer: 0.0005, 0.000975, 0.00142625 for 0.01."""
    assert [EM().inverse_temperature(t) for t in range(3)] == pytest.approx([0.0005, 0.000975, 0.00142625])


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [({"iterations": 0}, "iterations = 0"), ({"iterations": 1.5}, "iterations = 1.5"), ({"final": 0.0}, "final = 0.0"),
     ({"floor": -1e-9}, "floor = -1e-09"), ({"rivals": "types"}, "rivals = 'types' is unknown")],
)  # fmt: skip
def test_refuses(bad, sentence):
    with pytest.raises(ValueError, match=sentence):
        EM(**bad)
