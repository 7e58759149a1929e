"""Both commands keep OpenMP's threads from spinning on a busy machine, unless somebody asks for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp says what it was told, others do not")
@pytest.mark.parametrize(("given", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "active"}, "ACTIVE")])
@pytest.mark.parametrize("command", ["train_seg.py", "eval_seg.py"])
def test_threads_do_not_spin_while_they_wait(command, given, policy):
    """Beside a second training a step took 16 s instead of 1."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, str(ROOT / command), "--workers", "-1", "--dataset", "synthetic"],
        capture_output=True,
        text=True,
        env={**environment, **given, "OMP_DISPLAY_ENV": "true", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2 and "--workers must be in 0..1024" in done.stderr
    assert f"OMP_WAIT_POLICY = '{policy}'" in done.stderr
