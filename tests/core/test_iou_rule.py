"""The decision for mean IoU against exhaustive search and xcolumns; its sample of pixels; thresholds of one class."""

import contextlib
import dataclasses
import doctest
import functools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import segloss.iou_rule
import segloss.pixel_sample
from segloss.calibration import calibration_scores, fit_calibration
from segloss.iou_rule import IoUDecision, class_threshold, iou_decision
from segloss.losses import build_criterion
from segloss.metrics import ConfusionMatrix
from segloss.pixel_sample import PixelSample


def skewed(pixels, num_classes, seed=0, *, spread=1.0, skew=2.0, dtype=torch.float64):
    """Posteriors ``(pixels, C)`` whose later classes are rarer."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(pixels, num_classes, generator=generator, dtype=torch.float64) * spread
    return (scores - torch.linspace(0, skew, num_classes, dtype=torch.float64)).softmax(1).to(dtype)


def drawn(posterior, seed=0):
    """Labels by chance; the seed is another than that of the posteriors, or the two would be correlated."""
    return torch.multinomial(posterior, 1, generator=torch.Generator().manual_seed(seed + 1_000_000))[:, 0]


def expected_miou(posterior, ids):
    """By its definition, class by class."""
    ious = []
    for c in range(posterior.shape[1]):
        p = posterior[:, c].double()
        hits, decided = p[ids == c].sum(), (ids == c).sum()
        if p.sum() + decided > 0:
            ious.append(hits / (p.sum() + decided - hits))
    return float(sum(ious) / len(ious))


@functools.lru_cache
def every_assignment(pixels, num_classes):
    ids = torch.cartesian_prod(*[torch.arange(num_classes, dtype=torch.int8)] * pixels)
    return [(ids == c).float() for c in range(num_classes)]


def best_of_all_assignments(posterior):
    posterior, total = posterior.float(), 0
    pixels, num_classes = posterior.shape
    for c, decided in enumerate(every_assignment(pixels, num_classes)):
        hits = decided @ posterior[:, c]
        total = total + hits / (posterior[:, c].sum() + decided.sum(1) - hits)
    return float((total / num_classes).max())


# The optimum.


def test_rule_is_near_the_best_of_all_assignments():
    # 12 pixels of 3 classes: 531,441 assignments. Plain argmax is 3.6 points below the best on average, 8.7 at worst.
    gaps = []
    for seed in range(60):
        posterior = skewed(12, 3, seed)
        gaps.append(100 * (best_of_all_assignments(posterior) - iou_decision(posterior).score))
    assert min(gaps) > -1e-4  # both in float32
    assert sum(gaps) / 60 < 0.05
    assert max(gaps) < 0.8


@pytest.mark.parametrize(("num_classes", "seed"), [(3, 0), (8, 1), (19, 2)])
def test_rule_reaches_block_coordinate_ascent_of_xcolumns(num_classes, seed):
    bc = pytest.importorskip("xcolumns.block_coordinate")
    metrics = pytest.importorskip("xcolumns.metrics")
    posterior = skewed(2000, num_classes, seed, spread=1.5, skew=5)
    # Its wrapper for macro Jaccard hands over another metric's signature (0.0.2), hence the function below it.
    found = bc.predict_using_bc_with_0approx(
        posterior.numpy(), metrics.binary_jaccard_score_on_conf_matrix, 1, init_y_pred="top", skip_tn=True, seed=0
    )
    theirs = expected_miou(posterior, torch.as_tensor(found).argmax(1))
    assert (
        iou_decision(posterior).score > theirs - 1e-4
    )  # 0.01 points; it moves single pixels, the rule has 2 C numbers


def test_two_classes_reach_the_best_threshold():
    posterior = skewed(500, 2, skew=3)
    best = max(expected_miou(posterior, (posterior[:, 1] >= t).long()) for t in posterior[:, 1])
    assert iou_decision(posterior).score == pytest.approx(best, abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 40), st.booleans(), st.booleans())
def test_score_is_that_of_the_decision_and_never_below_plain_argmax(seed, num_classes, pixels, labelled, tilted):
    posterior = skewed(pixels, num_classes, seed, spread=2.0, dtype=torch.float32)
    labels = drawn(posterior, seed) if labelled else None
    tilt = torch.rand(num_classes, generator=torch.Generator().manual_seed(seed)) + 0.1 if tilted else None
    rule = iou_decision(posterior, labels, tilt=tilt)
    counted = posterior if labels is None else torch.nn.functional.one_hot(labels, num_classes)
    plain = posterior if tilt is None else posterior * (tilt / tilt.max())
    assert rule.score == pytest.approx(expected_miou(counted, rule.decide(posterior)), rel=1e-9)
    assert rule.plain_score == pytest.approx(expected_miou(counted, plain.argmax(1)), rel=1e-9)
    assert rule.score >= rule.plain_score
    assert max(rule.slope) == 1


def test_large_samples_are_decided_as_well_from_a_coarse_one(monkeypatch):
    posterior = skewed(20_000, 6, skew=5)
    whole = iou_decision(posterior)
    monkeypatch.setattr(segloss.iou_rule, "COARSE_PIXELS", 4000)
    two_stages = iou_decision(posterior)
    assert two_stages != whole
    assert two_stages.score == pytest.approx(whole.score, abs=1e-4)
    assert two_stages.score > two_stages.plain_score + 0.01


# What it does not depend on.


def test_certain_posteriors_count_as_their_labels():
    labels = drawn(skewed(300, 4))
    certain = torch.nn.functional.one_hot(labels, 4).float()
    one, other = iou_decision(certain), iou_decision(certain, labels)
    assert (one.slope, one.offset, one.score) == (other.slope, other.offset, other.score)
    assert (one.counts, other.counts) == ("posterior", "labels")


@pytest.mark.parametrize("seed", range(5))
def test_with_labels_the_rule_is_never_worse_on_them_than_without(seed):
    """A posterior that is nearly uniform, as of an untrained network, leads the ascent on labels astray."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 6, (4000,), generator=generator)
    posterior = (torch.randn(4000, 6, generator=generator) * 0.05 + 0.1 * torch.nn.functional.one_hot(labels)).softmax(
        1
    )
    with_labels, without = iou_decision(posterior, labels), iou_decision(posterior)

    def miou(rule):
        confusion = ConfusionMatrix(6)
        confusion.update(rule.decide(posterior), labels)
        return confusion.compute().miou

    assert miou(with_labels) == pytest.approx(with_labels.score)
    assert miou(with_labels) >= miou(without)


