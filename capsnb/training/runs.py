"""Runs on disk: a spec names a training; it is done once, found again, and resumed where it was cut.

    spec = Spec(model=CapsNetConfig(), data=DataSpec(), recipe=Recipe(epochs=5))
    for row in follow(spec):        # trains, or goes on, or replays
        print(row)
    model = get(spec).model

A run's folder holds spec.json, made.json (code, versions and device that made it), history.csv, model.pt (weights) and,
until it is finished, state.pt (to resume). Each file is written under a temporary name and renamed.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from capsnb.data import DataSpec, ImageSet, prepare
from capsnb.data import digest as content_of
from capsnb.places import project
from capsnb.training.code_fingerprint import own_code
from capsnb.training.configs import decode, digest, encode
from capsnb.training.evaluation import pick_device
from capsnb.training.loop import Recipe, Row, Training
from capsnb.training.provenance import circumstances

# Raised when the same spec would train to other weights: older runs are then not taken for new ones.
SEMANTICS = 1

Observer = Callable[[nn.Module, ImageSet], Any]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Everything that decides a run's result.

    start: where weights come from: another Spec (trained first when needed) or the path of a model.pt; None: fresh.
    reset: names of parts that start fresh all the same. frozen: names of parts that stay as they are.
    redraw: another draw of all that starts fresh. Without it a part that is reset begins with the very numbers that it
        had when the start began, as both are drawn by one seed.
    """

    model: Any
    data: DataSpec = field(default_factory=DataSpec)
    recipe: Recipe = field(default_factory=Recipe)
    seed: int = 0
    start: Spec | str | None = None
    reset: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    redraw: int = 0

    def build(self) -> nn.Module:
        """The model at its start, as the seed draws it (and `start` overwrites it, if given)."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + 1_000_003 * self.redraw)
            return self.model.build()


class Run(NamedTuple):
    """A finished run."""

    model: nn.Module  # in evaluation mode
    history: list[Row]
    spec: Spec
    folder: Path


def root(folder: str | Path | None = None) -> Path:
    """Where runs are kept: `folder`, else CAPSNB_RUNS, else `runs` in the project."""
    return Path(folder or os.environ.get("CAPSNB_RUNS") or project() / "runs")


def folder_of(
    spec: Spec, *, observe: Iterable[str] = (), every: int | None = None, root_folder: str | Path | None = None
) -> Path:
    """The folder of a run: its name tells model, data and seed, and ends in a hash of all that decides the result."""
    named = identity(spec) | {"observe": sorted(observe), "every": every}
    kind = type(spec.model).__name__.removesuffix("Config").lower()
    return root(root_folder) / f"{kind}-{Path(spec.data.name).stem}-s{spec.seed}-{digest(named)}"


def identity(spec: Spec) -> dict[str, Any]:
    """All of a spec that decides a result, to be hashed: a user's images by their content, a user's classes by their
    code, a file to start from by its content; wherever they lie."""
    found = {"spec": encode(_by_content(spec)), "semantics": SEMANTICS}
    if code := own_code(spec):
        found["code"] = code
    if isinstance(spec.start, str):
        found["start"] = hashlib.sha256(_read(Path(spec.start))).hexdigest()
    return found


def _by_content(spec: Spec) -> Spec:
    start = _by_content(spec.start) if isinstance(spec.start, Spec) else spec.start
    try:
        name = content_of(spec.data.name)
    except FileNotFoundError:
        name = spec.data.name  # not here: its runs can be named all the same
    return replace(spec, data=replace(spec.data, name=name), start=start)


def follow(
    spec: Spec,
    *,
    observe: dict[str, Observer] | None = None,
    every: int | None = None,
    root_folder: str | Path | None = None,
    data_dir: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Iterator[Row]:
    """The rows of a run, as it trains; those already on disk come first, without training again.

    observe: name -> function(model, data), computed with each row in evaluation mode and recorded with it; the names
        are part of the run's identity. every: a row per that many steps in place of one per epoch.
    data_dir: where image sets lie, CAPSNB_DATA when None. device: the best one there is when None.
    A run killed at any moment goes on from its last saved state; on the same CPU with as many threads its final weights
    are bit-identical to those of an uncut run.
    """
    folder = folder_of(spec, observe=observe or (), every=every, root_folder=root_folder)
    if (folder / "model.pt").exists():
        yield from read_history(folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "spec.json", encode(spec))
    image_set = prepare(spec.data, data_dir=data_dir, device=pick_device(device))
    shown, known = len(image_set.classes), getattr(spec.model, "classes", None)
    if known is not None and known < shown:
        raise ValueError(f"{image_set.name} has {shown} classes, the model only {known}: give it classes={shown}")
    model = spec.build()
    where = {"root_folder": root_folder, "data_dir": data_dir, "device": device, "progress": progress}
    _start_from(model, spec, observed={"observe": observe or (), "every": every}, **where)
    training = Training(model, image_set, spec.recipe, seed=spec.seed, device=device, frozen=spec.frozen)
    _write_json(folder / "made.json", _made_with(folder, circumstances()))
    state_file = folder / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, map_location="cpu", weights_only=True)
        if state["threads"] != torch.get_num_threads():
            print(
                f"resuming {folder.name} with {torch.get_num_threads()} threads, begun with {state['threads']}: "
                "the result is equally good, but not bit-identical to an uncut run"
            )
        training.load_state_dict(state)

    def save() -> None:
        _save(state_file, training.state_dict())
        _write_history(folder, training.history)

    yield from list(training.history)
    yield from training.rows(every=every, progress=progress, observe=observe, save=save)
    _write_history(folder, training.history)
    _save(folder / "model.pt", {name: value.cpu() for name, value in model.state_dict().items()})
    state_file.unlink(missing_ok=True)


def get(
    spec: Spec,
    *,
    observe: dict[str, Observer] | None = None,
    every: int | None = None,
    root_folder: str | Path | None = None,
    data_dir: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Run:
    """The finished run of a spec: trained when it is not on disk yet, loaded otherwise. Arguments as `follow`'s."""
    rows = follow(
        spec,
        observe=observe,
        every=every,
        root_folder=root_folder,
        data_dir=data_dir,
        device=device,
        progress=progress,
    )
    for _ in rows:
        pass
    # the spec as given: one from the disk may name a class or images that are not found here by that name
    return _finished(spec, folder_of(spec, observe=observe or (), every=every, root_folder=root_folder), device)


