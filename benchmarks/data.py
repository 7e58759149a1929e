"""Counting, colour look-up, loaders and the cache, each against the least that could be done, in one process.

    python benchmarks/data.py [--masks 64] [--workers 2]

Made-up streets of 2048x1024 as PNG masks (ids and colours) and JPEG images, in a temporary folder.

counting   count_images against decoding the same masks in a pool of the same threads, and a second, saved count
colours    mapping an RGB mask to classes against decoding it
loader     training_loader against the same workers that read and augment and throw away
start      seconds to the first batch
memory     each worker's own memory after an epoch, without and with --cache ram (Linux)

Contenders take turns, so that a slow second of the machine hits all of them. Prints a table and one line of JSON.
"""

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
import torch
from command import parser_of
from torch import multiprocessing

from segloss.datasets import build_dataset
from segloss.datasets.cache import cache_in_ram
from segloss.datasets.loading import training_loader
from segloss.datasets.masks import lookup
from segloss.datasets.street_scenes import render_street
from segloss.datasets.tables import CAMVID_11
from segloss.datasets.transforms import train_transform
from segloss.errors import exit_on_input_error
from segloss.pixel_counts import available_cores, count_dataset, count_images, image_histograms

SIZE = (1024, 2048)
SCENES = 8  # rendered; the rest are their mirror images and shifts
CROP = (512, 512)


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())


def make_tree(root: Path, count: int) -> None:
    """images/train, masks/train and colours/ of the same streets, and a class file."""
    colors = np.zeros((256, 3), np.uint8)
    colors[: len(CAMVID_11)] = CAMVID_11.colors
    for scene in range(min(SCENES, count)):
        image, labels = render_street(0, "train", scene, *SIZE)
        for place in range(scene, count, SCENES):
            moved = np.roll(labels, 37 * place, axis=1)
            write(root / f"masks/train/{place:03d}.png", moved)
            write(root / f"images/train/{place:03d}.jpg", np.roll(image, 37 * place, axis=1)[..., ::-1])
            if place < SCENES:
                write(root / f"colours/{place:03d}.png", colors[moved][..., ::-1])
    (root / "classes.txt").write_text("\n".join(CAMVID_11.names))


def seconds(job: Callable[[], object]) -> float:
    started = time.perf_counter()
    job()
    return time.perf_counter() - started


def median_seconds(jobs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median of each job; they take turns, and the first turn warms up."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(repeats + 1):
        for name, job in jobs.items():
            spent = seconds(job)
            if turn:
                times[name].append(spent)
    return {name: statistics.median(spent) for name, spent in times.items()}


def decode(path: Path) -> np.ndarray:
    return cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)


def bench_counting(dataset, repeats: int) -> dict:
    masks = [mask for _, mask in dataset.pairs]

    def decode_all() -> None:
        with ThreadPoolExecutor(available_cores()) as pool:
            for _ in pool.map(decode, masks):
                pass

    def bincount(path: Path) -> np.ndarray:
        return np.bincount(decode(path).ravel(), minlength=256)

    def bincount_all() -> None:
        with ThreadPoolExecutor(available_cores()) as pool:
            for _ in pool.map(bincount, masks):
                pass

    jobs = {"decode": decode_all, "count": lambda: count_images(dataset), "np.bincount": bincount_all}
    found = median_seconds(jobs, repeats)
    image_histograms(dataset)
    found["saved"] = seconds(lambda: image_histograms(dataset))
    return found


def bench_colours(root: Path, repeats: int) -> dict:
    paths = sorted((root / "colours").iterdir())
    decoded = [cv2.cvtColor(decode(path), cv2.COLOR_BGR2RGB) for path in paths]
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    found = median_seconds(
        {
            "decode": lambda: [decode(path) for path in paths],
            "look up": lambda: [lookup(mask, CAMVID_11) for mask in decoded],
        },
        repeats,
    )
    cv2.setNumThreads(threads)
    return found


class PlainWorkers:
    """The least that workers can do: they stay, read and augment what they are told, and keep nothing."""

    def __init__(self, dataset, count: int):
        self.dataset, self.count = dataset, count
        self.pool = multiprocessing.get_context("fork").Pool(count, torch.set_num_threads, (1,))

    def __call__(self) -> None:
        keys = [(0, index) for index in range(len(self.dataset))]
        shares = [(self.dataset, keys[rank :: self.count]) for rank in range(self.count)]
        self.pool.starmap(read_and_drop, shares, chunksize=1)


