"""The report on executed notebooks: an index, and a page for each that is readable offline."""

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from capsnb.disk import make_folder, replacing
from capsnb.evidence import findings, ledger, notebooks, tables
from capsnb.evidence.notebook_files import ERROR_MARK, EXPECTED, PATTERN, load, outputs, strip
from capsnb.evidence.offline import ASSETS, cells, prose, readable
from capsnb.installation import extra, has_project, project

with extra("notebooks"):
    import jinja2
    import nbformat
    from bs4 import BeautifulSoup
    from markupsafe import Markup
    from pygments.formatters import HtmlFormatter

NOT_SHOWN = {"injected-parameters", ERROR_MARK}
ITALICS = re.compile(r"\*[^*].*\*", re.DOTALL)
FAILED = "failed-cell"  # its anchor
FINDINGS = "findings.html"  # in the folder of pages
LINK = re.compile(r"\[([^]]+)\]\(([^)]+)\)")


@dataclass(frozen=True)
class Page:
    """What the report shows of one notebook; `rows` are those of its claims."""

    number: str
    file: str
    title: str
    state: str  # passed, failed, not executed
    answer: str  # HTML
    heading: Markup
    sections: tuple[tuple[str, str], ...]
    body: Markup
    rows: tuple[dict[str, Any], ...] = ()
    note: str = ""
    cell: int | None = None
    error: str = ""
    setting: str = ""
    time: str = ""
    finished: str = ""

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{Path(self.file).stem}.html"

    @property
    def claims(self) -> list[tuple[str, str]]:
        """Of the papers' and of ours: how many are decided, and what became of the others."""
        return [ledger.decided(self.rows, whose) for whose in ledger.WHOSE]


def write(source: Path, target: Path) -> Path:
    """Write the report on the notebooks of a folder, an index and a page for each, and return where the index lies.

    The pages lie beside it: those of report.html in report-pages. A notebook that cannot be read has a sentence in the
    index, which opens with the project's findings where there is a project. Raises FileNotFoundError when the folder
    has no executed notebook.
    """
    target = target.resolve()
    folder = target.with_name(f"{target.stem}-pages")
    paths, bad = notebooks.readable(sorted(source.glob(PATTERN)), None)
    found = [read(path) for path in paths]
    pages = [page for page in found if page.state != "not executed"]
    if not pages:
        raise FileNotFoundError(f"There is no executed notebook in {source}: execute some with capsnb run first.")
    failed = sum(page.state == "failed" for page in pages)
    summary = f"{len(pages)} notebook{'s' * (len(pages) > 1)} executed, {failed or 'none'} failed."
    if never := [page.number for page in found if page not in pages]:
        summary += f" Not executed: {', '.join(never)}."
    summary += "".join(f" {each.error}" for each in bad)
    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(ASSETS), autoescape=True)
    templates.globals |= {"css": Markup(_css())}
    make_folder(target.parent)
    folder.mkdir(exist_ok=True)
    for page in pages:
        html = templates.get_template("notebook.html.j2").render(
            page=page, counted=ledger.counted(page.rows), index=f"../{target.name}"
        )
        with replacing(folder / page.name) as fresh:
            fresh.write_text(html, encoding="utf-8")
    everything = [row for page in pages for row in page.rows]
    opening = ""
    if has_project() and (file := project() / findings.PAGE).exists():
        opening, body = _findings(file, f"{folder.name}/")
        html = templates.get_template("findings.html.j2").render(body=Markup(body), index=f"../{target.name}")
        with replacing(folder / FINDINGS) as fresh:
            fresh.write_text(html, encoding="utf-8")
    html = templates.get_template("report.html.j2").render(
        pages=pages,
        opening=Markup(opening),
        folder=folder.name,
        summary=summary,
        counted=ledger.counted(everything),
        kinds=ledger.WHOSE.values(),
    )
    with replacing(target) as fresh:
        fresh.write_text(html, encoding="utf-8")
    return target


def _findings(file: Path, folder: str) -> tuple[str, BeautifulSoup]:
    """What the index opens with, and the page of findings that it leads to, with their picture inside."""
    text = file.read_text(encoding="utf-8")
    drawn = findings.picture(text)
    picture = f"data:image/png;base64,{b64encode((file.parent / drawn.file).read_bytes()).decode()}"

    def inside(link: re.Match[str]) -> str:
        """A link that leads somewhere in the report; of others the words alone."""
        shown, address = link.groups()
        address = picture if address == drawn.file else address.replace(f"{file.name}#", f"{folder}{FINDINGS}#")
        return f"[{shown}]({address})" if address == picture or "#" in address else shown

    page = BeautifulSoup(prose(LINK.sub(inside, text)), "html.parser")
    anchors = {each.title: each.anchor for each in findings.findings(text)}
    for heading in page.find_all("h2"):
        heading["id"] = anchors.get(heading.get_text(), heading["id"])
    return prose(LINK.sub(inside, findings.opening(text, ""))), page


