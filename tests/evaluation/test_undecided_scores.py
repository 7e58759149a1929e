"""Scores that are no numbers are refused, not decided as the first class: in the library and in an evaluation."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from segloss.calibration import Calibration
from segloss.decisions import Decision, decide
from segloss.errors import InputError
from segloss.evaluation.results import Totals
from segloss.evaluation.run_source import Measures, image_result
from segloss.evaluation.summary import calibration
from segloss.inference import AveragedPosterior, CalibratedPosterior, infer
from segloss.iou_rule import iou_decision
from segloss.losses import LOSSES, build_criterion
from segloss.losses.reduction import first_largest
from segloss.metrics import ConfusionMatrix
from segloss.pixel_counts import count_labels

COUNTS = (900, 90, 10)
PRIOR = torch.tensor([0.9, 0.09, 0.01])
RULE = iou_decision(torch.rand(64, 3, generator=torch.Generator().manual_seed(0)).softmax(1))
REFUSED = "scores are NaN or -inf at 1 of 20 pixels, where no class is the largest; the network's weights or input"


def scores(*bad: float) -> torch.Tensor:
    """``(1, 3, 4, 5)``, the scores of one pixel as given."""
    logits = torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    logits[0, : len(bad), 2, 3] = torch.tensor(bad)
    return logits


@pytest.mark.parametrize("tau", [1.0, 0.0, 0.5, RULE], ids=["plain", "tau 0", "tau 0.5", "iou"])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("bad", [(math.nan,), (0.0, math.nan), (-math.inf,) * 3])
def test_no_criterion_decides_what_is_no_number(name, tau, bad):
    criterion = build_criterion(name, COUNTS)
    with pytest.raises(InputError, match=REFUSED):
        criterion.decide(scores(*bad), tau)


@pytest.mark.parametrize("tau", [1.0, 0.0, 0.5, RULE], ids=["plain", "tau 0", "tau 0.5", "iou"])
@pytest.mark.parametrize("name", LOSSES)
def test_an_infinite_score_is_the_largest_or_refused(name, tau):
    """Softmax has no number for it."""
    try:
        decided = build_criterion(name, COUNTS).decide(scores(0.0, math.inf), tau)
    except InputError as error:
        assert "NaN or -inf at 1 of 20 pixels" in str(error)
    else:
        assert int(decided[0, 2, 3]) == 1


@pytest.mark.parametrize("rule", [Decision("prior", 0.5), Decision("tau", 0.0), Decision("iou", terms=RULE)], ids=str)
@pytest.mark.parametrize("read", [lambda c: c, AveragedPosterior, lambda c: CalibratedPosterior(c, FITTED)])
def test_no_reader_of_a_posterior_does(read, rule):
    reader = read(build_criterion("ce", COUNTS))
    values = scores(math.nan)
    if isinstance(reader, AveragedPosterior):
        values = values.softmax(1)
    with pytest.raises(InputError, match=r"NaN or -inf at 1 of 20"):
        decide(reader, values, PRIOR, rule)


FITTED = Calibration(1.5, (0.0, 0.1, -0.1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_class_ruled_out_by_minus_infinity_is_decided_on(dtype):
    values = scores(-math.inf, 1.0, 0.0).to(dtype)
    assert int(build_criterion("ce", COUNTS).decide(values)[0, 2, 3]) == 1


@pytest.mark.parametrize("tau", [1.0, 0.0, 0.5, -1.0, 2.0])
@pytest.mark.parametrize("least", [-math.inf, -3e38])
@pytest.mark.parametrize("name", [*LOSSES, "weighted_ce", "focal+dice"])
def test_a_class_that_is_ruled_out_wins_nowhere(name, least, tau):
    criterion = build_criterion(name, COUNTS)
    values = scores(0.5, least, 0.3)
    assert int(criterion.decide(values, tau)[0, 2, 3]) != 1
    assert float(criterion.posterior(values)[0, 1, 2, 3]) == 0


def test_the_posterior_of_focal_scores_is_a_number_where_a_class_is_ruled_out():
    values = scores(0.5, -math.inf, 0.3).requires_grad_()
    posterior = build_criterion("focal", COUNTS).posterior(values)
    (gradient,) = torch.autograd.grad(posterior[:, 0].sum(), values)
    assert bool(posterior.isfinite().all() and gradient.isfinite().all())


def test_a_decision_that_overflows_is_told_as_that():
    with pytest.raises(InputError, match=r"scores overflow in the decision at 1 of 2 pixels; take a tau nearer to 1"):
        first_largest(torch.tensor([[math.nan, 0.0], [1.0, 2.0]]), torch.zeros(2, 2))


def test_a_finite_score_that_overflows_on_the_way_is_no_fault_of_the_scores():
    assert first_largest(torch.full((1, 2, 3), math.inf), torch.zeros(1, 2, 3)).tolist() == [[0, 0, 0]]


# In an evaluation.


class Broken(nn.Module):
    """The image's first three channels as scores; a channel value of 7 is NaN."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.where(images == 7, math.nan, images.float())


