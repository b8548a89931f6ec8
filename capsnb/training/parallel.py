"""Many trainings side by side: small networks train best on one thread each, as many as there are cores.

    failed = train({spec: {} for spec in specs}, jobs=8)

What is trained already is passed over; what others start from comes first, then the shortest; a failure stops nothing
else. A kill of any process, this one too, loses at most two minutes: called again, the trainings go on; and so they do
after a time that they may take (`until`). Where they run
is a `backends` matter: processes here, a dask or ray cluster at an address.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from capsnb.disk import is_locked, locked
from capsnb.installation import environment, import_own
from capsnb.training import backends, runs
from capsnb.training.cpu_settings import on_threads
from capsnb.training.evaluation import pick_device
from capsnb.training.loop import Watch
from capsnb.training.runs import Run
from capsnb.training.spec import Spec

PROGRESS = "progress.json"  # in a run's folder while a worker trains it


class OutOfTime(Exception):
    """The time is over: this training stays as it was last saved."""


class Failure(NamedTuple):
    """A training that did not end well."""

    name: str  # of the run
    sentence: str

    def __str__(self) -> str:
        return f"{self.name}: {self.sentence}"


def default_jobs() -> int:
    """A training per core, or one per GPU."""
    import joblib

    return joblib.cpu_count() if pick_device().type == "cpu" else max(torch.cuda.device_count(), 1)


def train(
    work: Mapping[Spec, Watch],
    *,
    jobs: int | None = None,
    threads: int = 1,
    backend: str = "processes",
    address: str | None = None,
    root_folder: str | Path | None = None,
    data_dir: str | Path | None = None,
    then: Callable[[Spec, Run], Any] | None = None,
    seconds: Mapping[Spec, float] | None = None,
    tell: Callable[[str], None] | None = None,
    until: float | None = None,
) -> list[Failure]:
    """Train what `work` names (spec -> what is watched) and is not on disk; returns what failed, told also as it fails.

    then: called where a run was trained or found, with its spec and itself; each spec's, finished ones too.
    seconds: a forecast of each, measured when None. jobs: `default_jobs()` when None; more than there is work are not
    started. Workers of a cluster at an address keep runs where their own environment says. until: a `time.time()` after
    which nothing is trained: what would not end before it by its forecast is not begun, what is under way is cut.
    """
    backends.check(backend, address, jobs)
    folder = None if address else runs.root(root_folder).resolve()
    where = {
        "root_folder": str(folder) if folder else None,
        "data_dir": str(Path(data_dir).expanduser().resolve()) if data_dir else None,
    }
    every = with_starts(work)
    todo = [s for s in every if then or not runs.is_finished(runs.folder_of(s, **where), work.get(s, {}))]
    if not todo:
        return []
    if seconds is None or not seconds.keys() >= set(todo):
        seconds = dict(zip(todo, _seconds(todo, **where), strict=True))
    order = sorted(todo, key=lambda spec: (len(with_starts([spec])), seconds[spec]))
    names = {runs.run_name(spec, data_dir): spec for spec in order}
    tasks = {}
    for name, spec in names.items():
        limit = None if until is None else (until, {each: seconds.get(each, 0.0) for each in with_starts([spec])})
        tasks[name] = (spec, work.get(spec, {}), threads, then if spec in work else None, os.getpid(), where, limit)
    jobs = min(jobs or default_jobs(), len(tasks))
    failed = []
    # workers of several threads wait without spinning: spinning threads beside other work cost 20 times
    policy = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
    with environment("OMP_WAIT_POLICY", policy) if threads > 1 else contextlib.nullcontext():
        # a cluster that is not there is told before there is a display
        results = backends.results(work_on, tasks, backend=backend, jobs=jobs, address=address)
        with Display({name: seconds[spec] for name, spec in names.items()}, folder) as display:
            for name, result in results:
                if isinstance(result, BaseException):
                    result = Failure(name, f"its worker was lost ({_sentence(result)})")
                if isinstance(result, Failure):
                    failed.append(result)
                    display.tell(f"{result.name} failed: {result.sentence}", tell)
                display.ended(name)
    return failed


def work_on(
    spec: Spec,
    watch: Watch,
    threads: int,
    then: Callable[[Spec, Run], Any] | None,
    asker: int,
    where: dict[str, Any],
    limit: tuple[float, Mapping[Spec, float]] | None = None,
) -> Failure | None:
    """What a worker does of one task; an error becomes a Failure. asker: the process that wants it done.

    limit: `train`'s until, with the forecasts of the spec and of those that it starts from.
    """
    name = "a run"
    try:
        import_own()
        if limit is not None and not _fits(spec, *limit, where):
            return None
        name = runs.run_name(spec, where["data_dir"])
        report = _reporter(runs.root(where["root_folder"]) / name, asker, limit and limit[0])
        with _a_device() as device:
            done = runs.get(spec, watch=watch, threads=threads, device=device, progress=report, **where)
            if then is not None:
                with on_threads(threads):  # what is measured must not depend on how many are trained side by side
                    then(spec, done)
    except OutOfTime:
        return None
    except Exception as error:  # whatever it is, the other trainings go on
        return Failure(name, _sentence(error))
    return None


def with_starts(specs: Iterable[Spec]) -> list[Spec]:
    """The specs and those that they start from, each once."""
    found: dict[Spec, None] = {}
    for spec in specs:
        chain = [spec]
        while isinstance(chain[-1].start, Spec):
            chain.append(chain[-1].start)
        found |= dict.fromkeys(reversed(chain))
    return list(found)


def _fits(spec: Spec, until: float, seconds: Mapping[Spec, float], where: dict[str, Any]) -> bool:
    """Whether a spec, with what it starts from and is not there by now, would end in time."""
    todo = [each for each in seconds if each == spec or not runs.is_finished(runs.folder_of(each, **where))]
    return time.time() + sum(seconds[each] for each in todo) <= until


def _seconds(todo: list[Spec], **where: Any) -> list[float]:
    try:
        return runs.forecast(todo, **where)
    except (ValueError, FileNotFoundError):
        # one that cannot be trained has no forecast; its worker will say why, and the others are trained
        return [0.0] if len(todo) == 1 else [_seconds([spec], **where)[0] for spec in todo]


def _sentence(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _reporter(folder: Path, asker: int, until: float | None) -> Callable[[int, int], None]:
    """What a worker calls with its step and the number of steps: for the display, to end with its parent, and in time.

    The asker itself does not end with its own parent: a shell may close before it.
    """
    parent, last = os.getppid(), [0.0]

    def report(step: int, total: int) -> None:
        if step < total and time.monotonic() - last[0] < 0.5:
            return
        last[0] = time.monotonic()
        if os.getpid() != asker and os.getppid() != parent:
            os._exit(1)  # as if it were killed: an exception would leave a pool's worker waiting for more work
        if until is not None and time.time() > until and step < total:
            raise OutOfTime
        with contextlib.suppress(OSError):
            (folder / PROGRESS).write_text(json.dumps([step, total]))

    return report


@contextlib.contextmanager
def _a_device() -> Iterator[str | None]:
    """A GPU that no other worker of this machine uses, where there are several; else None, the best there is."""
    if torch.cuda.device_count() < 2:
        yield None
        return
    folder = runs.root()
    folder.mkdir(parents=True, exist_ok=True)
    slots = [folder / f".gpu-{number}" for number in range(torch.cuda.device_count())]
    chosen = next((number for number, slot in enumerate(slots) if not is_locked(slot)), os.getpid() % len(slots))
    with locked(slots[chosen]):
        yield f"cuda:{chosen}"


class Display:
    """One display of all trainings: their number, those under way with their bars, and the time that is left.

    seconds: run -> its forecast, by which the time left goes. folder: of the runs, or None where they are elsewhere.
    On a terminal and in a notebook bars move; elsewhere there is a line now and then.
    """

    def __init__(self, seconds: Mapping[str, float], folder: Path | None) -> None:
        self.seconds, self.folder = dict(seconds), folder
        self.over: set[str] = set()
        self.watched = sys.stderr.isatty() or "ipykernel" in sys.modules
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> Display:
        from tqdm.auto import tqdm

        total = sum(self.seconds.values()) or 1.0
        form = "{desc} {percentage:3.0f}% |{bar}| {elapsed} gone, {remaining} left {postfix}"
        self.bar = tqdm(
            total=total, desc=self._count(), bar_format=form, smoothing=0, mininterval=1.0 if self.watched else 60.0
        )
        self.bars: dict[str, Any] = {}
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()
        for bar in (*self.bars.values(), self.bar):
            bar.close()

    def ended(self, name: str) -> None:
        """A training ended, well or not."""
        self.over.add(name)
        if self.folder is not None:
            (self.folder / name / PROGRESS).unlink(missing_ok=True)
        self.bar.set_description(self._count(), refresh=False)
        self._draw()

    def tell(self, text: str, tell: Callable[[str], None] | None) -> None:
        """A line that leaves the bars whole."""
        self.bar.clear()
        (tell or print)(text)

    def _count(self) -> str:
        return f"{len(self.over)} of {len(self.seconds)} trained"

    def _poll(self) -> None:
        while not self._stop.wait(1.0):
            self._draw()

    def _draw(self) -> None:
        shares = {name: share for name in self.seconds if name not in self.over and (share := self._share(name))}
        done = sum(self.seconds[name] for name in self.over)
        done += sum(share * self.seconds[name] for name, share in shares.items())
        # bars that tqdm draws itself, from one thread or the other, are told the whole position at once
        self.bar.n = min(done, self.bar.total)
        running = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        self.bar.set_postfix_str(running, refresh=self.watched)
        if not self.watched:
            self.bar.update(0)

    def _share(self, name: str) -> float:
        if self.folder is None:
            return 0.0
        try:
            step, total = json.loads((self.folder / name / PROGRESS).read_text())
        except (OSError, ValueError):  # not begun, or just being written
            return 0.0
        return step / total
