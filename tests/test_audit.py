"""Audits: tiny runs trained again, records that were changed, the spread of seeds by hand, and the command."""

import json
from dataclasses import asdict, replace
from functools import partial

import pytest
from click.testing import CliRunner

from capsnb import cli
from capsnb.data import DataSpec
from capsnb.evidence import audit
from capsnb.evidence.audit import Pair, judge
from capsnb.measure import observe
from capsnb.measure.observations import Observation, read
from capsnb.measure.protocol import find
from capsnb.nn.models import CapsNetConfig
from capsnb.nn.models.stems import StridedStem
from capsnb.training import parallel, runs
from capsnb.training.identity import encode
from capsnb.training.recipe import Recipe
from capsnb.training.spec import Spec

MODEL = CapsNetConfig(
    size=12, dim=4, hidden=((3, 4),), stem=StridedStem(channels=4, kernel=3, types=2, dim=4), decoder="none"
)
DATA = DataSpec(crop=24, resize=12, train=20, validation=10, test=10)
TINY = Spec(model=MODEL, data=DATA, recipe=Recipe(epochs=1, batch=10))
NEXT = replace(TINY, start=TINY, recipe=Recipe(epochs=2, batch=10))
MADE = {"cpu": "of a kind", "device": "CPU (x86_64, 1 threads)", "threads": 1, "versions": {"torch": "2"}}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A store with two runs, the second of which goes on from the first, each with a null and a series."""
    folder = tmp_path_factory.mktemp("audited")
    curve = find("curve")
    measures = [(find("accuracy"), {}), (find("life"), {"images": 5})]
    then = partial(observe.take_all, measures=measures, nulls=True, watched=[(curve, {})])
    work = {spec: {curve.column(): curve.watched()} for spec in (TINY, NEXT)}
    seconds = dict.fromkeys(work, 1.0)
    assert parallel.train(work, jobs=1, root_folder=folder / "runs", then=then, seconds=seconds) == []
    observe.record(work, store=folder / "store", root_folder=folder / "runs")
    return folder / "store"


@pytest.fixture
def store(recorded, tmp_path, monkeypatch):
    """A copy of it that a test may change."""
    (tmp_path / "store").mkdir()
    for file in recorded.iterdir():
        (tmp_path / "store" / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(audit, "store_folder", lambda: tmp_path / "store")
    monkeypatch.setattr(runs, "forecast", lambda specs, **_: [1.0] * len(specs))
    return tmp_path / "store"


def change(store, spec, edit):
    """Edit each line of a run's file, the header too."""
    file = store / f"{runs.run_name(spec)}.jsonl"
    header, found = read(file)
    rows = [header, *({k: v for k, v in asdict(each).items() if v not in (None, False, {})} for each in found)]
    for row in rows:
        edit(row)
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")


def call(*args):
    return CliRunner().invoke(cli.main, ["audit", *map(str, args)])


# --- runs trained again


def test_the_same_machine_gives_equal_bits(store, tmp_path, monkeypatch):
    monkeypatch.setenv("CAPSNB_RUNS", str(tmp_path / "runs"))
    result = call(runs.run_name(NEXT), "--jobs", 1)
    assert result.exit_code == 0, result.output
    lines = [line for line in result.output.splitlines() if "equal bits" in line]
    assert len(lines) == 5
    for name in ("accuracy  ", "accuracy, untrained", 'life, {"images": 5}  ', "curve, watched"):
        assert any(name in line for line in lines), name
    assert "5 observations of 1 runs: 0 disagree." in result.output
    assert not (tmp_path / "runs").exists(), "trained in a folder of its own"


def test_a_changed_number_is_found(store):
    def edit(row):
        if row.get("measure") == "accuracy" and "null" not in row:
            row["values"]["accuracy, %"] += 10.0

    change(store, TINY, edit)
    result = call(runs.run_name(TINY), "--jobs", 1)
    assert result.exit_code == 1
    (line,) = [line for line in result.output.splitlines() if audit.DIFFERS in line]
    assert "accuracy, %" in line
    assert result.stderr.rstrip().endswith("Error: 1 observations disagree, 0 trainings failed.")


