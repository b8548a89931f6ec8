"""What explorers are put together from: labelled controls in rows, sentences, and the look of it all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape
from typing import Any

import ipywidgets as widgets

from capsnb.explore.pictures import data_uri

# The theme's own variables, with a fallback for pages that have none. What stands around an explorer must not scroll by
# itself, or nothing in it could stick; its width, not the window's, says whether pictures and sliders fit beside
# each other.
STYLE = """<style>
.capsnb{color:var(--jp-ui-font-color1,inherit);max-width:1240px;overflow:visible;container-type:inline-size}
:is(.jp-Cell,.jp-Cell-outputWrapper,.jp-Cell-outputArea,.jp-OutputArea-child,.jp-OutputArea-output):has(.capsnb){
overflow:visible!important}
.capsnb .capsnb-stage{--capsnb-scale:.8;display:grid;gap:0 22px;align-items:start;overflow:visible}
.capsnb .capsnb-stage>*{position:sticky;top:0;overflow:visible}
.capsnb .capsnb-stage>:first-child{max-height:55vh;overflow:auto;z-index:3;background:var(--jp-layout-color1,Canvas);
border-bottom:1px solid var(--jp-border-color2,#8884)}
.jp-NotebookPanel .capsnb .capsnb-stage>:first-child{background:var(--jp-layout-color0)}
.capsnb .capsnb-stage>:last-child{position:static}
.capsnb .capsnb-stage>:last-child *{scroll-margin-top:58vh}
.capsnb .capsnb-row{flex-flow:row wrap;overflow:visible;align-items:center}
.capsnb .capsnb-view{flex-flow:row wrap;overflow:visible;align-items:flex-start;gap:8px 12px;padding:4px 0}
.capsnb .capsnb-sliders{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));
gap:0 10px;overflow:visible}
@container (min-width:960px){
.capsnb .capsnb-stage{grid-template-columns:minmax(0,1.35fr) minmax(0,1fr)}
.capsnb .capsnb-stage>:first-child{max-height:calc(100vh - 120px);border:0;background:none!important}
.capsnb .capsnb-stage>:last-child{position:sticky}
.capsnb .capsnb-stage>:last-child *{scroll-margin-top:0}
}
@container (min-width:1120px){
.capsnb .capsnb-stage{--capsnb-scale:1}
.capsnb .capsnb-sliders{grid-template-columns:repeat(auto-fill,minmax(250px,1fr))}
}
.capsnb figure{margin:0;max-width:100%}
.capsnb .capsnb-view figcaption{min-height:33px;display:flex;align-items:flex-end}
.capsnb .widget-html-content{overflow:visible}
.capsnb .capsnb-model{width:min(100% - 4px,420px)!important}
.capsnb figcaption,.capsnb p{font-size:12px;line-height:1.35;margin:0 0 3px;color:var(--jp-ui-font-color1,inherit)}
.capsnb img{image-rendering:pixelated;display:block;background:var(--jp-layout-color2,#8882);max-width:100%}
.capsnb svg{max-width:100%;height:auto;overflow:visible;font:11px var(--jp-ui-font-family,sans-serif);
color:var(--jp-ui-font-color1,currentColor)}
.capsnb .capsnb-thumbnail{height:50px;padding:0;font-size:0;background-size:contain;background-repeat:no-repeat;
background-position:center;image-rendering:pixelated}
.capsnb .capsnb-thumbnail:focus-visible{outline:2px solid var(--jp-brand-color1,#1976d2)}
.capsnb .capsnb-chosen{box-shadow:0 0 0 3px #de8f05}
.capsnb .capsnb-error{border-left:4px solid #d55e00;padding:4px 8px}
.capsnb .widget-slider,.capsnb .widget-hslider{width:auto}
.capsnb .widget-dropdown>select{background-image:linear-gradient(45deg,#0000 50%,currentColor 0),
linear-gradient(-45deg,#0000 50%,currentColor 0);background-position:right 10px center,right 5px center;
background-size:5px 5px;background-repeat:no-repeat}
</style>"""

LABEL = "94px"  # room for a slider's name


class Sentence(widgets.HTML):
    """A line that says something, read out by a screen reader when it changes; `text` is what it says."""

    def __init__(self) -> None:
        super().__init__(layout={"display": "none"})
        self.text = ""

    def say(self, text: str) -> None:
        """Show a sentence."""
        self._put(text, f'<p role="status">{escape(text)}</p>')

    def complain(self, text: str) -> None:
        """Show a sentence about what is wrong."""
        self._put(text, f'<p role="alert" class="capsnb-error">{escape(text)}</p>')

    def offer(self, text: str, name: str, content: bytes) -> None:
        """Show a sentence that is a link to a PNG of that name."""
        self._put(
            text, f'<p role="status"><a download="{escape(name)}" href="{data_uri(content)}">{escape(text)}</a></p>'
        )

    def clear(self) -> None:
        """Show nothing."""
        self._put("", "")

    def _put(self, text: str, html: str) -> None:
        self.text, self.value = text, html
        self.layout.display = "" if text else "none"


def button(text: str, hint: str, press: Callable[[], None], *, width: str = "auto", icon: str = "") -> widgets.Button:
    """A button that says what it does, and does it."""
    made = widgets.Button(description=text, tooltip=hint, icon=icon, layout={"width": width})
    made.on_click(lambda _: press())
    return made


def dropdown(text: str, options: Any = ()) -> widgets.Dropdown:
    """A labelled list to choose from, as wide as it needs."""
    style = {"description_width": "initial"}
    return widgets.Dropdown(description=text, options=options, style=style, layout={"width": "auto"})


def slider(text: str, kind: type[widgets.Widget] = widgets.FloatSlider, **options: Any) -> widgets.Widget:
    """A labelled slider that answers while it is dragged. options: those of its kind, such as min and max."""
    return kind(description=text, style={"description_width": LABEL}, layout={"width": "auto"}, **options)


def row(parts: Iterable[widgets.Widget], look: str = "capsnb-row") -> widgets.HBox:
    """Controls, or by another look pictures, side by side, in several lines where there is no room."""
    made = widgets.HBox(list(parts))
    made.add_class(look)
    return made


def stage(shown: widgets.Widget, head: widgets.Widget) -> widgets.Box:
    """What is shown beside its controls, above them where there is no room, and in sight however far one scrolls."""
    made = widgets.Box([shown, head])
    made.add_class("capsnb-stage")
    return made


def panel(sliders: Iterable[widgets.Widget], **layout: str) -> widgets.Box:
    """Sliders in columns, as many as there is room for."""
    made = widgets.Box(list(sliders), layout=layout)
    made.add_class("capsnb-sliders")
    return made
