"""Devices without the hardware: `OneDevice` refuses a mix, `pretended_cuda` computes on the CPU and calls it cuda:0."""

from contextlib import ExitStack, contextmanager

import torch
import torch._dynamo  # torch imports it when a mode first runs, and then would find `Generator` replaced
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map


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


class Pretended(torch.Tensor):
    """A tensor on the CPU that says it is on cuda:0. For torch's own code it lies on meta, which needs no driver."""

    device = torch.device("cuda", 0)
    is_cuda, is_cpu, is_meta = True, False, False
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device="meta"
        )

    def __init__(self, inner):
        self.inner = inner

    def __repr__(self):
        return f"Pretended({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        raise RuntimeError(f"{operation} outside `pretended_cuda`")


class _Named(TorchFunctionMode):
    """What Python asks of cuda:0 is asked of meta."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        on_cuda = function is not torch.device and any(_is_cuda(leaf) for leaf in tree_leaves((args, kwargs)))
        if function in (torch.tensor, torch.as_tensor) and on_cuda:  # on meta the numbers would be lost
            return function(*args, **kwargs | {"device": "cpu"}).to("meta")
        if function is torch.Tensor.new_tensor and isinstance(args[0], Pretended):
            return torch.tensor(args[1], dtype=kwargs.get("dtype", args[0].dtype)).to("meta")
        if function is torch.Tensor.tolist and isinstance(args[0], Pretended):
            return args[0].to("cpu").tolist()
        if function in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(args[0], Pretended):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            args = (args[0], tuple(torch.as_tensor(n) if isinstance(n, list) else n for n in index), *args[2:])
        if on_cuda:
            args, kwargs = tree_map(lambda leaf: "meta" if _is_cuda(leaf) else leaf, (args, kwargs))
        return function(*args, **kwargs)


def _is_cuda(leaf):
    return (isinstance(leaf, torch.device) and leaf.type == "cuda") or (isinstance(leaf, str) and leaf[:4] == "cuda")


class _Computed(TorchDispatchMode):
    """What torch asks of meta is computed on the CPU; where both devices meet, torch's own rules hold."""

    INDEXED = tuple(f"aten::{name}" for name in ("index", "index_put", "index_put_", "_index_put_impl_"))
    COPIES = ("aten::copy_", "aten::_to_copy")

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        pretended = any(isinstance(leaf, Pretended) for leaf in leaves)
        here = any(isinstance(leaf, torch.Tensor) and leaf.dim() and not isinstance(leaf, Pretended) for leaf in leaves)
        name = operation._schema.name
        indexes = name in self.INDEXED and isinstance(args[0], Pretended)
        if pretended and here and name not in self.COPIES and not indexes:
            raise MixedDevicesError(f"{operation} meets tensors on cpu, cuda")
        asked = kwargs.get("device")
        inner_args, inner_kwargs = tree_map(_inner, (args, kwargs))
        found = operation(*inner_args, **inner_kwargs)
        if not operation._schema.returns:
            return None
        if operation._schema.arguments and (first := operation._schema.arguments[0].alias_info) and first.is_write:
            return args[0]
        if "out" in kwargs:
            return kwargs["out"]
        on_cuda = pretended if asked is None else torch.device(asked).type == "meta"
        return tree_map(_outer, found) if on_cuda else found


def _inner(leaf):
    if isinstance(leaf, Pretended):
        return leaf.inner
    return torch.device("cpu") if isinstance(leaf, torch.device) and leaf.type == "meta" else leaf


def _outer(leaf):
    return Pretended(leaf) if isinstance(leaf, torch.Tensor) else leaf


@contextmanager
def pretended_cuda(monkeypatch):
    """Inside, "cuda" is a device whose tensors the CPU computes, random numbers included, as it would its own.

    A mix with the CPU raises as on CUDA (indices on the CPU, copies and single numbers may meet it), and numpy is
    refused such a tensor. What torch decides in C++ by the device it decides as for meta.
    """
    generator, fork, backward = torch.Generator, torch.random.fork_rng, torch.autograd._engine_run_backward

    def named_backward(*args, **kwargs):  # torch calls it outside the mode, since it was called from a tensor's method
        with _Named():
            return backward(*args, **kwargs)

    with monkeypatch.context() as patch, ExitStack() as stack:
        patch.setattr(torch, "Generator", lambda device="cpu": generator("cpu"))
        patch.setattr(torch.random, "fork_rng", lambda devices=(), **options: fork([], **options))
        patch.setattr(torch.cuda, "synchronize", lambda device=None: None)
        patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
        patch.setattr(torch.autograd, "_engine_run_backward", named_backward)
        patch.setattr(torch, "inference_mode", torch.no_grad)  # whose tensors no tensor of a class of its own can be
        stack.enter_context(_Computed())
        stack.enter_context(_Named())
        yield


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
