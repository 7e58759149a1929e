"""A model and batches of samples -> scores at the labels' size: whole images, windows, test-time augmentation."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segloss.calibration import Calibration
from segloss.errors import InputError
from segloss.losses import Criterion
from segloss.losses.criterion import per_class
from segloss.losses.reduction import first_largest
from segloss.models import logits_at_size
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


def same_shape_groups(samples: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Runs of neighbouring samples that can be stacked: equal image shape and equal label size."""
    group: list[dict[str, Any]] = []
    for sample in samples:
        if group and (sample["image"].shape, sample["size"]) != (group[0]["image"].shape, group[0]["size"]):
            yield group
            group = []
        group.append(sample)
    if group:
        yield group


@dataclass(frozen=True)
class Views:
    """How a network looks at an image: whole or in windows, once or several times.

    Attributes:
        scales: factors on the image's size; several are test-time augmentation.
        flip: look at the mirrored image too.
        tile: ``(h, w)`` of windows, for images larger than memory allows; None: whole images.
        overlap: share that neighbouring windows have in common, in [0, 1).
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    tile: tuple[int, int] | None = None
    overlap: float = 0.5

    @property
    def several(self) -> bool:
        return self.flip or self.scales != (1.0,)


class AveragedPosterior(Criterion):
    """Reads posteriors averaged over several views as another criterion reads logits; its ``logits`` are P(c|x).

    Logits of different views have no common scale that all losses share; their posteriors do.
    """

    def __init__(self, criterion: Criterion):
        super().__init__()
        self.of = criterion

    @property
    def tilt(self) -> Tensor | None:
        return self.of.tilt

    def posterior(self, logits: Tensor) -> Tensor:
        return logits

    def natural_scores(self, logits: Tensor) -> Tensor:
        return logits.clamp(min=torch.finfo(logits.dtype).tiny).log()

    def softmax_scores(self, logits: Tensor) -> Tensor:
        natural = self.natural_scores(logits)
        return natural if self.tilt is None else natural + per_class(self.tilt, natural).log()

    def decide_at(self, logits: Tensor, tau: float) -> Tensor:
        return first_largest(self.natural_scores(logits).lerp(self.softmax_scores(logits), tau), logits)


class CalibratedPosterior(Criterion):
    """Reads the posterior through a calibration; operating points read the scores as they are."""

    def __init__(self, criterion: Criterion, calibration: Calibration):
        super().__init__()
        self.of, self.calibration = criterion, calibration

    @property
    def tilt(self) -> Tensor | None:
        return self.of.tilt

    def posterior(self, logits: Tensor) -> Tensor:
        return self.calibration.apply(self.of.posterior(logits))

    def decide_at(self, logits: Tensor, tau: float) -> Tensor:
        return self.of.decide_at(logits, tau)


def reader_of(criterion: Criterion, views: Views | None = None, calibration: Calibration | None = None) -> Criterion:
    """What reads the scores that :func:`infer` yields."""
    reader = AveragedPosterior(criterion) if views and views.several else criterion
    return reader if calibration is None else CalibratedPosterior(reader, calibration)


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """Where windows begin, so that they cover ``length``; the last ends with it."""
    if length <= window:
        return [0]
    step = max(1, int(window * (1 - overlap)))
    return [*range(0, length - window, step), length - window]


def windowed(model: nn.Module, images: Tensor, tile: tuple[int, int], overlap: float) -> Tensor:
    """Logits ``(N, C, h, w)`` of images ``(N, 3, h, w)``, seen in windows; where they overlap, their mean."""
    height, width = images.shape[-2:]
    total, seen = None, images.new_zeros(height, width, dtype=torch.float32)
    for top in window_starts(height, tile[0], overlap):
        for left in window_starts(width, tile[1], overlap):
            place = (..., slice(top, top + tile[0]), slice(left, left + tile[1]))
            window = images[place]
            logits = logits_at_size(model, window, (window.shape[-2], window.shape[-1]))
            if total is None:
                total = logits.new_zeros(*logits.shape[:2], height, width)
            total[place] += logits
            seen[place] += 1
    assert total is not None
    return total / seen


def look(model: nn.Module, images: Tensor, size: tuple[int, int], views: Views, criterion: Criterion) -> Tensor:
    """float32 logits ``(N, C, *size)``, or the mean posterior where there are several views."""

    def once(seen: Tensor) -> Tensor:
        if views.tile is None or (seen.shape[-2] <= views.tile[0] and seen.shape[-1] <= views.tile[1]):
            return logits_at_size(model, seen, size)
        logits = windowed(model, seen, views.tile, views.overlap)
        return logits_at_size(lambda _: logits, seen, size)

    if not views.several:
        return once(images)
    total = torch.zeros((), device=images.device)
    for scale in views.scales:
        seen = images
        if scale != 1:
            new = [max(1, round(side * scale)) for side in images.shape[-2:]]
            seen = F.interpolate(images.float(), new, mode="bilinear", antialias=scale < 1, align_corners=False)
        total = total + criterion.posterior(once(seen))
        if views.flip:
            total = total + criterion.posterior(once(seen.flip(-1))).flip(-1)
    return total / (len(views.scales) * (2 if views.flip else 1))


@torch.inference_mode()
def infer(
    model: nn.Module,
    criterion: Criterion,
    batches: Iterable[list[dict[str, Any]]],
    *,
    device: torch.device,
    precision: str = "32-true",
    views: Views | None = None,
) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """Yield each sample with its scores ``(1, C, H, W)`` at its label's size, float32, on the device.

    Args:
        model: in whatever mode; it is put into eval mode and left there.
        criterion: makes the posterior of several views; the scores are read by :func:`reader_of` it.
        batches: lists of samples, as :func:`segloss.datasets.loading.evaluation_loader` makes them.
        device, precision: where and how the network runs.
        views: default: the whole image once.
    """
    model.to(device).eval()
    criterion.to(device)
    for samples in batches:
        for group in same_shape_groups(samples):
            images = torch.stack([sample["image"] for sample in group]).to(device)
            with autocast(precision, device):
                scores = look(model, images, group[0]["size"], views or Views(), criterion)
            for sample, found in zip(group, scores.float().chunk(len(group)), strict=True):
                yield sample, decidable(found, sample)


def decidable(scores: Tensor, sample: dict[str, Any]) -> Tensor:
    """The scores ``(1, C, H, W)`` of a sample, 0 where its labels are ignored and no class is decided.

    Raises:
        InputError: the largest score of a pixel that is labelled, or of a sample without labels, is NaN or infinite.
    """
    bad = scores.amax(1).isfinite().logical_not()
    if not bool(bad.any()):
        return scores
    valid = sample["labels"].to(bad.device) < scores.shape[1] if "labels" in sample else torch.ones_like(bad[0])
    if count := int((bad[0] & valid).sum()):
        what = f"the network's scores are NaN or infinite at {count:,} of {bad.numel():,} pixels"
        cure = "look at the image, and in the run's history.csv for when it went to pieces"
        raise InputError(what, cure, sample["name"])
    return scores.masked_fill(bad[:, None], 0)
