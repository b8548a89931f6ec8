"""The columns of the scorecard: which number of which measure, beside which null, and what more of it says."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from capsnb.measure.compactness import VALUES
from capsnb.measure.observe import UNTRAINED
from capsnb.measure.protocol import GU, LIN, MITTERREITER, RENZULLI, TAWALBEH

CONTROLS, CHANCE = "controls", "chance"


@dataclass(frozen=True)
class Read:
    """The mean of the numbers at the ends of ways among a measure's values: names, places in lists.

    nan where the measure found one of them not.
    """

    ways: tuple[tuple[str | int, ...], ...]

    def __call__(self, values: Mapping[str, Any]) -> float:
        return statistics.fmean(_end(values, way) for way in self.ways)

    def __str__(self) -> str:
        return ("mean of " if len(self.ways) > 1 else "") + "; ".join(" > ".join(map(str, way)) for way in self.ways)


def _end(values: Mapping[str, Any], way: tuple[str | int, ...]) -> float:
    found: Any = values
    for step in way:
        found = found[step]
    return math.nan if found is None else float(found)


def at(*way: str | int) -> Read:
    """The number at the end of one way."""
    return Read((way,))


def mean_of(*names: str) -> Read:
    """The mean of several numbers."""
    return Read(tuple((name,) for name in names))


@dataclass(frozen=True)
class Column:
    """What a column of the scorecard shows.

    value: reads the number among the values of `measure`; None for GROUPS, whose number two seeds have. null: reads it
    there, too, or UNTRAINED, the number of the network as its seed draws it; CONTROLS, the mean of the plan's controls;
    CHANCE, 0 by what the number is. up: what a number above its null says. why: there is no such measure of a trained
    network, and why not. ranks: the number is of units chosen by their couplings, so that it says nothing of a network
    whose couplings are even by construction: there all units tie, and the first ones are taken.
    """

    name: str
    paper: str
    measure: str
    value: Read | None
    null: Read | str
    unit: str
    up: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""
    ranks: bool = False

    @property
    def author(self) -> str:
        """The first of the paper's."""
        return self.paper.split()[1]


GROUPS = "key groups"  # the measure whose values two seeds have between them
HALF = 3  # place of half a spread among the thresholds of entanglement
SWAPPED = {"units": (10,), "images": 200}
COLUMNS = (
    Column(
        "few units",
        TAWALBEH,
        "path",
        at("accuracy of its few best capsules, %"),
        at("null: of as many at random, %"),
        "points",
        "the tenth of the units with the largest couplings classifies better than a tenth at random",
        ranks=True,
    ),
    Column(
        "set answers",
        TAWALBEH,
        "swapped set",
        at("the set's class", 0),
        at("null: random, the set's", 0),
        "points",
        "units of another class say that class, whatever the image",
        SWAPPED,
        ranks=True,
    ),
    Column(
        "parts in wholes",
        TAWALBEH,
        "part-whole",
        at("part inside its whole (RMA), %"),
        at("null: inside another image's, %"),
        "points",
        "a part looks where its whole does",
        ranks=True,
    ),
    Column(
        "entangled",
        TAWALBEH,
        "entanglement",
        at("several, %", "dimensions", HALF),
        at("several, %", "null: random axes", HALF),
        "points",
        "a number of a pose moves several properties, more often than an axis at random",
        {"images": 4, "poses": 500},
    ),
    Column("certain", LIN, "certainty", at("certainty, 0 to 1"), UNTRAINED, "share", "couplings are less even"),
    Column(
        "plane of shifts",
        LIN,
        "plane",
        at("class poses keep the plane of shifts (Spearman)"),
        at("null: pixels"),
        "Spearman",
        "poses follow shifts better than pixels do",
    ),
    Column(
        "transfer cost",
        LIN,
        "",
        None,
        CHANCE,
        "points",
        "layers learned elsewhere serve less well than layers learned here",
        why="not measurable here: it asks for trainings of its own, which notebook 02 has",
    ),
    Column(
        "keys",
        RENZULLI,
        "keys",
        at("entropy of keys, share of its bound"),
        UNTRAINED,
        "share of bound",
        "images have more different parse trees",
    ),
    Column("same trees", RENZULLI, GROUPS, None, CHANCE, "Rand index", "two seeds put the same images together"),
    Column(
        "moves",
        MITTERREITER,
        "starvation",
        at("dyr of the routing to classes, 0 to 1"),
        UNTRAINED,
        "dyr",
        "couplings differ more between images",
    ),
    Column(
        "dead", MITTERREITER, "starvation", at("dead capsules, %"), UNTRAINED, "points", "capsules died in training"
    ),
    Column(
        "keeps of a turn",
        MITTERREITER,
        "turned",
        at("class capsules keep of a turn, share"),
        UNTRAINED,
        "share",
        "turned images leave the classes' lengths as they were",
    ),
    Column(
        "compact",
        GU,
        "compactness by factor",
        mean_of(*VALUES),
        mean_of(*(f"turned: {factor}" for factor in VALUES)),
        "nats",
        "a property of the image moves fewer numbers of a pose than axes at random",
        {"images": 40},
    ),
    *(
        Column(
            f"lost by {name}",
            GU,
            "robustness",
            at(f"points lost by {name}"),
            CONTROLS,
            "points",
            "more accuracy is lost than by networks without capsules",
        )
        for name in ("rotation", "shifts", "scale")
    ),
    *(
        Column(
            f"lost by {name}",
            GU,
            "warp by place",
            at(f"points lost by {name}, near"),
            CONTROLS,
            "points",
            "more accuracy is lost than by networks without capsules",
        )
        for name in ("shear", "warp")
    ),
    Column(
        "warp elsewhere",
        GU,
        "warp by place",
        at("points lost by warp, far"),
        at("points lost by warp, near"),
        "points",
        "a warped digit is lost more often where no digit of the training lay",
    ),
)
# where no network without capsules stands beside and the survey alone was taken: costs for themselves, and compactness
# over the untrained network's
SURVEYED: dict[str, Any] = {
    "measure": "compactness",
    "value": at("compactness, mean of six factors, nats"),
    "null": UNTRAINED,
    "settings": {},
}
ALONE = tuple(
    replace(each, **SURVEYED)
    if each.name == "compact"
    else replace(each, null=CHANCE)
    if each.null == CONTROLS
    else each
    for each in COLUMNS
)
