"""What all explorers share: a model and a picture to choose, a state of traits, one line that says what is wrong."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from capsnb.data import DataSpec, ImageSet
from capsnb.explore.chooser import OWN, PictureChooser
from capsnb.explore.controls import STYLE, Sentence, button, dropdown, row, stage
from capsnb.explore.events import Latest
from capsnb.explore.subjects import Subject, names, subject


class settled(property):
    """A property of the state that there is now: what waits to be drawn is drawn before it is read."""

    def __get__(self, explorer: Any, kind: type | None = None) -> Any:
        if explorer is not None:
            explorer.settle()  # the widget's sentence is an error here
        return super().__get__(explorer, kind)


class _AbstractWidget(type(widgets.VBox), ABCMeta):
    """Widgets have a metaclass of their own."""


class Explorer(widgets.VBox, metaclass=_AbstractWidget):
    """A widget whose traits tagged `state` are all there is to know of it; shown by being a cell's last line.

    An explorer makes its `controls` and what is in its `view` in `_build`, fits them to a model in `_fit`, and draws
    one state in `_update`; a ValueError there becomes a sentence in the widget. Setting a trait moves its control and
    the other way round. In a running notebook pictures follow events by a few milliseconds; everything that an
    explorer tells in Python is of the state that there is now.
    """

    model = traitlets.Any()
    index = traitlets.Int(0, help="place of the test image; -1 for an uploaded one").tag(state=True)

    def __init__(
        self, model: Any = "capsnet-small", *, data: ImageSet | DataSpec | str | None = None, **state: Any
    ) -> None:
        """model: the name of a checkpoint or of a finished run, a `Run`, or a model. data: see `subject`. state: the
        traits' values at the start. Raises ValueError for a model or a state that there cannot be."""
        self._data, self._quiet = data, 0
        self._shown: dict[str, Callable[[], None]] = {}
        self.subject = subject(model, data)
        unknown = set(state) - set(self.state_names())
        if unknown:
            known = ", ".join(self.state_names())
            raise ValueError(f"{type(self).__name__} has no {', '.join(sorted(unknown))}; its state is: {known}.")
        self.latest = Latest(self._draw)
        self.message = Sentence()
        self.chooser = PictureChooser(self.subject.data)
        self.controls, self.view = widgets.VBox(), row([], "capsnb-view")
        super().__init__()
        self.picker = dropdown("Model")
        self.picker.add_class("capsnb-model")
        self._list_models()
        self.picker.observe(self._pick, "value")
        with self.latest.together():
            self.model = model
            self._build()
            self._fit_quietly()
            self.tools = self._make_tools()
            with self.quiet():
                for name, value in state.items():
                    self._start(name, value)
            traitlets.link((self, "index"), (self.chooser, "index"))
            self.observe(self.latest.request, self.state_names())
            self.chooser.observe(self.latest.request, "uploaded")
            self.observe(self._change_model, "model")
            self.latest.request()
        self.latest.settle()
        self.add_class("capsnb")
        self.head = widgets.VBox([self.chooser, self.controls, self.tools])  # all that may serve two views at once
        self.shown = widgets.VBox([self.picker, self.message, self.view])
        self.children = [widgets.HTML(STYLE), stage(self.shown, self.head)]

    # what an explorer of one kind brings

    @abstractmethod
    def _build(self) -> None:
        """Make the controls and the view, once."""

    @abstractmethod
    def _fit(self) -> None:
        """Fit ranges and names to `subject`, a new one; controls that move meanwhile set nothing."""

    @abstractmethod
    def _update(self) -> None:
        """Compute and show the present state. ValueError where that is impossible."""

    @abstractmethod
    def figure(self) -> Figure:
        """The present state as a figure with all its labels, for a page or a paper."""

    # what all of them do

    @classmethod
    def state_names(cls) -> list[str]:
        """The traits that make the state."""
        return sorted(cls.class_trait_names(state=True))

    @property
    def state(self) -> dict[str, Any]:
        """The traits that differ from their start."""
        starts = self.trait_defaults(state=True)
        return {name: getattr(self, name) for name in self.state_names() if getattr(self, name) != starts[name]}

    def settle(self) -> None:
        """Draw now what waits to be drawn. Raises ValueError with the widget's sentence where it shows one."""
        self.latest.settle()
        if self.message.text:
            raise ValueError(self.message.text)

    @property
    def image(self) -> Tensor:
        """The chosen picture, (C, H, W) uint8."""
        return self.chooser.image

    def code(self) -> str:
        """The line of Python that opens this explorer in its present state (but for an uploaded picture)."""
        return f"{type(self).__name__}({self.subject.code}{self.arguments()})"

    def arguments(self) -> str:
        """The present state in that line."""
        state = {name: value for name, value in self.state.items() if (name, value) != ("index", OWN)}
        return "".join(f", {name}={value!r}" for name, value in state.items())

    def reset(self) -> None:
        """All but the model and the picture as at the start."""
        with self.latest.together():
            for name, start in self.trait_defaults(state=True).items():
                if name != "index":
                    setattr(self, name, start)

    def save(self, file: str | Path) -> Path:
        """Write the present state as a picture; the name's ending says of which kind."""
        self.settle()
        self.figure().savefig(file)
        return Path(file)

    # the tools below the controls

    def _make_tools(self) -> widgets.HBox:
        self.resetter = button("Reset", "as at the start", self.reset, icon="undo")
        self.coder = button("State as code", "the line of Python that opens this state", self._show_code, icon="code")
        self.saver = button("Save picture", "a PNG of the present state", self._offer_picture, icon="download")
        self.answer = Sentence()
        self.line = widgets.Text(description="Python", layout={"display": "none", "width": "min(100%, 640px)"})
        return row([self.resetter, self.coder, self.saver, self.line, self.answer])

    def _show_code(self) -> None:
        self.line.value, self.line.layout.display = self.code(), ""

    def _offer_picture(self) -> None:
        with self._telling():
            self.settle()
            stream = BytesIO()
            self.figure().savefig(stream, format="png", dpi=150)
            name = f"{type(self).__name__}.png"
            self.answer.offer(f"{name} is ready: {len(stream.getvalue()) / 1e3:.0f} kB", name, stream.getvalue())

    # the model

    def offers(self, name: str) -> bool:
        """Whether a checkpoint or a run is among the models to choose from; another one is refused when it is given."""
        return True

    def _list_models(self) -> None:
        known = [name for name in names() if self.offers(name)]
        own = [] if self.subject.name in known else [(f"{self.subject.name} (given)", self.subject)]
        before = [each for each in self.picker.options if isinstance(each[1], Subject) and each not in own]
        with self.quiet():
            self.picker.options = [*own, *before, *((name, name) for name in known)]
            self.picker.value = own[0][1] if own else self.subject.name

    def _pick(self, change: dict) -> None:
        if not self._quiet and change["new"] is not None:
            self.model = change["new"]

    def _change_model(self, change: dict) -> None:
        with self._telling(), self.latest.together():
            try:
                self.subject = subject(change["new"], self._data)
                self.chooser.use(self.subject.data)
                self._fit_quietly()
                self.latest.request()
            finally:
                self._list_models()

    def _fit_quietly(self) -> None:
        with self.quiet():
            self._fit()
        for show in self._shown.values():
            show()

    # the state

    def _start(self, name: str, value: Any) -> None:
        if name == "index" and not 0 <= value < len(self.subject.data.test):
            raise ValueError(f"index = {value}: there are {len(self.subject.data.test):,} test images, from 0.")
        try:
            setattr(self, name, value)
        except traitlets.TraitError as error:
            raise ValueError(f"{name} = {value!r} is no state of {type(self).__name__}: {error}") from error

    def _draw(self) -> None:
        with self._telling():
            self._update()
        self.view.layout.display = "none" if self.message.text else ""

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """An error that a reader can do something about becomes a sentence in the widget."""
        try:
            yield
        except (ValueError, OSError) as error:
            self.message.complain(" ".join(str(error).split()))
        else:
            self.message.clear()

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Inside, controls are moved by the program: they set no trait."""
        self._quiet += 1
        try:
            yield
        finally:
            self._quiet -= 1

    def bind(
        self,
        name: str,
        control: widgets.Widget,
        *,
        show: Callable[[Any], Any] = lambda value: value,
        take: Callable[[Any], Any] = lambda value: value,
    ) -> widgets.Widget:
        """Let a control show a trait and set it; a value that the control does not offer leaves it empty.

        show: the trait's value as the control has it. take: the other way round.
        """

        def show_trait(_: object = None) -> None:
            with self.quiet():
                try:
                    control.value = show(getattr(self, name))
                except traitlets.TraitError:
                    control.value = None

        def set_trait(change: dict) -> None:
            if not self._quiet and change["new"] is not None:
                setattr(self, name, take(change["new"]))

        self._shown[name] = show_trait
        self.observe(show_trait, name)
        control.observe(set_trait, "value")
        return control

    def offer(self, name: str, control: widgets.Dropdown, options: list[tuple[str, Any]]) -> None:
        """Give the list of a trait other options, in `_fit`; a value that is none of them goes back to the start."""
        control.options = options
        if getattr(self, name) not in dict(options).values():
            setattr(self, name, self.trait_defaults(name))
