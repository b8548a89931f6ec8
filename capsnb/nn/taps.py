"""Named places inside a model where a tensor is read or edited.

A `Tap` is an identity module. Its name is its path in the model (a trailing `.tap` is dropped), so that
`class.coupling` is the tap `coupling` of the layer `class`, and `primary` the tap of the layer `primary`.

    with taps.record(model, "primary", "class.coupling") as seen:      # read
        model(images)
    with taps.edit(model, {"class.coupling": quantise}):               # intervene
        model(images)

Edits run before readers, so a recorded tensor is the one that the rest of the network received.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

State = TypeVar("State")
Edit = Callable[[Tensor], Tensor]


class Tap(nn.Module):
    """Identity at which a tensor has a name."""

    def __init__(self) -> None:
        super().__init__()
        self._edits: list[Edit] = []
        self._readers: list[Callable[[Tensor], Any]] = []

    @property
    def idle(self) -> bool:
        """True when nobody records or edits here, so that a layer may skip making the tensor."""
        return not (self._edits or self._readers)

    @contextmanager
    def editing(self, edit: Edit) -> Iterator[None]:
        """Pass the tensor through `edit` inside the block; the newest edit runs last."""
        with _listed(self._edits, edit):
            yield

    @contextmanager
    def reading(self, reader: Callable[[Tensor], Any]) -> Iterator[None]:
        """Call `reader` with the (edited) tensor inside the block."""
        with _listed(self._readers, reader):
            yield

    def follow(self, part: nn.Module, arguments: tuple, output: Tensor) -> Tensor:
        """As a forward hook of the module whose output this is."""
        return self(output)

    def forward(self, tensor: Tensor) -> Tensor:
        for edit in self._edits:
            tensor = edit(tensor)
        for reader in self._readers:
            reader(tensor)
        return tensor


@contextmanager
def _listed(entries: list, entry: Any) -> Iterator[None]:
    entries.append(entry)
    try:
        yield
    finally:
        # by identity: the same function may have been entered twice, and tensors inside do not compare
        del entries[max(n for n, other in enumerate(entries) if other is entry)]


class Record(Mapping[str, Tensor]):
    """What `record` saw: name -> tensor. A second call of the model appends along the batch axis."""

    def __init__(self, names: Iterable[str]) -> None:
        self._parts: dict[str, list[Tensor]] = {name: [] for name in names}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._parts:
            raise ValueError(f"tap {name!r} was not recorded here; recorded are: {', '.join(self._parts)}")
        parts = self._parts[name]
        if not parts:
            raise ValueError(f"tap {name!r} was recorded, but no tensor has passed it: call the model inside the block")
        if len(parts) > 1:
            parts[:] = [torch.cat(parts)]  # in place: the reader goes on appending to this list
        return parts[0]

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __repr__(self) -> str:
        shapes = (f"{name} {tuple(self[name].shape) if parts else 'not seen'}" for name, parts in self._parts.items())
        return f"Record({', '.join(shapes)}; calls are appended along the batch axis)"


def names(model: nn.Module) -> tuple[str, ...]:
    """The taps of a model, in the order of its layers."""
    return tuple(_taps(model))


def _taps(model: nn.Module) -> dict[str, Tap]:
    return {path.removesuffix(".tap"): module for path, module in model.named_modules() if isinstance(module, Tap)}


def attach(model: nn.Module, part: str) -> Tap:
    """Make what a part of a model returns a tap, named as the part is: for models that lack one.

    The part must return one tensor. Weights, their names and results stay as they are. Put it into a configuration's
    `build`, so that every copy of the model has it. Raises ValueError for a part that is not there or has a tap.
    """
    parts = dict(model.named_modules())
    if part not in parts or not part:
        raise ValueError(f"{type(model).__name__} has no part {part!r}; it has: {', '.join(filter(None, parts))}")
    if part in _taps(model):
        raise ValueError(f"{type(model).__name__} has a tap {part!r} already")
    tap = Tap()
    parts[part].add_module("tap", tap)
    if not isinstance(parts[part], nn.Sequential):  # which calls it by itself, last of its modules
        parts[part].register_forward_hook(tap.follow)
    return tap


def find(model: nn.Module, name: str) -> Tap:
    """The tap of that name; ValueError lists the taps the model has."""
    if hasattr(model, "_orig_mod"):
        raise ValueError("a compiled module may skip its taps: record or edit the model that was compiled instead")
    found = _taps(model)
    if name not in found:
        raise ValueError(f"{type(model).__name__} has no tap {name!r}; it has: {', '.join(found) or 'none'}")
    return found[name]


@contextmanager
def record(model: nn.Module, *names: str) -> Iterator[Record]:
    """Read taps while the block runs: `seen[name]` is the tensor, with its gradient graph if one is kept.

    Calling the model more than once in the block appends along the batch axis. A whole test set of couplings does
    not fit in memory: use `stream` for that. Raises ValueError for a tap that the model lacks.
    """
    seen = Record(names)
    with ExitStack() as stack:
        for name in seen:
            stack.enter_context(find(model, name).reading(seen._parts[name].append))
        yield seen


@contextmanager
def edit(model: nn.Module, edits: Mapping[str, Edit]) -> Iterator[None]:
    """Replace tapped tensors by `edits[name](tensor)` while the block runs. Raises ValueError for a missing tap."""
    with ExitStack() as stack:
        for name, function in edits.items():
            stack.enter_context(find(model, name).editing(function))
        yield


def run_with_cache(model: nn.Module, images: Tensor, *names: str) -> tuple[Any, Record]:
    """What a model answers in evaluation mode, without gradients, and its taps of these names, all where none is given.

    images (B, C, H, W) on any device. Raises ValueError for a tap that the model lacks.
    """
    weights = next(model.parameters(), images)
    with evaluating(model), record(model, *(names or _taps(model))) as seen:
        return model(images.to(weights.device)), seen


@contextmanager
def evaluating(model: nn.Module, *, gradients: bool = False) -> Iterator[None]:
    """Evaluation mode inside the block, without gradients unless asked for; then each part's own mode comes back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with nullcontext() if gradients else torch.inference_mode():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def once(model: nn.Module) -> Iterator[None]:
    """Inside the block a part of the model that is given again what it was last given answers as it did then.

    So what lies before an edit is computed once for a batch that is run under many edits. Parts in which a tap is
    recorded or edited, or that are given anything by name, run every time. For evaluation: what a part remembers has
    no part in a new gradient.
    """

    def remembering(part: nn.Module) -> Callable[..., Any]:
        forward, inside = part.forward, [module for module in part.modules() if isinstance(module, Tap)]
        last: list[tuple[tuple, Any]] = []

        def remembered(*given: Any, **named: Any) -> Any:
            if named or not all(tap.idle for tap in inside):
                return forward(*given, **named)
            if not (last and len(last[0][0]) == len(given) and all(map(_same, last[0][0], given))):
                last[:] = [(given, forward(*given))]
            return last[0][1]

        return remembered

    with ExitStack() as stack:
        for part in model.children():
            stack.callback(_put_back, part, vars(part).get("forward"))
            part.forward = remembering(part)
        yield


