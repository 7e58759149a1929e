"""Memory for a gradient, in the large pages that the kernel grants on request."""

import ctypes
import sys
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

HUGE_PAGE = 2**21
FRESH_BYTES = 2**25  # glibc maps larger blocks anew each time and unmaps them when freed
MADV_HUGEPAGE = 14  # <linux/mman.h>


@cache
def _madvise() -> Callable[[int, int, int], int] | None:
    """The system call, where there is one (Linux)."""
    if not sys.platform.startswith("linux"):
        return None
    function = getattr(ctypes.CDLL(None), "madvise", None)
    if function is not None:
        function.argtypes, function.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    return function


def gradient_like(logits: Tensor, dtype: torch.dtype) -> Tensor:
    """``torch.empty_like``. Large blocks on CPU are asked for in pages of 2 MiB instead of 4 KiB.

    A fresh page costs an interruption and is cleared; in small ones that is half of the time of a whole loss. It is a
    wish: where the kernel does not grant it (``transparent_hugepage`` is ``never``) nothing changes.
    """
    result = torch.empty_like(logits, dtype=dtype)
    size = result.numel() * result.element_size()
    if result.device.type == "cpu" and size > FRESH_BYTES and (madvise := _madvise()) is not None:
        start = -(-result.data_ptr() // HUGE_PAGE) * HUGE_PAGE
        end = (result.data_ptr() + size) // HUGE_PAGE * HUGE_PAGE
        madvise(start, end - start, MADV_HUGEPAGE)
    return result
