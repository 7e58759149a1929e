"""Train and score a list of (data set, loss, setting, seed), and make tables of the rows that they leave.

    python benchmarks/evidence.py run --runs DIR --data camvid=DIR --weights FILE.safetensors --hours 3
    python benchmarks/evidence.py run --runs DIR --only camvid-power075-s0 --again  # this row anew
    python benchmarks/evidence.py run --runs DIR --protocol full full-deeplab --parallel 6 --hours 0.15  # on a GPU
    python benchmarks/evidence.py list --runs DIR
    python benchmarks/evidence.py tables

A run is a folder of DIR, outside the repository; its row is docs/evidence/NAME.json. What is complete is never made
again: a killed training goes on by --resume. A folder of a job's name that somebody else trained is scored, if its
settings are the job's. Several processes may work on one DIR: each run has a lock.
"""

import argparse
import fnmatch
import os
import shlex
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from command import parser_of
from evidence_questions import write_questions
from evidence_runs import ROOT, Later, Runner, Stopped, compared, make_folds, require_same_data, variable
from evidence_tables import called, write_tables

from segloss.errors import InputError, exit_on_input_error


@dataclass(frozen=True)
class DataSet:
    """How ``train_seg.py`` reads a data set, and what an interval over its test images must know."""

    kind: str  # of --dataset
    block: int  # consecutive test images counted as one: frames of a drive; else so many that 25 to 28 blocks are left
    size: str  # of images and crops in the protocols short and long
    epochs: int  # of short
    pixels: int  # millions that a network sees in short: epochs x steps x 8 crops


# CamVid's short is the command of docs/results.md; each other set sees about half as many pixels. Cracks are a few
# pixels wide, so they are kept at full size.
DATA = {
    "camvid": DataSet("camvid", 20, "--image-scale 0.5 --crop-size 160 224", 15, 194),
    "facade": DataSet("folder", 13, "--image-scale 0.5 --crop-size 160 192", 36, 94),
    "crackforest": DataSet("folder", 1, "--image-scale 1 --crop-size 256 256", 18, 88),
    "ccp": DataSet("folder", 10, "--image-scale 0.5 --crop-size 192 128", 6, 97),
}
# CamVid's sequences in train and val; camvid/NAME holds that one out. A later part of 0001TP is in test.
FOLDS = ("0001TP", "0006R0", "0016E5")

COMMON = "--encoder tu-tf_efficientnet_lite0 --batch-size 8 --lr 1e-3 --check off"
CPU = "--arch unet --workers 0"
GPU = "--image-scale 1 --crop-size 360 480 --epochs 120 --cache ram --workers 2"
PROTOCOLS = {
    "short": {name: f"{CPU} {data.size} --epochs {data.epochs}" for name, data in DATA.items()},
    "long": {name: f"{CPU} {data.size} --epochs {4 * data.epochs}" for name, data in DATA.items()},
    "full": {"camvid": f"--arch unet {GPU}"},
    "full-deeplab": {"camvid": f"--arch deeplabv3plus {GPU}"},
}

BUDGETS = [
    f"{name} `{data.size} --epochs {data.epochs}`, {data.pixels} million pixels seen" for name, data in DATA.items()
]
SAID = {
    "short": f"The same network (`{COMMON} {CPU}`), from ImageNet's weights, and budget for every arm: "
    f"{'; '.join(BUDGETS)}.",
    "long": "As `short`, four times the epochs. Its arms were chosen in `short`.",
    "full": f"A U-Net at full size (`{COMMON} --arch unet {GPU}`), from ImageNet's weights, for a GPU. Its arms were "
    "chosen in `short`.",
    "full-deeplab": "As `full`, DeepLabV3+.",
}

POWER075 = "--loss outlying_mse --label-values power --label-power 0.75"
JACCARD = "--late-jaccard 0.9"  # all but the start, where a posterior of scores about 0 has no gradient
BIAS, LATE, GUIDED, RULE = "--bias-init prior", "--late-jaccard 0.33", "--guided-crops 0.5", "--monitor rule_miou"

