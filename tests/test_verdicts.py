"""What stands beside a rule's verdict, by hand: whose claim, null, test images, declared seeds, Holm, explanations."""

import math

import nbformat.v4 as v4
import pytest
from nbformat import write

from capsnb.evidence import (
    Bound,
    Claim,
    Difference,
    Equivalence,
    Exact,
    Explanation,
    Order,
    Value,
    Verdict,
    holm,
    ledger,
    record,
    recorded,
    table,
    verdict,
)
from capsnb.evidence.tables import current
from capsnb.evidence.verdicts import STILL, Floor

HIGHER = Difference("a", "b", "higher")
BEST = "sabour2017/table1/mnist/3-iterations-reconstruction"  # 0.25
PLAIN = "sabour2017/table1/mnist/3-iterations"  # 0.35
MORE = {"a": [2.0, 2.1, 1.9], "b": [0.0, 0.0, 0.0]}  # +2 (1.75, 2.25)
LESS = {"a": MORE["b"], "b": MORE["a"]}
OPEN = {"a": [0.0, 1.0, 2.0], "b": [0.0, 0.0, 0.0]}  # +1 (-1.48, 3.48)


def ours(rule=HIGHER, **more):
    return Claim("c", "It is higher.", rule, source="ours", **more)


def papers(rule=HIGHER, **more):
    return Claim("c", "It is higher.", rule, source="text", **more)


def null(values):
    return {f"null: {name}": each for name, each in values.items()}


@pytest.mark.parametrize(
    ("measured", "paper", "own"),
    [
        (MORE, "reproduced", "supported"),
        (LESS, "not reproduced", "refuted"),
        (OPEN, "undecided", "undecided"),
        ({}, "not run", "not run"),
    ],
)
def test_words_of_the_papers_claims_and_of_ours(measured, paper, own):
    assert (verdict(papers(), measured).verdict, verdict(ours(), measured).verdict) == (paper, own)
    assert (papers().kind, ours().kind) == ("paper", "ours")


def test_a_part_of_our_order_supports_nothing():
    rule = Order(("a", "b", "c"))
    assert verdict(papers(rule), MORE).verdict == "direction only"
    assert verdict(ours(rule), MORE).verdict == "undecided"


def test_no_paper_prints_numbers_of_ours():
    with pytest.raises(ValueError, match="is ours, so no paper prints its numbers"):
        Claim("c", "", Value("a", 1.0), BEST, source="ours")


# null -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", [papers(), ours()])
def test_a_claim_that_its_null_meets_counts_as_nothing(claim):
    met = verdict(claim, MORE | null(MORE))
    assert met.verdict == "met by null"
    assert met.null == f"{verdict(claim, MORE).verdict}: +2 [+1.75, +2.25] (n=3)"
    for other in (LESS, OPEN):
        found = verdict(claim, MORE | null(other))
        assert found.verdict == verdict(claim, MORE).verdict
        assert found.null.startswith(verdict(claim, other).verdict)
    assert verdict(claim, LESS | null(MORE)).verdict == verdict(claim, LESS).verdict
    assert verdict(claim, MORE | null({"a": [1.0] * 3})).null == ""  # half of a null is none


def test_a_null_without_the_printed_size_is_no_match_for_a_claim_that_has_it():
    claim = Claim("c", "", Difference("a", "b", "higher"), (PLAIN, BEST))  # +0.1
    close = {"a": [0.1, 0.2, 0.0], "b": [-0.01, 0.1, -0.1]}
    assert verdict(claim, close).size == "agrees"
    assert verdict(claim, close | null(MORE)).verdict == "reproduced"
    assert verdict(claim, close | null(close)).verdict == "met by null"
    assert verdict(claim, MORE).verdict == "published size excluded"
    assert verdict(claim, MORE | null(MORE)).verdict == "met by null"


def test_what_is_true_of_any_network_is_never_reproduced():
    assert verdict(papers(Exact("a", 1), null="by construction"), {"a": 1}).verdict == "met by null"
    assert verdict(papers(Exact("a", 1), null="by construction"), {"a": 2}).verdict == "not reproduced"


# test images, spread, declared seeds ----------------------------------------------------------------------------------


def test_the_floor_of_so_many_images():
    # sqrt(.9 * .1 / 900) = .01
    assert Floor(900).half(90.0) == pytest.approx(1.96)
    assert Floor(900, "share").half(0.9) == pytest.approx(0.0196)
    assert Floor(900).half(90.0, 90.0) == pytest.approx(1.96 * math.sqrt(2))
    # 0 of 97 and 97 of 97: scipy.stats.binomtest(0, 97).proportion_ci() ends at 0.03731
    assert Floor(97).half(0.0) == Floor(97).half(100.0) == pytest.approx(3.731, abs=1e-3)
    assert Floor(97).half(0.0, 100.0) == pytest.approx(3.731 * math.sqrt(2), abs=1e-3)
    with pytest.raises(ValueError, match="130 is no percent of 900 images"):
        Floor(900).half(130.0)


