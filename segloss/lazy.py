"""Names of a package that are imported when they are asked for (PEP 562)."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec


def names_from(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package: its public names, and its modules that nobody has imported yet.

    >>> __getattr__, __dir__ = names_from("segloss", {"segloss.metrics": ("ConfusionMatrix",)})
    >>> __getattr__("ConfusionMatrix").__module__
    'segloss.metrics'

    Args:
        homes: module -> the names that are its.
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def get(name: str) -> object:
        if name in home_of:
            found = getattr(import_module(home_of[name]), name)
            setattr(sys.modules[package], name, found)
            return found
        if not name.startswith("_") and find_spec(f"{package}.{name}") is not None:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home_of})

    return get, names