def test_labels_drawn_from_the_posterior_give_nearly_the_same_rule():
    posterior = skewed(200_000, 4, skew=3)
    labelled, free = iou_decision(posterior, drawn(posterior)), iou_decision(posterior)
    assert labelled.score == pytest.approx(free.score, abs=3e-3)  # 200,000 draws
    # The score is flat around its best slopes: the numbers that torch 2.4 draws move them by 12 %, those of 2.14 less.
    torch.testing.assert_close(torch.tensor(labelled.slope), torch.tensor(free.slope), rtol=0.25, atol=0)


def test_renamed_classes_rename_the_rule():
    posterior, order = skewed(3000, 5, skew=4), torch.tensor([3, 0, 4, 1, 2])
    rule, renamed = iou_decision(posterior), iou_decision(posterior[:, order])
    torch.testing.assert_close(torch.tensor(renamed.slope), torch.tensor(rule.slope)[order])
    torch.testing.assert_close(torch.tensor(renamed.offset), torch.tensor(rule.offset)[order])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_posteriors_give_nearly_the_same_rule(dtype):
    posterior = skewed(20_000, 5, skew=4)
    low, exact = iou_decision(posterior.to(dtype)), iou_decision(posterior)
    assert low.score == pytest.approx(exact.score, abs=2e-3)  # bfloat16 rounds by 0.4 %
    assert low.decide(posterior.to(dtype)).dtype == torch.int64


def test_a_class_without_mass_is_not_decided_unless_it_is_likelier_than_the_commonest():
    posterior = torch.cat([skewed(500, 3), torch.zeros(500, 1)], 1)
    rule = iou_decision(posterior)
    assert not (rule.decide(posterior) == 3).any()
    assert rule.score == pytest.approx(iou_decision(posterior[:, :3]).score, abs=1e-6)
    sure = torch.tensor([[0.05, 0.03, 0.02, 0.9], [0.5, 0.0, 0.0, 0.5]])
    assert rule.decide(sure).tolist() == [3, 0]


def test_equal_classes_go_to_the_first():
    rule = IoUDecision((1.0, 1.0, 0.5), (0.0, 0.0, 0.0), 1.0, 1.0, "labels", 1, True, 0, "plain")
    assert rule.decide(torch.tensor([[0.4, 0.4, 0.2], [0.2, 0.2, 0.4]])).tolist() == [0, 0]


