"""Scores and comparisons written by hand in the form of docs/metrics.md, for what is printed, written and shown."""


def metrics(**changes) -> dict:
    """One run's scores by the schema: three classes, the last in neither truth nor prediction."""
    ratios = {"iou": 0.5, "recall": 0.6, "precision": 0.7, "f1": 0.8}
    absent = dict.fromkeys(ratios)
    return {
        "dataset": "camvid",
        "split": "test",
        "images": 9,
        "ignored_pixels": 5,
        "unknown_predictions": 0,
        "protocol": "cityscapes",
        "miou": 0.5,
        "mean_accuracy": 0.6,
        "pixel_accuracy": 0.7,
        "frequency_weighted_iou": 0.65,
        "classes_averaged": 2,
        "classes": [
            {"name": "wall", **ratios, "pixels": 90, "images": 9},
            {"name": "lamp", **ratios, "pixels": 10, "images": 3},
            {"name": "ghost", **absent, "pixels": 0, "images": 0},
        ],
        "groups": {
            "by_pixels_of": "training",
            **{name: {"classes": ["wall"], "miou": 0.5} for name in ("head", "middle", "tail")},
        },
        **changes,
    }


def spread(estimate, low=None, high=None) -> dict:
    return {"estimate": estimate, "low": low, "high": high}


def comparison(a=0.5, b=0.4, interval=(0.05, 0.15), leads: float | None = 0.99, **changes) -> dict:
    """Two settings of one run each."""
    low, high = interval
    classes = [spread(0.5, low, high), spread(0.4, low, high), spread(None)]
    means = {name: spread(value, low and value - 0.02, high and value + 0.02) for name, value in (("A", a), ("B", b))}
    rows = [{"name": n, "runs": 1, "members": [n], "miou": mean, "classes": classes} for n, mean in means.items()]
    pair = {"a": "A", "b": "B", "miou": spread(a - b, low, high), "classes": classes, "a_leads": leads}
    form = {"level": 0.95, "block": 1, "resamples": 2000, "protocol": "cityscapes", "images": 9}
    return {**form, "ranking": rows, "pairs": [pair], **changes}
