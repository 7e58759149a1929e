"""The metrics schema of docs/metrics.md, from the totals of an evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from segloss.datasets.classes import ClassTable
from segloss.evaluation.counting import BINS
from segloss.evaluation.results import Totals
from segloss.measures import MEASURES
from segloss.metrics import Scores, class_groups, grouped_confusion, none_if_nan
from segloss.schema import (
    Bin,
    Calibration,
    Categories,
    ClassScores,
    Confusion,
    Group,
    Groups,
    Origin,
    RunScores,
    WorstClass,
)

MOST_CONFUSIONS = 20


def summarise(
    totals: Totals,
    classes: ClassTable,
    origin: Origin,
    *,
    training_pixels: Sequence[int] | None = None,
    protocol: str = "cityscapes",
) -> RunScores:
    """Every score of an evaluation; ratios in [0, 1], None where there is no number.

    Args:
        totals: what the images add up to.
        classes: names and categories.
        origin: what was scored.
        training_pixels: order the classes for head, middle and tail; None: the true pixels of this evaluation.
        protocol: the definition of the means, one of :data:`segloss.metrics.PROTOCOLS`.
    """
    hits, true, predicted = torch.from_numpy(totals.counts).unbind(1)
    scores = Scores.from_counts(hits, true, predicted, protocol)
    plain = scores.to_dict(classes.names)
    found = [(MEASURES[name], MEASURES[name].scores(counts)) for name, counts in totals.counted.items()]
    tables = tuple(m.table(totals.counted[m.name], classes.names) for m, _ in found if m.table is not None)
    of_classes = tuple(
        ClassScores(
            **row,
            images=int(totals.present[c]),
            counted={measure.of_class.key: none_if_nan(float(ratios[c])) for measure, ratios in found},
        )
        for c, row in enumerate(plain.pop("classes"))
    )
    known = [WorstClass(row.name, row.iou) for row in of_classes if row.iou is not None and row.pixels]
    return RunScores(
        **plain,
        origin=origin,
        images=totals.images,
        ignored_pixels=totals.ignored,
        unknown_predictions=int(totals.matrix[:, len(classes) :].sum()),
        classes=of_classes,
        groups=_groups(scores, classes, training_pixels),
        worst_class=min(known, key=lambda row: row.iou, default=None),
        categories=_categories(totals, classes),
        counted={measure.of_all.key: none_if_nan(measure.mean(ratios)) for measure, ratios in found},
        calibration=calibration(totals),
        confusions=confusions(totals.matrix, classes.names),
        tables=tables or None,
    )


def confusions(matrix: np.ndarray, names: Sequence[str]) -> tuple[Confusion, ...]:
    """Where the pixels of classes went that were taken for another: the largest shares of a class, at least 1 %."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    shares = wrong / np.maximum(matrix.sum(1, keepdims=True), 1)
    order = np.lexsort((-wrong.ravel(), -shares.ravel()))[:MOST_CONFUSIONS]
    found = [(*divmod(int(cell), matrix.shape[1]), float(shares.ravel()[cell])) for cell in order]
    columns: list[str | None] = [*names, None]
    return tuple(
        Confusion(names[true], columns[column], share, int(matrix[true, column]))
        for true, column, share in found
        if share >= 0.01
    )


def mean_of(ious: torch.Tensor, members: Sequence[int]) -> float:
    """Mean IoU of some classes, without those that have none; NaN if there is none at all."""
    return float(ious[list(members)].nanmean()) if members else float("nan")


def members_of_groups(true: Sequence[int], training_pixels: Sequence[int] | None) -> dict[str, list[int]]:
    """Class numbers of head, middle and tail, by training or else by true pixels, of the classes that labels hold.

    >>> members_of_groups([9, 0, 5, 0], None), members_of_groups([9, 0, 5, 0], [1, 2, 3, 4])
    ({'head': [0], 'middle': [], 'tail': [2]}, {'head': [2], 'middle': [], 'tail': [0]})
    """
    known = [c for c in range(len(true)) if true[c] or (training_pixels is not None and training_pixels[c])]
    groups = class_groups([(true if training_pixels is None else training_pixels)[c] for c in known])
    return {name: [known[k] for k in members if true[known[k]]] for name, members in groups.items()}


def _groups(scores: Scores, classes: ClassTable, training_pixels: Sequence[int] | None) -> Groups:
    groups = {
        name: Group(tuple(classes.names[c] for c in members), none_if_nan(mean_of(scores.iou, members)))
        for name, members in members_of_groups(scores.pixels.tolist(), training_pixels).items()
    }
    return Groups("evaluation" if training_pixels is None else "training", **groups)


def _categories(totals: Totals, classes: ClassTable) -> Categories | None:
    if not classes.categories:
        return None
    names, matrix = grouped_confusion(torch.from_numpy(totals.matrix), classes.categories)
    grouped = Scores.from_confusion(matrix)
    ious = [none_if_nan(iou) for iou in grouped.iou.tolist()]
    return Categories(none_if_nan(grouped.miou), dict(zip(names, ious, strict=True)))


def calibration(totals: Totals) -> Calibration | None:
    """Expected calibration error over ``BINS`` equally wide bins, Brier score, and the bins for a diagram.

    ECE = sum over bins of (pixels / all) |accuracy - confidence|, confidence being the posterior's maximum (Guo et
    al., ICML 2017). Brier: mean over pixels of the squared distance of posterior and one-hot (Brier 1950); in [0, 2].
    NLL: mean over pixels of -log P of the true class. Classwise ECE: mean over the classes of the ECE of the class's
    own probability (Nixon et al., CVPRW 2019). None where it was not asked for, or no pixel is labelled.
    """
    if totals.calibration is None or not totals.calibration[:, 0].any():
        return None
    sums = totals.likelihood
    before = {name.split()[1]: value for name, value in sums.items() if name.startswith("uncalibrated ")}
    uncalibrated = _calibration(before["bins"], float(before["brier"][0]), before) if before else None
    return replace(_calibration(totals.calibration, totals.brier, sums), uncalibrated=uncalibrated)


def _calibration(counts: np.ndarray, brier: float, sums: Mapping[str, np.ndarray]) -> Calibration:
    pixels, confidence, right = counts.T
    share = pixels / max(1.0, pixels.sum())
    filled = np.maximum(pixels, 1)
    accuracy, confidence = right / filled, confidence / filled
    columns = (np.arange(BINS) / BINS, share, accuracy, confidence)
    return Calibration(
        ece=float((share * np.abs(accuracy - confidence)).sum()),
        brier=brier / max(1.0, float(pixels.sum())),
        bins=tuple(Bin(*row) for row in np.stack(columns, axis=1)[pixels > 0].tolist()),
        nll=float(sums["nll"][0]) / max(1.0, float(pixels.sum())) if sums else None,
        classwise_ece=float((np.abs(sums["gaps"]).sum(1) / max(1.0, sums["looked_at"][0])).mean()) if sums else None,
    )
