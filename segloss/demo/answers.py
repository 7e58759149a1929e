"""What the page shows of an image: its picture, its classes and their probabilities under a decision."""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segloss.datasets.bands import Bands, read_bands
from segloss.datasets.classes import map_dtype
from segloss.datasets.finding import IMAGE_SUFFIXES
from segloss.datasets.images import read_header
from segloss.decisions import Decision
from segloss.errors import InputError
from segloss.runs import Run

MOST_BYTES = 32 * 2**20  # of a file
MOST_PIXELS = 2**24  # of an image of few classes
MOST_SIDE = 2**14  # what browsers draw on
MOST_SCORES = 2**28  # pixels x classes, of an image and of all that are kept: 1 GiB


@contextmanager
def _told_of(name: str, bands: Bands) -> Iterator[None]:
    """What is wrong with a file, under the name it came with."""
    try:
        yield
    except InputError as error:
        raise InputError(error.what, f"this run takes images of {bands.describe()}", name) from error


class GoneError(KeyError):
    """The scores of an image are kept no longer."""


@dataclass
class Seen:
    """An image that the network has seen: its picture ``(H, W, 3)`` uint8 and its logits ``(1, C, H, W)``."""

    picture: np.ndarray
    logits: Tensor


class Answers:
    """Images seen by a run, under numbers; of several threads one at a time uses the network."""

    def __init__(self, run: Run):
        self.run = run
        self.most_pixels = min(MOST_PIXELS, MOST_SCORES // len(run.classes))
        self._seen: dict[int, Seen] = {}
        self._next = 1
        self._lock = threading.Lock()

    def facts(self) -> dict[str, Any]:
        """What the page says of the run, and the decisions that it offers, as JSON has it."""
        run, kept = self.run, self.run.kept
        moves = run.criterion.tilt is not None
        decisions: list[dict[str, Any]] = [
            {"words": "plain", "title": "largest score", "note": "the plain argmax"},
            {
                "words": "tau",
                "title": "tau",
                "note": "0: most pixels right, 1: largest score" if moves else "moves nothing: this loss has no tilt",
                "slider": moves,
            },
        ]
        if kept.rule is not None:
            decisions.append({"words": "iou", "title": "for mean IoU", "note": "the rule that was fitted to the run"})
        if kept.point is not None and kept.point.rule != "iou":
            decisions.append({"words": "auto", "title": str(kept.point), "note": "chosen for this run"})
        own = kept.decision or Decision()
        start = "auto" if decisions[-1]["words"] == "auto" else "iou" if own.rule == "iou" else "plain"
        return {
            "name": run.name,
            "network": f"{run.config.arch}, encoder {run.config.encoder}, loss {run.config.loss}",
            "takes": run.bands.describe(),
            "calibrated": kept.calibration is not None,
            "classes": [
                {"name": name, "color": list(color)}
                for name, color in zip(run.classes.names, run.classes.colors, strict=True)
            ],
            "decisions": decisions,
            "start": start,
            "most_bytes": MOST_BYTES,
            "most_pixels": self.most_pixels,
            "endings": list(IMAGE_SUFFIXES),
        }

    def look(self, name: str, content: bytes) -> dict[str, Any]:
        """Let the network see a file; number and size of the image.

        Raises:
            InputError: it is no image, too large, or none of the run's bands.
        """
        image = self._read(name, content)
        with self._lock, torch.inference_mode():
            seen = Seen(self.run.bands.picture(image), self.run.scores(image))
            if not bool(seen.logits.isfinite().all()):
                raise InputError("the network's scores of it are NaN or infinite", "try another image", name)
            self._make_room(seen.logits.numel())
            number, self._next = self._next, self._next + 1
            self._seen[number] = seen
        height, width = image.shape[:2]
        return {"image": number, "width": width, "height": height}

    def _read(self, name: str, content: bytes) -> np.ndarray:
        """The pixels of a file, which is looked at before it is decoded."""
        bands, ending = self.run.bands, Path(name).suffix.lower()
        if ending not in IMAGE_SUFFIXES:
            raise InputError("is no image that is read here", f"known are {', '.join(IMAGE_SUFFIXES)}", name)
        with tempfile.TemporaryDirectory(prefix="segloss-demo-") as folder:
            path = Path(folder, f"image{ending}")
            path.write_bytes(content)
            with _told_of(name, bands):
                height, width = read_header(path).size
            if height * width > self.most_pixels or max(height, width) > MOST_SIDE:
                most = f"the {self.most_pixels:,} pixels, {MOST_SIDE:,} a side, that are seen at once"
                raise InputError(f"is {width} x {height}, more than {most}", "cut it or make it smaller", name)
            with _told_of(name, bands):
                return read_bands(path, bands)[0]

    def _make_room(self, scores: int) -> None:
        """Forget the oldest images, as far as that many scores need it."""
        while self._seen and scores + sum(seen.logits.numel() for seen in self._seen.values()) > MOST_SCORES:
            del self._seen[min(self._seen)]

    def _of(self, number: int) -> Seen:
        try:
            return self._seen[number]
        except KeyError as error:
            raise GoneError(number) from error

    def picture(self, number: int) -> bytes:
        """A JPEG of what the network saw; GoneError if the image is kept no longer."""
        import cv2

        bgr = np.ascontiguousarray(self._of(number).picture[..., ::-1])
        return bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])[1])

    def decided(self, number: int, words: str) -> bytes:
        """Class numbers of all pixels, row by row, then the probabilities of these classes in 1/255.

        A number has one byte, of more than 254 classes two, the lower first.

        Raises:
            GoneError: the image is kept no longer. ValueError: the words are no decision. InputError: the run has none.
        """
        decision = self.run.decision_of(words)
        seen = self._of(number)
        with self._lock, torch.inference_mode():
            classes = self.run.decode(seen.logits, decision)
            probability = self.run.reader.posterior(seen.logits).gather(1, classes[:, None])[0, 0]
        numbers = classes[0].cpu().numpy().astype(map_dtype(len(self.run.classes)))
        shares = (255 * probability.float().clamp(0, 1)).round().to(torch.uint8).cpu().numpy()
        return numbers.astype(numbers.dtype.newbyteorder("<")).tobytes() + shares.tobytes()
