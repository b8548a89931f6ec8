"""Rules against hand-worked samples, the table a notebook ends with, and records that grow without losing anything."""

import json
import math
import re
import subprocess
import sys

import pytest

from capsnb import evidence
from capsnb.evidence import (
    Bound,
    Claim,
    Difference,
    Equivalence,
    Exact,
    Order,
    Value,
    interval,
    record,
    recorded,
    table,
    verdict,
)
from capsnb.evidence.verdicts import STILL
from capsnb.training.provenance import code_version

T2 = 4.302652729911275  # two-sided 95 % quantile of Student's t with 2 degrees of freedom, from a printed table: 4.303
BEST = "sabour2017/table1/mnist/3-iterations-reconstruction"
PLAIN = "sabour2017/table1/mnist/3-iterations"


def judge(rule, measured, published=()):
    return rule.judge(measured, published)


# intervals ------------------------------------------------------------------------------------------------------------


def test_interval_of_three_numbers_by_hand():
    # mean 2, std 1, standard error 1 / sqrt(3): 2 +- 4.3027 * .57735 = 2 +- 2.4841
    low, high = interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - T2 / math.sqrt(3), 2 + T2 / math.sqrt(3)))
    assert (low, high) == pytest.approx((-0.4841, 4.4841), abs=1e-4)


def test_interval_needs_two_values():
    with pytest.raises(ValueError, match="at least two values, not 1"):
        interval([1.0])


# Value ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ([0.24, 0.25, 0.26], "reproduced"),  # .25 +- .025
        ([0.29, 0.30, 0.31], "reproduced"),  # the edge of the tolerance counts
        ([0.31, 0.32, 0.33], "undecided"),  # outside, the interval (.295, .345) reaches in
        ([0.39, 0.40, 0.41], "not reproduced"),  # (.375, .425)
        ([0.05, 0.25, 0.45], "undecided"),  # right mean, but (-.25, .75) says nothing
        ([0.25, 0.25], "undecided"),
    ],
)
def test_value(values, word):
    assert judge(Value("a", tolerance=0.05), {"a": values}, [0.25]).verdict == word


def test_value_states_what_it_rests_on():
    found = judge(Value("a", tolerance=0.05), {"a": [0.24, 0.25, 0.26]}, [0.25])
    assert (found.mean, found.std, found.n) == (pytest.approx(0.25), pytest.approx(0.01), 3)
    assert found.interval == pytest.approx((0.25 - T2 * 0.01 / math.sqrt(3), 0.25 + T2 * 0.01 / math.sqrt(3)))
    assert found.shown == "0.25 ± 0.01 (n=3)"
    assert judge(Value("a", tolerance=0.05), {"a": [0.25, 0.25]}, [0.25]).reason == "2 of at least 3 seeds"


def test_value_that_beats_the_paper_counts_where_the_rule_says_so():
    errors = {"a": [0.09, 0.10, 0.11]}
    assert judge(Value("a", tolerance=0.05), errors, [0.25]).verdict == "not reproduced"
    assert judge(Value("a", tolerance=0.05, better="lower"), errors, [0.25]).verdict == "published size excluded"
    near = {"a": [0.21, 0.22, 0.23]}
    assert judge(Value("a", tolerance=0.05, better="lower"), near, [0.25]).verdict == "reproduced"
    assert judge(Value("a", tolerance=0.05, better="higher"), errors, [0.25]).verdict == "not reproduced"


# Difference -----------------------------------------------------------------------------------------------------------


def test_a_difference_is_paired_by_seed():
    # seeds differ by 10 and the effect by 1 +- .1: unpaired it would drown
    measured = {"with": [11.0, 21.1, 30.9], "without": [10.0, 20.0, 30.0]}
    found = judge(Difference("with", "without", "higher"), measured)
    assert found.verdict == "reproduced"
    assert found.mean == pytest.approx(1.0)
    assert found.std == pytest.approx(0.1)
    assert found.interval == pytest.approx((1 - T2 * 0.1 / math.sqrt(3), 1 + T2 * 0.1 / math.sqrt(3)))
    assert found.shown == "+1 [+0.752, +1.25] (n=3)"


