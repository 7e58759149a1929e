"""One run of evidence.py: folds of CamVid, training that can be killed, scores under every decision, the row.

train_seg.py and eval_seg.py do the work, each in a process of its own, so that anyone can repeat a row by its command.
"""

import csv
import fcntl
import functools
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

from segloss.errors import InputError

if TYPE_CHECKING:
    from evidence import Job

ROOT = Path(__file__).resolve().parent.parent
TRAIN = [sys.executable, str(ROOT / "train_seg.py")]
SCORE = [sys.executable, str(ROOT / "benchmarks" / "evidence_scores.py")]
QUIET = 600  # seconds without a written file after which a run that somebody else began counts as stopped
# What a row must have; of decisions.py's those of OF_NETWORK and its blocks.
OF_NETWORK = {"name": str, "dataset": str, "arm": str, "seed": int}
OF_RUN = {**OF_NETWORK, "protocol": str, "scores": dict}
SCORES = {"val": ("miou",), "test": ("miou", "mean_accuracy", "pixel_accuracy", "iou", "blocks")}
REDO = "make it anew, or take it back from git"
# May differ between a run and its job: where and how fast, not what is learnt.
PLACE = {"output_dir", "data_path", "encoder_weights"}
FREE = PLACE | {"workers", "resume", "check", "cache", "precision", "accelerator", "devices"}


class Stopped(Exception):
    """The run cannot be made now; the message says why."""


class Later(Stopped):
    """The time is over, or another process makes it: nothing is wrong."""


@contextmanager
def held(path: Path) -> Iterator[int]:
    """The lock of a run, which a child that inherits it keeps when this process is killed."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Later("in work by another process") from None
        yield file.fileno()


@dataclass
class Runner:
    """Makes runs and rows: ``run(job)`` does whatever a job still lacks."""

    runs: Path
    rows: Path
    roots: dict[str, Path]
    weights: Path | None = None
    deadline: float = float("inf")  # of time.monotonic()
    adopted_commit: str | None = None

    def run(self, job: "Job") -> str:
        """Train what is not trained, score what is not scored; a word on what was done."""
        if self.complete(job):
            return "done before"
        folder, began = self.runs / job.name, self.runs / f"{job.name}.began"
        if not folder.is_dir() and self.row_file(job).is_file():
            raise Stopped("its run folder is gone, and its row lacks scores")
        if not self.trained(job) and not began.is_file() and time.time() - newest(folder) < QUIET:
            raise Later("somebody else seems to train it")
        with held(self.runs / f"{job.name}.lock") as descriptor:
            new = not self.trained(job)
            if new:
                if not began.is_file():
                    began.write_text(json.dumps(machine()))  # of the training, whoever scores it later
                self.train(job, descriptor)
            self.score(job, self.row(job, adopted=not began.is_file()), descriptor)
        return "trained and scored" if new else "scored"

    def complete(self, job: "Job") -> bool:
        """Whether its row has the scores of every split that is to be scored; older rows do not say how."""
        if not self.row_file(job).is_file():
            return False
        row = read_row(self.row_file(job))
        return "auto" in row and ({"val", "test"} if job.test else {"val"}) <= row["scores"].keys()

    def trained(self, job: "Job") -> bool:
        """Whether train_seg.py came to its end, where it writes the scores of the last split."""
        return (self.runs / job.name / f"{'val' if '/' in job.dataset else 'test'}_metrics.json").is_file()

    def row_file(self, job: "Job") -> Path:
        return self.rows / f"{job.name}.json"

    def root(self, job: "Job") -> Path:
        if job.base not in self.roots:
            raise Stopped(f"needs --data {job.base}=DIR or ${variable(job.base)}")
        return self.runs / "folds" / job.dataset.split("/")[1] if "/" in job.dataset else self.roots[job.base]

    def train(self, job: "Job", descriptor: int) -> None:
        folder = self.runs / job.name
        place = ["--output-dir", str(folder), "--data-path", str(self.root(job))]
        if (folder / "config.yaml").is_file():
            self.require_same_settings(job)
            command = [*TRAIN, *job.settings, "--resume", *place]
        else:
            shutil.rmtree(folder, ignore_errors=True)  # killed before it was a run
            if self.weights is None:
                raise Stopped("needs --weights FILE or $SEGLOSS_ENCODER_WEIGHTS")
            command = [*TRAIN, *job.settings, "--encoder-weights", str(self.weights), *place]
        self.call(command, job, descriptor)

    def require_same_settings(self, job: "Job") -> None:
        """Stopped unless the folder's config is what the job's flags mean to train_seg.py."""
        asked = told(*TRAIN, *job.settings, "--print_config")
        if not asked:
            raise Stopped(f"train_seg.py refuses {shlex.join(job.settings)}")
        folder = self.runs / job.name
        wanted, found = yaml.safe_load(asked), yaml.safe_load((folder / "config.yaml").read_text())
        for key in sorted(wanted.keys() & found.keys() - FREE):
            if wanted[key] != found[key]:
                raise Stopped(f"{folder}: {key} is {found[key]} there and {wanted[key]} in the job; move that folder")

    def row(self, job: "Job", adopted: bool) -> dict:
        """The row of a trained run: what was run, on what; scores are added to it."""
        if self.row_file(job).is_file():
            return read_row(self.row_file(job))
        self.require_same_settings(job)
        folder = self.runs / job.name
        config = yaml.safe_load((folder / "config.yaml").read_text())
        if (folder / "used.yaml").is_file():  # older runs keep what they used among what was asked
            config |= yaml.safe_load((folder / "used.yaml").read_text())
        seconds, history = history_of(folder)
        here = dict(machine()) if not adopted or self.adopted_commit else dict.fromkeys(machine())  # unknown
        began = self.runs / f"{job.name}.began"
        if adopted:
            here["commit"] = self.adopted_commit
        elif text := began.read_text():  # empty: of an earlier version of this script
            here = json.loads(text)
        weights = Path(config["encoder_weights"]).name
        where = f"--data-path ${variable(job.base)} --encoder-weights {weights}"
        command = f"{shlex.join(['python', 'train_seg.py', *job.settings])} {where}"
        about = {"name": job.name, "dataset": job.dataset, "protocol": job.protocol, "arm": job.arm, "seed": job.seed}
        about |= {"command": command, "adopted": adopted, **here, "precision": config["precision"]}
        return about | {"seconds": round(sum(seconds)), "epochs": len(seconds), "history": history, "scores": {}}

    def score(self, job: "Job", row: dict, descriptor: int) -> None:
        """Score the run under every decision, and write its row."""
        folder = self.runs / job.name
        target = folder / "evidence.json"
        place = ["--data-path", str(self.root(job)), "--output", str(target), "--block", str(job.data.block)]
        self.call([*SCORE, str(folder), *place, *(["--test"] if job.test else [])], job, descriptor)
        write_row(self.row_file(job), row | json.loads(target.read_text()))

    def call(self, command: list[str], job: "Job", descriptor: int) -> None:
        """Run a command to its end or to the deadline, its words into the run's log; Stopped if it fails or is late."""
        log = self.runs / f"{job.name}.log"
        with log.open("ab") as out:
            child = subprocess.Popen(command, stdout=out, stderr=out, env=environment(), pass_fds=[descriptor])
            while child.poll() is None:
                if time.monotonic() > self.deadline:
                    child.send_signal(signal.SIGINT)  # Lightning ends in order
                    try:
                        child.wait(60)
                    except subprocess.TimeoutExpired:
                        child.kill()
                    raise Later("out of time; the next call goes on with it")
                time.sleep(0.2)
        if child.returncode:
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise Stopped(f"{Path(command[1]).name} failed, see {log}: {''.join(last)}")


