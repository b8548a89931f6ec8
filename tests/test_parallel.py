"""Many trainings: order, failures, kills of any process at any moment, and the backends that they run on."""

import logging
import operator
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from capsnb.data import DataSpec
from capsnb.nn.models import CapsNetConfig, StridedStem
from capsnb.training import backends, files, parallel, runs
from capsnb.training.recipe import Recipe
from capsnb.training.spec import Spec

SPEC = Spec(
    model=CapsNetConfig(size=12, dim=4, stem=StridedStem(channels=4, kernel=3, types=2, dim=4), decoder="none"),
    data=DataSpec(crop=24, resize=12, train=64, validation=20, test=20),
    recipe=Recipe(epochs=1, batch=32),
)
OTHER = replace(SPEC, seed=1)
LATER = replace(SPEC, start=SPEC, reset=("class",), seed=2)
BAD = replace(SPEC, recipe=replace(SPEC.recipe, learning_rate=1e30))
# long enough to be cut: 24 steps, each of them reported and saved
LONG = replace(SPEC, recipe=replace(SPEC.recipe, epochs=12, report_every=1))
LONGER = replace(LONG, start=LONG, seed=1)


def train(*specs, **how):
    """`parallel.train` without a measured forecast where one is not given."""
    how.setdefault("seconds", {each: 1.0 for spec in specs for each in (spec, spec.start) if each is not None})
    return parallel.train({spec: {} for spec in specs}, **how)


def weights(spec, root):
    return torch.load(runs.folder_of(spec, root_folder=root) / "model.pt", weights_only=True)


def same(spec, first, second):
    one, two = weights(spec, first), weights(spec, second)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def losses(spec, root):
    return [row["loss"] for row in files.read_history(runs.folder_of(spec, root_folder=root))]


def kept(root):
    """The files of all runs under a root, without those of a temporary name and what a worker says of its position."""
    files = (file.relative_to(root) for file in root.rglob("*") if file.is_file())
    return {str(file) for file in files if not file.name.startswith(".") and file.name != parallel.PROGRESS}


def stamp(spec, root):
    return (runs.folder_of(spec, root_folder=root) / "model.pt").stat().st_mtime_ns


@dataclass
class Note:
    """What a worker does once a network is there: it adds a line to a file, and may kill its own process."""

    file: Path
    deadly: int | None = None

    def __call__(self, spec, run):
        assert run.spec == spec and not run.model.training
        with self.file.open("a") as stream:
            stream.write(f"{spec.seed}\n")
        if spec.seed == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    def lines(self):
        return self.file.read_text().split() if self.file.exists() else []


@dataclass
class KilledOnce:
    """What is watched of a training: that it has killed its own process at step 10, the first time it got there."""

    mark: Path

    def __call__(self, training):
        if training.step == 10 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return 1


# --- in this process


def test_shortest_first_and_what_others_start_from_before_them(tmp_path):
    note = Note(tmp_path / "order")
    third = replace(SPEC, seed=3)
    seconds = {LATER: 0.1, OTHER: 3.0, third: 1.0, SPEC: 2.0}
    assert train(LATER, OTHER, third, SPEC, jobs=1, root_folder=tmp_path, seconds=seconds, then=note) == []
    # 3 takes 1 s, 0 two, 1 three; 2 takes the least, but starts from 0
    assert note.lines() == ["3", "0", "1", "2"]


def test_a_start_that_nobody_asked_for_is_trained_too_and_first(tmp_path):
    note = Note(tmp_path / "order")
    assert train(LATER, jobs=1, root_folder=tmp_path, then=note) == []
    assert runs.is_finished(runs.folder_of(SPEC, root_folder=tmp_path))
    assert stamp(SPEC, tmp_path) < stamp(LATER, tmp_path)
    assert note.lines() == ["2"], "what is done then is done for what was asked for"


def test_finished_ones_are_passed_over_and_found_for_what_is_done_then(tmp_path):
    note = Note(tmp_path / "order")
    runs.get(SPEC, root_folder=tmp_path, progress=False)
    before = stamp(SPEC, tmp_path)
    assert train(SPEC, OTHER, jobs=1, root_folder=tmp_path) == []
    assert train(SPEC, OTHER, jobs=1, root_folder=tmp_path) == [], "nothing is left to do"
    assert (stamp(SPEC, tmp_path), note.lines()) == (before, [])
    assert train(SPEC, OTHER, jobs=1, root_folder=tmp_path, then=note) == []
    assert (stamp(SPEC, tmp_path), sorted(note.lines())) == (before, ["0", "1"])
    assert parallel.train({}, root_folder=tmp_path) == []


