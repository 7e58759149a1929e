"""What the adapters compute, with torch alone: no framework is imported here."""

import subprocess
import sys

import pytest
import torch

from segloss import CrossEntropyLoss, OutlyingMSELoss, count_labels, outlying_mse_loss
from segloss.adapters import MMSegOutlyingMSELoss, OutputDictLoss, compute_loss_func, squeeze_labels
from segloss.errors import InputError

COUNTS = [900, 90, 10]
EXACT = {"rtol": 1e-6, "atol": 1e-7}  # float32: the same terms, added or scaled in another order


def scores_and_labels(batch: int = 4, *, ignored: int = 255, seed: int = 0):
    """Labels whose share of ignored pixels differs from image to image."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, 3, 5, 7, generator=generator)
    labels = torch.randint(0, 3, (batch, 5, 7), generator=generator)
    for image in range(batch):
        labels[image, :image] = ignored
    return logits.requires_grad_(), labels


def test_importing_the_adapters_loads_torch_alone():
    frameworks = ["transformers", "mmseg", "mmengine", "torchvision", "lightning", "segmentation_models_pytorch"]
    program = f"import sys, segloss.adapters; print([m for m in {frameworks} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Label shapes.


def test_a_channel_dimension_of_labels_is_squeezed():
    logits, labels = scores_and_labels()
    assert torch.equal(squeeze_labels(logits, labels.unsqueeze(1)), labels)
    assert squeeze_labels(logits, labels) is labels


def test_an_image_of_height_one_keeps_its_height():
    assert squeeze_labels(torch.zeros(2, 3, 1, 7), torch.zeros(2, 1, 7)).shape == (2, 1, 7)


def test_labels_with_more_channels_are_left_for_the_loss_to_reject():
    logits, labels = scores_and_labels()
    with pytest.raises(ValueError, match="labels must have shape"):
        OutlyingMSELoss(COUNTS)(logits, squeeze_labels(logits, labels.unsqueeze(1).repeat(1, 2, 1, 1)))


# Networks that return a dictionary.


def test_the_auxiliary_loss_is_added_at_its_weight():
    out, labels = scores_and_labels(seed=0)
    aux, _ = scores_and_labels(seed=1)
    criterion = OutlyingMSELoss.from_counts(COUNTS)
    expected = criterion(out, labels) + 0.5 * criterion(aux, labels)
    torch.testing.assert_close(OutputDictLoss(criterion)({"out": out, "aux": aux}, labels), expected, **EXACT)
    doubled = OutputDictLoss(criterion, aux_weight=2.0)({"out": out, "aux": aux}, labels.unsqueeze(1))
    torch.testing.assert_close(doubled, criterion(out, labels) + 2 * criterion(aux, labels), **EXACT)


def test_without_auxiliary_logits_the_loss_is_the_criterions():
    out, labels = scores_and_labels()
    criterion = OutlyingMSELoss.from_counts(COUNTS)
    assert torch.equal(OutputDictLoss(criterion)({"out": out}, labels), criterion(out, labels))


def test_the_criterions_options_reach_both_terms():
    out, labels = scores_and_labels(seed=0)
    aux, _ = scores_and_labels(seed=1)
    criterion = OutlyingMSELoss.from_counts(COUNTS)
    loss, whole = OutputDictLoss(criterion), 2 * criterion.divisor(labels)
    expected = loss({"out": out, "aux": aux}, labels) / 2
    torch.testing.assert_close(loss({"out": out, "aux": aux}, labels, divisor=whole), expected, **EXACT)


# Hugging Face's Trainer: what it adds up over the micro-batches of a step.


def step_loss(criterion, logits, labels, sizes: list[int]):
    """The sum over micro-batches of these sizes, with Trainer's count of items."""
    items = labels.ne(-100).sum()
    pairs = zip(logits.split(sizes), labels.split(sizes), strict=True)
    return sum(compute_loss_func(criterion)({"logits": x}, y, num_items_in_batch=items) for x, y in pairs)


