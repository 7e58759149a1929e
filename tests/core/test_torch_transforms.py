"""Every loss under every transform of torch: derivatives, graphs, checkpoints and processes, each by its numbers.

The cells make the table of docs/integrate.md, which the last test compares.
"""

import copy
import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_divisor import COUNTS, NAMES, distance
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from segloss.losses import Criterion, OutlyingMSELoss, build_criterion, outlying_mse_loss

PAGE = Path(__file__).parents[2] / "docs/integrate.md"
DERIVATIVES = ("grad", "vjp", "jacrev", "vmap", "jvp", "hessian")
GRAPHS = ("export", "compile", "checkpoint")
PROCESSES = ("DDP", "FSDP")


def problem(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels of which some are ignored, and a direction."""
    random = torch.Generator().manual_seed(0)
    logits, direction = (torch.randn(2, 3, 3, 4, generator=random, dtype=dtype) for _ in range(2))
    labels = torch.randint(0, 3, (2, 3, 4), generator=random)
    labels[0, 0, :2] = 255
    return logits, labels, direction


def of_logits(criterion: Criterion, labels: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda logits: criterion(logits, labels)


def reference_gradient(criterion: Criterion, logits: Tensor, labels: Tensor, create_graph: bool = False) -> Tensor:
    """By the road that training takes."""
    leaf = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(criterion(leaf, labels), leaf, create_graph=create_graph)
    return gradient


def second_derivatives(criterion: Criterion, logits: Tensor, labels: Tensor) -> Tensor:
    """Central differences of the gradient, one score at a time."""
    step, rows = 1e-6, []
    for i in range(logits.numel()):
        shift = torch.zeros(logits.numel(), dtype=logits.dtype)
        shift[i] = step
        above, below = (
            reference_gradient(criterion, logits + sign * shift.view_as(logits), labels) for sign in (1, -1)
        )
        rows.append((above - below) / (2 * step))
    return torch.stack(rows).view(*logits.shape, *logits.shape)


def close(got: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(got.double(), expected.double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("transform", DERIVATIVES)
def test_a_derivative_by_torch_func_is_that_of_training(transform, name):
    criterion, (logits, labels, direction) = build_criterion(name, COUNTS), problem()
    loss, expected = of_logits(criterion, labels), reference_gradient(criterion, logits, labels)
    assert expected.any()
    if transform == "grad":
        close(torch.func.grad(loss)(logits), expected)
    elif transform == "vjp":
        value, pull = torch.func.vjp(loss, logits)
        close(value, loss(logits))
        close(pull(torch.tensor(3.0, dtype=value.dtype))[0], 3 * expected)
    elif transform == "jacrev":
        close(torch.func.jacrev(loss)(logits), expected)
        close(torch.func.jacfwd(loss)(logits), expected)
        close(torch.autograd.functional.jacobian(loss, logits, vectorize=True), expected)
    elif transform == "jvp":
        value, slope = torch.func.jvp(loss, (logits,), (direction,))
        close(value, loss(logits))
        close(slope, (expected * direction).sum())
        with torch.autograd.forward_ad.dual_level():
            dual = loss(torch.autograd.forward_ad.make_dual(logits, direction))
            close(torch.autograd.forward_ad.unpack_dual(dual).tangent, slope)
    elif transform == "vmap":
        each = [(logits[i : i + 1], labels[i : i + 1]) for i in range(2)]
        whole = logits.unsqueeze(1), labels.unsqueeze(1)
        close(torch.func.vmap(criterion)(*whole), torch.stack([criterion(*one) for one in each]))
        per_sample = torch.func.vmap(torch.func.grad(criterion))(*whole)
        close(per_sample, torch.stack([reference_gradient(criterion, *one) for one in each]))
    else:
        close(torch.func.hessian(loss)(logits), second_derivatives(criterion, logits, labels), 2e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("transform", GRAPHS)
def test_a_graph_gives_value_and_gradient_of_the_loss(transform, name):
    criterion, (logits, labels, _) = build_criterion(name, COUNTS), problem(torch.float32)
    expected = reference_gradient(criterion, logits, labels)
    leaf = logits.clone().requires_grad_()
    if transform == "export":
        program = torch.export.export(criterion, (logits, labels)).module()
        close(program(logits, labels), criterion(logits, labels), 1e-6)
        return
    if transform == "compile":
        torch._dynamo.reset()
        value = torch.compile(criterion, backend="aot_eager", fullgraph=True)(leaf, labels)
    else:
        value = checkpoint(criterion, leaf, labels, use_reentrant=False)
    close(value.detach(), criterion(logits, labels), 1e-6)
    close(torch.autograd.grad(value, leaf)[0], expected, 1e-6)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.Tanh(), torch.nn.Conv2d(4, 3, 1))


def shard(model: torch.nn.Module) -> torch.nn.Module:
    from torch.distributed.fsdp import fully_shard

    fully_shard(model)
    return model


def gradients(model: torch.nn.Module) -> Tensor:
    found = [p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad for p in model.parameters()]
    return torch.cat([gradient.flatten() for gradient in found])


def one_rank(rank: int, folder: str, kinds: tuple[str, ...]) -> None:
    """One of two gloo processes, with one image of the two; leaves the gradients that the optimiser would apply."""
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    images, labels, _ = problem(torch.float32)
    own = slice(rank, rank + 1)
    found = {}
    for kind in kinds:
        for name in NAMES:
            criterion = build_criterion(name, COUNTS)
            model = shard(network()) if kind == "FSDP" else torch.nn.parallel.DistributedDataParallel(network())
            criterion(model(images[own]), labels[own]).backward()
            found[f"{kind} {name}"] = gradients(model)
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_processes_average_the_gradients_of_their_images(tmp_path):
    kinds = PROCESSES if hasattr(importlib.import_module("torch.distributed.fsdp"), "fully_shard") else PROCESSES[:1]
    torch.multiprocessing.spawn(one_rank, (str(tmp_path), kinds), nprocs=2)
    images, labels, _ = problem(torch.float32)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name in NAMES:
        model, criterion = network(), build_criterion(name, COUNTS)
        copies = [copy.deepcopy(model) for _ in range(2)]
        for i, one in enumerate(copies):
            criterion(one(images[i : i + 1]), labels[i : i + 1]).backward()
        expected = sum(gradients(one) for one in copies) / 2
        for kind in kinds:
            assert all(distance(found[f"{kind} {name}"], expected) < 1e-5 for found in ranks), f"{kind} {name}"


@pytest.mark.parametrize("options", [{"upsample": "bilinear"}, {"reduction": "none"}, {"weight": [1.0, 2.0, 3.0]}])
def test_options_of_the_squared_error_are_followed_too(options):
    criterion = OutlyingMSELoss([1.0, 2.0, 5.0], **options)
    logits, labels, direction = problem()
    labels = labels.repeat(1, 2, 2) if "upsample" in options else labels
    weights = torch.rand(labels.shape, dtype=torch.float64)

    def loss(scores: Tensor) -> Tensor:
        return criterion(scores, labels, weights).sum()

    leaf = logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf), leaf)
    close(torch.func.jacrev(loss)(logits), expected)
    close(torch.func.jvp(loss, (logits,), (direction,))[1], (expected * direction).sum())


def test_label_values_of_each_sample():
    """One network, several settings of the loss at once."""
    logits, labels, _ = problem()
    values = torch.tensor([[1.0, 1.0, 1.0], [1.0, 2.0, 3.0]])
    got = torch.func.vmap(lambda t: outlying_mse_loss(logits, labels, t))(values)
    close(got, torch.stack([outlying_mse_loss(logits, labels, t) for t in values]))
    with pytest.raises(ValueError, match="label_values must be positive"):
        torch.func.vmap(lambda t: outlying_mse_loss(logits, labels, t))(values - 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stray", [3, -1, 254])
def test_a_stray_label_is_refused_under_vmap_as_well(name, stray):
    criterion, (logits, labels, _) = build_criterion(name, COUNTS), problem()
    labels[1, 2, 3] = stray
    with pytest.raises(IndexError, match=rf"labels hold {stray}, outside \[0, 3\)"):
        torch.func.vmap(torch.func.grad(criterion))(logits.unsqueeze(1), labels.unsqueeze(1))


@pytest.mark.parametrize("name", NAMES)
def test_a_score_that_is_no_number_counts_nowhere_where_ignored(name):
    criterion, (logits, labels, _) = build_criterion(name, COUNTS), problem()
    logits[0, :, 0, 0] = torch.nan
    gradient = torch.func.grad(of_logits(criterion, labels))(logits)
    assert gradient.isfinite().all() and not gradient[0, :, 0, 0].any()
    close(gradient, reference_gradient(criterion, logits, labels))


@pytest.mark.parametrize("name", NAMES)
def test_a_trace_is_of_the_same_derivative(name):
    criterion, (logits, labels, direction) = build_criterion(name, COUNTS), problem()
    _, linear = torch.func.linearize(of_logits(criterion, labels), logits)
    close(linear(direction), (reference_gradient(criterion, logits, labels) * direction).sum())
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        leaf = mode.from_tensor(logits).requires_grad_()
        criterion(leaf, mode.from_tensor(labels)).backward()
        assert leaf.grad.shape == logits.shape


def test_forward_mode_inside_a_compiled_function():
    """Forward mode, whose value was wrong; at the others the compiler breaks the graph or refuses."""
    criterion, (logits, labels, direction) = build_criterion("outlying_mse", COUNTS), problem(torch.float32)
    loss, expected = of_logits(criterion, labels), reference_gradient(criterion, logits, labels)
    torch._dynamo.reset()
    along = torch.compile(
        lambda scores: torch.func.jvp(loss, (scores,), (direction,))[1], backend="aot_eager", fullgraph=True
    )
    close(along(logits), (expected * direction).sum(), 1e-5)


def table() -> str:
    """What the tests above show: they fail where a cell is not yes."""
    columns = (*(f"`func.{name}`" for name in DERIVATIVES), *GRAPHS, *PROCESSES)
    head = [f"| loss | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    return "\n".join([*head, *(f"| `{name}` | {' | '.join(['yes'] * len(columns))} |" for name in NAMES)])


def test_the_page_has_the_table():
    assert table() in PAGE.read_text(encoding="utf-8"), f"put this into {PAGE}:\n{table()}"
