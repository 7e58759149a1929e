"""How long a command takes to answer what needs no data.

    python benchmarks/start.py --repeats 7            # half a minute

Each command in a process of its own, in turns: seconds on the clock and of the processor, medians, beside those of an
empty Python and of ``import torch``. Prints a table, and JSON as the last line.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from command import parser_of

from segloss.errors import exit_on_input_error

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import segloss": ["-c", "import segloss"],
    "import segloss; segloss.OutlyingMSELoss": ["-c", "import segloss; segloss.OutlyingMSELoss"],
    "train_seg.py": ["train_seg.py"],
    "train_seg.py --help": ["train_seg.py", "--help"],
    "train_seg.py --backbone resnet18": ["train_seg.py", "--backbone", "resnet18"],
    "eval_seg.py --help": ["eval_seg.py", "--help"],
    "python -m segloss": ["-m", "segloss"],
    "python -m segloss doctor --help": ["-m", "segloss", "doctor", "--help"],
}


def took(words: list[str]) -> tuple[float, float]:
    """Seconds on the clock and of the processor of one process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": ""}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    if repeats < 1:
        parser.error("--repeats must be at least 1")
    for words in COMMANDS.values():  # compiled, and in the memory of files
        took(words)
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for _ in range(repeats):
        for name, words in COMMANDS.items():
            runs[name].append(took(words))
    found = {}
    print(f"| command | s | CPU s | of import torch |\n|{'---|' * 4}")
    torch = statistics.median(cpu for _, cpu in runs["import torch"])
    for name, taken in runs.items():
        clock, cpu = (statistics.median(each) for each in zip(*taken, strict=True))
        found[name] = {"seconds": clock, "cpu_seconds": cpu, "slowest": max(seconds for seconds, _ in taken)}
        print(f"| {name} | {clock:.2f} | {cpu:.2f} | {cpu / torch:.2f} |")
    print(json.dumps({"repeats": repeats, "load": os.getloadavg()[0], "commands": found}))


if __name__ == "__main__":
    exit_on_input_error(main)
