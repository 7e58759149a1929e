"""The CUDA kernels: their arithmetic in Triton's interpreter, their compilation for real GPUs, and both on a GPU."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from segloss.losses import LOSSES, OutlyingMSELoss, build_criterion, outlying_mse_loss

pytest.importorskip("triton", reason="Triton is not installed here")

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")


def test_the_kernels_compute_what_the_bands_do():
    """In a process of its own: the interpreter must be chosen before Triton is first imported."""
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/core/interpreted_kernels.py"],
        cwd=root,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-1000:]
    assert " passed" in ran.stdout and "skipped" not in ran.stdout


def compiled(kernel, dtype: str, classes_last: bool) -> dict:
    """A kernel's assembly for an A100-class GPU, made without one, for sizes that are multiples of 16."""
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = list(inspect.signature(kernel.fn).parameters)
    constants = {"HAS_WEIGHT": True, "HAS_PIXEL_WEIGHT": True, "PER_PIXEL": False, "WORK": tl.float32}
    constants |= {"BLOCK_C": 32, "BLOCK_P": 64} if classes_last else {"BLOCK_C": 8, "BLOCK_P": 256}
    # Triton specialises whole numbers that are 1, as the stride of what lies together in memory is.
    constants |= {name: 1 for name in names if name.endswith("stride_c" if classes_last else "stride_p")}
    pointers = {"logits": f"*{dtype}", "gradient": f"*{dtype}", "labels": "*i64", "strays": "*i32"}
    whole = ("pixels", "blocks", "num_classes", "ignore_index")
    signature = {
        name: "constexpr"
        if name in constants
        else pointers.get(name, "i32" if name in whole or "stride" in name else "*fp32")
        for name in names
    }
    divisible = [i for i, name in enumerate(names) if signature[name][0] == "*" or name == "pixels" or "stride" in name]
    source = ASTSource(
        kernel,
        signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i in divisible if names[i] not in constants},
    )
    return triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", ["_value_kernel", "_gradient_kernel"])
def test_the_kernels_compile_and_load_sixteen_bytes_at_once(name, dtype):
    from segloss.losses import outlying_triton

    try:
        assembly = compiled(getattr(outlying_triton, name), dtype, classes_last=False)
    except (ImportError, AttributeError) as error:  # its compiler interface is not a stable one
        pytest.skip(f"this Triton compiles differently: {error}")
    assert len(assembly["cubin"]) > 0
    assert "ld.global.v4.b32" in assembly["ptx"]
    assert ("st.global.v4.b32" in assembly["ptx"]) == (name == "_gradient_kernel")
    assert compiled(getattr(outlying_triton, name), dtype, classes_last=True)["cubin"]


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(2, 19, 128, 256), (3, 11, 45, 61), (1, 150, 64, 64), (500, 7)], ids=str)
@pytest.mark.parametrize("upsample", [None, "bilinear"])
def test_gpu_and_cpu_agree(shape, dtype, upsample):
    if upsample and len(shape) == 2:
        pytest.skip("no grid")
    torch.manual_seed(0)
    logits = torch.randn(shape).to(dtype)
    size = [2 * n + 1 for n in shape[2:]] if upsample else shape[2:]
    labels = torch.randint(0, shape[1], (shape[0], *size))
    labels.view(-1)[::7] = 255
    criterion = OutlyingMSELoss(torch.rand(shape[1]) * 9 + 1, weight=torch.rand(shape[1]) + 0.5, upsample=upsample)
    results = []
    for device in ("cpu", "cuda"):
        leaf = logits.to(device).requires_grad_()
        loss = criterion.to(device)(leaf, labels.to(device))
        (gradient,) = torch.autograd.grad(1024 * loss, leaf)
        results.append((loss.cpu(), gradient.cpu()))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-6, atol=0)
    torch.testing.assert_close(
        *(gradient for _, gradient in results), rtol=1e-2 if dtype.itemsize == 2 else 1e-5, atol=1e-7
    )


@needs_gpu
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gpu_and_cpu_agree_on_every_reduction_layout_and_pixel_weight(reduction, layout):
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 19, 48, 100), torch.randint(0, 19, (2, 48, 50))
    labels.view(-1)[::7] = 255
    pixel_weight = torch.rand(2, 48, 50)
    criterion = OutlyingMSELoss(torch.rand(19) * 9 + 1, reduction=reduction)
    results = []
    for device in ("cpu", "cuda"):
        leaf = logits.to(device)
        leaf = leaf[..., ::2] if layout == "strided" else leaf[..., :50].contiguous()
        leaf = leaf.to(memory_format=torch.channels_last) if layout == "channels_last" else leaf
        leaf = leaf.detach().requires_grad_()
        loss = criterion.to(device)(leaf, labels.to(device), pixel_weight.to(device))
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        results.append((loss.detach().cpu(), gradient.cpu()))
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-7)


@needs_gpu
@pytest.mark.parametrize("name", LOSSES)
def test_gpu_and_cpu_agree_on_every_loss_without_waiting(name):
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 33, 44), torch.randint(0, 5, (2, 33, 44))
    labels.view(-1)[::7] = 255
    criterion = build_criterion(name, [5000, 400, 300, 20, 10])
    expected = criterion(logits, labels)
    criterion, logits, labels = criterion.cuda(), logits.cuda().requires_grad_(), labels.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = criterion(logits, labels)
        loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(loss.detach().cpu(), expected, rtol=1e-5, atol=1e-6)


@needs_gpu
def test_a_step_on_the_gpu_waits_for_nothing():
    logits = torch.randn(2, 5, 33, 44, device="cuda", requires_grad=True)
    labels = torch.randint(0, 5, (2, 33, 44), device="cuda")
    larger = torch.randint(0, 5, (2, 66, 99), device="cuda")
    plain = OutlyingMSELoss.from_counts([5, 4, 3, 2, 1]).cuda()
    upsampled = OutlyingMSELoss.from_counts([5, 4, 3, 2, 1], upsample="bilinear").cuda()
    for mode in ("default", "error"):  # the first step compiles, and copies the interpolation's tables
        torch.cuda.set_sync_debug_mode(mode)
        try:
            (plain(logits, labels) + upsampled(logits, larger)).backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert bool(logits.grad.isfinite().all())


@needs_gpu
def test_the_gpu_repeats_itself_to_the_last_bit():
    torch.manual_seed(0)
    logits = torch.randn(4, 19, 256, 256, device="cuda", requires_grad=True)
    labels = torch.randint(0, 19, (4, 512, 512), device="cuda")
    values = torch.arange(1.0, 20.0, device="cuda")
    for options, y in (({}, labels[:, ::2, ::2]), ({"upsample": "bilinear"}, labels)):
        runs = []
        for _ in range(3):
            loss = outlying_mse_loss(logits, y, values, **options)
            runs.append((loss.detach(), *torch.autograd.grad(loss, logits)))
        for run in runs[1:]:
            assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


@needs_gpu
@pytest.mark.parametrize("name", LOSSES)
def test_a_stray_label_stops_the_gpu(name):
    """In a process of its own: after a device assert a process can use its GPU no more."""
    code = (
        f"import torch; from segloss.losses import build_criterion; f = build_criterion({name!r}, [3, 2, 1]).cuda();"
        "f(torch.zeros(1, 3, 4, device='cuda'), torch.full((1, 4), -100, device='cuda')); torch.cuda.synchronize()"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode != 0
    assert "assert" in ran.stderr.lower()
