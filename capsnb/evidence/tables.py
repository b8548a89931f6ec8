"""The table a notebook ends with: published, recorded run, this run, and the verdict on each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from capsnb.evidence.published import Published, lookup
from capsnb.evidence.records import recorded
from capsnb.evidence.rules import Difference, Equivalence, Measured, Rule
from capsnb.evidence.verdicts import Verdict

MIME = "application/vnd.capsnb.claims+json"
RUN = "application/vnd.capsnb.run+json"
COLUMNS = ("claim", "published", "recorded run", "recorded verdict", "this run", "verdict")
# sign and colour of a verdict: the sign carries it alone, the colours are told apart in every kind of colour vision
MARKS = {
    "reproduced": ("✓", "#0173b2"),
    "direction only": ("≈", "#029e73"),
    "not reproduced": ("✗", "#d55e00"),
    "undecided": ("?", "#949494"),
    "not run": ("○", "#949494"),
}
CELL = 'style="text-align:left;vertical-align:top;padding:.45em .7em;max-width:24em"'


@dataclass(frozen=True)
class Claim:
    """One sentence of a paper, the numbers it rests on, and the rule that decides, all stated before measuring.

    published: keys of `published` in the order of the rule's variants, one key alone, or () for a statement
    without a number; then `source` says where it stands. Keys unknown, or too few or many, raise ValueError.
    """

    name: str
    text: str
    rule: Rule
    published: str | tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        if len(self.numbers) not in self.rule.published:
            allowed = " or ".join(map(str, self.rule.published))
            kind = type(self.rule).__name__
            raise ValueError(f"Claim {self.name!r} has {len(self.numbers)} published keys; {kind} takes {allowed}.")

    @property
    def numbers(self) -> tuple[Published, ...]:
        keys = (self.published,) if isinstance(self.published, str) else self.published
        return tuple(lookup(key) for key in keys)

    @property
    def cited(self) -> str:
        """Paper and place of every number, each once; `source` where given."""
        return self.source or "; ".join(dict.fromkeys(number.source for number in self.numbers))


def verdict(claim: Claim, measured: Measured | None, reason: str = "not in this profile") -> Verdict:
    """Judge measured values (variant -> one value per seed) by the claim's rule.

    Where values of a needed variant are missing the verdict is "not run", with `reason`. Variants that are compared
    seed by seed but differ in their number of seeds raise ValueError.
    """
    given = (measured or {}).items()
    measured = {name: values for name, values in given if isinstance(values, int | float) or len(values)}
    missing = [name for name in claim.rule.variants if name not in measured]
    present = len(claim.rule.variants) - len(missing)
    if present < (2 if getattr(claim.rule, "partial", False) else len(claim.rule.variants)):
        return Verdict("not run", f"{reason} (missing: {', '.join(missing)})" if present else reason)
    return claim.rule.judge(measured, [number.value for number in claim.numbers])


def table(
    notebook: str,
    claims: Iterable[Claim],
    measured: Mapping[str, Measured],
    *,
    not_run: str | Mapping[str, str] = "not in this profile",
    settings: Mapping[str, Any] | None = None,
    made: Mapping[str, Any] | None = None,
    root: Path | str | None = None,
) -> ClaimsTable:
    """Judge every claim of a notebook on this run and on the record; the last expression of a notebook.

    measured: claim's name -> variant -> one value per seed; a name that no claim has raises ValueError.
    not_run: why claims without values were not run (profile, data), for all or by claim. root: the records' folder.
    settings, made: what names this run in a record (`Plan.protocol()`) and what made it (`Plan.made()`); with both,
    `capsnb results record` can keep it.
    """
    claims = list(claims)
    names = [claim.name for claim in claims]
    if unknown := set(measured) - set(names):
        raise ValueError(f"Values for {sorted(unknown)}, but the claims are: {', '.join(names)}.")
    history = recorded(notebook, root)
    rows = []
    for claim in claims:
        why = not_run if isinstance(not_run, str) else not_run.get(claim.name, "not in this profile")
        now = verdict(claim, measured.get(claim.name), why)
        then = verdict(claim, history.measured(claim.name), "no run recorded")
        rows.append(
            {
                "notebook": notebook,
                "claim": claim.name,
                "text": claim.text,
                "rule": claim.rule.text,
                "source": claim.cited,
                "published": quote(claim),
                "recorded run": then.shown,
                "recorded verdict": then.verdict,
                "recorded reason": then.reason,
                "recorded origin": history.origin(claim.name),
                "this run": now.shown,
                "verdict": now.verdict,
                "reason": now.reason,
                "values": _by_seed(measured.get(claim.name, {})),
            }
        )
    return ClaimsTable(tuple(rows), dict(settings or {}), dict(made or {}))


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

    settings, made: of the run, for its record; a second output of type `RUN` carries them.
    """

    rows: tuple[Mapping[str, Any], ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        lines = []
        for row in self.rows:
            lines.append(f"{MARKS[row['verdict']][0]} {row['claim']}: {row['verdict']} ({row['reason']})")
            lines.append(f"    published {row['published'] or '-'} | this run {row['this run'] or '-'}")
            lines.append(f"    recorded run {row['recorded run'] or '-'}: {row['recorded verdict']}")
        return "\n".join(lines)

    def _repr_mimebundle_(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> dict[str, Any]:
        bundle = {"text/plain": repr(self), "text/html": self.html(), MIME: [dict(row) for row in self.rows]}
        # not at profiles that are never recorded: a date would make each execution's file another one
        return bundle | ({RUN: {"settings": dict(self.settings), "made": dict(self.made)}} if self.made else {})

    def html(self) -> str:
        """The table with its own few styles, so that it looks the same in a notebook and in the report."""
        head = "".join(f"<th {CELL}>{name}</th>" for name in COLUMNS)
        body = "".join(f"<tr>{''.join(f'<td {CELL}>{cell}</td>' for cell in _cells(row))}</tr>" for row in self.rows)
        style = 'class="capsnb-claims" style="border-collapse:collapse;font-size:90%"'
        return f"<table {style}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(row: Mapping[str, Any]) -> list[str]:
    def badge(word: str, reason: str) -> str:
        sign, colour = MARKS[word]
        return f'<b style="color:{colour};white-space:nowrap">{sign} {word}</b>{_small(reason)}'

    return [
        f"<b>{escape(row['claim'])}</b>{_small(row['text'])}{_small('Rule: ' + row['rule'])}",
        escape(row["published"] or "-") + _small(row["source"]),
        escape(row["recorded run"] or "-") + _small(row["recorded origin"]),
        badge(row["recorded verdict"], row["recorded reason"]),
        escape(row["this run"] or "-"),
        badge(row["verdict"], row["reason"]),
    ]


def _small(text: str) -> str:
    return f'<br><span style="opacity:.75;font-size:88%">{escape(text)}</span>' if text else ""
