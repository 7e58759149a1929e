"""Scores and comparisons in words, the same in the terminal, on the page and in pictures. Percent here and in plots."""

import numpy as np


def scored_how(metrics: dict) -> list[str]:
    """What differs from plain scoring: ``["prior 0.5", "TTA scales 0.75 1", "TTA flip", "image scale 0.5"]``."""
    decision, scale = metrics.get("decision", "tau 1"), metrics.get("image_scale", 1)
    precision, views = metrics.get("precision", "32-true"), metrics.get("views", {})
    scales, tile = views.get("tta_scales") or [1], views.get("tile")
    said = {
        f"{decision}": decision != "tau 1",
        f"TTA scales {' '.join(f'{factor:g}' for factor in scales)}": list(scales) != [1],
        "TTA flip": views.get("tta_flip", False),
        f"tile {'x'.join(map(str, tile or ()))}, overlap {views.get('tile_overlap', 0.5):g}": tile is not None,
        f"image scale {scale:g}": scale != 1,
        f"precision {precision}": precision != "32-true",
    }
    return [text for text, differs in said.items() if differs]


def title_of(name: str, metrics: dict) -> str:
    """``ce on camvid test: 233 images, tau 0.5``."""
    where = f" on {metrics['dataset']} {metrics['split']}" if "dataset" in metrics else ""
    skipped = [f"{len(metrics['skipped'])} left out"] if metrics.get("skipped") else []
    return f"{name}{where}: " + ", ".join([f"{metrics['images']} images", *skipped, *scored_how(metrics)])


def unknown_share(metrics: dict) -> float:
    """Of the valid pixels, the share that was predicted as no class."""
    return metrics["unknown_predictions"] / max(1, sum(row["pixels"] for row in metrics["classes"]))


def unknown_text(metrics: dict) -> str:
    """``predicted as no class: 1,200 pixels (0.31 %)``; empty where there are none."""
    unknown, share = metrics["unknown_predictions"], unknown_share(metrics)
    return f"predicted as no class: {unknown:,} pixels ({100 * share:.3g} %)" if unknown else ""


def mean_text(averaged: int | str, classes: int, protocol: str) -> str:
    """``over 10 of 11 classes (protocol cityscapes)``: what a mean IoU is the mean of."""
    return f"over {averaged} of {classes} classes (protocol {protocol})"


def summary_lines(metrics: dict) -> list[str]:
    """``mIoU 45.9 over 11 of 11 classes (protocol cityscapes), mean accuracy 58.4`` and what else was counted."""
    averaged = mean_text(metrics["classes_averaged"], len(metrics["classes"]), metrics["protocol"])
    lines = [
        f"mIoU {percent(metrics['miou'])} {averaged}, mean accuracy {percent(metrics['mean_accuracy'])}, "
        f"pixel accuracy {percent(metrics['pixel_accuracy'])}, frequency-weighted IoU "
        f"{percent(metrics['frequency_weighted_iou'])}"
    ]
    groups = ", ".join(f"{key} {percent(metrics['groups'][key]['miou'])}" for key in ("head", "middle", "tail"))
    worst = metrics.get("worst_class")
    lines.append(f"mIoU of {groups}" + (f"; worst class {worst['name']} {percent(worst['iou'])}" if worst else ""))
    if "categories" in metrics:
        of_each = ", ".join(f"{name} {percent(iou)}" for name, iou in metrics["categories"]["iou"].items())
        lines.append(f"category mIoU {percent(metrics['categories']['miou'])}: {of_each}")
    if "boundary_miou" in metrics:
        lines.append(f"boundary mIoU {percent(metrics['boundary_miou'])}")
    if "calibration" in metrics:
        found = metrics["calibration"]
        lines.append(f"calibration error {percent(found['ece'])} %, Brier score {found['brier']:.3f}")
    if unknown_text(metrics):
        lines.append(unknown_text(metrics))
    return lines


def interval_text(row: dict) -> str:
    """``46.4 [44.1, 48.2]``; ``46.4`` where there is no interval."""
    interval = "" if row["low"] is None else f" [{percent(row['low'])}, {percent(row['high'])}]"
    return percent(row["estimate"]) + interval