def _put_back(part: nn.Module, own: Callable[..., Any] | None) -> None:
    """As it was: own is None where forward was that of the part's class."""
    del part.forward
    if own is not None:
        part.forward = own


def _same(earlier: Any, given: Any) -> bool:
    tensors = isinstance(earlier, Tensor) and isinstance(given, Tensor)
    return earlier is given or (tensors and earlier.dtype == given.dtype and torch.equal(earlier, given))


def stream(
    model: nn.Module,
    batches: Iterable,
    names: str | Iterable[str],
    fold: Callable[[State | None, Record, Any], State],
    start: State | None = None,
) -> State | None:
    """Fold taps over batches, one batch in memory at a time: `state = fold(state, seen, batch)`.

    batches: of (images, labels, ...) as `Split.batches` gives them; the model runs in evaluation mode.
    Returns the last state (`start` when there was no batch).
    """
    wanted = (names,) if isinstance(names, str) else tuple(names)
    state = start
    with evaluating(model):
        for batch in batches:
            with record(model, *wanted) as seen:
                model(batch[0])
            state = fold(state, seen, batch)
    return state


def keep(mask: Tensor) -> Edit:
    """The edit that zeroes every unit outside the mask: mask (I,) or (B, I), tensor (B, I, ...)."""
    if mask.dim() not in (1, 2):
        raise ValueError(f"a mask of units has shape (I,) or (B, I), not {tuple(mask.shape)}")

    def masked(tensor: Tensor) -> Tensor:
        if mask.shape[-1] != tensor.shape[1]:
            raise ValueError(f"the mask is for {mask.shape[-1]} units, the layer has {tensor.shape[1]}")
        rows = mask if mask.dim() == 2 else mask[None]
        if len(rows) not in (1, len(tensor)):
            raise ValueError(f"the mask is for {len(rows)} images, the batch has {len(tensor)}")
        return tensor * rows.to(tensor).reshape(*rows.shape, *[1] * (tensor.dim() - 2))

    return masked