OURS = {
    "rank": "--loss outlying_mse",  # the paper's form
    "power075": "--loss outlying_mse --label-values power --label-power 0.75",
    "power05": "--loss outlying_mse --label-values power --label-power 0.5",
    "power025": "--loss outlying_mse --label-values power --label-power 0.25",
    "power1": "--loss outlying_mse --label-values power --label-power 1",
    "log": "--loss outlying_mse --label-values log",
    "mse": "--loss mse",
    "weighted_mse": "--loss weighted_mse",
    "power05-inverse_sqrt": "--loss weighted_outlying_mse --label-values power --class-weights inverse_sqrt",
    "power025-inverse_sqrt": "--loss weighted_outlying_mse --label-values power --label-power 0.25 "
    "--class-weights inverse_sqrt",
    "power075-guided": "--loss outlying_mse --label-values power --label-power 0.75 --guided-crops 0.5",
    "power075-repeat": "--loss outlying_mse --label-values power --label-power 0.75 --repeat-threshold 0.3",
    "power05-guided": "--loss outlying_mse --label-values power --guided-crops 0.5",
    "power075-paste": "--loss outlying_mse --label-values power --label-power 0.75 --mix paste",
    "power075-bias": f"{POWER075} {BIAS}",
    "power075-late-jaccard": f"{POWER075} {LATE}",
    "power075-bias-late-jaccard": f"{POWER075} {BIAS} {LATE}",
    "power075-guided-late-jaccard": f"{POWER075} {GUIDED} {LATE}",
    "power075-k3": f"{POWER075} --true-channel-weight 3",
    "power075-k10": f"{POWER075} --true-channel-weight 10",
    "power05-k10": "--loss outlying_mse --label-values power --true-channel-weight 10",
    "power075-k3-late-jaccard": f"{POWER075} --true-channel-weight 3 {LATE}",
    "power075-k5": f"{POWER075} --true-channel-weight 5",
    "power075-ema": f"{POWER075} --ema 0.99",
    "power075-lr3": f"{POWER075} --lr 3e-3",
    "power075-units": f"{POWER075} {BIAS} --score-units label_values",
    "power05-units": f"--loss outlying_mse --label-values power {BIAS} --score-units label_values",
    "power075-k3-units": f"{POWER075} --true-channel-weight 3 {BIAS} --score-units label_values",
    "power05-k3": "--loss outlying_mse --label-values power --true-channel-weight 3",
    "power05-bias-late-jaccard": f"--loss outlying_mse --label-values power {BIAS} {LATE}",
    "power025-jaccard": f"--loss outlying_mse --label-values power --label-power 0.25 {BIAS} {JACCARD}",
    "power05-jaccard": f"--loss outlying_mse --label-values power {BIAS} {JACCARD}",
    "power075-jaccard": f"{POWER075} {BIAS} {JACCARD}",
    "power075-k3-rule": f"{POWER075} --true-channel-weight 3 {RULE}",  # best.ckpt by what the decision will make of it
    "mse-k10": "--loss mse --true-channel-weight 10",  # Hui & Belkin's own
}
RIVALS = {
    "weighted_ce": "--loss weighted_ce",  # median frequency
    "ce": "--loss ce",
    "focal": "--loss focal",
    "logit_adjusted": "--loss logit_adjusted",
    "logit_adjusted05": "--loss logit_adjusted --adjustment 0.5",
    "weighted_ce-inverse_sqrt": "--loss weighted_ce --class-weights inverse_sqrt",
    "weighted_ce-inverse": "--loss weighted_ce --class-weights inverse",
    "weighted_ce-enet": "--loss weighted_ce --class-weights enet",
    "weighted_ce-effective": "--loss weighted_ce --class-weights effective",
    "ce_jaccard": "--loss 0.25*ce+0.75*jaccard",
    "weighted_ce_jaccard": "--loss 0.25*weighted_ce+0.75*jaccard",
    "ce_dice": "--loss ce+dice",
    "weighted_ce-guided": "--loss weighted_ce --guided-crops 0.5",
    "weighted_ce-repeat": "--loss weighted_ce --repeat-threshold 0.3",
    "weighted_ce-paste": "--loss weighted_ce --mix paste",
    "ce-guided": "--loss ce --guided-crops 0.5",
    # As smp's multiclass example trains (Dice, Adam 2e-4, cosine); network, crops and budget are those of all.
    "smp_recipe": "--loss dice --optimizer adam --lr 2e-4 --schedule cosine --warmup-share 0 --weight-decay 0 "
    "--encoder-lr-factor 1",
    "weighted_ce-rule": f"--loss weighted_ce {RULE}",
    "weighted_ce-bias": f"--loss weighted_ce {BIAS}",
    "weighted_ce-late-jaccard": f"--loss weighted_ce {LATE}",
    "weighted_ce-bias-late-jaccard": f"--loss weighted_ce {BIAS} {LATE}",
    "weighted_ce-guided-late-jaccard": f"--loss weighted_ce {GUIDED} {LATE}",
    "ce-late-jaccard": f"--loss ce {LATE}",
    "ce-bias-late-jaccard": f"--loss ce {BIAS} {LATE}",
    "ce-bias-jaccard": f"--loss ce {BIAS} {JACCARD}",  # as power025-jaccard is trained
    "weighted_ce-bias-jaccard": f"--loss weighted_ce {BIAS} {JACCARD}",
    "weighted_ce_jaccard-inverse_sqrt": "--loss 0.25*weighted_ce+0.75*jaccard --class-weights inverse_sqrt",
    "weighted_ce_jaccard-bias": f"--loss 0.25*weighted_ce+0.75*jaccard {BIAS}",
    "logit_adjusted05-late-jaccard": f"--loss logit_adjusted --adjustment 0.5 {LATE}",
}
DEFAULT = "weighted_ce_jaccard"  # the arm that `train_seg.py` trains without loss flags
# What `python -m segloss.plan` said of a set on 2 cores and 24 GiB, its epochs cut to the pixels that short sees; of
# CamVid and of cracks that is the default as it stands. Facade's row is why it says guided crops of it no longer.
PLANNED = {
    "facade": "--image-scale 0.5 --crop-size 256 192 --epochs 22 --guided-crops 0.5",
    "ccp": "--image-scale 0.5 --crop-size 192 128 --epochs 6 --guided-crops 0.5 --repeat-threshold 0.05",
}
# The default at the other size than in short, after as many pixels: where a class is thin, which one pays?
OTHER_SIZE = {
    "camvid": ("full_size", "--image-scale 1 --crop-size 256 256 --epochs 8"),
    "crackforest": ("half_size", "--image-scale 0.5 --crop-size 128 128 --epochs 72"),
}
ARMS = OURS | RIVALS
# Whose test split is looked at. These five were fixed before any row, but after early figures that had seen CamVid's
# test split with seed 0. What held-out rows choose is added behind them: power075-k3 by CamVid's val, then
# weighted_ce_jaccard by that of three sets, ce_jaccard, whose plain argmax is best on the val of cracks,
# power025-jaccard, the best squared loss there, ce-bias-jaccard, which is trained as that is, and the default with
# milder weights by its plain argmax on val; smp_recipe is what the plan is compared with.
FINAL = (
    *("weighted_ce", "power075", "ce", "rank", "power05"),
    *("power075-k3", "smp_recipe", "weighted_ce_jaccard", "ce_jaccard", "power025-jaccard", "ce-bias-jaccard"),
    "weighted_ce_jaccard-inverse_sqrt",
)
SEEDS = 5
LONG = ("weighted_ce", DEFAULT, "power075", "rank", "ce")  # what a to d ask for in the protocol long


