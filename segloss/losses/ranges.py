"""Ranges of numbers, in words and as a test, and the one refusal of what lies outside."""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from segloss.errors import InputError

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


def is_switch_or_complex(tensor: Tensor) -> bool:
    return tensor.dtype == torch.bool or tensor.is_complex()
