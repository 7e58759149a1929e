"""The parts of a batch, each divided by what the whole divides by, add up to the whole: micro-batches and processes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import segloss
from segloss.losses import LOSSES, Criterion, SumLoss, build_criterion, cross_entropy_loss, dice_loss
from segloss.losses.outlying import OutlyingMSELoss, outlying_mse_loss
from segloss.losses.regions import _RegionLoss

COUNTS = [5000, 700, 90]
SUMS = ("ce+0.5*weighted_ce", "weighted_focal+0.1*ldam")
NAMES = (*LOSSES, *(f"weighted_{name}" for name in LOSSES), *SUMS)
PIXEL_MEANS = [n for n in NAMES if n in SUMS or not issubclass(LOSSES[n.removeprefix("weighted_")], _RegionLoss)]
PIXEL_MEANS = [n for n in PIXEL_MEANS if "ohem" not in n]


def effective_batch() -> tuple[Tensor, Tensor]:
    """Four images of 32 x 32 with 1024, 64, 1024 and 8 valid pixels."""
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(4, 3, 32, 32, generator=generator)
    labels = torch.multinomial(torch.tensor([0.7, 0.2, 0.1]), 4 * 1024, True, generator=generator).view(4, 32, 32)
    for image, valid in enumerate((1024, 64, 1024, 8)):
        labels[image].view(-1)[valid:] = 255
    return logits, labels


def gradient_of_parts(criterion: Criterion, logits: Tensor, labels: Tensor, parts: list[list[int]]) -> Tensor:
    logits = logits.clone().requires_grad_()
    divisor = torch.stack([criterion.divisor(labels[part]) for part in parts]).sum(0)
    for part in parts:
        criterion(logits[part], labels[part], divisor=divisor).backward()
    return logits.grad


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).double().norm() / other.double().norm())


@pytest.mark.parametrize("name", PIXEL_MEANS)
@pytest.mark.parametrize("parts", [[[0, 1], [2, 3]], [[0], [1], [2], [3]], [[3], [0, 1, 2]]], ids=str)
def test_the_gradients_of_parts_add_up_to_that_of_the_whole(name, parts):
    """Averaged as means of means they were 0.34 (outlying_mse) to 1.85 (ce) off."""
    criterion, (logits, labels) = build_criterion(name, COUNTS), effective_batch()
    whole = logits.clone().requires_grad_()
    criterion(whole, labels).backward()
    assert distance(gradient_of_parts(criterion, logits, labels, parts), whole.grad) < 1e-6


@pytest.mark.parametrize("name", [name for name in NAMES if name not in PIXEL_MEANS])
def test_what_is_no_sum_over_pixels_is_the_mean_of_the_parts_weighted_by_their_pixels(name):
    criterion, (logits, labels) = build_criterion(name, COUNTS), effective_batch()
    parts = [[0, 1], [2, 3]]
    own = [criterion.divisor(labels[part]) for part in parts]
    got = sum(criterion(logits[part], labels[part], divisor=sum(own)) for part in parts)
    expected = sum(criterion(logits[p], labels[p]) * d for p, d in zip(parts, own, strict=True)) / sum(own)
    assert float(got) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_part_of_void_alone_takes_no_share(name):
    criterion, (logits, labels) = build_criterion(name, COUNTS), effective_batch()
    labels[2:] = 255
    got = gradient_of_parts(criterion, logits, labels, [[0, 1], [2, 3]])
    whole = logits[:2].clone().requires_grad_()
    criterion(whole, labels[:2]).backward()
    assert distance(got[:2], whole.grad) < 1e-6 and not got[2:].any()
    empty = torch.full_like(labels, 255)
    assert float(criterion(logits, empty, divisor=criterion.divisor(empty))) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_over_its_own_divisor_is_the_loss_itself(name):
    criterion, (logits, labels) = build_criterion(name, COUNTS), effective_batch()
    for given in (labels, labels.byte(), labels.int()):
        divisor = criterion.divisor(given)
        assert float(criterion(logits, given, divisor=divisor)) == pytest.approx(
            float(criterion(logits, labels)), rel=1e-6
        )


@pytest.mark.parametrize("options", [{}, {"upsample": "bilinear"}])
def test_the_weights_of_pixels_count_in_the_divisor(options):
    logits, labels = effective_batch()
    criterion = OutlyingMSELoss.from_counts(COUNTS, class_weights="enet", **options)
    pixel_weight = torch.rand(labels.shape)
    pixel_weight[labels == 255] = torch.nan
    divisor = sum(criterion.divisor(labels[i : i + 1], pixel_weight[i : i + 1]) for i in range(4))
    parts = [criterion(logits[[i]], labels[[i]], pixel_weight[[i]], divisor=divisor) for i in range(4)]
    assert float(sum(parts)) == pytest.approx(float(criterion(logits, labels, pixel_weight)), rel=1e-6)


def test_a_sum_within_a_sum_keeps_a_divisor_for_each_of_its_terms():
    inner = build_criterion("ce+weighted_ce", COUNTS)
    criterion, (logits, labels) = SumLoss([(0.5, inner), (2, build_criterion("focal", COUNTS))]), effective_batch()
    assert criterion.divisor(labels).shape == (3,)
    whole = logits.clone().requires_grad_()
    criterion(whole, labels).backward()
    assert distance(gradient_of_parts(criterion, logits, labels, [[0], [1, 2, 3]]), whole.grad) < 1e-6


def test_a_number_divides_as_well():
    logits, labels = effective_batch()
    total = cross_entropy_loss(logits, labels, reduction="sum")
    assert float(cross_entropy_loss(logits, labels, divisor=10)) == pytest.approx(float(total) / 10)
    values = torch.ones(3)
    total = outlying_mse_loss(logits, labels, values, reduction="sum")
    assert float(outlying_mse_loss(logits, labels, values, divisor=7.0)) == pytest.approx(float(total) / 21)
    assert float(dice_loss(logits, labels, divisor=4240)) == pytest.approx(float(dice_loss(logits, labels)) / 2)


@pytest.mark.parametrize("loss", [cross_entropy_loss, dice_loss, segloss.losses.ohem_cross_entropy_loss])
@pytest.mark.parametrize(
    ("divisor", "reduction", "part"),
    [
        (5.0, "sum", "divisor is what reduction='mean' divides by, got reduction='sum'; leave it out"),
        (5.0, "none", "got reduction='none'"),
        (-1.0, "mean", "divisor must be >= 0 and finite, got -1.0"),
        (float("nan"), "mean", "divisor must be >= 0 and finite"),
        (torch.ones(2), "mean", r"divisor must be one number, got \(2,\); take criterion.divisor\(labels\)"),
    ],
)
def test_a_divisor_that_does_not_fit_is_refused(loss, divisor, reduction, part):
    with pytest.raises(ValueError, match=part):
        loss(*effective_batch(), divisor=divisor, reduction=reduction)


def test_a_sum_wants_a_number_for_each_term():
    with pytest.raises(ValueError, match=r"divisor must have shape \(2,\), one number for each term, got \(3,\)"):
        build_criterion("ce+focal", COUNTS)(*effective_batch(), divisor=torch.ones(3))


def two_ranks(rank: int, folder: str) -> None:
    """Each of two gloo processes does two micro-batches of every loss and leaves the gradient that DDP would apply."""
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    images, labels = effective_batch()
    found = {}
    for name in NAMES:
        torch.manual_seed(0)
        criterion, network = build_criterion(name, COUNTS), torch.nn.Conv2d(3, 3, 1)
        network = torch.nn.parallel.DistributedDataParallel(network)
        mine = [[2 * rank], [2 * rank + 1]]
        divisor = sum(criterion.divisor(labels[part]) for part in mine)
        torch.distributed.all_reduce(divisor)
        with network.no_sync():
            (2 * criterion(network(images[mine[0]]), labels[mine[0]], divisor=divisor)).backward()
        (2 * criterion(network(images[mine[1]]), labels[mine[1]], divisor=divisor)).backward()
        found[name] = torch.cat([p.grad.flatten() for p in network.parameters()])
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_of_two_micro_batches_apply_the_gradient_of_the_effective_batch(tmp_path):
    torch.multiprocessing.spawn(two_ranks, (str(tmp_path),), nprocs=2)
    images, labels = effective_batch()
    first, second = (torch.load(Path(tmp_path) / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for name in NAMES:
        torch.manual_seed(0)
        criterion, network = build_criterion(name, COUNTS), torch.nn.Conv2d(3, 3, 1)
        if name in PIXEL_MEANS:
            criterion(network(images), labels).backward()
        else:
            own = [criterion.divisor(labels[[i]]) for i in range(4)]
            sum(criterion(network(images[[i]]), labels[[i]]) * own[i] / sum(own) for i in range(4)).backward()
        whole = torch.cat([p.grad.flatten() for p in network.parameters()])
        assert torch.equal(first[name], second[name])
        assert distance(first[name], whole) < 1e-5, name