@pytest.mark.parametrize("labelled", [False, True])
def test_a_plain_argmax_of_no_tilt_is_scored_as_it_decides(labelled):
    """Of an error whose true class counts 5 times: the tilt's argmax was told for it."""
    criterion = build_criterion("outlying_mse", [9000, 900, 100], true_channel_weight=5.0)
    posterior = skewed(400, 3)
    labels = drawn(posterior) if labelled else None
    counted = posterior if labels is None else torch.nn.functional.one_hot(labels, 3)
    plain = criterion.plain_scores(posterior).argmax(1)
    rule = iou_decision(
        posterior, labels, tilt=criterion.tilt, plain=lambda block: criterion.plain_scores(block).argmax(1)
    )
    assert rule.plain_score == pytest.approx(expected_miou(counted, plain), rel=1e-6)
    assert rule.plain_score != pytest.approx(iou_decision(posterior, labels, tilt=criterion.tilt).plain_score)
    untold = dataclasses.replace(rule, plain_score=None)
    assert IoUDecision.from_dict(json.loads(json.dumps(untold.to_dict()))) == untold


def test_plain_argmax_stays_where_nothing_is_better():
    posterior = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
    rule = iou_decision(posterior, torch.tensor([0, 1]), tilt=torch.tensor([1.0, 2.0]))
    assert (rule.start, rule.slope, rule.offset, rule.score) == ("plain", (0.5, 1.0), (0.0, 0.0), 1.0)


def test_no_rounds_leave_the_candidates():
    rule = iou_decision(skewed(300, 3), max_rounds=0)
    assert set(rule.offset) == {0.0}
    assert not rule.settled


def test_rule_survives_json_exactly():
    rule = iou_decision(skewed(200, 3))
    assert IoUDecision.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule


def test_labels_may_say_only_what_is_ignored():
    posterior, labels = skewed(100, 3), torch.full((100,), 2)
    labels[50:] = 255
    assert iou_decision(posterior, labels, counts="posterior") == iou_decision(posterior[:50])


# The sample.


def images(count=12, shape=(4, 9, 13)):
    posterior = skewed(count * shape[1] * shape[2], shape[0], dtype=torch.float32)
    posterior = posterior.view(count, *shape[1:], shape[0]).movedim(-1, 1)
    labels = torch.randint(0, shape[0], (count, *shape[1:]), generator=torch.Generator().manual_seed(1))
    labels[:, 0] = 255
    return posterior, labels


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("max_mib", [0.002, 0.01, 1])
def test_batching_changes_nothing(labelled, stride, max_mib):
    posterior, labels = images()
    options = {"pixel_stride": stride, "max_mib": max_mib}
    samples = []
    for size in (1, 5, 12):
        pairs = zip(posterior.split(size), labels.split(size), strict=True)
        samples.append(PixelSample.of(list(pairs) if labelled else (p for p, _ in pairs), **options))
    for other in samples[1:]:
        assert torch.equal(other.posterior, samples[0].posterior)
        assert (other.labels is None) == (not labelled)
        assert not labelled or torch.equal(other.labels, samples[0].labels)
        assert (other.seen, other.level) == (samples[0].seen, samples[0].level)
        assert iou_decision(other) == iou_decision(samples[0])


def test_memory_stays_bounded_and_the_sample_stays_fair():
    sample = PixelSample(max_mib=0.05)
    for seed in range(40):
        sample.update(skewed(2000, 4, seed).view(1, 2000, 4).movedim(-1, 1))
        assert sample.posterior.untyped_storage().nbytes() <= 0.05 * 2**20
    capacity = int(0.05 * 2**20) // 16
    assert capacity / 2.3 < sample.pixels <= capacity
    assert sample.level == 5
    everything = torch.cat([skewed(2000, 4, seed) for seed in range(40)])
    # A mean over about 2,500 pixels of standard deviation 0.2.
    torch.testing.assert_close(sample.posterior.mean(0).double(), everything.mean(0), rtol=0, atol=0.015)


def test_everything_that_fits_is_kept_in_order():
    posterior, labels = images()
    sample = PixelSample.of(posterior, labels)
    valid = labels != 255
    assert torch.equal(sample.posterior, posterior.movedim(1, -1)[valid])
    assert torch.equal(sample.labels, labels[valid])
    assert sample.seen == sample.pixels == int(valid.sum())


