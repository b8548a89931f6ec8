"""The command line: capsnb run, report, data, runs, sweep, results, checkpoints. Slow imports stand where used."""

from pathlib import Path
from typing import Any

import click

from capsnb import __version__, disk
from capsnb.cli_sweep import sweep
from capsnb.refusal import Commands

# those of capsnb.evidence.profiles, which imports torch
PROFILES = ("smoke", "quick", "long", "full")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="capsnb")
def main() -> None:
    """Execute the capsule-network notebooks, report on them, and look after their data and trained runs.

    \b
    capsnb run                                every notebook, profile quick
    capsnb run 03 --profile full --seeds 5    one notebook at the paper's own size
    capsnb report                             build/report.html from the executed notebooks
    """


main.add_command(sweep)


def _folder(**more: Any) -> click.Path:
    return click.Path(file_okay=False, path_type=Path, **more)


@main.command()
@click.argument("numbers", metavar="[NN]...", nargs=-1)
@click.option("--profile", type=click.Choice(PROFILES), help="How much to train.  [default: quick]")
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

    from capsnb.evidence import notebooks

    source = source or _notebooks()
    chosen = notebooks.select(source, numbers)
    from capsnb.evidence import preview, profiles  # these import torch

    profile = profiles.current(profile)
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
        for path in chosen:
            notebooks.require_parameters(path)
    data = data and data.resolve()
    for line in preview.lines(chosen, profile, seed=seed, seeds=seeds, data=data):
        click.echo(line)
    outcomes = []
    for path in chosen:
        if in_place:
            outcome = notebooks.refresh(path, profile=profile)
        else:
            parameters = {"profile": profile, "seed": seed, "seeds": seeds, "data": data and str(data)}
            outcome = notebooks.execute(path, out / path.name, parameters)
        click.echo(outcome, err=not outcome.passed)
        outcomes.append(outcome)
    if failed := [outcome for outcome in outcomes if not outcome.passed]:
        raise click.ClickException(f"{len(failed)} of {len(outcomes)} notebooks failed.")


def _notebooks() -> Path:
    """notebooks/ of the working directory, else of the checkout that capsnb lies in."""
    here, checkout = Path("notebooks"), disk.project() / "notebooks"
    if not here.is_dir() and not checkout.is_dir():
        raise FileNotFoundError("There is no folder notebooks here: go to the project's folder or give --notebooks.")
    return here if here.is_dir() else checkout


@main.command()
@click.option("--from", "source", type=_folder(), default="build/notebooks", show_default=True, help="Notebooks.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default="build/report.html", show_default=True)
def report(source: Path, out: Path) -> None:
    """Write one self-contained page: the claims of every paper with their verdicts, then each executed notebook.

    \b
    capsnb report
    capsnb report --from notebooks --out committed.html
    """
    from capsnb.evidence import report as pages

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

    from capsnb.training import runs as trained

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
    from capsnb.training import runs as trained

    if every and not yes:
        click.confirm(f"Delete finished runs in {trained.root(root)} too?", abort=True)
    count = trained.prune(root, older_than_days=older_than, unfinished_only=not every)
    click.echo(f"Deleted {count} run{'s' * (count != 1)}.")


@main.group(invoke_without_command=True)
@click.option(
    "--readme", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Write it between this file's marks."
)
@click.pass_context
def results(ctx: click.Context, readme: Path | None) -> None:
    """Print the table of recorded runs, or write it into a README.

    \b
    capsnb results
    capsnb results --readme README.md
    capsnb results record 00
    """
    if ctx.invoked_subcommand is not None:
        return
    from capsnb.evidence import report as pages

    table = pages.results_table(_notebooks())
    if readme is None:
        click.echo(table)
    else:
        readme.write_text(pages.fill_readme(readme.read_text(encoding="utf-8"), table), encoding="utf-8")


@results.command("record")
@click.argument("number", metavar="NN")
@click.option("--from", "source", type=_folder(exists=True), default="build/notebooks", show_default=True)
@click.option("--claim", "only", metavar="NAME", multiple=True, help="Only this claim; may be given several times.")
def record_results(number: str, source: Path, only: tuple[str, ...]) -> None:
    """Keep what an executed notebook measured in results/NN.json, beside earlier records. Profiles long and full only.

    \b
    capsnb run 00 --profile full && capsnb results record 00
    capsnb results record 04 --claim "depth starves" --claim attention
    """
    from capsnb.evidence import recording

    click.echo(f"Recorded in {recording.record(source, number, only=only)}")


@main.group(name="checkpoints")
def checkpoint_group() -> None:
    """The small trained models that come with capsnb, in data/checkpoints.

    \b
    capsnb checkpoints list
    capsnb checkpoints make capsnet-small
    """


@checkpoint_group.command("list")
def list_checkpoints() -> None:
    """List the checkpoints with their accuracy on the images they were not trained on.

    \b
    capsnb checkpoints list
    """
    from capsnb.training import checkpoints

    rows = []
    for name in checkpoints.CHECKPOINTS:
        made = checkpoints.record(name)
        rows.append([name, f"{made['test accuracy']:.4f}", made["code"], made["data"].split(";")[0]])
    _print_columns(("name", "test accuracy", "code", "data"), rows)


@checkpoint_group.command()
@click.argument("name")
def make(name: str) -> None:
    """Train the checkpoint NAME anew and put it in its place.

    \b
    capsnb checkpoints make capsnet-small
    """
    from capsnb.training import checkpoints

    click.echo(f"{name} is in {checkpoints.make(name)}")


def _print_columns(header: tuple[str, ...], rows: list[list[Any]]) -> None:
    texts = [list(header)]
    for row in rows:
        texts.append(["-" if cell is None else f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row])
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for text in texts:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(text, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
