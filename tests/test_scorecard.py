"""The scorecard: effects over nulls worked out by hand, its picture, and the command with a stranger's routing."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from capsnb import cli, plot
from capsnb.data import prepare
from capsnb.evidence import Claim, Correlation, plans, sweep, swept, verdict
from capsnb.evidence.columns import CHANCE, COLUMNS, CONTROLS, GROUPS, Column, at
from capsnb.evidence.effects import differences, drawn_survivors, effects, nulls, rank_correlations
from capsnb.evidence.scorecard import (
    BEFORE,
    EVEN,
    ITSELF,
    Cell,
    frame,
    is_even,
    of_grid,
    of_plan,
    of_recorded,
    of_sets,
    pairwise_alike,
    scorecard,
    shown,
    untrained,
)
from capsnb.measure.dictionary import grouped_alike
from capsnb.measure.observe import UNTRAINED
from capsnb.measure.protocol import find

GRIDS = Path(__file__).parents[1] / "notebooks" / "sweeps"


@pytest.fixture(scope="module")
def plan():
    whole = plans.plan("08", "smoke", seeds=3)
    few = ("by agreement", "ConvNet, lengths", "ConvNet, linear")
    return replace(
        whole, specs={name: whole.specs[name] for name in few}, settings=whole.settings | {"controls": few[1:]}
    )


@pytest.fixture(scope="module")
def card(plan):
    few = ("keeps of a turn", "lost by scale", "certain", "keys", "same trees", "moves")
    columns = [column for column in COLUMNS if column.name in few]
    return scorecard(plan.specs, of_plan(plan), columns, controls=plan.settings["controls"])


def named(*names):
    return [column for column in COLUMNS if column.name in names]


def test_a_way_leads_through_names_and_places_and_to_nan_where_nothing_was_found():
    values = {"several, %": {"dimensions": [10, 20, None]}}
    assert at("several, %", "dimensions", 1)(values) == 20.0
    assert math.isnan(at("several, %", "dimensions", 2)(values))


def test_an_effect_is_the_number_less_its_null_seed_by_seed():
    cell = Cell({0: 1.0, 1: 2.0, 2: 6.0, 3: 9.0}, {0: 0.5, 1: 1.0, 2: 4.5})
    assert cell.sample.n == 3 and cell.sample.mean == pytest.approx(1.0)  # 0.5, 1, 1.5
    assert cell.sample.interval == pytest.approx((1 - 4.3027 * 0.5 / 3**0.5, 1 + 4.3027 * 0.5 / 3**0.5), abs=1e-4)
    assert not cell.decided
    assert Cell({0: 1.0, 1: 1.1, 2: 1.2}, dict.fromkeys(range(3), 0.0)).decided
    assert not Cell({}, {}, "there is no decoder").decided


def test_each_column_is_a_measure_that_capsnb_has():
    assert len({column.name for column in COLUMNS}) == len(COLUMNS)
    for column in (each for each in COLUMNS if not each.why):
        find(column.measure).settings(**column.settings)
        assert (column.value is None) == (column.measure == GROUPS)
        assert callable(column.null) or column.null in (UNTRAINED, CONTROLS, CHANCE)


def test_the_columns_of_a_paper_stand_side_by_side():
    papers = [paper for paper, _ in itertools.groupby(COLUMNS, key=lambda column: column.paper)]
    assert papers == sorted(set(papers))


def test_two_seeds_that_group_alike_have_one_and_others_their_mean_over_pairs():
    same, other = [0, 0, 1, 1], [0, 1, 0, 1]
    predicted = [3] * 4
    seen = {seed: {"groups": same, "predicted": predicted} for seed in range(3)}
    assert pairwise_alike(seen) == pytest.approx(dict.fromkeys(range(3), 1.0))
    seen[2] = {"groups": other, "predicted": predicted}
    # 0 and 1 agree wholly; with 2 neither does: of four pairs of images none is together in both, one is expected
    pairs = {(0, 1): 1.0, (0, 2): grouped_alike((same, predicted), (other, predicted)), (1, 2): -0.5}
    assert pairs[0, 2] == pytest.approx(-0.5)
    found = pairwise_alike(seen)
    assert np.mean(list(found.values())) == pytest.approx(np.mean(list(pairs.values())))
    assert found == pytest.approx({0: 0 + 1.0, 1: 0 + 1.0, 2: 0 - 2.0})  # 3 x mean less 2 x the pairs without the seed


def test_two_seeds_alone_have_no_spread_and_no_number():
    assert (
        pairwise_alike({0: {"groups": [0, 1], "predicted": [0, 0]}, 1: {"groups": [0, 1], "predicted": [0, 0]}}) == {}
    )


def test_a_cell_is_what_the_measure_says_of_the_network_less_what_it_says_before_training(plan, card):
    column = next(column for column in COLUMNS if column.name == "keeps of a turn")
    (spec, *_), measure = plan.specs["by agreement"], find(column.measure)
    data = prepare(spec.data)
    trained, untrained = (measure(model, data) for model in (plan.get(spec, progress=False).model, spec.build()))
    cell, name = card["by agreement"][column.name], "class capsules keep of a turn, share"
    assert cell.values[0] - cell.nulls[0] == pytest.approx(trained[name] - untrained[name], rel=1e-6)


def test_a_grid_in_the_evidence_store_is_a_card_without_any_training():
    grid = sweep.read_grid(GRIDS / "resurrection.toml")
    column = next(column for column in COLUMNS if column.name == "dead")
    dead, revived = "decay on, moments kept", "decay off, moments reset"
    card = scorecard([dead, revived, "nobody"], of_grid(grid, lambda each: each["case"]), [column])
    rows = {row.settings["seed"]: row.values for row in swept.swept(grid, "starvation") if row.settings["case"] == dead}
    cell = card[dead]["dead"]
    assert cell.values == {seed: each["dead capsules, %"] for seed, each in rows.items()}
    assert cell.sample.n == 5 and cell.decided and not card[revived]["dead"].decided
    assert card["nobody"]["dead"] == Cell({}, {}, observation="starvation@1")


def test_what_a_transformation_costs_stands_beside_the_mean_of_the_controls(plan, card):
    named = [card[name]["lost by scale"] for name in plan.settings["controls"]]
    for seed in range(3):
        mean = sum(cell.values[seed] for cell in named) / len(named)
        assert card["by agreement"]["lost by scale"].nulls[seed] == pytest.approx(mean)


def test_a_network_without_couplings_says_why_it_has_no_number(card):
    for name in ("certain", "keys", "same trees", "moves"):
        assert "coupling" in card["ConvNet, linear"][name].reason
    assert card["by agreement"]["moves"].sample.n == 3
    assert {shown(card)["ConvNet, linear"][name] for name in ("certain", "keys", "same trees")} == {"no routing"}


def test_even_couplings_rank_no_units():
    """Equal couplings are ties, which the first units win: a column of ranked units has no number there."""
    whole = plans.plan("08", "smoke")
    ranking = {column.name for column in COLUMNS if column.ranks}
    assert ranking == {"few units", "set answers", "parts in wholes"}
    even = {name for name, specs in plans.plan("08", "long").specs.items() if is_even(specs[0])}
    assert even == {"not routed", "one transform", "not routed, Fashion-MNIST"}
    both = replace(whole, specs={name: whole.specs[name] for name in ("by agreement", "not routed")})
    card = scorecard(both.specs, of_plan(both), named("few units", "parts in wholes", "moves"))
    assert {card["not routed"][name].reason for name in ("few units", "parts in wholes")} == {EVEN}
    assert shown(card)["not routed"]["few units"] == "no ranks"
    assert all(cell.sample.n == 1 for cell in card["by agreement"].values()) and card["not routed"]["moves"].sample.n


def test_the_same_networks_before_training_stand_over_the_same_nulls(plan):
    column, over = named("parts in wholes", "moves")
    found = untrained(["by agreement"], of_plan(plan), [column, over])["by agreement"]
    data, measure = prepare(plan.specs["by agreement"][0].data), find(column.measure)
    values = measure(plan.specs["by agreement"][0].build(), data)
    effect = values["part inside its whole (RMA), %"] - values["null: inside another image's, %"]
    assert found[column.name].values[0] - found[column.name].nulls[0] == pytest.approx(effect)
    assert found["moves"].reason == ITSELF and not found["moves"].values


def test_a_page_of_grids_has_rows_before_training_that_are_the_nulls_of_claims():
    page = of_recorded([GRIDS / "resurrection.toml"], before=True)
    case = "never decayed"
    (before,) = nulls(page.card, "parts in wholes", [case]).items()
    assert (
        before[0] == case and before[1] == effects(page.card, "parts in wholes", [f"{case}{BEFORE}"])[f"{case}{BEFORE}"]
    )
    assert page.card[f"{case}{BEFORE}"]["keys"].reason == ITSELF and nulls(page.card, "keys", [case]) == {}
    assert page.sources[f"{case}{BEFORE}"] == "resurrection.toml"
    assert BEFORE not in "".join(of_recorded([GRIDS / "resurrection.toml"]).card)


def test_controls_of_a_grid_stand_under_the_costs_of_its_cases():
    names = ("convnet-fc", "convnet-avg")
    alone, beside = (of_recorded([GRIDS / "affine.toml"], before=True, controls=each) for each in ((), names))
    assert beside.controls == names and [each.name for each in beside.columns] == [each.name for each in alone.columns]
    for row, of in ("capsnet", ""), ("capsnet-nor", BEFORE):
        cost, plain = (page.card[f"{row}{of}"]["lost by shifts"] for page in (beside, alone))
        others = [alone.card[f"{name}{of}"]["lost by shifts"].values for name in names]
        assert cost.values == plain.values and set(plain.nulls.values()) == {0.0} and len(cost.values) == 5
        assert cost.nulls == {seed: pytest.approx((others[0][seed] + others[1][seed]) / 2) for seed in range(5)}
    assert beside.card["capsnet"]["compact"] == alone.card["capsnet"]["compact"]
    with pytest.raises(ValueError, match="no case 'convnet' that could be a control; it has: convnet-fc, capsnet"):
        of_recorded([GRIDS / "affine.toml"], controls=("convnet",))


def test_effects_are_there_for_all_networks_or_for_none():
    card = {"a": {"x": Cell({0: 2.0, 1: 3.0}, {0: 0.5})}, "b": {"x": Cell({}, {}, "none")}}
    assert effects(card, "x", ["a"]) == {"a": {0: 1.5}}
    assert effects(card, "x", ["a", "b"]) == effects(card, "x", ["nobody"]) == effects(card, "y", ["a"]) == {}


def test_differences_are_paired_by_seed_and_corrected_over_the_table():
    """Of one network two more than of the other, give or take a little; of a second column nothing that is sure."""
    one = {
        "x": Cell({0: 3.0, 1: 4.1, 2: 4.9}, dict.fromkeys(range(3), 0.0)),
        "y": Cell({0: 1, 1: -1, 2: 1}, dict.fromkeys(range(3), 0)),
    }
    two = {
        "x": Cell({0: 1.0, 1: 2.0, 2: 3.0}, dict.fromkeys(range(3), 0.0)),
        "y": Cell(dict.fromkeys(range(3), 0), dict.fromkeys(range(3), 0)),
    }
    found = differences({"one": one, "two": two}, [("one", "two")], ["x", "y", "z"])
    assert list(found.index) == [("one less two", "x"), ("one less two", "y")]
    row = found.loc[("one less two", "x")]
    half = 4.3027 * np.std([2.0, 2.1, 1.9], ddof=1) / 3**0.5
    assert (row.difference, row.low, row.high) == pytest.approx((2.0, 2 - half, 2 + half), abs=1e-4)
    assert list(found["beyond zero"]) == [True, False] and list(found.survives) == [True, False]
    same = differences({"one": one, "two": one}, [("one", "two")], ["x"])
    assert len(same) == 0  # nothing random was measured


def test_each_set_of_images_has_controls_of_its_own(plan):
    """Robustness is compared with the ConvNets of the same set, whatever stands on the page above."""
    here, there = plan.settings["controls"]
    apart = {"another set": {"networks": ["by agreement", there], "controls": [there]}}
    both = replace(plan, settings=plan.settings | {"controls": (here,), "apart": apart})
    page = of_sets(both, [column for column in COLUMNS if column.name == "lost by scale"])
    cells = {name: each["lost by scale"] for name, each in page.card.items()}
    assert page.controls == (here, there) and list(cells) == [here, "by agreement", there]
    assert cells["by agreement"].nulls == cells[there].values == cells[there].nulls
    assert cells[here].nulls == cells[here].values


def test_what_asks_for_trainings_of_its_own_says_so_everywhere(plan):
    (column,) = [column for column in COLUMNS if column.name == "transfer cost"]
    card = scorecard(plan.specs, of_plan(plan), [column])
    assert {each["transfer cost"].reason for each in card.values()} == {column.why}
    assert "trainings of its own" in column.why


def test_the_plan_declares_three_kinds_on_another_set():
    whole = plans.plan("08", "long")
    found = whole.settings["apart"]["Fashion-MNIST"]
    assert len(found["networks"]) == 3 and found["controls"] == found["networks"][-1:]
    for name in found["networks"]:
        specs, same = whole.specs[name], whole.specs[name.removesuffix(", Fashion-MNIST")]
        assert [spec.seed for spec in specs] == [0, 1, 2, 3, 4]
        assert {spec.data.name for spec in specs} == {"fashion-mnist"} and specs[0].model == same[0].model


def test_a_cell_of_the_file_is_recomputed_from_lines_of_the_evidence_store(tmp_path):
    """By hand: the runs that the row names, the observation's numbers, the untrained network's, Student's t."""
    out, grid = tmp_path / "deep.csv", str(GRIDS / "resurrection.toml")
    result = CliRunner().invoke(cli.main, ["scorecard", "--grid", grid, "--out", str(out)])
    assert result.exit_code == 0, result.output
    table = pd.read_csv(out, index_col=[0, 1])
    row = table.loc[("decay on, moments kept", "dead")]
    assert (row.source, row.observation, row.number) == ("resurrection.toml", "starvation@1", "dead capsules, %")
    assert row.over == "untrained" and row.seeds == 5 and len(row.runs.split()) == 5
    effects, levels = [], []
    for run in row.runs.split():
        lines = (
            (GRIDS.parents[1] / "results" / "observations" / f"{run}.jsonl").read_text(encoding="utf-8").splitlines()
        )
        seen = [json.loads(line) for line in lines[1:]]
        seen = [each for each in seen if f"{each['measure']}@{each.get('version')}" == row.observation]
        (number,) = [each["values"][row.number] for each in seen if "null" not in each]
        (null,) = [each["values"][row.number] for each in seen if each.get("null") == row.over]
        effects.append(number - null)
        levels.append(null)
    half = 2.7764451 * np.std(effects, ddof=1) / 5**0.5  # t of 4 degrees of freedom at 97.5 %
    assert row.effect == pytest.approx(np.mean(effects)) and row.null == pytest.approx(np.mean(levels))
    assert (row.low, row.high) == pytest.approx((row.effect - half, row.effect + half), rel=1e-5)
    assert "lost by warp" not in result.output  # no network of the grid has a number there


