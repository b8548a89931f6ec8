"""Pruning while a network trains: LOBSTER, by which REM lowers the entropy of parse trees, and its controls.

All are configurations of a `Recipe`'s hooks:

    Lobster()                                                 # REM as released
    Lobster(penalty=Penalty(sensitive=False))                 # plain l2, pruned by the same rule
    ToSparsity(schedule=ramp(0.85, epochs=8))                 # the smallest weights, to a sparsity of our choice
    ToSparsity(schedule=ramp(0.85, epochs=8), choose="random")

Weights of convolutions and of routed capsules are pruned: no biases, no priors, no decoder, nothing that is frozen.
What is pruned stays 0: after every step of the optimiser it is set to 0 again. Renzulli et al. 2022, sec. 3.3, and
their released code; Tartaglione et al. 2020 (LOBSTER).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from capsnb.data import ImageSet
from capsnb.nn.layers import RoutedCapsules
from capsnb.nn.losses import LOSSES
from capsnb.training.evaluation import Evaluation, evaluate
from capsnb.training.recipe import Moment

LAYERS = (nn.Conv2d, nn.Conv3d, RoutedCapsules)
SMALLEST = 1e-10  # a search ends when its threshold moves by less (Renzulli et al., released code)
PLATEAU = 0.01  # a loss that is not higher than the best by this share still counts as an improvement (released code)


@dataclass(frozen=True, kw_only=True)
class Penalty:
    """Every step pulls a parameter to 0: p <- p - rate * p * ReLU(1 - |dL/dp|), rate = strength * decay^epoch.

    Renzulli et al. 2022, eq. 16, apart from the optimiser's step and not times its learning rate; a parameter on which
    the loss depends strongly is left alone. Biases and priors of the layers are pulled too, as released.
    sensitive: False takes 1 for the ReLU, plain l2. when: "before" the optimiser's step, which is eq. 16 and REM's
    code, or "after" it, as LOBSTER's own code does.
    """

    strength: float = 1e-4
    decay: float = 0.99
    sensitive: bool = True
    when: str = "before"

    def __post_init__(self) -> None:
        if not 0 <= self.strength < 1:
            raise ValueError(f"strength = {self.strength}: it must be at least 0, for no pull, and below 1")
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay = {self.decay}: it must be above 0 and at most 1")
        if self.when not in ("before", "after"):
            raise ValueError(f"when = {self.when!r} is unknown; allowed: 'before', 'after'")

    def rate(self, epoch: int) -> float:
        """The share of a parameter without gradient that a step of this epoch takes; epochs count from 0."""
        return self.strength * self.decay**epoch

    @torch.no_grad()
    def apply(self, parameters: Iterable[Tensor], epoch: int) -> None:
        """Pull parameters that have a gradient, in place; epoch counts from 0."""
        rate = self.rate(epoch)
        for parameter in parameters:
            if parameter.grad is None:
                continue
            if self.sensitive:
                parameter.addcmul_(parameter, (1 - parameter.grad.abs()).clamp_(min=0), value=-rate)
            else:
                parameter.mul_(1 - rate)


@dataclass(frozen=True, kw_only=True)
class Lobster:
    """REM: a penalty in every step, and at the end of an epoch one magnitude below which all weights become 0.

    The magnitude is the largest that bisection finds for which the class loss on the validation images is at most
    (1 + twt) times what it was (`largest_threshold`).
    pwe: so many epochs in a row whose validation loss, before any pruning, is 1 % or more above the best of the wait
    have to pass before weights go; -1, as released, prunes after every epoch. above: no pruning while the validation
    accuracy is below this: an untrained network loses nothing with its weights (the released code asks 0.5 of affNIST;
    later than the first epochs it changes nothing). images: so many validation images at most, all when None; trials:
    so many evaluations at most. parts: names of the model's parts to penalise and prune, all when empty. loss: as
    `Recipe.loss`.
    """

    penalty: Penalty = field(default_factory=Penalty)
    twt: float = 0.0
    pwe: int = -1
    above: float = 0.5
    images: int | None = None
    trials: int = 40
    parts: tuple[str, ...] = ()
    loss: str = "margin"

    def __post_init__(self) -> None:
        if not self.twt >= 0:
            raise ValueError(f"twt = {self.twt}: a tolerated worsening cannot be negative")
        if self.pwe < -1:
            raise ValueError(f"pwe = {self.pwe}: epochs to wait, or -1 to prune after every epoch")
        if not 0 <= self.above < 1:
            raise ValueError(f"above = {self.above}: an accuracy of at least 0 and below 1 is needed")
        if self.trials < 1 or (self.images is not None and self.images < 1):
            raise ValueError(f"trials = {self.trials}, images = {self.images}: at least 1 of each is needed")
        if self.loss not in LOSSES:
            raise ValueError(f"loss {self.loss!r} is unknown; allowed: {', '.join(LOSSES)}")

    def build(self, model: nn.Module) -> _Lobster:
        return _Lobster(model, self)


@dataclass(frozen=True, kw_only=True)
class ToSparsity:
    """A control: after epoch e the share schedule[e] of all weights is 0 (its last entry from then on).

    choose: the weights of least "magnitude", compared over all layers, or weights drawn at "random", other ones with
    another seed of the run. What is 0 stays 0, so a schedule never falls. penalty, parts: as `Lobster`'s.
    """

    schedule: tuple[float, ...] = (0.85,)
    choose: str = "magnitude"
    penalty: Penalty | None = None
    parts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rising = tuple(sorted(self.schedule)) == tuple(self.schedule)
        if not self.schedule or not rising or not 0 <= self.schedule[0] <= self.schedule[-1] < 1:
            raise ValueError(f"schedule = {self.schedule}: shares of at least 0 and below 1 that never fall are needed")
        if self.choose not in ("magnitude", "random"):
            raise ValueError(f"choose = {self.choose!r} is unknown; allowed: 'magnitude', 'random'")

    def build(self, model: nn.Module) -> _ToSparsity:
        return _ToSparsity(model, self)


class Pruner:
    """What the hooks share: the penalty's moment, masks that outlive each step, and both in the state.

    pull: the sum of the penalty's rates over all steps so far, the dose. A weight that nothing holds is exp(-pull) of
    what it was.
    """

    def __init__(self, model: nn.Module, penalty: Penalty | None, parts: tuple[str, ...]) -> None:
        self.penalty, self.pull = penalty, 0.0
        self.weights = {name: weight for name, weight in weights(model, parts).items() if weight.requires_grad}
        if not self.weights:
            raise ValueError(f"all weights of {type(model).__name__} that could be pruned are frozen")
        self.penalised = list(parameters(model, parts).values())
        self.masks: dict[str, Tensor] = {}  # 1 where a weight is kept, in the weight's own type

    def after_backward(self, model: nn.Module, moment: Moment) -> None:
        self._pull("before", moment)

    @torch.no_grad()
    def after_step(self, model: nn.Module, moment: Moment) -> None:
        self._pull("after", moment)
        for name, mask in self.masks.items():
            self.weights[name].mul_(mask)

    def _pull(self, when: str, moment: Moment) -> None:
        if self.penalty is not None and self.penalty.when == when:
            self.penalty.apply(self.penalised, moment.epoch)
            self.pull += self.penalty.rate(moment.epoch)

    @torch.no_grad()
    def prune(self, kept: Mapping[str, Tensor]) -> None:
        """Set to 0, for good, what is not kept (bool masks), and what is 0 already."""
        for name, weight in self.weights.items():
            self.masks[name] = (kept[name] & (weight != 0)).to(weight)
            weight.mul_(self.masks[name])

    def state_dict(self) -> dict:
        return {"kept": {name: mask.bool() for name, mask in self.masks.items()}, "pull": self.pull}

    def load_state_dict(self, state: dict) -> None:
        self.pull = state.get("pull", 0.0)  # runs begun before it was kept had no penalty
        self.masks = {name: kept.to(self.weights[name]) for name, kept in state["kept"].items()}


class _Lobster(Pruner):
    def __init__(self, model: nn.Module, config: Lobster) -> None:
        super().__init__(model, config.penalty, config.parts)
        self.config = config
        self.best, self.waited = math.inf, 0
        self.thresholds: list[float] = []  # one for each pruning

    @torch.no_grad()
    def after_epoch(self, model: nn.Module, data: ImageSet, moment: Moment) -> None:
        now = self._evaluate(model, data)
        self.waited = 0 if now.loss < self.best * (1 + PLATEAU) else self.waited + 1
        self.best = min(self.best, now.loss)
        if self.waited < self.config.pwe or now.accuracy < self.config.above:
            return
        saved = {name: weight.clone() for name, weight in self.weights.items()}

        def loss_at(threshold: float) -> float:
            for name, weight in self.weights.items():
                weight.copy_(saved[name].masked_fill(saved[name].abs() < threshold, 0))
            return self._evaluate(model, data).loss

        bound = now.loss * (1 + self.config.twt)
        magnitudes = [each.abs() for each in saved.values()]
        threshold = largest_threshold(loss_at, magnitudes, bound, trials=self.config.trials)
        for name, weight in self.weights.items():
            weight.copy_(saved[name])
        self.prune({name: weight.abs() >= threshold for name, weight in saved.items()})
        self.thresholds.append(threshold)
        self.best, self.waited = math.inf, 0  # the pruned network learns on, and is waited for anew

    def _evaluate(self, model: nn.Module, data: ImageSet) -> Evaluation:
        split = data.validation
        if self.config.images is not None:
            split = split.select(torch.arange(min(self.config.images, len(split)), device=split.labels.device))
        return evaluate(model, split, loss=self.config.loss, reconstruction_weight=0)

    def state_dict(self) -> dict:
        own = {"best": self.best, "waited": self.waited, "thresholds": list(self.thresholds)}
        return super().state_dict() | own

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.best, self.waited, self.thresholds = state["best"], state["waited"], list(state["thresholds"])


class _ToSparsity(Pruner):
    def __init__(self, model: nn.Module, config: ToSparsity) -> None:
        super().__init__(model, config.penalty, config.parts)
        self.config = config
        # a hook is not told the run's seed, but the weights at its start are drawn by it
        first = next(iter(self.weights.values())).detach().flatten()[:256].double().cpu().numpy()
        self.seed = int.from_bytes(hashlib.blake2b(first.tobytes(), digest_size=7).digest(), "big")

    @torch.no_grad()
    def after_epoch(self, model: nn.Module, data: ImageSet, moment: Moment) -> None:
        share = self.config.schedule[min(moment.epoch, len(self.config.schedule) - 1)]
        flat = torch.cat([weight.flatten() for weight in self.weights.values()])
        worth = flat.abs() if self.config.choose == "magnitude" else self._drawn(flat)
        worth[flat == 0] = -1.0
        kept = torch.ones_like(flat, dtype=torch.bool)
        kept[worth.argsort(stable=True)[: round(share * len(flat))]] = False
        parts = kept.split([weight.numel() for weight in self.weights.values()])
        named = zip(self.weights.items(), parts, strict=True)
        self.prune({name: part.view(weight.shape) for (name, weight), part in named})

    def _drawn(self, flat: Tensor) -> Tensor:
        # the same numbers after every epoch, so that what is drawn first stays drawn
        generator = torch.Generator().manual_seed(self.seed)
        return torch.rand(len(flat), generator=generator).to(flat)

    def state_dict(self) -> dict:
        return super().state_dict() | {"seed": self.seed}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.seed = state["seed"]


def parameters(model: nn.Module, parts: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Parameters of convolutions and routed layers by name, biases and priors too; decoders are none of these.

    parts: names of modules to look into, the whole model when empty. Those inside a module with a true attribute
    `frozen`, such as a backbone, are left out. ValueError for a part that the model lacks.
    """
    modules = dict(model.named_modules())
    if unknown := [part for part in parts if part not in modules]:
        raise ValueError(f"{type(model).__name__} has no part {unknown[0]!r}")
    frozen = [name for name, module in modules.items() if getattr(module, "frozen", False) is True]
    found: dict[str, Tensor] = {}
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


def _inside(path: str, names: Sequence[str]) -> bool:
    return any(f"{path}.".startswith(f"{name}.") for name in names)
