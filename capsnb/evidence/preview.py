"""What a run of notebooks will train and about how long that takes, said before it begins."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from capsnb.evidence import profiles


def lines(chosen: Iterable[Path], profile: str, *, seed: int, seeds: int | None, data: Path | None) -> Iterator[str]:
    """What these notebooks will train, variant by variant, and about how long that takes on this machine."""
    yield f"Profile {profile}: {profiles.PROFILES[profile]}."
    total = 0.0
    planned = False
    for path in chosen:
        if path.name[:2] not in profiles.PLANS:
            continue
        plan = profiles.plan(path.name[:2], profile, seed=seed, seeds=seeds, data=data)
        try:
            forecast = iter(plan.forecast())
        except (ValueError, FileNotFoundError) as error:
            yield f"{path.name}: no forecast. {' '.join(str(error).split())}"
            continue
        planned = True
        yield f"{path.name}:"
        for variant, specs in plan.specs.items():
            seconds = [next(forecast) for _ in specs]
            todo = [spec for spec, cost in zip(specs, seconds, strict=True) if cost]
            done = "trained before" if not todo else f"about {_duration(sum(seconds))}"
            size = f"{_count(len(specs), 'seed')} x {_count(specs[0].recipe.epochs, 'epoch')} on {specs[0].data.name}"
            yield f"  {variant}: {size}, {done}"
            total += sum(seconds)
    if planned:
        yield f"Training takes about {_duration(total)} on this machine." if total else "Nothing to train."


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 1):.0f} s"
