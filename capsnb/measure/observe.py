"""From runs to observations: found in the evidence store or beside the run, else measured, else trained first.

for each in observe(specs, "life", recorded=True):      # the committed ones; a missing one is a sentence
    print(each.values["dead"], each.origin)
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from capsnb.data import DataSpec, ImageSet, digest, prepare
from capsnb.measure.observations import Observation, read, store_folder, write
from capsnb.measure.protocol import Measure, find
from capsnb.training import files, parallel, runs
from capsnb.training.evaluation import pick_device
from capsnb.training.identity import encode, key
from capsnb.training.provenance import circumstances, cpu_name
from capsnb.training.runs import Run
from capsnb.training.spec import Spec

OBSERVATIONS = "observations.jsonl"  # in a run's folder
UNTRAINED = "untrained"


def observe(
    specs: Sequence[Spec],
    measure: str | Measure,
    *,
    recorded: bool = False,
    partial: bool = False,
    train: bool = False,
    null: str | None = None,
    watched: bool = False,
    store: str | Path | None = None,
    root_folder: str | Path | None = None,
    data_dir: str | Path | None = None,
    jobs: int | None = None,
    **settings: Any,
) -> list[Observation | None]:
    """What a measure says of each spec's run, in their order, with these settings.

    recorded: the committed evidence store alone answers (`store` in its place), with None for what it lacks if
    `partial`. Else what lies beside the run, or its weights are measured now and the observation is kept beside them;
    with `train`, runs that are not there are trained first, `jobs` at a time. null: "untrained", the same of the
    network as the seed draws it. watched: the series that was taken at the training's reports.
    Raises ValueError with one sentence that counts what is missing and about what it costs.
    """
    chosen = find(measure)
    wanted = _wanted(chosen, settings, null, watched)
    where: dict[str, Any] = {"root_folder": root_folder, "data_dir": data_dir}
    watch = {chosen.column(**settings): chosen.watched(**settings)} if watched else {}
    if recorded:
        names = [runs.run_name(spec, data_dir) for spec in specs]
        found = in_store(names, chosen, null=null, watched=watched, store=store, **settings)
        if not partial:
            _complain(specs, found, chosen, "the evidence store", where, None if null is not None else watch)
        return found
    found = [_beside(spec, wanted, **where) for spec in specs]
    if missing := [spec for spec, each in zip(specs, found, strict=True) if each is None]:
        todo = [] if null is not None else _unfinished(missing, watch, **where)
        if todo and not train:
            _complain(specs, found, chosen, str(runs.root(root_folder)), where, watch)
        # a run that was begun unwatched goes on to its end first, and is made again by the second
        while todo:
            if failed := parallel.train({spec: watch for spec in todo}, jobs=jobs, **where):
                raise RuntimeError(f"{len(failed)} trainings failed: {failed[0]}")
            todo = _unfinished(todo, watch, **where)
        for spec in missing:
            _take(spec, chosen, settings, null=null, watched=watched, **where)
        found = [_beside(spec, wanted, **where) for spec in specs]
    return found


def in_store(
    names: Iterable[str],
    measure: str | Measure,
    *,
    null: str | None = None,
    watched: bool = False,
    store: str | Path | None = None,
    **settings: Any,
) -> list[Observation | None]:
    """What the evidence store has of runs, called as `runs.run_name` does, in their order; else as `observe`.

    For who asks for many measures of the same runs: to name one takes as long as to read what was measured of it.
    """
    wanted, folder = _wanted(find(measure), settings, null, watched), Path(store or store_folder())
    return [_newest(folder / f"{name}.jsonl", wanted) for name in names]


def take_all(
    spec: Spec,
    run: Run,
    measures: Iterable[tuple[Measure, dict[str, Any]]],
    *,
    nulls: bool = False,
    watched: Iterable[tuple[Measure, dict[str, Any]]] = (),
    data_dir: str | Path | None = None,
) -> list[Observation]:
    """Measure a finished run by several measures, keep the observations beside it and return them, one for each.

    What lies beside the run already is not measured again. nulls: the untrained network of the same seed too, returned
    after the rest. watched: keep what was taken at the training's reports as well. A measure that the model lacks
    something for is an observation of its own: {"reason": the sentence}.
    """
    file, made = run.folder / OBSERVATIONS, runs.read_made(run.folder)
    measures = list(measures)
    wanted = [(null, each) for null in ((None, UNTRAINED) if nulls else (None,)) for each in measures]
    keys = _keys(measures, nulls)
    missing = [each for each, key in zip(wanted, keys, strict=True) if _newest(file, key) is None]
    if missing:
        data = prepare(spec.data, data_dir=data_dir, device=pick_device())
        models = {None: run.model, UNTRAINED: spec.build().to(pick_device()) if nulls else None}
        for null, each in missing:  # each is kept before the next: at full width they take a third of the training
            write(file, header(spec, data_dir), [_measured(models[null], data, *each, made=made, null=null)])
    columns = files.watched_columns(run.folder)
    # else it was begun unwatched, and is to be made again
    if found := [_watched(run.folder, *each) for each in watched if each[0].column(**each[1]) in columns]:
        write(file, header(spec, data_dir), found)
    newest = [_newest(file, key) for key in keys]
    return [each for each in newest if each is not None]  # all of them: what was missing has been written


def is_recorded(
    spec: Spec,
    measures: Iterable[tuple[Measure, dict[str, Any]]],
    *,
    nulls: bool = False,
    watched: Iterable[tuple[Measure, dict[str, Any]]] = (),
    store: str | Path | None = None,
    data_dir: str | Path | None = None,
) -> bool:
    """Whether the evidence store has all that `take_all` takes of a run; arguments as there."""
    found = stored(spec, store=store, data_dir=data_dir)
    keys = [*_keys(measures, nulls), *((*key[:4], True) for key in _keys(watched))]
    return all(any(each.key == key for each in found) for key in keys)


def record(
    specs: Iterable[Spec],
    *,
    store: str | Path | None = None,
    root_folder: str | Path | None = None,
    data_dir: str | Path | None = None,
) -> tuple[int, list[Path]]:
    """Put all that lies beside these runs into the evidence store; how many are new there, and the files."""
    count, changed = 0, []
    for spec in specs:
        file = runs.folder_of(spec, root_folder=root_folder, data_dir=data_dir) / OBSERVATIONS
        if file.exists():
            known, found = read(file)
            target = _store_file(spec, store, data_dir)
            count += write(target, known, found)
            changed.append(target)
    return count, changed


def stored(spec: Spec, *, store: str | Path | None = None, data_dir: str | Path | None = None) -> list[Observation]:
    """All that the evidence store has of a run."""
    file = _store_file(spec, store, data_dir)
    return read(file)[1] if file.exists() else []


def header(spec: Spec, data_dir: str | Path | None = None) -> dict[str, Any]:
    """The first line of a run's file of observations."""
    return {"run": key(spec, data_dir), "spec": encode(spec)}


