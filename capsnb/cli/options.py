"""What several commands share: the types of their options, and how they print a table."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from capsnb import installation


def folder(**more: Any) -> click.Path:
    """An option's type: a folder. more: of click.Path, as exists=True."""
    return click.Path(file_okay=False, path_type=Path, **more)


def file(**more: Any) -> click.Path:
    """An option's type: a file. more: of click.Path, as exists=True."""
    return click.Path(dir_okay=False, path_type=Path, **more)


JOBS = click.option(
    "--jobs", type=click.IntRange(min=1), help="How many at a time, one thread each.  [default: one per core, or GPU]"
)


def set_variable(context: click.Context, name: str, value: str) -> None:
    """An environment variable that processes of this command see, too; as it was when the command ends."""
    context.with_resource(installation.environment(name, value))


def find_here(context: click.Context) -> None:
    """Have modules in the working directory be found, by processes of this command, too."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    context.call_on_close(lambda: sys.path.remove(here))
    set_variable(context, "PYTHONPATH", os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH")))))


def _take_project(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
    if value is not None:
        set_variable(context, installation.VARIABLE, str(installation.clone(value)))


def _need_project(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
    _take_project(context, parameter, value)
    installation.project()


def _project(callback: Any) -> Any:
    text = f"Folder of a clone of the project, in place of {installation.VARIABLE}."
    return click.option("--project", type=folder(exists=True), expose_value=False, callback=callback, help=text)


PROJECT, NEEDS_PROJECT = _project(_take_project), _project(_need_project)


class FolderOrArchive(click.Path):
    """A folder, or an .npz file, that is there."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        kind = file if str(value).endswith(".npz") else folder
        return kind(exists=True).convert(value, param, ctx)


DATA = click.option(
    "--data",
    type=folder(exists=True),
    callback=lambda context, parameter, value: _sets(value),
    help="Folder of the image sets, in place of CAPSNB_DATA.",
)
OWN_DATA = click.option(
    "--data",
    type=FolderOrArchive(),
    help="Folder of the image sets, in place of CAPSNB_DATA; or images of your own: class folders, or an .npz file.",
)


def _sets(folder: Path | None) -> Path | None:
    if folder is not None:
        from capsnb.data import refuse_own  # imports torch

        refuse_own(
            folder, "your own are taken by `capsnb run 07 --data`, `capsnb sweep --data` and `data.name` in a grid"
        )
    return folder


def print_columns(header: tuple[str, ...], rows: list[list[Any]]) -> None:
    """Print rows under their header, columns aligned; None as a dash, whole numbers with thousands separators."""
    texts = [list(header)]
    for row in rows:
        texts.append(["-" if cell is None else f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row])
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for text in texts:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(text, widths, strict=True)).rstrip())
