"""Every number of the papers that capsnb compares with, under readable keys: paper/table/quantity/variant.

They lie in data/published, a CSV file per paper whose first line is "# " and the paper as it is cited.
"""

import csv
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from capsnb.installation import shipped

COLUMNS = ["key", "value", "spread", "unit", "table", "note"]


@dataclass(frozen=True)
class Published:
    """One number as its source prints it.

    `spread` is what the source prints after +- (a standard deviation unless `note` says otherwise), in the source's own
    scale. `where` is a table, a figure, a section ("text, sec. 3.2"), or "computed" for a number that follows from the
    printed architecture but is not printed itself.
    """

    value: float
    spread: float | None
    unit: str
    paper: str
    where: str
    note: str = ""

    def __str__(self) -> str:
        shown = f"{self.value:,}" if isinstance(self.value, int) else f"{self.value:g}"
        spread = "" if self.spread is None else f" ± {self.spread:g}"
        return f"{shown}{spread} {self.unit}".rstrip()

    @property
    def source(self) -> str:
        """Paper and place, as a table of claims cites them."""
        return f"{self.paper}, {self.where}"


def folder() -> Path:
    """Where the papers' numbers lie."""
    return shipped("published")


@cache
def read(source: Path) -> dict[str, Published]:
    """The entries of all papers in a folder, each paper's in the order of its file.

    Raises FileNotFoundError where there is none, and ValueError with file and line for a damaged one.
    """
    files = sorted(source.glob("*.csv"))
    if not files:
        raise FileNotFoundError(f"There are no published numbers in {source}.")
    return {key: entry for path in files for key, entry in _paper(path).items()}


def lookup(key: str) -> Published:
    """The entry of a key; an unknown key raises ValueError with the nearest ones."""
    entries = read(folder())
    if key in entries:
        return entries[key]
    near = get_close_matches(key, entries, n=3, cutoff=0.5)
    papers = sorted({known.split("/")[0] for known in entries})
    hint = f"the nearest are {', '.join(near)}" if near else f"keys start with {', '.join(papers)}"
    raise ValueError(f"No published number is called {key!r}: {hint}.")


def find(prefix: str) -> dict[str, Published]:
    """All entries below a prefix, named by the rest of their key, in the paper's order: find("gu2021/table1/affnist").

    An empty result raises ValueError: a table of nothing is a typing error.
    """
    start = prefix.rstrip("/") + "/"
    found = {key[len(start) :]: entry for key, entry in read(folder()).items() if key.startswith(start)}
    if not found:
        lookup(prefix)
    return found


def _paper(path: Path) -> dict[str, Published]:
    """The entries of one file."""
    found: dict[str, Published] = {}
    paper = ""
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            text = line.decode("utf-8")
            if number == 1:
                paper = text.removeprefix("# ")
                if paper == text:
                    raise ValueError("it is not '# ' and the paper")
            elif number == 2:
                if text != ",".join(COLUMNS):
                    raise ValueError(f"the columns are not {','.join(COLUMNS)}")
            else:
                key, entry = _entry(text, paper)
                if not key.startswith(f"{path.stem}/"):
                    raise ValueError(f"the key {key!r} does not start with {path.stem}/")
                if key in found:
                    raise ValueError(f"the key {key!r} stands there twice")
                found[key] = entry
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{path}, line {number}: {error}.") from error
    if not found:
        raise ValueError(f"{path} holds no numbers.")
    return found


def _entry(line: str, paper: str) -> tuple[str, Published]:
    (cells,) = csv.reader([line], strict=True)
    if len(cells) != len(COLUMNS):
        raise ValueError(f"it has {len(cells)} columns, not {len(COLUMNS)}")
    key, value, spread, unit, where, note = cells
    return key, Published(_number(value), _number(spread) if spread else None, unit, paper, where, note)


def _number(text: str) -> float:
    """Whole numbers stay int: a count is shown with all its digits."""
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
