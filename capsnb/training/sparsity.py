"""Which weights of a model can be pruned, how many of them are, and down to where they may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from capsnb.data import ImageSet
from capsnb.nn.layers import RoutedCapsules

LAYERS = (nn.Conv2d, nn.Conv3d, RoutedCapsules)
SMALLEST = 1e-10  # a search ends when its threshold moves by less (Renzulli et al., released code)


def parameters(model: nn.Module, parts: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Parameters of convolutions and routed layers by name, biases and priors too; decoders are none of these.

    parts: names of modules to look into, the whole model when empty. Those inside a module with a true attribute
    `frozen`, such as a backbone, are left out. ValueError for a part that the model lacks.
    """
    modules = dict(model.named_modules())
    if unknown := [part for part in parts if part not in modules]:
        raise ValueError(f"{type(model).__name__} has no part {unknown[0]!r}")
    frozen = [name for name, module in modules.items() if getattr(module, "frozen", False) is True]
    found = {}
    for path, module in modules.items():
        wanted = not parts or _inside(path, parts)
        if isinstance(module, LAYERS) and wanted and not _inside(path, frozen):
            found |= {f"{path}.{name}": value for name, value in module.named_parameters(recurse=False)}
    return found


def weights(model: nn.Module, parts: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """What can be pruned: those `parameters` that are weights. ValueError for a model, or parts of it, without any."""
    found = {name: value for name, value in parameters(model, parts).items() if name.split(".")[-1] == "weight"}
    if not found:
        where = f"of {', '.join(parts)} " if parts else ""
        raise ValueError(f"{type(model).__name__} has no weights {where}that could be pruned")
    return found


def sparsity(model: nn.Module, data: ImageSet | None = None) -> dict[str, float]:
    """Share of weights that are exactly 0: of each layer by its name, and of all as "total". An observer for runs."""
    found = weights(model)
    zeros = {name: (weight == 0).sum().item() for name, weight in found.items()}
    layers = {name.removesuffix(".weight"): zeros[name] / weight.numel() for name, weight in found.items()}
    return layers | {"total": sum(zeros.values()) / sum(weight.numel() for weight in found.values())}


def largest_threshold(
    measure: Callable[[float], float], magnitudes: Sequence[Tensor], bound: float, *, trials: int = 40
) -> float:
    """The largest threshold found by bisection whose `measure` is at most `bound`; 0 when none is.

    measure(threshold): the loss with all magnitudes below the threshold set to 0. Starts at the mean magnitude (those
    that are 0 count), then halves between the last that passed and the last that failed, as the released code of
    Renzulli et al. does; it ends when no magnitude is left to decide on between the two, where that code repeats the
    same measure ten times, or after so many trials.
    """
    passed, failed = 0.0, max(float(each.max()) for each in magnitudes)
    measured = False  # whether `failed` has been: the largest magnitude has not
    threshold = sum(float(each.sum()) for each in magnitudes) / sum(each.numel() for each in magnitudes)
    for _ in range(trials):
        if measure(threshold) <= bound:
            passed = threshold
        else:
            failed, measured = threshold, True
        between = sum(int(((each >= passed) & (each < failed) & (each > 0)).sum()) for each in magnitudes)
        following = (passed + failed) / 2
        if between <= int(measured) or abs(following - threshold) < SMALLEST:
            break
        threshold = following
    return passed


def ramp(sparsity: float, epochs: int) -> tuple[float, ...]:
    """A schedule from 0 to `sparsity`, fast at first: sparsity * (1 - (1 - t / epochs)^3) (Zhu and Gupta 2017)."""
    if epochs < 1:
        raise ValueError(f"a ramp over {epochs} epochs: at least 1 is needed")
    return tuple(round(sparsity * (1 - (1 - step / epochs) ** 3), 6) for step in range(1, epochs + 1))


def same_as(history: Sequence[Mapping[str, Any]], column: str = "sparsity") -> tuple[float, ...]:
    """The schedule that another run's pruning went through: the total of its column, observed once per epoch."""
    if not history or column not in history[0]:
        raise ValueError(f"the history has no column {column!r}: observe `sparsity` while training")
    return tuple(row[column]["total"] for row in history)


def _inside(path: str, names: Sequence[str]) -> bool:
    return any(f"{path}.".startswith(f"{name}.") for name in names)