def history_of(folder: Path) -> tuple[list[float], dict[str, list[float]]]:
    """Seconds of each epoch of a run, and IoU on val by the plain argmax after it, of classes from frequent to rare."""
    with (folder / "history.csv").open() as file:
        lines = list(csv.DictReader(file))
    counts = json.loads((folder / "pixel_counts.json").read_text())
    by_pixels = sorted(zip(counts["pixels"], counts["class_names"], strict=True), reverse=True)
    iou = {name: [float(line[f"val_iou/{name}"]) for line in lines] for _, name in by_pixels}
    return [float(line["seconds"]) for line in lines], iou


def newest(folder: Path) -> float:
    """When a file of a run was last written, in seconds of time.time()."""
    return max((file.stat().st_mtime for file in folder.rglob("*") if file.is_file()), default=0.0)


def read_row(file: Path, needed: Mapping[str, type] = OF_RUN) -> dict:
    """A row that holds what is ``needed``; InputError where it is cut off, or another file."""
    try:
        row = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"is no row: {error}", REDO, file) from error
    if not isinstance(row, dict):
        raise InputError("is no row", REDO, file)
    for key, kind in needed.items():
        if not isinstance(row.get(key), kind):
            raise InputError(f"is no row: {key} is {'missing' if key not in row else repr(row[key])}", REDO, file)
    try:
        require_scores(row)
    except InputError as error:
        raise InputError(error.what, REDO, file) from None
    return row


