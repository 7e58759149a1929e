"""Scores and comparisons in words, the same in the terminal, on the page and in pictures. Percent here and in plots."""

import math
from collections.abc import Iterable, Mapping

from segloss.iou_rule import IoUDecision
from segloss.measures import MEASURES, Measure
from segloss.metrics import PROTOCOLS
from segloss.schema import (
    ClassScores,
    Comparison,
    Confusion,
    Interval,
    Pair,
    RankedSetting,
    Ratio,
    RunOrigin,
    RunScores,
)


def counted_in(runs: Iterable[RunScores]) -> list[Measure]:
    """The measures that some of the runs were asked for."""
    keys = {key for scores in runs for key in scores.counted}
    return [measure for measure in MEASURES.values() if measure.of_all.key in keys]


def class_ratios(row: ClassScores, measures: Iterable[Measure]) -> list[Ratio]:
    """IoU, recall, precision, F1 and what the measures counted, of one class."""
    return [row.iou, row.recall, row.precision, row.f1, *(row.counted.get(m.of_class.key) for m in measures)]


def scored_how(scores: RunScores) -> list[str]:
    """What differs from plain scoring: ``["prior 0.5", "TTA scales 0.75 1", "TTA flip", "image scale 0.5"]``.

    Of the rule for mean IoU ``"decision iou"``; ``"calibrated"`` where the posterior is.
    """
    origin = scores.origin
    decision = "decision iou" if origin.decision == "iou" else origin.decision or "tau 1"
    if not isinstance(origin, RunOrigin):
        return [decision] if decision != "tau 1" else []
    views = origin.views
    said = {
        decision: decision != "tau 1",
        "calibrated": scores.calibration is not None and scores.calibration.uncalibrated is not None,
        f"TTA scales {' '.join(f'{factor:g}' for factor in views.tta_scales)}": views.tta_scales != (1,),
        "TTA flip": views.tta_flip,
        f"tile {'x'.join(map(str, views.tile or ()))}, overlap {views.tile_overlap:g}": views.tile is not None,
        f"image scale {origin.image_scale:g}": origin.image_scale != 1,
        f"precision {origin.precision}": origin.precision != "32-true",
    }
    return [text for text, differs in said.items() if differs]


def title_of(name: str, scores: RunScores) -> str:
    """``ce on camvid test: 233 images, tau 0.5``."""
    origin = scores.origin
    where = f" on {origin.dataset} {origin.split}" if isinstance(origin, RunOrigin) else ""
    skipped = [f"{len(origin.skipped)} left out"] if origin.skipped else []
    return f"{name}{where}: " + ", ".join([f"{scores.images} images", *skipped, *scored_how(scores)])


def unknown_share(scores: RunScores) -> float:
    """Of the valid pixels, the share that was predicted as no class."""
    return scores.unknown_predictions / max(1, sum(row.pixels for row in scores.classes))


def unknown_text(scores: RunScores) -> str:
    """``predicted as no class: 1,200 pixels (0.31 %)``; empty where there are none."""
    unknown, share = scores.unknown_predictions, unknown_share(scores)
    return f"predicted as no class: {unknown:,} pixels ({100 * share:.3g} %)" if unknown else ""


def mean_text(averaged: int | str, classes: int, protocol: str) -> str:
    """``over 10 of 11 classes (protocol cityscapes)``: what a mean IoU is the mean of."""
    return f"over {averaged} of {classes} classes (protocol {protocol})"


MOST_IN_WORDS = 3  # confusions, one line


def confusion_text(row: Confusion) -> str:
    """``38 % of sign_symbol goes to building``."""
    return f"{100 * row.share:.0f} % of {row.true} goes to {row.predicted or 'no class'}"


def confused_text(row: Confusion) -> str:
    """``38 % of sign_symbol goes to building (1,204 pixels)``."""
    return f"{confusion_text(row)} ({row.pixels:,} pixel{'' if row.pixels == 1 else 's'})"


def own_text(scores: RunScores) -> str:
    """What a run scored over all of its images, where the figures are over fewer; empty where they are not."""
    own = scores.own
    if own is None:
        return ""
    mean = mean_text(own.classes_averaged, len(scores.classes), scores.protocol)
    return f"these are the {scores.images} images that all have; over all {own.images} of its own: mIoU " + (
        f"{percent(own.miou)} {mean}"
    )


