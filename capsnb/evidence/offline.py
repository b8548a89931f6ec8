"""Executed notebooks made to be kept and read without a network.

Their cells as HTML, equations as MathML, nothing that a browser would fetch; and their pictures made small, since many
thin lines in millions of colours do not compress.
"""

import re
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterable
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

from capsnb.installation import extra

with extra("notebooks"):
    import jinja2
    import nbformat
    from bs4 import BeautifulSoup, Tag
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

ASSETS = Path(__file__).parent / "assets"
LARGE = 20 * 1024  # bytes from which a picture is reduced
# tags that load what their attribute names
LOADING = {
    **dict.fromkeys(["script", "img", "iframe", "embed", "source", "track", "video", "audio", "input"], "src"),
    "link": "href",
    "object": "data",
    "image": "href",
}
LOADED = re.compile(rf"<(?:{'|'.join(LOADING)})\b|@import|url\(", re.IGNORECASE)
FUNCTION = re.compile(r"(<mi>[a-z]{2,}</mi>)(?=<m(?!o))")  # exp b, not expb
HEADINGS = [f"h{level}" for level in range(1, 7)]
UNNAMED = "No description has been provided for this image"  # nbconvert's
OUTSIDE_CSS = re.compile(r"@import[^;]*;?|url\(\s*['\"]?\s*(?:https?:)?//[^)]*\)", re.IGNORECASE)


def cells(notebook: nbformat.NotebookNode, folder: Path) -> str:
    """The cells of a notebook; images that its text names are looked for in `folder`."""
    exporter = Offline(
        template_name="basic",
        template_file="cells.html.j2",
        extra_loaders=[jinja2.FileSystemLoader(ASSETS)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    exporter.log.setLevel("ERROR")  # it warns of each figure without a description
    html, _ = exporter.from_notebook_node(notebook, {"metadata": {"path": str(folder)}})
    return offline(html)


def prose(source: str) -> str:
    """A paragraph of Markdown, its links to other parts of the notebook included."""
    return offline(MarkdownWithMath(renderer=_MathRenderer(escape=False, anchor_link_text="")).render(source))


class Offline(HTMLExporter):
    """nbconvert's cells with equations as MathML and nothing that a page would load."""

    @jinja2.pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        cell = context.get("cell", {})
        path = context.get("resources", {}).get("metadata", {}).get("path", "")
        renderer = _MathRenderer(
            escape=False, attachments=cell.get("attachments", {}), embed_images=True, path=path, anchor_link_text="#"
        )
        return MarkdownWithMath(renderer=renderer).render(source)

    def default_filters(self) -> Iterable[tuple[str, Any]]:
        yield from super().default_filters()
        yield "markdown2html", self.markdown2html
        yield "latex2html", latex
        yield "headline", headline


class _MathRenderer(IPythonRenderer):
    def inline_math(self, body: str) -> str:
        return mathml(body)

    def block_math(self, body: str) -> str:
        return mathml(body, display=True)

    def latex_environment(self, name: str, body: str) -> str:
        return mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", display=True)


def mathml(body: str, *, display: bool = False) -> str:
    """An equation as MathML, which browsers set without any script; as its source where it cannot be read."""
    from latex2mathml.converter import convert

    try:
        math = convert(body.strip(), display="block" if display else "inline")
    except Exception:  # its errors share no class, and a broken equation must not cost the report
        return f"<code>{escape(body.strip())}</code>"
    return FUNCTION.sub(r'\1<mspace width="0.17em"/>', math)


def latex(source: str) -> str:
    """An output of type text/latex: $...$, $$...$$ or bare."""
    body = source.strip()
    for mark in ("$$", "$"):
        if body.startswith(mark) and body.endswith(mark) and len(body) > 2 * len(mark):
            return mathml(body[len(mark) : -len(mark)], display=True)
    return mathml(body, display=True)


def headline(source: str) -> str:
    """The line that stands for a folded code cell: its first one that is no comment, else its first."""
    lines = [line for line in source.splitlines() if line.strip()] or [""]
    return next((line for line in lines if not line.lstrip().startswith(("#", "%"))), lines[0]).strip()


def offline(html: str) -> str:
    """The fragment without anything that a browser would fetch; a note stands in for what is left out."""
    if not LOADED.search(html):
        return html
    soup = BeautifulSoup(html, "html.parser")
    for name, attribute in LOADING.items():
        for tag in soup.find_all(name):
            address = str(tag.get(attribute) or tag.get(f"xlink:{attribute}") or "")
            tag.attrs.pop("srcset", None)
            if address and not address.startswith(("data:", "#")):
                note = soup.new_tag("span", attrs={"class": "blocked"})
                note.string = f"[not embedded: {address}]"
                tag.replace_with(note)
    for style in soup.find_all("style"):
        style.string = OUTSIDE_CSS.sub("", style.get_text())
    for tag in soup.find_all(style=OUTSIDE_CSS):
        tag["style"] = OUTSIDE_CSS.sub("", str(tag["style"]))
    return str(soup)


def readable(html: str, number: str) -> tuple[BeautifulSoup, Tag | None]:
    """A notebook's cells for those who listen or go by headings, and its h1, taken out.

    No level of headings is skipped, header cells have a scope, and figures are named after their section.
    """
    soup = BeautifulSoup(html, "html.parser")
    heading, level, section = soup.find("h1"), 1, ""
    if heading:
        heading.extract()
    for tag in soup.find_all([*HEADINGS, "th", "img"]):
        if tag.name == "th":
            top = tag.find_parent("thead") or not (tag.parent and tag.parent.find("td"))
            side, span = ("col", "colspan") if top else ("row", "rowspan")
            tag["scope"] = side + "group" * (tag.get(span, "1") != "1")
        elif tag.name == "img":
            if tag.get("alt", "") in ("", UNNAMED):
                tag["alt"] = f"figure of notebook {number}" + f", {section}" * bool(section)
        else:
            level = min(max(int(tag.name[1]), 2), level + 1)
            tag.name, section = f"h{level}", tag.get_text().strip(" #")
    return soup, heading


def lighten(notebook: nbformat.NotebookNode, *, above: int = LARGE) -> nbformat.NotebookNode:
    """Reduce the PNG outputs of more than `above` bytes to 256 colours, in place; the same file every time."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            png = output.get("data", {}).get("image/png")
            if png and len(content := b64decode(png)) > above:
                output["data"]["image/png"] = b64encode(reduced(content)).decode() + "\n"
    return notebook


def reduced(png: bytes) -> bytes:
    """A PNG with a palette of 256 colours, the commonest one kept exactly; the one given where that is smaller.

    What is clear stays clear.
    """
    from PIL import Image

    full: Any = Image.open(BytesIO(png))
    if full.mode == "P":
        return png
    mode = "RGB" if full.convert("RGBA").getextrema()[3] == (255, 255) else "RGBA"
    full = full.convert(mode)
    small = full.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    # an averaged ground is not quite clear, or white
    pixels, palette, size = full.tobytes(), small.getpalette(mode), len(mode)
    colours = [pixels[n : n + size] for n in range(0, len(pixels), size)]
    commonest = Counter(colours).most_common(1)[0][0]
    place = size * small.tobytes()[colours.index(commonest)]
    palette[place : place + size] = commonest
    small.putpalette(palette, mode)
    stream = BytesIO()
    small.save(stream, "PNG", optimize=True, dpi=full.info.get("dpi", (72, 72)))
    return min(stream.getvalue(), png, key=len)
