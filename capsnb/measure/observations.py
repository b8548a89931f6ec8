"""What was measured of a run, as plain data on disk: a file of JSON lines for each run, readable without torch.

The first line names the subject: {"run": key, "spec": {...}}, or {"run": key, "specs": {variant: {...}}} where several
runs were measured together. Each further line is an `Observation`. What several lines say alike stands in the first:
{"made": {name: {...}}} of who trained, where they say {"made": name}, and {"measured": {name: {...}}} of who measured,
where they say {"measured": {"by": name, "date": ...}}. Long values are compressed. The file beside a run's weights and
the one in the evidence store (results/observations) have the same form; several makers of one observation stand side by
side.
"""

from __future__ import annotations

import base64
import hashlib
import json
import lzma
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from capsnb.disk import locked, replacing
from capsnb.installation import own_folder

LONG = 1_500  # characters of an observation's values, from which on they are compressed
# what is compressed is short: a larger dictionary would be memory for nothing
LZMA = {"id": lzma.FILTER_LZMA1, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 20}
DIGITS = 6  # significant digits of the numbers in lists and arrays; a single number is kept whole


@dataclass(frozen=True)
class Observation:
    """What one measure says of one run.

    settings: those that are not the measure's default. null: None, or the level that was measured in the network's
    place ("untrained"). watched: taken at the training's reports; `values` then holds "step" and a list for each value.
    made: code, device, threads, versions and date of the training, and under "measured" those of the measuring,
    with its seconds.
    """

    measure: str
    version: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    null: str | None = None
    watched: bool = False
    values: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple:
        """What it is of, whoever made it."""
        return self.measure, self.version, dict(self.settings), self.null, self.watched

    @property
    def origin(self) -> str:
        """Where it comes from: "2026-03-01, NVIDIA H100, code 1a2b3c4"."""
        code = self.made.get("code")
        parts = (self.made.get("date", "")[:10], self.made.get("device"), code and f"code {code}")
        return ", ".join(str(part) for part in parts if part)


def store_folder() -> Path:
    """The evidence store that comes with the project; without one, a store of the user's own."""
    return own_folder("results/observations")


def read(file: str | Path, measure: str | None = None) -> tuple[dict[str, Any], list[Observation]]:
    """The subject of a file and its observations, the newest last. Raises FileNotFoundError, or ValueError: damaged.

    measure: those of one measure alone, without a look at the others.
    """
    header: dict[str, Any] = {}
    makers: dict[str, Any] = {}
    measurers: dict[str, Any] = {}
    found, named = [], "" if measure is None else f'"measure": {json.dumps(measure)}'
    for number, line in enumerate(Path(file).read_text(encoding="utf-8").splitlines(), 1):
        if number > 1 and named not in line:
            continue
        try:
            row = json.loads(line, object_hook=unpack)
            if number == 1:
                header = row
                if "run" not in header:
                    raise KeyError("run")
                makers, measurers = header.pop("made", {}), header.pop("measured", {})
            else:
                made = row.pop("made", {})
                made = dict(makers[made] if isinstance(made, str) else made)
                if measured := row.pop("measured", made.get("measured", {})):
                    by = measurers[measured.pop("by")] if "by" in measured else {}
                    made["measured"] = by | measured
                row["made"] = made
                found.append(Observation(values=row.pop("values"), **row))
        except (ValueError, KeyError, TypeError, zlib.error, lzma.LZMAError) as error:
            raise ValueError(
                f"{file}, line {number}, is no observation ({error}): restore it from version control, or delete the "
                "file and measure again"
            ) from error
    return header, sorted(found, key=lambda each: each.made.get("date", ""))


