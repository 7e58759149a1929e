"""Options are checked where they are given, by every criterion with the same words; None ignores nothing."""

import copy
import math
import re
import warnings
from collections import Counter

import numpy as np
import pytest
import torch

from segloss import ConfusionMatrix, OutlyingMSELoss, count_labels, decide, outlying_mse_loss, posterior
from segloss.adapters import MMSegOutlyingMSELoss
from segloss.errors import InputError
from segloss.losses import (
    LOSSES,
    CrossEntropyLoss,
    MSELoss,
    SumLoss,
    build_criterion,
    class_weights_from_counts,
    cross_entropy_loss,
    label_values_from_counts,
)
from segloss.losses.labels import NOTHING_IGNORED
from segloss.pixel_sample import PixelSample

COUNTS = [900, 90, 10]
NAMES = [*LOSSES, *(f"weighted_{name}" for name in LOSSES)]


def made(name: str, **options):
    weights = {"class_weights": "inverse_sqrt"} if name.startswith("weighted_") else {}
    return LOSSES[name.removeprefix("weighted_")].from_counts(COUNTS, **weights, **options)


def scores_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 4, 5, generator=generator), torch.randint(0, 3, (2, 4, 5), generator=generator)


@pytest.mark.parametrize("name", NAMES)
def test_with_none_nothing_is_ignored(name):
    logits, labels = scores_and_labels()
    assert torch.equal(made(name, ignore_index=None)(logits, labels), made(name, ignore_index=255)(logits, labels))
    for stray in (255, -100, -1):
        labels[0, 0, 0] = stray
        with pytest.raises(IndexError, match=rf"labels hold {stray}, outside \[0, 3\) and not ignore_index=None"):
            made(name, ignore_index=None)(logits, labels)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ignore_index", ["255", 2.5, 255.0, True, np.bool_(True), [255], math.nan])
def test_an_ignored_label_that_is_no_integer_is_refused_by_every_criterion(name, ignore_index):
    with pytest.raises(InputError, match=r"ignore_index must be an integer or None, got .*; give one label"):
        made(name, ignore_index=ignore_index)


@pytest.mark.parametrize("ignore_index", ["255", 2.5, True])
def test_so_it_is_by_functions_and_counters(ignore_index):
    logits, labels = scores_and_labels()
    for call in (
        lambda: outlying_mse_loss(logits, labels, torch.ones(3), ignore_index=ignore_index),
        lambda: ConfusionMatrix(3, ignore_index=ignore_index),
        lambda: PixelSample(ignore_index=ignore_index),
    ):
        with pytest.raises(InputError, match="ignore_index must be an integer or None"):
            call()


def test_integers_of_other_kinds_are_ignored_labels():
    logits, labels = scores_and_labels()
    expected = OutlyingMSELoss(torch.ones(3), ignore_index=1)(logits, labels)
    for one in (np.int64(1), np.uint8(1)):
        assert torch.equal(OutlyingMSELoss(torch.ones(3), ignore_index=one)(logits, labels), expected)


def test_what_a_nan_becomes_as_an_integer_is_not_ignored_by_none():
    for bits in (8, 16, 32, 64):
        assert -(2 ** (bits - 1)) != NOTHING_IGNORED


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tau", [math.nan, math.inf, "0.5", None, 1j, [0.5, 1.0], True])
def test_an_operating_point_that_is_no_number_is_refused_by_every_criterion(name, tau):
    with pytest.raises(InputError, match=f"tau must be finite, got {re.escape(repr(tau))}"):
        made(name).decide(scores_and_labels()[0], tau)


@pytest.mark.parametrize("name", NAMES)
def test_scores_of_another_class_count_are_refused_where_the_count_is_known(name):
    criterion = made(name)
    other = torch.randn(2, 4, 5, 6)
    if not any(buffer.ndim == 1 for buffer in criterion.buffers()):
        criterion.decide(other)
        return
    for read in (criterion.decide, criterion.posterior):
        with pytest.raises(InputError, match=r"logits must have 3 classes in dim 1, got shape \(2, 4, 5, 6\); give"):
            read(other)


