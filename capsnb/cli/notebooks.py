"""The commands about notebooks: capsnb run, report, results."""

import os
from pathlib import Path
from typing import Any

import click

from capsnb import disk, installation
from capsnb.cli.options import (
    DATA,
    JOBS,
    NEEDS_PROJECT,
    OWN_DATA,
    PROJECT,
    file,
    find_here,
    folder,
    print_columns,
    set_variable,
)

# those of capsnb.evidence.plans, which imports torch
PROFILES = ("smoke", "quick", "long", "full")


@click.command()
@click.argument("numbers", metavar="[NN]...", nargs=-1)
@click.option("--profile", type=click.Choice(PROFILES), help="How much to train.  [default: quick]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The first seed.")
@click.option("--seeds", type=click.IntRange(min=1), help="How many seeds, in place of the profile's own number.")
@JOBS
@OWN_DATA
@PROJECT
@click.option("--out", type=folder(), help="Where the executed notebooks go.  [default: build/notebooks]")
@click.option("--notebooks", "source", type=folder(exists=True), help="Folder of the notebooks to execute.")
@click.option("--in-place", is_flag=True, help="Execute the notebooks where they lie, for committing them.")
@click.option("--routing", "routings", metavar="NAME=MODULE:CLASS", multiple=True, help="Your own, beside the others.")
def run(
    numbers: tuple[str, ...],
    profile: str | None,
    seed: int,
    seeds: int | None,
    jobs: int | None,
    data: Path | None,
    out: Path | None,
    source: Path | None,
    in_place: bool,
    routings: tuple[str, ...],
) -> None:
    """Execute notebooks with papermill, all of them or those with the numbers NN.

    First says what will be trained and about how long that takes, and trains it, as many networks side by side as there
    are cores; runs that are on disk are not trained again. Then the notebooks are executed, side by side too. They
    themselves stay as they are. Exit status 1 when one failed; the others are executed all the same. In place, each is
    executed at its own profile unless one is given; what is drawn from the evidence store needs no training.

    \b
    capsnb run
    capsnb run 00 03 --profile smoke
    capsnb run 03 --profile full --seeds 5 --jobs 16 --data ~/datasets
    capsnb run 02 04 05 --routing sparse=my_routings:Sparse    # a class in my_routings.py, here or on PYTHONPATH
    capsnb run --notebooks my-notebooks --out build/mine
    """
    from capsnb.evidence import notebook_files, notebooks

    source = source or _notebooks()
    chosen = notebook_files.select(source, numbers)
    chosen, outcomes = notebooks.readable(chosen, None if in_place else out or Path("build/notebooks"))
    from capsnb.evidence import ahead, plans  # imports torch

    if in_place:
        given = {"seed": seed, "seeds": seeds, "data": data, "out": out, "routing": routings}
        if given := [name for name, value in given.items() if value]:
            raise click.UsageError(f"--in-place takes no --{given[0]}: committed notebooks are runs of the defaults.")
        seeds = data = None
    else:
        profile = plans.current(profile)
        out = out or Path("build/notebooks")
        if out.resolve() == source.resolve():
            raise click.UsageError(f"--out {out} is the folder of the notebooks themselves: choose another.")
        disk.make_folder(out)
        if not os.access(out, os.W_OK):
            raise click.UsageError(f"--out {out} is not writable: choose another folder.")
        for path in chosen:
            notebooks.require_parameters(path)
    if routings:
        _show(routings)
    data = data and data.resolve()
    if not in_place and profile in plans.RECORDED:  # what is trained here is shown, not what others have recorded
        set_variable(click.get_current_context(), "CAPSNB_EVIDENCE", os.environ.get("CAPSNB_EVIDENCE", "runs"))
    trained = ahead.Training(chosen, profile, seed=seed, seeds=seeds, data=data)
    for line in trained.forecast():
        click.echo(line)
    trained.run(jobs, tell=lambda text: click.echo(text, err=True))
    parameters = None if in_place else {"profile": profile, "seed": seed, "seeds": seeds, "data": data and str(data)}
    for outcome in outcomes:
        click.echo(outcome, err=True)
    for outcome in notebooks.execute_all(chosen, out, parameters, profile=profile, jobs=jobs):
        click.echo(outcome, err=not outcome.passed)
        outcomes.append(outcome)
    if failed := [outcome for outcome in outcomes if not outcome.passed]:
        raise click.ClickException(f"{len(failed)} of {len(outcomes)} notebooks failed.")


