"""kill -9 at any moment: what is left after going on is what an undisturbed run leaves, to the last bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import killed_runs
import pytest
from street_trees import street_tree

PLACES = ["any time", "first epoch", "validation", "write", "rename", "scoring"]
KILLS = int(os.environ.get("SEGLOSS_KILLS", "4"))  # 20 took 19 min beside four other processes on two cores


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return street_tree(tmp_path_factory.mktemp("streets"))


def other_file_system(than: Path) -> Path | None:
    shared_memory = Path("/dev/shm")
    usable = shared_memory.is_dir() and os.access(shared_memory, os.W_OK)
    return shared_memory if usable and shared_memory.stat().st_dev != than.stat().st_dev else None


@pytest.mark.slow
def test_a_killed_run_that_is_gone_on_with_is_that_which_was_not_killed(data, tmp_path):
    """With the folder of temporary files on another file system, where there is one."""
    places = [PLACES[(number + 1) % len(PLACES)] for number in range(KILLS)]
    temporary = {"TMPDIR": str(other)} if (other := other_file_system(tmp_path)) else {}
    environment = {**os.environ, **temporary, "SEGLOSS_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    environment.pop("SEGLOSS_RUN_FOLDER", None)
    command = [sys.executable, killed_runs.__file__, str(data), str(tmp_path), *places]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    trials = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(trials) == KILLS and sum(trial["kills"] for trial in trials) >= KILLS
    wrong = [trial for trial in trials if trial["wrong"]]
    assert not wrong, f"{len(wrong)} of {KILLS}: {json.dumps(wrong, indent=1)}"