@dataclass(frozen=True)
class Job:
    """One training run: an arm (loss and setting) on a data set by a protocol, with a seed; lower priorities first."""

    dataset: str
    arm: str
    flags: str
    seed: int
    priority: int
    protocol: str = "short"
    test: bool = False  # scored on the test split too

    @property
    def name(self) -> str:
        tag = [] if self.protocol == "short" else [self.protocol]
        return "-".join([self.dataset.replace("/", "-"), *tag, self.arm, f"s{self.seed}"])

    @property
    def base(self) -> str:
        """The data set, of which a fold is a part."""
        return self.dataset.split("/")[0]

    @property
    def data(self) -> DataSet:
        return DATA[self.base]

    @property
    def settings(self) -> list[str]:
        """All flags of train_seg.py that decide what is learnt."""
        flags = f"{COMMON} {PROTOCOLS[self.protocol][self.base]} {self.flags} --seed {self.seed}"
        return ["--dataset", self.data.kind, *shlex.split(flags)]


def job_list() -> list[Job]:
    """All jobs by priority: final arms with one seed, search, more seeds, long training, CamVid's folds; full apart."""
    found = []
    for dataset in DATA:
        for arm in FINAL:
            flags = ARMS[arm]
            found += [Job(dataset, arm, flags, s, 1 if s == 0 else 3 if s < 3 else 4, test=True) for s in range(SEEDS)]
            found += [
                Job(dataset, arm, flags, s, 5 if arm in LONG and s == 0 else 7, "long", test=True) for s in range(SEEDS)
            ]
        found += [Job(dataset, arm, flags, 0, 2) for arm, flags in ARMS.items() if arm not in FINAL]
        others = [("plan", PLANNED[dataset])] if dataset in PLANNED else []
        others += [OTHER_SIZE[dataset]] if dataset in OTHER_SIZE else []
        found += [Job(dataset, arm, f"{ARMS[DEFAULT]} {flags}", 0, 1, test=True) for arm, flags in others]
    found += [Job(f"camvid/{fold}", arm, flags, 0, 6) for arm, flags in ARMS.items() for fold in FOLDS]
    full = [(arm, s, protocol) for arm in FINAL for s in range(SEEDS) for protocol in ("full", "full-deeplab")]
    found += [Job("camvid", arm, ARMS[arm], s, 1 + s, protocol, test=True) for arm, s, protocol in full]
    return sorted(found, key=lambda job: job.priority)