def test_a_grid_without_cases_is_no_page():
    grid = str(GRIDS / "phase.toml")
    result = CliRunner().invoke(cli.main, ["scorecard", "--grid", grid])
    assert result.exit_code != 0 and "has no cases" in result.output and "Traceback" not in result.output
    both = ["--grid", grid, "--routing", "toy=capsnb.nn.routing:Attention"]
    refused = CliRunner().invoke(cli.main, ["scorecard", *both])
    assert refused.exit_code == 2 and "give one of the two" in refused.output


def test_the_help_says_what_a_cell_is_traced_by():
    text = CliRunner().invoke(cli.main, ["scorecard", "--help"]).output
    assert all(word in text for word in ("source", "observation", "number", "over", "runs", "seeds", "null"))


def test_a_table_has_effect_interval_null_and_the_reason(card):
    found = frame(card)
    row = found.loc[("by agreement", "moves")]
    assert row.low < row.effect < row.high and row.seeds == 3 and row.why == ""
    assert found.loc[("ConvNet, linear", "moves")].effect is None and found.loc[("ConvNet, linear", "moves")].why


def test_what_nobody_has_run_is_told_from_what_cannot_be_measured():
    column = Column("moves", "4 M", "starvation", at("dyr of the routing to classes, 0 to 1"), UNTRAINED, "dyr", "more")
    empty = {"a": {"moves": Cell({}, {})}, "b": {"moves": Cell({}, {}, "no coupling")}}
    assert shown(empty) == {"a": {"moves": None}, "b": {"moves": "no routing"}}
    assert list(frame(empty).why) == ["not run", "no coupling"]
    assert rank_correlations(empty, [column, replace(column, paper="5 G")]) == []


