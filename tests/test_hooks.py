"""Hooks against autograd and values by hand; routings and fields against starving capsules, against slow loops."""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from capsnb.data import Augment, DataSpec, ImageSet, Split, prepare
from capsnb.nn import layers, losses, routing, taps
from capsnb.nn.models import ZOO, CapsNetConfig, ConvNetAvgConfig, DepthwiseStem, StridedStem
from capsnb.nn.routing import Dynamic, Uniform
from capsnb.training import runs
from capsnb.training.evaluation import evaluate
from capsnb.training.hooks import DecoupledDecay, FollowFitness, GrowMargin, KeepNorms, PartDecay, Revival
from capsnb.training.identity import decode, encode
from capsnb.training.loop import Training
from capsnb.training.recipe import Moment, Recipe
from capsnb.training.spec import Spec

STEM = DepthwiseStem(widths=(4,), kernels=(5, 3), strides=(2, 2), capsules=4, dim=4)
SMALL = CapsNetConfig(
    size=14, classes=3, dim=4, stem=STEM, hidden=((4, 4), (4, 4)), decoder="none", squash="exponential"
)


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def squashed_sum(coupling, votes):
    return layers.squash((coupling[..., None] * votes).sum(1))


def by_loop(votes, iterations, weigh):
    """Coupling image by image; `weigh(agreements so far (I, J), last agreement (I, J)) -> (I, J)`."""
    found = []
    for own in votes:
        children, parents, _ = own.shape
        total, last, coupling = torch.zeros(children, parents).double(), None, None
        for _ in range(iterations):
            coupling = weigh(total, last)
            poses = layers.squash(torch.stack([sum(coupling[i, j] * own[i, j] for i in range(children))
                                               for j in range(parents)]))  # fmt: skip
            last = torch.tensor(
                [[float(own[i, j] @ poses[j]) for j in range(parents)] for i in range(children)]
            ).double()
            total = total + last
        found.append(coupling)
    return torch.stack(found)


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_leaky_routing_keeps_a_share_for_nobody(iterations):
    votes = random(2, 5, 3, 4)

    def weigh(total, last):
        exp = total.exp()
        return exp / (1 + exp.sum(1, keepdim=True))

    found = routing.dynamic(votes, squashed_sum, iterations=iterations, leaky=True)
    assert_close(found, by_loop(votes, iterations, weigh), atol=1e-7, rtol=1e-6)
    assert (found.sum(-1) < 1).all()


@pytest.mark.parametrize("over", ["parents", "children"])
@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_attention_against_a_loop(iterations, over):
    votes = random(2, 5, 3, 4)
    axis = {"parents": 1, "children": 0}[over]

    def weigh(total, last):
        logits = torch.zeros_like(total) if last is None else last / 2  # sqrt of 4
        return logits.softmax(axis)

    found = routing.Attention(iterations=iterations, over=over)(votes, squashed_sum)
    assert_close(found, by_loop(votes, iterations, weigh), atol=1e-7, rtol=1e-6)
    assert_close(found.sum(axis + 1), torch.ones_like(found.sum(axis + 1)))


def test_residual_adds_the_child_before_the_squash():
    torch.manual_seed(0)
    layer = layers.RoutedCapsules(3, 2, 3, 2, routing=routing.Uniform(), residual=True).double()
    poses = random(2, 3, 2)
    with taps.record(layer, "votes"):  # the path that makes votes, and the one that does not
        slow = layer(poses)
    total = torch.stack([sum(poses[:, i] @ layer.weight[i, :, j] for i in range(3)) / 3 for j in range(3)], 1)
    expected = layers.squash(total + poses)
    assert_close(slow, expected)
    assert_close(layer(poses), expected)


