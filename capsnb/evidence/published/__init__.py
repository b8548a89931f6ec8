"""Every number of the papers that capsnb compares with, under readable keys: paper/table/quantity/variant."""

from difflib import get_close_matches

from capsnb.evidence.published import gu2021, lin2018, mitterreiter2023, renzulli2022, sabour2017, tawalbeh2024
from capsnb.evidence.published.entry import Published

__all__ = ["PUBLISHED", "Published", "find", "lookup"]

PUBLISHED: dict[str, Published] = {
    key: entry
    for module in (sabour2017, tawalbeh2024, lin2018, renzulli2022, mitterreiter2023, gu2021)
    for key, entry in module.ENTRIES.items()
}


def lookup(key: str) -> Published:
    """The entry of a key; an unknown key raises ValueError with the nearest ones."""
    if key in PUBLISHED:
        return PUBLISHED[key]
    near = get_close_matches(key, PUBLISHED, n=3, cutoff=0.5)
    hint = f"the nearest are {', '.join(near)}" if near else "keys start with " + ", ".join(sorted(_papers()))
    raise ValueError(f"No published number is called {key!r}: {hint}.")


def find(prefix: str) -> dict[str, Published]:
    """All entries below a prefix, named by the rest of their key, in the paper's order: find("gu2021/table1/affnist").

    An empty result raises ValueError: a table of nothing is a typing error.
    """
    start = prefix.rstrip("/") + "/"
    found = {key[len(start) :]: entry for key, entry in PUBLISHED.items() if key.startswith(start)}
    if not found:
        lookup(prefix)
    return found


def _papers() -> set[str]:
    return {key.split("/")[0] for key in PUBLISHED}