def test_a_coarse_sample_is_what_a_smaller_budget_would_hold():
    posterior, labels = images()
    small, large = (PixelSample.of(posterior, labels, max_mib=mib) for mib in (400 * 16 / 2**20, 1))
    coarse = large.coarse(400)
    assert torch.equal(coarse.posterior, small.posterior)
    assert torch.equal(coarse.labels, small.labels)
    assert large.coarse(10**6) is large


def test_mapped_samples_leave_the_first_alone():
    sample = PixelSample.of(*images())
    before = sample.posterior.clone()
    mapped = sample.map(lambda p: p.flip(1))
    assert torch.equal(mapped.posterior, before.flip(1))
    mapped.update(*images(1))
    assert torch.equal(sample.posterior, before)
    assert sample.pixels == len(before) < mapped.pixels


def test_callables_and_iterables_are_read():
    posterior, labels = images()
    assert iou_decision(lambda: [(posterior, labels)]) == iou_decision([(posterior, labels)])
    assert iou_decision([posterior]) == iou_decision(posterior)


def test_label_255_is_a_class_of_300_and_ignored_of_fewer():
    posterior = torch.eye(300)[torch.tensor([255, 3, 255])]
    labels = torch.tensor([255, 3, 255])
    assert PixelSample.of(posterior, labels).pixels == 3
    assert PixelSample.of(posterior, labels, ignore_index=255).pixels == 1
    assert PixelSample.of(posterior[:, :4] + torch.eye(4)[0] * (labels == 255)[:, None], labels).pixels == 1


@pytest.mark.parametrize(
    ("shape", "of", "cure"),
    [
        ((2, 3, 4, 5), (2, 4, 5), r"probabilities\[:, 1\]"),
        ((3, 4, 5), (4, 5), r"probabilities\[1\]"),
        ((7, 3), (7,), r"probabilities\[:, 1\]"),
        ((2, 2, 4, 5), (2, 4, 5), r"probabilities\[:, 1\]"),
        ((2, 1, 4, 5), (2, 4, 5), r"probabilities\[:, 0\]"),
        ((1, 4, 5), (4, 5), r"probabilities\[0\]"),
    ],
)
def test_a_threshold_of_all_channels_is_told_which_to_take(shape, of, cure):
    with pytest.raises(ValueError, match=rf"probabilities must be of one class, .*; give {cure}$"):
        class_threshold(torch.rand(shape), torch.ones(of).long(), 1)


def test_soft_labels_are_no_labels_of_a_class_threshold():
    """Cut off to whole numbers they would all be class 0, in silence."""
    with pytest.raises(TypeError, match=r"labels must hold integer class ids, got torch\.float32"):
        class_threshold(torch.rand(4), torch.tensor([0.2, 0.9, 1.0, 0.4]), 1)


def test_ignored_pixels_are_left_out_of_a_class_threshold():
    probabilities, labels = torch.tensor([0.1, 0.6, 0.7, 0.65]), torch.tensor([0, 1, 1, 255])
    assert class_threshold(probabilities, labels, 1).iou == 1
    assert class_threshold(probabilities, labels, 1, ignore_index=None).iou == pytest.approx(2 / 3)
    assert class_threshold(probabilities, labels, 255).recall == 1
    with pytest.raises(ValueError, match="labels hold -100, which is no class and not ignore_index=255"):
        class_threshold(probabilities, torch.tensor([0, 1, 1, -100]), 1)  # another class, it was


def test_arrays_are_taken_as_tensors():
    posterior, labels = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.6, 0.4]]), torch.tensor([0, 1, 1])
    assert iou_decision(posterior.numpy(), labels.numpy()) == iou_decision(posterior, labels)
    pairs = [(posterior[:2].numpy(), labels[:2].numpy()), (posterior[2:], labels[2:].numpy())]
    assert iou_decision(pairs) == iou_decision(posterior, labels)
    assert iou_decision(posterior, labels.tolist()) == iou_decision(posterior, labels)
    assert iou_decision([each.numpy() for each in posterior.split(2)]) == iou_decision(posterior)
    assert iou_decision(posterior, labels, tilt=[1, 2]) == iou_decision(posterior, labels, tilt=torch.tensor([1.0, 2]))
    backwards = [torch.as_tensor(each).flip(0).numpy()[::-1] for each in (posterior, labels)]
    assert iou_decision(*backwards) == iou_decision(posterior, labels)
    expected = class_threshold(posterior[:, 1], labels, 1)
    for ids in (labels.numpy(), labels.numpy().astype(np.uint16), labels.numpy().astype(">i4"), backwards[1]):
        assert class_threshold(posterior[:, 1].numpy(), ids, 1) == expected
    assert class_threshold(backwards[0][:, 1], labels.bool(), 1) == expected


