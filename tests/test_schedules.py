"""A growing margin and a routing that follows the training accuracy: values by hand, effect on a run, a resume."""

import math
from dataclasses import replace

import pytest
import torch

from capsnb.data import Augment, DataSpec, prepare
from capsnb.nn import losses
from capsnb.nn.models import CapsNetConfig, ConvNetAvgConfig, StridedStem
from capsnb.nn.routing import Dynamic, Uniform
from capsnb.training import runs
from capsnb.training.evaluation import evaluate
from capsnb.training.hooks import FollowFitness, GrowMargin
from capsnb.training.identity import decode, encode
from capsnb.training.loop import Training
from capsnb.training.recipe import Recipe
from capsnb.training.spec import Spec

MODEL = CapsNetConfig(
    size=10,
    dim=4,
    stem=StridedStem(channels=4, kernel=3, types=2, dim=4),
    hidden=((3, 4),),
    decoder="none",
    routing=Dynamic(iterations=3),
)
DATA = DataSpec(crop=20, resize=10, train=60, validation=20, test=20)
HOOK = FollowFitness(images=30)
SPEC = Spec(model=MODEL, data=DATA, recipe=Recipe(epochs=3, batch=20, augment=Augment(), hooks=(HOOK,)))


def rates(model):
    return [model.caps1.routing.rate, model.get_submodule("class").routing.rate]


def test_values_by_hand():
    assert [HOOK.value(fitness) for fitness in (0, 0.5, 1)] == pytest.approx([0.01, 0.1, 1])
    cooling = FollowFitness(field="temperature", start=10.0)
    assert [cooling.value(fitness) for fitness in (0, 0.5, 1)] == pytest.approx([10, 10**0.5, 1])
    assert decode(encode(cooling)) == cooling


def test_the_rate_is_that_of_the_accuracy_after_each_epoch():
    data = prepare(DATA)
    training = Training(SPEC.build(), data, SPEC.recipe, device="cpu")
    assert rates(training.model) == [0.01, 0.01] and MODEL.routing.rate == 1.0
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
        (lambda: HOOK.build(replace(MODEL, routing=Uniform()).build()), "CapsNet has no routing with a rate"),
    ],
)
def test_refuses(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
