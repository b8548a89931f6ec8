"""Runs on disk: a spec names a training; it is done once, found again, and resumed where it was cut.

    spec = Spec(model=CapsNetConfig(), data=DataSpec(), recipe=Recipe(epochs=5))
    for row in follow(spec):        # trains, or goes on, or replays
        print(row)
    model = get(spec).model

A run's folder holds spec.json, made.json (code, versions, device and threads that made it), history.csv, watched.csv
(what was watched while it trained, if anything), model.pt (weights), observations.jsonl (what was measured of it) and,
until it is finished, state.pt (to resume). Each file is written under a temporary name and renamed; a lock keeps two
processes from training one run.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from capsnb.data import prepare, short_name, unseeded
from capsnb.disk import is_locked, locked
from capsnb.installation import own_folder
from capsnb.training import files, fit
from capsnb.training.cpu_settings import on_threads
from capsnb.training.evaluation import pick_device
from capsnb.training.identity import decode, digest, encode, key, name_of, weights_file
from capsnb.training.loop import Training, Watch, seconds_per_image
from capsnb.training.provenance import circumstances, cpu_name
from capsnb.training.recipe import Row
from capsnb.training.spec import Spec
from capsnb.training.weights import check_parts, in_words, load_weights, misfits, renamed, same_weights, start_from

YOUNG = 3600.0  # seconds: what changed since is spared by `prune` unless asked for


class Run(NamedTuple):
    """A finished run."""

    model: nn.Module  # in evaluation mode
    history: list[Row]
    spec: Spec
    folder: Path

    def __repr__(self) -> str:
        last = self.history[-1] if self.history else {"epoch": 0, "validation accuracy": math.nan}
        reached = f"{last['epoch']:g} epochs, validation accuracy {last['validation accuracy']:.4f}"
        return f"Run({type(self.model).__name__}, {reached}, {self.folder})"


def root(folder: str | Path | None = None) -> Path:
    """Where runs are kept: `folder`, else CAPSNB_RUNS, else `runs` of the project, else of the user's data folder."""
    return Path(folder or os.environ.get("CAPSNB_RUNS") or own_folder("runs"))


def run_name(spec: Spec, data_dir: str | Path | None = None) -> str:
    """Model, data and seed for people, and the `identity.key` of all that decides the result."""
    kind = name_of(type(spec.model)).rpartition(":")[2].partition("@")[0].lower()
    return f"{kind}-{short_name(spec.data.name)}-s{spec.seed}-{key(spec, data_dir)}"


def folder_of(spec: Spec, *, root_folder: str | Path | None = None, data_dir: str | Path | None = None) -> Path:
    """The folder of a run."""
    return root(root_folder) / run_name(spec, data_dir)


def is_finished(folder: str | Path, watch: Iterable[str] = ()) -> bool:
    """Whether a run's weights are there, and all of these columns were watched while it trained."""
    folder = Path(folder)
    return (folder / "model.pt").exists() and set(watch) <= set(files.watched_columns(folder))


def follow(
    spec: Spec,
    *,
    watch: Watch | None = None,
    root_folder: str | Path | None = None,
    data_dir: str | Path | None = None,
    device: str | torch.device | None = None,
    threads: int | None = None,
    progress: Any = True,
) -> Iterator[Row]:
    """The rows of a run, as it trains; those already on disk come first, without training again.

    watch: column -> function(training), taken with each row in evaluation mode and kept in watched.csv; no part of the
        run's name. A finished run that was not watched so is trained again, to the same weights.
    data_dir: where image sets lie, CAPSNB_DATA when None. device: the best one there is when None.
    threads: of the CPU; 1 when None, and those that it began with for a run that goes on or is made again.
    A run killed at any moment goes on from its last saved state; on the same CPU its final weights are bit-identical to
    those of an uncut run. A run that another process is training is waited for.
    """
    folder, watch = folder_of(spec, root_folder=root_folder, data_dir=data_dir), watch or {}
    if not is_finished(folder, watch):
        where = {"root_folder": root_folder, "data_dir": data_dir, "device": device, "progress": progress}
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock", f"waiting for {folder.name}, which another process is training"):
            if not is_finished(folder, watch):  # else the process that was waited for has made it
                yield from _train(spec, folder, watch, threads, **where)
                return
    yield from files.read_history(folder, watch)


