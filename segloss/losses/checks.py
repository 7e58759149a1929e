"""Checks of what losses are given: scores, labels, vectors of a number for each class, posteriors, divisors."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from segloss.errors import InputError
from segloss.losses.labels import check_class_ids
from segloss.losses.ranges import NOT_NEGATIVE, is_switch_or_complex, require_number
from segloss.losses.tracing import is_readable, untransformed

REDUCTIONS = ("mean", "sum", "none")
UPSAMPLE = (None, "bilinear")
LOOKED_AT = 4096  # pixels
LEAST_COUNT = 10_000  # pixels of the most frequent class: no weight in whole numbers is as large
FEWEST = 16  # pixels: the scores of fewer may be anything by chance


def check_choices(reduction: str, upsample: str | None = None, align_corners: bool = False) -> None:
    """InputError unless each is one of its few values."""
    if reduction not in REDUCTIONS:
        raise InputError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    if upsample not in UPSAMPLE:
        raise InputError(f"upsample must be None or 'bilinear', got {upsample!r}")
    if not isinstance(align_corners, bool):
        raise InputError(f"align_corners must be True or False, got {align_corners!r}")


def check_labels(labels: Tensor) -> None:
    """TypeError unless they are a tensor of class ids."""
    check_tensor("labels", labels)
    check_class_ids("labels", labels)


def check_scores(logits: Tensor, num_classes: int | None = None) -> None:
    """Raise ValueError or TypeError unless they are scores ``(N, C, *)`` of so many classes, if it is known."""
    check_tensor("logits", logits)
    if is_switch_or_complex(logits):
        raise TypeError(f"logits must be floating point, got {logits.dtype}")
    if logits.ndim < 2:
        raise ValueError(f"logits must have shape (N, C, *), got {tuple(logits.shape)}")
    if num_classes is not None and logits.shape[1] != num_classes:
        cure = _cure_of_dim("logits", logits, num_classes)
        cure = cure or "give the scores of the network that was trained with this criterion"
        raise InputError(f"logits must have {num_classes} classes in dim 1, got shape {tuple(logits.shape)}", cure)


def _cure_of_dim(name: str, scores: Tensor, num_classes: int) -> str:
    """Where the classes stand last, or a batch is wanted: what to do; else nothing."""
    if scores.ndim > 2 and scores.shape[-1] == num_classes:
        return f"put the classes into dim 1: {name}.movedim(-1, 1)"
    return f"give a batch: {name}[None]" if scores.ndim == 3 and scores.shape[0] == num_classes else ""


def check_logits_and_labels(logits: Tensor, labels: Tensor, reduction: str, upsample: str | None = None) -> None:
    """Raise ValueError or TypeError unless ``logits (N, C, *)`` and ``labels (N, *)`` belong together."""
    check_choices(reduction, upsample)
    check_tensor("logits", logits)
    check_tensor("labels", labels)
    check_device("labels", labels, logits)
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {logits.dtype}")
    check_class_ids("labels", labels, logits)
    check_scores(logits)
    if logits.shape[1] < 2:
        raise ValueError(
            f"logits must have at least two classes in dim 1, got shape {tuple(logits.shape)}; "
            "a binary problem has two classes, background and foreground"
        )
    expected = (logits.shape[0], *logits.shape[2:])
    if upsample is not None:
        if logits.ndim != 4 or 0 in logits.shape[2:] or 0 in labels.shape[-2:]:
            what = "upsample needs logits of shape (N, C, h, w) and labels of shape (N, H, W), their images not empty"
            raise ValueError(f"{what}, got {tuple(logits.shape)} and {tuple(labels.shape)}")
        expected = (logits.shape[0], *labels.shape[-2:])
    if tuple(labels.shape) != expected:
        cure = _cure_of_shapes(logits, labels, expected)
        what = f"labels must have shape {expected} to match logits {tuple(logits.shape)}, got {tuple(labels.shape)}"
        raise ValueError(f"{what}{cure and '; '}{cure}")


def _cure_of_shapes(logits: Tensor, labels: Tensor, expected: tuple[int, ...]) -> str:
    """What to do about labels of another shape than the expected one; nothing of shapes that people do not have."""
    shape = tuple(labels.shape)
    if len(shape) == len(expected) + 1 and shape[1] == 1:
        return "squeeze dim 1"
    if shape == (*expected, 1):
        return "take labels.squeeze(-1)"
    if shape == logits.shape:
        return "take labels.argmax(1) of one-hot labels"
    if shape == (*expected, logits.shape[1]):
        return "take labels.argmax(-1) of one-hot labels"
    if logits.ndim == 3 and shape == logits.shape[1:]:
        return "give a batch: logits[None], labels[None]"
    if shape == logits.shape[:-1]:
        return "put the classes into dim 1: logits.movedim(-1, 1)"
    if logits.ndim == 2 and labels.numel() == len(logits):
        return "take labels.flatten()"
    if len(shape) == len(expected) == 3 and all(have >= want for have, want in zip(shape, expected, strict=True)):
        return 'interpolate the logits, or take OutlyingMSELoss(upsample="bilinear")'
    return ""


def check_tensor(name: str, value: Tensor) -> None:
    if not isinstance(value, Tensor):
        cure = "take torch.as_tensor of it"
        if isinstance(value, (Mapping, tuple)):
            cure = "give the tensor in it, as outputs['out'] or outputs.logits"
        elif isinstance(value, list) and any(isinstance(each, Tensor) for each in value):
            cure = "give one of its tensors; of several outputs call the criterion on each and add up the losses"
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}; {cure}")


def check_device(name: str, tensor: Tensor, logits: Tensor) -> None:
    """ValueError unless both are in the same memory: a kernel would read a foreign address."""
    if tensor.device != logits.device:
        cure = f"{name}.to({str(logits.device)!r}), or criterion.to(...) for what a criterion holds"
        raise ValueError(f"{name} must be on {logits.device} like logits, got {tensor.device}; {cure}")


def check_class_vector(name: str, values: Tensor, logits: Tensor, *, positive: bool = True) -> None:
    """Raise ValueError unless ``values`` has shape ``(C,)``. Their sign is checked on CPU only: no device sync."""
    check_tensor(name, values)
    check_device(name, values, logits)
    if is_switch_or_complex(values):
        raise TypeError(f"{name} must be real numbers, got {values.dtype}")
    if tuple(values.shape) != (num_classes := logits.shape[1],):
        cure = _cure_of_dim("logits", logits, len(values)) if values.ndim == 1 else ""
        if not cure and values.ndim == 1 and len(values) == 256:
            cure = f"counts of all bytes hold void too: make the criterion from counts[:{num_classes}]"
        raise ValueError(
            f"{name} must have shape ({num_classes},) to match logits {tuple(logits.shape)}, "
            f"got {tuple(values.shape)}{cure and '; '}{cure}"
        )
    if positive and is_readable(values) and not bool((untransformed(values) > 0).all()):
        got = untransformed(values)
        raise ValueError(f"{name} must be positive, got {got.tolist()}{_cure_of_zero(got)}")


def check_posterior(posterior: Tensor, num_classes: int) -> None:
    """ValueError unless it is a posterior ``(N, C, *)``; of its values on CPU alone that all are in [0, 1]."""
    check_tensor("posterior", posterior)
    if posterior.ndim < 2 or posterior.shape[1] != num_classes:
        cure = _cure_of_dim("posterior", posterior, num_classes)
        raise ValueError(
            f"posterior must have shape (N, {num_classes}, *), got {tuple(posterior.shape)}{cure and '; '}{cure}"
        )
    if is_readable(posterior) and posterior.numel():
        least, most = (float(end) for end in untransformed(posterior.detach()).aminmax())
        if least < 0 or most > 1.01:  # bfloat16 rounds; NaN is no matter of range
            cure = "turn scores into criterion.posterior(logits) first"
            raise ValueError(f"posterior must be in [0, 1], got {least:.4g} to {most:.4g}; {cure}")


def told_as_probabilities(logits: Tensor, of_softmax: bool) -> str:
    """How scores ``(N, C, *)`` show that they went through a softmax or sigmoid; nothing for raw ones.

    Args:
        of_softmax: they are meant as logarithms, which do not all lie in 0..1; multiples of probabilities might.
    """
    some = logits.detach().movedim(1, -1)
    while some[..., 0].numel() > LOOKED_AT:  # views: the scores of a batch are not copied
        longest = max(range(some.ndim - 1), key=lambda axis: some.shape[axis])
        some = some[(slice(None),) * longest + (slice(None, None, 2),)]
    pixels = some.reshape(-1, logits.shape[1])
    least, most = (float(end) for end in pixels.aminmax())
    if len(pixels) < FEWEST or not 0 <= least < most <= 1:
        return ""
    off = float((pixels.sum(1, dtype=torch.float32) - 1).abs().max())
    if off < (1e-4 if pixels.dtype.itemsize >= 4 else 2e-2):
        return "are probabilities, whose sum is 1 at every pixel"
    return "hold 0 to 1 alone, as those of a sigmoid" if of_softmax else ""


def numbers(name: str, values: Any, dtype: torch.dtype, device: str | None = None) -> Tensor:
    """``torch.as_tensor`` in the dtype; InputError for words, complex numbers and switches, and for a pandas Series
    in another order than that of the class ids."""
    if getattr(values, "is_meta", False):
        raise InputError(f"{name} must have values, got a tensor on meta", "give plain numbers, one per class")
    _require_class_order(name, getattr(values, "index", None))
    with suppress(TypeError, ValueError, RuntimeError):
        vector = torch.as_tensor(values)
        if not is_switch_or_complex(vector):
            vector = torch.as_tensor(values, dtype=dtype, device=device)
            if vector.is_meta:  # in a network made without memory
                return torch.as_tensor(values, dtype=dtype, device="cpu")
            return vector
    cure = ""
    if isinstance(values, Mapping):
        cure = f"give a list in the order of the classes, [{name}[c] for c in range(C)]"
    elif str(getattr(values, "dtype", "")) == "object":
        cure = f"they are Python's own objects: {name}.astype(float)"
    raise InputError(f"{name} must be numbers, one per class, got {values!r}", cure)


def _require_class_order(name: str, index: Any) -> None:
    """InputError for class ids, as ``value_counts()`` gives them, that are not 0, 1, 2 ...: they would be passed over.

    Names may be in any order, and a method is that of a list.
    """
    ids = [] if index is None or callable(index) else list(index)
    if ids != [*range(len(ids))] and all(isinstance(each, Real) for each in ids):
        shown = f"{', '.join(map(str, ids[:4]))}{', ...' if len(ids) > 4 else ''}"
        cure = (
            f"{name}.reindex(range(C), fill_value=0), or {name}.to_numpy() where they are in the order of the classes"
        )
        raise InputError(f"{name} must be indexed 0, 1, 2 ..., got {shown}", cure)


def class_vector(name: str, values: Tensor | Sequence[float], num_classes: int | None = None) -> Tensor:
    """A copy as float32 ``(C,)``; ValueError unless C >= 2 (or as given) and all are positive and finite."""
    _refuse_counts(name, values)
    vector = numbers(name, values, torch.float32).detach().clone()
    if vector.ndim != 1 or len(vector) < 2 or len(vector) != (num_classes or len(vector)):
        expected = "(C,) with at least two classes" if num_classes is None else f"({num_classes},)"
        cure = "; give one number per class" if vector.ndim == 0 else ""
        raise ValueError(f"{name} must have shape {expected}, got {tuple(vector.shape)}{cure}")
    if not bool(((vector > 0) & torch.isfinite(vector)).all()):
        raise ValueError(f"{name} must be positive and finite, got {vector.tolist()}{_cure_of_zero(vector)}")
    return vector


def _refuse_counts(name: str, values: Any) -> None:
    """InputError for counts of pixels, as such or as bare numbers: as weights they favour what is frequent."""
    found = hasattr(values, "pixels")
    if not found and not getattr(values, "is_meta", False):
        with suppress(TypeError, ValueError, RuntimeError):
            given = torch.as_tensor(values, device="cpu")
            found = given.numel() > 0 and not given.is_floating_point() and int(given.max()) >= LEAST_COUNT
    if found:
        cure = (
            'make the loss by from_counts(counts), where class_weights="median_frequency" or another makes its weight'
        )
        raise InputError(f"{name} must be one number per class made of the counts, got the counts of pixels", cure)


def _cure_of_zero(vector: Tensor) -> str:
    left_out = bool((vector == 0).any()) and not bool((vector < 0).any())
    return "; to leave a class out give its pixels the ignore_index in the labels" if left_out else ""


def check_divisor(divisor: Tensor | float | None, reduction: str) -> None:
    """ValueError for a divisor that is not one number, or of something else than a mean."""
    if divisor is None:
        return
    if reduction != "mean":
        raise ValueError(f"divisor is what reduction='mean' divides by, got reduction={reduction!r}; leave it out")
    if not isinstance(divisor, Tensor):
        require_number("divisor", divisor, NOT_NEGATIVE)
    elif divisor.numel() != 1:
        raise ValueError(f"divisor must be one number, got {tuple(divisor.shape)}; take criterion.divisor(labels)")