def test_one_that_fails_stops_nothing_and_is_told(tmp_path):
    told = []
    seconds = {BAD: 0.1, SPEC: 1.0, OTHER: 2.0}
    failed = train(SPEC, BAD, OTHER, jobs=1, root_folder=tmp_path, seconds=seconds, tell=told.append)
    assert [each.name for each in failed] == [runs.run_name(BAD)]
    assert failed[0].sentence.startswith("Diverged: the loss was not a finite number")
    assert str(failed[0]) == f"{failed[0].name}: {failed[0].sentence}"
    assert told == [f"{failed[0].name} failed: {failed[0].sentence}"]
    for spec in (SPEC, OTHER):
        assert runs.is_finished(runs.folder_of(spec, root_folder=tmp_path))
    assert not list(tmp_path.glob(f"*/{parallel.PROGRESS}"))


def test_what_starts_from_one_that_fails_fails_with_its_reason(tmp_path):
    after = replace(BAD, start=BAD, seed=5)
    failed = train(after, jobs=1, root_folder=tmp_path, tell=lambda text: None)
    assert [each.name for each in failed] == [runs.run_name(BAD), runs.run_name(after)]
    assert all("Diverged" in each.sentence for each in failed)


def test_what_is_watched_is_kept_and_an_unwatched_run_is_made_again(tmp_path):
    watch = {"count": lambda training: training.step}
    assert parallel.train({SPEC: watch}, jobs=1, root_folder=tmp_path, seconds={SPEC: 1}) == []
    assert [row["count"] for row in files.read_history(runs.folder_of(SPEC, root_folder=tmp_path), ["count"])] == [2]
    before = stamp(SPEC, tmp_path)
    assert parallel.train({SPEC: watch}, jobs=1, root_folder=tmp_path) == []
    assert stamp(SPEC, tmp_path) == before
    assert parallel.train({SPEC: watch | {"more": lambda training: 1}}, jobs=1, root_folder=tmp_path) == []
    assert stamp(SPEC, tmp_path) > before
    assert runs.is_finished(runs.folder_of(SPEC, root_folder=tmp_path), ["count", "more"])


def test_the_display_goes_by_forecasts(tmp_path):
    folder = tmp_path / "half"
    folder.mkdir()
    (folder / parallel.PROGRESS).write_text("[5, 10]")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / parallel.PROGRESS).write_text("[5")
    with parallel.Display({"done": 10.0, "half": 20.0, "torn": 30.0}, tmp_path) as display:
        assert display._count() == "0 of 3 trained"
        display.ended("done")
        assert display._count() == "1 of 3 trained"
        assert (display.bar.n, display.bar.total) == (10 + 0.5 * 20, 60)
        display.ended("half")
        assert display.bar.n == 30 and not (folder / parallel.PROGRESS).exists()


# --- processes of this machine


