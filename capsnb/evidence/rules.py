"""The rules that decide a claim. Each is written down before anything is measured, and turns seeds into a verdict.

Measured values are given per variant: a sequence with one number per seed, all variants in the same order of seeds, or
a mapping seed -> number (then variants are paired on the seeds they share). Intervals are two-sided 95 % t-intervals.
Everything but `Exact` needs three seeds; with fewer the verdict is "undecided".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import ClassVar, Literal

from capsnb.evidence.verdicts import FEW, Sample, Verdict, describe, judged, sample, significant

Values = float | Sequence[float] | Mapping[int, float]
Measured = Mapping[str, Values]
Direction = Literal["higher", "lower"]


def align(measured: Measured, *variants: str) -> list[list[float]]:
    """One list of values per variant, paired by seed.

    Sequences of different length, sequences mixed with mappings, and values that are not finite raise ValueError.
    """
    columns = [measured[name] for name in variants]
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


def difference(measured: Measured, variant: str, against: str) -> Sample:
    """Summary of `variant - against`, paired by seed."""
    values, others = align(measured, variant, against)
    return sample([value - other for value, other in zip(values, others, strict=True)])


@dataclass(frozen=True)
class Value:
    """The mean of one variant lies within `tolerance` of the published value (in its unit).

    An interval wholly outside the band is not reproduced; one that only touches it, or that spills over both of its
    ends, is undecided. With `better`, any mean on that side of the published value counts as inside.
    """

    variant: str
    tolerance: float
    better: Direction | None = None
    published: ClassVar[tuple[int, ...]] = (1,)

    @property
    def variants(self) -> tuple[str, ...]:
        return (self.variant,)

    @property
    def text(self) -> str:
        side = f", or {self.better}" if self.better else ""
        return f"mean within {self.tolerance:g} of the published value{side}"

    def judge(self, measured: Measured, published: Sequence[float]) -> Verdict:
        """published: (value,)."""
        (values,) = align(measured, self.variant)
        found = sample(values)
        low = -math.inf if self.better == "lower" else published[0] - self.tolerance
        high = math.inf if self.better == "higher" else published[0] + self.tolerance
        if found.interval is None:
            return judged("undecided", found, FEW.format(n=found.n))
        if found.interval[1] < low or found.interval[0] > high:
            return judged("not reproduced", found, f"the interval lies outside {self.text}")
        if not low <= found.mean <= high:
            return judged("undecided", found, "the mean is outside the tolerance, its interval reaches into it")
        if found.interval[0] < low and found.interval[1] > high:
            return judged("undecided", found, "seeds scatter more than the tolerance")
        return judged("reproduced", found, self.text)


@dataclass(frozen=True)
class Difference:
    """One variant is higher (or lower) than another, by more than `margin`, paired by seed.

    The interval of `variant - against` decides: with the margin inside it the claim is undecided, unless every seed's
    difference is the margin itself (zero, as a rule): then there is none, and nothing to wait for. Where a published
    difference is known (two published numbers, or one that is the difference) and `tolerance` is given, a difference
    of the right sign but another size is "direction only". A negative margin asks for "not worse by more than".
    """

    variant: str
    against: str
    direction: Direction
    tolerance: float | None = None
    margin: float = 0.0
    published: ClassVar[tuple[int, ...]] = (0, 1, 2)

    @property
    def variants(self) -> tuple[str, ...]:
        return (self.variant, self.against)

    @property
    def text(self) -> str:
        other = {"higher": "lower", "lower": "higher"}[self.direction]
        sense = f"not {other}" if self.margin < 0 else self.direction
        by = f" by more than {abs(self.margin):g}" if self.margin else ""
        size = f", difference within {self.tolerance:g} of the published one" if self.tolerance is not None else ""
        return f"{self.variant} {sense} than {self.against}{by}{size}"

    def judge(self, measured: Measured, published: Sequence[float]) -> Verdict:
        """published: () or (difference,) or (variant's value, against's value)."""
        found = difference(measured, self.variant, self.against)
        if found.interval is None:
            return judged("undecided", found, FEW.format(n=found.n), signed=True)
        way = 1 if self.direction == "higher" else -1
        sign = way * significant(found.interval, way * self.margin)
        if sign == 0 and found.interval[0] == found.interval[1]:
            return judged("not reproduced", found, f"the difference is {found.mean:g} in every seed", signed=True)
        if sign == 0:
            reason = f"the interval of the difference contains {way * self.margin + 0.0:g}"
            return judged("undecided", found, reason, signed=True)
        if sign < 0:
            return judged("not reproduced", found, "the whole interval lies on the other side", signed=True)
        expected = published[0] - published[1] if len(published) == 2 else published[0] if published else None
        if self.tolerance is not None and expected is None:
            raise ValueError(
                f"Difference({self.variant!r}) has a tolerance but no published difference to compare with."
            )
        if self.tolerance is not None and abs(found.mean - expected) > self.tolerance:
            reason = f"right sign; the published difference {expected:+.4g} is further than {self.tolerance:g} away"
            return judged("direction only", found, reason, signed=True)
        return judged("reproduced", found, self.text, signed=True)


@dataclass(frozen=True)
class Equivalence:
    """The paired difference `variant - against` stays within `tolerance` of zero, its whole interval."""

    variant: str
    against: str
    tolerance: float
    published: ClassVar[tuple[int, ...]] = (0, 1, 2)

    @property
    def variants(self) -> tuple[str, ...]:
        return (self.variant, self.against)

    @property
    def text(self) -> str:
        return f"{self.variant} and {self.against} differ by at most {self.tolerance:g}"

    def judge(self, measured: Measured, published: Sequence[float]) -> Verdict:
        """published is shown, not used."""
        found = difference(measured, self.variant, self.against)
        if found.interval is None:
            return judged("undecided", found, FEW.format(n=found.n), signed=True)
        low, high = found.interval
        if -self.tolerance <= low and high <= self.tolerance:
            return judged("reproduced", found, self.text, signed=True)
        if low > self.tolerance or high < -self.tolerance:
            return judged("not reproduced", found, f"they differ by more than {self.tolerance:g}", signed=True)
        return judged("undecided", found, f"the interval is not inside ±{self.tolerance:g}", signed=True)


@dataclass(frozen=True)
class Order:
    """The means of the variants fall (`direction="lower"`: rise) in the order they are listed.

    Every neighbouring pair must differ by seed-paired intervals that exclude zero. One pair that is surely the other
    way round is enough for "not reproduced". When only some variants were run and those agree: "direction only".
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

    def judge(self, measured: Measured, published: Sequence[float]) -> Verdict:
        """published is shown, not used. At least two of the variants must be there."""
        present = [name for name in self.order if name in measured]
        shown = ", ".join(f"{name} {describe(sample(align(measured, name)[0]).mean)}" for name in present)
        signs = {}
        for first, second in combinations(present, 2):
            found = difference(measured, first, second)
            if found.interval is None:
                return Verdict("undecided", FEW.format(n=found.n), n=found.n, shown=shown)
            signs[first, second] = significant(found.interval) * (1 if self.direction == "higher" else -1)
        n = found.n
        if reversed_pairs := [pair for pair, sign in signs.items() if sign < 0]:
            first, second = reversed_pairs[0]
            return Verdict("not reproduced", f"{first} and {second} are the other way round", n=n, shown=shown)
        if open_pairs := [pair for pair in pairwise(present) if signs[pair] == 0]:
            pairs = ", ".join(f"{first} and {second}" for first, second in open_pairs)
            return Verdict("undecided", f"the interval contains 0 between {pairs}", n=n, shown=shown)
        if missing := [name for name in self.order if name not in measured]:
            return Verdict("direction only", f"not run: {', '.join(missing)}; the others agree", n=n, shown=shown)
        return Verdict("reproduced", self.text, n=n, shown=shown)


