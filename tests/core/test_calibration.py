"""Calibration recovers what was done to a posterior; its scores against torchmetrics and their definitions."""

import doctest
import json

import pytest
import torch
from test_iou_rule import drawn, skewed

import segloss.calibration
from segloss.calibration import Calibration, calibration_scores, ece, fit_calibration
from segloss.iou_rule import iou_decision
from segloss.pixel_sample import PixelSample

BIAS = torch.tensor([0.5, -0.2, 0.4, -0.7], dtype=torch.float64)


def distorted(pixels=100_000):
    """Over-sure and biased posteriors, and labels drawn from the true ones."""
    true = skewed(pixels, 4)
    return (2.5 * (true.log() - BIAS)).softmax(1), drawn(true)


def test_temperature_and_bias_are_recovered():
    fitted = fit_calibration(*distorted())
    assert fitted.temperature == pytest.approx(2.5, rel=0.02)  # 100,000 draws
    torch.testing.assert_close(torch.tensor(fitted.bias).double(), BIAS - BIAS.mean(), rtol=0, atol=0.03)
    assert sum(fitted.bias) == pytest.approx(0, abs=1e-9)


def test_calibration_is_at_the_minimum():
    posterior, labels = distorted(2000)
    fitted = fit_calibration(posterior, labels)
    values = torch.tensor([1 / fitted.temperature, *fitted.bias], dtype=torch.float64, requires_grad=True)
    logs = posterior.float().double().clamp(min=fitted.floor).log()
    loss = torch.nn.functional.cross_entropy(values[0] * logs + values[1:], labels, reduction="sum")
    loss = loss + ((values - torch.tensor([1.0, 0, 0, 0, 0])) ** 2).sum() / 2
    (gradient,) = torch.autograd.grad(loss, values)
    assert gradient.abs().max() < 0.01  # of 2,000 pixels


def test_scores_get_better_and_decisions_find_more():
    sample = PixelSample.of(*distorted())
    fitted = fit_calibration(sample)
    calibrated = sample.map(fitted.apply)
    before, after = calibration_scores(sample), calibration_scores(calibrated)
    assert after.nll < before.nll
    assert after.brier < before.brier
    assert after.ece < 0.01 < 0.1 < before.ece
    assert max(after.classwise_ece) < 0.01 < max(before.classwise_ece)

    def miou_on_labels(pixels):
        rule = iou_decision(pixels, counts="posterior")
        ids = torch.nn.functional.one_hot(rule.decide(pixels.posterior), 4)
        truth = torch.nn.functional.one_hot(sample.labels, 4)
        return float(((ids & truth).sum(0) / (ids | truth).sum(0)).mean())

    assert miou_on_labels(calibrated) > miou_on_labels(sample)


def test_calibrated_posteriors_stay_as_they_are():
    posterior = skewed(100_000, 4)
    fitted = fit_calibration(posterior, drawn(posterior))
    torch.testing.assert_close(fitted.apply(posterior), posterior, rtol=0, atol=0.02)


def test_bias_can_be_left_out():
    fitted = fit_calibration(*distorted(), bias=False)
    assert set(fitted.bias) == {0.0}
    assert fitted.temperature > 1.5


def test_absent_classes_keep_their_scores():
    posterior, labels = skewed(5000, 4), drawn(skewed(5000, 4)[:, :3])
    fitted = fit_calibration(posterior, labels)
    assert fitted.bias[3] == 0
    assert max(map(abs, fitted.bias)) < 3


def test_separable_labels_leave_the_temperature_in_its_range():
    posterior = skewed(5000, 4, spread=3.0)
    fitted = fit_calibration(posterior, posterior.argmax(1))
    assert 0.05 <= fitted.temperature < 1


def test_labels_against_the_posterior_end_at_the_hottest_temperature():
    posterior = skewed(2000, 3)
    fitted = fit_calibration(posterior, posterior.argmin(1))
    assert fitted.temperature == pytest.approx(20)


