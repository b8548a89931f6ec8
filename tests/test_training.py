"""Training: rows, schedules, stop rules, hooks, and that a resumed training is the uncut one bit for bit."""

from dataclasses import dataclass, replace

import pytest
import torch
from helpers import cut_after
from torch import nn

from capsnb.data import Augment, Batch, ImageSet, Split
from capsnb.nn.models import CapsNetConfig, ConvNetAvgConfig, Output, StridedStem
from capsnb.training.evaluation import batch_loss, correct, evaluate, pick_device, predict
from capsnb.training.loop import Training, freeze, train
from capsnb.training.recipe import Diverged, Recipe

TINY = CapsNetConfig(
    size=12, classes=3, dim=4, stem=StridedStem(channels=4, kernel=3, types=2, dim=4), decoder_widths=(8,)
)


def made_set(count: int = 40, classes: int = 3, size: int = 12) -> ImageSet:
    """Images whose class is the quadrant that is lit: learned within a few steps."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    images = torch.randint(0, 60, (count, 1, size, size), generator=generator, dtype=torch.uint8)
    half = size // 2
    for n, label in enumerate(labels.tolist()):
        y, x = half * (label // 2), half * (label % 2)
        images[n, 0, y : y + half, x : x + half] += 180
    split = Split(images, labels)
    return ImageSet("made", "made by the test", tuple("abc"[:classes]), split, split, split)


def fresh(config=TINY, seed=0):
    torch.manual_seed(seed)
    return config.build()


def equal_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


RECIPE = Recipe(epochs=3, batch=16, augment=Augment(shift=1), learning_rate=3e-3)


def test_rows_have_what_the_docstring_says_and_learning_happens():
    model = fresh()
    rows = list(train(model, made_set(), replace(RECIPE, epochs=30), device="cpu", progress=False))
    assert [row["epoch"] for row in rows] == list(range(1, 31))
    assert rows[-1]["step"] == 30 * 3  # 40 images in batches of 16
    assert {"loss", "accuracy", "validation loss", "validation accuracy", "learning rate", "images/s"} <= set(rows[0])
    assert rows[-1]["loss"] < rows[0]["loss"] / 2
    assert rows[-1]["validation accuracy"] == 1


def test_rows_every_n_steps_and_at_the_end():
    rows = list(train(fresh(), made_set(), replace(RECIPE, report_every=4), device="cpu", progress=False))
    assert [row["step"] for row in rows] == [4, 8, 9]
    assert rows[0]["epoch"] == pytest.approx(1 + 16 / 40)


def test_reported_training_loss_is_the_mean_over_images():
    data, model = made_set(16), fresh()
    recipe = replace(RECIPE, epochs=1, augment=Augment())
    before = batch_loss(
        model(data.train.images, data.train.labels), Batch(data.train.images, data.train.labels), "margin", 5e-4
    )
    (row,) = train(model, data, recipe, device="cpu", progress=False)
    assert row["loss"] == pytest.approx(before.mean().item(), rel=1e-5)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    def trained(seed):
        model = fresh()
        list(train(model, made_set(), RECIPE, seed=seed, device="cpu", progress=False))
        return model

    assert equal_weights(trained(1), trained(1))
    assert not equal_weights(trained(1), trained(2))


@pytest.mark.parametrize("cut", [1, 2, 4, 7, 8])
def test_a_training_cut_at_any_step_goes_on_bit_for_bit(cut):
    whole = Training(fresh(), made_set(), RECIPE, device="cpu")
    rows = list(whole.rows(progress=False))
    first = cut_after(Training(fresh(), made_set(), RECIPE, device="cpu"), cut, images=40)
    second = Training(fresh(seed=5), made_set(), RECIPE, device="cpu")
    second.load_state_dict(first.state_dict())
    list(second.rows(progress=False))
    assert equal_weights(whole.model, second.model)
    timeless = [{name: value for name, value in row.items() if name != "images/s"} for row in second.history]
    assert timeless == [{name: value for name, value in row.items() if name != "images/s"} for row in rows]


def test_learning_rate_decays_smoothly_by_steps_or_in_stairs_by_epochs():
    smooth = Recipe()
    assert smooth.learning_rate_at(0, 0) == 1e-3
    assert smooth.learning_rate_at(1000, 0) == pytest.approx(1e-3 * 0.96**0.5)
    assert smooth.learning_rate_at(10**7, 0) == 1e-6
    stairs = Recipe(decay=0.99, decay_every=1, decay_unit="epochs")
    assert stairs.learning_rate_at(777, 0) == 1e-3
    assert stairs.learning_rate_at(777, 2) == pytest.approx(1e-3 * 0.99**2)


def test_target_accuracy_and_patience_stop_early():
    long = replace(RECIPE, epochs=60)
    reached = list(
        train(fresh(), made_set(), replace(long, target_accuracy=0.9, stop_on="test"), device="cpu", progress=False)
    )
    assert len(reached) < 60
    assert reached[-1]["test accuracy"] >= 0.9
    assert all(row["test accuracy"] < 0.9 for row in reached[:-1])
    still = replace(long, learning_rate=1e-12, min_learning_rate=1e-12, patience=2)
    assert len(list(train(fresh(), made_set(), still, device="cpu", progress=False))) <= 6


def test_keep_best_returns_the_weights_of_the_best_report():
    data, model = made_set(), fresh()
    # a learning rate that wrecks the model: the best report is an early one
    recipe = replace(RECIPE, epochs=6, learning_rate=0.5, keep="best", decay=1.0)
    rows = list(train(model, data, recipe, device="cpu", progress=False))
    assert evaluate(model, data.validation).loss == pytest.approx(min(row["validation loss"] for row in rows), rel=1e-5)


def test_a_loss_that_is_not_finite_stops_with_a_sentence_and_the_last_report_stands():
    training = Training(fresh(), made_set(), RECIPE, device="cpu")
    rows = training.rows(progress=False)
    next(rows)
    good = {name: value.clone() for name, value in training.state_dict()["model"].items()}
    with torch.no_grad():
        training.model.primary.conv.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(Diverged, match="not a finite number in 3 of the steps"):
        next(rows)
    assert len(training.history) == 1
    assert all(value.isfinite().all() for value in good.values())


@dataclass(frozen=True)
class Counting:
    """A hook's configuration that adds to the gradient of the primary bias and counts its calls."""

    amount: float = 0.0

    def build(self, model):
        return CountingHook(self.amount)