def write(
    file: str | Path,
    header: Mapping[str, Any],
    observations: Iterable[Observation],
    *,
    joined: Callable[[Observation, Observation], Observation] = lambda earlier, newer: newer,
) -> int:
    """Add observations to a file, made where it is not there; one by the same maker takes the earlier one's place.

    joined: what is kept of such two, the newer one alone if not given. Lines stay in the order they were first written.
    Returns how many were not there before. The file is written whole under another name, then renamed. Raises
    ValueError for values that are no plain data, and for a file of another run.
    """
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(file.parent):
        known, earlier = read(file) if file.exists() else (dict(header), [])
        if known["run"] != header["run"]:
            raise ValueError(f"{file} is of the run {known['run']}, not of {header['run']}")
        rows = {_line_key(each): each for each in earlier}
        before = len(rows)
        for each in observations:
            key = _line_key(each)
            rows[key] = joined(rows[key], each) if key in rows else each
        makers = _said_alike(map(_maker, rows.values()))
        measurers = _said_alike(map(_measurer, rows.values()), lines=3)
        shared = {part: named for part, named in {"made": makers, "measured": measurers}.items() if named}
        lines = [json.dumps(known | shared, sort_keys=True)]
        for each in rows.values():
            row = {name: value for name, value in asdict(each).items() if value not in (None, False, {})}
            row |= _named(each, makers, measurers)
            lines.append(json.dumps(row | {"values": squeezed(pack(each.values))}, sort_keys=True, allow_nan=False))
        with replacing(file) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(rows) - before


def _maker(observation: Observation) -> str:
    """Who trained, as text: all that is said of the making but the measuring."""
    return json.dumps({name: each for name, each in observation.made.items() if name != "measured"}, sort_keys=True)


def _measurer(observation: Observation) -> str:
    """Who measured, as text: all that is said of the measuring but when and how long, which lines do not share."""
    said = observation.made.get("measured", {})
    return json.dumps({name: each for name, each in said.items() if name not in ("date", "seconds")}, sort_keys=True)


def _said_alike(texts: Iterable[str], lines: int = 2) -> dict[str, Any]:
    """Name -> what at least so many lines say; of less than that a name saves nothing."""
    return {_name(text): json.loads(text) for text, count in Counter(texts).items() if count >= lines and text != "{}"}


def _named(observation: Observation, makers: Mapping[str, Any], measurers: Mapping[str, Any]) -> dict[str, Any]:
    """What a line says of its making, by name wherever the first line has it."""
    made, measured = dict(observation.made), dict(observation.made.get("measured", {}))
    if (by := _name(_measurer(observation))) in measurers:
        measured = {"by": by} | {name: each for name, each in measured.items() if name in ("date", "seconds")}
    if (name := _name(_maker(observation))) in makers:
        return {"made": name} | ({"measured": measured} if measured else {})
    return {"made": made | ({"measured": measured} if measured else {})} if made else {}


def _name(maker: str) -> str:
    return hashlib.sha256(maker.encode()).hexdigest()[:8]


def _line_key(observation: Observation) -> str:
    made = observation.made
    maker = [made.get("code"), made.get("device"), made.get("date"), made.get("measured", {}).get("code")]
    return json.dumps([*observation.key, maker], sort_keys=True)


def pack(value: Any) -> Any:
    """Plain data for JSON: numbers in lists and arrays rounded, small pictures (uint8) packed, no number as null.

    Raises ValueError for what is no plain data.
    """
    if hasattr(value, "detach"):  # a tensor, without a need for torch
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim:
        return {"uint8": base64.b64encode(zlib.compress(value.tobytes(), 9)).decode(), "shape": list(value.shape)}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(name): pack(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) if isinstance(item, float) else pack(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise ValueError(
        f"{type(value).__name__} is no plain data: an observation holds numbers, texts, lists and small arrays"
    )


def squeezed(values: dict[str, Any]) -> dict[str, Any]:
    """Values that are long as text, a series of every capsule's norm, say, in an eighth of it; others as they are."""
    text = json.dumps(values, sort_keys=True, allow_nan=False)
    if len(text) < LONG:
        return values
    return {"lzma": base64.b64encode(lzma.compress(text.encode(), lzma.FORMAT_ALONE, filters=[LZMA])).decode()}


def unpack(value: dict[str, Any]) -> Any:
    """A JSON object as it was before `pack` and `squeezed`: a picture is an uint8 array."""
    if value.keys() == {"lzma"}:
        return json.loads(lzma.decompress(base64.b64decode(value["lzma"])), object_hook=unpack)
    if value.keys() == {"zlib"}:  # as earlier files have them
        return json.loads(zlib.decompress(base64.b64decode(value["zlib"])), object_hook=unpack)
    if value.keys() != {"uint8", "shape"}:
        return value
    data = zlib.decompress(base64.b64decode(value["uint8"]))
    return np.frombuffer(data, dtype=np.uint8).reshape(value["shape"])


def _rounded(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
