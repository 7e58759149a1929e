"""The scores that lie in a run's folder and are of its weights, with intervals where an evaluation made them."""

import json
from dataclasses import dataclass
from typing import Any

from segloss.report.wording import interval_source, own_intervals, scored_how
from segloss.runs import Run
from segloss.schema import Comparison, Interval, RunOrigin, RunScores

OF_TRAINING = ("val_metrics.json", "test_metrics.json")
OF_EVALUATION = "eval-*/metrics.json"


@dataclass(frozen=True)
class KeptScores:
    """Scores on a split; ``miou`` with its interval where there is one, and ``source``: what that is, in words."""

    scores: RunScores
    miou: Interval
    source: str = ""

    @property
    def where(self) -> str:
        """``camvid test``."""
        origin = self.scores.origin
        return f"{origin.dataset} {origin.split}" if isinstance(origin, RunOrigin) else ""

    @property
    def how(self) -> str:
        """``plain``, or what differs from that, and from the protocol of training."""
        protocol = [] if self.scores.protocol == "cityscapes" else [f"protocol {self.scores.protocol}"]
        return ", ".join([*scored_how(self.scores), *protocol]) or "plain"

    @property
    def pixels(self) -> tuple[int | None, ...]:
        """True pixels of each class, which tell the images of one place from those of another."""
        return tuple(row.pixels for row in self.scores.classes)


def kept_scores(run: Run) -> tuple[list[KeptScores], list[str]]:
    """Those of the run's weights, test before val, plain before other decisions; and a line for each file passed over.

    Of the same split, looked at and decided on in the same way, those with an interval are kept.
    """
    found: dict[tuple[str, str], KeptScores] = {}
    own: dict[str, tuple[int | None, ...]] = {}  # by split, of the first file that holds it: that of training
    passed_over = []
    for path in [*(run.folder / name for name in OF_TRAINING), *sorted(run.folder.glob(OF_EVALUATION))]:
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            ours = [kept for kept in _read(content) if _weights(kept) == run.weights]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
            passed_over.append(f"{path}: cannot be read as scores ({type(error).__name__}); score again by eval_seg.py")
            continue
        if not ours:
            passed_over.append(f"{path}: not said to be of these weights; score again by eval_seg.py")
        for kept in ours:
            if kept.pixels != own.setdefault(kept.where, kept.pixels):
                passed_over.append(f"{path}: {kept.where} holds other labels there than in the run's own scores")
                continue
            found[kept.where, kept.how] = kept
    return sorted(found.values(), key=_rank), passed_over


def _rank(kept: KeptScores) -> tuple[int, bool, str]:
    split = kept.where.rpartition(" ")[2]
    return {"test": 0, "val": 1}.get(split, 2), kept.how != "plain", kept.how


def _read(content: dict[str, Any]) -> list[KeptScores]:
    """Of one file, in either form."""
    if "runs" not in content:
        scores = RunScores.from_json(content)
        return [KeptScores(scores, Interval(scores.miou, None, None))]
    runs = {name: RunScores.from_json(scores) for name, scores in content["runs"].items()}
    comparison = Comparison.from_json(content["comparison"])
    intervals, found = own_intervals(runs, comparison), []
    for name, scores in runs.items():
        alone = intervals.get(name)
        source = interval_source(comparison) if alone is not None and alone.low is not None else ""
        found.append(KeptScores(scores, alone or Interval(scores.miou, None, None), source))
    return found


def _weights(kept: KeptScores) -> str | None:
    origin = kept.scores.origin
    return origin.weights if isinstance(origin, RunOrigin) else None