@pytest.mark.parametrize(
    ("difference", "word"),
    [
        ([0.9, 1.0, 1.1], "reproduced"),
        ([-0.9, -1.0, -1.1], "not reproduced"),
        ([0.0, 1.0, 2.0], "undecided"),  # (-1.48, 3.48)
        ([0.0, 0.0, 0.1], "undecided"),
        ([0.0, 0.0, 0.0], "undecided"),  # nothing random was measured, so nothing was decided
        ([1.0, 1.0, 1.0], "undecided"),
        ([0.0, 0.0], "undecided"),
        ([1.0, 1.0], "undecided"),
    ],
)
@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_difference_direction(difference, word, direction):
    sign = 1 if direction == "higher" else -1
    measured = {"a": [5 + sign * d for d in difference], "b": [5.0] * len(difference)}
    assert judge(Difference("a", "b", direction), measured).verdict == word


@pytest.mark.parametrize("published", [(94.0, 90.0), (4.0,)])
def test_the_printed_size_is_judged_apart_from_the_direction(published):
    measured = {"a": [2.0, 2.1, 1.9], "b": [0.0, 0.0, 0.0]}  # interval (1.75, 2.25)
    for tolerance, size, word in (
        (3.0, "agrees", "reproduced"),
        (1.8, "open", "direction only"),  # 2.2 is in the interval, the mean is not in the tolerance
        (1.0, "excluded", "published size excluded"),
        (None, "excluded", "published size excluded"),  # 4 is not in the interval
    ):
        found = judge(Difference("a", "b", "higher", tolerance=tolerance), measured, published)
        assert (found.holds, found.size, found.verdict) == (True, size, word)
    lower = judge(Difference("a", "b", "lower"), measured, published)
    assert (lower.holds, lower.size, lower.verdict) == (False, "excluded", "not reproduced")


@pytest.mark.parametrize(
    ("rule", "published", "size", "word"),
    [
        (Difference("a", "b", "higher"), (9.0,), "excluded", "published size excluded"),  # 1 +- 2.48 has 0, not 9
        (Difference("a", "b", "higher"), (3.0,), "open", "undecided"),
        (Difference("a", "b", "higher"), (), "-", "undecided"),
        (Bound("a", below=9), (7.0,), "excluded", "published size excluded"),  # 3 +- 2.48
        (Bound("a", below=9), (4.0,), "agrees", "reproduced"),
        (Equivalence("a", "b", 5.0), (4.0, 2.0), "agrees", "reproduced"),
        (Equivalence("a", "b", 5.0), (-7.0,), "excluded", "published size excluded"),
        (Exact("a", within=2), (3.0,), "agrees", "reproduced"),
    ],
)
def test_the_printed_size_of_every_rule(rule, published, size, word):
    found = judge(rule, {"a": [2.0, 3.0, 4.0], "b": [2.0, 2.0, 2.0]}, published)
    assert (found.size, found.verdict) == (size, word)


@pytest.mark.parametrize(("direction", "sign"), [("higher", 1), ("lower", -1)])
def test_difference_margin(direction, sign):
    measured = {"a": [sign * 1.0, sign * 1.1, sign * 0.9], "b": [0.0, 0.0, 0.0]}  # interval (.75, 1.25)
    assert judge(Difference("a", "b", direction, margin=0.5), measured).verdict == "reproduced"
    assert judge(Difference("a", "b", direction, margin=1.0), measured).verdict == "undecided"
    assert judge(Difference("a", "b", direction, margin=2.0), measured).verdict == "not reproduced"
    slightly_worse = {"a": [-sign * 0.1, -sign * 0.11, -sign * 0.09], "b": [0.0, 0.0, 0.0]}
    assert judge(Difference("a", "b", direction, margin=-0.2), slightly_worse).verdict == "reproduced"
    assert judge(Difference("a", "b", direction), slightly_worse).verdict == "not reproduced"
    assert Difference("a", "b", "higher", margin=-0.2).text == "a not lower than b by more than 0.2"


def test_a_difference_with_a_tolerance_needs_a_published_difference():
    with pytest.raises(ValueError, match="no published difference"):
        judge(Difference("a", "b", "higher", tolerance=1.0), {"a": [1.0, 1.1, 1.2], "b": [0.0, 0.0, 0.0]})


@pytest.mark.parametrize(
    ("difference", "word"),
    [
        ([0.0, 0.01, -0.01], "reproduced"),
        ([0.5, 0.51, 0.49], "not reproduced"),
        ([0.0, 0.2, -0.2], "undecided"),
        ([0.0, 0.0], "undecided"),
    ],
)
def test_equivalence_needs_the_whole_interval_inside(difference, word):
    measured = {"a": [90 + d for d in difference], "b": [90.0] * len(difference)}
    assert judge(Equivalence("a", "b", tolerance=0.1), measured).verdict == word