def read(path: Path) -> Page:
    """The page of one notebook, executed by `capsnb run` or by hand."""
    notebook = load(path)
    about = notebook.metadata.get("capsnb", {})
    notebook.cells = [cell for cell in notebook.cells if not NOT_SHOWN & set(cell.metadata.get("tags", ()))]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    _renumber(code)
    raised = [
        (n, o)
        for n, cell in enumerate(code, 1)
        for o in cell.outputs
        if o.output_type == "error" and EXPECTED not in cell.metadata.get("tags", ())
    ]
    error = about.get("error") or (f"{raised[0][1].ename}: {raised[0][1].evalue}" if raised else "")
    failed_at = about.get("cell") or (raised[0][0] if raised else None)
    executed = any(cell.execution_count or cell.outputs for cell in code)
    number, title = path.name[:2], ledger.title(notebook, path)
    found, note = _claims(notebook)
    body, heading = readable(cells(strip(notebook), path.parent), number)
    if failed_at and (cell := body.find(id=f"cell-id={code[failed_at - 1].get('id', '')}")):
        cell["id"] = FAILED
    return Page(
        number=number,
        file=path.name,
        title=title,
        state="failed" if error else "passed" if executed else "not executed",
        cell=failed_at,
        error=error,
        setting=_setting(about.get("parameters", {})),
        time=f"{about['seconds']:.0f} s" if "seconds" in about else "",
        finished=about.get("finished", ""),
        rows=tuple(found),
        note=note,
        answer=_answer(notebook),
        heading=Markup(heading or f"<h1>{escape(title)}</h1>"),
        sections=tuple((str(h2["id"]), h2.get_text().strip(" #")) for h2 in body.find_all("h2", id=True)),
        body=Markup(body),
    )


def _claims(notebook: nbformat.NotebookNode) -> tuple[list[dict[str, Any]], str]:
    """Its claims, once those that never ran are folded below the others in its tables; and a note where that failed."""
    found = []
    for data in outputs(notebook):
        try:
            given = [tables.current(row) for row in data.get(tables.MIME, ())]
            ledger.counted(given)
            idle = [row for row in given if all(ledger.why(row, run) == "not run" for run in tables.RUNS)]
            shown = [row for row in given if row not in idle]
            html = _table(shown)
            if idle:
                named = f"{len(idle)} claim{'s' * (len(idle) > 1)} not run"
                html += f"<details><summary>{named}</summary>{_table(idle)}</details>"
        except KeyError as missing:
            return [], f"These claims come from another version of capsnb: {missing} is missing."
        if given:
            data["text/html"] = html
            found += given
    return found, ""


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """A claims table that names where recorded values come from below it, not in every row."""
    if not rows:
        return ""
    origins: dict[str, str] = {}
    short = [row | {"recorded origin": ledger.mark(row["recorded origin"], origins)} for row in rows]
    stored = not any(row["this run"] for row in rows)  # then this run has nothing to show
    below = "".join(f"<br>{escape(line)}" for line in ledger.legend(origins))
    return tables.ClaimsTable(tuple(short), stored=stored).html() + (f"<p>Recorded{below}</p>" if below else "")


def _answer(notebook: nbformat.NotebookNode) -> str:
    """What is tagged as the answer, else the first paragraph that is not set in italics as a whole."""
    said = []
    for cell in notebook.cells:
        if "answer" in cell.metadata.get("tags", ()):
            shown = [output.get("data", {"text/plain": output.get("text", "")}) for output in cell.get("outputs", ())]
            texts = (data.get("text/markdown") or escape(data.get("text/plain", "")) for data in shown)
            said.append(cell.source if cell.cell_type == "markdown" else "\n\n".join(texts))
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            said += cell.source.split("\n\n")
    plain = (re.sub(r"^#.*$", "", each, flags=re.MULTILINE).strip() for each in said)
    return prose(next((each for each in plain if each and not ITALICS.fullmatch(each)), ""))


def _css() -> str:
    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    own = (ASSETS / "report.css").read_text(encoding="utf-8")
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n{own}"


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
