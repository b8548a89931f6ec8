"""One self-contained page from executed notebooks: claims and states first, then every notebook, readable offline."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import jinja2
import nbformat
from markupsafe import Markup
from pygments.formatters import HtmlFormatter

from capsnb import evidence
from capsnb.evidence import ledger, records
from capsnb.evidence.notebooks import PATTERN, strip
from capsnb.evidence.offline import ASSETS, cells
from capsnb.evidence.verdicts import sample

NOT_SHOWN = {"injected-parameters", "papermill-error-cell-tag"}
MARKS = ("<!-- results:start -->", "<!-- results:end -->")


@dataclass(frozen=True)
class Page:
    """What the report shows of one notebook."""

    number: str
    file: str
    title: str
    state: str  # passed, failed, not executed
    body: Markup
    claims: Markup
    cell: int | None = None
    error: str = ""
    setting: str = ""
    time: str = ""
    finished: str = ""


def write(source: Path, target: Path) -> Path:
    """Write the report on the notebooks of a folder and return where it lies.

    Raises FileNotFoundError when the folder has no executed notebook.
    """
    target = target.resolve()
    pages = [page for path in sorted(source.glob(PATTERN)) for page in [read(path)] if page.state != "not executed"]
    if not pages:
        raise FileNotFoundError(f"There is no executed notebook in {source}: execute some with capsnb run first.")
    failed = sum(page.state == "failed" for page in pages)
    summary = f"{len(pages)} notebook{'s' * (len(pages) > 1)} executed, {failed or 'none'} failed."
    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(ASSETS), autoescape=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.new")
    page = templates.get_template("report.html.j2").render(pages=pages, summary=summary, css=Markup(_css()))
    fresh.write_text(page, encoding="utf-8")
    return fresh.replace(target)


def read(path: Path) -> Page:
    """The page of one notebook, executed by `capsnb run` or by hand."""
    notebook = nbformat.read(path, as_version=4)
    about = notebook.metadata.get("capsnb", {})
    parameters = about.get("parameters", {})
    notebook.cells = [cell for cell in notebook.cells if not NOT_SHOWN & set(cell.metadata.get("tags", ()))]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    _renumber(code)
    raised = [(n, o) for n, cell in enumerate(code, 1) for o in cell.outputs if o.output_type == "error"]
    error = about.get("error") or (f"{raised[0][1].ename}: {raised[0][1].evalue}" if raised else "")
    failed_at = about.get("cell") or (raised[0][0] if raised else None)
    executed = any(cell.execution_count or cell.outputs for cell in code)
    number = path.name[:2]
    body = str(cells(strip(notebook), path.parent))
    if failed_at:
        body = _mark_failed(body, code[failed_at - 1].get("id", ""), f"nb-{number}-failed")
    return Page(
        number=number,
        file=path.name,
        title=_title(notebook, path),
        state="failed" if error else "passed" if executed else "not executed",
        cell=failed_at,
        error=error,
        setting=_setting(parameters),
        time=f"{about['seconds']:.0f} s" if "seconds" in about else "",
        finished=about.get("finished", ""),
        claims=_claims_table(ledger.rows(notebook)),
        body=Markup(_own_ids(body, number)),
    )


def results_table(notebooks: Path, root: Path | None = None) -> str:
    """Recorded runs as a Markdown table, a row per claim that a record decides.

    What was published and the verdict are those of the executed notebooks, which know the rules; a claim that no
    notebook has shown since it was recorded has the mean of every variant instead. What only earlier records hold
    and no notebook states any more is left out.
    """
    shown = ledger.displayed(notebooks)
    known = {(row["notebook"], row["claim"]): row for row in shown}
    lines = []
    for number in records.notebooks(root):
        record = evidence.recorded(number, root)
        stated = any(notebook == number for notebook, _ in known)
        for name in record.claims:
            row = known.get((number, name), {})
            measured = row.get("recorded run")
            if row.get("recorded origin") and not measured:
                continue  # only some of the rule's variants were trained
            if not row and stated and not record.newest(name):
                continue
            means = (f"{variant} {_mean(list(found.values()))}" for variant, found in record.measured(name).items())
            told = (row.get(f"recorded {column}") or "-" for column in ("verdict", "size", "null"))
            whose, published = (row.get(column) or "-" for column in ("of", "published"))
            lines.append((number, name, whose, published, measured or ", ".join(means), *told, record.origin(name)))
    if not lines:
        return "No run has been recorded yet."
    head = ("notebook", "claim", "of", "published", "measured", "verdict", "printed size", "null", "from")
    counted = ledger.counted(row for row in shown if "recorded verdict" in row)
    return "\n".join([ledger.markdown(head, lines), *(f"\n{line}" for line in counted)])


def fill_readme(text: str, table: str) -> str:
    """The text with the table between the marks; ValueError where the marks are missing."""
    start, end = text.find(MARKS[0]), text.find(MARKS[1])
    if start < 0 or end < start:
        raise ValueError(f"The README lacks the marks {MARKS[0]} and {MARKS[1]}.")
    return f"{text[:start]}{MARKS[0]}\n{table}\n{text[end:]}"


def _css() -> str:
    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    own = (ASSETS / "report.css").read_text(encoding="utf-8")
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n{own}"


def _claims_table(rows: Sequence[dict[str, Any]]) -> Markup:
    try:
        counts = "".join(f"<p>Recorded. {escape(line)}</p>" for line in ledger.counted(rows))
        return Markup(evidence.ClaimsTable(tuple(rows)).html() + counts if rows else "")
    except KeyError as missing:
        return Markup(f"<p>These claims come from another version of capsnb: {escape(str(missing))} is missing.</p>")


def _title(notebook: nbformat.NotebookNode, path: Path) -> str:
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (heading := re.search(r"^#\s+(.+)$", cell.source, re.MULTILINE)):
            return re.sub(rf"^{path.name[:2]}\W*", "", heading[1].strip(" #")).replace("`", "").replace("*", "")
    return path.stem[3:].replace("_", " ")


def _renumber(code: Sequence[nbformat.NotebookNode]) -> None:
    """Number code cells as in the source, without the injected one, in tracebacks too."""
    numbers = {cell.execution_count: number for number, cell in enumerate(code, 1) if cell.execution_count}

    def new(match: re.Match[str]) -> str:
        return f"In[{numbers.get(int(match[1]), match[1])}]"

    for cell in code:
        cell.execution_count = numbers.get(cell.execution_count)
        for output in cell.outputs:
            if output.output_type == "error":
                output.traceback = [re.sub(r"In\[(\d+)\]", new, line) for line in output.traceback]


def _setting(parameters: dict[str, Any]) -> str:
    if not parameters:
        return ""
    seeds = f", {parameters['seeds']} seeds from {parameters.get('seed')}" if parameters.get("seeds") else ""
    return f"{parameters.get('profile')}{seeds or ', seed ' + str(parameters.get('seed'))}"


def _mean(values: Sequence[float]) -> str:
    found = sample(values)
    spread = "" if found.std is None else f" ± {found.std:.2g}"
    return f"{found.mean:.4g}{spread} ({found.n})"


def _mark_failed(body: str, cell: str, anchor: str) -> str:
    return body.replace(f'id="cell-id={cell}"', f'id="{anchor}"', 1) if cell else body


def _own_ids(body: str, number: str) -> str:
    """Anchors of the notebook under its number: two notebooks may have the same headings."""
    body = re.sub(r'\bid="(?!nb-)', f'id="nb-{number}-', body)
    return re.sub(r'\bhref="#(?!nb-)', f'href="#nb-{number}-', body)
