"""The backward pass of the squared error by every road autograd takes, and its error at the size of Cityscapes."""

import sys

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from segloss.losses import OutlyingMSELoss, memory, outlying_mse_loss, outlying_op

VALUES = torch.tensor([1.0, 2.0, 5.0])
ROADS = {
    "one size": ((2, 3, 8, 9), {}),
    "upsampled": ((2, 3, 4, 5), {"upsample": "bilinear"}),
    "float16": ((2, 3, 8, 9), {}),
    "per pixel": ((2, 3, 8, 9), {"reduction": "none"}),
}


@pytest.fixture(params=ROADS)
def problem(request):
    """A loss of logits alone, and logits for it, on each of the roads value and gradient can take."""
    shape, options = ROADS[request.param]
    torch.manual_seed(0)
    logits = torch.randn(shape, dtype=torch.float16 if request.param == "float16" else torch.float32)
    labels = torch.randint(0, 3, (2, 8, 9))
    labels[0, :2] = 255
    return (lambda z: outlying_mse_loss(z, labels, VALUES, **options)), logits


def gradient(loss, logits):
    leaf = logits.clone().requires_grad_()
    loss(leaf).sum().backward()
    return leaf.grad


def test_a_retained_graph_gives_the_same_gradient_again(problem):
    loss, logits = problem
    leaf = logits.clone().requires_grad_()
    value = loss(leaf).sum()
    (first,) = torch.autograd.grad(value, leaf, retain_graph=True)
    kept = first.clone()
    first.mul_(1000)  # whoever has a gradient may change it
    (second,) = torch.autograd.grad(3 * value, leaf, retain_graph=True)
    (third,) = torch.autograd.grad(value, leaf)
    torch.testing.assert_close(second, 3 * kept, rtol=2e-3 if logits.dtype == torch.float16 else 1e-6, atol=1e-7)
    torch.testing.assert_close(third, kept, rtol=2e-3 if logits.dtype == torch.float16 else 1e-6, atol=1e-7)


def test_gradients_add_up_over_calls_and_follow_the_incoming_one(problem):
    loss, logits = problem
    once = gradient(loss, logits)
    leaf = logits.clone().requires_grad_()
    for _ in range(3):
        (loss(leaf).sum() / 4).backward()
    # float16 rounds each of the three gradients, 2^-11, and their sums
    torch.testing.assert_close(leaf.grad, once * 0.75, rtol=3e-3 if logits.dtype == torch.float16 else 1e-6, atol=1e-7)


def test_a_value_without_gradient_is_the_same_value(problem):
    loss, logits = problem
    with torch.no_grad():
        expected = loss(logits.clone().requires_grad_())
    assert not expected.requires_grad
    with_gradient = loss(logits.clone().requires_grad_())
    assert with_gradient.requires_grad
    assert torch.equal(with_gradient.detach(), expected)
    assert torch.equal(loss(logits), expected)


def test_checkpointing_gives_the_same_gradient(problem):
    loss, logits = problem
    for reentrant in (False, True):
        got = gradient(lambda z, reentrant=reentrant: checkpoint(loss, z, use_reentrant=reentrant), logits)
        assert torch.equal(got, gradient(loss, logits))


def test_functional_gradient_is_the_same(problem):
    loss, logits = problem
    got = torch.func.grad(lambda z: loss(z).sum())(logits)
    torch.testing.assert_close(got, gradient(loss, logits))


def test_a_loss_nobody_differentiates_leaves_the_other_gradient_alone(problem):
    loss, logits = problem
    leaf = logits.clone().requires_grad_()
    _, other = loss(leaf), leaf.float().square().sum()
    (got,) = torch.autograd.grad(other, leaf)
    torch.testing.assert_close(got, 2 * logits)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("upsample", [None, "bilinear"])
