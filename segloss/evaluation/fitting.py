"""The IoU rule and the calibration of a run, fitted to images that it was not trained on, in one pass."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segloss.calibration import Calibration, CalibrationScores, calibration_scores, fit_calibration
from segloss.datasets import MissingSplitError, SegmentationDataset
from segloss.datasets.missing import NoDataError
from segloss.errors import InputError
from segloss.inference import Views, ends, infer_dataset
from segloss.iou_rule import IoUDecision, iou_decision
from segloss.kept import FILE, entry_of, kept_file
from segloss.losses.criterion import Criterion
from segloss.losses.partial_labels import posterior_of_labelled
from segloss.losses.reduction import first_largest
from segloss.metrics import ConfusionMatrix
from segloss.pixel_counts import load_or_count
from segloss.pixel_sample import PixelSample, blocks
from segloss.progress import Progress
from segloss.report.wording import calibration_text, percent, rule_text
from segloss.runs import Run

PIXELS = 2**20  # looked at, on a grid of all images
SAMPLE_MIB = 64  # held: 1.5 M pixels of 11 classes
OVER_TILTED = 0.01  # accuracy that dividing the tilt out may cost before somebody is told
FITTED = 0.99  # mean accuracy on training images, above which they are fitted completely
TRAINING_IMAGES = 16  # looked at for that
LABELLED_IMAGES = 5  # of each class, with fewer of which the rule does without labels
LABELLED_PIXELS = 100  # of each class in the sample that the rule is fitted to, likewise


def images_to_fit_on(open_split: Callable[[str], SegmentationDataset], run: Run) -> SegmentationDataset:
    """The validation split, with labels or without; the training split where there is none.

    Raises:
        InputError: the data of the run is not there.
    """
    try:
        return open_split("val")
    except MissingSplitError:
        return open_split("train")
    except NoDataError as error:
        command = f"eval_seg.py --checkpoint {run.path} --decision iou --data-path DIR"
        what = f"the decision must be fitted first, and the data of the run cannot be had ({error.what})"
        raise InputError(what, f"run {command} once", error.where) from error


def sample_of(
    run: Run,
    dataset: SegmentationDataset,
    *,
    device: torch.device,
    batch_size: int = 8,
    workers: int = 0,
    views: Views | None = None,
    progress: Progress | None = None,
    places: Sequence[int] | None = None,
) -> PixelSample:
    """Uncalibrated posteriors of a split, or of ``places`` in it, and its labels where every image has some, at most
    ``SAMPLE_MIB``."""
    height, width = dataset.image_size(0)
    seen_at = range(len(dataset)) if places is None else places
    stride = max(1, math.isqrt(height * width * len(seen_at) // PIXELS))
    sample = PixelSample(ignore_index=dataset.classes.ignored, pixel_stride=stride, max_mib=SAMPLE_MIB)
    labelled = dataset.has_labels

    def images_seen() -> Iterator[str]:
        how: dict[str, Any] = {"device": device, "views": views, "batch_size": batch_size, "workers": workers}
        for seen, scores in infer_dataset(run.model, run.criterion, dataset, seen_at, **how):
            posterior = run.criterion.posterior(scores)
            if "class_mask" in seen:
                posterior = posterior_of_labelled(posterior, seen["class_mask"][None].to(posterior.device))
            sample.update(posterior, seen["labels"][None].long() if labelled else None)
            if ends(seen, scores):
                yield seen["name"]

    for _ in images_seen() if progress is None else progress(images_seen(), len(seen_at)):
        pass
    return sample


def fit(
    run: Run,
    dataset: SegmentationDataset,
    *,
    training: SegmentationDataset | None = None,
    calibrate: bool = False,
    alone: bool = False,
    **how: Any,
) -> list[str]:
    """Fit the IoU rule to a run and keep it in its folder; lines that say what came of it.

    The rule counts by labels where :func:`counted_by` finds enough of them, else it expects its counts from the
    posterior. A calibration, which needs labels, comes first: the run's own, or with ``calibrate`` a new one. Where the
    images have labels, the mean IoU of the rule and of the plain argmax on them is kept beside it, and ``--decision
    auto`` takes the better one.

    Args:
        dataset: images that the run was not trained on, read as it needs them.
        training: images that it was trained on, read in the same way; a few show whether it fits them completely.
        calibrate: fit temperature and class bias too.
        alone: of the run folder drop what is kept for other weights.
        how: of :func:`sample_of`.

    Raises:
        InputError: no pixel is labelled, scores are NaN, or ``calibrate`` without labels of a split other than train.
    """
    if calibrate and (dataset.split == "train" or not dataset.has_labels):
        cure = "leave --calibrate out, or add a val split with masks"
        raise InputError("--calibrate needs labels of images that the run was not trained on", cure, dataset.name)
    on: dict[str, Any] = {"split": dataset.split, "images": len(dataset)}
    if dataset.has_labels:
        on["labels"] = labels_digest(dataset)
    items: dict[str, Any] = {}
    try:
        sample = sample_of(run, dataset, **how)
        calibration = None if calibrate else run.kept.calibration
        lines = []
        if not (calibrate or calibration):
            lines = over_tilted(sample, run.criterion, run.name, dataset.split)
            lines += fitted_completely(run, training, **{**how, "progress": None}) if training and not lines else []
        if calibrate:
            calibration = fit_calibration(sample)
            scores = calibration_scores(sample), calibration_scores(sample.map(calibration.apply))
            before, after = ({**asdict(found), "classwise_ece": list(found.classwise_ece)} for found in scores)
            items["calibration"] = {"terms": calibration.to_dict(), **on, "before": before, "after": after}
            lines.append(calibration_line(run, dataset, calibration.temperature, *scores))
        if calibration is not None:
            sample = sample.map(calibration.apply)
        rule = fitted_rule(sample, counted_by(run, dataset, sample), run.criterion, calibration)
        known = run.criterion.plain_by_posterior
        if known and sample.labels is not None and sample.pixels and dataset.split != "train":
            plain = plain_argmax(run.criterion, calibration)
            on["miou"] = {"plain": miou_on(sample, plain), "iou": miou_on(sample, rule.decide)}
    except ValueError as error:
        raise error if isinstance(error, InputError) else InputError(str(error), where=run.path) from error
    run.keep(alone=alone, **items, rule={"terms": rule.to_dict(), **on})
    if run.kept.plain_better:
        lines.append(
            f"{run.name}: on the labels of {dataset.split} the plain argmax has mIoU {percent(on['miou']['plain'])}, "
            f"the rule {percent(on['miou']['iou'])}: --decision auto is plain"
        )
    return [*lines, rule_line(run, dataset, rule)]


def counted_by(run: Run, dataset: SegmentationDataset, sample: PixelSample) -> str:
    """``"labels"`` where the run was not trained on the images, and of each class of the training ``LABELLED_IMAGES``
    of them and ``LABELLED_PIXELS`` of their sample hold some, else ``"posterior"``.

    A rule that expects its counts from a posterior is no better than that: on the cracks of docs/results.md it loses
    seven points of mean IoU, which labels keep. A class in hardly any labelled image would be given up by labels.
    """
    if dataset.split == "train" or sample.labels is None:
        return "posterior"
    trained = [c for c, pixels in enumerate(run.counts.pixels) if pixels]
    images = load_or_count(dataset)[0].images
    pixels = torch.bincount(sample.labels, minlength=len(images)).tolist()
    enough = all(images[c] >= LABELLED_IMAGES and pixels[c] >= LABELLED_PIXELS for c in trained)
    return "labels" if enough else "posterior"


def plain_tilt(calibration: Calibration | None, tilt: Tensor | None) -> Tensor | None:
    """What to multiply the calibrated posterior q by for the plain argmax: of u p it is that of u^(1/T) e^-b q."""
    if calibration is None:
        return tilt
    plain = torch.ones(len(calibration.bias)) if tilt is None else tilt.cpu()
    return plain.double() ** (1 / calibration.temperature) * torch.tensor(calibration.bias).double().neg().exp()


def plain_argmax(criterion: Criterion, calibration: Calibration | None = None) -> Callable[[Tensor], Tensor]:
    """The plain argmax of the scores, from posteriors ``(n, C)``, or from what a calibration makes of them."""
    if calibration is None:
        return lambda posterior: first_largest(criterion.plain_scores(posterior))
    tilt = plain_tilt(calibration, criterion.tilt)
    if tilt is None or not criterion.plain_by_tilt:
        return lambda posterior: first_largest(criterion.plain_scores(calibration.undo(posterior)))
    return lambda posterior: first_largest(posterior * tilt.to(posterior))


def fitted_rule(
    sample: PixelSample, counts: str, criterion: Criterion, calibration: Calibration | None = None
) -> IoUDecision:
    """The IoU rule of a sample, calibrated where a calibration is given, beside the criterion's plain argmax."""
    plain = None if criterion.plain_by_tilt else plain_argmax(criterion, calibration)
    rule = iou_decision(sample, counts=counts, tilt=plain_tilt(calibration, criterion.tilt), plain=plain)
    return rule if criterion.plain_by_posterior else replace(rule, plain_score=None)


