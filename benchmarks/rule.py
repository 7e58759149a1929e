"""What the IoU rule costs: its share of the time of an evaluation, and what fitting it takes.

    python benchmarks/rule.py [--images 24] [--size 360x480] [--encoder resnet34]

An untrained UNet on made-up streets, 11 classes, on the CPU. CPU time, the least of the repeats: of a whole evaluation
that decides by the rule, network included; of deciding alone, by the rule and by the plain argmax; of fitting the rule
to a sample of 2^20 pixels, without the network's pass over val.
"""

import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from command import parser_of

from segloss.config import TrainConfig
from segloss.datasets.synthetic import SyntheticStreets
from segloss.decisions import Decision, decide
from segloss.errors import exit_on_input_error
from segloss.evaluation.fitting import sample_of
from segloss.evaluation.run_source import Measures, RunSource
from segloss.evaluation.score import measure
from segloss.inference import Machine, infer_dataset
from segloss.iou_rule import IoUDecision, iou_decision
from segloss.losses import build_criterion, class_prior
from segloss.pixel_counts import count_labels
from segloss.run_folder import Used
from segloss.runs import Run

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


def cpu_seconds(job: Callable[[], object], repeats: int) -> float:
    spent = []
    for _ in range(repeats + 1):  # the first warms up
        started = time.process_time()
        job()
        spent.append(time.process_time() - started)
    return min(spent[1:])


def main() -> None:
    parser = parser_of(__doc__)
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
        rule: list[IoUDecision] = []
        fit_seconds = cpu_seconds(lambda: rule.append(iou_decision(sample, counts="posterior")), args.repeats)
        decision = Decision("iou", terms=rule[0])
        source = RunSource("rule", run, dataset, Measures(decision, calibration=True), device=CPU)
        whole = cpu_seconds(lambda: measure(source), args.repeats) / args.images
        _, scores = next(infer_dataset(run.model, run.criterion, dataset, device=CPU, batch_size=1))
        posterior, prior = run.criterion.posterior(scores), class_prior(run.counts.pixels)
        alone = {
            name: cpu_seconds(partial(decide, run.criterion, scores, prior, how, posterior), 10 * args.repeats)
            for name, how in {"rule": decision, "plain": Decision()}.items()
        }
    share = alone["rule"] / whole
    print(f"{args.images} images of {args.size}, UNet {args.encoder}, 11 classes; CPU time of an image")
    print(f"evaluation {1e3 * whole:.1f} ms, by the rule {1e3 * alone['rule']:.2f} ms, {share:.1%} of the evaluation")
    print(f"by the plain argmax {1e3 * alone['plain']:.2f} ms")
    print(f"fitting to {sample.pixels:,} pixels {fit_seconds:.2f} s, that of {fit_seconds / whole:.1f} images")
    content = {"evaluation_ms": 1e3 * whole, "decide_ms": {name: 1e3 * spent for name, spent in alone.items()}}
    print(json.dumps({**vars(args), **content, "share": share, "fit_seconds": fit_seconds}))


if __name__ == "__main__":
    exit_on_input_error(main)
