"""Class statistics of the splits of a data set, and what every recipe would make of them.

python -m segloss.frequency --dataset camvid --data-path DIR --split train val test --recipes --json classes.json

Started by torchrun or another launcher, each process reads a share of the masks.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from segloss.config import FrequencyConfig
from segloss.datasets.bands import choose_bands
from segloss.datasets.base import require_same_classes
from segloss.doctor.examination import check_histograms
from segloss.errors import InputError
from segloss.files import write_json
from segloss.flags import parse_config
from segloss.losses import CLASS_WEIGHTS, LABEL_VALUES, class_ranks, class_weights_from_counts, label_values_from_counts
from segloss.losses.label_values import names_recipe
from segloss.pixel_counts import PixelCounts, counts_of, image_histograms
from segloss.ranks import here


def cooccurrence(histograms: Tensor) -> Tensor:
    """Images that hold both of two classes, int64 ``(C, C)``, from :func:`segloss.pixel_counts.image_histograms`.

    The diagonal is the number of images that hold the class.
    """
    present = (histograms[:, :-1] > 0).double()  # a product of floats: exact up to 2^53 images
    return (present.T @ present).long()


def every_recipe(counts: PixelCounts, *, alpha: float = 1.0, power: float = 0.5) -> dict[str, dict[str, list[float]]]:
    """Label values and class weights by every recipe, one number per class each."""
    values = {
        recipe: label_values_from_counts(
            counts, alpha=alpha, label_values=recipe, power=power if names_recipe(recipe, "power") else None
        )
        for recipe in LABEL_VALUES
    }
    weights = {recipe: class_weights_from_counts(counts, recipe) for recipe in CLASS_WEIGHTS}
    return {
        "label_values": {recipe: numbers.tolist() for recipe, numbers in values.items()},
        "class_weights": {recipe: numbers.tolist() for recipe, numbers in weights.items()},
    }


def split_statistics(counts: PixelCounts, histograms: Tensor) -> dict[str, Any]:
    """Pixels, images, share and rank of each class of a split, and which classes share images; plain values.

    Share and rank are as if every image labelled all classes.
    """
    complete = counts.complete.pixels
    total = max(1, sum(complete))
    return {
        "images": counts.image_count,
        "ignored_pixels": counts.ignored_pixels,
        "pixels": list(counts.pixels),
        "share": [pixels / total for pixels in complete],
        "images_with_class": list(counts.images),
        "images_labelled": list(counts.labelled_images or [counts.image_count] * len(counts.pixels)),
        "rank": class_ranks(counts).tolist(),
        "cooccurrence": cooccurrence(histograms).tolist(),
    }


def class_statistics(
    splits: Sequence[tuple[PixelCounts, Tensor]], *, alpha: float = 1.0, power: float = 0.5
) -> dict[str, Any]:
    """Statistics of every split; recipes from the first.

    Args:
        splits: counts and histograms of each.
        alpha, power: of the label values.
    """
    counts = splits[0][0]
    return {
        "dataset": counts.dataset,
        "classes": list(counts.class_names),
        "splits": {counts.split: split_statistics(counts, histograms) for counts, histograms in splits},
        "recipes_from": counts.split,
        **every_recipe(counts, alpha=alpha, power=power),
    }


def main(argv: list[str] | None = None) -> None:
    """``python -m segloss.frequency``: print, draw and save the class tables of one or several splits."""
    from segloss.report.terminal import print_class_counts, print_recipes, progress_bar

    config = parse_config(FrequencyConfig, "python -m segloss.frequency", argv)
    datasets = [config.open(split) for split in config.split]
    require_same_classes(datasets)
    choose_bands(datasets, config.channels)  # pixels without data are not counted
    for dataset in datasets:
        if not dataset.has_labels:
            what = f"split {dataset.split!r} has no masks to count"
            raise InputError(what, "leave it out of --split", where=config.dataset)
    splits = []
    for dataset in datasets:
        histograms, source = image_histograms(dataset, progress=progress_bar(f"counting {dataset.split}"))
        if not histograms[:, :-1].any():
            what = f"split {dataset.split!r} has no labelled pixel"
            raise InputError(what, "leave it out of --split", where=config.dataset)
        check_histograms(dataset, histograms.numpy(), has_switch=False)
        if here().rank == 0:
            splits.append((counts_of(dataset, histograms), histograms, source))
    if here().rank:
        return
    counts, options = splits[0][0], config.label_value_options
    try:
        values = label_values_from_counts(
            counts,
            alpha=options["alpha"],
            label_values=options["label_values"],
            power=options["label_power"] if names_recipe(options["label_values"], "power") else None,
        )
        pairs = [(of_split, histograms) for of_split, histograms, _ in splits]
        statistics = class_statistics(pairs, alpha=options["alpha"], power=options["label_power"])
    except ValueError as error:
        raise InputError(str(error), where=f"{config.dataset} {counts.split}") from error
    for place, (dataset, (of_split, _, source)) in enumerate(zip(datasets, splits, strict=True)):
        print(f"form: {dataset.found.form}")
        print_class_counts(of_split, values if place == 0 else None, source)
    if config.recipes:
        print_recipes(statistics)
    _write_outputs(config, statistics, values.tolist(), datasets[0].classes.colors)


def _write_outputs(
    config: FrequencyConfig, statistics: dict[str, Any], values: Sequence[float], colors: Sequence[Sequence[int]]
) -> None:
    from segloss.report.plots import plot_class_counts

    for flag, path in (("json", config.json), ("output", config.output)):
        if path is None:
            continue
        try:
            if flag == "json":
                write_json(Path(path), statistics)
            else:
                plot_class_counts(statistics, values, colors, Path(path))
        except OSError as error:
            raise InputError(f"--{flag} {path} cannot be written: {error.strerror}") from error
        print(f"{'statistics' if flag == 'json' else 'picture'}: {path}")
