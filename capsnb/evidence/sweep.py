"""Sweeps: a grid of dotted overrides on a base Spec, each network trained once and measured by the same measures.

A grid file (TOML) has a base, lists of values whose product is made, and cases in which one thing changes at a time:

    measures = ["accuracy", "parse tree", "survey"]      # "survey": all that a survey has
    watch = ["life"]                                     # taken at every report of the trainings
    nulls = true                                         # the untrained networks, too
    notebook = "04"                                      # that the grid is evidence for: `capsnb campaign` trains it

    [base]
    model = "deep-rba-40"                                # of the zoo, or a table: {type = "capsnet", size = 28}
    "recipe.epochs" = 10

    [grid]
    seed = [0, 1, 2]
    "recipe.weight_decay" = [0.0, 1e-3]
    shape = [{layers = 2, "model.hidden" = [[16, 8]]}, {layers = 3, "model.hidden" = [[16, 8], [16, 8]]}]

    [[cases]]
    case = "uniform"
    "model.routing" = {type = "uniform"}                 # a registered name, or module:Class, a class of yours

A key with a dot, `model`, `data`, `recipe` or `seed` sets that part of the Spec; any other is a label, which changes
nothing and names the network in its row. A table in a list sets several keys together.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import importlib
import itertools
import json
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from capsnb.data import is_own, names, prepare
from capsnb.disk import make_folder, replacing
from capsnb.measure.observe import observe, take_all
from capsnb.measure.observe import record as record
from capsnb.measure.protocol import find
from capsnb.measure.survey import surveyed
from capsnb.nn.models import ZOO, CapsNetConfig
from capsnb.training import fit, parallel
from capsnb.training.identity import decode, encode, name_of
from capsnb.training.parallel import Failure
from capsnb.training.runs import run_name
from capsnb.training.spec import Spec

TABLES = {
    "base": dict,
    "grid": dict,
    "cases": list,
    "measures": list,
    "watch": list,
    "nulls": bool,
    "notebook": str,
}
WORDS = {dict: "table", list: "list", bool: "true or false", str: "text"}
PARTS = tuple(field.name for field in dataclasses.fields(Spec))
MEASURES = ("accuracy", "parse tree", "invariance")  # where a grid names none

Row = dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """The networks of a sweep: what each is set to (labels too), its spec; what is measured of all, and watched.

    nulls: whether the untrained networks are measured, too. notebook: the number of the one that the grid belongs to.
    """

    settings: tuple[Mapping[str, Any], ...]
    specs: tuple[Spec, ...]
    measures: tuple[str, ...] = MEASURES
    watch: tuple[str, ...] = ()
    nulls: bool = False
    notebook: str | None = None

    @property
    def varied(self) -> list[str]:
        """The settings in which networks differ."""
        names = dict.fromkeys(name for each in self.settings for name in each)
        return [name for name in names if len({json.dumps(encode(each.get(name))) for each in self.settings}) > 1]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What the runs of its networks are called (`runs.run_name`), by the images that lie here."""
        return tuple(map(run_name, self.specs))

    def unique(self) -> Grid:
        """Each network once: of settings that train the same one, the first stays."""
        kept = {spec: each for each, spec in reversed(list(zip(self.settings, self.specs, strict=True)))}
        specs = [spec for spec in dict.fromkeys(self.specs)]
        return replace(self, settings=tuple(kept[spec] for spec in specs), specs=tuple(specs))


def read_grid(file: str | Path, data: Path | None = None) -> Grid:
    """The networks of a grid file, in order: what stands last in [grid] changes fastest, cases change slowest.

    data: images of one's own, for networks whose data have no name; a folder of known sets changes nothing.
    Raises FileNotFoundError, or ValueError with one sentence: no TOML, an unknown setting, a value that it cannot have.
    """
    try:
        table = tomllib.loads(Path(file).read_text(encoding="utf-8-sig"))
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are both
        raise ValueError(f"{file} is not TOML: {error}.") from error
    try:
        if data is not None and is_own(data):
            table["base"] = {"data.name": str(data)} | table.get("base", {})
        return expand(table)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: {error}") from error