def _show(routings: tuple[str, ...]) -> None:
    """Have plans, in all processes of this command, show a reader's own routings, of modules that lie here, too."""
    from capsnb.evidence import plans

    context = click.get_current_context()
    find_here(context)
    set_variable(context, plans.ROUTINGS, " ".join(routings))
    plans.own_routings()  # what cannot be used is refused before anything is trained


def _notebooks() -> Path:
    """Those of a project that was named, else those of the working directory, else of the checkout."""
    here = Path("notebooks")
    named = os.environ.get(installation.VARIABLE)
    return here if here.is_dir() and not named else installation.project() / "notebooks"


@click.command()
@click.option("--from", "source", type=folder(), default="build/notebooks", show_default=True, help="Notebooks.")
@click.option("--out", type=file(), default="build/report.html", show_default=True)
def report(source: Path, out: Path) -> None:
    """Write an index of the executed notebooks, what they ask, answer and decide, and beside it a page for each.

    \b
    capsnb report
    capsnb report --from notebooks --out committed.html
    """
    from capsnb.evidence import report as pages

    click.echo(f"The report is {pages.write(source, out)}")


@click.group(invoke_without_command=True)
@PROJECT
@click.option("--readme", type=file(exists=True), help="Write a summary between this file's marks.")
@click.pass_context
def results(ctx: click.Context, readme: Path | None) -> None:
    """Print the tables of recorded runs, or write them into results/README.md beside a README that gets a summary.

    \b
    capsnb results
    capsnb results --readme README.md
    capsnb results record 00
    capsnb results open
    """
    if ctx.invoked_subcommand is not None:
        return
    from capsnb.evidence import ledger

    if readme is None:
        click.echo(ledger.whole(_notebooks()))
        return
    for path, text in ledger.filled(readme, _notebooks()).items():
        path.write_text(text, encoding="utf-8")


@results.command("record")
@NEEDS_PROJECT
@click.argument("number", metavar="NN")
@click.option("--from", "source", type=folder(exists=True), default="build/notebooks", show_default=True)
@click.option("--claim", "only", metavar="NAME", multiple=True, help="Only this claim; may be given several times.")
def record_results(number: str, source: Path, only: tuple[str, ...]) -> None:
    """Keep in the evidence store what an executed notebook measured at profile long or full, beside earlier records.

    \b
    capsnb run 00 --profile full && capsnb results record 00
    capsnb results record 04 --claim "depth starves" --claim attention
    """
    from capsnb.evidence import recording

    click.echo(f"Recorded in {recording.record(source, number, only=only)}")


MEASURING = "A cost is that of training; measuring the networks afterwards comes on top."


@results.command("open")
@NEEDS_PROJECT
@click.argument("numbers", metavar="[NN]...", nargs=-1)
@click.option(
    "--cost", is_flag=True, help="Forecast what the missing trainings cost here, by trying a few steps of each."
)
def open_results(numbers: tuple[str, ...], cost: bool) -> None:
    """List what the record leaves open: claims and why, then plans and grids whose networks were not observed.

    \b
    capsnb results open
    capsnb results open 03 04 --cost
    """
    from capsnb.evidence import ledger

    numbers, notebooks = tuple(number.zfill(2) for number in numbers), _notebooks()
    costs = ledger.Costs() if cost else None
    click.echo(ledger.markdown(ledger.COLUMNS, ledger.open_claims(notebooks, numbers, costs=costs)))
    head = ("networks of", "not observed", "of", "cost here")
    click.echo("\n" + ledger.markdown(head, ledger.unobserved(notebooks, numbers, costs=costs)))
    click.echo("\n" + (MEASURING if cost else "With --cost each is forecast, by trying a few steps."))