def require_scores(row: dict) -> None:
    """InputError where scores are missing, or the pixels of one decision are of other blocks or classes."""
    kinds = {"test": {name: {"blocks": blocks} for name, blocks in row["blocks"].items()}} if "blocks" in row else {}
    for split, decisions in row.get("scores", kinds).items():
        shapes = {}
        for name, scores in decisions.items():
            for key in SCORES.get(split, ()) if "scores" in row else ("blocks",):
                if key not in scores:
                    raise InputError(f"{key} of {split}, {name} is missing")
            if "blocks" in scores:
                shapes[name] = shape_of(scores["blocks"])
                classes = len(row.get("classes", ())) or shapes[name][-1]
                if len(shapes[name]) != 3 or shapes[name][1:] != (3, classes):
                    raise InputError(
                        f"blocks of {split}, {name} are not right, true and predicted pixels of each class"
                    )
        if len(set(shapes.values())) > 1:
            told = ", ".join(f"{name} {shape[0]}" for name, shape in shapes.items())
            raise InputError(f"the decisions of {split} have unlike numbers of blocks: {told}")


def shape_of(numbers: list) -> tuple[int, ...]:
    """Of lists of lists; (0,) where they are ragged or no numbers."""
    try:
        return np.array(numbers, dtype=float).shape or (0,)
    except (TypeError, ValueError):
        return (0,)


def write_row(path: Path, row: dict) -> None:
    """One row as JSON, whole or not at all; lists of numbers on one line, ratios to five digits."""
    text = json.dumps(json.loads(json.dumps(row), parse_float=lambda number: round(float(number), 5)), indent=1)
    text = re.sub(r"\[[\s\d.,\[\]eE+nul-]*\]", lambda found: re.sub(r"\s+", "", found[0]), text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".part").write_text(text + "\n")
    path.with_suffix(".part").replace(path)


def compared(rows: Path, again: Path, name: str) -> Iterator[str]:
    """A line for each decision of a row made anew, with what the row that was there says."""
    files = [folder / f"{name}.json" for folder in (rows, again)]
    if not files[1].is_file():
        return
    old, new = (read_row(file)["scores"] if file.is_file() else {} for file in files)
    for split, decisions in new.items():
        for decision, scores in decisions.items():
            was = old.get(split, {}).get(decision)
            before = "not there before" if was is None else f"was {100 * was['miou']:.1f}"
            yield f"{name}: {split} {decision:6} {100 * scores['miou']:.1f}, {before}"


def environment() -> dict[str, str]:
    """One core a run unless OMP_NUM_THREADS says otherwise; threads that wait do not spin."""
    usual = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "NO_ALBUMENTATIONS_UPDATE": "1"}
    return usual | os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def told(*command: str) -> str:
    """What a command prints; nothing if it cannot be had."""
    return subprocess.run(command, capture_output=True, text=True, env=environment()).stdout.strip()


@functools.cache
def machine() -> dict:
    """What a row says of where it was made."""
    import torch

    git = ("git", "-C", str(ROOT))
    changed = "-changed" if told(*git, "status", "--porcelain", "--untracked-files=no", "--", "*.py") else ""
    models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "commit": told(*git, "rev-parse", "--short=12", "HEAD") + changed,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else (models or ["CPU"])[0],
        "threads": int(environment()["OMP_NUM_THREADS"]),
        "torch": importlib.metadata.version("torch"),
    }


def make_folds(camvid: Path, target: Path, folds: Sequence[str]) -> None:
    """``target/SEQUENCE``: links to CamVid's images of train and val, val being that sequence and train the others."""
    if target.is_dir():
        return
    building = target.with_name(f".{target.name}-{os.getpid()}")
    for kind in ("", "annot"):
        for source in (file for split in ("train", "val") for file in (camvid / f"{split}{kind}").iterdir()):
            for fold in folds:
                split = "val" if source.name.partition("_")[0] == fold else "train"
                place = building / fold / f"{split}{kind}"
                place.mkdir(parents=True, exist_ok=True)
                (place / source.name).symlink_to(source.resolve())
    building.rename(target)


def require_same_data(name: str, kind: str, root: Path, rows: Path) -> None:
    """InputError unless the test split has the classes and as many images as the rows of that set say."""
    from segloss.datasets import build_dataset

    def told(classes: Sequence[str], images: int) -> str:
        more = " ..." if len(classes) > 3 else ""
        return f"{images} test images of {len(classes)} classes ({', '.join(classes[:3])}{more})"

    found = build_dataset(kind, root, "test")
    here = (list(found.classes.names), len(found))
    for file in sorted(rows.glob(f"{name}-*.json")):
        row = read_row(file)
        there = (row.get("classes"), row.get("images"))  # None: not scored on test
        if row["dataset"] == name and None not in there and here != there:
            what = f"is not the {name} of {file.name}: {told(*here)} here, {told(*there)} there"
            raise InputError(what, f"choose another folder: --data {name}=DIR", root)


def variable(dataset: str) -> str:
    """The environment variable of a data set's folder, unless --data names it."""
    return f"SEGLOSS_{dataset.upper()}"