# Order ----------------------------------------------------------------------------------------------------------------

LADDER = {"a": [3.0, 3.1, 2.9], "b": [2.0, 1.9, 2.1], "c": [1.0, 1.1, 0.9]}


def test_order():
    found = judge(Order(("a", "b", "c")), LADDER)
    assert (found.verdict, found.n, found.shown) == ("reproduced", 3, "a 3, b 2, c 1")
    assert judge(Order(("c", "b", "a"), "lower"), LADDER).verdict == "reproduced"
    assert judge(Order(("a", "c", "b")), LADDER).verdict == "not reproduced"


def test_order_of_neighbours_that_cannot_be_told_apart_is_undecided():
    found = judge(Order(("a", "b", "c")), LADDER | {"b": [1.0, 1.2, 0.8]})
    assert found.verdict == "undecided"
    assert found.reason == "the interval contains 0 between b and c"
    still = judge(Order(("a", "b")), {"a": [3.0, 3.1, 2.9], "b": [2.0, 2.1, 1.9]})
    assert (still.verdict, still.reason) == ("undecided", f"{STILL} between a and b")
    assert judge(Order(("a", "b")), {"a": [2.0, 2.0], "b": [1.0, 1.0]}).verdict == "undecided"


def test_order_of_a_part_is_direction_only():
    claim = Claim("order", "a > b > c", Order(("a", "b", "c")), source="text")
    some = verdict(claim, {"a": LADDER["a"], "c": [1.1, 1.0, 0.9]})
    assert (some.verdict, some.reason) == ("direction only", "not run: b; the others agree")
    assert verdict(claim, {"a": LADDER["a"]}).verdict == "not run"


# Bound and Exact ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        (Bound("a", below=5), "reproduced"),  # 2 +- 2.4841
        (Bound("a", below=4), "undecided"),
        (Bound("a", above=-0.5), "reproduced"),
        (Bound("a", above=0), "undecided"),
        (Bound("a", above=5), "not reproduced"),
        (Bound("a", above=-1, below=5), "reproduced"),
        (Bound("a", above=6, below=9), "not reproduced"),
    ],
)
def test_bound(rule, word):
    assert judge(rule, {"a": [1.0, 2.0, 3.0]}).verdict == word


def test_bound_needs_a_threshold_and_three_seeds():
    with pytest.raises(ValueError, match="needs a threshold"):
        Bound("a")
    assert judge(Bound("a", below=5), {"a": [1.0, 1.0]}).verdict == "undecided"


def test_exact_needs_no_seeds():
    assert judge(Exact("a"), {"a": 6_804_224}, [6_804_224]).verdict == "reproduced"
    assert judge(Exact("a"), {"a": [6_804_225]}, [6_804_224]).reason == "off by 1"
    assert judge(Exact("a", within=0.05), {"a": 13.48}, [13.5]).verdict == "reproduced"
    assert judge(Exact("a", value=math.log(10), within=1e-9), {"a": [math.log(10)] * 2}).verdict == "reproduced"
    assert judge(Exact("a", value=1), {"a": [1, 2]}).verdict == "not reproduced"
    with pytest.raises(ValueError, match="nothing to compare with"):
        judge(Exact("a"), {"a": 1})


# alignment ------------------------------------------------------------------------------------------------------------


def test_variants_of_different_length_are_refused():
    with pytest.raises(ValueError, match="each needs the same seeds: a has 3, b has 2"):
        judge(Difference("a", "b", "higher"), {"a": [1.0, 2.0, 3.0], "b": [1.0, 2.0]})


def test_mappings_are_paired_on_shared_seeds():
    measured = {"a": {0: 11.0, 1: 21.0, 2: 31.1, 7: 99.0}, "b": {2: 30.0, 1: 20.0, 0: 10.0}}
    found = judge(Difference("a", "b", "higher"), measured)
    assert (found.n, found.mean) == (3, pytest.approx(3.1 / 3))
    with pytest.raises(ValueError, match="all variants as sequences or all as seed"):
        judge(Difference("a", "b", "higher"), {"a": {0: 1.0}, "b": [1.0]})