class CountingHook:
    def __init__(self, amount):
        self.amount, self.calls = amount, {"after_backward": 0, "after_epoch": 0}

    def after_backward(self, model, moment):
        self.calls["after_backward"] += 1
        assert model.primary.conv.bias.grad is not None
        model.primary.conv.bias.grad += self.amount

    def after_epoch(self, model, data, moment):
        self.calls["after_epoch"] += 1
        assert moment.epoch == self.calls["after_epoch"] - 1

    def state_dict(self):
        return dict(self.calls)

    def load_state_dict(self, state):
        self.calls = dict(state)


def test_hooks_see_gradients_change_the_step_and_keep_state():
    training = Training(fresh(), made_set(), replace(RECIPE, hooks=(Counting(),)), device="cpu")
    list(training.rows(progress=False))
    assert training.state_dict()["hooks"] == [{"after_backward": 9, "after_epoch": 3}]
    pushed = Training(fresh(), made_set(), replace(RECIPE, hooks=(Counting(amount=1e3),)), device="cpu")
    list(pushed.rows(progress=False))
    assert not torch.equal(pushed.model.primary.conv.bias, training.model.primary.conv.bias)


def test_what_is_watched_sees_evaluation_mode_and_leaves_training_untouched():
    def nosy(training):
        assert not training.model.training
        torch.rand(3)
        training.model(training.data.train.images[:2]).scores.sum().backward()
        return torch.tensor([1.0, 2.0])

    plain, watched = (Training(fresh(), made_set(), RECIPE, device="cpu") for _ in range(2))
    list(plain.rows(progress=False))
    rows = list(watched.rows(progress=False, watch={"nosy": nosy}))
    assert rows[0]["nosy"] == [1.0, 2.0]
    assert list(rows[0]) == [*watched.columns, "nosy"]
    assert equal_weights(plain.model, watched.model)
    with pytest.raises(ValueError, match="'loss' is a column of every training: watch under another name"):
        next(watched.rows(watch={"loss": nosy}))