def test_columns_that_order_networks_alike_survive_holm_and_noise_does_not():
    means = {"first": range(10), "second": [n**3 for n in range(10)], "noise": [3, 1, 4, 1.5, 5, 9, 2, 6, 5.3, 5.8]}
    columns = [Column(name, "1 A", "x", at("x"), CHANCE, "", "") for name in means]
    card = {f"network {n}": {name: Cell({0: float(of[n])}, {0: 0.0}) for name, of in means.items()} for n in range(10)}
    best, *others = rank_correlations(card, columns)
    assert best.columns == ("first", "second") and best.rho == pytest.approx(1) and best.survives
    assert best.networks == 10 and not any(each.survives for each in others)


def test_fewer_networks_at_random_leave_fewer_correlations():
    random = np.random.default_rng(0)
    size = random.normal(size=30)
    means = {name: size + random.normal(size=30) for name in "abcd"}
    columns = [Column(name, "1 A", "x", at("x"), CHANCE, "", "") for name in means]
    card = {f"network {n}": {name: Cell({0: float(of[n])}, {0: 0.0}) for name, of in means.items()} for n in range(30)}
    whole = drawn_survivors(card, columns, kinds=30, draws=2)
    assert whole == [sum(each.survives for each in rank_correlations(card, columns))] * 2
    drawn = drawn_survivors(card, columns, kinds=8)
    assert len(drawn) == 40 and drawn == sorted(drawn) == drawn_survivors(card, columns, kinds=8)
    assert np.median(drawn) < whole[0]


