"""Runs of train_seg.py that are killed and gone on with: one process imports all, forks each, compares what is left.

python killed_runs.py DATA FOLDER PLACE...: every PLACE is a run that is killed there once or more.
"""

import json
import os
import random
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import train_seg
from segloss.run_folder import CONFIG
from segloss.weight_files import BEST, LAST, SHARED

OPTIONS = (
    "--dataset camvid --arch fpn --encoder tu-mobilenetv3_small_050 --encoder-weights none --precision 32-true "
    "--accelerator cpu --workers 0 --check off --crop-size 64 64 --batch-size 2 --epochs 3 --lr 3e-3 --mix paste "
    "--color strong"
)
OF_THE_FOLDER = ("output_dir:", "checkpoint_minutes:")
WALL_CLOCK = ("seconds", "wait_share")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_call(owner: Any, name: str, count: int) -> None:
    """Killed at the so-many-th call of a function."""
    function, calls = getattr(owner, name), iter(range(count))

    def counted(*args: Any, **options: Any) -> Any:
        if next(calls, None) is None:
            die()
        return function(*args, **options)

    setattr(owner, name, counted)


def die_in_write(count: int, share: float) -> None:
    """Killed within the so-many-th checkpoint, a share of whose bytes are on disk."""
    save, calls = torch.save, iter(range(count))

    def half(content: Any, file: Any, *args: Any) -> None:
        save(content, file, *args)
        if next(calls, None) is None:
            file.flush()
            os.ftruncate(file.fileno(), int(share * file.tell()))
            die()

    torch.save = half


def set_up_death(place: str, draw: random.Random, seconds: float) -> None:
    """In the child: what kills it there, at a moment drawn at random."""
    from segloss.training.task import SegmentationTask

    if place == "any time":
        threading.Timer(draw.uniform(0, seconds), die).start()
    elif place == "first epoch":
        die_at_call(SegmentationTask, "training_step", draw.randrange(5))
    elif place == "validation":
        die_at_call(SegmentationTask, "validation_step", draw.randrange(6))
    elif place == "write":
        die_in_write(draw.randrange(12), draw.random())
    elif place == "rename":
        die_at_call(Path, "replace", draw.randrange(24))
    elif place == "scoring":
        score = train_seg.score_run

        def dying(*args: Any) -> None:
            threading.Timer(draw.uniform(0, seconds / 4), die).start()
            score(*args)

        train_seg.score_run = dying
    else:
        raise ValueError(place)


def run(argv: list[str], before: Callable[[], None], log: Path) -> int:
    """train_seg.py in a fork; its status, -9 where it was killed."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    status = 1
    try:
        before()
        sys.argv = ["train_seg.py", *argv]
        train_seg.main()
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


SPEED = ("images_per_second", "wait_share", "peak_mib", "minutes_left")


def events(folder: Path) -> dict[str, list[tuple[int, str]]]:
    """What TensorBoard shows: (step, value) of each tag, but for how fast the machine was."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [(event.step, str(event.value)) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
        if tag not in SPEED
    }


def outcome(folder: Path) -> dict[str, Any]:
    """All that must not depend on stops; of floats the very bits."""
    last, best = (torch.load(folder / name, weights_only=True) for name in (LAST, BEST))
    history = next(value for key, value in last["callbacks"].items() if key == "History")
    found: dict[str, Any] = {
        "history.csv": [line.rsplit(",", 1)[0] for line in (folder / "history.csv").read_text().splitlines()],
        "rows": str([{key: value for key, value in row.items() if key not in WALL_CLOCK} for row in history["rows"]]),
        "events": events(folder),
        "optimiser": str(last["optimizer_states"]),
        "schedule": str(last["lr_schedulers"]),
        "place": (last["global_step"], best["global_step"], best["epoch"]),
        "best score": [str(value.get("best_model_score")) for value in last["callbacks"].values()],
        "config": [line for line in (folder / CONFIG).read_text().splitlines() if not line.startswith(OF_THE_FOLDER)],
    }
    states = {"last": last["state_dict"], "best": best["state_dict"], "shared": load_file(folder / SHARED)}
    for name, state in states.items():
        found |= {f"{name} {key}": value.numpy().tobytes() for key, value in state.items()}
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.png")]):
        found[path.name] = path.read_bytes().replace(str(folder).encode(), b"")  # scores name the checkpoint
    return found


def differences(folder: Path, expected: dict[str, Any]) -> list[str]:
    found = outcome(folder)
    return sorted(key for key in {*found, *expected} if found.get(key) != expected.get(key))


def main() -> None:
    data, base, *places = sys.argv[1:]
    folder = Path(base)
    torch.set_num_threads(1)
    common = ["--data-path", data, *shlex.split(OPTIONS)]
    started = time.monotonic()
    status = run([*common, "--output-dir", str(folder / "whole/run")], lambda: None, folder / "whole.log")
    seconds = time.monotonic() - started
    assert status == 0, (folder / "whole.log").read_text()
    expected = outcome(folder / "whole/run")
    for number, place in enumerate(places):
        draw = random.Random(number)
        here, kills = folder / f"{number}/run", 0  # pictures and scores name the folder
        argv = [*common, "--checkpoint-minutes", draw.choice(["0", "0.001", "10"]), "--output-dir", str(here)]
        status, deaths = -9, draw.choice([1, 2, 3])
        while status == -9:
            resumed = ["--resume"] if here.is_dir() and any(here.iterdir()) else []
            moment = random.Random(draw.random())
            death = partial(set_up_death, place, moment, seconds) if kills < deaths else lambda: None
            status = run([*argv, *resumed], death, folder / f"{number}.log")
            kills += status == -9
        wrong = ["ended badly"] if status else differences(here, expected)
        log = (folder / f"{number}.log").read_text() if wrong else ""
        told = {"place": place, "kills": kills, "status": status, "wrong": wrong, "log": log[-4000:]}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
