"""Class statistics of the splits of a data set: ``python -m segloss.frequency``."""

from typing import TYPE_CHECKING

from segloss.lazy import names_from

if TYPE_CHECKING:
    from segloss.frequency.command import class_statistics, cooccurrence, every_recipe, main, split_statistics

__getattr__, __dir__ = names_from(
    __name__,
    {
        "segloss.frequency.command": (
            *("class_statistics", "cooccurrence", "every_recipe", "main", "split_statistics"),
        ),
    },
)

__all__ = ["class_statistics", "cooccurrence", "every_recipe", "main", "split_statistics"]
