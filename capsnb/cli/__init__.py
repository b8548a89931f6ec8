"""The command line: capsnb run, report, results, campaign, audit, data, runs, sweep, checkpoints, predict.

Slow imports stand where used. A bad input is one sentence on stderr and exit status 2, never a traceback.
"""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import click

from capsnb import __version__, installation
from capsnb.cli import evidence, notebooks, training
from capsnb.cli.options import find_here, set_variable


class Refused(click.ClickException):
    """A bad input: one sentence on stderr, exit status 2."""

    exit_code = 2


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """Turn what a user can mend into Refused; a bug keeps its traceback."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        raise Refused(error.format_message()) from error
    except (ValueError, FileNotFoundError) as error:
        if _raised_here(error.__traceback__):
            raise Refused(" ".join(str(error).split())) from error
        if isinstance(error, ValueError):
            raise
        raise Refused(_about_file(error)) from error
    except OSError as error:
        raise Refused(_about_file(error)) from error
    except installation.MissingExtra as error:
        raise Refused(f"{error}.") from error
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        from capsnb.evidence.notebooks import MISMATCH

        raise Refused(MISMATCH) from error


def _raised_here(trace: TracebackType | None) -> bool:
    """Whether capsnb itself raised, and not a library that it called."""
    while trace and trace.tb_next:
        trace = trace.tb_next
    return trace is not None and Path(trace.tb_frame.f_code.co_filename).resolve().is_relative_to(installation.PACKAGE)


def _about_file(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}." if error.filename else str(error)


class Commands(click.Group):
    """A group whose commands refuse bad input in one sentence."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with one_sentence():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        said: set[str] = set()

        def note(message: Warning | str, *more: Any, **others: Any) -> None:
            if str(message) not in said:  # a set is read by several parts of a command
                said.add(str(message))
                click.echo(f"Note: {message}", err=True)

        with one_sentence(), warnings.catch_warnings():
            warnings.showwarning = note
            return super().invoke(ctx)


@click.group(
    cls=Commands,
    commands=[*notebooks.COMMANDS, *training.COMMANDS, *evidence.COMMANDS],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="capsnb")
@click.option("--import", "modules", metavar="MODULE", multiple=True, help="Your own, which registers things, first.")
@click.pass_context
def main(ctx: click.Context, modules: tuple[str, ...]) -> None:
    """Execute the capsule-network notebooks, report on them, and look after their data and trained runs.

    \b
    capsnb run                                every notebook, profile quick
    capsnb run 03 --profile full --seeds 5    one notebook at the paper's own size
    capsnb report                             build/report.html from the executed notebooks
    capsnb --import bars data                 with the image set that bars.py registers
    """
    if modules:
        find_here(ctx)
        set_variable(ctx, installation.IMPORT, " ".join(modules))
    installation.import_own()