@pytest.mark.parametrize(
    ("direction", "other", "word"), [("higher", 1, "supported"), ("lower", 1, "refuted"), ("lower", -1, "supported")]
)
def test_a_rank_correlation_is_judged_over_kinds(direction, other, word):
    """Ranks 1 to 10 against the same with two neighbours swapped: 1 - 6 * 2 / 990."""
    places = [1, 0, *range(2, 10)]
    kinds = {"a": dict(enumerate(range(10))), "b": {kind: other * place for kind, place in enumerate(places)}}
    found = verdict(Claim("c", "t", Correlation("a", "b", direction), source="ours"), kinds)
    rho, middle = 1 - 12 / 990, math.atanh(1 - 12 / 990)
    half = 1.96 * ((1 + rho**2 / 2) / 7) ** 0.5
    assert found.verdict == word and found.n == 10 and found.mean == pytest.approx(other * rho)
    ends = sorted(other * math.tanh(middle + sign * half) for sign in (-1, 1))
    assert found.interval == pytest.approx(ends) and found.p < 0.001


def test_few_or_equal_kinds_say_nothing_of_a_rank_correlation():
    claim = Claim("c", "t", Correlation("a", "b"), source="ours")
    few = verdict(claim, {"a": dict(enumerate(range(5))), "b": dict(enumerate(range(5)))})
    assert (few.verdict, few.reason) == ("undecided", "5 of at least 6 kinds")
    flat = verdict(claim, {"a": dict(enumerate(range(8))), "b": dict.fromkeys(range(8), 1.0)})
    assert flat.verdict == "undecided" and "alike" in flat.reason
    noise = verdict(claim, {"a": dict(enumerate(range(8))), "b": dict(enumerate([3, 7, 1, 6, 2, 8, 4, 5]))})
    assert (noise.verdict, noise.reason) == ("undecided", "the interval contains 0") and noise.p > 0.05
    assert verdict(claim, {"a": {0: 1.0}}).verdict == "not run"


