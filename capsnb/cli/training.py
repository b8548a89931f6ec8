"""The commands about what is trained and on what: capsnb data, runs, sweep, checkpoints."""

from pathlib import Path

import click

from capsnb.cli.options import DATA, file, folder, print_columns

# those of capsnb.training.backends, whose package imports torch
BACKENDS = ("processes", "dask", "ray")
ROOT = click.option("--root", type=folder(exists=True), help="Folder of the runs, in place of CAPSNB_RUNS.")


@click.group("data", invoke_without_command=True)
@DATA
@click.pass_context
def image_sets(ctx: click.Context, data: Path | None) -> None:
    """Show which image sets are where, with their counts.

    \b
    capsnb data
    capsnb data --data ~/datasets
    capsnb data fetch fashion-mnist
    """
    ctx.obj = data
    if ctx.invoked_subcommand is None:
        from capsnb import data as sets

        rows = sets.available(data)
        cells = [
            [row["name"], row["train"], row["validation"], row["test"], row["where"] or row["note"]] for row in rows
        ]
        print_columns(("name", "train", "validation", "test", "where"), cells)


@image_sets.command()
@click.argument("name")
@click.pass_obj
def fetch(data: Path | None, name: str) -> None:
    """Download the image set NAME into the data folder.

    \b
    capsnb data fetch mnist
    """
    from capsnb import data as sets

    click.echo(f"{name} is in {sets.fetch(name, data)}")


@click.group()
def runs() -> None:
    """Look after trained runs: the folder CAPSNB_RUNS, by default runs.

    \b
    capsnb runs list
    capsnb runs prune --older-than 30
    """


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
    print_columns(("name", "state", "epoch", "validation", "size", "changed"), cells)


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


@click.command()
@click.argument("grid", type=file(exists=True))
@click.option("--jobs", type=click.IntRange(min=1), help="Networks at a time.  [default: one per core, one on a GPU]")
@click.option("--backend", type=click.Choice(BACKENDS), default="processes", show_default=True)
@click.option("--address", help="Of a running dask scheduler or ray cluster that does the work.")
@click.option("--out", type=file(), help="[default: build/sweeps/GRID.jsonl]")
@DATA
@click.option("--dry-run", is_flag=True, help="Only list the networks, with about how long each trains.")
def sweep(
    grid: Path, jobs: int | None, backend: str, address: str | None, out: Path | None, data: Path | None, dry_run: bool
) -> None:
    """Train and measure every network of the grid file GRID (TOML), and write a row of JSON for each.

    A setting of the file has a value or a list of values; the networks are the product of the lists. Networks that the
    file of rows holds are skipped and cut runs go on, so that a killed sweep is simply called again. Exit status 1 when
    a network failed; its error is in its row, the others are trained all the same.

    \b
    capsnb sweep notebooks/sweeps/parse_tree_small.toml --dry-run
    capsnb sweep notebooks/sweeps/parse_tree_small.toml --jobs 2
    capsnb sweep grid.toml --backend dask --address tcp://scheduler:8786
    """
    from capsnb.evidence import sweep as sweeps

    cells = sweeps.read_grid(grid)
    sweeps.backends.check(backend, address, jobs)
    out = out or Path("build/sweeps") / f"{grid.stem}.jsonl"
    chosen = sweeps.plan(cells, data_dir=data)
    done = sweeps.finished(out)
    left = [task for task in chosen if task.digest not in done]
    same = f", {len(cells) - len(chosen)} more cells train the same ones" if len(chosen) < len(cells) else ""
    click.echo(f"{len(chosen)} networks{same}; {len(chosen) - len(left)} in {out}, {len(left)} to train and measure.")
    if dry_run:
        _list(chosen, done, data, jobs)
        return
    failed = sweeps.run(
        chosen,
        out,
        jobs=jobs,
        backend=backend,
        address=address,
        data_dir=data,
        tell=lambda text: click.echo(text, err=True),
    )
    click.echo(f"The rows are in {out}")
    if failed:
        raise click.ClickException(f"{failed} of {len(left)} networks failed; calling it again tries them again.")


def _list(chosen: list, done: set[str], data: Path | None, jobs: int | None) -> None:
    """Print the networks of a sweep, what sets them apart, and about how long each trains."""
    from tqdm import tqdm

    from capsnb.evidence import sweep as sweeps

    names = sweeps.varied([task.cell for task in chosen])
    header = (*names, "parameters", "seconds")
    click.echo("  ".join(f"{name:>10}" for name in header))
    total = 0.0
    for task in chosen:
        seconds = 0.0 if task.digest in done else sweeps.forecast(task, data_dir=data)
        total += seconds
        state = "done" if task.digest in done else "trained" if not seconds else f"{seconds:.0f}"
        texts = [*(str(getattr(task.cell, name)) for name in names), f"{task.parameters:,}", state]
        click.echo("  ".join(f"{text:>{max(10, len(name))}}" for text, name in zip(texts, header, strict=True)))
    jobs = jobs or sweeps.default_jobs()
    click.echo(f"About {tqdm.format_interval(total / jobs)} of training, {jobs} at a time, on a machine like this one.")


@click.group("checkpoints")
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
    print_columns(("name", "test accuracy", "code", "data"), rows)


@checkpoint_group.command()
@click.argument("name")
def make(name: str) -> None:
    """Train the checkpoint NAME anew and put it in its place.

    \b
    capsnb checkpoints make capsnet-small
    """
    from capsnb.training import checkpoints

    click.echo(f"{name} is in {checkpoints.make(name)}")


COMMANDS = (image_sets, runs, sweep, checkpoint_group)