def test_disjoint_seeds_are_undecided():
    found = judge(Difference("a", "b", "higher"), {"a": {0: 1.0}, "b": {1: 1.0}})
    assert (found.verdict, found.reason) == ("undecided", "0 of at least 3 seeds")


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="a holds nan"):
        judge(Value("a", tolerance=1), {"a": [1.0, math.nan, 1.0]}, [1.0])


# claims and tables ----------------------------------------------------------------------------------------------------


@pytest.fixture
def best():
    return Claim("error", "CapsNet's error is 0.25 %.", Value("capsnet", tolerance=0.05, better="lower"), BEST)


@pytest.fixture
def helps():
    rule = Difference("reconstruction", "plain", "lower", tolerance=0.05)
    return Claim("reconstruction helps", "It lowers the error.", rule, (BEST, PLAIN))


def test_a_claim_knows_its_source_and_checks_its_keys(best, helps):
    assert best.cited == "Sabour, Frosst & Hinton 2017, Table 1"
    assert helps.cited == best.cited
    with pytest.raises(ValueError, match="No published number"):
        Claim("x", "", Value("a", 1.0), "sabour2017/table1/mnist/4-iterations")
    with pytest.raises(ValueError, match="has 2 published keys; Value takes 1"):
        Claim("x", "", Value("a", 1.0), (BEST, PLAIN))


def test_verdict_without_values_is_not_run(best, helps):
    assert (verdict(best, None).verdict, verdict(best, None, "profile quick").reason) == ("not run", "profile quick")
    assert verdict(best, {"capsnet": []}).verdict == "not run"
    assert verdict(helps, {"plain": [1.0]}, "no time").reason == "no time (missing: reconstruction)"


def test_table_compares_this_run_with_the_record(best, helps, tmp_path):
    full = {"error": {"capsnet": [0.26, 0.27, 0.25]}}
    record("00", full, seeds=[0, 1, 2], settings={"profile": "full"}, device="a GPU", root=tmp_path)
    shown = table("00", [best, helps], {"error": {"capsnet": [2.0]}}, not_run="profile quick", root=tmp_path)
    first, second = shown.rows
    assert first["published"] == "0.25 ± 0.005 % error"
    assert (first["recorded run"], first["recorded verdict"]) == ("0.26 ± 0.01 (n=3)", "reproduced")
    assert first["recorded origin"].split(", ")[1:3] == ["a GPU", "profile full"]
    assert (first["this run"], first["verdict"], first["reason"]) == ("2 (n=1)", "undecided", "1 of at least 3 seeds")
    assert second["published"] == "reconstruction 0.25, plain 0.35 % error (-0.1)"
    assert (second["verdict"], second["reason"]) == ("not run", "profile quick")
    assert (second["recorded verdict"], second["recorded reason"]) == ("not run", "no run recorded")


def committed(folder, shown):
    """A folder with a notebook 00 that displays a table."""
    cell = {"cell_type": "code", "outputs": [{"data": shown._repr_mimebundle_()}]}
    (folder / "00_first.ipynb").write_text(json.dumps({"cells": [{"cell_type": "markdown"}, cell]}))
    return folder


def test_the_recorded_run_is_what_the_committed_notebook_shows_of_the_store(best, helps, tmp_path):
    record("00", {"error": {"capsnet": [9.0]}}, seeds=[0], settings={}, device="a CPU", root=tmp_path)
    made = {"device": "a CPU", "code": "abc", "date": "2026-01-01", "versions": {}}
    values = {"error": {"capsnet": {0: 0.26, 1: 0.27, 2: 0.25}}}
    of_store = table("00", [best, helps], values, stored=True, made=made, root=tmp_path)
    folder = committed(tmp_path, of_store)
    live = {"error": {"capsnet": [2.0]}}
    first, second = table("00", [best, helps], live, root=tmp_path, committed=folder).rows
    assert (first["recorded run"], first["recorded verdict"]) == ("0.26 ± 0.01 (n=3)", "reproduced")
    assert (first["recorded holm"], first["this run"]) == (of_store.rows[0]["recorded holm"], "2 (n=1)")
    assert second["recorded verdict"] == "not run"
    # a notebook that trained what it shows says nothing of the store
    committed(tmp_path, table("00", [best, helps], values, root=tmp_path, committed=tmp_path / "none"))
    assert table("00", [best], live, root=tmp_path, committed=folder).rows[0]["recorded run"] == "9 (n=1)"


