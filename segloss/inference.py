"""A model and samples -> scores at the labels' size: whole images or windows, once or with test-time augmentation."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segloss.calibration import Calibration
from segloss.datasets import SegmentationDataset
from segloss.datasets.loading import evaluation_loader, window_loader
from segloss.datasets.rows import Rows, sliced
from segloss.errors import InputError
from segloss.losses import Criterion
from segloss.losses.criterion import per_class
from segloss.losses.reduction import first_largest
from segloss.models import logits_at_size
from segloss.pixel_counts import available_cores

PIECE = 2**20  # pixels whose scores are handed out at once, of images seen in windows


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
        tile: ``(h, w)`` of windows, as the network sees them, for images larger than memory allows; None: whole images.
        overlap: share that neighbouring windows have in common, in [0, 1).
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    tile: tuple[int, int] | None = None
    overlap: float = 0.5

    @property
    def several(self) -> bool:
        return self.flip or self.scales != (1.0,)

    @property
    def each(self) -> list[tuple[float, bool]]:
        """Scale of every view, and whether it is mirrored."""
        return [(scale, mirrored) for scale in self.scales for mirrored in ((False, True) if self.flip else (False,))]


class AveragedPosterior(Criterion):
    """Reads posteriors averaged over several views as another criterion reads logits; its ``logits`` are P(c|x).

    Logits of different views have no common scale that all losses share; their posteriors do. What is the plain argmax
    of scores at the optimum for such a posterior is the plain decision here.
    """

    def __init__(self, criterion: Criterion):
        super().__init__()
        self.of = criterion

    @property
    def tilt(self) -> Tensor | None:
        return self.of.tilt

    @property
    def plain_by_tilt(self) -> bool:  # type: ignore[override]
        return self.of.plain_by_tilt

    @property
    def plain_by_posterior(self) -> bool:  # type: ignore[override]
        return self.of.plain_by_posterior

    def plain_scores(self, posterior: Tensor) -> Tensor:
        return self.of.plain_scores(posterior)

    def posterior(self, logits: Tensor) -> Tensor:
        return logits

    def natural_scores(self, logits: Tensor) -> Tensor:
        return logits.clamp(min=torch.finfo(logits.dtype).tiny).log()

    def softmax_scores(self, logits: Tensor) -> Tensor:
        natural = self.natural_scores(logits)
        return natural if self.tilt is None else natural + per_class(self.tilt, natural).log()

    def decide_at(self, logits: Tensor, tau: float) -> Tensor:
        if tau == 1 and not self.plain_by_tilt:
            return first_largest(self.plain_scores(logits.movedim(1, -1)).movedim(-1, 1), logits)
        return first_largest(self.natural_scores(logits).lerp(self.softmax_scores(logits), tau), logits)


class Ensemble(nn.Module):
    """Several networks, each with what reads its scores: images -> the mean of their posteriors."""

    def __init__(self, members: Sequence[tuple[nn.Module, Criterion]]):
        super().__init__()
        self.models = nn.ModuleList(model for model, _ in members)
        self.readers = nn.ModuleList(reader for _, reader in members)

    @property
    def mean(self) -> Tensor:
        """Of the first network's normalisation, which says where the networks are."""
        mean = self.models[0].mean
        assert isinstance(mean, Tensor)
        return mean

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([reader.posterior(model(images).float()) for model, reader in members_of(self, None)]).mean(
            0
        )


def members_of(model: nn.Module, criterion: Criterion | None) -> list[tuple[nn.Module, Any]]:
    """The networks of an ensemble with what reads them, or the one there is."""
    if not isinstance(model, Ensemble):
        return [(model, criterion)]
    return [*zip(model.models, model.readers, strict=True)]


class CalibratedPosterior(Criterion):
    """Reads the posterior through a calibration; operating points read the scores as they are."""

    def __init__(self, criterion: Criterion, calibration: Calibration):
        super().__init__()
        self.of, self.calibration = criterion, calibration
        self.plain_by_posterior = criterion.plain_by_posterior
        # So that a fingerprint of an ensemble is that of its members' calibrations too; no vector of classes.
        self.register_buffer("terms", torch.tensor([[calibration.temperature, *calibration.bias]]))

    @property
    def tilt(self) -> Tensor | None:
        return self.of.tilt

    def posterior(self, logits: Tensor) -> Tensor:
        return self.calibration.apply(self.of.posterior(logits))

    def decide_at(self, logits: Tensor, tau: float) -> Tensor:
        return self.of.decide_at(logits, tau)


def reader_of(criterion: Criterion, views: Views | None = None, calibration: Calibration | None = None) -> Criterion:
    """What reads the scores that :func:`infer` yields."""
    averaged = views and views.several and not isinstance(criterion, AveragedPosterior)
    reader = AveragedPosterior(criterion) if averaged else criterion
    return reader if calibration is None else CalibratedPosterior(reader, calibration)


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """Where windows begin, so that they cover ``length``; the last ends with it."""
    if length <= window:
        return [0]
    step = max(1, int(window * (1 - overlap)))
    return [*range(0, length - window, step), length - window]


