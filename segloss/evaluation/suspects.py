r"""Which labels are likely wrong: connected regions in which the network is sure of another class than the label's.

.. math:: m_i = P(k_i | x_i) - P(y_i | x_i), \quad k_i = \arg\max_c P(c | x_i), \qquad
    \mathrm{score}(R) = \frac{1}{|R|} \sum_{i \in R} m_i \cdot \max_{i \in R} d_i

A region R is an 8-connected set of labelled pixels of one label y and one k with :math:`m_i \ge 1/2`; :math:`d_i` is
the distance to the nearest pixel outside R, so :math:`\max d` is the radius of the largest disc in it, in pixels:
where outlines of objects are drawn a little otherwise than the network sees them, regions are long and thin.

After: Northcutt et al., "Confident Learning", JAIR 2021 (confident disagreement), here per region.
"""

from collections.abc import Sequence
from threading import Lock
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from segloss.losses.partial_labels import posterior_of_labelled
from segloss.report.suspects import Suspect, SuspectImage

MARGIN = 0.5  # of probability, by which another class leads the labelled one
CONTEXT = 24  # pixels around a region that its crop shows at least
LARGEST_CROP = 320  # rows and columns that are kept of a crop


def regions_of(posterior: Tensor, labels: Tensor, name: str) -> list[Suspect]:
    """All suspect regions of an image.

    Args:
        posterior: P(c|x), ``(C, H, W)``.
        labels: class numbers ``(H, W)``, any other value where ignored.
    """
    num_classes = len(posterior)
    labels = labels.to(posterior.device).long()
    valid = labels < num_classes
    top, ids = posterior.max(0)
    margin = top - posterior.gather(0, labels.where(valid, 0)[None])[0]
    sure = (valid & (margin >= MARGIN)).cpu().numpy()
    if not sure.any():
        return []
    true, predicted, confidence = (x.cpu().numpy() for x in (labels.where(valid, num_classes), ids, top))
    lead = margin.cpu().numpy()
    pairs = np.where(sure, true * num_classes + predicted, -1)
    found = []
    for pair in np.unique(pairs[sure]).tolist():
        rows, columns = (np.flatnonzero((pairs == pair).any(axis)) for axis in (1, 0))
        part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        mask = cv2.copyMakeBorder((pairs[part] == pair).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        count, regions, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        distance = cv2.distanceTransform(mask, cv2.DIST_L2, 5)[1:-1, 1:-1]
        inside = regions[1:-1, 1:-1]
        pixels = stats[:, cv2.CC_STAT_AREA]
        mean_lead, mean_confidence = (
            np.bincount(inside.ravel(), values[part].ravel(), count) / pixels for values in (lead, confidence)
        )
        depth = np.zeros(count)
        np.maximum.at(depth, inside.ravel(), distance.ravel())
        for k in range(1, count):
            left, top_, width, height = stats[k, :4].tolist()
            box = (left - 1 + int(columns[0]), top_ - 1 + int(rows[0]), width, height)
            frame, step = _frame(box, sure.shape)
            crop = np.s_[frame[1] : frame[3] : step, frame[0] : frame[2] : step]
            found.append(
                Suspect(
                    image=name,
                    box=box,
                    labelled=pair // num_classes,
                    predicted=pair % num_classes,
                    pixels=int(pixels[k]),
                    confidence=float(mean_confidence[k]),
                    score=float(mean_lead[k] * depth[k]),
                    frame=frame,
                    labels=true[crop].astype(np.uint16),
                    predictions=predicted[crop].astype(np.uint16),
                    step=step,
                )
            )
    return found


def _frame(box: tuple[int, int, int, int], size: tuple[int, ...]) -> tuple[tuple[int, int, int, int], int]:
    """Left, top, right and bottom of a region's crop in an image ``(H, W)``, and which rows and columns are kept."""
    left, top, width, height = box
    around = max(CONTEXT, max(width, height) // 2)
    frame = (
        *(max(0, left - around), max(0, top - around)),
        *(min(size[1], left + width + around), min(size[0], top + height + around)),
    )
    return frame, -(-max(frame[2] - frame[0], frame[3] - frame[1]) // LARGEST_CROP)


class Suspects:
    """A callback of a source that keeps the ``most`` regions of the highest scores; from several threads at once.

    Attributes:
        images: one for every image that has a region.
    """

    def __init__(self, most: int):
        self.most = most
        self.images: list[SuspectImage] = []
        self._best: list[Suspect] = []
        self._pieces: list[tuple[Tensor, Tensor]] = []
        self._lock = Lock()

    def __call__(self, sample: dict[str, Any], _: Tensor, posterior: Tensor | None) -> None:
        assert posterior is not None  # asked for with calibration
        labels = sample["labels"]
        if "class_mask" in sample:
            posterior = posterior_of_labelled(posterior, sample["class_mask"][None].to(posterior.device))
        if "top" in sample:  # regions know no pieces: the image is held
            self._pieces.append((posterior, labels))
            if sample["top"] + posterior.shape[-2] < sample["size"][0]:
                return
            posterior, labels = torch.cat([p for p, _ in self._pieces], 2), torch.cat([x for _, x in self._pieces])
            self._pieces.clear()
        found = regions_of(posterior[0].nan_to_num(0), labels, sample["name"])
        if not found:
            return
        pixels, labelled = sum(one.pixels for one in found), int((labels.long() < posterior.shape[1]).sum())
        score = max(one.score for one in found)
        with self._lock:
            self.images.append(SuspectImage(sample["name"], score, len(found), pixels, pixels / labelled))
            self._best = sorted([*self._best, *found], key=_rank)[: self.most]

    def join(self, images: Sequence[SuspectImage], best: Sequence[Suspect]) -> None:
        """What was seen elsewhere, of other images."""
        self.images += images
        self._best = sorted([*self._best, *best], key=_rank)[: self.most]

    @property
    def best(self) -> list[Suspect]:
        """The highest score first, whatever the order in which images came."""
        return self._best

    @property
    def ranked_images(self) -> list[SuspectImage]:
        """The highest score first."""
        return sorted(self.images, key=lambda image: (-image.score, -image.pixels, image.image))


def _rank(one: Suspect) -> tuple[float, int, str, tuple[int, ...]]:
    return -one.score, -one.pixels, one.image, (*one.box, one.labelled, one.predicted)