def _wanted(measure: Measure, settings: dict[str, Any], null: str | None, watched: bool) -> tuple:
    """What an observation is of, as `Observation.key`."""
    if null is not None and watched:
        raise ValueError(f"{measure.name} cannot be both watched and of a null, a network that does not train")
    return measure.name, measure.version, measure.settings(**settings), null, watched


def _keys(measures: Iterable[tuple[Measure, dict[str, Any]]], nulls: bool = False) -> list[tuple]:
    """What observations of measures are of, as `Observation.key`; those of nulls after the rest."""
    named = [(each.name, each.version, each.settings(**settings)) for each, settings in measures]
    return [(*each, null, False) for null in ((None, UNTRAINED) if nulls else (None,)) for each in named]


def _unfinished(specs: Iterable[Spec], watch: Iterable[str], **where: Any) -> list[Spec]:
    return [spec for spec in specs if not runs.is_finished(runs.folder_of(spec, **where), watch)]


def _store_file(spec: Spec, store: str | Path | None, data_dir: str | Path | None) -> Path:
    return Path(store or store_folder()) / f"{runs.run_name(spec, data_dir)}.jsonl"


def _beside(spec: Spec, wanted: tuple, **where: Any) -> Observation | None:
    return _newest(runs.folder_of(spec, **where) / OBSERVATIONS, wanted)


