"""Parse-tree statistics of Mitterreiter et al. 2023: known answers, slow loops, refusals."""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from capsnb.measure import parse_tree, viewpoint
from capsnb.measure.parse_tree import Conventions, Layer, Moments, activation, dynamics, dyr, perfect_std, trace
from capsnb.nn import taps
from capsnb.nn.models import CapsNetConfig, ConvNetAvgConfig, DepthwiseStem, Output
from capsnb.nn.routing import Dynamic

STEM = DepthwiseStem(widths=(4,), kernels=(5, 3), strides=(2, 2), capsules=6, dim=4)
SMALL = CapsNetConfig(
    size=20, classes=3, dim=4, stem=STEM, hidden=((5, 4), (4, 4)), decoder="none", squash="exponential",
    routing=Dynamic(learned_prior=True),
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return SMALL.build()


@pytest.fixture(scope="module")
def images():
    blobs = torch.rand(7, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    return (torch.nn.functional.interpolate(blobs, 20) * 255).to(torch.uint8)


def batches(images, size=3):
    return [(part, None) for part in images.split(size)]


def moments(values):
    gathered = Moments()
    gathered.add(values)
    return gathered


def layer(name="caps1", mean=(0.5,), std=(0.1,), coupling_std=None, active=None):
    mean, std = torch.tensor(mean).double(), torch.tensor(std).double()
    return Layer(name, mean, std, active or {}, None, None if coupling_std is None else coupling_std.double())


# --- routing dynamics


@pytest.mark.parametrize("targets", [2, 3, 5, 16])
def test_perfect_routing_has_rate_1_and_reaches_all(targets):
    # one child, each image to another target in turn: the definition itself
    coupling = torch.eye(targets).repeat(4, 1)[:, None]  # (k, 1, n)
    std = moments(coupling).std
    assert_close(std[0], torch.full((targets,), perfect_std(targets)).double())
    assert_close(dyr(std), torch.ones(1).double())
    assert dynamics(layer(coupling_std=std), layer(mean=(0.5,) * targets, std=(0.1,) * targets)).dys == pytest.approx(
        targets
    )


def test_perfect_std_by_hand():
    assert perfect_std(2) == 0.5
    assert perfect_std(1) == 0
    assert perfect_std(16) == pytest.approx(math.sqrt(15) / 16)
    with pytest.raises(ValueError, match="at least 1"):
        perfect_std(0)


def test_constant_routing_has_rate_exactly_0():
    coupling = torch.tensor([0.1, 0.7, 0.2]).expand(50, 4, 3)
    std = moments(coupling).std
    assert torch.equal(dyr(std), torch.zeros(4).double())


def test_the_rate_against_a_loop_in_the_papers_words():
    coupling = torch.rand(9, 2, 5, generator=torch.Generator().manual_seed(0)).double().softmax(-1)
    expected = [
        sum(float(coupling[:, capsule, i].std(correction=0)) / perfect_std(5) for i in range(5)) / 5
        for capsule in range(2)
    ]
    assert_close(dyr(moments(coupling).std), torch.tensor(expected).double())


def test_two_dead_of_five_in_every_convention():
    """Four sources of which one is dead, five targets of which two are, which receive no coupling."""
    std = torch.zeros(4, 5)
    std[:, :3] = 0.2
    std[3, :3] = 0.4  # the dead source
    source = layer("caps1", (0.5, 0.4, 0.3, 0.001), (0.1, 0.1, 0.1, 0.002), std)
    target = layer("caps2", (0.5, 0.2, 0.3, 0.0, 0.01), (0.1, 0.2, 0.3, 0.0, 0.01))
    assert target.dead().tolist() == [False, False, False, True, True]
    row = 3 * 0.2 / 5 / perfect_std(5)
    live = 0.2 / perfect_std(3)
    expected = {
        ("all", "all", "all"): (row * 5 / 4, 5 * row * 5 / 4),  # (3 * 1 + 2) / 4 of a live source's rate
        ("all", "live", "all"): (row * 5 / 4, 3 * row * 5 / 4),
        ("all", "live", "live"): (row, 3 * row),
        ("all", "all", "live"): (row, 5 * row),
        ("live", "live", "all"): (live * 5 / 4, 3 * live * 5 / 4),
        ("live", "all", "all"): (live * 5 / 4, 5 * live * 5 / 4),
        ("live", "live", "live"): (live, 3 * live),
        ("live", "all", "live"): (live, 5 * live),
    }
    assert len(parse_tree.CONVENTIONS) == 8
    for conventions in parse_tree.CONVENTIONS:
        found = dynamics(source, target, conventions)
        assert found.alive == 3
        assert (found.dyr, found.dys) == pytest.approx(expected[tuple(conventions)]), conventions


def test_the_default_conventions_are_that_of_table_1():
    assert Conventions() == ("all", "live", "all")
    # PROTOCOLS: dys = alive(next) * dyr in every row of the printed table; layer 2 and layer 3
    assert pytest.approx(1.72, abs=0.04) == 7.00 * 0.25
    assert 16 * 0.25 > 2 * 1.72


def test_no_target_or_one_leaves_no_choice():
    std = torch.full((2, 3), 0.3)
    source = layer(mean=(0.5, 0.5), std=(0.1, 0.1), coupling_std=std)
    lonely = layer(mean=(0.5, 0, 0), std=(0.1, 0, 0))
    assert dynamics(source, lonely, Conventions("live", "live", "all")) == (2, 0.0, 0.0)
    dead = layer(mean=(0.0, 0.0), std=(0.0, 0.0), coupling_std=std)
    assert dynamics(dead, lonely, Conventions("all", "all", "live")) == (0, 0.0, 0.0)


def test_what_dead_parents_get_by_hand():
    """Of three children one is dead; of four parents the last two are. The living give them 0.3 and 0.5 of all."""
    source = layer("caps1", (0.5, 0.4, 0.0), (0.1, 0.1, 0.0), torch.zeros(3, 4))
    coupling = torch.tensor([[0.6, 0.1, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 1.0, 0.0]])
    source = replace(source, coupling_mean=2 * coupling)  # whatever they add up to
    target = layer("caps2", (0.5, 0.2, 0.0, 0.01), (0.1, 0.2, 0.0, 0.01))
    assert parse_tree.lost(source, target) == pytest.approx((0.3 + 0.5) / 2)
    silent = replace(source, norm_mean=torch.zeros(3), norm_std=torch.zeros(3))
    assert math.isnan(parse_tree.lost(silent, target))
    with pytest.raises(ValueError, match="caps2 is the last layer"):
        parse_tree.lost(replace(target, coupling_mean=None), source)


# --- activation


def test_table_2_of_a_trace_with_two_dead_of_five():
    norms = torch.tensor([[0.9, 0.2, 0.0, 0.01, 0.3], [0.7, 0.4, 0.0, 0.01, 0.0]])
    gathered = moments(norms)
    active = {0.3: (norms >= 0.3).double().mean(0)}
    found = activation(Layer("caps1", gathered.mean, gathered.std, active, None, None), 0.3)
    assert found.cns == pytest.approx((1.41 + 1.11) / 2)
    assert found.cnm == pytest.approx((1.41 + 1.11) / 10)
    assert found.cas == pytest.approx((2 + 2) / 2)  # 0.3 itself counts
    assert found.car == pytest.approx(0.4)
    assert (found.cdr, found.cds) == (0.4, 2)


def test_a_quiet_capsule_is_dead_only_if_it_also_stays_quiet():
    assert layer(mean=(0.005, 0.005, 0.02), std=(0.005, 0.03, 0.0)).dead().tolist() == [True, False, False]
    assert layer(mean=(0.03,), std=(0.005,)).dead(0.05, 0.01).tolist() == [True]


def test_moments_do_not_depend_on_the_batches():
    values = torch.rand(11, 3, 2, generator=torch.Generator().manual_seed(2)) + 1e3
    parts = Moments()
    for part in values.split(4):
        parts.add(part)
    assert parts.count == 11
    assert_close(parts.mean, values.double().mean(0))
    assert_close(parts.std, values.double().std(0, correction=0))


# --- from a model


def test_a_trace_equals_what_one_recording_gives(model, images):
    layers = trace(model, batches(images), thresholds=(0.1, 0.3))
    names = ["primary", "caps1.poses", "caps2.poses", "class.poses"]
    edges = ["caps1.coupling", "caps2.coupling", "class.coupling"]
    with taps.evaluating(model), taps.record(model, *names, *edges) as seen:
        model(images)
    assert [each.name for each in layers] == names
    for found, name, edge in zip(layers, names, [*edges, None], strict=True):
        norms = seen[name].double().norm(dim=-1)
        assert_close(found.norm_mean, norms.mean(0), atol=1e-6, rtol=1e-5)
        assert_close(found.norm_std, norms.std(0, correction=0), atol=1e-6, rtol=1e-4)
        assert_close(found.active[0.3], (norms >= 0.3).double().mean(0))
        if edge is None:
            assert found.coupling_mean is None and found.coupling_std is None
        else:
            assert_close(found.coupling_mean, seen[edge].double().mean(0), atol=1e-6, rtol=1e-5)
            assert_close(found.coupling_std, seen[edge].double().std(0, correction=0), atol=1e-6, rtol=1e-4)
            assert_close(found.coupling_mean.sum(1), torch.ones(len(found.norm_mean)).double(), atol=1e-5, rtol=0)


def test_a_trace_of_silenced_capsules_finds_them_dead(model, images):
    mask = torch.tensor([1, 0, 1, 0, 1])
    with model.caps1.keep(mask):
        layers = trace(model, batches(images))
    assert layers[1].dead().tolist() == [False, True, False, True, False]
    assert activation(layers[1], 0.1).cds == 2


# --- starvation


def test_life_reports_each_layer_and_capsule(model, images):
    class Data:
        from capsnb.data import Split

        validation = Split(images, torch.zeros(7, dtype=torch.int64))

    found = parse_tree.life(model, Data, images=5)
    assert [len(row) for row in found["mean"]] == [len(row) for row in found["dead"]] == [6, 5, 4, 3]
    assert len(found["dyr"]) == 3
    layers = trace(model, batches(images[:5]))
    assert found["mean"][2] == pytest.approx(layers[2].norm_mean.tolist(), abs=1e-5)


# --- viewpoint


def test_an_unchanged_viewpoint_has_similarity_1(model, images):
    found = viewpoint.viewpoint(model, batches(images), "scale", (1.0, 0.8))
    for values in found.values():
        assert_close(values.cosine[0], torch.ones_like(values.cosine[0]))
        assert (values.cosine[1] < 1).all()
        assert (values.chance <= 1 + 1e-9).all()


@pytest.mark.parametrize("kind", list(viewpoint.KINDS))
def test_similarity_against_a_loop(model, images, kind):
    unit, identity, amounts = viewpoint.KINDS[kind]
    assert identity in amounts and unit
    amount = amounts[-1]
    found = viewpoint.viewpoint(model, batches(images), kind, (amount,))["caps1.poses"]
    with taps.evaluating(model), taps.record(model, "caps1.poses") as seen:
        model(images)
        model(viewpoint.moved(images, {kind: amount}))
    first, second = seen["caps1.poses"].double().norm(dim=-1).chunk(2)
    for capsule in range(5):
        v, w = first[:, capsule], second[:, capsule]
        assert float(found.cosine[0, capsule]) == pytest.approx(float(v @ w / v.norm() / w.norm()), abs=1e-5)
        expected = torch.corrcoef(torch.stack((v, w)))[0, 1]
        assert float(found.correlation[0, capsule]) == pytest.approx(float(expected), abs=1e-3)
        shuffled = torch.stack([v @ w.roll(shift) for shift in range(7)]).mean() / v.norm() / w.norm()
        assert float(found.chance[0, capsule]) == pytest.approx(float(shuffled), abs=1e-5)


def test_the_share_kept_runs_from_unrelated_to_the_same_by_hand():
    # two amounts, two capsules, one of them silent: (.9 - .6) / (1 - .6) and (.6 - .6) / (1 - .6)
    nan = math.nan
    cosine, chance = torch.tensor([[0.9, nan], [0.6, nan]]), torch.tensor([[0.6, nan], [0.6, nan]])
    kept = viewpoint.share_kept(viewpoint.Similarity(cosine, cosine, chance))
    assert kept.tolist() == pytest.approx([0.75, 0.0])
    silent = torch.full((1, 2), nan)
    assert viewpoint.share_kept(viewpoint.Similarity(silent, silent, silent)).isnan().all()


def test_a_silent_capsule_has_no_similarity_and_is_left_out(model, images):
    with model.caps1.keep(torch.tensor([1, 0, 1, 1, 1])):
        found = viewpoint.viewpoint(model, batches(images), "rotation", (10.0,))["caps1.poses"]
    assert found.cosine[0].isnan().tolist() == [False, True, False, False, False]
    assert float(viewpoint.layer_mean(found.cosine)[0]) == pytest.approx(float(found.cosine[0, [0, 2, 3, 4]].mean()))
    only = torch.tensor([True, False, False, False, False])
    assert float(viewpoint.layer_mean(found.cosine, only)[0]) == float(found.cosine[0, 0])


def test_transforms_by_hand():
    dot = torch.zeros(1, 1, 5, 5, dtype=torch.uint8)
    dot[0, 0, 1, 3] = 200  # one above, one right of the centre
    moved = viewpoint.moved(dot, {"translation x": -2.0})
    assert moved[0, 0, 1, 1] == 200 and moved.count_nonzero() == 1
    assert viewpoint.moved(dot, {"translation y": 1.0})[0, 0, 2, 3] == 200
    assert viewpoint.moved(dot, {"rotation": 90.0})[0, 0, 3, 3] == 200  # clockwise: right and below
    assert torch.equal(viewpoint.moved(dot, {"shear": 0.0}), dot)


# --- refusals


def test_refusals(model, images):
    layers = trace(model, batches(images), thresholds=(0.1,))
    with pytest.raises(ValueError, match=r"threshold 0.2 was not traced; traced: 0.1"):
        activation(layers[1], 0.2)
    with pytest.raises(ValueError, match=r"class.poses is the last layer"):
        dynamics(layers[-1], layers[0])
    with pytest.raises(ValueError, match="'some' capsules cannot be counted; allowed: all, live"):
        dynamics(layers[0], layers[1], Conventions(dyr_targets="some"))
    with pytest.raises(ValueError, match="at least one batch"):
        trace(model, [])
    with pytest.raises(ValueError, match="at least one batch"):
        viewpoint.viewpoint(model, [], "scale")
    with pytest.raises(ValueError, match="'zoom' is unknown; allowed: rotation"):
        viewpoint.viewpoint(model, batches(images), "zoom")
    with pytest.raises(ValueError, match="uint8"):
        viewpoint.moved(images.float(), {"scale": 0.9})
    with pytest.raises(ValueError, match="no parse tree: it lacks the taps of couplings"):
        trace(ConvNetAvgConfig(size=20).build(), batches(images))


def test_a_model_of_other_names_says_what_it_lacks():
    class Other(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.caps1 = torch.nn.Module()
            self.caps1.coupling = taps.Tap()

        def forward(self, images):
            return Output(images, None, None)

    with pytest.raises(ValueError, match=r"lacks the taps of primary, caps1.poses"):
        trace(Other(), [])
