"""Several runs as one: the mean of their posteriors."""

from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segloss.calibration import Calibration
from segloss.errors import InputError
from segloss.evaluation.fitting import plain_tilt
from segloss.inference import AveragedPosterior, Ensemble
from segloss.losses import Criterion
from segloss.runs import Run


class EnsembleReader(AveragedPosterior):
    r"""Reads the mean of posteriors; its tilt is :math:`u_c = \prod_k u_{kc}^{1/n}`, that of equal members theirs.

    So are its plain scores where a member's are no tilted posterior. Of a calibrated member u is what leads from its
    calibrated posterior back to the plain argmax of its scores.
    """

    mean_tilt: Tensor | None

    def __init__(self, criteria: Sequence[Criterion], calibrations: Sequence[Calibration | None] = ()):
        super().__init__(criteria[0])
        self.members = [*zip_longest(criteria, calibrations)]  # no modules of this one: they have their networks
        tilts = [plain_tilt(calibration, criterion.tilt) for criterion, calibration in self.members]
        known = next((tilt for tilt in tilts if tilt is not None), None)
        mean = None
        if known is not None:
            logs = [torch.zeros(len(known)).double() if tilt is None else tilt.double().log() for tilt in tilts]
            mean = torch.stack(logs).mean(0).exp().float()
        self.register_buffer("mean_tilt", mean)

    @property
    def tilt(self) -> Tensor | None:
        return self.mean_tilt

    @property
    def plain_by_tilt(self) -> bool:  # type: ignore[override]
        return all(criterion.plain_by_tilt for criterion, _ in self.members)

    @property
    def plain_by_posterior(self) -> bool:  # type: ignore[override]
        return all(criterion.plain_by_posterior for criterion, _ in self.members)

    def plain_scores(self, posterior: Tensor) -> Tensor:
        """Geometric means of the members', ``(*, C)``; of calibrated ones each to the power of 1 / T, as their tilt."""
        pixels, logs = posterior.reshape(-1, posterior.shape[-1]), []
        for criterion, calibration in self.members:
            undone = pixels if calibration is None else calibration.undo(pixels)
            plain = criterion.plain_scores(undone)
            plain = plain.clamp(min=torch.finfo(plain.dtype).tiny).log()
            logs.append(plain / (1.0 if calibration is None else calibration.temperature))
        return torch.stack(logs).mean(0).exp().view(posterior.shape)


def ensemble_of(runs: Sequence[Run], folder: Path, say: Callable[[str], None]) -> Run:
    """One run whose scores are the mean of the members' posteriors, each calibrated where it was.

    What is fitted to it is kept in ``folder``.

    Raises:
        InputError: members see other classes, bands or image scales.
    """
    first = runs[0]
    for run in runs[1:]:
        for what, ours, theirs in (
            ("other classes", first.classes.names, run.classes.names),
            ("other bands", (first.bands.count, first.bands.dtype), (run.bands.count, run.bands.dtype)),
            ("another image scale", first.config.image_scale, run.config.image_scale),
        ):
            if ours != theirs:
                raise InputError(f"has {what} than {first.path}", "leave it out of --ensemble", run.path)
    say(f"ensemble of {len(runs)}: {', '.join(str(run.path) for run in runs)}")
    for place, run in enumerate(runs):
        if twin := next((other for other in runs[:place] if other.weights == run.weights), None):
            say(f"warning: {run.path} has the weights of {twin.path}: the same network twice, whose say is doubled")
    if len({(run.config.fold, run.counts.images_digest) for run in runs}) > 1:
        what = "other folds" if len({run.config.fold for run in runs}) > 1 else "other images than each other"
        say(f"warning: members were trained on {what}: some may have seen the images of val; score --split test")
    model: Any = Ensemble([(run.model, run.reader) for run in runs])
    reader = EnsembleReader([run.criterion for run in runs], [run.kept.calibration for run in runs])
    path = folder / "ensemble"
    return Run(model, reader, first.classes, first.counts, first.config, path, first.used, first.bands)
