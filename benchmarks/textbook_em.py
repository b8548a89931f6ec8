"""Matrix capsules as a textbook would write them from Hinton, Sabour & Frosst 2018, for comparison with capsnb's.

Deliberately plain, and correct: votes by a broadcast matrix product, every step of EM on whole tensors, children that
compete over all positions. The loss is the paper's equation 3 with a margin of 0.9.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Layer(nn.Module):
    """EM routing from types per place to parents per place; without a kernel to class capsules."""

    def __init__(self, size: int, types: int, parents: int, kernel: int | None = None, stride: int = 1) -> None:
        super().__init__()
        self.size, self.shared, self.kernel, self.stride = size, kernel is None, kernel or size, stride
        numbers = torch.arange(size * size * types).view(1, size, size, types)
        child = self.windows(numbers.float())[0].long()
        self.register_buffer("child", child)
        counts = child.flatten().bincount(minlength=numbers.numel())
        self.register_buffer("start", 1.0 / (counts[child] * parents))
        self.ratio = int((counts > 0).sum()) / (len(child) * parents)
        places = 1 if self.shared else self.kernel**2
        self.weight = nn.Parameter(torch.randn(places * types, parents, 4, 4))
        self.beta_u, self.beta_a = nn.Parameter(torch.zeros(parents)), nn.Parameter(torch.full((parents,), -10.0))

    def windows(self, x: Tensor) -> Tensor:
        """(B, H, W, types, ...) -> (B, L, kernel * kernel * types, ...)"""
        x = x.unfold(1, self.kernel, self.stride).unfold(2, self.kernel, self.stride)
        last = x.dim() - 1
        x = x.permute(0, 1, 2, last - 1, last, *range(3, last - 1))
        return x.flatten(1, 2).flatten(2, 4)

    def forward(self, poses: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        batch, size = len(poses), self.size
        weight = self.weight.repeat(size * size, 1, 1, 1) if self.shared else self.weight
        votes = torch.matmul(self.windows(poses)[:, :, :, None], weight)
        if self.shared:
            votes = votes + self.coordinates(len(weight) // size**2)
        votes, heard = votes.flatten(4), self.windows(active)[..., None]
        r = self.start[None, :, :, None].expand(batch, -1, -1, votes.shape[3])
        for step in range(3):
            weighted = r * heard
            amount = weighted.sum(2, keepdim=True)
            mean = (weighted[..., None] * votes).sum(2, keepdim=True) / (amount[..., None] + 1e-12)
            square = (votes - mean) ** 2
            variance = (weighted[..., None] * square).sum(2, keepdim=True) / (amount[..., None] + 1e-12) + 1e-4
            cost = ((self.beta_u[:, None] + variance.log() / 2) * amount[..., None] * 100 / self.ratio).sum(-1)
            steep = 0.01 * (1 - 0.95 ** (step + 1))
            logits = steep * (100 * self.beta_a - cost)
            if step < 2:
                density = -(square / (2 * variance) + (2 * math.pi * variance).log() / 2).sum(-1)
                r = self.share(F.logsigmoid(logits) + density)
        out = (size - self.kernel) // self.stride + 1
        return mean.view(batch, out, out, -1, 4, 4), logits.sigmoid().view(batch, out, out, -1)

    def share(self, z: Tensor) -> Tensor:
        """Softmax of z (B, L, N, C) over all parents of each child."""
        index = self.child[None, :, :, None].expand_as(z).flatten(1)
        flat = z.flatten(1)
        none = flat.new_full((len(z), self.size**2 * z.shape[2]), -torch.inf)
        top = none.scatter_reduce(1, index, flat.detach(), "amax").gather(1, index)
        powers = (flat - top).exp()
        total = torch.zeros_like(none).scatter_add(1, index, powers).gather(1, index)
        return (powers / total).view_as(z)

    def coordinates(self, types: int) -> Tensor:
        """Row and column of each child, in the last column of a 4x4 matrix: (children, 1, 4, 4)."""
        offset = self.weight.new_zeros(self.size, self.size, types, 1, 4, 4)
        centre = (torch.arange(self.size, device=offset.device) + 0.5) / self.size
        offset[..., 0, 3] += centre[:, None, None, None]
        offset[..., 1, 3] += centre[:, None, None]
        return offset.flatten(0, 2)


class MatrixCapsNet(nn.Module):
    """Images (B, 1, 28, 28) -> activations of the classes (B, 10)."""

    def __init__(self, width: int, types: int, parents: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 5, 2, 2)
        self.pose, self.active = nn.Conv2d(width, types * 16, 1), nn.Conv2d(width, types, 1)
        self.layers = nn.ModuleList(
            [Layer(14, types, parents, 3, 2), Layer(6, parents, parents, 3, 1), Layer(4, parents, 10)]
        )

    def forward(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, None]:
        maps = F.relu(self.conv(images))
        poses = self.pose(maps).permute(0, 2, 3, 1).unflatten(3, (-1, 4, 4))
        active = self.active(maps).permute(0, 2, 3, 1).sigmoid()
        for layer in self.layers:
            poses, active = layer(poses, active)
        return active.flatten(1), None


def loss(active: Tensor, _: None, images: Tensor, labels: Tensor) -> Tensor:
    """Eq. 3: the squared distance of each wrong class to the margin below the right one, summed."""
    right = active.gather(1, labels[:, None])
    gap = F.relu(0.9 - (right - active)) ** 2
    return (gap.sum(1) - 0.9**2).mean()
