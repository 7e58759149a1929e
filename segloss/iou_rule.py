r"""The decision that maximises mean IoU, from posteriors alone or with labels.

With T_c true pixels, :math:`\mathrm{TP}_c` right ones and the union U_c of class c over a data set, deciding one more
pixel of posterior p as c changes mean IoU, to first order, by :math:`a_c p_c - b_c`:

.. math:: a_c = (1 + I_c) / U_c, \quad b_c = I_c / U_c, \quad I_c = \mathrm{TP}_c / U_c

so :math:`\arg\max_c a_c p_c - b_c` is best where a and b come from its own counts. Iterated alone that can go round
in circles; the ascent of Frank and Wolfe does not: mix the counts so far with those of the rule that is best at them,
by the share that gives the best mean IoU, and begin again. It needs no labels: :math:`\mathrm{TP}_c` is expected as the
sum of p_c over the pixels decided as c, T_c as that over all. No exponent of the prior can express the offsets b.

Sources: Nowozin, CVPR 2014 (expected IoU); Narasimhan et al., ICML 2015 (Frank-Wolfe over confusion matrices); Koyejo
et al., NeurIPS 2014 (plug-in rules).
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from segloss.losses.checks import check_posterior, class_vector
from segloss.losses.criterion import per_class
from segloss.losses.labels import as_map, check_class_ids, ignore_index_of, ignored_label, ignored_words
from segloss.losses.reduction import first_largest, working_dtype
from segloss.pixel_sample import PixelSample, Source, blocks

PRIOR_EXPONENTS = tuple(k / 10 for k in range(1, 13))
TILT_EXPONENTS = (0.25, 0.5, 0.75)
COARSE_PIXELS = 2**18  # starts are compared and iterated on so many of the sample, the best one then on all
TOLERANCE = 1e-4  # of mean IoU: an ascent has settled when no rule promises more, to first order


@dataclass(frozen=True)
class IoUDecision:
    """The rule :math:`\\arg\\max_c a_c p_c - b_c` and how it came about; comparable, and plain in :meth:`to_dict`.

    Attributes:
        slope: a, C numbers, the largest 1. offset: b, C numbers, in the same unit.
        score: mean IoU on the sample, expected or of its labels, of the classes that occur or are decided.
        plain_score: the same of the caller's plain argmax, never above ``score`` where it is of a tilt. None: what is
            fitted to does not tell it.
        counts: where the counts came from, ``"labels"`` or ``"posterior"``.
        pixels: in the sample.
        settled: whether the last ascent came to its end; ``rounds``: how many it took on all pixels.
        start: where the decision began: ``plain``, ``posterior``, ``prior^-0.3``, ``tilt^0.5`` ..., with labels also
            ``posterior's rule``.
    """

    slope: tuple[float, ...]
    offset: tuple[float, ...]
    score: float
    plain_score: float | None
    counts: str
    pixels: int
    settled: bool
    rounds: int
    start: str

    def decide(self, posterior: Tensor) -> Tensor:
        """Class ids ``(N, *)`` int64 of ``(N, C, *)``; of equal the first. ValueError for another C, or scores."""
        check_posterior(posterior, len(self.slope))
        values, terms = posterior.to(working_dtype(posterior)), (self.slope, self.offset)
        slope, offset = (per_class(torch.tensor(term, dtype=torch.float32, device="cpu"), values) for term in terms)
        return first_largest((values * slope).sub_(offset), posterior)

    def to_dict(self) -> dict[str, Any]:
        """Numbers, words and lists, for JSON; :meth:`from_dict` gives back an equal decision."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "IoUDecision":
        """From :meth:`to_dict`; ValueError where a key is missing, unknown or does not fit."""
        try:
            terms = {key: tuple(float(value) for value in content[key]) for key in ("slope", "offset")}
            decision = cls(**content | terms)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"content must be of IoUDecision.to_dict: {error}; fit the rule again") from error
        if len(decision.slope) != len(decision.offset):
            raise ValueError(
                f"slope has {len(decision.slope)} numbers, offset {len(decision.offset)}; fit the rule again"
            )
        return decision


