"""A verdict, the sample it rests on, the interval that decides, and Holm's correction over a page of verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

Decided = Literal["reproduced", "direction only", "published size excluded", "not reproduced", "supported", "refuted"]
Open = Literal["undecided", "not run"]
Word = Decided | Literal["met by null"] | Open
DECIDED, OPEN = get_args(Decided), get_args(Open)
WORDS: tuple[Word, ...] = (*DECIDED, "met by null", *OPEN)
# what a rule's word is called for a hypothesis of our own: only the claims of a paper can be reproduced
OURS: dict[str, Word] = {"reproduced": "supported", "direction only": "undecided", "not reproduced": "refuted"}
Size = Literal["agrees", "excluded", "open", "-"]
MINIMUM_SEEDS = 3
FEWEST_KINDS = 6  # of network, for a rank correlation
MOST_SEEDS = 100  # a claim that would need more needs another rule
FEW = "{n} of at least 3 seeds"
DECLARED = "{n} of {declared} declared seeds"
STILL = "no spread over seeds: nothing random was measured"


@dataclass(frozen=True)
class Verdict:
    """What a rule made of the measured values. `shown` is the measurement as a table prints it.

    mean, std (over n - 1) and interval are those of the value or of the paired difference that the rule judges.
    holds: whether the direction is as claimed, None while that is open. size: what the interval says of the printed
    number, "-" where none is printed. p: of the rule's test, None where nothing was tested. asked: how many seeds the
    seen variance asks for while the claim is undecided. null: what the rule made of the null.
    """

    verdict: Word
    reason: str
    mean: float | None = None
    std: float | None = None
    n: int = 0
    interval: tuple[float, float] | None = None
    shown: str = ""
    holds: bool | None = None
    size: Size = "-"
    p: float | None = None
    asked: str = ""
    null: str = ""


@dataclass(frozen=True)
class Floor:
    """How finely so many test images resolve an accuracy: what the choice of the images alone leaves open.

    Or of whatever else was counted, capsules say. unit: what the values are, percent (0 to 100) or share (0 to 1).
    """

    images: int
    unit: Literal["percent", "share"] = "percent"

    def half(self, *means: float) -> float:
        """Half the 95 % interval of one accuracy, or of a difference of two, as if they were of other images each.

        The normal one; where none or all are right, which says 0, the exact one (Clopper & Pearson).
        """
        whole = {"percent": 100.0, "share": 1.0}[self.unit]
        shares = [mean / whole for mean in means if not math.isnan(mean)]
        if bad := [share * whole for share in shares if not 0 <= share <= 1]:
            raise ValueError(
                f"{bad[0]:g} is no {self.unit} of {self.images} images: the claim's images or unit is wrong."
            )
        exact = 1 - 0.025 ** (1 / self.images)
        halves = [1.96 * math.sqrt(share * (1 - share) / self.images) if 0 < share < 1 else exact for share in shares]
        return whole * math.hypot(*halves)


@dataclass(frozen=True)
class Sample:
    """Mean, standard deviation and 95 % t-interval of seeds; no interval for fewer than three, or without a spread."""

    mean: float
    std: float | None
    n: int
    interval: tuple[float, float] | None
    floor: float = 0.0  # the least half width that its interval may have

    @property
    def ends(self) -> tuple[float, float]:
        """Of its interval, which it must have."""
        assert self.interval is not None, self.lack
        return self.interval

    @property
    def lack(self) -> str:
        """Why there is no interval."""
        return FEW.format(n=self.n) if self.n < MINIMUM_SEEDS else STILL

    def beyond(self, gap: float) -> float:
        """Chance of a mean so far or further on that side of a true value `gap` below it."""
        from scipy.special import stdtr, stdtrit  # what t of scipy.stats calls, which takes 0.4 s to import

        half = (self.ends[1] - self.ends[0]) / 2
        return float(stdtr(self.n - 1, -gap * stdtrit(self.n - 1, 0.975) / half))

    def p(self, low: float, high: float, holds: bool | None) -> float:
        """Below 0.05 where the interval lies inside the region (two one-sided tests), outside it, or either: None."""
        inside = 2 * max(self.beyond(self.mean - low), self.beyond(high - self.mean))
        outside = 2 * min(self.beyond(low - self.mean), self.beyond(self.mean - high))
        return min(1.0, {True: inside, False: outside, None: min(inside, outside)}[holds])

    def asked(self, gap: float) -> str:
        """How many seeds of this spread have an interval that ends short of a threshold `gap` away from the mean."""
        from scipy.special import stdtrit

        if not self.std:
            return ""
        if gap <= self.floor:
            return "more test images"
        seeds = range(MINIMUM_SEEDS, MOST_SEEDS + 1)
        found = (n for n in seeds if float(stdtrit(n - 1, 0.975)) * self.std / math.sqrt(n) < gap)
        return str(next(found, "another rule"))


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided t-interval of the mean of at least two values: mean +- t(n - 1) std / sqrt(n)."""
    from scipy.special import stdtrit

    n = len(values)
    if n < 2:
        raise ValueError(f"An interval needs at least two values, not {n}.")
    mean = math.fsum(values) / n
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * std / math.sqrt(n)
    return mean - half, mean + half


