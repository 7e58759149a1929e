"""Where networks run here: device, precision, loader processes."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from segloss.errors import InputError
from segloss.pixel_counts import available_cores


@dataclass(frozen=True)
class Machine:
    """Where and how networks run here: what the options become on this machine.

    Attributes:
        device: the network's.
        precision: ``"32-true"``, ``"bf16-mixed"`` or ``"16-mixed"``.
        workers: loader processes.
    """

    device: torch.device
    precision: str
    workers: int


def find_machine(accelerator: str, precision: str, workers: int | None = None) -> Machine:
    """This machine as the options of these names ask for it.

    Args:
        accelerator: ``"auto"`` takes CUDA, then MPS, then the CPU.
        precision: ``"auto"`` is bfloat16 autocast where the hardware computes in it, float16 on older GPUs, else
            float32.
        workers: None leaves two cores to the process that trains, which is fastest on two cores.

    Raises:
        InputError: the accelerator is not there, or has no such precision.
    """
    device = pick_device(accelerator)
    found = max(0, min(8, available_cores() - 2)) if workers is None else workers
    return Machine(device, resolve_precision(precision, device), found)


def pick_device(accelerator: str) -> torch.device:
    """``auto`` takes CUDA, then MPS, then the CPU; InputError for an accelerator that is not there."""
    has_mps = torch.backends.mps.is_available()
    if accelerator == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda"):
        return torch.device("cuda")
    if has_mps and accelerator in ("auto", "gpu", "mps"):
        return torch.device("mps")
    if accelerator == "auto":
        return torch.device("cpu")
    raise InputError("there is no such device here", "use cpu or auto", where=f"--accelerator {accelerator}")


def resolve_precision(precision: str, device: torch.device) -> str:
    """The precision of a device, see :func:`find_machine`."""
    if precision == "16-mixed" and device.type == "cpu":
        raise InputError("--precision 16-mixed needs a GPU", "use bf16-mixed or 32-true on the CPU")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    if device.type == "cpu" and any(check() for check in checks if check is not None):
        return "bf16-mixed"
    return "32-true"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The autocast of a precision's name."""
    kind = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    return nullcontext() if kind is None else torch.autocast(device.type, dtype=kind)