def test_columns_of_pandas_are_taken_as_tensors():
    series = pytest.importorskip("pandas").Series
    posterior, labels = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.6, 0.4]]), torch.tensor([0, 1, 1])
    ids = series(labels.numpy())
    assert iou_decision(posterior, ids) == iou_decision(posterior, labels)
    rarest = posterior[:, 1]
    assert class_threshold(series(rarest.numpy()), ids, 1) == class_threshold(rarest, labels, 1)


@pytest.mark.parametrize("default", [torch.device("meta"), torch.bfloat16, torch.float64])
def test_torchs_default_device_and_dtype_change_no_fit_and_no_decision(default):
    """In bfloat16 posteriors and terms were rounded without a word; on another device there was a traceback."""
    posterior = skewed(500, 3).float()
    labels = drawn(posterior)

    def found():
        rule, calibration = iou_decision(posterior, labels, tilt=[1.0, 2.0, 3.0]), fit_calibration(posterior, labels)
        sample, scores = PixelSample.of(posterior, labels), calibration_scores(posterior, labels)
        applied = calibration.undo(calibration.apply(posterior)).tolist(), rule.decide(posterior).tolist()
        return rule, calibration, scores, applied, sample.posterior.dtype, sample.posterior.device

    expected = found()
    with contextlib.ExitStack() as stack:
        if isinstance(default, torch.device):
            stack.enter_context(default)
        else:
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(default)
        assert found() == expected


def test_a_score_of_1_has_settled():
    posterior = torch.rand(200, 4, generator=torch.Generator().manual_seed(0)).softmax(1)
    rule = iou_decision(posterior, posterior.argmax(1))
    assert rule.score == 1 and rule.settled


def test_nan_at_ignored_pixels_is_no_matter():
    posterior, labels = (tensor.clone() for tensor in images())
    clean = iou_decision(posterior, labels)
    posterior[:, :, 0] = torch.nan
    assert iou_decision(posterior, labels) == clean