def _newest(file: Path, wanted: tuple) -> Observation | None:
    if not file.exists():
        return None
    return next((each for each in reversed(read(file, wanted[0])[1]) if each.key == wanted), None)


def _take(spec: Spec, measure: Measure, settings: dict, *, null: str | None, watched: bool, **where: Any) -> None:
    folder = runs.folder_of(spec, **where)
    if watched:
        found = _watched(folder, measure, settings)
    else:
        if null not in (None, UNTRAINED):
            raise ValueError(f"null {null!r} is unknown; allowed: {UNTRAINED!r}. Others stand among a measure's values")
        model = runs.get(spec, **where).model if null is None else spec.build().to(pick_device())
        data = _images(spec.data, digest(spec.data.name, where["data_dir"]), where["data_dir"], pick_device())
        made = runs.read_made(folder) if null is None else None
        found = _measured(model, data, measure, settings, made=made, null=null)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / OBSERVATIONS, header(spec, where["data_dir"]), [found])


@lru_cache(maxsize=1)
def _images(data: DataSpec, content: str, data_dir: str | Path | None, device: torch.device) -> ImageSet:
    """The images that a run sees, of a set with that `digest`: a network's measures are asked for one by one."""
    return prepare(data, data_dir=data_dir, device=device)


def _measured(
    model: Any, data: ImageSet, measure: Measure, settings: dict, *, made: dict[str, Any] | None, null: str | None
) -> Observation:
    """made: of the training; None where nothing was trained."""
    begun = time.perf_counter()
    try:
        values = measure(model, data, **settings)
    except ValueError as error:
        values = {"reason": str(error)}
    now = circumstances() | {"cpu": cpu_name()}
    made = now if made is None else made
    # versions and CPU of the training, which are long, are not said twice
    named = [name for name in now if name in ("code", "device", "date") or now[name] != made.get(name)]
    took = {"seconds": round(time.perf_counter() - begun, 1)}
    made = made | {"measured": {name: now[name] for name in named} | took}
    return Observation(measure.name, measure.version, measure.settings(**settings), null, values=values, made=made)


def _watched(folder: Path, measure: Measure, settings: dict) -> Observation:
    """What a run was watched by, as a list for each of its values, with the steps."""
    column = measure.column(**settings)
    rows = [row for row in files.read_history(folder, [column]) if row.get(column) is not None]
    names = dict.fromkeys(name for row in rows if isinstance(row[column], dict) for name in row[column])
    values = {name: [row[name] for row in rows] for name in ("step", "epoch")}
    values |= {name: [row[column][name] for row in rows] for name in names} or {"value": [row[column] for row in rows]}
    named, made = measure.settings(**settings), runs.read_made(folder)
    return Observation(measure.name, measure.version, named, watched=True, values=values, made=made)


def _complain(
    specs: Sequence[Spec],
    found: list,
    measure: Measure,
    where: str,
    places: dict[str, Any],
    watch: Iterable[str] | None,
) -> None:
    """Raise ValueError that counts what is missing, and says what it costs. watch: None where no training is needed."""
    missing = [spec for spec, each in zip(specs, found, strict=True) if each is None]
    if not missing:
        return
    try:
        seconds = 0 if watch is None else sum(runs.forecast(missing, watch=watch, **places))
        cost = f"about {seconds / 3600:.2g} core-hours of training" if seconds else "measuring alone"
        cost = f"{cost} would bring it"
    except (ValueError, FileNotFoundError) as error:
        cost = f"their training cannot be forecast ({' '.join(str(error).split()).rstrip('.')})"
    raise ValueError(
        f"{where} has no {measure.name}@{measure.version} of {len(missing)} of {len(specs)} runs, such as "
        f"{runs.run_name(missing[0], places['data_dir'])}: {cost}."
    )