def test_layer_norm_gives_poses_of_length_1_and_leaves_class_capsules_alone():
    values = random(3, 5, 8) * 4 + 1
    centred = values - values.mean(-1, keepdim=True)
    assert_close(layers.SQUASHES["layer-norm"](values), centred / centred.norm(dim=-1, keepdim=True), rtol=1e-4, atol=0)
    assert torch.equal(layers.unit_norm(torch.zeros(2, 4)), torch.zeros(2, 4))
    torch.manual_seed(0)
    model = replace(SMALL, hidden_squash="layer-norm").build()
    with taps.record(model, "primary", "caps1.poses", "class.poses") as seen:
        model(torch.rand(2, 1, 14, 14))
    assert (layers.length(seen["caps1.poses"]) > 0.9).all()
    assert (layers.length(seen["class.poses"]) < 0.9).all()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"residual": True, "hidden": ((5, 4),)}, "residual changes nothing"),
        ({"hidden": (), "hidden_squash": "none"}, "there is no hidden layer"),
        ({"hidden_squash": "soft"}, "'soft' is unknown"),
    ],
)
def test_fields_without_effect_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(SMALL, **changes).build()
    with pytest.raises(ValueError, match="3 of 2 numbers, not 2 of 2"):
        layers.RoutedCapsules(3, 2, 2, 2, routing=routing.Uniform(), residual=True)
    with pytest.raises(ValueError, match="'sideways' is unknown; allowed: 'parents', 'children'"):
        routing.Attention(over="sideways")


@pytest.mark.parametrize("name", ["deep-rba-40", "capsnet"])
def test_the_zoo_keeps_its_sizes(name):
    assert sum(p.numel() for p in ZOO[name].config.build().parameters()) == ZOO[name].parameters


# --- hooks


def images(count=12):
    generator = torch.Generator().manual_seed(3)
    shown = torch.randint(0, 256, (count, 1, 14, 14), dtype=torch.uint8, generator=generator)
    split = Split(shown, torch.arange(count) % 3)
    return ImageSet("noise", "random numbers", ("a", "b", "c"), split, split, split)


def trained(hooks, steps=3, **options):
    torch.manual_seed(0)
    model = SMALL.build()
    recipe = Recipe(batch=12, epochs=steps, augment=Augment(), hooks=hooks, **options)
    training = Training(model, images(), recipe, device="cpu")
    for _ in training.rows(progress=False):
        pass
    return training


def test_decoupled_decay_is_that_of_adamw():
    decayed = trained((DecoupledDecay(weight_decay=0.1),), decay=1.0)
    torch.manual_seed(0)
    model = SMALL.build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    data = images().train
    for _ in range(3):  # one batch is all images, so their order does not matter
        optimizer.zero_grad()
        losses.margin(model(data.images).scores, data.labels).mean().backward()
        optimizer.step()
    for (name, found), expected in zip(decayed.model.named_parameters(), model.parameters(), strict=True):
        # AdamW shrinks before its step, the hook after it: they differ by the decay of one step, 1e-4 of 1e-3
        assert_close(found, expected, atol=2e-5, rtol=1e-3, msg=name)


def weights(training):
    return {name: each.detach().clone() for name, each in training.model.named_parameters()}


def test_decay_of_a_part_and_of_the_rest_are_together_that_of_the_recipe():
    both = trained((PartDecay(weight_decay=0.5), PartDecay(weight_decay=0.5, on="others")))
    for (name, found), expected in zip(
        weights(both).items(), trained((), weight_decay=0.5).model.parameters(), strict=True
    ):
        assert_close(found, expected, msg=name)


@pytest.mark.parametrize("on", ["transforms", "others"])
def test_decay_of_a_part_leaves_the_gradients_of_the_rest_alone(on):
    torch.manual_seed(0)
    model = SMALL.build()
    hook = PartDecay(weight_decay=0.5, on=on).build(model)
    before = {name: torch.randn_like(each) for name, each in model.named_parameters()}
    for name, each in model.named_parameters():
        each.grad = before[name].clone()
    hook.after_backward(model, Moment(0, 0, 1e-3))
    transforms = {"class.weight", "caps1.weight", "caps2.weight"}
    assert transforms < before.keys()
    for name, each in model.named_parameters():
        decays = (name in transforms) == (on == "transforms")
        assert_close(each.grad, before[name] + decays * 0.5 * each, msg=name)


