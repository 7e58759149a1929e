"""Intervals and differences against plain loops, and on simulated runs whose truth is known."""

import json
import math

import numpy as np
import pytest
import torch

from segloss.errors import InputError
from segloss.evaluation import comparison as compared
from segloss.evaluation.comparison import (
    RESAMPLES,
    block_sums,
    block_weights,
    class_ious,
    mean_and_ious,
    on_common_images,
    resampled,
)
from segloss.evaluation.results import ImageResult, Totals
from segloss.metrics import PROTOCOLS, Scores
from segloss.schema import Comparison, Interval

# Independent float64 quotients of the same sums.
CLOSE = {"rtol": 1e-12, "equal_nan": True}


def run(images=30, *, classes=3, share=0.7, seed=0, spread=0.1):
    """Counts ``(images, 3, C)`` of a made-up run: of every class's pixels about ``share`` are right."""
    generator = np.random.default_rng(seed)
    true = generator.integers(50, 200, (images, classes))
    shares = np.clip(share + spread * generator.standard_normal((images, 1)), 0, 1)
    hits = np.round(true * shares).astype(np.int64)
    predicted = hits + generator.integers(0, 40, (images, classes))
    return np.stack([hits, true, predicted], axis=1)


def compare(groups, **how):
    """As JSON, which reads back as the same comparison."""
    found = compared.compare(groups, **how)
    content = found.to_json()
    assert Comparison.from_json(json.loads(json.dumps(content))) == found
    return content


def mean_iou(counts):
    """By the definition, of counts ``(3, C)``."""
    ious = [hits / (true + found - hits) for hits, true, found in counts.T.tolist() if true + found - hits]
    return sum(ious) / len(ious) if ious else math.nan


def weights_of(*how):
    return np.concatenate(list(block_weights(*how)))


def looped(counts, block, weights):
    """mIoU of every resample: each block put in as often as it was drawn."""
    blocks = [counts[start : start + block] for start in range(0, len(counts), block)]
    found = []
    for drawn in weights.astype(int).tolist():
        images = [image for times, some in zip(drawn, blocks, strict=True) for _ in range(times) for image in some]
        found.append(mean_iou(np.sum(images, axis=0)))
    return found


def only(comparison):
    return comparison["ranking"][0]["miou"]


def width(row):
    return row["high"] - row["low"]


@pytest.mark.parametrize(("images", "block"), [(30, 1), (30, 7), (30, 10), (11, 10), (2, 1)])
def test_intervals_follow_the_plain_loop(images, block):
    counts, resamples = run(images), 150
    draws = looped(counts, block, weights_of(images, block, resamples, 5))
    expected = {"estimate": mean_iou(counts.sum(0))}
    expected["low"], expected["high"] = np.percentile(draws, [2.5, 97.5])
    actual = only(compare({"a": [counts]}, block=block, resamples=resamples, seed=5))
    assert actual == pytest.approx(expected, rel=1e-12)
    assert actual["low"] < actual["estimate"] < actual["high"] or images < 3


def test_differences_follow_the_plain_loop():
    a, b, resamples = run(seed=1, share=0.8), run(seed=2, share=0.78), 200
    comparison = compare({"b": [b], "a": [a]}, block=4, resamples=resamples, seed=3)
    weights = weights_of(30, 4, resamples, 3)
    first, second = np.array(looped(a, 4, weights)), np.array(looped(b, 4, weights))
    (pair,) = comparison["pairs"]
    assert [row["name"] for row in comparison["ranking"]] == [pair["a"], pair["b"]] == ["a", "b"]
    low, high = np.percentile(first - second, [2.5, 97.5])
    expected = {"estimate": mean_iou(a.sum(0)) - mean_iou(b.sum(0)), "low": low, "high": high}
    assert pair["miou"] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert pair["a_leads"] == np.mean(first > second) and 0 < pair["a_leads"] < 1


