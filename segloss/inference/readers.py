"""What reads scores that are not one network's logits: posteriors of several views or networks, or calibrated."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segloss.calibration import Calibration
from segloss.inference.views import Views
from segloss.losses import Criterion
from segloss.losses.criterion import per_class
from segloss.losses.reduction import first_largest


class AveragedPosterior(Criterion):
    """Reads posteriors averaged over several views as another criterion reads logits; its ``logits`` are P(c|x).

    Logits of different views have no common scale that all losses share; their posteriors do. What is the plain argmax
    of scores at the optimum for such a posterior is the plain decision here.
    """

    def __init__(self, criterion: Criterion):
        super().__init__()
        self.of = criterion

    @property
    def tilt(self) -> Tensor | None:
        return self.of.tilt

    @property
    def plain_by_tilt(self) -> bool:  # type: ignore[override]
        return self.of.plain_by_tilt

    @property
    def plain_by_posterior(self) -> bool:  # type: ignore[override]
        return self.of.plain_by_posterior

    def plain_scores(self, posterior: Tensor) -> Tensor:
        return self.of.plain_scores(posterior)

    def posterior(self, logits: Tensor) -> Tensor:
        return logits

    def natural_scores(self, logits: Tensor) -> Tensor:
        return logits.clamp(min=torch.finfo(logits.dtype).tiny).log()

    def softmax_scores(self, logits: Tensor) -> Tensor:
        natural = self.natural_scores(logits)
        return natural if self.tilt is None else natural + per_class(self.tilt, natural).log()

    def decide_at(self, logits: Tensor, tau: float) -> Tensor:
        if tau == 1 and not self.plain_by_tilt:
            return first_largest(self.plain_scores(logits.movedim(1, -1)).movedim(-1, 1), logits)
        return first_largest(self.natural_scores(logits).lerp(self.softmax_scores(logits), tau), logits)


class Ensemble(nn.Module):
    """Several networks, each with what reads its scores: images -> the mean of their posteriors."""

    def __init__(self, members: Sequence[tuple[nn.Module, Criterion]]):
        super().__init__()
        self.models = nn.ModuleList(model for model, _ in members)
        self.readers = nn.ModuleList(reader for _, reader in members)

    @property
    def mean(self) -> Tensor:
        """Of the first network's normalisation, which says where the networks are."""
        mean = self.models[0].mean
        assert isinstance(mean, Tensor)
        return mean

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([reader.posterior(model(images).float()) for model, reader in members_of(self, None)]).mean(
            0
        )


def members_of(model: nn.Module, criterion: Criterion | None) -> list[tuple[nn.Module, Any]]:
    """The networks of an ensemble with what reads them, or the one there is."""
    if not isinstance(model, Ensemble):
        return [(model, criterion)]
    return [*zip(model.models, model.readers, strict=True)]


class CalibratedPosterior(Criterion):
    """Reads the posterior through a calibration; operating points read the scores as they are."""

    def __init__(self, criterion: Criterion, calibration: Calibration):
        super().__init__()
        self.of, self.calibration = criterion, calibration
        self.plain_by_posterior = criterion.plain_by_posterior
        # So that a fingerprint of an ensemble is that of its members' calibrations too; no vector of classes.
        self.register_buffer("terms", torch.tensor([[calibration.temperature, *calibration.bias]]))

    @property
    def tilt(self) -> Tensor | None:
        return self.of.tilt

    def posterior(self, logits: Tensor) -> Tensor:
        return self.calibration.apply(self.of.posterior(logits))

    def decide_at(self, logits: Tensor, tau: float) -> Tensor:
        return self.of.decide_at(logits, tau)


def reader_of(criterion: Criterion, views: Views | None = None, calibration: Calibration | None = None) -> Criterion:
    """What reads the scores that :func:`infer` yields."""
    averaged = views and views.several and not isinstance(criterion, AveragedPosterior)
    reader = AveragedPosterior(criterion) if averaged else criterion
    return reader if calibration is None else CalibratedPosterior(reader, calibration)
