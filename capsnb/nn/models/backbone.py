"""A frozen network trained on ImageNet under capsules (Renzulli et al. 2022, Tiny ImageNet)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capsnb.nn.layers import PrimaryCapsules, Stage

ALLOW = "CAPSNB_DOWNLOAD"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours, as its weights expect them
WIDTH, REDUCTION = 512, 32  # channels of ResNet-18's last map; pixels to one of its places


@dataclass(frozen=True, kw_only=True)
class BackboneStem:
    """ResNet-18 up to its last map, frozen, zero-padded, then primary capsules: only these and what follows is trained.

    The released code for Tiny ImageNet: images enlarged to 224, map 512x7x7, padded by 6 to 19x19, one type of primary
    capsules by a 9x9 convolution of stride 2, so 36 capsules; no convolution of its own before them. There a call of
    train() lets the batch norms' averages drift; here they stay those of ImageNet.
    weights: "imagenet" (torchvision's IMAGENET1K_V1) or "random", for tests.
    """

    side: int = 224
    pad: int = 6
    types: int = 1
    dim: int = 8
    kernel: int = 9
    weights: str = "imagenet"

    def __post_init__(self) -> None:
        if self.weights not in ("imagenet", "random"):
            raise ValueError(f"weights = {self.weights!r} is unknown; allowed: 'imagenet', 'random'")
        if self.side < 1 or self.pad < 0:
            raise ValueError(f"side = {self.side}, pad = {self.pad}: a side above 0 and a pad of at least 0 are needed")

    def build(self, channels: int, size: int | tuple[int, int], squash: str) -> tuple[list[nn.Module], PrimaryCapsules]:
        """Stage and primary capsules for images (3, H, W). ValueError for grey images or missing weights."""
        if channels != 3:
            raise ValueError(f"channels = {channels}: ResNet-18 takes images of 3 channels")
        stage = Stage(FrozenResNet(self.side, self.pad, self.weights))
        places = -(-self.side // REDUCTION) + 2 * self.pad
        primary = PrimaryCapsules(WIDTH, places, types=self.types, dim=self.dim, kernel=self.kernel, squash=squash)
        return [stage], primary


class FrozenResNet(nn.Module):
    """Images (B, 3, H, W) in [0, 1] -> (B, 512, side / 32 + 2 pad, ...). Never trains, batch norms included."""

    frozen = True  # its weights are not pruned and not counted
    mean: Tensor
    std: Tensor

    def __init__(self, side: int, pad: int, weights: str) -> None:
        super().__init__()
        from torchvision.models import resnet18

        self.side, self.pad = side, pad
        whole = resnet18(weights=None)
        if weights == "imagenet" and not next(whole.parameters()).is_meta:
            whole.load_state_dict(imagenet_weights())
        self.layers = nn.Sequential(*list(whole.children())[:-2])  # without its pooling and its classes
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> FrozenResNet:
        """Stays in evaluation mode, whatever `mode`."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        images = F.interpolate(images, (self.side, self.side), mode="bilinear", align_corners=False)
        return F.pad(self.layers((images - self.mean) / self.std), (self.pad,) * 4)


def imagenet_weights() -> dict[str, Tensor]:
    """ResNet-18's weights from torchvision's cache; downloaded there only when CAPSNB_DOWNLOAD is 1.

    Raises ValueError when they are not there and may not, or cannot, be downloaded.
    """
    from torchvision.models import ResNet18_Weights

    source = ResNet18_Weights.IMAGENET1K_V1
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(source.url).name
    if file.exists():
        return torch.load(file, map_location="cpu", weights_only=True)
    remedy = f"put {source.url} there, or set {ALLOW}=1 to let torchvision download it (45 MB)"
    if os.environ.get(ALLOW) != "1":
        raise ValueError(f"ResNet-18's ImageNet weights are not at {file}: {remedy}.")
    try:
        return source.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"ResNet-18's ImageNet weights could not be downloaded ({error}): {remedy}.") from error