def test_a_revival_changes_nothing_before_its_epoch_and_what_it_says_from_then_on():
    plain, late = trained((), 3, weight_decay=0.5), trained((Revival(after=3),), 3, weight_decay=0.5)
    for name, found in weights(plain).items():
        assert torch.equal(found, weights(late)[name]), name
    # from its epoch on it is a training that begins there: fresh moments, no decay
    revived = trained((Revival(after=3),), 5, weight_decay=0.5, decay=1.0)
    again = trained((), 3, weight_decay=0.5, decay=1.0)
    fresh = torch.optim.Adam(again.model.parameters(), lr=1e-3)
    data = images().train
    for _ in range(2):
        fresh.zero_grad()
        losses.margin(again.model(data.images).scores, data.labels).mean().backward()
        fresh.step()
    for name, found in weights(again).items():
        assert_close(weights(revived)[name], found, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize(("reset", "ramp"), [(True, 0), (False, 0), (True, 4)])
def test_a_revival_that_was_cut_goes_on_to_the_same_weights(reset, ramp):
    def begun(epochs):
        torch.manual_seed(0)
        hooks = (Revival(after=2, reset=reset, ramp=ramp),)
        recipe = Recipe(batch=12, epochs=5, augment=Augment(), weight_decay=0.5, hooks=hooks)
        training = Training(SMALL.build(), images(), recipe, device="cpu")
        for row in training.rows(progress=False):
            if row["epoch"] == epochs:
                break
        return training

    whole, cut, other = begun(5), begun(3), begun(1)
    other.load_state_dict(cut.state_dict())
    assert other.hooks[0].began and other.optimizer.param_groups[0]["weight_decay"] == 0
    for _ in other.rows(progress=False):
        pass
    for name, found in weights(whole).items():
        assert torch.equal(found, weights(other)[name]), name


def test_a_revival_keeps_the_moments_where_it_is_told_to():
    kept, reset = (trained((Revival(after=2, reset=each),), 3) for each in (False, True))
    for training, steps in ((kept, 3), (reset, 1)):
        assert {state["step"].item() for state in training.optimizer.state.values()} == {steps}


def test_a_revivals_learning_rate_grows_over_its_ramp_and_is_the_recipes_before_and_after():
    hook = Revival(after=2, ramp=4).build(SMALL.build())
    optimizer = torch.optim.Adam(SMALL.build().parameters())
    rates = []
    for step in range(8):
        optimizer.param_groups[0]["lr"] = 0.8  # as the loop sets it before every step
        hook.before_step(optimizer, Moment(epoch=step, step=step, learning_rate=0.8))
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.8, 0.8, 0.2, 0.4, 0.6, 0.8, 0.8, 0.8])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (lambda: Revival(after=0), "after = 0: at least one epoch"),
        (lambda: Revival(after=1, weight_decay=-1.0), "weight_decay = -1.0"),
        (lambda: Revival(after=1, ramp=-1), "ramp = -1: it must be a number of steps, 0 for none"),
        (lambda: PartDecay(weight_decay=-1.0), "weight_decay = -1.0"),
        (lambda: PartDecay(weight_decay=1.0, on="stem"), "on = 'stem' is unknown; allowed: transforms, others"),
        (lambda: PartDecay(weight_decay=1.0).build(ConvNetAvgConfig(size=28).build()), "no transforms that could"),
        (lambda: Recipe(optimizer="lion"), "optimizer 'lion' is unknown; allowed: adam, adamw, sgd"),
        (lambda: Recipe(momentum=0.9), "momentum = 0.9: it is for sgd"),
        (lambda: Recipe(optimizer="sgd", momentum=1.0), "momentum = 1.0: it is for sgd, from 0 and below 1"),
    ],
)
def test_bad_decay_and_optimisers_are_one_sentence(config, words):
    with pytest.raises(ValueError, match=words):
        config()


@pytest.mark.parametrize(
    ("options", "build"),
    [
        ({"optimizer": "adamw", "weight_decay": 0.1}, lambda each: torch.optim.AdamW(each, 1e-3, weight_decay=0.1)),
        (
            {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1},
            lambda each: torch.optim.SGD(each, 1e-3, momentum=0.9, weight_decay=0.1),
        ),
    ],
)
def test_the_optimisers_are_those_of_torch(options, build):
    found = trained((), 3, decay=1.0, **options)
    torch.manual_seed(0)
    model = SMALL.build()
    optimizer, data = build(model.parameters()), images().train
    for _ in range(3):
        optimizer.zero_grad()
        losses.margin(model(data.images).scores, data.labels).mean().backward()
        optimizer.step()
    for (name, weight), expected in zip(found.model.named_parameters(), model.parameters(), strict=True):
        assert_close(weight, expected, atol=1e-5, rtol=1e-4, msg=name)


