"""What several commands share: the types of their options, and how they print a table."""

from pathlib import Path
from typing import Any

import click


def folder(**more: Any) -> click.Path:
    """An option's type: a folder. more: of click.Path, as exists=True."""
    return click.Path(file_okay=False, path_type=Path, **more)


def file(**more: Any) -> click.Path:
    """An option's type: a file. more: of click.Path, as exists=True."""
    return click.Path(dir_okay=False, path_type=Path, **more)


JOBS = click.option(
    "--jobs", type=click.IntRange(min=1), help="How many at a time, one thread each.  [default: one per core, or GPU]"
)
DATA = click.option("--data", type=folder(exists=True), help="Folder of the image sets, in place of CAPSNB_DATA.")


def print_columns(header: tuple[str, ...], rows: list[list[Any]]) -> None:
    """Print rows under their header, columns aligned; None as a dash, whole numbers with thousands separators."""
    texts = [list(header)]
    for row in rows:
        texts.append(["-" if cell is None else f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row])
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for text in texts:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(text, widths, strict=True)).rstrip())
