"""Devices without the hardware: `one_device` refuses a mix, `Pretend` computes on the CPU and calls it "cuda:0"."""

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class MixedDevicesError(RuntimeError):
    """Tensors of two devices meet in one operation."""


class OneDevice(TorchDispatchMode):
    """Inside, operations on tensors of two devices and copies to the host raise.

    Stricter than torch, which takes indices on the CPU for a tensor on CUDA and waits for their copy. A single number
    on the CPU may meet tensors on any device, as the optimiser's count of steps does.
    """

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        devices = {tensor.device.type for tensor in tensors if tensor.dim() > 0}
        if len(devices) > 1:
            raise MixedDevicesError(f"{operation} meets tensors on {', '.join(sorted(devices))}")
        to_host = torch.device(kwargs.get("device") or "meta").type == "cpu"
        if operation is torch.ops.aten._to_copy.default and to_host and devices - {"cpu"}:
            raise MixedDevicesError(f"a tensor on {devices.pop()} is copied to the host")
        return operation(*args, **kwargs)


def moved(model: nn.Module, device: str) -> nn.Module:
    """The model with its parameters and buffers on a device, for modes under which `Module.to` cannot swap them.

    What is no parameter and no buffer stays where it is, as with `Module.to`.
    """
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(parameter.detach().to(device), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(device)
    return model