@torch.no_grad()
def iou_decision(
    source: PixelSample | Source,
    labels: Tensor | None = None,
    *,
    counts: str | None = None,
    tilt: Tensor | None = None,
    plain: Callable[[Tensor], Tensor] | None = None,
    max_rounds: int = 30,
) -> IoUDecision:
    r"""Fit the rule of this module's head to a sample of posteriors; deterministic.

    Exponents of the prior, :math:`\pi_c^{-s}`, and of the tilt are compared by the score. The ascent begins at the
    best of them, at the posterior's argmax and at the plain argmax; the best rule on the way is kept. That is done on
    at most 2^18 pixels and goes on from the best on the whole sample. The plain and the posterior's argmax are
    candidates to the end; with labels, so is the rule that is fitted without them.

    A class that has no mass (no label, or posterior 0 throughout) takes the terms of the class with the smallest
    slope and a hair more offset: nothing speaks for it, so it is decided only where it is likelier than that class.

    >>> posterior = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]])
    >>> rule = iou_decision(posterior)
    >>> rule.decide(posterior), round(rule.plain_score, 3), round(rule.score, 3)
    (tensor([0, 0, 1]), 0.383, 0.481)

    Args:
        source: a :class:`PixelSample`, fed as a network runs; or what :meth:`PixelSample.of` takes, with its defaults.
        labels: of a tensor source, ``(N, *)``.
        counts: ``"posterior"``: expected counts; labels then only say which pixels are ignored. ``"labels"``: counts of
            the labels. None: labels where there are some.
        tilt: u ``(C,)`` of the criterion; its plain argmax is :math:`\arg\max u_c p_c`. None: all 1.
        plain: class ids of posteriors ``(n, C)`` by the plain argmax, where that is of no tilt; for ``plain_score``.
            Of a criterion ``lambda p: criterion.plain_scores(p).argmax(1)``.
        max_rounds: of one ascent, each a pass over the sample; 0 leaves the candidates.

    Raises:
        ValueError: no pixel, ``counts`` or ``tilt`` that does not fit; and as :meth:`PixelSample.update`.
    """
    sample = source if isinstance(source, PixelSample) else PixelSample.of(source, labels)
    posterior, known = sample.posterior, sample.labels
    if not len(posterior):
        raise ValueError("source must hold at least one pixel that is not ignored, got none")
    counts = counts or ("posterior" if known is None else "labels")
    if counts not in ("labels", "posterior"):
        raise ValueError(f"counts must be 'labels', 'posterior' or None, got {counts!r}")
    if counts == "labels" and known is None:
        raise ValueError("counts='labels' needs labels; give them with the posteriors or take 'posterior'")
    if max_rounds < 0:
        raise ValueError(f"max_rounds must be at least 0, got {max_rounds}")
    known = known if counts == "labels" else None
    num_classes = posterior.shape[1]
    starts = {"posterior": _normalised(posterior.new_ones(num_classes, dtype=torch.float64))}
    if tilt is not None:
        tilt = class_vector("tilt", tilt, num_classes).cpu()
        starts = {"plain": _normalised(tilt.double()), **starts}
    if known is not None:
        expected = iou_decision(sample, counts="posterior", tilt=tilt, max_rounds=max_rounds)
        starts["posterior's rule"] = posterior.new_tensor([expected.slope, expected.offset])
    coarse = sample.coarse(COARSE_PIXELS)
    few = (coarse.posterior, coarse.labels if counts == "labels" else None)
    few_true, all_true = _true_pixels(*few), _true_pixels(posterior, known)
    candidates = starts | _exponents(few_true, tilt)
    scores = {name: _score(*_count(*few, rule), few_true) for name, rule in candidates.items()}
    names = [*starts, max(scores, key=lambda name: scores[name])]
    runs = {name: _ascend(*few, few_true, candidates[name], max_rounds) for name in dict.fromkeys(names)}
    name, last = max(runs.items(), key=lambda item: item[1].score)  # of equal ones the first: plain
    if coarse is not sample:
        last = _ascend(posterior, known, all_true, last.rule, max_rounds)
    finals = {start: _scored(posterior, known, all_true, rule) for start, rule in starts.items()}
    told = next(iter(finals.values())).score if plain is None else _score(*_count(posterior, known, plain), all_true)
    start, kept = max([*finals.items(), (name, last)], key=lambda item: item[1].score)
    return IoUDecision(
        slope=tuple(kept.rule[0].tolist()),
        offset=tuple(kept.rule[1].tolist()),
        score=kept.score,
        plain_score=told,
        counts=counts,
        pixels=len(posterior),
        settled=last.settled,
        rounds=last.rounds,
        start=start,
    )


@dataclass(frozen=True)
class _Run:
    """A rule, float32 ``(2, C)`` slope and offset, its score, and the fixed point that it is the best round of."""

    rule: Tensor
    score: float
    settled: bool = False
    rounds: int = 0


def _normalised(slope: Tensor, offset: Tensor | None = None) -> Tensor:
    """A rule, float32 ``(2, C)`` with largest slope 1: what is scored is to the last bit what is handed out."""
    offset = torch.zeros_like(slope) if offset is None else offset
    return (torch.stack([slope, offset]) / slope.max()).float()


