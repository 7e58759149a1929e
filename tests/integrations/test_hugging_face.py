"""Trainer looks for a package called datasets: its tests run away from the project's folder of that name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_segformer_and_trainer(tmp_path):
    pytest.importorskip("accelerate")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    tests = Path(__file__).with_name("hugging_face.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'own'}", tests]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout and "skipped" not in done.stdout