def test_an_interval_is_no_narrower_than_the_images_allow():
    measured = {"a": [92.0, 92.1, 91.9], "b": [90.0, 90.0, 90.0]}
    narrow, wide = verdict(papers(), measured), verdict(papers(images=900), measured)
    assert narrow.verdict == "reproduced" and wide.verdict == "undecided"
    half = 1.96 * math.sqrt(0.92 * 0.08 + 0.9 * 0.1) / 30 * 100
    assert wide.interval == pytest.approx((2 - half, 2 + half))
    assert wide.asked == "more test images"
    shares = {name: [value / 100 for value in values] for name, values in measured.items()}
    assert verdict(papers(images=900, unit="share"), shares).interval == pytest.approx(
        ((2 - half) / 100, (2 + half) / 100)
    )
    scattered = {"a": [82.0, 92.0, 99.0], "b": measured["b"]}
    assert verdict(papers(images=900), scattered).interval == verdict(papers(), scattered).interval


@pytest.mark.parametrize("rule", [HIGHER, Equivalence("a", "b", 9), Bound("a", above=1), Order(("a", "b"))])
def test_without_a_spread_nothing_is_decided_but_by_the_floor(rule):
    same = {"a": [96.0] * 3, "b": [90.0] * 3}
    found = verdict(papers(rule), same)
    assert found.verdict == "undecided" and STILL in found.reason
    assert verdict(papers(rule, images=900), same).verdict == "reproduced"
    assert verdict(papers(Exact("a", 96)), same).verdict == "reproduced"


def test_fewer_seeds_than_declared_are_undecided():
    found = verdict(papers(declared=10), MORE)
    assert (found.verdict, found.reason, found.asked) == ("undecided", "3 of 10 declared seeds", "10")
    assert verdict(papers(declared=3), MORE).verdict == "reproduced"
    assert verdict(papers(declared=2), {name: values[:2] for name, values in MORE.items()}).verdict == "undecided"
    assert verdict(papers(Exact("a", 1), declared=10), {"a": [1]}).verdict == "reproduced"


@pytest.mark.parametrize(
    ("values", "asked"),
    [
        ([0.0, 1.0, 2.0], "7"),  # t(5) / sqrt(6) = 1.05, t(6) / sqrt(7) = .92
        ([-0.9, 0.1, 1.1], "another rule"),  # some 390
        ([1.0, 2.0], "3"),
        ([1.9, 2.0, 2.1], ""),
    ],
)
def test_seeds_that_the_variance_asks_for(values, asked):
    assert verdict(papers(), {"a": values, "b": [0.0] * len(values)}).asked == asked


# Holm -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "p"),
    [
        # mean 2, standard error .577, 2 degrees of freedom, where two sides have 1 - t / sqrt(2 + t^2)
        (HIGHER, 1 - math.sqrt(12 / 14)),
        (Bound("a", above=0, below=9), 1 - math.sqrt(12 / 14)),  # the nearer end
        (Bound("a", above=5), 1 - math.sqrt(27 / 29)),
        (Equivalence("a", "b", 5), 1 - math.sqrt(27 / 29)),  # two one-sided tests: 3 below one end, 7 above the other
        (Order(("a", "b", "c")), 1 - math.sqrt(12 / 14)),  # the larger of a > b and b > c
        (Order(("c", "b")), 1 - math.sqrt(300 / 302)),  # the other way round
        (Exact("a", 1), None),
    ],
)
def test_p_of_every_rule(rule, p):
    measured = {"a": [1.0, 2.0, 3.0], "b": [0.0] * 3, "c": [-9.0, -10.0, -11.0]}
    assert verdict(papers(rule), measured).p == (p and pytest.approx(p))


def test_p_of_a_value():
    claim = Claim("c", "", Value("a", 2.0), BEST)
    assert verdict(claim, {"a": [-0.75, 0.25, 1.25]}).p == pytest.approx(1 - math.sqrt(12 / 14))
    assert verdict(claim, {"a": [4.25, 5.25, 6.25]}).p == pytest.approx(1 - math.sqrt(27 / 29))


