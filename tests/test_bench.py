"""What outside tools time is a true training step, and what it is compared with computes the same network."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import jobs
import routing
import speed
import stopwatch
import textbook
import textbook_em
from capsnb.measure.routing_cost import Cost
from capsnb.nn import losses
from capsnb.nn.layers import RoutedCapsules
from capsnb.nn.models import ZOO, CapsNetConfig, MatrixCapsNetConfig, StridedStem
from capsnb.nn.models.stems import DepthwiseStem
from capsnb.nn.routing import Dynamic, SelfAttention

SMALL_STEM = DepthwiseStem(widths=(4, 4), kernels=(5, 3, 3), strides=(2, 1, 2), capsules=4, pointwise=False)
PROJECT = Path(__file__).parents[1]


@pytest.fixture
def small(monkeypatch):
    """The tasks at reduced width."""
    entries = {
        "capsnet": CapsNetConfig(stem=StridedStem(channels=6, types=2), decoder="none"),
        "capsnet_dec": CapsNetConfig(stem=StridedStem(channels=6, types=2), decoder_widths=(8, 8)),
        "deep5": CapsNetConfig(stem=DepthwiseStem(widths=(4, 4, 4), capsules=4), hidden=((4, 8),), dim=8),
        "em16": MatrixCapsNetConfig(width=8, types=2, layers=((2, 3, 3),), batch_norm=False, decoder="none"),
        "efficient": replace(ZOO["efficient-capsnet-no-decoder"].config, stem=SMALL_STEM),
    }
    made = {task: {"config": config, "loss": ZOO[stopwatch.TASKS[task]].loss} for task, config in entries.items()}
    zoo = {stopwatch.TASKS[task]: type("Entry", (), fields) for task, fields in made.items()}
    monkeypatch.setattr(stopwatch, "ZOO", zoo)
    return list(entries)


def test_a_step_trains_and_inference_scores(small):
    x, y = torch.rand(16, 1, 28, 28), torch.arange(16) % 10
    for task in small:
        torch.manual_seed(0)
        train, infer = stopwatch.entries()["capsnb"](task, 16, "cpu")
        loss = losses.LOSSES[ZOO[stopwatch.TASKS[task]].loss]
        before = loss(infer(x), y).mean()
        for _ in range(60):
            train(x, y)
        assert infer(x).shape == (16, 10)
        assert loss(infer(x), y).mean() < before


def test_every_task_is_a_model_of_the_zoo_and_others_are_none():
    assert set(stopwatch.TASKS.values()) <= set(ZOO)
    assert stopwatch.entries()["capsnb"]("em8", 16, "cpu") is None


@pytest.mark.parametrize("decoder", [True, False])
def test_the_textbook_network_is_the_same_function(decoder):
    torch.manual_seed(0)
    ours = CapsNetConfig(decoder="conditional" if decoder else "none").build()
    theirs = textbook.sabour(28, decoder)
    theirs.stem[0].load_state_dict(ours.conv1[0].state_dict())
    theirs.stem[2].conv.load_state_dict(ours.primary.conv.state_dict())
    weight = ours._modules["class"].weight.detach()
    theirs.layers[0].weight.data = _by_type(weight).permute(0, 2, 3, 1).contiguous()
    if decoder:
        for our, their in zip(ours.decoder.linears, [theirs.decoder[n] for n in (0, 2, 4)], strict=True):
            their.load_state_dict(our.state_dict())
    x, y = torch.rand(2, 1, 28, 28), torch.tensor([3, 7])
    output = ours(x, y)
    poses, rebuilt = theirs(x, y)
    assert_close(poses, output.poses, rtol=1e-3, atol=1e-4)
    loss = losses.margin(output.scores, y).mean()
    if decoder:
        assert_close(rebuilt.view_as(x), output.reconstruction, rtol=1e-3, atol=1e-4)
        loss = loss + 0.0005 * losses.reconstruction(output.reconstruction, x).mean()
    assert_close(textbook.loss(poses, rebuilt, x, y), loss, rtol=1e-3, atol=1e-4)


def _by_type(weight):
    """Children from position-major, as capsnb has them, to type-major, as the textbook's view gives them."""
    return weight.unflatten(0, (36, 32)).transpose(0, 1).flatten(0, 1)


def test_the_deep_textbook_layer_routes_like_ours():
    torch.manual_seed(0)
    ours = RoutedCapsules(5, 3, 4, 2, routing=Dynamic(learned_prior=True), squash="exponential")
    theirs = textbook.Capsules(5, 3, 4, 2, textbook.squash_exponential)
    theirs.weight.data = ours.weight.detach().permute(0, 2, 3, 1).contiguous()
    theirs.prior.data = torch.randn(5, 4)
    ours.prior.data = theirs.prior.data.clone()
    u = torch.randn(6, 5, 3)
    assert_close(theirs(u), ours(u), rtol=1e-3, atol=1e-4)