def blend_weights(length: int, window: int, starts: Sequence[int]) -> np.ndarray:
    r"""What each window counts at each of its pixels, along one side, float64 ``(windows, window)``.

    .. math::
        w_k(i) = \frac{h(i)}{\sum_j h(i + s_k - s_j)}, \qquad h(i) = \sin^2\frac{\pi (i + 1/2)}{n}

    over the windows j that hold the pixel: they add up to 1 everywhere, and where one window alone sees a pixel, as at
    the image's edge, it counts 1. n is the window's length, s_k the start of window k.
    """
    raised_cosine = np.sin(np.pi * (np.arange(window) + 0.5) / window) ** 2
    total = np.zeros(length)
    for start in starts:
        total[start : start + window] += raised_cosine
    return np.stack([raised_cosine / total[start : start + window] for start in starts])


def score_rows(
    see: Callable[[np.ndarray], Tensor],
    read: Rows,
    size: tuple[int, int],
    tile: tuple[int, int],
    overlap: float,
    at_once: int = 1,
) -> Iterator[Tensor]:
    """Scores ``(1, C, rows, W)`` of an image from its top to its bottom, seen in windows blended by ``blend_weights``.

    Held are the rows of one row of windows, and their scores: 4 bytes x C x tile height x W.

    Args:
        see: images ``(n, h, w, 3)`` -> scores ``(n, C, h, w)``.
        read: rows of the image.
        size: ``(H, W)`` of it.
        tile: ``(h, w)`` of a window.
        overlap: share that neighbouring windows have in common, at least.
        at_once: windows that ``see`` is given together.
    """
    height, width = min(tile[0], size[0]), min(tile[1], size[1])
    tops, lefts = window_starts(size[0], height, overlap), window_starts(size[1], width, overlap)
    down, across = blend_weights(size[0], height, tops), blend_weights(size[1], width, lefts)
    band, total = read(0, height), torch.empty(0)
    for row, top in enumerate(tops):
        if row:
            seen = tops[row - 1] + height
            band = np.concatenate([band[top - tops[row - 1] :], read(seen, top + height)])
        for first in range(0, len(lefts), at_once):
            some = lefts[first : first + at_once]
            scores = see(np.stack([band[:, left : left + width] for left in some]))
            if not total.numel():
                total = scores.new_zeros(1, scores.shape[1], height, size[1])
            for column, (left, of_window) in enumerate(zip(some, scores, strict=True), start=first):
                weight = torch.from_numpy(np.outer(down[row], across[column])).to(total)
                total[0, :, :, left : left + width] += of_window * weight
        done = (tops[row + 1] if row + 1 < len(tops) else size[0]) - top
        for first in range(0, done, max(1, PIECE // size[1])):
            yield total[..., first : min(done, first + max(1, PIECE // size[1])), :].clone()
        for to in range(0, height - done, done):  # upwards in place: no second copy of all scores
            moved = total[..., to + done : to + 2 * done, :]
            total[..., to : to + moved.shape[-2], :] = moved
        total[..., height - done :, :] = 0


def in_step(streams: Sequence[Iterator[Tensor]]) -> Iterator[Tensor]:
    """Mean of several streams of rows, each cut where any of them is."""
    held = [next(stream) for stream in streams]
    while True:
        rows = min(block.shape[-2] for block in held)
        yield torch.stack([block[..., :rows, :] for block in held]).mean(0) if len(held) > 1 else held[0]
        left = [block[..., rows:, :] for block in held]
        held = [block if block.numel() else next(stream, block) for block, stream in zip(left, streams, strict=True)]
        if not held[0].numel():
            return


def one_view(model: nn.Module, images: Tensor, size: tuple[int, int], scale: float, mirrored: bool) -> Tensor:
    """float32 logits ``(N, C, *size)`` of images seen at a scale, mirrored or not."""
    if scale != 1:
        new = [max(1, round(side * scale)) for side in images.shape[-2:]]
        images = F.interpolate(images.float(), new, mode="bilinear", antialias=scale < 1, align_corners=False)
    logits = logits_at_size(model, images.flip(-1) if mirrored else images, size)
    return logits.flip(-1) if mirrored else logits


def look(model: nn.Module, images: Tensor, size: tuple[int, int], views: Views, criterion: Criterion) -> Tensor:
    """float32 logits ``(N, C, *size)`` of whole images, or the mean posterior of several views or networks."""
    if not (views.several or isinstance(model, Ensemble)):
        return logits_at_size(model, images, size)
    total, members = torch.zeros((), device=images.device), members_of(model, criterion)
    for member, reader in members:
        for scale, mirrored in views.each:
            total = total + reader.posterior(one_view(member, images, size, scale, mirrored))
    return total / (len(members) * len(views.each))


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
    """Yield each sample with its scores ``(1, C, H, W)`` at its label's size, float32, on the device; seen whole.

    Args:
        model: in whatever mode; it is put into eval mode and left there.
        criterion: makes the posterior of several views; the scores are read by :func:`reader_of` it.
        batches: lists of samples, as :func:`segloss.datasets.loading.evaluation_loader` makes them.
        device, precision: where and how the network runs.
        views: default: the image once.
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
    """The scores ``(1, C, H, W)`` of a sample or a piece of one, 0 where labels are ignored and no class is decided.

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


@torch.inference_mode()
def infer_dataset(
    model: nn.Module,
    criterion: Criterion,
    dataset: SegmentationDataset,
    places: Sequence[int] | None = None,
    *,
    device: torch.device,
    precision: str = "32-true",
    views: Views | None = None,
    batch_size: int = 8,
    workers: int = 0,
) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """As :func:`infer`, of a data set or the samples at some places of it.

    Images that fit into a window are seen whole, ``batch_size`` at once. Of the others, which come last, one is held at
    a time, its windows seen ``batch_size`` at once, and what is yielded are pieces: samples with their first row
    ``top``, the ``labels`` of these rows where there are any, and scores ``(1, C, rows, W)``, from top to bottom. The
    image scale is that of the data set's transform. Arguments are those of :func:`infer` and of the loader.
    """
    views, scale = views or Views(), getattr(dataset.transform, "image_scale", 1.0)
    whole, in_windows = seen_whole(dataset, range(len(dataset)) if places is None else places, views)
    loader = evaluation_loader(dataset, batch_size, workers=workers, places=whole)
    yield from infer(model, criterion, loader, device=device, precision=precision, views=views)
    labelled = dataset.has_labels
    for (sample,) in window_loader(dataset, in_windows, workers=workers):
        place, top, labels = sample["place"], 0, None
        large = "image" not in sample
        if labelled:
            labels = dataset.label_rows(place) if large else sliced(sample["labels"].numpy())
        streams = []
        for (member, reader), (of_view, mirrored) in product(members_of(model, criterion), views.each):
            read = dataset.image_rows(place) if large else sliced(sample["image"].permute(1, 2, 0).numpy())
            see = partial(_see, member, device, precision, scale, of_view, mirrored)
            assert views.tile is not None
            tile = (max(1, round(views.tile[0] / (scale * of_view))), max(1, round(views.tile[1] / (scale * of_view))))
            rows = score_rows(see, read, sample["size"], tile, views.overlap, batch_size)
            averaged = views.several or isinstance(model, Ensemble)
            streams.append(map(reader.posterior, rows) if averaged else rows)
        for scores in in_step(streams):
            bottom = top + scores.shape[-2]
            piece = {"name": sample["name"], "size": sample["size"], "top": top}
            if labels is not None:
                piece["labels"] = torch.from_numpy(np.ascontiguousarray(labels(top, bottom)))
            if dataset.labelled is not None:
                piece["class_mask"] = torch.from_numpy(dataset.labelled.masks[place])
            yield piece, decidable(scores, piece)
            top = bottom


def seen_whole(dataset: SegmentationDataset, places: Sequence[int], views: Views) -> tuple[list[int], list[int]]:
    """The images that fit into a window, and those seen in several, which are sorted."""
    scale = getattr(dataset.transform, "image_scale", 1.0)
    whole = [place for place in places if views.tile is None or _fits(dataset.image_size(place), views, scale)]
    return whole, sorted({*places} - {*whole})


def _fits(size: tuple[int, int], views: Views, scale: float) -> bool:
    """Whether every view of an image is no larger than a window."""
    largest = scale * max(views.scales)
    return views.tile is None or all(side * largest <= most for side, most in zip(size, views.tile, strict=True))


def _see(
    model: nn.Module,
    device: torch.device,
    precision: str,
    image_scale: float,
    scale: float,
    mirrored: bool,
    windows: np.ndarray,
) -> Tensor:
    """One view of windows ``(n, h, w, 3)`` as :func:`infer` sees images: float32 logits ``(n, C, h, w)``."""
    from segloss.datasets.transforms import resize_image

    seen = np.stack([resize_image(window, image_scale) for window in windows])
    images = torch.from_numpy(np.ascontiguousarray(seen.transpose(0, 3, 1, 2))).to(device)
    with autocast(precision, device):
        return one_view(model, images, (windows.shape[1], windows.shape[2]), scale, mirrored).float()


def ends(sample: dict[str, Any], scores: Tensor) -> bool:
    """Whether a sample that :func:`infer_dataset` yields is whole, or the last piece of its image."""
    return bool(sample.get("top", 0) + scores.shape[-2] == sample["size"][0])
