"""A plan: what a notebook trains and with what it works, for a profile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from capsnb.training import runs
from capsnb.training.configs import encode
from capsnb.training.loop import Row
from capsnb.training.runs import Observer, Run, Spec

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

    specs: variant -> one spec per seed, or that of the first seed alone. observe, every: what its runs record, as
    `runs.follow` takes them.
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
        specs = {variant: encode(seeded(specs[0], 0)) for variant, specs in self.specs.items()}
        return {"profile": self.profile, "specs": specs}

    def made(self) -> dict[str, Any]:
        """Code, versions, device and date of this plan's finished runs; where they differ, each one is named.

        Empty at the profiles that are never recorded.
        """
        folders = [runs.folder_of(spec, observe=self.observe, every=self.every) for spec in self.all_specs()]
        finished = [folder for folder in folders if (folder / "model.pt").exists() and self.profile in RECORDED]
        found = [runs.read_made(folder) for folder in finished]
        # a run that was cut names its versions "one, then another"
        parts = {name: [part for made in found for part in made[name].split(", then ")] for name in ("code", "device")}
        texts = {name: ", ".join(dict.fromkeys(each)) for name, each in parts.items()}
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


def seeded(spec: Spec, seed: int) -> Spec:
    """The spec with a seed, and with that of the run it starts from: each seed goes on from its own."""
    start = seeded(spec.start, seed) if isinstance(spec.start, Spec) else spec.start
    return replace(spec, seed=seed, start=start)