def test_frozen_parts_keep_weights_and_statistics():
    config = replace(TINY, decoder="conditional")
    model = fresh(config)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    training = Training(model, made_set(), replace(RECIPE, weight_decay=0.1), device="cpu", frozen=("conv1", "primary"))
    list(training.rows(progress=False))
    for name, value in model.state_dict().items():
        assert torch.equal(value, start[name]) == name.startswith(("conv1", "primary")), name
    with pytest.raises(ValueError, match=r"no part 'nothing'.*conv1"):
        freeze(model, ("nothing",))


def test_correct_needs_every_label_in_the_top():
    scores = torch.tensor([[0.9, 0.8, 0.1], [0.9, 0.1, 0.8], [0.1, 0.2, 0.3]])
    assert correct(scores, torch.tensor([0, 1, 2])).tolist() == [True, False, True]
    assert correct(scores, torch.tensor([[1, 0], [0, 1], [1, 2]])).tolist() == [True, False, True]


def test_evaluate_and_predict_agree_with_a_plain_pass_and_restore_modes():
    data, model = made_set(), fresh()
    model.train()
    model.primary.eval()
    result = evaluate(model, data.test, batch=7)
    output = model.eval()(data.test.images)
    assert result.accuracy == pytest.approx((output.scores.argmax(1) == data.test.labels).float().mean().item())
    model.train()
    assert torch.allclose(predict(model, data.test, batch=9).scores, output.scores, atol=1e-6)
    assert result.count == 40


def test_evaluation_masks_the_decoder_by_the_longest_capsule_not_by_the_label():
    data, model = made_set(8), fresh()
    wrong = Split(data.test.images, (model(data.test.images).scores.argmax(1) + 1) % 3)
    pictures = model(data.test.images).reconstruction
    by_hand = ((pictures - data.test.images / 255) ** 2).sum().item() / 8 * 5e-4
    class_only = evaluate(model, wrong, reconstruction_weight=0).loss
    assert evaluate(model, wrong).loss == pytest.approx(class_only + by_hand, rel=1e-5)


def test_pairs_are_compared_with_their_two_pictures():
    targets = torch.zeros(1, 2, 1, 1, 1, dtype=torch.uint8)
    targets[0, 1] = 255
    batch = Batch(torch.zeros(1, 1, 1, 1, dtype=torch.uint8), torch.tensor([[0, 1]]), targets)
    output = Output(torch.tensor([[0.9, 0.9, 0.1]]), None, torch.full((1, 2, 1, 1, 1), 0.5))
    assert batch_loss(output, batch, "margin", 2.0).item() == pytest.approx(2 * (0.25 + 0.25))


def test_a_convnet_trains_on_logits():
    config = ConvNetAvgConfig(size=12, classes=3, width=8, kernel=3)
    rows = list(
        train(
            fresh(config),
            made_set(),
            replace(RECIPE, loss="cross-entropy", epochs=40),
            device="cpu",
            progress=False,
        )
    )
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_bfloat16_training_is_finite_and_close_to_float32():
    rows = {
        precision: next(
            iter(train(fresh(), made_set(), replace(RECIPE, precision=precision), device="cpu", progress=False))
        )["loss"]
        for precision in ("float32", "bfloat16")
    }
    assert rows["bfloat16"] == pytest.approx(rows["float32"], rel=0.05)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"loss": "hinge"}, "loss 'hinge' is unknown; allowed: margin"),
        ({"precision": "int8"}, "precision 'int8'"),
        ({"stop_on": "train"}, "stop_on 'train'"),
        ({"epochs": 0}, "epochs = 0: it must be above 0"),
        ({"batch": -1}, "batch = -1"),
        ({"report_every": 0}, "report_every = 0: it must be a number of steps"),
    ],
)
def test_bad_recipes_say_what_is_allowed(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        Recipe(**change)


def test_an_absent_device_is_named():
    with pytest.raises(ValueError, match="'nonsense' cannot be used here"):
        pick_device("nonsense")
