"""Frozen configurations as JSON and back, so that a run has a name that its settings alone decide.

Only fields that differ from their default are written: a field added later changes no existing name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import sys
from typing import Any

PLAIN = (str, int, float, bool, type(None))


def encode(value: Any) -> Any:
    """A frozen dataclass, tuple or plain value as JSON-able data. Raises ValueError for anything else."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = f"{type(value).__module__}:{type(value).__qualname__}"
        fields = {
            field.name: encode(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if _default(field) is dataclasses.MISSING or getattr(value, field.name) != _default(field)
        }
        return {"type": kind, **fields}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, PLAIN):
        return value
    raise ValueError(
        f"{value!r} cannot be part of a run's name: use numbers, strings, tuples or frozen dataclasses of them"
    )


def decode(data: Any) -> Any:
    """The value that `encode` wrote; lists come back as tuples.

    Classes are taken from capsnb, or from modules that are already imported: a spec read from disk imports nothing of
    its own. Raises ValueError when a class is not there.
    """
    if isinstance(data, dict):
        fields = {name: decode(value) for name, value in data.items() if name != "type"}
        return _find(data.get("type", "?"))(**fields)
    if isinstance(data, list):
        return tuple(decode(item) for item in data)
    return data


def digest(data: Any) -> str:
    """Twelve hex digits that stand for JSON-able data."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _default(field: dataclasses.Field) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def _find(kind: str) -> type:
    module_name, _, name = kind.partition(":")
    if module_name.startswith("capsnb."):
        importlib.import_module(module_name)
    found = getattr(sys.modules.get(module_name), name, None)
    if not dataclasses.is_dataclass(found):
        raise ValueError(f"the run was made with {name} of {module_name}, which is not imported here: import it first")
    return found
