"""The parts that explorers are put together from: labelled controls, pictures, sentences, and their look."""

from __future__ import annotations

from html import escape
from typing import Any

import ipywidgets as widgets

from capsnb.explore.encoding import data_uri

# the theme's own variables, with a fallback for pages that have none
STYLE = """<style>
.capsnb{color:var(--jp-ui-font-color1,inherit);max-width:1180px;overflow:visible}
.capsnb .capsnb-row{flex-flow:row wrap;overflow:visible;align-items:center}
.capsnb .capsnb-view{flex-flow:row wrap;overflow:visible;align-items:flex-start;gap:18px;padding:6px 0}
.capsnb .capsnb-sliders{display:grid;grid-template-columns:repeat(auto-fill,minmax(270px,1fr));
gap:0 10px;overflow:visible}
.capsnb figure{margin:0}
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


class Picture(widgets.HTML):
    """A picture with its caption above; `png` are its bytes. width, height: on the page, in pixels."""

    def __init__(self, *, width: int = 150, height: int | None = None) -> None:
        super().__init__()
        self.png, self._size = b"", (width, height or width)

    def show(self, png: bytes, caption: str, alt: str | None = None) -> None:
        """Show a PNG. alt: what a screen reader says, the caption when None."""
        self.png = png
        width, height = self._size
        size = f'width="{width}" height="{height}" style="width:{width}px;height:{height}px"'
        image = f'<img {size} decoding="sync" alt="{escape(alt or caption)}" src="{data_uri(png)}">'
        self.value = f'<figure style="width:{width}px"><figcaption>{escape(caption)}</figcaption>{image}</figure>'


class Chart(widgets.HTML):
    """An SVG with its caption above."""

    def show(self, svg: str, caption: str) -> None:
        """Show a chart."""
        self.value = f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"


def button(text: str, tooltip: str, *, width: str = "auto", icon: str = "") -> widgets.Button:
    """A button that says what it does."""
    return widgets.Button(description=text, tooltip=tooltip, icon=icon, layout={"width": width})


def dropdown(text: str, options: Any, **more: Any) -> widgets.Dropdown:
    """A labelled list to choose from, as wide as it needs."""
    return widgets.Dropdown(description=text, options=options, style={"description_width": "initial"}, **_wide(more))


def slider(text: str, low: float, high: float, value: float, step: float, form: str = "+.2f") -> widgets.FloatSlider:
    """A labelled slider that answers while it is dragged."""
    style = {"description_width": LABEL}
    return widgets.FloatSlider(
        value,
        description=text,
        min=low,
        max=high,
        step=step,
        readout_format=form,
        style=style,
        layout={"width": "auto"},
    )


def move(control: widgets.FloatSlider, low: float, high: float, value: float) -> None:
    """Give a slider another range and value; neither may be outside the other on the way there."""
    with control.hold_sync():
        control.min, control.max = min(low, control.min), max(high, control.max)
        control.value = value
        control.min, control.max = low, high


def _wide(more: dict[str, Any]) -> dict[str, Any]:
    return {"layout": {"width": "auto"}} | more
