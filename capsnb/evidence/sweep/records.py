"""Sweeps that were run and kept with the project, and one number per network for a map over its grid."""

from __future__ import annotations

from pathlib import Path

from capsnb.evidence.sweep.table import Row, read
from capsnb.places import project


def recorded(name: str, root: str | Path | None = None) -> list[Row]:
    """The rows of a sweep that was kept, results/sweeps/NAME.jsonl, failed networks left out; none where it is not.

    root: the folder of the files. Raises ValueError for a file that no sweep wrote.
    """
    file = Path(root or project() / "results" / "sweeps") / f"{name}.jsonl"
    return [row for row in read(file) if row["error"] is None] if file.exists() else []


def hidden_means(row: Row) -> dict[str, float]:
    """Of one network: living hidden capsules and test accuracy in percent, dyr, and what a rotation leaves in percent.

    dyr is the mean over routed layers, "kept %" that over hidden layers of `viewpoint.share_kept`. A network without a
    hidden layer has no hidden capsule that could die: its "living %" is nan, and so is "kept %" where all are silent.
    """
    hidden = row["alive"][1:-1]
    kept = [share for share in row["kept"][1:-1] if share is not None]
    return {
        "living %": 100 * _mean(hidden) / row["capsules"],
        "dyr": _mean(row["dyr"]),
        "accuracy %": 100 * row["test accuracy"],
        "kept %": 100 * _mean(kept),
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
