"""Charts of the page as numbers: where along an axis a mark stands, in percent of its width. Templates draw them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segloss.report.color_vision import Color
from segloss.report.wording import own_intervals
from segloss.schema import Comparison, Interval, RankedSetting, RunScores

MOST_STEPS = 5  # of an axis


@dataclass(frozen=True)
class Axis:
    """A scale from ``low`` to ``high``, and the numbers written at it, all in percent."""

    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def around(cls, ratios: Iterable[float | None]) -> "Axis":
        """Round numbers around all ratios; 0 to 100 where there are none.

        >>> Axis.around([0.431, 0.467])
        Axis(low=43, high=47, ticks=(43, 44, 45, 46, 47))
        """
        known = [100 * ratio for ratio in ratios if ratio is not None] or [0, 100]
        width = max(max(known) - min(known), 1e-9)
        step = next(
            step
            for step in sorted(10**power * digit for power in range(-3, 3) for digit in (1, 2, 5))
            if math.ceil(max(known) / step) - math.floor(min(known) / step) <= MOST_STEPS or step >= 2 * width
        )
        first, last = math.floor(min(known) / step), math.ceil(max(known) / step)
        last = max(last, first + 1)
        ticks = tuple(round(step * number, 3) for number in range(first, last + 1))
        return cls(ticks[0], ticks[-1], ticks)

    def place(self, ratio: float) -> float:
        """Percent of the width at which a ratio stands."""
        return self.at(100 * ratio)

    def at(self, percent: float) -> float:
        """The same of a number in percent."""
        return round(100 * (percent - self.low) / (self.high - self.low), 2)


def interval_chart(rows: Sequence[RankedSetting]) -> dict[str, Any]:
    """The settings' means and their intervals on one axis; ``at``: of mean, low and high, None where there is none."""
    means = [row.miou for row in rows]
    axis = Axis.around(number for mean in means for number in (mean.estimate, mean.low, mean.high))
    return {
        "ticks": [{"at": axis.at(tick), "text": f"{tick:g}"} for tick in axis.ticks],
        "rows": [{"name": row.name, "miou": row.miou, "at": _places(row.miou, axis)} for row in rows],
    }


def _places(mean: Interval, axis: Axis) -> dict[str, float | None]:
    found = {"mean": mean.estimate, "low": mean.low, "high": mean.high}
    return {key: None if ratio is None else axis.place(ratio) for key, ratio in found.items()}


def class_chart(
    runs: Mapping[str, RunScores], comparison: Comparison, order: Sequence[int], colors: Sequence[Color | None]
) -> list[dict[str, Any]]:
    """Of each class, in this order, its colour if it is painted and the IoU of every run, with its own interval."""
    own = own_intervals(runs, comparison)
    alone = {row.members[0]: row.classes for row in comparison.ranking if row.members[0] in own and row.runs == 1}
    rows = []
    for c in order:
        bars = []
        for name, scores in runs.items():
            found = alone[name][c] if name in alone else None
            known = found is not None and found.low is not None and found.high is not None
            bars.append({"run": name, "iou": scores.classes[c].iou, "of": found if known else None})
        first = next(iter(runs.values())).classes[c]
        rows.append({"of": first, "color": colors[c], "bars": bars})
    return rows


def without_interval(comparison: Comparison, names: Sequence[str], order: Sequence[int]) -> dict[str, list[str]]:
    """Reason -> the classes, in this order, that have no interval though the mean has one; where that is not so of all
    rows of the ranking, ``pole of A``."""
    rows = [row for row in comparison.ranking if row.miou.low is not None]
    found: dict[str, list[str]] = {}
    for c in order:
        known = [row for row in rows if row.classes[c].estimate is not None]
        lacking = [(row.name, (row.classes[c].why or "").removeprefix("no interval: ")) for row in known]
        lacking = [(name, why) for name, why in lacking if why]
        for why in dict.fromkeys(why for _, why in lacking):
            of = [name for name, reason in lacking if reason == why]
            found.setdefault(why, []).append(names[c] if len(of) == len(rows) else f"{names[c]} of {', '.join(of)}")
    return found
