"""Runs on disk: found again, resumed after a kill bit for bit, watched, locked, damaged, started from other weights."""

import contextlib
import json
import multiprocessing
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from capsnb.data import DataSpec, prepare
from capsnb.data.transforms import Translated
from capsnb.measure.observe import observe
from capsnb.measure.protocol import Measure, find
from capsnb.nn.models import CapsNetConfig, StridedStem
from capsnb.training import files, runs
from capsnb.training.recipe import Recipe
from capsnb.training.spec import Spec

MODEL = CapsNetConfig(
    size=12, dim=4, stem=StridedStem(channels=4, kernel=3, types=2, dim=4), decoder_widths=(8,), classes=10
)
SPEC = Spec(
    model=MODEL,
    data=DataSpec(crop=24, resize=12, train=64, validation=20, test=20),
    recipe=Recipe(epochs=2, batch=16),
)
DAY = 86400


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "model.pt", weights_only=True)


def same(first: Path, second: Path) -> bool:
    left, right = weights(first), weights(second)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in right)


def get(spec: Spec, folder: Path, **options) -> runs.Run:
    return runs.get(spec, root_folder=folder, progress=False, device="cpu", **options)


def follow(spec: Spec, folder: Path, **options):
    return runs.follow(spec, root_folder=folder, progress=False, device="cpu", **options)


def cut(spec: Spec, folder: Path, rows: int = 1, **options) -> Path:
    """The folder of a run that was ended after so many rows."""
    following = follow(spec, folder, **options)
    for _ in range(rows):
        next(following)
    following.close()
    return runs.folder_of(spec, root_folder=folder)


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def lengths(training):
    return training.model(training.data.test.images[:4]).scores.mean(0)


def test_a_run_is_trained_once_and_then_replayed(tmp_path):
    first = list(follow(SPEC, tmp_path))
    folder = runs.folder_of(SPEC, root_folder=tmp_path)
    assert names_in(folder) == ["history.csv", "lock", "made.json", "model.pt", "spec.json"]
    stamp = (folder / "model.pt").stat().st_mtime_ns
    assert list(follow(SPEC, tmp_path)) == first
    run = get(SPEC, tmp_path)
    assert (folder / "model.pt").stat().st_mtime_ns == stamp
    assert run.spec == SPEC
    assert run.history == first
    assert not run.model.training
    assert runs.load(folder).spec == SPEC


def test_a_run_says_what_made_it_and_a_resume_adds_to_that(tmp_path, monkeypatch):
    folder = cut(SPEC, tmp_path)
    first = runs.read_made(folder)
    assert {"code", "versions", "device", "cpu", "threads", "date"} == first.keys()
    assert first["versions"]["torch"] == torch.__version__.split("+")[0]
    for _ in range(2):  # a second resume by the same code adds nothing
        monkeypatch.setattr(runs, "circumstances", lambda: first | {"code": "later"})
        cut(SPEC, tmp_path)
        assert runs.read_made(folder)["code"] == f"{first['code']}, then later"
        assert runs.read_made(folder)["device"] == first["device"]


# ---------------------------------------------------------------- what is watched


def test_watched_curves_are_kept_apart_and_are_no_part_of_the_name(tmp_path):
    calls = []

    def counted(training):
        calls.append(training.step)
        return lengths(training)

    spec = replace(SPEC, recipe=replace(SPEC.recipe, report_every=3))
    rows = list(follow(spec, tmp_path, watch={"lengths": counted}))
    assert [row["step"] for row in rows] == calls == [3, 6, 8]
    assert len(rows[0]["lengths"]) == 10
    assert list(follow(spec, tmp_path, watch={"lengths": counted})) == rows
    assert len(calls) == 3, "a finished run replays what was watched"
    folder = runs.folder_of(spec, root_folder=tmp_path)
    assert names_in(tmp_path) == [folder.name]
    assert runs.load(folder).history == rows
    plain = list(follow(spec, tmp_path))
    assert plain == [{name: row[name] for name in row if name != "lengths"} for row in rows]


