"""Pixel counts to label values and class weights: every recipe against its formula, and the direction of the ranks."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segloss import OutlyingMSELoss
from segloss.errors import InputError
from segloss.losses import (
    CLASS_WEIGHTS,
    LABEL_VALUES,
    build_criterion,
    class_prior,
    class_ranks,
    class_weights_from_counts,
    label_values_from_counts,
)

# Training pixels of CamVid's eleven classes: sky, building, pole, road, pavement, tree, sign_symbol, fence, car,
# pedestrian, bicyclist.
CAMVID_COUNTS = [10682767, 14750079, 623349, 20076880, 2845085, 6166762, 743859, 714595, 3719877, 405385, 184967]
CAMVID_RANKS = [3, 2, 9, 1, 6, 4, 7, 8, 5, 10, 11]

COUNTS = [300, 7, 0, 12000, 300, 45]  # an empty class (2), a tie (0 and 4); the rarest present class is 1
RAREST, EMPTY = 1, 2

# float32 results: one rounding of 6e-8 at the end, after float64 arithmetic.
RTOL = 1e-6


def formula(recipe: str, counts: list[int], power: float = 0.5, beta: float | None = None) -> list[float]:
    """The recipes of the module's head in plain Python, one class at a time."""
    largest = max(counts)
    present = sorted(n for n in counts if n)
    beta = 1 - 1 / present[(len(present) - 1) // 2] if beta is None else beta

    def effective(n):
        return (1 - beta**n) / (1 - beta)

    value = {
        "uniform": lambda n: 1.0,
        "power": lambda n: (largest / n) ** power,
        "log": lambda n: 1 + math.log(largest / n),
        "effective": lambda n: effective(largest) / effective(n),
    }[recipe]
    return [value(n or present[0]) for n in counts]


# Ranks.


def test_the_rarest_class_has_the_largest_value():
    counts = torch.tensor([9000, 100, 900])
    assert class_ranks(counts).tolist() == [1, 3, 2]
    assert label_values_from_counts(counts).tolist() == [1.0, 3.0, 2.0]


def test_ranks_are_not_those_of_an_ascending_sort():
    """The trap of the one public re-implementation: it gives the rarest class the smallest value."""
    counts = torch.tensor(CAMVID_COUNTS)
    ascending = counts.argsort().argsort() + 1
    bicyclist = int(counts.argmin())
    assert int(ascending[bicyclist]) == 1
    assert int(class_ranks(counts)[bicyclist]) == len(counts)


def test_camvid_ranks():
    assert class_ranks(CAMVID_COUNTS).tolist() == CAMVID_RANKS
    assert class_ranks(CAMVID_COUNTS).dtype == torch.int64


def test_camvid_label_values_reach_66_with_the_papers_alpha():
    values = label_values_from_counts(CAMVID_COUNTS, alpha=6)
    assert values.tolist() == [6.0 * rank for rank in CAMVID_RANKS]
    assert values.dtype == torch.float32


def test_ties_go_to_the_lower_class_id_first():
    assert class_ranks([5, 9, 5, 9, 5]).tolist() == [3, 1, 4, 2, 5]
    assert class_ranks([4] * 300).tolist() == list(range(1, 301))  # long enough that an unstable sort would show


def test_empty_classes_rank_last_lower_id_first():
    assert class_ranks([0, 3, 0, 8]).tolist() == [3, 2, 4, 1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2**40), min_size=2, max_size=30).filter(any))
def test_ranks_are_a_permutation_that_falls_with_the_count(counts):
    ranks = class_ranks(counts).tolist()
    assert sorted(ranks) == list(range(1, len(counts) + 1))
    in_rank_order = [count for _, count in sorted(zip(ranks, counts, strict=True))]
    assert in_rank_order == sorted(counts, reverse=True)


# Recipes.


@pytest.mark.parametrize("power", [0.0, 0.5, 0.75, 1.0, 2.0])
def test_power_follows_its_formula(power):
    values = label_values_from_counts(COUNTS, label_values="power", power=power)
    np.testing.assert_allclose(values, formula("power", COUNTS, power=power), rtol=RTOL)