@dataclass(frozen=True)
class Bound:
    """The mean of a variant lies above and (or) below a threshold, with its whole interval."""

    variant: str
    below: float | None = None
    above: float | None = None
    published: ClassVar[tuple[int, ...]] = (0, 1)

    def __post_init__(self) -> None:
        if self.below is None and self.above is None:
            raise ValueError(f"Bound({self.variant!r}) needs a threshold: below=..., above=..., or both.")

    @property
    def variants(self) -> tuple[str, ...]:
        return (self.variant,)

    @property
    def text(self) -> str:
        sides = {"above": self.above, "below": self.below}
        return f"{self.variant} " + " and ".join(f"{side} {at:g}" for side, at in sides.items() if at is not None)

    def judge(self, measured: Measured, published: Sequence[float]) -> Verdict:
        """published is shown, not used."""
        found = sample(align(measured, self.variant)[0])
        if found.interval is None:
            return judged("undecided", found, FEW.format(n=found.n))
        low = -math.inf if self.above is None else self.above
        high = math.inf if self.below is None else self.below
        if low < found.interval[0] and found.interval[1] < high:
            return judged("reproduced", found, self.text)
        if found.interval[1] <= low or found.interval[0] >= high:
            return judged("not reproduced", found, "the whole interval lies beyond the threshold")
        return judged("undecided", found, "the interval contains the threshold")


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

    def judge(self, measured: Measured, published: Sequence[float]) -> Verdict:
        """published: (value,), or () when the rule has its own value."""
        if self.value is None and not published:
            raise ValueError(f"Exact({self.variant!r}) has nothing to compare with: give value=... or a published key.")
        expected = published[0] if self.value is None else self.value
        values = align(measured, self.variant)[0]
        off = max((abs(value - expected) for value in values), default=math.nan)
        name = "reproduced" if off <= self.within else "not reproduced"
        reason = self.text if off <= self.within else f"off by {describe(off)}"
        return Verdict(name, reason, mean=values[0], n=len(values), shown=describe(values[0]))


Rule = Value | Difference | Equivalence | Order | Bound | Exact
