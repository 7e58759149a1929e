"""Training in several processes: started by a launcher or by Lightning, they train one run and end together."""

import csv
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from launched import ROOT, TORCHRUN, ended, free_port, started
from street_trees import TINY, street_tree

import train_seg
from segloss.config import TrainConfig
from segloss.errors import InputError
from segloss.flags import from_plain_dict
from segloss.ranks import Ranks
from segloss.training.processes import require_processes

TWO = ["--devices", "2", "--accelerator", "cpu", "--batch-size", "2"]
LOST = "error: process {} of 2{} has ended before its work was done"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEGLOSS_RUN_FOLDER", raising=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return street_tree(tmp_path_factory.mktemp("streets"))


def arguments(data: Path, *more: object) -> list[str]:
    return ["--dataset", "camvid", "--data-path", str(data), *TINY, *TWO, *map(str, more)]


def test_torchrun_trains_as_lightning_alone_does(data, tmp_path):
    """The folder's name is the first process's, though each starts at a time of its own."""
    alone = [sys.executable, ROOT / "train_seg.py", *arguments(data, "--epochs", 1, "--output-dir", tmp_path / "alone")]
    started_by = [*TORCHRUN, free_port(), ROOT / "train_seg.py", *arguments(data, "--epochs", 1)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = []
    for command in (alone, started_by):
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    (folder,) = (tmp_path / "runs").iterdir()
    rows = []
    for run in (tmp_path / "alone", folder):
        with (run / "history.csv").open(newline="") as file:
            rows += [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]
    assert len(rows) == 2 and rows[0] == rows[1] and rows[0]["step"] == "2"
    assert all(text.count("run folder: ") == text.count("epoch 1/1") == 1 for text in said)
    assert (folder / "test_metrics.json").read_text().count("iou") == (
        tmp_path / "alone/test_metrics.json"
    ).read_text().count("iou")


def wait_for(path: Path, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} has not come"
        time.sleep(0.1)


def children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_of_a_launcher_ends_the_others(data, tmp_path, rank):
    folder = tmp_path / "run"
    argv = arguments(data, "--epochs", 500, "--output-dir", folder)
    processes = started(2, ROOT / "train_seg.py", *argv, LOCAL_WORLD_SIZE="2", TORCHELASTIC_RUN_ID="none")
    wait_for(folder / "history.csv")
    processes[rank].kill()
    began = time.monotonic()
    found = ended(processes, 60)
    assert time.monotonic() - began < 20
    status, _, error = found[1 - rank]
    assert status == 1 and error.splitlines()[-1] == LOST.format(rank, "" if rank else ", the first,")
    assert "Traceback" not in error


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for children in /proc")
@pytest.mark.parametrize("killed", ["first", "second"])
def test_a_killed_process_that_lightning_started_ends_the_other(data, tmp_path, killed):
    folder = tmp_path / "run"
    argv = arguments(data, "--epochs", 500, "--output-dir", folder)
    process = subprocess.Popen(
        [sys.executable, ROOT / "train_seg.py", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(folder / "history.csv")
    (child,) = [other for other in children(process.pid) if "train_seg.py" in command_of(other)]
    os.kill(process.pid if killed == "first" else child, signal.SIGKILL)
    _, error = process.communicate(timeout=60)
    line = LOST.format(*(0, ", the first,") if killed == "first" else (1, ""))
    assert error.splitlines()[-1] == line and "Traceback" not in error
    assert process.returncode == (-signal.SIGKILL if killed == "first" else 1)
    wait_until_gone(child)


def command_of(process: int) -> str:
    return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def wait_until_gone(process: int, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while Path(f"/proc/{process}").exists():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_fsdp_without_a_gpu_is_refused_in_one_line(data, tmp_path):
    argv = arguments(data, "--trainer.strategy", "fsdp", "--output-dir", tmp_path / "run")
    with pytest.raises(InputError) as raised:
        train_seg.train(argv)
    line = str(raised.value)
    assert "`fsdp` requires a GPU accelerator" in line and "\n" not in line and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("started", "asked", "message"),
    [
        (2, {}, "2 processes were started for --devices 1; give --devices as many as there are on a machine"),
        (4, {"devices": 2}, "4 processes were started for --devices 2"),
        (
            2,
            {"devices": 2, "trainer": {"num_nodes": 2}},
            "2 processes were started for --devices 2 on each of 2 machines",
        ),
        (1, {"devices": 2}, None),  # Lightning starts the other
        (2, {"devices": 2}, None),
        (4, {"devices": 2, "trainer": {"num_nodes": 2}}, None),
    ],
)
def test_as_many_processes_as_devices(monkeypatch, started, asked, message):
    monkeypatch.setattr("segloss.training.processes.here", lambda: Ranks(size=started))
    with nullcontext() if message is None else pytest.raises(InputError, match=message):
        require_processes(from_plain_dict(TrainConfig, asked))