def test_what_rests_on_the_store_alone_is_the_recorded_run_at_every_profile(best, helps, tmp_path):
    record("00", {"error": {"capsnet": [9.0]}}, seeds=[0], settings={}, device="a CPU", root=tmp_path)
    kept = {"error": {"capsnet": [0.26, 0.27, 0.25]}}
    first, second = table("00", [best, helps], {}, kept=kept, root=tmp_path).rows
    assert (first["recorded run"], first["recorded verdict"]) == ("0.26 ± 0.01 (n=3)", "reproduced")
    assert (first["recorded origin"], first["this run"], first["verdict"]) == ("evidence store", "", "not run")
    assert second["recorded verdict"] == "not run"
    with pytest.raises(ValueError, match=r"Values for \['eror'\]"):
        table("00", [best], {}, kept={"eror": {}}, root=tmp_path)


def test_what_was_committed_before_the_grids_were_run_does_not_hide_what_they_found(best, helps, tmp_path):
    folder = committed(tmp_path, table("00", [best, helps], {}, stored=True, root=tmp_path))
    kept = {"error": {"capsnet": [0.26, 0.27, 0.25]}}
    (first,) = table("00", [best], {}, kept=kept, root=tmp_path, committed=folder).rows
    assert (first["recorded run"], first["recorded verdict"]) == ("0.26 ± 0.01 (n=3)", "reproduced")
    assert first["recorded origin"] == "evidence store"
    (empty,) = table("00", [best], {}, kept={"error": {"capsnet": []}}, root=tmp_path, committed=folder).rows
    assert (empty["recorded verdict"], empty["recorded reason"]) == ("not run", "not in this profile")


def test_values_of_the_store_count_at_profiles_that_make_no_record_of_a_run(best, helps, tmp_path):
    values = {"error": {"capsnet": {0: 0.26, 1: 0.27, 2: 0.25}}}
    shown = table("00", [best, helps], values, stored=True, made={}, root=tmp_path)
    first, second = shown.rows
    assert (first["recorded run"], first["recorded verdict"]) == ("0.26 ± 0.01 (n=3)", "reproduced")
    assert (first["recorded origin"], first["this run"], first["verdict"]) == ("evidence store", "", "reproduced")
    assert second["verdict"] == "not run"
    assert "application/vnd.capsnb.run+json" not in shown._repr_mimebundle_(), "nothing that could be recorded as a run"


def test_networks_too_far_from_the_papers_judge_nothing_neither_now_nor_on_the_record(best, helps, tmp_path):
    record("00", {"error": {"capsnet": [9.0]}}, seeds=[0], settings={}, device="a CPU", root=tmp_path)
    values = {"error": {"capsnet": [9.0, 9.1, 9.2]}}
    far = {"error": "too far: 91 % right"}
    for stored in (True, False):
        first, second = table("00", [best, helps], values, far=far, stored=stored, root=tmp_path).rows
        assert (first["recorded verdict"], first["recorded reason"]) == ("not run", "too far: 91 % right")
        assert (first["verdict"], first["reason"], first["recorded origin"]) == ("not run", "too far: 91 % right", "")
        assert second["recorded reason"] != "too far: 91 % right"
    with pytest.raises(ValueError, match=r"Values for \['eror'\]"):
        table("00", [best], {}, far={"eror": "too far"}, root=tmp_path)


def test_table_is_a_mime_bundle_that_a_notebook_accepts(best, tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="comes with Jupyter")
    bundle = table("00", [best], {}, not_run={"error": "<profile>"}, root=tmp_path)._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", evidence.MIME}
    wanted = {"notebook", "claim", "source", "published", "recorded run", "this run", "verdict", "reason"}
    assert wanted <= set(json.loads(json.dumps(bundle[evidence.MIME]))[0])
    assert "&lt;profile&gt;" in bundle["text/html"] and "<profile>" not in bundle["text/html"]
    assert "○ error (paper): not run (<profile>)" in bundle["text/plain"]
    output = nbformat.v4.new_output("execute_result", bundle, execution_count=1)
    cell = nbformat.v4.new_code_cell("table", outputs=[output], execution_count=1)
    nbformat.validate(nbformat.v4.new_notebook(cells=[cell]))


def test_table_refuses_values_no_claim_asks_for(best, tmp_path):
    with pytest.raises(ValueError, match=r"Values for \['eror'\], but the claims are: error"):
        table("00", [best], {"eror": {"capsnet": [1.0]}}, root=tmp_path)


# records --------------------------------------------------------------------------------------------------------------


