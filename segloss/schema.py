"""Scores and comparisons as values: the schema of docs/metrics.md, which files, tables, terminal and page read.

A field is a key of the JSON files, written here and nowhere else. None is ``null``, a number that does not exist; of a
field whose default is None it is a section that was not asked for, and left out.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, ClassVar, TypeVar, get_args, get_type_hints

Ratio = float | None  # in [0, 1]; None where a denominator is 0
T = TypeVar("T", bound="Value")


@dataclass(frozen=True)
class Value:
    """Fields as JSON and back; those in ``FLAT`` have no key of their own, what they hold stands among the others."""

    FLAT: ClassVar[tuple[str, ...]] = ()

    def to_json(self) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if value is not None or f.default is not None:
                plain = _written(value)
                content |= plain if f.name in self.FLAT else {_key(f.name): plain}
        return content

    @classmethod
    def from_json(cls: type[T], content: Mapping[str, Any]) -> T:
        """Keys that are not there are the field's default, those of no field belong to the last of ``FLAT``."""
        kinds, rest, given = get_type_hints(cls), dict(content), {}
        for f in sorted(fields(cls), key=lambda f: f.name in cls.FLAT):
            if f.name in cls.FLAT:
                given[f.name] = _read(kinds[f.name], rest)
                rest = {key: value for key, value in rest.items() if key not in _written(given[f.name])}
            elif _key(f.name) in rest:
                given[f.name] = _read(kinds[f.name], rest.pop(_key(f.name)))
        return cls(**given)


def _key(name: str) -> str:
    return name.rstrip("_")  # "from" is a word of Python


def _written(value: Any) -> Any:
    if isinstance(value, Value):
        return value.to_json()
    if isinstance(value, Mapping):
        return {key: _written(item) for key, item in value.items()}
    return [_written(item) for item in value] if isinstance(value, tuple) else value


