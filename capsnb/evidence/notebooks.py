"""Notebooks found by number, what they will train, and their execution by papermill.

Executed with parameters into another folder, or in place for the committed ones.
"""

import contextlib
import datetime
import hashlib
import json
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capsnb.disk import replacing
from capsnb.installation import extra

with extra("notebooks"):
    import nbformat

PATTERN = "[0-9][0-9]_*.ipynb"
MISMATCH = (
    "torch and torchvision are not a pair (operator torchvision::nms does not exist): "
    "install both again from one index, as the README says under Install"
)
WIDGET = "application/vnd.jupyter.widget-view+json"
LONGEST = ("01", "07")  # of this project's notebooks, to be begun first where no earlier execution tells the seconds


@dataclass(frozen=True)
class Outcome:
    """How the execution of one notebook ended."""

    notebook: str  # file name
    path: Path  # the executed notebook
    seconds: float
    cell: int | None = None  # number of the code cell that failed, counted in the source notebook from 1
    error: str | None = None

    @property
    def passed(self) -> bool:
        return self.error is None

    def __str__(self) -> str:
        if self.passed:
            return f"{self.notebook}: passed in {self.seconds:.0f} s"
        return f"{self.notebook}: failed in {f'code cell {self.cell}' if self.cell else 'its kernel'}: {self.error}"


def find(folder: Path) -> dict[str, Path]:
    """The notebooks of a folder by number; ValueError where two share one, FileNotFoundError where there is none."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob(PATTERN)):
        if path.name[:2] in found:
            raise ValueError(f"Two notebooks share a number: {found[path.name[:2]].name} and {path.name}.")
        found[path.name[:2]] = path
    if not found:
        raise FileNotFoundError(f"There is no notebook named like 00_name.ipynb in {folder}.")
    return found


def select(folder: Path, numbers: Sequence[str] = ()) -> list[Path]:
    """The notebooks with these numbers ("3" and "03" are the same), all of them by default."""
    found = find(folder)
    for number in numbers:
        if number.zfill(2) not in found:
            raise ValueError(f"There is no notebook {number!r} in {folder}; there are {', '.join(found)}.")
    return [found[number] for number in sorted({n.zfill(2) for n in numbers} or found)]


def outputs(notebook: nbformat.NotebookNode) -> list[dict[str, Any]]:
    """What a notebook displayed, each output by its MIME types."""
    return [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ())]


def require_parameters(source: Path) -> None:
    """Raise ValueError for a notebook that papermill cannot pass parameters to."""
    if not any("parameters" in cell.metadata.get("tags", ()) for cell in nbformat.read(source, as_version=4).cells):
        raise ValueError(f"{source.name} has no cell tagged parameters, so profile and seed cannot be passed to it.")


def execute_all(
    chosen: Sequence[Path],
    out: Path | None,
    parameters: dict[str, object] | None,
    *,
    profile: str | None,
    jobs: int | None = None,
) -> Iterator[Outcome]:
    """Execute notebooks, `jobs` at a time, into a folder with parameters, or in place without.

    Yields outcomes as they come: whatever becomes of one, the others are executed. Side by side the longest are begun
    first, so that none goes on alone at the end.
    """
    import joblib

    jobs = min(jobs or joblib.cpu_count(), len(chosen))
    how = {"profile": profile, "progress": jobs == 1}
    order = chosen if jobs == 1 else longest_first(chosen, out)
    tasks = {path.name: (path, out, parameters, how) for path in order}
    if jobs == 1:
        yield from (_execute_one(*task) for task in tasks.values())
        return
    from capsnb.training import backends

    for name, outcome in backends.results(_execute_one, tasks, backend="processes", jobs=jobs, address=None):
        if isinstance(outcome, BaseException):
            path = (out or tasks[name][0].parent) / name
            if parameters is not None:
                path.unlink(missing_ok=True)  # half executed: nothing for the report
            outcome = Outcome(name, path, 0.0, None, _one_line(f"its process was lost: {outcome}"))
        yield outcome


def longest_first(chosen: Iterable[Path], out: Path | None) -> list[Path]:
    """Notebooks by the seconds that their last executions took, which lie in `out`; those without one come first."""
    seconds = {path: _last_seconds((out or path.parent) / path.name) for path in chosen}
    return sorted(seconds, key=lambda path: (-seconds[path], path.name[:2] not in LONGEST))


def _last_seconds(executed: Path) -> float:
    """How long an execution that passed took; infinity where there is none, or what is there cannot be read."""
    try:
        told = json.loads(executed.read_text(encoding="utf-8"))["metadata"]["capsnb"]
        return math.inf if told["error"] else told["seconds"]
    except (OSError, ValueError, KeyError):  # a committed one has the digest of its code alone
        return math.inf


def _execute_one(path: Path, out: Path | None, parameters: dict[str, object] | None, how: dict[str, Any]) -> Outcome:
    if parameters is None or out is None:
        return refresh(path, **how)
    return execute(path, out / path.name, parameters, progress=how["progress"])


def execute(source: Path, target: Path, parameters: dict[str, object], *, progress: bool = True) -> Outcome:
    """Execute `source` in its own folder with papermill parameters and write it to `target`, failed or not."""
    require_parameters(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    return _papermill(source, target, parameters, progress)


def refresh(source: Path, *, profile: str | None = None, progress: bool = True) -> Outcome:
    """Execute a committed notebook in place: no injected cell, no timings, so that a second run changes no byte.

    profile: None is the one that the notebook opens at, whatever CAPSNB_PROFILE says. The digest of the code that was
    executed stays in the file. A notebook that fails leaves the old file as it was.
    """
    from capsnb.evidence.offline import lighten

    before = os.environ.pop("CAPSNB_PROFILE", None)
    if profile is not None:
        os.environ["CAPSNB_PROFILE"] = profile
    try:
        with tempfile.TemporaryDirectory() as folder:
            fresh = Path(folder) / source.name
            outcome = _papermill(source, fresh, {}, progress)
            if outcome.passed:
                notebook = lighten(strip(nbformat.read(fresh, as_version=4)))
                notebook.metadata["capsnb"] = {"code": code_digest(notebook)}
                with replacing(source) as temporary:
                    nbformat.write(notebook, temporary)
    finally:
        os.environ.pop("CAPSNB_PROFILE", None)
        if before is not None:
            os.environ["CAPSNB_PROFILE"] = before
    return outcome


def code_digest(notebook: nbformat.NotebookNode) -> str:
    """Sixteen hex digits of the code cells' sources: what a notebook's outputs were made by."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()[:16]