@pytest.mark.parametrize("name", [*NAMES, "sum"])
def test_scores_that_are_no_tensor_of_real_numbers_are_refused(name):
    criterion = build_criterion("ce+0.5*dice", COUNTS) if name == "sum" else made(name)
    logits, labels = scores_and_labels()
    for read in (criterion.decide, criterion.posterior):
        with pytest.raises(TypeError, match=r"logits must be a torch\.Tensor, got ndarray; take torch\.as_tensor"):
            read(logits.numpy())
        for dtype in (torch.complex64, torch.bool):
            with pytest.raises(TypeError, match=f"logits must be floating point, got {dtype}"):
                read(logits.to(dtype))
        with pytest.raises(ValueError, match=r"logits must have shape \(N, C, \*\), got \(3,\)"):
            read(logits[0, :, 0, 0])
    for dtype in (torch.complex64, torch.bool):
        with pytest.raises(TypeError, match=f"logits must be floating point, got {dtype}"):
            criterion(logits.to(dtype), labels)
        with pytest.raises(TypeError, match=f"labels must hold integer class ids, got {dtype}"):
            criterion(logits, labels.to(dtype))


def test_the_functions_read_no_other_scores_either():
    for read in (posterior, decide):
        with pytest.raises(TypeError, match=r"logits must be a torch\.Tensor, got list"):
            read([[1.0, 2.0]], torch.ones(2))
        with pytest.raises(TypeError, match=r"label_values must be real numbers, got torch\.complex64"):
            read(torch.ones(1, 2), torch.ones(2, dtype=torch.complex64))
    with pytest.raises(InputError, match="tau must be finite, got nan"):
        decide(torch.ones(1, 2), torch.ones(2), math.nan)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reduction", ["median", None, 1])
def test_an_unknown_reduction_is_refused_by_every_criterion(name, reduction):
    with pytest.raises(InputError, match=f"reduction must be one of mean, sum, none, got {reduction!r}"):
        made(name, reduction=reduction)


@pytest.mark.parametrize("name", [name for name in LOSSES if LOSSES[name].options])
@pytest.mark.parametrize("value", ["much", None, 1j, math.nan])
def test_numbers_among_the_options_are_checked_by_name(name, value):
    for option, declared in LOSSES[name].options.items():
        if isinstance(declared.default, float):
            with pytest.raises(ValueError, match=re.escape(f"{option} must be {declared.expected}, got {value!r}")):
                build_criterion(name, COUNTS, **{option: value})


@pytest.mark.parametrize("weight", [["a", "b", "c"], [True, False, True], [1j, 1, 1], "abc"])
@pytest.mark.parametrize("name", LOSSES)
def test_weights_that_are_no_numbers_are_refused_by_every_criterion(name, weight):
    with pytest.raises(InputError, match="weight must be numbers, one per class, got"):
        LOSSES[name].from_counts(COUNTS, weight=weight)


def test_counts_and_recipes_of_another_kind():
    for counts in (["a", "b"], "many", [True, False], None):
        with pytest.raises(InputError, match="counts must be numbers, one per class, got"):
            label_values_from_counts(counts)
    with pytest.raises(InputError, match=r"recipe must be one of median_frequency.*, got 3"):
        class_weights_from_counts(COUNTS, 3)
    with pytest.raises(InputError, match="label_values must be numbers, one per class, got None"):
        label_values_from_counts(COUNTS, label_values=None)


@pytest.mark.parametrize("align_corners", ["yes", 1, None])
def test_align_corners_is_a_switch(align_corners):
    with pytest.raises(InputError, match=f"align_corners must be True or False, got {align_corners!r}"):
        OutlyingMSELoss(torch.ones(3), upsample="bilinear", align_corners=align_corners)