def expand(table: Mapping[str, Any]) -> Grid:
    """The networks of a grid that is given as a mapping, as a TOML file has it. Raises ValueError with one sentence."""
    for name, value in table.items():
        if name not in TABLES:
            raise ValueError(f"there is no {name!r} in a grid; there are: {', '.join(TABLES)}")
        if not isinstance(value, TABLES[name]):
            raise ValueError(f"{name} = {value!r}: a {WORDS[TABLES[name]]} is needed")
    base, axes, cases = _flat(table.get("base", {})), _dotted(table.get("grid", {})), table.get("cases", [{}])
    if not cases or not all(isinstance(case, Mapping) for case in cases):
        raise ValueError("cases are tables: write [[cases]], and below it what is set in that case")
    for name, values in axes.items():
        if not isinstance(values, list) or not values:
            raise ValueError(
                f"{name} = {values!r} in [grid]: a list of at least one value is needed; others go to [base]"
            )
    settings = []
    for case in cases:
        for chosen in itertools.product(*axes.values()):
            settings.append(base | _flat(dict(zip(axes, chosen, strict=True))) | _flat(case))
    measures, watch = tuple(table.get("measures", MEASURES)), tuple(table.get("watch", ()))
    if "survey" in measures:
        others = tuple(name for name in measures if name != "survey")
        measures = tuple(dict.fromkeys((*others, *(measure.name for measure in surveyed()))))
    for name in (*measures, *watch):
        find(name)
    more = {"nulls": table.get("nulls", False), "notebook": table.get("notebook")}
    return Grid(tuple(settings), tuple(map(_spec, settings)), measures, watch, **more)


def run(
    grid: Grid,
    out: str | Path | None = None,
    *,
    data_dir: str | Path | None = None,
    tell: Callable[[str], None] | None = None,
    **how: Any,
) -> list[Failure]:
    """Train and measure what is not there yet, as `parallel.train`; returns what failed, which stops nothing else.

    Observations lie beside each run. out: a file for the rows, .csv or .jsonl, written at the end.
    """
    if out is not None:  # seen before anything is trained
        try:
            make_folder(Path(out).parent)
        except (FileExistsError, NotADirectoryError) as error:
            raise ValueError(f"{out} cannot be: a file lies where its folder would.") from error
    measures, watched = ([(find(name), dict[str, Any]()) for name in names] for names in (grid.measures, grid.watch))
    watch = {measure.column(): measure.watched() for measure, _ in watched}
    then = partial(take_all, measures=measures, nulls=grid.nulls, watched=watched, data_dir=data_dir)
    work = {spec: watch for spec in grid.unique().specs}
    failed = parallel.train(work, data_dir=data_dir, then=then, tell=tell, **how)
    if out is not None:
        write_rows(out, rows(grid, recorded=False, data_dir=data_dir, root_folder=how.get("root_folder")))
    return failed


def rows(grid: Grid, *, recorded: bool = True, **where: Any) -> list[Row]:
    """A row per network: its settings and labels, every value of its measures, and where they come from.

    recorded: as `observe`'s. A network that was not measured has the sentence that says so under "error".
    """
    found = []
    for settings, spec in zip(grid.unique().settings, grid.unique().specs, strict=True):
        row: Row = dict(settings) | {"error": None}
        try:
            for name in grid.measures:
                (each,) = observe([spec], name, recorded=recorded, **where)
                assert each is not None  # `observe` raises where it lacks one
                # pictures have no cell in a table
                row |= {name: value for name, value in each.values.items() if not hasattr(value, "dtype")}
                row["origin"] = each.origin
        except (ValueError, FileNotFoundError) as error:
            row["error"] = str(error)
        found.append(row)
    return found


def write_rows(file: str | Path, rows: Iterable[Row]) -> None:
    """Rows, with configurations as `encode` writes them, as CSV, or as JSON lines where the name ends in .jsonl."""
    file, encoded = Path(file), [{n: v if isinstance(v, dict) else encode(v) for n, v in row.items()} for row in rows]
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        if file.suffix == ".jsonl":
            stream.writelines(json.dumps(row) + "\n" for row in encoded)
            return
        writer = csv.DictWriter(stream, list(dict.fromkeys(name for row in encoded for name in row)))
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in encoded)


