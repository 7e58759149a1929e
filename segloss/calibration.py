"""Posteriors that mean what they say: temperature and class bias fitted on labels, and scores of calibration."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from segloss.losses.checks import check_posterior
from segloss.losses.criterion import per_class
from segloss.losses.reduction import working_dtype
from segloss.pixel_sample import PixelSample, Source, blocks

FLOOR = 1e-6
TEMPERATURES = (0.05, 20.0)
BINS = 15
FITTED_PIXELS = 2**18  # C + 1 numbers are known well from so many of a sample


@dataclass(frozen=True)
class Calibration:
    r""":math:`q = \mathrm{softmax}(\log \max(p, \mathrm{floor}) / T + \mathrm{bias})`; see :func:`fit_calibration`.

    Attributes:
        temperature: T; above 1 where the posterior was too sure.
        bias: C numbers that sum to 0; 0 for classes without a label.
        floor: the probability that a smaller one, such as the outlying posterior's exact 0, is taken for.
        pixels: that it was fitted on.
    """

    temperature: float
    bias: tuple[float, ...]
    floor: float = FLOOR
    pixels: int = 0

    def apply(self, posterior: Tensor) -> Tensor:
        """Calibrated posterior of ``(N, C, *)``, float32 or wider. ValueError for another C, or scores."""
        check_posterior(posterior, len(self.bias))
        scores = posterior.to(working_dtype(posterior)).clamp(min=self.floor).log().div(self.temperature)
        return scores.add_(per_class(self._bias, scores)).softmax(1)

    def undo(self, posterior: Tensor) -> Tensor:
        """What :meth:`apply` made this posterior ``(N, C, *)`` of, but for what lay below the floor."""
        scores = posterior.to(working_dtype(posterior))
        scores = scores.clamp(min=torch.finfo(scores.dtype).tiny).log()
        return scores.sub_(per_class(self._bias, scores)).mul_(self.temperature).softmax(1)

    @property
    def _bias(self) -> Tensor:
        return torch.tensor(self.bias, dtype=torch.float64, device="cpu")

    def to_dict(self) -> dict[str, Any]:
        """Numbers and a list, for JSON."""
        return {**asdict(self), "bias": list(self.bias)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Calibration":
        """From :meth:`to_dict`; ValueError where a key is missing, unknown or does not fit."""
        try:
            return cls(**content | {"bias": tuple(float(value) for value in content["bias"])})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"content must be what Calibration.to_dict returns: {error}; calibrate again") from error


@torch.no_grad()
def fit_calibration(
    source: PixelSample | Source, labels: Tensor | None = None, *, bias: bool = True, floor: float = FLOOR
) -> Calibration:
    r"""Temperature and class bias of least negative log likelihood on labelled pixels.

    .. math:: \min_{\beta, b}\; -\sum_i \log \mathrm{softmax}(\beta \log p_i + b)_{y_i}
        + \tfrac12 (\beta - 1)^2 + \tfrac12 \lVert b \rVert^2, \qquad T = 1 / \beta

    by Newton's method in float64. It is convex. The penalty weighs as little as a pixel; it keeps b from drifting along
    the direction that softmax does not see and T from 0 where every pixel is right. A class without a label is left out
    of the softmax and gets b = 0 (its likelihood would send it to minus infinity). T stays in [0.05, 20]. At most 2^18
    pixels of the sample are used.

    >>> over_sure = torch.tensor([[0.99, 0.01]]).repeat(1000, 1)
    >>> fitted = fit_calibration(over_sure, torch.tensor([0] * 800 + [1] * 200), bias=False)
    >>> fitted.apply(over_sure)[0]
    tensor([0.8002, 0.1998])

    Args:
        source: a :class:`PixelSample` with labels, or what :meth:`PixelSample.of` takes.
        labels: of a tensor source, ``(N, *)``.
        bias: False fits the temperature alone.
        floor: smaller probabilities are raised to it; an outlying posterior holds exact zeros.

    Raises:
        ValueError: no labels, or fewer than two classes in them; ``floor`` outside (0, 0.1].

    Source: Guo et al., ICML 2017 (temperature); Alexandari et al., ICML 2020 (bias-corrected temperature).
    """
    if not 0 < floor <= 0.1:
        raise ValueError(f"floor must be in (0, 0.1], got {floor}")
    posterior, known = _labelled(source, labels, FITTED_PIXELS)
    present = torch.bincount(known, minlength=posterior.shape[1]) > 0
    if int(present.sum()) < 2:
        raise ValueError("labels must hold at least two classes to calibrate on, got one; feed more images")
    known = (present.cumsum(0) - 1)[known]
    posterior = posterior.T[present].T
    free = posterior.new_ones(1 + posterior.shape[1], dtype=torch.bool)
    free[1:] = bias
    start = posterior.new_zeros(len(free), dtype=torch.float64)
    start[0] = 1
    parameters = start.clone()
    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    loss, gradient, curvature = _likelihood(posterior, known, parameters, start, floor)
    for _ in range(50):
        outwards = parameters[0] <= low if gradient[0] > 0 else parameters[0] >= high
        free[0] = not bool(outwards)
        step_by = torch.zeros_like(parameters)
        step_by[free] = torch.linalg.solve(curvature[free][:, free], gradient[free])
        if float(gradient @ step_by) < 1e-12 * len(known):
            break
        for _halving in range(20):
            tried = parameters - step_by
            tried[0].clamp_(low, high)
            found = _likelihood(posterior, known, tried, start, floor)
            if found[0] <= loss:
                break
            step_by = step_by / 2
        else:
            break
        parameters, (loss, gradient, curvature) = tried, found
    biases = parameters.new_zeros(len(present)).masked_scatter_(present, parameters[1:])
    return Calibration(1 / float(parameters[0]), tuple(biases.tolist()), floor, len(known))


def _likelihood(
    posterior: Tensor, labels: Tensor, parameters: Tensor, start: Tensor, floor: float
) -> tuple[float, Tensor, Tensor]:
    """The penalised loss above, its gradient and second derivative by (beta, b), float64."""
    drift = parameters - start
    loss, gradient, curvature = float(drift @ drift) / 2, drift.clone(), torch.ones_like(drift).diag()
    for block, true in blocks(posterior, labels):
        logs = block.double().clamp(min=floor).log()
        scores = (parameters[0] * logs).add_(parameters[1:, None]).log_softmax(0)
        loss -= float(scores.gather(0, true[None]).sum())
        q = scores.exp_()
        weighted = q * logs
        mean = weighted.sum(0)
        gradient[0] += (mean - logs.gather(0, true[None])[0]).sum()
        gradient[1:] += q.sum(1) - torch.bincount(true, minlength=len(q))
        mixed = weighted.sum(1) - q @ mean
        curvature[0, 0] += (weighted * logs).sum() - mean @ mean
        curvature[0, 1:] += mixed
        curvature[1:, 0] += mixed
        curvature[1:, 1:] += q.sum(1).diag() - q @ q.T
    return loss, gradient, curvature


def _labelled(source: PixelSample | Source, labels: Tensor | None, most: int | None = None) -> tuple[Tensor, Tensor]:
    sample = source if isinstance(source, PixelSample) else PixelSample.of(source, labels)
    sample = sample if most is None else sample.coarse(most)
    if sample.labels is None or not sample.pixels:
        raise ValueError("source must hold labelled pixels, not all ignored, got none; feed pairs (posterior, labels)")
    return sample.posterior, sample.labels


@dataclass(frozen=True)
class CalibrationScores:
    """How far posteriors are from what happens; 0 is best throughout.

    Attributes:
        nll: mean negative log likelihood of the true class in nats, its probability at least ``FLOOR``.
        brier: mean squared distance of posterior and one-hot label, in [0, 2].
        ece: mean over pixels of |accuracy - confidence| of the pixel's bin, 15 equal bins of the largest probability.
        classwise_ece: the same of each class's own probability and frequency, C numbers; the background's many sure
            pixels do not hide a rare class there.
        pixels: that were scored.
    """

    nll: float
    brier: float
    ece: float
    classwise_ece: tuple[float, ...]
    pixels: int


@torch.no_grad()
def calibration_scores(source: PixelSample | Source, labels: Tensor | None = None) -> CalibrationScores:
    """Scores of labelled posteriors; ``sample.map(calibration.apply)`` gives those after calibration.

    >>> scores = calibration_scores(torch.tensor([[0.75, 0.25]]).repeat(4, 1), torch.tensor([0, 0, 0, 1]))
    >>> scores.ece, scores.brier
    (0.0, 0.375)

    Raises:
        ValueError: no labelled pixel; and as :meth:`PixelSample.update`.

    Source: Guo et al., ICML 2017 (ECE); Nixon et al., CVPRW 2019 (classwise, "static" calibration error).
    """
    posterior, known = _labelled(source, labels)
    num_classes = posterior.shape[1]
    nll = brier = 0.0
    # Sum of probability minus outcome in every bin: of each class, and in the last row of the largest probability.
    gaps = posterior.new_zeros(num_classes + 1, BINS, dtype=torch.float64)
    for block, true in blocks(posterior, known):
        p = block.double()
        at_label = p.gather(0, true[None])[0]
        nll -= float(at_label.clamp(min=FLOOR).log().sum())
        brier += float((p * p).sum() - 2 * at_label.sum()) + len(at_label)
        confidence, decided = p.max(0)
        outcome = torch.zeros_like(p).scatter_(0, true[None], 1)
        values = torch.cat([p, confidence[None]])
        missing = values - torch.cat([outcome, decided.eq(true)[None]])
        bins = (values * BINS).ceil().sub_(1).clamp_(0, BINS - 1).long()
        bins += BINS * torch.arange(num_classes + 1, device=bins.device)[:, None]
        gaps += torch.bincount(bins.flatten(), missing.flatten(), gaps.numel()).view_as(gaps)
    per_row = gaps.abs().sum(1) / len(known)
    return CalibrationScores(
        nll / len(known), brier / len(known), float(per_row[-1]), tuple(per_row[:-1].tolist()), len(known)
    )


def ece(posterior: Tensor, labels: Tensor) -> float:
    """Expected calibration error alone; see :class:`CalibrationScores`."""
    return calibration_scores(posterior, labels).ece
