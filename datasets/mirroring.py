"""Steps of augmentation that may mirror images, and count it: left and right are swapped there."""

from collections.abc import Sequence
from typing import Any

import albumentations as A
import numpy as np


class Mirroring:
    """Of a step that may mirror images: how many times it did since :class:`TrainTransform` began a sample."""

    times = 0

    def apply_with_params(self, params: dict[str, Any], *args: Any, **data: Any) -> dict[str, Any]:
        self.times += "mask" in data and self.mirrors(params)
        made: dict[str, Any] = super().apply_with_params(params, *args, **data)  # type: ignore[misc]
        return made

    def mirrors(self, params: dict[str, Any]) -> bool:
        return True


class HorizontalFlip(Mirroring, A.HorizontalFlip):  # type: ignore[misc]
    pass


class VerticalFlip(Mirroring, A.VerticalFlip):  # type: ignore[misc]
    pass


class Transpose(Mirroring, A.Transpose):  # type: ignore[misc]
    pass


class D4(Mirroring, A.D4):  # type: ignore[misc]
    def mirrors(self, params: dict[str, Any]) -> bool:
        return params["group_element"] in ("h", "v", "t", "hvt")


class SquareSymmetry(Mirroring, A.SquareSymmetry):  # type: ignore[misc]
    mirrors = D4.mirrors


class Affine(Mirroring, A.Affine):  # type: ignore[misc]
    def mirrors(self, params: dict[str, Any]) -> bool:
        return bool(np.linalg.det(params["matrix"][:2, :2]) < 0)  # of a negative scale along one side


_KINDS = (HorizontalFlip, VerticalFlip, Transpose, D4, SquareSymmetry, Affine)
MIRRORING = {kind.__name__: kind for kind in _KINDS}


def mirroring_among(steps: Sequence[Any]) -> list[Mirroring]:
    """The steps that may mirror images, and those within steps."""
    inner = [found for step in steps for found in mirroring_among(getattr(step, "transforms", ()))]
    return [*(step for step in steps if isinstance(step, Mirroring)), *inner]
