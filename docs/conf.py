"""The site: notebooks as committed, a gallery of their figures, how-to pages, the API from docstrings. `make docs`."""

import re
import shutil
from base64 import b64decode
from html import escape
from pathlib import Path

import nbformat
from myst_nb.core.render import NbElementRenderer

from capsnb import __version__

HERE = Path(__file__).parent
PROJECT = HERE.parent

project, author, release = "capsnb", "capsnb contributors", __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.apidoc", "sphinx.ext.viewcode"]
exclude_patterns = ["conf.py"]
html_theme, html_title = "pydata_sphinx_theme", f"capsnb {release}"
html_static_path, html_css_files = ["_static"], ["site.css"]
html_show_sourcelink = False
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
}
html_sidebars = {page: [] for page in ("index", "gallery", "results")}

nb_execution_mode = "off"  # as committed
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
# notebooks name files of the project that are no pages, and number their headings as a reader counts them
suppress_warnings = ["myst.xref_missing", "myst.header"]
# rows for the report, whose tables are shown as HTML; and names that a package offers again
suppress_warnings += ["mystnb.unknown_mime_type", "ref.python"]

apidoc_modules = [
    {"path": "../capsnb", "destination": "api", "separate_modules": True, "module_first": True, "max_depth": 2}
]
autodoc_default_options = {"members": True, "member-order": "bysource", "ignore-module-all": True}
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False
default_role = "code"


def bring_notebooks() -> None:
    """Copy the committed notebooks to where pages are made of them."""
    shutil.rmtree(HERE / "notebooks", ignore_errors=True)
    (HERE / "notebooks").mkdir()
    for path in sorted((PROJECT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        shutil.copy(path, HERE / "notebooks")


def make_gallery() -> None:
    """Write a page of all figures, each linked to its notebook."""
    folder = HERE / "_static" / "gallery"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    parts = ["# Gallery", "Every figure of the notebooks, as committed."]
    for path in sorted((HERE / "notebooks").glob("*.ipynb")):
        parts += [
            f"## [{path.stem[:2]} {path.stem[3:].replace('_', ' ')}](notebooks/{path.name})",
            "<div class=gallery>",
        ]
        for number, (picture, alt) in enumerate(figures(path)):
            name = f"{path.stem[:2]}-{number:02}.png"
            (folder / name).write_bytes(picture)
            told = escape(alt or f"A figure of notebook {path.stem[:2]}", quote=True)
            image = f'<img loading="lazy" src="_static/gallery/{name}" alt="{told}">'
            parts[-1] += f'<a href="notebooks/{path.stem}.html">{image}</a>'
        parts[-1] += "</div>"
    (HERE / "gallery.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def figures(path: Path):
    """The PNGs of a notebook's outputs and what is said of them."""
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", ()):
            if picture := output.get("data", {}).get("image/png"):
                yield b64decode(picture), output.metadata.get("image/png", {}).get("alt", "")


def with_alternatives(render):
    """myst-nb's pictures, which take width and height from an output's metadata, with the alternative too."""

    def rendered(self, data):
        found = render(self, data)
        alt = data.output_metadata.get(data.mime_type, {}).get("alt")
        for node in found:
            node["alt"] = alt or node.get("alt", "A figure")
        return found

    return rendered


NbElementRenderer.render_image = with_alternatives(NbElementRenderer.render_image)


MARKUP = re.compile(r"`[^`]*`|([*|_\\])")  # code is passed over whole
PARAMETERS = re.compile(r"^(\w+(?:, \w+)*): ", re.MULTILINE)


def as_rst(app, what, name, thing, options, lines: list[str]) -> None:
    """Docstrings are plain sentences with `code`, and examples indented by four: say so in the site's own markup."""
    if type(thing).__module__.startswith("traitlets"):
        lines.clear()  # its class's own words
        return
    text = []
    for block in re.split(r"\n\s*\n", "\n".join(lines).rstrip()):
        if block.startswith("    "):
            text.append(f"::\n\n{block}")
        else:
            plain = MARKUP.sub(lambda found: f"\\{found[1]}" if found[1] else found[0], re.sub(r"\n +", "\n", block))
            text.append(PARAMETERS.sub(r"\n**\1**: ", plain))
    lines[:] = [*"\n\n".join(text).split("\n"), ""]


def setup(app) -> None:
    bring_notebooks()
    make_gallery()
    app.connect("autodoc-process-docstring", as_rst)
