"""One network of a sweep and its training, from the plain settings that a grid file can hold."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, fields
from typing import Any

from capsnb.data import Augment, DataSpec
from capsnb.data.transforms import Affine, Translated
from capsnb.nn.models import CapsNetConfig, DepthwiseStem, StridedStem
from capsnb.nn.routing import Attention, Dynamic, Routing, Uniform
from capsnb.training.interventions import DecoupledDecay, KeepNorms
from capsnb.training.loop import Recipe
from capsnb.training.runs import Spec

ROUTINGS = ("dynamic", "uniform", "attention", "attention-over-children")
OWN_FIELDS = ("iterations", "temperature", "leaky", "learned_prior")
STEMS = ("depthwise", "strided")
PLACEMENTS = ("none", "translated", "affine-a", "affine-b", "affine-c")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One network of a sweep and its training; the fields are the settings of a grid file.

    The defaults are the network of Mitterreiter et al. 2023, Tables 1 and 2, as their working code trains it; what
    neither says is ours: `init_scale` (their U(+-1/sqrt(n)) leaves deep networks at chance), `data`, `epochs`. Their
    code also normalises the pixels by mean and deviation; here they stay in [0, 1], batch norm follows at once.
    """

    case: str = ""  # a name for these settings; it changes nothing
    # the network
    depth: int = 4  # routed layers: depth - 1 hidden ones and the class layer
    capsules: int = 16  # of each layer but the last, which has one per class
    primary: int | None = None  # primary capsules, where they are not as many as `capsules`
    dimension: int = 8  # of every pose
    # or "uniform", the twin whose coupling is 1/J; attention over parents or children; or a class of yours,
    # "module:Class", a dataclass that is given those of the next four settings that are its fields
    routing: str = "dynamic"
    iterations: int = 3  # T, weighted sums per layer
    temperature: float = 1.0  # divides the routing logits
    leaky: bool = False  # one parent more, which is thrown away
    learned_prior: bool = True
    squash: str = "exponential"
    hidden_squash: str | None = None  # of the hidden layers, where it is another
    residual: bool = False  # a child's pose is added to that of the parent of its number
    init: str = "vote-sum"
    init_scale: float = 0.25
    # or "strided", Sabour's: two 9x9 convolutions, on 28x28 pixels to 1,152 primary capsules of 8 numbers; `widths` is
    # then one number, 256 in their paper, and `kernels`, `strides`, `capsules` and `primary` are of no stem
    stem: str = "depthwise"
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
    decoupled: bool = False  # weight decay apart from the gradient, as AdamW's
    loss: str = "margin"
    keep_norms: float = 0.0  # weight of a loss that keeps hidden capsules from falling silent; 0: none
    target_accuracy: float | None = None  # on validation; training ends there
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("depth", "capsules", "dimension", "canvas"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: it must be at least 1.")
        for name in ("alpha", "weight_decay", "keep_norms", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: it must not be negative.")
        own = ":" in self.routing
        for name, allowed in {"routing": ROUTINGS, "placement": PLACEMENTS, "stem": STEMS}.items():
            if getattr(self, name) not in allowed and not (own and name == "routing"):
                end = " or module:Class, a class of yours." if name == "routing" else "."
                raise ValueError(f"{name} {getattr(self, name)!r} is unknown; allowed: {', '.join(allowed)}{end}")
        if self.stem == "strided" and len(self.widths) != 1:
            raise ValueError(f"a strided stem has one width, its channels, not {len(self.widths)}: {self.widths}.")
        if own:
            own_routing(self.routing)

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
        model = CapsNetConfig(
            channels=channels,
            size=size,
            classes=classes,
            stem=StridedStem(channels=self.widths[0]) if self.stem == "strided" else self._depthwise(),
            hidden=((self.capsules, self.dimension),) * (self.depth - 1),
            dim=self.dimension,
            routing=self._routing(),
            squash=self.squash,
            hidden_squash=self.hidden_squash,
            residual=self.residual,
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
            weight_decay=0.0 if self.decoupled else self.weight_decay,
            loss=self.loss,
            hooks=self._hooks(),
            # a recipe weighs the sum over an image's numbers, the authors' code their mean
            reconstruction_weight=self.alpha / (channels * size * size),
            augment=Augment(rotation=8.0, shear=15.0, scale=(0.9, 1.1)) if self.augment else Augment(),
            target_accuracy=self.target_accuracy,
        )
        return Spec(model=model, data=self.data_spec(), recipe=recipe, seed=self.seed)

    def _depthwise(self) -> DepthwiseStem:
        return DepthwiseStem(
            widths=self.widths,
            kernels=self.kernels,
            strides=self.strides,
            capsules=self.capsules if self.primary is None else self.primary,
            dim=self.dimension,
        )

    def _routing(self) -> Routing:
        match self.routing:
            case "dynamic":
                return Dynamic(
                    iterations=self.iterations,
                    temperature=self.temperature,
                    learned_prior=self.learned_prior,
                    leaky=self.leaky,
                )
            case "uniform":
                return Uniform()
            case "attention":
                return Attention()
            case "attention-over-children":
                return Attention(over="children")
        kind = own_routing(self.routing)
        return kind(**{field.name: getattr(self, field.name) for field in fields(kind) if field.name in OWN_FIELDS})

    def _hooks(self) -> tuple[Any, ...]:
        decay = (DecoupledDecay(weight_decay=self.weight_decay),) if self.decoupled else ()
        return decay + ((KeepNorms(weight=self.keep_norms),) if self.keep_norms else ())


def own_routing(name: str) -> type:
    """The class that "module:Class" names, a frozen dataclass; ValueError with one sentence where it is not there."""
    module, _, kind = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), kind)
        fields(found)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"routing {name!r} cannot be used ({error}): a frozen dataclass in a module on PYTHONPATH is needed, there "
            "too where the workers run."
        ) from error
    return found
