"""Notebooks as files: found by number, read or refused in one sentence, and stripped of what no reader needs."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from capsnb.disk import refuse_pointer
from capsnb.installation import extra

with extra("notebooks"):
    import nbformat

PATTERN = "[0-9][0-9]_*.ipynb"
EXPECTED, SKIPPED = "raises-exception", "skip-execution"  # tags of cells, as nbclient and nbconvert know them
ERROR_MARK = "papermill-error-cell-tag"
WIDGET = "application/vnd.jupyter.widget-view+json"


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


def load(path: Path) -> nbformat.NotebookNode:
    """A notebook from its file. ValueError, in one sentence, for one that is empty, conflicted or otherwise damaged."""
    content = path.read_bytes()
    if content.startswith(b"\xef\xbb\xbf"):
        raise ValueError(f"{path} begins with a byte order mark, as no notebook does: save it as UTF-8 without.")
    if not content.strip():
        raise ValueError(f"{path} is empty, so no notebook.")
    refuse_pointer(path)
    try:
        notebook = nbformat.reads(content.decode(), as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":  # as others may leave them out
                cell.setdefault("outputs", [])
                cell.setdefault("execution_count", None)
            notebook.nbformat_minor = max(notebook.nbformat_minor, 5 if "id" in cell else 0)
        nbformat.validate(notebook)
        return notebook
    except Exception as error:  # nbformat raises what json, its schemas and its conversions do
        conflicted = b"\n<<<<<<< " in content or content.startswith(b"<<<<<<< ")
        why = "has git's marks of a conflict in it" if conflicted else "is no notebook, or a damaged one"
        raise ValueError(f"{path} {why}: restore it, or leave it out.") from error


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The code cells of a notebook, without the one that papermill puts in: a cell's number is its place, from 1."""
    code = (cell for cell in notebook.cells if cell.cell_type == "code")
    return [cell for cell in code if "injected-parameters" not in cell.metadata.get("tags", ())]


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