def _exponents(true: Tensor, tilt: Tensor | None) -> dict[str, Tensor]:
    """Rules without offset; a class without mass is favoured as little as the commonest."""
    shares = torch.where(true > 0, true, true.max()) / true.max()
    rules = {f"prior^-{s:g}": _normalised(shares**-s) for s in PRIOR_EXPONENTS}
    if tilt is not None:
        rules |= {f"tilt^{s:g}": _normalised(tilt.double() ** s) for s in TILT_EXPONENTS}
    return rules


def _true_pixels(posterior: Tensor, labels: Tensor | None) -> Tensor:
    """T ``(C,)`` float64, expected without labels."""
    if labels is None:
        return torch.stack([block.sum(1, dtype=torch.float64) for block, _ in blocks(posterior)]).sum(0)
    return torch.bincount(labels, minlength=posterior.shape[1]).double()


def _count(
    posterior: Tensor, labels: Tensor | None, rule: Tensor | Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Right (expected without labels) and decided pixels per class, float64 ``(C,)`` each."""
    num_classes = posterior.shape[1]
    hits, decided = posterior.new_zeros(2, num_classes, dtype=torch.float64)
    scores = posterior.new_empty(0)
    for block, true in blocks(posterior, labels):
        if isinstance(rule, Tensor):
            scores = scores if scores.shape == block.shape else posterior.new_empty(block.shape)
            slope, offset = rule.unsqueeze(2)
            ids = torch.mul(block, slope, out=scores).sub_(offset).max(0).indices
        else:
            ids = rule(block.T)
        decided += torch.bincount(ids, minlength=num_classes)
        if labels is None:
            hits += torch.bincount(ids, block.gather(0, ids[None])[0].double(), num_classes)
        else:
            hits += torch.bincount(true[true == ids], minlength=num_classes)
    return hits, decided


def _score(hits: Tensor, decided: Tensor, true: Tensor) -> float:
    """Mean IoU of the classes with a union."""
    union = true + decided - hits
    return float((hits / union)[union > 0].mean())


def _terms(hits: Tensor, decided: Tensor, true: Tensor) -> Tensor:
    """(a, b) of counts, float64 ``(2, C)`` per pixel; see :func:`iou_decision` for classes without mass."""
    union = torch.where(true > 0, true + decided - hits, 1)
    iou = hits / union
    terms = torch.stack([1 + iou, iou]) / union
    slope = torch.where(true > 0, terms[0], torch.inf)
    least = terms[:, slope.argmin()] * slope.new_tensor([1, 1 + 1e-6]) + slope.new_tensor([0, 1e-6]) * slope.min()
    return torch.where(true > 0, terms, least[:, None])


def _scored(posterior: Tensor, labels: Tensor | None, true: Tensor, rule: Tensor) -> _Run:
    return _Run(rule, _score(*_count(posterior, labels, rule), true))


def _ascend(posterior: Tensor, labels: Tensor | None, true: Tensor, rule: Tensor, max_rounds: int) -> _Run:
    """Frank-Wolfe's ascent from ``rule``, which is the first candidate itself; the best rule on its way."""
    mixed = torch.stack(_count(posterior, labels, rule))
    best = _Run(rule, _score(mixed[0], mixed[1], true))
    there, settled, rounds = true > 0, False, 0
    while rounds < max_rounds and not settled:
        rounds += 1
        terms = _terms(mixed[0], mixed[1], true)
        rule = _normalised(*terms)
        counts = torch.stack(_count(posterior, labels, rule))
        score = _score(counts[0], counts[1], true)
        if score > best.score:
            best = _Run(rule, score)
        way = counts - mixed
        gain = (terms[0] * way[0] - terms[1] * way[1])[there].mean()  # what a share of 1 promises, to first order
        settled = abs(float(gain)) <= TOLERANCE or best.score >= 1  # than which nothing is better
        # Of labels the rule need not be the best at its own counts: no share may be better, and half of it is tried.
        mixed = mixed + (_best_share(mixed, way, true) or 0.5) * way
    return _Run(best.rule, best.score, settled, rounds)


def _best_share(mixed: Tensor, way: Tensor, true: Tensor) -> float:
    """How far to go from counts ``mixed`` along ``way``, both ``(2, C)``, for the best score: in [0, 1], to 1e-4."""
    low, high = 0.0, 1.0
    best = 0.0
    for _ in range(2):
        shares = torch.linspace(low, high, 101, dtype=torch.float64, device=mixed.device)
        hits, decided = mixed[:, None] + shares[:, None] * way[:, None]
        union = true + decided - hits
        scores = torch.where(union > 0, hits / union, 0).sum(1) / (union > 0).sum(1)
        best = float(shares[scores.argmax()])  # of equal ones the smallest
        low, high = max(0.0, best - 0.01), min(1.0, best + 0.01)
    return best


@dataclass(frozen=True)
class ClassThreshold:
    """Decide a class where its probability is at least ``threshold``; what that gives on the sample, in [0, 1]."""

    threshold: float
    iou: float
    f1: float
    precision: float
    recall: float


@torch.no_grad()
def class_threshold(
    probabilities: Tensor,
    labels: Tensor | None,
    class_index: int,
    *,
    min_recall: float | None = None,
    ignore_index: int | str | None = "auto",
) -> ClassThreshold:
    r"""The probability from which on one class is best decided, exactly: every threshold that differs is tried.

    The best IoU, or the largest threshold of a wanted recall. F1 = 2 IoU / (1 + IoU), so the best F1 is there too.

    .. math:: \mathrm{IoU} = \mathrm{TP} / (T + n - \mathrm{TP}), \quad \mathrm{recall} = \mathrm{TP} / T

    n counts the pixels with :math:`p \ge \theta`, TP their sum of labels equal to the class, or of p without labels;
    T is that sum over all pixels.

    >>> class_threshold(torch.tensor([0.1, 0.6, 0.7, 0.2]), torch.tensor([0, 0, 1, 0]), 1).threshold
    0.699999988079071

    Args:
        probabilities: P(class|x), any shape: one channel of a posterior, or of :attr:`PixelSample.posterior`.
        labels: class ids of that shape, or None: expected counts. Arrays too.
        class_index: the class in ``labels``.
        min_recall: take the largest threshold whose recall is at least this, in (0, 1]. None: that of the best IoU, of
            equal ones the largest.
        ignore_index: pixels with this label are left out; auto: 255, or 65535 where 255 may be a class.

    Raises:
        TypeError: labels are neither class ids nor booleans.
        ValueError: shapes differ, a probability or ``min_recall`` is out of range, or the class has no mass.
    """
    if min_recall is not None and not 0 < min_recall <= 1:
        raise ValueError(f"min_recall must be in (0, 1], got {min_recall}")
    probabilities, labels = as_map(probabilities), None if labels is None else as_map(labels)
    if labels is not None and labels.shape != probabilities.shape:
        shape = probabilities.shape
        channels = next((d for d in (1, 0) if shape[:d] + shape[d + 1 :] == labels.shape and d < len(shape)), None)
        if channels is not None:
            taken = f"probabilities[{':, ' * channels}{class_index if shape[channels] > 1 else 0}]"
            what = f"probabilities must be of one class, of shape {tuple(labels.shape)}, got {tuple(shape)}"
            raise ValueError(f"{what}; give {taken}")
        raise ValueError(f"labels must have shape {tuple(shape)}, got {tuple(labels.shape)}")
    ignored = ignored_label(ignore_index_of(class_index + 1, ignore_index))
    if labels is not None and labels.dtype != torch.bool:
        check_class_ids("labels", labels)
        labels = labels.long()
        valid = labels != ignored
        probabilities, labels = probabilities[valid], labels[valid]
        if bool((labels < 0).any()):
            what = f"labels hold {int(labels.min())}, which is no class and not {ignored_words(ignored)}"
            raise ValueError(f"{what}; map or ignore it")
    if not bool(((probabilities >= 0) & (probabilities <= 1)).all()):
        raise ValueError("probabilities must be in [0, 1], got NaN or others; take one channel of a posterior")
    values, order = probabilities.flatten().double().sort(descending=True, stable=True)
    gains = values if labels is None else (labels.flatten() == class_index)[order].double()
    hits = gains.cumsum(0)
    if not len(hits) or not hits[-1] > 0:
        raise ValueError(f"class {class_index} must have some pixel in labels, or mass without labels, got none")
    ends = torch.cat([values[1:] < values[:-1], torch.ones(1, dtype=torch.bool, device=values.device)]).nonzero()[:, 0]
    true, hits, decided = hits[-1], hits[ends], ends + 1
    iou, recall = hits / (true + decided - hits), hits / true
    ranked = iou if min_recall is None else (recall >= min_recall).double()
    numbers = (values[ends], iou, 2 * hits / (true + decided), hits / decided, recall)
    best = int(ranked.argmax())  # the first of the largest
    return ClassThreshold(*(float(number[best]) for number in numbers))