@results.command("survey")
@NEEDS_PROJECT
@click.argument("number", metavar="NN")
@click.option("--profile", type=click.Choice(PROFILES), default="long", show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), help="How many seeds, in place of the profile's own number.")
@JOBS
@DATA
def survey_results(number: str, profile: str, seeds: int | None, jobs: int | None, data: Path | None) -> None:
    """Measure a notebook's finished runs by the whole survey, nulls included, and keep that in the evidence store.

    \b
    capsnb run 04 --profile long && capsnb results survey 04
    """
    from capsnb.evidence import plans, recording

    plan = plans.plan(number.zfill(2), profile, seeds=seeds, data=data)
    count, files = recording.survey_runs(plan, jobs=jobs)
    click.echo(f"{count} new observations of {len(files)} runs in the evidence store.")


@click.command()
@NEEDS_PROJECT
@click.option("--profile", type=click.Choice(PROFILES), default="long", show_default=True)
@click.option("--routing", "routings", metavar="NAME=MODULE:CLASS", multiple=True, help="A row for your own, trained.")
@click.option("--grid", "grids", type=file(exists=True), multiple=True, help="A row for each case of a recorded grid.")
@click.option("--out", type=file(), help="Where to draw it (.png, .svg) or write every cell (.csv).")
@JOBS
@DATA
def scorecard(
    profile: str,
    routings: tuple[str, ...],
    grids: tuple[Path, ...],
    out: Path | None,
    jobs: int | None,
    data: Path | None,
) -> None:
    """Print the scorecard: every network over its null in the measures of five papers, a star where zero is excluded.

    At long and full the evidence store has the numbers. A routing of your own is trained in place of agreement's, with
    all seeds, measured and shown as a row of its own. With --grid the networks are those of the grids alone, which have
    no controls.

    A .csv has a row per cell: effect, interval (low, high), null and number of seeds, or why there is none; and what it
    is traced by: source (notebook or grid), observation (measure, version, settings), number (which of its values),
    over (which null), and runs, a file of results/observations for each seed.

    \b
    capsnb scorecard
    capsnb scorecard --routing sparse=my_routings:Sparse --out card.png
    capsnb scorecard --grid notebooks/sweeps/competition.toml --out deep.csv
    """
    from capsnb import plot
    from capsnb.evidence import scorecard as cards

    if out is not None and out.suffix not in (".png", ".svg", ".csv"):
        raise click.UsageError(f"--out {out}: a name that ends in .png, .svg or .csv is needed.")
    if routings and grids:
        raise click.UsageError(
            "--routing adds a row to notebook 08's networks, --grid shows others: give one of the two."
        )
    if routings:
        _show(routings)
    page = cards.of_recorded(grids) if grids else _trained(profile, data, jobs)
    names = [column.name for column in page.columns]
    rows = [[name, *(_cell(cells[column]) for column in names)] for name, cells in page.card.items()]
    print_columns(("", *names), rows)
    if out is not None:
        disk.make_folder(out.parent)
        with disk.replacing(out) as temporary:
            if out.suffix == ".csv":
                page.frame().to_csv(temporary)
            else:
                figure = plot.scorecard(cards.shown(page.card), page.groups, controls=page.controls)
                figure.savefig(temporary, format=out.suffix[1:], dpi=150)


def _trained(profile: str, data: Path | None, jobs: int | None) -> Any:
    """The page of notebook 08's plan, a reader's own routings trained."""
    from capsnb.evidence import plans
    from capsnb.evidence import scorecard as cards

    plan = plans.plan("08", profile, data=data)
    guests = [spec for name in plan.guests for spec in plan.specs[name]]
    if failed := plan.train(guests, jobs=jobs, tell=lambda text: click.echo(text, err=True)) if guests else []:
        raise click.ClickException(f"{len(failed)} trainings failed: {failed[0]}")
    return cards.of_sets(plan)


def _cell(cell: Any) -> str:
    found = cell.sample
    return f"{found.mean:+.2g}{'*' if cell.decided else ''}" if found.n else "none" if cell.reason else "not run"


COMMANDS = (run, report, results, scorecard)