def test_watching_changes_no_bit_of_the_weights(tmp_path):
    def nosy(training):
        torch.rand(5)
        training.model.train()
        training.model(training.data.train.images[:3]).scores.sum().backward()
        moments = [state["exp_avg"].abs().max().item() for state in training.optimizer.state.values()]
        return {"largest": max(moments), "length": 1.0}

    by_measure = find("pull").watched(images=8)  # needs gradients
    told = Measure("moments", lambda model, data, *, training: nosy(training), needs=("optimizer",)).watched()
    plain = get(SPEC, tmp_path / "plain")
    watched = get(SPEC, tmp_path / "watched", watch={"pull": by_measure, "moments": told, "nosy": nosy})
    assert plain.folder.name == watched.folder.name
    assert same(plain.folder, watched.folder)
    assert watched.history[0]["moments"]["largest"] > 0
    assert watched.history[0]["moments"] == watched.history[0]["nosy"]
    assert len(watched.history[0]["pull"]["weight"]) == 1


def test_a_finished_run_that_was_not_watched_is_trained_again_to_the_same_weights(tmp_path, capsys):
    plain = get(SPEC, tmp_path)
    (plain.folder / "observations.jsonl").write_text("measured of these weights\n")
    before = weights(plain.folder)
    first = get(SPEC, tmp_path, watch={"lengths": lengths})
    second = get(SPEC, tmp_path, watch={"steps": lambda training: training.step})
    after = weights(plain.folder)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert runs.is_finished(plain.folder, ["lengths", "steps"])
    both = runs.load(plain.folder).history
    assert [row["lengths"] for row in both] == [row["lengths"] for row in first.history]
    assert [row["steps"] for row in both] == [row["steps"] for row in second.history] == [4, 8]
    assert (plain.folder / "observations.jsonl").exists()
    assert capsys.readouterr().out == ""


def test_while_it_is_made_again_a_finished_run_stays_what_it_was(tmp_path):
    plain = get(SPEC, tmp_path)
    cut(SPEC, tmp_path, watch={"lengths": lengths})
    assert len(plain.history) == 2
    assert get(SPEC, tmp_path).history == plain.history == runs.load(plain.folder).history


def test_made_again_to_other_weights_a_run_loses_what_was_measured_of_the_earlier(tmp_path, capsys):
    run = get(SPEC, tmp_path, watch={"lengths": lengths})
    other = {name: value + 1 if value.is_floating_point() else value for name, value in weights(run.folder).items()}
    torch.save(other, run.folder / "model.pt")
    (run.folder / "observations.jsonl").write_text("measured of other weights\n")
    get(SPEC, tmp_path, watch={"steps": lambda training: training.step})
    assert "made again, to other weights" in capsys.readouterr().out
    assert not (run.folder / "observations.jsonl").exists()
    assert files.watched_columns(run.folder) == ["steps"]


def test_half_a_column_is_not_kept_and_a_whole_one_is(tmp_path, capsys):
    def steps(training):
        return training.step

    folder = cut(SPEC, tmp_path, watch={"steps": steps, "gone": steps})
    run = get(SPEC, tmp_path, watch={"steps": steps, "late": steps})
    assert "was begun without watching late, which is not kept" in capsys.readouterr().out
    assert files.watched_columns(folder) == ["steps"]
    assert not runs.is_finished(folder, ["late"])
    assert [row["steps"] for row in run.history] == [4, 8]
    assert set((folder / "history.csv").read_text().splitlines()[0].split(",")) == {
        *("epoch", "step", "loss", "accuracy", "validation loss", "validation accuracy", "learning rate", "images/s")
    }
    again = get(SPEC, tmp_path, watch={"late": steps})
    assert [row["late"] for row in again.history] == [4, 8]
    assert files.watched_columns(folder) == ["steps", "late"]


def test_a_series_asked_of_a_run_that_was_begun_without_it_is_whole(tmp_path):
    cut(SPEC, tmp_path)
    assert [row["late"] for row in get(SPEC, tmp_path, watch={"late": lengths}).history] == [None, None]
    begun = replace(SPEC, seed=1)
    cut(begun, tmp_path)
    (found,) = observe([begun], "test accuracy", train=True, watched=True, root_folder=tmp_path, jobs=1)
    assert found.values["step"] == [4, 8]
    assert len(found.values["value"]) == 2


# ---------------------------------------------------------------- kills, threads, locks

LONG = replace(SPEC, recipe=Recipe(epochs=40, batch=16, learning_rate=3e-3, report_every=7))
# new processes are forked from one that has done nothing but import: torch's import takes longer than a training here
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["torch._dynamo", "capsnb.measure.observe", "capsnb.nn.models", "capsnb.training.runs"])


def train_and_tell(folder, pipe):
    for row in runs.follow(LONG, root_folder=folder, progress=False, device="cpu"):
        pipe.send(row["step"])


