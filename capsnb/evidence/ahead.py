"""What notebooks train before they are executed, and about how long that takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from capsnb.evidence import plans
from capsnb.evidence.notebooks import duration
from capsnb.installation import has_project
from capsnb.training import parallel


class Training:
    """What notebooks train before they are executed: all their plans' runs, each once, side by side.

    profile: None is each notebook's own. Nothing is trained for one that is drawn from the evidence store.
    """

    def __init__(
        self, chosen: Iterable[Path], profile: str | None, *, seed: int, seeds: int | None, data: Path | None
    ) -> None:
        self.header = f"Profile {profile}: {plans.PROFILES[profile]}." if profile else "Each at its own profile."
        planned = plans.planned() if has_project() else {}
        found = {
            path.name: plans.plan(
                path.name[:2], profile or plans.opens(path.name[:2]), seed=seed, seeds=seeds, data=data
            )
            for path in chosen
            if planned.get(path.stem[:2]) == path.stem[3:]  # another's notebook 03 is none of ours
        }
        self.plans = {name: plan for name, plan in found.items() if not plan.recorded}
        self.work: dict[Any, dict] = {}  # spec -> what is watched, by all the notebooks that train it
        self.seconds: dict[Any, float] = {}
        self.data = data

    def forecast(self) -> Iterator[str]:
        """What will be trained, variant by variant, and about how long that takes on one thread of this machine."""
        yield self.header
        for name, plan in self.plans.items():
            try:
                costs = dict(zip(plan.all_specs(), plan.forecast(), strict=True))
            except (ValueError, FileNotFoundError) as error:
                yield f"{name}: no forecast. {' '.join(str(error).split())}"
                continue
            yield f"{name}:"
            for spec in costs:
                self.work.setdefault(spec, {}).update(plan.watching())
            self.seconds |= costs
            for variant, specs in plan.specs.items():
                todo = sum(costs[spec] for spec in specs)
                done = f"about {duration(todo)}" if todo else "trained before"
                size = f"{_count(len(specs), 'seed')} x {_count(specs[0].recipe.epochs, 'epoch')}"
                yield f"  {variant}: {size} on {specs[0].data.name}, {done}"
        if self.work:
            total = sum(self.seconds.values())
            yield f"Training takes about {duration(total)} on one core." if total else "Nothing to train."

    def run(self, jobs: int | None = None, *, tell: Callable[[str], None] | None = None) -> list[Any]:
        """Train what `forecast` named and is not there, `jobs` at a time; returns what failed, told as it fails."""
        if not any(self.seconds.values()):
            return []
        return parallel.train(self.work, jobs=jobs, data_dir=self.data, seconds=self.seconds, tell=tell)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