def summary_lines(scores: RunScores) -> list[str]:
    """``mIoU 45.9 over 11 of 11 classes (protocol cityscapes), mean accuracy 58.4`` and what else was counted."""
    averaged, groups = mean_text(scores.classes_averaged, len(scores.classes), scores.protocol), scores.groups
    of_groups = f"head {percent(groups.head.miou)}, middle {percent(groups.middle.miou)}, tail "
    worst, found = scores.worst_class, scores.calibration
    lines = [
        f"mIoU {percent(scores.miou)} {averaged}, mean accuracy {percent(scores.mean_accuracy)}, pixel accuracy "
        f"{percent(scores.pixel_accuracy)}, frequency-weighted IoU {percent(scores.frequency_weighted_iou)}",
        f"mIoU of {of_groups}{percent(groups.tail.miou)}"
        + (f"; worst class {worst.name} {percent(worst.iou)}" if worst else ""),
    ]
    if scores.categories:
        of_each = ", ".join(f"{name} {percent(iou)}" for name, iou in scores.categories.iou.items())
        lines.append(f"category mIoU {percent(scores.categories.miou)}: {of_each}")
    means = [measure.of_all for measure in counted_in([scores])]
    lines += [f"{mean.title} {percent(scores.counted[mean.key])}" for mean in means]
    if found:
        lines.append(f"calibration error {percent(found.ece)} %, Brier score {found.brier:.3f}")
        if found.nll is not None:
            lines[-1] += f", classwise {percent(found.classwise_ece)} %, NLL {found.nll:.3f}"
        if before := found.uncalibrated:
            was = f"calibration error {percent(before.ece)} %, Brier score {before.brier:.3f}"
            lines.append(f"uncalibrated: {was}, classwise {percent(before.classwise_ece)} %, NLL {before.nll:.3f}")
    confused = ", ".join(map(confusion_text, (scores.confusions or ())[:MOST_IN_WORDS]))
    return [*lines, *filter(None, [confused, unknown_text(scores), own_text(scores)])]


def part_table(runs: Mapping[str, RunScores]) -> tuple[list[str], list[tuple[str, int, list[tuple[Ratio, int]]]]]:
    """Names of the runs, and of each part of ``--by`` its name, images, and mean of every run with its classes."""
    of_runs = [scores.parts or () for scores in runs.values()]
    rows = [
        (every[0].name, every[0].images, [(part.miou, part.classes_averaged) for part in every])
        for every in zip(*of_runs, strict=True)
    ]
    return list(runs), rows


def rule_text(rule: IoUDecision) -> str:
    """``expected mIoU 43.6 -> 47.4 (1,048,576 pixels, without labels), settled in 12 rounds``; with labels no
    ``expected``, and without the plain argmax where posteriors do not tell it."""
    labelled = rule.counts == "labels"
    on = f"{rule.pixels:,} pixels, {'with' if labelled else 'without'} labels"
    settled = f"{'' if rule.settled else 'not '}settled in {rule.rounds} round{'' if rule.rounds == 1 else 's'}"
    before = "" if rule.plain_score is None else f"{percent(rule.plain_score)} -> "
    gained = f"{'' if labelled else 'expected '}mIoU {before}{percent(rule.score)} ({on})"
    return f"{gained}, {settled}"


def calibration_text(before: tuple[float, float, float], after: tuple[float, float, float]) -> str:
    """``ECE 6.1 -> 1.9 %, classwise ECE 1.2 -> 0.5 %, NLL 0.512 -> 0.431`` of (ece, classwise ece, nll) each."""
    (ece, classwise, nll), (ece_now, classwise_now, nll_now) = before, after
    of_classes = f"classwise ECE {percent(classwise)} -> {percent(classwise_now)} %"
    return f"ECE {percent(ece)} -> {percent(ece_now)} %, {of_classes}, NLL {nll:.3f} -> {nll_now:.3f}"


def interval_text(row: Interval) -> str:
    """``46.4 [44.1, 48.2]``; ``46.4`` where there is no interval."""
    interval = "" if row.low is None else f" [{percent(row.low)}, {percent(row.high)}]"
    return percent(row.estimate) + interval


def classes_in_mean(row: RankedSetting, protocol: str) -> int:
    """How many classes the mean IoU of a row of the ranking is over."""
    known = sum(found.estimate is not None for found in row.classes)
    return PROTOCOLS[protocol].classes_averaged(known, len(row.classes))


