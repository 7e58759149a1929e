"""Does the upsampled loss save memory in a whole training step? Peak of one step of a DeepLabV3+, both ways.

    python benchmarks/memory.py [--batch 2x512x1024 8x352x480] [--encoder resnet18] [--classes 19]

Full size: the model interpolates its logits to the labels' size. Upsampled: it puts out logits at a quarter of that and
the loss interpolates, band by band. Prints a table and one line of JSON.
"""

import argparse
import gc
import json

import segmentation_models_pytorch as smp
import torch
from command import parser_of
from loss import ResidentPeak

from segloss import OutlyingMSELoss
from segloss.errors import exit_on_input_error


def step_peak_mib(upsampled: bool, batch: tuple[int, ...], args: argparse.Namespace) -> float:
    """Peak memory of one forward and backward pass beyond model, images, labels and the parameters' gradients."""
    torch.manual_seed(0)
    count, height, width = batch
    factor = 1 if upsampled else 4
    model = smp.DeepLabV3Plus(args.encoder, encoder_weights=None, classes=args.classes, upsampling=factor)
    criterion = OutlyingMSELoss(torch.arange(1.0, args.classes + 1), upsample="bilinear" if upsampled else None)
    images = torch.randn(count, 3, height, width)
    labels = torch.randint(0, args.classes, (count, height, width))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    gc.collect()
    watch = ResidentPeak()
    criterion(model(images), labels).backward()
    return watch.stop() / 2**20


def batch_size(text: str) -> tuple[int, ...]:
    sizes = tuple(int(part) for part in text.split("x"))
    if len(sizes) != 3 or min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not COUNTxHEIGHTxWIDTH")
    return sizes


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--batch", nargs="+", type=batch_size, default=[(2, 512, 1024), (8, 352, 480)])
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--classes", type=int, default=19)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    results = {}
    print(f"DeepLabV3+ {args.encoder}, {args.classes} classes: lowest and highest peak of {args.repeats} steps, MiB")
    for batch in args.batch:
        row: dict[str, list[float]] = {"full size": [], "upsampled": []}
        for _ in range(args.repeats):
            for name, peaks in row.items():
                peaks.append(step_peak_mib(name == "upsampled", batch, args))
        results["x".join(map(str, batch))] = row
        texts = [f"{name} {min(peaks):,.0f}-{max(peaks):,.0f}" for name, peaks in row.items()]
        print(f"{'x'.join(map(str, batch)):14} {', '.join(texts)}")
    print(json.dumps(results))


if __name__ == "__main__":
    exit_on_input_error(main)
