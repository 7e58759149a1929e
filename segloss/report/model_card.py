"""The model card of a run that is given away: Markdown with the front matter that Hugging Face's hub reads."""

import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from segloss.decisions import Decision
from segloss.flags import keys_of
from segloss.hub import CONFIG, SHORTENED, WEIGHTS
from segloss.losses import LOSS_OPTIONS
from segloss.models import parameter_count
from segloss.report.kept_scores import KeptScores
from segloss.report.wording import interval_text, mean_text, percent, rule_text
from segloss.runs import Run

FEW_IMAGES = 10  # of a class in training, below which the card says so
# What a run was trained with, where it is not the default; the rest of its options are in config.json.
TOLD = (
    *("encoder_weights", "init_from", "image_scale", "crop_size", "epochs", "batch_size", "optimizer", "lr"),
    *("schedule", "ema", "swa_share", "color", "mix", "guided_crops", "repeat_threshold", "late_jaccard"),
    *("bias_init", "score_units"),
)
ALWAYS_TOLD = ("epochs", "batch_size", "lr", "image_scale")


def model_card(run: Run, scores: Sequence[KeptScores], name: str) -> str:
    """The card of a run of that name; ``scores``: those of its weights, the most telling first."""
    parts = [
        f"---\n{yaml.safe_dump(front_matter(run, scores, name), sort_keys=False, allow_unicode=True)}---",
        f"# {plain(name)}",
        _what(run),
        f"## Use\n\n{_use(run)}",
        f"## How it decides\n\n{_decision(run)}",
        f"## Scores\n\n{_scores(scores)}",
        f"## Classes\n\n{_classes(run, scores)}",
        f"## Training\n\n{_training(run)}",
        f"## Limits\n\n{_limits(run, scores)}",
    ]
    return "\n\n".join(parts) + "\n"


def front_matter(run: Run, scores: Sequence[KeptScores], name: str) -> dict[str, Any]:
    """What the hub reads: library, task, tags and, where there are scores, the results of the model index."""
    tags = ["segloss", "semantic-segmentation", "image-segmentation", "pytorch", run.config.arch, run.config.loss]
    content: dict[str, Any] = {"library_name": "segloss", "pipeline_tag": "image-segmentation", "tags": tags}
    if scores:
        content |= {"metrics": ["mean_iou", "accuracy"], "model-index": [_index(run, scores, name)]}
    return content


def _index(run: Run, scores: Sequence[KeptScores], name: str) -> dict[str, Any]:
    results = []
    for kept in scores:
        of = kept.scores
        mean = f"mIoU {mean_text(of.classes_averaged, len(of.classes), of.protocol)}, {kept.how}"
        if kept.miou.low is not None and kept.miou.high is not None:
            mean += f", 95 % interval {kept.miou.low:.3f} to {kept.miou.high:.3f}"
        metrics = [
            {"type": kind, "value": round(value, 4), "name": text}
            for kind, value, text in (
                ("mean_iou", of.miou, mean),
                ("mean_accuracy", of.mean_accuracy, f"mean accuracy of the classes, {kept.how}"),
                ("accuracy", of.pixel_accuracy, f"pixel accuracy, {kept.how}"),
            )
            if value is not None
        ]
        data, _, split = kept.where.rpartition(" ")
        task = {"type": "image-segmentation", "name": "Semantic segmentation"}
        results.append({"task": task, "dataset": {"type": data, "name": data, "split": split}, "metrics": metrics})
    return {"name": name, "results": [result for result in results if result["metrics"]]}


def _what(run: Run) -> str:
    size = parameter_count(run.model) / 1e6
    network = f"{run.config.arch} with encoder {run.config.encoder}, {size:.1f} million parameters"
    return (
        f"Semantic segmentation of images ({run.bands.describe()}) into {len(run.classes)} classes: {network}, "
        f"trained with segloss by the loss `{run.config.loss}`."
    )


def _use(run: Run) -> str:
    decision = ', "auto"' if run.kept.decision is not None else ""
    return f"""```python
from pathlib import Path

import segloss
from segloss.datasets.bands import read_bands

run = segloss.load_run("hf:OWNER/NAME")  # or the folder that holds this file
image, _ = read_bands(Path("image.png"), run.bands)
class_map = run.predict(image{decision})  # class numbers (H, W), in the order of the table below
```

`pip install "segloss-imbalanced[train]"` brings what it needs. Of this folder `{CONFIG}` and `{WEIGHTS}` are read:
text and numbers, no pickle, checked against each other by SHA-256. The weights have the fingerprint `{run.weights}`.
`run.scores(image)` gives the scores as they are, `run.posterior(images)` probabilities;
`python -m segloss.demo FOLDER` is a page to try it on, `python -m segloss.export --checkpoint FOLDER` writes ONNX."""


