"""Class statistics of the splits of a data set, and what every recipe would make of them.

python -m segloss.frequency --dataset camvid --data-path DIR --split train val test --recipes --json classes.json
"""

from collections.abc import Sequence

from torch import Tensor

from segloss.frequency import PixelCounts
from segloss.losses import CLASS_WEIGHTS, LABEL_VALUES, class_ranks, class_weights_from_counts, label_values_from_counts


def cooccurrence(histograms: Tensor) -> Tensor:
    """Images that hold both of two classes, int64 ``(C, C)``, from :func:`segloss.frequency.image_histograms`.

    The diagonal is the number of images that hold the class.
    """
    present = (histograms[:, :-1] > 0).double()  # a product of floats: exact up to 2^53 images
    return (present.T @ present).long()


def every_recipe(counts: PixelCounts, *, alpha: float = 1.0, power: float = 0.5) -> dict[str, dict[str, list[float]]]:
    """Label values and class weights by every recipe, one number per class each."""
    values = {
        recipe: label_values_from_counts(counts.pixels, alpha=alpha, label_values=recipe, power=power)
        for recipe in LABEL_VALUES
    }
    weights = {
        recipe: class_weights_from_counts(counts.pixels, recipe, pixels_of_images=counts.pixels_of_images)
        for recipe in CLASS_WEIGHTS
    }
    return {
        "label_values": {recipe: numbers.tolist() for recipe, numbers in values.items()},
        "class_weights": {recipe: numbers.tolist() for recipe, numbers in weights.items()},
    }


def split_statistics(counts: PixelCounts, histograms: Tensor) -> dict:
    """Pixels, images, share and rank of each class of a split, and which classes share images; plain values."""
    total = max(1, sum(counts.pixels))
    return {
        "images": counts.image_count,
        "ignored_pixels": counts.ignored_pixels,
        "pixels": list(counts.pixels),
        "share": [pixels / total for pixels in counts.pixels],
        "images_with_class": list(counts.images),
        "rank": class_ranks(counts.pixels).tolist(),
        "cooccurrence": cooccurrence(histograms).tolist(),
    }


def class_statistics(splits: Sequence[tuple[PixelCounts, Tensor]], *, alpha: float = 1.0, power: float = 0.5) -> dict:
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
