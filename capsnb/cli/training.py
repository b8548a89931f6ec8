"""The commands about what is trained and on what: capsnb data, runs, sweep, checkpoints, predict."""

from pathlib import Path
from typing import Any

import click

from capsnb.cli.options import DATA, JOBS, NEEDS_PROJECT, OWN_DATA, PROJECT, file, folder, print_columns

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
                "finished" if row["finished"] else "training" if row["locked"] else "unfinished",
                row["epoch"],
                None if accuracy is None else f"{accuracy:.4f}",
                f"{row['bytes'] / 1e6:.1f} MB",
                f"{datetime.datetime.fromtimestamp(row['changed']):%Y-%m-%d %H:%M}",
            ]
        )
    print_columns(("name", "state", "epoch", "validation", "size", "changed"), cells)


@runs.command()
@ROOT
@click.option("--older-than", metavar="DAYS", type=click.FloatRange(min=0), help="Last changed so long ago. [an hour]")
@click.option("--all", "every", is_flag=True, help="Finished runs too.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def prune(root: Path | None, older_than: float | None, every: bool, yes: bool) -> None:
    """Delete runs that were never finished, or with --all finished ones too; names them and asks first.

    A run that is being trained stays, and so does one that changed within the last hour unless --older-than says less.

    \b
    capsnb runs prune
    capsnb runs prune --all --older-than 30
    """
    from capsnb.training import runs as trained

    rows = trained.prunable(root, older_than_days=older_than, unfinished_only=not every)
    if rows and not yes:
        for row in rows:
            click.echo(f"{row['name']}, {'finished' if row['finished'] else 'unfinished'}, {row['bytes'] / 1e6:.1f} MB")
        click.confirm(f"Delete {'this run' if len(rows) == 1 else f'these {len(rows)} runs'}?", abort=True)
    count = trained.prune(root, [row["name"] for row in rows])
    click.echo(f"Deleted {count} run{'s' * (count != 1)}.")


@click.command()
@click.argument("grid", type=file(exists=True))
@JOBS
@click.option("--backend", type=click.Choice(BACKENDS), default="processes", show_default=True)
@click.option("--address", help="Of a running dask scheduler or ray cluster that does the work.")
@click.option("--out", type=file(), help="Of the rows, .csv or .jsonl.  [default: build/sweeps/GRID.csv]")
@OWN_DATA
@PROJECT
@click.option("--record", is_flag=True, help="Keep the observations in the project's evidence store, too.")
@click.option("--dry-run", is_flag=True, help="Only list the networks, with about how long each trains.")
def sweep(
    grid: Path,
    jobs: int | None,
    backend: str,
    address: str | None,
    out: Path | None,
    data: Path | None,
    record: bool,
    dry_run: bool,
) -> None:
    """Train and measure every network of the grid file GRID (TOML), and write a row for each.

    A grid sets parts of a base network and its training, by dotted names, to lists of values; the networks are the
    product of the lists. What is trained and measured is found again and cut runs go on, so that a killed sweep is
    simply called again. Exit status 1 when a network failed; the others are trained all the same.

    \b
    capsnb sweep notebooks/sweeps/parse_tree_small.toml --dry-run
    capsnb sweep notebooks/sweeps/parse_tree_small.toml --jobs 2
    capsnb sweep grid.toml --backend dask --address tcp://scheduler:8786
    """
    from capsnb.data import folder_of_sets
    from capsnb.evidence import sweep as sweeps
    from capsnb.training import backends

    backends.check(backend, address, jobs)
    networks, data = sweeps.read_grid(grid, data), folder_of_sets(data)
    chosen = networks.unique()
    out = out or Path("build/sweeps") / f"{grid.stem}.csv"
    more = len(networks.specs) - len(chosen.specs)
    same = f", {more} more settings train the same ones" if more else ""
    click.echo(f"{len(chosen.specs)} network{'s' * (len(chosen.specs) != 1)}{same}.")
    if dry_run:
        _list(chosen, data, jobs)
        return
    how = {"jobs": jobs, "backend": backend, "address": address, "data_dir": data}
    failed = sweeps.run(networks, out, tell=lambda text: click.echo(text, err=True), **how)
    click.echo(f"The rows are in {out}")
    if record:
        count, files = sweeps.record(chosen.specs, data_dir=data)
        click.echo(f"{count} new observations in {len(files)} files of the evidence store.")
    if failed:
        raise click.ClickException(
            f"{len(failed)} of {len(chosen.specs)} networks failed; calling it again tries them again."
        )


def _list(chosen: Any, data: Path | None, jobs: int | None) -> None:
    """Print the networks of a grid, what sets them apart, and about how long each trains."""
    from tqdm import tqdm

    from capsnb.nn.models import count_parameters
    from capsnb.training import parallel
    from capsnb.training import runs as trained

    seconds = trained.forecast(chosen.specs, data_dir=data)
    cells = []
    for settings, spec, cost in zip(chosen.settings, chosen.specs, seconds, strict=True):
        shown = [str(settings.get(name, "-")) for name in chosen.varied]
        cells.append([*shown, count_parameters(spec.model), f"{cost:.0f}" if cost else "trained"])
    print_columns((*chosen.varied, "parameters", "seconds"), cells)
    jobs = jobs or parallel.default_jobs()
    left = tqdm.format_interval(sum(seconds) / jobs)
    click.echo(f"About {left} of training, {jobs} at a time, on a machine like this one.")


@click.group("checkpoints")
def checkpoint_group() -> None:
    """The small trained models that come with capsnb.

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
@NEEDS_PROJECT
@click.argument("name")
def make(name: str) -> None:
    """Train the checkpoint NAME anew and put it in its place.

    \b
    capsnb checkpoints make capsnet-small
    """
    from capsnb.training import checkpoints

    click.echo(f"{name} is in {checkpoints.make(name)}")


@click.command()
@click.argument("pictures", metavar="IMAGE...", nargs=-1, required=True, type=file(exists=True))
@click.option("--model", required=True, help="A checkpoint's name, or the name or folder of a finished run.")
def predict(pictures: tuple[Path, ...], model: str) -> None:
    """Say what a trained network sees in picture files: the class with the highest score, and the one after it.

    A picture is padded (or stretched, where the training files were) to the proportions of the network's images,
    resized and, where the network learned light on dark, inverted if it is dark on light.

    \b
    capsnb predict seven.png --model capsnet-small
    capsnb predict photos/*.jpg --model runs/capsnet-mnist-s0-0123456789ab
    """
    from capsnb.training import use

    found = use.predict(model, pictures)
    best = found.scores.topk(2)
    cells = [
        [str(file), found.names[first], f"{high:.3f}", found.names[second], f"{low:.3f}"]
        for file, (first, second), (high, low) in zip(
            pictures, best.indices.tolist(), best.values.tolist(), strict=True
        )
    ]
    print_columns(("picture", "class", "score", "next", "its score"), cells)


COMMANDS = (image_sets, runs, sweep, checkpoint_group, predict)