@pytest.mark.parametrize("sizes", [[4], [2, 2], [3, 1], [1, 1, 1, 1]])
def test_micro_batches_add_up_to_the_mean_over_the_steps_valid_pixels(sizes):
    logits, labels = scores_and_labels(ignored=-100)
    criterion = OutlyingMSELoss.from_counts(COUNTS, ignore_index=-100)
    whole = criterion(logits, labels)
    step = step_loss(criterion, logits, labels, sizes)
    torch.testing.assert_close(step, whole, **EXACT)
    (expected,) = torch.autograd.grad(whole, logits)
    torch.testing.assert_close(torch.autograd.grad(step, logits)[0], expected, **EXACT)


@pytest.mark.parametrize("sizes", [[4], [2, 2], [3, 1]])
def test_void_of_255_counts_in_a_micro_batchs_size(sizes):
    logits, labels = scores_and_labels(ignored=255)
    criterion = OutlyingMSELoss.from_counts(COUNTS)
    pairs = zip(logits.split(sizes), labels.split(sizes), sizes, strict=True)
    expected = sum(size / 4 * criterion(x, y) for x, y, size in pairs)
    torch.testing.assert_close(step_loss(criterion, logits, labels, sizes), expected, **EXACT)


@pytest.mark.parametrize("labels_have_channel", [False, True])
def test_without_a_count_the_loss_is_the_criterions(labels_have_channel):
    logits, labels = scores_and_labels()
    criterion = OutlyingMSELoss.from_counts(COUNTS)
    given = labels.unsqueeze(1) if labels_have_channel else labels
    assert torch.equal(compute_loss_func(criterion)({"logits": logits}, given), criterion(logits, labels))


def test_a_step_without_valid_pixels_has_loss_and_gradient_zero():
    logits, _ = scores_and_labels()
    criterion = OutlyingMSELoss.from_counts(COUNTS, ignore_index=-100)
    loss = step_loss(criterion, logits, torch.full((4, 5, 7), -100), [2, 2])
    assert loss == 0 and not torch.autograd.grad(loss, logits)[0].any()


def test_another_reduction_is_refused():
    with pytest.raises(ValueError, match="criterion must have reduction \"mean\", got 'sum'"):
        compute_loss_func(CrossEntropyLoss(reduction="sum"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_criterion_follows_the_logits_to_their_device():
    logits, labels = scores_and_labels()
    loss = compute_loss_func(OutlyingMSELoss.from_counts(COUNTS))({"logits": logits.cuda()}, labels.cuda())
    assert loss.device.type == "cuda"


# mmsegmentation's calling convention.


def test_mmseg_loss_is_the_loss_times_its_weight():
    logits, labels = scores_and_labels(ignored=9)
    loss = MMSegOutlyingMSELoss(COUNTS, alpha=2.0, loss_weight=0.4)
    expected = 0.4 * OutlyingMSELoss.from_counts(COUNTS, alpha=2.0, ignore_index=9)(logits, labels)
    for target in (labels, labels.unsqueeze(1)):
        assert torch.equal(loss(logits, target, weight=None, ignore_index=9), expected)


LEFT_OUT = count_labels(torch.tensor([[0, 0, 1, 1, 1, 2]]), 3, ignore_index=0)


@pytest.mark.parametrize(
    ("counts", "head", "message"),
    [
        ([900, 90, 10], 0, "decode head ignores class 0, of which counts hold pixels; give counts of 0 there"),
        (torch.tensor([900, 90, 10]), 2, "decode head ignores class 2, of which"),
        (LEFT_OUT, 255, "counts leave out class 0, and mmseg's decode head ignores 255; give the head ignore_index=0"),
        (LEFT_OUT, 1, "counts leave out class 0, and mmseg's decode head ignores 1"),
        ([1] * 300, 255, "decode head ignores class 255, of which counts hold pixels"),
    ],
)
def test_mmseg_counts_and_decode_head_ignore_the_same_class(counts, head, message):
    """Label values were of a class that was not trained, or of all but one that was."""
    loss = MMSegOutlyingMSELoss(counts)
    logits = torch.zeros(1, len(loss.criterion.label_values), 2, 2)
    with pytest.raises(InputError, match=message) as error:
        loss(logits, torch.ones(1, 2, 2).long(), ignore_index=head)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("counts", [LEFT_OUT, [0, 3, 1]], ids=["PixelCounts", "list"])
def test_mmseg_loss_without_a_class_is_that_of_the_core(counts):
    logits, labels = scores_and_labels(ignored=0)
    expected = OutlyingMSELoss.from_counts([2, 3, 1], ignore_index=0)(logits, labels)
    assert torch.equal(MMSegOutlyingMSELoss(counts)(logits, labels, ignore_index=0), expected)


@pytest.mark.parametrize("option", ["divisor", "class_mask", "true_channel_weight"])
def test_mmseg_loss_swallows_no_option_of_the_loss(option):
    with pytest.raises(TypeError, match=f"{option} is no argument of mmseg's losses"):
        MMSegOutlyingMSELoss(COUNTS)(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2).long(), **{option: 1.0})
    MMSegOutlyingMSELoss(COUNTS)(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2).long(), epoch=3)