def test_estimates_are_the_scores_of_all_images():
    counts = run(classes=5)
    counts[:, :, 2] = 0
    row = compare({"a": [counts]}, resamples=10)["ranking"][0]
    scores = Scores.from_counts(*(torch.from_numpy(counts[:, k]) for k in range(3)))
    assert row["miou"]["estimate"] == pytest.approx(scores.miou, rel=1e-12)
    estimates = [np.nan if entry["estimate"] is None else entry["estimate"] for entry in row["classes"]]
    np.testing.assert_allclose(estimates, scores.iou, **CLOSE)


def with_absent_classes():
    """Three classes and one that is nowhere; the third is in some images only."""
    counts = run(classes=4)
    counts[:, :, 3] = 0
    counts[::3, :, 2] = 0
    return counts


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("block", [1, 7])
def test_estimates_and_intervals_follow_the_protocol(protocol, block):
    counts, resamples = with_absent_classes(), 60

    def miou(some):
        return Scores.from_counts(*(torch.from_numpy(some[:, k]) for k in range(3)), protocol).miou

    found = compare({"a": [counts]}, block=block, resamples=resamples, seed=5, protocol=protocol)
    assert (found["protocol"], found["images"]) == (protocol, len(counts))
    blocks, draws = [counts[start : start + block] for start in range(0, len(counts), block)], []
    for drawn in weights_of(len(counts), block, resamples, 5).astype(int).tolist():
        draws.append(
            miou(np.concatenate([some for some, times in zip(blocks, drawn, strict=True) for _ in range(times)]))
        )
    if protocol == "torchvision":
        assert only(found) == {"estimate": None, "low": None, "high": None}
        return
    low, high = np.percentile(draws, [2.5, 97.5])
    assert only(found) == pytest.approx({"estimate": miou(counts), "low": low, "high": high}, rel=1e-12)


def test_a_protocol_changes_the_ranking_where_it_changes_the_scores():
    """b is better but predicts a class that is not there, a 0 in its mean; only segnet gives a that 0 too."""
    a = np.array([[[60, 60, 0], [100, 100, 0], [60, 60, 0]]])
    b = np.array([[[70, 70, 0], [100, 100, 0], [70, 70, 1]]])
    for protocol, best in (("cityscapes", "a"), ("smp", "a"), ("segnet", "b")):
        assert compare({"a": [a], "b": [b]}, protocol=protocol)["ranking"][0]["name"] == best


def test_rows_name_their_runs():
    groups = {"a": [run(), run(seed=1)], "b": [run(seed=2)]}
    for members, expected in ((None, [["a"], ["b"]]), ({"a": ["x", "y"], "b": ["z"]}, [["x", "y"], ["z"]])):
        ranking = compare(groups, resamples=10, members=members)["ranking"]
        assert sorted(row["members"] for row in ranking) == expected


def test_every_resample_draws_as_many_blocks_as_there_are():
    weights = weights_of(45, 10, 310)
    assert {len(part) for part in block_weights(45, 10, 310)} == {25, 10}  # few at a time
    assert weights[:300].shape == (300, 5) and len(weights) == 310
    weights = weights[:300]
    assert weights.shape == (300, 5) and (weights.sum(1) == 5).all() and weights.min() == 0
    np.testing.assert_allclose(weights.mean(0), 1, atol=0.25)  # four standard errors of 300 draws
    np.testing.assert_array_equal(weights, weights_of(45, 10, 300))
    assert (weights != weights_of(45, 10, 300, 1)).any()


def test_counts_beyond_float32_and_int32_stay_exact():
    counts = np.full((3, 3, 2), 2**40 + 1, np.int64)
    counts[:, 0] -= np.array([[1], [2], [3]])
    ious = mean_and_ious(np.array([[3.0, 0, 0], [0, 0, 3]]) @ block_sums(counts, 1))[:, 1:]
    expected = [3 * 2**40 / (3 * 2**40 + 6), (3 * 2**40 - 6) / (3 * 2**40 + 12)]
    np.testing.assert_array_equal(ious, np.repeat(np.array(expected)[:, None], 2, axis=1))