def test_two_at_a_time_give_the_weights_of_one_and_a_lost_worker_costs_its_own_training(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    deadly = replace(SPEC, seed=7)
    assert train(SPEC, OTHER, deadly, LONG, jobs=1, root_folder=one) == []
    note, told, mark = Note(tmp_path / "done", deadly=7), [], tmp_path / "killed"
    work = {spec: {} for spec in (SPEC, OTHER, BAD, deadly)} | {LONG: {"killed": KilledOnce(mark)}}
    seconds = dict.fromkeys(work, 1.0)
    failed = parallel.train(work, jobs=2, root_folder=two, then=note, tell=told.append, seconds=seconds)
    sentences = {each.name: each.sentence for each in failed}
    assert sentences.keys() == {runs.run_name(BAD), runs.run_name(deadly)}
    assert sentences[runs.run_name(BAD)].startswith("Diverged: ")
    assert sentences[runs.run_name(deadly)].startswith("its worker was lost (")
    assert "\n" not in sentences[runs.run_name(deadly)] and len(told) == 2
    assert {"0", "1", "7"} <= set(note.lines())
    for spec in (SPEC, OTHER, deadly):
        assert same(spec, one, two), "trained before its worker was lost"
    assert mark.exists() and same(LONG, one, two) and losses(LONG, one) == losses(LONG, two), "cut, it went on"


CUTTER = """
import contextlib, os, random, signal, sys, time
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import torch._dynamo  # as an optimiser's first step does, so that no fork has to
from capsnb.disk import is_locked
from test_parallel import LONG, LONGER, runs, train

uncut, cut, chance = Path(sys.argv[2]), Path(sys.argv[3]), random.Random(int(sys.argv[4]))
until = time.monotonic() + 120


def all_done(root):
    return all(runs.is_finished(runs.folder_of(spec, root_folder=root)) for spec in (LONG, LONGER))


def begin(root):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = len(train(LONG, LONGER, jobs=1, root_folder=root))
        finally:
            os._exit(code)
    return child


# the uncut one: its parent ends while it trains, as a shell does that is closed
parent = os.fork()
if parent == 0:
    begin(uncut)
    while not list(uncut.glob("*/state.pt")):
        time.sleep(0.005)
    os._exit(0)
os.waitpid(parent, 0)
while not all_done(uncut) and time.monotonic() < until:
    time.sleep(0.02)

def saved():
    for file in cut.glob("*/state.pt"):
        with contextlib.suppress(FileNotFoundError):  # its training is finished
            yield file.stat().st_mtime_ns


def under_way():
    return any(is_locked(lock) for lock in cut.glob("*/lock"))


kills = 0
while kills < 10 and not all_done(cut) and time.monotonic() < until:
    child, seen = begin(cut), set(saved())
    enough = len(seen) + chance.randrange(4)
    while (len(seen) < enough or not under_way()) and not all_done(cut) and time.monotonic() < until:
        seen |= set(saved())
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.02))  # anywhere within a step
    os.kill(child, signal.SIGKILL)
    kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
if not all_done(cut):
    assert os.waitpid(begin(cut), 0)[1] == 0
print(kills)
"""


def test_ten_kills_end_in_the_weights_of_an_uncut_run(tmp_path):
    """Each process is forked from one that has imported torch and done nothing else, so that ten take seconds."""
    uncut, cut = tmp_path / "uncut", tmp_path / "cut"
    command = [sys.executable, "-c", CUTTER, str(Path(__file__).parent), str(uncut), str(cut), "3"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr[-3000:]
    assert int(result.stdout.splitlines()[-1]) == 10, "too quick to be cut"
    for spec in (LONG, LONGER):
        assert losses(spec, cut) == losses(spec, uncut)
        assert len(losses(spec, cut)) == 24
        assert same(spec, cut, uncut)
    assert kept(cut) == kept(uncut), "what a kill left half written is gone, or hidden"


def children(pid):
    """The living processes that a process has started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it ended meanwhile
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(status.parent.name))
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds=200):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


ASKER = """
import sys
sys.path.insert(0, sys.argv[1])
from test_parallel import ENDLESS, train
train(*ENDLESS, jobs=2, root_folder=sys.argv[2])
"""
ENDLESS = tuple(replace(SPEC, seed=seed, recipe=replace(LONG.recipe, epochs=100_000)) for seed in (0, 1))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
def test_a_worker_whose_parent_is_gone_stops_and_leaves_its_run_to_others(tmp_path):
    command = [sys.executable, "-c", ASKER, str(Path(__file__).parent), str(tmp_path)]
    asker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    workers = []
    try:
        folders = [runs.folder_of(spec, root_folder=tmp_path) for spec in ENDLESS]
        assert wait_until(lambda: all((folder / "state.pt").exists() for folder in folders))
        workers = children(asker.pid)
        assert len(workers) >= 2 and all(runs.is_locked(folder / "lock") for folder in folders)
        os.kill(asker.pid, signal.SIGKILL)
        asker.wait()
        assert wait_until(lambda: not any(map(alive, workers)), 60)
        assert not any(runs.is_locked(folder / "lock") for folder in folders)
        for folder in folders:
            state = torch.load(folder / "state.pt", weights_only=True)
            assert 0 < state["step"] < 200_000 and len(state["history"]) == state["step"]
    finally:
        asker.kill()
        for worker in workers:
            if alive(worker) and os.getpgid(worker) == asker.pid:
                os.kill(worker, signal.SIGKILL)


# --- the backends


def test_a_killed_process_costs_only_the_task_that_killed_it(tmp_path, monkeypatch):
    """`bad` kills its process whenever it is worked on, first beside `c`, once what came before is done and taken."""

    def work(key):  # within the test: a worker need not import this module, and torch with it
        first, until = not (tmp_path / f"{key} begun").exists(), time.monotonic() + 100
        (tmp_path / f"{key} begun").touch()
        (tmp_path / f"{key} in {os.getpid()}").touch()
        awaited = {"bad": ("a", "b", "c begun"), "c": ("never",) if first else ()}.get(key, ())
        while not all((tmp_path / name).exists() for name in awaited) and time.monotonic() < until:
            time.sleep(0.01)
        if key == "bad":
            os.kill(os.getpid(), signal.SIGKILL)
        return key.upper()

    calls, pool = [], backends._pool

    def noted(function, tasks, jobs):
        calls.append((list(tasks), jobs))
        return pool(function, tasks, jobs)

    monkeypatch.setattr(backends, "_pool", noted)
    found = {}
    tasks = {key: (key,) for key in ("a", "b", "bad", "c", "d")}
    for key, result in backends.results(work, tasks, backend="processes", jobs=2, address=None):
        found[key] = result
        (tmp_path / key).touch()
    assert isinstance(found.pop("bad"), BrokenProcessPool)
    assert found == {"a": "A", "b": "B", "c": "C", "d": "D"}
    # alone it is tried twice, what was under way beside it once; the rest goes on in a pool of two
    assert calls == [(["a", "b", "bad", "c", "d"], 2), (["d"], 2)]
    tries = {key: len(list(tmp_path.glob(f"{key} in *"))) for key in tasks}
    assert tries == {"a": 1, "b": 1, "bad": 3, "c": 2, "d": 1}


def test_one_job_is_this_very_process():
    found = dict(backends.results(os.getpid, {"a": (), "b": ()}, backend="processes", jobs=1, address=None))
    assert found == {"a": os.getpid(), "b": os.getpid()}


def test_an_unknown_backend_and_options_that_contradict_each_other():
    with pytest.raises(ValueError, match="'slurm' is unknown; there are processes, dask, ray"):
        backends.check("slurm", None, None)
    with pytest.raises(ValueError, match="An address is of a cluster"):
        parallel.train({SPEC: {}}, address="tcp://a:1")
    with pytest.raises(ValueError, match="has its own number of workers"):
        parallel.train({SPEC: {}}, backend="dask", address="tcp://a:1", jobs=2)


IN_PROCESS = {  # a dask cluster whose worker is a thread of this process
    "n_workers": 1,
    "threads_per_worker": 1,
    "processes": False,
    "dashboard_address": None,
    "silence_logs": logging.CRITICAL,
}


@pytest.fixture
def distributed():
    """Not imported above: each process that takes a task from this module would import it."""
    import distributed

    return distributed


def test_a_training_whose_dask_worker_is_killed_ends_in_the_weights_of_an_uncut_run(tmp_path, distributed):
    uncut, cut, mark = tmp_path / "uncut", tmp_path / "cut", tmp_path / "killed"
    assert train(LONG, SPEC, jobs=1, root_folder=uncut) == []
    work = {LONG: {"killed": KilledOnce(mark)}, SPEC: {}}
    assert parallel.train(work, jobs=2, backend="dask", root_folder=cut, seconds=dict.fromkeys(work, 1.0)) == []
    assert mark.exists() and same(LONG, uncut, cut) and losses(LONG, uncut) == losses(LONG, cut)
    assert same(SPEC, uncut, cut)


def test_a_task_that_kills_its_dask_workers_is_lost_alone(distributed):
    import dask

    tasks = {"bad": (signal.raise_signal, signal.SIGKILL), "a": (str.upper, "a")}
    # dask's own 3 would start three more workers, and prove no more
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        found = dict(backends.results(operator.call, tasks, backend="dask", jobs=2, address=None))
    assert isinstance(found.pop("bad"), distributed.KilledWorker)
    assert found == {"a": "A"}


def test_a_task_that_a_dask_cluster_drops_is_told(distributed):
    def drop():
        client = distributed.get_client()
        client.cancel([distributed.Future("capsnb-gone", client)], force=True)

    with distributed.LocalCluster(**IN_PROCESS) as cluster:
        tasks = {"drops": (drop,), "gone": (time.sleep, 0)}
        found = backends.results(operator.call, tasks, backend="dask", jobs=1, address=cluster.scheduler_address)
        found = dict(found)
    assert found.pop("drops") is None
    assert "cancelled" in str(found["gone"])


def test_a_dask_cluster_of_this_machine_trains_the_same_weights(tmp_path, distributed):
    assert train(SPEC, jobs=1, root_folder=tmp_path / "own") == []
    note = Note(tmp_path / "done")
    failed = train(SPEC, BAD, jobs=1, backend="dask", root_folder=tmp_path / "dask", then=note, tell=lambda text: None)
    assert [(each.name, each.sentence[:9]) for each in failed] == [(runs.run_name(BAD), "Diverged:")]
    assert same(SPEC, tmp_path / "own", tmp_path / "dask") and note.lines() == ["0"]


def test_workers_at_an_address_keep_runs_where_their_own_environment_says(tmp_path, monkeypatch, distributed):
    monkeypatch.setenv("CAPSNB_RUNS", str(tmp_path / "theirs"))
    threads = torch.get_num_threads()
    with distributed.LocalCluster(**IN_PROCESS) as cluster:
        where = {"backend": "dask", "address": cluster.scheduler_address}
        failed = train(SPEC, BAD, **where, tell=lambda text: None)
    assert [each.name for each in failed] == [runs.run_name(BAD)]
    assert runs.is_finished(runs.folder_of(SPEC, root_folder=tmp_path / "theirs"))
    assert torch.get_num_threads() == threads
