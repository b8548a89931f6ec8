"""What the store has of a grid, and what is read of a series of deaths."""

import pytest

from capsnb.evidence import swept
from capsnb.evidence.sweep import expand
from capsnb.measure import observe
from capsnb.measure.observations import Observation, write

GRID = {
    "base": {"model": "capsnet", "recipe.epochs": 1},
    "grid": {"seed": [0, 1, 2], "recipe.weight_decay": [0.0, 1e-3]},
}


def life(*flags):
    """A series of two hidden layers of two capsules, a record of an epoch each."""
    return {
        "epoch": [float(n + 1) for n in range(len(flags))],
        "step": [10 * n for n in range(len(flags))],
        "dead": [[[1, 1], list(each[:2]), list(each[2:]), [1]] for each in flags],
    }


def test_only_what_the_store_has_in_the_order_of_the_grid(tmp_path):
    grid = expand(GRID)
    made = {"date": "2026-01-01", "seconds": 1800.0}
    for place in (3, 0):
        spec = grid.specs[place]
        found = Observation("accuracy", 1, {}, values={"accuracy, %": float(place)}, made=made)
        write(observe._store_file(spec, tmp_path, None), observe.header(spec), [found])
    seen = swept.swept(grid, "accuracy", store=tmp_path)
    assert [(each.settings["seed"], each.settings["recipe.weight_decay"]) for each in seen] == [(0, 0.0), (1, 1e-3)]
    assert [each.values["accuracy, %"] for each in seen] == [0.0, 3.0]
    assert swept.told(grid, store=tmp_path) == "2 of 6 networks, 1.0 core-hours of training"
    assert swept.swept(grid, "accuracy", store=tmp_path, null="untrained") == []


def test_deaths_of_hidden_capsules_by_hand():
    series = life((0, 0, 0, 0), (1, 0, 1, 1), (0, 0, 1, 0))
    assert swept.dead_hidden(series) == [0, 3, 1]
    assert swept.returned(series, 2) == (3, 2)
    assert swept.returned(series, 2.5) == (3, 2)
    assert swept.returned(series, 1) == (0, 0)
    with pytest.raises(ValueError, match=r"no record up to epoch 0\.5; the first is at 1"):
        swept.returned(series, 0.5)


def test_who_died_and_was_seen_again():
    assert swept.came_back(life((0, 0, 0, 0), (1, 0, 1, 1), (0, 0, 1, 0))) == 2
    assert swept.came_back(life((1, 1, 1, 1), (0, 0, 0, 0))) == 0, "asleep from the start"
    # always alive; dies; dies and returns; asleep; and wakes up, dies at the end
    rows = ((0, 0, 0, 1), (0, 1, 1, 1), (0, 1, 0, 1)), ((1, 0, 0, 0), (0, 0, 0, 0), (1, 0, 0, 0))
    assert [swept.came_back(life(*each)) for each in rows] == [1, 0]


def test_a_training_and_what_went_on_from_its_end_are_one():
    """Three of four are dead at the end of two epochs, two of them are back an epoch later, one returns and dies."""
    whole = swept.joined(life((0, 0, 0, 0), (1, 1, 1, 0)), life((0, 0, 0, 0), (0, 0, 1, 0)))
    assert whole["epoch"] == [1, 2, 3, 4] and whole["step"] == [0, 10, 10, 20]
    assert len(whole["dead"]) == 4
    assert swept.returned(whole, 2) == (3, 2)


def test_who_is_dead_where_a_network_is_first_right():
    series = life((0, 0, 0, 0), (1, 0, 0, 0), (1, 1, 0, 1))
    curve = {"validation accuracy": [0.5, 0.992, 0.99]}
    assert swept.dead_when_right(series, curve, 99.2) == (2, 25.0)
    assert swept.dead_when_right(series, curve, 50) == (1, 0.0)
    assert swept.dead_when_right(series, curve, 99.3) is None


def test_numbers_of_the_dead_and_of_the_living():
    series = life((0, 0, 0, 0), (1, 0, 0, 1), (0, 0, 0, 0), (0, 0, 0, 0))
    values = [[[n, n + 1], [n + 2, n + 3], [100]] for n in (0, 10, 20, 30)]
    found = swept.by_state(series, values, 2)
    assert found["dead"] == {"before": [10, 13], "just after": [20, 23], "end": [30, 33]}
    assert found["alive"] == {"before": [11, 12], "just after": [21, 22], "end": [31, 32]}


def test_deaths_of_networks_that_learned_and_of_those_that_did_not(tmp_path):
    grid = expand(GRID | {"base": GRID["base"] | {"capsules": 4}})
    right = (99.0, 95.0, 12.0)
    for (place, spec), accuracy in zip(
        ((0, grid.specs[0]), (1, grid.specs[1]), (2, grid.specs[2])), right, strict=True
    ):
        values = {"accuracy": {"validation accuracy, %": accuracy}, "parse tree": {"alive": [9, 4, 1 + place, 10]}}
        found = [Observation(name, 1, {}, values=each, made={"date": "2026"}) for name, each in values.items()]
        write(observe._store_file(spec, tmp_path, None), observe.header(spec), found)
    learned, slow = swept.deaths(grid, lambda each: each["recipe.weight_decay"], learned=90, store=tmp_path)
    assert learned == {0.0: {0: 37.5}, 1e-3: {0: 25.0}}
    assert slow == {0.0: {1: 12.5}}


