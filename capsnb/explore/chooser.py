"""Which picture: a strip of thumbnails, a class, one at random, or the reader's own."""

from __future__ import annotations

import random
import warnings
from dataclasses import dataclass
from functools import partial
from itertools import count

import ipywidgets as widgets
import torch
import traitlets
from torch import Tensor

from capsnb.data import ImageSet, single
from capsnb.explore import pictures
from capsnb.explore.controls import Sentence, button, dropdown, row

SHOWN = 8  # thumbnails at once
OWN = -1  # the index of a picture that was uploaded
_numbers = count()


@dataclass(frozen=True, eq=False)
class OwnPicture:
    """A reader's picture, as an image of a data set; one is never the same as another, as traits need to know."""

    image: Tensor  # (C, H, W) uint8


class PictureChooser(widgets.VBox):
    """`index` is the chosen test image, OWN for `uploaded`, an OwnPicture; `only` a class, or -1 for all."""

    index = traitlets.Int(0)
    only = traitlets.Int(-1)
    uploaded = traitlets.Any(None, allow_none=True)

    def __init__(self, data: ImageSet) -> None:
        super().__init__()
        self._key, self._first = f"capsnb-strip-{next(_numbers)}", 0
        self.note = Sentence()
        self._style = widgets.HTML()
        self.thumbnails = [button("", "", partial(self._press, place), width="50px") for place in range(SHOWN)]
        for place, thumbnail in enumerate(self.thumbnails):
            thumbnail.add_class("capsnb-thumbnail")
            thumbnail.add_class(f"{self._key}-{place}")
        self.back = button("", "earlier pictures", partial(self._turn, -1), width="34px", icon="chevron-left")
        self.on = button("", "later pictures", partial(self._turn, 1), width="34px", icon="chevron-right")
        self.classes = dropdown("Class")
        self.random = button("Random", "a picture at random", self.draw, icon="random")
        self.upload = widgets.FileUpload(accept="image/*", description="Your own picture", layout={"width": "170px"})
        self.upload.observe(self._receive, "value")
        self.use(data)
        strip = row([self.back, *self.thumbnails, self.on])
        self.children = [self._style, row([self.classes, self.random, self.upload]), strip, self.note]
        traitlets.link((self, "only"), (self.classes, "value"))
        self.observe(self._show, ["index", "uploaded"])
        self.observe(self._filter, "only")

    def use(self, data: ImageSet) -> None:
        """Show another set of images; the chosen place is kept where it is one in the new set."""
        self.data, split = data, data.test
        self.labels = split.labels.cpu()
        self._dark = single.is_dark(split.images[:100])
        if self.uploaded is not None and tuple(self.uploaded.image.shape) != tuple(data.image_shape):
            self.uploaded = None
        if self.index >= len(split) or (self.index == OWN and self.uploaded is None):
            self.index = 0
        only = self.only if self.only < len(data.classes) else -1
        self.classes.options = [("all", -1), *((name, label) for label, name in enumerate(data.classes))]
        self.only = only  # a list begins at its first option again
        self._filter()

    @property
    def image(self) -> Tensor:
        """The chosen image, (C, H, W) uint8."""
        return self.uploaded.image if self.index == OWN else self.data.test.images[self.index].cpu()

    @property
    def title(self) -> str:
        """Its true class in words."""
        return "your own" if self.index == OWN else f"class {self.data.classes[self.labels[self.index]]}"

    def draw(self) -> None:
        """Choose a picture at random among those of the class that is shown."""
        self.index = int(random.choice(self._places.tolist()))
        self._page_to(self.index)

    def take(self, content: bytes, name: str) -> None:
        """Choose an uploaded file's picture. Raises ValueError where it is none that can be read."""
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            pixels = single.read_picture(content, name)
        image, done = single.fit(pixels, self.data.image_shape, dark=self._dark)
        with self.hold_trait_notifications():
            self.uploaded, self.index = OwnPicture(image), OWN
        self.note.say(" ".join([f"{name}: {done}", *(str(each.message) for each in told)]))

    def _receive(self, change: dict) -> None:
        if not change["new"]:
            return
        file = change["new"][-1]
        try:
            self.take(bytes(file["content"]), str(file["name"]))
        except ValueError as error:
            self.note.complain(str(error))

    def _filter(self, _: object = None) -> None:
        everything = torch.arange(len(self.labels))
        chosen = everything if self.only == -1 else everything[self.labels == self.only]
        self._places = chosen if len(chosen) else everything
        self._first = 0
        self._page_to(self.index)
        if not len(chosen):
            self.note.complain(f"no test image is of class {self.data.classes[self.only]}; all are shown.")

    def _press(self, place: int) -> None:
        if self._first + place < len(self._places):
            self.index = int(self._places[self._first + place])

    def _turn(self, pages: int) -> None:
        """Another page; the first follows the last."""
        starts = range(0, len(self._places), SHOWN)
        self._first = starts[(self._first // SHOWN + pages) % len(starts)]
        self._show()

    def _page_to(self, index: int) -> None:
        found = (self._places == index).nonzero()
        if len(found):
            self._first = int(found[0]) // SHOWN * SHOWN
        self._show()

    def _show(self, _: object = None) -> None:
        shown, rules = self._places[self._first : self._first + SHOWN].tolist(), []
        for place, thumbnail in enumerate(self.thumbnails):
            thumbnail.disabled = place >= len(shown)
            thumbnail.remove_class("capsnb-chosen")
            if thumbnail.disabled:
                thumbnail.description = thumbnail.tooltip = ""
                continue
            name = self.data.classes[int(self.labels[shown[place]])]
            thumbnail.description = thumbnail.tooltip = f"picture {shown[place]}, class {name}"
            if shown[place] == self.index:
                thumbnail.add_class("capsnb-chosen")
            image = pictures.png(pictures.as_bytes(self.data.test.images[shown[place]]))
            rules.append(f".{self._key}-{place}{{background-image:url({pictures.data_uri(image)})!important}}")
        self._style.value = f"<style>{''.join(rules)}</style>"
        if self.index != OWN:
            self.note.clear()
