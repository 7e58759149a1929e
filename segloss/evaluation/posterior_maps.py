"""Posteriors as files: float16 .npz or a PNG for each class, and what is known of the network that wrote them.

probability.json in their folder says which class each channel is and what deciding otherwise takes: tilt, calibration,
training pixels, the chosen point. Maps of others do without it.
"""

import io
import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from segloss.calibration import Calibration
from segloss.datasets.finding import PICTURES, list_images
from segloss.datasets.images import read_file
from segloss.datasets.opening import read_bytes
from segloss.decisions import Decision
from segloss.errors import InputError
from segloss.files import write_bytes, write_json
from segloss.inference import AveragedPosterior
from segloss.iou_rule import IoUDecision
from segloss.losses import Criterion, CrossEntropyLoss, OutlyingMSELoss
from segloss.losses.criterion import per_class
from segloss.runs import Run

INDEX = "probability.json"
ARRAYS = (".npz", ".npy")
WHOLE = (np.uint8, np.uint16)  # of 255 or 65535
OF_ONE = 0.01  # how far the sum of a pixel may be from 1; half precision rounds by 0.05 %
MOST_IN_PNG = 254  # classes; where none has more than 1/510, all would be written as 0
CURE = "save criterion.posterior(logits), in 0..1 with sum 1 over the classes"


@dataclass(frozen=True)
class MapIndex:
    """What is known of the maps of a folder; nothing, but for maps that this toolkit wrote.

    Attributes:
        classes: names of the channels.
        training_pixels: of each class.
        tilt: u of the criterion, ``(C,)``; None: all 1.
        calibration: that the maps have been through.
        point: the operating point chosen for the run.
        label_values, true_channel_weight: of the criterion where its plain argmax takes them beside the tilt.
        plain_by_posterior: whether these maps tell the plain argmax of the scores that they were made of.
    """

    classes: tuple[str, ...] | None = None
    training_pixels: tuple[int, ...] | None = None
    tilt: tuple[float, ...] | None = None
    calibration: Calibration | None = None
    point: Decision | None = None
    label_values: tuple[float, ...] | None = None
    true_channel_weight: float = 1.0
    plain_by_posterior: bool = True

    @classmethod
    def of(cls, run: Run) -> "MapIndex":
        criterion, kept = run.criterion, run.kept
        tilt, reads, by_tilt = criterion.tilt, criterion.reads, criterion.plain_by_tilt
        plain = None if tilt is None else tuple(tilt.tolist())
        found = cls(run.classes.names, run.counts.complete.pixels, plain, kept.calibration, kept.point)
        if not by_tilt and isinstance(reads, OutlyingMSELoss):
            values = tuple(reads.label_values.tolist())
            return replace(found, label_values=values, true_channel_weight=reads.true_channel_weight)
        return replace(found, plain_by_posterior=by_tilt and criterion.plain_by_posterior)

    @property
    def criterion(self) -> Criterion:
        """One of this tilt, with this plain argmax."""
        u = None if self.tilt is None else torch.tensor(self.tilt)
        if u is None or self.label_values is None:
            return CrossEntropyLoss(weight=u)
        values = torch.tensor(self.label_values)
        return OutlyingMSELoss(values, weight=u / values, true_channel_weight=self.true_channel_weight)

    def save(self, folder: Path) -> None:
        point = None if self.point is None else {"rule": self.point.rule, "value": self.point.value}
        if self.point is not None and self.point.terms is not None:
            point = {"rule": self.point.rule, "terms": self.point.terms.to_dict()}
        content = {**vars(self), "calibration": self.calibration and self.calibration.to_dict(), "point": point}
        write_json(folder / INDEX, content)

    @classmethod
    def load(cls, folder: Path) -> "MapIndex":
        """Of a folder, empty where it has none; InputError for a damaged file."""
        path = folder / INDEX
        if not path.is_file():
            return cls()
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            calibration, point, names = content["calibration"], content["point"], tuple(map(str, content["classes"]))
            pixels, tilt, values = content["training_pixels"], content["tilt"], content.get("label_values")
            found = cls(
                names,
                pixels and tuple(map(int, pixels)),
                tilt and tuple(map(float, tilt)),
                calibration and Calibration.from_dict(calibration),
                point and _point(point),
                values and tuple(map(float, values)),
                float(content.get("true_channel_weight", 1)),
                bool(content.get("plain_by_posterior", True)),
            )
            bias = found.calibration and found.calibration.bias
            terms = (found.training_pixels, found.tilt, bias, found.label_values)
            if any(len(term or names) != len(names) for term in terms):
                raise ValueError
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                "cannot be read", "save the maps again, or move it away to read them alone", path
            ) from error
        return found