def test_a_decay_that_float32_rounds_away_is_told():
    with pytest.raises(ValueError, match="takes 1e-08 of a weight per step, which torch"):
        trained((DecoupledDecay(weight_decay=1e-5),), decay=1.0)
    weight = torch.tensor([0.3])
    for part, moves in {2.9e-8: False, 6.1e-8: True}.items():
        assert torch.equal(weight * (1 - part), weight) != moves


def test_keeping_norms_adds_exactly_the_gradient_of_its_penalty():
    cure = KeepNorms(floor=0.4, weight=3.0)
    torch.manual_seed(0)
    model = SMALL.build().double()
    shown, labels = random(6, 1, 14, 14).abs(), torch.arange(6) % 3
    model.train()
    with taps.record(model, "caps1.poses", "caps2.poses") as seen:
        loss = losses.margin(model(shown).scores, labels).mean()
    penalty = sum(3.0 * torch.relu(0.4 - poses.norm(dim=-1).mean(0)).square().sum() for poses in seen.values())
    assert penalty > 0
    wanted = torch.autograd.grad(loss + penalty, list(model.parameters()), allow_unused=True)
    hook = cure.build(model)
    losses.margin(model(shown).scores, labels).mean().backward()
    for (name, parameter), expected in zip(model.named_parameters(), wanted, strict=True):
        assert_close(parameter.grad, expected, atol=1e-9, rtol=1e-6, msg=name)
    hook.close()
    model.zero_grad()
    losses.margin(model(shown).scores, labels).mean().backward()
    plain = torch.autograd.grad(losses.margin(model(shown).scores, labels).mean(), list(model.parameters()))
    for parameter, expected in zip(model.parameters(), plain, strict=True):
        assert_close(parameter.grad, expected, atol=1e-7, rtol=1e-6)


def test_a_kept_norm_rises_where_a_free_one_does_not():
    free, kept = trained(()), trained((KeepNorms(floor=0.9, weight=10.0),), steps=30)

    def norm(training):
        with taps.evaluating(training.model), taps.record(training.model, "caps2.poses") as seen:
            training.model(training.data.train.images)
        return float(layers.length(seen["caps2.poses"]).mean())

    assert norm(kept) > norm(free) + 0.05