def test_the_interval_of_independent_images_covers_the_truth_about_as_often_as_it_says():
    """60 data sets of 40 images; the truth is the IoU of very many images drawn the same way."""
    truth = mean_iou(run(40_000, seed=10_000).sum(0))
    covered = 0
    for seed in range(60):
        row = only(compare({"a": [run(40, seed=seed)]}, resamples=400, seed=seed))
        covered += row["low"] <= truth <= row["high"]
    assert covered >= 51, covered  # 85 %; said: 95 %


def test_blocks_widen_the_interval_of_images_that_resemble_their_neighbours():
    scenes = run(10, seed=4, spread=0.2)
    video = np.repeat(scenes, 20, axis=0)  # 20 frames of each scene
    narrow, wide = (only(compare({"a": [video]}, block=block)) for block in (1, 20))
    assert width(wide) == pytest.approx(math.sqrt(20) * width(narrow), rel=0.25)  # as if there were only 10 images
    assert narrow["estimate"] == wide["estimate"]
    assert width(wide) == pytest.approx(width(only(compare({"a": [scenes]}))), rel=1e-9)


def test_blocks_do_not_widen_the_interval_of_independent_images_much():
    counts = run(400, seed=1)
    single, blocks = (width(only(compare({"a": [counts]}, block=block))) for block in (1, 5))
    assert 0.7 < blocks / single < 1.4


def test_two_identical_runs_differ_by_exactly_nothing():
    (pair,) = compare({"a": [run()], "b": [run()]}, block=3)["pairs"]
    assert pair["a_leads"] == 0
    for row in (pair["miou"], *pair["classes"]):
        assert row == {"estimate": 0, "low": 0, "high": 0}


def test_pairing_narrows_the_difference_of_runs_that_find_the_same_images_hard():
    a = run(seed=1, spread=0.2)
    b = a.copy()
    b[:, 0] = np.maximum(b[:, 0] - 2, 0)
    comparison = compare({"a": [a], "b": [b]})
    (pair,) = comparison["pairs"]
    assert pair["a_leads"] == 1 and pair["miou"]["low"] > 0
    first, second = (row["miou"] for row in comparison["ranking"])
    assert first["low"] < second["high"]  # the intervals overlap, and still the difference is sure
    assert width(pair["miou"]) < width(first) / 4


def test_a_difference_changes_its_sign_with_the_order_of_the_pair():
    """A class on which the worse run leads: b - a is what the pair says of a - b, turned round."""
    a, b = run(seed=1, share=0.8), run(seed=2, share=0.7)
    swapped = [np.ascontiguousarray(counts[:, :, ::-1]) for counts in (a, b)]
    (pair,), (other,) = (compare({"a": [x], "b": [y]})["pairs"] for x, y in ((a, b), swapped))
    assert pair["classes"] == other["classes"][::-1]
    first, second = (draws[:, 1] for draws in resampled([a, b], 1, RESAMPLES, 0))
    row = pair["classes"][0]
    low, high = np.percentile(second - first, [2.5, 97.5])
    assert (row["low"], row["high"]) == pytest.approx((-high, -low), rel=1e-12)


def test_order_and_company_of_runs_do_not_change_a_comparison():
    shares = {"a": 0.9, "b": 0.8, "c": 0.6}
    runs = {name: [run(seed=seed, share=share) for seed in range(3)] for name, share in shares.items()}
    whole = compare(runs)
    assert compare(dict(reversed(runs.items()))) == whole
    alone = compare({name: runs[name] for name in ("c", "a")})
    assert alone["pairs"] == [pair for pair in whole["pairs"] if (pair["a"], pair["b"]) == ("a", "c")]
    assert [row["name"] for row in whole["ranking"]] == ["a", "b", "c"]
    assert [(pair["a"], pair["b"]) for pair in whole["pairs"]] == [("a", "b"), ("a", "c"), ("b", "c")]


