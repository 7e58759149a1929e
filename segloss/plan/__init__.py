"""From what data and machine are to a configuration with a reason a line: ``python -m segloss.plan``."""

from typing import TYPE_CHECKING

from segloss.lazy import names_from

if TYPE_CHECKING:
    from segloss.plan.fingerprint import ClassFacts, Fingerprint, MachineFacts, fingerprint_of
    from segloss.plan.make import Advice, Plan, make_plan

__getattr__, __dir__ = names_from(
    __name__,
    {
        "segloss.plan.fingerprint": ("ClassFacts", "Fingerprint", "MachineFacts", "fingerprint_of"),
        "segloss.plan.make": ("Advice", "Plan", "make_plan"),
    },
)

__all__ = ["Advice", "ClassFacts", "Fingerprint", "MachineFacts", "Plan", "fingerprint_of", "make_plan"]