def sample(name: str, at: tuple[int, int] | None, labelled: bool = True, ignored: bool = False) -> dict:
    image = torch.randint(10, 99, (3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(20, dtype=torch.uint8).view(4, 5) % 3
    if at is not None:
        image[1, at[0], at[1]] = 7
    if ignored and at is not None:
        labels[at] = 255
    return {"image": image, "name": name, "size": (4, 5)} | ({"labels": labels} if labelled else {})


def found(*samples: dict) -> list:
    return [*infer(Broken(), build_criterion("ce", COUNTS), [[*samples]], device=torch.device("cpu"))]


@pytest.mark.parametrize("labelled", [True, False])
def test_the_image_is_named(labelled):
    with pytest.raises(InputError, match=r"^b: the network's scores are NaN or infinite at 1 of 20 pixels; look at"):
        found(sample("a", None, labelled), sample("b", (0, 0), labelled))


def test_at_an_ignored_pixel_it_changes_nothing():
    """Where labels say that nothing is known, such as outside a scan."""
    criterion = build_criterion("ce", COUNTS)
    ((_, clean),), ((seen, broken),) = found(sample("a", None)), found(sample("a", (1, 2), ignored=True))
    assert bool(broken.isfinite().all()) and bool((broken[0, :, 1, 2] == 0).all())
    elsewhere = torch.ones(4, 5, dtype=torch.bool)
    elsewhere[1, 2] = False
    torch.testing.assert_close(broken[..., elsewhere], clean[..., elsewhere], rtol=0, atol=0)
    result, _, _ = image_result(seen, broken, criterion, PRIOR, Measures(calibration=True))
    assert result.matrix.sum() == 19 and np.isfinite(result.brier)


# Default ids and empty means.


def test_a_matrix_of_300_classes_does_not_leave_one_of_them_out():
    confusion = ConfusionMatrix(300)
    confusion.update(torch.tensor([[255, 3]]), torch.tensor([[255, 65535]]))
    assert int(confusion.matrix[255, 255]) == 1 and confusion.ignored == 1
    assert ConfusionMatrix(300, ignore_index=None).ignore_index is None
    assert ConfusionMatrix(255).ignore_index == 255
    assert count_labels([torch.tensor([[255, 3]])], 300).pixels[255] == 1


def test_without_a_labelled_pixel_there_is_no_brier_score():
    """It was 0.000, the best there is."""
    labels = torch.full((4, 5), 255, dtype=torch.uint8)
    nothing = {**sample("a", None), "labels": labels}
    result, _, _ = image_result(nothing, scores(), build_criterion("ce", COUNTS), PRIOR, Measures(calibration=True))
    assert calibration(Totals.of([result])) is None
    one, _, _ = image_result(
        sample("b", None), scores(), build_criterion("ce", COUNTS), PRIOR, Measures(calibration=True)
    )
    both = calibration(Totals.of([result, one]))
    assert both is not None and both.brier > 0
