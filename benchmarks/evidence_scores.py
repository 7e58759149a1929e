"""A trained run under every decision of evidence.py: held-out scores on val, and what its test images give.

    python benchmarks/evidence_scores.py RUN --data-path DIR --block 20 --output FILE.json [--test]

The network passes once over val, on which decisions are fitted, and with --test once over test. A decision that is
fitted is scored on val in two halves, each by the decision of the other half, on a grid of pixels; on test by that of
all of val, on all pixels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from command import parser_of
from evidence_runs import machine, write_row
from torch import Tensor

from segloss.datasets import SegmentationDataset
from segloss.datasets.transforms import EvalTransform
from segloss.decisions import POINTS, Decision, by_prior, decide
from segloss.errors import exit_on_input_error
from segloss.evaluation.fitting import (
    LABELLED_IMAGES,
    LABELLED_PIXELS,
    confusion_on,
    counted_by,
    miou_on,
    plain_argmax,
    sample_of,
)
from segloss.evaluation.summary import mean_of
from segloss.inference import infer_dataset
from segloss.iou_rule import iou_decision
from segloss.losses import Criterion, class_prior
from segloss.losses.reduction import first_largest
from segloss.metrics import ConfusionMatrix, Scores, class_groups, none_if_nan
from segloss.pixel_sample import PixelSample
from segloss.runs import Run, load_run

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # of the networks and of decisions
EXPONENTS = tuple(k / 10 for k in range(13))
DECISIONS = {
    "plain": "argmax of the scores",
    "tau0": "argmax of the posterior",
    "prior": f"the prior's exponent in 0, 0.1 ... {EXPONENTS[-1]} that is best on the labels of val",
    "iou": "IoU rule fitted to the images of val, without labels",
    "labels": "IoU rule fitted to the labels of val",
}
AUTO = (
    f"what `train_seg.py` does: labels where at least {LABELLED_IMAGES} images of val and "
    f"{LABELLED_PIXELS} pixels of its sample hold each class, else iou; "
    "plain where that is better on val"
)


@dataclass(frozen=True)
class Way:
    """A decision, and the criterion (calibrated or not) whose posterior it decides on."""

    decision: Decision
    reader: Criterion


def best_exponent(sample: PixelSample, prior: Tensor) -> float:
    """Of ``EXPONENTS`` the one with the highest mean IoU on the sample's labels."""
    return max(EXPONENTS, key=lambda s: miou_on(sample, partial(by_prior, prior=prior, exponent=s)))


def fitted(run: Run, sample: PixelSample) -> dict[str, Decision]:
    """Every one of ``DECISIONS``, fitted to a sample."""
    rules = {
        name: iou_decision(sample, counts=counts, tilt=run.criterion.tilt)
        for name, counts in (("iou", "posterior"), ("labels", "labels"))
    }
    return {
        "plain": Decision(),
        "tau0": Decision(POINTS[0], 0.0),
        "prior": Decision(POINTS[1], best_exponent(sample, class_prior(run.counts))),
        **{name: Decision("iou", terms=rule) for name, rule in rules.items()},
    }


def deciding(run: Run, decision: Decision) -> Callable[[Tensor], Tensor]:
    """A decision as classes of the sample's posteriors ``(n, C)``."""
    if decision.terms is not None:
        return decision.terms.decide
    if decision.rule == POINTS[1]:
        return partial(by_prior, prior=class_prior(run.counts), exponent=decision.value)
    if decision.value == 0:
        return first_largest
    return plain_argmax(run.criterion)


def held_out_scores(run: Run, halves: tuple[PixelSample, PixelSample]) -> dict[str, dict]:
    """Mean IoU and IoUs of each decision on two samples, each decided as the other one says."""
    totals = {name: ConfusionMatrix(len(run.classes), ignore_index=None) for name in DECISIONS}
    for mine, other in (halves, halves[::-1]):
        for name, decision in fitted(run, other).items():
            totals[name].merge(confusion_on(mine, deciding(run, decision)))
    found = {name: total.compute() for name, total in totals.items()}
    return {name: {"miou": scores.miou, "iou": numbers(scores.iou)} for name, scores in found.items()}