@contextlib.contextmanager
def started(folder):
    """A process that trains LONG, and where it tells its steps; it has ended when the block has."""
    steps, end = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=train_and_tell, args=(folder, end))
    process.start()
    end.close()
    try:
        yield process, steps
    finally:
        process.join()


def finish(folder):
    with started(folder) as (process, _):
        process.join(240)
        process.kill()
    assert process.exitcode == 0


def test_sigkill_at_random_moments_and_resume_give_the_uncut_weights_bit_for_bit(tmp_path):
    finish(tmp_path / "whole")
    chance = random.Random(20171107)
    kills = 0
    while kills < 3:
        with started(tmp_path / "cut") as (process, steps):
            # past its start-up, then somewhere inside the work, saving included
            steps.recv()
            time.sleep(chance.uniform(0.0, 0.15))
            process.kill()
        if process.exitcode != -signal.SIGKILL:
            break
        kills += 1
    assert kills == 3, "the run ended before it could be killed three times: make it longer"
    folder = runs.folder_of(LONG, root_folder=tmp_path / "cut")
    assert (folder / "state.pt").exists()
    finish(tmp_path / "cut")
    uncut = runs.folder_of(LONG, root_folder=tmp_path / "whole")
    assert same(folder, uncut)
    timeless = [[{**row, "images/s": 0} for row in files.read_history(where)] for where in (folder, uncut)]
    assert timeless[0] == timeless[1]


def test_a_second_process_waits_for_the_first_and_does_not_train_again(tmp_path, capfd):
    with started(tmp_path) as (first, there):
        told = [there.recv()]
        folder = runs.folder_of(LONG, root_folder=tmp_path)
        (listed,) = runs.list_runs(tmp_path)
        assert listed["locked"] and not listed["finished"]
        steps = []
        run = runs.get(LONG, root_folder=tmp_path, device="cpu", progress=lambda step, total: steps.append(step))
        with contextlib.suppress(EOFError):
            while True:
                told.append(there.recv())
    assert first.exitcode == 0
    assert f"waiting for {folder.name}, which another process is training" in capfd.readouterr().out
    assert steps == [], "nothing was trained here"
    assert told[-1] == run.history[-1]["step"] == 160
    assert not runs.list_runs(tmp_path)[0]["locked"]


def test_a_killed_holder_frees_the_lock(tmp_path):
    with started(tmp_path) as (process, steps):
        steps.recv()
        folder = runs.folder_of(LONG, root_folder=tmp_path)
        assert runs.is_locked(folder / "lock")
        process.kill()
    assert not runs.is_locked(folder / "lock")
    assert len(list(follow(LONG, tmp_path))) == 23  # 160 steps, a row every 7 and one at the end


def test_a_process_does_not_wait_for_itself(tmp_path):
    rows = follow(SPEC, tmp_path)
    next(rows)
    with pytest.raises(RuntimeError, match=r"is held by this very process.*go through the rows of that run, or close"):
        get(SPEC, tmp_path)
    assert len(list(rows)) == 1
    assert len(get(SPEC, tmp_path).history) == 2


def test_listing_and_pruning_spare_what_is_locked_or_young(tmp_path):
    assert runs.list_runs(tmp_path) == []
    done, unfinished = get(SPEC, tmp_path).folder, cut(replace(SPEC, seed=9), tmp_path)
    listed = {row["name"]: row for row in runs.list_runs(tmp_path)}
    assert {name: (row["finished"], row["epoch"]) for name, row in listed.items()} == {
        done.name: (True, 2),
        unfinished.name: (False, 1),
    }

    def prunable(**options):
        return {row["name"] for row in runs.prunable(tmp_path, **options)}

    assert prunable() == set(), "both changed within the last hour"
    assert prunable(older_than_days=0) == {unfinished.name}
    for file in [*done.iterdir(), *unfinished.iterdir()]:
        os.utime(file, (time.time() - 2 * DAY,) * 2)
    assert prunable() == prunable(older_than_days=1) == {unfinished.name}
    assert prunable(older_than_days=3) == set()
    assert prunable(unfinished_only=False) == {done.name, unfinished.name}
    with runs.locked(unfinished / "lock"):
        os.utime(unfinished / "lock", (time.time() - 2 * DAY,) * 2)
        assert prunable() == set()
        assert runs.prune(tmp_path, [unfinished.name]) == 0
        assert unfinished.is_dir()
    assert runs.prune(tmp_path, [unfinished.name]) == 1
    assert names_in(tmp_path) == [done.name]
    assert runs.prune(tmp_path, [done.name]) == 1


