"""What is decided and what is open: counts of claims, the papers' and ours apart, and what would bring the rest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import nbformat

from capsnb.evidence import records
from capsnb.evidence.notebooks import PATTERN, duration, outputs
from capsnb.evidence.tables import MIME, current
from capsnb.evidence.verdicts import MOST_SEEDS, OPEN, STILL
from capsnb.measure.observations import store_folder

WHOSE = {"paper": "The papers' claims", "ours": "Our own hypotheses"}
COLUMNS = ("notebook", "claim", "of", "why it is open", "seeds", "seeds asked for", "cost here")
Table = list[tuple[str, ...]]


def rows(notebook: nbformat.NotebookNode) -> list[dict[str, Any]]:
    """The rows of the claims tables that a notebook displayed, in today's words."""
    return [current(row) for data in outputs(notebook) for row in data.get(MIME, ())]


def displayed(notebooks: Path) -> list[dict[str, Any]]:
    """The rows of the claims tables of a folder's notebooks."""
    return [row for path in sorted(notebooks.glob(PATTERN)) for row in rows(nbformat.read(path, as_version=4))]


def why(row: Mapping[str, Any], run: str = "recorded ") -> str:
    """Why a claim is open, in a few words that are the same for many claims."""
    reason = row[f"{run}reason"]
    if row[f"{run}verdict"] == "not run" or reason.startswith("not run"):
        return "not run"
    if re.match(r"\d+ of (at least )?\d+ (declared )?seeds", reason):
        return "too few seeds"
    return "no spread over seeds" if STILL in reason else "interval too wide"


def tally(rows: Iterable[Mapping[str, Any]], run: str = "recorded ") -> dict[str, dict[str, Counter[str]]]:
    """Claims by whose they are, then decided, met by null or undecided; each by its word, or by why it is open."""
    found = {whose: {name: Counter() for name in ("decided", "undecided", "met by null")} for whose in WHOSE}
    for row in rows:
        word = row[f"{run}verdict"]
        name = "undecided" if word in OPEN else word if word == "met by null" else "decided"
        found[row["of"]][name][why(row, run) if word in OPEN else word] += 1
    return found


def counted(rows: Iterable[Mapping[str, Any]], run: str = "recorded ") -> list[str]:
    """The tally as a sentence for the papers' claims and one for ours."""
    lines = []
    for whose, found in tally(rows, run).items():
        total = sum(each.total() for each in found.values())
        shown = []
        for name, words in found.items():
            inner = ", ".join(f"{number} {word}" for word, number in words.most_common() if word != name)
            shown.append(f"{words.total()} {name}" + (f" ({inner})" if inner else ""))
        if total:
            lines.append(f"{WHOSE[whose]}: {total}; {', '.join(shown)}.")
    return lines


def open_claims(notebooks: Path, numbers: Sequence[str] = (), *, cost: bool = False) -> Table:
    """The claims that the record leaves open, a line each as `COLUMNS` says. cost: forecast it by trying steps."""
    lines = []
    for row in displayed(notebooks):
        if row["recorded verdict"] in OPEN and (not numbers or row["notebook"] in numbers):
            seeds, asked = (str(row[f"recorded {name}"] or "-") for name in ("n", "asked"))
            spent = _cost(row, seeds, asked) if cost else "-"
            lines.append((row["notebook"], row["claim"], row["of"], why(row), seeds, asked, spent))
    return lines


def unobserved(notebooks: Path, numbers: Sequence[str] = (), *, cost: bool = False) -> Table:
    """Plans and grids whose networks the evidence store lacks: name, how many, of how many, and the cost here."""
    from capsnb.evidence import plans, sweep  # import torch
    from capsnb.training.runs import run_name

    declared = {}
    for number in plans.planned(notebooks):
        for profile in plans.RECORDED if not numbers or number in numbers else ():
            declared[f"{number} at {profile}"] = plans.plan(number, profile).all_specs()
    for file in sorted((notebooks / "sweeps").glob("*.toml")) if not numbers else ():
        declared[file.stem] = sweep.read_grid(file).specs
    lines = []
    for name, specs in declared.items():
        specs = list(dict.fromkeys(specs))
        if missing := [spec for spec in specs if not (store_folder() / f"{run_name(spec)}.jsonl").exists()]:
            lines.append((name, str(len(missing)), str(len(specs)), _forecast(tuple(missing)) if cost else "-"))
    return lines


def _cost(row: Mapping[str, Any], seeds: str, asked: str) -> str:
    """Of the seeds that are missing, or of one where nobody knows how many: "about 2 hours", "40 min a seed"."""
    from capsnb.evidence import plans  # imports torch

    protocols = [protocol for protocol, _ in records.recorded(row["notebook"]).rows]
    profile = protocols[-1].get("profile") if protocols else "long"
    # a seed that nobody has trained yet
    specs = plans.plan(row["notebook"], profile, seed=MOST_SEEDS, seeds=1).specs
    # a notebook may call what its plan calls size/variant by the variant alone
    named = {
        v: [spec for name, (spec,) in specs.items() if name == v or name.endswith(f"/{v}")] for v in row["variants"]
    }
    if not named or any(len(found) != 1 for found in named.values()):
        return "-"
    more = int(asked) - int(seeds) if asked.isdecimal() and seeds.isdecimal() else 0
    spent = _forecast(tuple(spec for (spec,) in named.values()), more or 1)
    return spent if more or spent == "-" else f"{spent} a seed"


@cache
def _forecast(specs: tuple[Any, ...], times: int = 1) -> str:
    from capsnb.training import runs  # imports torch

    try:
        return duration(times * sum(runs.forecast(specs)))
    except (ValueError, FileNotFoundError):  # no images, say
        return "-"


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ("---",) * len(head), *lines])
