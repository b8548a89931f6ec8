"""Claims of the papers and of our own, and the verdict on each: by its rule, beside its null, on the declared seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from capsnb.evidence.published import Published, lookup
from capsnb.evidence.rules import Exact, Measured, Rule, printed
from capsnb.evidence.verdicts import DECLARED, MINIMUM_SEEDS, OURS, Floor, Size, Verdict

# values of these, in a variant's place, stand beside the variant's own under its name with the mark before it
NULL, EXPLAINING = "null: ", "explaining: "
BY_CONSTRUCTION = "by construction"


@dataclass(frozen=True)
class Explanation:
    """What, changed, brings the printed value where a claim was not reproduced: "explained by" `text`.

    source: where the reading was taken from before looking. tolerance: of the printed number, fixed beforehand. tried:
    how many combinations were. others: how many printed numbers match too that did not serve to choose this one.
    """

    text: str
    source: str
    tolerance: float
    tried: int
    others: int

    def of(self, rule: Rule, explaining: Measured, published: list[float]) -> str:
        """The sentence that a verdict gains, empty unless the values measured for it hold all conditions."""
        number = printed(published) if len(published) < 3 else None
        if number is None or self.others < 1 or self.tried < 1 or not all(map(explaining.get, rule.variants)):
            return ""
        found = rule.judge(explaining, published)
        if found.mean is None or found.n < MINIMUM_SEEDS or abs(found.mean - number) > self.tolerance:
            return ""
        counted = f"{self.tried} tried, {self.others} other printed number{'s' * (self.others > 1)} matched"
        return f"explained by {self.text} ({found.shown}; {self.source}; {counted})"


@dataclass(frozen=True)
class Claim:
    """One sentence of a paper, or a hypothesis of ours, and the rule that decides it, all stated before measuring.

    published: keys of `published` in the order of the rule's variants, one key alone, or () for a statement
    without a number; then `source` says where it stands, "ours" for a hypothesis of our own. Keys unknown, or too few
    or many, and printed numbers of our own raise ValueError.
    images, unit: of values that are accuracies, of how many test images and whether in percent or as a share: no
    interval is then narrower than so many allow. counted: what `images` counts, where it is something else.
    declared: how many seeds the plan says; a verdict on fewer is undecided. null: "by construction" for what is true
    of any network. explained: what explains a contradiction.
    """

    name: str
    text: str
    rule: Rule
    published: str | tuple[str, ...] = ()
    source: str = ""
    images: int | None = None
    counted: str = "test images"
    unit: Literal["percent", "share"] = "percent"
    declared: int | None = None
    null: Literal["", "by construction"] = ""
    explained: Explanation | None = None

    def __post_init__(self) -> None:
        if len(self.numbers) not in self.rule.published:
            allowed = " or ".join(map(str, self.rule.published))
            kind = type(self.rule).__name__
            raise ValueError(f"Claim {self.name!r} has {len(self.numbers)} published keys; {kind} takes {allowed}.")
        if self.kind == "ours" and self.numbers:
            raise ValueError(f"Claim {self.name!r} is ours, so no paper prints its numbers: leave out published keys.")

    @property
    def numbers(self) -> tuple[Published, ...]:
        keys = (self.published,) if isinstance(self.published, str) else self.published
        return tuple(lookup(key) for key in keys)

    @property
    def cited(self) -> str:
        """Paper and place of every number, each once; `source` where given."""
        return self.source or "; ".join(dict.fromkeys(number.source for number in self.numbers))

    @property
    def kind(self) -> str:
        """Whose it is: "paper" or "ours"."""
        return kind(self.source)


def kind(source: str) -> str:
    """Whose a claim of that source is: "paper" or "ours"."""
    return "ours" if source.startswith("ours") else "paper"


def verdict(claim: Claim, measured: Measured | None, reason: str = "not in this profile") -> Verdict:
    """Judge measured values (variant -> one value per seed) by the claim's rule, and its null by the same.

    Values of a null stand under "null: " and the variant, those of an explanation under "explaining: " and the variant.
    Where values of a needed variant are missing the verdict is "not run", with `reason`. Variants that are compared
    seed by seed but differ in their number of seeds raise ValueError.
    """
    own, null, explaining = (
        {name.removeprefix(mark): values for name, values in (measured or {}).items() if name.startswith(mark)}
        for mark in ("", NULL, EXPLAINING)
    )
    found = _judged(claim, own, reason)
    if found.verdict == "not reproduced" and claim.explained:
        numbers = [number.value for number in claim.numbers]
        if sentence := claim.explained.of(claim.rule, explaining, numbers):
            found = replace(found, reason=f"{found.reason}; {sentence}")
    beside = _judged(claim, null, "") if null else None
    if beside and beside.verdict != "not run":
        found = replace(found, null=f"{beside.verdict}: {beside.shown}")
    elif claim.null:
        found = replace(found, null=claim.null)
    # a null of the right sign but without the printed size is no match for a claim that has it
    meets = beside and beside.holds and not (found.size == "agrees" and beside.size == "excluded")
    if found.holds and (claim.null == BY_CONSTRUCTION or meets):
        return replace(
            found, verdict="met by null", reason=f"{found.verdict}, and the null meets it too: {found.reason}"
        )
    return found


def _judged(claim: Claim, measured: Measured, reason: str) -> Verdict:
    measured = {name: values for name, values in measured.items() if isinstance(values, int | float) or len(values)}
    missing = [name for name in claim.rule.variants if name not in measured]
    present = len(claim.rule.variants) - len(missing)
    if present < (2 if getattr(claim.rule, "partial", False) else len(claim.rule.variants)):
        return Verdict("not run", f"{reason} (missing: {', '.join(missing)})" if present else reason)
    floor = Floor(claim.images, claim.unit) if claim.images else None
    found = claim.rule.judge(measured, [number.value for number in claim.numbers], floor)
    if claim.declared and found.n < claim.declared and not isinstance(claim.rule, Exact):
        why = DECLARED.format(n=found.n, declared=claim.declared)
        size: Size = "-" if found.size == "-" else "open"
        found = replace(found, verdict="undecided", reason=why, holds=None, size=size, asked=str(claim.declared))
    if claim.kind == "ours":
        found = replace(found, verdict=OURS.get(found.verdict, found.verdict))
    return found