def _train(spec: Spec, folder: Path, watch: Watch, threads: int | None, **where: Any) -> Iterator[Row]:
    files.write_json(folder / "spec.json", encode(spec))
    device, data_dir = where["device"], where["data_dir"]
    image_set = prepare(spec.data, data_dir=data_dir, device=pick_device(device))
    fit.check(spec.model, image_set)
    model = spec.build()
    check_parts(model, spec.reset)
    if spec.start is not None:
        start = spec.start
        given = get(start, **where).model.state_dict() if isinstance(start, Spec) else load_weights(weights_file(start))
        start_from(model, given, spec.reset)
    training = Training(model, image_set, spec.recipe, seed=spec.seed, device=device, frozen=spec.frozen)
    state_file = folder / "state.pt"
    begun = _resume(training, state_file)
    threads = threads or begun or _threads_of(folder)
    _write_made(folder, threads, resumed=begun is not None)
    if begun not in (None, threads):
        print(
            f"resuming {folder.name} with {threads} threads, begun with {begun}: the result is equally good, but not "
            "bit-identical to an uncut run"
        )

    def save() -> None:
        files.save(state_file, training.state_dict())
        # a run that is made again keeps its whole history until it is finished anew
        if training.history and not (folder / "model.pt").exists():
            files.write_history(folder / "history.csv", training.history, training.columns)

    yield from list(training.history)
    yield from _rows_on(threads, training.rows(progress=where["progress"], watch=watch, save=save))
    whole = [name for name in watch if all(name in row for row in training.history)]
    if half := [name for name in watch if name not in whole]:
        print(f"{folder.name} was begun without watching {', '.join(half)}, which is not kept: ask once more for it")
    _finish(folder, training, whole)
    state_file.unlink(missing_ok=True)


def _resume(training: Training, file: Path) -> int | None:
    """Take up the state in a file, if there is one; returns the number of threads that it was reached with."""
    if not file.exists():
        return None
    remedy = "delete it, and the run starts anew"
    state = files.load(file, remedy)
    try:
        training.load_state_dict(state)
        return state["threads"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{file} is no state of this run ({error}): {remedy}") from error


def _threads_of(folder: Path) -> int:
    """The number of threads that a finished run was made with, else 1."""
    if not (folder / "model.pt").exists() or not (folder / "made.json").exists():
        return 1
    return read_made(folder).get("threads", 1)


def _finish(folder: Path, training: Training, watch: list[str]) -> None:
    """Write what is kept of a training that ended; what was watched or measured of other weights goes."""
    weights = {name: value.cpu() for name, value in training.model.state_dict().items()}
    if (folder / "model.pt").exists() and not same_weights(folder / "model.pt", weights):
        print(f"{folder.name} was made again, to other weights: what was measured of the earlier ones is gone")
        for name in ("watched.csv", "observations.jsonl"):
            (folder / name).unlink(missing_ok=True)
    files.write_history(folder / "history.csv", training.history, training.columns)
    if watch:
        files.add_watched(folder, training.history, watch)
    cost = {"epochs": training.history[-1]["epoch"], "seconds": round(training.seconds, 1)}
    files.write_json(folder / "made.json", read_made(folder) | cost)
    files.save(folder / "model.pt", weights)


def _rows_on(threads: int, rows: Iterator[Row]) -> Iterator[Row]:
    """Train each row on so many threads, and leave whoever looks at the rows their own number."""
    while True:
        with on_threads(threads):
            row = next(rows, None)
        if row is None:
            return
        yield row


def get(
    spec: Spec,
    *,
    watch: Watch | None = None,
    root_folder: str | Path | None = None,
    data_dir: str | Path | None = None,
    device: str | torch.device | None = None,
    threads: int | None = None,
    progress: Any = True,
) -> Run:
    """The finished run of a spec: trained when it is not on disk yet, loaded otherwise. Arguments as `follow`'s."""
    where = {"root_folder": root_folder, "data_dir": data_dir}
    for _ in follow(spec, watch=watch, device=device, threads=threads, progress=progress, **where):
        pass
    # the spec as given: one from the disk may name a class or images that are not found here by that name
    return _finished(spec, folder_of(spec, **where), device, watch or ())


def load(folder: str | Path, *, device: str | torch.device | None = None) -> Run:
    """A finished run from its folder, with all that was watched. Raises FileNotFoundError when it is not there or not
    finished, ValueError when a file of it is damaged."""
    folder = Path(folder)
    return _finished(read_spec(folder), folder, device, files.watched_columns(folder))


def _finished(spec: Spec, folder: Path, device: str | torch.device | None, watch: Iterable[str]) -> Run:
    model = spec.build()
    weights = renamed(model, load_weights(folder / "model.pt", f"delete {folder}, and the run is trained again"))
    if unfit := misfits(model, weights):
        raise ValueError(
            f"{folder / 'model.pt'} does not hold the weights of {folder / 'spec.json'}: {in_words(unfit)}; move it "
            "away, and the run is trained again when it is asked for"
        )
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
    return Run(model.to(pick_device(device)).eval(), files.read_history(folder, watch), spec, folder)


def read_spec(folder: str | Path) -> Spec:
    """The spec of a run's folder, finished or not."""
    file = Path(folder) / "spec.json"
    try:
        spec = decode(json.loads(files.read(file)))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} does not describe a run: {error}; delete the folder") from error
    if not isinstance(spec, Spec):
        raise ValueError(f"{file} does not describe a run but a {type(spec).__name__}; delete the folder")
    return spec