def test_what_another_machine_made_is_judged_by_the_seeds_that_are_recorded(store):
    def edit(row):
        if "made" in row:
            del row["made"]["cpu"]
            row["values"] = {name: 1.0 for name in row["values"]}  # of a series, too: nobody vouches for a record

    change(store, TINY, edit)
    result = call(runs.run_name(TINY), "--jobs", 1)
    assert result.exit_code == 0, result.output
    assert "cannot be judged (0 other seeds)" in result.output


def test_other_seeds_of_the_same_network_are_its_spread(store):
    seeds = range(1, 5)
    for seed in seeds:
        spec = replace(TINY, seed=seed)
        header = {"run": runs.key(spec), "spec": encode(spec)}
        row = {"measure": "accuracy", "values": {"accuracy, %": float(seed)}, "made": MADE}
        text = f"{json.dumps(header)}\n{json.dumps(row)}\n"
        (store / f"{runs.run_name(spec)}.jsonl").write_text(text)
    pairs, failed = audit.again([runs.run_name(TINY)], jobs=1)
    assert failed == []
    (pair,) = [each for each in pairs if (each.recorded.measure, each.recorded.null) == ("accuracy", None)]
    assert sorted(each.values["accuracy, %"] for each in pair.others) == [1, 2, 3, 4]
    assert all(each.others == () for each in pairs if each.recorded.null), "of the null none is recorded"


def test_it_trains_on_the_recorded_number_of_threads(store, monkeypatch):
    asked = []

    def train(work, *, threads, **_):
        asked.append((len(work), threads))
        return [parallel.Failure(runs.run_name(spec), "not today") for spec in work]

    change(store, NEXT, lambda row: row.get("made", {}).update(threads=3))
    monkeypatch.setattr(parallel, "train", train)
    names = [runs.run_name(TINY), runs.run_name(NEXT)]
    pairs, failed = audit.again(names)
    assert asked == [(1, 1), (1, 3)]
    assert (pairs, [each.name for each in failed]) == ([], names)
    assert call(*names).stderr.rstrip().endswith("Error: 0 observations disagree, 2 trainings failed.")


def test_a_measure_that_is_another_by_now_is_told(store):
    change(store, TINY, lambda row: row.update(version=99) if row.get("measure") == "life" else None)
    result = call(runs.run_name(TINY), "--jobs", 1)
    assert result.exit_code == 0, result.output
    assert result.output.count("measured otherwise now") == 2


# --- by hand


def pair(recorded, again, others=(), made=None, new=None, **more):
    old, now = ({**MADE, **(each or {})} for each in (made, new))
    each = partial(Observation, "m", **more)
    return Pair(
        "run", each(values=recorded, made=old), each(values=again, made=now), tuple(each(values=v) for v in others)
    )


ELSEWHERE = {"cpu": "of another kind"}


def verdict(*args, **more):
    return judge([pair(*args, **more)])[0].verdict


def test_bits_by_hand():
    assert verdict({"a": 1.0}, {"a": 1.0}) == audit.EQUAL
    assert verdict({"a": 1.0}, {"a": 1.0}, new=ELSEWHERE) == audit.EQUAL
    assert verdict({"a": 1.0, "b": [2.0, 3.0]}, {"a": 1.0, "b": [2.0, 3.00001]}) == audit.DIFFERS
    assert judge([pair({"a": 1.0, "b": [2.0, 3.0]}, {"a": 1.0, "b": [2.0, 4.0]})])[0].number == "b[1]"
    assert verdict({"reason": "one"}, {"reason": "other"}) == audit.DIFFERS


