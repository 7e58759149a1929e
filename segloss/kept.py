"""What was fitted to a run's weights and lies in its folder: calibration, the IoU rule, a chosen operating point.

decision.json: fingerprint of the weights -> ``checkpoint`` (a file name), ``calibration``, ``rule`` and ``point``. The
first two hold ``terms`` and what they were fitted on; a rule fitted beside labels also ``miou`` of ``plain`` and
``iou`` on these. Weights that are trained on have another fingerprint and find nothing there. A folder that was given
away holds the same in config.json, under ``decision``.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segloss.calibration import Calibration
from segloss.decisions import POINTS, Decision
from segloss.errors import InputError
from segloss.files import write_json
from segloss.hub import CONFIG, DECISION, is_given, read_config
from segloss.iou_rule import IoUDecision

FILE = "decision.json"
OLD_FILE = "operating_point.json"  # named its weights by their file alone
COMPILED = "_orig_mod."  # in names, where torch.compile gave a module that holds the network
DAMAGED = ("cannot be read as decisions", "move it away, then choose or fit again")


def fingerprint(*modules: nn.Module) -> str:
    """A hash of all parameters and buffers: of their names, types, shapes and bytes; the same on every device, and of
    what ``torch.compile`` has wrapped."""
    digest = hashlib.blake2b(digest_size=16)
    for place, module in enumerate(modules):
        state = {name.replace(COMPILED, ""): tensor for name, tensor in module.state_dict().items()}
        for name, tensor in sorted(state.items()):
            digest.update(repr((place, name, str(tensor.dtype), tuple(tensor.shape))).encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


@dataclass(frozen=True)
class Kept:
    """What a folder holds for some weights.

    Attributes:
        calibration, rule: as fitted; the rule reads the calibrated posterior.
        point: the operating point that ``--choose-metric`` chose; of rule ``iou`` with the terms of ``rule``.
        plain_better: by the labels that the rule was fitted beside, the plain argmax has the higher mean IoU.
        others: checkpoint files whose weights, others than these, something was fitted to.
    """

    calibration: Calibration | None = None
    rule: IoUDecision | None = None
    point: Decision | None = None
    others: tuple[str, ...] = ()
    plain_better: bool = False

    @property
    def decision(self) -> Decision | None:
        """The point that somebody chose, else the better one of plain argmax and rule."""
        rule = None if self.rule is None else Decision("iou", terms=self.rule)
        return self.point or (Decision() if self.plain_better else rule)


def kept_file(folder: Path) -> Path:
    """The file in which a folder keeps it."""
    return folder / (CONFIG if is_given(folder) else FILE)


def entry_of(folder: Path, weights: str) -> dict[str, Any] | None:
    """What the folder holds for these weights, as it is written; of a sound file."""
    return _entries(kept_file(folder)).get(weights)


def load_kept(folder: Path, weights: str) -> Kept:
    """What the folder holds for these weights; InputError for a damaged file."""
    path = kept_file(folder)
    try:
        entries = _entries(path)
        entry = entries.pop(weights, {})
        fitted = {name: entry[name]["terms"] for name in ("calibration", "rule") if name in entry}
        rule = IoUDecision.from_dict(fitted["rule"]) if "rule" in fitted else None
        miou = entry["rule"].get("miou", {}) if rule else {}
        return Kept(
            Calibration.from_dict(fitted["calibration"]) if "calibration" in fitted else None,
            rule,
            _point(entry["point"], rule) if "point" in entry else None,
            tuple(str(other["checkpoint"]) for other in entries.values()),
            bool(miou) and float(miou["plain"]) > float(miou["iou"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what, cure = DAMAGED
        raise InputError(what, cure if path.name == FILE else "use another copy", path) from error


def save_kept(folder: Path, weights: str, checkpoint: str, items: Mapping[str, Any], *, alone: bool = False) -> Path:
    """Put items beside what is kept for these weights, and drop what is kept for earlier ones of that checkpoint file.

    A new calibration drops a point of rule ``prior`` and a rule that do not come with it: they read another posterior.

    Args:
        alone: drop what is kept for any other weights.
    """
    path = kept_file(folder)
    try:
        entries = _entries(path)
        others = {} if alone else {key: e for key, e in entries.items() if e["checkpoint"] != checkpoint}
        entry = entries.get(weights, {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        others, entry = {}, {}
    if "calibration" in items:
        entry = {key: value for key, value in entry.items() if key == "point" and value["rule"] == "tau"}
    content = {**others, weights: {**entry, **items, "checkpoint": checkpoint}}
    write_json(path, content if path.name == FILE else {**read_config(folder), DECISION: content})
    return path


def _entries(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no number")

    content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    content = content if path.name == FILE else content.get(DECISION, {})
    return {weights: dict(entry.items()) for weights, entry in content.items()}


def _point(content: Mapping[str, Any], rule: IoUDecision | None) -> Decision:
    if content["rule"] == "iou" and rule is not None:
        return Decision("iou", terms=rule)
    found = Decision(str(content["rule"]), float(content["value"]))
    if found.rule not in POINTS or not math.isfinite(found.value):
        raise ValueError(f"{found} is no operating point")
    return found
