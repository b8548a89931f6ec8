"""The commands about the evidence store as a whole: capsnb campaign, audit."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import click

from capsnb.cli.options import DATA, JOBS, NEEDS_PROJECT, print_columns


@click.command()
@click.argument("numbers", metavar="[NN]...", nargs=-1)
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), required=True, help="How long it may take.")
@click.option("--profile", type=click.Choice(("long", "full")), default="long", show_default=True)
@JOBS
@DATA
@NEEDS_PROJECT
@click.option("--dry-run", is_flag=True, help="Only list what would be trained, with about how long it takes.")
def campaign(
    numbers: tuple[str, ...], hours: float, profile: str, jobs: int | None, data: Path | None, dry_run: bool
) -> None:
    """Train, measure and record the declared networks that the evidence store lacks, for so many hours.

    Declared are the seeds of the notebooks' plans (all, or those with the numbers NN) and of the grids in
    notebooks/sweeps that belong to them. The cheapest seed comes first. What is under way when the time is over, or at
    Ctrl-C, goes on at the next call. Exit status 1 when a network failed.

    \b
    capsnb campaign --hours 8 --dry-run
    capsnb campaign --hours 8 04 --profile full
    """
    if math.isnan(hours):
        raise click.UsageError("Invalid value for '--hours': a number is needed.")
    from capsnb.evidence import campaign as campaigns

    parts = campaigns.declared(numbers, profile, data_dir=data)
    todo = campaigns.rows(parts, data_dir=data)
    if dry_run:
        _list(todo, hours, jobs)
        return
    failed = campaigns.run(todo, hours, jobs=jobs, data_dir=data, tell=lambda text: click.echo(text, err=True))
    left = sum(len(part.missing(data_dir=data)) for part in parts)
    click.echo(f"{left} of {sum(len(part.specs) for part in parts)} declared networks are not recorded yet.")
    if failed:
        raise click.ClickException(f"{len(failed)} networks failed; calling it again tries them again.")


def _list(todo: list[Any], hours: float, jobs: int | None) -> None:
    """Print the rows in their order, when each would be done, and what cannot be trained here."""
    from capsnb.training import parallel

    jobs = jobs or parallel.default_jobs()
    rows = [row for row in todo if row.why is None]
    done = [total / jobs for total in itertools.accumulate(row.hours for row in rows)]
    cells = [
        [row.part.name, row.images, row.seed, len(row.specs), f"{row.hours:.2f}", f"{when:.2f}"]
        for row, when in zip(rows, done, strict=True)
    ]
    print_columns(("declared in", "images", "seed", "networks", "core-hours", "done after"), cells)
    for why in dict.fromkeys(row.why for row in todo if row.why is not None):
        out = [row for row in todo if row.why == why]
        names = ", ".join(dict.fromkeys(row.part.name for row in out))
        click.echo(f"Left out, of {names}: {sum(len(row.specs) for row in out)} networks on {out[0].images}. {why}")
    within = sum(when <= hours for when in done)
    click.echo(
        f"In {hours:g} h, {jobs} at a time, {within} of {len(rows)} rows would be done on a machine like this one; all "
        f"take about {done[-1] if done else 0:.1f} h of training."
    )


@click.command()
@click.argument("names", metavar="[RUN]...", nargs=-1)
@click.option("--sample", type=click.IntRange(min=1), default=1, show_default=True, help="How many runs, at random.")
@click.option("--seed", type=int, help="Of the choice.  [default: another one each time]")
@JOBS
@DATA
@NEEDS_PROJECT
def audit(names: tuple[str, ...], sample: int, seed: int | None, jobs: int | None, data: Path | None) -> None:
    """Train recorded runs anew, measure them again and compare: those named RUN, or some at random.

    On the same kind of CPU, with the same versions, every bit must be equal; elsewhere a difference is judged against
    the spread of the recorded seeds. Exit status 1 when an observation disagrees or a training failed.

    \b
    capsnb audit --sample 5
    capsnb audit capsnet-mnist-sample-s2-0e5256e64ef4
    """
    from capsnb.evidence import audit as audits

    chosen = audits.choose(names, sample=sample, seed=seed, data_dir=data)
    pairs, failed = audits.again(chosen, jobs=jobs, data_dir=data, tell=lambda text: click.echo(text, err=True))
    judged = audits.judge(pairs)
    cells = []
    for pair, verdict, number in judged:
        each = pair.recorded
        more = [json.dumps(each.settings)] * bool(each.settings) + [each.null] * bool(each.null)
        shown = [audits.numbers(one).get(number) for one in (each, pair.again)]
        named = ", ".join([each.measure, *more, *["watched"] * each.watched])
        cells.append([pair.run, named, number, *(None if one is None else f"{one:.6g}" for one in shown), verdict])
    print_columns(("run", "measure", "number", "recorded", "again", "verdict"), cells)
    bad = sum(each.disagrees for each in judged)
    click.echo(f"{len(judged)} observations of {len(chosen)} runs: {bad} disagree.")
    if bad or failed:
        raise click.ClickException(f"{bad} observations disagree, {len(failed)} trainings failed.")


COMMANDS = (campaign, audit)