def test_holm_by_hand():
    def of(*ps):
        return holm([Verdict("reproduced", "", p=p) for p in ps])

    assert of(0.02, 0.01, None, 0.03, 0.04) == [False, True, None, False, False]  # .0125, then .02 > .0167
    assert of(0.015, 0.01, 0.02, 0.04) == [True] * 4  # .0125, .0167, .025, .05
    assert holm([]) == []


def test_the_table_marks_what_does_not_survive(tmp_path):
    sure = {"a": [9.0, 9.0001, 8.9999], "b": [0.0] * 3}
    shown = table("00", [papers(), Claim("d", "", HIGHER, source="ours")], {"c": sure, "d": MORE}, root=tmp_path)
    assert [row["holm"] for row in shown.rows] == [True, True]
    claims = [Claim(str(n), "", HIGHER, source="ours") for n in range(9)]
    shown = table("00", claims, {"0": sure} | {str(n): MORE for n in range(1, 9)}, root=tmp_path)
    assert "this run: 9 of 9 tested" in repr(shown)
    close = {"a": [4.0, 5.0, 6.0], "b": [0.0] * 3}  # p = .0131
    shown = table("00", claims, {"0": sure} | {str(n): close for n in range(1, 9)}, root=tmp_path)
    assert shown.footer() == [
        "this run: 1 of 9 tested and decided claims survive Holm's correction over the 9 that were tested; † marks the "
        "others"
    ]
    assert "✓ supported†" in shown.html() and "✓ 0 (ours): supported (" in repr(shown)


# explained by ---------------------------------------------------------------------------------------------------------

READING = Explanation("the released code's routing", "repository of the paper", 0.05, tried=4, others=2)


@pytest.mark.parametrize(
    ("change", "values", "found"),
    [
        ({}, [0.22, 0.27, 0.23], True),  # mean .24 for .25
        ({}, [0.32, 0.37, 0.33], False),
        ({}, [0.24, 0.24], False),
        ({"others": 0}, [0.22, 0.27, 0.23], False),
        ({"tried": 0}, [0.22, 0.27, 0.23], False),
        ({"tolerance": 0.001}, [0.22, 0.27, 0.23], False),
        (None, [0.22, 0.27, 0.23], False),
    ],
)
def test_a_contradiction_is_explained_under_its_conditions(change, values, found):
    explained = None if change is None else Explanation(**(vars(READING) | change))
    claim = Claim("c", "", Value("a", 0.05), BEST, explained=explained)
    got = verdict(claim, {"a": [0.9, 0.91, 0.92], "explaining: a": values})
    assert got.verdict == "not reproduced"
    sentence = (
        "explained by the released code's routing (0.24 ± 0.026 (n=3); repository of the paper; 4 tried, 2 other "
        "printed numbers matched)"
    )
    assert got.reason.endswith(sentence) == found and ("explained" in got.reason) == found


def test_only_a_contradiction_is_explained():
    claim = Claim("c", "", Value("a", 0.05), BEST, explained=READING)
    assert "explained" not in verdict(claim, {"a": [0.24, 0.25, 0.26], "explaining: a": [0.24, 0.25, 0.26]}).reason


# tables, records, ledger ----------------------------------------------------------------------------------------------


def by_seed(values):
    return {name: dict(enumerate(each)) for name, each in values.items()}


def test_nulls_and_conditions_reach_the_table_and_the_record(tmp_path):
    given = {"nulls": {"c": by_seed(MORE)}, "images": {"d": 100}, "declared": 5}
    claims = [papers(declared=3), Claim("d", "", Bound("a", above=5), source="ours")]
    shown = table("00", claims, {"c": by_seed(MORE), "d": {"a": {0: 9.0, 1: 9.1, 2: 9.2}}}, **given, root=tmp_path)
    first, second = shown.rows
    assert (first["of"], first["verdict"], first["null"]) == (
        "paper",
        "met by null",
        "reproduced: +2 [+1.75, +2.25] (n=3)",
    )
    assert first["rule"].endswith("; 3 seeds declared") and second["rule"].endswith("100 test images; 5 seeds declared")
    (capsules,) = table("00", claims[1:], {}, images=97, counted="capsules", root=tmp_path).rows
    assert capsules["rule"].endswith("; of 97 capsules")
    assert (second["of"], second["verdict"], second["reason"]) == ("ours", "undecided", "3 of 5 declared seeds")
    assert "this run: reproduced: +2" in shown.html()
    record("00", {"c": first["values"]}, seeds=[0, 1, 2], settings={}, device="a CPU", root=tmp_path)
    assert recorded("00", tmp_path).measured("c")["null: a"] == by_seed(MORE)["a"]
    (again, _) = table("00", claims, {}, root=tmp_path).rows
    assert (again["recorded verdict"], again["verdict"]) == ("met by null", "not run")
    with pytest.raises(ValueError, match=r"Values for \['e'\]"):
        table("00", claims, {}, nulls={"e": {}}, root=tmp_path)


