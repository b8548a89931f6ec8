"""A grid file: settings with a value or a list of values, whose product is the cells of a sweep."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
import tomllib
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from capsnb.models import CapsNetConfig, DepthwiseStem
from capsnb.routing import Dynamic, Uniform
from capsnb.runs import Spec
from capsnb.synthesis import Affine, Augment, DataSpec, Translated
from capsnb.training import Recipe

ROUTINGS = ("dynamic", "uniform")
PLACEMENTS = ("none", "translated", "affine-a", "affine-b", "affine-c")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One network of a sweep and its training; the fields are the settings of a grid file.

    The defaults are the network of Mitterreiter et al. 2023, Tables 1 and 2, as their working code trains it; what
    neither says is ours: `init_scale` (their U(+-1/sqrt(n)) leaves deep networks at chance), `data`, `epochs`. Their
    code also normalises the pixels by mean and deviation; here they stay in [0, 1], batch norm follows at once.
    """

    # the network
    depth: int = 4  # routed layers: depth - 1 hidden ones and the class layer
    capsules: int = 16  # of each layer but the last, which has one per class
    primary: int | None = None  # primary capsules, where they are not as many as `capsules`
    dimension: int = 8  # of every pose
    routing: str = "dynamic"  # or "uniform", the twin whose coupling is 1/J
    iterations: int = 3  # T, weighted sums per layer
    temperature: float = 1.0  # divides the routing logits
    learned_prior: bool = True
    squash: str = "exponential"
    init: str = "vote-sum"
    init_scale: float = 0.25
    widths: tuple[int, ...] = (32, 64, 128)  # of the stem's first convolutions
    kernels: tuple[int, ...] = (5, 3, 3, 3)
    strides: tuple[int, ...] = (1, 1, 1, 2)
    decoder_widths: tuple[int, ...] = (512, 1024)
    alpha: float = 0.005  # weight of the mean squared reconstruction error; 0: no decoder
    # the data
    data: str = "mnist-sample"
    train: int | None = None  # at most so many images of each split
    validation: int | None = None
    test: int | None = None
    crop: int | None = None  # side of the central square that is kept
    canvas: int = 40  # side of the black square that images are placed on
    placement: str = "affine-c"  # test images transformed, the others placed; "translated": all placed; "none": as is
    augment: bool = True  # rotation within 8 degrees, shear within 15, scale 0.9 to 1.1
    # the training
    epochs: int = 5
    batch: int = 128
    learning_rate: float = 1e-3
    decay: float = 0.96  # of the learning rate, per epoch
    weight_decay: float = 1e-5
    target_accuracy: float | None = None  # on validation; training ends there
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("depth", "capsules", "dimension", "canvas"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: it must be at least 1.")
        for name in ("alpha", "weight_decay", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: it must not be negative.")
        for name, allowed in {"routing": ROUTINGS, "placement": PLACEMENTS}.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} {getattr(self, name)!r} is unknown; allowed: {', '.join(allowed)}.")

    def data_spec(self) -> DataSpec:
        """The images of this cell."""
        derive: Translated | Affine | None = None
        if self.placement == "translated":
            derive = Translated(size=self.canvas)
        elif self.placement != "none":
            derive = Affine(kind=self.placement.removeprefix("affine-"), size=self.canvas)
        return DataSpec(
            name=self.data, crop=self.crop, train=self.train, validation=self.validation, test=self.test, derive=derive
        )

    def spec(self, image_shape: tuple[int, int, int], classes: int) -> Spec:
        """The run of this cell on images (C, H, W), which are square; ValueError where the settings do not fit."""
        channels, size, width = image_shape
        if size != width:
            raise ValueError(f"{self.data} has images of {size}x{width}: a sweep takes square ones.")
        agreement = Dynamic(iterations=self.iterations, temperature=self.temperature, learned_prior=self.learned_prior)
        model = CapsNetConfig(
            channels=channels,
            size=size,
            classes=classes,
            stem=DepthwiseStem(
                widths=self.widths,
                kernels=self.kernels,
                strides=self.strides,
                capsules=self.capsules if self.primary is None else self.primary,
                dim=self.dimension,
            ),
            hidden=((self.capsules, self.dimension),) * (self.depth - 1),
            dim=self.dimension,
            routing=agreement if self.routing == "dynamic" else Uniform(),
            squash=self.squash,
            decoder="conditional" if self.alpha else "none",
            decoder_widths=self.decoder_widths if self.alpha else CapsNetConfig.decoder_widths,
            init=self.init,
            init_scale=self.init_scale,
        )
        recipe = Recipe(
            epochs=self.epochs,
            batch=self.batch,
            learning_rate=self.learning_rate,
            decay=self.decay,
            decay_every=1,
            decay_unit="epochs",
            weight_decay=self.weight_decay,
            # a recipe weighs the sum over an image's numbers, the authors' code their mean
            reconstruction_weight=self.alpha / (channels * size * size),
            augment=Augment(rotation=8.0, shear=15.0, scale=(0.9, 1.1)) if self.augment else Augment(),
            target_accuracy=self.target_accuracy,
        )
        return Spec(model=model, data=self.data_spec(), recipe=recipe, seed=self.seed)


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
    """The product of a grid's settings. A list varies a setting; one that is itself a list takes a list of lists."""
    values = {name: _values(name, given) for name, given in table.items()}
    return [Cell(**dict(zip(values, chosen, strict=True))) for chosen in itertools.product(*values.values())]


def varied(cells: list[Cell]) -> list[str]:
    """The settings in which cells differ."""
    return [name for name in SETTINGS if len({getattr(cell, name) for cell in cells}) > 1]


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