def test_mmseg_pixel_weights_and_class_weights_weigh_pixels():
    logits, labels = scores_and_labels()
    pixel_weight = torch.rand(labels.shape, generator=torch.Generator().manual_seed(2))
    loss = MMSegOutlyingMSELoss(COUNTS, weight=[1.0, 2.0, 3.0])
    expected = loss.criterion(logits, labels, pixel_weight=pixel_weight)
    assert torch.equal(loss(logits, labels, weight=pixel_weight), expected)
    assert not torch.isclose(expected, MMSegOutlyingMSELoss(COUNTS)(logits, labels))


@pytest.mark.parametrize(
    "options", [{"true_channel_weight": 4.0}, {"class_weights": "median_frequency"}, {"label_values": "uniform"}]
)
def test_mmseg_loss_trains_by_every_option_that_it_reads_the_scores_by(options):
    logits, labels = scores_and_labels()
    loss = MMSegOutlyingMSELoss(COUNTS, **options)
    expected = OutlyingMSELoss.from_counts(COUNTS, **options)(logits, labels)
    assert torch.equal(loss(logits, labels), expected)
    assert not torch.isclose(expected, MMSegOutlyingMSELoss(COUNTS)(logits, labels))
    valid = int((labels != 255).sum())
    of_sum = OutlyingMSELoss.from_counts(COUNTS, reduction="sum", **options)(logits, labels) / (3 * valid)
    torch.testing.assert_close(loss(logits, labels, avg_factor=float(valid)), of_sum, **EXACT)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_mmseg_reduction_and_its_override(reduction):
    logits, labels = scores_and_labels()
    by_call = MMSegOutlyingMSELoss(COUNTS)(logits, labels, reduction_override=reduction)
    expected = outlying_mse_loss(logits, labels, torch.tensor([1.0, 2.0, 3.0]), reduction=reduction)
    assert torch.equal(by_call, expected)
    assert torch.equal(MMSegOutlyingMSELoss(COUNTS, reduction=reduction)(logits, labels), expected)


def test_mmseg_avg_factor_is_the_number_of_pixels_the_mean_divides_by():
    logits, labels = scores_and_labels()
    loss = MMSegOutlyingMSELoss(COUNTS)
    per_pixel = loss(logits, labels, reduction_override="none")
    for avg_factor in (50.0, torch.tensor(50.0)):
        torch.testing.assert_close(loss(logits, labels, avg_factor=avg_factor), per_pixel.sum() / 50, **EXACT)
    assert torch.equal(loss(logits, labels, avg_factor=50.0, reduction_override="none"), per_pixel)
    assert loss(logits, torch.full_like(labels, 255), avg_factor=0.0) == 0
    with pytest.raises(ValueError, match='avg_factor must be None with reduction "sum"'):
        loss(logits, labels, avg_factor=50.0, reduction_override="sum")


@pytest.mark.parametrize("option", [{"ignore_index": 9}, {"upsample": "bilinear"}, {"align_corners": True}])
def test_mmseg_options_that_its_decode_head_hands_over_are_refused(option):
    with pytest.raises(ValueError, match=f"{next(iter(option))} belongs to mmseg's decode head"):
        MMSegOutlyingMSELoss([3, 2, 1], **option)


def test_class_156_in_uint8_labels_is_not_taken_for_minus_100():
    counts = [2] * 157
    logits, labels = torch.randn(1, 157, 4, 5), torch.full((1, 4, 5), 156, dtype=torch.uint8)
    criterion = OutlyingMSELoss.from_counts(counts)
    found = compute_loss_func(criterion)({"logits": logits}, labels, num_items_in_batch=20)
    assert torch.equal(found, criterion(logits, labels))