def hidden_means(row: Row) -> dict[str, float]:
    """Of one network: living hidden capsules and test accuracy in percent, dyr, and what a rotation leaves in percent.

    dyr is the mean over routed layers, "kept %" that over hidden layers of `viewpoint.share_kept`. A network without a
    hidden layer has no hidden capsule that could die: its "living %" is nan, and so is "kept %" where all are silent.
    Needs the label `capsules`, how many each hidden layer has.
    """
    hidden = row["alive"][1:-1]
    kept = [share for share in row["kept"][1:-1] if share is not None]
    return {
        "living %": 100 * _mean(hidden) / row["capsules"],
        "dyr": _mean(row["dyr"]),
        "accuracy %": row["accuracy, %"],
        "kept %": 100 * _mean(kept),
    }


def override(spec: Any, path: str, value: Any, *, above: str = "") -> Any:
    """A configuration with one part, "recipe.weight_decay", set to a value; ValueError where it has no such part.

    above: the path of the configuration itself, for the sentence.
    """
    name, _, rest = path.partition(".")
    known = {field.name: field for field in dataclasses.fields(spec)} if dataclasses.is_dataclass(spec) else {}
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known) or 'none'}"
        raise ValueError(f"{type(spec).__name__} has no {name!r}; {hint}")
    now = getattr(spec, name)
    if rest and now is None:
        raise ValueError(f"{above}{path}: {name} is not set, so it has no {rest!r}; give it whole, with its type")
    if rest:
        return replace(spec, **{name: override(now, rest, value, above=f"{above}{name}.")})
    pair = isinstance(value, tuple) and "tuple[int, int]" in str(known[name].type)
    return replace(spec, **{name: value if pair else _fitting(f"{above}{path}", now, value)})


def _spec(settings: Mapping[str, Any]) -> Spec:
    spec = Spec(model=CapsNetConfig())
    # whole parts before parts of them, whatever order they stand in
    for path in sorted(settings, key=lambda path: path.count(".")):
        if "." in path or path in PARTS:
            spec = override(spec, path, settings[path])
    own = spec.data.name not in names() and is_own(Path(spec.data.name))
    return replace(spec, model=fit.following(spec.model, prepare(spec.data), given=settings)) if own else spec


def _flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """Tables that set several keys, opened; tables that name a type, and the zoo's models, as what they stand for."""
    found: dict[str, Any] = {}
    for name, value in _dotted(table).items():
        if isinstance(value, Mapping) and "type" not in value:
            found |= _flat(value)
        else:
            found[name] = _value(name, value)
    return found


def _dotted(table: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """The table with recipe.epochs for what TOML reads as a table when its key stands without quotes."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        path = f"{above}{name}"
        if isinstance(value, Mapping) and "type" not in value and path.partition(".")[0] in PARTS:
            found |= _dotted(value, f"{path}.")
        else:
            found[path] = value
    return found


def _value(name: str, value: Any) -> Any:
    if name == "model" and isinstance(value, str):
        if value not in ZOO:
            raise ValueError(f"model {value!r} is not in the zoo; there are: {', '.join(ZOO)}")
        return ZOO[value].config
    if isinstance(value, Mapping):
        _import_own(value)
        return decode(dict(value))
    if isinstance(value, list):
        return tuple(_value("", item) for item in value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} = {value}: a finite number is needed")
    return value


def _import_own(value: Any) -> None:
    """Import the modules of classes of somebody's own; ValueError with one sentence where one is not there."""
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        _import_own(item)
    if not isinstance(value, Mapping):
        return
    module, colon, kind = str(value.get("type", "")).partition(":")
    if colon:
        try:
            found = getattr(importlib.import_module(module), kind)
            dataclasses.fields(found)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"type {value['type']!r} cannot be used ({error}): a frozen dataclass in a module on PYTHONPATH is "
                "needed, there too where the workers run"
            ) from error


def _fitting(path: str, now: Any, value: Any) -> Any:
    """The value in the type of what stands there: 1 and 1.0 are one setting. ValueError for a value of another type."""
    if isinstance(now, float) and type(value) is int:
        return float(value)
    if dataclasses.is_dataclass(now) and value is not None and not dataclasses.is_dataclass(value):
        raise ValueError(f"{path} = {value!r}: a table with its type is needed, such as {name_of(type(now))}")
    wanted = type(now) if isinstance(now, int | float | str | tuple) else None
    # true is an int to Python, and none to whoever reads a grid
    if wanted and value is not None and (not isinstance(value, wanted) or isinstance(value, bool) != (wanted is bool)):
        raise ValueError(f"{path} = {value!r}: {wanted.__name__} is needed, such as {now!r}")
    return value


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