def test_the_attending_textbook_layer_routes_like_ours():
    torch.manual_seed(0)
    ours = RoutedCapsules(5, 3, 4, 2, routing=SelfAttention(), squash="exponential")
    theirs = textbook.Attending(5, 3, 4, 2)
    theirs.weight.data = ours.weight.detach().permute(0, 2, 3, 1).contiguous()
    ours.prior.data = theirs.prior.data = torch.randn(5, 4)
    u = torch.randn(6, 5, 3)
    assert_close(theirs(u), ours(u), rtol=1e-3, atol=1e-4)


def test_the_textbook_matrix_capsules_are_the_same_function():
    torch.manual_seed(0)
    config = replace(ZOO["em-16"].config, width=6, types=2, layers=((3, 3, 2), (3, 3, 1)))
    ours, theirs = config.build().double(), textbook_em.MatrixCapsNet(6, 2, 3).double()
    alike = (ours.conv1[0], theirs.conv), (ours.primary.pose, theirs.pose), (ours.primary.active, theirs.active)
    for our, their in alike:
        their.load_state_dict(our.state_dict())
    for name, their in zip(ours.layers, theirs.layers, strict=True):
        our = ours.get_submodule(name)
        their.weight.data = our.weight.detach().transpose(1, 2).contiguous()
        their.beta_u.data, their.beta_a.data = our.beta_u.detach(), our.beta_a.detach()
    x, y = torch.rand(2, 1, 28, 28, dtype=torch.float64), torch.tensor([3, 7])
    output, (active, _) = ours(x), theirs(x)
    assert_close(active, output.scores)
    assert_close(textbook_em.loss(active, None, x, y), losses.spread(output.scores, y).mean())


@pytest.mark.parametrize("name", ["bench_cpu", "bench_cpu_matrix"])
def test_docs_show_the_recorded_speeds(name):
    record = json.loads((PROJECT / "results" / f"{name}.json").read_text())
    assert speed.table(record) in (PROJECT / "docs" / "speed.md").read_text(encoding="utf-8")


def test_a_table_of_speeds_has_ratios_and_peaks():
    steps = {"capsnb": (200, 1), "plain": (100, 2), "textbook": (40, 5), "convolutions": (50, 4)}
    found = {way: {"images/s": rate, speed.RATIO: [ratio, ratio, ratio]} for way, (rate, ratio) in steps.items()}
    peaks = {"capsnb": 400.0, "plain": 300.0, "textbook": 2600.0}
    tasks = [{"task": task, "batch": 128, "train": found, "peak MB": peaks} for task in speed.NETWORKS]
    last = speed.table({"tasks": tasks}).splitlines()[-1]
    name = "matrix capsules 32-32-32-32, 28x28, batch 8"
    assert last == f"| {name} | 200 images/s | 2.0 x | 5.0 x | 4.0 x | 0.40, 2.60 GB |"


def test_side_by_side_is_told_in_ratios_of_times_of_one_round():
    times = dict(zip(jobs.WAYS, ([10, 30, 10], [5, 10, 10], [10, 25, 15]), strict=True))
    assert list(jobs.summary(times).values()) == [[2.0, 1.0, 3.0], [2.0, 1.5, 2.5]]


def test_busy_processes_are_there_for_the_block_alone():
    with jobs.busy(2) as others:
        assert len(others) == 2 and all(each.poll() is None for each in others)
    assert all(each.poll() is not None for each in others)


def test_exponents_of_a_routing_layer_are_those_of_its_times(monkeypatch):
    """Times that grow with n squared and with d, of both layers: 2 and 1 in every round."""

    def measured(sizes, *, rounds, batch):
        costs = [Cost(seconds=n**2 * d * batch, kept=1, parameters=1) for n, d in sizes]
        return {"agreement": costs, "attention": costs}

    monkeypatch.setattr(routing.routing_cost, "measure_together", measured)
    found = routing.timed([2, 4, 8], [16, 32], rounds=2, batch=3)
    assert list(found) == ["agreement-n", "agreement-d", "attention-n", "attention-d"]
    assert found["attention-n"]["sizes"] == [2, 4, 8]
    assert found["attention-n"]["seconds"] == [[3 * n**2 * 8 for n in (2, 4, 8)]] * 2
    assert found["agreement-n"]["exponents"] == pytest.approx([2, 2])
    assert found["agreement-d"]["exponents"] == pytest.approx([1, 1])
