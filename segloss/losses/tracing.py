"""Whether a tensor's values can be looked at: not while a graph is written down, nor behind torch.func."""

from typing import Any

import torch
from torch import Tensor


def is_readable(tensor: Tensor) -> bool:
    """Whether its values can be looked at without waiting for a device and without a break in a graph."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling() and not is_traced()


def is_traced() -> bool:
    """Whether operations are written down (``make_fx``, ``torch.func.linearize``) or done on shapes alone (fake
    tensors), so that no value can be read; of no use while a graph is compiled.
    """
    modes = torch._C._TorchDispatchModeKey
    return any(torch._C._get_dispatch_mode(mode) is not None for mode in (modes.PROXY, modes.FAKE))


def is_transformed(*tensors: Any) -> bool:
    """Whether ``torch.func`` follows the tensors (grad, vjp, jvp, vmap), forward-mode differentiation, or a trace.

    Only plain operations compose then: the roads made by hand are left.
    """
    if torch.compiler.is_compiling():  # of other transforms it cannot be asked there; the operators refuse them
        return torch.autograd.forward_ad._current_level >= 0
    if is_traced():
        return True
    given = [tensor for tensor in tensors if isinstance(tensor, Tensor)]
    functorch, forward_ad = torch._C._functorch, torch.autograd.forward_ad
    return any(
        functorch.is_functorch_wrapped_tensor(x)
        or functorch.is_legacy_batchedtensor(x)
        or (forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None)  # type: ignore[no-untyped-call]
        for x in given
    )


def untransformed(tensor: Tensor) -> Tensor:
    """The values behind what ``torch.func`` follows, those of all samples of a vmap: for checks, which are no part."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor
