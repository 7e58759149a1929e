"""What all losses share: the ignored label, the checks of shape and label, the one meaning of "mean"."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from numbers import Integral, Real
from operator import index
from typing import Any

import torch
from torch import Tensor

from segloss.errors import InputError

IGNORE_INDEX = 255
WIDE_IGNORE_INDEX = 65535  # in the place of 255 where that is a class
NOTHING_IGNORED = 1 - 2**31  # stands for None where an integer is wanted: no class, nor what a NaN is cast to
REDUCTIONS = ("mean", "sum", "none")
UPSAMPLE = (None, "bilinear")

# Ranges of numbers, in words and as a test that NaN fails: fields of an Option, and what require_number takes.
Range = tuple[str, Callable[[Any], bool]]


def _number(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """The test, failed by what is no number: words, switches, complex numbers, vectors."""
    return lambda value: (
        (
            (isinstance(value, Real) and not isinstance(value, bool))
            or (isinstance(value, Tensor) and value.numel() == 1 and not is_switch_or_complex(value))
        )
        and bool(fits(value))
    )


POSITIVE: Range = ("positive and finite", _number(lambda number: 0 < number < math.inf))
NOT_NEGATIVE: Range = (">= 0 and finite", _number(lambda number: 0 <= number < math.inf))
FINITE: Range = ("finite", _number(lambda number: -math.inf < number < math.inf))
BELOW_ONE: Range = ("in [0, 1)", _number(lambda number: 0 <= number < 1))
PROBABILITY: Range = ("in (0, 1]", _number(lambda number: 0 < number <= 1))
SHARE: Range = ("in [0, 1]", _number(lambda number: 0 <= number <= 1))


def require_number(name: str, number: float, allowed: Range) -> float:
    """The number; ValueError unless it is one and in the range."""
    expected, fits = allowed
    if not fits(number):
        raise InputError(f"{name} must be {expected}, got {number!r}")
    return number


def ignore_index_of(num_classes: int, ignore_index: Any = "auto") -> Any:
    """What is given, or for ``"auto"`` the label that is ignored by default: 255, or 65535 where 255 is a class.

    >>> ignore_index_of(255), ignore_index_of(256)
    (255, 65535)
    """
    if isinstance(ignore_index, str) and ignore_index == "auto":
        return IGNORE_INDEX if num_classes <= IGNORE_INDEX else WIDE_IGNORE_INDEX
    return ignore_index


def ignored_label(ignore_index: int | None) -> int:
    """The label that counts nowhere, as an integer; None ignores nothing.

    >>> ignored_label(255)
    255

    Raises:
        InputError: it is neither an integer nor None.
    """
    if ignore_index is None:
        return NOTHING_IGNORED
    if type(ignore_index) is not int and (isinstance(ignore_index, bool) or not isinstance(ignore_index, Integral)):
        cure = "give one label, as 255, or None to ignore nothing"
        raise InputError(f"ignore_index must be an integer or None, got {ignore_index!r}", cure)
    if not -(2**63) <= ignore_index < 2**63:
        raise InputError(f"ignore_index must fit into 64 bits, got {ignore_index}", "give a label that masks can hold")
    return int(ignore_index)


def ignored_words(ignore_index: int) -> str:
    """For the message on a stray label."""
    return f"ignore_index={None if ignore_index == NOTHING_IGNORED else ignore_index}"


def check_choices(reduction: str, upsample: str | None = None, align_corners: bool = False) -> None:
    """InputError unless each is one of its few values."""
    if reduction not in REDUCTIONS:
        raise InputError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    if upsample not in UPSAMPLE:
        raise InputError(f"upsample must be None or 'bilinear', got {upsample!r}")
    if not isinstance(align_corners, bool):
        raise InputError(f"align_corners must be True or False, got {align_corners!r}")


def is_switch_or_complex(tensor: Tensor) -> bool:
    return tensor.dtype == torch.bool or tensor.is_complex()


def check_class_ids(name: str, tensor: Tensor) -> None:
    """TypeError unless they are integers."""
    if tensor.is_floating_point() or is_switch_or_complex(tensor):
        raise TypeError(f"{name} must hold integer class ids, got {tensor.dtype}")


def check_labels(labels: Tensor) -> None:
    """TypeError unless they are a tensor of class ids."""
    check_tensor("labels", labels)
    check_class_ids("labels", labels)


def require_num_classes(num_classes: int) -> int:
    """The number; ValueError unless it is an integer of at least 2."""
    try:
        number = index(num_classes)
    except TypeError as error:
        raise InputError(f"num_classes must be an integer, got {num_classes!r}") from error
    if number < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}; a binary problem has two classes")
    return number


def refuse_one_hot(name: str, ids: Tensor, num_classes: int) -> None:
    """InputError where maps of integers are one-hot: C maps of 0 and 1, of which one is 1 at each pixel.

    >>> refuse_one_hot("labels", torch.eye(3).long().repeat(1, 8, 1)[..., None], 3)
    Traceback (most recent call last):
    segloss.errors.InputError: labels (1, 24, 3, 1) are one-hot along dim 2; give class ids: labels.argmax(2)
    """
    least = 16 * num_classes  # of fewer numbers it may be by chance
    for place in range(max(0, ids.ndim - 3), ids.ndim) if ids.ndim > 2 and ids.numel() >= least else ():
        if ids.shape[place] == num_classes and bool((ids >= 0).all()) and bool((ids.sum(place) == 1).all()):
            what = f"{name} {tuple(ids.shape)} are one-hot along dim {place}"
            raise InputError(what, f"give class ids: {name}.argmax({place})")


def as_map(given: Any) -> Tensor:
    """``torch.as_tensor``; of an array that torch takes not as it is (reversed, read-only, foreign bytes) a copy."""
    flags = getattr(given, "flags", None)  # of an array
    if flags and not (flags.writeable and given.dtype.isnative and min(given.strides, default=0) >= 0):
        given = given.astype(given.dtype.newbyteorder("="), order="C")
    return given if isinstance(given, Tensor) else torch.as_tensor(given, device="cpu")


def check_scores(logits: Tensor, num_classes: int | None = None) -> None:
    """Raise ValueError or TypeError unless they are scores ``(N, C, *)`` of so many classes, if it is known."""
    check_tensor("logits", logits)
    if is_switch_or_complex(logits):
        raise TypeError(f"logits must be floating point, got {logits.dtype}")
    if logits.ndim < 2:
        raise ValueError(f"logits must have shape (N, C, *), got {tuple(logits.shape)}")
    if num_classes is not None and logits.shape[1] != num_classes:
        cure = "give the scores of the network that was trained with this criterion"
        raise InputError(f"logits must have {num_classes} classes in dim 1, got shape {tuple(logits.shape)}", cure)


def check_logits_and_labels(logits: Tensor, labels: Tensor, reduction: str, upsample: str | None = None) -> None:
    """Raise ValueError or TypeError unless ``logits (N, C, *)`` and ``labels (N, *)`` belong together."""
    check_choices(reduction, upsample)
    check_tensor("logits", logits)
    check_tensor("labels", labels)
    check_device("labels", labels, logits)
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {logits.dtype}")
    check_class_ids("labels", labels)
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
        cure = ""
        if labels.ndim == len(expected) + 1 and labels.shape[1] == 1:
            cure = "; squeeze dim 1"
        elif labels.shape == logits.shape:
            cure = "; take labels.argmax(1) of one-hot labels"
        elif logits.ndim == 3 and labels.shape == logits.shape[1:]:
            cure = "; give a batch: logits[None], labels[None]"
        elif labels.ndim == len(expected) == 3 and all(
            have >= want for have, want in zip(labels.shape, expected, strict=True)
        ):
            cure = '; interpolate the logits, or take OutlyingMSELoss(upsample="bilinear")'
        raise ValueError(
            f"labels must have shape {expected} to match logits {tuple(logits.shape)}, got {tuple(labels.shape)}{cure}"
        )


def check_tensor(name: str, value: Tensor) -> None:
    if not isinstance(value, Tensor):
        inside = isinstance(value, (Mapping, tuple))
        cure = "give the tensor in it, as outputs['out'] or outputs.logits" if inside else "take torch.as_tensor of it"
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
    if tuple(values.shape) != (logits.shape[1],):
        raise ValueError(
            f"{name} must have shape ({logits.shape[1]},) to match logits {tuple(logits.shape)}, "
            f"got {tuple(values.shape)}"
        )
    if positive and is_readable(values) and not bool((untransformed(values) > 0).all()):
        raise ValueError(f"{name} must be positive, got {untransformed(values).tolist()}")


def check_posterior(posterior: Tensor, num_classes: int) -> None:
    """ValueError unless it is a posterior ``(N, C, *)``; of its values on CPU alone that all are in [0, 1]."""
    if posterior.ndim < 2 or posterior.shape[1] != num_classes:
        raise ValueError(f"posterior must have shape (N, {num_classes}, *), got {tuple(posterior.shape)}")
    if is_readable(posterior) and posterior.numel():
        least, most = (float(end) for end in untransformed(posterior.detach()).aminmax())
        if least < 0 or most > 1.01:  # bfloat16 rounds; NaN is no matter of range
            cure = "turn scores into criterion.posterior(logits) first"
            raise ValueError(f"posterior must be in [0, 1], got {least:.4g} to {most:.4g}; {cure}")


def is_readable(tensor: Tensor) -> bool:
    """Whether its values can be looked at without waiting for a device and without a break in a graph."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling() and not is_traced()


def is_traced() -> bool:
    """Whether operations are written down (``make_fx``, ``torch.func.linearize``) or done on shapes alone (fake
    tensors), so that no value can be read; of no use while a graph is compiled.
    """
    modes = torch._C._TorchDispatchModeKey
    return any(torch._C._get_dispatch_mode(mode) is not None for mode in (modes.PROXY, modes.FAKE))


def is_transformed(*tensors: Any) -> bool:
    """Whether ``torch.func`` follows the tensors (grad, vjp, jvp, vmap), forward-mode differentiation, or a trace.

    Only plain operations compose then: the roads made by hand are left.
    """
    if torch.compiler.is_compiling():  # of other transforms it cannot be asked there; the operators refuse them
        return torch.autograd.forward_ad._current_level >= 0
    if is_traced():
        return True
    given = [tensor for tensor in tensors if isinstance(tensor, Tensor)]
    functorch, forward_ad = torch._C._functorch, torch.autograd.forward_ad
    return any(
        functorch.is_functorch_wrapped_tensor(x)
        or functorch.is_legacy_batchedtensor(x)
        or (forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None)  # type: ignore[no-untyped-call]
        for x in given
    )


def untransformed(tensor: Tensor) -> Tensor:
    """The values behind what ``torch.func`` follows, those of all samples of a vmap: for checks, which are no part."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def numbers(name: str, values: Any, dtype: torch.dtype, device: str | None = None) -> Tensor:
    """``torch.as_tensor`` in the dtype; InputError for words, complex numbers and switches."""
    with suppress(TypeError, ValueError, RuntimeError):
        vector = torch.as_tensor(values)
        if not is_switch_or_complex(vector):
            vector = torch.as_tensor(values, dtype=dtype, device=device)
            if vector.is_meta and not getattr(values, "is_meta", False):  # in a network made without memory
                return torch.as_tensor(values, dtype=dtype, device="cpu")
            return vector
    raise InputError(f"{name} must be numbers, one per class, got {values!r}")


def class_vector(name: str, values: Tensor | Sequence[float], num_classes: int | None = None) -> Tensor:
    """A copy as float32 ``(C,)``; ValueError unless C >= 2 (or as given) and all are positive and finite."""
    vector = numbers(name, values, torch.float32).detach().clone()
    if vector.ndim != 1 or len(vector) < 2 or len(vector) != (num_classes or len(vector)):
        expected = "(C,) with at least two classes" if num_classes is None else f"({num_classes},)"
        raise ValueError(f"{name} must have shape {expected}, got {tuple(vector.shape)}")
    if not bool(((vector > 0) & torch.isfinite(vector)).all()):
        raise ValueError(f"{name} must be positive and finite, got {vector.tolist()}")
    return vector


def valid_pixels(labels: Tensor, num_classes: int, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """``(valid, safe)``: which labels count, and int64 labels with 0 where they do not.

    A label that is neither in ``[0, C)`` nor ``ignore_index`` raises IndexError on CPU; in a compiled graph and on
    other devices an assertion fails there, without a synchronisation here.
    """
    labels = labels.long()  # before comparing: in int8 and uint8 an ignore_index out of range would wrap round
    ignore_index = ignored_label(ignore_index)
    valid = labels != ignore_index
    safe = torch.where(valid, labels, 0)
    require_classes(safe, num_classes, ignore_index)
    return valid, safe


def require_classes(labels: Tensor, num_classes: int, ignore_index: int) -> None:
    """IndexError unless all labels, ignored ones already replaced, are in ``[0, C)``; see :func:`valid_pixels`."""
    if not labels.numel() or labels.device.type == "meta":
        return
    compiling = torch.compiler.is_compiling()
    if labels.device.type == "mps" and compiling:  # has no assertions
        return
    labels = labels if compiling else untransformed(labels)
    if labels.device.type not in ("cpu", "mps") or compiling or is_traced():
        inside = ((labels >= 0) & (labels < num_classes)).all()
        torch._assert_async(inside, f"labels outside [0, {num_classes}) and not {ignored_words(ignore_index)}")
        return
    low, high = (int(x) for x in labels.aminmax())
    if low < 0 or high >= num_classes:
        raise IndexError(
            f"labels hold {low if low < 0 else high}, outside [0, {num_classes}) and not "
            f"{ignored_words(ignore_index)}; map the label or ignore it"
        )


def select_valid(scores: Tensor, valid: Tensor) -> Tensor:
    """Scores ``(N, C, *)`` whose gradient is 0 where not valid ``(N, *)``, whatever is there: NaN times 0 is NaN.

    For losses whose value leaves these pixels out anyway. The scores themselves are not copied.
    """
    if torch.compiler.is_compiling() or is_transformed(scores, valid):
        return torch.where(valid.unsqueeze(1), scores, 0)  # costs nothing in generated code
    selected: Tensor = _SelectGradient.apply(scores, valid)
    return selected


class _SelectGradient(torch.autograd.Function):
    """The identity, with a gradient of 0 where not valid."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, valid: Tensor) -> Tensor:
        ctx.save_for_backward(valid)
        return scores.view_as(scores)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ignored = ctx.saved_tensors[0].logical_not().unsqueeze(1)
        if torch.is_grad_enabled() or is_transformed(grad):  # a second derivative will be asked for, or several at once
            return grad.masked_fill(ignored, 0), None
        # In place: softmax has made this gradient just now, for nobody else.
        return grad.masked_fill_(ignored, 0), None


def exact_sum(values: Tensor) -> Tensor:
    """Sum in float64 where the device has it, as float32 or wider."""
    return values.sum(dtype=wide_dtype(values.device, values.dtype)).to(values.dtype)


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


def divide(total: Tensor, divisor: Tensor | float) -> Tensor:
    """A scalar over one number, in its own dtype; not divided where that number is 0: no pixel, so the sum is 0."""
    divisor = torch.as_tensor(divisor, device=total.device).detach().reshape(())
    return total / torch.where(divisor == 0, 1, divisor).to(total.dtype)  # a NaN shows


def share_of(loss: Tensor, own: Tensor, divisor: Tensor | float | None, reduction: str) -> Tensor:
    """``loss * own / divisor``: what a batch is of a whole, where its loss is no sum over pixels; loss without one."""
    check_divisor(divisor, reduction)
    return loss if divisor is None else divide(loss * own.to(loss.dtype), divisor)


def weight_sum(
    labels: Tensor, weight: Tensor | None, ignore_index: int | None, pixel_weight: Tensor | None = None
) -> Tensor:
    """Valid pixels, or the sum of their class weights ``(C,)`` times their own: 0-dim, float64 where there is one."""
    wide = wide_dtype(labels.device, torch.float32)
    if weight is None:
        weights = (labels.long() != ignored_label(ignore_index)).float()
    else:
        valid, safe = valid_pixels(labels, len(weight), ignore_index)
        weights = torch.where(valid, weight.detach()[safe], 0)
    if pixel_weight is not None:
        weights = torch.where(weights > 0, weights * pixel_weight.detach(), 0)
    return weights.sum(dtype=wide)


def reduce_pixels(
    per_pixel: Tensor,
    valid: Tensor,
    reduction: str,
    weight_sum: Tensor | None = None,
    divisor: Tensor | float | None = None,
) -> Tensor:
    """Reduce per-pixel losses that are already 0 where ignored.

    ``"mean"`` divides by ``divisor`` where given, else by ``weight_sum`` (the sum of the valid pixels' class weights),
    else by the number of valid pixels; with no valid pixel it is 0, not NaN.
    """
    check_divisor(divisor, reduction)
    if reduction == "none":
        return per_pixel
    total = exact_sum(per_pixel)
    if reduction == "sum":
        return total
    if divisor is None:
        divisor = valid.sum() if weight_sum is None else weight_sum
    return divide(total, divisor)


def working_dtype(logits: Tensor) -> torch.dtype:
    """Arithmetic is float32 or wider: squares of float16 scores overflow above 255."""
    return torch.promote_types(logits.dtype, torch.float32)


def wide_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """What sums over many pixels are added up in: float64 where the device has it."""
    return dtype if device.type == "mps" else torch.float64


def first_largest(scores: Tensor, given: Tensor | None = None) -> Tensor:
    """``scores.argmax(1)`` for ``(N, C, *)``: the first of the largest, int64 ``(N, *)``.

    Args:
        given: what the scores were made of; default: themselves.

    Raises:
        InputError: as :func:`undecided` says; argmax would take NaN for the largest.
    """
    largest, ids = scores.max(1)  # on CPU 6 times faster than argmax over a dimension that is not the last
    in_graph = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[no-untyped-call]
    in_graph = in_graph or is_transformed(scores)
    if in_graph or scores.device.type == "meta" or bool(largest.isfinite().all()):
        return ids
    best = largest if given is None else given.amax(1)
    pixels = int((undecided(best) | undecided(largest) & best.isinf()).sum())
    if pixels:  # else one score is infinite and the largest, or finite ones have overflowed here
        what = f"scores are NaN or -inf at {pixels:,} of {ids.numel():,} pixels, where no class is the largest"
        raise InputError(what, "the network's weights or input are broken: look at both")
    return ids


def undecided(largest: Tensor) -> Tensor:
    """Where no class is the largest, by the largest score of each pixel: one is NaN, or all are -inf."""
    return largest.isnan() | (largest == -torch.inf)