def comparison_mean(comparison: Comparison) -> str:
    """``over 10 of 11 classes (protocol cityscapes)``, ``over 10 to 11`` where the settings differ."""
    averaged = [classes_in_mean(row, comparison.protocol) for row in comparison.ranking]
    fewest, most = min(averaged), max(averaged)
    several = fewest if fewest == most else f"{fewest} to {most}"
    return mean_text(several, len(comparison.ranking[0].classes), comparison.protocol)


def interval_source(comparison: Comparison) -> str:
    """``95 % intervals by a jackknife over blocks of 38 consecutive images, chosen from the data: ...``, or why not."""
    means = [row.miou for row in comparison.ranking]
    if all(row.estimate is None for row in means):
        absent = PROTOCOLS[comparison.protocol].absent
        return "no mean, as a class is absent" if absent is not None and math.isnan(absent) else "no mean"
    blocks = "single images" if comparison.block == 1 else f"blocks of {comparison.block} consecutive images"
    blocks += ", chosen from the data" if comparison.block_chosen else ""
    if all(row.low is None for row in means):
        return f"{next(row.why for row in means if row.estimate is not None)} ({blocks})"
    covered = [row.seeds for row in comparison.ranking]
    of_seeds = "other seeds" if all(covered) else "not other seeds"
    of_seeds = of_seeds if all(covered) or not any(covered) else "other seeds where a setting has several runs"
    level = f"{100 * comparison.level:.0f} % intervals"
    return f"{level} by a jackknife over {blocks}: what other images may give, {of_seeds}"


def is_level(pair: Pair) -> bool:
    """Whether a difference is 0 in the digits that are shown."""
    return percent(pair.miou.estimate) == "0.0"


def p_text(pair: Pair) -> str:
    """``p 0.012``, ``p < 0.001``, and whether that is of images only; empty where there is no interval."""
    if pair.p_value is None:
        return ""
    size = "p < 0.001" if pair.p_value < 0.001 else f"p {pair.p_value:.3f}"
    return size if pair.seeds else f"{size}, images only"


def pair_text(pair: Pair) -> str:
    """``A - B: 3.2 [2.8, 3.5] points, p 0.012``."""
    text = f"{pair.a} - {pair.b}: {interval_text(pair.miou)} points"
    said = "level" if is_level(pair) else p_text(pair)
    return f"{text}, {said}" if said else text


def own_intervals(runs: Mapping[str, RunScores], comparison: Comparison) -> dict[str, Interval]:
    """Run -> its mean with interval, where the ranking holds just that: one run on all of the images it saw."""
    alone = {row.members[0]: row.miou for row in comparison.ranking if len(row.members) == 1}
    return {name: mean for name, mean in alone.items() if runs[name].images == comparison.images}


def answer(comparison: Comparison) -> str:
    """One sentence: which is best, and how sure that is."""
    best, *others = comparison.ranking
    text = f"{best.name}: mIoU {interval_text(best.miou)} {comparison_mean(comparison)}"
    if not others:
        return text + "."
    pair = next(row for row in comparison.pairs if row.b == others[0].name and row.a == best.name)
    return f"{text}, {standing(pair, interval_source(comparison))}."


def standing(pair: Pair, intervals: str) -> str:
    """How the better of a pair stands to the other; ``intervals`` says why, where there is no interval."""
    found, difference = pair.miou, f"{interval_text(pair.miou)} points"
    if found.estimate is None:
        return f"not to be compared with {pair.b}: one of the two has no mean"
    if is_level(pair):
        return f"level with {pair.b}: {difference}" + (f" ({intervals})" if found.low is None else "")
    ahead = f"ahead of {pair.b} by {difference}"
    if found.low is None or found.high is None:
        return f"{ahead} ({intervals})"
    sure = found.low > 0 or found.high < 0
    verdict = "the interval of the difference leaves out 0" if sure else "the difference could be chance"
    other = "" if pair.seeds or not sure else "; other seeds are another matter"
    return f"{ahead}: {verdict} ({p_text(pair)}){other}"


def percent(ratio: float | None) -> str:
    """``45.9``, or a dash where there is no number."""
    return "-" if ratio is None or math.isnan(ratio) else f"{round(100 * ratio, 1) + 0.0:.1f}"  # + 0: no "-0.0"


def place_shares(at: Mapping[str, int]) -> str:
    """``61 % at boundaries, 22 % in small or thin parts, 17 % inside`` of wrong pixels by place.

    >>> place_shares({"at boundaries": 3, "inside": 1})
    '75 % at boundaries, 25 % inside'
    """
    wrong = max(1, sum(at.values()))
    return ", ".join(f"{100 * pixels / wrong:.0f} % {place}" for place, pixels in at.items())