def load(folder: str | Path, *, device: str | torch.device | None = None) -> Run:
    """A finished run from its folder. Raises FileNotFoundError when it is not there or not finished."""
    folder = Path(folder)
    return _finished(read_spec(folder), folder, device)


def _finished(spec: Spec, folder: Path, device: str | torch.device | None) -> Run:
    model = spec.build()
    model.load_state_dict(_weights(folder / "model.pt"))
    return Run(model.to(pick_device(device)).eval(), read_history(folder), spec, folder)


def read_spec(folder: str | Path) -> Spec:
    """The spec of a run's folder, finished or not."""
    text = _read(Path(folder) / "spec.json").decode()
    try:
        return decode(json.loads(text))
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"{Path(folder) / 'spec.json'} does not describe a run: {error}") from error


def read_made(folder: str | Path) -> dict[str, Any]:
    """Code, library versions, device and date of a run; code and device of a run that was resumed name each of them."""
    return json.loads(_read(Path(folder) / "made.json"))


def read_history(folder: str | Path) -> list[Row]:
    """The rows of a run so far; observed lists come back as lists."""
    lines = _read(Path(folder) / "history.csv").decode().splitlines()
    return [{name: json.loads(value) for name, value in row.items()} for row in csv.DictReader(lines)]


def list_runs(root_folder: str | Path | None = None) -> list[dict[str, Any]]:
    """One row per run under the root: name, finished, epoch, validation accuracy, bytes, time of last change."""
    rows = []
    for file in sorted(root(root_folder).glob("*/spec.json")):
        folder = file.parent
        history = read_history(folder) if (folder / "history.csv").exists() else []
        last = history[-1] if history else {}
        files = [entry for entry in folder.iterdir() if entry.is_file()]
        rows.append(
            {
                "name": folder.name,
                "finished": (folder / "model.pt").exists(),
                "epoch": last.get("epoch", 0),
                "validation accuracy": last.get("validation accuracy"),
                "bytes": sum(entry.stat().st_size for entry in files),
                "changed": max(entry.stat().st_mtime for entry in files),
            }
        )
    return rows


