"""A verdict, the sample it rests on, and the interval that decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Word = Literal["reproduced", "direction only", "not reproduced", "undecided", "not run"]
WORDS: tuple[Word, ...] = ("reproduced", "direction only", "not reproduced", "undecided", "not run")
MINIMUM_SEEDS = 3
FEW = "{n} of at least 3 seeds"


@dataclass(frozen=True)
class Verdict:
    """What a rule made of the measured values. `shown` is the measurement as a table prints it.

    mean, std (over n - 1) and interval are those of the value or of the paired difference that the rule judges.
    """

    verdict: Word
    reason: str
    mean: float | None = None
    std: float | None = None
    n: int = 0
    interval: tuple[float, float] | None = None
    shown: str = ""


@dataclass(frozen=True)
class Sample:
    """Mean, standard deviation and 95 % t-interval of seeds; the interval is None for fewer than three."""

    mean: float
    std: float | None
    n: int
    interval: tuple[float, float] | None


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided t-interval of the mean of at least two values: mean +- t(n - 1) std / sqrt(n)."""
    from scipy.stats import t

    n = len(values)
    if n < 2:
        raise ValueError(f"An interval needs at least two values, not {n}.")
    mean = math.fsum(values) / n
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(t.ppf(0.5 + confidence / 2, n - 1)) * std / math.sqrt(n)
    return mean - half, mean + half


def sample(values: Sequence[float]) -> Sample:
    """Summary of the seeds of one variant, or of one paired difference."""
    n = len(values)
    if n == 0:
        return Sample(math.nan, None, 0, None)
    mean = math.fsum(values) / n
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else None
    return Sample(mean, std, n, interval(values) if n >= MINIMUM_SEEDS else None)


def significant(bounds: tuple[float, float], threshold: float = 0.0) -> int:
    """+1 when the whole interval lies above the threshold, -1 when below, 0 when it contains it."""
    return (bounds[0] > threshold) - (bounds[1] < threshold)


def describe(value: float) -> str:
    """A number short enough for a table: 4 significant digits, whole numbers with thousands separators."""
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 10_000 else f"{value:.4g}"


def judged(word: Word, found: Sample, reason: str, *, signed: bool = False) -> Verdict:
    """The verdict on one sample, with the text a table shows: mean ± std, or a signed difference with its interval."""
    if found.n == 0:
        return Verdict(word, reason)
    shown = f"{found.mean:+.4g}" if signed else describe(found.mean)
    if signed and found.interval:
        shown += f" [{found.interval[0]:+.3g}, {found.interval[1]:+.3g}]"
    elif found.std is not None:
        shown += f" ± {found.std:.2g}"
    return Verdict(word, reason, found.mean, found.std, found.n, found.interval, f"{shown} (n={found.n})")