def title_of(name: str) -> str:
    """What a picture calls a run, by the name of its job: its arm, and its epochs where they are not those of short.

    >>> title_of("camvid-long-weighted_ce_jaccard-s0"), title_of("camvid-power075-s1"), title_of("mine")
    ('the default, 60 epochs', 'power 0.75', 'mine')
    """
    job = next((job for job in job_list() if job.name == name), None)
    if job is None:
        return name
    epochs = job.settings[job.settings.index("--epochs") + 1]
    return called(job.arm, DEFAULT) + ("" if job.protocol == "short" else f", {epochs} epochs")


def run_all(runner: Runner, jobs: list[Job], parallel: int) -> tuple[int, int]:
    """Run jobs in order, some at once; how many are left, and how many of these failed."""
    failed: list[Job] = []

    def one(job: Job) -> bool:
        started = time.monotonic()
        if started > runner.deadline:
            return False
        try:
            word = runner.run(job)
        except (Stopped, OSError, ValueError, KeyError) as reason:  # one bad run does not end a night's work
            why = str(reason) if isinstance(reason, (Stopped, InputError)) else repr(reason)
            print(f"{job.name}: left, {why}", flush=True)
            failed.extend([] if isinstance(reason, Later) else [job])
            return False
        if word != "done before":
            print(f"{job.name}: {word}, {(time.monotonic() - started) / 60:.1f} min", flush=True)
        return True

    with ThreadPoolExecutor(parallel) as pool:
        try:
            left = sum(not finished for finished in pool.map(one, jobs))
        except KeyboardInterrupt:
            runner.deadline = 0.0  # ends the children, whose runs can be gone on with
            raise
    return left, len(failed)