def sample(values: Sequence[float], floor: float = 0.0) -> Sample:
    """Summary of the seeds of one variant, or of one paired difference; `floor` is the least half width."""
    n = len(values)
    if n == 0:
        return Sample(math.nan, None, 0, None)
    mean = math.fsum(values) / n
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else None
    if n < MINIMUM_SEEDS:
        return Sample(mean, std, n, None)
    low, high = interval(values)
    half = max(floor, (high - low) / 2)
    # differences of equal numbers may differ in their last bits
    still = half <= 1e-12 * max(map(abs, values))
    return Sample(mean, std, n, None if still else (mean - half, mean + half), floor)


def of_ranks(first: Sequence[float], second: Sequence[float], *, higher: bool, reason: str) -> Verdict:
    """Whether Spearman's rho of n pairs, a pair per kind of network, is above zero (`higher`) or below it.

    Its 95 % interval is atanh(rho) give or take 1.96 sqrt((1 + rho^2 / 2) / (n - 3)) (Bonett & Wright 2000), and the p
    of rho = 0 goes with it. reason: where it is as claimed.
    """
    from scipy.stats import spearmanr

    n = len(first)
    if n < FEWEST_KINDS:
        return Verdict("undecided", f"{n} of at least {FEWEST_KINDS} kinds", n=n)
    if len(set(first)) < 2 or len(set(second)) < 2:
        return Verdict("undecided", "all kinds are alike in one of the two", n=n)
    rho = float(spearmanr(first, second).statistic)
    middle = math.atanh(max(-0.9999999, min(0.9999999, rho)))  # 1 has no finite one
    error = math.sqrt((1 + rho * rho / 2) / (n - 3))
    low, high = (math.tanh(middle + side * 1.96 * error) for side in (-1, 1))
    p = math.erfc(abs(middle) / error / math.sqrt(2))
    shown = f"{rho:+.4g} [{low:+.3g}, {high:+.3g}] (n={n})"
    if low <= 0 <= high:
        return Verdict("undecided", "the interval contains 0", rho, n=n, interval=(low, high), shown=shown, p=p)
    holds = (rho > 0) == higher
    reason = reason if holds else f"the whole interval lies {'above' if rho > 0 else 'below'} 0"
    return Verdict(word(holds, "-"), reason, rho, n=n, interval=(low, high), shown=shown, holds=holds, p=p)


def size(found: Sample, printed: float | None, tolerance: float | None, holds: bool | None) -> Size:
    """What an interval says of the printed number, with a tolerance of the number give or take that."""
    if printed is None:
        return "-"
    if found.interval is None:
        return "open"
    slack = tolerance or 0.0
    if found.interval[1] < printed - slack or found.interval[0] > printed + slack:
        return "excluded"
    near = tolerance is None or abs(found.mean - printed) <= tolerance
    return "agrees" if near and holds is not None else "open"


def word(holds: bool | None, size: Size) -> Word:
    """The verdict on a claim of a paper."""
    if holds is False:
        return "not reproduced"
    if size == "excluded":
        return "published size excluded"
    return "undecided" if holds is None else "direction only" if size == "open" else "reproduced"


class Tested(Protocol):
    """What has the p of a test, or None."""

    @property
    def p(self) -> float | None: ...


def holm(found: Iterable[Tested], level: float = 0.05) -> list[bool | None]:
    """Whether each verdict survives Holm's correction over all that were tested; None where nothing was tested."""
    ps = [each.p for each in found]
    tested = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    kept = [None if p is None else False for p in ps]
    for rank, (p, place) in enumerate(tested):
        if p > level / (len(tested) - rank):
            break
        kept[place] = True
    return kept


def describe(value: float) -> str:
    """A number short enough for a table: 4 significant digits, whole numbers with thousands separators."""
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 10_000 else f"{value:.4g}"


def show(found: Sample, *, signed: bool = False) -> str:
    """A sample as a table prints it: mean ± std, or a signed difference with its interval."""
    if found.n == 0:
        return ""
    shown = f"{found.mean:+.4g}" if signed else describe(found.mean)
    if signed and found.interval:
        shown += f" [{found.interval[0]:+.3g}, {found.interval[1]:+.3g}]"
    elif found.std is not None:
        shown += f" ± {found.std:.2g}"
    return f"{shown} (n={found.n})"
