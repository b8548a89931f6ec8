"""The only place where cost is decided: what each notebook trains, on what, how long, with how many seeds.

A notebook asks `plan("00", profile)` and never looks at the profile itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from capsnb.models import ZOO, CapsNetConfig, StridedStem
from capsnb.routing import Dynamic
from capsnb.runs import Spec
from capsnb.synthesis import DataSpec
from capsnb.training import Recipe

PROFILES = {
    "smoke": "every cell runs, nothing is learned: for continuous integration",
    "quick": "embedded real digits, reduced widths, a subset of the variants: minutes on two cores",
    "full": "the papers' own sets, sizes and schedules: a GPU, or patience",
}


@dataclass(frozen=True)
class Plan:
    """What a notebook works with.

    specs: variant -> one spec per seed. settings: the notebook's other sizes, by name.
    """

    notebook: str
    profile: str
    seeds: tuple[int, ...]
    specs: dict[str, tuple[Spec, ...]]
    settings: dict[str, Any] = field(default_factory=dict)
    data_dir: Path | None = None

    def all_specs(self) -> list[Spec]:
        """Every spec that the notebook trains."""
        return [spec for specs in self.specs.values() for spec in specs]


def current(profile: str | None = None) -> str:
    """The profile asked for, else CAPSNB_PROFILE, else "quick"; ValueError for an unknown one."""
    name = profile or os.environ.get("CAPSNB_PROFILE") or "quick"
    if name not in PROFILES:
        raise ValueError(f"profile {name!r} is unknown; allowed: {', '.join(PROFILES)}")
    return name


def plan(
    notebook: str,
    profile: str | None = None,
    *,
    seed: int = 0,
    seeds: int | None = None,
    data: str | Path | None = None,
) -> Plan:
    """The plan of a notebook, named by its number.

    seed: the first seed. seeds: how many, in place of the profile's own number. data: folder of the image sets.
    Raises ValueError for an unknown notebook or profile, or fewer than one seed.
    """
    if notebook not in PLANS:
        raise ValueError(f"there is no notebook {notebook!r}; there are: {', '.join(PLANS)}")
    if seeds is not None and seeds < 1:
        raise ValueError(f"seeds = {seeds}: at least 1 is needed")
    profile = current(profile)
    count, variants, settings = PLANS[notebook](profile)
    run_seeds = tuple(range(seed, seed + (seeds or count)))
    specs = {name: tuple(replace(spec, seed=number) for number in run_seeds) for name, spec in variants.items()}
    return Plan(notebook, profile, run_seeds, specs, settings, None if data is None else Path(data))


REDUCED = CapsNetConfig(stem=StridedStem(channels=64, types=8), decoder_widths=(256, 512))
SMALLEST = CapsNetConfig(stem=StridedStem(channels=8, types=2), decoder_widths=(16, 32))


def _first_network(profile: str) -> tuple[int, dict[str, Spec], dict[str, Any]]:
    name = "3 iterations, reconstruction"
    if profile == "smoke":
        data = DataSpec(train=256, validation=100, test=100)
        return 1, {name: Spec(model=SMALLEST, data=data, recipe=Recipe(epochs=1))}, {"histogram images": 50}
    if profile == "quick":
        return 1, {name: Spec(model=REDUCED, recipe=Recipe(epochs=15))}, {"histogram images": 200}
    # 300,000 steps of 128, as the released code trains
    recipe, data = Recipe(epochs=640), DataSpec(name="mnist")
    no_decoder = replace(ZOO["capsnet"].config, decoder="none")
    models = {
        "baseline CNN": ZOO["convnet-fc-28"].config,
        "1 iteration": replace(no_decoder, routing=Dynamic(iterations=1)),
        "1 iteration, reconstruction": CapsNetConfig(routing=Dynamic(iterations=1)),
        "3 iterations": no_decoder,
        name: CapsNetConfig(),
    }
    variants = {
        variant: Spec(
            model=model,
            data=data,
            recipe=replace(recipe, loss="cross-entropy") if variant == "baseline CNN" else recipe,
        )
        for variant, model in models.items()
    }
    return 3, variants, {"histogram images": 1000}


PLANS: dict[str, Callable[[str], tuple[int, dict[str, Spec], dict[str, Any]]]] = {"00": _first_network}