ACTIONS = {
    "run": "train and score what has no row yet",
    "list": "the jobs by priority, which of them are trained, and which have a row",
    "tables": "README.md and pictures anew from the rows",
}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("action", choices=("run", "list", "tables"), help="; ".join(map(": ".join, ACTIONS.items())))
    add = parser.add_argument
    given = os.environ.get
    add("--runs", type=Path, default=given("SEGLOSS_RUNS"), help="folder of the runs; default: $SEGLOSS_RUNS")
    add(
        "--rows",
        type=Path,
        default=ROOT / "docs/evidence",
        help="folder of rows, tables and pictures; default: docs/evidence",
    )
    add("--data", nargs="+", default=[], metavar="NAME=DIR", help=f"default: ${variable('camvid')} and so on")
    add("--weights", type=Path, default=given("SEGLOSS_ENCODER_WEIGHTS"), help="ImageNet's, of EfficientNet-Lite0")
    add("--hours", type=float, default=float("inf"), help="begin nothing after it, and stop what runs")
    add(
        "--protocol", nargs="+", choices=PROTOCOLS, default=["short", "long"], help="jobs of these; default: short long"
    )
    add("--only", nargs="+", default=["*"], metavar="NAME", help="jobs of these names, with * and ?; default: all")
    add("--parallel", type=int, default=1, metavar="N", help="runs at once; default: 1")
    add("--again", action="store_true", help="make rows anew, in RUNS/rows, and compare them with those there are")
    add("--score-only", action="store_true", help="train nothing")
    add("--adopted-commit", metavar="REV", help="by which runs of somebody else were trained, on this machine")
    args = parser.parse_args(argv)
    if args.runs is None and (args.action == "run" or args.again or args.score_only):
        parser.error("--runs is missing: a folder outside the repository")
    if args.parallel < 1:
        parser.error(f"--parallel {args.parallel}: expected 1 or more")
    if not args.hours > 0:
        parser.error(f"--hours {args.hours:g}: expected more than 0")
    if not args.rows.is_dir():
        parser.error(f"--rows {args.rows}: is no folder; make it first")
    if args.action == "tables" and not any(args.rows.glob("*.json")):
        parser.error(f"--rows {args.rows}: holds no row")
    pairs = [word.partition("=")[::2] for word in args.data]
    for name, folder in pairs:
        if name not in DATA or not folder or not Path(folder).is_dir():
            parser.error(f"--data {name}={folder}: expected one of {', '.join(DATA)} and a folder")
    args.roots = {name: Path(os.environ[variable(name)]) for name in DATA if variable(name) in os.environ}
    args.roots |= {name: Path(folder).absolute() for name, folder in pairs}
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    if args.action == "tables":
        write_tables(args.rows, OURS, RIVALS, DEFAULT, SAID)
        write_questions(args.rows, OURS, RIVALS, DEFAULT)
        return
    there = args.roots if args.roots or args.action != "list" else DATA  # a list needs no data
    jobs = [job for job in job_list() if job.protocol in args.protocol and job.base in there]
    jobs = [job for job in jobs if any(fnmatch.fnmatch(job.name, pattern) for pattern in args.only)]
    if not jobs:
        where = ", ".join(args.roots) or "no data"
        raise InputError(f"no job is called {' '.join(args.only)} on {where}", "see --data, --only, --protocol")
    runs, weights = Path(args.runs or os.devnull).absolute(), args.weights and Path(args.weights).absolute()
    deadline = time.monotonic() + 3600 * args.hours
    rows = runs / "rows" if args.again else args.rows
    runner = Runner(runs, rows, args.roots, weights, deadline, args.adopted_commit)
    if args.score_only:
        jobs = [job for job in jobs if runner.trained(job)]
    if args.action == "list":
        width = max(len(job.name) for job in jobs)
        lines = [f"{'priority':8} {'job':{width}} {'run':8} row"]
        for job in jobs:
            state = "trained" if runner.trained(job) else "begun" if (runs / job.name).is_dir() else "-"
            row = "complete" if runner.complete(job) else "begun" if runner.row_file(job).is_file() else "-"
            lines.append(f"{job.priority:<8} {job.name:{width}} {state if args.runs else '?':8} {row}")
        print("\n".join(lines))
        return
    for name in dict.fromkeys(job.base for job in jobs if not runner.complete(job)):
        require_same_data(name, DATA[name].kind, args.roots[name], args.rows)
    runs.mkdir(parents=True, exist_ok=True)
    if "camvid" in args.roots:
        make_folds(args.roots["camvid"], runs / "folds", FOLDS)
    for number in (signal.SIGINT, signal.SIGTERM):  # of a job in the background they are ignored, by its children too
        signal.signal(number, signal.default_int_handler)
    left, failed = run_all(runner, jobs, args.parallel)
    if args.again:
        print("\n".join(line for job in jobs for line in compared(args.rows, rows, job.name)))
    print(f"{len(jobs) - left} of {len(jobs)} jobs are complete; rows: {rows}")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    exit_on_input_error(main)
