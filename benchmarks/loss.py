"""Time and memory of the outlying loss against the plain formula and F.cross_entropy, in one process.

    python benchmarks/loss.py [--sizes cityscapes ...] [--device cpu|cuda] [--dtype float32|bfloat16] [--compile]

Per size: forward and backward time (median, fastest and slowest of --repeats), extra peak memory beyond the logits and
their gradient, and how near the traffic that cannot be avoided (logits read twice, gradient written once) comes to the
measured copy bandwidth. The contenders take turns, so that a slow second of the machine hits all of them. Prints a
table and one line of JSON.
"""

import argparse
import ctypes
import gc
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from segloss import OutlyingMSELoss

SIZES = {
    "camvid": (8, 11, 360, 480),
    "cityscapes": (4, 19, 512, 1024),
    "cityscapes-full": (1, 19, 1024, 2048),
    "150-classes": (2, 150, 512, 512),
}
IGNORED_SHARE = 0.05


def plain_formula(label_values: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """What one writes first: one_hot, times the label values, F.mse_loss on the valid pixels."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        valid = labels != 255
        teacher = F.one_hot(labels.where(valid, 0), len(label_values)) * label_values
        squares = F.mse_loss(logits.movedim(1, -1), teacher.to(logits.dtype), reduction="none")
        return (squares * valid.unsqueeze(-1)).sum() / (valid.sum() * len(label_values))

    return loss


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, ignore_index=255)


def contenders(num_classes: int, device: str, compiled: bool) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    label_values = torch.arange(1.0, num_classes + 1, device=device)
    found = {
        "outlying_mse": OutlyingMSELoss(label_values).to(device),
        "plain formula": plain_formula(label_values),
        "F.cross_entropy": cross_entropy,
    }
    if compiled:
        found["plain, compiled"] = torch.compile(plain_formula(label_values))
        found["F.cross_entropy, compiled"] = torch.compile(cross_entropy)
    return found


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def step_ms(loss: Callable, logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Milliseconds of one forward and one backward pass."""
    logits.grad = None
    device = logits.device.type
    synchronise(device)
    started = time.perf_counter()
    value = loss(logits, labels)
    synchronise(device)
    between = time.perf_counter()
    value.backward()
    synchronise(device)
    return 1e3 * (between - started), 1e3 * (time.perf_counter() - between)


def extra_peak_mib(loss: Callable, logits: Tensor, labels: Tensor) -> float:
    """Peak memory of one step beyond the logits and the gradient that it must leave."""
    logits.grad = None
    gradient = logits.numel() * logits.element_size()
    if logits.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss(logits, labels).backward()
        return (torch.cuda.max_memory_allocated() - before - gradient) / 2**20
    gc.collect()
    watch = ResidentPeak()
    loss(logits, labels).backward()
    return (watch.stop() - gradient) / 2**20


class ResidentPeak:
    """Highest resident memory of this process above where it stood, by the kernel's own mark (Linux)."""

    def __init__(self) -> None:
        ctypes.CDLL(None).malloc_trim(0)  # freed memory goes back, so that using it again counts
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
        self.start = self._read("VmHWM")

    @staticmethod
    def _read(key: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

    def stop(self) -> int:
        return self._read("VmHWM") - self.start


def copy_ms(logits: Tensor, repeats: int) -> float:
    """Median milliseconds to copy a tensor of this size into memory that is already there: one read, one write."""
    source, target = logits.detach(), torch.empty_like(logits).fill_(0)
    times = []
    for _ in range(repeats + 2):
        synchronise(source.device.type)
        started = time.perf_counter()
        target.copy_(source)
        synchronise(source.device.type)
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times[2:])


def measure(shape: tuple[int, ...], args: argparse.Namespace) -> dict:
    """All contenders at one size."""
    torch.manual_seed(0)
    logits = torch.randn(shape, device=args.device, dtype=getattr(torch, args.dtype)).requires_grad_()
    labels = torch.randint(0, shape[1], (shape[0], *shape[2:]), device=args.device)
    labels[torch.rand(labels.shape, device=args.device) < IGNORED_SHARE] = 255
    losses = contenders(shape[1], args.device, args.compile)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in losses}
    for turn in range(args.repeats + 2):
        for name, loss in losses.items():
            ms = step_ms(loss, logits, labels)
            if turn >= 2:  # the first two warm up allocators and compilers
                times[name].append(ms)
    copying = copy_ms(logits, args.repeats)
    size_mib = logits.numel() * logits.element_size() / 2**20
    rows = {}
    for name, loss in losses.items():
        forward, backward = (statistics.median(column) for column in zip(*times[name], strict=True))
        both = [sum(pair) for pair in times[name]]
        rows[name] = {
            "forward_ms": forward,
            "backward_ms": backward,
            "step_ms": statistics.median(both),
            "step_ms_range": [min(both), max(both)],
            "extra_peak_over_logits": extra_peak_mib(loss, logits, labels) / size_mib,
            # Logits read twice and gradient written once are one and a half copies.
            "share_of_copy_bandwidth": 1.5 * copying / statistics.median(both),
        }
    return {"shape": list(shape), "logits_mib": size_mib, "copy_ms": copying, "losses": rows}


def print_table(name: str, result: dict) -> None:
    base = result["losses"]["F.cross_entropy"]["step_ms"]
    shape = "x".join(map(str, result["shape"]))
    print(f"\n{name} {shape}, logits {result['logits_mib']:.0f} MiB, copy {result['copy_ms']:.1f} ms")
    columns = (
        f"{'forward':>8} {'backward':>9} {'both':>7} {'range':>13}  {'x CE':>5} {'extra/logits':>12} {'bandwidth':>9}"
    )
    print(f"{'milliseconds':26} {columns}")
    for loss, row in result["losses"].items():
        low, high = row["step_ms_range"]
        print(
            f"{loss:26} {row['forward_ms']:8.1f} {row['backward_ms']:9.1f} {row['step_ms']:7.1f} "
            f"{low:6.1f}-{high:6.1f}  {row['step_ms'] / base:5.2f} {row['extra_peak_over_logits']:12.2f} "
            f"{row['share_of_copy_bandwidth']:9.0%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="also torch.compile of the other two")
    parser.add_argument("--output", type=Path, help="write the JSON here as well")
    args = parser.parse_args()
    results = {name: measure(SIZES[name], args) for name in args.sizes}
    for name, result in results.items():
        print_table(name, result)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    environment = {
        "commit": commit,
        "device": torch.cuda.get_device_name() if args.device == "cuda" else platform.processor() or platform.machine(),
        "dtype": args.dtype,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    text = json.dumps({"environment": environment, "results": results})
    print(f"\n{text}")
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
