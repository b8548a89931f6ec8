"""The table a notebook ends with: published, recorded run, this run, and the verdict on each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

from capsnb.evidence.claims import EXPLAINING, NULL, Claim, kind, verdict
from capsnb.evidence.records import named, recorded
from capsnb.evidence.rules import Difference, Equivalence, Measured
from capsnb.evidence.verdicts import DECIDED, OURS, Verdict, holm
from capsnb.installation import project

MIME = "application/vnd.capsnb.claims+json"
RUN = "application/vnd.capsnb.run+json"
COLUMNS = (
    "claim",
    "of",
    "published",
    "recorded run",
    "recorded verdict",
    "printed size",
    "null",
    "this run",
    "verdict",
)
RUNS = ("recorded ", "")  # before what a row says of a verdict, `SAID`: of the record, of this run
SAID = ("verdict", "reason", "size", "null", "n", "asked")
# sign and colour of a verdict: the sign carries it alone, the colours are told apart in every kind of colour vision
YES, NO, PARTLY, NONE = "#0173b2", "#d55e00", "#029e73", "#949494"
MARKS = {
    "reproduced": ("✓", YES),
    "supported": ("✓", YES),
    "direction only": ("≈", PARTLY),
    "published size excluded": ("≠", PARTLY),
    "not reproduced": ("✗", NO),
    "refuted": ("✗", NO),
    "met by null": ("∅", NONE),
    "undecided": ("?", NONE),
    "not run": ("○", NONE),
}
LOST = "†"  # does not survive Holm's correction
CELL = 'style="text-align:left;vertical-align:top;padding:.45em .7em;max-width:24em"'


def table(
    notebook: str,
    claims: Iterable[Claim],
    measured: Mapping[str, Measured],
    *,
    nulls: Mapping[str, Measured] | None = None,
    explaining: Mapping[str, Measured] | None = None,
    images: int | Mapping[str, int] | None = None,
    counted: str = "test images",
    declared: int | Mapping[str, int] | None = None,
    not_run: str | Mapping[str, str] = "not in this profile",
    stored: bool = False,
    kept: Mapping[str, Measured] | None = None,
    far: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    made: Mapping[str, Any] | None = None,
    root: Path | str | None = None,
    committed: Path | None = None,
) -> ClaimsTable:
    """Judge every claim of a notebook on this run and on the record; the last expression of a notebook.

    measured: claim's name -> variant -> one value per seed; a name that no claim has raises ValueError.
    nulls, explaining: the same, measured in the variant's place: of the untrained twin, say, and of what a claim's
    `explained` names. images, declared: those of a claim (`Claim`) that has none of its own, for all or by name.
    stored: the values come from the evidence store (`Plan.recorded`): they are the recorded run, of this run there is
    nothing to show; claims without values fall back on what was recorded of them before. Where they do not, the
    recorded run is what the notebook as it is committed shows of the store, so that a page says one thing of it.
    kept: in a notebook that trains, what the store says of claims that rest on grids alone: their recorded run,
    whatever the committed notebook shows of them.
    far: why claims are not judged whose networks are too far from the paper's to speak of it; neither is their record.
    committed: the folder of those notebooks, the project's by default, unless the records have a folder of their own.
    not_run: why claims without values were not run (profile, data), for all or by claim. root: the records' folder.
    settings, made: what names this run in a record (`Plan.protocol()`) and what made it (`Plan.made()`); with both,
    `capsnb results record` can keep it.
    """
    claims = [
        replace(
            claim,
            images=_own(claim, "images", images),
            counted=claim.counted if claim.images else counted,
            declared=_own(claim, "declared", declared),
        )
        for claim in claims
    ]
    names = [claim.name for claim in claims]
    kept, far = kept or {}, far or {}
    if unknown := {*measured, *kept, *far, *(nulls or {}), *(explaining or {})} - set(names):
        raise ValueError(f"Values for {sorted(unknown)}, but the claims are: {', '.join(names)}.")
    marked = (("", measured), (NULL, nulls or {}), (EXPLAINING, explaining or {}))
    history = recorded(notebook, root)
    rows: list[dict[str, Any]] = []
    found: dict[str, list[Verdict]] = {run: [] for run in RUNS}
    fresh: set[str] = set()
    for claim in claims:
        away = claim.name in far
        why = not_run if isinstance(not_run, str) else not_run.get(claim.name, "not in this profile")
        why = far.get(claim.name, why)
        given = () if away else marked
        values = {f"{mark}{v}": each for mark, of in given for v, each in of.get(claim.name, {}).items()}
        now = verdict(claim, values, why)
        earlier = replace(claim, declared=None) if stored else claim  # an earlier plan declared its own number of seeds
        before = {} if away else history.measured(claim.name)
        then = verdict(earlier, before, why if stored or away else "no run recorded")
        origin = "" if away else history.origin(claim.name)
        if not stored and not away and claim.name in kept:
            then, origin = verdict(claim, kept[claim.name], "no run recorded"), "evidence store"
            # what was committed before these were run must not hide them
            fresh |= {claim.name} if then.verdict != "not run" else set()
        if stored:
            if values:
                then, origin = now, named(settings or {}, made) if made else "evidence store"
            now = then
        rows.append(
            {
                "notebook": notebook,
                "claim": claim.name,
                "text": claim.text,
                "rule": claim.rule.text + _conditions(claim),
                "variants": list(claim.rule.variants),
                "source": claim.cited,
                "of": claim.kind,
                "published": quote(claim),
                "recorded run": then.shown,
                "recorded origin": origin,
                "this run": "" if stored else now.shown,
                "values": _by_seed(values),
            }
        )
        for run, each in zip(RUNS, (then, now), strict=True):
            found[run].append(each)
            rows[-1] |= {f"{run}{name}": getattr(each, name) for name in SAID}
    for run, verdicts in found.items():
        for row, survives in zip(rows, holm(verdicts), strict=True):
            row[f"{run}holm"] = survives
    shown = {} if stored or (root and not committed) else _of_store(notebook, committed)
    rows = [row if row["claim"] in fresh else row | shown.get(row["claim"], {}) for row in rows]
    return ClaimsTable(tuple(rows), dict(settings or {}), dict(made or {}), stored)


def _own(claim: Claim, name: str, given: int | Mapping[str, int] | None) -> int | None:
    return getattr(claim, name) or (given.get(claim.name) if isinstance(given, Mapping) else given)


def _conditions(claim: Claim) -> str:
    images = f"; of {claim.images:,} {claim.counted}" if claim.images else ""
    return images + (f"; {claim.declared} seeds declared" if claim.declared else "")


def _of_store(notebook: str, folder: Path | None) -> dict[str, dict[str, Any]]:
    """What the committed notebook says of the store: claim -> the recorded columns; none where it trained itself."""
    if folder is None:
        with suppress(FileNotFoundError):
            folder = project() / "notebooks"
    path = next(iter(sorted(folder.glob(f"{notebook}_*.ipynb"))), None) if folder else None
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"] if path else []
    data = [output.get("data", {}) for cell in cells for output in cell.get("outputs", ())]
    found = [row for each in data for row in each.get(MIME, ())]
    if any(row["this run"] for row in found):
        return {}
    return {row["claim"]: {name: row[name] for name in row if name.startswith("recorded ")} for row in found}


def current(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as this version writes it: of an earlier one, in today's words and with nothing where it knew nothing."""
    if "of" in row:
        return dict(row)
    whose = kind(row.get("source", ""))
    words = {f"{run}verdict": row[f"{run}verdict"] for run in RUNS if f"{run}verdict" in row}
    if whose == "ours":
        words = {name: OURS.get(word, word) for name, word in words.items()}
    unknown = {f"{run}{name}": "" for run in RUNS for name in SAID[2:]}
    return {**row, **unknown, **words, "of": whose, "variants": [], "recorded holm": None, "holm": None}


