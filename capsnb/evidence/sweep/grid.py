"""A grid file: settings with a value or a list of values, whose product is the cells of a sweep.

A file may end in tables [[cases]], each with a few settings of its own: the product is then made once for each case,
whose settings take the place of the product's. So one thing can be changed at a time.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from capsnb.evidence.sweep.cell import Cell

SETTINGS = {field.name: get_type_hints(Cell)[field.name] for field in dataclasses.fields(Cell)}


def read_grid(file: str | Path) -> list[Cell]:
    """The cells of a grid file (TOML), in order: the setting that stands last in the file changes fastest.

    Raises FileNotFoundError, or ValueError with one sentence: no TOML, an unknown setting, a wrong type or value, an
    empty list.
    """
    try:
        table = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are both
        raise ValueError(f"{file} is not TOML: {error}.") from error
    try:
        return expand(table)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def expand(table: Mapping[str, Any]) -> list[Cell]:
    """The product of a grid's settings. A list varies a setting; one that is itself a list takes a list of lists.

    "cases": a list of tables of single values, each of which stands in for the grid's; they change slowest.
    """
    values = {name: _values(name, given) for name, given in table.items() if name != "cases"}
    product = [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]
    return [Cell(**(chosen | case)) for case in _cases(table.get("cases", [{}])) for chosen in product]


def varied(cells: list[Cell]) -> list[str]:
    """The settings in which cells differ."""
    return [name for name in SETTINGS if len({getattr(cell, name) for cell in cells}) > 1]


def _cases(given: Any) -> list[dict[str, Any]]:
    if not isinstance(given, list) or not given or not all(isinstance(case, dict) for case in given):
        raise ValueError("cases are tables: write [[cases]] and below it the settings of one case.")
    found = [{name: _values(name, value) for name, value in case.items()} for case in given]
    for name, values in (setting for case in found for setting in case.items()):
        if len(values) > 1:
            raise ValueError(f"{name} has {len(values)} values in a case: it takes one; lists stand above the cases.")
    return [{name: values[0] for name, values in case.items()} for case in found]


def _values(name: str, given: Any) -> list[Any]:
    if name not in SETTINGS:
        close = difflib.get_close_matches(name, SETTINGS, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(SETTINGS)}."
        raise ValueError(f"there is no setting {name!r}; {hint}")
    if given == []:
        raise ValueError(f"{name} is an empty list, so the grid has no cell.")
    several = isinstance(given, list)
    if several and get_origin(SETTINGS[name]) is tuple:
        several = any(isinstance(value, list) for value in given)
    return [_typed(name, value) for value in (given if several else [given])]


def _typed(name: str, value: Any) -> Any:
    hint = SETTINGS[name]
    kinds = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if isinstance(value, list) and get_origin(hint) is tuple and value and all(type(part) is int for part in value):
        if min(value) < 1:
            raise ValueError(f"{name} = {value}: each number must be at least 1.")
        return tuple(value)
    if float in kinds and type(value) is int:
        value = float(value)  # 1 and 1.0 are one cell
    if type(value) not in kinds or (type(value) is float and not math.isfinite(value)):
        raise ValueError(f"{name} = {value!r}: {_wanted(hint)} is needed.")
    return value


def _wanted(hint: Any) -> str:
    if get_origin(hint) is tuple:
        return "a list of whole numbers, or a list of such lists,"
    names = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a string"}
    kinds = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return names[kinds[0]]
