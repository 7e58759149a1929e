"""What a user's type checker sees of the package, from a checkout."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILE = """
import segloss
from segloss.datasets import build_dataset
reveal_type(build_dataset)
reveal_type(segloss.build_dataset)
reveal_type(segloss.load_run)
reveal_type(segloss.build_model)
build_dataset("camvid", None, 3)
segloss.build_dataset("camvid", None, "train", classes="11")
segloss.load_run("runs/a").predict("a.png")
""".lstrip()


def test_public_functions_have_types_and_a_wrong_argument_is_an_error(tmp_path):
    path = tmp_path / "user.py"
    path.write_text(FILE)
    command = [sys.executable, "-m", "mypy", "--follow-imports", "silent", str(path)]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    said = [line.split(": ", 1)[1] for line in done.stdout.splitlines() if "user.py:" in line]
    revealed = [re.search(r'"def .* -> ([\w.]+)"', line) for line in said if "Revealed type" in line]
    assert [found and found[1] for found in revealed] == [
        "segloss.datasets.base.SegmentationDataset",
        "segloss.datasets.base.SegmentationDataset",
        "segloss.runs.Run",
        "segloss.models.SegmentationModel",
    ], done.stdout + done.stderr
    errors = [line for line in said if line.startswith("error")]
    assert len(errors) == 3 and all("incompatible type" in line for line in errors), done.stdout