def test_rows_of_an_earlier_version_are_read_in_todays_words():
    row = {"source": "ours", "recorded verdict": "not reproduced", "verdict": "reproduced"}
    found = current(row)
    assert (found["of"], found["recorded verdict"], found["verdict"]) == ("ours", "refuted", "supported")
    assert current(row | {"source": "Table 1"})["verdict"] == "reproduced"
    assert current(found) == found


def test_the_ledger_counts_the_papers_claims_and_ours_apart(tmp_path):
    claims = [
        Claim(name, "", HIGHER, source=name.partition(" ")[0]) for name in ("text 1", "text 2", "ours 1", "ours 2")
    ]
    claims += [papers(), papers(declared=5)]
    measured = {"text 1": MORE, "text 2": MORE, "ours 1": LESS, "ours 2": OPEN}
    rows = [*table("00", claims[:4], measured, nulls={"text 2": MORE}, root=tmp_path).rows]
    rows += (
        table("00", [papers()], {}, root=tmp_path).rows
        + table("00", [papers(declared=5)], {"c": MORE}, root=tmp_path).rows
    )
    rows += table("00", [ours()], {"c": {"a": [1.0] * 3, "b": [0.0] * 3}}, root=tmp_path).rows
    assert ledger.counted(rows, "") == [
        "The papers' claims: 4; 1 decided (1 reproduced), 2 undecided (1 not run, 1 too few seeds), 1 met by null.",
        "Our own hypotheses: 3; 1 decided (1 refuted), 2 undecided (1 interval too wide, 1 no spread over seeds), "
        "0 met by null.",
    ]


def test_open_claims_and_networks_that_were_not_observed(tmp_path):
    record("99", {"c": by_seed(OPEN)}, seeds=[0, 1, 2], settings={}, device="a CPU", root=tmp_path / "store")
    shown = table("99", [papers(), Claim("d", "", HIGHER, source="ours")], {}, root=tmp_path / "store")
    output = v4.new_output("display_data", data=shown._repr_mimebundle_())
    write(v4.new_notebook(cells=[v4.new_code_cell("t", outputs=[output])]), tmp_path / "99_x.ipynb")
    assert ledger.open_claims(tmp_path) == [
        ("99", "c", "paper", "interval too wide", "3", "7", "-"),
        ("99", "d", "ours", "not run", "-", "-", "-"),
    ]
    assert ledger.open_claims(tmp_path, ["00"]) == []
    (tmp_path / "sweeps").mkdir()
    grid = 'notebook = "99"\n[base]\nmodel = {type = "capsnet", size = 28}\n[grid]\nseed = [100, 101, 101]\n'
    (tmp_path / "sweeps" / "little.toml").write_text(grid)
    assert ledger.unobserved(tmp_path) == ledger.unobserved(tmp_path, ["99"]) == [("little", "2", "2", "-")]
    assert ledger.unobserved(tmp_path, ["00"]) == []


def test_networks_that_were_not_observed_are_told_by_set_since_one_may_have_no_images_here(tmp_path, monkeypatch):
    def forecast(specs, tried):
        if specs[0].data.name == "svhn":
            raise FileNotFoundError
        return [3600.0] * len(specs)

    monkeypatch.setattr("capsnb.training.runs.forecast", forecast)
    (tmp_path / "sweeps").mkdir()
    grid = '[base]\nmodel = {type = "capsnet", size = 28}\n[grid]\nseed = [100, 101]\n"data.name" = ["mnist", "svhn"]\n'
    (tmp_path / "sweeps" / "two.toml").write_text(grid)
    assert ledger.unobserved(tmp_path, costs=ledger.Costs()) == [
        ("two, mnist", "2", "2", "2 hours"),
        ("two, svhn", "2", "2", "its images are not here"),
    ]


def test_the_cost_of_the_seeds_that_are_missing(monkeypatch):
    monkeypatch.setattr("capsnb.training.runs.forecast", lambda specs, tried: [3600.0] * len(specs))
    row, costs = {"notebook": "04", "variants": ["agreement", "no weight decay"]}, ledger.Costs()
    assert ledger._cost(row, "3", "7", costs) == "8 hours"  # four seeds of two networks
    assert ledger._cost(row, "3", "another rule", costs) == "2 hours a seed"
    assert ledger._cost(row | {"variants": ["layer-1"]}, "3", "7", costs) == "-"  # no network of that name is trained
