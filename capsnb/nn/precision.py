"""Autocast wherever it exists."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def autocast(
    device: torch.device, dtype: torch.dtype | None = None, *, enabled: bool = True
) -> AbstractContextManager[None]:
    """`torch.autocast` for the type of `device`; nothing on a type that has none ("meta"), where it would raise.

    What has no autocast cannot be under it, so that `enabled=False` is kept there as well.
    """
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, dtype, enabled=enabled)