def test_the_same_seed_gives_the_same_comparison_and_another_one_nearly():
    groups = {"a": [run(seed=1), run(seed=2)], "b": [run(seed=3, share=0.6)]}
    assert compare(groups) == compare(groups)
    assert compare(groups, seed=1) != compare(groups)
    for key in ("low", "high"):
        assert only(compare(groups, seed=1))[key] == pytest.approx(only(compare(groups))[key], abs=0.005)


def test_comparing_leaves_the_counts_unchanged():
    counts = run()
    before = counts.copy()
    compare({"a": [counts, counts], "b": [counts]}, block=4)
    np.testing.assert_array_equal(counts, before)


# Seeds.


def test_seeds_that_differ_widen_the_interval():
    apart = [run(share=share, spread=0.02) for share in (0.6, 0.7, 0.8)]
    same = [apart[1]] * 3
    groups = compare({"apart": apart, "same": same})["ranking"]
    widths = {row["name"]: width(row["miou"]) for row in groups}
    assert widths["apart"] > 3 * widths["same"]
    assert {row["runs"] for row in groups} == {3}
    assert widths["same"] == pytest.approx(width(only(compare({"one": [apart[1]]}))), rel=1e-9)


def test_the_estimate_of_seeds_is_the_mean_of_their_scores():
    seeds = [run(seed=seed) for seed in range(3)]
    expected = sum(mean_iou(counts.sum(0)) for counts in seeds) / 3
    assert only(compare({"a": seeds}, resamples=10))["estimate"] == pytest.approx(expected, rel=1e-12)


def test_seeds_follow_the_loop_over_all_ways_to_draw_them():
    """One image, twice: blocks add nothing, what is left are the means of 2 seeds drawn out of 2."""
    low, high = (np.repeat(run(1, share=share), 2, axis=0) for share in (0.5, 0.9))
    a, b = mean_iou(low.sum(0)), mean_iou(high.sum(0))
    row = only(compare({"x": [low, high]}, resamples=500))
    assert (row["low"], row["high"]) == pytest.approx((a, b), rel=1e-12)
    assert row["estimate"] == pytest.approx((a + b) / 2, rel=1e-12)


# Images.


def totals(names, seed=0):
    """Of images whose counts tell them apart."""
    matrices = {name: np.full((2, 3), 10 * (ord(name) - ord("a")) + seed + 1) for name in names}
    return Totals.of(ImageResult(name, matrix, 0) for name, matrix in matrices.items())


def test_runs_are_compared_on_the_images_that_all_have_paired_by_name():
    runs = {"x": totals("dacb", 0), "y": totals("abcf", 1), "z": totals("cebd", 2)}
    counts = on_common_images(runs)
    assert list(counts) == ["x", "y", "z"]
    expected = [[ord(name) - ord("a")] for name in "cb"]  # in the order of the first
    for seed, run_counts in enumerate(counts.values()):
        np.testing.assert_array_equal(run_counts[:, 0, 0], 10 * np.ravel(expected) + seed + 1)


def test_runs_on_the_same_images_are_compared_on_all_of_them():
    runs = {"x": totals("abc", 0), "y": totals("abc", 1)}
    for name, counts in on_common_images(runs).items():
        np.testing.assert_array_equal(counts, runs[name].counts)
    assert on_common_images({"x": totals("a")})["x"].shape == (1, 3, 2)


def test_runs_without_a_common_image_are_refused():
    with pytest.raises(InputError, match="no image is in all of x, y; score them apart"):
        on_common_images({"x": totals("ab"), "y": totals("cd")})


# What cannot be compared.


