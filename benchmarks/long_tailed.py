"""Any classifier: every loss on long-tailed digits, 90 to 2 images a class, decided in four ways.

    python benchmarks/long_tailed.py [--seeds 10] [--losses ce outlying_mse ...] [--output long_tailed.json]

scikit-learn's digits (in its package, 8x8, 10 classes); which class is how rare changes with the seed, as do the images
and the weights of a 64-64-10 perceptron. It is tested on 84 images of each class that it was not trained on.
Prints a table for docs/results.md: balanced accuracy with 95 % intervals over seeds (Student's t), and the difference
to cross entropy, paired by seed.
"""

import json
import shlex
from pathlib import Path

import numpy as np
import torch
from command import parser_of
from scipy.stats import t as student
from sklearn.datasets import load_digits
from torch import Tensor, nn

from segloss import iou_decision
from segloss.errors import exit_on_input_error, unknown_name
from segloss.losses import LOSSES, Criterion, build_criterion, class_prior

CLASSES, MOST, LEAST, TESTED = 10, 90, 2, 84
COUNTS = [round(MOST * (LEAST / MOST) ** (rank / (CLASSES - 1))) for rank in range(CLASSES)]
STEPS, RATE, HIDDEN = 300, 3e-3, 64
DECISIONS = ("plain", "tau 0", "prior 1", "iou")
POWER = {"label_values": "power", "label_power": 0.75}
# name -> (--loss, options)
ARMS = {name: (name, {}) for name in LOSSES} | {
    "outlying_mse power 0.75": ("outlying_mse", POWER),
    "outlying_mse power 0.5": ("outlying_mse", {"label_values": "power"}),
    "outlying_mse rank, k 10": ("outlying_mse", {"true_channel_weight": 10.0}),
    "mse, k 10": ("mse", {"true_channel_weight": 10.0}),
    "weighted_ce": ("weighted_ce", {}),
    "weighted_mse": ("weighted_mse", {}),
    "weighted_focal": ("weighted_focal", {}),
    "ce+dice": ("ce+dice", {}),
    "0.25*weighted_ce+0.75*jaccard": ("0.25*weighted_ce+0.75*jaccard", {}),
}


def split_of(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, list[int]]:
    """Images and labels for training, then for testing, and how many of each class are trained on."""
    generator = np.random.default_rng(seed)
    digits = load_digits()
    images = torch.from_numpy(digits.data.astype(np.float32) / 16)
    counts = [COUNTS[rank] for rank in generator.permutation(CLASSES)]
    train, test = [], []
    for c, count in enumerate(counts):
        places = generator.permutation(np.flatnonzero(digits.target == c))
        train += places[:count].tolist()
        test += places[count : count + TESTED].tolist()
    labels = torch.from_numpy(digits.target)
    return images[train], labels[train], images[test], labels[test], counts


def trained(criterion: Criterion, images: Tensor, labels: Tensor, seed: int) -> nn.Module:
    """A perceptron after full-batch AdamW on a cosine schedule."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(64, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))
    optimizer = torch.optim.AdamW(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        criterion(network(images), labels).backward()
        optimizer.step()
        schedule.step()
    return network


def decided(criterion: Criterion, scores: Tensor, counts: list[int], of_training: Tensor) -> dict[str, Tensor]:
    """Class numbers by every decision; the IoU rule is fitted to the training images without their labels."""
    posterior = criterion.posterior(scores)
    rule = iou_decision(criterion.posterior(of_training), tilt=criterion.tilt)
    return {
        "plain": criterion.decide(scores),
        "tau 0": criterion.decide(scores, 0.0),
        "prior 1": (posterior / class_prior(counts)).argmax(1),
        "iou": rule.decide(posterior),
    }


def balanced_accuracy(predicted: Tensor, labels: Tensor) -> float:
    return float(torch.stack([(predicted == labels)[labels == c].double().mean() for c in range(CLASSES)]).mean())


def accuracies(arm: str, seed: int) -> list[float]:
    """By every decision, of one run."""
    images, labels, test_images, test_labels, counts = split_of(seed)
    name, options = ARMS[arm]
    criterion = build_criterion(name, counts, ignore_index=None, **options)
    network = trained(criterion, images, labels, seed)
    with torch.no_grad():
        found = decided(criterion, network(test_images), counts, network(images))
    return [balanced_accuracy(found[decision], test_labels) for decision in DECISIONS]


def with_interval(values: np.ndarray) -> str:
    """Mean and half the width of its 95 % interval over seeds, in percent."""
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{100 * values.mean():.1f} +- {100 * half:.1f}"


def main() -> None:
    parser = parser_of(__doc__)
    names = ", ".join(map(shlex.quote, ARMS))
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="2 or more; default: 10")
    parser.add_argument(
        "--losses", nargs="+", default=list(ARMS), metavar="LOSS", help=f"beside ce; default: all of {names}"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON of every accuracy, for rows of docs/evidence")
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error("--seeds must be at least 2: an interval is over seeds")
    for name in args.losses:
        if name not in ARMS:
            raise unknown_name("loss", name, map(shlex.quote, ARMS), "--losses")
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    arms = list(dict.fromkeys(["ce", *args.losses]))
    results = {arm: np.array([accuracies(arm, seed) for seed in range(args.seeds)]) for arm in arms}
    best = {arm: values.mean(0).max() for arm, values in results.items()}
    print(f"| loss | {' | '.join(DECISIONS)} | plain - ce's plain |")
    print("|---" * (len(DECISIONS) + 2) + "|")
    for arm in sorted(arms, key=lambda arm: -best[arm]):
        values = results[arm]
        difference = with_interval(values[:, 0] - results["ce"][:, 0]) if arm != "ce" else "-"
        print(f"| {arm} | {' | '.join(with_interval(column) for column in values.T)} | {difference} |")
    if args.output:
        args.output.write_text(json.dumps({arm: values.tolist() for arm, values in results.items()}))


if __name__ == "__main__":
    exit_on_input_error(main)
