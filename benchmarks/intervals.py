"""How often the intervals of evaluation cover the truth, and call equal settings different, on simulated scores.

    python benchmarks/intervals.py                                # all of it, 20 to 40 minutes on one core
    python benchmarks/intervals.py --kinds images --blocks 6 12 --repeats 300

Made-up test splits of 11 classes with the frequencies of CamVid: images differ in difficulty and in what they hold,
the rarest class is in 3 of 10; seeds differ per class, most for rare ones; an image can be harder for one seed than for
another.

    images   independent images, one a block
    seeds    the same in blocks of 10, and seeds that differ three times as much
    video    all that makes images differ is an AR(0.9) process from frame to frame; blocks of 50 frames
    chosen   video of 120, 233, 467 or 1000 frames; the block length is chosen from the data
    uneven   as images in blocks of 10, but setting a's seeds differ three times as much as b's

Each line is a number of blocks (or frames) and of seeds a setting: coverage of nominal 95 % intervals of mean IoU, of
the IoU of the classes that have an interval, and of the difference of two settings whose true difference is known; how
often two equal settings are called different; and the percentile bootstrap's coverage for the same mean. With one seed,
the truth is what these networks would score on all images; with more, what their setting would on average over seeds.
Prints a table and one line of JSON. A share p has the standard error sqrt(p (1 - p) / repeats), 0.7 % for 95 % of 1000.
"""

import functools
import json
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from command import parser_of

from segloss.errors import exit_on_input_error
from segloss.evaluation.comparison import block_sums, mean_and_ious
from segloss.evaluation.intervals import (
    Interval,
    choose_block,
    difference_interval,
    inflation_of,
    influences,
    interval,
    union_shares,
)

PIXELS = 40_000  # an image's; only the granularity of rare classes hangs on it
SHARE = np.array([0.16, 0.23, 0.010, 0.30, 0.06, 0.10, 0.012, 0.015, 0.055, 0.007, 0.004])  # of the pixels, sky first
IN_IMAGES = np.array([0.98, 0.99, 0.97, 0.9999, 0.93, 0.9, 0.85, 0.35, 0.9, 0.6, 0.3])
SIZE_SPREAD = np.array([0.4, 0.4, 0.5, 0.3, 0.6, 0.7, 0.8, 0.9, 0.8, 0.9, 1.0])  # of the logarithm
SKILL = np.array([2.7, 1.8, -1.2, 3.0, 1.6, 1.7, -0.3, -0.8, 1.5, -0.5, -0.7])  # logit of recall
SEED_SPREAD = np.array([0.1, 0.1, 0.2, 0.1, 0.15, 0.15, 0.25, 0.5, 0.2, 0.4, 0.5])  # of the logit
C = len(SHARE)
SEEDS = 128  # there are; each replicate draws some of them
RHO = 0.9
RESAMPLES = 400
FRAMES = (120, 233, 467, 1000)


class Kind(NamedTuple):
    """One way in which images and seeds can hang together; block 0: chosen from the data."""

    block: int
    rho: float
    spread_a: float
    spread_b: float


KINDS = {
    "images": Kind(1, 0.0, 1, 1),
    "seeds": Kind(10, 0.0, 3, 3),
    "video": Kind(50, RHO, 1, 1),
    "chosen": Kind(0, RHO, 1, 1),
    "uneven": Kind(10, 0.0, 3, 1),
}


def correlated(noise: np.ndarray, rho: float) -> np.ndarray:
    """Standard normal noise ``(..., N, K)`` made an AR(1) process along N, in place."""
    if rho:
        for t in range(1, noise.shape[-2]):
            noise[..., t, :] = rho * noise[..., t - 1, :] + np.sqrt(1 - rho**2) * noise[..., t, :]
    return noise


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def images(generator: np.random.Generator, number: int, rho: float) -> tuple[np.ndarray, np.ndarray]:
    """True pixels and easiness of each class in each image, ``(N, C)`` both."""
    noise = correlated(generator.standard_normal((number, 3 * C + 1), dtype=np.float32), rho)
    cuts = np.array([NormalDist().inv_cdf(1 - there) for there in IN_IMAGES])
    sizes = np.exp(SIZE_SPREAD * noise[:, :C]) * SHARE / IN_IMAGES * (noise[:, C : 2 * C] > cuts)
    true = np.round(PIXELS * sizes / np.maximum(sizes.sum(1, keepdims=True), 1e-9))
    return true, 0.6 * noise[:, 2 * C : 3 * C] + 0.4 * noise[:, 3 * C :]