def test_pixel_weights_are_not_negative():
    """Of a sum below 0 the loss was a mean by 1, below 0 itself."""
    scores, labels = scores_and_labels()
    with pytest.raises(ValueError, match=r"pixel_weight must be >= 0, got -0\.5"):
        outlying_mse_loss(scores, labels, torch.ones(3), pixel_weight=torch.full(labels.shape, -0.5))


@pytest.mark.parametrize("pixel_weight", [np.ones((2, 4, 5)), torch.ones(2, 4, 5, dtype=torch.complex64)])
def test_pixel_weights_of_another_kind(pixel_weight):
    with pytest.raises(TypeError, match="pixel_weight must be"):
        outlying_mse_loss(*scores_and_labels(), torch.ones(3), pixel_weight=pixel_weight)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_an_upsampled_batch_of_no_image_costs_nothing(reduction, align_corners):
    logits, labels = torch.randn(0, 3, 4, 5, requires_grad=True), torch.zeros(0, 8, 10, dtype=torch.int64)
    criterion = OutlyingMSELoss([1.0, 2.0, 3.0], reduction=reduction, upsample="bilinear", align_corners=align_corners)
    loss = criterion(logits, labels)
    assert loss.shape == (labels.shape if reduction == "none" else ())
    assert loss.sum() == 0
    (gradient,) = torch.autograd.grad(loss.sum(), logits, create_graph=True)
    assert gradient.shape == logits.shape


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("logits", "labels", "cure"),
    [
        (torch.zeros(3, 8, 9), torch.zeros(8, 9).long(), r"give a batch: logits\[None\], labels\[None\]"),
        (torch.zeros(2, 3, 8, 9), torch.zeros(2, 3, 8, 9).long(), r"take labels.argmax\(1\) of one-hot labels"),
        (torch.zeros(2, 3, 8), torch.zeros(2, 3, 8).long(), r"take labels.argmax\(1\) of one-hot labels"),
        (torch.zeros(2, 3, 8, 9), torch.zeros(2, 1, 8, 9).long(), "squeeze dim 1"),
    ],
)
def test_shapes_that_people_have_are_answered_with_what_to_do(name, logits, labels, cure):
    with pytest.raises(ValueError, match=f"labels must have shape .*; {cure}"):
        build_criterion(name, [900, 90, 10])(logits, labels)


@pytest.mark.parametrize("outputs", [{"out": torch.zeros(2, 3, 4)}, (torch.zeros(2, 3, 4),)], ids=["dict", "tuple"])
def test_what_a_network_wraps_its_scores_in_is_named(outputs):
    criterion = build_criterion("outlying_mse", [900, 90, 10])
    for call in (lambda: criterion(outputs, torch.zeros(2, 4).long()), lambda: criterion.decide(outputs)):
        with pytest.raises(TypeError, match="give the tensor in it, as outputs"):
            call()
    with pytest.raises(TypeError, match=r"got ndarray; take torch\.as_tensor of it"):
        criterion.decide(torch.zeros(2, 3, 4).numpy())


@pytest.mark.parametrize(("p", "recipe", "q"), [(0.5, None, 0.0), (0.0, "inverse", 1.0), (0.5, "inverse_sqrt", 0.5)])
def test_shares_of_the_initial_loss_go_as_the_page_says(p, recipe, q):
    """n^(1 - q - 2p): label values n^-p, class weights n^-q, scores of 0."""
    counts = [1600, 400, 100]
    name = "outlying_mse" if recipe is None else "weighted_outlying_mse"
    weights = {} if recipe is None else {"class_weights": recipe}
    criterion = build_criterion(name, counts, label_values="power", label_power=p, **weights)
    criterion.reduction = "none"
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(counts)).unsqueeze(0)
    loss = criterion(torch.zeros(1, 3, sum(counts)), labels)[0]
    shares = torch.stack([loss[labels[0] == c].sum() for c in range(3)])
    expected = torch.tensor(counts).float() ** (1 - q - 2 * p)
    torch.testing.assert_close(shares / shares[0], expected / expected[0], rtol=1e-4, atol=0)


