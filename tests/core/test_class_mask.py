"""Images that label a part of the classes: the others stay out of their loss, its gradient and its divisor."""

import copy
import inspect

import pytest
import torch

from segloss.losses import LOSSES, SumLoss, build_criterion
from segloss.losses.partial_labels import ignore_unlabelled, only_labelled

COUNTS = [900, 90, 10, 400]
MASK = torch.tensor([[True, True, False, True], [True, False, True, True], [True, True, True, True]])
OF_PIXELS = [name for name in LOSSES if name not in ("dice", "jaccard", "tversky", "lovasz")]
ADDING_UP = [name for name in OF_PIXELS if name != "ohem_ce"]  # whose hard pixels are each part's own matter
NAMES = [*LOSSES, *(f"weighted_{name}" for name in LOSSES), "ce+0.5*weighted_dice", "mse+0.5*outlying_mse"]
OPTIONS = {"label_smoothing": 0.1}


def sample(dtype=torch.float64, shape=(3, 5), seed=0):
    """Scores of three images of four classes, and labels of classes that each labels, some ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 4, *shape, generator=generator, dtype=dtype)
    labels = torch.stack(
        [mask.nonzero()[:, 0][torch.randint(int(mask.sum()), shape, generator=generator)] for mask in MASK]
    )
    labels.view(3, -1)[:, 0] = 255
    return logits, labels


def criterion_of(name, reduction="mean"):
    criterion = build_criterion(name, COUNTS, **OPTIONS)
    for part in criterion.modules():
        part.reduction = reduction
    return criterion


def of_one_image(criterion, logits, labels, mask):
    """The loss of one image by a criterion that knows its labelled classes alone."""
    classes = mask.nonzero()[:, 0].tolist()
    known = criterion_of_classes(criterion, classes)
    number = {c: place for place, c in enumerate(classes)} | {255: 255}
    renamed = torch.tensor([number[int(c)] for c in labels.flatten()]).view(labels.shape)
    return known(logits[:, classes], renamed)


def criterion_of_classes(criterion, classes):
    own = copy.deepcopy(criterion)
    for part in own.modules():
        for name, buffer in part._buffers.items():
            if buffer is not None and buffer.ndim == 1:
                part._buffers[name] = buffer[classes]
    return own


@pytest.mark.parametrize("name", [*OF_PIXELS, *(f"weighted_{name}" for name in OF_PIXELS)])
def test_the_loss_of_a_pixel_is_that_of_a_network_of_its_labelled_classes(name):
    criterion = criterion_of(name, "none")
    if hasattr(criterion, "min_share"):
        criterion.min_share = 0.0  # the hardest of a batch are no matter of one image
    logits, labels = sample()
    found = criterion(logits, labels, class_mask=MASK)
    for n in range(3):
        wanted = of_one_image(criterion, logits[n : n + 1], labels[n : n + 1], MASK[n])
        torch.testing.assert_close(found[n : n + 1], wanted)


@pytest.mark.parametrize("name", NAMES)
def test_scores_of_unlabelled_classes_have_no_part_in_value_and_gradient(name):
    criterion = criterion_of(name)
    logits, labels = sample()
    logits.requires_grad_()
    value = criterion(logits, labels, class_mask=MASK)
    (gradient,) = torch.autograd.grad(value, logits)
    assert gradient.isfinite().all()
    assert (gradient[~MASK] == 0).all()
    assert gradient.transpose(1, 2)[MASK.unsqueeze(1).expand(3, 3, 4)].abs().sum() > 0
    odd = torch.where(MASK[..., None, None], logits.detach(), float("nan"))
    torch.testing.assert_close(criterion(odd, labels, class_mask=MASK), value.detach())


# Which pixels count jumps with the scores of a Lovasz or hard-pixel loss.
@pytest.mark.parametrize("name", [name for name in NAMES if "lovasz" not in name and "ohem" not in name])
def test_the_gradient_is_that_of_the_value(name):
    criterion = criterion_of(name)
    logits, labels = sample(shape=(2, 3))
    # A second backward pass recomputes the squared error's gradient: the last digit may differ.
    loss = lambda z: criterion(z, labels, class_mask=MASK)  # noqa: E731
    assert torch.autograd.gradcheck(loss, logits.requires_grad_(), nondet_tol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_pixel_of_an_unlabelled_class_is_ignored(name):
    criterion = criterion_of(name)
    logits, labels = sample()
    strays, ignored = labels.clone(), labels.clone()
    strays[0, 1], ignored[0, 1] = 2, 255
    divisors = [criterion.divisor(given, class_mask=MASK) for given in (strays, ignored)]
    torch.testing.assert_close(*divisors, rtol=0, atol=0)
    values = [criterion(logits, given, class_mask=MASK) for given in (strays, ignored)]
    torch.testing.assert_close(*values, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_no_mask_is_bit_for_bit_the_loss_of_before_and_a_full_one_the_same_number(name):
    criterion = criterion_of(name)
    logits, labels = sample(torch.float32)
    plain = criterion(logits, labels)
    torch.testing.assert_close(criterion(logits, labels, class_mask=None), plain, rtol=0, atol=0)
    torch.testing.assert_close(criterion(logits, labels, class_mask=torch.ones_like(MASK)), plain)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_an_image_without_a_labelled_class_adds_nothing(name, reduction):
    criterion = criterion_of(name, reduction)
    logits, labels = sample()
    mask = MASK.clone()
    mask[1] = False
    logits.requires_grad_()
    value = criterion(logits, labels, class_mask=mask)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.isfinite() and gradient.isfinite().all() and (gradient[1] == 0).all()
    nothing = criterion(logits, labels, class_mask=torch.zeros_like(mask))
    assert nothing.item() == 0
    assert (torch.autograd.grad(nothing, logits)[0] == 0).all()


@pytest.mark.parametrize("name", [*ADDING_UP, "weighted_ce", "weighted_outlying_mse", "ce+0.5*focal"])
def test_parts_of_a_batch_add_up_to_the_whole(name):
    criterion = criterion_of(name)
    logits, labels = sample()
    own = [criterion.divisor(labels[n : n + 1], class_mask=MASK[n : n + 1]) for n in range(3)]
    whole = sum(own)
    parts = [
        criterion(logits[n : n + 1], labels[n : n + 1], divisor=whole, class_mask=MASK[n : n + 1]) for n in range(3)
    ]
    torch.testing.assert_close(sum(parts), criterion(logits, labels, class_mask=MASK))


def test_dice_counts_a_class_over_the_images_that_label_it():
    logits, labels = sample()
    p = logits.masked_fill(~MASK[..., None, None], -torch.inf).softmax(1)
    terms = []
    for c in range(4):
        images = [n for n in range(3) if MASK[n, c]]
        valid = labels[images] != 255
        hit = ((labels[images] == c) & valid).double()
        of_class = p[images, c] * valid
        terms.append(1 - 2 * (of_class * hit).sum() / (of_class.sum() + hit.sum()))
    wanted = torch.stack(terms).mean()
    torch.testing.assert_close(criterion_of("dice")(logits, labels, class_mask=MASK), wanted)


def test_the_squared_error_of_small_logits_is_that_of_upsampled_ones():
    _, labels = sample()
    small = torch.randn(3, 4, 2, 2, dtype=torch.float64)
    criterion = criterion_of("outlying_mse")
    criterion.upsample = "bilinear"
    found = criterion(small, labels, class_mask=MASK)
    large = torch.nn.functional.interpolate(small, labels.shape[1:], mode="bilinear")
    criterion.upsample = None
    torch.testing.assert_close(found, criterion(large, labels, class_mask=MASK))


def test_pixel_weights_stay_what_the_mean_divides_by():
    logits, labels = sample()
    weights = torch.rand(labels.shape, dtype=torch.float64)
    criterion = criterion_of("outlying_mse")
    found = criterion(logits, labels, pixel_weight=weights, class_mask=MASK)
    criterion.reduction = "none"
    terms = criterion(logits, labels, pixel_weight=weights, class_mask=MASK)
    torch.testing.assert_close(found, terms.sum() / weights[labels != 255].sum())


@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 2)])
def test_any_trailing_shape_has_masks(shape):
    logits, labels = torch.randn(3, 4, *shape), torch.zeros(3, *shape, dtype=torch.long)
    for name in LOSSES:
        assert criterion_of(name)(logits, labels, class_mask=MASK).isfinite()


@pytest.mark.parametrize("ignore_index", [None, 1, -100])
def test_whatever_is_ignored_unlabelled_pixels_are_left_out(ignore_index):
    criterion = build_criterion("ce", COUNTS)
    criterion.ignore_index = ignore_index
    logits = torch.randn(1, 4, 3)
    mask = torch.tensor([[True, False, False, True]])
    found = criterion(logits, torch.tensor([[0, 2, 3]]), class_mask=mask)
    wanted = torch.nn.functional.cross_entropy(logits[:, [0, 3]][..., [0, 2]], torch.tensor([[0, 1]]))
    torch.testing.assert_close(found, wanted)


def test_small_integer_labels_do_not_wrap_round():
    labels = torch.tensor([[0, 2]], dtype=torch.uint8)
    assert ignore_unlabelled(labels, torch.tensor([[True, True, False]]), None).tolist() == [[0, 1 - 2**31]]


@pytest.mark.parametrize(
    ("mask", "error", "match"),
    [
        (MASK[:2], ValueError, r"class_mask must have shape \(3, 4\)"),
        (MASK.long(), TypeError, "class_mask must be bool"),
        (MASK.tolist(), TypeError, "class_mask must be a torch.Tensor"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask, error, match):
    logits, labels = sample()
    for name in LOSSES:
        with pytest.raises(error, match=match):
            criterion_of(name)(logits, labels, class_mask=mask)


@pytest.mark.parametrize("shape", [(), (3,), (3, 5)])
@pytest.mark.parametrize("name", ["ce", "outlying_mse", "dice", "ohem_ce"])
def test_a_batch_of_no_image_has_masks_too(name, shape):
    criterion, labels = criterion_of(name), torch.zeros(0, *shape, dtype=torch.long)
    mask = torch.ones(0, 4, dtype=torch.bool)
    assert float(criterion(torch.zeros(0, 4, *shape), labels, class_mask=mask)) == 0
    assert float(criterion.divisor(labels, class_mask=mask)) == 0


def test_a_label_outside_the_classes_is_still_found():
    logits, labels = sample()
    labels[0, 1] = 7
    with pytest.raises(IndexError, match="labels hold 7"):
        criterion_of("ce")(logits, labels, class_mask=MASK)


@pytest.mark.parametrize("name", ["ce", "outlying_mse", "lovasz", "ldam"])
def test_half_precision_scores_are_masked_too(name):
    logits, labels = sample(torch.float16)
    criterion = criterion_of(name)
    logits.requires_grad_()
    criterion(logits, labels, class_mask=MASK).backward()
    assert logits.grad.isfinite().all() and (logits.grad[~MASK] == 0).all()


@pytest.mark.parametrize("name", ["ce", "outlying_mse", "dice"])
def test_one_compiled_graph_holds_the_masked_loss(name):
    logits, labels = sample(torch.float32)
    criterion = criterion_of(name)
    torch.compiler.reset()  # one code object is compiled only so many times
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, labels, class_mask=MASK), criterion(logits, labels, class_mask=MASK))


def test_every_loss_says_in_its_signature_that_it_takes_masks():
    for name, loss in LOSSES.items():
        assert "class_mask" in inspect.signature(loss.forward).parameters, name
    assert "class_mask" in inspect.signature(SumLoss.forward).parameters


def test_masked_scores_are_those_of_the_equation():
    scores, labels = only_labelled(torch.zeros(1, 3), torch.tensor([2]), torch.tensor([[True, True, False]]), 255)
    assert scores.tolist() == [[0, 0, -torch.inf]] and labels.tolist() == [255]
