"""Scores of samples: whole images in batches, large ones in windows, each view and network of an ensemble."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segloss.datasets import SegmentationDataset
from segloss.datasets.loading import evaluation_loader, window_loader
from segloss.datasets.rows import sliced
from segloss.errors import InputError
from segloss.inference.machine import autocast
from segloss.inference.readers import Ensemble, members_of
from segloss.inference.views import Views, one_view
from segloss.inference.windows import in_step, score_rows
from segloss.losses import Criterion
from segloss.models import logits_at_size


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


def look(model: nn.Module, images: Tensor, size: tuple[int, int], views: Views, criterion: Criterion) -> Tensor:
    """float32 logits ``(N, C, *size)`` of whole images, or the mean posterior of several views or networks."""
    if not (views.several or isinstance(model, Ensemble)):
        return logits_at_size(model, images, size)
    total, members = torch.zeros((), device=images.device), members_of(model, criterion)
    for member, reader in members:
        for scale, mirrored in views.each:
            scores = one_view(member, images, size, scale, mirrored)
            total = total + views.posterior(reader, scores, mirrored)
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
            streams.append(map(partial(views.posterior, reader, mirrored=mirrored), rows) if averaged else rows)
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