def test_one_thread_unless_told_and_a_resume_keeps_its_number(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        seen = []
        rows = follow(SPEC, tmp_path, watch={"threads": lambda training: torch.get_num_threads()})
        for row in rows:
            seen.append((row["threads"], torch.get_num_threads()))
        assert seen == [(1, 3), (1, 3)]
        made = runs.read_made(runs.folder_of(SPEC, root_folder=tmp_path))
        assert made["threads"] == 1 and made["device"].endswith("1 threads)")
        two = replace(SPEC, seed=2)
        folder = cut(two, tmp_path, threads=2)
        rows = list(follow(two, tmp_path, watch={"threads": lambda training: torch.get_num_threads()}))
        assert rows[1]["threads"] == 2
        assert runs.read_made(folder)["threads"] == 2
        assert torch.get_num_threads() == 3
        # made again, to be watched: with those that it was made with
        again = get(two, tmp_path, watch={"threads": lambda training: torch.get_num_threads()})
        assert [row["threads"] for row in again.history] == [2, 2]
    finally:
        torch.set_num_threads(before)


def test_a_resume_with_other_threads_says_that_it_is_not_bit_identical(tmp_path, capsys):
    folder = cut(SPEC, tmp_path)
    assert len(list(follow(SPEC, tmp_path, threads=2))) == 2
    assert "with 2 threads, begun with 1: the result is equally good, but not bit-identical" in capsys.readouterr().out
    assert "1 threads), then CPU" in runs.read_made(folder)["device"]
    assert runs.read_made(folder)["threads"] == 2


# ---------------------------------------------------------------- where weights come from


def test_start_reset_and_frozen_decide_where_weights_come_from(tmp_path):
    first = get(SPEC, tmp_path).model.state_dict()
    moved = replace(SPEC, start=SPEC, reset=("class",), frozen=("conv1", "primary"), seed=3)
    second = get(moved, tmp_path)
    now = second.model.state_dict()
    assert torch.equal(now["conv1.0.weight"], first["conv1.0.weight"])
    assert torch.equal(now["primary.conv.bias"], first["primary.conv.bias"])
    assert not torch.equal(now["class.weight"], first["class.weight"])
    assert runs.load(second.folder).spec == moved


@pytest.mark.parametrize("form", ["spec", "run", "checkpoint", "file", "state_dict", "model", "parallel"])
def test_a_start_is_a_spec_a_folder_or_a_file_of_weights(form, tmp_path):
    run = get(SPEC, tmp_path / "runs")
    own, path = weights(run.folder), tmp_path / "weights.pt"
    if form == "checkpoint":  # as `checkpoints.make` leaves one
        (tmp_path / "checkpoint").mkdir()
        for name in ("model.pt", "spec.json", "made.json", "history.csv"):
            (tmp_path / "checkpoint" / name).write_bytes((run.folder / name).read_bytes())
    if form in ("state_dict", "model"):
        torch.save({form: own, "epoch": 3}, path)
    if form == "parallel":
        torch.save({"state_dict": {f"module.{name}": value for name, value in own.items()}}, path)
    named = {"spec": SPEC, "run": run.folder, "checkpoint": tmp_path / "checkpoint", "file": run.folder / "model.pt"}
    place = named.get(form, path)
    # a decoder that learns, all else as it was
    spec = replace(
        SPEC, start=place if form == "spec" else str(place), frozen=("conv1", "primary", "class"), seed=1, redraw=1
    )
    found = get(spec, tmp_path / "runs").model.state_dict()
    kept = [name for name in own if not name.startswith("decoder")]
    assert kept and all(torch.equal(found[name], own[name]) for name in kept)
    assert not torch.equal(found["decoder.linears.0.weight"], own["decoder.linears.0.weight"])


def test_a_decoder_can_be_stacked_on_a_trained_encoder(tmp_path):
    encoder = replace(SPEC, model=replace(MODEL, decoder="none"))
    stacked = replace(SPEC, start=encoder, reset=("decoder",), frozen=("conv1", "primary", "class"))
    get(stacked, tmp_path)
    assert len(names_in(tmp_path)) == 2
    forgot = replace(stacked, reset=())
    sentence = r"decoder\.linears\.0\.bias is not there.*reset=\('decoder',\) would begin these parts fresh"
    with pytest.raises(ValueError, match=sentence):
        get(forgot, tmp_path)


def test_sizes_that_do_not_fit_are_named_with_what_reset_would_do(tmp_path):
    wider = replace(SPEC, model=replace(MODEL, dim=6), start=SPEC)
    with pytest.raises(ValueError, match="the start does not fit the model") as caught:
        get(wider, tmp_path)
    shapes = {name: tuple(value.shape) for name, value in wider.build().state_dict().items()}
    there = {name: tuple(value.shape) for name, value in weights(runs.folder_of(SPEC, root_folder=tmp_path)).items()}
    assert f"class.weight is {there['class.weight']} there and {shapes['class.weight']} here" in str(caught.value)
    assert "decoder.linears.0.weight is (8, 40) there and (8, 60) here" in str(caught.value)
    assert "reset=('class', 'decoder',) would begin these parts fresh" in str(caught.value)
    get(replace(wider, reset=("class", "decoder")), tmp_path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"reset": ("decodr",)}, r"CapsNet has no part 'decodr' to reset; it has: conv1, primary, class, decoder"),
        ({"frozen": ("conv",)}, r"CapsNet has no part 'conv' to freeze; it has: conv1, primary, class, decoder"),
    ],
)
def test_misspelt_parts_are_refused(changes, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        get(replace(SPEC, start=SPEC, **changes), tmp_path)


def test_parts_of_the_start_without_a_place_are_told(tmp_path, capsys):
    bare = replace(SPEC, model=replace(MODEL, decoder="none"), start=SPEC)
    get(bare, tmp_path)
    assert "of the start, decoder has no place in the model and is left out" in capsys.readouterr().out


def test_a_start_that_is_not_there_or_holds_no_weights_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt is not there: give the folder of a finished run"):
        get(replace(SPEC, start=str(tmp_path / "nothing.pt")), tmp_path)
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(ValueError, match=r"empty\.pt holds no weights; it has: epoch"):
        get(replace(SPEC, start=str(tmp_path / "empty.pt")), tmp_path)
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(ValueError, match=r"text\.pt is damaged and cannot be read: give another one"):
        get(replace(SPEC, start=str(tmp_path / "text.pt")), tmp_path)


# ---------------------------------------------------------------- damage

AGAIN = "trained again"
DAMAGES = {  # file -> what reads it, and the remedy
    "model.pt": ((runs.load,), AGAIN),
    "history.csv": ((runs.load, lambda folder: runs.list_runs(folder.parent)), AGAIN),
    "watched.csv": ((runs.load,), "delete it, and the run is trained again"),
    "spec.json": ((runs.load, runs.read_spec), "delete the folder"),
    "made.json": ((runs.read_made,), AGAIN),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A finished run with something watched, never to be changed."""
    return get(SPEC, tmp_path_factory.mktemp("runs"), watch={"lengths": lengths}).folder


@pytest.mark.parametrize("left", [0.0, 0.6])
@pytest.mark.parametrize("name", DAMAGES)
def test_a_truncated_file_is_one_sentence_with_the_remedy(name, left, whole, tmp_path):
    folder = tmp_path / whole.name
    folder.mkdir()
    for file in whole.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    content = (whole / name).read_bytes()
    cut = int(left * len(content))
    if content[:cut].endswith(b"\n"):  # what is whole lines cannot be told from a shorter run
        cut -= 1
    (folder / name).write_bytes(content[:cut])
    readers, remedy = DAMAGES[name]
    if name in ("model.pt", "history.csv", "watched.csv"):
        watch = {"lengths": lengths} if name == "watched.csv" else {}
        readers = (*readers, lambda folder: get(SPEC, folder.parent, watch=watch))
    for reader in readers:
        with pytest.raises(ValueError, match=remedy) as caught:
            reader(folder)
        assert str(folder / name) in str(caught.value) and "\n" not in str(caught.value)
    assert names_in(folder) == names_in(whole), "nothing is deleted"
    assert (folder / name).read_bytes() == content[:cut]


def test_a_table_cut_anywhere_within_a_line_is_refused(whole, tmp_path):
    content = (whole / "history.csv").read_bytes()
    for cut in range(1, len(content)):
        if content[cut - 1] == ord("\n"):
            continue
        (tmp_path / "history.csv").write_bytes(content[:cut])
        with pytest.raises(ValueError, match=AGAIN):
            files.read_history(tmp_path)


@pytest.mark.parametrize("content", ["empty", "half", "other"])
def test_a_damaged_state_is_one_sentence_and_without_it_the_run_starts_anew(content, whole, tmp_path):
    folder = cut(SPEC, tmp_path)
    file, bytes_of = folder / "state.pt", (folder / "state.pt").read_bytes()
    if content == "other":
        torch.save({"epoch": 3}, file)
    else:
        file.write_bytes(bytes_of[: len(bytes_of) // 2] if content == "half" else b"")
    with pytest.raises(ValueError, match="delete it, and the run starts anew") as caught:
        get(SPEC, tmp_path)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    file.unlink()
    get(SPEC, tmp_path)
    assert same(folder, whole)


def test_a_resume_with_a_damaged_record_of_its_making_is_told(tmp_path):
    folder = cut(SPEC, tmp_path)
    (folder / "made.json").write_text("{")
    with pytest.raises(ValueError, match=r"made\.json is damaged.*trained again"):
        get(SPEC, tmp_path)


def test_missing_folders_and_weights_of_another_model_are_told_in_a_sentence(whole, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"spec\.json is not there"):
        runs.load(tmp_path / "nowhere")
    folder = cut(SPEC, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"model\.pt is not there: the run was never finished"):
        runs.load(folder)
    torch.save({"conv1.0.weight": torch.zeros(1)}, folder / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt does not hold the weights of .*spec\.json"):
        runs.load(folder)
    for text in ("[]", '"spec@1"', '{"type": "recipe@1"}'):
        (folder / "spec.json").write_text(text)
        with pytest.raises(ValueError, match=r"spec\.json does not describe a run but a (tuple|str|Recipe)"):
            runs.read_spec(folder)
    (folder / "spec.json").write_text("{}")
    with pytest.raises(ValueError, match=r"'\?' is no registered name; there are: spec, recipe"):
        runs.read_spec(folder)
    (folder / "spec.json").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(ValueError, match=r"spec\.json does not describe a run"):
        runs.read_spec(folder)


# ---------------------------------------------------------------- forecast


def test_forecast_is_zero_for_a_finished_run_and_positive_otherwise(tmp_path):
    assert runs.forecast([SPEC], root_folder=tmp_path)[0] > 0
    get(SPEC, tmp_path)
    longer = replace(SPEC, recipe=replace(SPEC.recipe, epochs=4))
    seconds = runs.forecast([SPEC, longer], root_folder=tmp_path)
    assert seconds[0] == 0
    assert seconds[1] > 0
    assert runs.forecast([SPEC], watch=["lengths"], root_folder=tmp_path)[0] > 0, "it was not watched"


def test_a_forecast_makes_the_images_of_one_seed_for_all(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(runs, "prepare", lambda spec, **how: made.append(spec) or prepare(spec, **how))
    derived = replace(SPEC.data, resize=8, derive=Translated(size=12))
    seeds = [replace(SPEC, seed=n, data=replace(derived, seed=n, derive=Translated(size=12, seed=n))) for n in range(3)]
    first, *others = runs.forecast(seeds, root_folder=tmp_path)
    assert others == [first, first] and made == [derived]


def test_what_one_forecast_has_tried_the_next_one_knows(tmp_path, monkeypatch):
    tried = {}
    first = runs.forecast([SPEC], root_folder=tmp_path, tried=tried)
    for name in ("seconds_per_image", "prepare"):
        monkeypatch.setattr(runs, name, lambda *given, **how: pytest.fail("tried again"))
    assert runs.forecast([replace(SPEC, seed=7)], root_folder=tmp_path, tried=tried) == first


def test_forecast_counts_of_an_unfinished_run_what_is_left(tmp_path):
    spec = replace(SPEC, recipe=replace(SPEC.recipe, epochs=4))
    cut(spec, tmp_path)
    # one of 4 epochs is done; a step is measured once, for both
    begun, fresh = runs.forecast([spec, replace(spec, seed=1)], root_folder=tmp_path)
    assert begun == pytest.approx(3 / 4 * fresh)


def test_root_is_the_argument_else_the_environment_else_the_project(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPSNB_RUNS", str(tmp_path / "env"))
    assert runs.root(tmp_path / "given") == tmp_path / "given"
    assert runs.root() == tmp_path / "env"
    monkeypatch.delenv("CAPSNB_RUNS")
    assert runs.root().name == "runs"


def test_a_spec_file_is_json_under_registered_names(whole):
    found = json.loads((whole / "spec.json").read_text())
    assert found["type"] == "spec@1" and found["model"]["type"] == "capsnet@1"
    assert found["data"] == {"type": "data@1", "crop": 24, "resize": 12, "train": 64, "validation": 20, "test": 20}