def prune(root_folder: str | Path | None = None, *, older_than_days: float = 0.0, unfinished_only: bool = True) -> int:
    """Delete run folders last changed that long ago, only unfinished ones unless told; returns how many."""
    limit = time.time() - older_than_days * 86400
    gone = [row for row in list_runs(root_folder) if row["changed"] <= limit]
    gone = [row for row in gone if not (unfinished_only and row["finished"])]
    for row in gone:
        shutil.rmtree(root(root_folder) / row["name"])
    return len(gone)


def forecast(
    specs: Iterable[Spec],
    *,
    observe: Iterable[str] = (),
    every: int | None = None,
    root_folder: str | Path | None = None,
    data_dir: str | Path | None = None,
    device: str | torch.device | None = None,
) -> list[float]:
    """About how many seconds each spec will train: 0 for a finished one, else measured on a few of its own steps.

    Raises what `prepare` raises when the data is not there. The rest of an unfinished run is counted as a whole run.
    """
    seconds, per_image = [], {}
    for spec in specs:
        folder = folder_of(spec, observe=observe, every=every, root_folder=root_folder)
        if (folder / "model.pt").exists():
            seconds.append(0.0)
            continue
        images = prepare(spec.data, data_dir=data_dir, device=pick_device(device))
        key = digest([encode(spec.model), encode(spec.recipe)])
        if key not in per_image:
            per_image[key] = _seconds_per_image(spec, images, device)
        # an evaluation is a forward pass, about a third of a step
        seen = len(images.train) + len(images.validation) / 3
        seconds.append(per_image[key] * seen * spec.recipe.epochs)
    return seconds


def _seconds_per_image(spec: Spec, images: ImageSet, device: Any, steps: int = 3) -> float:
    training = Training(spec.build(), images, spec.recipe, seed=spec.seed, device=device)
    index = torch.arange(min(spec.recipe.batch, len(images.train)), device=training.device)
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        training._step(images.train.batch(index))
        training.sums.tolist()  # waits for the device
        times.append(time.perf_counter() - start)
    return min(times) / len(index)


def _start_from(model: nn.Module, spec: Spec, *, observed: dict[str, Any], **where: Any) -> None:
    if spec.start is None:
        return
    if isinstance(spec.start, Spec):
        # observers leave no trace in the weights: a finished run of the start that was observed as this one will do
        watched = folder_of(spec.start, root_folder=where["root_folder"], **observed)
        done = (watched / "model.pt").exists()
        weights = _weights(watched / "model.pt") if done else get(spec.start, **where).model.state_dict()
    else:
        weights = _weights(Path(spec.start))
    fresh = {name for name in model.state_dict() if any(f"{name}.".startswith(f"{part}.") for part in spec.reset)}
    taken = {name: value for name, value in weights.items() if name in model.state_dict() and name not in fresh}
    missing = sorted(set(model.state_dict()) - set(taken) - fresh)
    if missing:
        raise ValueError(f"the start has no weights for {', '.join(missing)}: name their parts in `reset`")
    model.load_state_dict(taken, strict=False)


def _weights(file: Path) -> dict[str, torch.Tensor]:
    _read(file, 1)
    return torch.load(file, map_location="cpu", weights_only=True)


def _read(file: Path, count: int = -1) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(count)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{file} is not there: the run was never finished, or its folder was moved") from error


@contextmanager
def _replacing(file: Path) -> Iterator[Path]:
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _save(file: Path, content: dict[str, Any]) -> None:
    with _replacing(file) as temporary:
        torch.save(content, temporary)


def _write_json(file: Path, content: Any) -> None:
    with _replacing(file) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def _made_with(folder: Path, now: dict[str, Any]) -> dict[str, Any]:
    if not (folder / "state.pt").exists():
        return now
    earlier = read_made(folder)
    parts = {name: dict.fromkeys([*earlier[name].split(", then "), now[name]]) for name in ("code", "device")}
    return now | {name: ", then ".join(values) for name, values in parts.items()}


def _write_history(folder: Path, history: list[Row]) -> None:
    names = list(dict.fromkeys(name for row in history for name in row))
    with _replacing(folder / "history.csv") as temporary, temporary.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(names)
        writer.writerows([json.dumps(row.get(name)) for name in names] for row in history)
