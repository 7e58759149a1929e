"""How scores become classes: a trained run's test split under every decision, and what each was fitted to.

    python benchmarks/decisions.py score RUN ... --data-path DIR [--dataset camvid]
    python benchmarks/decisions.py tables

A row for each run is kept in docs/evidence/decisions/NAME.json, and the tables beside them. The network passes once
over the validation images, once over at most 120 training images, and twice over the test images.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from command import parser_of
from evidence import DATA
from evidence_runs import OF_NETWORK, ROOT, machine, write_row
from evidence_scores import DEVICE, Way, best_exponent, counts_of, opened
from evidence_tables import interval, percent, read_rows, table, with_interval

from segloss.calibration import fit_calibration
from segloss.datasets import SegmentationDataset
from segloss.decisions import POINTS, Decision
from segloss.errors import exit_on_input_error
from segloss.evaluation.fitting import plain_tilt, sample_of
from segloss.inference import CalibratedPosterior
from segloss.iou_rule import iou_decision
from segloss.losses import class_prior
from segloss.runs import Run

ROWS = ROOT / "docs/evidence/decisions"
TRAINING_IMAGES = 120
MEANING = {
    "plain": "argmax of the scores",
    "tau 0": "argmax of the posterior",
    "prior, val labels": "the prior's exponent in 0, 0.1 ... 1.2 that is best on the labels of val",
    "iou, val": "IoU rule fitted to the images of val, without labels: `train_seg.py` where there are too few",
    "iou, val labels": "IoU rule fitted to the labels of val: `train_seg.py` where 5 images hold each class",
    "iou, val, calibrated": "temperature and class bias fitted to the labels of val, then the rule without labels",
    "iou, train": "IoU rule fitted to 120 training images, without labels: where there is no val",
    "iou, train labels": "IoU rule fitted to the labels of these",
    "iou, test": "IoU rule fitted to the test images, without their labels",
    "iou, test labels": "IoU rule fitted to the test labels: a bound, no result",
}


def ways_of(run: Run, open_split: Callable[[str], SegmentationDataset]) -> dict[str, Way]:
    """Every decision of ``MEANING``, fitted."""
    criterion, tilt = run.criterion, run.criterion.tilt
    val, test = (sample_of(run, open_split(split), device=DEVICE) for split in ("val", "test"))
    training = open_split("train")
    step = -(-len(training) // TRAINING_IMAGES)
    train = sample_of(run, training, device=DEVICE, places=range(0, len(training), step))
    calibration = fit_calibration(val)
    calibrated = iou_decision(val.map(calibration.apply), counts="posterior", tilt=plain_tilt(calibration, tilt))
    ways = {
        "plain": Way(Decision(), criterion),
        "tau 0": Way(Decision(POINTS[0], 0.0), criterion),
        "prior, val labels": Way(Decision(POINTS[1], best_exponent(val, class_prior(run.counts))), criterion),
        "iou, val, calibrated": Way(Decision("iou", terms=calibrated), CalibratedPosterior(criterion, calibration)),
    }
    for name, sample in {"val": val, "train": train, "test": test}.items():
        for counts, word in {"posterior": "", "labels": " labels"}.items():
            rule = iou_decision(sample, counts=counts, tilt=tilt)
            ways[f"iou, {name}{word}"] = Way(Decision("iou", terms=rule), criterion)
    return {name: ways[name] for name in MEANING}


def score(path: Path, dataset: str, root: Path) -> dict:
    """The row of a run."""
    run, open_split = opened(path, root)
    ways = ways_of(run, open_split)
    counts = counts_of(run, open_split("test"), ways)
    block = DATA[dataset].block
    arm, _, seed = path.name.removeprefix(f"{dataset}-").rpartition("-s")
    row = {"name": path.name, "dataset": dataset, "arm": arm, "seed": int(seed), "weights": run.weights, **machine()}
    row["images"] = len(next(iter(counts.values())))
    row["decisions"] = {name: str(way.decision) for name, way in ways.items()}
    row["expected"] = {name: way.decision.terms.score for name, way in ways.items() if way.decision.terms}
    row["blocks"] = {
        name: np.add.reduceat(rows, np.arange(0, len(rows), block)).tolist() for name, rows in counts.items()
    }
    return row


def lines_of(rows: list[dict]) -> Iterator[list[str]]:
    """Of the rows of one arm a line for each decision: mIoU, and the gain over the plain argmax, with intervals."""
    blocks = {name: [row["blocks"][name] for row in rows] for name in MEANING}
    for name in MEANING:
        against = interval(blocks[name], blocks["plain"], same_networks=True)
        decided = " / ".join(dict.fromkeys(row["decisions"][name] for row in rows)) if name.startswith("prior") else ""
        gain = "" if name == "plain" else with_interval(against)
        each = ", ".join(percent(interval([one])["estimate"]) for one in blocks[name])
        yield [f"{name} ({decided})" if decided else name, with_interval(interval(blocks[name])), each, gain]


HEAD = """# Decisions

Made by `python benchmarks/decisions.py tables` from the rows beside this page, one JSON file a network. Each network
decides by every way on the same test images; nothing was chosen there. mIoU in percent, mean over the seeds; 95 %
intervals over blocks of consecutive images and, from two seeds on, over seeds, as in the [evidence](../README.md).

"""


def write_page(folder: Path) -> None:
    rows = read_rows(folder, {**OF_NETWORK, "decisions": dict, "blocks": dict})
    page = [HEAD, *table(["decision", "what it is"], MEANING.items())]
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        page += [f"## {dataset}", ""]
        arms: dict[str, list[dict]] = {}
        for row in rows:
            if row["dataset"] == dataset:
                arms.setdefault(row["arm"], []).append(row)
        for arm, of_arm in arms.items():
            header = ["decision", "mIoU, 95 % interval", "each seed", "gain over plain, 95 % interval"]
            page += [f"### {arm}, {len(of_arm)} seed{'s' * (len(of_arm) > 1)}", "", *table(header, lines_of(of_arm))]
    (folder / "README.md").write_text("\n".join(page).rstrip() + "\n")
    print(f"{len(rows)} rows: {folder / 'README.md'}")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("action", choices=("score", "tables"))
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--dataset", choices=DATA, default="camvid")
    parser.add_argument("--data-path", type=Path)
    parser.add_argument("--rows", type=Path, default=ROWS)
    args = parser.parse_args()
    if args.action == "score" and not (args.runs and args.data_path):
        parser.error("score needs runs and --data-path")
    for path in args.runs:
        write_row(args.rows / f"{path.name}.json", score(path, args.dataset, args.data_path))
        print(f"{path.name}: scored", flush=True)
    write_page(args.rows)


if __name__ == "__main__":
    exit_on_input_error(main)