def test_a_gradient_penalty_gets_its_second_derivative(reduction, upsample):
    """The square of the gradient, added to the loss, against the plain formula in float64."""
    torch.manual_seed(0)
    head, images = torch.nn.Conv2d(2, 3, 1).double(), torch.randn(2, 2, 4, 5, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 8, 9) if upsample else (2, 4, 5))
    labels[0, :2] = 255
    weight, pixel_weight = torch.tensor([0.5, 1.0, 4.0]), torch.rand(labels.shape, dtype=torch.float64)

    def ours(z):
        options = {"weight": weight, "pixel_weight": pixel_weight, "reduction": reduction, "upsample": upsample}
        return outlying_mse_loss(z, labels, VALUES, **options).square().sum()

    def plain(z):
        if upsample:
            z = torch.nn.functional.interpolate(z, labels.shape[1:], mode="bilinear")
        safe = labels.where(labels != 255, 0)
        teacher = torch.nn.functional.one_hot(safe, 3).movedim(-1, 1) * VALUES.double().view(1, 3, 1, 1)
        w = torch.where(labels != 255, weight.double()[safe] * pixel_weight, 0)
        per_pixel = (z - teacher).square().sum(1) * w
        losses = {"none": per_pixel / 3, "sum": per_pixel.sum(), "mean": per_pixel.sum() / (3 * w.sum())}
        return losses[reduction].square().sum()

    results = []
    for loss in (ours, plain):
        value = loss(head(images))
        (first,) = torch.autograd.grad(value, head.weight, create_graph=True)
        results.append(torch.autograd.grad(value + first.square().sum(), head.weight)[0])
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=0)


def test_two_runs_give_the_same_bits(problem):
    loss, logits = problem
    assert torch.equal(loss(logits), loss(logits))
    assert torch.equal(gradient(loss, logits), gradient(loss, logits))


def test_a_compiled_upsampled_loss_keeps_one_graph():
    torch.manual_seed(0)
    head, images = torch.nn.Conv2d(3, 3, 1), torch.randn(2, 3, 4, 5)
    labels = torch.randint(0, 3, (2, 8, 9))
    criterion = OutlyingMSELoss(VALUES, upsample="bilinear")

    def step(x):
        return criterion(head(x), labels)

    eager = step(images)
    (expected,) = torch.autograd.grad(eager, head.weight)
    torch.compiler.reset()  # one code object is compiled only so many times
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)(images)
    (got,) = torch.autograd.grad(compiled, head.weight)
    torch.testing.assert_close(compiled, eager, rtol=1e-6, atol=0)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_with_a_grad_scaler_gives_the_gradient_of_float32(dtype):
    """2 x 19 x 512 x 1024 close to the optimum: without the scaler's factor nearly every float16 gradient is 0."""
    generator = torch.Generator().manual_seed(0)
    values = torch.linspace(1, 4, 19)
    labels = torch.randint(0, 19, (2, 512, 1024), generator=generator)
    images = torch.zeros(2, 19, 512, 1024).scatter_(1, labels.unsqueeze(1), 1) * values.view(1, -1, 1, 1)
    images += 0.05 * torch.randn(images.shape, generator=generator)
    layer = torch.nn.Conv2d(19, 19, 1, bias=False)
    layer.weight.data = (torch.eye(19) + 0.01 * torch.randn(19, 19, generator=generator)).view(19, 19, 1, 1)
    criterion = OutlyingMSELoss(values)

    def gradient(scaling: bool) -> tuple[torch.Tensor, torch.Tensor]:
        layer.zero_grad()
        scaler = torch.amp.GradScaler("cpu", enabled=scaling)
        with torch.autocast("cpu", dtype):
            logits = layer(images)
            loss = criterion(logits, labels)
        assert logits.dtype == dtype and loss.dtype == torch.float32
        scaler.scale(loss).backward()
        scaler.unscale_(torch.optim.SGD(layer.parameters(), lr=0.1))
        return layer.weight.grad.clone(), logits.detach()

    scaled, logits = gradient(scaling=True)
    leaf = logits.float().requires_grad_()
    criterion(leaf, labels).backward()
    exact = torch.einsum("nohw,nihw->oi", leaf.grad, images.to(dtype).float())
    # A million terms, each rounded once: 2^-9 of it in bfloat16.
    torch.testing.assert_close(scaled.view(19, 19), exact, rtol=1e-2, atol=1e-2 * float(exact.abs().max()))
    if dtype == torch.float16:
        unscaled = gradient(scaling=False)[0].view(19, 19)
        assert (unscaled - exact).norm() > 0.5 * exact.norm()  # so the comparison above could fail


