"""Observations on disk by hand, and the way from a spec to them: the store, beside the run, measured, trained."""

import base64
import json
import lzma
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch

from capsnb.data import DataSpec
from capsnb.measure import observations
from capsnb.measure.observations import Observation, pack, read, unpack, write
from capsnb.measure.observe import is_recorded, observe, record, take_all
from capsnb.measure.protocol import MEASURES, find, measurement
from capsnb.nn.models import CapsNetConfig, NeuronNetConfig, StridedStem
from capsnb.training import runs
from capsnb.training.identity import decode, key
from capsnb.training.recipe import Recipe
from capsnb.training.spec import Spec

HEADER = {"run": "0123456789ab", "spec": {"type": "spec@1"}}
MADE = {"code": "1a2b3c4", "device": "CPU", "date": "2026-03-01T10:00:00+00:00"}
MODEL = CapsNetConfig(size=12, dim=4, stem=StridedStem(channels=4, kernel=3, types=2, dim=4), decoder="none")
SPEC = Spec(
    model=MODEL,
    data=DataSpec(crop=24, resize=12, train=64, validation=20, test=20),
    recipe=Recipe(epochs=1, batch=32, report_every=1),
)
OTHER = Spec(model=MODEL, data=SPEC.data, recipe=SPEC.recipe, seed=1)


def made(**changes):
    return MADE | changes


# --- plain data


def test_numbers_in_lists_are_rounded_to_six_digits_and_single_ones_kept_whole():
    third = 1 / 3
    assert pack({"one": third, "many": [third, 1e6 * third, 1e-9 * third]}) == {
        "one": third,
        "many": [0.333333, 333333.0, 3.33333e-10],
    }
    assert pack(np.float64(third)) == third
    assert pack(np.array([third, 2.0])) == [0.333333, 2.0]
    assert pack(torch.tensor([[1, 2], [3, 4]])) == [[1, 2], [3, 4]]
    assert pack([[third], (third,)]) == [[0.333333], [0.333333]]
    assert pack([True, 7, "a", None]) == [True, 7, "a", None]
    assert pack(123456789) == 123456789 and pack([123456789]) == [123456789]


def test_what_is_no_number_is_null():
    assert pack({"a": float("nan"), "b": [float("inf"), 1.0], "c": np.array([np.nan])}) == {
        "a": None,
        "b": [None, 1.0],
        "c": [None],
    }
    assert pack(torch.tensor(float("nan"))) is None


def test_small_pictures_come_back_as_they_are():
    panel = np.random.default_rng(0).integers(0, 256, (2, 5, 7), dtype=np.uint8)
    found = unpacked({"panels": [panel], "tensor": torch.from_numpy(panel)})
    assert found["panels"][0].dtype == np.uint8
    assert np.array_equal(found["panels"][0], panel) and np.array_equal(found["tensor"], panel)
    assert unpacked(np.zeros((0, 3), np.uint8)).shape == (0, 3)
    assert unpacked({"uint8": 3}) == {"uint8": 3}, "a value of that name is no picture"


def unpacked(value):
    return json.loads(json.dumps(pack(value)), object_hook=unpack)


def test_of_one_measure_the_others_are_not_looked_at(tmp_path):
    file = tmp_path / "run.jsonl"
    write(file, HEADER, [Observation(name, values={"a": 1}) for name in ("one", "other", "one more")])
    file.write_text(file.read_text() + '{"measure": "other", "values": \n')
    assert [each.measure for each in read(file, "one")[1]] == ["one"]
    with pytest.raises(ValueError, match="line 5"):
        read(file, "other")


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", {"a": [lambda: 0]}, 1j])
def test_what_is_no_plain_data_is_refused(value, tmp_path):
    with pytest.raises(ValueError, match=r"is no plain data: an observation holds numbers, texts, lists"):
        pack(value)
    file = tmp_path / "run.jsonl"
    write(file, HEADER, [Observation("good", values={"a": 1})])
    before = file.read_bytes()
    with pytest.raises(ValueError, match="is no plain data"):
        write(file, HEADER, [Observation("bad", values={"a": value})])
    assert file.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["run.jsonl"], "no temporary file is left"


