"""Notebooks executed by papermill: with parameters into another folder, or in place for the committed ones."""

import datetime
import json
import math
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capsnb.disk import replacing
from capsnb.evidence.notebook_files import ERROR_MARK, EXPECTED, SKIPPED, code_cells, code_digest, load, strip
from capsnb.installation import environment, extra

with extra("notebooks"):
    import nbformat

MISMATCH = (
    "torch and torchvision are not a pair (operator torchvision::nms does not exist): "
    "install both again from one index, as the README says under Install"
)
LONGEST = ("01", "07")  # of this project's notebooks, to be begun first where no earlier execution tells the seconds


@dataclass(frozen=True)
class Outcome:
    """How the execution of one notebook ended."""

    notebook: str  # file name
    path: Path  # the executed notebook
    seconds: float
    cell: int | None = None  # number of the code cell that failed, counted in the source notebook from 1; 0: before it
    error: str | None = None
    note: str = ""  # on cells that were skipped, or raised as they are tagged to

    @property
    def passed(self) -> bool:
        return self.error is None

    def __str__(self) -> str:
        if self.passed:
            return f"{self.notebook}: passed in {self.seconds:.0f} s{self.note}"
        where = {None: "in its kernel", 0: "before its first cell"}.get(self.cell, f"in code cell {self.cell}")
        return f"{self.notebook}: failed {where}: {self.error}"


def readable(chosen: Iterable[Path], out: Path | None) -> tuple[list[Path], list[Outcome]]:
    """Those of the notebooks that can be read, and how the others end; what `out` has of them goes."""
    found, bad = [], []
    for path in chosen:
        try:
            load(path)
            found.append(path)
        except ValueError as error:
            if out is not None:
                (out / path.name).unlink(missing_ok=True)
            bad.append(Outcome(path.name, (out or path.parent) / path.name, 0.0, 0, str(error)))
    return found, bad


def require_parameters(source: Path) -> None:
    """Raise ValueError for a notebook that papermill cannot pass parameters to."""
    if not any("parameters" in cell.metadata.get("tags", ()) for cell in load(source).cells):
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

    jobs = min(jobs or joblib.cpu_count(), len(chosen) or 1)
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
    except (OSError, ValueError, LookupError, TypeError):  # a committed one has the digest of its code alone
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

    with environment("CAPSNB_PROFILE", profile), tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / source.name
        outcome = _papermill(source, fresh, {}, progress)
        if outcome.passed:
            notebook = lighten(strip(load(fresh)))
            notebook.metadata["capsnb"] = {"code": code_digest(notebook)}
            with replacing(source) as temporary:
                nbformat.write(notebook, temporary)
    return outcome


def _papermill(source: Path, target: Path, parameters: dict[str, object], progress: bool) -> Outcome:
    import papermill
    from nbclient.exceptions import CellControlSignal, CellExecutionError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    bar = {"desc": source.stem, "mininterval": 0.1 if sys.stderr.isatty() else 10}
    started, error = time.perf_counter(), None
    try:
        papermill.execute_notebook(
            _literally(source),
            _literally(target),
            parameters=parameters,
            kernel_name="python3",
            language="python",
            kernel_manager_class=_this_python(),
            progress_bar=bar if progress else False,
            cwd=source.resolve().parent,
        )
    except PapermillExecutionError:
        pass  # `_judged` finds it
    except (CellControlSignal, CellExecutionError, DeadKernelError, RuntimeError) as caught:
        error = f"{type(caught).__name__}: {caught}"
    except BaseException:
        target.unlink(missing_ok=True)  # papermill saves as it goes: the report must find no half-executed notebook
        raise
    seconds = time.perf_counter() - started
    if error is None:
        cell, error, note = _judged(target)
    else:
        cell, note = _failed_cell(target), ""
    outcome = Outcome(source.name, target, seconds, cell, error and _one_line(error), note)
    _remember(outcome, parameters)
    return outcome


def _literally(path: Path) -> Path:
    """A path for papermill, which puts parameters where it has braces."""
    return Path(str(path.resolve()).replace("{", "{{").replace("}", "}}"))


def _judged(path: Path) -> tuple[int | None, str | None, str]:
    """The first code cell of an executed notebook that failed, by its number, what it failed by, and a note.

    As nbclient does, and papermill does not quite: a cell tagged raises-exception may raise and one tagged
    skip-execution is not executed, which the note counts; any other must have been executed, whatever ended it. What
    papermill puts into the notebook about an error that was expected goes.
    """
    notebook, skipped, raised = load(path), 0, 0
    for number, cell in enumerate(code_cells(notebook), 1):
        tags = cell.metadata.get("tags", ())
        errors = [output for output in cell.get("outputs", ()) if output.output_type == "error"]
        if SKIPPED in tags:
            skipped += 1
        elif errors and EXPECTED in tags:
            raised += 1
        elif errors:
            ended = ", which ended the notebook" if errors[0].ename == "SystemExit" else ""
            return number, f"{errors[0].ename}: {errors[0].evalue}{ended}", ""
        elif cell.source.strip() and not cell.get("execution_count"):
            return number, "it was not executed", ""
    if raised:
        notebook.cells = [cell for cell in notebook.cells if ERROR_MARK not in cell.metadata.get("tags", ())]
        nbformat.write(notebook, path)
    counts = {f"skipped ({SKIPPED})": skipped, f"raised as expected ({EXPECTED})": raised}
    return None, None, "".join(f", {count} cell{'s' * (count > 1)} {what}" for what, count in counts.items() if count)


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
    begun = [n for n, cell in enumerate(code_cells(load(path)), 1) if cell.metadata.papermill.get("start_time")]
    return begun[-1] if begun else None


def _remember(outcome: Outcome, parameters: dict[str, object]) -> None:
    """Write the outcome into the executed notebook, where the report finds it."""
    if not outcome.path.exists():
        return
    notebook = load(outcome.path)
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