P = torch.tensor([[0.7, 0.3], [0.4, 0.6]])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: iou_decision(P * torch.nan), ValueError, "must be finite, got NaN"),
        (lambda: iou_decision(P.logit()), ValueError, "sum to 1 over dim 1, .* criterion.posterior"),
        (lambda: iou_decision(torch.tensor([[1.2, -0.2]])), ValueError, "smallest value -0.2"),
        (lambda: iou_decision(P.long()), TypeError, "floating-point tensor, got torch.int64"),
        (lambda: PixelSample().update([0.5, 0.5]), TypeError, "floating-point tensor, got list"),
        (lambda: iou_decision(P[:, :1]), ValueError, "at least two classes"),
        (lambda: iou_decision(P, torch.tensor([0.0, 1.0])), TypeError, "labels must hold integer"),
        (lambda: iou_decision(P, torch.tensor([0])), ValueError, r"labels must have shape \(2,\)"),
        (lambda: iou_decision(P, torch.tensor([0, 2])), ValueError, r"labels hold 2, outside \[0, 2\)"),
        (lambda: iou_decision(P, torch.tensor([255, 255])), ValueError, "at least one pixel"),
        (lambda: iou_decision([]), ValueError, "at least one pixel"),
        (lambda: iou_decision([P], torch.tensor([0, 1])), ValueError, "labels go with a posterior tensor"),
        (lambda: iou_decision([P, (P, torch.tensor([0, 1]))]), ValueError, "every batch or with none"),
        (lambda: iou_decision([P, torch.ones(1, 3) / 3]), ValueError, "2 classes as before, got 3"),
        (lambda: iou_decision(P, counts="truth"), ValueError, "counts must be 'labels'"),
        (lambda: iou_decision(P, counts="labels"), ValueError, "needs labels"),
        (lambda: iou_decision(P, max_rounds=-1), ValueError, "max_rounds must be at least 0"),
        (lambda: iou_decision(P, tilt=torch.ones(3)), ValueError, r"tilt must have shape \(2,\)"),
        (lambda: iou_decision(P, tilt=torch.tensor([1.0, 0.0])), ValueError, "tilt must be positive"),
        (lambda: iou_decision(P).decide(torch.ones(1, 3)), ValueError, r"posterior must have shape \(N, 2, \*\)"),
        (
            lambda: iou_decision(P).decide(torch.tensor([[3.0, -1.0]])),
            ValueError,
            r"in \[0, 1\], got -1 to 3; turn scores",
        ),
        (
            lambda: iou_decision(P).decide(P.numpy()),
            TypeError,
            "posterior must .* got ndarray; take torch.as_tensor",
        ),
        (lambda: iou_decision(P).decide(torch.ones(1, 4, 2)), ValueError, r"classes into dim 1: posterior.movedim"),
        (lambda: PixelSample().update(P, [0, 1]), TypeError, "labels must be a torch.Tensor, got list; take"),
        (lambda: IoUDecision.from_dict({"slope": [1]}), ValueError, "fit the rule again"),
        (lambda: IoUDecision.from_dict(iou_decision(P).to_dict() | {"slope": [1.0]}), ValueError, "slope has 1"),
        (lambda: PixelSample(pixel_stride=0), ValueError, "pixel_stride must be at least 1"),
        (lambda: PixelSample(max_mib=0), ValueError, "max_mib must be positive"),
        (lambda: class_threshold(P[:, 1], None, 1, min_recall=0.0), ValueError, "min_recall must be in"),
        (lambda: class_threshold(P[:, 1], torch.tensor([1]), 1), ValueError, r"labels must have shape \(2,\)"),
        (lambda: class_threshold(P[:, 1] * torch.nan, None, 1), ValueError, "probabilities must be in"),
        (lambda: class_threshold(P[:, 1], torch.tensor([0, 0]), 1), ValueError, "class 1 must have some pixel"),
        (lambda: class_threshold(P[:0, 1], None, 1), ValueError, "class 1 must have some pixel"),
    ],
)
def test_misuse_is_answered(call, error, message):
    with pytest.raises(error, match=message):
        call()


# One class.


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10), st.booleans()), min_size=1, max_size=20),
    st.booleans(),
    st.sampled_from([None, 0.3, 0.9, 1.0]),
)
def test_class_threshold_is_the_best_of_all(pixels, labelled, min_recall):
    p = torch.tensor([value / 10 for value, _ in pixels])
    labels = torch.tensor([int(is_class) for _, is_class in pixels])
    gains = labels.double() if labelled else p.double()
    if not gains.sum() > 0:
        return
    points = []
    for threshold in sorted(set(p.double().tolist()), reverse=True):
        chosen = p.double() >= threshold
        hits, true, decided = float(gains[chosen].sum()), float(gains.sum()), int(chosen.sum())
        points.append((threshold, hits / (true + decided - hits), 2 * hits / (true + decided), hits / true))
    found = class_threshold(p, labels if labelled else None, 1, min_recall=min_recall)
    if min_recall is not None:
        # A recall that equals min_recall but for the order of a sum may fall on either side of it.
        firsts = [next((t for t, *_, r in points if r >= min_recall + slack), None) for slack in (-1e-9, 1e-9)]
        assert found.threshold in firsts
        return
    assert found.iou == pytest.approx(max(point[1] for point in points))
    assert found.f1 == pytest.approx(max(point[2] for point in points))
    assert (found.threshold, found.recall) == next(
        (point[0], pytest.approx(point[3])) for point in points if point[0] == found.threshold
    )


@pytest.mark.parametrize("module", [segloss.iou_rule, segloss.pixel_sample])
def test_examples_in_docstrings(module):
    assert doctest.testmod(module).failed == 0


def test_every_start_comes_to_the_same_mean_iou_where_a_fixed_point_goes_round_in_circles():
    """A power of a posterior with rare classes, of which the iterated fixed point never settled."""
    posterior = skewed(20_000, 8, skew=3, seed=1)
    found = [iou_decision(posterior, tilt=torch.arange(1, 9.0) ** power) for power in (0, 1, 2, 4)]
    assert all(rule.settled for rule in found)
    assert max(rule.score for rule in found) - min(rule.score for rule in found) < 1e-3
    assert min(rule.score for rule in found) > max(rule.plain_score for rule in found)