def strip(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Take out what differs from run to run or says nothing without a live kernel: timings, widget views and state."""
    for key in ("papermill", "widgets", "capsnb"):
        notebook.metadata.pop(key, None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]  # papermill adds an empty list to every cell
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
    return notebook


def _papermill(source: Path, target: Path, parameters: dict[str, object], progress: bool) -> Outcome:
    import papermill
    from nbclient.exceptions import CellControlSignal, CellExecutionError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    bar = {"desc": source.stem, "mininterval": 0.1 if sys.stderr.isatty() else 10}
    started, error = time.perf_counter(), None
    with _removed_when_cut(target):
        try:
            papermill.execute_notebook(
                source.resolve(),
                target.resolve(),
                parameters=parameters,
                kernel_name="python3",
                language="python",
                kernel_manager_class=_this_python(),
                progress_bar=bar if progress else False,
                cwd=source.resolve().parent,
            )
        except PapermillExecutionError as caught:
            error = f"{caught.ename}: {caught.evalue}"
        except (CellControlSignal, CellExecutionError, DeadKernelError, RuntimeError) as caught:
            error = f"{type(caught).__name__}: {caught}"
    seconds = time.perf_counter() - started
    if error is None:
        cell = None
    else:
        cell, error = _failed_cell(target), _one_line(error)
    outcome = Outcome(source.name, target, seconds, cell, error)
    _remember(outcome, parameters)
    return outcome


@contextlib.contextmanager
def _removed_when_cut(target: Path) -> Iterator[None]:
    """Papermill saves as it goes: an interrupt must leave no half-executed notebook for the report to find."""
    try:
        yield
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _this_python() -> type:
    """A kernel manager whose kernel is the Python that runs capsnb, whatever kernelspecs the machine offers."""
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class ThisPython(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            # its own log, not the notebook's output: it would break into the progress bar at each start and end
            return KernelSpec(**get_kernel_dict(extra_arguments=["--log-level=CRITICAL"]))

    return ThisPython


def _failed_cell(path: Path) -> int | None:
    """The number, in the source notebook, of the last code cell that was begun: it raised, or the kernel died in it."""
    if not path.exists():
        return None
    begun, number = None, 0
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", ()):
            number += 1
            if cell.metadata.get("papermill", {}).get("start_time"):
                begun = number
    return begun


def _remember(outcome: Outcome, parameters: dict[str, object]) -> None:
    """Write the outcome into the executed notebook, where the report finds it."""
    if not outcome.path.exists():
        return
    notebook = nbformat.read(outcome.path, as_version=4)
    notebook.metadata["capsnb"] = {
        "parameters": parameters,
        "seconds": round(outcome.seconds, 1),
        "finished": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cell": outcome.cell,
        "error": outcome.error,
    }
    nbformat.write(notebook, outcome.path)


def _one_line(error: str, limit: int = 300) -> str:
    if "torchvision::nms" in error:
        return MISMATCH
    line = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", error).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def duration(seconds: float) -> str:
    """So many seconds in the unit that fits: "3 hours"."""
    for unit, length in (("days", 86400), ("hours", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 1):.0f} s"