def numbers(values: Tensor) -> list[float | None]:
    return [none_if_nan(value) for value in values.tolist()]


def counts_of(run: Run, dataset: SegmentationDataset, ways: Mapping[str, Way]) -> dict[str, np.ndarray]:
    """Right, true and predicted pixels ``(images, 3, C)`` of the split under each decision, in one pass."""
    prior, num_classes = class_prior(run.counts).to(DEVICE), len(dataset.classes)
    found: dict[str, list[np.ndarray]] = {name: [] for name in ways}
    for sample, scores in infer_dataset(run.model, run.criterion, dataset, device=DEVICE):
        for name, way in ways.items():
            confusion = ConfusionMatrix(num_classes)
            confusion.update(decide(way.reader, scores, prior, way.decision).cpu(), sample["labels"][None].long())
            matrix = confusion.matrix
            predicted = matrix[:, :num_classes].sum(0)
            found[name].append(torch.stack([matrix.diagonal(), matrix.sum(1), predicted]).numpy())
    return {name: np.stack(rows) for name, rows in found.items()}


def scores_of(counts: np.ndarray, block: int, training_pixels: list[int]) -> dict:
    """What a row keeps of a split under a decision: scores, and the counts ``(B, 3, C)`` intervals are made from."""
    scores = Scores.from_counts(*torch.from_numpy(counts.sum(0)))
    found = {key: getattr(scores, key) for key in ("miou", "mean_accuracy", "pixel_accuracy")}
    found |= {
        name: none_if_nan(mean_of(scores.iou, members)) for name, members in class_groups(training_pixels).items()
    }
    found |= {key: numbers(getattr(scores, key)) for key in ("iou", "recall", "precision")}
    return found | {"blocks": np.add.reduceat(counts, np.arange(0, len(counts), block)).tolist()}


def opened(path: Path, root: Path) -> tuple[Run, Callable[[str], SegmentationDataset]]:
    """A run, and what opens the splits of its data set as it needs them."""
    run = load_run(path)
    options = replace(run.config, data_path=str(root))
    return run, partial(options.open, transform=EvalTransform(run.config.image_scale))


def score(path: Path, root: Path, block: int, test: bool) -> dict:
    """The scores of a run, for its row."""
    run, open_split = opened(path, root)
    val = open_split("val")
    halves = tuple(sample_of(run, val, device=DEVICE, places=range(part, len(val), 2)) for part in (0, 1))
    row = {"classes": list(run.classes.names), "scored": machine()["commit"], "weights": run.weights}
    scores = {"val": held_out_scores(run, halves)}
    whole = sample_of(run, val, device=DEVICE)
    decisions = fitted(run, whole)
    rule = "labels" if counted_by(run, val, whole) == "labels" else "iou"
    miou = {name: miou_on(whole, deciding(run, decisions[name])) for name in ("plain", rule)}
    row |= {
        "auto": max(rule, "plain", key=lambda name: miou[name]),
        "decisions": {name: str(each) for name, each in decisions.items()},
    }
    if test:
        counts = counts_of(run, open_split("test"), {n: Way(each, run.criterion) for n, each in decisions.items()})
        row["images"] = len(counts["plain"])
        scores["test"] = {n: scores_of(c, block, list(run.counts.complete.pixels)) for n, c in counts.items()}
    return row | {"scores": scores}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data-path", type=Path, required=True)
    parser.add_argument("--block", type=int, required=True, help="consecutive test images that are counted as one")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--test", action="store_true")
    args = parser.parse_args()
    write_row(args.output, score(args.run, args.data_path, args.block, args.test))


if __name__ == "__main__":
    exit_on_input_error(main)