def _point(content: dict[str, Any]) -> Decision | None:
    """The chosen point; None, so that it is fitted to the maps, where it is the rule and was saved without terms."""
    rule = str(content["rule"])
    if rule == "iou":
        return Decision(rule, terms=IoUDecision.from_dict(content["terms"])) if "terms" in content else None
    return Decision(rule, float(content["value"]))


class SavedPosterior(AveragedPosterior):
    """Reads saved posteriors as their run reads scores: operating points put the tilt in and leave calibration out."""

    def __init__(self, index: MapIndex):
        super().__init__(index.criterion)
        self.index, self.calibration = index, index.calibration

    @property
    def plain_by_posterior(self) -> bool:  # type: ignore[override]
        return self.index.plain_by_posterior

    def plain_scores(self, posterior: Tensor) -> Tensor:
        if self.calibration is None:
            return super().plain_scores(posterior)
        undone = self.calibration.undo(posterior.reshape(-1, posterior.shape[-1]))
        return super().plain_scores(undone.view(posterior.shape))

    def natural_scores(self, logits: Tensor) -> Tensor:
        natural = super().natural_scores(logits)
        if self.calibration is None:
            return natural
        return (natural - per_class(torch.tensor(self.calibration.bias), natural)) * self.calibration.temperature


def write_arrays(path: Path, posterior: Tensor) -> None:
    """``path``.npz of one array ``probability``, float16 ``(C, H, W)``."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, probability=posterior.half().cpu().numpy())
    write_bytes(path.with_name(f"{path.name}.npz"), buffer.getvalue())


def write_pictures(path: Path, posterior: Tensor) -> None:
    """``path``/000.png ...: round(255 p) of each class."""
    for c, channel in enumerate(_as_bytes(posterior)):
        write_bytes(path / f"{c:03d}.png", cv2.imencode(".png", channel)[1].tobytes())


def confidence_picture(posterior: Tensor) -> np.ndarray:
    """round(255 p) of the likeliest class, uint8 ``(H, W)``."""
    return _as_bytes(posterior.amax(0))


def _as_bytes(posterior: Tensor) -> np.ndarray:
    return posterior.float().mul(255).round_().byte().cpu().numpy()


def list_maps(folder: Path) -> dict[str, Path]:
    """Maps below a folder by name: NAME.npz, NAME.npy, else folders NAME with a PNG for each class.

    InputError where all pictures lie in the folder itself.
    """
    if arrays := list_images(folder, ARRAYS):
        return arrays
    pictures = list_images(folder)
    if pictures and all(path.parent == folder for path in pictures.values()):
        cure = "save .npz or .npy of (C, H, W), or for each image a folder NAME with 000.png, 001.png ..."
        raise InputError(f"holds {len(pictures)} pictures and no probability maps", cure, folder)
    return {Path(name).parent.as_posix(): path.parent for name, path in pictures.items()}


def holds_maps(folder: Path, form: str) -> bool:
    """Whether a folder of predictions is one of probabilities: as stated, or ``auto``: by its files."""
    if form != "auto":
        return form == "probability"
    return (folder / INDEX).is_file() or (not list_images(folder, PICTURES) and bool(list_images(folder, ARRAYS)))


def files_of(path: Path) -> list[Path]:
    """That a map is made of; pictures in the order of the numbers that their names end in, 2 before 10."""
    if not path.is_dir():
        return [path]
    return sorted(path.glob("*.png"), key=lambda file: (_number_of(file), file.name))


def number_classes(files: Sequence[Path]) -> bool:
    """Whether the names of pictures, in their order, end in 0, 1, 2 ... or in 1, 2, 3 ..."""
    numbers = [_number_of(file) for file in files]
    return numbers[:1] in ([0], [1]) and numbers == [*range(numbers[0], numbers[0] + len(numbers))]


def _number_of(file: Path) -> int:
    found = re.search(r"\d+$", file.stem)
    return int(found[0]) if found else -1


def read_map(path: Path, num_classes: int, valid: np.ndarray) -> Tensor:
    """Probabilities float32 ``(C, H, W)`` with sum 1.

    Where the label is not ``valid``, ``(H, W)``, they may be anything, and are 0 if they are no probabilities.

    Raises:
        InputError: the file cannot be read, or holds another shape, NaN or what are no probabilities.
    """
    values, step = _read_pictures(path) if path.is_dir() else _read_array(path)
    if values.ndim == 4 and 1 in values.shape[:2]:  # nnU-Net's (C, 1, H, W), or a batch of one
        values = values.reshape(-1, *values.shape[2:])
    expected = (num_classes, *valid.shape)
    if values.shape != expected:
        what = f"has shape {values.shape}, its classes and label have {expected} (classes, height, width)"
        raise InputError(what, "save all classes, at the label's size", path)
    probability = torch.from_numpy(values.astype(np.float32, copy=False))
    total = probability.sum(0)
    good = ((total - 1).abs() <= OF_ONE + step * num_classes / 2) & (probability.amin(0) >= 0) & (total > 0)
    if not bool(good.all()):
        wrong = ~good & torch.from_numpy(valid)
        if bool(wrong.any()):
            pixel = probability[:, wrong][:, 0]
            if bool(pixel.isnan().any()):
                raise InputError("holds NaN", "the network's scores are broken, or its input is", path)
            what = f"holds a pixel of sum {float(pixel.sum()):.4g} and smallest value {float(pixel.min()):.4g}"
            raise InputError(what, _cure(pixel, step), path)
        probability = probability.where(good, 0)
        total = total.where(good, 1)
    return probability / total


def _cure(pixel: Tensor, step: float) -> str:
    """For the values of a pixel that are no probabilities, by what they look like; ``step``: of whole numbers."""
    total, by_sum = float(pixel.sum()), "divide each pixel by its sum over the classes"
    if step and round(total / step) in (1, *range(99, 102)):
        return "one-hot maps: save class ids, or 255 for 1; percent: divide by 100 and save as floating point"
    if float(pixel.min()) < 0 or not total:
        return CURE
    if abs(total - 1) <= 0.1:
        return by_sum
    if abs(total - 100) <= 1:
        return "divide percent by 100"
    return f"{CURE}; if each class has a sigmoid of its own, {by_sum}" if float(pixel.max()) <= 1 else CURE


def _read_array(path: Path) -> tuple[np.ndarray, float]:
    """The one array of a file, of whole numbers in 0..1, and the step between two values."""
    try:
        found: Any = np.load(io.BytesIO(read_bytes(path)), allow_pickle=False)
        values = found[found.files[0]] if path.suffix == ".npz" and len(found.files) == 1 else found
        if not isinstance(values, np.ndarray):
            raise InputError(f"holds {len(found.files)} arrays", "save one, of all classes", path)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("cannot be read as an array", "save the map again", path) from error
    kind = values.dtype.kind
    one_a_pixel = values.ndim == 2 or (values.ndim == 3 and len(values) == 1)
    if one_a_pixel and (kind in "biu" or (kind == "f" and np.array_equal(values, values.round()))):
        cure = "save them as PNG of 8 or 16 bits; uint8 or uint16 .npy of (H, W) are read by --prediction-form ids"
        raise InputError(f"holds {values.dtype} class ids of shape {values.shape}, no probabilities", cure, path)
    if values.dtype in WHOLE:
        return _as_shares(values)
    if kind != "f":
        raise InputError(f"holds {values.dtype} values", CURE, path)
    return values, 0.0


def _read_pictures(path: Path) -> tuple[np.ndarray, float]:
    """All channels in 0..1, and the step between two values."""
    files = files_of(path)
    if files and not number_classes(files):
        what = f"its names do not number the classes: {', '.join(file.name for file in files[:4])}"
        raise InputError(what, "call them 000.png, 001.png ... in the order of the class table", path)
    channels = [read_file(file, cv2.IMREAD_UNCHANGED) for file in files]
    forms = {(channel.shape, channel.dtype) for channel in channels}
    if len(forms) != 1 or channels[0].ndim != 2 or channels[0].dtype not in WHOLE:
        raise InputError("holds pictures of several sizes or kinds", "save one grey PNG for each class", path)
    return _as_shares(np.stack(channels))


def _as_shares(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Whole numbers of 8 or 16 bits as what they are of the largest one, and the step between two."""
    full = np.iinfo(values.dtype).max
    return values.astype(np.float32) / full, 1 / full
