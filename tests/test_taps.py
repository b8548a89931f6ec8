import contextlib
import weakref

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from capsnb.nn import taps


class Toy(nn.Module):
    """Doubles, adds one: a network whose every tensor is known by hand. (B, I) -> (B,)"""

    def __init__(self):
        super().__init__()
        self.doubled = taps.Tap()
        self.layer = Layer()
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.layer(self.doubled(2 * x)).sum(1)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.votes, self.tap = taps.Tap(), taps.Tap()

    def forward(self, x):
        return self.tap(self.votes(x) + 1)


@pytest.fixture
def model():
    return Toy()


X = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


def test_names_are_paths_without_a_last_tap(model):
    assert set(taps.names(model)) == {"doubled", "layer.votes", "layer"}
    assert taps.names(nn.Linear(2, 2)) == ()


def test_taps_are_no_parameters(model):
    assert not model.state_dict() and not list(model.parameters())


def test_record_reads_what_passes(model):
    with taps.record(model, "doubled", "layer") as seen:
        out = model(X)
    assert torch.equal(seen["doubled"], 2 * X)
    assert torch.equal(seen["layer"], 2 * X + 1)
    assert torch.equal(out, torch.tensor([8.0, 16.0]))
    assert set(seen) == {"doubled", "layer"} and len(seen) == 2
    assert dict(seen).keys() == {"doubled", "layer"}


def test_a_second_call_appends_along_the_batch(model):
    with taps.record(model, "doubled") as seen:
        model(X)
        assert seen["doubled"].shape == (2, 2)  # readable inside the block too
        model(X[:1])
        assert torch.equal(seen["doubled"], 2 * torch.cat([X, X[:1]]))
        model(X)
    assert torch.equal(seen["doubled"], 2 * torch.cat([X, X[:1], X]))
    assert "append" in repr(seen)


def test_nothing_is_recorded_after_the_block(model):
    with taps.record(model, "doubled") as seen:
        model(X)
    model(X)
    assert seen["doubled"].shape == (2, 2)


def test_a_recorded_tensor_keeps_its_gradient(model):
    x = X.clone().requires_grad_()
    with taps.record(model, "doubled", "layer") as seen:
        out = model(x)
    assert_close(torch.autograd.grad(out.sum(), seen["doubled"])[0], torch.ones(2, 2))
    (gradient,) = torch.autograd.grad(seen["layer"][0, 1], x)
    assert torch.equal(gradient, torch.tensor([[0.0, 2.0], [0.0, 0.0]]))


def test_an_edit_changes_what_comes_after(model):
    with taps.edit(model, {"doubled": lambda t: 10 * t}):
        assert torch.equal(model(X), torch.tensor([62.0, 142.0]))
    assert torch.equal(model(X), torch.tensor([8.0, 16.0]))


def test_a_gradient_goes_through_an_edit(model):
    x = X.clone().requires_grad_()
    with taps.edit(model, {"doubled": lambda t: 10 * t}):
        assert_close(torch.autograd.grad(model(x).sum(), x)[0], torch.full((2, 2), 20.0))


def test_a_record_sees_the_edited_value_whichever_came_first(model):
    tenfold = {"doubled": lambda t: 10 * t}
    with taps.edit(model, tenfold), taps.record(model, "doubled") as seen:
        model(X)
    with taps.record(model, "doubled") as before, taps.edit(model, tenfold):
        model(X)
    assert torch.equal(seen["doubled"], 20 * X) and torch.equal(before["doubled"], 20 * X)


def test_nested_edits_run_in_the_order_they_were_entered(model):
    with taps.edit(model, {"doubled": lambda t: t + 1}), taps.edit(model, {"doubled": lambda t: 10 * t}):
        assert torch.equal(model(X), 10 * (2 * X + 1).sum(1) + 2)
    with taps.edit(model, {"doubled": lambda t: 10 * t}):
        with taps.edit(model, {"doubled": lambda t: t + 1}):
            assert torch.equal(model(X), (20 * X + 1).sum(1) + 2)
        assert torch.equal(model(X), 20 * X.sum(1) + 2)  # the inner one is gone, the outer one is left


