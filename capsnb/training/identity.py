"""What names a run: its spec as JSON under registered names, the content of its images, the code of own classes.

    encode(spec)        {"type": "spec@1", "model": {"type": "capsnet@1", ...}, ...}, and `decode` makes it a Spec again
    identity(spec)      the same with what lies outside: images, a file to start from, classes of somebody's own
    key(spec)           twelve hex digits of that

Only fields that differ from their default are written, so a field added later changes no name. The number behind the
@ is raised when the same settings would give another result: the runs of that class alone are then other runs, those
too that have it as a default, which is written from then on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from capsnb import data
from capsnb.training.code_fingerprint import PLAIN, code_fingerprint, digest
from capsnb.training.spec import Spec

# registered name -> where the class lies now, and its version
NAMES: dict[str, tuple[str, int]] = {
    "spec": ("capsnb.training.spec:Spec", 1),
    "recipe": ("capsnb.training.recipe:Recipe", 1),
    "data": ("capsnb.data.spec:DataSpec", 1),
    "augment": ("capsnb.data.spec:Augment", 1),
    "translated": ("capsnb.data.transforms.affine:Translated", 1),
    "affine": ("capsnb.data.transforms.affine:Affine", 1),
    "pairs": ("capsnb.data.transforms.pairs:Pairs", 1),
    "capsnet": ("capsnb.nn.models.capsnet:CapsNetConfig", 1),
    "matrix-capsnet": ("capsnb.nn.models.matrix:MatrixCapsNetConfig", 1),
    "rescaps": ("capsnb.nn.models.residual:ResCapsConfig", 1),
    "neuron-net": ("capsnb.nn.models.lin2018:NeuronNetConfig", 1),
    "convnet-fc": ("capsnb.nn.models.convnets:ConvNetFCConfig", 1),
    "convnet-avg": ("capsnb.nn.models.convnets:ConvNetAvgConfig", 1),
    "convnet-r": ("capsnb.nn.models.convnets:ConvNetRConfig", 1),
    "strided-stem": ("capsnb.nn.models.stems:StridedStem", 1),
    "depthwise-stem": ("capsnb.nn.models.stems:DepthwiseStem", 1),
    "backbone-stem": ("capsnb.nn.models.backbone:BackboneStem", 1),
    "dynamic": ("capsnb.nn.routing:Dynamic", 1),
    "attention": ("capsnb.nn.routing:Attention", 1),
    "self-attention": ("capsnb.nn.routing:SelfAttention", 1),
    "uniform": ("capsnb.nn.routing:Uniform", 1),
    "em": ("capsnb.nn.em:EM", 1),
    "grow-margin": ("capsnb.training.hooks:GrowMargin", 1),
    "follow-fitness": ("capsnb.training.hooks:FollowFitness", 1),
    "decoupled-decay": ("capsnb.training.hooks:DecoupledDecay", 1),
    "part-decay": ("capsnb.training.hooks:PartDecay", 1),
    "revival": ("capsnb.training.hooks:Revival", 1),
    "keep-norms": ("capsnb.training.hooks:KeepNorms", 1),
    "penalty": ("capsnb.training.pruning:Penalty", 2),
    "lobster": ("capsnb.training.pruning:Lobster", 2),
    "to-sparsity": ("capsnb.training.pruning:ToSparsity", 1),
    "quantiser": ("capsnb.measure.quantisation:Quantiser", 1),
}


def encode(value: Any) -> Any:
    """A frozen dataclass, tuple or plain value as JSON-able data. Raises ValueError for anything else."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        name = name_of(type(value))
        return {"type": name} | {
            field.name: encode(_number(field, getattr(value, field.name)))
            for field in dataclasses.fields(value)
            if _is_written(field, getattr(value, field.name))
        }
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, PLAIN):
        return value
    raise ValueError(
        f"{value!r} cannot be part of a run's name: use numbers, strings, tuples or frozen dataclasses of them"
    )


def decode(data: Any) -> Any:
    """The value that `encode` wrote; lists come back as tuples. A registered name without @version is the present one.

    Classes that are not capsnb's are taken from modules that are already imported: a spec read from disk imports
    nothing of its own. Raises ValueError when a class is not there, or is here in another version.
    """
    if isinstance(data, dict):
        kind = _find(str(data.get("type", "?")))
        fields = {name: decode(value) for name, value in data.items() if name != "type"}
        try:
            return kind(**fields)
        except TypeError as error:
            raise ValueError(f"{data['type']} cannot be made of {', '.join(fields) or 'nothing'}: {error}") from error
    if isinstance(data, list):
        return tuple(decode(item) for item in data)
    return data