def test_an_ignored_label_fits_into_64_bits_and_is_a_plain_integer():
    with pytest.raises(InputError, match="ignore_index must fit into 64 bits, got 1000"):
        OutlyingMSELoss(torch.ones(3), ignore_index=10**30)
    assert type(OutlyingMSELoss(torch.ones(3), ignore_index=np.int64(1)).ignore_index) is int  # so that it compiles


@pytest.mark.parametrize("name", ["outlying_mse", "weighted_ce", "ce+0.5*dice"])
def test_a_divisor_is_of_labels_as_the_loss_takes_them(name):
    criterion, labels = build_criterion(name, COUNTS), scores_and_labels()[1]
    with pytest.raises(TypeError, match=r"labels must be a torch\.Tensor, got ndarray"):
        criterion.divisor(labels.numpy())
    for dtype in (torch.bool, torch.float32):
        with pytest.raises(TypeError, match=f"labels must hold integer class ids, got {dtype}"):
            criterion.divisor(labels.to(dtype))
    with pytest.raises(
        ValueError, match=r"class_mask must have shape \(2, C\) to match labels \(2, 4, 5\), got \(3,\)"
    ):
        criterion.divisor(labels, class_mask=torch.ones(3).bool())
    with pytest.raises(TypeError, match=r"class_mask must be a torch\.Tensor, got list"):
        criterion.divisor(labels, class_mask=[[True] * 3] * 2)


@pytest.mark.parametrize("name", LOSSES)
def test_a_divisor_that_is_no_number_shows(name):
    assert build_criterion(name, COUNTS)(*scores_and_labels(), divisor=torch.tensor(math.nan)).isnan()


def test_options_of_another_recipe_are_checked_too():
    with pytest.raises(InputError, match="power must be >= 0 and finite, got -1"):
        OutlyingMSELoss.from_counts(COUNTS, power=-1)
    with pytest.raises(InputError, match=r"beta must be in \[0, 1\), got 1.0"):
        OutlyingMSELoss.from_counts(COUNTS, beta=1.0)


def test_a_criterion_tells_in_a_line_what_it_is_made_of():
    assert build_criterion("weighted_ce", COUNTS).told() == "class weights, ignore_index=255, reduction='mean'"
    assert build_criterion("0.25*weighted_ce+jaccard", COUNTS).told() == (
        "0.25 CrossEntropyLoss(class weights, ignore_index=255, reduction='mean') + "
        "1 JaccardLoss(ignore_index=255, reduction='mean')"
    )


def test_what_is_no_name_and_no_pair():
    with pytest.raises(InputError, match="unknown loss 'None'; choose one of outlying_mse"):
        build_criterion(None, COUNTS)
    for terms in ([CrossEntropyLoss()], [(1.0, torch.nn.CrossEntropyLoss())]):
        with pytest.raises(InputError, match=r"pairs \(factor, criterion of segloss\), got .*CrossEntropyLoss; write"):
            SumLoss(terms)


@pytest.mark.parametrize("name", NAMES)
def test_a_criterion_made_without_memory_keeps_its_values(name):
    with torch.device("meta"):
        criterion = made(name)
    assert torch.equal(criterion(*scores_and_labels()), made(name)(*scores_and_labels()))


