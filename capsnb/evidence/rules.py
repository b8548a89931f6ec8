"""The rules that decide a claim. Each is written down before anything is measured, and turns seeds into a verdict.

Measured values are given per variant: a sequence with one number per seed, all variants in the same order of seeds, or
a mapping seed -> number (then variants are paired on the seeds they share). Intervals are two-sided 95 % t-intervals.
Everything but `Exact` needs three seeds that differ; with fewer, or without a spread, the verdict is "undecided". An
interval is no narrower than a `Floor` allows. Where a number is printed, what the interval says of it stands apart from
the direction (`Verdict.size`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any, ClassVar, Literal

from capsnb.evidence.verdicts import (
    MINIMUM_SEEDS,
    Floor,
    Sample,
    Size,
    Verdict,
    describe,
    of_ranks,
    sample,
    show,
    size,
    word,
)

Values = float | Sequence[float] | Mapping[int, float]
Measured = Mapping[str, Values]
Direction = Literal["higher", "lower"]


def align(measured: Measured, *variants: str) -> list[list[float]]:
    """One list of values per variant, paired by seed.

    Sequences of different length, sequences mixed with mappings, and values that are not finite raise ValueError.
    """
    columns: list[Any] = [measured[name] for name in variants]
    columns = [[column] if isinstance(column, int | float) else column for column in columns]
    if all(isinstance(column, Mapping) for column in columns):
        seeds = sorted(set.intersection(*(set(column) for column in columns)))
        columns = [[column[seed] for seed in seeds] for column in columns]
    elif any(isinstance(column, Mapping) for column in columns):
        raise ValueError(f"{' and '.join(variants)}: give all variants as sequences or all as seed -> value.")
    aligned = [[float(value) for value in column] for column in columns]
    if len({len(column) for column in aligned}) > 1:
        counts = ", ".join(f"{name} has {len(column)}" for name, column in zip(variants, aligned, strict=True))
        raise ValueError(f"Variants are compared seed by seed, so each needs the same seeds: {counts}.")
    for name, column in zip(variants, aligned, strict=True):
        if bad := [value for value in column if not math.isfinite(value)]:
            raise ValueError(f"{name} holds {bad[0]}: a measured value must be finite, so leave a failed run out.")
    return aligned


def printed(published: Sequence[float]) -> float | None:
    """The number or the difference that a source prints: () -> None, (value,), (variant's value, against's value)."""
    return published[0] - published[1] if len(published) == 2 else published[0] if published else None


class _Sampled(ABC):
    """What rules share that judge one sample, a mean or a paired difference: its interval against a region.

    A printed number agrees with a mean within the rule's tolerance, of a rule without one if the interval contains it.
    """

    @property
    @abstractmethod
    def text(self) -> str:
        """The rule in words."""

    @property
    def variants(self) -> tuple[str, ...]:
        return tuple(getattr(self, name) for name in ("variant", "against") if hasattr(self, name))

    def found(self, measured: Measured, floor: Floor | None = None) -> Sample:
        """The sample that decides: of the variant, or of `variant - against` paired by seed."""
        first, *second = columns = align(measured, *self.variants)
        values = [value - other for value, other in zip(first, *second, strict=True)] if second else first
        least = floor.half(*(sample(column).mean for column in columns)) if floor else 0.0
        return sample(values, least)

    def judge(self, measured: Measured, published: Sequence[float] = (), floor: Floor | None = None) -> Verdict:
        """published: the numbers that a source prints, as many as `published` allows."""
        low, high = self.region(published)
        found, number = self.found(measured, floor), printed(published)
        signed, tolerance = len(self.variants) > 1, getattr(self, "tolerance", None)
        shared: dict[str, Any] = {"mean": found.mean, "std": found.std, "n": found.n, "interval": found.interval}
        shared["shown"] = show(found, signed=signed)
        if found.interval is None:
            asked = "" if found.n >= MINIMUM_SEEDS else str(MINIMUM_SEEDS)
            return Verdict("undecided", found.lack, size=size(found, number, None, None), asked=asked, **shared)
        holds, reason, gap = self.decide(found, low, high)
        agreement = size(found, number, tolerance, holds)
        name, p = word(holds, agreement), found.p(low, high, holds)
        if agreement == "excluded" and holds is not False and number is not None:
            reason += f"; the printed {number:{'+' if signed else ''}.4g} is excluded"
            p = p if holds else found.p(number - (tolerance or 0.0), number + (tolerance or 0.0), False)
        elif agreement == "open" and holds:
            reason += "; the interval only reaches into the tolerance of the printed number"
        asked = found.asked(gap) if name == "undecided" else ""
        return Verdict(name, reason, holds=holds, size=agreement, p=p, asked=asked, **shared)

    @abstractmethod
    def region(self, published: Sequence[float]) -> tuple[float, float]:
        """Where the whole interval has to lie."""

    def decide(self, found: Sample, low: float, high: float) -> tuple[bool | None, str, float]:
        """Whether the claim holds, why, and how far the mean is from the end of the region that keeps it open."""
        least, most = found.ends
        if low < least and most < high:
            return True, self.text, 0.0
        if most <= low or least >= high:
            side = f"below {low + 0.0:g}" if most <= low else f"above {high + 0.0:g}"
            return False, f"the whole interval lies {side}", 0.0
        ends = [end for end in (low, high) if least <= end <= most]
        reason = f"the interval contains {' and '.join(f'{end + 0.0:g}' for end in ends)}"
        return None, reason, min(abs(found.mean - end) for end in (low, high))


@dataclass(frozen=True)
class Value(_Sampled):
    """The mean of one variant lies within `tolerance` of the published value (in its unit).

    An interval wholly outside the band is not reproduced; one that only touches it, or that spills over both of its
    ends, is undecided. With `better`, any mean on that side of the published value counts as inside.
    """

    variant: str
    tolerance: float
    better: Direction | None = None
    published: ClassVar[tuple[int, ...]] = (1,)

    @property
    def text(self) -> str:
        side = f", or {self.better}" if self.better else ""
        return f"mean within {self.tolerance:g} of the published value{side}"

    def region(self, published: Sequence[float]) -> tuple[float, float]:
        low = -math.inf if self.better == "lower" else published[0] - self.tolerance
        return low, math.inf if self.better == "higher" else published[0] + self.tolerance

    def decide(self, found: Sample, low: float, high: float) -> tuple[bool | None, str, float]:
        """The mean decides, unless seeds scatter too much to say anything."""
        least, most = found.ends
        spilled = least < low and most > high
        if low <= found.mean <= high:
            reason = "seeds scatter more than the tolerance" if spilled else self.text
            return None if spilled else True, reason, max(found.mean - low, high - found.mean)
        holds, reason, gap = super().decide(found, low, high)
        reaches = "the mean is outside the tolerance, its interval reaches into it"
        return holds, reason if holds is False else reaches, gap


@dataclass(frozen=True)
class Difference(_Sampled):
    """One variant is higher (or lower) than another, by more than `margin`, paired by seed.

    The interval of `variant - against` decides: with the margin inside it the claim is undecided. `tolerance` is that
    of the published difference (two published numbers, or one that is the difference). A negative margin asks for "not
    worse by more than".
    """

    variant: str
    against: str
    direction: Direction
    tolerance: float | None = None
    margin: float = 0.0
    published: ClassVar[tuple[int, ...]] = (0, 1, 2)

    @property
    def text(self) -> str:
        other = {"higher": "lower", "lower": "higher"}[self.direction]
        sense = f"not {other}" if self.margin < 0 else self.direction
        by = f" by more than {abs(self.margin):g}" if self.margin else ""
        size = f", difference within {self.tolerance:g} of the published one" if self.tolerance is not None else ""
        return f"{self.variant} {sense} than {self.against}{by}{size}"

    def region(self, published: Sequence[float]) -> tuple[float, float]:
        if self.tolerance is not None and not published:
            raise ValueError(
                f"Difference({self.variant!r}) has a tolerance but no published difference to compare with."
            )
        return (self.margin, math.inf) if self.direction == "higher" else (-math.inf, -self.margin)


@dataclass(frozen=True)
class Equivalence(_Sampled):
    """The paired difference `variant - against` stays within `tolerance` of zero, its whole interval."""

    variant: str
    against: str
    tolerance: float
    published: ClassVar[tuple[int, ...]] = (0, 1, 2)

    @property
    def text(self) -> str:
        return f"{self.variant} and {self.against} differ by at most {self.tolerance:g}"

    def region(self, published: Sequence[float]) -> tuple[float, float]:
        return -self.tolerance, self.tolerance


@dataclass(frozen=True)
class Order:
    """The means of the variants fall (`direction="lower"`: rise) in the order they are listed.

    Every neighbouring pair must differ by seed-paired intervals that exclude zero. One pair that is surely the other
    way round is enough for "not reproduced". When only some variants were run and those agree: "direction only". The
    printed size is that of the neighbours' differences; where a pair's direction is open, so is the whole.
    """

    order: tuple[str, ...]
    direction: Direction = "higher"
    partial: ClassVar[bool] = True

    @property
    def variants(self) -> tuple[str, ...]:
        return self.order

    @property
    def published(self) -> tuple[int, ...]:
        return (0, len(self.order))

    @property
    def text(self) -> str:
        return (" > " if self.direction == "higher" else " < ").join(self.order)

    def judge(self, measured: Measured, published: Sequence[float] = (), floor: Floor | None = None) -> Verdict:
        """published: () or a number for each variant. At least two of the variants must be there."""
        present = [name for name in self.order if name in measured]
        shown = ", ".join(f"{name} {describe(sample(align(measured, name)[0]).mean)}" for name in present)
        numbers = dict(zip(self.order, published, strict=True)) if published else {}
        pairs = {
            pair: Difference(*pair, self.direction).judge(measured, [numbers[name] for name in pair if numbers], floor)
            for pair in combinations(present, 2)
        }
        near = [pairs[pair] for pair in pairwise(present)]
        shared: dict[str, Any] = {"n": near[0].n, "shown": shown, "size": "open" if published else "-"}
        if few := next((found for found in pairs.values() if found.n < MINIMUM_SEEDS), None):
            return Verdict("undecided", few.reason, asked=few.asked, **shared | {"n": few.n})
        tested = [found.p for found in near if found.p is not None]
        if reversed_pairs := [pair for pair, found in pairs.items() if found.holds is False]:
            # any pair would have been enough, so each had its chance
            lowest = min(p for pair in reversed_pairs if (p := pairs[pair].p) is not None)
            reason = f"{' and '.join(reversed_pairs[0])} are the other way round"
            return Verdict("not reproduced", reason, holds=False, p=min(1.0, len(pairs) * lowest), **shared)
        if open_pairs := [pair for pair in pairwise(present) if pairs[pair].holds is None]:
            reason = pairs[open_pairs[0]].reason.partition(";")[0]
            named = ", ".join(" and ".join(pair) for pair in open_pairs)
            asked = [pairs[pair].asked for pair in open_pairs if pairs[pair].asked]
            most = max(asked, key=lambda text: (not text.isdecimal(), text.isdecimal() and int(text)), default="")
            p = max(tested) if len(tested) == len(near) else None
            return Verdict("undecided", f"{reason} between {named}", p=p, asked=most, **shared)
        shared |= {"holds": True, "p": max(tested)}
        if missing := [name for name in self.order if name not in measured]:
            return Verdict("direction only", f"not run: {', '.join(missing)}; the others agree", **shared)
        sizes = {found.size for found in near}
        shared["size"] = "excluded" if "excluded" in sizes else sizes.pop()
        off = "; a printed difference is excluded" if shared["size"] == "excluded" else ""
        return Verdict(word(True, shared["size"]), self.text + off, **shared)


@dataclass(frozen=True)
class Bound(_Sampled):
    """The mean of a variant lies above and (or) below a threshold, with its whole interval."""

    variant: str
    below: float | None = None
    above: float | None = None
    published: ClassVar[tuple[int, ...]] = (0, 1)

    def __post_init__(self) -> None:
        if self.below is None and self.above is None:
            raise ValueError(f"Bound({self.variant!r}) needs a threshold: below=..., above=..., or both.")

    @property
    def text(self) -> str:
        sides = {"above": self.above, "below": self.below}
        return f"{self.variant} " + " and ".join(f"{side} {at:g}" for side, at in sides.items() if at is not None)

    def region(self, published: Sequence[float]) -> tuple[float, float]:
        return -math.inf if self.above is None else self.above, math.inf if self.below is None else self.below


@dataclass(frozen=True)
class Correlation:
    """Two numbers put kinds of network in one order ("lower": in opposite ones): Spearman's rho is above (below) zero.

    A value is a kind's mean, under the kind's number: seeds of a kind are no independent rows.
    """

    first: str
    second: str
    direction: Direction = "higher"
    published: ClassVar[tuple[int, ...]] = (0,)

    @property
    def variants(self) -> tuple[str, ...]:
        return (self.first, self.second)

    @property
    def text(self) -> str:
        side = "one order" if self.direction == "higher" else "opposite orders"
        return f"{self.first} and {self.second} put kinds of network in {side} (Spearman, a row per kind)"

    def judge(self, measured: Measured, published: Sequence[float] = (), floor: Floor | None = None) -> Verdict:
        """measured: each of the two -> kind -> mean."""
        return of_ranks(*align(measured, *self.variants), higher=self.direction == "higher", reason=self.text)


@dataclass(frozen=True)
class Exact:
    """A count or a closed form equals the published number (or `value`) within `within`: rounding, not noise."""

    variant: str
    value: float | None = None
    within: float = 0.0
    published: ClassVar[tuple[int, ...]] = (0, 1)

    @property
    def variants(self) -> tuple[str, ...]:
        return (self.variant,)

    @property
    def text(self) -> str:
        number = "the published number" if self.value is None else f"{self.value:g}"
        return f"equals {number}" + (f" within {self.within:g}" if self.within else "")

    def judge(self, measured: Measured, published: Sequence[float] = (), floor: Floor | None = None) -> Verdict:
        """published: (value,), or () when the rule has its own value."""
        if self.value is None and not published:
            raise ValueError(f"Exact({self.variant!r}) has nothing to compare with: give value=... or a published key.")
        expected = published[0] if self.value is None else self.value
        values = align(measured, self.variant)[0]
        off = max((abs(value - expected) for value in values), default=math.nan)
        holds = off <= self.within
        reason = self.text if holds else f"off by {describe(off)}"
        agreement: Size = ("agrees" if holds else "excluded") if published else "-"
        shared: dict[str, Any] = {"mean": values[0], "n": len(values), "shown": describe(values[0])}
        return Verdict("reproduced" if holds else "not reproduced", reason, holds=holds, size=agreement, **shared)


Rule = Value | Difference | Equivalence | Order | Bound | Correlation | Exact