def test_the_same_edit_twice_leaves_one_at_a_time(model):
    def tenfold(t):
        return 10 * t

    outer, inner = taps.edit(model, {"doubled": tenfold}), taps.edit(model, {"doubled": tenfold})
    with outer:
        with inner:
            assert torch.equal(model(X), 200 * X.sum(1) + 2)
        assert torch.equal(model(X), 20 * X.sum(1) + 2)
    assert torch.equal(model(X), 2 * X.sum(1) + 2)


def test_nested_records_are_separate(model):
    with taps.record(model, "doubled") as outer:
        model(X)
        with taps.record(model, "doubled", "layer") as inner:
            model(X[:1])
        model(X)
    assert inner["doubled"].shape == (1, 2) and outer["doubled"].shape == (5, 2)


def test_an_exception_leaves_no_edit_and_no_reader_behind(model):
    def fails(t):
        raise RuntimeError("inside")

    edits = {"layer.votes": lambda t: t * 0, "doubled": fails}
    with pytest.raises(RuntimeError, match="inside"), taps.record(model, "layer"), taps.edit(model, edits):
        model(X)
    assert torch.equal(model(X), torch.tensor([8.0, 16.0]))
    assert all(taps.find(model, name).idle for name in taps.names(model))


def test_a_missing_tap_lists_those_there_are_and_changes_nothing(model):
    for enter in (
        lambda: taps.record(model, "doubled", "class.poses"),
        lambda: taps.edit(model, {"doubled": lambda t: t * 0, "class.poses": lambda t: t}),
    ):
        with pytest.raises(ValueError, match=r"class\.poses") as error, enter():
            pass
        text = str(error.value)
        assert all(name in text for name in taps.names(model)) and "\n" not in text
    assert torch.equal(model(X), torch.tensor([8.0, 16.0]))
    with pytest.raises(ValueError, match="none"), taps.record(nn.Linear(2, 2), "doubled"):
        pass


def test_asking_a_record_for_something_else_is_an_error(model):
    with taps.record(model, "doubled") as seen:
        with pytest.raises(ValueError, match="call the model"):
            seen["doubled"]
        model(X)
    with pytest.raises(ValueError, match="doubled"):
        seen["layer"]


def test_a_record_knows_what_is_in_it(model):
    with taps.record(model, "doubled") as seen:
        model(X)
    assert "doubled" in seen and "layer" not in seen


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_model_says_so(model):
    compiled = torch.compile(model, backend="eager")
    with pytest.raises(ValueError, match="compiled"), taps.record(compiled, "doubled"):
        pass


# ---------------------------------------------------------------- keep


def test_keep_zeroes_the_others(model):
    poses = torch.arange(1.0, 13.0).reshape(2, 3, 2)
    kept = taps.keep(torch.tensor([True, False, True]))(poses)
    assert torch.equal(kept[:, 1], torch.zeros(2, 2)) and torch.equal(kept[:, ::2], poses[:, ::2])
    each = taps.keep(torch.tensor([[1, 0, 0], [0, 0, 1]]))(poses)
    assert torch.equal(each[0, 0], poses[0, 0]) and torch.equal(each[1, 2], poses[1, 2])
    assert each.count_nonzero() == 4
    maps = torch.ones(2, 3, 4, 5)
    assert taps.keep(torch.tensor([0, 1, 0]))(maps).sum() == 2 * 20
    with taps.edit(model, {"doubled": taps.keep(torch.tensor([False, True]))}):
        assert torch.equal(model(X), 2 * X[:, 1] + 2)


# ---------------------------------------------------------------- stream


def batches(count):
    for n in range(count):
        yield X + n, torch.tensor([n, n])


def test_stream_folds_to_what_record_holds(model):
    with taps.record(model, "doubled", "layer") as seen:
        for images, _ in batches(3):
            model(images)
    for name in ("doubled", "layer"):
        total = taps.stream(model, batches(3), name, lambda state, seen, _, name=name: state + seen[name].sum(0), 0)
        assert torch.equal(total, seen[name].sum(0))
    both = taps.stream(
        model, batches(3), ["doubled", "layer"],
        lambda state, seen, _: [*state, (seen["doubled"], seen["layer"])], [],
    )  # fmt: skip
    assert torch.equal(torch.cat([doubled for doubled, _ in both]), seen["doubled"])
    assert torch.equal(torch.cat([layer for _, layer in both]), seen["layer"])


