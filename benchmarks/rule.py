"""What the IoU rule costs: its share of the time of an evaluation, and what fitting it takes.

    python benchmarks/rule.py [--images 24] [--size 360x480] [--encoder resnet34]

An untrained UNet on made-up streets, 11 classes, on the CPU. The same evaluation, network included, decides by the
plain argmax and by the rule in turns. Fitting: from a sample of 2^20 pixels, without the network's pass over val.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from segloss.config import TrainConfig
from segloss.datasets.synthetic import SyntheticStreets
from segloss.decisions import Decision
from segloss.evaluation.fitting import sample_of
from segloss.evaluation.run_source import Measures, RunSource
from segloss.evaluation.score import measure
from segloss.inference import Machine
from segloss.iou_rule import iou_decision
from segloss.losses import build_criterion
from segloss.pixel_counts import count_labels
from segloss.runs import Run, Used

CPU = torch.device("cpu")


def untrained(dataset: SyntheticStreets, encoder: str, folder: Path) -> Run:
    torch.manual_seed(0)
    config = TrainConfig(dataset="synthetic", encoder=encoder, loss="ce")
    labels = [torch.from_numpy(dataset.read_labels(place)).long() for place in range(min(8, len(dataset)))]
    counts = count_labels(labels, len(dataset.classes))
    model = config.build(len(dataset.classes)).eval()
    used = Used.of(config, (64, 64), Machine(CPU, "32-true", 0))
    criterion = build_criterion("ce", counts.pixels)
    return Run(model, criterion, dataset.classes, counts, config, folder / "checkpoints/best.ckpt", used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--size", default="360x480")
    parser.add_argument("--encoder", default="resnet34")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    height, width = (int(side) for side in args.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        dataset = SyntheticStreets("val", size=(height, width), length=args.images)
        run = untrained(dataset, args.encoder, Path(folder))
        sample = sample_of(run, dataset, device=CPU)
        started = time.perf_counter()
        rule = iou_decision(sample, counts="posterior")
        fit_seconds = time.perf_counter() - started
        decisions = {"plain": Decision(), "rule": Decision("iou", terms=rule)}
        seconds: dict[str, list[float]] = {name: [] for name in decisions}
        for turn in range(args.repeats + 1):
            for name, decision in decisions.items():
                source = RunSource(name, run, dataset, Measures(decision, calibration=True), device=CPU)
                started = time.perf_counter()
                measure(source)
                if turn:  # the first warms up
                    seconds[name].append((time.perf_counter() - started) / args.images)
    plain, by_rule = (statistics.median(seconds[name]) for name in decisions)
    share = (by_rule - plain) / by_rule
    print(f"{args.images} images of {args.size}, UNet {args.encoder}, 11 classes, {torch.get_num_threads()} threads")
    for name, spent in seconds.items():
        spread = f"{1e3 * min(spent):.1f}-{1e3 * max(spent):.1f}"
        print(f"{name:6} {1e3 * statistics.median(spent):6.1f} ms an image ({spread})")
    print(f"deciding by the rule: {share:.1%} of the evaluation's time")
    print(f"fitting it to {sample.pixels:,} pixels: {fit_seconds:.2f} s, that of {fit_seconds / by_rule:.1f} images")
    print(json.dumps({**vars(args), "seconds": seconds, "share": share, "fit_seconds": fit_seconds}))


if __name__ == "__main__":
    main()
