"""Scores and comparisons written by hand as the JSON of docs/metrics.md, for what is printed, written and shown."""

from segloss.evaluation.intervals import WHY_NONE
from segloss.schema import Comparison, RunScores


def metrics(*, boundary_ious=(), **changes) -> RunScores:
    """One run's scores: three classes, the last in neither truth nor prediction."""
    ratios = {"iou": 0.5, "recall": 0.6, "precision": 0.7, "f1": 0.8}
    absent = dict.fromkeys(ratios)
    classes = [
        {"name": "wall", **ratios, "pixels": 90, "images": 9},
        {"name": "lamp", **ratios, "pixels": 10, "images": 3},
        {"name": "ghost", **absent, "pixels": 0, "images": 0},
    ]
    for row, ratio in zip(classes, boundary_ious, strict=bool(boundary_ious)):
        row["boundary_iou"] = ratio
    content = {
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
        "classes": classes,
        "groups": {
            "by_pixels_of": "training",
            **{name: {"classes": ["wall"], "miou": 0.5} for name in ("head", "middle", "tail")},
        },
    }
    return RunScores.from_json({**content, **changes})


def spread(estimate, low=None, high=None) -> dict:
    why = {} if low is not None else {"why": WHY_NONE["few blocks" if estimate is not None else "absent"]}
    return {"estimate": estimate, "low": low, "high": high, **why}


def comparison(a=0.5, b=0.4, interval=(0.05, 0.15), p: float | None = 0.01, change=None, **changes) -> Comparison:
    """Two settings of one run each; ``change`` gets the JSON and may change it."""
    low, high = interval
    classes = [spread(0.5, low, high), spread(0.4, low, high), spread(None)]
    means = {name: spread(value, low and value - 0.02, high and value + 0.02) for name, value in (("A", a), ("B", b))}
    rows = [{"name": n, "runs": 1, "members": [n], "miou": mean, "classes": classes} for n, mean in means.items()]
    pair = {"a": "A", "b": "B", "miou": spread(a - b, low, high), "classes": classes, "p_value": p}
    form = {"level": 0.95, "block": 1, "protocol": "cityscapes", "images": 9}
    content = {**form, "ranking": rows, "pairs": [pair], **changes}
    if change is not None:
        change(content)
    return Comparison.from_json(content)