@pytest.mark.parametrize("recipe", ["uniform", "log", "effective"])
@pytest.mark.parametrize("counts", [COUNTS, CAMVID_COUNTS])
def test_recipe_follows_its_formula(recipe, counts):
    values = label_values_from_counts(counts, label_values=recipe)
    np.testing.assert_allclose(values, formula(recipe, counts), rtol=RTOL)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.99])
def test_effective_follows_its_formula_at_any_beta(beta):
    values = label_values_from_counts(COUNTS, label_values="effective", beta=beta)
    np.testing.assert_allclose(values, formula("effective", COUNTS, beta=beta), rtol=RTOL)


def test_effective_takes_counts_of_one_pixel_beside_an_empty_class():
    """The default beta is then 0, where beta ** 0 = 1 must not become 0 * log 0."""
    assert label_values_from_counts([5, 1, 1, 0], label_values="effective").tolist() == [1.0] * 4


def test_effective_default_beta_is_not_saturated_at_pixel_counts():
    values = label_values_from_counts(CAMVID_COUNTS, label_values="effective")
    assert len(set(values.tolist())) == len(CAMVID_COUNTS)
    assert values.max() / values.min() > 10
    saturated = label_values_from_counts(CAMVID_COUNTS, label_values="effective", beta=0.9999)
    assert saturated.unique().tolist() == [1.0]  # every class has "seen it all": no imbalance left to correct


@pytest.mark.parametrize("recipe", LABEL_VALUES)
def test_alpha_multiplies_every_recipe(recipe):
    base = label_values_from_counts(COUNTS, label_values=recipe)
    scaled = label_values_from_counts(COUNTS, label_values=recipe, alpha=2.5)
    np.testing.assert_allclose(scaled, 2.5 * base, rtol=RTOL)


@pytest.mark.parametrize("recipe", LABEL_VALUES)
def test_values_never_fall_as_classes_get_rarer(recipe):
    values = label_values_from_counts(CAMVID_COUNTS, label_values=recipe)
    by_rarity = values[torch.tensor(CAMVID_COUNTS).argsort(descending=True)]
    assert bool((by_rarity.diff() >= 0).all())
    assert bool((values > 0).all())


def test_empty_class_ranks_last():
    assert int(label_values_from_counts(COUNTS)[EMPTY]) == len(COUNTS)


@pytest.mark.parametrize("recipe", ["uniform", "power", "log", "effective"])
def test_empty_class_takes_the_value_of_the_rarest_present_one(recipe):
    values = label_values_from_counts(COUNTS, label_values=recipe)
    assert values[EMPTY] == values[RAREST]
    assert values[RAREST] == values.max()


@pytest.mark.parametrize("own", [[1.0, 2.0, 7.5], (1.0, 2.0, 7.5), torch.tensor([1.0, 2.0, 7.5])])
def test_own_vector_is_taken_as_it_is_times_alpha(own):
    assert label_values_from_counts([1, 2, 3], label_values=own).tolist() == [1.0, 2.0, 7.5]
    assert label_values_from_counts([1, 2, 3], label_values=own, alpha=2).tolist() == [2.0, 4.0, 15.0]


def test_counts_may_be_a_list_a_tensor_or_an_array_and_stay_unchanged():
    counts = torch.tensor(COUNTS)
    for recipe in LABEL_VALUES:
        expected = label_values_from_counts(COUNTS, label_values=recipe)
        assert torch.equal(label_values_from_counts(counts, label_values=recipe), expected)
        assert torch.equal(label_values_from_counts(np.array(COUNTS), label_values=recipe), expected)
    assert counts.tolist() == COUNTS


class Indexed(list):
    """As a Series of pandas, whose index is no method."""

    def __init__(self, pairs):
        super().__init__(pairs.values())
        self.index = [*pairs]


@pytest.mark.parametrize("index", [[2, 0, 1], [0, 2, 1], [0, 1, 255], [0.0, 2.0, 3.0], [1, 2, 3]])
def test_counts_indexed_in_another_order_than_that_of_the_classes_are_refused(index):
    """``value_counts()`` begins with the most frequent."""
    counts = Indexed(dict(zip(index, [900, 90, 10], strict=True)))
    cure = r"counts.reindex\(range\(C\), fill_value=0\), or counts.to_numpy\(\)"
    for function in (class_ranks, label_values_from_counts, class_weights_from_counts, class_prior):
        with pytest.raises(InputError, match=rf"counts must be indexed 0, 1, 2 \.\.\., got {index[0]}.*; {cure}"):
            function(counts)