def test_hooks_have_no_state_and_evaluation_sees_none():
    torch.manual_seed(0)
    model = SMALL.build()
    hook = KeepNorms().build(model)
    assert hook.state_dict() == {}
    hook.load_state_dict({})
    decay = DecoupledDecay(weight_decay=0.5).build(model)
    before = model.caps1.weight.detach().clone()
    decay.after_step(model, Moment(0, 1, 0.1))
    assert_close(model.caps1.weight, before * 0.95)
    assert decay.state_dict() == {}
    decay.load_state_dict({})


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: DecoupledDecay(weight_decay=-1.0), "weight_decay = -1.0: it cannot be negative"),
        (lambda: KeepNorms(floor=0.0), "floor = 0.0: it must be above 0 and below 1"),
        (lambda: KeepNorms(weight=0.0), "weight = 0.0: it must be above 0"),
        (lambda: KeepNorms().build(replace(SMALL, hidden=()).build()), "no hidden capsules"),
    ],
)
def test_refusals(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


# --- what changes as a network learns

ROUTED = CapsNetConfig(
    size=10,
    dim=4,
    stem=StridedStem(channels=4, kernel=3, types=2, dim=4),
    hidden=((3, 4),),
    decoder="none",
    routing=Dynamic(iterations=3),
)
DATA = DataSpec(crop=20, resize=10, train=60, validation=20, test=20)
HOOK = FollowFitness(images=30)
SPEC = Spec(model=ROUTED, data=DATA, recipe=Recipe(epochs=3, batch=20, augment=Augment(), hooks=(HOOK,)))


def rates(model):
    return [model.caps1.routing.rate, model.get_submodule("class").routing.rate]


def test_fitness_values_by_hand():
    assert [HOOK.value(fitness) for fitness in (0, 0.5, 1)] == pytest.approx([0.01, 0.1, 1])
    cooling = FollowFitness(field="temperature", start=10.0)
    assert [cooling.value(fitness) for fitness in (0, 0.5, 1)] == pytest.approx([10, 10**0.5, 1])
    assert decode(encode(cooling)) == cooling


def test_the_rate_is_that_of_the_accuracy_after_each_epoch():
    data = prepare(DATA)
    training = Training(SPEC.build(), data, SPEC.recipe, device="cpu")
    assert rates(training.model) == [0.01, 0.01] and ROUTED.routing.rate == 1.0
    split = data.train.select(torch.arange(30) * 2)
    before = 0.01
    for _ in training.rows(progress=False):
        # the accuracy was measured at the rate of the epoch that ended
        at_end = rates(training.model)
        for layer in training.hooks[0].layers:
            layer.routing = replace(layer.routing, rate=before)
        assert at_end == [HOOK.value(evaluate(training.model, split).accuracy)] * 2
        for layer in training.hooks[0].layers:
            layer.routing = replace(layer.routing, rate=at_end[0])
        before = at_end[0]


def test_it_changes_the_run_and_a_resume_goes_on_bit_for_bit(tmp_path):
    whole = runs.get(SPEC, root_folder=tmp_path / "whole", progress=False, device="cpu")
    rows = runs.follow(SPEC, root_folder=tmp_path / "cut", progress=False, device="cpu")
    next(rows), next(rows)
    rows.close()
    cut = runs.get(SPEC, root_folder=tmp_path / "cut", progress=False, device="cpu")
    plain = replace(SPEC, recipe=replace(SPEC.recipe, hooks=()))
    other = runs.get(plain, root_folder=tmp_path, progress=False, device="cpu")
    assert rates(whole.model) == [1.0, 1.0]  # a loaded run routes as its configuration says
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, cut.model.state_dict()[name])
    assert not torch.equal(whole.model.caps1.weight, other.model.caps1.weight)


def test_the_margin_by_hand():
    """Hinton et al. on OpenReview: 0.2 + 0.79 sigmoid(min(10, step / 50000 - 4))."""
    grown = GrowMargin()
    sigmoid = [1 / (1 + math.exp(-x)) for x in (-4, 0, 10)]
    assert [grown.margin(step) for step in (0, 200_000, 10**9)] == pytest.approx([0.2 + 0.79 * s for s in sigmoid])
    assert decode(encode(GrowMargin(every=10.0))) == GrowMargin(every=10.0)


def test_the_loss_of_each_step_has_the_margin_of_its_moment(monkeypatch):
    seen, spread = [], losses.spread

    def watched(scores, labels, *, margin=0.9):
        seen.append(float(margin))
        return spread(scores, labels, margin=margin)

    monkeypatch.setitem(losses.LOSSES, "spread", watched)
    hook = GrowMargin(every=2.0, delay=1.0)
    recipe = Recipe(epochs=2, batch=20, augment=Augment(), loss="spread", hooks=(hook,))
    training = Training(SPEC.build(), prepare(DATA), recipe, device="cpu")
    for _ in training.rows(progress=False):
        pass
    steps = [hook.margin(step) for step in range(6)]
    # after each epoch of 3 steps the validation split, with the loss's own margin
    assert seen == pytest.approx([*steps[:3], 0.9, *steps[3:], 0.9])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: GrowMargin(every=0.0), "every = 0.0"),
        (lambda: FollowFitness(field="prior"), "field 'prior' is unknown; allowed: rate, temperature"),
        (lambda: FollowFitness(start=0.0), "start = 0.0 is no rate"),
        (lambda: FollowFitness(end=1.5), "end = 1.5 is no rate"),
        (lambda: FollowFitness(images=0), "images = 0"),
        (lambda: HOOK.build(ConvNetAvgConfig(size=20).build()), "ConvNetAvg has no routing with a rate"),
        (lambda: HOOK.build(replace(ROUTED, routing=Uniform()).build()), "CapsNet has no routing with a rate"),
    ],
)
def test_schedules_refuse(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
