"""The command line: capsnb run | report | data | runs | results. Slow imports stand where they are used."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import click

from capsnb import __version__

PACKAGE = Path(__file__).resolve().parent


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
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        from capsnb.execute import MISMATCH

        raise Refused(MISMATCH) from error


def _raised_here(trace: TracebackType | None) -> bool:
    """Whether capsnb itself raised, and not a library that it called."""
    while trace and trace.tb_next:
        trace = trace.tb_next
    return trace is not None and Path(trace.tb_frame.f_code.co_filename).resolve().is_relative_to(PACKAGE)


def _about_file(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}." if error.filename else str(error)


class Commands(click.Group):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with one_sentence():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with one_sentence():
            return super().invoke(ctx)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="capsnb")
def main() -> None:
    """Execute the capsule-network notebooks, report on them, and look after their data and trained runs.

    \b
    capsnb run                                every notebook, profile quick
    capsnb run 03 --profile full --seeds 5    one notebook at the paper's own size
    capsnb report                             build/report.html from the executed notebooks
    """


def _folder(**more: Any) -> click.Path:
    return click.Path(file_okay=False, path_type=Path, **more)


@main.command()
@click.argument("numbers", metavar="[NN]...", nargs=-1)
@click.option("--profile", type=click.Choice(["smoke", "quick", "full"]), help="How much to train.  [default: quick]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The first seed.")
@click.option("--seeds", type=click.IntRange(min=1), help="How many seeds, in place of the profile's own number.")
@click.option("--data", type=_folder(exists=True), help="Folder of the image sets, in place of CAPSNB_DATA.")
@click.option("--out", type=_folder(), help="Where the executed notebooks go.  [default: build/notebooks]")
@click.option("--notebooks", "source", type=_folder(exists=True), help="Folder of the notebooks to execute.")
@click.option("--in-place", is_flag=True, help="Execute the notebooks where they lie, for committing them.")
def run(
    numbers: tuple[str, ...],
    profile: str | None,
    seed: int,
    seeds: int | None,
    data: Path | None,
    out: Path | None,
    source: Path | None,
    in_place: bool,
) -> None:
    """Execute notebooks with papermill, all of them or those with the numbers NN.

    First says what will be trained and about how long that takes; runs that are on disk are not trained again. The
    notebooks themselves stay as they are. Exit status 1 when one failed; the others are executed all the same.

    \b
    capsnb run
    capsnb run 00 03 --profile smoke
    capsnb run 03 --profile full --seeds 5 --data ~/datasets
    capsnb run --notebooks my-notebooks --out build/mine
    """
    import os

    from capsnb import execute

    source = source or _notebooks()
    chosen = execute.select(source, numbers)
    profile = profile or _environment_profile()
    if in_place:
        if given := [name for name, value in {"seed": seed, "seeds": seeds, "data": data, "out": out}.items() if value]:
            raise click.UsageError(f"--in-place takes no --{given[0]}: committed notebooks are runs of the defaults.")
        seeds = data = None
    else:
        out = out or Path("build/notebooks")
        if out.resolve() == source.resolve():
            raise click.UsageError(f"--out {out} is the folder of the notebooks themselves: choose another.")
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK):
            raise click.UsageError(f"--out {out} is not writable: choose another folder.")
    data = data and data.resolve()
    _announce(chosen, profile, seed, seeds, data)
    outcomes = []
    for path in chosen:
        if in_place:
            outcome = execute.refresh(path, profile=profile)
        else:
            parameters = {"profile": profile, "seed": seed, "seeds": seeds, "data": data and str(data)}
            outcome = execute.execute(path, out / path.name, parameters)
        click.echo(outcome, err=not outcome.passed)
        outcomes.append(outcome)
    if failed := [outcome for outcome in outcomes if not outcome.passed]:
        raise click.ClickException(f"{len(failed)} of {len(outcomes)} notebooks failed.")


def _notebooks() -> Path:
    """notebooks/ of the working directory, else of the checkout that capsnb lies in."""
    here, checkout = Path("notebooks"), PACKAGE.parent / "notebooks"
    if not here.is_dir() and not checkout.is_dir():
        raise FileNotFoundError("There is no folder notebooks here: go to the project's folder or give --notebooks.")
    return here if here.is_dir() else checkout


def _environment_profile() -> str:
    from capsnb import profiles

    return profiles.current()


def _announce(chosen: list[Path], profile: str, seed: int, seeds: int | None, data: Path | None) -> None:
    """Say what the notebooks will train, variant by variant, and about how long that takes on this machine."""
    from capsnb import profiles, runs

    click.echo(f"Profile {profile}: {profiles.PROFILES[profile]}.")
    total = 0.0
    planned = False
    for path in chosen:
        if path.name[:2] not in profiles.PLANS:
            continue
        plan = profiles.plan(path.name[:2], profile, seed=seed, seeds=seeds, data=data)
        try:
            forecast = iter(runs.forecast(plan.all_specs(), data_dir=data))
        except (ValueError, FileNotFoundError) as error:
            click.echo(f"{path.name}: no forecast. {' '.join(str(error).split())}")
            continue
        planned = True
        click.echo(f"{path.name}:")
        for variant, specs in plan.specs.items():
            seconds = [next(forecast) for _ in specs]
            todo = [spec for spec, cost in zip(specs, seconds, strict=True) if cost]
            done = "trained before" if not todo else f"about {_duration(sum(seconds))}"
            counted = f"{len(specs)} seed{'s' * (len(specs) > 1)}"
            click.echo(f"  {variant}: {counted} x {specs[0].recipe.epochs} epochs on {specs[0].data.name}, {done}")
            total += sum(seconds)
    if planned:
        click.echo(f"Training takes about {_duration(total)} on this machine." if total else "Nothing to train.")


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 1):.0f} s"


@main.command()
@click.option("--from", "source", type=_folder(), default="build/notebooks", show_default=True, help="Notebooks.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default="build/report.html", show_default=True)
def report(source: Path, out: Path) -> None:
    """Write one self-contained page: the claims of every paper with their verdicts, then each executed notebook.

    \b
    capsnb report
    capsnb report --from notebooks --out committed.html
    """
    from capsnb import report as pages

    click.echo(f"The report is {pages.write(source, out)}")


@main.group(invoke_without_command=True)
@click.option("--data", "folder", type=_folder(exists=True), help="Folder of the image sets, in place of CAPSNB_DATA.")
@click.pass_context
def data(ctx: click.Context, folder: Path | None) -> None:
    """Show which image sets are where, with their counts.

    \b
    capsnb data
    capsnb data --data ~/datasets
    capsnb data fetch fashion-mnist
    """
    ctx.obj = folder
    if ctx.invoked_subcommand is None:
        from capsnb import data as sets

        rows = sets.available(folder)
        cells = [
            [row["name"], row["train"], row["validation"], row["test"], row["where"] or row["note"]] for row in rows
        ]
        _print_columns(("name", "train", "validation", "test", "where"), cells)


@data.command()
@click.argument("name")
@click.pass_obj
def fetch(folder: Path | None, name: str) -> None:
    """Download the image set NAME into the data folder.

    \b
    capsnb data fetch mnist
    """
    from capsnb import data as sets

    click.echo(f"{name} is in {sets.fetch(name, folder)}")


@main.group()
def runs() -> None:
    """Look after trained runs: the folder CAPSNB_RUNS, by default runs.

    \b
    capsnb runs list
    capsnb runs prune --older-than 30
    """


ROOT = click.option("--root", type=_folder(exists=True), help="Folder of the runs, in place of CAPSNB_RUNS.")


@runs.command("list")
@ROOT
def list_runs(root: Path | None) -> None:
    """List the runs on disk.

    \b
    capsnb runs list
    """
    import datetime

    from capsnb import runs as trained

    rows = trained.list_runs(root)
    if not rows:
        click.echo(f"There are no runs in {trained.root(root)}.")
        return
    cells = []
    for row in rows:
        accuracy = row["validation accuracy"]
        cells.append(
            [
                row["name"],
                "finished" if row["finished"] else "unfinished",
                row["epoch"],
                None if accuracy is None else f"{accuracy:.4f}",
                f"{row['bytes'] / 1e6:.1f} MB",
                f"{datetime.datetime.fromtimestamp(row['changed']):%Y-%m-%d %H:%M}",
            ]
        )
    _print_columns(("name", "state", "epoch", "validation", "size", "changed"), cells)


@runs.command()
@ROOT
@click.option("--older-than", metavar="DAYS", type=click.FloatRange(min=0), default=0, help="Last changed so long ago.")
@click.option("--all", "every", is_flag=True, help="Finished runs too.")
@click.option("--yes", is_flag=True, help="Do not ask before finished runs are deleted.")
def prune(root: Path | None, older_than: float, every: bool, yes: bool) -> None:
    """Delete runs that were never finished, or with --all finished ones too.

    \b
    capsnb runs prune
    capsnb runs prune --all --older-than 30
    """
    from capsnb import runs as trained

    if every and not yes:
        click.confirm(f"Delete finished runs in {trained.root(root)} too?", abort=True)
    count = trained.prune(root, older_than_days=older_than, unfinished_only=not every)
    click.echo(f"Deleted {count} run{'s' * (count != 1)}.")


@main.command()
@click.option(
    "--readme", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Write it between this file's marks."
)
def results(readme: Path | None) -> None:
    """Print the table of recorded full runs, or write it into a README.

    \b
    capsnb results
    capsnb results --readme README.md
    """
    from capsnb import report as pages

    table = pages.results_table(_notebooks())
    if readme is None:
        click.echo(table)
    else:
        readme.write_text(pages.fill_readme(readme.read_text(encoding="utf-8"), table), encoding="utf-8")


def _print_columns(header: tuple[str, ...], rows: list[list[Any]]) -> None:
    texts = [list(header)]
    for row in rows:
        texts.append(["-" if cell is None else f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row])
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for text in texts:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(text, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