def test_exact_zeros_are_finite():
    posterior = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.4, 0.6]]).repeat(50, 1)
    labels = torch.tensor([1, 1, 2]).repeat(50)
    fitted = fit_calibration(posterior, labels)
    calibrated = fitted.apply(posterior)
    assert calibrated.isfinite().all()
    assert (calibrated > 0).all()
    assert calibration_scores(posterior, labels).nll == pytest.approx((13.8155 + 0.5108) / 3, rel=1e-3)


def test_large_samples_are_thinned(monkeypatch):
    monkeypatch.setattr(segloss.calibration, "FITTED_PIXELS", 20_000)
    fitted = fit_calibration(*distorted())
    assert 8000 < fitted.pixels <= 20_000
    assert fitted.temperature == pytest.approx(2.5, rel=0.05)


def test_shape_and_dtype_of_applied_posteriors():
    fitted = fit_calibration(*distorted(500))
    image = skewed(12, 4).view(1, 3, 4, 4).movedim(-1, 1)
    assert fitted.apply(image.half()).shape == image.shape
    assert fitted.apply(image.half()).dtype == torch.float32
    torch.testing.assert_close(fitted.apply(image).sum(1), torch.ones(1, 3, 4).double())
    torch.testing.assert_close(Calibration(1.0, (0.0,) * 4).apply(image), image)


def test_scores_follow_their_definitions():
    posterior = skewed(3000, 4, dtype=torch.float32)
    labels = drawn(posterior)
    scores = calibration_scores(posterior, labels)
    p, hot = posterior.double(), torch.nn.functional.one_hot(labels, 4).double()
    assert scores.nll == pytest.approx(float(torch.nn.functional.nll_loss(p.log(), labels)))
    assert scores.brier == pytest.approx(float(((p - hot) ** 2).sum(1).mean()))

    def binned(values, outcomes):
        total = 0.0
        for k in range(15):
            inside = (values > k / 15) & (values <= (k + 1) / 15)
            if inside.any():
                total += float((values[inside].mean() - outcomes[inside].mean()).abs() * inside.sum())
        return total / len(values)

    assert scores.ece == pytest.approx(binned(p.amax(1), hot.gather(1, p.argmax(1, keepdim=True))[:, 0]))
    assert scores.classwise_ece == pytest.approx([binned(p[:, c], hot[:, c]) for c in range(4)])
    assert scores.pixels == 3000


def test_ece_agrees_with_torchmetrics():
    calibration_error = pytest.importorskip("torchmetrics.functional.classification").multiclass_calibration_error
    posterior, labels = distorted(5000)
    assert ece(posterior, labels) == pytest.approx(float(calibration_error(posterior, labels, 4, n_bins=15)), abs=1e-5)


def test_ignored_pixels_do_not_change_the_fit():
    posterior, labels = distorted(1000)
    more = torch.cat([posterior, posterior.flip(1)]), torch.cat([labels, torch.full_like(labels, 255)])
    assert fit_calibration(*more) == fit_calibration(posterior, labels)
    assert calibration_scores(*more) == calibration_scores(posterior, labels)


def test_calibration_survives_json_exactly():
    fitted = fit_calibration(*distorted(500))
    assert Calibration.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_calibration(skewed(9, 3)), "must hold labelled pixels"),
        (lambda: ece(skewed(9, 3), torch.full((9,), 255)), "must hold labelled pixels"),
        (lambda: fit_calibration(skewed(9, 3), torch.zeros(9).long()), "at least two classes"),
        (lambda: fit_calibration(*distorted(9), floor=0.0), r"floor must be in \(0, 0.1\]"),
        (lambda: Calibration(1.0, (0.0, 0.0)).apply(skewed(9, 3)), r"posterior must have shape \(N, 2, \*\)"),
        (lambda: Calibration(1.0, (0.0, 0.0)).apply(torch.tensor([[0.5, 9.0]])), "got 0.5 to 9; turn scores into"),
        (lambda: Calibration.from_dict({}), "calibrate again"),
    ],
)
def test_misuse_is_answered(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_array_is_told_with_its_cure():
    with pytest.raises(TypeError, match=r"must be a torch\.Tensor, got ndarray; take torch\.as_tensor of it"):
        Calibration(1.0, (0.0, 0.0)).apply(skewed(9, 2).numpy())


def test_examples_in_docstrings():
    assert doctest.testmod(segloss.calibration).failed == 0
