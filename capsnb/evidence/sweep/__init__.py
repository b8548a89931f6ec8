"""Sweeps: a grid of networks, each trained once, with a row of measures per network.

result = run("grid.toml", "rows.jsonl", jobs=2)     # goes on where a killed one stopped
rows = read("rows.jsonl")                           # one dict per network, for pandas.DataFrame(rows)
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from capsnb.data import DataSpec, ImageSet, prepare
from capsnb.evidence.sweep.cell import Cell
from capsnb.evidence.sweep.grid import expand, read_grid, varied
from capsnb.evidence.sweep.measures import MEASURES
from capsnb.evidence.sweep.records import hidden_means, recorded
from capsnb.evidence.sweep.table import Row, Table, read
from capsnb.training import backends, configs, runs
from capsnb.training.evaluation import pick_device
from capsnb.training.runs import Spec

__all__ = [
    "MEASURES",
    "Cell",
    "Task",
    "default_jobs",
    "expand",
    "finished",
    "forecast",
    "hidden_means",
    "plan",
    "read",
    "read_grid",
    "recorded",
    "run",
    "varied",
]


@dataclass(frozen=True)
class Task:
    """A cell with its run. digest: of all that decides its row; parameters: of its network."""

    cell: Cell
    spec: Spec
    digest: str
    parameters: int


def plan(cells: list[Cell], *, data_dir: str | Path | None = None) -> list[Task]:
    """The tasks of cells, one per network: of cells that train the same one (uniform routing has no iterations, for
    one) the first stays. Raises ValueError or FileNotFoundError for settings or data that no network can have."""
    found: dict[str, Task] = {}
    for cell in cells:
        image_shape, classes = _shape(cell.data_spec(), data_dir)
        spec = cell.spec(image_shape, classes)
        with torch.device("meta"):  # every shape and refusal, and no memory
            parameters = sum(parameter.numel() for parameter in spec.model.build().parameters())
        digest = configs.digest(runs.identity(spec) | {"measures": sorted(MEASURES)})
        found.setdefault(digest, Task(cell, spec, digest, parameters))
    return list(found.values())


def default_jobs() -> int:
    """A process per core, or one for a GPU."""
    import joblib

    return joblib.cpu_count() if pick_device().type == "cpu" else 1


def run(
    tasks: list[Task],
    file: str | Path,
    *,
    jobs: int | None = None,
    backend: str = "processes",
    address: str | None = None,
    data_dir: str | Path | None = None,
    tell: Callable[[str], None] = print,
) -> int:
    """Train and measure what `file` does not hold yet, appending a row for each as it comes; returns how many failed.

    A row with an error is not done: its task is tried again by the next call. A failing one stops no other.
    jobs, backend, address: see `backends`. On this machine runs go where `runs.root()` says; workers of a cluster at an
    address go by their own environment.
    """
    backends.check(backend, address, jobs)
    where = (None if address else str(runs.root().resolve()), data_dir and str(Path(data_dir).resolve()))
    failed = 0
    with Table(file) as table:
        done = finished(file)
        left = {task.digest: task for task in tasks if task.digest not in done}
        if not left:
            return 0
        work = {digest: (task.spec, *where) for digest, task in left.items()}
        workers = min(jobs or default_jobs(), len(work))
        results = backends.results(measure, work, backend=backend, jobs=workers, address=address)
        with _bar(len(tasks), len(tasks) - len(left)) as bar:
            for digest, result in results:
                row = _row(left[digest], result)
                table.append(row)
                bar.update()
                if row["error"] is not None:
                    failed += 1
                    bar.clear()
                    tell(f"{_name(left[digest].cell, tasks)} failed: {row['error']}")
    return failed


def finished(file: str | Path) -> set[str]:
    """The digests of the tasks that a sweep's file holds without an error; none where there is no file yet."""
    return {row["digest"] for row in read(file) if row["error"] is None} if Path(file).exists() else set()


def measure(spec: Spec, root: str | None, data_dir: str | None) -> Row:
    """Train a spec (or find its run) and measure it, on one thread of a CPU; an error becomes {"error": ...}."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        done = runs.get(spec, root_folder=root, data_dir=data_dir, progress=False)
        images = prepare(spec.data, data_dir=data_dir, device=pick_device())
        row: Row = {}
        for function in MEASURES.values():
            row |= function(done.model, images)
        made = runs.read_made(done.folder)
        row |= {"epochs trained": done.history[-1]["epoch"], "seconds": training_seconds(done.history, images)}
        return row | {name: made[name] for name in ("code", "device", "date")}
    except Exception as error:  # whatever it is, the other cells go on
        return {"error": _sentence(error)}
    finally:
        torch.set_num_threads(threads)


def training_seconds(history: list[Row], data: ImageSet) -> float:
    """Seconds that a run trained, evaluations left out, also where it was cut and resumed or found on disk.

    From each row's epoch and images per second.
    """
    seconds, before = 0.0, 0.0
    for row in history:
        seconds += (row["epoch"] - before) * len(data.train) / row["images/s"]
        before = row["epoch"]
    return seconds


def forecast(task: Task, *, data_dir: str | Path | None = None) -> float:
    """About how many seconds a task will train on one thread, measured on a few steps; 0 for a run that is on disk."""
    spec = task.spec
    if (runs.folder_of(spec) / "model.pt").exists():
        return 0.0
    _, _, train, validation = _counts(spec.data, data_dir)
    # a few images: the whole set need not be derived to time a step
    few = min(spec.recipe.batch, train)
    probe = replace(spec, data=replace(spec.data, train=few, validation=1, test=1))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        (seconds,) = runs.forecast([probe], data_dir=data_dir)
    finally:
        torch.set_num_threads(threads)
    return seconds * (train + validation / 3) / (few + 1 / 3)


def _row(task: Task, result: Row | BaseException) -> Row:
    if isinstance(result, BaseException):
        result = {"error": f"its worker was lost ({_sentence(result)})"}
    settings = dataclasses.asdict(task.cell)
    return {"digest": task.digest, **settings, "parameters": task.parameters, "error": None} | result


def _sentence(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _name(cell: Cell, tasks: list[Task]) -> str:
    names = varied([task.cell for task in tasks])
    return ", ".join(f"{name} {getattr(cell, name)}" for name in names) or "The cell"


@functools.lru_cache(maxsize=32)
def _counts(data: DataSpec, data_dir: str | Path | None) -> tuple[tuple[int, int, int], int, int, int]:
    images = prepare(data, data_dir=data_dir)
    return images.image_shape, len(images.classes), len(images.train), len(images.validation)


def _shape(data: DataSpec, data_dir: str | Path | None) -> tuple[tuple[int, int, int], int]:
    return _counts(data, data_dir)[:2]


def _bar(total: int, initial: int) -> Any:
    from tqdm.auto import tqdm

    # smoothing 0: cells differ in cost, so the time left goes by the mean of all
    interval = 1.0 if sys.stderr.isatty() or "ipykernel" in sys.modules else 30.0
    return tqdm(total=total, initial=initial, unit="cell", smoothing=0, mininterval=interval)
