r"""Which class wins: decisions that trade common classes for rare ones after training, without training again.

=========  ==============================================================================================
rule       decision
=========  ==============================================================================================
``tau``    :math:`\arg\max_c u_c^\tau P(c|x)`, u being the criterion's declared tilt; 1 is the plain argmax of the
           scores. Of the outlying label it is :math:`\arg\max_c z_c t_c^{\tau - 1}`. Without a tilt it moves nothing
``prior``  :math:`\arg\max_c P(c|x)\,\pi_c^{-s}`, the prior pi being the training share; every criterion has it
=========  ==============================================================================================

Source of the second: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021 (post-hoc).
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from segloss.config import CHOICES, EvalConfig
from segloss.errors import InputError
from segloss.files import write_json
from segloss.losses import Criterion
from segloss.losses.criterion import per_class
from segloss.losses.reduction import first_largest
from segloss.metrics import Scores, none_if_nan
from segloss.results import Totals
from segloss.runs import Run
from segloss.summary import mean_of

GRIDS = {"tau": tuple(k / 10 for k in range(16)), "prior": tuple(k / 10 for k in range(11))}
FILE = "operating_point.json"


@dataclass(frozen=True)
class Decision:
    """A rule and where on it to decide; the default is the plain argmax of the scores."""

    rule: str = "tau"
    value: float = 1.0

    def __str__(self) -> str:
        return f"{self.rule} {self.value:g}"


def decide(criterion: Criterion, logits: Tensor, prior: Tensor, decision: Decision) -> Tensor:
    """Class ids ``(N, *)`` of logits ``(N, C, *)``; ``prior`` ``(C,)`` is the share of each class in training."""
    if decision.rule == "tau":
        return criterion.decide(logits, decision.value)
    return _by_prior(criterion.posterior(logits), prior, decision.value)


def _by_prior(posterior: Tensor, prior: Tensor, exponent: float) -> Tensor:
    return first_largest(posterior * per_class(prior**-exponent, posterior))


def training_prior(pixels: Sequence[int]) -> Tensor:
    """Share of each class in the training pixels; a class without any takes the smallest share there is.

    Without any pixel at all the shares are equal.
    """
    counts = torch.tensor(pixels, dtype=torch.float64)
    if not counts.any():
        counts = torch.ones_like(counts)
    return (torch.where(counts > 0, counts, counts[counts > 0].min()) / counts.sum()).float()


def sweep_counts(criterion: Criterion, logits: Tensor, labels: Tensor, prior: Tensor) -> dict[str, np.ndarray]:
    """Right and predicted pixels per class, int64 ``(T, C, 2)``, at every point of every rule that moves something.

    Args:
        criterion: reads the logits.
        logits: of one image, ``(1, C, H, W)``.
        labels: ``(H, W)``, class ids and 255.
        prior: ``(C,)``.
    """
    num_classes = logits.shape[1]
    valid = labels < num_classes
    true = labels[valid]
    posterior = criterion.posterior(logits)
    found = {}
    for rule, grid in GRIDS.items():
        if rule == "tau" and (criterion.tilt is None or bool((criterion.tilt == criterion.tilt[0]).all())):
            continue
        points = []
        for value in grid:
            by_prior = rule == "prior"
            ids = _by_prior(posterior, prior, value) if by_prior else criterion.decide(logits, value)
            predicted = ids[0][valid]
            hits = torch.bincount(true[predicted == true], minlength=num_classes)
            points.append(torch.stack([hits, torch.bincount(predicted, minlength=num_classes)], 1))
        found[rule] = torch.stack(points).cpu().numpy()
    return found


def sweep_table(totals: Totals, tail: Sequence[int], protocol: str = "cityscapes") -> list[dict]:
    """One row per rule and value: the scores there by a protocol. ``tail``: the rarest classes in training."""
    true = torch.from_numpy(totals.matrix.sum(1))
    rows = []
    for rule, counts in totals.sweep.items():
        points = zip(GRIDS[rule], torch.from_numpy(counts), totals.sweep_pairs[rule].tolist(), strict=True)
        for value, point, (ious, pairs) in points:
            scores = Scores.from_counts(point[:, 0], true, point[:, 1], protocol)
            numbers = {key: getattr(scores, key) for key in CHOICES[:3]} | {"tail_miou": mean_of(scores.iou, tail)}
            if protocol == "per-image":  # of the images, whose counts the sum has lost
                numbers["miou"] = ious / pairs if pairs else math.nan
            plain = {key: none_if_nan(number) for key, number in numbers.items()}
            named = {"rule": rule, "value": value, "protocol": protocol, "classes_averaged": scores.classes_averaged}
            rows.append({**named, **plain})
    return rows


def choose(rows: Sequence[dict], metric: str) -> dict:
    """The row with the highest score; of equal ones the one nearest to the plain argmax.

    Raises:
        InputError: no row has that score.
    """
    known = [row for row in rows if row[metric] is not None]
    if not known:
        raise InputError(f"--choose-metric {metric}: no class of it is in the images to choose on")
    plain = {"tau": 1.0, "prior": 0.0}
    return max(known, key=lambda row: (row[metric], -abs(row["value"] - plain[row["rule"]])))


def save_operating_point(run: Run, row: dict, config: EvalConfig, images: int) -> Path:
    """Write the choice into the run folder, where ``--decision-tau auto`` finds it; the file's path."""
    metric = str(config.choose_metric)
    chosen = {"rule": row["rule"], "value": row["value"], "metric": metric, "score": row[metric]}
    chosen |= {"protocol": config.protocol, "checkpoint": run.path.name}
    path = run.folder / FILE
    write_json(path, {**chosen, "split": config.split, "images": images, "choose_on": config.choose_on})
    return path


def load_operating_point(run: Run) -> Decision:
    """The choice of a run; InputError if none was made for these weights."""
    path = run.folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        decision = Decision(str(content["rule"]), float(content["value"]))
        if not math.isfinite(decision.value):
            raise ValueError(f"{decision.value} is no operating point")
        chosen_for = str(content["checkpoint"])
    except FileNotFoundError:
        raise InputError(
            f"{path}: no operating point was chosen; run eval_seg.py --checkpoint {run.path} --split val --sweep-tau "
            "--choose-metric miou"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read as an operating point; choose it again") from error
    if decision.rule not in GRIDS:
        raise InputError(f"{path}: unknown rule {decision.rule!r}; choose it again")
    if chosen_for != run.path.name:
        raise InputError(f"{path}: was chosen for {chosen_for}, not {run.path.name}; choose it again for that one")
    return decision