def test_rem_has_its_whole_dose_wherever_others_stop():
    """At each size all its pulls add up to the released schedule's, since nothing stops it early."""
    from plans.rem import DOSE
    from plans.scorecard import pull

    for profile, steps in (("quick", 110), ("long", 860), ("full", 430)):
        specs = plans.plan("08", profile).specs
        recipe = specs["REM"][0].recipe
        assert recipe.target_accuracy is None and specs["by agreement"][0].recipe.target_accuracy
        assert pull(recipe, steps) == pytest.approx(DOSE, rel=0.01)
        assert pull(specs["by agreement"][0].recipe, steps) == 0
    pulled = sweep.read_grid(GRIDS / "rem_dose.toml")
    recipe = next(
        spec.recipe for each, spec in zip(pulled.settings, pulled.specs, strict=True) if each["case"] == "REM"
    )
    assert pull(recipe, 426) == pytest.approx(1.93, abs=0.005)  # as the grid says


def test_the_picture_tells_effects_from_what_is_open_or_missing():
    cells = {"capsules": {"a": (0.5, True), "b": (-12.0, False)}, "control": {"a": None, "b": "no poses"}}
    figure = plot.scorecard(cells, [("a", "Lin"), ("b", "Gu")], controls=("control",))
    (ax,) = figure.axes  # both groups in one
    texts = [text.get_text() for text in ax.texts]
    assert texts[:4] == ["+.50", "", "-12", "no poses"] and {"Lin", "Gu"} <= set(texts)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["capsules", "control"]
    small = {"capsules": {"a": (0.0022, True), "b": (-0.0001, False), "c": (0.025, True), "d": (7.04, True)}}
    written = [text.get_text() for text in plot.scorecard(small, [(name, "") for name in "abcd"]).axes[0].texts]
    assert written[:4] == ["+.002", "0", "+.03", "+7.0"]  # nothing that is sure of its sign reads as none
    assert "interval excludes zero" in plot.describe(figure)
    assert len(plot.scorecard(cells, [("a", "Lin"), ("b", "Gu")], most=1).axes) == 2