@pytest.mark.parametrize("name", NAMES)
def test_memory_that_is_given_anew_leaves_a_criterion_its_values(name):
    with torch.device("meta"):
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), made(name))
    criterion = network.to_empty(device="cpu")[1]
    assert torch.equal(criterion(*scores_and_labels()), made(name)(*scores_and_labels()))
    assert all(buffer.dtype == torch.float64 for buffer in network.double()[1].buffers())


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_of_transformers_without_the_criterion_leaves_it_its_values(name):
    with torch.device("meta"):
        criterion = made(name)
    owners = [(each, key) for each in criterion.modules() for key, _ in each.named_buffers(recurse=False)]
    for owner, key in owners:
        setattr(owner, key, torch.full_like(getattr(owner, key), 7e9))  # what empty_like found in its memory
    for each in criterion.modules():
        assert not getattr(each, "_is_hf_initialized", False)
        each._is_hf_initialized = True
    assert torch.equal(copy.deepcopy(criterion)(*scores_and_labels()), made(name)(*scores_and_labels()))
    loaded = criterion.state_dict()
    criterion.load_state_dict({key: torch.full_like(value, 0.5) for key, value in loaded.items()})
    assert all(bool((buffer == 0.5).all()) for buffer in criterion.buffers())
    assert all(each._is_hf_initialized for each in criterion.modules())


def test_what_is_loaded_into_a_criterion_without_memory_stays():
    with torch.device("meta"):
        criterion = OutlyingMSELoss.from_counts(COUNTS)
    criterion.to_empty(device="cpu").load_state_dict({"label_values": torch.tensor([7.0, 8.0, 9.0])})
    criterion._is_hf_initialized = True
    assert criterion.label_values.tolist() == [7, 8, 9]


@pytest.mark.parametrize("label_values", ["rank", "log"])
@pytest.mark.parametrize("name", NAMES)
def test_counts_of_the_class_that_is_ignored_are_not_counted(name, label_values):
    """Ranks, ratios and weights were made around it, background of class 0 for the most part."""
    maps = torch.zeros(8, 4, 4, dtype=torch.int64)
    maps[:, 0], maps[0, 1, 0] = 1, 2
    plain = torch.bincount(maps.flatten()).double()
    options = {"ignore_index": 0, "label_values": label_values, "class_weights": "inverse"}
    expected = build_criterion(name, count_labels(maps, 3, ignore_index=0), **options)
    for counts in (plain, plain.tolist(), count_labels(maps, 3)):
        built = build_criterion(name, counts, **options)
        assert all(map(torch.equal, built.buffers(), expected.buffers()))
    assert plain.tolist() == [95, 32, 1]


def test_median_frequency_is_not_of_images_that_count_the_ignored_class():
    maps = torch.tensor([[0, 0, 1], [2, 1, 1]])
    with pytest.raises(InputError, match=r"hold pixels of class 0, which is .*count_labels\(\.\.\., ignore_index=0\)"):
        build_criterion("weighted_ce", count_labels(maps, 3), ignore_index=0)
    assert build_criterion("ce", count_labels(maps, 3), ignore_index=0).weight is None
    right = build_criterion("weighted_ce", count_labels(maps, 3, ignore_index=0))
    plain = build_criterion("weighted_ce", [2, 3, 1], ignore_index=0)
    assert torch.equal(plain.weight, right.weight)


@pytest.mark.parametrize("make", [OutlyingMSELoss, OutlyingMSELoss.from_counts, LOSSES["vector_scaling"].from_counts])
def test_tensors_without_values_make_no_criterion(make):
    with torch.device("meta"), pytest.raises(InputError, match="must have values, got a tensor on meta; give plain"):
        make(torch.tensor([900, 90, 10]))


