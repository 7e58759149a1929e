"""A model and batches of samples -> logits at the labels' size, on whatever device and precision."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from segloss.errors import InputError
from segloss.models import logits_at_size


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
    raise InputError(f"--accelerator {accelerator}: there is no such device here; use cpu or auto")


def resolve_precision(precision: str, device: torch.device) -> str:
    """``auto`` is bfloat16 autocast where the hardware computes in it, float16 on older GPUs, else float32."""
    if precision == "16-mixed" and device.type == "cpu":
        raise InputError("--precision 16-mixed needs a GPU; use bf16-mixed or 32-true on the CPU")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    if device.type == "cpu" and any(check() for check in checks if check is not None):
        return "bf16-mixed"
    return "32-true"


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """The autocast of a precision's name."""
    kind = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    return nullcontext() if kind is None else torch.autocast(device.type, dtype=kind)


def same_shape_groups(samples: list[dict]) -> Iterator[list[dict]]:
    """Runs of neighbouring samples that can be stacked: equal image shape and equal label size."""
    group: list[dict] = []
    for sample in samples:
        if group and (sample["image"].shape, sample["size"]) != (group[0]["image"].shape, group[0]["size"]):
            yield group
            group = []
        group.append(sample)
    if group:
        yield group


@torch.inference_mode()
def infer(
    model: nn.Module, batches: Iterable[list[dict]], *, device: torch.device, precision: str = "32-true"
) -> Iterator[tuple[dict, Tensor]]:
    """Yield each sample with its logits ``(1, C, H, W)`` at its label's size, float32, on the device.

    Args:
        model: in whatever mode; it is put into eval mode and left there.
        batches: lists of samples, as :func:`segloss.datasets.loading.evaluation_loader` makes them.
        device, precision: where and how the network runs.
    """
    model.to(device).eval()
    for samples in batches:
        for group in same_shape_groups(samples):
            images = torch.stack([sample["image"] for sample in group]).to(device)
            with autocast(precision, device):
                logits = logits_at_size(model, images, group[0]["size"])
            yield from zip(group, logits.float().split(1), strict=True)
