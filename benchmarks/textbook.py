"""CapsNet as a textbook would write it from Sabour et al. 2017: what capsnb's speed and memory are compared with.

Deliberately plain, and correct: transforms broadcast over the batch, routing by einsum with a logits tensor, the
default Adam, one image after the other from the loader. Procedure 1 and equations 1 to 4 of the paper, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def squash(s: Tensor) -> Tensor:
    """Eq. 1, with the customary epsilon against a division by zero."""
    squared = (s * s).sum(-1, keepdim=True)
    return squared / (1 + squared) * s / (squared + 1e-8).sqrt()


def squash_exponential(s: Tensor) -> Tensor:
    """Mitterreiter et al. 2023, eq. 1."""
    norm = ((s * s).sum(-1, keepdim=True) + 1e-8).sqrt()
    return (1 - torch.exp(-norm)) * s / norm


class Capsules(nn.Module):
    """Procedure 1: poses (B, I, P) -> (B, J, D)."""

    def __init__(self, children: int, child_dim: int, parents: int, dim: int, squash: Callable = squash) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(children, parents, dim, child_dim) * 0.1)
        self.prior, self.squash = nn.Parameter(torch.zeros(children, parents)), squash

    def forward(self, u: Tensor) -> Tensor:
        votes = torch.matmul(self.weight, u[:, :, None, :, None]).squeeze(-1)
        logits = self.prior.expand(len(u), -1, -1)
        for iteration in range(3):
            coupling = logits.softmax(2)
            poses = self.squash(torch.einsum("bij,bijd->bjd", coupling, votes))
            if iteration < 2:
                logits = logits + torch.einsum("bijd,bjd->bij", votes, poses)
        return poses


class Attending(nn.Module):
    """Efficient-CapsNet's routing (Mazzia et al. 2021): poses (B, I, P) -> (B, J, D)."""

    def __init__(self, children: int, child_dim: int, parents: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(children, parents, dim, child_dim) * 0.1)
        self.prior = nn.Parameter(torch.zeros(children, parents))

    def forward(self, u: Tensor) -> Tensor:
        votes = torch.matmul(self.weight, u[:, :, None, :, None]).squeeze(-1)
        attention = torch.einsum("bijd,bkjd->bjik", votes, votes) / votes.shape[-1] ** 0.5
        coupling = attention.sum(3).softmax(1).transpose(1, 2) + self.prior
        return squash_exponential(torch.einsum("bij,bijd->bjd", coupling, votes))


class Primary(nn.Module):
    """The convolution whose output is cut into poses of 8."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(256, 256, 9, stride=2)

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.conv(maps)
        batch, _, height, width = maps.shape
        return squash(maps.view(batch, 32, 8, height, width).permute(0, 1, 3, 4, 2).reshape(batch, -1, 8))


class CapsNet(nn.Module):
    """Images (B, 1, size, size) -> class capsules (B, 10, D) and flat reconstructions, or None without decoder."""

    def __init__(self, size: int, stem: nn.Module, layers: list[Capsules], dim: int, decoder: bool) -> None:
        super().__init__()
        self.stem, self.layers = stem, nn.Sequential(*layers)
        linears = (nn.Linear(10 * dim, 512), nn.ReLU(), nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, size * size))
        self.decoder = nn.Sequential(*linears, nn.Sigmoid()) if decoder else None

    def forward(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        poses = self.layers(self.stem(images))
        if self.decoder is None:
            return poses, None
        labels = poses.norm(dim=-1).argmax(1) if labels is None else labels
        masked = poses * F.one_hot(labels, 10)[:, :, None]
        return poses, self.decoder(masked.flatten(1))


def sabour(size: int, decoder: bool) -> CapsNet:
    """Figures 1 and 2 of the paper."""
    children = ((size - 16) // 2) ** 2 * 32
    stem = nn.Sequential(nn.Conv2d(1, 256, 9), nn.ReLU(), Primary())
    return CapsNet(size, stem, [Capsules(children, 8, 10, 16)], 16, decoder)


def deep(size: int, stem: nn.Module) -> CapsNet:
    """Five capsule layers of 16, 16, 16, 16 and 10 (Mitterreiter et al. 2023) on a given stem of 16 poses of 8."""
    layers = [Capsules(16, 8, parents, 8, squash_exponential) for parents in (16, 16, 16, 10)]
    return CapsNet(size, stem, layers, 8, decoder=True)


def efficient(stem: nn.Module) -> CapsNet:
    """Efficient-CapsNet without its generator, on a given stem of 16 poses of 8."""
    return CapsNet(28, stem, [Attending(16, 8, 10, 16)], 16, decoder=False)


def loss(poses: Tensor, rebuilt: Tensor | None, images: Tensor, labels: Tensor) -> Tensor:
    """Eq. 4 plus 0.0005 times the sum of squared differences."""
    lengths, target = ((poses * poses).sum(-1) + 1e-8).sqrt(), F.one_hot(labels, 10)
    present, absent = F.relu(0.9 - lengths) ** 2, F.relu(lengths - 0.1) ** 2
    total = (target * present + 0.5 * (1 - target) * absent).sum(1).mean()
    if rebuilt is not None:
        total = total + 0.0005 * ((rebuilt - images.flatten(1)) ** 2).sum(1).mean()
    return total