def test_deaths_where_the_loss_first_comes_down_to_one_level(tmp_path):
    grid = expand(GRID)
    lives = [
        life((0, 0, 0, 0), (1, 0, 0, 0), (1, 1, 1, 0)),
        life((0, 0, 1, 0), (0, 0, 1, 1), (1, 1, 1, 1)),
        life((0,) * 4),
    ]
    losses, right = ([0.9, 0.5, 0.1], [0.9, 0.8, 0.4], [0.9]), (97.0, 95.0, 10.0)
    for spec, series, loss, accuracy in zip(grid.specs, lives, losses, right, strict=False):
        values = {"accuracy": {"validation accuracy, %": accuracy}, "life": series, "curve": {"loss": loss}}
        found = [
            Observation(n, 1, {}, values=each, made={"date": "2026"}, watched=n != "accuracy")
            for n, each in values.items()
        ]
        write(observe._store_file(spec, tmp_path, None), observe.header(spec), found)
    found = swept.at_equal_loss(grid, lambda each: each["recipe.weight_decay"], learned=90, store=tmp_path)
    assert found.level == 0.4, "the higher end of the two that learned"
    assert found.reached == {0.0: {0: 75.0}, 1e-3: {0: 100.0}}, "the third never comes down to it"
    with pytest.raises(ValueError, match=r"no network has 99 % of its validation images right"):
        swept.at_equal_loss(grid, lambda each: 0, learned=99, store=tmp_path)


def test_the_first_record_at_a_level():
    assert swept.first_below([3.0, 1.0, 2.0, 0.5], 1.0) == 1
    assert swept.first_below([3.0, 2.0], 1.0) is None


# --- arms compared

ARMS = {
    "plain": {0: {"accuracy": [0.5, 0.8, 0.9], "norm": [2.0, 3.0, 2.5], "share": [0.2, 0.7, 0.9]}},
    "rem": {0: {"accuracy": [0.6, 0.85, 0.8], "norm": [2.0, 2.6, 1.0], "share": [0.1, 0.5, 0.3]}},
    "lost": {1: {"accuracy": [0.1], "norm": [1.0], "share": [0.0]}},
}


def test_arms_at_the_same_epoch_accuracy_and_norm():
    assert swept.at_end(ARMS, "share") == {"plain": {0: 0.9}, "rem": {0: 0.3}, "lost": {1: 0.0}}
    # REM ends at 0.8, which it first had in its second record, as plain had
    assert swept.at_same(ARMS, ("rem", "plain"), "accuracy", "share") == {"rem": {0: 0.5}, "plain": {0: 0.7}}
    # plain ends at a norm of 2.5; REM was below it at first, too, but stays so from its last record on
    assert swept.at_same(ARMS, ("rem", "plain"), "norm", "share", falls=True) == {"rem": {0: 0.3}, "plain": {0: 0.9}}
    assert swept.at_same(ARMS, ("rem", "lost"), "norm", "share") == {}, "no seed of both"
    assert swept.at_same(ARMS, ("rem", "never run"), "norm", "share") == {}


def test_histories_by_name_and_seed(tmp_path):
    grid = expand(GRID)
    series = {"step": [1, 2], "epoch": [1, 2], "share": [0.5, 0.25]}
    found = [Observation("keys in training", 1, {}, values=series, made={"date": "2026"}, watched=True)]
    write(observe._store_file(grid.specs[3], tmp_path, None), observe.header(grid.specs[3]), found)
    name = "recipe.weight_decay"
    read = swept.histories(grid, "keys in training", lambda each: each[name], store=tmp_path)
    assert {decay: list(seeds) for decay, seeds in read.items()} == {1e-3: [1]}
    assert swept.at_end(read, "share") == {1e-3: {1: 0.25}}


def rising(*pairs):
    upright, right = zip(*pairs, strict=True)
    return {"step": list(range(len(pairs))), "upright": list(upright), "a": list(right)}


HISTORY = {
    "quick": {0: rising((80, 50), (90, 60), (98, 70)), 1: rising((80, 40), (96, 80), (97, 90))},
    "slow": {0: rising((60, 50), (80, 52), (94, 80)), 1: rising((70, 40), (90, 60), (92, 70)), 2: rising((50, 1))},
}


def test_arms_are_read_where_all_come_to_one_level():
    found = swept.at_equal(HISTORY, ("quick", "slow"), "upright", "a")
    assert found["quick"] == pytest.approx({0: 65.0, 1: 70.0})  # at 94, half way from 90; at 92, three quarters from 80
    assert found["slow"] == {0: 80.0, 1: 70.0}
    assert swept.at_equal(HISTORY, ("quick", "none"), "upright", "a") == {}


@pytest.mark.parametrize(
    ("level", "value"),
    # half way between two records, a quarter, exactly one, and already at the first
    [(0.6, 0.4), (0.75, 0.575), (0.9, 0.5), (0.4, 0.2)],
)
def test_a_value_at_a_level_by_hand(level, value):
    series = {"mnist": [0.5, 0.7, 0.9, 0.8], "aff": [0.2, 0.6, 0.5, 0.9]}
    assert swept._when_at(series, level, "mnist", "aff") == pytest.approx(value)


def test_curves_end_where_a_seed_no_longer_comes():
    pair = {"quick": HISTORY["quick"], "slow": {0: HISTORY["slow"][0]}}
    found = swept.across(pair, "upright", "a", (50, 85, 90, 97.5))
    assert found["quick"][0] == [85, 90]  # seed 1 stays below 97.5
    assert found["quick"][1] == [pytest.approx([55.0, 60.0]), pytest.approx([52.5, 65.0])]
    assert found["slow"][0] == [85, 90]