def test_stream_hands_the_batch_and_returns_its_start_without_one(model):
    labels = taps.stream(model, batches(2), "doubled", lambda state, _, batch: [*state, *batch[1].tolist()], [])
    assert labels == [0, 0, 1, 1]
    assert taps.stream(model, batches(0), "doubled", lambda *_: 1, "start") == "start"
    assert taps.stream(model, batches(1), "doubled", lambda state, *_: state) is None


def test_stream_holds_one_batch_at_a_time(model):
    earlier = []

    def watched():
        for images, labels in batches(4):
            assert all(reference() is None for reference in earlier[:-1]), "an earlier batch is still held"
            yield images, labels

    def fold(state, seen, batch):
        assert seen["doubled"].shape == (2, 2)  # this batch alone
        assert all(reference() is None for reference in earlier), "an earlier batch is still held"
        earlier.append(weakref.ref(seen["doubled"]))
        return state + 1

    assert taps.stream(model, watched(), "doubled", fold, 0) == 4


def test_stream_runs_in_evaluation_mode_and_gives_every_mode_back(model):
    model.train()
    model.drop.eval()  # as a frozen part would be

    def fold(state, seen, _):
        assert not model.training and not torch.is_grad_enabled()

    taps.stream(model, batches(1), "doubled", fold)
    assert model.training and model.layer.training
    assert not model.drop.training


def test_stream_cleans_up_after_an_error(model):
    model.train()

    def fold(*_):
        raise RuntimeError("in the fold")

    with pytest.raises(RuntimeError, match="in the fold"):
        taps.stream(model, batches(1), "doubled", fold)
    assert model.training and taps.find(model, "doubled").idle
    with pytest.raises(ValueError, match="nothing"):
        taps.stream(model, batches(1), "nothing", fold)


# --- many edits of one batch


class Counting(nn.Module):
    """Doubles, and counts how often."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return 2 * x


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.layer, self.last = Counting(), Layer(), Counting()

    def forward(self, x):
        return self.last(self.layer(self.first(x + 0)))


@pytest.mark.parametrize("times", [1, 2])
def test_what_lies_before_an_edit_is_computed_once(times):
    model = Two()
    with contextlib.ExitStack() as stack:
        for _ in range(times):
            stack.enter_context(taps.once(model))
        for amount in range(3):
            with taps.edit(model, {"layer": lambda x, amount=amount: x + amount}):
                assert torch.equal(model(X), 2 * (2 * X + 1 + amount))
        assert (model.first.calls, model.last.calls) == (1, 3)
        assert torch.equal(model(-X), 2 * (-2 * X + 1)), "of another batch nothing is remembered"
        with taps.record(model, "layer.votes") as seen:
            assert torch.equal(model(-X), 2 * (-2 * X + 1))
        assert torch.equal(seen["layer.votes"], -2 * X), "a part that is read runs again"
        assert (model.first.calls, model.last.calls) == (2, 4)
    model(-X), model(-X)
    assert (model.first.calls, model.last.calls) == (4, 6), "outside the block it runs as ever"


def test_a_part_with_a_forward_of_its_own_keeps_it():
    model = Two()
    model.first.forward = mine = lambda x: 3 * x
    with pytest.raises(RuntimeError, match="stop"), taps.once(model):
        assert torch.equal(model(X), 2 * (3 * X + 1))
        raise RuntimeError("stop")
    assert model.first.forward is mine and "forward" not in vars(model.last)


def test_a_part_that_is_given_something_by_name_runs_as_ever():
    class Scaled(nn.Module):
        def forward(self, x, factor=1):
            return factor * x

    model = nn.Sequential(Scaled())
    with taps.once(model):
        assert torch.equal(model[0](X, factor=3), 3 * X) and torch.equal(model[0](X, factor=2), 2 * X)
        assert torch.equal(model[0](X), X)