def _decision(run: Run) -> str:
    decision, kept = run.kept.decision, run.kept
    if decision is None:
        lines = ["By the largest score, the plain argmax; nothing else was fitted to these weights."]
    elif decision == Decision():
        lines = ['By the largest score, the plain argmax, which `"auto"` means here.']
    elif decision.rule == "iou":
        rule = "argmax of a_c P(c given x) - b_c, fitted for mean IoU"
        lines = [f'`"auto"` is the rule for mean IoU: {rule}. Without it: the largest score.']
    else:
        lines = [f'`"auto"` is {decision}, chosen on labels; without it: the largest score.']
    if kept.rule is not None:
        lines.append(f"The rule for mean IoU: {rule_text(kept.rule)}.")
    if kept.calibration is not None:
        temperature = f"{kept.calibration.temperature:.3g}"
        lines.append(f"Probabilities are calibrated, by temperature {temperature} and class biases.")
    if run.criterion.tilt is not None:
        lines.append("The loss tilts the scores: their softmax is no probability, `run.posterior` takes the tilt out.")
    return "\n".join(lines)


def _scores(scores: Sequence[KeptScores]) -> str:
    if not scores:
        return "None came with the run."
    head = ["split", "images", "decision", "mIoU", "mean accuracy", "pixel accuracy", "calibration error"]
    rows = [
        [
            plain(kept.where),
            f"{kept.scores.images}",
            kept.how,
            interval_text(kept.miou),
            percent(kept.scores.mean_accuracy),
            percent(kept.scores.pixel_accuracy),
            percent(kept.scores.calibration.ece) if kept.scores.calibration else "–",
        ]
        for kept in scores
    ]
    protocols = ", ".join(
        dict.fromkeys(mean_text(of.classes_averaged, len(of.classes), of.protocol) for of in (k.scores for k in scores))
    )
    sources = list(dict.fromkeys(kept.source for kept in scores if kept.source))
    said = "; ".join(sources) or "no intervals: `eval_seg.py` makes them"
    return f"{table(head, rows)}\n\nIn percent, the mean IoU {protocols}; {said}."


def _classes(run: Run, scores: Sequence[KeptScores]) -> str:
    counts, total = run.counts, max(1, sum(run.counts.pixels))
    values = getattr(run.criterion, "label_values", None)
    head = ["class", "name", "color", "id in masks", "share of training pixels", "training images"]
    head += ["label value"] if values is not None else []
    head += [f"IoU, {plain(scores[0].where)}, {scores[0].how}"] if scores else []
    rows = []
    for c, name in enumerate(run.classes.names):
        color = "#{:02x}{:02x}{:02x}".format(*run.classes.colors[c])
        share = 100 * counts.pixels[c] / total
        row = [str(c), plain(name), f"`{color}`", str(run.classes.ids[c]), f"{share:.3g} %", str(counts.images[c])]
        row += [f"{float(values[c]):.3g}"] if values is not None else []
        row += [percent(scores[0].scores.classes[c].iou)] if scores else []
        rows.append(row)
    return table(head, rows)


def _training(run: Run) -> str:
    counts, config = run.counts, run.config
    data = f"{plain(counts.dataset or config.dataset)}, split {plain(counts.split or 'train')}"
    lines = [f"Data: {data}, {counts.image_count:,} images, {sum(counts.pixels):,} labelled pixels."]
    if run.config.fold is not None:
        lines.append(f"Fold {config.fold} of train and val together was left out.")
    options = [
        f"`{key.flag} {_words(key.name, key.of(config))}`"
        for key in keys_of(type(config))
        if (key.name in ALWAYS_TOLD)
        or (key.name in (*TOLD, *LOSS_OPTIONS) and key.of(config) != key.option.default and key.of(config) is not None)
    ]
    lines.append(f"Options: `--loss {shlex.quote(config.loss)}` {' '.join(options)}; all of them are in `{CONFIG}`.")
    if config.dataset == "synthetic":
        lines.append("**Made-up streets, drawn by a program: good for trying things out, never evidence.**")
    return "\n".join(f"- {line}" for line in lines)


def _limits(run: Run, scores: Sequence[KeptScores]) -> str:
    counts = run.counts
    lines = ["Other cameras, places, seasons or ways to label than those of the training images were not tried."]
    absent = [plain(name) for name, n in zip(run.classes.names, counts.images, strict=True) if n == 0]
    few = [plain(name) for name, n in zip(run.classes.names, counts.images, strict=True) if 0 < n < FEW_IMAGES]
    if absent:
        lines.append(f"Never seen in training: {', '.join(absent)}.")
    if few:
        lines.append(f"In fewer than {FEW_IMAGES} training images: {', '.join(few)}.")
    worst = scores[0].scores.worst_class if scores else None
    if worst is not None:
        lines.append(f"Worst class on {plain(scores[0].where)}: {plain(worst.name)}, IoU {percent(worst.iou)}.")
    if run.config.image_scale != 1:
        lines.append(f"It sees images at {run.config.image_scale:g} of their size, so it misses what is thin.")
    lines.append("Every pixel gets a class of the table, whatever the image shows.")
    lines.append(
        "No licence is given here, and that of the data may bind the weights: add `license:` to this file's head."
    )
    return "\n".join(f"- {line}" for line in lines)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def plain(text: str) -> str:
    """The text as it reads in Markdown, without markup and line breaks of its own."""
    return re.sub(r"([\\`*_{}\[\]<>#|!~])", r"\\\1", " ".join(text.split()))


def _words(name: str, value: Any) -> str:
    """A value as a command line takes it, of files their names."""
    parts = value if isinstance(value, tuple | list) else [Path(value).name if name in SHORTENED else value]
    return " ".join(f"{part:g}" if isinstance(part, float) and math.isfinite(part) else str(part) for part in parts)
