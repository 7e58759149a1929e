"""What the GPU kernels of the outlying loss come to, without a GPU: compiled offline, read, and set against a roofline.

    python benchmarks/kernels.py                      # sm_80 and sm_90, three dtypes, both memory layouts
    python benchmarks/kernels.py --targets 90 --dtype bfloat16

Triton compiles for a card that is not there. Of each kernel: the widest load of logits and store of gradient in its PTX
(16 bytes a thread is the most there is), what ptxas says of registers and spills, and warps that fit on a
multiprocessor by its registers. Then the roofline: bytes that must move (logits and labels once for the value, logits,
labels and gradient once for the gradient), over the bandwidth of a card's data sheet times --efficiency, the share
of it that a copy reaches.
"""

import re
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
import triton
import triton.language as tl
from command import parser_of
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from segloss.errors import exit_on_input_error
from segloss.losses import outlying_triton

TYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
SIZES = {"4x19x512x1024": (4, 19, 512, 1024), "2x150x512x512": (2, 150, 512, 512)}
# TB/s of the data sheets of Nvidia's A100 SXM 80 GB, H100 SXM and H200
CARDS = {"A100": 2.039, "H100": 3.35, "H200": 4.8}
REGISTERS, MOST_WARPS, WARP = 65536, 64, 32  # of a multiprocessor, sm_80 and sm_90
CONSTANTS = {"HAS_WEIGHT": False, "HAS_PIXEL_WEIGHT": False, "PER_PIXEL": False, "WORK": tl.float32}
NOT_DIVISIBLE = ("num_classes", "ignore_index")  # by 16, as the launcher finds all other arguments at these sizes


def compiled(kernel: triton.JITFunction, dtype: str, target: int, channels_last: bool, classes: int) -> SimpleNamespace:
    """Assembly and facts of one kernel as the launcher would specialise it; each an attribute."""
    stand_in = SimpleNamespace(
        shape=(1, classes), stride=lambda d: (1, 1, classes)[d] if channels_last else (1, 999, 1)[d]
    )
    block_c, block_p = outlying_triton._tile(stand_in)
    one = {"stride_c", "out_stride_c"} if channels_last else {"stride_p", "out_stride_p"}
    constants = CONSTANTS | {"BLOCK_C": block_c, "BLOCK_P": block_p} | dict.fromkeys(one & set(kernel.arg_names), 1)
    kinds = {"logits": f"*{TYPES[dtype]}", "gradient": f"*{TYPES[dtype]}", "labels": "*i64", "strays": "*i32"}
    floats = ("values", "weight", "pixel_weight", "per_pixel", "sums", "weight_sums", "factor")
    kinds |= dict.fromkeys(floats, "*fp32") | dict.fromkeys(constants, "constexpr")
    signature = {name: kinds.get(name, "i32") for name in kernel.arg_names}
    odd = NOT_DIVISIBLE + (("stride_p", "out_stride_p") if channels_last else ())
    attributes = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(kernel.arg_names)
        if signature[name] != "constexpr" and name not in odd
    }
    source = ASTSource(kernel, signature, constexprs=constants, attrs=attributes)
    ptx = triton.compile(source, target=GPUTarget("cuda", target, WARP)).asm["ptx"]
    registers, spilled = assembled(ptx)
    element = getattr(torch, dtype).itemsize
    return SimpleNamespace(
        registers=registers,
        spilled=spilled,
        load=widest(ptx, "ld", element),
        store=widest(ptx, "st", element) if "gradient" in kernel.arg_names else 0,
        warps=min(MOST_WARPS, REGISTERS // (registers * WARP)),
    )


def assembled(ptx: str) -> tuple[int, int]:
    """Registers of a thread and bytes that it spills, by ptxas."""
    program = Path(triton.knobs.nvidia.ptxas.path)
    target = re.search(r"\.target (\S+)", ptx)[1]
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        said = subprocess.run(
            [program, "-v", f"--gpu-name={target}", file.name, "-o", "/dev/null"],
            capture_output=True,
            text=True,
            check=True,
        ).stderr
    spilled = sum(int(n) for n in re.findall(r"(\d+) bytes spill", said))
    return int(re.search(r"Used (\d+) registers", said)[1]), spilled


def widest(ptx: str, operation: str, element: int) -> int:
    """Bytes of a thread's widest access to the card's memory in words of the element; labels are 64-bit words."""
    found = re.findall(rf"{operation}\.global(?:\.\w+::\w+)*(?:\.v(\d))?\.b(\d+)", ptx)
    words = [(int(count or 1), int(bits)) for count, bits in found if int(bits) <= 8 * max(element, 4)]
    return max((count * bits // 8 for count, bits in words), default=0)


def milliseconds(shape: tuple[int, ...], element: int, bandwidth: float) -> tuple[float, float]:
    """Of value and gradient, if nothing but memory took time; bandwidth in TB/s."""
    images, classes, height, width = shape
    pixels = images * height * width
    logits, labels = pixels * classes * element, pixels * 8
    return (logits + labels) / bandwidth / 1e9, (2 * logits + labels) / bandwidth / 1e9


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--targets", type=int, nargs="+", default=[80, 90], help="compute capabilities")
    parser.add_argument("--dtype", nargs="+", choices=TYPES, default=list(TYPES))
    parser.add_argument("--efficiency", type=float, default=0.85, help="share of the bandwidth that is reached")
    args = parser.parse_args()
    print("| card | dtype | layout | kernel | load, bytes | store, bytes | registers | spilled | warps |")
    print("|---|---|---|---|---|---|---|---|---|")
    for target in args.targets:
        for dtype in args.dtype:
            for channels_last in (False, True):
                for name in ("value", "gradient"):
                    kernel = getattr(outlying_triton, f"_{name}_kernel")
                    found = compiled(kernel, dtype, target, channels_last, classes=19)
                    layout = "channels last" if channels_last else "contiguous"
                    facts = f"{found.load} | {found.store or '-'} | {found.registers} | {found.spilled} | {found.warps}"
                    print(f"| sm_{target} | {dtype} | {layout} | {name} | {facts} |")
    print(f"\nRoofline at {args.efficiency:.0%} of the data sheet's bandwidth, ms of value + gradient:\n")
    print(f"| size | dtype | {' | '.join(CARDS)} |")
    print("|---" * (2 + len(CARDS)) + "|")
    for size, shape in SIZES.items():
        for dtype in args.dtype:
            times = (milliseconds(shape, getattr(torch, dtype).itemsize, args.efficiency * tb) for tb in CARDS.values())
            print(f"| {size} | {dtype} | {' | '.join(f'{a:.3f} + {b:.3f}' for a, b in times)} |")


if __name__ == "__main__":
    exit_on_input_error(main)
