"""Training as a loop over rows, evaluation, and the state that lets a killed training go on bit for bit.

    for row in train(model, data, Recipe(epochs=10)):
        print(row["epoch"], row["validation accuracy"])

Every random number is a function of (seed, epoch) or (seed, step): the position alone says which batch comes next.
"""

from __future__ import annotations

import copy
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from capsnb.data import Batch, ImageSet, Split
from capsnb.nn.taps import evaluating
from capsnb.training import fit
from capsnb.training.cpu_settings import keep_pages, no_denormals, on_threads
from capsnb.training.evaluation import correct, evaluate, pick_device
from capsnb.training.recipe import Diverged, Moment, Recipe, Row
from capsnb.training.step import TrainStep

Watch = Mapping[str, Callable[["Training"], Any]]  # column of a row -> what is taken of the training at each report


def train(
    model: nn.Module,
    data: ImageSet,
    recipe: Recipe,
    *,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Iterator[Row]:
    """Train in place and yield a row per epoch, or per `recipe.report_every` steps.

    A row has epoch, step, loss and accuracy (training, since the last row), validation loss and accuracy, test
    accuracy when the recipe stops on it, learning rate, images/s. Raises Diverged when the loss is not finite.
    """
    if told := fit.heavy(model):
        warnings.warn(told, stacklevel=2)
    yield from Training(model, data, recipe, seed=seed, device=device).rows(progress=progress)


class Training:
    """A training under way: the model, its optimiser, its position. `state_dict` holds all that a resume needs."""

    def __init__(
        self,
        model: nn.Module,
        data: ImageSet,
        recipe: Recipe,
        *,
        seed: int = 0,
        device: str | torch.device | None = None,
        frozen: tuple[str, ...] = (),
    ) -> None:
        fit.check(model, data)
        self.device = pick_device(device)
        if self.device.type == "cpu":
            keep_pages()
        self.model, self.data, self.recipe, self.seed = model.to(self.device), data.to(self.device), recipe, seed
        self.frozen = freeze(model, frozen)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = recipe.build_optimizer(trained, self.device)
        self.train_step = TrainStep(
            model,
            recipe.loss,
            recipe.reconstruction_weight,
            low=recipe.precision == "bfloat16",
            steps=self.total_steps,
        )
        self.hooks = [config.build(model) for config in recipe.hooks]
        self.epoch = self.offset = self.step = 0
        self.best: dict[str, Any] = {"loss": math.inf, "row": 0, "weights": None}
        self.history: list[Row] = []
        # loss, right answers, images, steps whose loss was not finite: kept on the device, fetched with each report
        self.sums = torch.zeros(4, dtype=torch.float32, device=self.device)
        self.done = False
        if self.device.type != "cpu":
            self._answer_once()

    def rows(
        self,
        *,
        progress: bool | Callable[[int, int], None] = True,
        watch: Watch | None = None,
        save: Callable[[], None] | None = None,
        save_seconds: float = 120.0,
    ) -> Iterator[Row]:
        """Train on from the current position, yielding rows. `save` is called with each row and after save_seconds.

        progress: a bar, or none, or a function that is called with the step and the number of steps.
        watch: column -> function(training), taken at each report in evaluation mode; it cannot change the training.
        """
        if taken := [name for name in watch or () if name in self.columns]:
            raise ValueError(f"{taken[0]!r} is a column of every training: watch under another name")
        images, every = self.data.train, self.recipe.report_every
        bar = _bar(self.total_steps, self.step) if progress is True else None
        started, seen, saved = time.perf_counter(), 0, time.monotonic()
        for index in self._indices(len(images)):
            self._step(images.batch(index))
            seen += len(index)
            epoch_ended = self._advance(len(index))
            if bar is not None:
                bar.update()
            elif callable(progress):
                progress(self.step, self.total_steps)
            if (self.step % every == 0 if every else epoch_ended) or self.done:
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
                row = self._report(seen / (time.perf_counter() - started), watch or {})
                if bar is not None:
                    shown = {"loss": row["loss"], "validation accuracy": row["validation accuracy"]}
                    bar.set_postfix(shown | {"images/s": round(row["images/s"])}, refresh=False)
                if save is not None:
                    save()
                yield row
                started, seen, saved = time.perf_counter(), 0, time.monotonic()
            elif save is not None and time.monotonic() - saved > save_seconds:
                save()
                saved = time.monotonic()
        if bar is not None:
            bar.close()
        if self.best["weights"] is not None:
            self.model.load_state_dict(self.best["weights"])

    def _answer_once(self) -> None:
        # what a model looks at in its first call has to be waited for, so that is not left to a step
        few = self.data.train.batch(torch.arange(min(2, len(self.data.train)), device=self.device))
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []), evaluating(self.model):
            self.model(few.images)

    @property
    def columns(self) -> list[str]:
        """Of a row, without what is watched."""
        splits = dict.fromkeys(("validation", self.recipe.stop_on))
        judged = [f"{split} {value}" for split in splits for value in ("loss", "accuracy")]
        return ["epoch", "step", "loss", "accuracy", *judged, "learning rate", "images/s"]

    @property
    def total_steps(self) -> int:
        """Steps of all epochs; a training that stops early takes fewer."""
        return self.recipe.epochs * math.ceil(len(self.data.train) / self.recipe.batch)

    @property
    def seconds(self) -> float:
        """Seconds that it took so far, evaluations left out, also where it was cut: by the rows' images/s."""
        total, before = 0.0, 0.0
        for row in self.history:
            total += (row["epoch"] - before) * len(self.data.train) / row["images/s"]
            before = row["epoch"]
        return total

    def _indices(self, count: int) -> Iterator[Tensor]:
        while not self.done:
            epoch, order = self.epoch, self._order(count)
            while self.epoch == epoch and not self.done:
                yield order[self.offset : self.offset + self.recipe.batch]

    def _advance(self, count: int) -> bool:
        self.offset += count
        epoch_ended = self.offset >= len(self.data.train)
        if epoch_ended:
            self._call_hooks("after_epoch", self.model, self.data)
            self.epoch, self.offset = self.epoch + 1, 0
            self.done = self.epoch >= self.recipe.epochs
        return epoch_ended

    def _order(self, count: int) -> Tensor:
        generator = torch.Generator().manual_seed(_mix(self.seed, 1, self.epoch))
        return torch.randperm(count, generator=generator).to(self.device)

    @no_denormals()
    def _step(self, batch: Batch) -> None:
        recipe = self.recipe
        if batch.targets is None:
            generator = torch.Generator(self.device).manual_seed(_mix(self.seed, 2, self.step))
            batch = batch._replace(images=recipe.augment(batch.images, generator))
        self.model.train()
        for module in self.frozen:
            module.eval()
        self.train_step.options = self._loss_options()
        loss, scores = self.train_step(batch)
        rate = recipe.learning_rate_at(self.step, self.epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self._call_hooks("after_backward", self.model)
        self._call_hooks("before_step", self.optimizer)
        self.optimizer.step()
        self.step += 1
        self._call_hooks("after_step", self.model)
        with torch.no_grad():
            count = len(batch.labels)
            right = correct(scores, batch.labels).sum()
            self.sums += torch.stack((loss.float() * count, right, right.new_tensor(count), ~loss.isfinite()))

    def _loss_options(self) -> dict[str, Tensor]:
        moment = Moment(self.epoch, self.step, self.recipe.learning_rate_at(self.step, self.epoch))
        named = (hook.loss_options(moment) for hook in self.hooks if hasattr(hook, "loss_options"))
        return {name: torch.tensor(value, device=self.device) for found in named for name, value in found.items()}

    def _call_hooks(self, moment: str, *what: Any) -> None:
        for hook in self.hooks:
            if method := getattr(hook, moment, None):
                rate = self.recipe.learning_rate_at(self.step, self.epoch)
                method(*what, Moment(self.epoch, self.step, rate))

    def _report(self, speed: float, watch: Watch) -> Row:
        loss, right, count, bad = self.sums.tolist()
        if bad:
            raise Diverged(
                f"the loss was not a finite number in {int(bad)} of the steps up to {self.step} (epoch {self.epoch}); "
                "the state of the last report is kept: lower learning_rate or change the initialisation"
            )
        self.sums.zero_()
        self._check_weights()
        recipe = self.recipe
        row: Row = {
            "epoch": self.epoch + self.offset / len(self.data.train),
            "step": self.step,
            "loss": loss / count,
            "accuracy": right / count,
        }
        for name in dict.fromkeys(("validation", recipe.stop_on)):
            split = getattr(self.data, name)
            result = evaluate(self.model, split, loss=recipe.loss, reconstruction_weight=recipe.reconstruction_weight)
            row |= {f"{name} loss": result.loss, f"{name} accuracy": result.accuracy}
        row |= {"learning rate": recipe.learning_rate_at(self.step, self.epoch), "images/s": speed}
        self.history.append(row)
        # a measure may draw random numbers or leave modes changed: neither may reach the training
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices), evaluating(self.model, gradients=True):
            row |= {name: _plain(function(self)) for name, function in watch.items()}
        self._judge(row)
        return row

    def _check_weights(self) -> None:
        """Raise Diverged for a number that is none, as the last step's update may leave behind a finite loss."""
        named = {name: value for name, value in self.model.state_dict().items() if value.is_floating_point()}
        finite = torch.stack([value.isfinite().all() for value in named.values()]).tolist()
        if bad := [name for name, fine in zip(named, finite, strict=True) if not fine]:
            raise Diverged(
                f"{bad[0]} has values that are no finite numbers after step {self.step} (epoch {self.epoch}); "
                "the state of the last report is kept: lower learning_rate or change the initialisation"
            )

    def _judge(self, row: Row) -> None:
        recipe = self.recipe
        if row[f"{recipe.stop_on} loss"] < self.best["loss"]:
            self.best.update(loss=row[f"{recipe.stop_on} loss"], row=len(self.history))
            if recipe.keep == "best":
                self.best["weights"] = copy.deepcopy(self.model.state_dict())
        reached = recipe.target_accuracy is not None and row[f"{recipe.stop_on} accuracy"] >= recipe.target_accuracy
        tired = recipe.patience is not None and len(self.history) - self.best["row"] >= recipe.patience
        self.done = self.done or reached or tired

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimiser, hooks, generators, position and history: plain values and tensors only."""
        state = {name: getattr(self, name) for name in ("epoch", "offset", "step", "done", "best", "history", "sums")}
        return state | {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "hooks": [hook.state_dict() for hook in self.hooks],
            "generator": torch.get_rng_state(),
            "threads": torch.get_num_threads(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the position of `state_dict`: what follows is bit-identical on the same CPU and thread count."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for hook, hook_state in zip(self.hooks, state["hooks"], strict=True):
            hook.load_state_dict(hook_state)
        for name in ("epoch", "offset", "step", "done", "best", "history"):
            setattr(self, name, state[name])
        self.sums.copy_(state["sums"])
        torch.set_rng_state(state["generator"].cpu())


def freeze(model: nn.Module, prefixes: tuple[str, ...]) -> list[nn.Module]:
    """Stop the gradients of the named parts and return them: they stay in evaluation mode while training.

    Raises ValueError for a name that the model lacks.
    """
    frozen = []
    for prefix in prefixes:
        try:
            part = model.get_submodule(prefix)
        except AttributeError as error:
            known = ", ".join(name for name, _ in model.named_children())
            raise ValueError(f"{type(model).__name__} has no part {prefix!r} to freeze; it has: {known}") from error
        part.requires_grad_(False)
        frozen.append(part)
    return frozen


def seconds_per_image(training: Training, images: Split, steps: int = 3) -> float:
    """What an image costs in a step on one thread, the least of a few steps, or of fewer that take a second or more."""
    index, times = torch.arange(min(training.recipe.batch, len(images)), device=training.device), []
    with on_threads(1):
        for _ in range(steps):
            start = time.perf_counter()
            training._step(images.batch(index))
            training.sums.tolist()  # waits for the device
            times.append(time.perf_counter() - start)
            if sum(times) > 1:
                break
    return min(times) / len(index)


def _mix(seed: int, stream: int, count: int) -> int:
    # splitmix64's finaliser: neighbouring seeds and counts must not give overlapping streams
    value = (seed * 0x9E3779B97F4A7C15 + stream * 0xBF58476D1CE4E5B9 + count * 0x94D049BB133111EB) % 2**64
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
    return (value ^ (value >> 31)) >> 1


def _plain(value: Any) -> Any:
    # rows are written to csv and to a weights-only checkpoint: numbers, strings and lists of them
    return value.tolist() if hasattr(value, "tolist") else value


def _bar(total: int, initial: int) -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError:  # a bare machine with torch and numpy only trains without a bar
        return None
    watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    return tqdm(total=total, initial=initial, unit="step", mininterval=1.0 if watched else 30.0, leave=False)
