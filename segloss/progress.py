"""How an iteration is watched: the one type of what draws a bar around it."""

from collections.abc import Iterable
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Progress(Protocol):
    """``progress(iterable, length)`` yields the same items, and may show how far it is."""

    def __call__(self, iterable: Iterable[Item], length: int, /) -> Iterable[Item]: ...