def test_a_turned_picture_has_measures_down_and_the_same_cells():
    cells = {"control": {"a": None, "b": "no poses"}, "capsules": {"a": (0.5, True), "b": (-12.0, False)}}
    (ax,) = plot.scorecard(cells, [("a", "Lin"), ("b", "Gu")], controls=("control",), turned=True).axes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["capsules", "control"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    placed = {text.get_position(): text.get_text() for text in ax.texts}
    assert (placed[0, 0], placed[0, 1], placed[1, 0], placed[1, 1]) == ("+.50", "-12", "", "no poses")


def test_the_command_adds_a_strangers_row_and_writes_every_cell(tmp_path):
    out = tmp_path / "new" / "card.csv"
    toy = "toy=capsnb.nn.routing:Attention"
    result = CliRunner().invoke(cli.main, ["scorecard", "--profile", "smoke", "--routing", toy, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "toy" in result.output and "lost by shifts" in result.output
    table = pd.read_csv(out, index_col=[0, 1])
    assert table.loc[("toy", "moves")].seeds == 1
    again = CliRunner().invoke(cli.main, ["scorecard", "--profile", "smoke", "--out", str(tmp_path / "card.png")])
    assert again.exit_code == 0 and "toy" not in again.output
    assert (tmp_path / "card.png").read_bytes()[:4] == b"\x89PNG"


def test_the_command_refuses_a_picture_of_another_kind():
    result = CliRunner().invoke(cli.main, ["scorecard", "--out", "card.docx"])
    assert result.exit_code == 2 and "card.docx" in result.output and ".png, .svg or .csv" in result.output
