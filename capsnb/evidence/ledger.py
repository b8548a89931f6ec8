"""What is decided and what is open: counts of claims, the papers' and ours apart, and what would bring the rest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from capsnb.evidence import findings, records
from capsnb.evidence.notebook_files import PATTERN, load, outputs
from capsnb.evidence.notebooks import duration
from capsnb.evidence.tables import MIME, current
from capsnb.evidence.verdicts import MOST_SEEDS, OPEN, STILL, sample
from capsnb.installation import extra
from capsnb.measure.observations import store_folder

with extra("notebooks"):
    import nbformat

WHOSE = {"paper": "The papers' claims", "ours": "Our own hypotheses"}
MARKS = ("<!-- results:start -->", "<!-- results:end -->")
LEDGER = Path("results", "README.md")  # where the whole ledger lies beside the README with its summary
HEAD = ("claim", "statement", "of", "published", "measured", "verdict", "printed size", "null", "from")
COLUMNS = ("notebook", "claim", "of", "why it is open", "seeds", "seeds asked for", "cost here")
UNKNOWN = ("-", "its images are not here")  # where no cost can be said
Table = list[tuple[str, ...]]


def rows(notebook: nbformat.NotebookNode) -> list[dict[str, Any]]:
    """The rows of the claims tables that a notebook displayed, in today's words."""
    return [current(row) for data in outputs(notebook) for row in data.get(MIME, ())]


def displayed(notebooks: Path) -> list[dict[str, Any]]:
    """The rows of the claims tables of a folder's notebooks."""
    return [row for _, notebook in _read(notebooks) for row in rows(notebook)]


def title(notebook: nbformat.NotebookNode, path: Path) -> str:
    """What a notebook asks: its first heading without its number, else its file's name."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (heading := re.search(r"^#\s+(.+)$", cell.source, re.MULTILINE)):
            return re.sub(rf"^{path.name[:2]}\W*", "", heading[1].strip(" #")).replace("`", "").replace("*", "")
    return path.stem[3:].replace("_", " ")


def why(row: Mapping[str, Any], run: str = "recorded ") -> str:
    """Why a claim is open, in a few words that are the same for many claims."""
    reason = row[f"{run}reason"]
    if row[f"{run}verdict"] == "not run" or reason.startswith("not run"):
        return "not run"
    if re.match(r"\d+ of (at least )?\d+ (declared )?seeds", reason):
        return "too few seeds"
    return "no spread over seeds" if STILL in reason else "interval too wide"


def tally(rows: Iterable[Mapping[str, Any]], run: str = "recorded ") -> dict[str, dict[str, Counter[str]]]:
    """Claims by whose they are, then decided, met by null or undecided; each by its word, or by why it is open."""
    kinds = ("decided", "undecided", "met by null")
    found: dict[str, dict[str, Counter[str]]] = {whose: {name: Counter() for name in kinds} for whose in WHOSE}
    for row in rows:
        word = row[f"{run}verdict"]
        name = "undecided" if word in OPEN else word if word == "met by null" else "decided"
        found[row["of"]][name][why(row, run) if word in OPEN else word] += 1
    return found


def counted(rows: Iterable[Mapping[str, Any]], run: str = "recorded ") -> list[str]:
    """The tally as a sentence for the papers' claims and one for ours."""
    lines = []
    for whose, found in tally(rows, run).items():
        total = sum(each.total() for each in found.values())
        shown = []
        for name, words in found.items():
            inner = ", ".join(f"{number} {word}" for word, number in words.most_common() if word != name)
            shown.append(f"{words.total()} {name}" + (f" ({inner})" if inner else ""))
        if total:
            lines.append(f"{WHOSE[whose]}: {total}; {', '.join(shown)}.")
    return lines


def decided(rows: Iterable[Mapping[str, Any]], whose: str) -> tuple[str, str]:
    """Of the claims of one kind: "3 of 9", and what became of the others; "-" and nothing where there is none."""
    found = tally(rows)[whose]
    if not (total := sum(words.total() for words in found.values())):
        return "-", ""
    reasons = ", ".join(f"{number} {word}" for word, number in found["undecided"].most_common())
    rest = [f"{found['undecided'].total()} undecided: {reasons}"] if reasons else []
    rest += [f"{found['met by null'].total()} met by null"] if found["met by null"] else []
    return f"{found['decided'].total()} of {total}", "; ".join(rest)


class Costs:
    """What trainings cost here, in words, by trying a few steps of each kind of network once."""

    def __init__(self) -> None:
        self._tried: dict[Any, Any] = {}

    def __call__(self, specs: Iterable[Any], times: int = 1) -> str:
        from capsnb.training import runs  # imports torch

        try:
            return duration(times * sum(runs.forecast(specs, tried=self._tried)))
        except FileNotFoundError:
            return UNKNOWN[1]
        except ValueError:
            return UNKNOWN[0]


