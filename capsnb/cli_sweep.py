"""`capsnb sweep`: a grid of networks, trained and measured in parallel."""

from pathlib import Path

import click

# those of capsnb.training.backends, whose package imports torch
BACKENDS = ("processes", "dask", "ray")


@click.command()
@click.argument("grid", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--jobs", type=click.IntRange(min=1), help="Networks at a time.  [default: one per core, one on a GPU]")
@click.option("--backend", type=click.Choice(BACKENDS), default="processes", show_default=True)
@click.option("--address", help="Of a running dask scheduler or ray cluster that does the work.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="[default: build/sweeps/GRID.jsonl]")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the image sets, in place of CAPSNB_DATA.",
)
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
