"""The only place where cost is decided: what each notebook trains, on what, how long, with how many seeds.

A notebook asks `plan("00", profile)` and never looks at the profile itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from capsnb import runs
from capsnb.evaluation import test_accuracy
from capsnb.models import ZOO, CapsNetConfig, StridedStem
from capsnb.routing import Dynamic
from capsnb.runs import Observer, Run, Spec
from capsnb.specs import encode
from capsnb.synthesis import DataSpec
from capsnb.training import Recipe, Row

PROFILES = {
    "smoke": "every cell runs, nothing is learned: for continuous integration",
    "quick": "embedded real digits, reduced widths, a subset of the variants: minutes on two cores",
    "long": "the papers' own sets and sizes, shortened schedules, fewer seeds: hours on two cores",
    "full": "the papers' own sets, sizes and schedules: a GPU, or patience",
}
RECORDED = ("long", "full")  # whose measurements `capsnb results record` keeps


@dataclass(frozen=True)
class Plan:
    """What a notebook works with.

    specs: variant -> one spec per seed. observe, every: what its runs record, as `runs.follow` takes them.
    settings: the notebook's other sizes, by name. data_dir: folder of the image sets, CAPSNB_DATA when None.
    """

    notebook: str
    profile: str
    seeds: tuple[int, ...]
    specs: dict[str, tuple[Spec, ...]]
    observe: dict[str, Observer] = field(default_factory=dict)
    every: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    data_dir: Path | None = None

    def all_specs(self) -> list[Spec]:
        """Every spec that the notebook trains."""
        return [spec for specs in self.specs.values() for spec in specs]

    def protocol(self) -> dict[str, Any]:
        """What names this plan's runs in a record: profile and each variant's spec; seeds are left out, they join."""
        specs = {variant: encode(replace(specs[0], seed=0)) for variant, specs in self.specs.items()}
        return {"profile": self.profile, "specs": specs}

    def made(self) -> dict[str, Any]:
        """Code, versions, device and date of this plan's finished runs; where they differ, each one is named.

        Empty at the profiles that are never recorded.
        """
        folders = [runs.folder_of(spec, observe=self.observe, every=self.every) for spec in self.all_specs()]
        finished = [folder for folder in folders if (folder / "model.pt").exists() and self.profile in RECORDED]
        found = [runs.read_made(folder) for folder in finished]
        texts = {name: ", ".join(dict.fromkeys(made[name] for made in found)) for name in ("code", "device")}
        return texts | {"date": max(made["date"] for made in found), "versions": found[-1]["versions"]} if found else {}

    def follow(self, spec: Spec, **options: Any) -> Iterator[Row]:
        """`runs.follow` with what this plan observes and where its data lies."""
        return runs.follow(spec, observe=self.observe, every=self.every, data_dir=self.data_dir, **options)

    def get(self, spec: Spec, **options: Any) -> Run:
        """`runs.get` with what this plan observes and where its data lies."""
        return runs.get(spec, observe=self.observe, every=self.every, data_dir=self.data_dir, **options)

    def forecast(self) -> list[float]:
        """`runs.forecast` of all its specs: about how many seconds each will train."""
        specs, names = self.all_specs(), self.observe.keys()
        return runs.forecast(specs, observe=names, every=self.every, data_dir=self.data_dir)


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
    variants = content.pop("variants")
    specs = {name: tuple(replace(spec, seed=number) for number in run_seeds) for name, spec in variants.items()}
    return Plan(notebook, profile, run_seeds, specs, data_dir=None if data is None else Path(data), **content)


REDUCED = CapsNetConfig(stem=StridedStem(channels=64, types=8), decoder_widths=(256, 512))
SMALLEST = CapsNetConfig(stem=StridedStem(channels=8, types=2), decoder_widths=(16, 32))


def _first_network(profile: str) -> dict[str, Any]:
    name = "3 iterations, reconstruction"
    plan = {"seeds": 1, "observe": {"test accuracy": test_accuracy}, "settings": {"histogram images": 200}}
    if profile == "smoke":
        data = DataSpec(train=256, validation=100, test=100)
        return plan | {"variants": {name: Spec(model=SMALLEST, data=data, recipe=Recipe(epochs=1))}}
    if profile == "quick":
        return plan | {"variants": {name: Spec(model=REDUCED, recipe=Recipe(epochs=15))}}
    mnist = DataSpec(name="mnist")
    if profile == "long":
        return plan | {"variants": {name: Spec(model=CapsNetConfig(), data=mnist, recipe=Recipe(epochs=6))}}
    # 300,000 steps of 128, as the released code trains
    recipe = Recipe(epochs=698)
    no_decoder = replace(CapsNetConfig(), decoder="none")
    models = {
        "1 iteration": replace(no_decoder, routing=Dynamic(iterations=1)),
        "1 iteration, reconstruction": CapsNetConfig(routing=Dynamic(iterations=1)),
        "3 iterations": no_decoder,
        name: CapsNetConfig(),
    }
    variants = {variant: Spec(model=model, data=mnist, recipe=recipe) for variant, model in models.items()}
    baseline = Spec(model=ZOO["convnet-fc-28"].config, data=mnist, recipe=replace(recipe, loss="cross-entropy"))
    return plan | {"seeds": 3, "variants": {"baseline CNN": baseline} | variants}


PLANS: dict[str, Callable[[str], dict[str, Any]]] = {"00": _first_network}