def name_of(kind: type) -> str:
    """The registered name and version of a class of capsnb, "dynamic@1"; "module:Class" for a class of somebody's own.

    Raises ValueError for a class of capsnb without a registered name.
    """
    place = f"{kind.__module__}:{kind.__qualname__}"
    for name, (where, version) in NAMES.items():
        if where == place:
            return f"{name}@{version}"
    if place.startswith("capsnb."):
        raise ValueError(f"{kind.__qualname__} has no name in capsnb.training.identity.NAMES, so no run can carry it")
    return place


def identity(spec: Spec, data_dir: str | os.PathLike | None = None) -> dict[str, Any]:
    """All of a spec that decides a result: images by their content, own classes by their code, a file to start from by
    its content; wherever they lie. data_dir: where image sets lie, CAPSNB_DATA when None."""
    found = {"spec": _without_modules(encode(_by_content(spec, data_dir)))}
    if code := code_fingerprint(spec):
        found["code"] = code
    return found


def key(spec: Spec, data_dir: str | os.PathLike | None = None) -> str:
    """Twelve hex digits that name a run."""
    return digest(identity(spec, data_dir))


def weights_file(start: str | os.PathLike) -> Path:
    """The file of weights that a path names: itself, or model.pt of a run's or checkpoint's folder.

    Raises FileNotFoundError where there is none.
    """
    path = Path(start).expanduser()
    file = path / "model.pt" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there: give the folder of a finished run, or a file of weights")
    return file


def _by_content(spec: Spec, data_dir: str | os.PathLike | None) -> Spec:
    start = spec.start
    if isinstance(start, Spec):
        start = _by_content(start, data_dir)
    elif isinstance(start, str):
        start = f"file {hashlib.sha256(weights_file(start).read_bytes()).hexdigest()}"
    return replace(spec, data=replace(spec.data, name=_content_name(spec.data.name, data_dir)), start=start)


def _content_name(name: str, data_dir: str | os.PathLike | None) -> str:
    """A set's name and the digest of what is read; of a known set that is not here, of its true content."""
    try:
        content = data.digest(name, data_dir)
    except FileNotFoundError:
        content = data.true_digest(name)
    return f"{data.short_name(name)} {content}"


def _without_modules(data: Any) -> Any:
    """Encoded data in which a class of somebody's own is known by its bare name: its code says the rest."""
    if isinstance(data, Mapping):
        inner = {name: _without_modules(value) for name, value in data.items()}
        return inner | ({"type": f"own:{data['type'].partition(':')[2]}"} if ":" in data["type"] else {})
    return [_without_modules(item) for item in data] if isinstance(data, list) else data


def _is_written(field: dataclasses.Field, value: Any) -> bool:
    default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    return default is dataclasses.MISSING or value != default or _is_raised(value)


def _is_raised(value: Any) -> bool:
    """Whether a class in a value has another version than its first."""
    if isinstance(value, tuple | list):
        return any(map(_is_raised, value))
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return False
    _, _, version = name_of(type(value)).partition("@")
    return version not in ("", "1") or any(
        _is_raised(getattr(value, field.name)) for field in dataclasses.fields(value)
    )


def _number(field: dataclasses.Field, value: Any) -> Any:
    """1 and 1.0 are one setting where a float is meant: specs that are equal have one name."""
    return float(value) if type(value) is int and field.type in ("float", "float | None", float) else value


def _find(kind: str) -> type:
    if ":" in kind:
        module, _, name = kind.partition(":")
        found = getattr(sys.modules.get(module), name, None)
        if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
            raise ValueError(f"the run was made with {name} of {module}, which is not imported here: import it first")
        return found
    name, _, version = kind.partition("@")
    if name not in NAMES:
        raise ValueError(f"{kind!r} is no registered name; there are: {', '.join(NAMES)}")
    where, present = NAMES[name]
    if version and version != str(present):
        raise ValueError(
            f"{kind} is not what this capsnb makes, which is {name}@{present}: use the version that made it"
        )
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)
