"""Records of full runs: results/NN.json keeps every measured value with the run that made it.

A record grows: each call of `record` adds its values, nothing earlier is lost. Values of one claim and variant join
across calls as long as the settings are the same; after a change of settings only the newest settings are read. Where
the settings have `specs`, variant -> what it trains, only a variant's own counts: another variant beside it changes
nothing of it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capsnb.disk import project
from capsnb.training.provenance import circumstances

FORMAT = 1
FIELDS = {"settings": dict, "device": str, "versions": dict, "code": str, "date": str, "values": dict}


@dataclass(frozen=True)
class Record:
    """What full runs of one notebook measured. `runs` are in the order they were recorded."""

    notebook: str
    runs: tuple[Mapping[str, Any], ...] = ()

    def measured(self, claim: str) -> dict[str, dict[int, float]]:
        """variant -> seed -> value, of the newest settings that have the variant."""
        found: dict[str, dict[int, float]] = {}
        for _, values in self._counted(claim):
            for variant, by_seed in values.items():
                found[variant] = by_seed | found.get(variant, {})
        return found

    def origin(self, claim: str) -> str:
        """Where the claim's values come from: "2026-03-01, NVIDIA H100, profile full, code 1a2b3c4", or "".

        Values that joined those of an earlier run name it after the newest: "...; also 2026-02-01, ...".
        """
        return "; also ".join(dict.fromkeys(_named(run) for run, _ in self._counted(claim)))

    def _counted(self, claim: str) -> Iterator[tuple[Mapping[str, Any], dict[str, dict[int, float]]]]:
        """Each run whose values of the claim count, the newest first, with those that no newer run stands in for."""
        newest: dict[str, Any] = {}
        seen: dict[str, set[int]] = {}
        for run in reversed(self.runs):
            counted = {}
            for variant, values in run["values"].get(claim, {}).items():
                settings = _settings_of(variant, run["settings"])
                if newest.setdefault(variant, settings) == settings:
                    known = seen.setdefault(variant, set())
                    counted[variant] = {int(s): value for s, value in values.items() if int(s) not in known}
                    known.update(counted[variant])
            if any(counted.values()):
                yield run, counted


def _named(run: Mapping[str, Any]) -> str:
    profile = f"profile {run['settings']['profile']}, " if "profile" in run["settings"] else ""
    return f"{run['date'][:10]}, {run['device']}, {profile}code {run['code']}"


def _settings_of(variant: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    specs = settings.get("specs", {})
    return {**settings, "specs": specs[variant]} if variant in specs else settings


def results_dir() -> Path:
    """results/ of the project, when the package lies in its checkout, else of the working directory."""
    return project() / "results"


def recorded(notebook: str, root: Path | str | None = None) -> Record:
    """The record of a notebook ("05"), empty when nothing has been recorded. A damaged file raises ValueError."""
    path = _path(notebook, root)
    if not path.exists():
        return Record(notebook)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not a record: {error}; restore it from version control.") from error
    return Record(notebook, tuple(_validated(content, path)))


def record(
    notebook: str,
    results: Mapping[str, Mapping[str, Sequence[float] | Mapping[int, float]]],
    *,
    seeds: Sequence[int],
    settings: Mapping[str, Any],
    device: str,
    made: Mapping[str, Any] | None = None,
    root: Path | str | None = None,
) -> Path:
    """Add measured values (claim -> variant -> one value per seed) to results/NN.json and return its path.

    settings: what names the run (profile, sizes, epochs ...), JSON types only. device: in words ("NVIDIA H100").
    made: code, versions and date of the run where it was not made just now, as `circumstances` gives them.
    Values that do not match `seeds`, or are not finite, raise ValueError and leave the file as it was.
    """
    values = {
        claim: {variant: _by_seed(f"{claim} / {variant}", found, seeds) for variant, found in variants.items()}
        for claim, variants in results.items()
    }
    run = {
        "settings": json.loads(json.dumps(dict(settings), allow_nan=False)),
        **circumstances(),
        **(made or {}),
        "device": device,
        "values": values,
    }
    path = _path(notebook, root)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        runs = [dict(earlier) for earlier in recorded(notebook, root).runs]
        _write(path, {"format": FORMAT, "notebook": notebook, "runs": [*runs, run]})
    return path


def _by_seed(name: str, values: Sequence[float] | Mapping[int, float], seeds: Sequence[int]) -> dict[str, float]:
    if not isinstance(values, Mapping):
        if len(values) != len(seeds):
            raise ValueError(f"{name} has {len(values)} values for {len(seeds)} seeds: a record needs one per seed.")
        values = dict(zip(seeds, values, strict=True))
    found = {str(int(seed)): float(value) for seed, value in values.items()}
    if bad := [seed for seed, value in found.items() if not abs(value) < float("inf")]:
        raise ValueError(f"{name} is {found[bad[0]]} at seed {bad[0]}: a failed run is left out of the record.")
    return found


def _path(notebook: str, root: Path | str | None) -> Path:
    if not notebook.isalnum():
        raise ValueError(f"{notebook!r} names no notebook: use its number, as in '05'.")
    return (results_dir() if root is None else Path(root)) / f"{notebook}.json"


def _validated(content: Any, path: Path) -> list[dict[str, Any]]:
    if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content.get("runs"), list):
        raise ValueError(f"{path} is not a record of format {FORMAT}; restore it from version control.")
    for number, run in enumerate(content["runs"], 1):
        for field, kind in FIELDS.items():
            if not isinstance(run, dict) or not isinstance(run.get(field), kind):
                raise ValueError(f"{path}: run {number} has no {field} of type {kind.__name__}.")
        for claim, variants in run["values"].items():
            for variant, values in variants.items():
                if not all(seed.isdigit() and isinstance(value, int | float) for seed, value in values.items()):
                    raise ValueError(f"{path}: run {number}, {claim} / {variant} is not a mapping of seeds to numbers.")
    return content["runs"]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes from recording meanwhile (where the system has file locks)."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """Write to a temporary name, then rename: a reader sees the old record or the new one."""
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".json", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1, allow_nan=False)
            file.write("\n")
        os.chmod(name, 0o644)  # mkstemp's 0600 would keep other users from reading
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
