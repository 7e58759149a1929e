"""What an option of a command is, declared once beside what it is an option of: flags, files and help read it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Option:
    """One option: of a loss, a network, a measure.

    Attributes:
        default: used where none is given; its type is that of the option.
        help: what it does, for ``--help`` and docs.
        expected: what a value must be, in words, for the message on one that is not.
        fits: whether a value is that.
        flag: form of the flag where it is not one plain word (``nargs``, ``metavar``, ``type``, ``lone``).
    """

    default: Any
    help: str
    expected: str = ""
    fits: Callable[[Any], bool] = lambda value: True
    flag: tuple[tuple[str, Any], ...] = ()
