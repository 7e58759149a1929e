"""Why it works, in pictures of numbers: docs/why.md. Networks are looked at, and only small perceptrons trained.

    python benchmarks/why.py --runs RUNS/camvid-ce-s0 RUNS/camvid-weighted_ce-s0 RUNS/camvid-power075-s0
    python benchmarks/why.py --digits   # what needs no run
    python benchmarks/why.py --histories docs/evidence/camvid-long-ce-s0.json RUNS/camvid-long-rank-s0   # rows or runs

Writes docs/why-*.png and prints the numbers: the posterior read from scores against how often it is right, on images
that were trained on and on others (why-posterior.png); recall by the width of what is to be found (why-width.png);
recall of each class of long-tailed digits by step, for label values of several exponents p and class weights of
several exponents q (why-when.png); IoU of each class on val by epoch (why-epochs.png).
"""

from pathlib import Path

import cv2
import matplotlib
import numpy as np
import torch
from command import parser_of

from segloss.errors import InputError, exit_on_input_error

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from evidence import title_of
from evidence_runs import history_of, read_row
from long_tailed import CLASSES, split_of
from torch import Tensor, nn

from segloss.inference import infer_dataset
from segloss.losses import Criterion, CrossEntropyLoss, OutlyingMSELoss
from segloss.plan.fingerprint import CRUMB
from segloss.runs import Run, load_run

DOCS = Path(__file__).resolve().parent.parent / "docs"
BINS = 10
WIDTHS = np.array([1, 2, 3, 4, 6, 8, 12, 24, 1000.0])  # pixels, from which the next bin begins
SPLITS = ("train", "val", "test")
IMAGES = 40  # of a split, spread evenly
MOST_STEPS, EVERY = 300, 10


def widths_of(mask: np.ndarray) -> np.ndarray:
    """Of each pixel of a mask the width of its component, as in segloss.plan: that of a strip of as many pixels."""
    padded = np.pad(mask.astype(np.uint8), 1)
    count, numbers, stats, _ = cv2.connectedComponentsWithStats(padded, connectivity=8)
    inside = padded > 0
    sums = np.bincount(
        numbers[inside], cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_5)[inside], minlength=count
    )
    areas = np.maximum(stats[:, cv2.CC_STAT_AREA], 1)
    widths = np.where(areas >= CRUMB, np.maximum(1, 4 * sums / areas - 2), 0)
    return (widths[numbers] * inside)[1:-1, 1:-1]


def looked_at(run: Run, split: str) -> dict[str, np.ndarray]:
    """Sums over images: by class and bin of posterior it, hits, pixels; by class and width pixels and those found."""
    from segloss.datasets.transforms import EvalTransform

    dataset = run.config.open(split, EvalTransform(run.config.image_scale))
    num_classes = len(run.classes)
    posterior_sums = np.zeros((num_classes, BINS, 3))
    width_sums = np.zeros((num_classes, len(WIDTHS), 3))  # pixels, found by the plain argmax, found at tau 0
    chosen = np.linspace(0, len(dataset) - 1, min(IMAGES, len(dataset))).round().astype(int)
    for sample, logits in infer_dataset(
        run.model, run.criterion, dataset, chosen.tolist(), device=torch.device("cpu"), batch_size=4
    ):
        labels = sample["labels"].numpy()
        posterior = run.criterion.posterior(logits)[0].numpy()
        decisions = [run.criterion.decide(logits, tau)[0].numpy() for tau in (1.0, 0.0)]
        valid = labels < num_classes
        for c in range(num_classes):
            p, is_class = posterior[c][valid], labels[valid] == c
            bins = np.minimum((p * BINS).astype(int), BINS - 1)
            for column, values in enumerate((p, is_class, None)):
                posterior_sums[c, :, column] += np.bincount(bins, values, minlength=BINS)
            if is_class.any():
                widths = widths_of(labels == c)[labels == c]
                places = np.digitize(widths, WIDTHS) - 1
                kept = places >= 0
                for column, hit in enumerate((None, *(decided[labels == c] == c for decided in decisions))):
                    weights = None if hit is None else hit[kept]
                    width_sums[c, :, column] += np.bincount(places[kept], weights, minlength=len(WIDTHS))
    return {"posterior": posterior_sums, "width": width_sums}


