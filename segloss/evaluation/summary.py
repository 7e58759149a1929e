"""The metrics schema of docs/metrics.md, from the totals of an evaluation."""

from collections.abc import Sequence

import numpy as np
import torch

from segloss.datasets.classes import ClassTable
from segloss.evaluation.counting import BINS
from segloss.evaluation.results import Totals
from segloss.metrics import Scores, class_groups, grouped_confusion, none_if_nan


def summarise(
    totals: Totals, classes: ClassTable, *, training_pixels: Sequence[int] | None = None, protocol: str = "cityscapes"
) -> dict:
    """Every score of an evaluation as plain values; ratios in [0, 1], None where there is no number.

    Args:
        totals: what the images add up to.
        classes: names and categories.
        training_pixels: order the classes for head, middle and tail; None: the true pixels of this evaluation.
        protocol: the definition of the means, one of :data:`segloss.metrics.PROTOCOLS`.
    """
    scores = scores_of(totals, protocol)
    metrics = {
        "images": totals.images,
        "ignored_pixels": totals.ignored,
        "unknown_predictions": int(totals.matrix[:, len(classes) :].sum()),
        **scores.to_dict(list(classes.names)),
    }
    for row, present in zip(metrics["classes"], totals.present.tolist(), strict=True):
        row["images"] = present
    order = "training" if training_pixels is not None else "evaluation"
    groups = class_groups(scores.pixels.tolist() if training_pixels is None else training_pixels)
    metrics["groups"] = {"by_pixels_of": order}
    for name, members in groups.items():
        mean = mean_of(scores.iou, members)
        metrics["groups"][name] = {"classes": [classes.names[c] for c in members], "miou": none_if_nan(mean)}
    known = [c for c in range(len(classes)) if not scores.iou[c].isnan()]
    if known:
        worst = min(known, key=lambda c: float(scores.iou[c]))
        metrics["worst_class"] = {"name": classes.names[worst], "iou": float(scores.iou[worst])}
    if classes.categories:
        names, matrix = grouped_confusion(torch.from_numpy(totals.matrix), classes.categories)
        grouped = Scores.from_confusion(matrix)
        ious = [none_if_nan(float(iou)) for iou in grouped.iou]
        metrics["categories"] = {"miou": none_if_nan(grouped.miou), "iou": dict(zip(names, ious, strict=True))}
    if totals.boundary is not None:
        _add_boundary(metrics, totals.boundary)
    if totals.calibration is not None:
        metrics["calibration"] = calibration(totals)
    return metrics


def scores_of(totals: Totals, protocol: str) -> Scores:
    if protocol == "per-image":
        return Scores.from_counts(*(torch.from_numpy(totals.counts[:, k]) for k in range(3)), protocol)
    return Scores.from_confusion(torch.from_numpy(totals.matrix), protocol)


def mean_of(ious: torch.Tensor, members: Sequence[int]) -> float:
    """Mean IoU of some classes, without those that have none; NaN if there is none at all."""
    return float(ious[list(members)].nanmean()) if members else float("nan")


def _add_boundary(metrics: dict, boundary: np.ndarray) -> None:
    ious = torch.from_numpy(boundary[:, 0]).double() / torch.from_numpy(boundary[:, 1]).double()
    for row, iou in zip(metrics["classes"], ious.tolist(), strict=True):
        row["boundary_iou"] = none_if_nan(iou)
    metrics["boundary_miou"] = none_if_nan(float(ious.nanmean()))


def calibration(totals: Totals) -> dict:
    """Expected calibration error over ``BINS`` equally wide bins, Brier score, and the bins for a diagram.

    ECE = sum over bins of (pixels / all) |accuracy - confidence|, confidence being the posterior's maximum (Guo et
    al., ICML 2017). Brier: mean over pixels of the squared distance of posterior and one-hot (Brier 1950); in [0, 2].
    """
    pixels, confidence, right = totals.calibration.T
    share = pixels / max(1.0, pixels.sum())
    filled = np.maximum(pixels, 1)
    accuracy, confidence = right / filled, confidence / filled
    return {
        "ece": float((share * np.abs(accuracy - confidence)).sum()),
        "brier": totals.brier / max(1.0, float(pixels.sum())),
        "bins": [
            {
                "from": k / BINS,
                "share": float(share[k]),
                "accuracy": float(accuracy[k]),
                "confidence": float(confidence[k]),
            }
            for k in range(BINS)
            if pixels[k]
        ],
    }