def add(root, values, seeds, settings=None, claim="c", variant="a"):
    return record("05", {claim: {variant: values}}, seeds=seeds, settings=settings or {}, device="a CPU", root=root)


def test_record_round_trip(tmp_path):
    path = add(tmp_path, [1.0, 2.0], [0, 1], {"epochs": 3})
    assert re.fullmatch(r"claims-05-[0-9a-f]{12}\.jsonl", path.name)
    assert list(tmp_path.iterdir()) == [path]  # no temporary file stays
    header, row = map(json.loads, path.read_text().splitlines())
    assert header == {"run": path.stem[-12:], "notebook": "05", "protocol": {"epochs": 3}}
    assert (row["measure"], row["settings"], row["values"]) == ("claim", {"claim": "c"}, {"a": {"0": 1.0, "1": 2.0}})
    assert row["made"]["device"] == "a CPU"
    assert {"python", "capsnb", "torch", "numpy"} <= set(row["made"]["versions"])
    assert recorded("05", tmp_path).measured("c") == {"a": {0: 1.0, 1: 2.0}}
    assert recorded("05", tmp_path).measured("other") == {}


def test_record_joins_seeds_of_equal_settings(tmp_path):
    add(tmp_path, [1.0, 2.0], [0, 1])
    add(tmp_path, [3.0, 2.5], [2, 1])
    add(tmp_path, [9.0], [0], variant="b")
    found = recorded("05", tmp_path)
    assert found.measured("c") == {"a": {0: 1.0, 1: 2.5, 2: 3.0}, "b": {0: 9.0}}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_variant_joins_where_its_own_spec_is_the_same(tmp_path):
    alone = {"profile": "long", "specs": {"a": {"epochs": 3}}}
    beside = {"profile": "long", "specs": {"a": {"epochs": 3}, "b": {"epochs": 5}}}
    changed = {"profile": "long", "specs": {"a": {"epochs": 9}, "b": {"epochs": 5}}}
    for settings, seed in ((alone, 0), (beside, 1)):
        for variant in ("a", "all of them"):
            add(tmp_path, [seed], [seed], settings, variant=variant)
    found = recorded("05", tmp_path).measured("c")
    assert found == {"a": {0: 0.0, 1: 1.0}, "all of them": {1: 1.0}}  # what is no variant of the plan counts them all
    origin = recorded("05", tmp_path).origin("c")
    assert origin.count("; also ") == 0  # of one code, device and day
    add(tmp_path, [2.0], [2], changed)
    assert recorded("05", tmp_path).measured("c")["a"] == {2: 2.0}


def test_record_never_mixes_settings_and_keeps_the_old(tmp_path):
    add(tmp_path, [1.0, 2.0], [0, 1], {"epochs": 3})
    add(tmp_path, [7.0], [0], {"epochs": 9})
    found = recorded("05", tmp_path)
    assert found.measured("c") == {"a": {0: 7.0}}
    assert [protocol["epochs"] for protocol, _ in found.rows] == [3, 9]
    assert found.rows[0][1].values == {"a": {"0": 1.0, "1": 2.0}}


def test_what_one_run_measured_is_recorded_in_two_goes_without_a_loss(tmp_path):
    made = {"date": "2026-01-01T00:00:00+00:00", "code": "abc1234", "versions": {}}
    for values in ({"a": {0: 1.0, 1: 2.0}}, {"a": {1: 2.5}, "b": {0: 9.0}}):
        record("05", {"c": values}, seeds=[0, 1], settings={}, device="a CPU", made=made, root=tmp_path)
    found = recorded("05", tmp_path)
    assert found.measured("c") == {"a": {0: 1.0, 1: 2.5}, "b": {0: 9.0}}  # the newer value of seed 1
    assert len(found.rows) == 1


def test_claims_stand_in_the_order_in_which_they_were_recorded_first(tmp_path):
    for day, names in ((1, ["z", "a"]), (2, ["m", "a"])):
        made = {"date": f"2026-01-0{day}T00:00:00+00:00", "code": "abc1234", "versions": {}}
        values = {name: {"v": {0: 1.0}} for name in names}
        record("05", values, seeds=[0], settings={"day": day}, device="a CPU", made=made, root=tmp_path)
    found = recorded("05", tmp_path)
    assert found.claims == ["z", "a", "m"]
    assert [found.newest(name) for name in found.claims] == [False, True, True]


