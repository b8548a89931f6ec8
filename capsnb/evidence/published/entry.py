"""The shape of a published number, and the two ways in which a paper's table becomes entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Cell = float | tuple[float, float] | None  # a value, a value with its printed spread, or nothing printed


@dataclass(frozen=True)
class Published:
    """One number as its source prints it.

    `spread` is what the source prints after +- (a standard deviation unless `note` says otherwise), in the source's own
    scale. `where` is a table, a figure, a section ("text, sec. 3.2"), or "computed" for a number that follows from the
    printed architecture but is not printed itself.
    """

    value: float
    spread: float | None
    unit: str
    paper: str
    where: str
    note: str = ""

    def __str__(self) -> str:
        shown = f"{self.value:,}" if isinstance(self.value, int) else f"{self.value:g}"
        spread = "" if self.spread is None else f" ± {self.spread:g}"
        return f"{shown}{spread} {self.unit}".rstrip()

    @property
    def source(self) -> str:
        """Paper and place, as a table of claims cites them."""
        return f"{self.paper}, {self.where}"


def column(
    paper: str, where: str, prefix: str, unit: str, rows: Mapping[str, Cell], note: str = ""
) -> dict[str, Published]:
    """One quantity for several variants: keys `prefix/variant`. Cells that are None are left out."""
    found = {}
    for name, cell in rows.items():
        if cell is not None:
            value, spread = cell if isinstance(cell, tuple) else (cell, None)
            found[f"{prefix}/{name}"] = Published(value, spread, unit, paper, where, note)
    return found


def grid(
    paper: str,
    where: str,
    prefix: str,
    quantities: Mapping[str, str],
    rows: Mapping[str, Sequence[Cell]],
    notes: Mapping[str, str] | None = None,
) -> dict[str, Published]:
    """A whole table: keys `prefix/quantity/variant`. `quantities` maps each column's name to its unit, in order.

    `notes` maps "quantity/variant", or a quantity alone, to a remark. A row of another length raises ValueError.
    """
    notes = notes or {}
    if unknown := notes.keys() - quantities.keys() - {f"{quantity}/{row}" for quantity in quantities for row in rows}:
        raise ValueError(f"notes of {prefix} name no cell: {sorted(unknown)}.")
    found: dict[str, Published] = {}
    for name, cells in rows.items():
        for (quantity, unit), cell in zip(quantities.items(), cells, strict=True):
            note = notes.get(f"{quantity}/{name}", notes.get(quantity, ""))
            found |= column(paper, where, f"{prefix}/{quantity}", unit, {name: cell}, note)
    return found