def open_claims(notebooks: Path, numbers: Sequence[str] = (), *, costs: Costs | None = None) -> Table:
    """The claims that the record leaves open, a line each as `COLUMNS` says; the cost by `costs`."""
    lines: Table = []
    for row in displayed(notebooks):
        if row["recorded verdict"] in OPEN and (not numbers or row["notebook"] in numbers):
            seeds, asked = (str(row[f"recorded {name}"] or "-") for name in ("n", "asked"))
            spent = _cost(row, seeds, asked, costs) if costs else "-"
            lines.append((row["notebook"], row["claim"], row["of"], why(row), seeds, asked, spent))
    return lines


def unobserved(notebooks: Path, numbers: Sequence[str] = (), *, costs: Costs | None = None) -> Table:
    """Plans and grids whose networks the evidence store lacks: name, how many, of how many, and the cost by `costs`."""
    from capsnb.evidence import plans, sweep  # import torch
    from capsnb.training.runs import run_name

    declared: dict[str, Any] = {}
    for number in plans.planned(notebooks):
        for profile in plans.RECORDED if not numbers or number in numbers else ():
            declared[f"{number} at {profile}"] = plans.plan(number, profile).all_specs()
    for file in sorted((notebooks / "sweeps").glob("*.toml")):
        grid = sweep.read_grid(file)
        if not numbers or grid.notebook in numbers:
            declared[file.stem] = grid.specs
    lines: Table = []
    for name, specs in declared.items():
        sets: dict[str, list[Any]] = {}  # what a set costs is known where its images are, whatever others lack
        for spec in dict.fromkeys(specs):
            sets.setdefault(spec.data.name, []).append(spec)
        for images, each in sets.items():
            missing = [spec for spec in each if not (store_folder() / f"{run_name(spec)}.jsonl").exists()]
            label = name if len(sets) == 1 else f"{name}, {images}"
            if missing:
                lines.append((label, str(len(missing)), str(len(each)), costs(missing) if costs else "-"))
    return lines


def _cost(row: Mapping[str, Any], seeds: str, asked: str, costs: Costs) -> str:
    """Of the seeds that are missing, or of one where nobody knows how many: "about 2 hours", "40 min a seed"."""
    from capsnb.evidence import plans  # imports torch

    protocols = [protocol for protocol, _ in records.recorded(row["notebook"]).rows]
    profile = protocols[-1].get("profile") if protocols else "long"
    # a seed that nobody has trained yet
    specs = plans.plan(row["notebook"], profile, seed=MOST_SEEDS, seeds=1).specs
    # a notebook may call what its plan calls size/variant by the variant alone
    named = {
        v: [spec for name, (spec,) in specs.items() if name == v or name.endswith(f"/{v}")] for v in row["variants"]
    }
    if not named or any(len(found) != 1 for found in named.values()):
        return "-"
    more = int(asked) - int(seeds) if asked.isdecimal() and seeds.isdecimal() else 0
    spent = costs([spec for (spec,) in named.values()], more or 1)
    return spent if more or spent in UNKNOWN else f"{spent} a seed"


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    cells = [[cell.replace("|", r"\|") for cell in line] for line in [head, ("---",) * len(head), *lines]]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def answer(notebook: nbformat.NotebookNode) -> str:
    """What its Markdown cell tagged `answer` says first, behind the bold words that it opens with; else nothing."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and "answer" in cell.metadata.get("tags", ()):
            said = re.sub(r"^\*\*[^*]+\*\*\s*(\([^)]*\))?[.:]?\s*", "", " ".join(cell.source.split()))
            return re.split(r"(?<=[.!?])\s", said, maxsplit=1)[0]
    return ""


def summary(notebooks: Path) -> str:
    """What is asked, what is known and how much is decided, as Markdown: a row per notebook."""
    lines, shown = [], []
    for path, notebook in _read(notebooks):
        found = [row for row in rows(notebook) if "recorded verdict" in row]
        shown += found
        link = f"[{path.name[:2]}]({notebooks.name}/{path.name})"
        each = f"[{decided(found, 'paper')[0]}]({LEDGER.as_posix()}#notebook-{path.name[:2]})" if found else "-"
        known = answer(notebook) or _outcome(found) or "no claims of its own"
        lines.append((link, title(notebook, path), known, each, decided(found, "ours")[0]))
    head = ("notebook", "question", "answer so far", *(f"{words} decided" for words in WHOSE.values()))
    return "\n".join([markdown(head, lines), *(f"\n{line}" for line in counted(shown))])


def _outcome(rows: Sequence[Mapping[str, Any]]) -> str:
    """What became of the papers' claims that are decided, most first."""
    found = tally(rows)["paper"]
    words = ", ".join(f"{number} {word}" for word, number in found["decided"].most_common())
    return f"of the paper's claims {words}" if words else "none of its claims is decided" if rows else ""