@pytest.mark.parametrize("protocol", ["pascal-typo", "", "city"])
def test_an_unknown_protocol_is_refused_wherever_a_mean_is_made(protocol):
    for mean in (
        lambda: compare({"a": [run()]}, protocol=protocol),
        lambda: mean_and_ious(block_sums(run(), 1), protocol),
        lambda: resampled([run()], 1, 10, 0, protocol),
    ):
        with pytest.raises(ValueError, match=f"protocol must be one of cityscapes, .*per-image, got '{protocol}'"):
            mean()


def test_a_protocol_is_known_in_any_case():
    assert compare({"a": [run()]}, protocol="SegNet") == compare({"a": [run()]}, protocol="segnet")


def test_the_reason_for_a_missing_interval_is_written_only_where_there_is_one():
    plain = Interval(0.5, 0.4, 0.6)
    assert plain.to_json() == {"estimate": 0.5, "low": 0.4, "high": 0.6}
    assert Interval(0.5, None, None, "one block").to_json()["why"] == "one block"


@pytest.mark.parametrize("other", [run(29), run(30, classes=4)], ids=["images", "classes"])
def test_runs_on_other_images_or_classes_are_refused(other):
    message = "only runs on the same images and classes can be compared, got .* images of .* and .*; score them apart"
    with pytest.raises(InputError, match=message):
        compare({"a": [run(30)], "b": [other]})
    with pytest.raises(InputError, match=message):
        compare({"a": [run(30), other]})


def test_a_class_that_is_nowhere_has_no_numbers_and_is_outside_the_mean():
    counts = run(classes=4)
    counts[:, :, 1] = 0
    comparison = compare({"a": [counts], "b": [run(classes=4, share=0.2)]})
    missing = {"estimate": None, "low": None, "high": None}
    by_name = {row["name"]: row for row in comparison["ranking"]}
    assert by_name["a"]["classes"][1] == missing != by_name["b"]["classes"][1]
    assert comparison["pairs"][0]["classes"][1] == missing
    assert by_name["a"]["miou"] == only(compare({"a": [np.delete(counts, 1, axis=2)]}))
    json.dumps(comparison, allow_nan=False)


def test_a_class_of_one_image_has_the_interval_of_the_resamples_that_hold_it():
    counts = run(10)
    counts[1:, :, 2] = 0
    row = compare({"a": [counts]})["ranking"][0]["classes"][2]
    assert row["low"] == row["high"] == row["estimate"] == mean_iou(counts[0][:, 2:])


def test_images_without_a_labelled_pixel_change_nothing_but_the_spread():
    counts = run(20)
    counts[5:] = 0
    found = only(compare({"a": [counts]}))
    assert found["estimate"] == pytest.approx(mean_iou(counts[:5].sum(0)), rel=1e-12)
    assert found["low"] > 0.3  # a resample of images without pixels has no mIoU; it is not 0
    nothing = compare({"a": [np.zeros_like(counts)], "b": [counts]})
    assert [row["name"] for row in nothing["ranking"]] == ["b", "a"]
    assert nothing["ranking"][1]["miou"] == {"estimate": None, "low": None, "high": None}
    assert nothing["pairs"][0]["a_leads"] is None
    json.dumps(nothing, allow_nan=False)


@pytest.mark.parametrize(("images", "block"), [(1, 1), (15, 15), (15, 20)])
def test_one_block_has_no_interval(images, block):
    """It would have no width and look sure."""
    comparison = compare({"a": [run(images)], "b": [run(images, share=0.5)]}, block=block)
    for row in (*comparison["ranking"], *comparison["pairs"]):
        assert row["miou"]["estimate"] > 0 and row["miou"]["low"] is None and row["miou"]["high"] is None
    assert comparison["pairs"][0]["a_leads"] is None


def test_class_ious_follow_the_definition():
    counts = np.array([[3, 0, 0], [5, 0, 2], [4, 0, 0]])
    np.testing.assert_allclose(class_ious(counts), [3 / 6, np.nan, 0], **CLOSE)
    assert compare({"a": [run()]})["resamples"] == RESAMPLES == 2000