def test_what_a_checkpoint_of_transformers_holds_of_a_criterion_is_taken():
    with torch.device("meta"):
        criterion = OutlyingMSELoss.from_counts(COUNTS, class_weights="inverse")
    criterion.weight = torch.full((3,), torch.nan)
    criterion.label_values = torch.tensor([3.0, 4.0, 5.0])
    criterion.label_values._is_hf_initialized = True
    criterion._is_hf_initialized = True
    assert criterion.label_values.tolist() == [3, 4, 5]
    assert torch.equal(criterion.weight, OutlyingMSELoss.from_counts(COUNTS, class_weights="inverse").weight)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([torch.zeros(1, 3, 2)], torch.zeros(1, 2).long(), "logits must be a torch.Tensor, got list; give one of its"),
        ([[0.0, 1.0]], torch.zeros(1).long(), "logits must be a torch.Tensor, got list; take torch.as_tensor of it"),
        (
            torch.zeros(1, 3, 2),
            torch.zeros(1, 2, dtype=torch.bool),
            r"got torch.bool; give labels.long\(\): False is class 0",
        ),
        (
            torch.zeros(1, 3, 2),
            torch.zeros(1, 2),
            r"got torch.float32; give labels.long\(\) if they hold whole numbers",
        ),
        (torch.zeros(1, 3, 2, 4), torch.zeros(1, 2, 4, 3).long(), r"take labels.argmax\(-1\) of one-hot labels"),
        (torch.zeros(2, 6, 5, 3), torch.zeros(2, 6, 5).long(), r"put the classes into dim 1: logits.movedim\(-1, 1\)"),
        (torch.zeros(2, 7, 3), torch.zeros(2, 7).long(), r"put the classes into dim 1: logits.movedim\(-1, 1\)"),
        (torch.zeros(2, 3, 6, 5), torch.zeros(2, 6, 5, 1).long(), r"take labels.squeeze\(-1\)"),
        (torch.zeros(60, 3), torch.zeros(2, 6, 5).long(), r"take labels.flatten\(\)"),
        (torch.zeros(2, 3, 2), torch.ones(2, 3, 2) / 3, r"labels.argmax\(1\) of one-hot labels; of mixed ones lam \*"),
        (
            torch.zeros(2, 3, 2),
            torch.ones(2, 3, 2).bool(),
            r"got torch.bool; take labels.argmax\(1\) of one-hot",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_its_cure(logits, labels, message):
    for name in ("ce", "outlying_mse", "dice"):
        with pytest.raises((TypeError, ValueError), match=message):
            made(name)(logits, labels)


@pytest.mark.parametrize("read", ["decide", "posterior"])
@pytest.mark.parametrize(
    ("shape", "cure"), [((2, 8, 8, 3), r"logits.movedim\(-1, 1\)"), ((3, 8, 8), r"give a batch: logits\[None\]")]
)
def test_scores_whose_classes_stand_elsewhere_are_told_with_their_cure(read, shape, cure):
    for name in ("weighted_ce", "outlying_mse"):
        with pytest.raises(InputError, match=rf"must have 3 classes in dim 1, got .*{cure}"):
            getattr(made(name), read)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("counts", "cure"),
    [
        (Counter({0: 5, 1: 2}), r"in the order of the classes, \[counts\[c\] for c in range\(C\)\]"),
        (np.array([3, 4], dtype=object), r"counts.astype\(float\)"),
        ([[3, 4], [4, 5]], r"of one row for each image counts.sum\(0\)"),
    ],
)
def test_counts_of_other_forms_are_told_with_their_cure(counts, cure):
    with pytest.raises(ValueError, match=cure):
        OutlyingMSELoss.from_counts(counts)