# --- the file


def test_a_round_trip_through_a_file(tmp_path):
    values = {"a": 1 / 3, "b": [1 / 3, None], "c": {"d": {"e": [[1, 2], [3, 4]]}}, "f": "text", "g": None}
    panel = np.arange(12, dtype=np.uint8).reshape(3, 4)
    first = Observation("life", 2, {"images": 5}, None, True, values, made())
    second = Observation("life", 2, {}, "untrained", False, {"panel": panel, "none": 0, "no": False}, made())
    file = tmp_path / "deep" / "run.jsonl"
    assert write(file, HEADER, [first, second]) == 2
    header, found = read(file)
    assert header == HEADER
    by_null = {each.null: each for each in found}
    assert by_null[None] == Observation("life", 2, {"images": 5}, None, True, values | {"b": [0.333333, None]}, made())
    back = by_null["untrained"]
    assert (back.measure, back.version, back.settings, back.null, back.watched) == ("life", 2, {}, "untrained", False)
    assert np.array_equal(back.values["panel"], panel) and back.values["none"] == 0 and back.values["no"] is False
    before = file.read_bytes()
    assert write(file, HEADER, found) == 0
    assert file.read_bytes() == before, "written again, not a byte changes"


def test_several_makers_stand_side_by_side_and_the_same_one_takes_the_earlier_ones_place(tmp_path):
    file = tmp_path / "run.jsonl"
    assert write(file, HEADER, [Observation("a", values={"x": 1}, made=made())]) == 1
    assert write(file, HEADER, [Observation("a", values={"x": 2}, made=made())]) == 0
    assert [each.values["x"] for each in read(file)[1]] == [2]
    others = [{"code": "5555555"}, {"device": "NVIDIA H100"}, {"date": "2026-02-01T10:00:00+00:00"}]
    others.append({"measured": {"code": "6666666"}})
    for number, each in enumerate(others):
        assert write(file, HEADER, [Observation("a", values={"x": 10 + number}, made=made(**each))]) == 1
    found = read(file)[1]
    assert sorted(each.values["x"] for each in found) == [2, 10, 11, 12, 13]
    assert found[0].values["x"] == 12, "the newest stands last, that of February first"
    for apart in ({"version": 2}, {"settings": {"images": 3}}, {"null": "untrained"}, {"watched": True}):
        assert write(file, HEADER, [Observation(**{"measure": "a", "values": {"x": 0}, "made": made()} | apart)]) == 1


def test_where_an_observation_comes_from_in_words():
    assert Observation("a", made=made()).origin == "2026-03-01, CPU, code 1a2b3c4"
    assert Observation("a", made={"date": "2026-03-01T10"}).origin == "2026-03-01"
    assert Observation("a").origin == ""


@pytest.mark.parametrize(
    ("line", "content"),
    [
        (1, "not json\n"),
        (1, '{"spec": 3}\n'),
        (1, "[1]\n"),
        (2, '{"run": "a"}\n{"measure": "x", "values": {}'),
        (2, '{"run": "a"}\n{"measure": "x"}\n'),
        (2, '{"run": "a"}\n{"measure": "x", "values": {}, "colour": 1}\n'),
        (2, '{"run": "a", "made": {"1": {}}}\n{"made": "2", "measure": "x", "values": {}}\n'),
        (2, '{"run": "a", "made": {"1": 3}}\n{"made": "1", "measure": "x", "values": {}}\n'),
        (
            3,
            '{"run": "a"}\n{"measure": "x", "values": {}}\n{"measure": "x", "values": {"uint8": "?", "shape": [1]}}\n',
        ),
    ],
)
def test_a_damaged_line_is_one_sentence_with_its_remedy(tmp_path, line, content):
    file = tmp_path / "run.jsonl"
    file.write_text(content)
    with pytest.raises(ValueError, match=rf"run\.jsonl, line {line}, is no observation .*: restore it from version"):
        read(file)
    with pytest.raises(ValueError, match="is no observation"):
        write(file, {"run": "a"}, [Observation("y")])
    assert file.read_text() == content