def classes_in_mean(row: dict, protocol: str) -> int:
    """How many classes the mean IoU of a row of the ranking is over."""
    absent_count_too = protocol in ("torchvision", "segnet", "smp")
    return sum(absent_count_too or found["estimate"] is not None for found in row["classes"])


def comparison_mean(comparison: dict) -> str:
    """``over 10 of 11 classes (protocol cityscapes)``, ``over 10 to 11`` where the settings differ."""
    protocol, ranking = comparison["protocol"], comparison["ranking"]
    averaged = [classes_in_mean(row, protocol) for row in ranking]
    fewest, most = min(averaged), max(averaged)
    return mean_text(fewest if fewest == most else f"{fewest} to {most}", len(ranking[0]["classes"]), protocol)


def interval_source(comparison: dict) -> str:
    """``95 % intervals from 2000 resamples of blocks of 5 consecutive images``, or why there are none."""
    means = [row["miou"] for row in comparison["ranking"]]
    if all(row["estimate"] is None for row in means):
        return "no mean, as a class is absent" if comparison["protocol"] == "torchvision" else "no mean"
    if all(row["low"] is None for row in means):
        return "no interval: all images are one block"
    blocks = "single images" if comparison["block"] == 1 else f"blocks of {comparison['block']} consecutive images"
    seeds = " and of each setting's runs" if any(row["runs"] > 1 for row in comparison["ranking"]) else ""
    return f"{100 * comparison['level']:.0f} % intervals from {comparison['resamples']} resamples of {blocks}{seeds}"


def is_level(pair: dict) -> bool:
    """Whether a difference is 0 in the digits that are shown."""
    return percent(pair["miou"]["estimate"]) == "0.0"


def pair_text(pair: dict) -> str:
    """``A - B: 3.2 [2.8, 3.5] points, ahead in 100.0 %``."""
    text = f"{pair['a']} - {pair['b']}: {interval_text(pair['miou'])} points"
    if is_level(pair):
        return f"{text}, level"
    return text if pair["a_leads"] is None else f"{text}, ahead in {percent(pair['a_leads'])} %"


def own_intervals(metrics: dict[str, dict], comparison: dict) -> dict[str, dict]:
    """Run -> its mean with interval, where the ranking holds just that: one run on all of the images it saw."""
    alone = {row["members"][0]: row["miou"] for row in comparison["ranking"] if len(row["members"]) == 1}
    return {name: mean for name, mean in alone.items() if metrics[name]["images"] == comparison["images"]}


def answer(comparison: dict) -> str:
    """One sentence: which is best, and how sure that is."""
    best, *others = comparison["ranking"]
    text = f"{best['name']}: mIoU {interval_text(best['miou'])} {comparison_mean(comparison)}"
    if not others:
        return text + "."
    pair = next(row for row in comparison["pairs"] if row["b"] == others[0]["name"] and row["a"] == best["name"])
    return f"{text}, {standing(pair, interval_source(comparison))}."


def standing(pair: dict, intervals: str) -> str:
    """How the better of a pair stands to the other; ``intervals`` says why, where there is no interval."""
    found, difference = pair["miou"], f"{interval_text(pair['miou'])} points"
    if found["estimate"] is None:
        return f"not to be compared with {pair['b']}: one of the two has no mean"
    if is_level(pair):
        return f"level with {pair['b']}: {difference}" + (f" ({intervals})" if found["low"] is None else "")
    ahead = f"ahead of {pair['b']} by {difference}"
    if found["low"] is None:
        return f"{ahead} ({intervals})"
    sure = found["low"] > 0 or found["high"] < 0
    verdict = "the interval of the difference leaves out 0" if sure else "the difference could be chance"
    return f"{ahead}: {verdict} (ahead in {percent(pair['a_leads'])} % of the resamples)"


def percent(ratio: float | None) -> str:
    """``45.9``, or a dash where there is no number."""
    return "-" if ratio is None or np.isnan(ratio) else f"{round(100 * ratio, 1) + 0.0:.1f}"  # + 0: no "-0.0"