def test_counts_of_all_bytes_are_told_at_the_first_loss():
    counts = np.bincount([0, 0, 1, 2, 255], minlength=256)
    with pytest.raises(ValueError, match=r"got \(256,\); counts of all bytes hold void too: .* from counts\[:3\]"):
        OutlyingMSELoss.from_counts(counts)(*scores_and_labels())
    upsampled = OutlyingMSELoss([1.0, 2.0, 3.0], upsample="bilinear")
    with pytest.raises(ValueError, match=r"got \(3,\); put the classes into dim 1"):
        upsampled(torch.zeros(2, 8, 8, 3), torch.zeros(2, 8, 8).long())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CrossEntropyLoss(weight=[0.0, 1.0]), "; to leave a class out give its pixels the ignore_index in the"),
        (lambda: CrossEntropyLoss(weight=[-1.0, 0.0]), r"got \[-1.0, 0.0\]$"),
        (lambda: cross_entropy_loss(*scores_and_labels(), weight=torch.tensor([0.0, 1, 1])), "; to leave a class out"),
        (lambda: MSELoss(4), r"label_values must have shape \(C,\) .*, got \(\); give one number per class"),
        (lambda: MSELoss.from_counts(COUNTS, label_values="power"), "label_values of MSELoss .*; take OutlyingMSELoss"),
        (
            lambda: MMSegOutlyingMSELoss(COUNTS, class_weight=[1.0, 2.0, 3.0]),
            r"class_weight is no option.*; give weight=",
        ),
        (
            lambda: CrossEntropyLoss.from_counts(COUNTS, class_weight=[1.0, 2.0, 3.0]),
            "class_weight is no option of a loss",
        ),
    ],
)
def test_options_of_other_libraries_are_told_with_their_cure(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", [*NAMES, "ce+0.5*dice"])
def test_scores_that_went_through_a_softmax_are_told_once(name):
    """Networks made with an activation trained to next to nothing, without a word."""
    logits, labels = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        criterion = build_criterion(name, COUNTS)
        with pytest.warns(UserWarning, match="logits are probabilities, whose sum is 1 at every pixel: give raw"):
            criterion(logits.softmax(1).to(dtype), labels)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            criterion(logits.softmax(1), labels)


def test_scores_of_a_sigmoid_are_told_where_none_could_be_so():
    logits, labels = torch.randn(16, 3).sigmoid(), torch.zeros(16, dtype=torch.int64)
    with pytest.warns(UserWarning, match="logits hold 0 to 1 alone, as those of a sigmoid: give raw scores"):
        CrossEntropyLoss()(logits, labels)


@pytest.mark.parametrize("name", [*LOSSES, "ce+0.5*dice"])
@pytest.mark.parametrize(
    "logits",
    [
        torch.randn(2, 3, 4, 5),
        torch.zeros(2, 3, 4, 5),  # of a last layer that begins at zero
        torch.randn(2, 3, 4, 5).log_softmax(1),
        torch.randn(2, 3, 4, 5).softmax(1) - 0.5,
        torch.randn(2, 3, 4, 5).relu() * 2,
        torch.randn(4, 3).softmax(1),  # too few to tell
        torch.full((2, 3, 4, 5), torch.nan),
        torch.randn(0, 3, 4, 5),
    ],
)
def test_other_scores_are_not_told_of(name, logits):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_criterion(name, COUNTS)(logits, torch.zeros(logits[:, 0].shape, dtype=torch.int64))


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor, "PixelCounts"])
@pytest.mark.parametrize("name", ["label_values", "weight", "margins"])
def test_counts_in_the_place_of_what_is_made_of_them_are_refused(name, kind):
    """They weighed the frequent classes most."""
    counts = count_labels(torch.tensor([[0, 1, 2, 0]]), 3) if kind == "PixelCounts" else kind([9_000_000, 90_000, 12])
    make = {"label_values": OutlyingMSELoss, "weight": CrossEntropyLoss, "margins": LOSSES["ldam"]}[name]
    with pytest.raises(InputError, match=rf"{name} must be .*, got the counts of pixels; make the loss by from_counts"):
        make(**{name: counts})
    with pytest.raises(InputError, match=r"weight must be .*, got the counts"):
        OutlyingMSELoss([1, 2, 3], weight=counts)


def test_weights_in_whole_numbers_and_large_ones_are_taken():
    assert CrossEntropyLoss(weight=[1, 10, 9999]).weight.tolist() == [1, 10, 9999]
    assert (
        OutlyingMSELoss.from_counts([9_000_000, 90_000, 12], label_values="power", power=1).label_values[2] == 750_000
    )
    assert OutlyingMSELoss([1.0, 100.0, 750_000.0]).label_values[2] == 750_000
