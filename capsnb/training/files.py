"""The files of a run's folder, written whole or not at all, and one sentence for a damaged one."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from capsnb.disk import refuse_pointer, replacing
from capsnb.training.recipe import Row

HISTORY = "delete the run's folder, and it is trained again"  # what helps where that file is damaged
WATCHED = "delete it, and the run is trained again when that is asked for"


def read(file: Path) -> bytes:
    """The bytes of a run's file. Raises FileNotFoundError with one sentence."""
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{file} is not there: the run was never finished, or its folder was moved") from error


def stats(folder: Path) -> list[os.stat_result]:
    """Of every file in the folder that is still there."""
    found = []
    for entry in folder.iterdir():
        try:
            found.append(entry.stat())
        except FileNotFoundError:  # a temporary file that was renamed meanwhile
            continue
    return found


def write_json(file: Path, content: Any) -> None:
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def save(file: Path, content: Mapping[str, Any]) -> None:
    """Tensors and plain values, as `torch.save` writes them. OSError, in one sentence, where there is no room."""
    try:
        with replacing(file) as temporary:
            torch.save(content, temporary)
    except (RuntimeError, OSError) as error:  # torch has a kind of its own for a full disk
        free = shutil.disk_usage(file.parent).free
        raise OSError(
            f"{file} could not be written, {free / 1e6:,.0f} MB are free there; make room, and call it again: it goes "
            "on from what was saved before"
        ) from error


def load(file: Path, remedy: str) -> dict[str, Any]:
    """What `save` wrote, on the CPU. Raises FileNotFoundError, or ValueError with the remedy for a damaged file."""
    if not file.exists():
        raise FileNotFoundError(f"{file} is not there: the run was never finished, or its folder was moved")
    refuse_pointer(file)
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch has no one kind for a damaged file
        if "Unsupported global" in str(error) or "not an allowed global" in str(error):
            raise ValueError(
                f"{file} holds Python objects, such as a whole model, and not weights alone, so it is not opened: save "
                "model.state_dict()"
            ) from error
        raise ValueError(f"{file} is damaged and cannot be read: {remedy}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} holds a {type(found).__name__}, not the weights or the state of a run: {remedy}")
    return found


def read_history(folder: str | Path, watch: Iterable[str] = ()) -> list[Row]:
    """The rows of a run so far, with these columns of what was watched; None where it was not. ValueError: damaged."""
    rows = _read_table(Path(folder) / "history.csv", HISTORY)
    if watch := list(watch):
        file = Path(folder) / "watched.csv"
        seen = {row["step"]: row for row in _read_table(file, WATCHED)} if file.exists() else {}
        for row in rows:
            row |= {name: seen.get(row["step"], {}).get(name) for name in watch}
    return rows


def last_epoch(folder: Path) -> float:
    """How many epochs an unfinished run has been trained; 0 where nothing of it can be read."""
    if not (folder / "state.pt").exists() or not (folder / "history.csv").exists():
        return 0.0
    rows = read_history(folder)
    return rows[-1]["epoch"] if rows else 0.0


def watched_columns(folder: str | Path) -> list[str]:
    """What was watched while a finished run trained."""
    file = Path(folder) / "watched.csv"
    if not file.exists():
        return []
    return [name for name in _header(file, WATCHED) if name != "step"]


def write_history(file: Path, history: list[Row], names: list[str]) -> None:
    """These columns of rows as CSV with a JSON value in each cell."""
    with replacing(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(names)
        writer.writerows([json.dumps(row.get(name)) for name in names] for row in history)


def add_watched(folder: Path, history: list[Row], names: list[str]) -> None:
    """Keep these columns of the history in watched.csv, beside those that are there."""
    file = folder / "watched.csv"
    rows = {row["step"]: row for row in (_read_table(file, WATCHED) if file.exists() else [])}
    kept = [name for name in watched_columns(folder) if name not in names]
    merged = [
        {"step": row["step"]}
        | {name: rows.get(row["step"], {}).get(name) for name in kept}
        | {name: row[name] for name in names}
        for row in history
    ]
    write_history(file, merged, ["step", *kept, *names])


def _header(file: Path, remedy: str) -> list[str]:
    lines = read(file).decode(errors="replace").splitlines()
    names = next(csv.reader(lines), [])
    if "step" not in names:
        raise ValueError(f"{file} is damaged: it has no column of steps; {remedy}")
    return names


def _read_table(file: Path, remedy: str) -> list[Row]:
    _header(file, remedy)
    text = read(file).decode(errors="replace")
    if not text.endswith("\n"):  # a number cut in two is a number
        raise ValueError(f"{file} is damaged: its last line is cut; {remedy}")
    lines = text.splitlines()
    try:
        return [{name: json.loads(value) for name, value in row.items()} for row in csv.DictReader(lines)]
    except (ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"{file} is damaged: {error}; {remedy}") from error