def whole(notebooks: Path, root: Path | None = None) -> str:
    """Every recorded claim as Markdown, a table per notebook.

    What was published and the verdict are those of the executed notebooks, which know the rules; without a notebook a
    recorded claim has the mean of every variant instead. Recorded claims that a notebook states no more are named.
    """
    sections, shown = [], {path.name[:2]: (path, notebook) for path, notebook in _read(notebooks)}
    for number in sorted({*shown, *records.notebooks(root)}):
        path, notebook = shown.get(number, (None, None))
        stated = {row["claim"]: row for row in rows(notebook)} if notebook else {}
        about = f"[{title(notebook, path)}](../{notebooks.name}/{path.name})\n\n" if notebook and path else ""
        if told := _section(stated, records.recorded(number, root)):
            sections.append(f"### Notebook {number}\n\n{about}{told}")
    return "\n\n".join(sections) or "No run has been recorded yet."


def _section(stated: Mapping[str, Mapping[str, Any]], record: records.Record) -> str:
    lines: list[tuple[str, ...]] = []
    idle: list[str] = []
    withdrawn: list[str] = []
    origins: dict[str, str] = {}
    for name in dict.fromkeys((*stated, *record.claims)):
        row = stated.get(name, {})
        if stated and not row:
            withdrawn += [name] if record.newest(name) else []
            continue
        measured = row.get("recorded run")
        # without an origin the notebook knew of no record; with one alone, only some of the variants were trained
        if not measured and not row.get("recorded origin"):
            means = record.measured(name).items()
            measured = ", ".join(f"{variant} {_mean(list(found.values()))}" for variant, found in means)
        if not measured:
            idle.append(name)
            continue
        origin = row.get("recorded origin") or record.origin(name)
        about = (row.get(column) or "-" for column in ("text", "of", "published"))
        told = (row.get(f"recorded {column}") or "-" for column in ("verdict", "size", "null"))
        lines.append((name, *about, measured, *told, mark(origin, origins)))
    parts = [markdown(HEAD, lines)] if lines else []
    parts += legend(origins)
    parts += [f"Not run: {'; '.join(idle)}."] if idle else []
    parts += [f"Recorded, but not stated by the notebook as it is: {'; '.join(withdrawn)}."] if withdrawn else []
    parts += counted(row for row in stated.values() if "recorded verdict" in row)
    return "\n\n".join(parts)


def mark(origin: str, origins: dict[str, str]) -> str:
    """What stands for an origin in a table: "(1)" for the first; `origins` keeps them. Nothing for no origin."""
    return origins.setdefault(origin, f"({len(origins) + 1})") if origin else ""


def legend(origins: Mapping[str, str]) -> list[str]:
    """What the marks of a table stand for."""
    return [f"{sign} {origin}" for origin, sign in origins.items()]


def _mean(values: Sequence[float]) -> str:
    found = sample(values)
    spread = "" if found.std is None else f" ± {found.std:.2g}"
    return f"{found.mean:.4g}{spread} ({found.n})"


def filled(readme: Path, notebooks: Path) -> dict[Path, str]:
    """The README with the summary and, in `LEDGER` beside it, the whole ledger, each between its marks.

    Where `findings.PAGE` lies beside it, the README has what that opens with, too.
    What `capsnb results` writes; ValueError where the marks are missing.
    """
    texts = {}
    for file, table in ((readme, summary(notebooks)), (readme.parent / LEDGER, whole(notebooks))):
        texts[file] = _between(MARKS, file, file.read_text(encoding="utf-8"), table)
    if (page := readme.parent / findings.PAGE).exists():
        opening = findings.opening(page.read_text(encoding="utf-8"))
        texts[readme] = _between(findings.MARKS, readme, texts[readme], f"\n{opening}\n")
    return texts


def _between(marks: tuple[str, str], file: Path, text: str, new: str) -> str:
    start, end = map(text.find, marks)
    if start < 0 or end < start:
        raise ValueError(f"{file} lacks the marks {marks[0]} and {marks[1]}.")
    return f"{text[:start]}{marks[0]}\n{new}\n{text[end:]}"


def _read(notebooks: Path) -> Iterator[tuple[Path, nbformat.NotebookNode]]:
    for path in sorted(notebooks.glob(PATTERN)):
        yield path, load(path)
