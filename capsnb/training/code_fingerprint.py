"""The code behind configurations that are not capsnb's, so that a run made by other code is another run.

A class of capsnb is known by its registered name and version. A class in somebody's notebook, script or package has
only its code to tell: its methods, what they call in the user's own files, the constants they read and the defaults of
its fields; comments, docstrings, layout and the module it lies in do not count. It is read as bytecode, which also a
worker has that was sent a class of a notebook: another minor version of Python has another.

The same reader, on the sources, tells whether a measure of capsnb still is what its version says: `source_fingerprint`.
"""

from __future__ import annotations

import ast
import dataclasses
import dis
import hashlib
import inspect
import json
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

PLAIN = (str, int, float, bool, type(None))
OTHERS = ("capsnb", "torch", "numpy", "builtins")  # packages that are not the user's, wherever they are installed
MADE: tuple[str, ...] = ("__init__", "__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__", "__replace__")
MADE += ("__lt__", "__le__", "__gt__", "__ge__")
READS = ("LOAD_GLOBAL", "LOAD_NAME")
TYPES = ("annotation", "returns")  # fields of the syntax that change no value
INSTALLED = ("site-packages", "dist-packages")


def digest(data: Any) -> str:
    """Twelve hex digits that stand for JSON-able data."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def code_fingerprint(value: Any) -> str | None:
    """Twelve hex digits for the code of all classes in a configuration that are not capsnb's; None without such."""
    kinds = sorted({kind for kind in _classes(value) if _package(kind) not in OTHERS}, key=_name)
    if not kinds:
        return None
    reader = _Reader({_package(kind) for kind in kinds}, _bytecode)
    for kind in kinds:
        reader.see(kind)
    return digest(sorted(reader.parts, key=str))


def source_fingerprint(function: Callable) -> str:
    """Twelve hex digits for a function and the code of its own package that it names, in any version of Python.

    A constant, the order of steps and what it calls count; comments, docstrings, annotations, layout and moves do not.
    """
    reader = _Reader({(function.__module__ or "").partition(".")[0]}, _source)
    reader.see(function)
    return digest(sorted(reader.parts, key=str))


class _Reader:
    """Follows names from a few classes through the code of their packages; `parts` is what it saw."""

    def __init__(self, packages: set[str], content: Callable[[FunctionType], Any]) -> None:
        self.packages, self.content = packages, content
        self.parts: list[Any] = []
        self.seen: set[int] = set()

    def see(self, thing: Any, label: str = "") -> None:
        if isinstance(thing, PLAIN):
            self.parts.append([label, repr(thing)])
        elif isinstance(thing, tuple):
            for number, item in enumerate(thing):
                self.see(item, f"{label}[{number}]")
        elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
            self.see(type(thing))
            for field in dataclasses.fields(thing):
                self.see(getattr(thing, field.name), f"{label}.{field.name}")
        elif isinstance(thing, type):
            self._once(thing, self._class)
        elif callable(thing) and isinstance(plain := inspect.unwrap(thing), FunctionType):
            self._once(plain, self._function)

    def _once(self, thing: Any, read: Any) -> None:
        if id(thing) not in self.seen and self._is_own(thing.__module__):
            self.seen.add(id(thing))
            read(thing)

    def _is_own(self, module: str | None) -> bool:
        module = module or "builtins"
        package = module.partition(".")[0]
        if package in self.packages or package in OTHERS:
            return package in self.packages
        file = getattr(sys.modules.get(module), "__file__", None)
        if file is None:
            return False
        path = Path(file)
        return not (set(INSTALLED) & set(path.parts) or path.is_relative_to(sysconfig.get_path("stdlib")))

    def _class(self, kind: type) -> None:
        made = dataclasses.is_dataclass(kind)
        for base in kind.__bases__:
            self.see(base)
        for field in dataclasses.fields(kind) if made else ():
            factory = field.default_factory
            default = field.default if factory is dataclasses.MISSING else factory()
            self.see(None if default is dataclasses.MISSING else default, f"{kind.__qualname__}.{field.name}=")
        for name, member in sorted(vars(kind).items()):
            member = getattr(member, "__func__", getattr(member, "fget", member))
            special = name.startswith("__") and name.endswith("__")
            if isinstance(member, FunctionType):
                # what @dataclass writes follows from the fields
                if not (made and name in MADE and member.__code__.co_filename == "<string>"):
                    self.see(member)
            elif not special:
                self.see(member, f"{kind.__qualname__}.{name}")

    def _function(self, function: FunctionType) -> None:
        codes = list(_nested(function.__code__))
        names = dict.fromkeys(name for code in codes for name in code.co_names)
        read = dict.fromkeys(
            step.argval for code in codes for step in dis.get_instructions(code) if step.opname in READS
        )
        self.parts.append([function.__qualname__, self.content(function)])
        self.see(function.__defaults__ or (), f"{function.__qualname__} defaults")
        self.see(tuple(sorted((function.__kwdefaults__ or {}).items())), f"{function.__qualname__} defaults")
        for cell in function.__closure__ or ():
            self.see(_inside(cell), f"{function.__qualname__} closure")
        for name in read:
            found = function.__globals__.get(name)
            if isinstance(found, ModuleType) and self._is_own(found.__name__):
                for inner in names:
                    self.see(_table(inner, vars(found).get(inner)), inner)
            elif found is not None:
                self.see(_table(name, found), f"{function.__qualname__} reads {name}")


def _table(name: str, value: Any) -> Any:
    """A list or mapping that is a constant, as its name in capitals says, as a tuple. Others change while it runs."""
    return _frozen(value) if name.isupper() and isinstance(value, list | dict) else value


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((name, _frozen(item)) for name, item in value.items())
    return tuple(map(_frozen, value)) if type(value) in (list, tuple) else value


def _classes(value: Any) -> Iterator[type]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield type(value)
        for field in dataclasses.fields(value):
            yield from _classes(getattr(value, field.name))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _classes(item)


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _name(kind: type) -> str:
    # keys on disk rest on this order: by another one, classes of a module and of its sub-module would change places
    return f"{kind.__module__}:{kind.__qualname__}"


def _inside(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _nested(code: CodeType) -> Iterable[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _bytecode(function: FunctionType) -> list:
    return [_content(code, function.__doc__) for code in _nested(function.__code__)]


def _content(code: CodeType, docstring: str | None) -> list:
    constants = [_constant(each) for each in code.co_consts if not isinstance(each, CodeType) and each != docstring]
    return [code.co_code.hex(), list(code.co_names), constants]


def _constant(value: Any) -> Any:
    if isinstance(value, frozenset):  # its order changes from process to process
        return sorted(map(repr, value))
    return [_constant(item) for item in value] if isinstance(value, tuple) else repr(value)


def _source(function: FunctionType) -> Any:
    try:
        return _tree(ast.parse(textwrap.dedent(inspect.getsource(function))))
    except (OSError, TypeError, SyntaxError):  # written by a decorator, or a lambda in the middle of a line
        return _bytecode(function)


def _tree(node: Any) -> Any:
    """Syntax as lists, without what versions of Python add (empty fields), docstrings and annotations."""
    if isinstance(node, list):
        return [_tree(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        node = ast.Assign([node.target], node.value)
    fields = {name: value for name, value in ast.iter_fields(node) if name not in TYPES and value not in (None, [])}
    if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = node.body[1:]
    return [type(node).__name__, *([name, _tree(value)] for name, value in fields.items())]
