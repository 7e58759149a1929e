"""Time and memory of the outlying loss against the plain formula and F.cross_entropy, in one process.

    python benchmarks/loss.py [--sizes cityscapes ...] [--device cpu cuda] [--dtype float32 bfloat16] [--compile]
    python benchmarks/loss.py --sizes upsampled     # logits at a quarter of the labels' size
    python benchmarks/loss.py --losses              # every loss of the toolkit, at CamVid's size
    python benchmarks/loss.py --plot costs.png      # cost over pixels and over classes

Per size: forward and backward time (median, fastest and slowest of --repeats), extra peak memory beyond the logits and
their gradient, and the share of the measured copy bandwidth: no step can do with less than reading the logits once and
writing the gradient once, which is one copy of the logits. The contenders take turns, so that a slow second of the
machine hits all of them. Prints a table and one line of JSON.
"""

import argparse
import ctypes
import gc
import itertools
import json
import math
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from command import parser_of
from torch import Tensor

from segloss import OutlyingMSELoss
from segloss.errors import exit_on_input_error
from segloss.losses import LOSSES, build_criterion
from segloss.metrics import none_if_nan

SIZES = {
    "camvid": (8, 11, 360, 480),
    "cityscapes": (4, 19, 512, 1024),
    "cityscapes-full": (1, 19, 1024, 2048),
    "150-classes": (2, 150, 512, 512),
    "upsampled": (1, 19, 256, 512),
    "tiny": (1, 3, 16, 16),
}
UPSAMPLED_BY = {"upsampled": 4}  # labels this many times as large as the logits
USUAL = ["camvid", "cityscapes", "cityscapes-full", "150-classes", "upsampled"]
BASE = "F.cross_entropy"
IGNORED_SHARE = 0.05
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#56b4e9", "#cc79a7", "#e69f00")  # Okabe and Ito's, told apart by everyone


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


