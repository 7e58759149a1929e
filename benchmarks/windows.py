"""Peak memory and time of a large image that is predicted by windows, scored against a large mask, both from files.

    python benchmarks/windows.py [--side 20000] [--bands 3] [--tile 1024] [--kind tif]

The network is tiny (a strided convolution, scores at a quarter of the size): what is measured is reading, blending,
deciding, counting and writing. The peak is of resident memory beyond that of the process with network and imports.
"""

import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from command import parser_of
from loss import ResidentPeak
from torch import Tensor, nn

from segloss.datasets import SegmentationDataset, build_dataset
from segloss.decisions import Decision, decide
from segloss.errors import exit_on_input_error
from segloss.evaluation.counting import confusion_of
from segloss.evaluation.png_rows import PngRows
from segloss.evaluation.predictions import PredictionWriter
from segloss.inference import Views, infer_dataset
from segloss.losses import build_criterion

CLASSES = 4
ROWS = 512  # written at once


class Tiny(nn.Module):
    """Scores at a quarter of the image's size, interpolated by whoever asks for more."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, CLASSES, 4, stride=4)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        padded = F.pad(images.float() / 255, (0, -width % 4, 0, -height % 4))
        scores: Tensor = self.head(padded)
        return scores


def make_image(path: Path, side: int, bands: int) -> None:
    """A tiled, deflated TIFF of 8-bit noise in blocks, or a PNG of the same, by rows."""
    import rasterio
    from rasterio.windows import Window

    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
    rng = np.random.default_rng(0)
    strip = np.kron(rng.integers(0, 256, (ROWS // 16, side // 16 + 1)), np.ones((16, 16)))[:, :side].astype(np.uint8)
    if path.suffix == ".png":
        file = PngRows(path, (side, side))
        for top in range(0, side, ROWS):
            rows = np.roll(strip, top, axis=1)[: side - top]
            file.write(rows if bands == 1 else np.repeat(rows[..., None], 3, axis=2))
        return
    profile: dict[str, Any] = {"driver": "GTiff", "width": side, "height": side, "count": bands, "dtype": "uint8"}
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1}
    with rasterio.Env(GDAL_CACHEMAX=64), rasterio.open(path, "w", **profile) as file:
        for top in range(0, side, ROWS):
            rows = np.roll(strip, top, axis=1)[: side - top]
            file.write(np.stack([rows] * bands), window=Window(0, top, side, len(rows)))


def make_folder(root: Path, side: int, bands: int, kind: str) -> SegmentationDataset:
    (root / "classes.yaml").write_text("".join(f"- class{c}\n" for c in range(CLASSES)))
    for folder in ("images/val", "masks/val"):
        (root / folder).mkdir(parents=True)
    make_image(root / f"images/val/large.{kind}", side, bands)
    mask = PngRows(root / "masks/val/large.png", (side, side))
    for top in range(0, side, ROWS):
        rows = np.add.outer(np.arange(top, min(side, top + ROWS)) // 500, np.arange(side) // 700) % CLASSES
        mask.write(rows.astype(np.uint8))
    return build_dataset("folder", root, "val")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--bands", type=int, default=3, choices=(1, 3))
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--kind", default="tif", choices=("tif", "png"))
    args = parser.parse_args()
    torch.manual_seed(0)
    views = Views(tile=(args.tile, args.tile), overlap=args.overlap)
    how: dict[str, Any] = {"device": torch.device("cpu"), "views": views, "batch_size": 1}
    with tempfile.TemporaryDirectory() as folder:
        dataset = make_folder(Path(folder), args.side, args.bands, args.kind)
        criterion, prior = build_criterion("ce", (1,) * CLASSES), torch.full((CLASSES,), 1 / CLASSES)
        write = PredictionWriter(Path(folder, "out"), dataset.classes, ["ids"], dataset)
        matrix = np.zeros((CLASSES, CLASSES + 1), np.int64)
        watch, started = ResidentPeak(), time.perf_counter()
        for sample, scores in infer_dataset(Tiny(), criterion, dataset, **how):
            predicted = decide(criterion, scores, prior, Decision())[0]
            write(sample, predicted)
            matrix += confusion_of(predicted.byte().numpy(), sample["labels"].numpy(), CLASSES)[0]
        seconds, peak_mib = time.perf_counter() - started, watch.stop() / 2**20
        if matrix.sum() != args.side**2:
            raise SystemExit(f"{matrix.sum():,} pixels were counted of {args.side**2:,}")
    held = args.side**2 * 4 * CLASSES / 2**20
    print(f"{args.side} x {args.side}, {args.bands} bands, {args.kind}, {CLASSES} classes, windows of {args.tile}:")
    print(f"peak {peak_mib:,.0f} MiB, {seconds:.0f} s; scores of the whole image would take {held:,.0f} MiB")
    print(json.dumps({**vars(args), "peak_mib": peak_mib, "seconds": seconds}))


if __name__ == "__main__":
    exit_on_input_error(main)
