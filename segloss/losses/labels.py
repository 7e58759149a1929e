"""Labels: class ids, the label that is ignored, which pixels count."""

from numbers import Integral
from operator import index
from typing import Any

import torch
from torch import Tensor

from segloss.errors import InputError
from segloss.losses.ranges import is_switch_or_complex
from segloss.losses.tracing import is_traced, untransformed

IGNORE_INDEX = 255
WIDE_IGNORE_INDEX = 65535  # in the place of 255 where that is a class
NOTHING_IGNORED = 1 - 2**31  # stands for None where an integer is wanted: no class, nor what a NaN is cast to


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


def check_class_ids(name: str, tensor: Tensor, logits: Tensor | None = None) -> None:
    """TypeError unless they are integers; of the shape of the logits they are maps of classes."""
    if tensor.is_floating_point() or is_switch_or_complex(tensor):
        cure = cure_of_ids(tensor)
        if logits is not None and tensor.shape == logits.shape:
            cure = f"take {name}.argmax(1) of one-hot labels; of mixed ones lam * criterion(logits, a) + "
            cure += "(1 - lam) * criterion(logits, b), a and b being the labels that were mixed"
        raise TypeError(f"{name} must hold integer class ids, got {tensor.dtype}; {cure}")


def cure_of_ids(tensor: Tensor, given: Any = None) -> str:
    """What to do about labels that are no integers; ``given``: what they were, if no tensor."""
    cast = "labels.long()" if given is None or isinstance(given, Tensor) else "np.array(labels).astype(int)"
    if tensor.dtype == torch.bool:
        return f"give {cast}: False is class 0, True class 1"
    return f"give {cast} if they hold whole numbers; a mask that was scaled to 0..1 must be read again"


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
        if ids.shape[place] != num_classes:
            continue
        ids = ids.long()  # torch neither compares nor adds up uint16
        if bool((ids >= 0).all()) and bool((ids.sum(place) == 1).all()):
            what = f"{name} {tuple(ids.shape)} are one-hot along dim {place}"
            raise InputError(what, f"give class ids: {name}.argmax({place})")


def as_map(given: Any) -> Tensor:
    """``torch.as_tensor``; of an array that torch takes not as it is (reversed, read-only, foreign bytes) a copy.

    InputError for numpy's masked arrays, of which torch takes what lies below the mask; TypeError for what is neither a
    tensor nor an array, as a picture of PIL.
    """
    for each in given if isinstance(given, list | tuple) else (given,):
        if hasattr(each, "filled") and bool(each.mask.any()):
            what = f"a masked array is given, {int(each.mask.sum())} of whose {each.size} values are masked"
            raise InputError(what, "no tensor keeps that: give labels.filled(255), the label that is ignored")
    flags: Any = getattr(given, "flags", None)
    is_array = hasattr(flags, "writeable")  # a Series of pandas has flags of another kind
    if is_array and not (flags.writeable and given.dtype.isnative and min(given.strides, default=0) >= 0):
        given = given.astype(given.dtype.newbyteorder("="), order="C")
    if isinstance(given, Tensor) and type(given) is not Tensor:  # of MONAI, fastai ...: what is made of it is a tensor
        with torch._C.DisableTorchFunctionSubclass():
            return given.detach()
    try:
        return given if isinstance(given, Tensor) else torch.as_tensor(given, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        what = f"a tensor or an array of numbers is needed, got {type(given).__name__}: {error}"
        raise TypeError(f"{what}; give numpy.asarray(...) of a picture") from error


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