def read_made(folder: str | Path) -> dict[str, Any]:
    """Code, versions, device, CPU, threads and date of a run, its epochs and seconds of training once it is finished.

    Code, device and CPU of a run that was resumed name each of them.
    """
    file = Path(folder) / "made.json"
    try:
        return json.loads(files.read(file))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is damaged: {error}; delete the folder, and the run is trained again") from error


def list_runs(root_folder: str | Path | None = None) -> list[dict[str, Any]]:
    """A row per run under the root: name, finished, locked, epoch, validation accuracy, bytes, time of last change."""
    rows = []
    for file in sorted(root(root_folder).glob("*/spec.json")):
        folder = file.parent
        history = files.read_history(folder) if (folder / "history.csv").exists() else []
        last = history[-1] if history else {}
        stats = files.stats(folder)
        rows.append(
            {
                "name": folder.name,
                "finished": is_finished(folder),
                "locked": is_locked(folder / "lock"),
                "epoch": last.get("epoch", 0),
                "validation accuracy": last.get("validation accuracy"),
                "bytes": sum(stat.st_size for stat in stats),
                "changed": max(stat.st_mtime for stat in stats),
            }
        )
    return rows


def prunable(
    root_folder: str | Path | None = None, *, older_than_days: float | None = None, unfinished_only: bool = True
) -> list[dict[str, Any]]:
    """The rows of `list_runs` that `prune` would delete: last changed that long ago (an hour, when None), not being
    trained, and only unfinished ones unless told."""
    age = YOUNG if older_than_days is None else older_than_days * 86400
    limit = time.time() - age
    rows = [row for row in list_runs(root_folder) if row["changed"] <= limit and not row["locked"]]
    return [row for row in rows if not (unfinished_only and row["finished"])]


def prune(root_folder: str | Path | None = None, names: Iterable[str] = ()) -> int:
    """Delete the runs of these names that nobody is training by now; returns how many."""
    gone = [folder for folder in (root(root_folder) / name for name in names) if not is_locked(folder / "lock")]
    for folder in gone:
        shutil.rmtree(folder)
    return len(gone)


def forecast(
    specs: Iterable[Spec],
    *,
    watch: Iterable[str] = (),
    root_folder: str | Path | None = None,
    data_dir: str | Path | None = None,
    device: str | torch.device | None = None,
    tried: dict[Any, Any] | None = None,
) -> list[float]:
    """About how many seconds each spec will train on one thread: 0 for a finished one, else measured on a few steps.

    tried: what earlier calls with this dictionary have measured is not measured again. Raises what `prepare` raises
    when the data is not there. An unfinished run counts as far as it is not trained yet.
    """
    seconds: list[float] = []
    tried = {} if tried is None else tried
    per_image, sizes = tried.setdefault("seconds per image", {}), tried.setdefault("sizes", {})
    prepared = lru_cache(1)(partial(prepare, data_dir=data_dir, device=pick_device(device)))  # one in memory at a time
    for spec in specs:
        folder = folder_of(spec, root_folder=root_folder, data_dir=data_dir)
        if is_finished(folder, watch):
            seconds.append(0.0)
            continue
        data = unseeded(spec.data)
        if data not in sizes:
            images = prepared(data)
            # an evaluation is a forward pass, about a third of a step
            sizes[data] = list(images.image_shape), len(images.train) + len(images.validation) / 3
        shape, seen = sizes[data]
        # what is trained, not how long: the epochs do not change a step
        same = digest([encode(spec.model), encode(replace(spec.recipe, epochs=1)), shape])
        if same not in per_image:
            images = prepared(data)
            fit.check(spec.model, images)
            training = Training(spec.build(), images, spec.recipe, seed=spec.seed, device=device)
            per_image[same] = seconds_per_image(training, images.train)
        left = spec.recipe.epochs - (files.last_epoch(folder) if not (folder / "model.pt").exists() else 0)
        seconds.append(per_image[same] * seen * max(left, 0))
    return seconds


def _write_made(folder: Path, threads: int, *, resumed: bool) -> None:
    with on_threads(threads):  # the device is named with them
        now = circumstances() | {"cpu": cpu_name(), "threads": threads}
    if resumed:
        earlier = read_made(folder)
        for name in ("code", "device", "cpu"):
            before = earlier.get(name, "not known")  # the CPU of a run that was begun before it was written down
            now[name] = ", then ".join(dict.fromkeys([*before.split(", then "), now[name]]))
    files.write_json(folder / "made.json", now)
