"""Metrics with counts of their own: every module here but ``measure`` declares one as ``MEASURE``."""

from importlib import import_module
from pkgutil import iter_modules

from segloss.measures.measure import Column, Measure

__all__ = ["MEASURES", "Column", "Measure"]

_MODULES = sorted(module.name for module in iter_modules(__path__) if module.name != "measure")
_FOUND: list[Measure] = [import_module(f"{__name__}.{name}").MEASURE for name in _MODULES]
MEASURES: dict[str, Measure] = {measure.name: measure for measure in _FOUND}