@pytest.mark.parametrize("state", ["random", "confident", "converged"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_error_against_float64_at_the_size_of_cityscapes(state, dtype):
    """1 x 19 x 512 x 1024: far from the optimum, far beyond it, and within a hundredth of it."""
    generator = torch.Generator().manual_seed(0)
    values = 6 * torch.arange(1.0, 20.0)
    labels = torch.randint(20, (1, 512, 1024), generator=generator)
    labels[labels == 19] = 255
    logits = torch.randn(1, 19, 512, 1024, generator=generator)
    hot = torch.zeros_like(logits).scatter_(1, labels.where(labels != 255, 0).unsqueeze(1), 1)
    if state == "confident":
        logits += 300 * hot
    elif state == "converged":
        logits = hot * values.view(1, -1, 1, 1) + 1e-2 * logits
    logits = logits.to(dtype).requires_grad_()

    residual = logits.detach().double() - hot.double() * values.double().view(1, -1, 1, 1)
    residual = torch.where((labels != 255).unsqueeze(1), residual, 0)
    count = int((labels != 255).sum()) * 19
    expected, expected_gradient = residual.square().sum() / count, 2 * residual / count

    loss = outlying_mse_loss(logits, labels, values)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    scale = 2.0**16
    (got,) = torch.autograd.grad(loss * scale, logits)
    error = (got.double() / scale - expected_gradient).norm() / expected_gradient.norm()
    # float32: z - t rounds at the last digit of t = 114, which is 4e-6; against a residual of 1e-2 that is 4e-4 at the
    # hot class alone, and random there. Half precision rounds the gradient once: 2^-9 (bfloat16), 2^-12 of each entry.
    assert error < {torch.bfloat16: 2.0**-9, torch.float16: 2.0**-11, torch.float32: 1e-6}[dtype]


def test_only_whole_pages_inside_a_large_gradient_are_asked_for(monkeypatch):
    calls = []
    monkeypatch.setattr(memory, "_madvise", lambda: lambda *call: calls.append(call))
    monkeypatch.setattr(memory, "FRESH_BYTES", 2**22)
    for logits in (torch.empty(1, 4, 512, 512), torch.empty(1, 4, 512, 1024, device="meta")):
        assert memory.gradient_like(logits, logits.dtype).shape == logits.shape
    assert not calls  # no larger than FRESH_BYTES, or not in this memory
    gradient = memory.gradient_like(torch.empty(1, 4, 512, 1024, dtype=torch.bfloat16), torch.float32)
    ((start, length, advice),) = calls
    first, last = gradient.data_ptr(), gradient.data_ptr() + 4 * gradient.numel()
    assert first <= start < first + 2**21 and start + length <= last < start + length + 2**21
    assert start % 2**21 == length % 2**21 == 0 and advice == memory.MADV_HUGEPAGE


@pytest.mark.parametrize("problem", ["one size", "float16"], indirect=True)
def test_a_gradient_in_large_pages_is_the_same(problem, monkeypatch):
    loss, logits = problem
    expected = gradient(loss, logits)
    monkeypatch.setattr(memory, "FRESH_BYTES", 0)
    monkeypatch.setattr(memory, "HUGE_PAGE", 64)
    assert torch.equal(gradient(loss, logits), expected)
    assert torch.equal(torch.func.grad(lambda z: loss(z).sum())(logits), expected)


def test_no_large_pages_where_the_system_has_none(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    memory._madvise.cache_clear()
    try:
        assert memory._madvise() is None
        assert memory.gradient_like(torch.empty(2, 3, 1500, 1500), torch.float32).shape == (2, 3, 1500, 1500)
    finally:
        memory._madvise.cache_clear()


@pytest.mark.parametrize("pixels", [64, 256])  # few, and enough for bands
def test_bfloat16_is_rounded_once_in_one_pass(pixels):
    """The gradient is that of float32 scores, rounded; a factor that arrives later does not round it twice."""
    torch.manual_seed(1)
    logits = torch.randn(1, 3, pixels, pixels).bfloat16()
    labels = torch.randint(0, 3, (1, pixels, pixels))

    def loss(z):
        return outlying_mse_loss(z, labels, VALUES)

    for factor in (1.0, 3.7):
        expected = gradient(lambda z, f=factor: f * loss(z), logits.float()).bfloat16()
        got = gradient(lambda z, f=factor: f * loss(z), logits)
        assert got.dtype == torch.bfloat16 and expected.any()
        share_of_equal = (got == expected).float().mean()  # sums in another order may move a tie
        assert share_of_equal > 0.999


def large_float16_problem(scale=1.0, **options):
    """Scores of float16 around their labels' values, enough of them for one pass, and their loss."""
    torch.manual_seed(2)
    labels = torch.randint(0, 3, (2, 300, 300))
    labels[:, :7] = 255
    logits = (scale * torch.randn(2, 3, 300, 300)).half()
    assert logits.numel() >= outlying_op.HALF_ELEMENTS
    return logits, lambda z: outlying_mse_loss(z, labels, VALUES, **options)


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 3.0, 70.0])], ids=["plain", "weighted"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("factor", [1.0, 2.0**10, 2.0**14])
def test_float16_is_made_in_one_pass_and_is_that_of_float32_rounded(weight, scale, factor, monkeypatch):
    logits, loss = large_float16_problem(scale, weight=weight)
    expected = gradient(lambda z: factor * loss(z), logits.float())
    monkeypatch.setattr(outlying_op, "_gradient", None)  # the second pass
    got = gradient(lambda z: factor * loss(z), logits)
    assert got.dtype == torch.float16 and got.any()
    assert (got == expected.half()).float().mean() > 0.9  # where it is subnormal twice a tie may move
    spacing = torch.finfo(torch.float16).eps * expected.abs() + 2.0**-24
    # Half a unit; below the smallest normal number, 6e-5, also half a unit of what is kept, at most half as large.
    assert ((got.float() - expected).abs() <= 0.75 * spacing).all()


@pytest.mark.parametrize("factor", [3.7, -1.0, 2.0**20])
def test_a_factor_that_would_round_float16_twice_takes_a_second_pass(factor):
    logits, loss = large_float16_problem()
    expected = gradient(lambda z: factor * loss(z), logits.float()).half()
    got = gradient(lambda z: factor * loss(z), logits)
    assert (got == expected).float().mean() > 0.999  # sums in another order may move a tie


def test_a_float16_gradient_kept_larger_does_not_overflow():
    logits, loss = large_float16_problem(weight=torch.tensor([1e-3, 1.0, 1e3]))
    logits[0, :, 8, 8] = -65504  # the most there is, and the label's value goes on top
    expected = gradient(loss, logits.float())
    got = gradient(loss, logits).float()
    assert got.isfinite().all()
    torch.testing.assert_close(got[0, :, 8, 8], expected[0, :, 8, 8], rtol=2.0**-10, atol=2.0**-24)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_a_mean_of_two_micro_batches_takes_no_second_pass(dtype, monkeypatch):
    logits, loss = large_float16_problem()
    expected = gradient(lambda z: loss(z) / 2, logits.to(dtype).float()).to(dtype)
    monkeypatch.setattr(outlying_op, "_gradient", None)
    got = gradient(lambda z: loss(z) / 2, logits.to(dtype))
    assert (got == expected).float().mean() > 0.9


def test_no_valid_pixel_leaves_a_float16_gradient_of_zero():
    logits, _ = large_float16_problem()
    labels = torch.full((2, 300, 300), 255)
    assert not gradient(lambda z: outlying_mse_loss(z, labels, VALUES), logits).any()


def test_an_infinite_weight_in_float16_is_no_error():
    logits, loss = large_float16_problem(weight=torch.tensor([1.0, 1.0, torch.inf]))
    assert gradient(loss, logits).shape == logits.shape