def counts_of_run(
    generator: np.random.Generator, true: np.ndarray, easy: np.ndarray, seed_effect: np.ndarray, rho: float
) -> np.ndarray:
    """``(N, 3, C)`` right, true and predicted pixels of a run whose seed moves the logits of its recall by this."""
    noise = correlated(generator.standard_normal((len(true), 2 * C), dtype=np.float32), rho)
    hits = np.round(true * sigmoid(SKILL + seed_effect + easy + 0.25 * noise[:, :C]))
    usual = PIXELS * SHARE * 0.8 * sigmoid(-SKILL)
    wrong = np.round(usual * np.exp(0.5 * seed_effect - 0.4 * easy + 0.7 * noise[:, C:] - 0.245))
    return np.stack([hits, true, hits + wrong], axis=1)


@functools.cache
def all_seeds(spread: float, truth_images: int) -> tuple[np.ndarray, np.ndarray]:
    """Effect of each seed there is ``(SEEDS, C)``, and what it scores on very many images ``(SEEDS, 1 + C)``."""
    generator = np.random.default_rng(77)
    effects = generator.standard_normal((SEEDS, C))
    effects = spread * SEED_SPREAD * (effects - effects.mean(0))
    true, easy = images(generator, truth_images, 0)
    runs = [counts_of_run(generator, true, easy, effect, 0).sum(0) for effect in effects]
    return effects, np.stack([mean_and_ious(np.concatenate([run.ravel(), [0, 0]])) for run in runs])


def percentile_covers(runs: list[np.ndarray], truth: float, generator: np.random.Generator) -> bool:
    """The percentile bootstrap over blocks and seeds, which comparisons had before."""
    n = len(runs[0])
    weights = generator.multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(np.float64)
    draws = np.stack([mean_and_ious(weights @ sums)[:, 0] for sums in runs])
    chosen = generator.integers(0, len(runs), (len(runs), RESAMPLES))
    low, high = np.nanpercentile(draws[chosen, np.arange(RESAMPLES)].mean(0), [2.5, 97.5])
    return bool(low <= truth <= high)


def covers(found: Interval, truth: np.ndarray) -> np.ndarray:
    """1 and 0 for each value, NaN where there is no interval."""
    return np.where(np.isnan(found.low), np.nan, (found.low <= truth) & (truth <= found.high))


