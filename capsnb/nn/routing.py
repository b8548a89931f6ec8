"""Routing: from the votes of child capsules to the coupling with which each parent listens to them.

A routing is a pure function `(votes, combine) -> coupling` and decides nothing else. The layer owns the votes, and
`combine(coupling, votes) -> poses` is the layer's own weighted sum with its bias and squash, used here inside the loop.

Shapes: votes (B, I, J, D), coupling (B, I, J), poses (B, J, D).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch._subclasses import FakeTensor

from capsnb.nn.fast.votes import VoteReader

Combine = Callable[[Tensor, Tensor], Tensor]


class Routing(Protocol):
    """Anything callable like this routes a `RoutedCapsules` layer.

    What more it offers, it declares by attributes of its own. Nobody guesses them from its class, and where one is
    missing, the general way is taken:

    learned_prior: True has the layer learn logits (I, J), which come as `prior`.
    constant(children, parents) -> float: the coupling is this number whatever the votes, so that a layer that nobody
        watches need not make any.
    silent_is_absent: True says that a child whose votes are all zero leaves the parents' poses as they would be without
        it. Then a child that speaks alone may be routed alone, hundreds of times faster (`RoutedCapsules.route_one`).
    spends_more: True says that a child may spend more than 1 over its parents; else a warning says it once.
    coefficients(votes, combine, prior) -> (B, I, J): what it hands on as the strength of each edge, where that is not
        the coupling (None where it is); a layer of such a routing has it as a tap.
    """

    def __call__(self, votes: Tensor, combine: Combine, prior: Tensor | None = None) -> Tensor: ...


def check_coupling(routing: Routing, coupling: Tensor, votes: Tensor) -> None:
    """What a layer looks at once, with the first coupling of its routing. Raises ValueError for one of another shape.

    Warns where children spend more than 1 and the routing does not say so.
    """
    name, shape = type(routing).__name__, tuple(getattr(coupling, "shape", ()))
    if not isinstance(coupling, Tensor) or shape != tuple(votes.shape[:3]):
        got = shape if isinstance(coupling, Tensor) else f"a {type(coupling).__name__}"
        raise ValueError(f"the coupling of {name} must be (B, I, J), here {tuple(votes.shape[:3])}, got {got}")
    if getattr(routing, "spends_more", False) or not has_numbers(coupling):
        return
    most = float(coupling.detach().sum(-1).max())
    if most > 1.001:
        warnings.warn(f"{name}: a child spends {most:.3g} over its parents, more than 1", stacklevel=2)


def has_numbers(tensor: Tensor) -> bool:
    """Whether a tensor has numbers to look at, for which one waits on CUDA: it is not on meta, and nobody traces."""
    if torch.compiler.is_compiling() or tensor.is_meta or isinstance(tensor, FakeTensor):
        return False
    return not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


def dynamic(
    votes: Tensor,
    combine: Combine,
    *,
    iterations: int = 3,
    prior: Tensor | None = None,
    temperature: float = 1.0,
    rate: float = 1.0,
    gradient: str = "all",
    leaky: bool = False,
    over: str = "parents",
) -> Tensor:
    """Routing by agreement: each child spends 1 over its parents, more on those whose pose its vote agrees with.

    Sabour et al. 2017, procedure 1. The logits after t steps are `prior + sum over the steps of <vote, pose>`, kept
    here as one dot product with the sum of the poses (the same number, and no (B, I, J) tensor to carry along).

    iterations: T, the number of weighted sums the layer makes in all; T = 1 is the prior alone.
    prior: (I, J) logits, zero when None (Mitterreiter et al. 2023 learn them).
    temperature: divides the logits; below 1 sharpens.
    rate: eta in (0, 1] of Lin et al. 2018, eq. 3: coupling <- eta * softmax + (1 - eta) * coupling.
    gradient: "all" back-propagates through every iteration (Sabour's code, Mitterreiter), "last" takes the agreement
        as a constant, "detached" the votes alone until the last weighted sum: what `combine` adds of its own, the
        layer's bias, has its gradient through every iteration (Renzulli's code). A learned prior has it in all three.
    leaky: the softmax also has a place for nobody, with a logit of 0, so that a child may keep back part of its 1
        (`leaky_softmax` of Sabour's released code).
    over: what the softmax runs over. "children" makes each parent spend 1 on its children, as the released code of
        Tawalbeh & Oramas 2024 does: a parent hears the children that agree with it, whatever others make of them.
    Returns the coupling (B, I, J), which sums to 1 over J (or to less when leaky), or over I. Raises ValueError for a
    value out of range.
    """
    _check(iterations=iterations, temperature=temperature, rate=rate, gradient=gradient, over=over, leaky=leaky)
    batch, children, parents = _vote_axes(votes)
    prior = votes.new_zeros(children, parents) if prior is None else _checked(prior, children, parents)
    logits = (prior / temperature).unsqueeze(0)
    first = _over_parents(logits, leaky) if leaky else logits.softmax(-1 if over == "parents" else 1)
    coupling = first.expand(batch, -1, -1)
    through = gradient != "last" and torch.is_grad_enabled()
    votes = votes.detach() if gradient == "detached" else votes
    reader = _reader(votes, combine)
    poses_so_far: Tensor | int = 0
    for _ in range(iterations - 1):
        with torch.set_grad_enabled(through):
            poses_so_far = poses_so_far + combine(coupling, votes)
            agreement = reader.agreement(poses_so_far)
        logits = (prior + agreement) / temperature
        agreed = _over_parents(logits, leaky) if over == "parents" else logits.softmax(1)
        coupling = agreed if rate == 1 else rate * agreed + (1 - rate) * coupling
    return coupling


def uniform(votes: Tensor, combine: Combine | None = None, *, value: str = "1/J") -> Tensor:
    """No routing: the same constant coupling for all.

    value: "1/J", what dynamic routing starts from; "1/I", the average of the votes (Gu et al. 2021); "1", their sum,
    which is a plain linear layer. With thousands of children the choice decides how far the squash saturates.
    Returns (B, I, J).
    """
    batch, children, parents = _vote_axes(votes)
    return votes.new_full((1, 1, 1), constant(value, children, parents)).expand(batch, children, parents)


def constant(value: str, children: int, parents: int) -> float:
    """The number that a uniform coupling's name stands for."""
    values = {"1/J": 1 / parents, "1/I": 1 / children, "1": 1.0}
    if value not in values:
        raise ValueError(f"uniform coupling {value!r} is unknown; allowed: {', '.join(values)}")
    return values[value]


def _checked(prior: Tensor, children: int, parents: int) -> Tensor:
    if prior.shape != (children, parents):
        raise ValueError(f"the prior has shape {tuple(prior.shape)}, the votes need ({children}, {parents})")
    return prior


def _reader(votes: Tensor, combine: Combine) -> VoteReader:
    shared = getattr(combine, "reader", None)
    return shared if shared is not None and shared.votes is votes else VoteReader(votes)


def _over_parents(logits: Tensor, leaky: bool = False) -> Tensor:
    # an agreement lies in (B, J, I) memory: a softmax over a strided axis works on many children at once
    logits = logits.transpose(1, 2)
    if leaky:
        nobody = torch.zeros_like(logits[:, :1])
        return torch.cat((nobody, logits), 1).softmax(1)[:, 1:].transpose(1, 2)
    return logits.softmax(1).transpose(1, 2)


def _vote_axes(votes: Tensor) -> tuple[int, int, int]:
    if votes.dim() != 4:
        raise ValueError(f"votes have shape (B, I, J, D), not {tuple(votes.shape)}")
    return votes.shape[0], votes.shape[1], votes.shape[2]


def _check(
    *,
    iterations: int,
    temperature: float = 1.0,
    rate: float = 1.0,
    gradient: str = "all",
    over: str = "parents",
    leaky: bool = False,
) -> None:
    if not isinstance(iterations, int) or iterations < 1:
        raise ValueError(f"iterations = {iterations}: a whole number of at least 1 is needed")
    if not temperature > 0:
        raise ValueError(f"temperature = {temperature}: it must be above 0")
    if not 0 < rate <= 1:
        raise ValueError(f"rate = {rate}: it must be above 0 and at most 1")
    if gradient not in ("all", "last", "detached"):
        raise ValueError(f"gradient = {gradient!r} is unknown; allowed: 'all', 'last', 'detached'")
    if over not in ("parents", "children"):
        raise ValueError(f"over = {over!r} is unknown; allowed: 'parents', 'children'")
    if leaky and over == "children":
        raise ValueError("leaky = True: a place for nobody is one among the parents, which over = 'children' has not")


@dataclass(frozen=True, kw_only=True)
class Dynamic:
    """Routing by agreement as a model's configuration; the fields are those of `dynamic`."""

    iterations: int = 3
    temperature: float = 1.0
    rate: float = 1.0
    learned_prior: bool = False
    gradient: str = "all"
    leaky: bool = False
    over: str = "parents"

    def __post_init__(self) -> None:
        named = ("iterations", "temperature", "rate", "gradient", "over", "leaky")
        _check(**{name: getattr(self, name) for name in named})

    @property
    def silent_is_absent(self) -> bool:
        """A softmax over the children has a share for the silent ones too."""
        return self.over == "parents"

    @property
    def spends_more(self) -> bool:
        """What a child gets of each parent's 1 has no limit of its own."""
        return self.over == "children"

    @property
    def coefficients(self) -> Callable[..., Tensor] | None:
        """Over the children, as released, the last agreement: with the poses before the last ones."""
        return self._last_agreement if self.over == "children" else None

    def _last_agreement(self, votes: Tensor, combine: Combine, prior: Tensor | None = None) -> Tensor:
        before = replace(self, iterations=max(1, self.iterations - 1))(votes, combine, prior)
        return _reader(votes, combine).agreement(combine(before, votes))

    def __call__(self, votes: Tensor, combine: Combine, prior: Tensor | None = None) -> Tensor:
        return dynamic(
            votes,
            combine,
            iterations=self.iterations,
            prior=prior,
            temperature=self.temperature,
            rate=self.rate,
            gradient=self.gradient,
            leaky=self.leaky,
            over=self.over,
        )


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Routing by dot-product attention: each iteration's logits are <vote, pose> / sqrt(D) alone, nothing adds up.

    over: "parents", children attend to their parents (inverted dot-product attention, Tsai et al. 2020, on one layer
        after the other); "children", parents attend to their children as a transformer's tokens do, a softmax along
        the columns: no parent can be left without coupling (Mitterreiter et al. 2023, sec. 5).
    iterations: T, the number of weighted sums; T = 1 is the even share, 1/J or 1/I. Gradients flow through all.
    The coupling sums to 1 over J or over I.
    """

    iterations: int = 3
    over: str = "parents"
    spends_more: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check(iterations=self.iterations, over=self.over)

    @property
    def silent_is_absent(self) -> bool:
        """A softmax over the children has a share for the silent ones too."""
        return self.over == "parents"

    def __call__(self, votes: Tensor, combine: Combine, prior: Tensor | None = None) -> Tensor:
        coupling = uniform(votes, value="1/J" if self.over == "parents" else "1/I")
        reader = _reader(votes, combine)
        for _ in range(self.iterations - 1):
            logits = reader.agreement(combine(coupling, votes)) * votes.shape[-1] ** -0.5
            coupling = _over_parents(logits) if self.over == "parents" else logits.softmax(1)
        return coupling


@dataclass(frozen=True, kw_only=True)
class SelfAttention:
    """Self-attention among the votes for one parent, without iterations (Mazzia et al. 2021, eqs. 5 to 8).

    logit_ij = sum_k <vote_ij, vote_kj> / sqrt(D), coupling = softmax of it over the parents + prior: children are heard
    as far as the others' votes agree with theirs. The paper divides by the root of the child's pose size; the released
    code by that of the parent's, D, as here. The prior (I, J), which Efficient-CapsNet learns, is added after the
    softmax, so that a child may spend more or less than 1.
    """

    learned_prior: bool = True
    silent_is_absent: ClassVar[bool] = True
    spends_more: ClassVar[bool] = True

    def __call__(self, votes: Tensor, combine: Combine, prior: Tensor | None = None) -> Tensor:
        _, children, parents = _vote_axes(votes)
        reader = _reader(votes, combine)
        everybody = reader.weighted_sum(uniform(votes, value="1"))
        coupling = _over_parents(reader.agreement(everybody) * votes.shape[-1] ** -0.5)
        return coupling if prior is None else coupling + _checked(prior, children, parents)


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """No routing, as a model's configuration; the field is that of `uniform`."""

    value: str = "1/J"
    spends_more: ClassVar[bool] = True

    def __post_init__(self) -> None:
        constant(self.value, 1, 1)

    @property
    def silent_is_absent(self) -> bool:
        """An average over the children counts the silent ones too."""
        return self.value != "1/I"

    def __call__(self, votes: Tensor, combine: Combine, prior: Tensor | None = None) -> Tensor:
        return uniform(votes, combine, value=self.value)

    def constant(self, children: int, parents: int) -> float:
        """The coupling's value; a layer that nobody watches sums its votes with it without making them."""
        return constant(self.value, children, parents)