def _read(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(kind, UnionType):
        kind = next(one for one in get_args(kind) if one is not NoneType and _fits(one, value))
    if isinstance(value, list):
        return tuple(_read(get_args(kind)[0], item) for item in value)
    return kind.from_json(value) if isinstance(kind, type) and issubclass(kind, Value) else value


def _fits(kind: Any, value: Any) -> bool:
    return not is_dataclass(kind) or all(_key(f.name) in value for f in fields(kind) if f.default is MISSING)


# Of one run, or one folder of masks.


@dataclass(frozen=True, kw_only=True)
class LookedAt(Value):
    """How a network looked at the images: :class:`segloss.inference.Views`."""

    tta_scales: tuple[float, ...] = (1.0,)
    tta_flip: bool = False
    tile: tuple[int, ...] | None
    tile_overlap: float = 0.5


@dataclass(frozen=True, kw_only=True)
class RunOrigin(Value):
    """A trained run on a split; ``decision_tau``: None where another rule decides, ``weights``: their fingerprint."""

    dataset: str
    split: str
    decision: str = "tau 1"
    decision_tau: float | None = 1.0
    checkpoint: str | None = None
    weights: str | None = None
    views: LookedAt = LookedAt(tile=None)
    image_scale: float = 1.0
    precision: str = "32-true"
    skipped: tuple[str, ...] | None = None  # images are never left out


@dataclass(frozen=True, kw_only=True)
class MaskOrigin(Value):
    """A folder of predicted masks against one of labels; ``skipped``: predictions that were left out, and why.

    ``decision``: of probability maps, as of :class:`RunOrigin`.
    """

    predictions: str
    labels: str
    skipped: tuple[str, ...] = ()
    decision: str | None = None


Origin = RunOrigin | MaskOrigin


@dataclass(frozen=True, kw_only=True)
class ClassScores(Value):
    """Of one class. ``counted``: of the measures asked for, by the key that each declares."""

    FLAT = ("counted",)
    name: str
    iou: Ratio
    recall: Ratio
    precision: Ratio
    f1: Ratio
    pixels: int
    images: int
    counted: Mapping[str, Ratio]


@dataclass(frozen=True)
class Group(Value):
    """Some classes and the mean of their IoUs."""

    classes: tuple[str, ...]
    miou: Ratio


@dataclass(frozen=True)
class Groups(Value):
    """First and last third of the classes by their pixels in ``training`` or this ``evaluation``, and the rest."""

    by_pixels_of: str
    head: Group
    middle: Group
    tail: Group


@dataclass(frozen=True)
class WorstClass(Value):
    """The class of lowest IoU."""

    name: str
    iou: float


@dataclass(frozen=True)
class Categories(Value):
    """IoU of merged classes by name, and their mean."""

    miou: Ratio
    iou: Mapping[str, Ratio]


@dataclass(frozen=True)
class Bin(Value):
    """Pixels of about one confidence: the lower edge, their share of all, how many are right, how sure they seem."""

    from_: float
    share: float
    accuracy: float
    confidence: float


@dataclass(frozen=True)
class Calibration(Value):
    """Calibration errors, Brier score, negative log likelihood, and the bins that have pixels.

    ``classwise_ece``: mean over the classes; ``uncalibrated``: the same of the posterior before the run's calibration.
    """

    ece: float
    brier: float
    bins: tuple[Bin, ...]
    nll: float | None = None
    classwise_ece: float | None = None
    uncalibrated: "Calibration | None" = None


@dataclass(frozen=True)
class Part(Value):
    """Mean IoU over some of the images, and over how many classes."""

    name: str
    images: int
    classes_averaged: int
    miou: Ratio


@dataclass(frozen=True)
class Confusion(Value):
    """Pixels of a true class that went to another, and their share of it; ``predicted`` None: to no class."""

    true: str
    predicted: str | None
    share: float
    pixels: int


@dataclass(frozen=True)
class CountTable(Value):
    """Counts of a measure by class and by something else: words first, then whole numbers. ``name``: the measure's."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class RunScores(Value):
    """Every score of one run or folder.

    ``counted``: means of the measures asked for, by the key that each declares. ``own``: over all images that the run
    has, where others have fewer. ``parts``: of ``--by``. ``confusions``: the largest. ``tables``: of measures.
    """

    FLAT = ("origin", "counted")
    origin: Origin
    images: int
    ignored_pixels: int
    unknown_predictions: int
    protocol: str
    miou: Ratio
    mean_accuracy: Ratio
    pixel_accuracy: Ratio
    frequency_weighted_iou: Ratio
    classes_averaged: int
    classes: tuple[ClassScores, ...]
    groups: Groups
    worst_class: WorstClass | None = None
    categories: Categories | None = None
    counted: Mapping[str, Ratio]
    calibration: Calibration | None = None
    own: Part | None = None
    parts: tuple[Part, ...] | None = None
    confusions: tuple[Confusion, ...] | None = None
    tables: tuple[CountTable, ...] | None = None


@dataclass(frozen=True)
class SweepPoint(Value):
    """The scores at one value of a rule of decision; the rule ``iou`` has none."""

    rule: str
    value: float | None
    protocol: str
    classes_averaged: int
    miou: Ratio
    mean_accuracy: Ratio
    pixel_accuracy: Ratio
    tail_miou: Ratio


# Of several side by side.


@dataclass(frozen=True)
class Interval(Value):
    """An estimate and where it may lie, with the degrees of freedom; ``why``: there is no interval, in a sentence."""

    estimate: Ratio
    low: Ratio
    high: Ratio
    why: str | None = None
    df: float | None = None


@dataclass(frozen=True)
class RankedSetting(Value):
    """One run, or the seeds of one setting: the mean IoU and that of each class.

    ``seeds``: the intervals are about other seeds too, not other images only.
    """

    name: str
    miou: Interval
    classes: tuple[Interval, ...]
    runs: int
    members: tuple[str, ...]
    seeds: bool = False


@dataclass(frozen=True)
class Pair(Value):
    """The difference a - b, and how likely the means would lie as far apart if the two were equal.

    ``seeds``: as of :class:`RankedSetting`. ``a_leads``: share of resamples in which a's mean is higher, in old files.
    """

    a: str
    b: str
    miou: Interval
    classes: tuple[Interval, ...]
    p_value: Ratio = None
    seeds: bool = False
    a_leads: Ratio = None


@dataclass(frozen=True)
class Comparison(Value):
    """The settings, best first, and all pairs of them, the better first.

    ``block``: images a block; ``block_chosen``: from the data.
    """

    level: float
    block: int
    protocol: str
    images: int
    ranking: tuple[RankedSetting, ...]
    pairs: tuple[Pair, ...]
    block_chosen: bool = False