def read_and_drop(dataset, keys: list[tuple[int, int]]) -> None:
    for key in keys:
        dataset[key]


def one_epoch(loader) -> None:
    for _ in loader:
        pass


def bench_loader(dataset, workers: int, repeats: int) -> dict:
    loaders = {n: training_loader(dataset, 8, seed=0, workers=n) for n in {0, workers}}
    first = {n: seconds(lambda loader=loader: next(iter(loader))) for n, loader in loaders.items()}
    jobs: dict[str, Callable[[], object]] = {"plain workers": PlainWorkers(dataset, workers)}
    jobs["loader"] = lambda: one_epoch(loaders[workers])
    keys = [(0, index) for index in range(len(dataset))]
    jobs["plain, no worker"] = lambda: [dataset[key] for key in keys]
    jobs["loader, no worker"] = lambda: one_epoch(loaders[0])
    spent = median_seconds(jobs, repeats)
    return {"samples_per_second": {n: len(dataset) / s for n, s in spent.items()}, "first_batch_seconds": first}


def own_mib(pid: int) -> float:
    """Memory that a process shares with no other."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    lines = [line.split() for line in text.splitlines() if line.startswith("Private_")]
    return sum(int(line[1]) for line in lines) / 1024


def bench_memory(dataset, workers: int) -> dict:
    found = {}
    for cache in ("none", "ram"):
        dataset.cache = None
        if cache == "ram":
            cache_in_ram([dataset])
        loader = training_loader(dataset, 8, seed=0, workers=workers)
        first = seconds(lambda loader=loader: one_epoch(loader))
        second = seconds(lambda loader=loader: one_epoch(loader))
        pids = [worker.pid for worker in loader._iterator._workers]
        mib = statistics.median(own_mib(pid) for pid in pids)
        found[cache] = {"first_epoch_s": first, "second_epoch_s": second, "own_mib_per_worker": mib}
        del loader
    dataset.cache = None
    return found


def report(results: dict) -> None:
    counting, colours, loader = results["counting"], results["colours"], results["loader"]
    print(f"counting {results['masks']} masks: decoding {counting['decode']:.2f} s, counting {counting['count']:.2f} s")
    print(f"  {counting['count'] / counting['decode']:.2f} x decoding; np.bincount ", end="")
    print(f"{counting['np.bincount'] / counting['decode']:.2f} x; saved counts {1e3 * counting['saved']:.1f} ms")
    print(f"colours: look-up {colours['look up'] / colours['decode']:.3f} x decoding")
    rates = loader["samples_per_second"]
    print(f"loader, {results['workers']} workers: {rates['loader']:.1f} samples/s, ", end="")
    print(f"{rates['loader'] / rates['plain workers']:.2f} x workers that keep nothing")
    print(f"loader, no worker: {rates['loader, no worker']:.1f} samples/s, ", end="")
    print(f"{rates['loader, no worker'] / rates['plain, no worker']:.2f} x a plain loop")
    for workers, spent in loader["first_batch_seconds"].items():
        print(f"first batch of 8 with {workers} workers: {spent:.2f} s")
    for cache, row in results.get("memory", {}).items():
        print(
            f"--cache {cache}: {row['own_mib_per_worker']:.0f} MiB of its own per worker, "
            f"epochs {row['first_epoch_s']:.1f} and {row['second_epoch_s']:.1f} s"
        )
    print(json.dumps(results))


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--masks", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    if min(args.masks, args.workers, args.repeats) < 1 or args.masks < SCENES:
        parser.error(f"--workers and --repeats must be at least 1, --masks at least {SCENES}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SEGLOSS_CACHE"] = str(Path(folder, "cache"))
        root = Path(folder, "data")
        make_tree(root, args.masks)
        dataset = build_dataset("folder", root, "train")
        results: dict = {"masks": args.masks, "workers": args.workers, "size": SIZE, "crop": CROP}
        results["counting"] = bench_counting(dataset, args.repeats)
        results["colours"] = bench_colours(root, args.repeats)
        pixels = count_dataset(dataset).pixels
        dataset.transform = train_transform(crop_size=CROP, seed=0, class_pixels=pixels)
        results["loader"] = bench_loader(dataset, args.workers, args.repeats)
        if Path("/proc/self/smaps_rollup").exists():
            results["memory"] = bench_memory(dataset, args.workers)
        report(results)


if __name__ == "__main__":
    exit_on_input_error(main)
