"""From what data and machine are to a configuration with a reason a line: ``python -m segloss.plan``."""

from segloss.plan.fingerprint import ClassFacts, Fingerprint, MachineFacts, fingerprint_of
from segloss.plan.make import Advice, Plan, make_plan

__all__ = ["Advice", "ClassFacts", "Fingerprint", "MachineFacts", "Plan", "fingerprint_of", "make_plan"]
