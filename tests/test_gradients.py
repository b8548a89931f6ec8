"""Both theorems of Mitterreiter et al. 2023 against autograd in float64; gradients per step against a plain loop."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from capsnb.data import Augment, Batch, ImageSet, Split
from capsnb.measure import gradients
from capsnb.nn import losses, routing, taps
from capsnb.nn.layers import length
from capsnb.nn.models import CapsNetConfig, DepthwiseStem
from capsnb.training.hooks import Revival
from capsnb.training.loop import Training
from capsnb.training.recipe import Recipe

STEM = DepthwiseStem(widths=(4,), kernels=(5, 3), strides=(2, 2), capsules=5, dim=4)
DEEP = CapsNetConfig(
    size=14, classes=3, dim=4, stem=STEM, hidden=((4, 4), (6, 3)), decoder="none", squash="exponential",
    routing=routing.Dynamic(learned_prior=True),
)  # fmt: skip


def build(config=DEEP):
    torch.manual_seed(0)
    return config.build().double().eval()


def shown(count=6):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 1, 14, 14, dtype=torch.float64, generator=generator), torch.arange(count) % 3


def noise(count=12):
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (count, 1, 14, 14), dtype=torch.uint8, generator=generator)
    split = Split(images, torch.arange(count) % 3)
    return ImageSet("noise", "random numbers", ("a", "b", "c"), split, split, split)


@pytest.mark.parametrize("labels", [torch.tensor([0, 3, 2, 1]), torch.tensor([[0, 1], [3, 2], [2, 0], [1, 3]])])
def test_theorem_1(labels):
    poses = torch.rand(4, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.7
    poses[0, 1] *= 0.01  # below m_minus
    poses[1, 3] *= 0.95 / poses[1, 3].norm()  # above m_plus
    poses[2, 2] = 0
    poses.requires_grad_()
    losses.margin(length(poses), labels).sum().backward()
    assert_close(gradients.margin_gradient(poses.detach(), labels), poses.grad)


def test_theorem_1_by_hand():
    poses = torch.tensor([[[0.3, 0.4], [0.6, 0.0], [0.0, 0.95]]])
    found = gradients.margin_gradient(poses, torch.tensor([0]))
    assert_close(found[0, 0], -2 * 0.4 * torch.tensor([0.6, 0.8]))  # present: pulled along its direction
    assert_close(found[0, 1], 2 * 0.5 * 0.5 * torch.tensor([1.0, 0.0]))  # absent: pushed back
    satisfied = gradients.margin_gradient(poses, torch.tensor([2]))
    assert torch.equal(satisfied[0, 2], torch.zeros(2))


@pytest.mark.parametrize(
    "config",
    [
        DEEP,
        replace(DEEP, routing=routing.Dynamic(gradient="last")),
        replace(DEEP, routing=routing.Uniform()),
        replace(DEEP, routing=routing.Attention(over="children")),
        replace(DEEP, squash="sabour", init_scale=4.0),
    ],
    ids=["agreement", "detached", "uniform", "attention", "sabour"],
)
def test_theorem_2_in_every_layer(config):
    model = build(config)
    images, labels = shown()
    nodes, edges = gradients.layer_taps(model)
    layers = [edge.removesuffix(".coupling") for edge in edges]
    with taps.record(model, *nodes, *(f"{layer}.votes" for layer in layers)) as seen:
        loss = losses.margin(model(images).scores, labels).sum()
    votes = [seen[f"{layer}.votes"] for layer in layers]
    poses = [seen[name] for name in nodes[:-1]]
    weights = [model.get_submodule(layer).weight for layer in layers]
    found = torch.autograd.grad(loss, [*votes, *poses, *weights])
    for vote, pose, expected_pose, expected_weight, weight in zip(
        found[: len(votes)], poses, found[len(votes) :], found[2 * len(votes) :], weights, strict=False
    ):
        assert expected_pose.abs().max() > 0 and expected_weight.abs().max() > 0
        assert_close(gradients.capsule_gradient(vote, weight), expected_pose)
        assert_close(gradients.transform_gradient(vote, pose), expected_weight)


def test_in_the_limit_nothing_moves_a_dead_capsule():
    """Incoming and outgoing transforms of one capsule at 0: its own and all their gradients are exactly 0."""
    model = build()
    with torch.no_grad():
        model.caps1.weight[:, :, 2] = 0
        model.caps2.weight[2] = 0
    images, labels = shown()
    losses.margin(model(images).scores, labels).sum().backward()
    assert not model.caps1.weight.grad[:, :, 2].any()
    assert not model.caps2.weight.grad[2].any()
    assert model.caps2.weight.grad[1].any()


def test_a_dead_capsule_with_transforms_above_it_can_come_back():
    """What theorem 2 leaves open: with its outgoing transforms alive, the way to it has a gradient."""
    model = build()
    with torch.no_grad():
        model.caps1.weight[:, :, 2] = 0
    images, labels = shown()
    losses.margin(model(images).scores, labels).sum().backward()
    assert not model.caps2.weight.grad[2].any()  # as the theorem says
    assert model.caps1.weight.grad[:, :, 2].abs().max() > 0


def test_pulls_against_one_image_at_a_time():
    model = build()
    images, labels = shown()
    found = gradients.pulls(model, Batch(images, labels))
    assert list(found) == ["primary", "caps1.poses", "caps2.poses", "class.poses"]
    norms = []
    for image, label in zip(images, labels, strict=True):
        with taps.record(model, "caps1.poses") as seen:
            loss = losses.margin(model(image[None]).scores, label[None]).sum()
        norms.append(torch.autograd.grad(loss, seen["caps1.poses"])[0][0].norm(dim=-1))
    assert_close(found["caps1.poses"].capsule, torch.stack(norms).mean(0))
    losses.margin(model(images).scores, labels).mean().backward()
    own = model.caps2.weight
    for child in range(4):
        for parent in range(6):
            assert_close(found["caps1.poses"].transform[child, parent], own.grad[child, :, parent].norm())
            assert_close(found["caps1.poses"].weight[child, parent], own[child, :, parent].norm().detach())
    assert found["class.poses"].transform is None


def test_what_is_watched_is_plain_numbers_per_layer():
    model = build().float()
    found = gradients.pull_of_training(model, noise(), images=8)
    assert [len(row) for row in found["capsule"]] == [5, 4, 6, 3]
    assert [len(row) for row in found["transform"]] == [len(row) for row in found["weight"]] == [5, 4, 6]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_last_step_is_the_difference_that_it_made():
    torch.manual_seed(0)
    training = Training(DEEP.build(), noise(), Recipe(batch=12, epochs=4, augment=Augment(), weight_decay=1e-3))
    before = None
    for row in training.rows(progress=False):
        now = {name: each.detach().clone() for name, each in training.model.named_parameters() if "weight" in name}
        if row["epoch"] == 4:
            moved = [
                now[f"{name}.weight"] - before[f"{name}.weight"] for name in ("caps1", "caps2", "class")
            ]  # (I, P, J, D)
            found = gradients.last_step(training.model, training.data, training=training)
            for inwards, outwards, each in zip(found["in"], found["out"], moved, strict=True):
                assert_close(torch.tensor(inwards), each.square().sum((0, 1, 3)).sqrt(), rtol=2e-3, atol=1e-6)
                assert_close(torch.tensor(outwards), each.square().sum((1, 2, 3)).sqrt(), rtol=2e-3, atol=1e-6)
        before = now


def test_the_last_step_is_adams():
    training = Training(DEEP.build(), noise(), Recipe(optimizer="sgd"))
    with pytest.raises(ValueError, match="SGD keeps no moments as Adam does"):
        gradients.last_step(training.model, training.data, training=training)


def test_the_dose_of_coupled_decay_under_adam_does_not_depend_on_lambda():
    start, doses = torch.tensor([0.3, -0.2]), []
    for lam in (1e-4, 1e-3):
        found = gradients.dose(Recipe(epochs=10, decay=1.0, weight_decay=lam), start, 10)
        assert found.shape == (101, 2)
        # about a learning rate a step, less as the second moment remembers a larger weight; whatever lambda is
        assert_close(found[100], start - 100 * 1e-3 * start.sign(), atol=1e-2, rtol=0)
        doses.append(found)
    assert_close(doses[0], doses[1], atol=1e-4, rtol=0)
    assert torch.equal(gradients.dose(Recipe(epochs=2), start, 3)[-1], start)


def test_the_dose_of_the_others_is_that_of_their_formulas():
    start = torch.tensor([0.3])
    apart = gradients.dose(Recipe(epochs=10, decay=1.0, weight_decay=2.0, optimizer="adamw"), start, 10)
    assert_close(apart[-1], start * (1 - 1e-3 * 2.0) ** 100)
    plain = gradients.dose(Recipe(epochs=10, decay=0.5, decay_unit="epochs", decay_every=1, weight_decay=2.0,
                                  optimizer="sgd"), start, 10)  # fmt: skip
    expected = start.clone()
    for epoch in range(10):
        expected = expected * (1 - max(1e-3 * 0.5**epoch, 1e-6) * 2.0) ** 10
    assert_close(plain[-1], expected)
    with pytest.raises(ValueError, match="a recipe with hooks has no dose"):
        gradients.dose(Recipe(hooks=(Revival(after=1),)), start, 1)
