"""How a network looks at an image: whole or in windows, once or several times."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch.nn.functional as F
from torch import Tensor, nn

from segloss.datasets.classes import mirrored_classes
from segloss.losses import Criterion
from segloss.models import logits_at_size


@dataclass(frozen=True)
class Views:
    """How a network looks at an image: whole or in windows, once or several times.

    Attributes:
        scales: factors on the image's size; several are test-time augmentation.
        flip: look at the mirrored image too.
        tile: ``(h, w)`` of windows, as the network sees them, for images larger than memory allows; None: whole images.
        overlap: share that neighbouring windows have in common, in [0, 1).
        sides: what each class is in the mirrored image; empty: itself.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    tile: tuple[int, int] | None = None
    overlap: float = 0.5
    sides: tuple[int, ...] = field(default=(), repr=False)

    def of_classes(self, names: Sequence[str]) -> "Views":
        """These views where there are such classes: the mirrored one shows a left hand as a right one."""
        return replace(self, sides=mirrored_classes(tuple(names)) if self.flip else ())

    @property
    def several(self) -> bool:
        return self.flip or self.scales != (1.0,)

    @property
    def each(self) -> list[tuple[float, bool]]:
        """Scale of every view, and whether it is mirrored."""
        return [(scale, mirrored) for scale in self.scales for mirrored in ((False, True) if self.flip else (False,))]

    def posterior(self, reader: Criterion, scores: Tensor, mirrored: bool) -> Tensor:
        """That of one view by what reads its scores, of the classes that the image itself shows."""
        found = reader.posterior(scores)
        return found[:, [*self.sides]] if mirrored and self.sides else found


def one_view(model: nn.Module, images: Tensor, size: tuple[int, int], scale: float, mirrored: bool) -> Tensor:
    """float32 logits ``(N, C, *size)`` of images seen at a scale, mirrored or not."""
    if scale != 1:
        new = [max(1, round(side * scale)) for side in images.shape[-2:]]
        images = F.interpolate(images.float(), new, mode="bilinear", antialias=scale < 1, align_corners=False)
    logits = logits_at_size(model, images.flip(-1) if mirrored else images, size)
    return logits.flip(-1) if mirrored else logits
