"""Scores at every operating point, and the choice of one."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segloss.config import EvalConfig
from segloss.decisions import Decision, decide
from segloss.errors import InputError
from segloss.evaluation.results import Totals
from segloss.evaluation.summary import mean_of
from segloss.iou_rule import IoUDecision
from segloss.losses import Criterion
from segloss.metrics import Scores, none_if_nan, protocol_named
from segloss.schema import SweepPoint

GRIDS = {"tau": tuple(k / 10 for k in range(16)), "prior": tuple(k / 10 for k in range(11))}
PLAIN = {"tau": 1.0, "prior": 0.0}  # where a rule is the plain argmax; prior: of a run whose tilt is uniform


def sweep_counts(
    criterion: Criterion, logits: Tensor, labels: Tensor, prior: Tensor, rule: IoUDecision | None = None
) -> dict[str, np.ndarray]:
    """Right and predicted pixels per class, int64 ``(T, C, 2)``, at every point of every rule that moves something.

    Args:
        criterion: reads the logits.
        logits: of one image, ``(1, C, H, W)``.
        labels: ``(H, W)``, class ids and 255.
        prior: ``(C,)``; of a uniform one, which moves nothing, the point 0 alone is counted.
        rule: one more point, of its own: ``iou``.
    """
    num_classes = logits.shape[1]
    valid = labels < num_classes
    true = labels[valid]
    posterior = criterion.posterior(logits)
    grids = {"tau": [Decision("tau", value) for value in _taus(criterion)]}
    uniform = bool((prior == prior[0]).all())
    grids["prior"] = [Decision("prior", value) for value in ((PLAIN["prior"],) if uniform else GRIDS["prior"])]
    grids = {name: grid for name, grid in grids.items() if grid}
    if rule is not None:
        grids["iou"] = [Decision("iou", terms=rule)]
    found = {}
    for name, decisions in grids.items():
        points = []
        for decision in decisions:
            ids = decide(criterion, logits, prior, decision, posterior)
            predicted = ids[0][valid]
            hits = torch.bincount(true[predicted == true], minlength=num_classes)
            points.append(torch.stack([hits, torch.bincount(predicted, minlength=num_classes)], 1))
        found[name] = torch.stack(points).cpu().numpy()
    return found


def _taus(criterion: Criterion) -> Sequence[float]:
    """Those that decide otherwise; of scores without a tilt that are calibrated the plain argmax alone, which prior 0,
    the argmax of the calibrated posterior, is not."""
    tilt = criterion.tilt
    if not criterion.plain_by_posterior or not (tilt is None or bool((tilt == tilt[0]).all())):
        return GRIDS["tau"]
    return () if getattr(criterion, "calibration", None) is None else (PLAIN["tau"],)


def sweep_table(totals: Totals, tail: Sequence[int], protocol: str = "cityscapes") -> list[SweepPoint]:
    """The scores at each value of each rule, by a protocol.

    ``tail``: the rarest classes in training, of which those count that labels hold.
    """
    true = torch.from_numpy(totals.matrix.sum(1))
    tail = [c for c in tail if true[c]]
    table = []
    for rule, counts in totals.sweep.items():
        values = GRIDS.get(rule, (None,))
        if len(values) != len(counts):
            values = (PLAIN[rule],)
        points = zip(values, torch.from_numpy(counts), totals.sweep_pairs[rule].tolist(), strict=True)
        for value, point, (ious, pairs) in points:
            scores = Scores.from_counts(point[:, 0], true, point[:, 1], protocol)
            miou = scores.miou
            if protocol_named(protocol).per_image:  # of the images, whose counts the sum has lost
                miou = ious / pairs if pairs else math.nan
            row = SweepPoint(
                rule=rule,
                value=value,
                protocol=scores.protocol,
                classes_averaged=scores.classes_averaged,
                miou=none_if_nan(miou),
                mean_accuracy=none_if_nan(scores.mean_accuracy),
                pixel_accuracy=none_if_nan(scores.pixel_accuracy),
                tail_miou=none_if_nan(mean_of(scores.iou, tail)),
            )
            table.append(row)
    return table


def choose(table: Sequence[SweepPoint], metric: str) -> SweepPoint:
    """The point of the highest score, the rule for mean IoU among them; of equal ones the nearest to the plain argmax.

    Raises:
        InputError: no point has that score.
    """

    def rank(point: SweepPoint) -> tuple[float, float]:
        away = math.inf if point.value is None else abs(point.value - PLAIN[point.rule])
        return getattr(point, metric), -away

    known = [point for point in table if getattr(point, metric) is not None]
    if not known:
        raise InputError("no class of it is in the images to choose on", where=f"--choose-metric {metric}")
    return max(known, key=rank)


def point_text(point: SweepPoint) -> str:
    """``prior 0.5``, or ``iou``."""
    return point.rule if point.value is None else f"{point.rule} {point.value:g}"


def to_keep(point: SweepPoint, config: EvalConfig, images: int) -> dict[str, Any]:
    """What a run folder keeps of a choice: the point, and on what it was chosen."""
    metric = str(config.choose_metric)
    chosen = {"rule": point.rule, "value": point.value, "metric": metric, "score": getattr(point, metric)}
    on = {"split": config.split, "images": images, "choose_on": list(config.choose_on)}
    others = {"views": chosen_under(config)} if chosen_under(config) else {}
    return {**chosen, "protocol": config.protocol, **on, **others}


def chosen_under(config: EvalConfig) -> str:
    """The options under which scores are not those of whole images as the run reads them; nothing where they are."""
    return " ".join(
        flag
        for flag, differs in {
            "--tta-flip": config.tta_flip,
            f"--tta-scales {' '.join(f'{scale:g}' for scale in config.tta_scales)}": tuple(config.tta_scales) != (1.0,),
            f"--image-scale {config.image_scale}": config.image_scale is not None,
            f"--data-path {config.data_path}": config.data_path is not None,
        }.items()
        if differs
    )


def gain(table: Sequence[SweepPoint], point: SweepPoint, metric: str) -> str:
    """``45.2, 2.1 points above the plain argmax``, whose rule is the table's first."""
    plain = next(row for row in table if row.rule in PLAIN and row.value == PLAIN[row.rule])
    before, after = getattr(plain, metric), getattr(point, metric)
    more = (
        "the plain argmax has none" if before is None else f"{100 * (after - before):.1f} points above the plain argmax"
    )
    return f"{100 * after:.1f}, {more}"