def confusion_on(sample: PixelSample, decide: Callable[[Tensor], Tensor]) -> ConfusionMatrix:
    """Counts of the sample's labels against decisions on its posteriors."""
    confusion = ConfusionMatrix(sample.posterior.shape[1], ignore_index=None)
    for block, labels in blocks(sample.posterior, sample.labels):
        confusion.update(decide(block.T), labels)
    return confusion


def miou_on(sample: PixelSample, decide: Callable[[Tensor], Tensor]) -> float:
    return confusion_on(sample, decide).compute().miou


def fitted_completely(run: Run, training: SegmentationDataset, **how: Any) -> list[str]:
    """A line where a loss with weights has nothing left to weigh: all classes of a few training images are right.

    What has no loss has no tilt, whatever weights or priors the loss holds. The label values of a squared error without
    class weights are another thing: they are what the scores are trained to be, at a loss of 0 too.
    """
    tilt, weighted = run.criterion.tilt, any(getattr(m, "weight", None) is not None for m in run.criterion.modules())
    uniform = tilt is None or bool((tilt == tilt[0]).all())
    if uniform or (run.criterion.scores == "outlying" and not weighted) or not training.has_labels:
        return []
    places = range(0, len(training), max(1, len(training) // TRAINING_IMAGES))[:TRAINING_IMAGES]
    sample = sample_of(run, training, places=places, **how)
    accuracy = confusion_on(sample, plain_argmax(run.criterion)).compute().mean_accuracy
    if not accuracy > FITTED:
        return []
    return [
        f"warning: {run.name}: mean accuracy on {len(places)} training images is {percent(accuracy)} %: where they are "
        "fitted completely the loss has no tilt, and dividing it out over-corrects; add --calibrate (docs/losses.md)"
    ]


def place_elsewhere(run: Run, dataset: SegmentationDataset) -> Path | None:
    """The data folder, where it is another one than the run's own."""
    if dataset.root is None or (run.used.data_path and Path(run.used.data_path).resolve() == dataset.root.resolve()):
        return None
    return dataset.root


def fitted_elsewhere(run: Run, training: SegmentationDataset) -> str:
    """A line where the training images at hand are not those of the run; nothing where they have only moved."""
    place = place_elsewhere(run, training)
    if place is None or run.counts.images_digest in ("", training.images_digest()):
        return ""
    path = kept_file(run.folder)
    what = "holds other training images than the run's; the decision that is fitted here is kept for good"
    cure = f"delete {path} to fit it anew" if path.name == FILE else "fetch the run again to fit it anew"
    return f"warning: {run.name}: {InputError(what, cure, place)}"


def images_told(run: Run, dataset: SegmentationDataset) -> str:
    """``3 images of val``; of another folder than the run's own ``3 images of val in DIR``."""
    place = place_elsewhere(run, dataset)
    return f"{len(dataset)} images of {dataset.split}" + (f" in {place}" if place else "")


def labels_digest(dataset: SegmentationDataset) -> str:
    """Of the pixels of each class, in all images: the same wherever they lie."""
    counts = load_or_count(dataset)[0]
    return hashlib.sha256(repr((counts.pixels, counts.ignored_pixels, counts.image_count)).encode()).hexdigest()[:16]


def fitted_to_other_labels(run: Run, open_split: Callable[[str], SegmentationDataset]) -> list[str]:
    """A line for a rule or a calibration of the run beside labels that have changed since; none where they are gone."""
    entry, now, lines = entry_of(run.folder, run.weights) or {}, dict[str, str](), []
    for item, name in (("rule", "the IoU rule"), ("calibration", "the calibration")):
        on = entry.get(item, {})
        if "labels" not in on:
            continue
        split = on["split"]
        with suppress(InputError):
            if split not in now:
                now[split] = labels_digest(open_split(split))
            if now[split] != on["labels"]:
                cure = f"delete {kept_file(run.folder)} to fit it anew"
                lines.append(f"{name} was fitted when the labels of {split} were others; {cure}")
    return lines


def rule_line(run: Run, dataset: SegmentationDataset, rule: IoUDecision) -> str:
    seen = ", which it was trained on" if dataset.split == "train" else ""
    return f"{run.name}: IoU rule fitted on {images_told(run, dataset)}{seen}: {rule_text(rule)}"


def calibration_line(
    run: Run, dataset: SegmentationDataset, temperature: float, before: CalibrationScores, after: CalibrationScores
) -> str:
    told = calibration_text(
        *((found.ece, sum(found.classwise_ece) / len(found.classwise_ece), found.nll) for found in (before, after))
    )
    on = f"{images_told(run, dataset)} ({before.pixels:,} pixels)"
    return f"{run.name}: calibrated on {on}: temperature {temperature:.2f}, {told}"


def over_tilted(sample: PixelSample, criterion: Criterion, name: str, split: str) -> list[str]:
    """A line where the plain argmax is right more often than the posterior's, which a trained tilt rules out.

    The posterior divides out what class weights do to the scores. They do nothing to a network that fits its training
    images completely, where every pixel's loss is 0 whatever it weighs.
    """
    if sample.labels is None or criterion.tilt is None or not criterion.plain_by_posterior or not sample.pixels:
        return []
    right, decide_plainly = torch.zeros(2, dtype=torch.int64), plain_argmax(criterion)
    for block, labels in blocks(sample.posterior, sample.labels):
        right += torch.stack([(found == labels).sum() for found in (decide_plainly(block.T), block.max(0).indices)])
    plain, natural = (right / sample.pixels).tolist()
    if plain - natural <= OVER_TILTED:
        return []
    return [
        f"warning: {name}: pixel accuracy on {split} is {percent(plain)} % by the plain argmax, {percent(natural)} % "
        "by the posterior, which divides out more weight of the rare classes than the network has learnt; add "
        "--calibrate, in training or in eval_seg.py (docs/losses.md)"
    ]