@pytest.mark.parametrize("index", [[0, 1, 2], [0.0, 1.0, 2.0], ["road", "sky", "car"]])
def test_counts_indexed_in_the_order_of_the_classes_or_by_name_are_taken(index):
    assert class_ranks(Indexed(dict(zip(index, [900, 10, 90], strict=True)))).tolist() == [1, 3, 2]


def test_counts_of_pandas_are_known_by_their_index():
    counts = pytest.importorskip("pandas").Series([2] * 90 + [0] * 9 + [1]).value_counts()
    with pytest.raises(InputError, match=r"counts must be indexed 0, 1, 2 \.\.\., got 2, 0, 1; "):
        class_ranks(counts)
    assert class_ranks(counts.sort_index()).tolist() == [2, 3, 1]


def test_shares_have_no_effective_number_unless_beta_is_given():
    shares = [0.7, 0.2, 0.1]
    for call in (
        lambda **beta: label_values_from_counts(shares, label_values="effective", **beta),
        lambda **beta: class_weights_from_counts(shares, "effective", **beta),
    ):
        with pytest.raises(InputError, match="counts are shares, and 'effective' is of numbers of pixels; give"):
            call()
        assert bool(call(beta=0.5).isfinite().all())


BAD_COUNTS = [
    ([3, -1], "counts must be finite, >= 0 and not all 0, got .*-1"),
    ([0, 0], "not all 0"),
    ([1.0, math.nan], "finite"),
    ([1.0, math.inf], "finite"),
    ([7], "at least two classes, got \\(1,\\)"),
    ([[1, 2], [3, 4]], "shape \\(C,\\).*got \\(2, 2\\)"),
]


@pytest.mark.parametrize(("counts", "message"), BAD_COUNTS)
def test_counts_that_cannot_be_are_refused(counts, message):
    for function in (class_ranks, label_values_from_counts, class_weights_from_counts):
        with pytest.raises(ValueError, match=message):
            function(counts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0}, "alpha must be positive and finite, got 0"),
        ({"alpha": -2.0}, "alpha must be positive"),
        ({"alpha": math.nan}, "alpha must be positive"),
        ({"alpha": math.inf}, "alpha must be positive and finite"),
        ({"label_values": "power", "power": -0.1}, "power must be >= 0 and finite, got -0.1"),
        ({"label_values": "power", "power": math.nan}, "power must be >= 0"),
        ({"label_values": "power", "power": math.inf}, "power must be >= 0 and finite"),
        ({"label_values": "power", "power": 40}, "label_values must be positive and finite"),  # 1000 ** 40 > float32
        ({"label_values": "effective", "beta": 1.0}, r"beta must be in \[0, 1\), got 1.0"),
        ({"label_values": "effective", "beta": -0.5}, r"beta must be in \[0, 1\)"),
        ({"label_values": "effective", "beta": math.nan}, r"beta must be in \[0, 1\)"),
        ({"label_values": "ranks"}, "one of rank, uniform, power, log, effective or a vector, got 'ranks'"),
        ({"label_values": [1.0, 2.0]}, r"label_values must have shape \(3,\), got \(2,\)"),
        ({"label_values": [1.0, 0.0, 2.0]}, "label_values must be positive and finite"),
        ({"label_values": [1.0, -1.0, 2.0]}, "label_values must be positive and finite"),
        ({"label_values": [1.0, math.nan, 2.0]}, "label_values must be positive and finite"),
        ({"label_values": [1.0, math.inf, 2.0]}, "label_values must be positive and finite"),
    ],
)
def test_label_value_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        label_values_from_counts([1000, 10, 1], **options)


# Class weights.


