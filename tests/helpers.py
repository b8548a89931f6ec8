"""What several test files need: which fields differ, a legend's text, a training cut short, noise, a page's links."""

from dataclasses import fields
from html.parser import HTMLParser

import torch

from capsnb.data import ImageSet, Split
from capsnb.nn import taps


def changes(first, second, into=("model", "recipe")):
    """Names of the fields in which two specs differ, those of `into` entered where both are of one type."""
    found = set()
    for field in fields(first):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if a != b:
            inner = field.name in into and type(a) is type(b)
            found |= {f"{field.name}.{name}" for name in changes(a, b, into)} if inner else {field.name}
    return found


def keeping(model, part, mask):
    """Inside, only the units of `mask` (I,) or (B, I) are left of a part: the others are zero at its taps."""
    places = [name for name in (part, f"{part}.poses", f"{part}.activations") if name in taps.names(model)]
    return taps.edit(model, dict.fromkeys(places, taps.keep(mask)))


def legend_texts(legend):
    return [text.get_text() for text in legend.get_texts()]


def cut_after(training, steps, images):
    """The same training after so many steps over `images` images, its reports made on the way."""
    indices = training._indices(images)
    for _ in range(steps):
        index = next(indices)
        training._step(training.data.train.batch(index))
        if training._advance(len(index)):
            training._report(1.0, {})
    return training


def noise_set(train, validation, test, border=0):
    """16x16 images of noise in three classes, so many pixels at their edges black."""
    generator = torch.Generator().manual_seed(1)

    def split(count):
        images = torch.randint(0, 256, (count, 1, 16, 16), generator=generator).to(torch.uint8)
        inside = torch.zeros(16, 16, dtype=torch.uint8)
        inside[border : 16 - border, border : 16 - border] = 1
        return Split(images * inside, torch.arange(count) % 3)

    return ImageSet("toy", "made of noise", ("a", "b", "c"), split(train), split(validation), split(test))


class Links(HTMLParser):
    """Collects what a page would load, its anchors, and the links to them."""

    def __init__(self):
        super().__init__()
        self.loaded, self.ids, self.targets, self.tags = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "data", "poster", "xlink:href") or (name == "href" and tag != "a"):
                self.loaded.append((tag, value))
            elif name == "href" and value.startswith("#"):
                self.targets.append(value[1:])
            elif name == "id":
                self.ids.append(value)


def links(html: str) -> Links:
    found = Links()
    found.feed(html)
    return found