def one_split(
    generator: np.random.Generator, kind: Kind, size: int, worlds: list[tuple[np.ndarray, np.ndarray]], most: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Counts of ``most`` runs of a, then of b, on one split, and the truth of each."""
    number = size * kind.block or size
    true, easy = images(generator, number, kind.rho)
    runs, truths = [], []
    for effects, scores in worlds:
        for which in generator.integers(0, SEEDS, most):
            runs.append(counts_of_run(generator, true, easy, effects[which], kind.rho))
            truths.append(scores[which])
    return runs, truths


def measured(
    kind: Kind, size: int, seeds: list[int], repeats: int, seed: int, truth_images: int
) -> Iterator[dict[str, Any]]:
    """A row for each number of seeds."""
    worlds = [all_seeds(spread, truth_images) for spread in (kind.spread_a, kind.spread_b)]
    found: dict[int, list[list[Any]]] = {number: [] for number in seeds}
    most = max(seeds)
    for repeat in range(repeats):
        generator = np.random.default_rng([seed, size, kind.block, int(10 * kind.rho), repeat])
        runs, truths = one_split(generator, kind, size, worlds, most)
        singles = [block_sums(run, 1) for run in runs]
        effects = np.stack([influences(sums, mean_and_ious) for sums in singles]) if kind.rho else None
        for number in seeds:
            a, b = slice(0, number), slice(most, most + number)
            block, inflation, of_difference = kind.block, 1.0, 1.0
            if effects is not None:
                block = block or choose_block(np.concatenate([effects[a], effects[b]]).T)
                inflation = inflation_of(effects[a].mean(0), block)
                of_difference = inflation_of(effects[a].mean(0) - effects[b].mean(0), block)
            one, other = ([block_sums(run, block) for run in runs[part]] for part in (a, b))
            means = [world[1].mean(0) for world in worlds] if number > 1 else [truths[0], truths[most]]
            single = interval(one, mean_and_ious, shares=union_shares, inflation=inflation)
            pair = difference_interval(one, other, mean_and_ious, shares=union_shares, inflation=of_difference)
            covered, apart = covers(single, means[0]), covers(pair, means[0] - means[1])
            percentile = percentile_covers(one, means[0][0], generator)
            ends = single.high[0] - single.low[0], pair.high[0] - pair.low[0]
            found[number].append([covered, apart, percentile, *ends, block, inflation])
    for number, rows in found.items():
        yield {"seeds": number, **summary(rows, worlds, number)}


def summary(rows: list[list[Any]], worlds: list[tuple[np.ndarray, np.ndarray]], number: int) -> dict[str, Any]:
    covered, apart = (np.stack([row[k] for row in rows]) for k in (0, 1))
    rest = np.array([row[2:] for row in rows], np.float64)
    equal = number > 1 and np.array_equal(worlds[0][0], worlds[1][0])

    def share(values: np.ndarray) -> float | None:
        return None if np.isnan(values).all() else round(float(np.nanmean(values)), 4)

    classes = [share(covered[:, c]) for c in range(1, 1 + C)]
    return {
        "mean": share(covered[:, 0]),
        "with_mean": share(~np.isnan(covered[:, 0])),
        "classes": share(covered[:, 1:]),
        "class_least": min((one for one in classes if one is not None), default=None),
        "class_most": max((one for one in classes if one is not None), default=None),
        "with_class": share(~np.isnan(covered[:, 1:])),
        "difference": share(apart[:, 0]),
        "class_differences": share(apart[:, 1:]),
        "called_different": round(1 - float(np.nanmean(apart[:, 0])), 4) if equal else None,
        "percentile": share(rest[:, 0]),
        "length": round(float(np.nanmedian(rest[:, 1])), 4),
        "length_of_difference": round(float(np.nanmedian(rest[:, 2])), 4),
        "block": int(np.median(rest[:, 3])),
        "inflation": round(float(np.median(rest[:, 4])), 3),
    }


HEAD = "kind    blocks seeds    mean  classes (least-most)  difference  called different  percentile  block  length"


def line(row: dict[str, Any]) -> str:
    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    classes = f"{percent(row['classes'])} ({percent(row['class_least'])}-{percent(row['class_most'])})"
    return (
        f"{row['kind']:8}{row['size']:6} {row['seeds']:5} {percent(row['mean']):>7}  {classes:>20}"
        f"  {percent(row['difference']):>10}  {percent(row['called_different']):>16}  {percent(row['percentile']):>10}"
        f"  {row['block']:5}  {100 * row['length']:6.1f}"
    )


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--blocks", nargs="+", type=int, default=[6, 8, 12, 20, 50])
    parser.add_argument("--frames", nargs="+", type=int, default=list(FRAMES), help="images of kind chosen")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 5])
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--truth-images", type=int, default=20_000, help="over which each seed's true scores are taken")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON file")
    args = parser.parse_args()
    if min(args.repeats, args.truth_images, *args.blocks, *args.frames, *args.seeds) < 1:
        parser.error("--repeats, --truth-images, --blocks, --frames and --seeds must be at least 1")
    print(HEAD, flush=True)
    started, rows = time.perf_counter(), []
    for kind in args.kinds:
        for size in args.frames if kind == "chosen" else args.blocks:
            for row in measured(KINDS[kind], size, args.seeds, args.repeats, args.seed, args.truth_images):
                rows.append({"kind": kind, "size": size, **row})
                print(line(rows[-1]), flush=True)
    environment = {"numpy": np.__version__, "python": platform.python_version(), "machine": platform.machine()}
    options = {"repeats": args.repeats, "seed": args.seed, "seconds": round(time.perf_counter() - started)}
    text = json.dumps({"options": options, "environment": environment, "rows": rows})
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    exit_on_input_error(main)