@pytest.mark.parametrize(
    "new",
    [
        ELSEWHERE,
        {"device": "CPU (x86_64, 2 threads)"},
        {"device": "NVIDIA H200"},
        {"versions": {"torch": "3"}},
        {"measured": {"device": "CPU (x86_64, 2 threads)"}},
    ],
)
def test_what_makes_another_machine(new):
    assert verdict({"a": 1.0}, {"a": 1.1}, new=new) == "cannot be judged (0 other seeds)"
    assert verdict({"a": 1.0}, {"a": 1.1}, made={"cpu": None}, new={"cpu": None}).startswith("cannot"), "not known"
    gpu = {"device": "NVIDIA H200"}
    assert verdict({"a": 1.0}, {"a": 1.1}, made=gpu, new=gpu).startswith("cannot"), "a GPU promises no bits"


def test_the_spread_by_hand():
    others = [{"a": 1.0}, {"a": 2.0}, {"a": 3.0}]  # standard deviation 1, two degrees of freedom
    # t = d / sqrt 2; with two degrees p = 1 - t / sqrt(2 + t^2): 0.29 for d = 2, 0.0002 for d = 100
    assert verdict({"a": 2.0}, {"a": 4.0}, others, new=ELSEWHERE) == audit.WITHIN
    assert verdict({"a": 2.0}, {"a": 102.0}, others, new=ELSEWHERE) == audit.BEYOND
    assert audit._tests(pair({"a": 2.0}, {"a": 4.0}, others))["a"] == pytest.approx(1 - 2**0.5 / (2 + 2) ** 0.5)
    assert verdict({"a": 2.0}, {"a": 102.0}, others[:2], new=ELSEWHERE) == "cannot be judged (2 other seeds)"
    alike = [{"a": 1.0}] * 3
    assert verdict({"a": 1.0}, {"a": 2.0}, alike, new=ELSEWHERE).startswith("cannot be judged")


def test_a_sample_of_many_numbers_is_judged_as_a_whole():
    others = [{"a": 1.0}, {"a": 2.0}, {"a": 3.0}]
    # p = 0.0069 for d = 17: below 0.01 alone, and not when it is one of two
    far, near = (pair({"a": 2.0}, {"a": 2.0 + d}, others, new=ELSEWHERE) for d in (17.0, 0.5))
    assert [each.verdict for each in judge([far])] == [audit.BEYOND]
    assert [each.verdict for each in judge([far, near])] == [audit.WITHIN, audit.WITHIN]


def test_of_a_series_the_end_is_judged():
    series = Observation("m", values={"step": [1, 2], "loss": [0.5, 0.25], "none": []}, watched=True)
    assert audit.numbers(series) == {"step": 2, "loss": 0.25}
    assert audit.numbers(Observation("m", values={"a": {"b": [1, {"c": 2.0}]}, "d": "text", "e": None})) == {
        "a, b[0]": 1,
        "a, b[1], c": 2.0,
    }


# --- which


def test_a_sample_is_drawn_among_what_can_be_trained_here(store):
    away = replace(TINY, data=DataSpec(name="mnist"))
    header, row = {"run": "0" * 12, "spec": encode(away)}, {"measure": "accuracy", "values": {}, "made": MADE}
    (store / "away.jsonl").write_text(f"{json.dumps(header)}\n{json.dumps(row)}\n")
    names = {runs.run_name(TINY), runs.run_name(NEXT)}
    assert set(audit.choose(sample=5)) == names
    assert {*audit.choose(sample=1, seed=0)} < names
    assert audit.choose(sample=2, seed=3) == audit.choose(sample=2, seed=3)
    with pytest.raises(ValueError, match=r"^away cannot be trained here: "):
        audit.choose(["away"])


def test_a_bad_call_is_one_sentence_and_exit_2(store, tmp_path):
    result = call("nothing")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: the evidence store has no run 'nothing'; its runs are the files ")
    assert result.stderr.count("\n") == 1
    assert call("--sample", 0).stderr == "Error: Invalid value for '--sample': 0 is not in the range x>=1.\n"
    for file in store.iterdir():
        file.unlink()
    assert call().stderr == f"Error: {store} has no run that can be trained here\n"
