"""A single picture of a reader's, made to look like those of a data set: channels, ground, square, size."""

from __future__ import annotations

import warnings
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from capsnb.data import pictures
from capsnb.data.pictures import Unfit

if TYPE_CHECKING:
    from PIL import Image

MOST_BYTES = 10_000_000
MOST_PIXELS = 40_000_000


def read_picture(content: bytes, name: str = "the file") -> np.ndarray:
    """A picture's bytes as uint8 (H, W, 3), read by the rules of `capsnb.data.pictures`, as a folder's are.

    Raises ValueError, in one sentence, for what is no picture, is damaged, has no pixels worth the name or too many, or
    colours of more than 8 bits; grey of more is scaled. Of several pages or frames the first is taken, which a warning
    says.
    """
    from PIL import Image, UnidentifiedImageError

    if len(content) > MOST_BYTES:
        raise ValueError(
            f"{name} has {len(content) / 1e6:.0f} MB; pictures of up to {MOST_BYTES / 1e6:.0f} MB are read."
        )
    if not content:
        raise ValueError(f"{name} is empty; choose a PNG or JPEG picture.")
    damaged = f"{name} is damaged: it begins like a picture and cannot be read to its end."
    try:
        with pictures.opened(BytesIO(content), damaged) as picture:
            width, height = picture.size
            if width * height > MOST_PIXELS:
                most = f"up to {MOST_PIXELS / 1e6:.0f} million are read"
                raise Unfit(f"{name} has {width:,} x {height:,} pixels; {most}.")
            if min(width, height) < 2:
                raise Unfit(f"{name} has {width} x {height} pixels, too few to show anything.")
            paged = pictures.has_pages(picture)
            deep = pictures.bits(picture, name)
            settled = _eight_bits(pictures.upright(picture), name) if deep else pictures.settled(picture)
            pixels = np.array(settled.convert("RGB"))
    except ValueError as error:
        if isinstance(error.__cause__, UnidentifiedImageError):
            raise ValueError(f"{name} is not a picture that can be read; choose a PNG or JPEG picture.") from error
        if isinstance(error.__cause__, Image.DecompressionBombError):
            raise ValueError(
                f"{name} has more than {MOST_PIXELS / 1e6:.0f} million pixels; choose a smaller one."
            ) from error
        raise
    if paged:
        warnings.warn(f"{name} has several pages or frames, of which the first is taken.", stacklevel=2)
    return pixels


def fit(
    pixels: np.ndarray, image_shape: tuple[int, ...], *, dark: bool = False, how: str = "pad"
) -> tuple[Tensor, str]:
    """A picture (H, W, 3) as an image (C, H, W) uint8 of a data set, and a sentence of what was done to it.

    It is brought to the shape of the set's images and resized, averaged to grey for one channel. how: "pad" it with its
    ground, the median colour of its border; "stretch" it, as a folder of mixed sizes is; or "crop" its central square
    first. dark: the set shows light on dark, so that a picture on a light ground is inverted.
    """
    from PIL import Image

    channels, height, width = image_shape
    flat, done = np.asarray(Image.fromarray(pixels).convert("L" if channels == 1 else "RGB")), []
    ground = np.median(np.concatenate([flat[0], flat[-1], flat[:, 0], flat[:, -1]]), 0)
    if dark and ground.mean() > 127:
        flat, ground = 255 - flat, 255 - ground
        done.append("inverted to light on dark, as the pictures of this set are")
    rows, columns = flat.shape[:2]
    if how == "crop" and rows != columns:
        side = min(rows, columns)
        flat = flat[(rows - side) // 2 :, (columns - side) // 2 :][:side, :side]
        done.append("cropped to a square")
    high, wide = height, width
    if how == "pad":
        scale = min(height / rows, width / columns)
        high, wide = max(1, round(rows * scale)), max(1, round(columns * scale))
    if (high, wide) != (height, width):
        done.append("padded to a square" if height == width else f"padded to the proportions {width} : {height}")
    if flat.shape[:2] != (height, width):
        done.append(f"resized to {width} x {height}")
    if flat.shape[:2] != (high, wide):  # before it is padded: a square of a long strip would fill the memory
        flat = np.asarray(Image.fromarray(flat).resize((wide, high), Image.Resampling.BILINEAR))
    top, left = (height - high) // 2, (width - wide) // 2
    canvas = np.empty((height, width, channels), np.uint8)
    canvas[:] = ground + 0.5
    canvas[top : top + high, left : left + wide] = flat.reshape(high, wide, channels)
    image = torch.from_numpy(canvas.transpose(2, 0, 1).copy())
    return image, f"{columns} x {rows} pixels" + "".join(f", {each}" for each in done) + "."


def is_dark(images: Tensor) -> bool:
    """Whether images (N, C, H, W) uint8 stand on a dark ground: the mean of their borders is below a quarter."""
    border = [images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]]
    return bool(torch.cat([each.flatten() for each in border]).float().mean() < 64)


def _eight_bits(picture: Image.Image, name: str) -> Image.Image:
    """Grey pictures of 16 bits are scaled to 8, where Pillow would cut them off."""
    from PIL import Image

    values = np.array(picture, dtype=np.float64)
    if not np.isfinite(values).all():
        raise Unfit(f"{name} has values that are no numbers.")
    top = 65535 if picture.mode.startswith("I") and values.max() > 255 else max(255.0, values.max())
    return Image.fromarray((values.clip(0) / top * 255).astype(np.uint8))
