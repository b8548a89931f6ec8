"""What a notebook's recorded runs measured for its claims: observations of all runs of a plan together.

A record is the files `claims-NN-*.jsonl` of the evidence store, one for each protocol (profile and the spec of every
variant): each line holds the values of a claim, variant -> seed -> value, and what made them. It grows: nothing earlier
is lost. Values of one claim and variant join as long as what the variant trains is the same; after a change only the
newest are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from capsnb.evidence.claims import EXPLAINING, NULL
from capsnb.measure.observations import Observation, read, store_folder, write
from capsnb.training.identity import digest
from capsnb.training.provenance import circumstances

CLAIM = "claim"  # the measure's name
Row = tuple[Mapping[str, Any], Observation]  # the protocol, and the values of one claim


@dataclass(frozen=True)
class Record:
    """What full runs of one notebook measured, in the order it was recorded."""

    notebook: str
    rows: tuple[Row, ...] = ()

    @property
    def claims(self) -> list[str]:
        """Every claim that has values, those recorded last at the end."""
        return list(dict.fromkeys(each.settings[CLAIM] for _, each in self.rows))

    def newest(self, claim: str) -> bool:
        """Whether the claim was measured when the notebook was recorded last."""
        times = {each.settings[CLAIM]: _time(each) for _, each in self.rows}
        return times.get(claim) == max(times.values(), default=None)

    def measured(self, claim: str) -> dict[str, dict[int, float]]:
        """variant -> seed -> value, of the newest protocol that has the variant."""
        found: dict[str, dict[int, float]] = {}
        for _, values in self._counted(claim):
            for variant, by_seed in values.items():
                found[variant] = by_seed | found.get(variant, {})
        return found

    def origin(self, claim: str) -> str:
        """Where the claim's values come from: "2026-03-01, NVIDIA H100, profile full, code 1a2b3c4", or "".

        Values that joined those of an earlier run name it after the newest: "...; also 2026-02-01, ...".
        """
        return "; also ".join(dict.fromkeys(named(row[0], row[1].made) for row, _ in self._counted(claim)))

    def _counted(self, claim: str) -> Iterator[tuple[Row, dict[str, dict[int, float]]]]:
        """Each recording whose values of the claim count, the newest first, without those a newer one stands in for."""
        newest: dict[str, Any] = {}
        seen: dict[str, set[int]] = {}
        for protocol, each in reversed(self.rows):
            if each.settings[CLAIM] != claim:
                continue
            counted = {}
            for variant, values in each.values.items():
                own = _protocol_of(variant, protocol)
                if newest.setdefault(variant, own) == own:
                    known = seen.setdefault(variant, set())
                    counted[variant] = {int(s): value for s, value in values.items() if int(s) not in known}
                    known.update(counted[variant])
            if any(counted.values()):
                yield (protocol, each), counted


def recorded(notebook: str, root: Path | str | None = None) -> Record:
    """The record of a notebook ("05"), empty when nothing has been recorded. A damaged file raises ValueError."""
    rows: list[Row] = []
    for file in sorted(_folder(root).glob(f"claims-{_number(notebook)}-*.jsonl")):
        header, found = read(file)
        if "protocol" not in header or not all(set(each.settings) == {CLAIM} for each in found):
            raise ValueError(f"{file} holds no values of claims; restore it from version control.")
        for each in found:
            _check(file, each)
        rows += [(header["protocol"], each) for each in found]
    return Record(notebook, tuple(sorted(rows, key=lambda row: _time(row[1]))))


def notebooks(root: Path | str | None = None) -> list[str]:
    """Numbers of the notebooks that have a record."""
    return sorted({file.name.split("-")[1] for file in _folder(root).glob("claims-*-*.jsonl")})


def _check(file: Path, values: Observation) -> None:
    for variant, by_seed in values.values.items():
        if not isinstance(by_seed, Mapping) or not all(
            seed.isdigit() and isinstance(value, int | float) for seed, value in by_seed.items()
        ):
            claim = f"{values.settings[CLAIM]} / {variant}"
            raise ValueError(f"{file}: {claim} is not a mapping of seeds to numbers; restore it from version control.")


def record(
    notebook: str,
    results: Mapping[str, Mapping[str, Sequence[float] | Mapping[int, float]]],
    *,
    seeds: Sequence[int],
    settings: Mapping[str, Any],
    device: str,
    made: Mapping[str, Any] | None = None,
    root: Path | str | None = None,
) -> Path:
    """Add measured values (claim -> variant -> one value per seed) to the notebook's record and return its file.

    settings: the protocol that names the run (profile, specs), JSON types only. device: in words ("NVIDIA H100").
    made: code, versions and date of the run where it was not made just now, as `circumstances` gives them.
    Values that do not match `seeds`, or are not finite, raise ValueError and leave the file as it was.
    """
    protocol = json.loads(json.dumps(dict(settings), allow_nan=False))
    recorded_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    provenance = {**circumstances(), **(made or {}), "device": device, "recorded": recorded_at}
    found = [
        Observation(
            CLAIM,
            settings={CLAIM: claim},
            values={name: _by_seed(f"{claim} / {name}", each, seeds) for name, each in variants.items()},
            made=provenance,
        )
        for claim, variants in results.items()
    ]
    key = digest(protocol)
    file = _folder(root) / f"claims-{_number(notebook)}-{key}.jsonl"
    write(file, {"run": key, "notebook": notebook, "protocol": protocol}, found, joined=_joined)
    return file


def _joined(earlier: Observation, newer: Observation) -> Observation:
    """Values of the same runs that were recorded in two goes: a seed's newer value stands in for its earlier one."""
    names = dict.fromkeys((*earlier.values, *newer.values))
    values = {name: {**earlier.values.get(name, {}), **newer.values.get(name, {})} for name in names}
    return replace(newer, values=values)


def _time(values: Observation) -> tuple[str, str]:
    """When they were made, then when recorded, which earlier records do not say."""
    return values.made["date"], values.made.get("recorded", "")


def _folder(root: Path | str | None) -> Path:
    return store_folder() if root is None else Path(root)


def _number(notebook: str) -> str:
    if not notebook.isalnum():
        raise ValueError(f"{notebook!r} names no notebook: use its number, as in '05'.")
    return notebook


def named(protocol: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """Where values come from: "2026-03-01, NVIDIA H100, profile full, code 1a2b3c4"."""
    profile = f"profile {protocol['profile']}, " if "profile" in protocol else ""
    return f"{made['date'][:10]}, {made['device']}, {profile}code {made['code']}"


def _protocol_of(variant: str, protocol: Mapping[str, Any]) -> Mapping[str, Any]:
    specs = protocol.get("specs", {})
    variant = variant.removeprefix(NULL).removeprefix(EXPLAINING)  # of the same trainings
    return {**protocol, "specs": specs[variant]} if variant in specs else protocol


def _by_seed(name: str, values: Sequence[float] | Mapping[int, float], seeds: Sequence[int]) -> dict[str, float]:
    if not isinstance(values, Mapping):
        if len(values) != len(seeds):
            raise ValueError(f"{name} has {len(values)} values for {len(seeds)} seeds: a record needs one per seed.")
        values = dict(zip(seeds, values, strict=True))
    found = {str(int(seed)): float(value) for seed, value in values.items()}
    if bad := [seed for seed, value in found.items() if not abs(value) < float("inf")]:
        raise ValueError(f"{name} is {found[bad[0]]} at seed {bad[0]}: a failed run is left out of the record.")
    return found
