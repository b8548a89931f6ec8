"""A network small enough to be routed by hand."""

import torch
from torch import nn

from capsnb.nn import taps
from capsnb.nn.layers import RoutedCapsules, Stage, length
from capsnb.nn.models import Output
from capsnb.nn.routing import Dynamic


class TwoPaths(nn.Module):
    """Four pixels, four filters, four capsules in a row; capsules 0 and 1 vote for class 0, 2 and 3 for class 1.

    Filter n sees pixel n alone, capsule n has the pose (pixel, 0), and its vote for its class is twice its pose, for
    the other class zero. Two iterations of dynamic routing.
    """

    stages, layers = ("conv1",), ("class",)
    decoder = None

    def __init__(self):
        super().__init__()
        self.image_shape = (1, 1, 4)
        self.conv1 = Stage(nn.Identity())
        self.primary = taps.Tap()
        layer = RoutedCapsules(4, 2, 2, 2, routing=Dynamic(iterations=2))
        with torch.no_grad():
            layer.weight.zero_()
            for child in range(4):
                layer.weight[child, :, child // 2] = 2 * torch.eye(2)
        self.add_module("class", layer)

    def forward(self, images, labels=None):
        pixels = images.float() / 255 if images.dtype == torch.uint8 else images
        maps = self.conv1(torch.diag_embed(pixels[:, 0, 0]).unsqueeze(2))  # (B, 4, 1, 4)
        activity = maps.sum((2, 3))
        poses = self.primary(torch.stack([activity, torch.zeros_like(activity)], -1))
        poses = self.get_submodule("class")(poses)
        return Output(length(poses), poses, None)


def two_path_images(rows):
    """Images (B, 1, 1, 4), uint8, of activities in [0, 1]."""
    return (255 * torch.tensor(rows)).round().to(torch.uint8)[:, None, None]