def interpolated(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    def full_size(logits: Tensor, labels: Tensor) -> Tensor:
        return loss(F.interpolate(logits, labels.shape[1:], mode="bilinear"), labels)

    return full_size


def contenders(num_classes: int, device: str, compiled: bool, upsampled: bool) -> dict[str, Callable]:
    label_values = torch.arange(1.0, num_classes + 1, device=device)
    ours = OutlyingMSELoss(label_values).to(device)
    if upsampled:
        found: dict[str, Callable] = {
            "outlying_mse, upsample": OutlyingMSELoss(label_values, upsample="bilinear").to(device),
            "interpolate + outlying_mse": interpolated(ours),
            BASE: interpolated(cross_entropy),
        }
    else:
        found = {"outlying_mse": ours, "plain formula": plain_formula(label_values), BASE: cross_entropy}
    if compiled:
        torch.compiler.reset()  # each size its own kernels, not those of sizes before it
        found |= {f"{name}, compiled": torch.compile(plain_call(loss)) for name, loss in found.items()}
    return found


def plain_call(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """A function, which torch.compile takes whatever the loss is."""
    return lambda logits, labels: loss(logits, labels)


def all_losses(num_classes: int, device: str) -> dict[str, Callable]:
    counts = [2**k for k in range(num_classes, 0, -1)]
    return {BASE: cross_entropy} | {name: build_criterion(name, counts).to(device) for name in LOSSES}


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
    """Peak memory of one step beyond the logits and the gradient that it must leave; NaN if too small to be seen."""
    logits.grad = None
    gradient = logits.numel() * logits.element_size()
    if gradient < 2**20 and not logits.is_cuda:  # of a process's memory, kept in pages and pools
        return math.nan
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


def example(shape: tuple[int, ...], scale: int, device: str, dtype: str) -> tuple[Tensor, Tensor]:
    """Random logits, and labels of ``scale`` times their height and width."""
    torch.manual_seed(0)
    logits = torch.randn(shape, device=device, dtype=getattr(torch, dtype)).requires_grad_()
    labels = torch.randint(0, shape[1], (shape[0], *(scale * n for n in shape[2:])), device=device)
    labels[torch.rand(labels.shape, device=device) < IGNORED_SHARE] = 255
    return logits, labels


def step_times(
    losses: dict[str, Callable], logits: Tensor, labels: Tensor, repeats: int
) -> dict[str, list[tuple[float, float]]]:
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in losses}
    for turn in range(repeats + 2):
        for name, loss in losses.items():
            ms = step_ms(loss, logits, labels)
            if turn >= 2:  # the first two warm up allocators and compilers
                times[name].append(ms)
    return times


def measure(losses: dict[str, Callable], logits: Tensor, labels: Tensor, repeats: int) -> dict:
    """All contenders on one batch. Memory and bandwidth are in units of logits of the labels' size."""
    times = step_times(losses, logits, labels, repeats)
    full = logits.numel() * labels.numel() // math.prod((len(logits), *logits.shape[2:]))
    full_mib = full * logits.element_size() / 2**20
    copying = copy_ms(torch.ones(full, dtype=logits.dtype, device=logits.device), repeats)
    rows = {}
    for name, loss in losses.items():
        forward, backward = (statistics.median(column) for column in zip(*times[name], strict=True))
        both = [sum(pair) for pair in times[name]]
        rows[name] = {
            "forward_ms": forward,
            "backward_ms": backward,
            "step_ms": statistics.median(both),
            "step_ms_range": [min(both), max(both)],
            "extra_peak_over_logits": none_if_nan(extra_peak_mib(loss, logits, labels) / full_mib),
            "share_of_copy_bandwidth": copying / statistics.median(both),
            # Where the passes are apart, as on CUDA: one read in forward, one read and one write in backward.
            "forward_share": copying / 2 / forward,
            "backward_share": copying / backward,
        }
    return {
        "shape": list(logits.shape),
        "labels": list(labels.shape),
        "device": logits.device.type,
        "copy_ms": copying,
        "losses": rows,
    }


def print_table(name: str, result: dict, dtype: str) -> None:
    base = result["losses"][BASE]["step_ms"]
    shape = "x".join(map(str, result["shape"]))
    print(f"\n{name} {shape} {dtype}, labels {result['labels'][1:]}, one copy {result['copy_ms']:.1f} ms")
    apart = "cuda" in result["device"]  # on CPU the forward pass may make the gradient too
    columns = " forward backward    both         range   x CE  extra  bandwidth"
    print(f"{'milliseconds':34}{columns}{' (fwd, bwd)' if apart else ''}")
    for loss, row in result["losses"].items():
        low, high = row["step_ms_range"]
        extra = "-" if row["extra_peak_over_logits"] is None else f"{row['extra_peak_over_logits']:.2f}"
        print(
            f"{loss:34} {row['forward_ms']:7.1f} {row['backward_ms']:8.1f} {row['step_ms']:7.1f} "
            f"{low:6.1f}-{high:6.1f}  {row['step_ms'] / base:5.2f} {extra:>6}  "
            f"{row['share_of_copy_bandwidth']:8.0%}"
            + (f" ({row['forward_share']:.0%}, {row['backward_share']:.0%})" if apart else "")
        )


def curve(shapes: list[tuple[int, ...]], args: argparse.Namespace) -> dict[str, list[float]]:
    """Median milliseconds of a step per contender, for each shape."""
    series: dict[str, list[float]] = {}
    for shape in shapes:
        losses = contenders(shape[1], args.device, args.compile, False)
        times = step_times(losses, *example(shape, 1, args.device, args.dtype[0]), args.repeats)
        for name, pairs in times.items():
            series.setdefault(name, []).append(statistics.median(sum(pair) for pair in pairs))
    return series


def draw(path: Path, args: argparse.Namespace) -> dict:
    """Cost over pixels at 19 classes and over classes at 2^18 pixels, as a picture; returns what it shows."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    pixels, classes = [2**k for k in range(14, 22)], [2, 5, 11, 19, 50, 150]
    panels = [
        ("pixels (19 classes)", pixels, curve([(1, 19, n // 128, 128) for n in pixels], args)),
        ("classes (262,144 pixels)", classes, curve([(1, c, 512, 512) for c in classes], args)),
    ]
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), constrained_layout=True)
    for ax, (label, x, series) in zip(axes, panels, strict=True):
        for (name, y), colour, marker in zip(series.items(), COLOURS, "osDP^v", strict=False):
            ax.plot(x, y, marker=marker, color=colour, label=name)
        ax.set(xscale="log", yscale="log", xlabel=label, ylabel="forward + backward, ms")
        ax.grid(alpha=0.3, which="both")
    axes[1].set_xticks(classes, map(str, classes))
    axes[1].minorticks_off()
    axes[0].legend(frameon=False)
    figure.suptitle(f"{device_name(args.device)}, {args.dtype[0]}, {torch.get_num_threads()} CPU threads")
    figure.savefig(path, dpi=150)
    return {label: {"x": x, "ms": series} for label, x, series in panels}


def device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def commit() -> str:
    """Of the toolkit measured; empty outside its repository."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent
        )
    except OSError:  # no git
        return ""
    return done.stdout.strip()


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, help=f"default: {' '.join(USUAL)}")
    parser.add_argument("--losses", action="store_true", help="every loss of the toolkit, at CamVid's size or --sizes")
    parser.add_argument("--device", nargs="+", choices=("cpu", "cuda"), help="default: the CPU, and CUDA where it is")
    parser.add_argument("--dtype", nargs="+", choices=("float32", "bfloat16", "float16"), default=["float32"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="also torch.compile of all three; needs a compiler")
    parser.add_argument("--plot", type=Path, help="draw cost over pixels and classes into this PNG, and no table")
    parser.add_argument("--output", type=Path, help="write the JSON here as well")
    args = parser.parse_args()
    if args.repeats < 1:
        parser.error("--repeats must be at least 1")
    if args.compile and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        parser.error("--compile needs a C++ compiler and finds none; install g++ or leave it out")
    if args.losses and set(args.sizes or ()) & set(UPSAMPLED_BY):
        parser.error("--losses needs logits of the labels' size; choose other --sizes")
    devices = args.device or (["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
    results = {}
    if args.plot:
        args.device = devices[-1]
        results["plot"] = draw(args.plot, args)
    else:
        for device, dtype in itertools.product(devices, args.dtype):
            for name in args.sizes or (["camvid"] if args.losses else USUAL):
                shape, scale = SIZES[name], UPSAMPLED_BY.get(name, 1)
                logits, labels = example(shape, scale, device, dtype)
                found = contenders(shape[1], device, args.compile, scale > 1)
                losses = all_losses(shape[1], device) if args.losses else found
                key = f"{name} {dtype}" if device == "cpu" else f"{name} {dtype} {device}"
                results[key] = result = measure(losses, logits, labels, args.repeats)
                print_table(name, result, dtype)
    environment = {
        "commit": commit(),
        "devices": {device: device_name(device) for device in devices},
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    text = json.dumps({"environment": environment, "results": results})
    print(f"\n{text}")
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    exit_on_input_error(main)
