"""What the cells of a scorecard say together: effects that claims are judged by, differences, rank correlations.

deep = scorecard(...)
differences(deep, [("agreement", "uniform")], ["moves", "dead"])  # seed by seed, corrected over the table
rank_correlations(deep)  # of each two measures over networks
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from capsnb.evidence.columns import COLUMNS, Column
from capsnb.evidence.rules import Difference
from capsnb.evidence.scorecard import BEFORE, BySeed, Card, Cell
from capsnb.evidence.verdicts import holm

if TYPE_CHECKING:
    import pandas as pd


def effects(card: Card, column: str, networks: Sequence[str]) -> dict[str, BySeed]:
    """Numbers less nulls of a column, network -> seed -> effect, as claims are judged by; empty where one has none."""
    found = {}
    for name in networks:
        cell = card.get(name, {}).get(column, Cell({}, {}))
        found[name] = {s: cell.values[s] - cell.nulls[s] for s in sorted(cell.values.keys() & cell.nulls.keys())}
    return found if all(found.values()) else {}


def nulls(card: Card, column: str, networks: Sequence[str]) -> dict[str, BySeed]:
    """As `effects`, of the rows of the same networks before training, under the names of the trained ones."""
    found = effects(card, column, [f"{name}{BEFORE}" for name in networks])
    return {name.removesuffix(BEFORE): each for name, each in found.items()}


def differences(card: Card, pairs: Iterable[tuple[str, str]], columns: Iterable[str]) -> pd.DataFrame:
    """What one network has more than another in a column, paired by seed: difference, 95 % interval, whether zero is
    beyond it, and whether that survives Holm's correction over all rows. Columns without a spread are left out."""
    import pandas as pd

    columns, rows, found = list(columns), {}, []
    for pair, column in itertools.product(pairs, columns):
        if both := effects(card, column, pair):
            verdict = Difference(*pair, "higher").judge(both)
            if verdict.interval is not None:
                rows[f"{pair[0]} less {pair[1]}", column] = (verdict.mean, *verdict.interval, verdict.holds is not None)
                found.append(verdict)
    names = ["difference", "low", "high", "beyond zero"]
    shown = pd.DataFrame(
        list(rows.values()), columns=names, index=pd.MultiIndex.from_tuples(rows, names=["networks", "measure"])
    )
    return shown.assign(survives=holm(found))


class Rank(NamedTuple):
    """Spearman's correlation of two columns over networks, and whether it survives Holm's correction over the page."""

    columns: tuple[str, str]
    rho: float
    networks: int
    p: float
    survives: bool = False


def rank_correlations(card: Card, columns: Sequence[Column] = COLUMNS, *, least: int = 6) -> list[Rank]:
    """Of each two columns over the networks that have both: effects' means, since seeds are no independent rows.

    The surest first. Pairs with fewer than `least` networks, or a column without any spread, are left out.
    """
    from scipy.stats import spearmanr

    effects = {
        column.name: {
            name: cells[column.name].sample.mean for name, cells in card.items() if cells[column.name].sample.n
        }
        for column in columns
    }
    found = []
    for first, second in itertools.combinations(effects, 2):
        both = [name for name in effects[first] if name in effects[second]]
        sides = [[effects[column][name] for name in both] for column in (first, second)]
        if len(both) >= least and all(len(set(side)) > 1 for side in sides):
            result = spearmanr(*sides)
            found.append(Rank((first, second), float(result.statistic), len(both), float(result.pvalue)))
    kept = holm(found)
    ranked = [each._replace(survives=bool(own)) for each, own in zip(found, kept, strict=True)]
    return sorted(ranked, key=lambda each: each.p)


def drawn_survivors(
    card: Card, columns: Sequence[Column] = COLUMNS, *, kinds: int, draws: int = 40, seed: int = 0
) -> list[int]:
    """How many rank correlations survive Holm's correction over so many networks of a card drawn at random, sorted.

    The control of a choice of networks: fewer of them leave fewer pairs, whichever they are.
    """
    drawn, random = [], Random(seed)
    for _ in range(draws):
        chosen = set(random.sample(list(card), kinds))
        part = {name: cells for name, cells in card.items() if name in chosen}
        drawn.append(sum(each.survives for each in rank_correlations(part, columns)))
    return sorted(drawn)