def test_a_file_of_another_run_is_refused(tmp_path):
    file = tmp_path / "run.jsonl"
    write(file, HEADER, [Observation("a")])
    before = file.read_bytes()
    with pytest.raises(ValueError, match="is of the run 0123456789ab, not of ffffffffffff"):
        write(file, HEADER | {"run": "ffffffffffff"}, [Observation("a", values={"x": 1})])
    assert file.read_bytes() == before


def test_a_file_is_readable_with_json_alone(tmp_path):
    file = tmp_path / "run.jsonl"
    write(file, HEADER, [Observation("a", 3, {"images": 5}, values={"x": [1 / 3]}, made=made())])
    first, second = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    assert first == HEADER
    wanted = {"measure": "a", "version": 3, "settings": {"images": 5}, "values": {"x": [0.333333]}, "made": MADE}
    assert second == wanted


def test_what_lines_say_alike_of_their_making_stands_once(tmp_path):
    file = tmp_path / "run.jsonl"
    measured = [{"code": "5555555", "seconds": seconds} for seconds in (1.0, 2.0)]
    one, two, bare = made(measured=measured[0]), made(measured=measured[1]), made()
    other = made(code="9999999")
    given = [Observation(str(number), made=each) for number, each in enumerate((one, two, bare, other, {}, {}))]
    write(file, HEADER, given)
    first, *rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    ((name, shared),) = first.pop("made").items()
    assert first == HEADER and shared == MADE
    makers = {row["measure"]: (row.get("made"), row.get("measured")) for row in rows}
    assert makers["0"] == (name, measured[0]) and makers["1"] == (name, measured[1]) and makers["2"] == (name, None)
    assert makers["3"] == (other, None) and makers["4"] == (None, None) == makers["5"]
    header, found = read(file)
    assert header == HEADER and sorted(found, key=lambda each: each.measure) == given
    assert read(file, "1")[1] == [given[1]], "of one measure alone, too"


def test_what_more_than_two_lines_say_alike_of_their_measuring_stands_once(tmp_path):
    file = tmp_path / "run.jsonl"
    by = {"code": "5555555", "device": "CPU"}
    said = [by | {"date": f"2026-03-0{day}", "seconds": float(day)} for day in (1, 2, 3)]
    other = {"code": "6666666", "date": "2026-03-04", "seconds": 1.0}
    makers = [made(measured=each) for each in said[:2]] + [
        made(code="9999999", measured=each) for each in (said[2], other)
    ]
    given = [Observation(str(number), made=each) for number, each in enumerate(makers)]
    write(file, HEADER, given)
    first, *rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    ((name, shared),) = first["measured"].items()
    assert shared == by
    assert rows[0]["measured"] == {"by": name, "date": "2026-03-01", "seconds": 1.0}
    assert rows[1]["measured"]["by"] == name and rows[3]["measured"] == other
    assert read(file)[1] == sorted(given, key=lambda each: each.made["date"])
    before = file.read_bytes()
    assert write(file, HEADER, given) == 0 and file.read_bytes() == before, "written again, it is the same"


def test_long_values_are_compressed_and_those_of_earlier_files_read(tmp_path):
    file, text = tmp_path / "run.jsonl", json.dumps({"x": list(range(2_000))})
    packed = base64.b64encode(zlib.compress(text.encode())).decode()
    rows = [HEADER, {"measure": "a", "values": {"zlib": packed}}]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    header, found = read(file)
    assert found[0].values == {"x": list(range(2_000))}
    write(file, header, found)
    assert read(file)[1] == found
    (values,) = [json.loads(line)["values"] for line in file.read_text(encoding="utf-8").splitlines()[1:]]
    assert json.loads(lzma.decompress(base64.b64decode(values["lzma"]))) == found[0].values
    assert file.stat().st_size < len(text) / 2