def _by_seed(measured: Measured) -> dict[str, dict[str, float]]:
    # only values that name their seeds can join a record: bare sequences and closed forms stay out
    return {
        variant: {str(seed): float(value) for seed, value in values.items()}
        for variant, values in measured.items()
        if isinstance(values, Mapping)
    }


def quote(claim: Claim) -> str:
    """The published numbers as a table cell: one, or each variant's and, where two are compared, the difference."""
    numbers = claim.numbers
    if len(numbers) < 2:
        return "".join(map(str, numbers))
    named = zip(claim.rule.variants, numbers, strict=True)
    shown = ", ".join(f"{name} {number.value:g}" for name, number in named) + f" {numbers[0].unit}".rstrip()
    compared = isinstance(claim.rule, Difference | Equivalence)
    return f"{shown} ({numbers[0].value - numbers[1].value:+.4g})" if compared else shown


@dataclass(frozen=True)
class ClaimsTable:
    """Rows ready to be displayed; the report collects them from executed notebooks under the type `MIME`.

    settings, made: of the run, for its record; a second output of type `RUN` carries them. stored: the values are those
    of the evidence store, so that there is no column for this run.
    """

    rows: tuple[Mapping[str, Any], ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)
    stored: bool = False

    def __repr__(self) -> str:
        lines = []
        for row in self.rows:
            sign, _, word = _marked(row, "").partition(" ")
            lines.append(f"{sign} {row['claim']} ({row['of']}): {word} ({row['reason']})")
            run = "recorded run" if self.stored else "this run"
            lines.append(f"    published {row['published'] or '-'} | {run} {row[run] or '-'}")
            if not self.stored:
                lines.append(f"    recorded run {row['recorded run'] or '-'}: {_marked(row, 'recorded ')}")
            sizes, nulls = (_both(row, name) for name in ("size", "null"))
            lines.append(f"    printed size {sizes} | null {nulls}")
        return "\n".join([*lines, *self.footer()])

    def footer(self) -> list[str]:
        """Of how many decided claims the correction for many claims on one page leaves the verdict."""
        lines = []
        for run, name in list(zip(RUNS, ("recorded run", "this run"), strict=True))[: 1 if self.stored else 2]:
            kept = [row[f"{run}holm"] for row in self.rows if row[f"{run}verdict"] in DECIDED]
            tested = sum(row[f"{run}holm"] is not None for row in self.rows)
            if decided := len([each for each in kept if each is not None]):
                sign = f"; {LOST} marks the others" if kept.count(False) else ""
                lines.append(
                    f"{name}: {kept.count(True)} of {decided} tested and decided claims survive Holm's correction over "
                    f"the {tested} that were tested{sign}"
                )
        return lines

    def _repr_mimebundle_(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> dict[str, Any]:
        bundle = {"text/plain": repr(self), "text/html": self.html(), MIME: [dict(row) for row in self.rows]}
        # not at profiles that are never recorded: a date would make each execution's file another one
        return bundle | ({RUN: {"settings": dict(self.settings), "made": dict(self.made)}} if self.made else {})

    def html(self) -> str:
        """The table with its own few styles, so that it looks the same in a notebook and in the report."""
        columns = len(COLUMNS) - 2 * self.stored  # those of this run are the last
        head = "".join(f"<th {CELL}>{name}</th>" for name in COLUMNS[:columns])
        cells = [_cells(row)[:columns] for row in self.rows]
        body = "".join(f"<tr>{''.join(f'<td {CELL}>{cell}</td>' for cell in each)}</tr>" for each in cells)
        style = 'class="capsnb-claims" style="border-collapse:collapse;font-size:90%"'
        foot = "".join(f'<p style="font-size:90%">{escape(line)}.</p>' for line in self.footer())
        return f"<table {style}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{foot}"


def _marked(row: Mapping[str, Any], run: str) -> str:
    word = row[f"{run}verdict"]
    return f"{MARKS[word][0]} {word}" + LOST * (row[f"{run}holm"] is False and word in DECIDED)


def _both(row: Mapping[str, Any], name: str) -> str:
    """What the record and this run say, once where they say the same."""
    then, now = (row[f"{run}{name}"] or "-" for run in RUNS)
    return then if now in ("-", then) else f"this run: {now}" if then == "-" else f"{then}; this run: {now}"


def _cells(row: Mapping[str, Any]) -> list[str]:
    def badge(run: str) -> str:
        colour = MARKS[row[f"{run}verdict"]][1]
        return f'<b style="color:{colour};white-space:nowrap">{_marked(row, run)}</b>{_small(row[f"{run}reason"])}'

    return [
        f"<b>{escape(row['claim'])}</b>{_small(row['text'])}{_small('Rule: ' + row['rule'])}",
        row["of"],
        escape(row["published"] or "-") + _small(row["source"]),
        escape(row["recorded run"] or "-") + _small(row["recorded origin"]),
        badge("recorded "),
        escape(_both(row, "size")),
        escape(_both(row, "null")),
        escape(row["this run"] or "-"),
        badge(""),
    ]


def _small(text: str) -> str:
    return f'<br><span style="opacity:.75;font-size:88%">{escape(text)}</span>' if text else ""