def test_the_origin_names_every_run_whose_values_count(tmp_path):
    for day, seeds in ((1, [0, 1]), (2, [0]), (3, [2])):
        made = {"date": f"2026-01-0{day}T00:00:00+00:00", "code": f"code{day}", "versions": {}}
        values = {"c": {"a": [float(day)] * len(seeds)}}
        record("05", values, seeds=seeds, settings={}, device="a CPU", made=made, root=tmp_path)
    days = [part.split(", ")[0] for part in recorded("05", tmp_path).origin("c").split("; also ")]
    assert days == ["2026-01-03", "2026-01-02", "2026-01-01"]  # seed 2, seed 0, seed 1
    made = {"date": "2026-01-04T00:00:00+00:00", "code": "code4", "versions": {}}
    record("05", {"c": {"a": [4.0, 4.0]}}, seeds=[0, 1], settings={}, device="a CPU", made=made, root=tmp_path)
    assert "2026-01-01" not in recorded("05", tmp_path).origin("c")


def test_record_refuses_bad_values_and_leaves_the_file(tmp_path):
    path = add(tmp_path, [1.0], [0])
    before = path.read_text()
    with pytest.raises(ValueError, match="c / a has 2 values for 1 seeds"):
        add(tmp_path, [1.0, 2.0], [0])
    with pytest.raises(ValueError, match="is nan at seed 0"):
        add(tmp_path, [math.nan], [0])
    with pytest.raises(TypeError):
        add(tmp_path, [1.0], [0], {"model": object()})
    assert path.read_text() == before and list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="names no notebook"):
        recorded("../05", tmp_path)


def test_no_record_is_an_empty_one(tmp_path):
    assert recorded("05", tmp_path).rows == ()
    assert recorded("05", tmp_path).origin("c") == ""


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-9], r"claims-05-.*\.jsonl, line 2, is no observation .*restore it from version control"),
        (lambda text: "[]\n", r"line 1, is no observation"),
        (lambda text: text.replace('"measure"', '"other"'), r"line 2, is no observation"),
        (lambda text: text.replace('"protocol"', '"other"'), r"holds no values of claims; restore it"),
        (lambda text: text.replace('{"claim": "c"}', "{}"), r"holds no values of claims; restore it"),
        (lambda text: text.replace('"0": 1.0', '"zero": 1.0'), r"c / a is not a mapping of seeds to numbers"),
        (lambda text: text.replace('"0": 1.0', '"0": "much"'), r"c / a is not a mapping of seeds to numbers"),
        (lambda text: text.replace('{"0": 1.0}', "[1.0]"), r"c / a is not a mapping of seeds to numbers"),
    ],
)
def test_a_damaged_record_is_one_sentence(tmp_path, damage, message):
    path = add(tmp_path, [1.0], [0])
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match=message):
        recorded("05", tmp_path)


def test_processes_that_record_at_once_lose_nothing(tmp_path):
    pytest.importorskip("fcntl", reason="the system has no file locks")
    code = (
        "import sys; from capsnb.evidence import record\n"
        "for seed in range(5):\n"
        "    record('05', {'c': {sys.argv[1]: [1.0]}}, seeds=[seed], settings={}, device='x', root=sys.argv[2])"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code, name, str(tmp_path)]) for name in ("a", "b")]
    assert [worker.wait(timeout=60) for worker in workers] == [0, 0]
    assert {name: len(values) for name, values in recorded("05", tmp_path).measured("c").items()} == {"a": 5, "b": 5}


def test_code_version(tmp_path):
    import capsnb

    assert code_version(tmp_path) == capsnb.__version__  # no checkout
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@x"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    assert code_version(tmp_path) == capsnb.__version__  # no commit yet
    (tmp_path / "file").write_text("1")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "first"], check=True)
    clean = code_version(tmp_path)
    assert len(clean) >= 7
    (tmp_path / "file").write_text("2")
    assert code_version(tmp_path) == f"{clean}-dirty"
    subprocess.run([*git, "commit", "--quiet", "--all", "-m", "second"], check=True)
    store = tmp_path / "results" / "observations" / "run.jsonl"
    store.parent.mkdir(parents=True)
    for lines in ("one", "one, two"):  # a campaign adds to files that are tracked
        store.write_text(lines)
        subprocess.run([*git, "add", "."], check=True)
        assert not code_version(tmp_path).endswith("-dirty")
        subprocess.run([*git, "commit", "--quiet", "-m", "evidence"], check=True)
