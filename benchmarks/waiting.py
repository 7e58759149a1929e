"""How OpenMP's threads wait, and what that costs a training step beside other work.

    python benchmarks/waiting.py --seconds 7          # 3 minutes on 2 cores

Each way of waiting in an environment of its own: alone, beside one busy process, beside a second training. Prints the
median step in ms of each training, and JSON with the load of the machine when it began.
"""

import argparse
import json
import os
import subprocess
import sys
import time

from command import parser_of

from segloss.errors import exit_on_input_error

WAYS = {
    "spinning": {},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
}
BESIDE = {"alone": (1, 0), "one busy process": (1, 1), "a second training": (2, 0)}  # trainings, busy processes


def train(seconds: float) -> None:
    """Steps for so long once a line comes in; prints their median in ms."""
    import torch

    from segloss.losses import build_criterion
    from segloss.models import ModelOptions

    model = ModelOptions(encoder="resnet18").build(11).train()
    criterion = build_criterion("outlying_mse", [10**k for k in range(11)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    images = torch.randint(0, 256, (4, 3, 96, 96), dtype=torch.uint8)
    labels = torch.randint(0, 11, (4, 96, 96))

    def step() -> float:
        began = time.perf_counter()
        optimizer.zero_grad()
        criterion(model(images), labels).backward()
        optimizer.step()
        return time.perf_counter() - began

    step()
    print("ready", flush=True)
    sys.stdin.readline()
    end, taken = time.perf_counter() + seconds, [step()]
    while time.perf_counter() < end:
        taken.append(step())
    print(1000 * sorted(taken)[len(taken) // 2], flush=True)


def steps_ms(way: dict[str, str], trainings: int, busy: int, seconds: float) -> list[float]:
    """Median step of each training, all begun at once."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    command = [sys.executable, __file__, "--train", "--seconds", str(seconds)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    runs = [subprocess.Popen(command, env={**plain, **way}, **pipes) for _ in range(trainings)]
    for run in runs:
        run.stdout.readline()
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    for run in runs:
        run.stdin.write("\n")
        run.stdin.flush()
    found = [float(run.communicate()[0]) for run in runs]
    for other in others:
        other.kill()
    return found


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seconds", type=float, default=7, help="of each measurement")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS])
    parser.add_argument("--beside", nargs="+", choices=BESIDE, default=[*BESIDE])
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(options.seconds)
        return
    results, load = {}, os.getloadavg()
    for beside in options.beside:
        for way in options.ways:
            found = steps_ms(WAYS[way], *BESIDE[beside], options.seconds)
            results[f"{way}, {beside}"] = found
            print(f"{beside:<18} {way:<24} {', '.join(f'{ms:.0f} ms' for ms in found)}", flush=True)
    print(json.dumps({"load": load, "cores": os.cpu_count(), "step_ms": results}))


if __name__ == "__main__":
    exit_on_input_error(main)