def test_lines_that_say_all_of_their_making_are_read_and_written_shorter(tmp_path):
    file = tmp_path / "run.jsonl"
    rows = [{"measure": name, "values": {"x": 1}, "made": MADE, "version": 1} for name in "ab"]
    file.write_text("\n".join(map(json.dumps, [HEADER, *rows])) + "\n")
    header, found = read(file)
    assert header == HEADER and [each.made for each in found] == [MADE, MADE]
    before = file.stat().st_size
    assert write(file, HEADER, found) == 0
    assert read(file) == (header, found) and file.stat().st_size < before


WRITER = """
import sys
from capsnb.measure.observations import Observation, write
assert "torch" not in sys.modules
for number in range(25):
    settings = {"who": sys.argv[2], "number": number}
    write(sys.argv[1], {"run": "a"}, [Observation("m", settings=settings, values={"x": 1})])
"""


def test_parallel_writers_lose_nothing(tmp_path):
    file = tmp_path / "run.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(file), who]) for who in "abcd"]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0, 0]
    found = {(each.settings["who"], each.settings["number"]) for each in read(file)[1]}
    assert found == {(who, number) for who in "abcd" for number in range(25)}
    assert [each.name for each in tmp_path.iterdir()] == ["run.jsonl"]


# --- from a spec to an observation


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the run of SPEC, trained once for all tests that only measure it."""
    folder = tmp_path_factory.mktemp("trained")
    runs.get(SPEC, root_folder=folder, progress=False)
    return folder


@pytest.fixture
def root(trained, tmp_path):
    """A copy of that folder, with nothing measured."""
    name = runs.run_name(SPEC)
    (tmp_path / "runs" / name).mkdir(parents=True)
    for file in ("spec.json", "made.json", "history.csv", "model.pt"):
        (tmp_path / "runs" / name / file).write_bytes((trained / name / file).read_bytes())
    return tmp_path / "runs"


@pytest.fixture
def counted():
    """A measure that counts its calls: the sum of all weights, and how many images it was shown."""
    calls = []

    @measurement("sum of weights")
    def weight_sum(model, data, *, times=1):
        calls.append(times)
        return {
            "sum": times * float(sum(each.detach().double().sum() for each in model.parameters())),
            "null: zero": 0.0,
        }

    yield calls
    MEASURES.pop("sum of weights")


def stamp(root, spec=SPEC):
    return (runs.folder_of(spec, root_folder=root) / "model.pt").stat().st_mtime_ns


def weight_sum(model):
    return float(sum(each.detach().double().sum() for each in model.parameters()))


def test_it_is_measured_once_and_kept_beside_the_run(root, counted):
    (first,) = observe([SPEC], "sum of weights", root_folder=root)
    assert first.values == {"sum": weight_sum(runs.get(SPEC, root_folder=root).model), "null: zero": 0.0}
    assert (first.measure, first.version, first.settings, first.null) == ("sum of weights", 1, {}, None)
    assert first.made["date"] == runs.read_made(runs.folder_of(SPEC, root_folder=root))["date"]
    assert first.made["measured"].keys() == {"code", "device", "date", "seconds"}
    assert observe([SPEC], "sum of weights", root_folder=root) == [first]
    assert counted == [1]
    (double,) = observe([SPEC], "sum of weights", root_folder=root, times=2)
    assert double.values["sum"] == 2 * first.values["sum"] and double.settings == {"times": 2}
    assert observe([SPEC], "sum of weights", root_folder=root, times=1) == [first], "the default is no setting"
    assert counted == [1, 2]
    header, found = read(runs.folder_of(SPEC, root_folder=root) / "observations.jsonl")
    assert header["run"] == key(SPEC) and decode(header["spec"]) == SPEC
    assert len(found) == 2


def test_what_is_missing_is_one_sentence_with_count_and_forecast_and_nothing_is_trained(tmp_path, root, counted):
    with pytest.raises(ValueError) as told:
        observe([SPEC, OTHER], "sum of weights", root_folder=root)
    sentence = str(told.value)
    assert sentence.startswith(f"{root} has no sum of weights@1 of 2 of 2 runs, such as {runs.run_name(SPEC)}: about ")
    assert "core-hours of training would bring it." in sentence
    assert "\n" not in sentence
    assert counted == [] and not runs.folder_of(OTHER, root_folder=root).exists()
    store = tmp_path / "store"
    with pytest.raises(
        ValueError,
        match=r"store has no sum of weights@1 of 1 of 1 runs.*: measuring alone would bring it",
    ):
        observe([SPEC], "sum of weights", recorded=True, store=store, root_folder=root)
    with pytest.raises(ValueError, match="has no setting 'size'; it has: times"):
        observe([SPEC], "sum of weights", root_folder=root, size=3)
    with pytest.raises(ValueError, match="there is no measure 'beauty'; there are: "):
        observe([SPEC], "beauty", root_folder=root)


def test_it_is_trained_first_where_that_is_asked_for(root, counted):
    before = stamp(root)
    found = observe([SPEC, OTHER], "sum of weights", train=True, jobs=1, root_folder=root)
    assert [each.values["sum"] for each in found] == [
        weight_sum(runs.get(spec, root_folder=root).model) for spec in (SPEC, OTHER)
    ]
    assert counted == [1, 1] and stamp(root) == before
    assert observe([OTHER, SPEC], "sum of weights", root_folder=root) == found[::-1]
    assert counted == [1, 1]


def test_the_same_of_the_untrained_network(tmp_path, root, counted):
    (null,) = observe([SPEC], "sum of weights", null="untrained", root_folder=root)
    assert null.values["sum"] == weight_sum(SPEC.build()) and null.null == "untrained"
    (own,) = observe([SPEC], "sum of weights", root_folder=root)
    assert own.values["sum"] != null.values["sum"]
    assert observe([SPEC], "sum of weights", null="untrained", root_folder=root) == [null]
    assert counted == [1, 1]
    empty = tmp_path / "empty"
    (again,) = observe([SPEC], "sum of weights", null="untrained", root_folder=empty)
    assert again.values == null.values, "it needs no training"
    assert {"code", "device", "date", "versions"} <= again.made.keys(), "and says all the same what made it"
    assert runs.list_runs(empty) == []
    with pytest.raises(ValueError, match=r"has no sum of weights@1 of 1 of 1 runs.*: measuring alone would bring it"):
        observe([SPEC], "sum of weights", null="untrained", recorded=True, store=empty, root_folder=empty)
    with pytest.raises(ValueError, match="null 'shuffled' is unknown; allowed: 'untrained'"):
        observe([SPEC], "sum of weights", null="shuffled", root_folder=root)
    with pytest.raises(ValueError, match="cannot be both watched and of a null"):
        observe([SPEC], "sum of weights", null="untrained", watched=True, root_folder=root)


def test_the_store_answers_without_runs_and_without_images(tmp_path, root, counted, monkeypatch):
    store, nowhere = tmp_path / "store", tmp_path / "nowhere"
    mnist = Spec(model=MODEL, data=DataSpec(name="mnist", resize=12), recipe=SPEC.recipe)
    observe([SPEC], "sum of weights", root_folder=root)
    assert record([SPEC, OTHER], store=store, root_folder=root) == (1, [store / f"{runs.run_name(SPEC)}.jsonl"])
    assert record([SPEC], store=store, root_folder=root)[0] == 0, "nothing is new there"
    (beside,) = observe([SPEC], "sum of weights", root_folder=root)
    monkeypatch.setenv("CAPSNB_DATA", str(nowhere))
    assert observe([SPEC], "sum of weights", recorded=True, store=store, root_folder=nowhere) == [beside]
    # a set that is not here is known by its true content
    known = Observation("sum of weights", values={"sum": 4})
    write(store / f"{runs.run_name(mnist)}.jsonl", {"run": key(mnist)}, [known])
    (found,) = observe([mnist], "sum of weights", recorded=True, store=store, root_folder=nowhere)
    assert found.values == {"sum": 4}
    with pytest.raises(ValueError, match="their training cannot be forecast") as told:
        observe([mnist], "accuracy", recorded=True, store=store, root_folder=nowhere)
    assert "\n" not in str(told.value)
    assert counted == [1] and not nowhere.exists()


def test_a_store_may_hold_several_and_the_newest_answers(tmp_path, counted):
    file = tmp_path / f"{runs.run_name(SPEC)}.jsonl"
    for day in (3, 1, 2):
        of_a_day = Observation("sum of weights", values={"sum": day}, made=made(date=f"2026-03-0{day}T00:00:00"))
        write(file, {"run": key(SPEC)}, [of_a_day])
    assert observe([SPEC], "sum of weights", recorded=True, store=tmp_path)[0].values == {"sum": 3}


def test_a_measure_that_is_new_finds_every_run_again(root):
    observe([SPEC], "accuracy", root_folder=root)
    before = stamp(root)

    @measurement("a later idea")
    def later(model, data):
        return {"value": 3}

    try:
        assert observe([SPEC], "a later idea", root_folder=root)[0].values == {"value": 3}
    finally:
        MEASURES.pop("a later idea")
    assert stamp(root) == before


def test_a_corrected_measure_makes_its_own_observations_missing_and_no_others(root, tmp_path, counted):
    store = tmp_path / "store"
    (old,) = observe([SPEC], "sum of weights", root_folder=root)
    (accuracy,) = observe([SPEC], "accuracy", root_folder=root)
    record([SPEC], store=store, root_folder=root)
    before = stamp(root)
    function = MEASURES["sum of weights"].function
    measurement("sum of weights", version=2)(function)
    with pytest.raises(ValueError, match=r"the evidence store has no sum of weights@2 of 1 of 1 runs"):
        observe([SPEC], "sum of weights", recorded=True, store=store, root_folder=root)
    assert observe([SPEC], "accuracy", recorded=True, store=store, root_folder=root) == [accuracy]
    (new,) = observe([SPEC], "sum of weights", root_folder=root)
    assert (new.version, old.version, new.values) == (2, 1, old.values)
    assert counted == [1, 1] and stamp(root) == before
    assert len(read(runs.folder_of(SPEC, root_folder=root) / "observations.jsonl")[1]) == 3, "nothing earlier is lost"


def test_what_a_network_lacks_is_an_observation_with_the_reason(root):
    @measurement("needs more", needs=("primary", "attic"))
    def needs_more(model, data):
        raise AssertionError("not called")

    try:
        (found,) = observe([SPEC], "needs more", root_folder=root)
    finally:
        MEASURES.pop("needs more")
    assert found.values == {"reason": "CapsNet has no attic, which needs more needs"}


def test_a_run_is_measured_by_many_at_once_and_only_by_those_that_are_missing(root, counted):
    run = runs.get(SPEC, root_folder=root)
    (first,) = observe([SPEC], "sum of weights", root_folder=root)
    wanted = [(find("sum of weights"), {}), (find("sum of weights"), {"times": 3}), (find("accuracy"), {})]
    found = take_all(SPEC, run, wanted)
    assert [each.measure for each in found] == ["sum of weights", "sum of weights", "accuracy"]
    assert found[0] == first and counted == [1, 3]
    assert take_all(SPEC, run, iter(wanted)) == found and counted == [1, 3]
    assert all(each.made["measured"]["seconds"] >= 0 for each in found)


def test_a_measuring_that_is_cut_off_goes_on_behind_what_it_had(tmp_path, counted):
    run, cut = runs.get(SPEC, root_folder=tmp_path, progress=False), [KeyboardInterrupt]

    @measurement("cut off once")
    def cut_off_once(model, data):
        if cut:
            raise cut.pop()
        return {"value": 1.0}

    wanted = [(find("sum of weights"), {}), (find("cut off once"), {})]
    try:
        with pytest.raises(KeyboardInterrupt):
            take_all(SPEC, run, wanted)
        assert [each.measure for each in take_all(SPEC, run, wanted)] == ["sum of weights", "cut off once"]
    finally:
        MEASURES.pop("cut off once")
    assert counted == [1], "what was measured before the cut is not measured again"


# --- what is watched


def test_a_watched_series_has_its_steps_and_lies_beside_the_run(root, counted):
    before = torch.load(runs.folder_of(SPEC, root_folder=root) / "model.pt", weights_only=True)
    with pytest.raises(ValueError, match="core-hours of training would bring it"):
        observe([SPEC], "sum of weights", watched=True, root_folder=root)
    (found,) = observe([SPEC], "sum of weights", watched=True, train=True, jobs=1, root_folder=root)
    assert found.watched and found.values["step"] == [1, 2] and found.values["epoch"] == [0.5, 1.0]
    last = weight_sum(runs.get(SPEC, root_folder=root).model)
    assert found.values["sum"][-1] == pytest.approx(last, rel=1e-5)
    assert found.values["null: zero"] == [0, 0]
    after = torch.load(runs.folder_of(SPEC, root_folder=root) / "model.pt", weights_only=True)
    assert all(torch.equal(before[name], after[name]) for name in before), "made again, to the same weights"
    assert counted == [1, 1]
    assert observe([SPEC], "sum of weights", watched=True, root_folder=root) == [found] and counted == [1, 1]
    (single,) = observe([SPEC], "test accuracy", watched=True, train=True, jobs=1, root_folder=root)
    assert single.values.keys() == {"step", "epoch", "value"} and len(single.values["value"]) == 2
    assert observe([SPEC], "sum of weights", watched=True, root_folder=root) == [found], "the first is still there"


def test_a_run_that_was_begun_unwatched_is_watched_from_its_beginning_all_the_same(tmp_path, counted):
    rows = runs.follow(SPEC, root_folder=tmp_path, progress=False)
    next(rows)
    rows.close()
    (found,) = observe([SPEC], "sum of weights", watched=True, train=True, jobs=1, root_folder=tmp_path)
    assert found.values["step"] == [1, 2]


def test_what_was_watched_and_had_nothing_to_show_counts_as_recorded(tmp_path):
    # no couplings to share: None at every report, and no reason to train it once more
    plain = NeuronNetConfig(size=12, width=2, primary=2, kernel=3, hidden=(3,))
    spec = Spec(model=plain, data=SPEC.data, recipe=Recipe(epochs=1, batch=32, loss="bce"))
    shares, where = [(find("parent shares"), {})], {"root_folder": tmp_path / "runs"}
    unwatched = runs.get(spec, progress=False, **where)
    take_all(spec, unwatched, [], watched=shares)
    record([spec], store=tmp_path / "store", **where)
    assert not is_recorded(spec, [], watched=shares, store=tmp_path / "store")
    run = runs.get(spec, watch={m.column(): m.watched() for m, _ in shares}, progress=False, **where)
    take_all(spec, run, [], watched=shares)
    record([spec], store=tmp_path / "store", **where)
    assert is_recorded(spec, [], watched=shares, store=tmp_path / "store")
    (found,) = observe([spec], "parent shares", watched=True, recorded=True, store=tmp_path / "store")
    assert found.values["step"] == []


def test_what_the_store_lacks_may_be_left_out(root, tmp_path):
    observe([SPEC], "accuracy", root_folder=root)
    record([SPEC], store=tmp_path, root_folder=root)
    first, second = observe([SPEC, OTHER], "accuracy", recorded=True, partial=True, store=tmp_path)
    assert first.measure == "accuracy" and second is None


def test_the_store_lies_with_the_project(project):
    assert observations.store_folder() == project / "results" / "observations"