def weight_formula(recipe: str, counts: list[int], beta: float | None = None) -> np.ndarray:
    """The weights of the module's head; an empty class counts as the rarest present one once the rule is applied."""
    n = np.array(counts, dtype=np.float64)
    total, present = n.sum(), np.sort(n[n > 0])
    filled = np.where(n > 0, n, present[0])
    if recipe == "median_frequency":
        return np.median(present / total) / (filled / total)
    if recipe == "enet":
        return 1 / np.log(1.02 + filled / total)
    beta = 1 - 1 / present[(len(present) - 1) // 2] if beta is None else beta
    weights = {
        "inverse": lambda: 1 / filled,
        "inverse_sqrt": lambda: 1 / np.sqrt(filled),
        "effective": lambda: (1 - beta) / (1 - beta**filled),
    }[recipe]()
    return weights / weights.mean()


@pytest.mark.parametrize("recipe", CLASS_WEIGHTS)
@pytest.mark.parametrize("counts", [COUNTS, CAMVID_COUNTS, [4, 2, 9, 1]])
def test_class_weights_follow_their_formulas(recipe, counts):
    weights = class_weights_from_counts(counts, recipe)
    assert weights.dtype == torch.float32
    np.testing.assert_allclose(weights, weight_formula(recipe, counts), rtol=RTOL)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999])
def test_effective_weights_follow_their_formula_at_any_beta(beta):
    weights = class_weights_from_counts(COUNTS, "effective", beta=beta)
    np.testing.assert_allclose(weights, weight_formula("effective", COUNTS, beta=beta), rtol=RTOL)


def test_median_frequency_counts_only_images_that_hold_the_class():
    counts, pixels_of_images = [400, 100, 20, 0], [1000, 500, 100, 0]
    frequency = np.array([0.4, 0.2, 0.2])
    expected = np.median(frequency) / frequency
    weights = class_weights_from_counts(counts, pixels_of_images=torch.tensor(pixels_of_images))
    np.testing.assert_allclose(weights, [*expected, expected[2]], rtol=RTOL)


def test_median_frequency_class_has_weight_one():
    weights = class_weights_from_counts([1000, 10, 1])
    np.testing.assert_allclose(weights, [0.01, 1, 10], rtol=RTOL)


@pytest.mark.parametrize("recipe", ["inverse", "inverse_sqrt", "effective"])
def test_scaled_recipes_have_mean_one(recipe):
    assert float(class_weights_from_counts(COUNTS, recipe).mean()) == pytest.approx(1, rel=RTOL)


@pytest.mark.parametrize("recipe", CLASS_WEIGHTS)
def test_empty_class_takes_the_weight_of_the_rarest_present_one(recipe):
    weights = class_weights_from_counts(COUNTS, recipe)
    assert weights[EMPTY] == weights[RAREST] == weights.max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "median"}, "recipe must be one of median_frequency, inverse.*got 'median'"),
        ({"recipe": "effective", "beta": 1.0}, r"beta must be in \[0, 1\)"),
        ({"pixels_of_images": [2000, 2000]}, r"pixels_of_images must have shape \(3,\), got \(2,\)"),
        ({"pixels_of_images": [2000]}, r"pixels_of_images must have shape \(3,\), got \(1,\)"),
        ({"pixels_of_images": [2000, 9, 1]}, "pixels_of_images.*at least.*class 1"),
        ({"pixels_of_images": [2000, 2000, 0]}, "pixels_of_images.*at least.*class 2"),
    ],
)
def test_class_weight_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        class_weights_from_counts([1000, 10, 1], **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"power": 0.75}, "power belongs to label_values='power', and changes nothing of rank"),
        ({"power": 0.75, "label_values": [1.0, 2.0, 3.0]}, "changes nothing of one's own values"),
        ({"beta": 0.9}, "beta belongs to label_values='effective', and changes nothing of rank"),
        ({"beta": 0.9, "class_weights": "inverse"}, "beta belongs to"),
    ],
)
def test_an_option_of_another_recipe_is_refused(options, said):
    """It was dropped, and ``power=0.75`` alone gave ranks."""
    with pytest.raises(ValueError, match=said):
        OutlyingMSELoss.from_counts([900, 90, 10], **options)


def test_an_option_is_refused_by_name_too_but_not_its_default():
    with pytest.raises(ValueError, match="power belongs to"):
        build_criterion("outlying_mse", [900, 90, 10], label_power=0.75)
    with pytest.raises(ValueError, match="beta belongs to the recipe 'effective'"):
        class_weights_from_counts([900, 90, 10], "inverse", beta=0.9)
    assert build_criterion("outlying_mse", [900, 90, 10]).label_values.tolist() == [1, 2, 3]
    made = OutlyingMSELoss.from_counts([900, 90, 10], class_weights="effective", beta=0.9)
    assert made.label_values.tolist() == [1, 2, 3] and made.weight is not None
