"""Figure 4 of Gu et al. 2021 as an observation: what a decoder draws when one number of a pose changes.

Kept as a few small pictures, so that the figure is drawn again by anyone without the network's weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from capsnb.data import ImageSet
from capsnb.measure.perturbation import perturbation_grid
from capsnb.measure.protocol import GU, first, measurement

WITHIN = 0.2  # what the paper adds to numbers of a pose that is shorter than 1
WIDE = 8.0  # and to the others
STEPS = 9


@measurement("redrawn", paper=GU, needs=("reconstruction",))
def redrawn(model: nn.Module, data: ImageSet, *, label: int = 4, rows: int = 4) -> dict[str, Any]:
    """The first test image of a class, redrawn with up to `reach` added to or taken from a number of its pose, in nine
    steps: "pictures" (rows, 9, H, W) uint8, of the numbers that change the picture most, largest first.

    "change" is the mean absolute change of a pixel, in shares of white, of every number of the pose. reach is 0.2 where
    poses are shorter than 1, else 8, as in the paper. Raises ValueError where the test images show no such class.
    """
    test = first(data.test, len(data.test))
    places = (test.labels == label).nonzero()
    if not len(places):
        raise ValueError(f"the test images show no image of class {label}")
    image = test.select(places[0])
    device = next(model.parameters()).device
    with torch.no_grad():
        poses = model(image.images.to(device)).poses
    reach = WITHIN if poses.norm(dim=-1).max() < 1 else WIDE
    steps = [reach * (2 * n / (STEPS - 1) - 1) for n in range(STEPS)]
    grid = perturbation_grid(model, image.images, image.labels, steps)[0, :, :, 0]  # (D, steps, H, W)
    change = (grid - grid[:, STEPS // 2, None]).abs().mean(dim=(1, 2, 3))
    most = change.topk(min(rows, len(change))).indices
    pictures = (255 * grid[most].clamp(0, 1)).round().to(torch.uint8).cpu().numpy()
    return {"pictures": pictures, "change": change.tolist(), "reach": reach}
