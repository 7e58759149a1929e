"""Scoring folders of Cityscapes-form masks against decoding them and against cityscapesscripts, in one process.

    python benchmarks/evaluation.py [--pairs 64]

Made-up streets of 2048x1024 as labelIds, predictions with errors, in a temporary folder. Decoding runs in a pool of
as many threads as scoring; cityscapesscripts runs its own loop on the same files. Contenders take turns. Prints a
table and one line of JSON; stops if the per-class IoUs differ.
"""

import contextlib
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from command import parser_of

from segloss.datasets.street_scenes import render_street
from segloss.datasets.tables import CITYSCAPES
from segloss.errors import exit_on_input_error
from segloss.evaluation.mask_source import MaskSource
from segloss.evaluation.score import score
from segloss.pixel_counts import available_cores

SIZE = (1024, 2048)
SCENES = 8


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def make_folders(root: Path, count: int) -> tuple[Path, Path]:
    """true/ and predicted/ with labelIds; a prediction is its truth, shifted, with some blocks of another class."""
    ids = np.zeros(256, np.uint8)
    ids[:11] = CITYSCAPES.ids[:11]
    rng = np.random.default_rng(0)
    for scene in range(min(SCENES, count)):
        labels = ids[render_street(0, "train", scene, *SIZE)[1]]
        for place in range(scene, count, SCENES):
            true = np.roll(labels, 61 * place, axis=1)
            predicted = np.roll(true, 3, axis=1)
            for row, column in rng.integers(0, SIZE[0] - 64, (20, 2)):
                predicted[row : row + 64, column : column + 64] = rng.choice(CITYSCAPES.ids)
            name = f"munster_{place:06d}_000019"
            write(root / f"true/munster/{name}_gtFine_labelIds.png", true)
            write(root / f"predicted/{name}_leftImg8bit.png", predicted)
    return root / "true", root / "predicted"


def decode_all(paths: list[Path]) -> None:
    with ThreadPoolExecutor(available_cores()) as pool:
        for _ in pool.map(lambda path: cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED), paths):
            pass


def official_ious(source: MaskSource) -> list[float]:
    """Per-class IoU by cityscapesscripts."""
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official

    arguments = official.args
    arguments.evalInstLevelScore = False
    arguments.evalPixelAccuracy = False
    arguments.quiet = True
    arguments.JSONOutput = False
    pairs = [(str(triple.predicted), str(triple.true)) for triple in source.triples]
    with contextlib.redirect_stdout(io.StringIO()):
        results = official.evaluateImgLists([p for p, _ in pairs], [t for _, t in pairs], arguments)
    return [results["classScores"][name] for name in CITYSCAPES.names]


def median_seconds(jobs: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(repeats + 1):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            if turn:  # the first turn warms up
                times[name].append(time.perf_counter() - started)
    return times


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    if min(args.pairs, args.repeats) < 1:
        parser.error("--pairs and --repeats must be at least 1")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SEGLOSS_CACHE"] = str(Path(folder, "cache"))
        true, predicted = make_folders(Path(folder), args.pairs)
        source = MaskSource("benchmark", predicted, true, CITYSCAPES)
        bands = MaskSource("benchmark", predicted, true, CITYSCAPES, counted=["boundary"])
        ours = [row.iou for row in score(source)[0].classes]
        theirs = official_ious(source)
        for name, a, b in zip(CITYSCAPES.names, ours, theirs, strict=True):
            if (a is None) != bool(np.isnan(b)) or (a is not None and abs(a - b) > 1e-12):
                raise SystemExit(f"{name}: {a} here, {b} by cityscapesscripts")
        paths = [path for triple in source.triples for path in (triple.predicted, triple.true)]
        times = median_seconds(
            {
                "decode": lambda: decode_all(paths),
                "score": lambda: score(source),
                "score with boundary IoU": lambda: score(bands),
                "cityscapesscripts": lambda: official_ious(source),
            },
            args.repeats,
        )
    medians = {name: statistics.median(spent) for name, spent in times.items()}
    print(f"{args.pairs} pairs of {SIZE[1]}x{SIZE[0]}, {available_cores()} threads; the per-class IoUs are equal")
    for name, seconds in medians.items():
        spread = f"{min(times[name]):.2f}-{max(times[name]):.2f}"
        print(f"{name:24} {seconds:6.2f} s ({spread})  {seconds / medians['decode']:5.2f} x decoding")
    print(f"cityscapesscripts takes {medians['cityscapesscripts'] / medians['score']:.1f} x the time of score")
    print(json.dumps({"pairs": args.pairs, "size": SIZE, "seconds": times}))


if __name__ == "__main__":
    exit_on_input_error(main)
