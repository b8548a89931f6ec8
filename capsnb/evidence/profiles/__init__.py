"""The only place where cost is decided: what each notebook trains, on what, how long, with how many seeds.

A notebook asks `plan("00", profile)` and never looks at the profile itself. Each notebook has a module here, whose
`content(profile)` says the rest: variants, seeds, which variants are trained `once` (with the first seed alone) and,
where needed, observers and sizes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from capsnb.evidence.profiles import bring_your_own, characterization, first_network, lin, parse_trees, rem, robustness
from capsnb.evidence.profiles.plans import PROFILES, RECORDED, Plan, seeded

PLANS: dict[str, Callable[[str], dict[str, Any]]] = {
    "00": first_network.content,
    "01": characterization.content,
    "02": lin.content,
    "03": rem.content,
    "04": parse_trees.content,
    "05": robustness.content,
    "07": bring_your_own.content,
}


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
    content = PLANS[notebook](profile)
    run_seeds = tuple(range(seed, seed + (seeds or content.pop("seeds"))))
    content.pop("seeds", None)
    variants, once = content.pop("variants"), content.pop("once", ())
    seeds_of = {name: run_seeds[:1] if name in once else run_seeds for name in variants}
    specs = {name: tuple(seeded(spec, number) for number in seeds_of[name]) for name, spec in variants.items()}
    return Plan(notebook, profile, run_seeds, specs, data_dir=None if data is None else Path(data), **content)


__all__ = ["PLANS", "PROFILES", "RECORDED", "Plan", "current", "plan"]