def draw_posterior(found: dict[str, dict[str, dict[str, np.ndarray]]], path: Path) -> None:
    """Reliability of all classes together and of the rarest third, on trained and on other images."""
    figure, axes = plt.subplots(1, len(found), figsize=(4 * len(found), 4), sharey=True, squeeze=False)
    for axis, (name, splits) in zip(axes[0], found.items(), strict=True):
        axis.plot([0, 1], [0, 1], color="gray", linewidth=1)
        for split, color in (("train", "tab:blue"), ("val", "tab:orange"), ("test", "tab:green")):
            sums = splits[split]["posterior"]
            rare = np.argsort(splits["train"]["posterior"][:, :, 1].sum(1))[: -(-len(sums) // 3)]
            for chosen, style, who in ((np.arange(len(sums)), "-", "all classes"), (rare, "--", "rarest third")):
                p, hits, pixels = sums[chosen].sum(0).T
                seen = pixels > 500
                error = abs(p - hits).sum() / pixels.sum()
                axis.plot(p[seen] / pixels[seen], hits[seen] / pixels[seen], style, color=color, marker=".",
                          label=f"{split}, {who}")  # fmt: skip
                print(f"{name} {split}, {who}: mean gap {100 * error:.2f} points, over p >= 0.5: "
                      f"{100 * (p - hits)[BINS // 2 :].sum() / pixels[BINS // 2 :].sum():+.1f}")  # fmt: skip
        axis.set(title=name, xlabel="P(c|x) read from the scores")
    axes[0, 0].set_ylabel("share of these pixels that are c")
    axes[0, 0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def draw_width(found: dict[str, dict[str, dict[str, np.ndarray]]], names: tuple[str, ...], path: Path) -> None:
    """Recall by width on the test split, a line for each class that has thin parts."""
    thin = ("pole", "sign_symbol", "pedestrian", "bicyclist")
    figure, axes = plt.subplots(1, len(found), figsize=(4 * len(found), 3.6), sharey=True, squeeze=False)
    for axis, (run, splits) in zip(axes[0], found.items(), strict=True):
        for name in [name for name in thin if name in names]:
            pixels, plain, natural = splits["test"]["width"][names.index(name)].T
            hits = splits["test"]["posterior"][names.index(name), :, 1]
            above = np.cumsum(hits[::-1])[::-1] / hits.sum()
            print(f"{run} {name}: P(c|x) is above 0.1 at {above[1]:.1%} of its pixels, above 0.2 at {above[2]:.1%}")
            seen = pixels > 300
            (line,) = axis.plot(WIDTHS[seen], plain[seen] / pixels[seen], marker=".", label=f"{name}, plain")
            axis.plot(WIDTHS[seen], natural[seen] / pixels[seen], "--", color=line.get_color(), label=f"{name}, tau 0")
            rows = zip(WIDTHS[seen], pixels[seen], plain[seen], natural[seen], strict=True)
            shown = [f"{width:g}: {a / n:.2f} {b / n:.2f}" for width, n, a, b in rows]
            print(f"{run} {name}: recall plain, tau 0 by width from: {', '.join(shown)}")
        axis.set(title=run, xlabel="width in pixels of the file (half of it is seen)", xscale="log")
        axis.set_xticks(WIDTHS[:-1], [f"{w:g}" for w in WIDTHS[:-1]])
    axes[0, 0].set_ylabel("recall")
    axes[0, 0].legend(fontsize=7, loc="upper left")
    axes[0, 0].set_ylim(-0.03, 1.03)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def learning(criterion: Criterion, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Recall on test of each class, rarest last, and test accuracies plain and at tau 0, every ``EVERY`` steps."""
    images, labels, test_images, test_labels, counts = split_of(seed)
    order = np.argsort(counts)[::-1]
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES))
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    recalls, accuracies = [], []
    for step in range(MOST_STEPS + 1):
        if step % EVERY == 0:
            with torch.no_grad():
                scores = network(test_images)
            predicted = criterion.decide(scores)
            recalls.append([float((predicted == test_labels)[test_labels == int(c)].float().mean()) for c in order])
            right = [criterion.decide(scores, tau) == test_labels for tau in (1.0, 0.0)]
            accuracies.append([float(each.float().mean()) for each in right])
        optimizer.zero_grad()
        criterion(network(images), labels).backward()
        optimizer.step()
    return np.array(recalls), np.array(accuracies)


def criteria_of(counts: Tensor) -> dict[str, Criterion]:
    """Label values n^-p, class weights n^-q, and cross entropy."""

    def power(p: float) -> Tensor:
        return (counts.max() / counts) ** p

    def squared(p: float, q: float = 0.0) -> OutlyingMSELoss:
        return OutlyingMSELoss(power(p), weight=power(q) if q else None, ignore_index=None)

    return {
        "cross entropy": CrossEntropyLoss(ignore_index=None),
        "cross entropy, q 0.5": CrossEntropyLoss(weight=power(0.5), ignore_index=None),
        "cross entropy, q 1": CrossEntropyLoss(weight=power(1), ignore_index=None),
        "squared, p 0": squared(0),
        "squared, p 0.25": squared(0.25),
        "squared, p 0.5": squared(0.5),
        "squared, p 0.75": squared(0.75),
        "squared, p 1": squared(1),
        "squared, rank": OutlyingMSELoss.from_counts(counts, label_values="rank", ignore_index=None),
        "squared, q 0.5": squared(0, 0.5),
        "squared, q 1": squared(0, 1),
        "squared, p 0.5, q 0.5": squared(0.5, 0.5),
    }


def draw_when(seeds: int, path: Path) -> None:
    """The step at which each class is half learnt, mean over seeds; accuracy at tau 1 and tau 0 at the end."""
    names = list(criteria_of(torch.ones(CLASSES)))
    columns = -(-len(names) // 2)
    figure, axes = plt.subplots(2, columns, figsize=(2.4 * columns, 5.6), sharex=True, sharey=True)
    steps = np.arange(0, MOST_STEPS + 1, EVERY)
    for axis, name in zip(axes.flat, names, strict=False):
        runs = [
            learning(criteria_of(torch.tensor(split_of(seed)[4], dtype=torch.float32))[name], seed)
            for seed in range(seeds)
        ]
        recalls, accuracies = (np.mean([run[part] for run in runs], axis=0) for part in (0, 1))
        for rank in range(CLASSES):
            axis.plot(steps, recalls[:, rank], color=plt.get_cmap("viridis")(rank / (CLASSES - 1)))
        half = [next((int(s) for s, r in zip(steps, recalls[:, rank], strict=True) if r >= 0.5), None)
                for rank in range(CLASSES)]  # fmt: skip
        print(f"{name}: step of recall 0.5, frequent to rare: {half}; accuracy plain {accuracies[-1, 0]:.3f}, "
              f"tau 0 {accuracies[-1, 1]:.3f}")  # fmt: skip
        axis.set_title(name, fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("step")
    for axis in axes[:, 0]:
        axis.set_ylabel("recall of a class\n(dark: 90 images, light: 2)")
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def draw_epochs(histories: dict[str, dict[str, list[float]]], path: Path) -> None:
    """IoU of each class on val (plain argmax) by epoch, and the epoch at which a class has half of its best."""
    figure, axes = plt.subplots(1, len(histories), figsize=(4.2 * len(histories), 4.2), sharey=True, squeeze=False)
    for axis, (run, history) in zip(axes[0], histories.items(), strict=True):
        for rank, (name, values) in enumerate(history.items()):
            iou = np.array(values)
            style = {"color": plt.get_cmap("tab20")(rank % 20), "linestyle": "-" if rank < len(history) / 2 else "--"}
            axis.plot(np.arange(1, len(iou) + 1), 100 * iou, label=name, **style)
            half = int(np.argmax(iou >= iou.max() / 2)) + 1
            ends = ", ".join(f"{n} {100 * iou[n - 1]:.0f}" for n in (5, 15, 30, 60) if n <= len(iou))
            print(f"{run} {name}: half of its best from epoch {half}; IoU on val at epoch {ends}")
        axis.set_title(run, fontsize=9)
        axis.set_xlabel("epoch")
    axes[0, 0].set_ylabel("IoU on val, plain argmax (%)")
    axes[0, -1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), title="frequent to rare", title_fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def titled(paths: list[Path]) -> dict[str, Path]:
    """Rows or runs by their titles; of two alike, as seeds of an arm are, each with its place."""
    titles = [title_of(path.name.removesuffix(".json")) for path in paths]
    several = {title for title in titles if titles.count(title) > 1}
    return {f"{t}\n{p}" if t in several else t: p for t, p in zip(titles, paths, strict=True)}


def history_at(path: Path) -> dict[str, list[float]]:
    """IoU on val of each class by epoch, of a row or of a run's folder; InputError where it holds none."""
    if path.is_dir():
        require_run(path)
        return history_of(path)[1]
    history: dict[str, list[float]] | None = read_row(path).get("history")
    if not history:
        raise InputError("is an older row, without history", "give the folder of its run", path)
    return history


def require_run(path: Path) -> None:
    for name in ("history.csv", "pixel_counts.json"):
        if not (path / name).is_file():
            raise InputError(f"is no run: {name} is missing", "give folders that train_seg.py wrote", path)


def main(argv: list[str] | None = None) -> None:
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--runs", nargs="+", type=Path, default=[], metavar="RUN", help="folders: posterior, and recall by width")
    add("--digits", action="store_true", help="when the classes of long-tailed digits are learnt")
    add("--histories", nargs="+", type=Path, default=[], metavar="ROW", help="rows or folders of runs: IoU by epoch")
    add("--seeds", type=int, default=5, metavar="N", help="of --digits: the mean of so many; default: 5")
    add("--output", type=Path, default=DOCS, metavar="DIR", help="folder of the pictures; default: docs")
    add("--suffix", default="", help="of the pictures of --runs and --histories: =-long writes why-width-long.png")
    args = parser.parse_args(argv)
    if not (args.runs or args.digits or args.histories):
        parser.error("give --runs, --digits, --histories or several of them")
    if args.seeds < 1:
        parser.error(f"--seeds {args.seeds}: expected 1 or more")
    for path in args.runs:
        require_run(path)
    histories = {title: history_at(path) for title, path in titled(args.histories).items()}
    runs = {title: load_run(path) for title, path in titled(args.runs).items()}
    for run in runs.values():
        for split in SPLITS:  # what is missing is told before the work
            run.config.open(split)
    args.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if args.digits:
        draw_when(args.seeds, args.output / "why-when.png")
    if args.histories:
        draw_epochs(histories, args.output / f"why-epochs{args.suffix}.png")
    if runs:
        found = {title: {split: looked_at(run, split) for split in SPLITS} for title, run in runs.items()}
        names = next(reversed(runs.values())).classes.names
        draw_posterior(found, args.output / f"why-posterior{args.suffix}.png")
        draw_width(found, names, args.output / f"why-width{args.suffix}.png")


if __name__ == "__main__":
    exit_on_input_error(main)
